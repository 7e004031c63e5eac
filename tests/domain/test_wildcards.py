"""Wild cards against a definition that tries everything, and keys as long as a dataset allows."""

import re
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.wildcards import glob


def fulfils(text, wanted):
    """By definition: `*` is any run, `?` and an undecodable character any one character."""
    if not wanted:
        return not text
    if wanted[0] == "*":
        return any(fulfils(text[start:], wanted[1:]) for start in range(len(text) + 1))
    return bool(text) and wanted[0] in ("?", "\ufffd", text[0]) and fulfils(text[1:], wanted[1:])


@given(st.text(alphabet="ab\n山", max_size=8), st.text(alphabet="ab\n山*?\ufffd.^", max_size=8))
def test_a_pattern_takes_exactly_the_texts_of_its_definition(text, wanted):
    assert glob(wanted)(text) is fulfils(text, wanted)


@pytest.mark.parametrize("wanted", ["*a" * 32_000, "?" * 64_000, "*a?b" * 16_000 + "*"])
def test_a_pattern_longer_than_any_value_is_not_even_compiled(wanted):
    with mock.patch.object(re, "compile", side_effect=AssertionError):
        assert not glob(wanted)("Doe^Jane")
