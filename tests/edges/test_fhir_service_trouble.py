"""Our FHIR server as a process when things go wrong: no room, a locked store; and its logs, which know no patients."""

import resource
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import date

import httpx
import pytest
from test_fhir_road import Department

from gateway.testing import ImagingOrder, Person, ServiceProcess, site
from tests.fhir_department import ISSUERS, PATIENTS, patient, request, task, transaction, whole

MARKED = Person("MARKID7731", "Markedfamily^Markedgiven", date(1951, 3, 4), "F")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    with ServiceProcess(site(tmp_path_factory.mktemp("site"), fhir={}, issuers=ISSUERS), ready_s=120) as running:
        yield running


@pytest.fixture
def department(service: ServiceProcess) -> Iterator[Department]:
    with closing(Department(service)) as made:
        yield made


def _is_asked_to_come_again(answer: httpx.Response) -> None:
    assert answer.status_code == 503, answer.text
    assert int(answer.headers["retry-after"]) > 0
    (issue,) = answer.json()["issue"]
    assert (answer.json()["resourceType"], issue["severity"], issue["code"]) == (
        "OperationOutcome", "error", "transient"
    )  # fmt: skip


def _transient(department: Department) -> float:
    service = department.service
    metrics = httpx.get(f"http://{service.host}:{service.http_port}/metrics").text
    (line,) = [line for line in metrics.splitlines() if line.startswith("gateway_transient_failures_total ")]
    return float(line.split()[1])


def test_while_another_program_holds_the_database_senders_are_told_to_come_again(department: Department) -> None:
    held, order = department.order(), department.order()
    department.by_fhir(held)
    before = _transient(department)
    with closing(sqlite3.connect(department.service.config.with_name("gateway.db"), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        _is_asked_to_come_again(department.ehr.post("/", json=whole(order)))
        assert _transient(department) == before + 1
        several = {**whole(order), "type": "batch"}
        answers = department.said(several).json()["entry"]
        assert [each["response"]["status"][:3] for each in answers] == ["503"] * 3
        assert _transient(department) == before + 4
        assert department.status(f"ServiceRequest/o{held.number}") == "active"  # reading goes on
        other.execute("ROLLBACK")
    department.by_fhir(order)
    assert department.items(order)


def test_on_a_full_disk_nothing_is_taken_reading_goes_on_and_it_recovers(department: Department) -> None:
    held, orders = department.order(), [department.order() for _ in range(5)]
    department.by_fhir(held)
    # No file of the service may be written beyond its first kilobyte: to the database, a disk without room.
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    resource.prlimit(department.service.pid, resource.RLIMIT_FSIZE, (1024, resource.RLIM_INFINITY))
    try:
        for order in orders:
            _is_asked_to_come_again(department.ehr.post("/", json=whole(order)))
        _is_asked_to_come_again(department.ehr.post("/Patient", json={"resourceType": "Patient", "gender": "unheard"}))
        assert department.status(f"ServiceRequest/o{held.number}") == "active"
    finally:
        resource.prlimit(department.service.pid, resource.RLIMIT_FSIZE, unlimited)
    assert not any(department.items(order) for order in orders)
    department.by_fhir(orders[0])
    assert department.items(orders[0])


def test_no_patient_data_reaches_the_logs_or_metrics(department: Department) -> None:
    template = department.order()
    order = ImagingOrder(template.number, MARKED, template.start)
    person = patient(MARKED)
    department.said(transaction(person, request(order), task(order)))
    department.said(transaction(request(order, code={"text": "Markedcode"})))
    assert department.ehr.post("/", json={**transaction(person), "type": "Markedtype"}).is_client_error
    for wrong in (
        {"gender": "Markedgender"}, {"birthDate": "1951-99-99Markedfamily"}, {"name": "Markedfamily"},
        {"Markedelement": "Markedfamily"}, {"multipleBirthInteger": "Markedfamily"},
        {"managingOrganization": {"reference": "Markedfamily/MARKID7731"}},
        {"modifierExtension": [{"url": "http://marked.example/Markedfamily", "valueString": "Markedgiven"}]},
    ):  # fmt: skip
        assert department.ehr.put(f"/Patient/{MARKED.patient_id}", json={**person, **wrong}).is_client_error
    for body in (b'{"resourceType": "Patient", "id": "MARKID7731", Markedfamily', b"Markedfamily \xff"):
        assert department.ehr.post("/Patient", content=body).is_client_error
    said = {"Content-Type": "application/fhir+xml"}
    assert department.ehr.post("/Patient", content=b"<Patient><Markedfamily></Patient>", headers=said).is_client_error
    for query in (
        f"Patient?identifier={PATIENTS}|MARKID7731", "Patient?name=Markedfamily", "Patient?birthdate=1951-03-04",
        "Patient?birthdate=Markedfamily", "Patient?Markedparameter=Markedfamily", "Patient/MARKID7731",
        "Markedtype/MARKID7731", "Patient/MARKID7731/_history/Markedfamily", "Patient/Marked%20family",
        f"Patient?_content={'Markedfamily' * 2000}",
    ):  # fmt: skip
        department.ehr.get(f"/{query}")
    identifier = f"{PATIENTS}|MARKID7731"
    department.ehr.put("/Patient", params={"identifier": identifier}, json={**person, "id": "other"})
    department.ehr.delete("/Patient", params={"identifier": identifier})
    department.ehr.delete("/Patient/MARKID7731")
    department.modality.complete(department.modality.start(department.item(order)))
    for key in ({"Authorization": "Basic Markedfamily"}, {"X-Api-Key": "Markedfamily"}):
        assert department.ehr.get("/Patient/MARKID7731", headers=key).is_client_error
    service = department.service
    metrics = httpx.get(f"http://{service.host}:{service.http_port}/metrics").text
    service.restart()  # what is to be logged is, then
    told = service.output.read_text() + metrics
    for mark in ("Marked", "MARKID", "1951", order.accession, order.placer):
        assert mark not in told, mark


def test_a_defect_would_be_told_without_what_was_asked(department: Department) -> None:
    """A store that goes away under the service is no defect of a request, and says nothing of it either."""
    order = department.order()
    path = department.service.config.with_name("gateway.db")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("ALTER TABLE resources RENAME TO resources_away")
        try:
            answer = department.ehr.post("/", json=whole(ImagingOrder(order.number, MARKED, order.start)))
        finally:
            other.execute("ALTER TABLE resources_away RENAME TO resources")
    assert answer.is_server_error
    assert "Marked" not in answer.text
    assert "Marked" not in department.service.output.read_text()
    department.by_fhir(order)
