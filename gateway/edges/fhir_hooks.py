"""Where other FHIR servers notify us of what changed there: below /fhir/notifications, a place for each feed.

What may live here: who may notify, and from a request to what is told to whoever follows that server. These places are
no part of the server that clients use: they are in no CapabilityStatement and no description, and no client's token
opens them. What a notification says is never believed: what it names is fetched from where it is.
"""

from collections.abc import Mapping

from starlette.requests import Request

from gateway.domain.refusal import RefusalKind
from gateway.edges.fhir_calls import Call, FHIRServer, Hook, faulty, understood
from gateway.edges.fhir_door import Authorised, Knock, TurnedAway
from gateway.wire.fhir_bundle import Answer
from gateway.wire.fhir_outcome import outcome

PLACE = "/notifications/{feed}"
ROUTES: Mapping[str, tuple[str, ...]] = {PLACE: ("POST",), f"{PLACE}/{{type}}/{{id}}": ("PUT", "POST", "DELETE")}
"""The second are the hooks of R4 that carry the resource."""


def admit(server: FHIRServer, request: Request, knock: Knock) -> Authorised | TurnedAway:
    """Whether it is the server that we follow. A feed that does not exist is told from no other one."""
    hook = _hook(server, request)
    turned = server.door.notifier(knock, hook.knows if hook else None, hook.client if hook else "")
    if turned is not None:
        return turned
    if hook is not None:
        request.state.release = hook.release
    return Authorised(str(request.path_params["feed"]), ())


async def notified(call: Call) -> Answer:
    """Take what the body says. Raises Faulty."""
    hook = _hook(call.server, call.request)
    if hook is None:  # it ended while its notification was on the way
        raise faulty(404, RefusalKind.UNSUPPORTED_TYPE, "", "this feed is not followed", "end the subscription")
    named = f"{call.type}/{call.id}" if call.type else ""
    body = None
    if call.body.strip():
        said = await understood(call, check=False)
        if said.resource is None:
            return Answer(400, {}, outcome(said.refusals))
        body = said.resource
    heard = await hook.notified(body, named)
    return Answer(heard.status, {}, outcome(heard.refusals) if heard.refusals else None)


def _hook(server: FHIRServer, request: Request) -> Hook | None:
    return server.hook(str(request.path_params["feed"]))
