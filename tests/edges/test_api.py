"""The HTTP API of the desk and the queues, on a service that runs: what it does, and to whom it answers."""

import asyncio
import json
import re
from collections.abc import Iterator
from datetime import datetime, timedelta
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydicom.uid import generate_uid

from gateway.edges.api import BODY_BYTES_MAX, DeskAPI, api
from gateway.edges.store import read_only
from gateway.testing import (
    ImagingOrder,
    ServiceProcess,
    SimulatedModality,
    SimulatedRIS,
    invented_person,
    rad4_orm,
    site,
)
from tests.edges.performed_site import began, ended

START = datetime.now().replace(microsecond=0) - timedelta(hours=6)
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    folder = tmp_path_factory.mktemp("site")
    ris = {"name": "placer", "host": "127.0.0.1", "port": 2577, "status": {"mapping": "status-orm"}}
    with ServiceProcess(site(folder, destinations=[ris])) as running:
        yield running


@pytest.fixture
def client(service: ServiceProcess) -> Iterator[httpx.Client]:
    with httpx.Client(
        base_url=f"http://127.0.0.1:{service.http_port}/api", headers=JSON | {"X-Actor": "ann"}
    ) as client:
        yield client


_numbers = iter(range(1, 10_000))


@pytest.fixture
def order(service: ServiceProcess) -> ImagingOrder:
    """A new order that was received."""
    number = next(_numbers)
    made = ImagingOrder(number, invented_person(number), START)
    with SimulatedRIS(service.host, service.hl7_port) as sender:
        assert sender.send(rad4_orm(made)).code == "AA"
    return made


def begun(service: ServiceProcess, person: Any, names: ImagingOrder | None = None, end: bool = False) -> str:
    """A modality reports by DICOM; the SOP Instance UID."""
    modality = SimulatedModality(service.host, service.dicom_port)
    uid = str(generate_uid())
    when = {"PerformedProcedureStepStartDate": f"{START:%Y%m%d}", "PerformedProcedureStepStartTime": f"{START:%H%M%S}"}
    modality.create(uid, began(person, names, study=str(generate_uid()), **when))
    if end:
        modality.set(uid, ended())
    return uid


def done(answer: httpx.Response) -> Any:
    assert answer.status_code == 200, answer.text
    return answer.json()


def refused(answer: httpx.Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    return "; ".join(f"{each['text']} ({each['hint']})" for each in answer.json()["refusals"])


def status_of(service: ServiceProcess, order: ImagingOrder) -> str:
    reader = read_only(f"sqlite:///{service.config.with_name('gateway.db')}")
    (item,) = reader.item_of(order.sps_id)
    return str(item.status)


# --- the desk


def test_performed_steps_are_found_and_shown(
    service: ServiceProcess, client: httpx.Client, order: ImagingOrder
) -> None:
    linked, alone = begun(service, order.person, order, end=True), begun(service, order.person)
    newest = [each["uid"] for each in done(client.get("/performed-steps", params={"limit": 2}))]
    assert newest == [alone, linked]
    found = [each["uid"] for each in done(client.get("/performed-steps", params={"attention": "any"}))]
    assert alone in found
    assert linked not in found
    assert [each["uid"] for each in done(client.get("/performed-steps", params={"before": alone, "limit": 1}))] == [
        linked
    ]
    assert done(client.get("/performed-steps", params={"from": "MR9"})) == []
    assert done(client.get("/performed-steps", params={"unfinished": True})) == []
    whole = done(client.get(f"/performed-steps/{linked}"))
    assert (whole["state"], whole["linked"][0]["status"]) == ("COMPLETED", "COMPLETED")
    assert [each["operation"] for each in whole["requests"]] == ["N-CREATE", "N-SET"]
    assert "no performed step" in refused(client.get("/performed-steps/1.2.3"), 404)


def test_a_proposal_is_linked_and_unlinked_with_its_actor(
    service: ServiceProcess, client: httpx.Client, order: ImagingOrder
) -> None:
    uid = begun(service, order.person)
    (best,) = done(client.get(f"/performed-steps/{uid}/proposals"))
    assert best["accession"] == order.accession
    linked = done(client.post(f"/performed-steps/{uid}/links", json={"steps": [best["step"]], "note": "seen"}))
    assert linked["changes"] == [{"step": best["step"], "before": "SCHEDULED", "after": "STARTED"}]
    assert status_of(service, order) == "STARTED"
    assert "already" in refused(client.post(f"/performed-steps/{uid}/links", json={"steps": [order.sps_id]}), 409)
    done(client.request("DELETE", f"/performed-steps/{uid}/links"))
    assert status_of(service, order) == "SCHEDULED"
    decisions = done(client.get(f"/performed-steps/{uid}"))["decisions"]
    assert [(each["action"], each["actor"], each["details"].get("note")) for each in decisions] == [
        ("unlinked", "ann", None), ("linked", "ann", "seen"),
    ]  # fmt: skip


def test_without_a_name_the_address_decides(service: ServiceProcess, client: httpx.Client, order: ImagingOrder) -> None:
    uid = begun(service, order.person)
    done(client.post(f"/performed-steps/{uid}/set-aside", headers={"X-Actor": ""}))
    done(client.post(f"/performed-steps/{uid}/set-aside", json={"bring_back": True}, headers={"X-Actor": "a\tb" * 99}))
    actors = [each["actor"] for each in done(client.get(f"/performed-steps/{uid}"))["decisions"]]
    assert actors[1] == "127.0.0.1"
    assert len(actors[0]) <= 64
    assert actors[0].isprintable()


def test_a_quarantine_ends_and_a_step_is_closed(
    service: ServiceProcess, client: httpx.Client, order: ImagingOrder
) -> None:
    stranger = invented_person(9000 + order.number)
    uid = begun(service, stranger, order)
    assert done(client.get(f"/performed-steps/{uid}"))["attention"] == "another patient"
    assert "names another patient" in refused(
        client.post(f"/performed-steps/{uid}/links", json={"accession": order.accession}), 409
    )
    done(client.post(f"/performed-steps/{uid}/release", json={"believed": True}))
    assert status_of(service, order) == "STARTED"
    closing = f"/performed-steps/{uid}/close"
    assert "110513 Discontinued" in refused(client.post(closing, json={"state": "DISCONTINUED", "reason": "x"}), 422)
    assert "has no reason" in refused(client.post(closing, json={"state": "COMPLETED", "reason": "110501"}), 422)
    done(client.post(f"/performed-steps/{uid}/close", json={"state": "COMPLETED"}))
    assert status_of(service, order) == "COMPLETED"
    assert client.post(f"/performed-steps/{uid}/close", json={"state": "COMPLETED"}).status_code == 409


def test_an_order_is_made_of_what_nobody_ordered_and_told(
    service: ServiceProcess, client: httpx.Client, order: ImagingOrder
) -> None:
    uid = begun(service, order.person)
    waiting = done(client.get("/queues"))[0]["waiting"]
    made = done(client.post(f"/performed-steps/{uid}/order", json={}))
    assert isinstance(made["order"], int)
    assert made["performed_step"]["attention"] == ""
    assert done(client.get("/queues"))[0]["waiting"] == waiting + 1
    assert "linked to a scheduled step" in refused(client.post(f"/performed-steps/{uid}/order"), 409)


def test_overdue_work_is_listed(service: ServiceProcess, client: httpx.Client, order: ImagingOrder) -> None:
    assert order.accession in [each["accession"] for each in done(client.get("/orders/overdue"))]
    begun(service, order.person, order)
    assert order.accession not in [each["accession"] for each in done(client.get("/orders/overdue"))]


def test_what_makes_no_sense_is_refused_without_its_values(
    service: ServiceProcess, client: httpx.Client, order: ImagingOrder
) -> None:
    uid = begun(service, order.person)
    links = f"/performed-steps/{uid}/links"
    for body in ({"steps": "MARKED"}, {"steps": [{"MARKED": 1}]}, {"force": "MARKED"}, {"nonsense": "MARKED"}, []):
        answer = client.post(links, json=body)
        assert answer.status_code == 422
        assert "MARKED" not in answer.text
    assert "is no JSON" in refused(client.post(links, content=b"{MARKED"), 422)
    assert "no scheduled step has" in refused(client.post(links, json={"steps": ["NOSUCH"]}), 404)
    assert "nothing says which" in refused(client.post(links, json={}), 422)
    assert client.post(f"/performed-steps/{uid}/close", json={"state": "IN PROGRESS"}).status_code == 422
    assert "did you mean no-order?" in refused(client.get("/performed-steps", params={"attention": "no-ordr"}), 422)
    assert client.get("/performed-steps", params={"limit": 501}).status_code == 422
    assert client.get("/nonsense").status_code == 404
    assert client.put(links, json={}).status_code == 405
    assert done(client.get(f"/performed-steps/{uid}"))["decisions"] == []


def test_a_body_has_an_end(client: httpx.Client) -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(BODY_BYTES_MAX // 1024 + 2):
            yield b" " * 1024

    for content in (b" " * (BODY_BYTES_MAX + 1), endless()):
        answer = client.post("/performed-steps/1.2.3/links", content=content)
        assert "longer than" in refused(answer, 413)


# --- queues


def test_a_queue_is_held_and_released(service: ServiceProcess, client: httpx.Client) -> None:
    (placer,) = done(client.get("/queues"))
    assert (placer["destination"], placer["gets"], placer["held"]) == ("placer", "HL7 v2: status", False)
    assert done(client.post("/queues/placer/hold"))["held"] is True
    exposed = httpx.get(f"http://127.0.0.1:{service.http_port}/metrics").text
    assert 'gateway_outbox_held{destination="placer"} 1.0' in exposed
    assert done(client.post("/queues/placer/release"))["held"] is False
    assert "did you mean placer?" in refused(client.post("/queues/plaser/hold"), 404)


def test_who_held_a_queue_is_kept_and_shown(client: httpx.Client) -> None:
    held = done(client.post("/queues/placer/hold", json={"note": "its disk is full"}, headers={"X-Actor": "anna"}))
    assert (held["held_by"], held["held_why"]) == ("anna", "its disk is full")
    assert done(client.post("/queues/placer/release"))["held_by"] == ""
    released, before, *_ = done(client.get("/queues/placer/decisions"))
    assert (released["action"], released["actor"]) == ("released", "ann")
    assert (before["action"], before["actor"], before["note"]) == ("held", "anna", "its disk is full")


def test_destinations_never_told_anything_and_what_is_to_be_decided_are_counted(
    service: ServiceProcess, client: httpx.Client, order: ImagingOrder
) -> None:
    def count(name: str) -> float:
        exposed = httpx.get(f"http://127.0.0.1:{service.http_port}/metrics").text
        found = re.search(rf"^{re.escape(name)} (\S+)$", exposed, re.MULTILINE)
        assert found is not None, name
        return float(found[1])

    assert count('gateway_outbox_oldest_seconds{destination="placer"}') >= 0
    assert count('gateway_outbox_messages{destination="placer",state="parked"}') == 0
    unlinked = 'gateway_store_rows{what="unlinked_performed_steps"}'
    before = count(unlinked)
    begun(service, order.person)
    assert count(unlinked) == before + 1
    assert count('gateway_store_rows{what="unfinished_performed_steps"}') == 0
    overdue = done(client.get("/orders/overdue", params={"limit": 500}))
    assert count('gateway_store_rows{what="overdue_steps"}') == len(overdue) > 0


# --- who may call


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Host": "localhost:9999"}, 200),  # through a tunnel
        ({"Host": "[::1]:8080"}, 200),
        ({"Host": "evil.example"}, 403),  # DNS rebinding
        ({"Host": "127.0.0.1.evil.example"}, 403),
        ({"Host": "["}, 403),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),  # another server on this machine
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
    ],
)
def test_another_sites_page_is_not_answered(
    service: ServiceProcess, headers: dict[str, str], status: int
) -> None:  # fmt: skip
    connection = HTTPConnection("127.0.0.1", service.http_port)
    connection.request("GET", "/api/queues", headers=headers)
    answer = connection.getresponse()
    said = json.loads(answer.read())
    connection.close()
    assert answer.status == status
    assert status == 200 or said["refusals"][0]["hint"]


@pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
def test_what_a_form_can_send_changes_nothing(service: ServiceProcess, kind: str) -> None:
    url = f"http://127.0.0.1:{service.http_port}/api/queues/placer/hold"
    answer = httpx.post(url, content=b"{}", headers={"Content-Type": kind} if kind else {})
    assert answer.status_code == 415
    (placer,) = httpx.get(f"http://127.0.0.1:{service.http_port}/api/queues").json()
    assert placer["held"] is False


def test_it_is_closed_where_others_reach_it_and_health_is_not(tmp_path: Path) -> None:
    with ServiceProcess(site(tmp_path, http={"host": "0.0.0.0"})) as open_to_all:  # noqa: S104  (that is the point)
        base = f"http://127.0.0.1:{open_to_all.http_port}"
        answer = httpx.get(f"{base}/api/queues")
        assert "closed while http.host is 0.0.0.0" in refused(answer, 403)
        assert httpx.get(f"{base}/health/live").status_code == 200


@pytest.mark.parametrize(
    ("peer", "status"), [("127.0.0.1", 200), ("::ffff:127.0.0.1", 200), ("10.0.0.5", 403), ("nonsense", 403)]
)
def test_a_peer_elsewhere_is_not_answered_whatever_the_settings_say(
    monkeypatch: pytest.MonkeyPatch, peer: str, status: int
) -> None:
    async def nothing(self: DeskAPI, question: object) -> list[object]:
        return []

    monkeypatch.setattr(DeskAPI, "read", nothing)
    desk = DeskAPI(None, lambda: None, datetime.now)  # type: ignore[arg-type]  # nothing is asked of them

    async def ask() -> int:
        transport = httpx.ASGITransport(api(desk, "127.0.0.1", True), client=(peer, 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return (await client.get("/queues")).status_code

    assert asyncio.run(ask()) == status
