"""Killed at any instant under load, the gateway loses nothing that it acknowledged and keeps nothing twice.

One store lives through every round: senders, modalities and queries load the service, SIGKILL ends it at a random
moment, and it starts again on what is on the disk. Then the peers do what peers do: they send again whatever was not
answered, after which everything has to be there exactly once. GATEWAY_KILLS sets the number of rounds (default 50),
GATEWAY_KILL_SEED repeats the moments of an earlier run.
"""

import asyncio
import os
import random
import sqlite3
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from gateway.edges.mllp import MLLPClient
from gateway.testing import (
    Acknowledgement,
    Draft,
    ImagingOrder,
    ServiceProcess,
    SimulatedModality,
    SimulatedRIS,
    invented_person,
    omg,
    omi,
    rad4_orm,
    site,
    worklist_identifier,
)
from gateway.testing.load import LoadAssociation, encode_association, encode_create, encode_find, encode_set, exchanged
from gateway.testing.modality import final_state, performed_step

KILLS = int(os.environ.get("GATEWAY_KILLS", "50"))
SEED = int(os.environ.get("GATEWAY_KILL_SEED", random.SystemRandom().randrange(1_000_000)))
SENDERS, MODALITIES, QUERIERS = 4, 3, 2
ROUND_S_MAX = 30.0
DIALECTS: tuple[Callable[..., Draft], ...] = (omi, rad4_orm, omg)
DAY = datetime(2026, 7, 6, 7, 0)
LATER = timedelta(hours=12)

SUCCESS, DUPLICATE_INSTANCE, PROCESSING_FAILURE = 0x0000, 0x0111, 0x0110
STATION_AT_REST = "ATREST"  # of the order whose answer shows how an item looks
TEMPLATE_UID = "2.25.9000000000"

# What a dead peer leaves behind on the other side.
BROKEN = (ConnectionError, asyncio.IncompleteReadError, OSError)


@dataclass
class Ledger:
    """What the peers of one round did, and what of it was answered positively. Orders go by their number."""

    station: str
    orders: dict[int, ImagingOrder] = field(default_factory=dict)
    messages: dict[str, bytes] = field(default_factory=dict)  # by control ID, as sent
    acknowledged: set[str] = field(default_factory=set)  # control IDs
    moved: set[int] = field(default_factory=set)  # a later start was sent
    created: set[int] = field(default_factory=set)  # N-CREATE sent
    create_answered: set[int] = field(default_factory=set)
    completed: set[int] = field(default_factory=set)  # N-SET COMPLETED sent
    complete_answered: set[int] = field(default_factory=set)

    def new_is_acknowledged(self, number: int) -> bool:
        return f"NEW{number:09}" in self.acknowledged

    def move_is_acknowledged(self, number: int) -> bool:
        return f"MOVE{number:09}" in self.acknowledged

    def surely_listed(self) -> set[int]:
        """Acknowledged, and nobody has begun to say that it is done."""
        return {number for number in self.orders if self.new_is_acknowledged(number)} - self.completed


@dataclass
class Department:
    """The gateway's neighbours, with the requests they send prepared."""

    service: ServiceProcess
    template: ImagingOrder
    item: Dataset  # the template's worklist item
    random: random.Random
    numbers: int = 0
    associate: bytes = field(default_factory=lambda: encode_association("KILLER"))

    def __post_init__(self) -> None:
        self._create = encode_create(TEMPLATE_UID, performed_step(self.item, "CT1", DAY))
        self._set = encode_set(TEMPLATE_UID, final_state("COMPLETED", DAY))

    def create_request(self, order: ImagingOrder) -> bytes:
        held = self.template
        return exchanged(self._create, {
            TEMPLATE_UID: uid_of(order), held.study_instance_uid: order.study_instance_uid,
            held.accession: order.accession, held.requested_procedure_id: order.requested_procedure_id,
            held.sps_id: order.sps_id, held.person.patient_id: order.person.patient_id,
        })  # fmt: skip

    def set_request(self, order: ImagingOrder) -> bytes:
        return exchanged(self._set, {TEMPLATE_UID: uid_of(order)})

    def association(self) -> LoadAssociation:
        return LoadAssociation(self.service.host, self.service.dicom_port, self.associate)

    async def send_orders(self, ledger: Ledger, waiting: "asyncio.Queue[ImagingOrder | None]") -> None:
        """New orders in all dialects, one after the other; every third is then given a later start."""
        async with MLLPClient(self.service.host, self.service.hl7_port) as client:

            async def send(control_id: str, draft: Draft) -> None:
                message = ledger.messages[control_id] = draft.message(control_id, datetime.now(UTC))
                answer = Acknowledgement.parse(await client.send(message))
                assert answer.code == "AA", f"{control_id} was answered {answer.code}"
                ledger.acknowledged.add(control_id)

            while True:
                self.numbers += 1
                number = self.numbers
                person = invented_person(number // 2)  # two orders a patient, often at the same time
                order = ImagingOrder(number, person, DAY + timedelta(minutes=number % 600), ledger.station)
                ledger.orders[number] = order
                dialect = DIALECTS[number % len(DIALECTS)]
                await send(f"NEW{number:09}", dialect(order))
                waiting.put_nowait(order)
                if number % 3 == 0:
                    ledger.moved.add(number)
                    await send(f"MOVE{number:09}", dialect(order.moved(order.start + LATER), "XO"))

    async def perform_steps(self, ledger: Ledger, waiting: "asyncio.Queue[ImagingOrder | None]") -> None:
        """Each acknowledged order is begun; every second one is also completed. None ends the day."""
        while order := await waiting.get():
            async with self.association() as association:
                ledger.created.add(order.number)
                assert await association.report(self.create_request(order)) == SUCCESS
                ledger.create_answered.add(order.number)
                if order.number % 2 == 0:
                    ledger.completed.add(order.number)
                    assert await association.report(self.set_request(order)) == SUCCESS
                    ledger.complete_answered.add(order.number)

    async def query(self, ledger: Ledger) -> None:
        """The station's list, over and over: what was acknowledged before the question is in the answer."""
        request = encode_find(worklist_identifier({"ScheduledStationAETitle": ledger.station}))
        while True:
            async with self.association() as association:
                before = ledger.surely_listed()
                matches = await association.find(request)
                assert matches >= len(before - ledger.completed), "an acknowledged order was not in the next answer"

    async def load_until_killed(self, ledger: Ledger, after_s: float) -> None:
        """Everybody at once; SIGKILL after this long; everybody notices."""
        waiting: asyncio.Queue[ImagingOrder | None] = asyncio.Queue()
        everybody: list[Awaitable[None]] = [
            *(self.send_orders(ledger, waiting) for _ in range(SENDERS)),
            *(self.perform_steps(ledger, waiting) for _ in range(MODALITIES)),
            *(self.query(ledger) for _ in range(QUERIERS)),
        ]
        tasks = [asyncio.ensure_future(one) for one in everybody]
        async with asyncio.timeout(ROUND_S_MAX):
            done, _ = await asyncio.wait(tasks, timeout=after_s, return_when=asyncio.FIRST_EXCEPTION)
            self.service.kill()
            for task in done:
                await task  # somebody was let down before the kill: say how
            for _ in range(MODALITIES):
                waiting.put_nowait(None)  # an idle modality has no connection that could break
            for outcome in await asyncio.gather(*tasks, return_exceptions=True):
                if isinstance(outcome, BaseException) and not isinstance(outcome, BROKEN):
                    raise outcome


def uid_of(order: ImagingOrder) -> str:
    """The SOP Instance UID of the step performed for an order."""
    return f"2.25.9{order.number:09}"


def listed(department: Department, station: str) -> dict[str, Dataset]:
    """The station's items by accession number, none of which may be there twice."""
    service = department.service
    items = SimulatedModality(service.host, service.dicom_port).worklist(ScheduledStationAETitle=station)
    twice = [accession for accession, count in Counter(item.AccessionNumber for item in items).items() if count > 1]
    assert not twice, f"listed twice: {twice}"
    return {item.AccessionNumber: item for item in items}


def rows(service: ServiceProcess, statement: str) -> list[tuple[str, ...]]:
    """Read the store beside the running service."""
    connection = sqlite3.connect(f"file:{service.config.with_name('gateway.db')}?mode=ro", uri=True)
    try:
        return connection.execute(statement).fetchall()
    finally:
        connection.close()


def check_what_was_promised(department: Department, ledger: Ledger) -> None:
    """Every positive answer holds; what was not answered is there once or not at all."""
    items = listed(department, ledger.station)
    assert set(items) <= {order.accession for order in ledger.orders.values()}, "an order that nobody sent"
    for number, order in ledger.orders.items():
        item = items.get(order.accession)
        if ledger.new_is_acknowledged(number) and number not in ledger.completed:
            assert item is not None, f"acknowledged order {number} is not listed"
        if number in ledger.complete_answered:
            assert item is None, f"order {number} was reported completed and is still listed"
        if item is None:
            continue
        step = item.ScheduledProcedureStepSequence[0]
        start = datetime.strptime(  # the department's wall clock
            step.ScheduledProcedureStepStartDate + step.ScheduledProcedureStepStartTime[:6], "%Y%m%d%H%M%S"
        )
        if ledger.move_is_acknowledged(number):
            assert start == order.start + LATER, f"the acknowledged change of order {number} is lost"
        elif number not in ledger.moved:
            assert start == order.start
        if number in ledger.create_answered:
            assert step.ScheduledProcedureStepStatus == "STARTED", f"the performed step of order {number} is lost"
        elif number not in ledger.created:
            assert step.ScheduledProcedureStepStatus == "SCHEDULED"

    archived = Counter(
        control_id
        for (control_id,) in rows(department.service, "SELECT control_id FROM messages WHERE disposition = 'accepted'")
    )
    for control_id in ledger.messages:
        assert archived[control_id] <= 1, f"{control_id} is archived as accepted twice"
        assert archived[control_id] == 1 or control_id not in ledger.acknowledged, f"{control_id} is not in the archive"
    performed = dict(rows(department.service, "SELECT sop_instance_uid, state FROM performed_steps"))
    for number in ledger.create_answered:
        assert uid_of(ledger.orders[number]) in performed, f"the performed step of order {number} is lost"
    for number in ledger.complete_answered:
        assert performed[uid_of(ledger.orders[number])] == "COMPLETED"


async def report_again(department: Department, ledger: Ledger) -> None:
    """Modalities repeat every request; one that was answered before is refused as already done."""
    async with department.association() as association:
        for number in sorted(ledger.created):
            status = await association.report(department.create_request(ledger.orders[number]))
            allowed = {DUPLICATE_INSTANCE} if number in ledger.create_answered else {SUCCESS, DUPLICATE_INSTANCE}
            assert status in allowed, f"N-CREATE for order {number} again: {status:04X}"
        for number in sorted(ledger.completed):
            status = await association.report(department.set_request(ledger.orders[number]))
            allowed = {PROCESSING_FAILURE} if number in ledger.complete_answered else {SUCCESS, PROCESSING_FAILURE}
            assert status in allowed, f"N-SET for order {number} again: {status:04X}"


def send_again(department: Department, ledger: Ledger) -> None:
    """Senders repeat what was not answered, and some of what was."""
    service = department.service
    answered = sorted(ledger.acknowledged)
    again = sorted(set(ledger.messages) - ledger.acknowledged) + department.random.sample(
        answered, min(5, len(answered))
    )
    with SimulatedRIS(service.host, service.hl7_port) as ris:
        for control_id in sorted(again, key=lambda name: name.startswith("MOVE")):  # an order before its change
            assert ris.send_raw(ledger.messages[control_id]).code == "AA"
            ledger.acknowledged.add(control_id)


def check_that_all_is_there_once(department: Department, ledger: Ledger) -> None:
    """After the repeats nothing is uncertain any more."""
    ledger.create_answered |= ledger.created
    ledger.complete_answered |= ledger.completed
    check_what_was_promised(department, ledger)


@pytest.mark.durability
def test_nothing_acknowledged_is_lost_or_doubled_by_kill_9_under_load(tmp_path: Path) -> None:
    print(f"{KILLS} kills, GATEWAY_KILL_SEED={SEED}")
    moments = random.Random(SEED)
    service = ServiceProcess(site(tmp_path))
    template = ImagingOrder(0, invented_person(999_999), DAY, STATION_AT_REST)
    with service:
        with SimulatedRIS(service.host, service.hl7_port) as ris:
            assert ris.send(omi(template)).code == "AA"
        (item,) = SimulatedModality(service.host, service.dicom_port).worklist(AccessionNumber=template.accession)
        department = Department(service, template, item, moments)

        ledgers = []
        for number in range(KILLS):
            ledger = Ledger(f"KILL{number:03}")
            ledgers.append(ledger)
            asyncio.run(department.load_until_killed(ledger, moments.uniform(0.1, 0.8)))
            service.start()
            check_what_was_promised(department, ledger)
            send_again(department, ledger)
            asyncio.run(report_again(department, ledger))
            check_that_all_is_there_once(department, ledger)

        # And what was true after its own round is still true after all the others.
        for ledger in moments.sample(ledgers, min(5, len(ledgers))):
            check_what_was_promised(department, ledger)
        assert rows(service, "PRAGMA integrity_check") == [("ok",)]
        assert rows(service, "PRAGMA foreign_key_check") == []
        orders = sum(len(ledger.orders) for ledger in ledgers)
        steps = sum(len(ledger.create_answered) for ledger in ledgers)
        print(f"{orders} orders and {steps} performed steps, each there once")
        assert orders, "the load came to nothing"
        assert steps, "nothing was performed"
