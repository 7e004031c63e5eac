"""The life of the database file: made, checked, copied, put back, brought up to date (`gateway backup`, `restore`,
`upgrade`).

Nothing here reads what is stored. All of it is SQLite's; PostgreSQL has tools of its own for copies. Every file
made here is its owner's alone (mode 0600), and nothing is ever overwritten: what was there is put aside first.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy.exc import DBAPIError

from gateway.edges.database import (
    SchemaTooNew,
    SchemaTooOld,
    StoreError,
    StoreUnavailable,
    connect_to,
    create_private,
    database_path,
    store_error,
)
from gateway.edges.schema import SCHEMA_REVISION

_BUSY_TIMEOUT_S = 5.0  # a running service holds its lock for milliseconds


def ensure_schema(url: str) -> None:
    """Make the database where there is none; otherwise see that it is this release's.

    Raises SchemaTooNew, SchemaTooOld, StoreError (no gateway's database), StoreUnavailable.
    """
    path = database_path(url)
    revision = _revision_of(path) if path.exists() else None
    if revision is None:
        _run_migrations(url)
    else:
        _refuse_newer(revision)
        if int(revision) < int(SCHEMA_REVISION):
            raise SchemaTooOld(
                f"the database {path} has schema {revision} and this release needs {SCHEMA_REVISION}: stop the "
                "service and run `gateway upgrade`"
            )


def upgrade(url: str, at: datetime) -> Path | None:
    """Bring the schema to this release's; the backup made before, or None where nothing had to be done.

    Raises StoreUnavailable while a service holds the database, SchemaTooNew, StoreError.
    """
    path = database_path(url)
    revision = _revision_of(path) if path.exists() else None
    if revision is None:
        _run_migrations(url)
        return None
    _refuse_newer(revision)
    if revision == SCHEMA_REVISION:
        return None
    with _held_alone(path):
        pass  # nobody serves from it; writers that come later wait for the migration's own lock
    copy = _beside(path, f"before-upgrade-from-{revision}", at)
    backup(url, copy)
    _run_migrations(url)
    return copy


def backup(url: str, target: Path) -> None:
    """A consistent copy, also while the service runs and writes; whole or not there at all.

    Raises StoreError where `target` exists, StoreUnavailable where it cannot be written.
    """
    path = database_path(url)
    if not path.exists():
        raise StoreError(f"there is no database at {path}")
    if not create_private(target):
        raise StoreError(f"{target} exists already; name another file")
    part = target.with_name(target.name + ".part")
    try:
        _copy(path, part)
        os.replace(part, target)
        _sync_folder(target)
    except BaseException:
        part.unlink(missing_ok=True)
        target.unlink(missing_ok=True)
        raise


def restore(source: Path, url: str, at: datetime, *, force: bool = False) -> Path | None:
    """Put a backup in the place of the database; where the old one now is, or None where there was none.

    The copy is checked before anything is moved. Raises StoreError where the source is damaged or no gateway's,
    where a database is there and `force` is not given; SchemaTooNew; StoreUnavailable while a service holds the
    database. A backup of an older release is put back as it is: `gateway upgrade` comes next.
    """
    path = database_path(url)
    if not source.exists():
        raise StoreError(f"there is no backup at {source}")
    if path.exists() and not force:
        raise StoreError(f"{path} exists; give --force to put it aside and restore over it")
    part = path.with_name(path.name + ".restoring")
    part.unlink(missing_ok=True)  # what an earlier attempt left
    try:
        _copy(source, part)
        revision = _revision_of(part)
        if revision is None:
            raise StoreError(f"{source} is empty")
        _refuse_newer(revision)
        if not path.exists():
            os.replace(part, path)
            _sync_folder(path)
            return None
        aside = _beside(path, "before-restore", at)
        if aside.exists():
            raise StoreError(f"{aside} exists already; move it away")
        with _held_alone(path):
            os.link(path, aside)  # so that at no instant there is no database, which a service would make anew
            os.replace(part, path)
            _sync_folder(path)
        return aside
    except OSError as error:
        raise StoreUnavailable(f"{path} cannot be replaced: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)


def _refuse_newer(revision: str) -> None:
    if int(revision) > int(SCHEMA_REVISION):
        raise SchemaTooNew(
            f"the database has schema {revision}, made by a newer release; this one knows {SCHEMA_REVISION}: "
            "install the newer release, or restore a backup from before its upgrade"
        )


def _beside(path: Path, what: str, at: datetime) -> Path:
    return path.with_name(f"{path.name}.{what}-{at.astimezone(UTC):%Y%m%dT%H%M%SZ}")


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    """A plain connection to a file that is there; errors in the store's words."""
    connection: sqlite3.Connection | None = None
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=_BUSY_TIMEOUT_S,
                                     isolation_level=None)  # fmt: skip
        yield connection
    except sqlite3.Error as error:
        raise store_error(error) from error
    finally:
        if connection is not None:
            connection.close()


def _revision_of(path: Path) -> str | None:
    """The schema revision; None for a database without any table.

    Raises StoreError where there are tables and none of them says so.
    """
    with _opened(path) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not tables:
            return None
        found = (
            connection.execute("SELECT version_num FROM alembic_version").fetchone()
            if "alembic_version" in tables
            else None
        )
    if found is None or not str(found[0]).isdecimal():
        raise StoreError(f"{path} is an SQLite database, but not a gateway's")
    return str(found[0])


def _run_migrations(url: str) -> None:
    """Alembic to head, in one transaction: whole or not at all, and one process at a time."""
    from alembic import command  # costs 0.2 s, and only a new or an old database needs it
    from alembic.config import Config
    from alembic.util.exc import CommandError

    configuration = Config()
    configuration.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    engine = connect_to(url, busy_timeout_s=_BUSY_TIMEOUT_S)
    try:
        with engine.begin() as connection:
            configuration.attributes["connection"] = connection
            command.upgrade(configuration, "head")
    except CommandError as error:
        raise StoreError(f"the schema cannot be brought up to date: {error}") from error
    except DBAPIError as error:
        if isinstance(error.orig, Exception):
            raise store_error(error.orig) from error
        raise
    except sqlite3.Error as error:
        raise store_error(error) from error


def _copy(source: Path, target: Path) -> None:
    """A checked copy as one file, with its bytes on disk."""
    if not create_private(target):
        raise StoreError(f"{target} exists; another copy may be under way, else delete it")
    try:
        with _opened(source) as original, _opened(target) as copy:
            original.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")  # one file, without -wal; the store sets its mode at opening
            if copy.execute("PRAGMA integrity_check(1)").fetchone() != ("ok",):
                raise StoreError(f"{source} is damaged")
        with target.open("rb") as written:
            os.fsync(written.fileno())
    except OSError as error:
        target.unlink(missing_ok=True)
        raise StoreUnavailable(f"{target} cannot be written: {error.strerror}") from error
    except BaseException:
        target.unlink(missing_ok=True)
        raise


@contextmanager
def _held_alone(path: Path) -> Iterator[None]:
    """Nobody else has the database open meanwhile.

    Leaving WAL mode needs to be alone (sqlite.org/wal.html, section 3), and brings what is in the -wal file into
    the database, so that it is one file which can be moved.
    """
    with _opened(path) as connection:
        try:
            connection.execute("PRAGMA busy_timeout=0")
            connection.execute("PRAGMA journal_mode=DELETE")
            connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            raise StoreUnavailable(f"{path} is in use: stop the service first") from error
        try:
            yield
        finally:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")


def _sync_folder(path: Path) -> None:
    """The new name is on disk as well."""
    folder = os.open(path.absolute().parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
