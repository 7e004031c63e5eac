"""The DICOM listener in a thread of its own, and its users: pynetdicom, and raw bytes as the rude peer."""

import asyncio
import contextlib
import io
import socket
import struct
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence

from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom import Association as PynetdicomAssociation
from pynetdicom.dsutils import decode, encode
from pynetdicom.pdu import A_ASSOCIATE_RQ, A_RELEASE_RP, A_RELEASE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    MaximumLengthNotification,
)
from pynetdicom.presentation import build_context

from gateway.domain.access import User
from gateway.edges.dimse_server import Association, DIMSEServer, FindAnswer, Limits, NAnswer, Rejection
from gateway.edges.dimse_service import Admission, EndedFind
from gateway.wire.upper_layer import CALLING_AE_TITLE_NOT_RECOGNISED, MODALITY_WORKLIST, MPPS, VERIFICATION, data_pdus
from gateway.wire.user_identity import UserIdentity

WAIT_S = 10.0
"""How long a test waits for what has to happen; far more than it takes."""

MARK = "MARKED^NAME"
"""A name that no event and no Error Comment may show."""


def item(number: int) -> Dataset:
    dataset = Dataset()
    dataset.PatientName = MARK
    dataset.PatientID = f"PID{number}"
    step = Dataset()
    step.ScheduledStationAETitle = "CT1"
    step.Modality = "CT"
    step.ScheduledProcedureStepID = f"SPS{number}"
    dataset.ScheduledProcedureStepSequence = [step]
    return dataset


def identifier(number: int, transfer_syntax: str) -> bytes:
    encoded = encode(item(number), transfer_syntax == ImplicitVRLittleEndian, True)
    assert encoded is not None
    return encoded


class CannedService:
    """Answers as told; what it was asked is kept."""

    def __init__(self, matches: int = 3) -> None:
        self.matches = matches
        self.refused = CALLING_AE_TITLE_NOT_RECOGNISED
        self.admission: Admission | None = None
        self.proof: Callable[[UserIdentity], Awaitable[User | Rejection]] | None = None
        self.known = {"CT1", "CT2", "ECHOSCU", "FINDSCU"}
        self.callers: list[Association] = []
        self.queries: list[Dataset] = []
        self.over: list[tuple[str, str, bytes, int, int]] = []
        self.changes: list[tuple[str, str | None, bytes]] = []
        self.asked: list[tuple[str, tuple[int, ...]]] = []
        self.answer = NAnswer(0)
        self.error: Exception | None = None
        self.closed = threading.Event()
        self.entered = threading.Event()
        self.may_finish: asyncio.Event | None = None

    def identify(self, association: Association, identity: UserIdentity) -> Awaitable[User | Rejection] | None:
        return None if self.proof is None else self.proof(identity)

    def admit(self, association: Association) -> Rejection | Admission | None:
        self.callers.append(association)
        if self.error is not None and association.calling_ae_title == "CT2":
            raise self.error
        return self.admission if association.calling_ae_title in self.known else self.refused

    def find(self, association: Association, transfer_syntax: str, keys: bytes) -> Iterator[FindAnswer]:
        self.queries.append(decode(io.BytesIO(keys), transfer_syntax == ImplicitVRLittleEndian, True))
        encoded = [identifier(number, transfer_syntax) for number in range(min(self.matches, 10))]
        try:
            for number in range(self.matches):
                if self.error is not None and number == 1:
                    raise self.error
                yield FindAnswer(0xFF00, encoded[number % 10])
            yield FindAnswer(0)
        finally:
            self.closed.set()

    def found(self, association: Association, ended: EndedFind) -> None:
        said = (ended.transfer_syntax, ended.identifier, ended.status, ended.matches)
        self.over.append((association.calling_ae_title, *said))
        if self.error is not None:
            raise self.error

    async def create(
        self, association: Association, transfer_syntax: str, sop_instance_uid: str | None, dataset: bytes
    ) -> NAnswer:
        return await self._change("create", sop_instance_uid, dataset)

    async def set(
        self, association: Association, transfer_syntax: str, sop_instance_uid: str, dataset: bytes
    ) -> NAnswer:
        return await self._change("set", sop_instance_uid, dataset)

    async def available(
        self, association: Association, transfer_syntax: str, sop_instance_uid: str, dataset: bytes
    ) -> NAnswer:
        return await self._change("available", sop_instance_uid, dataset)

    async def get(
        self, association: Association, transfer_syntax: str, sop_instance_uid: str, attribute_tags: Sequence[int]
    ) -> NAnswer:
        self.asked.append((sop_instance_uid, tuple(attribute_tags)))
        return await self._change("get", sop_instance_uid, b"")

    async def _change(self, operation: str, sop_instance_uid: str | None, dataset: bytes) -> NAnswer:
        self.entered.set()
        if self.may_finish is not None:
            await self.may_finish.wait()
        if self.error is not None:
            raise self.error
        self.changes.append((operation, sop_instance_uid, dataset))
        return self.answer


class Running:
    """A server in a thread of its own, so that blocking users can talk to it."""

    def __init__(
        self, service: CannedService, limits: Limits, new_loop: Callable[[], asyncio.AbstractEventLoop]
    ) -> None:
        self.service = service
        self.events: list[tuple[str, dict[str, object]]] = []
        self._changed = threading.Condition()
        self.loop = new_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()
        self._stopped = False
        self.server = DIMSEServer("127.0.0.1", 0, service, limits, self._observe)
        self.wait(self.server.start())

    @property
    def port(self) -> int:
        return self.server.port

    def wait(self, coroutine: object) -> object:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(WAIT_S)

    def until(self, condition: Callable[[], bool]) -> None:
        """Let the server's loop turn until this holds."""

        async def turn() -> None:
            while not condition():  # noqa: ASYNC110  (what is waited for tells nobody)
                await asyncio.sleep(0)

        self.wait(asyncio.wait_for(turn(), WAIT_S))

    def stop(self, grace_s: float = 0.0) -> None:
        self._stopped = True
        self.wait(self.server.stop(grace_s))

    def end(self) -> None:
        if not self._stopped:
            self.stop()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(WAIT_S)
        self.loop.close()

    def _observe(self, event: str, /, **fields: object) -> None:
        with self._changed:
            self.events.append((event, fields))
            self._changed.notify_all()

    def seen(self, event: str, **fields: object) -> dict[str, object]:
        """Wait until an event with these fields has been observed."""

        def found() -> dict[str, object] | None:
            for name, values in self.events:
                if name == event and fields.items() <= values.items():
                    return values
            return None

        with self._changed:
            assert self._changed.wait_for(found, WAIT_S), f"no {event} {fields} in {self.events}"
            values = found()
        assert values is not None
        return values


Serve = Callable[..., Running]


@contextlib.contextmanager
def associated(
    running: Running,
    *contexts: str,
    calling: str = "CT1",
    syntaxes: object = ImplicitVRLittleEndian,
    max_pdu: int = 16_382,
) -> Iterator[PynetdicomAssociation]:
    """An association of pynetdicom's, released at the end if it still stands."""
    ae = AE(ae_title=calling)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = WAIT_S
    for context in contexts or (VERIFICATION, MODALITY_WORKLIST, MPPS):
        ae.add_requested_context(context, syntaxes)
    association = ae.associate("127.0.0.1", running.port, ae_title="GATEWAY", max_pdu=max_pdu)
    assert association.is_established
    try:
        yield association
    finally:
        if association.is_established:
            association.release()


def keys() -> Dataset:
    dataset = Dataset()
    dataset.PatientName = "*"
    dataset.PatientID = ""
    return dataset


class RudePeer:
    """A blocking socket that sends whatever it is told."""

    def __init__(self, port: int, receive_buffer: int | None = None, address: str = "127.0.0.1") -> None:
        """`address` is where it comes from; all of 127.0.0.0/8 is this machine."""
        self.socket = socket.socket()
        self.socket.bind((address, 0))
        if receive_buffer is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.settimeout(WAIT_S)
        self.socket.connect(("127.0.0.1", port))
        self._received = b""

    def __enter__(self) -> "RudePeer":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def pdu(self) -> bytes:
        """The next PDU; b"" when the server has closed the connection."""
        while len(self._received) < 6 or len(self._received) < 6 + self._length():
            data = self.socket.recv(65_536)
            if not data:
                return b""
            self._received += data
        end = 6 + self._length()
        pdu, self._received = self._received[:end], self._received[end:]
        return pdu

    def _length(self) -> int:
        return int(struct.unpack_from(">I", self._received, 2)[0])

    def associate(self, *contexts: str, max_length: int = 16_382) -> bytes:
        self.send(request_pdu(*contexts, max_length=max_length))
        return self.pdu()

    def is_ended(self) -> bool:
        """Whether the server has aborted or closed by now, or does so within a moment."""
        self.socket.settimeout(0.02)
        try:
            return self.socket.recv(65_536)[:1] in (b"", b"\x07")
        except TimeoutError:
            return False
        except ConnectionError:
            return True
        finally:
            self.socket.settimeout(WAIT_S)

    def trickles(self, data: bytes, portion: int = 1) -> bool:
        """Send in small portions, each a moment after the other; whether the server put an end to it."""
        for start in range(0, len(data), portion):
            try:
                self.send(data[start : start + portion])
            except ConnectionError:
                return True
            if self.is_ended():
                return True
        return False

    def responses(self) -> Iterator[tuple[int, int]]:
        """Message ID and status of every response that comes; identifiers are skipped."""
        command = b""
        while pdu := self.pdu():
            if pdu[0] != 4:
                return
            if pdu[11] & 1:
                command += pdu[12:]
                if pdu[11] & 2:
                    read, command = decode(io.BytesIO(command), True, True), b""
                    yield read.MessageIDBeingRespondedTo, read.Status

    def answer(self) -> list[int]:
        """The statuses of the answer to one request, up to the final one."""
        statuses = []
        for _, status in self.responses():
            statuses.append(status)
            if status not in (0xFF00, 0xFF01):
                break
        return statuses

    def statuses(self, count: int) -> list[tuple[int, int]]:
        """Message ID and status of the next `count` responses that have no data set."""
        found = []
        for _ in range(count):
            command = decode(io.BytesIO(self.pdu()[12:]), True, True)
            found.append((command.MessageIDBeingRespondedTo, command.Status))
        return found


def request_pdu(*contexts: str, calling: str = "CT1", max_length: int = 16_382) -> bytes:
    primitive = A_ASSOCIATE()
    primitive.application_context_name = "1.2.840.10008.3.1.1.1"
    primitive.calling_ae_title, primitive.called_ae_title = calling, "GATEWAY"
    proposed = []
    for index, abstract_syntax in enumerate(contexts or (MODALITY_WORKLIST, MPPS)):
        context = build_context(abstract_syntax, ImplicitVRLittleEndian)
        context.context_id = 2 * index + 1
        proposed.append(context)
    primitive.presentation_context_definition_list = proposed
    length = MaximumLengthNotification()
    length.maximum_length_received = max_length
    implementation = ImplementationClassUIDNotification()
    implementation.implementation_class_uid = "1.2.826.0.1"
    primitive.user_information = [length, implementation]
    return A_ASSOCIATE_RQ(primitive).encode()


def message_pdus(
    context_id: int, operation: int, sop_class: str, *, message_id: int = 1, dataset: bytes | None = b""
) -> bytes:
    def element(tag: int, value: bytes) -> bytes:
        value += b"\0" * (len(value) % 2)
        return struct.pack("<HHI", 0, tag, len(value)) + value

    body = element(0x0002, sop_class.encode()) + element(0x0100, struct.pack("<H", operation))
    body += element(0x0110, struct.pack("<H", message_id))
    body += element(0x0800, b"\x01\x01" if dataset is None else b"\x00\x00")
    if operation in (0x0120, 0x0140):
        body += element(0x1000, b"1.2.3")
    command = element(0, struct.pack("<I", len(body))) + body
    pdus = data_pdus(context_id, command, is_command=True, max_length=0)
    if dataset is not None:
        pdus += data_pdus(context_id, dataset, is_command=False, max_length=0)
    return pdus


FIND = message_pdus(1, 0x0020, MODALITY_WORKLIST, dataset=encode(keys(), True, True))
RELEASE_RQ = A_RELEASE_RQ().encode()
RELEASE_RP = A_RELEASE_RP().encode()


def cancel_pdus(message_id: int) -> bytes:
    """A C-CANCEL-RQ for a C-FIND (PS3.7 9.3.2.3)."""
    body = struct.pack("<HHIH", 0, 0x0100, 2, 0x0FFF) + struct.pack("<HHIH", 0, 0x0120, 2, message_id)
    body += struct.pack("<HHIH", 0, 0x0800, 2, 0x0101)
    return data_pdus(1, struct.pack("<HHII", 0, 0, 4, len(body)) + body, is_command=True, max_length=0)
