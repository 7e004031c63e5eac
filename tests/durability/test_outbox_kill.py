"""Killed at any instant while it tells others, the gateway tells everyone everything, in order.

Orders and performed steps flow in, SIGKILL ends the service at random moments, and its destinations outlive it: a RIS
that is told status, an Image Manager that gets performed steps, and one of each kind that dies, hangs and comes back at
random. In the end each has every accepted change. GATEWAY_OUTBOX_KILLS sets the number of kills (default 8),
GATEWAY_KILL_SEED repeats the moments of an earlier run. `test_outbox_chaos.py` has an hour of it on a simulated clock.
"""

import asyncio
import os
import random
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

import pytest
from pynetdicom.events import Event

from gateway.testing import (
    ImagingOrder,
    ServiceProcess,
    SimulatedModality,
    SimulatedRIS,
    invented_person,
    omi,
    site,
)
from gateway.testing.performed_receiver import PerformedReceiver
from gateway.testing.ris_receiver import ReceivedMessage, SimulatedRISReceiver
from tests.durability.test_kill import (
    DAY,
    SEED,
    STATION_AT_REST,
    Department,
    Ledger,
    check_that_all_is_there_once,
    report_again,
    rows,
    send_again,
    uid_of,
)

KILLS = int(os.environ.get("GATEWAY_OUTBOX_KILLS", "8"))
ANSWER_TIMEOUT_S = 0.5
SETTLE_S = 60.0
"""For the last message to arrive when all are well again: a bound against hanging, no measure."""

T = TypeVar("T")


class MoodyRIS(SimulatedRISReceiver):
    """It may die, or take messages in and not answer."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._awake = threading.Event()

    def change_mood(self, mood: str) -> None:
        if mood == "dead":
            self.stop()
        elif self._server is None:
            self.start()
        (self._awake.clear if mood == "hangs" else self._awake.set)()

    def stop(self) -> None:
        super().stop()
        self._awake.set()  # nobody hangs on for ever

    def _acknowledgement(self, code: str, control_id: str, number: int) -> bytes:
        self._awake.wait()
        return super()._acknowledgement(code, control_id, number)


class MoodyManager(PerformedReceiver):
    """The same by DICOM: what it does not answer it has kept."""

    def __init__(self, ae_title: str) -> None:
        super().__init__(ae_title)
        self._awake = threading.Event()

    def change_mood(self, mood: str) -> None:
        if mood == "dead":
            self.stop()
        elif self._server is None:
            self.start()
        (self._awake.clear if mood == "hangs" else self._awake.set)()

    def stop(self) -> None:
        super().stop()
        self._awake.set()  # nobody hangs on for ever

    def _create(self, event: Event) -> Any:
        answer = super()._create(event)
        self._awake.wait()
        return answer

    def _set(self, event: Event) -> Any:
        answer = super()._set(event)
        self._awake.wait()
        return answer


def without_repeats(told: Iterable[T]) -> list[T]:
    """What was told, each once; a repeat is told before anything newer, so that it stands behind its original."""
    return [each for each, _ in groupby(told)]


def check_queues(service: ServiceProcess) -> None:
    """What `queues` counts is what is there, and each lane has its oldest for its head; at one instant."""
    disagreeing = rows(service, """
        SELECT q.destination, q.waiting, q.parked FROM queues q
        WHERE q.waiting != (SELECT count(*) FROM outbox o WHERE o.destination = q.destination AND o.state = 'waiting')
           OR q.parked != (SELECT count(*) FROM outbox o WHERE o.destination = q.destination AND o.state = 'parked')
    """)  # fmt: skip
    assert disagreeing == [], "the counts of a queue are not what is in it"
    wrong_heads = rows(service, """
        SELECT destination, lane, min(id), max(CASE head WHEN 1 THEN id END), sum(head) FROM outbox
        WHERE state = 'waiting' GROUP BY destination, lane
        HAVING sum(head) != 1 OR min(id) != max(CASE head WHEN 1 THEN id END)
    """)  # fmt: skip
    assert wrong_heads == [], "a lane whose head is not its oldest"


def check_messages(service: ServiceProcess, ris: SimulatedRISReceiver) -> int:
    """A destination of HL7 has every message that the archive has for it; how many came twice."""
    archived = rows(service, f"""
        SELECT m.id, m.control_id, m.disposition, k.value FROM messages m
        JOIN message_keys k ON k.message_id = m.id AND k.kind = '#patient'
        WHERE m.direction = 'out' AND m.listener = '{ris.name}' ORDER BY m.id
    """)  # fmt: skip
    assert archived, f"{ris.name} was told nothing"
    assert {disposition for _, _, disposition, _ in archived} == {"sent"}
    lanes: dict[str, list[str]] = defaultdict(list)
    for _, control_id, _, patient in archived:
        lanes[patient].append(control_id)
    lane_of = {control_id: patient for _, control_id, _, patient in archived}
    came: dict[str, list[str]] = defaultdict(list)
    bytes_of: dict[str, set[bytes]] = defaultdict(set)
    for message in ris.received:
        came[lane_of[message.control_id]].append(message.control_id)
        bytes_of[message.control_id].add(message.raw)
    for patient, expected in lanes.items():
        assert without_repeats(came[patient]) == expected, f"{ris.name} was told of a patient in another order"
    assert {len(each) for each in bytes_of.values()} == {1}, "one MSH-10 for two messages"
    return len(ris.received) - len(archived)


def check_statuses(ledgers: Sequence[Ledger], received: Sequence[ReceivedMessage]) -> None:
    """The placer knows of every performed step that a modality was told is kept: begun, then completed."""
    told: dict[str, list[str]] = defaultdict(list)
    for message in received:
        told[message.text("ORC-2")].append(message.text("ORC-5"))
    for ledger in ledgers:
        for number in ledger.create_answered:
            expected = ["IP", "CM"] if number in ledger.complete_answered else ["IP"]
            assert without_repeats(told[ledger.orders[number].placer]) == expected, f"status of order {number}"


def check_performed(ledgers: Sequence[Ledger], receiver: PerformedReceiver) -> int:
    """It has every performed step as the modality reported it; how many requests came twice."""
    told: dict[str, list[tuple[str, bytes]]] = defaultdict(list)
    for each in receiver.reported:
        told[each.uid].append((each.operation, each.data))
    once = {uid: without_repeats(each) for uid, each in told.items()}
    for ledger in ledgers:
        for number in ledger.create_answered:
            expected = ["N-CREATE", "N-SET"] if number in ledger.complete_answered else ["N-CREATE"]
            uid = uid_of(ledger.orders[number])
            assert [operation for operation, _ in once[uid]] == expected, f"performed step of order {number}"
            assert receiver.steps[uid] == ("COMPLETED" if len(expected) > 1 else "IN PROGRESS")
    return len(receiver.reported) - sum(map(len, once.values()))


def settled(service: ServiceProcess) -> None:
    """Wait until nothing waits any more, anywhere."""
    until = time.monotonic() + SETTLE_S
    while rows(service, "SELECT 1 FROM queues WHERE waiting > 0"):
        assert time.monotonic() < until, rows(service, "SELECT destination, waiting, last_error FROM queues")
        time.sleep(0.05)  # another process cannot be awaited, only asked
    assert rows(service, "SELECT destination, state, reason FROM outbox") == []


@pytest.mark.durability
def test_every_destination_is_told_everything_in_order_whenever_the_service_is_killed(tmp_path: Path) -> None:
    print(f"{KILLS} kills, GATEWAY_KILL_SEED={SEED}")
    chance = random.Random(SEED)
    placer, pacs = SimulatedRISReceiver("placer"), PerformedReceiver("PACS")
    ehr, archive = MoodyRIS("ehr"), MoodyManager("ARCHIVE")
    moody = (ehr, archive)
    with placer, pacs, ehr, archive:
        common = {"host": "127.0.0.1", "answer_timeout_s": ANSWER_TIMEOUT_S, "retry_most_s": 1, "errors_max": 1000}
        patient = {**common, "answer_timeout_s": 30}
        config = site(tmp_path, destinations=[
            {"name": "placer", "port": placer.port, "status": {"mapping": "status-orm"}, **patient},
            {"name": "pacs", "port": pacs.port, "performed": {"ae_title": "PACS"}, **patient},
            {"name": "ehr", "port": ehr.port, "status": {"mapping": "status-orm"}, "pass_on": {}, **common},
            {"name": "archive", "port": archive.port, "performed": {"ae_title": "ARCHIVE"}, **common},
        ])  # fmt: skip
        with ServiceProcess(config) as service:
            for each in moody:
                each.change_mood("well")
            template = ImagingOrder(0, invented_person(999_999), DAY, STATION_AT_REST)
            with SimulatedRIS(service.host, service.hl7_port) as ris:
                assert ris.send(omi(template)).code == "AA"
            (item,) = SimulatedModality(service.host, service.dicom_port).worklist(AccessionNumber=template.accession)
            department = Department(service, template, item, chance)
            ledgers: list[Ledger] = []
            for number in range(KILLS):
                ledger = Ledger(f"TELL{number:03}")
                ledgers.append(ledger)
                killed_after_s = chance.uniform(0.1, 0.8)
                changes = [
                    threading.Timer(
                        chance.uniform(0.0, killed_after_s),
                        each.change_mood,
                        [chance.choice(["well", "dead", "hangs"])],
                    )
                    for each in moody
                ]
                for change in changes:
                    change.start()
                asyncio.run(department.load_until_killed(ledger, killed_after_s))
                for change in changes:
                    change.join()
                service.start()
                check_queues(service)
                send_again(department, ledger)
                asyncio.run(report_again(department, ledger))
                check_that_all_is_there_once(department, ledger)
            for each in moody:
                each.change_mood("well")
            settled(service)
            check_queues(service)
            check_statuses(ledgers, placer.received)
            check_statuses(ledgers, [each for each in ehr.received if each.text("MSH-3") == service.ae_title])
            repeats = {each.name: check_messages(service, each) for each in (placer, ehr)}
            repeats |= {each.ae_title: check_performed(ledgers, each) for each in (pacs, archive)}
            passed_on = {each.control_id for each in ehr.received}
            lost = [name for ledger in ledgers for name in ledger.acknowledged if name not in passed_on]
            assert lost == [], "acknowledged, and not passed on"
            steps = sum(len(ledger.create_answered) for ledger in ledgers)
            print(f"{len(placer.received)} messages to the placer, {steps} performed steps, repeats: {repeats}")
            assert steps > KILLS, "nothing was performed"
            assert sum(repeats.values()) > 0, "nothing was ever repeated: nobody was disturbed"
