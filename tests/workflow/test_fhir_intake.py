"""A FHIR request is all or nothing, archived with its answer, known again, and run again from the archive."""

import asyncio
import json
import shutil
from dataclasses import replace

import pytest
from fhir_roads import NOW, ORDER, PATIENT, PRACTITIONER, TASK, Road, request_of

from gateway.domain.facts import Stamp
from gateway.domain.identifiers import Identifier
from gateway.domain.order import OrderControl, OrderEvent
from gateway.domain.patient import PatientInput
from gateway.domain.resources import ResourceKey
from gateway.edges.database import StoreUnavailable
from gateway.explain import FHIRSaid, explanation
from gateway.fhir_processing import replay_request
from gateway.wire.fhir_interactions import Interaction, Kind, Verb
from gateway.wire.fhir_release import Release
from gateway.workflow import fhir_intake, fhir_kept
from gateway.workflow.compare import changes
from gateway.workflow.fhir_kept import Kept, answer_of, kept, restored
from gateway.workflow.intake import release, run_early
from gateway.workflow.orders import apply_events
from gateway.workflow.rederive import rederived
from gateway.workflow.rehearsal import rehearse
from gateway.workflow.rereading import meaning


@pytest.fixture
def road(template, tmp_path):
    opened = Road(shutil.copy(template[1], tmp_path))
    yield opened
    opened.close()


@pytest.fixture
def holding(template, tmp_path):
    opened = Road(shutil.copy(template[1], tmp_path), hold_uncovered=True)
    yield opened
    opened.close()


UNCOVERED = {key: each for key, each in ORDER.items() if key != "occurrenceDateTime"}


def updates(*resources):
    return [Interaction(Verb.UPDATE, each["resourceType"], each["id"], each) for each in resources]


def test_a_transaction_with_one_order_that_cannot_be_scheduled_changes_nothing(road):
    answer = road.put(PATIENT, ORDER, {**UNCOVERED, "id": "o2", "identifier": [{"system": "x", "value": "P2"}]})

    assert answer.status == 422
    assert answer.body["issue"][0]["expression"][0].startswith("Bundle.entry[2].resource")
    assert road.held(PATIENT) is None
    assert road.items() == []
    (archived,) = road.messages()
    assert archived.record.disposition == "refused"
    assert ("placer", "P1") in archived.record.keys
    assert answer_of(archived.record.answer) == answer


def test_entries_of_a_batch_are_requests_of_their_own(road):
    answer = road.put(PATIENT, {**UNCOVERED, "id": "o2"}, ORDER, kind=Kind.BATCH)

    assert [each["response"]["status"][:3] for each in answer.body["entry"]] == ["201", "422", "201"]
    assert road.statuses() == ["SCHEDULED"]
    assert [each.record.disposition for each in road.messages()] == ["accepted", "refused", "accepted"]


def test_a_message_that_comes_again_is_answered_as_the_first_time(road):
    said = request_of(updates(PATIENT, ORDER), Kind.MESSAGE, message_id="m1")
    first = road.run(said)
    again = road.run(said)

    assert again == first
    assert len(road.messages()) == 1
    assert road.held(ORDER).version == 1


def test_of_resources_that_were_fetched_a_bad_one_leaves_the_others_alone(road):
    bad = {**UNCOVERED, "id": "o2", "identifier": [{"system": "urn:oid:1.2.4", "value": "P2"}]}
    feed = replace(road.feed, name="emr")
    road.feed = feed
    road.run(request_of(updates(bad, ORDER, PATIENT), Kind.FETCHED, source="emr"))
    assert road.statuses() == ["SCHEDULED"]
    assert sorted(each.record.disposition for each in road.messages()) == ["accepted", "accepted", "refused"]


def test_what_cannot_be_stored_is_told_as_transient(road, monkeypatch):
    def unavailable(*_):
        raise StoreUnavailable("away")

    monkeypatch.setattr(fhir_intake, "receive", unavailable)
    assert road.put(PATIENT).status == 503


def test_a_defect_of_ours_is_archived_and_answered(road, monkeypatch):
    def broken(*_):
        raise RuntimeError

    monkeypatch.setattr(fhir_intake, "receive", broken)
    assert road.put(PATIENT).status == 500
    assert road.messages()[0].record.disposition == "refused"


def test_an_uncovered_order_is_held_and_released_when_it_is_covered(holding):
    holding.put(PATIENT)
    answer = holding.put(UNCOVERED)
    assert answer.status == 201
    held = holding.messages()[-1]
    assert held.record.disposition == "held"
    rules = {**holding.rules["rules"]}
    start = "ScheduledProcedureStepSequence.ScheduledProcedureStepStart"
    rules |= {f"{start}Date": {"value": "20260707"}, f"{start}Time": {"value": "080000"}}
    covered = fhir_intake.Again(holding.feed_with(rules))
    holding.store.write(lambda unit: release(unit, held, covered, NOW)).result()
    assert holding.statuses() == ["SCHEDULED"]
    assert [each.record.disposition for each in holding.messages()] == ["accepted", "released", "accepted"]


def test_what_came_before_its_order_acts_when_the_order_comes_by_another_way(road):
    road.put(PATIENT)
    assert road.put({**ORDER, "status": "on-hold"}).status == 201
    early = road.messages()[-1]
    assert early.record.disposition == "early"
    assert road.items() == []

    again = fhir_intake.Again(road.feed)

    def order_by_hl7(unit):
        meant = meaning(b"", road.feed, kept_of_active)
        outcome = apply_events(unit, meant.events, road.feed.circumstances("ris", Stamp("", "ris"), "ris"), NOW)
        return run_early(unit, outcome.created, {"fhir": again}.get, NOW)

    speech = restored(road.store.reader.kept_report(early.id)).speech
    kept_of_active = kept(Kept(replace(speech, now={**speech.now, "ServiceRequest/o1": ORDER})))
    assert road.store.write(order_by_hl7).result()
    assert road.statuses() == ["ON HOLD"]
    assert road.messages()[early.id - 1].record.disposition == "released"


def test_of_what_came_early_together_each_acts_when_its_own_order_comes(road):
    other = {**ORDER, "id": "o2", "identifier": [{"system": "urn:oid:1.2.4", "value": "P2"}]}
    road.put(PATIENT)
    road.put({**ORDER, "status": "on-hold"}, {**other, "status": "on-hold"})
    early = road.messages()[-1]
    again = fhir_intake.Again(road.feed)

    def order_by_hl7(order):
        def arrives(unit):
            meant = meaning(b"", road.feed, kept(Kept(replace(
                speech, subjects=(f"ServiceRequest/{order['id']}",), now={**speech.now, "ServiceRequest/o1": ORDER,
                                                                         "ServiceRequest/o2": other}
            ))))  # fmt: skip
            outcome = apply_events(unit, meant.events, road.feed.circumstances("ris", Stamp("", "ris"), "ris"), NOW)
            return run_early(unit, outcome.created, {"fhir": again}.get, NOW)

        return road.store.write(arrives).result()

    speech = restored(road.store.reader.kept_report(early.id)).speech
    assert order_by_hl7(ORDER)
    assert road.statuses() == ["ON HOLD"]
    assert [each.record.disposition for each in road.messages()[-2:]] == ["released", "early"]
    assert order_by_hl7(other)
    assert road.statuses() == ["ON HOLD", "ON HOLD"]
    assert [each.record.disposition for each in road.messages()[-3:]] == ["released", "released", "accepted"]


def test_what_waits_in_a_large_bundle_is_kept_and_acts(holding, monkeypatch):
    monkeypatch.setattr(fhir_kept, "BYTES_MAX", 100)
    holding.put(PATIENT, ORDER)
    assert holding.store.reader.kept_report(holding.messages()[-1].id) is None
    holding.put({**UNCOVERED, "id": "o2", "identifier": [{"system": "urn:oid:1.2.4", "value": "P2"}]})
    (held,) = [each for each in holding.messages() if each.record.disposition == "held"]
    start = "ScheduledProcedureStepSequence.ScheduledProcedureStepStart"
    rules = holding.rules["rules"] | {f"{start}Date": {"value": "20260707"}, f"{start}Time": {"value": "080000"}}
    covered = fhir_intake.Again(holding.feed_with(rules))
    holding.store.write(lambda unit: release(unit, held, covered, NOW)).result()
    assert holding.statuses() == ["SCHEDULED", "SCHEDULED"]


def test_archived_requests_run_again_and_mean_what_they_meant(road):
    road.put(PATIENT, ORDER)
    (first,) = road.messages()
    beside = road.store.reader.kept_report(first.id)
    meant = meaning(first.record.raw, road.feed, beside)
    assert [type(event).__name__ for event in meant.events] == ["PatientUpdate", "OrderEvent"]
    other = road.feed_with({**road.rules["rules"], "RequestedProcedureDescription": {"value": "other"}})
    assert [each.attribute for each in changes(meant, meaning(b"", other, beside))] == ["RequestedProcedureDescription"]

    receipt = asyncio.run(replay_request(road.store, first, other))
    assert receipt.disposition == "accepted"
    assert road.said("RequestedProcedureDescription") == "other"
    assert road.messages()[-1].record.replay_of == first.id


def test_a_refused_request_runs_again_as_it_came(road):
    road.put(PATIENT)
    road.put(UNCOVERED)
    refused = road.messages()[-1]
    start = "ScheduledProcedureStepSequence.ScheduledProcedureStepStart"
    feed = road.feed_with(
        {**road.rules["rules"], f"{start}Date": {"value": "20260707"}, f"{start}Time": {"value": "080000"}}
    )
    assert asyncio.run(replay_request(road.store, refused, feed)).disposition == "accepted"
    assert road.held(ORDER) is not None
    assert road.statuses() == ["SCHEDULED"]


def test_a_rehearsal_says_what_would_change_and_changes_nothing(road):
    road.put(PATIENT, ORDER)
    (first,) = road.messages()
    other = road.feed_with({**road.rules["rules"], "RequestedProcedureDescription": {"value": "other"}})
    done = road.store.rehearse(lambda unit: rehearse(unit, first, other, NOW)).result()
    assert done.disposition == "accepted"
    assert any("RequestedProcedureDescription" in each for each in done.changes)
    assert road.said("RequestedProcedureDescription") == "CT head"


def test_an_open_order_is_derived_again_from_its_requests(road):
    road.put(PATIENT, ORDER, PRACTITIONER)
    road.put({**ORDER, "patientInstruction": "come sober"})
    road.put(ORDER)
    (order,) = road.store.reader.orders(Identifier("P1", "1.2.4"), None)
    same = rederived(road.store.reader, order.id, {"fhir": road.feed})
    assert (same.left, same.changes) == ("", ())
    other = road.feed_with({**road.rules["rules"], "RequestedProcedureDescription": {"value": "other"}})
    derived = rederived(road.store.reader, order.id, {"fhir": other})
    assert [each.attribute for each in derived.changes] == ["RequestedProcedureDescription"]


def test_a_step_of_the_archive_that_is_not_kept_says_so(road):
    assert meaning(b"", road.feed).refusals[0].text.startswith("what this request said is not kept")


def test_an_order_by_hl7_and_by_fhir_is_one_order(road):
    event = OrderEvent(
        OrderControl.CA, "", Identifier("P1", "1.2.4"), None, PatientInput((Identifier("100", "1.2.3"),), {}), None, {}
    )
    road.put(PATIENT, ORDER, TASK)
    under = road.feed.circumstances("ris", Stamp("", "ris"), "ris")
    road.store.write(lambda unit: apply_events(unit, [event], under, NOW)).result()
    assert road.statuses() == ["CANCELED"]


def test_an_explanation_says_where_each_attribute_came_from(road):
    road.put(PATIENT, ORDER)
    (first,) = road.messages()
    told = explanation(first.record.raw, road.feed, said=FHIRSaid(road.store.reader.kept_report(first.id)))
    assert told["refusals"] == []
    places = [each["where"] for each in told["trace"]]
    assert "Bundle.entry[1].resource.code.text" in places
    assert any(each.startswith("Bundle.entry[0].resource.name") for each in places)
    bundle = {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": PATIENT}, {"resource": ORDER}]}
    of_file = explanation(json.dumps(bundle).encode(), road.feed)
    assert [each["stations"] for each in of_file["items"]] == ["CT1"]


def test_a_transaction_may_begin_with_a_search_and_delete_nothing(road):
    nothing = Interaction(Verb.DELETE, "Task", query="identifier=none", where="Bundle.entry[1]")
    search = Interaction(Verb.SEARCH, "Patient", where="Bundle.entry[0]")
    (patient,) = updates(PATIENT)
    asked = request_of([patient], Kind.TRANSACTION)
    answer = road.run(replace(asked, interactions=(search, nothing, replace(patient, where="Bundle.entry[2]"))))

    assert [each["response"]["status"][:3] for each in answer.body["entry"]] == ["200", "204", "201"]
    assert answer.body["entry"][0]["resource"]["entry"][0]["resource"]["id"] == "p1"
    archived = answer_of(road.messages()[0].record.answer).body
    assert [list(each) for each in archived["entry"]] == [["response"]] * 3


def test_the_same_message_at_another_base_is_another_message(road):
    road.feed = replace(road.feed, mappings={each: road.feed.mapping(Release.R4) for each in Release})
    said = request_of(updates(PATIENT), Kind.MESSAGE, message_id="m1")
    road.run(said)
    elsewhere = replace(said, source="r4b", release=Release.R4B)
    road.run(elsewhere)
    assert road.store.reader.resource(ResourceKey("r4b", "Patient", "p1")) is not None
    assert [each.record.disposition for each in road.messages()] == ["accepted", "accepted"]


def test_what_changed_on_the_first_day_there_is_is_read(road):
    """Servers that know no time of a change say so, by their own clock."""
    dated = [{**each, "meta": {"lastUpdated": "0001-01-01T00:00:00+01:00"}} for each in (PATIENT, ORDER)]
    asked = [Interaction(Verb.UPDATE, each["resourceType"], each["id"], each) for each in dated]
    assert road.run(request_of(asked, Kind.FETCHED)).status == 200
    assert road.statuses() == ["SCHEDULED"]
