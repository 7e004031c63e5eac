"""Requests encoded once, sent many times: a load client that costs the machine far less than the server it measures.

Requests are made by pynetdicom's codec and then only copied, with identifiers exchanged for others of the same
length. Answers are not decoded: a pattern over the bytes finds each response's status, which is all that load needs.
"""

import asyncio
import re
import ssl
from collections.abc import Mapping
from io import BytesIO
from types import TracebackType
from typing import Self

from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom import build_context
from pynetdicom.dimse_messages import C_FIND_RQ, N_CREATE_RQ, N_GET_RQ, N_SET_RQ, DIMSEMessage
from pynetdicom.dimse_primitives import C_FIND, N_CREATE, N_GET, N_SET
from pynetdicom.dsutils import encode
from pynetdicom.pdu import A_ASSOCIATE_RQ, A_RELEASE_RQ, P_DATA_TF
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    A_RELEASE,
    ImplementationClassUIDNotification,
    MaximumLengthNotification,
)
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made at import from a table
    ModalityPerformedProcedureStep,
    ModalityPerformedProcedureStepRetrieve,
    ModalityWorklistInformationFind,
)

FIND_CONTEXT_ID, MPPS_CONTEXT_ID, RETRIEVE_CONTEXT_ID = 1, 3, 5
PDU_LENGTH_MAX = 131_072  # what we are ready to receive: answers come in few, large pieces
IMPLEMENTATION_UID = "2.25.205384176528834110276117405139764712133"

_HEADER = 6  # bytes of a PDU before its contents: type, reserved, length
_ASSOCIATE_AC, _RELEASE_RP = b"\x02", b"\x06\x00\x00\x00\x00\x04"

# CommandDataSetType (0000,0800) and Status (0000,0900) follow each other in every response's command set, which is
# always Implicit VR Little Endian (PS3.7 6.3.1). Nothing that begins with group 0000 can occur in a data set.
_STATUS = re.compile(rb"\x00\x00\x00\x08\x02\x00\x00\x00(?:..)\x00\x00\x00\x09\x02\x00\x00\x00(..)", re.DOTALL)
_STATUS_BYTES = 20


def encode_association(calling_ae_title: str, called_ae_title: str = "GATEWAY", *, retrieves: bool = False) -> bytes:
    """An A-ASSOCIATE-RQ for the worklist (context 1) and MPPS (context 3), Implicit VR Little Endian.

    With `retrieves` it is also for MPPS Retrieve (context 5).
    """
    worklist = build_context(ModalityWorklistInformationFind, ImplicitVRLittleEndian)
    worklist.context_id = FIND_CONTEXT_ID
    mpps = build_context(ModalityPerformedProcedureStep, ImplicitVRLittleEndian)
    mpps.context_id = MPPS_CONTEXT_ID
    length = MaximumLengthNotification()
    length.maximum_length_received = PDU_LENGTH_MAX
    implementation = ImplementationClassUIDNotification()
    implementation.implementation_class_uid = IMPLEMENTATION_UID
    request = A_ASSOCIATE()
    request.application_context_name = "1.2.840.10008.3.1.1.1"  # DICOM (PS3.7 A.2.1)
    request.calling_ae_title = calling_ae_title
    request.called_ae_title = called_ae_title
    request.presentation_context_definition_list = [worklist, mpps]
    if retrieves:
        retrieve = build_context(ModalityPerformedProcedureStepRetrieve, ImplicitVRLittleEndian)
        retrieve.context_id = RETRIEVE_CONTEXT_ID
        request.presentation_context_definition_list = [worklist, mpps, retrieve]
    request.user_information = [length, implementation]
    return _pdu(A_ASSOCIATE_RQ(), request)


def encode_find(identifier: Dataset) -> bytes:
    """A C-FIND-RQ with its identifier."""
    request = C_FIND()
    request.MessageID = 1
    request.AffectedSOPClassUID = ModalityWorklistInformationFind
    request.Priority = 2
    request.Identifier = _dataset(identifier)
    return _message(C_FIND_RQ(), request, FIND_CONTEXT_ID)


def encode_create(uid: str, dataset: Dataset) -> bytes:
    """An N-CREATE-RQ for a performed step."""
    request = N_CREATE()
    request.MessageID = 1
    request.AffectedSOPClassUID = ModalityPerformedProcedureStep
    request.AffectedSOPInstanceUID = uid
    request.AttributeList = _dataset(dataset)
    return _message(N_CREATE_RQ(), request, MPPS_CONTEXT_ID)


def encode_set(uid: str, dataset: Dataset) -> bytes:
    """An N-SET-RQ for a performed step."""
    request = N_SET()
    request.MessageID = 1
    request.RequestedSOPClassUID = ModalityPerformedProcedureStep
    request.RequestedSOPInstanceUID = uid
    request.ModificationList = _dataset(dataset)
    return _message(N_SET_RQ(), request, MPPS_CONTEXT_ID)


def encode_get(uid: str) -> bytes:
    """An N-GET-RQ for all attributes of a performed step."""
    request = N_GET()
    request.MessageID = 1
    request.RequestedSOPClassUID = ModalityPerformedProcedureStepRetrieve
    request.RequestedSOPInstanceUID = uid
    return _message(N_GET_RQ(), request, RETRIEVE_CONTEXT_ID)


def exchanged(request: bytes, values: Mapping[str, str]) -> bytes:
    """The request with each of these ASCII texts exchanged for another. Raises ValueError if the lengths differ."""
    for held, wanted in values.items():
        if len(held) != len(wanted):
            raise ValueError("a text can only be exchanged for one of the same length")
        request = request.replace(held.encode(), wanted.encode())
    return request


def _dataset(dataset: Dataset) -> BytesIO:
    return BytesIO(encode(dataset, True, True) or b"")


def _message(message: DIMSEMessage, primitive: C_FIND | N_CREATE | N_GET | N_SET, context_id: int) -> bytes:
    message.primitive_to_message(primitive)
    # 16 KiB is the least that every peer is known to receive; these requests are far shorter.
    return b"".join(_pdu(P_DATA_TF(), part) for part in message.encode_msg(context_id, 16_382))


def _pdu(pdu: A_ASSOCIATE_RQ | P_DATA_TF | A_RELEASE_RQ, primitive: object) -> bytes:
    pdu.from_primitive(primitive)  # type: ignore[arg-type]  # each takes its own primitive
    return bytes(pdu.encode())


RELEASE = _pdu(A_RELEASE_RQ(), A_RELEASE())


class LoadAssociation:
    """One association, on asyncio: `async with LoadAssociation(host, port, encode_association("CT1")) as association`.

    It is released at the end of the block, or cut off where the block fails. Every method raises ConnectionError if
    the connection breaks. `accepted` is the A-ASSOCIATE-AC as it came. With `tls` it speaks TLS to a peer whose
    certificate bears `tls_name`.
    """

    def __init__(
        self, host: str, port: int, associate: bytes, tls: ssl.SSLContext | None = None, tls_name: str | None = None
    ) -> None:
        self._address, self._associate = (host, port), associate
        self._tls, self._tls_name = tls, tls_name

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._transport, self._receiver = await loop.create_connection(
            _Receiver, *self._address, ssl=self._tls, server_hostname=self._tls_name
        )
        try:
            self._transport.write(self._associate)
            answer = b""
            while len(answer) < _HEADER or len(answer) < _HEADER + int.from_bytes(answer[2:_HEADER], "big"):
                answer += await self._receiver.read()
            if answer[:1] != _ASSOCIATE_AC:
                raise ConnectionRefusedError("the association was rejected")
            self.accepted = answer
        except BaseException:
            self._transport.abort()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                await self._release()
        finally:
            self._transport.close()

    async def find(self, request: bytes) -> int:
        """Send a C-FIND request; the number of matches. Raises ConnectionAbortedError unless it ends with Success."""
        matches, status = await self._answers(request)
        if status:
            raise ConnectionAbortedError(f"C-FIND was answered {status:04X}")
        return matches

    async def report(self, request: bytes) -> int:
        """Send an N-CREATE, N-SET or N-GET request; its status."""
        return (await self._answers(request))[1]

    async def exchange(self, request: bytes) -> bytes:
        """Send a request; every byte of the answers to it, to be played back by something else."""
        heard: list[bytes] = []
        await self._answers(request, heard)
        return b"".join(heard)

    async def _release(self) -> None:
        self._transport.write(RELEASE)
        window = b""
        while _RELEASE_RP not in window:
            window = window[-len(_RELEASE_RP) :] + await self._receiver.read()

    async def _answers(self, request: bytes, heard: list[bytes] | None = None) -> tuple[int, int]:
        """How many Pending answers came, and the status that ended them."""
        self._transport.write(request)
        pending, window = 0, b""
        while True:
            data = await self._receiver.read()
            if heard is not None:
                heard.append(data)
            window += data
            seen = 0
            for answer in _STATUS.finditer(window):
                seen = answer.end()
                status = int.from_bytes(answer[1], "little")
                if status & 0xFF00 != 0xFF00:
                    return pending, status
                pending += 1
            window = window[max(seen, len(window) - _STATUS_BYTES + 1) :]


class _Receiver(asyncio.Protocol):
    """What has come and was not read yet. asyncio's streams would cost as much again as the sockets do."""

    def __init__(self) -> None:
        self._data: list[bytes] = []
        self._lost = False
        self._wanted: asyncio.Future[None] | None = None

    def data_received(self, data: bytes) -> None:
        self._data.append(data)
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost = True
        self._wake()

    async def read(self) -> bytes:
        """All that has come, once something has. Raises ConnectionResetError when nothing more will."""
        if not self._data and not self._lost:
            self._wanted = asyncio.get_running_loop().create_future()
            await self._wanted
        if not self._data:
            raise ConnectionResetError("the peer closed the connection")
        data = b"".join(self._data)
        self._data.clear()
        return data

    def _wake(self) -> None:
        wanted, self._wanted = self._wanted, None
        if wanted is not None and not wanted.done():
            wanted.set_result(None)
