"""The store: one writer thread that commits in groups, and readers that see every commit at once (design D3).

Rules of this file: a job is answered only after the COMMIT that holds it; a job that fails takes nothing
with it but itself; whatever happens to the database, the writer goes on and recovers by itself. What may be read
and written is in `store_reader` and `store_unit`; the schema's life is in `maintenance`.
"""

import asyncio
import contextlib
import threading
import uuid
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, Self, TypeVar

from sqlalchemy import event

from gateway.edges.database import Connection, RenewingConnection, StoreError, StoreUnavailable, connect_to
from gateway.edges.maintenance import ensure_schema
from gateway.edges.store_reader import StoreReader
from gateway.edges.store_unit import StoreUnit

__all__ = ["BATCH_MAX", "WAITING_MAX", "Store", "StoreReader", "StoreUnit", "WriterCounts", "read_only"]

T = TypeVar("T")

BATCH_MAX = 64
"""Jobs committed together. At a millisecond each, the first of a full batch waits 60 ms for its answer; the share of
the disk's sync in each is by then below the cost of the job itself."""

WAITING_MAX = 2048
"""Jobs that may wait. At a thousand a second these are two seconds of work; senders that wait longer than that are
better told to come again than left to time out."""

CAREFUL_BATCHES = 64
"""Batches after one with a failed job in which each job has a savepoint from the first: a failure costs its batch
twice, and who sent what failed often sends more of it."""

BUSY_TIMEOUT_S = 5.0
"""How long the writer waits for another process's lock, such as a command line import's. Senders wait 30 s or more
for their ACK."""

_READER_BUSY_TIMEOUT_S = 0.25  # readers run on the event loop; in WAL mode they wait only during recovery


@dataclass(slots=True)
class WriterCounts:
    """What the writer has done so far, for the metrics."""

    batches: int = 0
    committed: int = 0
    refused: int = 0
    unavailable: int = 0
    failing: bool = False
    """Whether nothing of the last batch could be written; the next one that can be says otherwise."""


def read_only(url: str) -> StoreReader:
    """A reader for a process that has no writer; the database itself refuses it every change.

    The database must be there with its schema: another process has the Store.
    """
    engine = connect_to(url, busy_timeout_s=_READER_BUSY_TIMEOUT_S)
    event.listen(engine, "connect", _refuse_changes)
    return StoreReader(RenewingConnection(engine))


def _refuse_changes(driver: Any, _record: object) -> None:
    driver.execute("PRAGMA query_only=ON")


@dataclass(slots=True)
class _Job:
    """A use case that waits for its transaction, and after it, what it came to. It may be run anew: what it changes
    outside of the store counts as often as it is run."""

    use_case: Callable[[StoreUnit], Any]
    future: "Future[Any] | asyncio.Future[Any]"
    """For any thread, or for an event loop, which alone may touch it then."""
    rehearsed: bool = False
    """Whether what it does is undone at its end."""
    result: Any = None
    failure: BaseException | None = None

    def begin(self) -> bool:
        """Whether it is to be run; from here on it cannot be cancelled any more."""
        if isinstance(self.future, Future):
            return self.future.set_running_or_notify_cancel()
        return not self.future.cancelled()

    def answer(self) -> None:
        """Tell whoever waits."""
        if self.future.done():
            return  # what an event loop awaits may be cancelled at any time
        if self.failure is None:
            self.future.set_result(self.result)
        else:
            self.future.set_exception(self.failure)


def _answer(jobs: Iterable[_Job]) -> None:
    """Give every job its answer. An event loop is woken once for all of its jobs, for that takes its time."""
    awaited: dict[asyncio.AbstractEventLoop, list[_Job]] = {}
    for job in jobs:
        if isinstance(job.future, Future):
            job.answer()
        else:
            awaited.setdefault(job.future.get_loop(), []).append(job)
    for loop, those in awaited.items():
        with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits any more
            loop.call_soon_threadsafe(_answer_all, those)


def _answer_all(jobs: Sequence[_Job]) -> None:
    for job in jobs:
        job.answer()


class Store:
    """The database of one site, open.

    `url` is `sqlite:///path`; a file that is not there is made, with its schema. `zone` is the department's time
    zone by name, noted beside every scheduled start (design D13). `gathers` is whether what comes while a batch is
    worked on joins it: good where whoever brings more waits for the same interpreter, and idle time where other
    processes would bring it meanwhile.

    Raises SchemaTooNew or SchemaTooOld where the database is another release's, StoreError where it is no
    gateway's, StoreUnavailable where it cannot be opened now.
    """

    def __init__(
        self,
        url: str,
        *,
        zone: str = "",
        busy_timeout_s: float = BUSY_TIMEOUT_S,
        gathers: bool = True,
        batch_max: int = BATCH_MAX,
        waiting_max: int = WAITING_MAX,
    ) -> None:
        ensure_schema(url)
        self._zone = zone
        self._gathers = gathers
        self._batch_max = batch_max
        self._waiting_max = waiting_max
        self._engine = connect_to(url, busy_timeout_s=busy_timeout_s)
        self._reading = connect_to(url, busy_timeout_s=_READER_BUSY_TIMEOUT_S)
        self._connections: list[RenewingConnection] = []
        self.reader = self.open_reader()
        self.counts = WriterCounts()
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._gate = threading.Lock()  # between "is it closed or full" and "put it there"
        self._closed = False
        self._connection: Connection | None = None
        self._ended = False  # also the writer's own
        self._careful = 0  # batches to come in which each job has a savepoint; the writer's own
        self._writer = threading.Thread(target=self._write_batches, name="store-writer", daemon=True)
        self._writer.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- reading

    def open_reader(self, limit_s: float = 0.0) -> StoreReader:
        """A further reader with a connection of its own; `reader` is the event loop's. One thread at a time each.

        `limit_s` is how long one question may take (StoreTooSlow), 0 for ever.
        """
        connection = RenewingConnection(self._reading, limit_s)
        self._connections.append(connection)
        return StoreReader(connection)

    def site_namespace(self) -> uuid.UUID:
        """The namespace under which this site mints its keys, made with the schema and never again (D10)."""
        found = self.reader.meta("site_namespace")
        if found is None:
            raise StoreError("the database has no site namespace; restore it from a backup")
        return uuid.UUID(found)

    # -- writing

    def write(self, use_case: Callable[[StoreUnit], T]) -> "Future[T]":
        """Run `use_case` in a transaction of its own; the Future has its result once that is on disk. Never blocks.

        The Future raises what the use case raised, after undoing what it did; StoreUnavailable where nothing could
        be written, also when too many jobs wait. An event loop has `written`.
        """
        future: Future[T] = Future()
        self._offer(_Job(use_case, future))
        return future

    def rehearse(self, use_case: Callable[[StoreUnit], T]) -> "Future[T]":
        """Run `use_case` as `write` would and undo all it did: its result says what would come of it.

        Other changes wait meanwhile, as for any job.
        """
        future: Future[T] = Future()
        self._offer(_Job(use_case, future, rehearsed=True))
        return future

    async def written(self, use_case: Callable[[StoreUnit], T]) -> T:
        """As `write`, for the event loop: what the use case returned, when that is on disk."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._offer(_Job(use_case, future))
        return await future

    def _offer(self, job: _Job) -> None:
        with self._gate:
            problem = (
                "the store is closed"
                if self._closed
                else "too many changes wait to be written"
                if self._jobs.qsize() >= self._waiting_max
                else ""
            )
            if not problem:
                self._jobs.put(job)
        if problem:
            self.counts.unavailable += 1
            job.future.set_exception(StoreUnavailable(problem))

    @property
    def waiting(self) -> int:
        """Jobs not yet begun, for the metrics."""
        return self._jobs.qsize()

    def close(self) -> None:
        """Write what waits, then end. Jobs offered from now on are unavailable."""
        with self._gate:
            if not self._closed:
                self._closed = True
                self._jobs.put(None)
        self._writer.join()
        for connection in self._connections:
            connection.close()

    # -- the writer thread

    def _write_batches(self) -> None:
        while not self._ended:
            batch: list[_Job] = []
            self._take(batch, self._jobs.get())
            if batch:
                self._write_batch(batch)
        self._drop_connection()

    def _take(self, batch: list[_Job], job: _Job | None) -> None:
        """Add this job to the batch, and what waits behind it."""
        while job is not None:
            if job.begin():
                batch.append(job)
            if len(batch) == self._batch_max:
                return
            try:
                job = self._jobs.get_nowait()
            except Empty:
                return
        self._ended = True

    def _take_more(self, batch: list[_Job]) -> None:
        """Add what came while the batch was worked on."""
        if self._gathers and not self._ended and len(batch) < self._batch_max:
            with contextlib.suppress(Empty):
                self._take(batch, self._jobs.get_nowait())

    def _write_batch(self, batch: list[_Job]) -> None:
        """One transaction; then, and only then, every job's answer."""
        try:
            connection = self._connection
            if connection is None:
                connection = self._connection = Connection(self._engine)
            connection.control("BEGIN IMMEDIATE")
            self._run_batch(connection, batch)
            connection.control("COMMIT")
        except BaseException as error:  # as above: every job gets an answer
            self._drop_connection()
            self.counts.unavailable += len(batch)
            self.counts.failing = True
            text = str(error) if isinstance(error, StoreError) else f"the writer failed: {type(error).__name__}"
            for job in batch:
                job.failure = StoreUnavailable(text)
            _answer(batch)
            return
        failures = [job.failure for job in batch if job.failure is not None]
        away = sum(isinstance(failure, StoreUnavailable) for failure in failures)
        self.counts.batches += 1
        self.counts.failing = len(failures) == len(batch) and away > 0
        self.counts.committed += len(batch) - len(failures)
        self.counts.unavailable += away
        self.counts.refused += len(failures) - away
        _answer(batch)

    def _run_batch(self, connection: Connection, batch: list[_Job]) -> None:
        """The jobs one after the other, so that each is undone alone.

        SQLite keeps a copy of every page that is changed within a savepoint, so they are run without one at first.
        Where one of them fails all is undone and run anew, each in a savepoint of its own; so are the next batches,
        for a sender whose messages are refused goes on sending.
        """
        if self._careful:
            self._careful -= 1
        elif self._run_together(connection, batch):
            return
        else:
            self._careful = CAREFUL_BATCHES
            connection.control("ROLLBACK")
            connection.control("BEGIN IMMEDIATE")
        self._run_each(connection, batch)

    def _run_together(self, connection: Connection, batch: list[_Job]) -> bool:
        """Run them all, and what comes meanwhile; what is to be undone has its savepoint, and its failure is its own.

        False where another one failed, and so nothing of this counts.
        """
        try:
            done = 0
            while done < len(batch):
                job = batch[done]
                if job.rehearsed:
                    self._run_each(connection, [job])
                else:
                    job.result = self._run(connection, job)
                done += 1
                if done == len(batch):
                    self._take_more(batch)
        except BaseException as error:  # whose it is shows when they are run anew
            if not connection.in_transaction:  # the database itself took everything back
                raise StoreUnavailable("the database gave up the transaction") from error
            return False
        return True

    def _run_each(self, connection: Connection, batch: Sequence[_Job]) -> None:
        """The jobs one after the other, each in a savepoint."""
        for job in batch:
            job.failure = None  # it may have been run before
            connection.control("SAVEPOINT job")  # where this, or its end, fails, nothing of the batch is certain
            try:
                job.result = self._run(connection, job)
                if job.rehearsed:
                    connection.control("ROLLBACK TO job")
            except BaseException as error:  # a job's failure is its own; the writer goes on
                job.failure = error
                if not connection.in_transaction:  # the database itself took everything back
                    raise StoreUnavailable("the database gave up the transaction") from error
                connection.control("ROLLBACK TO job")
            connection.control("RELEASE job")

    def _run(self, connection: Connection, job: _Job) -> Any:
        """The job in its savepoint. Its reads see the jobs before it, so no two work on the same old order."""
        connection.failure = None
        result = job.use_case(StoreUnit(connection, self._zone))
        if connection.failure is not None:
            raise connection.failure  # it went on without what could not be written; that is not done
        return result

    def _drop_connection(self) -> None:
        """The next batch begins with a new connection; what was open is rolled back with the old one."""
        held, self._connection = self._connection, None
        if held is not None:
            held.close()
