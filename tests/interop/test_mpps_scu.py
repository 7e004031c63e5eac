"""A pynetdicom modality reports what it performs: the good road, the refusals, and the effect on its worklist."""

from collections.abc import Callable
from datetime import datetime
from itertools import count

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, generate_uid
from pynetdicom import AE
from pynetdicom.sop_class import ModalityPerformedProcedureStep

from gateway.testing import (
    ImagingOrder,
    ServiceProcess,
    SimulatedModality,
    SimulatedRIS,
    StatusError,
    invented_person,
    omi,
)
from gateway.testing.modality import final_state, performed_step

pytestmark = pytest.mark.interop

NOW = datetime(2026, 7, 6, 9, 0)
MISSING_ATTRIBUTE, MISSING_VALUE, INVALID_VALUE = 0x0120, 0x0121, 0x0106
DUPLICATE_INSTANCE, NO_SUCH_INSTANCE, PROCESSING_FAILURE = 0x0111, 0x0112, 0x0110
MAY_NO_LONGER_BE_UPDATED = 0xA710

_numbers = count(5000)


@pytest.fixture
def order(service: ServiceProcess) -> ImagingOrder:
    """A new order, already on the worklist."""
    number = next(_numbers)
    new = ImagingOrder(number, invented_person(number), NOW, "MPPS1")
    with SimulatedRIS(service.host, service.hl7_port, "MPPS") as ris:
        answer = ris.send(omi(new), f"MPPS{number}")
    assert answer.code == "AA", answer
    return new


@pytest.fixture
def item(modality: SimulatedModality, order: ImagingOrder) -> Dataset:
    """The new order as the modality sees it."""
    (found,) = modality.worklist(AccessionNumber=order.accession)
    return found


def status_of(modality: SimulatedModality, order: ImagingOrder) -> str:
    """The step's status on the worklist; '' where it is not listed."""
    items = modality.worklist(AccessionNumber=order.accession)
    return items[0].ScheduledProcedureStepSequence[0].ScheduledProcedureStepStatus if items else ""


def test_a_step_in_progress_stays_listed_and_a_completed_one_leaves(
    modality: SimulatedModality, order: ImagingOrder, item: Dataset
) -> None:
    assert status_of(modality, order) == "SCHEDULED"
    uid = modality.start(item)
    assert status_of(modality, order) == "STARTED"
    modality.complete(uid)
    assert status_of(modality, order) == ""


@pytest.mark.parametrize(
    ("reason", "afterwards"),
    [("110501", "SCHEDULED"), ("110514", "SCHEDULED"), ("110510", "")],
    ids=["equipment failure", "wrong worklist entry", "duplicate order"],
)
def test_a_discontinued_step_returns_unless_its_reason_gives_it_up(
    modality: SimulatedModality, order: ImagingOrder, item: Dataset, reason: str, afterwards: str
) -> None:
    modality.discontinue(modality.start(item), reason)
    assert status_of(modality, order) == afterwards


def test_a_step_can_be_reported_in_between(modality: SimulatedModality, order: ImagingOrder, item: Dataset) -> None:
    uid = modality.start(item)
    between = final_state("IN PROGRESS", NOW)
    del between.PerformedProcedureStepEndDate, between.PerformedProcedureStepEndTime
    modality.set(uid, between)
    assert status_of(modality, order) == "STARTED"
    modality.complete(uid)
    assert status_of(modality, order) == ""


def test_work_without_an_order_is_accepted(modality: SimulatedModality, item: Dataset) -> None:
    unscheduled = performed_step(item, "CT1", NOW)
    (scheduled,) = unscheduled.ScheduledStepAttributesSequence
    scheduled.StudyInstanceUID = generate_uid()
    for keyword in ("AccessionNumber", "RequestedProcedureID", "ScheduledProcedureStepID"):
        setattr(scheduled, keyword, "")
    uid = generate_uid()
    modality.create(uid, unscheduled)
    modality.complete(uid)


def test_the_same_instance_is_created_only_once(modality: SimulatedModality, item: Dataset) -> None:
    uid = modality.start(item)
    with pytest.raises(StatusError) as refused:
        modality.create(uid, performed_step(item, "CT1", NOW))
    assert refused.value.status == DUPLICATE_INSTANCE


def test_an_unknown_instance_cannot_be_set(modality: SimulatedModality) -> None:
    with pytest.raises(StatusError) as refused:
        modality.complete(generate_uid())
    assert refused.value.status == NO_SUCH_INSTANCE


def _without_id(dataset: Dataset) -> None:
    del dataset.PerformedProcedureStepID


def _with_empty_station(dataset: Dataset) -> None:
    dataset.PerformedStationAETitle = ""


def _already_completed(dataset: Dataset) -> None:
    dataset.PerformedProcedureStepStatus = "COMPLETED"


def _without_scheduled_step(dataset: Dataset) -> None:
    del dataset.ScheduledStepAttributesSequence


@pytest.mark.parametrize(
    ("spoil", "status"),
    [
        pytest.param(_already_completed, INVALID_VALUE, id="created as completed"),
        pytest.param(_without_scheduled_step, MISSING_ATTRIBUTE, id="no scheduled step attributes"),
        pytest.param(_without_id, MISSING_ATTRIBUTE, id="no step ID"),
        pytest.param(_with_empty_station, MISSING_VALUE, id="empty station"),
    ],
)
def test_an_unusable_step_is_refused_with_the_status_of_the_standard(
    modality: SimulatedModality, item: Dataset, spoil: Callable[[Dataset], None], status: int
) -> None:
    dataset = performed_step(item, "CT1", NOW)
    spoil(dataset)
    with pytest.raises(StatusError) as refused:
        modality.create(generate_uid(), dataset)
    assert refused.value.status == status


def test_a_step_that_lacks_only_what_may_be_empty_is_accepted(
    modality: SimulatedModality, order: ImagingOrder, item: Dataset
) -> None:
    dataset = performed_step(item, "CT1", NOW)
    del dataset.PatientSex, dataset.PerformedLocation, dataset.ProcedureCodeSequence
    modality.create(generate_uid(), dataset)
    assert status_of(modality, order) == "STARTED"


@pytest.mark.parametrize(
    "transfer_syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian], ids=["implicit VR", "explicit VR"]
)
def test_a_closed_step_is_never_changed_again_in_either_transfer_syntax(
    service: ServiceProcess, item: Dataset, transfer_syntax: str
) -> None:
    ae = AE("MPPS1")
    ae.maximum_pdu_size = 256  # the answers come in pieces
    ae.add_requested_context(ModalityPerformedProcedureStep, transfer_syntax)
    uid = generate_uid()
    association = ae.associate(service.host, service.dicom_port, ae_title="GATEWAY")
    assert association.is_established
    try:
        status, _ = association.send_n_create(performed_step(item, "MPPS1", NOW), ModalityPerformedProcedureStep, uid)
        assert status.Status == 0
        status, _ = association.send_n_set(final_state("COMPLETED", NOW), ModalityPerformedProcedureStep, uid)
        assert status.Status == 0
        status, _ = association.send_n_set(final_state("COMPLETED", NOW), ModalityPerformedProcedureStep, uid)
    finally:
        association.release()
    assert status.Status == PROCESSING_FAILURE
    assert status.ErrorID == MAY_NO_LONGER_BE_UPDATED
    assert len(status.ErrorComment) <= 64
