"""Station rules: the most specific row wins, what an order says itself is kept, and the trace names the row."""

from typing import Any

import pytest
from mapping_documents import STEP, PlainEntry, event, mapping, result

from gateway.domain.attributes import text, values
from gateway.domain.catalogue import Catalogue
from gateway.domain.mapping import MappingError
from gateway.domain.problem import Problem
from gateway.domain.rows import Row
from gateway.domain.stations import Stations, Step

HEADER = ("modality", "procedure_code", "patient_class", "OBR-21", "station_ae_titles", "station_name", "location")


def stations(*said: str) -> Stations:
    return Stations.compile([dict(zip(HEADER, one.split(","), strict=True)) for one in said])


RULES = stations(
    "CT,,,,CT1 CT2,,",
    "CT,,E,,CT2,CT 2,EMERGENCY",
    "CT,HEAD*|SKULL,,,CT3,,NEURO",
    "CR|DX,,,,CR1|CR2,,",
    ",,,NORTH,,,NORTH WING",
    "MR,,*,,MR1,,",
)


def chosen(modality: str = "", code: str = "", *named: str, **fields: str) -> int | None:
    """The line of the row for such a step."""
    step = Step(modality, frozenset({code}), frozenset(), frozenset(named))
    row = RULES.find(PlainEntry(**fields), step)
    return row.line if row else None


@pytest.mark.parametrize(
    ("said", "line"),
    [
        ({"modality": "CT"}, 2),
        ({"modality": "ct"}, 2),
        ({"modality": "CT", "PV1_2": "E"}, 3),
        ({"modality": "CT", "PV1_2": "e^Emergency"}, 3),
        ({"modality": "CT", "code": "HEAD77"}, 4),
        ({"modality": "CT", "code": "skull"}, 4),
        ({"modality": "CT", "code": "SKULLBASE"}, 2),
        ({"modality": "CT", "code": "HEAD77", "PV1_2": "E"}, 3),  # as specific, and the earlier
        ({"modality": "DX"}, 5),
        ({"OBR_21": "North"}, 6),
        ({"modality": "MR"}, None),
        ({"modality": "MR", "PV1_2": "I"}, 7),
        ({"modality": "US"}, None),
    ],
)
def test_the_row_with_the_most_conditions_wins(said: dict[str, str], line: int | None) -> None:
    assert chosen(**said) == line


def test_a_row_counts_only_if_it_has_the_stations_that_the_order_names() -> None:
    assert chosen("CT", "", "CT2", PV1_2="E") == 3
    assert chosen("CT", "", "CT1", PV1_2="E") == 2
    assert chosen("CT", "", "CT9") is None


ASKING: dict[str, Any] = {
    f"{STEP}ScheduledStationAETitle": {"from": "ORC-18", "repeat": "all", "missing": ["catalogue", "stations"]},
    f"{STEP}ScheduledStationName": {"missing": ["catalogue", "stations"]},
    f"{STEP}ScheduledProcedureStepLocation": {"missing": ["stations", "catalogue"]},
    f"{STEP}Modality": {"from": "OBR-24", "convert": "modality", "missing": "catalogue"},
}
CATALOGUE = Catalogue.compile(
    [
        {"code": "KNEE", "modality": "CT", "station_ae_titles": "", "location": "BASEMENT"},
        {"code": "HEART", "modality": "CT", "station_ae_titles": "CT1", "location": "CATH LAB"},
    ]
)


def step(**fields: str) -> tuple[list[Any], str, str]:
    """Stations, station name and location of the one step, stated or filled."""
    found = result(ASKING, stations=RULES, catalogue=CATALOGUE, **{"OBR_4": "X", **fields})
    (procedure,) = event(found).procedures
    (one,) = procedure.steps
    made = {**one.defaults, **one.attributes}
    return (
        values(made, "ScheduledStationAETitle"),
        text(made, "ScheduledStationName"),
        text(made, "ScheduledProcedureStepLocation"),
    )


def test_an_order_without_station_gets_the_rows() -> None:
    assert step(OBR_24="CT") == (["CT1", "CT2"], "", "")
    assert step(OBR_24="CT", PV1_2="E") == (["CT2"], "CT 2", "EMERGENCY")


def test_the_catalogues_modality_chooses_the_row() -> None:
    assert step(OBR_4="KNEE", PV1_2="E") == (["CT2"], "CT 2", "EMERGENCY")


def test_the_first_policy_that_has_something_wins() -> None:
    assert step(OBR_4="HEART") == (["CT1"], "", "CATH LAB")  # the row of CT has no location
    assert step(OBR_4="KNEE")[2] == "BASEMENT"


def test_an_orders_own_station_stays_and_gets_its_own_name() -> None:
    assert step(OBR_24="CT", PV1_2="E", ORC_18="CT2") == (["CT2"], "CT 2", "EMERGENCY")
    assert step(OBR_24="CT", PV1_2="E", ORC_18="CT1") == (["CT1"], "", "")
    assert step(OBR_24="CT", ORC_18="ELSEWHERE") == (["ELSEWHERE"], "", "")


def test_what_a_row_gives_does_not_replace_what_is_held() -> None:
    (procedure,) = event(result(ASKING, stations=RULES, OBR_24="CT", OBR_4="X")).procedures
    assert text(procedure.steps[0].defaults, "ScheduledStationAETitle") == "CT1"
    assert not text(procedure.steps[0].attributes, "ScheduledStationAETitle")


def test_the_trace_names_the_row_and_its_conditions() -> None:
    found = result(ASKING, stations=RULES, OBR_24="CT", OBR_4="X", PV1_2="E")
    (entry,) = [entry for entry in found.trace if entry.target.endswith("ScheduledStationAETitle")]
    assert (entry.rule, entry.converter) == ("stations.csv line 3: modality ct, patient_class e", "missing: stations")


def test_station_rules_are_part_of_the_mappings_version() -> None:
    assert mapping(ASKING).version_id == mapping(ASKING, stations=Stations()).version_id
    assert mapping(ASKING).version_id != mapping(ASKING, stations=RULES).version_id


def problems(*rows: dict[str, str]) -> list[Problem]:
    with pytest.raises(MappingError) as raised:
        Stations.compile(rows)
    return list(raised.value.problems)


def test_every_problem_of_station_rules_is_told_with_its_line() -> None:
    found = problems(
        Row({"modalty": "CT", "modality": "CT", "station_ae_titles": "CT1"}, 5),
        Row({"modality": "CT", "station_ae_titles": "CT2"}, 7),
        Row({"modality": "MR"}, 8),
        Row({"modality": "US", "station_ae_titles": "A-TITLE-FAR-TOO-LONG", "location": "x" * 17}, 9),
    )
    assert [(problem.path, problem.line) for problem in found] == [
        ("modalty", 1), ("", 7), ("", 8), ("station_ae_titles", 9), ("location", 9),
    ]  # fmt: skip
    assert found[0].hint == "did you mean modality?"
    assert found[1].text == "the conditions of line 5 again, so this row never counts"


def test_no_rows_are_no_rules() -> None:
    assert Stations.compile([]).rows == ()
    assert Stations.compile([]).digest == ""
