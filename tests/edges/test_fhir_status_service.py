"""Status out by the running service: a CT reports by DICOM, an EHR reads it here and has it written to its own server.

Every state of the table in docs/reference/fhir-status.md, in each release. The people are invented.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta
from itertools import count
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from fhir_receiver import Answer, Asked, Receiver, receiving
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage

from gateway.testing import (
    ImagingOrder,
    ServiceProcess,
    SimulatedModality,
    SimulatedRIS,
    cancel,
    invented_person,
    omi,
    site,
)
from gateway.testing.fhir_validity import check
from gateway.testing.modality import final_state, performed_step
from gateway.testing.ris import Draft
from gateway.wire.fhir_release import Release
from tests.fhir_department import (
    ACCESSIONS,
    DEPARTMENT,
    ISSUERS,
    JSON,
    STEPS,
    identifier,
    patient,
    request,
    task,
    transaction,
)

START = datetime.now().replace(hour=9, minute=30, second=0, microsecond=0) + timedelta(days=1)
PATIENCE_S = 60
TASKS = "http://ehr.example/tasks"
APPOINTMENTS = "http://ehr.example/appointments"
WRITTEN = ["ServiceRequest", "Task", "Appointment", "Procedure", "ImagingStudy", "Observation", "Provenance"]
_numbers = count(1)


class EHR:
    """The EHR's own server: what it holds by `Type/id`, read, searched by identifier and changed by transactions."""

    def __init__(self, release: Release) -> None:
        self.release = release
        self.held: dict[str, dict[str, Any]] = {}
        self.refusing = 0
        self._ids = count(1)

    def put(self, resource: dict[str, Any], name: str = "") -> None:
        name = name or f"{resource['resourceType']}/{resource['id']}"
        version = int(self.held.get(name, {}).get("meta", {}).get("versionId", 0)) + 1
        resource_id = name.partition("/")[2]
        self.held[name] = {**resource, "id": resource_id, "meta": {"versionId": str(version)}}

    def __call__(self, asked: Asked) -> Answer:
        parts = urlsplit(asked.path)
        name = parts.path.strip("/")
        if asked.method == "POST" and not name:
            return self._transaction(asked.body)
        if "/" in name:
            return (200, self.held[name]) if name in self.held else (404, None)
        found = self._search(name, parse_qs(parts.query)["identifier"][0])
        entries = [{"resource": each, "search": {"mode": "match"}} for each in found]
        return 200, {"resourceType": "Bundle", "type": "searchset", "entry": entries}

    def _search(self, kind: str, token: str) -> list[dict[str, Any]]:
        system, _, value = token.rpartition("|")
        return [
            each
            for name, each in list(self.held.items())
            if name.startswith(f"{kind}/")
            and any(i.get("value") == value and i.get("system", "") == system for i in each.get("identifier", ()))
        ]

    def _transaction(self, bundle: dict[str, Any]) -> Answer:
        if self.refusing:
            self.refusing -= 1
            return 503, None
        for entry in bundle["entry"]:
            check(entry["resource"], self.release)
            wanted = entry["request"].get("ifMatch", "").strip('W/"')
            if wanted and self.held[entry["request"]["url"]]["meta"]["versionId"] != wanted:
                return 412, None
        for entry in bundle["entry"]:
            url = entry["request"]["url"]
            named = "/" in url and "?" not in url
            self.put(entry["resource"], url if named else f"{url.partition('?')[0]}/made{next(self._ids)}")
        return 200, {"resourceType": "Bundle", "type": "transaction-response", "entry": []}

    def made(self, kind: str, uid: str) -> dict[str, Any]:
        (found,) = self._search(kind, f"urn:dicom:uid|urn:oid:{uid}")
        return found


class Hospital:
    """A running gateway, an EHR that orders by FHIR and has a server of its own, the department's RIS, and a CT."""

    def __init__(self, service: ServiceProcess, release: Release, ehr: EHR, server: Receiver) -> None:
        self.release, self.ehr, self.server = release, ehr, server
        self.modality = SimulatedModality(service.host, service.dicom_port, "CT1")
        self.ris = SimulatedRIS(service.host, service.hl7_port, timeout_s=PATIENCE_S)
        self.client = httpx.Client(
            base_url=f"http://{service.host}:{service.http_port}/fhir/{release.base}", headers=JSON, timeout=PATIENCE_S
        )

    def order(self) -> "Ordered":
        """A request with a Task for its step."""
        order = ImagingOrder(next(_numbers), invented_person(1), START)
        said = task(order)
        said["identifier"].append({"type": {"text": "task"}, "system": TASKS, "value": f"T{order.number}"})
        if self.release is Release.R5:
            said["requestedPeriod"] = said.pop("restriction")["period"]
        return self.ordered(order, request(order), said)

    def booked(self) -> "Ordered":
        """A request with an Appointment for its step, and no Task."""
        order = ImagingOrder(next(_numbers), invented_person(1), START)
        here: dict[str, Any] = {"actor": {"reference": f"Patient/{order.person.patient_id}"}, "status": "accepted"}
        start = order.start.replace(tzinfo=DEPARTMENT)
        said = {
            "resourceType": "Appointment", "id": f"a{order.number}", "status": "booked",
            "identifier": [
                {"system": STEPS, "value": order.sps_id},
                {"type": {"text": "appointment"}, "system": APPOINTMENTS, "value": f"A{order.number}"},
            ],
            "basedOn": [{"reference": f"ServiceRequest/o{order.number}"}], "start": start.isoformat(),
            "end": (start + timedelta(minutes=20)).isoformat(), "participant": [here],
        }  # fmt: skip
        return self.ordered(order, request(order), said)

    def ordered(self, order: ImagingOrder, asked: dict[str, Any], *scheduled: dict[str, Any]) -> "Ordered":
        """What the EHR has and orders with us; it is on the worklist."""
        if self.release is Release.R5:
            asked["code"] = {"concept": asked["code"]}
        said = [patient(order.person), asked, *scheduled]
        for each in said:
            self.ehr.put(each)
        answer = self.client.post("/", json=transaction(*said))
        assert answer.status_code == 200, answer.text
        (item,) = self.modality.worklist(AccessionNumber=order.accession)
        return Ordered(self, order, item)

    def says(self, draft: Draft) -> None:
        """The RIS says this of an order, and is believed."""
        answer = self.ris.send(draft)
        assert answer.code == "AA", answer.errors

    def changes(self, name: str, **said: Any) -> None:
        """The EHR changes a resource, on its own server and here."""
        changed = {**self.ehr.held[name], **said}
        self.ehr.put(changed)
        answer = self.client.put(f"/{name}", json={key: value for key, value in changed.items() if key != "meta"})
        assert answer.status_code == 200, answer.text

    def held(self, name: str) -> dict[str, Any]:
        answer = self.client.get(f"/{name}")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        check(found, self.release)
        return found

    def made(self, kind: str, uid: str) -> dict[str, Any]:
        answer = self.client.get(f"/{kind}", params={"identifier": f"urn:dicom:uid|urn:oid:{uid}"})
        (entry,) = answer.json()["entry"]
        found: dict[str, Any] = entry["resource"]
        check(found, self.release)
        return found


class Ordered:
    """An order that is on the worklist, and how it stands on both servers."""

    def __init__(self, hospital: Hospital, order: ImagingOrder, item: Dataset) -> None:
        self.hospital, self.order, self.item = hospital, order, item
        self.study = str(item.StudyInstanceUID)
        self.uid = ""

    def start(self) -> None:
        self.uid = self.hospital.modality.start(self.item)

    def stands(self, **said: str) -> None:
        """Both servers say so, ours at once."""
        number = self.order.number
        kinds = {
            "task": f"Task/t{number}",
            "request": f"ServiceRequest/o{number}",
            "appointment": f"Appointment/a{number}",
        }
        hospital = self.hospital
        for what, status in said.items():
            made = {"procedure": ("Procedure", self.uid), "study": ("ImagingStudy", self.study)}.get(what)
            ours = hospital.made(*made) if made else hospital.held(kinds[what])
            assert (what, ours["status"]) == (what, status)

            def theirs(what: str = what, made: tuple[str, str] | None = made) -> dict[str, Any]:
                return hospital.ehr.made(*made) if made else hospital.ehr.held[kinds[what]]

            def says(status: str = status, theirs: Callable[[], dict[str, Any]] = theirs) -> bool:
                try:
                    return bool(theirs()["status"] == status)
                except ValueError:  # not made yet
                    return False

            until(says)


def until(happened: Callable[[], bool]) -> None:
    """Another process cannot be awaited, only asked."""
    deadline = time.monotonic() + PATIENCE_S
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture(scope="module", params=list(Release), ids=str)
def hospital(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospital]:
    release: Release = request.param
    ehr = EHR(release)
    with ExitStack() as stack:
        server = stack.enter_context(receiving(ehr))
        written = {"url": server.url, "release": release.value, "resources": WRITTEN}
        told = {"name": "ehr", "retry_most_s": 1, "fhir": written}
        config = site(
            tmp_path_factory.mktemp("site"), fhir={"release": release.value}, issuers=ISSUERS, destinations=[told]
        )
        service = stack.enter_context(ServiceProcess(config, ready_s=120))
        running = Hospital(service, release, ehr, server)
        yield running
        running.client.close()
        running.ris.close()


def series(uid: str) -> Dataset:
    image = Dataset()
    image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = CTImageStorage, f"{uid}.1"
    made = Dataset()
    made.SeriesInstanceUID, made.ProtocolName, made.SeriesDescription = uid, "Routine", "axial"
    made.PerformingPhysicianName = made.OperatorsName = made.RetrieveAETitle = ""
    made.ReferencedImageSequence = [image]
    made.ReferencedNonImageCompositeSOPInstanceSequence = []
    return made


def test_a_task_that_is_scheduled_is_accepted(hospital: Hospital) -> None:
    ordered = hospital.order()
    ordered.stands(task="accepted", request="active")


def test_started_goes_on_and_completed(hospital: Hospital) -> None:
    ordered = hospital.order()
    ordered.start()
    ordered.stands(task="in-progress", request="active", procedure="in-progress", study="registered")
    running = hospital.held(f"Task/t{ordered.order.number}")
    assert running["output"][0]["valueIdentifier"]["value"] == f"urn:oid:{ordered.uid}"
    station = running["output"][1]["valueReference"] if hospital.release is Release.R5 else running["owner"]
    assert station["identifier"]["value"] == "CT1"
    assert "end" not in running["executionPeriod"]
    study = hospital.made("ImagingStudy", ordered.study)
    assert study["basedOn"] == [{"reference": f"ServiceRequest/o{ordered.order.number}"}]
    assert "series" not in study

    more = Dataset()
    more.PerformedSeriesSequence = [series("2.25.4711")]
    hospital.modality.set(ordered.uid, more)  # it goes on
    assert hospital.made("ImagingStudy", ordered.study)["numberOfInstances"] == 1
    until(lambda: hospital.ehr.made("ImagingStudy", ordered.study).get("numberOfInstances") == 1)
    ordered.stands(study="registered", procedure="in-progress")

    final = final_state("COMPLETED", datetime.now())
    final.PerformedSeriesSequence = [series("2.25.4711")]
    hospital.modality.set(ordered.uid, final)
    ordered.stands(task="completed", request="completed", procedure="completed", study="available")
    assert hospital.held(f"Task/t{ordered.order.number}")["executionPeriod"]["end"]


def test_broken_off_for_good(hospital: Hospital) -> None:
    ordered = hospital.order()
    ordered.start()
    final = final_state("DISCONTINUED", datetime.now(), "110500")  # Doctor canceled procedure
    final.PerformedSeriesSequence = [series("2.25.4712")]
    hospital.modality.set(ordered.uid, final)
    ordered.stands(task="failed", request="revoked", procedure="stopped", study="available")
    said = hospital.held(f"Task/t{ordered.order.number}")["statusReason"]
    reason = said["concept"] if hospital.release is Release.R5 else said
    assert reason["coding"][0]["code"] == "110500"


def test_begun_for_the_wrong_entry(hospital: Hospital) -> None:
    ordered = hospital.order()
    ordered.start()
    hospital.modality.discontinue(ordered.uid, "110514")
    ordered.stands(task="ready", request="active", procedure="entered-in-error", study="entered-in-error")
    assert "output" not in hospital.held(f"Task/t{ordered.order.number}")


def test_put_on_hold_by_the_department_and_released(hospital: Hospital) -> None:
    ordered = hospital.order()
    hospital.says(omi(ordered.order, "HD", "HD"))
    ordered.stands(request="on-hold", task="on-hold")
    hospital.says(omi(ordered.order, "RL", "SC"))
    ordered.stands(request="active", task="ready")


def test_cancelled_by_the_department(hospital: Hospital) -> None:
    ordered = hospital.order()
    hospital.says(cancel(ordered.order))
    ordered.stands(request="revoked", task="cancelled")
    assert not hospital.modality.worklist(AccessionNumber=ordered.order.accession)
    assert "output" not in hospital.held(f"Task/t{ordered.order.number}")


def test_put_on_hold_and_revoked_by_the_ehr_itself_and_its_task_with_it(hospital: Hospital) -> None:
    ordered = hospital.order()
    name = f"ServiceRequest/o{ordered.order.number}"
    hospital.changes(name, status="on-hold")
    ordered.stands(request="on-hold", task="on-hold")
    hospital.changes(name, status="revoked")
    ordered.stands(request="revoked", task="cancelled")


def test_an_appointment_is_arrived_while_the_work_runs_and_fulfilled_when_it_ends(hospital: Hospital) -> None:
    ordered = hospital.booked()
    ordered.stands(appointment="booked", request="active")
    ordered.start()
    ordered.stands(appointment="arrived", request="active", procedure="in-progress")
    hospital.modality.complete(ordered.uid)
    ordered.stands(appointment="fulfilled", request="completed", procedure="completed")


def test_an_appointment_whose_work_was_broken_off_for_good_took_place_all_the_same(hospital: Hospital) -> None:
    ordered = hospital.booked()
    ordered.start()
    hospital.modality.discontinue(ordered.uid, "110500")
    ordered.stands(appointment="fulfilled", request="revoked", procedure="not-done")


def test_an_appointment_is_cancelled_with_its_order_and_says_why_its_work_was_broken_off(hospital: Hospital) -> None:
    ordered = hospital.booked()
    ordered.start()
    hospital.modality.discontinue(ordered.uid, "110501")  # Equipment failure: it is to be repeated
    ordered.stands(appointment="arrived", request="active", procedure="not-done")
    hospital.says(cancel(ordered.order))
    ordered.stands(appointment="cancelled", request="revoked")
    spelt = "cancellationReason" if hospital.release is Release.R5 else "cancelationReason"
    for said in (hospital.held(f"Appointment/a{ordered.order.number}"),
                 hospital.ehr.held[f"Appointment/a{ordered.order.number}"]):  # fmt: skip
        assert [each["code"] for each in said[spelt]["coding"]] == ["110501"]


def test_an_appointment_on_hold_is_not_changed(hospital: Hospital) -> None:
    ordered = hospital.booked()
    hospital.says(omi(ordered.order, "HD", "HD"))
    ordered.stands(request="on-hold", appointment="booked")


def test_of_a_procedure_that_is_known_by_its_accession_number_alone_the_request_is_found(hospital: Hospital) -> None:
    order = ImagingOrder(next(_numbers), invented_person(1), START)
    asked = request(order, identifier=[identifier("ACSN", ACCESSIONS, order.accession)])
    ordered = hospital.ordered(order, asked)
    said = performed_step(ordered.item, "CT1", datetime.now())
    ordered.uid = f"2.25.47120{order.number}"
    (named,) = said.ScheduledStepAttributesSequence
    named.RequestedProcedureID = named.ScheduledProcedureStepID = ""
    hospital.modality.create(ordered.uid, said)
    ordered.stands(request="active", procedure="in-progress", study="registered")
    hospital.modality.complete(ordered.uid)
    ordered.stands(request="completed", procedure="completed", study="available")
    reference = f"ServiceRequest/o{order.number}"
    assert hospital.made("Procedure", ordered.uid)["basedOn"] == [{"reference": reference}]
    assert hospital.ehr.made("Procedure", ordered.uid)["basedOn"][0]["reference"] == reference


def test_a_server_that_is_away_gets_everything_in_order_when_it_is_back(hospital: Hospital) -> None:
    ordered = hospital.order()
    ordered.stands(task="accepted")
    hospital.ehr.refusing = 2
    ordered.start()
    hospital.modality.complete(ordered.uid)
    ordered.stands(task="completed", request="completed", procedure="completed")
    assert hospital.ehr.refusing == 0


def test_what_the_gateway_makes_is_read_and_not_changed(hospital: Hospital) -> None:
    ordered = hospital.order()
    ordered.start()
    ours = hospital.made("Procedure", ordered.uid)
    where = f"/Procedure/{ours['id']}"
    changed = hospital.client.put(where, json={**ours, "status": "completed"})
    gone = hospital.client.delete(where)
    again = hospital.client.post("/Procedure", json={key: ours[key] for key in ours if key not in ("id", "meta")})
    assert (changed.status_code, gone.status_code, again.status_code) == (403, 403, 409)
    for refused in (changed, gone, again):
        assert refused.json()["issue"][0]["diagnostics"]
    assert hospital.made("Procedure", ordered.uid)["status"] == "in-progress"


def test_a_study_of_the_ehr_is_told_in_place_of_a_second_one(hospital: Hospital) -> None:
    ordered = hospital.order()
    modality: Any = {"system": "http://dicom.nema.org/resources/ontology/DCM", "code": "CT"}
    theirs = {
        "resourceType": "ImagingStudy", "id": f"st{ordered.order.number}", "status": "registered",
        "identifier": [{"system": "urn:dicom:uid", "value": f"urn:oid:{ordered.study}"}],
        "subject": {"reference": f"Patient/{ordered.order.person.patient_id}"},
        "modality": [{"coding": [modality]} if hospital.release is Release.R5 else modality],
    }  # fmt: skip
    assert hospital.client.put(f"/ImagingStudy/{theirs['id']}", json=theirs).status_code == 201
    ordered.start()
    found = hospital.made("ImagingStudy", ordered.study)
    assert (found["id"], "started" in found) == (theirs["id"], True)


def test_a_client_subscribes_and_is_told(hospital: Hospital) -> None:
    base = str(hospital.client.base_url).rstrip("/")
    with receiving(lambda _: (200, None)) as hook:
        said = subscription(hospital.release, f"{base}/SubscriptionTopic/order-started", hook.url)
        wrong = hospital.client.post("/Subscription", json={**said, **_elsewhere(said)})
        assert wrong.status_code == 422
        made = hospital.client.post("/Subscription", json=said)
        assert made.status_code == 201, made.text
        where = f"/Subscription/{made.json()['id']}"
        until(lambda: hospital.client.get(where).json()["status"] == "active")
        ordered = hospital.order()
        ordered.start()
        until(lambda: len(hook.asked) == 2)
        event = hook.asked[1].body
        check(event, hospital.release)
        assert event["entry"][1]["fullUrl"] == f"{base}/ServiceRequest/o{ordered.order.number}"
        state = hospital.client.get(f"{where}/$status")
        events = hospital.client.get(f"{where}/$events", params={"eventsSinceNumber": 1})
        assert (state.status_code, events.status_code) == (200, 200)
        check(events.json(), hospital.release)
        assert len(events.json()["entry"]) == 2
        assert hospital.client.delete(where).status_code in (200, 204)
        hospital.order().start()
        assert hospital.client.get(f"{where}/$status").status_code == 404
        assert len(hook.asked) == 2


def subscription(release: Release, topic: str, endpoint: str) -> dict[str, Any]:
    if release is Release.R5:
        return {
            "resourceType": "Subscription", "status": "requested", "topic": topic, "endpoint": f"{endpoint}/hook",
            "channelType": {"code": "rest-hook"}, "content": "id-only",
        }  # fmt: skip
    content = "http://hl7.org/fhir/uv/subscriptions-backport/StructureDefinition/backport-payload-content"
    return {
        "resourceType": "Subscription", "status": "requested", "reason": "to know", "criteria": topic,
        "channel": {
            "type": "rest-hook", "endpoint": f"{endpoint}/hook", "payload": "application/fhir+json",
            "_payload": {"extension": [{"url": content, "valueCode": "id-only"}]},
        },
    }  # fmt: skip


def _elsewhere(said: dict[str, Any]) -> dict[str, Any]:
    """The same to an address that others can listen to."""
    if "channel" in said:
        return {"channel": {**said["channel"], "endpoint": "http://ehr.example/hook"}}
    return {"endpoint": "http://ehr.example/hook"}


def test_topics_are_said_where_each_release_says_them(hospital: Hospital) -> None:
    stated = hospital.client.get("/metadata").json()["rest"][0]["resource"]
    (said,) = [each for each in stated if each["type"] == "Subscription"]
    assert {each["name"] for each in said["operation"]} == {"validate", "status", "events"}
    topics = hospital.client.get("/SubscriptionTopic")
    if hospital.release is Release.R4:
        assert any(each["valueCanonical"].endswith("/order-started") for each in said["extension"])
        assert topics.status_code == 404
    else:
        assert "order-started" in {each["resource"]["id"] for each in topics.json()["entry"]}
        assert hospital.client.delete("/SubscriptionTopic/order-started").status_code == 403
