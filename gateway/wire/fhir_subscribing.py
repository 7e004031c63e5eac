"""The Subscription that we ask another FHIR server for: by a search (R4), by a topic (R5, and its backport).

What may live here: building it, and telling whether the same was asked for before. What its notifications say is
`fhir_notifications`.
"""

import hashlib
import json
from typing import Any, Literal, NamedTuple
from urllib.parse import parse_qsl

from gateway.domain.resources import Resource
from gateway.wire.fhir_release import Release

Content = Literal["empty", "id-only", "full-resource"]

_BACKPORT = "http://hl7.org/fhir/uv/subscriptions-backport/StructureDefinition"
_PROFILE = f"{_BACKPORT}/backport-subscription"
_CHANNEL_TYPES = "http://terminology.hl7.org/CodeSystem/subscription-channel-type"
_REASON = "Imaging orders for the modality worklist"
_JSON = "application/fhir+json"

NEEDS_ASKING_AGAIN = frozenset({"error", "off", "entered-in-error"})
"""States from which a subscription does not come back by itself."""


class Wanted(NamedTuple):
    """What we want to be told. `criteria` is a search, with a `topic` its filters."""

    criteria: str
    endpoint: str
    secret: str
    topic: str = ""
    content: Content = "id-only"
    heartbeat_s: int = 0


def subscription(wanted: Wanted, release: Release) -> Resource:
    """The resource to be created, in the form of this release. Its status asks for activation."""
    if not wanted.topic:
        return _by_search(wanted)
    return _by_topic(wanted) if release is Release.R5 else _backported(wanted)


def digest(asked: Resource) -> str:
    """By which it is known later whether the same would be asked for. What is there is not compared: servers leave
    secrets out, and write what they were given in their own way."""
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def _bearer(wanted: Wanted) -> str:
    return f"Bearer {wanted.secret}"


def _by_search(wanted: Wanted) -> Resource:
    channel: dict[str, Any] = {
        "type": "rest-hook",
        "endpoint": wanted.endpoint,
        "header": [f"Authorization: {_bearer(wanted)}"],
    }
    if wanted.content != "empty":
        channel["payload"] = _JSON
    return {
        "resourceType": "Subscription", "status": "requested", "reason": _REASON, "criteria": wanted.criteria,
        "channel": channel,
    }  # fmt: skip


def _backported(wanted: Wanted) -> Resource:
    """R4 and R4B with the topic as criteria, and what R5 has as elements in extensions (Subscriptions R5 Backport)."""
    channel = dict(_by_search(wanted._replace(content="id-only"))["channel"])
    channel["_payload"] = {"extension": [{"url": f"{_BACKPORT}/backport-payload-content", "valueCode": wanted.content}]}
    if wanted.heartbeat_s:
        channel["extension"] = [
            {"url": f"{_BACKPORT}/backport-heartbeat-period", "valueUnsignedInt": wanted.heartbeat_s}
        ]
    made: dict[str, Any] = {
        "resourceType": "Subscription", "meta": {"profile": [_PROFILE]}, "status": "requested", "reason": _REASON,
        "criteria": wanted.topic, "channel": channel,
    }  # fmt: skip
    if "?" in wanted.criteria:
        made["_criteria"] = {
            "extension": [{"url": f"{_BACKPORT}/backport-filter-criteria", "valueString": wanted.criteria}]
        }
    return made


def _by_topic(wanted: Wanted) -> Resource:
    resource_type, _, query = wanted.criteria.partition("?")
    made: dict[str, Any] = {
        "resourceType": "Subscription",
        "status": "requested",
        "reason": _REASON,
        "topic": wanted.topic,
        "channelType": {"system": _CHANNEL_TYPES, "code": "rest-hook"},
        "endpoint": wanted.endpoint,
        "parameter": [{"name": "Authorization", "value": _bearer(wanted)}],
        "contentType": _JSON,
        "content": wanted.content,
    }
    if wanted.heartbeat_s:
        made["heartbeatPeriod"] = wanted.heartbeat_s
    filters = [
        {"resourceType": resource_type, "filterParameter": name, "value": value} for name, value in parse_qsl(query)
    ]
    if filters:
        made["filterBy"] = filters
    return made
