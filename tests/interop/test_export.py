"""The items that `gateway worklist export` writes, served by DCMTK's wlmscpfs: what it answers is what they say."""

import pytest
from dcmtk import Findscu

from gateway.domain.attributes import SPS_SEQUENCE, TAG, Attributes, element, person_name_value
from gateway.domain.worklist import SPSStatus, WorklistItem
from gateway.wire.worklist_files import write_worklist_file
from tests.interop.worklist_servers import wlmscpfs

pytestmark = pytest.mark.interop

CALLED = "GATEWAY"
STEP = "ScheduledProcedureStepSequence[0]."
UNICODE = "ISO_IR 192"
KEYS = {
    "SpecificCharacterSet": UNICODE,
    "PatientName": "", "PatientID": "", "AccessionNumber": "", "StudyInstanceUID": "", "RequestedProcedureID": "",
    f"{STEP}Modality": "", f"{STEP}ScheduledStationAETitle": "CT1", f"{STEP}ScheduledProcedureStepStartDate": "",
    f"{STEP}ScheduledProcedureStepStartTime": "", f"{STEP}ScheduledProcedureStepID": "",
}  # fmt: skip


def said(**values: object) -> Attributes:
    return {TAG[keyword]: element(keyword, value) for keyword, value in values.items()}


def item(number: int, name: str) -> WorklistItem:
    step = said(
        Modality="CT", ScheduledStationAETitle="CT1", ScheduledProcedureStepStartDate="20260705",
        ScheduledProcedureStepStartTime="093000", ScheduledProcedureStepID=f"S{number}",
        ScheduledProcedureStepStatus="SCHEDULED", ScheduledProcedureStepDescription="CT head",
        ScheduledPerformingPhysicianName=person_name_value("Scanner^Sven"),
    )  # fmt: skip
    attributes = said(
        PatientName=person_name_value(name), PatientID=f"P{number}", PatientSex="F", PatientBirthDate="19700102",
        AccessionNumber=f"A{number}", StudyInstanceUID=f"1.2.3.{number}", RequestedProcedureID=f"R{number}",
        RequestedProcedureDescription="CT head", ReferringPhysicianName=person_name_value("Größe^Ute"),
        AdmissionID="", RequestingPhysician=person_name_value("Anforderer^Karl"),
    ) | {SPS_SEQUENCE: {"vr": "SQ", "Value": [step]}}  # fmt: skip
    return WorklistItem(number, 1, SPSStatus.SCHEDULED, attributes)


def test_another_server_serves_what_was_exported(tmp_path, findscu: Findscu) -> None:
    names = {1: "Ärmel^Änne", 2: "Иванова^Светлана", 3: "Yamada^Tarou=山田^太郎=やまだ^たろう"}
    folder = tmp_path / CALLED
    folder.mkdir()
    for number, name in names.items():
        (folder / f"item-{number}.wl").write_bytes(write_worklist_file(item(number, name)))
    with wlmscpfs(tmp_path, CALLED) as port:
        answers = {int(answer.PatientID[1:]): answer for answer in findscu(port, KEYS)}
    assert {number: str(answer.PatientName) for number, answer in answers.items()} == names
    for number, answer in answers.items():
        assert answer.StudyInstanceUID == f"1.2.3.{number}"
        assert answer.ScheduledProcedureStepSequence[0].ScheduledProcedureStepID == f"S{number}"
