"""The query log: adding never waits and never fails, batches are written, and what is lost is counted and said once."""

import asyncio
import sqlite3
import threading
from contextlib import closing

import pytest
from sample_department import query
from structlog.testing import capture_logs

from gateway.edges.database import database_path
from gateway.edges.query_log import BATCH_MAX, QueryLog

NEVER_S = 3600.0


def test_records_are_written_together_and_come_back(store):
    async def ask():
        log = QueryLog(store, 10, interval_s=NEVER_S)
        before = store.counts.committed
        for number in range(5):
            log.add(query(number))
        assert store.reader.queries() == []
        await log.flush()
        return log, store.counts.committed - before

    log, jobs = asyncio.run(ask())
    assert jobs == 1
    assert (log.counts.kept, log.counts.lost, log.waiting) == (5, 0, 0)
    assert len(store.reader.queries()) == 5


def test_records_are_written_by_themselves_when_their_time_has_come(store):
    async def ask():
        written = asyncio.Event()
        loop = asyncio.get_running_loop()
        add_queries = store.write

        def watched(use_case):
            future = add_queries(use_case)
            future.add_done_callback(lambda _: loop.call_soon_threadsafe(written.set))
            return future

        store.write = watched
        log = QueryLog(store, 10, interval_s=0.01)
        log.add(query(1))
        await asyncio.wait_for(written.wait(), 10)

    asyncio.run(ask())
    assert len(store.reader.queries()) == 1


def test_a_full_batch_does_not_wait_for_its_time(store):
    async def ask():
        log = QueryLog(store, 2 * BATCH_MAX, interval_s=NEVER_S)
        for number in range(BATCH_MAX):
            log.add(query(number))
        assert log.waiting == 0
        await log.close()

    asyncio.run(ask())
    assert len(store.reader.queries(limit=2 * BATCH_MAX)) == BATCH_MAX


def test_one_batch_is_under_way_at_a_time_and_what_waits_behind_it_is_bounded(store):
    release = threading.Event()

    async def ask():
        store.write(lambda unit: release.wait(30))
        log = QueryLog(store, 10_000, interval_s=NEVER_S, waiting_max=700)
        for number in range(BATCH_MAX + 1000):
            log.add(query(number))
        waiting_jobs = store.waiting
        with capture_logs() as said:
            for number in range(10):
                log.add(query(5_000 + number))
        release.set()
        await log.close()
        return log, waiting_jobs, said

    log, waiting_jobs, said = asyncio.run(ask())
    assert waiting_jobs <= 2
    assert (log.counts.dropped, log.counts.kept) == (310, BATCH_MAX + 700)
    assert said == []  # it was said at the first one
    newest = store.reader.queries(limit=1)[0]
    assert newest.record.identifier == b"identifier 5009"


def test_dropping_is_said_once(store):
    release = threading.Event()

    async def ask():
        store.write(lambda unit: release.wait(30))
        log = QueryLog(store, 10, interval_s=NEVER_S, waiting_max=2)
        with capture_logs() as said:
            for number in range(600):
                log.add(query(number))
        release.set()
        await log.close()
        return said

    assert [line["event"] for line in asyncio.run(ask())] == ["queries_dropped"]


@pytest.fixture
def unwritable(store, url):
    """Make writing fail until told otherwise: a trigger refuses every row."""
    with closing(sqlite3.connect(database_path(url))) as connection:
        connection.execute("CREATE TRIGGER refuse BEFORE INSERT ON queries BEGIN SELECT RAISE(ABORT, 'no'); END")
        connection.commit()

    def mend():
        with closing(sqlite3.connect(database_path(url))) as connection:
            connection.execute("DROP TRIGGER refuse")
            connection.commit()

    return mend


def test_records_that_cannot_be_written_are_counted_and_said_once_and_later_ones_are_kept(store, unwritable):
    async def ask():
        log = QueryLog(store, 10, interval_s=NEVER_S)
        with capture_logs() as said:
            for number in range(3):
                log.add(query(number))
                await log.flush()
            failing = log.counts.failing
            unwritable()
            log.add(query(4))
            await log.flush()
        return log, failing, [line["event"] for line in said]

    log, failing, said = asyncio.run(ask())
    assert failing
    assert said == ["queries_lost", "queries_kept_again"]
    assert (log.counts.lost, log.counts.kept, log.counts.failing) == (3, 1, False)
    assert len(store.reader.queries()) == 1


def test_a_closed_store_loses_records_and_stops_nothing(store):
    async def ask():
        log = QueryLog(store, 10, interval_s=NEVER_S)
        log.add(query(1))
        store.close()
        await log.close()
        return log.counts.lost

    assert asyncio.run(ask()) == 1


def test_a_service_that_stops_does_not_wait_for_a_locked_database_batch_by_batch(store, unwritable):
    jobs, write = [], store.write
    store.write = lambda use_case: jobs.append(use_case) or write(use_case)

    async def ask():
        log = QueryLog(store, 10, interval_s=NEVER_S)
        for number in range(4 * BATCH_MAX):
            log.add(query(number))
        await log.close()
        return log.counts.lost

    assert asyncio.run(ask()) == 4 * BATCH_MAX
    assert len(jobs) == 1


def test_the_registry_of_the_moment_says_who_is_known(store):
    registry = {"CT1"}

    async def ask():
        log = QueryLog(store, 1, lambda: registry, interval_s=NEVER_S)
        log.add(query(0, "CT1"))
        await log.flush()
        for number in range(300):
            log.add(query(number, f"N{number}"))
        await log.flush()

    asyncio.run(ask())
    assert len(store.reader.queries("CT1")) == 1
    assert len(store.reader.queries(limit=1000)) == 201


def test_where_none_are_to_be_kept_nothing_is(store):
    async def ask():
        log = QueryLog(store, 0)
        log.add(query(1))
        await log.close()

    asyncio.run(ask())
    assert store.reader.queries() == []


def test_nothing_said_of_a_failure_names_what_was_asked(store, unwritable):
    async def ask():
        log = QueryLog(store, 10, interval_s=NEVER_S)
        log.add(query(1, identifier=b"MARKED^NAME"))
        with capture_logs() as said:
            await log.flush()
        return said

    assert "MARKED" not in repr(asyncio.run(ask()))
