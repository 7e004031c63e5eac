"""An hour in which destinations die, hang, refuse and come back, and the gateway is killed, on a simulated clock.

At the end every destination has every message at least once; of each lane a message comes first only after those
before it did, and is repeated only before the next; a repeat is known by its MSH-10 or SOP Instance UID. The deliverers
and the store are the real ones, the store's file outlives every kill; the destinations are at the end of a `Channel` of
the test's, and behave as real ones were seen to (`tests/edges/test_delivery*.py` have them over real sockets).

GATEWAY_CHAOS_SEED repeats an earlier run.
"""

import asyncio
import os
import random
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest

from gateway.edges.channel import Destination, Outcome
from gateway.edges.database import StoreUnavailable
from gateway.edges.delivery import Deliverer
from gateway.edges.store import Store, StoreUnit
from gateway.workflow.outbox import Attempt, Delivery, OutboxState, Patience, enqueue, retry
from gateway.workflow.ports import DeliveryKind, NewDelivery
from tests.durability.simulated_time import run

SEED = int(os.environ.get("GATEWAY_CHAOS_SEED", random.SystemRandom().randrange(1_000_000)))
HOUR_S = 3600.0
SETTLE_S = 3600.0
"""After the hour everybody is well, and nothing new comes."""
EVERY_S = 6.0
"""A message for each destination comes on average after so long."""
LANES = 6
KILL_EVERY_S = 180.0
MOOD_S = 60.0
START = datetime(2026, 7, 6, 7, tzinfo=UTC)
ANSWER_TIMEOUT_S = 30.0
PATIENCE = Patience(first_s=1.0, most_s=60.0, errors_max=8)

T = TypeVar("T")


class Killable:
    """A store as one process has it: whatever that process wants to write after its end is not written.

    Writing happens at once, since a thread would go by another clock.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.reader = store.reader
        self.killed = False

    def write(self, use_case: Callable[[StoreUnit], T]) -> "Future[T]":
        if self.killed:
            dead: Future[T] = Future()
            dead.set_exception(StoreUnavailable("the process is gone"))
            return dead
        done = self._store.write(use_case)
        done.exception()  # waits
        return done


@dataclass
class Receiver:
    """A system that is told things. `mood` is what it does with them now; it is itself in a moment, all the same."""

    name: str
    random: random.Random
    kind: DeliveryKind
    mood: str = "well"
    got: list[tuple[str, str]] = field(default_factory=list)  # (lane, what) of what it took in
    answers: Counter[str] = field(default_factory=Counter)

    def change_mood(self) -> None:
        self.mood = self.random.choice(("well", "well", "dead", "hangs", "refuses", "mad"))

    async def take(self, delivery: Delivery) -> Outcome:
        """What comes of a message, in its time."""
        mood = self.random.choice(("dead", "hangs", "drops", "refuses")) if self.mood == "mad" else self.mood
        outcome = await self._answer(delivery, mood)
        self.answers[outcome.attempt.name] += 1
        return outcome

    async def _answer(self, delivery: Delivery, mood: str) -> Outcome:
        if mood == "dead":
            await asyncio.sleep(self.random.choice((0.001, 3.0)))  # refused at once, or no way there
            return Outcome(Attempt.UNREACHABLE, "ConnectionRefusedError")
        await asyncio.sleep(self.random.uniform(0.001, 0.2))
        if mood == "refuses":
            busy = delivery.kind is DeliveryKind.HL7
            return Outcome(Attempt.ERROR, "AE" if busy else "0213")
        if mood in ("hangs", "drops"):
            if self.random.random() < 0.5:  # it came in, or it did not; nobody here can tell
                self.got.append((delivery.lane, what(delivery)))
            await asyncio.sleep(ANSWER_TIMEOUT_S if mood == "hangs" else 0.01)
            return Outcome(Attempt.UNANSWERED, "no answer")
        self.got.append((delivery.lane, what(delivery)))
        await asyncio.sleep(self.random.uniform(0.0, 0.05))  # in which a kill loses the answer
        return Outcome(Attempt.ACCEPTED)


@dataclass
class SimulatedChannel:
    """The way to a receiver, as the deliverer has it."""

    receiver: Receiver

    async def send(self, delivery: Delivery) -> Outcome:
        return await self.receiver.take(delivery)

    async def close(self) -> None:
        return None


def what(delivery: Delivery) -> str:
    """By what a receiver knows it again."""
    return delivery.control_id if delivery.kind is DeliveryKind.HL7 else delivery.payload.decode()


@dataclass
class Site:
    """The gateway, which dies and comes back, over one file; and what it was given to tell."""

    path: Path
    receivers: list[Receiver]
    random: random.Random
    told: dict[str, list[tuple[str, str]]] = field(default_factory=lambda: defaultdict(list))
    kills: int = 0
    failed: list[str] = field(default_factory=list)

    def now(self) -> datetime:
        return START + timedelta(seconds=asyncio.get_running_loop().time())

    def start(self) -> None:
        self.store = Store(f"sqlite:///{self.path}")
        self.process = Killable(self.store)
        self.deliverers = {}
        for receiver in self.receivers:
            deliverer = Deliverer(
                Destination(receiver.name, "", 0, ANSWER_TIMEOUT_S),
                self.process,  # type: ignore[arg-type]  # the part of a Store that it uses
                self._observe,
                PATIENCE,
                self.now,
                channel=SimulatedChannel(receiver),
            )
            deliverer.start()
            self.deliverers[receiver.name] = deliverer

    async def kill(self) -> None:
        """As SIGKILL: what is under way ends without a word, what is not on the disk never was."""
        self.kills += 1
        self.process.killed = True
        await self._end()

    async def _end(self) -> None:
        for deliverer in self.deliverers.values():
            await deliverer.stop(0.0)
        self.store.close()

    def _observe(self, event: str, /, **fields: Any) -> None:
        if event == "delivery_failed":
            self.failed.append(str(fields))

    def tell(self, receiver: Receiver) -> None:
        """Something happened that this one has to know: it is told of it in the order of its lane."""
        number = len(self.told[receiver.name])
        lane = str(self.random.randrange(LANES) + 1)
        at = self.now()
        if receiver.kind is DeliveryKind.HL7:
            name = f"{receiver.name}{number:06}"
            self.process.write(lambda unit: enqueue(unit, receiver.name, int(lane), name, b"MSH|", at)).result()
        else:
            uid, name = f"2.25.{lane}", f"{number:06}"
            lane = uid
            new = NewDelivery(receiver.name, uid, uid, name.encode(), 1, receiver.kind, "N-SET")
            self.process.write(lambda unit: unit.add_delivery(new, at)).result()
        self.told[receiver.name].append((lane, name))
        self.deliverers[receiver.name].wake()

    def repeat_what_was_parked(self) -> None:
        """What was refused too often is for a person, and this one has it sent again."""
        at = self.now()
        for parked in self.store.reader.deliveries(10_000, state=OutboxState.PARKED):
            self.process.write(partial(retry, delivery_id=parked.id, at=at)).result()


async def disturb(site: Site) -> None:
    """Every receiver changes its mood at random, and the gateway is killed at random; in the end all is well."""
    loop = asyncio.get_running_loop()
    events: list[tuple[float, int, Callable[[], Any]]] = []
    for receiver in site.receivers:
        for mean, act in ((MOOD_S, receiver.change_mood), (EVERY_S, lambda it=receiver: site.tell(it))):
            at = 0.0
            while (at := at + site.random.expovariate(1 / mean)) < HOUR_S:
                events.append((at, len(events), act))
    at = 0.0
    while (at := at + site.random.expovariate(1 / KILL_EVERY_S)) < HOUR_S:
        events.append((at, len(events), lambda: "kill"))
    for at, _, act in sorted(events):
        await asyncio.sleep(max(at - loop.time(), 0.0))
        if act() == "kill":
            await site.kill()
            await asyncio.sleep(site.random.uniform(0.0, 5.0))
            site.start()
    for receiver in site.receivers:
        receiver.mood = "well"


async def live_through_it(site: Site) -> None:
    site.start()
    await disturb(site)
    over = asyncio.get_running_loop().time() + SETTLE_S
    while any(queue.waiting or queue.parked for queue in site.store.reader.queues()):
        assert asyncio.get_running_loop().time() < over, "an hour of peace was not enough"
        site.repeat_what_was_parked()
        await asyncio.sleep(10.0)
    await site._end()


def check(told: list[tuple[str, str]], got: list[tuple[str, str]], in_order: bool) -> int:
    """Every message at least once, in order of its lane; how many were repeats."""
    assert set(got) == set(told)
    firsts = list(dict.fromkeys(got))
    for lane in {lane for lane, _ in told}:
        expected = [name for each, name in told if each == lane]
        came = [name for each, name in firsts if each == lane]
        assert came == expected or not in_order
        # A repeat is never behind a newer message of its lane: with its repeats taken out, the lane is in order.
        row = [name for each, name in got if each == lane]
        assert [name for at, name in enumerate(row) if at == 0 or row[at - 1] != name] == expected or not in_order
    return len(got) - len(firsts)


@pytest.mark.parametrize("errors_max", [1000, 8], ids=["nobody is given up", "what is refused too often is parked"])
def test_an_hour_of_chaos_loses_nothing_and_keeps_every_lane_in_order(tmp_path: Path, errors_max: int) -> None:
    """Where messages are parked, those behind them go on (design D8): order holds for what is not given up."""
    print(f"GATEWAY_CHAOS_SEED={SEED}")
    chance = random.Random(SEED)
    receivers = [
        Receiver(name, random.Random(chance.randrange(1_000_000)), kind)
        for name, kind in (
            ("ris", DeliveryKind.HL7), ("ehr", DeliveryKind.HL7),
            ("pacs", DeliveryKind.PERFORMED), ("archive", DeliveryKind.PERFORMED),
        )
    ]  # fmt: skip
    site = Site(tmp_path / "gateway.db", receivers, chance)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(f"{__name__}.PATIENCE", Patience(errors_max=errors_max))
        run(live_through_it(site))
    repeats = {
        receiver.name: check(site.told[receiver.name], receiver.got, errors_max == 1000) for receiver in receivers
    }
    print(f"{site.kills} kills, {sum(map(len, site.told.values()))} messages, repeats: {repeats}")
    assert not site.failed
    assert site.kills > 3
    assert sum(repeats.values()) > 10, "nothing was ever repeated: this was no chaos"
    seen = sum((receiver.answers for receiver in receivers), Counter())
    assert {"ACCEPTED", "UNREACHABLE", "UNANSWERED", "ERROR"} <= set(seen)
