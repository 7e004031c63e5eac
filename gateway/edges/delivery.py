"""Delivery of the outbox: one task and one connection for each destination, one message at a time.

What is sent next is the store's answer, what follows from an attempt is `workflow.outbox`'s; here is the way there
and back. A destination that is away delays only itself. Whatever happens, also a restart, a message stays in the
outbox until its outcome is on disk.
"""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from gateway.edges.database import StoreError
from gateway.edges.mllp import MLLPClient, Observe, Release
from gateway.edges.store import Store, StoreUnit
from gateway.wire import ack_received
from gateway.workflow.outbox import DESTINATION_AWAY, Attempt, Delivery, OutboxState, Patience, after, attempt_of

POLL_S = 1.0
"""How often the outbox is looked into without being told: another process may have put something there."""


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a peer listens, and how long its answers may take."""

    name: str
    host: str
    port: int
    answer_timeout_s: float = 30.0
    release: Release = 1
    pause_s: float = 0.0
    """Left to it between two messages; some systems lose what comes at once."""


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class _Outcome:
    attempt: Attempt
    reason: str = ""
    answer: bytes = b""


class Deliverer:
    """Sends what waits for one destination. `observe` gets names, counts and codes, never content."""

    def __init__(
        self,
        destination: Destination,
        store: Store,
        observe: Observe,
        patience: Patience | None = None,
        now: Callable[[], datetime] = _utc_now,
    ) -> None:
        self.destination = destination
        self._store = store
        self._observe = observe
        self._patience = patience or Patience()
        self._now = now
        self._client = MLLPClient(
            destination.host, destination.port, destination.answer_timeout_s, destination.release
        )  # fmt: skip
        self._woken = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._sending = False
        self._stopping = False
        self._failures = 0

    def start(self) -> None:
        """Begin with what has waited since before."""
        self._stopping = False
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
        await self._client.close()

    async def _run(self) -> None:
        while not self._stopping:
            try:
                pause_s = await self._deliver_next()
            except StoreError as error:  # such as a full disk: what was sent now will be sent again
                self._failures += 1
                pause_s = self._patience.back_off(self._failures)
                self._note("outbox_unavailable", error=type(error).__name__)
            except Exception as error:  # a defect of ours must not end delivery for good
                self._failures += 1
                pause_s = self._patience.back_off(self._failures)
                self._note("delivery_failed", error=type(error).__name__)
            if pause_s and not self._stopping:
                await asyncio.sleep(pause_s)

    async def _deliver_next(self) -> float:
        """Send one message if any is due; the seconds to leave the destination in peace then."""
        self._woken.clear()
        delivery = self._store.reader.next_delivery(self.destination.name, self._now())
        if delivery is None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(POLL_S):
                    await self._woken.wait()
            return 0.0
        self._sending = True
        try:
            outcome = await self._attempt(delivery)
            await self._settle(delivery, outcome)
        finally:
            self._sending = False
        if outcome.attempt not in DESTINATION_AWAY:
            self._failures = 0
            return self.destination.pause_s
        self._failures += 1
        return self._patience.back_off(self._failures)

    async def _attempt(self, delivery: Delivery) -> _Outcome:
        if not self._client.connected:
            try:
                await self._client.connect()
            except (OSError, TimeoutError) as error:
                return _Outcome(Attempt.UNREACHABLE, type(error).__name__)
        try:
            answer = await self._client.send(
                delivery.payload, partial(ack_received.answers, control_id=delivery.control_id)
            )
        except TimeoutError:
            return _Outcome(Attempt.UNANSWERED, f"no answer within {self.destination.answer_timeout_s:g} s")
        except OSError as error:
            return _Outcome(Attempt.UNANSWERED, str(error) or type(error).__name__)
        told = ack_received.read(answer)
        return _Outcome(attempt_of(told), " ".join([told.code, told.text]).strip() if told else "", answer)

    async def _settle(self, delivery: Delivery, outcome: _Outcome) -> None:
        at = self._now()
        settled = after(delivery, outcome.attempt, outcome.reason, at, self._patience)
        if settled != delivery:

            def save(unit: StoreUnit) -> None:
                held = unit.delivery(delivery.id)
                if held is None or (held.state, settled.state) == (OutboxState.PARKED, OutboxState.WAITING):
                    return  # a person set it aside meanwhile
                unit.save_delivery(settled, outcome.answer)

            await asyncio.wrap_future(self._store.write(save))
        if settled != delivery or self._failures == 0:
            self._note(
                "delivery", control_id=delivery.control_id, outcome=outcome.attempt.name, state=settled.state.value,
                attempts=settled.attempts,
            )  # fmt: skip

    def _note(self, event: str, **fields: Any) -> None:
        self._observe(event, destination=self.destination.name, **fields)
