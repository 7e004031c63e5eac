"""Accession numbers of two issuers may be equal: what an MPPS is linked to without its study, and what is proposed."""

from dataclasses import replace
from typing import Any

import pytest
from people import AT, attributes, key, order, tried
from performed_steps import begun, named, valued

from gateway.domain.identifiers import Identifier, Issuer, Issuers
from gateway.domain.patient import Patient
from gateway.domain.performed import Attention
from gateway.domain.worklist import SPSStatus
from gateway.edges.store import Store, StoreUnit
from gateway.workflow.linking import PatientIssuers
from gateway.workflow.perform import link_waiting
from gateway.workflow.proposals import ACCESSION, proposals
from gateway.workflow.second_source import SEVERAL_ISSUERS, complete_study

UID = "1.2.840.1"
NORTH, SOUTH = "NORTH", "SOUTH"
REGISTRY = Issuers((Issuer(NORTH, namespaces=frozenset({"N"}), universal_ids=frozenset({"1.2.3.4"})),))


def ordered(unit: StoreUnit, number: int, issuer: str) -> int:
    """The step of an order with accession number A1 of this issuer, requested procedure R1."""
    found = unit.patients([key("P1")])
    patient = found[0].id if found else unit.save_patient(Patient(None, (key("P1"),), attributes(PatientID="P1")), AT)
    made = order(patient or 0, number)
    (procedure,) = made.procedures
    accession = Identifier("A1", issuer)
    procedure = replace(procedure, accession=accession, requested_procedure_id="R1")
    (step,) = unit.save_order(replace(made, procedures=(procedure,)), "NW", AT).procedures[0].steps
    return step.id or 0


def names(issuer: str = "", universal_id: str = "") -> dict[str, Any]:
    """What an MPPS says of a step when its study is one of the modality's own."""
    said = named("2.25.999", accession="A1", procedure="R1")
    if issuer or universal_id:
        entity = {"00400031": valued("UT", *filter(None, [issuer])), "00400032": valued("UT", universal_id)}
        said["00080051"] = valued("SQ", entity)
    return said


@pytest.mark.parametrize("issuer", [NORTH, SOUTH])
def test_of_equal_accession_numbers_that_of_the_issuer_it_names_is_meant(store: Store, issuer: str) -> None:
    def job(unit: StoreUnit) -> None:
        steps = {each: ordered(unit, number, each) for number, each in enumerate((NORTH, SOUTH))}
        assert begun(unit, UID, names(issuer)).steps == (steps[issuer],)

    tried(store, job)


def test_another_issuers_accession_number_is_not_linked_by_itself(store: Store) -> None:
    def job(unit: StoreUnit) -> None:
        step = ordered(unit, 1, SOUTH)
        held = begun(unit, UID, names(NORTH))
        assert (held.steps, held.attention) == ((), Attention.NO_ORDER)
        assert unit.steps([step])[0].status is SPSStatus.SCHEDULED
        assert not any(ACCESSION in each.reasons for each in proposals(unit, UID))
        late = ordered(unit, 2, NORTH)  # the one that is meant comes late
        changes = link_waiting(unit, [], ["A1"], AT, PatientIssuers(Issuers(), "HOSPITAL")).changes
        assert [each.step_id for each in changes] == [late]

    tried(store, job)


def test_one_that_names_no_issuer_is_linked_only_where_one_has_the_number(store: Store) -> None:
    def job(unit: StoreUnit) -> None:
        step = ordered(unit, 1, NORTH)
        assert begun(unit, UID, names()).steps == (step,)
        ordered(unit, 2, SOUTH)
        held = begun(unit, f"{UID}.2", names())
        assert (held.steps, held.attention) == ((), Attention.AMBIGUOUS)

    tried(store, job)


def test_an_order_that_names_no_issuer_is_meant_where_nobody_elses_is(store: Store) -> None:
    def job(unit: StoreUnit) -> None:
        unnamed = ordered(unit, 1, "")
        assert begun(unit, UID, names(NORTH)).steps == (unnamed,)
        exactly = ordered(unit, 2, NORTH)
        assert begun(unit, f"{UID}.2", names(NORTH)).steps == (exactly,)

    tried(store, job)


@pytest.mark.parametrize(("issuer", "universal_id"), [("N", ""), ("", "1.2.3.4"), ("anything", "1.2.3.4")])
def test_issuers_are_compared_as_the_registry_knows_them(store: Store, issuer: str, universal_id: str) -> None:
    def job(unit: StoreUnit) -> None:
        ordered(unit, 1, NORTH)
        ordered(unit, 2, SOUTH)
        begun(unit, UID, names(issuer, universal_id))
        (fits, other) = proposals(unit, UID, REGISTRY)
        assert (ACCESSION in fits.reasons, ACCESSION in other.reasons) == (True, False)
        (change,) = link_waiting(unit, [], ["A1"], AT, PatientIssuers(REGISTRY, "HOSPITAL")).changes
        assert change.step_id == fits.step.step_id

    tried(store, job)


def test_the_images_of_an_accession_number_of_several_issuers_complete_nothing(store: Store) -> None:
    def job(unit: StoreUnit) -> None:
        one = ordered(unit, 1, NORTH)
        other = ordered(unit, 2, SOUTH)
        assert complete_study(unit, "2.25.777", "A1", AT, "images available").notes == (SEVERAL_ISSUERS,)
        done = complete_study(unit, "2.25.1", "A1", AT, "images available")  # their study says which
        assert [each.step_id for each in done.changes] == [one]
        assert unit.steps([other])[0].status is SPSStatus.SCHEDULED

    tried(store, job)
