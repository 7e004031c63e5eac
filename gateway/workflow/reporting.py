"""Reports for outbound mappings (`domain.report`), made of what is held: an order with its procedures, or a patient.

Numbers are written with the authority as its sender called it, where that is held, else with our name for it.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import tzinfo

from gateway.domain.attributes import BY_KEYWORD, SPS_SEQUENCE, TAG, Attributes, element, text, values
from gateway.domain.converters import Setting, address, location, phone
from gateway.domain.identifiers import Identifier
from gateway.domain.order import Order, Procedure
from gateway.domain.outbound_converters import Setting as OutboundSetting
from gateway.domain.outbound_converters import issuer_of, ts
from gateway.domain.patient import Patient, Visit
from gateway.domain.performed import MPPSState, PerformedStep, references
from gateway.domain.performed_effect import Happening, happening
from gateway.domain.report import Report, composed, of_procedure
from gateway.domain.source import Repetition
from gateway.wire.er7 import NULL, Message
from gateway.workflow.ports import Unit


@dataclass(frozen=True, slots=True)
class Performance:
    """What was performed of an order, in the order it began: every performed step that counts for it.

    Those of wrong entries, those that are not believed and those that are not linked to it any more do not. `cause` is
    the one that a message is about; the last one stands for it where that does not count.
    """

    counted: tuple[PerformedStep, ...] = field(default=(), repr=False)
    cause: PerformedStep | None = None

    @property
    def told(self) -> PerformedStep | None:
        """The performed step whose attributes are told."""
        return self.cause or (self.counted[-1] if self.counted else None)

    def began(self, steps: Collection[int], zone: tzinfo | None) -> str:
        """When the first one of these scheduled steps began, as HL7 TS."""
        return min(filter(None, (_time(each, _START, zone) for each in self._of(steps))), default="")

    def ended(self, steps: Collection[int], zone: tzinfo | None) -> str:
        """When the last one of these scheduled steps ended, likewise; nothing where the message says that one runs."""
        if self.told is None or self.told.state is MPPSState.IN_PROGRESS:
            return ""
        return max((_time(each, _END, zone) for each in self._of(steps)), default="")

    def _of(self, steps: Collection[int]) -> Iterator[PerformedStep]:
        return (each for each in self.counted if not set(steps).isdisjoint(each.steps))


NOT_PERFORMED = Performance()

_START = "00400244", "00400245"
_END = "00400250", "00400251"
"""Date and time."""


def performance_of(
    unit: Unit, order: Order, cause: PerformedStep | None = None, withdrawn: bool = False
) -> Performance:
    """What was performed of an order that is held. `cause` is one as it is now held, where a performed step changed it.

    `withdrawn` says that `cause` went away from some of its scheduled steps: then what it did was told.
    """
    if order.id is None:
        return NOT_PERFORMED
    steps = {step.id for procedure in order.procedures for step in procedure.steps}
    known = cause.sop_instance_uid if cause is not None else ""
    held = [unit.performed_step(uid) for uid in dict.fromkeys(unit.performed_of_order(order.id)) if uid != known]
    counted = [each for each in (*held, cause) if each is not None and _counts(each, steps)]
    counted.sort(key=lambda each: (_time(each, _START, None), each.sop_instance_uid))
    counts = cause in counted and not withdrawn
    return Performance(tuple(counted), cause if counts else None)


def _counts(performed: PerformedStep, steps: Collection[int | None]) -> bool:
    linked = not performed.quarantined and not set(steps).isdisjoint(performed.steps)
    return linked and happening(performed) is not Happening.WITHDRAWN


def _time(performed: PerformedStep, tags: tuple[str, str], zone: tzinfo | None) -> str:
    date, clock = (next(iter((performed.attributes.get(tag) or {}).get("Value") or ()), None) for tag in tags)
    return next((made[0][0] for made in ts(date, clock, OutboundSetting(zone=zone))), "")


def about_order(
    unit: Unit,
    order: Order,
    facts: Mapping[str, str],
    concerned: Collection[int] = (),
    performance: Performance = NOT_PERFORMED,
    zone: tzinfo | None = None,
) -> Report:
    """The report of an order: of the procedures with a step among `concerned`, of all of them where none has one."""
    patient = unit.patient(order.patient_id)
    visit = unit.visit_by_id(order.visit_id) if order.visit_id is not None else None
    procedures = [
        each for each in order.procedures if any(step.id in concerned for step in each.steps)
    ] or order.procedures  # fmt: skip
    accessions = {
        of_procedure("Accession", number): _ei(
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
            **_times(procedures, performance, zone),
            **_person_facts(patient, visit),
        },
        _person(patient, visit),
        tuple(_tree(order, each) for each in procedures),
        _done(performance.told) if performance.told is not None else {},
    )


def _times(procedures: Iterable[Procedure], performance: Performance, zone: tzinfo | None) -> Mapping[str, str]:
    """When each requested procedure began and ended."""
    if not performance.counted:
        return {}
    found: dict[str, str] = {}
    for number, procedure in enumerate(procedures, 1):
        steps = [step.id for step in procedure.steps if step.id is not None]
        found[of_procedure("Began", number)] = performance.began(steps, zone)
        found[of_procedure("Ended", number)] = performance.ended(steps, zone)
    return {name: value for name, value in found.items() if value}


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


_SAID: tuple[tuple[str, str, int, str, Callable[[Repetition, Setting], object]], ...] = (
    ("Location", "PV1", 3, "CurrentPatientLocation", location),
    ("Address", "PID", 11, "PatientAddress", address),
    ("Telephones", "PID", 13, "PatientTelephoneNumbers", phone),
)
"""Facts, where a received message says them, and the attribute that is held of it without its components."""


def with_components(report: Report, message: Message) -> Report:
    """The report with what a received message says in components and what is held as text alone.

    Only where both say the same: the message may be older than what is held, or be read by a mapping of its own.
    """
    said = {
        fact: composed(field)
        for fact, name, number, keyword, convert in _SAID
        if (field := _field(message, name, number))
        and [convert(each, Setting(vr=BY_KEYWORD[keyword].vr)) for each in field] == values(report.person, keyword)
    }
    return replace(report, facts={**report.facts, **said}) if said else report


def _field(message: Message, name: str, number: int) -> Sequence[Repetition]:
    segment = message.first(name)
    return segment.field(number) if segment is not None else ()


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
