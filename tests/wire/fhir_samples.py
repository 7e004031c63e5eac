"""Valid resources of the types that are taken, each with as many elements as its checks have rules. Invented people."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from gateway.wire.fhir_release import Release

_TYPES = "http://terminology.hl7.org/CodeSystem/v2-0203"
_SNOMED = "http://snomed.info/sct"
_PATIENT = {"reference": "Patient/p1"}

_IDENTIFIER = {
    "use": "official", "type": {"coding": [{"system": _TYPES, "code": "PLAC"}]}, "system": "urn:oid:1.2.3",
    "value": "P-1", "period": {"start": "2026-01-01"}, "assigner": {"display": "North Clinic"},
}  # fmt: skip

_PERSON = {
    "identifier": [_IDENTIFIER],
    "active": True,
    "name": [{"use": "official", "family": "Testa", "given": ["Ada", "B."], "prefix": ["Dr."]}],
    "telecom": [{"system": "phone", "value": "+49 30 1", "use": "work", "rank": 1}],
    "gender": "female",
    "birthDate": "1980-02-29",
    "address": [{"use": "home", "type": "both", "line": ["Way 1"], "city": "Town", "country": "DE"}],
}

_PATIENT_RESOURCE = {
    "resourceType": "Patient", "id": "p1", **_PERSON,
    "meta": {"versionId": "1", "lastUpdated": "2026-11-23T10:00:00.123+01:00", "profile": ["http://a.example/p|1"]},
    "text": {"status": "generated", "div": '<div xmlns="http://www.w3.org/1999/xhtml">Ada <b>Testa</b></div>'},
    "_birthDate": {"extension": [{"url": "http://a.example/time", "valueDateTime": "1980-02-29T04:00:00+01:00"}]},
    "extension": [{"url": "http://a.example/e", "extension": [{"url": "inner", "valueDecimal": Decimal("1.50")}]}],
    "deceasedBoolean": False, "multipleBirthInteger": 2,
    "communication": [{"language": {"coding": [{"system": "urn:ietf:bcp:47", "code": "de"}]}, "preferred": True}],
    "link": [{"other": {"reference": "Patient/p2"}, "type": "replaced-by"}],
}  # fmt: skip

_SERVICE_REQUEST_ALWAYS = {
    "resourceType": "ServiceRequest", "id": "sr1", "identifier": [_IDENTIFIER], "status": "active", "intent": "order",
    "contained": [{"resourceType": "Practitioner", "id": "who", "name": [{"text": "Dr. Sample"}]}],
    "basedOn": [{"reference": "ServiceRequest/sr0"}], "requisition": {"value": "G-1"},
    "category": [{"coding": [{"system": _SNOMED, "code": "363679005"}]}], "priority": "urgent", "doNotPerform": False,
    "subject": _PATIENT, "encounter": {"reference": "Encounter/e1"}, "occurrenceDateTime": "2026-11-24T08:30:00+01:00",
    "authoredOn": "2026-11-23", "requester": {"reference": "#who"}, "performer": [{"reference": "Device/d1"}],
    "supportingInfo": [{"reference": "Observation/o1"}], "bodySite": [{"text": "chest"}],
    "note": [{"authorString": "desk", "time": "2026-11-23T10:00:00Z", "text": "lies flat badly"}],
}  # fmt: skip

_TASK_ALWAYS = {
    "resourceType": "Task", "id": "t1", "identifier": [_IDENTIFIER], "basedOn": [{"reference": "ServiceRequest/sr1"}],
    "status": "ready", "intent": "plan", "priority": "stat", "code": {"text": "scan"}, "for": _PATIENT,
    "authoredOn": "2026-11-23T10:00:00Z",
    "restriction": {"repetitions": 1, "period": {"start": "2026-11-24T08:30:00+01:00"}},
    "input": [{"type": {"text": "Modality"}, "valueCodeableConcept": {"coding": [{"code": "CT"}]}}],
}  # fmt: skip

_OBSERVATION = {
    "resourceType": "Observation", "id": "o1", "status": "final", "subject": _PATIENT,
    "code": {"coding": [{"system": "http://loinc.org", "code": "29463-7"}]}, "effectiveDateTime": "2026-11",
    "valueQuantity": {
        "value": Decimal("70.50"), "comparator": "<", "unit": "kg", "system": "http://unitsofmeasure.org", "code": "kg"
    },
}  # fmt: skip


def _concept(name: str, code: str) -> dict[str, Any]:
    return {"coding": [{"system": f"http://terminology.hl7.org/CodeSystem/{name}", "code": code}]}


def _listed(*resources: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {each["resourceType"]: each for each in resources}


def _bundle(*entries: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "resourceType": "Bundle", "type": "transaction", "link": [{"relation": "self", "url": "http://a.example/"}],
        "entry": [
            {
                "fullUrl": "urn:uuid:61ebe359-bfdc-4613-8bf2-c5e300945f0a", "resource": each,
                "search": {"mode": "match"}, "request": {"method": "POST", "url": each["resourceType"]},
            }
            for each in entries
        ],
    }  # fmt: skip


_COMMON = (
    _PATIENT_RESOURCE,
    {"resourceType": "Practitioner", **_PERSON},
    {"resourceType": "Organization", "identifier": [_IDENTIFIER], "active": True, "name": "North Clinic"},
    {"resourceType": "Location", "status": "active", "mode": "instance", "name": "CT 1", "position": {
        "longitude": Decimal("13.40"), "latitude": 52}},
    {"resourceType": "AllergyIntolerance", "clinicalStatus": _concept("allergyintolerance-clinical", "active"),
     "verificationStatus": _concept("allergyintolerance-verification", "confirmed"), "category": ["food", "medication"],
     "_category": [{"extension": [{"url": "http://a.example/e", "valueCode": "x"}]}, None],
     "criticality": "high", "code": {"text": "iodine"}, "patient": _PATIENT,
     "reaction": [{"manifestation": [], "severity": "mild"}]},
    _OBSERVATION,
    {"resourceType": "Condition", "clinicalStatus": _concept("condition-clinical", "active"),
     "verificationStatus": _concept("condition-ver-status", "confirmed"), "subject": _PATIENT},
    {"resourceType": "Flag", "status": "active", "code": {"text": "claustrophobia"}, "subject": _PATIENT},
    {"resourceType": "OperationOutcome", "issue": [{"severity": "error", "code": "value", "expression": ["Task"]}]},
    {"resourceType": "Parameters", "parameter": [
        {"name": "order", "resource": _bundle(_PATIENT_RESOURCE)}, {"name": "n", "valueInteger": 3},
        {"name": "many", "part": [{"name": "s", "valueString": "x"}]}]},
)  # fmt: skip

_ONLY_R4 = (
    {**_SERVICE_REQUEST_ALWAYS, "code": {"text": "CT chest"}, "orderDetail": [{"text": "with contrast"}],
     "reasonCode": [{"text": "cough"}], "reasonReference": [{"reference": "Condition/c1"}],
     "locationReference": [{"reference": "Location/l1"}]},
    {**_TASK_ALWAYS, "owner": {"reference": "Device/d1"}, "executionPeriod": {"start": "2026-11-24"},
     "reasonCode": {"text": "asked"}, "location": {"reference": "Location/l1"}},
    {"resourceType": "Encounter", "status": "in-progress", "subject": _PATIENT,
     "statusHistory": [{"status": "planned", "period": {"start": "2026-11-23"}}],
     "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "IMP"},
     "participant": [{"individual": {"reference": "Practitioner/x"}}],
     "location": [{"location": {"reference": "Location/l1"}, "status": "active"}]},
    {"resourceType": "PractitionerRole", "practitioner": {"reference": "Practitioner/x"},
     "availableTime": [{"daysOfWeek": ["mon"], "availableStartTime": "08:00:00"}]},
    {"resourceType": "Appointment", "status": "booked", "start": "2026-11-24T08:30:00Z", "end": "2026-11-24T09:00:00Z",
     "basedOn": [{"reference": "ServiceRequest/sr1"}], "minutesDuration": 30,
     "participant": [{"actor": _PATIENT, "required": "required", "status": "accepted"}]},
    {"resourceType": "Device", "status": "active", "deviceName": [{"name": "CT1", "type": "user-friendly-name"}],
     "udiCarrier": [{"deviceIdentifier": "1", "entryType": "manual"}]},
    {"resourceType": "ImagingStudy", "status": "available", "subject": _PATIENT, "started": "2026-11-24T08:31:00Z",
     "identifier": [{"system": "urn:dicom:uid", "value": "urn:oid:1.2.3"}], "modality": [{"code": "CT"}],
     "series": [{"uid": "1.2.3.4", "modality": {"code": "CT"}, "instance": [
         {"uid": "1.2.3.4.5", "sopClass": {"system": "urn:ietf:rfc3986", "code": "urn:oid:1.2"}}]}]},
    {"resourceType": "Procedure", "status": "completed", "subject": _PATIENT, "performedPeriod": {"start": "2026-11"}},
    {"resourceType": "Provenance", "target": [{"reference": "Task/t1"}], "recorded": "2026-11-24T08:31:00Z",
     "agent": [{"who": {"display": "gateway"}}], "entity": [{"role": "source", "what": {"display": "MPPS"}}]},
    {"resourceType": "Subscription", "status": "active", "reason": "orders", "criteria": "ServiceRequest?status=active",
     "channel": {"type": "rest-hook", "endpoint": "https://a.example/hook", "payload": "application/fhir+json"}},
    {"resourceType": "MessageHeader", "eventUri": "http://a.example/order", "source": {"endpoint": "http://a.example/"},
     "response": {"identifier": "m1", "code": "ok"}, "focus": [{"reference": "ServiceRequest/sr1"}]},
)  # fmt: skip

_ONLY_R5 = (
    {**_SERVICE_REQUEST_ALWAYS, "code": {"concept": {"text": "CT chest"}},
     "orderDetail": [{"parameter": [{"code": {"text": "contrast"}, "valueBoolean": True}]}],
     "reason": [{"concept": {"text": "cough"}}, {"reference": {"reference": "Condition/c1"}}],
     "supportingInfo": [{"reference": {"reference": "Observation/o1"}}],
     "location": [{"reference": {"reference": "Location/l1"}}]},
    {**_TASK_ALWAYS, "requestedPeriod": {"start": "2026-11-24"}, "requestedPerformer": [
        {"reference": {"reference": "Device/d1"}}]},
    {"resourceType": "Encounter", "status": "in-progress", "subject": _PATIENT, "class": [{"text": "inpatient"}],
     "participant": [{"actor": {"reference": "Practitioner/x"}}], "actualPeriod": {"start": "2026-11-23"},
     "location": [{"location": {"reference": "Location/l1"}, "status": "active"}]},
    {"resourceType": "PractitionerRole", "practitioner": {"reference": "Practitioner/x"},
     "availability": [{"availableTime": [{"daysOfWeek": ["mon"], "availableStartTime": "08:00:00"}]}]},
    {"resourceType": "Appointment", "status": "booked", "start": "2026-11-24T08:30:00Z", "end": "2026-11-24T09:00:00Z",
     "basedOn": [{"reference": "ServiceRequest/sr1"}],
     "participant": [{"actor": _PATIENT, "required": True, "status": "accepted"}]},
    {"resourceType": "Device", "status": "active", "name": [{"value": "CT1", "type": "registered-name"}],
     "udiCarrier": [{"deviceIdentifier": "1", "issuer": "urn:oid:1.2", "entryType": "manual"}]},
    {"resourceType": "ImagingStudy", "status": "available", "subject": _PATIENT, "modality": [{"text": "CT"}],
     "series": [{"uid": "1.2.3.4", "modality": {"text": "CT"}, "numberOfInstances": 2}]},
    {"resourceType": "Procedure", "status": "completed", "subject": _PATIENT, "occurrencePeriod": {"start": "2026"}},
    {"resourceType": "Provenance", "target": [{"reference": "Task/t1"}], "recorded": "2026-11-24T08:31:00Z",
     "agent": [{"who": {"display": "gateway"}}], "entity": [{"role": "source", "what": {"display": "MPPS"}}]},
    {"resourceType": "Subscription", "status": "active", "topic": "http://a.example/topic", "content": "id-only",
     "channelType": {"code": "rest-hook"}, "endpoint": "https://a.example/hook"},
    {"resourceType": "MessageHeader", "eventCanonical": "http://a.example/order",
     "source": {"endpointUrl": "http://a.example/"}, "focus": [{"reference": "ServiceRequest/sr1"}],
     "response": {"identifier": {"value": "m1"}, "code": "ok"}},
    {"resourceType": "SubscriptionStatus", "type": "event-notification", "eventsSinceSubscriptionStart": "3",
     "notificationEvent": [{"eventNumber": "3"}], "subscription": {"reference": "Subscription/s1"}},
)  # fmt: skip


def _of(release: Release) -> Mapping[str, Mapping[str, Any]]:
    found = _listed(*_COMMON, *(_ONLY_R5 if release is Release.R5 else _ONLY_R4))
    manifested = [{"concept": {"text": "rash"}}] if release is Release.R5 else [{"text": "rash"}]
    allergy = found["AllergyIntolerance"]
    found["AllergyIntolerance"] = {**allergy, "reaction": [{**allergy["reaction"][0], "manifestation": manifested}]}
    return {**found, "Bundle": _bundle(found["Patient"], found["ServiceRequest"])}


SAMPLES: Mapping[Release, Mapping[str, Mapping[str, Any]]] = {release: _of(release) for release in Release}
"""Release -> type -> a valid resource."""
