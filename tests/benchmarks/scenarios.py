"""What is measured: one function for each group of budgets, and each gives the rows of the table that it fills."""

import asyncio
import random
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

from gateway.edges.mllp import MLLPClient
from gateway.testing import Acknowledgement, ServiceProcess, omi, site, worklist_identifier
from gateway.testing.load import LoadAssociation, encode_association, encode_create, encode_find, encode_set, exchanged
from gateway.testing.modality import final_state, performed_step
from tests.benchmarks import peers, population
from tests.benchmarks.measure import Operation, Rate, rate_of, rates, resident_megabytes
from tests.benchmarks.report import Row

HOST = "127.0.0.1"
CLIENTS, SENDERS, MODALITIES = 4, 8, 8
LONG_ANSWER = 500
START_S_MAX = 60.0
ASSOCIATE = encode_association("BENCHMARK")
SUCCESS = 0x0000

WLMSCPFS_BUDGET = {100: 3.0, 1_000: 20.0, 10_000: 200.0}
LARGEST_BUDGET = 0.8

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is done: sizes of the worklist that peers bear as well; the largest, which is held against the rate at
    the size `compared`; and seconds for each figure.
    """

    sizes: tuple[int, ...]
    largest: int
    compared: int
    seconds: float


FULL = Scale((100, 1_000, 10_000), 100_000, 1_000, 4.0)
QUICK = Scale((50,), 200, 50, 0.2)


def worklists(folder: Path, scale: Scale, progress: Progress) -> list[Row]:
    """The common query at every size beside its peers; memory, start and performed steps with the largest."""
    config = site(folder / "worklist")
    with ServiceProcess(config) as service:
        rows = [Row("memory, idle", resident_megabytes(service.pid), "MB", at_most=150)]
    held = 0
    for size in scale.sizes:
        progress(_what(size))
        population.fill(config, held, size - held)
        with ExitStack() as running:
            named = {"stock pynetdicom": running.enter_context(peers.pynetdicom_worklist(size))}
            if shutil.which("wlmscpfs"):
                population.write_worklist_files(folder / "files" / "GATEWAY", held, size - held)
                named["wlmscpfs"] = running.enter_context(peers.wlmscpfs(folder / "files"))
            service = running.enter_context(ServiceProcess(config))
            ports = (service.dicom_port, *named.values())
            ours, *theirs = asyncio.run(rates([_todays_lists(port, size) for port in ports], scale.seconds))
        for name, measured in zip(named, theirs, strict=True):
            budget = WLMSCPFS_BUDGET.get(size) if name == "wlmscpfs" else None
            rows.append(_against(_what(size), ours, name, measured, budget))
        held = size
    return rows + _largest_worklist(folder, config, held, scale, progress)


def _largest_worklist(folder: Path, config: Path, held: int, scale: Scale, progress: Progress) -> list[Row]:
    size = scale.largest
    compared = site(folder / "compared")
    population.fill(compared, 0, scale.compared)
    progress(f"filling the store up to {size:,} items")
    population.fill(config, held, size - held)
    progress(_what(size))
    start_s = asyncio.run(_first_answer_s(ServiceProcess(config)))
    with ServiceProcess(config) as service:
        with ServiceProcess(compared) as small:
            contestants = [_todays_lists(service.dicom_port, size), _todays_lists(small.dicom_port, scale.compared)]
            ours, own = asyncio.run(rates(contestants, scale.seconds))
        progress("every item once")
        anew = asyncio.run(_ask_for_everything(service.dicom_port, size))
        memory = resident_megabytes(service.pid)
        progress("performed steps")
        (pairs,) = asyncio.run(rates([_performing(service.dicom_port, size)], scale.seconds))
    return [
        _against(_what(size), ours, f"gateway, {scale.compared:,} items", own, LARGEST_BUDGET),
        Row("the same, each list for the first time", anew.per_s, "/s", times=_times(anew)),
        Row(f"memory, {size:,} items served", memory, "MB", at_most=400),
        Row(f"start to first answer, {size:,} items", start_s, "s", at_most=2),
        Row(f"performed steps, {MODALITIES} modalities", pairs.per_s, "/s", at_least=300, times=_times(pairs)),
    ]


def long_answers(folder: Path, scale: Scale, progress: Progress) -> list[Row]:
    """Answers of 500 matches, beside pynetdicom."""
    what = f"associate, ask, release: {LONG_ANSWER} of {LONG_ANSWER} items"
    progress(what)
    config = site(folder / "long")
    population.fill(config, 0, LONG_ANSWER)
    with ServiceProcess(config) as service, peers.pynetdicom_worklist(LONG_ANSWER) as port:
        contestants = [_long_lists(service.dicom_port), _long_lists(port)]
        ours, theirs = asyncio.run(rates(contestants, scale.seconds))
    return [_against(what, ours, "stock pynetdicom", theirs, 30.0)]


def orders(folder: Path, scale: Scale, progress: Progress) -> list[Row]:
    """Durable orders over MLLP, beside a server that only parses with hl7apy and acknowledges."""
    rows = []
    for senders, budget in ((SENDERS, 10.0), (1, 4.0)):
        what = f"orders, {senders} sender{'s' if senders > 1 else ''}"
        progress(what)
        with ServiceProcess(site(folder / f"orders{senders}")) as service, peers.hl7apy_receiver() as port:
            ours, theirs = asyncio.run(_order_rates((service.hl7_port, port), senders, scale.seconds))
        rows.append(_against(what, ours, "hl7apy, nothing kept", theirs, budget))
    return rows


def _what(size: int) -> str:
    return f"associate, ask, release: {population.GROUP} of {size:,} items"


def _against(what: str, ours: Rate, peer: str, theirs: Rate, at_least: float | None) -> Row:
    return Row(what, ours.per_s, "/s", peer, theirs.per_s, at_least, times=_times(ours))


def _times(measured: Rate) -> str:
    return f"median {measured.median_ms:.1f} ms, 99% {measured.p99_ms:.1f} ms"


_STATION_AND_DAY = encode_find(
    worklist_identifier({"ScheduledStationAETitle": "STATIONXX", "ScheduledProcedureStepStartDate": "19991231"})
)
_EVERYTHING = encode_find(worklist_identifier({"Modality": "CT"}))


def _group_request(group: int) -> bytes:
    station, day = population.station_of(group), population.day_of(group)
    return exchanged(_STATION_AND_DAY, {"STATIONXX": station, "19991231": day})


def _query(port: int, groups: Callable[[], int]) -> Operation:
    """One association that asks for a group's station and day."""

    async def ask() -> None:
        request = _group_request(groups())
        async with LoadAssociation(HOST, port, ASSOCIATE) as association:
            matches = await association.find(request)
        assert matches == population.GROUP, f"{matches} matches"

    return ask


def _todays_lists(port: int, size: int) -> list[Operation]:
    """As modalities ask: each for its own station on the first day, which is today to them, over and over."""
    today = min(population.STATIONS, size // population.GROUP)
    return [_query(port, lambda: random.randrange(today))] * CLIENTS


async def _first_answer_s(service: ServiceProcess) -> float:
    """From the start of the process to the first list answered. It is stopped afterwards."""
    ask = _query(service.dicom_port, lambda: 0)
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
    groups = size // population.GROUP
    each = iter(range(groups))
    return await rate_of([_query(port, lambda: next(each))] * CLIENTS, groups)


def _long_lists(port: int) -> list[Operation]:
    async def ask() -> None:
        async with LoadAssociation(HOST, port, ASSOCIATE) as association:
            matches = await association.find(_EVERYTHING)
        assert matches == LONG_ANSWER, f"{matches} matches"

    return [ask] * CLIENTS


async def _order_rates(ports: Sequence[int], senders: int, seconds: float) -> list[Rate]:
    numbers = count()
    now = datetime.now(UTC)

    def sender(client: MLLPClient) -> Operation:
        async def send() -> None:
            number = next(numbers)
            answer = await client.send(omi(population.order(number)).message(f"BENCH{number:09}", now))
            assert Acknowledgement.parse(answer).code == "AA"

        return send

    async with AsyncExitStack() as connected:
        contestants = [
            [sender(await connected.enter_async_context(MLLPClient(HOST, port))) for _ in range(senders)]
            for port in ports
        ]
        return await rates(contestants, seconds)


def _performing(port: int, size: int) -> list[Operation]:
    """An association, N-CREATE for the next item, N-SET to COMPLETED, release."""
    held = population.TEMPLATE
    uid = "2.25.9999999999"
    create = encode_create(uid, performed_step(population.item(held), "BENCHMARK", population.FIRST_DAY))
    final = encode_set(uid, final_state("COMPLETED", population.FIRST_DAY))
    numbers = count()

    async def perform() -> None:
        number = next(numbers)
        order = population.order(number % size)
        new_uid = {uid: f"2.25.9{number:09}"}
        texts = new_uid | {
            held.study_instance_uid: order.study_instance_uid,
            held.accession: order.accession,
            held.requested_procedure_id: order.requested_procedure_id,
            held.sps_id: order.sps_id,
            held.person.patient_id: order.person.patient_id,
        }
        async with LoadAssociation(HOST, port, ASSOCIATE) as association:
            assert await association.report(exchanged(create, texts)) == SUCCESS
            assert await association.report(exchanged(final, new_uid)) == SUCCESS

    return [perform] * MODALITIES


SCENARIOS: Sequence[Callable[[Path, Scale, Progress], list[Row]]] = (orders, long_answers, worklists)
