"""Bodies of FHIR requests, read and checked where the event loop does not wait for it (design D3b).

A usual one is read in a thread: it is done before a process could be asked. A large one holds the interpreter for too
long at a time (the parser of JSON does not let go before it is through), so a process of its own reads it, and gives it
back entry by entry. That process starts with the first large body.
"""

import asyncio
import contextlib
import multiprocessing
import os
import pickle
import re
import signal
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, NamedTuple

from gateway.domain.refusal import Refusal, RefusalKind, Refused
from gateway.domain.resources import Resource
from gateway.edges.own_processes import begin
from gateway.wire import fhir_json, fhir_models, fhir_xml
from gateway.wire.fhir_bounds import Bounds
from gateway.wire.fhir_negotiation import Format, Sent
from gateway.wire.fhir_release import Release

LARGE_BYTES = 128 * 1024
"""From here on a process reads it: that much JSON is parsed in about a millisecond, and checked in twenty."""

_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{},:]|[^"\[\]{},:\s]+')

_PROCESSES = 1  # the writer behind it is one, too

READ_S = 60.0
"""For one large body: the longest that is taken needs a third of that."""


class Understood(NamedTuple):
    """A body, read. `resource` is None where it cannot be; `refusals` then say why, else what is wrong in it."""

    resource: Resource | None
    refusals: Sequence[Refusal] = ()
    notes: Sequence[str] = ()


class BodiesUnavailable(Exception):  # noqa: N818  (what happened, as its neighbours say it)
    """The process that reads large bodies went away, twice."""


class Bodies:
    """Reads bodies; the process for large ones is started when there is one."""

    def __init__(self, read_s: float = READ_S) -> None:
        """`read_s` is how long a large body may take; the process is ended then."""
        self._read_s = read_s
        self._pool: ProcessPoolExecutor | None = None
        self._process: Any = None
        self._lock = threading.Lock()
        self._turn = asyncio.Lock()  # one after the other, so that each has the whole time

    async def understood(self, data: bytes, sent: Sent, release: Release, bounds: Bounds, check: bool) -> Understood:
        """What a body holds; with `check` also whether that is as the specification says. Raises BodiesUnavailable."""
        if len(data) < LARGE_BYTES:
            return await asyncio.to_thread(_understood, data, sent, release, bounds, check)
        async with self._turn:
            parcel = await self._read_there(data, sent, release, bounds, check)
        return await asyncio.to_thread(_opened, parcel) if parcel is not None else Understood(None, (_TOO_SLOW,))

    async def _read_there(self, *asked: Any) -> "_Parcel | None":
        """What the process makes of it; None where that takes too long. Raises BodiesUnavailable."""
        for _ in range(2):  # a process that somebody ended is replaced, once for each body
            pool = self._started()
            try:
                async with asyncio.timeout(self._read_s):
                    return await asyncio.wrap_future(pool.submit(_parcelled, *asked))
            except BrokenProcessPool:
                self._end(pool)
            except TimeoutError:
                self._end(pool)
                return None
        raise BodiesUnavailable

    async def written(self, resource: Resource, form: Format, release: Release, pretty: bool) -> bytes:
        """A resource as its reader wants it."""
        return await asyncio.to_thread(write, resource, form, release, pretty)

    def close(self) -> None:
        """End the process, if there is one, also while it reads; the next large body starts it again."""
        if self._pool is not None:
            self._end(self._pool)

    def _started(self) -> ProcessPoolExecutor:
        with self._lock:
            if self._pool is None:
                # Not forked: this process has threads and open sockets.
                context = multiprocessing.get_context("spawn")
                self._process = context.RawValue("i", 0)
                self._pool = ProcessPoolExecutor(_PROCESSES, context, _begin, (self._process,))
            return self._pool

    def _end(self, pool: ProcessPoolExecutor) -> None:
        with self._lock:
            if self._pool is not pool:
                return
            self._pool, process = None, self._process.value
        pool.shutdown(wait=False, cancel_futures=True)
        if process:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)  # it may be in the middle of something that has no end


def write(resource: Resource, form: Format, release: Release, pretty: bool = False) -> bytes:
    """A resource in one of the formats; pretty JSON is indented, XML is as it is."""
    if form is Format.XML:
        return fhir_xml.write(resource, release)
    data = fhir_json.write(resource)
    return _indented(data) if pretty else data


def _indented(data: bytes) -> bytes:
    """Compact JSON with a line for each member; numbers stay as they are written."""
    made: list[str] = []
    line = "\n"
    for piece in _TOKEN.findall(data.decode()):
        if piece in ("]", "}"):
            line = line[:-2]
            made.append(line)
        made.append(piece)
        if piece in ("[", "{"):
            line += "  "
        if piece in ("[", "{", ","):
            made.append(line)
        elif piece == ":":
            made.append(" ")
    return ("".join(made) + "\n").encode()


def _understood(data: bytes, sent: Sent, release: Release, bounds: Bounds, check: bool) -> Understood:
    try:
        resource = (
            fhir_xml.parse(data, release, bounds) if sent is Sent.XML else fhir_json.parse(data, bounds)
        )  # fmt: skip
    except Refused as refused:
        return Understood(None, refused.refusals)
    if not check:
        return Understood(resource)
    refusals, notes = fhir_models.problems(resource, release)
    return Understood(resource, refusals, notes)


# --- the other process ------------------------------------------------------------------------------------------------


class _Parcel(NamedTuple):
    """A body in pieces, each of which is unpacked in a moment."""

    shell: bytes
    entries: list[bytes] | None


def _parcelled(data: bytes, sent: Sent, release: Release, bounds: Bounds, check: bool) -> _Parcel:
    understood = _understood(data, sent, release, bounds, check)
    resource = understood.resource
    entries = resource.get("entry") if isinstance(resource, Mapping) else None
    if not isinstance(resource, Mapping) or not isinstance(entries, list):
        return _Parcel(pickle.dumps(understood), None)
    shell = understood._replace(resource={**resource, "entry": []})
    return _Parcel(pickle.dumps(shell), [pickle.dumps(each) for each in entries])


def _opened(parcel: _Parcel) -> Understood:
    shell: Understood = _unpacked(parcel.shell)
    if parcel.entries is None or shell.resource is None:
        return shell
    return shell._replace(resource={**shell.resource, "entry": [_unpacked(each) for each in parcel.entries]})


def _unpacked(data: bytes) -> Any:
    return pickle.loads(data)  # noqa: S301  (a process of ours packed it)


def _begin(process: Any) -> None:
    """In the new process; `process` is where its number is written."""
    process.value = os.getpid()
    begin()


_TOO_SLOW = Refusal(
    RefusalKind.TOO_LONG, "", "reading the body takes too long", "send less at once, or less deep in each other"
)  # fmt: skip
UNAVAILABLE = Refusal(RefusalKind.TRANSIENT, "", "the body cannot be read now", "send it again later")
