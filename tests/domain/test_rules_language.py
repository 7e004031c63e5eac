"""The mapping language: picks, conditions, edits, a site's own converters, missing policies, clocks of senders."""

import contextlib
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mapping_documents import STEP, PlainDocument, event, mapping, result

from gateway.domain.attributes import text, values
from gateway.domain.edits import SiteFunction
from gateway.domain.mapping import MappingError, compile_mapping
from gateway.domain.problem import Problem
from gateway.domain.rule_words import IDENTITY_KEYS, RULE_KEYS, TOP_KEYS
from gateway.domain.tables import compile_table

IDENTIFIERS = "7^^^VISITS^VN~100^^^HOSPA^MR~200^^^NATION&1.2&ISO^NI"
BERLIN = ZoneInfo("Europe/Berlin")


def comments(rule: Any, **given: Any) -> str:
    """PatientComments by this rule."""
    return text(event(result({"PatientComments": rule}, **given)).patient.attributes, "PatientComments")


def problems(rule: Any = None, **how: Any) -> list[Problem]:
    with pytest.raises(MappingError) as raised:
        mapping({"PatientComments": rule} if rule is not None else {}, **how)
    return list(raised.value.problems)


# ---- picks ----


@pytest.mark.parametrize(
    ("pick", "picked"),
    [
        ({5: ["MR", "PI"]}, "100"),
        ({5: "NI"}, "200"),
        ({"4.2": "1.2"}, "200"),
        ({4: "*", 5: "mr"}, "100"),
        ({"4.2": ""}, "7"),
        ("first", "7"),
        ("last", "200"),
        (2, "100"),
        (9, ""),
        ({5: "SS"}, ""),
    ],
)
def test_a_pick_chooses_among_repetitions(pick: Any, picked: str) -> None:
    assert comments({"from": "PID-3", "pick": pick}, PID_3=IDENTIFIERS) == picked


def test_a_picked_repetition_is_read_from_the_paths_component() -> None:
    assert comments({"from": "PID-3.4", "pick": {5: "MR"}}, PID_3=IDENTIFIERS) == "HOSPA"


def test_where_nothing_is_picked_the_next_path_counts() -> None:
    rule = {"from": ["PID-3", "PID-4"], "pick": {5: "SS"}}
    assert comments(rule, PID_3=IDENTIFIERS, PID_4="300^^^X^SS") == "300"


def test_picked_identifiers_are_the_patients_only_ones() -> None:
    identity = {"PatientID": {"from": "PID-3", "pick": {5: ["MR", "NI"]}}}
    patient = event(result({}, identity, PID_3=IDENTIFIERS)).patient
    assert [(one.value, one.issuer) for one in patient.identifiers] == [("100", "HOSPA"), ("200", "NATION")]


def test_a_refused_identifier_is_told_at_its_own_repetition() -> None:
    identity = {"PatientID": {"from": "PID-3", "pick": "last"}}
    refusals = result({}, identity, PID_3=f"1~{'9' * 65}").refusals
    assert refusals[0].where == "PID-3(2).1"


# ---- conditions ----


@pytest.mark.parametrize(
    ("conditions", "said"),
    [
        ({"unless": {"PID-2": "X"}}, "yes"),
        ({"unless": {"PID-4": "a"}}, ""),
        ({"unless": {"PID-2": "X", "PID-4": ["A", "B"]}}, ""),
        ({"unless": {"PID-2": ""}}, ""),
        ({"when": {"PID-4": "A"}, "unless": {"PID-2": "*"}}, "yes"),
    ],
)
def test_unless_takes_a_rule_away_where_one_condition_holds(conditions: Any, said: str) -> None:
    assert comments({"from": "PID-1", **conditions}, PID_1="yes", PID_4="A") == said


# ---- edits ----


@pytest.mark.parametrize(
    ("edit", "sent", "made"),
    [
        ("upper", "ab1", "AB1"),
        ("lower", "AB", "ab"),
        ("digits", "A-0 7/12", "0712"),
        ("strip-leading-zeros", "00420", "420"),
        ("strip-leading-zeros", "000", "0"),
        ("no-blanks", "1 2 3", "123"),
        ({"prefix": "RIS"}, "7", "RIS7"),
        ({"prefix": "RIS"}, "RIS7", "RIS7"),
        ({"suffix": "-X"}, "7", "7-X"),
        ({"drop-prefix": "RIS"}, "RIS7", "7"),
        ({"drop-suffix": ".0"}, "7.0", "7"),
        ({"before": "-"}, "A1-B-2", "A1"),
        ({"before": "-"}, "A1", "A1"),
        ({"after": "-"}, "A1-B-2", "B-2"),
        ({"after": "-"}, "A1", "A1"),
        ({"first": 3}, "12345", "123"),
        ({"last": 3}, "12345", "345"),
        ({"date": "DD.MM.YYYY"}, "24.11.2026", "20261124"),
        ({"date": "DD.MM.YYYY"}, "4.1.2026", "20260104"),
        ({"date": "MM/DD/YYYY hh:mm"}, "11/24/2026 8:05", "202611240805"),
        ({"date": "DD.MM.YYYY"}, "20261124", "20261124"),
        ([{"before": "-"}, "digits", {"prefix": "N"}], "A12-9", "N12"),
    ],
)
def test_an_edit_changes_the_text_before_it_is_converted(edit: Any, sent: str, made: str) -> None:
    assert comments({"from": "PID-1", "edit": edit}, PID_1=sent) == made


def test_edits_come_before_tables_and_joint_converters() -> None:
    table = compile_table("words", [{"code": "CT", "value": "Computed"}])
    rule = {"from": "PID-1", "edit": {"before": "-"}, "convert": {"table": "words"}}
    assert comments(rule, PID_1="CT-7", tables={"words": table}) == "Computed"
    names = {"PatientName": {"from": "PID-5", "convert": "xpn", "edit": "upper"}}
    assert text(event(result(names, PID_5="Doe^Jane")).patient.attributes, "PatientName") == "DOE^Jane"


def test_the_hl7_null_deletes_whatever_the_edits() -> None:
    made = event(result({"PatientComments": {"from": "PID-1", "edit": {"prefix": "A"}}}, PID_1='""'))
    assert made.patient.attributes["00104000"] == {"vr": "LT"}


def test_keys_are_edited_as_their_identity_says() -> None:
    identity = {"AccessionNumber": {"from": "OBR-18", "edit": ["digits", {"prefix": "A"}]}}
    (procedure,) = event(result({}, identity, OBR_18="00-77", OBR_4="X")).procedures
    assert procedure.accession is not None
    assert procedure.accession.value == "A0077"


@pytest.mark.parametrize(
    ("edit", "hint"),
    [
        ("uper", "did you mean upper?"),
        ({"first": "x"}, "write {first: 8}"),
        ("prefix", "write {prefix: TEXT}"),
        ({"upper": 1}, "write upper"),
        ({"date": "DD.MM.YY"}, "write {date: DD.MM.YYYY}, and hh, mm, ss for a time"),
        ({"date": "DD.MM.YYYY ss"}, "write {date: DD.MM.YYYY}, and hh, mm, ss for a time"),
    ],
)
def test_a_mistaken_edit_is_a_problem_with_a_hint(edit: Any, hint: str) -> None:
    (problem,) = problems({"from": "PID-1", "edit": edit})
    assert (problem.path, problem.hint) == ("rules.PatientComments.edit", hint)


# ---- the site's own converters ----


def clean_mrn(text: str) -> str | None:
    """Medical record numbers without the check digit."""
    if text == "boom":
        raise KeyError(text)
    if not text[-1:].isdigit():
        raise ValueError("it does not end with a digit")
    return text[:-1] or None


def number(text: str) -> Any:
    return len(text)


FUNCTIONS = {
    "ids.clean_mrn": SiteFunction("ids.clean_mrn", clean_mrn, "converters/ids.py:1", "d1"),
    "ids.number": SiteFunction("ids.number", number, "converters/ids.py:9", "d1"),
    "ids.two": SiteFunction("ids.two", lambda one, two: one, "converters/ids.py:12", "d1"),
}
CLEAN = {"converters": {"clean-mrn": {"function": "ids.clean_mrn", "example": "1234", "gives": "123"}}}
OWN = {"functions": FUNCTIONS, "more": CLEAN}


RAISES = f"mend converters/ids.py:{clean_mrn.__code__.co_firstlineno + 3}"  # the line that does, not the function's


def test_a_sites_converter_is_named_like_ours_and_told_in_the_trace() -> None:
    found = result({"PatientComments": {"from": "PID-1", "convert": "clean-mrn"}}, PID_1="775", **OWN)
    (entry,) = [entry for entry in found.trace if entry.target == "PatientComments"]
    assert (entry.raw, entry.value, entry.converter) == ("775", "77", "clean-mrn, text")


def test_a_sites_converter_edits_identifiers_too() -> None:
    identity = {"PatientID": {"from": "PID-3", "edit": "clean-mrn"}}
    assert event(result({}, identity, PID_3="1239^^^H", **OWN)).patient.identifiers[0].value == "123"


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        ("77x", "'77x' is not taken by the site's converter clean-mrn: it does not end with a digit"),
        ("boom", "the site's converter clean-mrn failed: KeyError: 'boom'"),
    ],
)
def test_what_a_sites_converter_raises_is_a_refusal_that_names_it(sent: str, said: str) -> None:
    found = result({"PatientComments": {"from": "PID-1", "convert": "clean-mrn"}}, PID_1=sent, **OWN)
    (refusal,) = found.refusals
    assert (refusal.where, refusal.text) == ("PID-1.1", f"PatientComments: {said}")
    assert "converters/ids.py:" in refusal.hint
    identity = {"AccessionNumber": {"from": "OBR-18", "edit": "clean-mrn"}}
    assert result({}, identity, OBR_18=sent, **OWN).refusals[0].text == f"AccessionNumber: {said}"


def test_a_converter_that_gives_no_text_is_a_refusal() -> None:
    more = {"converters": {"n": {"function": "ids.number", "example": ""}}}
    (problem,) = problems(functions=FUNCTIONS, more=more)
    assert (problem.path, problem.text) == (
        "converters.n.example",
        "the site's converter n gave int instead of a text",
    )


@pytest.mark.parametrize(
    ("declared", "path", "hint"),
    [
        ({"function": "ids.clean_mnr", "example": "1"}, "converters.c.function", "did you mean ids.clean_mrn?"),
        ({"function": "ids.two", "example": "1"}, "converters.c.function", "def name(text: str) -> str | None"),
        ({"function": "ids.clean_mrn"}, "converters.c", "example: a text as it is sent"),
        ({"function": "ids.clean_mrn", "example": "boom"}, "converters.c.example", RAISES),
        ({"function": "ids.clean_mrn", "example": "12", "gives": "2"}, "converters.c.gives", "converters/ids.py:1"),
    ],
)
def test_a_sites_converter_is_tried_before_the_first_message(declared: Any, path: str, hint: str) -> None:
    (problem,) = problems(functions=FUNCTIONS, more={"converters": {"c": declared}})
    assert (problem.path, problem.hint) == (path, hint)


def test_a_change_in_the_python_file_is_another_version() -> None:
    changed = {name: SiteFunction(name, held.function, held.place, "d2") for name, held in FUNCTIONS.items()}
    versions = {mapping({}, functions=each, more=CLEAN).version_id for each in (FUNCTIONS, changed)}
    assert len(versions) == 2


# ---- missing policies ----


def test_missing_policies_are_tried_in_turn() -> None:
    rule = {"from": "OBR-24", "convert": "modality", "missing": ["catalogue", {"default": "OT"}]}
    (procedure,) = event(result({f"{STEP}Modality": rule}, OBR_4="X")).procedures
    assert text(procedure.steps[0].defaults, "Modality") == "OT"


@pytest.mark.parametrize(
    ("missing", "hint"),
    [
        ("refus", "did you mean refuse?"),
        (["refuse", "omit"], "say it last"),
        ("stations", "they have ScheduledStationAETitle, ScheduledStationName, ScheduledProcedureStepLocation"),
    ],
)
def test_a_mistaken_missing_policy_is_a_problem(missing: Any, hint: str) -> None:
    assert [problem.hint for problem in problems({"from": "PID-1", "missing": missing})] == [hint]


def test_a_rule_below_one_that_always_ends_is_a_problem() -> None:
    (problem,) = problems([{"from": "PID-1", "missing": "refuse"}, {"from": "PID-2"}])
    assert problem.path == "rules.PatientComments.0.missing"


@pytest.mark.parametrize(
    ("rule", "path", "hint"),
    [
        ({"from": "PDI-1"}, "from", "did you mean PID-1?"),
        ({"from": "PID-1", "unles": {}}, "unles", "did you mean unless?"),
        ({"from": "PID-1", "pick": "lats"}, "pick", "{COMPONENT: value or values}, first, last, or a number from 1"),
        ({"from": "PID-1", "pick": {"x": 1}}, "pick.x", "such as 5, or 4.2 for a subcomponent"),
        ({"from": "PID-1", "repeat": "jion"}, "repeat", "did you mean join?"),
        ({"from": "PID-1", "length": "cute"}, "length", "did you mean cut?"),
    ],
)
def test_a_mistake_tells_the_likely_word(rule: Any, path: str, hint: str) -> None:
    (problem,) = problems(rule)
    assert (problem.path, problem.hint) == (f"rules.PatientComments.{path}", hint)


# ---- clocks of senders ----

START = {
    f"{STEP}ScheduledProcedureStepStartDate": "TQ1-7",
    f"{STEP}ScheduledProcedureStepStartTime": {"from": "TQ1-7", "convert": "start-time"},
    "TimezoneOffsetFromUTC": {"from": "TQ1-7", "convert": "utc-offset"},
}


@pytest.mark.parametrize(
    ("sent", "start", "offset"),
    [
        ("20260706093000", ("20260706", "093000"), ""),  # no offset: the department's own clock
        ("20260706093000+0200", ("20260706", "093000"), "+0200"),
        ("20260706093000+0000", ("20260706", "113000"), "+0200"),
        ("20260706233000-0500", ("20260707", "063000"), "+0200"),
        ("20260115093000+0200", ("20260115", "083000"), "+0100"),  # winter
        ("202607060930+0530", ("20260706", "060000"), "+0200"),
        ("2026070609+0530", ("20260706", "053000"), "+0200"),
        ("2026-07-06T07:30:00Z", ("20260706", "093000"), "+0200"),
        ("20260706+0000", ("20260706", "000000"), "+0000"),  # a day has no clock
    ],
)
def test_a_start_by_another_clock_is_converted_to_the_departments(
    sent: str, start: tuple[str, str], offset: str
) -> None:
    (procedure,) = event(result(START, zone=BERLIN, TQ1_7=sent, OBR_4="X")).procedures
    step = procedure.steps[0].attributes
    keywords = ("ScheduledProcedureStepStartDate", "ScheduledProcedureStepStartTime")
    assert tuple(text(step, keyword) for keyword in keywords) == start
    assert text(procedure.attributes, "TimezoneOffsetFromUTC") == offset


def test_a_conversion_of_clocks_is_noted_and_nothing_else_is() -> None:
    notes = result(START, zone=BERLIN, TQ1_7="20260706093000+0000", OBR_4="X").notes
    assert notes == (
        "TQ1-7: ScheduledProcedureStepStartTime: sent by a clock of UTC+0000; converted to the department's, UTC+0200",
    )
    assert result(START, zone=BERLIN, TQ1_7="20260706093000+0200", OBR_4="X").notes == ()


def test_without_a_zone_the_senders_clock_stays() -> None:
    (procedure,) = event(result(START, TQ1_7="20260706093000+0000", OBR_4="X")).procedures
    assert text(procedure.steps[0].attributes, "ScheduledProcedureStepStartTime") == "093000"


@pytest.mark.parametrize("sent", ["00010101000000+1400", "99991231235959-1200"])
def test_the_ends_of_the_calendar_are_no_crash(sent: str) -> None:
    assert not result(START, zone=BERLIN, TQ1_7=sent, OBR_4="X").refusals


@pytest.mark.parametrize(
    ("sent", "start"),
    [
        ("2026-07-06 09:30", ("20260706", "093000")),
        ("2026-07-06T09:30:15.1234567", ("20260706", "093015.123456")),
        ("2026-07-06t09:30:15,5z", ("20260706", "093015.5")),
        ("2026-07-06T0930", ("20260706", "093000")),
        ("2026-07-06T09:30+02", ("20260706", "093000")),
    ],
)
def test_iso_times_of_every_habit_are_read(sent: str, start: tuple[str, str]) -> None:
    (procedure,) = event(result(START, TQ1_7=sent, OBR_4="X")).procedures
    (step,) = procedure.steps
    assert values(step.attributes, "ScheduledProcedureStepStartDate") == [start[0]]
    assert values(step.attributes, "ScheduledProcedureStepStartTime") == [start[1]]


def test_the_trace_of_an_edited_key_says_what_was_sent_and_where() -> None:
    identity = {"AccessionNumber": {"from": ["OBR-3", "OBR-18"], "edit": ["digits", {"prefix": "A"}]}}
    found = result({}, identity, OBR_18="00-77", OBR_4="X")
    (entry,) = [entry for entry in found.trace if entry.target == "AccessionNumber"]
    assert (entry.where, entry.raw, entry.value) == ("OBR-18", "00-77", "A0077")
    assert entry.converter == "digits, prefix 'A', identifier"


# ---- whatever somebody writes ----

SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-3, 99), st.floats(allow_nan=False), st.text(max_size=6))
WORDS = st.sampled_from(["PID-3", "OBR-4", "upper", "code", "xpn", "all", "MR", "first", "stations", "refuse", "cut"])
ANYTHING = st.recursive(
    SCALARS | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4) | WORDS, inner, max_size=3),
    max_leaves=5,
)
RULES = st.dictionaries(st.sampled_from([*RULE_KEYS, *IDENTITY_KEYS, "function", "map"]), ANYTHING, max_size=5)
TARGETS = st.sampled_from(["PatientComments", "PatientName", f"{STEP}Modality", "RequestedProcedureCodeSequence", "X"])


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(TARGETS, RULES | ANYTHING, max_size=2),
    st.dictionaries(st.sampled_from(["PatientID", "StudyInstanceUID", "X"]), RULES | ANYTHING, max_size=2),
    st.dictionaries(st.sampled_from(list(TOP_KEYS)), ANYTHING, max_size=2),
)
def test_whatever_is_written_is_a_mapping_or_a_list_of_problems(rules: Any, identity: Any, more: Any) -> None:
    source = {**more, "rules": rules, "identity": {"PatientID": "PID-3", **identity}}
    document = PlainDocument(PID_5="Doe^Jane", OBR_4="A^B^C", OBR_24="CT")
    with contextlib.suppress(MappingError):
        compile_mapping({"site": source}, "site", functions=FUNCTIONS).apply(document, trace=True)
