"""An outbox in which any number of messages wait, and what each thing that is done with it costs then.

The backlog is of one destination, which is away, and of one that is not; every patient's message waits behind another
of the same patient. The rows go past the store's writer: through it a million would take half an hour. What is then
measured goes through it, as in a service, in a process of its own for each size, whose memory is that of its size.

As a program: `fill FILE COUNT` makes it, `measure FILE COUNT ROUNDS` and `delayed FILE COUNT ROUNDS` print JSON.
"""

import json
import os
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from gateway.edges.store import Store
from gateway.edges.stored_values import utc_text
from gateway.workflow.outbox import Attempt, OutboxState, Patience, after, enqueue
from tests.benchmarks.measure import percentile, resident_megabytes
from tests.benchmarks.report import Row, Section, number
from tests.benchmarks.watched import watched

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


TURNS = 3
"""Of the sizes, one after the other: machines change their speed. The best turn of each counts."""

MEMORY_BUDGET, LATENCY_BUDGET = 1.5, 2.0
"""Times the memory and the time with the small backlog; memory has room for SQLite's page caches, of 16 MiB each."""

Progress = Callable[[str], None]
Found = Row | Section


@dataclass(frozen=True, slots=True)
class Timed:
    """Milliseconds of one thing done over and over."""

    median_ms: float
    p99_ms: float

    def cell(self) -> str:
        """For people."""
        return f"{self.median_ms:.3f} ms, {self.p99_ms:.3f} ms"


@dataclass(frozen=True, slots=True)
class Measured:
    """What a backlog costs: messages put and settled a second, the next message found, who has anything to send, the
    counts of all queues; and the memory of the process that did it."""

    enqueued_per_s: float
    settled_per_s: float
    next: Timed
    due: Timed
    queues: Timed
    megabytes: float


def backlogged(folder: Path, sizes: Sequence[int], rounds: int, progress: Progress) -> list[Found]:
    """Every size, and the last beside the first."""
    stores = {size: folder / f"backlog{size}.db" for size in sizes}
    for size, store in stores.items():
        progress(f"{size:,} messages that wait")
        _run("fill", store, size)
    found: dict[int, list[Measured]] = {size: [] for size in sizes}
    for _ in range(TURNS):
        for size, store in stores.items():
            progress(f"what is done with an outbox of {size:,} messages")
            found[size].append(_measured(json.loads(_run("measure", store, size, rounds))))
    best = {size: _best(turns) for size, turns in found.items()}
    delayed = {size: Timed(**json.loads(_run("delayed", store, size, rounds))) for size, store in stores.items()}
    files = {size: store.stat().st_size / 1e6 for size, store in stores.items()}
    small, large = sizes[0], sizes[-1]
    of, beside = f"outbox, {large:,} messages wait", f"{small:,} wait"
    return [
        Row(f"{of}: memory", best[large].megabytes, "MB", beside, best[small].megabytes, at_most=MEMORY_BUDGET),
        Row(
            f"{of}: next one found", 1000 * best[large].next.median_ms, "us", beside,
            1000 * best[small].next.median_ms, at_most=LATENCY_BUDGET,
        ),
        Row(f"{of}: put there", best[large].enqueued_per_s, "/s", beside, best[small].enqueued_per_s),
        Row(f"{of}: settled", best[large].settled_per_s, "/s", beside, best[small].settled_per_s),
        Section(
            "How much waits, and what that costs",
            f"The best of {TURNS} turns of {rounds:,} rounds: messages archived and put into the outbox, in the groups "
            "in which the store's writer commits what is waiting; sent messages settled, each in a transaction of its "
            "own; and the median and 99% of what is read. Nothing of it is counted or searched for, so a backlog costs "
            "its place on the disk.",
            ("Wait", "Put there", "Settled", "Next one found", "The same, when none is due", "Who has anything to send",
             "Counts of all queues", "Memory", "File"),
            [
                (f"{size:,}", f"{number(each.enqueued_per_s)} /s", f"{number(each.settled_per_s)} /s", each.next.cell(),
                 delayed[size].cell(), each.due.cell(), each.queues.cell(), f"{number(each.megabytes)} MB",
                 f"{number(files[size])} MB")
                for size, each in best.items()
            ],
        ),
    ]  # fmt: skip


def _run(what: str, *arguments: object) -> str:
    return watched([sys.executable, "-m", "tests.benchmarks.outbox_backlog", what, *map(str, arguments)]).output


def _measured(said: dict[str, Any]) -> Measured:
    return Measured(**{name: Timed(**each) if isinstance(each, dict) else each for name, each in said.items()})


def _best(turns: Sequence[Measured]) -> Measured:
    return Measured(
        max(each.enqueued_per_s for each in turns),
        max(each.settled_per_s for each in turns),
        *(
            min((getattr(each, name) for each in turns), key=lambda timed: timed.median_ms)
            for name in ("next", "due", "queues")
        ),
        max(each.megabytes for each in turns),
    )


def _rows(count: int) -> Iterator[tuple[object, ...]]:
    """The rows of the outbox, oldest first."""
    for position in range(1, count + 1):
        lane, place = divmod(position - 1, PER_LANE)
        said = b"%09d" % position
        at = utc_text(FIRST + position * INTERVAL)
        yield (
            position, AWAY, str(lane), f"G{position:09}", _PAYLOAD % ((said,) * 6), at, at, OutboxState.WAITING.value,
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
        database.execute(
            "INSERT INTO queues (destination, waiting, parked, held, last_error, last_error_at, last_sent_at)"
            " VALUES (?, ?, 0, 0, '', '', '')",
            (AWAY, count),
        )
        database.execute("COMMIT")
        database.execute("PRAGMA journal_mode=WAL")
    with path.open("rb+") as file:  # else what is measured first would wait for half a gigabyte to reach the disk
        os.fsync(file.fileno())


def delay_heads(path: Path) -> None:
    """From now on the head of every lane waits for its time."""
    with closing(sqlite3.connect(path)) as database:
        database.execute("UPDATE outbox SET due_at = ? WHERE head = 1", (utc_text(FIRST + timedelta(days=3650)),))
        database.commit()


def measure(path: Path, count: int, rounds: int) -> Measured:
    """What the store does with a backlog of `count`, so often each."""
    now = FIRST + (count + 1) * INTERVAL
    with Store(f"sqlite:///{path}") as store:
        reader = store.reader
        next_one = _timed(rounds, lambda: reader.next_delivery(AWAY, now))
        due = _timed(rounds, lambda: reader.due_destinations(now))
        queues = _timed(rounds, reader.queues)
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
        return Measured(
            rounds / enqueued_s, rounds / settled_s, next_one, due, queues, resident_megabytes("self")
        )  # fmt: skip


def measure_delayed(path: Path, count: int, rounds: int) -> Timed:
    """How long it takes to find that nothing may be sent, where every head waits for its time. They do from then on."""
    now = FIRST + (count + 1) * INTERVAL
    delay_heads(path)
    with Store(f"sqlite:///{path}") as store:
        assert store.reader.next_delivery(AWAY, now) is None
        assert AWAY not in store.reader.due_destinations(now)
        return _timed(rounds, lambda: store.reader.next_delivery(AWAY, now))


def _timed(rounds: int, use: Callable[[], object]) -> Timed:
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        use()
        times.append(1000 * (time.perf_counter() - began))
    times.sort()
    return Timed(percentile(times, 0.5), percentile(times, 0.99))


if __name__ == "__main__":
    asked, place, size, *further = sys.argv[1:]
    if asked == "fill":
        fill(Path(place), int(size))
    else:
        task = {"measure": measure, "delayed": measure_delayed}[asked]
        print(json.dumps(asdict(task(Path(place), int(size), *map(int, further)))))
