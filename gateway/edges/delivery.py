"""Delivery of the outbox: one task and one channel for each destination, one message at a time.

What is sent next is the store's answer, what follows from an attempt is `workflow.outbox`'s, how it is sent the
channel's. A destination that is away delays only itself. Whatever happens, also a restart, a message stays in the
outbox until its outcome is on disk; and since of each lane only the oldest message is ever under way, what is repeated
after a crash is repeated before anything newer of its lane is sent.
"""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from gateway.edges.channel import Channel, Destination, Outcome
from gateway.edges.database import StoreError
from gateway.edges.mllp import Observe
from gateway.edges.store import Store, StoreUnit
from gateway.workflow.outbox import DESTINATION_AWAY, Attempt, Delivery, OutboxState, Patience, after

POLL_S = 1.0
"""How often the outbox is looked into without being told: another process may have put something there."""

TOGETHER_MAX = 32
"""Messages of different lanes that are fetched and settled together. Beyond it the transaction's share is small
against the sending; a crash repeats at most so many."""

TOGETHER_S = 0.1
"""After so long what was answered is settled, and a destination that was put on hold meanwhile gets no more."""


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
    ) -> None:
        self.destination = destination
        self._store = store
        self._observe = observe
        self._patience = patience or Patience()
        self._now = now
        self._channel = channel
        # Where repeats do harm, a crash shall repeat one message at most.
        self._together_max = TOGETHER_MAX if self._patience.repeat_unanswered else 1
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._sending = False
        self._stopping = False
        self._failures = 0
        self._in_doubt_until = now()

    def start(self) -> None:
        """Begin with what has waited since before."""
        self._stopping = False
        self._in_doubt_until = self._now()  # an earlier run may have ended between an answer and its outcome
        self._task = asyncio.get_running_loop().create_task(self._run())

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
        self._in_doubt_until = self._now()
        self._note(event, error=type(error).__name__)
        return self._patience.back_off(self._failures)

    async def _deliver(self) -> float:
        """Send what is due, if anything is; the seconds to leave the destination in peace then."""
        self._woken.clear()
        heads = self._store.reader.next_deliveries(self.destination.name, self._now(), self._together_max)
        if not heads:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_S):
                    await self._woken.wait()
            return 0.0
        self._sending = True
        try:
            last = await self._send(heads)
        finally:
            self._sending = False
        if last not in DESTINATION_AWAY:
            self._failures = 0
            return self.destination.pause_s
        self._failures += 1
        return self._patience.back_off(self._failures)

    async def _send(self, heads: Sequence[Delivery]) -> Attempt:
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
                    "delivery", control_id=each.before.control_id, outcome=each.outcome.attempt.name,
                    state=each.after.state.value, attempts=each.after.attempts,
                )  # fmt: skip
        return attempted[-1].outcome.attempt

    async def _attempt(self, delivery: Delivery) -> _Attempted:
        try:
            outcome = await self._channel.send(delivery)
        except Exception as error:  # a defect of ours, perhaps with this message alone
            self._note("delivery_failed", error=type(error).__name__)
            outcome = Outcome(Attempt.FAILED_HERE, type(error).__name__)
        in_doubt = delivery.created_at <= self._in_doubt_until
        settled = after(delivery, outcome.attempt, outcome.reason, self._now(), self._patience, in_doubt=in_doubt)
        return _Attempted(delivery, settled, outcome)

    def _settle(self, attempted: Sequence[_Attempted]) -> "Future[None]":
        """Put the outcomes on disk, all in one transaction."""
        changed = [each for each in attempted if each.changed]
        return self._store.write(partial(_save, changed, self._now()))

    def _note(self, event: str, **fields: Any) -> None:
        self._observe(event, destination=self.destination.name, **fields)


def _save(attempted: Sequence[_Attempted], at: datetime, unit: StoreUnit) -> None:
    for each in attempted:
        held = unit.delivery(each.before.id)
        if held is None or (held.state, each.after.state) == (OutboxState.PARKED, OutboxState.WAITING):
            continue  # a person dropped it or set it aside meanwhile
        unit.save_delivery(each.after, each.outcome.answer, at)
