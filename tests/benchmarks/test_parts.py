"""The parts of the benchmarks do what their figures say they do."""

import inspect
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import pytest

from gateway.config import load_site
from gateway.domain.identifiers import Mint
from gateway.domain.refusal import Refused
from gateway.edges.store import Store
from gateway.fhir_processing import fhir_feeds_of
from gateway.processing import feeds_of
from gateway.testing import omi
from gateway.wire import fhir_bundle, fhir_models, hl7_batch
from gateway.wire.fhir_release import Release
from gateway.workflow import fhir_intake, intake
from tests.benchmarks import archive_population, fhir_traffic, outbox_backlog, population
from tests.benchmarks.archive_search import searched
from tests.benchmarks.department import department
from tests.benchmarks.fhir_profile import FHIR_ROAD
from tests.benchmarks.fhir_traffic import Content
from tests.benchmarks.hl7_traffic import BATCH, LISTENERS, MIX, Supply, kinds
from tests.benchmarks.order_profile import ROAD
from tests.benchmarks.peers import PARSERS
from tests.benchmarks.stage_clock import CONTROL, FHIR_GATES, GATES, UNIT, StageClock, found
from tests.benchmarks.watched import family_megabytes, watched

HELD = 4


def test_every_kind_of_message_is_answered_as_its_kind_says(tmp_path: Path) -> None:
    config = department(tmp_path / "site", LISTENERS)
    population.fill(config, population.numbers(HELD))
    site = load_site(config)
    with Store(site.store_url) as store:
        feeds = feeds_of(site, Mint(store.site_namespace()))
        for traffic in kinds(HELD):
            supply = Supply(traffic)
            for _ in range(2 if traffic.messages == 1 else 1):
                raw = supply.next()
                batch = hl7_batch.split(raw)
                messages = list(batch.messages) if batch else [raw]
                assert len(messages) == traffic.messages
                assert {_code(store, each, feeds[traffic.listener]) for each in messages[:2]} == {traffic.code}


def _code(store: Store, raw: bytes, feed: intake.Feed) -> str:
    """MSA-1, of the answer to a message that does something."""
    at = datetime.now(UTC)
    try:
        receipt = store.write(lambda unit: intake.receive(unit, raw, feed, "peer", at)).result()
    except Refused:
        return "AE"
    assert b"nothing changed" not in receipt.answer
    return receipt.answer.split(b"MSA|")[1][:2].decode()


@pytest.mark.parametrize("parser", PARSERS)
def test_a_peer_reads_the_control_id_out_of_a_whole_message(parser: str) -> None:
    text = omi(population.order(1)).message("M1", datetime(2026, 7, 5, tzinfo=UTC)).decode()
    assert PARSERS[parser]()(text) == "M1"


def test_a_busy_morning_is_a_hundred_percent_at_one_listener() -> None:
    assert sum(MIX) == 100
    assert len({traffic.listener for traffic in kinds(HELD)[: len(MIX)]}) == 1
    assert {traffic.messages for traffic in kinds(HELD)} == {1, BATCH}


def test_every_gate_of_an_orders_road_is_there() -> None:
    for place in (*GATES, *FHIR_GATES, CONTROL, UNIT):
        holder, name = found(place)
        assert not inspect.iscoroutinefunction(getattr(holder, name)), "a clock cannot see through an await"
    assert set(GATES.values()) < set(ROAD)
    assert set(FHIR_GATES.values()) < set(FHIR_ROAD)


@pytest.mark.parametrize("make", [fhir_traffic.plain_bundle, fhir_traffic.full_bundle])
def test_what_an_ehr_sends_is_right_and_becomes_an_order(tmp_path: Path, make: Callable[[int], Content]) -> None:
    bundle = make(1)
    assert fhir_models.problems(bundle, Release.R4) == ([], [])
    site = load_site(department(tmp_path / "site", fhir={}))
    request = fhir_bundle.request_of(bundle, Release.R4, fhir_traffic.written(bundle))
    with Store(site.store_url) as store:
        feed = fhir_feeds_of(site, Mint(store.site_namespace()))["fhir"]
        at = datetime.now(UTC)
        receipt = store.write(lambda unit: fhir_intake.receive(unit, request, feed, at)).result()
        assert receipt.disposition == "accepted"
        assert len(receipt.results) == len(bundle["entry"])


def test_a_stage_is_clocked_without_the_stages_inside_it() -> None:
    ticks = count(0, 10)
    clock = StageClock(lambda: next(ticks))
    inner = clock.gate(lambda: None, "inner")

    def work() -> None:
        inner()
        inner()

    clock.gate(work, "outer")()
    assert clock.end() == {"outer": 30, "inner": 20}
    clock.begin()
    assert clock.end() == {}


def test_a_stage_that_fails_is_clocked_all_the_same() -> None:
    ticks = count(0, 10)
    clock = StageClock(lambda: next(ticks))

    def fail() -> None:
        raise ValueError

    with pytest.raises(ValueError, match=r"^$"):
        clock.gate(fail, lambda: "named")()
    assert clock.end() == {"named": 10}


def test_every_search_of_a_generated_archive_but_two_finds_something(tmp_path: Path) -> None:
    store = tmp_path / "archive.db"
    archive_population.fill(store, 4_000)
    nothing = {each.what for each in searched(store, 10).timed if not each.found}
    assert {"unknown key", "held (none)"} <= nothing
    assert nothing <= {
        "unknown key", "held (none)", "accession and control ID", "refused of a day", "patient ID, refused",
        "type and listener of a day", "patient ID of a year",
    }  # fmt: skip


def test_the_memory_of_a_command_is_that_of_what_it_started_too() -> None:
    hog = "import sys; held = bytearray(50_000_000); print('ready', flush=True); sys.stdin.read()"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {hog!r}], check=True)"
    with subprocess.Popen(
        [sys.executable, "-c", parent], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert family_megabytes(process.pid) > 50


def test_a_command_is_run_to_its_end_and_gives_its_words() -> None:
    assert watched([sys.executable, "-c", "print('done'); raise SystemExit(3)"], success=(3,)).output == "done\n"


def test_a_command_that_fails_ends_the_run_with_its_words() -> None:
    with pytest.raises(RuntimeError, match="no such thing"):
        watched([sys.executable, "-c", "raise SystemExit('no such thing')"])


def test_a_backlog_is_as_the_store_would_have_made_it(tmp_path: Path) -> None:
    path = tmp_path / "backlog.db"
    outbox_backlog.fill(path, 20)
    with Store(f"sqlite:///{path}") as store:
        (queue,) = store.reader.queues()
        assert (queue.destination, queue.waiting, queue.oldest) == (
            outbox_backlog.AWAY, 20, outbox_backlog.FIRST + outbox_backlog.INTERVAL
        )  # fmt: skip
        later = outbox_backlog.FIRST + 100 * outbox_backlog.INTERVAL
        heads = store.reader.next_deliveries(outbox_backlog.AWAY, later, 100)
        assert [each.id for each in heads] == list(range(1, 20, outbox_backlog.PER_LANE))


def test_what_is_done_with_a_backlog_is_done_and_then_nothing_is_due(tmp_path: Path) -> None:
    path = tmp_path / "backlog.db"
    outbox_backlog.fill(path, 20)
    outbox_backlog.measure(path, 20, 4)
    with Store(f"sqlite:///{path}") as store:
        assert {each.destination: each.waiting for each in store.reader.queues()} == {
            outbox_backlog.AWAY: 16, outbox_backlog.THERE: 4
        }  # fmt: skip
        later = outbox_backlog.FIRST + 100 * outbox_backlog.INTERVAL
        assert set(store.reader.due_destinations(later)) == {outbox_backlog.AWAY, outbox_backlog.THERE}
    outbox_backlog.measure_delayed(path, 20, 4)
    with Store(f"sqlite:///{path}") as store:
        assert store.reader.due_destinations(later) == []
