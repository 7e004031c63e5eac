"""Clients of our FHIR server for tests: their keys, their assertions, and a door that knows them."""

import asyncio
import json
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import jwt

from gateway.domain.access import Certificate
from gateway.edges.fhir_door import Authorised, Door, DoorSettings, Knock, TurnedAway
from gateway.edges.metrics import Tally
from gateway.edges.smart_tokens import ASSERTION_TYPE, TokenAnswer
from gateway.fhir_settings import FHIRSettings
from gateway.smart_keys import SigningKey, jwks_of, new_key

URL = "https://gateway.example/fhir"
TOKEN_URL = f"{URL}/token"
EHR = "ehr-client"


@dataclass
class Clock:
    """Stands still until it is moved."""

    at: float = field(default_factory=lambda: float(int(time.time())))

    def __call__(self) -> float:
        return self.at


def in_loop(story: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """A test that needs an event loop."""

    @wraps(story)
    def told(*fixtures: Any, **named: Any) -> None:
        asyncio.run(story(*fixtures, **named))

    return told


def form(assertion: str, scope: str = "system/*.cruds", **fields: str) -> bytes:
    """A token request."""
    return urlencode({
        "grant_type": "client_credentials", "client_assertion_type": ASSERTION_TYPE, "client_assertion": assertion,
        "scope": scope, **fields,
    }).encode()  # fmt: skip


@dataclass
class Doorway:
    """A door with one client, whose key stands in a file, and what is asked of it."""

    folder: Path
    client: Mapping[str, Any] = field(default_factory=dict)
    fhir: Mapping[str, Any] = field(default_factory=dict)
    loopback: bool = False
    key: SigningKey = field(default_factory=new_key)

    def __post_init__(self) -> None:
        (self.folder / "ehr.json").write_text(jwks_of([self.key]))
        self.tally, self.clock = Tally(), Clock()
        self.door = Door(self.settings(), self.tally, self.clock, self.clock)

    def settings(self, **fhir: Any) -> DoorSettings:
        client = {"name": "ehr", "client_id": EHR, "jwks": "ehr.json", **self.client}
        said = {"url": URL, "clients": (client,), **self.fhir, **fhir}
        return DoorSettings(FHIRSettings.model_validate(said), self.folder, self.loopback)

    def assertion(self, key: SigningKey | None = None, header: Mapping[str, Any] | None = None, **claims: Any) -> str:
        """As a client makes one; a claim or a header that is None is left out."""
        key, now = key or self.key, int(self.clock.at)
        said = {
            "iss": EHR, "sub": EHR, "aud": TOKEN_URL, "exp": now + 240, "iat": now, "jti": new_number(), **claims,
        }  # fmt: skip
        headers = {"kid": key.key_id, **(header or {})}
        return jwt.encode(
            {name: value for name, value in said.items() if value is not None}, key.key, key.algorithm,
            headers={name: value for name, value in headers.items() if value is not None},
        )  # fmt: skip

    async def ask(self, body: bytes, **knock: Any) -> TokenAnswer:
        headers = [("content-type", "application/x-www-form-urlencoded"), ("host", "gateway.example")]
        return await self.door.token(knocking("POST", **{"headers": headers, **knock}), body)

    async def token(self, scope: str = "system/*.cruds", **knock: Any) -> str:
        answer = await self.ask(form(self.assertion(), scope), **knock)
        assert answer.status == 200, answer
        return str(json.loads(answer.body)["access_token"])

    def admit(self, token: str = "", *headers: tuple[str, str], **knock: Any) -> Authorised | TurnedAway:
        said = [("host", "gateway.example"), *headers]
        if token:
            said.append(("authorization", f"Bearer {token}"))
        return self.door.admit(knocking("GET", headers=said, **knock))


_numbers = iter(range(1_000_000))


def new_number() -> str:
    return f"number-{next(_numbers)}"


def knocking(
    method: str,
    query: str = "",
    headers: list[tuple[str, str]] | None = None,
    peer: str = "192.0.2.7",
    encrypted: bool = True,
    certificate: Certificate | None = None,
) -> Knock:
    return Knock(method, "/fhir/r4/ServiceRequest", query, headers or [], peer, encrypted, certificate)


def error_of(answer: TokenAnswer) -> tuple[str, str]:
    said = json.loads(answer.body)
    return said["error"], said["error_description"]
