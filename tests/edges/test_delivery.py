"""Delivery to a real MLLP receiver that is away, drops, refuses, answers late or for another message."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.domain.identifiers import Identifier
from gateway.domain.patient import Patient
from gateway.edges.channel import Destination, Outcome
from gateway.edges.database import StoreUnavailable
from gateway.edges.delivery import Deliverer
from gateway.edges.hl7_channel import HL7Channel
from gateway.edges.mllp import Release
from gateway.edges.store import Store, StoreUnit
from gateway.wire.er7 import parse
from gateway.wire.mllp import Commit, Event, Frame, Framer, commit, wrap
from gateway.workflow.outbox import Attempt, Backlog, Delivery, Patience, enqueue, park, retry

PATIENCE_S = 60
"""A bound against hanging, no measure."""
AT = datetime(2026, 7, 5, 8, tzinfo=UTC)
QUICK = Patience(first_s=0.01, most_s=0.05, errors_max=3)
DROP, SILENT, DROP_AFTER = b"drop", b"silent", b"drop after the answer"


def message(control_id: str) -> bytes:
    return f"MSH|^~\\&|GATEWAY||RIS||20260705||ORM^O01|{control_id}|P|2.3.1\rORC|SC|P1\r".encode()


def ack(control_id: str, code: str = "AA", error: str = "") -> bytes:
    text = f"MSH|^~\\&|RIS||GATEWAY||20260705||ACK|A|P|2.3.1\rMSA|{code}|{control_id}|because\r"
    return (text + (f"ERR|PID^1^3^{error}\r" if error else "")).encode()


class Receiver:
    """Answers by a script: for each control ID the blocks of each attempt, then AA."""

    def __init__(self, release: Release = 1) -> None:
        self.release = release
        self.script: dict[str, list[list[bytes]]] = {}
        self.received: list[str] = []
        self.commits: list[bool] = []
        self.connections = 0
        self.happened = asyncio.Condition()
        self.port = 0
        self.server: asyncio.Server | None = None
        self.serving: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self.server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)
        self.port = self.server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Listen no more, and end what is connected: a server that is closed leaves its connections open."""
        assert self.server is not None
        self.server.close()
        for task in self.serving:
            task.cancel()
        await asyncio.gather(*self.serving, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.serving.add(task)
        try:
            await self._serve(reader, writer)
        except asyncio.CancelledError:  # it is stopped
            writer.transport.abort()
        finally:
            self.serving.discard(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        framer = Framer()
        with suppress(OSError):
            while data := await reader.read(10_000):
                for event in framer.feed(data):
                    if not await self._take(event, writer):
                        writer.transport.abort()
                        return
        writer.close()

    async def _take(self, event: Event, writer: asyncio.StreamWriter) -> bool:
        if isinstance(event, Commit):
            self.commits.append(event.stored)
        if isinstance(event, Frame):
            control_id = parse(event.data).control_id
            steps = self.script.get(control_id)
            blocks = steps.pop(0) if steps else [ack(control_id)]
            self.received.append(control_id)
            if DROP in blocks:
                await self._tell()
                return False
            for block in blocks:
                if block == DROP_AFTER:
                    writer.close()
                elif block != SILENT:
                    writer.write(block if block.startswith(b"\x0b") or b"unframed" in block else wrap(block))
        await self._tell()
        return True

    async def _tell(self) -> None:
        async with self.happened:
            self.happened.notify_all()

    async def got(self, count: int) -> list[str]:
        async with self.happened:
            await self.happened.wait_for(lambda: len(self.received) >= count)
        return self.received


class Delivering:
    """A store, and what runs over it."""

    def __init__(self, store: Store, receiver: Receiver, **changes: Any) -> None:
        self.store = store
        self.destination = replace(Destination("ris", "127.0.0.1", receiver.port, answer_timeout_s=5.0), **changes)
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.happened = asyncio.Condition()
        channel = HL7Channel(self.destination, receiver.release)
        self.ahead = timedelta(0)
        self.deliverer = Deliverer(self.destination, store, self._observe, QUICK, self.now, channel=channel)

    def now(self) -> datetime:
        """A clock that is set by hand."""
        return datetime.now(UTC) + self.ahead

    def _observe(self, event: str, /, **fields: Any) -> None:
        self.events.append((event, fields))
        asyncio.get_running_loop().create_task(self._tell())

    async def _tell(self) -> None:
        async with self.happened:
            self.happened.notify_all()

    async def put(
        self, control_id: str, patient: int | None = None, destination: str = "ris", at: datetime = AT
    ) -> int:
        number = await asyncio.wrap_future(
            self.store.write(lambda unit: enqueue(unit, destination, patient, control_id, message(control_id), at))
        )
        self.deliverer.wake()
        return number

    async def outcome(self, control_id: str, state: str) -> dict[str, Any]:
        def found() -> list[dict[str, Any]]:
            return [e for _, e in self.events if (e.get("control_id"), e.get("state")) == (control_id, state)]

        async with self.happened:
            await self.happened.wait_for(found)
        return found()[0]

    def disposition(self, message_id: int) -> str:
        stored = self.store.reader.message(message_id)
        assert stored is not None
        return stored.record.disposition


def _invent_patients(unit: StoreUnit) -> None:
    """Patients 1 to 5."""
    for number in range(1, 6):
        identifier = Identifier(f"P{number}", "OE")
        if not unit.patients([identifier]):
            assert unit.save_patient(Patient(None, (identifier,), {}), AT) == number


def backlog(running: Delivering) -> Backlog:
    """The counts of its destination alone."""
    (found,) = running.store.reader.queues()
    return Backlog(found.destination, found.waiting, found.parked, found.oldest)


Scenario = Callable[[Delivering, Receiver], Coroutine[Any, Any, None]]


@asynccontextmanager
async def delivering(folder: Path, release: Release = 1, **changes: Any) -> AsyncIterator[tuple[Delivering, Receiver]]:
    async with AsyncExitStack() as ended:
        store = ended.enter_context(Store(f"sqlite:///{folder / 'gateway.db'}"))
        receiver = Receiver(release)
        await receiver.start()
        ended.push_async_callback(receiver.stop)
        await asyncio.wrap_future(store.write(_invent_patients))
        running = Delivering(store, receiver, **changes)
        running.deliverer.start()
        ended.push_async_callback(running.deliverer.stop, 1.0)
        yield running, receiver


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., None]:
    def started(scenario: Scenario, **changes: Any) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(PATIENCE_S), delivering(tmp_path, **changes) as (running, receiver):
                await scenario(running, receiver)

        asyncio.run(bounded())

    return started


def test_messages_are_delivered_in_order_on_one_connection(run: Callable[..., None]) -> None:
    async def scenario(running: Delivering, receiver: Receiver) -> None:
        names = [f"M{number}" for number in range(30)]
        numbers = [await running.put(name, patient) for patient, name in zip([None, 1, 2] * 10, names, strict=True)]
        await running.outcome("M29", "sent")
        assert receiver.received == names
        assert receiver.connections == 1
        stored = running.store.reader.message(numbers[-1])
        assert stored is not None
        record = stored.record
        assert (record.direction, record.listener, record.disposition) == ("out", "ris", "sent")
        assert (record.message_type, record.control_id, record.raw) == ("ORM^O01", "M29", message("M29"))
        assert b"MSA|AA|M29" in record.answer
        assert running.store.reader.deliveries(10) == []

    run(scenario)


def test_a_receiver_that_needs_a_pause_gets_it(run: Callable[..., None]) -> None:
    async def scenario(running: Delivering, receiver: Receiver) -> None:
        arrived: list[float] = []
        take = receiver._take

        async def timed(event: Event, writer: asyncio.StreamWriter) -> bool:
            arrived.append(asyncio.get_running_loop().time())
            return await take(event, writer)

        receiver._take = timed  # type: ignore[method-assign]
        await running.put("M1")
        await running.put("M2")
        await running.outcome("M2", "sent")
        assert arrived[1] - arrived[0] >= 0.2

    run(scenario, pause_s=0.2)


def test_a_rejected_message_is_parked_and_the_next_goes_on(run: Callable[..., None]) -> None:
    async def scenario(running: Delivering, receiver: Receiver) -> None:
        receiver.script["M1"] = [[ack("M1", "AR", "203")]]
        number = await running.put("M1", 1)
        await running.put("M2", 1)
        await running.outcome("M2", "sent")
        assert receiver.received == ["M1", "M2"]
        assert running.disposition(number) == "parked"
        (parked,) = running.store.reader.deliveries(10)
        assert "because" in parked.reason
        assert backlog(running) == Backlog("ris", 0, 1, None)

    run(scenario)


def test_an_error_holds_back_its_patient_only_and_is_repeated_with_the_same_control_id(
    run: Callable[..., None],
) -> None:
    async def scenario(running: Delivering, receiver: Receiver) -> None:
        receiver.script["M1"] = [[ack("M1", "AE", "206")], [ack("M1", "AR", "207")]]
        for name, patient in (("M1", 1), ("M2", 1), ("M3", 2), ("M4", None)):
            await running.put(name, patient)
        await running.outcome("M2", "sent")
        assert receiver.received.count("M1") == 3
        assert receiver.received.index("M2") > max(at for at, name in enumerate(receiver.received) if name == "M1")
        await running.outcome("M4", "sent")

    run(scenario)


def test_an_error_that_stays_is_parked_and_may_be_sent_again_by_hand(run: Callable[..., None]) -> None:
    async def scenario(running: Delivering, receiver: Receiver) -> None:
        receiver.script["M1"] = [[ack("M1", "AE")]] * 3
        number = await running.put("M1", 1)
        assert (await running.outcome("M1", "parked"))["attempts"] == 3
        (parked,) = running.store.reader.deliveries(10)
        assert await asyncio.wrap_future(running.store.write(lambda unit: retry(unit, parked.id, AT)))
        running.deliverer.wake()
        await running.outcome("M1", "sent")
        assert running.disposition(number) == "sent"
        assert not await asyncio.wrap_future(running.store.write(lambda unit: retry(unit, parked.id, AT)))

    run(scenario)


def test_a_message_set_aside_by_hand_lets_those_behind_it_go(run: Callable[..., None]) -> None:
    async def scenario(running: Delivering, receiver: Receiver) -> None:
        await running.deliverer.stop(1.0)
        number = await running.put("M1", 1)
        await running.put("M2", 1)
        first = running.store.reader.deliveries(10)[0]
        assert await asyncio.wrap_future(running.store.write(lambda unit: park(unit, first.id)))
        running.deliverer.start()
        await running.outcome("M2", "sent")
        assert receiver.received == ["M2"]
        assert running.disposition(number) == "parked"

    run(scenario)


def test_a_connection_that_drops_before_the_answer_costs_a_repeat_and_no_message(run: Callable[..., None]) -> None:
    async def scenario(running: Delivering, receiver: Receiver) -> None:
        receiver.script["M1"] = [[DROP], [DROP]]
        await running.put("M1", 1)
        await running.put("M2", 1)
        await running.outcome("M2", "sent")
        assert receiver.received == ["M1", "M1", "M1", "M2"]
        assert receiver.connections == 3

    run(scenario)


def test_a_late_answer_is_not_taken_for_the_next_message(run: Callable[..., None]) -> None:
    async def scenario(running: Delivering, receiver: Receiver) -> None:
        receiver.script["M2"] = [[ack("M1"), ack("M0"), ack("M2", "AR")]]
        await running.put("M1", 1)
        number = await running.put("M2", 1)
        await running.outcome("M2", "parked")
        assert running.disposition(number) == "parked"

    run(scenario)


def test_a_message_without_an_answer_is_sent_again_on_a_new_connection(run: Callable[..., None]) -> None:
    async def scenario(running: Delivering, receiver: Receiver) -> None:
        receiver.script["M1"] = [[SILENT], [ack("M0")], [b"unframed MSH|ACK"]]
        await running.put("M1", 1)
        assert (await running.outcome("M1", "sent"))["attempts"] == 4
        assert receiver.connections == 4

    run(scenario, answer_timeout_s=0.1)


def test_a_receiver_that_only_answers_other_messages_does_not_hold_up_its_lane_for_ever(
    run: Callable[..., None],
) -> None:
    async def scenario(running: Delivering, receiver: Receiver) -> None:
        receiver.script["M1"] = [[ack("M8"), ack("M9")], [ack("M0"), DROP_AFTER], [ack("M0")]]
        number = await running.put("M1", 1)
        await running.put("M2", 1)
        assert (await running.outcome("M1", "parked"))["attempts"] == 3
        (parked,) = [each for each in running.store.reader.deliveries(10) if each.control_id == "M1"]
        assert "answers were for other messages, the last for MSA-2 M0" in parked.reason
        stored = running.store.reader.message(number)
        assert stored is not None
        assert b"MSA|AA|M0" in stored.record.answer
        await running.outcome("M2", "sent")

    run(scenario, answer_timeout_s=0.2)


def test_a_receiver_that_is_silent_is_asked_for_ever(run: Callable[..., None]) -> None:
    async def scenario(running: Delivering, receiver: Receiver) -> None:
        receiver.script["M1"] = [[SILENT]] * (2 * QUICK.errors_max)
        await running.put("M1", 1)
        assert (await running.outcome("M1", "sent"))["attempts"] == 2 * QUICK.errors_max + 1

    run(scenario, answer_timeout_s=0.05)


def test_a_message_that_makes_a_receiver_hang_up_is_parked_and_keeps_its_patient_no_longer(
    run: Callable[..., None],
) -> None:
    async def scenario(running: Delivering, receiver: Receiver) -> None:
        receiver.script["BAD"] = [[DROP]] * 1000
        number = await running.put("BAD", 1)
        await running.put("M1", 1)
        others = 0
        while running.disposition(number) == "waiting":
            others += 1
            await running.put(f"O{others}", 2)
            await running.outcome(f"O{others}", "sent")
        assert running.disposition(number) == "parked"
        await running.outcome("M1", "sent")
        assert receiver.received.count("BAD") > QUICK.errors_max

    run(scenario)


# ---- a clock that is set back ----


@pytest.mark.parametrize("ahead", [timedelta(minutes=10), timedelta(days=3650)])
def test_what_was_put_there_while_the_clock_was_ahead_goes_and_holds_nothing_back(
    run: Callable[..., None], ahead: timedelta
) -> None:
    async def scenario(running: Delivering, receiver: Receiver) -> None:
        await running.put("M1", 1, at=running.now() + ahead)
        await running.put("M2", 1)
        await running.outcome("M2", "sent")
        assert receiver.received == ["M1", "M2"]

    run(scenario)


def test_what_was_tried_while_the_clock_was_ahead_is_tried_again(run: Callable[..., None]) -> None:
    async def scenario(running: Delivering, receiver: Receiver) -> None:
        running.ahead = timedelta(days=1)
        receiver.script["M1"] = [[ack("M1", "AE")]]
        observe = running.deliverer._observe

        def set_back(event: str, /, **fields: Any) -> None:
            running.ahead = timedelta(0)  # its next try is settled, and the clock is right again
            observe(event, **fields)

        running.deliverer._observe = set_back
        await running.put("M1", 1)
        await running.outcome("M1", "sent")

    run(scenario)


def test_what_waited_at_the_start_may_have_been_sent_whatever_the_clock_says(tmp_path: Path) -> None:
    """A step that is final there was ended by us, in a run that could not note it any more."""
    ended: list[str] = []

    class Ended:
        async def send(self, delivery: Delivery) -> Outcome:
            ended.append(delivery.control_id)
            return Outcome(Attempt.FINAL_ALREADY, "0110")

        async def close(self) -> None: ...

    async def scenario() -> None:
        async with asyncio.timeout(PATIENCE_S), delivering(tmp_path) as (running, _):
            pacs = Destination("pacs", "127.0.0.1", 1)
            ahead = running.now() + timedelta(days=1)
            await running.put("BEFORE", 1, "pacs", at=ahead)
            deliverer = Deliverer(pacs, running.store, running._observe, QUICK, channel=Ended())
            deliverer.start()
            await running.outcome("BEFORE", "sent")
            await running.put("SINCE", 1, "pacs", at=AT)
            deliverer.wake()
            await running.outcome("SINCE", "parked")
            await deliverer.stop(1.0)
            assert ended == ["BEFORE", "SINCE"]

    asyncio.run(scenario())


# ---- a destination that is away ----


def test_each_round_to_a_destination_that_is_away_is_noted_in_its_queue(run: Callable[..., None]) -> None:
    async def scenario(running: Delivering, receiver: Receiver) -> None:
        await receiver.stop()
        number = await running.put("M1", 1)
        await running.outcome("M1", "waiting")
        tried = set()
        while len(tried) < 3:
            (queue,) = running.store.reader.queues()
            tried.add(queue.last_error_at)
            await asyncio.sleep(0)
        stored = running.store.reader.message(number)
        assert stored is not None
        said, _, again = queue.last_error.partition("; ")
        assert said == stored.record.reasons
        assert again in ("tried again after 0.04 s", "tried again after 0.05 s")
        await receiver.start()
        await running.outcome("M1", "sent")

    run(scenario)


class Busy:
    """A channel to a destination that says once how long it is to be left in peace; `asked` is when it was told."""

    def __init__(self, wait_s: float) -> None:
        self._wait_s = wait_s
        self.asked: list[float] = []
        self.taken = asyncio.Event()

    async def send(self, delivery: Delivery) -> Outcome:
        self.asked.append(asyncio.get_running_loop().time())
        if len(self.asked) == 1:
            return Outcome(Attempt.UNREACHABLE, "it answers 429 for now", wait_s=self._wait_s)
        self.taken.set()
        return Outcome(Attempt.ACCEPTED)

    async def close(self) -> None:
        """There is nothing to close."""


@pytest.mark.parametrize(("asks_s", "gets_s"), [(0.0, 0.01), (0.03, 0.03), (3600.0, 0.05)])
def test_a_destination_that_asks_for_peace_gets_it_within_what_is_usual(
    tmp_path: Path, asks_s: float, gets_s: float
) -> None:
    async def scenario() -> None:
        with Store(f"sqlite:///{tmp_path / 'gateway.db'}") as store:
            busy = Busy(asks_s)
            deliverer = Deliverer(Destination("ehr", "", 0), store, lambda *_, **__: None, QUICK, channel=busy)
            made = store.write(lambda unit: enqueue(unit, "ehr", None, "M1", message("M1"), AT))
            await asyncio.wrap_future(made)
            deliverer.start()
            async with asyncio.timeout(PATIENCE_S):
                await busy.taken.wait()
            await deliverer.stop(1.0)
            (queue,) = store.reader.queues()
        assert queue.last_error.endswith(f"it answers 429 for now; tried again after {gets_s:g} s")
        first, second = busy.asked
        assert second - first >= gets_s

    asyncio.run(scenario())


def test_a_receiver_that_does_not_read_delays_only_itself_and_no_stopping(run: Callable[..., None]) -> None:
    """A message larger than what two systems buffer, to a system that hangs."""

    async def scenario(running: Delivering, receiver: Receiver) -> None:
        hanging = asyncio.Event()
        serving: list[asyncio.Task[None] | None] = []

        async def reads_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            receiver.connections += 1
            serving.append(asyncio.current_task())
            writer.transport.pause_reading()
            await receiver._tell()
            await hanging.wait()
            writer.transport.abort()

        receiver._serve = reads_nothing  # type: ignore[method-assign]
        await receiver.stop()
        await receiver.start()
        large = message("M1") + b"NTE|" + b"x" * 30_000_000
        await asyncio.wrap_future(
            running.store.write(lambda unit: enqueue(unit, "ris", 1, "M1", large, AT))
        )  # fmt: skip
        running.deliverer.wake()
        async with receiver.happened:
            await receiver.happened.wait_for(lambda: receiver.connections > 2)
        await running.deliverer.stop(0.0)
        hanging.set()
        await asyncio.gather(*filter(None, serving))

    run(scenario, answer_timeout_s=0.2)


def test_an_answer_without_framing_is_told_as_such(run: Callable[..., None]) -> None:
    async def scenario(running: Delivering, receiver: Receiver) -> None:
        receiver.script["M1"] = [[b"MSH|unframed ACK"]] + [[SILENT]] * 1000
        await running.put("M1", 1)
        await running.outcome("M1", "waiting")
        assert "without its start" in running.store.reader.deliveries(1)[0].reason

    run(scenario, answer_timeout_s=0.2)


def test_what_is_no_acknowledgement_is_parked_in_the_end(run: Callable[..., None]) -> None:
    async def scenario(running: Delivering, receiver: Receiver) -> None:
        receiver.script["M1"] = [[b"OK"]] * 3
        await running.put("M1", 1)
        await running.outcome("M1", "parked")

    run(scenario)


def test_a_destination_that_is_away_keeps_its_messages_and_gets_them_when_it_is_back(run: Callable[..., None]) -> None:
    async def scenario(running: Delivering, receiver: Receiver) -> None:
        await receiver.stop()
        numbers = [await running.put(f"M{number}", number + 1) for number in range(5)]
        await running.outcome("M0", "waiting")
        assert [running.disposition(number) for number in numbers] == ["waiting"] * 5
        assert backlog(running) == Backlog("ris", 5, 0, AT)
        assert running.store.reader.deliveries(1)[0].attempts == 0
        await receiver.start()
        await running.outcome("M4", "sent")
        assert receiver.received == [f"M{number}" for number in range(5)]

    run(scenario)


def test_one_destination_does_not_wait_for_another(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with asyncio.timeout(PATIENCE_S), delivering(tmp_path) as (running, receiver):
            pacs = Destination("pacs", "127.0.0.1", 1)
            away = Deliverer(pacs, running.store, running._observe, QUICK, channel=HL7Channel(pacs))
            away.start()
            await running.put("M1", 1, destination="pacs")
            await running.put("M2", 1)
            await running.outcome("M2", "sent")
            await running.outcome("M1", "waiting")
            await away.stop(1.0)
            assert receiver.received == ["M2"]

    asyncio.run(scenario())


def test_what_waits_survives_a_restart(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with asyncio.timeout(PATIENCE_S):
            async with delivering(tmp_path, answer_timeout_s=5.0) as (running, receiver):
                receiver.script["M1"] = [[SILENT]]
                await running.put("M1", 1)
                await running.put("M2", 1)
                await receiver.got(1)
                running.deliverer._task.cancel()  # type: ignore[union-attr]
            async with delivering(tmp_path) as (running, receiver):
                await running.outcome("M2", "sent")
                assert receiver.received == ["M1", "M2"]

    asyncio.run(scenario())


def test_stopping_waits_for_the_answer_to_what_was_sent(run: Callable[..., None]) -> None:
    async def scenario(running: Delivering, receiver: Receiver) -> None:
        gate = asyncio.Event()
        take = receiver._take

        async def gated(event: Event, writer: asyncio.StreamWriter) -> bool:
            receiver.received.append("seen")
            await receiver._tell()
            await gate.wait()
            return await take(event, writer)

        receiver._take = gated  # type: ignore[method-assign]
        number = await running.put("M1", 1)
        await receiver.got(1)
        stopping = asyncio.ensure_future(running.deliverer.stop(5.0))
        gate.set()
        await stopping
        assert running.disposition(number) == "sent"

    run(scenario)


def test_release_2_confirms_in_both_directions_and_repeats_what_was_not_stored(run: Callable[..., None]) -> None:
    async def scenario(running: Delivering, receiver: Receiver) -> None:
        receiver.script["M1"] = [[commit(False)], [commit(True), ack("M1")]]
        receiver.script["M2"] = [[commit(True), ack("M2")]]
        await running.put("M1", 1)
        await running.put("M2", 1)
        await running.outcome("M2", "sent")
        assert receiver.received == ["M1", "M1", "M2"]
        assert receiver.commits[:1] == [True]

    run(scenario, release=2)


def test_a_store_that_fails_does_not_end_delivery(run: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario(running: Delivering, receiver: Receiver) -> None:
        settle, failures = running.deliverer._settle, iter([StoreUnavailable("disk full"), RuntimeError("defect")])

        def failing(*arguments: Any) -> Any:
            error = next(failures, None)
            if error is not None:
                raise error
            return settle(*arguments)

        monkeypatch.setattr(running.deliverer, "_settle", failing)
        await running.put("M1", 1)
        await running.outcome("M1", "sent")
        assert receiver.received == ["M1"] * 3
        assert "disk full" not in str(running.events)

    run(scenario)
