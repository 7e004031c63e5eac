"""The outbound language: what a rule does, and which mistakes are found before the first message."""

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from gateway.domain.attributes import TAG, code_item, element, issuer_item, person_name_value
from gateway.domain.edits import SiteFunction
from gateway.domain.outbound import EACH_MAX, LEFT_OUT, REPETITIONS_MAX, WrittenSegment
from gateway.domain.outbound_compiler import compile_outbound
from gateway.domain.outbound_converters import OUTBOUND_CONVERTERS, Setting
from gateway.domain.outbound_fields import SEGMENT_FIELDS, parse_target
from gateway.domain.problem import MappingError, Problem
from gateway.domain.refusal import Refused
from gateway.domain.report import FACTS, Header, Report, composed, taken_apart
from gateway.domain.rule_checks import Library
from gateway.wire.er7 import Bounds, parse
from gateway.wire.er7_writer import write

BERLIN = ZoneInfo("Europe/Berlin")
HEADER = Header(control_id="C1", at=datetime(2026, 7, 5, 10, tzinfo=BERLIN))
STEP = "ScheduledProcedureStepSequence."


def name(text: str) -> dict[str, Any]:
    return {"vr": "PN", "Value": [person_name_value(text)]}


def report(**more: Any) -> Report:
    steps = [
        {TAG["ScheduledProcedureStepID"]: element("ScheduledProcedureStepID", each),
         TAG["Modality"]: element("Modality", "CT")}
        for each in ("S1", "S2")
    ]  # fmt: skip
    item = {
        TAG["AccessionNumber"]: element("AccessionNumber", "A1"),
        TAG["RequestedProcedureCodeSequence"]: element(
            "RequestedProcedureCodeSequence", code_item("CT1", "99X", "Head")
        ),
        TAG["ScheduledProcedureStepSequence"]: element("ScheduledProcedureStepSequence", *steps),
    }
    given: dict[str, Any] = {
        "facts": {"OrderControl": "SC", "Placer": "PL7^RIS", "PatientIDs": "1^^^H~2^^^I"},
        "person": {TAG["PatientName"]: name("Muster^Eva"), TAG["PatientSex"]: element("PatientSex", "F")},
        "items": (item,),
    }
    return Report(**{**given, **more})


def mapping(rules: dict[str, Any] | None = None, segments: list[Any] | None = None, **more: Any) -> dict[str, Any]:
    said = {"message": "ORM^O01", "hl7": "2.3.1", "segments": segments or ["MSH", "PID"], "rules": rules or {}}
    return {**said, **more}


def compiled(*sources: dict[str, Any], library: Library = Library()) -> Any:  # noqa: B008  (it is immutable)
    """The last of these, each extending the one before it."""
    named = {f"m{at}": {**source, **({"extends": f"m{at - 1}"} if at else {})} for at, source in enumerate(sources)}
    return compile_outbound(named, f"m{len(sources) - 1}", library)


def lines(rules: Any, told: Report | None = None) -> list[str]:
    """The segments but MSH, without escapes."""
    return [_line(segment) for segment in rules.segments(told or report(), HEADER)[1:]]


def _line(segment: WrittenSegment) -> str:
    return "|".join([segment.name, *(composed(repetitions) for repetitions in segment.fields)])


def field(rule: Any, target: str = "PID-5", told: Report | None = None, library: Library = Library()) -> str:  # noqa: B008
    """What one rule writes."""
    segment = target[:3]
    written = lines(compiled(mapping({target: rule}, ["MSH", segment]), library=library), told)
    return written[0].removeprefix(f"{segment}{'|' * int(target[4:].split('.', maxsplit=1)[0])}") if written else ""


def problems(*sources: dict[str, Any], library: Library = Library()) -> list[Problem]:  # noqa: B008
    with pytest.raises(MappingError) as caught:
        compiled(*sources, library=library)
    return list(caught.value.problems)


# ---- what rules do ----


@pytest.mark.parametrize(
    ("target", "rule", "expected"),
    [
        ("PID-5", "PatientName", "Muster^Eva^^^^^L"),
        ("PID-3", "event.PatientIDs", "1^^^H~2^^^I"),
        ("ORC-2", "event.Placer", "PL7^RIS"),
        ("OBR-4", "RequestedProcedureCodeSequence", "CT1^Head^99X"),
        ("OBR-4.4", "RequestedProcedureCodeSequence", "^^^CT1^Head^99X"),
        ("OBR-18", "AccessionNumber", "A1"),
        ("OBR-4.2", {"from": "RequestedProcedureCodeSequence", "convert": "code-meaning"}, "^Head"),
        ("IPC-4", {"from": f"{STEP}ScheduledProcedureStepID", "convert": "ei"}, "S1"),
        ("PID-11", {"from": f"{STEP}ScheduledProcedureStepID", "repeat": "all"}, "S1~S2"),
        ("OBR-13", {"from": f"{STEP}ScheduledProcedureStepID", "repeat": "join"}, "S1; S2"),
        ("OBR-24", {"from": f"{STEP}Modality", "repeat": "join"}, "CT"),
        ("PID-3.4.2", {"value": "1.2.3"}, "^^^&1.2.3"),
        ("OBX-3", {"value": "113014^DICOM Study^DCM"}, "113014^DICOM Study^DCM"),
        ("PID-8", ["PregnancyStatus", "PatientSex"], None),
        ("PID-8", [{"from": "AllergiesAre"}], None),
        ("PID-8", [{"from": "PatientSex", "when": {"AccessionNumber": "A2"}}, {"value": "X"}], "X"),
        ("PID-8", [{"from": "PatientSex", "when": {"AccessionNumber": ["A2", "a1"]}}, {"value": "X"}], "F"),
        ("PID-8", [{"from": "PatientSex", "unless": {"event.Placer": "*"}}, {"value": "X"}], "X"),
        ("PID-8", [{"from": "PatientSex", "when": {"event.Filler": ""}}], "F"),
        ("PID-7", {"from": "PatientBirthDate", "missing": {"default": "19000101"}}, "19000101"),
        ("PID-8", {"from": "PatientSex", "edit": ["lower", {"suffix": "!"}]}, "f!"),
        ("PID-8", {"from": "PatientSex", "convert": {"table": "sexes"}}, "W"),
        ("PID-8", {"from": "AccessionNumber", "convert": {"table": "sexes"}, "unknown": "keep"}, "A1"),
        ("PID-8", {"from": "AccessionNumber", "convert": {"table": "sexes"}, "unknown": "omit"}, ""),
    ],
)
def test_a_rule_writes(target: str, rule: Any, expected: str | None) -> None:
    library = Library({"sexes": {"F": "W"}})
    if expected is None:
        assert problems(mapping({target: rule}, ["MSH", target[:3]]), library=library)
    else:
        assert field(rule, target, library=library) == expected


def test_a_part_of_a_field_joins_the_rest_of_it() -> None:
    rules = {"OBR-4": "RequestedProcedureCodeSequence", "OBR-4.4": {"value": "P1"}, "OBR-4.6.2": {"value": "sub"}}
    assert lines(compiled(mapping(rules, ["MSH", "OBR"]))) == ["OBR||||CT1^Head^99X^P1^^&sub"]


def test_a_field_that_does_not_repeat_gets_one_repetition() -> None:
    assert field("event.PatientIDs", "PID-2") == "1^^^H"


def test_a_missing_value_is_refused_with_its_place_and_what_to_do() -> None:
    rules = compiled(mapping({"PID-7": {"from": "PatientBirthDate", "missing": "refuse"}}))
    with pytest.raises(Refused) as caught:
        rules.segments(report(), HEADER)
    (refusal,) = caught.value.refusals
    assert refusal.where == "PID-7"
    assert "PatientBirthDate" in refusal.text
    assert "m0: rules.PID-7" in refusal.hint


def test_a_code_that_no_table_knows_is_refused_unless_told_otherwise() -> None:
    library = Library({"sexes": {"M": "M"}})
    rules = compiled(mapping({"PID-8": {"from": "PatientSex", "convert": {"table": "sexes"}}}), library=library)
    with pytest.raises(Refused, match="PID-8"):
        rules.segments(report(), HEADER)


def test_groups_are_written_for_each_procedure_and_each_step() -> None:
    second = {TAG["AccessionNumber"]: element("AccessionNumber", "A2")}
    rules = compiled(
        mapping(
            {"PID-5": "PatientName", "OBR-1": {"from": "number", "convert": "number"}, "OBR-18": "AccessionNumber",
             "IPC-1": {"from": "AccessionNumber", "convert": "ei"},
             "IPC-4": {"from": f"{STEP}ScheduledProcedureStepID", "convert": "ei"}},
            ["MSH", "PID", {"each": "procedure", "segments": ["OBR", {"each": "step", "segments": ["IPC"]}]}],
        )
    )  # fmt: skip
    found = report()
    assert lines(rules, report(items=(*found.items, second))) == [
        "PID|||||Muster^Eva^^^^^L",
        "OBR|1|||||||||||||||||A1",
        "IPC|A1|||S1",
        "IPC|A1|||S2",
        "OBR|2|||||||||||||||||A2",
    ]


def test_a_segment_is_left_out_without_a_value_and_where_a_condition_fails() -> None:
    rules = {"PID-5": "PatientName", "PV1-19": "event.VisitNumber", "MRG-1": {"value": "X"}}
    segments = ["MSH", "PID", "PV1", {"segment": "MRG", "when": {"event.PriorPatientIDs": "*"}}]
    assert lines(compiled(mapping(rules, segments))) == ["PID|||||Muster^Eva^^^^^L"]


def _dose(count: int, kvp: str = "") -> Report:
    items = [{"00180060": {"vr": "DS", "Value": [kvp or str(80 + at)]}} for at in range(count)]
    return report(performed={"0040030E": {"vr": "SQ", "Value": items}})


ROWS = {
    "study": {"OBX-1": {"from": "number", "convert": "number"}, "OBX-5": "AccessionNumber"},
    "time": {"OBX-5": "performed.TotalTimeOfFluoroscopy", "OBX-6": {"value": "s"}},
    "kvp": {"each": "performed.ExposureDoseSequence", "OBX-1": {"from": "number", "convert": "number"},
            "OBX-4": {"from": "turn", "convert": "number"}, "OBX-5": "performed.ExposureDoseSequence.KVP"},
}  # fmt: skip


def test_rows_are_written_only_with_a_value_and_for_each_item() -> None:
    rules = compiled(mapping({}, ["MSH", "rows"], rows=ROWS))
    assert lines(rules, _dose(2)) == ["OBX|1||||A1", "OBX|2|||1|80", "OBX|3|||2|81"]
    assert lines(rules) == ["OBX|1||||A1"]


def test_what_one_performed_step_says_is_told_with_the_first_of_its_procedures_only() -> None:
    rules = compiled(mapping({}, ["MSH", {"each": "procedure", "segments": ["rows"]}], rows=ROWS))
    told = _dose(1)
    assert lines(rules, report(items=told.items * 2, performed=told.performed)) == [
        "OBX|1||||A1", "OBX|2|||1|80", "OBX|1||||A1"
    ]  # fmt: skip


def test_thousands_of_items_do_not_make_thousands_of_segments() -> None:
    rules = compiled(mapping({}, ["MSH", "rows"], rows=ROWS))
    assert len(lines(rules, _dose(4000))) == EACH_MAX + 1


def test_a_number_that_is_none_is_left_out_and_the_trace_says_so() -> None:
    rules = compiled(mapping({}, ["MSH", "rows"], rows=ROWS))
    trace: list[Any] = []
    written = rules.segments(_dose(2, kvp="much"), HEADER, trace)
    assert [_line(segment) for segment in written[1:]] == ["OBX|1||||A1"]
    notes = [(entry.target, entry.raw, entry.value) for entry in trace if entry.value.startswith(LEFT_OUT)]
    assert notes == [("OBX of kvp-5", "much", "left out: the converter writes nothing for it")] * 2


def test_no_field_has_more_repetitions_than_a_listener_takes() -> None:
    rules = compiled(mapping({"OBR-34": {"from": "performed.PerformedSeriesSequence.OperatorsName", "repeat": "all"}},
                             ["MSH", "OBR"]))  # fmt: skip
    people = [{"00081070": name(f"Tech^N{number}")} for number in range(REPETITIONS_MAX + 2)]
    told = report(performed={"00400340": {"vr": "SQ", "Value": people}})
    trace: list[Any] = []
    (_, obr) = rules.segments(told, HEADER, trace)
    assert Bounds().repetitions_max == REPETITIONS_MAX
    assert len(obr.fields[33]) == REPETITIONS_MAX
    assert parse(write(rules.segments(told, HEADER))).first("OBR").text(34, REPETITIONS_MAX, 1, 3) == "N199"
    (note,) = (entry for entry in trace if entry.value.startswith(LEFT_OUT))
    assert (note.target, note.value) == ("OBR-34", "left out: a field has 200 repetitions")
    assert "N200" in note.raw
    assert "N201" in note.raw


def test_the_header_says_who_when_and_what() -> None:
    header = Header("GW", "RAD", "RIS", "HOSP", "C1", HEADER.at, "T", "8859/1")
    rules = compiled(
        mapping({"MSH-15": {"value": "NE"}, "PID-5": "PatientName"}, hl7="2.5.1", message="OMG^O19^OMG_O19")
    )
    (msh, *_) = rules.segments(report(), header)
    assert _line(msh) == "MSH|||GW|RAD|RIS|HOSP|20260705100000+0200||OMG^O19^OMG_O19|C1|T|2.5.1|||NE|||8859/1"


def test_the_message_type_may_depend_on_the_report() -> None:
    message = [{"value": "ADT^A40^ADT_A39", "when": {"event.PriorPatientIDs": "*"}}, {"value": "ADT^A08^ADT_A01"}]
    rules = compiled(mapping({"PID-5": "PatientName"}, message=message))
    types = [
        composed(rules.segments(report(facts=facts), HEADER)[0].fields[8]) for facts in ({}, {"PriorPatientIDs": "9"})
    ]
    assert types == ["ADT^A08^ADT_A01", "ADT^A40^ADT_A39"]


# ---- overlays ----


def test_an_overlay_changes_takes_away_and_adds() -> None:
    base = mapping({"PID-5": "PatientName", "PID-8": "PatientSex"}, ["MSH", "PID", "rows"], rows=ROWS)
    over = {"rules": {"PID-8": None, "PID-3": "event.PatientIDs"}, "hl7": "2.5.1",
            "rows": {"kvp": None, "time": None, "study": {"OBX-11": {"value": "F"}}}}  # fmt: skip
    rules = compiled(base, over)
    assert lines(rules, _dose(1)) == ["PID|||1^^^H~2^^^I||Muster^Eva^^^^^L", "OBX|1||||A1||||||F"]
    assert rules.hl7 == "2.5.1"


def test_other_rules_have_another_version() -> None:
    one, other = (compiled(mapping({"PID-8": {"value": value}})) for value in ("F", "M"))
    assert one.version_id != other.version_id


# ---- a site's own converters ----


def _last_four(text: str) -> str:
    """The last four characters."""
    return text[-4:]


def test_a_sites_function_is_an_edit_of_the_text() -> None:
    functions = {"ids.last_four": SiteFunction("ids.last_four", _last_four, "converters/ids.py:1")}
    library = Library(functions=functions)
    own = {"short": {"function": "ids.last_four", "example": "123456", "gives": "3456"}}
    person = {TAG["AccessionNumber"]: element("AccessionNumber", "ACC123456")}
    rules = compiled(
        mapping({"OBR-18": {"from": "AccessionNumber", "convert": "short"}}, ["MSH", "OBR"], converters=own),
        library=library,
    )
    assert lines(rules, report(items=(person,))) == [f"OBR{'|' * 18}3456"]
    own["short"]["gives"] = "9999"
    (problem,) = problems(mapping({"PID-8": "PatientSex"}, converters=own), library=library)
    assert "instead of '9999'" in problem.text


# ---- mistakes ----


@pytest.mark.parametrize(
    ("said", "where", "text", "hint"),
    [
        (
            mapping({"PDI-3": "event.PatientIDs"}),
            "rules.PDI-3",
            "no message that is written here has a segment PDI",
            "PID",
        ),
        (mapping({"PID-99": "PatientName"}), "rules.PID-99", "PID has 39 fields", ""),
        (mapping({"PatientName": "PID-5"}), "rules.PatientName", "is no field of HL7 v2", ""),
        (mapping({"MSH-10": {"value": "1"}}), "rules.MSH-10", "follows from the destination", ""),
        (
            mapping({"PID-5": "PatientNam"}),
            "rules.PID-5.from",
            "no attribute 'PatientNam'",
            "did you mean PatientName?",
        ),
        (mapping({"PID-5": "performed.OperatorNames"}), "rules.PID-5.from", "in a performed step", "OperatorsName"),
        (mapping({"PID-5": "event.Placr"}), "rules.PID-5.from", "there is no fact", "did you mean Placer?"),
        (mapping({"PID-8": "Modality"}), "rules.PID-8.from", "not at this level", f"write {STEP}Modality"),
        (mapping({"PID-8": f"{STEP}PatientSex"}), "rules.PID-8.from", "not at this level", "write PatientSex"),
        (mapping({"PID-8": "PatientSex.Modality"}), "rules.PID-8.from", "is no sequence", "write PatientSex"),
        (
            mapping({"PID-5": {"from": "PatientName", "convert": "xpm"}}),
            "rules.PID-5.convert",
            "unknown converter",
            "xpn",
        ),
        (
            mapping({"PID-5": {"from": "PatientName", "convert": "text"}}),
            "rules.PID-5.convert",
            "cannot read PatientName",
            "",
        ),
        (mapping({"PID-3": "PatientName"}), "rules.PID-3.convert", "needs a converter", "another field"),
        (
            mapping({"PID-7": {"from": "PatientName", "convert": "xpn"}}),
            "rules.PID-7.convert",
            "cannot give PID-7 (TS)",
            "",
        ),
        (
            mapping({"PID-8": {"from": "PatientSex", "convert": {"table": "sx"}}}),
            "rules.PID-8.convert.table",
            "no table sx",
            "did you mean sex?",
        ),
        (mapping({"PID-8": {"from": "PatientSex", "unknown": "keep"}}), "rules.PID-8.unknown", "only a table", ""),
        (mapping({"PID-8": {"from": "PatientSex", "edit": "uper"}}), "rules.PID-8.edit", "unknown edit", "upper"),
        (mapping({"PID-5": {"from": "PatientName", "edit": "upper"}}), "rules.PID-5.edit", "edits change texts", ""),
        (mapping({"PID-8": {"form": "PatientSex"}}), "rules.PID-8.form", "unknown key 'form'", "did you mean from?"),
        (mapping({"PID-8": {"from": "PatientSex", "value": "F"}}), "rules.PID-8", "either from or value", ""),
        (mapping({"PID-8": {"when": {"PatientSex": "F"}}}), "rules.PID-8", "neither from nor value", ""),
        (
            mapping({"PID-8": {"from": "PatientSex", "missing": "omitt"}}),
            "rules.PID-8.missing",
            "unknown policy",
            "omit",
        ),
        (mapping({"PID-8": {"from": "PatientSex", "repeat": "all"}}), "rules.PID-8.repeat", "does not repeat", ""),
        (mapping({"PID-8": {"from": "PatientSex", "with": "PatientName"}}), "rules.PID-8.with", "has no use", ""),
        (
            mapping({"PID-8": {"from": "PatientSex", "when": {"PatentSex": "F"}}}),
            "rules.PID-8.when.PatentSex",
            "no attribute",
            "PatientSex",
        ),
        (
            mapping({"PID-8": [{"from": "PatientSex", "missing": "refuse"}, {"value": "F"}]}),
            "rules.PID-8.0.missing",
            "never count",
            "",
        ),
        (mapping({"PV1-2": {"value": "I"}, "PID-8": "PatientSex"}), "rules.PV1-2", "not among the segments", ""),
        (
            mapping({"PID-8": "PatientSex"}, ["MSH", "PID", "EVM"]),
            "segments.2",
            "has a segment EVM",
            "did you mean EVN?",
        ),
        (mapping({"PID-8": "PatientSex"}, ["MSH", "PID", "PV1"]), "segments", "no rule says what is in PV1", ""),
        (mapping({"PID-8": "PatientSex"}, ["PID"]), "segments", "begins with MSH", ""),
        (mapping({"PID-8": "PatientSex"}, ["MSH", "PID", "rows"]), "segments", "there are no rows", ""),
        (mapping({"PID-8": "PatientSex"}, rows=ROWS), "rows", "no place for rows", ""),
        (
            mapping({"PID-8": "PatientSex"}, ["MSH", "PID", {"each": "PatientName", "segments": ["PID"]}]),
            "segments.2.each",
            "is no sequence",
            "",
        ),
        (mapping({}, ["MSH", "rows"], rows={"a": {"OBX-5": {"value": "x"}}}), "rows.a", "nothing in it reads", ""),
        (
            mapping({}, ["MSH", "rows"], rows={"a": {"OBX-5": "PatientSex", "NTE-3": {"value": "x"}}}),
            "rows.a",
            "a row is one segment",
            "",
        ),
        ({**mapping({"PID-8": "PatientSex"}), "hl7": "2.51"}, "hl7", "unknown hl7 '2.51'", "2.5.1"),
        ({**mapping({"PID-8": "PatientSex"}), "about": "orders"}, "about", "unknown about", "order"),
        ({**mapping({"PID-8": "PatientSex"}), "message": "ORM"}, "message", "a code and an event", ""),
        ({**mapping({"PID-8": "PatientSex"}), "identity": {}}, "identity", "unknown key 'identity'", ""),
        ({"hl7": "2.3.1", "segments": ["MSH"]}, "message", "message is lacking", ""),
    ],
)
def test_a_mistake_is_told_with_its_place_and_what_was_meant(
    said: dict[str, Any], where: str, text: str, hint: str
) -> None:
    problem = problems(said, library=Library({"sex": {}}))[0]
    assert (problem.path, text in problem.text, hint in problem.hint) == (where, True, True)


def test_rules_of_an_extended_set_may_have_no_segment() -> None:
    base = mapping({"PID-5": "PatientName", "PV1-19": "event.VisitNumber"}, ["MSH", "PID", "PV1"])
    assert lines(compiled(base, {"segments": ["MSH", "PID"]})) == ["PID|||||Muster^Eva^^^^^L"]


def test_all_problems_are_told_at_once_and_one_of_a_base_is_told_of_the_base() -> None:
    base = mapping({"PID-5": "PatientNam"})
    found = problems(base, {"rules": {"PID-8": "PatientSx"}})
    assert [(each.source, each.path) for each in found] == [("m0", "rules.PID-5.from"), ("m1", "rules.PID-8.from")]


# ---- converters ----


def convert(name: str, value: Any, beside: Any = None) -> str:
    return composed(OUTBOUND_CONVERTERS[name].function(value, beside, Setting(zone=BERLIN)))


@pytest.mark.parametrize(
    ("converter", "value", "beside", "expected"),
    [
        ("xpn", person_name_value("Muster^Eva^M^Dr.^jun."), None, "Muster^Eva^M^jun.^Dr.^^L"),
        ("xpn", person_name_value("Yamada^T=山田^太"), None, "Yamada^T^^^^^L^A~山田^太^^^^^L^I"),
        ("xpn", person_name_value("=山田^太"), None, "山田^太^^^^^L^I"),
        ("xpn", person_name_value("^^"), None, ""),
        ("xcn", person_name_value("Arzt^Anna^^Dr."), None, "^Arzt^Anna^^^Dr."),
        ("ndl", person_name_value("Tech^Tina"), None, "&Tech&Tina"),
        ("ts", "20260705", "093000.25", "20260705093000+0200"),
        ("ts", "20260105", "0930", "202601050930+0100"),
        ("ts", "20260705", "09", "202607050900+0200"),
        ("ts", "20260705", "235960", "20260705235960+0200"),
        ("ts", "20260705", None, "20260705"),
        ("ts", "20260705", "25", "20260705"),
        ("ts", "20260705093000-0500", None, "20260705093000-0500"),
        ("ts", "20260705093000.5", None, "20260705093000+0200"),
        ("ts", "1971", None, ""),
        ("date", "19710304", None, "19710304"),
        ("date", "1971.03.04", None, "19710304"),
        ("date", "unknown", None, ""),
        ("time", "0930", None, "0930"),
        ("number", 412, None, "412"),
        ("number", 12.5, None, "12.5"),
        ("number", 3.0, None, "3"),
        ("number", " 125.50", None, "125.50"),
        ("number", "much", None, ""),
        ("number", "NaN", None, ""),
        ("number", "1.5E-05", None, "0.000015"),
        ("number", "1.2e2", None, "120"),
        ("number", 1.5e-05, None, "0.000015"),
        ("number", "+.5", None, "0.5"),
        ("number", "1E400", None, ""),
        ("number", "1E-999999999", None, ""),
        ("number", "9" * 10_000, None, ""),
        ("number", "1_0", None, ""),
        ("number", "\u0663", None, ""),
        ("ei", "A1", issuer_item("HOSP", "1.2", "ISO"), "A1^HOSP^1.2^ISO"),
        ("ei", "A1", None, "A1"),
        ("cx", "4711", issuer_item("HOSP", "1.2", "ISO"), "4711^^^HOSP&1.2&ISO"),
        ("code", code_item("CT1", "99X", "Head"), None, "CT1^Head^99X"),
        ("code-value", code_item("CT1", "99X", "Head"), None, "CT1"),
        ("hl7", "a^b\\S\\c~d", None, "a^b\\S\\c~d"),
    ],
)
def test_converters(converter: str, value: Any, beside: Any, expected: str) -> None:
    assert convert(converter, value, beside) == expected


def test_a_person_is_identified_by_what_stands_beside_the_name() -> None:
    item = {
        TAG["PersonIdentificationCodeSequence"]: element(
            "PersonIdentificationCodeSequence", code_item("D17", "99HR", "x")
        )
    }
    assert convert("xcn", person_name_value("Arzt^Anna"), item) == "D17^Arzt^Anna^^^^^^99HR"


def test_an_equivalent_code_is_the_alternate_one() -> None:
    coded = code_item("CT1", "99X", "Head")
    coded[TAG["EquivalentCodeSequence"]] = element("EquivalentCodeSequence", code_item("RPID1", "RADLEX", "CT"))
    assert convert("code", coded) == "CT1^Head^99X^RPID1^CT^RADLEX"


@pytest.mark.parametrize("text", ["", "4711^^^HOSP&1.2&ISO^MR~0815", "a\\S\\b^c\\E\\d", "x\\T\\y&z"])
def test_facts_are_taken_apart_and_composed_again(text: str) -> None:
    assert composed(taken_apart(text)) == text


def test_text_with_every_delimiter_survives_being_a_fact() -> None:
    repetitions = (((("|^&~\\\\S\\"),), ("", "x")),)
    assert taken_apart(composed(repetitions)) == repetitions


@pytest.mark.parametrize("row", OUTBOUND_CONVERTERS.values(), ids=lambda row: row.name)
def test_every_converter_explains_itself_and_fits_some_field(row: Any) -> None:
    assert row.summary
    assert any(row.fits(parse_target(f"{segment}-{n}")) for segment, fields in SEGMENT_FIELDS.items()
               if segment != "MSH" for n in range(1, len(fields) + 1))  # fmt: skip


def test_every_fact_is_described() -> None:
    assert all(FACTS.values())
