"""One order by HL7 v2 and by FHIR whose issuers nobody says are one: two orders, and a note of what may be meant."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fhir_roads import ORDER, PATIENT, Road

from gateway.domain.attributes import TAG, element
from gateway.domain.facts import Stamp
from gateway.domain.identifiers import Identifier, Issuer, Issuers
from gateway.domain.order import OrderControl, OrderEvent, Policy, ProcedureInput, StepInput
from gateway.domain.patient import PatientInput
from gateway.edges.store import StoreUnit
from gateway.processing import now
from gateway.workflow.orders import apply_events
from gateway.workflow.ports import Outcome

EHR = Issuers([Issuer("EHR", frozenset({"EHRNS"}), frozenset({"1.2.4"}))])
HIS = "1.2.3"
STEP = {
    "ScheduledStationAETitle": "CT1", "Modality": "CT", "ScheduledProcedureStepStartDate": "20260706",
    "ScheduledProcedureStepStartTime": "093000",
}  # fmt: skip
GENERATE = {
    keyword: Policy("generate")
    for keyword in ("AccessionNumber", "RequestedProcedureID", "ScheduledProcedureStepID", "StudyInstanceUID")
}


@pytest.fixture
def road(template: tuple[Any, Path], tmp_path: Path) -> Iterator[Road]:
    opened = Road(shutil.copy(template[1], tmp_path))
    yield opened
    opened.close()


def ordered(number: Identifier, patient: Identifier, filler: Identifier | None = None) -> OrderEvent:
    step = StepInput("", {TAG[keyword]: element(keyword, value) for keyword, value in STEP.items()})
    procedure = ProcedureInput("", "", None, {}, (step,))
    return OrderEvent(
        OrderControl.NW, "", number, filler, PatientInput((patient,), {}), None, {}, (procedure,), GENERATE
    )


def by_ris(road: Road, event: OrderEvent, issuers: Issuers = EHR) -> Outcome:
    """The RIS orders this by HL7 v2."""
    under = road.feed.circumstances("ris", Stamp("", "ris"), "ris")
    under = replace(under, issuers=issuers)
    return road.store.write(lambda unit: apply_events(unit, [event], under, now())).result()


def told(notes: Any) -> list[str]:
    return [each for each in notes if "`issuers`" in each]


def test_an_order_number_of_another_issuer_is_noted_in_the_archive_and_in_the_answer(road: Road) -> None:
    by_ris(road, ordered(Identifier("P1", "RISNS"), Identifier("100", HIS)))
    answer = road.put(PATIENT, ORDER)
    assert len(road.items()) == 2  # nothing is guessed
    (note,) = told(road.messages()[-1].record.reasons.splitlines())
    for each in ("another order of this patient", "'RISNS'", "'1.2.4'", "which `issuers` does not name", "placer"):
        assert each in note
    assert "`issuers`" in str(answer.body)
    assert "P1" not in note  # numbers are kept elsewhere


def test_the_order_that_comes_second_by_hl7_has_the_note(road: Road) -> None:
    road.put(PATIENT, ORDER)
    (note,) = told(by_ris(road, ordered(Identifier("P1", ""), Identifier("100", HIS))).notes)
    assert "none named" in note


def test_an_issuer_that_is_known_is_said_without_a_doubt(road: Road) -> None:
    road.put(PATIENT, ORDER)
    (note,) = told(by_ris(road, ordered(Identifier("P1", "EHR"), Identifier("100", HIS))).notes)
    assert "('EHR' and '1.2.4', which `issuers` does not name)" in note


def test_a_filler_number_is_looked_up_as_well(road: Road) -> None:
    by_ris(road, ordered(Identifier("P7", "A"), Identifier("100", HIS), Identifier("F7", "A")))
    second = ordered(Identifier("P8", "A"), Identifier("100", HIS), Identifier("F7", "B"))
    (note,) = told(by_ris(road, second).notes)
    assert "the same filler order number" in note


@pytest.mark.parametrize(
    ("number", "patient", "filler", "noted"),
    [
        (Identifier("P1", "RISNS"), Identifier("100", "HISNS"), None, True),
        (Identifier("P1", "RISNS"), Identifier("200", HIS), None, False),
        (Identifier("P2", "RISNS"), Identifier("100", HIS), None, False),
        (Identifier("P2", "RISNS"), Identifier("100", HIS), Identifier("P1", "RISNS"), False),
    ],
    ids=["same patient number", "another patient", "another number", "a number of another kind"],
)
def test_only_the_same_number_of_the_same_patient_is_noted(
    road: Road, number: Identifier, patient: Identifier, filler: Identifier | None, noted: bool
) -> None:
    road.put(PATIENT, ORDER)
    assert bool(told(by_ris(road, ordered(number, patient, filler)).notes)) is noted


def test_patient_numbers_of_two_authorities_that_are_known_are_two_people(road: Road) -> None:
    both = Issuers([Issuer("HIS"), Issuer("LAB")])
    by_ris(road, ordered(Identifier("P1", "A"), Identifier("100", "HIS")), both)
    assert not told(by_ris(road, ordered(Identifier("P1", "B"), Identifier("100", "LAB")), both).notes)


def statements_of(road: Road, monkeypatch: pytest.MonkeyPatch, do: Callable[[], Any]) -> list[str]:
    """Which look-ups for namesakes are made while something is done."""
    asked: list[str] = []
    known = StoreUnit.namesakes
    with monkeypatch.context() as patched:
        patched.setattr(StoreUnit, "namesakes", lambda unit, *numbers: asked.append("look") or known(unit, *numbers))
        do()
    return asked


def test_it_is_looked_up_once_when_an_order_is_made_and_never_again(
    road: Road, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = ordered(Identifier("P1", "A"), Identifier("100", HIS), Identifier("F1", "A"))
    assert len(statements_of(road, monkeypatch, lambda: by_ris(road, new))) == 1
    assert statements_of(road, monkeypatch, lambda: by_ris(road, new)) == []
    change = OrderEvent(OrderControl.XO, "", new.placer, new.filler, new.patient, None, {}, new.procedures)
    assert statements_of(road, monkeypatch, lambda: by_ris(road, change)) == []
