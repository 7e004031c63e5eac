"""Several messages in one block: the batch protocol (FHS, BHS ... BTS, FTS; HL7 v2 2.10.3) and messages in a row.

A block is cut where a line begins with one of the five segments, and nothing else of it is read: each message goes
its own way, with its own bytes, as if it had come alone. What a trailer counts is compared and told, never refused:
the messages are there or they are not. The answer to a batch is a batch that refers to it; messages in a row without
headers are answered by as many blocks, in their order.
"""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from gateway.domain.refusal import Refusal, RefusalKind, Refused
from gateway.wire.er7 import may_delimit

MESSAGES_MAX = 10_000
"""Messages in one block: a day of a large hospital's orders. Each takes about a millisecond, and the sender waits."""

_HEADER = re.compile(rb"(?<![^\r\n])(?:FHS|BHS|MSH|BTS|FTS)(?=[^A-Za-z0-9 ]|\Z)")
_SEVERAL = re.compile(rb"(?<=[\r\n])(?:FHS|BHS|MSH)(?=[^A-Za-z0-9 \r\n])")
_AROUND = b"\r\n\x00 "
_UTF8_MARK = b"\xef\xbb\xbf"
_HEADER_FIELDS = 13  # the name and fields up to 12, the reference to what is answered; 1 is the separator itself
_COUNT_DIGITS_MAX = 9


@dataclass(slots=True)
class Part:
    """The messages between one BHS and its BTS; `header` and `trailer` are b"" where the sender left them out."""

    header: bytes = b""
    messages: list[bytes] = field(default_factory=list, repr=False)
    trailer: bytes = b""


@dataclass(slots=True)
class Batch:
    """One block with several messages, or with the headers of a batch."""

    header: bytes = b""
    """FHS."""
    parts: list[Part] = field(default_factory=list)
    trailer: bytes = b""
    """FTS."""

    @property
    def headed(self) -> bool:
        """Whether the sender made it a batch; otherwise these are messages in a row."""
        return bool(self.header) or any(part.header for part in self.parts)

    @property
    def messages(self) -> Iterator[bytes]:
        """Every message as it was sent, in order."""
        for part in self.parts:
            yield from part.messages

    @property
    def notes(self) -> list[str]:
        """Where a trailer counts otherwise than we do."""
        told = [_miscounted(part.trailer, part.header, len(part.messages), "messages") for part in self.parts]
        told.append(_miscounted(self.trailer, self.header, len(self.parts), "batches"))
        return [note for note in told if note]


def split(raw: bytes) -> Batch | None:
    """The messages of a block; None where it is one message alone, the ordinary case.

    What stands before the first of the five segments belongs to the first message. Raises Refused (TOO_LONG at MSH)
    beyond `MESSAGES_MAX`.
    """
    data = raw.removeprefix(_UTF8_MARK).lstrip(_AROUND)
    if data[:3] not in (b"FHS", b"BHS") and (data.count(b"MSH") < 2 or not _SEVERAL.search(data, 1)):
        return None
    mark = _UTF8_MARK if raw.startswith(_UTF8_MARK) else b""
    starts = [found.start() for found in _HEADER.finditer(data)] or [0]
    batch = Batch()
    count = 0
    for start, end in zip([0, *starts[1:]], [*starts[1:], len(data)], strict=True):
        piece = data[start:end]
        match piece[:3]:
            case b"FHS":
                batch.header = piece
            case b"BHS":
                batch.parts.append(Part(piece))
            case b"BTS":
                _part(batch).trailer = piece
            case b"FTS":
                batch.trailer = piece
            case _:
                count += 1
                if count > MESSAGES_MAX:
                    raise Refused(
                        Refusal(
                            RefusalKind.TOO_LONG, "MSH", f"more than {MESSAGES_MAX} messages in one block",
                            "send smaller batches",
                        )
                    )  # fmt: skip
                _open_part(batch).messages.append(mark + piece)
    return batch


def _part(batch: Batch) -> Part:
    if not batch.parts:
        batch.parts.append(Part())
    return batch.parts[-1]


def _open_part(batch: Batch) -> Part:
    """Where the next message belongs: a trailer has ended the part before it."""
    if batch.parts and batch.parts[-1].trailer:
        batch.parts.append(Part())
    return _part(batch)


def answer(batch: Batch, answers: Sequence[bytes], now: datetime) -> list[bytes]:
    """The blocks that answer a batch: one batch, or the answers one by one where the sender made none.

    `answers` are those to its messages, in order, b"" where none is due. A batch of which no message wants an answer
    gets none.
    """
    if any(batch.messages) and not any(answers):
        return []
    if not batch.headed:
        return [each for each in answers if each]
    following = iter(answers)
    notes = "; ".join(batch.notes).encode("ascii", "replace")
    lines: list[bytes] = []
    first = batch.header or next(part.header for part in batch.parts if part.header)
    separator = _separator(first)
    if batch.header:
        lines.append(_answering(batch.header, b"FHS", now))
    for part in batch.parts:
        told = [each for each in (next(following) for _ in part.messages) if each]
        lines.append(_answering(part.header or first, b"BHS", now))
        lines += told
        lines.append(separator.join([b"BTS", b"%d" % len(told)]) + b"\r")
    if batch.header:
        lines.append(separator.join([b"FTS", b"%d" % len(batch.parts)]) + b"\r")
    if notes:  # BTS-2 and FTS-2 are comments; the last trailer speaks for the whole block
        lines[-1] = lines[-1].removesuffix(b"\r") + separator + notes.replace(separator, b" ") + b"\r"
    return [b"".join(lines)]


def _answering(header: bytes, name: bytes, now: datetime) -> bytes:
    """A header of ours for a header of theirs: the two sides changed, their control ID (11) as our reference (12)."""
    theirs = _fields(header)
    ours = [b""] * _HEADER_FIELDS
    ours[0], ours[2] = name, theirs[2]
    ours[3], ours[4], ours[5], ours[6] = theirs[5], theirs[6], theirs[3], theirs[4]
    ours[7] = now.strftime("%Y%m%d%H%M%S%z").encode()
    ours[11] = hashlib.blake2b(name + ours[7] + header, digest_size=10).hexdigest().upper().encode()
    ours[12] = theirs[11]
    return _separator(header).join([name, *ours[2:]]) + b"\r"


def _separator(header: bytes) -> bytes:
    """A header's field separator; the usual one where it has none."""
    sign = header[3:4]
    return sign if may_delimit(sign) else b"|"


def _fields(header: bytes) -> list[bytes]:
    """A header's fields, index n for field n; the separator is field 1. Lines that follow it are not looked at."""
    line = re.split(rb"[\r\n]", header, maxsplit=1)[0]
    name, *fields = line.split(_separator(line))
    return [name, line[3:4], *fields, *[b""] * _HEADER_FIELDS][:_HEADER_FIELDS]


def _miscounted(trailer: bytes, header: bytes, count: int, what: str) -> str:
    """A note where the trailer's first field is another number."""
    name, separator = trailer[:3].decode(), trailer[3:4] or header[3:4]
    said = re.split(rb"[\r\n]", trailer, maxsplit=1)[0].split(separator)[1:2] if trailer[3:4].strip() else []
    digits = said[0].strip()[:_COUNT_DIGITS_MAX] if said else b""
    if not digits.isdigit() or int(digits) == count:
        return ""
    return f"{name}-1 counts {int(digits)} {what}, {count} came"
