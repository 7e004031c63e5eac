"""HL7 messages as documents: what is taken, and how segments group into entries."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.order import OrderControl
from gateway.domain.patient import VisitChange
from gateway.domain.refusal import Refusal, RefusalKind, Refused
from gateway.domain.source import Kind, parse_path
from gateway.wire.er7 import parse
from gateway.wire.hl7_entries import HL7Entry
from gateway.wire.hl7_source import HANDLED, HL7Document, document


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
    segments = {"ADT": ["PID|||1", "MRG|2"], "SIU": ["SCH|1"]}.get(code, ["PID|||1", "ORC|NW|P", "OBR|1"])
    said = read(*segments, kind=f"{code}^{event}")
    assert (said.kind, said.visit_change) == (HANDLED[code, event].kind, HANDLED[code, event].visit_change)
    assert said.entries


def test_event_may_be_left_out_where_the_type_has_only_one() -> None:
    said = read("PID|||1", "ORC|NW|P", kind="ORM")
    assert said.kind is Kind.ORDER
    assert said.notes == ("MSH-9 names no event; read as O01",)


def test_event_of_evn_counts_where_the_message_type_names_none() -> None:
    said = read("EVN|A03", "PID|||1", "PV1||I", kind="ADT")
    assert said.visit_change is VisitChange.CLOSE
    assert said.notes == ("MSH-9 names no event; read as A03",)


def test_message_structure_may_stand_for_the_message_type() -> None:
    assert read("PID|||1", "ORC|NW|P", kind="ORM_O01").notes == ()


def test_evn_in_an_order_changes_nothing() -> None:
    (entry,) = read("EVN|O01|20260705", "PID|||1", "ORC|NW|P", "OBR|1|||A").entries
    assert (texts(entry, "PID-3"), texts(entry, "OBR-4")) == (["1"], ["A"])


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
    assert refusals("PID|||1")[0].where == "ORC"
    assert refusals("PID|||1", "OBR|1|P")[0].where == "ORC"
    assert refusals("PV1||O", kind="ADT^A01")[0].where == "PID"
    assert refusals("MRG|2", kind="ADT^A40")[0].where == "PID"
    assert refusals("PID|||1", "MRG|2", "PID|||3", kind="ADT^A40")[0].where == "MRG[2]"
    assert refusals("PID|||1", kind="ADT^A45")[0].where == "MRG"
    assert refusals("MRG|1", kind="ADT^A45")[0].where == "PID"
    assert refusals("PID|||1", kind="ADT^A24")[0].where == "PID[2]"
    assert refusals("PID|||1", "PID|||2", "PID|||3", kind="ADT^A37")[0].where == "PID[3]"
    assert refusals("EVN|A24", kind="ADT^A24")[0].where == "PID"
    assert refusals("PID|||1", kind="ORU^R01")[0].where == "OBR"
    assert refusals("PID|||1", kind="SIU^S12")[0].where == "SCH"


@pytest.mark.parametrize(
    ("kind", "segments"),
    [
        ("ADT^A08", ["PID|||1", "PID|||2"]),
        ("ORM^O01", ["PID|||1", "ORC|NW|P1", "OBR|1", "PID|||2", "ORC|NW|P2", "OBR|2"]),
        ("ORU^R01", ["PID|||1", "OBR|1", "PID|||2", "OBR|2"]),
        ("SIU^S12", ["SCH|1", "PID|||1", "PID|||2"]),
        ("ADT^A45", ["PID|||1", "MRG|3", "PID|||2", "MRG|4"]),
    ],
)
def test_second_patient_is_refused_where_nobody_could_tell_whose_it_is(kind: str, segments: list[str]) -> None:
    (refusal,) = refusals(*segments, kind=kind)
    assert (refusal.kind, refusal.where) == (RefusalKind.SEGMENT_SEQUENCE, "PID[2]")


def test_every_unknown_order_control_is_told() -> None:
    said = refusals("PID|||1", "ORC|NW|P1", "ORC|CN|P2", "ORC||P3")
    assert [(refusal.kind, refusal.where) for refusal in said] == [
        (RefusalKind.UNKNOWN_CODE, "ORC[2]-1"),
        (RefusalKind.MISSING_FIELD, "ORC[3]-1"),
    ]
    assert "NW, OK, UA, CA" in said[0].hint


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


# --- patients ----------------------------------------------------------------------------------------------------


def test_person_events_name_no_visit_by_an_empty_one() -> None:
    (person,) = read("PID|||1", "PV1||N", "PV2|||x", kind="ADT^A28").entries
    assert not {key for key in person.said if key.startswith("PV")}
    (patient,) = read("PID|||1", "PV1||I", kind="ADT^A31").entries
    assert texts(patient, "PV1-2") == ["I"]


def test_registration_may_carry_orders() -> None:
    person, order = read("PID|||1", "PV1||O", "ORC|NW|P", "OBR|1|||A", kind="ADT^A04").entries
    assert (person.control, texts(person, "PID-3"), texts(person, "OBR-4")) == (None, ["1"], [])
    assert (order.control, texts(order, "PID-3"), texts(order, "OBR-4")) == (OrderControl.NW, ["1"], ["A"])


def test_obr_alone_is_no_order_of_a_registration() -> None:
    said = read("PID|||1", "OBR|1|||A", kind="ADT^A04")
    assert [entry.control for entry in said.entries] == [None]
    assert said.notes == ("OBR without ORC is not taken as an order",)


def test_each_mrg_of_a_move_has_its_visit() -> None:
    entries = read("PID|||1", "MRG|2||||V1", "PV1|1|O", "MRG|2||||V2", "PV1|2|I", kind="ADT^A45").entries
    assert [(texts(entry, "MRG-5"), texts(entry, "PV1-2")) for entry in entries] == [(["V1"], ["O"]), (["V2"], ["I"])]
    assert [texts(entry, "PID-3") for entry in entries] == [["1"], ["1"]]


def test_linked_people_are_two_pid_or_pid_and_mrg() -> None:
    two = read("PID|||1", "PV1||O", "PID|||2", kind="ADT^A24").entries
    assert [texts(entry, "PID-3") for entry in two] == [["1"], ["2"]]
    (one,) = read("PID|||1", "MRG|2", kind="ADT^A37").entries
    assert (texts(one, "PID-3"), texts(one, "MRG-1")) == (["1"], ["2"])


# --- responses and results ---------------------------------------------------------------------------------------


def test_response_needs_neither_patient_nor_order() -> None:
    (entry,) = read("MSA|AA|1", "ORC|NA|P|F", kind="ORR^O02").entries
    assert entry.control is OrderControl.NA
    nothing = read("MSA|AA|1", kind="ORG^O20")
    assert (nothing.entries, nothing.notes) == ((), ("the response names no order",))


@pytest.mark.parametrize(
    ("orc", "obr_25", "status"),
    [
        ("ORC|RE|P", "F", "CM"),
        ("ORC|NW|P", "C", "CM"),
        ("ORC|RE|P", "P", "CM"),
        ("ORC|RE|P", "r", "CM"),
        ("ORC|RE|P", "A", "A"),
        ("ORC|RE|P", "I", ""),
        ("ORC|RE|P", "X", ""),
        ("ORC|RE|P|||CM", "", "CM"),
        ("ORC|RE|P|||IP", "", ""),
        ("ORC|RE|P|||CM", "S", ""),
    ],
)
def test_result_status_says_whether_the_order_is_done(orc: str, obr_25: str, status: str) -> None:
    (entry,) = read("PID|||1", orc, "OBR|1|P||A|R" + "|" * 20 + obr_25, kind="ORU^R01").entries
    assert (entry.control, entry.order_status) == (OrderControl.RE, status)


def test_each_obr_of_a_result_has_the_orc_before_it_if_any() -> None:
    entries = read("ORC|RE|P1", "OBR|1|||A", "OBX|1", "OBR|2|P2||B", kind="ORU^R01").entries
    assert [(texts(entry, "ORC-2"), texts(entry, "OBR-2")) for entry in entries] == [(["P1"], []), ([], ["P2"])]
    assert [entry.where for entry in entries] == ["OBR", "OBR[2]"]


# --- appointments ------------------------------------------------------------------------------------------------

SCH = "SCH|A1|F1"


def test_each_service_sees_the_resources_of_its_group() -> None:
    entries = read(
        SCH, "NTE|1||all", "PID|||1", "RGS|1", "AIS|1||A", "NTE|1||one", "AIG|1||CT1", "AIS|2||B", "AIP|1||77",
        "RGS|2", "AIS|3||C", "AIG|1||MR1", "NTE|1||the new one", kind="SIU^S12",
    ).entries  # fmt: skip
    assert [texts(entry, "AIS-3") for entry in entries] == [["A"], ["B"], ["C"]]
    assert [texts(entry, "AIG-3") for entry in entries] == [["CT1"], ["CT1"], ["MR1"]]
    assert [texts(entry, "AIP-3") for entry in entries] == [["77"], ["77"], []]
    assert [texts(entry, "AIS/NTE-3") for entry in entries] == [["one"], [], []]
    assert [texts(entry, "AIG/NTE-3") for entry in entries] == [[], [], ["the new one"]]
    assert [texts(entry, "SCH/NTE-3") for entry in entries] == [["all"]] * 3
    assert [entry.procedure_where for entry in entries] == ["AIS", "AIS[2]", "AIS[3]"]


def test_groups_without_a_service_are_for_all_of_them() -> None:
    entries = read(SCH, "PID|||1", "RGS|1", "AIS|1||A", "RGS|2", "AIL|1||ROOM4", "RGS|3", "AIG|1||CT1", kind="SIU^S12")
    (entry,) = entries.entries
    assert (texts(entry, "AIL-3"), texts(entry, "AIG-3")) == (["ROOM4"], ["CT1"])


def test_resource_groups_may_be_left_out() -> None:
    entries = read(SCH, "PID|||1", "AIS|1||A", "AIG|1||CT1", "AIS|2||B", kind="SIU^S12").entries
    assert [(texts(entry, "AIS-3"), texts(entry, "AIG-3")) for entry in entries] == [(["A"], ["CT1"]), (["B"], ["CT1"])]


def test_appointment_without_a_service_is_one_entry() -> None:
    (entry,) = read(SCH, kind="SIU^S15").entries
    assert (entry.control, entry.order_status, entry.where) == (OrderControl.CA, "", "SCH")


@pytest.mark.parametrize(
    ("event", "state", "control", "status"),
    [
        ("S12", "Booked", OrderControl.NW, ""),
        ("S13", "", OrderControl.XO, ""),
        ("S14", "Cancelled", OrderControl.CA, ""),
        ("S14", "Noshow^No-show", OrderControl.CA, ""),
        ("S14", "Complete", OrderControl.XO, "CM"),
        ("S14", "Started", OrderControl.XO, "IP"),
        ("S14", "Dc", OrderControl.DC, ""),
        ("S15", "Booked", OrderControl.CA, ""),
        ("S17", "", OrderControl.CA, ""),
        ("S26", "Complete", OrderControl.CA, ""),
    ],
)
def test_event_and_filler_status_say_what_becomes_of_the_appointment(
    event: str, state: str, control: OrderControl, status: str
) -> None:
    (entry,) = read(f"{SCH}{'|' * 23}{state}", "PID|||1", "AIS|1||A", kind=f"SIU^{event}").entries
    assert (entry.control, entry.order_status) == (control, status)


def test_who_did_not_come_is_told() -> None:
    assert read(SCH, "PID|||1", kind="SIU^S26").notes == ("the patient did not come to the appointment",)


def test_service_taken_out_of_an_appointment_is_told() -> None:
    said = read(SCH, "PID|||1", "AIS|1|U|A", "AIS|2|D|B", kind="SIU^S14")
    assert [texts(entry, "AIS-3") for entry in said.entries] == [["A"]]
    assert said.notes == ("AIS[2] is taken out of the appointment; its step stays until it is cancelled",)


# --- anything at all ---------------------------------------------------------------------------------------------

SEGMENTS = [
    "PID|||1", "PID|||2", "PID", "MRG|3", "PV1||I", "ORC|NW|P", "ORC|XX|P", "ORC||P", "ORC|PR", "OBR|1",
    "OBR|1|||A" + "|" * 21 + "F", "OBX|1", "IPC|1", "ZDS|1.2", "NTE|1||n", "SCH|1", "SCH|1" + "|" * 24 + "Noshow",
    "RGS|1", "AIS|1|D|A", "AIS|2||B", "AIG|1||CT1", "AIL|1", "AIP|1", "EVN|A08", "MSA|AA|1", "ZZZ|x", "TQ1|1",
]  # fmt: skip


@given(st.sampled_from(sorted(HANDLED)), st.lists(st.sampled_from(SEGMENTS), max_size=12))
def test_any_segments_in_any_order_are_a_document_or_are_refused(kind: tuple[str, str], segments: list[str]) -> None:
    try:
        said = read(*segments, kind="^".join(kind))
    except Refused:
        return
    for entry in said.entries:
        assert all(entry.read(parse_path(key)) for key in entry.said if "/" not in key)
        assert (entry.control is None) is (kind[0] == "ADT" and entry.where.startswith(("PID", "MRG")))
