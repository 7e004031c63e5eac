"""The corpus of FHIR orders (`fhir_corpus/`): every case by HTTP, and every row of the mapping table."""

import itertools
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from gateway.config import load_site
from gateway.domain.identifiers import Issuers, Mint
from gateway.domain.mapping import Mapping as FieldMapping
from gateway.edges.store import Store
from gateway.mapping_files import load_mappings
from gateway.testing import site
from gateway.wire.fhir_release import Release
from gateway.wire.fhir_states import APPOINTMENT_STATES, IMAGING_CATEGORIES, INTENTS, ORDER_STATES, TASK_STATES
from gateway.workflow.fhir_feed import OUR_SERVER, FHIRFeed
from tests.cases.fhir_corpus.model import Case, cases
from tests.cases.fhir_corpus.runner import Desk, HTTPDesk, shown

MAPPINGS = Path(__file__).parents[2] / "mappings"
CASES_MIN = 150
NAMES = {Release.R4: "imaging-order", Release.R4B: "imaging-order", Release.R5: "imaging-order-r5"}
_numbers = itertools.count(10_001)  # five digits in every run, so that no number is part of another


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database to copy."""
    folder = tmp_path_factory.mktemp("corpus")
    Store(load_site(site(folder)).store_url).close()
    return folder / "gateway.db"


@pytest.fixture(scope="session")
def shipped() -> Mapping[str, FieldMapping]:
    """The mappings that come with the gateway."""
    return load_mappings(MAPPINGS, Issuers(), []).mappings


@pytest.fixture
def desk(empty: Path, tmp_path: Path, shipped: Mapping[str, FieldMapping]) -> Iterator[Desk]:
    shutil.copy(empty, tmp_path / "case.db")
    zone = ZoneInfo("Europe/Berlin")
    with Store(f"sqlite:///{tmp_path / 'case.db'}", zone="Europe/Berlin") as store:
        yield HTTPDesk(store, FHIRFeed(
            OUR_SERVER, {release: shipped[name] for release, name in NAMES.items()}, Mint(store.site_namespace()),
            department=zone, categories=IMAGING_CATEGORIES,
        ))  # fmt: skip


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_every_order_is_answered_and_listed_as_its_case_says(case: Case, desk: Desk) -> None:
    number = str(next(_numbers))
    for place, sent in enumerate(case.sends, 1):
        expected = sent.expected
        answer = desk.send(sent.content(number), case.release)
        assert answer.status == expected.status, f"request {place}: {answer.told}"
        assert sorted(answer.issues) == sorted(each.replace("{id}", number) for each in expected.issues), answer.told
        assert expected.says.replace("{id}", number) in answer.told, f"request {place}"
        if expected.items is None:
            continue
        left = desk.items()
        for item in expected.items:
            wanted = {keyword: text.replace("{id}", number) for keyword, text in item.items()}
            found = [other for other in left if shown(other, wanted) == wanted]
            assert found, (
                f"request {place}: not listed: {wanted}; listed are {[shown(other, wanted) for other in left]}"
            )
            left.remove(found[0])
        assert not left, f"request {place}: listed beyond what is expected"


def test_the_corpus_covers_every_state_and_every_rule(shipped: Mapping[str, FieldMapping]) -> None:
    assert len(cases()) >= CASES_MIN
    covered = {row for case in cases() for row in case.shows}
    states = [
        *(f"ServiceRequest.status {status}" for status in ORDER_STATES if status != "ended"),  # of later builds than R5
        *(f"Task.status {status}" for status in TASK_STATES if status != "requested"),
        *(f"Appointment.status {status}" for status in APPOINTMENT_STATES if status != "booked"),
        *(
            f"ServiceRequest.intent {intent}"
            for intent in INTENTS
            if intent not in ("order", "directive", "reflex-order")
        ),
    ]
    assert not set(states) - covered


@pytest.mark.parametrize("releases", [("R4", "R4B"), ("R5",)], ids=["R4", "R5"])
def test_every_attribute_that_a_rule_makes_is_looked_at_in_an_item(
    shipped: Mapping[str, FieldMapping], releases: tuple[str, ...]
) -> None:
    """Of R5 the rules that are written for it: the others are those of R4."""
    name = NAMES[Release(releases[0])]
    rules = [rule for level in shipped[name].rules.rules.values() for rule in level]
    made = {rule.keyword for rule in rules if rule.origin.startswith(f"{name}:")}
    looked_at = {
        keyword
        for case in cases() if case.release.value in releases
        for sent in case.sends
        for item in sent.expected.items or ()
        for keyword, text in item.items() if text
    }  # fmt: skip
    assert not made - looked_at
