"""MPPS Retrieve over real associations: what was reported is had back, in one process and in several."""

import asyncio
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, generate_uid
from pynetdicom import AE
from ruamel.yaml import YAML

from gateway.answering import Answering
from gateway.config import load_site
from gateway.domain.devices import Devices
from gateway.edges.database import StoreUnavailable
from gateway.edges.dimse_server import Association
from gateway.edges.store import Store
from gateway.testing import (
    ImagingOrder,
    ServiceProcess,
    SimulatedModality,
    SimulatedRIS,
    invented_person,
    rad4_orm,
    site,
)
from gateway.testing.modality import final_state, performed_step
from gateway.testing.process import free_port
from gateway.wire.dicom_json import EXPLICIT_VR_LITTLE_ENDIAN
from gateway.wire.upper_layer import MPPS, MPPS_RETRIEVE
from gateway.workflow.query import Worklist

START = datetime.now().replace(hour=9, minute=30, second=0, microsecond=0) + timedelta(days=1)
ENOUGH = 20  # associations of which, by the system's choice, all go to the same of two workers once in 500,000 times

NORTH, SOUTH = 1, 2
"""Numbers of the orders of two sites."""

DEVICES = """
devices:
  - {ae_title: CT1}
  - {ae_title: NORTH_CT, sites: [NORTH]}
  - {ae_title: SOUTH_CT, sites: [SOUTH]}
"""


def two_sites(folder: Path, workers: int) -> ServiceProcess:
    (folder / "devices.yaml").write_text(DEVICES)
    listeners = [
        {"name": name.lower(), "host": "127.0.0.1", "port": free_port(), "mapping": "ihe-swf", "site": name}
        for name in ("NORTH", "SOUTH")
    ]
    devices = {"file": "devices.yaml", "unknown": "reject"}
    return ServiceProcess(site(folder, hl7=listeners, devices=devices, workers=workers))


@pytest.fixture(
    scope="module",
    params=[0, pytest.param(2, marks=pytest.mark.skipif(sys.platform != "linux", reason="workers need SO_REUSEPORT"))],
    ids=["one process", "workers"],
)
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    with two_sites(tmp_path_factory.mktemp("site"), request.param) as running:
        ports = [each["port"] for each in YAML(typ="safe").load(running.config.read_text())["hl7"]]
        for number, port in zip((NORTH, SOUTH), ports, strict=True):
            with SimulatedRIS(running.host, port, f"R{number}") as ris:
                order = ImagingOrder(number, invented_person(number), START)
                assert ris.send(rad4_orm(order)).code == "AA"
        yield running


def modality(service: ServiceProcess, ae_title: str = "CT1") -> SimulatedModality:
    return SimulatedModality(service.host, service.dicom_port, ae_title)


def get(
    service: ServiceProcess,
    uid: str,
    *keywords: str,
    caller: str = "CT1",
    syntax: str = ExplicitVRLittleEndian,
    sop_class: str = MPPS_RETRIEVE,
) -> tuple[Dataset, Dataset | None]:
    """Status and attributes that an N-GET in an association of its own is answered with."""
    ae = AE(caller)
    ae.add_requested_context(MPPS_RETRIEVE, syntax)
    association = ae.associate(service.host, service.dicom_port, ae_title="GATEWAY")
    assert association.is_established
    try:
        tags = [Tag(keyword) for keyword in keywords]
        status, found = association.send_n_get(tags, sop_class, uid, meta_uid=MPPS_RETRIEVE)
    finally:
        association.release()
    return status, found


@cache
def listed(service: ServiceProcess, number: int) -> Dataset:
    """The item of one of the orders, as it was listed before anything was performed for it."""
    (item,) = modality(service).worklist(AccessionNumber=f"A{number:09}")
    return item


def begun(service: ServiceProcess, number: int = NORTH, caller: str = "CT1") -> tuple[str, Dataset]:
    """A performed step for one of the orders, and what was sent of it."""
    sent = performed_step(listed(service, number), caller, START)
    uid = str(generate_uid())
    assert modality(service, caller).create(uid, sent) == 0
    return uid, sent


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian], ids=["implicit", "explicit"])
def test_all_attributes_come_back_as_they_were_sent(service: ServiceProcess, syntax: str) -> None:
    uid, sent = begun(service)
    status, found = get(service, uid, syntax=syntax)
    assert (status.Status, found) == (0x0000, sent)
    end = final_state("COMPLETED", START)
    modality(service).set(uid, end)
    sent.update(end)
    status, found = get(service, uid, syntax=syntax)
    assert (status.Status, found) == (0x0000, sent)


def test_what_is_set_is_had_at_once_from_whichever_process_answers(service: ServiceProcess) -> None:
    uid, _ = begun(service)
    for number in range(ENOUGH):
        change = Dataset()
        change.PerformedProcedureStepDescription = f"part {number}"
        modality(service).set(uid, change)
        found = get(service, uid, "PerformedProcedureStepDescription")[1]
        assert found is not None
        assert found.PerformedProcedureStepDescription == f"part {number}"


def test_only_what_is_asked_for_comes_in_a_character_set_that_holds_it(service: ServiceProcess) -> None:
    item = listed(service, NORTH)
    sent = performed_step(item, "CT1", START)
    sent.SpecificCharacterSet = "ISO_IR 100"
    sent.PerformedProcedureStepDescription = "Schädel nativ"
    uid = str(generate_uid())
    modality(service).create(uid, sent)
    status, found = get(service, uid, "PerformedProcedureStepDescription", "Modality")
    assert status.Status == 0x0000
    assert found is not None
    assert (found.SpecificCharacterSet, found.PerformedProcedureStepDescription) == ("ISO_IR 100", "Schädel nativ")
    assert [element.keyword for element in found] == [
        "SpecificCharacterSet", "Modality", "PerformedProcedureStepDescription",
    ]  # fmt: skip
    change = Dataset()
    change.SpecificCharacterSet, change.PerformedProcedureStepDescription = "ISO_IR 192", "Schädel Γ山"
    modality(service).set(uid, change)
    _, found = get(service, uid, "PerformedProcedureStepDescription", syntax=ImplicitVRLittleEndian)
    assert found is not None
    assert (found.SpecificCharacterSet, found.PerformedProcedureStepDescription) == ("ISO_IR 192", "Schädel Γ山")
    _, found = get(service, uid, "Modality")
    assert found is not None
    assert "SpecificCharacterSet" not in found


def test_attributes_that_are_not_there_are_a_warning(service: ServiceProcess) -> None:
    uid, _ = begun(service)
    status, found = get(service, uid, "Modality", "CommentsOnThePerformedProcedureStep")
    assert (status.Status, found) == (0x0001, get(service, uid, "Modality")[1])
    status, found = get(service, uid, "Modality", "SeriesInstanceUID")
    assert (status.Status, found) == (0x0107, get(service, uid, "Modality")[1])
    assert status.AttributeIdentifierList == Tag("SeriesInstanceUID")


def test_what_is_not_held_is_not_there(service: ServiceProcess) -> None:
    status, found = get(service, str(generate_uid()))
    assert (status.Status, found) == (0x0112, None)


@pytest.mark.parametrize(("sop_class", "status"), [(MPPS, 0x0119), ("1.2.840.10008.5.1.4.1.1.2", 0x0118)])
def test_a_class_that_is_not_the_contexts_is_refused(service: ServiceProcess, sop_class: str, status: int) -> None:
    uid, _ = begun(service)
    assert get(service, uid, sop_class=sop_class)[0].Status == status


def test_a_device_of_one_site_does_not_get_the_steps_of_another(service: ServiceProcess) -> None:
    north, sent = begun(service, NORTH)
    south, _ = begun(service, SOUTH)
    assert get(service, north, caller="NORTH_CT") == (get(service, north)[0], sent)
    assert get(service, south, caller="NORTH_CT")[0].Status == 0x0112
    assert get(service, south, caller="SOUTH_CT")[0].Status == 0x0000


def test_a_device_of_one_site_gets_what_it_reported_itself_and_nothing_that_is_of_no_site(
    service: ServiceProcess,
) -> None:
    unscheduled = begun(service, NORTH)[1]
    (reference,) = unscheduled.ScheduledStepAttributesSequence
    reference.StudyInstanceUID = generate_uid()
    reference.AccessionNumber = reference.ScheduledProcedureStepID = ""
    own, others = str(generate_uid()), str(generate_uid())
    modality(service, "NORTH_CT").create(own, unscheduled)
    modality(service, "CT1").create(others, unscheduled)
    assert get(service, own, caller="NORTH_CT")[0].Status == 0x0000
    assert get(service, others, caller="NORTH_CT")[0].Status == 0x0112
    assert get(service, others, caller="CT1")[0].Status == 0x0000


def test_a_step_of_two_sites_is_seen_by_those_who_see_both(service: ServiceProcess) -> None:
    _, sent = begun(service, NORTH)
    item = listed(service, SOUTH)
    sent.ScheduledStepAttributesSequence.extend(performed_step(item, "CT1", START).ScheduledStepAttributesSequence)
    sent.PatientID = ""
    uid = str(generate_uid())
    modality(service).create(uid, sent)
    assert get(service, uid, caller="NORTH_CT")[0].Status == 0x0112
    assert get(service, uid)[0].Status == 0x0000


def test_a_step_of_thousands_of_series_comes_back_whole(service: ServiceProcess) -> None:
    uid, sent = begun(service)
    change = Dataset()
    change.PerformedSeriesSequence = [
        final_state("COMPLETED", START).PerformedSeriesSequence[0] for _ in range(4_000)
    ]  # fmt: skip
    assert modality(service).set(uid, change) == 0
    sent.update(change)
    status, found = get(service, uid)
    assert status.Status == 0x0000
    assert found == sent


def test_who_was_taken_from_the_registry_meanwhile_and_what_cannot_be_read_now_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_site(site(tmp_path))
    with Store(loaded.store_url) as store:
        answering = Answering(loaded, Worklist(store.reader, StoreUnavailable), store.reader, lambda _: None)
        caller = Association(1, "CT1", "GATEWAY", "127.0.0.1", "", 0)

        def ask() -> int:
            return asyncio.run(answering.get(caller, EXPLICIT_VR_LITTLE_ENDIAN, "2.25.1", ())).status

        def away(_uid: str) -> None:
            raise StoreUnavailable("the database is locked")

        assert ask() == 0x0112
        monkeypatch.setattr(store.reader, "performed_step", away)
        assert ask() == 0x0213
        answering.site = replace(loaded, devices=Devices())
        assert ask() == 0x0124
