"""The database file is made private, recognised by its release, copied whole while in use, and put back safely."""

import json
import os
import shutil
import sqlite3
import stat
import threading
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sample_department import NOW, message, order, patient, query

from gateway.config import ArchiveSettings
from gateway.domain.matching import Narrowing
from gateway.edges import maintenance
from gateway.edges.database import SchemaTooNew, SchemaTooOld, StoreError, StoreUnavailable, connect_to, database_path
from gateway.edges.schema import SCHEMA_REVISION, metadata
from gateway.edges.store import Store
from gateway.retention import Pruned, prune
from gateway.workflow.ports import MessageSearch

MIGRATIONS = Path(maintenance.__file__).parent / "migrations"


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def _said_revision(url: str, revision: str) -> None:
    connection = sqlite3.connect(database_path(url))
    connection.execute("UPDATE alembic_version SET version_num = ?", (revision,))
    connection.commit()
    connection.close()


def _first_schema(path: Path) -> sqlite3.Connection:
    """A database as the first release made it, with a department's rows."""
    path.touch(mode=0o600)
    configuration = Config()
    configuration.set_main_option("script_location", str(MIGRATIONS))
    engine = connect_to(f"sqlite:///{path}", busy_timeout_s=5)
    with engine.begin() as connection:
        configuration.attributes["connection"] = connection
        command.upgrade(configuration, "0001")
    engine.dispose()
    database = sqlite3.connect(path)
    names = {1: {"Alphabetic": "Müller^Anna"}, 2: {"Alphabetic": "Doe^Jane", "Ideographic": "木^李"}}
    for number, name in names.items():
        attributes = json.dumps({"00100010": {"vr": "PN", "Value": [name]}})
        database.execute("INSERT INTO patients VALUES (?, ?, NULL, ?, 'then', 'then')",
                         (number, f"P{number}", attributes))  # fmt: skip
    database.execute("INSERT INTO patients VALUES (3, 'P3', NULL, '{', 'then', 'then')")
    database.executemany("INSERT INTO patient_names VALUES (?, ?)", [(1, "as it was folded then"), (3, "kept")])
    database.execute("INSERT INTO orders VALUES (1, 1, NULL, 'PL1', '', NULL, '', '{}', 'then', 'then')")
    database.execute("INSERT INTO requested_procedures VALUES (1, 1, '2.25.1', 'R1', 'A1', '', '{}', 0)")
    database.execute(
        "INSERT INTO steps VALUES (1, 1, 1, 1, 'S1', 'SCHEDULED', 1, '20261123083000', '', '', 'CT', '{}', 0, 4)"
    )
    database.commit()
    return database


# --- making


def test_database_is_made_at_first_opening_for_its_owner_alone(tmp_path):
    before = os.umask(0)
    try:
        path = tmp_path / "new.db"
        with Store(f"sqlite:///{path}") as store:
            store.write(lambda unit: unit.add_message(message(1))).result(timeout=10)
            files = sorted(tmp_path.iterdir())
            assert [file.name for file in files] == ["new.db", "new.db-shm", "new.db-wal"]
            assert {_mode(file) for file in files} == {0o600}
    finally:
        os.umask(before)


def test_two_sites_have_different_namespaces(tmp_path):
    found = set()
    for name in ("one.db", "two.db"):
        with Store(f"sqlite:///{tmp_path / name}") as store:
            found.add(store.site_namespace())
    assert len(found) == 2


def test_database_is_set_up_for_durability_and_shrinking(store, url):
    connection = store._engine.raw_connection()
    ask = {name: connection.driver_connection.execute(f"PRAGMA {name}").fetchone()[0]
           for name in ("journal_mode", "synchronous", "foreign_keys", "auto_vacuum")}  # fmt: skip
    connection.close()
    assert ask == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "auto_vacuum": 2}


def test_migrations_make_what_the_code_expects(store):
    with store._engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
        made = {row[0]: row[1] for row in connection.exec_driver_sql("SELECT name, sql FROM sqlite_master")}
    for table in metadata.tables.values():
        assert ("WITHOUT ROWID" in made[table.name]) == (table.dialect_options["sqlite"]["with_rowid"] is False)
        assert ("AUTOINCREMENT" in made[table.name]) == bool(table.dialect_options["sqlite"]["autoincrement"])
        for index in table.indexes:
            assert ("WHERE" in made[index.name]) == (index.dialect_options["sqlite"]["where"] is not None)


def test_newest_migration_is_the_codes_revision_and_revisions_are_numbers():
    configuration = Config()
    configuration.set_main_option("script_location", str(MIGRATIONS))
    scripts = ScriptDirectory.from_config(configuration)
    assert scripts.get_heads() == [SCHEMA_REVISION]
    numbers = [int(script.revision) for script in scripts.walk_revisions()]
    assert numbers == sorted(numbers, reverse=True)


@pytest.mark.parametrize("url", ["postgresql+psycopg://db/gateway", "sqlite://", "sqlite:///:memory:", "gateway.db"])
def test_url_that_is_no_sqlite_file_is_refused(url):
    with pytest.raises(StoreError, match="sqlite:///"):
        Store(url)


def test_folder_that_is_not_there_is_said(tmp_path):
    with pytest.raises(StoreUnavailable, match="cannot be created"):
        Store(f"sqlite:///{tmp_path / 'nowhere' / 'gateway.db'}")


def test_file_that_is_no_gateways_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "other.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE notes (text)")
    connection.commit()
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="not a gateway's"):
        Store(f"sqlite:///{path}")
    path_text = tmp_path / "letter.txt"
    path_text.write_text("not a database at all, but long enough to look like one " * 20)
    with pytest.raises(StoreError):
        Store(f"sqlite:///{path_text}")
    assert path.read_bytes() == before


# --- releases


def test_database_of_a_newer_release_is_refused(url):
    _said_revision(url, "0099")
    with pytest.raises(SchemaTooNew, match="newer release"):
        Store(url)
    with pytest.raises(SchemaTooNew):
        maintenance.upgrade(url, NOW)


def test_database_of_an_older_release_is_refused_with_what_to_do(url):
    _said_revision(url, "0000")
    with pytest.raises(SchemaTooOld, match="gateway upgrade"):
        Store(url)


def test_upgrade_makes_a_database_where_there_is_none(tmp_path):
    url = f"sqlite:///{tmp_path / 'new.db'}"
    assert maintenance.upgrade(url, NOW) is None
    with Store(url) as store:
        assert store.site_namespace()


def test_upgrade_of_this_releases_database_does_nothing(url, tmp_path):
    assert maintenance.upgrade(url, NOW) is None
    assert [path.name for path in tmp_path.iterdir()] == ["gateway.db"]


def test_upgrade_copies_first_and_leaves_all_as_it_was_where_it_fails(url, tmp_path):
    _said_revision(url, "0000")  # a revision the migrations do not know, so that going forward must fail
    with pytest.raises(StoreError):
        maintenance.upgrade(url, NOW)
    copy = tmp_path / "gateway.db.before-upgrade-from-0000-20261123T073000Z"
    assert _mode(copy) == 0o600
    with pytest.raises(SchemaTooOld):
        Store(url)


def test_upgrade_is_refused_while_the_service_runs(url, store, write):
    write(lambda unit: unit.add_message(message(1)))
    _said_revision(url, "0000")
    with pytest.raises(StoreUnavailable, match="stop the service"):
        maintenance.upgrade(url, NOW)


# --- copies


def test_backup_while_writing_is_whole_and_consistent(store, url, tmp_path):
    """Each job writes an order and its message; a copy has as many of the one as of the other."""
    stop = threading.Event()

    def keep_writing():
        number = 0
        while not stop.is_set():

            def job(unit, number=number):
                unit.save_order(order(unit.save_patient(patient(number), NOW), number), "NW", NOW)
                unit.add_message(message(number))

            store.write(job).result(timeout=10)
            number += 1

    writer = threading.Thread(target=keep_writing)
    writer.start()
    try:
        for copy in range(5):
            maintenance.backup(url, tmp_path / f"copy{copy}.db")
    finally:
        stop.set()
        writer.join()
    sizes = []
    for copy in range(5):
        target = tmp_path / f"copy{copy}.db"
        assert _mode(target) == 0o600
        with Store(f"sqlite:///{target}") as copied:
            items = copied.reader.candidates(Narrowing())
            assert len(items) == len(copied.reader.find_messages(MessageSearch(), 100_000))
            sizes.append(len(items))
    assert sizes == sorted(sizes)


def test_backup_overwrites_nothing_and_leaves_nothing_behind(url, tmp_path):
    target = tmp_path / "copy.db"
    target.write_text("something of value")
    with pytest.raises(StoreError, match="exists already"):
        maintenance.backup(url, target)
    assert target.read_text() == "something of value"
    with pytest.raises(StoreUnavailable):
        maintenance.backup(url, tmp_path / "nowhere" / "copy.db")
    with pytest.raises(StoreError):
        maintenance.backup(f"sqlite:///{tmp_path / 'missing.db'}", tmp_path / "copy2.db")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy.db", "gateway.db"]


def test_restore_puts_a_backup_back_and_the_old_database_aside(url, tmp_path):
    target = tmp_path / "copy.db"
    with Store(url) as store:
        namespace = store.site_namespace()
        store.write(lambda unit: unit.add_message(message(1))).result(timeout=10)
        maintenance.backup(url, target)
        store.write(lambda unit: unit.add_message(message(2))).result(timeout=10)
    aside = maintenance.restore(target, url, NOW, force=True)
    with Store(url) as store:
        assert store.site_namespace() == namespace
        assert [each.record.control_id for each in store.reader.find_messages(MessageSearch(), 10)] == ["M1"]
    assert aside is not None
    with Store(f"sqlite:///{aside}") as old:
        assert [each.record.control_id for each in old.reader.find_messages(MessageSearch(), 10)] == ["M2", "M1"]
    assert _mode(database_path(url)) == _mode(aside) == 0o600


def test_restore_where_nothing_is_needs_no_force(url, tmp_path):
    target = tmp_path / "copy.db"
    maintenance.backup(url, target)
    elsewhere = f"sqlite:///{tmp_path / 'elsewhere.db'}"
    assert maintenance.restore(target, elsewhere, NOW) is None
    with Store(url) as one, Store(elsewhere) as two:
        assert one.site_namespace() == two.site_namespace()


def test_restore_over_a_database_needs_force(url, tmp_path):
    target = tmp_path / "copy.db"
    maintenance.backup(url, target)
    with pytest.raises(StoreError, match="--force"):
        maintenance.restore(target, url, NOW)


def test_restore_is_refused_while_the_service_runs(store, write, url, tmp_path):
    target = tmp_path / "copy.db"
    maintenance.backup(url, target)
    write(lambda unit: unit.add_message(message(1)))
    with pytest.raises(StoreUnavailable, match="stop the service"):
        maintenance.restore(target, url, NOW, force=True)
    write(lambda unit: unit.add_message(message(2)))
    assert len(store.reader.find_messages(MessageSearch(), 10)) == 2


@pytest.mark.parametrize("damage", ["cut", "noise", "foreign", "newer", "empty"])
def test_restore_of_what_is_no_good_changes_nothing(url, tmp_path, damage):
    source = tmp_path / "copy.db"
    maintenance.backup(url, source)
    if damage == "cut":
        os.truncate(source, source.stat().st_size // 2)
    elif damage == "noise":
        raw = source.read_bytes()
        source.write_bytes(raw[: 4096 * 3] + bytes(range(256)) * 16 * 5 + raw[4096 * 8 :])
    elif damage == "newer":
        _said_revision(f"sqlite:///{source}", "0099")
    else:
        source.unlink()
        connection = sqlite3.connect(source)
        connection.execute("CREATE TABLE notes (text)" if damage == "foreign" else "VACUUM")
        connection.close()
    before = database_path(url).read_bytes()
    with pytest.raises(StoreError):
        maintenance.restore(source, url, NOW, force=True)
    assert database_path(url).read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["copy.db", "gateway.db"]


def test_copy_by_hand_of_a_closed_database_opens_too(url, tmp_path):
    shutil.copy(database_path(url), tmp_path / "by-hand.db")
    with Store(f"sqlite:///{tmp_path / 'by-hand.db'}") as store:
        assert store.site_namespace()


def test_upgrade_of_the_first_schema_keeps_what_is_held_and_finds_patients_by_name_anew(tmp_path):
    path = tmp_path / "old.db"
    url = f"sqlite:///{path}"
    _first_schema(path).close()
    with pytest.raises(SchemaTooOld, match="gateway upgrade"):
        Store(url)
    copy = maintenance.upgrade(url, NOW)
    assert copy is not None
    assert maintenance.upgrade(url, NOW) is None
    with Store(url) as store:
        assert store.reader.candidates(Narrowing(patient_name_prefix="muller")) == [(1, 4)]
        assert store.reader.candidates(Narrowing(patient_name_prefix="as it was")) == []
        (item,) = store.reader.items([1])
        assert item.site == ""
        order = store.reader.order(1)
        assert (order.site, order.placer.value) == ("", "PL1")
        store.write(lambda unit: unit.add_queries([query()], 10)).result(timeout=10)
        assert len(store.reader.queries("CT1")) == 1
        with store._engine.connect() as connection:
            names = connection.exec_driver_sql("SELECT folded FROM patient_names WHERE patient_id = 2").scalars()
            assert {"doe^jane", "木^李"} <= set(names)
            kept = connection.exec_driver_sql("SELECT folded FROM patient_names WHERE patient_id = 3").scalars()
            assert list(kept) == ["kept"]
            assert connection.exec_driver_sql("PRAGMA foreign_key_check").all() == []


def test_an_upgrade_of_many_patients_reaches_the_last(tmp_path):
    path = tmp_path / "old.db"
    database = _first_schema(path)
    name = json.dumps({"00100010": {"vr": "PN", "Value": [{"Alphabetic": "Last^Person"}]}})
    database.executemany(
        "INSERT INTO patients VALUES (?, '', NULL, ?, 'then', 'then')", [(number, name) for number in range(10, 1310)]
    )
    database.commit()
    database.close()
    maintenance.upgrade(f"sqlite:///{path}", NOW)
    database = sqlite3.connect(path)
    found = database.execute("SELECT count(*) FROM patient_names WHERE folded = 'last^person'").fetchone()
    database.close()
    assert found == (1300,)


def test_an_upgrade_keeps_the_archive_and_its_keys_and_can_prune_it(tmp_path):
    path = tmp_path / "old.db"
    database = _first_schema(path)
    for number in (1, 2):
        database.execute(
            "INSERT INTO messages VALUES (?, '2020-01-01T00:00:00.000000+00:00', 'ris', 'peer', 'RIS|H', ?, 'OMI^O23', "
            "x'00', x'4D', 'accepted', '', x'', 'm', ?, NULL)",
            (number, f"C{number}", json.dumps([["placer", f"PL{number + 1}"]])),
        )
        database.execute("INSERT INTO message_keys VALUES (?, ?, 'placer')", (f"PL{number + 1}", number))
    database.commit()
    database.close()
    maintenance.upgrade(f"sqlite:///{path}", NOW)
    with Store(f"sqlite:///{path}") as store:
        (found,) = store.reader.find_messages(MessageSearch("PL2"), 5)
        assert (found.id, found.record.direction, found.record.made_at) == (1, "in", "")
        assert [each.id for each in store.reader.find_messages(MessageSearch(listener="ris"), 5)] == [2, 1]
        assert prune(store, ArchiveSettings(days=365), NOW) == Pruned(1, 0)
        assert store.reader.find_messages(MessageSearch("PL2"), 5) == []
