"""What an EHR sends in the benchmarks: orders as transaction Bundles and as single resources, no two alike (R4)."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from gateway.testing import ImagingOrder
from tests.benchmarks.population import order

Content = dict[str, Any]

_KINDS = "http://terminology.hl7.org/CodeSystem/v2-0203"
_PEOPLE, _ORDERS, _ACCESSIONS, _VISITS, _STAFF = (f"urn:oid:1.2.40.0.13.1.1.{arc}" for arc in (99, 1, 2, 98, 97))
_PROCEDURE = ("CTHEAD", "CT head")  # of the procedure catalogue, which says modality, station and times
_GENDERS = {"F": "female", "M": "male"}
_PATIENT, _VISIT, _ASKING, _REQUEST, _STEP = (f"urn:uuid:00000000-0000-4000-8000-00000000000{n}" for n in range(1, 6))


def plain_bundle(number: int) -> Content:
    """A patient, found by its number or made, and an order for it: the least that an EHR sends."""
    new = order(number)
    return _transaction([
        (_PATIENT, patient(new), *_found_by(new)), (_REQUEST, service_request(new, _PATIENT), "POST", "ServiceRequest")
    ])  # fmt: skip


def full_bundle(number: int) -> Content:
    """The same with the visit, who asks for it, and the Task that schedules it."""
    new = order(number)
    request = service_request(new, _PATIENT) | {
        "encounter": {"reference": _VISIT}, "requester": {"reference": _ASKING}
    }  # fmt: skip
    return _transaction([
        (_PATIENT, patient(new), *_found_by(new)),
        (_VISIT, _encounter(new), "POST", "Encounter"),
        (_ASKING, _practitioner(new), "POST", "Practitioner"),
        (_REQUEST, request, "POST", "ServiceRequest"),
        (_STEP, _task(new), "POST", "Task"),
    ])  # fmt: skip


def patient(new: ImagingOrder) -> Content:
    """Whoever an order is for."""
    family, _, given = new.person.name.partition("^")
    return {
        "resourceType": "Patient",
        "identifier": [_identifier("MR", _PEOPLE, new.person.patient_id)],
        "name": [{"use": "official", "family": family, "given": [given]}],
        "birthDate": f"{new.person.birth_date:%Y-%m-%d}",
        "gender": _GENDERS.get(new.person.sex, "other"),
    }


def service_request(new: ImagingOrder, subject: str) -> Content:
    """An order for the patient that `subject` refers to."""
    return {
        "resourceType": "ServiceRequest",
        "status": "active",
        "intent": "order",
        "priority": "routine",
        "category": [_concept("http://snomed.info/sct", "363679005", "Imaging")],
        "identifier": [_identifier("PLAC", _ORDERS, new.placer), _identifier("ACSN", _ACCESSIONS, new.accession)],
        "code": _concept("http://hospital.example/codes/procedures", *_PROCEDURE),
        "subject": {"reference": subject},
        "occurrenceDateTime": _instant(new),
        "reasonCode": [{"text": "Headache"}],
    }


def written(content: Mapping[str, Any]) -> bytes:
    """As it goes over the wire."""
    return json.dumps(content, separators=(",", ":")).encode()


def _encounter(new: ImagingOrder) -> Content:
    return {
        "resourceType": "Encounter",
        "status": "in-progress",
        "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "IMP"},
        "identifier": [_identifier("VN", _VISITS, f"V{new.number:09}")],
        "subject": {"reference": _PATIENT},
        "reasonCode": [_concept("http://snomed.info/sct", "25064002", "Headache")],
    }


def _practitioner(new: ImagingOrder) -> Content:
    return {
        "resourceType": "Practitioner",
        "identifier": [_identifier("PRN", _STAFF, f"D{new.number % 1000:04}")],
        "name": [{"family": "Ordonez", "given": ["Ana"], "prefix": ["Dr."]}],
    }


def _task(new: ImagingOrder) -> Content:
    return {
        "resourceType": "Task",
        "status": "requested",
        "intent": "order",
        "priority": "routine",
        "focus": {"reference": _REQUEST},
        "basedOn": [{"reference": _REQUEST}],
        "for": {"reference": _PATIENT},
        "executionPeriod": {"start": _instant(new)},
    }


def _transaction(entries: Sequence[tuple[str, Content, str, str]]) -> Content:
    return {
        "resourceType": "Bundle",
        "type": "transaction",
        "entry": [
            {"fullUrl": name, "resource": resource, "request": {"method": method, "url": url}}
            for name, resource, method, url in entries
        ],
    }


def _found_by(new: ImagingOrder) -> tuple[str, str]:
    return "PUT", f"Patient?identifier={_PEOPLE}|{new.person.patient_id}"


def _identifier(kind: str, system: str, value: str) -> Content:
    return {"type": {"coding": [{"system": _KINDS, "code": kind}]}, "system": system, "value": value}


def _concept(system: str, code: str, display: str) -> Content:
    return {"coding": [{"system": system, "code": code, "display": display}]}


def _instant(new: ImagingOrder) -> str:
    return f"{new.start:%Y-%m-%dT%H:%M:%S}+02:00"
