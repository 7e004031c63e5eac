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


def program(name: str, package: str = "dcmtk") -> str:
    """The path of a program; the test is skipped where it is not installed."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin")  # where Debian keeps servers
    if found is None:
        pytest.skip(f"{name} is not installed (Debian package {package})")
    return found


def run_program(name: str, *arguments: str | bytes) -> "subprocess.CompletedProcess[bytes]":
    """Run a program to its end."""
    return subprocess.run(
        [program(name), *arguments], capture_output=True, timeout=PROGRAM_S_MAX, check=False, stdin=subprocess.DEVNULL
    )


def find(
    answers: Path,
    port: int,
    keys: Mapping[str, str | bytes],
    *options: str,
    called: str = "GATEWAY",
    query_file: Path | None = None,
) -> list[Dataset]:
    """findscu asks with these keys, in place of those of `query_file`; the answers, by way of the new folder `answers`.

    Paths are DCMTK's: `PatientName`, `ScheduledProcedureStepSequence[0].Modality`. Values are text in ASCII, or bytes.
    """
    answers.mkdir()
    arguments: list[str | bytes] = ["-W", "-aet", "FINDSCU", "-aec", called, "-X", "-od", str(answers), *options]
    for path, value in keys.items():
        said = value if isinstance(value, bytes) else value.encode("ascii")
        arguments += ["-k", path.encode() + b"=" + said]
    files = [str(query_file)] if query_file else []
    done = run_program("findscu", *arguments, "127.0.0.1", str(port), *files)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return [dcmread(file, force=True) for file in sorted(answers.glob("rsp*.dcm"))]
