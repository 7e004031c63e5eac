"""FHIR resources made of what modalities performed: Procedure, ImagingStudy, dose Observation, Provenance.

They are ours: their ids follow from the UIDs that they are about, so the same one is written again and again. Which
attribute goes where is also `fhir_performed_table`'s, for people. What identifies the patient comes from the order;
what the modality said of the patient is checked elsewhere, and not told.
"""

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.domain.attributes import Attributes
from gateway.domain.identifiers import Identifier
from gateway.domain.order import Procedure
from gateway.domain.performed import MPPSState, PerformedStep, references
from gateway.domain.performed_effect import Happening, happening
from gateway.domain.resources import Resource
from gateway.wire.fhir_elements import (
    DCM,
    DICOM_UID,
    coding,
    concept,
    concepts,
    instant,
    is_uid,
    issuer_of,
    items,
    logical,
    modality,
    named_identifier,
    people,
    quantity,
    said_only,
    station,
    typed_identifier,
    uid_identifier,
    whole,
    words,
)
from gateway.wire.fhir_release import Release
from gateway.wire.fhir_status import Account, began, counts, ended, why_broken_off

_OURS = uuid.UUID("6f0e6f0c-0b9c-5f39-9a37-1d7c3a1c5e0b")
"""The name space of the ids of resources that are made here."""


OURS = "urn:uuid:6f0e6f0c-0b9c-5f39-9a37-1d7c3a1c5e0b"
"""`meta.source` of the resources that are made here."""


_RECEIVED = f"{OURS}#received"


def is_ours(resource: Resource) -> bool:
    """Whether this gateway made it: then nobody else changes it at our server."""
    return _source(resource) == OURS


def is_made(resource: Resource) -> bool:
    """Whether a gateway made it of what modalities report, this one or another."""
    return _source(resource) in (OURS, _RECEIVED)


def received(resource: Resource) -> Resource:
    """A resource as somebody sends it: what another gateway made is not ours by that, nor what only says so."""
    if not is_ours(resource):
        return resource
    return {**resource, "meta": {**resource["meta"], "source": _RECEIVED}}


def _source(resource: Resource) -> object:
    meta = resource.get("meta")
    return meta.get("source") if isinstance(meta, Mapping) else None


MADE = frozenset({"Procedure", "ImagingStudy", "Observation"})
"""Types of resources that are made of a UID, and known by it."""


def dicom_uids(resource: Resource) -> list[str]:
    """The DICOM UIDs that a resource has as identifiers."""
    found = (each for each in resource.get("identifier") or () if isinstance(each, Mapping))
    return [str(each.get("value", "")).removeprefix("urn:oid:") for each in found if each.get("system") == DICOM_UID]


def made_id(kind: str, of: str) -> str:
    """The id of the resource of this type that is about a UID, or whatever `of` names."""
    return str(uuid.uuid5(_OURS, f"{kind}:{of}"))


@dataclass(frozen=True, slots=True)
class Made:
    """Resources made of what was performed. `reference` says how another one of them is referred to."""

    procedures: tuple[Resource, ...] = field(default=(), repr=False)
    studies: tuple[Resource, ...] = field(default=(), repr=False)
    doses: tuple[Resource, ...] = field(default=(), repr=False)

    @property
    def all(self) -> tuple[Resource, ...]:
        """Those that are referred to before those that refer."""
        return (*self.procedures, *self.studies, *self.doses)


def made_of(account: Account) -> Made:
    """The resources of an order's performed steps, as they stand now. References among them are `Type/id`."""
    studies: dict[str, list[PerformedStep]] = {}
    for performed in account.performed:
        for uid in _studies(performed, account):
            studies.setdefault(uid, []).append(performed)
    return Made(
        tuple(procedure(account, each) for each in account.performed if is_uid(each.sop_instance_uid)),
        tuple(imaging_study(account, uid, several) for uid, several in studies.items()),
        tuple(found for each in account.performed if (found := dose(account, each)) is not None),
    )


def _reference(kind: str, of: str) -> dict[str, Any]:
    return {"reference": f"{kind}/{made_id(kind, of)}"}


def _studies(performed: PerformedStep, account: Account) -> list[str]:
    """The studies that a performed step says its images are in; those ordered where it says none."""
    said = dict.fromkeys(each.study_instance_uid for each in references(performed.attributes))
    ordered = dict.fromkeys(
        procedure.study_instance_uid
        for procedure in account.order.procedures
        if any(step.id in performed.steps for step in procedure.steps)
    )
    return [uid for uid in said if is_uid(uid)] or [uid for uid in ordered if is_uid(uid)]


def _based_on(account: Account, several: Iterable[PerformedStep]) -> list[Resource]:
    found: dict[str, Resource] = {}
    for performed in several:
        for step in performed.steps:
            if step in account.requests:
                found.setdefault(str(account.requests[step]), account.requests[step])
    return list(found.values())


# ---- Procedure ----


def procedure(account: Account, performed: PerformedStep) -> Resource:
    """What was done, by one performed step."""
    said = performed.attributes
    r5 = account.release is Release.R5
    steps = list(items(said, "ScheduledStepAttributesSequence"))
    text = words(said, "PerformedProcedureStepDescription") or words(said, "PerformedProcedureTypeDescription")
    own = account.schemes
    reasons = concepts(said, "ReasonForPerformedProcedureCodeSequence", own)
    used = [*concepts(said, "BillingSuppliesAndDevicesSequence", own), *_supplies(said, own), *_films(said)]
    made = {
        "resourceType": "Procedure",
        "id": made_id("Procedure", performed.sop_instance_uid),
        "meta": {"source": OURS},
        "identifier": [
            uid_identifier(performed.sop_instance_uid),
            named_identifier("Performed Procedure Step ID", words(said, "PerformedProcedureStepID")),
        ],
        "basedOn": _based_on(account, [performed]),
        "status": _procedure_status(performed),
        "statusReason": why_broken_off(performed, account),
        "category": _imaging(account),
        "code": concept(said, "ProcedureCodeSequence", text, own)
        or next(filter(None, (_ordered_code(each, own) for each in steps)), None)
        or {"text": "Imaging"},
        "subject": account.subject,
        "encounter": account.encounter or _encounter(account, said),
        "occurrencePeriod" if r5 else "performedPeriod": {"start": began(performed, account),
                                                          "end": ended(performed, account)},
        "performer": [*_station_performer(said), *_performers(items(said, "PerformedSeriesSequence"))],
        "location": logical("Location", None, words(said, "PerformedLocation")),
        "reason" if r5 else "reasonCode": [{"concept": each} for each in reasons] if r5 else reasons,
        "used" if r5 else "usedCode": [{"concept": each} for each in used] if r5 else used,
        "note": [{"text": each} for each in _notes(said)],
    }  # fmt: skip
    found: Resource = said_only(made)
    return found


_IMAGING = {"coding": [{"system": "http://snomed.info/sct", "code": "363679005", "display": "Imaging"}]}


def _imaging(account: Account) -> Any:
    return [_IMAGING] if account.release is Release.R5 else _IMAGING


def _procedure_status(performed: PerformedStep) -> str:
    if not counts(performed):
        return "entered-in-error"
    if performed.state is MPPSState.IN_PROGRESS:
        return "in-progress"
    if performed.state is MPPSState.COMPLETED:
        return "completed"
    return "stopped" if _did_something(performed.attributes) else "not-done"


def _did_something(said: Attributes) -> bool:
    instances = any(_instances(each) for each in items(said, "PerformedSeriesSequence"))
    return instances or any(words(said, each).strip("0. ") for each, *_ in _DOSES)


def _ordered_code(item: Attributes, own: Mapping[str, str]) -> dict[str, Any] | None:
    return concept(item, "RequestedProcedureCodeSequence", words(item, "RequestedProcedureDescription"), own)


def _encounter(account: Account, said: Attributes) -> dict[str, Any] | None:
    number = words(said, "AdmissionID")
    visit = Identifier(number, issuer_of(said, "IssuerOfAdmissionIDSequence")) if number else None
    return logical("Encounter", typed_identifier(visit, "VN", account.systems))


_FUNCTIONS = "http://terminology.hl7.org/CodeSystem/v3-ParticipationType"
_PEOPLE: tuple[tuple[str, str, str], ...] = (
    ("PerformingPhysicianName", "PPRF", "Performing physician"),
    ("OperatorsName", "SPRF", "Operator"),
)
"""Attribute of a series, function (v3-ParticipationType), its words."""


def _performers(series: Iterable[Attributes]) -> list[dict[str, Any]]:
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for each in series:
        for tag, code, text in _PEOPLE:
            for name in people(each, tag):
                function = {"coding": [{"system": _FUNCTIONS, "code": code}], "text": text}
                found[code, name] = {"function": function, "actor": {"display": name}}
    return list(found.values())


def _station_performer(said: Attributes) -> Iterator[dict[str, Any]]:
    device = station(words(said, "PerformedStationAETitle"), words(said, "PerformedStationName"))
    if device is not None:
        yield {"actor": device}


def _supplies(said: Attributes, own: Mapping[str, str]) -> Iterator[Resource]:
    """Supplies and devices (PS3.3 C.4.17): the code within, with how much of it."""
    for each in items(said, "BillingSuppliesAndDevicesSequence"):
        item = next(items(each, "00400296"), None)  # Billing Item Sequence
        found = coding(item, own) if item is not None else None
        amount: Attributes = next(items(each, "00400293"), {})  # Quantity Sequence
        unit = words(next(items(amount, "00400295"), {}), "CodeValue")  # Measuring Units Sequence
        count = " ".join(filter(None, (words(amount, "00400294"), unit)))
        if found is not None:
            yield {"coding": [found], "text": f"{found.get('display', found['code'])}{f', {count}' if count else ''}"}


def _films(said: Attributes) -> Iterator[Resource]:
    for each in items(said, "FilmConsumptionSequence"):
        count, medium, size = words(each, "21000170"), words(each, "20000030"), words(each, "20100050")
        if medium or size or count:
            said_of_it = " ".join(filter(None, (medium, size))) or "Film"
            yield {"text": f"{said_of_it}{f', {count}' if count else ''}"}


def _notes(said: Attributes) -> Iterator[str]:
    if words(said, "PerformedProcedureStepDescription") and (kind := words(said, "PerformedProcedureTypeDescription")):
        yield f"Procedure type: {kind}"
    if comments := words(said, "CommentsOnThePerformedProcedureStep"):
        yield comments
    for each in items(said, "BillingProcedureStepSequence"):
        if code := words(each, "CodeValue"):
            number = " ".join(filter(None, (words(each, "CodingSchemeDesignator"), code)))
            yield f"Billing: {' '.join(filter(None, (words(each, 'CodeMeaning'), f'({number})')))}"


# ---- ImagingStudy ----

_TOGETHER = "Performed together with other studies; the modality does not say which series is whose."


def imaging_study(account: Account, uid: str, several: Sequence[PerformedStep]) -> Resource:
    """A study as far as it is made of these performed steps."""
    r5 = account.release is Release.R5
    valid = [each for each in several if counts(each)]
    believed = valid or several  # of a study whose steps were all taken back it is told what they had said
    shared = any(len(_studies(each, account)) > 1 for each in valid)
    held = next((each for each in account.order.procedures if each.study_instance_uid == uid), None)
    series = [] if shared else [_series(account, item) for item in _series_items(valid)]
    codes = [
        code
        for each in valid
        for tag in ("ProcedureCodeSequence", "PerformedProtocolCodeSequence")
        for code in concepts(each.attributes, tag, account.schemes)
    ]
    codes = list({str(each): each for each in codes}.values())
    done = [_reference("Procedure", each.sop_instance_uid) for each in valid if is_uid(each.sop_instance_uid)]
    kinds = dict.fromkeys(words(each.attributes, "Modality") for each in valid)
    made: dict[str, Any] = {
        "resourceType": "ImagingStudy",
        "id": made_id("ImagingStudy", uid),
        "meta": {"source": OURS},
        "identifier": [uid_identifier(uid), *_study_numbers(account, uid, believed, held)],
        "status": _study_status(valid),
        "modality": [modality(each, account.release) for each in kinds],
        "subject": account.subject,
        "encounter": account.encounter
        or next(filter(None, (_encounter(account, each.attributes) for each in valid)), None),
        "started": min(filter(None, (began(each, account) for each in valid)), default=""),
        "basedOn": _based_on(account, valid),
        "endpoint": [{"reference": "#endpoint"}] if account.endpoint else [],
        "contained": [_endpoint(account, kinds)] if account.endpoint else [],
        "numberOfSeries": None if shared else len(series),
        "numberOfInstances": None if shared else sum(each.get("numberOfInstances", 0) for each in series),
        "location": next(
            (logical("Location", None, place) for each in valid
             if (place := words(each.attributes, "PerformedLocation"))), None,
        ),
        "description": _description(held, believed),
        "note": [{"text": _TOGETHER}] if shared else [],
        "series": series,
    }  # fmt: skip
    if r5:
        made["procedure"] = [{"concept": each} for each in codes]
        made["partOf"] = done
    else:
        made["procedureCode"] = codes
        made["procedureReference"] = done[0] if len(done) == 1 else None
    found: Resource = said_only(made)
    return found


def _study_status(valid: Sequence[PerformedStep]) -> str:
    if not valid:
        return "entered-in-error"
    if any(each.state is MPPSState.COMPLETED or _instances_of(each) for each in valid):
        return "available" if all(each.state is not MPPSState.IN_PROGRESS for each in valid) else "registered"
    return "registered" if any(each.state is MPPSState.IN_PROGRESS for each in valid) else "cancelled"


def _instances_of(performed: PerformedStep) -> bool:
    return any(_instances(each) for each in items(performed.attributes, "PerformedSeriesSequence"))


def _study_numbers(
    account: Account, uid: str, several: Sequence[PerformedStep], held: Procedure | None
) -> Iterator[Resource | None]:
    yield typed_identifier(held.accession if held else None, "ACSN", account.systems)
    if held is None or held.accession is None:
        for performed in several:
            for item in items(performed.attributes, "ScheduledStepAttributesSequence"):
                if (number := words(item, "AccessionNumber")) and words(item, "StudyInstanceUID") == uid:
                    accession = Identifier(number, issuer_of(item, "IssuerOfAccessionNumberSequence"))
                    yield typed_identifier(accession, "ACSN", account.systems)
    for number in dict.fromkeys(words(each.attributes, "StudyID") for each in several):
        yield named_identifier("Study ID", number)


def _description(held: Procedure | None, several: Sequence[PerformedStep]) -> str:
    said = (words(each.attributes, "PerformedProcedureStepDescription") for each in several)
    ordered = words(held.attributes, "RequestedProcedureDescription") if held is not None else ""
    return next(filter(None, said), ordered)


def _endpoint(account: Account, kinds: Iterable[str]) -> dict[str, Any]:
    kind: Any = {
        "system": "http://terminology.hl7.org/CodeSystem/endpoint-connection-type", "code": "dicom-wado-rs",
    }  # fmt: skip
    return {
        "resourceType": "Endpoint", "id": "endpoint", "status": "active",
        "connectionType": [{"coding": [kind]}] if account.release is Release.R5 else kind,
        **({} if account.release is Release.R5 else {"payloadType": [{"text": "DICOM"}]}),
        "address": account.endpoint,
    }  # fmt: skip


def _series_items(valid: Sequence[PerformedStep]) -> list[tuple[PerformedStep, Attributes]]:
    """Every series once: the last performed step that names it says what is in it."""
    found: dict[str, tuple[PerformedStep, Attributes]] = {}
    for performed in valid:
        for item in items(performed.attributes, "PerformedSeriesSequence"):
            if is_uid(uid := words(item, "SeriesInstanceUID")):
                found[uid] = performed, item
    return list(found.values())


_LATERALITIES: Mapping[str, tuple[str, str]] = {
    "R": ("24028007", "Right"), "L": ("7771000", "Left"), "B": ("51440002", "Right and left"),
}  # fmt: skip


def _series(account: Account, one: tuple[PerformedStep, Attributes]) -> dict[str, Any]:
    performed, item = one
    r5 = account.release is Release.R5
    description, protocol = words(item, "SeriesDescription"), words(item, "ProtocolName")
    instances = _instances(item)
    part = coding(next(items(item, "00082218"), {}), account.schemes) or said_only({"display": words(item, "00180015")})
    side = _LATERALITIES.get(words(item, "00200060"))
    lateral = {"system": "http://snomed.info/sct", "code": side[0], "display": side[1]} if side else None
    archives = dict.fromkeys(
        str(each) for each in (item.get("00080054") or {}).get("Value") or () if each
    )  # Retrieve AE Title, several
    made: dict[str, Any] = {
        "uid": words(item, "SeriesInstanceUID"),
        "modality": modality(words(item, "Modality") or words(performed.attributes, "Modality"), account.release)
        or modality("OT", account.release),
        "description": f"{description} ({protocol})" if description and protocol else description or protocol,
        "numberOfInstances": len(instances),
        "endpoint": [logical("Endpoint", named_identifier("AE title", each)) for each in archives],
        "bodySite": {"concept": {"coding": [part]}} if r5 and part else part,
        "laterality": {"coding": [lateral]} if r5 and lateral else lateral,
        "specimen": _specimens(item),
        "performer": [
            *_station_performer(performed.attributes), *_performers([item]),
        ],
        "instance": instances,
    }  # fmt: skip
    found: dict[str, Any] = said_only(made)
    return found


_LISTS = ("ReferencedImageSequence", "ReferencedNonImageCompositeSOPInstanceSequence")


def _instances(series: Attributes) -> list[dict[str, Any]]:
    """The instances of a series, each once."""
    found: dict[str, dict[str, Any]] = {}
    for tag in _LISTS:
        for each in items(series, tag):
            uid, sop_class = words(each, "ReferencedSOPInstanceUID"), words(each, "ReferencedSOPClassUID")
            if is_uid(uid) and is_uid(sop_class):
                found[uid] = {
                    "uid": uid,
                    "sopClass": {"system": "urn:ietf:rfc3986", "code": f"urn:oid:{sop_class}"},
                    "number": whole(words(each, "00200013")),
                }
    return list(found.values())


def _specimens(series: Attributes) -> list[dict[str, Any] | None]:
    """The specimens that the images of a series show, by reference."""
    found: dict[tuple[str, str], dict[str, Any] | None] = {}  # by specimen and container
    for image in items(series, "ReferencedImageSequence"):
        container = words(image, "ContainerIdentifier")
        described = list(items(image, "SpecimenDescriptionSequence"))
        for each in described:
            uid, name = words(each, "SpecimenUID"), words(each, "SpecimenIdentifier")
            identifier = uid_identifier(uid) or named_identifier("Specimen identifier", name)
            shown = f"{name} in {container}" if name and container else name or container
            found[uid or name, container] = logical("Specimen", identifier, shown)
        if container and not described:
            found["", container] = logical("Specimen", named_identifier("Container identifier", container))
    return list(found.values())


# ---- dose ----

_DOSES: tuple[tuple[str, str, str, str, str], ...] = (
    ("TotalTimeOfFluoroscopy", "113730", "Total Fluoro Time", "s", "s"),
    ("TotalNumberOfExposures", "", "Total number of exposures", "{exposures}", "1"),
    ("EntranceDose", "", "Entrance dose", "dGy", "dGy"),
    ("ImageAndFluoroscopyAreaDoseProduct", "113722", "Dose Area Product Total", "dGy.cm2", "dGy.cm2"),
)
"""Attribute, DCM code where one means the same, words, unit as people read it, and as UCUM writes it."""

_EXPOSURE: tuple[tuple[str, str, str], ...] = (
    ("00180060", "KVP", "kV"),
    ("00188151", "X-ray tube current", "uA"),
    ("00181150", "Exposure time", "ms"),
)
_EXPOSURE_WORDS: tuple[tuple[str, str], ...] = (
    ("0018115A", "Radiation mode"), ("00181160", "Filter type"), ("00187050", "Filter material"),
    ("00400310", "Comments on radiation dose"),
)  # fmt: skip
"""Of each item of the Exposure Dose Sequence (PS3.3 C.4.16)."""


def dose(account: Account, performed: PerformedStep) -> Resource | None:
    """What the patient was exposed to, by one performed step: one Observation, part of its Procedure.

    None where the modality says nothing of it.
    """
    said = performed.attributes
    components: list[dict[str, Any]] = []
    for keyword, code, text, unit, ucum in _DOSES:
        value = quantity(words(said, keyword), unit, ucum)
        if value is not None:
            components.append({"code": _measured(code, text), "valueQuantity": value})
    for number, item in enumerate(items(said, "ExposureDoseSequence"), 1):
        components += _exposure(item, number)
    if not components or not is_uid(performed.sop_instance_uid):
        return None
    running = performed.state is MPPSState.IN_PROGRESS
    made = {
        "resourceType": "Observation",
        "id": made_id("Observation", performed.sop_instance_uid),
        "meta": {"source": OURS},
        "identifier": [{**(uid_identifier(performed.sop_instance_uid) or {}), "type": {"text": "Radiation dose"}}],
        "status": "entered-in-error" if not counts(performed) else "preliminary" if running else "final",
        "category": [{"coding": [{"system": _CATEGORIES, "code": "imaging"}]}],
        "code": {"text": "Radiation dose of a performed procedure step"},
        "basedOn": _based_on(account, [performed]),
        "partOf": [_reference("Procedure", performed.sop_instance_uid)],
        "subject": account.subject,
        "encounter": account.encounter or _encounter(account, said),
        "effectivePeriod": {"start": began(performed, account), "end": ended(performed, account)},
        "device": station(words(said, "PerformedStationAETitle"), words(said, "PerformedStationName")),
        "component": components,
    }
    found: Resource = said_only(made)
    return found


_CATEGORIES = "http://terminology.hl7.org/CodeSystem/observation-category"


def _measured(code: str, text: str) -> dict[str, Any]:
    return {**({"coding": [{"system": DCM, "code": code, "display": text}]} if code else {}), "text": text}


def _exposure(item: Attributes, number: int) -> Iterator[dict[str, Any]]:
    for tag, text, unit in _EXPOSURE:
        for value in (item.get(tag) or {}).get("Value") or ():
            if (found := quantity(str(value), unit, unit)) is not None:
                yield {"code": {"text": f"{text}, exposure {number}"}, "valueQuantity": found}
    for tag, text in _EXPOSURE_WORDS:
        if spoken := ", ".join(str(each) for each in (item.get(tag) or {}).get("Value") or () if each):
            yield {"code": {"text": f"{text}, exposure {number}"}, "valueString": spoken}


# ---- Provenance ----

_PARTICIPANTS = "http://terminology.hl7.org/CodeSystem/provenance-participant-type"
_OPERATIONS = "http://terminology.hl7.org/CodeSystem/v3-DataOperation"


def provenance(
    account: Account, targets: Sequence[str], cause: PerformedStep | None, seed: str, created: bool = False
) -> Resource:
    """Where these resources (`Type/id`, with a version or without) have what they say from.

    `cause` is the performed step that changed them, None where no modality did. `seed` tells it from all others.
    """
    agents: list[dict[str, Any]] = []
    if cause is not None:
        said = cause.attributes
        agents.append({"type": _agent("performer"), "who": station(
            words(said, "PerformedStationAETitle"), words(said, "PerformedStationName")
        )})  # fmt: skip
    agents.append({"type": _agent("assembler"), "who": station(account.gateway or "GATEWAY", "Modality gateway")})
    made = {
        "resourceType": "Provenance",
        "id": made_id("Provenance", seed),
        "meta": {"source": OURS},
        "target": [{"reference": each} for each in targets],
        "occurredDateTime": (ended(cause, account) or began(cause, account)) if cause is not None else "",
        "recorded": instant(account.at),
        "activity": {"coding": [{"system": _OPERATIONS, "code": "CREATE" if created else "UPDATE"}]},
        "agent": agents,
        "entity": [
            {"role": "source", "what": {"identifier": uid_identifier(cause.sop_instance_uid),
                                        "display": f"MPPS {_state(cause)}"}}
        ] if cause is not None and is_uid(cause.sop_instance_uid) else [],
    }  # fmt: skip
    found: Resource = said_only(made)
    return found


def _agent(code: str) -> dict[str, Any]:
    return {"coding": [{"system": _PARTICIPANTS, "code": code}]}


def _state(performed: PerformedStep) -> str:
    withdrawn = performed.quarantined or happening(performed) is Happening.WITHDRAWN
    return "taken back" if withdrawn else performed.state.value
