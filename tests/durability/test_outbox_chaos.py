"""An hour in which destinations die, hang, refuse, answer nonsense and come back, and the gateway is killed, on a
simulated clock.

At the end every destination has every message at least once; of each lane a message comes first only after those
before it did, and is repeated only before the next; a repeat is known by its MSH-10 or SOP Instance UID. What was
parked may be overtaken (design D8): it is counted, and the order is that of all the others. The deliverers, the store
and what reads HL7 answers are the real ones, the store's file outlives every kill; the destinations are at the end of a
connection of the test's, and behave as real ones were seen to (`tests/edges/test_delivery*.py` have them over real
sockets).

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
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest

from gateway.edges.channel import Channel, Destination, Outcome
from gateway.edges.database import StoreUnavailable
from gateway.edges.delivery import Deliverer
from gateway.edges.hl7_channel import HL7Channel
from gateway.edges.resolving import Hosts
from gateway.edges.store import Store, StoreUnit
from gateway.workflow.outbox import (
    Attempt,
    Delivery,
    OutboxState,
    Patience,
    dimse_attempt_of,
    enqueue,
    retry,
)
from gateway.workflow.ports import DeliveryKind, NewDelivery
from tests.durability.simulated_time import run

SEED = int(os.environ.get("GATEWAY_CHAOS_SEED", random.SystemRandom().randrange(1_000_000)))
HOUR_S = 3600.0
SETTLE_S = 3600.0
"""After the hour everybody is well, and nothing new comes."""
EVERY_S = 8.0
"""A message for each destination comes on average after so long."""
LANES = 6
KILL_EVERY_S = 180.0
MOOD_S = 60.0
PERSON_EVERY_S = 900.0
"""A person looks at what was parked, and has it sent again."""
START = datetime(2026, 7, 6, 7, tzinfo=UTC)
ANSWER_TIMEOUT_S = 30.0
MOODS = ("well", "well", "well", "dead", "hangs", "refuses", "garbles", "strays", "mad")
MAD = ("dead", "hangs", "drops", "refuses", "garbles", "strays")
"""Of one that is mad: another one each time."""

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


class Said(StrEnum):
    """What a receiver says to a message."""

    YES = "AA"
    NO = "AE"
    NONSENSE = "no answer that anybody could read"
    ASTRAY = "an answer to some other message"


@dataclass
class Receiver:
    """A system that is told things. `mood` is what it does with them now."""

    name: str
    random: random.Random
    kind: DeliveryKind
    mood: str = "well"
    got: list[str] = field(default_factory=list)  # the names of what it took in, as often as it did
    said: Counter[Said] = field(default_factory=Counter)
    outcomes: Counter[Attempt] = field(default_factory=Counter)

    def change_mood(self) -> None:
        self.mood = self.random.choice(MOODS)

    def mood_now(self) -> str:
        return self.random.choice(MAD) if self.mood == "mad" else self.mood

    async def reached(self) -> None:
        """Raises ConnectionRefusedError, in its time."""
        if self.mood_now() == "dead":
            await asyncio.sleep(self.random.choice((0.001, 3.0)))  # refused at once, or no way there
            raise ConnectionRefusedError

    async def take(self, name: str) -> list[Said]:
        """What it says to this message, in its time, one after the other. Raises ConnectionResetError, TimeoutError."""
        mood = self.mood_now()
        await asyncio.sleep(self.random.uniform(0.001, 0.2))
        if mood == "refuses":
            return self._say(Said.NO)
        if mood == "well" or self.random.random() < 0.5:  # or it came in, or it did not; nobody there can tell
            self.got.append(name)
        if mood in ("dead", "drops"):
            raise ConnectionResetError
        if mood == "hangs":
            await asyncio.sleep(ANSWER_TIMEOUT_S)
            raise TimeoutError
        if mood in ("garbles", "strays"):
            return self._say(Said.NONSENSE if mood == "garbles" else Said.ASTRAY)
        await asyncio.sleep(self.random.uniform(0.0, 0.05))  # in which a kill loses the answer
        late = self.kind is DeliveryKind.HL7 and self.random.random() < 0.1
        return self._say(Said.ASTRAY, Said.YES) if late else self._say(Said.YES)

    def _say(self, *said: Said) -> list[Said]:
        self.said.update(said)
        return list(said)


class SimulatedConnection:
    """An `MLLPClient` with a receiver at its other end."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self.connected = False

    async def connect(self) -> None:
        await self._receiver.reached()
        self.connected = True

    async def send(self, data: bytes, is_answer: Callable[[bytes], bool]) -> bytes:
        name = data.decode().split("|")[9]
        try:
            for said in await self._receiver.take(name):
                if is_answer(answer := acknowledgement(said, name)):
                    return answer
            await asyncio.sleep(ANSWER_TIMEOUT_S)
            raise TimeoutError
        except (OSError, TimeoutError):
            self.connected = False
            raise

    async def close(self) -> None:
        self.connected = False


def acknowledgement(said: Said, control_id: str) -> bytes:
    """The same in HL7."""
    if said is Said.NONSENSE:
        return b"<html>503</html>"
    msa = f"MSA|AA|NOT{control_id}" if said is Said.ASTRAY else f"MSA|{said}|{control_id}"
    return f"MSH|^~\\&|A|B|C|D|20260706070000||ACK|1|P|2.3.1\r{msa}\r".encode()


class SimulatedAssociation:
    """A `PerformedChannel` with a receiver at its other end: there each answer is for the message or for none."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver

    async def send(self, delivery: Delivery) -> Outcome:
        try:
            await self._receiver.reached()
        except ConnectionRefusedError:
            return Outcome(Attempt.UNREACHABLE)
        try:
            (said,) = await self._receiver.take(delivery.payload.decode())
        except (OSError, TimeoutError):
            return Outcome(Attempt.UNANSWERED)
        if said in (Said.NONSENSE, Said.ASTRAY):
            return Outcome(Attempt.UNUSABLE)
        return Outcome(dimse_attempt_of(delivery.operation, 0x0000 if said is Said.YES else 0x0213))

    async def close(self) -> None:
        return None


@dataclass
class Watched:
    """A channel, and what came of each message at its end."""

    channel: Channel
    outcomes: Counter[Attempt]

    async def send(self, delivery: Delivery) -> Outcome:
        outcome = await self.channel.send(delivery)
        self.outcomes[outcome.attempt] += 1
        return outcome

    async def close(self) -> None:
        await self.channel.close()


def what(delivery: Delivery) -> str:
    """By what a receiver knows it again."""
    return delivery.control_id if delivery.kind is DeliveryKind.HL7 else delivery.payload.decode()


class Anywhere(Hosts):
    """Receivers go by their names, and nobody is asked for them: a thread would not keep to simulated time."""

    async def addresses_soon(self, host: str) -> tuple[str, ...]:
        return (host,)


@dataclass
class Site:
    """The gateway, which dies and comes back, over one file; and what it was given to tell."""

    path: Path
    receivers: list[Receiver]
    random: random.Random
    patience: Patience
    parked: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
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
            destination = Destination(receiver.name, receiver.name, 0, ANSWER_TIMEOUT_S)
            hl7 = receiver.kind is DeliveryKind.HL7
            deliverer = Deliverer(
                destination,
                self.process,  # type: ignore[arg-type]  # the part of a Store that it uses
                self._observe,
                self.patience,
                self.now,
                channel=Watched(
                    HL7Channel(destination, hosts=Anywhere()) if hl7 else SimulatedAssociation(receiver),
                    receiver.outcomes,
                ),
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
            message = f"MSH|^~\\&|A|B|C|D|20260706070000||ORM^O01|{name}|P|2.3.1\r".encode()
            self.process.write(lambda unit: enqueue(unit, receiver.name, int(lane), name, message, at)).result()
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
            self.parked[parked.destination].add(what(parked))
            self.process.write(partial(retry, delivery_id=parked.id, at=at)).result()


async def disturb(site: Site) -> None:
    """Every receiver changes its mood at random, and the gateway is killed at random; in the end all is well."""
    loop = asyncio.get_running_loop()
    events: list[tuple[float, int, Callable[[], Any]]] = []
    happens: list[tuple[float, Callable[[], Any]]] = [
        (KILL_EVERY_S, lambda: "kill"), (PERSON_EVERY_S, site.repeat_what_was_parked),
    ]  # fmt: skip
    for receiver in site.receivers:
        happens.append((MOOD_S, receiver.change_mood))
        happens.append((EVERY_S, partial(site.tell, receiver)))
    for mean, act in happens:
        at = 0.0
        while (at := at + site.random.expovariate(1 / mean)) < HOUR_S:
            events.append((at, len(events), act))
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


def check(told: list[tuple[str, str]], got: list[str], parked: set[str]) -> int:
    """Every message at least once, in order of its lane but for what was parked; how many were repeats."""
    assert set(got) == {name for _, name in told}
    lane_of = {name: lane for lane, name in told if name not in parked}
    for lane in set(lane_of.values()):
        expected = [name for each, name in told if each == lane and name not in parked]
        # A repeat is never behind a newer message of its lane: with its repeats taken out, the lane is in order.
        row = [name for name in got if lane_of.get(name) == lane]
        assert [name for at, name in enumerate(row) if at == 0 or row[at - 1] != name] == expected
    return len(got) - len(told)


@pytest.mark.parametrize("errors_max", [1000, 8], ids=["nobody is given up", "what is refused too often is parked"])
def test_an_hour_of_chaos_loses_nothing_and_keeps_every_lane_in_order(
    tmp_path: Path, errors_max: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    print(f"GATEWAY_CHAOS_SEED={SEED}")
    chance = random.Random(SEED)
    receivers = [
        Receiver(name, random.Random(chance.randrange(1_000_000)), kind)
        for name, kind in (
            ("ris", DeliveryKind.HL7), ("ehr", DeliveryKind.HL7),
            ("pacs", DeliveryKind.PERFORMED), ("archive", DeliveryKind.PERFORMED),
        )
    ]  # fmt: skip
    by_host = {receiver.name: receiver for receiver in receivers}
    monkeypatch.setattr("gateway.edges.hl7_channel.MLLPClient", lambda host, *_: SimulatedConnection(by_host[host]))
    site = Site(tmp_path / "gateway.db", receivers, chance, Patience(errors_max=errors_max))
    run(live_through_it(site))
    repeats = {
        receiver.name: check(site.told[receiver.name], receiver.got, site.parked[receiver.name])
        for receiver in receivers
    }
    told, parked = sum(map(len, site.told.values())), sum(map(len, site.parked.values()))
    print(f"{site.kills} kills, {told} messages, {parked} of them parked, repeats: {repeats}")
    assert not site.failed
    assert site.kills > 3
    assert sum(repeats.values()) > 10, "nothing was ever repeated: this was no chaos"
    assert 0 < parked < told / 4 if errors_max == 8 else not parked
    assert set(sum((receiver.said for receiver in receivers), Counter())) == set(Said)
    seen = set(sum((receiver.outcomes for receiver in receivers), Counter()))
    assert seen == {Attempt.ACCEPTED, Attempt.UNREACHABLE, Attempt.UNANSWERED, Attempt.ERROR, Attempt.UNUSABLE}
