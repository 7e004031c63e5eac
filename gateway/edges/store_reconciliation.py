"""What people look through in the store: performed steps by what is wrong with them, work nobody reported, decisions.

Every list is a walk along one index, in order and in pages; a test looks at every plan.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from typing import Any

from pydantic_core import from_json
from sqlalchemy import ColumnElement, bindparam, exists, func, literal_column, or_, select

from gateway.domain.performed import Attention
from gateway.domain.worklist import SPSStatus
from gateway.edges.database import Prepared
from gateway.edges.schema import (
    performed_log,
    performed_step_links,
    performed_steps,
    requested_procedures,
    step_stations,
    steps,
)
from gateway.edges.store_performed import PERFORMED, TIMES, PerformedReader
from gateway.edges.stored_values import bare, utc_text
from gateway.workflow.ports import (
    OverdueStep,
    PerformanceReports,
    PerformedDecision,
    PerformedSearch,
    StepRef,
    StoredPerformed,
)

OVERDUE_COUNTED_MAX = 10_000
"""Overdue steps are counted as far as this with every look at the metrics: who has more knows that there are many."""

_given = bindparam
_listed: ColumnElement[int] = literal_column("1")
_nothing: ColumnElement[str] = literal_column("''")
_LAST = "\U0010ffff"  # the last code point

# -- performed steps -------------------------------------------------------------------------------------------------


class Walk(StrEnum):
    """The column along whose index performed steps are looked through: the most telling of what is asked."""

    PATIENT = "patient_id"
    ATTENTION = "attention"
    CALLER = "calling_ae_title"
    STATE = "state"
    TIME = "created_at"


@dataclass(frozen=True, slots=True)
class PerformedShape:
    """What a search of performed steps has; one statement each. `filters` are columns bound by their names."""

    walk: Walk
    filters: frozenset[str] = frozenset()
    uid: bool = False


@lru_cache(maxsize=256)  # people search in a few ways; a program's odd ones only cost compilations
def find_performed(shape: PerformedShape) -> Prepared:
    """The newest `limit` that fit, newest first, of those before (`before_at`, `before_uid`), since `since`."""
    at, uid = performed_steps.c.created_at, performed_steps.c.sop_instance_uid
    terms: list[ColumnElement[bool]] = [
        at >= _given("since"),
        at <= _given("before_at"),
        or_(at < _given("before_at"), uid < _given("before_uid")),
    ]
    if shape.walk is not Walk.TIME:
        terms.append(performed_steps.c[shape.walk] == _given(shape.walk))
    if shape.walk is Walk.ATTENTION:
        terms.append(performed_steps.c.attention != _nothing)  # what the index is limited to
    for name in sorted(shape.filters):
        column = performed_steps.c[name]
        # What is filtered here must not tempt a planner away from the index: it is looked at in the row alone.
        plain = column + (literal_column("0") if column is performed_steps.c.patient_id else _nothing)
        terms.append(plain == _given(name))
    if shape.uid:
        terms += [uid + _nothing >= _given("uid_from"), uid + _nothing < _given("uid_to")]
    return Prepared(
        select(*PERFORMED, *TIMES).where(*terms).order_by(at.desc(), uid.desc()).limit(_given("limit"))
    )  # fmt: skip


# Nothing leads from the end of a UID to the row: every UID is looked at, for a person who typed the end of one.
UIDS_ENDING = Prepared(
    select(performed_steps.c.sop_instance_uid)
    .where(performed_steps.c.sop_instance_uid.like(_given("pattern")))
    .limit(_given("limit"))
)
ATTENTION_COUNTS = Prepared(
    select(performed_steps.c.attention, func.count())
    .where(performed_steps.c.attention != _nothing)
    .group_by(performed_steps.c.attention)
)
UNFINISHED = Prepared(
    select(func.count()).where(
        performed_steps.c.state == literal_column("'IN PROGRESS'"), performed_steps.c.created_at < _given("before_at")
    )
)

CREATED_AT = Prepared(
    select(performed_steps.c.created_at).where(performed_steps.c.sop_instance_uid == _given("uid"))
)  # fmt: skip

# -- scheduled steps that nobody performs ----------------------------------------------------------------------------

_linked = exists().where(performed_step_links.c.step_id == steps.c.id)
OVERDUE = Prepared(
    select(
        steps.c.id,
        steps.c.order_id,
        steps.c.patient_id,
        func.coalesce(requested_procedures.c.study_instance_uid, _nothing),
        func.coalesce(steps.c.sps_id, _nothing),
        steps.c.status,
        steps.c.start_local,
        steps.c.modality,
    )
    .join_from(steps, requested_procedures, requested_procedures.c.id == steps.c.procedure_id)
    .where(
        steps.c.listed == _listed,
        steps.c.start_local >= _given("from_start"),
        steps.c.start_local < _given("before"),
        or_(steps.c.start_local > _given("from_start"), steps.c.id > _given("after")),
        ~_linked,
    )
    .order_by(steps.c.start_local, steps.c.id)
    .limit(_given("limit"))
)
OVERDUE_COUNT = Prepared(
    select(func.count()).select_from(
        select(steps.c.id)
        .where(
            steps.c.listed == _listed,
            steps.c.start_local >= literal_column("'0'"),  # whatever has a start
            steps.c.start_local < _given("before"),
            ~_linked,
        )
        .limit(_given("most"))
        .subquery()
    )
)
START_OF_STEP = Prepared(select(steps.c.start_local).where(steps.c.id == _given("id")))
STATIONS_OF_STEP = Prepared(
    select(step_stations.c.ae_title)
    .where(step_stations.c.step_id == _given("step_id"))
    .order_by(step_stations.c.ae_title)
)

# -- who reports -----------------------------------------------------------------------------------------------------

# Asked again and again it finds every station by one look each, where DISTINCT would walk the whole index.
NEXT_STATION = Prepared(select(func.min(step_stations.c.ae_title)).where(step_stations.c.ae_title > _given("last")))
_of_station = (
    step_stations.c.ae_title == _given("ae_title"),
    step_stations.c.listed == _given("listed"),
    step_stations.c.start_local >= _given("start_from"),
    step_stations.c.start_local < _given("start_to"),
)
SCHEDULED_AT_STATION = Prepared(select(func.count()).select_from(step_stations).where(*_of_station))
PERFORMED_AT_STATION = Prepared(
    select(func.count())
    .select_from(step_stations)
    .where(*_of_station, exists().where(performed_step_links.c.step_id == step_stations.c.step_id))
)
RECEIVED_FROM = Prepared(
    select(func.count())
    .select_from(performed_steps)
    .where(
        performed_steps.c.calling_ae_title == _given("ae_title"),
        performed_steps.c.created_at >= _given("since"),
        performed_steps.c.created_at < _given("until"),
    )
)
LAST_RECEIVED_FROM = Prepared(
    select(func.max(performed_steps.c.created_at)).where(performed_steps.c.calling_ae_title == _given("ae_title"))
)

# -- decisions -------------------------------------------------------------------------------------------------------

_DECISION = select(
    performed_log.c.at,
    performed_log.c.sop_instance_uid,
    performed_log.c.action,
    performed_log.c.actor,
    performed_log.c.details,
)
DECISIONS = Prepared(_DECISION.order_by(performed_log.c.id.desc()).limit(_given("limit")))
DECISIONS_OF = Prepared(
    _DECISION.where(performed_log.c.sop_instance_uid == _given("uid"))
    .order_by(performed_log.c.id.desc())
    .limit(_given("limit"))
)


class ReconciliationReader(PerformedReader):
    """The part of `StoreReader` about what people have to look at."""

    def performed_steps(self, search: PerformedSearch, limit: int, before: str = "") -> Sequence[StoredPerformed]:
        """The newest that fit, newest first; from behind the one with the SOP Instance UID `before`, if it is given."""
        before_at, before_uid = _LAST, _LAST
        if before:
            row = self._connection.row(CREATED_AT, uid=before)
            if row is None:
                return ()
            before_at, before_uid = row[0], before
        if search.until is not None:
            before_at, before_uid = min((before_at, before_uid), (utc_text(search.until), ""))
        found: list[StoredPerformed] = []
        for shape, values in _shapes(search):
            rows = self._connection.rows(
                find_performed(shape), **values, before_at=before_at, before_uid=before_uid, limit=limit
            )
            found += [self._stored(row) for row in rows]
        found.sort(key=lambda each: (each.created_at, each.performed.sop_instance_uid), reverse=True)
        return found[:limit]

    def performed_uids_ending(self, ending: str, limit: int) -> Sequence[str]:
        """At most so many SOP Instance UIDs of performed steps that end like this, which is digits and dots."""
        if not ending or ending.strip("0123456789."):
            return ()
        return [uid for (uid,) in self._connection.rows(UIDS_ENDING, pattern=f"%{ending}", limit=limit)]

    def attention_counts(self) -> Mapping[Attention, int]:
        """How many performed steps there are of each attention but none, where there are any."""
        return {Attention(attention): count for attention, count in self._connection.rows(ATTENTION_COUNTS)}

    def unfinished(self, before: datetime) -> int:
        """How many performed steps that came before this time are still in progress."""
        return int(self._connection.rows(UNFINISHED, before_at=utc_text(before))[0][0])

    def overdue_steps(self, before_start_local: str, limit: int, after: int = 0) -> Sequence[OverdueStep]:
        """Listed steps that should have begun before this local time (14 digits) and have no performed step.

        By start; from behind the step with number `after`, if it is given. Steps without a start are never overdue.
        """
        row = self._connection.row(START_OF_STEP, id=after) if after else None
        start = row[0] if row is not None else "0"  # whatever has a start is behind this
        rows = self._connection.rows(
            OVERDUE, before=before_start_local, from_start=start, after=after if row is not None else 0, limit=limit
        )
        return [
            OverdueStep(
                StepRef(step_id, order_id, patient_id, study_instance_uid, sps_id, SPSStatus(status)),
                start_local,
                modality,
                tuple(title for (title,) in self._connection.rows(STATIONS_OF_STEP, step_id=step_id)),
            )
            for step_id, order_id, patient_id, study_instance_uid, sps_id, status, start_local, modality in rows
        ]

    def overdue_count(self, before_start_local: str, most: int = OVERDUE_COUNTED_MAX) -> int:
        """How many `overdue_steps` there are; `most` where there are more."""
        return int(self._connection.rows(OVERDUE_COUNT, before=before_start_local, most=most)[0][0])

    def performance_reports(
        self, start_from: str, start_to: str, since: datetime, until: datetime
    ) -> Sequence[PerformanceReports]:
        """What each station had to do between two local times (14 digits, the second exclusive) and what it told.

        `since` and `until` are the same two times, between which performed steps are counted that came. Stations
        without work in that time are left out.
        """
        found = []
        title = ""
        while title := self._connection.rows(NEXT_STATION, last=title)[0][0] or "":
            period = {"ae_title": title, "start_from": start_from, "start_to": start_to}
            scheduled, performed = (
                sum(self._connection.rows(statement, **period, listed=listed)[0][0] for listed in (0, 1))
                for statement in (SCHEDULED_AT_STATION, PERFORMED_AT_STATION)
            )
            if not scheduled:
                continue
            received = self._connection.rows(
                RECEIVED_FROM, ae_title=title, since=utc_text(since), until=utc_text(until)
            )[0][0]
            last = self._connection.rows(LAST_RECEIVED_FROM, ae_title=title)[0][0]
            found.append(PerformanceReports(
                title, scheduled, performed, received, datetime.fromisoformat(last) if last else None
            ))  # fmt: skip
        return found

    def performed_decisions(self, sop_instance_uid: str = "", limit: int = 1000) -> Sequence[PerformedDecision]:
        """What was decided of this performed step, or of all of them, newest first."""
        rows = (
            self._connection.rows(DECISIONS_OF, uid=sop_instance_uid, limit=limit)
            if sop_instance_uid
            else self._connection.rows(DECISIONS, limit=limit)
        )
        return [
            PerformedDecision(datetime.fromisoformat(at), uid, action, actor, from_json(details))
            for at, uid, action, actor, details in rows
        ]


def _shapes(search: PerformedSearch) -> list[tuple[PerformedShape, dict[str, Any]]]:
    """The statements that find everything, and the values they bind; several only for several attentions."""
    values: dict[str, Any] = {
        "since": utc_text(search.since) if search.since is not None else "",
        "uid_from": search.uid, "uid_to": search.uid + _LAST,
    }  # fmt: skip
    asked: dict[Walk, object] = {}
    if search.patient is not None:
        asked[Walk.PATIENT] = search.patient
    if search.attentions:
        asked[Walk.ATTENTION] = None
    if search.caller:
        asked[Walk.CALLER] = bare(search.caller)
    if search.state is not None:
        asked[Walk.STATE] = search.state.value
    walk, *filters = asked or (Walk.TIME,)
    shape = PerformedShape(walk, frozenset(filters), bool(search.uid))
    values |= {each.value: value for each, value in asked.items()}
    if not search.attentions:
        return [(shape, values)]
    return [(shape, values | {"attention": str(each)}) for each in sorted(search.attentions)]
