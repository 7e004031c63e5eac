"""A pynetdicom modality reports what it performs: the good road, the refusals, and the effect on its worklist."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from io import BytesIO
from itertools import count

import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, generate_uid
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import N_CREATE, N_SET
from pynetdicom.dsutils import decode, encode
from pynetdicom.sop_class import ModalityPerformedProcedureStep, ModalityPerformedProcedureStepRetrieve

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


in_each_syntax = pytest.mark.parametrize(
    "transfer_syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian], ids=["implicit VR", "explicit VR"]
)


@in_each_syntax
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


# Oddities of real devices, each in an association of its own, in either transfer syntax


@contextmanager
def associated(service: ServiceProcess, transfer_syntax: str, caller: str = "MPPS1") -> Iterator[Association]:
    """An association for MPPS and MPPS Retrieve in one transfer syntax."""
    ae = AE(caller)
    for sop_class in (ModalityPerformedProcedureStep, ModalityPerformedProcedureStepRetrieve):
        ae.add_requested_context(sop_class, transfer_syntax)
    association = ae.associate(service.host, service.dicom_port, ae_title="GATEWAY")
    assert association.is_established
    try:
        yield association
    finally:
        association.release()


def n_create(association: Association, uid: str, dataset: Dataset) -> int:
    return int(association.send_n_create(dataset, ModalityPerformedProcedureStep, uid)[0].Status)


def n_set(association: Association, uid: str, dataset: Dataset) -> int:
    return int(association.send_n_set(dataset, ModalityPerformedProcedureStep, uid)[0].Status)


def n_get(association: Association, uid: str, *keywords: str) -> Dataset:
    tags = [Tag(keyword) for keyword in keywords]
    status, found = association.send_n_get(tags, ModalityPerformedProcedureStepRetrieve, uid)
    assert (status.Status, found is not None) == (0x0000, True)
    return found


def as_received(dataset: Dataset, transfer_syntax: str) -> Dataset:
    """The dataset as pynetdicom reads what it writes: in implicit VR nobody knows the VR of private attributes."""
    implicit = transfer_syntax == ImplicitVRLittleEndian
    return decode(BytesIO(encode(dataset, implicit, True)), implicit, True)


def between() -> Dataset:
    """An N-SET in the middle of the work, as devices send it that say IN PROGRESS once more."""
    change = final_state("IN PROGRESS", NOW)
    del change.PerformedProcedureStepEndDate, change.PerformedProcedureStepEndTime
    return change


@in_each_syntax
def test_a_set_before_its_create_is_unknown_and_afterwards_taken(
    service: ServiceProcess, modality: SimulatedModality, order: ImagingOrder, item: Dataset, transfer_syntax: str
) -> None:
    uid, dataset = generate_uid(), performed_step(item, "MPPS1", NOW)
    with associated(service, transfer_syntax) as association:
        assert n_set(association, uid, final_state("COMPLETED", NOW)) == NO_SUCH_INSTANCE
        assert n_create(association, uid, dataset) == 0
        assert status_of(modality, order) == "STARTED"
        assert n_set(association, uid, final_state("COMPLETED", NOW)) == 0
    assert status_of(modality, order) == ""


@in_each_syntax
def test_the_same_set_twice_and_in_progress_again_change_no_status(
    service: ServiceProcess, modality: SimulatedModality, order: ImagingOrder, item: Dataset, transfer_syntax: str
) -> None:
    uid, change = generate_uid(), between()
    with associated(service, transfer_syntax) as association:
        assert n_create(association, uid, performed_step(item, "MPPS1", NOW)) == 0
        assert [n_set(association, uid, change) for _ in range(3)] == [0, 0, 0]
        assert n_get(association, uid).PerformedSeriesSequence == change.PerformedSeriesSequence
        assert status_of(modality, order) == "STARTED"


@in_each_syntax
@pytest.mark.parametrize("final", ["COMPLETED", "DISCONTINUED"])
def test_nothing_comes_after_a_final_state(
    service: ServiceProcess, modality: SimulatedModality, order: ImagingOrder, item: Dataset, transfer_syntax: str,
    final: str,
) -> None:  # fmt: skip
    uid, end = generate_uid(), final_state(final, NOW, "110501" if final == "DISCONTINUED" else "")
    with associated(service, transfer_syntax) as association:
        assert n_create(association, uid, performed_step(item, "MPPS1", NOW)) == 0
        assert n_set(association, uid, end) == 0
        afterwards = status_of(modality, order)
        held = n_get(association, uid)
        for late in (end, between(), final_state("COMPLETED", NOW)):
            status, _ = association.send_n_set(late, ModalityPerformedProcedureStep, uid)
            assert (status.Status, status.ErrorID) == (PROCESSING_FAILURE, MAY_NO_LONGER_BE_UPDATED)
        assert n_get(association, uid) == held
    assert status_of(modality, order) == afterwards


@in_each_syntax
def test_a_set_to_the_step_of_another_device_is_believed(
    service: ServiceProcess, modality: SimulatedModality, order: ImagingOrder, item: Dataset, transfer_syntax: str
) -> None:
    """Departments change the AE title of a device, or finish its work at a console of another name."""
    uid = generate_uid()
    with associated(service, transfer_syntax) as association:
        assert n_create(association, uid, performed_step(item, "MPPS1", NOW)) == 0
    with associated(service, transfer_syntax, caller="CONSOLE2") as association:
        assert n_set(association, uid, final_state("COMPLETED", NOW)) == 0
    assert status_of(modality, order) == ""


@in_each_syntax
@pytest.mark.parametrize("how", ["empty", "absent"])
def test_a_step_that_names_no_patient_begins_the_item_that_it_names(
    service: ServiceProcess, modality: SimulatedModality, order: ImagingOrder, item: Dataset, transfer_syntax: str,
    how: str,
) -> None:  # fmt: skip
    uid, dataset = generate_uid(), performed_step(item, "MPPS1", NOW)
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex"):
        if how == "empty":
            setattr(dataset, keyword, "")
        else:
            delattr(dataset, keyword)
    with associated(service, transfer_syntax) as association:
        assert n_create(association, uid, dataset) == 0
        assert status_of(modality, order) == "STARTED"
        assert n_set(association, uid, final_state("COMPLETED", NOW)) == 0
    assert status_of(modality, order) == ""


def series(number: int) -> Dataset:
    (made,) = final_state("COMPLETED", NOW).PerformedSeriesSequence
    made.SeriesDescription = f"series {number}"
    made.SeriesInstanceUID = f"2.25.3{number:06}"
    image = Dataset()
    image.ReferencedSOPClassUID, image.ReferencedSOPInstanceUID = "1.2.840.10008.5.1.4.1.1.2", f"2.25.4{number:06}"
    made.ReferencedImageSequence = [image]
    return made


@in_each_syntax
def test_four_thousand_series_are_stored_and_had_back(
    service: ServiceProcess, modality: SimulatedModality, order: ImagingOrder, item: Dataset, transfer_syntax: str
) -> None:
    uid, end = generate_uid(), final_state("COMPLETED", NOW)
    end.PerformedSeriesSequence = [series(number) for number in range(4_000)]
    with associated(service, transfer_syntax) as association:
        assert n_create(association, uid, performed_step(item, "MPPS1", NOW)) == 0
        assert n_set(association, uid, end) == 0
        assert n_get(association, uid, "PerformedSeriesSequence").PerformedSeriesSequence == end.PerformedSeriesSequence
    assert status_of(modality, order) == ""


@in_each_syntax
def test_after_an_association_that_was_aborted_without_an_answer_the_work_goes_on(
    service: ServiceProcess, modality: SimulatedModality, order: ImagingOrder, item: Dataset, transfer_syntax: str
) -> None:
    """Whether the request came through is for the device to find out: 0111 and A710 say that it did."""
    uid, dataset, end = generate_uid(), performed_step(item, "MPPS1", NOW), final_state("COMPLETED", NOW)

    def left_without_answer(request: N_CREATE | N_SET, said: Dataset) -> None:
        with associated(service, transfer_syntax) as association:
            (context,) = (
                each for each in association.accepted_contexts if each.abstract_syntax == ModalityPerformedProcedureStep
            )
            encoded = BytesIO(encode(said, transfer_syntax == ImplicitVRLittleEndian, True))
            if isinstance(request, N_CREATE):
                request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = ModalityPerformedProcedureStep, uid
                request.AttributeList = encoded
            else:
                request.RequestedSOPClassUID, request.RequestedSOPInstanceUID = ModalityPerformedProcedureStep, uid
                request.ModificationList = encoded
            request.MessageID = 1
            association.dimse.send_msg(request, context.context_id)
            association.abort()

    left_without_answer(N_CREATE(), dataset)
    with associated(service, transfer_syntax) as association:
        assert n_create(association, uid, dataset) in (0x0000, DUPLICATE_INSTANCE)
        assert n_create(association, uid, dataset) == DUPLICATE_INSTANCE
    assert status_of(modality, order) == "STARTED"
    left_without_answer(N_SET(), end)
    with associated(service, transfer_syntax) as association:
        assert n_set(association, uid, end) in (0x0000, PROCESSING_FAILURE)
        status, _ = association.send_n_set(end, ModalityPerformedProcedureStep, uid)
        assert (status.Status, status.ErrorID) == (PROCESSING_FAILURE, MAY_NO_LONGER_BE_UPDATED)
    assert status_of(modality, order) == ""


# What went in comes out


def everything(item: Dataset) -> Dataset:
    """A performed step with all that devices put into one."""
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "CTHEAD", "99PROC", "Schädel nativ"
    exposure = Dataset()
    exposure.RadiationMode, exposure.KVP, exposure.ExposureTime = "CONTINUOUS", "120.50", "1000"
    film = Dataset()
    film.NumberOfFilms, film.MediumType = "2", "PAPER"
    dataset = performed_step(item, "MPPS1", NOW)
    dataset.PatientName = "Müller^Jürgen=山田^太郎"
    dataset.PatientID = item.PatientID
    dataset.ProcedureCodeSequence = dataset.PerformedProtocolCodeSequence = Sequence([code])
    dataset.PerformedLocation = "Room 2\\left"
    dataset.CommentsOnThePerformedProcedureStep = "two lines\r\nand a \\ in the text"
    dataset.PerformedSeriesSequence = [series(1), series(2)]
    dataset.TotalTimeOfFluoroscopy, dataset.TotalNumberOfExposures = 17, 65_535
    dataset.ImageAndFluoroscopyAreaDoseProduct = "12.340"
    dataset.ExposureDoseSequence, dataset.FilmConsumptionSequence = [exposure], [film]
    dataset.ReferencedStudySequence = []
    block = dataset.private_block(0x0009, "INVENTED MAKER", create=True)
    block.add_new(0x01, "LO", "what only it knows")
    block.add_new(0x02, "OB", bytes(range(8)))
    return dataset


@in_each_syntax
def test_what_was_sent_comes_back_attribute_for_attribute(
    service: ServiceProcess, item: Dataset, transfer_syntax: str
) -> None:
    uid, sent = generate_uid(), everything(item)
    with associated(service, transfer_syntax) as association:
        assert n_create(association, uid, sent) == 0
        assert n_get(association, uid) == as_received(sent, transfer_syntax)
        end = final_state("COMPLETED", NOW)
        assert n_set(association, uid, end) == 0
        sent.update(end)
        assert n_get(association, uid) == as_received(sent, transfer_syntax)
        some = n_get(association, uid, "Modality", "PerformedSeriesSequence", "PerformedProcedureStepStatus")
        assert [element.keyword for element in some] == [
            "Modality", "PerformedProcedureStepStatus", "PerformedSeriesSequence",
        ]  # fmt: skip
        assert some.PerformedSeriesSequence == end.PerformedSeriesSequence


@in_each_syntax
def test_what_came_in_one_transfer_syntax_is_had_in_the_other(
    service: ServiceProcess, item: Dataset, transfer_syntax: str
) -> None:
    uid, sent = generate_uid(), everything(item)
    sent.remove_private_tags()
    other = next(each for each in (ImplicitVRLittleEndian, ExplicitVRLittleEndian) if each != transfer_syntax)
    with associated(service, transfer_syntax) as association:
        assert n_create(association, uid, sent) == 0
    with associated(service, other) as association:
        assert n_get(association, uid) == as_received(sent, other)
