"""Keeps who knocked, beside the service: collected on the event loop, written in batches.

Rules of this file, as of `query_log`: adding never waits and never fails, and what waits is bounded. What cannot be
written now waits on, since the next knock would only say it again.
"""

import asyncio
from concurrent.futures import Future

import structlog

from gateway.edges.store import Store
from gateway.workflow.knocks import Knock, Knocks

INTERVAL_S = 1.0
"""How long a knock waits for others: a device that tries ten times a second is one row and one write."""

_log = structlog.get_logger()


class KnockLog:
    """The knocks at one service. For the event loop's thread alone."""

    def __init__(self, store: Store, *, interval_s: float = INTERVAL_S) -> None:
        self._store = store
        self._interval_s = interval_s
        self._waiting = Knocks()
        self._due: asyncio.TimerHandle | None = None
        self._writing: asyncio.Future[None] | None = None
        self._failing = False
        self._closed = False

    @property
    def waiting(self) -> int:
        """Knocks not yet given to the store."""
        return len(self._waiting)

    def add(self, knock: Knock) -> None:
        """Keep it, soon."""
        self._waiting.add(knock)
        self._schedule()

    async def flush(self) -> None:
        """Write everything that waits now, or try to."""
        if self._writing is not None:
            await asyncio.shield(self._writing)
        self._write()
        if self._writing is not None:
            await asyncio.shield(self._writing)

    async def close(self) -> None:
        """Write what waits; what cannot be written now is lost. Before the store is closed."""
        self._closed = True
        await self.flush()
        if self._due is not None:
            self._due.cancel()

    def _schedule(self) -> None:
        if self._due is None and self._writing is None and not self._closed:
            self._due = asyncio.get_running_loop().call_later(self._interval_s, self._write)

    def _write(self) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None
        if not self._waiting or self._writing is not None:
            return
        knocks = self._waiting.take()
        loop = asyncio.get_running_loop()
        self._writing = loop.create_future()
        job: Future[None] = self._store.write(lambda unit: unit.add_knocks(knocks))
        asyncio.wrap_future(job, loop=loop).add_done_callback(lambda done: self._written(done, knocks))

    def _written(self, done: "asyncio.Future[None]", knocks: tuple[Knock, ...]) -> None:
        failure = None if done.cancelled() else done.exception()
        failed = done.cancelled() or failure is not None
        if failed:
            newer = self._waiting.take()
            self._waiting.extend((*knocks, *newer))
            if not self._failing:
                _log.error("knocks_not_kept", knocks=len(knocks), exc_info=failure)
        self._failing = failed
        if self._writing is not None:
            self._writing.set_result(None)
            self._writing = None
        if self._waiting:
            self._schedule()
