"""A worker: the listeners for DICOM and HL7, with a store that it can only read. It decides nothing for itself.

What modalities report and what senders send goes to the main process and is answered when that says so. What was
counted and asked is told in batches after the answers. Without its main process a worker ends at once, so that no stale
list is ever shown.
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
from gateway.receiving import Receiving
from gateway.running import STOP_GRACE_S, run
from gateway.securing import ListenersTLS
from gateway.wire.dimse import NAnswer
from gateway.wire.mpps_dataset import STATUSES
from gateway.workers.asking import ANSWER_S, Asking, Unanswered
from gateway.workers.channel import Channel
from gateway.workers.handing_on import HandingOn
from gateway.workers.messages import (
    Answered,
    Listens,
    MainMessage,
    Processed,
    Reported,
    Serve,
    Stop,
    Told,
    WorkerMessage,
    decode_from_main,
    encode_from_worker,
)
from gateway.workflow.availability import Announcement
from gateway.workflow.knocks import Knocks
from gateway.workflow.performed_request import PerformRequest
from gateway.workflow.ports import QueryRecord

TELL_S = 0.25
"""How long counts and queries wait: what a killed worker may lose of them, and how late a metric is."""

ALIVE_S = 2.0
"""How often it tells at least, also where nothing happened: the main process ends a worker that is silent."""

KNOCKS_MAX = 200
"""Knocks that wait for the next telling; the oldest goes where more come."""

QUERIES_MAX = 500
"""Queries that wait; then they are told at once, and dropped where the main process does not read."""

_log = structlog.get_logger()


class Worker:
    """One worker; `run` is its life."""

    def __init__(
        self,
        dicom: Sequence[socket.socket],
        hl7: Sequence[Sequence[socket.socket]] = (),
        answer_s: float = ANSWER_S,
        tls: Sequence[Sequence[socket.socket]] = ((),),
    ) -> None:
        """It listens on the sockets for `dicom`, for `hl7` on those of each listener, and for `tls` on those of DICOM
        and then of each HL7 listener.

        `answer_s` is how long the main process may take to write something.
        """
        self._dicom = dicom
        self._hl7 = hl7
        self._dicom_tls, *self._hl7_tls = tls
        self._tls: ListenersTLS | None = None
        self._watching: asyncio.Task[None] | None = None
        self._reports = Asking[NAnswer](answer_s)
        self._handing_on = HandingOn(self._say, answer_s)
        self._receiving: Receiving | None = None
        self._channel = Channel(self._receive, self._orphaned)
        self._listening: Listening | None = None
        self._starting: asyncio.Task[None] | None = None
        self._ended = asyncio.Event()
        self._stop = False
        self._queries: list[QueryRecord] = []
        self._knocks = Knocks(KNOCKS_MAX)
        self._dropped = 0
        self._associations_told = 0
        self._told_at = 0.0

    async def run(self, channel: socket.socket) -> None:
        """Serve until the main process says stop, or is gone."""
        await self._channel.open(channel)
        telling = asyncio.create_task(self._keep_telling())
        try:
            await self._ended.wait()
            if self._stop and self._listening is not None and self._receiving is not None:
                await asyncio.gather(self._receiving.stop(), self._listening.stop(STOP_GRACE_S))
                self._tell()
        finally:
            telling.cancel()
            if self._watching is not None:
                self._watching.cancel()
            self._channel.close()

    async def report(self, operation: Operation | Announcement, request: PerformRequest) -> NAnswer:
        """Have it written; where nobody answers in time nothing is claimed (0213)."""
        try:
            return await self._reports.ask(lambda number: self._say(Reported(number, operation, request)))
        except Unanswered:
            _log.error("report_not_answered", operation=operation.value)
            return _NOT_WRITTEN

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
                self._reports.answered(number, answer)
            case Processed():
                self._handing_on.processed(message)
            case Serve() if self._listening is not None:
                self._listening.serve(message.site)
                if self._receiving is not None:
                    self._receiving.serve(message.site.settings)
                self._handing_on.serve(message)
                if self._tls is not None:
                    self._tls.renew(always=True)
                _log.info("reloaded")
            case Serve():
                # Made now, not in the task: a reload while this process started comes with the same read.
                self._tls = self._secured(message)
                if self._tls is None:
                    return
                reader, tally = read_only(message.site.store_url), Tally()
                listening = Listening(
                    message.site, reader, self.report, self.keep, tally, message.workers, self._knocks.add,
                    self._tls,
                )  # fmt: skip
                receiving = Receiving(message.listeners, self._handing_on, tally, message.workers, self._tls)
                receiving.serve(message.site.settings)
                self._handing_on.serve(message)
                self._listening, self._receiving = listening, receiving
                self._starting = asyncio.create_task(self._start(listening, receiving))
            case Stop():
                self._stop = True
                self._ended.set()

    def _secured(self, serve: Serve) -> ListenersTLS | None:
        """The TLS of the listeners; None, and the end, where a file cannot be used: it was good a moment ago."""
        try:
            return ListenersTLS(serve.site.file.parent, serve.site.settings, serve.listeners, serve.workers)
        except OSError as error:
            _log.error("worker_cannot_listen", exc_info=error)
            self._ended.set()
            return None

    async def _start(self, listening: Listening, receiving: Receiving) -> None:
        try:
            await receiving.start(self._hl7, self._hl7_tls)
            await listening.start(self._dicom, self._dicom_tls)
        except OSError as error:
            _log.error("worker_cannot_listen", exc_info=error)
            self._ended.set()
            return
        if self._tls is not None:
            self._watching = asyncio.create_task(self._tls.watch())
        self._say(Listens())

    def _orphaned(self) -> None:
        self._ended.set()

    async def _keep_telling(self) -> None:
        while True:
            await asyncio.sleep(TELL_S)
            self._tell()

    def _tell(self) -> None:
        listening, receiving = self._listening, self._receiving
        if listening is None or receiving is None:
            return
        tally, associations = listening.tally, listening.associations
        tally.queries_dropped, self._dropped = tally.queries_dropped + self._dropped, 0
        now = asyncio.get_running_loop().time()
        unsaid = self._queries or self._knocks
        nothing_new = tally == Tally() and associations == self._associations_told and not unsaid
        if nothing_new and now - self._told_at < ALIVE_S:
            return
        knocks = self._knocks.take()
        if self._say(Told(tally, associations, tuple(self._queries), knocks)):
            self._told_at = now
            listening.tally = receiving.tally = Tally()
            self._associations_told = associations
            self._queries = []
        else:
            self._knocks.extend(knocks)


_NOT_WRITTEN = NAnswer(STATUSES[RefusalKind.TRANSIENT], "not known to be stored, send it again later")


def main() -> None:
    """Run the worker of the command line: its number, then descriptors (see `gateway.workers.__main__`)."""
    number, *groups = sys.argv[1:]
    (channel,), *listening = (
        [socket.socket(fileno=int(descriptor)) for descriptor in filter(None, group.split(","))] for group in groups
    )
    run(_run(channel, listening[0::2], listening[1::2]), worker=int(number))


async def _run(
    channel: socket.socket, plain: Sequence[Sequence[socket.socket]], tls: Sequence[Sequence[socket.socket]]
) -> None:
    dicom, *hl7 = plain
    await Worker(dicom, hl7, tls=tls).run(channel)
