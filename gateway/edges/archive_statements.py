"""The statements that search the archive and prune it, each a walk along one index; a test looks at every plan.

A search walks what is most telling of it, in the order of the messages' numbers, and filters the rest: a business key,
then a control ID, then the kinds of messages, else all of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    FromClause,
    Select,
    bindparam,
    delete,
    exists,
    func,
    insert,
    literal_column,
    select,
    union,
)

from gateway.edges.database import Prepared
from gateway.edges.schema import (
    mapping_versions,
    message_keys,
    message_reports,
    messages,
    orders,
    outbox,
    performed_requests,
    performed_steps,
    queues,
    requested_procedures,
    steps,
)
from gateway.edges.statements import LIST_LENGTHS, one_of
from gateway.workflow.ports import ORDER_LINK, PATIENT_LINK

_given = bindparam


class KeyBound(StrEnum):
    """Which keys of a message a value is looked for among. It is bound by this name."""

    KIND = "key_of_kind"
    """Of the kind bound as `kind`."""
    BUSINESS = "key"
    """Of any kind that people know: no links."""
    ORDER = "order"
    PATIENT = "patient"


@dataclass(frozen=True, slots=True)
class SearchShape:
    """What a search has; one statement each. `keys`, the most telling first, and `control_id` choose the index."""

    keys: tuple[KeyBound, ...] = ()
    control_id: bool = False
    listener: bool = False
    direction: bool = False
    message_type: bool = False
    dispositions: int = 0
    """How many dispositions are bound as `disposition_0`, ...; 0 for any."""


def _key_is(table: FromClause, bound: KeyBound) -> list[ColumnElement[bool]]:
    kind = table.c.kind
    of_kind: dict[KeyBound, list[ColumnElement[bool]]] = {
        KeyBound.KIND: [kind == _given("kind")],
        KeyBound.BUSINESS: [kind != ORDER_LINK, kind != PATIENT_LINK],
        KeyBound.ORDER: [kind == ORDER_LINK],
        KeyBound.PATIENT: [kind == PATIENT_LINK],
    }
    return [table.c.value == _given(bound.value), *of_kind[bound]]


def _found(shape: SearchShape) -> tuple[ColumnElement[int], Select[Any]]:
    """The column of the messages' numbers, and all numbers that fit, between `after` and `before`, both exclusive."""
    filters: list[ColumnElement[bool]] = []
    if shape.listener:
        filters.append(messages.c.listener == _given("listener"))
    if shape.direction:
        filters.append(messages.c.direction == _given("direction"))
    if shape.message_type:
        filters.append(messages.c.message_type == _given("message_type"))
    if shape.dispositions:
        filters.append(one_of(messages.c.disposition, "disposition", shape.dispositions))
    if shape.control_id:
        filters.append(messages.c.control_id == _given("control_id"))
    number: ColumnElement[int] = messages.c.id
    tables: FromClause = messages
    if shape.keys:
        first, *others = shape.keys
        key = message_keys.alias("key_0")
        number = key.c.message_id
        for rank, bound in enumerate(others, 1):
            other = message_keys.alias(f"key_{rank}")
            filters.append(exists().where(other.c.message_id == number, *_key_is(other, bound)))
        # What is filtered here must not tempt a planner away from the key: it is looked at in the row alone.
        tables = key.join(messages, messages.c.id == number) if filters else key
        filters += _key_is(key, first)
    found = select(number).select_from(tables).where(*filters, number > _given("after"), number < _given("before"))
    return number, found.distinct() if shape.keys else found  # one number may be a placer's and a filler's


@lru_cache(maxsize=512)  # people search in a few ways; a program's odd ones only cost compilations
def message_numbers(shape: SearchShape, newest: bool) -> Prepared:
    """The first `limit` numbers of messages, the newest or the oldest first."""
    number, found = _found(shape)
    return Prepared(found.order_by(number.desc() if newest else number).limit(_given("limit")))


# Messages that came before their order, by a number of it; asked for every new order. What is filtered in the row must
# not tempt a planner away from the key, and a disposition that is bound would be compared with that of the index
# `messages_held`: for that SQLite compiles a statement anew each time it runs.
EARLY_MESSAGES = Prepared(
    select(message_keys.c.message_id)
    .join_from(message_keys, messages, messages.c.id == message_keys.c.message_id)
    .where(
        *_key_is(message_keys, KeyBound.BUSINESS),
        messages.c.disposition + literal_column("''") == literal_column("'early'"),
    )
    .order_by(message_keys.c.message_id.desc())
    .limit(_given("limit"))
)


@lru_cache(maxsize=512)
def count_messages(shape: SearchShape) -> Prepared:
    """How many there are."""
    _, found = _found(shape)
    return Prepared(select(func.count()).select_from(found.subquery()))


KIND_COLUMNS = (messages.c.listener, messages.c.direction, messages.c.message_type, messages.c.disposition)
"""What messages have in common, in the order of their index."""


@lru_cache(maxsize=2 * len(KIND_COLUMNS))
def next_of_kind(place: int, first: bool) -> Prepared:
    """The first value of a column of KIND_COLUMNS, or the one after `last`, where those before it are as bound.

    Asked again and again it finds every value by one look each, where DISTINCT would walk the whole index.
    """
    *known, column = KIND_COLUMNS[: place + 1]
    terms = [each == _given(each.name) for each in known]
    return Prepared(select(func.min(column)).where(*terms, *(() if first else (column > _given("last"),))))


_SUMMARY = select(
    messages.c.id,
    messages.c.received_at,
    messages.c.listener,
    messages.c.peer,
    messages.c.sender,
    messages.c.control_id,
    messages.c.message_type,
    messages.c.disposition,
    messages.c.reasons,
    messages.c.mapping,
    messages.c.search_keys,
    messages.c.replay_of,
    messages.c.direction,
    messages.c.made_at,
)


@lru_cache(maxsize=len(LIST_LENGTHS))
def summaries(length: int) -> Prepared:
    """Messages without their bytes, by id_0, ..."""
    return Prepared(_SUMMARY.where(one_of(messages.c.id, "id", length)))


FIRST_FROM = Prepared(
    select(messages.c.id, messages.c.received_at).where(messages.c.id >= _given("id")).order_by(messages.c.id).limit(1)
)
# Each by a look of its own: together they would be found by reading all.
NUMBERS = Prepared(
    select(select(func.min(messages.c.id)).scalar_subquery(), select(func.max(messages.c.id)).scalar_subquery())
)

# -- mappings --------------------------------------------------------------------------------------------------------

MAPPING_VERSION = Prepared(select(mapping_versions.c.content).where(mapping_versions.c.version == _given("version")))
REPORT = Prepared(select(message_reports.c.report).where(message_reports.c.message_id == _given("id")))
REPORT_INSERT = Prepared(
    insert(message_reports).values({column.name: _given(column.name) for column in message_reports.columns})
)
MAPPING_VERSION_INSERT = Prepared(
    insert(mapping_versions).values({column.name: _given(column.name) for column in mapping_versions.columns})
)

# -- retention -------------------------------------------------------------------------------------------------------

COUNT_ALL = Prepared(select(func.count()).select_from(messages))
OLDEST = Prepared(
    select(messages.c.id, messages.c.disposition, messages.c.search_keys)
    .where(messages.c.id > _given("after"), messages.c.id < _given("before"))
    .order_by(messages.c.id)
    .limit(_given("limit"))
)
ORDER_IDS_NAMED = Prepared(
    union(
        select(orders.c.id).where(orders.c.placer == _given("value")),
        select(orders.c.id).where(orders.c.filler == _given("value")),
    )
)
LISTED_STEP_OF_ORDER = Prepared(
    select(steps.c.id)
    .where(
        steps.c.procedure_id.in_(
            select(requested_procedures.c.id).where(requested_procedures.c.order_id == _given("order_id"))
        ),
        steps.c.listed + literal_column("0") == literal_column("1"),  # nothing to choose an index by: most are listed
    )
    .limit(1)
)
MESSAGE_KEYS = Prepared(select(messages.c.search_keys).where(messages.c.id == _given("id")))
MESSAGE_KEY_DELETE = Prepared(
    delete(message_keys).where(
        message_keys.c.value == _given("value"),
        message_keys.c.message_id == _given("message_id"),
        message_keys.c.kind == _given("kind"),
    )
)
MESSAGE_DELETE = Prepared(delete(messages).where(messages.c.id == _given("id")))
REPORT_DELETE = Prepared(delete(message_reports).where(message_reports.c.message_id == _given("id")))

REQUEST_NUMBERS = Prepared(
    select(
        select(func.min(performed_requests.c.id)).scalar_subquery(),
        select(func.max(performed_requests.c.id)).scalar_subquery(),
    )
)
REQUEST_FROM = Prepared(
    select(performed_requests.c.id, performed_requests.c.at)
    .where(performed_requests.c.id >= _given("id"))
    .order_by(performed_requests.c.id)
    .limit(1)
)
# Refused requests may be of no performed step.
OLDEST_REQUESTS = Prepared(
    select(
        performed_requests.c.id,
        performed_requests.c.sop_instance_uid,
        performed_steps.c.state,
        performed_steps.c.attention,
    )
    .join_from(
        performed_requests,
        performed_steps,
        performed_steps.c.sop_instance_uid == performed_requests.c.sop_instance_uid,
        isouter=True,
    )
    .where(performed_requests.c.id > _given("after"), performed_requests.c.id < _given("before"))
    .order_by(performed_requests.c.id)
    .limit(_given("limit"))
)
# By destination and state, which are all there are: so it is a look into the index of lanes for each.
WAITING_IN_LANE = Prepared(
    select(queues.c.destination)
    .where(
        select(outbox.c.id)
        .where(
            outbox.c.destination == queues.c.destination,
            outbox.c.state.in_([literal_column("'waiting'"), literal_column("'parked'")]),
            outbox.c.lane == _given("lane"),
        )
        .exists()
    )
    .limit(1)
)
REQUEST_DELETE = Prepared(delete(performed_requests).where(performed_requests.c.id == _given("id")))


def dispositions_bound(dispositions: Sequence[str]) -> dict[str, str]:
    """The values that `SearchShape.dispositions` of them are bound by."""
    return {f"disposition_{index}": disposition for index, disposition in enumerate(dispositions)}
