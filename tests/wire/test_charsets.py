"""Specific Character Set: terms as devices write them, text to bytes and back, and no letter lost in an answer."""

import codecs

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.charset import convert_encodings, decode_bytes
from pydicom.valuerep import PersonName

from gateway.wire.charsets import (
    DEFINED_TERMS,
    SINGLE_BYTE,
    UNICODE,
    Terms,
    choose,
    decode_key_terms,
    decode_text,
    encode_text,
    holds,
)


@pytest.mark.parametrize(
    ("values", "terms", "noted"),
    [
        ([], (), False),
        (["ISO_IR 6"], (), False),
        (["ISO_IR 100"], ("ISO_IR 100",), False),
        (["ISO_IR 192 "], ("ISO_IR 192",), False),
        ([""], (), True),
        ([None], (), True),
        (["", "ISO 2022 IR 87"], ("", "ISO 2022 IR 87"), False),
        (["ISO 2022 IR 6", "ISO 2022 IR 149"], ("", "ISO 2022 IR 149"), False),
        (["ISO_IR 13", "ISO 2022 IR 87"], ("ISO 2022 IR 13", "ISO 2022 IR 87"), False),
        (["ISO 2022 IR 100"], ("ISO_IR 100",), True),
        (["ISO IR 192"], ("ISO_IR 192",), True),
        (["iso-ir-100"], ("ISO_IR 100",), True),
        (["ISO_IR_144"], ("ISO_IR 144",), True),
        (["\u201cISO_IR 100\u201d"], ("ISO_IR 100",), True),
        (["\uff02ISO_IR 192\uff02"], ("ISO_IR 192",), True),
        (["ISO_IR 149"], ("ISO 2022 IR 149",), True),
        (["UTF-8"], ("ISO_IR 192",), True),
        (["ISO8859-5"], ("ISO_IR 144",), True),
        (["GB 18030"], ("GB18030",), True),
        (["ISO 2022 GBK"], ("GBK",), True),
        (["ISO_IR 192", "ISO 2022 IR 87"], ("ISO_IR 192",), True),
        (["", "ISO_IR 192"], (), True),
        (["KLINGON"], (), True),
        (["KLINGON", "ISO 2022 IR 100"], ("ISO_IR 100",), True),
        (["ISO_IR 99999999999"], (), True),
    ],
)
def test_terms_as_devices_write_them(values: list[str | None], terms: Terms, noted: bool) -> None:
    found, notes = decode_key_terms(values)
    assert found == terms
    assert bool(notes) is noted


@given(st.lists(st.one_of(st.none(), st.text(max_size=20)), max_size=4))
def test_any_terms_are_usable(values: list[str | None]) -> None:
    terms, _ = decode_key_terms(values)
    assert decode_text(encode_text("Doe^Jane", terms), terms) == "Doe^Jane"


def test_every_defined_term_is_understood_without_a_note() -> None:
    for term in DEFINED_TERMS:
        values = ["", term] if term.startswith("ISO 2022") else [term]
        assert decode_key_terms(values)[1] == (), term


# PS3.5 annexes H, I and K, written as bytes there.
JAPANESE = (
    b"Yamada^Tarou=\x1b$B;3ED\x1b(B^\x1b$BB@O:\x1b(B=\x1b$B$d$^$@\x1b(B^\x1b$B$?$m$&\x1b(B",
    ("", "ISO 2022 IR 87"),
    "Yamada^Tarou=山田^太郎=やまだ^たろう",
)
HALF_WIDTH = (
    b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=\x1b$B;3ED\x1b(J^\x1b$BB@O:\x1b(J=\x1b$B$d$^$@\x1b(J^\x1b$B$?$m$&\x1b(J",
    ("ISO 2022 IR 13", "ISO 2022 IR 87"),
    "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう",
)
KOREAN = (
    b"Hong^Gildong=\x1b$)C\xfb\xf3^\x1b$)C\xd1\xce\xd4\xd7=\x1b$)C\xc8\xab^\x1b$)C\xb1\xe6\xb5\xbf",
    ("", "ISO 2022 IR 149"),
    "Hong^Gildong=洪^吉洞=홍^길동",
)
CHINESE = (
    b"Zhang^XiaoDong=\x1b$)A\xd5\xc5^\x1b$)A\xd0\xa1\xb6\xab=",
    ("", "ISO 2022 IR 58"),
    "Zhang^XiaoDong=张^小东=",
)


@pytest.mark.parametrize(("data", "terms", "name"), [JAPANESE, HALF_WIDTH, KOREAN, CHINESE])
def test_the_examples_of_the_standard(data: bytes, terms: Terms, name: str) -> None:
    assert encode_text(name, terms, person_name=True) == data
    assert decode_text(data, terms, person_name=True) == name


def test_korean_without_escape_sequences_is_read() -> None:
    assert decode_text("홍길동".encode("euc_kr"), ("ISO 2022 IR 149",)) == "홍길동"


def test_g0_and_g1_sets_mix_in_one_value() -> None:
    terms = ("ISO 2022 IR 13", "ISO 2022 IR 87", "ISO 2022 IR 159")
    text = "CT ﾔﾏﾀﾞ 山田 丂 end"
    assert decode_text(encode_text(text, terms), terms) == text


@pytest.mark.parametrize(
    ("data", "text"), [("Döring".encode(), "Döring"), ("Döring".encode("latin-1"), "Döring"), (b"Doe", "Doe")]
)
def test_bytes_beyond_an_undeclared_set_are_guessed(data: bytes, text: str) -> None:
    assert decode_text(data, ()) == text


@given(st.binary(max_size=40), st.sampled_from([(), UNICODE, ("GB18030",), *SINGLE_BYTE, JAPANESE[1], KOREAN[1]]))
def test_reading_never_fails(data: bytes, terms: Terms) -> None:
    decode_text(data, terms)
    decode_text(data, terms, person_name=True)


def test_latin_1_does_not_leave_under_the_default_repertoire() -> None:
    assert not holds((), "é")
    assert not holds(("", "ISO 2022 IR 87"), "é")
    assert choose(["é"], ("", "ISO 2022 IR 87"), None) == ("ISO_IR 100",)


@pytest.mark.parametrize(
    ("text", "requested", "declared", "terms"),
    [
        ("Doe^Jane", ("ISO_IR 192",), None, ()),
        ("Döring^Max", (), None, ("ISO_IR 100",)),
        ("Döring^Max", ("ISO_IR 192",), None, ("ISO_IR 192",)),
        ("Döring^Max", ("ISO_IR 144",), None, ("ISO_IR 100",)),
        ("Иванов", (), None, ("ISO_IR 144",)),
        ("Παπαδόπουλος", (), None, ("ISO_IR 126",)),
        ("Dvořák", (), None, ("ISO_IR 101",)),
        ("Иванов Müller", (), None, ("ISO_IR 192",)),
        ("=山田^太郎", (), None, ("ISO_IR 192",)),
        ("=山田^太郎", ("", "ISO 2022 IR 87"), None, ("", "ISO 2022 IR 87")),
        ("홍길동", ("ISO 2022 IR 149",), None, ("", "ISO 2022 IR 149")),
        ("Döring", (), ["ISO_IR 192"], ("ISO_IR 192",)),
        ("Döring", ("ISO_IR 192",), ["ISO_IR 100"], ("ISO_IR 100",)),
        ("山田", (), ["ISO_IR 100", "ISO 2022 IR 87"], ("", "ISO 2022 IR 87")),
        ("é 山田", (), ["ISO_IR 100", "ISO 2022 IR 87"], ("ISO 2022 IR 100", "ISO 2022 IR 87")),
        ("Иванов", (), ["ISO_IR 100"], ("ISO_IR 144",)),
        ("€", (), None, ("ISO_IR 192",)),
        ("€", ("ISO_IR 203",), None, ("ISO_IR 203",)),
    ],
)
def test_choice_of_the_answers_set(text: str, requested: Terms, declared: list[str] | None, terms: Terms) -> None:
    assert choose([text, "ASCII"], requested, declared) == terms


_REQUESTED = [(), UNICODE, ("GBK",), *SINGLE_BYTE, JAPANESE[1], HALF_WIDTH[1], KOREAN[1], ("ISO 2022 IR 58",)]
_text = st.text(
    st.one_of(
        st.sampled_from("aé ß€ИжΩشאไｱ山田やま한丂张"),
        st.characters(min_codepoint=0xA0, max_codepoint=0xFFFF, exclude_categories=["Cs", "Cc"]),
    ),
    max_size=8,
)


@settings(max_examples=300)
@given(st.lists(_text, max_size=3), st.sampled_from(_REQUESTED), st.none() | st.lists(st.sampled_from(DEFINED_TERMS)))
def test_no_letter_is_lost(texts: list[str], requested: Terms, declared: list[str] | None) -> None:
    terms = choose(texts, requested, declared)
    for text in texts:
        assert decode_text(encode_text(text, terms), terms) == text
    assert (terms == ()) is all(text.isascii() for text in texts)


@pytest.mark.parametrize(("data", "terms", "name"), [JAPANESE, HALF_WIDTH, KOREAN])
def test_another_reader_reads_what_is_written(data: bytes, terms: Terms, name: str) -> None:
    encodings = convert_encodings(list(terms))
    assert str(PersonName(data).decode(encodings)) == name


@settings(max_examples=200)
@given(st.text(st.sampled_from("aé Ωя"), max_size=6), st.sampled_from(SINGLE_BYTE))
def test_single_byte_sets_are_those_of_another_reader(text: str, terms: Terms) -> None:
    if not holds(terms, text):
        return
    assert decode_bytes(encode_text(text, terms), convert_encodings(list(terms)), set()) == text


def test_every_codec_exists() -> None:
    for term in DEFINED_TERMS:
        terms = decode_key_terms(["", term] if term.startswith("ISO 2022") else [term])[0]
        encode_text("a", terms)
    codecs.lookup("iso2022_jp_1")
