"""Converters one by one: each row of the table of HL7 types against the DICOM value it gives."""

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.domain.attributes import BY_KEYWORD, text, values
from gateway.domain.converters import (
    CONVERTERS,
    DELETE,
    Noted,
    Setting,
    Unconvertible,
    address,
    ae_title,
    all_text,
    birth_date,
    clean,
    code,
    code_with_alternate,
    cx,
    date_of,
    ei,
    fit,
    from_table,
    height,
    identifier_text,
    is_ae_title,
    location,
    modality,
    ndl,
    part,
    phone,
    pregnancy,
    scheme_designator,
    start_time,
    telecom,
    time_of,
    timestamp,
    uid,
    utc_offset,
    weight,
    xcn,
    xcn_identification,
    xpn,
    xpn_birth,
    xpn_other,
)
from gateway.domain.refusal import RefusalKind
from gateway.domain.source import Repetition

SETTING = Setting()


def repetition(er7: str) -> Repetition:
    return tuple(tuple(component.split("&")) for component in er7.split("^"))


def repetitions(er7: str) -> list[Repetition]:
    return [repetition(one) for one in er7.split("~")]


def refusal_of(call, *arguments) -> Unconvertible:
    with pytest.raises(Unconvertible) as raised:
        call(*arguments)
    return raised.value


# ---- text ----


def test_part_is_empty_outside_and_for_the_hl7_null() -> None:
    sample = repetition('a&b^""^ c ')
    assert [part(sample, n) for n in (1, 2, 3, 4)] == ["a", "", "c", ""]
    assert part(sample, 1, 2) == "b"
    assert part(sample, 1, 3) == ""


@pytest.mark.parametrize(
    ("said", "vr", "held"),
    [
        ("a\\b", "LO", "a/b"),
        ("a\\b", "LT", "a\\b"),
        ("two\nlines", "LO", "two lines"),
        ("two\nlines", "LT", "two\r\nlines"),
        ("a\tb\x00c\x1bd", "SH", "a bcd"),
        ("  padded ", "LO", "padded"),
        ("M\u00fcller\u00a0x", "LO", "M\u00fcller\u00a0x"),
    ],
)
def test_text_is_cleaned_for_its_vr(said: str, vr: str, held: str) -> None:
    assert clean(said, vr) == held


@given(st.text(max_size=40), st.sampled_from(["LO", "SH", "CS", "PN"]))
def test_short_text_never_holds_control_characters_or_a_value_separator(said: str, vr: str) -> None:
    held = clean(said, vr)
    assert "\\" not in held
    assert not any(ord(character) < 32 or 127 <= ord(character) < 160 for character in held)


def test_long_text_is_refused_or_cut_with_a_note() -> None:
    assert refusal_of(fit, "x" * 65, "LO", False).kind is RefusalKind.TOO_LONG
    assert fit("x" * 65, "LO", True) == Noted("x" * 64, "cut to 64 characters")
    assert fit("x" * 64, "LO", False) == "x" * 64


def test_code_strings_are_upper_case_and_checked() -> None:
    assert fit("ct", "CS", False) == "CT"
    assert refusal_of(fit, "c/t", "CS", False).kind is RefusalKind.BAD_VALUE


def test_identifiers_are_whole_or_refused() -> None:
    assert identifier_text("A-1", 16) == "A-1"
    assert refusal_of(identifier_text, "A" * 17, 16).kind is RefusalKind.TOO_LONG
    assert refusal_of(identifier_text, "A\\1", 16).kind is RefusalKind.BAD_VALUE


def test_all_text_joins_what_is_there() -> None:
    assert all_text(repetition("a&b^^c"), SETTING) == "a b c"


# ---- names ----


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("Doe^Jane^Q^Jr^Dr^MD", {"Alphabetic": "Doe^Jane^Q^Dr^Jr MD"}),
        ("van Dam&van&Dam^Piet", {"Alphabetic": "van Dam^Piet"}),
        ("O&Neil^Pat", {"Alphabetic": "O^Pat"}),
        ("A^B=C", {"Alphabetic": "A^B C"}),
        ("Alias^X^^^^^A~Legal^X^^^^^L", {"Alphabetic": "Legal^X"}),
        ("Maiden^X^^^^^M~Plain^X", {"Alphabetic": "Plain^X"}),
        (
            "Yamada^Tarou^^^^^L^A~山田^太郎^^^^^L^I~やまだ^たろう^^^^^L^P",
            {"Alphabetic": "Yamada^Tarou", "Ideographic": "山田^太郎", "Phonetic": "やまだ^たろう"},
        ),
        ("山田^太郎", {"Ideographic": "山田^太郎"}),
        ("ヤマダ^タロウ", {"Phonetic": "ヤマダ^タロウ"}),
        ("山田^みどり^^^^^L^A", {"Ideographic": "山田^みどり"}),
        ("Yamada^Tarou~山田^太郎", {"Alphabetic": "Yamada^Tarou", "Ideographic": "山田^太郎"}),
        ("홍^길동", {"Phonetic": "홍^길동"}),
        ("Люксембург^Роза", {"Alphabetic": "Люксембург^Роза"}),
    ],
)
def test_xpn_to_pn(said: str, name: dict[str, str]) -> None:
    assert xpn(repetitions(said), SETTING) == [name]


def test_maiden_and_other_names_have_attributes_of_their_own() -> None:
    said = repetitions("Legal^X^^^^^L~Maiden^X^^^^^M~Nick^X^^^^^N~Stage^X^^^^^S")
    assert xpn_birth(said, SETTING) == [{"Alphabetic": "Maiden^X"}]
    assert xpn_other(said, SETTING) == [{"Alphabetic": "Nick^X"}, {"Alphabetic": "Stage^X"}]


def test_empty_name_gives_nothing_and_a_long_one_is_refused() -> None:
    assert xpn(repetitions("^^^^^^L"), SETTING) == []
    assert refusal_of(xpn, repetitions("N" * 65), SETTING).kind is RefusalKind.TOO_LONG


def test_xcn_to_pn_needs_a_name() -> None:
    assert xcn(repetition("12^Ord^Anna^B^Jr^Dr^MD"), SETTING) == {"Alphabetic": "Ord^Anna^B^Dr^Jr MD"}
    assert xcn(repetition("12"), SETTING) is None


def test_ndl_reads_subcomponents_or_a_misplaced_xcn() -> None:
    assert ndl(repetition("7&Tech&Tina^20260101"), SETTING) == {"Alphabetic": "Tech^Tina"}
    assert ndl(repetition("7^Tech^Tina"), SETTING) == {"Alphabetic": "Tech^Tina"}
    assert ndl(repetition("7^20260101"), SETTING) is None


def test_xcn_identification_names_the_authority() -> None:
    item = xcn_identification(repetition("12^Ord^Anna^^^^^^DOCS"), SETTING)
    assert item is not None
    coded = values(item, "PersonIdentificationCodeSequence")[0]
    assert (text(coded, "CodeValue"), text(coded, "CodingSchemeDesignator")) == ("12", "99DOCS")
    assert text(coded, "CodeMeaning") == "Anna Ord"
    assert text(item, "InstitutionName") == "DOCS"
    assert xcn_identification(repetition("^Ord"), SETTING) is None


# ---- identifiers and codes ----


def test_cx_and_ei_are_taken_apart() -> None:
    assigned = cx(repetition("100^^^HOSPA&1.2.3&ISO^MR^FAC&1.9&ISO"))
    assert assigned[:6] == ("100", "HOSPA", "1.2.3", "ISO", "MR", ("FAC", "1.9", "ISO"))
    assert ei(repetition("A1^RIS^1.2^ISO"))[:4] == ("A1", "RIS", "1.2", "ISO")


@pytest.mark.parametrize(
    ("said", "designator"),
    [
        ("SNOMED-CT", "SCT"),
        ("LOINC", "LN"),
        ("icd-10", "I10"),
        ("L", "L"),
        ("99PROC", "99PROC"),
        ("RIS", "99RIS"),
        ("HL70001", "HL70001"),
        ("", "99LOCAL"),
        ("2.16.840.1.113883.6.96", "SCT"),
    ],
)
def test_coding_schemes_become_designators(said: str, designator: str) -> None:
    assert scheme_designator(said, SETTING) == designator


def test_long_coding_scheme_needs_a_table() -> None:
    problem = refusal_of(scheme_designator, "A-VERY-LONG-SCHEME", SETTING)
    assert problem.kind is RefusalKind.TOO_LONG
    setting = Setting(schemes={"A-VERY-LONG-SCHEME": "99SHORT"})
    assert scheme_designator("A-Very-Long-Scheme", setting) == "99SHORT"


def test_code_item_of_the_triplet_read() -> None:
    item = code(repetition("R51^Headache^I10"), SETTING)
    assert item is not None
    assert [text(item, key) for key in ("CodeValue", "CodeMeaning", "CodingSchemeDesignator")] == [
        "R51",
        "Headache",
        "I10",
    ]


def test_code_without_text_means_itself_and_text_without_code_is_no_code() -> None:
    item = code(repetition("X1^^99OWN"), SETTING)
    assert item is not None
    assert text(item, "CodeMeaning") == "X1"
    assert code(repetition("^Only text"), SETTING) is None


def test_long_codes_and_urns_have_their_own_attributes() -> None:
    long = code(repetition("123456789012345678^X^SCT"), SETTING)
    urn = code(repetition("urn:oid:1.2.3^X"), SETTING)
    assert long is not None
    assert urn is not None
    assert text(long, "LongCodeValue") == "123456789012345678"
    assert not text(long, "CodeValue")
    assert text(urn, "URNCodeValue") == "urn:oid:1.2.3"


def test_version_is_kept_only_where_the_scheme_alone_is_ambiguous() -> None:
    local, public = code(repetition("1^a^99X^^^^2"), SETTING), code(repetition("1^a^LN^^^^2"), SETTING)
    assert local is not None
    assert public is not None
    assert (text(local, "CodingSchemeVersion"), text(public, "CodingSchemeVersion")) == ("2", "")


def test_alternate_code_is_equivalent_or_stands_in() -> None:
    both = code_with_alternate(repetition("R51^Headache^I10^H1^Head^99X"), SETTING)
    only = code_with_alternate(repetition("^^^H1^Head^99X"), SETTING)
    assert both is not None
    assert only is not None
    assert text(values(both, "EquivalentCodeSequence")[0], "CodeValue") == "H1"
    assert text(only, "CodeValue") == "H1"


def test_table_translates_deletes_ignores_and_refuses() -> None:
    setting = Setting(table={"M": "M", "U": "", "RAD": "-"}, table_name="sample")
    assert from_table(repetition("m"), setting) == "M"
    assert from_table(repetition("U"), setting) is DELETE
    assert from_table(repetition("RAD"), setting) is None
    problem = refusal_of(from_table, repetition("W"), setting)
    assert problem.kind is RefusalKind.UNKNOWN_CODE
    assert "sample.csv" in problem.hint
    assert from_table(repetition("W"), setting._replace(unknown="keep")) == "W"
    assert from_table(repetition("W"), setting._replace(unknown="omit")).value is None


# ---- dates and times ----


@pytest.mark.parametrize(
    ("said", "date", "time", "offset"),
    [
        ("20260705093000", "20260705", "093000", DELETE),
        ("20260705", "20260705", None, DELETE),
        ("202607050930", "20260705", "093000", DELETE),
        ("2026070509", "20260705", "090000", DELETE),
        ("20260705093000.1234+0900", "20260705", "093000.1234", "+0900"),
        ("20260705093000-0000", "20260705", "093000", "+0000"),
        ("2026-07-05T09:30:00+02:00", "20260705", "093000", "+0200"),
        ("2026-07-05T09:30:00Z", "20260705", "093000", "+0000"),
        ("2026-07-05", "20260705", None, DELETE),
    ],
)
def test_timestamp_keeps_the_senders_wall_clock(said: str, date: str, time: str | None, offset: object) -> None:
    sample = repetition(said)
    assert date_of(sample, SETTING) == date
    assert time_of(sample, SETTING) == time
    assert utc_offset(sample, SETTING) == offset


@pytest.mark.parametrize(
    "said", ["20260230", "20261301", "202607052400", "20260705096100", "today", "2026070", "20260705+2500"]
)
def test_impossible_dates_are_bad_values(said: str) -> None:
    assert refusal_of(timestamp, said).kind is RefusalKind.BAD_VALUE


@given(st.datetimes(), st.sampled_from(["", "+0530", "-1100"]))
def test_every_real_time_is_read_back(moment, offset: str) -> None:
    sample = repetition(f"{moment:%Y%m%d%H%M%S}{offset}".rjust(14 + len(offset), "0"))
    assert f"{date_of(sample, SETTING)}{time_of(sample, SETTING)}" == sample[0][0][:14]


def test_start_without_time_is_midnight_with_a_note() -> None:
    assert start_time(repetition("20260705"), SETTING) == Noted(
        "000000", "the start has no time of day; taken as midnight"
    )
    assert start_time(repetition("202607051015"), SETTING) == "101500"


def test_partial_date_is_no_start_and_no_birthday() -> None:
    assert refusal_of(date_of, repetition("202607"), SETTING).kind is RefusalKind.BAD_VALUE
    assert birth_date(repetition("1980"), SETTING).value is None
    assert birth_date(repetition("19800102113000"), SETTING) == "19800102"


# ---- people and worklist keys ----


@pytest.mark.parametrize(
    ("number", "unit", "kilograms"),
    [("72.5", "kg", 72.5), ("3200", "g", 3.2), ("176", "[lb_av]", 79.8323), ("80,5", "KG", 80.5)],
)
def test_weight_in_kilograms(number: str, unit: str, kilograms: float) -> None:
    assert weight(repetition(number), Setting(unit=unit)) == kilograms


@pytest.mark.parametrize(("number", "unit", "metres"), [("1.72", "m", 1.72), ("172", "cm", 1.72), ("68", "in", 1.7272)])
def test_height_in_metres(number: str, unit: str, metres: float) -> None:
    assert height(repetition(number), Setting(unit=unit)) == metres


@pytest.mark.parametrize(("number", "unit"), [("72", "stone"), ("heavy", "kg"), ("0", "kg"), ("72", "")])
def test_doubtful_weight_is_left_out_with_a_note(number: str, unit: str) -> None:
    assert weight(repetition(number), Setting(unit=unit)).value is None


def test_writings_of_one_name_join_whether_they_name_its_type_or_not() -> None:
    said = repetitions("Wang^Ming~王^明^^^^^L^I")
    assert xpn(said, SETTING) == [{"Alphabetic": "Wang^Ming", "Ideographic": "王^明"}]
    assert xpn(repetitions("Wang^M~Wang^Ming^^^^^L"), SETTING) == [{"Alphabetic": "Wang^Ming"}]


def test_pregnancy_is_one_of_several_ambulatory_codes() -> None:
    assert pregnancy(repetitions("A6~B6"), SETTING) == [3]
    assert pregnancy(repetitions("A6"), SETTING) == [DELETE]


def test_address_phone_and_location_read_as_people_write_them() -> None:
    assert address(repetition("Main St 1&Main St&1^^Town^^12345^XY"), SETTING) == "Main St 1, Town, 12345, XY"
    assert phone(repetition("030 123"), Setting(vr="SH")) == "030 123"
    assert phone(repetition("+49 (0) 30 / 123 456"), Setting(vr="SH")) == "+49030123456"
    assert phone(repetition("+49 30 123456789012345"), Setting(vr="SH")).value is None
    assert phone(repetition("^PRN^PH^^49^30^1234^5"), Setting(vr="SH")) == "+49 30 1234 5"
    assert telecom(repetition("^NET^Internet^a@example.org"), SETTING) == "a@example.org"
    assert location(repetition("W3^12^B^HOSPA"), SETTING) == "W3 12 B"
    assert location(repetition("^^^HOSPA^^^^^Main lobby"), SETTING) == "Main lobby"


def test_modality_ae_title_and_uid_obey_their_vr() -> None:
    assert modality(repetition("ct"), SETTING) == "CT"
    assert ae_title(repetition("CT 1"), SETTING) == "CT 1"
    assert refusal_of(ae_title, repetition("A" * 17), SETTING).kind is RefusalKind.TOO_LONG
    assert refusal_of(ae_title, repetition("A\\B"), SETTING).kind is RefusalKind.BAD_VALUE
    assert uid(repetition("1.2.840.10008"), SETTING) == "1.2.840.10008"
    for wrong in ("1.02", "1..2", "a.b", "1", "1." + "2" * 64):
        refusal_of(uid, repetition(wrong), SETTING)


def test_ae_titles_are_not_blank() -> None:
    assert is_ae_title("CT1")
    assert not is_ae_title("   ")
    assert not is_ae_title("")


# ---- the table ----


def test_every_converter_is_documented_and_feeds_vrs_of_the_worklist() -> None:
    known = {attribute.vr for attribute in BY_KEYWORD.values()}
    for name, row in CONVERTERS.items():
        assert name == row.name
        assert row.summary
        assert row.vrs <= known


@settings(max_examples=60)
@given(sample=st.lists(st.lists(st.text(max_size=12), min_size=1, max_size=3), min_size=1, max_size=8))
def test_no_converter_fails_otherwise_than_by_saying_so(sample: list[list[str]]) -> None:
    said: Repetition = tuple(tuple(parts) for parts in sample)
    for row in CONVERTERS.values():
        for vr in row.vrs:
            with contextlib.suppress(Unconvertible):
                row.function([said] if row.joint else said, Setting(vr=vr, unit="kg"))
