"""The same items behind DCMTK's own worklist server and behind ours: the same questions, the same answers.

The items are the very files that wlmscpfs serves, brought over with `gateway worklist import`, as a site that moves
over would. Where the two may differ, the reason stands beside the exception: `CONDITIONAL`, `plain`, the last tests.
"""

import socket
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from subprocess import DEVNULL, Popen, run
from typing import Any

import pytest
from dcmtk import Findscu, program
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.uid import ExplicitVRLittleEndian

from gateway.testing import ServiceProcess, free_port, site

pytestmark = pytest.mark.interop

STEP = "ScheduledProcedureStepSequence[0]."
CALLED = "GATEWAY"
LATIN_1 = "ISO_IR 100"
START_S_MAX = 20.0

# Types 2C: wlmscpfs returns them without a value where it has none, as if they were type 2. We leave them out, since an
# empty value says that the condition holds: that contrast or premedication is to be given (PS3.4 Table K.6-1).
CONDITIONAL = frozenset({"RequestedContrastAgent", "PreMedication"})


def code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def worklist_item(
    number: int, name: str, patient_id: str, station: str, modality: str, day: str, time: str, physician: str
) -> Dataset:
    """An item with every attribute that both servers know, in Latin 1."""
    step = Dataset()
    step.Modality = modality
    step.RequestedContrastAgent = "Iodine" if modality == "CT" else ""
    step.ScheduledStationAETitle = station
    step.ScheduledProcedureStepStartDate = day
    step.ScheduledProcedureStepStartTime = time
    step.ScheduledPerformingPhysicianName = physician
    step.ScheduledProcedureStepDescription = f"{modality} protocol"
    step.ScheduledProtocolCodeSequence = [code(f"P-{modality}", "99PROT", f"{modality} protocol")]
    step.ScheduledProcedureStepID = f"STEP{number}"
    step.ScheduledStationName = f"{modality} room"
    step.ScheduledProcedureStepLocation = "Basement"
    step.PreMedication = ""
    item = Dataset()
    item.SpecificCharacterSet = LATIN_1
    item.AccessionNumber = f"ACC{number}"
    item.ReferringPhysicianName = "Größe^Ute"
    item.ReferencedStudySequence = []
    item.ReferencedPatientSequence = []
    item.PatientName = name
    item.PatientID = patient_id
    item.PatientBirthDate = "19700102"
    item.PatientSex = "F"
    item.PatientWeight = "71.5"
    item.MedicalAlerts = "Pacemaker"
    item.Allergies = ""
    item.PregnancyStatus = 4
    item.StudyInstanceUID = f"1.2.826.0.1.3680043.2.1143.{number}"
    item.RequestingPhysician = "Anforderer^Karl"
    item.RequestedProcedureDescription = f"{modality} examination"
    item.RequestedProcedureCodeSequence = [code(f"R-{modality}", "99PROC", f"{modality} examination")]
    item.AdmissionID = f"VISIT{number}"
    item.SpecialNeeds = ""
    item.CurrentPatientLocation = "Ward 3"
    item.PatientState = ""
    item.ScheduledProcedureStepSequence = [step]
    item.RequestedProcedureID = f"RP{number}"
    item.RequestedProcedurePriority = "HIGH"
    item.PatientTransportArrangements = ""
    item.ConfidentialityConstraintOnPatientDataDescription = ""
    return item


ITEMS = (
    worklist_item(1, "Ärmel^Änne", "ID1", "CT1", "CT", "20260705", "093000", "Scanner^Sven"),
    worklist_item(2, "Armel^Bodo", "ID2", "CT1", "CT", "20260705", "183000", ""),
    worklist_item(3, "Zander^Cleo", "ID3", "MR1", "MR", "20260706", "070000", "Magnet^Mia"),
    worklist_item(4, "Zander^Dora", "ID4", "US1", "US", "20260708", "080000", "Magnet^Mona"),
)

TOP_LEVEL = tuple(e.keyword for e in ITEMS[0] if e.VR != "SQ" and e.keyword != "SpecificCharacterSet")
IN_STEP = tuple(e.keyword for e in ITEMS[0].ScheduledProcedureStepSequence[0] if e.VR != "SQ")
CODE = ("CodeValue", "CodingSchemeDesignator", "CodeMeaning")
EVERYTHING: Mapping[str, str | bytes] = {
    "SpecificCharacterSet": LATIN_1,
    **dict.fromkeys(TOP_LEVEL, ""),
    **{STEP + keyword: "" for keyword in IN_STEP},
    **{f"RequestedProcedureCodeSequence[0].{keyword}": "" for keyword in CODE},
    **{f"{STEP}ScheduledProtocolCodeSequence[0].{keyword}": "" for keyword in CODE},
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of worklist files, below which wlmscpfs has one folder per called AE title."""
    folder = tmp_path_factory.mktemp("worklist")
    served = folder / CALLED
    served.mkdir()
    (served / "lockfile").touch()
    for number, item in enumerate(ITEMS):
        item.file_meta = FileMetaDataset()
        item.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.31"
        item.file_meta.MediaStorageSOPInstanceUID = f"2.25.{number + 1}"
        item.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dcmwrite(served / f"item{number}.wl", item, enforce_file_format=True)
    return folder


@pytest.fixture(scope="module")
def theirs(files: Path) -> Iterator[int]:
    """The port of wlmscpfs, which is told to keep the files' character set."""
    port = free_port()
    command = [program("wlmscpfs"), "--data-files-path", str(files), "-csk", "-dhl", "--single-process", str(port)]
    with Popen(command, stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL) as server:
        try:
            wait_until_it_listens(port)
            yield port
        finally:
            server.terminate()


def wait_until_it_listens(port: int) -> None:
    deadline = time.monotonic() + START_S_MAX
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)  # another process cannot be awaited, only asked
    raise AssertionError("wlmscpfs does not listen")


@pytest.fixture(scope="module")
def ours(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a gateway that imported the same files."""
    config = site(tmp_path_factory.mktemp("site"))
    command = [sys.executable, "-m", "gateway", "worklist", "import", str(files / CALLED), "--config", str(config)]
    done = run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    with ServiceProcess(config) as service:
        yield service.dicom_port


def plain(dataset: Dataset) -> dict[str, Any]:
    """The dataset as keywords and texts, with sequences as lists.

    Specific Character Set is left out: wlmscpfs returns the file's, we the one that the answer's letters need, which is
    none for plain ASCII. The texts are compared as they read.
    """
    return {
        element.keyword: [plain(item) for item in element.value] if element.VR == "SQ" else str(element.value or "")
        for element in dataset
        if element.keyword != "SpecificCharacterSet" and (element.value or element.keyword not in CONDITIONAL)
    }


def by_accession(answers: list[Dataset]) -> dict[str, dict[str, Any]]:
    found = {str(answer.AccessionNumber): plain(answer) for answer in answers}
    assert len(found) == len(answers)
    return found


@pytest.mark.parametrize(
    "keys",
    [
        pytest.param({}, id="everything"),
        pytest.param({f"{STEP}ScheduledStationAETitle": "CT1"}, id="station"),
        pytest.param({f"{STEP}Modality": "MR"}, id="modality"),
        pytest.param({f"{STEP}ScheduledProcedureStepStartDate": "20260705"}, id="day"),
        pytest.param({f"{STEP}ScheduledProcedureStepStartDate": "20260706-"}, id="from a day"),
        pytest.param(
            {
                f"{STEP}ScheduledStationAETitle": "CT1",
                f"{STEP}ScheduledProcedureStepStartDate": "20260705",
                f"{STEP}ScheduledProcedureStepStartTime": "0800-1200",
            },
            id="station, day and hours",
        ),
        pytest.param(
            {
                f"{STEP}ScheduledProcedureStepStartDate": "20260705-20260706",
                f"{STEP}ScheduledProcedureStepStartTime": "1000-0800",
            },
            id="one interval over night",
        ),
        pytest.param({"PatientName": "Zander*"}, id="name"),
        pytest.param({"PatientName": "Ärmel^Ä*".encode("latin-1")}, id="name with an umlaut"),
        pytest.param({"PatientName": "?ander^Cleo"}, id="name with an open letter"),
        pytest.param({f"{STEP}ScheduledPerformingPhysicianName": "Magnet^M*"}, id="physician"),
        pytest.param({"PatientID": "ID4"}, id="patient ID"),
        pytest.param({"AccessionNumber": "ACC2"}, id="accession number"),
        pytest.param({"RequestedProcedureID": "RP3"}, id="requested procedure ID"),
        pytest.param({"PatientID": "NOBODY"}, id="nobody"),
    ],
)
def test_both_servers_give_the_same_answer(
    findscu: Findscu, ours: int, theirs: int, keys: Mapping[str, str | bytes]
) -> None:
    asked = {**EVERYTHING, **keys}
    assert by_accession(findscu(ours, asked)) == by_accession(findscu(theirs, asked))


def test_only_ours_matches_by_study(findscu: Findscu, ours: int, theirs: int) -> None:
    # An optional matching key (PS3.4 Table K.6-1), which wlmscpfs takes for a return key.
    asked = {**EVERYTHING, "StudyInstanceUID": ITEMS[3].StudyInstanceUID}
    assert set(by_accession(findscu(ours, asked))) == {"ACC4"}
    assert set(by_accession(findscu(theirs, asked))) == {"ACC1", "ACC2", "ACC3", "ACC4"}


def test_only_ours_finds_a_name_typed_without_its_accents(findscu: Findscu, ours: int, theirs: int) -> None:
    # Names may be matched without regard to case and accents (PS3.4 C.2.2.2.1); wlmscpfs is exact in both.
    asked = {**EVERYTHING, "PatientName": "armel*"}
    assert set(by_accession(findscu(ours, asked))) == {"ACC1", "ACC2"}
    assert set(by_accession(findscu(theirs, asked))) == set()
