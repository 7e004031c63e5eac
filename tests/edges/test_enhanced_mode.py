"""Enhanced acknowledgement mode and answers order by order, over real sockets and the real store."""

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest
from hl7_service import Peered, orm, ran, serving

from gateway.edges.mllp import MLLPClient
from gateway.wire.er7 import parse


def msa(answer: bytes) -> tuple[str, str]:
    told = parse(answer).segments[1]
    return told.text(1), told.text(2)


async def answered(client: MLLPClient, *messages: bytes) -> list[tuple[str, str]]:
    return [msa(await client.send(message)) for message in messages]


def test_without_a_destination_a_sender_gets_the_one_answer_it_asks_for(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as (_, port), MLLPClient("127.0.0.1", port) as client:
            answers = await answered(
                client,
                orm("M1", "901"), orm("M2", "902", "AL", "NE"), orm("M3", "903", "AL", "AL"),
                orm("M4", "904", "", "AL"),
                orm("M5", "905", "AL", "NE", control="CA"),
            )  # fmt: skip
            assert answers == [("AA", "M1"), ("CA", "M2"), ("AA", "M3"), ("AA", "M4"), ("CE", "M5")]

    ran(scenario())


def test_never_means_that_nothing_is_sent_and_everything_is_kept(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as (service, port), MLLPClient("127.0.0.1", port, timeout_s=0.3) as client:
            with pytest.raises(TimeoutError):
                await client.send(orm("M1", "901", "NE", "NE"))
            await client.connect()
            with pytest.raises(TimeoutError):
                await client.send(orm("M2", "902", "ER", "ER"))
            assert service.store.reader.counts().listed_steps == 2

    ran(scenario())


def test_the_application_acknowledgement_goes_to_its_destination_as_a_message_of_its_own(tmp_path: Path) -> None:
    async def scenario() -> None:
        engine = Peered()
        await engine.listener.start()
        async with serving(tmp_path, engine.listener.port, acknowledge_to="oie") as (service, port):
            async with MLLPClient("127.0.0.1", port) as client:
                answers = await answered(
                    client,
                    orm("M1", "901", "AL", "AL"), orm("M2", "902", "AL", "AL", control="CA"),
                    orm("M3", "903", "AL", "NE"),
                    orm("M4", "904"), orm("M5", "905", "AL", "SU"),
                )  # fmt: skip
                assert answers == [("CA", "M1"), ("CA", "M2"), ("CA", "M3"), ("AA", "M4"), ("CA", "M5")]
            told = await engine.got(3)
            assert [(each.segments[1].text(1), each.segments[1].text(2)) for each in told] == [
                ("AA", "M1"), ("AE", "M2"), ("AA", "M5"),
            ]  # fmt: skip
            assert len({each.control_id for each in told}) == 3
            assert {each.msh.text(15) for each in told} == {"AL"}
            while service.store.reader.deliveries(1):  # noqa: ASYNC110  (the last answer is on its way)
                await asyncio.sleep(0)
        await engine.listener.stop()

    ran(scenario())


def test_application_acknowledgements_wait_for_a_destination_that_is_away(tmp_path: Path) -> None:
    async def scenario() -> None:
        engine = Peered()
        await engine.listener.start()
        await engine.listener.stop()
        async with serving(tmp_path, engine.listener.port, acknowledge_to="oie") as (service, port):
            async with MLLPClient("127.0.0.1", port) as client:
                assert await answered(client, orm("M1", "901", "AL", "AL")) == [("CA", "M1")]
            engine.listener.port = service.site.settings.destinations[0].port
            assert len(service.store.reader.deliveries(10)) == 1
            await engine.listener.start()
            (told,) = await engine.got(1)
            assert told.segments[1].text(2) == "M1"
        await engine.listener.stop()

    ran(scenario())


def test_a_repeated_message_gets_the_same_answer_and_acknowledges_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        engine = Peered()
        await engine.listener.start()
        async with serving(tmp_path, engine.listener.port, acknowledge_to="oie") as (_, port):
            async with MLLPClient("127.0.0.1", port) as client:
                first, again = [await client.send(orm("M1", "901", "AL", "AL")) for _ in range(2)]
                assert first == again
                await client.send(orm("M2", "902", "AL", "AL"))
            told = await engine.got(2)
            assert [each.segments[1].text(2) for each in told] == ["M1", "M2"]
        await engine.listener.stop()

    ran(scenario())


def test_orders_are_answered_one_by_one_where_the_listener_says_so(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path, answer="order") as (_, port), MLLPClient("127.0.0.1", port) as client:
            accepted = parse(await client.send(orm("M1", "901")))
            refused = parse(await client.send(orm("M2", "999", control="CA")))
        assert accepted.msh.text(9, 1, 1) + accepted.msh.text(9, 1, 2) == "ORRO02"
        (order,) = accepted.all("ORC")
        assert [order.raw(n) for n in (1, 2, 3)] == ["OK", "901^OE", "F901^RIS"]
        assert refused.segments[1].text(1) == "AE"
        assert [(each.text(1), each.text(2)) for each in refused.all("ORC")] == [("UC", "999")]

    ran(scenario())


def test_utf_16_is_refused_by_name_and_the_connection_lives_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as (_, port):
            for codec in ("utf-16-le", "utf-16-be", "utf-16"):
                async with MLLPClient("127.0.0.1", port) as client:
                    told = parse(await client.send(orm("M1", "901").decode().encode(codec)))
                    assert told.segments[1].text(1) == "AR"
                    assert "UTF-16" in told.segments[1].text(3)
                    with suppress(TimeoutError):
                        assert await answered(client, orm("M2", "902")) == [("AA", "M2")]

    ran(scenario())
