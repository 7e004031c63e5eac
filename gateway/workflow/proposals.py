"""Which scheduled steps a performed one may belong to, ranked, each with the reasons. Nothing is ever applied here.

What says most counts most; every further reason counts on top of it, so a step that fits by several is ahead of one
that fits by the first of them alone.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from gateway.domain.attributes import TAG, text, values
from gateway.domain.identifiers import Identifier, Issuers
from gateway.domain.order import Order, Step
from gateway.domain.patient import Belongings, Patient
from gateway.domain.performed import PerformedStep, references, text_of
from gateway.domain.worklist import SPSStatus, start_of
from gateway.workflow.linking import bears, patient_identifiers
from gateway.workflow.perform import PerformedLookup
from gateway.workflow.ports import StepRef
from gateway.workflow.reconcile import held_step

NEAR = timedelta(days=1)
"""Between the planned start and the performed one: what was done for an order is done within a day of its date."""

NOBODY_KNOWN = Issuers()

PROPOSALS_MAX = 20
ORDERS_MAX = 500
"""Orders of one patient that are looked at, the newest: far above what anyone has open."""

_WEIGHTS = {
    "the accession number is the same": 16,
    "the Study Instance UID is the same": 16,
    "the patient is the same": 4,
    "the station is the same": 2,
    "the modality is the same": 1,
}
ACCESSION, STUDY, PATIENT, STATION, MODALITY = _WEIGHTS

_STATION, _BEGAN = "00400241", ("00400244", "00400245")

_OPEN = frozenset({SPSStatus.SCHEDULED, SPSStatus.ARRIVED, SPSStatus.READY, SPSStatus.STARTED, SPSStatus.EXPIRED})


@dataclass(frozen=True, slots=True)
class Proposal:
    """A scheduled step that it may be, why, and how far its planned start is from the performed one, if both say it."""

    step: StepRef
    reasons: tuple[str, ...]
    apart: timedelta | None

    @property
    def weight(self) -> int:
        """By how much it fits."""
        return sum(_WEIGHTS[reason] for reason in self.reasons)


class Holdings(PerformedLookup, Protocol):
    """What is held: a store's reader, or a transaction."""

    def find_steps(
        self, study_instance_uid: str, sps_id: str, accession: str, requested_procedure_id: str
    ) -> Sequence[StepRef]: ...
    def belongings(self, patient_id: int) -> Belongings: ...
    def order(self, order_id: int) -> Order | None: ...
    def patient(self, patient_id: int) -> Patient | None: ...
    def patients_of_value(self, value: str) -> Sequence[Patient]: ...


def proposals(unit: Holdings, uid: str, registry: Issuers = NOBODY_KNOWN) -> tuple[Proposal, ...]:
    """What a person may want to link it to, the most likely first. Raises Refused where there is no such one.

    A step that it is linked to already is none, nor is one that was never done and is not to be done any more. The
    `registry` tells which issuers of accession numbers are one.
    """
    performed = held_step(unit, uid)
    linked = () if performed.quarantined else performed.steps
    patients = patients_meant(unit, performed)
    found = {}
    for order in _orders(unit, performed, patients):
        for step, proposal in _of_order(unit, performed, order, patients, registry):
            if proposal.step.step_id not in linked and _fits(proposal, step):
                found[proposal.step.step_id] = proposal
    far = timedelta.max
    ranked = sorted(
        found.values(), key=lambda each: (-each.weight, far if each.apart is None else each.apart, each.step.step_id)
    )
    return tuple(ranked[:PROPOSALS_MAX])


def patients_meant(unit: Holdings, performed: PerformedStep) -> Sequence[int]:
    """Whose it is; of one that came before its patient was known, whoever bears its patient ID by now."""
    if performed.patient_id is not None:
        return (performed.patient_id,)
    said = patient_identifiers(performed.attributes, Issuers())
    bearers = unit.patients_of_value(said[0].value) if said else ()
    return [each.id for each in bearers if each.id is not None and bears(each, said[0])]


def _orders(unit: Holdings, performed: PerformedStep, patients: Sequence[int]) -> Iterator[Order]:
    """The orders that one of its keys or its patient leads to, each once."""
    numbers: dict[int, None] = {}
    for reference in references(performed.attributes):
        keys = ((reference.study_instance_uid, ""), ("", reference.accession_number))
        for study, accession in keys:
            numbers |= dict.fromkeys(step.order_id for step in unit.find_steps(study, "", accession, ""))
    for patient_id in patients:
        numbers |= dict.fromkeys(sorted(unit.belongings(patient_id).orders, reverse=True)[:ORDERS_MAX])
    for number in numbers:
        order = unit.order(number)
        if order is not None:
            yield order


def _of_order(
    unit: Holdings, performed: PerformedStep, order: Order, patients: Sequence[int], registry: Issuers
) -> Iterator[tuple[Step, Proposal]]:
    said = references(performed.attributes)
    stations = {text_of(performed.attributes, _STATION), performed.calling_ae_title} - {""}
    modality = text_of(performed.attributes, TAG["Modality"])
    patient = unit.patient(order.patient_id)
    began = _moment("".join(text_of(performed.attributes, tag) for tag in _BEGAN))
    for procedure in order.procedures:
        accession = procedure.accession or Identifier("", "")
        for step in procedure.steps:
            if step.id is None:
                continue
            planned = _moment(start_of(step.attributes))
            fits = {
                ACCESSION: any(
                    accession.value
                    and each.accession_number == accession.value
                    and len({accession.issuer, registry.resolve(*each.accession_issuer)} - {""}) < 2
                    for each in said
                ),
                STUDY: any(
                    procedure.study_instance_uid and each.study_instance_uid == procedure.study_instance_uid
                    for each in said
                ),
                PATIENT: patient is not None and patient.id in patients,
                STATION: bool(stations.intersection(map(str, values(step.attributes, "ScheduledStationAETitle")))),
                MODALITY: text(step.attributes, "Modality") == modality != "",
            }
            ref = StepRef(step.id, order.id or 0, order.patient_id, procedure.study_instance_uid, step.sps_id,
                          step.status)  # fmt: skip
            apart = abs(planned - began) if planned and began else None
            yield step, Proposal(ref, tuple(reason for reason, fit in fits.items() if fit), apart)


def _fits(proposal: Proposal, step: Step) -> bool:
    """By a key, whatever became of the step since; by patient and circumstances where it is still to be done."""
    reasons = set(proposal.reasons)
    if reasons & {ACCESSION, STUDY}:
        return True
    near = proposal.apart is not None and proposal.apart <= NEAR
    return near and step.status in _OPEN and PATIENT in reasons and bool(reasons & {STATION, MODALITY})


def _moment(digits: str) -> datetime | None:
    """A wall clock time of DICOM date and time."""
    try:
        return datetime.strptime(digits.partition(".")[0].ljust(14, "0")[:14], "%Y%m%d%H%M%S")
    except ValueError:
        return None
