"""An Image Manager or Order Filler that is told of performed steps, on pynetdicom as SCP: RAD-6, RAD-7, and events.

It keeps the state table of PS3.4 F.7.2 over what it was sent, and on request behaves worse than any product.
"""

import ssl
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Condition
from types import TracebackType
from typing import Any, Self

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, _config, evt
from pynetdicom.events import Event
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made at import from a table
    ModalityPerformedProcedureStep,
    ModalityPerformedProcedureStepNotification,
    Verification,
)

_config.LOG_HANDLER_LEVEL = "none"

DUPLICATE_INSTANCE, NO_SUCH_INSTANCE, PROCESSING_FAILURE = 0x0111, 0x0112, 0x0110
MAY_NO_LONGER_BE_UPDATED = 0xA710
BOTH = (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
_FINAL = ("COMPLETED", "DISCONTINUED")


@dataclass(frozen=True, slots=True)
class Reported:
    """A request as it came. `data` are the dataset's bytes in `transfer_syntax`; `event_type` is that of an event."""

    operation: str
    uid: str
    calling_ae_title: str
    transfer_syntax: str
    data: bytes = field(repr=False)
    event_type: int = 0


Answer = int | Callable[[Event], int | Dataset]
"""A status, or what makes one; it may also end the association or spoil the answer on its way."""


class PerformedReceiver:
    """`with PerformedReceiver() as receiver:` listens on `receiver.port` of loopback, or of `host`.

    `script` holds the next answers, which nothing is kept for; after them the receiver answers as the standard says.
    `takes_events` is whether it lets the requestor be SCP of MPPS Notification; `transfer_syntaxes` are those it takes;
    with none it takes only C-ECHO.
    """

    def __init__(
        self,
        ae_title: str = "PACS",
        transfer_syntaxes: Sequence[str] = BOTH,
        *,
        takes_events: bool = True,
        tls: ssl.SSLContext | None = None,
        port: int = 0,
        host: str = "127.0.0.1",
    ) -> None:
        self.ae_title = ae_title
        self.host = host
        self.port = port
        self.reported: list[Reported] = []
        self.steps: dict[str, str] = {}
        self.script: deque[Answer] = deque()
        self.associations = 0
        self.released = 0
        self._happened = Condition()
        self._tls = tls
        self._server: Any = None
        self._ae = AE(ae_title)
        self._ae.require_called_aet = True
        self._ae.add_supported_context(Verification)
        if transfer_syntaxes:
            self._ae.add_supported_context(ModalityPerformedProcedureStep, list(transfer_syntaxes))
            self._ae.add_supported_context(
                ModalityPerformedProcedureStepNotification, list(transfer_syntaxes),
                scu_role=None if not takes_events else False, scp_role=None if not takes_events else True,
            )  # fmt: skip

    def start(self) -> Self:
        """Listen, again on the same port if it did before."""
        handlers = [
            (evt.EVT_N_CREATE, self._create),
            (evt.EVT_N_SET, self._set),
            (evt.EVT_N_EVENT_REPORT, self._event),
            (evt.EVT_ACCEPTED, self._accepted),
            (evt.EVT_RELEASED, self._released),
        ]
        self._server = self._ae.start_server(
            (self.host, self.port),
            block=False,
            ssl_context=self._tls,
            evt_handlers=handlers,  # type: ignore[arg-type]  # its list of a union is invariant
        )
        self.port = self._server.socket.getsockname()[1]
        return self

    def stop(self) -> None:
        """Abort every association and listen no more."""
        server, self._server = self._server, None
        if server is not None:
            server.shutdown()
            for association in server.active_associations:
                association.abort()

    def admit(self, *calling_ae_titles: str) -> None:
        """Reject associations of all others; with none named, of nobody."""
        self._ae.require_calling_aet = list(calling_ae_titles)

    def wait_for(self, happened: Callable[[], bool], timeout_s: float = 10.0) -> None:
        """Wait until this is so. Raises TimeoutError."""
        with self._happened:
            if not self._happened.wait_for(happened, timeout_s):
                raise TimeoutError

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _accepted(self, _event: Event) -> None:
        with self._happened:
            self.associations += 1
            self._happened.notify_all()

    def _released(self, _event: Event) -> None:
        with self._happened:
            self.released += 1
            self._happened.notify_all()

    def _create(self, event: Event) -> tuple[int | Dataset, Dataset | None]:
        request: Any = event.request
        uid = str(request.AffectedSOPInstanceUID)
        scripted = self._came(event, "N-CREATE", uid, request.AttributeList)
        if scripted is not None:
            return scripted, None
        if uid in self.steps:
            return DUPLICATE_INSTANCE, None
        self.steps[uid] = str(event.attribute_list.get("PerformedProcedureStepStatus", ""))
        return 0, Dataset()

    def _set(self, event: Event) -> tuple[int | Dataset, Dataset | None]:
        request: Any = event.request
        uid = str(request.RequestedSOPInstanceUID)
        scripted = self._came(event, "N-SET", uid, request.ModificationList)
        if scripted is not None:
            return scripted, None
        if uid not in self.steps:
            return NO_SUCH_INSTANCE, None
        if self.steps[uid] in _FINAL:
            return final_already(), None
        self.steps[uid] = str(event.modification_list.get("PerformedProcedureStepStatus", self.steps[uid]))
        return 0, Dataset()

    def _event(self, event: Event) -> tuple[int | Dataset, Dataset | None]:
        request: Any = event.request
        scripted = self._came(
            event, "N-EVENT-REPORT", str(request.AffectedSOPInstanceUID), request.EventInformation, request.EventTypeID
        )  # fmt: skip
        return (0 if scripted is None else scripted), None

    def _came(self, event: Event, operation: str, uid: str, data: Any, event_type: int = 0) -> int | Dataset | None:
        """Note the request; the scripted answer, if there is one."""
        reported = Reported(
            operation, uid, str(event.assoc.requestor.ae_title), str(event.context.transfer_syntax),
            data.getvalue() if data else b"", event_type,
        )  # fmt: skip
        with self._happened:
            self.reported.append(reported)
            answer = self.script.popleft() if self.script else None
            self._happened.notify_all()
        return answer(event) if callable(answer) else answer


def final_already(_event: Event | None = None) -> Dataset:
    """The answer to N-SET of a step that has ended (PS3.4 table F.7.2-2)."""
    status = Dataset()
    status.Status = PROCESSING_FAILURE
    status.ErrorID = MAY_NO_LONGER_BE_UPDATED
    status.ErrorComment = "Performed Procedure Step Object may no longer be updated"
    return status


def aborts(event: Event) -> int:
    """Ends the association in place of an answer."""
    event.assoc.abort()
    return 0


def answers_another_message(event: Event) -> int:
    """Success, for a message that nobody sent."""
    dimse: Any = event.assoc.dimse
    send = dimse.send_msg

    def spoilt(primitive: Any, context_id: int) -> None:
        primitive.MessageIDBeingRespondedTo += 1
        send(primitive, context_id)

    dimse.send_msg = spoilt
    return 0


def answers_without_status(event: Event) -> int:
    """What is a response by its command, and says nothing."""
    dimse: Any = event.assoc.dimse
    send = dimse.send_msg

    def spoilt(primitive: Any, context_id: int) -> None:
        primitive._status = None
        send(primitive, context_id)

    dimse.send_msg = spoilt
    return 0
