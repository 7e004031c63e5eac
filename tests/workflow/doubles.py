"""The part of `Unit` that MPPS needs, over dictionaries: no store, so that a use case is judged on its own."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from gateway.domain.attributes import SPS_SEQUENCE, Attributes
from gateway.domain.identifiers import Identifier
from gateway.domain.patient import Patient
from gateway.domain.performed import PerformedStep, references
from gateway.domain.worklist import SPSStatus, WorklistItem
from gateway.workflow.ports import NewDelivery, StepRef


@dataclass
class ScheduledStep:
    """A scheduled step with the keys it is found by."""

    step_id: int
    patient_id: int
    study_instance_uid: str
    sps_id: str
    accession: str = ""
    requested_procedure_id: str = ""
    status: SPSStatus = SPSStatus.SCHEDULED
    shown: Attributes = field(default_factory=dict)
    shown_step: Attributes = field(default_factory=dict)

    def item(self) -> WorklistItem:
        keys = {
            "0020000D": ("UI", self.study_instance_uid), "00080050": ("SH", self.accession),
            "00401001": ("SH", self.requested_procedure_id),
        }  # fmt: skip
        held = {tag: {"vr": vr, "Value": [value]} for tag, (vr, value) in keys.items() if value}
        step = {"00400009": {"vr": "SH", "Value": [self.sps_id]}, **self.shown_step}
        return WorklistItem(
            self.step_id, 1, self.status, {**held, **self.shown, SPS_SEQUENCE: {"vr": "SQ", "Value": [step]}}
        )

    def ref(self) -> StepRef:
        return StepRef(self.step_id, self.step_id, self.patient_id, self.study_instance_uid, self.sps_id, self.status)


@dataclass
class MPPSUnit:
    scheduled: dict[int, ScheduledStep] = field(default_factory=dict)
    people: dict[int, Patient] = field(default_factory=dict)
    merged: dict[int, int] = field(default_factory=dict)
    linked: dict[int, set[int]] = field(default_factory=dict)
    performed: dict[str, PerformedStep] = field(default_factory=dict)
    history: list[tuple[int, SPSStatus, str]] = field(default_factory=list)
    archive: list[tuple[str, str, str, bytes, int, str]] = field(default_factory=list)
    outbox: list[NewDelivery] = field(default_factory=list)
    before_performance: dict[int, SPSStatus] = field(default_factory=dict)

    def add_patient(self, patient_id: int, *identifiers: Identifier) -> None:
        self.people[patient_id] = Patient(patient_id, identifiers, {})

    def add_step(self, step: ScheduledStep) -> None:
        self.scheduled[step.step_id] = step

    def patient(self, patient_id: int) -> Patient | None:
        return self.people.get(self.merged.get(patient_id, patient_id))

    def patients(self, identifiers: Sequence[Identifier]) -> Sequence[Patient]:
        return [person for person in self.people.values() if set(identifiers) & set(person.identifiers)]

    def linked_patients(self, patient_id: int) -> frozenset[int]:
        return frozenset(self.linked.get(patient_id, ()))

    def performed_step(self, sop_instance_uid: str) -> PerformedStep | None:
        return self.performed.get(sop_instance_uid)

    def add_performed_step(self, performed: PerformedStep, at: datetime) -> None:
        assert performed.sop_instance_uid not in self.performed
        self.performed[performed.sop_instance_uid] = performed

    def save_performed_step(self, performed: PerformedStep, at: datetime, held: PerformedStep | None = None) -> None:
        assert held is None or held == self.performed[performed.sop_instance_uid]
        self.performed[performed.sop_instance_uid] = performed

    def performed_steps_of(self, step_id: int, but: str = "") -> Sequence[PerformedStep]:
        return [
            performed
            for performed in self.performed.values()
            if step_id in performed.steps and performed.sop_instance_uid != but
        ]

    def unlinked_performed_steps(
        self, study_instance_uids: Iterable[str], accession_numbers: Iterable[str]
    ) -> Sequence[PerformedStep]:
        studies, accessions = set(study_instance_uids) - {""}, set(accession_numbers) - {""}
        return [
            performed
            for performed in list(self.performed.values())
            if performed.waits
            and any(
                reference.study_instance_uid in studies or reference.accession_number in accessions
                for reference in references(performed.attributes)
            )
        ]

    def find_steps(
        self, study_instance_uid: str, sps_id: str, accession: str, requested_procedure_id: str
    ) -> Sequence[StepRef]:
        wanted = (study_instance_uid, sps_id, accession, requested_procedure_id)
        return [
            step.ref()
            for step in self.scheduled.values()
            if any(wanted)
            and all(
                not want or want == held
                for want, held in zip(
                    wanted,
                    (step.study_instance_uid, step.sps_id, step.accession, step.requested_procedure_id),
                    strict=True,
                )
            )
        ]

    def steps(self, step_ids: Sequence[int]) -> Sequence[StepRef]:
        return [self.scheduled[step_id].ref() for step_id in step_ids if step_id in self.scheduled]

    def set_step_status(self, step_id: int, status: SPSStatus, cause: str, at: datetime) -> None:
        before = self.scheduled[step_id].status
        if before is not SPSStatus.STARTED and cause.startswith("MPPS ") and status is SPSStatus.STARTED:
            self.before_performance.setdefault(step_id, before)
        self.scheduled[step_id].status = status
        self.history.append((step_id, status, cause))

    def status_before_performance(self, step_id: int) -> SPSStatus:
        return self.before_performance.get(step_id, SPSStatus.SCHEDULED)

    def status_without_performance(self, step_id: int, sop_instance_uid: str) -> SPSStatus | None:
        causes = [cause for changed, _, cause in self.history if changed == step_id]
        return self.status_before_performance(step_id) if causes and causes[-1].startswith("MPPS ") else None

    def archive_performed(
        self, sop_instance_uid: str, operation: str, calling_ae_title: str, raw: bytes, status: int, comment: str,
        at: datetime, transfer_syntax: str = "",
    ) -> int:  # fmt: skip
        self.archive.append((sop_instance_uid, operation, calling_ae_title, raw, status, comment))
        return len(self.archive)

    def items(self, step_ids: Iterable[int]) -> Sequence[WorklistItem]:
        return [self.scheduled[step_id].item() for step_id in step_ids if step_id in self.scheduled]

    def add_delivery(self, delivery: NewDelivery, at: datetime) -> int:
        self.outbox.append(delivery)
        return len(self.outbox)
