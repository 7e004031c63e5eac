"""Orthanc, behind many small departments' devices, asks our worklist as SCU."""

from collections.abc import Iterator
from typing import Any

import pytest
from known_orders import CYRILLIC, KANJI, LATIN, MANY, MANY_STATION, NAMES_STATION, ORDERS, SHOWN
from orthanc import OrthancModality, orthanc_modality

from gateway.testing import ServiceProcess

pytestmark = pytest.mark.interop

FIRST, SECOND, JAPANESE, _ = ORDERS


@pytest.fixture(scope="module")
def orthanc(service: ServiceProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OrthancModality]:
    with orthanc_modality(tmp_path_factory.mktemp("orthanc"), service.dicom_port) as running:
        yield running


def asked(step: dict[str, str], **keys: Any) -> dict[str, Any]:
    """A modality's usual question, with these keys."""
    returned = {"Modality": "", "ScheduledStationAETitle": "", "ScheduledProcedureStepStartDate": ""}
    return {
        "AccessionNumber": "", "PatientName": "", "PatientID": "", "StudyInstanceUID": "",
        "ScheduledProcedureStepSequence": [returned | step], **keys,
    }  # fmt: skip


def names(answers: list[dict[str, Any]]) -> dict[str, str]:
    return {answer["AccessionNumber"]: answer["PatientName"] for answer in answers}


def test_orthanc_finds_us_by_echo(orthanc: OrthancModality) -> None:
    orthanc.echo()  # raises otherwise


def test_a_stations_list_has_its_items_with_their_values(orthanc: OrthancModality) -> None:
    answers = {a["AccessionNumber"]: a for a in orthanc.worklist(**asked({"ScheduledStationAETitle": "CT1"}))}
    assert set(answers) == {FIRST, SECOND}
    for accession, answer in answers.items():
        order = ORDERS[accession]
        assert answer["PatientID"] == order.person.patient_id
        assert answer["StudyInstanceUID"] == order.study_instance_uid
        assert answer["PatientName"] == order.person.name
        (step,) = answer["ScheduledProcedureStepSequence"]
        assert step == {
            "Modality": order.modality,
            "ScheduledStationAETitle": order.station,
            "ScheduledProcedureStepStartDate": f"{order.start:%Y%m%d}",
        }


def test_an_interval_over_midnight_is_one_interval(orthanc: OrthancModality) -> None:
    interval = {"ScheduledProcedureStepStartDate": "20260705-20260706", "ScheduledProcedureStepStartTime": "1000-0800"}
    answers = orthanc.worklist(**asked(interval))
    assert set(names(answers)) == {SECOND, JAPANESE}


def test_nobody_is_an_empty_answer(orthanc: OrthancModality) -> None:
    assert orthanc.worklist(**asked({}, PatientID="NOBODY")) == []


def test_a_busy_station_is_answered_whole(orthanc: OrthancModality) -> None:
    answers = orthanc.worklist(**asked({"ScheduledStationAETitle": MANY_STATION}))
    assert sorted(answer["PatientID"] for answer in answers) == [order.person.patient_id for order in MANY]


def test_names_in_every_script_are_shown_as_written(orthanc: OrthancModality) -> None:
    assert names(orthanc.worklist(**asked({"ScheduledStationAETitle": NAMES_STATION}))) == SHOWN


@pytest.mark.parametrize(
    ("encoding", "pattern", "accession"),
    [
        ("Latin1", "DÖR*", LATIN.accession),
        ("Cyrillic", "Сок*", CYRILLIC.accession),
        ("JapaneseKanji", "*鈴木*", KANJI.accession),
        ("Utf8", "*はなこ*", KANJI.accession),
    ],
)
def test_a_name_is_found_and_shown_in_the_encoding_that_orthanc_speaks(
    orthanc: OrthancModality, encoding: str, pattern: str, accession: str
) -> None:
    orthanc.speak(encoding)
    try:
        answers = orthanc.worklist(**asked({"ScheduledStationAETitle": NAMES_STATION}, PatientName=pattern))
    finally:
        orthanc.speak("Utf8")
    assert names(answers) == {accession: SHOWN[accession]}
