"""FHIR as JSON: bounded before it costs anything, strict where the standard is, and digits are kept."""

import json
from contextlib import suppress
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.refusal import Refusal, RefusalKind, Refused
from gateway.wire import fhir_json
from gateway.wire.fhir_bounds import Bounds
from gateway.wire.fhir_outcome import http_status
from gateway.wire.fhir_release import Release
from tests.wire.fhir_samples import SAMPLES


def refusal_of(data: bytes, bounds: Bounds | None = None) -> Refusal:
    with pytest.raises(Refused) as caught:
        fhir_json.parse(data, bounds or Bounds())
    (refusal,) = caught.value.refusals
    return refusal


@pytest.mark.parametrize(
    ("data", "words", "place"),
    [
        (b"", "a value is expected", "line 1, column 1"),
        (b"{", "a name in double quotes is expected", "line 1, column 2"),
        (b'{"a": 1,\n "b" 2}', "a colon is expected", "line 2, column 6"),
        (b'{"a": 1 "b"}', "a comma or the end is expected", "line 1, column 9"),
        (b'{"a": "Ada\n"}', "a control character stands in a string", "line 1, column 11"),
        (b'{"a": "Ada', "a string does not end", "line 1, column 7"),
        (b'{"a": "\\x"}', "an escape is none", "line 1, column 8"),
        (b'{"a": 1} {}', "something follows after the end", "line 1, column 10"),
        (b'{"a": 1,\n"a": 2}', "a member is given twice", "line 2, column 1"),
        (b'{"a": [{"b": 1, "b" : 2}]}', "a member is given twice", "line 1, column 17"),
        (b'{"a": "b", "b": {"a": 1}, "\\u0061": 1}', "a member is given twice", "line 1, column 27"),
        (b'{"a": NaN}', "NaN and Infinity", "line 1, column 7"),
        (b'{"a": [1, -Infinity]}', "NaN and Infinity", "line 1, column 11"),
        (b'{"a": 1e99999999}', "a number is longer", "line 1, column 7"),
        (b'{"a": ' + b"9" * 5000 + b"}", "a number is longer", "line 1, column 7"),
        (b'{"a": "NaN", "b": 1.' + b"0" * 70 + b"}", "a number is longer", "line 1, column 19"),
        (b'{"a": "\\ud83d"}', "half of a character", "line 1, column 8"),
        (b'{"a": "\\\\ud83d \\udca9"}', "half of a character", "line 1, column 16"),
        (b'{"a": "caf\xe9"}', "is no UTF-8", "line 1, column 11"),
        ('{"a": 1}'.encode("utf-16"), "is no UTF-8", "line 1, column 1"),
    ],
)
def test_what_is_no_json_is_refused_with_line_and_column(data: bytes, words: str, place: str) -> None:
    refusal = refusal_of(data)
    assert refusal.kind is RefusalKind.UNREADABLE
    assert words in refusal.text
    assert place in refusal.text
    assert "Ada" not in str(refusal)
    assert http_status([refusal]) == 400


@pytest.mark.parametrize("data", [b"[]", b"1", b'"x"', b"null"])
def test_a_body_that_is_no_object_is_refused(data: bytes) -> None:
    assert refusal_of(data).kind is RefusalKind.MALFORMED


def test_a_body_that_is_too_long_is_refused_before_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*_: object) -> None:
        raise AssertionError("it was read")

    monkeypatch.setattr(fhir_json, "_text", read)
    refusal = refusal_of(b'{"resourceType": "Bundle", "entry": [' + b"{}," * 17_000_000 + b"{}]}")
    assert refusal.kind is RefusalKind.TOO_LONG
    assert http_status([refusal]) == 413


@pytest.mark.parametrize("data", [b'{"a": [' + b"[]," * 500 + b"[]]}", b'{"a": [' + b"1," * 500 + b"1]}"])
def test_more_values_than_are_taken_are_refused_before_they_are_made(
    data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fhir_json, "_DECODER", None)
    assert refusal_of(data, Bounds(values_max=400)).kind is RefusalKind.TOO_LONG


def test_more_entries_than_are_taken_are_refused() -> None:
    data = b'{"resourceType": "Bundle", "entry": [{}, {}, {}]}'
    refusal = refusal_of(data, Bounds(entries_max=2))
    assert (refusal.kind, refusal.where) == (RefusalKind.TOO_LONG, "Bundle.entry")
    assert len(fhir_json.parse(data, Bounds(entries_max=3))["entry"]) == 3


@pytest.mark.parametrize("depth", [41, 200, 100_000])
def test_what_is_too_deep_is_refused_where_it_becomes_so(depth: int) -> None:
    refusal = refusal_of(b'{"a":' * depth + b"1" + b"}" * depth)
    assert "too deep" in refusal.text
    assert f"line 1, column {40 * 5 + 1}" in refusal.text


def test_depth_up_to_the_bound_is_taken() -> None:
    data = b'{"a":' * 40 + b"1" + b"}" * 40
    assert fhir_json.parse(data)
    assert refusal_of(data, Bounds(depth_max=39)).kind is RefusalKind.UNREADABLE


def test_a_byte_order_mark_is_passed_over() -> None:
    assert fhir_json.parse(b'\xef\xbb\xbf{"a": "\xc3\xa9"}') == {"a": "é"}


def test_a_pair_of_escapes_is_one_character() -> None:
    assert fhir_json.parse(b'{"a": "\\ud83d\\ude00 \\\\ud83d"}') == {"a": "\U0001f600 \\ud83d"}


@pytest.mark.parametrize(
    "written", ["1.50", "0.0000000", "-0.5", "3", "70.0", "1.23456789012345678901234567890", "-12", "0.10"]
)
def test_numbers_are_written_with_the_digits_they_came_with(written: str) -> None:
    data = f'{{"value":{written},"unit":"é"}}'.encode()
    value = fhir_json.parse(data)
    assert isinstance(value["value"], int if written.lstrip("-").isdigit() else Decimal)
    assert fhir_json.write(value) == data


def test_numbers_with_an_exponent_keep_their_value_and_precision() -> None:
    assert fhir_json.write(fhir_json.parse(b'{"a":1.50e3,"b":1e-9}')) == b'{"a":1.50E+3,"b":0.000000001}'


@pytest.mark.parametrize("release", Release)
def test_what_is_written_is_compact_stable_and_read_again(release: Release) -> None:
    for sample in SAMPLES[release].values():
        written = fhir_json.write(sample)
        assert fhir_json.parse(written) == sample
        assert written == fhir_json.write(fhir_json.parse(written))
        assert b", " not in written.replace(b"Ada <b>", b"")


@pytest.mark.parametrize("value", [Decimal("NaN"), Decimal("Infinity"), {"a": object()}, {"a": Decimal(1), "b": {1}}])
def test_what_has_no_form_in_json_is_not_written(value: Any) -> None:
    with pytest.raises(TypeError):
        fhir_json.write(value)


JSON = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(2**63), 2**63), st.text(st.characters(codec="utf-8")),
        st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**9), max_value=10**9, places=4),
    ),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(st.text(st.characters(codec="utf-8")), inner)),
)  # fmt: skip


@given(JSON)
def test_every_value_is_read_as_it_was_written(value: Any) -> None:
    written = fhir_json.write(value)
    assert fhir_json.parse_value(written) == value
    assert json.loads(written, parse_float=Decimal) == value


@given(st.binary(max_size=60) | st.text(alphabet='{}[]",:\\u0dE1-. aN\n', max_size=60).map(str.encode))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with suppress(Refused):
        assert isinstance(fhir_json.parse(data, Bounds(depth_max=4)), dict)
