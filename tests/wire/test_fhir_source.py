"""Graphs of FHIR resources: what references mean, and which documents the resources make."""

import pytest

from gateway.domain.order import OrderControl
from gateway.domain.patient import VisitChange
from gateway.domain.refusal import Refused
from gateway.domain.source import Kind
from gateway.wire.fhir_performance import OURS
from gateway.wire.fhir_release import Release
from gateway.wire.fhir_source import (
    Graph,
    Reading,
    bundle_graph,
    encounter_document,
    order_document,
    patient_document,
    root_of,
)

READING = Reading(Release.R4)
PATIENT = {"resourceType": "Patient", "id": "1", "identifier": [{"system": "urn:x", "value": "100"}]}
REQUEST = {
    "resourceType": "ServiceRequest", "id": "1", "status": "active", "intent": "order",
    "subject": {"reference": "Patient/1"},
}  # fmt: skip


def graph_of(*resources, **more):
    return Graph({f"{each['resourceType']}/{each['id']}": each for each in resources}, **more)


@pytest.mark.parametrize(
    "reference",
    [
        {"reference": "Patient/1"}, {"reference": "Patient/1/_history/3"}, "Patient/1",
        {"reference": "http://a.example/fhir/Patient/1"}, {"reference": "urn:uuid:5"},
        {"type": "Patient", "identifier": {"system": "urn:x", "value": "100"}},
    ],
)  # fmt: skip
def test_a_reference_is_resolved_in_every_form(reference):
    graph = graph_of(PATIENT, server="http://a.example/fhir/", full_urls={"urn:uuid:5": "Patient/1"})
    assert graph.resolve(reference) is PATIENT


@pytest.mark.parametrize(
    "reference",
    [
        {"reference": "Patient/2"}, {"reference": "http://b.example/fhir/Patient/1"}, {"display": "x"}, None, 7,
        {"identifier": {"system": "urn:x", "value": "100"}}, {"reference": "#1"}, {"reference": 5},
    ],
)  # fmt: skip
def test_what_is_not_held_resolves_to_nothing(reference):
    assert graph_of(PATIENT, server="http://a.example/fhir").resolve(reference) is None


def test_what_is_contained_is_found_from_anywhere_and_has_its_place():
    inner = {"resourceType": "Practitioner", "id": "p"}
    role = {"resourceType": "PractitionerRole", "id": "r", "practitioner": {"reference": "#p"}}
    graph = graph_of({**REQUEST, "contained": [inner, role], "requester": {"reference": "#r"}})
    found = graph.resolve(graph["ServiceRequest/1"]["requester"])
    assert graph.place(found) == "ServiceRequest.contained[1]"
    assert graph.resolve(found["practitioner"]) == inner


def test_an_order_without_its_patient_waits():
    document = order_document(graph_of(REQUEST), "ServiceRequest/1", READING)
    assert (document.entries, document.waits_for) == ((), ("Patient/1",))


def test_an_entry_knows_what_orders_it():
    task = {"resourceType": "Task", "id": "t", "status": "requested", "focus": {"reference": "ServiceRequest/1"}}
    (entry,) = order_document(graph_of(PATIENT, REQUEST, task), "ServiceRequest/1", READING).entries
    assert entry.parts == ("ServiceRequest/1", "Task/t")
    assert entry.control is OrderControl.NW


def test_whatever_request_of_an_order_is_asked_for_its_root_is_found():
    child = {**REQUEST, "id": "2", "basedOn": [{"reference": "ServiceRequest/1"}]}
    assert root_of(graph_of(REQUEST, child), "ServiceRequest/2") == "ServiceRequest/1"


def test_requests_in_a_circle_are_refused_with_their_place():
    one = {**REQUEST, "basedOn": [{"reference": "ServiceRequest/2"}]}
    two = {**REQUEST, "id": "2", "basedOn": [{"reference": "ServiceRequest/1"}]}
    with pytest.raises(Refused) as refused:
        order_document(graph_of(PATIENT, one, two), "ServiceRequest/1", READING)
    assert refused.value.refusals[0].where == "ServiceRequest.basedOn"


def test_a_patient_that_another_replaces_is_a_merge_only_once_that_one_is_known():
    gone = {**PATIENT, "link": [{"type": "replaced-by", "other": {"reference": "Patient/2"}}]}
    stays = {"resourceType": "Patient", "id": "2", "identifier": [{"system": "urn:x", "value": "200"}]}
    assert patient_document(graph_of(gone), "Patient/1", READING).kind is Kind.PATIENT_UPDATE
    assert patient_document(graph_of(gone, stays), "Patient/1", READING).kind is Kind.PATIENT_MERGE


def test_a_visit_is_changed_as_its_status_says():
    visit = {"resourceType": "Encounter", "id": "1", "status": "finished", "subject": {"reference": "Patient/1"}}
    assert encounter_document(graph_of(PATIENT, visit), "Encounter/1", READING).visit_change is VisitChange.CLOSE


def test_entries_of_a_bundle_refer_to_each_other_by_their_full_urls():
    said = {**REQUEST, "id": None, "subject": {"reference": "urn:uuid:7"}}
    entries = [{"fullUrl": "urn:uuid:7", "resource": PATIENT}, {"resource": said}]
    graph = bundle_graph({"resourceType": "Bundle", "entry": entries})
    ((key, request),) = graph.of_type("ServiceRequest")
    assert graph.resolve(request["subject"]) is PATIENT
    assert graph.place(graph[key]) == "Bundle.entry[1].resource"


def test_a_study_that_the_gateway_tells_of_says_nothing_of_what_is_ordered():
    study = {
        "resourceType": "ImagingStudy", "id": "1", "status": "registered",
        "basedOn": [{"reference": "ServiceRequest/1"}], "subject": {"reference": "Patient/1"},
    }  # fmt: skip
    told = {**study, "id": "2", "meta": {"source": OURS}}
    (entry,) = order_document(graph_of(PATIENT, REQUEST, study, told), "ServiceRequest/1", READING).entries
    assert entry._resources["ImagingStudy"] == (study,)
