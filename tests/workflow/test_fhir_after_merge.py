"""What we made of an order is about whoever the patient is now, from the merge on: here, and on the EHR's server."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fhir_roads import ORDER, PATIENT, Road
from typer.testing import CliRunner

from gateway.commands.patients import patients
from gateway.domain.facts import Stamp
from gateway.domain.identifiers import Identifier
from gateway.domain.patient import IdentifierChange, PatientEvent, PatientInput, PatientLink, PatientMerge
from gateway.domain.performed import MPPSState, PerformedStep
from gateway.domain.progress import Progress
from gateway.domain.resources import Resource, ResourceKey
from gateway.edges.store import StoreUnit
from gateway.processing import now
from gateway.testing import site
from gateway.testing.fhir_validity import check
from gateway.wire import fhir_json
from gateway.wire.fhir_interactions import Kind
from gateway.wire.fhir_performance import made_id
from gateway.wire.fhir_release import Release
from gateway.wire.fhir_transaction import settled
from gateway.workflow.audience import NO_MESSAGE, Audience, FHIRTarget, FHIRWriting
from gateway.workflow.fhir_identities import take_back
from gateway.workflow.identities import BY_HAND
from gateway.workflow.orders import apply_events
from gateway.workflow.performed_effects import take_effect
from gateway.workflow.ports import MessageSearch

UID = "2.25.5550001"
WRITING = FHIRWriting(gateway="GATEWAY")
MADE = frozenset({"ServiceRequest", "Procedure", "ImagingStudy", "Provenance"})
EMR = FHIRTarget("emr", WRITING, MADE, "emr")
PRIOR, SURVIVOR = (Identifier(value, "1.2.3") for value in ("100", "200"))
OTHER = {**PATIENT, "id": "p2", "identifier": [{"system": "urn:oid:1.2.3", "value": "200"}]}
REPLACED = {**PATIENT, "link": [{"other": {"reference": "Patient/p2"}, "type": "replaced-by"}]}
A40 = PatientMerge(PatientInput((SURVIVOR,), {}), (PRIOR,))


@pytest.fixture
def road(tmp_path: Path) -> Iterator[Road]:
    made = Road(tmp_path / "gateway.db", audience=Audience(fhir=(EMR,), offered=WRITING))
    link = "Patient.link.where(type = 'replaces').other.resolve().identifier"
    made.feed = made.feed_with(made.rules["rules"], PriorPatientID={"from": link})
    yield made
    made.close()


def perform(road: Road, uid: str = UID, patient: Identifier = PRIOR) -> None:
    """A modality does what is scheduled for a patient."""

    def use_case(unit: StoreUnit) -> None:
        (person,) = unit.patients([patient])
        (order,) = [unit.order(each) for each in unit.belongings(person.id or 0).orders]
        assert order is not None
        steps = tuple(step.id or 0 for each in order.procedures for step in each.steps)
        said = {
            "00400244": {"vr": "DA", "Value": ["20260706"]}, "00400245": {"vr": "TM", "Value": ["093000"]},
            "00080060": {"vr": "CS", "Value": ["CT"]},
        }  # fmt: skip
        done = PerformedStep(uid, MPPSState.IN_PROGRESS, said, "CT1", person.id, steps)
        unit.save_performed_step(done, now())
        take_effect(unit, done, unit.steps(steps), now(), road.feed.audience)

    road.store.write(use_case).result()


def by_hl7(road: Road, *events: PatientEvent, **said: Any) -> None:
    under = replace(road.feed.circumstances("adt 1", Stamp("", "adt"), "adt"), **said)
    road.store.write(lambda unit: apply_events(unit, list(events), under, now())).result()


def offered(road: Road, kind: str, of: str) -> Resource:
    held = road.store.reader.resource(ResourceKey("r4", kind, made_id(kind, of)))
    assert held is not None
    check(held.content, Release.R4)
    return held.content


def study(road: Road) -> str:
    return str(road.items()[0].attributes["0020000D"]["Value"][0])


def subjects(road: Road) -> list[Resource]:
    return [offered(road, *each)["subject"] for each in (("Procedure", UID), ("ImagingStudy", study(road)))]


def sent(road: Road) -> list[Resource]:
    """Bundles that wait for the EHR, oldest first."""
    found = road.store.reader.find_messages(MessageSearch(listener="emr", direction="out"), 50)
    return [fhir_json.parse(each.record.raw) for each in found[::-1]]


def test_a_merge_by_hl7_moves_what_is_offered_to_the_patient_who_is_held_here(road: Road) -> None:
    road.put(PATIENT, OTHER, ORDER)
    perform(road)
    assert subjects(road) == [{"reference": "Patient/p1"}] * 2
    by_hl7(road, A40)
    assert subjects(road) == [{"reference": "Patient/p2"}] * 2
    assert road.held(ORDER).content["subject"] == {"reference": "Patient/p1"}  # that is its sender's


def test_a_merge_by_hl7_into_somebody_who_is_not_held_here_names_the_number(road: Road) -> None:
    road.put(PATIENT, ORDER)
    perform(road)
    by_hl7(road, A40)
    for subject in subjects(road):
        assert subject["identifier"]["value"] == "200"
        assert "reference" not in subject


@pytest.mark.parametrize("first", [PATIENT, REPLACED], ids=["then", "with the link from the start"])
def test_a_merge_by_a_link_moves_what_is_offered(road: Road, first: Resource) -> None:
    road.put(PATIENT, OTHER, ORDER)
    if first is REPLACED:
        road.put(REPLACED)
        perform(road, patient=SURVIVOR)
    else:
        perform(road)
        assert road.put(REPLACED).status == 200
    assert subjects(road) == [{"reference": "Patient/p2"}] * 2


def test_provenance_tells_of_the_new_versions_and_nothing_else_gets_one(road: Road) -> None:
    road.put(PATIENT, OTHER, ORDER)
    perform(road)
    before = road.held(ORDER).version
    by_hl7(road, A40)
    by_hl7(road, A40)  # said once more
    held = road.store.reader.resource(ResourceKey("r4", "Procedure", made_id("Procedure", UID)))
    assert held is not None
    assert (held.version, road.held(ORDER).version) == (2, before)
    told = road.store.reader.find_resources("r4", "Provenance")
    assert sorted(len(each.content["target"]) for each in told)[0] == 2


def test_an_order_that_nobody_performed_is_not_told(road: Road) -> None:
    road.put(PATIENT, OTHER, ORDER)
    count = len(sent(road))
    by_hl7(road, A40)
    assert len(sent(road)) == count


def test_a_link_that_merges_and_one_that_is_taken_back(road: Road) -> None:
    road.put(PATIENT, OTHER, ORDER)
    perform(road)
    link = PatientLink(PatientInput((SURVIVOR,), {}), PatientInput((PRIOR,), {}), linked=True)
    by_hl7(road, link, merge_linked=True)
    assert subjects(road) == [{"reference": "Patient/p2"}] * 2
    by_hl7(road, replace(link, linked=False), merge_linked=True)
    assert subjects(road) == [{"reference": "Patient/p1"}] * 2


def in_ehr(road: Road, *resources: Resource) -> None:
    assert road.put(*resources, kind=Kind.FETCHED, source="emr").status == 200


@pytest.mark.parametrize("way", ["A40", "link"])
def test_the_server_of_the_order_gets_the_new_subject(road: Road, way: str) -> None:
    in_ehr(road, PATIENT, OTHER, ORDER)
    perform(road)
    count = len(sent(road))
    if way == "A40":
        by_hl7(road, A40)
    else:
        in_ehr(road, REPLACED)
    (bundle,) = sent(road)[count:]
    for named, becomes in (
        ("Patient/p1", "Patient/p2"),
        ("https://emr/fhir/Patient/p1", "Patient/p2"),
        ("Patient/9", "Patient/9"),  # whom its owner names now
    ):
        there = {**ORDER, "subject": {"reference": named}, "meta": {"versionId": "3"}}
        made = settled(bundle, {"ServiceRequest/o1": there})
        assert made is not None
        told = [each["resource"] for each in made["entry"] if each["resource"]["resourceType"] == "Procedure"]
        assert [each["subject"]["reference"] for each in told] == [becomes]
        assert "extension" not in str(made)


def test_a_server_that_is_told_of_the_end_alone_is_not_told_of_a_merge_before(road: Road) -> None:
    end = replace(EMR, tells=frozenset({Progress.COMPLETED}))
    road.feed = replace(road.feed, audience=Audience(fhir=(end,)))
    in_ehr(road, PATIENT, OTHER, ORDER)
    perform(road)
    by_hl7(road, A40)
    assert sent(road) == []


def test_links_in_a_circle_lead_nowhere(road: Road) -> None:
    back = {**OTHER, "link": [{"other": {"reference": "Patient/p1"}, "type": "replaced-by"}]}
    road.put(PATIENT, ORDER, OTHER)
    perform(road)

    def tangled(unit: StoreUnit) -> None:
        for each in (REPLACED, back):
            unit.save_resource(ResourceKey("r4", "Patient", each["id"]), each, now(), ())

    road.store.write(tangled).result()
    perform(road, f"{UID}.1")
    assert offered(road, "Procedure", f"{UID}.1")["subject"] == {"reference": "Patient/p1"}


def test_a_link_to_a_patient_who_comes_later_merges_when_that_one_comes(road: Road) -> None:
    road.put(PATIENT, ORDER)
    assert "waits for Patient/p2, which is not held" in road.put(REPLACED).notes
    assert road.said("PatientID") == "100"
    road.put(OTHER)
    assert road.said("PatientID") == "200"


def take_it_back(road: Road) -> None:
    """As a person types it."""
    under = replace(road.feed.circumstances(BY_HAND, Stamp("", ""), ""), said_by=NO_MESSAGE)
    line = next(each for each in road.store.reader.identity_changes() if each.undone is None)
    road.store.write(lambda unit: take_back(unit, line.id or 0, under, now())).result()


def test_a_merge_that_is_taken_back_by_hand_is_told_here_and_to_the_server_of_the_order(road: Road) -> None:
    in_ehr(road, PATIENT, OTHER, ORDER)
    perform(road)
    by_hl7(road, A40)
    count = len(sent(road))
    take_it_back(road)
    (bundle,) = sent(road)[count:]
    there = {**ORDER, "subject": {"reference": "Patient/p1"}, "meta": {"versionId": "3"}}
    made = settled(bundle, {"ServiceRequest/o1": there})
    assert made is not None
    told = [each["resource"] for each in made["entry"] if each["resource"]["resourceType"] == "Procedure"]
    assert [each["subject"]["reference"] for each in told] == ["Patient/p1"]
    assert "extension" not in str(made)


def test_a_merge_that_is_taken_back_by_hand_moves_what_is_offered(road: Road) -> None:
    road.put(PATIENT, OTHER, ORDER)
    perform(road)
    by_hl7(road, A40)
    take_it_back(road)
    assert subjects(road) == [{"reference": "Patient/p1"}] * 2


def test_an_order_that_came_since_and_goes_back_is_told_as_well(road: Road) -> None:
    road.put(PATIENT, OTHER)
    by_hl7(road, A40)
    road.put(ORDER)
    perform(road, patient=SURVIVOR)
    before = subjects(road)
    take_it_back(road)
    assert road.said("PatientID") == "100"
    assert subjects(road) == [{"reference": "Patient/p1"}] * 2 != before


def test_identifiers_that_were_changed_and_are_taken_back_are_told(road: Road) -> None:
    road.put(PATIENT, ORDER)
    perform(road)
    by_hl7(road, IdentifierChange(PatientInput((Identifier("300", "1.2.3"),), {}), (PRIOR,)))
    changed = subjects(road)
    take_it_back(road)
    assert subjects(road) == [{"reference": "Patient/p1"}] * 2 != changed


def test_the_command_tells_whoever_the_site_tells(tmp_path: Path) -> None:
    config = site(tmp_path, fhir={})
    road = Road(tmp_path / "gateway.db", audience=Audience(offered=WRITING))
    road.put(PATIENT, OTHER, ORDER)
    perform(road)
    by_hl7(road, A40)
    (line,) = road.store.reader.identity_changes()
    done = CliRunner().invoke(patients, ["unmerge", str(line.id), "--yes", "--config", str(config)])
    assert done.exit_code == 0, done.output
    assert subjects(road) == [{"reference": "Patient/p1"}] * 2
    road.close()
