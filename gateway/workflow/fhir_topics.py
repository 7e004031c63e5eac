"""Subscriptions that others have with us: who is told of which order, in the transaction that changes it.

A Subscription is a resource that a client keeps at our server. Each one is a destination of its own in the outbox, so
its notifications leave in order, and one whose endpoint is away delays nobody else. What it is and was told stands in
the archive; how many events there were, whose it is and what its client's token let it read is kept beside it
(`Standing`). `edges.fhir_subscribers` sends, and calls what is told of outcomes here.

What a subscription tells is bounded twice: by what the token might read by which it was made or last changed, and by
what its client may read now (`why_not_told`). A client that lost some of it is told nothing more until it sends the
Subscription again: events that stay away one by one would look like days on which nothing happened.
"""

import hashlib
import json
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from typing import Protocol

from gateway.domain.progress import Progress
from gateway.domain.refusal import Refusal, RefusalKind, Refused
from gateway.domain.resource_search import Comparison, Criterion, How
from gateway.domain.resources import HeldResource, Resource, ResourceKey
from gateway.wire import fhir_json
from gateway.wire.fhir_release import Release
from gateway.wire.fhir_topics import FOCUS, MASK, Event, Wanted, base_of, masked, notification, topics, wanted
from gateway.workflow.audience import Audience, Reach
from gateway.workflow.fhir_server import keep
from gateway.workflow.outbox import SUBSCRIPTION, OutboxState, enqueue_fhir
from gateway.workflow.ports import MessageSearch, ResourceReader, StoredMessage, Unit

HANDSHAKE, HEARTBEAT, EVENT = "handshake", "heartbeat", "event-notification"
_NUMBER = "event"
"""Kind of archive key: how many events there were of a subscription when a notification was written."""

SUBSCRIPTIONS_MAX = 500
"""Of one name space, more are refused; each costs a look at every change of an order, and a task that sends."""
EVENTS_MAX = 200
"""Events that `$events` answers at once."""
LOOKED_AT_MAX = 2_000
"""Notifications that are looked at for them."""
SILENT_S = 86_400.0
"""So long an endpoint may be away before its subscription is in error: longer than a weekend's night, not for ever."""

_SENT_TO = frozenset({"requested", "active"})
_IS_SENT_TO = Criterion("status", tuple(Comparison(How.VALUE, each) for each in sorted(_SENT_TO)))
"""Those that have ended stay to be read, however many: they take no place of others."""


class Archive(ResourceReader, Protocol):
    """What holds Subscriptions and what was sent: a transaction, or a reader."""

    def find_messages(self, search: MessageSearch, limit: int, before: int = 0) -> Sequence[StoredMessage]: ...


@dataclass(frozen=True, slots=True)
class Standing:
    """What is known of a Subscription beside what it says: how many events it had, which client made it, the address of
    our base as that client knows it, and the headers of its notifications, whose values it does not show.

    `reads` are the types that might be read by the token with which it was made or last changed, none where that was
    not kept; `reason` says why it is in error.
    """

    events: int = 0
    client: str = ""
    base: str = ""
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    reads: tuple[str, ...] = ()
    reason: str = ""


def _standing(reader: ResourceReader, key: ResourceKey) -> Standing:
    said = reader.feed_mark(destination_of(key))
    if not said:
        return Standing()
    known = json.loads(said)
    known["headers"] = tuple((name, value) for name, value in known.get("headers", ()))
    return Standing(**{**known, "reads": tuple(known.get("reads", ()))})


def _save_standing(unit: Unit, key: ResourceKey, standing: Standing) -> None:
    unit.set_feed_mark(destination_of(key), json.dumps(asdict(standing)))


@dataclass(frozen=True, slots=True)
class Subscriber:
    """A Subscription that is sent to, with the outbox's name of it."""

    key: ResourceKey
    release: Release
    status: str
    asks: Wanted = field(repr=False)
    client: str = ""
    reads: tuple[str, ...] = ()
    """Types of resources that it may tell of, as far as the token goes by which it was made or last changed."""

    @property
    def destination(self) -> str:
        """What it is called in outbox and archive."""
        return destination_of(self.key)


def destination_of(key: ResourceKey) -> str:
    """The outbox's name of a Subscription."""
    return f"{SUBSCRIPTION}{key.source}/{key.id}"


def key_of(destination: str) -> ResourceKey | None:
    """The Subscription that the outbox calls so; None of other destinations."""
    if not destination.startswith(SUBSCRIPTION):
        return None
    source, _, resource_id = destination.removeprefix(SUBSCRIPTION).partition("/")
    return ResourceKey(source, "Subscription", resource_id)


def subscribers(reader: ResourceReader) -> Sequence[Subscriber]:
    """Every Subscription that is sent to, of all our name spaces, with whose it is and the headers it wants."""
    made = []
    for found in (each for release in Release for each in _of_base(reader, release)):
        standing = _standing(reader, found.key)
        asks = replace(found.asks, headers=standing.headers)
        made.append(replace(found, asks=asks, client=standing.client, reads=standing.reads))
    return made


def _of_base(reader: ResourceReader, release: Release) -> Iterable[Subscriber]:
    for held in reader.find_resources(release.base, "Subscription", (_IS_SENT_TO,), SUBSCRIPTIONS_MAX):
        found = _subscriber(held, release)
        if found is not None:
            yield found


def _subscriber(held: HeldResource, release: Release) -> Subscriber | None:
    status = str(held.content.get("status", ""))
    if held.deleted or status not in _SENT_TO:
        return None
    try:
        return Subscriber(held.key, release, status, wanted(held.content, release))
    except Refused:  # written by an earlier version of us, or before it was checked
        return None


def publish(unit: Unit, at: datetime) -> None:
    """Hold the SubscriptionTopics that others may read, in the releases that have such a resource."""
    for release in Release:
        for each in topics(release):
            keep(unit, ResourceKey(release.base, "SubscriptionTopic", str(each["id"])), each, release, at)


# ---- what clients do ----


_ENDED = frozenset({"off", "entered-in-error"})


def subscribed(
    unit: Unit, release: Release, changed: Iterable[ResourceKey], at: datetime, audience: Audience, client: str = "",
    base: str = "", may_read: Collection[str] | None = None,
) -> None:  # fmt: skip
    """A client wrote these resources: the Subscriptions among them are checked and get their handshake, or end.

    To be called in the transaction that stored them. `base` is our address as the client knows it, `may_read` the types
    that it may read by the token with which it came, None for all. Raises Refused for what is not offered, or not to
    this client.
    """
    told = FOCUS if may_read is None else may_read
    reads = tuple(kind for kind in sorted(told) if audience.may_read(client, kind))
    for key in changed:
        held = unit.resource(key) if key.type == "Subscription" and key.source == release.base else None
        if held is None:
            continue
        before = _standing(unit, key)
        if before.client and before.client != client:
            raise Refused(_ANOTHERS)
        if held.deleted or held.content.get("status") in _ENDED:
            unit.drop_deliveries(destination_of(key), "the subscription was ended")
            if held.deleted:
                unit.set_feed_mark(destination_of(key), "")
            else:  # whoever ends it by PUT sends its headers along
                keep(unit, key, masked(held.content, release), release, at)
            continue
        asks = wanted(held.content, release)
        if not any(kind in reads for kind in FOCUS):
            raise Refused(_NOT_READABLE)
        if audience.reach(client, asks.endpoint) is Reach.NOWHERE:
            element = "endpoint" if release is Release.R5 else "channel.endpoint"
            raise Refused(replace(_OUT_OF_REACH, where=f"Subscription.{element}"))
        others = (each.key for each in _of_base(unit, release))
        if sum(1 for other in others if other != key) >= SUBSCRIPTIONS_MAX:
            raise Refused(_TOO_MANY)
        keep(unit, key, _standing_at(masked(held.content, release), release, "requested"), release, at)
        unit.drop_deliveries(destination_of(key), "the subscription was changed")
        _save_standing(unit, key, replace(
            before, client=client, base=base or before.base, headers=_unmasked(asks.headers, before.headers),
            reads=reads, reason="",
        ))  # fmt: skip
        _send(unit, Subscriber(key, release, "requested", asks), HANDSHAKE, at)


def _unmasked(
    said: Iterable[tuple[str, str]], known: Iterable[tuple[str, str]]
) -> tuple[tuple[str, str], ...]:  # fmt: skip
    """Headers with their values: a client that sends back what it read means those that it sent before."""
    values = dict(known)
    return tuple((name, values.get(name, "") if value == MASK else value) for name, value in said)


_OUT_OF_REACH = Refusal(
    RefusalKind.NOT_AUTHORISED, "Subscription", "notifications of this client are not sent there",
    "name an https:// address of the Internet, or let the gateway's fhir.clients.notify name this one",
)  # fmt: skip
_ANOTHERS = Refusal(
    RefusalKind.NOT_AUTHORISED, "Subscription", "another client made this subscription",
    "make one of your own; it is ended or changed by its own client alone",
)  # fmt: skip
_NOT_READABLE = Refusal(
    RefusalKind.NOT_AUTHORISED, "Subscription", f"the client may read none of {', '.join(FOCUS)}, of which events tell",
    "ask for a token with such as system/ServiceRequest.r; the gateway's fhir.clients.scopes has to allow it",
)  # fmt: skip
_TOO_MANY = Refusal(
    RefusalKind.CONFLICT, "Subscription", f"there are {SUBSCRIPTIONS_MAX} subscriptions already",
    "delete those that nobody needs, or set their status to off",
)  # fmt: skip


# ---- what happens to orders ----


def notify(
    unit: Unit, source: str, release: Release, what: Progress | None, focuses: Iterable[Resource], at: datetime,
    audience: Audience,
) -> None:  # fmt: skip
    """Tell whoever subscribed what became of an order: of the resources that say so, each is an event of its own.

    What a client may not read it is not told of.
    """
    told = list(focuses)
    if not told or source != release.base:
        return
    for subscriber in _of_base(unit, release):
        if subscriber.status != "active" or (subscriber.asks.end and _is_past(subscriber.asks.end, at)):
            continue
        standing = _standing(unit, subscriber.key)
        for focus in told:
            kind = str(focus["resourceType"])
            may_tell = kind in standing.reads and audience.may_read(standing.client, kind)
            if may_tell and subscriber.asks.takes(what, focus):
                _send(unit, subscriber, EVENT, at, focus)


def _send(unit: Unit, subscriber: Subscriber, kind: str, at: datetime, focus: Resource | None = None) -> None:
    standing = _standing(unit, subscriber.key)
    count = standing.events + (focus is not None)
    _save_standing(unit, subscriber.key, replace(standing, events=count))
    events = () if focus is None else (Event(count, at, focus),)
    destination = subscriber.destination
    seed = f"{destination}\n{kind}\n{count}\n{at.isoformat()}\n{unit.changes}"
    control_id = str(uuid.UUID(bytes=hashlib.blake2b(seed.encode(), digest_size=16).digest()))
    bundle = notification(
        subscriber.release, kind, subscriber.key.id, subscriber.status, subscriber.asks, count, at, events,
        standing.base or base_of(subscriber.asks), control_id,
    )  # fmt: skip
    keys = [(_NUMBER, str(count))]
    if focus is not None:
        keys.append(("resource", f"{focus['resourceType']}/{focus['id']}"))
    enqueue_fhir(unit, destination, None, control_id, fhir_json.write(bundle), kind, at, keys)


def _number(stored: StoredMessage) -> int:
    return next((int(value) for kind, value in stored.record.keys if kind == _NUMBER and value.isdigit()), 0)


def _is_past(said: str, at: datetime) -> bool:
    try:
        end = datetime.fromisoformat(said)
    except ValueError:
        return False
    return end.tzinfo is not None and end <= at


# ---- what became of notifications ----


def arrived(unit: Unit, destination: str, at: datetime) -> None:
    """A notification was accepted: a subscription that waited for its handshake is active."""
    _become(unit, destination, "active", frozenset({"requested"}), at)


def failed(unit: Unit, destination: str, at: datetime, reason: str) -> bool:
    """Nothing is sent any more for this reason: the subscription is in error until its client sends it again.

    `reason` is for its client, and has nothing of a resource. False where it was not sent to.
    """
    return _become(unit, destination, "error", _SENT_TO, at, reason)


def forbid(unit: Unit, audience: Audience, at: datetime) -> int:
    """End what may not be told any more, as the settings are now; how many subscriptions."""
    forbidden = {each: reason for each in subscribers(unit) if (reason := why_not_told(audience, each))}
    return sum(failed(unit, each.destination, at, reason) for each, reason in forbidden.items())


def why_not_told(audience: Audience, subscriber: Subscriber) -> str:
    """Why this subscription may not be told anything as the settings are now; '' where it may."""
    if not audience.knows(subscriber.client):
        return "its client is none of the gateway's fhir.clients any more"
    if not subscriber.reads:
        return "what its client's token might read was not kept: send the Subscription again"
    lost = [
        kind for kind in FOCUS if kind in subscriber.reads and not audience.may_read(subscriber.client, kind)
    ]  # fmt: skip
    if lost:
        return f"its client may not read {', '.join(lost)} any more (the gateway's fhir.clients.scopes): send it again"
    if audience.reach(subscriber.client, subscriber.asks.endpoint) is Reach.NOWHERE:
        return "its notifications may not be sent to that address any more (the gateway's fhir.clients.notify)"
    return ""


def _standing_at(content: Resource, release: Release, status: str, reason: str = "") -> Resource:
    """A Subscription that stands so. R5 has no place in it for the reason: `$status` tells it."""
    said = {name: value for name, value in content.items() if release is Release.R5 or name not in ("error", "_error")}
    return {**said, "status": status, **({"error": reason} if reason and release is not Release.R5 else {})}


def _become(
    unit: Unit, destination: str, status: str, before: frozenset[str], at: datetime, reason: str = ""
) -> bool:  # fmt: skip
    key = key_of(destination)
    held = unit.resource(key) if key is not None else None
    release = next((each for each in Release if key is not None and each.base == key.source), None)
    if key is None or held is None or release is None or held.deleted or held.content.get("status") not in before:
        return False
    keep(unit, key, _standing_at(held.content, release, status, reason), release, at)
    _save_standing(unit, key, replace(_standing(unit, key), reason=reason))
    if status not in _SENT_TO:
        unit.drop_deliveries(destination, f"the subscription is {status}; $events has what it missed")
    return True


def beat(unit: Unit, at: datetime) -> int:
    """Send a heartbeat to those that want one and were told nothing for so long; end those whose end came. How many."""
    sent = 0
    for subscriber in subscribers(unit):
        if subscriber.asks.end and _is_past(subscriber.asks.end, at):
            _become(unit, subscriber.destination, "off", _SENT_TO, at)
            continue
        every_s = subscriber.asks.heartbeat_s
        if not every_s or subscriber.status != "active":
            continue
        found = unit.find_messages(MessageSearch(listener=subscriber.destination, direction="out"), 1)
        newest = found[0].record if found else None
        if newest is not None and newest.disposition == OutboxState.WAITING:
            continue  # its endpoint is away: what waits says that we live, as soon as it is taken
        if newest is None or newest.received_at + timedelta(seconds=every_s) <= at:
            _send(unit, subscriber, HEARTBEAT, at)
            sent += 1
    return sent


# ---- operations ----


def state_of(archive: Archive, key: ResourceKey, at: datetime) -> Resource | None:
    """The answer to `Subscription/[id]/$status`, a Bundle; None where there is no such Subscription."""
    held = archive.resource(key)
    release = next((each for each in Release if each.base == key.source), None)
    if held is None or held.deleted or release is None:
        return None
    asks = wanted(held.content, release)
    standing = _standing(archive, key)
    return notification(
        release, "query-status", key.id, str(held.content.get("status", "")), asks, standing.events, at,
        base=standing.base or base_of(asks), error=standing.reason,
    )  # fmt: skip


def events_of(
    archive: Archive, key: ResourceKey, at: datetime, since: int = 1, until: int | None = None, content: str = "",
    may_read: Callable[[str], bool] = lambda _: True,
) -> Resource | None:  # fmt: skip
    """The answer to `Subscription/[id]/$events`: its events from number `since` to `until`, as resources are now.

    The newest `EVENTS_MAX` of them; `content` is the payload content asked for, '' as the Subscription has it. Those
    of types that may not be read are left out. None where there is no such Subscription.
    """
    held = archive.resource(key)
    release = next((each for each in Release if each.base == key.source), None)
    if held is None or held.deleted or release is None:
        return None
    asks = wanted(held.content, release)
    shown = replace(asks, content=content or asks.content)
    search = MessageSearch(listener=destination_of(key), direction="out", message_type=EVENT)
    told = archive.find_messages(search, LOOKED_AT_MAX)
    standing = _standing(archive, key)  # behind them, so that it counts each of them
    found: list[Event] = []
    highest = standing.events
    for stored in told:
        number = _number(stored)
        if number > highest:  # of another one, which was deleted and had the same id
            break
        highest = number - 1
        if number < since or len(found) == EVENTS_MAX:
            break
        focus = _focus(archive, key, stored)
        if (until is None or number <= until) and may_read(str(focus["resourceType"])):
            found.append(Event(number, stored.record.received_at, focus))
    found.reverse()
    return notification(
        release, "query-event", key.id, str(held.content.get("status", "")), shown, standing.events, at, found,
        standing.base or base_of(asks),
    )  # fmt: skip


def _focus(archive: Archive, key: ResourceKey, stored: StoredMessage) -> Mapping[str, object]:
    """What an event was about, as it is now; what was deleted since is named all the same."""
    said = next((value for kind, value in stored.record.keys if kind == "resource"), "/")
    kind, _, resource_id = said.partition("/")
    held = archive.resource(ResourceKey(key.source, kind, resource_id))
    if held is not None and not held.deleted:
        return held.content
    return {"resourceType": kind, "id": resource_id}
