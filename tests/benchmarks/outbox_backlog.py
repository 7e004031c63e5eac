"""An outbox of any size, and what it costs: python -m tests.benchmarks.outbox_backlog FILE COUNT ROUNDS

The backlog is of one destination, which is away, and of one that is not; every patient's message waits behind another
of the same patient. The rows go past the store's writer: through it a million would take half an hour. What is then
measured goes through it, one job after the other, as a service does. Prints JSON: `Backlogged`.
"""

import json
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from gateway.edges.store import Store
from gateway.edges.stored_values import utc_text
from gateway.workflow.outbox import Attempt, OutboxState, Patience, after, enqueue
from tests.benchmarks.measure import percentile, resident_megabytes

FIRST = datetime(2026, 11, 23, tzinfo=UTC)
INTERVAL = timedelta(milliseconds=50)
"""Between two messages: a million are half a day of a large hospital."""

AWAY, THERE = "ris", "pacs"
PER_LANE = 2
CHUNK = 10_000
_PAYLOAD = (
    b"MSH|^~\\&|GATEWAY|HOSPITAL|RIS|HOSPITAL|20261123083000+0000||OMG^O19^OMG_O19|%s|P|2.5.1\r"
    b"PID|1||PAT%s^^^HOSPITAL||Sample^Person\rORC|SC|P%s|F%s||IP\rOBR|1|P%s|F%s|CT^CT^L" + b"|" * 40 + b"\r"
)
_INSERT = (
    "INSERT INTO outbox (id, kind, archive_id, destination, lane, control_id, payload, operation, transfer_syntax,"
    " created_at, due_at, state, attempts, errors, reason, head) VALUES (?,'hl7',0,?,?,?,?,'','',?,?,?,?,0,'',?)"
)


@dataclass(frozen=True, slots=True)
class Timed:
    """Milliseconds of one thing done over and over."""

    median_ms: float
    p99_ms: float
    worst_ms: float


@dataclass(frozen=True, slots=True)
class Backlogged:
    """What a backlog of this size costs; `megabytes` is the memory of the process at the end, `file` its file's."""

    waiting: int
    enqueue_per_second: float
    settle_per_second: float
    next: Timed
    next_while_all_wait_for_their_time: Timed
    queues: Timed
    megabytes: float
    file_megabytes: int


def _rows(count: int) -> Iterator[tuple[object, ...]]:
    """The rows of the outbox, oldest first."""
    for number in range(1, count + 1):
        lane, place = divmod(number - 1, PER_LANE)
        said = b"%09d" % number
        at = utc_text(FIRST + number * INTERVAL)
        yield (
            number, AWAY, str(lane), f"G{number:09}", _PAYLOAD % ((said,) * 6), at, at, OutboxState.WAITING.value,
            0, int(place == 0),
        )  # fmt: skip


def fill(path: Path, count: int) -> None:
    """Make a store at `path`, which is not there yet, with so much waiting for `AWAY`."""
    Store(f"sqlite:///{path}").close()
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA synchronous=OFF")  # a file that is made again, if need be
        database.execute("PRAGMA journal_mode=OFF")
        indexes = database.execute(
            "SELECT name, sql FROM sqlite_master WHERE type = 'index' AND tbl_name = 'outbox'"
        ).fetchall()
        for name, _ in indexes:
            database.execute(f"DROP INDEX {name}")
        database.execute("BEGIN")
        rows: list[tuple[object, ...]] = []
        for row in _rows(count):
            rows.append(row)
            if len(rows) == CHUNK:
                database.executemany(_INSERT, rows)
                rows = []
        database.executemany(_INSERT, rows)
        for _, sql in indexes:
            database.execute(sql)
        database.execute("INSERT INTO queues VALUES (?, ?, 0, 0, '', '', '')", (AWAY, count))
        database.execute("COMMIT")
        database.execute("PRAGMA journal_mode=WAL")


def delay_heads(path: Path) -> None:
    """From now on the head of every lane waits for its time."""
    with closing(sqlite3.connect(path)) as database:
        database.execute("UPDATE outbox SET due_at = ? WHERE head = 1", (utc_text(FIRST + timedelta(days=3650)),))
        database.commit()


def measure(path: Path, count: int, rounds: int) -> Backlogged:
    """What the store does with a backlog of `count`; afterwards every head waits for its time."""
    now = FIRST + (count + 1) * INTERVAL
    with Store(f"sqlite:///{path}") as store:
        reader = store.reader
        next_ms = _timed(rounds, lambda: reader.next_delivery(AWAY, now))
        queues_ms = _timed(rounds, reader.queues)
        began = time.perf_counter()
        jobs = [
            store.write(
                lambda unit, n=n: enqueue(unit, THERE, None, f"N{n}", _PAYLOAD % ((b"%09d" % n,) * 6), now)  # type: ignore[misc]
            )
            for n in range(rounds)
        ]
        for job in jobs:
            job.result()
        enqueued_s = time.perf_counter() - began
        began = time.perf_counter()
        for _ in range(rounds):
            waiting = reader.next_delivery(AWAY, now)
            assert waiting is not None
            settled = after(waiting, Attempt.ACCEPTED, "", now, Patience())
            store.write(lambda unit, done=settled: unit.save_delivery(done, b"", now)).result()  # type: ignore[misc]
        settled_s = time.perf_counter() - began
        (left,) = (each.waiting for each in reader.queues() if each.destination == AWAY)
    delay_heads(path)
    with Store(f"sqlite:///{path}") as store:
        reader = store.reader
        assert reader.next_delivery(AWAY, now) is None
        blocked_ms = _timed(rounds, lambda: reader.next_delivery(AWAY, now))
        megabytes = resident_megabytes("self")
    return Backlogged(
        left, rounds / enqueued_s, rounds / settled_s, next_ms, blocked_ms, queues_ms, megabytes,
        path.stat().st_size >> 20,
    )  # fmt: skip


def _timed(rounds: int, use: Callable[[], object]) -> Timed:
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        use()
        times.append(1000 * (time.perf_counter() - began))
    times.sort()
    return Timed(percentile(times, 0.5), percentile(times, 0.99), times[-1])


if __name__ == "__main__":
    place, size = Path(sys.argv[1]), int(sys.argv[2])
    fill(place, size)
    print(json.dumps(asdict(measure(place, size, int(sys.argv[3])))))
