"""The peers to be measured against, each in a process of its own: worklist servers, and parsers of HL7.

Each gets the kindest setting we know: pynetdicom answers from an index over prepared datasets, hl7apy, python-hl7 and
simple-hl7 only parse and acknowledge and keep nothing, the server of FHIR makes nothing of what it parses and keeps,
wlmscpfs and Orthanc are as Debian ships them, over a folder of files.
"""

import asyncio
import json
import shutil
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import cast

import uvloop
from pydicom.dataset import Dataset

from gateway.testing import free_port
from gateway.wire.mllp import wrap
from tests.benchmarks.population import item, numbers, order
from tests.listening_process import listening

RELEASE_RP = b"\x06\x00\x00\x00\x00\x04\x00\x00\x00\x00"
NODE = Path(__file__).resolve().parents[1] / "interop" / "node"
ORTHANC_WORKLISTS = Path("/usr/share/orthanc/plugins/libModalityWorklists.so")


@contextmanager
def wlmscpfs(folder: Path) -> Iterator[int]:
    """DCMTK's worklist server over the subfolders of `folder`, one per called AE title; its port."""
    port = free_port()
    with listening(["wlmscpfs", "--data-files-path", str(folder), "--disable-host-lookup", str(port)], port):
        yield port


def program(name: str) -> str | None:
    """Where a peer's program is; None where it is not installed, Orthanc also where its worklist plug-in is not."""
    if name == "Orthanc" and not ORTHANC_WORKLISTS.exists():
        return None
    return shutil.which(name) or shutil.which(name, path="/usr/sbin")  # where Debian keeps servers


@contextmanager
def orthanc(files: Path, work: Path) -> Iterator[int]:
    """Orthanc's worklist plug-in over the files in a folder; its port. `work` is a new folder for its own files."""
    port = free_port()
    settings = {
        "StorageDirectory": str(work / "store"),
        "IndexDirectory": str(work / "store"),
        "Plugins": [str(ORTHANC_WORKLISTS)],
        "Worklists": {"Enable": True, "Database": str(files), "FilterIssuerAet": False},
        "HttpServerEnabled": False,
        "DicomServerEnabled": True,
        "DicomAet": "GATEWAY",
        "DicomPort": port,
        "DicomAlwaysAllowFindWorklist": True,
        "DefaultEncoding": "Utf8",
    }
    (work / "store").mkdir(parents=True)
    configuration = work / "orthanc.json"
    configuration.write_text(json.dumps(settings), encoding="utf-8")
    with listening([program("Orthanc") or "Orthanc", str(configuration)], port):
        yield port


@contextmanager
def canned(accept: bytes, answer: bytes, folder: Path) -> Iterator[int]:
    """A server that plays back an A-ASSOCIATE-AC and the answers to one C-FIND, whatever it is sent; its port."""
    port = free_port()
    for name, data in (("accept", accept), ("answer", answer)):
        (folder / name).write_bytes(data)
    with listening([sys.executable, "-m", "tests.benchmarks.peers", "canned", str(port), str(folder)], port):
        yield port


@contextmanager
def pynetdicom_worklist(items: int) -> Iterator[int]:
    """A stock pynetdicom SCP over the first `items` orders; its port."""
    port = free_port()
    with listening([sys.executable, "-m", "tests.benchmarks.peers", "worklist", str(port), str(items)], port):
        yield port


@contextmanager
def _python_receiver(parser: str) -> Iterator[int]:
    """A server that parses with one of `PARSERS` and acknowledges; its port."""
    port = free_port()
    with listening([sys.executable, "-m", "tests.benchmarks.peers", "hl7", str(port), parser], port):
        yield port


@contextmanager
def _simple_hl7_receiver() -> Iterator[int]:
    """The server of simple-hl7, which does the same in Node.js; its port."""
    port = free_port()
    with listening(["node", str(NODE / "receive.js"), str(port)], port):
        yield port


def simple_hl7() -> str:
    """The version of simple-hl7, "" where it or Node.js is not installed."""
    package = NODE / "node_modules" / "simple-hl7" / "package.json"
    if shutil.which("node") is None or not package.exists():
        return ""
    return str(json.loads(package.read_text(encoding="utf-8"))["version"])


HL7_RECEIVERS: Mapping[str, Callable[[], AbstractContextManager[int]]] = {
    "hl7apy": partial(_python_receiver, "hl7apy"),
    "python-hl7": partial(_python_receiver, "python-hl7"),
    **({"simple-hl7": _simple_hl7_receiver} if simple_hl7() else {}),
}
"""Servers that parse a message and acknowledge it, and what starts each of them."""


@contextmanager
def fhir_receiver(folder: Path) -> Iterator[int]:
    """A server of HTTP that takes Bundles apart with fhir.resources and commits each to SQLite; its port."""
    port = free_port()
    with listening([sys.executable, "-m", "tests.benchmarks.peers", "fhir", str(port), str(folder)], port):
        yield port


@contextmanager
def echo() -> Iterator[int]:
    """A server that sends back what it gets; its port."""
    port = free_port()
    with listening([sys.executable, "-m", "tests.benchmarks.peers", "echo", str(port)], port):
        yield port


def serve_worklist(port: int, items: int) -> None:
    """Until terminated."""
    from pynetdicom import AE, evt
    from pynetdicom.sop_class import ModalityWorklistInformationFind

    by_station_and_day: dict[tuple[str, str], list[Dataset]] = defaultdict(list)
    everything: list[Dataset] = []
    for number in numbers(items):
        dataset = item(order(number))
        step = dataset.ScheduledProcedureStepSequence[0]
        by_station_and_day[step.ScheduledStationAETitle, step.ScheduledProcedureStepStartDate].append(dataset)
        everything.append(dataset)

    def find(event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        step = event.identifier.ScheduledProcedureStepSequence[0]
        key = (step.ScheduledStationAETitle, step.ScheduledProcedureStepStartDate)
        for dataset in by_station_and_day.get(key, ()) if all(key) else everything:
            yield 0xFF00, dataset

    ae = AE("GATEWAY")
    ae.maximum_associations = 100
    ae.add_supported_context(ModalityWorklistInformationFind)
    ae.start_server(("127.0.0.1", port), evt_handlers=[(evt.EVT_C_FIND, find)])


def _by_hl7apy() -> Callable[[str], str]:
    from hl7apy.parser import parse_message

    return lambda text: str(parse_message(text, find_groups=True).msh.msh_10.to_er7())


def _by_python_hl7() -> Callable[[str], str]:
    import hl7

    return lambda text: str(hl7.parse(text).segment("MSH")[10])


PARSERS: Mapping[str, Callable[[], Callable[[str], str]]] = {"hl7apy": _by_hl7apy, "python-hl7": _by_python_hl7}
"""What reads a message's control ID, after taking apart all of it."""


async def serve_hl7(port: int, parser: str) -> None:
    """Until terminated. Many messages a connection, which the libraries' own servers do not do."""
    parse = PARSERS[parser]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                frame = await reader.readuntil(b"\x1c\r")
                control_id = parse(frame[1:-2].decode())
                answer = f"MSH|^~\\&|PEER||||20260705080000||ACK|{control_id}|P|2.5.1\rMSA|AA|{control_id}\r"
                writer.write(wrap(answer.encode()))
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", port)
    await server.serve_forever()


def serve_fhir(port: int, folder: Path) -> None:
    """Until terminated. As much HTTP as the gateway has, and of FHIR what there must be at least."""
    import sqlite3

    import uvicorn
    from fastapi import FastAPI, Request, Response
    from fhir.resources.R4B.bundle import Bundle

    app = FastAPI()
    store = sqlite3.connect(folder / "bare.db", isolation_level=None, check_same_thread=False)
    for statement in (
        "PRAGMA journal_mode=WAL", "PRAGMA synchronous=FULL", "CREATE TABLE bundle (id INTEGER PRIMARY KEY, raw BLOB)"
    ):  # fmt: skip
        store.execute(statement)

    @app.post("/{path:path}")
    async def keep(path: str, request: Request) -> Response:
        raw = await request.body()
        bundle = Bundle.model_validate_json(raw)
        store.execute("INSERT INTO bundle (raw) VALUES (?)", (raw,))  # commits
        answer = Bundle.model_construct(type="transaction-response", entry=[
            {"response": {"status": "201 Created"}} for _ in bundle.entry
        ])  # fmt: skip
        return Response(answer.model_dump_json(), media_type="application/fhir+json")

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="error", loop="uvloop", http="h11", lifespan="off")


class _Playback(asyncio.Protocol):
    """The least that can be done for an association: look at the type of PDU, and write bytes."""

    accept, answer = b"", b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name

    def data_received(self, data: bytes) -> None:
        # Each request of the load client fits into one segment, so it comes whole.
        self._transport.write({1: self.accept, 4: self.answer, 5: RELEASE_RP}[data[0]])


async def serve_canned(port: int, folder: Path) -> None:
    """Until terminated."""
    _Playback.accept, _Playback.answer = ((folder / name).read_bytes() for name in ("accept", "answer"))
    server = await asyncio.get_running_loop().create_server(_Playback, "127.0.0.1", port, backlog=512)
    await server.serve_forever()


async def serve_echo(port: int) -> None:
    """Until terminated."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1):
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["worklist", port, items]:
            serve_worklist(int(port), int(items))
        case ["hl7", port, parser]:
            asyncio.run(serve_hl7(int(port), parser))
        case ["canned", port, folder]:
            uvloop.run(serve_canned(int(port), Path(folder)))  # the event loop that the gateway runs on
        case ["fhir", port, folder]:
            serve_fhir(int(port), Path(folder))
        case ["echo", port]:
            asyncio.run(serve_echo(int(port)))
