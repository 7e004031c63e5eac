"""HL7 v2 character sets: MSH-18 (table 0211) to and from Unicode, with the ISO 2022 shifts of HL7 v2 chapter 2.

Nothing here guesses: a value that the table does not know is refused by name, and bytes that the declared set does
not have are an error, never a replacement character. Only the names of sets and their bytes live here; segments and
delimiters are `er7`'s.
"""

import codecs
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

_CODECS: Mapping[str, str] = {
    "ASCII": "ascii",
    "ISO IR6": "ascii",
    **{f"8859/{part}": f"iso8859-{part}" for part in (1, 2, 3, 4, 5, 6, 7, 8, 9, 15)},
    "ISO IR14": "ascii",
    "ISO IR87": "iso2022_jp",
    "ISO IR159": "iso2022_jp_1",
    "JIS X 0202": "iso2022_jp_1",
    "JAS2020": "iso2022_jp_1",
    "KS X 1001": "euc_kr",
    "GB 18030-2000": "gb18030",
    "BIG-5": "big5",
    "UNICODE UTF-8": "utf-8",
    "UNICODE": "utf-8",  # deprecated; UTF-16 cannot pass through MLLP, so UTF-8 is what it means
}
"""The codec that reads the set where no shift occurs, and writes it."""

KNOWN: tuple[str, ...] = tuple(_CODECS)
"""Every MSH-18 value that is understood, as table 0211 spells it."""

_SHIFTED = frozenset({"ISO IR14", "ISO IR87", "ISO IR159", "JIS X 0202", "JAS2020"})
_NOT_ISO_2022 = frozenset({"utf-8", "gb18030", "big5"})


def _key(name: str) -> str:
    """Spelling without what senders vary: case, spaces, hyphens, and the `ISO` before 8859."""
    return re.sub(r"[^A-Z0-9]", "", name.upper()).replace("ISO8859", "8859")


_DICOM_TERMS = {
    13: "ISO IR14", 100: "8859/1", 101: "8859/2", 109: "8859/3", 110: "8859/4", 126: "8859/7", 127: "8859/6",
    138: "8859/8", 144: "8859/5", 148: "8859/9", 192: "UNICODE UTF-8", 203: "8859/15",
}  # fmt: skip
_BY_KEY = {
    **{_key(name): name for name in _CODECS},
    **{f"ISOIR{number}": name for number, name in _DICOM_TERMS.items()},  # senders write DICOM's terms, too
    "UTF8": "UNICODE UTF-8",
    "GB18030": "GB 18030-2000",
    "EUCKR": "KS X 1001",
}

_RIGHT_HALVES = frozenset({"euc_kr", *(codec for codec in _CODECS.values() if codec.startswith("iso8859"))})
"""The sets that use the bytes above 7FH and can stand beside ISO 2022 shifts."""

_KANJI, _EXTRA_KANJI, _KATAKANA = "JIS X 0208", "JIS X 0212", "JIS X 0201 katakana"

_DESIGNATIONS: Mapping[bytes, tuple[int, str]] = {
    # ISO 2022 escape sequence after ESC -> (0: bytes below 80H, 1: bytes above; the set). JIS X 0201 romaji differs
    # from ASCII only in two signs that HL7 needs as delimiters, so it is read as ASCII.
    b"(B": (0, "ascii"),
    b"(J": (0, "ascii"),
    b"(I": (0, _KATAKANA),
    b"$@": (0, _KANJI),
    b"$B": (0, _KANJI),
    b"$(B": (0, _KANJI),
    b"$(D": (0, _EXTRA_KANJI),
    b")I": (1, _KATAKANA),
    b"$)A": (1, "gb2312"),
    b"$)C": (1, "euc_kr"),
    **{
        b"-" + final: (1, f"iso8859-{part}")
        for final, part in zip(
            (b"A", b"B", b"C", b"D", b"L", b"G", b"F", b"H", b"M", b"b"), (1, 2, 3, 4, 5, 6, 7, 8, 9, 15), strict=True
        )
    },
}
_SHIFT = rb"\x1b(" + b"|".join(re.escape(each) for each in sorted(_DESIGNATIONS, key=len, reverse=True)) + rb")"
_TOKENS = re.compile(_SHIFT + rb"|[\r\n]+|[^\x1b\r\n]+")
_TOKENS_WHILE_SHIFTED = re.compile(_SHIFT + rb"|[\r\n]+|[\x00-\x09\x0b\x0c\x0e-\x1a\x1c-\x7f]+|[\x80-\xff]+")
_SET_BIT_8 = bytes(byte | 0x80 if 0x21 <= byte <= 0x7E else byte for byte in range(0x100))


class UnknownCharacterSet(ValueError):  # noqa: N818  (what happened, in the words of table 0211)
    """MSH-18 names a set that is not understood, or two that cannot be in one message. The text says which."""


@dataclass(frozen=True, slots=True)
class CharacterSet:
    """How one message's bytes are read and its answer's written.

    `codec` is a Python codec. `shifting` says that ISO 2022 escape sequences are part of the set; `upper` is the set of
    the bytes above 7FH before the first of them ('' for none).
    """

    codec: str
    shifting: bool = False
    upper: str = ""

    @property
    def may_shift(self) -> bool:
        """Whether `\\C..\\` and `\\M..\\` can mean anything in this set."""
        return self.codec not in _NOT_ISO_2022

    def decode(self, data: bytes, shifted: bool = False) -> str:
        """Unicode for `data`; UnicodeDecodeError with the offset where the set does not have the bytes."""
        if self.shifting or shifted:
            return _decode_shifts(data, self.upper)
        return data.decode(self.codec)

    def encode(self, text: str) -> bytes:
        """The bytes of `text`; what the set cannot hold becomes `?`, because an answer must leave."""
        return text.encode(self.codec, "replace")


@lru_cache(maxsize=256)  # as many spellings as senders have; the values come from the network, hence a bound
def character_set(values: tuple[str, ...]) -> CharacterSet:
    """The set for the repetitions of MSH-18, the first being the base (HL7 v2 2.15.9.18).

    Raises UnknownCharacterSet.
    """
    names = [_known(value) for value in values if value.strip()] or ["ASCII"]
    spoken = [_CODECS[name] for name in names]
    wide = {codec for codec in spoken if codec in _NOT_ISO_2022}
    if wide:
        # ASCII is a part of each of these, so `ASCII~UNICODE UTF-8` says one thing; `8859/1~UNICODE UTF-8` says two.
        if len(wide) > 1 or not set(spoken) <= {"ascii", *wide} or not _SHIFTED.isdisjoint(names):
            raise UnknownCharacterSet(f"{' and '.join(names)} cannot be in one message")
        return CharacterSet(wide.pop())
    upper = _KATAKANA if "ISO IR14" in names else next((each for each in spoken if each in _RIGHT_HALVES), "")
    if len(names) == 1:
        return CharacterSet(spoken[0], names[0] in _SHIFTED, upper)
    writing = next((each for each in spoken if each.startswith("iso2022")), spoken[0])
    return CharacterSet(writing if spoken[0] == "ascii" else spoken[0], True, upper)


@lru_cache(maxsize=64)
def default_character_set(name: str) -> CharacterSet:
    """What a listener assumes where MSH-18 is empty: a value of table 0211, or a Python codec (`cp1252`).

    Raises UnknownCharacterSet, also for codecs in which HL7's delimiters are not the bytes of ASCII.
    """
    if _key(name) in _BY_KEY:
        return character_set((name,))
    # Python also calls codec what rewrites ASCII text: UTF-7, unicode_escape, IDNA.
    probes = [bytes([byte]) for byte in range(0x80)] + [b"xn--tda"]
    try:
        codec = codecs.lookup(name).name
        transparent = all(probe.decode(codec) == probe.decode("ascii") for probe in probes)
    except (LookupError, ValueError):
        transparent = False
    if not transparent:
        raise UnknownCharacterSet(f"{name} is not a known character set")
    return CharacterSet(codec, upper="" if codec in _NOT_ISO_2022 else codec)


def _known(value: str) -> str:
    name = _BY_KEY.get(_key(value))
    if name is not None:
        return name
    if re.search("UTF(16|32)", _key(value)):
        raise UnknownCharacterSet(f"{value.strip()} cannot pass through MLLP")
    if _key(value).startswith("CNS11643"):
        raise UnknownCharacterSet(f"{value.strip()} is a set of table 0211 that is not read here")
    raise UnknownCharacterSet(f"{value.strip()} is not a known character set")


def _decode_shifts(data: bytes, upper: str) -> str:
    """ISO 2022 text; every line begins in ASCII and `upper` again, as HL7 and DICOM (PS3.5 6.1.2.5.3) ask."""
    lower_now, upper_now = "ascii", upper
    pieces: list[str] = []
    position = 0
    while position < len(data):
        shifted = lower_now != "ascii"
        token = (_TOKENS_WHILE_SHIFTED if shifted else _TOKENS).match(data, position)
        if token is None:
            raise UnicodeDecodeError("ISO 2022", data, position, position + 1, "unknown escape sequence")
        found = token.group()
        if token[1] is not None:
            plane, name = _DESIGNATIONS[token[1]]
            lower_now, upper_now = (name, upper_now) if plane == 0 else (lower_now, name)
        elif found[0] in b"\r\n":
            lower_now, upper_now = "ascii", upper
            pieces.append(found.decode("ascii"))
        else:
            try:
                if shifted and found[0] < 0x80:
                    pieces.append(_decode_run(found.translate(_SET_BIT_8), lower_now))
                else:
                    pieces.append(_decode_run(found, upper_now or "ascii"))
            except UnicodeDecodeError as error:
                at = position + min(error.start, len(found) - 1)
                raise UnicodeDecodeError(error.encoding, data, at, at + 1, error.reason) from None
        position = token.end()
    return "".join(pieces)


def _decode_run(run: bytes, name: str) -> str:
    """Text of one set above 7FH and of ASCII below, by way of the 8-bit forms that Python's codecs know."""
    match name:
        case "JIS X 0208":
            return run.decode("euc_jp")
        case "JIS X 0212":
            return re.sub(rb"[\xa1-\xfe]{2}", b"\x8f\\g<0>", run).decode("euc_jp")
        case "JIS X 0201 katakana":
            return re.sub(rb"[\xa1-\xfe]", b"\x8e\\g<0>", run).decode("euc_jp")
        case _:
            return run.decode(name)
