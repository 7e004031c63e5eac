"""The door behind real sockets: TLS with certificates, keys that a client publishes, and our own client as caller."""

import gzip
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog
from fastapi import FastAPI
from fhir_callers import EHR, Doorway, error_of, form, in_loop
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gateway.config import load_site
from gateway.edges.fhir_client import FHIRClient, FHIRClientError, Trouble
from gateway.edges.fhir_door import Door, DoorSettings, Knock, TurnedAway
from gateway.edges.health import HTTPServer
from gateway.edges.metrics import Tally
from gateway.edges.smart_client_keys import AGAIN_S, UNKNOWN_AGAIN_S, fresh_s
from gateway.edges.tls import ServerTLS, ServingContext, client_context
from gateway.edges.tls_listener import TLSPort
from gateway.fhir_settings import FHIRTLS, FHIRCredentials, FHIRSettings
from gateway.service import Service
from gateway.smart_keys import jwks_of, new_key, pem_of
from gateway.testing import free_port, site
from gateway.wire.fhir_release import Release
from tests.edges.tls_certificates import Shown, TestAuthority


def served(door: Door) -> FastAPI:
    """As the FHIR server has it, with nothing behind the door."""
    app = FastAPI()

    @app.post("/fhir/token")
    async def token(request: Request) -> Response:
        answer = await door.token(Knock.of(request.scope), await request.body())
        return Response(answer.body, answer.status, dict(answer.headers))

    @app.get("/fhir/.well-known/smart-configuration")
    async def configuration(request: Request) -> Response:
        return JSONResponse(door.configuration(Knock.of(request.scope)))

    @app.get("/fhir/{kind}/{name}")
    async def read(request: Request, kind: str, name: str) -> Response:
        found = door.admit(Knock.of(request.scope))
        if isinstance(found, TurnedAway):
            return Response(found.refusal.text, found.status, dict(found.headers))
        return JSONResponse({"resourceType": kind, "id": name, "text": {"div": found.client}})

    return app


@asynccontextmanager
async def listening(
    app: FastAPI, ca: TestAuthority, clients: Any = "requested", own: Shown | None = None
) -> AsyncIterator[int]:
    """The port at which it speaks TLS."""
    own = own or ca.issue("localhost")
    context = ServingContext(ServerTLS(own.certificate, own.key, ca.file, clients=clients))
    server = HTTPServer(app, "127.0.0.1", None, TLSPort(0, context))
    await server.start()
    try:
        yield server.tls_port
    finally:
        await server.stop()


@in_loop
async def test_our_client_signs_in_at_our_door_over_tls_and_its_token_is_bound_to_its_certificate(
    tmp_path: Path,
) -> None:
    ca, key = TestAuthority(tmp_path / "pki"), new_key()
    shown, other = ca.issue("EHR"), ca.issue("OTHER")
    (tmp_path / "ehr.json").write_text(jwks_of([key]))
    (tmp_path / "ehr.pem").write_text(pem_of(key))
    fhir = FHIRSettings.model_validate({"clients": [
        {"name": "ehr", "client_id": EHR, "jwks": "ehr.json", "certificates": ["subject:EHR"]},
        {"name": "scanner", "certificates": ["subject:OTHER"]},
    ]})  # fmt: skip
    door = Door(DoorSettings(fhir, tmp_path, loopback=True), Tally())
    async with listening(served(door), ca) as port:
        url = f"https://localhost:{port}/fhir"
        credentials = FHIRCredentials(client_id=EHR, key="ehr.pem")

        def client(certificate: Any, proof: FHIRCredentials | None = credentials) -> FHIRClient:
            tls = FHIRTLS(ca=ca.file)
            if certificate is not None:
                tls = FHIRTLS(ca=ca.file, certificate=certificate.certificate, key=certificate.key)
            return FHIRClient(url, Release.R4, proof, tls, folder=tmp_path)

        good, plain, by_certificate = client(shown), client(None), client(other, None)
        found = await good.read("Task", "1")
        assert found is not None
        assert found["text"]["div"] == "ehr"
        found = await by_certificate.read("Task", "1")
        assert found is not None
        assert found["text"]["div"] == "scanner"
        with pytest.raises(FHIRClientError) as refused:
            await plain.read("Task", "1")
        assert refused.value.trouble is Trouble.NOT_LET_IN
        assert "invalid_client" in str(refused.value)
        assert good._login is not None
        stolen = await good._login.token()
        async with httpx.AsyncClient(verify=client_context(ca.file), trust_env=False) as thief:
            answer = await thief.get(f"{url}/Task/1", headers={"Authorization": f"Bearer {stolen}"})
        assert answer.status_code == 401
        assert "bound to the certificate" in answer.text
        for each in (good, plain, by_certificate):
            await each.close()
    await door.close()


@in_loop
async def test_a_server_that_cannot_be_trusted_is_told_nothing(tmp_path: Path) -> None:
    ca = TestAuthority(tmp_path / "pki")
    door = Door(DoorSettings(FHIRSettings(), tmp_path, loopback=True), Tally())
    own = ca.issue("localhost")
    async with listening(served(door), ca, "none", own) as port:
        lists = {"clean": ca.revoke(file="clean.pem"), "revoked": ca.revoke(own.serial, file="revoked.pem")}
        url = f"https://localhost:{port}/fhir"
        good = FHIRClient(url, tls=FHIRTLS(ca=ca.file, crl=lists["clean"]))
        assert (await good.read("Task", "1") or {}).get("id") == "1"
        await good.close()
        for tls, word in (
            (FHIRTLS(ca=TestAuthority(tmp_path / "other").file), "authority"),
            (FHIRTLS(), "TLS failed"),
            (FHIRTLS(ca=ca.file, crl=lists["revoked"]), "revoked"),
            (FHIRTLS(ca="none.pem"), "none.pem"),
        ):
            client = FHIRClient(url, tls=tls)
            with pytest.raises(FHIRClientError, match=word) as failed:
                await client.read("Task", "1")
            assert failed.value.trouble is Trouble.UNREACHABLE
            await client.close()
        by_address = FHIRClient(url.replace("localhost", "127.0.0.2"), tls=FHIRTLS(ca=ca.file))
        with pytest.raises(FHIRClientError):
            await by_address.read("Task", "1")
        await by_address.close()
    await door.close()


@dataclass
class Publisher:
    """Where a client publishes its keys."""

    content: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    status: int = 200
    asked: int = 0

    def compress(self, content: bytes) -> None:
        """Compressed, whoever asks."""
        self.content, self.headers = gzip.compress(content), {"Content-Encoding": "gzip"}

    def app(self) -> FastAPI:
        app = FastAPI()
        app.add_middleware(GZipMiddleware, minimum_size=1)  # where it is asked for

        @app.get("/jwks")
        async def jwks() -> Response:
            self.asked += 1
            return Response(self.content, self.status, {**self.headers}, "application/json")

        return app


@asynccontextmanager
async def publishing(folder: Path) -> AsyncIterator[tuple[Publisher, Doorway]]:
    """A client that publishes its keys, and a door that asks it for them."""
    ca, publisher = TestAuthority(folder / "pki"), Publisher()
    async with listening(publisher.app(), ca, "none") as port:
        at = Doorway(folder, {"jwks": f"https://localhost:{port}/jwks", "jwks_ca": ca.file})
        publisher.content = jwks_of([at.key]).encode()
        yield publisher, at
        await at.door.close()


@in_loop
async def test_published_keys_are_fetched_once_while_they_are_fresh(tmp_path: Path) -> None:
    async with publishing(tmp_path) as (publisher, at):
        publisher.headers = {"Cache-Control": "public, max-age=60"}
        for _ in range(3):
            assert (await at.ask(form(at.assertion()))).status == 200
        assert publisher.asked == 1
        at.clock.at += 60
        assert (await at.ask(form(at.assertion()))).status == 200
        assert publisher.asked == 2
        at.door.serve(at.settings(token_s=60))
        assert (await at.ask(form(at.assertion()))).status == 200
        assert publisher.asked == 2, "a reload of other things fetches nothing"


@in_loop
async def test_a_key_that_is_not_known_is_looked_for_once_a_minute(tmp_path: Path) -> None:
    async with publishing(tmp_path) as (publisher, at):
        assert (await at.ask(form(at.assertion()))).status == 200
        newer = new_key()
        publisher.content = jwks_of([at.key, newer]).encode()
        at.clock.at += AGAIN_S
        assert (await at.ask(form(at.assertion(newer)))).status == 200
        assert publisher.asked == 2
        for _ in range(5):
            at.clock.at += AGAIN_S
            assert error_of(await at.ask(form(at.assertion(new_key()))))[0] == "invalid_client"
        assert publisher.asked == 2
        at.clock.at += UNKNOWN_AGAIN_S
        await at.ask(form(at.assertion(new_key())))
        assert publisher.asked == 3


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (lambda each: setattr(each, "status", 500), "500"),
        (lambda each: setattr(each, "status", 302), "302"),
        (lambda each: setattr(each, "content", b"x" * 300_000), "longer"),
        (lambda each: each.compress(b" " * 1_000_000), "compressed"),
        (lambda each: setattr(each, "content", b"<html>"), "no JWKS"),
        (lambda each: setattr(each, "content", b"[" * 100_000), "no JWKS"),
        (lambda each: setattr(each, "content", b'{"keys": [{"kty": "oct", "k": "MARKED"}]}'), "no public key"),
    ],
)
@in_loop
async def test_keys_that_cannot_be_had_refuse_in_words_and_are_not_asked_for_all_the_time(
    spoil: Callable[[Publisher], None], word: str, tmp_path: Path
) -> None:
    async with publishing(tmp_path) as (publisher, at):
        good = publisher.content
        spoil(publisher)
        with structlog.testing.capture_logs() as logs:
            answers = [await at.ask(form(at.assertion())) for _ in range(3)]
        assert [error_of(each)[0] for each in answers] == ["invalid_client"] * 3
        assert word in error_of(answers[0])[1]
        assert publisher.asked == 1
        assert "fhir_keys_not_fetched" in [each["event"] for each in logs]
        assert "MARKED" not in str(logs) + str(answers)
        publisher.content, publisher.status, publisher.headers = good, 200, {}
        at.clock.at += AGAIN_S
        assert (await at.ask(form(at.assertion()))).status == 200


@in_loop
async def test_keys_of_an_address_whose_certificate_others_signed_are_not_believed(tmp_path: Path) -> None:
    async with publishing(tmp_path) as (publisher, at):
        at.client = {**at.client, "jwks_ca": TestAuthority(tmp_path / "other").file}
        at.door.serve(at.settings())
        assert error_of(await at.ask(form(at.assertion())))[0] == "invalid_client"
        assert publisher.asked == 0


@in_loop
async def test_old_keys_hold_to_their_end_while_there_are_no_new_ones_and_no_longer(tmp_path: Path) -> None:
    async with publishing(tmp_path) as (publisher, at):
        publisher.headers = {"Cache-Control": "max-age=60"}
        assert (await at.ask(form(at.assertion()))).status == 200
        publisher.status = 500
        at.clock.at += 59
        assert (await at.ask(form(at.assertion()))).status == 200
        at.clock.at += 1
        assert error_of(await at.ask(form(at.assertion())))[0] == "invalid_client"


@pytest.mark.parametrize(
    ("said", "seconds"),
    [("", 300), ("no-store", 0), ("max-age=60, no-cache", 0), ("Max-Age=10", 10), ("max-age=999999999", 86_400),
     ("max-age=x", 300), ("max-age", 300)],
)  # fmt: skip
def test_cache_control_is_obeyed(said: str, seconds: float) -> None:
    assert fresh_s(said) == seconds


def test_a_request_in_the_state_of_a_connection_without_tls_has_no_certificate() -> None:
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [(b"X-A", b"b")], "client": None}
    assert Knock.of(scope) == Knock("GET", "/", "", [("x-a", "b")])


@in_loop
async def test_the_service_lets_in_who_has_a_token_until_a_reload_takes_the_client_away(tmp_path: Path) -> None:
    ca, key = TestAuthority(tmp_path / "pki"), new_key()
    own = ca.issue("gateway")
    (tmp_path / "ehr.json").write_text(jwks_of([key]))
    (tmp_path / "ehr.pem").write_text(pem_of(key))
    port, plain = free_port(), free_port()
    client = {"name": "ehr", "client_id": EHR, "jwks": "ehr.json", "scopes": ["system/Task.rs"]}

    def configured(**fhir: Any) -> Path:
        return site(
            tmp_path, fhir=fhir, dicom={"host": "127.0.0.1", "port": free_port()},
            hl7=[{"name": "ris", "host": "127.0.0.1", "port": free_port()}],
            http={"host": "127.0.0.1", "port": plain, "tls": {
                "port": port, "certificate": own.certificate, "key": own.key, "clients": "none",
            }},
        )  # fmt: skip

    service = Service(load_site(configured(clients=[client])))
    await service.start(lambda _: None)
    ehr = FHIRClient(
        f"https://localhost:{port}/fhir/r4", Release.R4, FHIRCredentials(client_id=EHR, key="ehr.pem"),
        FHIRTLS(ca=ca.file), folder=tmp_path,
    )  # fmt: skip
    try:
        assert [page["type"] async for page in ehr.search("Task?status=requested")] == ["searchset"]
        assert (await ehr.send("GET", "Patient/1")).status == 403
        async with httpx.AsyncClient(trust_env=False) as stranger:
            refused = await stranger.get(f"http://127.0.0.1:{plain}/fhir/r4/Task")
            assert refused.status_code == 401
            assert refused.headers["WWW-Authenticate"] == 'Bearer realm="fhir"'
            assert refused.json()["resourceType"] == "OperationOutcome"
        configured(clients=[{**client, "client_id": "another"}])
        await service.reload()
        with pytest.raises(FHIRClientError) as failed:
            await ehr.read("Task", "1")
        assert failed.value.trouble is Trouble.NOT_LET_IN
    finally:
        await ehr.close()
        await service.stop()
