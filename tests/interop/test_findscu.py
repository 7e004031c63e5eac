"""DCMTK's echoscu and findscu, the toolkit in many modalities, ask our worklist in every shape they know."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from dcmtk import Findscu, run_program
from known_orders import MANY, MANY_STATION, NAMES_STATION, ORDERS, SHOWN
from pydicom.dataset import Dataset

from gateway.testing import ServiceProcess

pytestmark = pytest.mark.interop

STEP = "ScheduledProcedureStepSequence[0]."
FIRST, SECOND, JAPANESE, ULTRASOUND = ORDERS
EVERYBODY = set(ORDERS)

# What a device asks back in nearly every query.
RETURNED: Mapping[str, str] = {
    "AccessionNumber": "",
    "PatientName": "",
    "PatientID": "",
    "StudyInstanceUID": "",
    "RequestedProcedureID": "",
    f"{STEP}ScheduledStationAETitle": "",
    f"{STEP}ScheduledProcedureStepStartDate": "",
    f"{STEP}ScheduledProcedureStepStartTime": "",
    f"{STEP}Modality": "",
    f"{STEP}ScheduledProcedureStepID": "",
}


def accessions(answers: list[Dataset]) -> set[str]:
    """Which of the known orders were answered; none may come twice, and the busy station's do not count."""
    found = [str(answer.AccessionNumber) for answer in answers]
    assert len(found) == len(set(found))
    return set(found) & EVERYBODY


def test_echoscu_is_answered(service: ServiceProcess) -> None:
    done = run_program("echoscu", "-aec", "GATEWAY", "127.0.0.1", str(service.dicom_port))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        pytest.param({f"{STEP}ScheduledStationAETitle": "CT1"}, {FIRST, SECOND}, id="station"),
        pytest.param({f"{STEP}ScheduledStationAETitle": "ct1"}, set(), id="station in the wrong case"),
        pytest.param({f"{STEP}Modality": "MR"}, {JAPANESE}, id="modality"),
        pytest.param({f"{STEP}ScheduledProcedureStepStartDate": "20260706"}, {JAPANESE}, id="one day"),
        pytest.param(
            {f"{STEP}ScheduledProcedureStepStartDate": "20260705-20260706"}, {FIRST, SECOND, JAPANESE}, id="days"
        ),
        pytest.param(
            {f"{STEP}ScheduledProcedureStepStartDate": "20260706-20260731"}, {JAPANESE, ULTRASOUND}, id="more days"
        ),
        pytest.param({f"{STEP}ScheduledProcedureStepStartDate": "-20260705"}, {FIRST, SECOND}, id="until a day"),
        pytest.param(
            {
                f"{STEP}ScheduledProcedureStepStartDate": "20260705-20260706",
                f"{STEP}ScheduledProcedureStepStartTime": "1000-0800",
            },
            {SECOND, JAPANESE},
            id="one interval of date and time, over night",
        ),
        pytest.param(
            {
                f"{STEP}ScheduledProcedureStepStartDate": "20260705",
                f"{STEP}ScheduledProcedureStepStartTime": "1000-1900",
            },
            {SECOND},
            id="hours of one day",
        ),
        pytest.param({"PatientName": "brandt*"}, {FIRST}, id="name wildcard, another case"),
        pytest.param({"PatientName": "Brand*^J*"}, {FIRST, ULTRASOUND}, id="two wildcards"),
        pytest.param({"PatientName": "Brand?^Jens"}, {FIRST}, id="one letter open"),
        pytest.param({"PatientName": "*"}, EVERYBODY, id="lone star"),
        pytest.param({"PatientID": "PAT103"}, {ULTRASOUND}, id="patient ID"),
        pytest.param({"AccessionNumber": FIRST}, {FIRST}, id="accession"),
        pytest.param({"RequestedProcedureID": "R000000003"}, {JAPANESE}, id="requested procedure ID"),
        pytest.param({"StudyInstanceUID": "2.25.7000000002"}, {SECOND}, id="study"),
        pytest.param({"StudyInstanceUID": "2.25.7000000002\\2.25.7000000004"}, {SECOND, ULTRASOUND}, id="studies"),
        pytest.param({"PatientID": "PAT100", "AccessionNumber": SECOND}, set(), id="keys that exclude each other"),
        pytest.param({f"{STEP}ScheduledPerformingPhysicianName": "A*"}, set(), id="unknown physician never matches"),
        pytest.param({}, EVERYBODY, id="no key at all"),
    ],
)
def test_a_query_returns_exactly_the_matching_items(
    service: ServiceProcess, findscu: Findscu, keys: Mapping[str, str], expected: set[str]
) -> None:
    answers = findscu(service.dicom_port, {**RETURNED, **keys})
    assert accessions(answers) == expected
    for answer in answers:
        order = ORDERS.get(str(answer.AccessionNumber))
        if order is None:
            continue
        (step,) = answer.ScheduledProcedureStepSequence
        assert answer.StudyInstanceUID == order.study_instance_uid
        assert answer.PatientID == order.person.patient_id
        assert step.ScheduledStationAETitle == order.station
        assert step.ScheduledProcedureStepStartDate + step.ScheduledProcedureStepStartTime[:4] == (
            f"{order.start:%Y%m%d%H%M}"
        )


def test_an_answer_holds_only_what_was_asked_for(service: ServiceProcess, findscu: Findscu) -> None:
    (answer,) = findscu(service.dicom_port, {"AccessionNumber": FIRST, "PatientID": ""})
    assert {element.keyword for element in answer} == {"AccessionNumber", "PatientID"}


def test_an_empty_step_sequence_returns_the_whole_step(service: ServiceProcess, findscu: Findscu) -> None:
    (answer,) = findscu(service.dicom_port, {"AccessionNumber": FIRST, "ScheduledProcedureStepSequence": ""})
    (step,) = answer.ScheduledProcedureStepSequence
    assert step.Modality == "CT"
    assert step.ScheduledProcedureStepID == "S000000001"
    assert step.ScheduledProtocolCodeSequence[0].CodeValue == "P-CTHEAD"


def test_a_code_sequence_is_returned_in_the_shape_asked_for(service: ServiceProcess, findscu: Findscu) -> None:
    code = "RequestedProcedureCodeSequence[0]"
    (answer,) = findscu(service.dicom_port, {"AccessionNumber": FIRST, f"{code}.CodeMeaning": ""})
    (item,) = answer.RequestedProcedureCodeSequence
    assert item.CodeMeaning == "CT head plain"
    assert "CodeValue" not in item


@pytest.mark.parametrize(
    ("character_set", "pattern"),
    [("ISO_IR 100", "GRÜNEWALD*".encode("latin-1")), ("ISO_IR 192", "GRÜNEWALD*".encode())],
    ids=["Latin 1", "UTF-8"],
)
def test_umlauts_match_and_return_in_the_character_set_of_the_query(
    service: ServiceProcess, findscu: Findscu, character_set: str, pattern: bytes
) -> None:
    keys = {"SpecificCharacterSet": character_set, "PatientName": pattern, "AccessionNumber": ""}
    (answer,) = findscu(service.dicom_port, keys)
    assert answer.SpecificCharacterSet == character_set
    assert answer.PatientName == "Grünewald^Max"


def test_a_japanese_name_comes_whole_in_all_its_groups(service: ServiceProcess, findscu: Findscu) -> None:
    keys = {"SpecificCharacterSet": "ISO_IR 192", "PatientName": "*山田*".encode(), "AccessionNumber": ""}
    (answer,) = findscu(service.dicom_port, keys)
    assert answer.PatientName == "Yamada^Tarou=山田^太郎=やまだ^たろう"


def test_letters_are_not_lost_on_a_device_that_declares_no_character_set(
    service: ServiceProcess, findscu: Findscu
) -> None:
    (answer,) = findscu(service.dicom_port, {"AccessionNumber": JAPANESE, "PatientName": ""})
    assert answer.PatientName.ideographic == "山田^太郎"


@pytest.mark.parametrize("option", ["-x=", "-xe", "-xb", "-xd", "-xi"])
def test_every_proposal_of_transfer_syntaxes_finds_one_in_common(
    service: ServiceProcess, findscu: Findscu, option: str
) -> None:
    answers = findscu(service.dicom_port, {**RETURNED, f"{STEP}ScheduledStationAETitle": "CT1"}, option)
    assert accessions(answers) == {FIRST, SECOND}


def test_a_device_with_the_smallest_pdus_gets_a_long_answer_whole(service: ServiceProcess, findscu: Findscu) -> None:
    keys = {"PatientID": "", "ScheduledProcedureStepSequence": "", f"{STEP}ScheduledStationAETitle": MANY_STATION}
    answers = findscu(service.dicom_port, keys, "--max-pdu", "4096")
    assert len({answer.PatientID for answer in answers}) == len(MANY)


def test_a_device_that_cancels_gets_a_final_answer(service: ServiceProcess) -> None:
    keys = [f"{STEP}ScheduledStationAETitle={MANY_STATION}", "PatientName=", "AccessionNumber="]
    arguments = [argument for key in keys for argument in ("-k", key)]
    done = run_program(
        "findscu", "-W", "-v", "-aec", "GATEWAY", "--cancel", "2", *arguments, "127.0.0.1", str(service.dicom_port)
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert b"Sending Cancel Request" in said
    # Whether the cancel overtakes the rest of the answers is the network's to say (PS3.4 C.4.1.3): both ends are right.
    assert b"Received Final Find Response" in said


def test_a_device_that_calls_us_by_another_name_is_served(service: ServiceProcess) -> None:
    # Called AE titles are misconfigured more often than not; who may call is decided by the calling one.
    done = run_program("echoscu", "-aec", "SOMEBODYELSE", "127.0.0.1", str(service.dicom_port))
    assert done.returncode == 0, done.stderr


def shown(answer: Dataset, file: Path) -> str:
    """The patient's name in an answer as DCMTK decodes it.

    Debian's DCMTK leaves decoding to the C library's iconv, which lacks ISO 2022 IR 87; pydicom reads that instead.
    """
    if "ISO 2022 IR 87" in answer.get("SpecificCharacterSet", ""):
        return str(answer.PatientName)
    done = run_program("dcmdump", "-q", "+U8", "--search", "PatientName", str(file))
    assert done.returncode == 0, done.stderr
    return done.stdout.decode().partition("[")[2].partition("]")[0]


@pytest.mark.parametrize(
    "character_set",
    ["", "ISO_IR 100", "ISO_IR 144", "\\ISO 2022 IR 87", "GB18030", "ISO_IR 192"],
    ids=["none", "Latin 1", "Cyrillic", "Japanese", "Chinese", "UTF-8"],
)
def test_dcmtk_shows_every_name_as_written_whatever_character_set_it_asked_in(
    service: ServiceProcess, findscu: Findscu, tmp_path: Path, character_set: str
) -> None:
    keys = {
        **RETURNED,
        "SpecificCharacterSet": character_set,
        f"{STEP}ScheduledStationAETitle": NAMES_STATION,
    }
    answers = findscu(service.dicom_port, keys)
    files = sorted(tmp_path.rglob("rsp*.dcm"))
    assert {str(a.AccessionNumber): shown(a, f) for a, f in zip(answers, files, strict=True)} == SHOWN


ODD = f"""
(0008,0000) UL 9
(0008,0005) CS
(0008,0050) SH
(0009,0010) LO [SOME VENDOR]
(0009,1001) UN 00\\01\\02
(0010,0000) UL 9
(0010,0010) PN [*]
(0010,0020) LO [PATN0*  ]
(0020,000d) UI
(0040,0000) UL 9
(0040,0100) SQ
(fffe,e000) -
(0008,0060) CS [*]
(0040,0001) AE [ {NAMES_STATION} ]
(0040,0002) DA [*]
(0040,0006) PN [**]
(fffe,e00d) -
(fffe,e0dd) -
(0088,0200) SQ
(fffe,e0dd) -
"""
"""What devices send: group lengths, an empty character set, a private block, padded and star-only values, a sequence
of no worklist."""


@pytest.mark.parametrize("lengths", ["+e", "-e"], ids=["explicit lengths", "undefined lengths"])
@pytest.mark.parametrize("proposal", ["-xi", "-xe", "-xd"], ids=["implicit", "explicit", "deflated"])
def test_a_query_file_of_odd_elements_is_answered(
    service: ServiceProcess, findscu: Findscu, tmp_path: Path, lengths: str, proposal: str
) -> None:
    text, query = tmp_path / "odd.dump", tmp_path / "odd.dcm"
    text.write_text(ODD, encoding="ascii")
    # Group lengths stay, corrected; findscu sends them on.
    made = run_program("dump2dcm", "-q", "+Fu", "+g=", lengths, str(text), str(query))
    assert made.returncode == 0, made.stderr
    answers = findscu(service.dicom_port, {}, proposal, query_file=query)
    assert {str(answer.AccessionNumber) for answer in answers} == set(SHOWN)
    assert {str(answer.PatientName) for answer in answers} == set(SHOWN.values())


def test_a_device_that_aborts_after_its_answer_is_forgotten(service: ServiceProcess, findscu: Findscu) -> None:
    keys = {**RETURNED, f"{STEP}ScheduledStationAETitle": NAMES_STATION}
    assert len(findscu(service.dicom_port, keys, "--abort")) == len(SHOWN)
    assert len(findscu(service.dicom_port, keys)) == len(SHOWN)
