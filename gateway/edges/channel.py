"""What every way to a destination has in common, so that delivery knows no protocol."""

import os
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from gateway.edges.handshake_words import Side, explained
from gateway.workflow.outbox import Attempt, Delivery

CONNECT_S_MAX = 10.0
"""For a connection to one address: to it a living receiver answers at once."""


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a peer listens, and how long its answers may take. `tls_name` is what its certificate must bear."""

    name: str
    host: str
    port: int
    answer_timeout_s: float = 30.0
    pause_s: float = 0.0
    """Left to it between two messages; some systems lose what comes at once."""
    tls: ssl.SSLContext | Callable[[], ssl.SSLContext] | None = None
    """What it is checked by, or what gives that for each connection."""
    tls_name: str = ""

    @property
    def context(self) -> ssl.SSLContext | None:
        """What the next connection is made by; None without TLS."""
        return self.tls() if callable(self.tls) else self.tls

    @property
    def certificate_name(self) -> str | None:
        """The name that TLS checks; None without TLS."""
        return (self.tls_name or self.host) if self.tls else None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one attempt came to. The reason and the answer may quote what was sent: neither goes to a log.

    `wait_s`: a destination that is away asks to be left in peace for so long, in seconds; 0 where it says nothing.
    """

    attempt: Attempt
    reason: str = field(default="", repr=False)
    answer: bytes = field(default=b"", repr=False)
    wait_s: float = 0.0


class Channel(Protocol):
    """One destination, spoken to in its protocol, one message at a time."""

    async def send(self, delivery: Delivery) -> Outcome:
        """Send this, having connected where that is needed; whatever the peer does is an outcome, nothing is raised."""

    async def close(self) -> None:
        """End the connection, also while something is being sent."""


def why(error: Exception) -> str:
    """An error of the network in words that hold no content: the system's, or what TLS says of a certificate."""
    if isinstance(error, ssl.SSLError) or (isinstance(error, ConnectionAbortedError) and not error.errno):
        return str(explained(error, Side.CLIENT))
    if isinstance(error, socket.gaierror):
        away = error.errno == socket.EAI_AGAIN
        return "no name server answers for the name of its host" if away else "the name of its host is not known"
    if isinstance(error, TimeoutError):
        return "no answer to the attempt to connect"
    if isinstance(error, OSError) and error.errno:
        text = os.strerror(error.errno)
        return text[:1].lower() + text[1:]
    return "no address of its host takes a connection" if type(error) is OSError else type(error).__name__
