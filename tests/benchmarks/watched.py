"""A command run to its end, and the memory that it and all processes it started had in RAM at most."""

import subprocess
import tempfile
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.benchmarks.measure import resident_megabytes

LOOK_EVERY_S = 0.05
OUTPUT_SHOWN = 4_000


@dataclass(frozen=True, slots=True)
class Watched:
    """What a command took. Of pages that several processes share each counts its own."""

    seconds: float
    peak_mb: float
    output: str


def watched(command: Sequence[str], success: Collection[int] = (0,)) -> Watched:
    """Run it. Raises RuntimeError where it ends otherwise than by one of these codes."""
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        began = time.perf_counter()
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=errors)
        peak = 0.0
        while process.poll() is None:
            peak = max(peak, family_megabytes(process.pid))
            time.sleep(LOOK_EVERY_S)  # another process cannot be awaited, only asked
        seconds = time.perf_counter() - began
        output.seek(0)
        errors.seek(0)
        if process.returncode not in success:
            raise RuntimeError(f"{' '.join(command[:6])} failed:\n{errors.read()[-OUTPUT_SHOWN:]}")
        return Watched(seconds, peak, output.read())


def family_megabytes(pid: int) -> float:
    """The memory that a process and all that it started have in RAM now."""
    return sum(map(_megabytes, _family(pid)))


def _family(pid: int) -> list[int]:
    """The process and all that it started, as far as they are still there."""
    found = [pid]
    for member in found:  # grows meanwhile
        for task in Path(f"/proc/{member}/task").glob("*/children"):
            try:
                found += map(int, task.read_text().split())
            except OSError:  # it has just ended
                continue
    return found


def _megabytes(pid: int) -> float:
    try:
        return resident_megabytes(pid)
    except OSError:
        return 0.0
