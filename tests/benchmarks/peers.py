"""The peers to be measured against, each in a process of its own: wlmscpfs, stock pynetdicom, hl7apy.

Each gets the kindest setting we know: pynetdicom answers from an index over prepared datasets, hl7apy only parses and
acknowledges and keeps nothing, wlmscpfs is as Debian ships it.
"""

import asyncio
import socket
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydicom.dataset import Dataset

from gateway.testing import free_port
from gateway.wire.mllp import wrap
from tests.benchmarks.population import item, order

START_S = 60.0  # preparing 10,000 datasets takes a while


@contextmanager
def wlmscpfs(folder: Path) -> Iterator[int]:
    """DCMTK's worklist server over the subfolders of `folder`, one per called AE title; its port."""
    port = free_port()
    with _running(["wlmscpfs", "--data-files-path", str(folder), "--disable-host-lookup", str(port)], port):
        yield port


@contextmanager
def pynetdicom_worklist(items: int) -> Iterator[int]:
    """A stock pynetdicom SCP over the first `items` orders; its port."""
    port = free_port()
    with _running([sys.executable, "-m", "tests.benchmarks.peers", "worklist", str(port), str(items)], port):
        yield port


@contextmanager
def hl7apy_receiver() -> Iterator[int]:
    """A server that parses with hl7apy and acknowledges; its port."""
    port = free_port()
    with _running([sys.executable, "-m", "tests.benchmarks.peers", "hl7", str(port)], port):
        yield port


@contextmanager
def echo() -> Iterator[int]:
    """A server that sends back what it gets; its port."""
    port = free_port()
    with _running([sys.executable, "-m", "tests.benchmarks.peers", "echo", str(port)], port):
        yield port


@contextmanager
def _running(command: list[str], port: int) -> Iterator[None]:
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + START_S
        while not _listens(port):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{Path(command[0]).name} did not start")
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait(10)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def serve_worklist(port: int, items: int) -> None:
    """Until terminated."""
    from pynetdicom import AE, evt
    from pynetdicom.sop_class import ModalityWorklistInformationFind

    by_station_and_day: dict[tuple[str, str], list[Dataset]] = defaultdict(list)
    everything: list[Dataset] = []
    for number in range(items):
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


async def serve_hl7(port: int) -> None:
    """Until terminated. Many messages a connection, which hl7apy's own server does not do."""
    from hl7apy.parser import parse_message

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                frame = await reader.readuntil(b"\x1c\r")
                message = parse_message(frame[1:-2].decode(), find_groups=True)
                control_id = message.msh.msh_10.to_er7()
                answer = f"MSH|^~\\&|PEER||||20260705080000||ACK|{control_id}|P|2.5.1\rMSA|AA|{control_id}\r"
                writer.write(wrap(answer.encode()))
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", port)
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
        case ["hl7", port]:
            asyncio.run(serve_hl7(int(port)))
        case ["echo", port]:
            asyncio.run(serve_echo(int(port)))
