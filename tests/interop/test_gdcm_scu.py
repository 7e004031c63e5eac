"""GDCM, the toolkit in ITK and many research scanners, asks our worklist."""

import json
import subprocess
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest
from known_orders import CYRILLIC, KANJI, LATIN, MANY, MANY_STATION, NAMES_STATION, ORDERS, SHOWN
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import ExplicitVRLittleEndian

from gateway.testing import ServiceProcess, worklist_identifier

pytestmark = pytest.mark.interop

DEBIANS_PYTHON = "/usr/bin/python3"
SCRIPT = Path(__file__).with_name("gdcm_find.py")
PROGRAM_S_MAX = 60

ACCESSION, NAME, PATIENT_ID, STUDY = "00080050", "00100010", "00100020", "0020000d"
CHARACTER_SET = "00080005"
MODALITY, STATION, DAY = "00400100/00080060", "00400100/00400001", "00400100/00400002"

Ask = Callable[..., list[dict[str, str]]]


@pytest.fixture(scope="module")
def gdcm() -> str:
    """Debian's Python with GDCM's bindings."""
    try:
        done = subprocess.run([DEBIANS_PYTHON, "-c", "import gdcm"], capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip(f"there is no {DEBIANS_PYTHON}")
    if done.returncode:
        pytest.skip("GDCM's Python bindings are not installed (Debian package python3-gdcm)")
    return DEBIANS_PYTHON


@pytest.fixture
def ask(gdcm: str, service: ServiceProcess, tmp_path: Path) -> Ask:
    """`ask(identifier, *tags)` gives the values of each answer, as GDCM shows them."""
    number = count(1)

    def asked(identifier: Dataset, *tags: str) -> list[dict[str, str]]:
        query = tmp_path / f"query{next(number)}.dcm"
        identifier.file_meta = FileMetaDataset()
        identifier.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.31"
        identifier.file_meta.MediaStorageSOPInstanceUID = "2.25.1"
        identifier.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dcmwrite(query, identifier, enforce_file_format=True)
        command = [gdcm, str(SCRIPT), service.host, str(service.dicom_port), str(query), *tags]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PROGRAM_S_MAX, check=False)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    return asked


def test_a_stations_list_has_its_items_with_their_values(ask: Ask) -> None:
    identifier = worklist_identifier({"ScheduledStationAETitle": "CT1"})
    answers = ask(identifier, ACCESSION, NAME, PATIENT_ID, STUDY, MODALITY, STATION, DAY)
    assert {answer[ACCESSION] for answer in answers} == {
        order.accession for order in ORDERS.values() if order.station == "CT1"
    }
    for answer in answers:
        order = ORDERS[answer[ACCESSION]]
        assert answer == {
            ACCESSION: order.accession,
            NAME: order.person.name,
            PATIENT_ID: order.person.patient_id,
            STUDY: order.study_instance_uid,
            MODALITY: order.modality,
            STATION: order.station,
            DAY: f"{order.start:%Y%m%d}",
        }


def test_names_in_every_script_are_shown_as_written(ask: Ask) -> None:
    answers = ask(worklist_identifier({"ScheduledStationAETitle": NAMES_STATION}), ACCESSION, NAME)
    assert {answer[ACCESSION]: answer[NAME] for answer in answers} == SHOWN


@pytest.mark.parametrize(
    ("pattern", "accession"),
    [("DÖR*", LATIN.accession), ("Сок*", CYRILLIC.accession), ("*鈴木*", KANJI.accession)],
    ids=["Latin", "Cyrillic", "Japanese"],
)
def test_a_name_is_found_by_its_own_letters(ask: Ask, pattern: str, accession: str) -> None:
    asked = worklist_identifier({"PatientName": pattern, "ScheduledStationAETitle": NAMES_STATION})
    (answer,) = ask(asked, ACCESSION, NAME, CHARACTER_SET)
    assert answer == {ACCESSION: accession, NAME: SHOWN[accession], CHARACTER_SET: "ISO_IR 192"}


def test_a_busy_station_is_answered_whole(ask: Ask) -> None:
    answers = ask(worklist_identifier({"ScheduledStationAETitle": MANY_STATION}), PATIENT_ID)
    assert sorted(answer[PATIENT_ID] for answer in answers) == [order.person.patient_id for order in MANY]


def test_nobody_is_an_empty_answer(ask: Ask) -> None:
    assert ask(worklist_identifier({"PatientID": "NOBODY"}), ACCESSION) == []
