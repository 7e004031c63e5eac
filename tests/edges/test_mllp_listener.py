"""The MLLP listener on loopback: order, limits, patience, and rude peers. Nothing is closed without an answer."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import uvloop

from gateway.domain.refusal import Refusal, RefusalKind
from gateway.edges.mllp import MLLPClient, MLLPLimits, MLLPListener, Peer, Reply, send
from gateway.wire.mllp import Frame, Framer, wrap

PATIENCE_S = 10  # for what must happen; a test that needs it has failed


def ran(scenario: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(PATIENCE_S):
            await scenario

    asyncio.run(bounded())


class Site:
    """A listener's two functions, remembering what they were given."""

    def __init__(self) -> None:
        self.received: list[bytes] = []
        self.rejected: list[tuple[bytes, Refusal]] = []
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.happened = asyncio.Condition()
        self.answer: Callable[[bytes], Awaitable[bytes | None]] = self._echo
        self.reject_fails = False

    async def _echo(self, frame: bytes) -> bytes:
        return b"ACK " + frame

    async def receive(self, frame: bytes, peer: Peer) -> Reply:
        self.received.append(frame)
        answer = await self.answer(frame)
        return Reply([] if answer is None else [answer])

    async def reject(self, raw: bytes, refusal: Refusal, peer: Peer) -> bytes:
        self.rejected.append((raw, refusal))
        if self.reject_fails:
            raise OSError("disk full")
        return b"NAK " + refusal.kind.encode()

    def observe(self, event: str, **fields: Any) -> None:
        self.events.append((event, fields))
        asyncio.get_running_loop().create_task(self._tell())

    async def _tell(self) -> None:
        async with self.happened:
            self.happened.notify_all()

    async def seen(self, event: str, count: int = 1) -> dict[str, Any]:
        """The fields of the `count`-th event of that name, waited for."""
        async with self.happened:
            await self.happened.wait_for(lambda: len(self._named(event)) >= count)
        return self._named(event)[count - 1]

    def _named(self, event: str) -> list[dict[str, Any]]:
        return [fields for name, fields in self.events if name == event]


@asynccontextmanager
async def listening(site: Site, **limits: Any) -> AsyncIterator[MLLPListener]:
    listener = MLLPListener("ris", "127.0.0.1", 0, site.receive, site.reject, MLLPLimits(**limits), site.observe)
    await listener.start()
    try:
        yield listener
    finally:
        await listener.stop()


class Peered:
    """A sender that writes bytes as it likes and reads frames."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.framer = Framer()
        self.frames: list[bytes] = []

    async def frame(self) -> bytes:
        """The next answer; b"" when the listener closed."""
        while not self.frames:
            data = await self.reader.read(1000)
            if not data:
                return b""
            self.frames += [event.data for event in self.framer.feed(data) if isinstance(event, Frame)]
        return self.frames.pop(0)


@asynccontextmanager
async def connected(listener: MLLPListener) -> AsyncIterator[Peered]:
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
    try:
        yield Peered(reader, writer)
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


def test_many_messages_on_one_connection_are_answered_in_order() -> None:
    async def scenario() -> None:
        site = Site()
        async with listening(site) as listener:
            messages = [b"%d" % number for number in range(50)]
            assert await send("127.0.0.1", listener.port, *messages) == [b"ACK " + each for each in messages]
            assert site.received == messages

    ran(scenario())


def test_pipelined_messages_are_worked_on_one_at_a_time() -> None:
    async def scenario() -> None:
        site = Site()
        at_work = 0

        async def slowly(frame: bytes) -> bytes:
            nonlocal at_work
            at_work += 1
            assert at_work == 1
            await asyncio.sleep(0)
            at_work -= 1
            return frame

        site.answer = slowly
        async with listening(site) as listener, connected(listener) as peer:
            messages = [b"%d" % number for number in range(100)]
            peer.writer.write(b"".join(wrap(each) for each in messages))
            assert [await peer.frame() for _ in messages] == messages

    ran(scenario())


def test_a_message_byte_by_byte_is_one_message() -> None:
    async def scenario() -> None:
        site = Site()
        async with listening(site) as listener, connected(listener) as peer:
            for byte in wrap(b"MSH|slow"):
                peer.writer.write(bytes([byte]))
                await peer.writer.drain()
            assert await peer.frame() == b"ACK MSH|slow"

    ran(scenario())


def test_connections_do_not_wait_for_each_other() -> None:
    async def scenario() -> None:
        site = Site()
        gate = asyncio.Event()

        async def gated(frame: bytes) -> bytes:
            if frame == b"first":
                await gate.wait()
            return frame

        site.answer = gated
        async with listening(site) as listener, connected(listener) as one, connected(listener) as other:
            one.writer.write(wrap(b"first"))
            other.writer.write(wrap(b"second"))
            assert await other.frame() == b"second"
            gate.set()
            assert await one.frame() == b"first"

    ran(scenario())


def test_a_sender_who_runs_ahead_is_held_back() -> None:
    async def scenario() -> None:
        site = Site()
        gate = asyncio.Event()

        async def gated(frame: bytes) -> bytes:
            await gate.wait()
            return b"ok"

        site.answer = gated
        async with listening(site) as listener, connected(listener) as peer:
            peer.writer.transport.set_write_buffer_limits(high=1)
            for _ in range(400):
                peer.writer.write(wrap(b"x" * 100_000))
            drained = asyncio.ensure_future(peer.writer.drain())
            done, _ = await asyncio.wait([drained], timeout=0.2)
            assert not done
            assert len(site.received) == 1
            gate.set()
            assert [await peer.frame() for _ in range(400)] == [b"ok"] * 400
            await drained

    ran(scenario())


def test_none_is_no_answer() -> None:
    async def scenario() -> None:
        site = Site()

        async def silent_once(frame: bytes) -> bytes | None:
            return None if frame == b"one" else frame

        site.answer = silent_once
        async with listening(site) as listener, connected(listener) as peer:
            peer.writer.write(wrap(b"one") + wrap(b"two"))
            assert await peer.frame() == b"two"

    ran(scenario())


# --- what goes wrong ----------------------------------------------------------------------------------------------


def test_a_failure_of_our_own_is_a_transient_refusal_and_the_connection_lives_on() -> None:
    async def scenario() -> None:
        site = Site()

        async def fails_once(frame: bytes) -> bytes:
            if frame == b"one":
                raise RuntimeError("secret content")
            return frame

        site.answer = fails_once
        async with listening(site) as listener, MLLPClient("127.0.0.1", listener.port) as client:
            assert await client.send(b"one") == b"NAK " + RefusalKind.TRANSIENT.encode()
            assert await client.send(b"two") == b"two"
        assert [raw for raw, _ in site.rejected] == [b"one"]
        assert (await site.seen("mllp_receive_failed"))["error"] == "RuntimeError"
        assert "secret" not in str(site.events)

    ran(scenario())


def test_when_even_refusing_fails_the_sender_still_gets_an_answer() -> None:
    async def scenario() -> None:
        site = Site()
        site.reject_fails = True

        async def fails(frame: bytes) -> bytes:
            raise OSError("disk full")

        site.answer = fails
        async with listening(site) as listener:
            (answer,) = await send("127.0.0.1", listener.port, b"MSH|^~\\&|RIS||||||ORM^O01|M7|P|2.3.1\r")
            assert b"\rMSA|AR|M7|" in answer
            assert b"207&" in answer

    ran(scenario())


def test_junk_before_a_frame_is_kept_and_told_but_not_answered() -> None:
    async def scenario() -> None:
        site = Site()
        async with listening(site) as listener, connected(listener) as peer:
            peer.writer.write(b"HELO ris\r\n" + wrap(b"good") + b"\r\n\x00" + wrap(b"more"))
            assert [await peer.frame(), await peer.frame()] == [b"ACK good", b"ACK more"]
            ((raw, refusal),) = site.rejected
            assert (raw, refusal.kind) == (b"HELO ris\r\n", RefusalKind.UNREADABLE)
            assert (await site.seen("mllp_bytes_outside_frame"))["bytes"] == 10

    ran(scenario())


def test_an_oversized_frame_is_answered_after_draining_and_the_next_one_passes() -> None:
    async def scenario() -> None:
        site = Site()
        async with listening(site, frame_bytes_max=10_000) as listener:
            async with MLLPClient("127.0.0.1", listener.port) as client:
                assert await client.send(b"MSH|" + b"x" * 500_000) == b"NAK " + RefusalKind.TOO_LONG.encode()
                assert await client.send(b"fits") == b"ACK fits"
            ((raw, _),) = site.rejected
            assert len(raw) < 10_000

    ran(scenario())


def test_interrupted_and_unframed_messages_are_answered_in_their_place() -> None:
    async def scenario() -> None:
        site = Site()
        async with listening(site) as listener, connected(listener) as peer:
            peer.writer.write(b"\x0bMSH|cut" + wrap(b"whole") + b"MSH|bare\r\x1c\r")
            nak = b"NAK " + RefusalKind.UNREADABLE.encode()
            assert [await peer.frame() for _ in range(3)] == [nak, b"ACK whole", nak]

    ran(scenario())


def test_half_a_frame_is_answered_when_the_sender_stops_sending() -> None:
    async def scenario() -> None:
        site = Site()
        async with listening(site) as listener, connected(listener) as peer:
            peer.writer.write(b"\x0bMSH|half")
            peer.writer.write_eof()
            assert await peer.frame() == b"NAK " + RefusalKind.UNREADABLE.encode()
            assert await peer.frame() == b""

    ran(scenario())


def test_half_a_frame_is_answered_and_closed_when_its_time_is_over() -> None:
    async def scenario() -> None:
        site = Site()
        async with listening(site, frame_timeout_s=0.05) as listener, connected(listener) as peer:
            peer.writer.write(wrap(b"good") + b"\x0bMSH|half")
            assert await peer.frame() == b"ACK good"
            assert await peer.frame() == b"NAK " + RefusalKind.UNREADABLE.encode()
            assert await peer.frame() == b""
            assert (await site.seen("mllp_connection_closed"))["reason"] == "frame timeout"

    ran(scenario())


def test_a_frame_that_never_ends_is_cut_off_even_if_its_bytes_never_pause() -> None:
    async def scenario() -> None:
        site = Site()

        async def pour(peer: Peered) -> None:
            peer.writer.write(b"\x0b")
            with suppress(OSError):
                while True:
                    peer.writer.write(b"x" * 1000)
                    await peer.writer.drain()
                    await asyncio.sleep(0)

        async with listening(site, frame_timeout_s=0.1, frame_bytes_max=5000) as listener, connected(listener) as peer:
            pouring = asyncio.ensure_future(pour(peer))
            closed = await site.seen("mllp_connection_closed")
            assert closed["reason"] == "frame timeout"
            assert site.rejected[0][1].kind is RefusalKind.TOO_LONG
            await pouring

    ran(scenario())


def test_idle_connections_stay_open_unless_a_limit_is_set() -> None:
    async def scenario() -> None:
        site = Site()
        async with listening(site, frame_timeout_s=0.02) as listener, connected(listener) as peer:
            await asyncio.wait([asyncio.ensure_future(site.seen("mllp_connection_closed"))], timeout=0.1)
            peer.writer.write(wrap(b"still here"))
            assert await peer.frame() == b"ACK still here"
        async with listening(site, idle_timeout_s=0.02) as listener, connected(listener) as peer:
            assert await peer.frame() == b""
            assert (await site.seen("mllp_connection_closed", 2))["reason"] == "idle timeout"

    ran(scenario())


def test_a_peer_that_leaves_before_its_answer_is_no_error() -> None:
    async def scenario() -> None:
        site = Site()
        gate = asyncio.Event()
        begun = asyncio.Event()

        async def gated(frame: bytes) -> bytes:
            begun.set()
            await gate.wait()
            return b"late " * 1000

        site.answer = gated
        async with listening(site) as listener:
            async with connected(listener) as peer:
                peer.writer.write(wrap(b"one") + wrap(b"two"))
                await begun.wait()
                # An RST instead of an orderly end.
                linger = struct.pack("ii", 1, 0)
                peer.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            gate.set()
            await site.seen("mllp_connection_closed")
            assert await send("127.0.0.1", listener.port, b"next") == [b"late " * 1000]
            assert not [name for name, _ in site.events if name.endswith("failed")]

    ran(scenario())


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_peer_known_to_be_gone_when_its_answer_is_ready_ends_its_connection_and_no_more(
    loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    async def scenario() -> None:
        site = Site()
        gate, begun, defects = asyncio.Event(), asyncio.Event(), []
        asyncio.get_running_loop().set_exception_handler(lambda _loop, context: defects.append(context["message"]))

        async def gated(frame: bytes) -> bytes:
            begun.set()
            await gate.wait()
            return b"late"

        site.answer = gated
        async with listening(site) as listener:
            rude = socket.create_connection(("127.0.0.1", listener.port))
            rude.sendall(wrap(b"one") + wrap(b"two"))
            await begun.wait()
            (connection,) = listener._connections
            rude.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # an RST
            rude.close()
            with suppress(OSError):
                await connection.writer.wait_closed()
            gate.set()
            assert (await site.seen("mllp_connection_closed"))["reason"] == "ConnectionResetError"
            assert site.received == [b"one"]
        assert not defects

    async def bounded() -> None:
        async with asyncio.timeout(PATIENCE_S):
            await scenario()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(bounded())


def test_a_peer_that_never_reads_its_answers_is_let_go() -> None:
    async def scenario() -> None:
        site = Site()

        async def long(frame: bytes) -> bytes:
            return b"y" * 1_000_000

        site.answer = long
        async with listening(site, answer_timeout_s=0.1) as listener, connected(listener) as peer:
            for _ in range(30):
                peer.writer.write(wrap(b"x"))
            assert (await site.seen("mllp_connection_closed"))["reason"] == "TimeoutError"

    ran(scenario())


# --- limits and the end -------------------------------------------------------------------------------------------


def test_answers_that_nobody_takes_do_not_outlive_their_connection() -> None:
    async def scenario() -> None:
        site = Site()

        answered = asyncio.Event()

        async def long(frame: bytes) -> bytes:
            answered.set()
            return b"A" * 30_000  # less than asyncio makes a writer wait for

        site.answer = long
        async with listening(site, frame_timeout_s=0.05, answer_timeout_s=0.1) as listener:
            rude = socket.create_connection(("127.0.0.1", listener.port))
            await site.seen("mllp_connection_opened")
            (connection,) = listener._connections
            transport = connection.writer.transport
            while not transport.get_write_buffer_size():
                answered.clear()
                rude.sendall(wrap(b"M"))
                await answered.wait()
            rude.sendall(b"\x0bMSH|half")
            await site.seen("mllp_connection_closed")
            with suppress(ConnectionError):
                await connection.writer.wait_closed()
            rude.close()

    ran(scenario())


@pytest.mark.parametrize("limit", ["connections_max", "connections_per_peer_max"])
def test_connections_beyond_a_limit_are_closed_and_room_comes_back(limit: str) -> None:
    async def scenario() -> None:
        site = Site()
        async with listening(site, **{limit: 2}) as listener:
            async with connected(listener) as first, connected(listener) as second:
                for peer in (first, second):
                    peer.writer.write(wrap(b"hello"))
                    assert await peer.frame() == b"ACK hello"
                async with connected(listener) as third:
                    assert await third.frame() == b""
                assert (await site.seen("mllp_connection_refused"))["limit"] == limit
                assert listener.connections == 2
            await site.seen("mllp_connection_closed", 2)
            assert await send("127.0.0.1", listener.port, b"again") == [b"ACK again"]

    ran(scenario())


@pytest.mark.parametrize("limit", ["connections_max", "connections_per_peer_max"])
def test_a_thousand_idle_connections_do_not_lock_a_sender_out(limit: str) -> None:
    async def scenario() -> None:
        site = Site()
        limits = {"connections_per_peer_max": 2000, limit: 20}
        async with listening(site, **limits) as listener, connected(listener) as early:
            early.writer.write(wrap(b"one"))
            assert await early.frame() == b"ACK one"
            idle = [await asyncio.open_connection("127.0.0.1", listener.port) for _ in range(1000)]
            async with connected(listener) as late:
                late.writer.write(wrap(b"two"))
                assert await late.frame() == b"ACK two"
                early.writer.write(wrap(b"three"))
                assert await early.frame() == b"ACK three"
                assert listener.connections <= 20
            closed = await site.seen("mllp_connection_closed")
            assert closed["reason"] == "made room for another"
            for _, writer in idle:
                writer.close()
            await asyncio.gather(*(writer.wait_closed() for _, writer in idle), return_exceptions=True)

    ran(scenario())


def test_a_sender_in_the_midst_of_its_first_message_does_not_make_room() -> None:
    async def scenario() -> None:
        site = Site()
        async with listening(site, connections_max=1) as listener, connected(listener) as slow:
            slow.writer.write(b"\x0bMSH|ha")
            await site.seen("mllp_connection_opened")
            (connection,) = listener._connections
            while connection.silent:  # noqa: ASYNC110  (no event tells of half a frame)
                await asyncio.sleep(0)
            async with connected(listener) as other:
                assert await other.frame() == b""
            slow.writer.write(b"lf\x1c\r")
            assert await slow.frame() == b"ACK MSH|half"

    ran(scenario())


def test_dead_peers_are_looked_for_within_minutes() -> None:
    async def scenario() -> None:
        site = Site()
        options = {}

        class Looking(MLLPListener):
            async def _converse(self, connection: Any, reader: asyncio.StreamReader) -> str:
                taken = connection.writer.get_extra_info("socket")
                for name in ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT"):
                    options[name] = taken.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))
                options["on"] = taken.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                return await super()._converse(connection, reader)

        listener = Looking("ris", "127.0.0.1", 0, site.receive, site.reject)
        await listener.start()
        await send("127.0.0.1", listener.port, b"MSH|")
        await listener.stop()
        assert options.pop("on")
        assert options["TCP_KEEPIDLE"] + options["TCP_KEEPINTVL"] * options["TCP_KEEPCNT"] <= 180

    ran(scenario())


def test_stopping_finishes_what_is_in_flight_and_closes_the_idle() -> None:
    async def scenario() -> None:
        site = Site()
        gate = asyncio.Event()
        begun = asyncio.Event()

        async def gated(frame: bytes) -> bytes:
            begun.set()
            await gate.wait()
            return frame

        site.answer = gated
        async with listening(site) as listener:
            async with connected(listener) as busy, connected(listener) as idle:
                await site.seen("mllp_connection_opened", 2)
                busy.writer.write(wrap(b"in flight") + wrap(b"for next time"))
                await begun.wait()
                stopping = asyncio.ensure_future(listener.stop())
                assert await idle.frame() == b""
                assert not stopping.done()
                gate.set()
                assert await busy.frame() == b"in flight"
                assert await busy.frame() == b""
                await stopping
            assert site.received == [b"in flight"]
            with pytest.raises(OSError):  # noqa: PT011  (which one depends on the system)
                await asyncio.open_connection("127.0.0.1", listener.port)

    ran(scenario())


def test_stopping_does_not_wait_for_ever() -> None:
    async def scenario() -> None:
        site = Site()
        begun = asyncio.Event()

        async def never(frame: bytes) -> bytes:
            begun.set()
            await asyncio.Event().wait()
            return frame

        site.answer = never
        async with listening(site, stop_timeout_s=0.05) as listener, connected(listener) as peer:
            peer.writer.write(wrap(b"one"))
            await begun.wait()
            await listener.stop()
            assert await peer.frame() == b""

    ran(scenario())


def test_no_event_carries_content() -> None:
    async def scenario() -> None:
        site = Site()
        async with listening(site) as listener, connected(listener) as peer:
            peer.writer.write(b"Sample^Ann" + wrap(b"Sample^Ann") + b"\x0bSample^Ann" + wrap(b"Sample^Ann"))
            for _ in range(3):
                await peer.frame()
        assert "Sample" not in str(site.events)

    ran(scenario())


# --- the client ---------------------------------------------------------------------------------------------------


@asynccontextmanager
async def answering(write: Callable[[asyncio.StreamWriter], Awaitable[None]]) -> AsyncIterator[int]:
    """A server that answers the first bytes it gets by `write`."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1000)
        await write(writer)
        await reader.read(1000)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def test_the_client_puts_an_answer_together_from_pieces() -> None:
    async def in_pieces(writer: asyncio.StreamWriter) -> None:
        for byte in wrap(b"MSH|answer"):
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)

    async def scenario() -> None:
        async with answering(in_pieces) as port:
            assert await send("127.0.0.1", port, b"MSH|") == [b"MSH|answer"]

    ran(scenario())


def test_the_client_ends_a_connection_whose_answer_does_not_come() -> None:
    async def nothing(writer: asyncio.StreamWriter) -> None:
        return None

    async def scenario() -> None:
        async with answering(nothing) as port, MLLPClient("127.0.0.1", port, timeout_s=0.05) as client:
            with pytest.raises(TimeoutError):
                await client.send(b"MSH|")
            with pytest.raises(ConnectionError):
                await client.send(b"MSH|")

    ran(scenario())


def test_the_client_says_when_the_peer_closed_without_an_answer() -> None:
    async def close(writer: asyncio.StreamWriter) -> None:
        writer.close()

    async def scenario() -> None:
        async with answering(close) as port, MLLPClient("127.0.0.1", port) as client:
            with pytest.raises(ConnectionError):
                await client.send(b"MSH|")

    ran(scenario())


# Who may not send any more


@pytest.mark.parametrize("unfinished", [b"", b"\x0bMSH|half"], ids=["idle", "half a frame"])
def test_a_connection_that_may_not_send_any_more_is_ended_at_once_and_others_stay(unfinished: bytes) -> None:
    async def scenario() -> None:
        site = Site()
        async with listening(site) as listener, connected(listener) as strange, connected(listener) as known:
            for each in (strange, known):
                each.writer.write(wrap(b"FIRST"))
                assert await each.frame() == b"ACK FIRST"
            strange.writer.write(unfinished)
            await strange.writer.drain()
            listener.deny = lambda peer: "address" if peer.connection == 1 else ""
            listener.reconsider()
            with suppress(ConnectionResetError):  # where its half frame was not read yet
                assert await strange.frame() == b""
            assert (await site.seen("mllp_connection_closed"))["reason"] == "may not send any more: address"
            assert (await site.seen("mllp_caller_denied"))["reason"] == "address"
            known.writer.write(wrap(b"SECOND"))
            assert await known.frame() == b"ACK SECOND"
            assert site.rejected == []

    asyncio.run(scenario())


def test_what_is_worked_on_is_answered_and_nothing_after_it_is_taken() -> None:
    async def scenario() -> None:
        site, begun, may_end = Site(), asyncio.Event(), asyncio.Event()

        async def slow(frame: bytes) -> bytes:
            begun.set()
            await may_end.wait()
            return b"ACK " + frame

        site.answer = slow
        async with listening(site) as listener, connected(listener) as sender:
            sender.writer.write(wrap(b"FIRST") + wrap(b"SECOND"))
            await begun.wait()
            listener.deny = lambda peer: "certificate"
            listener.reconsider()
            listener.reconsider()  # told once, however often
            may_end.set()
            assert await sender.frame() == b"ACK FIRST"
            assert await sender.frame() == b""
            assert (await site.seen("mllp_connection_closed"))["reason"] == "may not send any more: certificate"
        assert site.received == [b"FIRST"]
        assert len(site._named("mllp_caller_denied")) == 1

    asyncio.run(scenario())
