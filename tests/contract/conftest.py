"""The store under test. Everything here runs on each database the fixture names."""

import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest

from gateway.edges.store import Store, StoreUnit


@cache
def _new_database() -> bytes:
    """A database fresh from its migrations, made once: they take longer than most of these tests."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "gateway.db"
        Store(f"sqlite:///{path}").close()
        return path.read_bytes()


@pytest.fixture(params=["sqlite"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A new database's URL."""
    assert request.param == "sqlite"
    path = tmp_path / "gateway.db"
    path.touch(mode=0o600)
    path.write_bytes(_new_database())
    return f"sqlite:///{path}"


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    with Store(url, zone="Europe/Berlin") as opened:
        yield opened


@pytest.fixture
def write(store: Store) -> Callable[[Callable[[StoreUnit], object]], object]:
    """Run one job and give its result."""

    def run(use_case: Callable[[StoreUnit], object]) -> object:
        return store.write(use_case).result(timeout=10)

    return run
