"""What a RIS really sends about one order, message by message, and what the worklist says afterwards."""

import asyncio
import shutil
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from gateway.domain.attributes import text, values
from gateway.domain.identifiers import Identifier, Mint
from gateway.domain.matching import Narrowing
from gateway.domain.worklist import LISTED, SPSStatus
from gateway.edges.database import StoreConflict
from gateway.edges.store import Store
from gateway.processing import feeds_of, process_message
from gateway.workflow.rederive import rederived

AT = datetime(2026, 7, 5, 8, 0, tzinfo=UTC)
PID = "PID|1||100^^^HOSP||Doe^Jane||19800101|F"
CT, MR, US = "CTHEAD^CT head^99PROC", "MRHEAD^MR head^99PROC", "USABD^Ultrasound^99PROC"


class Road:
    """A store with two listeners, `ris` and `oe`, to send messages down."""

    def __init__(self, loaded, database):
        self.store = Store(f"sqlite:///{database}", zone="Europe/Berlin")
        ris = feeds_of(loaded, Mint(self.store.site_namespace()))["ris"]
        feeds = {}
        feeds |= {name: replace(ris, name=name, others=feeds) for name in ("ris", "oe")}
        self.feeds, self.sent = feeds, 0

    def send(self, *segments, kind="ORM^O01", by="ris", made=None):
        self.sent += 1
        made = made or f"2026070508{self.sent:02}00"
        head = f"MSH|^~\\&|{by.upper()}|H|GW|H|{made}||{kind}|C{self.sent}|P|2.5.1||||||UNICODE UTF-8"
        raw = "".join(segment + "\r" for segment in (head, *segments)).encode()
        return asyncio.run(process_message(self.store, raw, self.feeds[by], "test"))

    def order(self, control, *procedures, placer="P1^OE", filler="F1^RIS", **options):
        """An ORC with every OBR: (code, modality, accession)."""
        segments = [PID, f"ORC|{control}|{placer}|{filler}"]
        for number, (code, modality, accession) in enumerate(procedures, 1):
            start = "1^^^20260705093000^^R" if control in ("NW", "XO", "SN") else ""
            segments.append(f"OBR|{number}|{placer}|{filler}|{code}||||||||||||||{accession}||||||{modality}|||{start}")
        return self.send(*segments, **options)

    def items(self, statuses=LISTED):
        refs = self.store.reader.candidates(Narrowing(statuses=frozenset(statuses)))
        return self.store.reader.items([step_id for step_id, _ in refs])

    def listed(self):
        return sorted(
            (text(item.attributes["00321064"]["Value"][0], "CodeValue"), text(item.step, "Modality"),
             *values(item.step, "ScheduledStationAETitle")) for item in self.items()
        )  # fmt: skip

    def patients(self, number):
        return self.store.write(lambda unit: unit.patients([Identifier(number, "HOSP")])).result()


@pytest.fixture
def road(template, tmp_path):
    loaded, empty = template
    made = Road(loaded, shutil.copy(empty, tmp_path))
    yield made
    made.store.close()


# ---- unknown orders ----


@pytest.mark.parametrize("status", ["CM", ""])
def test_a_result_of_an_unknown_order_makes_no_patient(road, status):
    receipt = road.send("PID|1||900^^^HOSP||No^Body", f"ORC|RE|P7^OE|F7^RIS||{status}", f"OBR|1|P7^OE|F7^RIS|{CT}",
                        "OBX|1|TX|x||done||||||F", kind="ORU^R01")  # fmt: skip
    assert receipt.disposition == "accepted"
    assert road.patients("900") == []


def test_a_replaced_order_that_is_not_held_gives_its_patient_by_what_replaces_it_only(road):
    road.send("PID|1||900^^^HOSP||No^Body", "ORC|RP|P7^OE", f"OBR|1|P7^OE||{CT}", "ORC|RO|P8^OE",
              f"OBR|2|P8^OE||{MR}||||||||||||||A8||||||MR|||1^^^20260705093000")  # fmt: skip
    assert len(road.patients("900")) == 1
    assert road.listed() == [("MRHEAD", "MR", "MR1", "MR2")]


def test_an_early_cancel_by_the_placers_listener_acts_on_the_order_of_the_fillers(road):
    assert road.order("CA", (CT, "", ""), filler="", by="oe", made="20260705081000").disposition == "early"
    road.order("NW", (CT, "CT", "A1"), made="20260705080000")
    assert [item.status for item in road.items(SPSStatus)] == [SPSStatus.CANCELED]


def test_an_early_message_of_a_listener_that_is_gone_stays_early(road):
    road.order("CA", (CT, "", ""), filler="", by="oe", made="20260705081000")
    del road.feeds["oe"]
    road.order("NW", (CT, "CT", "A1"), made="20260705080000")
    assert len(road.items()) == 1


# ---- keys ----


def test_an_accession_number_with_and_without_its_issuer_is_one_procedure(road):
    road.order("NW", (CT, "CT", "A1"), filler="", by="oe")
    road.send(PID, "ORC|NW|P1^OE|F1^RIS||SC", "TQ1|1||||||20260705100000", f"OBR|1|P1^OE|F1^RIS|{CT}",
              "IPC|A1^RIS|RP1|1.2.3.4|SPS1|CT", kind="OMI^O23^OMI_O23")  # fmt: skip
    (item,) = road.items()
    assert text(item.step, "ScheduledProcedureStepID") == "SPS1"
    assert text(item.attributes["00080051"]["Value"][0], "LocalNamespaceEntityID") == "RIS"


def test_an_order_of_another_number_is_found_by_its_accession_number_with_or_without_issuer(road):
    road.order("NW", (CT, "CT", "A1"), filler="", by="oe")
    road.send(PID, "ORC|SN||F1^RIS||SC", "TQ1|1||||||20260705100000", f"OBR|1||F1^RIS|{CT}", "IPC|A1^RIS||||CT",
              kind="OMI^O23^OMI_O23")  # fmt: skip
    assert len(road.items()) == 1


def test_an_order_without_a_number_is_found_by_its_accession_number_once_it_has_one(road):
    road.order("NW", (CT, "CT", "A1"), placer="", filler="")
    road.order("XO", (CT, "CT", "A1"), filler="", by="oe")
    (item,) = road.items()
    assert text(item.attributes, "PlacerOrderNumberImagingServiceRequest") == "P1"


def test_two_orders_for_two_modalities_may_share_an_accession_number(road):
    road.order("NW", (CT, "CT", "A1"), filler="", by="oe")
    road.order("SN", (MR, "MR", "A1"), placer="")
    assert [modality for _, modality, *_ in road.listed()] == ["CT", "MR"]


def test_accession_numbers_of_two_issuers_are_two_orders(road):
    for filler, issuer in (("", "OE"), ("F1^RIS", "RIS")):
        placer = "" if filler else "P1^OE"
        road.send(PID, f"ORC|NW|{placer}|{filler}", "TQ1|1||||||20260705100000", f"OBR|1|{placer}|{filler}|{CT}",
                  f"IPC|A1^{issuer}||||CT", kind="OMI^O23^OMI_O23")  # fmt: skip
    assert len(road.items()) == 2


def test_a_key_that_the_store_finds_taken_is_refused_by_its_name(road, monkeypatch):
    road.order("NW", (CT, "CT", "A1"))

    def taken(unit, order, cause, at):
        raise StoreConflict("UNIQUE constraint failed: orders.filler, orders.filler_issuer")

    monkeypatch.setattr("gateway.edges.store_unit.StoreUnit.save_order", taken)
    receipt = road.order("NW", (MR, "MR", "A2"), placer="P2^OE", filler="F2^RIS")
    assert receipt.kinds == ("duplicate key",)
    assert b"ORC-3.1: its filler order number" in receipt.answer


def test_an_accession_number_of_several_orders_names_none_of_them(road):
    road.order("NW", (CT, "CT", "A1"))
    road.order("NW", (MR, "MR", "A1"), placer="P2^OE", filler="F2^RIS")
    receipt = road.order("CA", (CT, "", "A1"), placer="", filler="")
    assert receipt.kinds == ("duplicate key",)
    assert b"send the placer or the filler order number" in receipt.answer
    assert len(road.items()) == 2


# ---- one of several procedures ----


@pytest.fixture
def several(road):
    road.order("NW", (CT, "CT", "A1"), (MR, "MR", "A1"), (US, "US", "A1"))
    assert len(road.items()) == 3
    return road


def test_a_cancel_that_names_one_procedure_by_its_code_leaves_the_others(several):
    several.order("CA", (US, "", ""))
    assert [code for code, *_ in several.listed()] == ["CTHEAD", "MRHEAD"]


@pytest.mark.parametrize("said", [("", "", "A1"), ("X^another word^L", "", ""), ("", "", "")])
def test_a_cancel_that_tells_no_procedure_from_the_others_is_about_all(several, said):
    assert several.order("CA", said).disposition == "accepted"
    assert several.listed() == []


def test_a_cancelled_appointment_for_one_of_two_services_leaves_the_other(several):
    appointment = "SCH|AP1^OE|AP2^RIS|||||||||^^^20260706110000||||||||||||||SC|P1^OE|F1^RIS"
    service = "AIS|1|A|{}|20260706110000|||30|min"
    several.send(appointment, PID, "RGS|1", service.format(MR), kind="SIU^S15")
    assert [code for code, *_ in several.listed()] == ["CTHEAD", "USABD"]
    several.send(appointment, PID, "RGS|1", service.format(CT), service.format(US), kind="SIU^S15")
    assert several.listed() == []


# ---- another procedure ----


@pytest.mark.parametrize("knee", ["MRKNEEL^MR knee^99PROC", "MRKNEEL^MR knee", "MRKNEEL"])
@pytest.mark.parametrize("head", [CT, "CTHEAD^CT head", "CTHEAD"])
def test_a_change_of_the_procedure_moves_its_step_to_the_other_modality(road, head, knee):
    """Also where the codes are those of the catalogue, without their scheme."""
    road.order("NW", (head, "", "A1"))
    (before,) = road.items()
    road.order("XO", (knee, "", "A1"))
    (after,) = road.items()
    assert after.step_id == before.step_id
    assert road.listed() == [("MRKNEEL", "MR", "MR2")]
    assert text(after.attributes, "RequestedProcedureDescription").startswith("MR knee")


def test_an_appointment_with_a_bare_code_leaves_the_procedure_as_it_is_said(road):
    road.order("NW", ("CTHEAD^Head, plain^99PROC", "", "A1"))
    (before,) = road.items()
    road.send("SCH|AP1^OE|AP2^RIS|||||||||^^^20260706110000||||||||||||||SC|P1^OE|F1^RIS", PID, "RGS|1",
              "AIS|1|A|CTHEAD|20260706110000", kind="SIU^S13")  # fmt: skip
    (after,) = road.items()
    assert text(after.step, "ScheduledProcedureStepStartTime") == "110000"
    keyword = "RequestedProcedureCodeSequence"
    assert values(after.attributes, keyword) == values(before.attributes, keyword)


def test_steps_that_another_procedure_does_not_plan_are_cancelled_and_come_back_with_it(road):
    road.order("NW", ("BRSTUP^Breast^99PROC", "", "A1"))
    assert len(road.items()) == 2
    road.order("XO", (CT, "", "A1"))
    assert road.listed() == [("CTHEAD", "CT", "CT1")]
    road.order("XO", ("BRSTUP^Breast^99PROC", "", "A1"))
    assert road.listed() == [("BRSTUP", "MG", "MG1"), ("BRSTUP", "US", "US1")]
    assert len(road.items(SPSStatus)) == 2


def test_a_late_message_about_the_procedure_of_before_adds_no_step(road):
    road.order("NW", ("MRKNEEL^MR knee^99PROC", "", "A1"), made="20260705080500")
    road.order("XO", ("BRSTUP^Breast^99PROC", "", "A1"), made="20260705080000")
    assert road.listed() == [("MRKNEEL", "MR", "MR2")]
    assert len(road.items(SPSStatus)) == 1


def test_a_step_that_has_begun_stays_what_it_was_when_the_procedure_changes(road):
    road.order("NW", (CT, "", "A1"))
    (step,) = road.items()
    road.store.write(lambda unit: unit.set_step_status(step.step_id, SPSStatus.STARTED, "MPPS", AT)).result()
    road.order("XO", ("MRKNEEL^MR knee^99PROC", "", "A1"))
    found = {(item.status, text(item.step, "Modality")) for item in road.items()}
    assert found == {(SPSStatus.STARTED, "CT"), (SPSStatus.SCHEDULED, "MR")}


def test_steps_that_the_ris_has_named_stay_until_it_cancels_them(road):
    for number, (code, modality) in enumerate(((CT, "CT"), (MR, "MR")), 1):
        road.send(PID, "ORC|NW|P1^OE", f"OBR|1|P1^OE||{code}||||||||||||||A1|RP1|S{number}||||{modality}"
                  "|||1^^^20260705093000", "ZDS|1.2.1")  # fmt: skip
    assert sorted(text(item.step, "Modality") for item in road.items()) == ["CT", "MR"]


# ---- notes ----


def test_a_note_is_archived_once(road):
    road.order("NW", (CT, "CT", "A1"))
    road.send("SCH|AP1^OE|AP2^RIS|||||||||^^^20260706110000||||||||||||||SC|P1^OE|F1^RIS", PID, "RGS|1",
              f"AIS|1|A|{CT}|20260706110000", kind="SIU^S26")  # fmt: skip
    (stored, *_) = road.store.reader.earlier_messages("ris", "RIS|H", "C2")
    lines = stored.record.reasons.splitlines()
    assert len(lines) == len(set(lines)) > 0


# ---- typed by hand ----


def typed(road, count=1):
    """Orders of CTHEAD for the patient, as they would be typed."""
    for number in range(count):
        segments = [PID, "ORC|NW|||", f"OBR|1|||{CT}", f"IPC|H{number}||||CT", "TQ1|1||||||20260705093000"]
        road.send(*segments[:2], segments[4], *segments[2:4], kind="OMI^O23^OMI_O23")
    for item in road.items():
        order_id = road.store.reader.steps([item.step_id])[0].order_id
        road.store.write(
            lambda unit, held=order_id: unit.save_order(replace(unit.order(held), provisional=True), "typed", AT)
        ).result()


def test_an_appointment_of_the_ris_is_for_the_order_typed_by_hand(road):
    typed(road)
    road.send("SCH|AP1^OE|AP2^RIS|||||||||^^^20260705110000||||||||||||||SC|P1^OE|F1^RIS", PID, "RGS|1",
              f"AIS|1|A|{CT}|20260705110000", kind="SIU^S12")  # fmt: skip
    (item,) = road.items()
    assert text(item.step, "ScheduledProcedureStepStartTime").startswith("1100")


def test_where_several_typed_orders_would_do_the_sender_is_told_and_nobody_guesses(road):
    typed(road, 2)
    receipt = road.order("NW", (CT, "CT", "A1"))
    assert b"typed by hand" in receipt.answer
    assert len(road.items()) == 3


# ---- derived again ----


def test_an_order_whose_first_message_was_deleted_is_not_derived_from_the_rest(road):
    road.order("NW", (CT, "CT", "A1"))
    road.send(PID, "ORC|XO|P1^OE|F1^RIS", f"OBR|1|P1^OE|F1^RIS|{CT}", "NTE|1||said later")
    (order_id,) = {ref.order_id for ref in road.store.reader.steps([item.step_id for item in road.items()])}
    whole = rederived(road.store.reader, order_id, road.feeds)
    assert (whole.left, whole.changes) == ("", ())
    road.store.write(lambda unit: unit.delete_messages([1])).result()
    assert "not every message" in rederived(road.store.reader, order_id, road.feeds).left
