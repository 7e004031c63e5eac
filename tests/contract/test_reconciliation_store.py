"""Performed steps as people look through them, overdue work, who reports, and decisions: what is found, and by what."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from sample_department import NOW, order, patient

from gateway.domain.performed import Attention, MPPSState, PerformedStep
from gateway.domain.worklist import SPSStatus
from gateway.edges.database import Prepared
from gateway.edges.store import Store, StoreUnit
from gateway.edges.store_outbox import DELIVERIES_IN_LANE
from gateway.edges.store_performed import PERFORMED_STEPS_OF_STEP, REQUEST_FROM, REQUESTS_IN_ORDER, WAITING
from gateway.edges.store_queue_log import LAST_KEPT, QUEUE_DECISIONS, QUEUE_DECISIONS_OF_MESSAGE
from gateway.edges.store_reconciliation import (
    ATTENTION_COUNTS,
    DECISIONS,
    DECISIONS_OF,
    LAST_RECEIVED_FROM,
    NEXT_STATION,
    OVERDUE,
    OVERDUE_COUNT,
    PERFORMED_AT_STATION,
    RECEIVED_FROM,
    SCHEDULED_AT_STATION,
    UNFINISHED,
    PerformedShape,
    Walk,
    find_performed,
)
from gateway.workflow.ports import PerformanceReports, PerformedDecision, PerformedSearch

Write = Callable[[Callable[[StoreUnit], object]], object]
MINUTE = timedelta(minutes=1)


def held(number: int, **parts: object) -> PerformedStep:
    made = PerformedStep(f"1.2.{number:03}", MPPSState.IN_PROGRESS, {}, "CT1")
    return replace(made, **parts)  # type: ignore[arg-type]


@pytest.fixture
def people(write: Write) -> tuple[int, int]:
    def two(unit: StoreUnit) -> tuple[int, int]:
        first, second = (unit.save_patient(patient(number), NOW) for number in (1, 2))
        return first, second

    made = write(two)
    assert isinstance(made, tuple)
    return made


@pytest.fixture
def performed(write: Write, people: tuple[int, int]) -> None:
    """Twelve, a minute apart, but for two that came together."""

    def job(unit: StoreUnit) -> None:
        for number in range(12):
            step = held(
                number,
                attention=(Attention.NONE, Attention.NO_ORDER, Attention.ANOTHER_PATIENT)[number % 3],
                state=MPPSState.COMPLETED if number % 2 else MPPSState.IN_PROGRESS,
                calling_ae_title="MR1" if number >= 8 else "CT1",
                patient_id=people[number % 2] if number != 5 else None,
            )
            unit.save_performed_step(step, NOW + (number - (number == 7)) * MINUTE)

    write(job)


def numbers(store: Store, search: PerformedSearch, limit: int = 50, before: str = "") -> list[int]:
    found = store.reader.performed_steps(search, limit, before)
    return [int(each.performed.sop_instance_uid.rpartition(".")[2]) for each in found]


@pytest.mark.usefixtures("performed")
@pytest.mark.parametrize(
    ("search", "expected"),
    [
        (PerformedSearch(), [11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0]),
        (PerformedSearch(attentions=frozenset({Attention.NO_ORDER})), [10, 7, 4, 1]),
        (
            PerformedSearch(attentions=frozenset({Attention.NO_ORDER, Attention.ANOTHER_PATIENT})),
            [11, 10, 8, 7, 5, 4, 2, 1],
        ),
        (PerformedSearch(attentions=frozenset({Attention.SET_ASIDE})), []),
        (PerformedSearch(state=MPPSState.COMPLETED), [11, 9, 7, 5, 3, 1]),
        (PerformedSearch(caller="MR1 "), [11, 10, 9, 8]),
        (PerformedSearch(caller="MR1", state=MPPSState.COMPLETED), [11, 9]),
        (PerformedSearch(caller="CT1", attentions=frozenset({Attention.NO_ORDER})), [7, 4, 1]),
        (PerformedSearch(uid="1.2.01"), [11, 10]),
        (PerformedSearch(uid="1.2.01", state=MPPSState.COMPLETED), [11]),
        (PerformedSearch(uid="1.2%"), []),
        (PerformedSearch(since=NOW + 9 * MINUTE), [11, 10, 9]),
        (PerformedSearch(until=NOW + 2 * MINUTE), [1, 0]),
        (PerformedSearch(since=NOW + 2 * MINUTE, until=NOW + 4 * MINUTE), [3, 2]),
    ],
)
def test_performed_steps_are_found_newest_first(store: Store, search: PerformedSearch, expected: list[int]) -> None:
    assert numbers(store, search) == expected
    pages: list[int] = []
    before = ""
    while page := numbers(store, search, 2, before):
        pages += page
        before = f"1.2.{page[-1]:03}"
    assert pages == expected


@pytest.mark.usefixtures("performed")
def test_performed_steps_of_a_patient_and_their_times(store: Store, people: tuple[int, int]) -> None:
    assert numbers(store, PerformedSearch(patient=people[1])) == [11, 9, 7, 3, 1]
    assert numbers(store, PerformedSearch(patient=people[1], caller="CT1")) == [7, 3, 1]
    assert numbers(store, PerformedSearch(patient=999)) == []
    assert numbers(store, PerformedSearch(), before="1.2.999") == []
    found = store.reader.stored_performed("1.2.003")
    assert found is not None
    assert (found.created_at, found.performed.patient_id) == (NOW + 3 * MINUTE, people[1])
    assert store.reader.stored_performed("1.2.999") is None


# --- overdue


def _ordered(write: Write, people: tuple[int, int], number: int, status: SPSStatus = SPSStatus.SCHEDULED) -> int:
    def job(unit: StoreUnit) -> int:
        made = unit.save_order(order(people[0], number), "NW", NOW)
        step = made.procedures[0].steps[0].id
        assert step is not None
        unit.set_step_status(step, status, "test", NOW)
        return step

    step = write(job)
    assert isinstance(step, int)
    return step


def test_steps_that_nobody_began_are_overdue(store: Store, write: Write, people: tuple[int, int]) -> None:
    steps = [_ordered(write, people, number) for number in range(1, 5)]
    canceled = _ordered(write, people, 5, SPSStatus.CANCELED)
    write(lambda unit: unit.save_performed_step(held(1, steps=(steps[1],)), NOW))
    found = store.reader.overdue_steps("99991231000000", 50)
    expected = [steps[0], *steps[2:]]
    assert sorted(each.step.step_id for each in found) == expected
    assert canceled not in expected
    starts = [each.start_local for each in found]
    assert starts == sorted(starts)
    assert found[0].stations
    assert found[0].step == store.reader.steps([found[0].step.step_id])[0]
    assert store.reader.overdue_steps(starts[0], 50) == []
    assert store.reader.overdue_count("99991231000000") == len(found)
    assert store.reader.overdue_count("99991231000000", most=1) == 1
    assert store.reader.overdue_count(starts[0]) == 0
    paged = []
    last = 0
    while page := store.reader.overdue_steps("99991231000000", 1, last):
        last = page[-1].step.step_id
        paged += page
    assert paged == list(found)


# --- who reports


def test_stations_that_never_report_are_told_from_those_that_do(
    store: Store, write: Write, people: tuple[int, int]
) -> None:
    steps = [_ordered(write, people, number) for number in range(1, 5)]
    _ordered(write, people, 5, SPSStatus.CANCELED)
    title = store.reader.overdue_steps("99991231000000", 1)[0].stations[0]
    period = ("20000101000000", "99990101000000", NOW - MINUTE, NOW + MINUTE)
    before = {each.ae_title: each for each in store.reader.performance_reports(*period)}
    assert (before[title].performed, before[title].received, before[title].last_at) == (0, 0, None)
    write(lambda unit: unit.save_performed_step(held(1, calling_ae_title=title, steps=tuple(steps)), NOW))
    write(lambda unit: unit.save_performed_step(held(2, calling_ae_title=title), NOW + 5 * MINUTE))
    after = {each.ae_title: each for each in store.reader.performance_reports(*period)}
    scheduled = before[title].scheduled
    assert after[title] == PerformanceReports(
        title, scheduled, len([each for each in steps if title in _stations(store, each)]), 1, NOW + 5 * MINUTE
    )
    assert sum(each.scheduled for each in after.values()) >= len(steps) + 1  # also what was cancelled was planned
    assert store.reader.performance_reports("20000101000000", "20000102000000", NOW, NOW) == []


def _stations(store: Store, step_id: int) -> list[str]:
    (item,) = store.reader.items([step_id])
    return [str(each) for each in item.step["00400001"]["Value"]]


# --- decisions and requests


def test_decisions_are_kept_newest_first(store: Store, write: Write) -> None:
    lines = [
        PerformedDecision(NOW + number * MINUTE, uid, "linked", "anna", {"steps": [number]})
        for number, uid in enumerate(("1.2.1", "1.2.2", "1.2.1"))
    ]
    for line in lines:
        write(lambda unit, line=line: unit.log_performed(line))
    assert store.reader.performed_decisions("1.2.1") == [lines[2], lines[0]]
    assert store.reader.performed_decisions(limit=2) == [lines[2], lines[1]]
    assert store.reader.performed_decisions("1.2.3") == []


def test_requests_of_a_time_are_read_in_order(store: Store, write: Write) -> None:
    for number in range(6):
        write(
            lambda unit, n=number: unit.archive_performed(
                f"1.2.{n}", "N-CREATE", "CT1", b"raw", 0, "", NOW + n * MINUTE, "1.2.840.10008.1.2"
            )
        )

    def found(since: int, *rest: int, until: int | None = None) -> list[str]:
        end = NOW + until * MINUTE if until is not None else None
        return [
            each.sop_instance_uid
            for each in store.reader.performed_requests_in_order(NOW + since * MINUTE, *rest, until=end)
        ]

    assert found(4, 9) == ["1.2.4", "1.2.5"]
    assert found(-1, 2) == ["1.2.0", "1.2.1"]
    assert found(0, 9, 3, until=5) == ["1.2.3", "1.2.4"]
    assert found(9, 9) == []
    (one,) = store.reader.performed_requests_in_order(NOW + 5 * MINUTE, 1)
    assert (one.operation, one.raw, one.status, one.transfer_syntax) == ("N-CREATE", b"raw", 0, "1.2.840.10008.1.2")


# --- plans

_COLUMNS = [walk.value for walk in Walk if walk is not Walk.TIME]
_SHAPES = [
    PerformedShape(walk, frozenset(filters), uid)
    for walk in Walk
    for filters in ([], [each for each in _COLUMNS if each not in (walk.value, "attention")])
    for uid in (False, True)
]
_INDEXES = {
    Walk.PATIENT: "performed_steps_by_patient", Walk.ATTENTION: "performed_steps_for_people",
    Walk.CALLER: "performed_steps_by_caller", Walk.STATE: "performed_steps_by_state",
    Walk.TIME: "performed_steps_by_time",
}  # fmt: skip


def plan_of(store: Store, prepared: Prepared) -> list[str]:
    """What SQLite does for the statement, step by step."""
    sql, bind = prepared.on(store._engine.dialect)
    given = dict.fromkeys(
        ("patient_id", "attention", "calling_ae_title", "state", "since", "before_at", "before_uid", "uid_from",
         "uid_to", "limit", "most", "action", "archive_id",
         "before", "from_start", "after", "last", "ae_title", "listed", "start_from", "start_to",
         "until", "uid", "id", "kind", "value", "step_id", "but", "destination",
         "lane"),
        1,
    )  # fmt: skip
    connection = store._engine.raw_connection()
    try:
        return [row[3] for row in connection.driver_connection.execute(f"EXPLAIN QUERY PLAN {sql}", bind(given))]
    finally:
        connection.close()


@pytest.mark.parametrize("shape", _SHAPES, ids=[f"{s.walk.name} {len(s.filters)} {s.uid}" for s in _SHAPES])
def test_every_search_is_a_walk_along_one_index_in_order(store: Store, shape: PerformedShape) -> None:
    (step,) = plan_of(store, find_performed(shape))
    assert step.startswith("SEARCH performed_steps USING ")
    assert f"INDEX {_INDEXES[shape.walk]} (" in step


_PLANS = {
    OVERDUE: {"steps_by_start", "performed_step_links_by_step"},
    QUEUE_DECISIONS: {"queue_log_by_destination"},
    LAST_KEPT: {"queue_log_by_destination"},
    NEXT_STATION: {"step_stations_by_station"},
    SCHEDULED_AT_STATION: {"step_stations_by_station"},
    PERFORMED_AT_STATION: {"step_stations_by_station", "performed_step_links_by_step"},
    RECEIVED_FROM: {"performed_steps_by_caller"},
    LAST_RECEIVED_FROM: {"performed_steps_by_caller"},
    DECISIONS_OF: {"performed_log_by_instance"},
    QUEUE_DECISIONS_OF_MESSAGE: {"PRIMARY KEY (kind=? AND archive_id=?)", "INTEGER PRIMARY KEY"},
    UNFINISHED: {"performed_steps_by_state"},
    DELIVERIES_IN_LANE: {"outbox_by_lane"},
    REQUEST_FROM: {"INTEGER PRIMARY KEY"},
    REQUESTS_IN_ORDER: {"INTEGER PRIMARY KEY"},
}


@pytest.mark.parametrize("prepared", _PLANS, ids=[" ".join(sorted(each)) for each in _PLANS.values()])
def test_nothing_is_looked_through_or_sorted(store: Store, prepared: Prepared) -> None:
    plan = plan_of(store, prepared)
    assert not [step for step in plan if step.startswith("SCAN") or "TEMP B-TREE" in step], plan
    assert all(any(index in step for step in plan) for index in _PLANS[prepared]), plan


def test_what_people_should_look_at_is_counted_along_its_own_index(store: Store) -> None:
    # It has a row only for each performed step that a person should look at.
    assert plan_of(store, ATTENTION_COUNTS) == ["SCAN performed_steps USING COVERING INDEX performed_steps_for_people"]


def test_what_waits_for_an_order_is_found_by_its_key(store: Store) -> None:
    plan = plan_of(store, WAITING)
    assert plan[0] == "SEARCH performed_waiting USING PRIMARY KEY (kind=? AND value=?)"
    assert all(step.startswith("SEARCH") for step in plan), plan


def test_performed_steps_of_a_scheduled_one_are_found_by_it(store: Store) -> None:
    plan = plan_of(store, PERFORMED_STEPS_OF_STEP)
    assert "performed_step_links_by_step (step_id=?)" in plan[0]
    assert not [step for step in plan if step.startswith("SCAN")], plan  # some are put in order: they are few


def test_counting_attentions_walks_along_those_that_have_one_alone(store: Store) -> None:
    assert plan_of(store, ATTENTION_COUNTS) == [
        "SCAN performed_steps USING COVERING INDEX performed_steps_for_people"
    ]  # fmt: skip


def test_overdue_steps_are_counted_along_two_indexes_alone(store: Store) -> None:
    plan = plan_of(store, OVERDUE_COUNT)
    scans = [step for step in plan if step.startswith("SCAN") and not step.startswith("SCAN CONSTANT")]
    assert scans == ["SCAN anon_1"], plan  # what was found, which is no more than is to be counted
    for index in ("steps_by_start", "performed_step_links_by_step"):
        assert any(step.startswith("SEARCH") and f"INDEX {index} " in step for step in plan), plan


def test_the_log_as_a_whole_is_read_from_its_end(store: Store) -> None:
    assert plan_of(store, DECISIONS) == ["SCAN performed_log"]  # backwards along its numbers, as far as the limit
