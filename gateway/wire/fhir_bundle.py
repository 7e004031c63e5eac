"""Bundles in and out: what their entries ask for, each with its place, and what came of it as a response Bundle.

A `transaction` or `batch` says itself what to do with each resource. A `message` does not, nor does a `document`: what
they bring is there afterwards as they have it, so each resource becomes an update by its business identifier, or by the
id that its fullUrl gives it where it has none. A document is taken at the base, since order forms are sent so
(spec: an order may be a Composition with its ServiceRequest); a `collection` says neither what to do nor what it is,
and is refused with a hint. What messages and documents hold beside the types that are kept is passed over, and a note
says so.

Nothing here looks at what a resource means, or at a store.
"""

import base64
import binascii
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any
from urllib.parse import quote
from uuid import NAMESPACE_URL, uuid5

from gateway.domain.refusal import Refusal, RefusalKind, Refused
from gateway.domain.resources import Resource
from gateway.wire import fhir_json
from gateway.wire.fhir_bounds import PLAIN_BOUNDS, Bounds
from gateway.wire.fhir_interactions import FHIRRequest, Interaction, Kind, Result, Verb
from gateway.wire.fhir_negotiation import Returned, absent_only, etag, http_date, version_of
from gateway.wire.fhir_outcome import http_status, outcome
from gateway.wire.fhir_references import ID, rewritten
from gateway.wire.fhir_release import Release

_TYPE = re.compile(r"[A-Z][A-Za-z]{1,63}")
_UUID = re.compile(r"urn:uuid:([0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})")
_LITERAL = re.compile(r"(?:(https?://[^?#]*)/)?([A-Z][A-Za-z]{1,63})/([A-Za-z0-9\-.]{1,64})(/_history/[^/]*)?")
_VERBS: Mapping[str, Verb] = {
    "POST": Verb.CREATE, "PUT": Verb.UPDATE, "PATCH": Verb.PATCH, "DELETE": Verb.DELETE, "GET": Verb.READ
}  # fmt: skip
_WITH_RESOURCE = frozenset({Verb.CREATE, Verb.UPDATE, Verb.PATCH})
_ORDER_NUMBERS = ("PLAC", "FILL", "ACSN")  # of these a request is known sooner than by others that it bears
_PLACES_TOLD = 5
_NOT_ITS_OWN = frozenset({"old", "temp"})  # Identifier.use that another may have as well


WITHOUT_REMARKS = "done, without remarks"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request is answered with. References in it, and its Location, are relative to the base.

    `notes` are in the body already where it is a Bundle or an OperationOutcome.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Resource | None = field(default=None, repr=False)
    notes: tuple[str, ...] = field(default=(), repr=False)


# --- what comes -------------------------------------------------------------------------------------------------------


def single(
    interaction: Interaction, release: Release, raw: bytes, event: str, *, peer: str = "", sender: str = ""
) -> FHIRRequest:
    """A request of one interaction. Raises Refused where its resource is of another type or id than it says."""
    _check_resource(interaction)
    return FHIRRequest(Kind.SINGLE, release.base, release, (interaction,), raw, peer, sender, event=event)


def request_of(
    bundle: Resource,
    release: Release,
    raw: bytes,
    *,
    peer: str = "",
    sender: str = "",
    base_url: str = "",
    kept: Callable[[str], bool] = lambda _: True,
) -> FHIRRequest:
    """What `bundle` asks for; entries of a batch that cannot be read are `unreadable`.

    `base_url` is what absolute addresses in it may begin with, `kept` says which types of resources are.
    Raises Refused with every problem of it.
    """
    kind = bundle.get("type")
    if kind == "message":
        return _message(bundle, release, raw, peer, sender, kept)
    if kind == "document":
        return _document(bundle, release, raw, peer, sender, kept)
    if kind not in ("transaction", "batch"):
        hint = "send a transaction or a batch, with a request in each entry; or a message, or a document"
        text = f"a Bundle of type {kind} does not say what is to be done" if kind else "a Bundle has a type"
        raise Refused(Refusal(RefusalKind.UNSUPPORTED_EVENT, "Bundle.type", text, hint))
    read = list(_entries(bundle, base_url))
    unreadable = {number: each for number, each in enumerate(read) if not isinstance(each, Interaction)}
    if kind == "transaction" and unreadable:
        raise Refused(*(refusal for each in unreadable.values() for refusal in each))
    interactions = tuple(each for each in read if isinstance(each, Interaction))
    what = Kind.TRANSACTION if kind == "transaction" else Kind.BATCH
    return FHIRRequest(
        what, release.base, release, interactions, raw, peer, sender, event=what.value, unreadable=unreadable
    )  # fmt: skip


def entries_of(bundle: Resource) -> Sequence[Resource]:
    """The entries of a Bundle. Raises Refused where they are none."""
    entries = bundle.get("entry", [])
    if not isinstance(entries, Sequence) or isinstance(entries, str):
        raise Refused(Refusal(RefusalKind.MALFORMED, "Bundle.entry", "is no list", "send a list of entries"))
    for number, each in enumerate(entries):
        if not isinstance(each, Mapping):
            raise Refused(Refusal(RefusalKind.MALFORMED, f"Bundle.entry[{number}]", "is no element", "send an object"))
    return entries


def _entries(bundle: Resource, base_url: str) -> Iterator[Interaction | tuple[Refusal, ...]]:
    for number, entry in enumerate(entries_of(bundle)):
        where = f"Bundle.entry[{number}]"
        try:
            interaction = _interaction(entry, where, base_url)
            _check_resource(interaction)
        except Refused as refused:
            yield refused.refusals
        else:
            yield interaction


def _interaction(entry: Resource, where: str, base_url: str) -> Interaction:
    asked = entry.get("request")
    if not isinstance(asked, Mapping):
        raise _missing(f"{where}.request", "an entry says what is to be done with it", "give it method and url")
    method = _text(asked.get("method"))
    if method not in _VERBS:
        hint = f"say one of {', '.join(_VERBS)}"
        raise Refused(Refusal(RefusalKind.UNKNOWN_CODE, f"{where}.request.method", "is not taken in a Bundle", hint))
    verb = _VERBS[method]
    type_, id_, query = _target(asked.get("url"), verb, f"{where}.request.url", base_url)
    resource = entry.get("resource")
    if verb in _WITH_RESOURCE and not isinstance(resource, Mapping):
        raise _missing(f"{where}.resource", f"{method} brings a resource", "put it into the entry")
    if verb is Verb.READ and not id_:
        verb = Verb.SEARCH
    patch = patch_of(resource, f"{where}.resource") if verb is Verb.PATCH and isinstance(resource, Mapping) else None
    return Interaction(
        verb,
        type_,
        id_,
        resource if verb in (Verb.CREATE, Verb.UPDATE) else None,
        patch,
        query,
        _text(asked.get("ifNoneExist")) if verb is Verb.CREATE else "",
        version_of(_text(asked.get("ifMatch")), f"{where}.request.ifMatch"),
        _text(entry.get("fullUrl")),
        where,
        if_none_match=_none_match(asked, verb, f"{where}.request.ifNoneMatch"),
        if_modified_since=_text(asked.get("ifModifiedSince")) if verb is Verb.READ else "",
    )


def _none_match(asked: Resource, verb: Verb, where: str) -> str:
    said = _text(asked.get("ifNoneMatch"))
    return said if verb is Verb.READ else absent_only(said, where)


def _target(url: object, verb: Verb, where: str, base_url: str) -> tuple[str, str, str]:
    """Type, id and query that an entry's url names."""
    if not isinstance(url, str) or not url:
        raise _missing(where, "an entry says which resource it means", "write such as ServiceRequest or Patient/9")
    path, _, query = url.partition("?")
    path = path.removeprefix(base_url.rstrip("/")) if base_url else path
    if "://" in path:
        hint = "write it relative to the base, such as Patient/9"
        raise Refused(Refusal(RefusalKind.BAD_VALUE, where, "is an address of another server", hint))
    type_, _, rest = path.strip("/").partition("/")
    if not _TYPE.fullmatch(type_) or (rest and not ID.fullmatch(rest)):
        hint = (
            "operations, history and _search are called by requests of their own" if "/" in path or "$" in path else ""
        )
        raise Refused(Refusal(
            RefusalKind.BAD_VALUE, where, "is no resource, type of resources or search",
            hint or "write such as ServiceRequest, Patient/9 or Patient?identifier=SYSTEM|VALUE",
        ))  # fmt: skip
    if verb is Verb.CREATE and (rest or query):
        hint = "POST to the type alone; PUT to give an id; ifNoneExist to search before"
        raise Refused(Refusal(RefusalKind.BAD_VALUE, where, "POST names neither an id nor a search", hint))
    if verb in (Verb.UPDATE, Verb.PATCH, Verb.DELETE) and bool(rest) == bool(query):
        text = f"{verb.value} names an id or a search, and not both"
        raise Refused(Refusal(RefusalKind.BAD_VALUE, where, text, "write such as Patient/9 or Patient?identifier=..."))
    return type_, rest, query


def _check_resource(interaction: Interaction) -> None:
    """The resource is of the type and id that the request names."""
    resource = interaction.resource
    if resource is None:
        return
    where = f"{interaction.where}.resource" if interaction.where else interaction.type
    said = resource.get("resourceType")
    if said != interaction.type:
        text = f"the request is for {interaction.type}, and the resource is another"
        hint = f"send a {interaction.type}, or name the type that it is"
        raise Refused(Refusal(RefusalKind.BAD_VALUE, f"{where}.resourceType" if interaction.where else "resourceType",
                              text, hint))  # fmt: skip
    if interaction.verb is Verb.UPDATE and interaction.id and resource.get("id") != interaction.id:
        text = "an update has the id that its address names"  # 400 (http.html 3.1.0.4)
        raise Refused(Refusal(RefusalKind.MALFORMED, f"{where}.id", text, "put the same id into the resource"))


def patch_of(resource: Resource, where: str) -> Sequence[Mapping[str, Any]] | Resource:
    """The patch in an entry: JSON Patch in a Binary, or FHIRPath Patch in Parameters. Raises Refused."""
    if resource.get("resourceType") == "Parameters":
        return resource
    if resource.get("resourceType") != "Binary":
        raise Refused(Refusal(
            RefusalKind.BAD_VALUE, f"{where}.resourceType", "a patch is JSON Patch in a Binary, or Parameters",
            "send Binary.data with contentType application/json-patch+json, or PUT the whole resource",
        ))  # fmt: skip
    try:
        data = base64.b64decode(_text(resource.get("data")), validate=True)
    except (binascii.Error, ValueError):
        raise Refused(Refusal(RefusalKind.UNREADABLE, f"{where}.data", "is no base64", "encode it again")) from None
    return json_patch(data, f"{where}.data")


def json_patch(data: bytes, where: str = "", bounds: Bounds = PLAIN_BOUNDS) -> Sequence[Mapping[str, Any]]:
    """The operations of a JSON Patch (RFC 6902); what they do is not looked at. Raises Refused."""
    try:
        operations = fhir_json.parse_value(data, bounds)
    except Refused as refused:
        raise Refused(*(replace(each, where=where or each.where) for each in refused.refusals)) from None
    if not isinstance(operations, list) or not all(isinstance(each, dict) for each in operations):
        hint = 'such as [{"op": "replace", "path": "/status", "value": "revoked"}]'
        raise Refused(Refusal(RefusalKind.MALFORMED, where, "a JSON Patch is a list of operations", hint))
    return operations


# --- messages and documents -------------------------------------------------------------------------------------------


def _message(
    bundle: Resource, release: Release, raw: bytes, peer: str, sender: str, kept: Callable[[str], bool]
) -> FHIRRequest:
    header = _first(bundle, "MessageHeader", "a message begins with its MessageHeader")
    event = _event_of(header)
    if not event:
        hint = "give eventCoding or eventUri (R5: eventCanonical)"
        raise _missing("Bundle.entry[0].resource.event[x]", "a message says what happened", hint)
    if "response" in header:
        raise Refused(Refusal(
            RefusalKind.UNSUPPORTED_EVENT, "Bundle.entry[0].resource.response", "this answers a message of ours",
            "no messages are sent from here: send those that report orders",
        ))  # fmt: skip
    return FHIRRequest(
        Kind.MESSAGE, release.base, release, _upserts(bundle, kept), raw, peer, sender, _message_id(bundle, header),
        event="message", header=header, notes=_passed_over(bundle, kept),
    )  # fmt: skip


def _document(
    bundle: Resource, release: Release, raw: bytes, peer: str, sender: str, kept: Callable[[str], bool]
) -> FHIRRequest:
    _first(bundle, "Composition", "a document begins with its Composition")
    return FHIRRequest(
        Kind.TRANSACTION, release.base, release, _upserts(bundle, kept), raw, peer, sender,
        _identifier_value(bundle.get("identifier")), event="document", notes=_passed_over(bundle, kept),
    )  # fmt: skip


def _first(bundle: Resource, type_: str, text: str) -> Resource:
    entries = entries_of(bundle)
    resource = entries[0].get("resource") if entries else None
    if not isinstance(resource, Mapping) or resource.get("resourceType") != type_:
        raise _missing("Bundle.entry[0].resource", text, f"put the {type_} first")
    return resource


def _event_of(header: Resource) -> str:
    coding = header.get("eventCoding")
    if isinstance(coding, Mapping):
        return _text(coding.get("code"))
    return _text(header.get("eventUri")) or _text(header.get("eventCanonical"))


def _message_id(bundle: Resource, header: Resource) -> str:
    """What a repeat is known by (messaging.html: MessageHeader.id stays the same when a message is sent again)."""
    named = _UUID.fullmatch(_text(entries_of(bundle)[0].get("fullUrl")))
    return _text(header.get("id")) or (named[1] if named else "") or _identifier_value(bundle.get("identifier"))


def _identifier_value(identifier: object) -> str:
    return _text(identifier.get("value")) if isinstance(identifier, Mapping) else ""


def _passed_over(bundle: Resource, kept: Callable[[str], bool]) -> tuple[str, ...]:
    """What a message or document holds behind its head and is not kept, a note for each type."""
    places: dict[str, list[str]] = {}
    for number, entry in enumerate(entries_of(bundle)[1:], 1):
        resource = entry.get("resource")
        type_ = _text(resource.get("resourceType")) if isinstance(resource, Mapping) else ""
        if type_ and not kept(type_):
            places.setdefault(type_, []).append(f"Bundle.entry[{number}]")
    return tuple(f"{type_} is not kept here, and passed over: {_some(where)}" for type_, where in places.items())


def _some(places: Sequence[str]) -> str:
    more = len(places) - _PLACES_TOLD
    return ", ".join(places[:_PLACES_TOLD]) + (f" and {more} more" if more > 0 else "")


def _upserts(bundle: Resource, kept: Callable[[str], bool]) -> tuple[Interaction, ...]:
    """Each resource of a message or document as an update. References between them go by names of our own."""
    placed = [
        (f"Bundle.entry[{number}]", _text(entry.get("fullUrl")), resource)
        for number, entry in enumerate(entries_of(bundle))
        if isinstance(resource := entry.get("resource"), Mapping) and kept(_text(resource.get("resourceType")))
    ]
    names: dict[str, str] = {}
    for where, full_url, resource in placed:
        name = f"urn:uuid:{uuid5(NAMESPACE_URL, full_url or where)}"
        names |= dict.fromkeys(_spellings(full_url, resource), name)
    made = []
    for where, full_url, resource in placed:
        name = f"urn:uuid:{uuid5(NAMESPACE_URL, full_url or where)}"
        renamed = rewritten(resource, lambda text, _: names.get(text.partition("/_history/")[0], text))
        made.append(replace(_upsert(renamed, full_url), full_url=name, where=where))
    return tuple(made)


def _spellings(full_url: str, resource: Resource) -> Iterator[str]:
    """How other entries may refer to this one."""
    type_ = _text(resource.get("resourceType"))
    if full_url:
        yield full_url
    if found := _LITERAL.fullmatch(full_url):
        yield f"{found[2]}/{found[3]}"
    if id_ := _text(resource.get("id")):
        yield f"{type_}/{id_}"


def _upsert(resource: Resource, full_url: str) -> Interaction:
    type_ = _text(resource.get("resourceType"))
    if query := _identifier_query(resource):
        # Its id is that of the sender's server; here it has the one that it was given.
        content = {name: value for name, value in resource.items() if name != "id"}
        return Interaction(Verb.UPDATE, type_, resource=content, query=query, by_number=True)
    literal, uuid = _LITERAL.fullmatch(full_url), _UUID.fullmatch(full_url)
    id_ = _text(resource.get("id")) or (literal[3] if literal else "") or (uuid[1].lower() if uuid else "")
    if not id_ or not ID.fullmatch(id_):
        content = {name: value for name, value in resource.items() if name != "id"}
        return Interaction(Verb.CREATE, type_, resource=content)
    return Interaction(Verb.UPDATE, type_, id_, {**resource, "id": id_})


def _identifier_query(resource: Resource) -> str:
    """The search for the business identifier by which a resource is known best; '' where it has none."""
    said = resource.get("identifier")
    identifiers = [
        each
        for each in (said if isinstance(said, Sequence) and not isinstance(said, str) else [])
        if isinstance(each, Mapping) and _text(each.get("system")) and _text(each.get("value"))
        and each.get("use") not in _NOT_ITS_OWN
    ]  # fmt: skip
    if not identifiers:
        return ""
    best = min(identifiers, key=_rank)
    return "identifier=" + quote(f"{_token(best['system'])}|{_token(best['value'])}", safe="")


def _rank(identifier: Resource) -> int:
    codings = identifier.get("type", {}).get("coding", []) if isinstance(identifier.get("type"), Mapping) else []
    codes = [_text(each.get("code")) for each in codings if isinstance(each, Mapping)]
    return min((_ORDER_NUMBERS.index(code) for code in codes if code in _ORDER_NUMBERS), default=len(_ORDER_NUMBERS))


def _token(text: str) -> str:
    """Escaped for a search (search.html 3.1.1.5.4)."""
    return re.sub(r"([\\,$|])", r"\\\1", text)


# --- what goes --------------------------------------------------------------------------------------------------------


def answer(request: FHIRRequest, results: Sequence[Result]) -> Answer:
    """The answer to a request that was done; `results` are in the order of its interactions."""
    refusals = [refusal for each in results for refusal in each.refusals]
    if refusals and request.kind is not Kind.BATCH:
        return refused(request, refusals)
    match request.kind:
        case Kind.SINGLE:
            return _single_answer(request, results[0])
        case Kind.MESSAGE:
            return _message_answer(request, results)
        case _:
            what = "batch-response" if request.kind is Kind.BATCH else "transaction-response"
            pairs = zip(request.interactions, results, strict=True)
            entries = [_entry(request, interaction, result) for interaction, result in pairs]
            return Answer(200, {}, _bundle(what, entries), () if entries else request.notes)


def refused(request: FHIRRequest, refusals: Sequence[Refusal], notes: Sequence[str] = ()) -> Answer:
    """The answer to a request of which nothing was done. A message is answered by a message, with the HTTP status."""
    status, body = http_status(refusals), outcome(refusals, notes)
    if request.kind is Kind.MESSAGE and request.header is not None:
        code = "transient-error" if status == HTTPStatus.SERVICE_UNAVAILABLE else "fatal-error"
        body = _response_message(request, request.header, code, body)
    return Answer(status, {}, body)


def with_entries(done: Answer, request: FHIRRequest, others: Mapping[int, Result]) -> Answer:
    """The answer to a batch, with the entries that were read or refused by themselves at their places."""
    entries = list(done.body["entry"]) if done.body is not None and "entry" in done.body else []
    asked = {each.where: each for each in request.interactions}
    for number in sorted(others):
        entries.insert(number, _entry(request, asked.get(f"Bundle.entry[{number}]"), others[number]))
    return replace(done, body=_bundle("batch-response", entries))


def _told(request: FHIRRequest, interaction: Interaction | None, result: Result) -> Resource | None:
    """The resource of a result where its reader has sent it itself, or may read it."""
    if request.may_read is None or result.key is None or result.key.type in request.may_read:
        return result.resource
    verb = interaction.verb if interaction is not None else None
    sent = verb is Verb.UPDATE or (verb is Verb.CREATE and result.status == HTTPStatus.CREATED)
    return result.resource if sent else None


def _single_answer(request: FHIRRequest, result: Result) -> Answer:
    headers: dict[str, str] = {}
    if result.version:
        headers["ETag"] = etag(result.version)
    if result.updated_at is not None:
        headers["Last-Modified"] = http_date(result.updated_at)
    interaction = next(iter(request.interactions), None)
    create = interaction is not None and interaction.verb is Verb.CREATE  # which may also find what is there
    if result.key is not None and (create or result.status == HTTPStatus.CREATED):
        headers["Location"] = _location(result)
    told = _told(request, interaction, result)
    return Answer(result.status, headers, told, result.notes)


def _location(result: Result) -> str:
    assert result.key is not None  # noqa: S101  (both callers have looked)
    return f"{result.key.reference}/_history/{result.version}"


def _entry(request: FHIRRequest, interaction: Interaction | None, result: Result) -> dict[str, Any]:
    """One of a response Bundle, of an interaction, or of what is none. What a change made of a resource is in it where
    that is asked for."""
    verb = interaction.verb if interaction is not None else None
    returned = request.returned
    said: dict[str, Any] = {"status": _status_line(result.status)}
    if result.key is not None and result.version and verb is not Verb.DELETE:
        said["location"] = _location(result)
    if result.version:
        said["etag"] = etag(result.version)
    if result.updated_at is not None:
        said["lastModified"] = instant(result.updated_at)
    reading = verb in (Verb.READ, Verb.SEARCH)
    notes = result.notes
    if returned is Returned.OUTCOME and not reading and not result.refusals:
        notes = notes or (WITHOUT_REMARKS,)
    if result.refusals or notes:
        said["outcome"] = outcome(result.refusals, notes)
    entry: dict[str, Any] = {"response": said}
    told = _told(request, interaction, result) if reading or returned is Returned.REPRESENTATION else None
    if told is not None:
        entry = {"resource": told, **entry}
    return entry


def _status_line(status: int) -> str:
    return f"{status} {HTTPStatus(status).phrase}"


def instant(at: datetime) -> str:
    """As meta.lastUpdated has it."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _message_answer(request: FHIRRequest, results: Sequence[Result]) -> Answer:
    notes = [] if results else list(request.notes)
    for interaction, result in zip(request.interactions, results, strict=True):
        if result.key is not None:
            notes.append(f"{interaction.where}.resource is {result.key.reference}, version {result.version}")
        notes += result.notes
    said = outcome((), notes) if notes else None
    header = request.header or {}
    return Answer(200, {}, _response_message(request, header, "ok", said))


def _response_message(request: FHIRRequest, asked: Resource, code: str, said: Resource | None) -> Resource:
    """MessageHeader.response and what it refers to; the same for the same message, however often it comes."""
    name = uuid5(NAMESPACE_URL, f"{request.source}/{request.sender}/{request.message_id}")
    identifier: Any = _text(asked.get("id")) or request.message_id or str(name)
    response: dict[str, Any] = {
        "identifier": {"value": identifier} if request.release is Release.R5 else identifier, "code": code
    }  # fmt: skip
    entries: list[dict[str, Any]] = []
    if said is not None:
        details = f"urn:uuid:{uuid5(name, 'details')}"
        response["details"] = {"reference": details}
        entries.append({"fullUrl": details, "resource": said})
    header = {
        "resourceType": "MessageHeader",
        "id": str(name),
        **{key: value for key, value in asked.items() if key.startswith("event")},
        "destination": [_destination(asked)],
        "source": {"name": "Modality worklist gateway", **_endpoint_of(asked, request)},
        "response": response,
    }
    return _bundle("message", [{"fullUrl": f"urn:uuid:{name}", "resource": header}, *entries], str(uuid5(name, code)))


def _destination(asked: Resource) -> dict[str, Any]:
    source = asked.get("source")
    known = ("name", "endpoint", "endpointUrl", "endpointReference")
    return {key: source[key] for key in known if key in source} if isinstance(source, Mapping) else {}


def _endpoint_of(asked: Resource, request: FHIRRequest) -> dict[str, Any]:
    """What the sender called us by: R4 asks for it."""
    places = asked.get("destination")
    first = places[0] if isinstance(places, list) and places and isinstance(places[0], Mapping) else {}
    if request.release is Release.R5:
        return {key: first[key] for key in ("endpointUrl", "endpointReference") if key in first}
    return {"endpoint": _text(first.get("endpoint")) or f"/fhir/{request.release.base}"}


def searchset(
    entries: Sequence[tuple[str, Resource, str]], links: Mapping[str, str], total: int | None, notes: Sequence[str] = ()
) -> Resource:
    """A page of a search: (fullUrl, resource, mode) of each, and the links by their relations. `notes` go last."""
    page: list[dict[str, Any]] = [
        {"fullUrl": full_url, "resource": resource, "search": {"mode": mode}} for full_url, resource, mode in entries
    ]
    if notes:
        page.append({"resource": outcome((), notes), "search": {"mode": "outcome"}})
    bundle: dict[str, Any] = {"resourceType": "Bundle", "type": "searchset"}
    if total is not None:
        bundle["total"] = total
    bundle["link"] = [{"relation": relation, "url": url} for relation, url in links.items()]
    return {**bundle, **({"entry": page} if page else {})}


def _bundle(type_: str, entries: Sequence[Resource], id_: str = "") -> Resource:
    named = {"id": id_} if id_ else {}
    return {"resourceType": "Bundle", **named, "type": type_, **({"entry": list(entries)} if entries else {})}


def _missing(where: str, text: str, hint: str) -> Refused:
    return Refused(Refusal(RefusalKind.MISSING_FIELD, where, text, hint))


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
