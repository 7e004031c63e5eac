"""Identifiers as consoles were seen to send them, whole, against a gateway that listens."""

import itertools
from collections.abc import Callable

import pytest
from consoles import (
    ACCESSION,
    CHARACTER_SET,
    DAY,
    EXPLICIT,
    MODALITY,
    NAME,
    PATIENT_ID,
    STATION,
    STEP,
    STUDY,
    TIME,
    Ask,
    explicit_key,
    item,
    key,
    open_sequence,
    step,
)
from field_department import IMPORTED, MANY, ORDERS, ROOM, STARTED
from pydicom.uid import UID

EVERYBODY = {order.accession for order in ORDERS} - {STARTED.accession} | {IMPORTED}  # another test finishes that one
REFERENCED_STUDY, REFERENCED_PATIENT = 0x00081110, 0x00081120


def code(tag: int) -> bytes:
    """A code sequence whose item has every part and no value."""
    return key(tag, item(key(0x00080100), key(0x00080102), key(0x00080103), key(0x00080104)))


def reference(tag: int) -> bytes:
    return key(tag, item(key(0x00081150), key(0x00081155)))


def console(station: str, name: str = "* ", reference: Callable[[int], bytes] = reference) -> bytes:
    """All that a console asks for, with what surrounds it: group lengths, retired elements, padding, empty items."""
    scheduled = step(
        key(0x00080000, b"\x0c\0\0\0"),
        key(MODALITY, "US"),
        key(0x00321070),
        key(0x00400000, b"\xff\xff\0\0"),
        key(STATION, station.ljust(16)),
        key(DAY, "20260705-20260706"),
        key(TIME),
        key(0x00400006, "* "),
        key(0x00400007),
        code(0x00400008),
        key(0x00400009),
        key(0x00400010),
        key(0x00400011),
        key(0x00400012),
    )
    return b"".join([
        key(0x00080000, b"\x4e\0\0\0"),
        key(0x00080001, b"\x4e\x01\0\0"),
        key(CHARACTER_SET),
        key(ACCESSION),
        key(0x00080090),
        reference(REFERENCED_STUDY),
        reference(REFERENCED_PATIENT),
        key(0x00100000, b"\x10\0\0\0"),
        key(NAME, name),
        key(PATIENT_ID),
        key(0x00100030),
        key(0x00100040),
        key(0x00101030),
        key(0x00102000),
        key(0x00102110),
        key(0x001021C0),
        key(0x00200000, b"\x08\0\0\0"),
        key(STUDY),
        key(0x00321032),
        key(0x00321060),
        code(0x00321064),
        key(0x00380010),
        key(0x00380050),
        key(0x00380300),
        key(0x00380500),
        key(0x00400000, b"\x08\0\0\0"),
        scheduled,
        key(0x00401001),
        key(0x00401003),
        key(0x00401004),
        key(0x00403001),
    ])  # fmt: skip


_REFERENCES: dict[str, Callable[[int], bytes]] = {
    "an item of empty elements": reference,
    "an item of nothing": lambda tag: key(tag, item()),
    "no item": key,
    "no item and an open end": open_sequence,
}


@pytest.mark.parametrize(("name", "form"), list(itertools.product(["* ", "*", "", "**", " "], _REFERENCES)))
def test_the_query_of_a_whole_console_is_answered_with_every_key_it_asks_for(ask: Ask, name: str, form: str) -> None:
    answer = ask(console("ROOM7", name, _REFERENCES[form]))
    assert (answer.accessions, answer.status) == ({ROOM.accession}, "0000")
    (found,) = answer.items
    wanted = {"AccessionNumber", "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "PregnancyStatus",
              "ReferencedStudySequence", "ReferencedPatientSequence", "StudyInstanceUID", "RequestedProcedureID",
              "RequestedProcedureCodeSequence", "AdmissionID", "SpecialNeeds", "CurrentPatientLocation",
              "PatientState", "RequestedProcedurePriority", "PatientTransportArrangements"}  # fmt: skip
    assert wanted <= {element.keyword for element in found}
    assert found.ScheduledProcedureStepSequence[0].ScheduledStationAETitle == "ROOM7"
    assert not [element for element in found if element.tag.element == 0]


def test_a_padded_ae_title_excludes_the_others_as_a_bare_one_does(ask: Ask) -> None:
    assert ask(console("ROOM8")).items == ()


def test_a_name_that_is_more_than_stars_still_counts(ask: Ask) -> None:
    assert ask(console("ROOM7", "Nobody* ")).items == ()


def test_a_query_without_the_step_sequence_is_answered(ask: Ask) -> None:
    answer = ask(key(ACCESSION) + key(PATIENT_ID, ROOM.person.patient_id + " ") + key(STUDY))
    assert answer.accessions == {ROOM.accession}
    assert "ScheduledProcedureStepSequence" not in answer.items[0]


@pytest.mark.parametrize("sequence", [key(STEP), open_sequence(STEP), step()], ids=["empty", "open", "an empty item"])
def test_a_step_sequence_that_asks_for_nothing_excludes_nobody(ask: Ask, sequence: bytes) -> None:
    answer = ask(key(ACCESSION) + sequence)
    assert answer.accessions >= EVERYBODY
    assert all(found.ScheduledProcedureStepSequence[0].Modality for found in answer.items)


@pytest.mark.parametrize(
    "odd",
    [
        pytest.param(explicit_key(0x00101030, "UN"), id="an unknown VR without a value"),
        pytest.param(explicit_key(0x00120010, "UN", b"\0\1\2\3"), id="an unknown VR with a value"),
        pytest.param(explicit_key(0x001021C0, "US"), id="an empty number"),
        pytest.param(explicit_key(0x00080096, "UN", item()), id="a sequence of unknown VR"),
        pytest.param(explicit_key(REFERENCED_STUDY, "SQ"), id="an empty sequence"),
    ],
)
def test_unknown_vrs_and_null_fields_spoil_nothing(ask: Ask, odd: bytes) -> None:
    keys = sorted(
        [
            explicit_key(ACCESSION, "SH"),
            odd,
            explicit_key(STEP, "SQ", item(explicit_key(STATION, "UN", "MANY"))),
        ],
        key=lambda each: (each[1] << 8 | each[0], each[3] << 8 | each[2]),
    )
    assert ask(b"".join(keys), syntax=EXPLICIT).accessions == {order.accession for order in MANY}


CREATOR, COIL = 0x00090010, 0x00091001


@pytest.mark.parametrize(
    ("maker", "value", "found"),
    [
        ("INVENTED MAKER", "Coil 8", True),
        ("INVENTED MAKER", "Coil 9", False),
        ("ANOTHER MAKER ", "Coil 9", True),
    ],
    ids=["the value held", "another value", "another maker's attribute is none of the item's"],
)
def test_a_private_key_counts_with_its_creator(ask: Ask, maker: str, value: str, found: bool) -> None:
    answer = ask(key(ACCESSION) + key(CREATOR, maker) + key(COIL, value) + step(key(STATION, "TAKEN ")))
    assert answer.accessions == ({IMPORTED} if found else set())
    if maker == "INVENTED MAKER" and found:
        assert answer.items[0][COIL].value in ("Coil 8", b"Coil 8")
        assert answer.pending == ("FF00",)


def test_the_study_comes_with_every_form_of_identifier(ask: Ask) -> None:
    (found,) = ask(console("ROOM7")).items
    assert UID(found.StudyInstanceUID) == ROOM.study_instance_uid
