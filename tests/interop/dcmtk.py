"""DCMTK's programs, run as a person would at a shell; tests are skipped where they are not installed."""

import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

PROGRAM_S_MAX = 60

Findscu = Callable[..., list[Dataset]]


def program(name: str) -> str:
    """The path of a program; the test is skipped where it is not installed."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed (Debian package dcmtk)")
    return found


def run_program(name: str, *arguments: str | bytes) -> "subprocess.CompletedProcess[bytes]":
    """Run a program to its end."""
    return subprocess.run(
        [program(name), *arguments], capture_output=True, timeout=PROGRAM_S_MAX, check=False, stdin=subprocess.DEVNULL
    )


def find(
    answers: Path, port: int, keys: Mapping[str, str | bytes], *options: str, called: str = "GATEWAY"
) -> list[Dataset]:
    """findscu asks with these keys; the answers, by way of files in the new folder `answers`.

    Paths are DCMTK's: `PatientName`, `ScheduledProcedureStepSequence[0].Modality`. Values are text in ASCII, or bytes.
    """
    answers.mkdir()
    arguments: list[str | bytes] = ["-W", "-aet", "FINDSCU", "-aec", called, "-X", "-od", str(answers), *options]
    for path, value in keys.items():
        said = value if isinstance(value, bytes) else value.encode("ascii")
        arguments += ["-k", path.encode() + b"=" + said]
    done = run_program("findscu", *arguments, "127.0.0.1", str(port))
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return [dcmread(file, force=True) for file in sorted(answers.glob("rsp*.dcm"))]
