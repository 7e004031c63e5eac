"""What the use cases need of their neighbours, each as small as the use case allows.

`Unit` is one transaction: everything a use case reads and writes is in it, and it is on disk before anyone is
answered positively (design rule 1). `Reader` never changes anything.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple, Protocol, TypeVar

from gateway.domain.identifiers import Identifier
from gateway.domain.matching import Narrowing
from gateway.domain.order import Order, OrderResponse
from gateway.domain.patient import Belongings, IdentityChange, Patient, Visit
from gateway.domain.performed import Attention, MPPSState, PerformedStep
from gateway.domain.resource_search import OLDEST_FIRST, Criterion, Position, Sorting
from gateway.domain.resources import HeldResource, Indexed, OrderPart, Resource, ResourceKey
from gateway.domain.worklist import SPSStatus, WorklistItem

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class MessageRecord:
    """A received message for the archive: input, outcome and answer (design section 2, rule 3).

    `disposition` is one of accepted, held, released, superseded, withdrawn, early, ignored, refused, unreadable, and
    for messages that we sent waiting, sent, parked, dropped. `keys` are what it can be searched by: (kind, value) with
    kind patient, placer, filler, accession, study, and `#order` and `#patient` with the store's number of what it
    changed; for messages of ours also performed (a SOP Instance UID) and what `workflow.telling` keeps to write them.
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


class KeyTaken(Exception):  # noqa: N818  (reads as what happened)
    """A key that only one may have would be there twice."""

    @property
    def key(self) -> str:
        """Its table and column, as table.column; '' where that is not known. Never a value."""
        return ""


ORDER_LINK, PATIENT_LINK = "#order", "#patient"
"""Kinds of keys that hold the store's numbers: people search by them only as what they are."""


@dataclass(frozen=True, slots=True)
class MessageSummary:
    """An archived message without its bytes and its answer, as lists show it."""

    id: int
    received_at: datetime
    listener: str
    peer: str
    sender: str
    control_id: str
    message_type: str
    disposition: str
    reasons: str = field(repr=False)
    mapping: str
    keys: tuple[tuple[str, str], ...] = field(repr=False)
    replay_of: int | None
    direction: str
    made_at: str


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

    `created` are the placer and filler numbers of orders that were not held before, or not as this patient's: messages
    about them that came too early may act now.
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


class Namesake(NamedTuple):
    """An order with the same number as another one, but of another issuer. `kind` is `placer` or `filler`."""

    kind: str
    issuer: str
    patient_id: int


@dataclass(frozen=True, slots=True)
class StepRef:
    """A held step found for an MPPS: where it is, and whose it is."""

    step_id: int
    order_id: int
    patient_id: int
    study_instance_uid: str
    sps_id: str
    status: SPSStatus


class DeliveryKind(StrEnum):
    """What is sent, and by which protocol."""

    HL7 = "hl7"
    PERFORMED = "mpps"
    """An N-CREATE or N-SET passed on (RAD-6, RAD-7)."""
    NOTIFICATION = "notification"
    """An N-EVENT-REPORT of MPPS Notification (PS3.4 F.9)."""
    FHIR = "fhir"
    """A transaction or a notification of FHIR, as JSON."""


MESSAGES = frozenset({DeliveryKind.HL7, DeliveryKind.FHIR})
"""Kinds of which what is sent is archived among the messages, in the lane of a patient."""


def message_kind(raw: bytes) -> DeliveryKind:
    """By which protocol an archived message of ours goes: HL7 v2 begins with MSH, FHIR is a JSON object."""
    return DeliveryKind.FHIR if raw.startswith(b"{") else DeliveryKind.HL7


@dataclass(frozen=True, slots=True)
class NewDelivery:
    """Something for the outbox. Of one destination and lane everything leaves in the order in which it came.

    `lane` is the patient's number for messages ('' for those about nobody), the SOP Instance UID for performed
    steps. `archive_id` is its number among the messages or the performed requests. `control_id` is MSH-10 or the SOP
    Instance UID, by which receivers know a repeat. `operation` is that of DIMSE, for notifications with the event type
    as in `N-EVENT-REPORT 2`. With a `reason` it is parked from the beginning: it could not be written, and has no
    payload. `attempts` is how often it was sent before: a receiver may know it.
    """

    destination: str
    lane: str
    control_id: str
    payload: bytes = field(repr=False)
    archive_id: int = 0
    kind: DeliveryKind = DeliveryKind.HL7
    operation: str = ""
    transfer_syntax: str = ""
    reason: str = field(default="", repr=False)
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class PerformedSearch:
    """What performed steps are looked up by: of a field that is given, the performed step must fit.

    `attentions` are reasons to look at it (NONE is no reason), `caller` is the calling AE title, `patient` the store's
    number, `uid` the beginning of a SOP Instance UID; it came at `since` or later, and before `until`.
    """

    attentions: frozenset[Attention] = frozenset()
    state: MPPSState | None = None
    caller: str = ""
    patient: int | None = None
    uid: str = ""
    since: datetime | None = None
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class StoredPerformed:
    """A performed step, when it came and when it was last changed."""

    performed: PerformedStep
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class ArchivedPerformed:
    """An N-CREATE or N-SET as it came, with its number and the status it was answered with."""

    id: int
    sop_instance_uid: str
    operation: str
    raw: bytes = field(repr=False)
    status: int
    transfer_syntax: str


@dataclass(frozen=True, slots=True)
class OverdueStep:
    """A scheduled step that should have begun and that nobody performs. `start_local` has 14 digits."""

    step: StepRef
    start_local: str
    modality: str
    stations: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PerformanceReports:
    """What a station had to do in a period, and what it told of it.

    `scheduled` are steps that were planned there, `performed` those of them that a performed step is linked to, from
    whatever AE title; `received` are performed steps that this AE title sent, and `last_at` is when the last one came.
    """

    ae_title: str
    scheduled: int
    performed: int
    received: int
    last_at: datetime | None


@dataclass(frozen=True, slots=True)
class PerformedDecision:
    """A line of the log of performed steps: what a person or a rule (`actor`) decided. `details` are JSON."""

    at: datetime
    sop_instance_uid: str
    action: str
    actor: str
    details: Mapping[str, Any] = field(default_factory=dict, repr=False)


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

    def find_messages(self, search: MessageSearch, limit: int, before: int = 0) -> Sequence[StoredMessage]:
        """The newest messages that fit, newest first; of those before number `before`, where it is given."""

    def messages_in_order(self, search: MessageSearch, limit: int, after: int = 0) -> Sequence[StoredMessage]:
        """The oldest messages that fit, oldest first; of those after number `after`."""

    def count_messages(self, search: MessageSearch) -> int:
        """How many messages fit."""

    def mapping_version(self, version: str) -> str | None:
        """The mapping as it was when it had this version, as JSON text of `gateway.mapping_files`."""

    def troubled_messages(self, limit: int) -> Sequence[StoredMessage]:
        """The newest messages that changed nothing so far: refused, unreadable, held, early or ignored."""

    def newest_messages(self) -> Sequence[StoredMessage]:
        """The newest message of each listener."""

    def queries(self, calling_ae_title: str = "", limit: int = 50) -> Sequence[StoredQuery]:
        """The newest kept queries, of one caller where it is named."""


class Identities(Protocol):
    """Reading who is who, for rules that need it before they change anything."""

    def patient(self, patient_id: int) -> Patient | None:
        """The patient with this id, merges followed to the survivor, with all identifiers borne now."""

    def merged_into(self, patient_id: int) -> Sequence[Patient]:
        """The records that were merged into this patient, by whatever way, with what was said of each itself."""

    def retired_from(self, identifier: Identifier) -> Patient | None:
        """The record that bore this retired identifier, as it is itself; None where nobody knows.

        It is the patient's own record where the patient got another identifier instead.
        """

    def belongings(self, patient_id: int) -> Belongings:
        """The orders, visits and performed steps of this patient."""

    def belongings_of_visit(self, visit_id: int) -> Belongings:
        """A visit with its orders, and what was performed of their steps."""

    def performed_of_order(self, order_id: int) -> Sequence[str]:
        """What was performed of an order's steps, by SOP Instance UID."""

    def linked_patients(self, patient_id: int) -> frozenset[int]:
        """The patients whose records are said to be of the same person (A24) and were not merged."""

    def identity_change(self, log_id: int) -> IdentityChange | None: ...
    def identity_changes(
        self, patient_id: int | None = None, since: datetime | None = None, limit: int = 1000
    ) -> Sequence[IdentityChange]:
        """Lines of the log, newest first: of this record, as survivor or as prior, or of everybody."""


REFERRING_MAX = 1000
"""Resources that refer to one, as far as they are looked at; a patient of many years may have more."""


class ResourceReader(Protocol):
    """Reading FHIR resources as they are held."""

    def resource(self, key: ResourceKey) -> HeldResource | None:
        """The current version, also of a deleted one (with no content); None of one that never was."""

    def find_resources(
        self, source: str, type: str, criteria: Sequence[Criterion] = (), limit: int = 100,
        sorting: Sorting = OLDEST_FIRST,
    ) -> Sequence[HeldResource]:  # fmt: skip
        """Those of this type that meet all criteria, at most `limit`."""

    def page_of_resources(
        self, source: str, type: str, criteria: Sequence[Criterion], count: int, sorting: Sorting,
        after: Position | None = None,
    ) -> tuple[Sequence[HeldResource], Position | None]:  # fmt: skip
        """As many of them behind `after`, and where these end; None where nothing comes behind them."""

    def count_resources(self, source: str, type: str, criteria: Sequence[Criterion] = ()) -> int:
        """How many meet all criteria."""

    def referring(
        self, key: ResourceKey, types: Collection[str] = (), limit: int = REFERRING_MAX
    ) -> Sequence[HeldResource]:
        """Those of the same source that refer to this one by its address, whether it is held or not, newest first.

        Of these types only, where some are named.
        """

    def referring_by_identifier(
        self, source: str, system: str, value: str, limit: int = REFERRING_MAX
    ) -> Sequence[HeldResource]:
        """Those that refer by this identifier to whoever has it; newest first."""

    def order_parts(self, order_id: int) -> Sequence[OrderPart]:
        """The resources that speak of an order."""

    def parts_of(self, key: ResourceKey) -> Sequence[OrderPart]:
        """The orders that a resource speaks of."""

    def feed_mark(self, name: str) -> str:
        """How far a feed has read, as it said itself; '' where it never did."""


class ResourceUnit(ResourceReader, Protocol):
    """Changing FHIR resources. `workflow.fhir_server` knows what a change takes; others go through it."""

    def attempt(self, use_case: Callable[[], T]) -> T:
        """Run a part that may fail: then what it did is undone, and what it raised goes on to the caller."""

    def save_resource(
        self, key: ResourceKey, content: Resource, at: datetime, indexed: Iterable[Indexed], deleted: bool = False,
        release: str = "", overruled: Mapping[str, Any] | None = None,
    ) -> HeldResource:  # fmt: skip
        """Hold this as the next version, found by `indexed` and by nothing else; of a deleted one nothing is kept."""

    def set_order_parts(self, order_id: int, parts: Iterable[OrderPart]) -> None:
        """These resources, and no others, speak of the order."""

    def set_feed_mark(self, name: str, text: str) -> None:
        """How far this feed has read now."""


class Unit(Identities, ResourceUnit, Protocol):
    """One transaction."""

    def attempt(self, use_case: Callable[[], T]) -> T:
        """Run a part that may fail: then what it did is undone, and what it raised goes on to the caller."""

    @property
    def changes(self) -> int:
        """Rises with whatever is changed; what was said before and is said again changes nothing."""

    # the archive
    def earlier_messages(self, listener: str, sender: str, control_id: str) -> Sequence[StoredMessage]: ...
    def early_messages(self, number: str, limit: int) -> Sequence[StoredMessage]:
        """The newest messages that came before an order of this number, newest first."""

    def add_message(self, record: MessageRecord) -> int: ...
    def keep_report(self, message_id: int, report: bytes) -> None:
        """Keep what a message of ours was written from (`workflow.kept_reports`), or a FHIR request was
        (`workflow.fhir_kept`)."""

    def kept_report(self, message_id: int) -> bytes | None:
        """What was kept so of a message."""

    def message(self, message_id: int) -> StoredMessage | None: ...
    def find_messages(self, search: MessageSearch, limit: int, before: int = 0) -> Sequence[StoredMessage]:
        """The newest messages that fit, newest first; of those before number `before`, where it is given."""

    def set_message_disposition(self, message_id: int, disposition: str, reasons: str) -> None: ...

    # patients
    def patients(self, identifiers: Sequence[Identifier]) -> Sequence[Patient]:
        """The distinct patients who bear any of these identifiers, merges followed to the survivor."""

    def save_patient(self, patient: Patient, at: datetime) -> int:
        """Insert or update (also its identifiers); every item that shows it gets a new revision."""

    def set_patient_stamps(self, patient: Patient) -> None:
        """What is held was said again: only its stamps are saved, and nobody sees a difference."""

    # merged records: their rows stay, with what is said of them under identifiers that are retired now
    def merge_patient(self, prior_id: int, surviving_id: int, at: datetime) -> Belongings:
        """Orders, visits, performed steps and identifiers of the prior one now belong to the surviving one.

        What moved. Identifiers that the prior one bears now are retired.
        """

    def part_patient(
        self, prior_id: int, surviving_id: int, retired: Sequence[Identifier], members: Iterable[int], at: datetime
    ) -> None:
        """The reverse, without what belongs to it: `retired` and `members` are what it had before the merge."""

    def hand_over(self, what: Belongings, from_id: int, to_id: int) -> Belongings:
        """These now belong to another patient, as far as they are the first one's; what did."""

    def save_merged(self, patient: Patient, at: datetime) -> None:
        """What is now known of a merged record; nobody sees it but through the survivor."""

    def retire(self, identifiers: Iterable[Identifier], merged_id: int, surviving_id: int) -> None:
        """More identifiers of a merged record: they find the survivor."""

    # the log of identities
    def log_identity(self, change: IdentityChange) -> int: ...
    def set_identity_change_undone(self, log_id: int, at: datetime) -> None: ...

    # visits
    def visit(self, patient_id: int, number: Identifier | None) -> Visit | None: ...
    def visit_by_id(self, visit_id: int) -> Visit | None: ...
    def save_visit(self, visit: Visit, at: datetime) -> int: ...
    # orders
    def orders(self, placer: Identifier | None, filler: Identifier | None) -> Sequence[Order]:
        """The distinct orders that bear the placer or the filler number."""

    def namesakes(self, placer: Identifier | None, filler: Identifier | None) -> Sequence[Namesake]:
        """The orders that have one of these values as number of the same kind, of another issuer."""

    def order_of_study(self, study_instance_uid: str) -> Order | None: ...
    def orders_by_accession(self, accession: Identifier, any_issuer: bool = False) -> Sequence[Order]:
        """The distinct orders with a procedure of this accession number, of this issuer or of any."""

    def held_keys(self, keys: Iterable[tuple[str, str]]) -> frozenset[str]:
        """Those of these keys of procedures and steps, (keyword, value), that an order has."""

    def provisional_orders(self, patient_id: int) -> Sequence[Order]:
        """The patient's orders that a person typed and that no RIS took over yet."""

    def orders_of_patient(self, patient_id: int, status: SPSStatus) -> Sequence[Order]:
        """The patient's orders that have a step of this status."""

    def order(self, order_id: int) -> Order | None: ...
    def save_order(self, order: Order, cause: str, at: datetime) -> Order:
        """Insert or update with procedures and steps, status history by `cause`; returns it with its ids."""

    # the outbox
    def add_delivery(self, delivery: "NewDelivery", at: datetime) -> int:
        """Put what is archived behind what waits for its destination; its number in the outbox."""

    def drop_deliveries(self, destination: str, reason: str) -> int:
        """Take all that is in the outbox for a destination out unsent, which the archive says; how many."""

    # queries
    def add_queries(self, records: Sequence[QueryRecord], per_device_max: int) -> None:
        """Keep these; of each calling AE title only the newest `per_device_max` stay."""

    def items(self, step_ids: Iterable[int]) -> Sequence[WorklistItem]:
        """Those steps as modalities may see them now, in the order asked; one that went away is left out."""

    # performed steps
    def performed_step(self, sop_instance_uid: str) -> PerformedStep | None: ...
    def add_performed_step(self, performed: PerformedStep, at: datetime) -> None:
        """Insert one that is not held yet."""

    def save_performed_step(self, performed: PerformedStep, at: datetime, held: PerformedStep | None = None) -> None:
        """Insert or update; `held` is it as it is held, where the caller has read that in this transaction."""

    def performed_steps_of(self, step_id: int, but: str = "") -> Sequence[PerformedStep]:
        """Every performed step linked to this scheduled one but that of SOP Instance UID `but`."""

    def stored_performed(self, sop_instance_uid: str) -> StoredPerformed | None: ...
    def log_performed(self, decision: PerformedDecision) -> int:
        """Note what was decided; the number of its line."""

    def performed_decisions(self, sop_instance_uid: str = "", limit: int = 1000) -> Sequence[PerformedDecision]:
        """What was decided of this performed step, or of all of them, newest first."""

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

    def step_history(self, step_id: int) -> Sequence[HistoryEntry]:
        """What happened to a step, first things first."""

    def status_before_performance(self, step_id: int) -> SPSStatus:
        """What the step was before modalities began to report on it: SCHEDULED if nothing else is known."""

    def status_without_performance(self, step_id: int, sop_instance_uid: str) -> SPSStatus | None:
        """What the step was before this performed step touched it; None where its status is not a modality's doing.

        Where another one touched it since, what it was before any did.
        """

    def set_step_status(self, step_id: int, status: SPSStatus, cause: str, at: datetime) -> None:
        """Change a step's status, with a line of history and a new revision."""

    def archive_performed(
        self, sop_instance_uid: str, operation: str, calling_ae_title: str, raw: bytes, status: int, comment: str,
        at: datetime, transfer_syntax: str = "",
    ) -> int:  # fmt: skip
        """Keep the raw N-CREATE or N-SET dataset with its outcome, also when refused; its number."""
