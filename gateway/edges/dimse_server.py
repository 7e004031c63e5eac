"""The DICOM listener: sockets and timers around `wire.upper_layer` and `wire.dimse`, on asyncio.

What may live here: connections, timers, limits, the order in which requests are served, and nothing that knows what
a worklist or a performed step is: that is the `DIMSEService` given to the server.

Every connection is one `_Connection`. The event loop hands it bytes; the state machine turns them into outputs,
which are carried out at once. Requests go into a short queue that one task per connection works off in order, so an
association is served sequentially (asynchronous operations are negotiated to 1) while C-CANCEL, A-ABORT and
A-RELEASE are seen as they arrive. A long C-FIND answer leaves in slices with a turn of the event loop between them:
nobody else waits longer than `SLICE_S` for it.

Events for the log have fixed names and fields, never a value of a data set:

    association_opened    association, calling_ae_title, called_ae_title, remote_host, implementation_version
    association_rejected  association, calling_ae_title, called_ae_title, remote_host, result, source, reason
    association_closed    association, calling_ae_title, requests, milliseconds
    association_aborted   association, calling_ae_title, remote_host, by ("peer" or "gateway"), reason
    request_done          association, calling_ae_title, called_ae_title, operation, status, matches, milliseconds,
                          error (class name)

An `association` number is given to every connection, so it also names one that never became an association.
"""

import asyncio
import contextlib
import time
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, cast

from gateway.wire.dimse import (
    DIMSEViolation,
    FindAnswer,
    FindResponder,
    Message,
    MessageAssembler,
    NAnswer,
    Operation,
    Status,
    n_response,
    refusal_of,
    simple_response,
)
from gateway.wire.upper_layer import (
    LOCAL_LIMIT_EXCEEDED,
    TEMPORARY_CONGESTION,
    Aborted,
    AbortReason,
    Acceptor,
    AssociationRejected,
    AssociationRequest,
    AssociationRequested,
    DataReceived,
    Output,
    Rejection,
    SendBytes,
    Signal,
    State,
)

__all__ = ["Association", "DIMSEServer", "DIMSEService", "FindAnswer", "Limits", "NAnswer", "Observe", "Rejection"]

SLICE_S = 0.002
"""How long matches are collected before the event loop gets its turn: small beside the 5 ms that a person or a
benchmark would notice, large beside the 20 microseconds that a turn costs."""

SLICE_BYTES = 65_536
"""How many bytes are collected at most before they are written: one full socket buffer, so memory stays flat."""

REQUESTS_WAITING_MAX = 8
"""Requests held while one is served. One at a time is negotiated; some devices echo or cancel out of turn."""

LISTEN_BACKLOG = 512
"""Connections that the system holds before we accept them: a morning's start of every device at once."""

INTERNAL_ERROR = Rejection(2, 1, 1)
"""Transient, no reason given: our own fault at admission, and trying again may help."""


_ABORT_REASONS = {reason.value: reason.name.replace("_", " ").lower() for reason in AbortReason}


@dataclass(frozen=True, slots=True)
class Limits:
    """What the listener bears. Beyond it a peer is refused in the protocol's words, and others are served.

    Memory is bounded by `associations_max` times (`dataset_bytes_max`, twice while requests wait, + the write buffer).
    """

    associations_max: int = 256
    """In all. Then A-ASSOCIATE-RJ, transient, local limit exceeded."""
    associations_per_address_max: int = 64
    """From one network address; above one, since gateways and load balancers stand for many devices."""
    waiting_connections_max: int = 128
    """Connections without an association, before or after it. Then the newest is closed: it has no way to be told."""
    waiting_per_address_max: int = 32
    """The same from one network address, so that a scanner of ports or a failing device shuts out only itself."""
    pdu_bytes_max: int = 16_384
    """Our maximum length, as most toolkits announce it. A longer P-DATA-TF is answered with an A-ABORT."""
    dataset_bytes_max: int = 8_388_608
    """One data set. A final N-SET with 20,000 image references has 4 MB."""
    artim_s: float = 30.0
    """For the A-ASSOCIATE-RQ to come, and for the peer to close after the end (PS3.8 9.1.5)."""
    idle_s: float = 600.0
    """Without a PDU and without a request in progress, then A-ABORT. Devices keep associations while a person picks."""
    write_stall_s: float = 60.0
    """For a peer that does not read to take what is buffered (64 KiB), then the connection is cut."""


@dataclass(frozen=True, slots=True)
class Association:
    """Who is calling. `max_length` is the longest P-DATA-TF the peer takes, in bytes, 0 for no limit.

    `worklist_negotiation` holds the SOP Class Extended Negotiation that was offered for the worklist (PS3.4 K.5.1);
    it is always answered with no fuzzy matching and no time zone adjustment.
    """

    number: int
    calling_ae_title: str
    called_ae_title: str
    remote_host: str
    implementation_version: str
    max_length: int
    worklist_negotiation: bytes = b""


class DIMSEService(Protocol):
    """What is behind the listener. Whatever a method raises is answered as an internal error of that request only."""

    def admit(self, association: Association) -> Rejection | None:
        """Why this caller may not in; None lets it in. Called on the event loop: no waiting."""

    def find(self, association: Association, transfer_syntax: str, identifier: bytes) -> Iterator[FindAnswer | None]:
        """Pending answers with identifiers in that transfer syntax, then one answer with the final status.

        Pulled on the event loop as the peer reads; closed early on C-CANCEL and when the association ends.
        """

    async def create(
        self, association: Association, transfer_syntax: str, sop_instance_uid: str | None, dataset: bytes
    ) -> NAnswer:
        """N-CREATE of a performed step; the answer leaves when this returns."""

    async def set(
        self, association: Association, transfer_syntax: str, sop_instance_uid: str, dataset: bytes
    ) -> NAnswer:
        """N-SET of a performed step; the answer leaves when this returns."""


class Observe(Protocol):
    """Takes events for logs and metrics; names and fields are those of the module's docstring."""

    def __call__(self, event: str, /, **fields: object) -> None: ...


def _unobserved(event: str, /, **fields: object) -> None:
    """Nobody listens."""


class DIMSEServer:
    """Accepts associations on host and port (0: any free one, then see `port`) until it is stopped."""

    def __init__(
        self,
        host: str,
        port: int,
        service: DIMSEService,
        limits: Limits = Limits(),
        observe: Observe = _unobserved,
    ) -> None:
        self.port = port
        self.service = service
        self.limits = limits
        self.observe = observe
        self._host = host
        self._listener: asyncio.Server | None = None
        self._stopping = False
        self._number = 0
        self._connections: set[_Connection] = set()
        self._associations = 0
        self._per_address: Counter[str] = Counter()
        self._none_left = asyncio.Event()
        self._workers: set[asyncio.Task[None]] = set()

    @property
    def associations(self) -> int:
        """How many are open now."""
        return self._associations

    async def start(self) -> None:
        """Listen; raises OSError where the address cannot be had."""
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(self._new_connection, self._host, self.port, backlog=LISTEN_BACKLOG)
        self.port = self._listener.sockets[0].getsockname()[1]

    async def stop(self, grace_s: float) -> None:
        """Take no more associations, let requests in progress finish, ask the peers for release, then cut."""
        self._stopping = True
        if self._listener is None:
            return
        self._listener.close()
        for connection in list(self._connections):
            connection.shut_down()
        try:
            async with asyncio.timeout(grace_s):
                await self._gone()
        except TimeoutError:
            for connection in list(self._connections):
                connection.cut("the gateway stops")
            await self._gone()
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)
        await self._listener.wait_closed()

    async def _gone(self) -> None:
        while self._connections:
            self._none_left.clear()
            await self._none_left.wait()

    # What connections ask of the server

    def _new_connection(self) -> "_Connection":
        self._number += 1
        return _Connection(self, self._number)

    def opened(self, connection: "_Connection") -> bool:
        """Whether there is room for one more connection."""
        self._connections.add(connection)
        waiting = len(self._connections) - self._associations
        if self._stopping or waiting > self.limits.waiting_connections_max:
            return False
        alike = sum(each.remote_host == connection.remote_host for each in self._connections)
        admitted = self._per_address[connection.remote_host]
        return alike - admitted <= self.limits.waiting_per_address_max

    def closed(self, connection: "_Connection") -> None:
        """The connection is gone."""
        self._connections.discard(connection)
        if not self._connections:
            self._none_left.set()

    def admit(self, association: Association) -> Rejection | None:
        """Count the association in, or say why not; `dismiss` counts it out."""
        address = association.remote_host
        if self._stopping:
            return TEMPORARY_CONGESTION
        if self._associations >= self.limits.associations_max:
            return LOCAL_LIMIT_EXCEEDED
        if self._per_address[address] >= self.limits.associations_per_address_max:
            return LOCAL_LIMIT_EXCEEDED
        try:
            rejection = self.service.admit(association)
        except Exception:
            rejection = INTERNAL_ERROR
        if rejection is None:
            self._associations += 1
            self._per_address[address] += 1
        return rejection

    def dismiss(self, association: Association) -> None:
        """The association has ended, though its connection may not be closed yet."""
        self._associations -= 1
        self._per_address[association.remote_host] -= 1
        if not self._per_address[association.remote_host]:
            del self._per_address[association.remote_host]

    def started(self, worker: "asyncio.Task[None]") -> None:
        """Keep the task alive until it is done."""
        self._workers.add(worker)
        worker.add_done_callback(self._workers.discard)


class _Connection(asyncio.Protocol):
    """One transport connection and the association on it."""

    def __init__(self, server: DIMSEServer, number: int) -> None:
        self._server = server
        self._limits = server.limits
        self._number = number
        self._loop = asyncio.get_running_loop()
        self._machine = Acceptor(server.limits.pdu_bytes_max)
        self._transport: asyncio.Transport | None = None
        self.remote_host = ""
        self._request: AssociationRequest | None = None
        self._association: Association | None = None  # while one is open
        self._assembler: MessageAssembler | None = None
        self._opened_at = 0.0
        self._served = 0
        # requests
        self._waiting: deque[tuple[Message, Status | None]] = deque()
        self._waiting_bytes = 0
        self._outstanding: dict[int, int] = {}  # Message ID, and how many requests bear it
        self._cancelled: set[int] = set()
        self._worker: asyncio.Task[None] | None = None
        self._release_requested = False
        self._leaving = False
        # the transport's back-pressure, and the one timer
        self._resumed: asyncio.Event | None = None
        self._deadline = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0

    # asyncio's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self.remote_host = peer[0] if peer else ""
        if not self._server.opened(self):
            self._transport.abort()
            return
        self._perform(self._machine.connection_opened())

    def data_received(self, data: bytes) -> None:
        self._perform(self._machine.receive_data(data))

    def connection_lost(self, exc: Exception | None) -> None:
        self._perform(self._machine.connection_closed())
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.resume_writing()
        self._server.closed(self)

    def pause_writing(self) -> None:
        self._resumed = asyncio.Event()

    def resume_writing(self) -> None:
        if self._resumed is not None:
            self._resumed.set()
            self._resumed = None

    # The end of the service

    def shut_down(self) -> None:
        """End politely: release when nothing is in progress any more."""
        self._leaving = True
        if self._machine.state is State.ESTABLISHED:
            if self._worker is None:
                self._perform(self._machine.request_release())
        elif self._worker is None and self._transport is not None:
            self._perform(self._machine.abort())
            self._transport.close()

    def cut(self, reason: str) -> None:
        """End now; what is buffered is dropped."""
        self._perform(self._machine.abort(), reason)
        if self._transport is not None:
            self._transport.abort()

    # Outputs of the state machine

    def _perform(self, outputs: list[Output], reason: str = "") -> None:
        """Carry out what the machine wants; `reason` is why we abort, for the log."""
        for output in outputs:
            match output:
                case SendBytes(data):
                    self._write(data)
                case DataReceived():
                    self._receive(output)
                case AssociationRequested(request):
                    self._answer_association(request)
                case Signal.RELEASE_REQUESTED:
                    self._release_requested = True
                    if self._worker is None:
                        self._respond_release()
                case Signal.START_ARTIM:
                    self._set_deadline(self._limits.artim_s)
                case Signal.STOP_ARTIM:
                    self._set_deadline(self._limits.idle_s)
                case Signal.CLOSE_CONNECTION:
                    self._close()
                case Signal.RELEASED:
                    self._respond_release()  # which is needed only if the peer had asked as well (Sta12)
                case Aborted():
                    self._aborted(output, reason)
                case AssociationRejected(rejection):
                    self._observe_rejection("", "", rejection)

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def _close(self) -> None:
        """Close when all is sent; cut where the peer does not take it in time."""
        if self._transport is None:
            return
        if self._transport.get_write_buffer_size():
            self._loop.call_later(self._limits.write_stall_s, self._transport.abort)
        self._transport.close()

    # The one timer: ARTIM before and after the association, idleness during it

    def _set_deadline(self, seconds: float) -> None:
        """Only a nearer deadline touches the event loop's timers: most PDUs just move it away."""
        self._deadline = self._loop.time() + seconds
        if self._timer is None or self._timer_at > self._deadline:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = self._deadline
            self._timer = self._loop.call_at(self._deadline, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if self._loop.time() < self._deadline:
            self._set_deadline(self._deadline - self._loop.time())
        elif self._machine.state is State.AWAITING_REQUEST:
            self._observe_abort("gateway", "no association request in time")
            self._perform(self._machine.artim_expired())
        elif self._machine.state is State.AWAITING_CLOSE:
            self._perform(self._machine.artim_expired())
        elif self._worker is not None:
            self._set_deadline(self._limits.idle_s)
        else:
            self._perform(self._machine.abort(), "idle for too long")

    # The association

    def _answer_association(self, request: AssociationRequest) -> None:
        association = Association(
            number=self._number,
            calling_ae_title=request.calling_ae_title,
            called_ae_title=request.called_ae_title,
            remote_host=self.remote_host,
            implementation_version=request.implementation_version,
            max_length=request.max_length,
            worklist_negotiation=request.worklist_negotiation,
        )
        rejection = self._server.admit(association)
        if rejection is not None:
            self._observe_rejection(request.calling_ae_title, request.called_ae_title, rejection)
            self._perform(self._machine.reject(rejection))
            return
        self._request = request
        self._association = association
        self._assembler = MessageAssembler(request.contexts, self._limits.dataset_bytes_max)
        self._opened_at = time.perf_counter()
        self._perform(self._machine.accept())
        self._server.observe(
            "association_opened",
            association=self._number,
            calling_ae_title=association.calling_ae_title,
            called_ae_title=association.called_ae_title,
            remote_host=association.remote_host,
            implementation_version=association.implementation_version,
        )

    def _respond_release(self) -> None:
        self._end_association()
        self._perform(self._machine.respond_release())

    def _end_association(self) -> None:
        """Released, by either side."""
        association, self._association = self._association, None
        if association is not None:
            self._server.dismiss(association)
            self._server.observe(
                "association_closed",
                association=self._number,
                calling_ae_title=association.calling_ae_title,
                requests=self._served,
                milliseconds=_milliseconds_since(self._opened_at),
            )

    def _aborted(self, aborted: Aborted, reason: str) -> None:
        if aborted.by_peer and aborted.source is None:
            reason = "connection closed"
        elif not reason:
            reason = _ABORT_REASONS.get(aborted.reason, "reason unknown")
        self._observe_abort("peer" if aborted.by_peer else "gateway", reason)
        association, self._association = self._association, None
        if association is not None:
            self._server.dismiss(association)

    def _observe_abort(self, by: str, reason: str) -> None:
        self._server.observe(
            "association_aborted",
            association=self._number,
            calling_ae_title=self._association.calling_ae_title if self._association else "",
            remote_host=self.remote_host,
            by=by,
            reason=reason,
        )

    def _observe_rejection(self, calling_ae_title: str, called_ae_title: str, rejection: Rejection) -> None:
        self._server.observe(
            "association_rejected",
            association=self._number,
            calling_ae_title=calling_ae_title,
            called_ae_title=called_ae_title,
            remote_host=self.remote_host,
            result=rejection.result,
            source=rejection.source,
            reason=rejection.reason,
        )

    # Messages in

    def _receive(self, received: DataReceived) -> None:
        self._set_deadline(self._limits.idle_s)
        if self._assembler is None or self._association is None:
            return
        if self._machine.state is State.AWAITING_RELEASE_RESPONSE:
            return  # sent before the peer saw our release request: no answer may follow that (Table 9-10, Sta7)
        try:
            for pdv in received.pdvs:
                message = self._assembler.receive(pdv)
                if message is not None:
                    self._take(message)
        except DIMSEViolation as violation:
            self._perform(self._machine.abort(), str(violation))

    def _take(self, message: Message) -> None:
        """Note a cancellation, queue a request; raises DIMSEViolation for what no requester may send."""
        command = message.command
        if command.is_response:
            raise DIMSEViolation("response to a request that was never sent")
        if command.field == Operation.C_CANCEL:
            if command.responds_to in self._outstanding:
                self._cancelled.add(command.responds_to)
            return
        size = len(message.dataset or b"")
        if len(self._waiting) >= REQUESTS_WAITING_MAX or self._waiting_bytes + size > self._limits.dataset_bytes_max:
            raise DIMSEViolation("too many requests at once")
        refusal = refusal_of(command, self._abstract_syntax(message))
        # 0210 is not among the statuses of C-FIND (PS3.7 9.1.2.1.6), and in turn both can be answered anyway.
        if refusal is None and command.message_id in self._outstanding and command.field != Operation.C_FIND:
            refusal = Status.DUPLICATE_INVOCATION
        self._waiting.append((message, refusal))
        self._waiting_bytes += size
        self._outstanding[command.message_id] = self._outstanding.get(command.message_id, 0) + 1
        if self._worker is None:
            self._worker = self._loop.create_task(self._work())
            self._server.started(self._worker)

    def _abstract_syntax(self, message: Message) -> str:
        assert self._request is not None  # noqa: S101  (messages exist only in an association)
        return self._request.contexts[message.context_id].abstract_syntax

    def _transfer_syntax(self, message: Message) -> str:
        assert self._request is not None  # noqa: S101  (as above)
        return self._request.contexts[message.context_id].transfer_syntax

    # Requests, one after the other

    async def _work(self) -> None:
        try:
            while self._waiting and self._association is not None:
                message, refusal = self._waiting.popleft()
                self._waiting_bytes -= len(message.dataset or b"")
                await self._serve(self._association, message, refusal)
                self._forget(message.command.message_id)
        except Exception as error:  # a defect of ours must not leave the peer waiting
            self.cut(f"internal error: {type(error).__name__}")
        finally:
            self._worker = None
        if self._association is None:
            self._waiting.clear()
        elif self._release_requested:
            self._respond_release()
        elif self._leaving:
            self._perform(self._machine.request_release())
        else:
            self._set_deadline(self._limits.idle_s)

    def _forget(self, message_id: int) -> None:
        self._outstanding[message_id] -= 1
        if not self._outstanding[message_id]:
            del self._outstanding[message_id]
            self._cancelled.discard(message_id)

    async def _serve(self, association: Association, message: Message, refusal: Status | None) -> None:
        began = time.perf_counter()
        operation = message.command.field
        matches, error = 0, ""
        if refusal is not None:
            status: int = refusal
            await self._respond(simple_response(message, status, association.max_length))
        elif operation == Operation.C_ECHO:
            status = Status.SUCCESS
            await self._respond(simple_response(message, status, association.max_length))
        elif operation == Operation.C_FIND:
            status, matches, error = await self._find(association, message)
        else:
            answer, error = await self._create_or_set(association, message)
            status = answer.status
            await self._respond(n_response(message, answer, association.max_length))
        self._served += 1
        self._server.observe(
            "request_done",
            association=self._number,
            calling_ae_title=association.calling_ae_title,
            called_ae_title=association.called_ae_title,
            operation=_operation_name(operation),
            status=int(status),
            matches=matches,
            milliseconds=_milliseconds_since(began),
            error=error,
        )

    async def _respond(self, pdus: bytes) -> None:
        """Send, and wait while the peer is behind with reading."""
        self._write(self._machine.send_data(pdus))
        if self._resumed is not None:
            try:
                async with asyncio.timeout(self._limits.write_stall_s):
                    await self._resumed.wait()
            except TimeoutError:
                self.cut("the peer does not read")

    async def _create_or_set(self, association: Association, message: Message) -> tuple[NAnswer, str]:
        """The service's answer, and the class of what it raised, if it raised."""
        service, instance = self._server.service, message.command.sop_instance_uid
        syntax, dataset = self._transfer_syntax(message), message.dataset or b""
        try:
            if message.command.field == Operation.N_CREATE:
                return await service.create(association, syntax, instance or None, dataset), ""
            return await service.set(association, syntax, instance, dataset), ""
        except Exception as error:
            return NAnswer(Status.PROCESSING_FAILURE, self._internal_error()), type(error).__name__

    def _internal_error(self) -> str:
        # The text of an exception may quote a data set; the number is enough to find it in the log.
        return f"Internal error of the gateway, association {self._number}"

    async def _find(self, association: Association, message: Message) -> tuple[int, int, str]:
        """Stream the answers; returns the final status, the number of matches, and the class of an exception."""
        responder = FindResponder(message, association.max_length)
        if message.dataset is None:
            final = FindAnswer(Status.IDENTIFIER_DOES_NOT_MATCH, comment="C-FIND needs an identifier")
            await self._respond(responder.final(final))
            return final.status, 0, ""
        matches = _Matches(responder, self._internal_error())
        try:
            matches.start(self._server.service, association, self._transfer_syntax(message), message.dataset)
            while self._association is not None:
                if message.command.message_id in self._cancelled or self._release_requested:
                    matches.final = FindAnswer(Status.CANCEL)
                    await self._respond(responder.final(matches.final))
                    break
                await self._respond(matches.next_slice())
                if matches.final is not None:
                    break
                await asyncio.sleep(0)  # the others' turn, and ours to see a C-CANCEL or an A-ABORT
        finally:
            matches.close()
        # Without a final answer nobody is there any more to be told; for the log that is a cancelled query.
        status = matches.final.status if matches.final is not None else Status.CANCEL
        return status, matches.count, matches.error


_ENDED = FindAnswer(Status.UNABLE_TO_PROCESS)


class _Matches:
    """The service's answers to one C-FIND, taken in slices of encoded responses."""

    def __init__(self, responder: FindResponder, internal_error: str) -> None:
        self.count = 0
        self.error = ""
        self.final: FindAnswer | None = None
        self._responder = responder
        self._internal_error = internal_error
        self._answers: Iterator[FindAnswer | None] = iter(())

    def start(self, service: DIMSEService, association: Association, syntax: str, identifier: bytes) -> None:
        """Ask the service."""
        try:
            self._answers = iter(service.find(association, syntax, identifier))
        except Exception as error:
            self._fail(error)

    def next_slice(self) -> bytes:
        """The next responses, up to `SLICE_BYTES` or `SLICE_S`; with the last one `final` is set."""
        pdus: list[bytes] = []
        size, until = 0, time.perf_counter() + SLICE_S
        try:
            while self.final is None:
                answer = next(self._answers, _ENDED)
                if answer is _ENDED:
                    raise RuntimeError("the answer ended without a final status")
                if answer is None:
                    if time.perf_counter() >= until:
                        break
                    continue
                if not answer.is_pending:
                    self.final = answer
                    break
                encoded = self._responder.pending(answer.identifier or b"", answer.status)
                pdus.append(encoded)
                self.count += 1
                size += len(encoded)
                if size >= SLICE_BYTES or time.perf_counter() >= until:
                    break
        except Exception as error:
            self._fail(error)
        if self.final is not None:
            pdus.append(self._responder.final(self.final))
        return b"".join(pdus)

    def close(self) -> None:
        """Let the service free what it holds for answers that nobody wants any more."""
        close: Any = getattr(self._answers, "close", None)
        if close is not None:
            with contextlib.suppress(Exception):
                close()

    def _fail(self, error: Exception) -> None:
        self.error = type(error).__name__
        self.final = FindAnswer(Status.UNABLE_TO_PROCESS, comment=self._internal_error)


def _milliseconds_since(began: float) -> float:
    return round((time.perf_counter() - began) * 1000, 3)


_OPERATION_NAMES = {operation.value: operation.name.replace("_", "-") for operation in Operation}


def _operation_name(operation: int) -> str:
    return _OPERATION_NAMES.get(operation, "other")  # the peer chooses the number, and metrics are labelled by it
