"""What our FHIR server says of itself as OpenAPI is so: Schemathesis asks by it, with good data and bad."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from gateway.wire import fhir_xml
from gateway.wire.fhir_capability import SERVED
from gateway.wire.fhir_release import Release
from tests.edges.fhir_site import served

EXAMPLES = 5
"""Of each operation and kind of data: with twenty operations a minute at most."""
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server in a thread: Schemathesis asks without an event loop."""
    folder: Path = tmp_path_factory.mktemp("fhir")
    ready, ended = threading.Event(), asyncio.Event()
    said: list[str] = []
    loop = asyncio.new_event_loop()

    async def serve() -> None:
        async with served(folder) as (client, _):
            said.append(str(client.base_url).rstrip("/"))
            ready.set()
            await ended.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()))
    thread.start()
    assert ready.wait(60)
    yield f"{said[0]}/fhir/r4"
    loop.call_soon_threadsafe(ended.set)
    thread.join(60)
    loop.close()


def is_resource(response: Any) -> bool:
    """Whether it is a resource in one of the two formats; an OperationOutcome where it is a refusal."""
    if not response.content:
        return response.status_code < 400
    (kind,) = response.headers["content-type"]
    if kind.startswith("application/fhir+xml"):
        resource = fhir_xml.parse(response.content, Release.R4)
    else:
        resource = response.json()
    return (resource["resourceType"] == "OperationOutcome") or response.status_code < 400


def operations(address: str) -> list[str]:
    described = httpx.get(f"{address}/openapi.json").json()
    return [f"{method.upper()} {path}" for path, methods in described["paths"].items() for method in methods]


def test_every_route_is_described(address: str) -> None:
    said = operations(address)
    assert "POST /" in said
    assert "GET /{type}/{id}" in said
    described = httpx.get(f"{address}/openapi.json").json()
    named = [each["operationId"] for methods in described["paths"].values() for each in methods.values()]
    assert len(set(named)) == len(named) == len(said)
    types = described["paths"]["/{type}"]["get"]["parameters"][0]["schema"]["enum"]
    assert types == list(SERVED)


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_whatever_is_asked_is_answered_by_a_resource_and_as_described(address: str, mode: GenerationMode) -> None:
    schema = schemathesis.openapi.from_url(f"{address}/openapi.json")
    found = [result.ok() for result in schema.get_all_operations()]
    # Of one that takes nothing, nothing can be wrong.
    asked = [answered(each, mode) for each in found if mode is GenerationMode.POSITIVE or takes_something(each)]
    assert len(asked) >= len(operations(address)) - 1
    assert all(asked)


def takes_something(operation: Any) -> bool:
    return bool(operation.body) or any(True for _ in operation.iter_parameters())


def answered(operation: Any, mode: GenerationMode) -> int:
    """Ask by one operation, and check each answer. Returns how often."""
    asked = 0

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=EXAMPLES, deadline=None, database=None, derandomize=True, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    def ask(case: Any) -> None:
        nonlocal asked
        response = case.call()
        case.validate_response(response, checks=CHECKS)
        assert response.status_code < 500
        assert is_resource(response)
        asked += 1

    ask()
    return asked
