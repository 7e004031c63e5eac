"""HL7 v2 and FHIR on one store, with modalities beside them: what comes by one way is known by the other."""

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydicom.dataset import Dataset

from gateway.testing import (
    ImagingOrder,
    ServiceProcess,
    SimulatedModality,
    SimulatedRIS,
    cancel,
    invented_person,
    merge_patients,
    omi,
    site,
)
from tests.fhir_department import ISSUERS, JSON, patient, request, task, transaction, whole

START = datetime.now().replace(hour=9, minute=30, second=0, microsecond=0) + timedelta(days=1)
PATIENCE_S = 60
_numbers = count(1)


class Department:
    """A running gateway and its neighbours: the RIS, the EHR and a CT."""

    def __init__(self, service: ServiceProcess) -> None:
        self.service = service
        self.ris = SimulatedRIS(service.host, service.hl7_port, timeout_s=PATIENCE_S)
        self.modality = SimulatedModality(service.host, service.dicom_port)
        self.ehr = httpx.Client(
            base_url=f"http://{service.host}:{service.http_port}/fhir", headers=JSON, timeout=PATIENCE_S
        )

    def close(self) -> None:
        self.ris.close()
        self.ehr.close()

    def order(self) -> ImagingOrder:
        """One that nobody has ordered yet, for a patient of its own."""
        number = next(_numbers)
        return ImagingOrder(number, invented_person(number), START)

    def by_hl7(self, order: ImagingOrder) -> None:
        answer = self.ris.send(omi(order))
        assert answer.code == "AA", answer.errors

    def by_fhir(self, order: ImagingOrder) -> None:
        self.said(whole(order))

    def said(self, bundle: Any, status: int = 200) -> httpx.Response:
        answer = self.ehr.post("/", json=bundle)
        assert answer.status_code == status, answer.text
        return answer

    def items(self, order: ImagingOrder) -> list[Dataset]:
        return self.modality.worklist(AccessionNumber=order.accession)

    def item(self, order: ImagingOrder) -> Dataset:
        (found,) = self.items(order)
        return found

    def status(self, name: str) -> str:
        return str(self.held(name)["status"])

    def held(self, name: str) -> dict[str, Any]:
        answer = self.ehr.get(f"/{name}")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def found(self, query: str) -> list[dict[str, Any]]:
        answer = self.ehr.get(f"/{query}")
        assert answer.status_code == 200, answer.text
        return [each["resource"] for each in answer.json().get("entry", ())]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    with ServiceProcess(site(tmp_path_factory.mktemp("site"), fhir={}, issuers=ISSUERS), ready_s=120) as running:
        yield running


@pytest.fixture
def department(service: ServiceProcess) -> Iterator[Department]:
    with closing(Department(service)) as made:
        yield made


def _keys(item: Dataset) -> tuple[str, ...]:
    step = item.ScheduledProcedureStepSequence[0]
    return (
        item.AccessionNumber, item.RequestedProcedureID, step.ScheduledProcedureStepID, item.PatientID,
        str(item.PatientName), step.Modality, step.ScheduledStationAETitle, step.ScheduledProcedureStepStartTime[:6],
    )  # fmt: skip


@pytest.mark.parametrize("first", ["hl7", "fhir"])
def test_the_same_order_by_hl7_and_by_fhir_is_one_item(department: Department, first: str) -> None:
    order = department.order()
    ways = [department.by_hl7, department.by_fhir]
    for way in ways if first == "hl7" else reversed(ways):
        way(order)
    item = department.item(order)
    assert _keys(item) == (
        order.accession, order.requested_procedure_id, order.sps_id, order.person.patient_id, order.person.name, "CT",
        "CT1", "093000",
    )  # fmt: skip
    department.modality.start(item)
    assert [department.status(f"{each}{order.number}") for each in ("ServiceRequest/o", "Task/t")] == [
        "active", "in-progress"
    ]  # fmt: skip


@pytest.mark.parametrize("first", ["hl7", "fhir"])
def test_an_order_of_one_is_cancelled_by_the_other(department: Department, first: str) -> None:
    order = department.order()
    if first == "hl7":
        department.by_hl7(order)
        assert department.items(order)
        department.said(transaction(patient(order.person), request(order, status="revoked")))
    else:
        department.by_fhir(order)
        assert department.items(order)
        assert department.ris.send(cancel(order)).code == "AA"
        assert department.status(f"ServiceRequest/o{order.number}") == "revoked"
        assert department.status(f"Task/t{order.number}") == "cancelled"
    assert department.items(order) == []


def test_a_cancel_by_hl7_that_comes_before_the_order_by_fhir_acts_when_that_comes(department: Department) -> None:
    order = department.order()
    assert department.ris.send(cancel(order)).code == "AE"  # nobody knows it; what was said is kept
    department.by_fhir(order)
    assert department.items(order) == []


def test_what_fhir_says_of_an_order_before_its_patient_acts_after_a_restart(tmp_path: Path) -> None:
    with ServiceProcess(site(tmp_path, fhir={}, issuers=ISSUERS), ready_s=120) as running:
        with closing(Department(running)) as department:
            order = department.order()
            department.said(transaction(request(order), task(order)))
            assert department.items(order) == []
            running.restart()
        with closing(Department(running)) as department:
            department.said(transaction(patient(order.person)))
            uid = department.modality.start(department.item(order))
            running.kill()
            running.start()
        with closing(Department(running)) as department:
            assert department.status(f"Task/t{order.number}") == "in-progress"
            department.by_hl7(order)
            department.modality.complete(uid)
            assert department.status(f"ServiceRequest/o{order.number}") == "completed"
            assert department.status(f"Task/t{order.number}") == "completed"


@pytest.mark.parametrize("way", ["ADT^A40", "Patient.link"])
def test_orders_of_both_follow_a_merge_by_either(department: Department, way: str) -> None:
    by_hl7, by_fhir = department.order(), department.order()
    by_fhir = replace(by_fhir, person=by_hl7.person)
    department.by_hl7(by_hl7)
    department.by_fhir(by_fhir)
    prior, surviving = by_hl7.person, department.order().person
    if way == "ADT^A40":
        assert department.ris.send(merge_patients(surviving, prior)).code == "AA"
    else:
        link = [{"type": "replaced-by", "other": {"reference": f"Patient/{surviving.patient_id}"}}]
        department.said(transaction(patient(surviving), patient(prior, active=False, link=link)))
    for order in (by_hl7, by_fhir):
        item = department.item(order)
        assert (item.PatientID, str(item.PatientName)) == (surviving.patient_id, surviving.name)


def test_what_a_modality_does_is_read_by_fhir(department: Department) -> None:
    order = department.order()
    department.by_fhir(order)
    study = department.item(order).StudyInstanceUID
    uid = department.modality.start(department.item(order))
    names = f"ServiceRequest/o{order.number}", f"Task/t{order.number}"
    assert [department.status(name) for name in names] == ["active", "in-progress"]
    department.modality.complete(uid)
    assert [department.status(name) for name in names] == ["completed", "completed"]
    (procedure,) = department.found(f"Procedure?based-on={names[0]}")
    assert procedure["status"] == "completed"
    (found,) = department.found(f"ImagingStudy?identifier=urn:dicom:uid|urn:oid:{study}")
    assert (found["status"], found["basedOn"]) == ("available", [{"reference": names[0]}])
    assert len(department.found(f"Provenance?target=Procedure/{procedure['id']}")) == 2
    assert department.items(order) == []


def test_an_order_typed_by_hl7_and_scheduled_by_fhir_has_the_time_of_the_task(department: Department) -> None:
    order = department.order()
    department.by_hl7(order)
    later = order.moved(order.start + timedelta(hours=2))
    department.by_fhir(later)
    assert department.item(order).ScheduledProcedureStepSequence[0].ScheduledProcedureStepStartTime[:6] == "113000"
