"""The service as a process: readiness, metrics, reload, who may call, and logs without patients."""

import asyncio
import json
import os
import resource
import signal
import socket
import sqlite3
import time
import urllib.error
import urllib.request
from contextlib import closing
from datetime import UTC, date, datetime, timedelta

import pytest
from ruamel.yaml import YAML
from structlog.testing import capture_logs

from gateway.config import load_site
from gateway.edges.store import read_only
from gateway.service import Service
from gateway.testing import (
    ImagingOrder,
    Person,
    ServiceProcess,
    SimulatedModality,
    SimulatedRIS,
    StatusError,
    bare_orm,
    invented_person,
    merge_patients,
    rad4_orm,
    register,
    site,
)
from gateway.wire.mllp import wrap

START = datetime.now().replace(hour=9, minute=30, second=0, microsecond=0) + timedelta(days=1)
MARKED = Person("MARKID7731", "Markedfamily^Markedgiven", date(1951, 3, 4), "F")


def order(number, person=None, **changes):
    return ImagingOrder(number, person or invented_person(number), START, **changes)


def get(service, path):
    with urllib.request.urlopen(f"http://{service.host}:{service.http_port}{path}") as answer:
        return answer.read().decode()


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    (folder / "devices.yaml").write_text("devices: [{ae_title: US1, sees: own}, {ae_title: CT1}]\n")
    hl7 = {"uncovered": "hold", "name": "ris", "host": "127.0.0.1", "port": 0, "mapping": "ihe-swf"}
    config = site(folder, devices={"file": "devices.yaml", "unknown": "reject"})
    settings = YAML(typ="safe").load(config.read_text())
    settings["hl7"][0] |= {"uncovered": hl7["uncovered"]}
    mappings = folder / "mappings"
    mappings.symlink_to(settings["mappings"])
    settings["mappings"] = "mappings"
    with config.open("w") as file:
        YAML().dump(settings, file)
    with ServiceProcess(config) as running:
        yield running


@pytest.fixture
def ris(service):
    with SimulatedRIS(service.host, service.hl7_port, f"R{os.urandom(3).hex()}") as sender:
        yield sender


def modality(service, ae_title):
    return SimulatedModality(service.host, service.dicom_port, ae_title)


def test_it_says_that_it_is_alive_and_ready(service):
    assert json.loads(get(service, "/health/live")) == {"status": "alive"}
    assert json.loads(get(service, "/health/ready")) == {"status": "ready"}


def test_it_counts_messages_requests_and_rows(service, ris):
    ris.send(rad4_orm(order(1001)))
    modality(service, "CT1").worklist()
    exposed = get(service, "/metrics")
    assert 'gateway_hl7_messages_total{disposition="accepted",listener="ris"}' in exposed
    assert 'gateway_dimse_requests_total{operation="C-FIND",status="0000"}' in exposed
    assert 'gateway_store_rows{what="listed_steps"}' in exposed


def test_a_device_that_is_not_registered_is_rejected(service):
    with pytest.raises(ConnectionError):
        modality(service, "STRANGER").echo()


def test_a_device_may_be_shown_only_its_own_steps(service, ris):
    ris.send(rad4_orm(order(1002, station="US1", modality="US")))
    ris.send(rad4_orm(order(1003, station="CT1")))
    own = modality(service, "US1").worklist()
    assert {item.ScheduledProcedureStepSequence[0].ScheduledStationAETitle for item in own} == {"US1"}
    assert modality(service, "US1").worklist(ScheduledStationAETitle="CT1") == []
    everything = modality(service, "CT1").worklist()
    assert {"A000001002", "A000001003"} <= {item.AccessionNumber for item in everything}


def test_an_own_only_device_sees_a_step_that_may_be_done_on_several_stations(service, ris):
    ris.send(bare_orm(order(1004, code="CTABD")))
    seen = modality(service, "CT1").worklist(ScheduledStationAETitle="CT2")
    assert any("CT1" in item.ScheduledProcedureStepSequence[0].ScheduledStationAETitle for item in seen)


def test_a_reload_brings_new_procedure_rules_and_releases_what_was_held(service, ris):
    assert "held" in ris.send(bare_orm(order(1005, code="BRANDNEW"))).text
    mappings = service.config.parent / "mappings"
    shipped = mappings.resolve()
    mappings.unlink()
    mappings.mkdir()
    for entry in shipped.iterdir():
        (mappings / entry.name).symlink_to(entry)
    catalogue = mappings / "procedures.csv"
    rows = catalogue.read_text()
    catalogue.unlink()
    catalogue.write_text(rows.rstrip("\n") + "\nBRANDNEW,99PROC,New,CT,,,,,CT1,,,\n")
    os.kill(service.pid, signal.SIGHUP)
    _until(lambda: "held_messages_released" in service.output.read_text(), service)
    found = modality(service, "CT1").worklist(PatientID=invented_person(1005).patient_id)
    assert len(found) == 1


def test_a_reload_with_a_mistake_changes_nothing_and_says_so(service, ris):
    devices = service.config.parent / "devices.yaml"
    before = devices.read_text()
    devices.write_text("devices: [{ae_title: CT1, colour: red}]\n")
    try:
        os.kill(service.pid, signal.SIGHUP)
        _until(lambda: "reload_refused" in service.output.read_text(), service)
        modality(service, "US1").echo()
    finally:
        devices.write_text(before)


def test_no_patient_data_reaches_the_logs_or_metrics(service, ris):
    ris.send(register(MARKED))
    ris.send(rad4_orm(order(1006, MARKED)))
    ris.send(bare_orm(order(1007, MARKED, code="NOSUCH")))
    ris.send(rad4_orm(order(1006, invented_person(5))))
    ris.send(merge_patients(invented_person(9), MARKED))
    broken = register(MARKED).message("B1", datetime.now(UTC))
    ris.send_raw(broken.replace(b"19510304", b"1951-99-99Markedfamily"))
    ris.send_raw(b"MSH|^~\\&|RIS|RADX PID|1||||Markedfamily^Markedgiven|MARKID7731\r")  # the line end got lost
    with closing(socket.create_connection((service.host, service.hl7_port))) as rude:
        rude.sendall(b"Markedfamily MARKID7731 outside a frame" + wrap(b"MSH|Markedfamily"))
        rude.recv(4096)
    scanner = modality(service, "CT1")
    scanner.worklist(PatientName="Markedfamily*", PatientID="MARKID7731")
    with pytest.warns(UserWarning, match="Invalid value"), pytest.raises(StatusError, match="A900"):
        scanner.worklist(PatientBirthDate="Markedfamily")
    (item,) = scanner.worklist(AccessionNumber="A000001006")
    item.PatientID, item.PatientName = "MARKID7731", "Markedfamily^Markedgiven"
    scanner.complete(scanner.start(item))
    ris.send(register(invented_person(5)), "LASTONE")
    _until(lambda: "LASTONE" in service.output.read_text(), service)
    told = service.output.read_text() + get(service, "/metrics")
    for mark in ("Marked", "MARKID", "19510304", "A000001006"):
        assert mark not in told


def test_while_another_program_holds_the_database_senders_are_told_to_come_again(service, ris):
    ris.send(rad4_orm(order(1009)))
    with closing(sqlite3.connect(service.config.with_name("gateway.db"), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        answer = ris.send(rad4_orm(order(1008)))
        assert answer.code == "AR"
        with pytest.raises(urllib.error.HTTPError, match="503"):
            get(service, "/health/ready")
        assert modality(service, "CT1").worklist(AccessionNumber="A000001009")  # reading goes on
        other.execute("ROLLBACK")
    assert ris.send(rad4_orm(order(1008))).code == "AA"
    assert json.loads(get(service, "/health/ready")) == {"status": "ready"}


def test_on_a_full_disk_nothing_is_acknowledged_queries_go_on_and_it_recovers(service, ris):
    ris.send(rad4_orm(order(1010)))
    scanner = modality(service, "CT1")
    (item,) = scanner.worklist(AccessionNumber="A000001010")
    # No file of the service may be written beyond its first kilobyte: to the database, a disk without room. Also the
    # log cannot be written, and nobody may notice.
    resource.prlimit(service.pid, resource.RLIMIT_FSIZE, (1024, resource.RLIM_INFINITY))
    try:
        answers = [ris.send(rad4_orm(order(number))) for number in range(2000, 2010)]
        assert {answer.code for answer in answers} == {"AR"}
        with pytest.raises(StatusError, match="0213"):
            scanner.start(item)
        assert scanner.worklist(AccessionNumber="A000001010")
    finally:
        resource.prlimit(service.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    listed = {found.AccessionNumber for found in scanner.worklist()}
    assert listed.isdisjoint(f"A{number:09}" for number in range(2000, 2010))
    assert ris.send(rad4_orm(order(2000))).code == "AA"
    assert scanner.worklist(AccessionNumber="A000002000")
    scanner.complete(scanner.start(item))


def test_a_reload_takes_new_rules_and_says_which_settings_need_a_restart(service):
    settings = YAML(typ="safe").load(service.config.read_text())
    before = service.config.read_text()
    changed = settings | {"workers": 3, "queries": {"per_device": 5}, "expiry": {"after_days": 9}}
    with service.config.open("w") as file:
        YAML().dump(changed, file)
    try:
        os.kill(service.pid, signal.SIGHUP)
        _until(lambda: "reload_needs_restart" in service.output.read_text(), service)
        (line,) = [line for line in service.output.read_text().splitlines() if "reload_needs_restart" in line]
        assert json.loads(line)["settings"] == ["expiry", "workers"]
    finally:
        service.config.write_text(before)


def test_what_needs_a_restart_stays_as_it_was_until_then(tmp_path):
    config = site(tmp_path, dicom={"host": "192.0.2.1"}, devices={"unknown": "reject"})
    settings = YAML(typ="safe").load(config.read_text())
    # Nobody says any more who may call: that goes by the address, which is still one that all can reach.
    changed = {"timezone": "Pacific/Kiritimati", "devices": {}, "dicom": settings["dicom"] | {"host": "127.0.0.1"}}

    async def scene():
        service = Service(load_site(config))
        with config.open("w") as file:
            YAML().dump(settings | changed, file)
        with capture_logs() as said:
            await service.reload()
        service.store.close()
        return service.site, said

    reloaded, said = asyncio.run(scene())
    assert said[0]["settings"] == ["dicom", "timezone"]
    assert (reloaded.zone.key, reloaded.settings.dicom.host) == ("Europe/Berlin", "192.0.2.1")
    assert not reloaded.devices.accept_unknown


def test_a_query_is_kept_with_its_outcome(service):
    modality(service, "US1").worklist(PatientID="NOBODY")
    kept = read_only(f"sqlite:///{service.config.with_name('gateway.db')}")

    def mine():
        return [query.record for query in kept.queries("US1") if b"NOBODY" in query.record.identifier]

    _until(mine, service)
    (record,) = mine()
    assert (record.status, record.matches, record.called_ae_title) == (0, 0, "GATEWAY")


def test_it_ends_cleanly_on_sigterm(tmp_path):
    service = ServiceProcess(site(tmp_path)).start()
    service.stop()
    assert "Traceback" not in service.output.read_text()


def _until(condition, service):
    """Another process cannot be awaited, only asked; it answers in a second or never."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if condition():
            return
        get(service, "/health/live")
    raise AssertionError(service.output.read_text()[-2000:])
