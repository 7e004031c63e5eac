"""The directory of devices in LDAP as a running gateway follows it, and the file that keeps what was read last.

What may live here: when the directory is looked at, what is said about that, and the snapshot. What a directory means
to the site is `config`'s matter, how it is read that of `edges.ldap_directory`. The gateway serves by the last good
directory, also after a restart; nothing here makes anybody wait for LDAP.
"""

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

import structlog

from gateway.config import ConfigError, Site
from gateway.domain.directory import Directory
from gateway.domain.directory_loss import Roll, roll_of
from gateway.domain.problem import Problem
from gateway.edges.ldap_directory import LDAPAccess, LDAPFailed, Mark, Snapshot
from gateway.edges.ldap_process import DirectoryProcess
from gateway.edges.metrics import DirectoryState
from gateway.security_settings import LDAPSettings

WHOLE_EVERY_S = 3600.0
"""After so long it is read whole, whatever its mark says: the marks of some servers miss a deletion."""

SAME_SECOND_S = 2.0
"""A mark that counts seconds is believed once it was read again so long after it was first seen: what else changed
within its second was read by then."""

PROBLEMS_SAID_MAX = 20
"""Problems of one refused directory that are logged one by one; `gateway devices check` has them all."""

_Result = TypeVar("_Result")

_log = structlog.get_logger()


class Source(Protocol):
    """Where the directory is read from. Both calls block, and raise LDAPFailed with words for people."""

    def mark(self, since: Mark) -> Mark:
        """What changes whenever anything in the directory does; cheap where `since` still holds."""

    def snapshot(self, known: Roll) -> Snapshot:
        """All of it, and what is wrong with single entries, which are left out or mended. Refused where hardly any of
        those that are known is left."""


Take = Callable[[Directory], Awaitable[None]]
"""Serves by a directory that was read, and keeps it in the snapshot. Raises ConfigError where it has mistakes, and
OSError where it cannot be kept; then nothing has changed."""


class DirectoryWatch:
    """Looks whether the directory has changed, has a changed one taken, and says when that is not possible.

    For one event loop. What is said of a trouble is said once, and again when it is another one.
    """

    def __init__(self, source: Source, snapshot: Path, take: Take, serving: Callable[[], Directory]) -> None:
        self._source = source
        self._snapshot = snapshot
        self._take = take
        self._serving = serving  # what is served by now
        self._looking = asyncio.Lock()  # what was asked for last is read last
        self._mark: Mark | None = None  # of what was read last, good or refused; None: it is to be read again
        self._next: Mark | None = None  # the mark of what is being taken
        self._first_seen = "", 0.0  # the contents of the last mark, and when, on the monotonic clock
        self._read_at = 0.0  # on the monotonic clock
        self._good_at = _modified(snapshot)
        self._doubts: Sequence[Problem] = ()
        self._refused: Sequence[Problem] = ()  # what is wrong with what was read last
        self._trouble = ""  # as it was said

    @property
    def state(self) -> DirectoryState:
        """How it stands: the age is that of what is served by since it was last found to be what the directory says."""
        age_s = None if self._good_at is None else max(0.0, time.time() - self._good_at)
        return DirectoryState(age_s, bool(self._trouble))

    async def look(self, *, whole: bool = False) -> None:
        """Read the directory if it has changed, or at any rate where `whole`. Raises nothing: all trouble is said."""
        async with self._looking:
            try:
                found = await _apart(partial(self._find, whole))
                if found is not None:
                    await self._accept(found)
            except LDAPFailed as error:
                self._fail("directory_unavailable", str(error))
            except OSError as error:
                self._fail("directory_not_kept", f"{self._snapshot.name} cannot be written: {error.strerror or error}")
            except Exception as error:  # a defect of ours must not end the watch
                self._fail("directory_look_failed", type(error).__name__, error)
            else:
                self._settle()

    def _find(self, whole: bool) -> Snapshot | None:
        """The directory, where its mark is another than before. Blocks."""
        if self._mark is not None and not whole and time.monotonic() - self._read_at < WHOLE_EVERY_S:
            mark = self._source.mark(self._mark)
            if mark.contents == self._mark.contents:
                self._mark = mark  # something else in that server may have changed
                return None
        asked_at = time.monotonic()
        found = self._source.snapshot(roll_of(self._serving()))
        if found.mark.contents != self._first_seen[0]:
            self._first_seen = found.mark.contents, time.monotonic()
        settled = found.mark.exact or asked_at - self._first_seen[1] >= SAME_SECOND_S
        self._next = found.mark if settled else None
        return found

    async def _accept(self, found: Snapshot) -> None:
        doubts = found.problems
        if doubts != self._doubts:
            for problem in doubts[:PROBLEMS_SAID_MAX]:
                _log.warning("directory_entry_problem", where=problem.where, text=problem.text, hint=problem.hint)
        self._doubts = doubts
        try:
            await self._take(found.directory)
        except ConfigError as error:
            self._refused = error.problems
        else:
            self._refused = ()
        self._mark, self._read_at = self._next, time.monotonic()

    def _settle(self) -> None:
        """The directory could be read, now or at the last change: say what came of it."""
        if self._refused:
            words = "; ".join(map(str, self._refused))
            if words != self._trouble:
                for problem in self._refused[:PROBLEMS_SAID_MAX]:
                    _log.error("directory_problem", where=problem.where, text=problem.text, hint=problem.hint)
            self._fail("directory_refused", words, said=f"{len(self._refused)} problem(s)")
            return
        if self._trouble:
            _log.info("directory_good_again")
        self._trouble = ""
        self._good_at = time.time()
        with contextlib.suppress(OSError):  # then it looks older than it is after a restart, no more
            os.utime(self._snapshot)

    def _fail(self, event: str, trouble: str, error: Exception | None = None, said: str = "") -> None:
        if trouble == self._trouble:
            return
        self._trouble = trouble
        served = "no device: none was ever read" if self._good_at is None else f"that of {_moment(self._good_at)}"
        _log.error(event, why=said or trouble, served_by=served, exc_info=error)


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")


def _modified(file: Path) -> float | None:
    try:
        return file.stat().st_mtime
    except OSError:
        return None


async def _apart(work: Callable[[], _Result]) -> _Result:
    """Run what blocks in a thread that nobody waits for at the end of the process, unlike those of the loop's pool:
    a server that hangs must not keep a gateway from stopping."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[_Result] = loop.create_future()

    def settle(result: _Result | None, error: BaseException | None) -> None:
        if done.cancelled():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]  # None only where the work's result is that

    def run() -> None:
        result: _Result | None = None
        failure: Exception | None = None
        try:
            result = work()
        except Exception as error:
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody asks any more
            loop.call_soon_threadsafe(settle, result, failure)

    threading.Thread(target=run, name="directory", daemon=True).start()
    return await done


# --- what the settings say --------------------------------------------------------------------------------------------


def watch(
    site: Site, ldap: LDAPSettings, snapshot: Path, take: Take, serving: Callable[[], Directory]
) -> DirectoryWatch:
    """A watch over this directory."""
    return DirectoryWatch(DirectoryProcess(ldap_access(site, ldap)), snapshot, take, serving)


def access_of(site: Site) -> LDAPAccess | None:
    """How the directory is reached that the settings name, in use or not; None where they name none."""
    ldap = site.settings.devices.ldap
    return ldap_access(site, ldap) if ldap is not None else None


def ldap_access(site: Site, ldap: LDAPSettings) -> LDAPAccess:
    """The settings of a directory as its client has them; files are relative to the configuration."""
    base, tls = site.file.parent, site.settings.tls

    def path(name: str) -> str:
        return str(base / name) if name else ""

    own = ldap if ldap.certificate else tls
    return LDAPAccess(
        servers=ldap.servers,
        discover=ldap.discover,
        base=ldap.base,
        bind=ldap.bind,
        user=ldap.user,
        password=ldap.password,
        start_tls=ldap.start_tls,
        ca=path(ldap.ca or tls.ca),
        crl=path(ldap.crl or ("" if ldap.ca else tls.crl)),
        certificate=path(own.certificate),
        key=path(own.key),
        plain=ldap.plain,
        timeout_s=ldap.timeout_s,
        entries_max=ldap.entries_max,
    )
