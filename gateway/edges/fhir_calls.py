"""One request to our FHIR server: who asks, what its headers ask for, its body; and what the server works on.

What may live here: what handlers are given, and how they say that something cannot be done. The handlers are those of
`fhir_handlers`.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, TypeVar
from urllib.parse import parse_qs, unquote_plus

from starlette.requests import Request

from gateway.domain.refusal import Refusal, RefusalKind, Refused
from gateway.domain.resources import Resource
from gateway.edges.fhir_bodies import UNAVAILABLE, Bodies, BodiesUnavailable, Understood
from gateway.edges.fhir_door import Authorised, Knock, TurnedAway
from gateway.edges.smart_tokens import TokenAnswer
from gateway.edges.store_reader import StoreReader
from gateway.fhir_settings import FHIRLimitsSettings
from gateway.wire.fhir_bounds import Bounds
from gateway.wire.fhir_bundle import Answer
from gateway.wire.fhir_interactions import FHIRRequest, Interaction, Kind
from gateway.wire.fhir_negotiation import (
    Preference,
    Sent,
    Wanted,
    sent,
    wanted,
)
from gateway.wire.fhir_release import Release
from gateway.workflow.fhir_rehearsal import Rehearsal

T = TypeVar("T")


class Heard(Protocol):
    """What becomes of a notification: an HTTP status, and what is wrong with it."""

    @property
    def status(self) -> int: ...

    @property
    def refusals(self) -> Sequence[Refusal]: ...


class Hook(Protocol):
    """Who follows another FHIR server that notifies us, in `release`; `client` is the client of ours that it may also
    prove itself as, '' for none."""

    @property
    def release(self) -> Release: ...

    @property
    def client(self) -> str: ...

    def knows(self, authorization: str) -> bool:
        """Whether it comes with the secret that was agreed on."""

    async def notified(self, body: Resource | None, named: str = "") -> Heard:
        """Take it; `named` is the reference in its address."""


IN_HAND_BYTES_MAX = 128 * 1_048_576
"""Bodies that are worked on at the same time; whoever comes then gets 503. A parsed body takes ten times its length."""
SHARE_BYTES_MAX = IN_HAND_BYTES_MAX // 2
"""Of these by one client."""

READERS_MAX = 3
"""Questions to the store at the same time: one that takes long leaves room for those that do not."""


class Room:
    """How much of bodies is here, and whose it is. What has not arrived takes no room."""

    def __init__(self) -> None:
        self._of: dict[str, int] = {}

    def take(self, client: str, length: int, taken: int = 0) -> bool:
        """Whether there is room for so much more of a body, of which `taken` is here. One that is alone always fits."""
        whole, own = sum(self._of.values()), self._of.get(client, 0)
        if whole > taken and whole + length > IN_HAND_BYTES_MAX:
            return False
        if own > taken and own + length > SHARE_BYTES_MAX:
            return False
        self._of[client] = own + length
        return True

    def give_back(self, client: str, length: int) -> None:
        """This much of that client's is done with."""
        left = self._of.get(client, 0) - length
        if left > 0:
            self._of[client] = left
        else:
            self._of.pop(client, None)


class Entrance(Protocol):
    """Who asks, and whether it may: `fhir_door.Door`."""

    def admit(self, knock: Knock) -> Authorised | TurnedAway:
        """Who asks, or why it is not answered."""

    def forbidden(self, knock: Knock, who: Authorised, resource_type: str, letters: str) -> TurnedAway | None:
        """Why this may not be done; None: it may."""

    def notifier(self, knock: Knock, knows: Callable[[str], bool] | None, client: str) -> TurnedAway | None:
        """Why a notification of another server is not taken; None: it is."""

    async def token(self, knock: Knock, body: bytes) -> TokenAnswer:
        """The answer to a token request."""

    def configuration(self, knock: Knock) -> dict[str, Any]:
        """`.well-known/smart-configuration`."""

    def base_of(self, knock: Knock) -> str:
        """The address of /fhir as the settings have it, else as the caller knows it."""


@dataclass(frozen=True, slots=True)
class Done:
    """One request that was answered, for who counts and logs: of what its sender wrote only words that we know.

    `interaction` is one of a fixed list, `type` one that is served or '', `client` its name in the settings, '' where
    it was not let in. `issues` are the codes of what was refused, in a Bundle those of its entries.
    """

    interaction: str
    type: str
    release: Release
    client: str
    status: int
    issues: tuple[str, ...]
    seconds: float


@dataclass(slots=True)
class FHIRServer:
    """What the server works on. `process` and `refuse` never raise, and archive what they are given; `rehearse` says
    what would come of a request, leaves nothing behind, and never raises either.

    `release` and `limits` are asked at each request: they follow the settings.
    """

    process: Callable[[FHIRRequest], Awaitable[Answer]]
    refuse: Callable[[FHIRRequest, Sequence[Refusal]], Awaitable[Answer]]
    rehearse: Callable[[FHIRRequest], Awaitable[Rehearsal]]
    open_reader: Callable[[], StoreReader]
    door: Entrance
    release: Callable[[], Release]
    limits: Callable[[], FHIRLimitsSettings]
    hook: Callable[[str], Hook | None] = lambda feed: None
    """Who follows the server that this feed is of."""
    observe: Callable[[Done], None] = lambda done: None
    """Told of each request when it is answered."""
    bodies: Bodies = field(default_factory=Bodies)
    room: Room = field(default_factory=Room)
    _idle: list[StoreReader] = field(default_factory=list)
    _reading: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(READERS_MAX))

    async def read(self, question: Callable[[StoreReader], T]) -> T:
        """Ask the store in a thread, a few questions at a time: the event loop stays free (design D3b)."""
        async with self._reading:
            reader = self._idle.pop() if self._idle else await asyncio.to_thread(self.open_reader)
            asking = asyncio.ensure_future(asyncio.to_thread(question, reader))

            def asked(done: asyncio.Future[T]) -> None:  # also where nobody waits for it any more
                self._idle.append(reader)
                if not done.cancelled():
                    done.exception()

            asking.add_done_callback(asked)
            return await asyncio.shield(asking)


@dataclass(slots=True)
class Call:
    """One request: what its headers ask for, and who asks."""

    server: FHIRServer
    request: Request
    release: Release
    base: str
    """The address of this base, as the caller knows it."""
    knock: Knock
    who: Authorised
    wanted: Wanted
    preference: Preference
    body: bytes = b""

    def header(self, name: str) -> str:
        """The value of a header, '' where it is not sent."""
        return self.request.headers.get(name, "")

    @property
    def type(self) -> str:
        """The type of resources that the address names, '' for none."""
        return str(self.request.path_params.get("type", ""))

    @property
    def id(self) -> str:
        """The id that the address names, '' for none."""
        return str(self.request.path_params.get("id", ""))

    @property
    def query(self) -> str:
        """The search in the address, without what is for the format of the answer."""
        return without_format(self.knock.query)

    @property
    def event(self) -> str:
        """What the archive calls it."""
        return f"{self.request.method} {self.type}".strip()

    def want(self, form: str) -> None:
        """Answer as a form asks for, where it does. Raises Faulty: 406."""
        said = parse_qs(form)
        if "_format" in said or "_pretty" in said:
            form_said, pretty = said.get("_format", [""])[-1], said.get("_pretty", [""])[-1]
            try:
                self.wanted = wanted(self.header("accept"), form_said, pretty, self.release)
            except Refused as refused:
                raise Faulty(406, refused.refusals[0]) from None
            self.request.state.wanted = self.wanted

    def permit(self, type_: str, letters: str) -> None:
        """Raises Turned where that may not be done."""
        turned = self.server.door.forbidden(self.knock, self.who, type_, letters)
        if turned is not None:
            raise Turned(turned)


Handler = Callable[[Call], Awaitable[Answer]]


class Turned(Exception):  # noqa: N818  (reads as what happened)
    """Carries what the door says out of a handler."""

    def __init__(self, turned: TurnedAway) -> None:
        self.turned = turned
        super().__init__(str(turned.status))


class Faulty(Exception):  # noqa: N818  (reads as what happened)
    """Carries a refusal of HTTP's own out, with its status."""

    def __init__(self, status: int, refusal: Refusal, headers: Mapping[str, str] | None = None) -> None:
        self.status, self.refusal, self.headers = status, refusal, headers or {}
        super().__init__(str(status))


class Answered(Exception):  # noqa: N818  (reads as what happened)
    """Carries the answer out of a handler: what came was refused, and is archived."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        super().__init__(str(answer.status))


def faulty(status: int, kind: RefusalKind, where: str, text: str, hint: str) -> Faulty:
    """A refusal of HTTP's own."""
    return Faulty(status, Refusal(kind, where, text, hint))


def without_format(query: str) -> str:
    """A query string without what is for the format of the answer."""
    return "&".join(each for each in query.split("&") if each and not _is_of_format(each))


def format_alone(query: str) -> str:
    """What of a query string is for the format of the answer."""
    return "&".join(each for each in query.split("&") if _is_of_format(each))


def _is_of_format(said: str) -> bool:
    return unquote_plus(said.partition("=")[0]) in ("_format", "_pretty")


# --- bodies -----------------------------------------------------------------------------------------------------------


def sent_as(call: Call) -> Sent:
    """What the body is. Raises Faulty: 415."""
    try:
        return sent(call.header("content-type"), call.release)
    except Refused as refused:
        raise Faulty(415, refused.refusals[0]) from None


async def understood(call: Call, *, check: bool = True) -> Understood:
    """The resource in the body, with what is wrong in it. Raises Faulty where it is nothing that can be read."""
    form = sent_as(call)
    if form not in (Sent.JSON, Sent.XML):
        raise faulty(415, RefusalKind.UNSUPPORTED_TYPE, "Content-Type", "is no resource",
                      "send application/fhir+json or application/fhir+xml")  # fmt: skip
    limits = call.server.limits()
    bounds = Bounds(limits.body_bytes_max, limits.depth_max, limits.entries_max)
    try:
        return await call.server.bodies.understood(call.body, form, call.release, bounds, check)
    except BodiesUnavailable:
        raise Faulty(503, UNAVAILABLE) from None


async def resource_of(call: Call) -> tuple[Resource, tuple[str, ...]]:
    """The resource in the body, and remarks on it. Raises Answered where it is refused, when that is archived."""
    said = await understood(call)
    if said.resource is None or said.refusals:
        raise Answered(await refuse(call, said.refusals))
    return said.resource, tuple(said.notes)


async def with_resource(call: Call, aimed: Interaction) -> Interaction:
    """The interaction with the resource in the body. Raises Answered where that is refused, when it is archived."""
    said = await understood(call)
    if said.resource is None:
        raise Answered(await refuse(call, said.refusals))
    whole = replace(aimed, resource=said.resource, notes=tuple(said.notes))
    if said.refusals:
        raise Answered(await refuse(call, said.refusals, whole))
    return whole


async def refuse(call: Call, refusals: Sequence[Refusal], asked: Interaction | None = None) -> Answer:
    """Refuse what came, and keep it. `asked` is what it asked for, as far as that could be read."""
    request = FHIRRequest(
        Kind.SINGLE, call.release.base, call.release, (asked,) if asked is not None else (), call.body,
        call.knock.peer, call.who.client, event=call.event, base=call.base,
    )  # fmt: skip
    return await call.server.refuse(request, refusals)
