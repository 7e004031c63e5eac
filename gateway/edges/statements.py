"""Every statement the store runs, by name. Built once; a test looks at the plan of each that a peer waits for.

Statements whose shape depends on what is asked are built by functions, one per shape, and kept: the number of
shapes is bounded, because lists are padded to a few lengths.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any, TypeVar

from sqlalchemy import (
    Column,
    ColumnElement,
    FromClause,
    Select,
    Table,
    and_,
    bindparam,
    delete,
    func,
    insert,
    literal_column,
    or_,
    select,
    union,
    union_all,
    update,
)

from gateway.domain.worklist import TRANSITIONS, SPSStatus, StepEvent
from gateway.edges.database import Prepared
from gateway.edges.schema import (
    identity_log,
    message_keys,
    messages,
    meta,
    orders,
    patient_identifiers,
    patient_names,
    patients,
    performed_step_links,
    performed_steps,
    queries,
    requested_procedures,
    step_history,
    step_stations,
    steps,
    visits,
)

T = TypeVar("T")

_given = bindparam


def _insert(table: Table, *, numbered: bool = False) -> Prepared:
    """A row of this table from values by name. `numbered`: the database gives its number (`Connection.insert`)."""
    named = [column.name for column in table.columns if not (numbered and column.primary_key)]
    return Prepared(insert(table).values({name: _given(name) for name in named}))


def _set(table: Table, *names: str, **expressions: Any) -> Any:
    """An update of these columns from values of the same name; keys are bound as `key_...` by the caller."""
    return update(table).values({name: _given(name) for name in names} | expressions)


# -- meta ------------------------------------------------------------------------------------------------------------

META = Prepared(select(meta.c.value).where(meta.c.name == _given("name")))

# -- patients --------------------------------------------------------------------------------------------------------

PATIENT = Prepared(
    select(patients.c.id, patients.c.merged_into, patients.c.attributes, patients.c.stamps).where(
        patients.c.id == _given("id")
    )
)
PATIENT_BY_IDENTIFIER = Prepared(
    select(patients.c.id, patients.c.merged_into, patients.c.attributes, patients.c.stamps)
    .join_from(patient_identifiers, patients, patients.c.id == patient_identifiers.c.patient_id)
    .where(patient_identifiers.c.value == _given("value"), patient_identifiers.c.issuer == _given("issuer"))
)
PATIENT_INSERT = _insert(patients, numbered=True)
PATIENT_UPDATE = Prepared(
    _set(patients, "patient_id", "attributes", "stamps", "updated_at").where(patients.c.id == _given("key_id"))
)
PATIENT_SET_STAMPS = Prepared(_set(patients, "stamps").where(patients.c.id == _given("key_id")))
PATIENT_MERGE = Prepared(_set(patients, "merged_into", "updated_at").where(patients.c.id == _given("key_id")))
# Chains are kept one long: who was merged into the prior one is now merged into the surviving one.
PATIENTS_MERGE_FURTHER = Prepared(
    _set(patients, "merged_into").where(patients.c.merged_into == _given("key_merged_into"))
)
IDENTIFIERS_OF_PATIENT = Prepared(
    select(
        patient_identifiers.c.value,
        patient_identifiers.c.issuer,
        patient_identifiers.c.retired,
        patient_identifiers.c.merged_from,
    )
    .where(patient_identifiers.c.patient_id == _given("patient_id"))
    .order_by(patient_identifiers.c.position)
)
IDENTIFIER_INSERT = _insert(patient_identifiers)
IDENTIFIERS_DELETE = Prepared(
    delete(patient_identifiers).where(patient_identifiers.c.patient_id == _given("patient_id"))
)
PATIENT_RETIRED_FROM = Prepared(
    select(patients.c.id, patients.c.merged_into, patients.c.attributes, patients.c.stamps)
    .join_from(patient_identifiers, patients, patients.c.id == patient_identifiers.c.merged_from)
    .where(patient_identifiers.c.value == _given("value"), patient_identifiers.c.issuer == _given("issuer"))
)
PATIENT_IDS_OF_VALUE = Prepared(
    select(patient_identifiers.c.patient_id)
    .where(patient_identifiers.c.value == _given("value"))
    .order_by(patient_identifiers.c.issuer)
)
PATIENT_IDS_OF_NAME = Prepared(
    select(patient_names.c.patient_id)
    .where(patient_names.c.folded >= _given("name_from"), patient_names.c.folded <= _given("name_to"))
    .order_by(patient_names.c.folded)
    .limit(_given("limit"))
)
PATIENTS_MERGED_INTO = Prepared(
    select(patients.c.id, patients.c.merged_into, patients.c.attributes, patients.c.stamps)
    .where(patients.c.merged_into == _given("patient_id"))
    .order_by(patients.c.id)
)
NAMES_OF_PATIENT = Prepared(select(patient_names.c.folded).where(patient_names.c.patient_id == _given("patient_id")))
NAME_INSERT = _insert(patient_names)
NAMES_DELETE = Prepared(delete(patient_names).where(patient_names.c.patient_id == _given("patient_id")))

# -- visits ----------------------------------------------------------------------------------------------------------

VISIT = Prepared(
    select(visits.c.id, visits.c.attributes, visits.c.stamps)
    .where(
        visits.c.patient_id == _given("patient_id"),
        visits.c.number == _given("number"),
        visits.c.issuer == _given("issuer"),
    )
    .order_by(visits.c.id.desc())  # after a merge there may be two: the one begun last
)
VISIT_BY_ID = Prepared(
    select(visits.c.patient_id, visits.c.number, visits.c.issuer, visits.c.attributes, visits.c.stamps).where(
        visits.c.id == _given("id")
    )
)
VISIT_INSERT = _insert(visits, numbered=True)
VISIT_UPDATE = Prepared(
    _set(visits, "patient_id", "number", "issuer", "attributes", "stamps", "updated_at").where(
        visits.c.id == _given("key_id")
    )
)

VISIT_SET_STAMPS = Prepared(_set(visits, "stamps").where(visits.c.id == _given("key_id")))

# -- orders ----------------------------------------------------------------------------------------------------------

_ORDER = select(
    orders.c.id,
    orders.c.patient_id,
    orders.c.visit_id,
    orders.c.placer,
    orders.c.placer_issuer,
    orders.c.filler,
    orders.c.filler_issuer,
    orders.c.attributes,
    orders.c.site,
    orders.c.by_hand,
    orders.c.stamps,
)
ORDER = Prepared(_ORDER.where(orders.c.id == _given("id")))
ORDER_BY_PLACER = Prepared(_ORDER.where(orders.c.placer == _given("value"), orders.c.placer_issuer == _given("issuer")))
ORDER_BY_FILLER = Prepared(_ORDER.where(orders.c.filler == _given("value"), orders.c.filler_issuer == _given("issuer")))


def _same_number(value: Column[Any], issuer: Column[Any]) -> Select[Any]:
    """Orders with this number of another issuer."""
    return select(literal_column(f"'{value.name}'"), issuer, orders.c.patient_id).where(
        value == _given(value.name), issuer != _given(issuer.name)
    )


ORDERS_OF_OTHER_ISSUERS = Prepared(
    union_all(
        _same_number(orders.c.placer, orders.c.placer_issuer), _same_number(orders.c.filler, orders.c.filler_issuer)
    )
)
ORDERS_BY_HAND = Prepared(
    _ORDER.where(orders.c.patient_id == _given("patient_id"), orders.c.by_hand == literal_column("1"))
)
ORDER_IDS_OF_PATIENT = Prepared(
    select(steps.c.order_id)
    .where(steps.c.patient_id == _given("patient_id"), steps.c.status == _given("status"))
    .order_by(steps.c.order_id)
)
ORDER_ID_OF_STUDY = Prepared(
    select(requested_procedures.c.order_id).where(requested_procedures.c.study_instance_uid == _given("uid"))
)
_ORDER_IDS_BY_ACCESSION = (
    select(requested_procedures.c.order_id)
    .where(requested_procedures.c.accession == _given("value"))
    .order_by(requested_procedures.c.id)
)
ORDER_IDS_BY_ACCESSION_OF_ANY = Prepared(_ORDER_IDS_BY_ACCESSION)
ORDER_IDS_BY_ACCESSION = Prepared(
    _ORDER_IDS_BY_ACCESSION.where(requested_procedures.c.accession_issuer == _given("issuer"))
)
KEYS_HELD = Prepared(
    union_all(
        *(
            select(column).where(column == _given(column.name))
            for column in (
                requested_procedures.c.study_instance_uid,
                requested_procedures.c.accession,
                requested_procedures.c.requested_procedure_id,
                steps.c.sps_id,
            )
        )
    )
)
"""Those of these keys, one of each kind or NULL, that are held."""


def _of_order(orders_: ColumnElement[Any] | Select[Any]) -> ColumnElement[bool]:
    """Steps of this order, or of these, by way of their procedures, which the steps' unique key begins with."""
    procedures = select(requested_procedures.c.id)
    within = (
        requested_procedures.c.order_id.in_(orders_)
        if isinstance(orders_, Select)
        else requested_procedures.c.order_id == orders_
    )
    return steps.c.procedure_id.in_(procedures.where(within))


PROCEDURES_OF_ORDER = Prepared(
    select(
        requested_procedures.c.id,
        requested_procedures.c.study_instance_uid,
        requested_procedures.c.requested_procedure_id,
        requested_procedures.c.accession,
        requested_procedures.c.accession_issuer,
        requested_procedures.c.attributes,
        requested_procedures.c.minted,
        requested_procedures.c.stamps,
    )
    .where(requested_procedures.c.order_id == _given("order_id"))
    .order_by(requested_procedures.c.id)
)
STEPS_OF_ORDER = Prepared(
    select(
        steps.c.id,
        steps.c.procedure_id,
        steps.c.sps_id,
        steps.c.status,
        steps.c.attributes,
        steps.c.minted,
        steps.c.start_local,
        steps.c.zone,
        steps.c.stamps,
    )
    .where(_of_order(_given("order_id")))
    .order_by(steps.c.id)
)
ORDER_INSERT = _insert(orders, numbered=True)
ORDER_UPDATE = Prepared(
    _set(
        orders, "patient_id", "visit_id", "placer", "placer_issuer", "filler", "filler_issuer", "attributes", "site",
        "by_hand", "stamps", "updated_at",
    ).where(orders.c.id == _given("key_id"))
)  # fmt: skip
ORDER_SET_STAMPS = Prepared(_set(orders, "stamps").where(orders.c.id == _given("key_id")))
PROCEDURE_INSERT = _insert(requested_procedures, numbered=True)
PROCEDURE_UPDATE = Prepared(
    _set(
        requested_procedures, "study_instance_uid", "requested_procedure_id", "accession", "accession_issuer",
        "attributes", "minted", "stamps",
    ).where(requested_procedures.c.id == _given("key_id"))
)  # fmt: skip
PROCEDURE_SET_STAMPS = Prepared(
    _set(requested_procedures, "stamps").where(requested_procedures.c.id == _given("key_id"))
)

# -- steps -----------------------------------------------------------------------------------------------------------

_NEXT_REVISION = {"revision": steps.c.revision + literal_column("1")}

STEP_INSERT = _insert(steps, numbered=True)
STEP_UPDATE = Prepared(
    _set(
        steps, "sps_id", "status", "listed", "start_local", "start_offset", "zone", "modality", "attributes", "minted",
        "stamps", **_NEXT_REVISION,
    )
    .where(steps.c.id == _given("key_id"))
    .returning(steps.c.revision)
)  # fmt: skip
STEP_SET_STAMPS = Prepared(_set(steps, "stamps").where(steps.c.id == _given("key_id")))
STEP_STATUS = Prepared(select(steps.c.status, steps.c.start_local).where(steps.c.id == _given("id")))
STEP_SET_STATUS = Prepared(
    _set(steps, "status", "listed", **_NEXT_REVISION).where(steps.c.id == _given("key_id")).returning(steps.c.revision)
)
STEPS_REVISE_OF_ORDER = Prepared(
    _set(steps, "patient_id", "site", **_NEXT_REVISION).where(_of_order(_given("key_order_id")))
)
STEPS_REVISE_OF_PROCEDURE = Prepared(
    _set(steps, **_NEXT_REVISION).where(steps.c.procedure_id == _given("key_procedure_id"))
)
STEPS_REVISE_OF_PATIENT = Prepared(_set(steps, **_NEXT_REVISION).where(steps.c.patient_id == _given("key_patient_id")))
STEPS_REVISE_OF_VISIT = Prepared(
    _set(steps, **_NEXT_REVISION).where(
        _of_order(select(orders.c.id).where(orders.c.visit_id == _given("key_visit_id")))
    )
)
STEPS_HAND_OVER = Prepared(_set(steps, "patient_id", **_NEXT_REVISION).where(_of_order(_given("key_order_id"))))
STATION_INSERT = _insert(step_stations)
STATIONS_DELETE = Prepared(delete(step_stations).where(step_stations.c.step_id == _given("step_id")))
STATIONS_SET_LISTED = Prepared(_set(step_stations, "listed").where(step_stations.c.step_id == _given("key_step_id")))
HISTORY_INSERT = _insert(step_history)
HISTORY_OF_STEP = Prepared(
    select(step_history.c.at, step_history.c.status, step_history.c.start_local, step_history.c.cause)
    .where(step_history.c.step_id == _given("step_id"))
    .order_by(step_history.c.revision)
)

_STEP_REF = (
    steps.c.id,
    steps.c.order_id,
    steps.c.patient_id,
    func.coalesce(requested_procedures.c.study_instance_uid, literal_column("''")),
    func.coalesce(steps.c.sps_id, literal_column("''")),
    steps.c.status,
)
_steps_with_procedure = steps.join(requested_procedures, requested_procedures.c.id == steps.c.procedure_id)


STEP_REF = Prepared(select(*_STEP_REF).select_from(_steps_with_procedure).where(steps.c.id == _given("step_id")))


@lru_cache(maxsize=16)  # four keys, each there or not
def find_steps(study: bool, sps: bool, accession: bool, rp_id: bool) -> Prepared:
    """Steps by the keys an MPPS may carry; those given bind study_instance_uid, sps_id, accession, rp_id."""
    keys: Sequence[tuple[bool, ColumnElement[bool]]] = (
        (study, requested_procedures.c.study_instance_uid == _given("study_instance_uid")),
        (sps, steps.c.sps_id == _given("sps_id")),
        (accession, requested_procedures.c.accession == _given("accession")),
        (rp_id, requested_procedures.c.requested_procedure_id == _given("rp_id")),
    )
    return Prepared(
        select(*_STEP_REF)
        .select_from(_steps_with_procedure)
        .where(*(key for there, key in keys if there))
        .order_by(steps.c.id)
    )


_EXPIRABLE: list[ColumnElement[str]] = [
    literal_column(f"'{status}'") for status in SPSStatus if TRANSITIONS[status, StepEvent.EXPIRE] not in (status, None)
]
EXPIRING = Prepared(
    select(*_STEP_REF)
    .select_from(_steps_with_procedure)
    .where(
        steps.c.listed == literal_column("1"),
        steps.c.start_local > literal_column("''"),  # without a start there is no day that could have passed
        steps.c.start_local < _given("before"),
        steps.c.status.in_(_EXPIRABLE),
    )
    .order_by(steps.c.start_local, steps.c.id)
    .limit(_given("limit"))
)
STEP_IDS_BY_SPS_ID = Prepared(select(steps.c.id).where(steps.c.sps_id == _given("value")).order_by(steps.c.id))
STEP_IDS_BY_PATIENT_ID = Prepared(
    select(steps.c.id)
    .where(
        steps.c.patient_id.in_(
            union(
                select(patient_identifiers.c.patient_id).where(patient_identifiers.c.value == _given("value")),
                select(patients.c.id).where(patients.c.patient_id == _given("value")),
            )
        )
    )
    .order_by(steps.c.id)
)
STEP_IDS_BY_ORDER_NUMBER = Prepared(
    select(steps.c.id)
    .where(
        _of_order(
            select(
                union(
                    select(orders.c.id).where(orders.c.placer == _given("value")),
                    select(orders.c.id).where(orders.c.filler == _given("value")),
                )
                .subquery()
                .c.id
            )
        )
    )
    .order_by(steps.c.id)
)
STEP_IDS_BY_ACCESSION = Prepared(
    select(steps.c.id)
    .select_from(_steps_with_procedure)
    .where(requested_procedures.c.accession == _given("value"))
    .order_by(steps.c.id)
)

# -- worklist answers ------------------------------------------------------------------------------------------------

LIST_LENGTHS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
"""Lengths a list of values is padded to, so that ten statements serve all. The longest is far below SQLite's limit
of 32,766 parameters and holds every station of a large hospital."""


def padded(values: Sequence[T]) -> list[T]:
    """The values, the last one repeated up to the next of LIST_LENGTHS; a list is no longer than the longest."""
    length = next(length for length in LIST_LENGTHS if length >= len(values))
    return [*values, *[values[-1]] * (length - len(values))]


def one_of(column: ColumnElement[T], name: str, length: int) -> ColumnElement[bool]:
    """Whether the column is one of `name_0`, `name_1`, ...; a single one is an equation, which keeps index order."""
    if length == 1:
        return column == _given(f"{name}_0")
    return column.in_([_given(f"{name}_{index}") for index in range(length)])


@lru_cache(maxsize=len(LIST_LENGTHS))
def items(length: int) -> Prepared:
    """(step id, revision, status, site, attribute sets of patient, visit, order, procedure, step) by id_0, ..."""
    return Prepared(
        select(
            steps.c.id,
            steps.c.revision,
            steps.c.status,
            steps.c.site,
            patients.c.attributes,
            visits.c.attributes,
            orders.c.attributes,
            requested_procedures.c.attributes,
            steps.c.attributes,
        )
        .select_from(
            _steps_with_procedure.join(orders, orders.c.id == steps.c.order_id)
            .join(patients, patients.c.id == steps.c.patient_id)
            .outerjoin(visits, visits.c.id == orders.c.visit_id)
        )
        .where(one_of(steps.c.id, "id", length))
    )


class Bound(StrEnum):
    """What can narrow a query, the most telling first: the first that is there chooses the index, the rest filter.

    A patient's ID says more than a station, a station more than step and procedure IDs, which some sites count
    from 1 in every order; a name of one or two letters says less than a day.
    """

    STUDY = "study_instance_uid"
    ACCESSION = "accession_number"
    PATIENT = "patient_id"
    STATION = "station"
    SPS = "sps_id"
    PROCEDURE = "requested_procedure_id"
    NAME = "name"
    START = "start"
    SHORT_NAME = "short name"


@dataclass(frozen=True, slots=True)
class Shape:
    """Which bounds a query has and how long its lists are; one statement each.

    `listed` is 1 or 0 where only listed or only other statuses are wanted, None for both; `statuses` says whether
    the status itself is tested, which is needless when exactly the listed ones are wanted.
    """

    bounds: frozenset[Bound]
    stations: int = 0
    studies: int = 0
    sites: int = 0
    modality: bool = False
    listed: int | None = 1
    statuses: bool = False


def _unindexed(column: ColumnElement[str]) -> ColumnElement[str]:
    """The same text in a form that no index serves.

    Without statistics a planner takes `listed = 1` for as telling as an accession number; with this, the index is
    our choice on any database.
    """
    return column.concat(literal_column("''"))


@lru_cache(maxsize=1024)  # queries of real devices come in a dozen shapes; a hostile one only costs compilations
def candidates(shape: Shape) -> Prepared:
    """(step id, revision) by start; the bounds bind start_from, start_to, name_from, name_to, and by their names."""
    driver = next(bound for bound in Bound if bound in shape.bounds)
    tables: FromClause = steps
    terms: list[ColumnElement[bool]] = []

    def column_for(bound: Bound, column: ColumnElement[str]) -> ColumnElement[str]:
        return column if bound is driver else _unindexed(column)

    if shape.bounds & {Bound.STUDY, Bound.ACCESSION, Bound.PROCEDURE}:
        tables = tables.join(requested_procedures, requested_procedures.c.id == steps.c.procedure_id)
    if Bound.STUDY in shape.bounds:
        uid = column_for(Bound.STUDY, requested_procedures.c.study_instance_uid)
        terms.append(one_of(uid, "study", shape.studies))
    if Bound.ACCESSION in shape.bounds:
        terms.append(column_for(Bound.ACCESSION, requested_procedures.c.accession) == _given("accession_number"))
    if Bound.PROCEDURE in shape.bounds:
        rp_id = column_for(Bound.PROCEDURE, requested_procedures.c.requested_procedure_id)
        terms.append(rp_id == _given("requested_procedure_id"))
    if Bound.SPS in shape.bounds:
        terms.append(column_for(Bound.SPS, steps.c.sps_id) == _given("sps_id"))
    if Bound.PATIENT in shape.bounds:
        tables = tables.join(patients, patients.c.id == steps.c.patient_id)
        terms.append(column_for(Bound.PATIENT, patients.c.patient_id) == _given("patient_id"))
    name = next((bound for bound in (Bound.NAME, Bound.SHORT_NAME) if bound in shape.bounds), None)
    if name is not None:
        tables = tables.join(patient_names, patient_names.c.patient_id == steps.c.patient_id)
        folded = column_for(name, patient_names.c.folded)
        terms += [folded >= _given("name_from"), folded < _given("name_to")]
    if Bound.STATION in shape.bounds:
        tables = tables.join(step_stations, step_stations.c.step_id == steps.c.id)
        terms.append(one_of(column_for(Bound.STATION, step_stations.c.ae_title), "station", shape.stations))

    timed: Table = step_stations if driver is Bound.STATION else steps  # whose copy of listed and start is used
    indexed = driver in (Bound.STATION, Bound.START)
    start = timed.c.start_local if indexed else _unindexed(timed.c.start_local)
    terms += [start >= _given("start_from"), start <= _given("start_to")]
    listed = timed.c.listed if indexed else timed.c.listed + literal_column("0")
    terms.append(
        listed == literal_column(str(shape.listed))
        if shape.listed is not None
        else listed.in_([literal_column("0"), literal_column("1")])
    )
    if shape.modality:
        terms.append(_unindexed(steps.c.modality) == _given("modality"))
    if shape.sites:
        terms.append(one_of(_unindexed(steps.c.site), "site", shape.sites))
    if shape.statuses:
        terms.append(one_of(steps.c.status, "status", len(SPSStatus)))
    step_id = step_stations.c.step_id if driver is Bound.STATION else steps.c.id
    return Prepared(
        select(steps.c.id, steps.c.revision)
        .select_from(tables)
        .where(and_(*terms))
        .order_by(timed.c.start_local, step_id)
    )


# -- the archive -----------------------------------------------------------------------------------------------------

_MESSAGE = select(
    messages.c.id,
    messages.c.received_at,
    messages.c.listener,
    messages.c.peer,
    messages.c.sender,
    messages.c.control_id,
    messages.c.message_type,
    messages.c.digest,
    messages.c.raw,
    messages.c.disposition,
    messages.c.reasons,
    messages.c.answer,
    messages.c.mapping,
    messages.c.search_keys,
    messages.c.replay_of,
    messages.c.direction,
    messages.c.made_at,
)
MESSAGE = Prepared(_MESSAGE.where(messages.c.id == _given("id")))
EARLIER_MESSAGES = Prepared(
    _MESSAGE.where(
        messages.c.listener == _given("listener"),
        messages.c.sender == _given("sender"),
        messages.c.control_id == _given("control_id"),
    )
    .order_by(messages.c.id.desc())
    .limit(_given("limit"))
)
MESSAGE_INSERT = _insert(messages, numbered=True)
MESSAGE_KEY_INSERT = _insert(message_keys)
MESSAGE_SET_DISPOSITION = Prepared(_set(messages, "disposition", "reasons").where(messages.c.id == _given("key_id")))
HELD_MESSAGES = Prepared(
    _MESSAGE.where(messages.c.disposition == literal_column("'held'"), messages.c.id > _given("after"))
    .order_by(messages.c.id)
    .limit(_given("limit"))
)

# -- queries ---------------------------------------------------------------------------------------------------------

_QUERY = select(
    queries.c.id,
    queries.c.at,
    queries.c.calling_ae_title,
    queries.c.called_ae_title,
    queries.c.remote_host,
    queries.c.transfer_syntax,
    queries.c.identifier,
    queries.c.status,
    queries.c.matches,
    queries.c.milliseconds,
    queries.c.negotiation,
    queries.c.notes,
)
QUERY = Prepared(_QUERY.where(queries.c.id == _given("id")))
QUERIES = Prepared(_QUERY.order_by(queries.c.id.desc()).limit(_given("limit")))
QUERIES_OF_CALLER = Prepared(
    _QUERY.where(queries.c.calling_ae_title == _given("calling_ae_title"))
    .order_by(queries.c.id.desc())
    .limit(_given("limit"))
)
QUERY_INSERT = Prepared(
    insert(queries).values({column.name: _given(column.name) for column in queries.columns if column.name != "id"})
)
# The newest `kept` of a caller stay. The offset walks that many entries of the index and no row.
QUERIES_PRUNE = Prepared(
    delete(queries).where(
        queries.c.calling_ae_title == _given("calling_ae_title"),
        queries.c.id
        <= select(queries.c.id)
        .where(queries.c.calling_ae_title == _given("calling_ae_title"))
        .order_by(queries.c.id.desc())
        .limit(literal_column("1"))
        .offset(_given("kept"))
        .scalar_subquery(),
    )
)
QUERIES_DELETE_OF_CALLER = Prepared(delete(queries).where(queries.c.calling_ae_title == _given("calling_ae_title")))
NEWEST_QUERY_OF_CALLER = Prepared(
    select(func.max(queries.c.id)).where(queries.c.calling_ae_title == _given("calling_ae_title"))
)
# Every caller, by one look into the index each; GROUP BY would walk all of it.
_callers = select(func.min(queries.c.calling_ae_title).label("calling_ae_title")).cte("callers", recursive=True)
_callers = _callers.union_all(
    select(
        select(func.min(queries.c.calling_ae_title))
        .where(queries.c.calling_ae_title > _callers.c.calling_ae_title)
        .scalar_subquery()
    ).where(_callers.c.calling_ae_title.is_not(None))
)
QUERY_CALLERS = Prepared(select(_callers.c.calling_ae_title).where(_callers.c.calling_ae_title.is_not(None)))
# Numbers rise with time, so the oldest `limit` rows are looked at and no index of times is kept.
_oldest = select(queries.c.id, queries.c.at).order_by(queries.c.id).limit(_given("limit")).subquery()
QUERIES_DELETE_BEFORE = Prepared(
    delete(queries).where(queries.c.id.in_(select(_oldest.c.id).where(_oldest.c.at < _given("before"))))
)

# -- identities ------------------------------------------------------------------------------------------------------

ORDERS_OF_PATIENT = Prepared(
    select(orders.c.id).where(orders.c.patient_id == _given("patient_id")).order_by(orders.c.id)
)
ORDERS_OF_VISIT = Prepared(select(orders.c.id).where(orders.c.visit_id == _given("visit_id")).order_by(orders.c.id))
VISITS_OF_PATIENT = Prepared(
    select(visits.c.id).where(visits.c.patient_id == _given("patient_id")).order_by(visits.c.id)
)
PERFORMED_OF_PATIENT = Prepared(
    select(performed_steps.c.sop_instance_uid)
    .where(performed_steps.c.patient_id == _given("patient_id"))
    .order_by(performed_steps.c.sop_instance_uid)
)
PERFORMED_OF_ORDER = Prepared(
    select(performed_step_links.c.sop_instance_uid)
    .where(performed_step_links.c.step_id.in_(select(steps.c.id).where(_of_order(_given("order_id")))))
    .order_by(performed_step_links.c.sop_instance_uid)
)


def _hand_over(table: Table, key: str, bound: str) -> Prepared:
    """This row belongs to another patient, if it is that patient's now."""
    return Prepared(
        _set(table, "patient_id").where(
            table.c[key] == _given(bound), table.c.patient_id == _given("key_patient_id")
        )
    )  # fmt: skip


ORDER_HAND_OVER = _hand_over(orders, "id", "key_id")
VISIT_HAND_OVER = _hand_over(visits, "id", "key_id")
PERFORMED_STEP_HAND_OVER = _hand_over(performed_steps, "sop_instance_uid", "key_uid")

_IDENTITY_CHANGE = select(
    identity_log.c.id,
    identity_log.c.at,
    identity_log.c.kind,
    identity_log.c.cause,
    identity_log.c.patient_id,
    identity_log.c.other_id,
    identity_log.c.details,
    identity_log.c.undone_at,
)
IDENTITY_CHANGE = Prepared(_IDENTITY_CHANGE.where(identity_log.c.id == _given("id")))
IDENTITY_CHANGES = Prepared(
    _IDENTITY_CHANGE.where(identity_log.c.at >= _given("since"))
    .order_by(identity_log.c.id.desc())
    .limit(_given("limit"))
)
IDENTITY_CHANGES_OF_PATIENT = Prepared(
    _IDENTITY_CHANGE.where(
        or_(identity_log.c.patient_id == _given("patient_id"), identity_log.c.other_id == _given("patient_id")),
        identity_log.c.at >= _given("since"),
    )
    .order_by(identity_log.c.id.desc())
    .limit(_given("limit"))
)
LINKED_PATIENTS = Prepared(
    select(identity_log.c.patient_id, identity_log.c.other_id).where(
        or_(identity_log.c.patient_id == _given("patient_id"), identity_log.c.other_id == _given("patient_id")),
        identity_log.c.kind == literal_column("'link'"),
        identity_log.c.undone_at == literal_column("''"),
    )
)
IDENTITY_CHANGE_INSERT = _insert(identity_log, numbered=True)
IDENTITY_CHANGE_UNDO = Prepared(_set(identity_log, "undone_at").where(identity_log.c.id == _given("key_id")))

# -- counts ----------------------------------------------------------------------------------------------------------


def _count(table: Table, term: ColumnElement[bool]) -> Any:
    return select(func.count()).select_from(table).where(term).scalar_subquery()


COUNTS = Prepared(
    select(
        _count(steps, steps.c.listed == literal_column("1")),
        _count(messages, messages.c.disposition == literal_column("'held'")),
        _count(performed_steps, performed_steps.c.state == literal_column("'IN PROGRESS'")),
        _count(performed_steps, performed_steps.c.attention == literal_column("'another patient'")),
    )
)
