"""Performed steps in the store: as they are held, what they are linked to, and every request as it came."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from pydantic_core import from_json, to_json
from sqlalchemy import Table, bindparam, delete, func, insert, literal_column, select, update

from gateway.domain.performed import (
    SCHEDULED_STEP_ATTRIBUTES,
    Attention,
    MPPSState,
    PerformedStep,
    references,
)
from gateway.edges.database import Connection, Prepared, Queries, Row
from gateway.edges.schema import (
    performed_log,
    performed_requests,
    performed_step_links,
    performed_steps,
    performed_waiting,
)
from gateway.edges.stored_values import bare, json_text, utc_text
from gateway.workflow.ports import ArchivedPerformed, PerformedDecision, StoredPerformed

_given = bindparam
_COLUMNS = ("state", "attributes", "calling_ae_title", "patient_id", "attention")


def _row_of(table: Table) -> Prepared:
    named = [column.name for column in table.columns if column.name != "id"]
    return Prepared(insert(table).values({name: _given(name) for name in named}))


PERFORMED = (
    performed_steps.c.sop_instance_uid,
    performed_steps.c.state,
    performed_steps.c.attributes,
    performed_steps.c.calling_ae_title,
    performed_steps.c.patient_id,
    performed_steps.c.attention,
)
"""What a performed step is read from."""
TIMES = (performed_steps.c.created_at, performed_steps.c.updated_at)

_PERFORMED = select(*PERFORMED)
PERFORMED_STEP = Prepared(_PERFORMED.where(performed_steps.c.sop_instance_uid == _given("uid")))
STORED_PERFORMED = Prepared(
    select(*PERFORMED, *TIMES).where(performed_steps.c.sop_instance_uid == _given("uid"))
)  # fmt: skip
PERFORMED_STEPS_OF_STEP = Prepared(
    _PERFORMED.join_from(
        performed_step_links,
        performed_steps,
        performed_steps.c.sop_instance_uid == performed_step_links.c.sop_instance_uid,
    )
    .where(performed_step_links.c.step_id == _given("step_id"), performed_steps.c.sop_instance_uid != _given("but"))
    .order_by(performed_steps.c.created_at, performed_steps.c.sop_instance_uid)
)
LINKS_OF_PERFORMED_STEP = Prepared(
    select(performed_step_links.c.step_id)
    .where(performed_step_links.c.sop_instance_uid == _given("uid"))
    .order_by(performed_step_links.c.step_id)
)
PERFORMED_STEP_INSERT = _row_of(performed_steps)
PERFORMED_STEP_UPDATE = Prepared(
    update(performed_steps)
    .values({name: _given(name) for name in (*_COLUMNS, "updated_at")})
    .where(performed_steps.c.sop_instance_uid == _given("key_uid"))
)
LINK_INSERT = _row_of(performed_step_links)
LINKS_DELETE = Prepared(delete(performed_step_links).where(performed_step_links.c.sop_instance_uid == _given("uid")))
WAITING_INSERT = _row_of(performed_waiting)
WAITING_DELETE = Prepared(delete(performed_waiting).where(performed_waiting.c.sop_instance_uid == _given("uid")))
WAITING = Prepared(
    select(performed_steps.c.created_at, performed_steps.c.sop_instance_uid)
    .join_from(
        performed_waiting,
        performed_steps,
        performed_steps.c.sop_instance_uid == performed_waiting.c.sop_instance_uid,
    )
    .where(performed_waiting.c.kind == _given("kind"), performed_waiting.c.value == _given("value"))
)
PERFORMED_REQUEST_INSERT = _row_of(performed_requests)
PERFORMED_REQUESTS = Prepared(
    select(
        performed_requests.c.operation,
        performed_requests.c.calling_ae_title,
        performed_requests.c.raw,
        performed_requests.c.status,
        performed_requests.c.comment,
        performed_requests.c.at,
        performed_requests.c.transfer_syntax,
    )
    .where(performed_requests.c.sop_instance_uid == _given("uid"))
    .order_by(performed_requests.c.id)
)
# Numbers rise with time, so a time is found by halving, as in the archive of messages.
REQUEST_FROM = Prepared(
    select(performed_requests.c.id, performed_requests.c.at)
    .where(performed_requests.c.id >= _given("id"))
    .order_by(performed_requests.c.id)
    .limit(literal_column("1"))
)
REQUESTS_IN_ORDER = Prepared(
    select(
        performed_requests.c.id,
        performed_requests.c.sop_instance_uid,
        performed_requests.c.operation,
        performed_requests.c.raw,
        performed_requests.c.status,
        performed_requests.c.transfer_syntax,
        performed_requests.c.at,
    )
    .where(performed_requests.c.id > _given("after"))
    .order_by(performed_requests.c.id)
    .limit(_given("limit"))
)
LAST_REQUEST = Prepared(select(func.max(performed_requests.c.id)))
DECISION_INSERT = _row_of(performed_log)


@dataclass(frozen=True, slots=True)
class PerformedRequest:
    """A raw N-CREATE or N-SET as it came, with what was answered."""

    operation: str
    calling_ae_title: str
    raw: bytes
    status: int
    comment: str
    at: datetime
    transfer_syntax: str = ""


class PerformedReader:
    """The part of `StoreReader` about performed steps."""

    _connection: Queries

    def performed_step(self, sop_instance_uid: str) -> PerformedStep | None:
        """A performed step by its SOP Instance UID."""
        row = self._connection.row(PERFORMED_STEP, uid=sop_instance_uid)
        return self._performed(row) if row else None

    def stored_performed(self, sop_instance_uid: str) -> StoredPerformed | None:
        """A performed step with when it came and when it was last changed."""
        row = self._connection.row(STORED_PERFORMED, uid=sop_instance_uid)
        return self._stored(row) if row else None

    def performed_steps_of(self, step_id: int, but: str = "") -> Sequence[PerformedStep]:
        """Every performed step linked to this scheduled one but one, in the order they began."""
        found = self._connection.rows(PERFORMED_STEPS_OF_STEP, step_id=step_id, but=but)
        return [self._performed(row) for row in found]

    def unlinked_performed_steps(
        self, study_instance_uids: Iterable[str], accession_numbers: Iterable[str]
    ) -> Sequence[PerformedStep]:
        """Performed steps that wait for an order with one of these keys, oldest first."""
        keys = [("study", key) for key in study_instance_uids] + [("accession", key) for key in accession_numbers]
        found = {
            row for kind, key in keys if bare(key) for row in self._connection.rows(WAITING, kind=kind, value=bare(key))
        }
        performed = (self.performed_step(uid) for _created_at, uid in sorted(found))
        return [each for each in performed if each is not None]

    def performed_requests(self, sop_instance_uid: str) -> Sequence[PerformedRequest]:
        """Every raw N-CREATE and N-SET that named this instance, in the order they came."""
        return [
            PerformedRequest(
                operation, calling_ae_title, raw, status, comment, datetime.fromisoformat(at), transfer_syntax
            )
            for operation, calling_ae_title, raw, status, comment, at, transfer_syntax in self._connection.rows(
                PERFORMED_REQUESTS, uid=sop_instance_uid
            )
        ]

    def performed_requests_in_order(
        self, since: datetime, limit: int, after: int = 0, until: datetime | None = None
    ) -> Sequence[ArchivedPerformed]:
        """The oldest that came in this time (`until` exclusive), refused ones too, from behind number `after`."""
        first = self._first_request_since(utc_text(since))
        rows = self._connection.rows(REQUESTS_IN_ORDER, after=max(after, first - 1), limit=limit)
        end = utc_text(until) if until is not None else None
        return [ArchivedPerformed(*parts) for *parts, at in rows if end is None or at < end]

    def _first_request_since(self, wanted: str) -> int:
        """The number of the first request that came at this time or later; the next one where there is none."""
        low, beyond = 1, (self._connection.rows(LAST_REQUEST)[0][0] or 0) + 1
        while low < beyond:
            middle = (low + beyond) // 2
            row = self._connection.row(REQUEST_FROM, id=middle)
            if row is None or row[1] >= wanted:
                beyond = middle
            else:
                low = row[0] + 1  # over the gap as well
        return low

    def _stored(self, row: Row) -> StoredPerformed:
        *performed, created_at, updated_at = row
        return StoredPerformed(
            self._performed(tuple(performed)), datetime.fromisoformat(created_at), datetime.fromisoformat(updated_at)
        )

    def _performed(self, row: Row) -> PerformedStep:
        uid, state, attributes, calling_ae_title, patient_id, attention = row
        links = self._connection.rows(LINKS_OF_PERFORMED_STEP, uid=uid)
        return PerformedStep(
            uid, MPPSState(state), from_json(attributes), calling_ae_title, patient_id,
            tuple(step_id for (step_id,) in links), Attention(attention),
        )  # fmt: skip


class PerformedWriter(PerformedReader):
    """The part of `StoreUnit` about performed steps."""

    _write: Connection

    def add_performed_step(self, performed: PerformedStep, at: datetime) -> None:
        """Insert one that is not held yet, with its links to scheduled steps."""
        now = utc_text(at)
        self._write.run(
            PERFORMED_STEP_INSERT,
            sop_instance_uid=performed.sop_instance_uid, **_columns_of(performed), created_at=now, updated_at=now,
        )  # fmt: skip
        self._add_links(performed)
        self._add_waiting(performed)

    def save_performed_step(self, performed: PerformedStep, at: datetime, held: PerformedStep | None = None) -> None:
        """Insert or update, with its links to scheduled steps.

        `held` is it as it is held, where the caller has read that in this transaction.
        """
        uid = performed.sop_instance_uid
        held = held or self.performed_step(uid)
        if held is None:
            return self.add_performed_step(performed, at)
        if replace(performed, steps=held.steps) != held:
            self._write.run(PERFORMED_STEP_UPDATE, key_uid=uid, **_columns_of(performed), updated_at=utc_text(at))
        if set(performed.steps) != set(held.steps):
            self._write.run(LINKS_DELETE, uid=uid)
            self._add_links(performed)
        if _what_waits(performed) != _what_waits(held):
            self._write.run(WAITING_DELETE, uid=uid)
            self._add_waiting(performed)
        return None

    def _add_links(self, performed: PerformedStep) -> None:
        uid = performed.sop_instance_uid
        for step_id in sorted(set(performed.steps)):
            self._write.run(LINK_INSERT, sop_instance_uid=uid, step_id=step_id)

    def _add_waiting(self, performed: PerformedStep) -> None:
        if performed.waits:
            keys = [("study", each.study_instance_uid) for each in references(performed.attributes)]
            keys += [("accession", each.accession_number) for each in references(performed.attributes)]
            uid = performed.sop_instance_uid
            for kind, key in dict.fromkeys((kind, bare(key)) for kind, key in keys if bare(key)):
                self._write.run(WAITING_INSERT, kind=kind, value=key, sop_instance_uid=uid)

    def archive_performed(
        self,
        sop_instance_uid: str,
        operation: str,
        calling_ae_title: str,
        raw: bytes,
        status: int,
        comment: str,
        at: datetime,
        transfer_syntax: str = "",
    ) -> int:
        """Keep the raw N-CREATE or N-SET dataset with its outcome, also when refused; its number."""
        return self._write.insert(
            PERFORMED_REQUEST_INSERT,
            sop_instance_uid=sop_instance_uid, operation=operation, calling_ae_title=calling_ae_title, raw=raw,
            status=status, comment=comment, at=utc_text(at), transfer_syntax=transfer_syntax,
        )  # fmt: skip

    def log_performed(self, decision: PerformedDecision) -> int:
        """Note what was decided about a performed step; the number of its line."""
        return self._write.insert(
            DECISION_INSERT,
            at=utc_text(decision.at), sop_instance_uid=decision.sop_instance_uid, action=decision.action,
            actor=decision.actor, details=to_json(dict(decision.details)).decode(),
        )  # fmt: skip


def _columns_of(performed: PerformedStep) -> dict[str, Any]:
    return {
        "state": str(performed.state),
        "attributes": json_text(performed.attributes),
        "calling_ae_title": performed.calling_ae_title,
        "patient_id": performed.patient_id,
        "attention": str(performed.attention),
    }


def _what_waits(performed: PerformedStep) -> tuple[object, ...]:
    """Where this is the same, so are the keys it waits for."""
    return performed.attention, len(performed.steps), performed.attributes.get(SCHEDULED_STEP_ATTRIBUTES)
