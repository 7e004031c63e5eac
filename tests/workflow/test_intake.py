"""What becomes of messages: repeats, holds, merges, cancels, each through the real mapping and a real store."""

import asyncio
import re
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import UTC, date, datetime

import pytest

from gateway.domain.attributes import text, values
from gateway.domain.identifiers import Mint
from gateway.domain.matching import Narrowing
from gateway.domain.worklist import LISTED, SPSStatus
from gateway.edges.store import Store
from gateway.processing import archive_message, feeds_of, process_message
from gateway.testing import (
    ImagingOrder,
    Person,
    bare_orm,
    cancel,
    invented_person,
    merge_patients,
    omi,
    rad4_orm,
    register,
    update_patient,
)
from gateway.workflow import intake
from gateway.workflow.ports import MessageSearch

AT = datetime(2026, 7, 5, 8, 0, tzinfo=UTC)
START = datetime(2026, 7, 5, 9, 30)


class Road:
    """A store and a feed to send messages down."""

    def __init__(self, loaded, database):
        self.database = database
        self.store = Store(f"sqlite:///{database}", zone="Europe/Berlin")
        self.feed = feeds_of(loaded, Mint(self.store.site_namespace()))["ris"]
        self.sent = 0

    def send(self, draft, control_id=""):
        self.sent += 1
        return self.send_raw(draft.message(control_id or f"M{self.sent}", AT))

    def send_raw(self, raw):
        return asyncio.run(process_message(self.store, raw, self.feed, "test"))

    def items(self, statuses=LISTED):
        refs = self.store.reader.candidates(Narrowing(statuses=frozenset(statuses)))
        return self.store.reader.items([step_id for step_id, _ in refs])

    def statuses(self):
        return [item.status for item in self.items(SPSStatus)]

    def dispositions(self):
        return [stored.record.disposition for stored in self.store.reader.find_messages(MessageSearch(), 100)][::-1]


@pytest.fixture
def road(template, tmp_path):
    loaded, empty = template
    made = Road(loaded, shutil.copy(empty, tmp_path))
    yield made
    made.store.close()


def order(number=1, person=None, **changes):
    return ImagingOrder(number, person or invented_person(number), START, **changes)


def acknowledgement(receipt):
    segments = receipt.answer.decode().split("\r")
    return next(segment.split("|")[1] for segment in segments if segment.startswith("MSA"))


def said(receipt):
    return receipt.answer.decode()


@pytest.mark.parametrize("dialect", [rad4_orm, bare_orm, omi])
def test_an_acknowledged_order_is_on_the_list_at_once(road, dialect):
    assert acknowledgement(road.send(dialect(order()))) == "AA"
    assert [values(item.step, "ScheduledStationAETitle") for item in road.items()] == [["CT1"]]


def test_the_same_bytes_again_get_the_same_answer_and_change_nothing(road):
    message = rad4_orm(order()).message("M1", AT)
    first, second = road.send_raw(message), road.send_raw(message)
    assert first.answer == second.answer
    assert second.disposition == "repeated"
    assert len(road.items()) == 1


def test_a_control_id_used_again_for_another_message_is_processed_with_a_warning(road):
    road.send(rad4_orm(order(1)), "M1")
    again = road.send(rad4_orm(order(2)), "M1")
    assert acknowledgement(again) == "AA"
    assert "control ID" in said(again)
    assert len(road.items()) == 2


def test_a_listener_may_refuse_a_control_id_used_again(road):
    road.feed = replace(road.feed, refuse_repeated_ids=True)
    road.send(rad4_orm(order(1)), "M1")
    again = road.send(rad4_orm(order(2)), "M1")
    assert (acknowledgement(again), again.kinds) == ("AE", ("duplicate key",))


@pytest.mark.parametrize("control_id", ["", '""'])
def test_where_no_control_id_is_needed_an_empty_one_is_used_as_often_as_one_likes(road, control_id):
    road.feed = replace(road.feed, refuse_repeated_ids=True, header_required=())
    for number in (1, 2):
        message = rad4_orm(order(number)).message("M1", AT).replace(b"|M1|", f"|{control_id}|".encode())
        assert road.send_raw(message).disposition == "accepted"
        assert road.send_raw(message).disposition == "repeated"
    assert len(road.items()) == 2


def test_a_refused_message_is_processed_afresh_when_it_comes_again(road):
    message = bare_orm(order(code="NOSUCH")).message("M1", AT)
    assert road.send_raw(message).disposition == "refused"
    assert road.send_raw(message).disposition == "refused"
    assert road.dispositions() == ["refused", "refused"]


def test_an_uncovered_order_is_refused_and_says_what_to_do(road):
    answer = road.send(bare_orm(order(code="NOSUCH")))
    assert (acknowledgement(answer), answer.kinds) == ("AE", ("uncovered order",))
    assert "procedures.csv" in road.store.reader.message(1).record.reasons


def test_a_listener_may_hold_an_uncovered_order_until_a_rule_exists(road):
    road.feed = replace(road.feed, hold_uncovered=True)
    answer = road.send(bare_orm(order(code="NOSUCH")))
    assert (acknowledgement(answer), answer.disposition) == ("AA", "held")
    assert "held" in said(answer)
    held = road.store.reader.held_messages(10)
    assert [message.id for message in held] == [1]
    assert road.items() == []


def test_a_held_message_goes_through_once_a_rule_covers_it(road):
    road.feed = replace(road.feed, hold_uncovered=True)
    road.send(bare_orm(order(code="NOSUCH")))
    covered = road.feed.mapping.catalogue.compile(
        [{"code": "NOSUCH", "modality": "CT", "station_ae_titles": "CT9", "description": "New"}]
    )
    known = road.feed.mapping
    mapping = type(known)(known.rules, covered, known.issuers, known.stations)
    feed = replace(road.feed, mapping=mapping)
    (held,) = road.store.reader.held_messages(10)
    road.store.write(lambda unit: intake.release(unit, held, feed, AT)).result()
    assert [values(item.step, "ScheduledStationAETitle") for item in road.items()] == [["CT9"]]
    assert road.store.reader.held_messages(10) == []


def test_an_ignored_type_is_archived_and_acknowledged(road):
    road.feed = replace(road.feed, ignore=frozenset({"ADT^A02"}))
    raw = register(invented_person(1)).message("M1", AT).replace(b"ADT^A04", b"ADT^A02")
    answer = road.send_raw(raw)
    assert (acknowledgement(answer), answer.disposition) == ("AA", "ignored")
    assert "ignored" in said(answer)


@pytest.mark.parametrize(("other", "code"), [(b"ADT^A17", "201"), (b"QRY^A19", "200")])
def test_a_type_that_is_not_handled_is_rejected(road, other, code):
    answer = road.send_raw(register(invented_person(1)).message("M1", AT).replace(b"ADT^A04", other))
    assert acknowledgement(answer) == "AR"
    assert re.search(rf"\b{code}\b", said(answer))


def test_an_update_moves_the_item_and_keeps_its_uid(road):
    road.send(bare_orm(order()))
    before = road.items()[0]
    road.send(bare_orm(order().moved(datetime(2026, 7, 6, 14, 0)), "XO"))
    (after,) = road.items()
    assert text(after.step, "ScheduledProcedureStepStartDate") == "20260706"
    assert text(after.attributes, "StudyInstanceUID") == text(before.attributes, "StudyInstanceUID")
    assert after.revision > before.revision


def test_a_cancelled_order_leaves_the_list(road):
    road.send(rad4_orm(order()))
    road.send(cancel(order()))
    assert road.items() == []
    assert road.statuses() == [SPSStatus.CANCELED]


def test_a_cancel_for_an_unknown_order_makes_nothing(road):
    answer = road.send(cancel(order()))
    assert (acknowledgement(answer), answer.kinds) == ("AE", ("unknown order",))
    assert road.statuses() == []


def test_an_order_number_of_another_patient_is_refused_and_changes_neither(road):
    road.send(rad4_orm(order(1)))
    answer = road.send(rad4_orm(order(1, person=invented_person(2))))
    assert answer.kinds == ("duplicate key",)
    assert [text(item.attributes, "PatientID") for item in road.items()] == [invented_person(1).patient_id]


def test_identifiers_of_two_orders_are_refused(road):
    person = invented_person(1)
    road.send(rad4_orm(order(1, person)))
    road.send(rad4_orm(order(2, person)))
    mixed = rad4_orm(order(1, person)).message("M9", AT).replace(b"F000000001", b"F000000002")
    assert road.send_raw(mixed).kinds == ("duplicate key",)
    assert len(road.items()) == 2


def test_a_patient_update_shows_on_every_open_item(road):
    person = invented_person(1)
    road.send(rad4_orm(order(1, person)))
    road.send(rad4_orm(order(2, person)))
    road.send(update_patient(replace(person, name="Neumann^Anna")))
    assert {text(item.attributes, "PatientName") for item in road.items()} == {"Neumann^Anna"}


def test_a_start_of_another_offset_is_the_same_moment_by_the_departments_clock(road):
    sent = omi(order()).message("M1", AT).replace(b"20260705093000", b"20260705093000+0900")
    assert acknowledgement(road.send_raw(sent)) == "AA"
    with closing(sqlite3.connect(road.database)) as database:
        rows = database.execute("SELECT start_local, start_offset, zone FROM steps").fetchall()
    assert rows == [("20260705023000", "+0200", "Europe/Berlin")]
    assert text(road.items()[0].step, "ScheduledProcedureStepStartTime") == "023000"


SURVIVOR = Person("PAT0009000", "Doe^Jane", date(1980, 1, 2), "F")


def test_a_merge_shows_the_surviving_id_at_once(road):
    road.send(rad4_orm(order(1)))
    assert acknowledgement(road.send(merge_patients(SURVIVOR, invented_person(1)))) == "AA"
    assert [text(item.attributes, "PatientID") for item in road.items()] == ["PAT0009000"]


def test_a_merge_said_twice_changes_nothing(road):
    road.send(rad4_orm(order(1)))
    road.send(merge_patients(SURVIVOR, invented_person(1)))
    before = road.items()
    assert acknowledgement(road.send(merge_patients(SURVIVOR, invented_person(1)))) == "AA"
    assert road.items() == before


def test_a_merge_the_other_way_round_is_refused(road):
    road.send(rad4_orm(order(1)))
    road.send(merge_patients(SURVIVOR, invented_person(1)))
    answer = road.send(merge_patients(invented_person(1), SURVIVOR))
    assert (acknowledgement(answer), answer.kinds) == ("AE", ("duplicate key",))


def test_merges_in_a_chain_end_at_the_last_survivor(road):
    road.send(rad4_orm(order(1)))
    road.send(merge_patients(SURVIVOR, invented_person(1)))
    last = replace(SURVIVOR, patient_id="PAT0009001")
    road.send(merge_patients(last, SURVIVOR))
    assert [text(item.attributes, "PatientID") for item in road.items()] == ["PAT0009001"]
    again = road.send(rad4_orm(order(2, person=invented_person(1))))
    assert acknowledgement(again) == "AA"
    assert {text(item.attributes, "PatientID") for item in road.items()} == {"PAT0009001"}


def test_a_late_message_with_a_merged_id_means_the_survivor_and_does_not_rename_it(road):
    road.send(merge_patients(SURVIVOR, invented_person(1)))
    answer = road.send(rad4_orm(order(1)))
    assert acknowledgement(answer) == "AA"
    (item,) = road.items()
    assert (text(item.attributes, "PatientID"), text(item.attributes, "PatientName")) == ("PAT0009000", "Doe^Jane")


def test_a_listener_may_refuse_merged_ids(road):
    road.feed = replace(road.feed, redirect_merged=False)
    road.send(merge_patients(SURVIVOR, invented_person(1)))
    assert road.send(rad4_orm(order(1))).kinds == ("unknown key",)


def test_a_message_is_all_or_nothing(road):
    person = invented_person(1)
    good, bad = (
        rad4_orm(order(1, person)).message("M1", AT),
        bare_orm(order(2, person, code="NOSUCH")).message("M1", AT),
    )
    orders = bad.split(b"\r")
    both = good + b"\r".join(segment for segment in orders if segment[:3] in (b"ORC", b"OBR")) + b"\r"
    answer = road.send_raw(both)
    assert acknowledgement(answer) == "AE"
    assert road.statuses() == []


def test_several_orders_in_one_message_all_arrive(road):
    person = invented_person(1)
    first, second = (bare_orm(order(number, person)).message("M1", AT) for number in (1, 2))
    both = first + b"\r".join(segment for segment in second.split(b"\r") if segment[:3] in (b"ORC", b"OBR")) + b"\r"
    assert acknowledgement(road.send_raw(both)) == "AA"
    assert len(road.items()) == 2


def test_a_catalogued_procedure_with_two_steps_makes_two_items(road):
    road.send(bare_orm(order(code="BRSTUP")))
    assert sorted(text(item.step, "Modality") for item in road.items()) == ["MG", "US"]
    assert len({text(item.attributes, "StudyInstanceUID") for item in road.items()}) == 1


def test_unreadable_bytes_are_kept_with_their_reason_and_answered(road):
    answer = road.send_raw(b"\xff\xfe garbage")
    assert acknowledgement(answer) == "AR"
    stored = road.store.reader.message(1)
    assert (stored.record.disposition, stored.record.raw) == ("unreadable", b"\xff\xfe garbage")
    assert stored.record.reasons


def test_what_cannot_be_stored_is_refused_as_transient(road):
    raw = rad4_orm(order()).message("M1", AT)
    road.store.close()
    answer = road.send_raw(raw)
    assert (acknowledgement(answer), answer.kinds) == ("AR", ("cannot be stored now",))
    assert "207" in said(answer)
    late = asyncio.run(archive_message(road.store, raw, [], road.feed, "test"))
    assert late.kinds == ("cannot be stored now",)


# Feeds that send more the second time than the first.


def bare(number=1, control="NW", code="CTHEAD", status="", accession="", rp_id="", sps_id="", uid="", extra=()):
    """A bare order, with the keys that schedulers fill in later."""
    lines = bare_orm(order(number, code=code), control, status).message("X", AT).decode().rstrip("\r").split("\r")
    request = lines[-1].split("|")
    request += [""] * (28 - len(request))
    request[18], request[19], request[20] = accession, rp_id, sps_id
    lines[-1] = "|".join(request)
    lines += extra
    if uid:
        lines.append(f"ZDS|{uid}^RIS^Application^DICOM")
    return "\r".join(lines)


def studies(road):
    """Study Instance UIDs by procedure code."""
    return {
        text(values(item.attributes, "RequestedProcedureCodeSequence")[0], "CodeValue"): text(
            item.attributes, "StudyInstanceUID"
        )
        for item in road.items()
    }


def orc_obr(message):
    return [line for line in message.split("\r") if line[:3] in ("ORC", "OBR")]


@pytest.fixture
def say(road):
    """Send a text with a control ID of its own; returns the acknowledgement code."""
    numbers = iter(range(1, 1000))

    def send(message):
        return acknowledgement(road.send_raw(message.replace("|X|", f"|C{next(numbers)}|", 1).encode() + b"\r"))

    return send


@pytest.mark.parametrize(
    "later",
    [{"sps_id": "S1"}, {"rp_id": "R1"}, {"accession": "A1"}, {"uid": "1.2.3"}, {"accession": "A1", "rp_id": "R1"}],
)
def test_keys_that_come_with_an_update_are_taken_and_double_nothing(road, say, later):
    assert say(bare()) == "AA"
    published = text(road.items()[0].attributes, "StudyInstanceUID")
    assert say(bare(control="XO", **later)) == "AA"
    (item,) = road.items()
    assert text(item.attributes, "StudyInstanceUID") == published
    for keyword, key in (("AccessionNumber", "accession"), ("RequestedProcedureID", "rp_id")):
        assert text(item.attributes, keyword) == later.get(key, text(item.attributes, keyword))


@pytest.mark.parametrize("key", [{"sps_id": "S1"}, {"rp_id": "R1"}, {"uid": "1.2.3"}])
def test_a_cancel_with_keys_that_were_minted_here_cancels(road, say, key):
    say(bare())
    assert say(bare(control="CA", status="CA", **key)) == "AA"
    assert road.items() == []


def test_a_cancel_for_another_step_than_the_held_ones_is_refused(road, say):
    say(bare(accession="A1", rp_id="R1", sps_id="S1"))
    assert say(bare(control="CA", status="CA", accession="A1", rp_id="R1", sps_id="S9")) == "AE"
    assert len(road.items()) == 1


@pytest.mark.parametrize(("control", "status"), [("CA", "IP"), ("DC", "CM"), ("CA", "HD")])
def test_whoever_says_cancel_means_it_whatever_the_status_beside_it(road, say, control, status):
    say(bare())
    assert say(bare(control=control, status=status)) == "AA"
    assert road.items() == []


@pytest.mark.parametrize(
    ("status", "expected"), [("CM", SPSStatus.COMPLETED), ("CA", SPSStatus.CANCELED), ("DC", SPSStatus.DISCONTINUED)]
)
def test_history_sent_as_new_orders_does_not_fill_the_list(road, say, status, expected):
    assert say(bare(status=status)) == "AA"
    assert road.statuses() == [expected]


def test_an_order_on_hold_is_off_the_list_until_it_is_released(road, say):
    assert say(bare(status="HD")) == "AA"
    assert (road.items(), road.statuses()) == ([], [SPSStatus.HELD])
    assert say(bare(control="RL")) == "AA"
    assert len(road.items()) == 1


def test_a_status_for_an_order_nobody_sent_is_refused(road, say):
    assert say(bare(control="SC", status="CM")) == "AE"


def test_orders_known_by_their_study_only_get_keys_of_their_own(road):
    for number in (1, 2):
        lines = rad4_orm(order(number)).message(f"M{number}", AT).decode().split("\r")
        fields = [line.split("|") for line in lines]
        for line in fields:
            if line[0] in ("ORC", "OBR"):
                line[2] = line[3] = ""
            if line[0] == "OBR":
                line[18] = line[19] = line[20] = ""
        answer = road.send_raw("\r".join("|".join(line) for line in fields).encode())
        assert acknowledgement(answer) == "AA"
    accessions = [text(item.attributes, "AccessionNumber") for item in road.items()]
    assert len(accessions) == len(set(accessions)) == 2


def test_a_cancel_of_one_accession_leaves_the_other_procedure(road, say):
    first, second = bare(accession="A1"), bare(code="CTABD", accession="A2")
    say("\r".join([first, *orc_obr(second)]))
    assert say(bare(control="CA", status="CA", code="CTABD", accession="A2")) == "AA"
    assert [text(item.attributes, "AccessionNumber") for item in road.items()] == ["A1"]


def test_procedures_keep_their_study_when_the_update_names_them_in_another_order(road, say):
    say("\r".join([bare(), *orc_obr(bare(code="CTABD"))]))
    before = studies(road)
    assert len(before) == 2
    say("\r".join([bare(control="XO", code="CTABD"), *orc_obr(bare(control="XO"))]))
    assert studies(road) == before


def test_an_update_of_one_step_of_two_finds_it_by_modality(road, say):
    say(bare(code="BRSTUP"))
    ultrasound = bare(control="XO", code="BRSTUP").split("\r")
    fields = ultrasound[-1].split("|")
    fields[24] = "US"
    assert say("\r".join([*ultrasound[:-1], "|".join(fields)])) == "AA"
    assert len(road.items()) == 2


def test_a_second_order_does_not_take_over_the_study_of_the_first(road, say):
    say(bare(1, uid="1.2.3"))
    assert say(bare(2, uid="1.2.3").replace(invented_person(2).patient_id, invented_person(1).patient_id)) == "AE"
    assert say(bare(1, control="CA", status="CA")) == "AA"


def test_a_second_patient_in_an_order_message_is_refused(road, say):
    other = bare(2)
    assert say("\r".join([bare(1), *other.split("\r")[1:]])) == "AE"
    assert road.statuses() == []


def test_an_update_without_visit_keeps_the_visit(road, say):
    with_visit = bare().split("\r")
    with_visit = [
        line if not line.startswith("PV1") else "PV1||I|WARD^3||||||||||||||||V55^^^HOSPA" for line in with_visit
    ]
    assert say("\r".join(with_visit)) == "AA"
    assert text(road.items()[0].attributes, "AdmissionID") == "V55"
    without = [line for line in bare(control="XO").split("\r") if not line.startswith("PV1")]
    assert say("\r".join(without)) == "AA"
    assert text(road.items()[0].attributes, "AdmissionID") == "V55"


def test_a_held_order_does_not_undo_what_was_accepted_since(road, say):
    road.feed = replace(road.feed, hold_uncovered=True)
    assert say(bare(code="NOSUCH")) == "AA"
    assert say(bare(control="XO")) == "AA"
    (held,) = road.store.reader.held_messages(10)
    road.store.write(lambda unit: intake.release(unit, held, road.feed, AT)).result()
    assert road.dispositions() == ["superseded", "accepted"]


def test_a_cancel_withdraws_an_order_that_is_only_held(road, say):
    road.feed = replace(road.feed, hold_uncovered=True)
    say(bare(code="NOSUCH"))
    assert say(bare(control="CA", status="CA", code="NOSUCH")) == "AA"
    assert road.dispositions() == ["withdrawn", "accepted"]


def test_a_held_order_sent_again_after_its_cancel_stays_withdrawn(road, say):
    road.feed = replace(road.feed, hold_uncovered=True)
    say(bare(code="NOSUCH"))
    say(bare(control="CA", status="CA", code="NOSUCH"))
    first = road.store.reader.message(1)
    again = road.send_raw(first.record.raw)
    assert (again.disposition, again.answer) == ("repeated", first.record.answer)
    assert road.dispositions() == ["withdrawn", "accepted"]


def test_a_held_message_that_is_run_again_in_vain_stays_one(road, say):
    road.feed = replace(road.feed, hold_uncovered=True)
    say(bare(code="NOSUCH"))
    held = road.store.reader.message(1)
    asyncio.run(process_message(road.store, held.record.raw, road.feed, "replay", 1))
    assert road.dispositions() == ["held", "refused"]


def test_a_retired_id_beside_the_current_one_stays_retired(road):
    road.send(merge_patients(SURVIVOR, invented_person(1)))
    both = update_patient(SURVIVOR).message("M9", AT).decode()
    authority = "^^^HOSPITAL&1.2.3.4&ISO"
    both = both.replace(f"PAT0009000{authority}", f"PAT0009000{authority}~{invented_person(1).patient_id}{authority}")
    assert acknowledgement(road.send_raw(both.encode())) == "AA"
    road.send(update_patient(replace(invented_person(1), name="Wrong^Name")))
    road.send(rad4_orm(order(1, SURVIVOR)))
    assert [text(item.attributes, "PatientName") for item in road.items()] == ["Doe^Jane"]


def test_a_merge_into_a_new_patient_keeps_the_name(road):
    road.send(rad4_orm(order(1)))
    name = text(road.items()[0].attributes, "PatientName")
    merge = merge_patients(SURVIVOR, invented_person(1)).message("M9", AT).decode()
    lines = [("|".join(line.split("|")[:4]) if line.startswith("PID") else line) for line in merge.split("\r")]
    assert acknowledgement(road.send_raw("\r".join(lines).encode())) == "AA"
    (item,) = road.items()
    assert (text(item.attributes, "PatientID"), text(item.attributes, "PatientName")) == ("PAT0009000", name)


def test_the_id_that_devices_know_stays_when_a_message_leads_with_another(road):
    person = invented_person(1)
    road.send(rad4_orm(order(1, person)))
    lead = (
        update_patient(person).message("M9", AT).decode().replace(person.patient_id, f"555^^^SSN~{person.patient_id}")
    )
    assert acknowledgement(road.send_raw(lead.encode())) == "AA"
    assert [text(item.attributes, "PatientID") for item in road.items()] == [person.patient_id]
