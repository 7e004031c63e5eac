"""Our FHIR server over HTTP: below /fhir the configured release, below /fhir/r4, /fhir/r4b and /fhir/r5 each of them.

What may live here: the routes, what is looked at before anything is parsed, and from an answer back to HTTP. Who may
ask is the door's (`fhir_door`), what headers mean `fhir_negotiation`'s, what is done `fhir_handlers`'. Every refusal is
an OperationOutcome in the format that was asked for.

A body that is too long is read to its end and forgotten, so that its sender can read why. Nothing of a request is
logged here: its address may hold patient data.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import NamedTuple
from urllib.parse import parse_qs

import structlog
from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Match
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.domain.problem import one_of
from gateway.domain.refusal import Refusal, RefusalKind, Refused
from gateway.edges import fhir_handlers, fhir_hooks, fhir_openapi, fhir_operations, fhir_validate
from gateway.edges.database import StoreError, StoreTooSlow
from gateway.edges.fhir_calls import Answered, Call, Done, Faulty, FHIRServer, Handler, Room, Turned, faulty
from gateway.edges.fhir_door import Authorised, Knock, TurnedAway
from gateway.wire import fhir_capability
from gateway.wire.fhir_bundle import Answer
from gateway.wire.fhir_negotiation import Wanted, preference, request_id, wanted
from gateway.wire.fhir_outcome import error_codes, http_status, outcome
from gateway.wire.fhir_references import ID
from gateway.wire.fhir_release import Release

__all__ = ["FHIRServer", "fhir"]

_log = structlog.get_logger()

BODY_S = 60
"""Seconds in which a body has to be here: 16 MB at 2 Mbit/s."""

SLOW_AFTER_S, LEAST_BYTES_PER_S = 10, 4_096
"""A body that comes slower than this on average, after so many seconds, is not waited for."""

DRAINED_TIMES = 4
"""How many times the longest body taken is read of one that is longer, so that its sender reads the answer."""

RETRY_AFTER_S = 5
"""What senders are told to wait where the store or room is away: most troubles of a disk take longer, or are over."""

QUERY_CHARACTERS_MAX = 8_192
"""Longest query string taken, as most servers have it; longer ones go by POST _search."""

PREFIX = "/fhir"
_BASES: Mapping[str, Release] = {release.base: release for release in Release}
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})


class _Route(NamedTuple):
    """One thing that is served. What is described are its parameters, body and the statuses of its good answers."""

    method: str
    path: str
    handler: Handler
    summary: str
    parameters: Sequence[str] = ()
    body: str = ""
    statuses: Sequence[int] = (200,)


_ROUTES = (
    _Route("POST", "/", fhir_handlers.base, "transaction, batch or document", ("Prefer",), "bundle"),
    _Route("GET", "/", fhir_handlers.search, "a search names a type"),
    _Route("POST", "/$process-message", fhir_handlers.process_message, "message", (), "bundle"),
    _Route("POST", "/$validate", fhir_validate.validate, "say what would come of it", ("mode",), "resource"),
    _Route("POST", "/Bundle/$validate", fhir_validate.validate, "say what would come of a Bundle", ("mode",), "bundle"),
    _Route("POST", "/{type}/$validate", fhir_validate.validate, "say what would come of it", ("type", "mode"),
           "resource"),
    _Route("POST", "/{type}/{id}/$validate", fhir_validate.validate, "say what would come of a change",
           ("type", "id", "mode"), "resource"),
    _Route("POST", "/{type}/_search", fhir_handlers.search, "search, parameters in a form", ("type",), "form"),
    _Route("GET", "/{type}", fhir_handlers.search, "search", ("type", "identifier", "_count", "Prefer")),
    _Route("POST", "/{type}", fhir_handlers.create, "create", ("type", "If-None-Exist", "Prefer"), "resource",
           (200, 201)),
    _Route("PUT", "/{type}", fhir_handlers.update, "update what a search finds, or create",
           ("type", "identifier", "If-Match", "Prefer"), "resource", (200, 201)),
    _Route("PATCH", "/{type}", fhir_handlers.patch, "patch what a search finds",
           ("type", "identifier", "If-Match", "Prefer"), "patch"),
    _Route("DELETE", "/{type}", fhir_handlers.delete, "delete what a search finds", ("type", "identifier", "If-Match"),
           "", (200, 204)),
    _Route("GET", "/{type}/_history", fhir_handlers.history, "no history is kept", ("type",)),
    _Route("GET", "/{type}/{id}/$status", fhir_operations.status, "how a subscription stands", ("type", "id")),
    _Route("POST", "/{type}/{id}/$status", fhir_operations.status, "how a subscription stands", ("type", "id"),
           "resource"),
    _Route("GET", "/{type}/{id}/$events", fhir_operations.events, "what a subscription was told", ("type", "id")),
    _Route("POST", "/{type}/{id}/$events", fhir_operations.events, "what a subscription was told", ("type", "id"),
           "resource"),
    _Route("GET", "/{type}/{id}/_history/{version}", fhir_handlers.vread, "read this version, if it is the current one",
           ("type", "id", "version")),
    _Route("GET", "/{type}/{id}/_history", fhir_handlers.history, "no history is kept", ("type", "id")),
    _Route("GET", "/{type}/{id}", fhir_handlers.read, "read", ("type", "id", "If-None-Match"), "", (200, 304)),
    _Route("PUT", "/{type}/{id}", fhir_handlers.update, "update, or create with this id",
           ("type", "id", "If-Match", "Prefer"), "resource", (200, 201)),
    _Route("PATCH", "/{type}/{id}", fhir_handlers.patch, "patch", ("type", "id", "If-Match", "Prefer"), "patch"),
    _Route("DELETE", "/{type}/{id}", fhir_handlers.delete, "delete", ("type", "id", "If-Match"), "", (200, 204)),
)  # fmt: skip
"""All that needs to be admitted, first those that others would take for a type or id."""


def fhir(server: FHIRServer, version: str) -> ASGIApp:
    """The application; it is given whole paths (/fhir/r4/Patient). `version` is that of the software."""
    app = FastAPI(
        title="FHIR server of the modality worklist gateway", version=version, docs_url=None, redoc_url=None,
        openapi_url=None, redirect_slashes=False,
    )  # fmt: skip
    _open_routes(app, server, version)
    _hook_routes(app, server)
    for route in _ROUTES:
        _add(app, server, route)
    app.add_exception_handler(HTTPException, partial(_no_route, app, server))
    return _Front(app, server)


class _Front:
    """Chooses the base, so that the routes are the same below each."""

    def __init__(self, app: ASGIApp, server: FHIRServer) -> None:
        self._app, self._server = app, server

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        path: str = scope["path"].removeprefix(PREFIX).strip("/")
        first, _, rest = path.partition("/")
        release, suffix = (_BASES[first], f"/{first}") if first in _BASES else (self._server.release(), "")
        state = {**scope.get("state", {}), "release": release, "suffix": suffix}
        await self._app(
            {**scope, "path": f"/{rest if suffix else path}", "root_path": "", "state": state}, receive, send
        )  # fmt: skip


def _open_routes(app: FastAPI, server: FHIRServer, version: str) -> None:
    """What is there for everybody: it holds no patient data, and says how to be admitted."""
    since = datetime.now(UTC).isoformat(timespec="seconds")

    @app.api_route("/metadata", methods=["GET", "HEAD"], include_in_schema=False)
    async def metadata(request: Request) -> Response:
        release = request.state.release
        said = partial(fhir_capability.statement, release, _base(server, request), since, version)
        try:
            how = _wanted(request, release)
        except Refused as refused:
            return await _rendered(server, request, Wanted(), Answer(406, {}, outcome(refused.refusals)))
        return await _rendered(server, request, how, Answer(200, {}, await asyncio.to_thread(said)))

    @app.get("/.well-known/smart-configuration", include_in_schema=False)
    async def configuration(request: Request) -> Response:
        return JSONResponse(server.door.configuration(Knock.of(request.scope)))

    @app.post("/token", include_in_schema=False)
    async def token(request: Request) -> Response:
        try:
            body = await _body(request, _TOKEN_BYTES_MAX)
        except Faulty as fault:
            return JSONResponse({"error": "invalid_request", "error_description": fault.refusal.text}, fault.status)
        given = await server.door.token(Knock.of(request.scope), body)
        return Response(given.body, given.status, given.headers)

    @app.get("/openapi.json", include_in_schema=False)
    async def openapi(request: Request) -> Response:
        return JSONResponse({**app.openapi(), "servers": [{"url": _base(server, request)}]})


def _hook_routes(app: FastAPI, server: FHIRServer) -> None:
    """Where other servers notify us: described nowhere, and opened by what was agreed on with each."""

    async def endpoint(request: Request) -> Response:
        return await _served(server, request, fhir_hooks.notified, partial(fhir_hooks.admit, server))

    for path, methods in fhir_hooks.ROUTES.items():
        app.add_api_route(path, endpoint, methods=list(methods), include_in_schema=False, response_model=None)


_TOKEN_BYTES_MAX = 65_536  # an assertion with a chain of certificates in its header has ten thousand


def _add(app: FastAPI, server: FHIRServer, route: _Route) -> None:
    async def endpoint(request: Request) -> Response:
        return await _served(server, request, route.handler)

    named = f"{route.method.lower()}_{route.path}".translate(str.maketrans("/{}$", "____")).strip("_")
    described = fhir_openapi.described(route.summary, route.parameters, route.body, route.statuses)
    app.add_api_route(
        route.path, endpoint, methods=[route.method], operation_id=named, openapi_extra=described,
        response_class=Response, response_model=None,
    )  # fmt: skip
    if route.method == "GET":
        app.add_api_route(route.path, endpoint, methods=["HEAD"], include_in_schema=False, response_model=None)


async def _no_route(app: FastAPI, server: FHIRServer, request: Request, error: Exception) -> Response:
    """What is not served, or not by this method; OPTIONS is answered with the methods."""
    allowed = sorted({
        method for route in app.router.routes
        for method in getattr(route, "methods", None) or ()
        if route.matches({**request.scope, "method": method})[0] is Match.FULL
    })  # fmt: skip
    if allowed and request.method == "OPTIONS":
        return Response(status_code=204, headers={"Allow": ", ".join([*allowed, "OPTIONS"])})
    how = _wanted_or_plain(request)
    if not allowed:
        refusal = Refusal(RefusalKind.UNSUPPORTED_TYPE, "", "nothing is served at this address",
                          "see /metadata below the base for what is")  # fmt: skip
        return await _rendered(server, request, how, Answer(404, {}, outcome([refusal])))
    refusal = Refusal(RefusalKind.UNSUPPORTED_EVENT, "", f"{request.method} is not taken here",
                      f"use {' or '.join(allowed)}")  # fmt: skip
    headers = {"Allow": ", ".join(allowed)}
    return await _rendered(server, request, how, Answer(405, headers, outcome([refusal])))


# --- one request ------------------------------------------------------------------------------------------------------


Admit = Callable[[Request, Knock], Authorised | TurnedAway]

_INTERACTIONS: Mapping[Handler, str] = {
    fhir_handlers.base: "bundle", fhir_handlers.process_message: "message", fhir_hooks.notified: "notification",
}  # fmt: skip
"""What metrics and log call those handlers whose names do not say it."""


async def _served(server: FHIRServer, request: Request, handler: Handler, admit: Admit | None = None) -> Response:
    began = time.perf_counter()
    response, issues = await _answered(server, request, handler, admit)
    type_, release = str(request.path_params.get("type", "")), request.state.release
    server.observe(Done(
        _INTERACTIONS.get(handler) or handler.__name__, type_ if fhir_capability.is_served(type_, release) else "",
        release, getattr(request.state, "client", ""), response.status_code, issues, time.perf_counter() - began,
    ))  # fmt: skip
    return response


async def _answered(
    server: FHIRServer, request: Request, handler: Handler, admit: Admit | None
) -> tuple[Response, tuple[str, ...]]:  # fmt: skip
    """The answer, and the codes of what it refuses."""
    how = _wanted_or_plain(request)
    try:
        done = await _done(server, request, how, handler, admit or (lambda _, knock: server.door.admit(knock)))
    except ClientDisconnect:
        return Response(status_code=400), ()  # nobody reads it
    how = getattr(request.state, "wanted", how)
    issues = error_codes(done.body)
    try:
        return await _rendered(server, request, how, done), issues
    except Exception as error:  # there are words for everything but for what cannot be written
        _log.error("fhir_answer_failed", method=request.method, exc_info=error)
        return await _rendered(server, request, Wanted(), Answer(500, {}, outcome([_FAILED]))), issues


async def _done(server: FHIRServer, request: Request, how: Wanted, handler: Handler, admit: Admit) -> Answer:
    """Never raises, but ClientDisconnect."""
    arriving: _Arriving | None = None
    try:
        knock = Knock.of(request.scope)
        who = admit(request, knock)
        if isinstance(who, TurnedAway):
            raise Turned(who)
        request.state.client = who.client
        _look_at_address(request, knock)
        try:
            _wanted(request, request.state.release)
        except Refused as refused:
            raise Faulty(406, refused.refusals[0]) from None
        call = Call(
            server, request, request.state.release, _base(server, request), knock, who, how,
            preference(", ".join(request.headers.getlist("prefer"))),
        )  # fmt: skip
        if request.method in _WITH_BODY:
            arriving = _Arriving(server.room, who.client)
            call.body = await _body(request, server.limits().body_bytes_max, arriving.more)
        return await handler(call)
    except ClientDisconnect:
        raise
    except Turned as error:
        return Answer(error.turned.status, error.turned.headers, outcome([error.turned.refusal]))
    except Faulty as error:
        return Answer(error.status, error.headers, outcome([error.refusal]))
    except Answered as error:
        return error.answer
    except Refused as error:
        return Answer(http_status(error.refusals), {}, outcome(error.refusals))
    except StoreTooSlow:
        slow = Refusal(RefusalKind.UNUSABLE_QUERY, "", "looking for that takes too long",
                       "ask for less: by patient, identifier or date, and not by :contains")  # fmt: skip
        return Answer(400, {}, outcome([slow]))
    except StoreError:
        away = Refusal(RefusalKind.TRANSIENT, "", "the store cannot be read now", "ask again later")
        return Answer(503, {}, outcome([away]))
    except Exception as error:
        _log.error("fhir_request_failed", method=request.method, exc_info=error)
        return Answer(500, {}, outcome([_FAILED]))
    finally:
        if arriving is not None:
            arriving.done()


class _Arriving:
    """The room that one body takes, as it arrives."""

    def __init__(self, room: Room, client: str) -> None:
        self._room, self._client, self._taken = room, client, 0

    def more(self, length: int) -> None:
        """So much more of it is here. Raises Faulty where there is no room."""
        if not self._room.take(self._client, length, self._taken):
            raise faulty(503, RefusalKind.TRANSIENT, "", "too much is being worked on", "send it again later")
        self._taken += length

    def done(self) -> None:
        """Nobody needs it any more."""
        self._room.give_back(self._client, self._taken)


_FAILED = Refusal(
    RefusalKind.INTERNAL, "", "the gateway could not process this request", "tell the gateway's operator"
)  # fmt: skip


def _look_at_address(request: Request, knock: Knock) -> None:
    """Raises Faulty where the address is none of ours."""
    if len(knock.query) > QUERY_CHARACTERS_MAX:
        raise faulty(414, RefusalKind.TOO_LONG, "", f"the query is longer than {QUERY_CHARACTERS_MAX} characters",
                     "search by POST to _search")  # fmt: skip
    type_, id_ = request.path_params.get("type", ""), request.path_params.get("id", "")
    if type_ and not fhir_capability.is_served(type_, request.state.release):
        raise faulty(404, RefusalKind.UNSUPPORTED_TYPE, "", "resources of this type are not served",
                     one_of(type_[:64], list(fhir_capability.SERVED)))  # fmt: skip
    if id_ and not ID.fullmatch(id_):
        raise faulty(404 if request.method not in _WITH_BODY else 400, RefusalKind.BAD_VALUE, "",
                     "this is no id", "an id has up to 64 letters, digits, dots and hyphens")  # fmt: skip


def _base(server: FHIRServer, request: Request) -> str:
    return f"{server.door.base_of(Knock.of(request.scope))}{request.state.suffix}"


def _wanted(request: Request, release: Release) -> Wanted:
    """Raises Refused."""
    said = parse_qs(request.scope.get("query_string", b"").decode("latin-1"))
    form, pretty = said.get("_format", [""])[-1], said.get("_pretty", [""])[-1]
    return wanted(", ".join(request.headers.getlist("accept")), form, pretty, release)


def _wanted_or_plain(request: Request) -> Wanted:
    try:
        return _wanted(request, request.state.release)
    except Refused:
        return Wanted()


async def _body(request: Request, bytes_max: int, more: Callable[[int], None] = lambda _: None) -> bytes:
    """The whole body; `more` is told of what is kept of it. Raises Faulty or ClientDisconnect, and what `more` does."""
    coding = request.headers.get("content-encoding", "").strip().lower()
    parts: list[bytes] = []
    length = 0
    clock = asyncio.get_running_loop().time
    began = clock()
    try:
        async with asyncio.timeout(BODY_S):
            async for part in request.stream():
                length += len(part)
                so_far_s = clock() - began
                if so_far_s > SLOW_AFTER_S and length < so_far_s * LEAST_BYTES_PER_S:
                    raise TimeoutError
                if length <= bytes_max and coding in ("", "identity"):
                    more(len(part))
                    parts.append(part)
                elif length > bytes_max * DRAINED_TIMES:
                    break
    except TimeoutError:
        raise faulty(408, RefusalKind.TRANSIENT, "", f"the body comes too slowly, or was not here within {BODY_S} s",
                     "send it again, faster") from None  # fmt: skip
    if coding not in ("", "identity"):
        raise faulty(415, RefusalKind.UNSUPPORTED_TYPE, "Content-Encoding", "compressed bodies are not taken",
                     "send it as it is")  # fmt: skip
    if length > bytes_max:
        raise faulty(413, RefusalKind.TOO_LONG, "", f"the body is longer than {bytes_max} bytes",
                     "send less at once; fhir.limits of the gateway says how much")  # fmt: skip
    return b"".join(parts)


# --- answers ----------------------------------------------------------------------------------------------------------


NOTES_TOLD_MAX = 8
NOTE_CHARACTERS_MAX = 300
"""Remarks beside a resource go by a header, of which most servers and proxies take eight thousand characters in all."""


def _header_text(notes: Sequence[str]) -> str:
    """Remarks on one line of visible ASCII, semicolons between; Prefer: return=OperationOutcome gets them whole."""
    texts = [" ".join(each.split())[:NOTE_CHARACTERS_MAX] for each in notes[:NOTES_TOLD_MAX]]
    return "; ".join(texts).encode("ascii", "backslashreplace").decode()


async def _rendered(server: FHIRServer, request: Request, how: Wanted, done: Answer) -> Response:
    release: Release = request.state.release
    headers = {"Cache-Control": "no-store", "Vary": "Accept, Authorization", **done.headers}
    if location := headers.get("Location"):
        headers["Location"] = f"{_base(server, request)}/{location}"
    if done.status in (429, 503):
        headers.setdefault("Retry-After", str(RETRY_AFTER_S))
    if done.notes and (done.body is None or done.body.get("resourceType") != "OperationOutcome"):
        headers["X-Note"] = _header_text(done.notes)
    if named := request_id(request.headers.get("x-request-id", "")):
        headers["X-Request-Id"] = named
    if done.body is None or done.status in (204, 304):
        return Response(status_code=done.status, headers=headers)
    data = await server.bodies.written(done.body, how.format, release, how.pretty)
    return Response(data, done.status, headers, how.media_type(release))
