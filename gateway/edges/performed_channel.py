"""Performed steps to one receiver by DIMSE: N-CREATE and N-SET (RAD-6, RAD-7), and N-EVENT-REPORT (PS3.4 F.9).

pynetdicom is the SCU (design D1). Its calls block, so they run in a thread of the channel's own; the association is
opened when there is something to send, kept while there is more, and released after some idle seconds. The dataset
goes out with the bytes it came with, in the transfer syntax it came in wherever the receiver takes that one.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from io import BytesIO
from itertools import count
from queue import Empty
from typing import Any, TypeVar

from pydicom.uid import UID
from pynetdicom import build_role
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import N_CREATE, N_EVENT_REPORT, N_SET
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made at import from a table
    ModalityPerformedProcedureStep,
    ModalityPerformedProcedureStepNotification,
)

from gateway.domain.attributes import Element
from gateway.domain.performed import MPPSState, PerformedStep
from gateway.domain.refusal import Refused
from gateway.edges.channel import Destination, Outcome, why
from gateway.edges.dimse_caller import Caller
from gateway.edges.resolving import Hosts
from gateway.wire.charsets import UNICODE
from gateway.wire.dicom_json import (
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    transcoded,
    write_attributes,
)
from gateway.workflow.forwarding import Items, coerced
from gateway.workflow.outbox import Attempt, Delivery, dimse_attempt_of
from gateway.workflow.ports import DeliveryKind

T = TypeVar("T")

IDLE_S = 5.0
"""Most receivers drop an idle association after half a minute or more; pynetdicom's threads are never at rest."""

_LOOK_S = 0.1  # how often a wait for an answer looks whether it still makes sense
TRANSFER_SYNTAXES = (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)
_STATUS = "00400252"  # Performed Procedure Step Status

SOP_CLASS_OF: Mapping[DeliveryKind, str] = {
    DeliveryKind.PERFORMED: str(ModalityPerformedProcedureStep),
    DeliveryKind.NOTIFICATION: str(ModalityPerformedProcedureStepNotification),
}
"""What is proposed for each kind of delivery, with each of `TRANSFER_SYNTAXES` in a context of its own."""

Restate = Callable[[str], "tuple[bytes, str] | None"]
"""The N-CREATE dataset of all that is held of a performed step, and its transfer syntax; None where none is held."""


def restating(step: Callable[[str], PerformedStep | None], items: Items | None = None) -> Restate:
    """From what the store holds, such as `store.reader.performed_step`: everything, as a step that is in progress.

    With `items`, such as `store.reader.items`, patient and order are those of the worklist.
    """

    def restate(uid: str) -> tuple[bytes, str] | None:
        held = step(uid)
        if held is None:
            return None
        status: Element = {"vr": "CS", "Value": [str(MPPSState.IN_PROGRESS)]}
        attributes = (coerced(held.attributes, held, items) if items else None) or held.attributes
        data = write_attributes({**attributes, _STATUS: status}, EXPLICIT_VR_LITTLE_ENDIAN, UNICODE)
        return data, EXPLICIT_VR_LITTLE_ENDIAN

    return restate


@dataclass(frozen=True, slots=True)
class _Request:
    """One DIMSE-N request, apart from its Message ID."""

    kind: DeliveryKind
    operation: str
    event_type: int
    uid: str
    dataset: bytes = field(repr=False)
    transfer_syntax: str = ""


@dataclass(slots=True)
class _Open:
    """An association and what it is for."""

    association: Association
    kind: DeliveryKind
    message_ids: Iterator[int] = field(default_factory=lambda: count(1))


class _NoAnswer(Exception):  # noqa: N818  (reads as what happened)
    """Nothing could be sent, or nothing usable came back; `outcome` is what that means."""

    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome
        super().__init__(outcome.attempt.value)


class PerformedChannel:
    """One receiver of performed steps, or of events about them."""

    def __init__(
        self,
        destination: Destination,
        called_ae_title: str,
        calling_ae_title: str,
        restate: Restate,
        idle_s: float = IDLE_S,
        hosts: Hosts | None = None,
    ) -> None:
        self._to = destination
        self._called_ae_title = called_ae_title
        self._restate = restate
        self._idle_s = idle_s
        self._caller = Caller(calling_ae_title, destination, hosts)
        self._thread: ThreadPoolExecutor | None = None  # while there is something to do
        self._open: _Open | None = None
        self._closing = False
        self._idle: asyncio.TimerHandle | None = None

    async def send(self, delivery: Delivery) -> Outcome:
        """Send the request and wait for its answer. A step that the receiver does not know is created there anew."""
        self._stay()
        self._closing = False
        operation, _, event_type = delivery.operation.partition(" ")
        request = _Request(
            delivery.kind, operation, int(event_type or 0), delivery.control_id, delivery.payload,
            delivery.transfer_syntax or IMPLICIT_VR_LITTLE_ENDIAN,
        )  # fmt: skip
        try:
            outcome = await self._in_thread(lambda: self._ask(request))
            if outcome.attempt is Attempt.UNKNOWN_THERE:
                outcome = await self._create_and_ask(request, outcome)
            return outcome
        finally:
            self._idle = asyncio.get_running_loop().call_later(self._idle_s, self._release_soon)

    async def _create_and_ask(self, request: _Request, refused: Outcome) -> Outcome:
        held = self._restate(request.uid)
        if held is None:
            return Outcome(Attempt.REJECTED, f"{refused.reason}; the step is not held here either")
        anew = _Request(request.kind, "N-CREATE", 0, request.uid, *held)
        created = await self._in_thread(lambda: self._ask(anew))
        if created.attempt not in (Attempt.ACCEPTED, Attempt.HELD_ALREADY):
            return Outcome(created.attempt, f"{refused.reason}; created anew: {created.reason}")
        outcome = await self._in_thread(lambda: self._ask(request))
        return Outcome(outcome.attempt, f"created anew; {outcome.reason}")

    async def close(self) -> None:
        """Release the association; one that waits for an answer is aborted."""
        self._closing = True
        self._stay()
        thread, self._thread = self._thread, None
        if thread is not None:
            ended = asyncio.wrap_future(thread.submit(self._end))
            await asyncio.wait([ended], timeout=1.0)  # a connection that is just being opened ends by itself
            thread.shutdown(wait=False)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, f"to-{self._to.name}")
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _stay(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def _release_soon(self) -> None:
        if self._thread is not None:
            self._thread.submit(self._end)

    # --- in the channel's thread --------------------------------------------------------------------------------

    def _ask(self, request: _Request) -> Outcome:
        try:
            to = self._associated(request.kind)
            context, dataset = self._prepared(to.association, request)
        except _NoAnswer as error:
            return error.outcome
        message_id = next(to.message_ids) % 0x10000
        primitive = _primitive(request, message_id, dataset)
        try:
            answer = self._exchanged(to.association, primitive, context.context_id or 0)
        except _NoAnswer as error:
            self._abort()  # who knows what else is under way
            self._caller.doubt()
            return error.outcome
        status, comment = int(answer.Status), getattr(answer, "ErrorComment", None)
        attempt = dimse_attempt_of(request.operation, status, getattr(answer, "ErrorID", None))
        plain = attempt is Attempt.ACCEPTED and status == 0
        return Outcome(attempt, "" if plain else " ".join([f"{status:04X}", str(comment or "")]).strip())

    def _associated(self, kind: DeliveryKind) -> _Open:
        """The association, opened if it has to be. Raises _NoAnswer."""
        held = self._open
        if held is not None and held.kind is kind and held.association.is_established and not self._caller.moved:
            return held
        self._end()
        sop_class = SOP_CLASS_OF[kind]
        contexts = []
        for transfer_syntax in TRANSFER_SYNTAXES:  # a context each: one with both would let the receiver choose
            context = PresentationContext()
            context.abstract_syntax = UID(sop_class)
            context.transfer_syntax = [UID(transfer_syntax)]
            contexts.append(context)
        # Of events we are the SCP although we ask for the association (PS3.4 F.2.1, F.9).
        roles = [build_role(sop_class, scp_role=True)] if kind is DeliveryKind.NOTIFICATION else []
        try:
            association = self._caller.associated(self._called_ae_title, contexts, roles)
        except OSError as error:  # nobody knows its host
            raise _NoAnswer(Outcome(Attempt.UNREACHABLE, why(error))) from error
        if not association.is_established:
            raise _NoAnswer(_why_none(association, self._caller.failure))
        self._open = _Open(association, kind)
        return self._open

    def _prepared(self, association: Association, request: _Request) -> tuple[PresentationContext, bytes]:
        """The presentation context to send under, and the dataset in its transfer syntax. Raises _NoAnswer."""
        sender = request.kind is DeliveryKind.PERFORMED
        usable = {
            str(context.transfer_syntax[0]): context
            for context in association.accepted_contexts
            if (context.as_scu if sender else context.as_scp)
        }
        if not usable:
            raise _NoAnswer(Outcome(Attempt.UNSUPPORTED, "the receiver does not take the role of our peer"))
        context = usable.get(request.transfer_syntax)
        if context is not None:
            return context, request.dataset
        into, context = next(iter(usable.items()))
        try:
            return context, transcoded(request.dataset, request.transfer_syntax, into)
        except Refused as error:
            where = ", ".join(refusal.where for refusal in error.refusals)
            raise _NoAnswer(Outcome(
                Attempt.REJECTED, f"not taken in the transfer syntax it came in, and unreadable in it: {where}"
            )) from error  # fmt: skip

    def _exchanged(self, association: Association, request: Any, context_id: int) -> Any:
        """The answer to this request: what pynetdicom's `send_n_create` does, with bytes. Raises _NoAnswer."""
        until = time.monotonic() + self._to.answer_timeout_s
        association.dimse.send_msg(request, context_id)
        while time.monotonic() < until and not self._closing:
            try:
                _, answer = association.dimse.msg_queue.get(timeout=_LOOK_S)
            except Empty:
                if not association.is_established:
                    raise _unanswered("the association ended before the answer") from None
                continue
            if answer is None:  # which is how pynetdicom says that it was aborted
                raise _unanswered("the association ended before the answer")
            problem = _no_answer(answer, request)
            if problem:
                raise _NoAnswer(Outcome(Attempt.UNUSABLE, problem))
            return answer
        raise _unanswered(f"no answer within {self._to.answer_timeout_s:g} s")

    def _end(self) -> None:
        """Release it, or abort it where the peer does not answer that."""
        held, self._open = self._open, None
        if held is None or not held.association.is_alive():
            return
        if held.association.is_established:
            held.association.release()
        if held.association.is_alive():
            held.association.abort()

    def _abort(self) -> None:
        held, self._open = self._open, None
        if held is not None:
            held.association.abort()


def _why_none(association: Association, failure: str) -> Outcome:
    if association.is_rejected:
        said = association.acceptor.primitive
        return Outcome(Attempt.UNREACHABLE, f"association rejected: {said.reason_str}" if said else "")
    if association.rejected_contexts and not association.accepted_contexts:
        return Outcome(Attempt.UNSUPPORTED, "the receiver rejects the presentation context")
    return Outcome(Attempt.UNREACHABLE, failure or "connected, but the association request is not answered")


def _primitive(request: _Request, message_id: int, dataset: bytes) -> Any:
    sop_class, uid = UID(SOP_CLASS_OF[request.kind]), UID(request.uid)
    if request.operation == "N-CREATE":
        create = N_CREATE()
        create.AffectedSOPClassUID, create.AffectedSOPInstanceUID = sop_class, uid
        create.AttributeList = BytesIO(dataset)
        create.MessageID = message_id
        return create
    if request.operation == "N-SET":
        change = N_SET()
        change.RequestedSOPClassUID, change.RequestedSOPInstanceUID = sop_class, uid
        change.ModificationList = BytesIO(dataset)
        change.MessageID = message_id
        return change
    report = N_EVENT_REPORT()
    report.AffectedSOPClassUID, report.AffectedSOPInstanceUID = sop_class, uid
    report.EventTypeID = request.event_type
    report.MessageID = message_id
    return report


def _no_answer(answer: Any, request: Any) -> str:
    """Why this is no answer to the request; '' where it is one."""
    if type(answer) is not type(request) or answer.MessageIDBeingRespondedTo is None:
        return "answered by another operation"
    if answer.MessageIDBeingRespondedTo != request.MessageID:
        return "answered for another message"
    return "" if answer.Status is not None else "answered without a status"


def _unanswered(reason: str) -> _NoAnswer:
    return _NoAnswer(Outcome(Attempt.UNANSWERED, reason))
