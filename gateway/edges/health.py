"""Liveness, readiness and metrics over HTTP, and the server that has the desk's API as well."""

import asyncio
import socket
from collections.abc import Callable, Mapping
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi.responses import JSONResponse, PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.routing import Route
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from gateway.edges.api import DeskAPI, api
from gateway.edges.metrics import Metrics
from gateway.edges.tls_listener import Observe, TLSListener, TLSPort, certificate_shown
from gateway.wire.tls_profiles import HELLO_START, TLS_ON_PLAIN_PORT

__all__ = ["DeskAPI", "HTTPServer", "api", "app"]


def app(
    metrics: Metrics,
    unready: Callable[[], str],
    counts: Callable[[], Mapping[str, int]],
    desk: ASGIApp | None = None,
    fhir: ASGIApp | None = None,
) -> FastAPI:
    """The HTTP application. `unready` says why the service cannot serve now, '' when it can; `desk` is under /api,
    `fhir` at and under /fhir."""
    served = FastAPI(title="Modality worklist gateway", docs_url=None, redoc_url=None, openapi_url=None)
    if desk is not None:
        served.mount("/api", desk)
    if fhir is not None:
        served.router.routes.append(Route("/fhir", fhir))  # clients post to the base without a slash at its end
        served.mount("/fhir", fhir)

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


def _unobserved(event: str, /, **fields: Any) -> None:
    """Nobody listens."""


class HTTPServer(uvicorn.Server):
    """uvicorn inside our event loop: the service owns the signals, and starting returns once it listens.

    With `tls` also over TLS, on a port of its own (`tls_port`); `port` None: there only.
    """

    def __init__(
        self, served: FastAPI, host: str, port: int | None, tls: TLSPort | None = None, observe: Observe = _unobserved
    ) -> None:  # fmt: skip
        super().__init__(
            uvicorn.Config(
                served,
                http=_protocol(observe),
                log_config=None,
                access_log=False,
                lifespan="off",
                server_header=False,
                timeout_graceful_shutdown=2,
            )
        )
        self._host, self._port = host, port
        self._tls = TLSListener("http", host, tls, self._new_connection, observe) if tls is not None else None
        self._serving: asyncio.Task[None] | None = None

    @property
    def tls_port(self) -> int:
        """Where it speaks TLS; 0 where it does not."""
        return self._tls.port if self._tls is not None else 0

    async def start(self) -> None:
        """Bind and listen. Raises OSError if the address is taken."""
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        listening: list[socket.socket] = []
        if self._port is not None:  # here, because uvicorn exits on failure
            listening.append(socket.create_server((self._host, self._port), family=family))
        self.config.load()
        self.lifespan = self.config.lifespan_class(self.config)
        await self.startup(sockets=listening)
        if self._tls is not None:
            await self._tls.start()
        self._serving = asyncio.create_task(self.main_loop())

    async def stop(self) -> None:
        """Close the listener and finish what is in flight."""
        self.should_exit = True
        if self._tls is not None:
            self._tls.close()
        if self._serving is not None:
            await self._serving
            await self.shutdown()

    def _new_connection(self) -> asyncio.Protocol:
        """What uvicorn makes of a connection, for one whose TLS handshake is done."""
        made: asyncio.Protocol = _Secure(config=self.config, server_state=self.server_state, app_state={})
        return made


class _Secure(H11Protocol):
    """uvicorn's own protocol behind TLS: requests know the certificate that their caller showed (`fhir_door`)."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        inside = transport.get_extra_info("ssl_object")
        if inside is not None:
            self.app_state["certificate"] = certificate_shown(inside)
        super().connection_made(transport)


def _protocol(observe: Observe) -> type[asyncio.Protocol]:
    """uvicorn's own protocol for the plain port, which also knows TLS when it sees it."""

    class Plain(H11Protocol):
        _begun = False

        def data_received(self, data: bytes) -> None:
            first, self._begun = not self._begun, True
            if first and data.startswith(HELLO_START):
                remote_host = self.client[0] if self.client else ""
                observe("tls_on_plain_port", listener="http", remote_host=remote_host, text=TLS_ON_PLAIN_PORT)
                self.transport.abort()
                return
            super().data_received(data)

    return Plain
