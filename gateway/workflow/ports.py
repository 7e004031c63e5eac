"""What the use cases need of their neighbours, each as small as the use case allows.

`Unit` is one transaction: everything a use case reads and writes is in it, and it is on disk before anyone is
answered positively (design rule 1). `Reader` never changes anything.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from gateway.domain.identifiers import Identifier
from gateway.domain.matching import Narrowing
from gateway.domain.order import Order, OrderResponse
from gateway.domain.patient import Patient, Visit
from gateway.domain.performed import PerformedStep
from gateway.domain.worklist import SPSStatus, WorklistItem


@dataclass(frozen=True, slots=True)
class MessageRecord:
    """A received message for the archive: input, outcome and answer (design section 2, rule 3).

    `disposition` is one of accepted, held, released, superseded, withdrawn, early, ignored, refused, unreadable, and
    for messages that we sent waiting, sent, parked. `keys` are what it can be searched by: (kind, value) with kind
    patient, placer, filler, accession, study, and `#order` and `#patient` with the store's number of what it changed.
    """

    received_at: datetime
    listener: str
    peer: str
    sender: str
    control_id: str
    message_type: str
    digest: bytes
    raw: bytes = field(repr=False)
    disposition: str = ""
    reasons: str = field(default="", repr=False)
    answer: bytes = field(default=b"", repr=False)
    mapping: str = ""
    keys: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    replay_of: int | None = None
    direction: str = "in"
    """`in`, or `out` for what we sent to a destination."""
    made_at: str = ""
    """When its sender made it (MSH-7), as the stamps of `domain.facts` say it; '' where it does not tell."""


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """An archived message with its number."""

    id: int
    record: MessageRecord


@dataclass(frozen=True, slots=True)
class MessageSearch:
    """What archived messages are looked up by: of a field that is given, the message must fit.

    `key` is a business key, whole, of any kind or of `kind`. `since` counts, `until` does not any more. `order` and
    `patient` are the store's numbers of what a message changed.
    """

    key: str = field(default="", repr=False)
    kind: str = ""
    control_id: str = ""
    listener: str = ""
    dispositions: frozenset[str] = frozenset()
    message_type: str = ""
    direction: str = ""
    since: datetime | None = None
    until: datetime | None = None
    order: int | None = None
    patient: int | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What applying the events of one input did. `orders` and `patients` are the store's numbers of what it touched.

    `created` are the placer and filler numbers of orders that were not held before: messages about them that came too
    early may act now.
    """

    notes: tuple[str, ...] = ()
    responses: tuple[OrderResponse, ...] = ()
    orders: tuple[int, ...] = ()
    patients: tuple[int, ...] = ()
    created: tuple[Identifier, ...] = ()


@dataclass(frozen=True, slots=True)
class QueryRecord:
    """A worklist query as it was asked and answered, kept so that an empty list can be explained.

    `negotiation` is the extended negotiation offered (PS3.4 K.5.1). `notes` say what was odd about the identifier
    and hold no values. `status` is the final DIMSE status.
    """

    at: datetime
    calling_ae_title: str
    called_ae_title: str
    remote_host: str
    transfer_syntax: str
    identifier: bytes = field(repr=False)
    status: int = 0
    matches: int = 0
    milliseconds: float = 0.0
    negotiation: bytes = b""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StoredQuery:
    """A kept query with its number."""

    id: int
    record: QueryRecord


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """What happened to a step: its status and start from `at` on, and why."""

    at: datetime
    status: SPSStatus
    start_local: str
    cause: str


class ItemKey(StrEnum):
    """What people look an item up by. An order number is the placer's or the filler's."""

    ACCESSION = "accession number"
    PATIENT = "patient ID"
    ORDER = "order number"
    STEP = "scheduled procedure step ID"


@dataclass(frozen=True, slots=True)
class StepRef:
    """A held step found for an MPPS: where it is, and whose it is."""

    step_id: int
    order_id: int
    patient_id: int
    study_instance_uid: str
    sps_id: str
    status: SPSStatus


class Reader(Protocol):
    """Reading for answers; a reader holds no transaction between calls."""

    left_out: Callable[[int, Exception], None]
    """Told the step and the reason of an item that cannot be read; whoever answers sets it."""

    def candidates(self, narrowing: Narrowing) -> Sequence[tuple[int, int]]:
        """(step id, revision) of every listed step that may match, by start; a superset of the truth."""

    def items(self, step_ids: Iterable[int]) -> Sequence[WorklistItem]:
        """Those steps as they are now, in the order asked; a step that went away meanwhile is left out."""


class Records(Reader, Protocol):
    """Reading for explanations: what is held, what came, and what was asked."""

    def items_by(self, key: ItemKey, value: str) -> Sequence[WorklistItem]:
        """The items of any status with this key, whoever issued it."""

    def step_history(self, step_id: int) -> Sequence[HistoryEntry]:
        """What happened to a step, first things first."""

    def list_messages(
        self, limit: int, listener: str = "", disposition: str = "", key: str = ""
    ) -> Sequence[StoredMessage]:
        """The newest messages of which every filter holds that is given; `key` is a business key, whole."""

    def troubled_messages(self, limit: int) -> Sequence[StoredMessage]:
        """The newest of the late messages that changed nothing: refused, unreadable, held or ignored."""

    def newest_messages(self) -> Sequence[StoredMessage]:
        """The newest message of each listener."""

    def queries(self, calling_ae_title: str = "", limit: int = 50) -> Sequence[StoredQuery]:
        """The newest kept queries, of one caller where it is named."""


class Unit(Protocol):
    """One transaction."""

    # the archive
    def earlier_messages(self, listener: str, sender: str, control_id: str) -> Sequence[StoredMessage]: ...
    def add_message(self, record: MessageRecord) -> int: ...
    def message(self, message_id: int) -> StoredMessage | None: ...
    def list_messages(
        self, limit: int, listener: str = "", disposition: str = "", key: str = ""
    ) -> Sequence[StoredMessage]:
        """The newest messages of which every filter holds that is given; `key` is a business key, whole."""

    def set_message_disposition(self, message_id: int, disposition: str, reasons: str) -> None: ...

    # patients
    def patients(self, identifiers: Sequence[Identifier]) -> Sequence[Patient]:
        """The distinct patients who bear any of these identifiers, merges followed to the survivor."""

    def patient(self, patient_id: int) -> Patient | None:
        """The patient with this id, merges followed to the survivor, with all identifiers borne now."""

    def save_patient(self, patient: Patient, at: datetime) -> int:
        """Insert or update (also its identifiers); every item that shows it gets a new revision."""

    def merge_patient(self, prior_id: int, surviving_id: int, at: datetime) -> None:
        """Orders, visits, performed steps and identifiers of the prior one now belong to the surviving one."""

    # visits
    def visit(self, patient_id: int, number: Identifier | None) -> Visit | None: ...
    def visit_by_id(self, visit_id: int) -> Visit | None: ...
    def save_visit(self, visit: Visit, at: datetime) -> int: ...

    # orders
    def orders(self, placer: Identifier | None, filler: Identifier | None) -> Sequence[Order]:
        """The distinct orders that bear the placer or the filler number."""

    def order_of_study(self, study_instance_uid: str) -> Order | None: ...
    def orders_by_accession(self, accession: Identifier) -> Sequence[Order]: ...
    def order(self, order_id: int) -> Order | None: ...
    def save_order(self, order: Order, cause: str, at: datetime) -> Order:
        """Insert or update with procedures and steps, status history by `cause`; returns it with its ids."""

    # queries
    def add_queries(self, records: Sequence[QueryRecord], per_device_max: int) -> None:
        """Keep these; of each calling AE title only the newest `per_device_max` stay."""

    # performed steps
    def performed_step(self, sop_instance_uid: str) -> PerformedStep | None: ...
    def save_performed_step(self, performed: PerformedStep, at: datetime) -> None: ...
    def performed_steps_of(self, step_id: int) -> Sequence[PerformedStep]:
        """Every performed step linked to this scheduled one."""

    def unlinked_performed_steps(
        self, study_instance_uids: Iterable[str], accession_numbers: Iterable[str]
    ) -> Sequence[PerformedStep]:
        """Performed steps that wait for an order (`PerformedStep.waits`) and name one of these non-empty values.

        Names: in an item of their Scheduled Step Attributes Sequence (`domain.performed.references`). Oldest first.
        """

    def find_steps(
        self, study_instance_uid: str, sps_id: str, accession: str, requested_procedure_id: str
    ) -> Sequence[StepRef]:
        """Held steps that carry all of the non-empty arguments; none where all are empty."""

    def steps(self, step_ids: Sequence[int]) -> Sequence[StepRef]:
        """Those scheduled steps as they are now, in the order asked; one that went away is left out."""

    def status_before_performance(self, step_id: int) -> SPSStatus:
        """What the step was before modalities began to report on it: SCHEDULED if nothing else is known."""

    def set_step_status(self, step_id: int, status: SPSStatus, cause: str, at: datetime) -> None:
        """Change a step's status, with a line of history and a new revision."""

    def archive_performed(
        self, sop_instance_uid: str, operation: str, calling_ae_title: str, raw: bytes, status: int, comment: str,
        at: datetime,
    ) -> None:  # fmt: skip
        """Keep the raw N-CREATE or N-SET dataset with its outcome, also when refused."""
