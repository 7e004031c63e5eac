"""What our own FHIR server says of an order, and what waits for others, after modalities reported."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.domain.identifiers import Identifier
from gateway.domain.order import Order, Procedure, Step
from gateway.domain.patient import Patient
from gateway.domain.performed import MPPSState, PerformedStep
from gateway.domain.progress import Progress
from gateway.domain.resources import HeldResource, OrderPart, Resource, ResourceKey
from gateway.domain.worklist import SPSStatus
from gateway.edges.store import Store, StoreUnit
from gateway.wire import fhir_json
from gateway.wire.fhir_performance import made_id
from gateway.wire.fhir_release import Release
from gateway.workflow.audience import Audience, FHIRTarget, FHIRWriting, MessageSource
from gateway.workflow.fhir_offering import News, tell_by_fhir
from gateway.workflow.fhir_server import keep
from gateway.workflow.fhir_topics import events_of, subscribed
from gateway.workflow.outbox import OutboxState
from gateway.workflow.performed_effects import take_effect
from gateway.workflow.ports import DeliveryKind, MessageSearch
from gateway.workflow.requeue import overtaken, requeue_message
from gateway.workflow.telling import tell_progress

AT = datetime(2026, 7, 5, 8, 0, tzinfo=UTC)
UID, STUDY = "2.25.5550001", "2.25.990001"
WRITING = FHIRWriting(Release.R4, {"EHR": "urn:oid:1.2.3"}, gateway="GATEWAY")
EVERYTHING = frozenset(("ServiceRequest", "Task", "Appointment", "Procedure", "ImagingStudy", "Provenance"))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(f"sqlite:///{tmp_path / 'gateway.db'}", zone="Europe/Berlin") as made:
        yield made


def performed(state: MPPSState, reason: str = "", steps: tuple[int, ...] = (1,)) -> PerformedStep:
    said = {
        "00400270": {"vr": "SQ", "Value": [{"0020000D": {"vr": "UI", "Value": [STUDY]}}]},
        "00400244": {"vr": "DA", "Value": ["20260705"]},
        "00400245": {"vr": "TM", "Value": ["093000"]},
        "00400250": {"vr": "DA", "Value": ["20260705"]},
        "00400251": {"vr": "TM", "Value": ["094500"]},
        "00400241": {"vr": "AE", "Value": ["CT1"]},
        "00080060": {"vr": "CS", "Value": ["CT"]},
    }
    if reason:
        code = {"00080100": {"vr": "SH", "Value": [reason]}, "00080102": {"vr": "SH", "Value": ["DCM"]}}
        said["00400281"] = {"vr": "SQ", "Value": [code]}
    return PerformedStep(UID, state, said, "CT1", 1, steps)


class Department:
    """An order of two steps that came by FHIR: a ServiceRequest, a Task for each step, an Appointment for the first."""

    def __init__(self, store: Store, source: str = "r4", *, by_fhir: bool = True) -> None:
        self.store, self.source = store, source
        self.order = store.write(self._ordered).result()
        self.steps = [step.id or 0 for each in self.order.procedures for step in each.steps]
        if by_fhir:
            store.write(self._held).result()

    @staticmethod
    def _ordered(unit: StoreUnit) -> Order:
        patient = unit.save_patient(Patient(None, (Identifier("P1", "EHR"),), {}), AT)
        steps = tuple(Step(None, f"SPS{n}", SPSStatus.SCHEDULED, {}) for n in (1, 2))
        procedure = Procedure(None, STUDY, "RP1", Identifier("A1", "EHR"), {}, steps)
        return unit.save_order(Order(None, patient, None, Identifier("PL1", "EHR"), None, {}, (procedure,)), "x", AT)

    def _held(self, unit: StoreUnit) -> None:
        resources: list[tuple[Resource, str]] = [
            ({"resourceType": "ServiceRequest", "id": "sr", "status": "active", "intent": "order",
              "subject": {"reference": "Patient/p"},
              "identifier": [{"system": "urn:oid:1.2.3", "value": "PL1"}]}, ""),
            ({"resourceType": "Task", "id": "t1", "status": "requested", "intent": "order"}, "SPS1"),
            ({"resourceType": "Task", "id": "t2", "status": "accepted", "intent": "order"}, "SPS2"),
            ({"resourceType": "Appointment", "id": "a1", "status": "booked",
              "participant": [{"status": "accepted"}]}, "SPS1"),
        ]  # fmt: skip
        parts = []
        for content, sps_id in resources:
            key = ResourceKey(self.source, content["resourceType"], content["id"])
            keep(unit, key, content, Release.R4, AT)
            parts.append(OrderPart(self.order.id or 0, key, "", sps_id))
        unit.set_order_parts(self.order.id or 0, parts)

    def report(self, done: PerformedStep, audience: Audience, *, withdrawn: bool = False) -> None:
        """A modality reports this of its steps."""

        def use_case(unit: StoreUnit) -> None:
            refs = unit.steps(self.steps[:1] if withdrawn else done.steps)
            unit.save_performed_step(done, AT)
            take_effect(unit, done, refs, AT, audience, withdrawn=withdrawn)

        self.store.write(use_case).result()

    def held(self, kind: str, resource_id: str) -> HeldResource:
        found = self.store.reader.resource(ResourceKey(self.source, kind, resource_id))
        assert found is not None
        return found

    def status(self, kind: str, resource_id: str) -> str:
        return str(self.held(kind, resource_id).content["status"])

    def all(self) -> tuple[str, ...]:
        ids = (("ServiceRequest", "sr"), ("Task", "t1"), ("Task", "t2"), ("Appointment", "a1"))
        return tuple(self.status(*each) for each in ids)


OFFERED = Audience(offered=WRITING)


def test_what_modalities_report_is_offered_step_by_step(store: Store) -> None:
    department = Department(store)
    first, second = department.steps
    assert department.all() == ("active", "requested", "accepted", "booked")
    department.report(performed(MPPSState.IN_PROGRESS, steps=(first,)), OFFERED)
    assert department.all() == ("active", "in-progress", "accepted", "arrived")
    department.report(performed(MPPSState.COMPLETED, steps=(first,)), OFFERED)
    assert department.all() == ("active", "completed", "accepted", "fulfilled")
    other = performed(MPPSState.COMPLETED, steps=(second,))
    department.report(PerformedStep("2.25.5550002", other.state, other.attributes, "CT1", 1, other.steps), OFFERED)
    assert department.all() == ("completed", "completed", "completed", "fulfilled")
    procedure = department.held("Procedure", made_id("Procedure", UID)).content
    assert procedure["status"] == "completed"
    assert procedure["subject"] == {"reference": "Patient/p"}
    assert procedure["basedOn"] == [{"reference": "ServiceRequest/sr"}]
    assert department.status("ImagingStudy", made_id("ImagingStudy", STUDY)) == "available"


def test_a_wrong_entry_takes_back_what_was_said(store: Store) -> None:
    department = Department(store)
    first = department.steps[0]
    department.report(performed(MPPSState.IN_PROGRESS, steps=(first,)), OFFERED)
    department.report(performed(MPPSState.DISCONTINUED, "110514", steps=(first,)), OFFERED)
    assert department.all() == ("active", "ready", "accepted", "arrived")
    assert department.status("Procedure", made_id("Procedure", UID)) == "entered-in-error"
    assert department.status("ImagingStudy", made_id("ImagingStudy", STUDY)) == "entered-in-error"
    assert "output" not in department.held("Task", "t1").content


def test_a_task_that_is_final_stays_final_and_the_facts_are_offered_all_the_same(store: Store) -> None:
    department = Department(store)
    key = ResourceKey("r4", "Task", "t1")
    final = {"resourceType": "Task", "id": "t1", "status": "rejected", "intent": "order"}
    store.write(lambda unit: keep(unit, key, final, Release.R4, AT)).result()
    department.report(performed(MPPSState.COMPLETED, steps=(department.steps[0],)), OFFERED)
    assert department.status("Task", "t1") == "rejected"
    assert department.status("Procedure", made_id("Procedure", UID)) == "completed"


def test_an_order_of_hl7_gets_what_was_performed_and_no_request_is_made_up(store: Store) -> None:
    department = Department(store, by_fhir=False)
    department.report(performed(MPPSState.COMPLETED, steps=(department.steps[0],)), OFFERED)
    procedure = department.held("Procedure", made_id("Procedure", UID)).content
    assert procedure["basedOn"][0]["identifier"]["value"] == "PL1"
    assert procedure["subject"]["identifier"] == {
        "type": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "MR"}]},
        "system": "urn:oid:1.2.3", "value": "P1",
    }  # fmt: skip
    assert not store.reader.find_resources("r4", "ServiceRequest")
    assert not store.reader.find_resources("r4", "Task")


def test_provenance_names_the_versions_that_were_written(store: Store) -> None:
    department = Department(store)
    department.report(performed(MPPSState.IN_PROGRESS, steps=(department.steps[0],)), OFFERED)
    (said,) = store.reader.find_resources("r4", "Provenance")
    targets = [each["reference"] for each in said.content["target"]]
    assert "Task/t1/_history/2" in targets
    assert f"Procedure/{made_id('Procedure', UID)}/_history/1" in targets
    assert not any(each.startswith("ServiceRequest/") for each in targets)


def test_what_is_said_again_changes_no_version(store: Store) -> None:
    department = Department(store)
    step = performed(MPPSState.IN_PROGRESS, steps=(department.steps[0],))
    department.report(step, OFFERED)
    before = department.held("Task", "t1").version
    order = store.write(lambda unit: unit.order(department.order.id or 0)).result()
    assert order is not None
    store.write(lambda unit: tell_by_fhir(unit, OFFERED, order, News(None, step), AT)).result()
    assert department.held("Task", "t1").version == before
    assert len(store.reader.find_resources("r4", "Provenance")) == 1


def waiting(store: Store, destination: str = "ehr") -> list[Resource]:
    found = store.reader.find_messages(MessageSearch(listener=destination, direction="out"), 100)
    return [fhir_json.parse(each.record.raw) for each in reversed(found)]


def test_an_order_of_a_feed_is_told_by_its_own_ids(store: Store) -> None:
    department = Department(store, source="ehr-feed")
    told = Audience(fhir=(FHIRTarget("ehr", WRITING, EVERYTHING, "ehr-feed"),))
    department.report(performed(MPPSState.IN_PROGRESS, steps=(department.steps[0],)), told)
    (bundle,) = waiting(store)
    urls = [each["request"]["url"] for each in bundle["entry"]]
    assert urls[:4] == ["Task/t1", "Task/t2", "ServiceRequest/sr", "Appointment/a1"]
    assert urls[4].startswith("Procedure?identifier=urn%3Adicom%3Auid%7Curn%3Aoid%3A")
    assert urls[-1] == "Provenance"
    (delivery,) = store.reader.next_deliveries("ehr", datetime.now(UTC), 10, 60.0)
    assert (delivery.kind, delivery.operation) == (DeliveryKind.FHIR, "transaction")


def test_an_order_of_hl7_is_told_by_its_number(store: Store) -> None:
    department = Department(store, by_fhir=False)
    told = Audience(fhir=(FHIRTarget("ehr", WRITING, EVERYTHING),))
    department.report(performed(MPPSState.IN_PROGRESS, steps=(department.steps[0],)), told)
    (bundle,) = waiting(store)
    assert bundle["entry"][0]["request"]["url"] == "ServiceRequest?identifier=urn%3Aoid%3A1.2.3%7CPL1"
    procedure = next(e["resource"] for e in bundle["entry"] if e["resource"]["resourceType"] == "Procedure")
    assert procedure["basedOn"][0]["reference"] == bundle["entry"][0]["fullUrl"]


def test_each_request_of_an_order_is_found_by_a_number_of_its_own(store: Store) -> None:
    department = Department(store)
    accession = {"system": "urn:oid:9", "value": "A1", "type": {"coding": [{"code": "ACSN"}]}}
    numbers = {
        "top": [accession, {"system": "urn:oid:8", "value": "PL1", "type": {"coding": [{"code": "PLAC"}]}}],
        "one": [accession, {"system": "urn:oid:7", "value": "RP1"}],
        "bare": [accession],
    }

    def held(unit: StoreUnit) -> None:
        keys = [ResourceKey("r4", "ServiceRequest", each) for each in numbers]
        for key in keys:
            said = {"resourceType": "ServiceRequest", "id": key.id, "status": "active", "identifier": numbers[key.id]}
            keep(unit, key, said, Release.R4, AT)
        unit.set_order_parts(department.order.id or 0, [OrderPart(department.order.id or 0, key) for key in keys])

    store.write(held).result()
    told = Audience(fhir=(FHIRTarget("ehr", WRITING, EVERYTHING),))
    department.report(performed(MPPSState.IN_PROGRESS, steps=(department.steps[0],)), told)
    (bundle,) = waiting(store)
    urls = {each["request"]["url"] for each in bundle["entry"] if each["resource"]["resourceType"] == "ServiceRequest"}
    assert urls == {f"ServiceRequest?identifier=urn%3Aoid%3A{number}" for number in ("8%7CPL1", "7%7CRP1", "9%7CA1")}


def test_what_a_feed_said_itself_is_not_told_back_to_it_and_to_others_it_is(store: Store) -> None:
    department = Department(store, source="ehr-feed")
    targets = (FHIRTarget("ehr", WRITING, EVERYTHING, "ehr-feed"), FHIRTarget("other", WRITING, EVERYTHING))

    def cancelled(unit: StoreUnit) -> None:
        before = dict.fromkeys(department.steps, SPSStatus.SCHEDULED)
        for step in department.steps:
            unit.set_step_status(step, SPSStatus.CANCELED, "x", AT)
        tell_progress(
            unit, Audience(fhir=targets), department.order.id or 0, before, AT, "x",
            said_by=MessageSource("ehr-feed"),
        )  # fmt: skip

    store.write(cancelled).result()
    assert waiting(store) == []
    (bundle,) = waiting(store, "other")
    assert [each["resource"]["status"] for each in bundle["entry"] if each["request"]["method"] == "PUT"] == ["revoked"]


def test_what_was_sent_is_sent_again_as_it_was_unless_newer_news_overtook_it(store: Store) -> None:
    department = Department(store, source="ehr-feed")
    told = Audience(fhir=(FHIRTarget("ehr", WRITING, EVERYTHING, "ehr-feed"),))
    for state in (MPPSState.IN_PROGRESS, MPPSState.COMPLETED):
        department.report(performed(state, steps=(department.steps[0],)), told)
    first, second = store.reader.deliveries(10, destination="ehr")

    def settled(unit: StoreUnit) -> None:
        unit.save_delivery(replace(first, state=OutboxState.PARKED, reason="refused"), b"")
        unit.save_delivery(replace(second, state=OutboxState.SENT), b"", AT)

    store.write(settled).result()
    newer = overtaken(store.reader, first)
    assert newer is not None
    assert newer.id == second.archive_id
    assert overtaken(store.reader, second) is None
    sent = store.reader.message(second.archive_id)
    assert sent is not None
    assert store.write(lambda unit: requeue_message(unit, sent, AT)).result()
    again = store.reader.deliveries(10, destination="ehr")[-1]
    assert (again.kind, again.operation, again.control_id) == (DeliveryKind.FHIR, "transaction", second.control_id)
    assert (again.payload, again.lane) == (second.payload, second.lane)


def test_what_was_moved_to_another_order_is_told_with_that_one_alone(store: Store) -> None:
    department = Department(store)
    here = performed(MPPSState.COMPLETED, steps=(department.steps[0],))
    department.report(here, OFFERED)
    elsewhere = replace(here, steps=(department.steps[0] + 100,))

    def moved(unit: StoreUnit) -> None:
        order = unit.order(department.order.id or 0)
        assert order is not None
        tell_by_fhir(unit, OFFERED, order, News(None, elsewhere), AT)

    before = department.held("Procedure", made_id("Procedure", UID))
    store.write(moved).result()
    assert department.held("Procedure", made_id("Procedure", UID)).version >= before.version
    assert department.status("Procedure", made_id("Procedure", UID)) == "completed"


def of_two_procedures(store: Store, source: str) -> tuple[Order, list[int]]:
    """An order of two procedures, each of one step, for which there is one Appointment."""

    def ordered(unit: StoreUnit) -> Order:
        patient = unit.save_patient(Patient(None, (Identifier("P1", "EHR"),), {}), AT)
        procedures = tuple(
            Procedure(None, f"{STUDY}.{n}", f"RP{n}", Identifier("A1", "EHR"), {},
                      (Step(None, f"SPS{n}", SPSStatus.SCHEDULED, {}),)) for n in (1, 2)
        )  # fmt: skip
        order = Order(None, patient, None, Identifier("PL1", "EHR"), None, {}, procedures)
        order = unit.save_order(order, "x", AT)
        key = ResourceKey(source, "Appointment", "a1")
        held = {"resourceType": "Appointment", "id": "a1", "status": "booked", "participant": [{"status": "accepted"}]}
        keep(unit, key, held, Release.R4, AT)
        unit.set_order_parts(order.id or 0, [OrderPart(order.id or 0, key, f"RP{n}", f"SPS{n}") for n in (1, 2)])
        return order

    order = store.write(ordered).result()
    return order, [step.id or 0 for each in order.procedures for step in each.steps]


@pytest.mark.parametrize("source", ["r4", "ehr-feed"])
def test_an_appointment_for_two_procedures_is_over_when_both_are(store: Store, source: str) -> None:
    order, steps = of_two_procedures(store, source)
    told = Audience(fhir=(FHIRTarget("ehr", WRITING, frozenset({"Appointment"}), "ehr-feed"),), offered=WRITING)

    def statuses(*now: SPSStatus) -> str:
        def use_case(unit: StoreUnit) -> None:
            for step, status in zip(steps, now, strict=True):
                unit.set_step_status(step, status, "x", AT)
            changed = unit.order(order.id or 0)
            assert changed is not None
            tell_by_fhir(unit, told, changed, News(None), AT)

        store.write(use_case).result()
        held = store.reader.resource(ResourceKey(source, "Appointment", "a1"))
        assert held is not None
        return str(held.content["status"])

    assert statuses(SPSStatus.CANCELED, SPSStatus.SCHEDULED) == "booked"
    assert statuses(SPSStatus.CANCELED, SPSStatus.COMPLETED) == "fulfilled"
    for bundle in waiting(store) if source == "ehr-feed" else ():
        assert [each["request"]["url"] for each in bundle["entry"]] == ["Appointment/a1"]


def test_an_appointment_for_two_orders_is_over_when_both_are(store: Store) -> None:
    orders: list[Order] = []

    def ordered(unit: StoreUnit) -> None:
        patient = unit.save_patient(Patient(None, (Identifier("P1", "EHR"),), {}), AT)
        named = [{"reference": f"ServiceRequest/sr{n}"} for n in (1, 2)]
        slot = ResourceKey("r4", "Appointment", "a1")
        booked = {"resourceType": "Appointment", "id": "a1", "status": "booked", "basedOn": named}
        keep(unit, slot, booked, Release.R4, AT)
        for n in (1, 2):
            step = Step(None, "SPS1", SPSStatus.SCHEDULED, {})
            procedure = Procedure(None, f"{STUDY}.{n}", f"RP{n}", Identifier(f"A{n}", "EHR"), {}, (step,))
            order = Order(None, patient, None, Identifier(f"PL{n}", "EHR"), None, {}, (procedure,))
            order = unit.save_order(order, "x", AT)
            key, number = ResourceKey("r4", "ServiceRequest", f"sr{n}"), order.id or 0
            keep(unit, key, {"resourceType": "ServiceRequest", "id": key.id, "status": "active"}, Release.R4, AT)
            unit.set_order_parts(number, [OrderPart(number, key), OrderPart(number, slot, f"RP{n}", "SPS1")])
            orders.append(order)

    def canceled(number: int) -> str:
        def use_case(unit: StoreUnit) -> None:
            order = unit.order(orders[number].id or 0)
            assert order is not None
            unit.set_step_status(order.procedures[0].steps[0].id or 0, SPSStatus.CANCELED, "x", AT)
            order = unit.order(order.id or 0)
            assert order is not None
            tell_by_fhir(unit, OFFERED, order, News(None), AT)

        store.write(use_case).result()
        held = store.reader.resource(ResourceKey("r4", "Appointment", "a1"))
        assert held is not None
        return str(held.content["status"])

    store.write(ordered).result()
    assert canceled(0) == "booked"
    assert canceled(1) == "cancelled"


def test_a_second_request_of_the_same_number_is_told_with_the_first(store: Store) -> None:
    department = Department(store)

    def second(unit: StoreUnit) -> None:
        key = ResourceKey("r4", "ServiceRequest", "again")
        said = department.held("ServiceRequest", "sr").content
        keep(unit, key, {**said, "id": "again"}, Release.R4, AT)
        number = department.order.id or 0
        unit.set_order_parts(number, [*unit.order_parts(number), OrderPart(number, key)])

    store.write(second).result()
    told = Audience(fhir=(FHIRTarget("ehr", WRITING, EVERYTHING),))
    department.report(performed(MPPSState.IN_PROGRESS, steps=(department.steps[0],)), told)
    (bundle,) = waiting(store)
    urls = [each["request"]["url"] for each in bundle["entry"] if each["resource"]["resourceType"] == "ServiceRequest"]
    assert urls == ["ServiceRequest?identifier=urn%3Aoid%3A1.2.3%7CPL1"]


def test_what_an_orders_sender_says_of_it_is_told_to_those_who_subscribed(store: Store) -> None:
    department = Department(store)
    key, request = ResourceKey("r4", "Subscription", "s"), ResourceKey("r4", "ServiceRequest", "sr")
    said = {
        "resourceType": "Subscription", "id": "s", "status": "requested", "reason": "test",
        "criteria": "http://modality-gateway.invalid/fhir/SubscriptionTopic/order-canceled",
        "channel": {"type": "rest-hook", "endpoint": "https://portal.example/hook"},
    }  # fmt: skip

    def revoked(unit: StoreUnit) -> None:
        keep(unit, key, said, Release.R4, AT)
        subscribed(unit, Release.R4, [key], AT, OFFERED)
        keep(unit, key, {**said, "status": "active"}, Release.R4, AT)
        keep(unit, request, {**department.held("ServiceRequest", "sr").content, "status": "revoked"}, Release.R4, AT)
        unit.set_order_parts(department.order.id or 0, [OrderPart(department.order.id or 0, request)])
        for step in department.steps:
            unit.set_step_status(step, SPSStatus.CANCELED, "x", AT)
        order = unit.order(department.order.id or 0)
        assert order is not None
        for what in (Progress.CANCELED, None):  # the second time nothing becomes of it
            tell_by_fhir(unit, OFFERED, order, News(what), AT)

    store.write(revoked).result()
    told = events_of(store.reader, key, AT, content="id-only")
    assert told is not None
    assert [each["request"]["url"] for each in told["entry"]] == ["Subscription/s/$status", "ServiceRequest/sr"]
