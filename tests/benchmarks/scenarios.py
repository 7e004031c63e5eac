"""What is measured: one function for each group of budgets, and each gives the rows and sections that it fills."""

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import uvloop

from gateway.testing import ServiceProcess
from tests.benchmarks import archive, orders, peers, population
from tests.benchmarks.crowd import crowd
from tests.benchmarks.department import DEVICES, department
from tests.benchmarks.fhir_orders import fhir_rows
from tests.benchmarks.fhir_profile import where_a_fhir_orders_time_goes
from tests.benchmarks.measure import Rate, rate_of, rates, resident_megabytes
from tests.benchmarks.memory import kept
from tests.benchmarks.order_profile import where_an_orders_time_goes
from tests.benchmarks.outbox_backlog import backlogged
from tests.benchmarks.outbox_drain import drain_rows
from tests.benchmarks.performed import performed_rows
from tests.benchmarks.profiled import where_the_time_goes
from tests.benchmarks.questions import asking_once, group_request, query_rates
from tests.benchmarks.report import Row, Section, number
from tests.benchmarks.silent import silent_rows

CLIENTS = 4
START_S_MAX = 60.0

ALL_CLIENTS = (1, 4, 16)
ALL_MATCHES = (0, population.GROUP, population.BUSY_ORDERS)
WLMSCPFS_BUDGET = {100: 3.0, 1_000: 20.0, 10_000: 200.0}
PYNETDICOM_LONG_BUDGET = 30.0
LARGEST_BUDGET = 0.8

Progress = Callable[[str], None]
Found = Row | Section


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is done.

    `sizes` of the worklist that peers bear as well; the `largest`, which is held against the rate at the size
    `compared`; `seconds` for each figure that stands beside a peer, `cell_seconds` for each of the matrix;
    `crowd_seconds` of `devices` that ask every two seconds, once for each number of `workers`; `messages` of each kind
    of HL7; the `archive`; messages `drained` from the outbox by each protocol; the `backlogs` that are compared, of
    which the first is small, and rounds of what is done with each; peers that stay `silent` in the TLS handshake.
    """

    sizes: tuple[int, ...]
    largest: int
    compared: int
    seconds: float
    cell_seconds: float
    crowd_seconds: float
    devices: int
    workers: tuple[int, ...]
    messages: int
    archive: archive.Scale
    drained: int
    backlogs: tuple[int, ...]
    backlog_rounds: int
    silent: int


FULL = Scale(
    (100, 1_000, 10_000), 100_000, 1_000, 3.0, 1.0, 20.0, DEVICES, (0, 2), 1_500, archive.SAMPLE, 2_000,
    (10_000, 1_000_000), 2_000, 1_000,
)  # fmt: skip
QUICK = Scale((50,), 1_100, 50, 0.2, 0.05, 1.0, 20, (0,), 40, archive.QUICK, 100, (200, 2_000), 50, 50)


def worklists(folder: Path, scale: Scale, progress: Progress) -> list[Found]:
    """The common queries at every size beside its peers; memory, start and performed steps with the largest."""
    config = department(folder / "worklist")
    with ServiceProcess(config) as service:
        found: list[Found] = [Row("memory, idle", resident_megabytes(service.pid), "MB", at_most=150)]
    matrix = _Matrix(scale.cell_seconds)
    held = 0
    for size in scale.sizes:
        progress(f"{size:,} items")
        population.fill(config, population.numbers(size, held))
        with ExitStack() as running:
            named = {"stock pynetdicom": running.enter_context(peers.pynetdicom_worklist(size))}
            named |= _file_servers(running, folder, size, held)
            service = running.enter_context(ServiceProcess(config))
            for matches, many in _beside_peers(size):
                progress(_what(size, matches, many))
                ports = (service.dicom_port, *named.values())
                ours, *theirs = uvloop.run(query_rates(ports, size, matches, CLIENTS, scale.seconds, many=many))
                for name, measured in zip(named, theirs, strict=True):
                    budget = _budget(name, size, matches, many)
                    found.append(_against(_what(size, matches, many), ours, name, measured, budget))
            progress(f"matrix, {size:,} items")
            matrix.measure(service.dicom_port, size)
        held = size
    return found + _largest_worklist(folder, config, held, scale, progress, matrix) + [matrix.section()]


def _file_servers(running: ExitStack, folder: Path, size: int, held: int) -> dict[str, int]:
    """The installed servers over a folder of worklist files, and the port of each."""
    files = folder / "files" / "GATEWAY"
    population.write_worklist_files(files, population.numbers(size, held))
    named = {}
    if peers.program("wlmscpfs"):
        named["wlmscpfs"] = running.enter_context(peers.wlmscpfs(files.parent))
    if peers.program("Orthanc"):
        named["Orthanc"] = running.enter_context(peers.orthanc(files, folder / f"orthanc{size}"))
    return named


def _beside_peers(size: int) -> list[tuple[int, bool]]:
    """(matches, many queries an association): with 10,000 items some peers need seconds for one answer."""
    rows = [(population.GROUP, False)]
    if size < 10_000:
        rows += [(population.GROUP, True), (0, False)]
    if population.others(size) < size:
        rows.append((population.BUSY_ORDERS, False))
    return rows


def _budget(peer: str, size: int, matches: int, many: bool) -> float | None:
    if many:
        return None
    if peer == "wlmscpfs" and matches == population.GROUP:
        return WLMSCPFS_BUDGET.get(size)
    return PYNETDICOM_LONG_BUDGET if peer == "stock pynetdicom" and matches == population.BUSY_ORDERS else None


class _Matrix:
    """Our own rate in every combination."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._lines: list[tuple[str, ...]] = []

    def measure(self, port: int, size: int) -> None:
        """Every combination for a worklist of this size."""
        for matches in ALL_MATCHES:
            if matches == population.BUSY_ORDERS and population.others(size) == size:
                continue
            cells = [
                uvloop.run(query_rates([port], size, matches, clients, self._seconds, many=many))[0]
                for many in (False, True)
                for clients in ALL_CLIENTS
            ]
            self._lines.append((f"{size:,}", str(matches), *(_cell(measured) for measured in cells)))

    def section(self) -> Section:
        """All that was measured."""
        return Section(
            "Every combination",
            "The gateway alone, one process: answers a second, and the time within which 99% of them came. `once` is "
            "an association with one query, `again` one of many queries of an association that stays open.",
            (
                "Items", "Matches", *(f"once, {n} client{'s' if n > 1 else ''}" for n in ALL_CLIENTS),
                *(f"again, {n} client{'s' if n > 1 else ''}" for n in ALL_CLIENTS),
            ),
            self._lines,
        )  # fmt: skip


def _cell(measured: Rate) -> str:
    return f"{number(measured.per_s)} /s, {measured.p99_ms:.1f} ms"


def _largest_worklist(
    folder: Path, config: Path, held: int, scale: Scale, progress: Progress, matrix: _Matrix
) -> list[Found]:
    size = scale.largest
    compared = department(folder / "compared")
    population.fill(compared, population.numbers(scale.compared))
    progress(f"filling the store up to {size:,} items")
    population.fill(config, population.numbers(size, held))
    what = _what(size, population.GROUP, False)
    progress(what)
    start_s = uvloop.run(_first_answer_s(ServiceProcess(config)))
    with ServiceProcess(config) as service:
        before = resident_megabytes(service.pid)
        with ServiceProcess(compared) as small:
            ours, own = uvloop.run(_both_sizes(service.dicom_port, size, small.dicom_port, scale))
        progress("every item once")
        anew = uvloop.run(_ask_for_everything(service.dicom_port, size))
        memory = resident_megabytes(service.pid)
        progress(f"matrix, {size:,} items")
        matrix.measure(service.dicom_port, size)
        progress("performed steps")
        performed = performed_rows(service.dicom_port, population.others(size), scale.seconds)
    progress("memory of what is kept")
    return [
        _against(what, ours, f"gateway, {scale.compared:,} items", own, LARGEST_BUDGET),
        Row("the same, each list for the first time", anew.per_s, "/s", times=anew.times),
        Row(f"memory, {size:,} items, none served", before, "MB"),
        Row(f"memory, {size:,} items served", memory, "MB", at_most=400),
        *kept(config),
        Row(f"start to first answer, {size:,} items", start_s, "s", at_most=2),
        *performed,
    ]


async def _both_sizes(large_port: int, size: int, small_port: int, scale: Scale) -> list[Rate]:
    """The same lists of today from both, in turns."""
    today = min(population.STATIONS, population.others(scale.compared) // population.GROUP)
    requests = [group_request(group) for group in range(today)]
    assert size >= scale.compared
    return await rates(
        [
            [asking_once(port, lambda: random.choice(requests), population.GROUP)] * CLIENTS
            for port in (large_port, small_port)
        ],
        scale.seconds,
    )


def crowds(folder: Path, scale: Scale, progress: Progress) -> list[Found]:
    """A department at its worst hour, with and without further processes that answer."""
    return [
        row
        for workers in scale.workers
        for row in crowd(
            department(folder / f"crowd{workers}", workers=workers), scale.devices, scale.crowd_seconds, progress
        )
    ]


def silent(folder: Path, scale: Scale, progress: Progress) -> list[Found]:
    """Modalities over TLS, alone and beside peers that hold the handshake open."""
    return [*silent_rows(folder, scale.crowd_seconds, progress, scale.silent)]


def profile(folder: Path, scale: Scale, progress: Progress) -> list[Found]:
    """Where the time of the common query goes, and how near that is to what asyncio can do at all."""
    config = department(folder / "profile")
    population.fill(config, population.numbers(scale.compared))
    return where_the_time_goes(folder, config, scale.compared, scale.seconds, progress)


def hl7(folder: Path, scale: Scale, progress: Progress) -> list[Found]:
    """Durable orders beside servers that only parse, every kind of message, and where an order's time goes."""
    return [
        *orders.beside_parsers(folder, scale.seconds, progress),
        orders.every_kind(folder, scale.messages, progress),
        where_an_orders_time_goes(folder, scale.messages, progress),
    ]


def fhir(folder: Path, scale: Scale, progress: Progress) -> list[Found]:
    """Durable FHIR orders beside the bare cost of parsing and one commit, and where the time of one goes."""
    return [
        *fhir_rows(folder, scale.seconds, scale.messages // 3, progress),
        where_a_fhir_orders_time_goes(folder, scale.messages // 3, progress),
    ]


def outgoing(folder: Path, scale: Scale, progress: Progress) -> list[Found]:
    """How fast what waits is sent, and what it costs that much waits."""
    return [
        *drain_rows(scale.drained, progress),
        *backlogged(folder, scale.backlogs, scale.backlog_rounds, progress),
    ]


def archived(folder: Path, scale: Scale, progress: Progress) -> list[Found]:
    """The archive, as far as there is time for it here: `make bench-archive` does the same with a million messages."""
    return archive.measured(folder, scale.archive, progress)


def _what(size: int, matches: int, many: bool) -> str:
    return f"{'ask again' if many else 'associate, ask, release'}: {matches} of {size:,} items"


def _against(what: str, ours: Rate, peer: str, theirs: Rate, at_least: float | None) -> Row:
    return Row(what, ours.per_s, "/s", peer, theirs.per_s, at_least, times=ours.times)


async def _first_answer_s(service: ServiceProcess) -> float:
    """From the start of the process to the first list answered. It is stopped afterwards."""
    ask = asking_once(service.dicom_port, lambda: group_request(0), population.GROUP)
    began = time.perf_counter()
    service.launch()
    try:
        async with asyncio.timeout(START_S_MAX):
            while True:
                try:
                    await ask()
                    return time.perf_counter() - began
                except ConnectionError:
                    await asyncio.sleep(0.01)  # another process cannot be awaited, only asked
    finally:
        service.stop()


async def _ask_for_everything(port: int, size: int) -> Rate:
    """Every group of the worklist once, by as many clients; the rate is that of lists nobody asked for before."""
    groups = population.others(size) // population.GROUP
    each = iter(range(groups))
    ask = asking_once(port, lambda: group_request(next(each)), population.GROUP)
    return await rate_of([ask] * CLIENTS, groups)


SCENARIOS: Sequence[Callable[[Path, Scale, Progress], list[Found]]] = (
    hl7, fhir, crowds, silent, profile, worklists, outgoing, archived,
)  # fmt: skip
