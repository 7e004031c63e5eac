"""How a rate, a memory size and a disk are measured, and the facts about the machine that belong beside them."""

import asyncio
import os
import platform
import sqlite3
import statistics
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

WARM_UP_S = 0.5


@dataclass(frozen=True, slots=True)
class Rate:
    """How often something was done, and how long one took."""

    per_s: float
    median_ms: float
    p99_ms: float


Operation = Callable[[], Awaitable[None]]


async def rate(operations: Sequence[Operation], seconds: float) -> Rate:
    """Each operation over and over for this long, all of them at the same time; what they raise ends the run."""
    await _repeat(operations, min(WARM_UP_S, seconds))
    began = time.perf_counter()
    durations = await _repeat(operations, seconds)
    elapsed = time.perf_counter() - began
    ordered = sorted(durations)
    return Rate(
        len(ordered) / elapsed,
        statistics.median(ordered) * 1000,
        ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))] * 1000,
    )


async def _repeat(operations: Sequence[Operation], seconds: float) -> list[float]:
    deadline = time.perf_counter() + seconds
    durations: list[float] = []

    async def one(operation: Operation) -> None:
        began = time.perf_counter()
        while began < deadline:
            await operation()
            ended = time.perf_counter()
            durations.append(ended - began)
            began = ended

    async with asyncio.TaskGroup() as group:
        for operation in operations:
            group.create_task(one(operation))
    return durations


def resident_megabytes(pid: int) -> float:
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


def machine() -> list[tuple[str, str]]:
    """What the figures were measured on. No host name and no path."""
    return [
        ("CPU", f"{_cpu_model()}, {os.cpu_count()} cores"),
        ("System", f"{platform.system()} {platform.machine()}"),
        ("Python", f"{platform.python_implementation()} {platform.python_version()}, SQLite {sqlite3.sqlite_version}"),
        (
            "Libraries",
            ", ".join(f"{name} {version(name)}" for name in ("pynetdicom", "pydicom", "hl7apy", "sqlalchemy")),
        ),
        ("DCMTK", _dcmtk_version()),
    ]


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


def _dcmtk_version() -> str:
    try:
        said = subprocess.run(["wlmscpfs", "--version"], capture_output=True, text=True, check=False).stdout
    except FileNotFoundError:
        return "not installed"
    return said.split("wlmscpfs ", 1)[-1].split(" ", 1)[0]
