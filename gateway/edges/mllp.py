"""HL7 v2 over MLLP on asyncio: the listener, and the small client that the demo, the tests and load tools use.

What a message means is decided by the two functions the listener is given; here are only connections, their limits and
their time. The rules:

1. One message at a time per connection, answered in the order received. While one is worked on nothing more is read,
   so a sender who runs ahead is held back by TCP.
2. Every message gets an answer, also the one that broke on its way or made our own code fail; only then may a
   connection be closed.
3. Idle connections stay open (HL7 senders connect once and keep the connection for weeks); half a frame does not.

Logs are written by the injected `observe`; it gets names, counts and addresses, never content.
"""

import asyncio
import contextlib
import itertools
import socket
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Protocol, Self

from gateway.domain.refusal import Refusal, RefusalKind
from gateway.wire.ack import acknowledge
from gateway.wire.mllp import FRAME_BYTES_MAX, Broken, Event, Frame, Framer, Junk, wrap

_CHUNK_BYTES = 64 * 1024  # a whole common message in one read; the stream's buffer holds twice that at most


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end of a connection; `connection` counts up from 1 per listener."""

    listener: str
    host: str
    port: int
    connection: int

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


Receive = Callable[[bytes, Peer], Awaitable[bytes | None]]
"""A frame's data -> the answer, unframed, when everything is on disk; None where none is due."""

Reject = Callable[[bytes, Refusal, Peer], Awaitable[bytes | None]]
"""What is no frame, or could not be worked on, and why -> the answer, archived likewise."""


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


class MLLPListener:
    """Listens on one address and hands every message to `receive`.

    `reject` is called for what arrived broken, for bytes outside any frame (its answer is then not sent, since the
    sender would take it for the answer to something else), and when `receive` raises, so that the sender gets a
    transient refusal and sends again.
    """

    def __init__(
        self,
        name: str,
        host: str,
        port: int,
        receive: Receive,
        reject: Reject,
        limits: MLLPLimits | None = None,
        observe: Observe = _observe_nothing,
    ) -> None:
        self.name = name
        self.host = host
        self.port = port
        """After `start` the port really bound, also where 0 was asked for."""
        self._receive = receive
        self._reject = reject
        self._limits = limits or MLLPLimits()
        self._observe = observe
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()
        self._per_host: Counter[str] = Counter()
        self._numbers = itertools.count(1)
        self._stopping = False

    @property
    def connections(self) -> int:
        """How many are open now."""
        return len(self._connections)

    async def start(self) -> None:
        """Bind and listen. Raises OSError where the address cannot be had."""
        self._stopping = False
        self._server = await asyncio.start_server(self._serve, self.host, self.port, limit=_CHUNK_BYTES)
        self.port = self._server.sockets[0].getsockname()[1]
        self._observe("mllp_listening", listener=self.name, host=self.host, port=self.port)

    async def stop(self) -> None:
        """Accept nothing more, finish and answer the message each connection is working on, then close."""
        self._stopping = True
        if self._server is not None:
            self._server.close()
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
        self._server = None
        self._observe("mllp_stopped", listener=self.name)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        address = writer.get_extra_info("peername") or ("", 0)  # a peer may be gone before it is looked at
        peer = Peer(self.name, address[0], address[1], next(self._numbers))
        task = asyncio.current_task()
        if task is None or not self._admitted(peer):
            writer.close()
            return
        connection = _Connection(peer, writer, task)
        self._connections.add(connection)
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
            # Only `stop` cancels; the task ends here on purpose, after closing what it holds.
            reason = "listener stopped"
        finally:
            self._connections.discard(connection)
            self._per_host[peer.host] -= 1
            if not self._per_host[peer.host]:
                del self._per_host[peer.host]
            writer.close()
            self._note("mllp_connection_closed", peer, reason=reason)

    def _admitted(self, peer: Peer) -> bool:
        if self._stopping:
            return False
        if len(self._connections) >= self._limits.connections_max:
            self._note("mllp_connection_refused", peer, limit="connections_max")
            return False
        if self._per_host[peer.host] >= self._limits.connections_per_peer_max:
            self._note("mllp_connection_refused", peer, limit="connections_per_peer_max")
            return False
        return True

    async def _converse(self, connection: _Connection, reader: asyncio.StreamReader) -> str:
        """Read and answer until either side ends it; says why it ended."""
        framer = Framer(self._limits.frame_bytes_max)
        loop = asyncio.get_running_loop()
        begun: float | None = None
        while not self._stopping:
            limit = self._limits.idle_timeout_s
            if begun is not None:
                limit = max(begun + self._limits.frame_timeout_s - loop.time(), 0)
            data: bytes | None = None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(limit):
                    data = await reader.read(_CHUNK_BYTES)
            events = framer.feed(data) if data else framer.close()
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
        return "listener stopped"

    async def _answer_all(self, connection: _Connection, events: list[Event]) -> bool:
        """Work on these in order. False when the listener stopped meanwhile; the rest will be sent again."""
        connection.busy = bool(events)
        try:
            for event in events:
                answer = await self._answer(event, connection.peer)
                if answer is not None:
                    connection.writer.write(wrap(answer))
                    async with asyncio.timeout(self._limits.answer_timeout_s):
                        await connection.writer.drain()
                if self._stopping:
                    return False
            return True
        finally:
            connection.busy = False

    async def _answer(self, event: Event, peer: Peer) -> bytes | None:
        match event:
            case Frame(data):
                try:
                    return await self._receive(data, peer)
                except Exception as error:  # whatever it is, the sender waits for an answer
                    self._note("mllp_receive_failed", peer, error=type(error).__name__)
                    return await self._refuse(
                        data,
                        Refusal(
                            RefusalKind.TRANSIENT, "", "the message could not be worked on now", "send it again later"
                        ),
                        peer,
                    )
            case Broken(data, reason, size):
                self._note("mllp_frame_broken", peer, reason=str(reason), bytes=size)
                return await self._refuse(data, event.refusal, peer)
            case Junk(data, reason, size):
                self._note("mllp_bytes_outside_frame", peer, reason=str(reason), bytes=size)
                await self._refuse(
                    data, Refusal(RefusalKind.UNREADABLE, "", f"{reason} ({size})", "send 0B before each message"), peer
                )
                return None

    async def _refuse(self, raw: bytes, refusal: Refusal, peer: Peer) -> bytes | None:
        """The caller's answer; ours, where even that fails."""
        try:
            return await self._reject(raw, refusal, peer)
        except Exception as error:  # such as a full disk: the archive cannot have it, the sender shall know
            self._note("mllp_reject_failed", peer, error=type(error).__name__)
            return acknowledge(None, [refusal], now=datetime.now(UTC), raw=raw)

    def _note(self, event: str, peer: Peer, **fields: Any) -> None:
        self._observe(event, listener=peer.listener, peer=str(peer), connection=peer.connection, **fields)


def _keep_alive(writer: asyncio.StreamWriter) -> None:
    """Let TCP find out about peers that went away without a word; idle connections have no other end."""
    connected = writer.get_extra_info("socket")
    if connected is not None:
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


class MLLPClient:
    """A sender for one connection: `async with MLLPClient(host, port) as client: answer = await client.send(data)`.

    It waits for each answer before the next message (MLLP release 1). After a timeout the connection is closed,
    because a late answer would be taken for the next message's.
    """

    def __init__(self, host: str, port: int, timeout_s: float = 30.0) -> None:
        self._host = host
        self._port = port
        self._timeout_s = timeout_s
        self._framer = Framer()
        self._answers: deque[bytes] = deque()
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def __aenter__(self) -> Self:
        """Connect. Raises OSError, TimeoutError."""
        async with asyncio.timeout(self._timeout_s):
            self._streams = await asyncio.open_connection(self._host, self._port)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End the connection; nothing happens where it has ended."""
        if self._streams is not None:
            writer = self._streams[1]
            self._streams = None
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def send(self, data: bytes) -> bytes:
        """The answer to `data`, both unframed. Raises TimeoutError, or ConnectionError where the peer has closed."""
        if self._streams is None:
            raise ConnectionError("the connection is closed")
        reader, writer = self._streams
        try:
            async with asyncio.timeout(self._timeout_s):
                writer.write(wrap(data))
                await writer.drain()
                while not self._answers:
                    received = await reader.read(_CHUNK_BYTES)
                    if not received:
                        raise ConnectionResetError("the peer closed the connection before it answered")
                    events = self._framer.feed(received)
                    self._answers.extend(event.data for event in events if isinstance(event, Frame))
        except (OSError, TimeoutError, asyncio.CancelledError):
            await self.close()
            raise
        return self._answers.popleft()


async def send(host: str, port: int, *messages: bytes, timeout_s: float = 30.0) -> list[bytes]:
    """The answers to these messages, sent one after the other on one connection."""
    async with MLLPClient(host, port, timeout_s) as client:
        return [await client.send(message) for message in messages]
