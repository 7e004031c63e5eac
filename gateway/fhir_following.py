"""Following another FHIR server: what has changed there is fetched, because we ask again and again or are told.

What may live here: one feed's looks, and what its notifications lead to. Whatever is found goes down the same road as
what is sent to our own server (`fhir_fetching`). How far a feed was read is kept in the store (`workflow.fhir_marks`):
after a crash something is fetched twice, never not at all.

    fhir_feed_look         feed, search, pages, taken, refused
    fhir_feed_failed       feed, what, trouble, text (once for the same trouble)
    fhir_feed_recovered    feed, what
    fhir_feed_dropped      feed, references: so many were told and could not be had for long; a search is due instead
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import structlog

from gateway.domain.refusal import Refusal, RefusalKind, Refused
from gateway.domain.resources import Resource
from gateway.edges.database import StoreError
from gateway.edges.fhir_client import FHIRClient, FHIRClientError, Trouble, in_a_circle
from gateway.edges.metrics import FeedState
from gateway.edges.store import Store
from gateway.fhir_fetching import FOLLOWED, REFERENCES_MAX, Fetching, NotNow, Refuse, Take
from gateway.fhir_settings import FHIRFeedSettings, PollSettings
from gateway.fhir_subscribed import Subscribed
from gateway.wire import fhir_notifications
from gateway.wire.fhir_notifications import Occasion
from gateway.wire.fhir_release import Release
from gateway.wire.fhir_subscribing import NEEDS_ASKING_AGAIN
from gateway.workflow.fhir_marks import Mark, Reading, going_back, instant

TRIES_MAX = 60
"""How often something that was told is asked for, of a server that answers and does not give it."""

EVENTS_MAX = 1_000
"""Events that are asked for by number; where more went by, or a server says so, everything is searched."""

_log = structlog.get_logger()
_UNPOLLED = PollSettings()
"""How a feed is searched that is only told: after a gap, and at the start."""
_ORDERS = "ServiceRequest"
"""What is searched where a topic says it all: an event that went by is found nowhere else."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What a server that notified us is answered: an HTTP status, and what is wrong."""

    status: int
    refusals: tuple[Refusal, ...] = ()


class Follower:
    """One feed. For one event loop; nothing here raises but what is a defect of ours.

    What is to be done is done by one task after the other, so that a slow server is never asked twice at once.
    """

    def __init__(
        self,
        settings: FHIRFeedSettings,
        client: FHIRClient,
        store: Store,
        take: Take,
        refuse: Refuse,
        subscribed: Subscribed | None = None,
    ) -> None:
        """`take` and `refuse` are those of `fhir_processing`; `subscribed` where the server tells us."""
        self.settings = settings
        self._client, self._store, self._subscribed = client, store, subscribed
        self._fetching = Fetching(settings, client, store, take, refuse)
        self._worker: asyncio.Task[None] | None = None
        self._again = self._look_is_due = self._stopped = False
        self._not_before = 0.0
        self._tries: Counter[str] = Counter()
        self._failed = 0
        self._troubles: dict[str, str] = {}
        self._looked_at: datetime | None = None

    # --- when -------------------------------------------------------------------------------------------------------

    async def begin(self) -> None:
        """Go on where the last run ended, and see what happened meanwhile. Returns at once. Raises StoreError."""
        looked = self._mark().looked
        self._looked_at = datetime.fromisoformat(looked) if looked else None
        await self._set(lambda mark: replace(mark.only(self.searches), whole=mark.whole + 1))
        self._hurry()

    def look_soon(self) -> None:
        """Ask for what has changed since the last look, unless that is being done."""
        self._look_is_due = True
        self._hurry()

    def watch(self) -> None:
        """See that the subscription is there and alive, and catch up where something was missed."""
        if self._subscribed is not None:
            self._subscribed.is_due = self._subscribed.is_due or self._subscribed.is_silent
        self._hurry()

    async def look(self) -> bool:
        """Look now; whether all of it went well."""
        failed = self._failed
        self.look_soon()
        await self.idle()
        return self._failed == failed

    async def idle(self) -> None:
        """Wait until there is nothing to be done."""
        while self._worker is not None and not self._worker.done():
            await asyncio.wait([self._worker])

    async def stop(self) -> None:
        """End what is under way, and the connections; the next start goes on with it."""
        self._stopped = True
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.wait([self._worker])
        await self._client.close()

    @property
    def release(self) -> Release:
        """The release of FHIR that the server speaks."""
        return self.settings.release

    @property
    def client(self) -> str:
        """The client of ours that the server may prove itself as when it notifies us, '' for none."""
        return self.settings.subscription.client if self.settings.subscription is not None else ""

    def knows(self, authorization: str) -> bool:
        """Whether a notification with this Authorization header is from the server that we asked for it."""
        return self._subscribed is not None and self._subscribed.knows(authorization)

    @property
    def state(self) -> FeedState:
        """How it stands, for metrics."""
        age_s = (datetime.now(UTC) - self._looked_at).total_seconds() if self._looked_at else None
        fetching = self._fetching
        return FeedState(self.settings.name, self._failed, age_s, fetching.taken, fetching.refused)

    def _hurry(self) -> None:
        self._again = True
        if self._stopped:  # a notification that was on the way: what it told is on disk for whoever follows next
            return
        if self._worker is None or self._worker.done():
            self._worker = asyncio.get_running_loop().create_task(self._work())

    async def _work(self) -> None:
        await self._guarded("store", self._work_on)

    async def _work_on(self) -> None:
        """Raises StoreError."""
        while self._again:
            self._again = False
            if time.monotonic() < self._not_before:  # it asked to be left alone so long
                return
            if self._subscribed is not None and (self._subscribed.is_due or not self._mark().subscription):
                await self._guarded("subscribe", self._subscribe)
            mark = self._mark()
            if mark.missed:
                await self._guarded("events", self._take_missed)
            if mark.pending:
                await self._guarded("fetch", self._take_pending)
            if self._look_is_due or self._mark().whole:
                self._look_is_due = False
                await self._search_all()

    # --- looking ----------------------------------------------------------------------------------------------------

    @property
    def searches(self) -> tuple[str, ...]:
        """What is asked for: as `poll` says, else what the subscription is about."""
        poll, told = self.settings.poll, self.settings.subscription
        if poll is not None:
            return poll.search
        return (told.criteria or _ORDERS,) if told is not None else ()

    async def _search_all(self) -> None:
        reasons = self._mark().whole
        went_well = [
            await self._guarded(f"look at {each.partition('?')[0]}", partial(self._search, each))
            for each in self.searches
        ]
        if not all(went_well):
            self._failed += 1
            return
        await self._guarded("references", self._fetching.retry)
        if any(self._mark().reading(each).next for each in self.searches):
            return  # there is more than one look takes; the next one goes on
        at = datetime.now(UTC)
        if await self._guarded("mark", lambda: self._set(lambda mark: mark.searched(reasons, at))):
            self._looked_at = at

    async def _search(self, search: str) -> None:
        """Read on in this search. Raises FHIRClientError, NotNow and StoreError."""
        fetching, settings = self._fetching, self.settings
        what = f"GET {search.partition('?')[0]}"
        taken, refused, pages = fetching.taken, fetching.refused, 0
        url = self._mark().reading(search).next
        goes_on = bool(url)
        url = url or self._begun(search)
        began = datetime.now(UTC).isoformat(timespec="milliseconds")
        seen: set[str] = set()
        try:
            while url and pages < self._poll.pages_max:
                if url in seen:
                    raise in_a_circle()
                seen.add(url)
                try:
                    page = await self._client.page(url)
                except FHIRClientError as error:
                    if not goes_on or error.is_transient or error.trouble is Trouble.NOT_LET_IN:
                        raise
                    goes_on, url = False, self._begun(search)  # it has forgotten the pages of that look
                    seen.clear()
                    await self._read(search, self._mark().reading(search).restarted())
                    continue
                goes_on, pages = False, pages + 1
                await fetching.take(_resources(page), what)
                reading = self._mark().reading(search)
                newest, asked_at = _newest(page), _earlier(began, _updated(page))
                try:
                    url = self._client.after(page, url)
                except FHIRClientError:
                    await self._read(search, reading.restarted())
                    raise
                await self._read(search, reading.read(newest, url, asked_at))
                if self._mark().pending:
                    await self._take_pending()
        except FHIRClientError as error:
            if error.trouble is Trouble.UNTRUSTED:  # to go on with such a page would not end
                await self._read(search, self._mark().reading(search).restarted())
            raise
        if (fetching.taken, fetching.refused) != (taken, refused):
            _log.info(
                "fhir_feed_look", feed=settings.name, search=search.partition("?")[0], pages=pages,
                taken=fetching.taken - taken, refused=fetching.refused - refused,
            )  # fmt: skip

    @property
    def _poll(self) -> PollSettings:
        return self.settings.poll or _UNPOLLED

    def _begun(self, search: str) -> str:
        """The first page of a look."""
        since = going_back(self._mark().reading(search).since, self._poll.overlap_s)
        asked = [f"_lastUpdated=ge{since.replace('+', '%2B')}"] if since else []
        query = "&".join([*asked, "_sort=_lastUpdated", f"_count={self._poll.page}"])
        return f"{search}{'&' if '?' in search else '?'}{query}"

    async def _read(self, search: str, reading: Reading) -> None:
        await self._set(lambda mark: mark.read(search, reading))

    # --- what was told ----------------------------------------------------------------------------------------------

    async def notified(self, body: Resource | None, named: str = "") -> Heard:
        """Take a notification; what it names is kept on disk before it is answered, and fetched after.

        `named` is a reference in the address of a hook of R4, whose body is the resource; a hook without a body says
        only that something has changed.
        """
        if self._subscribed is not None:
            self._subscribed.heard()
        try:
            return await self._notified(body, named)
        except StoreError:
            return Heard(503, (Refusal(
                RefusalKind.TRANSIENT, "", "it cannot be stored now", "send it again later"
            ),))  # fmt: skip

    async def _notified(self, body: Resource | None, named: str) -> Heard:
        """Raises StoreError."""
        if body is not None and fhir_notifications.is_notification(body, self.settings.release):
            return await self._heard(body)
        if body is not None:
            own = f"{body.get('resourceType')}/{body.get('id')}"
            if named not in ("", own) or own.partition("/")[0] == "Bundle":
                return Heard(400, (Refusal(
                    RefusalKind.UNSUPPORTED_TYPE, "", "this is neither a notification nor the resource of its address",
                    f"send a notification of {self.settings.release}, or a resource to the address of its own",
                ),))  # fmt: skip
            named = own
        if named:
            await self._set(lambda mark: mark.told(_of_use([named])))
        else:
            await self._set(lambda mark: replace(mark, whole=mark.whole + 1))
        self._hurry()
        return Heard(200)

    async def _heard(self, body: Resource) -> Heard:
        try:
            notification = fhir_notifications.read(body, self.settings.release)
        except Refused as refused:
            return Heard(400, refused.refusals)
        told = _of_use([*notification.focuses, *notification.deleted])
        await self._set(lambda mark: mark.heard(notification).told(told))
        if notification.status in NEEDS_ASKING_AGAIN and self._subscribed is not None:
            self._subscribed.is_due = True
        self._hurry()
        return Heard(200)

    async def _take_pending(self) -> None:
        """Fetch what was told. Raises FHIRClientError where the server is away, NotNow and StoreError."""
        pending = self._mark().pending
        references = list(pending)
        for start in range(0, len(references), REFERENCES_MAX):
            some = references[start : start + REFERENCES_MAX]
            done = await self._fetching.fetch(some, "notification")
            self._tries.update(each for each in some if each not in done)
            dropped = {each for each in some if self._tries[each] >= TRIES_MAX}
            for each in (*done, *dropped):
                del self._tries[each]
            over = {each: pending[each] for each in (*done, *dropped)}
            await self._set(partial(Mark.fetched, done=over))
            if dropped:
                _log.warning("fhir_feed_dropped", feed=self.settings.name, references=len(dropped))
                await self._set(lambda mark: replace(mark, whole=mark.whole + 1))

    async def _take_missed(self) -> None:
        """What events went by: the server is asked for them by number, and else for everything by a search."""
        mark = self._mark()
        missed = mark.missed
        if missed is None:
            return
        events = None
        if self.settings.subscription is not None and self.settings.subscription.topic and mark.subscription:
            events = await self._events(mark.subscription, missed)

        def caught_up(mark: Mark) -> Mark:
            rest = None if mark.missed == missed else mark.missed
            if events is None:
                return replace(mark, missed=rest, whole=mark.whole + 1)
            return replace(mark, missed=rest).told(events)

        await self._set(caught_up)
        self._again = True

    async def _events(self, subscription: str, missed: tuple[int, int]) -> Sequence[str] | None:
        """What these events were about; None where the server does not tell all of them."""
        first, last = missed
        if last - first >= EVENTS_MAX:
            return None
        try:
            answer = await self._client.send(
                "GET", f"Subscription/{subscription}/$events?eventsSinceNumber={first}&eventsUntilNumber={last}"
            )
            said = fhir_notifications.read(answer.expected().resource or {}, self.settings.release)
        except (FHIRClientError, Refused):  # it need not offer that
            return None
        if said.occasion is not Occasion.EVENTS or not set(range(first, last + 1)) <= set(said.numbers):
            return None
        return _of_use([*said.focuses, *said.deleted])

    async def _subscribe(self) -> None:
        if self._subscribed is not None:
            await self._subscribed.keep(self._mark(), self._set)

    # --- in common --------------------------------------------------------------------------------------------------

    def _mark(self) -> Mark:
        return Mark.of(self._store.reader.feed_mark(self.settings.name))

    async def _set(self, change: Callable[[Mark], Mark]) -> None:
        """Change the mark, on disk. Raises StoreError."""
        name = self.settings.name

        def write(unit: Any) -> None:
            before = unit.feed_mark(name)
            after = change(Mark.of(before)).text
            if after != before:
                unit.set_feed_mark(name, after)

        await self._store.written(write)

    async def _guarded(self, what: str, do: Callable[[], Awaitable[None]]) -> bool:
        """Whether it went well; what did not is said, once."""
        try:
            await do()
        except FHIRClientError as error:
            if error.retry_after_s:
                self._not_before = time.monotonic() + error.retry_after_s
            self._say(what, error.trouble.value, error.text)
        except (NotNow, StoreError):
            self._say(what, "store", "it cannot be stored now")
        except Exception as error:
            self._say(what, "defect", type(error).__name__, error)
        else:
            if self._troubles.pop(what, ""):
                _log.info("fhir_feed_recovered", feed=self.settings.name, what=what)
            return True
        return False

    def _say(self, what: str, trouble: str, text: str, error: Exception | None = None) -> None:
        if self._troubles.get(what) != f"{trouble} {text}":
            self._troubles[what] = f"{trouble} {text}"
            _log.warning(
                "fhir_feed_failed", feed=self.settings.name, what=what, trouble=trouble, text=text, exc_info=error
            )


def _of_use(references: Iterable[str]) -> list[str]:
    return [each for each in references if each.partition("/")[0] in FOLLOWED]


def _entries(page: Resource) -> Iterable[tuple[str, Any]]:
    entries = page.get("entry")
    for each in entries if isinstance(entries, list) else ():
        if isinstance(each, dict) and isinstance(each.get("resource"), dict):
            search = each.get("search")
            yield str(search.get("mode", "")) if isinstance(search, Mapping) else "", each["resource"]


def _resources(page: Resource) -> list[Any]:
    """What a page holds, the included first: what an order refers to is there before it."""
    held = [each for each in _entries(page) if each[0] != "outcome"]
    return [resource for _, resource in sorted(held, key=lambda one: one[0] != "include")]


def _newest(page: Resource) -> str:
    """The newest meta.lastUpdated of what was searched for, '' where there is none."""
    times = [each for mode, resource in _entries(page) if mode in ("", "match") and (each := _updated(resource))]
    return max(times, key=instant, default="")


def _earlier(one: str, other: str) -> str:
    return other if other and instant(other) < instant(one) else one


def _updated(resource: Resource) -> str:
    """meta.lastUpdated, '' where it is none."""
    meta = resource.get("meta")
    said = meta.get("lastUpdated") if isinstance(meta, dict) else None
    try:
        return said if isinstance(said, str) and instant(said) else ""
    except ValueError:
        return ""
