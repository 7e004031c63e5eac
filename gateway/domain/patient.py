"""Patients and visits as held, and as a feed speaks of them; merging is a matter of identifiers (HL7 v2 A40)."""

from dataclasses import dataclass, field

from gateway.domain.attributes import Attributes
from gateway.domain.identifiers import Identifier


@dataclass(frozen=True, slots=True)
class PatientInput:
    """What a feed said of a patient: identifiers (the primary one first) and patient-level attributes."""

    identifiers: tuple[Identifier, ...]
    attributes: Attributes = field(repr=False)


@dataclass(frozen=True, slots=True)
class VisitInput:
    """What a feed said of a visit; `number` is None where it gave none."""

    number: Identifier | None
    attributes: Attributes = field(repr=False)


@dataclass(frozen=True, slots=True)
class PatientUpdate:
    """A person is as follows (A01, A04, A08): insert or update, and note the visit."""

    patient: PatientInput
    visit: VisitInput | None = None


@dataclass(frozen=True, slots=True)
class PatientMerge:
    """One PID/MRG pair of an A40: `prior` identifiers now belong to `surviving`."""

    surviving: PatientInput
    prior: tuple[Identifier, ...]


@dataclass(frozen=True, slots=True)
class Patient:
    """A patient as held. `id` is the store's, None before the first save.

    `retired` are identifiers that merges brought: they still find this patient, and are said to nobody.
    """

    id: int | None
    identifiers: tuple[Identifier, ...]
    attributes: Attributes = field(repr=False)
    retired: tuple[Identifier, ...] = ()


@dataclass(frozen=True, slots=True)
class Visit:
    """A visit as held; the visit without a number is the patient's only unnumbered one."""

    id: int | None
    patient_id: int
    number: Identifier | None
    attributes: Attributes = field(repr=False)
