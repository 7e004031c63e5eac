"""FHIR as JSON: bytes in, plain values out, and back (json.html of the specification). Bounded and strict.

Reading is left to the standard library's parser with three hooks. What those object to is looked for a second time,
slowly, only to say where it stands: a refusal names line and column, never what is written there.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from json.encoder import encode_basestring
from typing import Any, NoReturn

from gateway.domain.refusal import Refusal, RefusalKind, Refused
from gateway.domain.resources import Resource
from gateway.wire.fhir_bounds import PLAIN_BOUNDS, Bounds

NUMBER_CHARACTERS_MAX = 64
"""Of a number as written; FHIR promises 18 digits."""

EXPONENT_MOST = 64
"""Beyond lies nothing that is measured, and written out such a number would fill the memory."""


class _Fault(ValueError):  # noqa: N818  (carries what a person is told, as Refused does)
    """What a hook objects to; the message is for people and quotes nothing."""


_TWICE = "a member is given twice"
_NO_NUMBER = "NaN and Infinity are no JSON numbers"
_ENDLESS = f"a number is longer than {NUMBER_CHARACTERS_MAX} characters, or its exponent is beyond {EXPONENT_MOST}"
_SURROGATE = "an escape is half of a character"
_TOO_DEEP = "elements are too deep inside each other"


def parse(data: bytes, bounds: Bounds = PLAIN_BOUNDS) -> Resource:
    """The resource that `data` is. Numbers with a fraction are Decimal, kept to the last digit. Raises Refused."""
    value = parse_value(data, bounds)
    if not isinstance(value, dict):
        raise Refused(Refusal(RefusalKind.MALFORMED, "", "the body is no JSON object", "send one resource"))
    check_entries(value, bounds)
    return value


def parse_value(data: bytes, bounds: Bounds = PLAIN_BOUNDS) -> Any:
    """Any JSON value (a JSON Patch is a list), within the same bounds. Raises Refused."""
    check_size(data, bounds)
    text = _text(data)
    if text.count(",") + text.count("[") + text.count("{") > bounds.values_max:
        hint = "send it in several requests"
        raise Refused(Refusal(RefusalKind.TOO_LONG, "", f"the body has more than {bounds.values_max} values", hint))
    try:
        value = _DECODER.decode(text)
        if "\\u" in text:
            _check_surrogates(text)
        _check_depth(value, bounds.depth_max)
    except json.JSONDecodeError as broken:
        _refuse(
            f"is no JSON: {_SAID.get(broken.msg.rstrip(': '), 'it is cut off or damaged')}", broken.lineno, broken.colno
        )
    except (_Fault, RecursionError) as fault:
        words = str(fault) if isinstance(fault, _Fault) else _TOO_DEEP
        _refuse(words, *_line_and_column(text, _found(text, words, bounds.depth_max)))
    return value


def check_size(data: bytes, bounds: Bounds) -> None:
    """Raises Refused where the body is longer than is taken; nothing of it has been read by then."""
    if len(data) > bounds.bytes_max:
        text = f"the body has {len(data)} bytes, more than the {bounds.bytes_max} that are taken"
        raise Refused(Refusal(RefusalKind.TOO_LONG, "", text, "send it in several requests"))


def check_entries(resource: Resource, bounds: Bounds) -> None:
    """Raises Refused where a Bundle has more entries than are taken."""
    entries = resource.get("entry") if resource.get("resourceType") == "Bundle" else None
    if isinstance(entries, list) and len(entries) > bounds.entries_max:
        text = f"has {len(entries)} entries, more than the {bounds.entries_max} that are taken"
        raise Refused(Refusal(RefusalKind.TOO_LONG, "Bundle.entry", text, "send several Bundles"))


def write(value: Any) -> bytes:
    """A resource (or any part of one) as compact UTF-8 JSON, in the order it has. Decimals keep every digit."""
    try:
        return _ENCODER.encode(value).encode()
    except _Fault:  # the standard library cannot write Decimal as it is; few resources have one
        return "".join(_written(value)).encode()


# ---- reading ----


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as broken:
        before = data[: broken.start].decode("utf-8-sig", "replace")
        line, column = _line_and_column(before, len(before))
        raise Refused(Refusal(
            RefusalKind.UNREADABLE, "", f"is no UTF-8 at line {line}, column {column}",
            "send the body in UTF-8, the only encoding that FHIR has",
        )) from None  # fmt: skip


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise _Fault(_TWICE)
    return made


def _fraction(written: str) -> Decimal:
    if len(written) > NUMBER_CHARACTERS_MAX:
        raise _Fault(_ENDLESS)
    number = Decimal(written)
    exponent = number.as_tuple().exponent
    if not isinstance(exponent, int) or abs(exponent) > EXPONENT_MOST:
        raise _Fault(_ENDLESS)
    return number


def _whole(written: str) -> int:
    if len(written) > NUMBER_CHARACTERS_MAX:
        raise _Fault(_ENDLESS)
    return int(written)


def _constant(_: str) -> NoReturn:
    raise _Fault(_NO_NUMBER)


_DECODER = json.JSONDecoder(
    object_pairs_hook=_members, parse_float=_fraction, parse_int=_whole, parse_constant=_constant
)

_SAID: Mapping[str, str] = {
    "Expecting value": "a value is expected",
    "Expecting ',' delimiter": "a comma or the end is expected",
    "Expecting ':' delimiter": "a colon is expected",
    "Expecting property name enclosed in double quotes": "a name in double quotes is expected",
    "Unterminated string starting at": "a string does not end",
    "Invalid control character at": "a control character stands in a string",
    "Invalid \\escape": "an escape is none",
    "Invalid \\uXXXX escape": "an escape is none",
    "Extra data": "something follows after the end",
}


def _check_surrogates(text: str) -> None:
    if next(_half_characters(text), None) is not None:
        raise _Fault(_SURROGATE)


_ESCAPES = re.compile(
    r"(?:\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})|\\u[dD][89a-fA-F]|\\.", re.DOTALL
)


def _half_characters(text: str) -> Iterator[int]:
    """Where escapes stand that are one half of a surrogate pair without the other: no UTF-8 can be made of them."""
    for found in _ESCAPES.finditer(text):
        if 2 < len(found.group()) < 12:
            yield found.start()


def _check_depth(value: Any, depth_max: int) -> None:
    """Level by level: the C parser's own limit is far higher, and what is read is read by recursion later on."""
    level = [value]
    for _ in range(depth_max):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if type(outer) is dict else outer if type(outer) is list else ())
            if type(inner) is dict or type(inner) is list
        ]
        if not level:
            return
    raise _Fault(_TOO_DEEP)


# ---- where it went wrong ----

_TOKENS = re.compile(r'"(?:[^"\\]++|\\.)*+"?+|[\[\]{}:,]|[^\s"\[\]{}:,]++', re.DOTALL)
_COLON = re.compile(r"\s*:")


def _found(text: str, words: str, depth_max: int) -> int:
    """Where the first thing stands that `words` speak of; the end where it cannot be found again."""
    if words == _SURROGATE:
        return next(_half_characters(text), len(text))
    finder: Callable[[str, int], int] = _FINDERS[words]
    return finder(text, depth_max)


def _find_depth(text: str, depth_max: int) -> int:
    depth = 0
    for token in _TOKENS.finditer(text):
        depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(token.group(), 0)
        if depth > depth_max:
            return token.start()
    return len(text)


def _find_number(text: str, _: int) -> int:
    for token in _TOKENS.finditer(text):
        written = token.group()
        if written in ("NaN", "Infinity", "-Infinity"):
            return token.start()
        if written[0] in "-0123456789":
            try:
                _fraction(written)
            except (_Fault, ArithmeticError):
                return token.start()
    return len(text)


def _find_twice(text: str, _: int) -> int:
    names: list[set[str]] = []
    before = ""
    for token in _TOKENS.finditer(text):
        written = token.group()
        if written in "{[":
            names.append(set())
        elif written in "]}" and names:
            names.pop()
        elif written[0] == '"' and before in ("{", ",") and names and _COLON.match(text, token.end()):
            name = json.loads(written)
            if name in names[-1]:
                return token.start()
            names[-1].add(name)
        before = written
    return len(text)


_FINDERS: Mapping[str, Callable[[str, int], int]] = {
    _TWICE: _find_twice,
    _NO_NUMBER: _find_number,
    _ENDLESS: _find_number,
    _TOO_DEEP: _find_depth,
}


def _line_and_column(text: str, at: int) -> tuple[int, int]:
    return text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)


def _refuse(words: str, line: int, column: int) -> NoReturn:
    raise Refused(Refusal(
        RefusalKind.UNREADABLE, "", f"{words} (line {line}, column {column})", "mend the JSON at this place",
    )) from None  # fmt: skip


# ---- writing ----


def _is_decimal(value: Any) -> NoReturn:
    if isinstance(value, Decimal | Mapping):
        raise _Fault
    raise TypeError(f"{type(value).__name__} has no form in JSON")


_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_is_decimal)


def _written(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield encode_basestring(value)
    elif isinstance(value, Mapping):
        before = "{"
        for name, each in value.items():
            yield f"{before}{encode_basestring(name)}:"
            yield from _written(each)
            before = ","
        yield "}" if value else "{}"
    elif isinstance(value, list | tuple):
        before = "["
        for each in value:
            yield before
            yield from _written(each)
            before = ","
        yield "]" if value else "[]"
    elif isinstance(value, Decimal):
        yield written_decimal(value)
    else:
        yield _ENCODER.encode(value)


def written_decimal(value: Decimal) -> str:
    """A number as FHIR writes it, with all of its digits: `1.50` stays `1.50`."""
    exponent = value.as_tuple().exponent
    if not isinstance(exponent, int):
        raise TypeError("what is no number has no form in FHIR")
    return f"{value:f}" if -EXPONENT_MOST <= exponent <= 0 else str(value)
