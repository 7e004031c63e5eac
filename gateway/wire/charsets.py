"""Specific Character Set (0008,0005): its defined terms, text to bytes and back, and the choice for an answer.

Everything inside the gateway is Unicode; only here do the sets of PS3.3 C.12.1.1.2 exist. Code extensions (PS3.5
6.1.2.5) are written and read here and not by pydicom, because pydicom takes Latin 1 for the default repertoire, so
that a letter with an accent would leave under ISO 2022 IR 6 and a strict reader would lose it.

Terms are held as tuples: () is the default repertoire; one value is a set without code extensions; several are a
set with them, '' standing for the default repertoire in first place.

The bytes 5CH and 7EH of ISO_IR 13 are a yen sign and an overline on a Japanese screen; DICOM uses the first as the
delimiter of values (PS3.5 6.1.2.3). They are read as backslash and tilde, and `¥` and `‾` are in no set but Unicode.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

from anyascii import anyascii

Terms: TypeAlias = tuple[str, ...]

UNICODE: Terms = ("ISO_IR 192",)

_ESC = 0x1B


@dataclass(frozen=True, slots=True)
class CharacterSet:
    """One registered set: its escape sequence, whether it is invoked in G0 or G1, and the bytes of a character."""

    number: int
    codec: str
    escape: bytes
    in_g0: bool = False
    width: int = 1

    @property
    def alone(self) -> str:
        """The defined term without code extensions."""
        return f"ISO_IR {self.number}"

    @property
    def extension(self) -> str:
        """The defined term with code extensions."""
        return f"ISO 2022 IR {self.number}"


# PS3.3 tables C.12-2 to C.12-4. The order of the single-byte sets is the order in which an answer tries them.
_SETS = (
    CharacterSet(6, "ascii", b"\x1b(B", in_g0=True),
    CharacterSet(100, "iso8859_1", b"\x1b-A"),
    CharacterSet(101, "iso8859_2", b"\x1b-B"),
    CharacterSet(148, "iso8859_9", b"\x1b-M"),
    CharacterSet(110, "iso8859_4", b"\x1b-D"),
    CharacterSet(109, "iso8859_3", b"\x1b-C"),
    CharacterSet(203, "iso8859_15", b"\x1b-b"),
    CharacterSet(144, "iso8859_5", b"\x1b-L"),
    CharacterSet(126, "iso8859_7", b"\x1b-F"),
    CharacterSet(127, "iso8859_6", b"\x1b-G"),
    CharacterSet(138, "iso8859_8", b"\x1b-H"),
    CharacterSet(166, "tis_620", b"\x1b-T"),
    CharacterSet(13, "shift_jis", b"\x1b)I"),
    CharacterSet(87, "iso2022_jp", b"\x1b$B", in_g0=True, width=2),
    CharacterSet(159, "iso2022_jp_1", b"\x1b$(D", in_g0=True, width=2),
    CharacterSet(149, "euc_kr", b"\x1b$)C", width=2),
    CharacterSet(58, "gb2312", b"\x1b$)A", width=2),
)
# Python's codec is ISO 8859-7 of 2003; these came with it, and ISO-IR 126 is the edition of 1987.
_LATER_GREEK = frozenset("€₯ͺ")
_BY_NUMBER: Mapping[int, CharacterSet] = {each.number: each for each in _SETS}
_BY_ESCAPE: Mapping[bytes, CharacterSet] = {each.escape: each for each in _SETS}
_ASCII, _KATAKANA = _BY_NUMBER[6], _BY_NUMBER[13]
_ROMAJI_ESCAPE = b"\x1b(J"  # ISO-IR 14, the G0 half of ISO_IR 13; its letters and digits are those of ASCII

# These stand alone: no code extensions, one value (PS3.5 6.1.2.5.4).
_STAND_ALONE: Mapping[str, str] = {"ISO_IR 192": "utf_8", "GB18030": "gb18030", "GBK": "gbk"}

# Terms without escape sequences, and the Python codec that does the whole job.
_PLAIN: Mapping[Terms, str] = {
    (): "ascii",
    **{(term,): codec for term, codec in _STAND_ALONE.items()},
    **{(each.alone,): each.codec for each in _SETS if each.width == 1 and each is not _KATAKANA},
}
# IR 203 is in newer editions only, so most devices do not know it; it is used where it is asked for.
SINGLE_BYTE: tuple[Terms, ...] = tuple(
    (each.alone,) for each in _SETS if each.width == 1 and each.number not in (6, 203)
)
"""The sets an answer tries before Unicode: the least set that fits is the one most devices can show."""

# Each of these is common where its script is, so they are tried only for letters of these scripts: Cyrillic and Greek
# are in all of them, and nobody who writes Greek has a device that knows GB 2312. Half-width katakana beside kanji
# take a pair of sets, which every Japanese device knows, and rare kanji another. Korean and Chinese sets hold kana
# too, but who writes kana has a Japanese device.
_JAPANESE: tuple[Terms, ...] = (
    ("", _BY_NUMBER[87].extension),
    (_KATAKANA.extension, _BY_NUMBER[87].extension),
    ("", _BY_NUMBER[87].extension, _BY_NUMBER[159].extension),
)
_EAST_ASIAN: tuple[Terms, ...] = (
    ("", _BY_NUMBER[87].extension),
    *(("", _BY_NUMBER[number].extension) for number in (149, 58, 159)),
)
_KANA = re.compile("[\u3041-\u3096\u30a1-\u30fa\uff66-\uff9d]")
_EAST_ASIAN_LETTER = re.compile(
    "[\u1100-\u11ff\u2e80-\u9fff\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\ufe30-\ufe4f\uff00-\uffef]"
)

DEFINED_TERMS: tuple[str, ...] = (
    *(each.alone for each in _SETS if each.width == 1),
    *(each.extension for each in _SETS),
    *_STAND_ALONE,
)
"""Every term that is read and written, for the conformance statement."""

_NUMBERED = re.compile(r"ISO[\W_]*(2022)?[\W_]*IR[\W_]*(\d+)")
_PART_8859 = re.compile(r"(?:ISO[\W_]*)?8859[\W_]+(\d+)")
_TERM_CHARACTERS_MAX = 64  # a CS has 16; the expressions above take seconds for thousands of blanks
_SPELLINGS = (
    (re.compile(r"UTF[\W_]*8"), "ISO_IR 192"),
    (re.compile(r"GB[\W_]*18030"), "GB18030"),
    (re.compile(r"GBK"), "GBK"),
)


def decode_key_terms(values: Sequence[str | None]) -> tuple[Terms, tuple[str, ...]]:
    """The terms meant by the values of a received Specific Character Set, with a note for each oddity.

    Devices pad, misspell and quote the terms, use a code-extension term alone, or send no value at all; none of that
    may make a query fail. A term that nobody knows is left out.
    """
    notes: list[str] = []
    numbers: list[int] = []
    for position, value in enumerate(values):
        raw = (value or "").strip(" \0")
        if not raw:
            if position == 0:
                numbers.append(_ASCII.number)
                if len(values) == 1:
                    notes.append("Specific Character Set has no value: taken as the default repertoire")
            continue
        meant = _meant(raw)
        if meant is None:
            notes.append("unknown Specific Character Set left out")
        elif isinstance(meant, str):
            if raw != meant:
                notes.append(f"Specific Character Set taken as {meant}")
            if position == 0:
                if len(values) > 1:
                    notes.append(f"{meant} allows no code extensions: further values left out")
                return (meant,), tuple(notes)
            notes.append(f"{meant} cannot be a code extension: left out")
        else:
            if raw not in (meant.alone, meant.extension) or (meant.width == 2 and raw == meant.alone):
                notes.append(f"Specific Character Set taken as IR {meant.number}")
            elif len(values) == 1 and raw == meant.extension:
                notes.append(f"{raw} stands alone")
            numbers.append(meant.number)
    numbers = list(dict.fromkeys(numbers))
    if not numbers or numbers == [_ASCII.number]:
        return (), tuple(notes)
    sets = [_BY_NUMBER[number] for number in numbers]
    if len(sets) == 1:
        return (sets[0].alone if sets[0].width == 1 else sets[0].extension,), tuple(notes)
    return tuple("" if each is _ASCII else each.extension for each in sets), tuple(notes)


def _meant(raw: str) -> CharacterSet | str | None:
    """The set, or the stand-alone term, that a possibly misspelt value means."""
    upper = raw[:_TERM_CHARACTERS_MAX].upper()
    numbered = _NUMBERED.search(upper)
    if numbered:
        if numbered[2] == "192":
            return "ISO_IR 192"
        return _BY_NUMBER.get(int(numbered[2][:4]))
    for spelling, term in _SPELLINGS:
        if spelling.search(upper):
            return term
    part = _PART_8859.search(upper)
    if part:
        codec = f"iso8859_{part[1]}"
        return next((each for each in _SETS if each.codec == codec), None)
    return None


@lru_cache(maxsize=256)  # distinct values of (0008,0005) in a department are a handful
def _sets_of(terms: Terms) -> tuple[CharacterSet, ...]:
    return tuple(_BY_NUMBER[int(term.rsplit(" ", 1)[1])] if term else _ASCII for term in terms)


def encode_text(text: str, terms: Terms, *, person_name: bool = False) -> bytes:
    """One value in these sets. Raises UnicodeEncodeError where they do not hold every letter.

    In a person name the active set is that of value 1 again before each `^` and `=` (PS3.5 6.1.2.5.3).
    """
    codec = _PLAIN.get(terms)
    if codec is not None:
        return text.encode(codec)
    if text.isascii():
        return text.encode("ascii")
    delimiters = "^=\r\n\f\t" if person_name else "\r\n\f\t"
    return _encode_extended(text, _sets_of(terms), delimiters)


def _encode_extended(text: str, sets: tuple[CharacterSet, ...], delimiters: str) -> bytes:
    out = bytearray()
    first_g1 = None if sets[0].in_g0 or sets[0].width == 2 else sets[0]
    g0, g1 = _ASCII, first_g1
    for position, character in enumerate(text):
        if character < "\x80":
            if g0 is not _ASCII:
                g0 = _ASCII
                out += _ROMAJI_ESCAPE if sets[0] is _KATAKANA else _ASCII.escape
            if character in delimiters:
                g1 = first_g1
            out += character.encode("ascii")
            continue
        # The set that is active already, if it holds the character, saves an escape sequence.
        for each in (g0, g1 or g0, *sets):
            code = _code(character, each)
            if code:
                break
        else:
            raise UnicodeEncodeError("iso2022", text, position, position + 1, "in none of the sets")
        if each.in_g0 and g0 is not each:
            g0 = each
            out += each.escape
        elif not each.in_g0 and g1 is not each:
            g1 = each
            out += each.escape
        out += code
    if g0 is not _ASCII:
        out += _ROMAJI_ESCAPE if sets[0] is _KATAKANA else _ASCII.escape
    return bytes(out)


@lru_cache(maxsize=8192)  # more than the characters of any one site's names
def _code(character: str, each: CharacterSet) -> bytes:
    """The bytes of one character beyond ASCII in one set; b'' where the set does not hold it."""
    try:
        code = character.encode(each.codec)
    except UnicodeEncodeError:
        return b""
    if each.in_g0:  # Python's codec brings the escape sequences along
        start = len(each.escape)
        return code[start : start + each.width] if code.startswith(each.escape) else b""
    return code if len(code) == each.width and code[0] >= 0x80 else b""


def decode_text(data: bytes, terms: Terms, *, person_name: bool = False) -> str:
    """The text of a value (with its backslashes). Never fails: what the sets do not hold becomes U+FFFD.

    Bytes beyond ASCII where none may be are read as UTF-8 if they are that, else as Latin 1: devices forget to
    declare their set. What a whole dataset was meant to be in is found by `understood`.
    """
    if data.isascii() and _ESC not in data:
        return data.decode("ascii")
    codec = _PLAIN.get(terms)
    if codec == "ascii":
        try:
            return data.decode("utf_8")
        except UnicodeDecodeError:
            return data.decode("iso8859_1")
    if codec is not None:
        return data.decode(codec, "replace")
    return _decode_extended(data, _sets_of(terms), _delimiters(person_name))


def _delimiters(person_name: bool) -> bytes:
    return b"\\^=\r\n\f\t" if person_name else b"\\\r\n\f\t"


def _decode_extended(data: bytes, sets: tuple[CharacterSet, ...], delimiters: bytes, *, strict: bool = False) -> str:
    """`strict` takes no letter of G1 after a delimiter that returned to a set without one."""
    out: list[str] = []
    # A two-byte set in first place has no business there; senders who put it there use it without escapes in G1.
    first_g1 = None if sets[0].in_g0 else sets[0]
    # The set meant by senders who forget the escape sequence, or to repeat it after a delimiter.
    forgotten = None if strict else next((each for each in sets if not each.in_g0), None)
    g0, g1 = _ASCII, first_g1
    position = 0
    while position < len(data):
        byte = data[position]
        if byte == _ESC:
            if data.startswith(_ROMAJI_ESCAPE, position):
                g0, position = _ASCII, position + 3
                continue
            escape = next(
                (data[position : position + n] for n in (3, 4) if data[position : position + n] in _BY_ESCAPE),
                b"",
            )
            if not escape:
                out.append("\ufffd")
                position += 1
                continue
            designated = _BY_ESCAPE[escape]
            if designated.in_g0:
                g0 = designated
            else:
                g1 = designated
                forgotten = None if strict else designated
            position += len(escape)
            continue
        active = g0 if byte < 0x80 else g1 or forgotten
        if active is _ASCII or active is None:
            if byte in delimiters:
                g1 = first_g1
            out.append(chr(byte) if byte < 0x80 else "\ufffd")
            position += 1
            continue
        code = data[position : position + active.width]
        if active.in_g0:
            code = active.escape + code
        out.append(code.decode(active.codec, "replace"))
        position += active.width
    return "".join(out)


@dataclass(frozen=True, slots=True)
class RawText:
    """A value that has not been decoded yet."""

    data: bytes
    person_name: bool = False


# Where the ISO 8859 sets have nothing. A text that has bytes there is in another set: UTF-8, Shift-JIS, code page 1252.
_CONTROLS = re.compile("[\x80-\x9f]")


def _well_formed(text: RawText, terms: Terms) -> bool:
    """Whether every byte means something in these sets."""
    data = text.data
    if data.isascii() and _ESC not in data:
        return True
    codec = _PLAIN.get(terms)
    if codec is None:
        decoded = _decode_extended(data, _sets_of(terms), _delimiters(text.person_name), strict=True)
        return "\ufffd" not in decoded and not _CONTROLS.search(decoded)
    if _ESC in data:
        return False
    try:
        decoded = data.decode(codec)
    except UnicodeDecodeError:
        return False
    return terms[0] in _STAND_ALONE or not _CONTROLS.search(decoded)


def understood(texts: Sequence[RawText], declared: Terms, assumed: Terms = ()) -> tuple[Terms, str]:
    """The terms by which to read these texts, and a note where they are not the declared ones.

    Devices forget to declare their set, or declare another one. Their bytes are then taken as `assumed`, which the
    site says of the device; else by the escape sequences in them; else as UTF-8 if they are that; else as Latin 1,
    which takes any bytes. A text that is mostly in the set declared stays in it: a letter cut in half spoils only
    itself.
    """

    def all_in(terms: Terms) -> bool:
        return all(_well_formed(text, terms) for text in texts)

    if all_in(declared):
        return declared, ""
    odd = "bytes beyond the declared character set" if declared else "bytes beyond ASCII without a character set"
    candidates = [assumed] if assumed else []
    if any(_ESC in text.data for text in texts) and not (declared and declared[0] in _STAND_ALONE):
        candidates.append(_any_extension(declared))
    for terms in (*candidates, UNICODE):
        if all_in(terms):
            return terms, f"{odd}: read as {_named(terms)}"
    for terms in (declared, assumed):
        if terms and (terms not in _PLAIN or terms[0] in _STAND_ALONE):
            decoded = "".join(decode_text(text.data, terms, person_name=text.person_name) for text in texts)
            lost = decoded.count("\ufffd")
            if sum(letter > "\x7f" for letter in decoded) > 2 * lost:
                return terms, f"{odd}: read as {_named(terms)}, with letters that cannot be read"
    return ("ISO_IR 100",), f"{odd}: read as ISO_IR 100"


def _any_extension(declared: Terms) -> Terms:
    """The declared sets in a form in which escape sequences are followed, whichever sets they designate."""
    sets = _sets_of(declared) or (_ASCII,)
    return ("" if sets[0] is _ASCII else sets[0].extension, *(each.extension for each in sets[1:]), _ASCII.extension)


def _named(terms: Terms) -> str:
    return "\\".join(terms) or "ASCII"


def holds(terms: Terms, text: str) -> bool:
    """Whether these sets hold every letter of the text."""
    if any(term.endswith("IR 126") for term in terms) and not _LATER_GREEK.isdisjoint(text):
        return False
    try:
        encode_text(text, terms)
    except UnicodeEncodeError:
        return False
    return True


def choose(
    texts: Iterable[str],
    requested: Terms,
    declared: Sequence[str] = (),
    first_groups: Iterable[str] = (),
) -> Terms:
    """The Specific Character Set of an answer with these texts (PS3.4 K.4.1.1.3.2); () means leave it out.

    No letter may be lost, and the least set that fits is the best understood: the default repertoire, else what the
    device declares to support (in its order, then together), else what the query used, else one single-byte set, else
    one two-byte set of an East Asian script (where there is kana: the sets of Japanese devices), else Unicode.

    `first_groups` are those of `texts` that are the first component group of a person name, where no escape sequence
    may be (PS3.5 6.2.1.2). A set that would need one there is used only if none fits without: first among those that
    the device knows, then among the others. ISO_IR 192, GB18030 and GBK need no escape sequence, so ideographs that
    came in that group are left there.
    """
    beyond = _letters(texts)
    return _choose(beyond, _letters(first_groups), requested, tuple(declared)) if beyond else ()


def _letters(texts: Iterable[str]) -> str:
    """The letters beyond ASCII, each once."""
    return "".join(sorted({letter for text in texts if not text.isascii() for letter in text if letter > "\x7f"}))


@lru_cache(maxsize=4096)  # by the letters beyond ASCII, which repeat from answer to answer
def _choose(beyond: str, first_group: str, requested: Terms, declared: Terms) -> Terms:
    known: list[Terms] = [decode_key_terms([term])[0] for term in declared]
    if len(declared) > 1:
        known.append(decode_key_terms(_with_extensions(declared))[0])
    others = list(SINGLE_BYTE)
    if _EAST_ASIAN_LETTER.search(beyond):
        others += _JAPANESE if _KANA.search(beyond) else _EAST_ASIAN
    for candidates in ([*known, requested], others):
        fitting = [terms for terms in map(declarable, candidates) if holds(terms, beyond)]
        for terms in fitting:
            if _without_escape(terms, first_group):
                return terms
        if fitting:
            return fitting[0]
    return UNICODE


def _without_escape(terms: Terms, letters: str) -> bool:
    """Whether the set of value 1 holds these letters, so that they need no escape sequence."""
    if terms in _PLAIN or not letters:
        return True
    first = _sets_of(terms)[0]
    return not first.in_g0 and all(_code(letter, first) for letter in letters)


def _with_extensions(declared: Terms) -> list[str]:
    """What a device can show, as one set with code extensions; sets that stand alone have no part in it."""
    return [term for term in declared if decode_key_terms([term])[0][:1] not in {(each,) for each in _STAND_ALONE}]


def declarable(terms: Terms) -> Terms:
    """The terms as they may be sent: a two-byte set never comes first (PS3.3 C.12.1.1.2)."""
    if terms and terms[0] and terms not in _PLAIN and _sets_of(terms)[0].width == 2:
        return ("", *(_BY_NUMBER[each.number].extension for each in _sets_of(terms) if each is not _ASCII))
    return terms


def composed(text: str) -> str:
    """Letters and the marks after them as one letter, where Unicode has one: most sets have no marks alone.

    Nothing else is normalised: ideographs of one meaning and two forms are different in a Japanese name.
    """
    if text.isascii() or not any(map(unicodedata.combining, text)):
        return text
    parts: list[str] = []
    for letter in text:
        if parts and unicodedata.combining(letter):
            parts[-1] += letter
        else:
            parts.append(letter)
    return "".join(part if len(part) == 1 else unicodedata.normalize("NFC", part) for part in parts)


CANNOT_SHOW = "?"
"""Stands for a letter that a set does not hold."""

# What a letter is written with must not divide a value or name (`＾` is `^`), nor be a control.
_DELIMITING = re.compile(r"[\\^=\x00-\x1f\x7f]")


def transliterated(text: str, terms: Terms = ()) -> str:
    """The text in the letters of these sets: what they do not hold as its base letter (`ö` is `o`), else spelt out.

    A letter that nobody can spell becomes `?`. The text may become longer.
    """
    if text.isascii():
        return text
    return "".join(letter if letter < "\x80" else _transliterated(letter, terms) for letter in composed(text))


@lru_cache(maxsize=8192)
def _transliterated(letter: str, terms: Terms) -> str:
    if holds(terms, letter):
        return letter
    base = "".join(each for each in unicodedata.normalize("NFD", letter) if not unicodedata.combining(each))
    if base and base != letter and holds(terms, base):
        return base
    if unicodedata.combining(letter):
        return ""  # a mark on a letter that was kept or replaced without it
    return _DELIMITING.sub(CANNOT_SHOW, anyascii(letter)) or CANNOT_SHOW


def replaced(text: str, terms: Terms) -> str:
    """The text with `?` for each letter that these sets do not hold."""
    if text.isascii():
        return text
    return "".join(letter if holds(terms, letter) else CANNOT_SHOW for letter in composed(text))
