"""Worklist matching: the vectors of the worklist digest, each kind of matching, and narrowing that hides nothing."""

import unicodedata
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.domain.attributes import (
    BY_KEYWORD,
    SPS_SEQUENCE,
    TAG,
    Attributes,
    element,
    person_name_value,
    text,
    values,
)
from gateway.domain.matching import Narrowing, Query, compile_query, fold_name, folded_groups, item_matcher, supported
from gateway.domain.refusal import RefusalKind, Refused
from gateway.domain.worklist import LISTED, SPSStatus, start_of


def attributes(**said: Any) -> Attributes:
    """Attributes by keyword: a value, a list of values, or None for a zero-length element; names as text."""
    made: Attributes = {}
    for keyword, value in said.items():
        several = value if isinstance(value, list) else [] if value is None else [value]
        if BY_KEYWORD[keyword].vr == "PN":
            several = [person_name_value(name) for name in several]
        made[TAG[keyword]] = element(keyword, *several)
    return made


def within_step(step: Attributes, **top: Any) -> Attributes:
    return {**attributes(**top), SPS_SEQUENCE: element("ScheduledProcedureStepSequence", step)}


def start(date: str | None, time: str | None, **more: Any) -> Attributes:
    return attributes(ScheduledProcedureStepStartDate=date, ScheduledProcedureStepStartTime=time, **more)


def item(ae: Any, modality: str, date: str, time: str, name: str, patient_id: str, accession: str | None) -> Attributes:
    step = start(date, time, ScheduledStationAETitle=ae, Modality=modality, ScheduledPerformingPhysicianName=None)
    return within_step(step, PatientName=name, PatientID=patient_id, AccessionNumber=accession)


ITEMS = {
    "S1": item("CT1", "CT", "20260705", "0930", "Doe^Jane", "100", "A1"),
    "S2": item("CT1", "CT", "20260705", "1830", "Döring^Max", "101", "A2"),
    "S3": item(["MR1", "MR2"], "MR", "20260706", "0700", "Yamada^Tarou=山田^太郎=やまだ^たろう", "102", "A3"),
    "S4": item("US1", "US", "20260708", "0800", "Doe^John", "103", None),
}


def found(keys: Attributes) -> set[str]:
    query = compile_query(keys)
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


NAME = "Döring^Max^Ludwig^^MD"


@pytest.mark.parametrize(
    "asked",
    [
        "Döring", "doring", "DÖRING^MAX", "d?ring", "D*", "*ring*", "^Max", "Döring^M*",
        "Dör* ", "Doring^Max^Ludwig^^MD", "*Max*", "D*^M*^*", "Döring^", "döring^^^^MD", "Do\u0308ring", "D\ufffdring",
    ],
)  # fmt: skip
def test_a_name_is_found(asked: str) -> None:
    assert compile_query(attributes(PatientName=asked)).matches(attributes(PatientName=NAME))


@pytest.mark.parametrize("asked", ["Dör", "Max", "Döring^Maxi", "D?ring?", "Döring^^^Dr", "Doe*", "=Döring"])
def test_a_name_is_not_found(asked: str) -> None:
    assert not compile_query(attributes(PatientName=asked)).matches(attributes(PatientName=NAME))


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ("山田", True), ("やまだ^たろう", True), ("Yamada", True), ("=山田*", True), ("yamada=山田", True),
        ("==やまだ", True), ("=やまだ", False), ("yamada=川田", False), ("=yamada", False), ("ﾔﾏﾀﾞ", False),
    ],
)  # fmt: skip
def test_component_groups_of_a_name(asked: str, expected: bool) -> None:
    assert compile_query(attributes(PatientName=asked)).matches(ITEMS["S3"]) is expected


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        ("ÇELİK", "celik", True), ("Søren", "SOREN", True), ("Łukasz", "lukasz", True), ("Straße", "STRASSE", True),
        ("Алёна", "АЛЕНА", True), ("Ñ", "n", True), ("ｶﾅ", "カナ", True), ("Ｄｏｅ", "doe", True), ("か", "が", False),
        ("ΟΔΥΣΣΕΥΣ", "οδυσσευς", True), (" Doe ", "doe", True),
    ],
)  # fmt: skip
def test_folding(left: str, right: str, same: bool) -> None:
    assert (fold_name(left) == fold_name(right)) is same


@given(st.text(max_size=12))
def test_folding_twice_changes_nothing_more(name: str) -> None:
    assert fold_name(fold_name(name)) == fold_name(name)


@given(st.text(max_size=12))
def test_folding_takes_either_normal_form(name: str) -> None:
    assert fold_name(unicodedata.normalize("NFD", name)) == fold_name(unicodedata.normalize("NFC", name))


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


def test_private_keys_count_where_an_item_holds_the_attribute() -> None:
    query = compile_query(
        {"00090010": {"vr": "LO", "Value": ["ACME"]}, "00091001": {"vr": "UN", "InlineBinary": "WA=="}}
    )
    assert query.matches({"00091001": {"vr": "LO", "Value": ["X"]}})
    assert not query.matches({"00091001": {"vr": "LO", "Value": ["Y"]}})
    assert query.matches({})


def test_step_attributes_on_top_are_no_worklist_keys() -> None:
    assert found(attributes(Modality="XA")) == set(ITEMS)
    assert not supported(attributes(Modality="XA"))


def test_support_is_by_the_table_and_the_place() -> None:
    assert supported(
        within_step(start("20260705", None), PatientName="x", RequestedProcedureCodeSequence=code("A", "L"))
    )
    assert supported({"00090010": {"vr": "LO", "Value": ["ACME"]}})
    assert not supported({"00091001": {"vr": "LO"}})
    assert not supported({"00181030": {"vr": "LO"}})
    assert not supported(within_step(attributes(PatientID="1")))


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


def test_items_of_a_sequence_are_selected_by_value() -> None:
    selects = item_matcher(code("B", "L2"))
    assert selects is not None
    assert [selects(code("A", "L2")), selects(code("B", "L2"))] == [False, True]
    assert item_matcher(attributes(CodeValue=None)) is None


@pytest.mark.parametrize(
    ("asked", "held", "expected"),
    [
        ("20260705", "20260705101500", True),
        ("20260705-20260706", "20260706235959.999999", True),
        ("20260705-", "20260704", False),
        ("-2026", "20261231", True),
        ("20260705100000+0000", "20260705120000+0200", True),
        ("20260705100000+0000", "20260705100000+0200", False),
        ("20260705100000", "20260705100000+0200", True),
    ],
)
def test_date_times(asked: str, held: str, expected: bool) -> None:
    query = compile_query({"00404005": {"vr": "DT", "Value": [asked]}})
    assert query.matches({"00404005": {"vr": "DT", "Value": [held]}}) is expected


def test_a_date_time_that_is_none_is_refused() -> None:
    with pytest.raises(Refused):
        compile_query({"00404005": {"vr": "DT", "Value": ["noon"]}})


# Narrowing, as a store does it: by an index over these columns, each without the padding that means nothing.


def admits(narrowing: Narrowing, held: Attributes, status: SPSStatus) -> bool:
    step = held[SPS_SEQUENCE]["Value"][0]
    starts = start_of(step)
    groups = [group for name in values(held, "PatientName")[:1] for group in folded_groups(name)]
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
_names = st.text(_letters, max_size=6)
_short = st.text(st.sampled_from("1A *?"), max_size=3)
_dates = st.sampled_from(["20260704", "20260705", "2026.07.05", "20260706", "", "2026", "99991231"])
_times = st.sampled_from(["0930", "093000", "093000.5", "18", "235960", "18:30", "", "noon", "~", "!"])
_date_keys = st.sampled_from(
    ["", "*", "20260705", "20260704-20260705", "-20260705", "20260705-", "2026.07.05", "00010101-99991231"]
)
_time_keys = st.sampled_from(["", "0930", "0900-1830", "-0930", "0930-", "18", "2359", "235960"])


def _several(strategy: st.SearchStrategy[str]) -> st.SearchStrategy[list[str]]:
    return st.lists(strategy, max_size=2)


_TOP = {
    "PatientName": _names, "PatientID": _short, "AccessionNumber": _short, "RequestedProcedureID": _short,
    "StudyInstanceUID": st.sampled_from(["1.2", "1.3", "*", ""]),
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
    _TOP,
    {**_STEP, "ScheduledProcedureStepStartDate": _dates, "ScheduledProcedureStepStartTime": _times},
)
_asked = _sets(
    _TOP,
    {**_STEP, "ScheduledProcedureStepStartDate": _date_keys, "ScheduledProcedureStepStartTime": _time_keys},
)


@settings(max_examples=600, deadline=None)
@given(_held, _asked, st.sampled_from(sorted(LISTED)))
def test_narrowing_never_hides_a_match(held: Attributes, asked: Attributes, status: SPSStatus) -> None:
    try:
        query: Query = compile_query(asked)
    except Refused:
        return
    matched = query.matches(held, status)
    assert not matched or admits(query.narrowing(), held, status)
    assert bool(query.explain(held, status)) is not matched


@settings(max_examples=300, deadline=None)
@given(_names, st.text(_letters, min_size=1, max_size=6))
def test_narrowing_by_name_never_hides_a_match(asked: str, name: str) -> None:
    query = compile_query(attributes(PatientName=asked))
    held = within_step({}, PatientName=name)
    assert not query.matches(held) or admits(query.narrowing(), held, SPSStatus.SCHEDULED)


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
    )
