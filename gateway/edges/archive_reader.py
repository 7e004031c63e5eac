"""Reading the archive: what messages came and went, found by what a person knows of them, in milliseconds.

A search gives numbers first, each kind of message by a walk along an index, then the rows of those that are wanted.
Numbers rise with time: a time is a number found by halving, so a clock that was set back blurs it by as much.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from heapq import merge
from itertools import islice
from typing import Any

from pydantic_core import from_json

from gateway.domain.performed import Attention, MPPSState
from gateway.edges import archive_statements, statements
from gateway.edges.archive_statements import KIND_COLUMNS, KeyBound, SearchShape, dispositions_bound
from gateway.edges.database import Prepared, Queries, Row
from gateway.edges.statements import LIST_LENGTHS, padded
from gateway.edges.stored_values import utc_text
from gateway.workflow.ports import (
    ORDER_LINK,
    MessageRecord,
    MessageSearch,
    MessageSummary,
    StoredMessage,
)

EARLIER_MESSAGES_MAX = 20
"""Messages with the same sender and control ID that a repeat is compared with. Senders that restart their counters
meet a handful; one that always says the same ID must not make each of its messages dearer than the last."""

KINDS_MAX = 1_000
"""Kinds of messages that are looked at one by one: a hospital's feeds have some dozens. Where a sender makes up ever
new message types, all messages are looked at instead."""

CHANGED_NOTHING = frozenset({"refused", "unreadable", "held", "ignored", "early"})
"""What became of messages that changed nothing so far."""

KEPT_DISPOSITIONS = frozenset({"held", "early", "waiting", "parked"})
"""Messages that are not done with: retention leaves them."""

DECIDED = frozenset({Attention.NONE, Attention.SET_ASIDE})
"""Performed steps that nobody has to look at."""

_FIRST_WALK, _LONGEST_WALK = 64, 1_024  # numbers fetched by one statement: a list's worth, then what memory bears
_LAST_NUMBER = 2**63 - 1


Kind = tuple[str, ...]
"""The values of KIND_COLUMNS, or of the first of them: what messages have in common."""


@dataclass(frozen=True, slots=True)
class Prunable:
    """Numbers of messages or requests that may go, of so many that were looked at, and the last of those."""

    numbers: tuple[int, ...]
    looked_at: int
    last: int


_Bound = tuple[SearchShape, dict[str, Any]]


class ArchiveReader:
    """The archive's part of a `StoreReader`."""

    _connection: Queries

    # -- searching

    def find_messages(self, search: MessageSearch, limit: int, before: int = 0) -> Sequence[StoredMessage]:
        """The newest messages that fit, newest first; of those before number `before`, where it is given."""
        return self._messages(islice(self._numbers(search, before=before, newest=True), limit))

    def messages_in_order(self, search: MessageSearch, limit: int, after: int = 0) -> Sequence[StoredMessage]:
        """The oldest messages that fit, oldest first; of those after number `after`."""
        return self._messages(islice(self._numbers(search, after=after, newest=False), limit))

    def message_summaries(self, search: MessageSearch, limit: int, before: int = 0) -> Sequence[MessageSummary]:
        """As `find_messages`, without reading what they say."""
        numbers = list(islice(self._numbers(search, before=before, newest=True), limit))
        found: dict[int, MessageSummary] = {}
        wanted = iter(numbers)
        while chunk := list(islice(wanted, LIST_LENGTHS[-1])):
            ids = padded(chunk)
            values = {f"id_{index}": number for index, number in enumerate(ids)}
            rows = self._connection.rows(archive_statements.summaries(len(ids)), **values)
            found |= {row[0]: _summary(row) for row in rows}
        return [found[number] for number in numbers if number in found]

    def message_numbers(self, search: MessageSearch, after: int = 0) -> Iterator[int]:
        """The numbers of all messages that fit, oldest first. Other statements may run meanwhile."""
        return self._numbers(search, after=after, newest=False)

    def count_messages(self, search: MessageSearch) -> int:
        """How many messages fit."""
        if search == MessageSearch():
            return int(self._connection.rows(archive_statements.COUNT_ALL)[0][0])
        after, before = self._between(search, 0, 0)
        counts = (
            self._connection.rows(archive_statements.count_messages(shape), after=after, before=before, **values)
            for shape, values in self._walks(search)
        )
        return sum(int(rows[0][0]) for rows in counts)

    def _numbers(self, search: MessageSearch, *, after: int = 0, before: int = 0, newest: bool) -> Iterator[int]:
        after, before = self._between(search, after, before)
        walks = (
            self._walk(archive_statements.message_numbers(shape, newest), values, after, before, newest)
            for shape, values in self._walks(search)
        )
        return merge(*walks, reverse=newest)

    def _walk(
        self, statement: Prepared, values: dict[str, Any], after: int, before: int, newest: bool
    ) -> Iterator[int]:
        """All numbers the statement finds, a few at first, then more at a time."""
        limit = _FIRST_WALK
        while True:
            rows = self._connection.rows(statement, after=after, before=before, limit=limit, **values)
            for (number,) in rows:
                yield number
            if len(rows) < limit:
                return
            if newest:
                before = rows[-1][0]
            else:
                after = rows[-1][0]
            limit = min(2 * limit, _LONGEST_WALK)

    def _walks(self, search: MessageSearch) -> Sequence[_Bound]:
        """The statements whose results, together, are what fits; no message is in two of them."""
        one, values = _shape(search)
        if one.keys or one.control_id or one == SearchShape():
            return [(one, values)]
        kinds = self._kinds(
            [
                _given(search.listener), _given(search.direction), _given(search.message_type),
                sorted(search.dispositions),
            ]
        )  # fmt: skip
        return [(one, values)] if kinds is None else [_shape_of_kind(kind) for kind in kinds]

    def _kinds(self, wanted: Sequence[Iterable[str]]) -> Sequence[Kind] | None:
        """Every kind with one of the wanted values of each column, or of what there is; None beyond KINDS_MAX."""
        found: list[Kind] = [()]
        for place, values in enumerate(wanted):
            longer = ((*kind, value) for kind in found for value in (values or self._values(place, kind)))
            found = list(islice(longer, KINDS_MAX + 1))
            if len(found) > KINDS_MAX:
                return None
        return found

    def _values(self, place: int, kind: Kind) -> Iterator[str]:
        """The values that a column of KIND_COLUMNS has where those before it are these."""
        known = {column.name: value for column, value in zip(KIND_COLUMNS, kind, strict=False)}
        statement = archive_statements.next_of_kind(place, True)
        last = None
        while (last := self._connection.rows(statement, last=last, **known)[0][0]) is not None:
            yield last
            statement = archive_statements.next_of_kind(place, False)

    def _between(self, search: MessageSearch, after: int, before: int) -> tuple[int, int]:
        """The numbers, both exclusive, between which messages fit the search's times and these numbers."""
        since = self.first_message_since(search.since) if search.since else 0
        until = self.first_message_since(search.until) if search.until else _LAST_NUMBER
        return max(after, since - 1), min(before or _LAST_NUMBER, until)

    def first_message_since(self, at: datetime) -> int:
        """The number of the first message received at this time or later; one that nobody has where there is none."""
        return self._first_since(at, archive_statements.NUMBERS, archive_statements.FIRST_FROM)

    def first_request_since(self, at: datetime) -> int:
        """The number of the first MPPS request received at this time or later; as `first_message_since`."""
        return self._first_since(at, archive_statements.REQUEST_NUMBERS, archive_statements.REQUEST_FROM)

    def _first_since(self, at: datetime, numbers: Prepared, first_from: Prepared) -> int:
        wanted = utc_text(at)
        low, high = self._connection.rows(numbers)[0]
        if low is None:
            return _LAST_NUMBER
        first, beyond = _LAST_NUMBER, high + 1
        while low < beyond:
            middle = (low + beyond) // 2
            row = self._connection.row(first_from, id=middle)
            if row is None or row[1] >= wanted:
                first, beyond = row[0] if row else first, middle
            else:
                low = row[0] + 1  # over the gap as well
        return first

    # -- one message

    def message(self, message_id: int) -> StoredMessage | None:
        """An archived message by number."""
        row = self._connection.row(statements.MESSAGE, id=message_id)
        return _message(row) if row else None

    def _messages(self, numbers: Iterable[int]) -> Sequence[StoredMessage]:
        found = (self.message(number) for number in list(numbers))
        return [each for each in found if each is not None]

    # -- what use cases ask

    def earlier_messages(self, listener: str, sender: str, control_id: str) -> Sequence[StoredMessage]:
        """Messages that may be the same one, newest first, at most EARLIER_MESSAGES_MAX."""
        found = self._connection.rows(
            statements.EARLIER_MESSAGES,
            listener=listener, sender=sender, control_id=control_id, limit=EARLIER_MESSAGES_MAX,
        )  # fmt: skip
        return [_message(row) for row in found]

    def early_messages(self, number: str, limit: int) -> Sequence[StoredMessage]:
        """The newest messages that came before an order of this number, newest first."""
        found = self._connection.rows(archive_statements.EARLY_MESSAGES, key=number, limit=limit)
        return self._messages(message_id for (message_id,) in found)

    def held_messages(self, limit: int, after: int = 0) -> Sequence[StoredMessage]:
        """Messages that wait for a mapping rule, in the order they came, from number `after` on (without it)."""
        found = self._connection.rows(statements.HELD_MESSAGES, after=after, limit=limit)
        return [_message(row) for row in found]

    def troubled_messages(self, limit: int) -> Sequence[StoredMessage]:
        """The newest messages that changed nothing so far."""
        return self.find_messages(MessageSearch(dispositions=CHANGED_NOTHING, direction="in"), limit)

    def newest_messages(self) -> Sequence[StoredMessage]:
        """The newest message of each listener, by the listener's name."""
        return [found for name in self._values(0, ()) for found in self.find_messages(MessageSearch(listener=name), 1)]

    def mapping_version(self, version: str) -> str | None:
        """The mapping as it was when it had this version, as JSON text of `gateway.mapping_files`."""
        row = self._connection.row(archive_statements.MAPPING_VERSION, version=version)
        return row[0] if row else None

    def kept_report(self, message_id: int) -> bytes | None:
        """What a message of ours was written from (`workflow.kept_reports`), where it was kept."""
        row = self._connection.row(archive_statements.REPORT, id=message_id)
        return row[0] if row else None

    # -- retention

    def newest_message(self) -> int:
        """The highest number of a message; 0 where there is none."""
        return int(self._connection.rows(archive_statements.NUMBERS)[0][1] or 0)

    def prunable_messages(self, before: int, limit: int, after: int = 0) -> Prunable:
        """Which of the next `limit` messages between these numbers may go.

        What is not done with stays, and so does what is about an order that has a step on the list.
        """
        rows = self._connection.rows(archive_statements.OLDEST, after=after, before=before, limit=limit)
        open_orders: dict[int, bool] = {}
        found = [
            number
            for number, disposition, keys in rows
            if disposition not in KEPT_DISPOSITIONS
            and not any(self._is_open(order_id, open_orders) for order_id in self._orders_named(key_pairs(keys)))
        ]
        return Prunable(tuple(found), len(rows), rows[-1][0] if rows else after)

    def newest_request(self) -> int:
        """The highest number of an MPPS request; 0 where there is none."""
        return int(self._connection.rows(archive_statements.REQUEST_NUMBERS)[0][1] or 0)

    def prunable_requests(self, before: int, limit: int, after: int = 0) -> Prunable:
        """Which of the next `limit` MPPS requests between these numbers may go.

        Those of a performed step stay until it has ended, nobody has to decide about it, and nobody is still to be
        told of it.
        """
        rows = self._connection.rows(archive_statements.OLDEST_REQUESTS, after=after, before=before, limit=limit)
        told: dict[str, bool] = {}
        found = [
            number
            for number, uid, state, attention in rows
            if (state is None or (state != MPPSState.IN_PROGRESS and attention in DECIDED)) and self._is_told(uid, told)
        ]
        return Prunable(tuple(found), len(rows), rows[-1][0] if rows else after)

    def _is_told(self, uid: str, known: dict[str, bool]) -> bool:
        """Whether nothing about this performed step waits or is parked."""
        if uid not in known:
            known[uid] = self._connection.row(archive_statements.WAITING_IN_LANE, lane=uid) is None
        return known[uid]

    def _orders_named(self, keys: Iterable[tuple[str, str]]) -> Iterator[int]:
        """The orders a message is about: what it changed, and what bears one of its order numbers."""
        for kind, value in keys:
            if kind == ORDER_LINK:
                yield int(value)
            elif kind in ("placer", "filler"):
                for (order_id,) in self._connection.rows(archive_statements.ORDER_IDS_NAMED, value=value):
                    yield order_id

    def _is_open(self, order_id: int, known: dict[int, bool]) -> bool:
        if order_id not in known:
            found = self._connection.row(archive_statements.LISTED_STEP_OF_ORDER, order_id=order_id)
            known[order_id] = found is not None
        return known[order_id]


def _shape(search: MessageSearch) -> _Bound:
    """The one statement that finds everything, and the values it binds."""
    keys: dict[KeyBound, str] = {}
    if search.key:
        keys[KeyBound.KIND if search.kind else KeyBound.BUSINESS] = search.key
    if search.order is not None:
        keys[KeyBound.ORDER] = str(search.order)
    if search.patient is not None:
        keys[KeyBound.PATIENT] = str(search.patient)
    dispositions = padded(sorted(search.dispositions)) if search.dispositions else []
    shape = SearchShape(
        tuple(keys),
        bool(search.control_id),
        bool(search.listener),
        bool(search.direction),
        bool(search.message_type),
        len(dispositions),
    )
    values = {
        **{bound.value: value for bound, value in keys.items()},
        "kind": search.kind,
        "control_id": search.control_id,
        "listener": search.listener,
        "direction": search.direction,
        "message_type": search.message_type,
        **dispositions_bound(dispositions),
    }
    return shape, values


_KIND_SHAPE = SearchShape(listener=True, direction=True, message_type=True, dispositions=1)


def _shape_of_kind(kind: Kind) -> _Bound:
    listener, direction, message_type, disposition = kind
    return _KIND_SHAPE, {
        "listener": listener,
        "direction": direction,
        "message_type": message_type,
        **dispositions_bound([disposition]),
    }


def _given(value: str) -> tuple[str, ...]:
    return (value,) if value else ()


def key_pairs(text: str) -> tuple[tuple[str, str], ...]:
    return tuple((kind, value) for kind, value in from_json(text))


def _message(row: Row) -> StoredMessage:
    (
        number, received_at, listener, peer, sender, control_id, message_type, digest, raw, disposition, reasons,
        answer, mapping, keys, replay_of, direction, made_at,
    ) = row  # fmt: skip
    record = MessageRecord(
        datetime.fromisoformat(received_at), listener, peer, sender, control_id, message_type, digest, raw, disposition,
        reasons, answer, mapping, key_pairs(keys), replay_of, direction, made_at,
    )  # fmt: skip
    return StoredMessage(number, record)


def _summary(row: Row) -> MessageSummary:
    (
        number, received_at, listener, peer, sender, control_id, message_type, disposition, reasons, mapping, keys,
        replay_of, direction, made_at,
    ) = row  # fmt: skip
    return MessageSummary(
        number, datetime.fromisoformat(received_at), listener, peer, sender, control_id, message_type, disposition,
        reasons, mapping, key_pairs(keys), replay_of, direction, made_at,
    )  # fmt: skip
