"""Orthanc as a modality: started on loopback with an empty store, asked over its REST API to ask our worklist."""

import json
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from dcmtk import program

from gateway.testing import free_port

START_S_MAX = 30.0
ANSWER_S_MAX = 30.0
READY = "Orthanc has started"


class OrthancModality:
    """What one running Orthanc is told to do."""

    def __init__(self, http_port: int) -> None:
        self._url = f"http://127.0.0.1:{http_port}"

    def echo(self) -> None:
        """C-ECHO; raises urllib.error.HTTPError if that fails."""
        self._ask("POST", "/modalities/gateway/echo", b"{}")

    def worklist(self, **keys: Any) -> list[dict[str, Any]]:
        """The worklist for these keys, values as Orthanc shows them; raises urllib.error.HTTPError if that fails."""
        answer = self._ask("POST", "/modalities/gateway/find-worklist", json.dumps(keys).encode())
        found = json.loads(answer)
        assert isinstance(found, list)
        return found

    def speak(self, encoding: str) -> None:
        """Write queries in this encoding from now on, by Orthanc's name for it."""
        self._ask("PUT", "/tools/default-encoding", encoding.encode())

    def _ask(self, method: str, path: str, body: bytes) -> bytes:
        request = urllib.request.Request(self._url + path, body, method=method)  # noqa: S310  (always http)
        with urllib.request.urlopen(request, timeout=ANSWER_S_MAX) as answer:  # noqa: S310  (as above)
            return bytes(answer.read())


@contextmanager
def orthanc_modality(folder: Path, dicom_port: int) -> Iterator[OrthancModality]:
    """Orthanc, knowing the gateway on that port as `gateway`; the test is skipped where Orthanc is not installed."""
    http_port = free_port()
    settings = {
        "Name": "interop",
        "StorageDirectory": str(folder / "store"),
        "IndexDirectory": str(folder / "store"),
        "Plugins": [],
        "HttpPort": http_port,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomServerEnabled": False,
        "DicomAet": "ORTHANC",
        "DicomModalities": {"gateway": ["GATEWAY", "127.0.0.1", dicom_port]},
        "DefaultEncoding": "Utf8",
    }
    (folder / "store").mkdir(parents=True)
    config = folder / "orthanc.json"
    config.write_text(json.dumps(settings), encoding="utf-8")
    command = [program("Orthanc", "orthanc"), str(config)]
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr is not None
            _wait_until_ready(process, process.stderr)
            yield OrthancModality(http_port)
        finally:
            process.terminate()


def _wait_until_ready(process: "subprocess.Popen[str]", said: IO[str]) -> None:
    """Read its log until it says so, then let a thread read the rest, so that it never waits for a reader."""
    too_late = threading.Timer(START_S_MAX, process.kill)
    too_late.start()
    try:
        lines: list[str] = []
        for line in said:
            lines.append(line)
            if READY in line:
                break
        else:
            raise AssertionError("Orthanc did not start:\n" + "".join(lines[-20:]))
    finally:
        too_late.cancel()
    threading.Thread(target=said.read, daemon=True).start()
