"""FHIR clients of others against a running gateway: fhirpy (sync and async), and fhir-kit-client from npm."""

import asyncio
import json
import subprocess
from collections.abc import Iterator
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import requests
from fhirpy import AsyncFHIRClient, SyncFHIRClient
from fhirpy.base.exceptions import MultipleResourcesFound, OperationOutcome, ResourceNotFound

from gateway.smart_keys import jwks_of, new_key, pem_of
from gateway.testing import ImagingOrder, ServiceProcess, SimulatedModality, invented_person, site
from gateway.testing.fhir_validity import check
from gateway.wire.fhir_release import Release
from tests.fhir_department import ISSUERS, PATIENTS, patient, whole
from tests.interop.npm_fhir import NODE, NODE_S, is_installed, problems_by_npm

START = datetime.now().replace(hour=9, minute=30, second=0, microsecond=0) + timedelta(days=1)
CLIENT = "ehr-client"
_numbers = count(1)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    with ServiceProcess(site(tmp_path_factory.mktemp("site"), fhir={}, issuers=ISSUERS), ready_s=120) as running:
        yield running


@pytest.fixture
def order() -> ImagingOrder:
    number = next(_numbers)
    return ImagingOrder(number, invented_person(number), START)


def _url(service: ServiceProcess) -> str:
    return f"http://{service.host}:{service.http_port}/fhir"


def _is_listed(service: ServiceProcess, order: ImagingOrder) -> bool:
    scanner = SimulatedModality(service.host, service.dicom_port)
    return bool(scanner.worklist(AccessionNumber=order.accession))


@pytest.mark.interop
def test_fhirpy_orders_and_follows_the_order(service: ServiceProcess, order: ImagingOrder) -> None:
    client = SyncFHIRClient(_url(service))
    assert client.execute("metadata", "get")["fhirVersion"] == "4.0.1"
    answered = client.execute("", "post", data=whole(order))
    assert [each["response"]["status"] for each in answered["entry"]] == ["201 Created"] * 3
    assert _is_listed(service, order)
    request = client.resources("ServiceRequest").search(identifier=order.accession).get()
    assert request["subject"].to_resource().id == order.person.patient_id
    step = client.resources("Task").search(based_on=request.to_reference()).first()
    step["status"] = "cancelled"
    step.save()
    assert step["meta"]["versionId"] == client.resources("Task").search(_id=step.id).get()["meta"]["versionId"]
    assert not _is_listed(service, order)


@pytest.mark.interop
def test_fhirpy_changes_by_condition_and_reads_in_pages(service: ServiceProcess, order: ImagingOrder) -> None:
    client = SyncFHIRClient(_url(service))
    said = {key: value for key, value in patient(order.person).items() if key != "id"}
    known = client.resources("Patient").search(identifier=f"{PATIENTS}|{order.person.patient_id}")
    made, is_new = known.update(client.resource("Patient", **{k: v for k, v in said.items() if k != "resourceType"}))
    assert is_new
    changed, is_new = known.update(client.resource("Patient", **{**made, "id": None, "active": True}))
    assert (is_new, changed.id, changed["meta"]["versionId"]) == (False, made.id, "2")
    for name in ("Aosta", "Brno", "Cork"):
        client.resource("Organization", name=name).save()
    several = client.resources("Organization").search(name__contains="o")
    assert [each["name"] for each in several.sort("_lastUpdated").limit(2).fetch_all()] == ["Aosta", "Brno", "Cork"]
    with pytest.raises(MultipleResourcesFound):
        several.update(client.resource("Organization", name="All"))


@pytest.mark.interop
def test_fhirpy_reads_what_is_refused(service: ServiceProcess) -> None:
    client = SyncFHIRClient(_url(service))
    with pytest.raises(OperationOutcome) as refused:
        client.resource("Patient", gender="unheard-of").save()
    (issue,) = refused.value.resource["issue"]
    assert (issue["code"], issue["expression"]) == ("code-invalid", ["Patient.gender"])
    made = client.resource("Location", name="gone")
    made.save()
    made.delete()
    with pytest.raises(ResourceNotFound):
        client.reference("Location", made.id).to_resource()


@pytest.mark.interop
def test_a_merge_patch_which_is_no_patch_of_fhir_is_refused_in_words(service: ServiceProcess) -> None:
    client = SyncFHIRClient(_url(service))
    room = client.resource("Location", name="Room 1")
    room.save()
    with pytest.raises(OperationOutcome) as refused:
        client.patch("Location", room.id, name="Room 2")
    assert "json-patch" in refused.value.resource["issue"][0]["diagnostics"]


@pytest.mark.interop
def test_fhirpy_goes_on_while_it_waits(service: ServiceProcess) -> None:
    """Many orders at a time over the asynchronous client, none of which is in another's way."""
    orders = [ImagingOrder(number, invented_person(number), START) for number in (next(_numbers) for _ in range(8))]

    async def ordered() -> list[Any]:
        client = AsyncFHIRClient(_url(service))
        await asyncio.gather(*(client.execute("", "post", data=whole(each)) for each in orders))
        found = client.resources("ServiceRequest").search(identifier=",".join(each.accession for each in orders))
        return [each.id async for each in found.limit(3)]

    assert sorted(asyncio.run(ordered())) == sorted(f"o{each.number}" for each in orders)
    assert all(_is_listed(service, each) for each in orders)


def _by_npm(url: str, order: ImagingOrder, **proof: str) -> dict[str, Any]:
    if reason := is_installed("fhir-kit-client"):
        pytest.skip(reason)
    said = {"url": url, "patient": patient(order.person), "order": whole(order), **proof}
    done = subprocess.run(
        ["node", "fhir_client.mjs"], cwd=NODE, input=json.dumps(said), capture_output=True, text=True, timeout=NODE_S,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    seen: dict[str, Any] = json.loads(done.stdout)
    return seen


def _check_what_it_saw(seen: dict[str, Any], order: ImagingOrder) -> None:
    number = order.person.patient_id
    assert seen.pop("served")
    assert seen == {
        "release": "4.0.1", "made": ["201 Created"] * 3, "version": "2", "stale": {"status": 412, "issue": "conflict"},
        "active": False, "again": number, "subject": number, "pages": [["Aachen", "Bern"], ["Chur"]],
        "batch": ["200", "404"], "posted": [number], "gone": {"status": 410, "issue": "deleted"},
        "invalid": {"status": 422, "issue": "code-invalid"},
    }  # fmt: skip


@pytest.mark.interop
def test_fhir_kit_client_from_npm_does_a_days_work(tmp_path: Path, order: ImagingOrder) -> None:
    with ServiceProcess(site(tmp_path, fhir={}, issuers=ISSUERS), ready_s=120) as running:
        _check_what_it_saw(_by_npm(_url(running), order), order)
        assert _is_listed(running, order)


@pytest.mark.interop
def test_fhir_kit_client_finds_the_door_and_signs_in(tmp_path: Path, order: ImagingOrder) -> None:
    key = new_key()
    (tmp_path / "ehr.json").write_text(jwks_of([key]))
    fhir = {"clients": [{"name": "ehr", "client_id": CLIENT, "jwks": "ehr.json"}]}
    with ServiceProcess(site(tmp_path, fhir=fhir, issuers=ISSUERS), ready_s=120) as running:
        seen = _by_npm(_url(running), order, clientId=CLIENT, keyId=key.key_id, key=pem_of(key))
        assert seen.pop("stranger") == {"status": 401, "issue": "login"}
        _check_what_it_saw(seen, order)


def _answers(service: ServiceProcess, order: ImagingOrder, release: Release) -> dict[str, Any]:
    """Bodies of answers of every kind, after this order was sent and, in R4, performed."""
    url = f"{_url(service)}/{release.base}"
    fhir = {"Content-Type": "application/fhir+json", "Prefer": "return=OperationOutcome"}
    made = whole(order)
    if release is Release.R5:
        request, step = made["entry"][1]["resource"], made["entry"][2]["resource"]
        request["code"] = {"concept": request["code"]}
        step["requestedPeriod"] = step.pop("restriction")["period"]
    answers = {
        "CapabilityStatement": requests.get(f"{url}/metadata", timeout=60),
        "transaction-response": requests.post(url, json=made, headers=fhir, timeout=60),
        "OperationOutcome": requests.post(f"{url}/Patient", json={"resourceType": "Patient", "gender": "x"},
                                          headers=fhir, timeout=60),
        "$validate": requests.post(f"{url}/Patient/$validate", json=patient(order.person), headers=fhir, timeout=60),
    }  # fmt: skip
    if release is Release.R4:
        scanner = SimulatedModality(service.host, service.dicom_port)
        (item,) = scanner.worklist(AccessionNumber=order.accession)
        scanner.complete(scanner.start(item))
    kinds = ("ServiceRequest", "Task", "Procedure", "ImagingStudy", "Provenance", "Patient")
    answers |= {f"searchset of {kind}": requests.get(f"{url}/{kind}", timeout=60) for kind in kinds}
    bodies = {name: answer.json() for name, answer in answers.items()}
    assert release is Release.R5 or bodies["searchset of Procedure"]["entry"]
    return bodies


@pytest.mark.interop
@pytest.mark.parametrize("release", [Release.R4, Release.R5], ids=str)
def test_what_is_answered_is_fhir_to_fhir_resources(
    service: ServiceProcess, order: ImagingOrder, release: Release
) -> None:  # fmt: skip
    for body in _answers(service, order, release).values():
        check(body, release)
        for entry in body.get("entry", ()):
            if "resource" in entry:
                check(entry["resource"], release)


@pytest.mark.interop
def test_what_is_answered_is_fhir_to_the_npm_package(service: ServiceProcess, order: ImagingOrder) -> None:
    assert problems_by_npm(_answers(service, order, Release.R4)) == {}
