"""HL7 v2 text (ER7, "vertical bar" encoding; HL7 v2 chapter 2) by position: segments, fields, repetitions, escapes.

Reading is tolerant of how things are written (any segment terminator, any delimiters, unknown segments, an unexpected
order of segments, short MSH), with a note of each liberty, and strict about what they say (character sets, bounds).
Nothing here knows what a segment means; only MSH is looked into, because it says how to read the rest. A message that
cannot be read raises `Refused` with coordinates; nothing else leaves `parse`.

Splitting is lazy: `parse` cuts the text into segments and fields, a field is taken apart when it is read (design D4:
this is the hot path).
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

from gateway.domain.refusal import Refusal, RefusalKind, Refused
from gateway.wire.hl7_charsets import (
    KNOWN,
    CharacterSet,
    UnknownCharacterSet,
    character_set,
    default_character_set,
)

Repetition: TypeAlias = tuple[tuple[str, ...], ...]
"""One repetition of a field: components of subcomponents, unescaped."""

NULL = '""'
"""The HL7 null (v2 2.5.3): the sender says that the value is to be deleted; an empty field says nothing."""


@dataclass(frozen=True, slots=True)
class Delimiters:
    """What MSH-1 and MSH-2 declare. '' for one that a short MSH-2 leaves out: it is then not used."""

    field: str = "|"
    component: str = "^"
    repetition: str = "~"
    escape: str = "\\"
    subcomponent: str = "&"


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much one message may hold.

    Bytes are bounded first by each listener's frames; this is the most that any may be configured to take. The longest
    reports sent as one OBX or NTE per line have a few thousand segments. No known field repeats more than some dozen
    times.
    """

    message_bytes_max: int = 64 * 1024 * 1024
    segments_max: int = 5_000
    repetitions_max: int = 200


BOUNDS = Bounds()


@dataclass(frozen=True, slots=True)
class _Reading:
    """How the parts of one message are cut and unescaped."""

    delimiters: Delimiters
    character_set: CharacterSet

    def plain(self, text: str) -> str:
        """`text` with its escape sequences resolved."""
        return unescape(text, self.delimiters, self.character_set) if self.delimiters.escape in text else text


class Segment:
    """One segment. Fields, repetitions and components count from 1, as HL7 does; MSH-1 is the field separator."""

    __slots__ = ("_reading", "fields", "name", "number")

    def __init__(self, name: str, number: int, line: str, reading: _Reading) -> None:
        self.name = name
        self.number = number
        """Its place among the segments of this name, from 1."""
        self.fields = line.split(reading.delimiters.field)
        """The raw fields; index 0 is the segment's name."""
        if name == "MSH":
            self.fields.insert(1, reading.delimiters.field)
        self._reading = reading

    def __repr__(self) -> str:
        return f"<Segment {self.name}[{self.number}]>"

    def raw(self, n: int) -> str:
        """Field `n` as it stands in the message, '' where the segment is shorter."""
        fields = self.fields
        return fields[n] if 0 < n < len(fields) else ""

    def field(self, n: int) -> tuple[Repetition, ...]:
        """Field `n`, whole; () when it is empty or absent."""
        fields = self.fields
        raw = fields[n] if 0 < n < len(fields) else ""
        if not raw:
            return ()
        if raw.isalnum() or (n <= 2 and self.name == "MSH"):  # MSH-1 and MSH-2 are the delimiters themselves
            return (((raw,),),)
        delimiters, plain = self._reading.delimiters, self._reading.plain
        if not (delimiters.repetition in raw or delimiters.escape in raw):  # nearly always
            components, separator = raw.split(delimiters.component), delimiters.subcomponent
            if separator and separator in raw:
                return (tuple([tuple(component.split(separator)) for component in components]),)
            return (tuple([(component,) for component in components]),)
        return tuple(
            [
                tuple(
                    [
                        tuple([plain(subcomponent) for subcomponent in _split(component, delimiters.subcomponent)])
                        for component in _split(repetition, delimiters.component)
                    ]
                )
                for repetition in _split(raw, delimiters.repetition)
            ]
        )

    def text(self, n: int, repetition: int = 1, component: int = 1, subcomponent: int = 1) -> str:
        """One subcomponent, '' where it is absent; the HL7 null comes back as `NULL`."""
        fields = self.fields
        raw = fields[n] if 0 < n < len(fields) else ""
        if not raw or raw.isalnum() or (n <= 2 and self.name == "MSH"):
            return raw if repetition == component == subcomponent == 1 else ""
        delimiters = self._reading.delimiters
        if repetition == subcomponent == 1 and not (
            delimiters.repetition in raw or delimiters.subcomponent in raw or delimiters.escape in raw
        ):  # nearly always
            parts = raw.split(delimiters.component, component)
            return parts[component - 1] if component <= len(parts) else ""
        for separator, place in (
            (delimiters.repetition, repetition),
            (delimiters.component, component),
            (delimiters.subcomponent, subcomponent),
        ):
            if separator and separator in raw:
                parts = raw.split(separator, place)
                if len(parts) < place:
                    return ""
                raw = parts[place - 1]
            elif place > 1:
                return ""
        return self._reading.plain(raw)


class Message:
    """A message as read, from the line of each segment. MSH is cut into fields at once, the others when one of them is
    asked for: whoever only answers a message, or keeps it, needs no more."""

    __slots__ = ("_by_name", "_lines", "_reading", "_segments", "_type", "msh", "notes")

    def __init__(self, lines: Sequence[str], reading: _Reading, notes: tuple[str, ...] = ()) -> None:
        self._lines = lines
        self._reading = reading
        self.msh = Segment("MSH", 1, lines[0], reading)
        self.notes = notes
        """What was tolerated in reading, for the archive; names places only."""
        self._segments: tuple[Segment, ...] = ()
        self._by_name: dict[str, list[Segment]] = {}
        self._type: tuple[str, str] | None = None

    def __reduce__(self) -> tuple[type["Message"], tuple[Sequence[str], _Reading, tuple[str, ...]]]:
        """Another process gets the lines: they are cut sooner than fields are written and read."""
        return Message, (self._lines, self._reading, self.notes)

    def __repr__(self) -> str:
        return f"<Message {self.message_code}^{self.trigger_event} of {len(self.segments)} segments>"

    @property
    def segments(self) -> tuple[Segment, ...]:
        """In the order sent, also those that nobody knows."""
        if not self._segments:
            self._cut()
        return self._segments

    def all(self, name: str) -> tuple[Segment, ...]:
        """Every segment of that name, in order."""
        if not self._segments:
            self._cut()
        return tuple(self._by_name.get(name, ()))

    def first(self, name: str) -> Segment | None:
        """The first segment of that name."""
        if not self._segments:
            self._cut()
        found = self._by_name.get(name)
        return found[0] if found else None

    def _cut(self) -> None:
        segments, reading = [self.msh], self._reading
        by_name = {"MSH": [self.msh]}
        for line in self._lines[1:]:
            name = line[:3]
            same = by_name.setdefault(name, [])
            segment = Segment(name, len(same) + 1, line, reading)
            same.append(segment)
            segments.append(segment)
        self._segments, self._by_name = tuple(segments), by_name

    @property
    def delimiters(self) -> Delimiters:
        """What MSH-1 and MSH-2 declare."""
        return self._reading.delimiters

    @property
    def character_set(self) -> CharacterSet:
        """What the message was read with."""
        return self._reading.character_set

    @property
    def charset(self) -> str:
        """The Python codec the message was read with."""
        return self.character_set.codec

    @property
    def control_id(self) -> str:
        """MSH-10."""
        return self.msh.text(10)

    @property
    def message_code(self) -> str:
        """MSH-9.1, such as ORM; of `ORM_O01` alone too."""
        return self._message_type[0]

    @property
    def trigger_event(self) -> str:
        """MSH-9.2, such as O01; '' where nothing in MSH-9 names it."""
        return self._message_type[1]

    @property
    def _message_type(self) -> tuple[str, str]:
        """Code and event. Senders write `ORM_O01`, the message structure of MSH-9.3, where the code belongs."""
        if self._type is None:  # many ask
            self._type = self._type_said()
        return self._type

    def _type_said(self) -> tuple[str, str]:
        code, event = self.msh.text(9).strip().upper(), self.msh.text(9, 1, 2).strip().upper()
        if not event and "_" in code:
            code, _, event = code.partition("_")
        return code, event

    @property
    def processing_id(self) -> str:
        """MSH-11.1: P, D or T (table 0103)."""
        return self.msh.text(11)

    @property
    def version(self) -> str:
        """MSH-12.1, such as 2.5.1."""
        return self.msh.text(12)

    @property
    def sender(self) -> str:
        """Sending application and facility, `MSH-3|MSH-4`, by their first components."""
        return f"{self.msh.text(3)}|{self.msh.text(4)}"


def parse(data: bytes, default_charset: str = "ascii", bounds: Bounds = BOUNDS, charset_override: str = "") -> Message:
    """The message in `data`, one MLLP block.

    `default_charset` (table 0211 or a Python codec; empty means ASCII) reads messages whose MSH-18 is empty,
    `charset_override` all of them: for senders that declare what they do not send. Raises `Refused`: UNREADABLE at MSH,
    MSH-1, MSH-2, MSH-18 or the field that holds a wrong byte, TOO_LONG beyond a bound, UNSUPPORTED_TYPE for a batch.
    """
    if len(data) > bounds.message_bytes_max:
        raise _refused(
            RefusalKind.TOO_LONG, "", f"the message has {len(data)} bytes, {bounds.message_bytes_max} are allowed",
            "send documents apart from the order",
        )  # fmt: skip
    marked_utf8 = data.startswith(b"\xef\xbb\xbf")
    data = (data[3:] if marked_utf8 else data).lstrip(b"\r\n\x00 ").rstrip(b"\x00")
    delimiters, header = _header(data)
    said = header[17] if len(header) > 17 and header[17] != NULL else ""
    declared = tuple(_split(said[:_MSH_18_CHARACTERS_MAX], delimiters.repetition))
    try:
        if charset_override:
            charset = default_character_set(charset_override)
        elif any(declared):
            charset = character_set(declared)
        else:
            charset = default_character_set("utf-8" if marked_utf8 else default_charset or "ascii")
    except UnknownCharacterSet as error:
        raise _refused(RefusalKind.UNREADABLE, "MSH-18", str(error), f"send one of: {', '.join(KNOWN)}") from None
    notes = ["a byte order mark before MSH"] if marked_utf8 else []
    if charset_override and any(declared):
        notes.append(f"MSH-18 is not believed: read as {charset_override}")
    if len(header) < 12 or not (header[10] and header[11]):
        for place, meant in _TAKEN_AS.items():
            if not any(header[place - 1 : place]):
                notes.append(f"MSH-{place} is empty; taken as {meant}")
    return _cut(_decode(data, delimiters, charset), _Reading(delimiters, charset), bounds, notes)


def parse_header(data: bytes) -> Message:
    """A message of the MSH segment alone, read byte for byte as ISO 8859-1, to answer what cannot be read.

    Raises `Refused` where not even MSH-1 and MSH-2 are there.
    """
    if data.startswith((b"M\0S\0H\0", b"\0M\0S\0H", b"\xff\xfe", b"\xfe\xff")):
        data = data[2:].replace(b"\0", b"") if data[0] in b"\xff\xfe" else data.replace(b"\0", b"")
    start = data.find(b"MSH")
    delimiters, _ = _header(data[max(start, 0) :])
    line = re.split(rb"[\r\n]", data[start:], maxsplit=1)[0].replace(b"\0", b"")
    return _cut(line.decode("iso8859-1"), _Reading(delimiters, character_set(("8859/1",))), BOUNDS, [])


HEADER_FIELDS: Mapping[int, str] = {
    3: "the sending application",
    4: "the sending facility",
    5: "the receiving application",
    6: "the receiving facility",
    7: "the date and time of the message",
    9: "the message type",
    10: "the message control ID",
    11: "the processing ID",
    12: "the version ID",
}
"""The fields of MSH that a listener may insist on (RAD TF-2 2.4 asks for all of them)."""

HEADER_REQUIRED = (9, 10)
"""Without these no message can be processed or answered; nothing depends on the others."""


def check_header(
    message: Message,
    processing_ids: frozenset[str] = frozenset("PD"),
    required: Sequence[int] = HEADER_REQUIRED,
) -> list[Refusal]:
    """What MSH must say before anything else is worth reading; every problem, not the first.

    `required` are keys of HEADER_FIELDS. An empty MSH-11 is taken as P, an empty MSH-12 as 2.3.1; a strange date in
    MSH-7 is no reason to refuse.
    """
    refusals = [
        Refusal(RefusalKind.MISSING_FIELD, f"MSH-{place}", f"{HEADER_FIELDS[place]} is empty", "send it")
        for place in required
        if message.msh.text(place) in ("", NULL)
    ]
    processing_id, version = message.processing_id.strip().upper(), message.version.strip()
    if processing_id not in ("", NULL) and processing_id not in processing_ids:
        refusals.append(
            Refusal(
                RefusalKind.UNSUPPORTED_PROCESSING_ID,
                "MSH-11",
                f"processing ID {processing_id!r} is not taken here",
                f"send one of {', '.join(sorted(processing_ids))}; a listener for tests can allow T",
            )
        )
    if version not in ("", NULL) and not _VERSION.fullmatch(version):
        refusals.append(
            Refusal(
                RefusalKind.UNSUPPORTED_VERSION,
                "MSH-12",
                f"version {version!r} is not an HL7 v2 version",
                "send a version from 2.1 to 2.9",
            )
        )
    return refusals


_TAKEN_AS = {11: "P", 12: "2.3.1"}
_MSH_18_CHARACTERS_MAX = 200  # ten names of table 0211; what is longer is cut, and so not known
_VERSION = re.compile(r"2\.[1-9](\.[0-9])?")


def _refused(kind: RefusalKind, where: str, text: str, hint: str = "") -> Refused:
    return Refused(Refusal(kind, where, text, hint))


def _split(text: str, separator: str) -> list[str]:
    return text.split(separator) if separator else [text]


def _header(data: bytes) -> tuple[Delimiters, list[str]]:
    """The delimiters, and MSH split by the field separator with index n-1 for MSH-n, read as ASCII."""
    if data[:3] != b"MSH":
        if data[:3] in (b"FHS", b"BHS"):
            raise _refused(
                RefusalKind.UNSUPPORTED_TYPE, data[:3].decode(), "a batch is not one message", "cut it into messages"
            )
        if b"M\0S\0H" in data[:8]:
            raise _refused(RefusalKind.UNREADABLE, "MSH-18", "UTF-16 cannot pass through MLLP", "send UNICODE UTF-8")
        raise _refused(
            RefusalKind.UNREADABLE, "MSH", "the message does not begin with an MSH segment",
            "send one message per block, MSH first",
        )  # fmt: skip
    end = next((at for at in (data.find(b"\r"), data.find(b"\n")) if at >= 0), len(data))
    if data.find(b"\n", 0, end) >= 0:
        end = data.find(b"\n")
    separator = data[3:4]
    if not may_delimit(separator):
        shown = separator.decode("latin-1")
        raise _refused(
            RefusalKind.UNREADABLE, "MSH-1", f"the field separator {shown!r} is no printable ASCII sign",
            "send | as the fourth character of the message",
        )  # fmt: skip
    header = data[:end].decode("ascii", "replace").split(chr(separator[0]))
    signs = (header[1] if len(header) > 1 else "") or "^~\\&"
    return _delimiters(chr(separator[0]), signs[:4]), header


@lru_cache(maxsize=64)  # one entry per combination in use
def _delimiters(separator: str, signs: str) -> Delimiters:
    used = separator + signs
    if len(set(used)) < len(used) or not all(may_delimit(sign.encode()) for sign in used):
        raise _refused(
            RefusalKind.UNREADABLE, "MSH-2", "the encoding characters repeat, or are not printable ASCII signs",
            "send ^~\\&",
        )  # fmt: skip
    component, repetition, escape, subcomponent = (*signs, "", "", "")[:4]
    return Delimiters(separator, component, repetition, escape, subcomponent)


def may_delimit(sign: bytes) -> bool:
    """A printable ASCII sign that is no letter, digit, space or quotation mark (`""` is the null)."""
    return len(sign) == 1 and 0x20 < sign[0] < 0x7F and not sign.isalnum() and sign != b'"'


def _decode(data: bytes, delimiters: Delimiters, charset: CharacterSet) -> str:
    shifted = False
    if charset.may_shift and delimiters.escape:
        data, shifted = _raw_shifts(data, delimiters.escape.encode())
    at = data.find(b"\0")
    try:
        if at >= 0:
            raise UnicodeDecodeError(charset.codec, data, at, at + 1, "NUL")
        return charset.decode(data, shifted)
    except UnicodeDecodeError as error:
        raise _refused(
            RefusalKind.UNREADABLE,
            _place_of(data, error.start, delimiters),
            f"byte {error.start} of {len(data)} is not valid in {error.encoding}",
            "declare the character set in MSH-18, or set the listener's default",
        ) from None


def _raw_shifts(data: bytes, escape: bytes) -> tuple[bytes, bool]:
    """`\\Cxxyy\\` and `\\Mxxyyzz\\` (HL7 v2 2.7.2) turned into the ISO 2022 sequences they stand for."""
    if escape + b"C" not in data and escape + b"M" not in data:
        return data, False
    pattern = rb"%b[CM]((?:2[0-9A-Fa-f]){1,2}[3-7][0-9A-Fa-f])%b" % (re.escape(escape), re.escape(escape))
    shifted, count = re.subn(pattern, lambda found: b"\x1b" + bytes.fromhex(found[1].decode()), data)
    return shifted, count > 0


def _place_of(data: bytes, offset: int, delimiters: Delimiters) -> str:
    """The coordinates of a byte: segment, its number among its name, field."""
    before = re.split(rb"[\r\n]+", data[:offset])
    name = (before[-1] + data[offset : offset + 3])[:3]
    if not _SEGMENT_NAME.fullmatch(name.decode("ascii", "replace")):
        return ""
    number = sum(line.startswith(name) for line in before[:-1]) + 1
    field = before[-1].count(delimiters.field.encode()) + (name == b"MSH")
    return f"{name.decode()}{f'[{number}]' if number > 1 else ''}{f'-{field}' if field else ''}"


_SEGMENT_NAME = re.compile(r"[A-Z][A-Z0-9]{2}")


def _cut(text: str, reading: _Reading, bounds: Bounds, notes: list[str]) -> Message:
    """The text as segments. A line that is none continues the one before: senders leave line ends inside text."""
    if "\n" in text:
        ends = "CR LF" if "\r\n" in text or "\n\r" in text else "LF" if "\r" not in text else ""
        if ends:
            notes.append(f"segments end with {ends} instead of CR")
        text = text.replace("\r\n", "\r").replace("\n", "\r")
    separator = reading.delimiters.field
    lines = [line for line in text.split("\r") if line.strip()]
    if len(lines) > bounds.segments_max:
        raise _refused(
            RefusalKind.TOO_LONG, "", f"the message has {len(lines)} segments, {bounds.segments_max} are allowed",
            "cut it into several messages",
        )  # fmt: skip
    whole = _whole_segments(lines, separator, notes)
    message = Message(whole, reading, tuple(dict.fromkeys(notes)))
    repetition = reading.delimiters.repetition
    if repetition and text.count(repetition) > bounds.repetitions_max:
        _check_repetitions(message.segments, repetition, bounds.repetitions_max)
    return message


def _whole_segments(lines: list[str], separator: str, notes: list[str]) -> list[str]:
    """The lines, each with those that continue it."""
    whole: list[list[str]] = []
    field = continued = 0
    for line in lines:
        if (line[3:4] == separator or len(line) == 3) and _SEGMENT_NAME.match(line):
            whole.append([line])
            field = line.count(separator) + line.startswith("MSH")
        else:
            continued += 1
            if continued <= _BREAKS_NOTED_MAX:
                notes.append(f"line break inside {whole[-1][0][:3]}-{field}")
            whole[-1].append(line)
            field += line.count(separator)
    return ["\n".join(parts) for parts in whole] if continued else lines


_BREAKS_NOTED_MAX = 10  # the archive keeps the notes of every message; ten places tell what the sender does


def _check_repetitions(segments: Sequence[Segment], repetition: str, repetitions_max: int) -> None:
    for segment in segments:
        for n, raw in enumerate(segment.fields):
            if raw.count(repetition) >= repetitions_max:
                number = f"[{segment.number}]" if segment.number > 1 else ""
                raise _refused(
                    RefusalKind.TOO_LONG,
                    f"{segment.name}{number}-{n}",
                    f"the field repeats {raw.count(repetition) + 1} times, {repetitions_max} are allowed",
                    "send fewer, or escape the repetition separator",
                )


# Escape sequences (HL7 v2 2.7). Only complete, known ones are recognised; any other backslash is text, because
# senders write file paths and forget to escape.

_BREAKS = ("br", "sp", "ce")  # end the line; .sk skips columns, .in .ti .fi .nf only lay text out


@lru_cache(maxsize=64)  # one entry per combination of delimiters in use
def _sequences(delimiters: Delimiters) -> tuple[re.Pattern[str], Mapping[str, str]]:
    sign = re.escape(delimiters.escape)
    pattern = re.compile(
        rf"(?:{sign}X(?:[0-9A-Fa-f]{{2}})+{sign})+"
        rf"|{sign}([FSTREHNP]|Z[^{sign}]*|\.(?:br|sp|ce|sk|in|ti|fi|nf)[ +\-0-9]*){sign}"
    )
    return pattern, {
        "F": delimiters.field,
        "S": delimiters.component or "^",
        "T": delimiters.subcomponent or "&",
        "R": delimiters.repetition or "~",
        "E": delimiters.escape,
    }


def unescape(text: str, delimiters: Delimiters, charset: CharacterSet) -> str:
    """`text` with its escape sequences resolved: line breaks as "\\n", highlighting and local sequences dropped."""
    if not delimiters.escape:
        return text
    pattern, signs = _sequences(delimiters)
    return pattern.sub(_resolver(delimiters.escape, signs, charset), text)


def _resolver(escape: str, signs: Mapping[str, str], charset: CharacterSet) -> Callable[[re.Match[str]], str]:
    def resolve(found: re.Match[str]) -> str:
        code = found[1]
        if code is None:  # \X..\, several in a row where one character was cut in two
            try:
                decoded = charset.decode(bytes.fromhex(found[0].replace(f"{escape}X", "").replace(escape, "")))
            except UnicodeDecodeError:
                return found[0]
            return found[0] if "\0" in decoded else decoded
        if code in signs:
            return signs[code]
        if code[0] == ".":
            return "\n" if code[1:3] in _BREAKS else " " if code[1:3] == "sk" else ""
        return ""

    return resolve


def escape(text: str, delimiters: Delimiters) -> str:
    """`text` as the content of one subcomponent, the reverse of `unescape`.

    Line ends become `\\.br\\`, other control characters `\\Xhh\\`. Where the delimiters have no escape character, what
    would need it becomes a space.
    """
    return _to_escape(delimiters).sub(lambda found: _escaped(found[0], delimiters), text)


@lru_cache(maxsize=64)
def _to_escape(delimiters: Delimiters) -> re.Pattern[str]:
    signs = (delimiters.field, delimiters.component, delimiters.repetition, delimiters.escape, delimiters.subcomponent)
    return re.compile(rf"\r\n|[\x00-\x1f{''.join(re.escape(sign) for sign in signs)}]")


def _escaped(found: str, delimiters: Delimiters) -> str:
    sign = delimiters.escape
    if not sign or found == "\0":
        return " "
    if found in ("\r\n", "\r", "\n"):
        return f"{sign}.br{sign}"
    if found < " ":
        return f"{sign}X{ord(found):02X}{sign}"
    return sign + {
        delimiters.field: "F",
        delimiters.component: "S",
        delimiters.repetition: "R",
        sign: "E",
        delimiters.subcomponent: "T",
    }[found] + sign  # fmt: skip
