"""Patients and visits as held, and as a feed speaks of them; merging is a matter of identifiers (HL7 v2 A40)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from gateway.domain.attributes import Attributes
from gateway.domain.facts import NO_STAMPS, Stamps
from gateway.domain.identifiers import Identifier


@dataclass(frozen=True, slots=True)
class PatientInput:
    """What a feed said of a patient: identifiers (the primary one first) and patient-level attributes.

    `formerly`: what it said of this patient before, and says no more (`facts.as_news`); so of visits and orders.
    """

    identifiers: tuple[Identifier, ...]
    attributes: Attributes = field(repr=False)
    formerly: "PatientInput | None" = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class VisitInput:
    """What a feed said of a visit; `number` is None where it gave none."""

    number: Identifier | None
    attributes: Attributes = field(repr=False)
    formerly: "VisitInput | None" = field(default=None, repr=False)


class VisitChange(StrEnum):
    """What an ADT event does to the visit it names, beside saying how it is."""

    UPDATE = "update"
    PLAN = "plan"
    OPEN = "open"
    ARRIVE = "arrive"
    """The patient is here (A10): waiting steps become ARRIVED."""
    CLOSE = "close"
    REOPEN = "reopen"
    CANCEL = "cancel"
    """The visit never was (A11, A38); the patient and the orders stay."""


@dataclass(frozen=True, slots=True)
class PatientUpdate:
    """A person is as follows (A01, A04, A08, A28, A31 ...): insert or update, and note the visit.

    `visit_alone`: who arrives, arrives for the orders of this visit, not for all.
    """

    patient: PatientInput
    visit: VisitInput | None = None
    change: VisitChange = VisitChange.UPDATE
    visit_alone: bool = False


@dataclass(frozen=True, slots=True)
class PatientMerge:
    """One PID/MRG pair of an A40: `prior` identifiers now belong to `surviving`."""

    surviving: PatientInput
    prior: tuple[Identifier, ...]


@dataclass(frozen=True, slots=True)
class IdentifierChange:
    """One PID/MRG pair of an A47: the person who bore `prior` now bears the identifiers of `patient` instead."""

    patient: PatientInput
    prior: tuple[Identifier, ...]


@dataclass(frozen=True, slots=True)
class VisitMove:
    """An A45: visits that were entered for the `prior` person belong to `patient`, with their orders.

    `visits` are the visit numbers (MRG-5, else PV1-19), with what the message says of the visit.
    """

    patient: PatientInput
    prior: tuple[Identifier, ...]
    visits: tuple[Identifier, ...]
    visit: VisitInput | None = None


@dataclass(frozen=True, slots=True)
class PatientLink:
    """An A24 (`linked`) or A37: two records are, or are not after all, of one person; both identifiers stay in use."""

    one: PatientInput
    other: PatientInput
    linked: bool


PatientEvent = PatientUpdate | PatientMerge | IdentifierChange | VisitMove | PatientLink


@dataclass(frozen=True, slots=True)
class Patient:
    """A patient as held. `id` is the store's, None before the first save.

    `retired` are identifiers that merges brought or that were changed: they still find this patient, and are said to
    nobody. Weak `stamps` mark what a merged record lent.
    """

    id: int | None
    identifiers: tuple[Identifier, ...]
    attributes: Attributes = field(repr=False)
    retired: tuple[Identifier, ...] = ()
    stamps: Stamps = field(default=NO_STAMPS, repr=False)


@dataclass(frozen=True, slots=True)
class Visit:
    """A visit as held; the visit without a number is the patient's only unnumbered one."""

    id: int | None
    patient_id: int
    number: Identifier | None
    attributes: Attributes = field(repr=False)
    stamps: Stamps = field(default=NO_STAMPS, repr=False)


class IdentityKind(StrEnum):
    """What can happen to identities."""

    MERGE = "merge"
    LINK = "link"
    UNLINK = "unlink"
    CHANGE = "change"
    """An identifier took the place of another."""
    MOVE = "move"
    """Visits went to another patient."""
    UNDO = "undo"
    """A line of the log was taken back."""


@dataclass(frozen=True, slots=True)
class Belongings:
    """What belongs to a patient, by the store's numbers, performed steps by SOP Instance UID."""

    orders: tuple[int, ...] = ()
    visits: tuple[int, ...] = ()
    performed_steps: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class IdentityChange:
    """A line of the log of identities. `patient_id` is who has the effect, `other_id` whom it was taken from.

    Both are numbers of records, which a merge does not change. `details` say what moved, for `workflow.identities`.
    """

    id: int | None
    at: datetime
    kind: IdentityKind
    cause: str
    patient_id: int
    other_id: int | None
    details: Mapping[str, Any] = field(default_factory=dict, repr=False)
    undone: datetime | None = None
