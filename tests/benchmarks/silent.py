"""Peers that hold a TLS handshake open and say nothing, while modalities ask over TLS: how long those wait.

Before and during, in one run, by the same schedule: each query has a time at which it is due, and its latency counts
from that. The silent ones come from twenty addresses, and whoever is cut comes again a second later, for as long as it
lasts: so all of the configured room for handshakes is full, and more knock than it holds. They are a process of their
own, so that what they cost themselves is in nobody's latency but by the processors they share.
"""

import asyncio
import contextlib
import random
import ssl
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import uvloop
from ruamel.yaml import YAML

from gateway.edges.tls import client_context
from gateway.testing import ServiceProcess, free_port
from gateway.testing.load import LoadAssociation, encode_association
from tests.benchmarks import population
from tests.benchmarks.department import department
from tests.benchmarks.measure import percentile
from tests.benchmarks.questions import HOST, group_request
from tests.benchmarks.report import Row
from tests.edges.tls_certificates import TestAuthority

MODALITIES = 50
PERIOD_S = 2.0
WARM_UP_S = 4.0
SILENT = 1_000
SILENT_ADDRESSES = 20
AGAIN_S = 1.0
ANSWER_S_MAX = 10.0


@dataclass(slots=True)
class _Asked:
    """Milliseconds of what was answered, and how much was not."""

    times: list[float] = field(default_factory=list)
    failed: int = 0

    @property
    def p99(self) -> float:
        return percentile(sorted(self.times), 0.99)

    def __str__(self) -> str:
        times = sorted(self.times)
        said = f"median {percentile(times, 0.5):.1f} ms, 95% {percentile(times, 0.95):.1f} ms, max {times[-1]:.1f} ms"
        return f"{said}, {self.failed} of {len(times) + self.failed} failed"


def silent_rows(folder: Path, seconds: float, progress: Callable[[str], None], peers: int = SILENT) -> list[Row]:
    """The time of queries over TLS, alone and beside so many silent peers."""
    progress(f"{MODALITIES} modalities over TLS, then {peers:,} silent peers beside them")
    config = department(folder / "silent")
    context, port = _with_tls(config)
    population.fill(config, range(MODALITIES * population.GROUP))
    with ServiceProcess(config, ready_s=120):  # a busy machine takes its time
        alone, beside, knocks = uvloop.run(_both(context, port, seconds, peers))
    what = f"{MODALITIES} modalities over TLS"
    shown = f"{what}, beside {peers:,} silent peers"
    return [
        Row(f"{what}: 99% of the queries within", alone.p99, "ms", times=str(alone)),
        Row(f"{shown}: 99% of the queries within", beside.p99, "ms", "without them", alone.p99, times=str(beside)),
        Row(f"{shown}: times that one of them knocked", knocks, "", times=f"{alone.failed + beside.failed} failed"),
    ]


def _with_tls(config: Path) -> tuple[ssl.SSLContext, int]:
    """Give the site a TLS port: what a modality connects with, and where."""
    yaml, port = YAML(), free_port()
    authority = TestAuthority(config.parent / "pki")
    own, device = authority.issue("gateway"), authority.issue("modality")
    settings = yaml.load(config.read_text(encoding="utf-8"))
    settings["tls"] = {"certificate": own.certificate, "key": own.key, "ca": authority.file}
    settings["dicom"]["tls"] = {"port": port}
    with config.open("w", encoding="utf-8") as file:
        yaml.dump(settings, file)
    return client_context(authority.file, device.certificate, device.key), port


async def _both(context: ssl.SSLContext, port: int, seconds: float, peers: int) -> tuple[_Asked, _Asked, int]:
    await _ask(context, port, WARM_UP_S)
    alone = await _ask(context, port, seconds)
    silent = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.benchmarks.silent", str(port), str(peers),
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert silent.stdin is not None
    assert silent.stdout is not None
    async with asyncio.timeout(60):
        await silent.stdout.readline()  # each was there once
    beside = await _ask(context, port, seconds)
    silent.stdin.close()
    knocks = int(await silent.stdout.readline())
    await silent.wait()
    return alone, beside, knocks


async def _ask(context: ssl.SSLContext, port: int, seconds: float) -> _Asked:
    """All that is due in this time, and what became of it."""
    asked, began = _Asked(), time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for device in range(MODALITIES):
            group.create_task(_device(group, asked, context, port, device, began, seconds))
    return asked


async def _device(
    group: asyncio.TaskGroup, asked: _Asked, context: ssl.SSLContext, port: int, device: int, began: float,
    seconds: float,
) -> None:  # fmt: skip
    associate, request = encode_association(f"DEVICE{device}"), group_request(device)
    due = began + random.uniform(0, PERIOD_S)
    while due < began + seconds:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        group.create_task(_query(asked, context, port, associate, request, due))
        due += PERIOD_S


async def _query(
    asked: _Asked, context: ssl.SSLContext, port: int, associate: bytes, request: bytes, due: float
) -> None:  # fmt: skip
    found = 0
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(ANSWER_S_MAX):
            async with LoadAssociation(HOST, port, associate, context, "localhost") as association:
                found = await association.find(request)
    if found == population.GROUP:
        asked.times.append((time.perf_counter() - due) * 1000)
    else:
        asked.failed += 1


class _Silent:
    """The peers that say nothing."""

    def __init__(self, port: int) -> None:
        self.knocks = 0
        self._port = port
        self._knocked: set[int] = set()
        self._another = asyncio.Condition()

    async def one(self, number: int) -> None:
        """Connect and wait to be cut, over and over."""
        address = f"127.0.1.{number % SILENT_ADDRESSES + 1}"
        while True:
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection(HOST, self._port, local_addr=(address, 0))
                self.knocks += 1
                await self._note(number)
                try:
                    await reader.read()
                finally:
                    writer.close()
            await asyncio.sleep(AGAIN_S)

    async def all_knocked(self, peers: int) -> None:
        """Wait until each was there once."""
        async with self._another:
            await self._another.wait_for(lambda: len(self._knocked) == peers)

    async def _note(self, number: int) -> None:
        async with self._another:
            self._knocked.add(number)
            self._another.notify_all()


async def _be_silent(port: int, peers: int) -> None:
    """Until standard input ends."""
    silent = _Silent(port)
    tasks = [asyncio.create_task(silent.one(number)) for number in range(peers)]
    await silent.all_knocked(peers)
    print("all knocked", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    print(silent.knocks, flush=True)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


if __name__ == "__main__":
    uvloop.run(_be_silent(int(sys.argv[1]), int(sys.argv[2])))
