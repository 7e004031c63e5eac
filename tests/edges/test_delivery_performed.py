"""Delivery of performed steps to a real pynetdicom receiver that is away, hangs, aborts, refuses or talks nonsense."""

import asyncio
import errno
import socket
import ssl
import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.dsutils import decode
from pynetdicom.events import Event

from gateway.domain.attributes import SPS_SEQUENCE
from gateway.domain.performed import Attention, MPPSState, PerformedStep
from gateway.domain.worklist import SPSStatus, WorklistItem
from gateway.edges.channel import Destination, why
from gateway.edges.performed_channel import Restate, restating
from gateway.testing.performed_receiver import (
    PerformedReceiver,
    aborts,
    answers_another_message,
    answers_without_status,
    final_already,
)
from gateway.wire.mpps_dataset import read_step
from gateway.workflow.outbox import park
from gateway.workflow.ports import DeliveryKind, NewDelivery
from tests.edges.performed_telling import (
    COMPLETE,
    CREATE,
    OTHER,
    PATIENCE_S,
    UID,
    Telling,
    created,
    encoded,
    telling,
    unheld,
)

Scenario = Callable[[Telling, PerformedReceiver], Coroutine[Any, Any, None]]


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., None]:
    def started(
        scenario: Scenario,
        receiver: PerformedReceiver | None = None,
        restate: Restate = unheld,
        answer_timeout_s: float = 5.0,
        idle_s: float = 5.0,
    ) -> None:
        async def bounded(to: PerformedReceiver) -> None:
            there = Destination("pacs", "127.0.0.1", to.port, answer_timeout_s)
            async with telling(tmp_path, there, restate=restate, idle_s=idle_s) as running:
                await scenario(running, to)

        with receiver or PerformedReceiver() as listening:
            asyncio.run(bounded(listening))

    return started


def what(receiver: PerformedReceiver) -> list[tuple[str, str]]:
    return [(each.operation, each.uid) for each in receiver.reported]


def test_steps_are_reported_in_order_with_their_bytes_on_one_association(run: Callable[..., None]) -> None:
    async def scenario(running: Telling, receiver: PerformedReceiver) -> None:
        for uid in (UID, OTHER):
            await running.put("N-CREATE", CREATE, uid)
            await running.put("N-SET", COMPLETE, uid)
        assert await running.outcomes(4) == ["ACCEPTED"] * 4
        assert receiver.steps == {UID: "COMPLETED", OTHER: "COMPLETED"}
        for uid in (UID, OTHER):
            assert [each.data for each in receiver.reported if each.uid == uid] == [CREATE, COMPLETE]
        assert {each.calling_ae_title for each in receiver.reported} == {"GATEWAY"}
        assert receiver.associations == 1
        (queue,) = running.store.reader.queues()
        assert (queue.waiting, queue.parked) == (0, 0)

    run(scenario)


def test_what_a_destination_got_last_is_kept_and_logged_with_its_answer(run: Callable[..., None]) -> None:
    async def scenario(running: Telling, receiver: PerformedReceiver) -> None:
        def trace() -> list[tuple[str, str, str]]:
            return [
                (each.destination, each.operation, each.answer) for each in running.store.reader.performed_sent(UID)
            ]

        await running.put("N-CREATE", CREATE)
        await running.outcomes(1)
        assert trace() == [("pacs", "N-CREATE", "0000")]
        receiver.script.append(0x0107)
        await running.put("N-SET", COMPLETE)
        await running.outcomes(2)
        assert trace() == [("pacs", "N-SET", "0107")]
        logged = [(each["control_id"], each["operation"], each["outcome"]) for each in running.events]
        assert logged == [(UID, "N-CREATE", "ACCEPTED"), (UID, "N-SET", "ACCEPTED")]
        assert running.store.reader.performed_sent(OTHER) == []

    run(scenario)


@pytest.mark.parametrize("sent", [ExplicitVRLittleEndian, ImplicitVRLittleEndian], ids=["explicit", "implicit"])
@pytest.mark.parametrize("taken", [ExplicitVRLittleEndian, ImplicitVRLittleEndian], ids=["explicit", "implicit"])
def test_a_receiver_gets_the_transfer_syntax_that_it_takes(run: Callable[..., None], sent: str, taken: str) -> None:
    async def scenario(running: Telling, receiver: PerformedReceiver) -> None:
        dataset = created()
        dataset.add_new(0x00091001, "UN", b"private!")
        data = encoded(dataset, sent)
        await running.put("N-CREATE", data, transfer_syntax=sent)
        await running.outcomes(1)
        (reported,) = receiver.reported
        assert reported.transfer_syntax == taken
        assert reported.data == encoded(dataset, taken)
        assert (reported.data == data) is (sent == taken)

    run(scenario, PerformedReceiver(transfer_syntaxes=[taken]))


def test_events_are_reported_with_the_roles_exchanged(run: Callable[..., None]) -> None:
    async def scenario(running: Telling, receiver: PerformedReceiver) -> None:
        await running.put("N-EVENT-REPORT 1")
        await running.put("N-EVENT-REPORT 2")
        assert await running.outcomes(2) == ["ACCEPTED"] * 2
        assert [(each.operation, each.event_type) for each in receiver.reported] == [
            ("N-EVENT-REPORT", 1), ("N-EVENT-REPORT", 2)
        ]  # fmt: skip

    run(scenario)


def test_a_receiver_that_does_not_exchange_roles_gets_no_events(run: Callable[..., None]) -> None:
    async def scenario(running: Telling, receiver: PerformedReceiver) -> None:
        await running.put("N-EVENT-REPORT 1")
        assert await running.outcomes(1, "parked") == ["UNSUPPORTED"]
        assert receiver.reported == []

    run(scenario, PerformedReceiver(takes_events=False))


@pytest.mark.parametrize(
    ("receiver", "answer", "outcome"),
    [
        pytest.param(PerformedReceiver(transfer_syntaxes=()), None, "UNSUPPORTED", id="no presentation context"),
        pytest.param(None, 0x0118, "UNSUPPORTED", id="no such SOP class"),
        pytest.param(None, 0x0122, "UNSUPPORTED", id="SOP class not supported"),
        pytest.param(None, 0x0124, "REJECTED", id="not authorised"),
    ],
)
def test_what_will_never_be_taken_is_parked_at_once(
    run: Callable[..., None], receiver: PerformedReceiver | None, answer: int | None, outcome: str
) -> None:
    async def scenario(running: Telling, listening: PerformedReceiver) -> None:
        listening.script.extend([] if answer is None else [answer])
        await running.put("N-CREATE", CREATE)
        assert await running.outcomes(1, "parked") == [outcome]
        (parked,) = running.store.reader.deliveries(10)
        assert parked.reason
        assert len(listening.reported) == (answer is not None)

    run(scenario, receiver)


@pytest.mark.parametrize("answer", [0x0213, 0x0210, 0x0110, 0x0106, 0xC001], ids="{:04X}".format)
def test_other_failures_are_repeated_a_few_times_and_then_parked(run: Callable[..., None], answer: int) -> None:
    async def scenario(running: Telling, receiver: PerformedReceiver) -> None:
        receiver.script.extend([answer] * 3)
        await running.put("N-CREATE", CREATE)
        assert await running.outcomes(1, "parked") == ["ERROR"]
        await running.put("N-CREATE", CREATE, OTHER)
        await running.outcomes(1)
        (parked,) = running.store.reader.deliveries(10)
        assert f"{answer:04X}" in parked.reason
        assert receiver.associations == 1  # the association is none the worse for it

    run(scenario)


@pytest.mark.parametrize("answer", [0x0001, 0x0107, 0x0116, 0xB001], ids="{:04X}".format)
def test_a_warning_is_as_good_as_a_success(run: Callable[..., None], answer: int) -> None:
    async def scenario(running: Telling, receiver: PerformedReceiver) -> None:
        receiver.script.append(answer)
        await running.put("N-CREATE", CREATE)
        assert await running.outcomes(1) == ["ACCEPTED"]

    run(scenario)


@pytest.mark.parametrize("nonsense", [answers_another_message, answers_without_status])
def test_an_answer_that_is_none_to_this_message_is_not_believed(
    run: Callable[..., None], nonsense: Callable[[Event], int]
) -> None:
    async def scenario(running: Telling, receiver: PerformedReceiver) -> None:
        receiver.script.extend([nonsense] * 2)
        await running.put("N-CREATE", CREATE)
        await running.outcomes(1)
        assert [each["outcome"] for each in running.events] == ["UNUSABLE", "UNUSABLE", "ACCEPTED"]
        assert receiver.associations == 3  # who answers nonsense gets a new one
        receiver.script.extend([nonsense] * 3)
        await running.put("N-SET", COMPLETE)
        assert await running.outcomes(1, "parked") == ["UNUSABLE"]

    run(scenario)


def test_an_association_aborted_in_place_of_an_answer_costs_a_repeat(run: Callable[..., None]) -> None:
    async def scenario(running: Telling, receiver: PerformedReceiver) -> None:
        receiver.script.extend([aborts, aborts])
        await running.put("N-CREATE", CREATE)
        await running.put("N-SET", COMPLETE)
        await running.outcomes(2)
        assert what(receiver) == [("N-CREATE", UID)] * 3 + [("N-SET", UID)]

    run(scenario)


def test_a_receiver_that_never_answers_delays_itself_and_gets_the_message_again(run: Callable[..., None]) -> None:
    let_go = threading.Event()

    def hangs(_event: Event) -> int:
        let_go.wait(PATIENCE_S)
        return 0

    async def scenario(running: Telling, receiver: PerformedReceiver) -> None:
        receiver.script.append(hangs)
        await running.put("N-CREATE", CREATE)
        assert await running.outcomes(1, "waiting") == ["UNANSWERED"]
        let_go.set()
        await running.outcomes(1)
        assert what(receiver) == [("N-CREATE", UID)] * 2

    run(scenario, answer_timeout_s=0.3)


def test_a_lost_answer_to_the_first_request_does_no_harm(run: Callable[..., None]) -> None:
    async def scenario(running: Telling, receiver: PerformedReceiver) -> None:
        receiver.steps[UID] = "IN PROGRESS"  # it came before, and nobody knows
        await running.put("N-CREATE", CREATE)
        await running.put("N-SET", COMPLETE)
        assert await running.outcomes(2) == ["HELD_ALREADY", "ACCEPTED"]

    run(scenario)


def test_a_step_that_is_final_there_was_closed_by_us_or_is_for_a_person(run: Callable[..., None]) -> None:
    async def scenario(running: Telling, receiver: PerformedReceiver) -> None:
        receiver.script.extend([0, aborts, final_already])
        await running.put("N-CREATE", CREATE)
        await running.put("N-SET", COMPLETE)
        assert await running.outcomes(2) == ["ACCEPTED", "FINAL_ALREADY"]
        later = NewDelivery(
            "pacs", OTHER, OTHER, COMPLETE, 1, DeliveryKind.PERFORMED, "N-SET", str(ExplicitVRLittleEndian)
        )
        receiver.steps[OTHER] = "DISCONTINUED"  # by somebody else: this was never sent before
        await asyncio.wrap_future(running.store.write(lambda unit: unit.add_delivery(later, datetime.now(UTC))))
        running.deliverer.wake()
        assert await running.outcomes(1, "parked") == ["FINAL_ALREADY"]
        (parked,) = running.store.reader.deliveries(10)
        assert "may no longer be updated" in parked.reason

    run(scenario)


def test_a_step_that_the_receiver_lost_is_created_there_anew(run: Callable[..., None]) -> None:
    held, _ = read_step(CREATE, ExplicitVRLittleEndian)
    ended, _ = read_step(COMPLETE, ExplicitVRLittleEndian)

    step = PerformedStep(UID, MPPSState.COMPLETED, {**held, **ended}, "CT1")

    async def scenario(running: Telling, receiver: PerformedReceiver) -> None:
        await running.put("N-SET", COMPLETE)
        assert await running.outcomes(1) == ["ACCEPTED"]
        assert what(receiver) == [("N-SET", UID), ("N-CREATE", UID), ("N-SET", UID)]
        anew = receiver.reported[1]
        dataset = decode(BytesIO(anew.data), anew.transfer_syntax == ImplicitVRLittleEndian, True)
        assert dataset.PerformedProcedureStepStatus == "IN PROGRESS"
        assert dataset.PatientName == "Müller^Marta"
        assert dataset.PerformedSeriesSequence[0].ProtocolName == "Routine"
        assert receiver.steps == {UID: "COMPLETED"}

    run(scenario, restate=restating(lambda uid: step if uid == UID else None))


def test_a_receiver_that_gets_coerced_copies_gets_one_anew_as_well(run: Callable[..., None]) -> None:
    held, _ = read_step(CREATE, ExplicitVRLittleEndian)
    shown = {
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": "Muster^Eva"}]},
        SPS_SEQUENCE: {"vr": "SQ", "Value": [{}]},
    }
    item = WorklistItem(11, 1, SPSStatus.STARTED, shown)
    step = PerformedStep(UID, MPPSState.IN_PROGRESS, held, "CT1", steps=(11,))

    def named(step: PerformedStep) -> str:
        made = restating(lambda _: step, lambda steps: [item for each in steps if each == 11])(UID)
        assert made is not None
        return str(decode(BytesIO(made[0]), False, True).PatientName)

    async def scenario(running: Telling, receiver: PerformedReceiver) -> None:
        await running.put("N-SET", COMPLETE)
        assert await running.outcomes(1) == ["ACCEPTED"]
        anew = receiver.reported[1]
        assert (
            decode(BytesIO(anew.data), anew.transfer_syntax == ImplicitVRLittleEndian, True).PatientName == "Muster^Eva"
        )

    run(scenario, restate=restating(lambda _: step, lambda steps: [item for each in steps if each == 11]))
    assert named(step) == "Muster^Eva"
    for unbelieved in (replace(step, attention=Attention.ANOTHER_PATIENT), replace(step, steps=())):
        assert named(unbelieved) == "Müller^Marta"


def test_a_step_that_nobody_knows_is_parked(run: Callable[..., None]) -> None:
    async def scenario(running: Telling, receiver: PerformedReceiver) -> None:
        await running.put("N-SET", COMPLETE)
        assert await running.outcomes(1, "parked") == ["REJECTED"]
        assert what(receiver) == [("N-SET", UID)]

    run(scenario)


def test_a_receiver_that_is_away_gets_everything_when_it_is_back(run: Callable[..., None]) -> None:
    async def scenario(running: Telling, receiver: PerformedReceiver) -> None:
        receiver.stop()
        await running.put("N-CREATE", CREATE)
        await running.put("N-SET", COMPLETE)
        assert await running.outcomes(1, "waiting") == ["UNREACHABLE"]
        (waiting,) = running.store.reader.deliveries(1)
        assert (waiting.attempts, waiting.reason) == (0, "not reachable: connection refused")
        receiver.start()
        await running.outcomes(2)
        assert what(receiver) == [("N-CREATE", UID), ("N-SET", UID)]

    run(scenario)


def test_a_receiver_that_only_takes_the_connection_is_told_from_one_that_is_away(tmp_path: Path) -> None:
    async def scenario(port: int) -> None:
        async with telling(tmp_path, Destination("pacs", "127.0.0.1", port, 0.2)) as running:
            await running.put("N-CREATE", CREATE)
            assert await running.outcomes(1, "waiting") == ["UNREACHABLE"]
            (waiting,) = running.store.reader.deliveries(1)
            assert waiting.reason == "not reachable: connected, but the association request is not answered"

    with socket.create_server(("127.0.0.1", 0)) as silent:
        asyncio.run(scenario(silent.getsockname()[1]))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connect call failed"), "connection refused"),
        (OSError(errno.EHOSTUNREACH, "x"), "no route to host"),
        (socket.gaierror(socket.EAI_NONAME, "x"), "the name of its host is not known"),
        (TimeoutError(), "no answer to the attempt to connect"),
        (OSError("Multiple exceptions: x"), "no address of its host takes a connection"),
        (ssl.SSLError("x"), "TLS failed while shaking hands: it ended by SSLError [SSLError]"),
    ],
)
def test_why_there_is_no_connection_is_said_in_words(error: Exception, words: str) -> None:
    assert why(error) == words


def test_a_rejected_association_is_told_and_tried_again(run: Callable[..., None]) -> None:
    async def scenario(running: Telling, receiver: PerformedReceiver) -> None:
        receiver.admit("NOBODYELSE")
        await running.put("N-CREATE", CREATE)
        assert await running.outcomes(1, "waiting") == ["UNREACHABLE"]
        assert "rejected" in running.store.reader.deliveries(1)[0].reason
        receiver.admit("GATEWAY")
        await running.outcomes(1)

    run(scenario)


def test_an_idle_association_is_released_and_the_next_message_opens_one(run: Callable[..., None]) -> None:
    async def scenario(running: Telling, receiver: PerformedReceiver) -> None:
        await running.put("N-CREATE", CREATE)
        await running.outcomes(1)
        await asyncio.to_thread(receiver.wait_for, lambda: receiver.released == 1)
        await running.put("N-SET", COMPLETE)
        await running.outcomes(2)
        assert receiver.associations == 2

    run(scenario, idle_s=0.05)


def test_bytes_that_cannot_be_read_are_parked_where_they_must_be_written_anew(run: Callable[..., None]) -> None:
    async def scenario(running: Telling, receiver: PerformedReceiver) -> None:
        await running.put("N-CREATE", CREATE[:-3])
        await running.put("N-CREATE", CREATE, OTHER)
        assert await running.outcomes(1, "parked") == ["REJECTED"]
        await running.outcomes(1)
        assert what(receiver) == [("N-CREATE", OTHER)]

    run(scenario, PerformedReceiver(transfer_syntaxes=[ImplicitVRLittleEndian]))


@pytest.mark.parametrize("by_hand", ["dropped", "set aside"])
def test_what_a_person_takes_out_while_it_is_sent_is_no_trouble(run: Callable[..., None], by_hand: str) -> None:
    sending, let_go = threading.Event(), threading.Event()

    def waits(_event: Event) -> int:
        sending.set()
        let_go.wait(PATIENCE_S)
        return 0x0213

    async def scenario(running: Telling, receiver: PerformedReceiver) -> None:
        receiver.script.append(waits)
        number = await running.put("N-CREATE", CREATE)
        await running.put("N-SET", COMPLETE)
        await asyncio.to_thread(sending.wait, PATIENCE_S)
        receiver.steps[UID] = "IN PROGRESS"
        store = running.store
        if by_hand == "dropped":
            assert await asyncio.wrap_future(store.write(lambda unit: unit.drop_delivery(number)))
        else:
            assert await asyncio.wrap_future(store.write(lambda unit: park(unit, number)))
        let_go.set()
        await running.outcomes(1)
        assert what(receiver) == [("N-CREATE", UID), ("N-SET", UID)]
        assert [each.reason for each in store.reader.deliveries(10)] == (
            [] if by_hand == "dropped" else ["set aside by hand"]
        )

    run(scenario)


def test_a_destination_on_hold_gets_nothing_and_what_is_under_way_finishes(run: Callable[..., None]) -> None:
    sending, let_go = threading.Event(), threading.Event()

    def waits(_event: Event) -> int:
        sending.set()
        let_go.wait(PATIENCE_S)
        return 0

    async def scenario(running: Telling, receiver: PerformedReceiver) -> None:
        receiver.script.append(waits)
        await running.put("N-CREATE", CREATE)
        await asyncio.to_thread(sending.wait, PATIENCE_S)
        await running.put("N-SET", COMPLETE)
        receiver.steps[UID] = "IN PROGRESS"
        await asyncio.wrap_future(running.store.write(lambda unit: unit.hold_queue("pacs", True)))
        let_go.set()
        await running.outcomes(1)
        running.deliverer.wake()
        assert running.store.reader.next_delivery("pacs", datetime.now(UTC)) is None
        assert what(receiver) == [("N-CREATE", UID)]
        await asyncio.wrap_future(running.store.write(lambda unit: unit.hold_queue("pacs", False)))
        running.deliverer.wake()
        await running.outcomes(2)

    run(scenario)


def test_stopping_does_not_wait_for_a_receiver_that_hangs(run: Callable[..., None]) -> None:
    sending, let_go = threading.Event(), threading.Event()

    def hangs(_event: Event) -> int:
        sending.set()
        let_go.wait(PATIENCE_S)
        return 0

    async def scenario(running: Telling, receiver: PerformedReceiver) -> None:
        receiver.script.append(hangs)
        await running.put("N-CREATE", CREATE)
        await asyncio.to_thread(sending.wait, PATIENCE_S)
        began = time.monotonic()
        await running.deliverer.stop(0.1)
        let_go.set()
        assert time.monotonic() - began < PATIENCE_S / 2  # its answer may take three times as long
        assert running.store.reader.deliveries(10)[0].state == "waiting"
        running.deliverer.start()
        assert await running.outcomes(1) == ["ACCEPTED"]

    run(scenario, answer_timeout_s=60.0)


def test_nothing_of_a_patient_reaches_log_or_events(
    run: Callable[..., None], caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    async def scenario(running: Telling, receiver: PerformedReceiver) -> None:
        receiver.script.extend([aborts, answers_without_status, 0x0213])
        await running.put("N-CREATE", CREATE)
        await running.put("N-SET", COMPLETE)
        await running.outcomes(2)
        said = f"{running.events} {running.store.reader.deliveries(10)}"
        assert "ller" not in said

    caplog.set_level(0)
    run(scenario)
    assert "ller" not in caplog.text
    assert "ller" not in "".join(capfd.readouterr())
