"""FHIR resources in the store: their current versions, their index, what they say of orders, how far feeds have read.

A search is one statement of a shape (`_Shape`): which criteria with which comparisons, whatever the values. Criteria
become looks into the index, each a range of its key; the sort is that of `domain.resource_search.Sorting`.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from operator import itemgetter
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    FromClause,
    Select,
    String,
    and_,
    bindparam,
    delete,
    func,
    insert,
    literal,
    literal_column,
    not_,
    or_,
    select,
    true,
    tuple_,
    union_all,
    update,
)

from gateway.domain.resource_search import (
    ID,
    LAST_UPDATED,
    OLDEST_FIRST,
    Criterion,
    How,
    Position,
    Sorting,
    SortKey,
)
from gateway.domain.resources import (
    REFERS,
    REFERS_BY_IDENTIFIER,
    HeldResource,
    Indexed,
    OrderPart,
    Resource,
    ResourceKey,
)
from gateway.edges.database import Connection, Prepared, Queries, Row
from gateway.edges.schema import feed_marks, order_resources, resource_index, resources
from gateway.edges.stored_values import storable, utc_text
from gateway.wire import fhir_json
from gateway.workflow.ports import REFERRING_MAX

_given = bindparam
_ACROSS_TYPES = frozenset({REFERS, REFERS_BY_IDENTIFIER})
_LAST_CODE_POINT = "\U0010ffff"

_KEY = (
    resources.c.source == _given("source"),
    resources.c.type == _given("type"),
    resources.c.resource_id == _given("resource_id"),
)
_HELD = (
    resources.c.id, resources.c.source, resources.c.type, resources.c.resource_id, resources.c.version,
    resources.c.updated_at, resources.c.deleted, resources.c.release, resources.c.content, resources.c.overruled,
)  # fmt: skip

RESOURCE = Prepared(select(*_HELD).where(*_KEY))
RESOURCE_INSERT = Prepared(
    insert(resources).values({column.name: _given(column.name) for column in resources.columns if column.name != "id"})
)
_CHANGED = ("version", "updated_at", "deleted", "release", "content", "overruled")
RESOURCE_UPDATE = Prepared(
    update(resources).where(resources.c.id == _given("key_id")).values({name: _given(name) for name in _CHANGED})
)
INDEX_OF_RESOURCE = Prepared(
    select(resource_index.c.type, resource_index.c.name, resource_index.c.value, resource_index.c.system).where(
        resource_index.c.resource == _given("resource")
    )
)
INDEX_INSERT = Prepared(
    insert(resource_index).values({column.name: _given(column.name) for column in resource_index.columns})
)
INDEX_DELETE = Prepared(
    delete(resource_index).where(*(column == _given(f"key_{column.name}") for column in resource_index.columns))
)
_REFERRING = (
    select(*_HELD)
    .join_from(resource_index, resources, resources.c.id == resource_index.c.resource)
    .where(
        resource_index.c.source == _given("source"),
        resource_index.c.type == "",
        resource_index.c.name == _given("name"),
        resource_index.c.value == _given("value"),
    )
    .order_by(resource_index.c.resource.desc())
    .limit(_given("limit"))
)
REFERRING = Prepared(_REFERRING)
REFERRING_OF_SYSTEM = Prepared(_REFERRING.where(resource_index.c.system == _given("system")))
_PART = tuple(order_resources.columns)
ORDER_PARTS = Prepared(select(*_PART).where(order_resources.c.order_id == _given("order_id")))
PARTS_OF = Prepared(
    select(*_PART).where(
        order_resources.c.source == _given("source"),
        order_resources.c.type == _given("type"),
        order_resources.c.resource_id == _given("resource_id"),
    )
)
PART_INSERT = Prepared(insert(order_resources).values({column.name: _given(column.name) for column in _PART}))
PART_DELETE = Prepared(delete(order_resources).where(*(column == _given(f"key_{column.name}") for column in _PART)))
FEED_MARK = Prepared(select(feed_marks.c.content).where(feed_marks.c.name == _given("name")))
FEED_MARK_INSERT = Prepared(insert(feed_marks).values(name=_given("name"), content=_given("content")))
FEED_MARK_UPDATE = Prepared(
    update(feed_marks).where(feed_marks.c.name == _given("key_name")).values(content=_given("content"))
)


class ResourceStoreReader:
    """The part of `StoreReader` about FHIR resources."""

    _connection: Queries

    def resource(self, key: ResourceKey) -> HeldResource | None:
        """The current version, also of a deleted one (with no content); None of one that never was."""
        row = self._connection.row(RESOURCE, **_key(key))
        return _held(row) if row else None

    def find_resources(
        self, source: str, type: str, criteria: Sequence[Criterion] = (), limit: int = 100,
        sorting: Sorting = OLDEST_FIRST,
    ) -> Sequence[HeldResource]:  # fmt: skip
        """Those of this type that meet all criteria, at most `limit`."""
        return [_held(row) for row, _ in self._rows_of_resources(source, type, criteria, limit, sorting)]

    def page_of_resources(
        self, source: str, type: str, criteria: Sequence[Criterion], count: int, sorting: Sorting,
        after: Position | None = None,
    ) -> tuple[Sequence[HeldResource], Position | None]:  # fmt: skip
        """As many of them behind `after`, and where these end; None where nothing comes behind them.

        Where they end is read with them: one that changes meanwhile may be somewhere else by now.
        """
        found = self._rows_of_resources(source, type, criteria, count + 1, sorting, after)
        page = found[:count]
        return [_held(row) for row, _ in page], page[-1][1] if len(found) > len(page) else None

    def _rows_of_resources(
        self, source: str, type: str, criteria: Sequence[Criterion], limit: int, sorting: Sorting,
        after: Position | None = None,
    ) -> Sequence[tuple[Row, Position]]:  # fmt: skip
        shape, values = _shape_of(criteria)
        values |= {"source": source, "type": type, "limit": limit}
        if after is not None:
            values |= {"after_sort": storable(after.sorted_by), "after_number": after.number}
        rows = self._connection.rows(_finding(shape, sorting, after is not None), **values)
        return [(row[:-1], Position(row[-1], row[0])) for row in rows]

    def count_resources(self, source: str, type: str, criteria: Sequence[Criterion] = ()) -> int:
        """How many meet all criteria."""
        shape, values = _shape_of(criteria)
        row = self._connection.row(_counting(shape), source=source, type=type, **values)
        return int(row[0]) if row else 0

    def referring(
        self, key: ResourceKey, types: Collection[str] = (), limit: int = REFERRING_MAX
    ) -> Sequence[HeldResource]:
        """Those of the same source that refer to this one by its address, whether it is held or not, newest first."""
        asked = {"source": key.source, "name": REFERS, "value": storable(key.reference), "limit": limit}
        if not types:
            return [_held(row) for row in self._connection.rows(REFERRING, **asked)]
        rows = [row for type_ in types for row in self._connection.rows(REFERRING_OF_SYSTEM, **asked, system=type_)]
        return [_held(row) for row in sorted(rows, key=itemgetter(0), reverse=True)[:limit]]

    def referring_by_identifier(
        self, source: str, system: str, value: str, limit: int = REFERRING_MAX
    ) -> Sequence[HeldResource]:
        """Those that refer by this identifier to whoever has it; newest first."""
        rows = self._connection.rows(
            REFERRING_OF_SYSTEM,
            source=source, name=REFERS_BY_IDENTIFIER, value=storable(value), limit=limit, system=storable(system),
        )  # fmt: skip
        return [_held(row) for row in rows]

    def order_parts(self, order_id: int) -> Sequence[OrderPart]:
        """The resources that speak of an order."""
        return [_part(row) for row in self._connection.rows(ORDER_PARTS, order_id=order_id)]

    def parts_of(self, key: ResourceKey) -> Sequence[OrderPart]:
        """The orders that a resource speaks of."""
        return [_part(row) for row in self._connection.rows(PARTS_OF, **_key(key))]

    def feed_mark(self, name: str) -> str:
        """How far a feed has read, as it said itself; '' where it never did."""
        row = self._connection.row(FEED_MARK, name=name)
        return row[0] if row else ""


class ResourceWriter(ResourceStoreReader):
    """The part of `StoreUnit` about FHIR resources."""

    _write: Connection

    def save_resource(
        self, key: ResourceKey, content: Resource, at: datetime, indexed: Iterable[Indexed], deleted: bool = False,
        release: str = "", overruled: Mapping[str, Any] | None = None,
    ) -> HeldResource:  # fmt: skip
        """Hold this as the next version, found by `indexed` and by nothing else; of a deleted one nothing is kept."""
        columns: dict[str, Any] = {
            "updated_at": utc_text(at),
            "deleted": int(deleted),
            "release": release,
            "content": "" if deleted else fhir_json.write(content).decode(),
            "overruled": fhir_json.write(overruled).decode() if overruled and not deleted else "",
        }
        held = self._write.row(RESOURCE, **_key(key))
        if held is None:
            version, number = 1, self._write.insert(RESOURCE_INSERT, **_key(key), **columns, version=1)
        else:
            version, number = held[4] + 1, held[0]
            self._write.run(RESOURCE_UPDATE, key_id=number, **columns, version=version)
        self._save_index(key, number, () if deleted else indexed, held is not None)
        return HeldResource(
            key, version, at, {} if deleted else content, deleted, release, {} if deleted else overruled or {}
        )  # fmt: skip

    def _save_index(self, key: ResourceKey, number: int, indexed: Iterable[Indexed], was_held: bool) -> None:
        """Only rows that differ are written: a new status of an order is one row of its twenty."""
        wanted = {
            ("" if row.name in _ACROSS_TYPES else key.type, row.name, storable(row.value), storable(row.system))
            for row in indexed
        }
        there = set(self._write.rows(INDEX_OF_RESOURCE, resource=number)) if was_held else set()
        if gone := there - wanted:
            self._write.run_many(INDEX_DELETE, [_index_row(key, row, number, "key_") for row in gone])
        if new := wanted - there:
            self._write.run_many(INDEX_INSERT, [_index_row(key, row, number) for row in new])

    def set_order_parts(self, order_id: int, parts: Iterable[OrderPart]) -> None:
        """These resources, and no others, speak of the order."""
        wanted = {_part_row(part._replace(order_id=order_id)) for part in parts}
        there = set(self._write.rows(ORDER_PARTS, order_id=order_id))
        names = [column.name for column in _PART]
        if gone := there - wanted:
            self._write.run_many(
                PART_DELETE, [dict(zip([f"key_{name}" for name in names], row, strict=True)) for row in gone]
            )
        if new := wanted - there:
            self._write.run_many(PART_INSERT, [dict(zip(names, row, strict=True)) for row in new])

    def set_feed_mark(self, name: str, text: str) -> None:
        """How far this feed has read now."""
        if not self._write.run(FEED_MARK_UPDATE, key_name=name, content=text):
            self._write.run(FEED_MARK_INSERT, name=name, content=text)


def _key(key: ResourceKey) -> dict[str, str]:
    return {"source": key.source, "type": storable(key.type), "resource_id": storable(key.id)}


def _held(row: Row) -> HeldResource:
    _, source, type_, resource_id, version, updated_at, deleted, release, content, overruled = row
    return HeldResource(
        ResourceKey(source, type_, resource_id), version, datetime.fromisoformat(updated_at),
        json.loads(content, parse_float=Decimal) if content else {}, bool(deleted), release,
        json.loads(overruled, parse_float=Decimal) if overruled else {},
    )  # fmt: skip


def _index_row(key: ResourceKey, row: tuple[str, str, str, str], number: int, prefix: str = "") -> dict[str, Any]:
    type_, name, value, system = row
    said = {
        "source": key.source, "type": type_, "name": name, "value": value, "system": system, "resource": number,
    }  # fmt: skip
    return {f"{prefix}{column}": each for column, each in said.items()} if prefix else said


def _part(row: Row) -> OrderPart:
    order_id, source, type_, resource_id, requested_procedure_id, sps_id = row
    return OrderPart(order_id, ResourceKey(source, type_, resource_id), requested_procedure_id, sps_id)


def _part_row(part: OrderPart) -> Row:
    return (part.order_id, *part.key, part.requested_procedure_id, part.sps_id)


# -- the statements of searches


class _Asked(NamedTuple):
    """A criterion without its values. `chain` are the types referred to, each with what is asked there."""

    name: str
    hows: tuple[How, ...]
    negated: bool
    chain: tuple[tuple[str, "_Asked"], ...]


_Shape = tuple[_Asked, ...]


def _shape_of(criteria: Sequence[Criterion]) -> tuple[_Shape, dict[str, Any]]:
    """The criteria without their values, and the values by the names that `_Looks` gives them."""
    values: dict[str, Any] = {}
    return tuple([_asked(criterion, values) for criterion in criteria]), values


def _asked(criterion: Criterion, values: dict[str, Any]) -> _Asked:
    for test in criterion.tests:
        number = len(values) // 2
        low, high = storable(test.low), storable(test.high)
        if criterion.name == LAST_UPDATED:
            low, high = _instant(low), _instant(high)
        elif test.how in (How.CONTAINS, How.ENDS):
            low = "%" + low.replace("/", "//").replace("%", "/%").replace("_", "/_")
            low += "%" if test.how is How.CONTAINS else ""
        elif test.how is How.STARTS:
            high = low + _LAST_CODE_POINT
        values |= {f"low_{number}": low, f"high_{number}": high}
    chain = tuple([(type_, _asked(inner, values)) for type_, inner in criterion.chain])
    return _Asked(criterion.name, tuple([test.how for test in criterion.tests]), criterion.negated, chain)


def _instant(digits: str) -> str:
    """20 digits as `utc_text` writes them; of anything else itself, which no time is equal to."""
    if len(digits) != 20:
        return digits
    date, time, rest = digits[:8], digits[8:14], digits[14:]
    return f"{date[:4]}-{date[4:6]}-{date[6:]}T{time[:2]}:{time[2:4]}:{time[4:]}.{rest}+00:00"


class _Looks:
    """Makes conditions of a shape, naming the values in the order of `_shape_of`.

    `row_by_row` is for rows that another condition leaves few of: each is looked up in the index. Otherwise the index
    gives the rows.
    """

    def __init__(self, row_by_row: bool) -> None:
        self._number = 0
        self._row_by_row = row_by_row

    def condition(self, asked: _Asked, row: FromClause, type_: ColumnElement[str]) -> ColumnElement[bool]:
        """What a row of `resources` (or an alias of it) is to meet."""
        found = self._met(asked, row, type_)
        return not_(found) if asked.negated else found

    def _met(self, asked: _Asked, row: FromClause, type_: ColumnElement[str]) -> ColumnElement[bool]:
        if asked.name == ID:
            return row.c.resource_id.in_([self._values()[0] for _ in asked.hows])
        if asked.name == LAST_UPDATED:
            return or_(*[_compared(how, row.c.updated_at, row.c.updated_at, *self._values()) for how in asked.hows])
        index = resource_index.alias()
        looks = self._looks(asked, index)
        for target, inner in asked.chain:
            looks.append(index.c.value.in_(self._referred_to(target, inner)))
        of_name = select(index.c.resource).where(
            index.c.source == _given("source"), index.c.type == type_, index.c.name == asked.name
        )
        if self._row_by_row:
            return of_name.where(index.c.resource == row.c.id, or_(*looks)).exists()
        if len(looks) == 1:
            return row.c.id.in_(of_name.where(or_(*looks)))
        return row.c.id.in_(union_all(*[of_name.where(look) for look in looks]))  # each a range of its own

    def _referred_to(self, target: str, inner: _Asked) -> Select[Any]:
        """The references to resources of this type that meet `inner`."""
        row = resources.alias()
        type_ = literal(target, String)
        return select(literal(f"{target}/", String) + row.c.resource_id).where(
            row.c.source == _given("source"), row.c.type == type_, row.c.deleted == 0, self.condition(inner, row, type_)
        )

    def _looks(self, asked: _Asked, index: FromClause) -> list[ColumnElement[bool]]:
        """The comparisons; all of plain values are one, for databases bound how deep an expression may be."""
        pairs = [(how, self._values()) for how in asked.hows]
        values = [low for how, (low, _) in pairs if how is How.VALUE]
        looks = [
            _compared(how, index.c.value, index.c.system, low, high)
            for how, (low, high) in pairs
            if how is not How.VALUE
        ]
        if values:
            looks.insert(0, index.c.value.in_(values) if len(values) > 1 else index.c.value == values[0])
        return looks

    def _values(self) -> tuple[ColumnElement[str], ColumnElement[str]]:
        number, self._number = self._number, self._number + 1
        return _given(f"low_{number}"), _given(f"high_{number}")


def _compared(
    how: How, value: ColumnElement[str], system: ColumnElement[str], low: ColumnElement[str], high: ColumnElement[str],
) -> ColumnElement[bool]:  # fmt: skip
    """`How` in SQL; a date's row has its first instant as value and its last as system."""
    match how:
        case How.VALUE:
            return value == low
        case How.VALUE_OF_SYSTEM:
            return and_(value == low, system == high)
        case How.SYSTEM:
            return system == high
        case How.STARTS:
            return and_(value >= low, value < high)
        case How.CONTAINS | How.ENDS:
            return value.like(low, escape="/")
        case How.ANY:
            return true()
        case How.WITHIN:
            return and_(value >= low, system <= high)
        case How.OVERLAPS:
            return and_(value <= high, system >= low)
        case How.GREATER:
            return system > high
        case How.LESS | How.BEFORE:
            return (value if how is How.LESS else system) < low
        case How.FROM:
            return value >= low
        case How.UP_TO:
            return value <= high
        case How.AFTER:
            return value > high


_AUTHORED = resource_index.alias("authored")
_SORTED: dict[SortKey, ColumnElement[str]] = {
    SortKey.LAST_UPDATED: resources.c.updated_at,
    SortKey.ID: resources.c.resource_id,
    SortKey.AUTHORED: func.coalesce(
        select(func.min(_AUTHORED.c.value))
        .where(
            _AUTHORED.c.resource == resources.c.id,
            _AUTHORED.c.name.in_([literal_column("'authored'"), literal_column("'authored-on'")]),
        )
        .scalar_subquery(),
        "",
    ),
}


def _of_shape(shape: _Shape) -> list[ColumnElement[bool]]:
    """What a row is to meet. Without a time, the first thing asked for leads: what is not said of a row, for its index
    says it already, keeps SQLite from walking along all resources of the type instead."""
    timed = any(asked.name == LAST_UPDATED for asked in shape)
    led = not timed and any(asked.name != ID and not asked.negated for asked in shape)
    looks = _Looks(row_by_row=timed)
    of_type = (
        resources.c.source == _given("source"),
        resources.c.type == _given("type"),
        resources.c.deleted == 0,
    )
    return [*(() if led else of_type), *(looks.condition(asked, resources, _given("type")) for asked in shape)]


@lru_cache(maxsize=512)
def _finding(shape: _Shape, sorting: Sorting, further: bool) -> Prepared:
    column, conditions = _SORTED[sorting.by], _of_shape(shape)
    if any(asked.name == ID for asked in shape):  # so that SQLite looks these up, and does not walk in this order
        column = func.coalesce(column, "")
    if further:
        place, reached = tuple_(column, resources.c.id), tuple_(_given("after_sort"), _given("after_number"))
        conditions.append(place < reached if sorting.descending else place > reached)
    order = (column.desc(), resources.c.id.desc()) if sorting.descending else (column, resources.c.id)
    return Prepared(select(*_HELD, column).where(*conditions).order_by(*order).limit(_given("limit")))


@lru_cache(maxsize=512)
def _counting(shape: _Shape) -> Prepared:
    return Prepared(select(func.count()).select_from(resources).where(*_of_shape(shape)))
