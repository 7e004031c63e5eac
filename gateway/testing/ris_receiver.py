"""The other half of a RIS: what takes status, orders and patients that the gateway sends (RAD-3), over MLLP.

It answers every message with AA, or as its script says, and keeps what came, so that a test can look at it.
"""

import contextlib
import socket
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Condition, Thread
from types import TracebackType
from typing import Self

from gateway.wire import er7
from gateway.wire.mllp import Frame, Framer, wrap

HANG_UP = ""
"""In a script: the connection is closed instead of an answer."""


@dataclass(frozen=True, slots=True)
class ReceivedMessage:
    """A message as it came."""

    raw: bytes = field(repr=False)
    parsed: er7.Message = field(repr=False)

    @property
    def control_id(self) -> str:
        """MSH-10."""
        return self.parsed.control_id

    @property
    def message_type(self) -> str:
        """MSH-9 without the structure, as `ORM^O01`."""
        return f"{self.parsed.message_code}^{self.parsed.trigger_event}"

    def text(self, path: str) -> str:
        """The text at a path such as `ORC-5` or `OBR-4.2`, of the first such segment; '' where there is none."""
        segment, _, place = path.partition("-")
        number, _, component = place.partition(".")
        found = self.parsed.first(segment)
        return found.text(int(number), component=int(component or 1)) if found else ""


class SimulatedRISReceiver:
    """`with SimulatedRISReceiver() as ris:` listens on `ris.port` of loopback, or of `host`.

    `script` holds the next answers as MSA-1 codes (or HANG_UP); after them everything is accepted. `received` is
    everything that came, also what was not accepted.
    """

    def __init__(
        self, name: str = "RIS", *, port: int = 0, tls: ssl.SSLContext | None = None, host: str = "127.0.0.1"
    ) -> None:  # fmt: skip
        self.name = name
        self.host = host
        self.port = port
        self.received: list[ReceivedMessage] = []
        self.script: deque[str] = deque()
        self._happened = Condition()
        self._tls = tls
        self._server: socket.socket | None = None
        self._connections: set[socket.socket] = set()

    def start(self) -> Self:
        """Listen, again on the same port if it did before."""
        self._server = socket.create_server((self.host, self.port))
        self.port = self._server.getsockname()[1]
        Thread(target=self._accept, args=(self._server,), daemon=True).start()
        return self

    def stop(self) -> None:
        """Close every connection and listen no more."""
        with self._happened:
            server, self._server = self._server, None
            connected = tuple(self._connections)
        if server is not None:
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)  # wakes whoever waits in accept
            server.close()
        for connection in connected:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def wait_for(self, happened: Callable[[], bool], timeout_s: float = 10.0) -> None:
        """Wait until this is so. Raises TimeoutError."""
        with self._happened:
            if not self._happened.wait_for(happened, timeout_s):
                raise TimeoutError

    def got(self, count: int, timeout_s: float = 10.0) -> list[ReceivedMessage]:
        """The first so many messages, waited for. Raises TimeoutError."""
        self.wait_for(lambda: len(self.received) >= count, timeout_s)
        return self.received[:count]

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _accept(self, server: socket.socket) -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:  # it was stopped
                return
            with self._happened:
                if self._server is not server:  # while this one came
                    connection.close()
                    return
                self._connections.add(connection)
            Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            if self._tls is not None:
                connection = secured = self._under_tls(connection, self._tls)
                secured.do_handshake()
            self._answer(connection)
        except OSError:  # the gateway is gone, or does not trust us
            pass
        finally:
            with self._happened:
                self._connections.discard(connection)
            connection.close()

    def _under_tls(self, plain: socket.socket, tls: ssl.SSLContext) -> ssl.SSLSocket:
        """The connection under TLS, known as that before anything is waited for, so that `stop` can end it."""
        with self._happened:
            connection = tls.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
            self._connections.discard(plain)
            self._connections.add(connection)
        return connection

    def _answer(self, connection: socket.socket) -> None:
        framer = Framer()
        while chunk := connection.recv(65_536):
            for event in framer.feed(chunk):
                if not isinstance(event, Frame):
                    continue
                message = er7.parse(event.data)
                with self._happened:
                    self.received.append(ReceivedMessage(event.data, message))
                    code = self.script.popleft() if self.script else "AA"
                    number = len(self.received)
                    self._happened.notify_all()
                if code == HANG_UP:
                    return
                connection.sendall(wrap(self._acknowledgement(code, message.control_id, number)))

    def _acknowledgement(self, code: str, control_id: str, number: int) -> bytes:
        header = f"MSH|^~\\&|{self.name}||GATEWAY||20260705080000||ACK|{self.name}-ACK{number}|P|2.3.1"
        return f"{header}\rMSA|{code}|{control_id}\r".encode()
