"""The tutorials, followed to the letter: their commands, and what they say these print."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cases.page_reader import Reader, blocks, fences, follow

FIRST_FEED, BY_FHIR = "first-feed.md", "connect-an-ehr-by-fhir.md"


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    somebody = Reader(tmp_path)
    yield somebody
    somebody.stops()


def test_the_first_feed_works_as_it_is_written(reader: Reader) -> None:
    follow(FIRST_FEED, reader)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_an_ehr_is_connected_as_it_is_written(reader: Reader) -> None:
    follow(BY_FHIR, reader)


def test_every_block_is_typed_or_printed() -> None:
    assert fences(FIRST_FEED) == [kind for kind, _ in blocks(FIRST_FEED)]
    typed = [kind for kind in fences(BY_FHIR) if kind != "yaml"]  # pieces of a configuration that nobody types
    assert typed == [kind for kind, _ in blocks(BY_FHIR)]
