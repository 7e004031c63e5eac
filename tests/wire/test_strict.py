"""The strict check: what the standard allows passes, and what it does not is told with its place and a remedy."""

from datetime import datetime

import pytest

from gateway.domain.refusal import RefusalKind
from gateway.testing import (
    ImagingOrder,
    admit,
    bare_orm,
    cancel,
    invented_person,
    merge_patients,
    omg,
    omi,
    rad4_orm,
    register,
    update_patient,
)
from gateway.wire import er7, strict

AT = datetime(2026, 7, 5, 8, 0)
ORDER = ImagingOrder(1, invented_person(1), datetime(2026, 7, 5, 9, 30))
DRAFTS = {
    "rad4_orm": rad4_orm(ORDER),
    "bare_orm": bare_orm(ORDER),
    "cancel": cancel(ORDER),
    "omg": omg(ORDER),
    "omi": omi(ORDER),
    "admit": admit(invented_person(1)),
    "register": register(invented_person(1)),
    "update": update_patient(invented_person(1)),
    "merge": merge_patients(invented_person(1), invented_person(2)),
}
PATIENT = "PID|||P1^^^HOSP^MR||Invented^Ida||19800101|F"


def lines(version, message_type, *segments):
    header = f"MSH|^~\\&|RIS|RAD|GW|RAD|20260705080000||{message_type}|M1|P|{version}"
    return "\r".join((header, *segments, "")).encode()


def problems(raw):
    return strict.problems(er7.parse(raw, "utf-8"))


def places(raw):
    return [refusal.where for refusal in problems(raw)]


ORDER_OF_2_3_1 = ("ORC|NW|1^OE|||SC", "OBR|1|1^OE||CT1^Head^L")
SCHEDULED = (
    "SCH|1^OE|1^RIS||||ROUTINE^^L|||10|min|^^^20260705093000^20260705094000|||||77^Booker^Bea||||77^Booker^Bea",
    PATIENT,
    "RGS|1",
    "AIS|1||CT1^Head^L|20260705093000",
)


@pytest.mark.parametrize("name", DRAFTS)
def test_what_a_department_sends_is_as_the_standard_says(name):
    assert problems(DRAFTS[name].message("M1", AT)) == []


@pytest.mark.parametrize("version", ["2.1", "2.2", "2.3", "2.3.1", "2.4", "2.5", "2.5.1", "2.6", "2.7", "2.8", "2.9"])
def test_a_plain_order_passes_in_every_version(version):
    assert problems(lines(version, "ORM^O01", PATIENT, "PV1||O|AMB", *ORDER_OF_2_3_1)) == []


@pytest.mark.parametrize("version", ["2.2", "2.3", "2.3.1", "2.4", "2.5", "2.5.1", "2.6", "2.7", "2.8"])
@pytest.mark.parametrize(
    "event", ["A01", "A02", "A03", "A04", "A05", "A06", "A07", "A08", "A10", "A11", "A12", "A13", "A28", "A31", "A38"]
)
def test_patient_updates_pass_in_every_version(version, event):
    segments = (f"EVN|{event}|20260705080000", PATIENT, "PV1||O|AMB")
    assert problems(lines(version, f"ADT^{event}", *segments)) == []


@pytest.mark.parametrize("version", ["2.3.1", "2.5.1"])
@pytest.mark.parametrize(
    ("event", "segments"),
    [
        ("A40", (PATIENT, "MRG|P2^^^HOSP^MR")),
        ("A47", (PATIENT, "MRG|P2^^^HOSP^MR")),
        ("A24", (PATIENT, PATIENT.replace("P1", "P2"))),
        ("A37", (PATIENT, PATIENT.replace("P1", "P2"))),
        ("A45", (PATIENT, "MRG|P2^^^HOSP^MR||||V1", "PV1||O|AMB")),
    ],
)
def test_changes_of_identity_pass(version, event, segments):
    assert problems(lines(version, f"ADT^{event}", f"EVN|{event}|20260705080000", *segments)) == []


@pytest.mark.parametrize("event", ["S12", "S13", "S14", "S15", "S17", "S26"])
@pytest.mark.parametrize("version", ["2.3.1", "2.5.1"])
def test_appointments_pass(version, event):
    assert problems(lines(version, f"SIU^{event}", *SCHEDULED)) == []


def test_results_pass():
    segments = (
        PATIENT,
        "OBR|1|1^OE|1^RIS|CT1^Head^L|||20260705093000|||||||||||||||||||F",
        "OBX|1|TX|1^R||Text||||||F",
    )
    assert problems(lines("2.3.1", "ORU^R01", *segments)) == []


def test_a_step_may_have_several_stations():
    raw = omi(ORDER).message("M1", AT).decode().replace(f"|{ORDER.station}\r", f"|{ORDER.station}~CT2\r")
    assert "~CT2" in raw
    assert problems(raw.encode()) == []


@pytest.mark.parametrize("after", range(1, 5))
def test_z_segments_stand_anywhere(after):
    segments = [PATIENT, "PV1||O|AMB", *ORDER_OF_2_3_1]
    segments.insert(after - 1, "ZXX|1|^^~&|\\X\\")
    assert problems(lines("2.3.1", "ORM^O01", *segments)) == []


def test_an_omi_of_2_3_1_is_checked_by_the_version_that_has_it():
    raw = omi(ORDER).message("M1", AT).replace(b"|2.5.1|", b"|2.3.1|")
    assert problems(raw) == []
    assert problems(raw.replace(b"IPC|", b"IPX|"))[0].kind is RefusalKind.SEGMENT_SEQUENCE


def test_several_orders_in_one_message_pass():
    group = omg(ORDER).segments[2:]
    raw = lines("2.5.1", "OMG^O19^OMG_O19", PATIENT, *group, *group, *group)
    assert problems(raw) == []


@pytest.mark.parametrize(
    ("segments", "where", "text"),
    [
        ((PATIENT, "EVN|A01|20260705", *ORDER_OF_2_3_1), "EVN", "ORM_O01 of HL7 2.3.1 has no EVN here"),
        ((PATIENT, "PV1||O", "OBR|1|1^OE||CT1^Head^L"), "ORC", "needs ORC before OBR"),
        ((PATIENT,), "ORC", "needs ORC at the end"),
        ((PATIENT, PATIENT, *ORDER_OF_2_3_1), "PID[2]", "has no PID here"),
        ((PATIENT, "ORC||1^OE", ORDER_OF_2_3_1[1]), "ORC-1", "requires the order control"),
        ((PATIENT, ORDER_OF_2_3_1[0], "OBR|1|1^OE"), "OBR-4", "requires the universal service id"),
        ((PATIENT, "ORC|QQ|1^OE", ORDER_OF_2_3_1[1]), "ORC-1", "'QQ' is not in table 0119"),
        ((PATIENT, "ORC|NW|1^OE|||SC~IP", ORDER_OF_2_3_1[1]), "ORC-5(2)", "the message 2"),
        ((PATIENT.replace("19800101", "19801301"), *ORDER_OF_2_3_1), "PID-7.1", "'19801301' is no date and time"),
        ((PATIENT, ORDER_OF_2_3_1[0], "OBR|one|1^OE||CT1^Head^L"), "OBR-1", "'one' is no sequence number"),
        ((PATIENT, "ORC|NW|1^OE^ISO^x^y", ORDER_OF_2_3_1[1]), "ORC-2.5", "has 4 components: 'y'"),
        ((PATIENT, ORDER_OF_2_3_1[0], "OBR|1|1^OE||CT1&A^Head^L"), "OBR-4.1.2", "has 1 subcomponent: 'A'"),
        ((PATIENT, *ORDER_OF_2_3_1, "NTE|1||x|RE|new"), "NTE-5", "NTE of HL7 2.3.1 has 4 fields"),
    ],
)
def test_what_is_wrong_is_told_with_its_place_its_value_and_a_remedy(segments, where, text):
    (refusal,) = problems(lines("2.3.1", "ORM^O01", *segments))
    assert refusal.where == where
    assert text in refusal.text
    assert refusal.hint


@pytest.mark.parametrize("name", DRAFTS)
def test_a_message_without_its_patient_is_refused(name):
    raw = b"\r".join(line for line in DRAFTS[name].message("M1", AT).split(b"\r") if not line.startswith(b"PID"))
    assert RefusalKind.SEGMENT_SEQUENCE in {refusal.kind for refusal in problems(raw)}


@pytest.mark.parametrize("name", [name for name in DRAFTS if name != "merge"])
def test_a_message_with_a_bad_birth_date_is_refused(name):
    raw = DRAFTS[name].message("M1", AT)
    birth = next(line for line in raw.split(b"\r") if line.startswith(b"PID")).split(b"|")[7]
    assert {place.split(".")[0] for place in places(raw.replace(b"|" + birth + b"|", b"|soon|"))} == {"PID-7"}


def test_every_problem_is_told_but_no_more_than_a_person_reads():
    segments = [PATIENT, *ORDER_OF_2_3_1, *(f"NTE|no|Q|{number}" for number in range(500))]
    told = problems(lines("2.3.1", "ORM^O01", *segments))
    assert len(told) == strict.PROBLEMS_MAX
    assert {refusal.where for refusal in told[:3]} == {"NTE-1", "NTE[2]-1", "NTE[3]-1"}


def test_an_event_that_no_version_has_is_refused():
    (refusal,) = problems(lines("2.5.1", "ADT^Q99", PATIENT))
    assert (refusal.kind, refusal.where) == (RefusalKind.UNSUPPORTED_EVENT, "MSH-9")


def test_the_null_satisfies_a_required_field():
    assert problems(lines("2.3.1", "ORM^O01", PATIENT.replace("Invented^Ida", '""'), *ORDER_OF_2_3_1)) == []


def test_thousands_of_segments_take_no_more_than_their_share():
    segments = [PATIENT, *(ORDER_OF_2_3_1 * 2_000)]
    assert problems(lines("2.3.1", "ORM^O01", *segments)) == []


@pytest.mark.parametrize("version", ["2.²", "2." + "9" * 5_000, "٢.٥", "", "."])
def test_a_version_that_is_no_number_is_checked_by_one_that_is(version):
    problems(lines(version, "ADT^A08", PATIENT))
