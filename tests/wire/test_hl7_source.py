"""HL7 messages as documents: what is taken, and how segments group into entries."""

import pytest

from gateway.domain.order import OrderControl
from gateway.domain.refusal import Refusal, RefusalKind, Refused
from gateway.domain.source import Kind, parse_path
from gateway.wire.er7 import parse
from gateway.wire.hl7_source import HANDLED, HL7Document, HL7Entry, document


def read(*segments: str, kind: str = "ORM^O01") -> HL7Document:
    message = [f"MSH|^~\\&|RIS|RAD|GW|RAD|20260705||{kind}|1|P|2.5.1", *segments]
    return document(parse("\r".join(message).encode()))


def refusals(*segments: str, kind: str = "ORM^O01") -> tuple[Refusal, ...]:
    with pytest.raises(Refused) as raised:
        read(*segments, kind=kind)
    return raised.value.refusals


def texts(entry: HL7Entry, path: str) -> list[str]:
    return [sourced.repetition[0][0] for sourced in entry.read(parse_path(path))]


def places(entry: HL7Entry, path: str) -> list[str]:
    return [sourced.where for sourced in entry.read(parse_path(path))]


@pytest.mark.parametrize(("code", "event"), HANDLED)
def test_every_handled_type_has_its_kind(code: str, event: str) -> None:
    segments = {"ADT": ["PID|||1", "MRG|2"]}.get(code, ["PID|||1", "ORC|NW|P", "OBR|1"])
    assert read(*segments, kind=f"{code}^{event}").kind is HANDLED[code, event][0]


def test_event_may_be_left_out_where_the_type_has_only_one() -> None:
    assert read("PID|||1", "ORC|NW|P", kind="ORM").kind is Kind.ORDER


@pytest.mark.parametrize(
    ("kind", "refused", "where"),
    [
        ("QRY^A19", RefusalKind.UNSUPPORTED_TYPE, "MSH-9.1"),
        ("ADT^A99", RefusalKind.UNSUPPORTED_EVENT, "MSH-9.2"),
        ("ADT", RefusalKind.UNSUPPORTED_EVENT, "MSH-9.2"),
        ("ORM^O02", RefusalKind.UNSUPPORTED_EVENT, "MSH-9.2"),
    ],
)
def test_other_types_and_events_are_named(kind: str, refused: RefusalKind, where: str) -> None:
    (refusal,) = refusals("PID|||1", kind=kind)
    assert (refusal.kind, refusal.where) == (refused, where)


def test_segments_without_which_nothing_makes_sense() -> None:
    assert refusals("ORC|NW|P")[0].where == "PID"
    assert refusals("PID|||1")[0].where == "ORC"
    assert refusals("PID|||1", "MRG|2", "PID|||3", kind="ADT^A40")[0].where == "MRG[2]"


def test_every_unknown_order_control_is_told() -> None:
    said = refusals("PID|||1", "ORC|NW|P1", "ORC|RP|P2", "ORC||P3")
    assert [(refusal.kind, refusal.where) for refusal in said] == [
        (RefusalKind.UNKNOWN_CODE, "ORC[2]-1"),
        (RefusalKind.MISSING_FIELD, "ORC[3]-1"),
    ]
    assert "NW, XO, CA, DC, SC" in said[0].hint


def test_each_pair_is_an_entry_that_sees_the_patient() -> None:
    entries = read("PID|||1", "PV1||O", "ORC|NW|P1||||", "OBR|1|||A", "ORC|XO|P2|||sc", "OBR|2|||B").entries
    assert [texts(entry, "OBR-4") for entry in entries] == [["A"], ["B"]]
    assert [texts(entry, "PID-3") for entry in entries] == [["1"], ["1"]]
    assert [(entry.control, entry.order_status) for entry in entries] == [
        (OrderControl.NW, ""),
        (OrderControl.XO, "SC"),
    ]
    assert [(entry.where, entry.procedure_where) for entry in entries] == [("ORC", "OBR"), ("ORC[2]", "OBR[2]")]


def test_each_ipc_is_an_entry_with_its_timing() -> None:
    entries = read(
        "PID|||1", "ORC|NW|P", "TQ1|1||||||20260706", "OBR|1", "IPC|||1.2|S1", "IPC|||1.2|S2",
        "ORC|NW|P", "TQ1|1||||||20260707", "OBR|2", "IPC|||1.2|S3", kind="OMI^O23",
    ).entries  # fmt: skip
    assert [texts(entry, "IPC-4") for entry in entries] == [["S1"], ["S2"], ["S3"]]
    assert [texts(entry, "TQ1-7") for entry in entries] == [["20260706"], ["20260706"], ["20260707"]]
    assert [entry.procedure_where for entry in entries] == ["IPC", "IPC[2]", "IPC[3]"]


def test_zds_belongs_to_the_pairs_since_the_one_before() -> None:
    entries = read(
        "PID|||1", "ORC|NW|P1", "OBR|1", "ORC|NW|P1", "OBR|2", "ZDS|1.2", "ORC|NW|P2", "OBR|3", "ZDS|1.3", "ORC|NW|P3"
    ).entries
    assert [texts(entry, "ZDS-1") for entry in entries] == [["1.2"], ["1.2"], ["1.3"], []]


def test_second_obr_under_one_orc_is_a_pair_of_its_own() -> None:
    entries = read("PID|||1", "ORC|NW|P", "OBR|1|||A", "OBR|2|||B").entries
    assert [(texts(entry, "ORC-2"), texts(entry, "OBR-4")) for entry in entries] == [(["P"], ["A"]), (["P"], ["B"])]


def test_notes_go_with_the_segment_they_follow() -> None:
    (entry,) = read(
        "NTE|1||message", "PID|||1", "NTE|1||patient", "PV1||O", "NTE|1||also patient", "ORC|NW|P", "NTE|1||order",
        "OBR|1", "NTE|1||one", "NTE|2||two", "OBX|1||W", "NTE|1||observation",
    ).entries  # fmt: skip
    assert texts(entry, "PID/NTE-3") == ["patient", "also patient"]
    assert texts(entry, "ORC/NTE-3") == ["order"]
    assert texts(entry, "OBR/NTE-3") == ["one", "two"]
    assert places(entry, "OBR/NTE-3") == ["NTE[5]-3", "NTE[6]-3"]
    assert texts(entry, "OBX/NTE-3") == ["observation"]


def test_prior_results_are_not_ordered() -> None:
    entries = read(
        "PID|||1",
        "ORC|NW|P",
        "OBR|1|||A",
        "PID|||1",
        "ORC|PR|OLD",
        "OBR|1|||X",
        "ORC|NW|P2",
        "OBR|2|||B",
        kind="OMG^O19",
    ).entries
    assert [texts(entry, "OBR-4") for entry in entries] == [["A"], ["B"]]


def test_merge_pairs_stand_alone() -> None:
    entries = read("EVN||20260705", "PID|||1", "MRG|2", "PV1||O", "PID|||3", "MRG|4", kind="ADT^A40").entries
    assert [(texts(entry, "PID-3"), texts(entry, "MRG-1")) for entry in entries] == [(["1"], ["2"]), (["3"], ["4"])]
    assert [texts(entry, "PV1-2") for entry in entries] == [["O"], []]


def test_paths_read_from_a_component_on() -> None:
    (entry,) = read("PID|||1^^^HOSPA&1.2&ISO~2", "ORC|NW|P", "OBR|1|||A^a^X^B^b^Y").entries
    assert entry.read(parse_path("OBR-4.4"))[0].repetition == (("B",), ("b",), ("Y",))
    assert texts(entry, "PID-3.4.2") == ["1.2"]
    assert places(entry, "PID-3") == ["PID-3", "PID-3(2)"]
    assert places(entry, "PID-3.4") == ["PID-3"]
    assert texts(entry, "PID-3.4.9") == []


def test_null_field_is_null_in_all_its_components() -> None:
    (entry,) = read("PID|||1", "ORC|NW|P", 'OBR|1|||""').entries
    assert texts(entry, "OBR-4.5") == ['""']


def test_place_names_where_a_value_would_be() -> None:
    first, second = read("PID|||1", "ORC|NW|P", "OBR|1", "ORC|NW|P2", "OBR|2").entries
    assert first.place(parse_path("OBR-18")) == "OBR-18"
    assert second.place(parse_path("OBR-4.4")) == "OBR[2]-4.4"
    assert first.place(parse_path("IPC-1")) == ""


def test_joined_entries_say_each_segment_once() -> None:
    first, second = read("PID|||1~2", "ORC|NW|P", "OBR|1|||A", "ORC|NW|P", "OBR|2|||B").entries
    joined = first.joined([second])
    assert texts(joined, "OBR-4") == ["A", "B"]
    assert texts(joined, "PID-3") == ["1", "2"]
    assert joined.where == "ORC"


def test_beside_reads_the_same_segment() -> None:
    (entry,) = read("PID|||1", "ORC|NW|P", "OBR|1", "OBX|1||A||70|kg", "OBX|2||B||170|cm").entries
    values = entry.read(parse_path("OBX-5"))
    units = [entry.beside(value.origin, parse_path("OBX-6"))[0].repetition[0][0] for value in values]
    assert units == ["kg", "cm"]


@pytest.mark.parametrize("text", ["PID", "PID-0", "pid-5", "PID-5.0", "PID-5.1.1.1", "XYZ-1", "PID 5", "OBR/NTE"])
def test_wrong_paths_are_told(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_path(text)


@pytest.mark.parametrize("text", ["PID-5", "OBR-4.4", "PID-3.4.1", "OBR/NTE-3", "ZDS-1.1"])
def test_paths_print_as_written(text: str) -> None:
    assert str(parse_path(text)) == text
