"""The listener for TLS, whatever is spoken inside it: it accepts, shakes hands, and hands over to a protocol.

What may live here: connections until their handshake is done. Certificates are `edges.tls`, what a failure means is
`handshake_words`, and who may do what is decided by the protocol's own side.

A connection is a socket and a moment until its first bytes come; only then is a TLS session made for it, by the context
of that moment. Every caller has the same short time for all of it. When too many are at it, in all or from one address,
the one that has been silent for longest goes, and where none is, the one that has taken longest: a device says hello
at once, so peers that are silent or slow, however many, keep nobody out. What is spoken without TLS is recognised by
its first byte, and told in words.

A hello costs us a signature, and nothing the one who sends it. So one address begins so many handshakes a second;
what is more waits unread for its turn, within the same bounds of number and time.

Events for the log have fixed names and fields:

    tls_handshake_failed   listener, remote_host, reason (`handshake_words.Reason`), text (for people: what, what to do)
    tls_handshakes_failed  listener, reason, more (how many of them were not told one by one)
    tls_connections_shed   listener, connections (how many were closed for want of room since the last such event)
    tls_accept_failed      listener, error (name of the system's error)
"""

import asyncio
import contextlib
import errno
import importlib
import socket
import ssl
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from gateway.domain.access import Certificate
from gateway.domain.rates import Rates
from gateway.edges.flood import Flood
from gateway.edges.handshake_words import Explained, Phase, Reason, Side, explained
from gateway.edges.tls import ALERTED
from gateway.wire.tls_profiles import Spoken, is_tls, spoken

LISTEN_BACKLOG = 2_048
"""Connections that the system holds before we accept them."""

ACCEPTED_AT_ONCE = 64
"""Of a burst, before others have their turn."""

SNIFFED_BYTES = 8
"""Enough to tell protocols apart."""

ACCEPT_AGAIN_S = 1.0
"""After the system had no more descriptors."""

PARTING_S, PARTING_MAX = 2.0, 64
"""For a peer to read why it is not let in, and for so many at once; others are cut."""
DRAINED_BYTES = 65_536

_READER = "gateway.edges.certificates"
"""What reads certificates is loaded where TLS is spoken: a site without pays nothing for it."""

_HTTP_ANSWER = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\nContent-Length: 41\r\n\r\n"
    b"This port speaks TLS: use https:// here.\n"
)
_DICOM_ANSWER = bytes((0x03, 0, 0, 0, 0, 4, 0, 1, 1, 1))
"""A-ASSOCIATE-RJ: permanent, no reason given (PS3.8 9.3.4). An SCU then says so, and not that nobody is there."""


class Observe(Protocol):
    """Takes one event: a fixed name, and fields."""

    def __call__(self, event: str, /, **fields: Any) -> None: ...


@dataclass(frozen=True, slots=True)
class TLSLimits:
    """What one TLS port bears of callers whose handshake is not done."""

    handshakes_max: int = 512
    """In all, as `dimse_service.Limits.waiting_connections_max`."""
    handshakes_per_address_max: int = 128
    """From one network address."""
    handshake_s: float = 10.0
    """From being accepted to the end of the handshake. Devices take some tenths of a second."""
    hellos_per_address_s: float = 50.0
    """Handshakes begun for one network address a second, twice as many at once; 0: any number. Each costs the event
    loop 1.4 ms with a key of RSA 2048, before anybody has shown a certificate: with this an address gets some 7% of its
    time. Fifty scanners behind one address that all call in the same second are served at once."""
    shutdown_s: float = 2.0
    """For a peer to say that it ends too, when we do."""


@dataclass(frozen=True, slots=True)
class TLSPort:
    """Where a listener speaks TLS. `context` gives what the next handshake is made by."""

    port: int
    context: Callable[[], ssl.SSLContext]
    limits: TLSLimits = TLSLimits()


class FailedHandshakes:
    """Tells failures one by one, and in a flood of them how many more there were. Needs a running event loop."""

    def __init__(self, listener: str, observe: Observe) -> None:
        self._listener, self._observe = listener, observe
        self._flood = Flood(self._tell_more)

    def tell(self, remote_host: str, why: Explained) -> None:
        """One has failed."""
        reason = why.reason.value
        if self._flood.lets("tls_handshake_failed", reason):
            self._observe(
                "tls_handshake_failed", listener=self._listener, remote_host=remote_host, reason=reason, text=str(why)
            )

    def flush(self) -> None:
        """Say how many were not told one by one."""
        self._flood.flush()

    def _tell_more(self, event: str, reason: str, more: int) -> None:
        self._observe("tls_handshakes_failed", listener=self._listener, reason=reason, more=more)


NOT_TLS = {
    Spoken.DICOM: "switch TLS on at the device, or give it the plain port",
    Spoken.MLLP: "switch TLS on at the sender, or give it the plain port",
    Spoken.HTTP: "write https:// in place of http://",
    Spoken.OTHER: "look what calls from this address; a scan of ports looks like this",
}
"""What to do about what was spoken in place of TLS."""

_ANSWERS = {Spoken.DICOM: _DICOM_ANSWER, Spoken.HTTP: _HTTP_ANSWER}
"""What is said to a caller without TLS in its own protocol, before it is cut; nothing to others."""


class _Caller:
    """A connection whose handshake is not done."""

    __slots__ = ("connection", "due", "remote_host", "shaking", "waits")

    def __init__(self, connection: socket.socket, remote_host: str, due: float) -> None:
        self.connection = connection
        self.remote_host = remote_host
        self.due = due
        self.shaking: asyncio.Task[None] | None = None
        self.waits = False  # it has said hello, and its address has to wait


class TLSListener:
    """Accepts on one port, and gives every connection whose handshake succeeds to a new protocol of `factory`."""

    def __init__(
        self,
        name: str,
        host: str,
        port: TLSPort,
        factory: Callable[[], asyncio.Protocol],
        observe: Observe,
    ) -> None:
        self.port = port.port
        """After `start` the port really bound, also where 0 was asked for."""
        self._name, self._host = name, host
        self._context, self._limits = port.context, port.limits
        self._factory = factory
        self._observe = observe
        self._failed = FailedHandshakes(name, observe)
        self._listening: list[socket.socket] = []
        self._callers: OrderedDict[_Caller, None] = OrderedDict()  # in the order they came, so also of their `due`
        self._of: dict[str, OrderedDict[_Caller, None]] = {}
        self._hellos = Rates(self._limits.hellos_per_address_s)
        self._waiting: dict[str, OrderedDict[_Caller, None]] = {}  # by address, in the order they said hello
        self._turn: asyncio.TimerHandle | None = None
        self._parting: dict[socket.socket, asyncio.TimerHandle] = {}
        self._sweeper: asyncio.TimerHandle | None = None
        self._shed = 0

    @property
    def handshakes(self) -> int:
        """How many callers are at it now."""
        return len(self._callers)

    async def start(self, sockets: Sequence[socket.socket] = ()) -> None:
        """Listen, on these bound sockets where there are any; raises OSError where the address cannot be had."""
        await asyncio.to_thread(importlib.import_module, _READER)  # not by the first caller
        self._listening = list(sockets) or await bound(self._host, self.port)
        for listening in self._listening:
            listening.setblocking(False)
            listening.listen(LISTEN_BACKLOG)
            self._watch(listening)
        self.port = self._listening[0].getsockname()[1]

    def close(self) -> None:
        """Accept nothing more, and cut whoever has not shaken hands; connections handed over are not ours to close."""
        loop = asyncio.get_running_loop()
        for listening in self._listening:
            loop.remove_reader(listening)
            listening.close()
        self._listening = []
        for caller in list(self._callers):
            self._cut(caller)
        for connection in list(self._parting):
            self._parted(connection)
        for timer in (self._sweeper, self._turn):
            if timer is not None:
                timer.cancel()
        self._tell_shed()
        self._failed.flush()

    # Accepting

    def _watch(self, listening: socket.socket) -> None:
        if listening.fileno() >= 0:  # else it was closed meanwhile
            asyncio.get_running_loop().add_reader(listening, self._accept, listening)

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(ACCEPTED_AT_ONCE):
            try:
                connection, address = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:  # no descriptors or no memory: the connection waits, and so do we
                self._observe("tls_accept_failed", listener=self._name, error=errno.errorcode.get(error.errno or 0, ""))
                loop = asyncio.get_running_loop()
                loop.remove_reader(listening)
                loop.call_later(ACCEPT_AGAIN_S, self._watch, listening)
                return
            connection.setblocking(False)
            self._enter(connection, str(address[0]) if address else "")

    def _enter(self, connection: socket.socket, remote_host: str) -> None:
        loop = asyncio.get_running_loop()
        caller = _Caller(connection, remote_host, loop.time() + self._limits.handshake_s)
        alike = self._of.setdefault(remote_host, OrderedDict())
        self._callers[caller] = alike[caller] = None
        if len(alike) > self._limits.handshakes_per_address_max:
            self._make_room(alike, caller)
        elif len(self._callers) > self._limits.handshakes_max:
            self._make_room(self._callers, caller)
        if self._sweeper is None:
            self._sweeper = loop.call_at(caller.due, self._sweep)
        loop.add_reader(connection, self._look, caller)

    def _make_room(self, callers: OrderedDict[_Caller, None], newest: _Caller) -> None:
        """Cut who has said nothing for longest; where all others have said something, who has waited for longest, or
        else who is at it for longest."""
        self._shed += 1
        waits: _Caller | None = None
        for caller in callers:
            if caller.shaking is None and caller is not newest:
                if not caller.waits:
                    self._cut(caller)
                    return
                waits = waits or caller
        self._cut(waits or next(iter(callers)))

    def _sweep(self) -> None:
        """Cut who is too slow, and come back when the next one is."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        self._sweeper = None
        while self._callers:
            caller = next(iter(self._callers))
            if caller.due > now:
                self._sweeper = loop.call_at(max(caller.due, now + self._limits.handshake_s / 8), self._sweep)
                break
            if caller.waits:  # it was us who did not answer
                self._shed += 1
            else:
                self._failed.tell(caller.remote_host, explained(TimeoutError(), Side.SERVER))
            self._cut(caller)
        self._tell_shed()

    def _tell_shed(self) -> None:
        if self._shed:
            self._observe("tls_connections_shed", listener=self._name, connections=self._shed)
            self._shed = 0

    # One caller

    def _look(self, caller: _Caller) -> None:
        """Its first bytes have come, or it has gone."""
        try:
            first = caller.connection.recv(SNIFFED_BYTES, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            first = b""
        if not first:  # it said nothing at all, as whoever only looks whether we are there
            self._cut(caller)
            return
        loop = asyncio.get_running_loop()
        if not is_tls(first):
            self._answer_plainly(caller, spoken(first))
            return
        loop.remove_reader(caller.connection)
        if caller.remote_host not in self._waiting and self._hellos.allows(caller.remote_host, loop.time()):
            caller.shaking = loop.create_task(self._shake_hands(caller))
            return
        caller.waits = True
        self._waiting.setdefault(caller.remote_host, OrderedDict())[caller] = None
        if self._turn is None:
            self._turn = loop.call_later(1 / self._limits.hellos_per_address_s, self._next_turn)

    def _next_turn(self) -> None:
        """Begin with those of each address that may by now, in the order they came."""
        loop = asyncio.get_running_loop()
        for address in list(self._waiting):
            while address in self._waiting and self._hellos.allows(address, loop.time()):
                caller = next(iter(self._waiting[address]))
                self._wait_no_more(caller)
                caller.shaking = loop.create_task(self._shake_hands(caller))
        self._turn = None
        if self._waiting:
            self._turn = loop.call_later(1 / self._limits.hellos_per_address_s, self._next_turn)

    def _wait_no_more(self, caller: _Caller) -> None:
        if not caller.waits:
            return
        caller.waits = False
        alike = self._waiting[caller.remote_host]
        del alike[caller]
        if not alike:
            del self._waiting[caller.remote_host]

    async def _shake_hands(self, caller: _Caller) -> None:
        loop = asyncio.get_running_loop()
        ALERTED.set(partial(self._tell, caller.connection))  # for this task and what comes of it
        try:
            await loop.connect_accepted_socket(
                self._factory,
                caller.connection,
                ssl=self._context(),
                # Ours ends before: the loop's own is for what we could not foresee.
                ssl_handshake_timeout=2 * self._limits.handshake_s,
                ssl_shutdown_timeout=self._limits.shutdown_s,
            )
        except asyncio.CancelledError:  # only we cancel: it was cut
            _hang_up(caller.connection)
        except Exception as error:  # whatever it is, the others are served on
            if caller in self._callers:
                self._failed.tell(caller.remote_host, explained(error, Side.SERVER))
            _hang_up(caller.connection)
        finally:
            self._leave(caller)

    def _tell(self, connection: socket.socket, alert: bytes) -> None:
        """Why its handshake failed, in TLS's own words. The transport closes the connection then, at once; a descriptor
        of ours keeps it until this is read."""
        with contextlib.suppress(OSError):
            connection.send(alert)
            self._part(connection.dup())

    def _answer_plainly(self, caller: _Caller, what: Spoken) -> None:
        """Say in its own protocol, where there is a way, that TLS is wanted; then cut."""
        why = Explained(Reason.NOT_TLS, Phase.HELLO, f"the caller speaks {what}", NOT_TLS[what])
        self._failed.tell(caller.remote_host, why)
        with contextlib.suppress(OSError):
            caller.connection.send(_ANSWERS.get(what, b""))
        self._leave(caller)
        asyncio.get_running_loop().remove_reader(caller.connection)
        self._part(caller.connection)

    def _part(self, connection: socket.socket) -> None:
        """Close when the peer has had time to read what was said last: closed with bytes of its own unread, the
        connection would be reset, and the peer lose what it has not read."""
        if len(self._parting) >= PARTING_MAX:
            connection.close()
            return
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_WR)
        loop = asyncio.get_running_loop()
        self._parting[connection] = loop.call_later(PARTING_S, self._parted, connection)
        loop.add_reader(connection, self._drain, connection)

    def _drain(self, connection: socket.socket) -> None:
        try:
            left = connection.recv(DRAINED_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            left = b""
        if not left:
            self._parted(connection)

    def _parted(self, connection: socket.socket) -> None:
        self._parting.pop(connection).cancel()
        asyncio.get_running_loop().remove_reader(connection)
        connection.close()

    def _cut(self, caller: _Caller) -> None:
        self._leave(caller)
        if caller.shaking is not None:
            caller.shaking.cancel()
            return
        asyncio.get_running_loop().remove_reader(caller.connection)
        caller.connection.close()

    def _leave(self, caller: _Caller) -> None:
        if caller not in self._callers:
            return
        self._wait_no_more(caller)
        del self._callers[caller]
        alike = self._of[caller.remote_host]
        del alike[caller]
        if not alike:
            del self._of[caller.remote_host]


def _hang_up(connection: socket.socket) -> None:
    """End it for its transport, which has to close it: that may not have got as far as to hear of it otherwise."""
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


async def bound(host: str, port: int) -> list[socket.socket]:
    """Sockets on every address of this host. Raises OSError where one is taken."""
    found = await asyncio.get_running_loop().getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    made: list[socket.socket] = []
    try:
        for family, _, _, _, where in dict.fromkeys(found):
            listening = socket.socket(family, socket.SOCK_STREAM)
            made.append(listening)
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listening.bind(where)
    except OSError as error:
        for each in made:
            each.close()
        raise OSError(error.errno, f"cannot listen on {host} port {port}: {(error.strerror or '').lower()}") from error
    return made


def certificate_shown(inside: ssl.SSLObject) -> Certificate | None:
    """The certificate that a peer showed and TLS verified."""
    from gateway.edges.certificates import certificate_of

    shown = inside.getpeercert(binary_form=True)
    return certificate_of(shown) if shown else None
