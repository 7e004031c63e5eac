"""Notifications of other FHIR servers over HTTP: who may notify, and what is no notification; and two gateways, of
which one plays the EHR."""

import time
from pathlib import Path
from typing import Any

import httpx
from fhir_emr import PATIENT, order
from test_fhir_service import running

from gateway.testing import ServiceProcess, SimulatedModality, free_port, site
from gateway.wire.fhir_release import Release
from tests.edges.fhir_site import JSON, PATIENCE_S, ran
from tests.wire.test_fhir_notifications import notification, status

HOOK = "/fhir/notifications/emr"
READY_S = 120.0  # a loaded machine starts two gateways
SECRET = {"Authorization": "Bearer s3cret"}
FEED: dict[str, Any] = {
    "name": "emr", "url": "http://127.0.0.1:9", "subscription": {"secret": "s3cret", "register_there": False},
}  # fmt: skip


def test_only_the_server_that_was_asked_may_notify(tmp_path: Path) -> None:
    async def scenario() -> None:
        port, lines = free_port(), []
        async with (
            running(tmp_path, port, lines, fhir={"feeds": [FEED]}),
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S) as client,
        ):
            for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic s3cret"}):
                refused = await client.post(HOOK, headers=headers)
                assert refused.status_code == 401
                assert refused.json()["resourceType"] == "OperationOutcome"
                assert refused.headers["www-authenticate"].startswith("Bearer")
            assert (await client.post("/fhir/notifications/nobody", headers=SECRET)).status_code == 401
            assert (await client.get("/fhir/Patient", headers=SECRET)).status_code == 401  # it opens nothing else
            assert (await client.post(HOOK, headers=SECRET)).status_code == 200
            beat = notification_of("heartbeat")
            assert (await client.post(HOOK, json=beat, headers=SECRET | JSON)).status_code == 200
            named = f"{HOOK}/ServiceRequest/o1"
            assert (await client.put(named, json=order(1), headers=SECRET | JSON)).status_code == 200
            assert (await client.put(named, json=order(2), headers=SECRET | JSON)).status_code == 400
            assert (await client.put(named, json=order(1), headers=JSON)).status_code == 401
            broken = await client.post(HOOK, content=b"{", headers=SECRET | JSON)
            assert broken.status_code == 400
            assert broken.json()["resourceType"] == "OperationOutcome"
            assert "notifications" not in (await client.get("/fhir/openapi.json")).text
            assert 'gateway_fhir_looks_failed_total{feed="emr"}' in (await client.get("/metrics")).text

    ran(scenario())


def notification_of(occasion: str) -> Any:
    return notification(Release.R4, status(Release.R4, occasion, events=0))


def test_a_reload_follows_the_feeds_of_the_settings(tmp_path: Path) -> None:
    async def scenario() -> None:
        port, lines = free_port(), []
        said = {"http": {"host": "127.0.0.1", "port": port}, "hl7": []}
        async with (
            running(tmp_path, port, lines, fhir={}) as service,
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S) as client,
        ):
            assert (await client.post(HOOK, headers=SECRET)).status_code == 401
            site(tmp_path, **said, fhir={"feeds": [FEED]})
            await service.reload()
            assert (await client.post(HOOK, headers=SECRET)).status_code == 200
            site(tmp_path, **said, fhir={})
            await service.reload()
            assert (await client.post(HOOK, headers=SECRET)).status_code == 401

    ran(scenario())


def test_an_order_put_into_another_gateway_is_on_the_list_here(tmp_path: Path) -> None:
    """The other one plays the EHR; it is polled, and killed and started again between two orders."""
    ehr_site = site(tmp_path / "ehr", hl7=[], fhir={})
    with ServiceProcess(ehr_site, READY_S) as ehr:
        base = f"http://127.0.0.1:{ehr.http_port}/fhir/r4"
        feed = {"name": "emr", "url": base, "poll": {"every_s": 1, "search": ["ServiceRequest"]}}
        with ServiceProcess(site(tmp_path / "ours", hl7=[], fhir={"feeds": [feed]}), READY_S) as ours:
            put(base, {**PATIENT, "id": "p1"}, coded(1))
            listed(ours, ["P1"])
            ehr.kill()
            ehr.start()
            put(base, coded(2))
            listed(ours, ["P1", "P2"])
            put(base, coded(1) | {"status": "revoked"})
            listed(ours, ["P2"])


def coded(number: int) -> dict[str, Any]:
    code = {"coding": [{"system": "http://hospital.example/codes/procedures", "code": "CTHEAD", "display": "CT head"}]}
    return order(number, code=code, category=[{"coding": [{"system": "http://snomed.info/sct", "code": "363679005"}]}])


def put(base: str, *resources: dict[str, Any]) -> None:
    for each in resources:
        answer = httpx.put(f"{base}/{each['resourceType']}/{each['id']}", json=each, headers=JSON, timeout=PATIENCE_S)
        assert answer.status_code in (200, 201), answer.text


def listed(service: ServiceProcess, wanted: list[str]) -> None:
    """The order numbers on the list, when it has come to be so."""

    modality = SimulatedModality(service.host, service.dicom_port)
    deadline = time.monotonic() + PATIENCE_S
    found: list[str] = []
    while found != wanted and time.monotonic() < deadline:
        time.sleep(0.2)  # another process cannot be awaited, only asked
        found = sorted(
            str(each.PlacerOrderNumberImagingServiceRequest)
            for each in modality.worklist(PlacerOrderNumberImagingServiceRequest="")
        )
    assert found == wanted
