"""What a mapping could not write is written when a person says so: of what is held by then, or it says why not."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from people import AT, order, person, told, tried

from gateway.domain.attributes import Attributes
from gateway.domain.order import Order
from gateway.domain.outbound_compiler import compile_outbound
from gateway.domain.patient import PatientUpdate
from gateway.domain.performed import MPPSState, PerformedStep
from gateway.domain.progress import STATUS_TOLD, Progress
from gateway.domain.worklist import SPSStatus
from gateway.edges.store import Store, StoreUnit
from gateway.wire import er7
from gateway.wire.er7_writer import MessageWriter
from gateway.workflow.audience import NOBODY, Audience, PassOnTarget, StatusTarget, Writing
from gateway.workflow.outbox import Delivery, OutboxState, enqueue, park, retry
from gateway.workflow.ports import MessageRecord, MessageSearch, NewDelivery, Outcome
from gateway.workflow.telling import pass_on_message, statuses, tell_again, tell_progress

LATER = AT + timedelta(hours=1)
RECEIVED = (
    b"MSH|^~\\&|RIS|HOSP|GW|RAD|20260705100000||ORM^O01|IN1|P|2.3.1\rPID|||4711^^^HOSPITAL||Muster^Eva\r"
    b"ORC|NW|PL7^RIS\rOBR||PL7^RIS||CT1^Kopf\r"
)
UID = "2.25.1"
_S = SPSStatus


def writing(about: str = "order", **rules: Any) -> Writing:
    """A mapping that says what is asked for here, and these rules."""
    said: dict[str, Any] = {"ORC-1": "event.OrderControl", "ORC-5": "event.OrderStatus"} if about != "patient" else {}
    said |= {"IPC-3": "StudyInstanceUID"} if about == "procedure" else {}
    rules = said | rules
    segments = ["MSH", *(name for name in ("PID", "ORC", "OBX", "IPC") if any(path.startswith(name) for path in rules))]
    written = {"message": "OMI^O23" if about == "procedure" else "ORM^O01", "hl7": "2.5.1", "about": about,
               "segments": segments, "rules": rules}  # fmt: skip
    return Writing(MessageWriter(compile_outbound({"m": written}, "m")))


def needy(about: str = "order") -> Writing:
    """A mapping that wants what no order here has."""
    place = {"order": "ORC-17", "procedure": "IPC-4", "patient": "PID-7"}[about]
    return writing(about, **{place: {"from": "PatientBirthDate", "missing": "refuse"}})


def status(how: Writing, **more: Any) -> Audience:
    return Audience((StatusTarget("ris", how, **more),))


def passed_on(how: Writing) -> Audience:
    return Audience(passed_on=(PassOnTarget("ris", how),))


def held(unit: StoreUnit, **more: Any) -> Order:
    (patient_id,) = told(unit, PatientUpdate(person("4711", PatientName="Muster^Eva")))
    return unit.save_order(replace(order(patient_id, 7), **more), "test", AT)


def moved(unit: StoreUnit, of: Order, to: SPSStatus) -> dict[int, SPSStatus]:
    before = statuses(unit, of.id or 0)
    for step in before:
        unit.set_step_status(step, to, "MPPS", AT)
    return before


def not_written(unit: StoreUnit, of: Order, to: SPSStatus, audience: Audience, **more: Any) -> Delivery:
    """What became of it could not be told; the line of the outbox."""
    assert tell_progress(unit, audience, of.id or 0, moved(unit, of, to), AT, "MPPS", **more)
    return parked(unit)[-1]


def described(text: str) -> Attributes:
    """Of a performed step, its description."""
    return {"00400254": {"vr": "LO", "Value": [text]}}


def parked(unit: StoreUnit) -> list[Delivery]:
    return list(unit.deliveries(9, state=OutboxState.PARKED))


def waiting(unit: StoreUnit) -> list[er7.Message]:
    return [er7.parse(each.payload) for each in unit.deliveries(9, state=OutboxState.WAITING)]


def said(message: er7.Message) -> tuple[str, str]:
    """ORC-1 and ORC-5."""
    orc = message.first("ORC")
    assert orc is not None
    return orc.text(1), orc.text(5)


def test_it_tells_how_the_order_stands_by_then(store: Store) -> None:
    def job(unit: StoreUnit) -> None:
        ours = held(unit)
        old = not_written(unit, ours, _S.STARTED, status(needy()))
        moved(unit, ours, _S.COMPLETED)
        assert tell_again(unit, status(writing()), old.id, LATER)
        (message,) = waiting(unit)
        assert said(message) == ("SC", "CM")
        assert message.control_id != old.control_id
        assert parked(unit) == []
        assert unit.delivery(old.id) is None
        lines = unit.find_messages(MessageSearch("PL7", direction="out"), 5)
        assert [(each.record.disposition, bool(each.record.raw)) for each in lines] == [
            ("waiting", True), ("dropped", False)
        ]  # fmt: skip
        (queue,) = unit.queues()
        assert (queue.waiting, queue.parked) == (1, 0)

    tried(store, job)


def test_it_tells_of_the_performed_step_as_it_is_by_then(store: Store) -> None:
    how = writing(**{"OBX-5": "performed.PerformedProcedureStepDescription"})

    def job(unit: StoreUnit) -> None:
        ours = held(unit)
        ran = PerformedStep(UID, MPPSState.IN_PROGRESS, described("Head"), steps=(ours.procedures[0].steps[0].id,))
        unit.save_performed_step(ran, AT)
        old = not_written(unit, ours, _S.STARTED, status(needy()), performed=ran)
        done = replace(ran, attributes=described("Head and neck"))
        unit.save_performed_step(done, LATER)
        assert tell_again(unit, status(how), old.id, LATER)
        (message,) = waiting(unit)
        obx = message.first("OBX")
        assert obx is not None
        assert obx.text(5) == "Head and neck"
        assert len(unit.find_messages(MessageSearch(UID, "performed"), 5)) == 2

    tried(store, job)


def test_each_message_of_several_is_written_by_itself(store: Store) -> None:
    def job(unit: StoreUnit) -> None:
        ours = held(unit)
        other = order(ours.patient_id, 8).procedures[0]
        ours = unit.save_order(replace(ours, procedures=(*ours.procedures, other)), "test", AT)
        not_written(unit, ours, _S.STARTED, status(needy("procedure")))
        first, second = parked(unit)
        for each, study in ((second, "2.25.8"), (first, "2.25.7")):
            assert tell_again(unit, status(writing("procedure")), each.id, LATER)
            ipc = waiting(unit)[-1].first("IPC")
            assert ipc is not None
            assert ipc.text(3) == study
        assert len(waiting(unit)) == 2

    tried(store, job)


def test_an_order_made_here_is_still_asked_a_number_for(store: Store) -> None:
    def job(unit: StoreUnit) -> None:
        ours = held(unit, placer=None)
        moved(unit, ours, _S.STARTED)
        ran = PerformedStep(UID, MPPSState.IN_PROGRESS, {})
        assert tell_progress(unit, status(needy()), ours.id or 0, {}, AT, "made", ran)
        moved(unit, ours, _S.COMPLETED)
        assert tell_again(unit, status(writing()), parked(unit)[0].id, LATER)
        assert said(waiting(unit)[0]) == ("SN", "CM")

    tried(store, job)


def test_it_goes_behind_what_waits_of_the_patient(store: Store) -> None:
    def job(unit: StoreUnit) -> None:
        ours = held(unit)
        old = not_written(unit, ours, _S.STARTED, status(needy()))
        enqueue(unit, "ris", ours.patient_id, "M1", b"MSH|^~\\&|A||||||ORM^O01|M1|P|2.5\r", AT)
        assert tell_again(unit, status(writing()), old.id, LATER)
        first, second = unit.deliveries(9)
        assert (first.control_id, first.lane) == ("M1", second.lane)
        head = unit.next_delivery("ris", LATER)
        assert head is not None
        assert head.control_id == "M1"

    tried(store, job)


@pytest.mark.parametrize(
    ("audience", "why"),
    [
        (status(writing(**{"ORC-17": {"from": "PatientSex", "missing": "refuse"}})),
         "PatientSex"),
        (NOBODY, "not told status any more"),
        (status(writing(), tells={**STATUS_TOLD} | {Progress.STARTED: ("", "")}), ""),
        (status(writing(), tells={Progress.COMPLETED: ("SC", "CM")}), "how the order stands now"),
    ],
    ids=["the mapping lacks something else", "no target any more", "told", "not told of this"],
)  # fmt: skip
def test_what_cannot_be_written_stays_parked_and_says_why(store: Store, audience: Audience, why: str) -> None:
    def job(unit: StoreUnit) -> None:
        old = not_written(unit, held(unit), _S.STARTED, status(needy()))
        done = tell_again(unit, audience, old.id, LATER)
        assert done is (not why)
        if done:
            return
        (still,) = parked(unit)
        assert (still.id, still.payload) == (old.id, b"")
        assert why in still.reason
        assert "Muster" not in still.reason
        stored = unit.message(old.archive_id)
        assert stored is not None
        assert (stored.record.disposition, stored.record.reasons) == ("parked", still.reason)
        assert waiting(unit) == []

    tried(store, job)


def received(unit: StoreUnit) -> None:
    unit.add_message(MessageRecord(AT, "feed", "", "RIS", "IN1", "ORM^O01", b"", RECEIVED, "accepted"))


@pytest.mark.parametrize("about", ["order", "patient"])
def test_a_received_message_that_could_not_be_passed_on_is_written_from_what_is_held(store: Store, about: str) -> None:
    def job(unit: StoreUnit) -> None:
        ours = held(unit)
        received(unit)
        touched = Outcome(orders=(ours.id or 0,), patients=(ours.patient_id,))
        pass_on_message(unit, passed_on(needy(about)), "feed", er7.parse(RECEIVED), RECEIVED, touched, AT)
        (old,) = parked(unit)
        rest = writing(about) if about == "order" else writing(about, **{"PID-5": "PatientName"})
        assert tell_again(unit, passed_on(rest), old.id, LATER)
        (message,) = waiting(unit)
        pid = message.first("PID")
        assert said(message) == ("NW", "SC") if about == "order" else pid is not None and pid.text(5) == "Muster"
        assert parked(unit) == []

    tried(store, job)


@pytest.mark.parametrize(
    ("audience", "kept", "why"),
    [(passed_on(writing()), False, "not held any more"), (NOBODY, True, "does not get messages")],
)
def test_what_cannot_be_passed_on_any_more_says_so(store: Store, audience: Audience, kept: bool, why: str) -> None:
    def job(unit: StoreUnit) -> None:
        ours = held(unit)
        if kept:
            received(unit)
        touched = Outcome(orders=(ours.id or 0,))
        pass_on_message(unit, passed_on(needy()), "feed", er7.parse(RECEIVED), RECEIVED, touched, AT)
        (old,) = parked(unit)
        assert not tell_again(unit, audience, old.id, LATER)
        assert why in parked(unit)[0].reason

    tried(store, job)


def test_what_was_written_or_is_none_of_these_is_left_alone(store: Store) -> None:
    def job(unit: StoreUnit) -> None:
        enqueue(unit, "ris", None, "M1", b"MSH|^~\\&|A\r", AT)
        (written,) = unit.deliveries(9)
        park(unit, written.id)
        audience = status(writing())
        assert not tell_again(unit, audience, written.id, LATER)
        assert not tell_again(unit, audience, 999_999, LATER)
        assert retry(unit, written.id, LATER)
        nothing_kept = unit.add_message(MessageRecord(AT, "ris", "", "", "M2", "", b"", b"", "parked", direction="out"))
        number = unit.add_delivery(NewDelivery("ris", "", "M2", b"", nothing_kept, reason="?"), AT)
        assert not tell_again(unit, audience, number, LATER)
        assert "not kept" in parked(unit)[0].reason

    tried(store, job)
