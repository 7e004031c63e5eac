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
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import structlog
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger

from gateway import retention
from gateway.certificate_files import certificate_files
from gateway.config import (
    LOOPBACK,
    ConfigError,
    DICOMSettings,
    HL7Settings,
    HTTPSettings,
    Site,
    load_site,
    with_snapshot,
)
from gateway.desks import assume_overdue_completed, desk_of
from gateway.destinations import DestinationSettings, connection_of, follows, reloaded
from gateway.domain.devices import Device
from gateway.domain.directory import Directory
from gateway.domain.directory_checks import check
from gateway.domain.directory_diff import Difference, differences
from gateway.domain.identifiers import Mint
from gateway.domain.performed import Operation
from gateway.domain.problem import Problem
from gateway.domain.refusal import Refused
from gateway.edges.clock import ClockWatch, asking
from gateway.edges.database import StoreError, StoreUnavailable
from gateway.edges.delivery import wake_those_due
from gateway.edges.desk import UNLINKED, Desk
from gateway.edges.knock_log import KnockLog
from gateway.edges.metrics import Metrics
from gateway.edges.query_log import QueryLog
from gateway.edges.resolving import Hosts
from gateway.edges.store import Store, StoreReader, StoreUnit
from gateway.edges.strict_checks import STRICT_CHECKS
from gateway.listening import Listening
from gateway.outgoing import audience_of, deliverer_of, deliverers_of, described
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
from gateway.securing import ListenersTLS
from gateway.site_tools import EXPIRED_MAX, expiring
from gateway.snapshot import write_snapshot
from gateway.wire.dimse import NAnswer
from gateway.workers.supervisor import Workers
from gateway.workflow import intake, maintain
from gateway.workflow.availability import Announcement
from gateway.workflow.intake import RunsAgain
from gateway.workflow.outbox import Delivery, left_behind
from gateway.workflow.performed_request import PerformRequest
from gateway.workflow.ports import StoredMessage

if TYPE_CHECKING:
    from gateway.certificate_expiry import ExpiryWatch
    from gateway.directory_source import DirectoryWatch
    from gateway.edges.health import HTTPServer
    from gateway.fhir_serving import FHIRServing

HELD_BATCH = 100
"""Held messages looked at together: some megabytes at most."""

FORGET_BATCH = 1_000
"""Kept queries deleted by one job: others are written between two of them."""

CHANGED_SAID_MAX = 20
"""Devices that are named in the log where a directory has changed."""

DOUBTS_SAID_MAX = 20
"""Doubts about one directory that are logged one by one."""

NEEDS_RESTART = ("store", "tls", "dicom", "http", "timezone", "expiry", "workers")
"""Settings that a running service keeps as they were; so it does the names, addresses, TLS and frames of HL7 listeners,
and the names and connections of destinations. What is in the files that `tls` names may change at any time."""

_log = structlog.get_logger()


class Service:
    """One gateway process: its listeners over one store."""

    def __init__(self, site: Site) -> None:
        self.site = site
        settings = site.settings
        self._tls = ListenersTLS(site.file.parent, settings, settings.hl7)  # first: it opens nothing, and may fail
        self._watching: asyncio.Task[None] | None = None
        self.metrics = Metrics()
        self.store = Store(site.store_url, zone=site.settings.timezone, gathers=not site.settings.workers)
        self._mint = Mint(self.store.site_namespace())
        self._queries = QueryLog(self.store, site.settings.queries.per_device, self._registered)
        self._knocks = KnockLog(self.store)
        self._serving = False
        self._reloading = asyncio.Lock()  # the last one asked for must be the last one that is served
        self._audience = audience_of(site)
        self._others: dict[str, RunsAgain] = {}
        self._feeds = feeds_of(site, self._mint, self._audience, self._others)
        self._hosts = Hosts()
        self._clock = ClockWatch(self._observe, _log.warning, asking(self._hosts))
        self.metrics.clock = lambda: [
            (each.server, each.offset_s) for each in self._clock.readings if each.offset_s is not None
        ]
        self._deliverers = dict(deliverers_of(site, self.store, self._observe, self._hear, self._hosts))
        self._connected = site.settings.destinations
        road = RoadToStore(self.store, self._feeds, self._wake)
        self._receiving: Receiving | None = None
        self._dicom: Listening | Workers
        if site.settings.workers:
            self._dicom = Workers(
                site, self._report, road, self._queries.add, self.metrics, knocked=self._knocks.add
            )  # fmt: skip
        else:
            tally = self.metrics.tally
            self._receiving = Receiving(site.settings.hl7, road, tally, tls=self._tls)
            self._receiving.serve(site.settings)
            self._dicom = Listening(
                site, self.store.reader, self._report, self._queries.add, tally, knocked=self._knocks.add,
                tls=self._tls,
            )  # fmt: skip
        self.metrics.associations.set_function(lambda: self._dicom.associations)
        self.metrics.backlogs = lambda: self._desk().backlogs(self.store.reader.queues())
        self._expiries: ExpiryWatch | None = None  # made where there is a certificate
        self.metrics.queries_lost = lambda: self._queries.counts.dropped + self._queries.counts.lost
        self._http: HTTPServer | None = None
        self._fhir: FHIRServing | None = None  # imported where it is configured: few sites speak FHIR
        self._rule_reader: StoreReader | None = None  # opened where there is a rule: it reads in a thread of its own
        self._scheduler = AsyncIOScheduler(timezone=site.zone)
        self._stopped = False
        self._directory: DirectoryWatch | None = None
        self._doubts: frozenset[Problem] = frozenset()
        self._followed: object = None  # what the directory is reached by, and where it is kept
        self._looks: set[asyncio.Task[None]] = set()
        self.metrics.directory = lambda: self._directory.state if self._directory is not None else None

    async def start(self, announce: Callable[[str], None]) -> None:
        """Open every listener and announce each in a line. Raises OSError if an address is taken."""
        await remember_mappings(self.store, self.site)
        if self._receiving is not None:
            await self._receiving.start()
            self._announce_hl7(announce)
        for place in self.site.settings.destinations:
            announce(f"To                {place.whereabouts}  ({place.name}, {described(place)})")
        for deliverer in self._deliverers.values():
            deliverer.start()
        self._warn_of_left_behind(self.site.settings.destinations)
        await self._first_look()
        # FastAPI takes as long to import as all the rest; senders and scanners are served meanwhile.
        health = asyncio.create_task(asyncio.to_thread(importlib.import_module, "gateway.edges.health"))
        await self._dicom.start()
        if self._receiving is None:  # the workers receive
            self._announce_hl7(announce)
        settings = self.site.settings
        self._announce(announce, "DICOM", settings.dicom, "dicom", f"{settings.ae_title}: worklist, MPPS, echo")
        await self._start_http(await health)
        self._announce(announce, "HTTP", settings.http, "http", "/health/ready, /metrics")
        self._announce_fhir(announce)
        self._tls.warn()
        await self.watch_certificates()
        self._watching = asyncio.create_task(self._tls.watch())
        hour, minute = self.site.settings.expiry.at.split(":")
        self._scheduler.add_job(self.expire, CronTrigger(hour=hour, minute=minute), id="expiry")
        self._scheduler.add_job(self.watch_certificates, IntervalTrigger(hours=1), id="certificates")
        self._scheduler.add_job(self.forget_queries, CronTrigger(hour=hour, minute=minute), id="queries")
        self._scheduler.add_job(self.forget_messages, CronTrigger(hour=hour, minute=minute), id="messages")
        self._scheduler.add_job(self.assume_completed, IntervalTrigger(minutes=1), id="assumed")
        self._watch_clock()
        self._scheduler.start()
        self._serving = True
        if self._fhir is not None:
            await self._fhir.follow()

    def _announce_hl7(self, announce: Callable[[str], None]) -> None:
        for settings in self.site.settings.hl7:
            what = f"{settings.name}, {settings.mapping}"
            self._announce(announce, "HL7 v2 over MLLP", settings, f"hl7 {settings.name}", what)

    def _announce_fhir(self, announce: Callable[[str], None]) -> None:
        http = self.site.settings.http
        if self._fhir is not None:
            for scheme, port in (("http", http.port if http.plain else 0), ("https", http.tls.port if http.tls else 0)):
                if port:
                    announce(f"{'FHIR':16}  {scheme}://{http.host}:{port}/fhir  ({self._fhir.described})")

    def _announce(
        self,
        announce: Callable[[str], None],
        protocol: str,
        listener: DICOMSettings | HL7Settings | HTTPSettings,
        name: str,
        what: str,
    ) -> None:
        """A line for each port of a listener."""
        if listener.plain:
            announce(f"{protocol:16}  {listener.host}:{listener.port}  ({what})")
        if listener.tls is not None:
            announce(f"{protocol:16}  {listener.host}:{listener.tls.port}  ({what}; {self._tls.described(name)})")

    async def _start_http(self, health: ModuleType) -> None:
        http = self.site.settings.http
        api = health.api(
            health.DeskAPI(self.store, self._desk, now, self._wake), http.host, http.host in LOOPBACK
        )  # fmt: skip
        if self.site.settings.fhir is not None:
            serving = await asyncio.to_thread(importlib.import_module, "gateway.fhir_serving")
            self._fhir = serving.FHIRServing(
                self.site, self.store, self._mint, self._audience, self.metrics.tally, self._wake, self._others,
                self._scheduler,
            )  # fmt: skip
            self._fhir.start()
            self.metrics.feeds = lambda: self._fhir.feeds if self._fhir is not None else ()
        fhir = self._fhir.app if self._fhir is not None else None
        served = health.app(self.metrics, self._unready, self._counts, api, fhir)
        self._http = health.HTTPServer(
            served, http.host, http.port if http.plain else None, self._tls.port("http"), self._observe_http
        )  # fmt: skip
        await self._http.start()

    def _observe_http(self, event: str, /, **fields: Any) -> None:
        self.metrics.tally.handshake_failed(event, fields)
        _log.info(event, **fields)

    async def stop(self) -> None:
        """Finish what is in flight, then close everything."""
        self._serving, self._stopped = False, True
        for look in self._looks:
            look.cancel()
        if self._watching is not None:
            self._watching.cancel()
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)
        if self._receiving is not None:
            await self._receiving.stop()
        await asyncio.gather(*(deliverer.stop(STOP_GRACE_S) for deliverer in self._deliverers.values()))
        await self._dicom.stop(STOP_GRACE_S)
        if self._http is not None:
            await self._http.stop()
        if self._fhir is not None:
            await self._fhir.close()
        await self._queries.close()
        await self._knocks.close()
        STRICT_CHECKS.close()
        self.store.close()

    async def reload(self) -> None:
        """Read the site again: all but what needs a restart changes together, on every process, or not at all."""
        async with self._reloading:
            await self._reload()
        await self._follow_directory()
        self._look_soon(whole=True)
        self._watch_clock()

    async def _reload(self) -> None:
        try:
            site = await asyncio.to_thread(load_site, self.site.file, fhir=self._fhir is not None)
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
        if _stay_where_they_are(self._connected, site.settings.destinations):
            moved.append("destinations")
        running["destinations"] = reloaded(self._connected, site.settings.destinations)
        if (site.settings.fhir is None) is not (self.site.settings.fhir is None):
            moved.append("fhir")
            running["fhir"] = self.site.settings.fhir
        if moved:
            _log.warning("reload_needs_restart", settings=moved)
        # Some of these are looked up at every query: half a time zone would be worse than the old one.
        settings, devices = site.settings.model_copy(update=running), site.devices
        if not settings.devices.unknown and settings.dicom.host not in LOOPBACK:
            devices = replace(devices, accept_unknown=False)  # it goes by the address that the listener has
        site = replace(site, settings=settings, store_url=self.site.store_url, devices=devices)
        self._hosts.purge()
        self._answer_by(site)
        self._queries.per_device_max = site.settings.queries.per_device
        self._audience = audience_of(site)
        # A listener that is gone from the file serves on until the restart.
        self._feeds |= feeds_of(site, self._mint, self._audience, self._others)
        if self._fhir is not None:
            self._fhir.serve(site, self._audience)
            await self._fhir.follow()
        await remember_mappings(self.store, site)
        self._tls.renew(always=True)
        _log.info("reloaded")
        await self.watch_certificates()
        await self._move_destinations()
        await self.release_held()

    def _answer_by(self, site: Site) -> None:
        """Answer everybody by this site from now on, in every process."""
        self.site = site
        self._dicom.serve(site)
        if self._receiving is not None:
            self._receiving.serve(site.settings)

    # --- the directory of devices ----------------------------------------------------------------------------------

    async def _first_look(self) -> None:
        """Serve by the snapshot at once and look behind it.

        Where there is none yet, scanners would be turned away as unknown: they are kept waiting instead, for one
        answer of the directory at most, while HL7 is received. Workers receive HL7 themselves, so nobody waits there.
        """
        await self._follow_directory()
        snapshot, ldap = _snapshot_of(self.site), self.site.settings.devices.ldap
        look = self._look_soon(whole=True)
        if look is None or snapshot is None or ldap is None or snapshot.exists() or self._receiving is None:
            return
        await asyncio.wait([look], timeout=ldap.timeout_s)

    async def _follow_directory(self) -> None:
        """Watch the directory that the settings name, if they name one."""
        ldap, snapshot = self.site.settings.devices.ldap, _snapshot_of(self.site)
        if self._followed != (ldap, snapshot, self.site.settings.tls):
            self._followed = ldap, snapshot, self.site.settings.tls
            self._directory = None
            for look in self._looks:  # what another directory says is not waited for any more
                look.cancel()
            if self._scheduler.get_job(_DIRECTORY_JOB):
                self._scheduler.remove_job(_DIRECTORY_JOB)
            if ldap is None or snapshot is None:
                return
            # Few gateways have a directory: the others need not wait for its client to be imported.
            source = await asyncio.to_thread(importlib.import_module, "gateway.directory_source")
            self._directory = source.watch(self.site, ldap, snapshot, self._take_directory, lambda: self.site.directory)
            every = IntervalTrigger(seconds=ldap.refresh_s)
            self._scheduler.add_job(self.look_at_directory, every, id=_DIRECTORY_JOB)

    async def look_at_directory(self) -> None:
        """Serve by the directory as it is now, if it has changed. Returns at once; trouble is said, not raised."""
        if not self._looks:  # else a slow server is still busy with the last one
            self._look_soon(whole=False)

    def _look_soon(self, *, whole: bool) -> asyncio.Task[None] | None:
        if self._directory is None or self._stopped:
            return None
        task = asyncio.get_running_loop().create_task(self._directory.look(whole=whole))
        self._looks.add(task)
        task.add_done_callback(self._looks.discard)
        return task

    async def _take_directory(self, directory: Directory) -> None:
        """Serve by this directory, all of it, and keep it. Raises ConfigError or OSError, and nothing has changed."""
        async with self._reloading:
            snapshot = _snapshot_of(self.site)
            if snapshot is None or self._stopped:
                return
            site, changes = await asyncio.to_thread(_kept, self.site, snapshot, directory)
            self._say_doubts(site)
            if not changes:
                return
            places = reloaded(self._connected, site.settings.destinations)
            site = replace(site, settings=site.settings.model_copy(update={"destinations": places}))
            self._hosts.doubt_all()
            self._answer_by(site)
            names = dict.fromkeys(each.device for each in changes)
            some = list(names)[:CHANGED_SAID_MAX]
            _log.info("directory_changed", devices=len(site.directory.devices), changed=len(names), some=some)
            await self._move_destinations()

    def _say_doubts(self, site: Site) -> None:
        """What is wrong with single devices, once: they are served as far as that is safe."""
        new = [doubt for doubt in site.doubts if doubt not in self._doubts]
        for doubt in new[:DOUBTS_SAID_MAX]:
            _log.warning("directory_doubt", where=doubt.where, text=doubt.text, hint=doubt.hint)
        if len(new) > DOUBTS_SAID_MAX:
            _log.warning("directory_doubts", more=len(new) - DOUBTS_SAID_MAX, see="gateway devices check")
        self._doubts = frozenset(site.doubts)

    async def _move_destinations(self) -> None:
        """Send to where the directory says now."""
        before = {place.name: place for place in self._connected}
        for place in self.site.settings.destinations:
            old = before.get(place.name)
            if old is None or not follows(old, place) or connection_of(old) == connection_of(place):
                continue
            try:
                deliverer = deliverer_of(self.site, place, self.store, self._observe, self._hear, self._hosts)
            except OSError as error:
                _log.error("destination_not_moved", destination=place.name, why=error.strerror or str(error))
                continue
            running = self._deliverers.pop(place.name, None)
            if running is not None:
                await running.stop(STOP_GRACE_S)  # of one patient's messages the oldest is sent first, by one alone
            if self._stopped:
                return
            self._deliverers[place.name] = deliverer
            deliverer.start()
            before[place.name] = place
            _log.info("destination_moved", destination=place.name, host=place.host, port=place.port)
        self._connected = tuple(before.values())

    def _watch_clock(self) -> None:
        """Look at the clock now, and then as often as the settings say."""
        every = IntervalTrigger(seconds=self.site.settings.clock.every_s)
        self._scheduler.add_job(self.look_at_clock, every, id="clock", replace_existing=True, next_run_time=now())

    async def look_at_clock(self) -> None:
        """Compare the clock with the NTP servers that the settings name; trouble is said, not raised."""
        clock = self.site.settings.clock
        await self._clock.look(clock.servers, clock.warn_s)

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
        feed = self._others.get(message.record.listener)
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

    async def watch_certificates(self) -> int:
        """Warn of certificates that end soon, of each once for each threshold. Returns how many warnings there were."""
        settings, base = self.site.settings, self.site.file.parent
        if self._expiries is None:
            if not certificate_files(settings, base):
                return 0
            # What reads certificates takes time and memory that a site without TLS shall not give.
            expiry = await asyncio.to_thread(importlib.import_module, "gateway.certificate_expiry")
            self._expiries = watch = expiry.ExpiryWatch()
            self.metrics.certificates = lambda: expiry.seconds_left(watch.held)
        return await asyncio.to_thread(self._expiries.look, settings, base, now())

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
        if self._fhir is not None:
            self._fhir.wake()

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


def _addresses(site: Site) -> dict[str, tuple[object, ...]]:
    """What a listener needs a restart for, by its name."""
    return {
        each.name: (each.host, each.port, each.plain, each.tls, each.frame_bytes_max, each.mllp_release)
        for each in site.settings.hl7
    }


def _stay_where_they_are(running: Sequence[DestinationSettings], said: Sequence[DestinationSettings]) -> bool:
    """Whether the settings have other destinations or connections of them than the service can go on to."""
    before, after = {each.name: each for each in running}, {each.name: each for each in said}
    return before.keys() != after.keys() or any(
        not follows(before[name], place) and connection_of(before[name]) != connection_of(place)
        for name, place in after.items()
    )


def _snapshot_of(site: Site) -> Path | None:
    """The file that keeps the directory which was read last; None where devices are not those of a directory."""
    ldap = site.settings.devices.ldap
    return site.file.parent / ldap.snapshot if ldap is not None and ldap.use else None


def _kept(site: Site, snapshot: Path, directory: Directory) -> tuple[Site, Sequence[Difference]]:
    """The site with this directory, as the next start would have it, and what is new. Blocks.

    Raises ConfigError where nothing of it may be served, and OSError where it cannot be kept.
    """
    refused = check(directory, "LDAP").refused
    if refused:
        raise ConfigError(refused)
    write_snapshot(snapshot, directory)
    changed = with_snapshot(site)
    return changed, differences(site.directory, changed.directory)


_DIRECTORY_JOB = "directory"


def serve(site: Site, announce: Callable[[str], None]) -> None:
    """Run the service until SIGTERM or SIGINT. Raises StoreError or OSError if it cannot start."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until it can reload: by itself this signal would end it
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
