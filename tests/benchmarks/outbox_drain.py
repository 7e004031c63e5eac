"""How fast the outbox empties to a receiver that answers at once: HL7 over MLLP, and performed steps by DIMSE.

Beside it the same requests from a bare client on the same connection, nothing stored: what the receiver and the
protocol allow. As a program with a protocol and a port it is the receiver.
"""

import asyncio
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvloop
from pydicom.dataset import Dataset
from pynetdicom.dsutils import encode

from gateway.edges.channel import Channel, Destination
from gateway.edges.delivery import Deliverer
from gateway.edges.dimse_server import Association, DIMSEServer, NAnswer
from gateway.edges.hl7_channel import HL7Channel
from gateway.edges.mllp import MLLPClient
from gateway.edges.performed_channel import PerformedChannel
from gateway.edges.store import Store, StoreUnit
from gateway.testing import free_port
from gateway.testing.load import LoadAssociation, encode_association, encode_create, exchanged
from gateway.testing.modality import performed_step
from gateway.wire.dicom_json import EXPLICIT_VR_LITTLE_ENDIAN
from gateway.wire.mllp import Frame, Framer, wrap
from gateway.workflow.outbox import enqueue
from gateway.workflow.ports import DeliveryKind, NewDelivery
from tests.benchmarks.report import Row
from tests.listening_process import listening

HOST, NAME = "127.0.0.1", "receiver"
LANES = 500
AT = datetime(2026, 7, 6, 9, tzinfo=UTC)
_UID = "2.25.8000000000"


Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Drain:
    """Messages a second through the outbox, and from a bare client."""

    protocol: str
    per_s: float
    bare_per_s: float


def drain_rows(messages: int, progress: Progress) -> list[Row]:
    """So many messages of each protocol, waiting when delivery starts."""
    rows = []
    for protocol, name in (("mllp", "HL7 over MLLP"), ("dimse", "performed steps by DIMSE")):
        progress(f"outbox: {name}")
        drain = _drain(name, protocol, messages)
        rows.append(Row(f"outbox: {name}", drain.per_s, "/s", "bare client, nothing kept", drain.bare_per_s))
    return rows


def _drain(name: str, protocol: str, messages: int) -> Drain:
    with _receiver(protocol) as port, tempfile.TemporaryDirectory() as folder:
        with Store(f"sqlite:///{Path(folder) / 'gateway.db'}") as store:
            fill = _fill_hl7 if protocol == "mllp" else _fill_performed
            store.write(lambda unit: fill(unit, messages)).result()
            to = Destination(NAME, HOST, port)
            channel: Channel
            if protocol == "mllp":
                channel = HL7Channel(to)
            else:
                channel = PerformedChannel(to, "PACS", "GATEWAY", lambda _uid: None)
            ours = uvloop.run(_emptied(store, to, channel, messages))
        bare = _bare_hl7 if protocol == "mllp" else _bare_performed
        return Drain(name, messages / ours, messages / uvloop.run(bare(port, messages)))


async def _emptied(store: Store, to: Destination, channel: Channel, messages: int) -> float:
    """Seconds until nothing waits."""
    empty: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    left = messages

    def observe(event: str, /, **fields: Any) -> None:
        nonlocal left
        left -= fields.get("state") == "sent"
        if fields.get("state") != "sent" and not empty.done():
            empty.set_exception(RuntimeError(f"{event}: {fields}"))
        elif not left:
            empty.set_result(None)

    deliverer = Deliverer(to, store, observe, channel=channel)
    began = time.perf_counter()
    deliverer.start()
    await empty
    took = time.perf_counter() - began
    await deliverer.stop(1.0)
    return took


def _hl7(number: int) -> bytes:
    """A status message as they are sent to a placer."""
    return (
        f"MSH|^~\\&|GATEWAY|RAD|RIS|HOSPITAL|20260706090000||ORM^O01|D{number:09}|P|2.3.1\r"
        f"PID|||PAT{number % LANES:07}^^^HOSPITAL||Abendroth^Anna||19700101|F\r"
        f"ORC|SC|P{number:09}|F{number:09}||IP||||20260706090000\r"
        f"OBR|1|P{number:09}|F{number:09}|CTHEAD^CT head plain^99PROC|||||||||||||||||||||IP\r"
    ).encode()


def _fill_hl7(unit: StoreUnit, messages: int) -> None:
    for number in range(messages):
        enqueue(unit, NAME, number % LANES + 1, f"D{number:09}", _hl7(number), AT)


def _created() -> Dataset:
    """What a modality sends for an order; the worklist item it copies from is made up."""
    step, item = Dataset(), Dataset()
    step.Modality, step.ScheduledProcedureStepID = "CT", "S000000001"
    step.ScheduledProcedureStepDescription = "CT head plain"
    item.ScheduledProcedureStepSequence = [step]
    item.StudyInstanceUID, item.AccessionNumber, item.RequestedProcedureID = "2.25.7", "A000000001", "R000000001"
    item.PatientName, item.PatientID, item.PatientBirthDate, item.PatientSex = "Abendroth^Anna", "PAT", "19700101", "F"
    return performed_step(item, "CT1", AT)


def _fill_performed(unit: StoreUnit, messages: int) -> None:
    data = encode(_created(), False, True) or b""
    for number in range(messages):
        uid = f"2.25.8{number:09}"
        unit.add_delivery(
            NewDelivery(
                NAME, uid, uid, data, 1, DeliveryKind.PERFORMED, "N-CREATE", str(EXPLICIT_VR_LITTLE_ENDIAN)
            ),
            AT,
        )  # fmt: skip


async def _bare_hl7(port: int, messages: int) -> float:
    async with MLLPClient(HOST, port) as client:
        began = time.perf_counter()
        for number in range(messages):
            await client.send(_hl7(number))
        return time.perf_counter() - began


async def _bare_performed(port: int, messages: int) -> float:
    request = encode_create(_UID, _created())
    async with LoadAssociation(HOST, port, encode_association("GATEWAY")) as association:
        began = time.perf_counter()
        for number in range(messages):
            await association.report(exchanged(request, {_UID: f"2.25.8{number:09}"}))
        return time.perf_counter() - began


@contextmanager
def _receiver(protocol: str) -> Iterator[int]:
    port = free_port()
    with listening([sys.executable, "-m", "tests.benchmarks.outbox_drain", protocol, str(port)], port):
        yield port


class _Takes:
    """Every N-CREATE and N-SET is answered with success, and nothing is kept."""

    def identify(self, *_arguments: object) -> None:
        return None

    def admit(self, _association: Association) -> None:
        return None

    def find(self, *_arguments: object) -> Iterator[Any]:
        return iter(())

    def found(self, *_arguments: object) -> None:
        return None

    async def create(self, *_arguments: object) -> NAnswer:
        return NAnswer(0)

    async def set(self, *_arguments: object) -> NAnswer:
        return NAnswer(0)


class _Acknowledges(asyncio.Protocol):
    """AA to every frame."""

    def __init__(self) -> None:
        self._framer = Framer()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        for event in self._framer.feed(data):
            if isinstance(event, Frame):
                control_id = event.data.split(b"|", 10)[9]
                answer = b"MSH|^~\\&|RIS||GATEWAY||20260706||ACK|1|P|2.3.1\rMSA|AA|" + control_id + b"\r"
                self._transport.write(wrap(answer))


async def _listen(protocol: str, port: int) -> None:
    if protocol == "mllp":
        server = await asyncio.get_running_loop().create_server(_Acknowledges, HOST, port)
        await server.serve_forever()
    receiver = DIMSEServer(HOST, port, _Takes())
    await receiver.start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_listen(sys.argv[1], int(sys.argv[2])))
