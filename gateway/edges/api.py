"""The HTTP API of the reconciliation desk and the queues: JSON, for programs on this machine.

There is no authentication yet, so it is served on loopback alone, and to peers on it; everywhere else every path
answers 403 and says why. A browser on this machine must not be led to it by another site's page (cross-site request
forgery, DNS rebinding): Host and Origin have to be loopback's, and what changes anything has to be JSON.

What is decided goes through the service's writer and is answered when it is on disk. Refusals are lists of kind, where,
text and hint.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Annotated, Any, Literal, TypeVar

import structlog
from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.domain.performed import Attention, MPPSState
from gateway.domain.problem import one_of
from gateway.domain.refusal import Refusal, RefusalKind, Refused
from gateway.edges.database import StoreError
from gateway.edges.desk import TO_BE_LOOKED_AT, Desk, scheduled_named
from gateway.edges.desk_views import (
    View,
    overdue_views,
    performed_view,
    proposal_views,
    queue_decision_view,
    queue_views,
    reconciled_view,
    refusal_view,
    whole_view,
)
from gateway.edges.own_site import loopback_fault
from gateway.edges.store import Store, StoreUnit
from gateway.edges.store_reader import StoreReader
from gateway.workflow import queue_decisions, reconcile
from gateway.workflow.ports import PerformedSearch
from gateway.workflow.proposals import proposals
from gateway.workflow.reconcile import By, Reconciled, held_step
from gateway.workflow.unscheduled import order_from

T = TypeVar("T")
_log = structlog.get_logger()

BODY_BYTES_MAX = 65_536
"""Longest body taken: thousands of step numbers."""

PAGE_MAX = 500
"""Most rows in one answer: some megabytes. `before` or `after` asks for the next ones."""

STATUSES: Mapping[RefusalKind, int] = {
    RefusalKind.NO_SUCH_INSTANCE: 404,
    RefusalKind.UNKNOWN_KEY: 404,
    RefusalKind.CONFLICT: 409,
    RefusalKind.STEP_CLOSED: 409,
    RefusalKind.TRANSIENT: 503,
    RefusalKind.INTERNAL: 500,
}
"""The HTTP status of a refusal; 422 for all others."""

_READING = frozenset({"GET", "HEAD"})


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    note: str = Field("", max_length=1000)
    """The person's reason, for the log."""


class LinkBody(_Body):
    steps: list[int | Annotated[str, Field(max_length=64)]] = Field([], max_length=64)
    """Numbers of scheduled steps, or SPS IDs."""
    accession: str = Field("", max_length=64)
    force: bool = False


class UnlinkBody(_Body):
    steps: list[int | Annotated[str, Field(max_length=64)]] = Field([], max_length=64)


class ReleaseBody(_Body):
    believed: bool = False


class SetAsideBody(_Body):
    bring_back: bool = False


class CloseBody(_Body):
    state: Literal["COMPLETED", "DISCONTINUED"]
    reason: str = Field("", max_length=16)


class OrderBody(_Body):
    pass


class KeepBody(_Body):
    pass


@dataclass(slots=True)
class DeskAPI:
    """What the API works on: the service's store, the desk as it is now, a clock, and who is told of new deliveries."""

    store: Store
    desk: Callable[[], Desk]
    now: Callable[[], datetime]
    wake: Callable[[], None] = lambda: None
    _reader: StoreReader | None = None
    _reading: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def read(self, question: Callable[[StoreReader], T]) -> T:
        """Ask the store in a thread, one question at a time: the event loop stays free (decision 10)."""
        async with self._reading:
            if self._reader is None:
                self._reader = self.store.open_reader()
            return await asyncio.to_thread(question, self._reader)

    async def decide(self, what: str, by: By, use_case: Callable[[StoreUnit], Reconciled]) -> View:
        """Do it, and say what came of it. Raises Refused."""
        done = await self.store.written(use_case)
        self.wake()
        _log.info("desk", action=what, performed=done.performed.sop_instance_uid, actor=by.actor)
        return await self.read(lambda reader: reconciled_view(reader, done))

    def by(self, request: Request, note: str = "") -> By:
        """Whoever says who it is, else its address."""
        address = request.client.host if request.client else ""
        return self.desk().by(request.headers.get("x-actor", "").strip() or address, self.now(), note)


def api(desk: DeskAPI, host: str, loopback: bool) -> ASGIApp:
    """The application, to be mounted. `loopback` says whether `host`, where the server listens, is reached from here
    alone; elsewhere the API is closed."""
    closed = "" if loopback else f"the API has no authentication, so it is closed while http.host is {host}"
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    _performed_steps(app, desk)
    _queues(app, desk)
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(StoreError, _unavailable)
    app.add_exception_handler(RequestValidationError, _invalid)
    return _Guard(app, closed)


# --- performed steps --------------------------------------------------------------------------------------------------


def _performed_steps(app: FastAPI, desk: DeskAPI) -> None:
    @app.get("/performed-steps")
    async def found(
        attention: Annotated[str, Query(max_length=32)] = "",
        state: MPPSState | None = None,
        caller: Annotated[str, Query(alias="from", max_length=16)] = "",
        patient: int | None = None,
        since: datetime | None = None,
        unfinished: bool = False,
        before: Annotated[str, Query(max_length=64)] = "",
        limit: Annotated[int, Query(ge=1, le=PAGE_MAX)] = 100,
    ) -> Any:
        here = desk.desk()
        if since is not None and since.tzinfo is None:
            since = since.replace(tzinfo=here.zone)
        until = desk.now() - here.unfinished_after if unfinished else None
        state = MPPSState.IN_PROGRESS if unfinished else state
        search = PerformedSearch(_attentions(attention), state, caller, patient, since=since, until=until)
        return await desk.read(
            lambda reader: [performed_view(each) for each in reader.performed_steps(search, limit, before)]
        )

    @app.get("/performed-steps/{uid}")
    async def one(uid: str) -> Any:
        def whole(reader: StoreReader) -> View:
            held_step(reader, uid)
            stored = reader.stored_performed(uid)
            return whole_view(reader, stored) if stored is not None else {}

        return await desk.read(whole)

    @app.get("/performed-steps/{uid}/proposals")
    async def proposed(uid: str) -> Any:
        return await desk.read(
            lambda reader: proposal_views(reader, proposals(reader, uid, desk.desk().issuers.registry))
        )

    @app.post("/performed-steps/{uid}/links")
    async def link(uid: str, body: LinkBody, request: Request) -> Any:
        by = desk.by(request, body.note)
        steps = await desk.read(lambda reader: scheduled_named(reader, body.steps, body.accession))
        use_case = partial(reconcile.link, uid=uid, step_ids=steps, by=by, force=body.force)
        return await desk.decide("link", by, use_case)

    @app.delete("/performed-steps/{uid}/links")
    async def unlink(uid: str, request: Request, body: UnlinkBody | None = None) -> Any:
        body = body or UnlinkBody()
        by = desk.by(request, body.note)
        steps = await desk.read(lambda reader: scheduled_named(reader, body.steps))
        return await desk.decide("unlink", by, partial(reconcile.unlink, uid=uid, by=by, step_ids=steps))

    @app.post("/performed-steps/{uid}/release")
    async def release(uid: str, request: Request, body: ReleaseBody | None = None) -> Any:
        body = body or ReleaseBody()
        by = desk.by(request, body.note)
        return await desk.decide("release", by, partial(reconcile.release, uid=uid, by=by, believed=body.believed))

    @app.post("/performed-steps/{uid}/set-aside")
    async def set_aside(uid: str, request: Request, body: SetAsideBody | None = None) -> Any:
        body = body or SetAsideBody()
        by = desk.by(request, body.note)
        what, use_case = ("bring back", reconcile.bring_back) if body.bring_back else ("set aside", reconcile.set_aside)
        return await desk.decide(what, by, partial(use_case, uid=uid, by=by))

    @app.post("/performed-steps/{uid}/close")
    async def close(uid: str, body: CloseBody, request: Request) -> Any:
        by = desk.by(request, body.note)
        use_case = partial(reconcile.close, uid=uid, state=MPPSState(body.state), by=by, reason=body.reason)
        return await desk.decide("close", by, use_case)

    @app.post("/performed-steps/{uid}/order")
    async def order(uid: str, request: Request, body: OrderBody | None = None) -> Any:
        by = desk.by(request, body.note if body else "")
        made: list[int | None] = []

        def use_case(unit: StoreUnit) -> Reconciled:
            new, done = order_from(unit, uid, by, desk.desk().circumstances(by))
            made.append(new.id)
            return done

        view = await desk.decide("order", by, use_case)
        return {"order": made[-1], **view}

    @app.get("/orders/overdue")
    async def overdue(
        after: Annotated[int, Query(ge=0)] = 0, limit: Annotated[int, Query(ge=1, le=PAGE_MAX)] = 100
    ) -> Any:
        before = desk.desk().overdue_before(desk.now())
        return await desk.read(lambda reader: overdue_views(reader, reader.overdue_steps(before, limit, after)))


def _attentions(said: str) -> frozenset[Attention]:
    if said == "any":
        return TO_BE_LOOKED_AT
    known = {each.value.replace(" ", "-"): each for each in Attention if each}
    if said and said not in known:
        raise Refused(Refusal(
            RefusalKind.BAD_VALUE, "attention", "is no reason to look at one", one_of(said, [*known, "any"])
        ))  # fmt: skip
    return frozenset({known[said]}) if said else frozenset()


# --- queues -----------------------------------------------------------------------------------------------------------


def _queues(app: FastAPI, desk: DeskAPI) -> None:
    def listed(reader: StoreReader) -> list[View]:
        return queue_views(reader, desk.desk().places, desk.now())

    async def keep(destination: str, held: bool, by: By) -> Any:
        known = [each["destination"] for each in await desk.read(listed)]
        if destination not in known:
            raise Refused(Refusal(
                RefusalKind.UNKNOWN_KEY, "destination", "there is no such destination", one_of(destination, known)
            ))  # fmt: skip
        await desk.store.written(lambda unit: queue_decisions.keep(unit, destination, held, by))
        desk.wake()
        _log.info("queue", destination=destination, held=held, actor=by.actor)
        return next(each for each in await desk.read(listed) if each["destination"] == destination)

    @app.get("/queues")
    async def queues() -> Any:
        return await desk.read(listed)

    @app.post("/queues/{destination}/hold")
    async def hold(destination: str, request: Request, body: KeepBody | None = None) -> Any:
        return await keep(destination, True, desk.by(request, body.note if body else ""))

    @app.post("/queues/{destination}/release")
    async def release(destination: str, request: Request, body: KeepBody | None = None) -> Any:
        return await keep(destination, False, desk.by(request, body.note if body else ""))

    @app.get("/queues/{destination}/decisions")
    async def decisions(destination: str, limit: Annotated[int, Query(ge=1, le=PAGE_MAX)] = 100) -> Any:
        return await desk.read(
            lambda reader: [queue_decision_view(each) for each in reader.queue_decisions(destination, limit)]
        )


# --- refusals ---------------------------------------------------------------------------------------------------------


def _answer(status: int, *refusals: Refusal) -> JSONResponse:
    return JSONResponse({"refusals": [refusal_view(each) for each in refusals]}, status_code=status)


async def _refused(_request: Request, error: Exception) -> JSONResponse:
    refusals = error.refusals if isinstance(error, Refused) else ()
    return _answer(max((STATUSES.get(each.kind, 422) for each in refusals), default=500), *refusals)


async def _unavailable(_request: Request, _error: Exception) -> JSONResponse:
    return _answer(
        503, Refusal(RefusalKind.TRANSIENT, "", "the store cannot be read or written now", "ask again later")
    )  # fmt: skip


async def _invalid(_request: Request, error: Exception) -> JSONResponse:
    """What pydantic says, without the values that it quotes (design D15)."""
    found = error.errors() if isinstance(error, RequestValidationError) else ()
    return _answer(422, *(_invalid_at(each) for each in found))


def _invalid_at(error: Mapping[str, Any]) -> Refusal:
    where = ".".join(str(each) for each in error["loc"] if isinstance(each, int) or each.isidentifier())
    text = str(error["msg"]) if error["type"] != "json_invalid" else "is no JSON"
    return Refusal(RefusalKind.BAD_VALUE, where, text, "see the reconciliation how-to")


# --- who may call -----------------------------------------------------------------------------------------------------


class _Guard:
    """Lets in what comes from this machine and means this server, and no more of a body than is taken."""

    def __init__(self, app: ASGIApp, closed: str) -> None:
        self._app = app
        self._closed = closed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        status, text, hint = self._objection(scope, headers)
        if status:
            kind = RefusalKind.NOT_AUTHORISED if status == 403 else RefusalKind.UNSUPPORTED_TYPE
            await _answer(status, Refusal(kind, "", text, hint))(scope, receive, send)
            return
        body = await _body(receive)
        if body is None:
            too_long = Refusal(RefusalKind.TOO_LONG, "", f"the body is longer than {BODY_BYTES_MAX} bytes", "send less")
            await _answer(413, too_long)(scope, receive, send)
            return
        await self._app(scope, _replayed(body, receive), send)

    def _objection(self, scope: Scope, headers: Mapping[str, str]) -> tuple[int, str, str]:
        """Status, text and hint of what speaks against answering; 0 where nothing does."""
        client = scope.get("client")
        if self._closed:
            return 403, self._closed, "let it listen on 127.0.0.1, or use the command line"
        fault = loopback_fault(client[0] if client else None, headers)
        if fault is not None:
            return 403, fault.text, fault.hint
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        if scope["method"] not in _READING and kind != "application/json":
            return 415, "what changes anything has to be JSON", "send Content-Type: application/json"
        return 0, "", ""


async def _body(receive: Receive) -> bytes | None:
    """The whole body; None where it is longer than is taken."""
    body = b""
    while True:
        message = await receive()
        body += bytes(message.get("body", b""))
        if len(body) > BODY_BYTES_MAX:
            return None
        if message["type"] != "http.request" or not message.get("more_body"):
            return body


def _replayed(body: bytes, receive: Receive) -> Callable[[], Awaitable[Message]]:
    """Gives the body that was read, and then whatever else the server says."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
