"""MLLP framing (HL7 v2 transport, spec appendix C; releases 1 and 2): blocks in and out of a byte stream.

    0B  data  1C 0D

In release 2 each side confirms every block it receives by a block of one byte: 06 it is stored, 15 it is not.

1. Bytes in, events out; no sockets, no clock. The events do not depend on how the stream was cut into chunks.
2. Memory is bounded: a block that is too long is remembered by its beginning and drained to its end.
3. Whatever is not a block is reported, never fatal: the next start block begins afresh.

A block ends at 1C, because neither byte can be part of HL7 text; the 0D after it is expected but not waited for, so
that a sender who forgets it still gets its answer.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from gateway.domain.refusal import Refusal, RefusalKind

START = b"\x0b"
END = b"\x1c"
_COMMITS = {b"\x06": True, b"\x15": False}
_SIGNS = re.compile(rb"[\x0b\x1c]")
_SILENT = b"\r\n\x00"  # what senders put between blocks without meaning anything by it

FRAME_BYTES_MAX = 1024 * 1024
"""Measured orders have 1 to 70 KB; a megabyte leaves room for an embedded request form."""

REMEMBERED_BYTES_MAX = 4096
"""How much is kept of what is no good frame: the MSH segment, to answer it, and enough to recognise the sender."""


class Fault(StrEnum):
    """Why bytes are no frame."""

    OVERSIZED = "the frame is longer than allowed"
    INTERRUPTED = "a new start block came before the end block"
    CUT_OFF = "the stream ended before the end block"
    UNFRAMED = "a message came without a start block"
    OUTSIDE = "bytes came outside a frame"


@dataclass(frozen=True, slots=True)
class Frame:
    """A whole block's data."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Commit:
    """Release 2: whether the other side has stored the block before."""

    stored: bool


@dataclass(frozen=True, slots=True)
class Junk:
    """Bytes outside any block that are no message: the first of `size`. Not to be answered."""

    data: bytes
    reason: Fault
    size: int


@dataclass(frozen=True, slots=True)
class Broken:
    """A message that did not arrive as one whole block: the first of its `size` bytes. To be answered."""

    data: bytes
    reason: Fault
    size: int

    @property
    def refusal(self) -> Refusal:
        """The reason in the common vocabulary."""
        kind = RefusalKind.TOO_LONG if self.reason is Fault.OVERSIZED else RefusalKind.UNREADABLE
        return Refusal(kind, "", f"{self.reason} ({self.size} bytes)", "send 0B, the message, 1C 0D")


Event: TypeAlias = Frame | Commit | Junk | Broken


class Framer:
    """One direction of one connection. After `close` it may be fed again, as a new stream."""

    def __init__(self, frame_bytes_max: int = FRAME_BYTES_MAX) -> None:
        self._frame_bytes_max = frame_bytes_max
        self._inside = False
        self._kept = bytearray()
        self._size = 0

    @property
    def unfinished(self) -> bool:
        """Whether bytes were taken in that no event has told of yet."""
        return self._inside or self._size > 0

    def feed(self, data: bytes) -> list[Event]:
        """What these bytes complete, in order."""
        events: list[Event] = []
        position = 0
        while position < len(data):
            sign = _SIGNS.search(data, position)
            self._keep(data[position : sign.start() if sign else None])
            if sign is None:
                break
            position = sign.end()
            if sign.group() == START:
                events += self._told(Fault.INTERRUPTED)
                self._inside = True
            elif self._inside:
                events += self._told(None)
            else:
                self._keep(END)
                events += self._told(None)
        return events

    def close(self) -> list[Event]:
        """What the end of the stream (or of patience) leaves."""
        return self._told(Fault.CUT_OFF)

    def _keep(self, part: bytes) -> None:
        if not self._inside and not self._size:
            part = part.lstrip(_SILENT)
        self._size += len(part)
        whole = self._inside and self._size <= self._frame_bytes_max
        if whole:
            self._kept += part
        elif len(self._kept) < REMEMBERED_BYTES_MAX:
            self._kept += part[: REMEMBERED_BYTES_MAX - len(self._kept)]
        elif len(self._kept) > REMEMBERED_BYTES_MAX:
            del self._kept[REMEMBERED_BYTES_MAX:]

    def _told(self, fault: Fault | None) -> list[Event]:
        """The event for what was kept, `fault` being why a block ended if not by its end block."""
        inside, data, size = self._inside, bytes(self._kept), self._size
        self._inside, self._kept, self._size = False, bytearray(), 0
        if fault is not None and not size:
            return []  # a start block sent twice begins one message, not two
        if inside:
            if size > self._frame_bytes_max:
                return [Broken(data[:REMEMBERED_BYTES_MAX], Fault.OVERSIZED, size)]
            if fault is None:
                stored = _COMMITS.get(data)
                return [Frame(data) if stored is None else Commit(stored)]
            return [Broken(data[:REMEMBERED_BYTES_MAX], fault, size)]
        if data.removeprefix(b"\xef\xbb\xbf").startswith(b"MSH"):
            return [Broken(data, Fault.UNFRAMED, size)]
        return [Junk(data, Fault.OUTSIDE, size)]


def wrap(data: bytes) -> bytes:
    """`data` as one block. The two framing bytes, which HL7 text cannot hold, are dropped from it."""
    return START + data.translate(None, START + END) + END + b"\r"


def commit(stored: bool) -> bytes:
    """The block that confirms a received one (release 2)."""
    return START + (b"\x06" if stored else b"\x15") + END + b"\r"
