"""The workers of a running gateway, from the main process: started, given their site, answered, restarted, ended."""

import asyncio
import contextlib
import itertools
import socket
import sys
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import replace

import structlog

from gateway.config import DICOMSettings, HL7Settings, Site
from gateway.domain.directory import Directory
from gateway.edges.dimse_server import LISTEN_BACKLOG
from gateway.edges.metrics import Metrics
from gateway.listening import Report
from gateway.receiving import RoadToStore
from gateway.wire.dimse import NAnswer, Status
from gateway.workers.channel import Channel
from gateway.workers.messages import (
    Answered,
    Listens,
    Processed,
    Received,
    Rejected,
    Reported,
    Serve,
    Stop,
    Told,
    decode_from_worker,
    encode_from_main,
)
from gateway.workflow.intake import Receipt, Understood
from gateway.workflow.knocks import Knock
from gateway.workflow.ports import QueryRecord

START_S = 60.0
"""For a worker to listen; two seconds on an idle machine, most of them for Python's imports."""

STOP_EXTRA_S = 2.0
"""Beyond the grace of requests in progress, before a worker is killed."""

PAUSES_S = (0.0, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Before the first restart, the second and so on: one death is an accident, several are a cause to be looked for."""

STEADY_S = 60.0
"""A worker that served so long starts the pauses from the first again."""

LOOK_S = 4.0
"""How often a worker is looked at: it tells something every two seconds (`process.ALIVE_S`)."""

SILENT_MAX = 5
"""Looks in a row at which a worker had told nothing; then it hangs, and every device that is led to it waits in vain.
Looks are counted and not seconds, so that a machine that slept blames nobody."""

_log = structlog.get_logger()


class Workers:
    """The workers of one service. For the event loop's thread alone."""

    def __init__(
        self,
        site: Site,
        report: Report,
        road: RoadToStore,
        keep: Callable[[QueryRecord], None],
        metrics: Metrics,
        look_s: float = LOOK_S,
        knocked: Callable[[Knock], None] = lambda knock: None,
    ) -> None:
        """`report` runs what modalities report, `road` what senders send, `keep` takes the records of queries and
        `knocked` who was not let in.

        `look_s` is `LOOK_S`.
        """
        self._knocked = knocked
        self._of_start = site
        self._site = site
        self._site_number = 1
        self._report = report
        self._road = road
        self._keep = keep
        self._metrics = metrics
        self._look_s = look_s
        self._addresses: list[list[_Address]] = []  # of DICOM and of each HL7 listener: plain, then TLS
        self._seats: dict[int, _Worker] = {}
        self._keepers: list[asyncio.Task[None]] = []
        self._stopping = asyncio.Event()

    @property
    def associations(self) -> int:
        """How many are open now, in all workers together."""
        return sum(worker.associations for worker in self._seats.values())

    @property
    def unready(self) -> str:
        """Why nobody serves now; '' while some worker does."""
        some = any(worker.listens for worker in self._seats.values())
        return "" if some else "no worker serves"

    async def start(self) -> None:
        """Start all; returns when every one listens. Raises OSError where the address is taken, or one cannot start."""
        settings = self._of_start.settings
        listeners: tuple[DICOMSettings | HL7Settings, ...] = (settings.dicom, *settings.hl7)
        self._addresses = [
            await _addresses(listener.host, port) if port else []
            for listener in listeners
            for port in (listener.port if listener.plain else 0, listener.tls.port if listener.tls else 0)
        ]
        for address in itertools.chain.from_iterable(self._addresses):
            _check_free(address)
        # All of them are bound and listen before the first worker starts: from here on nobody finds the port free.
        sockets = [self._listen() for _ in range(settings.workers)]
        started: list[asyncio.Future[None]] = []
        for number, of_one in enumerate(sockets, 1):
            first = asyncio.get_running_loop().create_future()
            started.append(first)
            self._keepers.append(asyncio.create_task(self._keep_running(number, of_one, first)))
        try:
            async with asyncio.timeout(START_S):
                await asyncio.gather(*started)
        except TimeoutError:
            raise OSError("a worker did not listen in time") from None

    def serve(self, site: Site) -> None:
        """Every worker answers by this site from now on, except for what needs a restart."""
        self._site = site
        self._site_number += 1
        for worker in self._seats.values():
            worker.serve(self._for_worker())

    async def stop(self, grace_s: float) -> None:
        """Have every worker finish what is in progress, then end; kill those that do not."""
        self._stopping.set()
        for worker in self._seats.values():
            worker.stop()
        _, late = await asyncio.wait(self._keepers, timeout=grace_s + STOP_EXTRA_S) if self._keepers else ((), ())
        for worker in self._seats.values():
            worker.kill()
        if late:
            _log.warning("workers_killed", workers=len(late))
            await asyncio.wait(late)

    def _listen(self) -> "_Sockets":
        return [[_listening(address) for address in of_one] for of_one in self._addresses]

    def _for_worker(self) -> Serve:
        """The site without what a worker does not read, and with what the running service still has of old."""
        first, now = self._of_start, self._site
        devices = now.settings.devices.model_copy(update={"ldap": None})  # a password, which no worker needs
        settings = now.settings.model_copy(update={"dicom": first.settings.dicom, "devices": devices})
        # What is compiled, from the site's own Python too, cannot be sent; the mappings' recipe can.
        site = replace(
            now, settings=settings, store_url=first.store_url,
            mappings={}, mapping_content=str, outbound={}, outbound_content=str,
            directory=Directory(), doubts=(), device_doubts=(),
        )  # fmt: skip
        return Serve(site, first.settings.workers, self._site_number, first.settings.hl7)

    async def _process(self, received: Received | Rejected) -> Receipt:
        """What a listener of a worker took; what another site's rules were put to is read again."""
        match received:
            case Rejected(_, listener, peer, raw, refusals):
                return await self._road.refuse(listener, raw, refusals, peer)
            case Received(_, listener, peer, raw, read_by, Understood() as understood) if read_by == self._site_number:
                return await self._road.process_understood(listener, raw, understood, peer)
            case Received(_, listener, peer, raw, read_by, tuple(refusals)) if read_by == self._site_number:
                return await self._road.refuse(listener, raw, refusals, peer)
            case Received(_, listener, peer, raw):
                return await self._road.process(listener, raw, peer, received.barred)

    async def _processed(self, received: Received | Rejected) -> Processed:
        receipt: Receipt | None = None
        try:
            receipt = await self._process(received)
        except Exception as error:  # a defect of ours must not leave the sender waiting
            _log.error("message_failed", listener=received.listener, exc_info=error)
        return Processed(received.number, receipt, self._road.failing)

    async def _keep_running(self, number: int, sockets: "_Sockets", first: "asyncio.Future[None]") -> None:
        """Run this worker, and another in its place when it dies, until the service stops."""
        loop = asyncio.get_running_loop()
        deaths = 0
        while True:
            worker = self._seats[number] = _Worker(number, self._report, self._processed, self._told, first)
            watch = asyncio.create_task(worker.watch(self._look_s))
            began = loop.time()
            try:
                code: int | None = await worker.run(sockets, self._for_worker)
            except OSError as error:  # the system has no room for a process now
                _log.error("worker_cannot_start", exc_info=error)
                code = None
            finally:
                watch.cancel()
            if self._stopping.is_set():
                return
            if not first.done():
                first.set_exception(OSError(f"worker {number} ended before it listened; see the log"))
                return
            deaths = 1 if loop.time() - began > STEADY_S else deaths + 1
            pause = PAUSES_S[min(deaths, len(PAUSES_S)) - 1]
            _log.error("worker_died", worker=number, exit_code=code, restart_in_s=pause)
            await self._pause(pause)
            while not (again := self._listen_again()) and not self._stopping.is_set():
                await self._pause(PAUSES_S[-1])
            if self._stopping.is_set():
                return
            sockets = again
            self._metrics.worker_restarts.inc()

    async def _pause(self, seconds: float) -> None:
        """Wait, but not when the service stops."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()

    def _listen_again(self) -> "_Sockets":
        try:
            return self._listen()
        except OSError as error:  # another program took the port while nobody listened
            _log.error("worker_cannot_listen", exc_info=error)
            return []

    def _told(self, told: Told) -> None:
        self._metrics.tally.add(told.tally)
        for record in told.queries:
            self._keep(record)
        for knock in told.knocks:
            self._knocked(knock)


class _Worker:
    """One worker process and the channel to it."""

    def __init__(
        self,
        number: int,
        report: Report,
        process: Callable[[Received | Rejected], Awaitable[Processed]],
        told: Callable[[Told], None],
        first: "asyncio.Future[None]",
    ) -> None:
        self._number = number
        self.associations = 0
        self.listens = False
        self._heard = False
        self._report = report
        self._process_message = process
        self._told = told
        self._first = first
        self._channel = Channel(self._receive, self._lost)
        self._process: asyncio.subprocess.Process | None = None
        self._asked: set[asyncio.Task[None]] = set()
        self._gone = asyncio.Event()

    async def run(self, sockets: "_Sockets", serve: Callable[[], Serve]) -> int:
        """Start the process and wait for its end; its exit code. The sockets are its own then, and end with it.

        `serve` gives what it is to serve, when it can be told: a reload may come while the process is made.
        """
        ours, its = socket.socketpair()
        groups = [[each.fileno() for each in group] for group in ([its], *sockets)]
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "gateway.workers", str(self._number),
                *(",".join(map(str, group)) for group in groups),
                pass_fds=[*itertools.chain.from_iterable(groups)], stdin=asyncio.subprocess.DEVNULL,
            )  # fmt: skip
        except BaseException:
            ours.close()
            raise
        finally:
            for each in (its, *itertools.chain.from_iterable(sockets)):
                each.close()
        await self._channel.open(ours)
        self.serve(serve())
        code = await self._process.wait()
        await self._gone.wait()  # what it said last is read
        return code

    def serve(self, serve: Serve) -> None:
        """Give it the site."""
        self._channel.send(encode_from_main(serve))

    def stop(self) -> None:
        """Ask it to end."""
        self._channel.send(encode_from_main(Stop()))

    def kill(self) -> None:
        """End it now, if it has not ended."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def watch(self, look_s: float) -> None:
        """Kill it when it listens and does not tell anything any more."""
        silent = 0
        while silent < SILENT_MAX:
            await asyncio.sleep(look_s)
            silent = silent + 1 if self.listens and not self._heard else 0
            self._heard = False
        _log.error("worker_hangs", worker=self._number, silent_s=round(SILENT_MAX * look_s))
        self.kill()

    def _receive(self, body: bytes) -> None:
        self._heard = True
        match decode_from_worker(body):
            case Listens():
                self.listens = True
                _log.info("worker_listens", worker=self._number)
                if not self._first.done():
                    self._first.set_result(None)
            case Reported() as reported:
                self._do(self._answer(reported))
            case Received() | Rejected() as received:
                self._do(self._hand_back(received))
            case Told() as told:
                self.associations = told.associations
                self._told(told)

    def _do(self, what: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(what)
        self._asked.add(task)
        task.add_done_callback(self._asked.discard)

    async def _hand_back(self, received: Received | Rejected) -> None:
        self._channel.send(encode_from_main(await self._process_message(received)))

    async def _answer(self, reported: Reported) -> None:
        try:
            answer = await self._report(reported.operation, reported.request)
        except Exception as error:  # a defect of ours must not leave the modality waiting
            _log.error("report_failed", worker=self._number, exc_info=error)
            answer = NAnswer(Status.PROCESSING_FAILURE, "the gateway could not process this request")
        self._channel.send(encode_from_main(Answered(reported.number, answer)))

    def _lost(self) -> None:
        """Nothing more comes: it ends, or said what is no message and has to."""
        self.associations = 0
        self.listens = False
        self._gone.set()
        asyncio.get_running_loop().call_later(STOP_EXTRA_S, self.kill)


_Address = tuple[socket.AddressFamily, tuple[str, int]]
_Sockets = Sequence[Sequence[socket.socket]]
"""What a worker listens on: for DICOM, and for each HL7 listener; each plain, then TLS, and none where not served."""


async def _addresses(host: str, port: int) -> list[_Address]:
    """Every address of the configured host, as the event loop itself would listen on."""
    found = await asyncio.get_running_loop().getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    return list(dict.fromkeys((socket.AddressFamily(family), (str(to[0]), int(to[1]))) for family, *_, to in found))


def _check_free(address: _Address) -> None:
    """Raises OSError where somebody listens there, who would otherwise just share the port with us unnoticed."""
    _listening(address, shared=False).close()


def _listening(address: _Address, *, shared: bool = True) -> socket.socket:
    family, where = address
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listening.bind(where)
        listening.listen(LISTEN_BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening
