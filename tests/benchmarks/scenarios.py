"""What is measured: one function for each group of budgets, and each gives the rows of the table that it fills."""

import asyncio
import random
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

from gateway.edges.mllp import MLLPClient
from gateway.testing import Acknowledgement, ServiceProcess, omi, site, worklist_identifier
from gateway.testing.load import LoadAssociation, encode_association, encode_create, encode_find, encode_set, exchanged
from gateway.testing.modality import final_state, performed_step
from tests.benchmarks import peers, population
from tests.benchmarks.measure import Operation, Rate, rate, resident_megabytes
from tests.benchmarks.report import Row

HOST = "127.0.0.1"
CLIENTS, SENDERS, MODALITIES = 4, 8, 8
LONG_ANSWER = 500
ASSOCIATE = encode_association("BENCHMARK")
SUCCESS = 0x0000

WLMSCPFS_BUDGET = {100: 3.0, 1_000: 20.0, 10_000: 200.0}
COMPARED_SIZE = 1_000  # whose own rate the largest worklist is held against

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is done: sizes of the worklist that peers bear as well, the largest, and seconds for each figure."""

    sizes: tuple[int, ...]
    largest: int
    seconds: float


FULL = Scale((100, 1_000, 10_000), 100_000, 4.0)
QUICK = Scale((50,), 200, 0.2)


def worklists(folder: Path, scale: Scale, progress: Progress) -> list[Row]:
    """The common query at every size beside its peers; memory, start and performed steps with the largest."""
    config = site(folder / "worklist")
    with ServiceProcess(config) as service:
        rows = [Row("memory, idle", resident_megabytes(service.pid), "MB", at_most=150)]
    held = 0
    own_rate = 0.0
    for size in scale.sizes:
        what = f"associate, ask, release: 10 of {size:,} items"
        progress(what)
        population.fill(config, held, size - held)
        with ServiceProcess(config) as service:
            ours = asyncio.run(_query_rate(service.dicom_port, size, scale.seconds))
        with peers.pynetdicom_worklist(size) as port:
            theirs = asyncio.run(_query_rate(port, size, scale.seconds))
        if shutil.which("wlmscpfs"):
            population.write_worklist_files(folder / "files" / "GATEWAY", held, size - held)
            with peers.wlmscpfs(folder / "files") as port:
                files = asyncio.run(_query_rate(port, size, scale.seconds))
            rows.append(_against(what, ours, "wlmscpfs", files, WLMSCPFS_BUDGET.get(size)))
        rows.append(_against(what, ours, "stock pynetdicom", theirs, None))
        held = size
        if size <= COMPARED_SIZE:
            own_rate = ours.per_s
    return rows + _largest_worklist(config, held, own_rate, scale, progress)


def _largest_worklist(config: Path, held: int, own_rate: float, scale: Scale, progress: Progress) -> list[Row]:
    size = scale.largest
    progress(f"filling the store up to {size:,} items")
    population.fill(config, held, size - held)
    progress(f"associate, ask, release: 10 of {size:,} items")
    began = time.perf_counter()
    with ServiceProcess(config) as service:
        asyncio.run(_query(service.dicom_port, size)())
        start_s = time.perf_counter() - began
        ours = asyncio.run(_query_rate(service.dicom_port, size, scale.seconds))
        progress("every item once")
        asyncio.run(_ask_for_everything(service.dicom_port, size))
        memory = resident_megabytes(service.pid)
        progress("performed steps")
        pairs = asyncio.run(_performed_rate(service.dicom_port, size, scale.seconds))
    peer = f"itself at {COMPARED_SIZE:,}"
    return [
        Row(
            f"associate, ask, release: 10 of {size:,} items", ours.per_s, "/s", peer, own_rate, 0.8, times=_times(ours)
        ),
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
    with ServiceProcess(config) as service:
        ours = asyncio.run(_long_answer_rate(service.dicom_port, scale.seconds))
    with peers.pynetdicom_worklist(LONG_ANSWER) as port:
        theirs = asyncio.run(_long_answer_rate(port, scale.seconds))
    return [_against(what, ours, "stock pynetdicom", theirs, 30.0)]


def orders(folder: Path, scale: Scale, progress: Progress) -> list[Row]:
    """Durable orders over MLLP, beside a server that only parses with hl7apy and acknowledges."""
    rows = []
    for senders, budget in ((SENDERS, 10.0), (1, 4.0)):
        what = f"orders, {senders} sender{'s' if senders > 1 else ''}"
        progress(what)
        with ServiceProcess(site(folder / f"orders{senders}")) as service:
            ours = asyncio.run(_order_rate(service.hl7_port, senders, scale.seconds))
        with peers.hl7apy_receiver() as port:
            theirs = asyncio.run(_order_rate(port, senders, scale.seconds))
        rows.append(_against(what, ours, "hl7apy, nothing kept", theirs, budget))
    return rows


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


def _query(port: int, size: int) -> Operation:
    """One association that asks for a group at random."""
    groups = size // population.GROUP

    async def ask() -> None:
        request = _group_request(random.randrange(groups))
        async with LoadAssociation(HOST, port, ASSOCIATE) as association:
            matches = await association.find(request)
        assert matches == population.GROUP, f"{matches} matches"

    return ask


async def _query_rate(port: int, size: int, seconds: float) -> Rate:
    return await rate([_query(port, size)] * CLIENTS, seconds)


async def _ask_for_everything(port: int, size: int) -> None:
    """Every group once, so that every item has been answered."""
    async with LoadAssociation(HOST, port, ASSOCIATE) as association:
        for group in range(size // population.GROUP):
            await association.find(_group_request(group))


async def _long_answer_rate(port: int, seconds: float) -> Rate:
    async def ask() -> None:
        async with LoadAssociation(HOST, port, ASSOCIATE) as association:
            matches = await association.find(_EVERYTHING)
        assert matches == LONG_ANSWER, f"{matches} matches"

    return await rate([ask] * CLIENTS, seconds)


async def _order_rate(port: int, senders: int, seconds: float) -> Rate:
    numbers = count()
    now = datetime.now(UTC)

    def sender(client: MLLPClient) -> Operation:
        async def send() -> None:
            number = next(numbers)
            answer = await client.send(omi(population.order(number)).message(f"BENCH{number:09}", now))
            assert Acknowledgement.parse(answer).code == "AA"

        return send

    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(MLLPClient(HOST, port)) for _ in range(senders)]
        return await rate([sender(client) for client in clients], seconds)


async def _performed_rate(port: int, size: int, seconds: float) -> Rate:
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

    return await rate([perform] * MODALITIES, seconds)


SCENARIOS: Sequence[Callable[[Path, Scale, Progress], list[Row]]] = (orders, long_answers, worklists)
