"""The asking side: C-FIND with identifiers as bytes, on pynetdicom's association.

pynetdicom's own `send_c_find` takes data sets and writes them itself; what is asked here has to reach the SCP as it
is. One association is kept and used again as long as transfer syntax, calling AE title and negotiation stay the same:
some SCPs serve few at once.
"""

import socket
import time
from dataclasses import dataclass, field
from io import BytesIO

from pynetdicom import AE, _config
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_CANCEL, C_FIND
from pynetdicom.pdu_primitives import SOPClassExtendedNegotiation
from pynetdicom.sop_class import ModalityWorklistInformationFind  # type: ignore[attr-defined]

_config.LOG_REQUEST_IDENTIFIERS = False
_config.LOG_RESPONSE_IDENTIFIERS = False

ANSWER_S_MAX = 20.0


class NoAnswer(Exception):  # noqa: N818  (reads as what happened)
    """The SCP rejected the association or the context, aborted, or said nothing."""


@dataclass(frozen=True)
class Pending:
    """One match: its status and the identifier's bytes."""

    status: str
    identifier: bytes = field(repr=False)


@dataclass(frozen=True)
class Reply:
    """All that came back for one C-FIND, in order."""

    pending: tuple[Pending, ...]
    status: str
    has_identifier: bool
    offending: tuple[int, ...]
    accepted: bytes | None


class Caller:
    """Asks one SCP. A context manager, so that associations are released."""

    def __init__(self, host: str, port: int, called: str) -> None:
        self._host, self._port, self._called = host, port, called
        self._open: tuple[tuple[str, str, bytes], Association] | None = None
        self._message_id = 0

    def __enter__(self) -> "Caller":
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def find(
        self, identifier: bytes, *, syntax: str, calling: str, negotiate: bytes = b"", cancel_after: int = 0
    ) -> Reply:
        """Ask, and wait for the final answer. Raises NoAnswer."""
        association = self._association(syntax, calling, negotiate)
        context = association.accepted_contexts[0]
        self._message_id = self._message_id % 0x7FFF + 1
        request = C_FIND()
        request.MessageID = self._message_id
        request.AffectedSOPClassUID = ModalityWorklistInformationFind
        request.Priority = 0
        request.Identifier = BytesIO(identifier)
        association.dimse.send_msg(request, context.context_id)
        return self._answers(association, context.context_id, cancel_after)

    def _answers(self, association: Association, context_id: int, cancel_after: int) -> Reply:
        pending: list[Pending] = []
        while True:
            _, answer = association.dimse.get_msg(block=True)
            if not isinstance(answer, C_FIND) or answer.Status is None:
                association.abort()
                raise NoAnswer("the association ended, or no answer came in time")
            data = answer.Identifier.getvalue() if answer.Identifier else b""
            if answer.Status not in (0xFF00, 0xFF01):
                return Reply(
                    tuple(pending), f"{answer.Status:04X}", bool(data), tuple(_offending(answer)),
                    _accepted(association),
                )  # fmt: skip
            pending.append(Pending(f"{answer.Status:04X}", data))
            if len(pending) == cancel_after:
                cancel = C_CANCEL()
                cancel.MessageIDBeingRespondedTo = self._message_id
                association.dimse.send_msg(cancel, context_id)

    def _association(self, syntax: str, calling: str, negotiate: bytes) -> Association:
        key = (syntax, calling, negotiate)
        if self._open and self._open[0] == key and self._open[1].is_established:
            return self._open[1]
        self._close()
        ae = AE(calling)
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = ae.connection_timeout = ANSWER_S_MAX
        ae.add_requested_context(ModalityWorklistInformationFind, syntax)
        extended = []
        if negotiate:
            item = SOPClassExtendedNegotiation()
            item.sop_class_uid = ModalityWorklistInformationFind
            item.service_class_application_information = negotiate
            extended.append(item)
        association = ae.associate(self._host, self._port, ae_title=self._called, ext_neg=extended)
        if not association.is_established:
            raise NoAnswer("the association or its only presentation context was rejected")
        # Command and identifier are two writes; held together by Nagle's algorithm, each query would cost 40 ms more.
        association.dul.socket.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # pynetdicom's own thread must not take the answers. It is paused once and for good: let go after each query, as
        # send_c_find does, it may wake up late and take the first answer to the next one.
        association._reactor_checkpoint.clear()
        while not association._is_paused:
            time.sleep(0.0001)
        self._open = (key, association)
        return association

    def _close(self) -> None:
        if self._open and self._open[1].is_established:
            self._open[1].release()
        self._open = None


def _offending(answer: C_FIND) -> list[int]:
    held = answer.OffendingElement
    if held is None:
        return []
    return [int(tag) for tag in (held if isinstance(held, list | tuple) and not isinstance(held, int) else [held])]


def _accepted(association: Association) -> bytes | None:
    items = association.acceptor.sop_class_extended
    return items.get(ModalityWorklistInformationFind)
