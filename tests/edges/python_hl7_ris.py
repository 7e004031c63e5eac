"""A RIS that is told something, on the MLLP server of python-hl7, in a thread of its own."""

import asyncio
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Self

from hl7.mllp import HL7StreamReader, HL7StreamWriter, start_hl7_server


class PythonHL7RIS:
    """`with PythonHL7RIS() as ris:` listens on `ris.port`; it answers everything with the library's own ACK.

    Started again, it listens on the same port. `received` is what came, as the library parsed it.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.port = 0
        self.received: list[Any] = []
        self._tls = tls
        self._happened = threading.Condition()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> Self:
        """Listen, again on the same port if it did before."""
        listening = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(listening)))
        self._thread.start()
        listening.wait(10)
        return self

    def stop(self) -> None:
        """Close every connection and listen no more."""
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._ended.set)
            self._thread.join()
            self._loop = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def got(self, count: int, fits: Callable[[Any], bool] = lambda message: True) -> list[Any]:
        """The first so many messages that fit, waited for."""

        def found() -> list[Any]:
            return [message for message in self.received if fits(message)]

        with self._happened:
            assert self._happened.wait_for(lambda: len(found()) >= count, 20), [str(each) for each in self.received]
            return found()[:count]

    async def _serve(self, listening: threading.Event) -> None:
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        server = await start_hl7_server(self._connected, "127.0.0.1", self.port, encoding="utf-8", ssl=self._tls)
        self.port = server.sockets[0].getsockname()[1]
        listening.set()
        await self._ended.wait()
        server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: HL7StreamReader, writer: HL7StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                while True:
                    message = await reader.readmessage()
                    with self._happened:
                        self.received.append(message)
                        self._happened.notify_all()
                    writer.writemessage(message.create_ack())
                    await writer.drain()
        finally:
            self._tasks.discard(task)
            writer.close()


def field(message: Any, segment: str, number: int, component: int = 0) -> str:
    """A field of the first such segment, or one component of it, as python-hl7 reads it; '' where it is not there."""
    try:
        said = str(message.segment(segment)(number))
        return said.split("~", maxsplit=1)[0].split("^")[component - 1] if component else said
    except (KeyError, IndexError):
        return ""


def kind(message: Any) -> str:
    """MSH-9.1 and MSH-9.2."""
    return "^".join(str(message.segment("MSH")(9)).split("^")[:2])
