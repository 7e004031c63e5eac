"""An image manager announces images: kept, answered, and the second source of status where no modality reports."""

import asyncio
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, generate_uid
from pynetdicom import AE

from gateway.config import Site, load_site
from gateway.domain.devices import Device
from gateway.edges.database import StoreUnavailable
from gateway.edges.store import Store, read_only
from gateway.edges.store_performed import PerformedRequest
from gateway.processing import READ_AT_ONCE_BYTES, report_availability
from gateway.testing import (
    ImagingOrder,
    ServiceProcess,
    SimulatedModality,
    SimulatedRIS,
    invented_person,
    rad4_orm,
    site,
)
from gateway.wire.dicom_json import EXPLICIT_VR_LITTLE_ENDIAN, attributes_from_dataset, write_attributes
from gateway.wire.dimse import NAnswer
from gateway.wire.upper_layer import INSTANCE_AVAILABILITY
from gateway.workflow.availability import NO_IMAGES, NOT_WANTED
from gateway.workflow.performed_request import PerformRequest
from gateway.workflow.requeue import requeue_performed
from gateway.workflow.second_source import NOT_HELD, REPORTED

START = datetime.now().replace(hour=9, minute=30, second=0, microsecond=0) + timedelta(days=1)


def notification(study: str, *availabilities: str) -> Dataset:
    """What an image manager sends of a study of one series, as table R.3.2-1 has it."""
    series, said = Dataset(), Dataset()
    series.SeriesInstanceUID = generate_uid()
    series.ReferencedSOPSequence = []
    for availability in availabilities or ("ONLINE",):
        instance = Dataset()
        instance.ReferencedSOPClassUID, instance.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", generate_uid()
        instance.InstanceAvailability, instance.RetrieveAETitle = availability, "ARCHIVE"
        series.ReferencedSOPSequence.append(instance)
    said.ReferencedPerformedProcedureStepSequence = []
    said.StudyInstanceUID = study
    said.ReferencedSeriesSequence = [series]
    return said


# Over associations


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    """A gateway whose workers hand to the main process what is to be written, where that can be."""
    workers = 2 if sys.platform == "linux" else 0
    with ServiceProcess(site(tmp_path_factory.mktemp("site"), workers=workers)) as running:
        yield running


def ordered(service: ServiceProcess, number: int) -> ImagingOrder:
    order = ImagingOrder(number, invented_person(number), START)
    with SimulatedRIS(service.host, service.hl7_port, f"R{number}") as ris:
        assert ris.send(rad4_orm(order)).code == "AA"
    return order


def status_of(service: ServiceProcess, order: ImagingOrder) -> str:
    """The step's status on the worklist; '' where it is not listed."""
    modality = SimulatedModality(service.host, service.dicom_port, "CT1")
    items = modality.worklist(AccessionNumber=order.accession)
    return items[0].ScheduledProcedureStepSequence[0].ScheduledProcedureStepStatus if items else ""


def announce(
    service: ServiceProcess, dataset: Dataset | None, uid: str = "", syntax: str = ExplicitVRLittleEndian
) -> tuple[int, str]:
    """The status that an image manager is answered for this notification, and its SOP Instance UID."""
    ae = AE("ARCHIVE")
    ae.add_requested_context(INSTANCE_AVAILABILITY, syntax)
    association = ae.associate(service.host, service.dicom_port, ae_title="GATEWAY")
    assert association.is_established
    uid = uid or str(generate_uid())
    try:
        status, _ = association.send_n_create(dataset, INSTANCE_AVAILABILITY, uid)
    finally:
        association.release()
    return int(status.Status), uid


def archived(service: ServiceProcess, uid: str) -> list[PerformedRequest]:
    return list(read_only(f"sqlite:///{service.config.with_name('gateway.db')}").performed_requests(uid))


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian], ids=["implicit", "explicit"])
def test_a_study_whose_images_are_there_is_done(service: ServiceProcess, syntax: str) -> None:
    order = ordered(service, 1 if syntax == ImplicitVRLittleEndian else 2)
    assert status_of(service, order) == "SCHEDULED"
    status, uid = announce(service, notification(order.study_instance_uid, "ONLINE", "NEARLINE"), syntax=syntax)
    assert status == 0x0000
    assert status_of(service, order) == ""
    (kept,) = archived(service, uid)
    assert (kept.operation, kept.calling_ae_title, kept.status) == ("IAN N-CREATE", "ARCHIVE", 0)
    assert (kept.transfer_syntax, kept.comment) == (syntax, "instances: 1 ONLINE, 1 NEARLINE")


def test_where_the_modality_reports_the_image_manager_changes_nothing(service: ServiceProcess) -> None:
    order = ordered(service, 3)
    modality = SimulatedModality(service.host, service.dicom_port, "CT1")
    (item,) = modality.worklist(AccessionNumber=order.accession)
    performed = modality.start(item, START)
    status, uid = announce(service, notification(order.study_instance_uid))
    assert (status, status_of(service, order)) == (0x0000, "STARTED")
    assert REPORTED in archived(service, uid)[0].comment
    modality.complete(performed, START)
    assert status_of(service, order) == ""


def test_a_repeat_after_a_lost_answer_is_answered_like_the_first(service: ServiceProcess) -> None:
    order = ordered(service, 4)
    dataset, uid = notification(order.study_instance_uid), str(generate_uid())
    assert [announce(service, dataset, uid)[0] for _ in range(2)] == [0x0000, 0x0000]
    assert [each.status for each in archived(service, uid)] == [0, 0]


def test_what_cannot_be_used_is_refused_and_kept(service: ServiceProcess) -> None:
    order = ordered(service, 5)
    nowhere = notification(order.study_instance_uid, "HERE")
    status, uid = announce(service, nowhere)
    assert (status, archived(service, uid)[0].status) == (0x0106, 0x0106)
    assert announce(service, None)[0] == 0x0120
    empty = notification(order.study_instance_uid)
    empty.ReferencedSeriesSequence = []
    assert announce(service, empty)[0] == 0x0121
    assert status_of(service, order) == "SCHEDULED"


# One by one


@pytest.fixture
def place(tmp_path: Path) -> Iterator[tuple[Site, Store]]:
    loaded = load_site(site(tmp_path))
    with Store(loaded.store_url) as store:
        yield loaded, store


def request(dataset: Dataset, uid: str = "2.25.1") -> PerformRequest:
    raw = write_attributes(attributes_from_dataset(dataset), EXPLICIT_VR_LITTLE_ENDIAN, ())
    return PerformRequest(uid, "ARCHIVE", EXPLICIT_VR_LITTLE_ENDIAN, raw)


def report(place: tuple[Site, Store], asked: PerformRequest, caller: Device | None = None) -> NAnswer:
    loaded, store = place
    return asyncio.run(report_availability(store, loaded, asked, caller or Device("ARCHIVE")))


def told(place: tuple[Site, Store], uid: str = "2.25.1") -> str:
    return place[1].reader.performed_requests(uid)[-1].comment


def test_a_study_that_is_not_held_is_noted(place: tuple[Site, Store]) -> None:
    assert report(place, request(notification("2.25.100"))).status == 0x0000
    assert told(place) == f"instances: 1 ONLINE; {NOT_HELD}"


def test_images_that_cannot_be_had_complete_nothing(place: tuple[Site, Store]) -> None:
    assert report(place, request(notification("2.25.100", "UNAVAILABLE"))).status == 0x0000
    assert told(place) == f"instances: 1 UNAVAILABLE; {NO_IMAGES}"


def test_a_site_that_goes_by_mpps_alone_just_keeps_them(place: tuple[Site, Store]) -> None:
    loaded, store = place
    wishes = loaded.settings.performed.model_copy(update={"availability": "ignored"})
    ignoring = replace(loaded, settings=loaded.settings.model_copy(update={"performed": wishes}))
    assert report((ignoring, store), request(notification("2.25.100"))).status == 0x0000
    assert told(place) == f"instances: 1 ONLINE; {NOT_WANTED}"


def test_a_strict_sender_is_held_to_the_whole_table(place: tuple[Site, Store]) -> None:
    lax = notification("2.25.100")
    del lax.ReferencedPerformedProcedureStepSequence
    assert report(place, request(lax)).status == 0x0000
    answer = report(place, request(lax), Device("ARCHIVE", mpps_strict=True))
    assert (answer.status, answer.attribute_tags) == (0x0120, (0x00081111,))


def test_a_large_notification_is_read_outside_the_loop(place: tuple[Site, Store]) -> None:
    asked = request(notification("2.25.100", *["ONLINE"] * 2_000))
    assert len(asked.raw) > READ_AT_ONCE_BYTES
    assert report(place, asked).status == 0x0000
    assert told(place).startswith("instances: 2000 ONLINE")


def test_a_notification_needs_a_uid_of_its_own(place: tuple[Site, Store]) -> None:
    assert report(place, request(notification("2.25.100"), "")).status == 0x0117
    assert report(place, request(notification("2.25.100"), "no uid")).status == 0x0117


def test_nothing_is_claimed_that_could_not_be_stored(
    place: tuple[Site, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(_use_case: object) -> None:
        raise StoreUnavailable("the disk is full")

    monkeypatch.setattr(place[1], "written", away)
    assert report(place, request(notification("2.25.100"))).status == 0x0213
    assert place[1].reader.performed_requests("2.25.1") == []


def test_what_a_defect_undid_is_kept_with_the_answer(
    place: tuple[Site, Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr("gateway.workflow.availability.complete_study", broken)
    asked = request(notification("2.25.100"))
    assert report(place, asked).status == 0x0110
    (kept,) = place[1].reader.performed_requests("2.25.1")
    assert (kept.operation, kept.status, kept.raw) == ("IAN N-CREATE", 0x0110, asked.raw)


def test_a_notification_is_never_sent_again_as_a_performed_step(place: tuple[Site, Store]) -> None:
    report(place, request(notification("2.25.100")))
    long_ago, at = datetime(2020, 1, 1, tzinfo=UTC), datetime.now(UTC)
    again = place[1].write(lambda unit: requeue_performed(unit, "pacs", long_ago, at)).result()
    assert (again.count, again.last) == (0, 1)
    assert place[1].reader.deliveries(5) == []
