"""Durable orders over MLLP: beside servers that only parse and acknowledge, and every kind of message by itself."""

import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

import uvloop

from gateway.testing import ServiceProcess
from tests.benchmarks import peers, population
from tests.benchmarks.department import department, hl7_ports
from tests.benchmarks.hl7_traffic import LISTENERS, MIX, Supply, kinds, new_orders, senders
from tests.benchmarks.measure import Rate, rate_of, rates
from tests.benchmarks.report import Row, Section, number

SENDERS = 8
WARM_UP_SHARE = 10
"""One message in so many more is sent before, so that imports and statements are ready."""

WAYS: Sequence[tuple[int, int, float | None]] = ((SENDERS, 0, None), (SENDERS, 1, 10.0), (1, 0, 4.0))
"""Senders, workers, and the budget beside hl7apy: a site with eight busy senders gives them a second core."""

Progress = Callable[[str], None]


def beside_parsers(folder: Path, seconds: float, progress: Progress) -> list[Row]:
    """Ours, on disk, and each parser's server in turns, with eight senders and with one."""
    rows: list[Row] = []
    for count, workers, budget in WAYS:
        what = f"orders, {count} sender{'s' if count > 1 else ''}{f', {workers} worker' if workers else ''}"
        progress(what)
        config = department(folder / f"orders{count}-{workers}", workers=workers)
        with ServiceProcess(config) as service, ExitStack() as running:
            named = {name: running.enter_context(serve()) for name, serve in peers.HL7_RECEIVERS.items()}
            ours, *theirs = uvloop.run(_in_turns((service.hl7_port, *named.values()), count, seconds))
        for name, measured in zip(named, theirs, strict=True):
            at_least = budget if name == "hl7apy" else None
            rows.append(
                Row(what, ours.per_s, "/s", f"{name}, nothing kept", measured.per_s, at_least, times=ours.times)
            )
    return rows


async def _in_turns(ports: Sequence[int], count: int, seconds: float) -> list[Rate]:
    supply = Supply(new_orders())
    async with AsyncExitStack() as connected:
        return await rates([await senders(connected, port, count, lambda: supply) for port in ports], seconds)


def every_kind(folder: Path, messages: int, progress: Progress) -> Section:
    """Each kind of message by itself, so many of each, and then all together."""
    progress("every kind of HL7 message")
    config = department(folder / "kinds", LISTENERS)
    held = 6 * messages
    population.fill(config, population.numbers(held))
    ports = hl7_ports(config)
    supplies = [Supply(traffic) for traffic in kinds(held)]
    lines: list[tuple[str, ...]] = []
    with ServiceProcess(config):
        for supply in supplies:
            progress(supply.traffic.what)
            lines.append(_line(supply.traffic.what, [_measured(ports, (supply,), count, messages)
                                                     for count in (SENDERS, 1)]))  # fmt: skip
        progress("all of them")
        mixed = [_measured(ports, supplies[: len(MIX)], count, messages) for count in (SENDERS, 1)]
        lines.append(_line("a busy morning: " + _shares(supplies), mixed))
    return Section(
        "Every kind of HL7 message",
        f"Messages a second, and the times of their answers: {messages:,} messages of {SENDERS} senders, and a quarter "
        f"of that of one, each of whom waits for every answer; the store held {held:,} orders before. Everything is on "
        "disk when it is answered, what is refused too. A batch is answered as a whole, so its time is the batch's.",
        ("Messages", f"{SENDERS} senders", "Median, 99% within", "1 sender", "Median, 99% within"),
        lines,
    )


def _measured(ports: Mapping[str, int], supplies: Sequence[Supply], count: int, messages: int) -> Rate:
    """One kind, or several by their shares. Each sender has one connection, so all of them go to one listener."""
    each = supplies[0].traffic.messages
    shares = MIX if len(supplies) > 1 else (1,)
    times = max(count, messages // each // (1 if count > 1 else 4))  # one sender takes longer

    async def run() -> Rate:
        async with AsyncExitStack() as connected:
            port = ports[supplies[0].traffic.listener]
            operations = await senders(connected, port, count, lambda: random.choices(supplies, shares)[0])
            await rate_of(operations, max(1, times // WARM_UP_SHARE))
            return await rate_of(operations, times)

    found = uvloop.run(run())
    return Rate(found.per_s * each, found.median_ms, found.p99_ms)


def _line(what: str, measured: Sequence[Rate]) -> tuple[str, ...]:
    return (what, *(cell for rate in measured for cell in (f"{number(rate.per_s)} /s", rate.times)))


def _shares(supplies: Sequence[Supply]) -> str:
    return ", ".join(
        f"{share}% {supply.traffic.what.split(':')[0]}" for share, supply in zip(MIX, supplies, strict=False)
    )
