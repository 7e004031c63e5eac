"""Killed at any instant while orders come by FHIR, the gateway loses nothing that it answered by 2xx.

Senders PUT orders in transactions and POST them one by one; SIGKILL ends the service at a random moment, it starts
again on what is on the disk, and the senders send again whatever was not answered. GATEWAY_FHIR_KILLS sets the number
of rounds (default 6), GATEWAY_KILL_SEED repeats the moments of an earlier run.
"""

import asyncio
import os
import random
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.testing import ImagingOrder, ServiceProcess, SimulatedModality, invented_person, site
from tests.fhir_department import ISSUERS, JSON, patient, request, whole

KILLS = int(os.environ.get("GATEWAY_FHIR_KILLS", "6"))
SEED = int(os.environ.get("GATEWAY_KILL_SEED", random.SystemRandom().randrange(1_000_000)))
SENDERS = 4
ROUND_S_MAX = 60.0
DAY = datetime(2026, 7, 6, 7, 0)
POSTED_EVERY = 3


@dataclass
class Round:
    """What was sent to one station, and what of it was answered positively. Orders go by their number."""

    station: str
    orders: dict[int, ImagingOrder] = field(default_factory=dict)
    sent: dict[int, tuple[str, dict[str, Any]]] = field(default_factory=dict)
    answered: set[int] = field(default_factory=set)

    def say(self, number: int) -> tuple[str, dict[str, Any]]:
        """Where an order is sent to, and its body: by a transaction, or alone by POST, with its patient inside."""
        order = self.orders[number] = ImagingOrder(number, invented_person(number), DAY, self.station)
        said = "/", whole(order)
        if number % POSTED_EVERY == 0:
            person = {**patient(order.person), "id": "p"}
            alone = request(order, contained=[person], subject={"reference": "#p"})
            del alone["id"]
            said = "/ServiceRequest", alone
        self.sent[number] = said
        return said


async def send(client: httpx.AsyncClient, done: Round, number: int) -> None:
    """Send it, and note that it was answered. A sender that is not answered does not know what became of it."""
    path, body = done.sent[number]
    answer = await client.post(path, json=body)
    assert answer.status_code in (200, 201), answer.text
    done.answered.add(number)


def client_of(service: ServiceProcess) -> httpx.AsyncClient:
    url = f"http://{service.host}:{service.http_port}/fhir"
    return httpx.AsyncClient(base_url=url, headers=JSON, timeout=ROUND_S_MAX)


async def load_until_killed(service: ServiceProcess, done: Round, numbers: "list[int]", after_s: float) -> None:
    """Everybody at once; SIGKILL after this long; everybody notices."""

    async def sender() -> None:
        async with client_of(service) as client:
            while True:
                numbers[0] += 1
                number = numbers[0]
                done.say(number)
                await send(client, done, number)

    tasks = [asyncio.ensure_future(sender()) for _ in range(SENDERS)]
    async with asyncio.timeout(ROUND_S_MAX):
        ended, _ = await asyncio.wait(tasks, timeout=after_s, return_when=asyncio.FIRST_EXCEPTION)
        service.kill()
        for task in ended:
            await task  # somebody was let down before the kill: say how
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(outcome, BaseException) and not isinstance(outcome, httpx.TransportError):
                raise outcome


async def send_again(service: ServiceProcess, done: Round) -> None:
    """Senders repeat what was not answered, and some of what was."""
    known = sorted(done.answered)
    async with client_of(service) as client:
        for number in [*sorted(set(done.sent) - done.answered), *known[:3]]:
            await send(client, done, number)


def listed(service: ServiceProcess, done: Round) -> Counter[str]:
    found = SimulatedModality(service.host, service.dicom_port).worklist(
        ScheduledProcedureStepStartDate=f"{DAY:%Y%m%d}"
    )
    ours = {order.accession for order in done.orders.values()}
    return Counter(item.AccessionNumber for item in found if item.AccessionNumber in ours)


async def held(service: ServiceProcess, done: Round) -> Counter[str]:
    """How many ServiceRequests there are of each order."""
    found: Counter[str] = Counter()
    async with client_of(service) as client:
        for order in done.orders.values():
            answer = await client.get("/ServiceRequest", params={"identifier": order.accession})
            found[order.accession] = len(answer.json().get("entry", ()))
    return found


@pytest.mark.durability
def test_nothing_answered_is_lost_or_doubled_by_kill_9_while_orders_come_by_fhir(tmp_path: Path) -> None:
    print(f"{KILLS} kills, GATEWAY_KILL_SEED={SEED}")
    moments, numbers = random.Random(SEED), [0]
    with ServiceProcess(site(tmp_path, fhir={}, issuers=ISSUERS), ready_s=120) as service:
        total = 0
        for kill in range(KILLS):
            done = Round(f"FHIR{kill:03}")
            asyncio.run(load_until_killed(service, done, numbers, moments.uniform(0.5, 2.5)))
            service.start()
            accessions = {order.accession for order in done.orders.values()}
            answered = {done.orders[number].accession for number in done.answered}
            found = listed(service, done)
            assert answered <= found.keys(), "an order that was answered is lost"
            assert found.keys() <= accessions
            asyncio.run(send_again(service, done))
            once = Counter(accessions)
            assert listed(service, done) == once, "each is there once"
            assert asyncio.run(held(service, done)) == once, "each is one resource"
            total += len(accessions)
        print(f"{total} orders, each there once")
        assert total >= KILLS, "the load came to nothing"
