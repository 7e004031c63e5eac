"""One toolkit read a server's sequences and another did not: every answer is plain to pydicom, DCMTK and GDCM."""

from pathlib import Path

import pytest
from consoles import EXPLICIT, IMPLICIT, STATION, STEP, Ask, explicit_key, item, key
from field_department import ROOM
from interop.dcmtk import program, run_program
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filewriter import write_file_meta_info

pytestmark = pytest.mark.interop

CODES, PROTOCOL, REFERENCES = 0x00321064, 0x00400008, 0x00081110
ACCESSION = 0x00080050

# The step and its codes asked for whole, with keys inside, and with empty items; references that nobody holds.
QUERIES = {
    (IMPLICIT, "whole sequences"): key(REFERENCES) + key(ACCESSION, ROOM.accession) + key(CODES) + key(STEP),
    (IMPLICIT, "keys in items"): key(REFERENCES, item(key(0x00081150)))
    + key(ACCESSION, ROOM.accession)
    + key(CODES, item(key(0x00080100), key(0x00080104)))
    + key(STEP, item(key(0x00080060), key(STATION), key(PROTOCOL, item(key(0x00080100))))),
    (EXPLICIT, "whole sequences"): explicit_key(REFERENCES, "SQ")
    + explicit_key(ACCESSION, "SH", ROOM.accession)
    + explicit_key(CODES, "SQ")
    + explicit_key(STEP, "SQ"),
    (EXPLICIT, "keys in items"): explicit_key(REFERENCES, "SQ", item(explicit_key(0x00081150, "UI")))
    + explicit_key(ACCESSION, "SH", ROOM.accession)
    + explicit_key(CODES, "SQ", item(explicit_key(0x00080100, "SH")))
    + explicit_key(
        STEP,
        "SQ",
        item(
            explicit_key(0x00080060, "CS"),
            explicit_key(STATION, "AE"),
            explicit_key(PROTOCOL, "SQ", item(explicit_key(0x00080100, "SH"))),
        ),
    ),
}


@pytest.fixture(params=list(QUERIES), ids=lambda each: f"{each[1]}, {'im' if each[0] == IMPLICIT else 'ex'}plicit")
def answer_file(request: pytest.FixtureRequest, ask: Ask, tmp_path: Path) -> Path:
    """The answer, byte by byte, behind a file header."""
    syntax, _ = request.param
    answer = ask(QUERIES[request.param], syntax=syntax)
    assert len(answer.raw) == 1
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.31"
    meta.MediaStorageSOPInstanceUID = "2.25.1"
    meta.TransferSyntaxUID = syntax
    path = tmp_path / "answer.dcm"
    with path.open("wb") as file:
        file.write(bytes(128) + b"DICM")
        write_file_meta_info(file, meta)
        file.write(answer.raw[0])
    return path


def test_pydicom_reads_its_sequences(answer_file: Path) -> None:
    found: Dataset = dcmread(answer_file)
    (scheduled,) = found.ScheduledProcedureStepSequence
    assert (scheduled.Modality, scheduled.ScheduledStationAETitle) == ("US", "ROOM7")
    assert found.RequestedProcedureCodeSequence[0].CodeValue == ROOM.code
    assert scheduled.ScheduledProtocolCodeSequence[0].CodeValue == f"P-{ROOM.code}"
    assert list(found.ReferencedStudySequence) == []


@pytest.mark.parametrize("name", ["dcmdump", "gdcmdump"])
def test_another_toolkit_reads_its_sequences_without_a_warning(answer_file: Path, name: str) -> None:
    program(name, {"dcmdump": "dcmtk", "gdcmdump": "libgdcm-tools"}[name])
    done = run_program(name, str(answer_file))
    assert (done.returncode, done.stderr) == (0, b"")
    shown = done.stdout.decode()
    for value in (ROOM.accession, "ROOM7", f"P-{ROOM.code}", "US"):
        assert value in shown
