"""An order that is taken back and comes again: what we said of its resources is said anew, and nobody else's word."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fhir_roads import ORDER, PATIENT, TASK, Road

from gateway.domain.facts import Stamp
from gateway.domain.identifiers import Identifier
from gateway.domain.order import OrderControl, OrderEvent
from gateway.domain.patient import PatientInput
from gateway.domain.resources import Resource
from gateway.processing import now
from gateway.wire import fhir_json
from gateway.wire.fhir_interactions import Kind
from gateway.wire.fhir_status import merged
from gateway.wire.fhir_transaction import Overruled, draft, settled
from gateway.workflow.audience import Audience, FHIRTarget, FHIRWriting
from gateway.workflow.orders import apply_events
from gateway.workflow.ports import MessageSearch

WRITING = FHIRWriting(gateway="GATEWAY")
EMR = FHIRTarget("emr", WRITING, frozenset({"ServiceRequest", "Task"}), "emr")
BOTH = Audience(fhir=(EMR,), offered=WRITING)
REVOKED = {**ORDER, "status": "revoked"}


@pytest.fixture
def road(tmp_path: Path) -> Iterator[Road]:
    made = Road(tmp_path / "gateway.db", audience=BOTH)
    yield made
    made.close()


def status(road: Road, resource: Resource) -> str:
    return str(road.held(resource).content["status"])


def by_ris(road: Road, control: OrderControl) -> None:
    """The RIS says this of the order, by HL7 v2."""
    under = road.feed.circumstances("ris", Stamp("", "ris"), "ris")
    person = PatientInput((Identifier("100", "1.2.3"),), {})
    event = OrderEvent(control, "", Identifier("P1", "1.2.4"), None, person, None, {}, ())
    road.store.write(lambda unit: apply_events(unit, [event], under, now())).result()


def test_a_task_that_was_cancelled_with_its_order_is_told_again_when_the_order_is_back(road: Road) -> None:
    road.put(PATIENT, ORDER, TASK)
    road.put(REVOKED)
    assert (road.statuses(), status(road, TASK)) == (["CANCELED"], "cancelled")
    road.put(ORDER)
    assert road.statuses() == ["SCHEDULED"]
    back = road.held(TASK).content
    assert back["status"] == "accepted"
    assert back["businessStatus"] == {"text": "scheduled"}
    assert road.put(TASK).status == 200  # its owner says what it said before
    assert status(road, TASK) == "accepted"


def test_what_another_system_takes_back_and_orders_again_is_told_again(road: Road) -> None:
    road.put(PATIENT, ORDER, TASK)
    by_ris(road, OrderControl.CA)
    assert (status(road, ORDER), status(road, TASK)) == ("revoked", "cancelled")
    by_ris(road, OrderControl.NW)
    assert road.statuses() == ["SCHEDULED"]
    assert (status(road, ORDER), status(road, TASK)) == ("active", "accepted")


def test_a_task_that_its_owner_cancelled_stays_so(road: Road) -> None:
    road.put(PATIENT, ORDER, TASK)
    road.put({**TASK, "status": "cancelled"})
    road.put(REVOKED)
    road.put(ORDER)
    assert status(road, TASK) == "cancelled"


def test_the_server_of_the_order_is_told_again_as_well(road: Road) -> None:
    road.put(PATIENT, ORDER, TASK, kind=Kind.FETCHED, source="emr")
    by_ris(road, OrderControl.CA)
    road.put({**TASK, "status": "cancelled"}, kind=Kind.FETCHED, source="emr")  # as we made it there
    by_ris(road, OrderControl.NW)
    there = {**TASK, "status": "cancelled", "meta": {"versionId": "7"}}
    (newest,) = road.store.reader.find_messages(MessageSearch(listener="emr", direction="out"), 1)
    bundle = fhir_json.parse(newest.record.raw)
    sent = settled(bundle, {"Task/t1": there})
    assert sent is not None
    assert [each["resource"]["status"] for each in sent["entry"]] == ["accepted"]
    assert "extension" not in str(sent)


@pytest.mark.parametrize(
    ("there", "becomes"),
    [("cancelled", "accepted"), ("failed", ""), ("entered-in-error", ""), ("requested", "accepted")],
)
def test_only_our_own_word_gives_way_on_another_server(there: str, becomes: str) -> None:
    """The owner may have said something else meanwhile, which we do not know yet."""
    word = {"resourceType": "Task", "id": "x", "status": "ready"}
    bundle = draft("c", [("Task/1", word)], (), {"Task/1": Overruled("cancelled", "requested")})
    found: dict[str, Any] = {"resourceType": "Task", "id": "1", "status": there, "intent": "order"}
    sent = settled(bundle, {"Task/1": found})
    assert (sent["entry"][0]["resource"]["status"] if sent is not None else "") == becomes


@pytest.mark.parametrize(
    ("kind", "has", "told", "becomes"),
    [
        ("Task", "cancelled", "ready", "accepted"), ("Task", "completed", "ready", ""), ("Task", "cancelled", "", ""),
        ("ServiceRequest", "revoked", "active", "active"), ("ServiceRequest", "revoked", "", ""),
        ("Appointment", "cancelled", "booked", "booked"),
    ],
)  # fmt: skip
def test_what_we_took_back_gives_way_and_what_was_done_does_not(kind: str, has: str, told: str, becomes: str) -> None:
    owner = {"Task": "requested", "ServiceRequest": "active", "Appointment": "booked"}[kind]
    held = {"resourceType": kind, "status": has}
    word = {"resourceType": kind, **({"status": told} if told else {})}
    new = merged(held, word, owner)
    assert (new or {}).get("status", "") == becomes
    unsaid = merged(held, word)
    assert (unsaid or held)["status"] == has
