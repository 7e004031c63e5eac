"""Liveness, readiness and metrics over HTTP, and the server that has the desk's API as well."""

import asyncio
import socket
from collections.abc import Callable, Mapping

import uvicorn
from fastapi import FastAPI
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.types import ASGIApp

from gateway.edges.api import DeskAPI, api
from gateway.edges.metrics import Metrics

__all__ = ["DeskAPI", "HTTPServer", "api", "app"]


def app(
    metrics: Metrics,
    unready: Callable[[], str],
    counts: Callable[[], Mapping[str, int]],
    desk: ASGIApp | None = None,
) -> FastAPI:
    """The HTTP application. `unready` says why the service cannot serve now, '' when it can; `desk` is under /api."""
    served = FastAPI(title="Modality worklist gateway", docs_url=None, redoc_url=None, openapi_url=None)
    if desk is not None:
        served.mount("/api", desk)

    @served.get("/health/live")
    async def live() -> JSONResponse:
        return JSONResponse({"status": "alive"})

    @served.get("/health/ready")
    async def ready() -> JSONResponse:
        reason = unready()
        return JSONResponse(
            {"status": "not ready", "reason": reason} if reason else {"status": "ready"},
            status_code=503 if reason else 200,
        )

    @served.get("/metrics")
    async def exposition() -> PlainTextResponse:
        for what, count in counts().items():
            metrics.held.labels(what).set(count)
        return PlainTextResponse(generate_latest(metrics.registry), media_type=CONTENT_TYPE_LATEST)

    return served


class HTTPServer(uvicorn.Server):
    """uvicorn inside our event loop: the service owns the signals, and starting returns once it listens."""

    def __init__(self, served: FastAPI, host: str, port: int) -> None:
        super().__init__(
            uvicorn.Config(
                served,
                log_config=None,
                access_log=False,
                lifespan="off",
                server_header=False,
                timeout_graceful_shutdown=2,
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
