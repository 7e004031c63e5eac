"""How a rate, a memory size and a disk are measured, and the facts about the machine that belong beside them."""

import asyncio
import os
import platform
import re
import shutil
import sqlite3
import statistics
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

WARM_UP_S = 0.5
SLICES = 4


@dataclass(frozen=True, slots=True)
class Rate:
    """How often something was done, and how long one took."""

    per_s: float
    median_ms: float
    p99_ms: float

    @property
    def times(self) -> str:
        """How long one took, for people."""
        return f"median {self.median_ms:.1f} ms, 99% {self.p99_ms:.1f} ms"


Operation = Callable[[], Awaitable[None]]


async def rates(contestants: Sequence[Sequence[Operation]], seconds: float) -> list[Rate]:
    """For each contestant, its operations over and over for so long, all of them at the same time.

    Contestants take turns in slices, because machines change their speed: a shared one by a factor of three within
    minutes. What an operation raises ends the run.
    """
    runs = [_Run(operations) for operations in contestants]
    for run in runs:
        await run.until(time.perf_counter() + min(WARM_UP_S, seconds))
        run.forget()
    for _ in range(SLICES):
        for run in runs:
            await run.until(time.perf_counter() + seconds / SLICES)
    return [run.rate() for run in runs]


async def rate_of(operations: Sequence[Operation], times: int) -> Rate:
    """So many operations in all, shared between these, without a warm-up."""
    left = iter(range(times))
    run = _Run(operations)
    await run.while_(lambda: next(left, None) is not None)
    return run.rate()


class _Run:
    """One contestant's time."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        self._operations = operations
        self.forget()

    def forget(self) -> None:
        self._durations: list[float] = []
        self._elapsed = 0.0

    async def until(self, deadline: float) -> None:
        await self.while_(lambda: time.perf_counter() < deadline)

    async def while_(self, go_on: Callable[[], bool]) -> None:
        began = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for operation in self._operations:
                group.create_task(self._repeat(operation, go_on))
        self._elapsed += time.perf_counter() - began

    async def _repeat(self, operation: Operation, go_on: Callable[[], bool]) -> None:
        while go_on():
            began = time.perf_counter()
            await operation()
            self._durations.append(time.perf_counter() - began)

    def rate(self) -> Rate:
        durations = sorted(self._durations)
        return Rate(
            len(durations) / self._elapsed, statistics.median(durations) * 1000, percentile(durations, 0.99) * 1000
        )


@dataclass(frozen=True, slots=True)
class CPUSeconds:
    """The time a process has had a core, in its own code and in the kernel for it."""

    user: float
    system: float


def cpu_seconds(pid: int) -> CPUSeconds:
    """As Linux counts it, in hundredths of a second."""
    # The second field is the program's name in parentheses, which may hold spaces (proc(5)).
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    tick = os.sysconf("SC_CLK_TCK")
    return CPUSeconds(int(fields[11]) / tick, int(fields[12]) / tick)


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value that this share of them does not exceed; they are sorted and not empty."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def resident_megabytes(pid: int | Literal["self"]) -> float:
    """The memory a process has in RAM, as Linux counts it."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def fsyncs_per_second(folder: Path, seconds: float = 0.5) -> float:
    """How often a second a small write can be made durable on this disk."""
    count = 0
    with tempfile.TemporaryFile(dir=folder) as file:
        deadline = time.perf_counter() + seconds
        while time.perf_counter() < deadline:
            file.write(b"x" * 4096)
            file.flush()
            os.fsync(file.fileno())
            count += 1
    return count / seconds


async def round_trips_per_second(port: int, seconds: float = 0.5) -> float:
    """How often a second one byte goes to the process that listens there and comes back: the ceiling of all rates."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    count = 0
    deadline = time.perf_counter() + seconds
    while time.perf_counter() < deadline:
        writer.write(b"x")
        await reader.readexactly(1)
        count += 1
    writer.close()
    await writer.wait_closed()
    return count / seconds


def machine() -> list[tuple[str, str]]:
    """What the figures were measured on. No host name and no path."""
    return [
        ("CPU", f"{_cpu_model()}, {os.cpu_count()} cores"),
        ("System", f"{platform.system()} {platform.machine()}"),
        ("Python", f"{platform.python_implementation()} {platform.python_version()}, SQLite {sqlite3.sqlite_version}"),
        (
            "Libraries",
            ", ".join(f"{name} {version(name)}" for name in ("pynetdicom", "pydicom", "hl7apy", "hl7", "sqlalchemy")),
        ),
        ("DCMTK", _version_of("wlmscpfs", r"wlmscpfs v(\S+)")),
        ("Orthanc", _version_of("Orthanc", r"Orthanc (\S+)")),
    ]


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def _version_of(program: str, pattern: str) -> str:
    found = shutil.which(program) or shutil.which(program, path="/usr/sbin")
    if found is None:
        return "not installed"
    said = subprocess.run([found, "--version"], capture_output=True, text=True, check=False).stdout
    version = re.search(pattern, said)
    return version[1] if version else "unknown"
