"""Liveness, readiness and metrics over HTTP."""

import asyncio
import socket
from collections.abc import Callable, Mapping

import uvicorn
from fastapi import FastAPI
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from gateway.edges.metrics import Metrics


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
