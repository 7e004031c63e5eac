"""What our FHIR server serves: the table of resource types, and the CapabilityStatement that is made of it.

The statement says nothing that is not in a table the server runs on: types here, search parameters of `fhir_search`,
formats and releases of `fhir_negotiation` and `fhir_release`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from gateway.domain.resources import Resource
from gateway.wire import fhir_search
from gateway.wire.fhir_negotiation import MEDIA_TYPES, READ, Format, Sent
from gateway.wire.fhir_release import Release
from gateway.wire.fhir_search_parameters import ParameterKind, parameters_of
from gateway.wire.fhir_topics import capability

INTERACTIONS = ("read", "create", "update", "patch", "delete", "search-type")
"""With resources of most types."""
_READ_ONLY = ("read", "search-type")


class Served(NamedTuple):
    """What a type of resources is to the gateway, in words for whoever connects to it."""

    meaning: str
    interactions: Sequence[str] = INTERACTIONS
    releases: Sequence[Release] = tuple(Release)


SERVED: Mapping[str, Served] = {
    "ServiceRequest": Served("an order, a requested procedure of one, or both: read, scheduled, and its status told"),
    "Task": Served("a scheduled procedure step: read, scheduled, and its status told"),
    "Appointment": Served("a scheduled procedure step: read, scheduled, and its status told"),
    "Patient": Served("whom an order is for; replaced-by merges"),
    "Encounter": Served("the visit of an order"),
    "Practitioner": Served("read where another resource refers to it"),
    "PractitionerRole": Served("read where another resource refers to it"),
    "Organization": Served("read where another resource refers to it"),
    "Location": Served("read where another resource refers to it"),
    "Device": Served("a station, read where another resource refers to it"),
    "Observation": Served("weight, height and pregnancy of a patient; dose of a performed step"),
    "AllergyIntolerance": Served("allergies of a patient"),
    "Condition": Served("reasons of an order, alerts of a patient"),
    "Flag": Served("alerts of a patient"),
    "Coverage": Served("kept, and not used"),
    "Procedure": Served("a performed procedure step, told by the modality"),
    "ImagingStudy": Served("a study: its UID for an order, what was made of it afterwards"),
    "Provenance": Served("who told a change"),
    "Endpoint": Served("where images are"),
    "Subscription": Served("who wants to be told of changes"),
    "SubscriptionTopic": Served("what can be subscribed to", _READ_ONLY, (Release.R4B, Release.R5)),
}
"""The types of resources that are kept, in the order in which integrators look for them."""

OPERATIONS: Mapping[str, str] = {
    "validate": "http://hl7.org/fhir/OperationDefinition/Resource-validate",
    "process-message": "http://hl7.org/fhir/OperationDefinition/MessageHeader-process-message",
}
_SECURITY = "http://terminology.hl7.org/CodeSystem/restful-security-service"


def is_served(type_: str, release: Release) -> bool:
    """Whether resources of this type are kept in this release."""
    return type_ in SERVED and release in SERVED[type_].releases


def is_written(type_: str) -> bool:
    """Whether clients may write resources of this type."""
    return type_ not in SERVED or "update" in SERVED[type_].interactions


def statement(release: Release, url: str, date: str, version: str) -> Resource:
    """The CapabilityStatement of one base at `url`; `date` is when the software began to serve it so."""
    return {
        "resourceType": "CapabilityStatement",
        "name": "ModalityWorklistGateway",
        "title": "FHIR server of the modality worklist gateway",
        "status": "active",
        "date": date,
        "kind": "instance",
        "software": {"name": "modality-gateway", "version": version},
        "implementation": {"description": f"Imaging orders in, their status out (FHIR {release.value})", "url": url},
        "fhirVersion": release.version,
        "format": [*MEDIA_TYPES.values(), *(form.value for form in Format)],
        "patchFormat": [
            *(name for name, sent in READ.items() if sent is Sent.JSON_PATCH), *MEDIA_TYPES.values()
        ],
        "rest": [
            {
                "mode": "server",
                "documentation": "Every refusal is an OperationOutcome. Only current versions are kept.",
                "security": _security(),
                "resource": [
                    _resource(type_, served, release)
                    for type_, served in SERVED.items()
                    if release in served.releases
                ],
                "interaction": [{"code": "transaction"}, {"code": "batch"}],
                "operation": [{"name": name, "definition": url} for name, url in OPERATIONS.items()],
            }
        ],
    }  # fmt: skip


def _security() -> dict[str, Any]:
    services = (("SMART-on-FHIR", "SMART Backend Services: tokens for signed assertions"),
                ("Certificates", "client certificates of TLS"))  # fmt: skip
    return {
        "cors": False,
        "service": [{"coding": [{"system": _SECURITY, "code": code}], "text": text} for code, text in services],
        "description": "See .well-known/smart-configuration below this base. API keys are not taken.",
    }


def _resource(type_: str, served: Served, release: Release) -> dict[str, Any]:
    parameters = fhir_search.parameters(type_, release)
    includes = [f"{type_}:{name}" for name, kind in parameters.items() if kind == "reference"]
    said: dict[str, Any] = {
        "type": type_,
        "documentation": served.meaning,
        **({"extension": capability()} if type_ == "Subscription" and release is Release.R4 else {}),
        "interaction": [{"code": code} for code in served.interactions],
        "versioning": "versioned",
        "readHistory": False,
        "conditionalRead": "full-support",
        **(_written(release) if is_written(type_) else {}),
        "referencePolicy": ["literal", "logical", "local"],
        "searchInclude": includes,
        "searchRevInclude": _referring(type_, release),
        "searchParam": [{"name": name, "type": kind} for name, kind in parameters.items()],
        "operation": [
            {"name": "validate", "definition": OPERATIONS["validate"]},
            *(_subscription_operations(release) if type_ == "Subscription" else ()),
        ],
    }
    return {name: value for name, value in said.items() if value != []}


def _written(release: Release) -> dict[str, Any]:
    return {
        "updateCreate": True,
        "conditionalCreate": True,
        "conditionalUpdate": True,
        **({"conditionalPatch": True} if release is Release.R5 else {}),
        "conditionalDelete": "single",
    }


def _subscription_operations(release: Release) -> Sequence[dict[str, str]]:
    where = "http://hl7.org/fhir/uv/subscriptions-backport/OperationDefinition/backport-subscription-"
    if release is Release.R5:
        where = "http://hl7.org/fhir/OperationDefinition/Subscription-"
    return [{"name": name, "definition": f"{where}{name}"} for name in ("status", "events")]


def _referring(type_: str, release: Release) -> Sequence[str]:
    """What `_revinclude` of this type can name: the parameters of references that are said to lead to it."""
    return [
        f"{other}:{name}"
        for other in SERVED
        for name, parameter in parameters_of(other, release).items()
        if parameter.kind is ParameterKind.REFERENCE and (not parameter.targets or type_ in parameter.targets)
    ]
