"""The wiring and life cycle of one running gateway: its listeners over one store.

Every listener hands its input to one use case and its answer back. A reload reads the whole site again and changes
feeds and devices together, or nothing.
"""

import asyncio
import contextlib
import importlib
import signal
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, replace
from datetime import timedelta
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Any

import structlog
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger

from gateway import retention
from gateway.config import LOOPBACK, ConfigError, Site, load_site
from gateway.desks import assume_overdue_completed, desk_of
from gateway.destinations import DestinationSettings, connection_of, reloaded
from gateway.domain.devices import Device
from gateway.domain.identifiers import Mint
from gateway.domain.performed import Operation
from gateway.domain.refusal import Refused
from gateway.edges.database import StoreError, StoreUnavailable
from gateway.edges.delivery import wake_those_due
from gateway.edges.desk import UNLINKED, Desk
from gateway.edges.metrics import Metrics
from gateway.edges.query_log import QueryLog
from gateway.edges.store import Store, StoreReader, StoreUnit
from gateway.edges.strict_checks import STRICT_CHECKS
from gateway.listening import Listening
from gateway.outgoing import audience_of, deliverers_of, described
from gateway.processing import (
    feeds_of,
    hear_answer,
    now,
    remember_mappings,
    report_availability,
    report_performed,
)
from gateway.receiving import Receiving, RoadToStore
from gateway.running import STOP_GRACE_S, run
from gateway.site_tools import EXPIRED_MAX, expiring
from gateway.wire.dimse import NAnswer
from gateway.workers.supervisor import Workers
from gateway.workflow import intake, maintain
from gateway.workflow.availability import Announcement
from gateway.workflow.outbox import Delivery, left_behind
from gateway.workflow.performed_request import PerformRequest
from gateway.workflow.ports import StoredMessage

if TYPE_CHECKING:
    from gateway.edges.health import HTTPServer

HELD_BATCH = 100
"""Held messages looked at together: some megabytes at most."""

FORGET_BATCH = 1_000
"""Kept queries deleted by one job: others are written between two of them."""

NEEDS_RESTART = ("store", "dicom", "http", "timezone", "expiry", "workers")
"""Settings that a running service keeps as they were; so it does the names, addresses and frames of HL7 listeners, and
the names and connections of destinations."""

_log = structlog.get_logger()


class Service:
    """One gateway process: its listeners over one store."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.metrics = Metrics()
        self.store = Store(site.store_url, zone=site.settings.timezone, gathers=not site.settings.workers)
        self._mint = Mint(self.store.site_namespace())
        self._queries = QueryLog(self.store, site.settings.queries.per_device, self._registered)
        self._serving = False
        self._reloading = asyncio.Lock()  # the last one asked for must be the last one that is served
        self._audience = audience_of(site)
        self._feeds = feeds_of(site, self._mint, self._audience)
        self._deliverers = deliverers_of(site, self.store, self._observe, self._hear)
        self._connected = site.settings.destinations
        road = RoadToStore(self.store, self._feeds, self._wake)
        self._receiving: Receiving | None = None
        self._dicom: Listening | Workers
        if site.settings.workers:
            self._dicom = Workers(site, self._report, road, self._queries.add, self.metrics)
        else:
            tally = self.metrics.tally
            self._receiving = Receiving(site.settings.hl7, road, tally)
            self._dicom = Listening(site, self.store.reader, self._report, self._queries.add, tally)
        self.metrics.associations.set_function(lambda: self._dicom.associations)
        self.metrics.backlogs = lambda: self._desk().backlogs(self.store.reader.queues())
        self.metrics.queries_lost = lambda: self._queries.counts.dropped + self._queries.counts.lost
        self._http: HTTPServer | None = None
        self._rule_reader: StoreReader | None = None  # opened where there is a rule: it reads in a thread of its own
        self._scheduler = AsyncIOScheduler(timezone=site.zone)

    async def start(self, announce: Callable[[str], None]) -> None:
        """Open every listener and announce each in a line. Raises OSError if an address is taken."""
        await remember_mappings(self.store, self.site)
        if self._receiving is not None:
            await self._receiving.start()
            self._announce_hl7(announce)
        for place in self.site.settings.destinations:
            self._deliverers[place.name].start()
            announce(f"To                {place.host}:{place.port}  ({place.name}, {described(place)})")
        self._warn_of_left_behind(self.site.settings.destinations)
        # FastAPI takes as long to import as all the rest; senders and scanners are served meanwhile.
        health = asyncio.create_task(asyncio.to_thread(importlib.import_module, "gateway.edges.health"))
        await self._dicom.start()
        if self._receiving is None:  # the workers receive
            self._announce_hl7(announce)
        dicom = self.site.settings.dicom
        announce(f"DICOM             {dicom.host}:{dicom.port}  ({self.site.settings.ae_title}: worklist, MPPS, echo)")
        await self._start_http(await health)
        http = self.site.settings.http
        announce(f"HTTP              {http.host}:{http.port}  (/health/ready, /metrics)")
        hour, minute = self.site.settings.expiry.at.split(":")
        self._scheduler.add_job(self.expire, CronTrigger(hour=hour, minute=minute), id="expiry")
        self._scheduler.add_job(self.forget_queries, CronTrigger(hour=hour, minute=minute), id="queries")
        self._scheduler.add_job(self.forget_messages, CronTrigger(hour=hour, minute=minute), id="messages")
        self._scheduler.add_job(self.assume_completed, IntervalTrigger(minutes=1), id="assumed")
        self._scheduler.start()
        self._serving = True

    def _announce_hl7(self, announce: Callable[[str], None]) -> None:
        for settings in self.site.settings.hl7:
            announce(f"HL7 v2 over MLLP  {settings.host}:{settings.port}  ({settings.name}, {settings.mapping})")

    async def _start_http(self, health: ModuleType) -> None:
        http = self.site.settings.http
        api = health.api(
            health.DeskAPI(self.store, self._desk, now, self._wake), http.host, http.host in LOOPBACK
        )  # fmt: skip
        served = health.app(self.metrics, self._unready, self._counts, api)
        self._http = health.HTTPServer(served, http.host, http.port)
        await self._http.start()

    async def stop(self) -> None:
        """Finish what is in flight, then close everything."""
        self._serving = False
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)
        if self._receiving is not None:
            await self._receiving.stop()
        await asyncio.gather(*(deliverer.stop(STOP_GRACE_S) for deliverer in self._deliverers.values()))
        await self._dicom.stop(STOP_GRACE_S)
        if self._http is not None:
            await self._http.stop()
        await self._queries.close()
        STRICT_CHECKS.close()
        self.store.close()

    async def reload(self) -> None:
        """Read the site again: all but what needs a restart changes together, on every process, or not at all."""
        async with self._reloading:
            await self._reload()

    async def _reload(self) -> None:
        try:
            site = await asyncio.to_thread(load_site, self.site.file)
        except ConfigError as error:
            for problem in error.problems:
                _log.error("reload_refused", where=problem.where, text=problem.text, hint=problem.hint)
            return
        except Exception as error:
            _log.error("reload_failed", exc_info=error)
            return
        self._warn_of_left_behind(site.settings.destinations)
        running = {name: getattr(self.site.settings, name) for name in NEEDS_RESTART}
        moved = [name for name, value in running.items() if getattr(site.settings, name) != value]
        if _addresses(site) != _addresses(self.site):
            moved.append("hl7")
        if _connections(site.settings.destinations) != _connections(self._connected):
            moved.append("destinations")
        running["destinations"] = reloaded(self._connected, site.settings.destinations)
        if moved:
            _log.warning("reload_needs_restart", settings=moved)
        # Some of these are looked up at every query: half a time zone would be worse than the old one.
        settings, devices = site.settings.model_copy(update=running), site.devices
        if not settings.devices.unknown and settings.dicom.host not in LOOPBACK:
            devices = replace(devices, accept_unknown=False)  # it goes by the address that the listener has
        site = replace(site, settings=settings, store_url=self.site.store_url, devices=devices)
        self.site = site
        self._dicom.serve(site)
        self._queries.per_device_max = site.settings.queries.per_device
        self._audience = audience_of(site)
        # A listener that is gone from the file serves on until the restart.
        self._feeds |= feeds_of(site, self._mint, self._audience)
        await remember_mappings(self.store, site)
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
            expire = partial(maintain.expire, steps=refs, at=now(), audience=self._audience, zone=self.site.zone)
            total += await asyncio.wrap_future(self.store.write(expire))
            if len(refs) < EXPIRED_MAX:
                break
        if total:
            self._wake()
        _log.info("expired", steps=total, before=limit[:8])
        return total

    async def forget_queries(self) -> int:
        """Delete the kept queries whose days are over. Returns how many."""
        before = now() - timedelta(days=self.site.settings.queries.days)
        total = 0
        while True:
            deleted = await asyncio.wrap_future(
                self.store.write(lambda unit: unit.delete_queries_before(before, FORGET_BATCH))
            )
            total += deleted
            if deleted < FORGET_BATCH:
                break
        _log.info("queries_forgotten", queries=total)
        return total

    async def forget_messages(self) -> int:
        """Delete archived messages and MPPS requests that are too old or too many. Returns how many messages."""
        pruned = await asyncio.to_thread(retention.prune, self.store, self.site.settings.archive, now())
        _log.info("messages_forgotten", messages=pruned.deleted, kept=pruned.kept, requests=pruned.requests)
        return pruned.deleted

    async def assume_completed(self) -> int:
        """The timed rule for stations that never report. Returns how many steps it completed."""
        if not self.site.settings.performed.assume_completed.after_min:
            return 0
        if self._rule_reader is None:
            self._rule_reader = self.store.open_reader()
        steps = await asyncio.to_thread(
            assume_overdue_completed, self.site, self.store, self._rule_reader, self._audience, now()
        )
        if steps:
            self._wake()
            _log.info("assumed_completed", steps=steps)
        return steps

    def _desk(self) -> Desk:
        return desk_of(self.site, self._mint, self._audience)

    def _registered(self) -> Collection[str]:
        return self.site.devices.known.keys()

    def _unready(self) -> str:
        if not self._serving:
            return "not serving yet"
        if self._dicom.unready:
            return self._dicom.unready
        try:
            self.store.site_namespace()
        except StoreError:
            return "the store cannot be read"
        if self.store.counts.failing:
            self.store.write(lambda _: None)  # tries again, for where no traffic comes because of this answer
            return "the store cannot be written"
        return ""

    def _counts(self) -> dict[str, int]:
        desk, at = self._desk(), now()
        reader, limit = self.store.reader, at - desk.unfinished_after
        overdue = {"overdue_steps": reader.overdue_count(desk.overdue_before(at))}
        unfinished = {"unfinished_performed_steps": reader.unfinished(limit)}
        by_attention = reader.attention_counts()
        unlinked = {"unlinked_performed_steps": sum(by_attention.get(each, 0) for each in UNLINKED)}
        return asdict(reader.counts()) | unlinked | unfinished | overdue

    def _wake(self) -> None:
        """Something may have been put into the outbox."""
        wake_those_due(self._deliverers, self.store.reader, now())

    def _warn_of_left_behind(self, configured: Sequence[DestinationSettings]) -> None:
        """Say what waits for destinations that the file does not name any more: after a restart it goes nowhere."""
        with contextlib.suppress(StoreError):  # no reason not to serve
            for left in left_behind(self.store.reader.queues(), (place.name for place in configured)):
                _log.warning(
                    "destination_not_configured", destination=left.destination, waiting=left.waiting, parked=left.parked
                )

    def _hear(self, unit: StoreUnit, answered: Delivery, answer: bytes) -> None:
        """What a destination answered, in the writer's thread."""
        hear_answer(unit, tuple(self._feeds.values()), answered.destination, answer, now())

    def _observe(self, event: str, /, **fields: Any) -> None:
        _log.info(event, **fields)

    # --- DICOM ---------------------------------------------------------------------------------------------------

    async def _report(self, operation: Operation | Announcement, request: PerformRequest) -> NAnswer:
        """Write what a modality reports or an image manager announces, by the registry as it is now."""
        caller = request.calling_ae_title
        device = self.site.devices.device(caller) or Device(caller)
        if isinstance(operation, Announcement):
            answer = await report_availability(self.store, self.site, request, device, self._audience)
        else:
            answer = await report_performed(self.store, self.site, operation, request, device, self._audience)
        self._wake()
        return answer


def _addresses(site: Site) -> list[tuple[str, str, int, int, int]]:
    """What a listener needs a restart for."""
    return sorted(
        (each.name, each.host, each.port, each.frame_bytes_max, each.mllp_release) for each in site.settings.hl7
    )


def _connections(destinations: Sequence[DestinationSettings]) -> dict[str, object]:
    """What a destination needs a restart for, by its name."""
    return {each.name: connection_of(each) for each in destinations}


def serve(site: Site, announce: Callable[[str], None]) -> None:
    """Run the service until SIGTERM or SIGINT. Raises StoreError or OSError if it cannot start."""
    run(_serve(site, announce))


async def _serve(site: Site, announce: Callable[[str], None]) -> None:
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
        await service.release_held()
        await ended.wait()
    finally:
        with contextlib.suppress(Exception):
            await service.stop()
