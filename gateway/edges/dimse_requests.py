"""The requests of one association, served one after the other.

What may live here: the queue of requests, cancellation, and the order and portions in which answers leave. No socket
and no timer: the connection is a `Peer`.

An association is served sequentially (asynchronous operations are negotiated to 1), while C-CANCEL is noted as it
arrives. What needs no waiting is served at once, which is most of all a C-FIND whose answer fits in one slice: no
task is made for it, and all of its responses leave in one write. A longer answer leaves in slices with a turn of the
event loop between them: nobody else waits longer than `SLICE_S` for it.
"""

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from gateway.edges.dimse_service import Association, DIMSEService, EndedFind, Observe, where_raised
from gateway.wire.dimse import (
    SMALL_DATASET_BYTES,
    ByteBudget,
    DIMSEViolation,
    FindAnswer,
    FindAnswers,
    FindPart,
    FindResponder,
    Message,
    NAnswer,
    Operation,
    Status,
    n_response,
    refusal_of,
    simple_response,
)
from gateway.wire.mpps_dataset import readable_uid
from gateway.wire.upper_layer import INSTANCE_AVAILABILITY, Context

SLICE_S = 0.002
"""How long matches are collected before the event loop gets its turn: small beside the 5 ms that a person or a
benchmark would notice, large beside the 20 microseconds that a turn costs."""

SLICE_BYTES = 65_536
"""How many bytes are collected at most before they are written: one full socket buffer, so memory stays flat."""

REQUESTS_WAITING_MAX = 8
"""Requests held while one is served. One at a time is negotiated; some devices echo or cancel out of turn."""


class Peer(Protocol):
    """The connection, as its requests see it."""

    @property
    def is_behind(self) -> bool:
        """Whether the peer has yet to read what was sent."""

    def send(self, pdus: bytes) -> None:
        """Send these; nothing happens when the association has gone."""

    async def caught_up(self) -> None:
        """Return when the peer is not behind any more, or has gone."""

    def cut(self, reason: str) -> None:
        """End the association now."""

    def all_served(self) -> None:
        """Nothing waits any more."""


class Requests:
    """What one association asked for and has not been answered yet.

    `started` is given each task, to keep it alive until it is done.
    """

    def __init__(
        self,
        peer: Peer,
        association: Association,
        contexts: Mapping[int, Context],
        service: DIMSEService,
        budget: ByteBudget,
        observe: Observe,
        started: Callable[["asyncio.Task[None]"], None],
    ) -> None:
        self.served = 0
        self._peer = peer
        self._association = association
        self._contexts = contexts
        self._service = service
        self._budget = budget
        self._observe = observe
        self._started = started
        self._waiting: deque[tuple[Message, Status | None]] = deque()
        self._outstanding: dict[int, int] = {}  # Message ID, and how many requests bear it
        self._cancelled: set[int] = set()
        self._worker: asyncio.Task[None] | None = None
        self._interrupted = False
        self._ended = False

    @property
    def is_busy(self) -> bool:
        """Whether a request is in progress."""
        return self._worker is not None

    def interrupt(self) -> None:
        """The peer wants to leave: an answer in progress is broken off as if it had been cancelled."""
        self._interrupted = True

    def end(self) -> None:
        """The association is over; what waits is forgotten, what is in progress finds nobody to answer."""
        self._ended = True
        for message, _ in self._waiting:
            self._budget.give_back(_counted(message))
        self._waiting.clear()

    def take(self, message: Message) -> None:
        """Note a cancellation, queue a request; raises DIMSEViolation for what no requester may send."""
        command = message.command
        if command.is_response:
            raise DIMSEViolation("response to a request that was never sent")
        if command.field == Operation.C_CANCEL:
            if command.responds_to in self._outstanding:
                self._cancelled.add(command.responds_to)
            return
        if len(self._waiting) >= REQUESTS_WAITING_MAX:
            raise DIMSEViolation("too many requests at once")
        refusal = refusal_of(command, self._contexts[message.context_id].abstract_syntax)
        # 0210 is not among the statuses of C-FIND (PS3.7 9.1.2.1.6), and in turn both can be answered anyway.
        if refusal is None and command.message_id in self._outstanding and command.field != Operation.C_FIND:
            refusal = Status.DUPLICATE_INVOCATION
        if not self._budget.take(_counted(message)):
            is_find = command.field == Operation.C_FIND
            refusal = refusal or (Status.OUT_OF_RESOURCES if is_find else Status.RESOURCE_LIMITATION)
            message = Message(message.context_id, command, None)
        self._waiting.append((message, refusal))
        self._outstanding[command.message_id] = self._outstanding.get(command.message_id, 0) + 1

    def go_on(self) -> None:
        """Serve what waits: at once as far as that takes no waiting, the rest in a task."""
        if self._worker is not None or not self._waiting:
            return
        unfinished: _Find | None = None
        message, refusal = self._waiting[0]
        operation = message.command.field
        if not self._peer.is_behind and (refusal is not None or operation in (Operation.C_ECHO, Operation.C_FIND)):
            try:
                unfinished = self._serve_at_once(*self._waiting.popleft())
            except Exception as error:  # a defect of ours must not leave the peer waiting
                self._peer.cut(f"internal error: {type(error).__name__}")
        if unfinished is not None or self._waiting:
            self._worker = asyncio.get_running_loop().create_task(self._work(unfinished))
            self._started(self._worker)

    def _serve_at_once(self, message: Message, refusal: Status | None) -> "_Find | None":
        """Answer; a C-FIND that is not finished in one slice is returned."""
        if refusal is None and message.command.field == Operation.C_FIND:
            find = self._find(message)
            if not self._advance(find):
                return find
            self._found(find)
        else:
            self._answer_simply(message, refusal)
        return None

    async def _work(self, unfinished: "_Find | None") -> None:
        try:
            if unfinished is not None:
                await self._finish(unfinished)
            while self._waiting and not self._ended:
                await self._peer.caught_up()
                if self._waiting:  # the association may have ended meanwhile
                    await self._serve(*self._waiting.popleft())
        except Exception as error:  # as above
            self._peer.cut(f"internal error: {type(error).__name__}")
        finally:
            self._worker = None
        self._peer.all_served()

    async def _serve(self, message: Message, refusal: Status | None) -> None:
        if refusal is not None or message.command.field == Operation.C_ECHO:
            self._answer_simply(message, refusal)
        elif message.command.field == Operation.C_FIND:
            find = self._find(message)
            if self._advance(find):
                self._found(find)
            else:
                await self._finish(find)
        else:
            await self._serve_normalized(message)

    def _done(
        self,
        message: Message,
        began: float,
        status: int,
        matches: int = 0,
        error: BaseException | None = None,
        **more: str,
    ) -> None:
        message_id = message.command.message_id
        self._outstanding[message_id] -= 1
        if not self._outstanding[message_id]:
            del self._outstanding[message_id]
            self._cancelled.discard(message_id)
        self._budget.give_back(_counted(message))
        self.served += 1
        self._observe(
            "request_done",
            association=self._association.number,
            calling_ae_title=self._association.calling_ae_title,
            called_ae_title=self._association.called_ae_title,
            operation=_OPERATION_NAMES.get(message.command.field, "other"),
            status=int(status),
            matches=matches,
            milliseconds=_milliseconds_since(began),
            error="" if error is None else type(error).__name__,
            where="" if error is None else where_raised(error),
            **more,
        )

    # C-ECHO, and what is refused here

    def _answer_simply(self, message: Message, refusal: Status | None) -> None:
        began = time.perf_counter()
        status = Status.SUCCESS if refusal is None else refusal
        self._peer.send(simple_response(message, status, self._association.max_length))
        error = None
        if message.command.field == Operation.C_FIND:
            error = self._tell_found(message, status, 0, began)
        self._done(message, began, status, error=error)

    # N-CREATE, N-SET and N-GET

    async def _serve_normalized(self, message: Message) -> None:
        began = time.perf_counter()
        raised: Exception | None = None
        held = 0
        try:
            answer = await self._normalized(message)
        except Exception as error:
            raised, answer = error, NAnswer(Status.PROCESSING_FAILURE, _internal_error(self._association))
        if message.command.field == Operation.N_GET and answer.dataset is not None:
            held = _beyond_small(answer.dataset)
            if not self._budget.take(held):
                held, answer = 0, NAnswer(Status.RESOURCE_LIMITATION, "too much waits to be sent; try again")
        self._peer.send(n_response(message, answer, self._association.max_length))
        # Only what is a UID: whatever else the peer put there is not for the log.
        uid = readable_uid(answer.sop_instance_uid or message.command.sop_instance_uid)
        self._done(message, began, answer.status, error=raised, sop_instance_uid=uid)
        try:
            await self._peer.caught_up()
        finally:
            self._budget.give_back(held)

    async def _normalized(self, message: Message) -> NAnswer:
        service, association = self._service, self._association
        syntax, dataset = self._transfer_syntax(message), message.dataset or b""
        instance = message.command.sop_instance_uid
        if message.command.field == Operation.N_GET:
            return await service.get(association, syntax, instance, message.command.attribute_tags)
        if message.command.field == Operation.N_SET:
            return await service.set(association, syntax, instance, dataset)
        if self._contexts[message.context_id].abstract_syntax == INSTANCE_AVAILABILITY:
            return await service.available(association, syntax, instance, dataset)
        return await service.create(association, syntax, instance or None, dataset)

    # C-FIND

    def _find(self, message: Message) -> "_Find":
        responder = FindResponder(message, self._association.max_length)
        find = _Find(message, responder, _internal_error(self._association))
        find.start(self._service, self._association, self._transfer_syntax(message))
        return find

    def _advance(self, find: "_Find") -> bool:
        """Send one slice of the answer; whether that was all."""
        if self._interrupted or find.message.command.message_id in self._cancelled:
            find.cancel()
        pdus = find.next_slice()
        if pdus:
            self._peer.send(pdus)
        return find.final is not None

    async def _finish(self, find: "_Find") -> None:
        try:
            while not self._ended:
                if self._peer.is_behind:
                    await self._peer.caught_up()
                else:
                    await asyncio.sleep(0)  # the others' turn, and ours to see a C-CANCEL or an A-ABORT
                if self._ended or self._advance(find):
                    break
        finally:
            self._found(find)

    def _found(self, find: "_Find") -> None:
        find.close()
        # Without a final answer nobody is there any more to be told; for the record that is a cancelled query.
        status = find.final.status if find.final is not None else Status.CANCEL
        error = self._tell_found(find.message, status, find.count, find.began)
        self._done(find.message, find.began, status, find.count, find.error or error)

    def _tell_found(self, message: Message, status: int, matches: int, began: float) -> Exception | None:
        """Tell the service; what it raised, if it did."""
        syntax, identifier = self._transfer_syntax(message), message.dataset or b""
        ended = EndedFind(syntax, identifier, int(status), matches, _milliseconds_since(began))
        try:
            self._service.found(self._association, ended)
        except Exception as error:
            return error
        return None

    def _transfer_syntax(self, message: Message) -> str:
        return self._contexts[message.context_id].transfer_syntax


class _Find:
    """The service's answers to one C-FIND, taken in slices of encoded responses."""

    def __init__(self, message: Message, responder: FindResponder, internal_error: str) -> None:
        self.message = message
        self.began = time.perf_counter()
        self.count = 0
        self.error: Exception | None = None
        self.final: FindAnswer | None = None
        self._responder = responder
        self._internal_error = internal_error
        self._answers: Iterator[FindPart] = iter(())

    def start(self, service: DIMSEService, association: Association, transfer_syntax: str) -> None:
        """Ask the service."""
        if self.message.dataset is None:
            self.final = FindAnswer(Status.IDENTIFIER_DOES_NOT_MATCH, comment="C-FIND needs an identifier")
            return
        try:
            self._answers = iter(service.find(association, transfer_syntax, self.message.dataset))
        except Exception as error:
            self._fail(error)

    def cancel(self) -> None:
        """Answer nothing more but that it was cancelled."""
        self.final = FindAnswer(Status.CANCEL)

    def next_slice(self) -> bytes:
        """The next responses, up to `SLICE_BYTES` or `SLICE_S`; with the last one `final` is set."""
        pdus: list[bytes] = []
        if self.final is None:
            try:
                self._collect(pdus)
            except Exception as error:
                self._fail(error)
        if self.final is not None:
            pdus.append(self._responder.final(self.final))
        return b"".join(pdus)

    def _collect(self, pdus: list[bytes]) -> None:
        pending, now = self._responder.pending, time.perf_counter
        size, until = 0, now() + SLICE_S
        for answer in self._answers:
            if isinstance(answer, FindAnswers):
                encoded = self._responder.several(answer)
                pdus.append(encoded)
                self.count += len(answer)
                size += len(encoded)
            elif answer is not None:
                if not answer.is_pending:
                    self.final = answer
                    return
                encoded = pending(answer.identifier or b"", answer.status)
                pdus.append(encoded)
                self.count += 1
                size += len(encoded)
            if size >= SLICE_BYTES or now() >= until:
                return
        raise RuntimeError("the answer ended without a final status")

    def close(self) -> None:
        """Let the service free what it holds for answers that nobody wants any more."""
        close: Any = getattr(self._answers, "close", None)
        if close is not None:
            with contextlib.suppress(Exception):
                close()

    def _fail(self, error: Exception) -> None:
        self.error = error
        self.final = FindAnswer(Status.UNABLE_TO_PROCESS, comment=self._internal_error)


def _counted(message: Message) -> int:
    """The bytes that a waiting request has in the budget of all associations."""
    return _beyond_small(message.dataset or b"")


def _beyond_small(dataset: bytes) -> int:
    return len(dataset) if len(dataset) > SMALL_DATASET_BYTES else 0


def _internal_error(association: Association) -> str:
    # The text of an exception may quote a data set; the number is enough to find it in the log.
    return f"Internal error of the gateway, association {association.number}"


def _milliseconds_since(began: float) -> float:
    return round((time.perf_counter() - began) * 1000, 3)


_OPERATION_NAMES = {operation.value: operation.name.replace("_", "-") for operation in Operation}
"""For the metrics; the peer chooses the number, so what is not here is "other"."""
