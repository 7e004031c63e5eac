"""Notifications of other FHIR servers, read: R4 rest-hooks, topics of R5, and their backport to R4B and R4.

A notification says that something happened, and perhaps what: it may be lost or come twice, and what it holds is
fetched again: it may be older than what is there by now. Writing notifications is `fhir_topics`; what follows from one
is `fhir_following`'s matter.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import Any

from gateway.domain.refusal import Refusal, RefusalKind, Refused
from gateway.domain.resources import Resource
from gateway.wire.fhir_release import Release


class Occasion(StrEnum):
    """Why a notification is sent (SubscriptionStatus.type)."""

    HANDSHAKE = "handshake"
    HEARTBEAT = "heartbeat"
    EVENT = "event-notification"
    STATUS = "query-status"
    """An answer to $status."""
    EVENTS = "query-event"
    """An answer to $events."""


@dataclass(frozen=True, slots=True)
class Notification:
    """What a notification says.

    `focuses` are references to what changed, with what is named as context, the oldest first. `deleted` are references
    to what is there no more. `events` counts those since the subscription began, None where the server does not count;
    `first` is the lowest of `numbers`. What it holds whole is not here: that is fetched from where it is.
    """

    occasion: Occasion
    status: str = ""
    subscription: str = ""
    events: int | None = None
    first: int | None = None
    focuses: tuple[str, ...] = ()
    deleted: tuple[str, ...] = ()
    numbers: tuple[int, ...] = ()
    """Of the events that are told."""

    @property
    def last(self) -> int | None:
        """The number of the last event that had happened when it was written."""
        return self.events if self.events is not None else self.first

    @property
    def reaches(self) -> int | None:
        """The number of the last event that need not be told any more: those after it are still on their way."""
        return max(self.numbers) if self.occasion is Occasion.EVENT and self.numbers else self.last

    @property
    def gap(self) -> tuple[int, int] | None:
        """The first and last number between those that it tells which it does not tell."""
        numbers = sorted(set(self.numbers))
        holes = [(one + 1, other - 1) for one, other in pairwise(numbers) if other > one + 1]
        return (holes[0][0], holes[-1][1]) if holes else None

    @property
    def begins(self) -> int | None:
        """The number of the first event that it tells; of one that tells none, the number of the next event."""
        if self.occasion is Occasion.EVENT:
            return self.first if self.first is not None else self.events
        return self.events + 1 if self.events is not None else None


_BUNDLES: Mapping[Release, str] = {
    Release.R4: "history", Release.R4B: "history", Release.R5: "subscription-notification",
}  # fmt: skip
_LOCAL = re.compile(r"(?:.*/)?([A-Z][A-Za-z]{1,63}/[A-Za-z0-9\-.]{1,64})(?:/_history/.*)?", re.DOTALL)
FOCUSES_MAX = 1000
"""Resources that one notification may name; a server that has more to say is asked by a search."""


def is_notification(resource: Resource, release: Release) -> bool:
    """Whether this is a Bundle that begins with the status of a subscription."""
    entries = resource.get("entry")
    if resource.get("resourceType") != "Bundle" or not isinstance(entries, list) or not entries:
        return False
    return resource.get("type") == _BUNDLES[release] and _status_of(_resource(entries[0])) is not None


def read(bundle: Resource, release: Release) -> Notification:
    """The notification in a Bundle. Raises Refused where it is none, with the place and what belongs there."""
    if not is_notification(bundle, release):
        raise Refused(Refusal(
            RefusalKind.UNSUPPORTED_TYPE, "Bundle", f"is no notification of {release}",
            f"send a Bundle of type {_BUNDLES[release]} whose first entry is the status of the subscription",
        ))  # fmt: skip
    entries = [each for each in bundle["entry"] if isinstance(each, dict)]
    status = _status_of(_resource(entries[0])) or {}
    occasion = str(status.get("type", ""))
    if occasion not in set(Occasion):
        raise Refused(Refusal(
            RefusalKind.UNKNOWN_CODE, "Bundle.entry[0].resource.type", "is no type of notification",
            f"one of {', '.join(Occasion)}",
        ))  # fmt: skip
    events = status.get("notificationEvent")
    told = [each for each in events if isinstance(each, dict)] if isinstance(events, list) else []
    deleted = tuple(_deleted(entries[1:]))
    named = [*_named(told), *(_entry_of(each) for each in entries[1:])]
    focuses = tuple(dict.fromkeys(each for each in named if each and each not in deleted))
    if len(focuses) > FOCUSES_MAX:
        raise Refused(Refusal(
            RefusalKind.TOO_LONG, "Bundle.entry", f"names more than {FOCUSES_MAX} resources", "tell it in several"
        ))  # fmt: skip
    numbers = [number for each in told if (number := _number(each.get("eventNumber"))) is not None]
    return Notification(
        Occasion(occasion),
        str(status.get("status", "")),
        _reference(status.get("subscription")),
        _number(status.get("eventsSinceSubscriptionStart")),
        min(numbers, default=None),
        focuses,
        deleted,
        tuple(numbers),
    )


def _resource(entry: Any) -> Resource:
    found = entry.get("resource") if isinstance(entry, dict) else None
    return found if isinstance(found, dict) else {}


def _status_of(resource: Resource) -> Mapping[str, Any] | None:
    """The status as R5 and R4B have it; that of the R4 backport is made alike."""
    if resource.get("resourceType") == "SubscriptionStatus":
        return resource
    if resource.get("resourceType") != "Parameters":
        return None
    said = _parameters(resource.get("parameter"))
    if "subscription" not in said or "type" not in said:
        return None
    return {
        "status": _first(said, "status"),
        "type": _first(said, "type"),
        "subscription": _first(said, "subscription"),
        "eventsSinceSubscriptionStart": _first(said, "events-since-subscription-start"),
        "notificationEvent": [
            {
                "eventNumber": _first(event, "event-number"),
                "focus": _first(event, "focus"),
                "additionalContext": event.get("additional-context", []),
            }
            for part in said.get("notification-event", ())
            if (event := _parameters(part))
        ],
    }


def _parameters(said: Any) -> dict[str, list[Any]]:
    """Parameters, or the parts of one, by name: their values, or their own parts."""
    found: dict[str, list[Any]] = {}
    for each in said if isinstance(said, list) else ():
        if isinstance(each, dict) and isinstance(each.get("name"), str):
            value = next((value for key, value in each.items() if key.startswith("value")), each.get("part"))
            found.setdefault(each["name"], []).append(value)
    return found


def _first(said: Mapping[str, Sequence[Any]], name: str) -> Any:
    return next(iter(said.get(name, ())), None)


def _named(events: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for event in events:
        context = event.get("additionalContext")
        for each in [event.get("focus"), *(context if isinstance(context, list) else ())]:
            yield _local(_reference(each))


def _entry_of(entry: Mapping[str, Any]) -> str:
    """The reference of an entry: its address, or what the resource in it is called."""
    resource = _resource(entry)
    return _local(str(entry.get("fullUrl", ""))) or _local(f"{resource.get('resourceType')}/{resource.get('id')}")


def _deleted(entries: Sequence[Any]) -> Iterator[str]:
    for entry in entries:
        request = entry.get("request") if isinstance(entry, dict) else None
        if isinstance(request, dict) and request.get("method") == "DELETE":
            found = _local(str(request.get("url", ""))) or _local(str(entry.get("fullUrl", "")))
            if found:
                yield found


def _reference(said: Any) -> str:
    found = said.get("reference") if isinstance(said, dict) else None
    return found if isinstance(found, str) else ""


def _local(url: str) -> str:
    """Type and id of a resource's address; '' for anything else."""
    found = _LOCAL.fullmatch(url)
    return found[1] if found else ""


def _number(said: Any) -> int | None:
    text = str(said) if said is not None else ""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else None
