"""Subscriptions as FHIR writes them: topics, what a Subscription asks for, and the notifications about it.

R5 has them natively; R4 and R4B as the Subscriptions R5 Backport guide (1.1) has them in R4's Subscription. The topics
are those of `TOPICS`, one for each thing that becomes of an order; nothing else can be subscribed to.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from ipaddress import ip_address
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from gateway.domain.problem import one_of
from gateway.domain.progress import Progress
from gateway.domain.refusal import Refusal, RefusalKind, Refused
from gateway.domain.resources import Resource
from gateway.wire.fhir_elements import instant, said_only
from gateway.wire.fhir_release import Release

ANY_STATUS = "order-status"

TOPICS: Mapping[str, tuple[str, Progress | None]] = {
    ANY_STATUS: ("Anything becomes of an order, or of one of its steps", None),
    **{f"order-{each.value.replace(' ', '-')}": (f"What became of an order: {each.value}", each) for each in Progress},
}
"""Id of the topic -> its title, and what became of an order; None is any of it."""

FILTERS = ("patient", "identifier", "status")
"""What events can be filtered by: what the resource that they are about is about, has as number, and says of itself."""

CONTENTS = ("empty", "id-only", "full-resource")
HEADERS_MAX = 20
HEARTBEAT_LEAST_S = 10

_BACKPORT = "http://hl7.org/fhir/uv/subscriptions-backport/StructureDefinition/"
FOCUS = ("ServiceRequest", "Task", "Procedure")
"""Types of resources that events are about."""


NAMES = "http://modality-gateway.invalid/fhir"
"""What the canonical URLs of our topics begin with: names that are the same wherever a gateway is served, so that what
a client wrote down stays right when the gateway gets another address. RFC 2606 sees to it that nobody serves something
else there."""


def canonical(base: str, topic: str) -> str:
    """The URL of a topic below a base: its canonical one below `NAMES`. By that of any other base it is known, too."""
    return f"{base.rstrip('/')}/SubscriptionTopic/{topic}"


def base_of(asks: "Wanted") -> str:
    """Our base as the Subscription's topic has it; '' where that is a name alone, or no address."""
    base = asks.canonical.rpartition("/SubscriptionTopic/")[0]
    return base if base.startswith(("https://", "http://")) and base != NAMES else ""


def topics(release: Release) -> Sequence[Resource]:
    """Every topic as a SubscriptionTopic; none in R4, which has no such resource (`capability`)."""
    if release is Release.R4:
        return ()
    return tuple(_topic(name, title, release) for name, (title, _) in TOPICS.items())


def _topic(name: str, title: str, release: Release) -> Resource:
    url = "http://hl7.org/fhir/StructureDefinition/"
    r5 = release is Release.R5
    return {
        "resourceType": "SubscriptionTopic",
        "id": name,
        "url": canonical(NAMES, name),
        "status": "active",
        "title": title,
        "resourceTrigger": [
            {"description": title, "resource": kind if r5 else f"{url}{kind}", "supportedInteraction": ["update"]}
            for kind in FOCUS
        ],
        "canFilterBy": [
            {"description": f"by {each}", "resource": kind if r5 else f"{url}{kind}", "filterParameter": each}
            for kind in FOCUS
            for each in FILTERS
        ],
        "notificationShape": [{"resource": kind if r5 else f"{url}{kind}"} for kind in FOCUS],
    }


def capability() -> list[dict[str, Any]]:
    """Extensions of `CapabilityStatement.rest.resource` of Subscription by which R4 says which topics there are."""
    url = f"{_BACKPORT}capabilitystatement-subscriptiontopic-canonical"
    return [{"url": url, "valueCanonical": canonical(NAMES, name)} for name in TOPICS]


# ---- what a Subscription asks for ----


@dataclass(frozen=True, slots=True)
class Wanted:
    """A Subscription, read. `topic` is an id of `TOPICS`, `filters` are (parameter, value); any value of a parameter
    is enough, and all parameters have to fit. `heartbeat_s` is 0 where none is wanted."""

    topic: str
    canonical: str
    endpoint: str = field(repr=False)
    content: str = "empty"
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    filters: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    heartbeat_s: int = 0
    end: str = ""

    def takes(self, what: Progress | None, focus: Resource) -> bool:
        """Whether this is to be told of a resource that an order's status was written to."""
        of = TOPICS[self.topic][1]
        if of is not None and of is not what:
            return False
        wanted: dict[str, list[str]] = {}
        for name, value in self.filters:
            wanted.setdefault(name, []).extend(value.split(","))
        return all(any(_fits(name, value, focus) for value in values) for name, values in wanted.items())


def _fits(name: str, value: str, focus: Resource) -> bool:
    if name == "status":
        return bool(focus.get("status") == value)
    if name == "patient":
        person = focus.get("subject") or focus.get("for") or {}
        reference = str(person.get("reference", ""))
        return reference in (value, f"Patient/{value}") or _is_number(value, [person.get("identifier")])
    return _is_number(value, focus.get("identifier") or ())


def _is_number(value: str, identifiers: Sequence[Any]) -> bool:
    system, bar, number = value.rpartition("|")
    return any(
        each.get("value") == number and (not bar or each.get("system", "") == system)
        for each in identifiers
        if isinstance(each, Mapping)
    )


def wanted(subscription: Resource, release: Release) -> Wanted:
    """What a Subscription asks for. Raises Refused with everything that is not offered."""
    read = _r5(subscription) if release is Release.R5 else _backport(subscription)
    faults = list(_faults(read, release))
    if faults:
        raise Refused(*faults)
    name = read["topic"].rpartition("/SubscriptionTopic/")[2].partition("|")[0]
    return Wanted(
        name, read["topic"], read["endpoint"], read["content"] or "empty", tuple(read["headers"]),
        tuple((_plain(parameter), value) for parameter, value in read["filters"]), read["heartbeat"], read["end"],
    )  # fmt: skip


def _plain(parameter: str) -> str:
    return parameter.rpartition(".")[2].partition(":")[0]


def _r5(said: Resource) -> dict[str, Any]:
    parameters = [each for each in said.get("parameter") or () if isinstance(each, Mapping)]
    return {
        "topic": str(said.get("topic", "")),
        "type": str((said.get("channelType") or {}).get("code", "")),
        "endpoint": str(said.get("endpoint", "")),
        "payload": str(said.get("contentType", "")),
        "content": str(said.get("content", "")),
        "headers": [(str(each.get("name", "")), str(each.get("value", ""))) for each in parameters],
        "filters": [
            (str(each.get("filterParameter", "")), str(each.get("value", ""))) for each in said.get("filterBy") or ()
        ],
        "modifiers": [str(each.get(key)) for each in said.get("filterBy") or () for key in ("modifier", "comparator")
                      if each.get(key)],
        "heartbeat": int(said.get("heartbeatPeriod") or 0),
        "end": str(said.get("end", "")),
    }  # fmt: skip


def _backport(said: Resource) -> dict[str, Any]:
    channel = said.get("channel") or {}
    filters = [
        pair
        for each in _extensions(said.get("_criteria"), "backport-filter-criteria")
        for pair in parse_qsl(str(each.get("valueString", "")).rpartition("?")[2], keep_blank_values=True)
    ]
    contents = _extensions(channel.get("_payload"), "backport-payload-content")
    beats = _extensions(channel, "backport-heartbeat-period")
    headers = [str(each).partition(":") for each in channel.get("header") or ()]
    return {
        "topic": str(said.get("criteria", "")),
        "type": str(channel.get("type", "")),
        "endpoint": str(channel.get("endpoint", "")),
        "payload": str(channel.get("payload", "")),
        "content": str(contents[0].get("valueCode", "")) if contents else "",
        "headers": [(name.strip(), value.strip()) for name, _, value in headers],
        "filters": filters,
        "modifiers": [parameter for parameter, _ in filters if ":" in parameter],
        "heartbeat": int(beats[0].get("valueUnsignedInt") or 0) if beats else 0,
        "end": str(said.get("end", "")),
    }


def _extensions(element: Any, name: str) -> list[Mapping[str, Any]]:
    found = element.get("extension") or () if isinstance(element, Mapping) else ()
    return [each for each in found if isinstance(each, Mapping) and each.get("url") == f"{_BACKPORT}{name}"]


MASK = "***"
"""What is shown in place of the value of a header: it may be a password of the receiver."""


def masked(subscription: Resource, release: Release) -> Resource:
    """A Subscription as others may see it: the names of its headers, and no values."""
    if release is Release.R5:
        said = subscription.get("parameter") or ()
        return {**subscription, "parameter": [{**each, "value": MASK} for each in said]} if said else subscription
    channel = subscription.get("channel") or {}
    if not channel.get("header"):
        return subscription
    names = [str(each).partition(":")[0].strip() for each in channel["header"]]
    return {**subscription, "channel": {**channel, "header": [f"{name}: {MASK}" for name in names]}}


_HEADER_SIGNS = frozenset("!#$%&'*+-.^_`|~")
_NOT_THEIRS = frozenset({"host", "content-length", "content-type", "transfer-encoding", "connection", "expect"})


def _faults(read: Mapping[str, Any], release: Release) -> Sequence[Refusal]:
    r5 = release is Release.R5
    found: list[Refusal] = []

    def refuse(kind: RefusalKind, r5_element: str, element: str, text: str, hint: str) -> None:
        found.append(Refusal(kind, f"Subscription.{r5_element if r5 else element}", text, hint))

    name = read["topic"].rpartition("/SubscriptionTopic/")[2].partition("|")[0]
    if not read["topic"]:
        refuse(RefusalKind.MISSING_VALUE, "topic", "criteria", "no topic is named", "name the canonical URL of one")
    elif name not in TOPICS:
        refuse(
            RefusalKind.UNKNOWN_CODE, "topic", "criteria", "there is no such topic; searches are none here",
            f"{one_of(name, TOPICS)} Write it as {canonical(NAMES, ANY_STATUS)}",
        )  # fmt: skip
    if read["type"] != "rest-hook":
        refuse(
            RefusalKind.BAD_VALUE, "channelType", "channel.type", "notifications go by rest-hook and nothing else",
            "say rest-hook, with an https:// address as endpoint",
        )  # fmt: skip
    if not is_safe_endpoint(read["endpoint"]):
        refuse(
            RefusalKind.BAD_VALUE, "endpoint", "channel.endpoint", "notifications would travel in clear, or nowhere",
            "name an https:// address without user and fragment (http:// on this machine only)",
        )  # fmt: skip
    if read["payload"] and read["payload"].partition(";")[0].strip() not in (
        "application/fhir+json",
        "application/json",
    ):
        refuse(
            RefusalKind.BAD_VALUE, "contentType", "channel.payload", "notifications are written in JSON",
            "say application/fhir+json",
        )  # fmt: skip
    if read["content"] and read["content"] not in CONTENTS:
        refuse(
            RefusalKind.UNKNOWN_CODE, "content", "channel.payload", f"{read['content']!r} is no payload content",
            one_of(read["content"], CONTENTS),
        )  # fmt: skip
    for parameter, _ in read["filters"]:
        if _plain(parameter) not in FILTERS:
            refuse(
                RefusalKind.BAD_VALUE, "filterBy", "criteria", f"events are not filtered by {_plain(parameter)!r}",
                one_of(_plain(parameter), FILTERS),
            )  # fmt: skip
    if read["modifiers"]:
        refuse(
            RefusalKind.BAD_VALUE, "filterBy", "criteria", "filters take no modifier and no comparator",
            "say the values themselves, with commas between",
        )  # fmt: skip
    if 0 < read["heartbeat"] < HEARTBEAT_LEAST_S or read["heartbeat"] < 0:
        refuse(
            RefusalKind.BAD_VALUE, "heartbeatPeriod", "channel", "a heartbeat so often is not sent",
            f"say {HEARTBEAT_LEAST_S} seconds or more, or none",
        )  # fmt: skip
    if len(read["headers"]) > HEADERS_MAX or not all(_is_header(*each) for each in read["headers"]):
        refuse(
            RefusalKind.BAD_VALUE, "parameter", "channel.header", "a header cannot be sent so",
            f"at most {HEADERS_MAX}, each `Name: value` in ASCII, and none that HTTP itself needs",
        )  # fmt: skip
    return found


def _is_header(name: str, value: str) -> bool:
    is_name = bool(name) and all((sign.isascii() and sign.isalnum()) or sign in _HEADER_SIGNS for sign in name)
    return is_name and name.lower() not in _NOT_THEIRS and value.isascii() and value.isprintable()


def is_safe_endpoint(url: str) -> bool:
    """Whether what is sent there stays between us and that receiver: by TLS, or on this machine."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        is_address = host.replace(".", "").isdigit() or ":" in host
        here = ip_address(host).is_loopback if is_address else host == "localhost"
        port = parts.port
    except ValueError:
        return False
    if not host or port == 0 or "@" in parts.netloc or parts.fragment or not url.isascii() or not url.isprintable():
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and here)


# ---- notifications ----


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a subscription: its number, when it was, and what it is about, as it was then."""

    number: int
    at: datetime
    focus: Resource = field(repr=False)

    @property
    def reference(self) -> str:
        """How the focus is referred to."""
        return f"{self.focus['resourceType']}/{self.focus['id']}"


def notification(
    release: Release, kind: str, subscription_id: str, status: str, asks: Wanted, count: int, at: datetime,
    events: Sequence[Event] = (), base: str = "", identifier: str = "", error: str = "",
) -> Resource:  # fmt: skip
    """A notification Bundle, or the answer to `$status` and `$events`.

    `kind` is handshake, heartbeat, event-notification, query-status or query-event; `count` is how many events there
    were since the subscription began. Of an `empty` one not even the ids are told. `error` says why it is in error.
    """
    told = events if asks.content != "empty" else ()
    state = _state(release, kind, subscription_id, status, asks, count, told, events, error)
    entries: list[dict[str, Any]] = [_entry(f"Subscription/{subscription_id}/$status", "GET", state, base)]
    entries[0]["fullUrl"] = f"urn:uuid:{identifier}" if identifier else ""
    for each in {one.reference: one for one in told}.values():
        shown = each.focus if asks.content == "full-resource" else None
        entries.append(_entry(each.reference, "PUT", shown, base))
    made: Resource = said_only(
        {
            "resourceType": "Bundle", "id": identifier,
            "type": "subscription-notification" if release is Release.R5 else "history",
            "timestamp": instant(at), "entry": entries,
        }
    )  # fmt: skip
    return made


def _entry(url: str, method: str, resource: Resource | None, base: str) -> dict[str, Any]:
    address = f"{base.rstrip('/')}/{url}" if base else ""
    return {
        "fullUrl": address, "resource": resource, "request": {"method": method, "url": url},
        "response": {"status": "200"},
    }  # fmt: skip


def _state(
    release: Release, kind: str, subscription_id: str, status: str, asks: Wanted, count: int,
    told: Sequence[Event], events: Sequence[Event], error: str,
) -> Resource:  # fmt: skip
    subscription = {"reference": f"Subscription/{subscription_id}"}
    if release is not Release.R4:
        numbered = [
            {"eventNumber": str(each.number), "timestamp": instant(each.at),
             "focus": {"reference": each.reference} if told else None}
            for each in events
        ]  # fmt: skip
        return {
            "resourceType": "SubscriptionStatus", "status": status, "type": kind,
            "eventsSinceSubscriptionStart": str(count), "notificationEvent": numbered, "subscription": subscription,
            "topic": asks.canonical, **({"error": [{"text": error}]} if error else {}),
        }  # fmt: skip
    parameters: list[dict[str, Any]] = [
        {"name": "subscription", "valueReference": subscription},
        {"name": "topic", "valueCanonical": asks.canonical},
        {"name": "status", "valueCode": status},
        {"name": "type", "valueCode": kind},
        {"name": "events-since-subscription-start", "valueString": str(count)},
    ]
    if error:
        parameters.append({"name": "error", "valueCodeableConcept": {"text": error}})
    for each in events:
        parts: list[dict[str, Any]] = [
            {"name": "event-number", "valueString": str(each.number)},
            {"name": "timestamp", "valueInstant": instant(each.at)},
        ]
        if told:
            parts.append({"name": "focus", "valueReference": {"reference": each.reference}})
        parameters.append({"name": "notification-event", "part": parts})
    return {
        "resourceType": "Parameters", "meta": {"profile": [f"{_BACKPORT}backport-subscription-status-r4"]},
        "parameter": parameters,
    }  # fmt: skip
