"""Names on the console's screen and in its search field: every script, every declaration, right or wrong."""

import pytest
from consoles import ACCESSION, CHARACTER_SET, NAME, STATION, Ask, key, step
from field_department import (
    CHINESE,
    FORCED,
    GREEK,
    IMPORTED,
    JAPANESE,
    KOREAN,
    LONG,
    ROOM,
    RUSSIAN,
    SHOWN,
    SPANISH,
)

from gateway.wire.charsets import DEFINED_TERMS


def charset(said: str | bytes | None) -> bytes:
    """The Specific Character Set, padded to even length as it has to be; none at all for None."""
    if said is None:
        return b""
    value = said.encode("ascii") if isinstance(said, str) else said
    return key(CHARACTER_SET, value + b" " * (len(value) % 2))


def list_of_names(said: str | bytes | None) -> bytes:
    return charset(said) + key(ACCESSION) + key(NAME) + step(key(STATION, "SCRIPTS "))


def search(said: str | bytes | None, pattern: bytes) -> bytes:
    return charset(said) + key(ACCESSION) + key(NAME, pattern) + step(key(STATION, "SCRIPTS "))


def name_bytes(raw: bytes) -> bytes:
    """The Patient's Name in an answer in Implicit VR."""
    _, _, rest = raw.partition(b"\x10\x00\x10\x00")
    length = int.from_bytes(rest[:4], "little")
    return rest[4 : 4 + length]


@pytest.mark.parametrize("said", [None, "", *DEFINED_TERMS])
def test_a_query_may_declare_any_character_set_or_none(ask: Ask, said: str | None) -> None:
    terms = f"\\{said}" if said and said.startswith("ISO 2022") else said
    family, _, given = FORCED.person.name.partition("^")
    answer = ask(charset(terms) + key(ACCESSION, FORCED.accession) + key(NAME, f"{family.upper()}^{given[:2]}*"))
    assert answer.names == {FORCED.accession: FORCED.person.name}
    assert ask(charset(terms) + key(ACCESSION, FORCED.accession) + key(NAME, "Nobody")).items == ()


@pytest.mark.parametrize(
    "said", [None, "", "ISO_IR 100", "ISO_IR 126", "ISO_IR 144", "\\ISO 2022 IR 87", "GB18030", "ISO_IR 192"]
)
def test_every_name_comes_whole_whatever_set_was_asked_in(ask: Ask, said: str | None) -> None:
    answer = ask(list_of_names(said))
    assert answer.names == SHOWN


def test_an_answer_is_in_the_least_set_that_holds_its_letters(ask: Ask) -> None:
    answer = ask(list_of_names(None))
    sets = {str(found.AccessionNumber): found.get("SpecificCharacterSet") for found in answer.items}
    assert sets[SPANISH.accession] == "ISO_IR 100"
    assert sets[RUSSIAN.accession] == sets[LONG.accession] == "ISO_IR 144"
    assert sets[GREEK.accession] == "ISO_IR 126"
    assert sets[CHINESE.accession] == "ISO_IR 192"  # a letter that GB 2312 lacks
    (plain,) = ask(key(ACCESSION, ROOM.accession)).items
    assert "SpecificCharacterSet" not in plain


@pytest.mark.parametrize(("said", "codec"), [("ISO_IR 100", "utf-8"), ("ISO_IR 192", "utf-8"), ("GB18030", "gb18030")])
def test_chinese_letters_are_written_in_the_set_that_is_stated(ask: Ask, said: str, codec: str) -> None:
    answer = ask(search(said, b"Wang*"))
    (found,) = answer.items
    assert found.SpecificCharacterSet == {"utf-8": "ISO_IR 192", "gb18030": "GB18030"}[codec]
    assert name_bytes(answer.raw[0]).rstrip(b" ") == SHOWN[CHINESE.accession].encode(codec)


@pytest.mark.parametrize(
    ("calling", "said", "shown"),
    [
        ("LATIN", "ISO_IR 100", {SPANISH.accession: "Núñez^Íñigo", RUSSIAN.accession: "Gromov^Oleg"}),
        ("JAPAN", ["ISO 2022 IR 13", "ISO 2022 IR 87"], {JAPANESE.accession: SHOWN[JAPANESE.accession]}),
        ("JAPAN", ["ISO 2022 IR 13", "ISO 2022 IR 87"], {KOREAN.accession: "Park^Minsu==?^??"}),
    ],
)
def test_a_console_of_one_set_is_always_answered_in_it(
    ask: Ask, calling: str, said: str | list[str], shown: dict[str, str]
) -> None:
    answer = ask(list_of_names("ISO_IR 192"), calling)
    assert [found.SpecificCharacterSet for found in answer.items] == [said] * len(SHOWN)
    assert answer.names.items() >= shown.items()


def test_a_declared_set_goes_before_the_one_asked_in(ask: Ask) -> None:
    found = {str(each.AccessionNumber): each for each in ask(list_of_names("ISO_IR 192"), "GREECE").items}
    assert found[GREEK.accession].SpecificCharacterSet == "ISO_IR 126"
    assert found[RUSSIAN.accession].SpecificCharacterSet == "ISO_IR 192"


@pytest.mark.parametrize(
    ("said", "codec", "calling"),
    [
        ("ISO_IR 144", "iso8859-5", "CT1"),
        ("ISO_IR 192", "utf-8", "CT1"),
        ("GB18030", "gb18030", "CT1"),
        (None, "utf-8", "CT1"),
        ("", "utf-8", "CT1"),
        ("ISO_IR 100", "utf-8", "CT1"),
        (None, "iso8859-5", "RUSSIA"),
        ("ISO_IR 192", "iso8859-5", "RUSSIA"),
    ],
)
def test_cyrillic_letters_and_a_star_find_that_name_alone(ask: Ask, said: str | None, codec: str, calling: str) -> None:
    assert ask(search(said, "ГРОМ*".encode(codec)), calling).accessions == {RUSSIAN.accession}


@pytest.mark.parametrize("codec", ["iso8859-5", "windows-1251", "koi8-r"])
@pytest.mark.parametrize("said", [None, "ISO_IR 100", "ISO_IR 192"])
def test_letters_that_nobody_can_read_never_find_everybody(ask: Ask, said: str | None, codec: str) -> None:
    answer = ask(search(said, "Громов*".encode(codec)))
    assert (answer.accessions - {RUSSIAN.accession}, answer.status) == (set(), "0000")


@pytest.mark.parametrize(
    ("said", "pattern", "accession"),
    [
        ("ISO_IR 149", "==박*".encode("euc_kr"), KOREAN.accession),
        ("ISO 2022 IR 100", "NÚÑEZ*".encode("latin-1"), SPANISH.accession),
        ("ISO IR 192", "Громов*".encode(), RUSSIAN.accession),
        ("iso_ir_126", "Καλογ*".encode("iso8859-7"), GREEK.accession),
        ("＂ISO_IR 192＂".encode(), "Громов*".encode(), RUSSIAN.accession),
        ("“ISO_IR 144”".encode(), "Громов*".encode("iso8859-5"), RUSSIAN.accession),
        ("UTF-8 ", "=武田*".encode(), JAPANESE.accession),
        ("ISO_IR 13\\ISO 2022 IR 87", b"=\x1b$BIpED\x1b(J*", JAPANESE.accession),
    ],
)
def test_a_misspelt_set_is_the_one_that_was_meant(ask: Ask, said: str | bytes, pattern: bytes, accession: str) -> None:
    assert ask(search(said, pattern)).accessions == {accession}


def test_every_escape_sequence_returns_to_the_initial_set_before_a_delimiter(ask: Ask) -> None:
    answer = ask(search("\\ISO 2022 IR 87", b"Takeda*"))
    written = name_bytes(answer.raw[0]).rstrip(b" ")
    parts = written.replace(b"=", b"^").split(b"^")
    assert [part.count(b"\x1b$B") for part in parts] == [0, 0, 1, 1, 1, 1]
    assert all(part.startswith(b"\x1b$B") and part.endswith(b"\x1b(B") for part in parts[2:])


@pytest.mark.parametrize("said", ["ISO_IR 100", "ISO_IR 13", None])
def test_shift_jis_under_another_name_finds_nobody_rather_than_everybody(ask: Ask, said: str | None) -> None:
    answer = ask(search(said, "=武田*".encode("shift_jis")))
    assert (answer.accessions - {JAPANESE.accession}, answer.status) == (set(), "0000")


def test_lengths_are_even_and_count_characters_and_not_bytes(ask: Ask) -> None:
    for said in (None, "ISO_IR 192", "GB18030"):
        answer = ask(list_of_names(said))
        assert answer.names[LONG.accession] == SHOWN[LONG.accession]  # 64 characters, 127 bytes in UTF-8
        assert {len(name_bytes(raw)) % 2 for raw in answer.raw} == {0}
        assert not [raw for raw in answer.raw if name_bytes(raw).endswith(b"\0")]  # a name is padded with a blank


@pytest.mark.parametrize(
    ("said", "pattern"),
    [
        (None, b"nunez*"),
        (None, b"N??EZ*"),
        ("ISO_IR 100", "NÚÑEZ^Íñigo".encode("latin-1")),
        ("ISO_IR 101", b"Nunez^Inigo"),
        ("ISO_IR 192", "Nu\u0301n\u0303ez*".encode()),
        ("ISO_IR 192", "NÚÑEZ*".encode()),
    ],
)
def test_accents_are_found_with_and_without_and_come_back(ask: Ask, said: str | None, pattern: bytes) -> None:
    answer = ask(search(said, pattern))
    assert answer.names == {SPANISH.accession: "Núñez^Íñigo"}


@pytest.mark.parametrize("said", [None, "ISO_IR 144", "ISO_IR 192"])
def test_letters_where_no_character_set_counts_are_spelt_in_ascii(ask: Ask, said: str | None) -> None:
    (found,) = ask(charset(said) + key(ACCESSION, IMPORTED + " ") + key(0x00380008)).items
    assert found.VisitStatusID == "PRIBYL"
    assert "SpecificCharacterSet" not in found
