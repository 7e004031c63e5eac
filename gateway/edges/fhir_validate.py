"""`$validate`: what would come of a resource, or of a whole Bundle, if it were sent now.

What may live here: from the operation's parameters to the request that is rehearsed, and its words as an
OperationOutcome. What is done and undone is `workflow.fhir_rehearsal`'s. What a caller may not do it may not rehearse;
nothing is archived, and what is refused is answered with 200, as the operation has it.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple
from urllib.parse import parse_qs

from gateway.domain.problem import one_of
from gateway.domain.refusal import Refusal, RefusalKind, Refused
from gateway.domain.resources import Resource
from gateway.edges.fhir_calls import Call, Faulty, understood
from gateway.edges.fhir_handlers import LETTERS, parameter, parameters_of, permitted, request_of
from gateway.wire import fhir_bundle, fhir_capability, fhir_models
from gateway.wire.fhir_bundle import Answer
from gateway.wire.fhir_interactions import FHIRRequest, Interaction, Kind, Verb
from gateway.wire.fhir_negotiation import absent_only, version_of
from gateway.wire.fhir_outcome import http_status, outcome

_MODES: Mapping[str, Verb] = {"create": Verb.CREATE, "update": Verb.UPDATE, "delete": Verb.DELETE}
_PROFILE = "profile"
"""The mode in which a resource is judged by itself alone."""

_OF_OURS = frozenset({RefusalKind.TRANSIENT, RefusalKind.INTERNAL})
"""That nothing can be said: no answer to the question, so the status is not 200."""

_FINE = "nothing is wrong with it"


class _Asked(NamedTuple):
    """What is to be validated: `resource` None for none, `notes` and `refusals` those of the resource by itself."""

    resource: Resource | None
    mode: str = ""
    refusals: Sequence[Refusal] = ()
    notes: Sequence[str] = ()


async def validate(call: Call) -> Answer:
    """What would come of a create, an update, a deletion or a Bundle; in mode `profile`, what a resource is by
    itself."""
    if call.type and not any(call.who.may(call.type, letter) for letter in "crud"):
        call.permit(call.type, "c")
    try:
        asked = await _asked(call)
        if asked.mode == _PROFILE:
            _permit_reading(call, asked.resource)
            return _told(asked.refusals, asked.notes, _FINE)
        request = await asyncio.to_thread(_request, call, asked)
    except Refused as refused:
        return Answer(200, {}, outcome(refused.refusals))
    request, forbidden = _as_permitted(call, request)
    refusals = [*asked.refusals, *(each for several in request.unreadable.values() for each in several), *forbidden]
    if refusals and request.kind is not Kind.BATCH:
        return _told(refusals, asked.notes)
    done = await call.server.rehearse(_without(request, refusals))
    return _told([*refusals, *done.refusals], [*asked.notes, *done.notes])


def _told(refusals: Sequence[Refusal], notes: Sequence[str], otherwise: str = "nothing would be done") -> Answer:
    status = http_status(refusals) if _OF_OURS & {each.kind for each in refusals} else 200
    said = tuple(dict.fromkeys(notes)) or (() if refusals else (otherwise,))
    return Answer(status, {}, outcome(refusals, said))


# --- what is asked ----------------------------------------------------------------------------------------------------


def _said(call: Call) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(call.knock.query).items()}


async def _asked(call: Call) -> _Asked:
    """What the body and the address say. Raises Refused where that cannot be read, or has no such mode."""
    found = await understood(call)
    said, resource, refusals, notes = _said(call), found.resource, list(found.refusals), list(found.notes)
    if resource is None and call.body:
        raise Refused(*refusals)
    if resource is not None and resource.get("resourceType") == "Parameters":
        said |= {name: value for name in ("mode", "profile") if (value := _text(resource, name))}
        resource, refusals, notes = parameter(resource, "resource"), [], []
        if resource is not None:
            refusals, notes = await asyncio.to_thread(fhir_models.problems, resource, call.release)
    mode = said.get("mode", "")
    if mode not in ("", _PROFILE, *_MODES):
        raise _refused(RefusalKind.UNKNOWN_CODE, "mode", "is no mode of $validate", one_of(mode, [*_MODES, _PROFILE]))
    if mode == "delete":
        refusals, notes = [], []  # what is deleted need not be said, nor be right
    elif resource is None:
        raise _refused(
            RefusalKind.MISSING_FIELD, "Parameters.parameter", "there is no resource",
            "send the resource itself, or Parameters with a parameter `resource`",
        )  # fmt: skip
    if profile := said.get("profile"):
        notes.append(f"profiles are not known here: the resource was not held against {profile[:200]}")
    return _Asked(resource, mode, refusals, notes)


def _text(parameters: Resource, name: str) -> str:
    """What a parameter says."""
    found: Resource = next((each for each in parameters_of(parameters) if each.get("name") == name), {})
    return next((value for key, value in found.items() if key.startswith("value") and isinstance(value, str)), "")


def _permit_reading(call: Call, resource: Resource | None) -> None:
    """Raises Turned. At the base the type is that of the resource."""
    said = resource.get("resourceType") if resource is not None else None
    call.permit(call.type or (said if isinstance(said, str) and said in fhir_capability.SERVED else "*"), "r")


# --- what is rehearsed ------------------------------------------------------------------------------------------------


def _request(call: Call, asked: _Asked) -> FHIRRequest:
    """The request that would be sent. Raises Refused, or Faulty where a header is none."""
    resource = asked.resource
    if resource is not None and resource.get("resourceType") == "Bundle":
        return request_of(call, resource, asked.notes)
    own = str((resource or {}).get("id") or "")
    type_ = call.type or str((resource or {}).get("resourceType") or "")
    if not fhir_capability.is_served(type_, call.release):
        raise _refused(
            RefusalKind.UNSUPPORTED_TYPE, "", "resources of this type are not served",
            one_of(type_[:64], list(fhir_capability.SERVED)),
        )  # fmt: skip
    verb = _MODES.get(asked.mode, Verb.UPDATE if call.id else Verb.CREATE)
    if verb is Verb.CREATE and call.id:
        raise _refused(RefusalKind.UNUSABLE_QUERY, "mode", "what is created has no address yet",
                       f"call {type_}/$validate, or say update")  # fmt: skip
    id_ = "" if verb is Verb.CREATE else call.id or own
    if verb is not Verb.CREATE and not id_:
        raise _refused(RefusalKind.MISSING_FIELD, type_, f"{verb.value} names a resource",
                       f"call {type_}/ID/$validate, or put the id into the resource")  # fmt: skip
    aimed = _with_conditions(call, Interaction(verb, type_, id_, None if verb is Verb.DELETE else resource))
    try:
        return permitted(call, fhir_bundle.single(aimed, call.release, call.body, "", sender=call.who.client))
    except Refused as refused:
        raise Refused(*asked.refusals, *refused.refusals) from None


def _with_conditions(call: Call, aimed: Interaction) -> Interaction:
    """With what the headers say, as they would be sent with it. Raises Faulty."""
    try:
        return replace(
            aimed,
            if_none_exist=call.header("if-none-exist").removeprefix("?") if aimed.verb is Verb.CREATE else "",
            if_match="" if aimed.verb is Verb.CREATE else version_of(call.header("if-match"), "If-Match"),
            if_none_match=absent_only(call.header("if-none-match"), "If-None-Match")
            if aimed.verb is Verb.UPDATE else "",
        )  # fmt: skip
    except Refused as refused:
        raise Faulty(400, refused.refusals[0]) from None


def _as_permitted(call: Call, request: FHIRRequest) -> tuple[FHIRRequest, Sequence[Refusal]]:
    """What of the request its sender may do, and why not the rest. Raises Turned where it is all or nothing."""
    forbidden: list[Refusal] = []
    left: list[Interaction] = []
    for each in request.interactions:
        if request.kind is not Kind.BATCH:
            call.permit(each.type, LETTERS[each.verb])
            left.append(each)
            continue
        turned = call.server.door.forbidden(call.knock, call.who, each.type, LETTERS[each.verb])
        if turned is None:
            left.append(each)
        else:
            forbidden.append(replace(turned.refusal, where=each.where))
    return replace(request, interactions=tuple(left)), forbidden


def _without(request: FHIRRequest, refusals: Sequence[Refusal]) -> FHIRRequest:
    """A batch without the entries that something is wrong with; nothing of it where that is the Bundle itself."""
    places = [each.where for each in refusals]
    if not all(place.startswith("Bundle.entry[") for place in places):
        return replace(request, interactions=())
    left = (
        each for each in request.interactions
        if not any(place == each.where or place.startswith(f"{each.where}.") for place in places)
    )  # fmt: skip
    return replace(request, interactions=tuple(left))


def _refused(kind: RefusalKind, where: str, text: str, hint: str) -> Refused:
    return Refused(Refusal(kind, where, text, hint))
