"""Resources of another FHIR server are taken: those that are new to us, with what they refer to, in one request.

What may live here: from resources that were found to requests for `fhir_processing`, with the ids that they have there.
One that is refused keeps no other one back, and is not taken again before it is another version. When something is
looked for, and how far, is `fhir_following`'s.
"""

import asyncio
import json
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar

import structlog

from gateway.domain.refusal import Refusal
from gateway.domain.resources import Resource, ResourceKey
from gateway.edges.fhir_client import FHIRClient, FHIRClientError
from gateway.edges.store import Store
from gateway.edges.store_reader import StoreReader
from gateway.fhir_processing import rank
from gateway.fhir_settings import FHIRFeedSettings
from gateway.wire import fhir_json, fhir_models, fhir_references
from gateway.wire.fhir_bundle import Answer
from gateway.wire.fhir_interactions import FHIRRequest, Interaction, Kind, Verb

FOLLOWED = frozenset(
    {"Patient", "Encounter", "Practitioner", "PractitionerRole", "Organization", "Location", "ServiceRequest", "Task",
     "Appointment", "AllergyIntolerance", "Observation", "Condition", "Flag", "Device", "ImagingStudy"}
)  # fmt: skip
"""Types of resources that are taken, and fetched when something refers to them."""

ROUNDS_MAX = 3
"""From a request over a role and its practitioner to an organization."""
REFERENCES_MAX = 500
"""Resources fetched one by one for one page; what is beyond waits for whatever refers to it next."""
TOGETHER_MAX = 500
"""Resources of one request: nobody else writes while it is done."""
FETCHED_AT_ONCE = 4
"""Requests that a server gets from us at the same time."""
STUBBORN_TRIES = 3
"""How often a look fails because one thing that something refers to is not given in time, while pages are: then it is
taken as absent. One such resource would keep every later order back."""
ABSENT_MAX, ABSENT_S = 10_000, 3_600.0
"""What could not be had, and is not asked for again for so long."""
REFUSED_MAX = 10_000
"""Versions of resources that were refused and are known to be."""

Take = Callable[[FHIRRequest], Awaitable[Answer]]
Refuse = Callable[[FHIRRequest, Sequence[Refusal]], Awaitable[Answer]]

_log = structlog.get_logger()
_K = TypeVar("_K")
_V = TypeVar("_V")


class NotNow(Exception):  # noqa: N818  (reads as what happened)
    """Something could not be stored: whoever looked goes on from there the next time."""


class Version(NamedTuple):
    """A resource as it was at one time; `stamp` is its versionId, or meta.lastUpdated where it has none."""

    reference: str
    stamp: str


class _Last(OrderedDict[_K, _V], Generic[_K, _V]):
    """The last so many of something."""

    def __init__(self, longest: int) -> None:
        super().__init__()
        self._longest = longest

    def __setitem__(self, key: _K, value: _V) -> None:
        super().__setitem__(key, value)
        self.move_to_end(key)
        while len(self) > self._longest:
            self.popitem(last=False)


class Fetching:
    """What is taken of one server. For one event loop, and one caller at a time.

    `taken` and `refused` count resources since the start.
    """

    def __init__(
        self, settings: FHIRFeedSettings, client: FHIRClient, store: Store, take: Take, refuse: Refuse
    ) -> None:  # fmt: skip
        """`take` and `refuse` are those of `fhir_processing`."""
        self._settings, self._client, self._store, self._take, self._refuse = settings, client, store, take, refuse
        self.taken = self.refused = 0
        self._reader: StoreReader | None = None
        self._absent: _Last[str, float] = _Last(ABSENT_MAX)
        self._refused: _Last[Version, None] = _Last(REFUSED_MAX)
        self._stubborn: _Last[str, int] = _Last(ABSENT_MAX)

    async def take(self, found: Iterable[Any], event: str) -> None:
        """Take what of this is well-formed, new and of use, with what it refers to. `event` names it in the archive.

        Raises NotNow, FHIRClientError where the server went away meanwhile, and StoreError.
        """
        new = await self._new({each.reference: one for one in found if (each := _version(one))}.values())
        good = [each for each in new if await self._is_good(each, event)]
        if good:
            good = [*await self._referred_to(good), *good]
        for start in range(0, len(good), TOGETHER_MAX):
            await self._together(good[start : start + TOGETHER_MAX], event)

    async def fetch(self, references: Sequence[str], event: str) -> frozenset[str]:
        """Fetch and take these, also where they are held; what is gone there is deleted here. Which of them are done.

        Raises as `take`.
        """
        for each in references:
            self._absent.pop(each, None)  # somebody says that it is there
        read = await self._read(references, told=True)
        await self.take(read.values(), event)
        missing = [each for each in references if each not in read]
        for each in missing:
            if await self._is_gone(each):
                await self._delete(each)
                self._absent.pop(each, None)
        return frozenset(read) | {each for each in missing if each not in self._absent}

    async def retry(self) -> None:
        """Ask again for what something refers to and could not be had some time ago. Raises as `take`."""
        now = time.monotonic()
        due = [each for each, since in self._absent.items() if now - since >= ABSENT_S][:REFERENCES_MAX]
        if due:
            await self.take((await self._read(due)).values(), "reference")

    # --- what is new ------------------------------------------------------------------------------------------------

    async def _asked(self, question: Callable[[StoreReader], _V]) -> _V:
        """Ask the store in a thread: a page has hundreds of references."""
        if self._reader is None:
            self._reader = await asyncio.to_thread(self._store.open_reader)
        return await asyncio.to_thread(question, self._reader)

    async def _new(self, found: Iterable[Resource]) -> list[Resource]:
        """Those that are not held in this version, nor were refused in it: overlapping looks find most things twice."""
        asked = [each for each in found if _version(each) not in self._refused]
        source = self._settings.name

        def new(reader: StoreReader) -> list[Resource]:
            return [each for each in asked if not _is_held(reader, source, each)]

        return await self._asked(new)

    async def _is_good(self, resource: Resource, event: str) -> bool:
        """Whether it is as the release has it; else it is refused, and archived so."""
        problems, _ = await asyncio.to_thread(fhir_models.problems, resource, self._settings.release)
        if not problems:
            return True
        answer = await self._refuse(self._request([resource], event), problems)
        self._count(resource, answer.status)
        return False

    # --- what it refers to ------------------------------------------------------------------------------------------

    async def _referred_to(self, found: Sequence[Resource]) -> list[Resource]:
        """What these refer to, neither among them nor held: fetched, and what that refers to in turn."""
        known = {_name(each) for each in found}
        fetched: list[Resource] = []
        last = found
        for _ in range(ROUNDS_MAX):
            wanted = [each for each in await self._unheld(last) if each not in known][: REFERENCES_MAX - len(fetched)]
            known |= set(wanted)
            read = (await self._read(wanted)).values()
            last = [each for each in read if await self._is_good(each, "reference")]
            for each in read:
                if each not in last:
                    self._absent[_name(each)] = time.monotonic()
            if not last:
                break
            fetched = [*last, *fetched]
        return fetched

    async def _unheld(self, found: Iterable[Resource]) -> list[str]:
        now, source = time.monotonic(), self._settings.name
        wanted: dict[str, ResourceKey] = {}
        for resource in found:
            for placed in fhir_references.references(resource):
                said = fhir_references.read(placed.element["reference"], [self._settings.url])
                if said.way is fhir_references.Way.LOCAL and said.type in FOLLOWED:
                    wanted[said.local] = ResourceKey(source, said.type, said.id)
        asked = {each: key for each, key in wanted.items() if now - self._absent.get(each, -ABSENT_S) >= ABSENT_S}
        return await self._asked(lambda reader: [each for each, key in asked.items() if reader.resource(key) is None])

    async def _read(self, references: Sequence[str], *, told: bool = False) -> Mapping[str, Resource]:
        """Those of them that the server gives. Raises FHIRClientError where it is away, or does not let us in.

        Of those that were `told` it is away if it answers for none; of others, which a page of its own named, only
        the first few times.
        """
        room = asyncio.Semaphore(FETCHED_AT_ONCE)

        async def read(reference: str) -> Resource | None:
            resource_type, _, resource_id = reference.partition("/")
            async with room:
                try:
                    return await self._client.read(resource_type, resource_id)
                except FHIRClientError as error:
                    if error.is_of_all:
                        raise
                    self._unread(resource_type, error)
                    return None

        every = await asyncio.gather(*(read(each) for each in references), return_exceptions=True)
        answered = any(not isinstance(each, BaseException) for each in every)
        found: dict[str, Resource] = {}
        failed: BaseException | None = None
        for reference, each in zip(references, every, strict=True):
            if isinstance(each, FHIRClientError) and each.is_transient:
                tries = self._stubborn.get(reference, 0) + 1
                if not (answered if told else tries > STUBBORN_TRIES):
                    self._stubborn[reference] = tries
                    failed = failed or each
                    continue
                self._unread(reference.partition("/")[0], each)
            elif isinstance(each, BaseException):
                raise each
            self._stubborn.pop(reference, None)
            if isinstance(each, dict):
                found[reference] = each
                self._absent.pop(reference, None)
            else:
                self._absent[reference] = time.monotonic()
        if failed is not None:
            raise failed
        return found

    def _unread(self, resource_type: str, error: FHIRClientError) -> None:
        _log.warning(
            "fhir_feed_failed", feed=self._settings.name, what=f"read {resource_type}", trouble=error.trouble.value,
            text=error.text,
        )  # fmt: skip

    # --- what is not there any more ---------------------------------------------------------------------------------

    async def _is_gone(self, reference: str) -> bool:
        """Whether the server itself says that there is no such resource: a 404 alone may be that of a proxy before it.

        Raises FHIRClientError where it is away.
        """
        try:
            answer = await self._client.send("GET", reference)
        except FHIRClientError as error:
            if error.is_transient:
                raise
            return False
        outcome = (answer.resource or {}).get("resourceType") == "OperationOutcome"
        return answer.status == 410 or (answer.status == 404 and outcome)

    async def _delete(self, reference: str) -> None:
        resource_type, _, resource_id = reference.partition("/")
        key = ResourceKey(self._settings.name, resource_type, resource_id)
        held = await self._asked(lambda reader: reader.resource(key))
        if held is None or held.deleted:
            return
        said = json.dumps({"deleted": reference}).encode()
        deletion = Interaction(Verb.DELETE, resource_type, resource_id)
        answer = await self._take(self._asking([deletion], said, f"DELETE {resource_type}"))
        if answer.status == 503:
            raise NotNow

    # --- handing on -------------------------------------------------------------------------------------------------

    async def _together(self, found: Sequence[Resource], event: str) -> None:
        request = self._request(found, event)
        answer = await self._take(request)
        statuses = _statuses(answer, len(found))
        asked = request.interactions if len(statuses) == 1 else sorted(request.interactions, key=rank)
        for each, status in zip(asked, statuses, strict=True):
            self._count(each.resource or {}, status)

    def _count(self, resource: Resource, status: int) -> None:
        """Raises NotNow where it was neither taken nor refused."""
        if status == 503:
            raise NotNow
        if status < 400:
            self.taken += 1
            return
        self.refused += 1
        version = _version(resource)
        if version is not None:
            self._refused[version] = None

    def _request(self, found: Sequence[Resource], event: str) -> FHIRRequest:
        alone = len(found) == 1
        content: Resource = (
            found[0]
            if alone
            else {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": one} for one in found]}
        )
        interactions = [
            Interaction(
                Verb.UPDATE, str(one["resourceType"]), str(one["id"]), one,
                where="" if alone else f"Bundle.entry[{number}]",
            )
            for number, one in enumerate(found)
        ]  # fmt: skip
        return self._asking(interactions, fhir_json.write(content), event)

    def _asking(self, interactions: Sequence[Interaction], raw: bytes, event: str) -> FHIRRequest:
        settings = self._settings
        return FHIRRequest(
            Kind.FETCHED, settings.name, settings.release, tuple(interactions), raw, settings.url, settings.name,
            event=event,
        )  # fmt: skip


def _version(resource: Any) -> Version | None:
    """None for what is no resource of use to us."""
    if not isinstance(resource, dict) or resource.get("resourceType") not in FOLLOWED:
        return None
    if not fhir_references.ID.fullmatch(str(resource.get("id", ""))):
        return None
    return Version(_name(resource), _stamp(resource))


def _name(resource: Resource) -> str:
    return f"{resource['resourceType']}/{resource['id']}"


def _stamp(resource: Resource) -> str:
    meta = resource.get("meta")
    said = meta if isinstance(meta, dict) else {}
    return str(said.get("versionId") or said.get("lastUpdated") or "")


def _is_held(reader: StoreReader, source: str, resource: Resource) -> bool:
    """Whether it is held in this version. What has neither version nor time may have changed."""
    stamp = _stamp(resource)
    held = reader.resource(ResourceKey(source, str(resource["resourceType"]), str(resource["id"])))
    return bool(stamp) and held is not None and not held.deleted and _stamp(held.content) == stamp


def _statuses(answer: Answer, count: int) -> list[int]:
    """What became of each resource, in the order in which they were done."""
    body = answer.body or {}
    if body.get("type") == "batch-response":
        return [int(str(each["response"]["status"])[:3]) for each in body["entry"]]
    return [answer.status] * count
