"""The DICOM listener: sockets and timers around `wire.upper_layer` and `dimse_requests`, on asyncio.

What may live here: connections, timers, and who is let in. How the requests of an association are answered is
`dimse_requests`; what a worklist or a performed step is, only the `DIMSEService` behind it knows.

Every connection is one `_Connection`. The event loop hands it bytes; the state machine turns them into outputs,
which are carried out at once, and what they ask for is served when all of them are: so a C-CANCEL or an A-ABORT that
came with its request is seen before it.

A peer that is too slow is found by one sweep over all connections, a few times in the shortest time that is allowed:
every connection just notes by when something has to happen. Bytes that complete nothing never move that moment.

A connection without an association is only a promise. When there are too many of them, the one that has waited
longest goes, so a device that asks at once is served in the middle of a flood of connections that never ask.

Events for the log have fixed names and fields, never a value of a data set:

    association_opened    association, calling_ae_title, called_ae_title, remote_host, implementation_version
    association_rejected  association, calling_ae_title, called_ae_title, remote_host, result, source, reason,
                          error (class name), where (module and line of ours)
    association_closed    association, calling_ae_title, requests, milliseconds
    association_aborted   association, calling_ae_title, remote_host, by ("peer" or "gateway"), reason
    request_done          association, calling_ae_title, called_ae_title, operation, status, matches, milliseconds,
                          error, where (as above); of N-CREATE, N-SET and N-GET also sop_instance_uid
    connections_shed      connections (how many were closed for want of room since the last such event)

An `association` number is given to every connection, so it also names one that never became an association.
"""

import asyncio
import contextlib
import socket
import time
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from typing import cast

from gateway.domain.access import Certificate, User
from gateway.edges.dimse_requests import REQUESTS_WAITING_MAX, Requests
from gateway.edges.dimse_service import Admission, Association, DIMSEService, Limits, Observe, unobserved, where_raised
from gateway.edges.tls_listener import TLSListener, TLSPort, certificate_shown
from gateway.wire.dimse import ByteBudget, DIMSEViolation, FindAnswer, MessageAssembler, NAnswer
from gateway.wire.tls_profiles import HELLO_START, TLS_ON_PLAIN_PORT
from gateway.wire.upper_layer import (
    LOCAL_LIMIT_EXCEEDED,
    PDV,
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
from gateway.wire.user_identity import UserIdentity, response_item

__all__ = [
    "REQUESTS_WAITING_MAX",
    "Association",
    "DIMSEServer",
    "DIMSEService",
    "FindAnswer",
    "Limits",
    "NAnswer",
    "Observe",
    "Rejection",
]

LISTEN_BACKLOG = 2_048
"""Connections that the system holds before we accept them: a morning's start of every device at once, and a flood."""

SWEEP_S = 1.0
"""How late at most a peer that is too slow is noticed; sooner where the limits are shorter than eight of these."""

WITH_EVERYTHING = Admission()
"""How somebody is let in of whom the service says nothing else."""

INTERNAL_ERROR = Rejection(2, 1, 1)
"""Transient, no reason given: our own fault at admission, and trying again may help."""

_ABORT_REASONS = {reason.value: reason.name.replace("_", " ").lower() for reason in AbortReason}
_QUICK_ACK: int | None = getattr(socket, "TCP_QUICKACK", None)  # Linux; it holds until the system thinks otherwise
_NEVER = float("inf")


class DIMSEServer:
    """Accepts associations on host and port (0: any free one, then see `port`) until it is stopped.

    With `tls` also over TLS, on a port of its own (`tls_port`); `port` None: there only.
    """

    def __init__(
        self,
        host: str,
        port: int | None,
        service: DIMSEService,
        limits: Limits | None = None,
        observe: Observe = unobserved,
        tls: TLSPort | None = None,
    ) -> None:
        self.port = port or 0
        self._plain = port is not None
        self.service = service
        self.limits = limits = limits or Limits()
        self.observe = observe
        self.budget = ByteBudget(limits.held_bytes_max)
        self._host = host
        self._listeners: list[asyncio.Server] = []
        self._tls = TLSListener("dicom", host, tls, self._new_tls_connection, observe) if tls is not None else None
        self._started = False
        self._stopping = False
        self._number = 0
        self._connections: set[_Connection] = set()
        self._waiting = _WaitingRoom(limits)
        self._shed = 0
        self._associations = 0
        self._per_address: Counter[str] = Counter()
        self._none_left = asyncio.Event()
        self._workers: set[asyncio.Task[None]] = set()
        shortest = min(limits.artim_s, limits.idle_s, limits.pdu_s, limits.message_s, limits.write_stall_s)
        self._sweep_s = min(SWEEP_S, shortest / 8)
        self._sweeper: asyncio.TimerHandle | None = None

    @property
    def associations(self) -> int:
        """How many are open now."""
        return self._associations

    @property
    def connections(self) -> int:
        """How many are open now, with an association or without."""
        return len(self._connections)

    @property
    def tls_port(self) -> int:
        """Where it speaks TLS; 0 where it does not."""
        return self._tls.port if self._tls is not None else 0

    async def start(
        self, sockets: Sequence[socket.socket] = (), tls_sockets: Sequence[socket.socket] = ()
    ) -> None:  # fmt: skip
        """Listen, on these bound sockets where there are any; raises OSError where an address cannot be had."""
        self._started = True
        if self._plain:
            await self._start_plain(sockets)
        if self._tls is not None:
            await self._tls.start(tls_sockets)

    async def _start_plain(self, sockets: Sequence[socket.socket]) -> None:
        loop, backlog = asyncio.get_running_loop(), LISTEN_BACKLOG
        if sockets:
            for each in sockets:
                self._listeners.append(await loop.create_server(self._new_connection, sock=each, backlog=backlog))
        else:
            listener = await loop.create_server(self._new_connection, self._host, self.port, backlog=backlog)
            self._listeners.append(listener)
        self.port = self._listeners[0].sockets[0].getsockname()[1]

    async def stop(self, grace_s: float) -> None:
        """Take no more associations, let requests in progress finish, ask the peers for release, then cut."""
        self._stopping = True
        if not self._started:
            return
        for listener in self._listeners:
            listener.close()
        if self._tls is not None:
            self._tls.close()
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
        for listener in self._listeners:
            await listener.wait_closed()
        if self._sweeper is not None:
            self._sweeper.cancel()
        self._tell_shed()

    async def _gone(self) -> None:
        while self._connections:
            self._none_left.clear()
            await self._none_left.wait()

    def _sweep(self) -> None:
        """Look for peers that are too slow, as long as there is any peer at all."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        for connection in list(self._connections):
            connection.look(now)
        self._tell_shed()
        self._sweeper = loop.call_later(self._sweep_s, self._sweep) if self._connections else None

    def _tell_shed(self) -> None:
        if self._shed:
            self.observe("connections_shed", connections=self._shed)
            self._shed = 0

    # What connections ask of the server

    def _new_connection(self) -> "_Connection":
        self._number += 1
        return _Connection(self, self._number)

    def _new_tls_connection(self) -> "_Connection":
        self._number += 1
        return _TLSConnection(self, self._number)

    def opened(self, connection: "_Connection") -> bool:
        """Take note of a new connection; False where none is wanted any more."""
        self._connections.add(connection)
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().call_later(self._sweep_s, self._sweep)
        if self._stopping:
            return False
        self._wait(connection)
        return True

    def _wait(self, connection: "_Connection") -> None:
        longest = self._waiting.enter(connection)
        if longest is not None:
            self._shed += 1
            longest.give_way()

    def closed(self, connection: "_Connection") -> None:
        """The connection is gone."""
        self._waiting.leave(connection)
        self._connections.discard(connection)
        if not self._connections:
            self._none_left.set()

    def full(self, address: str) -> Rejection | None:
        """Why nobody from this address can be let in now, whoever it is."""
        if self._stopping:
            return TEMPORARY_CONGESTION
        if self._associations >= self.limits.associations_max:
            return LOCAL_LIMIT_EXCEEDED
        if self._per_address[address] >= self.limits.associations_per_address_max:
            return LOCAL_LIMIT_EXCEEDED
        return None

    def admit(
        self, connection: "_Connection", association: Association
    ) -> tuple[Rejection | Admission, Exception | None]:
        """Count the association in, or say why not (with what our own fault was); `dismiss` counts it out."""
        address = association.remote_host
        full = self.full(address)
        if full is not None:
            return full, None
        try:
            decision = self.service.admit(association)
        except Exception as error:
            return INTERNAL_ERROR, error
        if type(decision) is Rejection:
            return decision, None
        self._associations += 1
        self._per_address[address] += 1
        self._waiting.leave(connection)
        return cast(Admission | None, decision) or WITH_EVERYTHING, None

    def dismiss(self, connection: "_Connection", association: Association) -> None:
        """The association has ended, though its connection may not be closed yet."""
        self._associations -= 1
        self._per_address[association.remote_host] -= 1
        if not self._per_address[association.remote_host]:
            del self._per_address[association.remote_host]
        if connection in self._connections:
            self._wait(connection)

    def started(self, worker: "asyncio.Task[None]") -> None:
        """Keep the task alive until it is done."""
        self._workers.add(worker)
        worker.add_done_callback(self._workers.discard)


class _WaitingRoom:
    """Connections without an association, in the order in which they began to wait. Every call takes constant time."""

    def __init__(self, limits: Limits) -> None:
        self._max = limits.waiting_connections_max
        self._per_address_max = limits.waiting_per_address_max
        self._all: OrderedDict[_Connection, None] = OrderedDict()
        self._of: dict[str, OrderedDict[_Connection, None]] = {}

    def enter(self, connection: "_Connection") -> "_Connection | None":
        """Let this one wait; who has to go for it, if somebody has, and does not wait any more then."""
        self._all[connection] = None
        alike = self._of.setdefault(connection.remote_host, OrderedDict())
        alike[connection] = None
        if len(alike) > self._per_address_max:
            longest = next(iter(alike))
        elif len(self._all) > self._max:
            longest = next(iter(self._all))
        else:
            return None
        self.leave(longest)
        return longest

    def leave(self, connection: "_Connection") -> None:
        """This one does not wait any more, if it did."""
        if connection not in self._all:
            return
        del self._all[connection]
        alike = self._of[connection.remote_host]
        del alike[connection]
        if not alike:
            del self._of[connection.remote_host]


class _Connection(asyncio.Protocol):
    """One transport connection and the association on it."""

    tls = False
    certificate: Certificate | None = None

    def __init__(self, server: DIMSEServer, number: int) -> None:
        self._server = server
        self._limits = server.limits
        self._number = number
        self._loop = asyncio.get_running_loop()
        self._machine = Acceptor(server.limits.pdu_bytes_max)
        self._transport: asyncio.Transport | None = None
        self.remote_host = ""
        self._association: Association | None = None  # while one is open
        self._assembler: MessageAssembler | None = None
        self._requests: Requests | None = None
        self._opened_at = 0.0
        self._release_requested = False
        self._leaving = False
        self._resumed: asyncio.Event | None = None  # while the transport's buffer is too full
        # by when something has to happen, in the event loop's time
        self._due = _NEVER  # ARTIM, or the end of idleness
        self._pdu_due = _NEVER
        self._message_due = _NEVER
        self._reading_due = _NEVER

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
        if self._machine.state is State.AWAITING_CLOSE and self._resumed is not None:
            # It reads nothing and goes on sending, and what it sends may call for an answer (AA-7).
            self.cut("the peer does not read")
            return
        outputs = self._machine.receive_data(data)
        self._perform(outputs, "", data)
        if self._requests is not None:
            self._requests.go_on()
            if not self._requests.is_busy:
                self._move_on()
        self._note_progress(completed=bool(outputs))

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.closed(self)
        self._perform(self._machine.connection_closed())
        self.resume_writing()
        # Requests and transport know this connection, too; without the circle it is freed at once.
        self._requests = self._transport = None

    def pause_writing(self) -> None:
        self._resumed = asyncio.Event()
        self._reading_due = self._loop.time() + self._limits.write_stall_s

    def resume_writing(self) -> None:
        self._reading_due = _NEVER
        if self._resumed is not None:
            self._resumed.set()
            self._resumed = None

    # The end of the service

    def shut_down(self) -> None:
        """End politely: release when nothing is in progress any more."""
        self._leaving = True
        if self._requests is not None and self._requests.is_busy:
            return
        if self._machine.state is State.ESTABLISHED:
            self._perform(self._machine.request_release())
        elif self._transport is not None:
            self._perform(self._machine.abort())
            self._transport.close()

    def cut(self, reason: str) -> None:
        """End now; what is buffered is dropped."""
        self._perform(self._machine.abort(), reason)
        if self._transport is not None:
            self._transport.abort()

    def give_way(self) -> None:
        """Close for want of room; nothing is in progress."""
        if self._transport is not None:
            if self._transport.get_write_buffer_size():
                self._transport.abort()
            else:
                self._transport.close()

    # What requests ask of their peer

    @property
    def is_behind(self) -> bool:
        return self._resumed is not None

    def send(self, pdus: bytes) -> None:
        self._write(self._machine.send_data(pdus))

    async def caught_up(self) -> None:
        if self._resumed is not None:
            await self._resumed.wait()

    def all_served(self) -> None:
        if self._association is not None:
            self._due = self._loop.time() + self._limits.idle_s
            self._move_on()

    def _move_on(self) -> None:
        """Nothing is in progress: end what was to end."""
        if self._association is None:
            return
        if self._release_requested:
            self._respond_release()
        elif self._leaving and self._machine.state is State.ESTABLISHED:
            self._perform(self._machine.request_release())

    # Outputs of the state machine

    def _perform(self, outputs: list[Output], reason: str = "", came: bytes = b"") -> None:
        """Carry out what the machine wants; `reason` is why we abort, for the log, `came` what came."""
        for output in outputs:
            # Not a match statement: it would try every class in turn, a fifth of the time that an association takes.
            kind = type(output)
            if kind is DataReceived:
                self._receive(cast(DataReceived, output).pdvs)
            elif kind is SendBytes:
                self._write(cast(SendBytes, output).data)
            elif kind is Signal:
                _SIGNALS[cast(Signal, output)](self)
            elif kind is AssociationRequested:
                self._answer_association(cast(AssociationRequested, output).request)
            elif kind is AssociationRejected:
                self._observe_rejection("", "", cast(AssociationRejected, output).rejection)
            else:
                self._aborted(cast(Aborted, output), reason, came)

    def _start_artim(self) -> None:
        self._due = self._loop.time() + self._limits.artim_s

    def _stop_artim(self) -> None:
        self._due = self._loop.time() + self._limits.idle_s

    def _peer_wants_release(self) -> None:
        self._release_requested = True
        if self._requests is not None:
            self._requests.interrupt()

    def _write(self, data: bytes) -> None:
        if data and self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def _close(self) -> None:
        """Close when all is sent; cut where the peer does not take it in time."""
        if self._transport is not None:
            self._due = self._loop.time() + self._limits.write_stall_s
            self._transport.close()

    # Time

    def _note_progress(self, *, completed: bool) -> None:
        """After bytes came: by when what they began has to be complete. `completed`: at least one PDU now is."""
        if not self._machine.is_receiving:
            self._pdu_due = _NEVER
        elif completed or self._pdu_due == _NEVER:
            self._pdu_due = self._loop.time() + self._limits.pdu_s
        if self._assembler is None or not self._assembler.is_receiving:
            self._message_due = _NEVER
            return
        if self._message_due == _NEVER:
            self._message_due = self._loop.time() + self._limits.message_s
        self._acknowledge_at_once()

    def _acknowledge_at_once(self) -> None:
        """Tell the peer's system now that the beginning of a message has come.

        Many requesters write command and data set apart and leave Nagle's algorithm on: their system holds the second
        back until the first is acknowledged, and ours would take 40 ms for that (measured: 47 ms a query before).
        """
        if _QUICK_ACK is not None and self._transport is not None:
            connection = self._transport.get_extra_info("socket")
            if connection is not None:
                with contextlib.suppress(OSError):  # the connection may be gone already
                    connection.setsockopt(socket.IPPROTO_TCP, _QUICK_ACK, 1)

    def look(self, now: float) -> None:
        """End what is overdue."""
        state = self._machine.state
        if now >= self._reading_due:
            self.cut("the peer does not read")
        elif state is State.IDLE:
            if now >= self._due and self._transport is not None:
                self._transport.abort()
        elif state in (State.AWAITING_REQUEST, State.AWAITING_CLOSE):
            if now >= self._due:
                if state is State.AWAITING_REQUEST:
                    self._observe_abort("gateway", "no association request in time")
                self._perform(self._machine.artim_expired())
        elif now >= self._pdu_due:
            self._perform(self._machine.abort(), "a PDU took too long to arrive")
        elif now >= self._message_due:
            self._perform(self._machine.abort(), "a message took too long to arrive")
        elif now >= self._due:
            if self._requests is not None and self._requests.is_busy:
                self._due = now + self._limits.idle_s
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
            tls=self.tls,
            certificate=self.certificate,
        )
        if request.user_identity is None:
            self._admit(request, association)
        else:
            self._identify(request, association, request.user_identity)

    def _identify(self, request: AssociationRequest, association: Association, identity: UserIdentity) -> None:
        """Find out who the user is before it is decided who may in; the requester waits meanwhile (Sta3)."""
        if self._machine.state is not State.AWAITING_LOCAL_ANSWER:
            return  # aborted by what came with it: no proof is worth its time
        full = self._server.full(association.remote_host)
        if full is not None:
            self._reject(request, full)
            return
        try:
            proof = self._server.service.identify(association, identity)
        except Exception as error:
            self._reject(request, INTERNAL_ERROR, error)
            return
        if proof is None:
            self._admit(request, association)
        else:
            self._server.started(self._loop.create_task(self._prove(request, association, proof)))

    async def _prove(
        self, request: AssociationRequest, association: Association, proof: Awaitable[User | Rejection]
    ) -> None:
        error: Exception | None = None
        try:
            found = await proof
        except Exception as raised:
            found, error = INTERNAL_ERROR, raised
        if self._machine.state is not State.AWAITING_LOCAL_ANSWER:
            return  # the peer has gone, or we have
        if isinstance(found, Rejection):
            self._reject(request, found, error)
        else:
            self._admit(request, replace(association, user=found))

    def _reject(self, request: AssociationRequest, rejection: Rejection, error: Exception | None = None) -> None:
        self._observe_rejection(request.calling_ae_title, request.called_ae_title, rejection, error)
        self._perform(self._machine.reject(rejection))

    def _admit(self, request: AssociationRequest, association: Association) -> None:
        decision, error = self._server.admit(self, association)
        if isinstance(decision, Rejection):
            self._reject(request, decision, error)
            return
        server = self._server
        contexts = request.contexts_of(decision.sop_classes)
        self._association = association
        self._assembler = MessageAssembler(contexts, self._limits.dataset_bytes_max, server.budget)
        self._requests = Requests(
            self, association, contexts, server.service, server.budget, server.observe, server.started
        )
        self._opened_at = time.perf_counter()
        response = _user_response(request.user_identity, association.user)
        self._perform(self._machine.accept(decision.sop_classes, response))
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
        association = self._let_go()
        if association is not None:
            self._server.observe(
                "association_closed",
                association=self._number,
                calling_ae_title=association.calling_ae_title,
                requests=self._requests.served if self._requests is not None else 0,
                milliseconds=round((time.perf_counter() - self._opened_at) * 1000, 3),
            )

    def _let_go(self) -> Association | None:
        """The association that was open until now; what it held is free."""
        association, self._association = self._association, None
        if association is not None and self._requests is not None and self._assembler is not None:
            self._requests.end()
            self._assembler.drop()
            self._server.dismiss(self, association)
        return association

    def _aborted(self, aborted: Aborted, reason: str, came: bytes) -> None:
        if self._association is None and came.startswith(HELLO_START) and not aborted.by_peer:
            reason = TLS_ON_PLAIN_PORT
        if aborted.by_peer and aborted.source is None:
            reason = "connection closed"
        elif not reason:
            reason = _ABORT_REASONS.get(aborted.reason, "reason unknown")
        self._observe_abort("peer" if aborted.by_peer else "gateway", reason)
        self._let_go()

    def _observe_abort(self, by: str, reason: str) -> None:
        self._server.observe(
            "association_aborted",
            association=self._number,
            calling_ae_title=self._association.calling_ae_title if self._association else "",
            remote_host=self.remote_host,
            by=by,
            reason=reason,
        )

    def _observe_rejection(
        self, calling_ae_title: str, called_ae_title: str, rejection: Rejection, error: Exception | None = None
    ) -> None:
        self._server.observe(
            "association_rejected",
            association=self._number,
            calling_ae_title=calling_ae_title,
            called_ae_title=called_ae_title,
            remote_host=self.remote_host,
            result=rejection.result,
            source=rejection.source,
            reason=rejection.reason,
            error="" if error is None else type(error).__name__,
            where="" if error is None else where_raised(error),
        )

    # Messages in

    def _receive(self, pdvs: tuple[PDV, ...]) -> None:
        if self._assembler is None or self._requests is None or self._association is None:
            return  # aborted by what came with it: ARTIM runs, and nothing moves it
        if self._machine.state is State.AWAITING_RELEASE_RESPONSE:
            return  # sent before the peer saw our release request: no answer may follow that (Table 9-10, Sta7)
        self._due = self._loop.time() + self._limits.idle_s
        try:
            for pdv in pdvs:
                message = self._assembler.receive(pdv)
                if message is not None:
                    self._message_due = _NEVER
                    self._requests.take(message)
        except DIMSEViolation as violation:
            self._perform(self._machine.abort(), str(violation))


def _user_response(asked: UserIdentity | None, user: User | None) -> bytes:
    """The answer to a user identity: one that was asked for, and then only if it was proved (PS3.7 D.3.3.7)."""
    is_due = asked is not None and asked.response_requested and user is not None and user.proved
    return response_item() if is_due else b""


class _TLSConnection(_Connection):
    """The same inside TLS; the handshake is done."""

    tls = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.certificate = certificate_shown(transport.get_extra_info("ssl_object"))
        super().connection_made(transport)


_SIGNALS: Mapping[Signal, Callable[[_Connection], None]] = {
    Signal.RELEASE_REQUESTED: _Connection._peer_wants_release,
    Signal.RELEASED: _Connection._respond_release,  # which is needed only if the peer had asked as well (Sta12)
    Signal.START_ARTIM: _Connection._start_artim,
    Signal.STOP_ARTIM: _Connection._stop_artim,
    Signal.CLOSE_CONNECTION: _Connection._close,
}
"""What is done at each signal of the state machine."""
