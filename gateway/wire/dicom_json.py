"""Attributes in the DICOM JSON Model (PS3.18 annex F) to and from DICOM bytes and pydicom datasets.

The gateway reads and writes the bytes of little endian datasets itself, for two reasons that were measured: pydicom
takes over a millisecond to write a worklist answer of 30 keys (`worklist_dataset`) and five times as long to read a
query, and it warns and logs with values in the text, which would be patient data (design D15). The data dictionary
is pydicom's.

Text is Unicode, person names are component groups, DS and IS stay the text they came as (PS3.18 table F.2.3-1 allows
a string, and a number would lose trailing zeros), binary VRs are base64 `InlineBinary`. Specific Character Set is
resolved on reading and is not among the attributes.
"""

import base64
import re
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from io import BytesIO
from typing import Any, NamedTuple, TypeAlias

from pydicom.datadict import dictionary_keyword, dictionary_VR, private_dictionary_VR
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.tag import Tag

from gateway.domain.attributes import BY_KEYWORD, BY_TAG, Attributes, Element, person_name_text, person_name_value
from gateway.domain.keys import coordinates
from gateway.domain.refusal import Refusal, RefusalKind, Refused
from gateway.wire.charsets import UNICODE, RawText, Terms, decode_key_terms, decode_text, encode_text, understood

IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"

CHARACTER_SET = "00080005"

# No real identifier nests deeper than six; recursion has to end somewhere before Python's own limit.
DEPTH_MAX = 32

_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = "FFFEE000", "FFFEE00D", "FFFEE0DD"
_TAG_FORM = re.compile(r"[0-9A-Fa-f]{8}")
_PADDING = "FFFCFFFC"  # Data Set Trailing Padding

# PS3.5 7.1.2: a 16-bit length, or two reserved bytes and a 32-bit length.
_SHORT_VRS = frozenset({
    "AE", "AS", "AT", "CS", "DA", "DS", "DT", "FD", "FL", "IS", "LO", "LT", "PN", "SH", "SL", "SS", "ST", "TM", "UI",
    "UL", "US",
})  # fmt: skip
_LONG_VRS = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"})
VRS = _SHORT_VRS | _LONG_VRS
"""The value representations that are read and written (PS3.5 table 6.2-1)."""
_VR_BYTES: Mapping[bytes, str] = {vr.encode(): vr for vr in VRS}
_SINGLE_TEXT_VRS = frozenset({"LT", "ST", "UT", "UR"})  # a backslash is a letter here
_NUMBERS: Mapping[str, str] = {
    "US": "H", "SS": "h", "UL": "I", "SL": "i", "UV": "Q", "SV": "q", "FL": "f", "FD": "d",
}  # fmt: skip
_BINARY_VRS = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
_TEXT_VRS = VRS - _BINARY_VRS - frozenset(_NUMBERS) - {"AT", "SQ"}
_PLAIN_VRS = _TEXT_VRS - _SINGLE_TEXT_VRS - {"PN", "UC"}
"""Texts whose padding is on both sides, and that have no parts but values."""
CHARACTER_SET_VRS = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})
"""Where Specific Character Set counts; every other VR is in the default repertoire (PS3.5 6.1.2.2)."""

# Group 0000 is the command's and group 0002 a file's (PS3.5 7.1); some senders leave them in the dataset.
_FOREIGN_GROUPS = (0x0000, 0x0002)

NOTES_MAX = 32
"""Notes on one dataset: as many as somebody reads."""

_Raw: TypeAlias = "tuple[str, str, bytes | list[list[_Raw]], str]"


class DatasetRead(NamedTuple):
    """A dataset as read, the character set it was in, and notes on what was odd about it (which hold no values)."""

    attributes: Attributes
    terms: Terms
    notes: tuple[str, ...]


def read_dataset_bytes(data: bytes, transfer_syntax: str, assumed_terms: Terms = ()) -> DatasetRead:
    """A little endian dataset.

    Tolerated, because devices send it: group lengths, command elements, UN where the dictionary knows better, an
    explicit dataset in an implicit context and the other way round, empty and padded values, zeros after the end,
    misspelt, missing and wrong character sets. `assumed_terms` are what the text is in where that is so. Raises
    Refused (UNREADABLE, with the place) where the bytes are no dataset.
    """
    notes: list[str] = []
    explicit = transfer_syntax != IMPLICIT_VR_LITTLE_ENDIAN
    if len(data) >= 8 and _is_mislabelled(data, explicit):
        explicit = not explicit
        notes.append("the dataset is not in the transfer syntax it was sent under")
    reader = _Reader(data, notes)
    elements, _ = reader.elements(0, len(data), explicit, "", 0)
    declared, said = _terms_of(elements, ())
    notes += said
    terms = declared if reader.all_ascii else _understood(elements, declared, assumed_terms, notes)
    attributes = _decode(elements, terms, assumed_terms, notes)
    return DatasetRead(attributes, declared or assumed_terms, tuple(dict.fromkeys(notes))[:NOTES_MAX])


def read_attributes(data: bytes, transfer_syntax: str) -> tuple[Attributes, tuple[str, ...]]:
    """The attributes of a little endian dataset and the notes of `read_dataset_bytes`, which see."""
    read = read_dataset_bytes(data, transfer_syntax)
    return read.attributes, read.notes


def _is_mislabelled(data: bytes, explicit: bool) -> bool:
    """Whether the first element cannot be read in the syntax that was negotiated, and can in the other one.

    The two letters of a VR may also be the lower half of a length, so what was negotiated counts while it can be true.
    """
    has_vr = data[4:6] in _VR_BYTES
    if explicit:
        return not has_vr
    length: int = struct.unpack_from("<I", data, 4)[0]
    return has_vr and length > len(data) - 8


_LENGTH, _SHORT_LENGTH = struct.Struct("<I"), struct.Struct("<H")
_ESC = 0x1B


@lru_cache(maxsize=8192)
def _tag_at(encoded: bytes) -> tuple[str, int, int, str, str]:
    """(tag, group, element, VR of the dictionary or '', coordinates) of four bytes."""
    group, element_number = struct.unpack("<HH", encoded)
    tag = f"{group:04X}{element_number:04X}"
    return tag, group, element_number, dictionary_vr(tag), coordinates(tag)


class _Reader:
    """Cuts a dataset into elements: (tag, VR, bytes or items, place)."""

    def __init__(self, data: bytes, notes: list[str]) -> None:
        self._data = data
        self._notes = notes
        self.all_ascii = True
        """Whether no value read so far has bytes beyond ASCII or escape sequences, which is so of nearly all."""

    def elements(
        self, start: int, end: int, explicit: bool, place: str, depth: int, until: str = ""
    ) -> tuple[list[_Raw], int]:
        """The elements from `start` up to `end`, or up to the delimiter `until`; and where reading stopped."""
        if depth > DEPTH_MAX:
            raise _unreadable(place, f"sequences nest deeper than {DEPTH_MAX}")
        found: list[_Raw] = []
        data, position = self._data, start
        while position < end:
            if data[position] == 0 and found and depth == 0 and not data[position:].strip(b"\0"):
                self._notes.append("there are zeros after the dataset")
                return found, end
            if end - position < 8:
                raise _unreadable(place, "the dataset ends in the middle of an element")
            tag, group, element_number, known, at = _tag_at(data[position : position + 4])
            if tag == until:
                return found, position + 8
            here = place + at
            if explicit and group != 0xFFFE:
                vr, length, value_start = self._header(position, end, here)
            else:
                vr, (length,), value_start = "", _LENGTH.unpack_from(data, position + 4), position + 8
            if vr == "" or vr == "UN" or vr not in VRS:  # noqa: PLR1714  (a third of the time)
                if vr and known:
                    self._notes.append(f"{here} came without its value representation")
                if known == "SQ" or length == _UNDEFINED:
                    # A sequence of unknown VR is written in implicit VR whatever the dataset is (PS3.5 6.2.2).
                    items, position = self._items(value_start, end, length, explicit and vr == "", here, depth)
                    found.append((tag, "SQ", items, here))
                    continue
                vr = known or "UN"
            if vr == "SQ":
                items, position = self._items(value_start, end, length, explicit, here, depth)
                found.append((tag, vr, items, here))
                continue
            if length > end - value_start:
                raise _unreadable(here, "the value is shorter than its length says")
            position = value_start + length
            if group == 0 and element_number == 0 and length == 0:
                raise _unreadable(here, "there are zeros where an element must be")
            if group in _FOREIGN_GROUPS:
                self._notes.append("elements of the command or of a file header are left out")
            elif element_number != 0 and tag != _PADDING:
                value = data[value_start:position]
                if not value.isascii() or _ESC in value:
                    self.all_ascii = False
                found.append((tag, vr, value, here))
        if until:
            raise _unreadable(place, "the delimiter of an item is missing")
        return found, position

    def _header(self, position: int, end: int, place: str) -> tuple[str, int, int]:
        """(VR, value length, where the value starts) in explicit VR."""
        vr = self._data[position + 4 : position + 6].decode("latin-1")
        if vr in _SHORT_VRS:
            return vr, _SHORT_LENGTH.unpack_from(self._data, position + 6)[0], position + 8
        if vr not in _LONG_VRS and not (vr.isascii() and vr.isalpha() and vr.isupper()):
            raise _unreadable(place, "there is no value representation where one must be")
        if end - position < 12:
            raise _unreadable(place, "the dataset ends in the middle of an element")
        return vr, _LENGTH.unpack_from(self._data, position + 8)[0], position + 12

    def _items(
        self, start: int, end: int, length: int, explicit: bool, place: str, depth: int
    ) -> tuple[list[list[_Raw]], int]:
        """The items of a sequence value, and where it ends."""
        if length != _UNDEFINED and length > end - start:
            raise _unreadable(place, "the value is shorter than its length says")
        stop = end if length == _UNDEFINED else start + length
        items: list[list[_Raw]] = []
        position = start
        while position < stop:
            if stop - position < 8:
                raise _unreadable(place, "the dataset ends in the middle of an item")
            group, element_number, item_length = struct.unpack_from("<HHI", self._data, position)
            tag = f"{group:04X}{element_number:04X}"
            position += 8
            if tag == _SEQUENCE_END and length == _UNDEFINED:
                return items, position
            if tag != _ITEM:
                raise _unreadable(place, "there is no item where one must be")
            inside = f"{place}[{len(items)}]/"
            if item_length == _UNDEFINED:
                item, position = self.elements(position, stop, explicit, inside, depth + 1, _ITEM_END)
            elif item_length > stop - position:
                raise _unreadable(place, "an item is shorter than its length says")
            else:
                item, position = self.elements(position, position + item_length, explicit, inside, depth + 1)
            items.append(item)
        if length == _UNDEFINED:
            raise _unreadable(place, "the delimiter of a sequence is missing")
        return items, position


def _unreadable(place: str, text: str) -> Refused:
    return Refused(Refusal(RefusalKind.UNREADABLE, place.rstrip("/"), text, "send a well-formed little endian dataset"))


@lru_cache(maxsize=8192)  # the public dictionary has about 5,000 rows
def dictionary_vr(tag: str) -> str:
    """The VR of a public attribute or private creator; '' where nobody but its creator knows."""
    if tag in BY_TAG:
        return BY_TAG[tag].vr
    number = int(tag, 16)
    if (number >> 16) & 1:
        return "LO" if 0x0010 <= (number & 0xFFFF) <= 0x00FF else ""
    try:
        return dictionary_VR(number)[:2]  # of an ambiguous pair (`US or SS`) the first
    except KeyError:
        return ""


def keyword_of(tag: str) -> str:
    """The keyword of a public attribute; '' where the dictionary has none."""
    if tag in BY_TAG:
        return BY_TAG[tag].keyword
    try:
        return str(dictionary_keyword(int(tag, 16)))
    except KeyError:
        return ""


def tag_of(name: str) -> str:
    """The tag of a keyword of the worklist, or of 8 hexadecimal digits. Raises ValueError where it is neither."""
    if name in BY_KEYWORD:
        return BY_KEYWORD[name].tag
    if _TAG_FORM.fullmatch(name):
        return name.upper()
    raise ValueError(f"{name} is no keyword of the worklist and no tag")


def element_from_text(vr: str, value: str) -> Element:
    """An element with this value, backslashes between several, as a site writes it in its configuration.

    Raises ValueError where the VR cannot be written so.
    """
    if vr in _BINARY_VRS or vr in ("SQ", "AT") or vr not in VRS:
        raise ValueError(f"a value of {vr} cannot be written as text")
    if vr in _NUMBERS:
        kind: Callable[[str], Any] = float if vr in ("FL", "FD") else int
        numbers = [kind(part) for part in value.split("\\") if part.strip()]
        try:
            struct.pack(f"<{len(numbers)}{_NUMBERS[vr]}", *numbers)
        except (struct.error, OverflowError):
            raise ValueError(f"a number is beyond what {vr} holds") from None
        return {"vr": vr, "Value": numbers} if numbers else {"vr": vr}
    return decode_element(vr, value.encode(), UNICODE)


def _private_vr(tag: str, creators: Mapping[str, str]) -> str:
    creator = creators.get(tag[:4] + "00" + tag[4:6])
    if not creator:
        return ""
    try:
        return str(private_dictionary_VR(int(tag, 16), creator))[:2]
    except KeyError:
        return ""


def _terms_of(elements: Sequence[_Raw], inherited: Terms) -> tuple[Terms, tuple[str, ...]]:
    """The character set of a dataset or item, its own or the inherited one."""
    for tag, _, value, _ in elements:
        if tag == CHARACTER_SET and isinstance(value, bytes):
            return decode_key_terms(value.decode("latin-1").split("\\"))
    return inherited, ()


def _understood(elements: Sequence[_Raw], declared: Terms, assumed: Terms, notes: list[str]) -> Terms:
    """What the text of a dataset or item is in; a note where that is not what it declares."""
    terms, note = understood(list(_texts(elements)), declared, assumed)
    if note:
        notes.append(note)
    return terms


def _texts(elements: Sequence[_Raw]) -> Iterator[RawText]:
    """The text values that are in the dataset's set: not those of items which declare their own."""
    for tag, vr, value, _ in elements:
        if isinstance(value, list):
            for item in value:
                if not _declares(item):
                    yield from _texts(item)
        elif tag != CHARACTER_SET and vr in _TEXT_VRS:
            yield RawText(value, vr == "PN")


def _declares(item: Sequence[_Raw]) -> bool:
    return any(tag == CHARACTER_SET for tag, *_ in item)


def _decode(elements: Sequence[_Raw], terms: Terms, assumed: Terms, notes: list[str]) -> Attributes:
    """The elements of one dataset or item by their VR, in this character set."""
    attributes: Attributes = {}
    creators: dict[str, str] = {}
    for tag, vr, value, place in elements:
        if tag == CHARACTER_SET:
            continue
        if isinstance(value, list):
            items = []
            for item in value:
                own_terms = terms
                if _declares(item):
                    declared, said = _terms_of(item, terms)
                    notes += said
                    own_terms = _understood(item, declared, assumed, notes)
                items.append(_decode(item, own_terms, assumed, notes))
            attributes[tag] = {"vr": "SQ", "Value": items} if items else {"vr": "SQ"}
            continue
        if vr == "LO" and tag[4:6] == "00" and int(tag[3], 16) & 1:
            creators[tag] = value.decode("latin-1").strip(" \0")
        if vr == "UN" and creators:
            vr = _private_vr(tag, creators) or vr  # noqa: PLW2901  (the VR that was meant)
        if vr in _NUMBERS and len(value) % struct.calcsize(_NUMBERS[vr]):
            notes.append(f"{place} has a length that no number of its value representation has")
        attributes[tag] = decode_element(vr, value, terms)
    return attributes


def decode_element(vr: str, data: bytes, terms: Terms) -> Element:
    """One element that is no sequence."""
    if not data:
        return {"vr": vr}
    if vr in _PLAIN_VRS and data.isascii() and b"\\" not in data and _ESC not in data:  # nearly always
        alone = data.decode().strip(" \0")
        return {"vr": vr, "Value": [alone]} if alone else {"vr": vr}
    if vr in _BINARY_VRS or vr not in VRS:
        return {"vr": vr, "InlineBinary": base64.b64encode(data).decode()}
    values: list[Any]
    if vr in _NUMBERS:
        form = _NUMBERS[vr]
        count = len(data) // struct.calcsize(form)
        values = list(struct.unpack_from(f"<{count}{form}", data))
    elif vr == "AT":
        halves = struct.unpack_from(f"<{len(data) // 4 * 2}H", data)
        values = [f"{group:04X}{number:04X}" for group, number in zip(halves[::2], halves[1::2], strict=True)]
    else:
        text = decode_text(data, terms, person_name=vr == "PN")
        if vr in _SINGLE_TEXT_VRS:
            values = [text.rstrip(" \0")]
        elif vr == "UC":
            values = [part.rstrip(" \0") for part in text.split("\\")]
        else:
            values = [part.strip(" \0") for part in text.split("\\")]
        if vr == "PN":
            values = [person_name_value(part) if part.strip("^=") else "" for part in values]
        if not any(values):
            return {"vr": vr}
        values = [part or None for part in values]
    return {"vr": vr, "Value": values} if values else {"vr": vr}


def write_attributes(attributes: Mapping[str, Element], transfer_syntax: str, terms: Terms) -> bytes:
    """The dataset's bytes, in tag order, sequences with defined lengths; Specific Character Set where there are terms.

    Raises UnicodeEncodeError where the terms do not hold a letter; choose them by `charsets.choose`.
    """
    explicit = transfer_syntax != IMPLICIT_VR_LITTLE_ENDIAN
    if terms:
        said: Element = {"vr": "CS", "Value": list(terms)}
        attributes = {**attributes, CHARACTER_SET: said}
    out = bytearray()
    for tag in sorted(attributes):
        out += encode_element(tag, attributes[tag], explicit, terms)
    return bytes(out)


def transcoded(data: bytes, transfer_syntax: str, into: str) -> bytes:
    """The same dataset in the other little endian transfer syntax, its values byte for byte as they are.

    Group lengths are left out. Raises Refused (UNREADABLE, with the place) where the bytes are no dataset.
    """
    explicit = transfer_syntax != IMPLICIT_VR_LITTLE_ENDIAN
    if len(data) >= 8 and _is_mislabelled(data, explicit):
        explicit = not explicit
    elements, _ = _Reader(data, []).elements(0, len(data), explicit, "", 0)
    return _written(elements, into != IMPLICIT_VR_LITTLE_ENDIAN)


def _written(elements: Sequence[_Raw], explicit: bool) -> bytes:
    out = bytearray()
    for tag, vr, body, _ in elements:
        value = body if isinstance(body, bytes) else b"".join(item_bytes(_written(item, explicit)) for item in body)
        out += element_bytes(tag, vr, value, explicit)
    return bytes(out)


def encode_element(tag: str, held: Element, explicit: bool, terms: Terms) -> bytes:
    """One element with its header; nested items recursively."""
    vr: str = held["vr"]
    if vr == "SQ":
        body = b"".join(encode_item(item or {}, explicit, terms) for item in held.get("Value") or ())
    else:
        body = value_bytes(vr, held, terms)
    return element_bytes(tag, vr, body, explicit)


def encode_item(item: Mapping[str, Element], explicit: bool, terms: Terms) -> bytes:
    """One sequence item of defined length."""
    return item_bytes(b"".join(encode_element(tag, item[tag], explicit, terms) for tag in sorted(item)))


def item_bytes(body: bytes) -> bytes:
    """An item tag with its length before the encoded elements of an item."""
    return b"\xfe\xff\x00\xe0" + len(body).to_bytes(4, "little") + body


@lru_cache(maxsize=8192)
def _tag_bytes(tag: str) -> bytes:
    return struct.pack("<HH", int(tag[:4], 16), int(tag[4:], 16))


def element_bytes(tag: str, vr: str, body: bytes, explicit: bool) -> bytes:
    """The element header before an encoded value of even length."""
    length = len(body)
    return (_header(tag, vr, length, explicit) if length <= 64 else _header_bytes(tag, vr, length, explicit)) + body


def _header_bytes(tag: str, vr: str, length: int, explicit: bool) -> bytes:
    if not explicit:
        return _tag_bytes(tag) + length.to_bytes(4, "little")
    if vr in _SHORT_VRS:
        if length <= 0xFFFF:
            return _tag_bytes(tag) + vr.encode() + length.to_bytes(2, "little")
        vr = "UN"  # too long for this VR's length field (PS3.5 6.2.2)
    return _tag_bytes(tag) + vr.encode() + b"\0\0" + length.to_bytes(4, "little")


_header = lru_cache(maxsize=16_384)(_header_bytes)  # of the 150 keys that devices ask for, in lengths up to 64


def value_bytes(vr: str, held: Element, terms: Terms) -> bytes:
    """The value of an element that is no sequence, padded to even length; `InlineBinary` as it is."""
    values = held.get("Value")
    if values is not None and len(values) == 1 and vr in _TEXT_VRS:  # nine of ten elements of an answer
        text = values[0]
        if type(text) is dict and len(text) == 1:
            text = text.get("Alphabetic")
        if type(text) is str and text.isascii():
            return (text if len(text) % 2 == 0 else text + ("\0" if vr == "UI" else " ")).encode()
    if values is None:
        inline = held.get("InlineBinary")
        if not inline:
            return b""
        body = base64.b64decode(inline[0] if isinstance(inline, list) else inline)
        return body + b"\0" if len(body) & 1 else body
    if vr in _NUMBERS:
        numbers = [value for value in values if value is not None]
        kind: Callable[[Any], Any] = float if vr in ("FL", "FD") else int
        return struct.pack(f"<{len(numbers)}{_NUMBERS[vr]}", *map(kind, numbers))
    if vr == "AT":
        return b"".join(_tag_bytes(value) for value in values if value)
    if vr == "PN":
        texts = [person_name_text(value) if isinstance(value, dict) else str(value or "") for value in values]
    else:
        texts = ["" if value is None else str(value) for value in values]
    # Value by value: code extensions return to the initial set at each delimiter (PS3.5 6.1.2.5.3).
    body = b"\\".join(
        text.encode() if text.isascii() else encode_text(text, terms, person_name=vr == "PN") for text in texts
    )
    if len(body) & 1:
        body += b"\0" if vr == "UI" else b" "
    return body


def attributes_from_dataset(dataset: Dataset) -> Attributes:
    """The attributes of a pydicom dataset: Unicode, names as component groups, binary as base64, no group lengths."""
    attributes: Attributes = {}
    for element in dataset:
        tag = f"{int(element.tag):08X}"
        if tag == CHARACTER_SET or element.tag.element == 0:
            continue
        vr = str(element.VR)[:2]
        value = element.value
        if vr == "SQ":
            items = [attributes_from_dataset(item) for item in value or ()]
            attributes[tag] = {"vr": vr, "Value": items} if items else {"vr": vr}
        elif isinstance(value, bytes):
            attributes[tag] = {"vr": vr, "InlineBinary": base64.b64encode(value).decode()} if value else {"vr": vr}
        elif element.is_empty:
            attributes[tag] = {"vr": vr}
        else:
            several = value if element.VM > 1 else [value]
            attributes[tag] = {"vr": vr, "Value": [_json_value(vr, each) for each in several]}
    return attributes


def _json_value(vr: str, value: Any) -> Any:
    if value is None or value == "":
        return None
    if vr == "PN":
        return person_name_value(str(value)) or None
    if vr == "AT":
        return f"{int(value):08X}"
    return value if vr in _NUMBERS else str(value)


def dataset_from_attributes(attributes: Mapping[str, Element]) -> Dataset:
    """A pydicom dataset of the attributes, its text in UTF-8 (ISO_IR 192) so that every letter fits."""
    data = write_attributes(attributes, EXPLICIT_VR_LITTLE_ENDIAN, UNICODE)
    dataset = read_dataset(BytesIO(data), is_implicit_VR=False, is_little_endian=True)
    return Dataset({Tag(tag): element for tag, element in dataset.items()})
