"""Why a key does not match: what was asked, what is held, and a hint for the person who reads it.

Everything here is patient data: for the console and the command line, never for a log.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.domain.moments import MomentError, Span, date_span, held_date, held_time, time_span
from gateway.domain.names import fold_name
from gateway.domain.wildcards import is_pattern


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A key that an item fails. `asked` is the key as the device sent it; values of several are parted by `\\`."""

    place: str
    keyword: str
    asked: str
    held: str
    hint: str = ""

    def __str__(self) -> str:
        has = repr(self.held) if self.held else "no value"
        said = f"{self.place} {self.keyword}: asked for {self.asked!r}, the item has {has}"
        return f"{said} ({self.hint})" if self.hint else said


NO_VALUE = "only an empty key matches an item without a value"


def hint(vr: str, asked: Sequence[str], held: Sequence[str], *, fuzzy: bool, whole: bool) -> str:
    """What a person should know who wonders why none of the held values met any of those asked for; '' for nothing."""
    if not held:
        return NO_VALUE
    pairs = [(one, other) for one in asked for other in held]
    if vr == "PN":
        return next(filter(None, (_name_hint(*pair) for pair in pairs)), "") or _name_rule(asked, fuzzy, whole)
    if vr in ("DA", "TM"):
        return _moment_hint(vr, asked[0], held[0]) if len(asked) == 1 else ""
    for told, same in (
        (f"only the case differs, and it counts in a value of type {vr}", str.casefold),
        ("only blanks or punctuation differ, and they count", _letters_and_digits),
        ("only leading zeros differ, and they count", lambda text: text.strip().lstrip("0")),
    ):
        if any(same(one) and same(one) == same(other) for one, other in pairs if not is_pattern(one)):
            return told
    if any(map(is_pattern, asked)):
        return "UIDs have no wild cards" if vr == "UI" else "* and ? are wild cards; the case counts"
    return ""


def _letters_and_digits(text: str) -> str:
    return "".join(letter for letter in text if letter.isalnum())


def _parts(name: str) -> list[str]:
    return [part.strip(" ") for part in fold_name(name.split("=", maxsplit=1)[0]).split("^") if part.strip(" ")]


def _name_hint(asked: str, held: str) -> str:
    one, other = _parts(asked), _parts(held)
    if len(one) > 1 and one[::-1] == other[: len(one)]:
        return "family and given name are the other way round"
    if "^" not in asked and "^" in held and one and "".join(other) == one[0].replace(" ", "").replace(",", ""):
        return "the components of the name are not parted by ^"
    return ""


def _name_rule(asked: Sequence[str], fuzzy: bool, whole: bool) -> str:
    if fuzzy:
        return "no component is spelled or sounds nearly alike"
    said = "names are compared component by component, without case and accents"
    if whole and not any(name.endswith("*") for name in asked):
        return f"{said}; this device asks for whole names"
    return said


def _moment_hint(vr: str, asked: str, held: str) -> str:
    try:
        span = date_span(asked) if vr == "DA" else time_span(asked)
    except MomentError:
        return ""
    value = held_date(held) if vr == "DA" else held_time(held)
    if not value:
        return "what the item has is no date" if vr == "DA" else "what the item has is no time"
    return beside(span, value)


def beside(span: Span, value: str) -> str:
    """On which side of the span a value lies."""
    than = "what was asked for" if span.form == "one" else "the range, which includes both ends"
    return f"the item is {'earlier' if value < span.lowest else 'later'} than {than}"
