"""What a dataset lacks of table F.7.2-1, and which of its values cannot be what their attribute asks for.

Nothing is decided here: whether a lack or a fault is a reason to refuse is in `performed_rules`.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from gateway.domain.attributes import LENGTH_MAX, Element
from gateway.domain.keys import coordinates
from gateway.domain.performed import SCHEDULED_STEP_ATTRIBUTES, Operation
from gateway.domain.performed_table import REQUIREMENTS, Requirement
from gateway.domain.refusal import Refusal, RefusalKind

FOUND_MAX = 200
"""Lacks and faults kept of one dataset, besides the essential ones: more than anybody reads, and a bound for datasets
of thousands of series that all lack the same."""


def place(*path: str | int) -> str:
    """Tags and item indexes as a refusal names them: `(0040,0270)[0]/(0020,000D)`."""
    parts = [f"[{part}]" if isinstance(part, int) else f"/{coordinates(part)}" for part in path]
    return "".join(parts).removeprefix("/")


@dataclass(frozen=True, slots=True)
class Lack:
    """An attribute that a requirement asks for and that is absent or has no value."""

    path: tuple[str | int, ...]
    requirement: Requirement
    absent: bool

    @property
    def essential(self) -> bool:
        """Without these a performed step cannot be told from others or linked to anything."""
        own = len(self.path) == 1 or (len(self.path) == 3 and self.path[0] == SCHEDULED_STEP_ATTRIBUTES)
        return own and self.requirement.on_create == "1/1"

    def refusal(self, kind: RefusalKind | None = None) -> Refusal:
        """Why a request is refused that lacks it."""
        natural = RefusalKind.MISSING_FIELD if self.absent else RefusalKind.MISSING_VALUE
        text = "is missing" if self.absent else "has no value"
        hint = f"send {self.requirement.keyword} (PS3.4 table F.7.2-1)"
        return Refusal(kind or natural, place(*self.path), text, hint)

    def __str__(self) -> str:
        return f"{place(*self.path)} {'is missing' if self.absent else 'has no value'}"


@dataclass(frozen=True, slots=True)
class Fault:
    """An attribute whose value its VR does not allow. Never holds the value.

    `unusable`: nobody could say what it means, so it is better left out than held.
    """

    path: tuple[str | int, ...]
    requirement: Requirement
    text: str
    unusable: bool

    def refusal(self) -> Refusal:
        """Why a request is refused that has it."""
        hint = f"send {self.requirement.keyword} as its value representation {self.requirement.vr} asks"
        return Refusal(RefusalKind.BAD_VALUE, place(*self.path), self.text, hint)

    def __str__(self) -> str:
        return f"{place(*self.path)} {self.text}"


# --- what is lacking --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Demand:
    """A requirement that asks for something at one occasion, itself or inside its items."""

    requirement: Requirement
    type_: str
    items: tuple["_Demand", ...]


def _demands(
    rows: Iterable[Requirement], needed: Callable[[Requirement, int], str], depth: int = 0
) -> tuple[_Demand, ...]:
    """The rows that ask for something; without the others a step of thousands of images is judged quickly."""
    demands = (_Demand(row, needed(row, depth), _demands(row.items, needed, depth + 1)) for row in rows)
    return tuple(demand for demand in demands if demand.type_ in ("1", "2") or demand.items)


def _set_type(row: Requirement, depth: int) -> str:
    """The SCU's type inside items; at top level all is optional, and emptiness is judged by the SCP's type."""
    return row.on_set.split("/")[0] if depth and row.settable else "3"


_DEMANDED: Mapping[Operation, tuple[_Demand, ...]] = {
    Operation.CREATE: _demands(REQUIREMENTS, lambda row, depth: row.on_create.split("/")[0]),
    Operation.SET: _demands(REQUIREMENTS, _set_type),
}
_IN_FINAL = _demands(REQUIREMENTS, lambda row, depth: row.in_final)


def lacking_in(operation: Operation, attributes: Mapping[str, Element]) -> tuple[Lack, ...]:
    """What a request lacks: every essential attribute, and of the others the first `FOUND_MAX`."""
    return _first(_lacking(_DEMANDED[operation], attributes))


def lacking_at_the_end(attributes: Mapping[str, Element]) -> tuple[Lack, ...]:
    """What a performed step lacks that is COMPLETED or DISCONTINUED."""
    return _first(_lacking(_IN_FINAL, attributes))


def _first(lacks: Iterator[Lack]) -> tuple[Lack, ...]:
    found: list[Lack] = []
    for lack in lacks:
        if len(found) < FOUND_MAX or lack.essential:
            found.append(lack)
    return tuple(found)


def _lacking(
    demands: Iterable[_Demand], attributes: Mapping[str, Element], path: tuple[str | int, ...] = ()
) -> Iterator[Lack]:
    """Every attribute of type 1 without a value or of type 2 that is absent; conditional types are not judged."""
    for demand in demands:
        tag = demand.requirement.tag
        held = attributes.get(tag)
        if held is None:
            if demand.type_ in ("1", "2"):
                yield Lack((*path, tag), demand.requirement, absent=True)
            continue
        if demand.type_ == "1" and not valued(held):
            yield Lack((*path, tag), demand.requirement, absent=False)
        if demand.items:
            for number, item in enumerate(held.get("Value") or ()):
                if isinstance(item, dict):
                    yield from _lacking(demand.items, item, (*path, tag, number))


# --- what is wrong ----------------------------------------------------------------------------------------------


def _is_date(value: str) -> bool:
    form = _DATE.fullmatch(value)
    if form is None:
        return False
    try:
        date(*map(int, form.groups()))
    except ValueError:
        return False
    return True


_DATE = re.compile(r"([0-9]{4})\.?([0-9]{2})\.?([0-9]{2})")  # with points before 1993
_TIME = re.compile(r"([01][0-9]|2[0-3]):?(?:[0-5][0-9]:?(?:(?:[0-5][0-9]|60)(?:\.[0-9]{1,6})?)?)?")
_INTEGER = re.compile(r"[+-]?[0-9]+")
_DECIMAL = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_CODE_STRING = re.compile(r"[A-Z0-9 _]*")
_UID = re.compile(r"[0-9]+(?:\.[0-9]+)+")

_FORMS: Mapping[str, tuple[Callable[[str], object], str]] = {
    "DA": (_is_date, "is no date"),
    "TM": (_TIME.fullmatch, "is no time"),
    "IS": (_INTEGER.fullmatch, "is no whole number"),
    "DS": (_DECIMAL.fullmatch, "is no number"),
    "CS": (_CODE_STRING.fullmatch, "has other than capital letters, digits, spaces and underscores"),
    "UI": (_UID.fullmatch, "is no UID"),
}
_UNUSABLE = frozenset({"DA", "TM", "IS", "DS"})
_OF_SEVERAL_LENGTHS = frozenset({"DA", "TM"})
"""Whose form says how long they may be, and older forms are longer."""
_PATIENT = "0010"
"""What is said of the patient is known from elsewhere, so nothing of it is left out."""


@dataclass(frozen=True, slots=True)
class _Judged:
    """A requirement whose values have a form or a length, itself or inside its items."""

    requirement: Requirement
    items: Mapping[str, "_Judged"]


def _by_tag(rows: Iterable[Requirement]) -> Mapping[str, _Judged]:
    return {row.tag: _Judged(row, _by_tag(row.items)) for row in rows if row.items or row.vr in LENGTH_MAX}


_JUDGED = _by_tag(REQUIREMENTS)


def faults(attributes: Mapping[str, Element]) -> tuple[Fault, ...]:
    """The values that are not what table F.7.2-1 and PS3.5 table 6.2-1 ask for, the first `FOUND_MAX`."""
    found: list[Fault] = []
    _judge(_JUDGED, attributes, (), found)
    return tuple(found)


def _judge(
    rows: Mapping[str, _Judged], attributes: Mapping[str, Element], path: tuple[str | int, ...], found: list[Fault]
) -> None:
    for tag, held in attributes.items():
        values = held.get("Value")
        if not values or tag not in rows or len(found) >= FOUND_MAX:
            continue
        row, items = rows[tag].requirement, rows[tag].items
        if items:
            for number, item in enumerate(values):
                if isinstance(item, dict) and len(found) < FOUND_MAX:
                    _judge(items, item, (*path, tag, number), found)
        elif fault := _fault(row, values):
            unusable = row.vr in _UNUSABLE and not path and not tag.startswith(_PATIENT) and fault != _TOO_LONG
            found.append(Fault((*path, tag), row, fault, unusable))


_TOO_LONG = "is longer than its value representation allows"


def _fault(row: Requirement, values: Iterable[Any]) -> str:
    """What is wrong with one of the values; '' where nothing is."""
    form = _FORMS.get(row.vr)
    for value in values:
        for text in value.values() if isinstance(value, dict) else (value,):  # of a person name, each group
            if not isinstance(text, str) or not text:
                continue
            if form is not None and not form[0](text.strip()):
                return form[1]
            if len(text) > LENGTH_MAX[row.vr] and row.vr not in _OF_SEVERAL_LENGTHS:
                return _TOO_LONG
    return ""


# --- values -----------------------------------------------------------------------------------------------------


def valued(held: Element) -> bool:
    """Whether there is at least one value; an empty item of a sequence is one."""
    for value in held.get("Value") or ():
        if value is not None and value != "":
            return True
    return bool(held.get("InlineBinary"))


def same(one: Element | None, other: Element | None) -> bool:
    """Whether two elements say the same: padding aside, and an absent element says as little as an empty one."""
    return bool((_plain(one) or None) == (_plain(other) or None))


_NOTHING: tuple[Any, ...] = (None, "", [], {})


def _plain(held: Any) -> Any:
    match held:
        case {"vr": str()}:
            values = [_plain(value) for value in held.get("Value") or ()]
            while values and values[-1] in _NOTHING:
                values.pop()
            return values or held.get("InlineBinary")
        case dict():  # an item, or the component groups of a person name
            parts = {key: _plain(value) for key, value in held.items()}
            return {key: value for key, value in parts.items() if value not in _NOTHING}
        case str():
            return held.strip()
        case _:
            return held
