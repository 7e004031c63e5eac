"""Performed steps in the store: as they are held, what they are linked to, and every request as it came."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from pydantic_core import from_json
from sqlalchemy import Table, bindparam, delete, insert, select, update

from gateway.domain.performed import MPPSState, PerformedStep, references
from gateway.edges.database import Connection, Prepared, Queries, Row
from gateway.edges.schema import performed_requests, performed_step_links, performed_steps, performed_waiting
from gateway.edges.stored_values import bare, json_text, utc_text

_given = bindparam
_COLUMNS = ("state", "attributes", "calling_ae_title", "patient_id", "quarantined")


def _row_of(table: Table) -> Prepared:
    named = [column.name for column in table.columns if column.name != "id"]
    return Prepared(insert(table).values({name: _given(name) for name in named}))


_PERFORMED = select(
    performed_steps.c.sop_instance_uid,
    performed_steps.c.state,
    performed_steps.c.attributes,
    performed_steps.c.calling_ae_title,
    performed_steps.c.patient_id,
    performed_steps.c.quarantined,
)
PERFORMED_STEP = Prepared(_PERFORMED.where(performed_steps.c.sop_instance_uid == _given("uid")))
PERFORMED_STEPS_OF_STEP = Prepared(
    _PERFORMED.join_from(
        performed_step_links,
        performed_steps,
        performed_steps.c.sop_instance_uid == performed_step_links.c.sop_instance_uid,
    )
    .where(performed_step_links.c.step_id == _given("step_id"))
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
    )
    .where(performed_requests.c.sop_instance_uid == _given("uid"))
    .order_by(performed_requests.c.id)
)


@dataclass(frozen=True, slots=True)
class PerformedRequest:
    """A raw N-CREATE or N-SET as it came, with what was answered."""

    operation: str
    calling_ae_title: str
    raw: bytes
    status: int
    comment: str
    at: datetime


class PerformedReader:
    """The part of `StoreReader` about performed steps."""

    _connection: Queries

    def performed_step(self, sop_instance_uid: str) -> PerformedStep | None:
        """A performed step by its SOP Instance UID."""
        row = self._connection.row(PERFORMED_STEP, uid=sop_instance_uid)
        return self._performed(row) if row else None

    def performed_steps_of(self, step_id: int) -> Sequence[PerformedStep]:
        """Every performed step linked to this scheduled one, in the order they began."""
        found = self._connection.rows(PERFORMED_STEPS_OF_STEP, step_id=step_id)
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
            PerformedRequest(operation, calling_ae_title, raw, status, comment, datetime.fromisoformat(at))
            for operation, calling_ae_title, raw, status, comment, at in self._connection.rows(
                PERFORMED_REQUESTS, uid=sop_instance_uid
            )
        ]

    def _performed(self, row: Row) -> PerformedStep:
        uid, state, attributes, calling_ae_title, patient_id, quarantined = row
        links = self._connection.rows(LINKS_OF_PERFORMED_STEP, uid=uid)
        return PerformedStep(
            uid, MPPSState(state), from_json(attributes), calling_ae_title, patient_id,
            tuple(step_id for (step_id,) in links), bool(quarantined),
        )  # fmt: skip


class PerformedWriter(PerformedReader):
    """The part of `StoreUnit` about performed steps."""

    _write: Connection

    def save_performed_step(self, performed: PerformedStep, at: datetime) -> None:
        """Insert or update, with its links to scheduled steps."""
        uid = performed.sop_instance_uid
        columns = {
            "state": str(performed.state),
            "attributes": json_text(performed.attributes),
            "calling_ae_title": performed.calling_ae_title,
            "patient_id": performed.patient_id,
            "quarantined": int(performed.quarantined),
        }
        held = self._write.row(PERFORMED_STEP, uid=uid)
        now = utc_text(at)
        if held is None:
            self._write.run(
                PERFORMED_STEP_INSERT,
                sop_instance_uid=uid,
                **columns,
                created_at=now,
                updated_at=now,
            )
        elif held[1:] != tuple(columns.values()):
            self._write.run(PERFORMED_STEP_UPDATE, key_uid=uid, **columns, updated_at=now)
        self._set_waiting(performed, held is not None)
        said = sorted(set(performed.steps))
        if held is None or [row[0] for row in self._write.rows(LINKS_OF_PERFORMED_STEP, uid=uid)] != said:
            self._write.run(LINKS_DELETE, uid=uid)
            self._write.run_many(LINK_INSERT, [{"sop_instance_uid": uid, "step_id": step_id} for step_id in said])

    def _set_waiting(self, performed: PerformedStep, held: bool) -> None:
        uid = performed.sop_instance_uid
        if held:
            self._write.run(WAITING_DELETE, uid=uid)
        if performed.waits:
            keys = [("study", each.study_instance_uid) for each in references(performed.attributes)]
            keys += [("accession", each.accession_number) for each in references(performed.attributes)]
            self._write.run_many(
                WAITING_INSERT,
                [
                    {"kind": kind, "value": bare(key), "sop_instance_uid": uid}
                    for kind, key in dict.fromkeys(keys)
                    if bare(key)
                ],
            )

    def archive_performed(
        self,
        sop_instance_uid: str,
        operation: str,
        calling_ae_title: str,
        raw: bytes,
        status: int,
        comment: str,
        at: datetime,
    ) -> None:
        """Keep the raw N-CREATE or N-SET dataset with its outcome, also when refused."""
        self._write.insert(
            PERFORMED_REQUEST_INSERT,
            sop_instance_uid=sop_instance_uid, operation=operation, calling_ae_title=calling_ae_title, raw=raw,
            status=status, comment=comment, at=utc_text(at),
        )  # fmt: skip
