"""Reports for outbound mappings (`domain.report`), made of what is held: an order with its procedures, or a patient.

Numbers are written with the authority as its sender called it, where that is held, else with our name for it.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping

from gateway.domain.attributes import SPS_SEQUENCE, TAG, Attributes, element, text, values
from gateway.domain.identifiers import Identifier
from gateway.domain.order import Order, Procedure
from gateway.domain.outbound_converters import issuer_of
from gateway.domain.patient import Patient, Visit
from gateway.domain.performed import PerformedStep, references
from gateway.domain.report import Report, composed
from gateway.domain.source import Repetition
from gateway.wire.er7 import NULL, Message
from gateway.workflow.ports import Unit


def about_order(
    unit: Unit,
    order: Order,
    facts: Mapping[str, str],
    concerned: Collection[int] = (),
    performed: PerformedStep | None = None,
) -> Report:
    """The report of an order: of the procedures with a step among `concerned`, of all of them where none has one."""
    patient = unit.patient(order.patient_id)
    visit = unit.visit_by_id(order.visit_id) if order.visit_id is not None else None
    procedures = [
        each for each in order.procedures if any(step.id in concerned for step in each.steps)
    ] or order.procedures  # fmt: skip
    accessions = {
        "Accession" if number == 1 else f"Accession {number}": _ei(
            each.accession, values(each.attributes, "IssuerOfAccessionNumberSequence"),
            text(each.attributes, "AccessionNumber"),
        )
        for number, each in enumerate(procedures, 1)
    }  # fmt: skip
    return Report(
        {
            **facts,
            "Placer": _ei(order.placer, values(order.attributes, "OrderPlacerIdentifierSequence")),
            "Filler": _ei(order.filler, values(order.attributes, "OrderFillerIdentifierSequence"))
            or ("" if order.placer else accessions.get("Accession", "")),
            **accessions,
            **_person_facts(patient, visit),
        },
        _person(patient, visit),
        tuple(_tree(order, each) for each in procedures),
        _done(performed) if performed is not None else {},
    )


# What was done, as codes: of a group nobody can tell which of them belongs to which procedure.
_CODES_DONE = ("00081032", "00400260")


def _done(performed: PerformedStep) -> Attributes:
    """What a performed step says of each procedure that it was done for."""
    if len(references(performed.attributes)) < 2:
        return performed.attributes
    return {tag: said for tag, said in performed.attributes.items() if tag not in _CODES_DONE}


def about_patient(unit: Unit, patient: Patient, facts: Mapping[str, str], message: Message) -> Report:
    """The report of a patient of whom a message spoke, with the visit that it named."""
    visit = _visit_named(unit, patient, message)
    prior = composed(_taken_away(patient, message))
    return Report(
        {**facts, "PriorPatientIDs": prior, **_person_facts(patient, visit)}, _person(patient, visit)
    )  # fmt: skip


def _tree(order: Order, procedure: Procedure) -> Attributes:
    """Order and procedure attributes, with the procedure's steps in their sequence."""
    steps = [
        {**step.attributes, TAG["ScheduledProcedureStepID"]: element("ScheduledProcedureStepID", step.sps_id)}
        if step.sps_id
        else step.attributes
        for step in procedure.steps
    ]
    keys = {
        "StudyInstanceUID": procedure.study_instance_uid,
        "RequestedProcedureID": procedure.requested_procedure_id,
        "AccessionNumber": procedure.accession.value if procedure.accession else "",
    }
    held = {TAG[keyword]: element(keyword, value) for keyword, value in keys.items() if value}
    return {**order.attributes, **procedure.attributes, **held, SPS_SEQUENCE: {"vr": "SQ", "Value": steps}}


def _person(patient: Patient | None, visit: Visit | None) -> Attributes:
    return {**(patient.attributes if patient else {}), **(visit.attributes if visit else {})}


def _person_facts(patient: Patient | None, visit: Visit | None) -> Mapping[str, str]:
    facts: dict[str, str] = {"PatientIDs": composed(_patient_ids(patient)) if patient else ""}
    if visit is not None and visit.number is not None:
        issuers = values(visit.attributes, "IssuerOfAdmissionIDSequence")
        facts["VisitNumber"] = composed([_cx(visit.number.value, _authority(visit.number, issuers))])
    return facts


# ---- numbers with who issued them ----

_Authority = tuple[str, str, str]


def _authority(number: Identifier, issuers: Iterable[object]) -> _Authority:
    said = next((found for item in issuers if any(found := issuer_of(item))), ("", "", ""))
    return said if any(said) else (number.issuer, "", "")


def _ei(number: Identifier | None, issuers: Iterable[object], value: str = "") -> str:
    """An HL7 EI; of a bare value where there is no more than that."""
    number = number or (Identifier(value) if value else None)
    if number is None:
        return ""
    return composed([tuple((part,) for part in (number.value, *_authority(number, issuers)))])


def _cx(value: str, authority: _Authority, type_code: str = "") -> Repetition:
    return ((value,), ("",), ("",), authority, (type_code,))


def _patient_ids(patient: Patient) -> Iterator[Repetition]:
    """Every identifier that the patient bears, the primary one first, as their senders wrote them."""
    held = [patient.attributes, *(each for each in values(patient.attributes, "OtherPatientIDsSequence"))]
    by_value = {text(item, "PatientID"): item for item in reversed(held) if isinstance(item, dict)}
    for identifier in patient.identifiers:
        item = by_value.get(identifier.value, {})
        qualifiers: object = next(iter(values(item, "IssuerOfPatientIDQualifiersSequence")), {})
        _, universal_id, kind = issuer_of(qualifiers)
        namespace = text(item, "IssuerOfPatientID") or ("" if universal_id else identifier.issuer)
        type_code = text(qualifiers, "IdentifierTypeCode") if isinstance(qualifiers, dict) else ""
        yield _cx(identifier.value, (namespace, universal_id, kind), type_code)


def _taken_away(patient: Patient, message: Message) -> Iterator[Repetition]:
    """The identifiers of MRG-1 that find this patient now and are no longer said: merged away, or changed."""
    retired = {identifier.value for identifier in patient.retired}
    for segment in message.all("MRG"):
        for repetition in segment.field(1):
            if repetition[0][0] in retired:
                yield repetition


def _visit_named(unit: Unit, patient: Patient, message: Message) -> Visit | None:
    """The patient's visit of PV1-19 (or PID-18)."""
    if patient.id is None:
        return None
    said = (segment.text(n) for name, n in (("PV1", 19), ("PID", 18)) for segment in message.all(name))
    number = next((each for each in said if each and each != NULL), "")
    visits = (unit.visit_by_id(visit_id) for visit_id in unit.belongings(patient.id).visits)
    held = [visit for visit in visits if visit is not None]
    return next((visit for visit in held if number and visit.number and visit.number.value == number), None)
