"""Liveness, readiness and metrics over HTTP. Metrics count; they never carry a value of a patient."""

import asyncio
import socket
from collections.abc import Callable, Mapping

import uvicorn
from fastapi import FastAPI
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest


class Metrics:
    """The counters of one service."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.messages = Counter(
            "gateway_hl7_messages",
            "HL7 messages by listener and outcome",
            ["listener", "disposition"],
            registry=self.registry,
        )
        self.requests = Counter(
            "gateway_dimse_requests",
            "DIMSE requests by operation and status",
            ["operation", "status"],
            registry=self.registry,
        )
        self.matches = Counter("gateway_worklist_matches", "Worklist answers sent", registry=self.registry)
        self.left_out = Counter(
            "gateway_worklist_items_left_out", "Items that could not be written into an answer", registry=self.registry
        )
        self.associations = Gauge("gateway_associations", "Open DICOM associations", registry=self.registry)
        self.rejected = Counter("gateway_associations_rejected", "Callers not let in", registry=self.registry)
        self.aborted = Counter("gateway_associations_aborted", "Connections ended by an abort", registry=self.registry)
        self.transient = Counter(
            "gateway_transient_failures", "Inputs that could not be stored when they came", registry=self.registry
        )
        self.seconds = Histogram(
            "gateway_seconds",
            "Time to answer, by operation",
            ["operation"],
            registry=self.registry,
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
        )
        self.held = Gauge("gateway_store_rows", "Rows held, by what they are", ["what"], registry=self.registry)


def app(metrics: Metrics, unready: Callable[[], str], counts: Callable[[], Mapping[str, int]]) -> FastAPI:
    """The HTTP application. `unready` says why the service cannot serve now, '' when it can."""
    api = FastAPI(title="Modality worklist gateway", docs_url=None, redoc_url=None, openapi_url=None)

    @api.get("/health/live")
    async def live() -> JSONResponse:
        return JSONResponse({"status": "alive"})

    @api.get("/health/ready")
    async def ready() -> JSONResponse:
        reason = unready()
        return JSONResponse(
            {"status": "not ready", "reason": reason} if reason else {"status": "ready"},
            status_code=503 if reason else 200,
        )

    @api.get("/metrics")
    async def exposition() -> PlainTextResponse:
        for what, count in counts().items():
            metrics.held.labels(what).set(count)
        return PlainTextResponse(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return api


class HTTPServer(uvicorn.Server):
    """uvicorn inside our event loop: the service owns the signals, and starting returns once it listens."""

    def __init__(self, api: FastAPI, host: str, port: int) -> None:
        super().__init__(
            uvicorn.Config(
                api, log_config=None, access_log=False, lifespan="off", server_header=False, timeout_graceful_shutdown=2
            )
        )
        self._address = (host, port)
        self._serving: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Bind and listen. Raises OSError if the address is taken."""
        family = socket.AF_INET6 if ":" in self._address[0] else socket.AF_INET
        listening = socket.create_server(self._address, family=family)  # here, because uvicorn exits on failure
        self.config.load()
        self.lifespan = self.config.lifespan_class(self.config)
        await self.startup(sockets=[listening])
        self._serving = asyncio.create_task(self.main_loop())

    async def stop(self) -> None:
        """Close the listener and finish what is in flight."""
        self.should_exit = True
        if self._serving is not None:
            await self._serving
            await self.shutdown()
