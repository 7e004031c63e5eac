"""The procedure catalogue: rows to procedures and steps, look-up, and every mistake told at once."""

import pytest

from gateway.domain.attributes import TAG, text, values
from gateway.domain.catalogue import COLUMNS, Catalogue, Stated
from gateway.domain.problem import MappingError


def compile_csv(*lines: str) -> Catalogue:
    header, *data = [line.split(",") for line in lines]
    return Catalogue.compile([dict(zip(header, cells, strict=True)) for cells in data])


HEADER = "code,scheme,description,modality,protocol_code,protocol_scheme,protocol_meaning,step,station_ae_titles"


def test_one_row_is_one_procedure_with_one_step() -> None:
    catalogue = compile_csv(HEADER, "CTHEAD,99P,CT head,ct,P1,99X,CT head plain,,CT1")
    found = catalogue.find("CTHEAD", "99P")
    assert found is not None
    (step,) = found.steps
    assert text(found.attributes, "RequestedProcedureDescription") == "CT head"
    assert (step.modality, step.stations) == ("CT", ("CT1",))
    assert text(step.attributes, "ScheduledProcedureStepDescription") == "CT head plain"


def test_rows_without_a_step_name_are_protocol_codes_of_one_step() -> None:
    catalogue = compile_csv(HEADER, "A,99P,Both,CT,P1,99X,one,,CT1|CT2", "A,99P,,,P2,99X,two,,")
    found = catalogue.find("A", "99P")
    assert found is not None
    (step,) = found.steps
    assert [text(item, "CodeValue") for item in values(step.attributes, "ScheduledProtocolCodeSequence")] == [
        "P1",
        "P2",
    ]
    assert values(step.attributes, "ScheduledStationAETitle") == ["CT1", "CT2"]


def test_named_rows_are_steps_in_their_order() -> None:
    catalogue = compile_csv(HEADER, "N,99P,Bone,NM,,,,Injection,NMPREP", "N,99P,,NM,,,,Scan,NM1 NM2")
    found = catalogue.find("N", "99P")
    assert found is not None
    assert [text(step.attributes, "ScheduledProcedureStepDescription") for step in found.steps] == ["Injection", "Scan"]


def test_a_code_of_another_scheme_is_another_code() -> None:
    catalogue = compile_csv(HEADER, "A,99P,one,CT,,,,,CT1", "B,,any scheme,CT,,,,,CT1")
    assert catalogue.find("A", "99ELSE") is None
    assert catalogue.find("A", "L") is not None  # HL7's word for any local scheme
    assert catalogue.find("B", "99ELSE") is not None


def test_code_alone_finds_only_what_is_unambiguous() -> None:
    catalogue = compile_csv(HEADER, "A,99P,one,CT,,,,,CT1", "B,99P,two,CT,,,,,CT1", "B,99Q,three,MR,,,,,MR1")
    assert catalogue.find("A") is not None
    assert catalogue.find("B") is None
    exact = catalogue.find("B", "99Q")
    assert exact is not None
    assert text(exact.attributes, "RequestedProcedureDescription") == "three"
    assert catalogue.find("C") is None


def test_scheme_names_meet_whatever_their_spelling() -> None:
    assert compile_csv(HEADER, "1,SNOMED-CT,x,CT,,,,,CT1").find("1", "SCT") is not None


TWO_STEPS = (HEADER, "W,99P,Work-up,MG,M1,99X,,1,MG1", "W,99P,,US,U1,99X,,2,US1 US2")


@pytest.mark.parametrize(
    ("stated", "names"),
    [
        (Stated(), ["1", "2"]),
        (Stated(modality="US"), ["2"]),
        (Stated(modality="CT"), []),
        (Stated(protocol_codes=frozenset({"M1"})), ["1"]),
        (Stated(protocol_codes=frozenset({"OTHER"})), []),
        (Stated(stations=frozenset({"US2"})), ["2"]),
        (Stated(stations=frozenset({"ELSEWHERE"})), ["1", "2"]),
    ],
)
def test_steps_fit_what_an_order_states(stated: Stated, names: list[str]) -> None:
    found = compile_csv(*TWO_STEPS).find("W")
    assert found is not None
    assert [step.name for step in found.fitting(stated)] == names


def test_name_and_place_of_a_station_go_with_that_station_only() -> None:
    row = dict.fromkeys(COLUMNS, "") | {
        "code": "A",
        "station_ae_titles": "CT1",
        "station_name": "CT one",
        "modality": "CT",
    }
    found = Catalogue.compile([row]).find("A")
    assert found is not None
    (step,) = found.steps
    assert TAG["ScheduledStationName"] in step.for_stations(frozenset())
    assert TAG["ScheduledStationName"] in step.for_stations(frozenset({"CT1"}))
    assert TAG["ScheduledStationName"] not in step.for_stations(frozenset({"CT9"}))


def test_every_mistake_is_told_with_its_line() -> None:
    bad = {
        "code": "A",
        "modality": "C/T",
        "station_ae_titles": "TOO-LONG-AE-TITLE-1",
        "duration_min": "soon",
        "sceme": "x",
    }
    contradicting = {"code": "A", "modality": "MR", "station_ae_titles": "", "duration_min": "", "sceme": ""}
    with pytest.raises(MappingError) as raised:
        Catalogue.compile([bad, contradicting, {"code": "", "modality": "CT"}])
    told = {(problem.path, problem.line) for problem in raised.value.problems}
    assert told == {
        ("sceme", 1), ("modality", 2), ("station_ae_titles", 2), ("duration_min", 2), ("modality", 3), ("code", 4),
    }  # fmt: skip
    assert "did you mean scheme?" in str(raised.value)


def test_steps_are_named_in_all_rows_or_in_none() -> None:
    with pytest.raises(MappingError, match="some rows name a step"):
        compile_csv(HEADER, "A,99P,x,CT,,,,1,CT1", "A,99P,,CT,,,,,CT1")


def test_empty_rows_are_skipped_and_digest_follows_content() -> None:
    one, other = compile_csv(HEADER, "A,,x,CT,,,,,CT1", ",,,,,,,,"), compile_csv(HEADER, "A,,y,CT,,,,,CT1")
    assert len(one.procedures) == 1
    assert one.digest != other.digest
