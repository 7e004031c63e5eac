"""Where the time of a FHIR order goes, stage by stage: the processor's with eight clients, the clock's with one."""

from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from itertools import count
from pathlib import Path

import uvloop

from gateway.config import load_site
from tests.benchmarks.department import department
from tests.benchmarks.fhir_orders import BASE, HTTPClient
from tests.benchmarks.fhir_traffic import plain_bundle, written
from tests.benchmarks.measure import CPUSeconds, Operation, Rate, rate_of
from tests.benchmarks.observed import ObservedService
from tests.benchmarks.order_profile import WARM_UP_SHARE
from tests.benchmarks.report import Section
from tests.benchmarks.stage_clock import (
    APPLY,
    COMMIT,
    FHIR_ANSWER,
    FHIR_ARCHIVE,
    FHIR_CONCERN,
    FHIR_EVALUATE,
    FHIR_INDEX,
    FHIR_READ,
    FHIR_REQUEST,
    FHIR_RESOURCES,
    INTAKE,
    MAP,
    RECORDS,
    SQL,
    WRITER,
)

CLIENTS = 8
FIRST = 4_000_000
REST = "the rest: HTTP, FastAPI, event loop, threads and waiting between them, the client itself"
FHIR_ROAD = (
    FHIR_READ, FHIR_REQUEST, INTAKE, FHIR_RESOURCES, FHIR_INDEX, FHIR_CONCERN, MAP, FHIR_EVALUATE, APPLY, RECORDS, SQL,
    COMMIT, WRITER, FHIR_ARCHIVE, FHIR_ANSWER,
)  # fmt: skip


def where_a_fhir_orders_time_goes(folder: Path, orders: int, progress: Callable[[str], None]) -> Section:
    """Both profiles in one table, each of so many new orders."""
    progress("profile of a FHIR order")
    busy, spent, cpu = _profiled(folder / "fhir-profile-busy", "processor", CLIENTS, orders)
    alone, took, _ = _profiled(folder / "fhir-profile-alone", "elapsed", 1, orders)
    cpu_us, whole_us = (cpu.user + cpu.system) / orders * 1e6, 1e6 / alone.per_s
    processor, clock = _each(spent, orders, cpu_us), _each(took, orders, whole_us)
    return Section(
        "Where the time of a FHIR order goes",
        f"A transaction Bundle of a new Patient and a ServiceRequest takes the gateway {cpu_us:.0f} microseconds of "
        f"processor time with {CLIENTS} clients ({busy.per_s:,.0f} a second while every stage was clocked), of which "
        f"{cpu.system / orders * 1e6:.0f} in the kernel. One client that waits for each answer has it after "
        f"{whole_us:.0f} microseconds ({alone.per_s:,.0f} a second, so clocked). Each stage is without those inside "
        "it. The Patient is a document of its own beside the order's, so two are mapped.",
        ("Stage", f"Processor, {CLIENTS} clients: us", "Share", "Elapsed, 1 client: us", "Share"),
        [
            (stage, f"{processor[stage]:.0f}", f"{processor[stage] / cpu_us:.0%}",
             f"{clock[stage]:.0f}", f"{clock[stage] / whole_us:.0%}")
            for stage in (*FHIR_ROAD, REST)
        ],
    )  # fmt: skip


def _each(nanoseconds: Mapping[str, int], orders: int, whole_us: float) -> Mapping[str, float]:
    """Microseconds of one order by stage."""
    stages = {stage: nanoseconds.get(stage, 0) / orders / 1e3 for stage in FHIR_ROAD}
    return stages | {REST: max(0.0, whole_us - sum(stages.values()))}


def _profiled(folder: Path, clock: str, clients: int, orders: int) -> tuple[Rate, Mapping[str, int], CPUSeconds]:
    """The rate, nanoseconds by stage and processor time, of all orders."""
    config = department(folder, fhir={})
    port, numbers = load_site(config).settings.http.port, count(FIRST)
    with ObservedService(config, "tests.benchmarks.stage_clock", folder / "stages.json", clock) as service:
        uvloop.run(_sent(port, numbers, clients, max(clients, orders // WARM_UP_SHARE)))
        service.begin()
        rate = uvloop.run(_sent(port, numbers, clients, orders))
        stages, cpu = service.end()
    return rate, stages, cpu


async def _sent(port: int, numbers: "count[int]", clients: int, orders: int) -> Rate:
    async with AsyncExitStack() as connected:
        several = [await connected.enter_async_context(HTTPClient(port)) for _ in range(clients)]
        return await rate_of([_posting(client, numbers) for client in several], orders)


def _posting(client: HTTPClient, numbers: "count[int]") -> Operation:
    async def post() -> None:
        await client.ask("POST", BASE, written(plain_bundle(next(numbers))))

    return post
