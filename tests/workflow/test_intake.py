"""What becomes of messages: repeats, holds, merges, cancels, each through the real mapping and a real store."""

import asyncio
import re
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import UTC, date, datetime

import pytest

from gateway.config import load_site
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
    site,
    update_patient,
)
from gateway.workflow import intake

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
        return [stored.record.disposition for stored in self.store.reader.list_messages(100)][::-1]


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A site read once, and an empty database to copy."""
    folder = tmp_path_factory.mktemp("template")
    loaded = load_site(site(folder))
    Store(loaded.store_url).close()
    return loaded, folder / "gateway.db"


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


def test_a_refused_message_is_processed_afresh_when_it_comes_again(road):
    message = bare_orm(order(code="NOSUCH")).message("M1", AT)
    assert road.send_raw(message).disposition == "refused"
    assert road.send_raw(message).disposition == "refused"
    assert road.dispositions() == ["refused", "refused"]


def test_an_uncovered_order_is_refused_and_says_what_to_do(road):
    answer = road.send(bare_orm(order(code="NOSUCH")))
    assert (acknowledgement(answer), answer.kinds) == ("AE", ("uncovered order",))
    assert "procedures.csv" in said(answer) or "procedures.csv" in road.store.reader.message(1).record.reasons


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
    mapping = type(road.feed.mapping)(road.feed.mapping.rules, covered, road.feed.mapping.issuers)
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


@pytest.mark.parametrize(("other", "code"), [(b"ADT^A02", "201"), (b"QRY^A19", "200")])
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
    assert (acknowledgement(answer), answer.kinds) == ("AE", ("unknown key",))
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


def test_a_start_keeps_the_wall_clock_and_the_offset_as_sent(road):
    sent = omi(order()).message("M1", AT).replace(b"20260705093000", b"20260705093000+0900")
    assert acknowledgement(road.send_raw(sent)) == "AA"
    with closing(sqlite3.connect(road.database)) as database:
        rows = database.execute("SELECT start_local, start_offset, zone FROM steps").fetchall()
    assert rows == [("20260705093000", "+0900", "Europe/Berlin")]
    assert text(road.items()[0].step, "ScheduledProcedureStepStartTime") == "093000"


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
    assert acknowledgement(answer) in ("AR", "AE")
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
