"""Who looks into the outbox after a message: those that have something to send, and nobody else."""

import asyncio
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.edges import delivery
from gateway.edges.channel import Destination, Outcome
from gateway.edges.database import Prepared, Row, StoreUnavailable
from gateway.edges.delivery import Deliverer, wake_those_due
from gateway.edges.store import Store, StoreUnit
from gateway.workflow.outbox import Attempt, Delivery, Patience
from gateway.workflow.ports import NewDelivery

PATIENCE_S = 10
DESTINATIONS = 20
AT = datetime(2026, 7, 5, 8, tzinfo=UTC)
NEVER_S = 3600.0


class Channel:
    """Takes everything, or answers with an error while it is told to."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.happened = asyncio.Event()
        self.may_go = asyncio.Event()
        self.may_go.set()
        self.attempt = Attempt.ACCEPTED

    async def send(self, delivery: Delivery) -> Outcome:
        self.sent.append(delivery.control_id)
        self.happened.set()
        await self.may_go.wait()
        return Outcome(self.attempt)

    async def close(self) -> None: ...


class Outbox:
    """Deliverers of many destinations over one store, all idle; `statements` are those of the event loop's reader."""

    def __init__(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        self.store = store
        self.now = AT
        self.channels = {f"to{number}": Channel() for number in range(DESTINATIONS)}
        self.deliverers = {
            name: Deliverer(
                Destination(name, "127.0.0.1", 1), store, self._observe, Patience(), lambda: self.now, channel=channel
            )
            for name, channel in self.channels.items()
        }
        self.statements: list[Prepared] = []
        connection: Any = store.reader._connection
        rows = connection.rows

        def counted(prepared: Prepared, **values: Any) -> list[Row]:
            self.statements.append(prepared)
            found: list[Row] = rows(prepared, **values)
            return found

        monkeypatch.setattr(connection, "rows", counted)

    def _observe(self, event: str, /, **fields: Any) -> None:
        """Nobody looks at these here."""

    async def all_idle(self) -> None:
        while not all(each.idle for each in self.deliverers.values()):  # noqa: ASYNC110  (nobody is told)
            await asyncio.sleep(0)
        self.statements.clear()

    async def put(self, *destinations: str, lane: str = "1", name: str = "M") -> None:
        """What a message received puts there, and who is woken by it."""

        def add(unit: StoreUnit) -> None:
            for destination in destinations:
                unit.add_delivery(NewDelivery(destination, lane, name, b"MSH", 1), self.now)

        await self.store.written(add)
        wake_those_due(self.deliverers, self.store.reader, self.now)


Scenario = Callable[[Outbox], Coroutine[Any, Any, None]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Scenario], None]:
    """With nobody looking by himself: what happens is what waking did."""
    monkeypatch.setattr(delivery, "POLL_S", NEVER_S)

    async def bounded(scenario: Scenario) -> None:
        with Store(f"sqlite:///{tmp_path / 'gateway.db'}") as store:
            async with asyncio.timeout(PATIENCE_S):
                outbox = Outbox(store, monkeypatch)
                for each in outbox.deliverers.values():
                    each.start()
                await outbox.all_idle()
                try:
                    await scenario(outbox)
                finally:
                    await asyncio.gather(*(each.stop(0.0) for each in outbox.deliverers.values()))

    return lambda scenario: asyncio.run(bounded(scenario))


def test_a_message_that_is_told_to_nobody_costs_one_statement(run: Callable[[Scenario], None]) -> None:
    async def scenario(outbox: Outbox) -> None:
        await outbox.put()
        await asyncio.sleep(0)
        assert len(outbox.statements) == 1
        assert all(each.idle for each in outbox.deliverers.values())

    run(scenario)


def test_only_the_destinations_of_a_message_are_woken(run: Callable[[Scenario], None]) -> None:
    async def scenario(outbox: Outbox) -> None:
        await outbox.put("to3", "to7")
        assert [name for name, each in outbox.deliverers.items() if not each.idle] == ["to3", "to7"]
        for name in ("to3", "to7"):
            await outbox.channels[name].happened.wait()
        await outbox.all_idle()
        assert {name for name, each in outbox.channels.items() if each.sent} == {"to3", "to7"}

    run(scenario)


def test_one_that_is_sending_is_not_asked_for_and_finds_what_came_meanwhile(run: Callable[[Scenario], None]) -> None:
    async def scenario(outbox: Outbox) -> None:
        channel = outbox.channels["to3"]
        channel.may_go.clear()
        await outbox.put("to3", name="M1")
        await channel.happened.wait()
        await outbox.put("to3", lane="2", name="M2")
        assert channel.sent == ["M1"]
        channel.happened.clear()
        channel.may_go.set()
        await channel.happened.wait()
        assert channel.sent == ["M1", "M2"]

    run(scenario)


def test_where_all_are_at_work_nothing_is_asked(run: Callable[[Scenario], None]) -> None:
    async def scenario(outbox: Outbox) -> None:
        for channel in outbox.channels.values():
            channel.may_go.clear()
        await outbox.put(*outbox.channels)
        for channel in outbox.channels.values():
            await channel.happened.wait()
        outbox.statements.clear()
        await outbox.put("to3", lane="2")
        assert outbox.statements == []
        for channel in outbox.channels.values():
            channel.may_go.set()

    run(scenario)


def test_a_destination_whose_messages_wait_for_their_time_or_that_is_held_is_not_woken(
    run: Callable[[Scenario], None],
) -> None:
    async def scenario(outbox: Outbox) -> None:
        await outbox.store.written(lambda unit: unit.hold_queue("to1", True))
        outbox.channels["to3"].attempt = Attempt.ERROR
        await outbox.put("to1", "to3")
        await outbox.channels["to3"].happened.wait()
        await outbox.all_idle()
        await outbox.put()
        assert all(each.idle for each in outbox.deliverers.values())
        outbox.now += timedelta(days=1)
        await outbox.put()
        assert [name for name, each in outbox.deliverers.items() if not each.idle] == ["to3"]

    run(scenario)


def test_a_store_that_cannot_be_read_does_not_spoil_the_answer_to_a_message(
    run: Callable[[Scenario], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario(outbox: Outbox) -> None:
        def failing(_now: datetime) -> list[str]:
            raise StoreUnavailable("away")

        with monkeypatch.context() as patched:
            patched.setattr(outbox.store.reader, "due_destinations", failing)
            await outbox.put("to3")
        assert outbox.channels["to3"].sent == []
        await outbox.put()
        await outbox.channels["to3"].happened.wait()

    run(scenario)
