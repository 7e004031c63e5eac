"""C-FIND identifiers of the worklist: requests as devices send them, answers with exactly the keys asked for."""

from io import BytesIO
from typing import Any

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
from gateway.domain.refusal import RefusalKind, Refused
from gateway.domain.worklist import SPSStatus, WorklistItem
from gateway.wire.charsets import UNICODE
from gateway.wire.dicom_json import (
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    attributes_from_dataset,
    read_dataset_bytes,
    write_attributes,
)
from gateway.wire.worklist_dataset import (
    AnswerShape,
    EncodedAnswers,
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
        ("Doe^Jane", ("ISO_IR 100",), None, ()),
        ("Döring^Max", (), None, ("ISO_IR 100",)),
        ("Döring^Max", UNICODE, None, UNICODE),
        ("Döring^Max", UNICODE, ("ISO_IR 100",), ("ISO_IR 100",)),
        ("Yamada^Tarou=山田^太郎", ("", "ISO 2022 IR 87"), None, ("", "ISO 2022 IR 87")),
        ("Yamada^Tarou=山田^太郎", ("ISO_IR 100",), None, UNICODE),
    ],
)
def test_no_letter_of_the_answer_is_lost(
    name: str, requested: tuple[str, ...], declared: tuple[str, ...] | None, terms: tuple[str, ...]
) -> None:
    shape = answer_shape(attributes(PatientName=None), IMPLICIT_VR_LITTLE_ENDIAN, requested, declared)
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
    prepared = prepare_query(data, IMPLICIT_VR_LITTLE_ENDIAN, ("ISO_IR 100",))
    assert not prepared.supported
    assert prepared.query.narrowing().patient_id == "1"
    assert prepared.shape.declared_terms == ("ISO_IR 100",)
    assert prepare_query(data, IMPLICIT_VR_LITTLE_ENDIAN, ("ISO_IR 100",)) is prepared


def test_shapes_are_equal_where_the_answers_bytes_are() -> None:
    first = answer_shape(attributes(PatientID="1"), IMPLICIT_VR_LITTLE_ENDIAN)
    assert first == answer_shape(attributes(PatientID="2"), IMPLICIT_VR_LITTLE_ENDIAN)
    assert hash(first) == hash(answer_shape(attributes(PatientID=None), IMPLICIT_VR_LITTLE_ENDIAN))
    for other in (
        answer_shape(attributes(PatientID="1"), EXPLICIT_VR_LITTLE_ENDIAN),
        answer_shape(attributes(PatientID="1"), IMPLICIT_VR_LITTLE_ENDIAN, UNICODE),
        answer_shape(attributes(PatientID="1"), IMPLICIT_VR_LITTLE_ENDIAN, (), ["ISO_IR 100"]),
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
