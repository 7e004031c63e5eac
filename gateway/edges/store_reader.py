"""Reading the store: every question that changes nothing, and the way back from rows to the domain's values.

`StoreReader` is the use cases' `Reader`, and answers the command line and the metrics too. A `StoreUnit` reads in
the same ways inside its transaction.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from itertools import islice, zip_longest
from typing import Any

from pydantic_core import from_json

from gateway.domain.attributes import SPS_SEQUENCE, TAG, Attributes, element
from gateway.domain.facts import stamps_of
from gateway.domain.identifiers import Identifier
from gateway.domain.matching import Narrowing
from gateway.domain.order import Order, Procedure, Step
from gateway.domain.worklist import LISTED, SPSStatus, WorklistItem
from gateway.edges import statements
from gateway.edges.archive_reader import ArchiveReader
from gateway.edges.database import Queries, Row, StoreError
from gateway.edges.statements import LIST_LENGTHS, Bound, Shape, padded
from gateway.edges.store_identities import IdentityReader
from gateway.edges.store_knocks import KnockReader
from gateway.edges.store_outbox import OutboxReader
from gateway.edges.store_queue_log import QueueLogReader
from gateway.edges.store_reconciliation import ReconciliationReader
from gateway.edges.store_resources import ResourceStoreReader
from gateway.edges.stored_values import bare, minted_of, storable
from gateway.workflow.ports import (
    HistoryEntry,
    ItemKey,
    Namesake,
    QueryRecord,
    StepRef,
    StoredQuery,
)

ITEMS_CHUNK = LIST_LENGTHS[-1]
"""Items fetched by one statement."""

FOUND_MAX, FOUND_REFS_MAX = 1_024, 1_024
"""Lists of ids and revisions kept until anything is committed, and the longest that is: 100 MB if all were as long."""

_KEY_COLUMNS = {
    "StudyInstanceUID": "study_instance_uid", "AccessionNumber": "accession",
    "RequestedProcedureID": "requested_procedure_id", "ScheduledProcedureStepID": "sps_id",
}  # fmt: skip

_SHORT_NAME = 3  # letters below which a name says less than a day
_START_LAST = "99999999999999"  # after every start: 14 digits


@dataclass(frozen=True, slots=True)
class Counts:
    """How much there is of what an operator watches."""

    listed_steps: int
    held_messages: int
    open_performed_steps: int
    quarantined_performed_steps: int


BY_MPPS = "MPPS "
"""How the causes of statuses that modalities made begin (`workflow.performed_effects`)."""


def _names(cause: str, sop_instance_uid: str) -> bool:
    """Whether a status was made by this performed step, or taken back with it."""
    return cause.startswith(BY_MPPS) and cause.partition(",")[0].endswith(f" {sop_instance_uid}")


def _tell_nobody(step_id: int, reason: Exception) -> None:
    """For a reader whose bad items nobody wants to know."""


class StoreReader(
    ArchiveReader, IdentityReader, KnockReader, OutboxReader, QueueLogReader, ReconciliationReader, ResourceStoreReader
):  # fmt: skip
    """Reads through one connection, for one thread at a time, with no transaction open between calls.

    `left_out` is told the step and the reason of an item that cannot be read. Raises StoreUnavailable where the
    database cannot be read now.
    """

    def __init__(self, connection: Queries, left_out: Callable[[int, Exception], None] = _tell_nobody) -> None:
        self._connection = connection
        self.left_out = left_out
        # What was found while the database was in this state; devices ask the same, over and over.
        self._state: object = None
        self._found: dict[Narrowing, Sequence[tuple[int, int]]] = {}

    # -- worklist answers

    def candidates(self, narrowing: Narrowing) -> Sequence[tuple[int, int]]:
        """(step id, revision) of every step that may match, by start, then step; a superset of the truth.

        More stations or studies than `LIST_LENGTHS` knows do not narrow.
        """
        if not narrowing.statuses:
            return ()
        state = self._connection.state()
        if state is None or state != self._state or len(self._found) >= FOUND_MAX:
            self._state = state
            self._found.clear()
        known = self._found.get(narrowing)
        if known is not None:
            return known
        shape, values = _shape_kept(narrowing)
        rows = self._connection.rows(statements.candidates(shape), **values)
        # A step with two of the stations asked for, or two names in the range, is found twice.
        found = list(dict.fromkeys(rows))
        if state is not None and len(found) <= FOUND_REFS_MAX:
            self._found[narrowing] = found
        return found

    def items(self, step_ids: Iterable[int]) -> Sequence[WorklistItem]:
        """Those steps as they are now, in the order asked; a step that went away meanwhile is left out.

        So is one that cannot be read, which `left_out` is told: one bad item spoils no answer (design rule 4).
        """
        wanted = list(step_ids)
        found: dict[int, WorklistItem] = {}
        for chunk in _chunks(wanted, ITEMS_CHUNK):
            ids = padded(chunk)
            values = {f"id_{index}": step_id for index, step_id in enumerate(ids)}
            for row in self._connection.rows(statements.items(len(ids)), **values):
                try:
                    found[row[0]] = _item(row)
                except (ValueError, TypeError) as reason:  # no JSON, no attributes, no status that there is
                    self.left_out(row[0], reason)
        return [found[step_id] for step_id in wanted if step_id in found]

    def item_of(self, key: str) -> Sequence[WorklistItem]:
        """The items, of any status, whose SPS ID is `key`; where there are none, those of that accession number."""
        found = self._connection.rows(statements.STEP_IDS_BY_SPS_ID, value=bare(key))
        found = found or self._connection.rows(statements.STEP_IDS_BY_ACCESSION, value=bare(key))
        return self.items(step_id for (step_id,) in found)

    def items_by(self, key: ItemKey, value: str) -> Sequence[WorklistItem]:
        """The items of any status with this key, whoever issued it; a patient's by every identifier it ever had."""
        statement = {
            ItemKey.ACCESSION: statements.STEP_IDS_BY_ACCESSION,
            ItemKey.PATIENT: statements.STEP_IDS_BY_PATIENT_ID,
            ItemKey.ORDER: statements.STEP_IDS_BY_ORDER_NUMBER,
            ItemKey.STEP: statements.STEP_IDS_BY_SPS_ID,
        }[key]
        return self.items(step_id for (step_id,) in self._connection.rows(statement, value=bare(value)))

    # -- steps

    def step_history(self, step_id: int) -> Sequence[HistoryEntry]:
        """What happened to a step, first things first."""
        return [
            HistoryEntry(datetime.fromisoformat(at), SPSStatus(status), start_local, cause)
            for at, status, start_local, cause in self._connection.rows(statements.HISTORY_OF_STEP, step_id=step_id)
        ]

    def status_before_performance(self, step_id: int) -> SPSStatus:
        """The last status of the step's history that neither an MPPS nor a start made."""
        made = (each for each in self._status_changes(step_id) if each.status is not SPSStatus.STARTED)
        last = [each.status for each in made if not each.cause.startswith(BY_MPPS)]
        return last[-1] if last else SPSStatus.SCHEDULED

    def status_without_performance(self, step_id: int, sop_instance_uid: str) -> SPSStatus | None:
        """What the step was before this performed step touched it; None where its status is not a modality's doing.

        Where another one touched it since, what it was before any did.
        """
        changes = list(self._status_changes(step_id))
        if not changes or not changes[-1].cause.startswith(BY_MPPS):
            return None
        left = list(changes)
        while left and _names(left[-1].cause, sop_instance_uid):
            left.pop()
        if len(left) == len(changes):
            left = [each for each in changes if not each.cause.startswith(BY_MPPS)]
        return left[-1].status if left else SPSStatus.SCHEDULED

    def _status_changes(self, step_id: int) -> Sequence[HistoryEntry]:
        """The step's history without the lines that changed something else, such as its start."""
        history = self.step_history(step_id)
        earlier = [None, *(each.status for each in history)]
        return [each for each, before in zip(history, earlier, strict=False) if each.status is not before]

    def expiring(self, before_start_local: str, limit: int = 1000) -> Sequence[StepRef]:
        """Listed steps that the night may expire: start before this local time (14 digits), and not begun."""
        found = self._connection.rows(statements.EXPIRING, before=before_start_local, limit=limit)
        return [_step_ref(row) for row in found]

    def find_steps(
        self, study_instance_uid: str, sps_id: str, accession: str, requested_procedure_id: str
    ) -> Sequence[StepRef]:
        """Held steps that carry all of the non-empty arguments; none where all are empty."""
        keys = [bare(key) for key in (study_instance_uid, sps_id, accession, requested_procedure_id)]
        if not any(keys):
            return ()
        statement = statements.find_steps(*(bool(key) for key in keys))
        names = ("study_instance_uid", "sps_id", "accession", "rp_id")
        return [_step_ref(row) for row in self._connection.rows(statement, **dict(zip(names, keys, strict=True)))]

    def steps(self, step_ids: Iterable[int]) -> Sequence[StepRef]:
        """Those held steps as they are now, in the order asked."""
        rows = (self._connection.row(statements.STEP_REF, step_id=step_id) for step_id in step_ids)
        return [_step_ref(row) for row in rows if row is not None]

    # -- orders

    def orders(self, placer: Identifier | None, filler: Identifier | None) -> Sequence[Order]:
        """The distinct orders that bear the placer or the filler number."""
        found: dict[int, Order] = {}
        for statement, number in ((statements.ORDER_BY_PLACER, placer), (statements.ORDER_BY_FILLER, filler)):
            if number is None:
                continue
            row = self._connection.row(statement, value=number.value, issuer=number.issuer)
            if row is not None and row[0] not in found:
                found[row[0]] = self._order(row)
        return list(found.values())

    def namesakes(self, placer: Identifier | None, filler: Identifier | None) -> Sequence[Namesake]:
        """The orders that have one of these values as number of the same kind, of another issuer."""
        found = self._connection.rows(
            statements.ORDERS_OF_OTHER_ISSUERS,
            placer=placer.value if placer else None, placer_issuer=placer.issuer if placer else None,
            filler=filler.value if filler else None, filler_issuer=filler.issuer if filler else None,
        )  # fmt: skip
        return [Namesake(*row) for row in found]

    def order_of_study(self, study_instance_uid: str) -> Order | None:
        """The order one of whose requested procedures has this Study Instance UID."""
        row = self._connection.row(statements.ORDER_ID_OF_STUDY, uid=bare(study_instance_uid))
        return self.order(row[0]) if row else None

    def orders_by_accession(self, accession: Identifier, any_issuer: bool = False) -> Sequence[Order]:
        """The distinct orders with a requested procedure of this accession number, of this issuer or of any."""
        value = bare(accession.value)
        found = (
            self._connection.rows(statements.ORDER_IDS_BY_ACCESSION_OF_ANY, value=value)
            if any_issuer
            else self._connection.rows(statements.ORDER_IDS_BY_ACCESSION, value=value, issuer=accession.issuer)
        )
        orders = (self.order(order_id) for order_id in dict.fromkeys(order_id for (order_id,) in found))
        return [order for order in orders if order is not None]

    def held_keys(self, keys: Iterable[tuple[str, str]]) -> frozenset[str]:
        """Those of these keys, (keyword, value), that an order has."""
        of_kind: dict[str, list[str]] = {column: [] for column in _KEY_COLUMNS.values()}
        for keyword, value in keys:
            of_kind[_KEY_COLUMNS[keyword]].append(value)
        return frozenset(
            value
            for one_of_each in zip_longest(*of_kind.values())
            for (value,) in self._connection.rows(statements.KEYS_HELD, **dict(zip(of_kind, one_of_each, strict=True)))
        )

    def provisional_orders(self, patient_id: int) -> Sequence[Order]:
        """The patient's orders that an order of the RIS may take over: typed by hand, or made of an appointment."""
        return [self._order(row) for row in self._connection.rows(statements.ORDERS_BY_HAND, patient_id=patient_id)]

    def orders_of_patient(self, patient_id: int, status: SPSStatus) -> Sequence[Order]:
        """The patient's orders that have a step of this status."""
        rows = self._connection.rows(statements.ORDER_IDS_OF_PATIENT, patient_id=patient_id, status=str(status))
        orders = (self.order(order_id) for order_id in dict.fromkeys(order_id for (order_id,) in rows))
        return [order for order in orders if order is not None]

    def order(self, order_id: int) -> Order | None:
        """An order by number, with its procedures and steps."""
        row = self._connection.row(statements.ORDER, id=order_id)
        return self._order(row) if row else None

    def _order(self, row: Row) -> Order:
        (
            order_id,
            patient_id,
            visit_id,
            placer,
            placer_issuer,
            filler,
            filler_issuer,
            attributes,
            site,
            by_hand,
            stamps,
        ) = row
        steps: dict[int, list[Step]] = {}
        for step in self._connection.rows(statements.STEPS_OF_ORDER, order_id=order_id):
            held = Step(
                step[0], step[2] or "", SPSStatus(step[3]), from_json(step[4]), bool(step[5]), stamps_of(step[8])
            )
            steps.setdefault(step[1], []).append(held)
        procedures = tuple(
            Procedure(
                number, uid or "", rp_id, _identifier(accession, accession_issuer), from_json(held_attributes),
                tuple(steps.get(number, ())), minted_of(flags), stamps_of(since),
            )
            for number, uid, rp_id, accession, accession_issuer, held_attributes, flags, since in self._connection.rows(
                statements.PROCEDURES_OF_ORDER, order_id=order_id
            )
        )  # fmt: skip
        return Order(
            order_id, patient_id, visit_id, _identifier(placer, placer_issuer), _identifier(filler, filler_issuer),
            from_json(attributes), procedures, site, stamps_of(stamps), bool(by_hand),
        )  # fmt: skip

    # -- queries

    def queries(self, calling_ae_title: str = "", limit: int = 50) -> Sequence[StoredQuery]:
        """The newest kept queries, of one caller where it is named, newest first."""
        found = (
            self._connection.rows(
                statements.QUERIES_OF_CALLER, calling_ae_title=storable(calling_ae_title), limit=limit
            )
            if calling_ae_title
            else self._connection.rows(statements.QUERIES, limit=limit)
        )
        return [_query(row) for row in found]

    def query(self, number: int) -> StoredQuery | None:
        """A kept query by number."""
        row = self._connection.row(statements.QUERY, id=number)
        return _query(row) if row else None

    # -- the site

    def counts(self) -> Counts:
        """For the metrics; each is answered from an index."""
        row = self._connection.row(statements.COUNTS)
        if row is None:
            raise StoreError("a count gave no row")
        return Counts(*row)

    def meta(self, name: str) -> str | None:
        """A fact about the site, such as its `site_namespace`."""
        row = self._connection.row(statements.META, name=name)
        return row[0] if row else None


def _identifier(value: str | None, issuer: str) -> Identifier | None:
    return Identifier(value, issuer) if value is not None else None


def _step_ref(row: Row) -> StepRef:
    step_id, order_id, patient_id, uid, sps_id, status = row
    return StepRef(step_id, order_id, patient_id, uid, sps_id, SPSStatus(status))


def _query(row: Row) -> StoredQuery:
    (
        number, at, calling_ae_title, called_ae_title, remote_host, transfer_syntax, identifier, status, matches,
        milliseconds, negotiation, notes,
    ) = row  # fmt: skip
    record = QueryRecord(
        datetime.fromisoformat(at), calling_ae_title, called_ae_title, remote_host, transfer_syntax, identifier,
        status, matches, milliseconds, negotiation, tuple(from_json(notes)),
    )  # fmt: skip
    return StoredQuery(number, record)


def _item(row: Row) -> WorklistItem:
    step_id, revision, status, site, patient, visit, order, procedure, step = row
    attributes: Attributes = from_json(patient)
    for part in (visit, order, procedure):
        if part is not None:
            attributes = attributes | from_json(part)  # not |=, which takes a list for a dictionary
    inside: Attributes = from_json(step)
    if not (_sound(attributes) and _sound(inside)):
        raise ValueError("what is stored is no attributes")
    inside[TAG["ScheduledProcedureStepStatus"]] = element("ScheduledProcedureStepStatus", status)
    attributes[SPS_SEQUENCE] = {"vr": "SQ", "Value": [inside]}
    return WorklistItem(step_id, revision, SPSStatus(status), attributes, site)


def _sound(attributes: object) -> bool:
    """Whether it looks like attributes, on which everybody relies to whom an item is given."""
    return isinstance(attributes, dict) and all(
        isinstance(held, dict) and "vr" in held and isinstance(held.get("Value", []), list)
        for held in attributes.values()
    )


def _chunks(values: Sequence[int], length: int) -> Iterator[list[int]]:
    rest = iter(values)
    while chunk := list(islice(rest, length)):
        yield chunk


@lru_cache(maxsize=2_048)  # a device's bounds are the same each time, for a day
def _shape_kept(narrowing: Narrowing) -> tuple[Shape, dict[str, Any]]:
    return shape_of(narrowing)


def shape_of(narrowing: Narrowing) -> tuple[Shape, dict[str, Any]]:
    """The statement's shape for these bounds, and the values it binds."""
    values: dict[str, Any] = {
        "start_from": narrowing.start_from,
        "start_to": narrowing.start_to or _START_LAST,
        "modality": bare(narrowing.modality),
    }
    bounds: set[Bound] = set()
    for bound, value in (
        (Bound.ACCESSION, narrowing.accession_number),
        (Bound.PATIENT, narrowing.patient_id),
        (Bound.SPS, narrowing.sps_id),
        (Bound.PROCEDURE, narrowing.requested_procedure_id),
    ):
        if bare(value):
            bounds.add(bound)
            values[bound.value] = bare(value)
    lengths = {"station": 0, "study": 0, "site": 0}
    for bound, name, wanted in (
        (Bound.STATION, "station", narrowing.station_ae_titles),
        (Bound.STUDY, "study", narrowing.study_instance_uids),
    ):
        if wanted and len(wanted) <= LIST_LENGTHS[-1]:
            bounds.add(bound)
            listed = padded(sorted(bare(value) for value in wanted))
            lengths[name] = len(listed)
            values |= {f"{name}_{index}": value for index, value in enumerate(listed)}
    if narrowing.sites and len(narrowing.sites) <= LIST_LENGTHS[-1]:
        sites = padded(sorted(narrowing.sites))
        lengths["site"] = len(sites)
        values |= {f"site_{index}": site for index, site in enumerate(sites)}
    if narrowing.start_from or narrowing.start_to:
        bounds.add(Bound.START)
    if prefix := narrowing.patient_name_prefix:
        bounds.add(Bound.NAME if len(prefix) >= _SHORT_NAME else Bound.SHORT_NAME)
        values |= {"name_from": prefix, "name_to": prefix + "\U0010ffff"}  # the last code point
    statuses = narrowing.statuses != LISTED
    if statuses:
        each = sorted(narrowing.statuses)
        each += [each[-1]] * (len(SPSStatus) - len(each))
        values |= {f"status_{index}": str(status) for index, status in enumerate(each)}
    listed_flag = 1 if narrowing.statuses <= LISTED else 0 if not narrowing.statuses & LISTED else None
    return (
        Shape(
            frozenset(bounds or {Bound.START}),
            lengths["station"],
            lengths["study"],
            lengths["site"],
            bool(values["modality"]),
            listed_flag,
            statuses,
        ),
        values,
    )
