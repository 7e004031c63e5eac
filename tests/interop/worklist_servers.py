"""Other worklist servers over a folder of `.wl` files, each as a process of its own: DCMTK's wlmscpfs and Orthanc.

Tests are skipped where they are not installed (Debian packages dcmtk and orthanc).
"""

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway.testing import free_port

START_S_MAX = 60.0
STOP_S_MAX = 20.0
ORTHANC_WORKLISTS = Path("/usr/share/orthanc/plugins/libModalityWorklists.so")


@contextmanager
def wlmscpfs(folder: Path, called: str) -> Iterator[int]:
    """wlmscpfs over the files in `folder/called`, each answer in its file's character set; its port."""
    program = _program("wlmscpfs", "dcmtk")
    (folder / called / "lockfile").touch()
    port = free_port()
    options = ["--data-files-path", str(folder), "-csk", "--disable-host-lookup"]
    with _running([program, *options, str(port)], port):
        yield port


@contextmanager
def orthanc(folder: Path, work: Path, calling: Sequence[str], encoding: str = "Utf8") -> Iterator[int]:
    """Orthanc with its worklist plug-in over the files in `folder`; its port. `work` is a folder for its own files."""
    program = _program("Orthanc", "orthanc")
    if not ORTHANC_WORKLISTS.exists():
        pytest.skip("Orthanc's worklist plug-in is not installed (Debian package orthanc)")
    port = free_port()
    work.mkdir(parents=True, exist_ok=True)
    settings = {
        "StorageDirectory": str(work / "storage"),
        "IndexDirectory": str(work / "storage"),
        "Plugins": [str(ORTHANC_WORKLISTS)],
        "Worklists": {"Enable": True, "Database": str(folder), "FilterIssuerAet": False},
        "HttpServerEnabled": False,
        "DicomServerEnabled": True,
        "DicomAet": "ORTHANC",
        "DicomPort": port,
        "DicomCheckCalledAet": False,
        "DicomAlwaysAllowFindWorklist": True,
        "DicomModalities": {title.lower(): [title, "127.0.0.1", free_port()] for title in calling},
        "DefaultEncoding": encoding,
        "ConcurrentJobs": 1,
    }
    configuration = work / "orthanc.json"
    configuration.write_text(json.dumps(settings, indent=2), encoding="utf-8")
    with _running([program, str(configuration)], port):
        yield port


def _program(name: str, package: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed (Debian package {package})")
    return found


@contextmanager
def _running(command: list[str], port: int) -> Iterator[None]:
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + START_S_MAX
        while not _listens(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"{Path(command[0]).name} does not listen")
            time.sleep(0.05)  # another process cannot be awaited, only asked
        yield
    finally:
        process.terminate()
        try:
            process.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
