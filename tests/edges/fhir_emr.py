"""Another FHIR server, played on loopback: it has orders, pages, subscriptions, and troubles as a test wants them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit
from zoneinfo import ZoneInfo

from fhir_receiver import Answer, Asked, receiving

from gateway.domain.attributes import text
from gateway.domain.identifiers import Mint
from gateway.domain.mapping import compile_mapping
from gateway.domain.matching import Narrowing
from gateway.domain.resources import ResourceKey
from gateway.domain.worklist import SPSStatus, WorklistItem
from gateway.edges.store import Store
from gateway.fhir_feeds import follower_of
from gateway.fhir_following import Follower
from gateway.fhir_processing import process_request, refuse_request
from gateway.fhir_settings import FHIRFeedSettings
from gateway.wire.fhir_paths import reader
from gateway.wire.fhir_release import Release
from gateway.workflow.fhir_feed import FHIRFeed
from gateway.workflow.fhir_marks import Mark
from gateway.workflow.ports import MessageSearch, StoredMessage
from tests.workflow.fhir_roads import RULES

URL = "https://gateway.example/fhir"
SEARCH = "ServiceRequest"
PATIENT: dict[str, Any] = {
    "resourceType": "Patient", "identifier": [{"system": "urn:oid:1.2.3", "value": "100"}],
    "name": [{"family": "Doe", "given": ["Jane"]}],
}  # fmt: skip
GONE = {"resourceType": "OperationOutcome", "issue": [{"severity": "error", "code": "deleted"}]}


def order(number: int, release: Release = Release.R4, patient: str = "Patient/p1", **said: Any) -> dict[str, Any]:
    """An order for a head CT, valid in this release."""
    text = {"text": "CT head"}
    return {
        "resourceType": "ServiceRequest", "id": f"o{number}", "status": "active", "intent": "order",
        "identifier": [{"system": "urn:oid:1.2.4", "value": f"P{number}"}], "subject": {"reference": patient},
        "code": {"concept": text} if release is Release.R5 else text,
        "occurrenceDateTime": "2026-07-06T09:30:00+02:00", **said,
    }  # fmt: skip


def at(minute: int) -> str:
    return f"2026-07-06T08:{minute:02}:00.000Z"


@dataclass
class EMR:
    """What it has, by reference, and how it answers. `trouble` may answer in its place."""

    url: str = ""
    held: dict[str, dict[str, Any]] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    asked: list[Asked] = field(default_factory=list)
    page: int = 100
    sorts: bool = True
    trouble: Callable[[Asked], Answer | None] = lambda asked: None
    subscriptions: dict[str, dict[str, Any]] = field(default_factory=dict)

    def put(self, resource: dict[str, Any], updated: str = at(0)) -> None:
        name = f"{resource['resourceType']}/{resource['id']}"
        version = int(self.held.get(name, {}).get("meta", {}).get("versionId", 0)) + 1
        self.held[name] = {**resource, "meta": {"versionId": str(version), "lastUpdated": updated}}

    def reads(self, kind: str) -> list[str]:
        """What was asked for of this type, without the base."""
        paths = [each.path.removeprefix("/fhir/") for each in self.asked if each.method == "GET"]
        return [each for each in paths if each.startswith(kind)]

    def answer(self, asked: Asked) -> Answer:
        self.asked.append(asked)
        trouble = self.trouble(asked)
        if trouble is not None:
            return trouble
        name = urlsplit(asked.path).path.removeprefix("/fhir/")
        if name.startswith("Subscription"):
            return self._subscription(asked, name)
        if "/" not in name:
            return 200, self._searched(name, asked.path)
        if name in self.gone:
            return 410, GONE
        return (200, self.held[name]) if name in self.held else (404, GONE)

    def _searched(self, kind: str, path: str) -> dict[str, Any]:
        query = parse_qs(urlsplit(path).query)
        since = query.get("_lastUpdated", ["ge0001-01-01T00:00:00+00:00"])[0].removeprefix("ge")
        found = [
            each for each in self.held.values()
            if each["resourceType"] == kind
            and datetime.fromisoformat(each["meta"]["lastUpdated"]) >= datetime.fromisoformat(since)
        ]  # fmt: skip
        found.sort(key=lambda each: each["meta"]["lastUpdated"], reverse=not self.sorts)
        start = int(query.get("_start", ["0"])[0])
        shown = found[start : start + self.page]
        bundle: dict[str, Any] = {
            "resourceType": "Bundle", "type": "searchset",
            "entry": [{"resource": each, "search": {"mode": "match"}} for each in shown],
        }  # fmt: skip
        if start + self.page < len(found):
            after = f"{self.url}/{kind}?_start={start + self.page}&_lastUpdated=ge{since.replace('+', '%2B')}"
            bundle["link"] = [{"relation": "next", "url": after}]
        return bundle

    def _subscription(self, asked: Asked, name: str) -> Answer:
        if asked.method == "POST":
            made = {**asked.body, "id": f"s{len(self.subscriptions) + 1}", "status": "active"}
            self.subscriptions[made["id"]] = made
            return 201, made
        id_ = name.partition("/")[2]
        if asked.method == "PUT":
            self.subscriptions[id_] = {**asked.body, "status": "active"}
        return (200, self.subscriptions[id_]) if id_ in self.subscriptions else (404, GONE)


@dataclass
class Followed:
    """An EMR, who follows it, and what came of that."""

    emr: EMR
    settings: FHIRFeedSettings
    store: Store
    feed: FHIRFeed
    follower: Follower

    @property
    def mark(self) -> Mark:
        return Mark.of(self.store.reader.feed_mark("emr"))

    def items(self) -> list[WorklistItem]:
        refs = self.store.reader.candidates(Narrowing(statuses=frozenset({SPSStatus.SCHEDULED})))
        return list(self.store.reader.items([step_id for step_id, _ in refs]))

    @property
    def orders(self) -> list[str]:
        """The order numbers on the list."""
        return sorted(text(each.attributes, "PlacerOrderNumberImagingServiceRequest") for each in self.items())

    def messages(self) -> list[StoredMessage]:
        """The archive, oldest first."""
        return list(self.store.reader.find_messages(MessageSearch(), 1000))[::-1]

    def held(self, name: str) -> bool:
        kind, _, id_ = name.partition("/")
        found = self.store.reader.resource(ResourceKey("emr", kind, id_))
        return found is not None and not found.deleted

    async def restart(self, **said: Any) -> None:
        """As after an end of the process; with other settings where they are said."""
        await self.follower.stop()
        self.settings = FHIRFeedSettings.model_validate({**self.settings.model_dump(), **said})
        self.follower = _follower(self.settings, self.store, self.feed)


def _follower(settings: FHIRFeedSettings, store: Store, feed: FHIRFeed) -> Follower:
    return follower_of(
        settings, URL, Path(), store,
        lambda request: process_request(store, request, feed),
        lambda request, refusals: refuse_request(store, request, refusals, feed),
    )  # fmt: skip


@asynccontextmanager
async def followed(folder: Path, release: Release = Release.R4, **said: Any) -> AsyncIterator[Followed]:
    """A feed with these settings, not begun yet."""
    emr = EMR()
    with receiving(emr.answer) as receiver:
        emr.url = f"{receiver.url}/fhir"
        if not said:
            said = {"poll": {"search": [SEARCH]}}
        settings = FHIRFeedSettings.model_validate(
            {"name": "emr", "url": emr.url, "release": release, "timeout_s": 5, **said}
        )
        store = Store(f"sqlite:///{folder / 'gateway.db'}", zone="Europe/Berlin")
        rules: dict[str, Any] = {**RULES, "fhir": "R5" if release is Release.R5 else "R4"}
        if release is Release.R5:
            r5 = {"RequestedProcedureDescription": {"from": "ServiceRequest.code.concept.text"}}
            kept = {name: each for name, each in RULES["rules"].items() if name != "RequestedProcedureComments"}
            rules["rules"] = {**kept, **r5}
        mapping = compile_mapping({"small": rules}, "small", readers={each.value: reader(each) for each in Release})
        feed = FHIRFeed(
            "emr", {release: mapping}, Mint(store.site_namespace()), department=ZoneInfo("Europe/Berlin"),
            server=emr.url,
        )  # fmt: skip
        world = Followed(emr, settings, store, feed, _follower(settings, store, feed))
        try:
            yield world
        finally:
            await world.follower.stop()
            await asyncio.to_thread(store.close)


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
