"""Batches and messages in a row through the whole service."""

from pathlib import Path
from typing import Any

import pytest
from hl7_service import orm, ran, serving

from gateway.edges.database import StoreUnavailable
from gateway.edges.mllp import MLLPClient
from gateway.wire.er7 import parse
from gateway.wire.hl7_batch import MESSAGES_MAX, split
from gateway.wire.mllp import Frame, Framer, wrap

BHS = b"BHS|^~\\&|RIS|RADX|GATEWAY|RADX|20260705||night||B77\r"


def codes(messages: list[bytes]) -> list[tuple[str, str]]:
    return [(told.segments[1].text(1), told.segments[1].text(2)) for told in map(parse, messages)]


def test_each_message_of_a_batch_goes_its_own_way(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as (service, port), MLLPClient("127.0.0.1", port) as client:
            batch = BHS + orm("M1", "901") + orm("M2", "902", control="CA") + orm("M3", "903") + b"BTS|3\r"
            told = split(await client.send(batch))
            assert told is not None
            assert told.parts[0].header.split(b"|")[11].strip() == b"B77"
            assert codes(list(told.messages)) == [("AA", "M1"), ("AE", "M2"), ("AA", "M3")]
            assert service.store.reader.counts().listed_steps == 2
            again = split(await client.send(batch))
            assert again is not None
            assert codes(list(again.messages)) == [("AA", "M1"), ("AE", "M2"), ("AA", "M3")]
            assert service.store.reader.counts().listed_steps == 2

    ran(scenario())


def test_a_file_of_batches_with_wrong_counts_is_taken_and_the_counts_are_told(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as (_, port), MLLPClient("127.0.0.1", port) as client:
            file = b"FHS|^~\\&|RIS\n" + BHS + orm("M1", "901") + b"BTS|2\n" + BHS + orm("M2", "902") + b"BTS|1\nFTS|1\n"
            told = await client.send(file.replace(b"\r", b"\n"))
            assert told.startswith(b"FHS|")
            assert b"FTS|2|BTS-1 counts 2 messages, 1 came; FTS-1 counts 1 batches, 2 came\r" in told

    ran(scenario())


def test_messages_in_a_row_are_answered_each_by_a_block_in_order(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as (_, port), MLLPClient("127.0.0.1", port) as client:
            assert client._streams is not None
            reader, writer = client._streams
            writer.write(
                wrap(orm("M1", "901") + orm("M2", "902") + orm("M3", "903", "NE", "NE")) + wrap(orm("M4", "904"))
            )
            framer, answers = Framer(), []
            while len(answers) < 3:
                answers += [event.data for event in framer.feed(await reader.read(1000)) if isinstance(event, Frame)]
            assert codes(answers) == [("AA", "M1"), ("AA", "M2"), ("AA", "M4")]

    ran(scenario())


def test_a_batch_that_is_too_long_is_refused_as_a_whole_and_kept(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as (service, port), MLLPClient("127.0.0.1", port) as client:
            told = await client.send(BHS + b"MSH|^~\\&|R||||||ADT^A08|M\r" * (MESSAGES_MAX + 1))
            assert b"more than 10000 messages" in told
            assert service.store.reader.counts().listed_steps == 0

    ran(scenario())


def test_what_follows_in_a_batch_when_nothing_can_be_stored_is_put_off_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as (service, port), MLLPClient("127.0.0.1", port) as client:
            tried = []

            def full(use_case: Any) -> Any:
                tried.append(use_case)
                service.store.counts.failing = True
                raise StoreUnavailable("database or disk is full")

            batch = BHS + b"".join(orm(f"M{number}", f"90{number}") for number in range(5))
            monkeypatch.setattr(service.store, "written", full)
            told = split(await client.send(batch))
            assert told is not None
            assert codes(list(told.messages)) == [("AR", f"M{number}") for number in range(5)]
            assert len(tried) == 1
            monkeypatch.undo()
            told = split(await client.send(batch))
            assert told is not None
            assert codes(list(told.messages)) == [("AA", f"M{number}") for number in range(5)]

    ran(scenario())
