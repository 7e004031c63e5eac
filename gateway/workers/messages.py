"""What the main process and a worker tell each other, as bytes in frames. No socket, no clock.

A frame is its length (4 bytes, big-endian) and a body. What a worker says is JSON, checked against its type when it
is read: a worker is the process that strangers talk to. What the main process says is pickled: it carries the
checked site itself, so that every worker has the very same one, and a worker has nobody else to believe.
"""

import pickle
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from gateway.config import Site
from gateway.domain.performed import Operation
from gateway.edges.metrics import Tally
from gateway.wire.dimse import NAnswer
from gateway.workflow.perform import PerformRequest
from gateway.workflow.ports import QueryRecord

FRAME_BYTES_MAX = 32 * 1_048_576
"""An N-SET of 8 MiB has 11 MiB as JSON; a registry of 10,000 devices some megabytes."""

LENGTH_BYTES = 4


class ChannelViolation(Exception):  # noqa: N818  (reads as what happened)
    """The other process said what is no message; nothing of it is quoted."""


# What a worker says


@dataclass(frozen=True, slots=True)
class Listens:
    """It accepts associations from now on."""

    kind: Literal["listens"] = "listens"


@dataclass(frozen=True, slots=True)
class Reported:
    """A modality reported a performed step: to be written, then `Answered` with the same number."""

    number: int
    operation: Operation
    request: PerformRequest
    kind: Literal["reported"] = "reported"


@dataclass(frozen=True, slots=True)
class Told:
    """What happened since it last told, how many associations are open now, and the queries to keep."""

    tally: Tally
    associations: int
    queries: tuple[QueryRecord, ...] = ()
    kind: Literal["told"] = "told"


# What the main process says


@dataclass(frozen=True, slots=True)
class Serve:
    """Serve this site from now on, as one of so many workers. Mappings are left out, since no worker reads HL7."""

    site: Site
    workers: int


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer to a report; a positive one is on disk."""

    number: int
    answer: NAnswer = field(repr=False)


@dataclass(frozen=True, slots=True)
class Stop:
    """Take no more associations, finish what is in progress, and end."""


WorkerMessage = Listens | Reported | Told
MainMessage = Serve | Answered | Stop

_OF_WORKER: TypeAdapter[WorkerMessage] = TypeAdapter(
    Annotated[WorkerMessage, Field(discriminator="kind")],
    config=ConfigDict(ser_json_bytes="base64", val_json_bytes="base64"),
)


def encode_from_worker(message: WorkerMessage) -> bytes:
    """A worker's message as a frame."""
    return _framed(_OF_WORKER.dump_json(message))


def decode_from_worker(body: bytes) -> WorkerMessage:
    """A worker's message from the body of a frame. Raises ChannelViolation."""
    try:
        return _OF_WORKER.validate_json(body)
    except ValidationError:  # its text quotes the message
        raise ChannelViolation("a worker said what is no message") from None


def encode_from_main(message: MainMessage) -> bytes:
    """The main process's message as a frame."""
    return _framed(pickle.dumps(message, pickle.HIGHEST_PROTOCOL))


def decode_from_main(body: bytes) -> MainMessage:
    """The main process's message from the body of a frame. Only for bytes of the process that started this one."""
    message: MainMessage = pickle.loads(body)  # noqa: S301  (an inherited socket: who writes it made this process)
    return message


def _framed(body: bytes) -> bytes:
    return len(body).to_bytes(LENGTH_BYTES, "big") + body


class Frames:
    """Bodies of frames from a stream of bytes, however it is cut."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The bodies that are complete now. Raises ChannelViolation for a frame that is longer than any message."""
        self._buffer += data
        while len(self._buffer) >= LENGTH_BYTES:
            length = int.from_bytes(self._buffer[:LENGTH_BYTES], "big")
            if length > FRAME_BYTES_MAX:
                raise ChannelViolation("a frame is longer than any message")
            end = LENGTH_BYTES + length
            if len(self._buffer) < end:
                return
            body = bytes(self._buffer[LENGTH_BYTES:end])
            del self._buffer[:end]
            yield body
