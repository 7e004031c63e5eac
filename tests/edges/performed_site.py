"""A site whose modalities report by MPPS, for tests of what people do about it."""

import asyncio
from datetime import datetime
from typing import Any

from pydicom.dataset import Dataset

from gateway.config import load_site
from gateway.domain.devices import Device
from gateway.domain.performed import Operation
from gateway.edges.store import Store
from gateway.outgoing import audience_of
from gateway.processing import now, report_performed
from gateway.testing import ImagingOrder, Person, invented_person, rad4_orm
from gateway.wire.dicom_json import EXPLICIT_VR_LITTLE_ENDIAN, attributes_from_dataset, write_attributes
from gateway.workflow.perform import PerformAnswer, create_step, set_step
from gateway.workflow.performed_request import PerformRequest, read_request
from tests.edges.command_site import CommandSite

START = datetime(2026, 7, 5, 9, 30)
UID, OTHER = "1.2.840.99.7.1001", "1.2.840.99.7.1002"


def ordered(number: int, person: Person | None = None, start: datetime = START, **changes: Any) -> ImagingOrder:
    """An order of this number, of a person of the same number where none is said."""
    return ImagingOrder(number, person or invented_person(number), start, **changes)


def began(person: Person | None, names: ImagingOrder | None = None, study: str = "2.25.999", **more: str) -> Dataset:
    """What an N-CREATE of CT1 says: of whom, and which order it names; without one only a study of its own."""
    reference = Dataset()
    reference.StudyInstanceUID = names.study_instance_uid if names else study
    reference.AccessionNumber = names.accession if names else ""
    reference.RequestedProcedureID = names.requested_procedure_id if names else ""
    reference.ScheduledProcedureStepID = names.sps_id if names else ""
    said = Dataset()
    said.SpecificCharacterSet = "ISO_IR 192"
    said.ScheduledStepAttributesSequence = [reference]
    said.PatientName = person.name if person else ""
    said.PatientID = person.patient_id if person else ""
    said.PerformedProcedureStepID = "PPS1"
    said.PerformedStationAETitle = "CT1"
    said.PerformedProcedureStepStartDate, said.PerformedProcedureStepStartTime = "20260705", "094500"
    said.PerformedProcedureStepStatus = "IN PROGRESS"
    said.PerformedProcedureStepDescription = "Head native"
    said.Modality = "CT"
    for keyword, value in more.items():
        setattr(said, keyword, value)
    return said


def ended(status: str = "COMPLETED") -> Dataset:
    """What the last N-SET says."""
    said = Dataset()
    said.PerformedProcedureStepStatus = status
    said.PerformedProcedureStepEndDate, said.PerformedProcedureStepEndTime = "20260705", "101500"
    series = Dataset()
    series.SeriesInstanceUID = "2.25.31"
    series.ProtocolName = "HEAD"
    series.PerformingPhysicianName = series.OperatorsName = ""
    series.RetrieveAETitle = series.SeriesDescription = ""
    series.ReferencedImageSequence = []
    said.PerformedSeriesSequence = [series]
    return said


class PerformedSite(CommandSite):
    """A site that gets orders and performed steps."""

    def order(self, number: int, **changes: Any) -> ImagingOrder:
        """An order of this number that was received."""
        made = ordered(number, **changes)
        assert self.receive(rad4_orm(made).message(f"M{number}", datetime(2026, 7, 4, 8))) == ["accepted"]
        return made

    def begin(self, said: Dataset, uid: str = UID, caller: str = "CT1") -> None:
        """A modality begins, and is answered positively."""
        assert self._report(Operation.CREATE, said, uid, caller) == 0

    def end(self, said: Dataset, uid: str = UID, caller: str = "CT1") -> None:
        """It ends."""
        assert self._report(Operation.SET, said, uid, caller) == 0

    def _report(self, operation: Operation, said: Dataset, uid: str, caller: str) -> int:
        site = load_site(self.config)
        request = PerformRequest(uid, caller, EXPLICIT_VR_LITTLE_ENDIAN, raw(said))
        with Store(site.store_url, zone=site.settings.timezone) as store:
            audience = audience_of(site)
            return asyncio.run(report_performed(store, site, operation, request, Device(caller), audience)).status


def create(store: Store, said: Dataset, uid: str = UID) -> PerformAnswer:
    """N-CREATE by CT1, where there is a store and no site."""
    request = PerformRequest(uid, "CT1", EXPLICIT_VR_LITTLE_ENDIAN, raw(said))
    return store.write(lambda unit: create_step(unit, read_request(Operation.CREATE, request), now())).result()


def set_(store: Store, said: Dataset, uid: str = UID) -> PerformAnswer:
    """N-SET by CT1."""
    request = PerformRequest(uid, "CT1", EXPLICIT_VR_LITTLE_ENDIAN, raw(said))
    return store.write(lambda unit: set_step(unit, read_request(Operation.SET, request), now())).result()


def raw(said: Dataset) -> bytes:
    """The dataset as it is sent, in Explicit VR Little Endian."""
    return write_attributes(attributes_from_dataset(said), EXPLICIT_VR_LITTLE_ENDIAN, ("ISO_IR 192",))
