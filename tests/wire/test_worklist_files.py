"""Import of worklist files: what `dump2dcm` writes, what DCMTK serves, DICOM JSON, and everything kept as it is."""

import base64
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.domain.attributes import SPS_SEQUENCE, TAG, Attributes, Element, element, text, values
from gateway.domain.identifiers import Identifier, Issuer, Issuers
from gateway.domain.refusal import RefusalKind, Refused
from gateway.wire.charsets import UNICODE
from gateway.wire.dicom_json import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN, write_attributes
from gateway.wire.worklist_files import ImportedItem, read_worklist_file

DUMP = r"""
(0008,0005) CS [ISO_IR 100]
(0008,0050) SH [A1]
(0009,0010) LO [ACME]
(0009,1001) LO [private]
(0010,0010) PN [Doe^Zo\353]
(0010,0020) LO [100]
(0010,0021) LO [HOSP]
(0010,0030) DA [19700101]
(0010,2000) LO [LATEX\\NUTS]
(0018,1030) LO [unknown to the worklist]
(0020,000d) UI [1.2.276.1]
(0032,1032) PN [Req^Phys]
(0032,1060) LO [CT head]
(0038,0010) LO [V1]
(0040,0100) SQ
(fffe,e000) -
(0008,0060) CS [CT]
(0009,0010) LO [ACME]
(0009,1002) LO [in the step]
(0040,0001) AE [CT1]
(0040,0002) DA [20260705]
(0040,0003) TM [0930]
(0040,0009) SH [S1]
(0040,0020) CS [STARTED]
(fffe,e00d) -
(fffe,e0dd) -
(0040,1001) SH [R1]
(0040,2016) LO [P1]
"""

needs_dcmtk = pytest.mark.skipif(shutil.which("dump2dcm") is None, reason="dump2dcm of DCMTK is not installed")


def private(held: Element) -> str:
    """The text of a private element; in implicit VR nobody but its creator knows that it is text."""
    if held["vr"] == "UN":
        return base64.b64decode(held["InlineBinary"]).decode().rstrip(" ")
    return str(held["Value"][0])


def check_doe(imported: tuple[ImportedItem, ...]) -> None:
    (item,) = imported
    event = item.event
    (procedure,) = event.procedures
    (step,) = procedure.steps
    assert not event.complete
    assert event.patient.identifiers == (Identifier("100", "HOSP"),)
    assert text(event.patient.attributes, "PatientName") == "Doe^Zoë"
    assert values(event.patient.attributes, "MedicalAlerts") == ["LATEX", "NUTS"]
    assert event.visit is not None
    assert event.visit.number == Identifier("V1")
    assert (event.placer, event.filler, procedure.accession) == (Identifier("P1"), None, Identifier("A1"))
    assert text(event.attributes, "RequestingPhysician") == "Req^Phys"
    assert (procedure.study_instance_uid, procedure.requested_procedure_id) == ("1.2.276.1", "R1")
    assert procedure.attributes["00181030"]["Value"] == ["unknown to the worklist"]
    assert private(procedure.attributes["00091001"]) == "private"
    assert step.sps_id == "S1"
    assert private(step.attributes["00091002"]) == "in the step"
    assert TAG["ScheduledProcedureStepStatus"] not in step.attributes
    assert any("SCHEDULED" in note for note in item.notes)
    assert item.missing == ()


@needs_dcmtk
@pytest.mark.parametrize(
    "options", [["+te"], ["+ti"], ["+te", "-F"], ["+ti", "-F"], ["+te", "-e"], ["+te", "+e", "+g"]]
)
def test_files_of_dcmtk(tmp_path: Path, options: list[str]) -> None:
    (tmp_path / "item.dump").write_bytes(DUMP.replace("\\\\", "\\").replace(r"\353", "\xeb").encode("latin-1"))
    subprocess.run(
        ["dump2dcm", *options, tmp_path / "item.dump", tmp_path / "item.wl"],
        check=True,
        capture_output=True,
        timeout=30,
    )
    check_doe(read_worklist_file((tmp_path / "item.wl").read_bytes(), "item.wl"))


@needs_dcmtk
def test_big_endian_is_refused_with_a_way_out(tmp_path: Path) -> None:
    (tmp_path / "item.dump").write_text("(0010,0020) LO [100]\n")
    subprocess.run(
        ["dump2dcm", "+tb", tmp_path / "item.dump", tmp_path / "item.wl"], check=True, capture_output=True, timeout=30
    )
    with pytest.raises(Refused) as refused:
        read_worklist_file((tmp_path / "item.wl").read_bytes(), "item.wl")
    assert "dcmconv" in refused.value.refusals[0].hint


ITEM: Attributes = {
    "00080050": element("AccessionNumber", "A1"),
    "00090010": {"vr": "LO", "Value": ["ACME"]},
    "00091001": {"vr": "LO", "Value": ["private"]},
    "00100010": {"vr": "PN", "Value": [{"Alphabetic": "Doe^Zoë"}]},
    "00100020": element("PatientID", "100"),
    "00100021": element("IssuerOfPatientID", "HOSP"),
    "00102000": element("MedicalAlerts", "LATEX", "NUTS"),
    "00181030": {"vr": "LO", "Value": ["unknown to the worklist"]},
    "0020000D": element("StudyInstanceUID", "1.2.276.1"),
    "00321032": {"vr": "PN", "Value": [{"Alphabetic": "Req^Phys"}]},
    "00380010": element("AdmissionID", "V1"),
    SPS_SEQUENCE: {
        "vr": "SQ",
        "Value": [
            {
                "00080060": element("Modality", "CT"),
                "00090010": {"vr": "LO", "Value": ["ACME"]},
                "00091002": {"vr": "LO", "Value": ["in the step"]},
                "00400001": element("ScheduledStationAETitle", "CT1"),
                "00400002": element("ScheduledProcedureStepStartDate", "20260705"),
                "00400003": element("ScheduledProcedureStepStartTime", "0930"),
                "00400009": element("ScheduledProcedureStepID", "S1"),
                "00400020": element("ScheduledProcedureStepStatus", "STARTED"),
            }
        ],
    },
    "00401001": element("RequestedProcedureID", "R1"),
    "00402016": element("PlacerOrderNumberImagingServiceRequest", "P1"),
}


@pytest.mark.parametrize("syntax", [IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN])
def test_a_bare_dataset_in_either_syntax(syntax: str) -> None:
    data = write_attributes({tag: held for tag, held in ITEM.items() if tag != "00091001"}, syntax, UNICODE)
    (item,) = read_worklist_file(data, "bare.wl")
    assert text(item.event.patient.attributes, "PatientName") == "Doe^Zoë"


@pytest.mark.parametrize("form", [ITEM, [ITEM]])
@pytest.mark.parametrize("start", ["", "\ufeff", "\n "])
def test_dicom_json(form: Any, start: str) -> None:
    check_doe(read_worklist_file((start + json.dumps(form)).encode(), "items.json"))


def test_an_array_is_as_many_items_with_their_places() -> None:
    imported = read_worklist_file(json.dumps([ITEM, ITEM]).encode(), "items.json")
    assert [item.name for item in imported] == ["items.json[0]", "items.json[1]"]


def test_json_as_other_programs_write_it() -> None:
    loose = {
        "00080005": {"vr": "CS", "Value": ["ISO_IR 100"]},
        "00101030": {"vr": "DS", "Value": [70.50000000000001]},
        "00101020": {"vr": "DS", "Value": [2.0]},
        "001021c0": {"vr": "US", "Value": [4]},
        "00100010": {"vr": "PN", "Value": ["Doe^Jane"]},
        "00100020": {"Value": [" 100 "]},
        "00100040": {"vr": "CS", "Value": [None]},
        "00081120": {"vr": "SQ", "Value": [{}]},
        "00104000": {"vr": "LT", "BulkDataURI": "http://elsewhere.invalid/1"},
    }
    (item,) = read_worklist_file(json.dumps(loose).encode(), "loose.json")
    patient, visit = item.event.patient, item.event.visit
    assert values(patient.attributes, "PatientWeight") == ["70.5"]
    assert values(patient.attributes, "PatientSize") == ["2"]
    assert values(patient.attributes, "PregnancyStatus") == [4]
    assert text(patient.attributes, "PatientName") == "Doe^Jane"
    assert patient.identifiers == (Identifier("100"),)
    assert patient.attributes[TAG["PatientSex"]] == {"vr": "CS"}
    assert visit is not None
    assert values(visit.attributes, "ReferencedPatientSequence") == [{}]
    assert any("bulk data" in note for note in item.notes)


def test_what_is_lacking_stays_lacking_and_is_named() -> None:
    (item,) = read_worklist_file(b'{"00100020": {"vr": "LO", "Value": ["100"]}}', "poor.json")
    assert set(item.missing) == {
        "PatientName", "StudyInstanceUID", "RequestedProcedureID", "ScheduledStationAETitle", "Modality",
        "ScheduledProcedureStepStartDate", "ScheduledProcedureStepStartTime", "ScheduledProcedureStepID",
    }  # fmt: skip
    assert item.event.policies == {}
    assert item.event.procedures[0].study_instance_uid == ""
    assert item.event.procedures[0].steps == ()
    assert len(item.notes) == 2


def test_identifiers_bear_their_authorities() -> None:
    issuer = {"00400031": {"vr": "UT", "Value": ["RAD"]}, "00400032": {"vr": "UT", "Value": ["1.2.3"]}}
    said = ITEM | {
        TAG["IssuerOfAccessionNumberSequence"]: {"vr": "SQ", "Value": [issuer]},
        TAG["OrderPlacerIdentifierSequence"]: {"vr": "SQ", "Value": [{"00400031": issuer["00400031"]}]},
        TAG["FillerOrderNumberImagingServiceRequest"]: element("FillerOrderNumberImagingServiceRequest", "F1"),
        TAG["IssuerOfAdmissionIDSequence"]: {"vr": "SQ", "Value": [{}]},
    }
    issuers = Issuers([Issuer("radiology", frozenset({"RAD"}), frozenset({"1.2.3"}))])
    (item,) = read_worklist_file(json.dumps(said).encode(), "item.json", issuers)
    assert item.event.procedures[0].accession == Identifier("A1", "radiology")
    assert item.event.placer == Identifier("P1", "radiology")
    assert item.event.filler == Identifier("F1")
    assert item.event.visit is not None
    assert item.event.visit.number == Identifier("V1")


def test_several_steps_of_one_file_are_several_steps() -> None:
    steps = [{"00400009": element("ScheduledProcedureStepID", each)} for each in ("S1", "S2")]
    (item,) = read_worklist_file(json.dumps({SPS_SEQUENCE: {"vr": "SQ", "Value": steps}}).encode(), "two.json")
    assert [step.sps_id for step in item.event.procedures[0].steps] == ["S1", "S2"]


def test_no_representation_or_note_shows_a_value() -> None:
    (item,) = read_worklist_file(json.dumps(ITEM).encode(), "item.json")
    assert "Doe" not in repr(item)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", RefusalKind.UNREADABLE),
        (b"{", RefusalKind.UNREADABLE),
        (b"[" * 100_000, RefusalKind.UNREADABLE),
        (b"\0" * 128 + b"DICM" + b"\x02\0\x10\0UI", RefusalKind.UNREADABLE),
        (b"hello, this is no worklist", RefusalKind.UNREADABLE),
        (b"[1]", RefusalKind.BAD_VALUE),
        (b"{}", RefusalKind.BAD_VALUE),
        (b'{"PatientID": {"vr": "LO"}}', RefusalKind.BAD_VALUE),
        (b'{"00100020": "100"}', RefusalKind.BAD_VALUE),
        (b'{"00100020": {"vr": "XX"}}', RefusalKind.BAD_VALUE),
        (b'{"00100020": {"vr": [1]}}', RefusalKind.BAD_VALUE),
        (b'{"00100020": {"vr": "LO", "Value": "100"}}', RefusalKind.BAD_VALUE),
        (b'{"00100020": {"vr": "LO", "Value": [[1]]}}', RefusalKind.BAD_VALUE),
        (b'{"001021C0": {"vr": "US", "Value": ["many"]}}', RefusalKind.BAD_VALUE),
        (b'{"001021C0": {"vr": "US", "Value": [70000]}}', RefusalKind.BAD_VALUE),
        (b'{"001021C0": {"vr": "US", "Value": [Infinity]}}', RefusalKind.BAD_VALUE),
        (b'{"00100020": {"vr": "LO", "Value": ["\\ud800"]}}', RefusalKind.BAD_VALUE),
        (b'{"00091001": {"vr": "OB", "InlineBinary": "?"}}', RefusalKind.BAD_VALUE),
        (b'{"00091001": {"vr": "OB", "InlineBinary": 1}}', RefusalKind.BAD_VALUE),
    ],
)
def test_what_is_no_worklist_is_refused(data: bytes, kind: RefusalKind) -> None:
    with pytest.raises(Refused) as refused:
        read_worklist_file(data, "bad.wl")
    assert refused.value.refusals[0].kind is kind
    assert refused.value.refusals[0].where.startswith("bad.wl")


def test_the_place_of_a_bad_value_is_named() -> None:
    data = b'{"00400100": {"vr": "SQ", "Value": [{"00080060": {"vr": "CS", "Value": 1}}]}}'
    with pytest.raises(Refused) as refused:
        read_worklist_file(data, "bad.json")
    assert refused.value.refusals[0].where == "bad.json:00400100[0]/00080060"


@settings(max_examples=200)
@given(st.binary(max_size=60) | st.binary(max_size=60).map(lambda rest: b"\0" * 128 + b"DICM\x02\0" + rest))
def test_any_file_is_read_or_refused(data: bytes) -> None:
    try:
        read_worklist_file(data, "any")
    except Refused as refused:
        assert refused.refusals  # noqa: PT017
