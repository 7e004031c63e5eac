"""The same worklist for everybody: as orders for our store, as `.wl` files for wlmscpfs, as datasets for pynetdicom.

Orders come in groups of ten that share station and day, so a query by both has ten matches however many items there
are. A store is filled by the intake use case in this process: over MLLP 100,000 orders would take most of the run.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from gateway.config import load_site
from gateway.domain.identifiers import Mint
from gateway.edges.store import Store, StoreUnit
from gateway.testing import ImagingOrder, invented_person, omi
from gateway.workflow import intake

GROUP = 10
STATIONS = 40
FIRST_DAY = datetime(2026, 7, 6, 7, 0)
MESSAGES_PER_TRANSACTION = 500


def order(number: int) -> ImagingOrder:
    """The order with this number, counting from 0."""
    group, place = divmod(number, GROUP)
    start = FIRST_DAY + timedelta(days=group // STATIONS, minutes=30 * place)
    return ImagingOrder(number, invented_person(number), start, station=station_of(group))


def station_of(group: int) -> str:
    """The station of a group of orders."""
    return f"STATION{group % STATIONS:02}"


def day_of(group: int) -> str:
    """The day of a group of orders, as DICOM writes it."""
    return f"{FIRST_DAY + timedelta(days=group // STATIONS):%Y%m%d}"


def fill(config: Path, first: int, count: int) -> None:
    """Add orders to a site's store, which nobody else may have open."""
    site = load_site(config)
    now = datetime.now(UTC)

    def receive_all(unit: StoreUnit, numbers: range) -> None:
        for number in numbers:
            message = omi(order(number)).message(f"FILL{number:09}", now)
            intake.receive(unit, message, feed, "127.0.0.1:1", now)

    with Store(site.store_url) as store:
        listener = site.settings.hl7[0]
        feed = intake.Feed(listener.name, site.mappings[listener.mapping], Mint(store.site_namespace()))
        numbers = range(first, first + count)
        for begin in range(0, count, MESSAGES_PER_TRANSACTION):
            chunk = numbers[begin : begin + MESSAGES_PER_TRANSACTION]
            store.write(lambda unit, chunk=chunk: receive_all(unit, chunk)).result()


def item(of: ImagingOrder) -> Dataset:
    """The worklist item of an order, as a peer holds it: what a modality asks for, and nothing else."""
    step = Dataset()
    step.Modality = of.modality
    step.ScheduledStationAETitle = of.station
    step.ScheduledProcedureStepStartDate = f"{of.start:%Y%m%d}"
    step.ScheduledProcedureStepStartTime = f"{of.start:%H%M%S}"
    step.ScheduledPerformingPhysicianName = ""
    step.ScheduledProcedureStepDescription = of.text
    step.ScheduledProcedureStepID = of.sps_id
    step.ScheduledProcedureStepStatus = "SCHEDULED"
    found = Dataset()
    found.SpecificCharacterSet = "ISO_IR 192"
    found.AccessionNumber = of.accession
    found.ReferringPhysicianName = "Reference^Paul^^Dr"
    found.PatientName = of.person.name
    found.PatientID = of.person.patient_id
    found.PatientBirthDate = f"{of.person.birth_date:%Y%m%d}"
    found.PatientSex = of.person.sex
    found.StudyInstanceUID = of.study_instance_uid
    found.RequestedProcedureDescription = of.text
    found.RequestedProcedureID = of.requested_procedure_id
    found.ScheduledProcedureStepSequence = [step]
    return found


def write_worklist_files(folder: Path, first: int, count: int) -> None:
    """Add orders to a folder that wlmscpfs serves."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "lockfile").touch()
    for number in range(first, first + count):
        write_worklist_file(folder / f"{number:09}.wl", item(order(number)))


def write_worklist_file(path: Path, dataset: Dataset) -> None:
    """A DICOM file as wlmscpfs reads it: worklist files have no SOP class, so any meta header will do."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.31"
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta = meta
    dcmwrite(path, dataset, enforce_file_format=True)
