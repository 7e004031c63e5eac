"""A modality reports what it does: MPPS N-CREATE (RAD-6) and N-SET (RAD-7), and linking to orders that come later.

Each use case runs in one transaction and returns an answer instead of raising: a refused request changes nothing
but the archive, and that line has to be committed too (design section 2, rule 3). What a neighbour cannot do now
(full disk, database away) it raises itself, and the edge answers 0213.

A request that is repeated because its answer was lost is answered as DICOM says, not as if it were new: 0111 for the
N-CREATE, also of the same bytes (PS3.7 10.1.5.1.6), 0110 with Error ID A710 for the N-SET that closed the step.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from gateway.domain.attributes import Attributes, text, values
from gateway.domain.identifiers import Identifier, Issuers
from gateway.domain.patient import Patient
from gateway.domain.performed import (
    LENIENT,
    MPPSState,
    Operation,
    PerformedStep,
    Rules,
    StepReference,
    amend,
    create,
    references,
    step_event,
)
from gateway.domain.refusal import Refusal, RefusalKind, Refused
from gateway.domain.worklist import TRANSITIONS, SPSStatus, StepEvent
from gateway.wire.mpps_dataset import (
    UID_LENGTH_MAX,
    accepted_answer,
    read_step,
    readable_uid,
    refusal_answer,
    said_instance_uid,
)
from gateway.workflow.ports import StepRef, Unit

ARCHIVED_REASONS_CHARS_MAX = 2000
"""Reasons and notes kept beside an archived request: a page; the raw dataset itself is beside them."""


@dataclass(frozen=True, slots=True)
class PerformRequest:
    """An N-CREATE or N-SET as received; `sop_instance_uid` is '' where the command gave none."""

    sop_instance_uid: str
    calling_ae_title: str
    transfer_syntax: str
    raw: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class PatientIssuers:
    """Who issued the patient ID of an MPPS: the registry, and the authority meant where the MPPS names none."""

    registry: Issuers = field(default_factory=Issuers)
    default: str = ""


@dataclass(frozen=True, slots=True)
class StepChange:
    """A scheduled step whose status was changed."""

    step_id: int
    before: SPSStatus
    after: SPSStatus


@dataclass(frozen=True, slots=True)
class PerformAnswer:
    """The DIMSE answer, and what was done: the performed step as it is now held, and the scheduled steps it changed.

    `error_id` is (0000,0903), `attribute_tags` (0000,1005); `performed` is None where the request was refused.
    """

    status: int
    comment: str = ""
    error_id: int | None = None
    attribute_tags: tuple[int, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    notes: tuple[str, ...] = ()
    performed: PerformedStep | None = None
    changes: tuple[StepChange, ...] = ()


def create_step(
    unit: Unit, request: PerformRequest, at: datetime, rules: Rules = LENIENT, issuers: PatientIssuers | None = None
) -> PerformAnswer:
    """N-CREATE: keep the performed step, link it to the scheduled ones it names, start those."""
    said, odd, unreadable = _read(request)
    uid = readable_uid(request.sop_instance_uid or said_instance_uid(said))
    if not uid:
        return _refused(unit, Operation.CREATE, request, at, (_NO_UID,))
    request = replace(request, sop_instance_uid=uid)
    held = unit.performed_step(uid)
    if unreadable and held is None:
        return _refused(unit, Operation.CREATE, request, at, unreadable)
    change = create(held, uid, said, request.calling_ae_title, rules)
    if change.performed is None:
        return _refused(unit, Operation.CREATE, request, at, change.refusals)
    linked = _link(unit, change.performed, issuers or PatientIssuers())
    unit.save_performed_step(linked.performed, at)
    changes = _carry_over(unit, linked.performed, linked.steps, at)
    notes = (*odd, *change.notes, *linked.notes)
    return _accepted(unit, Operation.CREATE, request, at, linked.performed, (), notes, changes)


def set_step(unit: Unit, request: PerformRequest, at: datetime, rules: Rules = LENIENT) -> PerformAnswer:
    """N-SET: change the performed step; where it ends, so do or return the scheduled steps it is linked to."""
    said, odd, unreadable = _read(request)
    uid = readable_uid(request.sop_instance_uid)
    if not uid:
        return _refused(unit, Operation.SET, request, at, (_NO_UID,))
    request = replace(request, sop_instance_uid=uid)
    held = unit.performed_step(uid)
    if unreadable and held is not None and held.state is MPPSState.IN_PROGRESS:
        return _refused(unit, Operation.SET, request, at, unreadable)
    change = amend(held, said, rules)
    if change.performed is None or held is None:
        return _refused(unit, Operation.SET, request, at, change.refusals)
    unit.save_performed_step(change.performed, at)
    changes: tuple[StepChange, ...] = ()
    if change.performed.state is not held.state and not held.quarantined:
        changes = _carry_over(unit, change.performed, unit.steps(held.steps), at)
    notes = (*odd, *change.notes)
    return _accepted(unit, Operation.SET, request, at, change.performed, change.kept, notes, changes)


def link_waiting(
    unit: Unit,
    study_instance_uids: Iterable[str],
    accession_numbers: Iterable[str],
    at: datetime,
    issuers: PatientIssuers | None = None,
) -> tuple[StepChange, ...]:
    """An order with these keys has come or changed: link the performed steps that came before it (design D14).

    To be called after the order was saved, in its transaction.
    """
    changes: list[StepChange] = []
    for waiting in unit.unlinked_performed_steps(study_instance_uids, accession_numbers):
        linked = _link(unit, waiting, issuers or PatientIssuers())
        new = [step for step in linked.steps if step.step_id not in waiting.steps]
        if new:
            unit.save_performed_step(linked.performed, at)
            changes += _carry_over(unit, linked.performed, new, at)
    return tuple(changes)


# --- linking ----------------------------------------------------------------------------------------------------


_UNKNOWN = "names a scheduled step that is not held"
_AMBIGUOUS = "names scheduled steps without saying which; not linked to any of them"


@dataclass(frozen=True, slots=True)
class _Linked:
    performed: PerformedStep
    steps: tuple[StepRef, ...]
    notes: tuple[str, ...]


def _link(unit: Unit, performed: PerformedStep, issuers: PatientIssuers) -> _Linked:
    """The performed step with every scheduled step it names (group case: one for each item of its sequence)."""
    notes: list[str] = []
    steps = {ref.step_id: ref for ref in unit.steps(performed.steps)}
    for reference in references(performed.attributes):
        found = _find(unit, reference)
        if len(found) == 1:
            steps[found[0].step_id] = found[0]
        else:
            notes.append(_AMBIGUOUS if found else _UNKNOWN)
    said = _patient_identifiers(performed.attributes, issuers.registry)
    patients = list(dict.fromkeys(ref.patient_id for ref in steps.values()))
    quarantined = any(_is_other(unit, said, issuers.default, unit.patient(each)) for each in patients)
    if quarantined:
        notes.append("names another patient than the worklist does; quarantined")
    if patients and not quarantined:
        patient_id: int | None = patients[0]
    else:
        patient_id = next((patient.id for patient in _bearers(unit, said, issuers.default)), None)
    held = replace(performed, patient_id=patient_id, steps=tuple(steps), quarantined=quarantined)
    return _Linked(held, tuple(steps.values()), tuple(dict.fromkeys(notes)))


def _find(unit: Unit, reference: StepReference) -> Sequence[StepRef]:
    """What the most telling of the keys finds; several only if no key tells them apart.

    In this order: study and step ID; study; accession and requested procedure. Where study or procedure have several
    steps the remaining keys narrow them down; a guess among them would take work off the list that nobody did.
    """
    ambiguous: Sequence[StepRef] = ()
    for lookup in dict.fromkeys(_lookups(reference)):
        found = unit.find_steps(*lookup)
        if len(found) == 1:
            return found
        ambiguous = ambiguous or found
    return ambiguous


def _lookups(reference: StepReference) -> Iterator[tuple[str, str, str, str]]:
    """Arguments of `Unit.find_steps`, the most telling first."""
    study, sps_id = reference.study_instance_uid, reference.sps_id
    accession, procedure = reference.accession_number, reference.requested_procedure_id
    if study:
        if sps_id:
            yield study, sps_id, "", ""
        yield study, "", accession, procedure
        yield study, "", "", ""
    if accession and procedure:
        yield "", sps_id, accession, procedure
        yield "", "", accession, procedure


def _patient_identifiers(attributes: Attributes, registry: Issuers) -> tuple[Identifier, ...]:
    """Patient ID and then other patient IDs, each with its issuer, '' where none is said."""
    items = (attributes, *(item for item in values(attributes, "OtherPatientIDsSequence") if isinstance(item, dict)))
    found = [Identifier(text(item, "PatientID"), _issuer(item, registry)) for item in items]
    if not found[0].value:
        return ()
    return tuple(identifier for identifier in found if identifier.value)


def _issuer(item: Attributes, registry: Issuers) -> str:
    qualifiers = next(iter(values(item, "IssuerOfPatientIDQualifiersSequence")), None) or {}
    return registry.resolve(text(item, "IssuerOfPatientID"), text(qualifiers, "UniversalEntityID"))


def _bearers(unit: Unit, said: Sequence[Identifier], default_issuer: str) -> Sequence[Patient]:
    """The patients held under the patient ID of the MPPS; a missing issuer is the default one."""
    return unit.patients([replace(said[0], issuer=said[0].issuer or default_issuer)]) if said else ()


def _is_other(unit: Unit, said: Sequence[Identifier], default_issuer: str, patient: Patient | None) -> bool:
    """Whether the MPPS names somebody else than `patient`: by identifiers and their issuers, never by spelling.

    No patient ID is no difference (some consoles send none), nor is a missing issuer. A patient ID that nobody is known
    by is one, unless another ID in the MPPS is the patient's.
    """
    if not said or patient is None or _bears(patient, said[0]):
        return False
    known = _bearers(unit, said, default_issuer)
    if known:
        one_person = {patient.id, *(unit.linked_patients(patient.id) if patient.id is not None else ())}
        return not any(bearer.id in one_person for bearer in known)
    return not any(_bears(patient, other) for other in said[1:])


def _bears(patient: Patient, said: Identifier) -> bool:
    return any(
        held.value == said.value and (held.issuer == said.issuer or not held.issuer or not said.issuer)
        for held in (*patient.identifiers, *patient.retired)
    )


# --- effects and answers ----------------------------------------------------------------------------------------


def _carry_over(unit: Unit, performed: PerformedStep, steps: Iterable[StepRef], at: datetime) -> tuple[StepChange, ...]:
    """Give the scheduled steps the status that follows from the performed one's new state."""
    changes: list[StepChange] = []
    running = performed.state is MPPSState.IN_PROGRESS
    for step in steps:
        siblings = () if running else unit.performed_steps_of(step.step_id)  # one that runs needs no others
        event = step_event(performed, siblings)
        after = TRANSITIONS[step.status, event] if event is not None else None
        if event is StepEvent.PERFORMANCE_RETURNED and step.status is SPSStatus.STARTED:
            after = unit.status_before_performance(step.step_id)  # an order cancelled meanwhile stays cancelled
        if after is not None and after is not step.status:
            unit.set_step_status(step.step_id, after, f"MPPS {performed.state} {performed.sop_instance_uid}", at)
            changes.append(StepChange(step.step_id, step.status, after))
    return tuple(changes)


_NO_UID = Refusal(
    RefusalKind.INVALID_UID, "(0000,1000)", "is no SOP Instance UID",
    "the modality has to give each performed step a UID of its own (PS3.4 F.7.2.1.2)",
)  # fmt: skip


def _read(request: PerformRequest) -> tuple[Attributes, tuple[str, ...], tuple[Refusal, ...]]:
    """The attributes, notes on them, and why there are none where the dataset cannot be read."""
    try:
        return *read_step(request.raw, request.transfer_syntax), ()
    except Refused as refused:
        return {}, (), refused.refusals


def _refused(
    unit: Unit, operation: Operation, request: PerformRequest, at: datetime, refusals: tuple[Refusal, ...]
) -> PerformAnswer:
    answer = refusal_answer(refusals)
    _archive(unit, operation, request, at, answer.status, [str(refusal) for refusal in refusals])
    return PerformAnswer(answer.status, answer.comment, answer.error_id, answer.attribute_tags, refusals)


def _accepted(
    unit: Unit, operation: Operation, request: PerformRequest, at: datetime, performed: PerformedStep,
    kept: tuple[str, ...], notes: tuple[str, ...], changes: tuple[StepChange, ...],
) -> PerformAnswer:  # fmt: skip
    answer = accepted_answer(kept)
    _archive(unit, operation, request, at, answer.status, [answer.comment, *notes])
    return PerformAnswer(answer.status, answer.comment, None, answer.attribute_tags, (), notes, performed, changes)


def _archive(
    unit: Unit, operation: Operation, request: PerformRequest, at: datetime, status: int, reasons: Iterable[str]
) -> None:
    """Keep the request as it came, with what it came to."""
    told = "; ".join(reason for reason in reasons if reason)[:ARCHIVED_REASONS_CHARS_MAX]
    uid, caller = request.sop_instance_uid[:UID_LENGTH_MAX], request.calling_ae_title
    unit.archive_performed(uid, operation.value, caller, request.raw, status, told, at)
