"""A handshake as a client for people to look at: what the peer shows, what it asks for, and what it says to ours.

What may live here: connecting, shaking hands and hanging up; nothing is ever sent over what was shaken hands for.
"""

import socket
import ssl
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

_CERTIFICATE, _CERTIFICATE_REQUEST = 11, 13
"""Types of handshake messages (RFC 8446 4)."""

REFUSES_LATE_S = 1.0
"""In TLS 1.3 a client is done before the server has looked at its certificate; so long a refusal is waited for."""


@dataclass(slots=True)
class Seen:
    """What became of one handshake. `error` is why it failed, or why the peer hung up right after it."""

    version: str = ""
    suite: str = ""
    chain: list[bytes] = field(default_factory=list)
    """Certificates that the peer showed, its own first, in DER form."""
    asked: bool = False
    """Whether it asked for a certificate of ours."""
    late: bool = False
    """Whether `error` came after the handshake."""
    error: Exception | None = None


class _Tells(Protocol):
    """What `ssl.SSLContext` has for those who look on, without saying so in its documentation."""

    _msg_callback: Any


def addresses_of(host: str, port: int) -> list[str]:
    """The addresses of a host, in the order in which they are tried. Raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(each[4][0]) for each in found))


def connected(addresses: Sequence[str], port: int, timeout_s: float) -> tuple[socket.socket, str]:
    """A connection to the first of these addresses that takes one, and which it was. Raises OSError."""
    failure: OSError = OSError("it has no address")
    for address in addresses:
        try:
            return socket.create_connection((address, port), timeout_s), address
        except OSError as error:
            failure = error
    raise failure


def shake_hands(connection: socket.socket, name: str, context: ssl.SSLContext) -> Seen:
    """Shake hands, wait for a late refusal, and hang up. The connection is closed."""
    seen = Seen()
    cast("_Tells", context)._msg_callback = lambda *said: _note(seen, *said)
    with connection:
        try:
            wrapped = context.wrap_socket(connection, server_hostname=name)
        except (OSError, ValueError) as error:
            seen.error = error
            return seen
        with wrapped:
            seen.version, seen.suite = wrapped.version() or "", (wrapped.cipher() or ("",))[0]
            shown = wrapped.getpeercert(binary_form=True)
            if not seen.chain and shown:
                seen.chain = [shown]
            _wait(wrapped, seen)
    return seen


def _wait(wrapped: ssl.SSLSocket, seen: Seen) -> None:
    wrapped.settimeout(REFUSES_LATE_S)
    try:
        if wrapped.recv(1) == b"":
            seen.error, seen.late = ssl.SSLEOFError(), True
    except TimeoutError:
        return  # it waits for us to speak
    except OSError as error:
        seen.error, seen.late = error, True
    with suppress(OSError):
        wrapped.unwrap().close()


def _note(
    seen: Seen, _connection: object, direction: str, _version: object, _content: object, kind: object, data: bytes
) -> None:
    """Called by OpenSSL for each message of the handshake, deciphered."""
    if direction != "read":
        return
    number = getattr(kind, "value", kind)
    if number == _CERTIFICATE_REQUEST and data[:1] == bytes([_CERTIFICATE_REQUEST]):
        seen.asked = True
    elif number == _CERTIFICATE and data[:1] == bytes([_CERTIFICATE]):
        seen.chain = _chain_in(data[4:])


def _chain_in(message: bytes) -> list[bytes]:
    """The certificates of a Certificate message of TLS 1.2 (RFC 5246 7.4.2) or 1.3 (RFC 8446 4.4.2).

    That of 1.3 has a context before them, which servers leave empty, and extensions behind each.
    """
    for start, extensions in ((0, False), (1, True)):
        length = int.from_bytes(message[start : start + 3], "big")
        if length and start + 3 + length == len(message):
            with suppress(IndexError):
                return list(_entries(message[start + 3 :], extensions))
    return []


def _entries(listed: bytes, extensions: bool) -> list[bytes]:
    found, place = [], 0
    while place + 3 <= len(listed):
        size = int.from_bytes(listed[place : place + 3], "big")
        found.append(listed[place + 3 : place + 3 + size])
        place += 3 + size
        if extensions:
            place += 2 + int.from_bytes(listed[place : place + 2], "big")
    return found
