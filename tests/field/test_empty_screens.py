"""Items were sent and the console shows none, or cannot report on what it shows: every key, where it belongs."""

from collections.abc import Iterable

import pytest
from consoles import STATION, STEP, Ask, item, key, of_station
from field_department import BARE, IMPORTED, ROOM
from pydicom.dataset import Dataset

from gateway.domain.attributes import ATTRIBUTES, Attribute, Level
from gateway.testing import ImagingOrder, ServiceProcess, SimulatedModality, SimulatedRIS, bare_orm
from gateway.testing.ris import Draft

TOP = [row for row in ATTRIBUTES if row.level not in (Level.STEP, Level.NESTED, Level.IDENTIFIER)]
INSIDE = [row for row in ATTRIBUTES if row.level is Level.STEP]


def everything_of(station: str) -> bytes:
    """Every attribute of the worklist by name: what a console may ask for that hides items which lack one."""
    inside = {int(row.tag, 16): key(int(row.tag, 16)) for row in INSIDE} | {STATION: key(STATION, station)}
    top = {int(row.tag, 16): key(int(row.tag, 16)) for row in TOP}
    top[STEP] = key(STEP, item(*(inside[tag] for tag in sorted(inside))))
    return b"".join(top[tag] for tag in sorted(top))


def lacking(rows: Iterable[Attribute], found: Dataset, types: str) -> list[str]:
    """The keys of these return types that are not there, or of type 1 and without a value."""
    return [
        row.keyword
        for row in rows
        if row.return_type in types
        and (row.keyword not in found or (row.return_type == "1" and not found[row.keyword].value))
    ]


def test_every_key_of_types_1_and_2_comes_back_and_type_1_with_a_value(ask: Ask) -> None:
    (found,) = ask(everything_of("ROOM7 ")).items
    assert lacking(TOP, found, "12") == []
    assert lacking(INSIDE, found.ScheduledProcedureStepSequence[0], "12") == []


def test_attributes_of_the_step_stand_in_the_step_and_nowhere_else(ask: Ask) -> None:
    step = key(STEP, item(key(STATION, "ROOM7 "), key(0x00400002), key(0x00400009)))
    on_top_too = key(0x00080060) + key(STATION) + key(0x00400002) + step + key(0x00401001)
    (found,) = ask(on_top_too).items
    assert {row.keyword for row in INSIDE} & {element.keyword for element in found} == set()
    assert found.RequestedProcedureID == ROOM.requested_procedure_id
    (scheduled,) = found.ScheduledProcedureStepSequence
    assert scheduled.ScheduledStationAETitle == "ROOM7"
    assert scheduled.ScheduledProcedureStepStartDate == f"{ROOM.start:%Y%m%d}"
    assert scheduled.ScheduledProcedureStepID == ROOM.sps_id


def step_of_mr() -> bytes:
    """The bare order's step: the catalogue sends it to MR1 or MR2."""
    return key(STEP, item(key(0x00080060, "MR"), key(STATION, "MR1 "), key(0x00400002, f"{BARE.start:%Y%m%d}")))


def step_of(station: str) -> bytes:
    return key(STEP, item(key(STATION, station)))


def test_a_study_that_the_ris_did_not_name_has_a_uid_that_stays(ask: Ask) -> None:
    asked = key(0x0020000D) + key(0x00321060) + step_of_mr()
    first, second = ask(asked), ask(asked, "MR2")
    (study,) = {str(found.StudyInstanceUID) for found in first.items}
    assert study
    assert {str(found.StudyInstanceUID) for found in second.items} == {study}


def test_a_study_that_the_ris_did_not_name_can_be_reported_on(service: ServiceProcess) -> None:
    modality = SimulatedModality(service.host, service.dicom_port, "MR1")
    keys = {"Modality": "MR", "ScheduledStationAETitle": "MR1", "PatientID": BARE.person.patient_id}
    (found,) = modality.worklist(**keys)
    uid = modality.start(found)
    assert [
        each.ScheduledProcedureStepSequence[0].ScheduledProcedureStepStatus for each in modality.worklist(**keys)
    ] == ["STARTED"]
    modality.discontinue(uid)
    assert len(modality.worklist(**keys)) == 1


def test_a_bare_procedure_code_becomes_a_modality_and_its_stations(ask: Ask) -> None:
    (found,) = ask(of_station("MR2 ", key(0x00400002, f"{BARE.start:%Y%m%d}"))).items
    (scheduled,) = found.ScheduledProcedureStepSequence
    assert list(scheduled.ScheduledStationAETitle) == ["MR1", "MR2"]
    assert ask(key(0x00080050) + step_of_mr()).items


def test_an_order_without_a_start_is_refused_to_its_sender_and_not_kept_off_the_list_in_silence(
    service: ServiceProcess,
) -> None:
    order = ImagingOrder(81, BARE.person, BARE.start)
    timeless = bare_orm(order)
    segments = tuple(each.replace(f"1^^^{order.start:%Y%m%d%H%M%S}^^R", "") for each in timeless.segments)
    with SimulatedRIS(service.host, service.hl7_port, "TIMELESS") as ris:
        answer = ris.send(Draft(timeless.message_type, timeless.version, segments))
    assert answer.code == "AE"
    assert "ScheduledProcedureStepStartDate" in answer.text


@pytest.mark.parametrize(
    ("calling", "priority"), [("CT1", ""), ("FILLED", "ROUTINE")], ids=["a plain console", "one that hides items"]
)
def test_what_an_item_lacks_is_filled_for_the_console_that_hides_it_otherwise(
    ask: Ask, calling: str, priority: str
) -> None:
    (found,) = ask(key(0x00080050) + key(0x00080090) + step_of("TAKEN ") + key(0x00401003), calling).items
    assert found.AccessionNumber == IMPORTED
    assert (found.RequestedProcedurePriority or "") == priority
    assert str(found.ReferringPhysicianName or "") == ("UNKNOWN" if priority else "")
