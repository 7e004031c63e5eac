"""What the main process and a worker tell each other, as bytes in frames. No socket, no clock.

A frame is its length (4 bytes, big-endian) and a body. A worker is the process that strangers talk to, so the main
process takes nothing from it but values. What a worker says is JSON, checked against its type when it is read; HL7
messages, of which there are many, it says as pickles in which no more can be named than the classes of such values.
What the main process says is pickled: it carries the checked site itself, so that every worker has the very same one;
and a worker has nobody else to believe.
"""

import io
import pickle
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import date, datetime, time, timedelta, timezone
from operator import attrgetter
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from gateway.config import HL7Settings, Site
from gateway.domain.performed import Operation
from gateway.domain.refusal import Refusal
from gateway.edges.metrics import Tally
from gateway.wire.dimse import NAnswer
from gateway.workflow.availability import Announcement
from gateway.workflow.intake import Receipt, Understood
from gateway.workflow.knocks import Knock
from gateway.workflow.performed_request import PerformRequest
from gateway.workflow.ports import QueryRecord

FRAME_BYTES_MAX = 72 * 1_048_576
"""The longest HL7 message is 64 MiB, if a listener takes such; an N-SET of 8 MiB has 11 MiB as JSON; a registry of
10,000 devices, or a catalogue of 50,000 procedures, has some megabytes."""

LENGTH_BYTES = 4


class ChannelViolation(Exception):  # noqa: N818  (reads as what happened)
    """The other process said what is no message; nothing of it is quoted."""


# What a worker says


@dataclass(frozen=True, slots=True)
class Listens:
    """It accepts connections from now on."""

    kind: Literal["listens"] = "listens"


@dataclass(frozen=True, slots=True)
class Reported:
    """A performed step was reported, or images announced: to be written, then `Answered` with the same number."""

    number: int
    operation: Operation | Announcement
    request: PerformRequest
    kind: Literal["reported"] = "reported"


@dataclass(frozen=True, slots=True)
class Received:
    """A listener took a message: to be processed, then `Processed` with the same number.

    `understood` is what it says, or why nothing can be done with it, as the site `read_by` reads it (`Serve.number`);
    None where it was not read.
    """

    number: int
    listener: str
    peer: str
    raw: bytes = field(repr=False)
    read_by: int
    understood: Understood | tuple[Refusal, ...] | None
    barred: tuple[str, ...] = ()
    """Senders that whoever sent it must not say to be."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """A listener took what is no message: to be archived, then `Processed` with the same number."""

    number: int
    listener: str
    peer: str
    raw: bytes = field(repr=False)
    refusals: tuple[Refusal, ...]


@dataclass(frozen=True, slots=True)
class Told:
    """What happened since it last told, how many associations are open now, the queries to keep, and who knocked."""

    tally: Tally
    associations: int
    queries: tuple[QueryRecord, ...] = ()
    knocks: tuple[Knock, ...] = ()
    kind: Literal["told"] = "told"


# What the main process says


@dataclass(frozen=True, slots=True)
class Serve:
    """Serve this site from now on, as one of so many workers.

    `number` tells it from those before. Its mappings are not in it, but what they are made of. `listeners` are those of
    HL7 as they were when the main process started, for whose addresses the worker has sockets.
    """

    site: Site
    workers: int
    number: int = 1
    listeners: tuple[HL7Settings, ...] = ()


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer to a report; a positive one is on disk."""

    number: int
    answer: NAnswer = field(repr=False)


@dataclass(frozen=True, slots=True)
class Processed:
    """What became of an HL7 message; what a positive receipt is for is on disk. None where that is not known.

    `failing` says that nothing could be written lately.
    """

    number: int
    receipt: Receipt | None
    failing: bool


@dataclass(frozen=True, slots=True)
class Stop:
    """Take no more connections, finish what is in progress, and end."""


_Checked = Listens | Reported | Told
WorkerMessage = _Checked | Received | Rejected
MainMessage = Serve | Answered | Processed | Stop

_OF_WORKER: TypeAdapter[_Checked] = TypeAdapter(
    Annotated[_Checked, Field(discriminator="kind")],
    config=ConfigDict(ser_json_bytes="base64", val_json_bytes="base64"),
)


def encode_from_worker(message: WorkerMessage) -> bytes:
    """A worker's message as a frame."""
    if isinstance(message, Received | Rejected):
        return _framed(_pickled(message))
    return _framed(_OF_WORKER.dump_json(message))


def decode_from_worker(body: bytes) -> WorkerMessage:
    """A worker's message from the body of a frame. Raises ChannelViolation."""
    if body.startswith(pickle.PROTO):
        return _values(body)
    try:
        return _OF_WORKER.validate_json(body)
    except ValidationError:  # its text quotes the message
        raise ChannelViolation("a worker said what is no message") from None


def _values(body: bytes) -> Received | Rejected:
    try:
        message = _Values(io.BytesIO(body)).load()
    except Exception:  # whatever a pickle that is none may raise, with what it would have made
        raise ChannelViolation("a worker said what is no message") from None
    if not isinstance(message, Received | Rejected):
        raise ChannelViolation("a worker said what is no message")
    return message


class _Values(pickle.Unpickler):
    """Makes values of ours and nothing else: no function can be named, so none is called."""

    def find_class(self, module: str, name: str, /) -> Any:
        found = _KNOWN.get((module, name))
        if found is None:
            found = _KNOWN[module, name] = _value_class(module, name)
        return found


def _value_class(module: str, name: str) -> type:
    found = getattr(sys.modules.get(module), name, None)
    ours = module == __name__ or module.startswith(_OF_VALUES)
    if not ours or not isinstance(found, type) or found.__module__ != module:
        raise pickle.UnpicklingError(f"{module}.{name} is no value")
    return found


_OF_VALUES = ("gateway.domain.", "gateway.wire.", "gateway.workflow.intake")
_KNOWN: dict[tuple[str, str], Any] = {
    (each.__module__, each.__qualname__): each for each in (datetime, date, time, timedelta, timezone)
}


class _Reducers(dict[type, Callable[[Any], Any]]):
    """How an instance of each class is pickled: our values as their class and what it is called with.

    Left to itself, a frozen dataclass with slots is read field by field in Python, which takes three times as long.
    """

    def __missing__(self, kind: type) -> Callable[[Any], Any]:
        if not (is_dataclass(kind) and kind.__module__.startswith("gateway.")):
            raise KeyError(kind)
        names = [each.name for each in fields(kind) if each.init and not each.kw_only]
        if len(names) < max(len(fields(kind)), 2):  # not made by its fields in order, or `attrgetter` gives no tuple
            raise KeyError(kind)
        said = attrgetter(*names)
        reducer = self[kind] = lambda value: (kind, said(value))
        return reducer


_REDUCERS = _Reducers()


def _pickled(message: object) -> bytes:
    written = io.BytesIO()
    pickler = pickle.Pickler(written, pickle.HIGHEST_PROTOCOL)
    pickler.dispatch_table = _REDUCERS
    pickler.dump(message)
    return written.getvalue()


def encode_from_main(message: MainMessage) -> bytes:
    """The main process's message as a frame."""
    return _framed(_pickled(message))


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
