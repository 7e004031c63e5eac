"""Performed steps passed on: to whom, what, in what order, and what is not."""

from datetime import UTC, datetime
from typing import Any

import pytest
from doubles import MPPSUnit, ScheduledStep

from gateway.domain.identifiers import Identifier
from gateway.domain.performed import MPPSState, Operation
from gateway.wire.dicom_json import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN, write_attributes
from gateway.wire.mpps_dataset import read_step
from gateway.workflow.audience import Audience, PerformedTarget
from gateway.workflow.perform import PerformAnswer, close_step, create_step, set_step
from gateway.workflow.performed_request import PerformRequest, read_request
from gateway.workflow.ports import DeliveryKind

AT = datetime(2024, 1, 2, 9, 0, tzinfo=UTC)
UID = "2.25.1"
EVERYBODY = Audience(
    performed=(PerformedTarget("pacs"), PerformedTarget("archive", "coerced"), PerformedTarget("board", "events"))
)


def valued(vr: str, *values: Any) -> dict[str, Any]:
    return {"vr": vr, "Value": list(values)} if values else {"vr": vr}


def names(study: str = "2.25.100", sps_id: str = "S1", accession: str = "A1", procedure: str = "R1") -> dict[str, Any]:
    return {
        "0020000D": valued("UI", study), "00080050": valued("SH", accession), "00401001": valued("SH", procedure),
        "00400009": valued("SH", sps_id), "00400007": valued("LO", "typed at the console"),
    }  # fmt: skip


def step(*items: dict[str, Any], **more: dict[str, Any]) -> dict[str, Any]:
    said = {
        "00400270": valued("SQ", *(items or (names(),))),
        "00100010": valued("PN", {"Alphabetic": "Doe^J"}), "00100020": valued("LO", "P1"),
        "00100021": valued("LO", "CONSOLE"), "00100030": valued("DA", "19700101"), "00400253": valued("SH", "PPS1"),
        "00400241": valued("AE", "CT1"), "00400244": valued("DA", "20240102"), "00400245": valued("TM", "0900"),
        "00400252": valued("CS", "IN PROGRESS"), "00080060": valued("CS", "CT"), "00400340": valued("SQ"),
    }  # fmt: skip
    return {**said, **{tag.removeprefix("t"): held for tag, held in more.items()}}


def request(attributes: dict[str, Any], syntax: str = EXPLICIT_VR_LITTLE_ENDIAN) -> PerformRequest:
    return PerformRequest(UID, "CT1", syntax, write_attributes(attributes, syntax, ()))


def do_create(unit: MPPSUnit, asked: PerformRequest, audience: Audience = EVERYBODY) -> PerformAnswer:
    return create_step(unit, read_request(Operation.CREATE, asked), AT, audience=audience)  # type: ignore[arg-type]


def do_set(unit: MPPSUnit, asked: PerformRequest) -> PerformAnswer:
    return set_step(unit, read_request(Operation.SET, asked), AT, audience=EVERYBODY)  # type: ignore[arg-type]


DONE = {
    "00400252": valued("CS", "COMPLETED"), "00400250": valued("DA", "20240102"), "00400251": valued("TM", "0930"),
}  # fmt: skip


@pytest.fixture
def unit() -> MPPSUnit:
    unit = MPPSUnit()
    unit.add_patient(1, Identifier("P1", ""))
    unit.add_patient(2, Identifier("P2", ""))
    shown = {
        "00100010": valued("PN", {"Alphabetic": "Doe^Jane^Maria"}), "00100020": valued("LO", "P1"),
        "00402016": valued("LO", "PL1"), "00380010": valued("LO", "V1"),
        "00321060": valued("LO", "CT head"),
    }  # fmt: skip
    unit.add_step(ScheduledStep(
        11, 1, "2.25.100", "S1", "A1", "R1", shown=shown, shown_step={"00400007": valued("LO", "CT head plain")}
    ))  # fmt: skip
    return unit


def sent(unit: MPPSUnit, destination: str) -> list[tuple[str, str]]:
    return [(each.operation, each.lane) for each in unit.outbox if each.destination == destination]


@pytest.mark.parametrize("syntax", [IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN])
def test_what_was_accepted_is_passed_on_as_it_came_in_its_order_under_its_uid(unit, syntax):
    created, done = request(step(), syntax), request(DONE, syntax)
    do_create(unit, created)
    do_set(unit, done)
    copies = [each for each in unit.outbox if each.destination == "pacs"]
    assert [(each.kind, each.operation, each.payload, each.transfer_syntax) for each in copies] == [
        (DeliveryKind.PERFORMED, "N-CREATE", created.raw, syntax),
        (DeliveryKind.PERFORMED, "N-SET", done.raw, syntax),
    ]
    assert {(each.lane, each.control_id) for each in unit.outbox} == {(UID, UID)}
    assert [each.archive_id for each in copies] == [1, 2]


def test_subscribers_are_told_what_happened_and_nothing_else(unit):
    do_create(unit, request(step()))
    do_set(unit, request({"00400254": valued("LO", "Head")}))
    do_set(unit, request(DONE))
    told = [each for each in unit.outbox if each.destination == "board"]
    assert [each.operation for each in told] == ["N-EVENT-REPORT 1", "N-EVENT-REPORT 4", "N-EVENT-REPORT 2"]
    assert {(each.kind, each.payload, each.transfer_syntax) for each in told} == {(DeliveryKind.NOTIFICATION, b"", "")}


def test_what_was_refused_or_repeated_and_changed_nothing_is_not_passed_on(unit):
    do_set(unit, request(DONE))
    do_create(unit, request({}))
    assert unit.outbox == []
    do_create(unit, request(step()))
    do_create(unit, request(step()))
    more = request({"00400254": valued("LO", "Head")})
    do_set(unit, more)
    do_set(unit, more)
    do_set(unit, request({"00400252": valued("CS", "IN PROGRESS")}))
    do_set(unit, request(DONE))
    do_set(unit, request(DONE))
    assert sent(unit, "pacs") == [("N-CREATE", UID), ("N-SET", UID), ("N-SET", UID)]


def test_what_is_quarantined_is_passed_on_unchanged(unit):
    created = request(step(t00100020=valued("LO", "P2")))
    do_create(unit, created)
    assert unit.performed[UID].quarantined
    assert {each.payload for each in unit.outbox if each.destination != "board"} == {created.raw}


def test_a_coerced_copy_has_patient_and_order_as_the_worklist_has_them(unit):
    other = names("2.25.200", "S2", "A2", "R2")
    do_create(unit, request(step(names(), other), IMPLICIT_VR_LITTLE_ENDIAN))
    (copy,) = (each for each in unit.outbox if each.destination == "archive")
    assert copy.transfer_syntax == IMPLICIT_VR_LITTLE_ENDIAN
    held, notes = read_step(copy.payload, IMPLICIT_VR_LITTLE_ENDIAN)
    assert notes == ()
    assert held["00100010"] == valued("PN", {"Alphabetic": "Doe^Jane^Maria"})
    assert held["00100021"] == valued("LO")  # the worklist knows no issuer, and identifiers are not mixed
    assert held["00100030"] == valued("DA", "19700101")  # the worklist knows none, so the modality's stays
    assert held["00380010"] == valued("LO", "V1")
    mine, others = held["00400270"]["Value"]
    assert mine["00402016"] == valued("LO", "PL1")
    assert mine["00321060"] == valued("LO", "CT head")
    assert mine["00400007"] == valued("LO", "CT head plain")
    assert others == other  # nothing is held for it
    assert held["00400253"] == valued("SH", "PPS1")


def test_a_coerced_copy_of_what_nobody_ordered_is_as_it_came(unit):
    created = request(step(names("2.25.999", "", "", "")))
    do_create(unit, created)
    assert {each.payload for each in unit.outbox if each.destination == "archive"} == {created.raw}


def test_a_coerced_n_set_loses_only_what_it_may_not_say(unit):
    do_create(unit, request(step()))
    done = request(DONE)
    renamed = request({"00100010": valued("PN", {"Alphabetic": "Roe^Ann"}), "00400254": valued("LO", "Head")})
    do_set(unit, renamed)
    do_set(unit, done)
    first, second = (each.payload for each in unit.outbox if (each.destination, each.operation) == ("archive", "N-SET"))
    assert read_step(first, EXPLICIT_VR_LITTLE_ENDIAN)[0] == {"00400254": valued("LO", "Head")}
    assert second == done.raw
    received = [each.payload for each in unit.outbox if (each.destination, each.operation) == ("pacs", "N-SET")]
    assert received == [renamed.raw, done.raw]


LATIN, CYRILLIC, UNICODE = ("ISO_IR 100",), ("ISO_IR 144",), ("ISO_IR 192",)


def spoken(attributes: dict[str, Any], terms: tuple[str, ...]) -> PerformRequest:
    raw = write_attributes(attributes, EXPLICIT_VR_LITTLE_ENDIAN, terms)
    return PerformRequest(UID, "CT1", EXPLICIT_VR_LITTLE_ENDIAN, raw)


@pytest.mark.parametrize("destination", ["pacs", "archive"])
@pytest.mark.parametrize(
    ("created", "set_in", "said", "sent_in"),
    [
        (LATIN, UNICODE, "Sch\xe4del", LATIN),
        (UNICODE, LATIN, "Sch\xe4del", UNICODE),
        ((), UNICODE, "Head", ()),
        ((), UNICODE, "Sch\xe4del", UNICODE),  # a letter is better sent than lost
        (CYRILLIC, LATIN, "Sch\xe4del", LATIN),
        (LATIN, LATIN, "Sch\xe4del", LATIN),
        (LATIN, (), "Head", ()),
    ],
)
def test_an_n_set_is_sent_in_the_character_set_of_its_n_create(unit, destination, created, set_in, said, sent_in):
    do_create(unit, spoken(step(), created))
    asked = {"00400254": valued("LO", said)}
    received = spoken(asked, set_in)
    do_set(unit, received)
    copy = next(each for each in unit.outbox if (each.destination, each.operation) == (destination, "N-SET"))
    assert copy.payload == spoken(asked, sent_in).raw
    assert (copy.payload == received.raw) is (sent_in == set_in)


def test_what_a_person_closed_is_passed_on_as_the_modality_would_have(unit):
    do_create(unit, request(step()))
    close_step(unit, UID, MPPSState.COMPLETED, "a.person", AT, EVERYBODY)  # type: ignore[arg-type]
    assert sent(unit, "pacs") == [("N-CREATE", UID), ("N-SET", UID)]
    copy = [each for each in unit.outbox if each.destination == "pacs"][-1]
    said, _ = read_step(copy.payload, copy.transfer_syntax)
    assert said["00400252"] == valued("CS", "COMPLETED")
    assert sent(unit, "board")[-1] == ("N-EVENT-REPORT 2", UID)


def test_nobody_is_told_where_nobody_asked(unit):
    do_create(unit, request(step()), Audience())
    assert unit.outbox == []
