"""Identifiers as real devices send them, byte by byte: each is answered as it was meant, or refused with its place.

Built by hand, because a library would write them right. The oddities are those of field reports: group lengths,
retired and unknown elements, UN, padding, wrong lengths, sequences of every shape, text in undeclared sets.
"""

import struct
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.domain.attributes import SPS_SEQUENCE, TAG, Attributes, element, person_name_value
from gateway.domain.devices import PLAIN, CannotShow, CharacterSets, Profile
from gateway.domain.matching import MatchingRules
from gateway.domain.refusal import RefusalKind, Refused
from gateway.domain.worklist import SPSStatus, WorklistItem
from gateway.wire.charsets import DEFINED_TERMS, Terms, declarable, decode_key_terms, encode_text, holds
from gateway.wire.dicom_json import (
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    NOTES_MAX,
    read_dataset_bytes,
    write_attributes,
)
from gateway.wire.dimse import Status
from gateway.wire.worklist_dataset import answer, encode_answer, prepare_query, read_identifier

UNDEFINED = 0xFFFFFFFF
ITEM_END = struct.pack("<HHI", 0xFFFE, 0xE00D, 0)
SEQUENCE_END = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
SPS, MODALITY, STATION = 0x00400100, 0x00080060, 0x00400001
PATIENT_ID, PATIENT_NAME, CHARACTER_SET = 0x00100020, 0x00100010, 0x00080005


def implicit(tag: int, value: bytes = b"") -> bytes:
    """An element in Implicit VR Little Endian, of whatever length."""
    return struct.pack("<HHI", tag >> 16, tag & 0xFFFF, len(value)) + value


def explicit(tag: int, vr: str, value: bytes = b"") -> bytes:
    """An element in Explicit VR Little Endian."""
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr.encode())
    if vr in ("UN", "OB", "SQ", "UT"):
        return head + struct.pack("<HI", 0, len(value)) + value
    return head + struct.pack("<H", len(value)) + value


def in_item(*elements: bytes) -> bytes:
    body = b"".join(elements)
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(body)) + body


def open_item(*elements: bytes) -> bytes:
    return struct.pack("<HHI", 0xFFFE, 0xE000, UNDEFINED) + b"".join(elements) + ITEM_END


def open_sequence(tag: int, *items: bytes) -> bytes:
    return struct.pack("<HHI", tag >> 16, tag & 0xFFFF, UNDEFINED) + b"".join(items) + SEQUENCE_END


def scheduled(name: str = "Doe^Jane") -> WorklistItem:
    """A step of MR1, modality MR, for an invented patient of ID 100."""
    step = {
        TAG["ScheduledStationAETitle"]: element("ScheduledStationAETitle", "MR1"),
        TAG["Modality"]: element("Modality", "MR"),
        TAG["ScheduledProcedureStepStartDate"]: element("ScheduledProcedureStepStartDate", "20260705"),
        TAG["ScheduledProcedureStepStartTime"]: element("ScheduledProcedureStepStartTime", "0930"),
    }
    top: Attributes = {
        TAG["PatientName"]: element("PatientName", person_name_value(name)),
        TAG["PatientID"]: element("PatientID", "100"),
        SPS_SEQUENCE: {"vr": "SQ", "Value": [step]},
    }
    return WorklistItem(1, 1, SPSStatus.SCHEDULED, top)


def finds(data: bytes, syntax: str = IMPLICIT_VR_LITTLE_ENDIAN, item: WorklistItem | None = None) -> bool:
    item = item or scheduled()
    return prepare_query(data, syntax).query.matches(item.attributes, item.status)


def answered(data: bytes, syntax: str = IMPLICIT_VR_LITTLE_ENDIAN) -> Attributes:
    return answer(scheduled(), prepare_query(data, syntax).shape)


ASKED = implicit(PATIENT_ID, b"100 ")
OTHER = implicit(PATIENT_ID, b"101 ")


@pytest.mark.parametrize(
    "odd",
    [
        pytest.param(implicit(0x00080000, b"\x0c\0\0\0"), id="a group length"),
        pytest.param(implicit(0x00080001, b"\x0c\0\0\0"), id="a retired element"),
        pytest.param(implicit(CHARACTER_SET), id="an empty character set"),
        pytest.param(implicit(CHARACTER_SET, b"ISO IR 192"), id="a misspelt character set"),
        pytest.param(implicit(CHARACTER_SET, b"iso_ir_100"), id="a character set in lower case"),
        pytest.param(implicit(CHARACTER_SET, "\uff02ISO_IR 100\uff02".encode()), id="a character set in quotes"),
        pytest.param(implicit(CHARACTER_SET, b"KLINGON "), id="an unknown character set"),
        pytest.param(implicit(0x00081110), id="an empty sequence"),
        pytest.param(implicit(0x00081110, in_item()), id="an empty item"),
        pytest.param(open_sequence(0x00081110), id="an empty sequence of undefined length"),
        pytest.param(open_sequence(0x00081110, open_item()), id="an empty item of undefined length"),
        pytest.param(implicit(0x00080000, b"\x02\0\0\0") + implicit(0x00000002, b"1.2 "), id="a command element"),
        pytest.param(implicit(0x00020010, b"1.2.840.10008.1.2\0"), id="an element of a file header"),
        pytest.param(b"", id="nothing odd"),
    ],
)
def test_what_is_odd_before_a_key_leaves_the_key_as_it_is(odd: bytes) -> None:
    assert finds(odd + ASKED)
    assert not finds(odd + OTHER)
    assert answered(odd + ASKED)[TAG["PatientID"]] == element("PatientID", "100")


@pytest.mark.parametrize(
    "odd",
    [
        pytest.param(implicit(0x001021C0), id="an empty pregnancy status"),
        pytest.param(implicit(0x00380050, b""), id="an empty text"),
        pytest.param(implicit(0x00380300, b" \0"), id="a text of padding"),
        pytest.param(implicit(0x00401001, b"* "), id="a star and a blank"),
        pytest.param(implicit(0xFFFCFFFC, b"\0" * 6), id="trailing padding"),
        pytest.param(b"\0" * 7, id="seven zeros after the end"),
        pytest.param(b"\0" * 24, id="zeros after the end"),
    ],
)
def test_what_is_odd_after_a_key_leaves_the_key_as_it_is(odd: bytes) -> None:
    assert finds(ASKED + odd)
    assert not finds(OTHER + odd)


@pytest.mark.parametrize(
    "value", [b"100", b"100 ", b" 100  ", b"100\0", b"1*", b"1* ", b"*", b"* ", b" * ", b"", b"    ", b"\0\0"]
)
def test_padding_and_odd_lengths_mean_nothing(value: bytes) -> None:
    assert finds(implicit(PATIENT_ID, value))


@pytest.mark.parametrize(("title", "found"), [(b" MR1    ", True), (b"MR1\0", True), (b"MR1 \0", True), (b"MR", False)])
def test_a_padded_ae_title_is_that_ae_title(title: bytes, found: bool) -> None:
    assert finds(implicit(SPS, in_item(implicit(STATION, title)))) is found


@pytest.mark.parametrize("value", [pytest.param(b"\x01", id="one byte"), pytest.param(b"\x04\0\0", id="three bytes")])
def test_a_number_of_the_wrong_length_is_noted_and_spoils_nothing_else(value: bytes) -> None:
    data = ASKED + implicit(0x001021C0, value)
    assert any(note.startswith("(0010,21C0)") for note in read_identifier(data, IMPLICIT_VR_LITTLE_ENDIAN).notes)
    prepare_query(data, IMPLICIT_VR_LITTLE_ENDIAN)


_STEPS: dict[str, Callable[[bytes], bytes]] = {
    "defined lengths": lambda keys: implicit(SPS, in_item(keys)),
    "an item of undefined length": lambda keys: implicit(SPS, open_item(keys)),
    "undefined lengths": lambda keys: open_sequence(SPS, open_item(keys)),
    "a sequence of undefined length": lambda keys: open_sequence(SPS, in_item(keys)),
    "a group length inside": lambda keys: implicit(SPS, in_item(implicit(0x00080000, b"\x0a\0\0\0"), keys)),
}


@pytest.mark.parametrize("form", _STEPS)
def test_the_step_sequence_in_every_form(form: str) -> None:
    assert finds(_STEPS[form](implicit(MODALITY, b"MR")))
    assert not finds(_STEPS[form](implicit(MODALITY, b"CT")))


@pytest.mark.parametrize(
    "sequence", [pytest.param(implicit(SPS), id="no items"), pytest.param(implicit(SPS, in_item()), id="an empty item")]
)
def test_an_empty_step_sequence_matches_and_asks_for_the_whole_step(sequence: bytes) -> None:
    assert finds(ASKED + sequence)
    (step,) = answered(ASKED + sequence)[SPS_SEQUENCE]["Value"]
    assert step.items() >= scheduled().step.items()


def test_without_a_step_sequence_the_other_keys_decide() -> None:
    assert finds(ASKED)
    assert SPS_SEQUENCE not in answered(ASKED)


def test_a_step_sequence_of_several_items_is_refused_with_its_place() -> None:
    data = ASKED + implicit(SPS, in_item(implicit(MODALITY, b"MR")) + in_item(implicit(MODALITY, b"CT")))
    with pytest.raises(Refused) as refused:
        prepare_query(data, IMPLICIT_VR_LITTLE_ENDIAN)
    assert [(each.kind, each.where) for each in refused.value.refusals] == [(RefusalKind.UNUSABLE_QUERY, "(0040,0100)")]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="a web request"),
        pytest.param(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", id="a picture"),
        pytest.param(b"MSH|^~\\&|RIS|HOSPITAL|||20260705||ORM^O01|1|P|2.5\r", id="an HL7 message"),
        pytest.param(ASKED[:-1], id="a dataset cut in a value"),
        pytest.param(ASKED[:5], id="a dataset cut in a header"),
        pytest.param(b"\x10", id="one byte"),
        pytest.param(b"\0" * 32, id="zeros"),
    ],
)
@pytest.mark.parametrize("syntax", [IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN])
def test_what_is_no_dataset_is_an_unusable_query(data: bytes, syntax: str) -> None:
    with pytest.raises(Refused) as refused:
        prepare_query(data, syntax)
    assert {each.kind for each in refused.value.refusals} == {RefusalKind.UNUSABLE_QUERY}


def test_known_attributes_that_come_as_un_are_read_by_what_they_are() -> None:
    step = explicit(SPS, "UN", in_item(implicit(MODALITY, b"MR")))
    data = explicit(PATIENT_ID, "UN", b"100 ") + explicit(0x001021C0, "UN", b"\x04\0") + step
    item = scheduled()
    item.attributes[TAG["PregnancyStatus"]] = element("PregnancyStatus", 4)
    assert finds(data, EXPLICIT_VR_LITTLE_ENDIAN, item)
    assert not finds(data.replace(b"100 ", b"101 "), EXPLICIT_VR_LITTLE_ENDIAN, item)
    assert len(read_identifier(data, EXPLICIT_VR_LITTLE_ENDIAN).notes) == 3


@pytest.mark.parametrize(
    ("data", "negotiated"),
    [
        (explicit(PATIENT_ID, "LO", b"100 ") + explicit(SPS, "SQ"), IMPLICIT_VR_LITTLE_ENDIAN),
        (ASKED + implicit(SPS), EXPLICIT_VR_LITTLE_ENDIAN),
    ],
)
def test_a_dataset_in_the_other_transfer_syntax_is_read_and_noted(data: bytes, negotiated: str) -> None:
    assert finds(data, negotiated)
    assert not finds(data.replace(b"100 ", b"101 "), negotiated)
    assert read_identifier(data, negotiated).notes


def test_an_item_may_be_in_a_character_set_of_its_own() -> None:
    code = 0x00321064
    inner = in_item(implicit(CHARACTER_SET, b"ISO_IR 144"), implicit(0x00080104, "Голова".encode("iso8859-5")))
    data = implicit(CHARACTER_SET, b"ISO_IR 100") + implicit(PATIENT_NAME, "Döring*".encode("latin-1"))
    keys = read_identifier(data + implicit(code, inner), IMPLICIT_VR_LITTLE_ENDIAN).keys
    assert keys[TAG["PatientName"]]["Value"] == [{"Alphabetic": "Döring*"}]
    assert keys[TAG["RequestedProcedureCodeSequence"]]["Value"] == [
        {TAG["CodeMeaning"]: element("CodeMeaning", "Голова")}
    ]


def test_a_query_full_of_oddities_has_a_bounded_number_of_notes() -> None:
    codes = b"".join(in_item(explicit(0x00080100, "UN", b"X ")) for _ in range(100))
    data = explicit(0x00321064, "SQ", codes)
    assert len(read_identifier(data, EXPLICIT_VR_LITTLE_ENDIAN).notes) == NOTES_MAX


# -- the text of queries


_NAMES = {
    "ISO_IR 6": "Meyer", "ISO_IR 100": "Döring", "ISO_IR 101": "Dvořák", "ISO_IR 109": "Ĉapelo", "ISO_IR 110": "Kārlis",
    "ISO_IR 148": "Yılmaz", "ISO_IR 203": "Šimon", "ISO_IR 144": "Иванов", "ISO_IR 126": "Παπαδόπουλος",
    "ISO_IR 127": "محمد", "ISO_IR 138": "כהן", "ISO_IR 166": "สมชาย", "ISO_IR 13": "ﾔﾏﾀﾞ",
}  # fmt: skip
_LETTERS = sorted({letter for name in _NAMES.values() for letter in name} | set("山田太郎やまだ홍길동张小东李ёщřõα"))


def declared(terms: Terms) -> bytes:
    value = "\\".join(terms).encode()
    return implicit(CHARACTER_SET, value + b" " * (len(value) % 2)) if terms else b""


@settings(max_examples=400)
@given(
    st.text(st.sampled_from(_LETTERS), min_size=1, max_size=6),
    st.sampled_from(DEFINED_TERMS),
    st.sampled_from(["", "Given^", "X^Y="]),
)
def test_a_search_in_any_set_finds_the_name_whatever_it_was_written_in(name: str, term: str, before: str) -> None:
    terms = declarable(decode_key_terms([term])[0])
    if not holds(terms, name):
        return
    key = encode_text(f"{before}{name}", terms, person_name=True)
    data = declared(terms) + implicit(PATIENT_NAME, key)
    assert finds(data, item=scheduled(f"{before}{name}^Other"))
    assert not finds(data, item=scheduled("Somebody^Else"))


@pytest.mark.parametrize("term", sorted(_NAMES))
def test_every_single_byte_set_is_searched_in(term: str) -> None:
    terms, _ = decode_key_terms([term])
    data = declared(terms) + implicit(PATIENT_NAME, encode_text(f"{_NAMES[term]}*", terms, person_name=True))
    assert finds(data, item=scheduled(f"{_NAMES[term]}^Given"))
    assert not finds(data)


def test_a_star_after_cyrillic_letters_does_not_find_everybody() -> None:
    """A server that dropped the letters it could not read was asked for `*`."""
    for codec in ("iso8859-5", "utf-8"):
        data = implicit(PATIENT_NAME, "Иванов*".encode(codec))
        assert not finds(data)


@pytest.mark.parametrize("said", [b"", b"ISO_IR 100", b"ISO_IR 192"])
def test_what_the_site_says_of_a_device_counts_where_its_query_says_nothing_or_what_is_wrong(said: bytes) -> None:
    key = "Иванов".encode("iso8859-5") if said != b"ISO_IR 100" else b"\x1b$B;3ED\x1b(B"
    name = "Иванов^Иван" if said != b"ISO_IR 100" else "Yamada^Tarou=山田^太郎"
    assumed = ("ISO_IR 144",) if said != b"ISO_IR 100" else ("", "ISO 2022 IR 87")
    data = (implicit(CHARACTER_SET, said) if said else b"") + implicit(PATIENT_NAME, key)
    prepared = prepare_query(data, IMPLICIT_VR_LITTLE_ENDIAN, Profile(character_sets=CharacterSets(assumed=assumed)))
    item = scheduled(name)
    assert prepared.query.matches(item.attributes, item.status)
    assert not prepared.query.matches(scheduled().attributes, item.status)
    assert any("read as" in note for note in prepared.identifier.notes)
    assert not any(name in note for note in prepared.identifier.notes)


def test_a_device_that_declares_nothing_is_answered_in_the_set_that_is_assumed_of_it() -> None:
    profile = Profile(character_sets=CharacterSets(assumed=("ISO_IR 192",)))
    prepared = prepare_query(implicit(PATIENT_NAME), IMPLICIT_VR_LITTLE_ENDIAN, profile)
    read = read_dataset_bytes(encode_answer(scheduled("Иванов^Иван"), prepared.shape), IMPLICIT_VR_LITTLE_ENDIAN)
    assert read.terms == ("ISO_IR 192",)


def test_a_query_with_an_undeclared_guess_is_answered_as_one_that_declares_nothing() -> None:
    """What is guessed is not requested: the device is not known to show it."""
    prepared = prepare_query(implicit(PATIENT_NAME, "Döring".encode()), IMPLICIT_VR_LITTLE_ENDIAN)
    read = read_dataset_bytes(encode_answer(scheduled("Döring^Max"), prepared.shape), IMPLICIT_VR_LITTLE_ENDIAN)
    assert read.terms == ("ISO_IR 100",)


# -- keys outside the table


def test_an_answer_warns_exactly_where_the_item_lacks_a_key_outside_the_table() -> None:
    plain, with_protocol = scheduled(), scheduled()
    with_protocol.attributes["00181030"] = {"vr": "LO", "Value": ["Head"]}
    prepared = prepare_query(ASKED + implicit(0x00181030), IMPLICIT_VR_LITTLE_ENDIAN)
    assert prepared.pending(plain) is Status.PENDING_WITH_WARNING
    assert prepared.pending(with_protocol) is Status.PENDING
    assert prepare_query(ASKED, IMPLICIT_VR_LITTLE_ENDIAN).pending(plain) is Status.PENDING


def private_item(block: str) -> WorklistItem:
    item = scheduled()
    item.attributes[f"000900{block}"] = {"vr": "LO", "Value": ["ACME"]}
    item.attributes[f"0009{block}01"] = {"vr": "SH", "Value": ["held"]}
    return item


@pytest.mark.parametrize("block", ["10", "42"])
def test_a_private_key_is_answered_with_its_creator_from_whatever_block_holds_it(block: str) -> None:
    data = implicit(0x00090010, b"ACME") + implicit(0x00091001)
    prepared = prepare_query(data, IMPLICIT_VR_LITTLE_ENDIAN)
    assert answer(private_item(block), prepared.shape) == {
        "00090010": {"vr": "LO", "Value": ["ACME"]},
        "00091001": {"vr": "SH", "Value": ["held"]},
    }
    assert prepared.pending(private_item(block)) is Status.PENDING


def test_a_private_key_of_another_creator_is_not_answered() -> None:
    data = implicit(0x00090010, b"OTHER ") + implicit(0x00091001)
    prepared = prepare_query(data, IMPLICIT_VR_LITTLE_ENDIAN)
    assert answer(private_item("10"), prepared.shape) == {}
    assert prepared.pending(private_item("10")) is Status.PENDING_WITH_WARNING


def test_what_is_written_in_a_query_by_a_library_is_read_the_same() -> None:
    keys = {TAG["PatientName"]: element("PatientName", {"Alphabetic": "Doe*"}), SPS_SEQUENCE: {"vr": "SQ"}}
    for syntax in (IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN):
        assert read_identifier(write_attributes(keys, syntax, ()), syntax).keys == keys


BENT = Profile(
    ignore=("PatientID", "Modality", "00181030", "RequestedProcedureCodeSequence"),
    force=(("ScheduledStationAETitle", "MR1\\CT1"), ("PatientName", "D*")),
    fill=(("PatientSex", "O"), ("ScheduledStationName", "ROOM"), ("PregnancyStatus", "4")),
    character_sets=CharacterSets(("ISO_IR 101",), ("ISO_IR 100",), CannotShow.TRANSLITERATE, ("ISO_IR 144",)),
)
WHOLE = {
    syntax: write_attributes(
        {
            **{TAG[keyword]: element(keyword) for keyword in ("PatientSex", "PregnancyStatus", "PatientComments")},
            TAG["PatientName"]: element("PatientName", {"Alphabetic": "D*"}),
            "00090010": {"vr": "LO", "Value": ["ACME"]},
            "00091001": {"vr": "UN"},
            SPS_SEQUENCE: {"vr": "SQ", "Value": [{TAG["Modality"]: element("Modality", "MR")}]},
            TAG["RequestedProcedureCodeSequence"]: {"vr": "SQ", "Value": [{TAG["CodeValue"]: element("CodeValue")}]},
        },
        syntax,
        ("ISO_IR 100",),
    )
    for syntax in (IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN)
}


@settings(max_examples=500)
@given(
    st.sampled_from(sorted(WHOLE)),
    st.lists(st.tuples(st.integers(0, 250), st.integers(0, 255)), max_size=4),
    st.sampled_from([PLAIN, BENT]),
)
def test_a_query_of_any_bytes_is_answered_or_refused(
    syntax: str, changes: list[tuple[int, int]], profile: Profile
) -> None:
    data = bytearray(WHOLE[syntax])
    for place, byte in changes:
        data[place % len(data)] = byte
    try:
        prepared = prepare_query(bytes(data), syntax, profile, MatchingRules(fuzzy_names=True, timezone_adjusted=True))
    except Refused as refused:
        assert {each.kind for each in refused.refusals} == {RefusalKind.UNUSABLE_QUERY}  # noqa: PT017
        return
    item = scheduled("Döring^Иван=山田")
    prepared.query.matches(item.attributes, item.status)
    assert prepared.pending(item) in (Status.PENDING, Status.PENDING_WITH_WARNING)
    read_dataset_bytes(encode_answer(item, prepared.shape), syntax)


@pytest.mark.parametrize("profile", [PLAIN, BENT])
def test_a_step_sequence_that_is_none_is_refused(profile: Profile) -> None:
    with pytest.raises(Refused) as refused:
        prepare_query(explicit(SPS, "LO", b"MR"), EXPLICIT_VR_LITTLE_ENDIAN, profile)
    assert refused.value.refusals[0].where == "(0040,0100)"
