"""Durable FHIR orders over HTTP: beside a server that only parses and commits, one by one, and what reading costs."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from itertools import count
from pathlib import Path

import uvloop

from gateway.config import load_site
from gateway.testing import ServiceProcess
from tests.benchmarks import fhir_traffic, peers
from tests.benchmarks.department import department
from tests.benchmarks.fhir_traffic import Content, written
from tests.benchmarks.measure import Operation, Rate, rate_of, rates, resident_megabytes
from tests.benchmarks.population import order
from tests.benchmarks.questions import HOST
from tests.benchmarks.report import Row

CLIENTS = (1, 8)
NEW = 2_000_000
"""The number of the first order that no store holds; each kind has as many numbers to itself."""
BASE = "/fhir/r4"
_BUNDLES: Sequence[tuple[str, Callable[[int], Content]]] = (
    ("FHIR Bundle: Patient, ServiceRequest", fhir_traffic.plain_bundle),
    ("FHIR Bundle: and Encounter, Practitioner, Task", fhir_traffic.full_bundle),
)
_BARE = "fhir.resources, one commit"

Progress = Callable[[str], None]


def fhir_rows(folder: Path, seconds: float, singles: int, progress: Progress) -> list[Row]:
    """Bundles beside the bare server in turns, then so many single requests of each kind, and the memory."""
    config = department(folder / "fhir", fhir={})
    port = load_site(config).settings.http.port
    rows: list[Row] = []
    with ServiceProcess(config) as service, peers.fhir_receiver(folder) as bare:
        idle = resident_megabytes(service.pid)
        for turn, (what, make) in enumerate(_BUNDLES, 1):
            for clients in CLIENTS:
                named = _named(what, clients)
                progress(named)
                numbers = count(turn * NEW + clients * NEW // 10)
                supply = partial(_next, make, numbers)
                ours, theirs = uvloop.run(_in_turns((port, bare), clients, supply, seconds))
                rows.append(Row(named, ours.per_s, "/s", _BARE, theirs.per_s, times=ours.times))
        for clients in CLIENTS:
            progress(_named("FHIR, single requests", clients))
            rows += uvloop.run(_singles(port, clients, singles))
        loaded = resident_megabytes(service.pid)
    return [*rows, Row("memory, idle, with fhir", idle, "MB"), Row("memory after these, with fhir", loaded, "MB")]


def _next(make: Callable[[int], Content], numbers: "count[int]") -> Content:
    return make(next(numbers))


def _named(what: str, clients: int) -> str:
    return f"{what}, {clients} client{'s' if clients > 1 else ''}"


async def _in_turns(
    ports: Sequence[int], clients: int, make: Callable[[], Content], seconds: float
) -> list[Rate]:  # fmt: skip
    async with AsyncExitStack() as connected:
        several = [[await connected.enter_async_context(HTTPClient(port)) for _ in range(clients)] for port in ports]
        return await rates([[_posting(client, make) for client in each] for each in several], seconds)


def _posting(client: "HTTPClient", make: Callable[[], Content]) -> Operation:
    async def post() -> None:
        await client.ask("POST", BASE, written(make()))

    return post


async def _singles(port: int, clients: int, times: int) -> list[Row]:
    """Orders for patients that are there: created, changed, read, found; so many of each, between these clients."""
    async with AsyncExitStack() as connected:
        each = [await connected.enter_async_context(HTTPClient(port)) for _ in range(clients)]
        patient, _ = await each[0].ask("POST", f"{BASE}/Patient", written(fhir_traffic.patient(order(0))))
        made: list[str] = []
        numbers = count(5 * NEW + clients * NEW // 10)

        async def create(client: HTTPClient) -> None:
            content = fhir_traffic.service_request(order(next(numbers)), patient)
            made.append((await client.ask("POST", f"{BASE}/ServiceRequest", written(content)))[0])

        async def change(client: HTTPClient) -> None:
            address = made.pop(0)
            content = fhir_traffic.service_request(order(next(numbers)), patient)
            changed = content | {"id": address.rpartition("/")[2], "priority": "urgent"}
            made.append((await client.ask("PUT", f"{BASE}/{address}", written(changed)))[0])

        async def read(client: HTTPClient) -> None:
            made.append(made.pop(0))
            await client.ask("GET", f"{BASE}/{made[-1]}")

        async def search(client: HTTPClient) -> None:
            sought = order(NEW + NEW // 10 + next(numbers) % 20).placer
            await client.ask("GET", f"{BASE}/ServiceRequest?identifier={sought}")

        rows = []
        for what, ask in (("POST of a ServiceRequest", create), ("PUT of a changed one", change),
                          ("read", read), ("search by order number", search)):  # fmt: skip
            operations = [_asking(ask, client) for client in each]
            await rate_of(operations, clients)
            rate = await rate_of(operations, max(times, 2 * clients))
            rows.append(Row(_named(f"FHIR: {what}", clients), rate.per_s, "/s", times=rate.times))
        return rows


def _asking(ask: Callable[["HTTPClient"], Awaitable[None]], client: "HTTPClient") -> Operation:
    async def once() -> None:
        await ask(client)

    return once


class HTTPClient:
    """A connection that is kept, with one request at a time and hardly any work: the servers share its cores."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def __aenter__(self) -> "HTTPClient":
        self._reader, self._writer = await asyncio.open_connection(HOST, self._port)
        return self

    async def __aexit__(self, *about: object) -> None:
        self._writer.close()
        await self._writer.wait_closed()

    async def ask(self, method: str, path: str, body: bytes = b"") -> tuple[str, bytes]:
        """`Type/id` that the answer says something is at, and its body. Raises RuntimeError if it is none of 2xx."""
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: {HOST}:{self._port}\r\nAccept: application/fhir+json\r\n"
            f"Content-Type: application/fhir+json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        self._writer.write(head.encode() + body)
        status, *lines = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        data = await self._reader.readexactly(int(headers.get("content-length", "0")))
        if not status.startswith("HTTP/1.1 2"):
            raise RuntimeError(f"{method} {path}: {status}, {data[:500]!r}")
        address = headers.get("location", "").partition("/_history")[0]
        if not address and data[:1] == b"{":
            content = json.loads(data)
            address = f"http://server/{content.get('resourceType')}/{content.get('id')}"
        return "/".join(address.split("/")[-2:]), data
