"""A budget is judged rightly, and the page says what it was measured on without saying on whose machine."""

import importlib
import inspect
import socket
from datetime import date
from pathlib import Path

import pytest

from tests.benchmarks.crowd import Measured, rows
from tests.benchmarks.measure import machine
from tests.benchmarks.page import ARCHIVE, BENCH, with_part
from tests.benchmarks.profiled import (
    BY_FUNCTION,
    BY_MODULE,
    CANDIDATES,
    ENCODE,
    LOOP,
    MATCH,
    RELEASE,
    TELLING,
    WHOLE,
    WRITING,
    place_of,
)
from tests.benchmarks.report import Row, Section, part


@pytest.mark.parametrize(
    ("row", "kept"),
    [
        (Row("rate", 300, "/s", "peer", 100, at_least=3), True),
        (Row("rate", 299, "/s", "peer", 100, at_least=3), False),
        (Row("rate", 300, "/s", at_least=300), True),
        (Row("memory", 151, "MB", at_most=150), False),
        (Row("rate", 300, "/s", "peer", 100), None),
        (Row("rate", 300, "/s"), None),
    ],
)
def test_a_budget_bounds_the_ratio_where_there_is_a_peer_else_the_figure(row: Row, kept: bool | None) -> None:
    assert row.kept is kept


def test_a_part_of_the_page_names_neither_host_nor_path() -> None:
    text = part([Row("rate", 1234.5, "/s", "peer", 100, at_least=3)], [], machine())
    assert "| rate | 1,234 /s |  | peer: 100 /s | 12.3x | at least 3.00x | yes |" in text
    assert socket.gethostname() not in text
    assert str(Path.home()) not in text


def test_a_section_is_a_table_of_its_own_under_its_title() -> None:
    section = Section(
        "Where the time goes", "Some words. " * 20, ("What", "Time"), [("kernel", "12.0"), ("rest", "3.0")]
    )
    text = part([], [section], [])
    assert "### Where the time goes\n\nSome words." in text
    assert "| What | Time |\n| --- | --- |\n| kernel | 12.0 |\n| rest | 3.0 |" in text
    assert max(map(len, text.splitlines())) <= 120


def test_a_target_that_did_not_run_keeps_its_part_of_the_page() -> None:
    first = with_part("# An older page\n\nwithout parts", ARCHIVE, "| searches |", date(2026, 11, 22))
    assert "without parts" not in first
    assert "Not measured yet: `make bench` does it." in first
    both = with_part(first, BENCH, "| orders |", date(2026, 11, 23))
    again = with_part(both, BENCH, "| orders anew |", date(2026, 11, 24))
    assert "Measured on 2026-11-22 by `make bench-archive`.\n\n| searches |" in again
    assert "Measured on 2026-11-24 by `make bench`.\n\n| orders anew |" in again
    assert "2026-11-23" not in again
    assert len(again.splitlines()) == len(both.splitlines())


@pytest.mark.parametrize(
    ("frames", "place"),
    [
        ([], LOOP),
        ([("edges.dimse_server", "_write"), ("edges.dimse_server", "data_received")], WRITING),
        ([("edges.dimse_server", "_write"), ("edges.dimse_server", "_respond_release")], RELEASE),
        (
            [("wire.worklist_dataset", "get"), ("workflow.query", "_encode"), ("edges.dimse_server", "next_slice")],
            ENCODE,
        ),
        (
            [("edges.database", "rows"), ("edges.store_reader", "candidates"), ("workflow.query", "_matches")],
            CANDIDATES,
        ),
        ([("domain.matching", "matches"), ("workflow.query", "_matches")], MATCH),
        ([("edges.metrics", "request_done"), ("listening", "_observe")], TELLING),
    ],
)
def test_a_sample_counts_for_the_part_of_the_road_that_it_was_taken_on(
    frames: list[tuple[str, str]], place: str
) -> None:
    assert place_of(frames) == place


def test_the_places_of_a_profile_name_what_there_is() -> None:
    for module, function in {**WHOLE, **BY_FUNCTION}:
        source = inspect.getsource(importlib.import_module(f"gateway.{module}"))
        assert f"def {function}(" in source, f"{module} has no {function}"
    for module, _ in BY_MODULE:
        importlib.import_module(f"gateway.{module}")


def test_a_crowd_is_judged_by_its_slowest_hundredth_and_tells_what_it_missed() -> None:
    measured = Measured(queries=[float(ms) for ms in range(1, 101)], orders=[3.0, 5.0], failed=1, late=2, latest=7.0)
    latency, schedule, orders = rows("crowd", measured)
    assert (latency.ours, latency.kept) == (100.0, False)
    assert latency.times == "median 51.0 ms, 95% 96.0 ms, max 100.0 ms"
    assert (schedule.ours, schedule.times) == (3, "2 of 101 began late (by 7 ms at most), 1 failed")
    assert orders.ours == 5.0
