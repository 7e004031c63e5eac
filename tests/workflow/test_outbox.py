"""The outbox's tables are total, and every attempt leads where they say."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product

import pytest

from gateway.wire.ack_received import Told, answers, read
from gateway.workflow.outbox import (
    COURSES,
    TRANSITIONS,
    Attempt,
    Backlog,
    Course,
    Delivery,
    Move,
    OutboxState,
    Patience,
    after,
    attempt_of,
    dimse_attempt_of,
    left_behind,
    retry,
)
from gateway.workflow.ports import DeliveryKind

NOW = datetime(2026, 7, 5, 8, tzinfo=UTC)
PATIENCE = Patience(first_s=1, most_s=60, errors_max=3)
WAITING = Delivery(1, DeliveryKind.HL7, 1, "ris", "7", "M1", b"MSH", NOW, NOW)


def test_every_attempt_has_a_course() -> None:
    assert set(COURSES) == set(Attempt)


@pytest.mark.parametrize(("state", "move"), list(product(OutboxState, Move)))
def test_every_move_from_every_state_is_known_or_does_not_happen(state: OutboxState, move: Move) -> None:
    if state is OutboxState.SENT:
        assert (state, move) not in TRANSITIONS
    elif move in (Move.RETRIED, Move.SET_ASIDE) or state is OutboxState.WAITING:
        assert (state, move) in TRANSITIONS
    else:
        assert (state, move) not in TRANSITIONS


@pytest.mark.parametrize("attempt", Attempt)
def test_an_attempt_ends_sent_waiting_or_parked_by_its_course(attempt: Attempt) -> None:
    ends = {Course.DONE: OutboxState.SENT, Course.ASK: OutboxState.PARKED, Course.DONE_IF_REPEATED: OutboxState.PARKED}
    assert after(WAITING, attempt, "", NOW, PATIENCE).state is ends.get(COURSES[attempt], OutboxState.WAITING)


def test_a_step_that_is_final_there_is_done_where_it_may_have_been_sent_before() -> None:
    final = Attempt.FINAL_ALREADY
    assert after(WAITING, final, "0110", NOW, PATIENCE).state is OutboxState.PARKED
    assert after(WAITING, final, "0110", NOW, PATIENCE, in_doubt=True).state is OutboxState.SENT
    unanswered = after(WAITING, Attempt.UNANSWERED, "", NOW, PATIENCE)
    done = after(unanswered, final, "0110", NOW, PATIENCE)
    assert (done.state, done.reason) == (OutboxState.SENT, "final there already: 0110")


@pytest.mark.parametrize(
    ("operation", "status", "error_id", "attempt"),
    [
        *((operation, status, None, Attempt.ACCEPTED)
          for operation in ("N-CREATE", "N-SET", "N-EVENT-REPORT")
          for status in (0x0000, 0x0001, 0x0107, 0x0116, 0xB000, 0xBFFF)),
        ("N-CREATE", 0x0111, None, Attempt.HELD_ALREADY), ("N-SET", 0x0111, None, Attempt.ERROR),
        ("N-SET", 0x0112, None, Attempt.UNKNOWN_THERE), ("N-CREATE", 0x0112, None, Attempt.ERROR),
        ("N-EVENT-REPORT", 0x0112, None, Attempt.REJECTED), ("N-EVENT-REPORT", 0x0113, None, Attempt.UNSUPPORTED),
        ("N-SET", 0x0110, 0xA710, Attempt.FINAL_ALREADY), ("N-SET", 0x0110, None, Attempt.ERROR),
        ("N-SET", 0x0110, 1, Attempt.ERROR), ("N-CREATE", 0x0110, 0xA710, Attempt.ERROR),
        ("N-CREATE", 0x0118, None, Attempt.UNSUPPORTED), ("N-SET", 0x0122, None, Attempt.UNSUPPORTED),
        ("N-CREATE", 0x0124, None, Attempt.REJECTED),
        *(("N-CREATE", status, None, Attempt.ERROR)
          for status in (0x0105, 0x0106, 0x0117, 0x0119, 0x0120, 0x0121, 0x0210, 0x0211, 0x0212, 0x0213, 0xC000)),
    ],
)  # fmt: skip
def test_an_answer_by_dimse_means_what_the_standard_says(
    operation: str, status: int, error_id: int | None, attempt: Attempt
) -> None:
    assert dimse_attempt_of(operation, status, error_id) is attempt


@pytest.mark.parametrize(
    ("kind", "payload", "sent"),
    [
        (DeliveryKind.HL7, b"MSH", True), (DeliveryKind.HL7, b"", False),
        (DeliveryKind.PERFORMED, b"", True), (DeliveryKind.NOTIFICATION, b"", True),
    ],
)  # fmt: skip
def test_a_message_that_was_never_written_cannot_be_sent_again(kind: DeliveryKind, payload: bytes, sent: bool) -> None:
    held = replace(WAITING, kind=kind, payload=payload, state=OutboxState.PARKED, errors=3, attempts=3)

    class Unit:
        saved: Delivery | None = None

        def delivery(self, _delivery_id: int) -> Delivery | None:
            return held

        def save_delivery(self, delivery: Delivery, _answer: bytes, _attempted_at: datetime | None = None) -> None:
            self.saved = delivery

    unit = Unit()
    later = NOW + timedelta(hours=1)
    assert retry(unit, 1, later) is sent
    assert unit.saved == (replace(held, state=OutboxState.WAITING, errors=0, due_at=later) if sent else None)


@pytest.mark.parametrize("attempt", [each for each in Attempt if COURSES[each] is Course.RETRY_A_FEW_TIMES])
def test_errors_are_repeated_ever_later_and_then_parked(attempt: Attempt) -> None:
    delivery, waits, states = WAITING, [], []
    for _ in range(3):
        delivery = after(delivery, attempt, "record locked", NOW, PATIENCE)
        waits.append((delivery.due_at - NOW).total_seconds())
        states.append(delivery.state)
    assert states == [OutboxState.WAITING, OutboxState.WAITING, OutboxState.PARKED]
    assert waits == [1, 2, 2]
    assert "record locked" in delivery.reason


@pytest.mark.parametrize("attempt", [Attempt.UNANSWERED, Attempt.UNREACHABLE])
def test_silence_is_never_parked(attempt: Attempt) -> None:
    delivery = WAITING
    for _ in range(1000):
        delivery = after(delivery, attempt, "", NOW, PATIENCE)
    assert delivery.state is OutboxState.WAITING
    assert delivery.due_at <= NOW + timedelta(seconds=60)
    assert after(delivery, Attempt.ERROR, "", NOW, PATIENCE).state is OutboxState.WAITING


def test_silence_about_one_message_while_others_are_answered_is_an_error_of_that_one() -> None:
    delivery = WAITING
    for answered, state in (
        (False, "waiting"),
        (True, "waiting"),
        (True, "waiting"),
        (False, "waiting"),
        (True, "parked"),
    ):
        delivery = after(delivery, Attempt.UNANSWERED, "hung up", NOW, PATIENCE, others_answered=answered)
        assert delivery.state == state
    assert (delivery.attempts, delivery.errors) == (5, 3)
    assert delivery.reason == "not answered: hung up; others are answered"
    assert after(WAITING, Attempt.UNREACHABLE, "", NOW, PATIENCE, others_answered=True).errors == 0


def test_what_waits_since_a_time_that_is_still_to_come_has_an_age() -> None:
    assert Backlog("ris", 1, 0, NOW).age_s(NOW + timedelta(hours=1)) == 3600
    assert Backlog("ris", 1, 0, NOW).age_s(NOW - timedelta(hours=1)) == 3600
    assert Backlog("ris", 0, 0, None).age_s(NOW) == 0


def test_queues_are_left_behind_where_something_is_in_them_and_nobody_sends_it() -> None:
    queues = [
        Backlog("ris", 1, 0, NOW),
        Backlog("old", 2, 0, NOW),
        Backlog("older", 0, 1, None),
        Backlog("done", 0, 0, None),
    ]
    assert [each.destination for each in left_behind(queues, ["ris"])] == ["old", "older"]


def test_what_may_have_arrived_is_parked_where_repeats_do_harm() -> None:
    once = Patience(repeat_unanswered=False)
    for attempt in (Attempt.UNANSWERED, Attempt.UNUSABLE):
        assert after(WAITING, attempt, "", NOW, once).state is OutboxState.PARKED
    assert after(WAITING, Attempt.UNREACHABLE, "", NOW, once).state is OutboxState.WAITING


def test_a_destination_that_is_away_for_days_costs_a_message_no_attempt() -> None:
    assert after(WAITING, Attempt.UNREACHABLE, "", NOW, PATIENCE).attempts == 0
    assert after(WAITING, Attempt.UNANSWERED, "", NOW, PATIENCE).attempts == 1


def test_waiting_grows_to_its_limit() -> None:
    assert [PATIENCE.back_off(failures) for failures in (1, 2, 3, 6, 7, 8, 10_000)] == [1, 2, 4, 32, 60, 60, 60]


@pytest.mark.parametrize(
    ("told", "attempt"),
    [
        (None, Attempt.UNUSABLE), (Told("AA", "M1"), Attempt.ACCEPTED), (Told("CA", "M1"), Attempt.ACCEPTED),
        (Told("AE", "M1"), Attempt.ERROR), (Told("CE", "M1"), Attempt.ERROR), (Told("AR", "M1"), Attempt.REJECTED),
        (Told("CR", "M1"), Attempt.REJECTED), (Told("ZZ", "M1"), Attempt.UNUSABLE),
        (Told("AR", "M1", frozenset({"207"})), Attempt.ERROR), (Told("AR", "M1", frozenset({"203"})), Attempt.REJECTED),
    ],
)  # fmt: skip
def test_an_answer_means_what_its_code_says(told: Told | None, attempt: Attempt) -> None:
    assert attempt_of(told) is attempt


def test_answers_are_read_in_every_layout() -> None:
    old = read(b"MSH|^~\\&|RIS||||||ACK|1|P|2.3.1\rMSA|AR|M1|no such thing\rERR|PID^1^3^204&Unknown key\r")
    new = read(b"MSH|^~\\&|RIS||||||ACK|1|P|2.5\rMSA|ae|M1\rERR||PID^1|204^Unknown key|E|||no patient \xe4\r")
    assert old == Told("AR", "M1", frozenset({"204"}), "no such thing")
    assert new == Told("AE", "M1", frozenset({"204"}), "no patient ä")


@pytest.mark.parametrize("data", [b"", b"OK", b"MSH|^~\\&|", b"MSH|^~\\&|RIS\rMSA||M1"])
def test_what_is_no_acknowledgement_is_none(data: bytes) -> None:
    assert read(data) is None
    assert answers(data, "M1")


def test_an_answer_to_another_message_is_not_taken_for_ours() -> None:
    assert not answers(b"MSH|^~\\&|RIS\rMSA|AA|M0", "M1")
    assert answers(b"MSH|^~\\&|RIS\rMSA|AA|M1", "M1")
    assert answers(b"MSH|^~\\&|RIS\rMSA|AA|", "M1")
