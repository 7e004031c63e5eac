"""Our FHIR server alone, over a real socket and a real store: resources are kept, and no orders made of them."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from gateway.domain.refusal import Refusal, Refused
from gateway.edges.fhir_door import Door, DoorSettings
from gateway.edges.fhir_http import FHIRServer, fhir
from gateway.edges.health import HTTPServer, app
from gateway.edges.metrics import Metrics
from gateway.edges.store import Store
from gateway.fhir_settings import FHIRSettings
from gateway.testing import free_port
from gateway.wire import fhir_bundle
from gateway.wire.fhir_bundle import Answer
from gateway.wire.fhir_interactions import FHIRRequest, Kind
from gateway.workflow import fhir_server
from gateway.workflow.fhir_rehearsal import Rehearsal

PATIENCE_S = 60
JSON = {"Content-Type": "application/fhir+json"}


def ran(scenario: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(PATIENCE_S):
            await scenario

    asyncio.run(bounded())


@dataclass
class Kept:
    """What the server was asked, beside what it keeps."""

    store: Store
    requests: list[FHIRRequest] = field(default_factory=list)
    refused: list[Sequence[Refusal]] = field(default_factory=list)
    answers: Answer | None = None
    """In place of doing it."""
    fails: Exception | None = None

    async def process(self, request: FHIRRequest) -> Answer:
        self.requests.append(request)
        if self.fails is not None:
            raise self.fails
        if self.answers is not None:
            return self.answers
        if request.kind is Kind.BATCH:
            results = []
            for each in request.interactions:
                alone = FHIRRequest(Kind.SINGLE, request.source, request.release, (each,), b"")
                try:
                    results += await self._done(alone)
                except Refused as refused:
                    results.append(fhir_bundle.Result(422, refusals=refused.refusals))
            return fhir_bundle.answer(request, results)
        try:
            return fhir_bundle.answer(request, await self._done(request))
        except Refused as refused:
            return fhir_bundle.refused(request, refused.refusals)

    async def _done(self, request: FHIRRequest) -> Any:
        at = datetime.now(UTC)
        return (await self.store.written(lambda unit: fhir_server.transact(unit, request, at))).results

    async def rehearse(self, request: FHIRRequest) -> Rehearsal:
        at = datetime.now(UTC)
        try:
            done = self.store.rehearse(lambda unit: fhir_server.transact(unit, request, at))
            results = (await asyncio.wrap_future(done)).results
        except Refused as refused:
            return Rehearsal(refused.refusals)
        return Rehearsal(notes=tuple(note for each in results for note in each.notes))

    async def refuse(self, request: FHIRRequest, refusals: Sequence[Refusal]) -> Answer:
        self.requests.append(request)
        self.refused.append(refusals)
        return fhir_bundle.refused(request, refusals)


@asynccontextmanager
async def served(folder: Path, **settings: Any) -> AsyncIterator[tuple[httpx.AsyncClient, Kept]]:
    """A client of the server, whose `fhir` has these settings, and what the server was asked."""
    fhir_settings = FHIRSettings.model_validate(settings)
    store = Store(f"sqlite:///{folder / 'fhir.db'}")
    metrics, kept, port = Metrics(), Kept(store), free_port()
    door = Door(DoorSettings(fhir_settings, folder, loopback=True), metrics.tally)
    server = FHIRServer(
        kept.process, kept.refuse, kept.rehearse, store.open_reader, door, lambda: fhir_settings.release,
        lambda: fhir_settings.limits,
    )  # fmt: skip
    http = HTTPServer(app(metrics, lambda: "", dict, fhir=fhir(server, "1.0")), "127.0.0.1", port)
    await http.start()
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S) as client:
            yield client, kept
    finally:
        await http.stop()
        server.bodies.close()
        await door.close()
        store.close()
