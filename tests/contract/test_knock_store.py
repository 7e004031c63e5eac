"""Who knocked, in the store: a row for each AE title, address and certificate, the newest, and a database of before."""

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from hypothesis import given
from hypothesis import strategies as st

from gateway.edges import maintenance
from gateway.edges.database import connect_to
from gateway.edges.store import Store
from gateway.workflow.knocks import Knock, Knocks

THEN = datetime(2026, 11, 20, 8, tzinfo=UTC)


def knock(ae_title="CT9", address="10.0.0.9", at=0, **said):
    moment = THEN + timedelta(seconds=at)
    values = {"called_ae_title": "GATEWAY", "reason": "calling_unknown", "first_at": moment, "last_at": moment}
    return Knock(ae_title, address, **values | said)


def test_a_knock_comes_back_as_it_was_and_again_with_what_it_says_last(store, write):
    first = knock(implementation_version="PYNETDICOM_3", tls=True, fingerprint="ab" * 32, common_name="Zoë")
    write(lambda unit: unit.add_knocks([first]))
    assert store.reader.knocks() == [knock(
        implementation_version="PYNETDICOM_3", tls=True, fingerprint="ab" * 32, common_name="Zoë"
    )]  # fmt: skip
    write(lambda unit: unit.add_knocks([knock(at=60, reason="address", times=4, fingerprint="ab" * 32)]))
    (held,) = store.reader.knocks()
    assert (held.first_at, held.last_at, held.times) == (THEN, THEN + timedelta(seconds=60), 5)
    assert (held.reason, held.tls, held.common_name) == ("address", False, "")


def test_whoever_shows_another_certificate_is_kept_apart(store, write):
    waiting = Knocks()
    for at, digits in enumerate(("", "ab" * 32, "cd" * 32, "ab" * 32)):
        waiting.add(knock(at=at, fingerprint=digits))
    write(lambda unit: unit.add_knocks(waiting.take()))
    held = [(each.fingerprint[:2], each.times) for each in store.reader.knocks()]
    assert held == [("ab", 2), ("cd", 1), ("", 1)]
    assert write(lambda unit: unit.forget_knocks("CT9", "10.0.0.9", "ab" * 32)) == 1
    assert write(lambda unit: unit.forget_knocks("CT9", "10.0.0.9", "")) == 1
    assert [each.fingerprint for each in store.reader.knocks()] == ["cd" * 32]
    write(lambda unit: unit.add_knocks([knock(at=10 + n, fingerprint=f"{n:064x}") for n in range(9)], 6, 4))
    assert [each.last_at.second for each in store.reader.knocks()] == [18, 17, 16, 15]


def test_the_newest_stay_and_one_address_drives_out_only_its_own(store, write):
    write(lambda unit: unit.add_knocks([knock("CT1", "10.0.0.1", 0), knock("CT2", "10.0.0.2", 1)], 6, 4))
    flood = [knock(f"X{number}", "10.0.0.66", 10 + number) for number in range(9)]
    write(lambda unit: unit.add_knocks(flood, 6, 4))
    assert [each.ae_title for each in store.reader.knocks()] == ["X8", "X7", "X6", "X5", "CT2", "CT1"]
    write(lambda unit: unit.add_knocks([knock("MR1", "10.0.0.3", 99)], 6, 4))
    assert [each.ae_title for each in store.reader.knocks()] == ["MR1", "X8", "X7", "X6", "X5", "CT2"]


def test_knocks_are_forgotten_by_ae_title_and_address(store, write):
    write(lambda unit: unit.add_knocks([knock(address="10.0.0.1"), knock(address="10.0.0.2"), knock("CT8")]))
    assert write(lambda unit: unit.forget_knocks("CT9", "10.0.0.1")) == 1
    assert write(lambda unit: unit.forget_knocks("CT9", "10.0.0.1")) == 0
    assert {(each.ae_title, each.address) for each in store.reader.knocks()} == {
        ("CT9", "10.0.0.2"), ("CT8", "10.0.0.9"),
    }  # fmt: skip
    assert [each.address for each in store.reader.knocks("CT9")] == ["10.0.0.2"]


@given(st.lists(st.tuples(st.sampled_from("ABCDEF"), st.integers(0, 3)), max_size=60))
def test_what_waits_is_bounded_and_counts_every_time(who):
    waiting, counted = Knocks(4), {}
    for at, (title, address) in enumerate(who):
        waiting.add(knock(title, str(address), at))
        assert len(waiting) <= 4
        counted[title, str(address)] = counted.get((title, str(address)), 0) + 1
    taken = waiting.take()
    assert len(waiting) == 0
    if len(counted) <= 4:
        assert {(each.ae_title, each.address): each.times for each in taken} == counted


def test_a_database_of_the_release_before_gets_the_table(tmp_path):
    path = tmp_path / "gateway.db"
    path.touch(mode=0o600)
    configuration = Config()
    configuration.set_main_option("script_location", str(Path(maintenance.__file__).parent / "migrations"))
    engine = connect_to(f"sqlite:///{path}", busy_timeout_s=5)
    with engine.begin() as connection:
        configuration.attributes["connection"] = connection
        command.upgrade(configuration, "0005")
    engine.dispose()
    with closing(sqlite3.connect(path)) as database, pytest.raises(sqlite3.OperationalError, match="no such table"):
        database.execute("SELECT * FROM knocks")
    assert maintenance.upgrade(f"sqlite:///{path}", THEN) is not None
    with Store(f"sqlite:///{path}") as store:
        store.write(lambda unit: unit.add_knocks([knock()])).result(timeout=10)
        assert store.reader.knocks() == [knock()]
