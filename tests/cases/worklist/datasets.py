"""Data sets as the suite's files write them, and as bytes: independent of the gateway's own reader and writer.

A data set is a mapping of tag to `Element`. In the files an attribute is its DICOM keyword or `(gggg,eeee)`; `step`
stands for the one item of the Scheduled Procedure Step Sequence. Only pydicom's dictionary and character sets are
used, so that a mistake of ours and one of the gateway's do not hide each other.
"""

import re
import struct
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from pydicom.charset import convert_encodings, decode_bytes, encode_string
from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword
from pydicom.valuerep import PersonName

STEP = 0x00400100
CHARACTER_SET = 0x00080005
TIMEZONE = 0x00080201
STUDY_INSTANCE_UID = 0x0020000D

_TEXT = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})
_ONE_VALUE = frozenset({"LT", "ST", "UT", "UR"})
_LONG = frozenset({"OB", "OW", "SQ", "UC", "UN", "UR", "UT"})
_BINARY = {"US": "<H", "UL": "<I", "SS": "<h", "SL": "<i", "FL": "<f", "FD": "<d"}
_PN_DELIMITERS = set("^=")
_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD


@dataclass(frozen=True)
class Element:
    """One attribute: values as text, or items of a sequence, or bytes that stand as they are."""

    vr: str
    values: tuple[str, ...] = ()
    items: "tuple[Dataset, ...]" = ()
    raw: bytes | None = None

    @property
    def empty(self) -> bool:
        """Whether it is of zero length, or nothing but blanks or an item without attributes."""
        return not (any(self.values) or any(self.items) or self.raw)


Dataset: TypeAlias = dict[int, Element]


def tag_of(name: str) -> int:
    """The tag of a keyword, of `step`, or of `(gggg,eeee)`. Raises KeyError."""
    if name == "step":
        return STEP
    if form := re.fullmatch(r"\(([0-9A-Fa-f]{4}),([0-9A-Fa-f]{4})\)", name):
        return int(form[1] + form[2], 16)
    tag = tag_for_keyword(name)
    if tag is None:
        raise KeyError(f"no attribute is called {name}")
    return int(tag)


def name_of(tag: int) -> str:
    """The keyword, or the tag's coordinates where it has none."""
    return keyword_for_tag(tag) or f"({tag >> 16:04X},{tag & 0xFFFF:04X})"


def vr_of(tag: int) -> str:
    """The dictionary's VR; UN for what it does not know, LO for private creators."""
    if (tag >> 16) % 2:
        return "LO" if 0x10 <= tag & 0xFFFF <= 0xFF else "UN"
    if not tag & 0xFFFF:
        return "UL"
    try:
        return str(dictionary_VR(tag)).split(" or ")[0]
    except KeyError:
        return "UN"


def dataset_of(written: Mapping[str, Any]) -> Dataset:
    """The data set of a mapping in a file."""
    return dict(sorted((tag_of(name), _element(tag_of(name), value)) for name, value in written.items()))


def _element(tag: int, written: Any) -> Element:
    """`value`, `[values]`, `[{items}]`, or `{vr, value | items | hex | text and codec}`."""
    vr = vr_of(tag)
    if tag == STEP and isinstance(written, Mapping) and "items" not in written and "vr" not in written:
        return Element("SQ", items=(dataset_of(written),))
    if isinstance(written, Mapping):
        vr = written.get("vr", vr)
        if "hex" in written:
            return Element(vr, raw=bytes.fromhex(written["hex"]))
        if "codec" in written:
            return Element(vr, raw=str(written["text"]).encode(written["codec"]))
        written = written.get("items", written.get("value"))
    if vr == "SQ":
        return Element("SQ", items=tuple(dataset_of(item or {}) for item in written or ()))
    values = written if isinstance(written, list) else [] if written is None else [written]
    return Element(vr, tuple(map(str, values)))


def overlaid(under: Dataset, over: Dataset) -> Dataset:
    """Both, `over` going before; the step's item attribute by attribute."""
    joined = {**under, **over}
    if STEP in under and STEP in over and under[STEP].items and over[STEP].items:
        joined[STEP] = Element("SQ", items=({**under[STEP].items[0], **over[STEP].items[0]},))
    return dict(sorted(joined.items()))


def encode(dataset: Dataset, terms: Sequence[str], *, explicit: bool) -> bytes:
    """The bytes in Implicit or Explicit VR Little Endian, texts in the character set of these terms."""
    return b"".join(_encoded(tag, element, terms, explicit) for tag, element in sorted(dataset.items()))


def _encoded(tag: int, element: Element, terms: Sequence[str], explicit: bool) -> bytes:
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF)
    if element.raw is None and element.vr == "SQ":
        value = b"".join(
            struct.pack("<HHI", 0xFFFE, 0xE000, len(item)) + item
            for item in (encode(each, terms, explicit=explicit) for each in element.items)
        )
    else:
        value = _value_bytes(element, terms)
    if len(value) % 2:
        value += b"\0" if element.vr in ("UI", "UN", "OB") else b" "
    if not explicit:
        return head + struct.pack("<I", len(value)) + value
    if element.vr in _LONG:
        return head + element.vr.encode() + struct.pack("<HI", 0, len(value)) + value
    return head + element.vr.encode() + struct.pack("<H", len(value)) + value


def _value_bytes(element: Element, terms: Sequence[str]) -> bytes:
    if element.raw is not None:
        return element.raw
    if element.vr in _BINARY:
        form = _BINARY[element.vr]
        return b"".join(struct.pack(form, float(each) if form in "<f<d" else int(each)) for each in element.values)
    if all(value.isascii() for value in element.values):
        return "\\".join(element.values).encode("ascii")
    if "ISO 2022 IR 58" in terms:
        return b"\\".join(map(_simplified_chinese, element.values))
    encodings = _encodings(terms)
    if element.vr == "PN":
        return b"\\".join(PersonName(value).encode(encodings) for value in element.values)
    return b"\\".join(encode_string(value, encodings) for value in element.values)


def _simplified_chinese(value: str) -> bytes:
    """As PS3.5 annex K shows it; pydicom leaves out the escape sequences of this set."""
    parts = re.split("([\\^=])", value)
    return b"".join(part.encode("ascii") if part.isascii() else b"\x1b$)A" + part.encode("gb2312") for part in parts)


def decode(data: bytes, *, explicit: bool) -> Dataset:
    """The data set of these bytes. Raises ValueError where they are none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom's, of text that its set does not hold: then the values differ
            dataset, position = _dataset(data, 0, len(data), ["iso8859"], explicit)
    except (struct.error, IndexError) as error:
        raise ValueError("the bytes end within an element") from error
    if position != len(data):
        raise ValueError("there are bytes behind the data set")
    return dataset


def _dataset(data: bytes, position: int, end: int, encodings: list[str], explicit: bool) -> tuple[Dataset, int]:
    found: Dataset = {}
    before = -1
    while position < end:
        tag, vr, length, position = _head(data, position, explicit)
        if tag == _ITEM_END:
            return found, position
        if tag <= before:
            raise ValueError(f"{name_of(tag)} is out of order")
        before = tag
        if vr == "SQ" or length == _UNDEFINED:
            items, position = _items(data, position, length, encodings, explicit)
            found[tag] = Element("SQ", items=items)
            continue
        if position + length > end:
            raise ValueError(f"{name_of(tag)} is longer than the data set")
        value = data[position : position + length]
        position += length
        found[tag] = Element(vr, _values(vr, value, encodings))
        if tag == CHARACTER_SET:
            encodings = _encodings(found[tag].values)
    return found, position


def _encodings(terms: Sequence[str]) -> list[str]:
    """Python's names of the sets; pydicom does not know Latin 9, which is of a later edition."""
    stripped = [term.strip() for term in terms]
    return ["iso8859_15"] if stripped == ["ISO_IR 203"] else convert_encodings(stripped or "")


def _head(data: bytes, position: int, explicit: bool) -> tuple[int, str, int, int]:
    group, number = struct.unpack_from("<HH", data, position)
    tag = group << 16 | number
    if group == 0xFFFE or not explicit:
        (length,) = struct.unpack_from("<I", data, position + 4)
        return tag, vr_of(tag), length, position + 8
    vr = data[position + 4 : position + 6].decode("ascii", "replace")
    if vr in _LONG:
        (length,) = struct.unpack_from("<I", data, position + 8)
        return tag, vr, length, position + 12
    (length,) = struct.unpack_from("<H", data, position + 6)
    return tag, vr, length, position + 8


def _items(
    data: bytes, position: int, length: int, encodings: list[str], explicit: bool
) -> tuple[tuple[Dataset, ...], int]:
    end = len(data) if length == _UNDEFINED else position + length
    found = []
    while position < end:
        tag, _, item_length, position = _head(data, position, explicit)
        if tag == _SEQUENCE_END:
            return tuple(found), position
        if tag != _ITEM:
            raise ValueError("a sequence holds something that is no item")
        item_end = end if item_length == _UNDEFINED else position + item_length
        item, position = _dataset(data, position, item_end, encodings, explicit)
        found.append(item)
    return tuple(found), position


def _values(vr: str, data: bytes, encodings: list[str]) -> tuple[str, ...]:
    if not data:
        return ()
    if vr in _BINARY:
        return tuple(f"{value:g}" for (value,) in struct.iter_unpack(_BINARY[vr], data))
    if vr in _TEXT:
        text = decode_bytes(data, encodings, _PN_DELIMITERS if vr == "PN" else set("\r\n\t\f"))
        text = text.replace("\x1b$)A", "")  # of ISO 2022 IR 58, which pydicom leaves where it stands
    else:
        text = data.decode("latin-1")
    return tuple(text.split("\\")) if vr not in _ONE_VALUE else (text,)


def normal(vr: str, value: str) -> str:
    """A value for comparing: padding away, a person name without trailing delimiters, numbers as numbers."""
    value = value.strip(" \0")
    if vr == "PN":
        return "=".join(group.rstrip("^ ") for group in value.split("=")).rstrip("=")
    if vr in ("DS", "IS") and value:
        return f"{float(value):g}"
    return value


def normal_values(element: Element | None) -> list[str]:
    """All values of an element for comparing; none where it is absent or empty."""
    found = [normal(element.vr, value) for value in element.values] if element else []
    return found if any(found) else []


def leaves(dataset: Dataset, path: tuple[int, ...] = ()) -> Iterator[tuple[tuple[int, ...], Element]]:
    """Every attribute that is no sequence, with its path, through the first item of each sequence."""
    for tag, element in dataset.items():
        if element.vr == "SQ":
            if element.items:
                yield from leaves(element.items[0], (*path, tag))
        else:
            yield (*path, tag), element


def path_name(path: Sequence[int]) -> str:
    """`step.Modality`."""
    return ".".join("step" if tag == STEP else name_of(tag) for tag in path)
