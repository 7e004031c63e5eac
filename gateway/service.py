"""The wiring and life cycle of one running gateway: its listeners over one store.

Every listener hands its input to one use case and its answer back. A reload reads the whole site again and changes
feeds and devices together, or nothing.
"""

import asyncio
import contextlib
import gc
import importlib
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog
import uvloop
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.cron import CronTrigger

from gateway.config import ConfigError, Site, load_site
from gateway.domain.devices import Device
from gateway.domain.identifiers import Mint
from gateway.domain.performed import Operation
from gateway.domain.refusal import Refusal, RefusalKind, Refused
from gateway.edges import logs
from gateway.edges.database import StoreError, StoreUnavailable
from gateway.edges.dimse_server import Association, DIMSEServer, Limits, Rejection
from gateway.edges.metrics import Metrics
from gateway.edges.mllp import MLLPLimits, MLLPListener, Peer
from gateway.edges.store import Store
from gateway.processing import archive_message, feeds_of, now, process_message, report_performed
from gateway.site_tools import EXPIRED_MAX, expiring
from gateway.wire.dimse import FindAnswer, NAnswer
from gateway.wire.upper_layer import CALLING_AE_TITLE_NOT_RECOGNISED
from gateway.workflow import intake, maintain
from gateway.workflow.intake import Receipt
from gateway.workflow.perform import PerformRequest
from gateway.workflow.ports import StoredMessage
from gateway.workflow.query import Worklist

if TYPE_CHECKING:
    from gateway.edges.health import HTTPServer

HELD_BATCH = 100
"""Held messages looked at together: some megabytes at most."""

LOG_WRITE_S = 0.5
"""How often kept log lines are written when nothing new comes; a killed process loses no more of them."""

STOP_GRACE_S = 5.0
"""For requests in progress when the service stops; a supervisor usually waits ten seconds before it kills."""

SWITCH_INTERVAL_S = 0.0005
"""How long a busy writer thread may keep the event loop waiting (design D3b, measured)."""

GC_THRESHOLD = 20_000
"""New objects between two looks of the cycle collector: a message makes some 3,000 and nearly all die by themselves."""

_log = structlog.get_logger()


class Service:
    """One gateway process: its listeners over one store."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.metrics = Metrics()
        self.store = Store(site.store_url, zone=site.settings.timezone)
        self._mint = Mint(self.store.site_namespace())
        self._feeds = feeds_of(site, self._mint)
        self.worklist = Worklist(self.store.reader, StoreUnavailable, self._left_out)
        self._serving = False
        self._listeners: list[MLLPListener] = []
        dicom = site.settings.dicom
        self.dimse = DIMSEServer(
            dicom.host,
            dicom.port,
            _Handlers(self),
            Limits(
                associations_max=dicom.associations_max,
                associations_per_address_max=dicom.associations_per_address_max,
                idle_s=dicom.idle_s,
            ),
            observe=self._observe_dimse,
        )
        self.metrics.associations.set_function(lambda: self.dimse.associations)
        self._http: HTTPServer | None = None
        self._scheduler = AsyncIOScheduler(timezone=site.zone) if site.zone else AsyncIOScheduler()

    async def start(self, announce: Callable[[str], None]) -> None:
        """Open every listener and announce each in a line. Raises OSError if an address is taken."""
        for settings in self.site.settings.hl7:
            listener = MLLPListener(
                settings.name,
                settings.host,
                settings.port,
                self._receiver(settings.name),
                self._rejecter(settings.name),
                MLLPLimits(frame_bytes_max=settings.frame_bytes_max),
                observe=self._observe_mllp,
            )
            await listener.start()
            self._listeners.append(listener)
            announce(f"HL7 v2 over MLLP  {settings.host}:{settings.port}  ({settings.name}, {settings.mapping})")
        await self.dimse.start()
        dicom = self.site.settings.dicom
        announce(f"DICOM             {dicom.host}:{dicom.port}  ({self.site.settings.ae_title}: worklist, MPPS, echo)")
        await self._start_http()
        http = self.site.settings.http
        announce(f"HTTP              {http.host}:{http.port}  (/health/ready, /metrics)")
        hour, minute = self.site.settings.expiry.at.split(":")
        self._scheduler.add_job(self.expire, CronTrigger(hour=hour, minute=minute), id="expiry")
        self._scheduler.start()
        self._serving = True

    async def _start_http(self) -> None:
        """FastAPI takes as long to import as all the rest; senders and scanners are served meanwhile."""
        health = await asyncio.to_thread(importlib.import_module, "gateway.edges.health")
        http = self.site.settings.http
        self._http = health.HTTPServer(health.app(self.metrics, self._unready, self._counts), http.host, http.port)
        await self._http.start()

    async def stop(self) -> None:
        """Finish what is in flight, then close everything."""
        self._serving = False
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)
        for listener in self._listeners:
            await listener.stop()
        await self.dimse.stop(STOP_GRACE_S)
        if self._http is not None:
            await self._http.stop()
        self.store.close()

    async def reload(self) -> None:
        """Read the site again: mappings, catalogue, issuers, devices and feed options change together or not at all."""
        try:
            site = await asyncio.to_thread(load_site, self.site.file)
        except ConfigError as error:
            for problem in error.problems:
                _log.error("reload_refused", where=problem.where, text=problem.text, hint=problem.hint)
            return
        except Exception as error:
            _log.error("reload_failed", exc_info=error)
            return
        fixed = ("store", "dicom", "http", "timezone", "expiry")
        moved = [name for name in fixed if getattr(site.settings, name) != getattr(self.site.settings, name)]
        if _addresses(site) != _addresses(self.site):
            moved.append("hl7")
        if moved:
            _log.warning("reload_needs_restart", settings=moved)
        self.site = site
        self._feeds |= feeds_of(site, self._mint)  # a listener that is gone from the file serves on until the restart
        _log.info("reloaded")
        await self.release_held()

    async def release_held(self) -> int:
        """Run held messages again: a procedure rule may exist by now. Returns how many came through."""
        released, after = 0, 0
        while messages := self.store.reader.held_messages(HELD_BATCH, after):
            after = messages[-1].id
            for message in messages:
                released += await self._release(message)
        if released:
            _log.info("held_messages_released", messages=released)
        return released

    async def _release(self, message: StoredMessage) -> bool:
        """Whether a held message now goes through; one that does not stays held, and the archive as it is."""
        feed = self._feeds.get(message.record.listener)
        if feed is None:
            return False
        try:
            await asyncio.wrap_future(self.store.write(lambda unit: intake.release(unit, message, feed, now())))
        except (Refused, StoreUnavailable):
            return False
        except Exception as error:  # one message that cannot be run must not keep the others, or the service, back
            _log.error("held_message_failed", message=message.id, exc_info=error)
            return False
        return True

    async def expire(self) -> int:
        """Take steps off the list whose day has long passed. Returns how many."""
        total = 0
        while True:
            limit, refs = expiring(self.site, self.store)
            total += await asyncio.wrap_future(self.store.write(partial(maintain.expire, steps=refs, at=now())))
            if len(refs) < EXPIRED_MAX:
                break
        _log.info("expired", steps=total, before=limit[:8])
        return total

    def _left_out(self, step_id: int, reason: Exception) -> None:
        self.metrics.left_out.inc()
        _log.error("item_left_out", step=step_id, exc_info=reason)

    def _unready(self) -> str:
        if not self._serving:
            return "not serving yet"
        try:
            self.store.site_namespace()
        except StoreError:
            return "the store cannot be read"
        if self.store.counts.failing:
            self.store.write(lambda _: None)  # tries again, for where no traffic comes because of this answer
            return "the store cannot be written"
        return ""

    def _counts(self) -> dict[str, int]:
        return asdict(self.store.reader.counts())

    # --- HL7 -----------------------------------------------------------------------------------------------------

    def _receiver(self, name: str) -> Callable[[bytes, Peer], Awaitable[bytes]]:
        async def receive(frame: bytes, peer: Peer) -> bytes:
            began = time.perf_counter()
            receipt = await process_message(self.store, frame, self._feeds[name], str(peer))
            self._tell(receipt, name, began)
            return receipt.answer

        return receive

    def _rejecter(self, name: str) -> Callable[[bytes, Refusal, Peer], Awaitable[bytes]]:
        async def reject(raw: bytes, refusal: Refusal, peer: Peer) -> bytes:
            began = time.perf_counter()
            receipt = await archive_message(self.store, raw, [refusal], self._feeds[name], str(peer))
            self._tell(receipt, name, began)
            return receipt.answer

        return reject

    def _tell(self, receipt: Receipt, listener: str, began: float) -> None:
        seconds = time.perf_counter() - began
        self.metrics.message_done(listener, receipt.disposition, seconds)
        if RefusalKind.TRANSIENT.value in receipt.kinds:
            self.metrics.transient.inc()
        _log.info(
            "message",
            listener=listener,
            type=receipt.message_type,
            control_id=receipt.control_id,
            outcome=receipt.disposition,
            refusals=list(receipt.kinds),
            ms=round(seconds * 1000, 2),
        )

    def _observe_mllp(self, event: str, /, **fields: Any) -> None:
        _log.info(event, **fields)

    # --- DICOM ---------------------------------------------------------------------------------------------------

    def _observe_dimse(self, event: str, /, **fields: Any) -> None:
        if event == "association_rejected":
            self.metrics.rejected.inc()
        elif event == "association_aborted":
            self.metrics.aborted.inc()
        elif event == "request_done":
            self.metrics.request_done(
                fields["operation"], fields["status"], fields["matches"], fields["milliseconds"] / 1000
            )
        # A request's line tells who asked; that the association began and ended well is nobody's news.
        tell = _log.debug if event in ("association_opened", "association_closed") else _log.info
        tell(event, **fields)


def _addresses(site: Site) -> list[tuple[str, str, int, int]]:
    """What a listener needs a restart for."""
    return sorted((each.name, each.host, each.port, each.frame_bytes_max) for each in site.settings.hl7)


class _Handlers:
    """What the DICOM listener asks for, answered by the use cases."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def admit(self, association: Association) -> Rejection | None:
        """Who may call: the device registry decides (PS3.8 9.3.4: calling AE title not recognised)."""
        known = self._device(association)
        return None if known else CALLING_AE_TITLE_NOT_RECOGNISED

    def find(self, association: Association, transfer_syntax: str, identifier: bytes) -> Iterator[FindAnswer | None]:
        """C-FIND on the worklist (RAD-5)."""
        device = self._device(association) or Device(association.calling_ae_title)
        return self._service.worklist.answer(device, transfer_syntax, identifier)

    async def create(
        self, association: Association, transfer_syntax: str, sop_instance_uid: str | None, dataset: bytes
    ) -> NAnswer:
        """N-CREATE of an MPPS (RAD-6)."""
        return await self._report(Operation.CREATE, association, transfer_syntax, sop_instance_uid or "", dataset)

    async def set(
        self, association: Association, transfer_syntax: str, sop_instance_uid: str, dataset: bytes
    ) -> NAnswer:
        """N-SET of an MPPS (RAD-7)."""
        return await self._report(Operation.SET, association, transfer_syntax, sop_instance_uid, dataset)

    async def _report(
        self, operation: Operation, association: Association, transfer_syntax: str, uid: str, dataset: bytes
    ) -> NAnswer:
        service = self._service
        request = PerformRequest(uid, association.calling_ae_title, transfer_syntax, dataset)
        device = self._device(association) or Device(association.calling_ae_title)
        return await report_performed(service.store, service.site, operation, request, device)

    def _device(self, association: Association) -> Device | None:
        return self._service.site.devices.device(association.calling_ae_title)


def serve(site: Site, announce: Callable[[str], None]) -> None:
    """Run the service until SIGTERM or SIGINT. Raises StoreError or OSError if it cannot start."""
    let_go = logs.configure()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.set_threshold(GC_THRESHOLD, 20, 50)
    try:
        uvloop.run(_serve(site, announce, let_go))
    finally:
        let_go()


async def _serve(site: Site, announce: Callable[[str], None], let_go: Callable[[], None]) -> None:
    service = Service(site)
    ended = asyncio.Event()
    reloads: set[asyncio.Task[None]] = set()

    def reload() -> None:
        task = asyncio.get_running_loop().create_task(service.reload())
        reloads.add(task)
        task.add_done_callback(reloads.discard)

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    loop.add_signal_handler(signal.SIGHUP, reload)
    try:
        await service.start(announce)
        gc.freeze()  # what was loaded by now stays; the collector need not walk it again
        await service.release_held()
        while not ended.is_set():
            let_go()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), LOG_WRITE_S)
    finally:
        with contextlib.suppress(Exception):
            await service.stop()
