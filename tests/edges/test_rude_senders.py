"""Senders that misbehave, through the whole service: each is answered, bounded, and found in the archive."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hl7_service import orm, ran, serving

from gateway.edges.database import StoreUnavailable
from gateway.edges.mllp import MLLPClient
from gateway.service import Service
from gateway.wire.er7 import parse
from gateway.wire.mllp import Frame, Framer, wrap
from gateway.workflow.ports import MessageSearch


class Sender:
    """Writes bytes as it likes; reads answers."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.framer = Framer()
        self.answers: list[tuple[str, str, str]] = []

    async def answered(self, count: int) -> list[tuple[str, str, str]]:
        """MSA-1 to 3 of the first answers."""
        while len(self.answers) < count:
            data = await self.reader.read(10_000)
            assert data, "closed before it was answered"
            for event in self.framer.feed(data):
                assert isinstance(event, Frame)
                msa = parse(event.data).segments[1]
                self.answers.append((msa.text(1), msa.text(2), msa.text(3)))
        return self.answers


@asynccontextmanager
async def sending(port: int) -> AsyncIterator[Sender]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Sender(reader, writer)
    finally:
        writer.close()
        await writer.wait_closed()


def archived(service: Service) -> list[tuple[str, str, bytes]]:
    """(outcome, peer's host, the first bytes) of everything that came, newest first."""
    found = service.store.reader.find_messages(MessageSearch(), 100)
    return [(each.record.disposition, each.record.peer.split(":")[0], each.record.raw[:8]) for each in found]


@pytest.mark.parametrize(
    ("stream", "codes"),
    [
        (b"\x0b" + orm("M1", "901") + b"\x1c\xff" + wrap(orm("M2", "902")), ["AA", "AA"]),
        (b"\x0b" + orm("M1", "901") + b"\x1c\x0c" + wrap(orm("M2", "902")), ["AA", "AA"]),
        (b"\x0b" + orm("M1", "901") + wrap(orm("M2", "902")), ["AR", "AA"]),
        (b"\0\0" + wrap(orm("M1", "901")) + b"\0\0\0" + wrap(orm("M2", "902")) + b"\0", ["AA", "AA"]),
        (orm("M1", "901") + b"\x1c\r" + wrap(orm("M2", "902")), ["AR", "AA"]),
        (b"hello\r\n" + wrap(orm("M1", "901")) + wrap(orm("M2", "902")), ["AA", "AA"]),
    ],
    ids=["end-ff", "end-form-feed", "no-end", "nuls-between", "no-start", "text-before"],
)
def test_strange_framing_is_answered_message_by_message_and_leaves_a_trace(
    tmp_path: Path, stream: bytes, codes: list[str]
) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as (service, port), sending(port) as sender:
            sender.writer.write(stream)
            answers = await sender.answered(2)
            assert [code for code, _, _ in answers] == codes
            assert [control_id for _, control_id, _ in answers] == ["M1", "M2"]
            outcomes = archived(service)
            assert [each for each, _, _ in outcomes].count("accepted") == codes.count("AA")
            assert len([each for each, _, _ in outcomes if each in ("refused", "unreadable")]) >= codes.count("AR")
            assert {peer for _, peer, _ in outcomes} == {"127.0.0.1"}

    ran(scenario())


def test_a_hundred_megabytes_are_drained_answered_and_remembered_by_their_beginning(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as (service, port), sending(port) as sender:
            sender.writer.write(b"\x0b" + orm("M1", "901"))
            part = b"x" * 1_000_000
            for _ in range(100):
                sender.writer.write(part)
                await sender.writer.drain()
            sender.writer.write(b"\x1c\r" + wrap(orm("M2", "902")))
            (first, second) = await sender.answered(2)
            assert first[:2] == ("AE", "M1")
            assert "longer than allowed (100" in first[2]
            assert second[:2] == ("AA", "M2")
            (stored,) = service.store.reader.find_messages(MessageSearch(control_id="M1"), 2)
            assert len(stored.record.raw) <= 4096

    ran(scenario())


def test_a_sender_who_does_not_wait_is_answered_in_order(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as (_, port), sending(port) as sender:
            names = [f"M{number}" for number in range(100)]
            sender.writer.write(b"".join(wrap(orm(name, f"9{name[1:]}")) for name in names))
            assert [control_id for _, control_id, _ in await sender.answered(100)] == names

    ran(scenario())


def test_a_full_disk_is_told_as_transient_and_nothing_is_acknowledged_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as (service, port), MLLPClient("127.0.0.1", port) as client:

            def full(use_case: Any) -> Any:
                raise StoreUnavailable("database or disk is full")

            monkeypatch.setattr(service.store, "written", full)
            for message in (orm("M1", "901"), orm("M1", "901", "AL", "NE"), orm("M1", "901", "AL", "AL")):
                told = parse(await client.send(message))
                assert told.segments[1].text(1) in ("AR", "CE")
                assert "207" in told.segments[2].raw(1)
            monkeypatch.undo()
            assert service.store.reader.counts().listed_steps == 0
            assert parse(await client.send(orm("M1", "901"))).segments[1].text(1) == "AA"
            assert service.store.reader.counts().listed_steps == 1

    ran(scenario())
