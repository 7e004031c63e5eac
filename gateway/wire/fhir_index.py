"""What FHIR resources are found by: index rows out of their content, as the table of search parameters says.

A value that is not of the shape that its parameter is about makes no row: whether content is right is judged by
`fhir_models`. Dates are ranges, for `2026-07` is a month long; without a zone they are in UTC.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import sha256
from typing import Any, NamedTuple, TypeAlias

from gateway.domain.names import fold_name
from gateway.domain.resources import REFERS, REFERS_BY_IDENTIFIER, Indexed, Resource
from gateway.wire.fhir_references import Way, read, references
from gateway.wire.fhir_release import Release
from gateway.wire.fhir_search_parameters import Parameter, ParameterKind, parameters_of

TEXT_CHARACTERS_MAX = 200
"""Of a text as it is indexed: whoever searches for a longer one is given those that begin as it does."""

NEVER, FOR_EVER = "0" * 20, "9" * 20
"""Where a period has no start, and no end."""

_DATE = re.compile(
    r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?:T(\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?(Z|[+\-]\d\d:\d\d)?)?)?)?", re.ASCII
)
_CHOICES = frozenset({"occurrence", "effective", "performed", "occurred"})
_SAYS_NO_TEXT = frozenset({"use", "system", "period", "type", "rank", "extension", "id"})  # of names and addresses


class Range(NamedTuple):
    """From the first to the last microsecond that is meant, each as 20 digits in UTC."""

    first: str
    last: str


@lru_cache(maxsize=4_096)  # an order says the same day in several places, and its patients' birthdays come again
def date_range(text: str) -> Range | None:
    """What a `date`, `dateTime` or `instant` covers, down to what it says; None where it is none."""
    found = _DATE.fullmatch(text)
    if found is None:
        return None
    year, month, day, hour, minute, second, fraction, zone = found.groups()
    if second == "60":  # a leap second is told as the last one before it
        second = "59"
    microsecond = int((fraction or "0")[:6].ljust(6, "0"))
    try:
        first = datetime(
            int(year), int(month or 1), int(day or 1), int(hour or 0), int(minute or 0), int(second or 0), microsecond,
            tzinfo=datetime.fromisoformat(f"2000-01-01T00:00:00{zone}").tzinfo if zone and zone != "Z" else UTC,
        )  # fmt: skip
        last = first + _length(found, first) - timedelta(microseconds=1)
        return Range(_digits(first), _digits(last))
    except (ValueError, OverflowError):
        return None


def _length(said: re.Match[str], first: datetime) -> timedelta:
    _, month, day, hour, _, second, fraction, _ = said.groups()
    if fraction:
        return timedelta(microseconds=10 ** (6 - min(len(fraction), 6)))
    if second:
        return timedelta(seconds=1)
    if hour:
        return timedelta(minutes=1)
    if day:
        return timedelta(days=1)
    if month:
        following = first.replace(day=28) + timedelta(days=4)
        return following.replace(day=1) - first
    return first.replace(year=first.year + 1) - first if first.year < 9999 else timedelta(days=365)


def _digits(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y%m%d%H%M%S%f").rjust(20, "0")  # years before 1000 have no zeros everywhere


def folded(text: str) -> str:
    """A text as it is compared: without case and accents, each blank one blank."""
    return fold_name(" ".join(text.split()))[:TEXT_CHARACTERS_MAX]


# -- out of a resource


def indexed(resource: Resource, release: Release) -> list[Indexed]:
    """What this resource is found by, without its id and its time."""
    type_ = str(resource.get("resourceType", ""))
    rows: dict[Indexed, None] = {}
    for parameter, takes in _takes(type_, release):
        for path in parameter.paths:
            if path[0] in resource or path[0] in _CHOICES or path[0].endswith("]"):  # most are not there
                for value in _values(resource, path):
                    rows.update(dict.fromkeys(takes(parameter, value)))
    for _, element in references(resource):
        rows[_refers(type_, str(element["reference"]))] = None
    rows.update(dict.fromkeys(_logical(resource)))
    return list(rows)


_Takes: TypeAlias = Callable[[Parameter, Any], Iterator[Indexed]]


@lru_cache(maxsize=256)
def _takes(type_: str, release: Release) -> tuple[tuple[Parameter, _Takes], ...]:
    return tuple((parameter, _TAKES[parameter.kind]) for parameter in parameters_of(type_, release).values())


def _refers(type_: str, text: str) -> Indexed:
    reference = read(text)
    return Indexed(REFERS, type_, key_of(reference.local if reference.way is Way.LOCAL else reference.text))


def _logical(value: Any) -> Iterator[Indexed]:
    """References by identifier, wherever they stand: an object with an `identifier` that is one object, as in no
    resource we take but in references and the `group-identifier`s."""
    if isinstance(value, dict):
        inner = value.get("identifier")
        if isinstance(inner, dict) and "resourceType" not in value and isinstance(inner.get("value"), str):
            yield Indexed(REFERS_BY_IDENTIFIER, _text(inner.get("system")), key_of(inner["value"]))
        for each in value.values():
            if isinstance(each, (dict, list)):
                yield from _logical(each)
    elif isinstance(value, list):
        for each in value:
            yield from _logical(each)


def values_at(resource: Resource, parameter: Parameter) -> Iterator[Any]:
    """The elements that a parameter is about, lists told one by one."""
    for path in parameter.paths:
        yield from _values(resource, path)


def _values(value: Any, path: tuple[str, ...]) -> Iterator[Any]:
    if isinstance(value, list):
        for each in value:
            yield from _values(each, path)
    elif not path:
        if value is not None:
            yield value
    elif isinstance(value, Mapping):
        name, rest = path[0], path[1:]
        if name in value:
            yield from _values(value[name], rest)
        elif name in _CHOICES:
            for key in value:
                if key.startswith(name) and key[len(name) : len(name) + 1].isupper():
                    yield from _values(value[key], rest)
        elif name.endswith("]"):
            name, _, system = name[:-1].partition("[")
            for each in _values(value.get(name), ()):
                if isinstance(each, Mapping) and each.get("system") == system:
                    yield from _values(each, rest)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def key_of(value: str) -> str:
    """A token or address as it is indexed: a longer one by its digest, so that two are never taken for one."""
    if len(value) <= TEXT_CHARACTERS_MAX:
        return value
    return value[: TEXT_CHARACTERS_MAX - 64] + sha256(value.encode("utf-8", "backslashreplace")).hexdigest()


def _token(parameter: Parameter, value: Any) -> Iterator[Indexed]:
    for system, code in _tokens(value):
        yield Indexed(parameter.name, system, key_of(code))


def _tokens(value: Any) -> Iterator[tuple[str, str]]:
    """(system, code) of whatever has codes: codes, booleans, Coding, CodeableConcept, Identifier, ContactPoint."""
    if isinstance(value, bool):
        yield "", "true" if value else "false"
    elif isinstance(value, str):
        yield "", value
    elif isinstance(value, Mapping):
        if isinstance(value.get("coding"), list):
            for coding in value["coding"]:
                yield from _tokens(coding)
        elif "concept" in value:  # R5 CodeableReference
            yield from _tokens(value["concept"])
        elif isinstance(value.get("code"), str):
            yield _text(value.get("system")), value["code"]
        elif isinstance(value.get("value"), str):
            system = _text(value.get("system"))
            yield system if ":" in system else "", value["value"]  # that of a ContactPoint is a word


def _reference(parameter: Parameter, value: Any) -> Iterator[Indexed]:
    if not isinstance(value, Mapping):
        return
    inner = value.get("reference")
    if isinstance(inner, Mapping):  # R5 CodeableReference
        yield from _reference(parameter, inner)
        return
    type_ = _text(value.get("type"))
    if isinstance(inner, str):
        reference = read(inner)
        type_ = reference.type or type_
        if _may_be(parameter, type_) and reference.way is not Way.CONTAINED:
            yield Indexed(parameter.name, "", key_of(reference.local if reference.way is Way.LOCAL else inner))
    identifier = value.get("identifier")
    if isinstance(identifier, Mapping) and _may_be(parameter, type_) and isinstance(identifier.get("value"), str):
        yield Indexed(f"{parameter.name}:identifier", _text(identifier.get("system")), key_of(identifier["value"]))


def _may_be(parameter: Parameter, type_: str) -> bool:
    return not type_ or not parameter.targets or type_ in parameter.targets


def _date(parameter: Parameter, value: Any) -> Iterator[Indexed]:
    for first, last in _ranges(value):
        yield Indexed(parameter.name, last[:14], first[:14])


def _ranges(value: Any) -> Iterator[Range]:
    if isinstance(value, str):
        found = date_range(value)
        if found:
            yield found
    elif isinstance(value, Mapping):
        if "event" in value or "repeat" in value:  # Timing
            yield from (each for event in _values(value.get("event"), ()) for each in _ranges(event))
            yield from (each for bounds in _values(value, ("repeat", "boundsPeriod")) for each in _ranges(bounds))
        elif "start" in value or "end" in value:
            start, end = date_range(_text(value.get("start"))), date_range(_text(value.get("end")))
            yield Range(start.first if start else NEVER, end.last if end else FOR_EVER)


def _string(parameter: Parameter, value: Any) -> Iterator[Indexed]:
    if isinstance(value, str):
        if value.strip():
            yield Indexed(parameter.name, key_of(value), folded(value))
    elif isinstance(value, Mapping):  # HumanName, Address
        for name, part in value.items():
            if name not in _SAYS_NO_TEXT and not name.startswith("_"):
                for each in _values(part, ()):
                    if isinstance(each, str):
                        yield from _string(parameter, each)


def _uri(parameter: Parameter, value: Any) -> Iterator[Indexed]:
    if isinstance(value, str):
        yield Indexed(parameter.name, "", key_of(value))


_TAKES: Mapping[ParameterKind, _Takes] = {
    ParameterKind.TOKEN: _token,
    ParameterKind.REFERENCE: _reference,
    ParameterKind.DATE: _date,
    ParameterKind.STRING: _string,
    ParameterKind.URI: _uri,
}
