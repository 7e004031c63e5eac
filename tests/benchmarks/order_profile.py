"""Where the time of an order goes, stage by stage: the processor's with eight senders, the clock's with one."""

from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import uvloop

from tests.benchmarks.department import department
from tests.benchmarks.hl7_traffic import Supply, new_orders, senders
from tests.benchmarks.measure import CPUSeconds, Rate, rate_of
from tests.benchmarks.observed import ObservedService
from tests.benchmarks.report import Section
from tests.benchmarks.stage_clock import (
    ANSWER,
    APPLY,
    COMMIT,
    FRAMING,
    INTAKE,
    MAP,
    PARSE,
    RECORDS,
    SQL,
    TELLING,
    WRITER,
)

SENDERS = 8
WARM_UP_SHARE = 5
REST = "the rest: sockets, event loop, waiting between threads, the sender itself"

ROAD = (FRAMING, PARSE, INTAKE, MAP, APPLY, RECORDS, SQL, COMMIT, WRITER, ANSWER, TELLING)


def where_an_orders_time_goes(folder: Path, orders: int, progress: Callable[[str], None]) -> Section:
    """Both profiles in one table, each of so many new orders."""
    progress("profile of an order")
    busy, spent, cpu = _profiled(folder / "profile-busy", "processor", SENDERS, orders)
    alone, took, _ = _profiled(folder / "profile-alone", "elapsed", 1, orders)
    cpu_us = (cpu.user + cpu.system) / orders * 1e6
    whole_us = 1e6 / alone.per_s
    processor, clock = _each(spent, orders, cpu_us), _each(took, orders, whole_us)
    return Section(
        "Where the time of an order goes",
        f"A new order (OMI^O23) takes the gateway {cpu_us:.0f} microseconds of processor time with {SENDERS} senders "
        f"({busy.per_s:,.0f} orders a second while every stage was clocked), of which {cpu.system / orders * 1e6:.0f} "
        f"in the kernel. One sender that waits for each answer has it after {whole_us:.0f} microseconds "
        f"({alone.per_s:,.0f} a second, so clocked). Each stage is without those inside it; the clocks themselves take "
        "a microsecond or two at each gate. With several senders a commit is shared by the orders of a group.",
        ("Stage", f"Processor, {SENDERS} senders: us", "Share", "Elapsed, 1 sender: us", "Share"),
        [(stage, *_cells(processor[stage], cpu_us), *_cells(clock[stage], whole_us)) for stage in (*ROAD, REST)],
    )


def _cells(us: float, whole_us: float) -> tuple[str, str]:
    return f"{us:.0f}", f"{us / whole_us:.0%}"


def _each(nanoseconds: Mapping[str, int], orders: int, whole_us: float) -> Mapping[str, float]:
    """Microseconds of one order by stage."""
    stages = {stage: nanoseconds.get(stage, 0) / orders / 1e3 for stage in ROAD}
    return stages | {REST: max(0.0, whole_us - sum(stages.values()))}


def _profiled(folder: Path, clock: str, count: int, orders: int) -> tuple[Rate, Mapping[str, int], CPUSeconds]:
    """The rate, nanoseconds by stage and processor time, of all orders."""
    supply = Supply(new_orders())
    with ObservedService(department(folder), "tests.benchmarks.stage_clock", folder / "stages.json", clock) as service:
        uvloop.run(_sent(service.hl7_port, supply, count, max(count, orders // WARM_UP_SHARE)))
        service.begin()
        rate = uvloop.run(_sent(service.hl7_port, supply, count, orders))
        stages, cpu = service.end()
    return rate, stages, cpu


async def _sent(port: int, supply: Supply, count: int, orders: int) -> Rate:
    async with AsyncExitStack() as connected:
        return await rate_of(await senders(connected, port, count, lambda: supply), orders)
