"""Other worklist servers over a folder of `.wl` files, each as a process of its own: DCMTK's wlmscpfs and Orthanc.

Tests are skipped where they are not installed (Debian packages dcmtk and orthanc).
"""

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from gateway.testing import free_port
from tests.listening_process import listening

ORTHANC_WORKLISTS = Path("/usr/share/orthanc/plugins/libModalityWorklists.so")


@contextmanager
def wlmscpfs(folder: Path, called: str) -> Iterator[int]:
    """wlmscpfs over the files in `folder/called`, each answer in its file's character set; its port."""
    program = _program("wlmscpfs", "dcmtk")
    (folder / called / "lockfile").touch()
    port = free_port()
    options = ["--data-files-path", str(folder), "-csk", "--disable-host-lookup"]
    with listening([program, *options, str(port)], port):
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
    with listening([program, str(configuration)], port):
        yield port


def _program(name: str, package: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed (Debian package {package})")
    return found
