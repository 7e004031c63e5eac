"""A modality reports: N-CREATE and N-SET as datasets, over dictionaries instead of a store.

The numbers in test names are those of the MPPS test vectors of PS3.4 F.7 as this project lists them.
"""

import struct
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from doubles import MPPSUnit, ScheduledStep
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.discontinuation import Consequence, consequence
from gateway.domain.identifiers import Identifier, Issuer, Issuers
from gateway.domain.performed import MPPSState, Operation, PerformedStep
from gateway.domain.performed_rules import STRICT, Rules
from gateway.domain.refusal import RefusalKind
from gateway.domain.worklist import SPSStatus
from gateway.wire.dicom_json import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN, write_attributes
from gateway.wire.mpps_dataset import read_step
from gateway.workflow.linking import PatientIssuers
from gateway.workflow.perform import (
    ARCHIVED_REASONS_CHARS_MAX,
    PerformAnswer,
    attribute_list,
    close_step,
    create_step,
    get_step,
    link_waiting,
    set_step,
)
from gateway.workflow.performed_effects import Effect, take_effect
from gateway.workflow.performed_request import PerformRequest, read_request

AT = datetime(2024, 1, 2, 9, 0, tzinfo=UTC)
UID = "2.25.1"
HOSPITAL = Identifier("P1", "HOSPITAL")
ISSUERS = PatientIssuers(Issuers([Issuer("HOSPITAL", frozenset({"HOSP"}), frozenset({"1.2.3"}))]), default="HOSPITAL")


def valued(vr: str, *values: Any) -> dict[str, Any]:
    return {"vr": vr, "Value": list(values)} if values else {"vr": vr}


def names(study: str = "2.25.100", sps_id: str = "S1", accession: str = "A1", procedure: str = "R1") -> dict[str, Any]:
    """An item of the Scheduled Step Attributes Sequence."""
    return {
        "0020000D": valued("UI", study), "00081110": valued("SQ"), "00080050": valued("SH", accession),
        "00401001": valued("SH", procedure), "00321060": valued("LO"), "00400009": valued("SH", sps_id),
        "00400007": valued("LO"), "00400008": valued("SQ"),
    }  # fmt: skip


def step(*items: dict[str, Any], patient_id: str = "P1", **more: dict[str, Any]) -> dict[str, Any]:
    """A whole N-CREATE; `more` replaces attributes by `t` and the tag."""
    said = {
        "00400270": valued("SQ", *(items or (names(),))),
        "00100010": valued("PN", {"Alphabetic": "Doe^Jane"}), "00100020": valued("LO", patient_id),
        "00100030": valued("DA"), "00100040": valued("CS"), "00081120": valued("SQ"),
        "00400253": valued("SH", "PPS1"), "00400241": valued("AE", "CT1"), "00400242": valued("SH"),
        "00400243": valued("SH"), "00400244": valued("DA", "20240102"), "00400245": valued("TM", "0900"),
        "00400252": valued("CS", "IN PROGRESS"), "00400254": valued("LO"), "00400255": valued("LO"),
        "00081032": valued("SQ"), "00400250": valued("DA"), "00400251": valued("TM"), "00080060": valued("CS", "CT"),
        "00200010": valued("SH"), "00400260": valued("SQ"), "00400340": valued("SQ"),
    }  # fmt: skip
    return {**said, **{tag.removeprefix("t"): held for tag, held in more.items()}}


def series(uid: str, description: str = "Head") -> dict[str, Any]:
    return {
        "0020000E": valued("UI", uid), "00181030": valued("LO", "Head"), "00081050": valued("PN"),
        "00081070": valued("PN"), "0008103E": valued("LO", description), "00080054": valued("AE"),
        "00081140": valued("SQ"), "00400220": valued("SQ"),
    }  # fmt: skip


def status(value: str, *reasons: str) -> dict[str, Any]:
    said = {"00400252": valued("CS", value)}
    if reasons:
        codes = [
            {"00080100": valued("SH", code), "00080102": valued("SH", "DCM"), "00080104": valued("LO", "why")}
            for code in reasons
        ]
        said["00400281"] = valued("SQ", *codes)
    return said


END = {"00400250": valued("DA", "20240102"), "00400251": valued("TM", "0930")}
COMPLETE = {**status("COMPLETED"), **END, "00400340": valued("SQ", series("2.25.5"))}


def request(attributes: dict[str, Any] | bytes, uid: str = UID, implicit: bool = False) -> PerformRequest:
    syntax = IMPLICIT_VR_LITTLE_ENDIAN if implicit else EXPLICIT_VR_LITTLE_ENDIAN
    raw = attributes if isinstance(attributes, bytes) else write_attributes(attributes, syntax, ())
    return PerformRequest(uid, "CT1", syntax, raw)


def do_create(
    unit: MPPSUnit, attributes: dict[str, Any] | bytes | None = None, uid: str = UID, rules: Rules | None = None
) -> PerformAnswer:
    said = step() if attributes is None else attributes
    read = read_request(Operation.CREATE, request(said, uid))
    return create_step(unit, read, AT, rules or Rules(), ISSUERS)  # type: ignore[arg-type]


def do_set(
    unit: MPPSUnit, attributes: dict[str, Any] | bytes, uid: str = UID, rules: Rules | None = None
) -> PerformAnswer:
    read = read_request(Operation.SET, request(attributes, uid))
    return set_step(unit, read, AT, rules or Rules())  # type: ignore[arg-type]


def do_close(unit: MPPSUnit, state: MPPSState, uid: str = UID, reason: str = "") -> PerformAnswer:
    return close_step(unit, uid, state, "a.person", AT, reason=reason)  # type: ignore[arg-type]


def shown(answer: PerformAnswer, syntax: str = EXPLICIT_VR_LITTLE_ENDIAN) -> dict[str, Any]:
    """The data set of an answer."""
    assert answer.dataset is not None
    return read_step(answer.dataset, syntax)[0]


@pytest.fixture
def unit() -> MPPSUnit:
    unit = MPPSUnit()
    unit.add_patient(1, HOSPITAL)
    unit.add_patient(2, Identifier("P2", "HOSPITAL"))
    unit.add_step(ScheduledStep(11, 1, "2.25.100", "S1", "A1", "R1"))
    return unit


def item(unit: MPPSUnit, step_id: int = 11) -> SPSStatus:
    return unit.scheduled[step_id].status


# --- the vectors


def test_vector_1_a_whole_step_is_created_linked_and_starts_its_item(unit):
    answer = do_create(unit)
    assert answer.status == 0x0000
    assert answer.refusals == answer.notes == ()
    assert item(unit) is SPSStatus.STARTED
    held = unit.performed[UID]
    assert (held.state, held.steps, held.patient_id, held.quarantined) == (MPPSState.IN_PROGRESS, (11,), 1, False)
    assert held.calling_ae_title == "CT1"
    assert [(change.step_id, change.after) for change in answer.changes] == [(11, SPSStatus.STARTED)]
    assert unit.history == [(11, SPSStatus.STARTED, f"MPPS IN PROGRESS {UID}")]


def test_vector_2_the_same_uid_again_is_a_duplicate_also_with_the_same_bytes(unit):
    do_create(unit)
    assert do_create(unit).status == 0x0111
    assert do_create(unit, step(t00400253=valued("SH", "OTHER"))).status == 0x0111
    assert do_create(unit, b"garbage that is no dataset").status == 0x0111
    assert unit.performed[UID].attributes["00400253"] == valued("SH", "PPS1")


def test_vector_3_a_step_is_not_created_completed(unit):
    answer = do_create(unit, {**step(), **COMPLETE})
    assert (answer.status, answer.attribute_tags) == (0x0106, (0x00400252,))
    assert unit.performed == {}


def test_vectors_4_5_6_what_is_missing_or_empty_is_named(unit):
    absent = step()
    del absent["00400253"]
    answer = do_create(unit, absent)
    assert (answer.status, answer.attribute_tags) == (0x0120, (0x00400253,))
    assert do_create(unit, step(t00400241=valued("AE"))).status == 0x0121
    absent = step()
    del absent["00400270"]
    assert do_create(unit, absent).status == 0x0120
    assert do_create(unit, {**step(), "00400270": valued("SQ")}).status == 0x0121
    assert item(unit) is SPSStatus.SCHEDULED


def test_vector_7_a_set_without_status_leaves_the_step_in_progress(unit):
    do_create(unit)
    answer = do_set(unit, {"00400340": valued("SQ", series("2.25.5"))})
    assert answer.status == 0x0000
    assert unit.performed[UID].state is MPPSState.IN_PROGRESS
    assert answer.changes == ()


def test_vector_8_a_sequence_is_replaced_whole(unit):
    do_create(unit)
    do_set(unit, {"00400340": valued("SQ", series("2.25.5"))})
    do_set(unit, {"00400340": valued("SQ", series("2.25.6"))})
    held = unit.performed[UID].attributes["00400340"]["Value"]
    assert [item["0020000E"]["Value"] for item in held] == [["2.25.6"]]


def test_vector_9_a_changed_name_is_refused_or_left_out_with_a_warning(unit):
    do_create(unit)
    said = {"00100010": valued("PN", {"Alphabetic": "Roe^Ann"}), "00400254": valued("LO", "Head CT")}
    strict = do_set(unit, said, rules=STRICT)
    assert (strict.status, strict.attribute_tags) == (0x0106, (0x00100010,))
    lenient = do_set(unit, said)
    assert (lenient.status, lenient.attribute_tags) == (0x0107, (0x00100010,))
    held = unit.performed[UID].attributes
    assert held["00100010"] == valued("PN", {"Alphabetic": "Doe^Jane"})
    assert held["00400254"] == valued("LO", "Head CT")


def test_vector_10_a_reason_that_was_never_created_is_taken_unless_strict(unit):
    do_create(unit)
    said = status("DISCONTINUED", "110501")
    assert do_set(unit, said, rules=Rules(no_changes=True)).status == 0x0106
    assert do_set(unit, said).status == 0x0000
    assert item(unit) is SPSStatus.SCHEDULED


def test_vector_11_completion_without_end_is_refused_or_noted(unit):
    do_create(unit)
    said = {tag: held for tag, held in COMPLETE.items() if tag != "00400250"}
    strict = do_set(unit, said, rules=STRICT)
    assert (strict.status, strict.attribute_tags) == (0x0121, (0x00400250,))
    assert unit.performed[UID].state is MPPSState.IN_PROGRESS
    lenient = do_set(unit, said)
    assert lenient.status == 0x0000
    assert lenient.notes == ("(0040,0250) has no value in a final state",)


def test_vectors_12_13_completion_is_final_and_takes_the_item_off(unit):
    do_create(unit, rules=STRICT)
    assert do_set(unit, COMPLETE, rules=STRICT).status == 0x0000
    assert item(unit) is SPSStatus.COMPLETED
    for said in ({}, COMPLETE, status("IN PROGRESS"), b"no dataset"):
        answer = do_set(unit, said)
        assert (answer.status, answer.error_id) == (0x0110, 0xA710)
        assert answer.comment == "Performed Procedure Step Object may no longer be updated"
    assert item(unit) is SPSStatus.COMPLETED


def test_vector_14_a_set_for_an_unknown_step_is_no_such_instance(unit):
    assert do_set(unit, COMPLETE).status == 0x0112
    assert do_set(unit, b"no dataset").status == 0x0112


def test_vector_18_character_sets_of_create_and_set_may_differ(unit):
    def text(tag: str, vr: str, value: bytes) -> bytes:
        value += b" " * (len(value) % 2)
        return (
            struct.pack("<HH", int(tag[:4], 16), int(tag[4:], 16)) + vr.encode() + struct.pack("<H", len(value)) + value
        )

    latin = step()
    del latin["00100010"]
    name = text("00080005", "CS", b"ISO_IR 100") + text("00100010", "PN", "Müller^Jörg".encode("latin-1"))
    do_create(unit, name + write_attributes(latin, EXPLICIT_VR_LITTLE_ENDIAN, ()))
    kanji = {"00400340": valued("SQ", series("2.25.5", "頭部"))}
    answer = do_set(unit, write_attributes(kanji, EXPLICIT_VR_LITTLE_ENDIAN, ("ISO_IR 192",)))
    assert answer.status == 0x0000
    held = unit.performed[UID].attributes
    assert held["00100010"] == valued("PN", {"Alphabetic": "Müller^Jörg"})
    assert held["00400340"]["Value"][0]["0008103E"] == valued("LO", "頭部")


# --- requests as they come


@pytest.mark.parametrize("uid", ["", "not a uid", "1..2"])
def test_a_request_without_a_proper_uid_is_refused_and_archived(unit, uid):
    assert do_create(unit, uid=uid).status == 0x0117
    assert do_set(unit, {}, uid=uid).status == 0x0117
    assert [line[4] for line in unit.archive] == [0x0117, 0x0117]


def test_a_uid_that_is_only_in_the_dataset_is_taken_from_there(unit):
    assert do_create(unit, step(t00080018=valued("UI", UID)), uid="").status == 0x0000
    assert unit.archive[-1][0] == UID


def test_padding_of_the_uid_is_forgiven(unit):
    do_create(unit, uid=UID + "\0")
    assert do_set(unit, COMPLETE, uid=UID).status == 0x0000


def test_a_dataset_that_cannot_be_read_is_refused_with_its_reason_kept(unit):
    whole = write_attributes(step(), EXPLICIT_VR_LITTLE_ENDIAN, ())
    answer = do_create(unit, whole[:-3])
    assert (answer.status, answer.error_id) == (0x0110, None)
    assert answer.comment
    assert unit.archive[-1][3] == whole[:-3]
    assert unit.archive[-1][5] != ""
    do_create(unit)
    assert do_set(unit, whole[:-3]).status == 0x0110
    assert unit.performed[UID].state is MPPSState.IN_PROGRESS


def test_implicit_and_explicit_datasets_come_to_the_same(unit):
    for uid, implicit in (("2.25.1", True), ("2.25.2", False)):
        create_step(unit, read_request(Operation.CREATE, request(step(), uid, implicit)), AT)  # type: ignore[arg-type]
    assert unit.performed["2.25.1"].attributes == unit.performed["2.25.2"].attributes == step()


def test_every_outcome_is_archived_as_received(unit):
    do_create(unit)
    do_create(unit)
    do_set(unit, status("IN PROGRESS"))
    do_set(unit, COMPLETE)
    do_set(unit, COMPLETE)
    assert [(line[1], line[4]) for line in unit.archive] == [
        ("N-CREATE", 0x0000), ("N-CREATE", 0x0111), ("N-SET", 0x0000), ("N-SET", 0x0000), ("N-SET", 0x0110),
    ]  # fmt: skip
    assert unit.archive[0][:4] == (UID, "N-CREATE", "CT1", request(step()).raw)


def test_archived_reasons_are_bounded_and_hold_no_values(unit):
    bare = [{"00181030": valued("LO", "Secret")} for _ in range(500)]
    do_create(unit)
    assert do_set(unit, {"00400340": valued("SQ", *bare)}).status == 0x0000
    reasons = unit.archive[-1][5]
    assert len(reasons) == ARCHIVED_REASONS_CHARS_MAX
    assert "Secret" not in reasons


def test_in_progress_said_again_in_a_set_that_names_nobody_changes_nothing(unit):
    """A console in the field does this (MinXray)."""
    do_create(unit)
    assert do_set(unit, {**status("IN PROGRESS"), "00100020": valued("LO")}).status in (0x0000, 0x0107)
    assert item(unit) is SPSStatus.STARTED
    assert len(unit.history) == 1


# --- linking


@pytest.mark.parametrize(
    "reference",
    [
        names(),
        names(accession="", procedure=""),
        names(sps_id="", accession="", procedure=""),
        names(sps_id="made at the console"[:16]),
        names(study="2.25.999"),
        names(study="2.25.999", sps_id=""),
    ],
    ids=["all", "study and step", "study", "study, other step", "accession and procedure", "the same, no step"],
)
def test_a_step_is_found_by_study_and_step_then_study_then_accession_and_procedure(unit, reference):
    assert do_create(unit, step(reference)).status == 0x0000
    assert unit.performed[UID].steps == (11,)
    assert item(unit) is SPSStatus.STARTED


@pytest.mark.parametrize(
    "reference",
    [
        names(study="2.25.999", accession="", procedure=""),
        names(study="2.25.999", accession="A1", procedure=""),
        names(study="2.25.999", accession="", procedure="R1"),
        names(study="2.25.999", accession="A9", procedure="R1"),
    ],
)
def test_an_unknown_step_is_accepted_and_kept_unlinked(unit, reference):
    answer = do_create(unit, step(reference))
    assert answer.status == 0x0000
    assert answer.notes == ("names a scheduled step that is not held",)
    assert unit.performed[UID].steps == ()
    assert unit.performed[UID].waits
    assert unit.performed[UID].patient_id == 1
    assert item(unit) is SPSStatus.SCHEDULED
    assert do_set(unit, COMPLETE).status == 0x0000


def test_an_unknown_patient_with_an_unknown_step_is_accepted(unit):
    assert do_create(unit, step(names("2.25.999", "", "", ""), patient_id="P77")).status == 0x0000
    assert unit.performed[UID].patient_id is None
    assert not unit.performed[UID].quarantined


def test_of_several_steps_the_other_keys_choose_and_without_them_none_is_taken(unit):
    unit.add_step(ScheduledStep(12, 1, "2.25.100", "S2", "A1", "R2"))
    do_create(unit, step(names(sps_id="", procedure="R2")), "2.25.1")
    assert unit.performed["2.25.1"].steps == (12,)
    answer = do_create(unit, step(names(sps_id="", accession="", procedure="")), "2.25.2")
    assert answer.status == 0x0000
    assert unit.performed["2.25.2"].steps == ()
    assert answer.notes == ("names scheduled steps without saying which; not linked to any of them",)


def test_a_group_may_have_one_study_for_steps_of_several_orders(unit):
    first, second = (names(sps_id=f"S{n}", accession=f"A{n}", procedure=f"R{n}") for n in (1, 2))
    unit.add_step(ScheduledStep(12, 1, "2.25.200", "S2", "A2", "R2"))
    do_create(unit, step(first, second))
    assert unit.performed[UID].steps == (11, 12)


def test_a_group_starts_and_ends_every_step_it_names(unit):
    unit.add_step(ScheduledStep(12, 1, "2.25.200", "S2", "A2", "R2"))
    do_create(unit, step(names(), names("2.25.200", "S2", "A2", "R2"), names("2.25.300", "S3", "A3", "R3")))
    assert unit.performed[UID].steps == (11, 12)
    assert (item(unit), item(unit, 12)) == (SPSStatus.STARTED, SPSStatus.STARTED)
    do_set(unit, COMPLETE)
    assert (item(unit), item(unit, 12)) == (SPSStatus.COMPLETED, SPSStatus.COMPLETED)


# --- effects


def test_an_appended_step_reopens_the_item_and_only_the_last_one_completes_it(unit):
    do_create(unit, uid="2.25.1")
    do_set(unit, COMPLETE, "2.25.1")
    do_create(unit, uid="2.25.2")
    assert item(unit) is SPSStatus.STARTED
    do_create(unit, uid="2.25.3")
    do_set(unit, COMPLETE, "2.25.2")
    assert item(unit) is SPSStatus.STARTED
    do_set(unit, status("DISCONTINUED", "110510"), "2.25.3")
    assert item(unit) is SPSStatus.COMPLETED


@pytest.mark.parametrize(
    ("reasons", "after"),
    [
        ((), SPSStatus.SCHEDULED),
        (("110501",), SPSStatus.SCHEDULED),
        (("110514",), SPSStatus.SCHEDULED),
        (("110510",), SPSStatus.DISCONTINUED),
        (("110500",), SPSStatus.DISCONTINUED),
    ],
)
def test_a_discontinued_step_returns_its_item_unless_the_reason_gives_it_up(unit, reasons, after):
    do_create(unit)
    do_set(unit, status("DISCONTINUED", *reasons))
    assert item(unit) is after


def test_the_wrong_worklist_entry_is_taken_back_and_the_right_one_starts(unit):
    unit.add_step(ScheduledStep(12, 2, "2.25.200", "S2", "A2", "R2"))
    do_create(unit)
    do_set(unit, status("DISCONTINUED", "110514"))
    do_create(unit, step(names("2.25.200", "S2", "A2", "R2"), patient_id="P2"), "2.25.2")
    assert (item(unit), item(unit, 12)) == (SPSStatus.SCHEDULED, SPSStatus.STARTED)


def test_a_modality_is_believed_although_the_order_was_cancelled(unit):
    unit.scheduled[11].status = SPSStatus.CANCELED
    do_create(unit)
    assert item(unit) is SPSStatus.STARTED


def test_a_step_that_went_away_meanwhile_is_no_fault_of_the_modality(unit):
    do_create(unit)
    del unit.scheduled[11]
    assert do_set(unit, COMPLETE).status == 0x0000


# --- whose step it is


def test_another_patient_is_quarantined_answered_and_touches_nothing(unit):
    answer = do_create(unit, step(patient_id="P2"))
    assert answer.status == 0x0000
    assert "names another patient than the worklist does; quarantined" in answer.notes
    held = unit.performed[UID]
    assert (held.quarantined, held.steps, held.patient_id) == (True, (11,), 2)
    assert do_set(unit, {"00400340": valued("SQ", series("2.25.5"))}).status == 0x0000
    assert do_set(unit, COMPLETE).status == 0x0000
    assert unit.performed[UID].state is MPPSState.COMPLETED
    assert unit.history == []
    assert item(unit) is SPSStatus.SCHEDULED


def test_a_record_that_is_linked_to_the_patients_is_no_other_patient(unit):
    unit.linked[1] = {2}
    do_create(unit, step(patient_id="P2"))
    assert not unit.performed[UID].quarantined
    assert item(unit) is SPSStatus.STARTED


def test_an_unknown_patient_id_on_a_known_step_is_quarantined(unit):
    do_create(unit, step(patient_id="P77"))
    assert unit.performed[UID].quarantined
    assert unit.performed[UID].patient_id is None


def test_the_same_id_of_another_issuer_is_another_patient(unit):
    do_create(unit, step(t00100021=valued("LO", "CLINIC")))
    assert unit.performed[UID].quarantined


@pytest.mark.parametrize(
    "said",
    [
        {"t00100010": valued("PN", {"Alphabetic": "DOE^JANE MARIA"})},
        {"t00100020": valued("LO")},
        {"t00100021": valued("LO", "HOSP")},
        {"t00100021": valued("LO", "HOSPITAL")},
        {"t00100024": valued("SQ", {"00400032": valued("UT", "1.2.3"), "00400033": valued("CS", "ISO")})},
        {"t00100020": valued("LO", "X9"), "t00101002": valued("SQ", {"00100020": valued("LO", "P1")})},
    ],
    ids=["name spelt otherwise", "no ID", "namespace", "registry name", "universal ID", "alias"],
)
def test_one_person_under_another_spelling_is_no_other_patient(unit, said):
    assert do_create(unit, {**step(), **{tag.removeprefix("t"): held for tag, held in said.items()}}).status == 0x0000
    assert not unit.performed[UID].quarantined
    assert item(unit) is SPSStatus.STARTED


def test_a_known_other_patient_is_not_excused_by_an_alias(unit):
    do_create(unit, step(patient_id="P2", t00101002=valued("SQ", {"00100020": valued("LO", "P1")})))
    assert unit.performed[UID].quarantined


def test_a_missing_issuer_is_no_difference_whatever_the_default(unit):
    unit.add_patient(1, Identifier("P1", "OTHER AUTHORITY"))
    unit.add_patient(3, HOSPITAL)
    do_create(unit)
    assert not unit.performed[UID].quarantined


def test_the_old_id_after_a_merge_is_the_same_patient(unit):
    del unit.people[1]
    unit.merged[1] = 2
    unit.add_patient(2, Identifier("P2", "HOSPITAL"), HOSPITAL)
    do_create(unit)
    assert not unit.performed[UID].quarantined
    assert item(unit) is SPSStatus.STARTED


def test_a_group_over_two_patients_is_quarantined_whole(unit):
    unit.add_step(ScheduledStep(12, 2, "2.25.200", "S2", "A2", "R2"))
    do_create(unit, step(names(), names("2.25.200", "S2", "A2", "R2")))
    assert unit.performed[UID].quarantined
    assert unit.history == []


# --- orders that come late


@pytest.mark.parametrize(
    ("said", "after"),
    [
        (None, SPSStatus.STARTED),
        (COMPLETE, SPSStatus.COMPLETED),
        (status("DISCONTINUED", "110501"), SPSStatus.SCHEDULED),
        (status("DISCONTINUED", "110510"), SPSStatus.DISCONTINUED),
    ],
)
def test_an_order_that_comes_late_finds_the_steps_that_wait_for_it(said, after):
    unit = MPPSUnit()
    do_create(unit)
    if said:
        do_set(unit, said)
    unit.add_patient(1, HOSPITAL)
    unit.add_step(ScheduledStep(11, 1, "2.25.100", "S1", "A1", "R1"))
    changes = link_waiting(unit, ["2.25.100"], ["A1"], AT, ISSUERS).changes
    assert item(unit) is after
    assert [change.after for change in changes] == ([after] if after is not SPSStatus.SCHEDULED else [])
    held = unit.performed[UID]
    assert (held.steps, held.patient_id, held.waits) == ((11,), 1, False)
    assert link_waiting(unit, ["2.25.100"], ["A1"], AT, ISSUERS) == Effect()


def test_a_late_order_of_another_patient_quarantines_the_step():
    unit = MPPSUnit()
    do_create(unit)
    unit.add_patient(2, Identifier("P2", "HOSPITAL"))
    unit.add_step(ScheduledStep(11, 2, "2.25.100", "S1"))
    assert link_waiting(unit, ["2.25.100"], [], AT, ISSUERS) == Effect()
    assert unit.performed[UID].quarantined
    assert item(unit) is SPSStatus.SCHEDULED


def test_the_second_order_of_a_group_may_come_late(unit):
    do_create(unit, step(names(), names("2.25.200", "S2", "A2", "R2")))
    unit.add_step(ScheduledStep(12, 1, "2.25.200", "S2", "A2", "R2"))
    changes = link_waiting(unit, ["2.25.200"], ["A2"], AT, ISSUERS).changes
    assert [change.step_id for change in changes] == [12]
    assert unit.performed[UID].steps == (11, 12)


def test_several_steps_that_waited_together_come_to_what_they_are_together():
    unit = MPPSUnit()
    do_create(unit, uid="2.25.1")
    do_create(unit, uid="2.25.2")
    do_set(unit, COMPLETE, "2.25.2")
    unit.add_patient(1, HOSPITAL)
    unit.add_step(ScheduledStep(11, 1, "2.25.100", "S1"))
    link_waiting(unit, ["2.25.100"], [], AT, ISSUERS)
    assert item(unit) is SPSStatus.STARTED


# --- any sequence of requests

_REQUESTS = st.lists(
    st.tuples(
        st.sampled_from(["2.25.1", "2.25.2", "2.25.3"]),
        st.sampled_from([
            "create", "create for both", "create for another", "set", "close", "late order", "link", "unlink",
            *MPPSState,
        ]),
        st.sampled_from(["110501", "110510", "110514"]),
    ),
    max_size=20,
)  # fmt: skip


def linked_by_hand(unit: MPPSUnit, uid: str, *, linked: bool) -> None:
    """A person links a performed step to step 11, or takes the link away."""
    held = unit.performed.get(uid)
    if held is None or held.quarantined or (11 in held.steps) is linked:
        return
    after = replace(held, steps=(*held.steps, 11) if linked else tuple(step for step in held.steps if step != 11))
    unit.save_performed_step(after, AT)
    take_effect(unit, after, unit.steps((11,)), AT, withdrawn=not linked)  # type: ignore[arg-type]


def allowed(performed: list[PerformedStep]) -> set[SPSStatus]:
    """What a scheduled step may be that these are linked to, and that no order ever moved."""
    believed = [one for one in performed if not one.quarantined]
    states = {one.state for one in believed}
    if MPPSState.IN_PROGRESS in states:
        return {SPSStatus.STARTED}
    if MPPSState.COMPLETED in states:
        return {SPSStatus.COMPLETED}
    given_up = any(consequence(one) is Consequence.GIVE_UP for one in believed)
    return {SPSStatus.SCHEDULED, SPSStatus.DISCONTINUED} if given_up else {SPSStatus.SCHEDULED}


@given(_REQUESTS)
def test_no_sequence_of_events_gives_an_item_a_status_its_performed_steps_deny(requests):
    unit = MPPSUnit()
    unit.add_patient(1, HOSPITAL)
    unit.add_patient(2, Identifier("P2", "HOSPITAL"))
    unit.add_step(ScheduledStep(11, 1, "2.25.100", "S1", "A1", "R1"))
    for uid, what, reason in requests:
        answer = None
        match what:
            case "create":
                answer = do_create(unit, uid=uid)
            case "create for both":
                answer = do_create(unit, step(names(), names("2.25.200", "S2", "A2", "R2")), uid)
            case "create for another":
                answer = do_create(unit, step(patient_id="P2"), uid)
            case "set":
                answer = do_set(unit, {"00400254": valued("LO", "Head")}, uid)
            case "close":
                answer = do_close(unit, MPPSState.DISCONTINUED, uid, reason)
            case "late order":
                unit.add_step(unit.scheduled.get(12) or ScheduledStep(12, 1, "2.25.200", "S2", "A2", "R2"))
                link_waiting(unit, ["2.25.200"], ["A2"], AT, ISSUERS)  # type: ignore[arg-type]
            case "link" | "unlink":
                linked_by_hand(unit, uid, linked=what == "link")
            case _:
                answer = do_set(unit, status(what, reason), uid)
        if answer is not None:
            assert answer.status in (0x0000, 0x0110, 0x0111, 0x0112)
            assert (answer.performed is None) == bool(answer.refusals)
            assert RefusalKind.INTERNAL not in {refusal.kind for refusal in answer.refusals}
        for step_id in unit.scheduled:
            assert item(unit, step_id) in allowed(list(unit.performed_steps_of(step_id)))


def test_an_order_cancelled_meanwhile_does_not_come_back_when_the_modality_breaks_off(unit):
    unit.scheduled[11].status = SPSStatus.CANCELED
    do_create(unit)
    assert item(unit) is SPSStatus.STARTED
    do_set(unit, status("DISCONTINUED"))
    assert item(unit) is SPSStatus.CANCELED


# --- what answers show


def test_bad_and_empty_values_are_shown_back_in_the_transfer_syntax_of_the_request(unit):
    bad = step(t00400252=valued("CS", "COMPLETED"))
    read = read_request(Operation.CREATE, request(bad, implicit=True))
    answer = create_step(unit, read, AT)  # type: ignore[arg-type]
    assert (answer.status, shown(answer, IMPLICIT_VR_LITTLE_ENDIAN)) == (0x0106, {"00400252": bad["00400252"]})
    empty = do_create(unit, step(t00400241=valued("AE")))
    assert (empty.status, shown(empty)) == (0x0121, {"00400241": valued("AE")})
    assert do_create(unit, {**step(), "00400253": valued("SH")}).dataset is not None
    missing = step()
    del missing["00400253"]
    assert do_create(unit, missing).dataset is None


def test_a_value_that_was_left_out_is_answered_as_a_warning_that_shows_it(unit):
    answer = do_create(unit, step(t00400245=valued("TM", "9 o'clock")))
    assert (answer.status, answer.attribute_tags) == (0x0116, (0x00400245,))
    assert shown(answer) == {"00400245": valued("TM", "9 o'clock")}
    assert "00400245" not in unit.performed[UID].attributes
    assert item(unit) is SPSStatus.STARTED


def test_a_device_that_wants_it_gets_the_attributes_back(unit):
    read = read_request(Operation.CREATE, request(step()))
    created = create_step(unit, read, AT)  # type: ignore[arg-type]
    assert read_step(attribute_list(Operation.CREATE, read, created), EXPLICIT_VR_LITTLE_ENDIAN)[0] == step()
    said = {"00400254": valued("LO", "Head"), "00100010": valued("PN", {"Alphabetic": "Roe^Ann"})}
    read = read_request(Operation.SET, request(said))
    set_ = set_step(unit, read, AT)  # type: ignore[arg-type]
    assert read_step(attribute_list(Operation.SET, read, set_), EXPLICIT_VR_LITTLE_ENDIAN)[0] == {
        "00400254": valued("LO", "Head"), "00100010": valued("PN", {"Alphabetic": "Doe^Jane"}),
    }  # fmt: skip
    again = create_step(unit, read_request(Operation.CREATE, request(step())), AT)  # type: ignore[arg-type]
    assert attribute_list(Operation.CREATE, read, again) is None


def test_n_get_returns_what_is_held_and_says_what_it_could_not(unit):
    do_create(unit)
    whole = get_step(unit, UID, (), EXPLICIT_VR_LITTLE_ENDIAN)
    assert (whole.status, shown(whole)) == (0x0000, step())
    some = get_step(unit, UID + "\0", (0x00080060, 0x00400252, 0x00080005), IMPLICIT_VR_LITTLE_ENDIAN)
    assert some.status == 0x0000
    assert set(shown(some, IMPLICIT_VR_LITTLE_ENDIAN)) == {"00080060", "00400252"}
    optional = get_step(unit, UID, (0x00400280,), EXPLICIT_VR_LITTLE_ENDIAN)
    assert (optional.status, shown(optional)) == (0x0001, {})
    inside = get_step(unit, UID, (0x0020000E, 0x00080060), EXPLICIT_VR_LITTLE_ENDIAN)
    assert (inside.status, inside.attribute_tags, set(shown(inside))) == (0x0107, (0x0020000E,), {"00080060"})
    assert get_step(unit, "2.25.9", (), EXPLICIT_VR_LITTLE_ENDIAN).status == 0x0112
    assert get_step(unit, "no uid", (), EXPLICIT_VR_LITTLE_ENDIAN).status == 0x0117


# --- people, and other devices


def test_another_callers_set_is_noted_and_refused_of_a_strict_device(unit):
    do_create(unit)
    other = replace(request(COMPLETE), calling_ae_title="MR1")
    read = read_request(Operation.SET, other)
    assert set_step(unit, read, AT, STRICT).status == 0x0124  # type: ignore[arg-type]
    assert item(unit) is SPSStatus.STARTED
    answer = set_step(unit, read, AT)  # type: ignore[arg-type]
    assert answer.status == 0x0000
    assert "set by another AE title than created it" in answer.notes
    assert item(unit) is SPSStatus.COMPLETED


def test_a_person_closes_what_a_modality_never_will(unit):
    do_create(unit)
    assert do_close(unit, MPPSState.COMPLETED).status == 0x0000
    held = unit.performed[UID]
    assert (held.state, held.attributes["00400250"]["Value"]) == (MPPSState.COMPLETED, ["20240102"])
    assert item(unit) is SPSStatus.COMPLETED
    assert unit.history[-1] == (11, SPSStatus.COMPLETED, f"MPPS COMPLETED {UID}, closed by a.person")
    assert unit.archive[-1][1:3] == ("N-SET", "")
    assert unit.archive[-1][5].startswith("closed by a.person")
    late = do_set(unit, COMPLETE)
    assert (late.status, late.error_id) == (0x0110, 0xA710)
    assert do_close(unit, MPPSState.DISCONTINUED).error_id == 0xA710
    assert do_close(unit, MPPSState.COMPLETED, "2.25.9").status == 0x0112
    with pytest.raises(ValueError, match="COMPLETED or DISCONTINUED"):
        do_close(unit, MPPSState.IN_PROGRESS)


def test_an_end_that_the_modality_gave_stays_when_a_person_closes(unit):
    do_create(unit)
    do_set(unit, {"00400250": valued("DA", "20231231"), "00400251": valued("TM", "2355")})
    do_close(unit, MPPSState.DISCONTINUED, reason="110510")
    held = unit.performed[UID].attributes
    assert (held["00400250"]["Value"], held["00400251"]["Value"]) == (["20231231"], ["2355"])
    assert item(unit) is SPSStatus.DISCONTINUED


def test_work_done_for_the_wrong_entry_is_taken_back_to_what_was_before(unit):
    unit.scheduled[11].status = SPSStatus.ARRIVED
    unit.before_performance[11] = SPSStatus.ARRIVED
    do_create(unit)
    do_set(unit, status("DISCONTINUED", "110541"))
    assert item(unit) is SPSStatus.ARRIVED


def test_what_was_performed_otherwise_than_ordered_is_noted(unit):
    def codes(*values: str) -> dict[str, Any]:
        items = [{"00080100": valued("SH", value), "00080102": valued("SH", "99PROC")} for value in values]
        return valued("SQ", *items)

    unit.scheduled[11].shown = {"00321064": codes("CTHEAD")}
    unit.scheduled[11].shown_step = {"00400008": codes("P1", "P2")}
    do_create(unit, uid="2.25.1")
    do_create(unit, uid="2.25.2")
    as_ordered = do_set(unit, {**COMPLETE, "00081032": codes("CTHEAD"), "00400260": codes("P2")}, "2.25.1")
    assert as_ordered.notes == ()
    otherwise = do_set(unit, {**COMPLETE, "00081032": codes("CTNECK"), "00400260": codes("P2", "P3")}, "2.25.2")
    assert otherwise.notes == (
        "a procedure was performed that was not requested", "a protocol was performed that was not scheduled",
    )  # fmt: skip
