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
    RawText,
    Terms,
    choose,
    composed,
    decode_key_terms,
    decode_text,
    encode_text,
    holds,
    replaced,
    transliterated,
    understood,
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
    assert choose(["é"], ("", "ISO 2022 IR 87")) == ("ISO_IR 100",)


@pytest.mark.parametrize(
    ("text", "requested", "declared", "terms"),
    [
        ("Doe^Jane", ("ISO_IR 192",), [], ()),
        ("Döring^Max", (), [], ("ISO_IR 100",)),
        ("Döring^Max", ("ISO_IR 192",), [], ("ISO_IR 192",)),
        ("Döring^Max", ("ISO_IR 144",), [], ("ISO_IR 100",)),
        ("Иванов", (), [], ("ISO_IR 144",)),
        ("Παπαδόπουλος", (), [], ("ISO_IR 126",)),
        ("Dvořák", (), [], ("ISO_IR 101",)),
        ("Иванов Müller", (), [], ("ISO_IR 192",)),
        ("=山田^太郎", (), [], ("", "ISO 2022 IR 87")),
        ("=森^鷗外=もり^おうがい", (), [], ("", "ISO 2022 IR 87", "ISO 2022 IR 159")),
        ("=山田^太郎", ("ISO_IR 192",), [], ("ISO_IR 192",)),
        ("=山田^太郎", ("ISO_IR 100",), ["ISO_IR 100", "GB18030"], ("GB18030",)),
        ("=홍^길동", (), [], ("", "ISO 2022 IR 149")),
        ("=张^小东", (), [], ("", "ISO 2022 IR 58")),
        ("ﾔﾏﾀﾞ^ﾀﾛｳ", (), [], ("ISO_IR 13",)),
        ("ﾔﾏﾀﾞ 山田", (), [], ("ISO 2022 IR 13", "ISO 2022 IR 87")),
        ("张 홍길동", (), [], ("ISO_IR 192",)),
        ("=张^小东 홍", (), ["", "ISO 2022 IR 58", "ISO 2022 IR 149"], ("", "ISO 2022 IR 58", "ISO 2022 IR 149")),
        ("=山田^太郎", ("", "ISO 2022 IR 87"), [], ("", "ISO 2022 IR 87")),
        ("홍길동", ("ISO 2022 IR 149",), [], ("", "ISO 2022 IR 149")),
        ("Döring", (), ["ISO_IR 192"], ("ISO_IR 192",)),
        ("Döring", ("ISO_IR 192",), ["ISO_IR 100"], ("ISO_IR 100",)),
        ("山田", (), ["ISO_IR 100", "ISO 2022 IR 87"], ("", "ISO 2022 IR 87")),
        ("é 山田", (), ["ISO_IR 100", "ISO 2022 IR 87"], ("ISO 2022 IR 100", "ISO 2022 IR 87")),
        ("Иванов", (), ["ISO_IR 100"], ("ISO_IR 144",)),
        ("€", (), [], ("ISO_IR 192",)),
        ("€", ("ISO_IR 203",), [], ("ISO_IR 203",)),
    ],
)
def test_choice_of_the_answers_set(text: str, requested: Terms, declared: list[str], terms: Terms) -> None:
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
@given(st.lists(_text, max_size=3), st.sampled_from(_REQUESTED), st.lists(st.sampled_from(DEFINED_TERMS)))
def test_no_letter_is_lost(texts: list[str], requested: Terms, declared: list[str]) -> None:
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


JIS, KATAKANA_JIS = JAPANESE[1], HALF_WIDTH[1]


@pytest.mark.parametrize(
    ("first_group", "rest", "requested", "declared", "terms"),
    [
        # Group 1 without escapes, the ideographic group with them (PS3.5 6.2.1.2).
        ("Yamada^Tarou", "山田", (), [], JIS),
        ("ﾔﾏﾀﾞ^ﾀﾛｳ", "山田", (), [], KATAKANA_JIS),
        # A set of the device that needs no escape comes before one that does.
        ("山田^太郎", "", (), ["ISO 2022 IR 87", "GB18030"], ("GB18030",)),
        ("山田^太郎", "", UNICODE, ["", "ISO 2022 IR 87"], UNICODE),
        ("Иванов^Иван", "", (), ["ISO 2022 IR 6", "ISO 2022 IR 144", "ISO 2022 IR 87"], ("ISO_IR 144",)),
        # Where each needs one, one the device knows comes before one it may not know.
        ("Иванов^Иван", "", (), ["", "ISO 2022 IR 87"], JIS),
        ("山田^太郎", "", (), [], JIS),
    ],
)
def test_the_first_group_of_a_name_has_no_escapes_where_that_can_be(
    first_group: str, rest: str, requested: Terms, declared: list[str], terms: Terms
) -> None:
    assert choose([first_group, rest], requested, declared, [first_group]) == terms


def test_letters_and_marks_are_one_letter_and_ideographs_stay_as_they_are() -> None:
    assert composed("Do\u0308ring") == "Döring"
    assert composed("\ufa19\u8005 e\u0301") == "\ufa19\u8005 é"  # a compatibility ideograph, which NFC would change
    assert composed("x\u030c") == "x\u030c"


@pytest.mark.parametrize(
    ("text", "terms", "written"),
    [
        ("Jöse^Ñuñez", (), "Jose^Nunez"),
        ("Jöse^Dvořák", ("ISO_IR 100",), "Jöse^Dvorák"),
        ("Łukasz", ("ISO_IR 100",), "Lukasz"),
        ("Ёлкин", ("ISO_IR 144",), "Ёлкин"),
        ("Müller", ("ISO_IR 144",), "Muller"),
        ("Щукин^Пётр", ("ISO_IR 100",), "Shchukin^Petr"),
        ("Straße", (), "Strasse"),
        ("山田", ("ISO_IR 100",), "ShanTian"),
        ("Do\u0308ring x\u030c", ("ISO_IR 100",), "Döring x"),
        ("a＼b＾c＝d", (), "a?b?c?d"),  # what divides values and names is not made from what does not
        ("\ue000", (), "?"),
    ],
)
def test_transliteration(text: str, terms: Terms, written: str) -> None:
    assert transliterated(text, terms) == written


def test_replacing() -> None:
    assert replaced("Do\u0308ring 山田", ("ISO_IR 100",)) == "Döring ??"


@given(st.text(max_size=12), st.sampled_from([(), UNICODE, ("GBK",), *SINGLE_BYTE, JIS, KATAKANA_JIS, KOREAN[1]]))
def test_what_cannot_be_shown_is_always_written_somehow(text: str, terms: Terms) -> None:
    for written in (transliterated(text, terms), replaced(text, terms)):
        assert holds(terms, written)


def raw(text: str, codec: str) -> RawText:
    return RawText(text.encode(codec), person_name=True)


@pytest.mark.parametrize(
    ("text", "declared", "assumed", "terms", "noted"),
    [
        (raw("Doe", "ascii"), (), (), (), False),
        (raw("Döring", "latin-1"), ("ISO_IR 100",), (), ("ISO_IR 100",), False),
        (raw("Иванов", "utf-8"), UNICODE, ("ISO_IR 144",), UNICODE, False),
        # Nothing declared.
        (raw("Иванов", "iso8859-5"), (), ("ISO_IR 144",), ("ISO_IR 144",), True),
        (raw("Иванов", "utf-8"), (), (), UNICODE, True),
        (raw("Döring", "latin-1"), (), (), ("ISO_IR 100",), True),
        (raw("Döring", "latin-1"), (), UNICODE, ("ISO_IR 100",), True),
        (RawText(JAPANESE[0], True), (), (), ("", "ISO 2022 IR 6"), True),
        # Something else declared than what is there.
        (raw("Müßig", "utf-8"), ("ISO_IR 100",), (), UNICODE, True),
        (raw("Иванов", "utf-8"), ("ISO_IR 101",), (), UNICODE, True),
        (raw("Döring", "latin-1"), UNICODE, (), ("ISO_IR 100",), True),
        (raw("Döring", "latin-1"), UNICODE, ("ISO_IR 101",), ("ISO_IR 101",), True),
        (RawText(JAPANESE[0], True), ("ISO_IR 100",), (), ("ISO 2022 IR 100", "ISO 2022 IR 6"), True),
        # A letter cut in half spoils only itself.
        (RawText("山田太".encode()[:-1], True), UNICODE, (), UNICODE, True),
        (RawText(b"\x1b$B;3EDB", True), JIS, (), JIS, True),
    ],
)
def test_what_a_text_is_in_is_found_where_it_is_not_said(
    text: RawText, declared: Terms, assumed: Terms, terms: Terms, noted: bool
) -> None:
    found, note = understood([RawText(b"ASCII"), text], declared, assumed)
    assert (found, bool(note)) == (terms, noted)


def test_escape_sequences_are_followed_in_a_set_that_does_not_name_them() -> None:
    data, _, name = JAPANESE
    for declared in ((), ("ISO_IR 100",)):
        terms, _ = understood([RawText(data, True)], declared)
        assert decode_text(data, terms, person_name=True) == name


@given(st.lists(st.builds(RawText, st.binary(max_size=20), st.booleans())), st.sampled_from(_REQUESTED))
def test_any_bytes_are_understood_somehow(texts: list[RawText], declared: Terms) -> None:
    terms, note = understood(texts, declared)
    assert (terms == declared) or note
    for text in texts:
        decode_text(text.data, terms, person_name=text.person_name)


def test_korean_senders_forget_to_repeat_the_escape_sequence() -> None:
    data = b"\x1b$)C" + "홍^길동".encode("euc_kr")
    assert decode_text(data, KOREAN[1], person_name=True) == "홍^길동"
    assert decode_text("홍^길동".encode("euc_kr"), KOREAN[1], person_name=True) == "홍^길동"


def test_yen_and_overline_of_japanese_sets_are_backslash_and_tilde() -> None:
    """PS3.5 6.1.2.3: 05/12 delimits values in every set, so a yen sign that would be written there is in none."""
    assert decode_text(b"\xd4\x5c\x7e", ("ISO_IR 13",)) == "ﾔ\\~"
    assert encode_text("ﾔ\\~", ("ISO_IR 13",)) == b"\xd4\x5c\x7e"
    assert not holds(("ISO_IR 13",), "¥")
    assert not holds(("ISO_IR 13",), "‾")
    assert not holds(KATAKANA_JIS, "¥")


def test_of_a_value_that_is_no_term_only_the_beginning_is_looked_at():
    assert decode_key_terms(["ISO" + " " * 15_000 + "IR 100"]) == ((), ("unknown Specific Character Set left out",))
    assert decode_key_terms(["ISO IR 100" + " x" * 7_000])[0] == ("ISO_IR 100",)
