"""What an EHR says by FHIR of the invented people and orders of `gateway.testing`, as its RIS says it by HL7 v2.

Ids are those that the EHR gives. The authorities are those of `gateway.testing.ris`, so an order said in both ways is
one order.
"""

from collections.abc import Mapping
from typing import Any
from zoneinfo import ZoneInfo

from gateway.testing import ImagingOrder, Person

Resource = dict[str, Any]
JSON = {"Content-Type": "application/fhir+json"}
DEPARTMENT = ZoneInfo("Europe/Berlin")
V2_0203 = "http://terminology.hl7.org/CodeSystem/v2-0203"
ORDERS, FILLERS, ACCESSIONS = (
    "http://hospital.example/orders",
    "http://hospital.example/ris",
    "http://hospital.example/a",
)
PROCEDURES = "http://hospital.example/codes/procedures"
PATIENTS = "urn:oid:1.2.3.4"
STEPS = "http://hospital.example/steps"
ISSUERS = [
    {"name": "HOSPITAL", "oid": ["1.2.3.4"]},
    {"name": "OE", "fhir": [ORDERS]},
    {"name": "RIS", "fhir": [FILLERS, ACCESSIONS]},
]  # fmt: skip
"""`issuers` of a site whose neighbours speak both."""


def identifier(code: str, system: str, value: str) -> Resource:
    """An identifier of a type of HL7 table 0203."""
    return {"type": {"coding": [{"system": V2_0203, "code": code}]}, "system": system, "value": value}


def patient(person: Person, **elements: Any) -> Resource:
    """A Patient whose id is the patient's number."""
    family, _, given = person.name.partition("^")
    return {
        "resourceType": "Patient", "id": person.patient_id,
        "identifier": [identifier("MR", PATIENTS, person.patient_id)],
        "name": [{"use": "official", "family": family, "given": [given]}],
        "birthDate": person.birth_date.isoformat(), "gender": {"F": "female", "M": "male"}[person.sex], **elements,
    }  # fmt: skip


def request(order: ImagingOrder, **elements: Any) -> Resource:
    """The ServiceRequest of an order, whose id is `o` and its number."""
    return {
        "resourceType": "ServiceRequest", "id": f"o{order.number}", "status": "active", "intent": "order",
        "identifier": [
            identifier("PLAC", ORDERS, order.placer), identifier("FILL", FILLERS, order.filler),
            identifier("ACSN", ACCESSIONS, order.accession),
        ],
        "category": [{"coding": [{"system": "http://snomed.info/sct", "code": "363679005"}]}],
        "code": {"coding": [{"system": PROCEDURES, "code": order.code, "display": order.text}]},
        "subject": {"reference": f"Patient/{order.person.patient_id}"},
        "occurrenceDateTime": order.start.replace(tzinfo=DEPARTMENT).isoformat(), **elements,
    }  # fmt: skip


def task(order: ImagingOrder, **elements: Any) -> Resource:
    """The Task of the step, identified by its scheduled procedure step ID."""
    start = order.start.replace(tzinfo=DEPARTMENT).isoformat()
    return {
        "resourceType": "Task", "id": f"t{order.number}", "status": "requested", "intent": "order",
        "identifier": [{"system": STEPS, "value": order.sps_id}],
        "basedOn": [{"reference": f"ServiceRequest/o{order.number}"}],
        "for": {"reference": f"Patient/{order.person.patient_id}"},
        "restriction": {"period": {"start": start}}, **elements,
    }  # fmt: skip


def transaction(*resources: Mapping[str, Any]) -> Resource:
    """All of them by PUT."""
    entries = [
        {"resource": each, "request": {"method": "PUT", "url": f"{each['resourceType']}/{each['id']}"}}
        for each in resources
    ]
    return {"resourceType": "Bundle", "type": "transaction", "entry": entries}


def whole(order: ImagingOrder) -> Resource:
    """Patient, order and step in one transaction."""
    return transaction(patient(order.person), request(order), task(order))
