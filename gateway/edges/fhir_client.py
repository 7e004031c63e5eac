"""The client to other FHIR servers: bounded, on one origin, and as SMART Backend Services has it where they ask for it.

What may live here: HTTP to one server, and its answers as resources. What is asked and why is the caller's matter. A
server may be slow, lie about its pages or lead elsewhere: every answer has an end in bytes, pages and seconds, and
nothing is asked of any other place than the one that is configured (but tokens, where that server says).

Words of errors have no content of an answer, so that they may go to a log; nor has anything here an URL with a query.
"""

import asyncio
import re
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from email.utils import parsedate_to_datetime
from enum import StrEnum
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx

from gateway.domain.access import is_public
from gateway.domain.refusal import Refused
from gateway.domain.resources import Resource
from gateway.edges.handshake_words import Side, explained
from gateway.edges.resolving import LookUp, look_up
from gateway.edges.smart_tokens import ASSERTION_TYPE
from gateway.edges.tls import CallingContext
from gateway.fhir_files import is_safe
from gateway.fhir_settings import FETCHING, FHIRTLS, FHIRCredentials, FHIRFeedSettings
from gateway.smart_keys import SigningKey, read_signing_key
from gateway.wire import fhir_json
from gateway.wire.fhir_bounds import Bounds
from gateway.wire.fhir_release import Release

BODY_BYTES_MAX = 32 * 1_048_576
"""Longest answer taken: a page of 1000 orders with all that they name has some megabytes."""
ENTRIES_MAX = 10_000
"""Of one page: what is included comes on top of what was counted."""
TOKEN_BYTES_MAX = 65_536
"""Longest answer of a token endpoint, or of what says where it is."""

PAGES_MAX = 1_000
"""Pages of one search, where the caller does not say."""

TRIES = 3
"""Of one read that is told to come back later."""
WAIT_MAX_S = 30.0
"""As Retry-After is waited for here; longer waits are the caller's."""
RETRY_AFTER_MAX_S = 3_600.0

EARLY_S = 30.0
"""A token is used no more so long before its end (half of its life at most): it takes time to get there."""

IN_THREAD_BYTES = 65_536
"""Answers that are longer are read beside the event loop."""

TOKEN_S_MAX = 86_400
"""A token is used no longer, whatever is said of it: a clock that was wrong when it was given has an end then."""

_LOOKING_UP = ThreadPoolExecutor(8, "look-up")
"""Whoever names an address may have a name server that never answers: that takes the threads of nobody else."""

asyncio_sleep = asyncio.sleep

_TYPE = re.compile(r"[A-Z][A-Za-z]{1,63}")
_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")
_ISSUE_CODE = re.compile(r"[a-z-]{1,32}")
_MEDIA_TYPES = frozenset(("application/fhir+json", "application/json", "text/json"))


class Trouble(StrEnum):
    """Why an exchange came to nothing, by what to do next."""

    UNREACHABLE = "cannot be reached"
    """Come again: no connection, no TLS, no answer in time, or 429, 502, 503, 504."""
    NOT_LET_IN = "does not let us in"
    """Somebody has to look at credentials: 401, 403, or no token."""
    REFUSED = "refuses"
    """Another 4xx or 5xx: the same request will be refused again."""
    UNTRUSTED = "answers what is not taken"
    """Too long, no FHIR, a redirect, pages in a circle or elsewhere."""


class FHIRClientError(Exception):
    """An exchange came to nothing. The words name the server's part in it and no content; `status` is 0 where no answer
    came. `retry_after_s` is what the server asks for, 0 where it says nothing. `outcome` is an OperationOutcome for the
    archive, never for the log."""

    def __init__(
        self,
        trouble: Trouble,
        text: str,
        status: int = 0,
        retry_after_s: float = 0.0,
        outcome: Resource | None = None,
    ) -> None:
        self.trouble, self.text, self.status = trouble, text, status
        self.retry_after_s, self.outcome = retry_after_s, outcome
        super().__init__(f"it {trouble}: {text}")

    @property
    def is_transient(self) -> bool:
        """Whether it may go well later without anybody doing anything."""
        return self.trouble is Trouble.UNREACHABLE

    @property
    def is_of_all(self) -> bool:
        """Whether whatever else is asked comes to nothing as well: it is away, or does not take our proof. A 403 may be
        of one resource."""
        return self.is_transient or (self.trouble is Trouble.NOT_LET_IN and self.status != 403)


def in_a_circle() -> FHIRClientError:
    """What pages are that lead back to one of them."""
    return FHIRClientError(Trouble.UNTRUSTED, "its pages go round in a circle")


@dataclass(frozen=True, slots=True)
class Answered:
    """An HTTP answer. Names of headers are in lower case; `resource` is None where there was no body."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    resource: Resource | None = field(default=None, repr=False)

    @property
    def is_success(self) -> bool:
        """2xx."""
        return 200 <= self.status < 300

    @property
    def retry_after_s(self) -> float:
        """What Retry-After asks for, in seconds; 0 where it asks for nothing."""
        return retry_after_s(self.headers.get("retry-after", ""), datetime.now(UTC))

    def expected(self) -> "Answered":
        """This answer where it is a success. Raises FHIRClientError."""
        if self.is_success:
            return self
        outcome = self.resource if (self.resource or {}).get("resourceType") == "OperationOutcome" else None
        if self.status in (429, 502, 503, 504):
            trouble, text = Trouble.UNREACHABLE, f"it answers {self.status} for now"
        elif self.status in (401, 403):
            trouble, text = Trouble.NOT_LET_IN, f"it answers {self.status}: look at the credentials and their scopes"
        else:
            trouble, text = Trouble.REFUSED, f"it answers {self.status}{_issues(outcome)}"
        raise FHIRClientError(trouble, text, self.status, self.retry_after_s, outcome)


def _issues(outcome: Resource | None) -> str:
    """The codes of its issues, which are of a fixed list; texts may name a patient."""
    found = outcome.get("issue") if outcome else None
    codes = [str(each.get("code", "")) for each in found if isinstance(each, dict)] if isinstance(found, list) else []
    known = [each for each in dict.fromkeys(codes) if _ISSUE_CODE.fullmatch(each)]
    return f" ({', '.join(known[:5])})" if known else ""


def retry_after_s(said: str, now: datetime) -> float:
    """Seconds, or a date, as RFC 9110 10.2.3 has it: never negative, never more than `RETRY_AFTER_MAX_S`."""
    if said.strip().isascii() and said.strip().isdigit():
        return min(float(said), RETRY_AFTER_MAX_S)
    with suppress(ValueError, TypeError, OverflowError):
        return min(max(0.0, (parsedate_to_datetime(said) - now).total_seconds()), RETRY_AFTER_MAX_S)
    return 0.0


class FHIRClient:
    """One other FHIR server. For one event loop; connections are kept between exchanges until `close`."""

    def __init__(
        self,
        url: str,
        release: Release = Release.R4,
        credentials: FHIRCredentials | None = None,
        tls: FHIRTLS | None = None,
        timeout_s: float = 30.0,
        folder: Path = Path(),
        clock: Callable[[], float] = time.time,
        *,
        scope: str = FETCHING,
        public_only: bool = False,
        look_up: LookUp = look_up,
    ) -> None:
        """`url` is its base address; files of `credentials` and `tls` are relative to `folder`; `timeout_s` is for any
        one answer, from the first byte asked to the last one got. Files are read when they are used first. `scope` is
        what tokens are asked for where `credentials` do not say.

        `public_only`: the address was named by somebody who is not trusted with ours, so nothing is sent unless
        `look_up` has only addresses of the Internet for it; then it is sent to one of these.

        Raises ValueError where `url` is no address.
        """
        self._public_only, self._look_up = public_only, look_up
        self.url = url.rstrip("/")
        self.release = release
        self._timeout_s = timeout_s
        self._tls, self._folder = tls or FHIRTLS(), folder
        self._context: CallingContext | None = None
        self._http: httpx.AsyncClient | None = None
        self._made_by: object = None
        try:
            self._origin = _origin_of(self.url)
        except httpx.InvalidURL:
            raise ValueError("that is no address") from None
        self._bounds = Bounds(bytes_max=BODY_BYTES_MAX, entries_max=ENTRIES_MAX)
        self._login = _Login(self, credentials, credentials.scope or scope, clock) if credentials is not None else None

    @classmethod
    def of_feed(cls, feed: FHIRFeedSettings, folder: Path) -> "FHIRClient":
        """The client to the server of this feed."""
        return cls(
            feed.url, feed.release, feed.credentials, feed.tls, feed.timeout_s, folder, scope=feed.needed_scope
        )  # fmt: skip

    async def close(self) -> None:
        """Give connections back."""
        http, self._http = self._http, None
        if http is not None:
            await http.aclose()

    # --- FHIR -------------------------------------------------------------------------------------------------------

    async def read(self, resource_type: str, resource_id: str) -> Resource | None:
        """The resource as it is there now; None where there is none (404, 410). Raises FHIRClientError."""
        if not _TYPE.fullmatch(resource_type) or not _ID.fullmatch(resource_id) or not resource_id.strip("."):
            raise FHIRClientError(Trouble.REFUSED, "that is no type and id of a resource")
        answer = await self._patiently(f"{resource_type}/{resource_id}")
        if answer.status in (404, 410):
            return None
        found = answer.expected().resource or {}
        if found.get("resourceType") != resource_type or found.get("id") != resource_id:
            raise FHIRClientError(Trouble.UNTRUSTED, "it answers another resource than was asked for", answer.status)
        return found

    async def search(self, query: str, pages_max: int = PAGES_MAX) -> AsyncIterator[Resource]:
        """The pages of a search, each a Bundle, such as `ServiceRequest?status=active`; no more than `pages_max`.

        Raises FHIRClientError, also where a page leads to another origin or to one that was there.
        """
        url = self._place(query)
        seen: set[str] = set()
        for _ in range(pages_max):
            seen.add(url)
            page = await self.page(url)
            yield page
            following = self.after(page, url)
            if not following:
                return
            url = following
            if url in seen:
                raise in_a_circle()

    async def page(self, query: str) -> Resource:
        """One page of a search, which may also be the address that `after` gave. Raises FHIRClientError."""
        page = (await self._patiently(self._place(query))).expected().resource or {}
        if page.get("resourceType") != "Bundle" or page.get("type") != "searchset":
            raise FHIRClientError(Trouble.UNTRUSTED, "a page of its search is no Bundle of type searchset")
        return page

    def after(self, page: Resource, query: str) -> str:
        """The address of the page after this one, '' at the end. Raises FHIRClientError where it leads elsewhere."""
        following = _next_of(page)
        return self._place(_joined(self._place(query), following)) if following else ""

    async def transaction(self, bundle: Resource) -> Resource:
        """The answer to a transaction or batch Bundle. Raises FHIRClientError."""
        answer = (await self.send("POST", "", bundle)).expected()
        if answer.resource is None or answer.resource.get("resourceType") != "Bundle":
            raise FHIRClientError(Trouble.UNTRUSTED, "its answer to a transaction is no Bundle", answer.status)
        return answer.resource

    async def send(
        self,
        method: str,
        url: str = "",
        resource: Resource | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answered:
        """One exchange, whatever its status; `url` below the base address, or absolute on the same origin.

        A token that is not taken any more is replaced once. Raises FHIRClientError where there is no answer that could
        be read.
        """
        place = self._place(url)
        answer, token = await self._exchange(method, place, resource, headers or {})
        if answer.status == 401 and self._login is not None:
            self._login.forget(token)
            answer, _ = await self._exchange(method, place, resource, headers or {})
        return answer

    async def _patiently(self, url: str) -> Answered:
        """Read, and again where the server says when (Retry-After)."""
        for left in reversed(range(TRIES)):
            answer = await self.send("GET", url)
            wait_s = answer.retry_after_s
            if answer.status not in (429, 503) or not left or not 0 < wait_s <= WAIT_MAX_S:
                return answer
            await asyncio_sleep(wait_s)
        raise AssertionError("the last try returns")  # pragma: no cover

    # --- HTTP -------------------------------------------------------------------------------------------------------

    def is_here(self, url: str) -> bool:
        """Whether a whole address is on the same origin as the one that is configured."""
        try:
            return _origin_of(url) == self._origin and ".." not in urlsplit(url).path.split("/")
        except (ValueError, httpx.InvalidURL):
            return False

    def _place(self, url: str) -> str:
        """The whole address, which is never on another origin. Raises FHIRClientError."""
        whole = url if "://" in url.partition("?")[0] else f"{self.url}/{url.lstrip('/')}".rstrip("/")
        if not self.is_here(whole):
            raise FHIRClientError(
                Trouble.UNTRUSTED, "an address leads to another place than the one that is configured; where that "
                "server has two, configure the one by which it names itself",
            )  # fmt: skip
        return whole.partition("#")[0]

    async def _exchange(
        self, method: str, url: str, resource: Resource | None, headers: Mapping[str, str]
    ) -> tuple[Answered, str]:
        """One request with a token, where there is one, which is returned too."""
        kind = f"application/fhir+json; fhirVersion={self.release.parameter}"
        said = {"Accept": kind, **headers}
        if resource is not None:
            said = {"Content-Type": kind, **said}
        async with _bounded(self._timeout_s):
            token = ""
            if self._login is not None:
                token = await self._login.token()
                said["Authorization"] = f"Bearer {token}"
            content = fhir_json.write(resource) if resource is not None else None
            status, received, body = await self.exchange(method, url, content, said, BODY_BYTES_MAX)
        return Answered(status, received, await self._resource_in(status, received, body)), token

    async def _resource_in(self, status: int, headers: Mapping[str, str], body: bytes) -> Resource | None:
        if not body.strip() or status == 204:
            return None
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        is_success = 200 <= status < 300
        try:
            if kind not in _MEDIA_TYPES:
                raise FHIRClientError(Trouble.UNTRUSTED, "its answer is no FHIR in JSON", status)
            if len(body) > IN_THREAD_BYTES:
                return await asyncio.to_thread(fhir_json.parse, body, self._bounds)
            return fhir_json.parse(body, self._bounds)
        except (FHIRClientError, Refused):
            if is_success:
                raise FHIRClientError(Trouble.UNTRUSTED, "its answer is no FHIR in JSON, or too much", status) from None
            return None  # the status says enough; proxies answer in HTML

    async def exchange(
        self, method: str, url: str, content: bytes | None, headers: Mapping[str, str], bytes_max: int
    ) -> tuple[int, Mapping[str, str], bytes]:
        """Status, headers and body of one answer: not redirected, not compressed, not too long. Its end in time is the
        caller's.

        Raises FHIRClientError.
        """
        http = await self._client()
        try:
            place, extensions = await self._reached(url)
            said = {"Accept-Encoding": "identity", **headers}
            if extensions:
                said["Host"] = httpx.URL(url).netloc.decode("ascii")
            async with http.stream(
                method, place, content=content, headers=said, extensions=extensions
            ) as answer:  # fmt: skip
                if 300 <= answer.status_code < 400 and answer.status_code != 304:
                    raise FHIRClientError(
                        Trouble.UNTRUSTED, f"it answers {answer.status_code}, a redirect: configure the address that "
                        "it leads to", answer.status_code,
                    )  # fmt: skip
                if answer.headers.get("content-encoding", "identity").lower() != "identity":
                    raise FHIRClientError(Trouble.UNTRUSTED, "its answer is compressed, which nobody asked for",
                                          answer.status_code)  # fmt: skip
                body = bytearray()
                async for chunk in answer.aiter_raw():
                    body += chunk
                    if len(body) > bytes_max:
                        raise FHIRClientError(Trouble.UNTRUSTED, f"its answer is longer than {bytes_max} bytes",
                                              answer.status_code)  # fmt: skip
                return answer.status_code, {name.lower(): said for name, said in answer.headers.items()}, bytes(body)
        except httpx.TimeoutException:
            raise _too_slow(self._timeout_s) from None
        except httpx.ConnectError as error:
            raise FHIRClientError(Trouble.UNREACHABLE, _why_not_connected(error)) from None
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
            raise FHIRClientError(Trouble.UNREACHABLE, f"the exchange broke off ({type(error).__name__})") from None

    async def _reached(self, url: str) -> tuple[httpx.URL, dict[str, Any]]:
        """Where to connect; by an address that was looked at, so that no other look-up comes between. Raises
        FHIRClientError."""
        place = httpx.URL(url)
        if not self._public_only:
            return place, {}
        try:
            found = await asyncio.get_running_loop().run_in_executor(_LOOKING_UP, self._look_up, place.host)
        except (OSError, UnicodeError):
            raise FHIRClientError(Trouble.UNREACHABLE, "its host has no address") from None
        if not found or not all(map(is_public, found)):
            raise FHIRClientError(
                Trouble.UNREACHABLE, "its host is none of the Internet: fhir.clients.notify of the gateway may name it"
            )  # fmt: skip
        return place.copy_with(host=found[0]), {"sni_hostname": place.host}

    async def _client(self) -> httpx.AsyncClient:
        """As the files of TLS are now: other ones mean other connections."""
        context = await asyncio.to_thread(self._tls_context) if self.url.startswith("https://") else None
        if self._http is None or context is not self._made_by:
            await self.close()
            self._made_by = context
            verify: Any = context if context is not None else True
            self._http = httpx.AsyncClient(
                verify=verify, trust_env=False, timeout=self._timeout_s, follow_redirects=False
            )  # fmt: skip
        return self._http

    def _tls_context(self) -> ssl.SSLContext:
        if self._context is None:

            def path(name: str) -> str:
                return str(self._folder / name) if name else ""

            said = self._tls
            try:
                self._context = CallingContext(
                    path(said.ca) or None, path(said.certificate), path(said.key), path(said.crl)
                )  # fmt: skip
            except OSError as error:
                raise FHIRClientError(Trouble.UNREACHABLE, f"our own files do not serve: {error}") from None
        return self._context()

    def signing_key(self, credentials: FHIRCredentials) -> SigningKey:
        """Our key for this server. Raises FHIRClientError."""
        try:
            return read_signing_key(self._folder / credentials.key, credentials.key_id)
        except OSError as error:
            why = (error.strerror or type(error).__name__).lower()
        except ValueError as error:
            why = str(error)
        raise FHIRClientError(Trouble.NOT_LET_IN, f"our key {credentials.key}: {why}")


@asynccontextmanager
async def _bounded(seconds: float) -> AsyncIterator[None]:
    """Ends an exchange that takes too long as a whole: a server that drips never times out by itself."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise _too_slow(seconds) from None


class _Login:
    """The tokens of one server: asked for when there is none, and some time before the old one ends."""

    def __init__(
        self, client: FHIRClient, credentials: FHIRCredentials, scope: str, clock: Callable[[], float]
    ) -> None:  # fmt: skip
        self._client, self._credentials, self._scope, self._clock = client, credentials, scope, clock
        self._token, self._until = "", 0.0
        self._asking = asyncio.Lock()

    async def token(self) -> str:
        """One that holds. Raises FHIRClientError."""
        async with self._asking:
            if not self._token or self._clock() >= self._until:
                self._token, self._until = await self._ask()
            return self._token

    def forget(self, token: str) -> None:
        """It was not taken; another one, that somebody got meanwhile, may be."""
        if token == self._token:
            self._token = ""

    async def _ask(self) -> tuple[str, float]:
        place = self._credentials.token_url or await self._discovered()
        if not is_safe(place) or not is_safe(self._client.url):
            raise FHIRClientError(Trouble.NOT_LET_IN, "tokens are for https:// alone: what they travel over, and where "
                                  "they are given")  # fmt: skip
        key = await asyncio.to_thread(self._client.signing_key, self._credentials)
        asked_at = self._clock()
        form = httpx.QueryParams({
            "grant_type": "client_credentials", "scope": self._scope,
            "client_assertion_type": ASSERTION_TYPE,
            "client_assertion": key.assertion(self._credentials.client_id, place, asked_at),
        })  # fmt: skip
        headers = {"Accept": "application/json", "Content-Type": "application/x-www-form-urlencoded"}
        status, _, body = await self._client.exchange("POST", place, str(form).encode(), headers, TOKEN_BYTES_MAX)
        said = _plain(body)
        if status != 200:
            error = said.get("error")
            code = f" ({error})" if isinstance(error, str) and re.fullmatch("[a-z_]{1,40}", error) else ""
            trouble = Trouble.UNREACHABLE if status in (429, 502, 503, 504) else Trouble.NOT_LET_IN
            raise FHIRClientError(trouble, f"its token endpoint answers {status}{code}", status)
        token, lasts = said.get("access_token"), said.get("expires_in", 300)
        is_bearer = str(said.get("token_type", "")).lower() == "bearer"
        is_token = isinstance(token, str) and re.fullmatch(r"[\x21-\x7e]{1,16384}", token) is not None
        is_time = isinstance(lasts, int | float | Decimal) and not isinstance(lasts, bool) and lasts > 0
        if not (is_bearer and is_token and is_time):
            raise FHIRClientError(Trouble.UNTRUSTED, "what its token endpoint gives is no bearer token", status)
        seconds = float(min(lasts, TOKEN_S_MAX))
        return str(token), asked_at + seconds - min(EARLY_S, seconds / 2)

    async def _discovered(self) -> str:
        """Where tokens are given, as the server itself says."""
        status, _, body = await self._client.exchange(
            "GET", f"{self._client.url}/.well-known/smart-configuration", None, {"Accept": "application/json"},
            TOKEN_BYTES_MAX,
        )  # fmt: skip
        place = _plain(body).get("token_endpoint") if status == 200 else None
        if not isinstance(place, str):
            trouble = Trouble.UNREACHABLE if status in (429, 502, 503, 504) else Trouble.NOT_LET_IN
            raise FHIRClientError(
                trouble, "its .well-known/smart-configuration does not say where tokens are given: set `token_url`",
                status,
            )  # fmt: skip
        if not self._client.is_here(place):
            raise FHIRClientError(
                Trouble.NOT_LET_IN, "its .well-known/smart-configuration names a token endpoint on another server, "
                "which could use what we sign elsewhere: set `token_url` where that is meant",
            )  # fmt: skip
        return place


def _plain(body: bytes) -> Resource:
    try:
        return fhir_json.parse(body, Bounds(bytes_max=TOKEN_BYTES_MAX))
    except Refused:
        return {}


def _next_of(page: Resource) -> str:
    """Where the page after this one is, '' where there is none. Raises FHIRClientError."""
    links = page.get("link")
    found = [each.get("url") for each in links if isinstance(each, dict) and each.get("relation") == "next"] \
        if isinstance(links, list) else []  # fmt: skip
    if len(found) > 1 or not all(isinstance(each, str) and each for each in found):
        raise FHIRClientError(Trouble.UNTRUSTED, "a page says in several ways, or in none, where the next one is")
    return str(found[0]) if found else ""


def _joined(url: str, reference: str) -> str:
    """Where a reference leads from a page; as it stands where it is no address at all."""
    try:
        return urljoin(url, reference)
    except ValueError:
        return f"://{reference}"


def _origin_of(url: str) -> tuple[str, str, int | None, bytes]:
    """Scheme, host, port and user, as httpx will go by them. Raises httpx.InvalidURL."""
    read = httpx.URL(url)
    port = read.port if read.port is not None else {"http": 80, "https": 443}.get(read.scheme)
    return read.scheme, read.host, port, read.userinfo


def _too_slow(seconds: float) -> FHIRClientError:
    return FHIRClientError(Trouble.UNREACHABLE, f"there was no whole answer within {seconds:g} s")


def _why_not_connected(error: Exception) -> str:
    """The causes say it; httpx's own words may be empty."""
    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None and cause not in causes:
        causes.append(cause)
    tls = next((each for each in causes if isinstance(each, ssl.SSLError)), None)
    if tls is not None:
        return str(explained(tls, Side.CLIENT))
    system = next((each.strerror for each in reversed(causes) if isinstance(each, OSError) and each.strerror), "")
    return f"there is no connection{f' ({system.lower()})' if system else ''}"
