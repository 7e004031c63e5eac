"""By what FHIR resources are found: the one table of search parameters, as the specification defines them.

A row is `kind path|path >Target,Target`: where the parameter's values stand in the resource, without its type; a
choice element has its name without the type (`occurrence`), and references are to those types only. What R5 has
otherwise is in a table of its own, None for what it has no more. Parameters that nobody who sends orders asks by are
left out; what a server says it can search by is made of this table.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache

from gateway.wire.fhir_release import Release


class ParameterKind(StrEnum):
    """The kinds of search parameters that are here (search.html)."""

    TOKEN = "token"  # noqa: S105  (a kind of parameter, no secret)
    REFERENCE = "reference"
    DATE = "date"
    STRING = "string"
    URI = "uri"


@dataclass(frozen=True, slots=True)
class Parameter:
    """A search parameter of one resource type. `paths` are JSON members from the resource on; `targets` are the types
    that a reference may be to, none for any."""

    name: str
    kind: ParameterKind
    paths: tuple[tuple[str, ...], ...]
    targets: tuple[str, ...] = ()


_SUBJECT = "reference subject >Patient,Group,Device,Location,Practitioner,Organization"
_PATIENT = "reference subject >Patient"
_WHO = "Practitioner,PractitionerRole,Organization,Patient,RelatedPerson,Device"
_IDENTIFIED: Mapping[str, str] = {"identifier": "token identifier"}
_CONTACT: Mapping[str, str] = {
    "telecom": "token telecom", "phone": "token telecom[phone]", "email": "token telecom[email]",
}  # fmt: skip
_PLACED: Mapping[str, str] = {
    "address": "string address", "address-city": "string address.city", "address-state": "string address.state",
    "address-country": "string address.country", "address-postalcode": "string address.postalCode",
}  # fmt: skip
_PERSON: Mapping[str, str] = {
    **_IDENTIFIED, **_CONTACT, **_PLACED,
    "active": "token active", "name": "string name", "family": "string name.family", "given": "string name.given",
    "gender": "token gender",
}  # fmt: skip

_COMMON: Mapping[str, str] = {
    "_tag": "token meta.tag", "_security": "token meta.security", "_profile": "uri meta.profile",
    "_source": "uri meta.source",
}  # fmt: skip

_R4: Mapping[str, Mapping[str, str]] = {
    "ServiceRequest": {
        **_IDENTIFIED,
        "authored": "date authoredOn",
        "based-on": "reference basedOn >ServiceRequest,CarePlan,MedicationRequest",
        "body-site": "token bodySite",
        "category": "token category",
        "code": "token code",
        "encounter": "reference encounter >Encounter",
        "instantiates-canonical": "uri instantiatesCanonical",
        "instantiates-uri": "uri instantiatesUri",
        "intent": "token intent",
        "occurrence": "date occurrence",
        "patient": _PATIENT,
        "performer": f"reference performer >{_WHO}",
        "performer-type": "token performerType",
        "priority": "token priority",
        "replaces": "reference replaces >ServiceRequest",
        "requester": f"reference requester >{_WHO}",
        "requisition": "token requisition",
        "specimen": "reference specimen >Specimen",
        "status": "token status",
        "subject": _SUBJECT,
    },
    "Patient": {
        **_PERSON,
        "birthdate": "date birthDate",
        "death-date": "date deceasedDateTime",
        "general-practitioner": "reference generalPractitioner >Practitioner,PractitionerRole,Organization",
        "language": "token communication.language",
        "link": "reference link.other >Patient,RelatedPerson",
        "organization": "reference managingOrganization >Organization",
    },
    "Encounter": {
        **_IDENTIFIED,
        "appointment": "reference appointment >Appointment",
        "based-on": "reference basedOn >ServiceRequest",
        "class": "token class",
        "date": "date period",
        "location": "reference location.location >Location",
        "part-of": "reference partOf >Encounter",
        "participant": "reference participant.individual >Practitioner,PractitionerRole,RelatedPerson",
        "participant-type": "token participant.type",
        "patient": _PATIENT,
        "practitioner": "reference participant.individual >Practitioner",
        "reason-code": "token reasonCode",
        "reason-reference": "reference reasonReference",
        "service-provider": "reference serviceProvider >Organization",
        "special-arrangement": "token hospitalization.specialArrangement",
        "status": "token status",
        "subject": _SUBJECT,
        "type": "token type",
    },
    "Practitioner": {**_PERSON, "communication": "token communication"},
    "PractitionerRole": {
        **_IDENTIFIED, **_CONTACT,
        "active": "token active",
        "date": "date period",
        "endpoint": "reference endpoint >Endpoint",
        "location": "reference location >Location",
        "organization": "reference organization >Organization",
        "practitioner": "reference practitioner >Practitioner",
        "role": "token code",
        "service": "reference healthcareService >HealthcareService",
        "specialty": "token specialty",
    },
    "Organization": {
        **_IDENTIFIED, **_PLACED,
        "active": "token active",
        "endpoint": "reference endpoint >Endpoint",
        "name": "string name|alias",
        "partof": "reference partOf >Organization",
        "type": "token type",
    },
    "Location": {
        **_IDENTIFIED, **_PLACED,
        "endpoint": "reference endpoint >Endpoint",
        "name": "string name|alias",
        "operational-status": "token operationalStatus",
        "organization": "reference managingOrganization >Organization",
        "partof": "reference partOf >Location",
        "status": "token status",
        "type": "token type",
    },
    "Appointment": {
        **_IDENTIFIED,
        "actor": "reference participant.actor",
        "appointment-type": "token appointmentType",
        "based-on": "reference basedOn >ServiceRequest",
        "date": "date start",
        "location": "reference participant.actor >Location",
        "part-status": "token participant.status",
        "patient": "reference participant.actor >Patient",
        "practitioner": "reference participant.actor >Practitioner",
        "reason-code": "token reasonCode",
        "reason-reference": "reference reasonReference",
        "service-category": "token serviceCategory",
        "service-type": "token serviceType",
        "specialty": "token specialty",
        "status": "token status",
        "supporting-info": "reference supportingInformation",
    },
    "Task": {
        **_IDENTIFIED,
        "authored-on": "date authoredOn",
        "based-on": "reference basedOn",
        "business-status": "token businessStatus",
        "code": "token code",
        "encounter": "reference encounter >Encounter",
        "focus": "reference focus",
        "group-identifier": "token groupIdentifier",
        "intent": "token intent",
        "modified": "date lastModified",
        "owner": f"reference owner >{_WHO}",
        "part-of": "reference partOf >Task",
        "patient": "reference for >Patient",
        "performer": "token performerType",
        "period": "date executionPeriod",
        "priority": "token priority",
        "requester": f"reference requester >{_WHO}",
        "status": "token status",
        "subject": "reference for",
    },
    "AllergyIntolerance": {
        **_IDENTIFIED,
        "asserter": f"reference asserter >{_WHO}",
        "category": "token category",
        "clinical-status": "token clinicalStatus",
        "code": "token code|reaction.substance",
        "criticality": "token criticality",
        "date": "date recordedDate",
        "last-date": "date lastOccurrence",
        "onset": "date reaction.onset",
        "patient": "reference patient >Patient",
        "recorder": f"reference recorder >{_WHO}",
        "type": "token type",
        "verification-status": "token verificationStatus",
    },
    "Observation": {
        **_IDENTIFIED,
        "based-on": "reference basedOn",
        "category": "token category",
        "code": "token code",
        "date": "date effective",
        "device": "reference device >Device,DeviceMetric",
        "encounter": "reference encounter >Encounter",
        "focus": "reference focus",
        "has-member": "reference hasMember",
        "part-of": "reference partOf",
        "patient": _PATIENT,
        "performer": f"reference performer >{_WHO}",
        "status": "token status",
        "subject": _SUBJECT,
        "value-concept": "token valueCodeableConcept",
        "value-date": "date valueDateTime|valuePeriod",
        "value-string": "string valueString",
    },
    "Device": {
        **_IDENTIFIED,
        "device-name": "string deviceName.name|type.text",
        "location": "reference location >Location",
        "manufacturer": "string manufacturer",
        "model": "string modelNumber",
        "organization": "reference owner >Organization",
        "patient": "reference patient >Patient",
        "status": "token status",
        "type": "token type",
        "url": "uri url",
    },
    "Coverage": {
        **_IDENTIFIED,
        "beneficiary": "reference beneficiary >Patient",
        "patient": "reference beneficiary >Patient",
        "payor": "reference payor >Organization,Patient,RelatedPerson",
        "policy-holder": "reference policyHolder >Patient,RelatedPerson,Organization",
        "status": "token status",
        "subscriber": "reference subscriber >Patient,RelatedPerson",
        "type": "token type",
    },
    "Procedure": {
        **_IDENTIFIED,
        "based-on": "reference basedOn >ServiceRequest,CarePlan",
        "category": "token category",
        "code": "token code",
        "date": "date performed",
        "encounter": "reference encounter >Encounter",
        "location": "reference location >Location",
        "part-of": "reference partOf",
        "patient": _PATIENT,
        "performer": f"reference performer.actor >{_WHO}",
        "reason-code": "token reasonCode",
        "reason-reference": "reference reasonReference",
        "status": "token status",
        "subject": _SUBJECT,
    },
    "ImagingStudy": {
        **_IDENTIFIED,
        "basedon": "reference basedOn",
        "bodysite": "token series.bodySite",
        "dicom-class": "token series.instance.sopClass",
        "encounter": "reference encounter >Encounter",
        "endpoint": "reference endpoint|series.endpoint >Endpoint",
        "instance": "token series.instance.uid",
        "modality": "token series.modality",
        "patient": _PATIENT,
        "performer": f"reference series.performer.actor >{_WHO}",
        "reason": "token reasonCode",
        "referrer": "reference referrer >Practitioner,PractitionerRole",
        "series": "token series.uid",
        "started": "date started",
        "status": "token status",
        "subject": _SUBJECT,
    },
    "Provenance": {
        "agent": f"reference agent.who >{_WHO}",
        "agent-role": "token agent.role",
        "agent-type": "token agent.type",
        "entity": "reference entity.what",
        "location": "reference location >Location",
        "patient": "reference target >Patient",
        "recorded": "date recorded",
        "target": "reference target",
        "when": "date occurred",
    },
    "Subscription": {
        "contact": "token contact",
        "criteria": "string criteria",
        "payload": "token channel.payload",
        "status": "token status",
        "type": "token channel.type",
        "url": "uri channel.endpoint",
    },
    "SubscriptionTopic": {"status": "token status", "title": "string title", "url": "uri url"},
    "Condition": {
        **_IDENTIFIED,
        "body-site": "token bodySite",
        "category": "token category",
        "clinical-status": "token clinicalStatus",
        "code": "token code",
        "encounter": "reference encounter >Encounter",
        "onset-date": "date onsetDateTime|onsetPeriod",
        "patient": _PATIENT,
        "recorded-date": "date recordedDate",
        "severity": "token severity",
        "subject": _SUBJECT,
        "verification-status": "token verificationStatus",
    },
    "Flag": {
        **_IDENTIFIED,
        "author": f"reference author >{_WHO}",
        "date": "date period",
        "encounter": "reference encounter >Encounter",
        "patient": _PATIENT,
        "subject": _SUBJECT,
    },
    "Endpoint": {
        **_IDENTIFIED,
        "connection-type": "token connectionType",
        "name": "string name",
        "organization": "reference managingOrganization >Organization",
        "payload-type": "token payloadType",
        "status": "token status",
    },
}  # fmt: skip

_R5: Mapping[str, Mapping[str, str | None]] = {
    "ServiceRequest": {
        "code": None,
        "code-concept": "token code.concept",
        "code-reference": "reference code.reference",
        "body-structure": "reference bodyStructure >BodyStructure",
    },
    "Encounter": {
        "date": "date actualPeriod",
        "date-start": "date actualPeriod.start",
        "end-date": "date actualPeriod.end",
        "participant": "reference participant.actor",
        "practitioner": "reference participant.actor >Practitioner",
        "reason-code": "token reason.value.concept",
        "reason-reference": "reference reason.value.reference",
        "special-arrangement": None,
        "subject-status": "token subjectStatus",
    },
    "Practitioner": {"communication": "token communication.language"},
    "PractitionerRole": {name: row.replace("telecom", "contact.telecom") for name, row in _CONTACT.items()},
    "Organization": {name: row.replace(" address", " contact.address") for name, row in _PLACED.items()},
    "Appointment": {
        "date": "date start|requestedPeriod",
        "group": "reference participant.actor >Group",
        "reason-code": "token reason.concept",
        "reason-reference": "reference reason.reference",
        "requested-period": "date requestedPeriod",
        "service-type": "token serviceType.concept",
        "service-type-reference": "reference serviceType.reference >HealthcareService",
        "subject": _SUBJECT,
    },
    "Task": {
        "actor": f"reference performer.actor >{_WHO}",
        "performer": "token requestedPerformer.concept",
        "requestedperformer-reference": "reference requestedPerformer.reference",
    },
    "AllergyIntolerance": {
        "asserter": None,
        "onset": None,
        "participant": f"reference participant.actor >{_WHO}",
        "recorder": None,
    },
    "Device": {
        "device-name": "string name.value|type.text",
        "patient": None,
        "definition": "reference definition >DeviceDefinition",
        "parent": "reference parent >Device",
    },
    "Coverage": {"payor": None, "paymentby-party": "reference paymentBy.party >Patient,RelatedPerson,Organization"},
    "Procedure": {
        "date": "date occurrence",
        "reason-code": "token reason.concept",
        "reason-reference": "reference reason.reference",
    },
    "ImagingStudy": {
        "basedon": None,
        "based-on": "reference basedOn",
        "bodysite": None,
        "body-site": "token series.bodySite.concept",
        "reason": None,
    },
    "Provenance": {
        "activity": "token activity",
        "based-on": "reference basedOn",
        "encounter": "reference encounter >Encounter",
    },
    "Subscription": {
        **_IDENTIFIED,
        "content-level": "token content",
        "criteria": None,
        "name": "string name",
        "payload": "token contentType",
        "topic": "uri topic",
        "type": "token channelType",
        "url": "uri endpoint",
    },
    "Flag": {"category": "token category", "status": "token status"},
    "Endpoint": {"payload-type": "token payload.type"},
}  # fmt: skip


@cache
def parameters_of(type: str, release: Release) -> Mapping[str, Parameter]:
    """The search parameters of a type that are read out of its content; of any other type what all have."""
    rows: dict[str, str | None] = {**_COMMON, **_R4.get(type, {})}
    if release is Release.R5:
        rows |= _R5.get(type, {})
    return {name: _parameter(name, row) for name, row in sorted(rows.items()) if row is not None}


def searched_types() -> tuple[str, ...]:
    """The resource types with parameters of their own."""
    return tuple(_R4)


def _parameter(name: str, row: str) -> Parameter:
    kind, paths, *targets = row.split(" ")
    return Parameter(
        name,
        ParameterKind(kind),
        tuple(tuple(path.split(".")) for path in paths.split("|")),
        tuple(targets[0][1:].split(",")) if targets else (),
    )
