"""Sends notifications to those who subscribed: a deliverer for each Subscription, as long as it is sent to.

Which ones there are is looked up from time to time, for clients make and end them while the service runs. What an
answer means for a subscription is `workflow.fhir_topics`'.
"""

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from gateway.edges.channel import Destination
from gateway.edges.delivery import Deliverer
from gateway.edges.fhir_channel import NotificationChannel
from gateway.edges.fhir_client import FHIRClient
from gateway.edges.mllp import Observe
from gateway.edges.store import Store, StoreUnit
from gateway.fhir_settings import FHIRTLS
from gateway.workflow.audience import NOBODY, Audience, Reach
from gateway.workflow.fhir_topics import SILENT_S, Subscriber, arrived, beat, failed, forbid, subscribers, why_not_told
from gateway.workflow.outbox import Delivery, Patience

LOOK_S = 5.0
"""How often it is looked who subscribed, without being told."""
TEND_S = 1.0
"""How often it is seen to heartbeats and ends at most, however often it is looked: each time costs a transaction."""
ANSWER_S = 15.0
"""For the answer to a notification: a receiver that works on it first should answer before."""


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Subscribers:
    """Everybody who subscribed."""

    def __init__(
        self,
        store: Store,
        observe: Observe,
        folder: Path = Path(),
        tls: FHIRTLS | None = None,
        now: Callable[[], datetime] = _utc_now,
        patience: Patience | None = None,
        audience: Callable[[], Audience] = lambda: NOBODY,
    ) -> None:
        """`tls` says whose certificates endpoints may show; files are relative to `folder`. `audience` is asked at each
        look where whose notifications may be sent."""
        self._store = store
        self._observe = observe
        self._folder, self._tls = folder, tls
        self._now = now
        self._audience = audience
        self._patience = patience or Patience()
        self._running: dict[str, tuple[Subscriber, Reach, Deliverer]] = {}
        self._woken = asyncio.Event()
        self._tend_from = float("-inf")
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin with what has waited since before."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    def wake(self) -> None:
        """Something may have been put into the outbox, or somebody subscribed."""
        self._woken.set()

    async def stop(self, grace_s: float) -> None:
        """Send nothing more; what waits is sent after the next start."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        running, self._running = self._running, {}
        await asyncio.gather(*(deliverer.stop(grace_s) for *_, deliverer in running.values()))

    async def _run(self) -> None:
        while True:
            self._woken.clear()  # whoever wakes it while it looks may have come too late for this look
            try:
                await self.look()
            except Exception as error:  # such as a full disk: the next look is soon, and nobody else's ends with it
                self._observe("subscriptions_unavailable", error=type(error).__name__)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_S):
                    await self._woken.wait()

    async def look(self) -> None:
        """See who is sent to now, send heartbeats, and give up on those who take nothing."""
        now = self._now()
        audience = self._audience()
        clock = asyncio.get_running_loop().time()
        if clock >= self._tend_from:
            await self._written(partial(_tend, audience=audience, at=now))
            self._tend_from = clock + TEND_S
        wanted = {
            each.destination: (each, audience.reach(each.client, each.asks.endpoint))
            for each in await asyncio.to_thread(subscribers, self._store.reader)
            if not why_not_told(audience, each)
        }
        for destination in self._running.keys() - wanted.keys():
            *_, deliverer = self._running.pop(destination)
            await deliverer.stop(0.0)
        for destination, (subscriber, reach) in wanted.items():
            before = self._running.get(destination)
            if before is not None and (replace(before[0], status=subscriber.status), before[1]) != (subscriber, reach):
                del self._running[destination]
                await before[2].stop(0.0)
                before = None
            if before is None:
                try:
                    deliverer = self._deliverer(subscriber, reach)
                except ValueError:  # nowhere that HTTP goes to; nobody else waits for that
                    await self._written(partial(_give_up, destination=destination, at=now))
                    continue
                self._running[destination] = subscriber, reach, deliverer
                deliverer.start()
            else:
                before[2].wake()

    async def _written(self, use_case: Callable[[StoreUnit], None]) -> None:
        await asyncio.shield(asyncio.wrap_future(self._store.write(use_case)))

    def _deliverer(self, subscriber: Subscriber, reach: Reach) -> Deliverer:
        asks = subscriber.asks
        client = FHIRClient(
            asks.endpoint, subscriber.release, None, self._tls, ANSWER_S, self._folder,
            public_only=reach is not Reach.ANYWHERE,
        )  # fmt: skip
        return Deliverer(
            Destination(subscriber.destination, "", 0, ANSWER_S), self._store, self._observe, self._patience, self._now,
            channel=NotificationChannel(
                client, dict(asks.headers), ANSWER_S, lambda: why_not_told(self._audience(), subscriber)
            ),
            hear=self._hear,
        )  # fmt: skip

    def _hear(self, unit: StoreUnit, answered: Delivery, _: bytes) -> None:
        """A notification was taken, in the writer's thread. One that was dropped meanwhile was not of the subscription
        as it is now, which may have another endpoint."""
        if unit.delivery(answered.id) is not None:
            arrived(unit, answered.destination, self._now())


def _give_up(unit: StoreUnit, destination: str, at: datetime) -> None:
    failed(unit, destination, at, "its endpoint is no address that notifications can be sent to")


_REFUSED = "its endpoint refused a notification"
_AWAY = f"its endpoint took nothing for {SILENT_S / 3600:g} hours"


def _tend(unit: StoreUnit, audience: Audience, at: datetime) -> None:
    """Heartbeats; and a subscription is in error when it may not be told any more, something of it was given up, or
    waited too long."""
    forbid(unit, audience, at)
    beat(unit, at)
    trouble = {
        queue.destination: _REFUSED if queue.parked else _AWAY
        for queue in unit.queues()
        if queue.parked or (queue.oldest is not None and (at - queue.oldest).total_seconds() > SILENT_S)
    }
    for subscriber in subscribers(unit):
        if subscriber.destination in trouble:
            failed(unit, subscriber.destination, at, trouble[subscriber.destination])
