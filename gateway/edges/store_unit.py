"""Writing the store: one transaction's worth of changes, as the use cases' `Unit` asks for them.

Whatever an item shows, changed here, gives the item a new revision in the same transaction (design D2); a row that
would stay as it is is not written, so an ADT that says nothing new costs no cache and no disk.
"""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from gateway.domain.attributes import TAG, Attributes, element, text, values
from gateway.domain.facts import stamps_text
from gateway.domain.identifiers import Identifier
from gateway.domain.order import Order, Procedure, Step
from gateway.domain.worklist import LISTED, SPSStatus, start_of
from gateway.edges import statements
from gateway.edges.archive_unit import ArchiveUnit
from gateway.edges.database import Connection, Row, StoreError
from gateway.edges.store_identities import IdentityWriter
from gateway.edges.store_knocks import KnockWriter
from gateway.edges.store_outbox import OutboxWriter
from gateway.edges.store_performed import PerformedWriter
from gateway.edges.store_queue_log import QueueLogWriter
from gateway.edges.store_reader import StoreReader
from gateway.edges.store_resources import ResourceWriter
from gateway.edges.stored_values import bare, json_text, minted_flags, storable, utc_text
from gateway.workflow.ports import QueryRecord

UNKNOWN_CALLERS_MAX = 200
"""Callers outside the registry whose queries are kept. A peer may call itself anything; a site that registers nobody
has some dozens of devices."""

IDENTIFIER_KEPT_MAX = 16_384
"""Bytes of a query's identifier that are kept: four times what a query for every attribute has."""

_NEGOTIATION_KEPT_MAX = 16  # bytes; the worklist's extended negotiation has 4 (PS3.4 K.5.1)
_NOTES_KEPT_MAX = 16
_NOTE_CHARACTERS_MAX = 300


class StoreUnit(
    StoreReader, ArchiveUnit, IdentityWriter, KnockWriter, OutboxWriter, QueueLogWriter, PerformedWriter,
    ResourceWriter,
):  # fmt: skip
    """One job's view of the transaction it runs in. Of use only until the job returns.

    Methods raise StoreConflict where a key that is unique is held already, StoreError where what is to be changed
    is not there, StoreUnavailable where the database cannot be written now.
    """

    def __init__(self, connection: Connection, zone: str) -> None:
        super().__init__(connection)
        self._write = connection
        self._zone = zone

    @property
    def changes(self) -> int:
        """How many rows were changed so far, but for those of what was said again; only a difference means anything."""
        return self._write.changes

    # -- orders

    def save_order(self, order: Order, cause: str, at: datetime) -> Order:
        """Insert or update with procedures and steps, status history by `cause`; returns it with its ids.

        Procedures and steps that are held and not named here stay as they are. Where a key is given both as a
        field and as an attribute, the field counts and the attribute follows.
        """
        order_id, revised = self._save_order_row(order, at)
        held_procedures: dict[int, Row] = {}
        held_steps: dict[int, Row] = {}
        if order.id is not None:
            held_procedures = {
                row[0]: row[1:] for row in self._write.rows(statements.PROCEDURES_OF_ORDER, order_id=order_id)
            }
            held_steps = {row[0]: row[1:] for row in self._write.rows(statements.STEPS_OF_ORDER, order_id=order_id)}
        if revised:
            self._write.run(
                statements.STEPS_REVISE_OF_ORDER,
                key_order_id=order_id, patient_id=order.patient_id, site=order.site,
            )  # fmt: skip
        written = _Written(order_id, order.patient_id, order.site, cause, utc_text(at))
        procedures = tuple(
            self._save_procedure(_with_keys(procedure), written, held_procedures, held_steps)
            for procedure in order.procedures
        )
        return Order(
            order_id, order.patient_id, order.visit_id, order.placer, order.filler, order.attributes, procedures,
            order.site, order.stamps, order.provisional,
        )  # fmt: skip

    def _save_order_row(self, order: Order, at: datetime) -> tuple[int, bool]:
        """(The order's number, whether a held row was changed)."""
        placer, filler = order.placer, order.filler
        columns = {
            "patient_id": order.patient_id,
            "visit_id": order.visit_id,
            "placer": placer.value if placer else None,
            "placer_issuer": placer.issuer if placer else "",
            "filler": filler.value if filler else None,
            "filler_issuer": filler.issuer if filler else "",
            "attributes": json_text(order.attributes),
            "site": order.site,
            "by_hand": int(order.provisional),
        }
        stamps = stamps_text(order.stamps)
        now = utc_text(at)
        if order.id is None:
            number = self._write.insert(
                statements.ORDER_INSERT, **columns, stamps=stamps, created_at=now, updated_at=now
            )
            return number, False
        held = self._write.row(statements.ORDER, id=order.id)
        if held is None:
            raise StoreError("there is no such order")
        if held[1:-1] == tuple(columns.values()):
            if held[-1] != stamps:  # the same was said again: nobody sees a difference
                self._write.run_unseen(statements.ORDER_SET_STAMPS, key_id=order.id, stamps=stamps)
            return order.id, False
        self._write.run(statements.ORDER_UPDATE, key_id=order.id, **columns, stamps=stamps, updated_at=now)
        return order.id, True

    def _save_procedure(
        self, procedure: Procedure, written: "_Written", held_procedures: dict[int, Row], held_steps: dict[int, Row]
    ) -> Procedure:
        accession = procedure.accession
        columns = {
            "study_instance_uid": procedure.study_instance_uid or None,
            "requested_procedure_id": procedure.requested_procedure_id,
            "accession": accession.value if accession else None,
            "accession_issuer": accession.issuer if accession else "",
            "attributes": json_text(procedure.attributes),
            "minted": minted_flags(procedure.minted),
        }
        stamps = stamps_text(procedure.stamps)
        number = procedure.id
        if number is None:
            number = self._write.insert(
                statements.PROCEDURE_INSERT, order_id=written.order_id, **columns, stamps=stamps
            )
        elif number not in held_procedures:
            raise StoreError("the order has no such requested procedure")
        elif held_procedures[number][:-1] != tuple(columns.values()):
            self._write.run(statements.PROCEDURE_UPDATE, key_id=number, **columns, stamps=stamps)
            self._write.run(statements.STEPS_REVISE_OF_PROCEDURE, key_procedure_id=number)
        elif held_procedures[number][-1] != stamps:
            self._write.run_unseen(statements.PROCEDURE_SET_STAMPS, key_id=number, stamps=stamps)
        offset = text(procedure.attributes, "TimezoneOffsetFromUTC")
        steps = tuple(self._save_step(step, number, offset, written, held_steps) for step in procedure.steps)
        return Procedure(
            number,
            procedure.study_instance_uid,
            procedure.requested_procedure_id,
            accession,
            procedure.attributes,
            steps,
            procedure.minted,
            procedure.stamps,
        )

    def _save_step(
        self, step: Step, procedure_id: int, offset: str, written: "_Written", held_steps: dict[int, Row]
    ) -> Step:
        listed = int(step.status in LISTED)
        start_local = start_of(step.attributes)
        columns: dict[str, Any] = {
            "sps_id": step.sps_id or None,
            "status": str(step.status),
            "attributes": json_text(step.attributes),
            "minted": int(step.minted),
            "listed": listed,
            "start_local": start_local,
            "start_offset": offset,
            "zone": self._zone,
            "modality": bare(text(step.attributes, "Modality")),
            "stamps": stamps_text(step.stamps),
        }
        number = step.id
        if number is None:
            number = self._write.insert(
                statements.STEP_INSERT,
                **columns, procedure_id=procedure_id, order_id=written.order_id, patient_id=written.patient_id,
                site=written.site, revision=1,
            )  # fmt: skip
            self._add_stations(number, step, listed, start_local)
            self._add_history(number, 1, step.status, start_local, written.cause, written.now)
            return Step(number, step.sps_id, step.status, step.attributes, step.minted, step.stamps)
        if number not in held_steps or held_steps[number][0] != procedure_id:
            raise StoreError("the requested procedure has no such step")
        _, held_sps_id, held_status, held_attributes, held_minted, held_start, held_zone, held_stamps = held_steps[
            number
        ]
        if (held_sps_id, held_status, held_attributes, held_minted) == tuple(columns.values())[:4]:
            if held_stamps != columns["stamps"]:
                self._write.run_unseen(statements.STEP_SET_STAMPS, key_id=number, stamps=columns["stamps"])
            return step
        if held_start == start_local:
            columns["zone"] = held_zone  # the wall clock that was meant when this start was said
        revision = self._write.number(statements.STEP_UPDATE, key_id=number, **columns)
        if held_attributes != columns["attributes"] or (held_status in LISTED) != bool(listed):
            self._write.run(statements.STATIONS_DELETE, step_id=number)
            self._add_stations(number, step, listed, start_local)
        if (held_status, held_start) != (columns["status"], start_local):
            self._add_history(number, revision, step.status, start_local, written.cause, written.now)
        return step

    def _add_stations(self, step_id: int, step: Step, listed: int, start_local: str) -> None:
        titles = {bare(str(title or "")) for title in values(step.attributes, "ScheduledStationAETitle")}
        rows = [
            {"step_id": step_id, "ae_title": title, "listed": listed, "start_local": start_local}
            for title in titles
            if title
        ]
        if rows:
            self._write.run_many(statements.STATION_INSERT, rows)

    def _add_history(
        self, step_id: int, revision: int, status: SPSStatus, start_local: str, cause: str, now: str
    ) -> None:
        self._write.run(
            statements.HISTORY_INSERT,
            step_id=step_id, revision=revision, at=now, status=str(status), start_local=start_local, cause=cause,
        )  # fmt: skip

    def set_step_status(self, step_id: int, status: SPSStatus, cause: str, at: datetime) -> None:
        """Change a step's status, with a line of history and a new revision; none of it where it has it already."""
        held = self._write.row(statements.STEP_STATUS, id=step_id)
        if held is None:
            raise StoreError("there is no such step")
        held_status, start_local = held
        if held_status == status:
            return
        listed = int(status in LISTED)
        revision = self._write.number(statements.STEP_SET_STATUS, key_id=step_id, status=str(status), listed=listed)
        if (held_status in LISTED) != bool(listed):
            self._write.run(statements.STATIONS_SET_LISTED, key_step_id=step_id, listed=listed)
        self._add_history(step_id, revision, status, start_local, cause, utc_text(at))

    # -- queries

    def add_queries(
        self,
        records: Sequence[QueryRecord],
        per_device_max: int,
        known: Collection[str] = frozenset(),
        unknown_callers_max: int = UNKNOWN_CALLERS_MAX,
    ) -> None:
        """Keep these, oldest first; of each calling AE title only the newest `per_device_max` stay.

        `known` are the calling AE titles of the registry, which always have their place. Of all others only the
        `unknown_callers_max` that asked last stay, so that a peer with ever new names fills nothing.
        """
        added = Counter(storable(record.calling_ae_title) for record in records)
        strangers = [
            title
            for title in added
            if title not in known
            and self._write.rows(statements.NEWEST_QUERY_OF_CALLER, calling_ae_title=title) == [(None,)]
        ]
        self._write.run_many(statements.QUERY_INSERT, map(_query_columns, records))
        for title in added:
            self._write.run(statements.QUERIES_PRUNE, calling_ae_title=title, kept=per_device_max)
        if strangers:
            self._forget_callers(known, unknown_callers_max)

    def _forget_callers(self, known: Collection[str], unknown_callers_max: int) -> None:
        """Drop the queries of those unknown callers that asked longest ago, where there are too many of them."""
        titles = [title for (title,) in self._write.rows(statements.QUERY_CALLERS) if title not in known]
        if len(titles) <= unknown_callers_max:
            return
        newest = {
            title: self._write.rows(statements.NEWEST_QUERY_OF_CALLER, calling_ae_title=title)[0][0] for title in titles
        }
        for title in sorted(titles, key=lambda each: newest[each])[: len(titles) - unknown_callers_max]:
            self._write.run(statements.QUERIES_DELETE_OF_CALLER, calling_ae_title=title)

    def delete_queries_before(self, before: datetime, limit: int = 1000) -> int:
        """Drop kept queries older than this, at most `limit` of them; how many. Again until it is less than that."""
        return self._write.run(statements.QUERIES_DELETE_BEFORE, before=utc_text(before), limit=limit)


@dataclass(frozen=True, slots=True)
class _Written:
    """What all rows of one saved order have in common."""

    order_id: int
    patient_id: int
    site: str
    cause: str
    now: str


def within_bounds(record: QueryRecord) -> QueryRecord:
    """The record as it is kept: what a peer chooses is cut to its bounds."""
    if (
        len(record.identifier) <= IDENTIFIER_KEPT_MAX
        and len(record.negotiation) <= _NEGOTIATION_KEPT_MAX
        and not record.notes
    ):
        return record  # nearly all; this is done on the event loop
    notes = tuple(note[:_NOTE_CHARACTERS_MAX] for note in record.notes[:_NOTES_KEPT_MAX])
    if len(record.identifier) > IDENTIFIER_KEPT_MAX:
        cut = f"the identifier has {len(record.identifier)} bytes, of which {IDENTIFIER_KEPT_MAX} are kept"
        notes = (cut, *notes[1:])
    return replace(
        record,
        identifier=record.identifier[:IDENTIFIER_KEPT_MAX],
        negotiation=record.negotiation[:_NEGOTIATION_KEPT_MAX],
        notes=notes,
    )


def _query_columns(record: QueryRecord) -> dict[str, object]:
    record = within_bounds(record)
    return {
        "at": utc_text(record.at),
        "calling_ae_title": storable(record.calling_ae_title),
        "called_ae_title": storable(record.called_ae_title),
        "remote_host": storable(record.remote_host),
        "transfer_syntax": storable(record.transfer_syntax),
        "identifier": record.identifier,
        "status": record.status,
        "matches": record.matches,
        "milliseconds": record.milliseconds,
        "negotiation": record.negotiation,
        "notes": json_text([storable(note) for note in record.notes]),
    }


def _with_keys(procedure: Procedure) -> Procedure:
    """The procedure and its steps with each key the same as field and as attribute, so that the index and the item
    a modality sees cannot differ: the field where it is given, else the attribute."""
    attributes = procedure.attributes
    accession = procedure.accession
    uid, attributes = _agreed(procedure.study_instance_uid, attributes, "StudyInstanceUID")
    rp_id, attributes = _agreed(procedure.requested_procedure_id, attributes, "RequestedProcedureID")
    number, attributes = _agreed(accession.value if accession else "", attributes, "AccessionNumber")
    steps = []
    for step in procedure.steps:
        sps_id, inside = _agreed(step.sps_id, step.attributes, "ScheduledProcedureStepID")
        steps.append(Step(step.id, sps_id, step.status, inside, step.minted, step.stamps))
    return Procedure(
        procedure.id, uid, rp_id, Identifier(number, accession.issuer if accession else "") if number else None,
        attributes, tuple(steps), procedure.minted, procedure.stamps,
    )  # fmt: skip


def _agreed(field: str, attributes: Attributes, keyword: str) -> tuple[str, Attributes]:
    shown = bare(text(attributes, keyword))
    key = bare(field) or shown
    if key != shown:
        attributes = attributes | {TAG[keyword]: element(keyword, key)}
    return key, attributes
