"""HL7 v2 messages checked against the standard of their version, for listeners with `validate: strict`.

The tables of the standard are hl7apy's; the check is ours, because hl7apy 1.3.5 refuses what the standard allows (every
ORM^O01, a repeated IPC-9, ADT^A08 of 2.3.1) and names no coordinates. Where its tables are stricter than the
standard, or than IHE's use of it, `_OPTIONAL`, `_REPEATS` and `_CHECKED_TABLES` put them right. Only what a message is
built of is checked here; what it means is the mapping's.

Importing this module imports hl7apy: a process that checks nothing stays without it.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date
from functools import cache, lru_cache, partial
from types import ModuleType
from typing import Any, NamedTuple

import hl7apy

from gateway.domain.refusal import Refusal, RefusalKind
from gateway.wire.er7 import NULL, Message, Repetition, Segment

_K = RefusalKind

VERSIONS = ("2.2", "2.3", "2.3.1", "2.4", "2.5", "2.5.1", "2.6", "2.7", "2.8", "2.8.1", "2.8.2")
"""The versions whose tables there are; another is checked by the nearest older one, 2.1 (whose tables want pharmacy
segments in every order) by 2.2."""

PROBLEMS_MAX = 50
"""One wrong delimiter makes hundreds; an answer holds no more than this."""

_STRUCTURES: Mapping[str, tuple[str, ...]] = {
    "ADT^A04": ("ADT_A01",),
    "ADT^A05": ("ADT_A05", "ADT_A01"),
    "ADT^A07": ("ADT_A06",),
    "ADT^A08": ("ADT_A01",),
    "ADT^A10": ("ADT_A09",),
    "ADT^A11": ("ADT_A09",),
    "ADT^A12": ("ADT_A12", "ADT_A09"),
    "ADT^A13": ("ADT_A01",),
    "ADT^A28": ("ADT_A05", "ADT_A01"),
    "ADT^A31": ("ADT_A05", "ADT_A01"),
    "ADT^A37": ("ADT_A37", "ADT_A24"),
    "ADT^A38": ("ADT_A38", "ADT_A09"),
    "ADT^A40": ("ADT_A39",),
    "ADT^A47": ("ADT_A30",),
    **{f"SIU^S{number}": ("SIU_S12",) for number in (13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 26)},
}
"""Events whose structure has another event's name (HL7 v2 table 0354), the newer name first."""

_ONLY_EVENT = {"ORM": "O01", "OMG": "O19", "OMI": "O23"}

_REQUIRED = frozenset({"ORC_1"})  # 2.3.1 has it as conditional; an order without it says nothing
_OPTIONAL = frozenset({
    # Conditional in the standard, or required of results only.
    "OBR_7", "OBR_8", "OBR_9", "OBR_14", "OBR_22", "OBR_27", "ORC_7", "OBX_2", "OBX_4", "OBX_11", "SCH_1", "PV1_3",
    "DG1_2", "DG1_6",
})  # fmt: skip
_REPEATS = frozenset({"IPC_9", "OBR_10", "OBR_16", "OBR_28", "ORC_12", "PID_3", "PID_5", "PID_11", "PV1_7", "PV1_8"})
_CHECKED_TABLES = frozenset(
    f"HL7{number:04}" for number in (38, 85, 103, 119, 125, 136, 155, 206)
)  # the others are open, or used otherwise by IHE (OBR-24 carries the modality)
_NEVER_NEEDED = frozenset({"NTE", "DRG", "OBX", "PV2", "PD1"})  # required of some message by the tables alone
_FREE = frozenset({"MSH_1", "MSH_2", "MSH_9", "MSH_12"})  # the delimiters, and what `er7.check_header` checks

_VERSION_PARTS = re.compile(r"[0-9]{1,2}")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)", re.ASCII)
_MOMENT = re.compile(r"(\d{4,14}(?:\.\d{1,4})?)([+-](?:0\d|1[0-4])[0-5]\d)?", re.ASCII)
_TIME = re.compile(r"(\d\d(?:\d\d(?:\d\d(?:\.\d{1,4})?)?)?)([+-](?:0\d|1[0-4])[0-5]\d)?", re.ASCII)


def problems(message: Message) -> list[Refusal]:
    """Everything in which the message is not built as the standard of its version says; at most PROBLEMS_MAX.

    An event that the version does not have is checked by the nearest version that has it (an ORM of 2.8, an OMI of
    2.3.1): IHE accepts it if structure and content fit (RAD TF-2 2.4). Z segments may stand anywhere.
    """
    code, event = message.message_code, message.trigger_event
    found = _structure(code, event or _ONLY_EVENT.get(code, ""), message.version)
    if found is None:
        return [Refusal(
            _K.UNSUPPORTED_EVENT, "MSH-9", f"the standard has no {code}^{event}",
            "send a message type and event of table 0354, or let the listener ignore it",
        )]  # fmt: skip
    version, name = found
    standard = [segment for segment in message.segments if not segment.name.startswith("Z")]
    told = _sequence(standard, _grammar(version, name), f"{name} of HL7 {version}")
    fields = _segments(version)
    for segment in standard:
        if len(told) >= PROBLEMS_MAX:
            break
        told += _segment(segment, fields.get(segment.name, ()), version)
    return told[:PROBLEMS_MAX]


@cache
def _library(version: str) -> ModuleType:
    library: ModuleType = hl7apy.load_library(version)
    return library


@lru_cache(maxsize=256)  # as many as senders use; the values come from the network, hence a bound
def _structure(code: str, event: str, version: str) -> tuple[str, str] | None:
    """The version to check by and the name of the structure there."""
    said = _numbers(version)
    at = max((place for place, known in enumerate(VERSIONS) if _numbers(known) <= said), default=0)
    names = (f"{code}_{event}", *_STRUCTURES.get(f"{code}^{event}", ()))
    for known in (*reversed(VERSIONS[: at + 1]), *VERSIONS[at + 1 :]):
        for name in names:
            if name in _library(known).MESSAGES:
                return known, name
    return None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, _VERSION_PARTS.findall(version)))


# ---- which segments, in which order ----


class _Grammar(NamedTuple):
    """The order of segments as a state machine: `steps` by state and segment name, `free` without one."""

    steps: list[dict[str, int]]
    free: list[list[int]]
    last: int

    def reach(self, states: set[int]) -> frozenset[int]:
        """These states and those that need no segment more."""
        reached, waiting = set(states), list(states)
        while waiting:
            for state in self.free[waiting.pop()]:
                if state not in reached:
                    reached.add(state)
                    waiting.append(state)
        return frozenset(reached)

    def after(self, states: frozenset[int], name: str) -> frozenset[int]:
        return self.reach({self.steps[state][name] for state in states if name in self.steps[state]})

    def awaited(self, states: frozenset[int]) -> list[str]:
        return sorted({name for state in states for name in self.steps[state]})


@cache
def _grammar(version: str, name: str) -> _Grammar:
    library = _library(version)
    grammar = _Grammar([], [], 1)

    def new() -> int:
        grammar.steps.append({})
        grammar.free.append([])
        return len(grammar.steps) - 1

    def sequence(children: Sequence[Any], start: int, end: int) -> None:
        for child in children:
            after = new()
            part(child, start, after)
            start = after
        grammar.free[start].append(end)

    def part(child: Any, start: int, end: int) -> None:
        name, _, (least, most), kind = child
        begin, done = new(), new()
        grammar.free[start].append(begin)
        grammar.free[done].append(end)
        if least == 0 or name in _NEVER_NEEDED:
            grammar.free[start].append(end)
        if most != 1:
            grammar.free[done].append(begin)
        if kind == "SEG":
            grammar.steps[begin][name] = done
            return
        how, children = library.GROUPS[name][:2]
        if how == "choice":
            for one in children:
                part(one, begin, done)
        else:
            sequence(children, begin, done)

    start, last = new(), new()
    sequence(library.MESSAGES[name][1], start, last)
    return grammar


def _sequence(segments: Sequence[Segment], grammar: _Grammar, what: str) -> list[Refusal]:
    """Segments that stand where the structure has none, and those that are lacking."""
    told: list[Refusal] = []
    states = grammar.reach({0})
    for segment in segments:
        onward = grammar.after(states, segment.name)
        if onward:
            states = onward
            continue
        lacking = _lacking(grammar, states, partial(_takes, grammar, segment.name))
        if lacking is None:
            told.append(Refusal(
                _K.SEGMENT_SEQUENCE, _place(segment), f"{what} has no {segment.name} here",
                f"leave it out, or send it in its place; here may come {_list(grammar.awaited(states))}",
            ))  # fmt: skip
            continue
        names, reached = lacking
        told.append(_is_lacking(names, f"before {_place(segment)}", what))
        states = grammar.after(reached, segment.name)
    if grammar.last not in states:
        lacking = _lacking(grammar, states, lambda reached: grammar.last in reached)
        told.append(_is_lacking(lacking[0] if lacking else grammar.awaited(states), "at the end", what))
    return told


def _takes(grammar: _Grammar, name: str, states: frozenset[int]) -> bool:
    return bool(grammar.after(states, name))


_LACKING_MAX = 3


def _lacking(
    grammar: _Grammar, states: frozenset[int], enough: Callable[[frozenset[int]], bool]
) -> tuple[list[str], frozenset[int]] | None:
    """The fewest segments that have to come in between, and where they lead; None if more than a few."""
    ways: list[tuple[list[str], frozenset[int]]] = [([], states)]
    seen = {states}
    for _ in range(_LACKING_MAX):
        further: list[tuple[list[str], frozenset[int]]] = []
        for names, reached in ways:
            for name in grammar.awaited(reached):
                onward = grammar.after(reached, name)
                if onward in seen:
                    continue
                seen.add(onward)
                further.append(([*names, name], onward))
                if enough(onward):
                    return further[-1]
        ways = further
    return None


def _is_lacking(names: Sequence[str], where: str, what: str) -> Refusal:
    return Refusal(
        _K.SEGMENT_SEQUENCE, names[0] if names else "", f"{what} needs {_list(names)} {where}", "send it there"
    )


def _list(names: Sequence[str], names_max: int = 8) -> str:
    return ", ".join(names[:names_max]) + (" ..." if len(names) > names_max else "")


# ---- what stands in the segments ----


class _Type(NamedTuple):
    """What a field or component holds: a data type, its parts if it has any, and the table of its codes."""

    name: str
    title: str
    table: str
    parts: tuple["_Part", ...]


class _Part(NamedTuple):
    """One field or component of the standard."""

    key: str
    type: _Type
    least: int
    most: int


@cache
def _segments(version: str) -> Mapping[str, tuple[_Part, ...]]:
    """The fields of every segment of that version; made once, some thousand rows."""
    return {
        name: _fields(name, entry[1])
        for name, entry in _library(version).SEGMENTS.items()
        if len(entry) > 1 and entry[0] == "sequence"
    }


def _fields(segment: str, children: Sequence[Any]) -> tuple[_Part, ...]:
    """A segment's fields by their numbers; a withdrawn field that the tables leave out may hold anything."""
    parts = {int(child[0].rpartition("_")[2]): _part(child) for child in children}
    withdrawn = _Type("varies", "", "", ())
    numbers = range(1, max(parts, default=0) + 1)
    return tuple(parts.get(number) or _Part(f"{segment}_{number}", withdrawn, 0, -1) for number in numbers)


def _part(child: Any) -> _Part:
    key, reference, (least, most), *_ = child
    how, parts, name, title, table, *_ = reference or _UNKNOWN
    inner = tuple(_part(part) for part in parts or ()) if how == "sequence" else ()
    least = 1 if key in _REQUIRED else 0 if key in _OPTIONAL else least
    most = -1 if key in _REPEATS else most
    return _Part(key, _Type(str(name), _words(title), str(table or ""), inner), least, most)


_UNKNOWN = ("leaf", None, "varies", "", None)  # a row that hl7apy's tables leave empty


def _words(title: Any) -> str:
    return str(title or "").lower().replace("_", " ")


def _segment(segment: Segment, fields: Sequence[_Part], version: str) -> Iterator[Refusal]:
    for number, part in enumerate(fields, 1):
        raw = segment.raw(number)
        where = f"{_place(segment)}-{number}"
        if part.key in _FREE:
            continue
        if not raw:
            if part.least:
                yield Refusal(_K.MISSING_FIELD, where, f"HL7 {version} requires the {part.type.title}", "send it")
            continue
        if raw == NULL:
            continue
        repetitions = segment.field(number)
        said = [any(map(any, repetition)) for repetition in repetitions]
        if 0 < part.most < sum(said):
            yield Refusal(
                _K.MALFORMED, f"{where}({part.most + 1})",
                f"HL7 {version} has {part.most} of the {part.type.title}, the message {sum(said)}",
                "send one, or escape the repetition separator within it",
            )  # fmt: skip
        for at, repetition in enumerate(repetitions, 1):
            if said[at - 1]:
                yield from _value(f"{where}({at})" if at > 1 else where, repetition, part.type, version)
    if any(segment.fields[len(fields) + 1 :]) and fields:
        number = next(n for n, raw in enumerate(segment.fields) if n > len(fields) and raw)
        yield Refusal(
            _K.MALFORMED, f"{_place(segment)}-{number}",
            f"{segment.name} of HL7 {version} has {len(fields)} fields", "declare the version that has it in MSH-12",
        )  # fmt: skip


def _value(where: str, repetition: Repetition, kind: _Type, version: str) -> Iterator[Refusal]:
    """The components of a repetition against those of its type."""
    if kind.name == "varies":
        return
    parts = kind.parts or (_Part("", kind, 0, 1),)
    for number, component in enumerate(repetition, 1):
        if not any(component) or component == (NULL,):
            continue
        place = f"{where}.{number}"
        if number > len(parts):
            yield Refusal(
                _K.MALFORMED, place,
                f"the {kind.title} ({kind.name}) of HL7 {version} has "
                f"{_count(len(parts), 'component')}: {component[0]!r}",
                "leave it out, or escape the component separator within it",
            )  # fmt: skip
            return
        yield from _component(place if kind.parts else where, component, parts[number - 1].type, version)
    for number, part in enumerate(parts, 1):
        if part.least and kind.parts and not (number <= len(repetition) and any(repetition[number - 1])):
            yield Refusal(
                _K.MISSING_VALUE, f"{where}.{number}", f"HL7 {version} requires the {part.type.title}", "send it"
            )


def _component(where: str, component: Sequence[str], kind: _Type, version: str) -> Iterator[Refusal]:
    if kind.name == "varies":
        return
    leaves = [part.type for part in kind.parts] or [kind]
    for number, text in enumerate(component, 1):
        if not text or text == NULL:
            continue
        place = f"{where}.{number}" if kind.parts else where
        if number > len(leaves):
            yield Refusal(
                _K.MALFORMED, f"{where}.{number}",
                f"the {kind.title} ({kind.name}) of HL7 {version} has {_count(len(leaves), 'subcomponent')}: {text!r}",
                "leave it out, or escape the subcomponent separator within it",
            )  # fmt: skip
            return
        yield from _text(place, text, leaves[number - 1], version)


def _text(where: str, text: str, leaf: _Type, version: str) -> Iterator[Refusal]:
    name = "DTM" if leaf.name == "TS" or leaf.title.startswith("time of an event") else leaf.name
    check = _CHECKS.get(name)
    if check is not None and not check[0](text.strip()):
        yield Refusal(_K.BAD_VALUE, where, f"{text!r} is no {check[1]}", f"send {check[2]}")
    table = _tables(version).get(leaf.table)
    if leaf.name in ("ID", "IS") and table is not None and text.strip().upper() not in table:
        yield Refusal(
            _K.UNKNOWN_CODE, where, f"{text!r} is not in table {leaf.table[3:]} of HL7 {version}",
            f"send one of {_list(sorted(table), 20)}",
        )  # fmt: skip


@cache
def _tables(version: str) -> Mapping[str, frozenset[str]]:
    tables = getattr(_library(version), "TABLES", {})
    return {name: frozenset(tables[name][1]) for name in _CHECKED_TABLES if name in tables}


def _is_moment(text: str) -> bool:
    found = _MOMENT.fullmatch(text)
    if found is None:
        return False
    whole, _, fraction = found[1].partition(".")
    if len(whole) not in (4, 6, 8, 10, 12, 14) or (fraction and len(whole) != 14):
        return False
    day = whole[:8] if len(whole) >= 8 else f"{whole}0101"[:8]
    return _is_day(day) and _is_clock(whole[8:])


def _is_day(digits: str) -> bool:
    try:
        date(int(digits[:4]), int(digits[4:6]), int(digits[6:]))
    except ValueError:
        return False
    return True


def _is_clock(digits: str) -> bool:
    """Hours, minutes and seconds, as far as they are there; a leap second is a second."""
    said = [int(digits[at : at + 2]) for at in range(0, len(digits), 2)]
    return all(part <= most for part, most in zip(said, (23, 59, 60), strict=False))


def _is_time(text: str) -> bool:
    found = _TIME.fullmatch(text)
    return found is not None and _is_clock(found[1].partition(".")[0])


_CHECKS: Mapping[str, tuple[Callable[[str], bool], str, str]] = {
    "NM": (lambda text: _NUMBER.fullmatch(text) is not None, "number", "digits with an optional sign and point"),
    "SI": (lambda text: text.isascii() and text.isdigit(), "sequence number", "digits only"),
    "DT": (lambda text: "." not in text and len(text) <= 8 and _is_moment(text), "date", "YYYYMMDD"),
    "TM": (_is_time, "time", "HHMM, with seconds and offset if known"),
    "DTM": (_is_moment, "date and time", "YYYYMMDDHHMMSS, with an offset if known"),
}
"""Data types with a form of their own: test, name, and what to send."""


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")


def _place(segment: Segment) -> str:
    return segment.name if segment.number == 1 else f"{segment.name}[{segment.number}]"
