"""What a listener's settings change: who may speak, what MSH must say, when a message was made, what comes early."""

import asyncio
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from gateway.domain.attributes import text
from gateway.domain.identifiers import Identifier, Issuer, Issuers, Mint
from gateway.domain.matching import Narrowing
from gateway.domain.worklist import LISTED, SPSStatus
from gateway.edges.store import Store
from gateway.processing import feeds_of, process_message, remember_mappings
from gateway.testing import (
    ImagingOrder,
    bare_orm,
    cancel,
    invented_person,
    merge_patients,
    rad4_orm,
    register,
    update_patient,
)
from gateway.workflow.ports import MessageSearch

AT = datetime(2026, 7, 5, 8, 0)
ORDER = ImagingOrder(1, invented_person(1), datetime(2026, 7, 5, 9, 30))


class Road:
    """A store and a feed to send messages down."""

    def __init__(self, loaded, database):
        self.site = loaded
        self.store = Store(f"sqlite:///{database}", zone="Europe/Berlin")
        self.feed = feeds_of(loaded, Mint(self.store.site_namespace()))["ris"]
        self.sent = 0

    def send(self, draft, made=AT, **replaced):
        self.sent += 1
        raw = draft.message(f"M{self.sent}", made)
        for said, instead in replaced.get("but", {}).items():
            raw = raw.replace(said.encode(), instead.encode())
        return asyncio.run(process_message(self.store, raw, self.feed, "test"))

    def has(self, **changes):
        self.feed = replace(self.feed, **changes)

    def items(self, statuses=LISTED):
        refs = self.store.reader.candidates(Narrowing(statuses=frozenset(statuses)))
        return self.store.reader.items([step_id for step_id, _ in refs])

    def statuses(self):
        return [item.status for item in self.items(SPSStatus)]

    def archive(self):
        return [stored.record for stored in self.store.reader.messages_in_order(MessageSearch(), 100)]


@pytest.fixture
def road(template, tmp_path):
    loaded, empty = template
    made = Road(loaded, shutil.copy(empty, tmp_path))
    yield made
    made.store.close()


def told(receipt):
    segments = [line.split("|") for line in receipt.answer.decode().split("\r") if line]
    return next((line[1], "|".join(line[3:4])) for line in segments if line[0] == "MSA")


# ---- senders and headers ----


@pytest.mark.parametrize("senders", [{"RIS|RADIOLOGY"}, {"RIS"}, {"OTHER|X", "RIS"}, set()])
def test_a_sender_on_the_list_is_taken(road, senders):
    road.has(senders=frozenset(senders))
    assert told(road.send(rad4_orm(ORDER)))[0] == "AA"


def test_a_sender_not_on_the_list_is_rejected_by_name(road):
    road.has(senders=frozenset({"KIS|RADIOLOGY"}), ignore=frozenset({"ORM"}))
    receipt = road.send(rad4_orm(ORDER))
    code, said = told(receipt)
    assert code == "AR"
    assert "MSH-3" in said
    (record,) = road.archive()
    assert record.disposition == "refused"
    assert "'RIS|RADIOLOGY'" in record.reasons
    assert "KIS|RADIOLOGY" in record.reasons
    assert b"103^" in receipt.answer or b"&103" in receipt.answer or b"103&" in receipt.answer
    assert road.items() == []


def test_a_listener_may_insist_on_fields_of_the_header(road):
    road.has(header_required=(6, 9, 10))
    assert told(road.send(rad4_orm(ORDER)))[0] == "AA"
    code, said = told(road.send(rad4_orm(ORDER), but={"|GATEWAY|RADIOLOGY|": "|GATEWAY||"}))
    assert code == "AE"
    assert "MSH-6" in said


def test_a_charset_that_nobody_should_believe_is_overridden(road):
    road.has(charset_override="8859/1")
    draft = rad4_orm(replace(ORDER, person=replace(ORDER.person, name="Bj\u00f6rk^Ida")))
    raw = draft.message("M1", AT).decode().replace("UNICODE UTF-8", "ASCII").encode("iso8859-1")
    receipt = asyncio.run(process_message(road.store, raw, road.feed, "test"))
    assert told(receipt)[0] == "AA"
    assert text(road.items()[0].attributes, "PatientName").startswith("Bj\u00f6rk")
    assert "8859/1" in road.archive()[0].reasons


# ---- order in time ----


def test_the_archive_says_when_a_message_was_made_and_what_it_touched(road):
    road.send(rad4_orm(ORDER))
    (record,) = road.archive()
    assert record.made_at == "2026-07-05T06:00:00.999999"
    kinds = {kind for kind, _ in record.keys}
    assert {"patient", "placer", "filler", "accession", "study", "#order", "#patient"} <= kinds


def test_a_late_message_does_not_take_back_what_was_said_after_it(road):
    later = replace(ORDER.person, name="Newer^Name")
    road.send(rad4_orm(ORDER), AT)
    road.send(update_patient(later), AT + timedelta(hours=2))
    road.send(update_patient(replace(ORDER.person, name="Older^Name")), AT + timedelta(hours=1))
    assert text(road.items()[0].attributes, "PatientName").startswith("Newer")


def test_a_listener_may_count_by_arrival(road):
    road.has(sort_late=False)
    road.send(rad4_orm(ORDER), AT)
    road.send(update_patient(replace(ORDER.person, name="Newer^Name")), AT + timedelta(hours=2))
    road.send(update_patient(replace(ORDER.person, name="Last^Name")), AT + timedelta(hours=1))
    assert text(road.items()[0].attributes, "PatientName").startswith("Last")


def test_a_listener_may_be_in_another_zone(road):
    road.has(zone=ZoneInfo("America/New_York"))
    road.send(rad4_orm(ORDER))
    assert road.archive()[0].made_at == "2026-07-05T12:00:00.999999"


# ---- early messages ----


def test_a_cancel_that_overtakes_its_order_acts_when_the_order_comes(road):
    receipt = road.send(cancel(ORDER), AT + timedelta(minutes=5))
    assert (told(receipt)[0], receipt.disposition) == ("AE", "early")
    assert "if the order arrives" in road.archive()[0].reasons
    receipt = road.send(rad4_orm(ORDER), AT)
    assert told(receipt)[0] == "AA"
    assert road.statuses() == [SPSStatus.CANCELED]
    assert "M1" in told(receipt)[1]
    assert [record.disposition for record in road.archive()] == ["released", "accepted", "accepted"]


def test_an_early_message_is_found_by_the_order_it_is_about(road):
    road.send(cancel(ORDER), AT + timedelta(minutes=5))
    other = ImagingOrder(2, invented_person(1), ORDER.start)
    road.send(rad4_orm(other), AT)
    assert road.statuses() == [SPSStatus.SCHEDULED]
    assert road.archive()[0].disposition == "early"


def test_an_early_message_that_still_cannot_act_does_not_harm_the_order(road):
    both = [*bare_orm(ORDER, "CA").segments, *bare_orm(replace(ORDER, number=2), "CA").segments[2:]]
    assert road.send(replace(bare_orm(ORDER), segments=tuple(both)), AT + timedelta(minutes=5)).disposition == "early"
    assert told(road.send(bare_orm(ORDER), AT))[0] == "AA"
    assert road.statuses() == [SPSStatus.SCHEDULED]
    assert "when the order arrived" in road.archive()[0].reasons
    assert told(road.send(bare_orm(replace(ORDER, number=2)), AT))[0] == "AA"
    assert road.statuses() == [SPSStatus.CANCELED, SPSStatus.CANCELED]


def test_an_early_message_that_comes_twice_acts_once_or_twice_alike(road):
    for _ in range(2):
        road.send(cancel(ORDER), AT + timedelta(minutes=5))
    road.send(rad4_orm(ORDER), AT)
    assert road.statuses() == [SPSStatus.CANCELED]
    assert [record.disposition for record in road.archive()][:2] == ["released", "released"]


# ---- answers ----


def test_what_says_nothing_new_is_told_so(road):
    assert "nothing changed" not in told(road.send(register(ORDER.person)))[1]
    assert "nothing changed" in told(road.send(register(ORDER.person), AT + timedelta(minutes=1)))[1]
    assert "nothing changed" not in told(road.send(rad4_orm(ORDER), AT + timedelta(minutes=2)))[1]
    assert "nothing changed" in told(road.send(rad4_orm(ORDER), AT + timedelta(minutes=3)))[1]


def test_orders_may_be_answered_order_by_order(road):
    road.has(answer="order")
    answer = road.send(rad4_orm(ORDER)).answer.decode()
    assert "ORR^O02" in answer
    assert "\rORC|OK|" in answer


def enhanced(commit, application):
    """MSH-15 and MSH-16, in the header that the drafts make."""
    return {"|P|2.3.1||||||UNICODE UTF-8": f"|P|2.3.1|||{commit}|{application}||UNICODE UTF-8"}


def test_enhanced_mode_commits_here_and_acknowledges_elsewhere(road):
    road.has(acknowledge_to="ris-acks")
    receipt = road.send(rad4_orm(ORDER), but=enhanced("AL", "AL"))
    assert told(receipt)[0] == "CA"
    waiting = road.store.reader.find_messages(MessageSearch(direction="out"), 10)
    (sent,) = waiting
    assert (sent.record.listener, sent.record.disposition) == ("ris-acks", "waiting")
    assert b"\rMSA|AA|M1" in sent.record.raw
    assert ("#patient", "1") in sent.record.keys


def test_a_repeat_in_enhanced_mode_is_answered_again_and_acts_once(road):
    road.has(acknowledge_to="ris-acks")
    raw = rad4_orm(ORDER).message("M1", AT)
    for said, instead in enhanced("AL", "AL").items():
        raw = raw.replace(said.encode(), instead.encode())
    first, second = (asyncio.run(process_message(road.store, raw, road.feed, "test")) for _ in range(2))
    assert second.disposition == "repeated"
    assert first.answer == second.answer
    assert len(road.store.reader.find_messages(MessageSearch(direction="out"), 10)) == 1


def test_without_a_destination_the_application_answers_here(road):
    assert told(road.send(rad4_orm(ORDER), but=enhanced("AL", "AL")))[0] == "AA"


@pytest.mark.parametrize(("commit", "expected"), [("AL", "CE"), ("ER", "CE"), ("SU", ""), ("NE", "")])
def test_a_refusal_is_committed_as_it_was_asked(road, commit, expected):
    road.has(acknowledge_to="ris-acks")
    answer = road.send(bare_orm(replace(ORDER, code="NOSUCH")), but={
        "|P|2.3||||||UNICODE UTF-8": f"|P|2.3|||{commit}|NE||UNICODE UTF-8",
    }).answer  # fmt: skip
    assert answer.decode()[:3] == ("MSH" if expected else "")
    assert f"\rMSA|{expected}" in answer.decode() or not expected
    assert road.archive()[0].disposition == "refused"


# ---- authorities ----


def test_two_authorities_for_one_identifier_are_refused_with_both_names(road):
    issuers = Issuers([Issuer("NORTH", frozenset({"N"}), frozenset({"1.2.3"})), Issuer("SOUTH", frozenset({"S"}))])
    known = road.feed.mapping
    road.has(mapping=type(known)(known.rules, known.catalogue, issuers, known.stations), issuers=issuers)
    draft = rad4_orm(ORDER)
    pid = draft.segments[0].split("|")
    value = pid[3].split("^")[0]

    def said(authority):
        return {draft.segments[0]: "|".join([*pid[:3], f"{value}^^^{authority}", *pid[4:]])}

    receipt = road.send(draft, but=said("S&1.2.3&ISO"))
    assert told(receipt)[0] == "AE"
    assert "PID-3.4: 'S' is SOUTH, '1.2.3' is NORTH" in road.archive()[0].reasons
    assert told(road.send(draft, but=said("N&1.2.3&ISO")))[0] == "AA"
    assert road.store.reader.patient(1).identifiers == (Identifier(value, "NORTH"),)


# ---- mappings ----


def test_what_the_mappings_are_made_of_is_remembered(road):
    asyncio.run(remember_mappings(road.store, road.site))
    assert '"ihe-swf"' in road.store.reader.mapping_version(road.feed.mapping.version_id)


def test_a_merge_is_found_by_both_identifiers(road):
    road.send(merge_patients(invented_person(1), invented_person(2)))
    found = {value for kind, value in road.archive()[0].keys if kind == "patient"}
    assert found == {invented_person(1).patient_id, invented_person(2).patient_id}


def test_the_clock_of_a_sender_may_run_ahead(road):
    road.send(update_patient(invented_person(1)), datetime.now(UTC) + timedelta(days=400))
    (record,) = road.archive()
    assert record.made_at == record.received_at.replace(tzinfo=None).isoformat(timespec="microseconds")
