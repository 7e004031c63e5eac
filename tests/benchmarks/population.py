"""The same worklist for everybody: as orders for our store, as `.wl` files for wlmscpfs, as datasets for pynetdicom.

Orders come in groups of ten that share station and day, so a query by both has ten matches however many items there
are. From 1,000 items on, 500 of them are one busy station's day, and nobody is scheduled to `NOBODYS_STATION`.

A store is filled in this process: one order is read and mapped as any message is, then saved over and over with other
identifiers. Over MLLP 100,000 orders would take most of the run.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from gateway.config import load_site
from gateway.domain.identifiers import Mint
from gateway.domain.order import OrderEvent
from gateway.domain.patient import Patient
from gateway.edges.store import Store, StoreUnit
from gateway.processing import feeds_of
from gateway.testing import ImagingOrder, Person, invented_person, omi
from gateway.workflow import intake

GROUP = 10
STATIONS = 40
FIRST_DAY = datetime(2026, 7, 6, 7, 0)
NOBODYS_STATION, BUSY_STATION = "STATION98", "STATION99"
BUSY_ORDERS = 500
BUSY_FIRST = 900_000_000
"""The number of the busy station's first order."""

ORDERS_PER_TRANSACTION = 500
CODE = "UNLISTED"  # in no procedure catalogue, which would add times that depend on the start

# Each of its texts that is exchanged is unlike every other text in it.
TEMPLATE = ImagingOrder(
    999_999_999,
    Person("PAT9999999", "Template^Tina", date(1899, 1, 30), "O"),
    datetime(1999, 12, 31, 23, 59, 58),
    "TEMPLATE",
    code=CODE,
)


def others(size: int) -> int:
    """How many orders of a worklist of this size come in groups of ten."""
    return size - BUSY_ORDERS if size >= 2 * BUSY_ORDERS else size


def numbers(size: int, held: int = 0) -> list[int]:
    """The numbers of the orders that make a worklist of this size, without those of the smaller one already held."""
    busy = range(BUSY_FIRST, BUSY_FIRST + BUSY_ORDERS) if others(held) == held and others(size) < size else ()
    return [*busy, *range(others(held), others(size))]


def order(number: int) -> ImagingOrder:
    """The order with this number, counting from 0; those of the busy station from `BUSY_FIRST`."""
    if number >= BUSY_FIRST:
        start = FIRST_DAY + timedelta(minutes=number - BUSY_FIRST)
        return ImagingOrder(number, invented_person(number), start, BUSY_STATION, code=CODE)
    group, place = divmod(number, GROUP)
    start = FIRST_DAY + timedelta(days=group // STATIONS, minutes=30 * place)
    return ImagingOrder(number, invented_person(number), start, station_of(group), code=CODE)


def station_of(group: int) -> str:
    """The station of a group of orders."""
    return f"STATION{group % STATIONS:02}"


def day_of(group: int) -> str:
    """The day of a group of orders, as DICOM writes it."""
    return f"{FIRST_DAY + timedelta(days=group // STATIONS):%Y%m%d}"


def fill(config: Path, numbers: Sequence[int]) -> None:
    """Add orders to a site's store, which nobody else may have open."""
    site = load_site(config)
    now = datetime.now(UTC)
    with Store(site.store_url, zone=site.settings.timezone) as store:
        feed = feeds_of(site, Mint(store.site_namespace()))["ris"]
        mapped = intake.preview(omi(TEMPLATE).message("TEMPLATE", now), feed)
        (held,), (event,) = mapped.orders, mapped.result.events
        assert isinstance(event, OrderEvent)
        patient = Patient(None, event.patient.identifiers, event.patient.attributes)
        make_patient = _maker(patient, _distinct(TEMPLATE))
        make_order = _maker(held, _distinct(TEMPLATE))
        assert make_patient
        assert make_order

        def save_all(unit: StoreUnit, chunk: Sequence[int]) -> None:
            for number in chunk:
                texts = _texts_of(order(number))
                patient_id = unit.save_patient(make_patient(texts), now)
                unit.save_order(replace(make_order(texts), patient_id=patient_id, site=feed.site), "filled", now)

        for begin in range(0, len(numbers), ORDERS_PER_TRANSACTION):
            chunk = numbers[begin : begin + ORDERS_PER_TRANSACTION]
            store.write(lambda unit, chunk=chunk: save_all(unit, chunk)).result()


def _texts_of(new: ImagingOrder) -> dict[str, str]:
    """Every text of the template's order that is another one in this order."""
    return dict(zip(_distinct(TEMPLATE), _distinct(new), strict=True))


def _distinct(of: ImagingOrder) -> tuple[str, ...]:
    return (
        of.placer, of.filler, of.accession, of.requested_procedure_id, of.sps_id, of.study_instance_uid, of.station,
        f"ROOM {of.station}", f"{of.start:%Y%m%d}", f"{of.start:%H%M%S}", of.person.patient_id, of.person.name,
        f"{of.person.birth_date:%Y%m%d}", of.person.sex,
    )  # fmt: skip


Make = Callable[[Mapping[str, str]], Any]


def _maker(value: Any, exchanged: Collection[str]) -> Make | None:
    """Makes the value with other texts in place of these, sharing all that stays; None where everything does."""
    if isinstance(value, str):
        return (lambda texts: texts[value]) if value in exchanged else None
    if isinstance(value, dict):
        keys = {key: make for key, held in value.items() if (make := _maker(held, exchanged))}
        return (lambda texts: value | {key: make(texts) for key, make in keys.items()}) if keys else None
    if isinstance(value, (list, tuple)):
        places = [(held, _maker(held, exchanged)) for held in value]
        if not any(make for _, make in places):
            return None
        return lambda texts: type(value)(make(texts) if make else held for held, make in places)
    if is_dataclass(value):
        parts = {part.name: make for part in fields(value) if (make := _maker(getattr(value, part.name), exchanged))}
        return (lambda texts: replace(value, **{name: make(texts) for name, make in parts.items()})) if parts else None
    return None


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


def write_worklist_files(folder: Path, numbers: Sequence[int]) -> None:
    """Add orders to a folder that wlmscpfs and Orthanc serve."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "lockfile").touch()
    for number in numbers:
        write_worklist_file(folder / f"{number:09}.wl", item(order(number)))


def write_worklist_file(path: Path, dataset: Dataset) -> None:
    """A DICOM file as wlmscpfs reads it: worklist files have no SOP class, so any meta header will do."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.31"
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta = meta
    dcmwrite(path, dataset, enforce_file_format=True)
