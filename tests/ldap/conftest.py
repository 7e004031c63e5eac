"""A running OpenLDAP per test."""

import pytest

from tests.ldap.slapd import slapd


@pytest.fixture
def server(tmp_path):
    """An empty configuration, with nothing but our schema."""
    with slapd(tmp_path / "slapd") as running:
        yield running
