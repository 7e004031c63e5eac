"""What matching keeps in memory, each thing weighed by itself in this process."""

import tracemalloc
from collections.abc import Callable, Sized
from pathlib import Path
from typing import TypeVar

from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom.dsutils import encode

from gateway.config import load_site
from gateway.domain.matching import Narrowing
from gateway.edges.store import Store
from gateway.testing import worklist_identifier
from gateway.wire.worklist_dataset import EncodedAnswers, encode_answer, prepare_query
from tests.benchmarks import population
from tests.benchmarks.report import Row

WEIGHED = 500
ANSWERS_BYTES_MAX = 1 << 30


def kept(config: Path) -> list[Row]:
    """For each item kept as read, each answer kept as encoded, each query kept as compiled: its kilobytes."""
    requests = [_request(group) for group in range(WEIGHED)]
    shape = prepare_query(requests[0], ImplicitVRLittleEndian).shape
    with Store(load_site(config).store_url) as store:
        ids = [step_id for step_id, _ in store.reader.candidates(Narrowing())[:WEIGHED]]
        items, of_items = _weighed(lambda: store.reader.items(ids))
        answers, of_answers = _weighed(lambda: [(item, encode_answer(item, shape)) for item in items])

    def keep() -> EncodedAnswers:
        held = EncodedAnswers(ANSWERS_BYTES_MAX)
        for item, answer in answers:
            held.put(item.step_id, item.revision, shape, answer)
        return held

    _, of_entries = _weighed(keep)
    _, of_queries = _weighed(lambda: [prepare_query(request, ImplicitVRLittleEndian) for request in requests[1:]])
    return [
        Row("memory of an item kept as read", of_items, "KB"),
        Row("memory of an answer kept as encoded", of_answers + of_entries, "KB"),
        Row("memory of a query kept as compiled", of_queries, "KB"),
    ]


def _request(group: int) -> bytes:
    keys = {
        "ScheduledStationAETitle": population.station_of(group),
        "ScheduledProcedureStepStartDate": population.day_of(group),
    }
    return encode(worklist_identifier(keys), True, True) or b""


Kept = TypeVar("Kept", bound=Sized)


def _weighed(make: Callable[[], Kept]) -> tuple[Kept, float]:
    """What was made, and how many kilobytes each of it takes."""
    tracemalloc.start()
    try:
        made = make()
        return made, tracemalloc.get_traced_memory()[0] / len(made) / 1_000
    finally:
        tracemalloc.stop()
