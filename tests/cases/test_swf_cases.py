"""The cases of scheduled workflow (`swf/`): what modalities report, and what becomes of steps, items and orders."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from swf.datasets import tag_of
from swf.desk import Desk
from swf.model import Case, Event, cases

from gateway.config import Site, load_site
from gateway.edges.store import Store
from gateway.mapping_files import load_mappings
from gateway.testing import site
from gateway.wire.mpps_dataset import read_step
from gateway.workflow.audience import Outbound
from gateway.workflow.perform import PerformAnswer

MAPPINGS = Path(__file__).parents[2] / "mappings"
CASES_MIN = 40
"""The issue asks for 25; these are there."""


@pytest.fixture(scope="session")
def department(tmp_path_factory: pytest.TempPathFactory) -> tuple[Site, Path, Outbound]:
    """A site, an empty database to copy, and the mapping that tells placers."""
    folder = tmp_path_factory.mktemp("department")
    loaded = load_site(site(folder))
    Store(loaded.store_url).close()
    status = load_mappings(MAPPINGS, loaded.issuers, []).outbound["status-orm"]
    return loaded, folder / "gateway.db", status


@pytest.fixture
def desk(department: tuple[Site, Path, Outbound], tmp_path: Path) -> Iterator[Desk]:
    loaded, empty, status = department
    shutil.copy(empty, tmp_path / "case.db")
    with Store(f"sqlite:///{tmp_path / 'case.db'}", zone="Europe/Berlin") as store:
        yield Desk(loaded, store, status)


def happen(desk: Desk, event: Event) -> PerformAnswer | None:
    if event.action == "get":
        return desk.get(event.said, [tag_of(keyword) for keyword in event.said.get("tags", ())])
    answer: PerformAnswer | None = getattr(desk, event.action)(event.said)
    return answer


def check_answer(event: Event, answer: PerformAnswer | None) -> None:
    expected = event.expected
    if "answer" not in expected:
        assert answer is None or answer.status == 0, answer
        return
    assert answer is not None
    assert f"{answer.status:04X}" == expected["answer"], (answer.comment, answer.notes)
    assert answer.error_id == expected.get("error_id")
    if "tags" in expected:
        assert list(answer.attribute_tags) == [tag_of(keyword) for keyword in expected["tags"]]
    if "dataset" in expected:
        syntax = "1.2.840.10008.1.2" if event.action == "get" or event.said.get("implicit") else "1.2.840.10008.1.2.1"
        shown, _ = read_step(answer.dataset or b"", syntax)
        assert sorted(shown) == sorted(f"{tag_of(keyword):08X}" for keyword in expected["dataset"])
    for note in expected.get("notes", ()):
        assert note in answer.notes


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_case(case: Case, desk: Desk) -> None:
    statuses: dict[str, str] = {}
    for number, event in enumerate(case.events, 1):
        where = f"event {number}, {event.action} {event.said}"
        check_answer(event, happen(desk, event))
        if event.action == "order":
            statuses = {name: statuses.get(name, "SCHEDULED") for name in desk.names()}
        statuses |= {str(name): status for name, status in event.expected.get("steps", {}).items()}
        assert desk.statuses() == statuses, where
        forwards, told, done = desk.sent()
        assert forwards == event.expected.get("forwards", []), where
        assert told == event.expected.get("told", []), where
        assert done == event.expected.get("done", done), where
    assert desk.listed() == [str(name) for name in case.end["listed"]]
    orders = {str(number): status for number, status in case.end["orders"].items()}
    assert {number: desk.order_status(number) for number in orders} == orders
    for performed, attention in case.end.get("attention", {}).items():
        assert desk.held(performed).attention == attention


def test_every_case_of_the_table_and_every_vector_is_shown() -> None:
    shown = {name for case in cases() for name in case.shows}
    table = {f"9.{number}" for number in range(1, 12)}
    vectors = {f"vector {number}" for number in range(1, 19)} - {"vector 17"}  # a destination that is away: delivery
    bad_input = {
        "N-SET before N-CREATE", "N-SET twice", "N-SET after COMPLETED", "N-SET to another's step",
        "IN PROGRESS again in N-SET", "no patient named", "4,000 performed series", "answer lost",
    }  # fmt: skip
    assert table | vectors | bad_input <= shown
    assert len(cases()) >= CASES_MIN
