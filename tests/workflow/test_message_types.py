"""What appointments, results and registrations do to orders, each through the real mapping and a real store."""

import asyncio
import shutil
from datetime import UTC, datetime

import pytest

from gateway.domain.attributes import text, values
from gateway.domain.identifiers import Mint
from gateway.domain.matching import Narrowing
from gateway.domain.worklist import SPSStatus
from gateway.edges.store import Store
from gateway.processing import feeds_of, process_message
from gateway.testing import Draft, ImagingOrder, invented_person, rad4_orm
from gateway.wire import er7

AT = datetime(2026, 7, 5, 8, 0, tzinfo=UTC)
START = datetime(2026, 7, 5, 9, 30)
PERSON = "PID|||77^^^HOSPA||Weide^Wanda||19550505|F"


class Road:
    """A store and a feed to send messages down."""

    def __init__(self, loaded, database):
        self.store = Store(f"sqlite:///{database}", zone="Europe/Berlin")
        self.feed = feeds_of(loaded, Mint(self.store.site_namespace()))["ris"]
        self.sent = 0

    def send(self, message_type, *segments):
        return self.send_draft(Draft(message_type, "2.5.1", segments))

    def send_draft(self, draft):
        self.sent += 1
        raw = draft.message(f"M{self.sent}", AT)
        return er7.parse(asyncio.run(process_message(self.store, raw, self.feed, "test")).answer, "utf-8")

    def items(self):
        refs = self.store.reader.candidates(Narrowing(statuses=frozenset(SPSStatus)))
        return self.store.reader.items([step_id for step_id, _ in refs])

    def item(self):
        (item,) = self.items()
        return item


@pytest.fixture
def road(template, tmp_path):
    loaded, empty = template
    made = Road(loaded, shutil.copy(empty, tmp_path))
    yield made
    made.store.close()


def accepted(answer):
    assert answer.first("MSA").text(1) == "AA", [segment.fields for segment in answer.segments]
    return " ".join(segment.text(n) for segment in answer.segments for n in (3, 7, 8) if segment.name != "MSH")


def refused(answer):
    assert answer.first("MSA").text(1) != "AA"
    return answer.first("ERR").text(3)


def sch(**fields):
    said = {int(name.removeprefix("f")): value for name, value in fields.items()}
    return "|".join(["SCH", *(said.get(n, "") for n in range(1, max(said) + 1))])


APPOINTMENT = {"f1": "A1^SCHED", "f2": "B1^RIS"}
SERVICE = "AIS|1||CTHEAD^CT head^99PROC|20260706101500|||20|min"


def place_and_time(item):
    return (
        text(item.step, "ScheduledProcedureStepStartDate") + text(item.step, "ScheduledProcedureStepStartTime"),
        text(item.step, "ScheduledProcedureStepEndTime"),
        values(item.step, "ScheduledStationAETitle"),
    )


# --- appointments ------------------------------------------------------------------------------------------------


def test_appointment_that_names_no_order_is_on_the_list(road):
    accepted(road.send("SIU^S12", sch(**APPOINTMENT), PERSON, "RGS|1", SERVICE, "AIG|1||CT2"))
    item = road.item()
    assert place_and_time(item) == ("20260706101500", "103500", ["CT2"])
    assert text(item.attributes, "RequestedProcedureDescription") == "CT head"


def test_appointment_moves_and_is_cancelled_by_its_own_number(road):
    accepted(road.send("SIU^S12", sch(**APPOINTMENT), PERSON, SERVICE))
    accepted(road.send("SIU^S13", sch(**APPOINTMENT), PERSON, SERVICE.replace("20260706101500", "20260707080000")))
    assert place_and_time(road.item())[0] == "20260707080000"
    accepted(road.send("SIU^S15", sch(**APPOINTMENT)))
    assert road.item().status is SPSStatus.CANCELED


def test_appointment_that_was_cancelled_may_be_made_anew(road):
    accepted(road.send("SIU^S12", sch(**APPOINTMENT), PERSON, SERVICE))
    accepted(road.send("SIU^S17", sch(**APPOINTMENT)))
    accepted(road.send("SIU^S12", sch(**APPOINTMENT), PERSON, SERVICE))
    assert road.item().status is SPSStatus.SCHEDULED


def test_who_does_not_come_leaves_the_list(road):
    accepted(road.send("SIU^S12", sch(**APPOINTMENT), PERSON, SERVICE))
    said = accepted(road.send("SIU^S26", sch(**APPOINTMENT), PERSON))
    assert "did not come" in said
    assert road.item().status is SPSStatus.CANCELED


@pytest.mark.parametrize("event", ["S12", "S13", "S14"])
def test_appointment_of_an_order_moves_its_step_and_leaves_the_rest(road, event):
    order = ImagingOrder(1, invented_person(1), START)
    accepted(road.send_draft(rad4_orm(order)))
    before = road.item()
    named = sch(f1="A9", f2="B9", f7="CHECKUP^Something else", f26=f"{order.placer}^OE", f27=f"{order.filler}^RIS")
    person = next(segment for segment in rad4_orm(order).segments if segment.startswith("PID"))
    other = "AIS|1||CT-APPT^CT appointment^99APPT|20260706101500|||20|min"
    accepted(road.send(f"SIU^{event}", named, person, "RGS|1", other, "RGS|2", "AIG|1||CT2"))
    after = road.item()
    assert place_and_time(after) == ("20260706101500", "103500", ["CT2"])
    for keyword in (
        "RequestedProcedureCodeSequence", "RequestedProcedureDescription", "StudyInstanceUID", "AccessionNumber",
        "ReasonForTheRequestedProcedure",
    ):  # fmt: skip
        assert values(after.attributes, keyword) == values(before.attributes, keyword)
    for keyword in ("ScheduledProtocolCodeSequence", "Modality", "ScheduledProcedureStepDescription"):
        assert values(after.step, keyword) == values(before.step, keyword)


def test_appointment_of_one_of_two_procedures_finds_it_by_its_code(road):
    accepted(road.send(
        "ORM^O01", PERSON,
        "ORC|NW|P1^OE|||||1^^^20260705093000", "OBR|1|P1^OE||CTHEAD^CT head^99PROC",
        "ORC|NW|P1^OE|||||1^^^20260705100000", "OBR|2|P1^OE||MRHEAD^MR head^99PROC",
    ))  # fmt: skip
    service = "AIS|1||MRHEAD^MR head^99PROC|20260706080000"
    accepted(road.send("SIU^S13", sch(f1="A9", f26="P1^OE"), PERSON, service))
    starts = {text(item.step, "Modality"): place_and_time(item)[0] for item in road.items()}
    assert starts == {"CT": "20260705093000", "MR": "20260706080000"}


def test_appointment_under_another_procedures_code_moves_its_order_only(road):
    order = ImagingOrder(1, invented_person(1), START)
    accepted(road.send_draft(rad4_orm(order)))
    person = next(segment for segment in rad4_orm(order).segments if segment.startswith("PID"))
    before = road.item()
    service = "AIS|1||MRHEAD^MR head^99PROC|20260706101500"
    said = accepted(road.send("SIU^S13", sch(f1="A9", f26=f"{order.placer}^OE"), person, service))
    assert "names another procedure than its order" in said
    after = road.item()
    assert place_and_time(after)[0] == "20260706101500"
    for keyword in ("RequestedProcedureCodeSequence", "RequestedProcedureDescription"):
        assert values(after.attributes, keyword) == values(before.attributes, keyword)
    for keyword in ("ScheduledProtocolCodeSequence", "Modality", "ScheduledProcedureStepDescription"):
        assert values(after.step, keyword) == values(before.step, keyword)


def test_appointment_adds_no_procedure_to_its_order(road):
    order = ImagingOrder(1, invented_person(1), START)
    accepted(road.send_draft(rad4_orm(order)))
    person = next(segment for segment in rad4_orm(order).segments if segment.startswith("PID"))
    services = ["AIS|1||CTHEAD^CT head^99PROC|20260706101500", "AIS|2||MRHEAD^MR head^99PROC|20260706104500"]
    said = accepted(road.send("SIU^S13", sch(f1="A9", f26=f"{order.placer}^OE"), person, *services))
    assert "a procedure that is not of its order" in said
    assert place_and_time(road.item())[0] == "20260706101500"


def test_appointment_for_none_of_its_orders_procedures_is_refused(road):
    accepted(road.send(
        "ORM^O01", PERSON, "ORC|NW|P1^OE|||||1^^^20260705093000", "OBR|1|P1^OE||CTHEAD^CT head^99PROC",
        "ORC|NW|P1^OE|||||1^^^20260705100000", "OBR|2|P1^OE||MRHEAD^MR head^99PROC",
    ))  # fmt: skip
    before = road.items()
    service = "AIS|1||CTABD^CT abdomen^99PROC|20260706080000"
    assert refused(road.send("SIU^S13", sch(f1="A9", f26="P1^OE"), PERSON, service)) == "204"
    assert road.items() == before


def test_appointment_in_hours_and_in_unknown_units(road):
    accepted(road.send("SIU^S12", sch(**APPOINTMENT, f9="2", f10="h"), PERSON, "AIS|1||CTHEAD|20260706100000"))
    assert place_and_time(road.item())[1] == "120000"
    said = accepted(road.send("SIU^S13", sch(**APPOINTMENT), PERSON, "AIS|1||CTHEAD|20260706100000|||3|fortnights"))
    assert "AIS-7" in said


def test_appointment_without_a_patient_is_refused_with_its_place(road):
    assert refused(road.send("SIU^S12", sch(**APPOINTMENT), SERVICE)) == "101"
    assert road.items() == []


# --- results -----------------------------------------------------------------------------------------------------


def test_final_result_says_that_the_order_is_done(road):
    order = ImagingOrder(1, invented_person(1), START)
    accepted(road.send_draft(rad4_orm(order)))
    request = f"OBR|1|{order.placer}^OE|{order.filler}^RIS|24627-2^CT^LN{'|' * 21}"
    accepted(road.send("ORU^R01", f"{request}I", "OBX|1|TX|||Still reading"))
    assert road.item().status is SPSStatus.SCHEDULED
    accepted(road.send("ORU^R01", f"{request}F", "OBX|1|TX|||No finding"))
    assert road.item().status is SPSStatus.COMPLETED
    assert text(road.item().attributes, "RequestedProcedureDescription") != "CT"


@pytest.mark.parametrize("numbers", ["P404^OE|", "|"])
def test_result_of_an_order_that_is_not_held_is_accepted_with_a_note(road, numbers):
    assert "no" in accepted(road.send("ORU^R01", PERSON, f"OBR|1|{numbers}|24627-2{'|' * 21}F"))
    assert road.items() == []


# --- orders in other clothes -------------------------------------------------------------------------------------


def test_registration_may_order(road):
    accepted(road.send(
        "ADT^A04", "EVN||20260705", PERSON, "PV1||O|AMB", "ORC|NW|P7^OE|||||1^^^20260705093000",
        "OBR|1|P7^OE||CTHEAD^CT head^99PROC",
    ))  # fmt: skip
    assert values(road.item().attributes, "PatientName") == [{"Alphabetic": "Weide^Wanda"}]
    assert place_and_time(road.item())[0] == "20260705093000"


def test_cancel_needs_the_order_number_only(road):
    order = ImagingOrder(1, invented_person(1), START)
    accepted(road.send_draft(rad4_orm(order)))
    accepted(road.send("ORM^O01", f"ORC|CA|{order.placer}^OE"))
    assert road.item().status is SPSStatus.CANCELED
    assert refused(road.send("ORM^O01", "ORC|CA|P404^OE")) == "204"
    assert refused(road.send("ORM^O01", "ORC|NW|P405^OE", "OBR|1|P405^OE||CTHEAD")) == "101"


def test_placer_number_that_a_response_assigns_is_kept(road):
    accepted(
        road.send("ORM^O01", PERSON, "ORC|SN||F8^RIS||||1^^^20260705093000", "OBR|1||F8^RIS|CTHEAD^CT head^99PROC")
    )
    accepted(road.send("ORR^O02", "MSA|AA|1", "ORC|NA|P8^OE|F8^RIS"))
    accepted(road.send("ORM^O01", "ORC|CA|P8^OE"))
    assert road.item().status is SPSStatus.CANCELED


def test_pregnancy_that_is_not_said_any_more_does_not_stay(road):
    def visit(status):
        return "PV1||O" + "|" * 13 + status

    order = ("ORC|NW|P1^OE|||||1^^^20260705093000", "OBR|1|P1^OE||CTHEAD^CT head^99PROC")
    accepted(road.send("ORM^O01", PERSON, visit("B6"), *order))
    assert values(road.item().attributes, "PregnancyStatus") == [3]
    accepted(road.send("ADT^A08", PERSON, "PV1||O"))
    assert values(road.item().attributes, "PregnancyStatus") == [3]
    accepted(road.send("ADT^A08", PERSON, visit("A0")))
    assert values(road.item().attributes, "PregnancyStatus") == []
