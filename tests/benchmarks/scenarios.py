"""What is measured, one function for each line of the budgets. Each gives rows for the table."""

import asyncio
import random
import shutil
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

from gateway.edges.mllp import MLLPClient
from gateway.testing import Acknowledgement, ServiceProcess, SimulatedModality, omi, site, worklist_identifier
from gateway.testing.load import LoadAssociation, encode_association, encode_create, encode_find, encode_set, exchanged
from gateway.testing.modality import final_state, performed_step
from tests.benchmarks import peers, population
from tests.benchmarks.measure import Operation, Rate, rate, resident_megabytes
from tests.benchmarks.report import Row

CLIENTS = 4
SENDERS = 8
MODALITIES = 8
LONG_ANSWER = 500
HOST = "127.0.0.1"
ASSOCIATE = encode_association("BENCHMARK")

QUERY, PER_S, MB, S = "associate, ask, release", "/s", "MB", "s"


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is done: `sizes` of the worklist, the last of which ours alone has to bear, and seconds per figure."""

    sizes: tuple[int, ...]
    seconds: float


FULL = Scale((100, 1_000, 10_000, 100_000), 4.0)
QUICK = Scale((20, 100), 0.3)
WLMSCPFS_BUDGET = {100: 3.0, 1_000: 20.0, 10_000: 200.0}
LARGEST_BUDGET = 0.8  # of our own rate at 1,000 items

Progress = Callable[[str], None]


def worklist_by_size(folder: Path, scale: Scale, progress: Progress) -> Iterator[Row]:
    """The common query at every size, beside wlmscpfs and pynetdicom; with memory and start at the largest."""
    config = site(folder / "worklist")
    files = folder / "files"
    held, rates = 0, {}
    with ServiceProcess(config) as service:
        yield Row("memory, idle", resident_megabytes(service.pid), MB, at_most=150)
    for size in scale.sizes:
        progress(f"filling up to {size:,} items")
        population.fill(config, held, size - held)
        largest = size == scale.sizes[-1]
        began = time.perf_counter()
        with ServiceProcess(config) as service:
            first_answer_s = asyncio.run(_first_answer(service, began))
            progress(f"asking the gateway at {size:,} items")
            ours = asyncio.run(_query_rate(service.dicom_port, size, scale.seconds))
            rates[size] = ours.per_s
            if largest:
                progress("having every item answered once")
                asyncio.run(_ask_for_everything(service, size))
                memory = resident_megabytes(service.pid)
        what = f"{QUERY}; 10 of {size:,} items"
        if largest:
            yield Row(what, ours.per_s, PER_S, f"gateway at {scale.sizes[-3:][0]:,}" if len(rates) > 2 else "", 0)
            continue
        if shutil.which("wlmscpfs"):
            population.write_worklist_files(files / "GATEWAY", held, size - held)
            progress(f"asking wlmscpfs at {size:,} items")
            with peers.wlmscpfs(files) as port:
                theirs = asyncio.run(_query_rate(port, size, scale.seconds))
            yield _against(what, ours, "wlmscpfs", theirs, WLMSCPFS_BUDGET.get(size))
        progress(f"asking pynetdicom at {size:,} items")
        with peers.pynetdicom_worklist(size) as port:
            theirs = asyncio.run(_query_rate(port, size, scale.seconds))
        yield _against(what, ours, "stock pynetdicom", theirs, None)
        held = size
