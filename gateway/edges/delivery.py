"""Delivery of the outbox: one task and one channel for each destination, one message at a time.

What is sent next is the store's answer, what follows from an attempt is `workflow.outbox`'s, how it is sent the
channel's. A destination that is away delays only itself. Whatever happens, also a restart, a message stays in the
outbox until its outcome is on disk; and since of each lane only the oldest message is ever under way, what is repeated
after a crash is repeated before anything newer of its lane is sent.
"""

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from gateway.edges.channel import Channel, Destination, Outcome
from gateway.edges.database import StoreError
from gateway.edges.mllp import Observe
from gateway.edges.store import Store, StoreReader, StoreUnit
from gateway.workflow.outbox import ANSWERS, DESTINATION_AWAY, Attempt, Delivery, OutboxState, Patience, after

POLL_S = 1.0
"""How often the outbox is looked into without being told: another process may have put something there."""

TOGETHER_MAX = 32
"""Messages of different lanes that are fetched and settled together. Beyond it the transaction's share is small
against the sending; a crash repeats at most so many."""

TOGETHER_S = 0.1
"""After so long what was answered is settled, and a destination that was put on hold meanwhile gets no more."""


UNANSWERED_MAX = 1_000
"""Messages of which is remembered when they were last sent in vain. Each of them costs a pause, so there are a few."""

Hear = Callable[[StoreUnit, Delivery, bytes], None]
"""What an accepted message was answered with, in the transaction that settles it. It raises nothing but StoreError."""


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class _Attempted:
    """A message before and after an attempt."""

    before: Delivery
    after: Delivery
    outcome: Outcome

    @property
    def changed(self) -> bool:
        return self.after != self.before


class Deliverer:
    """Sends what waits for one destination. `observe` gets names, counts and codes, never content."""

    def __init__(
        self,
        destination: Destination,
        store: Store,
        observe: Observe,
        patience: Patience | None = None,
        now: Callable[[], datetime] = _utc_now,
        *,
        channel: Channel,
        hear: Hear | None = None,
    ) -> None:
        self.destination = destination
        self._store = store
        self._observe = observe
        self._patience = patience or Patience()
        self._now = now
        self._channel = channel
        self._hear = hear
        # Where repeats do harm, a crash shall repeat one message at most.
        self._together_max = TOGETHER_MAX if self._patience.repeat_unanswered else 1
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._sending = False
        self._waiting = False
        self._stopping = False
        self._failures = 0
        self._in_doubt_until: int | None = None  # a number in the outbox, None until the next look
        self._answers = 0  # that came so far, to any message
        self._unanswered: OrderedDict[int, int] = OrderedDict()  # how many had come, by message

    def start(self) -> None:
        """Begin with what has waited since before."""
        self._stopping = False
        self._in_doubt_until = None  # an earlier run may have ended between an answer and its outcome
        self._task = asyncio.get_running_loop().create_task(self._run())

    @property
    def idle(self) -> bool:
        """Whether it waits to be woken. One that is at work, or leaves its destination in peace, looks afterwards."""
        return self._waiting and not self._woken.is_set()

    def wake(self) -> None:
        """Something was put into the outbox."""
        self._woken.set()

    async def stop(self, grace_s: float) -> None:
        """Wait for the answer to what was sent, at most so long; the rest stays for the next start."""
        self._stopping = True
        task, self._task = self._task, None
        if task is None:
            return
        if self._sending:
            await asyncio.wait([task], timeout=grace_s)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await self._channel.close()

    async def _run(self) -> None:
        while not self._stopping:
            try:
                pause_s = await self._deliver()
            except StoreError as error:  # such as a full disk: what was sent now will be sent again
                pause_s = self._failed("outbox_unavailable", error)
            except Exception as error:  # a defect of ours must not end delivery for good
                pause_s = self._failed("delivery_failed", error)
            if pause_s and not self._stopping:
                await asyncio.sleep(pause_s)

    def _failed(self, event: str, error: Exception) -> float:
        self._failures += 1
        self._in_doubt_until = None
        self._note(event, error=type(error).__name__)
        return self._patience.back_off(self._failures)

    async def _deliver(self) -> float:
        """Send what is due, if anything is; the seconds to leave the destination in peace then."""
        self._woken.clear()
        reader = self._store.reader
        if self._in_doubt_until is None:
            self._in_doubt_until = reader.last_delivery_number()
        heads = reader.next_deliveries(
            self.destination.name, self._now(), self._together_max, self._patience.most_s
        )  # fmt: skip
        if not heads:
            await self._look_again()
            return 0.0
        self._sending = True
        try:
            last = await self._send(heads)
        finally:
            self._sending = False
        if last.attempt not in DESTINATION_AWAY:
            self._failures = 0
            return self.destination.pause_s
        pause_s = self._in_peace_s(last)
        self._failures += 1
        return pause_s

    def _in_peace_s(self, last: Outcome) -> float:
        """How long a destination that is away is asked nothing: longer where it says so, within what is usual."""
        return max(self._patience.back_off(self._failures + 1), min(last.wait_s, self._patience.most_s))

    async def _look_again(self) -> None:
        """Wait until it is time to look again."""
        self._waiting = True
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_S):
                    await self._woken.wait()
        finally:
            self._waiting = False

    async def _send(self, heads: Sequence[Delivery]) -> Outcome:
        """Send these one after the other, until it is time to settle; what the last attempt came to."""
        clock = asyncio.get_running_loop().time
        until = clock() + TOGETHER_S
        attempted: list[_Attempted] = []
        try:
            for delivery in heads:
                attempted.append(await self._attempt(delivery))
                outcome = attempted[-1].outcome
                if outcome.attempt in DESTINATION_AWAY or self.destination.pause_s or self._stopping or clock() > until:
                    break
        except BaseException:  # stopped in the middle: what was answered need not be sent again
            self._settle(attempted)
            raise
        # Shielded, because a job that is cancelled while it waits is not done.
        await asyncio.shield(asyncio.wrap_future(self._settle(attempted)))
        for each in attempted:
            if each.changed or self._failures == 0:
                self._note(
                    "delivery", control_id=each.before.control_id, operation=each.before.operation,
                    outcome=each.outcome.attempt.name, state=each.after.state.value, attempts=each.after.attempts,
                )  # fmt: skip
        return attempted[-1].outcome

    async def _attempt(self, delivery: Delivery) -> _Attempted:
        try:
            outcome = await self._channel.send(delivery)
        except Exception as error:  # a defect of ours, perhaps with this message alone
            self._note("delivery_failed", error=type(error).__name__)
            outcome = Outcome(Attempt.FAILED_HERE, type(error).__name__)
        settled = after(
            delivery, outcome.attempt, outcome.reason, self._now(), self._patience,
            in_doubt=delivery.id <= (self._in_doubt_until or 0),
            others_answered=self._others_answered(delivery.id, outcome.attempt),
        )  # fmt: skip
        return _Attempted(delivery, settled, outcome)

    def _others_answered(self, number: int, attempt: Attempt) -> bool:
        """Whether others were answered since this message was sent in vain the last time. A restart forgets that."""
        before = self._unanswered.pop(number, None)
        if attempt is Attempt.UNANSWERED:
            self._unanswered[number] = self._answers
            if len(self._unanswered) > UNANSWERED_MAX:
                self._unanswered.popitem(last=False)
        elif attempt in ANSWERS:
            self._answers += 1
        elif before is not None:  # such as not reachable: it was not sent
            self._unanswered[number] = before
        return before is not None and self._answers > before

    def _settle(self, attempted: Sequence[_Attempted]) -> "Future[None]":
        """Put the outcomes on disk, all in one transaction."""
        changed = [each for each in attempted if each.changed]
        away = self._away(attempted[-1]) if attempted else ""
        return self._store.write(partial(_save, changed, self._now(), self.destination.name, away, self._hear))

    def _away(self, last: _Attempted) -> str:
        """Why the destination is left in peace, and how long; '' where it is not."""
        if last.outcome.attempt not in DESTINATION_AWAY:
            return ""
        return f"{last.after.reason}; tried again after {self._in_peace_s(last.outcome):g} s"

    def _note(self, event: str, **fields: Any) -> None:
        self._observe(event, destination=self.destination.name, **fields)


def wake_those_due(deliverers: Mapping[str, Deliverer], reader: StoreReader, now: datetime) -> None:
    """Something may have been put into the outbox, by whoever calls this on the event loop of these deliverers.

    It happens after every message received, so one question is asked for all that are idle, and none where none is.
    """
    idle = [each for each in deliverers.values() if each.idle]
    if not idle:
        return
    try:
        due = frozenset(reader.due_destinations(now))
    except StoreError:  # the message is stored, and so answered; what it caused is found at the next look
        return
    for each in idle:
        if each.destination.name in due:
            each.wake()


def _save(
    attempted: Sequence[_Attempted], at: datetime, destination: str, away: str, hear: Hear | None, unit: StoreUnit
) -> None:  # fmt: skip
    for each in attempted:
        if hear is not None and each.outcome.attempt is Attempt.ACCEPTED:
            hear(unit, each.before, each.outcome.answer)
        held = unit.delivery(each.before.id)
        if held is None or (held.state, each.after.state) == (OutboxState.PARKED, OutboxState.WAITING):
            continue  # a person dropped it or set it aside meanwhile
        unit.save_delivery(each.after, each.outcome.answer, at)
    if away:  # the message itself says so once, its queue each time
        unit.note_failure(destination, away, at)
