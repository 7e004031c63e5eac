"""What our FHIR server does: from a request to what it asks for, and what came of it as an answer.

One function for each interaction and operation. Whoever asks was admitted; what it may do is asked here. What cannot be
done is raised as `Refused`, `Faulty` or `Turned`; a body that is refused is archived.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from gateway.domain.refusal import Refusal, RefusalKind, Refused
from gateway.domain.resources import HeldResource, Resource, ResourceKey
from gateway.edges.fhir_bodies import Understood
from gateway.edges.fhir_calls import (
    Call,
    Faulty,
    faulty,
    format_alone,
    refuse,
    sent_as,
    understood,
    with_resource,
    without_format,
)
from gateway.wire import fhir_bundle, fhir_capability, fhir_search
from gateway.wire.fhir_bundle import Answer
from gateway.wire.fhir_interactions import FHIRRequest, Interaction, Kind, Result, Verb
from gateway.wire.fhir_negotiation import Returned, Sent, absent_only, unchanged, version_of
from gateway.wire.fhir_outcome import http_status, outcome
from gateway.workflow import fhir_server

LETTERS: Mapping[Verb, str] = {
    Verb.CREATE: "c", Verb.UPDATE: "u", Verb.PATCH: "u", Verb.DELETE: "d", Verb.READ: "r", Verb.SEARCH: "s",
}  # fmt: skip
"""What a scope has to permit (SMART 2)."""
_READS = frozenset({Verb.READ, Verb.SEARCH})


async def create(call: Call) -> Answer:
    call.permit(call.type, "c")
    if call.query:
        raise faulty(400, RefusalKind.UNUSABLE_QUERY, "", "POST to a type takes no search",
                      "put it into If-None-Exist, or POST it to _search")  # fmt: skip
    aimed = Interaction(Verb.CREATE, call.type, if_none_exist=call.header("if-none-exist").removeprefix("?"))
    return await _changed(call, await with_resource(call, aimed))


async def update(call: Call) -> Answer:
    call.permit(call.type, "u")
    return await _changed(call, await with_resource(call, _aimed(call, Verb.UPDATE)))


async def patch(call: Call) -> Answer:
    call.permit(call.type, "u")
    patch: Sequence[Mapping[str, Any]] | Resource
    if sent_as(call) is Sent.JSON_PATCH:
        try:
            patch = await asyncio.to_thread(fhir_bundle.json_patch, call.body)
        except Refused as refused:
            return await refuse(call, refused.refusals)
    else:
        said = await understood(call, check=False)
        if said.resource is None:
            return await refuse(call, said.refusals)
        patch = said.resource
        if patch.get("resourceType") != "Parameters":
            hint = "send Parameters of FHIRPath Patch, or JSON Patch as application/json-patch+json"
            raise faulty(415, RefusalKind.UNSUPPORTED_TYPE, "", "a resource is no patch", hint)
    return await _changed(call, replace(_aimed(call, Verb.PATCH), patch=patch))


async def delete(call: Call) -> Answer:
    call.permit(call.type, "d")
    return await _changed(call, _aimed(call, Verb.DELETE))


def _aimed(call: Call, verb: Verb) -> Interaction:
    """At the id in the address, or at what the search in it finds."""
    if call.id and call.query:
        raise faulty(400, RefusalKind.UNUSABLE_QUERY, "", f"{verb.value} names an id or a search, and not both",
                      "leave out one of them")  # fmt: skip
    if not call.id and not call.query:
        raise faulty(405, RefusalKind.UNUSABLE_QUERY, "", f"{verb.value} names an id or a search",
                      f"write {call.type}/ID or {call.type}?identifier=SYSTEM|VALUE")  # fmt: skip
    try:
        version = version_of(call.header("if-match"), "If-Match")
        absent = absent_only(call.header("if-none-match"), "If-None-Match")
    except Refused as refused:
        raise Faulty(400, refused.refusals[0]) from None
    return Interaction(verb, call.type, call.id, query=call.query, if_match=version, if_none_match=absent)


async def _changed(call: Call, interaction: Interaction) -> Answer:
    try:
        request = fhir_bundle.single(
            interaction, call.release, call.body, call.event, peer=call.knock.peer, sender=call.who.client
        )  # fmt: skip
    except Refused as refused:
        return await refuse(call, refused.refusals, interaction)
    return _preferred(call, await call.server.process(permitted(call, request)))


def permitted(call: Call, request: FHIRRequest) -> FHIRRequest:
    """The request with what its sender may be told, and how much of it at once."""
    may_read, may_search = (
        frozenset(type_ for type_ in fhir_capability.SERVED if call.who.may(type_, letter)) for letter in "rs"
    )
    return replace(
        request, base=call.base, may_read=may_read, may_search=may_search, page_max=call.server.limits().page_max
    )  # fmt: skip


def _preferred(call: Call, done: Answer) -> Answer:
    """What a change is answered with, as the caller prefers it (3.1.0.1.9)."""
    if done.status >= HTTPStatus.BAD_REQUEST or call.preference.returned in (None, Returned.REPRESENTATION):
        return done
    if call.preference.returned is Returned.MINIMAL:
        return replace(done, body=None)
    status = HTTPStatus.OK if done.status == HTTPStatus.NO_CONTENT else done.status
    return replace(done, status=status, body=outcome((), done.notes or (fhir_bundle.WITHOUT_REMARKS,)))


async def read(call: Call) -> Answer:
    call.permit(call.type, "r")
    found = await call.server.read(lambda reader: fhir_server.read(reader, _key(call)))
    if found.refusals:
        return Answer(found.status, {}, outcome(found.refusals))
    done = fhir_bundle.answer(FHIRRequest(Kind.SINGLE, call.release.base, call.release, (), b""), [found])
    since = call.header("if-none-match"), call.header("if-modified-since")
    if found.updated_at is not None and unchanged(*since, found.version, found.updated_at):
        return Answer(304, done.headers)
    return done


def _key(call: Call) -> ResourceKey:
    return ResourceKey(call.release.base, call.type, call.id)


async def vread(call: Call) -> Answer:
    done = await read(call)
    version = str(call.request.path_params["version"])
    if done.status >= HTTPStatus.BAD_REQUEST or done.headers.get("ETag") == f'W/"{version}"':
        return done
    raise faulty(404, RefusalKind.NO_SUCH_INSTANCE, "", "only the current version is kept",
                  f"read {call.type}/{call.id}; the gateway's archive has what was sent before")  # fmt: skip


async def history(call: Call) -> Answer:
    raise faulty(404, RefusalKind.UNSUPPORTED_EVENT, "", "no history is kept here",
                  "read the resource, or search by _lastUpdated for what has changed")  # fmt: skip


async def search(call: Call) -> Answer:
    if not call.type:
        raise faulty(400, RefusalKind.UNUSABLE_QUERY, "", "a search is for one type of resources",
                      f"write such as {call.base}/ServiceRequest?status=active")  # fmt: skip
    call.permit(call.type, "s")
    query, format_said = call.query, format_alone(call.knock.query)
    if call.request.method == "POST" and call.body:
        if not call.header("content-type") or sent_as(call) is not Sent.FORM:
            raise faulty(415, RefusalKind.UNSUPPORTED_TYPE, "Content-Type", "POST _search takes a form",
                          "send application/x-www-form-urlencoded")  # fmt: skip
        form = call.body.decode("utf-8", "replace").strip()
        call.want(form)
        query = "&".join(each for each in (query, without_format(form)) if each)
        format_said = format_alone(form) or format_said
    asked = fhir_search.parse(
        call.type, query, call.release, (call.base,), lenient=call.preference.strict is False
    )  # fmt: skip
    for type_ in sorted(fhir_search.types_asked(asked)):
        if fhir_capability.is_served(type_, call.release):
            call.permit(type_, "s")
    asked = replace(asked, count=min(asked.count, call.server.limits().page_max))
    page = await call.server.read(lambda reader: fhir_server.search(reader, call.release.base, asked))
    return Answer(200, {}, _page(call, asked, page, format_said))


def _page(call: Call, asked: fhir_search.Search, page: fhir_server.Page, format_said: str) -> Resource:
    """A page; `format_said` is what its address says of the format, in which the next one comes as well."""
    shown = [each for each in page.included if call.who.may(each.key.type, "r")]
    query = "&".join(filter(None, (asked.query, format_said)))
    here = f"{call.base}/{call.type}"
    links = {"self": f"{here}?{query}" if query else here}
    if page.cursor:
        links["next"] = f"{links['self']}{'&' if query else '?'}{fhir_search.CURSOR}={quote(page.cursor, safe='')}"
    entries = [(_url(call, each), _reduced(each.content, asked.elements), "match") for each in page.matches]
    entries += [(_url(call, each), each.content, "include") for each in shown]
    return fhir_bundle.searchset(entries, links, page.total, asked.notes)


def _url(call: Call, held: HeldResource) -> str:
    return f"{call.base}/{held.key.reference}"


def _reduced(resource: Resource, elements: Sequence[str]) -> Resource:
    """Only these elements, marked as a part (search.html#elements)."""
    if not elements:
        return resource
    kept = {"resourceType", "id", "meta", *elements}
    meta = resource.get("meta", {})
    part = {"system": "http://terminology.hl7.org/CodeSystem/v3-ObservationValue", "code": "SUBSETTED"}
    reduced = {name: value for name, value in resource.items() if name.removeprefix("_") in kept}
    return {**reduced, "meta": {**meta, "tag": [*meta.get("tag", ()), part]}}


async def base(call: Call) -> Answer:
    """A Bundle, posted to the base."""
    return await _bundle(call, message=False)


async def process_message(call: Call) -> Answer:
    if call.request.query_params.get("async") == "true":
        raise faulty(422, RefusalKind.UNSUPPORTED_EVENT, "async", "a message is answered at once", "leave async out")
    return await _bundle(call, message=True)


async def _bundle(call: Call, message: bool) -> Answer:
    said = await understood(call)
    bundle = said.resource
    if bundle is None:
        return await refuse(call, said.refusals)
    if bundle.get("resourceType") == "Parameters" and message:
        bundle = parameter(bundle, "content") or bundle
    if bundle.get("resourceType") != "Bundle":
        hint = f"a single resource goes to its type: POST {call.base}/ServiceRequest"
        return await refuse(call, [Refusal(RefusalKind.BAD_VALUE, "resourceType", "is no Bundle", hint)])
    if message != (bundle.get("type") == "message"):
        hint = "messages go to $process-message; transactions, batches and documents to the base"
        text = "is no message" if message else "a message is not posted to the base"
        return await refuse(call, [Refusal(RefusalKind.UNSUPPORTED_EVENT, "Bundle.type", text, hint)])
    if bundle.get("type") == "batch":
        return await _batch(call, bundle, said)
    try:
        request = await asyncio.to_thread(request_of, call, bundle, said.notes)
    except Refused as refused:
        return await refuse(call, [*said.refusals, *refused.refusals])
    if said.refusals:
        return await call.server.refuse(request, said.refusals)
    for type_, letter in sorted({(each.type, LETTERS[each.verb]) for each in request.interactions}):
        call.permit(type_, letter)
    if request.interactions and all(each.verb in _READS for each in request.interactions):
        return fhir_bundle.answer(request, await _looked_up(call, request))
    return await call.server.process(request)


async def _looked_up(call: Call, request: FHIRRequest) -> Sequence[Result]:
    """What comes of reads and searches: they need not wait for those who write, and nothing of them is archived."""
    return await call.server.read(lambda reader: fhir_server.Reading(reader, request, (call.base,)).each())


async def _batch(call: Call, bundle: Resource, said: Understood) -> Answer:
    """Each entry for itself: one that cannot be read, or may not be done, keeps no other back."""
    refused: dict[int, list[Refusal]] = {}
    whole: list[Refusal] = []
    for refusal in said.refusals:
        number = _entry_of(refusal.where)
        if number is None:
            whole.append(refusal)
        else:
            refused.setdefault(number, []).append(refusal)
    try:
        request = await asyncio.to_thread(request_of, call, bundle, said.notes)
    except Refused as error:
        return await refuse(call, [*whole, *error.refusals])
    if whole:
        return await call.server.refuse(request, said.refusals)
    for number, refusals in request.unreadable.items():
        refused.setdefault(number, []).extend(refusals)
    tried: list[Interaction] = []
    reads: list[Interaction] = []
    for each in request.interactions:
        number = _entry_of(each.where)
        turned = call.server.door.forbidden(call.knock, call.who, each.type, LETTERS[each.verb])
        if number is not None and turned is not None:
            refused.setdefault(number, []).append(replace(turned.refusal, where=each.where))
        if number not in refused:
            (reads if each.verb in _READS else tried).append(each)
    done = Answer(200)
    if tried:
        done = await call.server.process(replace(request, interactions=tuple(tried)))
        if done.status != HTTPStatus.OK:
            return done
    if refused:  # the archive has them by themselves, and those that were tried one by one
        left = tuple(each for each in request.interactions if _entry_of(each.where) in refused)
        await call.server.refuse(
            replace(request, interactions=left), [refusal for number in sorted(refused) for refusal in refused[number]]
        )  # fmt: skip
    others = {number: Result(http_status(each), refusals=tuple(each)) for number, each in refused.items()}
    found = await _looked_up(call, replace(request, interactions=tuple(reads))) if reads else ()
    others |= {_entry_of(each.where) or 0: result for each, result in zip(reads, found, strict=True)}
    return fhir_bundle.with_entries(done, request, others)


def _entry_of(where: str) -> int | None:
    """The number of the entry that a place is in."""
    inner = where.removeprefix("Bundle.entry[")
    number = inner.partition("]")[0]
    return int(number) if inner != where and number.isdigit() else None


def request_of(call: Call, bundle: Resource, notes: Sequence[str]) -> FHIRRequest:
    """What a Bundle asks for, with what its sender may be told. Raises Refused."""
    request = fhir_bundle.request_of(
        bundle, call.release, call.body, peer=call.knock.peer, sender=call.who.client, base_url=call.base,
        kept=lambda type_: fhir_capability.is_served(type_, call.release),
    )  # fmt: skip
    return replace(
        permitted(call, request), notes=(*notes, *request.notes), returned=call.preference.returned
    )  # fmt: skip


def parameter(parameters: Resource, name: str) -> Resource | None:
    """The resource that a parameter brings."""
    found = next((each for each in parameters_of(parameters) if each.get("name") == name), {})
    resource = found.get("resource")
    return resource if isinstance(resource, Mapping) else None


def parameters_of(parameters: Resource) -> list[Resource]:
    """The elements of Parameters, as far as they are any."""
    said = parameters.get("parameter")
    return [each for each in said if isinstance(each, Mapping)] if isinstance(said, list) else []
