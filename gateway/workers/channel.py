"""One end of the socket between the main process and a worker, on asyncio: frames in and out, and its end."""

import asyncio
import socket
from collections.abc import Callable
from typing import cast

from gateway.workers.messages import ChannelViolation, Frames

UNREAD_BYTES_MAX = 80 * 1_048_576
"""What may wait for the other process to read it: the longest frame, or many of the others."""


class Channel(asyncio.Protocol):
    """Hands every body that comes to `receive`, and says once, by `lost`, that nothing will come any more."""

    def __init__(self, receive: Callable[[bytes], None], lost: Callable[[], None]) -> None:
        """`receive` may raise ChannelViolation: then the channel is cut."""
        self._receive = receive
        self._lost = lost
        self._frames = Frames()
        self._transport: asyncio.Transport | None = None

    async def open(self, end: socket.socket) -> None:
        """Take over this end of a socket pair."""
        await asyncio.get_running_loop().create_unix_connection(lambda: self, sock=end)

    def send(self, frame: bytes) -> bool:
        """Send, in order and without waiting; False where it cannot be sent, or too much waits already."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return False
        if transport.get_write_buffer_size() + len(frame) > UNREAD_BYTES_MAX:
            return False
        transport.write(frame)
        return True

    def close(self) -> None:
        """End it when everything is sent; the other process then sees the end."""
        if self._transport is not None:
            self._transport.close()

    # asyncio's calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        try:
            for body in self._frames.feed(data):
                self._receive(body)
        except ChannelViolation:
            if self._transport is not None:
                self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._lost()
