"""Values that are remembered: they come as if worked out afresh, whatever came before, and everything is told again."""

from dataclasses import replace
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from mapping_documents import STEP, PlainDocument, event, mapping

from gateway.domain.attributes import Attributes, text, values
from gateway.domain.converters import CONVERTERS
from gateway.domain.mapping import Mapping, MappingResult
from gateway.domain.mapping_values import REMEMBERED_CHARACTERS_MAX
from gateway.domain.refusal import RefusalKind

BERLIN, LISBON = ZoneInfo("Europe/Berlin"), ZoneInfo("Europe/Lisbon")


def patient(found: MappingResult) -> Attributes:
    return event(found).patient.attributes


def three_times(engine: Mapping, **fields: str) -> list[MappingResult]:
    """The same message over and over; traced, nothing is remembered."""
    found = [engine.apply(PlainDocument(**fields)) for _ in range(3)]
    traced = engine.apply(PlainDocument(**fields), trace=True)
    for each in found:
        assert (each.events, each.refusals, each.notes) == (traced.events, traced.refusals, traced.notes)
    return found


def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every text that the converter of texts is given."""
    row = CONVERTERS["text"]
    seen: list[str] = []

    def convert(repetition: Any, setting: Any) -> Any:
        seen.append(repetition[0][0])
        return row.function(repetition, setting)

    monkeypatch.setitem(CONVERTERS, "text", replace(row, function=convert))
    return seen


def test_what_comes_again_is_converted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = counted(monkeypatch)
    engine = mapping({"Occupation": "PID-2"})
    for word in ("one", "two", "one", "two"):
        assert text(patient(engine.apply(PlainDocument(PID_2=word))), "Occupation") == word
    assert seen == ["one", "two"]


def test_long_values_are_read_each_time_and_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = counted(monkeypatch)
    engine = mapping({"PatientComments": "PID-2"})
    longest, long = "x" * REMEMBERED_CHARACTERS_MAX, "x" * (REMEMBERED_CHARACTERS_MAX + 1)
    for said in (longest, long, longest, long):
        assert text(patient(engine.apply(PlainDocument(PID_2=said))), "PatientComments") == said
    assert seen == [longest, long, long]
    assert len(three_times(engine, PID_2=long)) == 3


def test_a_null_deletes_every_time() -> None:
    engine = mapping({"Occupation": "PID-2", "PatientAddress": "PID-11"})
    for found in three_times(engine, PID_2='""', PID_11='""^^'):
        assert patient(found)["00102180"] == {"vr": "SH"}
        assert patient(found)["00101040"] == {"vr": "LO"}


def test_a_null_gives_way_to_a_later_path_that_says_something() -> None:
    engine = mapping({"Occupation": ["PID-2", "PID-9"]} | {"PatientComments": {"from": ["PID-2", "PID-9"]}})
    for found in three_times(engine, PID_2='""', PID_9="Baker"):
        assert text(patient(found), "PatientComments") == "Baker"
    for found in three_times(engine, PID_2='""'):
        assert patient(found)["00104000"] == {"vr": "LT"}


def test_deleting_what_a_worklist_item_needs_is_refused_every_time() -> None:
    engine = mapping({STEP + "ScheduledStationAETitle": "OBR-21"})
    for found in three_times(engine, OBR_4="X", OBR_21='""'):
        (refusal,) = found.refusals
        assert (refusal.kind, refusal.where) == (RefusalKind.MISSING_VALUE, "OBR-21")


def test_notes_are_said_again_with_every_message() -> None:
    rules = {
        "PatientAddress": {"from": "PID-11", "length": "cut"},
        "PatientBirthDate": {"from": "PID-7", "convert": "birth-date"},
    }
    for found in three_times(mapping(rules), PID_11="x" * 70, PID_7="1961"):
        assert found.notes == (
            "PID-11: PatientAddress: cut to 64 characters",
            "PID-7: PatientBirthDate: a partial date of birth cannot be shown in DICOM; left out",
        )


def test_refusals_are_said_again_with_every_message() -> None:
    for found in three_times(mapping({"PatientBirthDate": "PID-7"}), PID_7="20269999"):
        assert [(each.kind, each.where) for each in found.refusals] == [(RefusalKind.BAD_VALUE, "PID-7.1")]


def test_several_repetitions_are_not_taken_for_the_first_alone() -> None:
    engine = mapping({"PatientComments": {"from": "PID-2", "repeat": "join"}})
    assert text(patient(engine.apply(PlainDocument(PID_2="one"))), "PatientComments") == "one"
    for found in three_times(engine, PID_2="one~two"):
        assert text(patient(found), "PatientComments") == "one\r\ntwo"


def test_components_of_one_field_do_not_stand_for_each_other() -> None:
    engine = mapping({"Occupation": "PID-2.1", "PatientComments": "PID-2.2"})
    for one, two in (("A", "B"), ("B", "A"), ("A", "B")):
        for found in three_times(engine, PID_2=f"{one}^{two}"):
            assert (text(patient(found), "Occupation"), text(patient(found), "PatientComments")) == (one, two)


def test_one_rule_set_serves_departments_in_two_zones_in_turns() -> None:
    start = {
        STEP + "ScheduledProcedureStepStartDate": {"from": "TQ1-7", "convert": "date"},
        STEP + "ScheduledProcedureStepStartTime": {"from": "TQ1-7", "convert": "time"},
    }
    engine = mapping(start)
    document = PlainDocument(TQ1_7="20260706003000+0200", OBR_4="X")
    for _ in range(2):
        for zone, date, time in ((BERLIN, "20260706", "003000"), (LISBON, "20260705", "233000")):
            found = engine.apply(document, zone=zone)
            ((step,),) = (procedure.steps for procedure in event(found).procedures)
            assert text(step.attributes, "ScheduledProcedureStepStartDate") == date
            assert text(step.attributes, "ScheduledProcedureStepStartTime") == time
            assert bool(found.notes) == (zone is LISBON)
    unmoved = event(engine.apply(document)).procedures[0].steps[0]
    assert text(unmoved.attributes, "ScheduledProcedureStepStartTime") == "003000"


def test_two_rule_sets_remember_apart() -> None:
    rules = {"PatientComments": {"from": "PID-2", "convert": {"table": "words"}}}
    engines = {word: mapping(rules, tables={"words": {"A": word}}) for word in ("first", "second")}
    for _ in range(2):
        for word, engine in engines.items():
            assert values(patient(engine.apply(PlainDocument(PID_2="A"))), "PatientComments") == [word]
