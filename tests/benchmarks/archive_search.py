"""How long searches of a large archive take: python -m tests.benchmarks.archive_search FILE ROUNDS

FILE is a store filled by `tests.benchmarks.archive_population`. Each search is for other values each time; the first
one finds nothing in the store's own cache. Prints JSON: `Searched`.
"""

import json
import random
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from gateway.edges.store import read_only
from gateway.workflow.ports import MessageSearch
from tests.benchmarks.archive_population import FIRST, LAST, MESSAGES_PER_ORDER, ORDERS_PER_PATIENT
from tests.benchmarks.measure import percentile, resident_megabytes

SHOWN = 50
REFUSED = frozenset({"refused", "unreadable"})

Make = Callable[[], MessageSearch]


@dataclass(frozen=True, slots=True)
class Timed:
    """One way to search: milliseconds of its rounds, and how many messages the last one showed or counted."""

    what: str
    median_ms: float
    p99_ms: float
    worst_ms: float
    found: int


@dataclass(frozen=True, slots=True)
class Searched:
    """All searches by one process, and the memory that it had in RAM at their end."""

    timed: list[Timed]
    megabytes: float


def searches(count: int, chance: random.Random) -> dict[str, Make]:
    """Every way to search an archive of so many messages, with values that it has."""

    def order() -> int:
        return chance.randrange(1, count // MESSAGES_PER_ORDER)

    def patient() -> int:
        return chance.randrange(1, count // (MESSAGES_PER_ORDER * ORDERS_PER_PATIENT))

    def of_a_day(**more: Any) -> MessageSearch:
        begin = FIRST + chance.random() * (LAST - FIRST)
        return MessageSearch(since=begin, until=begin + timedelta(days=1), **more)

    return {
        "newest": MessageSearch,
        "accession": lambda: MessageSearch(f"A{order():09}"),
        "patient ID": lambda: MessageSearch(f"PAT{patient():07}"),
        "placer number": lambda: MessageSearch(f"P{order():09}", "placer"),
        "filler number": lambda: MessageSearch(f"F{order():09}", "filler"),
        "study": lambda: MessageSearch(f"2.25.{order()}", "study"),
        "unknown key": lambda: MessageSearch("NOBODY"),
        "order link": lambda: MessageSearch(order=order()),
        "patient link": lambda: MessageSearch(patient=patient()),
        "control ID": lambda: MessageSearch(control_id=f"MSG{chance.randrange(1, count):09}"),
        "a day": of_a_day,
        "listener": lambda: MessageSearch(listener="his"),
        "type": lambda: MessageSearch(message_type="ADT^A08"),
        "direction": lambda: MessageSearch(direction="out"),
        "refused": lambda: MessageSearch(dispositions=REFUSED),
        "unreadable": lambda: MessageSearch(dispositions=frozenset({"unreadable"})),
        "held (none)": lambda: MessageSearch(dispositions=frozenset({"held"})),
        "refused of a day": lambda: of_a_day(dispositions=REFUSED),
        "type and listener of a day": lambda: of_a_day(message_type="ADT^A04", listener="teleradiology"),
        "patient ID, refused": lambda: MessageSearch(f"PAT{patient():07}", dispositions=REFUSED),
        "patient ID of a year": lambda: MessageSearch(f"PAT{patient():07}", since=LAST - timedelta(days=365)),
        "accession and control ID": lambda: MessageSearch(f"A{order():09}", control_id="MSG000000001"),
    }


COUNTS: dict[str, MessageSearch] = {
    "count of the refused": MessageSearch(dispositions=frozenset({"refused"})),
    "count of all": MessageSearch(),
}


def searched(path: Path, rounds: int) -> Searched:
    """Every search so many times, every count a tenth as often."""
    reader = read_only(f"sqlite:///{path}")
    ways = searches(reader.count_messages(MessageSearch()), random.Random(1))
    timed = [_timed(what, rounds, lambda make=make: len(reader.message_summaries(make(), SHOWN)))
             for what, make in ways.items()]  # fmt: skip
    timed += [_timed(what, max(1, rounds // 10), lambda search=search: reader.count_messages(search))
              for what, search in COUNTS.items()]  # fmt: skip
    return Searched(timed, resident_megabytes("self"))


def _timed(what: str, rounds: int, run: Callable[[], int]) -> Timed:
    found, times = 0, []
    for _ in range(rounds):
        began = time.perf_counter()
        found = run()
        times.append((time.perf_counter() - began) * 1000)
    times.sort()
    return Timed(what, percentile(times, 0.5), percentile(times, 0.99), times[-1], found)


if __name__ == "__main__":
    print(json.dumps(asdict(searched(Path(sys.argv[1]), int(sys.argv[2])))))
