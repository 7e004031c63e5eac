"""C-FIND identifiers of the worklist: requests as devices send them, answers with exactly the keys asked for."""

from dataclasses import replace
from io import BytesIO
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.filereader import read_dataset

from gateway.domain.attributes import (
    BY_KEYWORD,
    BY_TAG,
    SPS_SEQUENCE,
    TAG,
    Attributes,
    code_item,
    element,
    person_name_value,
    text,
    values,
)
from gateway.domain.devices import CannotShow, CharacterSets, Profile
from gateway.domain.matching import MatchingRules
from gateway.domain.refusal import RefusalKind, Refused
from gateway.domain.worklist import SPSStatus, WorklistItem
from gateway.wire.charsets import DEFINED_TERMS, UNICODE, composed
from gateway.wire.dicom_json import (
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    attributes_from_dataset,
    read_dataset_bytes,
    write_attributes,
)
from gateway.wire.dimse import Status
from gateway.wire.worklist_dataset import (
    AnswerShape,
    EncodedAnswers,
    PreparedQuery,
    answer,
    answer_shape,
    encode_answer,
    prepare_query,
    read_identifier,
)

SYNTAXES = [IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN]


def attributes(**said: Any) -> Attributes:
    """Attributes by keyword: a value, a list of values, or None for a zero-length element; names as text."""
    made: Attributes = {}
    for keyword, value in said.items():
        several = value if isinstance(value, list) else [] if value is None else [value]
        if BY_KEYWORD[keyword].vr == "PN":
            several = [person_name_value(name) for name in several]
        made[TAG[keyword]] = element(keyword, *several)
    return made


def worklist_item(name: str = "Doe^Jane", **more: Any) -> WorklistItem:
    step = attributes(
        ScheduledStationAETitle=["MR1", "MR2"],
        ScheduledProcedureStepStartDate="20260705",
        ScheduledProcedureStepStartTime="0930",
        Modality="MR",
        ScheduledPerformingPhysicianName=None,
        ScheduledProcedureStepID="S1",
        ScheduledProtocolCodeSequence=[code_item("HEAD", "L", "Head"), code_item("NECK", "L", "Neck")],
    )
    top = attributes(
        PatientName=name,
        PatientID="100",
        StudyInstanceUID="1.2.3",
        RequestedProcedureID="R1",
        RequestedProcedureCodeSequence=[code_item("MRHEAD", "L", "MR head")],
        ScheduledProcedureStepSequence=step,
        **more,
    )
    top["00090010"] = {"vr": "LO", "Value": ["ACME"]}
    top["00091001"] = {"vr": "SH", "Value": ["held"]}
    return WorklistItem(7, 3, SPSStatus.ARRIVED, top)


def step_keys(**keys: Any) -> Attributes:
    return {SPS_SEQUENCE: {"vr": "SQ", "Value": [attributes(**keys)]}}


def answered(keys: Attributes, item: WorklistItem | None = None) -> Attributes:
    """The answer as another program reads it."""
    shape = answer_shape(keys, EXPLICIT_VR_LITTLE_ENDIAN)
    dataset = read_dataset(BytesIO(encode_answer(item or worklist_item(), shape)), False, True)
    return attributes_from_dataset(dataset)


def test_only_what_was_asked_for_is_answered() -> None:
    found = answered({**attributes(PatientName=None, PatientID="1*"), **step_keys(Modality=None)})
    assert found == {**attributes(PatientName="Doe^Jane", PatientID="100"), **step_keys(Modality="MR")}


def test_all_values_of_a_matching_key_are_answered() -> None:
    found = answered(step_keys(ScheduledStationAETitle="MR2"))
    assert found == step_keys(ScheduledStationAETitle=["MR1", "MR2"])


def test_type_rules_of_what_the_item_lacks() -> None:
    keys = {
        **attributes(
            PatientSex=None,  # type 2
            AccessionNumber=None,  # type 2
            ReferencedStudySequence=None,  # type 2, a sequence
            RequestedProcedureDescription=None,  # type 1C
            StudyDate=None,  # type 3
            IssuerOfPatientID=None,  # type 3
        ),
        "00181030": {"vr": "LO"},  # unknown to the worklist
        "00091001": {"vr": "UN"},  # private, held
        "00091002": {"vr": "UN"},  # private, not held
    }
    found = answered(keys)
    assert found == {
        **attributes(PatientSex=None, AccessionNumber=None, ReferencedStudySequence=None),
        "00090010": {"vr": "LO", "Value": ["ACME"]},
        "00091001": {"vr": "SH", "Value": ["held"]},
    }


def test_a_type_1_key_that_an_imported_item_lacks_is_answered_empty_and_not_made_up() -> None:
    bare = WorklistItem(1, 1, SPSStatus.SCHEDULED, {SPS_SEQUENCE: {"vr": "SQ", "Value": [{}]}})
    keys = {**attributes(PatientName=None), **step_keys(Modality=None)}
    assert answered(keys, bare) == keys


@pytest.mark.parametrize("key", [{"vr": "SQ"}, {"vr": "SQ", "Value": [{}]}])
def test_an_empty_step_sequence_asks_for_all_of_it(key: dict[str, Any]) -> None:
    found = answered({SPS_SEQUENCE: key})
    status = element("ScheduledProcedureStepStatus", "ARRIVED")
    assert found[SPS_SEQUENCE]["Value"] == [{**worklist_item().step, TAG["ScheduledProcedureStepStatus"]: status}]


def test_an_empty_code_sequence_asks_for_all_of_it() -> None:
    found = answered(attributes(RequestedProcedureCodeSequence={}))
    assert found == attributes(RequestedProcedureCodeSequence=[code_item("MRHEAD", "L", "MR head")])


def test_named_keys_of_a_sequence_are_those_answered() -> None:
    found = answered(attributes(RequestedProcedureCodeSequence=attributes(CodeValue=None, CodingSchemeVersion=None)))
    assert found == attributes(RequestedProcedureCodeSequence=[attributes(CodeValue="MRHEAD")])


def test_values_in_a_sequence_key_select_its_items_and_forbid_keeping_the_answer() -> None:
    code = attributes(CodeValue="NECK", CodeMeaning=None)
    keys = step_keys(ScheduledProtocolCodeSequence=code)
    found = answered(keys)
    assert found == step_keys(ScheduledProtocolCodeSequence=attributes(CodeValue="NECK", CodeMeaning="Neck"))
    assert not answer_shape(keys, IMPLICIT_VR_LITTLE_ENDIAN).cacheable


def test_without_a_step_sequence_key_there_is_none_in_the_answer() -> None:
    assert answered(attributes(PatientID="100")) == attributes(PatientID="100")


def test_step_attributes_asked_for_on_top_are_not_answered() -> None:
    assert answered(attributes(PatientID=None, Modality=None)) == attributes(PatientID="100")


def test_status_comes_from_the_item() -> None:
    found = answered(step_keys(ScheduledProcedureStepStatus=None))
    assert found == step_keys(ScheduledProcedureStepStatus="ARRIVED")


@pytest.mark.parametrize(
    ("name", "requested", "declared", "terms"),
    [
        ("Doe^Jane", ("ISO_IR 100",), (), ()),
        ("Döring^Max", (), (), ("ISO_IR 100",)),
        ("Döring^Max", UNICODE, (), UNICODE),
        ("Döring^Max", UNICODE, ("ISO_IR 100",), ("ISO_IR 100",)),
        ("Yamada^Tarou=山田^太郎", ("", "ISO 2022 IR 87"), (), ("", "ISO 2022 IR 87")),
        ("Yamada^Tarou=山田^太郎", ("ISO_IR 100",), (), ("", "ISO 2022 IR 87")),
        ("Yamada^Tarou=张^홍", ("ISO_IR 100",), (), UNICODE),
    ],
)
def test_no_letter_of_the_answer_is_lost(
    name: str, requested: tuple[str, ...], declared: tuple[str, ...], terms: tuple[str, ...]
) -> None:
    profile = Profile(character_sets=CharacterSets(declared))
    shape = answer_shape(attributes(PatientName=None), IMPLICIT_VR_LITTLE_ENDIAN, requested, profile)
    read = read_dataset_bytes(encode_answer(worklist_item(name), shape), IMPLICIT_VR_LITTLE_ENDIAN)
    assert read == (attributes(PatientName=name), terms, ())


def test_a_letter_in_a_nested_item_counts() -> None:
    item = worklist_item(IssuerOfAccessionNumberSequence=[attributes(LocalNamespaceEntityID="Größe")])
    found = answered(attributes(IssuerOfAccessionNumberSequence=None), item)
    assert text(values(found, "IssuerOfAccessionNumberSequence")[0], "LocalNamespaceEntityID") == "Größe"


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_a_request_is_read_with_its_character_set(syntax: str) -> None:
    keys = {**attributes(PatientName="山田*", RequestedProcedureCodeSequence={}), **step_keys(Modality="MR")}
    data = write_attributes(keys, syntax, ("", "ISO 2022 IR 87"))
    identifier = read_identifier(data, syntax)
    assert (identifier.keys, identifier.terms, identifier.notes) == (keys, ("", "ISO 2022 IR 87"), ())


def test_a_request_that_is_no_dataset_is_an_unusable_query() -> None:
    with pytest.raises(Refused) as refused:
        read_identifier(b"GET / HTTP/1.1\r\n\r\n", IMPLICIT_VR_LITTLE_ENDIAN)
    assert refused.value.refusals[0].kind is RefusalKind.UNUSABLE_QUERY


def test_a_request_without_keys_is_a_request() -> None:
    assert read_identifier(b"", IMPLICIT_VR_LITTLE_ENDIAN).keys == {}


def test_nothing_of_a_request_shows_in_its_representation() -> None:
    data = write_attributes(attributes(PatientName="Marked^Name"), IMPLICIT_VR_LITTLE_ENDIAN, ())
    assert "Marked" not in repr(prepare_query(data, IMPLICIT_VR_LITTLE_ENDIAN))


def test_a_prepared_query_is_all_that_the_request_asks() -> None:
    data = write_attributes({**attributes(PatientID="1"), "00181030": {"vr": "LO"}}, IMPLICIT_VR_LITTLE_ENDIAN, ())
    profile = Profile(character_sets=CharacterSets(("ISO_IR 100",)))
    prepared = prepare_query(data, IMPLICIT_VR_LITTLE_ENDIAN, profile)
    assert prepared.pending(worklist_item()) is Status.PENDING_WITH_WARNING
    assert prepared.query.narrowing().patient_id == "1"
    assert prepared.shape.character_sets.declared == ("ISO_IR 100",)
    assert prepare_query(data, IMPLICIT_VR_LITTLE_ENDIAN, profile) is prepared
    assert prepare_query(data, IMPLICIT_VR_LITTLE_ENDIAN, replace(profile)) is not prepared


def test_shapes_are_equal_where_the_answers_bytes_are() -> None:
    first = answer_shape(attributes(PatientID="1"), IMPLICIT_VR_LITTLE_ENDIAN)
    assert first == answer_shape(attributes(PatientID="2"), IMPLICIT_VR_LITTLE_ENDIAN)
    assert hash(first) == hash(answer_shape(attributes(PatientID=None), IMPLICIT_VR_LITTLE_ENDIAN))
    for other in (
        answer_shape(attributes(PatientID="1"), EXPLICIT_VR_LITTLE_ENDIAN),
        answer_shape(attributes(PatientID="1"), IMPLICIT_VR_LITTLE_ENDIAN, UNICODE),
        *(
            answer_shape(attributes(PatientID="1"), IMPLICIT_VR_LITTLE_ENDIAN, (), profile)
            for profile in (
                Profile(character_sets=CharacterSets(("ISO_IR 100",))),
                Profile(character_sets=CharacterSets(fixed=("ISO_IR 100",))),
                Profile(fill=(("PatientID", "NONE"),)),
            )
        ),
        answer_shape(attributes(PatientID="1"), IMPLICIT_VR_LITTLE_ENDIAN, rules=MatchingRules(timezone_adjusted=True)),
        answer_shape(attributes(PatientID="1", TimezoneOffsetFromUTC=None), IMPLICIT_VR_LITTLE_ENDIAN),
        answer_shape(attributes(PatientID="1", PatientSex=None), IMPLICIT_VR_LITTLE_ENDIAN),
    ):
        assert first != other


def shape_of(keyword: str) -> AnswerShape:
    return answer_shape(attributes(**{keyword: None}), IMPLICIT_VR_LITTLE_ENDIAN)


def test_encoded_answers_are_kept_by_revision() -> None:
    kept, shape = EncodedAnswers(10_000), shape_of("PatientID")
    kept.put(1, 5, shape, b"five")
    assert kept.get(1, 5, shape) == b"five"
    assert kept.get(1, 6, shape) is None
    assert kept.get(2, 5, shape) is None
    assert kept.get(1, 5, shape_of("PatientSex")) is None
    kept.put(1, 6, shape, b"six")
    assert (kept.get(1, 5, shape), kept.get(1, 6, shape), len(kept)) == (None, b"six", 1)


def test_answers_that_select_items_are_not_kept() -> None:
    kept = EncodedAnswers(10_000)
    keys = attributes(RequestedProcedureCodeSequence=attributes(CodeValue="X"))
    kept.put(1, 1, answer_shape(keys, IMPLICIT_VR_LITTLE_ENDIAN), b"x")
    assert len(kept) == 0


def test_encoded_answers_are_bounded_and_the_least_used_go_first() -> None:
    kept, shape = EncodedAnswers(3_000), shape_of("PatientID")
    for step_id in (1, 2):
        kept.put(step_id, 1, shape, b"x" * 900)
    assert kept.get(1, 1, shape)
    kept.put(3, 1, shape, b"x" * 900)
    assert kept.get(2, 1, shape) is None
    assert kept.get(1, 1, shape)
    assert kept.bytes_held <= 3_000
    kept.put(3, 2, shape, b"x" * 4_000)  # never fits: what it replaces goes, nothing else does
    assert kept.get(3, 2, shape) is None
    assert kept.get(1, 1, shape)


@settings(max_examples=300)
@given(st.lists(st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(0, 900)), max_size=30))
def test_encoded_answers_count_their_bytes(puts: list[tuple[int, int, int]]) -> None:
    kept, shape = EncodedAnswers(2_500), shape_of("PatientID")
    for step_id, revision, size in puts:
        kept.put(step_id, revision, shape, b"x" * size)
        assert kept.bytes_held <= 2_500
        assert (kept.bytes_held == 0) is (len(kept) == 0)


_KEYWORDS = sorted(
    attribute.keyword
    for attribute in BY_TAG.values()
    if attribute.tag not in (SPS_SEQUENCE, TAG["SpecificCharacterSet"])
    and attribute.vr in ("LO", "SH", "PN", "CS", "SQ")
)
_names = st.sampled_from(["Doe^Jane", "Döring^Max", "Yamada^Tarou=山田^太郎", "Иванов^Иван"])


@settings(max_examples=150, deadline=None)
@given(st.sets(st.sampled_from(_KEYWORDS), max_size=12), _names, st.sampled_from(SYNTAXES), st.booleans())
def test_another_reader_finds_the_answer_that_was_meant(
    keywords: set[str], name: str, syntax: str, whole_step: bool
) -> None:
    keys = attributes(**dict.fromkeys(keywords), PatientBirthDate=None)
    keys |= {SPS_SEQUENCE: {"vr": "SQ"}} if whole_step else {}
    item, shape = worklist_item(name, PatientComments="Größe"), answer_shape(keys, syntax)
    dataset = read_dataset(BytesIO(encode_answer(item, shape)), syntax == IMPLICIT_VR_LITTLE_ENDIAN, True)
    assert attributes_from_dataset(dataset) == answer(item, shape)


# -- what a profile bends


def prepared_for(keys: Attributes, **rules: Any) -> PreparedQuery:
    data = write_attributes(keys, IMPLICIT_VR_LITTLE_ENDIAN, ())
    return prepare_query(data, IMPLICIT_VR_LITTLE_ENDIAN, Profile(**rules))


def finds(prepared: PreparedQuery, item: WorklistItem | None = None) -> bool:
    found = item or worklist_item()
    return prepared.query.matches(found.attributes, found.status)


def test_the_value_of_an_ignored_key_excludes_nothing_and_the_key_is_answered() -> None:
    keys = {**attributes(PatientID="999"), **step_keys(ScheduledStationAETitle="CT9", Modality="MR")}
    assert not finds(prepared_for(keys))
    prepared = prepared_for(keys, ignore=("ScheduledStationAETitle", "00100020"))
    assert finds(prepared)
    assert answer(worklist_item(), prepared.shape) == {
        **attributes(PatientID="100"),
        **step_keys(ScheduledStationAETitle=["MR1", "MR2"], Modality="MR"),
    }
    assert not finds(prepared_for({**keys, **step_keys(Modality="CT")}, ignore=("ScheduledStationAETitle",)))


def test_an_ignored_key_need_not_be_a_possible_one() -> None:
    """A test tool added a comma to the date."""
    keys = step_keys(ScheduledProcedureStepStartDate="20260705,")
    with pytest.raises(Refused):
        prepared_for(keys)
    assert finds(prepared_for(keys, ignore=("ScheduledProcedureStepStartDate",)))


def test_an_ignored_sequence_selects_no_items() -> None:
    keys = attributes(RequestedProcedureCodeSequence=attributes(CodeValue="OTHER", CodeMeaning=None))
    prepared = prepared_for(keys, ignore=("RequestedProcedureCodeSequence",))
    assert finds(prepared)
    assert answer(worklist_item(), prepared.shape) == attributes(
        RequestedProcedureCodeSequence=attributes(CodeValue="MRHEAD", CodeMeaning="MR head")
    )


def test_a_forced_key_is_matched_in_place_of_the_devices_own_and_answered_as_held() -> None:
    keys = step_keys(ScheduledStationAETitle="OTHER", Modality="")
    prepared = prepared_for(keys, force=(("ScheduledStationAETitle", "MR2"),))
    assert finds(prepared)
    assert answer(worklist_item(), prepared.shape) == step_keys(ScheduledStationAETitle=["MR1", "MR2"], Modality="MR")
    assert not finds(prepared_for(keys, force=(("ScheduledStationAETitle", "CT1"),)))


@pytest.mark.parametrize("sequence", [None, {"vr": "SQ"}, {"vr": "SQ", "Value": [{}]}])
def test_a_forced_key_that_was_not_asked_for_is_matched_and_not_answered(sequence: dict[str, Any] | None) -> None:
    keys = {**attributes(PatientID="100"), **({SPS_SEQUENCE: sequence} if sequence else {})}
    forced = prepared_for(keys, force=(("Modality", "MR"), ("PatientName", "Doe*")))
    assert finds(forced)
    assert answer(worklist_item(), forced.shape) == answer(worklist_item(), prepared_for(keys).shape)
    assert not finds(prepared_for(keys, force=(("Modality", "CT"),)))
    assert not finds(prepared_for(keys, force=(("PatientName", "Roe*"),)))


def test_a_forced_key_may_have_several_values() -> None:
    keys = attributes(PatientID=None)
    assert finds(prepared_for(keys, force=(("ScheduledStationAETitle", "CT1\\MR2"),)))
    assert not finds(prepared_for(keys, force=(("ScheduledStationAETitle", "CT1\\CT2"),)))


def test_several_items_in_the_step_sequence_are_refused_with_forced_keys_too() -> None:
    keys = {SPS_SEQUENCE: {"vr": "SQ", "Value": [attributes(Modality="MR"), attributes(Modality="CT")]}}
    with pytest.raises(Refused):
        prepared_for(keys, force=(("ScheduledStationAETitle", "MR1"),))


FILL = (
    ("PatientSex", "O"),
    ("PregnancyStatus", "4"),
    ("ReferringPhysicianName", "Döring^Max"),
    ("IssuerOfPatientID", "X"),
    ("PatientID", "NONE"),
    ("ScheduledStationName", "ROOM"),
    ("ScheduledPerformingPhysicianName", "Unknown"),
    ("Modality", "OT"),
)


def test_a_fill_stands_where_a_key_was_asked_for_and_nothing_is_held() -> None:
    keys = {
        **attributes(
            PatientSex=None, PregnancyStatus=None, ReferringPhysicianName=None, IssuerOfPatientID=None, PatientID=None
        ),
        **step_keys(ScheduledStationName=None, ScheduledPerformingPhysicianName=None, Modality=None),
    }
    prepared = prepared_for(keys, fill=FILL)
    assert answer(worklist_item(), prepared.shape) == {
        **attributes(
            PatientSex="O",
            PregnancyStatus=4,
            ReferringPhysicianName="Döring^Max",
            IssuerOfPatientID="X",
            PatientID="100",
        ),
        **step_keys(ScheduledStationName="ROOM", ScheduledPerformingPhysicianName="Unknown", Modality="MR"),
    }


def test_a_fill_is_not_answered_where_the_key_was_not_asked_for() -> None:
    prepared = prepared_for({**attributes(PatientID=None), **step_keys(Modality=None)}, fill=FILL)
    assert answer(worklist_item(), prepared.shape) == {**attributes(PatientID="100"), **step_keys(Modality="MR")}


@pytest.mark.parametrize("sequence", [{"vr": "SQ"}, {"vr": "SQ", "Value": [{}]}])
def test_fills_of_the_step_stand_in_a_step_that_was_asked_for_whole(sequence: dict[str, Any]) -> None:
    prepared = prepared_for({SPS_SEQUENCE: sequence}, fill=FILL)
    (step,) = answer(worklist_item(), prepared.shape)[SPS_SEQUENCE]["Value"]
    assert [text(step, keyword) for keyword in ("ScheduledStationName", "ScheduledPerformingPhysicianName")] == [
        "ROOM",
        "Unknown",
    ]
    assert text(step, "Modality") == "MR"
    assert TAG["PatientSex"] not in step


def test_a_fill_does_not_match() -> None:
    prepared = prepared_for(attributes(PatientSex="O"), fill=FILL)
    assert not finds(prepared)


# -- identifier-level attributes


BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    ("asked", "negotiated", "zone", "held", "answered_offset"),
    [
        (None, False, BERLIN, "", "+0200"),
        ("+0100", False, BERLIN, "", "+0200"),
        (None, False, BERLIN, "-0500", "-0500"),
        (None, False, None, "-0500", "-0500"),
        (None, False, None, "", ""),
        ("absent", True, BERLIN, "", "+0200"),
        ("absent", False, BERLIN, "-0500", ""),
        (None, False, ZoneInfo("America/St_Johns"), "", "-0230"),
    ],
)
def test_the_offset_from_utc_of_an_answer(
    asked: str | None, negotiated: bool, zone: ZoneInfo | None, held: str, answered_offset: str
) -> None:
    keys = attributes(PatientID=None) | (attributes(TimezoneOffsetFromUTC=asked) if asked != "absent" else {})
    data = write_attributes(keys, IMPLICIT_VR_LITTLE_ENDIAN, ())
    rules = MatchingRules(timezone_adjusted=negotiated, zone=zone)
    shape = prepare_query(data, IMPLICIT_VR_LITTLE_ENDIAN, Profile(), rules).shape
    item = worklist_item(**({"TimezoneOffsetFromUTC": held} if held else {}))
    offset = attributes(TimezoneOffsetFromUTC=answered_offset) if answered_offset else {}
    assert answer(item, shape) == attributes(PatientID="100") | offset


def test_an_item_without_a_start_has_no_offset_and_an_answer_no_empty_one() -> None:
    bare = WorklistItem(1, 1, SPSStatus.SCHEDULED, {SPS_SEQUENCE: {"vr": "SQ", "Value": [{}]}})
    shape = answer_shape(
        attributes(TimezoneOffsetFromUTC=None), IMPLICIT_VR_LITTLE_ENDIAN, rules=MatchingRules(zone=BERLIN)
    )
    assert answer(bare, shape) == {}
    assert answer(WorklistItem(1, 1, SPSStatus.SCHEDULED, {}), shape) == {}


def test_an_answer_tells_the_offset_and_does_not_shift_the_times() -> None:
    keys = {
        **attributes(TimezoneOffsetFromUTC="+0000"),
        **step_keys(ScheduledProcedureStepStartDate=None, ScheduledProcedureStepStartTime=None),
    }
    shape = answer_shape(keys, IMPLICIT_VR_LITTLE_ENDIAN, rules=MatchingRules(timezone_adjusted=True, zone=BERLIN))
    assert (
        answer(worklist_item(), shape)[SPS_SEQUENCE]
        == step_keys(ScheduledProcedureStepStartDate="20260705", ScheduledProcedureStepStartTime="0930")[SPS_SEQUENCE]
    )


def test_references_to_structured_documents_come_with_the_documents() -> None:
    references = [attributes(ReferencedSOPInstanceUID="1.2.4")]
    item = worklist_item(
        PertinentDocumentsSequence=[attributes(ReferencedSOPInstanceUID="1.2.4")],
        HL7StructuredDocumentReferenceSequence=references,
    )
    found = answered(attributes(PertinentDocumentsSequence=None), item)
    assert values(found, "HL7StructuredDocumentReferenceSequence") == references
    assert answered(attributes(PatientID=None), item) == attributes(PatientID="100")
    assert answered(attributes(PertinentDocumentsSequence=None)) == {}


# -- what a device can show


def shown(item: WorklistItem, keys: Attributes, sets: CharacterSets) -> tuple[Attributes, tuple[str, ...]]:
    """The answer as read again, and the terms it states."""
    shape = answer_shape(keys, IMPLICIT_VR_LITTLE_ENDIAN, UNICODE, Profile(character_sets=sets))
    read = read_dataset_bytes(encode_answer(item, shape), IMPLICIT_VR_LITTLE_ENDIAN)
    return read.attributes, read.terms


LATIN_1 = ("ISO_IR 100",)


@pytest.mark.parametrize(
    ("name", "fixed", "policy", "written", "terms"),
    [
        ("Doe^Jane", LATIN_1, CannotShow.TRANSLITERATE, "Doe^Jane", LATIN_1),  # stated in every answer
        ("Döring^Max", LATIN_1, CannotShow.TRANSLITERATE, "Döring^Max", LATIN_1),
        ("Do\u0308ring^Max", LATIN_1, CannotShow.REPLACE, "Döring^Max", LATIN_1),
        ("Dvořák^Jiří", LATIN_1, CannotShow.TRANSLITERATE, "Dvorák^Jirí", LATIN_1),
        ("Dvořák^Jiří", LATIN_1, CannotShow.REPLACE, "Dvo?ák^Ji?í", LATIN_1),
        ("Dvořák^Jiří", LATIN_1, CannotShow.SWITCH, "Dvořák^Jiří", UNICODE),
        ("Yamada=山田", LATIN_1, CannotShow.TRANSLITERATE, "Yamada=ShanTian", LATIN_1),
        ("Döring^Max", ("ISO_IR 6",), CannotShow.TRANSLITERATE, "Doring^Max", ()),
        ("Yamada=山田", ("ISO 2022 IR 87",), CannotShow.REPLACE, "Yamada=山田", ("", "ISO 2022 IR 87")),
        ("Yamada=山田한", ("", "ISO 2022 IR 87"), CannotShow.REPLACE, "Yamada=山田?", ("", "ISO 2022 IR 87")),
    ],
)
def test_a_fixed_set_and_what_it_cannot_show(
    name: str, fixed: tuple[str, ...], policy: CannotShow, written: str, terms: tuple[str, ...]
) -> None:
    sets = CharacterSets(fixed=fixed, cannot_show=policy)
    assert shown(worklist_item(name), attributes(PatientName=None), sets) == (attributes(PatientName=written), terms)


def test_letters_in_nested_items_are_shown_by_the_same_rule() -> None:
    item = worklist_item(IssuerOfAccessionNumberSequence=[attributes(LocalNamespaceEntityID="Łódź")])
    sets = CharacterSets(fixed=LATIN_1, cannot_show=CannotShow.TRANSLITERATE)
    found, _ = shown(item, attributes(IssuerOfAccessionNumberSequence=None), sets)
    assert text(values(found, "IssuerOfAccessionNumberSequence")[0], "LocalNamespaceEntityID") == "Lódz"


def test_what_transliteration_makes_longer_than_its_vr_is_cut_there() -> None:
    item = worklist_item("Щ" * 30 + "=" + "山" * 3, RequestedProcedureDescription="Щ" * 60)
    sets = CharacterSets(fixed=LATIN_1, cannot_show=CannotShow.TRANSLITERATE)
    found, _ = shown(item, attributes(PatientName=None, RequestedProcedureDescription=None), sets)
    name = values(found, "PatientName")[0]
    assert name == {"Alphabetic": ("Shch" * 30)[:64], "Ideographic": "ShanShanShan"}
    assert text(found, "RequestedProcedureDescription") == ("Shch" * 60)[:64]


def test_letters_where_no_character_set_counts_are_spelt_in_ascii() -> None:
    """PS3.5 6.1.2.2: a device reads CS, AE, DA and the like in the default repertoire, whatever the set."""
    item = worklist_item(
        "Иванов^Иван", PatientSex="Ж", PatientBirthDate="\uff11\uff19\uff17\uff10\uff10\uff11\uff10\uff12"
    )
    item.step[TAG["ScheduledStationAETitle"]] = element("ScheduledStationAETitle", "МРТ-1")
    keys = {
        **attributes(PatientName=None, PatientSex=None, PatientBirthDate=None),
        **step_keys(ScheduledStationAETitle=None),
    }
    assert shown(item, keys, CharacterSets()) == (
        {
            **attributes(PatientName="Иванов^Иван", PatientSex="ZH", PatientBirthDate="19700102"),
            **step_keys(ScheduledStationAETitle="MRT-1"),
        },
        UNICODE,
    )
    only_code = {tag: key for tag, key in keys.items() if tag != TAG["PatientName"]}
    assert shown(item, only_code, CharacterSets())[1] == ()  # and ask for no set


def test_letters_of_an_address_on_the_web_are_escaped() -> None:
    item = worklist_item()
    item.attributes[TAG["RequestedProcedureCodeSequence"]]["Value"] = [
        attributes(URNCodeValue="http://example.org/Größe?a=1%20#b")
    ]
    found, _ = shown(item, attributes(RequestedProcedureCodeSequence=None), CharacterSets())
    code = values(found, "RequestedProcedureCodeSequence")[0]
    assert text(code, "URNCodeValue") == "http://example.org/Gr%C3%B6%C3%9Fe?a=1%20#b"


_policies = st.sampled_from(list(CannotShow))
_sets = st.lists(st.sampled_from(DEFINED_TERMS), max_size=3).map(tuple)
_letters = st.text(st.sampled_from("aé Ωяřüß山田やまﾔ한张ش\u0301\ue000＼"), min_size=1, max_size=8)


@settings(max_examples=300)
@given(_letters, _sets, _sets, _policies)
def test_every_answer_can_be_read_in_the_set_it_states(
    said: str, fixed: tuple[str, ...], declared: tuple[str, ...], policy: CannotShow
) -> None:
    item = worklist_item("Doe^Jane", PatientComments=f"x{said}x", IssuerOfPatientID="Größe", PatientSex=f"x{said}")
    keys = attributes(PatientComments=None, IssuerOfPatientID=None, PatientSex=None)
    sets = CharacterSets(declared=declared, fixed=fixed, cannot_show=policy)
    shape = answer_shape(keys, IMPLICIT_VR_LITTLE_ENDIAN, (), Profile(character_sets=sets))
    read = read_dataset_bytes(encode_answer(item, shape), IMPLICIT_VR_LITTLE_ENDIAN)
    assert not [note for note in read.notes if "beyond" in note]
    if not fixed or policy is CannotShow.SWITCH:
        assert text(read.attributes, "PatientComments") == composed(f"x{said}x")
    else:
        assert len(text(read.attributes, "PatientComments")) >= 2
