"""What a subscription tells is bounded by the token that made it and by what its client may do now.

Over HTTP, with real tokens of SMART Backend Services. The people are invented.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from fhir_callers import in_loop
from fhir_receiver import Receiver, receiving
from test_fhir_service import running

from gateway.domain.resources import ResourceKey
from gateway.edges.fhir_client import FHIRClient
from gateway.fhir_settings import FHIRCredentials
from gateway.service import Service
from gateway.smart_keys import jwks_of, new_key, pem_of
from gateway.testing import ImagingOrder, free_port, invented_person, site
from gateway.testing.fhir_validity import check
from gateway.wire.fhir_release import Release
from gateway.workflow.fhir_topics import destination_of
from tests.fhir_department import ISSUERS, patient, request, task, transaction

START = datetime.now().replace(hour=9, minute=30, second=0, microsecond=0) + timedelta(days=1)
PATIENCE_S = 60
WIDE, NARROW = "system/*.cruds", "system/Task.rs system/Subscription.cruds"
"""What tokens are asked for: the second may not read the ServiceRequests that events are about."""
_CONTENT = "http://hl7.org/fhir/uv/subscriptions-backport/StructureDefinition/backport-payload-content"


class Department:
    """A gateway with the clients `ehr` and `desk`, and a hook that is notified."""

    def __init__(self, folder: Path, service: Service, said: dict[str, Any], hook: Receiver) -> None:
        self.folder, self.service, self.said, self.hook = folder, service, said, hook
        self.release = Release(said["fhir"]["release"])
        self._clients: list[FHIRClient] = []
        self._orders = 0

    def client(self, scope: str, name: str = "ehr") -> FHIRClient:
        """With a token of this scope."""
        url = f"http://127.0.0.1:{self.said['http']['port']}/fhir/{self.release.base}"
        credentials = FHIRCredentials(client_id=name, key=f"{name}.pem", scope=scope)
        made = FHIRClient(url, self.release, credentials, folder=self.folder)
        self._clients.append(made)
        return made

    async def subscribes(self, client: FHIRClient, name: str) -> None:
        """Make a Subscription to anything that becomes of orders, or change it, and wait until it is active."""
        said = self.subscription(client, name)
        answer = await client.send("PUT", f"Subscription/{name}", said)
        assert answer.is_success, answer.resource
        await self.stands(name, "active")

    def subscription(self, client: FHIRClient, name: str) -> dict[str, Any]:
        topic, endpoint = f"{client.url}/SubscriptionTopic/order-status", f"{self.hook.url}/{name}"
        if self.release is Release.R5:
            return {
                "resourceType": "Subscription", "id": name, "status": "requested", "topic": topic, "content": "id-only",
                "endpoint": endpoint, "channelType": {"code": "rest-hook"},
            }  # fmt: skip
        return {
            "resourceType": "Subscription", "id": name, "status": "requested", "criteria": topic, "reason": "to know",
            "channel": {
                "type": "rest-hook", "endpoint": endpoint, "payload": "application/fhir+json",
                "_payload": {"extension": [{"url": _CONTENT, "valueCode": "id-only"}]},
            },
        }  # fmt: skip

    async def ordered(self) -> None:
        """An order comes by FHIR, and its Task is accepted: an event about its ServiceRequest."""
        self._orders += 1
        order = ImagingOrder(self._orders, invented_person(1), START)
        said = [patient(order.person), request(order), task(order)]
        if self.release is Release.R5:
            said[1]["code"] = {"concept": said[1]["code"]}
            said[2]["requestedPeriod"] = said[2].pop("restriction")["period"]
        await self.client(WIDE, "desk").transaction(transaction(*said))

    async def stands(self, name: str, status: str) -> None:
        """Wait until a Subscription is so."""
        key = ResourceKey(self.release.base, "Subscription", name)
        async with asyncio.timeout(PATIENCE_S):
            while True:  # of what another thread does nobody here is told
                held = self.service.store.reader.resource(key)
                if held is not None and held.content["status"] == status:
                    return
                await asyncio.sleep(0.02)

    async def events(self, name: str) -> tuple[int, str]:
        """How many events it had, and why it is in error."""
        answer = (await self.client(WIDE, "desk").send("GET", f"Subscription/{name}/$status")).expected()
        assert answer.resource is not None
        check(answer.resource, self.release)
        said = answer.resource["entry"][0]["resource"]
        if said["resourceType"] == "SubscriptionStatus":
            return int(said["eventsSinceSubscriptionStart"]), "".join(each["text"] for each in said.get("error", ()))
        parts = {each["name"]: each for each in said["parameter"]}
        why = parts["error"]["valueCodeableConcept"]["text"] if "error" in parts else ""
        return int(parts["events-since-subscription-start"]["valueString"]), why

    def waiting(self, name: str) -> int:
        """Notifications in the outbox that are to be sent."""
        key = ResourceKey(self.release.base, "Subscription", name)
        return len(self.service.store.reader.deliveries(10, destination=destination_of(key)))

    def told(self, name: str) -> list[str]:
        """Of which types its hook was told, a handshake as ''."""
        entries = [each.body["entry"] for each in self.hook.asked if each.path == f"/{name}"]
        return [each[1]["request"]["url"].partition("/")[0] if len(each) > 1 else "" for each in entries]

    async def arrived(self, name: str, count: int) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while len(self.told(name)) < count:  # noqa: ASYNC110  (the hook is a thread)
                await asyncio.sleep(0.02)

    async def configured(self, scopes: Sequence[str] | None, **more: Any) -> None:
        """Read other settings, in which `ehr` has these scopes, or is not there any more."""
        clients = [_client("desk", self.hook)]
        if scopes is not None:
            clients.append(_client("ehr", self.hook, scopes=list(scopes)))
        site(self.folder, **{**self.said, "fhir": {**self.said["fhir"], "clients": clients, **more}})
        await self.service.reload()

    async def close(self) -> None:
        for each in self._clients:
            await each.close()


def _client(name: str, hook: Receiver, **more: Any) -> dict[str, Any]:
    return {"name": name, "client_id": name, "jwks": f"{name}.json", "notify": [hook.url], **more}


@asynccontextmanager
async def department(folder: Path, release: Release) -> AsyncIterator[Department]:
    for name in ("ehr", "desk"):
        key = new_key()
        (folder / f"{name}.json").write_text(jwks_of([key]))
        (folder / f"{name}.pem").write_text(pem_of(key))
    port = free_port()
    with receiving(lambda _: (200, None)) as hook:
        clients = [_client("desk", hook), _client("ehr", hook)]
        fhir = {"release": release.value, "clients": clients}
        more = {"fhir": fhir, "issuers": ISSUERS, "dicom": {"host": "127.0.0.1", "port": free_port()}}
        async with running(folder, port, [], **more) as service:
            said = {"http": {"host": "127.0.0.1", "port": port}, "hl7": [], **more}
            made = Department(folder, service, said, hook)
            try:
                yield made
            finally:
                await made.close()


@pytest.mark.parametrize("release", Release)
@in_loop
async def test_a_subscription_tells_no_more_than_the_token_that_made_it_may_read(
    tmp_path: Path, release: Release
) -> None:
    async with department(tmp_path, release) as here:
        narrow, wide = here.client(NARROW), here.client(WIDE)
        await here.subscribes(narrow, "narrow")
        await here.subscribes(wide, "wide")
        await here.ordered()
        await here.arrived("wide", 2)
        assert here.told("wide") == ["", "ServiceRequest"]
        assert (await here.events("wide"))[0] == 1
        assert await here.events("narrow") == (0, "")
        await here.subscribes(narrow, "wide")  # its next token was narrower
        await here.subscribes(wide, "narrow")
        await here.ordered()
        await here.arrived("narrow", 3)
        assert here.told("narrow") == ["", "", "ServiceRequest"]
        assert await here.events("wide") == (1, "")
        assert here.told("wide") == ["", "ServiceRequest", ""]


@in_loop
async def test_a_token_that_may_read_nothing_of_events_makes_no_subscription(tmp_path: Path) -> None:
    async with department(tmp_path, Release.R4) as here:
        blind = here.client("system/Subscription.cruds system/Patient.r")
        answer = await blind.send("PUT", "Subscription/s", here.subscription(blind, "s"))
        assert answer.status == 403
        assert "may read none of" in str(answer.resource)
        assert (await blind.send("GET", "Subscription/s")).status == 404


@pytest.mark.parametrize("release", Release)
@in_loop
async def test_a_client_that_lost_a_scope_is_told_nothing_more_and_why(tmp_path: Path, release: Release) -> None:
    async with department(tmp_path, release) as here:
        await here.subscribes(here.client(WIDE), "wide")
        await here.subscribes(here.client(NARROW), "narrow")
        here.hook.answer = lambda _: (503, None)  # it is away, so that an event waits
        await here.ordered()
        assert here.waiting("wide") == 1
        await here.configured(["system/Task.cruds", "system/Subscription.cruds"])
        here.hook.answer = lambda _: (200, None)
        await here.stands("wide", "error")
        assert here.waiting("wide") == 0
        count, why = await here.events("wide")
        assert (count, "may not read ServiceRequest, Procedure any more" in why) == (1, True)
        held = (await here.client(WIDE, "desk").read("Subscription", "wide")) or {}
        check(held, release)
        assert (held.get("error") == why) is (release is not Release.R5)
        await here.stands("narrow", "active")
        await here.ordered()
        assert await here.events("narrow") == (0, "")
        assert (await here.events("wide"))[0] == 1
        await here.configured(["system/*.cruds"])
        await here.subscribes(here.client(WIDE), "wide")  # it says so itself, and is told again
        assert (await here.events("wide"))[1] == ""
        await here.ordered()
        async with asyncio.timeout(PATIENCE_S):
            while here.told("wide")[-1] != "ServiceRequest":  # noqa: ASYNC110  (the hook is a thread)
                await asyncio.sleep(0.02)


@pytest.mark.parametrize("clients", ["others", "none"])
@in_loop
async def test_a_client_that_is_gone_is_told_nothing_more(tmp_path: Path, clients: str) -> None:
    """Also where nobody has to prove who it is any more: what a client made is not this machine's own."""
    async with department(tmp_path, Release.R4) as here:
        await here.subscribes(here.client(WIDE), "s")
        here.hook.answer = lambda _: (503, None)
        await here.ordered()
        await here.configured(None, **({"clients": []} if clients == "none" else {}))
        before = len(here.told("s"))
        here.hook.answer = lambda _: (200, None)
        await here.stands("s", "error")
        assert here.waiting("s") == 0
        held = here.service.store.reader.resource(ResourceKey("r4", "Subscription", "s"))
        assert held is not None
        assert "none of the gateway's fhir.clients any more" in held.content["error"]
        assert len(here.told("s")) == before
