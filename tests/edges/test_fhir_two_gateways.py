"""Two gateways that subscribe with each other by topic, each a client of the other (SMART Backend Services).

Whatever becomes of an order at one of them is on the other's list, also after one was killed, and once only. Both are
processes of their own. The people are invented.
"""

import asyncio
import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from gateway.cli import cli
from gateway.edges.fhir_client import FHIRClient
from gateway.fhir_settings import FHIRCredentials
from gateway.smart_keys import jwks_of, new_key, pem_of
from gateway.testing import ImagingOrder, ServiceProcess, SimulatedModality, free_port, invented_person, site
from gateway.wire.fhir_release import Release
from gateway.wire.fhir_topics import ANY_STATUS, canonical
from gateway.workflow.fhir_marks import Mark
from tests.fhir_department import ISSUERS, patient, request, task, transaction

START = datetime.now().replace(hour=9, minute=30, second=0, microsecond=0) + timedelta(days=1)
PATIENCE_S, READY_S = 120, 120
_numbers = count(1)


@dataclass
class Gateway:
    """One of the two, and its modality. `peer` is what it calls the other one."""

    name: str
    peer: str
    release: Release
    service: ServiceProcess

    @property
    def modality(self) -> SimulatedModality:
        return SimulatedModality(self.service.host, self.service.dicom_port, "CT1")

    def order(self) -> ImagingOrder:
        """An order with its step comes from the EHR, which is a client, too."""
        order = ImagingOrder(next(_numbers), invented_person(1), START)
        said = [patient(order.person), request(order), task(order)]
        if self.release is Release.R5:
            said[1]["code"] = {"concept": said[1]["code"]}
            said[2]["requestedPeriod"] = said[2].pop("restriction")["period"]
        asyncio.run(self._put(transaction(*said)))
        return order

    async def _put(self, bundle: dict[str, Any]) -> None:
        url = f"http://127.0.0.1:{self.service.http_port}/fhir/{self.release.base}"
        credentials = FHIRCredentials(client_id="ehr", key="ehr.pem", scope="system/*.cruds")
        ehr = FHIRClient(url, self.release, credentials, folder=self.service.config.parent)
        try:
            await ehr.transaction(bundle)
        finally:
            await ehr.close()

    def performs(self, order: ImagingOrder) -> None:
        """The CT reports by MPPS that it was done."""
        (item,) = self.modality.worklist(AccessionNumber=order.accession)
        self.modality.complete(self.modality.start(item))

    def rows(self, query: str, *given: object) -> list[Any]:
        """What its store has: the process runs, so it is read from outside."""
        with sqlite3.connect(self.service.config.with_name("gateway.db"), timeout=30) as connection:
            return connection.execute(query, given).fetchall()

    @property
    def mark(self) -> Mark:
        """How far it has read the other one."""
        found = self.rows("select content from feed_marks where name = ?", self.peer)
        return Mark.of(found[0][0] if found else "")

    def statuses(self, order: ImagingOrder) -> list[str]:
        """Of every step that it has of this order."""
        found = self.rows(
            "select steps.status from steps join orders on orders.id = steps.order_id where orders.placer = ?",
            order.placer,
        )
        return [each for (each,) in found]

    def held(self, order: ImagingOrder) -> list[tuple[int, str]]:
        """Version and status of the ServiceRequest as it was fetched from the other one."""
        found = self.rows(
            "select version, content from resources where source = ? and type = 'ServiceRequest' and resource_id = ?",
            self.peer, f"o{order.number}",
        )  # fmt: skip
        return [(version, json.loads(content)["status"]) for version, content in found]

    def command(self, *words: str) -> str:
        done = CliRunner().invoke(cli, [*words, "--config", str(self.service.config)])
        assert done.exit_code == 0, done.output
        return str(done.output)

    @property
    def subscription(self) -> str:
        """What the outbox calls the other one's subscription here."""
        ((name,),) = self.rows("select name from feed_marks where name like '%/%' and content <> ''")
        return str(name)


def until(happened: Callable[[], bool]) -> None:
    """Another process cannot be awaited, only asked."""
    deadline = time.monotonic() + PATIENCE_S
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _is_settled(gateway: Gateway) -> bool:
    mark = gateway.mark
    return mark.status == "active" and not mark.is_behind


@dataclass
class Pair:
    first: Gateway
    second: Gateway

    def settled(self) -> None:
        """Both have a subscription that is alive, and nothing is known to be missing."""
        for each in (self.first, self.second):
            until(partial(_is_settled, each))

    def arrives(self, order: ImagingOrder, status: str = "SCHEDULED", at: Gateway | None = None) -> None:
        """It is with the second one (`at`) so, and once."""
        at = at or self.second
        until(lambda: at.statuses(order) == [status])


@pytest.fixture(scope="module", params=[Release.R5, Release.R4B], ids=str)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    release: Release = request.param
    folders = {name: tmp_path_factory.mktemp(name) for name in ("first", "second")}
    ports = {name: free_port() for name in folders}
    keys = {name: new_key() for name in ("first", "second", "ehr")}
    for folder in folders.values():
        for name, key in keys.items():
            (folder / f"{name}.json").write_text(jwks_of([key]))
            (folder / f"{name}.pem").write_text(pem_of(key))
    with ExitStack() as stack:
        made = [
            Gateway(
                name, peer, release, ServiceProcess(_configured(name, peer, folders[name], ports, release), READY_S)
            )
            for name, peer in (("first", "second"), ("second", "first"))
        ]
        for each in made:
            stack.enter_context(each.service)
        running = Pair(*made)
        running.settled()
        yield running


def _configured(name: str, peer: str, folder: Path, ports: dict[str, int], release: Release) -> Path:
    base = {each: f"http://127.0.0.1:{port}/fhir" for each, port in ports.items()}
    return site(
        folder, hl7=[], issuers=ISSUERS, http={"host": "127.0.0.1", "port": ports[name]},
        fhir={
            "release": release.value, "url": base[name],
            "clients": [
                {"name": peer, "client_id": peer, "jwks": f"{peer}.json", "notify": [base[peer]],
                 "scopes": ["system/*.rs", "system/Subscription.crus"]},
                {"name": "ehr", "client_id": "ehr", "jwks": "ehr.json"},
            ],
            "feeds": [{
                "name": peer, "url": f"{base[peer]}/{release.base}", "release": release.value,
                "credentials": {"client_id": name, "key": f"{name}.pem"},
                "subscription": {"topic": canonical(base[peer], ANY_STATUS), "criteria": "ServiceRequest",
                                 "heartbeat_s": 10},
            }],
        },
    )  # fmt: skip


def test_an_order_and_its_status_arrive_at_the_other_one(pair: Pair) -> None:
    for at, other in ((pair.first, pair.second), (pair.second, pair.first)):
        order = at.order()
        pair.arrives(order, at=other)
        at.performs(order)
        pair.arrives(order, "COMPLETED", at=other)
        assert at.statuses(order) == ["COMPLETED"]
        ((_, status),) = other.held(order)
        assert status == "completed"
    pair.settled()


def test_what_happens_while_one_is_killed_is_neither_lost_nor_doubled(pair: Pair) -> None:
    before = pair.first.order()
    pair.arrives(before)
    pair.first.service.kill()
    pair.first.service.start()
    after = pair.first.order()  # the subscription has outlived it, and our token is replaced
    pair.arrives(after)
    pair.second.service.kill()
    meanwhile = pair.first.order()
    pair.first.performs(before)
    pair.first.service.kill()  # with notifications that nobody has taken yet
    pair.first.service.start()
    pair.second.service.start()
    pair.arrives(meanwhile)
    pair.arrives(before, "COMPLETED")
    pair.arrives(after)
    pair.settled()
    for order in (before, after, meanwhile):
        assert len(pair.second.held(order)) == 1
        assert len(pair.second.modality.worklist(AccessionNumber=order.accession)) == (order is not before)


def test_events_that_were_thrown_away_are_noticed_by_their_numbers_and_asked_for(pair: Pair) -> None:
    done = pair.first.order()
    pair.arrives(done)
    pair.settled()
    looked = pair.second.mark.looked
    pair.first.command("queues", "hold", pair.first.subscription)
    lost = pair.first.order()
    pair.first.performs(done)
    pair.first.command("queues", "drop", "--destination", pair.first.subscription, "--yes")
    pair.first.command("queues", "release", pair.first.subscription)
    told = pair.first.order()
    pair.arrives(told)
    pair.arrives(lost)
    pair.arrives(done, "COMPLETED")
    pair.settled()
    assert pair.second.mark.looked == looked, "by $events, and not by a search"
    standing = json.loads(
        pair.first.rows("select content from feed_marks where name = ?", pair.first.subscription)[0][0]
    )
    assert pair.second.mark.events == standing["events"]


def test_a_subscription_whose_making_was_forgotten_is_taken_over_and_not_made_twice(pair: Pair) -> None:
    """As after a crash between the other one's answer and the disk."""
    order = pair.first.order()
    pair.arrives(order)
    pair.settled()
    pair.second.service.kill()
    pair.second.rows("delete from feed_marks where name = ?", pair.second.peer)
    made = pair.second.held(order)
    pair.second.service.start()
    pair.settled()
    kept = "select resource_id from resources where type = 'Subscription' and source = ?"
    assert len(pair.first.rows(kept, pair.first.release.base)) == 1
    assert pair.second.held(order) == made
    another = pair.first.order()
    pair.arrives(another)
