"""From the settings to our FHIR server: what it works on, made of the site, the store and the feeds as they are now.

What may live here: wiring, and what is counted and logged of requests. What is served is `edges.fhir_http`'s, how
requests are read `fhir_processing`'s.

    fhir_request   client (its name in the settings), interaction, type, release, status, refusals (codes of issues), ms
"""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from http import HTTPStatus
from importlib.metadata import version
from typing import Any

import structlog
from apscheduler.schedulers.asyncio import AsyncIOScheduler
from starlette.types import ASGIApp

from gateway.config import LOOPBACK, Site
from gateway.domain.identifiers import Mint
from gateway.domain.refusal import Refusal
from gateway.edges.fhir_calls import Done
from gateway.edges.fhir_door import Door, DoorSettings
from gateway.edges.fhir_http import FHIRServer, fhir
from gateway.edges.fhir_subscribers import Subscribers
from gateway.edges.metrics import FeedState, Tally
from gateway.edges.store import Store
from gateway.fhir_feeds import Feeds
from gateway.fhir_processing import fhir_feeds_of, process_request, refuse_request, rehearse_request, unstored
from gateway.fhir_settings import FHIRSettings
from gateway.wire.fhir_bundle import Answer
from gateway.wire.fhir_interactions import FHIRRequest
from gateway.workflow.audience import Audience
from gateway.workflow.fhir_feed import OUR_SERVER
from gateway.workflow.fhir_intake import Again
from gateway.workflow.fhir_rehearsal import Rehearsal
from gateway.workflow.fhir_topics import publish
from gateway.workflow.intake import RunsAgain

_log = structlog.get_logger()

DISTRIBUTION = "modality-gateway"
QUESTION_S = 10.0
"""For one question of a client to the store: usual ones take some milliseconds."""
_CHANGING = frozenset({"create", "update", "patch", "delete", "bundle", "message"})
"""Interactions that are logged: there are few of them beside those that read."""
_GRACE_S = 2.0
"""For the answer to a notification that is under way at the end."""


class FHIRServing:
    """Our FHIR server inside a service. `app` is what HTTP serves; `serve` makes it go by another site."""

    def __init__(
        self,
        site: Site,
        store: Store,
        mint: Mint,
        audience: Audience,
        tally: Tally,
        wake: Callable[[], None],
        others: dict[str, RunsAgain],
        scheduler: AsyncIOScheduler,
    ) -> None:
        """`wake` is called when something may have been put into the outbox, `others` are the feeds of HL7 v2. The site
        has `fhir`."""
        self._feeds = Feeds(store, scheduler, site.file.parent, self._done)
        self._store, self._mint, self._tally, self._wake, self._others = store, mint, tally, wake, others
        self._door = Door(_door_settings(site), tally)
        self.serve(site, audience)
        self._server = FHIRServer(
            self._process, self._refuse, self._rehearse, partial(store.open_reader, QUESTION_S), self._door,
            lambda: self._settings.release, lambda: self._settings.limits, self._feeds.follower, self._observed,
        )  # fmt: skip
        self.app: ASGIApp = fhir(self._server, version(DISTRIBUTION))
        self._subscribers = Subscribers(
            store, _observe, site.file.parent, settings_of(site).notify_tls, audience=lambda: self._audience
        )  # fmt: skip

    @property
    def _settings(self) -> FHIRSettings:
        return settings_of(self._site)

    @property
    def described(self) -> str:
        """The server in a few words, for the line that announces it."""
        clients = len(self._settings.clients)
        who = f"{clients} client{'s' * (clients > 1)}" if clients else "programs on this machine"
        if not clients and self._settings.asks_for_proof:
            who = "servers that notify us alone"
        return f"{self._settings.release.value}; also /r4, /r4b, /r5; for {who}"

    def serve(self, site: Site, audience: Audience) -> None:
        """Answer by this site from now on."""
        self._site, self._audience = site, audience
        self._door.serve(_door_settings(site))
        feeds = fhir_feeds_of(site, self._mint, audience, self._others)
        self._others |= {name: Again(feed) for name, feed in feeds.items()}
        self._read, self._feed = feeds, feeds[OUR_SERVER]

    async def follow(self) -> None:
        """Fetch orders from the other servers that the site names now."""
        await self._feeds.follow(self._settings, self._read)

    @property
    def feeds(self) -> Sequence[FeedState]:
        """How it stands with those servers."""
        return self._feeds.states

    def wake(self) -> None:
        """Something may have been put into the outbox for those who subscribed."""
        self._subscribers.wake()

    def start(self) -> None:
        """Say what can be subscribed to, and begin to tell those who subscribed."""
        self._store.write(partial(publish, at=datetime.now(UTC)))
        self._subscribers.start()

    async def close(self) -> None:
        """End what it started."""
        await self._feeds.stop()
        await self._subscribers.stop(_GRACE_S)
        self._server.bodies.close()
        await self._door.close()

    async def _process(self, request: FHIRRequest) -> Answer:
        return self._done(await process_request(self._store, request, self._feed))

    async def _refuse(self, request: FHIRRequest, refusals: Sequence[Refusal]) -> Answer:
        return self._done(await refuse_request(self._store, request, refusals, self._feed))

    def _done(self, answer: Answer) -> Answer:
        """The answer to what was sent or fetched: counted where it could not be stored, told to others where it was."""
        self._tally.transient += unstored(answer)
        if answer.status < HTTPStatus.BAD_REQUEST:
            self._wake()
        return answer

    def _observed(self, done: Done) -> None:
        """Count it. Log it where it was to change something; who was not let in is the door's to tell."""
        self._tally.fhir_done(done.interaction, done.status, done.seconds)
        if done.client and done.interaction in _CHANGING:
            _log.info(
                "fhir_request", client=done.client, interaction=done.interaction, type=done.type,
                release=done.release.value, status=done.status, refusals=list(done.issues),
                ms=round(done.seconds * 1000, 2),
            )  # fmt: skip

    async def _rehearse(self, request: FHIRRequest) -> Rehearsal:
        return await rehearse_request(self._store, request, self._feed)


def _observe(event: str, /, **fields: Any) -> None:
    _log.info(event, **fields)


def settings_of(site: Site) -> FHIRSettings:
    """The settings of our server. Raises ValueError where there is none."""
    if site.settings.fhir is None:
        raise ValueError("the site has no fhir settings")
    return site.settings.fhir


def _door_settings(site: Site) -> DoorSettings:
    settings = site.settings
    return DoorSettings(settings_of(site), site.file.parent, settings.http.host in LOOPBACK, settings.tls.ca)
