"""Status told to another FHIR server by a running gateway: to a second gateway, and to one that is away or ill."""

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
from fhir_receiver import Answer, Asked, receiving
from test_fhir_road import Department

from gateway.edges.fhir_client import FHIRClient
from gateway.fhir_settings import FHIRCredentials
from gateway.smart_keys import jwks_of, new_key, pem_of
from gateway.testing import ServiceProcess, site
from gateway.wire.fhir_release import Release
from tests.fhir_department import ISSUERS, JSON, request, whole

WAIT_S = 60.0


def _told(url: str, **said: Any) -> dict[str, Any]:
    """A site whose FHIR orders are told to this server."""
    destination = {"name": "ehr", "fhir": {"url": url}, "status": {}, "retry_most_s": 1, **said}
    return {"fhir": {}, "issuers": ISSUERS, "destinations": [destination]}


def _until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not happened():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)  # another process cannot be awaited, only asked


def test_a_second_gateway_is_told_and_catches_up_after_it_was_away(tmp_path: Path) -> None:
    other = ServiceProcess(site(tmp_path / "ehr", fhir={}, hl7=[], issuers=ISSUERS), ready_s=120)
    url = f"http://{other.host}:{other.http_port}/fhir"
    with (
        other,
        ServiceProcess(site(tmp_path / "ours", **_told(url)), ready_s=120) as ours,
        closing(Department(ours)) as department,
        httpx.Client(base_url=url, headers=JSON, timeout=WAIT_S) as ehr,
    ):
        order = department.order()
        for client in (ehr, department.ehr):  # the EHR sent it to us, and has it itself
            assert client.post("/", json=whole(order)).status_code == 200
        uid = department.modality.start(department.item(order))
        _until(lambda: ehr.get(f"/Task/t{order.number}").json()["status"] == "in-progress")
        other.kill()
        department.modality.complete(uid)
        other.start()
        _until(lambda: ehr.get(f"/ServiceRequest/o{order.number}").json()["status"] == "completed")
        assert ehr.get(f"/Task/t{order.number}").json()["status"] == "completed"
        (procedure,) = [each["resource"] for each in ehr.get("/Procedure").json()["entry"]]
        assert procedure["status"] == "completed"
        assert procedure["basedOn"][0]["reference"] == f"ServiceRequest/o{order.number}"
        (study,) = [each["resource"] for each in ehr.get("/ImagingStudy").json()["entry"]]
        assert study["status"] == "available"


class _EHR:
    """A server that has the ServiceRequest, and answers transactions by these statuses, then by 200."""

    def __init__(self, *statuses: int) -> None:
        self._statuses = list(statuses)
        self._lock = threading.Lock()
        self.held: dict[str, Any] = {}
        self.taken: list[Any] = []

    def __call__(self, asked: Asked) -> Answer:
        if asked.method == "GET":
            named = "ServiceRequest" in asked.path
            entries = [{"resource": self.held, "search": {"mode": "match"}}] if named else []
            return 200, {"resourceType": "Bundle", "type": "searchset", **({"entry": entries} if entries else {})}
        with self._lock:
            status = self._statuses.pop(0) if self._statuses else 200
            if status == 200:
                self.taken.append(asked.body)
        answers = [{"response": {"status": "200 OK"}} for _ in (asked.body or {}).get("entry", ())]
        return status, {"resourceType": "Bundle", "type": "transaction-response", "entry": answers}


@pytest.mark.parametrize("statuses", [(412,), (429, 429), (500, 503)], ids=["412", "429", "500"])
def test_a_server_that_is_not_ready_is_told_in_the_end_and_once(tmp_path: Path, statuses: tuple[int, ...]) -> None:
    ehr = _EHR(*statuses)
    with (
        receiving(ehr) as server,
        ServiceProcess(site(tmp_path, **_told(server.url)), ready_s=120) as ours,
        closing(Department(ours)) as department,
    ):
        order = department.order()
        ehr.held = request(order, meta={"versionId": "1"})
        department.by_fhir(order)
        department.modality.complete(department.modality.start(department.item(order)))
        _until(lambda: any(_word(each, "Procedure") == "completed" for each in ehr.taken))
        said = [_word(each, "Procedure") for each in ehr.taken]
        assert said == ["in-progress", "completed"], "in order, and each once"
        assert _word(ehr.taken[-1], "ServiceRequest") == "completed"


def _word(bundle: Any, kind: str) -> str:
    found = [each["resource"]["status"] for each in bundle["entry"] if each["resource"]["resourceType"] == kind]
    return str(found[0]) if found else ""


def _scoped(folder: Path) -> Path:
    """A server that looks at scopes, with two clients: the EHR's own desk, and us."""
    for name in ("desk", "gateway"):
        key = new_key()
        (folder / f"{name}.json").write_text(jwks_of([key]))
        (folder / f"{name}.pem").write_text(pem_of(key))
    clients = [{"name": name, "client_id": name, "jwks": f"{name}.json"} for name in ("desk", "gateway")]
    return site(folder, fhir={"clients": clients}, hl7=[], issuers=ISSUERS)


@pytest.mark.parametrize("by_feed", [False, True], ids=["named here", "named as a feed"])
def test_what_is_asked_for_by_default_is_enough_to_write(tmp_path: Path, by_feed: bool) -> None:
    for folder in ("ehr", "ours"):
        (tmp_path / folder).mkdir()
    other = ServiceProcess(_scoped(tmp_path / "ehr"), ready_s=120)
    url = f"http://{other.host}:{other.http_port}/fhir/r4"
    server: dict[str, Any] = {"url": url, "credentials": {"client_id": "gateway", "key": "../ehr/gateway.pem"}}
    said = _told(url, fhir={"feed": "ehr"} if by_feed else server)
    if by_feed:
        said["fhir"] = {"feeds": [{"name": "ehr", **server}]}
    desk = FHIRCredentials(client_id="desk", key="desk.pem", scope="system/*.cruds")

    async def asked(method: str, place: str, resource: Any = None) -> Any:
        client = FHIRClient(url, Release.R4, desk, folder=tmp_path / "ehr")
        try:
            return (await client.send(method, place, resource)).expected().resource
        finally:
            await client.close()

    with (
        other,
        ServiceProcess(site(tmp_path / "ours", **said), ready_s=120) as ours,
        closing(Department(ours)) as department,
    ):
        order = department.order()
        asyncio.run(asked("POST", "", whole(order)))
        department.by_fhir(order)
        department.modality.complete(department.modality.start(department.item(order)))
        name = f"ServiceRequest/o{order.number}"
        _until(lambda: asyncio.run(asked("GET", name))["status"] == "completed")
        assert asyncio.run(asked("GET", "Procedure"))["entry"][0]["resource"]["status"] == "completed"
