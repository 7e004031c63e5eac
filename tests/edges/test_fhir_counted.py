"""What is counted and logged of requests to our FHIR server: which, what came of them, how long; and no patient."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import structlog
from fhir_site import JSON, ran

from gateway.config import load_site
from gateway.domain.refusal import Refusal, RefusalKind
from gateway.service import Service
from gateway.testing import free_port, site
from gateway.wire.fhir_outcome import error_codes, outcome

PATIENT = {"resourceType": "Patient", "id": "1", "identifier": [{"value": "MARKID"}]}


def test_requests_are_counted_and_those_that_change_something_logged(tmp_path: Path) -> None:
    async def scenario() -> None:
        port = free_port()
        config = site(tmp_path, fhir={}, hl7=[], http={"host": "127.0.0.1", "port": port})
        service = Service(load_site(config))
        await service.start(lambda _: None)
        try:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}/fhir/r4", headers=JSON) as client:
                with structlog.testing.capture_logs() as logs:
                    assert (await client.put("/Patient/1", json=PATIENT)).status_code == 201
                    assert (await client.put("/Patient/1", json={**PATIENT, "gender": "x"})).status_code == 422
                    assert (await client.post("/", json=_batch())).status_code == 200
                    assert (await client.delete("/Markedtype/MARKID")).status_code == 404
                    assert (await client.get("/Patient/1")).status_code == 200
                    assert (await client.get("/Patient?identifier=MARKID")).status_code == 200
                    stranger = {"Authorization": "Bearer MARKID"}
                    assert (await client.put("/Patient/1", json=PATIENT, headers=stranger)).status_code == 401
                metrics = (await client.get(f"http://127.0.0.1:{port}/metrics")).text
        finally:
            await service.stop()
        _are_counted(metrics)
        told = [{name: value for name, value in each.items() if name not in ("log_level", "ms")}
                for each in logs if each["event"] == "fhir_request"]  # fmt: skip
        whoever = {"event": "fhir_request", "client": "loopback", "release": "R4"}
        assert told == [
            {**whoever, "interaction": "update", "type": "Patient", "status": 201, "refusals": []},
            {**whoever, "interaction": "update", "type": "Patient", "status": 422, "refusals": ["code-invalid"]},
            {**whoever, "interaction": "bundle", "type": "", "status": 200, "refusals": ["required"]},
            {**whoever, "interaction": "delete", "type": "", "status": 404, "refusals": ["not-supported"]},
        ]
        assert all(mark not in f"{logs}{metrics}" for mark in ("MARKID", "Markedtype"))

    ran(asyncio.wait_for(scenario(), 60))


def _batch() -> Mapping[str, Any]:
    asked = {"method": "POST", "url": "ServiceRequest"}
    order = {"resourceType": "ServiceRequest", "status": "active", "intent": "order"}
    return {"resourceType": "Bundle", "type": "batch", "entry": [{"resource": order, "request": asked}]}


def _are_counted(metrics: str) -> None:
    lines = dict(line.rsplit(" ", 1) for line in metrics.splitlines() if not line.startswith("#"))
    for interaction, status, count in (
        ("update", 201, 1), ("update", 422, 1), ("update", 401, 1), ("bundle", 200, 1), ("delete", 404, 1),
        ("read", 200, 1), ("search", 200, 1),
    ):  # fmt: skip
        assert lines[f'gateway_fhir_requests_total{{interaction="{interaction}",status="{status}"}}'] == f"{count}.0"
    assert lines['gateway_seconds_count{operation="FHIR update"}'] == "3.0"


def test_what_an_answer_refuses_is_known_by_codes_wherever_it_says_so() -> None:
    gone, wrong = (Refusal(kind, "", "text") for kind in (RefusalKind.GONE, RefusalKind.BAD_VALUE))
    said = outcome([gone, wrong, wrong], ["a remark"])
    assert error_codes(said) == ("deleted", "value")
    assert error_codes(None) == error_codes(outcome([], ["a remark"])) == error_codes({"resourceType": "Task"}) == ()
    entries = [{"response": {"status": "200 OK"}}, {"response": {"outcome": said}}, {"resource": outcome([gone])}]
    assert error_codes({"resourceType": "Bundle", "entry": entries}) == ("deleted", "value")
