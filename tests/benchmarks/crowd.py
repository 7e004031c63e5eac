"""A department at its worst hour: 500 devices each ask every two seconds while 20 orders a second arrive.

The generator is a process of its own (`python -m tests.benchmarks.crowd`) beside the gateway on the same machine. Its
schedule is open: each query has a time at which it is due, fixed beforehand, and its latency counts from that time,
however late earlier answers or the generator itself are. So nothing that is slow hides what comes after it.
"""

import asyncio
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import uvloop

from gateway.edges.mllp import MLLPClient
from gateway.testing import Acknowledgement, ServiceProcess, omi
from gateway.testing.load import LoadAssociation, encode_association
from tests.benchmarks import population
from tests.benchmarks.measure import percentile
from tests.benchmarks.questions import HOST, group_request
from tests.benchmarks.report import Row

PERIOD_S = 2.0
JITTER_S = 0.2
"""Each device asks this much before or after its turn at most."""
ORDERS_PER_S = 20
SENDERS = 4
WARM_UP_S = 6.0
"""Every device asks for its list for the first time, which is five times the work, and twice more."""
ANSWER_S_MAX = 10.0
LATE_S = 0.005
"""A query that the generator begins later than this has missed its schedule. Its latency counts all the same."""
SPARE_S = 60.0
"""For the generator's start and the last answers, before it is given up."""
P99_MS_MAX = 20.0


@dataclass(slots=True)
class Measured:
    """Milliseconds of the queries and orders that were answered; how many failed, or began too late."""

    queries: list[float]
    orders: list[float]
    failed: int = 0
    late: int = 0
    latest: float = 0.0
    """By how many milliseconds a query began too late at most."""


def crowd(config: Path, devices: int, seconds: float, progress: Callable[[str], None]) -> list[Row]:
    """Fill the site's store, run the gateway and the generator, and say how long queries took."""
    workers = _workers(config)
    what = f"{devices} devices, {ORDERS_PER_S} orders/s" + (f", {workers} workers" if workers else "")
    progress(what)
    population.fill(config, range(devices * population.GROUP))
    with ServiceProcess(config) as service:
        arguments = [str(service.dicom_port), str(service.hl7_port), str(devices), str(seconds)]
        done = subprocess.run(
            [sys.executable, "-m", "tests.benchmarks.crowd", *arguments],
            capture_output=True,
            timeout=seconds + WARM_UP_S + SPARE_S,
            check=False,
            text=True,
            stdin=subprocess.DEVNULL,
        )
    if done.returncode:
        raise RuntimeError(f"the generator failed:\n{done.stderr[-4_000:]}")
    measured = Measured(**json.loads(done.stdout))
    return rows(what, measured)


def rows(what: str, measured: Measured) -> list[Row]:
    """What the table says of a crowd."""
    queries, orders = sorted(measured.queries), sorted(measured.orders)
    times = (
        f"median {percentile(queries, 0.5):.1f} ms, 95% {percentile(queries, 0.95):.1f} ms, max {queries[-1]:.1f} ms"
    )
    missed = (
        f"{measured.late:,} of {len(queries) + measured.failed:,} began late (by {measured.latest:.0f} ms at most), "
        f"{measured.failed:,} failed"
    )
    acknowledged = f"median {percentile(orders, 0.5):.1f} ms, max {orders[-1]:.1f} ms"
    return [
        Row(f"{what}: 99% of the queries within", percentile(queries, 0.99), "ms", at_most=P99_MS_MAX, times=times),
        Row(f"{what}: schedule missed", measured.late + measured.failed, "", times=missed),
        Row(f"{what}: 99% of the orders within", percentile(orders, 0.99), "ms", times=acknowledged),
    ]


def _workers(config: Path) -> int:
    from gateway.config import load_site

    return load_site(config).settings.workers


# --- the generator


async def generate(dicom_port: int, hl7_port: int, devices: int, seconds: float) -> Measured:
    """All that is due in this time, and what became of it."""
    crowd = _Crowd(dicom_port, time.perf_counter() + 0.5, WARM_UP_S + seconds)
    async with asyncio.TaskGroup() as group:
        for device in range(devices):
            group.create_task(crowd.device(group, device))
        for sender in range(SENDERS):
            group.create_task(crowd.sender(hl7_port, sender, devices))
    return crowd.measured


class _Crowd:
    def __init__(self, dicom_port: int, began: float, seconds: float) -> None:
        self.measured = Measured([], [])
        self._port, self._began, self._seconds = dicom_port, began, seconds

    async def device(self, group: asyncio.TaskGroup, number: int) -> None:
        """One device: an association for each query."""
        associate = encode_association(f"DEVICE{number}")
        request = group_request(number)
        for due in self._turns(PERIOD_S, JITTER_S):
            await _until(due)
            group.create_task(self._ask(associate, request, due))  # due, whether or not the last one was answered

    async def sender(self, port: int, number: int, devices: int) -> None:
        """One of the senders among whom the orders are shared: now a new one, now a change to a list asked for."""
        async with MLLPClient(HOST, port) as client, asyncio.TaskGroup() as group:
            one_at_a_time = asyncio.Lock()
            for turn, due in enumerate(self._turns(SENDERS / ORDERS_PER_S, 0.0)):
                await _until(due)
                new = turn * SENDERS + number
                if turn % 2:
                    order = population.order(random.randrange(devices * population.GROUP))
                    message = omi(order, control="XO").message(f"CROWD{new:09}", datetime.now(UTC))
                else:
                    order = population.order(devices * population.GROUP + new)
                    message = omi(order).message(f"CROWD{new:09}", datetime.now(UTC))
                group.create_task(self._send(client, one_at_a_time, message, due))

    def _turns(self, period_s: float, jitter_s: float) -> Iterator[float]:
        """When something is due."""
        due = self._began + random.uniform(0, period_s)
        while due < self._began + self._seconds:
            yield due + random.uniform(-jitter_s, jitter_s)
            due += period_s

    def _counts(self, due: float) -> bool:
        return due >= self._began + WARM_UP_S

    async def _ask(self, associate: bytes, request: bytes, due: float) -> None:
        late = time.perf_counter() - due
        try:
            async with asyncio.timeout(ANSWER_S_MAX):
                async with LoadAssociation(HOST, self._port, associate) as association:
                    found = await association.find(request)
        except (OSError, TimeoutError):
            found = 0
        if not self._counts(due):
            return
        if late > LATE_S:
            self.measured.late += 1
        self.measured.latest = max(self.measured.latest, late * 1000)
        if found == population.GROUP:
            self.measured.queries.append((time.perf_counter() - due) * 1000)
        else:
            self.measured.failed += 1

    async def _send(self, client: MLLPClient, one_at_a_time: asyncio.Lock, message: bytes, due: float) -> None:
        async with one_at_a_time:
            answer = await client.send(message)
        assert Acknowledgement.parse(answer).code == "AA", "an order was not accepted"
        if self._counts(due):
            self.measured.orders.append((time.perf_counter() - due) * 1000)


async def _until(due: float) -> None:
    await asyncio.sleep(max(0.0, due - time.perf_counter()))


if __name__ == "__main__":
    dicom_port, hl7_port, devices = map(int, sys.argv[1:4])
    measured = asdict(uvloop.run(generate(dicom_port, hl7_port, devices, float(sys.argv[4]))))
    os.set_blocking(sys.stdout.fileno(), True)  # it may not be, and more than the pipe holds would be lost
    print(json.dumps(measured))
