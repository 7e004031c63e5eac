"""How the store reaches its database: connections, prepared statements, and what can go wrong with either.

Statements are SQLAlchemy Core; they are compiled once and run on the driver's own cursor, because SQLAlchemy's
execution costs 60 to 100 microseconds a statement and the driver's 3 to 8. What only SQLite needs (pragmas, error
codes, file modes) is in this module and in `maintenance`, nowhere else. PostgreSQL gets its place beside it here.
"""

import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any, Final, Protocol

from sqlalchemy import Engine, Executable, create_engine, event, make_url
from sqlalchemy.engine import Dialect
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import NullPool

from gateway.workflow.ports import KeyTaken

Row = tuple[Any, ...]


class StoreError(Exception):
    """The store cannot do this. The text names tables, columns and files, never a value (design D15)."""


class StoreUnavailable(StoreError):  # noqa: N818  (reads as what the caller has to answer)
    """Not now: disk full, locked by another, I/O error, too much waiting. The same may succeed later."""


class StoreTooSlow(StoreError):  # noqa: N818  (as above)
    """A question takes longer than whoever asks may take."""


class StoreConflict(StoreError, KeyTaken):  # noqa: N818  (as above)
    """A key that is unique would be there twice, or what is pointed to is not there."""

    @property
    def key(self) -> str:
        """The first column that SQLite names."""
        return str(self).partition(" failed: ")[2].split(",")[0]


class SchemaTooNew(StoreError):  # noqa: N818  (as above)
    """A newer release made this database."""


class SchemaTooOld(StoreError):  # noqa: N818  (as above)
    """The database needs `gateway upgrade` first."""


# SQLite result codes (sqlite.org/rescode.html) after which the same statement may succeed later. A damaged file is
# among them: nothing can be acknowledged, and senders keep their messages until an operator has restored it.
_TRANSIENT = frozenset({
    sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_INTERRUPT,
    sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_PERM,
})  # fmt: skip

_STEPS = 10_000
"""Of SQLite's machine between two looks at the clock: a fraction of a millisecond."""

_DRIVER_ERRORS = (sqlite3.Error, UnicodeEncodeError, OverflowError)


def store_error(error: Exception) -> StoreError:
    """The driver's error in the store's words. SQLite's texts name constraints and files, never values."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is None:  # raised before SQLite saw anything; texts of these may quote what was to be stored
        return StoreError(f"the driver refused a value or call: {type(error).__name__}")
    primary = code & 0xFF  # extended codes carry the primary one in the low byte
    if primary in _TRANSIENT:
        return StoreUnavailable(f"the database cannot be used now: {error}")
    if primary == sqlite3.SQLITE_CONSTRAINT:
        return StoreConflict(str(error))
    return StoreError(f"the database refused a statement: {error}")


class Prepared:
    """A Core statement that is compiled at its first use, once per dialect."""

    __slots__ = ("_compiled", "statement")

    def __init__(self, statement: Executable) -> None:
        self.statement: Final = statement
        self._compiled: dict[str, tuple[str, Callable[[Mapping[str, Any]], Sequence[Any]]]] = {}

    def on(self, dialect: Dialect) -> tuple[str, Callable[[Mapping[str, Any]], Sequence[Any]]]:
        """(SQL, what puts named values into the order of its parameters)."""
        made = self._compiled.get(dialect.name)
        if made is None:
            made = self._compiled[dialect.name] = self._compile(dialect)
        return made

    def _compile(self, dialect: Dialect) -> tuple[str, Callable[[Mapping[str, Any]], Sequence[Any]]]:
        compiled: Any = self.statement.compile(dialect=dialect)  # type: ignore[attr-defined]
        names: list[str] = compiled.positiontup
        constants = {name: value for name, value in compiled.params.items() if value is not None}
        if constants:
            return compiled.string, lambda values: [
                constants[name] if name in constants else values[name] for name in names
            ]
        if len(names) == 1:
            only = names[0]
            return compiled.string, lambda values: (values[only],)
        return compiled.string, itemgetter(*names) if names else lambda values: ()


class Queries(Protocol):
    """What a reader needs of a connection."""

    def rows(self, prepared: Prepared, **values: Any) -> list[Row]:
        """All rows; nothing stays open behind them."""

    def row(self, prepared: Prepared, **values: Any) -> Row | None:
        """The first row, if any."""

    def state(self) -> object:
        """Equal to an earlier one only if nobody has committed anything since; None where that cannot be told."""


class Connection:
    """One driver connection in autocommit mode; whoever wants a transaction begins and ends it.

    Every driver error leaves as StoreError or one of its kinds. `failure` is the last StoreUnavailable, so that a
    job which swallowed it can be told from one that was written; whoever begins a job sets it to None.
    """

    __slots__ = ("_dialect", "_driver", "_pooled", "_unseen", "failure")

    def __init__(self, engine: Engine) -> None:
        try:
            self._pooled = engine.raw_connection()
        except _DRIVER_ERRORS as error:
            raise store_error(error) from error
        self._dialect = engine.dialect
        self._driver: Any = self._pooled.driver_connection
        self.failure: StoreUnavailable | None = None
        self._unseen = 0

    def rows(self, prepared: Prepared, **values: Any) -> list[Row]:
        """All rows; nothing stays open behind them."""
        sql, order = prepared.on(self._dialect)
        try:
            found: list[Row] = self._driver.execute(sql, order(values)).fetchall()
        except _DRIVER_ERRORS as error:
            raise self._noted(error) from error
        return found

    def rows_within(self, seconds: float, prepared: Prepared, **values: Any) -> list[Row]:
        """As `rows`, but given up after so long. Raises StoreTooSlow."""
        end = time.monotonic() + seconds
        self._driver.set_progress_handler(lambda: time.monotonic() > end, _STEPS)
        try:
            return self.rows(prepared, **values)
        except StoreUnavailable as error:
            if getattr(error.__cause__, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT:
                raise StoreTooSlow(f"a question took longer than {seconds:g} s") from error
            raise
        finally:
            self._driver.set_progress_handler(None, 0)

    def row(self, prepared: Prepared, **values: Any) -> Row | None:
        """The first row, if any."""
        found = self.rows(prepared, **values)
        return found[0] if found else None

    def state(self) -> None:
        """Never told: what this connection itself changes does not count in the database's own version."""

    def version(self) -> int:
        """A number that every commit of another connection changes, as this one counts it."""
        try:
            version: int = self._driver.execute("PRAGMA data_version").fetchone()[0]
        except _DRIVER_ERRORS as error:
            raise self._noted(error) from error
        return version

    def run(self, prepared: Prepared, **values: Any) -> int:
        """How many rows were changed."""
        sql, order = prepared.on(self._dialect)
        try:
            changed: int = self._driver.execute(sql, order(values)).rowcount
        except _DRIVER_ERRORS as error:
            raise self._noted(error) from error
        return changed

    def run_unseen(self, prepared: Prepared, **values: Any) -> int:
        """As `run`, for what makes no difference to anybody who asks: it does not count as a change."""
        changed = self.run(prepared, **values)
        self._unseen += changed
        return changed

    @property
    def changes(self) -> int:
        """How many rows were changed so far, whatever became of it; only a difference means anything."""
        changed: int = self._driver.total_changes
        return changed - self._unseen

    def run_many(self, prepared: Prepared, rows: Iterable[Mapping[str, Any]]) -> None:
        """The same statement for each of these."""
        sql, order = prepared.on(self._dialect)
        try:
            self._driver.executemany(sql, [order(values) for values in rows])
        except _DRIVER_ERRORS as error:
            raise self._noted(error) from error

    def insert(self, prepared: Prepared, **values: Any) -> int:
        """The number that the database gave the new row. RETURNING says the same at twice the price."""
        sql, order = prepared.on(self._dialect)
        try:
            number: int = self._driver.execute(sql, order(values)).lastrowid
        except _DRIVER_ERRORS as error:
            raise self._noted(error) from error
        return number

    def number(self, prepared: Prepared, **values: Any) -> int:
        """The number the statement returns: of a new row, or the revision of a changed one."""
        number: int = self.rows(prepared, **values)[0][0]
        return number

    def control(self, sql: str) -> None:
        """Transaction control: BEGIN, COMMIT, ROLLBACK, SAVEPOINT and their kin."""
        try:
            self._driver.execute(sql)
        except _DRIVER_ERRORS as error:
            raise self._noted(error) from error

    def give_back(self, pages: int) -> int:
        """Give at most so many of the file's unused pages back to the disk; how many are unused still."""
        try:
            self._driver.execute(f"PRAGMA incremental_vacuum({pages:d})").fetchall()  # each step gives one page back
            unused: int = self._driver.execute("PRAGMA freelist_count").fetchone()[0]
        except _DRIVER_ERRORS as error:
            raise self._noted(error) from error
        return unused

    @property
    def in_transaction(self) -> bool:
        """False also after the database itself rolled back, as SQLite does when the disk is full."""
        open_: bool = self._driver.in_transaction
        return open_

    def close(self) -> None:
        """Ends it; an open transaction is rolled back. Never fails: there is nothing left to be done about it."""
        try:
            self._pooled.close()
        except _DRIVER_ERRORS:
            self._pooled.invalidate()

    def _noted(self, error: Exception) -> StoreError:
        wrapped = store_error(error)
        if isinstance(wrapped, StoreUnavailable):
            self.failure = wrapped
        return wrapped


class RenewingConnection:
    """A reader's connection, made at its first query; after a failure the next query gets a new one."""

    def __init__(self, engine: Engine, limit_s: float = 0.0) -> None:
        """`limit_s` is how long one statement may take; 0: as long as it does."""
        self._engine, self._limit_s = engine, limit_s
        self._held: Connection | None = None
        self._made = 0

    def rows(self, prepared: Prepared, **values: Any) -> list[Row]:
        """As `Connection.rows`."""
        held = self._connected()
        try:
            if self._limit_s:
                return held.rows_within(self._limit_s, prepared, **values)
            return held.rows(prepared, **values)
        except StoreError:
            self.close()
            raise

    def state(self) -> object:
        """The database's version, as this connection counts it."""
        held = self._connected()
        try:
            return self._made, held.version()
        except StoreError:
            self.close()
            raise

    def _connected(self) -> Connection:
        if self._held is None:
            self._held = Connection(self._engine)
            self._made += 1
        return self._held

    def row(self, prepared: Prepared, **values: Any) -> Row | None:
        """As `Connection.row`."""
        found = self.rows(prepared, **values)
        return found[0] if found else None

    def close(self) -> None:
        """Ends the held connection, if there is one; a query after this makes another."""
        held, self._held = self._held, None
        if held is not None:
            held.close()


# SQLite only, from here on.

SQLITE_VERSION_MIN = (3, 35, 0)  # INSERT ... RETURNING


def database_path(url: str) -> Path:
    """The file of a `sqlite:///path` URL.

    Raises StoreError for anything else: this release serves from SQLite.
    """
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise StoreError("the store's URL is not one; write sqlite:///path/to/gateway.db") from None
    if parsed.get_backend_name() != "sqlite" or not parsed.database or parsed.database == ":memory:":
        raise StoreError("this release keeps its data in an SQLite file; write sqlite:///path/to/gateway.db")
    return Path(parsed.database)


def create_private(path: Path) -> bool:
    """Make an empty file that only its owner may use; False where one is there already.

    SQLite gives its -wal and -shm files the mode of the database itself.
    """
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        return False
    except OSError as error:
        raise StoreUnavailable(f"{path} cannot be created: {error.strerror}") from error
    return True


def connect_to(url: str, *, busy_timeout_s: float) -> Engine:
    """An engine whose connections are set up as the store needs them; the file is created where it is missing.

    `busy_timeout_s` is how long a statement waits for another process's lock.
    """
    path = database_path(url)
    if sqlite3.sqlite_version_info < SQLITE_VERSION_MIN:
        raise StoreError(f"SQLite {sqlite3.sqlite_version} is too old; 3.35 or newer is needed")
    create_private(path)
    engine = create_engine(
        url,
        hide_parameters=True,
        poolclass=NullPool,  # the store holds its few connections itself
        connect_args={
            "isolation_level": None,  # we say BEGIN; the driver's own idea of it is DEFERRED
            "check_same_thread": False,  # opened by one thread, then used by one other
            "cached_statements": 512,  # more than all named statements with their variants
            "timeout": busy_timeout_s,
        },
    )
    event.listen(engine, "connect", _set_up)
    event.listen(engine, "begin", _begin_immediate)
    return engine


def _set_up(driver: sqlite3.Connection, _record: object) -> None:
    if driver.execute("PRAGMA page_count").fetchone() == (0,):
        driver.execute("PRAGMA auto_vacuum=INCREMENTAL")  # counts only before the first table; takes a write lock
    driver.execute("PRAGMA journal_mode=WAL")
    driver.execute("PRAGMA synchronous=FULL")  # in WAL mode, NORMAL may lose the last commits with the power
    driver.execute("PRAGMA foreign_keys=ON")
    driver.execute("PRAGMA temp_store=MEMORY")  # no patient data in temporary files
    driver.execute("PRAGMA cache_size=-16384")  # 16 MiB: the inner pages of every index at 100,000 items
    driver.execute("PRAGMA journal_size_limit=67108864")  # 64 MiB: what a large import leaves is given back


def _begin_immediate(connection: Any) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
