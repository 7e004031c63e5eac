"""The TLS listener by itself, on both event loops: who is let in, who is not and why, and who delays whom."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import uvloop

from gateway.edges import flood
from gateway.edges.tls import ServerTLS, ServingContext, client_context
from gateway.edges.tls_listener import TLSLimits, TLSListener, TLSPort
from tests.edges.tls_certificates import CLIENT_USE, SERVER_USE, Shown, TestAuthority

PATIENCE_S = 30.0
HELLO = b"\x16\x03\x01\x02\x00\x01"
"""How a ClientHello begins, and no more of it."""

Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=[asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    async def bounded(scenario: Coroutine[Any, Any, None]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            await scenario

    return lambda scenario: request.param(bounded(scenario))


@pytest.fixture
def ca(tmp_path: Path) -> TestAuthority:
    return TestAuthority(tmp_path)


class Echo(asyncio.Protocol):
    """Says again what it is told."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class Noted:
    """What the listener told."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.happened = asyncio.Condition()

    def __call__(self, event: str, /, **fields: Any) -> None:
        self.events.append((event, fields))

    def of(self, event: str) -> list[dict[str, Any]]:
        return [fields for name, fields in self.events if name == event]

    @property
    def reasons(self) -> list[str]:
        return [fields["reason"] for fields in self.of("tls_handshake_failed")]


@asynccontextmanager
async def listening(
    asked: ServerTLS, limits: TLSLimits | None = None
) -> AsyncIterator[tuple[TLSListener, Noted, ServingContext]]:
    noted, context = Noted(), ServingContext(asked)
    listener = TLSListener("test", "127.0.0.1", TLSPort(0, context, limits or TLSLimits()), Echo, noted)
    await listener.start()
    try:
        yield listener, noted, context
    finally:
        listener.close()
        await asyncio.sleep(0)


def asked(authority: TestAuthority, **said: Any) -> ServerTLS:
    own = authority.issue("gateway", file="own")
    return replace(ServerTLS(own.certificate, own.key, authority.file), **said)


async def said_back(port: int, context: ssl.SSLContext) -> bytes:
    """What comes back of a word spoken over TLS."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
    try:
        writer.write(b"hello")
        return await reader.read(100)
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def until(condition: Callable[[], object]) -> None:
    while not condition():  # noqa: ASYNC110  (what is waited for happens in the event loop's own callbacks)
        await asyncio.sleep(0.01)


BAD: dict[str, tuple[Callable[[TestAuthority, TestAuthority], Shown], str]] = {
    "expired": (lambda ca, other: ca.issue("CT1", days=(-30, -1)), "expired"),
    "not yet valid": (lambda ca, other: ca.issue("CT1", days=(1, 30)), "not_yet_valid"),
    "of another authority": (lambda ca, other: other.issue("CT1"), "unknown_authority"),
    "self-signed": (lambda ca, other: ca.self_signed("CT1"), "self_signed"),
    "with a short key": (lambda ca, other: ca.issue("CT1", rsa_bits=1024), "weak"),
    "signed by SHA-1": (lambda ca, other: ca.issue_by_sha1("CT1"), "weak"),
    "for servers only": (lambda ca, other: ca.issue("CT1", usage=SERVER_USE), "wrong_purpose"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_certificate_is_refused_in_words_and_the_device_is_told(
    kind: str, run: Run, ca: TestAuthority, tmp_path: Path
) -> None:
    make, reason = BAD[kind]
    shown = make(ca, TestAuthority(tmp_path / "other", "Another CA"))

    async def scenario() -> None:
        async with listening(asked(ca)) as (listener, noted, _):
            # Its own OpenSSL must not refuse what it shows.
            context = client_context(ca.file)
            context.set_ciphers("DEFAULT:@SECLEVEL=0")
            context.load_cert_chain(shown.certificate, shown.key)
            with pytest.raises(ssl.SSLError, match="ALERT"):
                await said_back(listener.port, context)
            await until(lambda: noted.reasons)
            assert noted.reasons == [reason]
            fields = noted.of("tls_handshake_failed")[0]
            assert fields["listener"] == "test"
            assert fields["remote_host"] == "127.0.0.1"
            assert "certificate" in fields["text"]

    run(scenario())


def test_a_revoked_certificate_is_refused_and_others_of_its_authority_are_not(run: Run, ca: TestAuthority) -> None:
    stolen, kept = ca.issue("CT1"), ca.issue("CT2", usage=CLIENT_USE)

    async def scenario() -> None:
        async with listening(asked(ca, crl=ca.revoke(stolen.serial))) as (listener, noted, _):
            with pytest.raises(ssl.SSLError, match="REVOKED"):
                await said_back(listener.port, client_context(ca.file, stolen.certificate, stolen.key))
            good = client_context(ca.file, kept.certificate, kept.key)
            assert await said_back(listener.port, good) == b"hello"
            assert noted.reasons == ["revoked"]

    run(scenario())


def test_an_old_revocation_list_lets_nobody_in_and_says_why(run: Run, ca: TestAuthority) -> None:
    good = ca.issue("CT1")

    async def scenario() -> None:
        async with listening(asked(ca, crl=ca.revoke(days=(-9, -2)))) as (listener, noted, _):
            with pytest.raises(ssl.SSLError):
                await said_back(listener.port, client_context(ca.file, good.certificate, good.key))
            assert noted.reasons == ["revocation_list_expired"]

    run(scenario())


@pytest.mark.parametrize(("clients", "reasons"), [("required", ["no_certificate"]), ("requested", []), ("none", [])])
def test_a_caller_without_a_certificate(clients: Any, reasons: list[str], run: Run, ca: TestAuthority) -> None:
    async def scenario() -> None:
        async with listening(asked(ca, clients=clients)) as (listener, noted, _):
            if reasons:
                with pytest.raises(ssl.SSLError, match="CERTIFICATE_REQUIRED"):
                    await said_back(listener.port, client_context(ca.file))
            else:
                assert await said_back(listener.port, client_context(ca.file)) == b"hello"
            assert noted.reasons == reasons

    run(scenario())


def test_a_certificate_that_is_only_requested_must_still_be_good(run: Run, ca: TestAuthority) -> None:
    expired = ca.issue("CT1", days=(-30, -1))

    async def scenario() -> None:
        async with listening(asked(ca, clients="requested")) as (listener, noted, _):
            with pytest.raises(ssl.SSLError, match="EXPIRED"):
                await said_back(listener.port, client_context(ca.file, expired.certificate, expired.key))
            assert noted.reasons == ["expired"]

    run(scenario())


def test_one_devices_certificate_can_be_trusted_without_its_authority(run: Run, ca: TestAuthority) -> None:
    device, other = ca.issue("CT1"), ca.issue("CT2")

    async def scenario() -> None:
        async with listening(asked(ca, ca=device.certificate)) as (listener, noted, _):
            pinned = client_context(ca.file, device.certificate, device.key)
            assert await said_back(listener.port, pinned) == b"hello"
            with pytest.raises(ssl.SSLError):
                await said_back(listener.port, client_context(ca.file, other.certificate, other.key))
            assert noted.reasons == ["unknown_authority"]

    run(scenario())


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated:DeprecationWarning")
def test_tls_1_1_is_refused(run: Run, ca: TestAuthority) -> None:
    device = ca.issue("CT1")

    async def scenario() -> None:
        async with listening(asked(ca)) as (listener, noted, _):
            old = client_context(ca.file, device.certificate, device.key, profile="aes-legacy")
            old.maximum_version = ssl.TLSVersion.TLSv1_1
            with pytest.raises(ssl.SSLError, match="VERSION"):
                await said_back(listener.port, old)
            assert noted.reasons == ["protocol_version"]

    run(scenario())


@pytest.mark.parametrize(
    ("first", "named", "answer"),
    [
        (b"\x01\x00\x00\x00\x00\xcd\x00\x01", "DICOM", b"\x03\x00\x00\x00\x00\x04\x00\x01\x01\x01"),
        (b"\x0bMSH|^~\\&|RIS", "HL7", b""),
        (b"GET /health/ready HTTP/1.1\r\n\r\n", "https://", b"HTTP/1.1 400 "),
        (b"SSH-2.0-OpenSSH", "neither", b""),
    ],
    ids=["DICOM", "MLLP", "HTTP", "other"],
)
def test_what_is_spoken_without_tls_is_recognised(
    first: bytes, named: str, answer: bytes, run: Run, ca: TestAuthority
) -> None:
    async def scenario() -> None:
        async with listening(asked(ca)) as (listener, noted, _):
            reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
            writer.write(first)
            said = await reader.read()
            assert said.startswith(answer)
            assert bool(said) == bool(answer)
            writer.close()
            assert noted.reasons == ["not_tls"]
            assert named in noted.of("tls_handshake_failed")[0]["text"]

    run(scenario())


def test_whoever_only_looks_whether_we_are_there_is_nobodys_news(run: Run, ca: TestAuthority) -> None:
    async def scenario() -> None:
        async with listening(asked(ca)) as (listener, noted, _):
            _, writer = await asyncio.open_connection("127.0.0.1", listener.port)
            await until(lambda: listener.handshakes == 1)
            writer.close()
            await until(lambda: listener.handshakes == 0)
            assert noted.events == []

    run(scenario())


@pytest.mark.parametrize("first", [b"", HELLO], ids=["silent", "slow"])
def test_a_peer_that_does_not_go_on_is_cut_after_its_time(first: bytes, run: Run, ca: TestAuthority) -> None:
    async def scenario() -> None:
        async with listening(asked(ca), TLSLimits(handshake_s=0.3)) as (listener, noted, _):
            reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
            writer.write(first)
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
            writer.close()
            assert noted.reasons == ["timeout"]
            await until(lambda: listener.handshakes == 0)

    run(scenario())


def test_bytes_of_a_handshake_that_come_one_by_one_do_not_prolong_it(run: Run, ca: TestAuthority) -> None:
    async def scenario() -> None:
        async with listening(asked(ca), TLSLimits(handshake_s=0.3)) as (listener, noted, _):
            _, writer = await asyncio.open_connection("127.0.0.1", listener.port)
            writer.write(HELLO)
            with contextlib.suppress(ConnectionError):
                while not noted.reasons:
                    writer.write(b"\x00")
                    await asyncio.sleep(0.02)
            assert noted.reasons == ["timeout"]
            writer.close()

    run(scenario())


@pytest.mark.parametrize("first", [b"", HELLO], ids=["silent", "slow"])
def test_300_peers_in_the_handshake_keep_nobody_out(first: bytes, run: Run, ca: TestAuthority) -> None:
    device = ca.issue("CT1")
    good = client_context(ca.file, device.certificate, device.key)

    async def scenario() -> None:
        async with listening(asked(ca), TLSLimits(handshake_s=PATIENCE_S)) as (listener, noted, _):
            writers = []
            for number in range(300):
                _, writer = await asyncio.open_connection("127.0.0.1", listener.port)
                writer.write(first)
                writers.append(writer)
                if number % 30 == 0:
                    assert await said_back(listener.port, good) == b"hello"
            assert await said_back(listener.port, good) == b"hello"
            await until(lambda: 0 < listener.handshakes <= TLSLimits().handshakes_per_address_max)
            assert noted.reasons == []  # those that gave way have not failed; the others still may go on
            for writer in writers:
                writer.close()
            # A half hello that ends is a failed handshake, and nothing of it stays behind.
            await until(lambda: listener.handshakes == 0)
        shed = sum(fields["connections"] for fields in noted.of("tls_connections_shed"))
        assert shed >= 300 - TLSLimits().handshakes_per_address_max

    run(scenario())


def test_the_longest_waiting_one_goes_when_all_addresses_together_are_too_many(run: Run, ca: TestAuthority) -> None:
    async def scenario() -> None:
        async with listening(asked(ca), TLSLimits(handshakes_max=2)) as (listener, _, __):
            waiting = []
            for host in ("127.0.0.1", "127.0.0.2", "127.0.0.3"):
                waiting.append(await asyncio.open_connection("127.0.0.1", listener.port, local_addr=(host, 0)))
                await until(lambda: listener.handshakes == min(len(waiting), 2))
            assert await waiting[0][0].read() == b""
            assert not waiting[1][0].at_eof()
            for _reader, writer in waiting:
                writer.close()

    run(scenario())


def test_a_flood_of_failures_is_told_in_few_lines_with_their_number(
    run: Run, ca: TestAuthority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flood, "TOLD_EVERY_S", PATIENCE_S)

    async def scenario() -> None:
        async with listening(asked(ca)) as (listener, noted, _):
            for _ in range(25):
                reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
                writer.write(b"GET / HTTP/1.0\r\n\r\n")
                await reader.read()
                writer.close()
        assert noted.reasons == ["not_tls"] * flood.TOLD_ONE_BY_ONE
        (summary,) = noted.of("tls_handshakes_failed")
        assert summary == {"listener": "test", "reason": "not_tls", "more": 25 - flood.TOLD_ONE_BY_ONE}

    run(scenario())


def test_a_listener_that_closes_leaves_no_handshake_behind_and_open_connections_alone(
    run: Run, ca: TestAuthority
) -> None:
    device = ca.issue("CT1")
    good = client_context(ca.file, device.certificate, device.key)

    async def scenario() -> None:
        async with listening(asked(ca)) as (listener, _, __):
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", listener.port, ssl=good, server_hostname="localhost"
            )
            silent, silent_writer = await asyncio.open_connection("127.0.0.1", listener.port)
            slow, slow_writer = await asyncio.open_connection("127.0.0.1", listener.port)
            slow_writer.write(HELLO)
            await until(lambda: listener.handshakes == 2)
            listener.close()
            assert await silent.read() == b""
            with contextlib.suppress(ConnectionResetError):
                assert await slow.read() == b""
            writer.write(b"still there")
            assert await reader.read(100) == b"still there"
            for each in (writer, silent_writer, slow_writer):
                each.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    run(scenario())


def test_new_connections_get_the_new_certificate_and_open_ones_go_on(run: Run, ca: TestAuthority) -> None:
    device = ca.issue("CT1")
    good = client_context(ca.file, device.certificate, device.key)

    async def serial(port: int) -> tuple[int, asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=good, server_hostname="localhost")
        shown = writer.get_extra_info("ssl_object").getpeercert()
        return int(shown["serialNumber"], 16), reader, writer

    async def scenario() -> None:
        async with listening(asked(ca)) as (listener, _, context):
            before, reader, writer = await serial(listener.port)
            ca.issue("gateway", file="own")
            assert context.renew()
            after, _, second = await serial(listener.port)
            assert before != after
            writer.write(b"still there")
            assert await reader.read(100) == b"still there"
            for each in (writer, second):
                each.close()
                with contextlib.suppress(OSError):
                    await each.wait_closed()

    run(scenario())


def test_whoever_has_said_hello_stays_while_silent_ones_give_way(run: Run, ca: TestAuthority) -> None:
    async def scenario() -> None:
        async with listening(asked(ca), TLSLimits(handshakes_per_address_max=2)) as (listener, _, __):
            slow, slow_writer = await asyncio.open_connection("127.0.0.1", listener.port)
            slow_writer.write(HELLO)
            await until(lambda: any(caller.shaking for caller in listener._callers))
            silent, silent_writer = await asyncio.open_connection("127.0.0.1", listener.port)
            _, another = await asyncio.open_connection("127.0.0.1", listener.port)
            assert await silent.read() == b""
            assert not slow.at_eof()
            for writer in (slow_writer, silent_writer, another):
                writer.close()

    run(scenario())


def test_a_flood_of_hellos_waits_for_its_turn_and_other_addresses_do_not(run: Run, ca: TestAuthority) -> None:
    device = ca.issue("CT1")
    good = client_context(ca.file, device.certificate, device.key)
    few = TLSLimits(hellos_per_address_s=0.01, handshakes_per_address_max=20)
    at_once = 5  # the least that a rate lets through together

    async def scenario() -> None:
        async with listening(asked(ca), few) as (listener, noted, _):
            writers = []
            for _number in range(30):
                _, writer = await asyncio.open_connection("127.0.0.1", listener.port, local_addr=("127.0.0.2", 0))
                writer.write(HELLO)
                writers.append(writer)
            await until(lambda: sum(caller.waits for caller in listener._callers) == 20 - at_once)
            assert sum(caller.shaking is not None for caller in listener._callers) == at_once
            assert await said_back(listener.port, good) == b"hello"
            for writer in writers:
                writer.close()
        assert noted.of("tls_connections_shed") == [{"listener": "test", "connections": 10}]

    run(scenario())


def test_everybody_who_waits_gets_a_turn(run: Run, ca: TestAuthority) -> None:
    device = ca.issue("CT1")
    good = client_context(ca.file, device.certificate, device.key)

    async def scenario() -> None:
        async with listening(asked(ca), TLSLimits(hellos_per_address_s=20)) as (listener, noted, _):
            # Forty at once; the others after them.
            answers = await asyncio.gather(*(said_back(listener.port, good) for _ in range(50)))
            assert answers == [b"hello"] * 50
            assert not listener._waiting
            assert noted.events == []

    run(scenario())


def test_who_has_waited_too_long_is_cut_and_nobody_is_told_that_it_was_slow(run: Run, ca: TestAuthority) -> None:
    async def scenario() -> None:
        limits = TLSLimits(hellos_per_address_s=0.01, handshake_s=0.2)
        async with listening(asked(ca), limits) as (listener, noted, _):
            peers = []
            for _number in range(7):
                peers.append(await asyncio.open_connection("127.0.0.1", listener.port))
                peers[-1][1].write(HELLO)
            await until(lambda: listener.handshakes == 0 and noted.of("tls_connections_shed"))
            assert noted.reasons == ["timeout"] * 5  # those that were listened to
            for _reader, writer in peers:
                writer.close()
        assert sum(fields["connections"] for fields in noted.of("tls_connections_shed")) == 2

    run(scenario())
