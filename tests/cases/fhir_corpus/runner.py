"""Runs a case's requests down the whole road: read, checked, stored, answered; shows what is listed.

`Desk` does it without HTTP, `HTTPDesk` by the application that the service serves, without a socket.
"""

import asyncio
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx

from gateway.domain.attributes import BY_KEYWORD, SPS_SEQUENCE, Attributes, Element, person_name_text
from gateway.domain.matching import Narrowing
from gateway.domain.refusal import Refusal, Refused
from gateway.domain.resources import Resource
from gateway.domain.worklist import SPSStatus, WorklistItem
from gateway.edges.fhir_door import Door, DoorSettings
from gateway.edges.fhir_http import FHIRServer, fhir
from gateway.edges.metrics import Tally
from gateway.edges.store import Store
from gateway.fhir_processing import process_request, refuse_request, rehearse_request
from gateway.fhir_settings import FHIRSettings
from gateway.wire import fhir_bundle, fhir_json
from gateway.wire.fhir_bundle import Answer
from gateway.wire.fhir_interactions import FHIRRequest, Interaction, Kind, Verb
from gateway.wire.fhir_models import problems
from gateway.wire.fhir_release import Release
from gateway.workflow.fhir_feed import FHIRFeed
from gateway.workflow.fhir_rehearsal import Rehearsal

LISTED = frozenset({SPSStatus.SCHEDULED, SPSStatus.ARRIVED, SPSStatus.READY, SPSStatus.STARTED})


@dataclass(frozen=True, slots=True)
class Answered:
    """What came of one request: its HTTP status, errors as `code expression`, and all that is told."""

    status: int
    issues: tuple[str, ...]
    told: str


@dataclass(frozen=True)
class Desk:
    """A store, and how its FHIR server reads what comes."""

    store: Store
    feed: FHIRFeed

    def send(self, body: Mapping[str, Any], release: Release) -> Answered:
        """One request as the HTTP edge makes it of this body: a Bundle at the base, a resource with an id by PUT."""
        raw = json.dumps(body, ensure_ascii=False).encode()
        read = fhir_json.parse(raw)
        refusals, _ = problems(read, release)
        request = FHIRRequest(Kind.SINGLE, release.base, release, (), raw, event="POST")
        try:
            request = _request(read, release, raw)
        except Refused as no:
            refusals += no.refusals
        return _answered(asyncio.run(self._done(request, refusals)))

    async def _done(self, request: FHIRRequest, refusals: list[Refusal]) -> Answer:
        if refusals:
            return await refuse_request(self.store, request, refusals, self.feed)
        return await process_request(self.store, request, self.feed)

    def items(self) -> list[WorklistItem]:
        """What is on the worklist."""
        found = self.store.reader.candidates(Narrowing(statuses=LISTED))
        return self.store.reader.items([step_id for step_id, _ in found])


class HTTPDesk(Desk):
    """The same at our FHIR server's door."""

    def send(self, body: Mapping[str, Any], release: Release) -> Answered:
        """A Bundle goes to the base, a message to its operation, a resource with an id is PUT, another POSTed."""
        return asyncio.run(self._asked(body, release))

    async def _asked(self, body: Mapping[str, Any], release: Release) -> Answered:
        kind, name = str(body["resourceType"]), body.get("id")
        if kind == "Bundle":
            method, url = "POST", "/$process-message" if body["type"] == "message" else ""
        else:
            method, url = ("PUT", f"/{kind}/{name}") if name else ("POST", f"/{kind}")
        raw = json.dumps(body, ensure_ascii=False).encode()
        transport = httpx.ASGITransport(self._app, client=("127.0.0.1", 4711))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            answer = await client.request(
                method, f"/fhir/{release.base}{url}", content=raw, headers={"Content-Type": "application/fhir+json"}
            )
        said = Answer(answer.status_code, {}, answer.json(), (answer.headers.get("x-note", ""),))
        return _answered(said)

    @cached_property
    def _app(self) -> Any:
        settings = FHIRSettings()

        async def process(request: FHIRRequest) -> Answer:
            return await process_request(self.store, request, self.feed)

        async def refuse(request: FHIRRequest, refusals: Sequence[Refusal]) -> Answer:
            return await refuse_request(self.store, request, refusals, self.feed)

        async def rehearse(request: FHIRRequest) -> Rehearsal:
            return await rehearse_request(self.store, request, self.feed)

        door = Door(DoorSettings(settings, Path(), loopback=True), Tally())
        return fhir(
            FHIRServer(
                process, refuse, rehearse, self.store.open_reader, door, lambda: settings.release,
                lambda: settings.limits,
            ), "1.0",
        )  # fmt: skip


def _request(body: Resource, release: Release, raw: bytes) -> FHIRRequest:
    kind = str(body["resourceType"])
    if kind == "Bundle":
        return fhir_bundle.request_of(body, release, raw, sender="ehr")
    verb = Verb.UPDATE if body.get("id") else Verb.CREATE
    asked = Interaction(verb, kind, str(body.get("id") or ""), body)
    return fhir_bundle.single(asked, release, raw, f"{'PUT' if body.get('id') else 'POST'} {kind}", sender="ehr")


def _answered(answer: Answer) -> Answered:
    issues = [issue for outcome in _outcomes(answer.body) for issue in outcome.get("issue", ())]
    errors = tuple(
        " ".join((issue["code"], *issue.get("expression", ())))
        for issue in issues
        if issue["severity"] in ("error", "fatal")
    )
    return Answered(answer.status, errors, "\n".join((*answer.notes, json.dumps(answer.body, default=str))))


def _outcomes(body: Any) -> Iterable[Resource]:
    """The OperationOutcomes anywhere in an answer."""
    if isinstance(body, Mapping):
        if body.get("resourceType") == "OperationOutcome":
            yield body
        for each in body.values():
            yield from _outcomes(each)
    elif isinstance(body, list | tuple):
        for each in body:
            yield from _outcomes(each)


def shown(item: WorklistItem, keywords: Iterable[str]) -> dict[str, str]:
    """These attributes of an item as text, as the README writes them."""
    told = item.attributes | item.step
    return {keyword: _text(told.get(BY_KEYWORD[keyword].tag)) for keyword in keywords}


def all_shown(item: WorklistItem) -> dict[str, str]:
    """Every attribute of an item as text, by keyword; those of the step beside the others."""
    told = {tag: element for tag, element in item.attributes.items() if tag != SPS_SEQUENCE} | item.step
    return {attribute.keyword: _text(told[attribute.tag]) for attribute in BY_KEYWORD.values() if attribute.tag in told}


def _text(element: Element | None) -> str:
    values = (element or {}).get("Value") or []
    return "\\".join(_value(each) for each in values)


def _value(value: Any) -> str:
    if not isinstance(value, Mapping):
        return f"{value:g}" if isinstance(value, float) else str(value)
    if "Alphabetic" in value or "Ideographic" in value or "Phonetic" in value:
        return person_name_text(value)
    return _item(value)


def _item(item: Attributes) -> str:
    said = {attribute.keyword: _text(item[attribute.tag]) for attribute in BY_KEYWORD.values() if attribute.tag in item}
    if "CodeMeaning" in said:
        code = said.get("CodeValue") or said.get("LongCodeValue") or said.get("URNCodeValue", "")
        return f"{code}^{said['CodeMeaning']}^{said.get('CodingSchemeDesignator', '')}"
    return "{" + ", ".join(f"{keyword}: {text}" for keyword, text in said.items()) + "}"
