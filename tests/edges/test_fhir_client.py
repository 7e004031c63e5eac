"""The client to other FHIR servers: servers that lie, are slow, too long, or ask to come back later."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import jwt
import pytest
from fhir_callers import Clock, in_loop

from gateway.edges import fhir_client
from gateway.edges.fhir_client import FHIRClient, FHIRClientError, Trouble, retry_after_s
from gateway.fhir_settings import FHIRCredentials
from gateway.smart_keys import new_key, pem_of
from gateway.wire.fhir_release import Release

Script = Callable[["Server", str, str, Mapping[str, str], bytes], bytes]


@dataclass
class Server:
    """Answers by a script: method, path, headers and body in, the bytes of an answer out."""

    script: Script
    asked: list[str] = field(default_factory=list)
    port: int = 0
    drip_s: float = 0.0
    handlers: list["asyncio.Task[None]"] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/fhir"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.handlers.append(task)
        try:
            while line := await reader.readline():
                method, path, _ = line.decode().split()
                headers: dict[str, str] = {}
                while header := (await reader.readline()).decode().strip():
                    name, _, value = header.partition(":")
                    headers[name.lower()] = value.strip()
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                self.asked.append(f"{method} {path}")
                answer = self.script(self, method, path, headers, body)
                if not self.drip_s:
                    writer.write(answer)
                    await writer.drain()
                    continue
                for byte in answer:
                    writer.write(bytes((byte,)))
                    await writer.drain()
                    await asyncio.sleep(self.drip_s)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


@asynccontextmanager
async def serving(script: Script, **said: Any) -> AsyncIterator[Server]:
    made = Server(script, **said)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        if made.handlers:
            _, left = await asyncio.wait(made.handlers, timeout=1)
            for each in left:
                each.cancel()
            await asyncio.gather(*left, return_exceptions=True)


def answer(
    said: object = None,
    status: int = 200,
    kind: str = "application/fhir+json",
    body: bytes | None = None,
    **headers: str,
) -> bytes:
    content = body if body is not None else json.dumps(said).encode()
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(content)}", f"Content-Type: {kind}",
             *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items())]  # fmt: skip
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + content


def page(*entries: str, next_url: str | None = None, **more: Any) -> bytes:
    links = [{"relation": "self", "url": "x"}]
    if next_url is not None:
        links.append({"relation": "next", "url": next_url})
    return answer({
        "resourceType": "Bundle", "type": "searchset", "link": links,
        "entry": [{"resource": {"resourceType": "Task", "id": each}} for each in entries], **more,
    })  # fmt: skip


TASK = {"resourceType": "Task", "id": "1", "status": "requested"}


@asynccontextmanager
async def asking(server: Server, **said: Any) -> AsyncIterator[FHIRClient]:
    client = FHIRClient(server.url, **said)
    try:
        yield client
    finally:
        await client.close()


async def failure(script: Script, use: Callable[[FHIRClient], Any], **said: Any) -> FHIRClientError:
    async with serving(script) as server, asking(server, **said) as client:
        with pytest.raises(FHIRClientError) as failed:
            await use(client)
    assert "MARKED" not in str(failed.value)
    return failed.value


async def pages_of(client: FHIRClient, query: str = "Task?status=requested", **said: Any) -> list[list[str]]:
    return [[each["resource"]["id"] for each in page["entry"]] async for page in client.search(query, **said)]


@in_loop
async def test_a_resource_is_read_in_the_release_that_is_configured() -> None:
    def script(_: Server, method: str, path: str, headers: Mapping[str, str], body: bytes) -> bytes:
        assert headers["accept"] == "application/fhir+json; fhirVersion=5.0"
        assert "authorization" not in headers
        return answer(TASK) if path == "/fhir/Task/1" else answer(None, 404)

    async with serving(script) as server, asking(server, release=Release.R5) as client:
        assert await client.read("Task", "1") == TASK
        assert await client.read("Task", "2") is None


@in_loop
async def test_what_is_sent_arrives_with_its_headers_and_every_status_comes_back() -> None:
    def script(_: Server, method: str, path: str, headers: Mapping[str, str], body: bytes) -> bytes:
        assert (method, path) == ("PUT", "/fhir/Task/1")
        assert headers["if-match"] == 'W/"3"'
        assert json.loads(body) == TASK
        return answer({"resourceType": "OperationOutcome"}, 412, ETag='W/"4"')

    async with serving(script) as server, asking(server) as client:
        got = await client.send("PUT", "Task/1", TASK, {"If-Match": 'W/"3"'})
        assert (got.status, got.headers["etag"]) == (412, 'W/"4"')
        with pytest.raises(FHIRClientError) as refused:
            got.expected()
        assert refused.value.trouble is Trouble.REFUSED


@in_loop
async def test_pages_are_followed_on_the_same_origin_to_the_last() -> None:
    def script(server: Server, method: str, path: str, *_: Any) -> bytes:
        return {
            "/fhir/Task?status=requested": page("1", next_url=f"{server.url}?_getpages=a&_offset=1"),
            "/fhir?_getpages=a&_offset=1": page("2", next_url="?_getpages=a&_offset=2"),
            "/fhir?_getpages=a&_offset=2": page("3"),
        }[path]

    async with serving(script) as server, asking(server) as client:
        assert await pages_of(client) == [["1"], ["2"], ["3"]]
        assert await pages_of(client, pages_max=2) == [["1"], ["2"]]


LIES: Mapping[str, tuple[Callable[[Server], bytes], str]] = {
    "another host": (lambda _: page("1", next_url="http://169.254.169.254/MARKED"), "another place"),
    "another port": (lambda _: page("1", next_url="http://127.0.0.1:1/MARKED"), "another place"),
    "another scheme": (lambda each: page("1", next_url=each.url.replace("http", "https")), "another place"),
    "no host": (lambda _: page("1", next_url="http://[MARKED"), "another place"),
    "a file": (lambda _: page("1", next_url="file:///etc/passwd"), "another place"),
    "a user": (lambda each: page("1", next_url=each.url.replace("//", "//MARKED@")), "another place"),
    "itself": (lambda _: page("1", next_url="?status=requested"), "circle"),
    "itself again": (lambda _: page("1", next_url="?status=requested#MARKED"), "circle"),
    "a number": (lambda _: page("1", link=[{"relation": "next", "url": 1}]), "several ways"),
    "two": (lambda _: page("1", link=[{"relation": "next", "url": "?MARKED"}] * 2), "several ways"),
    "no Bundle": (lambda _: answer(TASK), "searchset"),
    "another Bundle": (lambda _: page("1", type="history"), "searchset"),
    "a redirect": (lambda _: answer(None, 302, Location="http://127.0.0.1:1/MARKED"), "redirect"),
    "HTML": (lambda _: answer(body=b"<html>MARKED", kind="text/html"), "no FHIR"),
    "half of it": (lambda _: answer(body=b'{"resourceType": "MARKED'), "no FHIR"),
    "too deep": (lambda _: answer(body=b'{"a":' * 10_000 + b"1" + b"}" * 10_000), "no FHIR"),
    "compressed": (lambda _: answer(body=b"MARKED", Content_Encoding="gzip"), "compressed"),
    "no HTTP": (lambda _: b"MARKED\r\n\r\n", "broke off"),
    "nothing": (lambda _: answer(body=b""), "searchset"),
}


@pytest.mark.parametrize("lie", LIES)
@in_loop
async def test_a_server_that_lies_leads_nowhere(lie: str) -> None:
    say, word = LIES[lie]

    def script(server: Server, *_: Any) -> bytes:
        assert len(server.asked) < 2
        return say(server)

    failed = await failure(script, pages_of)
    assert word in str(failed)


@in_loop
async def test_pages_in_a_wider_circle_end() -> None:
    def script(server: Server, method: str, path: str, *_: Any) -> bytes:
        return page("1", next_url="?b" if path.endswith(("?a", "requested")) else "?a")

    async with serving(script) as server, asking(server) as client:
        with pytest.raises(FHIRClientError, match="circle"):
            await pages_of(client)
        assert len(server.asked) == 3


@in_loop
async def test_an_answer_that_has_no_end_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fhir_client, "BODY_BYTES_MAX", 10_000)
    head = b"HTTP/1.1 200 X\r\nContent-Type: application/fhir+json\r\nConnection: close\r\n\r\n"
    failed = await failure(lambda *_: head + b" " * 20_000, lambda client: client.send("GET", "Task/1"))
    assert failed.trouble is Trouble.UNTRUSTED
    assert "longer than 10000 bytes" in str(failed)


@in_loop
async def test_a_server_that_drips_is_given_up_as_a_whole() -> None:
    async with serving(lambda *_: answer(TASK), drip_s=0.05) as server, asking(server, timeout_s=0.3) as client:
        with pytest.raises(FHIRClientError, match="no whole answer") as failed:
            await client.send("GET", "Task/1")
    assert failed.value.is_transient


@in_loop
async def test_where_nobody_listens_it_may_go_well_later() -> None:
    async with serving(lambda *_: b"") as server:
        pass
    async with asking(server) as client:
        with pytest.raises(FHIRClientError, match="no connection") as failed:
            await client.read("Task", "1")
    assert failed.value.is_transient


@in_loop
async def test_reading_waits_as_long_as_it_is_told_and_not_forever(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr(fhir_client, "asyncio_sleep", sleep)

    def busy_once(server: Server, *_: Any) -> bytes:
        return answer(None, 503, Retry_After="7") if len(server.asked) == 1 else answer(TASK)

    async with serving(busy_once) as server, asking(server) as client:
        assert await client.read("Task", "1") == TASK
    assert waited == [7]
    failed = await failure(lambda *_: answer(None, 429, Retry_After="5"), lambda client: client.read("Task", "1"))
    assert (failed.status, failed.retry_after_s, failed.is_transient) == (429, 5, True)
    assert waited == [7, 5, 5]
    failed = await failure(lambda *_: answer(None, 429, Retry_After="500"), lambda client: client.read("Task", "1"))
    assert (failed.retry_after_s, len(waited)) == (500, 3)


@pytest.mark.parametrize(
    ("said", "seconds"),
    [("5", 5), ("", 0), ("-5", 0), ("x", 0), ("999999", 3600), ("Mon, 01 Jan 2024 00:01:00 GMT", 60),
     ("Sun, 31 Dec 2023 00:00:00 GMT", 0), ("Mon, 01 Jan 2024 00:01:00", 0)],
)  # fmt: skip
def test_retry_after_is_a_number_or_a_date(said: str, seconds: float) -> None:
    assert retry_after_s(said, datetime(2024, 1, 1, tzinfo=UTC)) == seconds


@in_loop
async def test_words_of_a_refusal_have_codes_and_no_texts() -> None:
    outcome = {"resourceType": "OperationOutcome", "issue": [
        {"severity": "error", "code": "code-invalid", "diagnostics": "MARKED"}, {"code": "MARKED text"},
    ]}  # fmt: skip
    failed = await failure(lambda *_: answer(outcome, 422), lambda client: client.read("Task", "1"))
    assert str(failed) == "it refuses: it answers 422 (code-invalid)"
    assert failed.outcome == outcome


@in_loop
async def test_another_resource_than_was_asked_for_is_not_taken() -> None:
    failed = await failure(lambda *_: answer({**TASK, "id": "2"}), lambda client: client.read("Task", "1"))
    assert failed.trouble is Trouble.UNTRUSTED


@pytest.mark.parametrize("url", ["../admin", "Task/../../admin", "http://127.0.0.1:1/x", "Task/1/..//x"])
@in_loop
async def test_nothing_is_asked_of_another_place(url: str) -> None:
    failed = await failure(lambda *_: b"", lambda client: client.send("GET", url))
    assert "another place" in str(failed)


@pytest.mark.parametrize(("kind", "name"), [("Task", ".."), ("Task", "a/b"), ("task", "1"), ("Task", ""), ("..", "1")])
@in_loop
async def test_what_is_no_type_and_id_is_not_asked_for(kind: str, name: str) -> None:
    failed = await failure(lambda *_: b"", lambda client: client.read(kind, name))
    assert failed.status == 0


# --- signing in -------------------------------------------------------------------------------------------------------


@dataclass
class Lock:
    """The sign-in of a server: discovery, a token endpoint, and what is behind."""

    tokens: int = 0
    good: str = ""
    grant: Mapping[str, Any] = field(default_factory=dict)
    status: int = 200
    claims: list[Mapping[str, Any]] = field(default_factory=list)

    def __call__(self, server: Server, method: str, path: str, headers: Mapping[str, str], body: bytes) -> bytes:
        if path.endswith("smart-configuration"):
            return answer({"token_endpoint": f"{server.url}/token"}, kind="application/json")
        if path.endswith("/token"):
            form = dict(parse_qsl(body.decode()))
            assert form["grant_type"] == "client_credentials"
            assert form["scope"] == "system/*.rs"
            self.claims.append(jwt.decode(form["client_assertion"], options={"verify_signature": False}))
            self.tokens += 1
            self.good = f"token-{self.tokens}"
            return answer({"access_token": self.good, "token_type": "bearer", "expires_in": 300, **self.grant},
                          self.status, "application/json")  # fmt: skip
        return answer(TASK if headers.get("authorization") == f"Bearer {self.good}" else None,
                      200 if headers.get("authorization") == f"Bearer {self.good}" else 401)  # fmt: skip


@pytest.fixture
def proof(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "our.pem").write_text(pem_of(new_key()))
    return {"credentials": FHIRCredentials(client_id="gateway", key="our.pem"), "folder": tmp_path, "clock": Clock()}


@in_loop
async def test_a_token_is_kept_until_shortly_before_its_end(proof: dict[str, Any]) -> None:
    lock = Lock()
    async with serving(lock) as server, asking(server, **proof) as client:
        await asyncio.gather(*(client.read("Task", "1") for _ in range(5)))
        assert lock.tokens == 1
        proof["clock"].at += 269
        assert await client.read("Task", "1") == TASK
        assert lock.tokens == 1
        proof["clock"].at += 1
        assert await client.read("Task", "1") == TASK
        assert lock.tokens == 2
    first, second = lock.claims
    assert first["iss"] == first["sub"] == "gateway"
    assert first["aud"] == f"{server.url}/token"
    assert 0 < first["exp"] - first["iat"] <= 300
    assert first["jti"] != second["jti"]


@in_loop
async def test_a_token_that_is_not_taken_is_replaced_once(proof: dict[str, Any]) -> None:
    lock = Lock()
    async with serving(lock) as server, asking(server, **proof) as client:
        assert await client.read("Task", "1") == TASK
        lock.good = "another, as after a restart"
        assert await client.read("Task", "1") == TASK
        assert lock.tokens == 2
        lock.grant = {"access_token": "useless"}
        lock.good = "another"
        with pytest.raises(FHIRClientError) as failed:
            await client.read("Task", "1")
        assert failed.value.trouble is Trouble.NOT_LET_IN
        assert lock.tokens == 3


@pytest.mark.parametrize(
    ("grant", "status", "word"),
    [
        ({"token_type": "mac"}, 200, "no bearer"),
        ({"access_token": ""}, 200, "no bearer"),
        ({"access_token": "a\r\nX: MARKED"}, 200, "no bearer"),
        ({"expires_in": -1}, 200, "no bearer"),
        ({"expires_in": True}, 200, "no bearer"),
        ({"expires_in": "300"}, 200, "no bearer"),
        ({"error": "invalid_client", "error_description": "MARKED"}, 400, "400 (invalid_client)"),
        ({"error": "MARKED text"}, 400, "400"),
        ({}, 503, "503"),
    ],
)
@in_loop
async def test_no_token_is_said_in_words(
    grant: Mapping[str, Any], status: int, word: str, proof: dict[str, Any]
) -> None:
    failed = await failure(
        Lock(grant=grant, status=status), lambda client: client.read("Task", "1"), **proof
    )  # fmt: skip
    assert word in str(failed)
    assert failed.is_transient == (status == 503)


@pytest.mark.parametrize("place", ["http://203.0.113.1/token", "ftp://203.0.113.1/token", 7, None])
@in_loop
async def test_a_token_address_without_tls_is_not_gone_to(place: object, proof: dict[str, Any]) -> None:
    failed = await failure(
        lambda *_: answer({"token_endpoint": place}, kind="application/json"),
        lambda client: client.read("Task", "1"), **proof,
    )  # fmt: skip
    assert failed.trouble is Trouble.NOT_LET_IN


@in_loop
async def test_a_key_of_ours_that_is_missing_is_said(proof: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "our.pem").unlink()
    failed = await failure(Lock(), lambda client: client.read("Task", "1"), **proof)
    assert "our.pem" in str(failed)
    (tmp_path / "our.pem").write_text("MARKED")
    failed = await failure(Lock(), lambda client: client.read("Task", "1"), **proof)
    assert "no private key" in str(failed)


@in_loop
async def test_a_token_endpoint_on_another_server_is_not_believed(proof: dict[str, Any]) -> None:
    elsewhere = Lock()
    async with serving(elsewhere) as other:
        failed = await failure(
            lambda *_: answer({"token_endpoint": f"{other.url}/token"}, kind="application/json"),
            lambda client: client.read("Task", "1"), **proof,
        )  # fmt: skip
    assert failed.trouble is Trouble.NOT_LET_IN
    assert "token_url" in str(failed)
    assert elsewhere.tokens == 0


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.5", "169.254.169.254", "::1", "fe80::1", "::ffff:10.0.0.5",
                                     "64:ff9b::a00:5", "2002:a00:5::1", "0.0.0.1", "224.0.0.1"])  # fmt: skip
@in_loop
async def test_who_may_reach_only_the_internet_is_not_led_into_our_network(address: str) -> None:
    async with serving(lambda *_: answer(TASK)) as server:
        client = FHIRClient(server.url, public_only=True, look_up=lambda _: ["203.0.114.9", address])
        with pytest.raises(FHIRClientError, match="none of the Internet"):
            await client.read("Task", "1")
        await client.close()
    assert server.asked == []


@in_loop
async def test_what_was_looked_up_is_where_it_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fhir_client, "is_public", lambda _: True)
    async with serving(lambda _, method, path, headers, body: answer({**TASK, "text": headers["host"]})) as server:
        url = server.url.replace("127.0.0.1", "ehr.example")
        client = FHIRClient(url, public_only=True, look_up=lambda _: ["127.0.0.1"])
        found = await client.read("Task", "1")
        await client.close()
    assert found is not None
    assert found["text"] == f"ehr.example:{server.port}"


@in_loop
async def test_a_name_server_that_never_answers_takes_the_threads_of_nobody_else() -> None:
    answers = threading.Event()
    begun: list[str] = []

    def silent(host: str) -> list[str]:
        begun.append(host)
        answers.wait(30)
        return []

    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2))
    clients = [FHIRClient("https://ehr.example", public_only=True, look_up=silent) for _ in range(4)]
    asking = [asyncio.create_task(client.read("Task", "1")) for client in clients]
    try:
        async with asyncio.timeout(10):
            while len(begun) < 2:  # noqa: ASYNC110  (other threads begin)
                await asyncio.sleep(0.01)
            assert await asyncio.to_thread(lambda: "at once") == "at once"
    finally:
        answers.set()
        await asyncio.gather(*asking, return_exceptions=True)
        for client in clients:
            await client.close()


@pytest.mark.parametrize("lasts", [86_401, 3e5])
@in_loop
async def test_a_token_that_lasts_for_ever_is_used_for_a_day(lasts: float, proof: dict[str, Any]) -> None:
    lock = Lock(grant={"expires_in": lasts})
    async with serving(lock) as server, asking(server, **proof) as client:
        assert await client.read("Task", "1") == TASK
        proof["clock"].at += 86_400
        assert await client.read("Task", "1") == TASK
        assert lock.tokens == 2


@pytest.mark.parametrize("url", ["https://ehr.example:x/fhir", "https://[::1/fhir"])
def test_what_is_no_address_is_said_to_be_none(url: str) -> None:
    with pytest.raises(ValueError, match="no address"):
        FHIRClient(url)


@pytest.mark.parametrize(
    ("trouble", "status", "of_all"),
    [(Trouble.UNREACHABLE, 0, True), (Trouble.NOT_LET_IN, 401, True), (Trouble.NOT_LET_IN, 400, True),
     (Trouble.NOT_LET_IN, 403, False), (Trouble.REFUSED, 404, False), (Trouble.UNTRUSTED, 200, False)],
)  # fmt: skip
def test_some_troubles_are_of_one_resource_and_some_of_the_whole_server(
    trouble: Trouble, status: int, of_all: bool
) -> None:
    assert FHIRClientError(trouble, "x", status).is_of_all is of_all
