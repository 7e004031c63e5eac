"""The FHIR servers that orders are fetched from, as the settings name them now: each followed, by jobs of its own.

What may live here: from settings to followers, their jobs, and to which of them a notification goes.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.interval import IntervalTrigger

from gateway.domain.refusal import Refusal
from gateway.edges.database import StoreError
from gateway.edges.fhir_client import FHIRClient
from gateway.edges.metrics import FeedState
from gateway.edges.store import Store
from gateway.fhir_fetching import Refuse, Take
from gateway.fhir_following import Follower
from gateway.fhir_processing import process_request, refuse_request
from gateway.fhir_settings import FHIRFeedSettings, FHIRSettings
from gateway.fhir_subscribed import WATCH_S, Subscribed
from gateway.wire.fhir_bundle import Answer
from gateway.wire.fhir_interactions import FHIRRequest
from gateway.workflow.fhir_feed import FHIRFeed

NOTIFICATIONS = "notifications"
"""Below /fhir, where other servers notify us: `NOTIFICATIONS/FEED`."""


def endpoint_of(url: str, feed: str) -> str:
    """Where notifications of a feed reach us; `url` is that of our server as others see it."""
    return f"{url}/{NOTIFICATIONS}/{feed}"


def follower_of(
    feed: FHIRFeedSettings, url: str, folder: Path, store: Store, take: Take, refuse: Refuse
) -> Follower:  # fmt: skip
    """Who follows this server. `url` is that of our own server as others see it, '' where that is not known."""
    client = FHIRClient.of_feed(feed, folder)
    told = feed.subscription
    subscribed = Subscribed(feed, told, client, endpoint_of(url, feed.name)) if told is not None else None
    return Follower(feed, client, store, take, refuse, subscribed)


class Feeds:
    """Those that are followed. For one event loop."""

    def __init__(
        self, store: Store, scheduler: AsyncIOScheduler, folder: Path, done: Callable[[Answer], Answer]
    ) -> None:  # fmt: skip
        """Paths in the settings are relative to `folder`; `done` is told what came of what was fetched."""
        self._store, self._scheduler, self._folder, self._done = store, scheduler, folder, done
        self._followers: dict[str, Follower] = {}
        self._urls: dict[str, str] = {}
        self._read: Mapping[str, FHIRFeed] = {}
        self._changing = asyncio.Lock()

    async def follow(self, settings: FHIRSettings, read: Mapping[str, FHIRFeed]) -> None:
        """Follow those of the settings from now on, each read as `read` says; who is followed the same way goes on."""
        async with self._changing:
            wanted = {each.name: each for each in settings.feeds if each.poll or each.subscription}
            for name, follower in list(self._followers.items()):
                same_way = self._urls[name] == settings.url or follower.settings.subscription is None
                if wanted.get(name) != follower.settings or not same_way:
                    await self._end(name)
            self._read = read  # not before: those that end may be in the middle of something
            for name, feed in wanted.items():
                if name not in self._followers:
                    await self._begin(feed, settings.url)

    async def stop(self) -> None:
        """Follow nobody any more."""
        async with self._changing:
            await asyncio.gather(*(self._end(name) for name in list(self._followers)))

    def follower(self, name: str) -> Follower | None:
        """Who follows this feed; None where it is not followed."""
        return self._followers.get(name)

    @property
    def states(self) -> Sequence[FeedState]:
        """How each stands."""
        return [each.state for each in self._followers.values()]

    async def _begin(self, feed: FHIRFeedSettings, url: str) -> None:
        name = feed.name

        async def take(request: FHIRRequest) -> Answer:
            return self._done(await process_request(self._store, request, self._read[name]))

        async def refuse(request: FHIRRequest, refusals: Sequence[Refusal]) -> Answer:
            return self._done(await refuse_request(self._store, request, refusals, self._read[name]))

        follower = follower_of(feed, url, self._folder, self._store, take, refuse)
        try:
            await follower.begin()
        except StoreError:
            await follower.stop()
            raise
        self._followers[name], self._urls[name] = follower, url
        if feed.poll is not None:
            self._job(name, "look", follower.look_soon, feed.poll.every_s)
        beat_s = feed.subscription.heartbeat_s if feed.subscription is not None else 0
        self._job(name, "watch", follower.watch, min(beat_s or WATCH_S, WATCH_S))

    def _job(self, name: str, what: str, do: Callable[[], None], seconds: float) -> None:
        async def run() -> None:  # a plain function would be run in a thread, beside the loop
            do()

        self._scheduler.add_job(
            run, IntervalTrigger(seconds=seconds), id=_job_id(name, what), replace_existing=True, coalesce=True,
            misfire_grace_time=None,
        )  # fmt: skip

    async def _end(self, name: str) -> None:
        for what in ("look", "watch"):
            if self._scheduler.get_job(_job_id(name, what)):
                self._scheduler.remove_job(_job_id(name, what))
        self._urls.pop(name)
        await self._followers.pop(name).stop()


def _job_id(name: str, what: str) -> str:
    return f"fhir {what} {name}"
