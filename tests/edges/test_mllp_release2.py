"""MLLP release 2: every block is confirmed when what it held is on disk, and not before."""

from pathlib import Path
from typing import Any

import pytest
from hl7_service import orm, ran, serving

from gateway.edges.database import StoreUnavailable
from gateway.edges.mllp import MLLPClient, NotStoredError
from gateway.wire.er7 import parse
from gateway.wire.mllp import Commit, Event, Frame, Framer, Junk, commit, wrap


async def exchanged(client: MLLPClient, data: bytes, count: int) -> list[Event]:
    """The first events that come back."""
    assert client._streams is not None
    reader, writer = client._streams
    writer.write(data)
    framer, events = Framer(), []
    while len(events) < count:
        received = await reader.read(1000)
        assert received
        events += framer.feed(received)
    return events


def shown(events: list[Event]) -> list[bool | str]:
    return [
        event.stored if isinstance(event, Commit) else parse(event.data).segments[1].text(1)
        for event in events
        if isinstance(event, Commit | Frame)
    ]


def test_the_bytes_of_a_commit_block() -> None:
    assert (commit(True), commit(False)) == (b"\x0b\x06\x1c\r", b"\x0b\x15\x1c\r")
    assert Framer().feed(commit(True) + wrap(b"\x06MSH") + commit(False)) == [
        Commit(True), Frame(b"\x06MSH"), Commit(False),
    ]  # fmt: skip


def test_a_stored_message_is_confirmed_then_answered_also_when_it_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path, mllp_release=2) as (_, port), MLLPClient("127.0.0.1", port) as client:
            both = wrap(orm("M1", "901")) + wrap(orm("M2", "902", control="CA"))
            assert shown(await exchanged(client, both, 4)) == [True, "AA", True, "AE"]

    ran(scenario())


def test_our_answers_may_be_confirmed_or_not(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path, mllp_release=2) as (_, port), MLLPClient("127.0.0.1", port) as client:
            assert shown(await exchanged(client, commit(True) + commit(False) + wrap(orm("M1", "901")), 2)) == [
                True,
                "AA",
            ]
            assert not [
                event for event in await exchanged(client, wrap(orm("M2", "902")), 2) if isinstance(event, Junk)
            ]

    ran(scenario())


def test_what_asks_for_no_answer_is_still_confirmed(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path, mllp_release=2) as (_, port), MLLPClient("127.0.0.1", port) as client:
            both = wrap(orm("M1", "901", "NE", "NE")) + wrap(orm("M2", "902"))
            assert shown(await exchanged(client, both, 3)) == [True, True, "AA"]

    ran(scenario())


def test_several_messages_in_one_block_are_confirmed_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path, mllp_release=2) as (_, port), MLLPClient("127.0.0.1", port) as client:
            assert shown(await exchanged(client, wrap(orm("M1", "901") + orm("M2", "902")), 3)) == [True, "AA", "AA"]

    ran(scenario())


def test_what_cannot_be_stored_is_not_confirmed_and_not_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with serving(tmp_path, mllp_release=2) as (service, port), MLLPClient("127.0.0.1", port) as client:
            write = service.store.write

            def full(use_case: Any) -> Any:
                future = write(lambda unit: None)
                future.result()
                raise StoreUnavailable("disk full")

            monkeypatch.setattr(service.store, "written", full)
            assert shown(await exchanged(client, wrap(orm("M1", "901")), 1)) == [False]
            monkeypatch.undo()
            assert shown(await exchanged(client, wrap(orm("M1", "901")), 2)) == [True, "AA"]

    ran(scenario())


def test_half_a_message_is_not_confirmed(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path, mllp_release=2) as (_, port), MLLPClient("127.0.0.1", port) as client:
            cut = b"\x0b" + orm("M1", "901")[:50] + wrap(orm("M1", "901"))
            assert shown(await exchanged(client, cut, 3)) == [False, True, "AA"]

    ran(scenario())


def test_the_client_speaks_release_2_and_tells_what_was_not_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with (
            serving(tmp_path, mllp_release=2) as (service, port),
            MLLPClient("127.0.0.1", port, release=2) as client,
        ):
            answers = [await client.send(orm(f"M{number}", f"90{number}")) for number in (1, 2)]
            assert [parse(answer).segments[1].text(2) for answer in answers] == ["M1", "M2"]

            def away(use_case: Any) -> Any:
                raise StoreUnavailable("away")

            monkeypatch.setattr(service.store, "written", away)
            with pytest.raises(NotStoredError):
                await client.send(orm("M3", "903"))
            monkeypatch.undo()

    ran(scenario())


def test_release_1_overlooks_commit_blocks(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with serving(tmp_path) as (_, port), MLLPClient("127.0.0.1", port) as client:
            assert shown(await exchanged(client, commit(True) + wrap(orm("M1", "901")), 1)) == ["AA"]

    ran(scenario())
