"""Archived messages are found by everything a person knows of them, each search by a walk along one index."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sample_department import LATER, NOW, message

from gateway.edges import archive_reader, archive_statements
from gateway.edges.archive_reader import ArchiveReader
from gateway.edges.store import Store
from gateway.workflow.ports import MessageSearch, MessageSummary

LISTENERS, TYPES = ("ris", "his"), ("OMI^O23", "")
DISPOSITIONS = ("accepted", "refused", "held", "sent")


def _record(number: int):
    """Each number another mixture of everything that can be searched for."""
    order, patient = number % 7, number % 5
    record = message(
        number,
        DISPOSITIONS[number % 11 % 4],
        b"MSH|%d" % number,
        listener=LISTENERS[number % 3 % 2],
        received_at=NOW + timedelta(minutes=number),
        control_id=f"C{number % 20}",
        direction="out" if number % 11 % 4 == 3 else "in",
    )
    keys = (("patient", str(patient)), ("placer", f"PL{order}"), ("filler", f"PL{order}"), ("accession", f"A{order}"),
            ("#order", str(order)), ("#patient", str(patient + 100)))  # fmt: skip
    return replace(record, message_type=TYPES[number % 13 % 2], keys=keys)


class _Records(dict):
    """The records by number; what fails names no three hundred of them."""

    def __repr__(self):
        return f"<{len(self)} records>"


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    with Store(f"sqlite:///{tmp_path_factory.mktemp('archive') / 'gateway.db'}") as store:
        records = [_record(number) for number in range(1, 301)]
        numbers = store.write(lambda unit: [unit.add_message(record) for record in records]).result(timeout=10)
        store.write(lambda unit: unit.delete_messages(numbers[50:60])).result(timeout=10)  # gaps in the numbers
        yield store, _Records(zip(numbers[:50] + numbers[60:], records[:50] + records[60:], strict=True))


def _fits(search: MessageSearch, record) -> bool:
    keys = set(record.keys)
    return (
        (not search.key or any(value == search.key and search.kind in ("", kind) and not kind.startswith("#")
                               for kind, value in keys))
        and search.control_id in ("", record.control_id)
        and search.listener in ("", record.listener)
        and search.message_type in ("", record.message_type)
        and search.direction in ("", record.direction)
        and (not search.dispositions or record.disposition in search.dispositions)
        and (search.since is None or record.received_at >= search.since)
        and (search.until is None or record.received_at < search.until)
        and (search.order is None or ("#order", str(search.order)) in keys)
        and (search.patient is None or ("#patient", str(search.patient)) in keys)
    )  # fmt: skip


_minute = st.integers(-5, 310).map(lambda minutes: NOW + timedelta(minutes=minutes))
_searches = st.builds(
    MessageSearch,
    key=st.sampled_from(["", "", "1", "3", "PL2", "A4", "nobody"]),
    kind=st.sampled_from(["", "", "patient", "placer"]),
    control_id=st.sampled_from(["", "", "C3"]),
    listener=st.sampled_from(["", *LISTENERS, "nobody"]),
    dispositions=st.frozensets(st.sampled_from(DISPOSITIONS), max_size=3),
    message_type=st.sampled_from(["", "OMI^O23", "ADT^A08"]),
    direction=st.sampled_from(["", "in", "out"]),
    since=st.none() | _minute,
    until=st.none() | _minute,
    order=st.none() | st.integers(0, 7),
    patient=st.none() | st.integers(100, 105),
)


@given(search=_searches, limit=st.integers(1, 300))
def test_what_is_found_is_what_fits_newest_first(archive, search, limit):
    store, records = archive
    fitting = [number for number, record in records.items() if _fits(search, record)]
    assert [each.id for each in store.reader.find_messages(search, limit)] == fitting[::-1][:limit]
    assert [each.id for each in store.reader.message_summaries(search, limit)] == fitting[::-1][:limit]
    assert [each.id for each in store.reader.messages_in_order(search, limit)] == fitting[:limit]
    assert store.reader.count_messages(search) == len(fitting)


@given(search=_searches, page=st.integers(1, 50))
def test_pages_join_without_gap_or_repeat(archive, search, page):
    store, records = archive
    fitting = [number for number, record in records.items() if _fits(search, record)]
    forward, backward = [], []
    while found := store.reader.messages_in_order(search, page, after=forward[-1] if forward else 0):
        forward += [each.id for each in found]
    while found := store.reader.message_summaries(search, page, before=backward[-1] if backward else 0):
        backward += [each.id for each in found]
    assert forward == backward[::-1] == fitting


@given(search=_searches)
def test_where_there_are_too_many_kinds_the_same_is_found(archive, search):
    store, records = archive
    kinds_max, archive_reader.KINDS_MAX = archive_reader.KINDS_MAX, 2
    try:
        fitting = [number for number, record in records.items() if _fits(search, record)]
        assert list(store.reader.message_numbers(search)) == fitting
        assert store.reader.count_messages(search) == len(fitting)
    finally:
        archive_reader.KINDS_MAX = kinds_max


@given(minutes=st.integers(-3, 305))
def test_first_message_since_a_time_is_found_by_halving(archive, minutes):
    store, records = archive
    at = NOW + timedelta(minutes=minutes)
    later = [number for number, record in records.items() if record.received_at >= at]
    found = store.reader.first_message_since(at)
    assert found == later[0] if later else found > max(records)


def test_a_link_is_no_key_that_people_search_by(archive):
    store, _ = archive
    assert store.reader.count_messages(MessageSearch("6")) == 0  # no patient has it; an order's number is 6
    assert store.reader.count_messages(MessageSearch(order=6)) > 0


def test_summary_says_everything_but_the_bytes(archive):
    store, records = archive
    (summary,) = store.reader.message_summaries(MessageSearch(), 1)
    record = records[summary.id]
    assert summary == MessageSummary(
        summary.id, record.received_at, record.listener, record.peer, record.sender, record.control_id,
        record.message_type, record.disposition, record.reasons, record.mapping, record.keys, record.replay_of,
        record.direction, record.made_at,
    )  # fmt: skip


def test_newest_messages_are_one_of_each_listener_by_name(archive):
    store, records = archive
    newest = {record.listener: number for number, record in records.items()}
    assert [each.id for each in store.reader.newest_messages()] == [newest["his"], newest["ris"]]


def test_troubled_messages_are_those_that_changed_nothing_however_long_ago(archive):
    store, records = archive
    troubled = [number for number, record in records.items() if record.disposition in ("refused", "held")]
    assert [each.id for each in store.reader.troubled_messages(1000)] == troubled[::-1]


def test_an_empty_archive_answers_every_question(store):
    assert store.reader.find_messages(MessageSearch(since=NOW, until=LATER, listener="ris"), 5) == []
    assert store.reader.newest_messages() == []
    assert store.reader.count_messages(MessageSearch()) == store.reader.newest_message() == 0


def test_a_time_in_any_zone_is_the_same_time(archive):
    store, _ = archive
    here = NOW.astimezone(UTC)
    there = datetime.fromisoformat("2026-11-23T16:30:00+09:00")
    assert here == there
    assert store.reader.first_message_since(here) == store.reader.first_message_since(there)


# --- mappings


def test_a_mapping_version_is_kept_as_it_was_first(store, write):
    write(lambda unit: unit.save_mapping_version("ris@1", "{}", NOW))
    write(lambda unit: unit.save_mapping_version("ris@1", "other", LATER))
    assert store.reader.mapping_version("ris@1") == "{}"
    assert store.reader.mapping_version("ris@2") is None


# --- rehearsals and attempts


def test_a_rehearsal_tells_what_would_be_and_leaves_nothing(store):
    def use_case(unit):
        number = unit.add_message(message(1))
        return unit.message(number).record.control_id

    assert store.rehearse(use_case).result(timeout=10) == "M1"
    assert store.reader.count_messages(MessageSearch()) == 0
    assert store.write(lambda unit: unit.add_message(message(2))).result(timeout=10) == 1


def test_a_rehearsal_that_fails_says_why_and_the_next_job_goes_on(store):
    def fail(unit):
        unit.add_message(message(1))
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        store.rehearse(fail).result(timeout=10)
    store.write(lambda unit: unit.add_message(message(2))).result(timeout=10)
    assert [each.record.control_id for each in store.reader.find_messages(MessageSearch(), 5)] == ["M2"]


def test_a_failed_attempt_undoes_itself_alone(store, write):
    def use_case(unit):
        unit.add_message(message(1))
        with pytest.raises(ValueError, match="no"):
            unit.attempt(lambda: (unit.add_message(message(2)), int("no")))
        unit.attempt(lambda: unit.add_message(message(3)))

    write(use_case)
    assert [each.record.control_id for each in store.reader.messages_in_order(MessageSearch(), 5)] == ["M1", "M3"]


# --- plans

_KEY, _CONTROL = "SEARCH key_0 USING PRIMARY KEY (value=? AND message_id>? AND message_id<?)", "messages_by_control_id"
_PLANS = {
    "everything": (MessageSearch(), "SEARCH messages USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)"),
    "key": (MessageSearch("A1"), _KEY),
    "kind of key": (MessageSearch("A1", "accession"), _KEY),
    "order": (MessageSearch(order=1), _KEY),
    "patient": (MessageSearch(patient=1), _KEY),
    "key and patient": (MessageSearch("A1", patient=1), _KEY),
    "key and listener": (MessageSearch("A1", listener="ris"), _KEY),
    "key and disposition": (MessageSearch("A1", dispositions=frozenset({"refused", "held"})), _KEY),
    "key and type": (MessageSearch("A1", message_type="ADT^A08"), _KEY),
    "key and control ID": (MessageSearch("A1", control_id="C1"), _KEY),
    "control ID": (MessageSearch(control_id="C1"), f"{_CONTROL} (control_id=?)"),
    "control ID and listener": (MessageSearch(control_id="C1", listener="ris"), f"{_CONTROL} (control_id=? AND li"),
    "control ID and type": (MessageSearch(control_id="C1", message_type="ADT^A08"), f"{_CONTROL} (control_id=?)"),
    **{
        name: (search, "messages USING COVERING INDEX messages_by_kind (listener=? AND direction=? AND message_type=? "
                       "AND disposition=? AND rowid>? AND rowid<?)")
        for name, search in {
            "listener": MessageSearch(listener="ris"),
            "direction": MessageSearch(direction="out"),
            "type": MessageSearch(message_type="ADT^A08"),
            "disposition": MessageSearch(dispositions=frozenset({"refused"})),
            "listener, type and disposition": MessageSearch(
                listener="ris", message_type="ADT^A08", dispositions=frozenset({"refused"})
            ),
        }.items()
    },
}  # fmt: skip


class _Anything(dict):
    def __missing__(self, key):
        return 1


def _plan(store: Store, prepared) -> list[str]:
    connection = store._engine.raw_connection()
    try:
        sql, bind = prepared.on(store._engine.dialect)
        rows = connection.driver_connection.execute(f"EXPLAIN QUERY PLAN {sql}", bind(_Anything())).fetchall()
    finally:
        connection.close()
    return [row[3] for row in rows]


@pytest.mark.parametrize("newest", [True, False], ids=["newest", "oldest"])
@pytest.mark.parametrize("name", _PLANS)
def test_search_walks_its_index_in_order(archive, name, newest):
    store, _ = archive
    search, expected = _PLANS[name]
    for shape, _values in ArchiveReader._walks(store.reader, search):
        plan = _plan(store, archive_statements.message_numbers(shape, newest))
        assert expected in plan[0]
        assert not [line for line in plan if "SCAN" in line]
        # A control ID is a handful of messages, of several listeners and senders: those alone are put in order.
        assert search.control_id or "TEMP B-TREE" not in "".join(plan)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("FIRST_FROM", "INTEGER PRIMARY KEY (rowid>?)"),
        ("OLDEST", "INTEGER PRIMARY KEY (rowid>? AND rowid<?)"),
        ("EARLY_MESSAGES", "message_keys USING PRIMARY KEY (value=?)"),
        ("MESSAGE_DELETE", "INTEGER PRIMARY KEY (rowid=?)"),
        ("MESSAGE_KEY_DELETE", "PRIMARY KEY (value=? AND message_id=? AND kind=?)"),
        ("LISTED_STEP_OF_ORDER", "steps USING INDEX sqlite_autoindex_steps_1 (procedure_id=?)"),
        ("MAPPING_VERSION", "(version=?)"),
        ("REQUEST_FROM", "INTEGER PRIMARY KEY (rowid>?)"),
        ("OLDEST_REQUESTS", "performed_requests USING INTEGER PRIMARY KEY (rowid>? AND rowid<?)"),
        ("REQUEST_DELETE", "INTEGER PRIMARY KEY (rowid=?)"),
    ],
)
def test_lookup_uses_its_index(archive, name, expected):
    store, _ = archive
    plan = _plan(store, getattr(archive_statements, name))
    assert expected in plan[0]
    assert not [line for line in plan if "SCAN" in line or "TEMP B-TREE" in line]


def test_whether_a_performed_step_is_still_to_be_told_is_a_look_for_each_destination(archive):
    store, _ = archive
    plan = _plan(store, archive_statements.WAITING_IN_LANE)
    assert [line[:11] for line in plan if "SCAN" in line] == ["SCAN queues"]  # as many as there are destinations
    assert [line for line in plan if "outbox_by_lane (destination=? AND state=? AND lane=?)" in line], plan


@pytest.mark.parametrize("place", range(4))
def test_values_that_messages_have_in_common_are_one_look_each(archive, place):
    store, _ = archive
    for first in (True, False):
        (plan,) = _plan(store, archive_statements.next_of_kind(place, first))
        assert plan.startswith("SEARCH messages USING COVERING INDEX messages_by_kind")


def test_first_and_last_number_are_one_look_each(archive):
    store, _ = archive
    assert not [line for line in _plan(store, archive_statements.NUMBERS) if line.startswith("SCAN messages")]
