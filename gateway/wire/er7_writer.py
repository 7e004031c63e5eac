"""HL7 v2 messages of our own as bytes (ER7): segments with delimiters, escapes and the receiver's character set.

No value can break out of its place: every delimiter and control character in it is escaped, so that what arrives has
the segments and fields that were meant. Nothing fails for a letter that the receiver's set does not hold: it is
written in the letters that the set has.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from gateway.domain.mapping_trace import TraceEntry
from gateway.domain.outbound import OutboundRules, WrittenSegment
from gateway.domain.report import Header, Report
from gateway.domain.source import Repetition
from gateway.wire.charsets import composed, transliterated
from gateway.wire.er7 import Delimiters, escape
from gateway.wire.hl7_charsets import CharacterSet, character_set, default_character_set

_USUAL = Delimiters()
_ENCODING_CHARACTERS = "^~\\&"


def write(segments: Iterable[WrittenSegment], charset: str = "") -> bytes:
    """The message in an MSH-18 value's character set (several are divided by `~`), '' for ASCII. MSH comes first."""
    known = _set(charset)
    lines: list[str] = []
    for name, fields in segments:
        written = [_field(repetitions) for repetitions in fields]
        if name == "MSH":  # MSH-1 is the separator itself
            written = [_ENCODING_CHARACTERS, *written[2:]]
        lines.append(_USUAL.field.join([name, *written]).rstrip(_USUAL.field))
    # Before the delimiters count: what a letter is spelt with must not divide anything, so values were escaped first.
    return known.encode(_spelt("".join(f"{line}\r" for line in lines), known))


def _field(repetitions: Sequence[Repetition]) -> str:
    if not repetitions:  # as most fields are
        return ""
    return _USUAL.repetition.join(
        _USUAL.component.join(_component(component) for component in repetition).rstrip(_USUAL.component)
        for repetition in repetitions
    )


def _component(subcomponents: Sequence[str]) -> str:
    if len(subcomponents) == 1:  # as nearly all have
        return _escaped(subcomponents[0])
    written = [_escaped(text) for text in subcomponents]
    return _USUAL.subcomponent.join(written).rstrip(_USUAL.subcomponent)


def _escaped(text: str) -> str:
    return text if not text or text.isalnum() else escape(text, _USUAL)


@lru_cache(maxsize=64)
def _set(charset: str) -> CharacterSet:
    """Raises UnknownCharacterSet; settings are checked before they come here."""
    if "~" in charset:
        return character_set(tuple(charset.split("~")))
    return default_character_set(charset or "ascii")


def _spelt(text: str, known: CharacterSet) -> str:
    """The text in letters that the set holds, each other one as its base letter or spelt out (`ö` is `o`)."""
    if text.isascii() or known.codec == "utf-8":
        return text
    return "".join(letter if letter < "\x80" else _letter(letter, known.codec) for letter in composed(text))


@lru_cache(maxsize=8192)
def _letter(letter: str, codec: str) -> str:
    try:
        letter.encode(codec)
    except UnicodeEncodeError:
        return "".join(sign if sign not in _DIVIDING else "?" for sign in transliterated(letter))
    return letter


_DIVIDING = frozenset("|^~\\&\r\n")


@dataclass(frozen=True, slots=True)
class MessageWriter:
    """An outbound mapping that writes HL7 v2 messages: what `workflow.audience.Outbound` asks for."""

    rules: OutboundRules = field(repr=False)

    @property
    def about(self) -> str:
        """What one message is about: `order`, `procedure` or `patient`."""
        return self.rules.about

    @property
    def name(self) -> str:
        """The mapping with its version, for the archive."""
        return self.rules.version_id

    def message(self, report: Report, header: Header) -> bytes:
        """The message that tells the report. Raises Refused."""
        return write(self.rules.segments(report, header), header.charset)

    def explained(self, report: Report, header: Header) -> tuple[bytes, list[TraceEntry]]:
        """The same with where each value came from. Raises Refused."""
        trace: list[TraceEntry] = []
        written = self.rules.segments(report, header, trace)
        return write(written, header.charset), trace
