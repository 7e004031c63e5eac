"""Keeps worklist queries beside the service: collected on the event loop, written in batches after the answers.

Rules of this file: adding never waits and never fails; what waits is bounded, and so is how often the store is
asked; what cannot be kept is counted and said once, because a query is worth less than its answer.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Collection
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import islice

import structlog

from gateway.edges.store import Store
from gateway.edges.store_unit import within_bounds
from gateway.workflow.ports import QueryRecord

BATCH_MAX = 500
"""Records written by one job. Two devices' queries in a millisecond are more than any department asks."""

WAITING_MAX = 5_000
"""Records that may wait: what 500 devices that ask every two seconds say in 20 s, some megabytes."""

INTERVAL_S = 1.0
"""How long a record waits for others; a crash loses no more than that (design section 2, rule 1)."""

_log = structlog.get_logger()


@dataclass(slots=True)
class QueryLogCounts:
    """What became of the records so far, for the metrics.

    `dropped` waited when too many did, `lost` were in a batch that could not be written. `failing` says that the last
    batch was one of those.
    """

    kept: int = 0
    dropped: int = 0
    lost: int = 0
    failing: bool = False


class QueryLog:
    """The queries of one store's callers. For the event loop's thread alone.

    `per_device_max` queries of each caller stay; 0 keeps none. `known` says which AE titles the registry has now.
    """

    def __init__(
        self,
        store: Store,
        per_device_max: int,
        known: Callable[[], Collection[str]] = frozenset,
        *,
        interval_s: float = INTERVAL_S,
        waiting_max: int = WAITING_MAX,
    ) -> None:
        self._store = store
        self.per_device_max = per_device_max
        self._known = known
        self._interval_s = interval_s
        self._waiting: deque[QueryRecord] = deque()
        self._waiting_max = waiting_max
        self._due: asyncio.TimerHandle | None = None
        self._writing: asyncio.Future[None] | None = None
        self._dropping = False
        self._closing = False
        self.counts = QueryLogCounts()

    @property
    def waiting(self) -> int:
        """Records not yet given to the store."""
        return len(self._waiting)

    def add(self, record: QueryRecord) -> None:
        """Keep this query, soon. Where too many wait, the oldest is dropped."""
        if self.per_device_max <= 0:
            return
        self._waiting.append(within_bounds(record))
        if len(self._waiting) > self._waiting_max:
            self._waiting.popleft()
            self.counts.dropped += 1
            if not self._dropping:
                self._dropping = True
                _log.warning("queries_dropped", waiting=self._waiting_max)
        if self._writing is not None:
            return  # what follows the batch under way is decided when that ends
        if len(self._waiting) >= BATCH_MAX:
            self._write()
        elif self._due is None:
            self._due = asyncio.get_running_loop().call_later(self._interval_s, self._write)

    async def flush(self) -> None:
        """Write everything that waits now; returns when it is on disk, or lost."""
        while self._waiting or self._writing is not None:
            if self._writing is None:
                self._write()
            if self._writing is not None:
                await asyncio.shield(self._writing)

    async def close(self) -> None:
        """Write what waits. Before the store is closed.

        What cannot be written now is lost: a service that is told to stop has no time to wait for the disk.
        """
        self._closing = True
        await self.flush()

    def _write(self) -> None:
        """Give the oldest records to the store: one batch, one job; the next goes when this one is done."""
        if self._due is not None:
            self._due.cancel()
            self._due = None
        if not self._waiting:
            return
        batch = list(islice(self._waiting, BATCH_MAX))
        for _ in batch:
            self._waiting.popleft()
        known, kept = frozenset(self._known()), self.per_device_max
        loop = asyncio.get_running_loop()
        self._writing = loop.create_future()
        job: Future[None] = self._store.write(lambda unit: unit.add_queries(batch, kept, known))
        asyncio.wrap_future(job, loop=loop).add_done_callback(lambda done: self._written(done, len(batch)))

    def _written(self, done: "asyncio.Future[None]", records: int) -> None:
        failure = None if done.cancelled() else done.exception()
        failed = done.cancelled() or failure is not None
        if failed:
            self.counts.lost += records
        else:
            self.counts.kept += records
        if failed and not self.counts.failing:
            _log.error("queries_lost", records=records, exc_info=failure)
        elif self.counts.failing and not failed:
            _log.info("queries_kept_again", lost=self.counts.lost)
        self.counts.failing = failed
        if failed and self._closing:
            self.counts.lost += len(self._waiting)
            self._waiting.clear()
        self._dropping = self._dropping and len(self._waiting) >= self._waiting_max
        if self._writing is not None:
            self._writing.set_result(None)
            self._writing = None
        if len(self._waiting) >= BATCH_MAX:
            self._write()
        elif self._waiting and self._due is None:
            self._due = asyncio.get_running_loop().call_later(self._interval_s, self._write)
