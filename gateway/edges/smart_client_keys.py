"""The public keys of one client of our FHIR server: from its file, or from the address where it publishes them.

What may live here: when keys are read or fetched, and how long they are gone by. Nothing here blocks the event loop.
"""

import asyncio
import ssl
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import structlog

from gateway.edges.identity_memory import Unreadable, WatchedFile
from gateway.edges.smart_tokens import TokenError
from gateway.edges.tls import CallingContext
from gateway.fhir_files import is_published, is_safe
from gateway.fhir_settings import FHIRClientSettings
from gateway.identity_keys import VerifyingKey, published_keys, read_keys

FETCH_S = 10.0
"""For a whole answer: who asks for a token waits for it."""
BYTES_MAX = 262_144
"""Longest set of keys that is read: 64 keys of RSA 8192 are half of it."""

FRESH_S = 300.0
"""How long fetched keys are gone by where the answer does not say (Cache-Control)."""
FRESH_MAX_S = 86_400.0
"""And at most, so that a key that was taken back does not hold for longer."""

AGAIN_S = 5.0
"""Between two looks, whatever Cache-Control says: no-store would have every token request ask there."""
UNKNOWN_AGAIN_S = 60.0
"""Between two looks because of a key that is not among them: anybody can name one."""

_log = structlog.get_logger()


class ClientKeys:
    """The keys of one client. For one event loop."""

    def __init__(
        self, client: FHIRClientSettings, folder: Path, ca: str, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """`ca` is the file of authorities of the whole gateway; paths are relative to `folder`."""
        self._client, self._folder, self._ca, self._monotonic = client, folder, ca, monotonic
        self._fetched: tuple[VerifyingKey, ...] = ()
        self._file: WatchedFile[tuple[VerifyingKey, ...]] | None = None
        if not is_published(client.jwks):
            self._file = WatchedFile(folder / client.jwks, read_keys, (), self._tell)
        self._fresh_until = self._not_before = self._unknown_not_before = float("-inf")
        self._failed = ""
        self._fetching = asyncio.Lock()
        self._context: CallingContext | None = None

    def comes_from(self, folder: Path, ca: str) -> bool:
        """Whether its paths mean the same as ever."""
        return (folder, ca) == (self._folder, self._ca)

    async def keys(self, key_id: str) -> tuple[VerifyingKey, ...]:
        """Those of this name. Raises TokenError where there is none."""
        if self._file is not None:
            held = await asyncio.to_thread(self._file.content)
            return self._named(held, key_id, f"the file of the client's keys ({self._file.path.name})")
        async with self._fetching:
            if self._monotonic() >= self._fresh_until:
                await self._fetch()
            elif not _of(self._fetched, key_id) and self._monotonic() >= self._unknown_not_before:
                self._unknown_not_before = self._monotonic() + UNKNOWN_AGAIN_S
                await self._fetch()
            return self._named(self._fetched, key_id, "what the client publishes at its jwks address")

    def _named(self, held: tuple[VerifyingKey, ...], key_id: str, where: str) -> tuple[VerifyingKey, ...]:
        if not held:
            why = self._failed or "see the gateway's log and `gateway check`"
            raise TokenError("invalid_client", f"no key can be had from {where}: {why}", client=self._client.name)
        found = _of(held, key_id)
        if not found:
            raise TokenError("invalid_client", f"no key of this name (kid) is in {where}", client=self._client.name)
        return found

    async def _fetch(self) -> None:
        """Keys as they are published now. Where there are none to be had, the old ones hold to their end."""
        now = self._monotonic()
        if now < self._not_before:
            if now >= self._fresh_until:
                self._fetched = ()
            return
        self._not_before = now + AGAIN_S
        try:
            async with asyncio.timeout(FETCH_S):
                content, fresh_s = await self._answer()
            self._fetched, self._failed = await asyncio.to_thread(published_keys, content), ""
            self._fresh_until = now + max(fresh_s, AGAIN_S)
        except (httpx.HTTPError, OSError, ValueError, ssl.SSLError) as error:
            self._failed = _words(error)
            if now >= self._fresh_until:
                self._fetched = ()
            _log.warning("fhir_keys_not_fetched", client=self._client.name, text=self._failed)

    async def _answer(self) -> tuple[bytes, float]:
        """The body, and for how many seconds it holds. Raises httpx.HTTPError, OSError, ValueError with words."""
        if not is_safe(self._client.jwks):
            raise ValueError("its address is not https://")
        async with httpx.AsyncClient(verify=self._tls(), trust_env=False, timeout=FETCH_S) as http:
            headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
            async with http.stream("GET", self._client.jwks, headers=headers) as answer:
                if answer.status_code != 200:
                    raise ValueError(f"its address answers {answer.status_code}")
                if answer.headers.get("content-encoding", "identity").lower() != "identity":
                    raise ValueError("its answer is compressed, which nobody asked for")
                content = b""
                async for chunk in answer.aiter_raw():
                    content += chunk
                    if len(content) > BYTES_MAX:
                        raise ValueError(f"its answer is longer than {BYTES_MAX} bytes")
            return content, fresh_s(answer.headers.get("cache-control", ""))

    def _tls(self) -> ssl.SSLContext:
        if self._context is None:
            ca = self._client.jwks_ca or self._ca
            self._context = CallingContext(str(self._folder / ca) if ca else None)
        return self._context()

    def _tell(self, unreadable: Unreadable) -> None:
        _log.error("fhir_keys_unreadable", client=self._client.name, file=unreadable.path.name, text=unreadable.words)


def _of(keys: tuple[VerifyingKey, ...], key_id: str) -> tuple[VerifyingKey, ...]:
    """Those of this name; a file in PEM form names none, so its keys are all tried."""
    return tuple(each for each in keys if each.key_id in (key_id, ""))


def fresh_s(cache_control: str) -> float:
    """For how many seconds an answer may be kept (RFC 9111 5.2.2), where it says nothing for `FRESH_S`."""
    said = dict(part.strip().lower().partition("=")[::2] for part in cache_control.split(","))
    if "no-store" in said or "no-cache" in said:
        return 0.0
    age = said.get("max-age", "").strip('"')
    return min(float(age), FRESH_MAX_S) if age.isdigit() else FRESH_S


def _words(error: Exception) -> str:
    if isinstance(error, httpx.HTTPError):
        return f"its address cannot be asked ({type(error).__name__})"
    if isinstance(error, TimeoutError):
        return f"its address did not answer within {FETCH_S:.0f} s"
    return str(error)
