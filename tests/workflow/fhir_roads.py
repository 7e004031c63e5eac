"""FHIR requests over a store: a small rule set, resources of an invented order, and what comes of them."""

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

from gateway.domain.attributes import text
from gateway.domain.identifiers import Mint
from gateway.domain.mapping import compile_mapping
from gateway.domain.matching import Narrowing
from gateway.domain.resources import ResourceKey
from gateway.domain.worklist import SPSStatus
from gateway.edges.store import Store
from gateway.fhir_processing import process_request
from gateway.wire.fhir_interactions import FHIRRequest, Interaction, Kind, Verb
from gateway.wire.fhir_paths import reader
from gateway.wire.fhir_release import Release
from gateway.workflow.fhir_feed import FHIRFeed
from gateway.workflow.ports import MessageSearch

NOW = datetime(2026, 7, 5, 8, 0, tzinfo=UTC)

_START = {"from": ["Task.restriction.period.start", "Appointment.start", "ServiceRequest.occurrence.ofType(dateTime)"]}
_STEP = "ScheduledProcedureStepSequence."
RULES = {
    "name": "small",
    "version": "1",
    "fhir": "R4",
    "identity": {
        "PatientID": {"from": "Patient.identifier", "missing": "refuse"},
        "AdmissionID": {"from": "Encounter.identifier"},
        "PlacerOrderNumberImagingServiceRequest": {
            "from": ["ServiceRequest.identifier", "ServiceRequest.basedOn.resolve().identifier"]
        },
        "AccessionNumber": {"from": "ServiceRequest.requisition", "missing": "generate"},
        "StudyInstanceUID": {"missing": "generate"},
        "RequestedProcedureID": {"from": "ServiceRequest.select(%procedure)", "missing": "generate"},
        "ScheduledProcedureStepID": {
            "from": ["Task.select(%step)", "Appointment.select(%step)"], "missing": "generate"
        },
    },
    "rules": {
        "PatientName": {"from": "Patient.name", "convert": "xpn"},
        "PatientTelephoneNumbers": {"from": "Patient.telecom", "convert": "phone"},
        "CurrentPatientLocation": {"from": "Encounter.location.location.display"},
        "MedicalAlerts": {"from": "Flag.code.text"},
        "RequestingPhysician": {"from": "ServiceRequest.requester.resolve()", "convert": "xcn"},
        "RequestedProcedureDescription": {"from": "ServiceRequest.code.text"},
        "RequestedProcedureComments": {"from": "ServiceRequest.patientInstruction"},
        f"{_STEP}Modality": {"value": "CT"},
        f"{_STEP}ScheduledStationAETitle": {"value": "CT1"},
        f"{_STEP}ScheduledProcedureStepStartDate": _START,
        f"{_STEP}ScheduledProcedureStepStartTime": _START | {"convert": "start-time"},
        f"{_STEP}CommentsOnTheScheduledProcedureStep": {"from": "Task.description"},
    },
}  # fmt: skip

PATIENT = {
    "resourceType": "Patient", "id": "p1", "identifier": [{"system": "urn:oid:1.2.3", "value": "100"}],
    "name": [{"family": "Doe", "given": ["Jane"]}],
}  # fmt: skip
ORDER = {
    "resourceType": "ServiceRequest", "id": "o1", "status": "active", "intent": "order",
    "identifier": [{"system": "urn:oid:1.2.4", "value": "P1"}], "subject": {"reference": "Patient/p1"},
    "code": {"text": "CT head"}, "occurrenceDateTime": "2026-07-06T09:30:00+02:00",
    "requester": {"reference": "Practitioner/d1"}, "encounter": {"reference": "Encounter/e1"},
}  # fmt: skip
TASK = {
    "resourceType": "Task", "id": "t1", "status": "requested", "intent": "order",
    "basedOn": [{"reference": "ServiceRequest/o1"}],
    "restriction": {"period": {"start": "2026-07-06T11:00:00+02:00"}}, "description": "no contrast",
}  # fmt: skip
PRACTITIONER = {"resourceType": "Practitioner", "id": "d1", "name": [{"family": "Asker"}]}
ENCOUNTER = {
    "resourceType": "Encounter", "id": "e1", "status": "in-progress", "class": {"code": "IMP"},
    "identifier": [{"system": "urn:oid:1.2.5", "value": "V1"}], "subject": {"reference": "Patient/p1"},
    "location": [{"location": {"display": "Ward 7"}}],
}  # fmt: skip
FLAG = {
    "resourceType": "Flag", "id": "f1", "status": "active", "code": {"text": "pacemaker"},
    "subject": {"reference": "Patient/p1"},
}  # fmt: skip


def mapping_of(rules):
    return compile_mapping({"small": rules}, "small", readers={"R4": reader(Release.R4)})


class Road:
    """A store, and our server over it."""

    rules = RULES

    def __init__(self, database, **profile):
        self.store = Store(f"sqlite:///{database}", zone="Europe/Berlin")
        self.feed = FHIRFeed(
            "fhir", {Release.R4: mapping_of(RULES)}, Mint(self.store.site_namespace()),
            department=ZoneInfo("Europe/Berlin"), **profile,
        )  # fmt: skip

    def feed_with(self, rules, **identity):
        """The same feed with other rules, for some keys too."""
        said = {**RULES, "rules": rules, "identity": {**RULES["identity"], **identity}}
        return replace(self.feed, mappings={Release.R4: mapping_of(said)})

    def close(self):
        self.store.close()

    def run(self, request):
        return asyncio.run(process_request(self.store, request, self.feed))

    def put(self, *resources, kind=None, **said):
        """Update these, more than one as a transaction."""
        return self.run(request_of([Interaction(Verb.UPDATE, each["resourceType"], each["id"], each)
                                    for each in resources], kind, **said))  # fmt: skip

    def delete(self, *resources):
        return self.run(request_of([Interaction(Verb.DELETE, each["resourceType"], each["id"]) for each in resources]))

    def items(self):
        refs = self.store.reader.candidates(Narrowing(statuses=frozenset(SPSStatus)))
        return self.store.reader.items([step_id for step_id, _ in refs])

    def item(self):
        (one,) = self.items()
        return one

    def said(self, keyword):
        """An attribute of the one item."""
        item = self.item()
        return text(item.attributes, keyword) or text(item.step, keyword)

    def statuses(self):
        return sorted(item.status.value for item in self.items())

    def messages(self):
        """The archive, oldest first."""
        return self.store.reader.find_messages(MessageSearch(), 1000)[::-1]

    def held(self, resource):
        return self.store.reader.resource(ResourceKey("r4", resource["resourceType"], resource["id"]))


def request_of(interactions, kind=None, *, source="r4", raw=None, message_id="", sender="ehr"):
    kind = kind or (Kind.SINGLE if len(interactions) == 1 else Kind.TRANSACTION)
    if kind is not Kind.SINGLE:
        interactions = [
            Interaction(each.verb, each.type, each.id, each.resource, where=f"Bundle.entry[{place}]")
            for place, each in enumerate(interactions)
        ]
    raw = raw or json.dumps([each.resource for each in interactions]).encode()
    return FHIRRequest(
        kind, source, Release.R4, tuple(interactions), raw, "test", sender, message_id, kind.value
    )  # fmt: skip
