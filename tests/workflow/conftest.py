"""The site and the empty database that whole roads are tested over."""

import shutil

import pytest

from gateway.config import load_site
from gateway.edges.store import Store
from gateway.testing import site


@pytest.fixture(scope="session")
def template(tmp_path_factory):
    """A site read once, and an empty database to copy."""
    folder = tmp_path_factory.mktemp("template")
    loaded = load_site(site(folder))
    Store(loaded.store_url).close()
    return loaded, folder / "gateway.db"


@pytest.fixture(scope="module")
def store(template, tmp_path_factory):
    """A store for jobs that leave no trace (`people.tried`)."""
    path = shutil.copy(template[1], tmp_path_factory.mktemp("people"))
    with Store(f"sqlite:///{path}", zone="Europe/Berlin") as opened:
        yield opened
