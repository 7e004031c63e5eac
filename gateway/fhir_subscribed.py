"""Our subscription with another FHIR server: made there, kept alive, and asked for again where it fell into error.

What may live here: its life over there, and the secret by which its notifications are known. What it says is
`wire.fhir_subscribing`'s, what follows from a notification `fhir_following`'s.

    fhir_feed_subscribed   feed
"""

import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from hmac import compare_digest
from urllib.parse import quote

import structlog

from gateway.domain.resources import Resource
from gateway.edges.fhir_client import FHIRClient, FHIRClientError, Trouble
from gateway.fhir_settings import FHIRFeedSettings, SubscriptionSettings
from gateway.wire.fhir_references import ID
from gateway.wire.fhir_subscribing import NEEDS_ASKING_AGAIN, Wanted, digest, subscription
from gateway.workflow.fhir_marks import Mark

SILENT_FACTOR = 2.5
"""Heartbeats that may be missing before the subscription is asked after."""
WATCH_S = 60.0
"""How often a subscription without heartbeats is asked after."""

_UNCHANGEABLE = frozenset({404, 405, 410, 501})
"""Answers to a PUT after which another Subscription is made."""

Change = Callable[[Callable[[Mark], Mark]], Awaitable[None]]
"""Changes the mark, on disk."""

_log = structlog.get_logger()


class Subscribed:
    """One feed's subscription. `is_due` says that it has to be looked after."""

    def __init__(
        self, settings: FHIRFeedSettings, told: SubscriptionSettings, client: FHIRClient, endpoint: str
    ) -> None:  # fmt: skip
        """`endpoint` is where notifications reach us."""
        self._settings, self._told, self._client, self._endpoint = settings, told, client, endpoint
        self._secret = told.secret or secrets.token_urlsafe(32)
        self._heard_at = time.monotonic()
        self.is_due = True  # who knows what became of it since the last run

    def knows(self, authorization: str) -> bool:
        """Whether a notification with this Authorization header is from the server that we asked for it."""
        return compare_digest(authorization.encode(), f"Bearer {self._secret}".encode())

    def heard(self) -> None:
        """It is alive."""
        self._heard_at = time.monotonic()

    @property
    def is_silent(self) -> bool:
        """Whether it is time to ask what became of it."""
        told = self._told
        due_s = SILENT_FACTOR * told.heartbeat_s if told.heartbeat_s and told.topic else WATCH_S
        return time.monotonic() - self._heard_at >= due_s

    async def keep(self, mark: Mark, change: Change) -> None:
        """See that it is there as it should be; where it was not, something went by, and a search is due.

        Raises FHIRClientError and StoreError.
        """
        if not self._told.register_there:
            await self._catch_up_after_silence(change)
            return
        asked = subscription(self._wanted, self._settings.release)
        held = await self._client.read("Subscription", mark.subscription) if mark.subscription else None
        status = str(held.get("status", "")) if held is not None else ""
        if held is not None and status not in NEEDS_ASKING_AGAIN and mark.asked == digest(asked):
            await change(lambda mark: replace(mark, status=status))
            await self._catch_up_after_silence(change)
            return
        if held is None or not await self._is_put(mark.subscription, asked):
            await self._made(asked, change)
        await change(lambda mark: replace(mark, asked=digest(asked), status="requested", whole=mark.whole + 1))
        self._alive()
        _log.info("fhir_feed_subscribed", feed=self._settings.name)

    @property
    def _wanted(self) -> Wanted:
        told = self._told
        return Wanted(told.criteria, self._endpoint, self._secret, told.topic, told.content, told.heartbeat_s)

    async def _catch_up_after_silence(self, change: Change) -> None:
        if self.is_silent and self._told.topic and self._told.heartbeat_s:  # it should have been heard of
            await change(lambda mark: replace(mark, whole=mark.whole + 1))
        self._alive()

    def _alive(self) -> None:
        self.heard()
        self.is_due = False

    async def _made(self, asked: Resource, change: Change) -> None:
        """Create it, or take over the one that a creation made whose answer was lost. Raises FHIRClientError."""
        condition = {"If-None-Exist": f"url={quote(self._endpoint, safe='')}"}
        answer = await self._client.send("POST", "Subscription", asked, condition)
        if answer.status in (400, 412, 422, 501):  # not every server knows conditions, or has a single one by now
            answer = await self._client.send("POST", "Subscription", asked)
        answer.expected()
        said = answer.resource.get("id") if answer.resource is not None else None
        location = answer.headers.get("location", "").partition("/_history/")[0]
        id_ = said if isinstance(said, str) and said else location.rpartition("/")[2]
        if not ID.fullmatch(id_):
            raise FHIRClientError(Trouble.UNTRUSTED, "it does not say which id the subscription has", answer.status)
        await change(lambda mark: replace(mark, subscription=id_, events=0, missed=None))
        if answer.status == 200 and not await self._is_put(id_, asked):  # our secret is another one by now
            raise FHIRClientError(
                Trouble.REFUSED, "it has a subscription of ours and does not change it: delete it there"
            )

    async def _is_put(self, id_: str, asked: Resource) -> bool:
        """Whether it was changed; False where the server changes none, or has lost it meanwhile. Raises
        FHIRClientError."""
        answer = await self._client.send("PUT", f"Subscription/{id_}", {**asked, "id": id_})
        if answer.status in _UNCHANGEABLE:
            return False
        answer.expected()
        return True
