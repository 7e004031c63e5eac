"""Clocks at the gates of an order's road: how long each stage takes, without the stages inside it.

`python -m tests.benchmarks.stage_clock CONFIG OUT CLOCK` is `gateway run` with the clocks (see `observed`). CLOCK says
which: `processor`, a thread's own time, or `elapsed`. A sampler would not do: it sees the main thread, and an order is
worked on by the writer's.
"""

import functools
import importlib
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tests.benchmarks.observed import on_signals, run_gateway

FRAMING = "framing: MLLP blocks in and out, batches"
PARSE = "parse: bytes to segments and fields, the header checked"
MAP = "map: the mapping's rules"
INTAKE = "intake: repeats, search keys, digest"
APPLY = "apply: the order's, patient's and visit's own rules"
RECORDS = "store: records into rows and back"
SQL = "store: SQL statements"
COMMIT = "commit: on the disk"
WRITER = "writer: groups, savepoints' order, results handed over"
ANSWER = "answer: the acknowledgement"
TELLING = "log and metrics"

Place = tuple[str, str]
"""A module of the gateway, and the function or `Class.method` in it, as its callers find it."""

GATES: Mapping[Place, str] = {
    ("wire.mllp", "Framer.feed"): FRAMING,
    ("edges.mllp", "wrap"): FRAMING,
    ("wire.hl7_batch", "split"): FRAMING,
    ("workflow.intake", "Feed.read"): PARSE,
    ("wire.er7", "check_header"): PARSE,
    ("wire.hl7_source", "document"): MAP,
    ("workflow.intake", "Feed.understand"): MAP,
    ("workflow.intake", "receive"): INTAKE,
    ("workflow.intake", "apply_events"): APPLY,
    ("edges.database", "Connection.rows"): SQL,
    ("edges.database", "Connection.run"): SQL,
    ("edges.database", "Connection.run_many"): SQL,
    ("edges.store", "Store._write_batch"): WRITER,
    ("workflow.intake", "Feed.answers"): ANSWER,
    ("receiving", "Receiving._told"): TELLING,
    ("receiving", "Receiving._observe"): TELLING,
}
FHIR_READ = "read: JSON, and every element checked"
FHIR_REQUEST = "request: the Bundle's entries as interactions"
FHIR_RESOURCES = "resources: conditions, references, versions"
FHIR_INDEX = "resources: what they are found by"
FHIR_CONCERN = "orders that are concerned, and all that is said of them"
FHIR_EVALUATE = "map: FHIRPath evaluated"
FHIR_ARCHIVE = "archive: what was said, packed"
FHIR_ANSWER = "answer: made and written"

FHIR_GATES: Mapping[Place, str] = {
    ("edges.fhir_bodies", "_understood"): FHIR_READ,
    ("edges.fhir_handlers", "request_of"): FHIR_REQUEST,
    ("workflow.fhir_intake", "receive"): INTAKE,
    ("workflow.fhir_server", "transact"): FHIR_RESOURCES,
    ("workflow.fhir_server", "indexed"): FHIR_INDEX,
    ("workflow.fhir_intake", "views"): FHIR_CONCERN,
    ("workflow.fhir_intake", "concerned"): FHIR_CONCERN,
    ("workflow.fhir_intake", "speech_of"): FHIR_CONCERN,
    ("workflow.fhir_intake", "meanings"): MAP,
    ("wire.fhir_entries", "FHIREntry._evaluated"): FHIR_EVALUATE,
    ("workflow.fhir_intake", "apply_events"): APPLY,
    ("workflow.fhir_intake", "kept"): FHIR_ARCHIVE,
    ("wire.fhir_bundle", "answer"): FHIR_ANSWER,
    ("edges.fhir_bodies", "write"): FHIR_ANSWER,
}
"""The same of a FHIR order's road."""
UNIT: Place = ("edges.store_unit", "StoreUnit")
"""Each of its public methods is a gate to `RECORDS`, but those that are given a use case to run."""
CONTROL: Place = ("edges.database", "Connection.control")
"""A gate to `COMMIT` with that statement, else to `SQL`."""

GIVEN_A_USE_CASE = frozenset({"attempt"})
CLOCKS: Mapping[str, Callable[[], int]] = {"processor": time.thread_time_ns, "elapsed": time.perf_counter_ns}

Function = Callable[..., Any]


class _OfOneThread(threading.local):
    """Where the thread is, since when, and what it has spent."""

    def __init__(self) -> None:
        self.stages: list[str] = []
        self.since = 0
        self.spent: Counter[str] | None = None


class StageClock:
    """Counts nanoseconds by stage, each thread by itself."""

    def __init__(self, read: Callable[[], int]) -> None:
        self._read = read
        self._thread = _OfOneThread()
        self._all: list[Counter[str]] = []

    def gate(self, function: Function, stage: str | Callable[..., str]) -> Function:
        """The function, with its time counted for the stage; a callable names the stage from the arguments."""
        thread, read = self._thread, self._read

        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            entered = stage if isinstance(stage, str) else stage(*args)
            spent = thread.spent
            if spent is None:
                spent = thread.spent = Counter()
                self._all.append(spent)
            now = read()
            if thread.stages:
                spent[thread.stages[-1]] += now - thread.since
            thread.stages.append(entered)
            thread.since = now
            try:
                return function(*args, **kwargs)
            finally:
                now = read()
                spent[thread.stages.pop()] += now - thread.since
                thread.since = now

        return timed

    def begin(self) -> None:
        """Forget what was before."""
        for spent in self._all:
            spent.clear()

    def end(self) -> dict[str, object]:
        """Nanoseconds by stage."""
        total: Counter[str] = Counter()
        for spent in self._all:
            total.update(spent)
        return dict(total)


def install(clock: StageClock) -> None:
    """Put every gate in its place."""
    for place, stage in {**GATES, **FHIR_GATES}.items():
        holder, name = found(place)
        setattr(holder, name, clock.gate(getattr(holder, name), stage))
    holder, name = found(CONTROL)
    setattr(holder, name, clock.gate(getattr(holder, name), lambda _self, sql: COMMIT if sql == "COMMIT" else SQL))
    unit = getattr(*found(UNIT))
    for name in dir(unit):
        method = getattr(unit, name)
        if not name.startswith("_") and callable(method) and name not in GIVEN_A_USE_CASE:
            setattr(unit, name, clock.gate(method, RECORDS))


def found(place: Place) -> tuple[Any, str]:
    """What holds a function, and its name there. Raises AttributeError where it is not there."""
    module, path = place
    holder: Any = importlib.import_module(f"gateway.{module}")
    *outer, name = path.split(".")
    for each in outer:
        holder = getattr(holder, each)
    getattr(holder, name)
    return holder, name


if __name__ == "__main__":
    clock = StageClock(CLOCKS[sys.argv[3]])
    install(clock)
    on_signals(Path(sys.argv[2]), clock.begin, clock.end)
    run_gateway(sys.argv[1])
