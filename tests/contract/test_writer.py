"""One writer, committing in groups: what is told as done is on disk, and one job's trouble is its own."""

import asyncio
import sqlite3
import subprocess
import sys
import textwrap
import threading
from concurrent.futures import Future, wait

import pytest
from sample_department import NOW, message, order, patient

from gateway.domain.identifiers import Identifier
from gateway.domain.matching import Narrowing
from gateway.edges.database import StoreConflict, StoreError, StoreUnavailable, database_path
from gateway.edges.store import Store
from gateway.workflow.ports import MessageSearch


class _Blocked:
    """A job under way that holds the writer until released, so that what comes meanwhile is committed together."""

    def __init__(self, store: Store) -> None:
        self._go, began = threading.Event(), threading.Event()

        def hold(unit):
            began.set()
            self._go.wait(10)

        self.done = store.write(hold)
        assert began.wait(10)

    def release(self) -> None:
        self._go.set()


def _outcomes(futures: list[Future]) -> list[object]:
    wait(futures, timeout=20)
    return [future.exception() or future.result() for future in futures]


# --- groups


@pytest.mark.parametrize(("gathers", "batches"), [(True, 1), (False, 2)], ids=["gathers", "does not"])
def test_jobs_that_wait_are_committed_together(url, gathers, batches):
    with Store(url, gathers=gathers) as store:
        blocked = _Blocked(store)
        futures = [store.write(lambda unit, one=number: unit.add_message(message(one))) for number in range(10)]
        assert store.waiting == 10
        blocked.release()
        assert len(set(_outcomes(futures))) == 10
        assert (store.counts.batches, store.counts.committed) == (batches, 11)


def test_store_that_is_closed_while_a_batch_gathers_writes_what_was_offered_before(url):
    with Store(url) as store:
        blocked = _Blocked(store)
        offered = store.write(lambda unit: unit.add_message(message(1)))
        threading.Timer(0.05, blocked.release).start()
    assert offered.result()
    assert store.counts.committed == 2


def test_batch_is_bounded(url):
    with Store(url, batch_max=4) as store:
        blocked = _Blocked(store)
        futures = [store.write(lambda unit, one=number: unit.add_message(message(one))) for number in range(10)]
        blocked.release()
        _outcomes(futures)
        assert (store.counts.batches, store.counts.committed) == (3, 11)


@pytest.mark.parametrize("careful", [False, True], ids=["after good jobs", "after another that raised"])
def test_job_that_raises_is_undone_and_the_others_of_its_group_are_not(store, careful):
    def failing(unit):
        unit.add_message(message(2))
        raise LookupError("of its own")

    if careful:
        _outcomes([store.write(failing)])
    blocked = _Blocked(store)
    futures = [
        store.write(lambda unit: unit.add_message(message(1))),
        store.write(failing),
        store.write(lambda unit: unit.add_message(message(3))),
    ]
    blocked.release()
    _, refused, _ = _outcomes(futures)
    assert isinstance(refused, LookupError)
    assert [each.record.control_id for each in store.reader.find_messages(MessageSearch(), 10)] == ["M3", "M1"]
    assert (store.counts.committed, store.counts.refused) == (3, 1 + careful)


def test_a_group_with_a_job_that_raises_is_run_anew_and_its_results_are_those_of_the_second_run(store):
    runs: list[str] = []

    def counted(unit):
        runs.append("good")
        return unit.add_message(message(1)), len(runs)

    def failing(unit):
        runs.append("bad")
        raise LookupError("of its own")

    blocked = _Blocked(store)
    futures = [store.write(counted), store.write(failing)]
    blocked.release()
    (number, run), refused = _outcomes(futures)
    assert isinstance(refused, LookupError)
    assert (runs, run) == (["good", "bad"] * 2, 3)
    assert [each.id for each in store.reader.find_messages(MessageSearch(), 10)] == [number]


def test_after_a_job_that_raised_none_is_run_twice_for_a_while(store):
    runs: list[int] = []

    def failing(unit):
        runs.append(1)
        raise LookupError("of its own")

    for _ in range(3):
        _outcomes([store.write(failing)])
    assert len(runs) == 4


def test_conflict_undoes_its_job_only(store):
    blocked = _Blocked(store)
    futures = [store.write(lambda unit: unit.save_patient(patient(1), NOW)) for _ in range(3)]
    blocked.release()
    first, *rest = _outcomes(futures)
    assert isinstance(first, int)
    assert all(isinstance(each, StoreConflict) for each in rest)


def test_later_job_of_a_group_sees_what_the_earlier_one_did(store):
    def once(unit):
        known = unit.patients([Identifier("P1", "HOSPITAL")])
        return known[0].id if known else unit.save_patient(patient(1), NOW)

    blocked = _Blocked(store)
    futures = [store.write(once) for _ in range(5)]
    blocked.release()
    assert len(set(_outcomes(futures))) == 1


def test_nothing_is_told_before_it_is_committed(store, url):
    """Whoever is told, looks from another connection and finds it."""
    seen = []
    told = threading.Event()

    def look(future):
        with sqlite3.connect(database_path(url)) as other:
            seen.append(other.execute("SELECT count(*) FROM messages").fetchone()[0])
        other.close()
        told.set()

    blocked = _Blocked(store)
    futures = [store.write(lambda unit, one=number: unit.add_message(message(one))) for number in range(5)]
    futures[0].add_done_callback(look)
    blocked.release()
    assert told.wait(10)
    assert seen == [5]


def test_reader_sees_a_change_as_soon_as_it_is_told(store):
    for number in range(20):

        def save(unit, number=number):
            return unit.save_order(order(unit.save_patient(patient(number), NOW), number), "NW", NOW)

        store.write(save).result(timeout=10)
        assert len(store.reader.candidates(Narrowing())) == number + 1


def test_reader_leaves_no_transaction_open(store, write, url):
    write(lambda unit: unit.add_message(message(1)))
    assert store.reader.find_messages(MessageSearch(), 10)
    other = sqlite3.connect(database_path(url), isolation_level=None)
    write(lambda unit: unit.add_message(message(2)))
    busy, _, _ = other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    other.close()
    assert busy == 0


# --- bounds and life


def test_more_jobs_than_may_wait_are_unavailable_at_once(url):
    with Store(url, waiting_max=3) as store:
        blocked = _Blocked(store)
        futures = [store.write(lambda unit, one=number: unit.add_message(message(one))) for number in range(5)]
        assert [future.done() for future in futures] == [False, False, False, True, True]
        blocked.release()
        assert [isinstance(each, StoreUnavailable) for each in _outcomes(futures)] == [False] * 3 + [True] * 2


def test_job_cancelled_while_it_waits_is_not_run(store):
    blocked = _Blocked(store)
    dropped = store.write(lambda unit: unit.add_message(message(1)))
    kept = store.write(lambda unit: unit.add_message(message(2)))
    assert dropped.cancel()
    blocked.release()
    kept.result(timeout=10)
    assert [each.record.control_id for each in store.reader.find_messages(MessageSearch(), 10)] == ["M2"]


def test_an_event_loop_has_every_answer_of_a_group_and_each_its_own(store):
    def failing(unit):
        raise LookupError("of its own")

    async def scenario() -> list[object]:
        jobs = [lambda unit, one=number: unit.add_message(message(one)) for number in range(5)]
        return await asyncio.gather(*(store.written(job) for job in (*jobs, failing)), return_exceptions=True)

    blocked = _Blocked(store)
    threading.Timer(0.2, blocked.release).start()
    *numbers, failure = asyncio.run(scenario())
    assert len(set(numbers)) == 5
    assert isinstance(failure, LookupError)
    assert (store.counts.committed, store.counts.refused) == (6, 1)


def test_a_job_whose_task_is_cancelled_while_it_waits_is_not_run(store):
    async def scenario() -> None:
        dropped = asyncio.create_task(store.written(lambda unit: unit.add_message(message(1))))
        kept = asyncio.create_task(store.written(lambda unit: unit.add_message(message(2))))
        await asyncio.sleep(0)
        dropped.cancel()
        await asyncio.wait([dropped])
        blocked.release()
        await kept

    blocked = _Blocked(store)
    asyncio.run(scenario())
    assert [each.record.control_id for each in store.reader.find_messages(MessageSearch(), 10)] == ["M2"]


def test_what_comes_of_a_job_whose_event_loop_is_gone_is_written_all_the_same(store, write):
    async def left() -> None:
        task = asyncio.create_task(store.written(_hold))
        await asyncio.to_thread(began.wait, 10)
        task.cancel()

    def _hold(unit):
        began.set()
        go.wait(10)
        return unit.add_message(message(1))

    began, go = threading.Event(), threading.Event()
    asyncio.run(left())
    go.set()
    write(lambda unit: None)
    assert [each.record.control_id for each in store.reader.find_messages(MessageSearch(), 10)] == ["M1"]


def test_a_closed_store_is_unavailable_to_an_event_loop_too(url):
    store = Store(url)
    store.close()
    with pytest.raises(StoreUnavailable):
        asyncio.run(store.written(lambda unit: None))


def test_closing_writes_what_waits_and_takes_no_more(url):
    store = Store(url)
    futures = [store.write(lambda unit, one=number: unit.add_message(message(one))) for number in range(100)]
    store.close()
    assert all(future.exception() is None for future in futures)
    with pytest.raises(StoreUnavailable):
        store.write(lambda unit: None).result(timeout=1)
    store.close()


def test_what_was_written_is_there_when_opened_again(url):
    with Store(url) as store:
        namespace = store.site_namespace()
        store.write(lambda unit: unit.add_message(message(1))).result(timeout=10)
    with Store(url) as store:
        assert store.site_namespace() == namespace
        assert [each.record for each in store.reader.find_messages(MessageSearch(), 10)] == [message(1)]


# --- trouble


def test_job_that_swallows_a_failure_to_write_is_not_told_as_done(store):
    def careless(unit):
        unit.add_message(message(1))
        unit._write.control("PRAGMA max_page_count=1")  # this connection's limit: no page can be added
        try:
            for number in range(2, 50):
                unit.add_message(message(number, raw=bytes(100_000)))
        except StoreError:
            return "done"

    with pytest.raises(StoreUnavailable):
        store.write(careless).result(timeout=10)
    assert store.reader.find_messages(MessageSearch(), 10) == []


def test_full_disk_fails_what_does_not_fit_and_recovers_by_itself(store, write):
    write(lambda unit: unit._write.control("PRAGMA max_page_count=1"))
    blocked = _Blocked(store)
    futures = [
        store.write(lambda unit, one=number: unit.add_message(message(one, raw=bytes(1_000_000))))
        for number in range(3)
    ]
    blocked.release()
    assert all(isinstance(each, StoreUnavailable) for each in _outcomes(futures))
    assert store.counts.failing
    assert store.reader.find_messages(MessageSearch(), 10) == []
    write(lambda unit: unit._write.control("PRAGMA max_page_count=1000000"))
    write(lambda unit: unit.add_message(message(1, raw=bytes(1_000_000))))
    assert not store.counts.failing


_FILLS_A_SMALL_DISK = """
    import resource, sys
    from sample_department import message
    from gateway.edges.database import StoreUnavailable
    from gateway.edges.store import Store
    from gateway.workflow.ports import MessageSearch

    store = Store(sys.argv[1])
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))  # no file may grow beyond this: writes fail, EFBIG
    told = failed = 0
    for number in range(60):
        try:
            store.write(lambda unit: unit.add_message(message(number, raw=bytes(40_000)))).result(timeout=10)
            told += 1
        except StoreUnavailable:
            failed += 1
    assert told and failed, (told, failed)
    assert store.counts.failing
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    store.write(lambda unit: unit.add_message(message(999))).result(timeout=10)
    assert len(store.reader.find_messages(MessageSearch(), 1000)) == told + 1
    store.close()
    print(told + 1)
"""


def test_files_that_cannot_grow_lose_nothing_that_was_told_as_done(url):
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(_FILLS_A_SMALL_DISK), url],
        env={"PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    with Store(url) as store:
        assert len(store.reader.find_messages(MessageSearch(), 1000)) == int(done.stdout)


def test_database_locked_by_another_is_unavailable_and_then_available_again(url):
    with Store(url, busy_timeout_s=0.05) as store:
        other = sqlite3.connect(database_path(url), isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        blocked = [store.write(lambda unit: unit.add_message(message(1))) for _ in range(3)]
        assert all(isinstance(each, StoreUnavailable) for each in _outcomes(blocked))
        assert store.counts.failing
        assert store.reader.find_messages(MessageSearch(), 10) == []  # readers are not held up
        other.execute("ROLLBACK")
        other.close()
        store.write(lambda unit: unit.add_message(message(2))).result(timeout=10)
        assert not store.counts.failing
        assert [each.record.control_id for each in store.reader.find_messages(MessageSearch(), 10)] == ["M2"]


def test_writer_waits_for_another_process_for_a_while(url):
    with Store(url, busy_timeout_s=10) as store:
        other = sqlite3.connect(database_path(url), isolation_level=None, check_same_thread=False)
        other.execute("BEGIN IMMEDIATE")
        future = store.write(lambda unit: unit.add_message(message(1)))
        other.execute("COMMIT")
        other.close()
        assert future.result(timeout=10)


def test_damaged_database_is_unavailable_not_a_wrong_answer(url):
    with Store(url) as store:
        for number in range(200):
            store.write(lambda unit, one=number: unit.add_message(message(one))).result(timeout=10)
    path = database_path(url)
    raw = bytearray(path.read_bytes())
    raw[4096 * 20 :] = bytes(len(raw) - 4096 * 20)
    path.write_bytes(raw)
    with pytest.raises(StoreUnavailable, match="malformed"), Store(url) as store:
        store.write(lambda unit: unit.add_message(message(1))).result(timeout=10)


def test_errors_tell_no_values(store, write):
    write(lambda unit: unit.save_patient(patient(1, "Secret^Name"), NOW))
    failures = [
        lambda unit: unit.save_patient(patient(1, "Secret^Name"), NOW),
        lambda unit: unit.save_patient(patient(2, "Secret^Name\ud800"), NOW),
        lambda unit: unit.add_message(message(1, "Secret^Name\ud800")),
        lambda unit: unit.add_message(message(1, replay_of=2**70)),
        lambda unit: unit.save_order(order(77), "NW", NOW),
    ]
    for failure in failures:
        with pytest.raises(StoreError) as raised:
            write(failure)
        told, error = [], raised.value
        while error is not None:
            told.append(str(error))
            error = error.__cause__
        assert not any(mark in text for text in told for mark in ("Secret", "P1", "PL1", "1180591620717411303424"))
