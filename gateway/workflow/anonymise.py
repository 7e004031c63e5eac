"""A message with everything that identifies a person replaced, so that it can be kept as a golden case.

What is not known to be harmless is replaced: the table names the fields that stay and those with a shape of their own;
any other field, and all of a segment that is not in the table, gets invented words and digits. In fields that stay,
names among other words, and numbers and dates of people, are replaced too. Lengths, scripts and delimiters stay, and
what was equal in the message is equal afterwards, so a mapping reads it in the same way.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from enum import StrEnum
from hashlib import blake2b

from gateway.wire.er7 import NULL, Delimiters, Message, Segment

TOKEN_LENGTH_MIN = 3
"""Letters or digits from which a word can identify somebody; shorter ones are everywhere."""
NUMBER_LENGTH_MIN = 5
"""Digits from which a number in a field that stays is taken for the one of a person that it equals."""


class Part(StrEnum):
    """How a field is replaced."""

    KEEP = "stays"
    NAME = "person name (XPN): names replaced, type and representation stay"
    PERSON = "person with identifier (XCN): identifier and names replaced"
    IDENTIFIER = "identifier (CX, EI): value replaced, authority and type stay"
    DATE = "date of a person: shifted"
    CODED = "coded entry (CE, CWE): stays if it names a coding scheme, else replaced"
    OBSERVATION = "as OBX-2 says: numbers, times and coded entries stay, text is replaced"
    INVENT = "every word and number replaced"


_FIELDS = {
    "MSH": "1-7 keep, 9 keep, 11-21 keep",
    "EVN": "1-4 keep, 6-7 keep",
    "PID": "1 keep, 2-4 identifier, 5-6 name, 7 date, 8 keep, 9 name, 10 keep, 15-17 keep, 18 identifier, "
    "21 identifier, 22 keep, 24-28 keep, 29 date, 30-38 keep",
    "PV1": "1-4 keep, 5 identifier, 6 keep, 7-9 person, 10-16 keep, 17 person, 18 keep, 19 identifier, 20-45 keep, "
    "50 identifier, 51 keep, 52 person",
    "PV2": "1-2 keep, 3 coded, 8-9 keep",
    "MRG": "1-6 identifier, 7 name",
    "AL1": "1-2 keep, 3 coded, 4 keep, 6 keep",
    "DG1": "1-2 keep, 3 coded, 5-6 keep, 16 person",
    "NK1": "1 keep, 2 name, 3 keep, 7 keep, 8-9 date, 15 keep, 16 date",
    "GT1": "1 keep, 2 identifier, 3-4 name, 8 date, 9-11 keep",
    "IN1": "1 keep, 16 name, 17 keep, 18 date",
    "ORC": "1 keep, 2-4 identifier, 5-7 keep, 9 keep, 10-12 person, 13 keep, 15-18 keep, 19 person, 20-21 keep, "
    "25-30 keep",
    "OBR": "1 keep, 2-3 identifier, 4-9 keep, 10 person, 11 keep, 12-13 coded, 14-15 keep, 16 person, "
    "18-21 identifier, 22-25 keep, 27 keep, 28 person, 30 keep, 31 coded, 36-38 keep, 40-42 keep, 44-47 keep",
    "OBX": "1-4 keep, 5 observation, 6-8 keep, 11-12 keep, 14 keep, 16 person",
    "NTE": "1-2 keep, 4 keep",
    "TQ1": "1-9 keep, 12-14 keep",
    "IPC": "1-4 identifier, 5-9 keep",
    "ZDS": "1 identifier",
    "SCH": "1-4 identifier, 5-11 keep, 12 person, 15 keep, 16 person, 19 keep, 20 person, 22 keep, 23-24 identifier, "
    "25 keep, 26-27 identifier",
    "RGS": "1-3 keep",
    "AIS": "1-10 keep",
    "AIG": "1-14 keep",
    "AIL": "1-9 keep",
    "AIP": "1-2 keep, 3 person, 4-9 keep",
}


def _compiled(rows: str) -> dict[int, Part]:
    parts: dict[int, Part] = {}
    for row in rows.split(", "):
        numbers, kind = row.split(" ")
        first, _, last = numbers.partition("-")
        parts |= dict.fromkeys(range(int(first), int(last or first) + 1), Part[kind.upper()])
    return parts


TABLE: Mapping[str, Mapping[int, Part]] = {segment: _compiled(rows) for segment, rows in _FIELDS.items()}
"""Segment -> field -> how it is replaced; INVENT where nothing is said."""

_REPLACED_COMPONENTS: Mapping[Part, frozenset[int]] = {
    Part.NAME: frozenset({1, 2, 3, 9, 11, 12, 13}),
    Part.PERSON: frozenset({1, 2, 3, 4}),
    Part.IDENTIFIER: frozenset({1}),
}
_OF_PEOPLE = frozenset({Part.NAME, Part.PERSON, Part.IDENTIFIER, Part.DATE})
_STAYING_OBSERVATIONS = frozenset({"NM", "DT", "TM", "TS", "DTM"})
_SCHEME = 3  # component of the coding scheme in CE and CWE

# Letters that make words one can say: consonants and vowels in turn. Scripts without such words have one list.
_LETTERS: tuple[tuple[str, str, str, str], ...] = (
    ("a", "z", "bdfgklmnprstvz", "aeiou"),
    ("\u00df", "\u017f", "çñßðþ", "äéöüáí"),
    ("\u0370", "\u03ff", "βγδκλμνπρστφ", "αεηιου"),
    ("\u0400", "\u04ff", "бвгдзклмнпрст", "аеиоу"),
    ("\u0590", "\u05ff", "בגדהזחטכלמנרש", "אויע"),
    ("\u0600", "\u06ff", "بتجدرزسشفقكلمن", "اوي"),
    ("\u0e00", "\u0e7f", "กขคงจชตนบปมยรลวส", "กขคงจชตน"),
    ("\u3040", "\u309f", "かきくけさしすせたちつてなにの", "あいうえお"),
    ("\u30a0", "\u30ff", "カキクケサシスセタチツテナニノ", "アイウエオ"),
    ("\uff66", "\uff9f", "ｶｷｸｹｻｼｽｾﾀﾁﾂﾃﾅﾆﾉ", "ｱｲｳｴｵ"),
    ("\uac00", "\ud7a3", "가나다라마바사아자하", "고노도로모보소오조호"),
    ("\u3400", "\U0002ffff", "山田川木林石中大小村上下", "口本金水火土日月天人力"),
)


@dataclass(frozen=True, slots=True)
class Anonymised:
    """The message's new bytes, and the fields (`OBR-13`) that still say a word that was replaced elsewhere."""

    raw: bytes
    left: tuple[str, ...]


def anonymise(message: Message, salt: bytes) -> Anonymised:
    """The message with invented people. The same `salt` invents the same; keep it to nobody."""
    inventor = _Inventor(salt, message.charset)
    made = [list(_fields(segment, message, inventor)) for segment in message.segments]
    for segment, fields in zip(message.segments, made, strict=True):  # now that everybody is known
        for place, number in enumerate(_numbers(segment)):
            if _stays(segment, number) and fields[place] == segment.fields[number]:
                fields[place] = _without_people(fields[place], message.delimiters, inventor)
    text = "\r".join(map(message.delimiters.field.join, made))
    try:
        raw = (text + "\r").encode(message.charset)
    except UnicodeEncodeError:  # of several character sets, which only shifts between them could write
        raw = (_in_unicode(text, message.delimiters.field) + "\r").encode()
    return Anonymised(raw, tuple(_left(message, made, inventor)))


def _in_unicode(text: str, separator: str) -> str:
    """The message with MSH-18 saying UTF-8."""
    header, _, rest = text.partition("\r")
    fields = header.split(separator)
    fields += [""] * (_MSH_18 - len(fields))
    fields[_MSH_18 - 1] = "UNICODE UTF-8"
    return separator.join(fields) + "\r" + rest


_MSH_18 = 18


def _fields(segment: Segment, message: Message, inventor: "_Inventor") -> Iterator[str]:
    for number in _numbers(segment):
        raw, part = segment.fields[number], _part(segment, number)
        if number == 0 or part is Part.KEEP:
            yield raw
        else:
            inventor.of_people = part in _OF_PEOPLE
            yield _replaced(raw, part, message.delimiters, inventor)


def _numbers(segment: Segment) -> list[int]:
    """The fields that joining puts between separators, the segment's name first: MSH-1 is the separator itself."""
    return [number for number in range(len(segment.fields)) if segment.name != "MSH" or number != 1]


def _stays(segment: Segment, number: int) -> bool:
    """Whether a field may stay as it is; the delimiters are no field that anybody is named in."""
    if number == 0 or (segment.name == "MSH" and number <= _MSH_2):
        return False
    return _part(segment, number) in (Part.KEEP, Part.CODED)


def _without_people(raw: str, delimiters: Delimiters, inventor: "_Inventor") -> str:
    """A field that stays, without the people named elsewhere. A word alone in a component is a code: `_left` tells."""
    separators = "".join(filter(None, (delimiters.component, delimiters.repetition, delimiters.subcomponent)))
    pieces = re.split(f"([{re.escape(separators)}])", raw) if separators else [raw]

    def known(found: re.Match[str]) -> str:
        word = found[0]
        alone = found.string == word and not word.isdigit()
        return word if alone else inventor.known_of_people(word)

    return "".join(_WORD.sub(known, piece) for piece in pieces)


def _part(segment: Segment, number: int) -> Part:
    part = TABLE.get(segment.name, {}).get(number, Part.INVENT)
    if part is not Part.OBSERVATION:
        return part
    kind = segment.text(2).upper()
    return Part.KEEP if kind in _STAYING_OBSERVATIONS else Part.CODED if kind in ("CE", "CWE", "CNE") else Part.INVENT


def _replaced(raw: str, part: Part, delimiters: Delimiters, inventor: "_Inventor") -> str:
    def repetition(text: str) -> str:
        components = text.split(delimiters.component) if delimiters.component else [text]
        if part is Part.CODED and len(components) >= _SCHEME and components[_SCHEME - 1]:
            return text
        replaced = _REPLACED_COMPONENTS.get(part)
        invent = inventor.date if part is Part.DATE else inventor.text
        return delimiters.component.join(
            _plainly(component, delimiters, invent) if replaced is None or number in replaced else component
            for number, component in enumerate(components, 1)
        )

    separator = delimiters.repetition
    return separator.join(map(repetition, raw.split(separator))) if separator else repetition(raw)


def _plainly(text: str, delimiters: Delimiters, invent: Callable[[str], str]) -> str:
    """The text with everything replaced but subcomponent separators and the escapes that only shape it."""
    if text == NULL:
        return text
    if not delimiters.escape:
        return invent(text)
    sign = re.escape(delimiters.escape)
    pieces = re.split(rf"({sign}[^{sign}]*{sign})", text)
    return "".join(
        piece if index % 2 and _SHAPING.fullmatch(piece[1:-1]) else invent(piece.replace(delimiters.escape, "x"))
        for index, piece in enumerate(pieces)
    )


_SHAPING = re.compile(r"[FSTREHN]|\.[a-z]{2}[+-]?\d*")  # HL7 v2 chapter 2, 2.7; the others hold characters
_WORD = re.compile(r"[^\W_]+")
_UID = re.compile(r"([0-2]\.\d+\.)(\d+(?:\.\d+)+)")  # what registers it stays, so that it is one afterwards


class _Inventor:
    """Invents words for words, always the same for the same, of the same length and script."""

    def __init__(self, salt: bytes, codec: str) -> None:
        self._salt = salt
        self._codec = codec
        self.invented: dict[str, str] = {}
        self.of_people = False
        """Whether what is replaced now is about a person, and not a remark with words that anybody uses."""
        self._people: dict[str, str] = {}
        self._days = 15 + self._digest("days")[0]

    def _digest(self, text: str) -> bytes:
        return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=64, key=self._salt[:64]).digest()

    def text(self, text: str) -> str:
        uid = _UID.fullmatch(text)
        kept, text = (uid[1], uid[2]) if uid else ("", text)
        return kept + _WORD.sub(lambda found: self._word(found[0]), text)

    def date(self, text: str) -> str:
        """A day moved into the past, as exact as it was said; a time of day is kept."""
        found = re.match(r"(\d{4})(\d{2})?(\d{2})?", text)
        try:
            if found is None:
                raise ValueError(text)
            day = date(int(found[1]), int(found[2] or 7), int(found[3] or 1)) - timedelta(self._days)
            if not found[3]:
                day -= timedelta(365)
        except (ValueError, OverflowError):
            return self.text(text)
        self.invented[found[0]] = self._people[found[0]] = day.strftime("%Y%m%d")[: len(found[0])]
        return self.invented[found[0]] + text[found.end() :]

    def known_of_people(self, word: str) -> str:
        """What a person's name, number or date became; any other word as it is."""
        enough = NUMBER_LENGTH_MIN if word.isdigit() else TOKEN_LENGTH_MIN
        made = self._people.get(word.casefold(), word) if len(word) >= enough else word
        return made.upper() if word.isupper() else made

    def _word(self, word: str) -> str:
        made = self.invented.get(word) or self._new(word)
        if self.of_people:
            self._people.setdefault(word.casefold(), made)
        return made

    def _new(self, word: str) -> str:
        turn = 0
        while True:  # a word of one letter may come out as it was
            made = self._made(word, self._digest(f"{turn} {word.casefold()}"))
            turn += 1
            if made != word or turn > len(word) + 8:
                break
        self.invented[word] = made
        return made

    def _made(self, word: str, numbers: bytes) -> str:
        made = ""
        for place, character in enumerate(word):
            number = numbers[place % len(numbers)] + place // len(numbers)
            if character.isdigit():
                # A leading 0 would spoil a UID's component, and the lack of one a number's shape.
                made += "0" if character == "0" and not place else "123456789"[number % 9]
            else:
                made += self._letter(character, place, number)
        return made

    def _letter(self, character: str, place: int, number: int) -> str:
        small = character.lower()
        for first, last, consonants, vowels in _LETTERS:
            if first <= small[0] <= last:
                choice = (consonants, vowels)[place % 2]
                break
        else:
            return "x"
        letters = (choice[(number + turn) % len(choice)] for turn in range(len(choice)))
        cased = (each.upper() if character != small and len(each.upper()) == 1 else each for each in letters)
        return next((each for each in cased if self._writable(each)), "x")

    def _writable(self, letter: str) -> bool:
        try:
            letter.encode(self._codec)
        except UnicodeEncodeError:
            return False
        return True


def _left(message: Message, made: Sequence[Sequence[str]], inventor: _Inventor) -> Iterator[str]:
    """The fields that stay and hold a word that elsewhere was taken for somebody's: a person should look at them."""
    words = {
        word.casefold()
        for word, made in inventor.invented.items()
        if len(word) >= TOKEN_LENGTH_MIN and word != made and not word.isdigit()
    }
    for segment, fields in zip(message.segments, made, strict=True):
        for number, now in zip(_numbers(segment), fields, strict=True):
            if not _stays(segment, number) or not now:
                continue
            stayed = set(_WORD.findall(segment.fields[number])) & set(_WORD.findall(now))
            if words & {word.casefold() for word in stayed}:
                place = segment.name if segment.number == 1 else f"{segment.name}[{segment.number}]"
                yield f"{place}-{number}"


_MSH_2 = 2  # the delimiters themselves
