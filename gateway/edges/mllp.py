"""HL7 v2 over MLLP on asyncio: the listener, and the small client that the demo, the tests and load tools use.

What a message means is decided by the two functions the listener is given; here are only connections, their limits and
their time. The rules:

1. One message at a time per connection, answered in the order received. While one is worked on nothing more is read,
   so a sender who runs ahead is held back by TCP.
2. Every message gets an answer, also the one that broke on its way or made our own code fail; only then may a
   connection be closed.
3. Idle connections stay open (HL7 senders connect once and keep the connection for weeks); half a frame does not.
   Only where there is no room for another does the oldest one go that has never said anything.
4. In release 2 every block is confirmed before it is answered; what could not be stored is not answered at all,
   because its sender will send it again.

Logs are written by the injected `observe`; it gets names, counts and addresses, never content.
"""

import asyncio
import contextlib
import itertools
import socket
import ssl
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Literal, Protocol, Self, TypeAlias

from gateway.domain.access import Certificate
from gateway.domain.refusal import Refusal, RefusalKind
from gateway.edges.tls_listener import TLSListener, TLSPort, certificate_shown
from gateway.wire.ack import acknowledge
from gateway.wire.mllp import FRAME_BYTES_MAX, Broken, Commit, Event, Frame, Framer, Junk, commit, wrap
from gateway.wire.tls_profiles import HELLO_START, TLS_ON_PLAIN_PORT

Release: TypeAlias = Literal[1, 2]
"""Of MLLP."""

_CHUNK_BYTES = 64 * 1024  # a whole common message in one read; the stream's buffer holds twice that at most
_KEEP_ALIVE_S, _KEEP_ALIVE_EVERY_S, _KEEP_ALIVE_PROBES = 60, 15, 4  # a dead peer is found within two minutes


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end of a connection; `connection` counts up from 1 per listener.

    `certificate` is what it showed and TLS verified.
    """

    listener: str
    host: str
    port: int
    connection: int
    tls: bool = False
    certificate: Certificate | None = None

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class MLLPLimits:
    """What one listener allows. Times are in seconds, None for no limit."""

    frame_bytes_max: int = FRAME_BYTES_MAX
    connections_max: int = 200
    """A large hospital has some dozen sending systems. Times `frame_bytes_max` this bounds the memory for input."""
    connections_per_peer_max: int = 50
    """One interface engine may open a connection per channel; a runaway one must leave room for the others."""
    idle_timeout_s: float | None = None
    """Senders stay connected between messages; dead ones are found by TCP keep-alive."""
    frame_timeout_s: float = 60.0
    """From a frame's first byte to its last: a megabyte at 150 kbit/s."""
    answer_timeout_s: float = 30.0
    """To take an answer from us; a sender who never reads would keep a connection for ever."""
    stop_timeout_s: float = 10.0
    """For what is being worked on when the listener stops."""


class Observe(Protocol):
    """Takes one event for the log: a fixed name, and fields without message content."""

    def __call__(self, event: str, /, **fields: Any) -> None: ...


@dataclass(frozen=True, slots=True)
class Reply:
    """What a frame came to: the answers in their order, unframed, and whether what it held is on disk.

    Most frames have one answer; a message that wants none has none, several messages in one frame may have several.
    """

    answers: Sequence[bytes] = field(default=(), repr=False)
    stored: bool = True


Receive = Callable[[bytes, Peer], Awaitable[Reply]]
"""A frame's data -> the reply, when everything is on disk."""

Reject = Callable[[bytes, Refusal, Peer], Awaitable[bytes]]
"""What is no frame, or could not be worked on, and why -> the answer, archived likewise; b"" for none."""


Deny = Callable[[Peer], str]
"""In a word why this peer may not send here; "" lets it."""


def _deny_nobody(peer: Peer) -> str:
    return ""


def _observe_nothing(event: str, /, **fields: Any) -> None:
    """For a listener whose events nobody wants."""


class _Connection:
    """One sender's connection, from accept to close."""

    def __init__(self, peer: Peer, writer: asyncio.StreamWriter, task: asyncio.Task[Any]) -> None:
        self.peer = peer
        self.writer = writer
        self.task = task
        self.busy = False
        """Whether a message is between having been read and having been answered."""
        self.silent = True
        """Whether nothing has come by it yet."""
        self.ended = ""
        """Why we end it, where it is not the peer who does."""
        self._room = writer.transport.get_write_buffer_limits()[1]

    @property
    def is_behind(self) -> bool:
        """Whether the peer has so much of our answers yet to take that `drain` waits for it."""
        return self.writer.transport.get_write_buffer_size() > self._room


class MLLPListener:
    """Listens on one address and hands every message to `receive`.

    With `tls` also over TLS, on a port of its own (`tls_port`); `port` None: there only.

    `reject` is called for what arrived broken, for bytes outside any frame (its answer is then not sent, since the
    sender would take it for the answer to something else), and when `receive` raises, so that the sender gets a
    transient refusal and sends again.
    """

    def __init__(
        self,
        name: str,
        host: str,
        port: int | None,
        receive: Receive,
        reject: Reject,
        limits: MLLPLimits | None = None,
        observe: Observe = _observe_nothing,
        release: Release = 1,
        tls: TLSPort | None = None,
    ) -> None:
        self.name = name
        self.host = host
        self._plain = port is not None
        self.port = port or 0
        """After `start` the port really bound, also where 0 was asked for."""
        self.deny: Deny = _deny_nobody
        self._receive = receive
        self._reject = reject
        self._limits = limits or MLLPLimits()
        self._observe = observe
        self._release = release
        self._servers: list[asyncio.Server] = []
        self._tls = TLSListener(name, host, tls, self._new_stream, observe) if tls is not None else None
        self._connections: dict[_Connection, None] = {}  # in the order they came
        self._per_host: Counter[str] = Counter()
        self._numbers = itertools.count(1)
        self._stopping = False

    @property
    def connections(self) -> int:
        """How many are open now."""
        return len(self._connections)

    @property
    def tls_port(self) -> int:
        """Where it speaks TLS; 0 where it does not."""
        return self._tls.port if self._tls is not None else 0

    async def start(
        self, sockets: Sequence[socket.socket] = (), tls_sockets: Sequence[socket.socket] = ()
    ) -> None:  # fmt: skip
        """Listen on these sockets, or bind and listen. Raises OSError where an address cannot be had."""
        self._stopping = False
        if self._plain:
            await self._start_plain(sockets)
            self._observe("mllp_listening", listener=self.name, host=self.host, port=self.port)
        if self._tls is not None:
            await self._tls.start(tls_sockets)
            self._observe("mllp_listening", listener=self.name, host=self.host, port=self._tls.port, tls=True)

    async def _start_plain(self, sockets: Sequence[socket.socket]) -> None:
        if sockets:
            self._servers = [await asyncio.start_server(self._serve, sock=each, limit=_CHUNK_BYTES) for each in sockets]
        else:
            self._servers = [await asyncio.start_server(self._serve, self.host, self.port, limit=_CHUNK_BYTES)]
        self.port = self._servers[0].sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Accept nothing more, finish and answer the message each connection is working on, then close."""
        self._stopping = True
        for server in self._servers:
            server.close()
        if self._tls is not None:
            self._tls.close()
        for connection in self._connections:
            if not connection.busy:
                connection.task.cancel()
        tasks = {connection.task for connection in self._connections}
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=self._limits.stop_timeout_s)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)
        self._servers = []
        self._observe("mllp_stopped", listener=self.name)

    def reconsider(self) -> None:
        """Ask of every open connection whether its peer may still send, and end those that may not: at once, or with
        the answer to what is being worked on. Called when `deny` has changed its mind, so that no frame costs more."""
        for connection in list(self._connections):
            denial = "" if connection.ended else self.deny(connection.peer)
            if denial:
                self._note("mllp_caller_denied", connection.peer, reason=denial)
                connection.ended = f"may not send any more: {denial}"
                if not connection.busy:
                    connection.task.cancel()

    def _new_stream(self) -> asyncio.Protocol:
        """What `asyncio.start_server` makes of a connection, for one whose TLS handshake is done."""
        return asyncio.StreamReaderProtocol(asyncio.StreamReader(limit=_CHUNK_BYTES), self._serve)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        address = writer.get_extra_info("peername") or ("", 0)  # a peer may be gone before it is looked at
        peer = Peer(self.name, address[0], address[1], next(self._numbers), *_shown(writer))
        task = asyncio.current_task()
        if task is None or not self._admitted(peer):
            writer.close()
            return
        connection = _Connection(peer, writer, task)
        self._connections[connection] = None
        self._per_host[peer.host] += 1
        self._note("mllp_connection_opened", peer)
        reason = "closed by peer"
        try:
            _keep_alive(writer)
            reason = await self._converse(connection, reader)
        except OSError as error:  # the peer went away, or does not take its answer; nothing is left to send
            reason = type(error).__name__
            writer.transport.abort()
        except asyncio.CancelledError:
            # Only we cancel; the task ends here on purpose, after closing what it holds.
            reason = connection.ended or "listener stopped"
        finally:
            self._forget(connection)
            unsent = writer.transport.get_write_buffer_size()  # before: asyncio's TLS transport forgets it
            writer.close()
            if unsent:  # a peer that never takes the rest would keep it for ever
                asyncio.get_running_loop().call_later(self._limits.answer_timeout_s, writer.transport.abort)
            self._note("mllp_connection_closed", peer, reason=reason)

    def _admitted(self, peer: Peer) -> bool:
        if self._stopping:
            return False
        denial = self.deny(peer)
        if denial:
            self._note("mllp_caller_denied", peer, reason=denial)
            return False
        limits = self._limits
        crowded = self._per_host[peer.host] >= limits.connections_per_peer_max
        if crowded and not self._make_room(peer.host):
            self._note("mllp_connection_refused", peer, limit="connections_per_peer_max")
            return False
        if len(self._connections) >= limits.connections_max and not self._make_room():
            self._note("mllp_connection_refused", peer, limit="connections_max")
            return False
        return True

    def _make_room(self, host: str = "") -> bool:
        """End the oldest connection (of this host, where one is named) that has never said anything, if there is one.

        So idle connections, however many, lock nobody out, and no message is lost.
        """
        for connection in self._connections:
            if connection.silent and host in ("", connection.peer.host):
                connection.ended = "made room for another"
                connection.task.cancel()
                self._forget(connection)
                return True
        return False

    def _forget(self, connection: _Connection) -> None:
        if connection not in self._connections:
            return
        del self._connections[connection]
        host = connection.peer.host
        self._per_host[host] -= 1
        if not self._per_host[host]:
            del self._per_host[host]

    async def _converse(self, connection: _Connection, reader: asyncio.StreamReader) -> str:
        """Read and answer until either side ends it; says why it ended."""
        framer = Framer(self._limits.frame_bytes_max)
        loop = asyncio.get_running_loop()
        begun: float | None = None
        while not self._stopping:
            limit = self._limits.idle_timeout_s
            if begun is not None:
                limit = max(begun + self._limits.frame_timeout_s - loop.time(), 0)
            data = await _read(reader, limit)
            if connection.silent and data and data.startswith(HELLO_START):
                self._observe(
                    "tls_on_plain_port", listener=self.name, remote_host=connection.peer.host, text=TLS_ON_PLAIN_PORT
                )
                return "TLS on the plain port"
            events = framer.feed(data) if data else framer.close()
            if events or framer.unfinished:
                connection.silent = False
            if not await self._answer_all(connection, events):
                break
            if data is None:
                return "frame timeout" if begun is not None else "idle timeout"
            if not data:
                return "closed by peer"
            # A new frame that began in this chunk has its own time, which began with this chunk.
            if not framer.unfinished:
                begun = None
            elif begun is None or events:
                begun = loop.time()
        return connection.ended or "listener stopped"

    async def _answer_all(self, connection: _Connection, events: list[Event]) -> bool:
        """Work on these in order. False when we end the connection meanwhile; the rest will be sent again."""
        connection.busy = bool(events)
        try:
            for event in events:
                blocks = await self._answer(event, connection.peer)
                if blocks:
                    if connection.writer.is_closing():  # it went away meanwhile; uvloop raises no OSError then
                        raise ConnectionResetError("the peer went away before it had its answer")
                    connection.writer.write(blocks)
                    if connection.is_behind:
                        async with asyncio.timeout(self._limits.answer_timeout_s):
                            await connection.writer.drain()
                if self._stopping or connection.ended:
                    return False
            return True
        finally:
            connection.busy = False

    async def _answer(self, event: Event, peer: Peer) -> bytes:
        """The blocks to send, b"" for none."""
        match event:
            case Frame(data):
                try:
                    return self._blocks(await self._receive(data, peer))
                except Exception as error:  # whatever it is, the sender waits for an answer
                    self._note("mllp_receive_failed", peer, error=type(error).__name__)
                    refusal = Refusal(
                        RefusalKind.TRANSIENT, "", "the message could not be worked on now", "send it again later"
                    )
                    return await self._refuse(data, refusal, peer)
            case Commit(stored):
                if not stored:  # whoever missed our answer sends its message again, and gets it again
                    self._note("mllp_answer_not_stored", peer)
                return b""
            case Broken(data, reason, size):
                self._note("mllp_frame_broken", peer, reason=str(reason), bytes=size)
                return await self._refuse(data, event.refusal, peer)
            case Junk(data, reason, size):
                self._note("mllp_bytes_outside_frame", peer, reason=str(reason), bytes=size)
                await self._refuse(
                    data, Refusal(RefusalKind.UNREADABLE, "", f"{reason} ({size})", "send 0B before each message"), peer
                )
                return b""

    def _blocks(self, reply: Reply) -> bytes:
        answers = b"".join(wrap(answer) for answer in reply.answers)
        if self._release == 1:
            return answers
        return commit(True) + answers if reply.stored else commit(False)

    async def _refuse(self, raw: bytes, refusal: Refusal, peer: Peer) -> bytes:
        """The caller's answer; ours, where even that fails. What was refused so is not stored as its sender sent it."""
        try:
            answer = await self._reject(raw, refusal, peer)
        except Exception as error:  # such as a full disk: the archive cannot have it, the sender shall know
            self._note("mllp_reject_failed", peer, error=type(error).__name__)
            answer = acknowledge(None, [refusal], now=datetime.now(UTC), raw=raw)
        return self._blocks(Reply([answer] if answer else [], stored=False))

    def _note(self, event: str, peer: Peer, **fields: Any) -> None:
        self._observe(event, listener=peer.listener, peer=str(peer), connection=peer.connection, **fields)


async def _read(reader: asyncio.StreamReader, limit_s: float | None) -> bytes | None:
    """What comes next, b"" where nothing more will; None where it did not come in time."""
    if limit_s is None:  # by far the most reads, and setting up a timeout takes as long as they do
        return await reader.read(_CHUNK_BYTES)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(limit_s):
            return await reader.read(_CHUNK_BYTES)
    return None


def _shown(writer: asyncio.StreamWriter) -> tuple[bool, Certificate | None]:
    """Whether it came over TLS, and the certificate that it showed."""
    inside = writer.get_extra_info("ssl_object")
    if inside is None:
        return False, None
    return True, certificate_shown(inside)


def _keep_alive(writer: asyncio.StreamWriter) -> None:
    """Let TCP find out about peers that went away without a word; idle connections have no other end.

    Left to itself, TCP asks after two hours.
    """
    connected = writer.get_extra_info("socket")
    if connected is None:
        return
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", _KEEP_ALIVE_S), ("TCP_KEEPINTVL", _KEEP_ALIVE_EVERY_S), ("TCP_KEEPCNT", _KEEP_ALIVE_PROBES)
    ):  # fmt: skip
        option = getattr(socket, name, None)  # not every system lets a program say
        if option is not None:
            connected.setsockopt(socket.IPPROTO_TCP, option, value)


_TLS_END_S = 2.0  # for the peer to say that it ends too; one that hangs would otherwise hold us for half a minute


class NotStoredError(ConnectionError):
    """The receiver said by a commit block that it could not store the message (release 2)."""


def _any(answer: bytes) -> bool:
    return True


class MLLPClient:
    """A sender for one connection: `async with MLLPClient(host, port) as client: answer = await client.send(data)`.

    It waits for each answer before the next message. After a timeout the connection is closed, because a late answer
    would be taken for the next message's. With `tls` it speaks TLS to a peer whose certificate bears `tls_name`.
    """

    def __init__(
        self,
        host: str,
        port: int,
        timeout_s: float = 30.0,
        release: Release = 1,
        tls: ssl.SSLContext | None = None,
        tls_name: str | None = None,
    ) -> None:
        self._host = host
        self._port = port
        self._timeout_s = timeout_s
        self._release = release
        self._tls, self._tls_name = tls, tls_name
        self._framer = Framer()
        self._events: deque[Event] = deque()
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    @property
    def connected(self) -> bool:
        """Whether a message can be sent, as far as is known."""
        return self._streams is not None and not self._streams[0].at_eof() and not self._streams[1].is_closing()

    async def __aenter__(self) -> Self:
        await self.connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def connect(self) -> None:
        """Open the connection anew. Raises OSError, TimeoutError."""
        await self.close()
        async with asyncio.timeout(self._timeout_s):
            self._streams = await asyncio.open_connection(
                self._host, self._port, ssl=self._tls, server_hostname=self._tls_name,
                ssl_shutdown_timeout=_TLS_END_S if self._tls else None,
            )  # fmt: skip
        self._framer = Framer()
        _keep_alive(self._streams[1])

    async def close(self) -> None:
        """End the connection; nothing happens where it has ended."""
        if self._streams is not None:
            writer = self._streams[1]
            self._streams = None
            if writer.transport.get_write_buffer_size():  # a peer that never takes the rest would keep us for ever
                writer.transport.abort()
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def send(self, data: bytes, is_answer: Callable[[bytes], bool] = _any) -> bytes:
        """The answer to `data`, both unframed; frames that are not its answer are passed over.

        Raises TimeoutError, ConnectionError where the peer has closed or answers without frames, and NotStoredError.
        """
        if self._streams is None:
            raise ConnectionError("the connection is closed")
        reader, writer = self._streams
        self._events.clear()  # what came before the message is no answer to it
        try:
            async with asyncio.timeout(self._timeout_s):
                writer.write(wrap(data))
                await writer.drain()
                return await self._answer(reader, writer, is_answer)
        except TimeoutError as error:
            unframed = [event for event in self._framer.close() if isinstance(event, Broken)]
            await self.close()
            if unframed:
                raise ConnectionError("the answer came without its start or end block") from error
            raise
        except (OSError, asyncio.CancelledError):
            await self.close()
            raise

    async def _answer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, is_answer: Callable[[bytes], bool]
    ) -> bytes:
        while True:
            while self._events:
                match self._events.popleft():
                    case Frame(answer) if is_answer(answer):
                        if self._release == 2:
                            writer.write(commit(True))
                        return answer
                    case Commit(False):
                        raise NotStoredError("the receiver could not store the message")
            received = await reader.read(_CHUNK_BYTES)
            if not received:
                raise ConnectionResetError("the peer closed the connection before it answered")
            self._events.extend(self._framer.feed(received))


async def send(host: str, port: int, *messages: bytes, timeout_s: float = 30.0) -> list[bytes]:
    """The answers to these messages, sent one after the other on one connection."""
    async with MLLPClient(host, port, timeout_s) as client:
        return [await client.send(message) for message in messages]
