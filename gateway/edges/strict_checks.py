"""Messages of strict listeners, checked by a process of their own.

The check is hl7apy's tables and a few hundred microseconds of Python: beside the event loop it would hold up every
answer (design D3b). The process starts with the first message to check; a gateway without strict listeners has none.
"""

import asyncio
import multiprocessing
import threading
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

from gateway.domain.refusal import Refusal, Refused
from gateway.edges.own_processes import begin
from gateway.wire import er7

_PROCESSES = 1  # one checks a thousand messages in a second, more than a writer takes


class ChecksUnavailable(Exception):  # noqa: N818  (what happened, as its neighbours say it)
    """The process that checks went away, twice: the message was not looked at."""


class StrictChecks:
    """The process that checks, started when there is something to check."""

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None
        self._lock = threading.Lock()

    async def problems(self, raw: bytes, charset: str, charset_override: str) -> Sequence[Refusal]:
        """In what the message is not built as the standard says; what cannot be read has no such problems.

        Raises ChecksUnavailable.
        """
        for _ in range(2):  # a process that somebody ended is replaced, once for each message
            pool = self._started()
            try:
                return await asyncio.wrap_future(pool.submit(_checked, raw, charset, charset_override))
            except BrokenProcessPool:
                self._end(pool)
        raise ChecksUnavailable

    def close(self) -> None:
        """End the process, if there is one; the next message starts it again."""
        if self._pool is not None:
            self._end(self._pool)

    def _started(self) -> ProcessPoolExecutor:
        with self._lock:
            if self._pool is None:
                # Not forked: this process has threads and open sockets.
                self._pool = ProcessPoolExecutor(_PROCESSES, multiprocessing.get_context("spawn"), begin)
            return self._pool

    def _end(self, pool: ProcessPoolExecutor) -> None:
        with self._lock:
            if self._pool is pool:
                self._pool = None
        pool.shutdown(wait=False, cancel_futures=True)


STRICT_CHECKS = StrictChecks()
"""One for the whole gateway, as there is one writer."""


def _checked(raw: bytes, charset: str, charset_override: str) -> tuple[Refusal, ...]:
    from gateway.wire import strict  # hl7apy, in this process only

    try:
        message = er7.parse(raw, charset, charset_override=charset_override)
    except Refused:
        return ()
    return tuple(strict.problems(message))
