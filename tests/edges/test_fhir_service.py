"""Our FHIR server inside the whole service: started where it is configured, wired to the road, following a reload."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from gateway.config import load_site
from gateway.service import Service
from gateway.testing import free_port, site
from gateway.workflow.ports import MessageSearch
from tests.edges.fhir_site import JSON, ran

PATIENT: dict[str, Any] = {
    "resourceType": "Patient",
    "identifier": [{"system": "urn:oid:1.2.3", "value": "S4711"}],
    "name": [{"family": "Sample", "given": ["Ann"]}],
}


@asynccontextmanager
async def running(folder: Path, port: int, lines: list[str], **settings: Any) -> AsyncIterator[Service]:
    service = Service(load_site(site(folder, http={"host": "127.0.0.1", "port": port}, hl7=[], **settings)))
    await service.start(lines.append)
    try:
        yield service
    finally:
        await service.stop()


def test_fhir_is_served_where_it_is_configured_and_announced(tmp_path: Path) -> None:
    async def scenario() -> None:
        lines: list[str] = []
        port = free_port()
        async with (
            running(tmp_path, port, lines, fhir={}) as service,
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client,
        ):
            assert any(line.startswith("FHIR") and f"http://127.0.0.1:{port}/fhir" in line for line in lines)
            made = await client.post("/fhir/Patient", json=PATIENT, headers=JSON)
            assert made.status_code == 201
            assert (await client.get(made.headers["location"].partition("/_history")[0])).json() == made.json()
            wrong = await client.post("/fhir/Patient", json={**PATIENT, "gender": "x"}, headers=JSON)
            assert wrong.status_code == 422
            archived = service.store.reader.find_messages(MessageSearch(listener="fhir"), 10)
            assert [each.record.message_type for each in archived] == ["POST Patient", "POST Patient"]

    ran(scenario())


def test_fhir_is_not_served_where_it_is_not_configured(tmp_path: Path) -> None:
    async def scenario() -> None:
        lines: list[str] = []
        port = free_port()
        async with running(tmp_path, port, lines), httpx.AsyncClient() as client:
            assert not any(line.startswith("FHIR") for line in lines)
            assert (await client.get(f"http://127.0.0.1:{port}/fhir/metadata")).status_code == 404

    ran(scenario())


def test_a_reload_changes_what_fhir_goes_by(tmp_path: Path) -> None:
    async def scenario() -> None:
        port, lines = free_port(), []
        said = {"http": {"host": "127.0.0.1", "port": port}, "hl7": []}
        async with (
            running(tmp_path, port, lines, fhir={}) as service,
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client,
        ):
            assert (await client.get("/fhir/metadata")).json()["fhirVersion"] == "4.0.1"
            site(tmp_path, **said, fhir={"release": "R5", "limits": {"body_bytes_max": 1024}})
            await service.reload()
            assert (await client.get("/fhir/metadata")).json()["fhirVersion"] == "5.0.0"
            long = await client.post("/fhir/Patient", content=b" " * 2000, headers=JSON)
            assert long.status_code == 413
            site(tmp_path, **said)  # to end it takes a restart
            await service.reload()
            assert (await client.get("/fhir/metadata")).json()["fhirVersion"] == "5.0.0"

    ran(scenario())
