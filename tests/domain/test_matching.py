"""Worklist matching: the vectors of the worklist digest, each kind of matching, and narrowing that hides nothing."""

import base64
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matching_items import ITEMS, attributes, start, within_step

from gateway.domain.attributes import (
    ATTRIBUTES,
    SPS_SEQUENCE,
    TAG,
    Attributes,
    Element,
    Level,
    Matching,
    MatchKind,
    element,
    matching_kinds,
    text,
    values,
)
from gateway.domain.keys import unsupported_keys
from gateway.domain.matching import LITERAL, MatchingRules, Narrowing, Query, compile_query, item_matcher
from gateway.domain.mismatch import Mismatch
from gateway.domain.names import name_index
from gateway.domain.refusal import RefusalKind, Refused
from gateway.domain.worklist import LISTED, SPSStatus, start_of


def found(keys: Attributes, rules: MatchingRules = LITERAL) -> set[str]:
    query = compile_query(keys, rules)
    return {name for name, held in ITEMS.items() if query.matches(held)}


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        pytest.param(
            within_step(start(None, None, Modality=None), PatientName=None, PatientID=None), "S1 S2 S3 S4", id="1 empty"
        ),
        pytest.param(within_step(attributes(ScheduledStationAETitle="MR2")), "S3", id="2 any station"),
        pytest.param(within_step(attributes(ScheduledStationAETitle="ct1")), "", id="3 case of the station"),
        pytest.param(within_step(start("20260705-20260706", "1000-0800")), "S2 S3", id="4 one interval"),
        pytest.param(within_step(start("20260705", "1000-1900")), "S2", id="5 one day, between times"),
        pytest.param(attributes(PatientName="doe*"), "S1 S4", id="6 case of the name"),
        pytest.param(attributes(PatientName="*山田*"), "S3", id="7 ideographic group"),
        pytest.param(within_step(attributes(ScheduledPerformingPhysicianName="*")), "S1 S2 S3 S4", id="8 lone star"),
        pytest.param(within_step(attributes(ScheduledPerformingPhysicianName="A*")), "", id="9 unknown fails"),
        pytest.param(attributes(AccessionNumber="A1", PatientID="100"), "S1", id="10 accession and patient"),
        pytest.param({SPS_SEQUENCE: {"vr": "SQ"}}, "S1 S2 S3 S4", id="11 step sequence empty"),
        pytest.param(attributes(PatientID="103"), "S4", id="12 no step sequence"),
        pytest.param(
            {**within_step(attributes(Modality="CT")), "00181030": {"vr": "LO", "Value": ["x"]}}, "S1 S2",
            id="14 unsupported key ignored",
        ),
    ],
)  # fmt: skip
def test_vectors_of_the_digest(keys: Attributes, expected: str) -> None:
    assert found(keys) == set(expected.split())


def test_vector_13_a_step_sequence_of_two_items_is_refused() -> None:
    keys = {SPS_SEQUENCE: {"vr": "SQ", "Value": [attributes(Modality="CT"), attributes(Modality="MR")]}}
    with pytest.raises(Refused) as refused:
        compile_query(keys)
    assert refused.value.refusals[0].kind is RefusalKind.UNUSABLE_QUERY
    assert refused.value.refusals[0].where == "(0040,0100)"


@pytest.mark.parametrize(
    ("date", "time", "expected"),
    [
        ("20260705-", None, "S1 S2 S3 S4"),
        ("20260706-", None, "S3 S4"),
        ("-20260705", None, "S1 S2"),
        ("-20260706", "-0659", "S1 S2"),
        ("20260705-", "1000-", "S2 S3 S4"),
        ("20260705-20260708", "0800", "S4"),
        ("20260705-20260708", "-0800", "S3 S4"),
        ("20260705-", "-0800", "S3 S4"),
        ("20260705-20260708", "0800-", "S1 S2 S4"),
        ("20260705", "093000", "S1"),
        ("20260705", "0930", "S1"),
        ("20260705", "09", "S1"),
        ("20260705", "093000.000000", "S1"),
        ("20260705", "093001", ""),
        ("2026.07.05", None, "S1 S2"),
        ("2026.07.05 - 2026.07.06", None, "S1 S2 S3"),
        (None, "0700-0930", "S1 S3 S4"),
        (None, "07:00-09:29", "S3 S4"),
        ("*", "*", "S1 S2 S3 S4"),
        ("20260705-20260705", "1830-1830", "S2"),
    ],
)
def test_start_by_meaning(date: str | None, time: str | None, expected: str) -> None:
    assert found(within_step(start(date, time))) == set(expected.split())


@pytest.mark.parametrize("held", ["180059", "1800", "18", "180059.999999"])
def test_an_upper_bound_takes_the_whole_of_its_precision(held: str) -> None:
    keys = within_step(start("20260701-20260705", "0000-1800"))
    assert compile_query(keys).matches(within_step(start("20260705", held)))


def test_a_leap_second_belongs_to_its_minute() -> None:
    held = within_step(start("20261231", "235960"))
    assert compile_query(within_step(start("20261231", "2359"))).matches(held)
    assert compile_query(within_step(start("20261231", "235960"))).matches(held)


@pytest.mark.parametrize(
    ("keys", "where"),
    [
        (within_step(start("20260705,", None)), "(0040,0100)[0]/(0040,0002)"),
        (within_step(start("20261399", None)), "(0040,0100)[0]/(0040,0002)"),
        (within_step(start("20260705-20260706-20260707", None)), "(0040,0100)[0]/(0040,0002)"),
        (within_step(start("20260706-20260705", None)), "(0040,0100)[0]/(0040,0002)"),
        (within_step(start("-", None)), "(0040,0100)[0]/(0040,0002)"),
        (within_step(start("2026070?", None)), "(0040,0100)[0]/(0040,0002)"),
        (within_step(start("today", None)), "(0040,0100)[0]/(0040,0002)"),
        (within_step(start("20260705", "2530")), "(0040,0100)[0]/(0040,0003)"),
        (within_step(start("20260705", "1800-0600")), "(0040,0100)[0]/(0040,0003)"),
        (within_step(start("20260705-20260705", "1800-0600")), "(0040,0100)[0]/(0040,0003)"),
        (within_step(start(None, "9:5")), "(0040,0100)[0]/(0040,0003)"),
        (attributes(PatientBirthDate="1.1.1970"), "(0010,0030)"),
        ({TAG["PatientBirthDate"]: {"vr": "DA", "Value": ["19700101", "19710101"]}}, "(0010,0030)"),
        ({TAG["RequestedProcedureCodeSequence"]: {"vr": "LO", "Value": ["x"]}}, "(0032,1064)"),
        ({TAG["RequestedProcedureCodeSequence"]: {"vr": "SQ", "Value": [{}, {}]}}, "(0032,1064)"),
    ],
)
def test_a_key_that_cannot_be_one_is_refused_with_its_place(keys: Attributes, where: str) -> None:
    with pytest.raises(Refused) as refused:
        compile_query(keys)
    assert [(each.kind, each.where) for each in refused.value.refusals] == [(RefusalKind.UNUSABLE_QUERY, where)]


def test_all_problems_are_reported_at_once() -> None:
    with pytest.raises(Refused) as refused:
        compile_query(within_step(start("x", "y"), PatientBirthDate="z"))
    assert len(refused.value.refusals) == 3


@pytest.mark.parametrize(
    ("keys", "held", "expected"),
    [
        (attributes(PatientID="100 "), attributes(PatientID="100"), True),
        (attributes(PatientID="10?"), attributes(PatientID="100"), True),
        (attributes(PatientID="* "), {}, True),
        (attributes(PatientID="a1"), attributes(PatientID="A1"), False),
        (attributes(PatientID="1.0"), attributes(PatientID="1x0"), False),
        (attributes(MedicalAlerts="LATEX"), attributes(MedicalAlerts=["NUTS", "LATEX"]), True),
        (attributes(StudyInstanceUID=["1.2", "1.3"]), attributes(StudyInstanceUID="1.3"), True),
        (attributes(StudyInstanceUID="1.*"), attributes(StudyInstanceUID="1.3"), False),
        (attributes(PatientWeight="70.5"), attributes(PatientWeight="70.50"), True),
        (attributes(PatientWeight="70.5"), attributes(PatientWeight=70.5), True),
        (attributes(PregnancyStatus=4), attributes(PregnancyStatus=4), True),
        (attributes(PregnancyStatus=4), attributes(PregnancyStatus=1), False),
        (attributes(PatientSex="F"), attributes(PatientSex=None), False),
        (attributes(PatientSex="F"), {}, False),
        (attributes(PatientComments="*a*b*"), attributes(PatientComments="xx\nayyb"), True),
        (attributes(PertinentDocumentsSequence={TAG["CodeValue"]: element("CodeValue", "x")}), {}, True),
        ({TAG["SpecificCharacterSet"]: {"vr": "CS", "Value": ["ISO_IR 100"]}}, {}, True),
    ],
)
def test_single_value_and_wild_card(keys: Attributes, held: Attributes, expected: bool) -> None:
    assert compile_query(keys).matches(held) is expected


def test_a_key_of_many_stars_takes_no_time() -> None:
    keys = attributes(PatientComments="*a" * 200 + "*b")
    assert not compile_query(keys).matches(attributes(PatientComments="a" * 10_000))


def code(value: str, scheme: str) -> Attributes:
    return attributes(CodeValue=value, CodingSchemeDesignator=scheme)


def test_keys_of_a_sequence_are_met_by_one_item() -> None:
    held = attributes(RequestedProcedureCodeSequence=[code("A", "L1"), code("B", "L2")])
    assert compile_query(attributes(RequestedProcedureCodeSequence=code("B", "L2"))).matches(held)
    assert not compile_query(attributes(RequestedProcedureCodeSequence=code("A", "L2"))).matches(held)


def test_an_empty_item_asks_for_nothing() -> None:
    keys = attributes(ReferencedStudySequence={}, RequestedProcedureCodeSequence=attributes(CodeValue=None))
    assert compile_query(keys).matches({})


def private(block: str, creator: str | None, **held: Any) -> Attributes:
    """Group 0009: the creator of a block, and elements of it by their last byte (`_01="X"`), a list being items."""
    made: Attributes = {f"000900{block}": {"vr": "LO", "Value": [creator]}} if creator else {}
    for name, value in held.items():
        vr = "SQ" if isinstance(value, list) else "LO"
        made[f"0009{block}{name[1:]}"] = {"vr": vr, "Value": value if isinstance(value, list) else [value]}
    return made


PRIVATE = private("10", "ACME", _01="X")


@pytest.mark.parametrize(
    ("held", "expected"),
    [
        pytest.param(private("10", "ACME", _01="X"), True, id="same block"),
        pytest.param(private("10", "ACME", _01="Y"), False, id="same block, other value"),
        pytest.param(private("42", "ACME ", _01="X"), True, id="other block"),
        pytest.param(private("42", "ACME", _01="Y"), False, id="other block, other value"),
        pytest.param(private("10", "OTHER", _01="Y"), True, id="another's element"),
        pytest.param(private("10", "OTHER", _01="Y") | private("11", "ACME", _01="X"), True, id="both, block moved"),
        pytest.param(private("10", "OTHER", _01="X") | private("11", "ACME", _01="Y"), False, id="both, other value"),
        pytest.param(private("10", None, _01="Y"), True, id="nobody's element"),
        pytest.param(private("10", "ACME", _02="Y"), True, id="another element"),
        pytest.param(private("10", "ACME", _01=""), False, id="held without a value"),
        pytest.param({}, True, id="not held"),
    ],
)
def test_private_keys_count_where_an_item_holds_the_attribute_of_that_creator(held: Attributes, expected: bool) -> None:
    assert compile_query(PRIVATE).matches(held) is expected
    assert (not compile_query(PRIVATE).explain(held)) is expected
    step, step_query = within_step(held), compile_query(within_step(PRIVATE))
    assert step_query.matches(step) is expected
    nested_query = compile_query(private("10", "ACME", _05=[PRIVATE]))
    assert nested_query.matches(private("77", "ACME", _05=[held])) is expected


def test_a_private_key_of_unknown_vr_is_compared_as_the_text_it_most_often_is() -> None:
    keys = private("10", "ACME") | {
        "00091001": {"vr": "UN", "InlineBinary": base64.b64encode("Döring".encode()).decode()}
    }
    query = compile_query(keys | private("10", "ACME"))
    assert query.matches(private("11", "ACME", _01="Döring"))
    assert not query.matches(private("11", "ACME", _01="Doring"))


def test_a_private_key_without_creator_means_the_same_tag() -> None:
    query = compile_query(private("10", None, _01="X"))
    assert query.matches(private("10", "ACME", _01="X"))
    assert not query.matches(private("10", "ACME", _01="Y"))


def test_step_attributes_on_top_are_no_worklist_keys() -> None:
    keys = attributes(Modality="XA", ScheduledStationAETitle=None)
    assert found(keys) == set(ITEMS)
    assert compile_query(keys).matches(attributes(Modality="CT"))
    assert [key.place for key in unsupported_keys(keys)] == ["(0008,0060)", "(0040,0001)"]
    assert compile_query(keys).notes == (
        "(0008,0060) Modality is a key inside the Scheduled Procedure Step Sequence, and ignored where it is",
    )
    assert compile_query(within_step(attributes(PatientID="9"))).notes


def test_support_is_by_the_table_and_the_place() -> None:
    assert not unsupported_keys(
        within_step(start("20260705", None), PatientName="x", RequestedProcedureCodeSequence=code("A", "L"))
    )
    assert not unsupported_keys({"00090010": {"vr": "LO", "Value": ["ACME"]}, "00080000": {"vr": "UL", "Value": [9]}})
    assert not unsupported_keys({TAG[keyword]: {"vr": "SH"} for keyword in ("SpecificCharacterSet", "PatientID")})
    assert [key.tag for key in unsupported_keys(PRIVATE)] == ["00091001"]
    assert [key.tag for key in unsupported_keys({"00181030": {"vr": "LO"}})] == ["00181030"]
    assert [key.place for key in unsupported_keys(within_step(attributes(PatientID="1")))] == [
        "(0040,0100)[0]/(0010,0020)"
    ]


@pytest.mark.parametrize("wrap", [lambda held: held, within_step])
def test_an_item_that_holds_an_unsupported_attribute_is_known(wrap: Any) -> None:
    (key,) = unsupported_keys(wrap(PRIVATE))
    assert key.held_by(wrap(private("33", "ACME", _01="Z")))
    assert not key.held_by(wrap(private("10", "OTHER", _01="Z")))
    assert not key.held_by(wrap({}))
    assert not key.held_by({})


@pytest.mark.parametrize("attribute", [row for row in ATTRIBUTES if row.level is not Level.IDENTIFIER])
def test_every_key_of_the_table_is_compared_as_it_says(attribute: Any) -> None:
    """A key with a value is met by that value and by no other, unless the table says that it excludes nothing."""
    asked, other = {
        "SQ": ([attributes(CodeValue="A")], [attributes(CodeValue="B")]),
        "DA": (["20260705"], ["20260706"]), "TM": (["0930"], ["0931"]), "DT": (["20260705"], ["20260706"]),
        "PN": ([{"Alphabetic": "Doe"}], [{"Alphabetic": "Roe"}]), "UI": (["1.2"], ["1.3"]), "US": ([1], [2]),
        "DS": (["1"], ["2"]),
    }.get(attribute.vr, (["A"], ["B"]))  # fmt: skip

    def placed(of: list[Any]) -> Attributes:
        held: Attributes = {attribute.tag: {"vr": attribute.vr, "Value": of}}
        if attribute.tag == SPS_SEQUENCE:
            return within_step(attributes(Modality="CT" if of is asked else "MR"))
        if attribute.level is Level.STEP:
            return within_step(held)
        return attributes(PatientPrimaryLanguageCodeSequence=held) if attribute.level is Level.NESTED else held

    query = compile_query(placed(asked))
    kinds = matching_kinds(attribute)
    assert query.matches(placed(asked))
    assert query.matches(placed(other)) is (kinds in ((MatchKind.NONE,), (MatchKind.UNIVERSAL,)))
    assert attribute.is_matched is not query.matches(placed(other))
    assert not unsupported_keys(placed(asked))
    if MatchKind.WILD_CARD in kinds:
        wild = [{"Alphabetic": "D*"}] if attribute.vr == "PN" else ["A*"]
        assert compile_query(placed(wild)).matches(placed(asked))
        assert not compile_query(placed(wild)).matches(placed(other))
    if MatchKind.RANGE in kinds:
        span = {"DA": "20260705-20260705", "TM": "0930-0930", "DT": "20260705-20260705"}[attribute.vr]
        assert compile_query(placed([span])).matches(placed(asked))
        assert not compile_query(placed([span])).matches(placed(other))
    if MatchKind.UID_LIST in kinds:
        assert compile_query(placed(["9.9", *asked])).matches(placed(asked))


def test_required_keys_are_those_of_the_two_standards() -> None:
    assert {row.keyword for row in ATTRIBUTES if row.matching is Matching.REQUIRED} == {
        "ScheduledProcedureStepSequence", "ScheduledStationAETitle", "ScheduledProcedureStepStartDate",
        "ScheduledProcedureStepStartTime", "Modality", "ScheduledPerformingPhysicianName", "PatientName", "PatientID",
        "AccessionNumber", "RequestedProcedureID",
    }  # fmt: skip


def test_identifier_attributes_are_never_matched() -> None:
    for keyword in ("SpecificCharacterSet", "TimezoneOffsetFromUTC"):
        said = {TAG[keyword]: {"vr": "SH", "Value": ["+0200"]}}
        other = {TAG[keyword]: {"vr": "SH", "Value": ["+0900"]}}
        assert compile_query(said).matches(other)
        assert compile_query(within_step(said)).matches(within_step(other))


def test_status_is_asked_of_the_step_itself() -> None:
    query = compile_query(within_step(attributes(ScheduledProcedureStepStatus="STARTED", Modality="CT")))
    assert query.matches(ITEMS["S1"], SPSStatus.STARTED)
    assert not query.matches(ITEMS["S1"], SPSStatus.SCHEDULED)
    assert not query.matches(ITEMS["S1"])
    assert query.narrowing().statuses == {SPSStatus.STARTED}
    assert query.explain(ITEMS["S1"], SPSStatus.READY)


def test_explanation_names_every_failed_key() -> None:
    query = compile_query(
        within_step(
            start("20260706-20260707", "0000-2359", ScheduledStationAETitle="CT9"), PatientID="1", PatientName="Doe"
        )
    )
    reasons = query.explain(ITEMS["S1"])
    assert len(reasons) == 3
    assert any(
        "(0040,0100)[0]/(0040,0001) ScheduledStationAETitle: asked for 'CT9', the item has 'CT1'" in r for r in reasons
    )
    assert any("asked for '1', the item has '100'" in reason for reason in reasons)
    assert compile_query({}).explain(ITEMS["S1"]) == ()


PADDED = {TAG["PatientID"]: {"vr": "LO", "Value": ["0100 "]}}


@pytest.mark.parametrize(
    ("keys", "rules", "of", "expected"),
    [
        (within_step(attributes(ScheduledStationAETitle="ct1")), LITERAL, "S1", "only the case differs"),
        (PADDED, LITERAL, "S1", "only leading zeros differ"),
        (attributes(PatientID="1-00"), LITERAL, "S1", "only blanks or punctuation differ"),
        (attributes(PatientID="1 00"), LITERAL, "S1", "only blanks or punctuation differ"),
        (attributes(AccessionNumber="a?"), LITERAL, "S1", "wild cards; the case counts"),
        (attributes(AccessionNumber="A?1"), LITERAL, "S1", "wild cards; the case counts"),
        (attributes(AccessionNumber="A1"), LITERAL, "S4", "only an empty key matches"),
        (attributes(PatientName="Jane^Doe"), LITERAL, "S1", "the other way round"),
        (attributes(PatientName="Doe Jane"), LITERAL, "S1", "not parted by ^"),
        (attributes(PatientName="Roe"), LITERAL, "S1", "component by component"),
        (attributes(PatientName="Doe"), MatchingRules(whole_names=True), "S1", "asks for whole names"),
        (attributes(PatientName="Smith"), MatchingRules(fuzzy_names=True), "S1", "nearly alike"),
        (within_step(start("20260706", None)), LITERAL, "S1", "earlier than what was asked for"),
        (within_step(start("20260701-20260704", None)), LITERAL, "S1", "later than the range, which includes both"),
        (
            within_step(start("20260705-20260706", "1000-0800")),
            LITERAL,
            "S1",
            "date and time are one; the item is earl",
        ),
        (attributes(AccessionNumber='""'), MatchingRules(empty_values=True), "S1", "asks for items without a value"),
        (
            within_step(start("20260705", "0700-0800"), TimezoneOffsetFromUTC="+0000"),
            MatchingRules(zone=ZoneInfo("Europe/Paris")),
            "S2",
            "on the clock of the query, which is at +0000; here it is 20260705 1830",
        ),
    ],
)
def test_an_explanation_hints_at_what_to_look_for(
    keys: Attributes, rules: MatchingRules, of: str, expected: str
) -> None:
    (mismatch,) = compile_query(keys, rules).mismatches(ITEMS[of])
    assert isinstance(mismatch, Mismatch)
    assert expected in mismatch.hint
    assert str(mismatch).endswith(f"({mismatch.hint})")


def test_an_explanation_says_the_key_as_the_device_sent_it() -> None:
    (mismatch,) = compile_query(PADDED).mismatches(ITEMS["S1"])
    assert (mismatch.place, mismatch.keyword, mismatch.asked, mismatch.held) == (
        "(0010,0020)", "PatientID", "0100 ", "100",
    )  # fmt: skip


def test_an_explanation_of_a_sequence_names_the_keys_that_no_item_meets_together() -> None:
    held = attributes(RequestedProcedureCodeSequence=[code("A", "L1"), code("B", "L2")])
    (reason,) = compile_query(attributes(RequestedProcedureCodeSequence=code("A", "L2"))).explain(held)
    assert "CodeValue 'A', CodingSchemeDesignator 'L2'" in reason
    assert "2 items" in reason


def test_items_of_a_sequence_are_selected_by_value() -> None:
    selects = item_matcher(code("B", "L2"))
    assert selects is not None
    assert [selects(code("A", "L2")), selects(code("B", "L2"))] == [False, True]
    assert item_matcher(attributes(CodeValue=None)) is None


# --- empty values (PS3.4 C.2.2.2.7)

EMPTY = MatchingRules(empty_values=True)


@pytest.mark.parametrize(
    ("keys", "held", "expected"),
    [
        (attributes(AccessionNumber='""'), {}, True),
        (attributes(AccessionNumber='""'), attributes(AccessionNumber=None), True),
        (attributes(AccessionNumber='""'), attributes(AccessionNumber=" "), True),
        (attributes(AccessionNumber='""'), attributes(AccessionNumber="A1"), False),
        (attributes(AccessionNumber='""'), attributes(AccessionNumber='""'), False),
        (attributes(AccessionNumber=['""', "A1"]), attributes(AccessionNumber="A1"), True),
        (attributes(AccessionNumber=['""', "A1"]), attributes(AccessionNumber="A2"), False),
        (attributes(PatientName='""'), {}, True),
        (attributes(PatientName='""'), attributes(PatientName="Doe"), False),
        (attributes(PatientBirthDate='""'), attributes(PatientBirthDate=None), True),
        (attributes(PatientBirthDate='""'), attributes(PatientBirthDate="19700101"), False),
        (attributes(MedicalAlerts='""'), attributes(MedicalAlerts=["", "LATEX"]), False),
        (within_step(attributes(ScheduledStationAETitle='""')), within_step(attributes(Modality="CT")), True),
        (within_step(attributes(ScheduledStationAETitle='""')), ITEMS["S1"], False),
        (within_step(start('""', "1000-1200")), within_step(start(None, "1100")), True),
        (within_step(start('""', "1000-1200")), within_step(start("20260705", "1100")), False),
        (attributes(RequestedProcedureCodeSequence=attributes(CodeValue='""')), {}, True),
        (
            attributes(RequestedProcedureCodeSequence=attributes(CodeValue='""')),
            attributes(RequestedProcedureCodeSequence=attributes(CodeMeaning="Head")),
            True,
        ),
        (
            attributes(RequestedProcedureCodeSequence=attributes(CodeValue='""')),
            attributes(RequestedProcedureCodeSequence=attributes(CodeValue="A")),
            False,
        ),
        (attributes(RequestedProcedureCodeSequence=attributes(CodeValue='""', CodeMeaning="Head")), {}, False),
    ],
)
def test_two_quotation_marks_ask_for_items_without_a_value(keys: Attributes, held: Attributes, expected: bool) -> None:
    assert compile_query(keys, EMPTY).matches(held) is expected


def test_two_quotation_marks_are_a_text_like_any_other_where_the_switch_is_off() -> None:
    query = compile_query(attributes(AccessionNumber='""'))
    assert query.matches(attributes(AccessionNumber='""'))
    assert not query.matches({})
    with pytest.raises(Refused):
        compile_query(attributes(PatientBirthDate='""'))


# --- whole names


@pytest.mark.parametrize(
    ("asked", "expected"),
    [("Doe", False), ("Doe*", True), ("Doe^Jane", True), ("Doe^*", True), ("?oe", False), ("*Jane", True)],
)
@pytest.mark.parametrize("fuzzy", [False, True])
def test_whole_names_have_no_component_that_the_key_leaves_out(asked: str, expected: bool, fuzzy: bool) -> None:
    rules = MatchingRules(whole_names=True, fuzzy_names=fuzzy)
    assert compile_query(attributes(PatientName=asked), rules).matches(ITEMS["S1"]) is expected
    assert compile_query(attributes(PatientName="Doe"), rules).matches(attributes(PatientName="Doe^^^"))


# --- fuzzy names: the rule itself is tested with the names


def test_fuzzy_matching_is_for_every_person_name_and_nothing_else() -> None:
    fuzzy = MatchingRules(fuzzy_names=True)
    assert found(attributes(PatientName="Doering"), fuzzy) == {"S2"}
    assert found(attributes(PatientName="Doering")) == set()
    held = attributes(ReferringPhysicianName="Schmidt^Anna", PatientID="Schmidt")
    assert compile_query(attributes(ReferringPhysicianName="Schmitt"), fuzzy).matches(held)
    assert not compile_query(attributes(PatientID="Schmitt"), fuzzy).matches(held)


# --- offsets from UTC

BERLIN = ZoneInfo("Europe/Berlin")
ZONED = MatchingRules(zone=BERLIN)


@pytest.mark.parametrize(
    ("offset", "date", "time", "held", "expected"),
    [
        pytest.param("+0000", "20260705", "0700-0800", ("20260705", "0930"), True, id="two hours earlier in UTC"),
        pytest.param("+0000", "20260705", "0900-1000", ("20260705", "0930"), False, id="not by the wall"),
        pytest.param("+0200", "20260705", "0930", ("20260705", "0930"), True, id="the same clock"),
        pytest.param("+0000", "20260704", "2330", ("20260705", "0130"), True, id="midnight passes: the day before"),
        pytest.param("+0000", "20260705", "2330", ("20260705", "0130"), False, id="not the day after"),
        pytest.param("+0900", "20260706", "0130", ("20260705", "1830"), True, id="midnight passes: the day after"),
        pytest.param("+0000", "20260704-20260705", "2300-0100", ("20260705", "0130"), True, id="one interval, moved"),
        pytest.param("+0000", "20260704-20260705", "2300-0100", ("20260705", "0330"), False, id="behind it"),
        pytest.param("+0000", "20260704-", "2330-", ("20260705", "0130"), True, id="open end"),
        pytest.param("+0000", "-20260704", "-2330", ("20260705", "0130"), True, id="open start"),
        pytest.param("+0000", None, "2330", ("20260705", "0130"), True, id="a time without a date"),
        pytest.param("+0000", "20260705", None, ("20260705", "0130"), True, id="a date alone is the department's"),
        pytest.param("+0000", "20260704", None, ("20260705", "0130"), False, id="and never moved"),
        pytest.param("+0000", "20260704", "*", ("20260705", "0130"), False, id="a lone star is no time"),
        pytest.param("+0000", "20260105", "0830", ("20260105", "0930"), True, id="one hour in winter"),
        pytest.param("-0330", "20260705", "040000", ("20260705", "0930"), True, id="half hours"),
        pytest.param("+0000", "20260329", "0130", ("20260329", "0230"), True, id="left out in spring: as before it"),
        pytest.param("+0000", "20261025", "0030", ("20261025", "0230"), True, id="twice in autumn: the first"),
        pytest.param("+0000", "20261025", "0130", ("20261025", "0230"), False, id="twice in autumn: not the second"),
        pytest.param("+0000", "20261231", "225960", ("20261231", "235960"), True, id="a leap second stays one"),
        pytest.param("+0000", "99991231", "235959", ("99991231", "235959"), False, id="the end of the calendar"),
    ],
)  # fmt: skip
def test_a_start_time_is_on_the_clock_of_the_querys_offset(
    offset: str, date: str | None, time: str | None, held: tuple[str, str], expected: bool
) -> None:
    keys = within_step(start(date, time), TimezoneOffsetFromUTC=offset)
    for adjusted in (False, True):
        query = compile_query(keys, MatchingRules(timezone_adjusted=adjusted, zone=BERLIN))
        assert query.matches(within_step(start(*held))) is expected
        assert query.notes == ()


def test_an_items_own_offset_goes_before_the_departments_zone() -> None:
    keys = within_step(start("20260705", "0930"), TimezoneOffsetFromUTC="+0000")
    item_in_utc = within_step(start("20260705", "0930"), TimezoneOffsetFromUTC="+0000")
    assert compile_query(keys, ZONED).matches(item_in_utc)
    assert not compile_query(keys, ZONED).matches(within_step(start("20260705", "0930")))
    broken = within_step(start("20260705", "1130"), TimezoneOffsetFromUTC="noon")
    assert compile_query(keys, ZONED).matches(broken)


def test_times_stay_where_nobody_knows_the_departments_zone() -> None:
    keys = within_step(start("20260705", "0930"), TimezoneOffsetFromUTC="+0000")
    assert compile_query(keys).matches(ITEMS["S1"])


@pytest.mark.parametrize("said", ["-0000", "+1430", "-1230", "0200", "+02", "+0260", "Z", "+02:00", "+٠٢٠٠"])
def test_an_impossible_offset_is_ignored_and_noted_without_its_value(said: str) -> None:
    query = compile_query(within_step(start("20260705", "0930"), TimezoneOffsetFromUTC=said), ZONED)
    assert query.matches(ITEMS["S1"])
    assert len(query.notes) == 1
    assert said not in query.notes[0]


@pytest.mark.parametrize("said", [None, ""])
def test_an_empty_offset_is_a_return_key(said: str | None) -> None:
    query = compile_query(within_step(start("20260705", "0930"), TimezoneOffsetFromUTC=said), ZONED)
    assert query.matches(ITEMS["S1"])
    assert query.notes == ()


_offsets = st.integers(-12 * 4, 14 * 4).map(lambda quarters: quarters * 15)


@settings(max_examples=300, deadline=None)
@given(
    st.datetimes(datetime(2026, 1, 2), datetime(2026, 12, 30)),
    st.timedeltas(timedelta(days=-1), timedelta(days=2)),
    _offsets,
    st.none() | _offsets,
    st.timedeltas(timedelta(), timedelta(days=2)),
)
def test_an_interval_with_an_offset_is_compared_in_utc(
    held: datetime, before: timedelta, asked: int, own: int | None, length: timedelta
) -> None:
    held = held.replace(microsecond=0)
    first = (held - before).replace(microsecond=0)
    last = (first + length).replace(microsecond=0)
    zone: tzinfo = BERLIN if own is None else timezone(timedelta(minutes=own))
    there = timezone(timedelta(minutes=asked))
    dates, times = f"{first:%Y%m%d}-{last:%Y%m%d}", f"{first:%H%M%S}-{last:%H%M%S}"
    keys = within_step(start(dates, times), TimezoneOffsetFromUTC=_offset_text(asked))
    said = {} if own is None else {"TimezoneOffsetFromUTC": _offset_text(own)}
    item_held = within_step(start(f"{held:%Y%m%d}", f"{held:%H%M%S}"), **said)
    query = compile_query(keys, ZONED)
    moment = held.replace(tzinfo=zone).astimezone(UTC)
    expected = first.replace(tzinfo=there) <= moment < last.replace(tzinfo=there) + timedelta(seconds=1)
    assert query.matches(item_held) is expected
    assert not expected or admits(query.narrowing(), item_held, SPSStatus.SCHEDULED)


def _offset_text(minutes: int) -> str:
    return f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}{abs(minutes) % 60:02}"


# --- keys as devices send them


@pytest.mark.parametrize(
    ("keys", "held", "expected"),
    [
        pytest.param({"00100000": {"vr": "UL", "Value": [12]}}, {}, True, id="group length"),
        pytest.param({"00091000": {"vr": "LO"}}, {}, True, id="zero length"),
        pytest.param({TAG["PatientID"]: {"vr": "LO", "Value": [None]}}, {}, True, id="null"),
        pytest.param({TAG["PatientName"]: {"vr": "PN", "Value": [{"Alphabetic": "* "}]}}, {}, True, id="padded star"),
        pytest.param({TAG["PatientBirthDate"]: {"vr": "DA", "Value": ["* "]}}, {}, True, id="star for a date"),
        pytest.param({TAG["PregnancyStatus"]: {"vr": "US", "Value": []}}, {}, True, id="empty number"),
        pytest.param({TAG["StudyInstanceUID"]: {"vr": "UI", "Value": ["**"]}}, {}, True, id="stars for a UID"),
        pytest.param({TAG["PatientID"]: {"vr": "LO", "Value": [" 100\0"]}}, ITEMS["S1"], True, id="padded"),
        pytest.param({TAG["PatientID"]: {"vr": "LO", "Value": ["7", "100"]}}, ITEMS["S1"], True, id="several values"),
        pytest.param({TAG["PatientComments"]: {"vr": "LT", "Value": [" x"]}}, attributes(PatientComments="x"), False,
                     id="leading blanks count in a text"),
        pytest.param({TAG["PatientComments"]: {"vr": "LT", "Value": ["x "]}}, attributes(PatientComments="x"), True,
                     id="trailing ones do not"),
        pytest.param({TAG["PatientWeight"]: {"vr": "DS", "Value": ["7*"]}}, attributes(PatientWeight="70"), False,
                     id="no wild card in a number"),
    ],
)  # fmt: skip
def test_odd_keys_mean_what_they_can(keys: Attributes, held: Attributes, expected: bool) -> None:
    assert compile_query(keys).matches(held) is expected


def unknown(data: bytes) -> Element:
    return {"vr": "UN", "InlineBinary": base64.b64encode(data).decode()}


@pytest.mark.parametrize(
    ("keyword", "data", "held", "other"),
    [
        ("PregnancyStatus", b"\x04\x00", 4, 1),
        ("PatientName", b"DOE^J* ", "Doe^Jane", "Roe^Jane"),
        ("PatientBirthDate", b"19700101-19701231 ", "19700601", "19710101"),
        ("StudyInstanceUID", b"1.2\\1.3\0", "1.3", "1.4"),
        ("PatientID", b"10? ", "100", "200"),
    ],
)
def test_a_known_key_of_unknown_vr_is_read_by_the_table(keyword: str, data: bytes, held: Any, other: Any) -> None:
    query = compile_query({TAG[keyword]: unknown(data)})
    assert query.matches(attributes(**{keyword: held}))
    assert not query.matches(attributes(**{keyword: other}))


# --- stored values that are broken

_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["vr", "Value", "InlineBinary", "Alphabetic", "00080100"]), inner, max_size=3)
    ),
    max_leaves=6,
)
_everything = within_step(
    start("20260701-20260709", "0000-2359", ScheduledStationAETitle="CT1", ScheduledProcedureStepStatus="S*"),
    PatientName="Doe*", PatientID="1*", PatientBirthDate="-20261231", PatientWeight="7", PregnancyStatus=1,
    StudyInstanceUID="1.2", RequestedProcedureCodeSequence=attributes(CodeValue="A"), TimezoneOffsetFromUTC="+0000",
)  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(st.data(), st.booleans())
def test_a_broken_stored_value_breaks_no_answer(data: st.DataObject, fuzzy: bool) -> None:
    rules = MatchingRules(fuzzy_names=fuzzy, zone=BERLIN)
    for tag, key in {**_everything, **PRIVATE}.items():
        query = compile_query(
            {tag: key, TAG["TimezoneOffsetFromUTC"]: element("TimezoneOffsetFromUTC", "+0000")}, rules
        )
        held = {tag: data.draw(_json), "00090010": data.draw(_json)}
        assert bool(query.explain(held)) is not query.matches(held)
        inner = key["Value"][0] if tag == SPS_SEQUENCE else {}
        for each in inner:
            step = {SPS_SEQUENCE: {"vr": "SQ", "Value": [{**inner, each: data.draw(_json)}]}}
            assert bool(query.explain(step)) is not query.matches(step)


# Narrowing, as a store does it: by an index over these columns, each without the padding that means nothing.


def admits(narrowing: Narrowing, held: Attributes, status: SPSStatus) -> bool:
    step = held[SPS_SEQUENCE]["Value"][0]
    starts = start_of(step)
    groups = [group for name in values(held, "PatientName")[:1] for group in name_index(name)]
    exact = (
        (narrowing.modality, text(step, "Modality")),
        (narrowing.patient_id, text(held, "PatientID")),
        (narrowing.accession_number, text(held, "AccessionNumber")),
        (narrowing.requested_procedure_id, text(held, "RequestedProcedureID")),
        (narrowing.sps_id, text(step, "ScheduledProcedureStepID")),
    )
    stations = {str(value).strip(" ") for value in values(step, "ScheduledStationAETitle") if value}
    return (
        (not narrowing.station_ae_titles or bool(stations & narrowing.station_ae_titles))
        and starts >= narrowing.start_from
        and (not narrowing.start_to or starts <= narrowing.start_to)
        and all(not wanted or wanted == value.strip(" ") for wanted, value in exact)
        and (
            not narrowing.patient_name_prefix
            or any(group.startswith(narrowing.patient_name_prefix) for group in groups)
        )
        and (
            not narrowing.study_instance_uids
            or text(held, "StudyInstanceUID") in narrowing.study_instance_uids
        )
        and status in narrowing.statuses
    )  # fmt: skip


_letters = st.sampled_from("aAäÄeéß *?^=\u0308が川\ufffd ")
_names = st.text(_letters, max_size=6) | st.sampled_from(['""', "Müller^Anna", "Mueller", "Anna^Miller", "M*^An?a"])
_short = st.text(st.sampled_from("1A *?"), max_size=3) | st.just('""')
_dates = st.sampled_from(["20260704", "20260705", "2026.07.05", "20260706", "", "2026", "99991231"])
_times = st.sampled_from(["0930", "093000", "093000.5", "18", "235960", "18:30", "", "noon", "~", "!"])
_date_keys = st.sampled_from(
    ["", "*", "20260705", "20260704-20260705", "-20260705", "20260705-", "2026.07.05", "00010101-99991231"]
)
_time_keys = st.sampled_from(["", "0930", "0900-1830", "-0930", "0930-", "18", "2359", "235960", '""'])
_offset_keys = st.sampled_from(["+0000", "+1400", "-1200", "+0200", "noon"])
_rules = st.builds(
    MatchingRules,
    fuzzy_names=st.booleans(),
    zone=st.sampled_from([None, BERLIN, ZoneInfo("Pacific/Auckland")]),
    empty_values=st.booleans(),
    whole_names=st.booleans(),
)


def _several(strategy: st.SearchStrategy[str]) -> st.SearchStrategy[list[str]]:
    return st.lists(strategy, max_size=2)


_TOP = {
    "PatientName": _names, "PatientID": _short, "AccessionNumber": _short, "RequestedProcedureID": _short,
    "StudyInstanceUID": st.sampled_from(["1.2", "1.3", "*", "", '""']),
}  # fmt: skip
_STEP = {
    "ScheduledStationAETitle": _short,
    "Modality": _short,
    "ScheduledProcedureStepID": _short,
    "ScheduledProcedureStepStatus": st.sampled_from(["SCHEDULED", "STARTED", "S*", "*", "GONE", ""]),
}


def _sets(
    top: dict[str, st.SearchStrategy[str]], step: dict[str, st.SearchStrategy[str]]
) -> st.SearchStrategy[Attributes]:
    def build(drawn: tuple[dict[str, list[str]], dict[str, list[str]]]) -> Attributes:
        return within_step(attributes(**drawn[1]), **drawn[0])

    return st.tuples(
        st.fixed_dictionaries({}, optional={keyword: _several(each) for keyword, each in top.items()}),
        st.fixed_dictionaries({}, optional={keyword: _several(each) for keyword, each in step.items()}),
    ).map(build)


_held = _sets(
    {**_TOP, "TimezoneOffsetFromUTC": _offset_keys},
    {**_STEP, "ScheduledProcedureStepStartDate": _dates, "ScheduledProcedureStepStartTime": _times},
)
_asked = _sets(
    {**_TOP, "TimezoneOffsetFromUTC": _offset_keys},
    {**_STEP, "ScheduledProcedureStepStartDate": _date_keys, "ScheduledProcedureStepStartTime": _time_keys},
)


@settings(max_examples=800, deadline=None)
@given(_held, _asked, st.sampled_from(sorted(LISTED)), _rules)
def test_narrowing_never_hides_a_match(
    held: Attributes, asked: Attributes, status: SPSStatus, rules: MatchingRules
) -> None:
    try:
        query: Query = compile_query(asked, rules)
    except Refused:
        return
    matched = query.matches(held, status)
    assert not matched or admits(query.narrowing(), held, status)
    assert bool(query.explain(held, status)) is not matched


@settings(max_examples=300, deadline=None)
@given(_names, st.text(_letters, min_size=1, max_size=6), _rules)
def test_narrowing_by_name_never_hides_a_match(asked: str, name: str, rules: MatchingRules) -> None:
    query = compile_query(attributes(PatientName=asked), rules)
    held = within_step({}, PatientName=name)
    assert not query.matches(held) or admits(query.narrowing(), held, SPSStatus.SCHEDULED)


@settings(max_examples=300, deadline=None)
@given(_held, _asked, st.sampled_from(sorted(LISTED)), _rules)
def test_fuzzy_matching_finds_all_that_literal_matching_finds(
    held: Attributes, asked: Attributes, status: SPSStatus, rules: MatchingRules
) -> None:
    try:
        literal, fuzzy = (compile_query(asked, replace(rules, fuzzy_names=on)) for on in (False, True))
    except Refused:
        return
    assert fuzzy.matches(held, status) >= literal.matches(held, status)


def test_narrowing_leaves_room_for_every_clock_where_the_query_has_its_own() -> None:
    keys = within_step(start("20260705-20260706", "1000-0800"), TimezoneOffsetFromUTC="+0900")
    narrowing = compile_query(keys).narrowing()
    assert (narrowing.start_from, narrowing.start_to) == ("20260703000000", "20260708999999")
    day_alone = within_step(start("20260705", None), TimezoneOffsetFromUTC="+0900")
    assert compile_query(day_alone).narrowing() == compile_query(within_step(start("20260705", None))).narrowing()


def test_narrowing_of_a_fuzzy_name_goes_by_its_first_sound() -> None:
    fuzzy = MatchingRules(fuzzy_names=True)
    assert compile_query(attributes(PatientName="Döri*^Max"), fuzzy).narrowing().patient_name_prefix == "~M"
    assert compile_query(attributes(PatientName="Döri*"), fuzzy).narrowing().patient_name_prefix == ""


def test_narrowing_holds_what_the_keys_give() -> None:
    keys = within_step(
        start("20260705-20260706", "1000-0800", ScheduledStationAETitle=["CT1", "CT2"], Modality="CT"),
        PatientName="Döri*^Max", PatientID="100", AccessionNumber="A1", StudyInstanceUID=["1.2", "1.3"],
    )  # fmt: skip
    assert compile_query(keys).narrowing() == Narrowing(
        station_ae_titles=frozenset({"CT1", "CT2"}),
        start_from="20260705100000",
        start_to="20260706080099",
        modality="CT",
        patient_id="100",
        patient_name_prefix="dori",
        accession_number="A1",
        study_instance_uids=frozenset({"1.2", "1.3"}),
        specific=True,
    )
