"""Retention deletes what is too old or too much, never what somebody still needs, and gives the space back."""

import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import timedelta

import pytest
from sample_department import NOW, message, order, patient

from gateway.config import ArchiveSettings
from gateway.domain.performed import Attention, MPPSState, PerformedStep
from gateway.domain.worklist import SPSStatus
from gateway.edges.database import database_path
from gateway.retention import BATCH, Pruned, due, prune, would_prune
from gateway.workflow.outbox import park
from gateway.workflow.ports import DeliveryKind, MessageSearch, NewDelivery

YEAR = timedelta(days=365)
KEEP = ArchiveSettings(days=365)


def _add(write, number, age_days=0, disposition="accepted", keys=None, **more):
    record = message(number, disposition, received_at=NOW - timedelta(days=age_days), **more)
    record = record if keys is None else replace(record, keys=keys)
    return write(lambda unit: unit.add_message(record))


def _kept(store):
    return [stored.id for stored in store.reader.messages_in_order(MessageSearch(), 10_000)]


def _ordered(write, number=1, **parts):
    return write(
        lambda unit: unit.save_order(order(unit.save_patient(patient(number), NOW), number, **parts), "NW", NOW)
    )


def test_messages_older_than_their_days_go_with_their_keys(store, write, url):
    _add(write, 1, age_days=400)
    young = _add(write, 2, age_days=364)
    assert prune(store, KEEP, NOW) == Pruned(1, 0)
    assert _kept(store) == [young]
    assert store.reader.find_messages(MessageSearch("P1"), 5) == []
    with closing(sqlite3.connect(database_path(url))) as connection:
        assert connection.execute("SELECT DISTINCT message_id FROM message_keys").fetchall() == [(young,)]


def test_a_message_of_ours_goes_with_what_it_was_written_from(store, write):
    old, young = _add(write, 1, age_days=400), _add(write, 2)
    for number in (old, young):
        write(lambda unit, number=number: unit.keep_report(number, b"report"))
    prune(store, KEEP, NOW)
    assert [store.reader.kept_report(number) for number in (old, young)] == [None, b"report"]


def test_of_too_many_messages_the_oldest_go(store, write):
    numbers = [_add(write, number) for number in range(10)]
    assert prune(store, ArchiveSettings(messages_max=4), NOW) == Pruned(6, 0)
    assert _kept(store) == numbers[6:]


def test_age_and_number_count_together(store, write):
    old = [_add(write, number, age_days=400) for number in range(3)]
    young = [_add(write, number) for number in range(10, 15)]
    assert prune(store, ArchiveSettings(messages_max=4), NOW) == Pruned(4, 0)
    assert _kept(store) == young[1:]
    assert old


def test_a_second_run_finds_nothing_to_do(store, write):
    for number in range(5):
        _add(write, number, age_days=400)
    _add(write, 6)
    assert prune(store, KEEP, NOW) == Pruned(5, 0)
    assert prune(store, KEEP, NOW) == Pruned(0, 0)


@pytest.mark.parametrize("disposition", ["held", "early", "waiting", "parked"])
def test_what_is_not_done_with_stays(store, write, disposition):
    number = _add(write, 1, age_days=4000, disposition=disposition)
    _add(write, 2)
    assert prune(store, KEEP, NOW) == Pruned(0, 1)
    assert number in _kept(store)


@pytest.mark.parametrize("keys", [(("#order", "{id}"),), (("placer", "PL1"),), (("filler", "FI1"),)],
                         ids=["linked", "by placer number", "by filler number"])  # fmt: skip
def test_messages_of_an_order_on_the_list_stay_until_it_is_done(store, write, keys):
    saved = _ordered(write)
    keys = tuple((kind, value.format(id=saved.id)) for kind, value in keys)
    number = _add(write, 1, age_days=4000, keys=keys)
    _add(write, 2)
    assert prune(store, KEEP, NOW) == Pruned(0, 1)
    step = saved.procedures[0].steps[0].id
    write(lambda unit: unit.set_step_status(step, SPSStatus.COMPLETED, "done", NOW))
    assert prune(store, KEEP, NOW) == Pruned(1, 0)
    assert number not in _kept(store)


def test_messages_of_an_open_order_stay_also_where_there_are_too_many(store, write):
    saved = _ordered(write)
    number = _add(write, 1, keys=(("#order", str(saved.id)),))
    rest = [_add(write, each, keys=()) for each in range(2, 6)]
    assert prune(store, ArchiveSettings(messages_max=2), NOW) == Pruned(2, 1)
    assert _kept(store) == [number, *rest[2:]]


def test_the_newest_message_always_stays_so_that_no_number_comes_twice(store, write):
    numbers = [_add(write, number, age_days=4000) for number in range(3)]
    assert prune(store, KEEP, NOW) == Pruned(2, 0)
    assert _kept(store) == numbers[-1:]
    assert _add(write, 9) > numbers[-1]


def test_a_dry_run_says_the_same_and_deletes_nothing(store, write):
    saved = _ordered(write)
    _add(write, 1, age_days=400, keys=(("#order", str(saved.id)),))
    for number in range(2, 5):
        _add(write, number, age_days=400)
    _add(write, 6)
    before = _kept(store)
    assert would_prune(store.reader, KEEP, NOW) == Pruned(3, 1)
    assert _kept(store) == before
    assert prune(store, KEEP, NOW) == Pruned(3, 1)


def test_an_empty_archive_has_nothing_due(store):
    assert prune(store, ArchiveSettings(messages_max=1), NOW) == Pruned(0, 0)
    assert due(store.reader, KEEP, NOW).newest == 0


def test_other_writes_come_between_the_batches(store, write):
    write(
        lambda unit: [unit.add_message(replace(message(number), received_at=NOW - YEAR * 2)) for number in range(350)]
    )
    _add(write, 999)
    before = store.counts.committed
    assert prune(store, KEEP, NOW) == Pruned(350, 0)
    assert store.counts.committed - before >= 350 // BATCH


def test_the_file_shrinks(store, write, url):
    big = b"MSH|" + b"x" * 20_000
    write(lambda unit: [
        unit.add_message(replace(message(number, raw=big), received_at=NOW - YEAR * 2)) for number in range(200)
    ])  # fmt: skip
    _add(write, 999)
    checkpoint = "PRAGMA wal_checkpoint(TRUNCATE)"
    path = database_path(url)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(checkpoint)
        before = path.stat().st_size
        prune(store, KEEP, NOW)
        connection.execute(checkpoint)
    assert path.stat().st_size < before - 150 * 20_000


def test_what_was_begun_and_stopped_is_finished_by_the_next_run(store, write):
    numbers = [_add(write, number, age_days=400) for number in range(5)]
    last = _add(write, 9)
    write(lambda unit: unit.prune_messages(last, 2))  # and then the power failed
    assert _kept(store) == [*numbers[2:], last]
    assert prune(store, KEEP, NOW) == Pruned(3, 0)


def _request(write, uid, age_days=0, status=0):
    at = NOW - timedelta(days=age_days)
    return write(lambda unit: unit.archive_performed(uid, "N-CREATE", "CT1", b"x" * 20_000, status, "", at))


def _performed(write, uid, state=MPPSState.COMPLETED, attention=Attention.NONE):
    step = PerformedStep(uid, state, {}, "CT1", attention=attention)
    write(lambda unit: unit.save_performed_step(step, NOW))


def _requests(store):
    return [each.id for each in store.reader.performed_requests_in_order(NOW - YEAR * 99, 10_000)]


def test_requests_of_performed_steps_that_are_over_go_after_their_days_and_the_steps_stay(store, write):
    for uid, attention in (("1.1", Attention.NONE), ("1.2", Attention.SET_ASIDE)):
        _performed(write, uid, attention=attention)
        _request(write, uid, age_days=400)
    _request(write, "1.3", age_days=400, status=0x0112)  # refused, and of no step
    young = _request(write, "1.1", age_days=364)
    assert would_prune(store.reader, KEEP, NOW) == Pruned(requests=3)
    assert prune(store, KEEP, NOW) == Pruned(requests=3)
    assert _requests(store) == [young]
    assert store.reader.performed_step("1.2") is not None


@pytest.mark.parametrize(
    ("state", "attention"),
    [
        (MPPSState.IN_PROGRESS, Attention.NONE),
        *((MPPSState.COMPLETED, each) for each in Attention if each not in (Attention.NONE, Attention.SET_ASIDE)),
    ],
)
def test_requests_of_what_has_not_ended_or_is_to_be_decided_stay(store, write, state, attention):
    _performed(write, "1.1", state, attention)
    number = _request(write, "1.1", age_days=4000)
    _request(write, "1.2")
    assert prune(store, KEEP, NOW) == Pruned(requests_kept=1)
    assert number in _requests(store)


@pytest.mark.parametrize("parked", [False, True])
def test_requests_stay_until_everybody_was_told(store, write, parked):
    _performed(write, "1.1")
    number = _request(write, "1.1", age_days=4000)
    _request(write, "1.2")
    new = NewDelivery("pacs", "1.1", "1.1", b"x", number, DeliveryKind.PERFORMED, "N-CREATE")
    waiting = write(lambda unit: unit.add_delivery(new, NOW))
    if parked:
        write(lambda unit: park(unit, waiting))
    assert prune(store, KEEP, NOW) == Pruned(requests_kept=1)
    write(lambda unit: unit.drop_delivery(waiting))
    assert prune(store, KEEP, NOW) == Pruned(requests=1)


def test_the_newest_request_stays_and_without_days_all_do(store, write):
    numbers = [_request(write, "1.1", age_days=4000) for _ in range(3)]
    assert prune(store, ArchiveSettings(messages_max=1), NOW) == Pruned()
    assert prune(store, KEEP, NOW) == Pruned(requests=2)
    assert _requests(store) == numbers[-1:]
    assert _request(write, "1.1") > numbers[-1]


def test_the_space_of_requests_is_given_back(store, write, url):
    for _ in range(2 * BATCH + 1):
        _request(write, "1.1", age_days=400)
    checkpoint = "PRAGMA wal_checkpoint(TRUNCATE)"
    path = database_path(url)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(checkpoint)
        before = path.stat().st_size
        assert prune(store, KEEP, NOW) == Pruned(requests=2 * BATCH)
        connection.execute(checkpoint)
    assert path.stat().st_size < before - BATCH * 20_000


def test_a_number_that_is_no_message_is_deleted_without_harm(store, write):
    number = _add(write, 1)
    assert write(lambda unit: unit.delete_messages([number, 77])) == 1
