"""A worker: a DICOM listener with a store that it can only read. It changes nothing and decides nothing for itself.

What modalities report goes to the main process and is answered when that says so. What was counted and asked is told
in batches after the answers. Without its main process a worker ends at once, so that no stale list is ever shown.
"""

import asyncio
import socket
import sys
from collections.abc import Sequence

import structlog

from gateway.domain.performed import Operation
from gateway.domain.refusal import RefusalKind
from gateway.edges.metrics import Tally
from gateway.edges.store import read_only
from gateway.edges.store_unit import within_bounds
from gateway.listening import Listening
from gateway.running import STOP_GRACE_S, run
from gateway.wire.dimse import NAnswer
from gateway.wire.mpps_dataset import STATUSES
from gateway.workers.channel import Channel
from gateway.workers.messages import (
    Answered,
    Listens,
    MainMessage,
    Reported,
    Serve,
    Stop,
    Told,
    WorkerMessage,
    decode_from_main,
    encode_from_worker,
)
from gateway.workflow.perform import PerformRequest
from gateway.workflow.ports import QueryRecord

ANSWER_S = 20.0
"""For the main process to write what a modality reports: four times what its writer waits for a locked database."""

TELL_S = 0.25
"""How long counts and queries wait: what a killed worker may lose of them, and how late a metric is."""

ALIVE_S = 2.0
"""How often it tells at least, also where nothing happened: the main process ends a worker that is silent."""

QUERIES_MAX = 500
"""Queries that wait; then they are told at once, and dropped where the main process does not read."""

_log = structlog.get_logger()


class Worker:
    """One worker; `run` is its life."""

    def __init__(self, sockets: Sequence[socket.socket], answer_s: float = ANSWER_S) -> None:
        """`answer_s` is how long a report may take."""
        self._sockets = sockets
        self._answer_s = answer_s
        self._channel = Channel(self._receive, self._orphaned)
        self._listening: Listening | None = None
        self._starting: asyncio.Task[None] | None = None
        self._ended = asyncio.Event()
        self._stop = False
        self._number = 0
        self._reports: dict[int, asyncio.Future[NAnswer]] = {}
        self._queries: list[QueryRecord] = []
        self._dropped = 0
        self._associations_told = 0
        self._told_at = 0.0

    async def run(self, channel: socket.socket) -> None:
        """Serve until the main process says stop, or is gone."""
        await self._channel.open(channel)
        telling = asyncio.create_task(self._keep_telling())
        try:
            await self._ended.wait()
            if self._stop and self._listening is not None:
                await self._listening.stop(STOP_GRACE_S)
                self._tell()
        finally:
            telling.cancel()
            self._channel.close()

    async def report(self, operation: Operation, request: PerformRequest) -> NAnswer:
        """Have it written; where nobody answers in time nothing is claimed (0213)."""
        self._number += 1
        number = self._number
        answer: asyncio.Future[NAnswer] = asyncio.get_running_loop().create_future()
        self._reports[number] = answer
        try:
            if not self._say(Reported(number, operation, request)):
                return _NOT_WRITTEN
            async with asyncio.timeout(self._answer_s):
                return await answer
        except TimeoutError:
            _log.error("report_not_answered", operation=operation.value)
            return _NOT_WRITTEN
        finally:
            del self._reports[number]

    def keep(self, record: QueryRecord) -> None:
        """Tell this query, soon."""
        if len(self._queries) >= QUERIES_MAX:
            self._tell()
        if len(self._queries) >= QUERIES_MAX:
            self._dropped += 1
        else:
            self._queries.append(within_bounds(record))  # some of a peer's choosing would fill more than a frame

    def _say(self, message: WorkerMessage) -> bool:
        return self._channel.send(encode_from_worker(message))

    def _receive(self, body: bytes) -> None:
        message: MainMessage = decode_from_main(body)
        match message:
            case Answered(number, answer):
                waiting = self._reports.get(number)
                if waiting is not None and not waiting.done():
                    waiting.set_result(answer)
            case Serve() if self._listening is not None:
                self._listening.serve(message.site)
                _log.info("reloaded")
            case Serve():
                # Made now, not in the task: a reload while this process started comes with the same read.
                reader = read_only(message.site.store_url)
                listening = Listening(message.site, reader, self.report, self.keep, Tally(), message.workers)
                self._listening = listening
                self._starting = asyncio.create_task(self._start(listening))
            case Stop():
                self._stop = True
                self._ended.set()

    async def _start(self, listening: Listening) -> None:
        try:
            await listening.start(self._sockets)
        except OSError as error:
            _log.error("worker_cannot_listen", exc_info=error)
            self._ended.set()
            return
        self._say(Listens())

    def _orphaned(self) -> None:
        self._ended.set()

    async def _keep_telling(self) -> None:
        while True:
            await asyncio.sleep(TELL_S)
            self._tell()

    def _tell(self) -> None:
        listening = self._listening
        if listening is None:
            return
        tally, associations = listening.tally, listening.associations
        tally.queries_dropped, self._dropped = tally.queries_dropped + self._dropped, 0
        now = asyncio.get_running_loop().time()
        nothing_new = tally == Tally() and associations == self._associations_told and not self._queries
        if nothing_new and now - self._told_at < ALIVE_S:
            return
        if self._say(Told(tally, associations, tuple(self._queries))):
            self._told_at = now
            listening.tally = Tally()
            self._associations_told = associations
            self._queries = []


_NOT_WRITTEN = NAnswer(STATUSES[RefusalKind.TRANSIENT], "not known to be stored, send it again later")


def main() -> None:
    """Run the worker of the command line: its number, then the descriptors of its channel and listening sockets."""
    number, *descriptors = map(int, sys.argv[1:])
    channel, *listening = (socket.socket(fileno=descriptor) for descriptor in descriptors)
    run(_run(channel, listening), worker=number)


async def _run(channel: socket.socket, listening: Sequence[socket.socket]) -> None:
    await Worker(listening).run(channel)
