"""The operations on Subscriptions: how one stands (`$status`), and what happened since (`$events`).

They read; what is told is `workflow.fhir_topics`'. Of resources that the caller may not read nothing is told.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from gateway.domain.problem import one_of
from gateway.domain.refusal import RefusalKind
from gateway.domain.resources import Resource, ResourceKey
from gateway.edges.fhir_calls import Call, faulty, resource_of
from gateway.wire.fhir_bundle import Answer
from gateway.wire.fhir_topics import CONTENTS
from gateway.workflow.fhir_topics import events_of, state_of

_DIGITS_MAX = 18


async def status(call: Call) -> Answer:
    """`Subscription/[id]/$status`."""
    key = _subscription(call)
    now = datetime.now(UTC)
    return _answer(await call.server.read(lambda reader: state_of(reader, key, now)))


async def events(call: Call) -> Answer:
    """`Subscription/[id]/$events`, of the newest events those that are asked for."""
    key = _subscription(call)
    said = await _parameters(call)
    since, until = _number(said, "eventsSinceNumber"), _number(said, "eventsUntilNumber")
    content = said.get("content", "")
    if content and content not in CONTENTS:
        raise faulty(422, RefusalKind.UNKNOWN_CODE, "content", "is no payload content", one_of(content, CONTENTS))
    now = datetime.now(UTC)
    return _answer(
        await call.server.read(
            lambda reader: events_of(
                reader, key, now, since or 1, until, content, may_read=lambda kind: call.who.may(kind, "r")
            )
        )
    )


def _subscription(call: Call) -> ResourceKey:
    if call.type != "Subscription":
        raise faulty(404, RefusalKind.UNSUPPORTED_EVENT, "", "the operation is one of Subscriptions",
                      "call it at Subscription/ID")  # fmt: skip
    call.permit("Subscription", "r")
    return ResourceKey(call.release.base, "Subscription", call.id)


def _answer(found: Resource | None) -> Answer:
    if found is None:
        raise faulty(404, RefusalKind.NO_SUCH_INSTANCE, "", "there is no such subscription",
                      "create it anew; one that was deleted has ended")  # fmt: skip
    return Answer(200, {}, found)


async def _parameters(call: Call) -> Mapping[str, str]:
    """The parameters of the address, and of Parameters in the body."""
    said = {name: call.request.query_params[name] for name in call.request.query_params}
    if call.body:
        resource, _ = await resource_of(call)
        for each in resource.get("parameter") or ():
            value: Any = next((value for key, value in each.items() if key.startswith("value")), None)
            if value is not None:
                said[str(each.get("name", ""))] = str(value)
    return said


def _number(said: Mapping[str, str], name: str) -> int | None:
    text = said.get(name, "")
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= _DIGITS_MAX):
        raise faulty(422, RefusalKind.BAD_VALUE, name, "is no number of an event", "say 1 or more")
    return int(text)
