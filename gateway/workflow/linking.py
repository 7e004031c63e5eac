"""Which scheduled steps a performed one is about, and whether it is about their patient.

Linking goes by keys, from the most telling on, and never guesses; whose it is goes by identifiers and their issuers,
never by spelling. Nothing is changed here.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from gateway.domain.attributes import Attributes, text, values
from gateway.domain.identifiers import Identifier, Issuers
from gateway.domain.order import Order
from gateway.domain.patient import Patient
from gateway.domain.performed import Attention, PerformedStep, StepReference, references
from gateway.workflow.ports import StepRef, Unit


@dataclass(frozen=True, slots=True)
class PatientIssuers:
    """Who issued the patient ID of an MPPS: the registry, and the authority meant where the MPPS names none.

    The registry also tells who issued its accession numbers.
    """

    registry: Issuers = field(default_factory=Issuers)
    default: str = ""


_UNKNOWN = "names a scheduled step that is not held"
_AMBIGUOUS = "names scheduled steps without saying which; not linked to any of them"


@dataclass(frozen=True, slots=True)
class Linked:
    """A performed step with what it is linked to now. `notes` say what of it could not be linked."""

    performed: PerformedStep
    steps: tuple[StepRef, ...]
    notes: tuple[str, ...]


def link(unit: Unit, performed: PerformedStep, issuers: PatientIssuers) -> Linked:
    """The performed step with every scheduled step it names (group case: one for each item of its sequence)."""
    notes: list[str] = []
    steps = {ref.step_id: ref for ref in unit.steps(performed.steps)}
    for reference in references(performed.attributes):
        found = _find(unit, reference, issuers.registry)
        if len(found) == 1:
            steps[found[0].step_id] = found[0]
        else:
            notes.append(_AMBIGUOUS if found else _UNKNOWN)
    said = patient_identifiers(performed.attributes, issuers.registry)
    patients = list(dict.fromkeys(ref.patient_id for ref in steps.values()))
    quarantined = any(_is_other(unit, said, issuers.default, unit.patient(each)) for each in patients)
    if quarantined:
        notes.append("names another patient than the worklist does; quarantined")
    if patients and not quarantined:
        patient_id: int | None = patients[0]
    else:
        patient_id = next((patient.id for patient in _bearers(unit, said, issuers.default)), None)
    attention = (
        Attention.ANOTHER_PATIENT if quarantined
        else Attention.AMBIGUOUS if _AMBIGUOUS in notes
        else Attention.NO_ORDER if _UNKNOWN in notes or not steps
        else Attention.NONE
    )  # fmt: skip
    held = replace(performed, patient_id=patient_id, steps=tuple(steps), attention=attention)
    return Linked(held, tuple(steps.values()), tuple(dict.fromkeys(notes)))


def _find(unit: Unit, reference: StepReference, registry: Issuers) -> Sequence[StepRef]:
    """What the most telling of the keys finds; several only if no key tells them apart.

    In this order: study and step ID; study; accession and requested procedure. Where study or procedure have several
    steps the remaining keys narrow them down; a guess among them would take work off the list that nobody did. A group
    may have one study for all its items (PS3.17 J), so where everything but the study names a step it is that one.
    Without the study it has to be an accession number of the same issuer, as far as both say whose it is.
    """
    ambiguous: Sequence[StepRef] = ()
    for lookup in dict.fromkeys(_lookups(reference)):
        found = unit.find_steps(*lookup)
        if not lookup[0]:
            found = _of_issuer(unit, found, reference, registry)
        if len(found) == 1:
            return found
        ambiguous = ambiguous or found
    return ambiguous


def _of_issuer(
    unit: Unit, found: Sequence[StepRef], reference: StepReference, registry: Issuers
) -> Sequence[StepRef]:  # fmt: skip
    """Those with an accession number of the issuer that is named; where there are none, those that name no issuer."""
    said = registry.resolve(*reference.accession_issuer)
    if not said or not found:
        return found
    issuers = {step.step_id: accession_issuer(unit.order(step.order_id), step.step_id) for step in found}
    exactly = [step for step in found if issuers[step.step_id] == said]
    return exactly or [step for step in found if not issuers[step.step_id]]


def accession_issuer(order: Order | None, step_id: int) -> str:
    """Who issued the accession number of a scheduled step; '' where nobody says."""
    procedures = order.procedures if order is not None else ()
    its = (each for each in procedures if any(step.id == step_id for step in each.steps))
    return next((each.accession.issuer for each in its if each.accession is not None), "")


def _lookups(reference: StepReference) -> Iterator[tuple[str, str, str, str]]:
    """Arguments of `Unit.find_steps`, the most telling first."""
    study, sps_id = reference.study_instance_uid, reference.sps_id
    accession, procedure = reference.accession_number, reference.requested_procedure_id
    if study:
        if sps_id:
            yield study, sps_id, "", ""
        yield study, "", accession, procedure
        if sps_id and accession and procedure:
            yield "", sps_id, accession, procedure
        yield study, "", "", ""
    if accession and procedure:
        yield "", sps_id, accession, procedure
        yield "", "", accession, procedure


def patient_identifiers(attributes: Attributes, registry: Issuers) -> tuple[Identifier, ...]:
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
    if not said or patient is None or bears(patient, said[0]):
        return False
    known = _bearers(unit, said, default_issuer)
    if known:
        one_person = {patient.id, *(unit.linked_patients(patient.id) if patient.id is not None else ())}
        return not any(bearer.id in one_person for bearer in known)
    return not any(bears(patient, other) for other in said[1:])


def bears(patient: Patient, said: Identifier) -> bool:
    """Whether the patient is or was known by this identifier; a missing issuer is no difference."""
    return any(
        held.value == said.value and (held.issuer == said.issuer or not held.issuer or not said.issuer)
        for held in (*patient.identifiers, *patient.retired)
    )
