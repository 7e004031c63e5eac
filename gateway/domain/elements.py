"""Reading elements of the DICOM JSON Model, of queries and of items, whatever state they are in.

An element that is broken has no values, a value that is broken is no text: nothing here raises.
"""

import base64
import binascii
import struct
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

from gateway.domain.attributes import Attributes, person_name_text

# Compared as numbers, and how UN holds them.
NUMBERS: Mapping[str, str] = {
    "DS": "", "IS": "", "US": "H", "SS": "h", "UL": "I", "SL": "i", "UV": "Q", "SV": "q", "FL": "f", "FD": "d",
}  # fmt: skip

_PADDED_BEHIND_ONLY = frozenset({"LT", "ST", "UC", "UR", "UT"})
"""Where blanks before a value belong to it (PS3.5 6.2)."""


def items_of(attributes: Attributes, tag: str) -> list[Attributes]:
    """The items of a sequence, a null one as empty."""
    return [item if isinstance(item, dict) else {} for item in values_of(attributes.get(tag))]


def first_of(attributes: Attributes, tag: str) -> Any:
    """The first value of an attribute; None where there is none."""
    values = values_of(attributes.get(tag))
    return values[0] if values else None


def values_of(held: Any, vr: str = "") -> Sequence[Any]:
    """The values of an element; bytes of unknown VR as what the VR says they are. Empty where the element is broken."""
    if type(held) is not dict:
        return ()
    values = held.get("Value")
    if type(values) is list:
        return values
    return _inline(held.get("InlineBinary"), vr)


def _inline(inline: Any, vr: str) -> Sequence[Any]:
    if isinstance(inline, list):
        inline = inline[0] if inline else None
    if not isinstance(inline, str | bytes):
        return ()
    try:
        data = base64.b64decode(inline)
    except (binascii.Error, ValueError):
        return ()
    if form := NUMBERS.get(vr):
        whole = len(data) - len(data) % struct.calcsize(form)
        return [number for (number,) in struct.iter_unpack(f"<{form}", data[:whole])]
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    return [text] if vr in ("LT", "ST", "UT", "UR") else text.split("\\")


def texts_of(held: Any, vr: str) -> list[str]:
    """The values of an element that are not empty, as text without the padding that means nothing."""
    strip = strip_of(vr)
    found = (strip(text_of(value), " \0") for value in values_of(held, vr) if value is not None)
    return [text for text in found if text.strip(" ")]


def given(values: Sequence[Any]) -> list[str]:
    """Values as they are, those of blanks alone left out."""
    return [text for text in map(text_of, values) if text.strip(" \0")]


def strip_of(vr: str) -> Callable[[str, str], str]:
    """What takes the padding off a value of this VR."""
    return str.rstrip if vr in _PADDED_BEHIND_ONLY else str.strip


def text_of(value: Any) -> str:
    """A value as text, a person name as its component groups."""
    if type(value) is str:
        return value
    if value is None:
        return ""
    try:
        return person_name_text(value) if isinstance(value, Mapping) else str(value)
    except ValueError:  # a number of thousands of digits
        return ""


def number_of(text: str) -> Decimal | None:
    """The number that a text is; None where it is none."""
    try:
        number = Decimal(text.strip(" \0"))
    except InvalidOperation:
        return None
    return number if number.is_finite() else None
