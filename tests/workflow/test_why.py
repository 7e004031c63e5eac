"""Why is this patient not on my list? Every cause there is, told in words a technician can act on."""

import asyncio
import shutil
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from gateway.domain.devices import (
    CalledWorklist,
    DateWindow,
    Device,
    Devices,
    Leaves,
    Profile,
    Sees,
    WhenMore,
)
from gateway.domain.identifiers import Mint
from gateway.domain.worklist import SPSStatus
from gateway.edges.store import Store
from gateway.processing import feeds_of, now, process_message
from gateway.testing import (
    ImagingOrder,
    bare_orm,
    cancel,
    invented_person,
    rad4_orm,
    register,
    worklist_identifier,
)
from gateway.wire.dicom_json import attributes_from_dataset, write_attributes
from gateway.workflow import maintain
from gateway.workflow.ports import ItemKey, QueryRecord
from gateway.workflow.query import caller_of
from gateway.workflow.replay import replay
from gateway.workflow.why import Question, Severity, why

IMPLICIT = "1.2.840.10008.1.2"
START = datetime(2026, 7, 5, 9, 30)


class Desk:
    """A store that messages and queries came to, and the person who is asked why."""

    def __init__(self, loaded, database):
        self.store = Store(f"sqlite:///{database}", zone="Europe/Berlin")
        self.feed = feeds_of(loaded, Mint(self.store.site_namespace()))["ris"]
        self.sent = 0
        self.at = now()

    def send(self, draft):
        self.sent += 1
        message = draft.message(f"M{self.sent}", self.at)
        return asyncio.run(process_message(self.store, message, self.feed, "test")).disposition

    def asked(self, ae_title="CT1", called="GATEWAY", at=None, status=0, matches=0, **keys):
        identifier = attributes_from_dataset(worklist_identifier(keys))
        record = QueryRecord(
            at or now(), ae_title, called, "192.0.2.30", IMPLICIT, write_attributes(identifier, IMPLICIT, ()),
            status, matches,
        )  # fmt: skip
        self.store.write(lambda unit: unit.add_queries([record], 100)).result(timeout=10)
        return self.store.reader.queries(ae_title, 1)[0]

    def why(self, devices=None, key=ItemKey.ACCESSION, value="A000000001", ae_title="CT1", called=""):
        return why(self.store.reader, devices or registry(), Question(ae_title, key, value, called), UTC, now())


def registry(*devices, accept_unknown=False, **more):
    return Devices.of(devices or [Device("CT1")], accept_unknown=accept_unknown, **more)


def sentences(explanation):
    found = [finding.sentence for finding in explanation.findings]
    return "\n".join(found + [finding.sentence for each in explanation.items for finding in each.findings])


def hidden(explanation):
    (item,) = explanation.items
    assert not item.shown
    return "\n".join(finding.sentence for finding in item.findings if finding.severity is Severity.HIDDEN)


def order(number=1, **changes):
    return ImagingOrder(number, invented_person(number), START, **changes)


@pytest.fixture
def desk(template, tmp_path):
    loaded, empty = template
    made = Desk(loaded, shutil.copy(empty, tmp_path))
    yield made
    made.store.close()


# --- the device


def test_a_device_outside_the_registry_is_named_with_the_one_that_may_be_meant(desk):
    desk.send(rad4_orm(order()))
    explanation = desk.why(registry(Device("CT1"), Device("MR1")), ae_title="ct-1")
    first = explanation.findings[0]
    assert first.severity is Severity.HIDDEN
    assert "ct-1 is not in the device registry, and unknown callers are rejected" in first.sentence
    assert "Did you mean CT1?" in first.sentence
    assert not explanation.items[0].shown


def test_an_unknown_device_that_is_accepted_is_told_to_be_unknown(desk):
    desk.send(rad4_orm(order()))
    explanation = desk.why(registry(accept_unknown=True), ae_title="XA9")
    assert "XA9 is not in the device registry; unknown callers are accepted" in sentences(explanation)
    assert explanation.items[0].shown


def test_a_worklist_that_is_not_there_is_named(desk):
    desk.send(rad4_orm(order()))
    devices = registry(worklists=[CalledWorklist("RADIOLOGY"), CalledWorklist("CARDIO")])
    explanation = desk.why(devices, called="RADIOLOGIE")
    assert "there is no worklist of that AE title" in sentences(explanation)
    assert "Did you mean RADIOLOGY?" in sentences(explanation)


def test_a_device_outside_the_registry_is_named_also_where_no_worklist_is(desk):
    two = registry(worklists=[CalledWorklist("NORTH"), CalledWorklist("SOUTH")])
    said = sentences(desk.why(two, ae_title="CT9"))
    assert "CT9 is not in the device registry" in said
    assert "--called" in said


def test_where_there_are_several_worklists_the_one_called_last_is_meant(desk):
    desk.send(rad4_orm(order()))
    devices = registry(worklists=[CalledWorklist("RADIOLOGY", modalities=frozenset({"CT"})), CalledWorklist("CARDIO")])
    assert "name the one it is to call with --called" in sentences(desk.why(devices))
    desk.asked(called="RADIOLOGY")
    explanation = desk.why(devices)
    assert explanation.called_ae_title == "RADIOLOGY"
    assert explanation.items[0].shown


# --- nothing is held


def test_where_nothing_ever_arrived_the_newest_message_of_each_listener_is_told(desk):
    desk.send(register(invented_person(7)))
    explanation = desk.why()
    said = sentences(explanation)
    assert "No item with the accession number A000000001 is held" in said
    assert "Nothing with it ever arrived. The newest message of listener ris came at" in said
    assert [finding.message for finding in explanation.findings if finding.message] == [1]
    assert explanation.items == ()


def test_where_no_message_arrived_at_all_that_is_told(desk):
    assert "no listener has received any message yet" in sentences(desk.why())


@pytest.mark.parametrize(("key", "value"), [
    (ItemKey.ACCESSION, "A000000001"), (ItemKey.ORDER, "P000000001"), (ItemKey.ORDER, "F000000001"),
    (ItemKey.PATIENT, invented_person(1).patient_id),
])  # fmt: skip
def test_a_refused_message_is_found_by_every_number_it_names(desk, key, value):
    mixed = replace(invented_person(1), name="")
    assert desk.send(rad4_orm(ImagingOrder(1, mixed, START))) == "refused"
    explanation = desk.why(key=key, value=value)
    (finding,) = [each for each in explanation.findings if each.message]
    assert finding.severity is Severity.HIDDEN
    assert "Message 1 (ORM^O01) of listener ris named it" in finding.sentence
    assert "was refused: " in finding.sentence
    assert "PID-5" in finding.sentence


def test_a_number_that_only_begins_like_another_is_not_found_in_a_refused_message(desk):
    desk.send(rad4_orm(ImagingOrder(1, replace(invented_person(1), name=""), START)))
    assert "Nothing with it ever arrived" in sentences(desk.why(value="A00000000"))


def test_an_order_that_no_procedure_rule_covers_is_said_to_wait(desk):
    desk.feed = replace(desk.feed, hold_uncovered=True)
    assert desk.send(bare_orm(order(code="NOSUCH"))) == "held"
    explanation = desk.why(key=ItemKey.ORDER, value="P000000001")
    assert "waits: " in sentences(explanation)
    assert "procedures.csv" in sentences(explanation)


def test_an_ignored_message_says_so(desk):
    desk.feed = replace(desk.feed, ignore=frozenset({"ORM"}))
    assert desk.send(rad4_orm(order())) == "ignored"
    assert "was ignored: ORM^O01 is ignored here" in sentences(desk.why())


def test_a_patient_who_is_known_but_has_no_order_is_told_of(desk):
    person = invented_person(1)
    desk.send(register(person))
    said = sentences(desk.why(key=ItemKey.PATIENT, value=person.patient_id))
    assert "Message 1 (ADT^A04) of listener ris named it" in said
    assert "was accepted, but it made no worklist item" in said


# --- the item


def test_a_cancelled_item_says_since_when_and_by_which_message(desk):
    desk.send(rad4_orm(order()))
    desk.send(cancel(order()))
    said = hidden(desk.why())
    assert "Its status is CANCELED since " in said
    assert "by ris M2" in said


def test_an_expired_item_says_so(desk):
    desk.send(rad4_orm(order()))
    refs = desk.store.reader.expiring("20270101000000")
    desk.store.write(lambda unit: maintain.expire(unit, refs, now())).result(timeout=10)
    assert "Its status is EXPIRED since " in hidden(desk.why())


def test_an_item_that_another_modality_began_is_told_where_the_profile_hides_it(desk):
    desk.send(rad4_orm(order()))
    (ref,) = desk.store.reader.expiring("20270101000000")
    desk.store.write(
        lambda unit: unit.set_step_status(ref.step_id, SPSStatus.STARTED, "MPPS 1.2.3 by CT2", now())
    ).result(timeout=10)
    profile = Profile(name="leaves-early", reason="shows what is taken by others", leaves=Leaves.IN_PROGRESS)
    explanation = desk.why(registry(Device("CT1", profile=profile)))
    assert "Its status is STARTED since " in hidden(explanation)
    assert "not listed for this device" in hidden(explanation)
    assert "has the profile leaves-early (shows what is taken by others)" in sentences(explanation)
    assert desk.why().items[0].shown


def test_an_item_of_another_site_or_station_or_worklist_says_which(desk):
    desk.feed = replace(desk.feed, site="NORTH")
    desk.send(rad4_orm(order(station="CT9")))
    south = registry(Device("CT1", sites=frozenset({"SOUTH"})))
    assert "it is an order of site NORTH, and this caller sees SOUTH" in hidden(desk.why(south))
    assert desk.why(registry(Device("CT1", sites=frozenset({"NORTH"})))).items[0].shown
    own = registry(Device("CT1", profile=Profile(sees=Sees.OWN)))
    assert "it is scheduled to CT9, and this caller sees the steps of CT1" in hidden(desk.why(own))
    mr = registry(worklists=[CalledWorklist("MRLIST", modalities=frozenset({"MR"}))])
    assert "its modality is CT, and this worklist has MR" in hidden(desk.why(mr))


def test_the_key_that_excludes_it_is_named_with_both_values(desk):
    desk.send(rad4_orm(order()))
    query = desk.asked(ScheduledStationAETitle="CT2", Modality="CT")
    explanation = desk.why()
    said = hidden(explanation)
    assert f"Query {query.id} of " in said
    assert "ScheduledStationAETitle: asked for 'CT2', the item has 'CT1'" in said
    assert "Modality" not in said
    (finding,) = [each for each in explanation.items[0].findings if each.severity is Severity.HIDDEN]
    assert finding.query == query.id


def test_a_key_of_the_devices_habits_that_alone_hides_it_may_be_ignored_by_a_profile(desk):
    desk.send(rad4_orm(order()))
    desk.asked(ScheduledStationAETitle="CT2", Modality="CT")
    assert "profile with `ignore: [ScheduledStationAETitle]`" in sentences(desk.why())


def test_a_key_that_the_profile_forces_is_not_blamed_on_the_device(desk):
    desk.send(rad4_orm(order()))
    desk.asked(PatientID=order().person.patient_id)
    device = Device("CT1", profile=Profile(name="mr-only", force=(("Modality", "MR"),)))
    explanation = desk.why(registry(device))
    assert "Modality: asked for 'MR', the item has 'CT'" in hidden(explanation)
    assert "The device did not ask so: its profile mr-only does (`force`)." in sentences(explanation)


def test_an_item_that_is_damaged_in_the_store_is_not_said_to_be_missing(desk, tmp_path):
    desk.send(rad4_orm(order()))
    with closing(sqlite3.connect(tmp_path / "gateway.db")) as beside, beside:
        beside.execute("UPDATE patients SET attributes = '{'")
    said = sentences(desk.why())
    assert "1 item(s) with it cannot be read from the store" in said
    assert "No item" not in said
    assert "made no worklist item" not in said


@pytest.mark.parametrize("keys", [
    {"ScheduledStationAETitle": "CT2", "Modality": "MR"}, {"PatientName": "Nobody"},
])  # fmt: skip
def test_nothing_is_advised_where_no_one_habit_is_the_cause(desk, keys):
    desk.send(rad4_orm(order()))
    desk.asked(**keys)
    assert "ignore:" not in sentences(desk.why())


def test_each_different_query_is_explained_once_the_latest_first(desk):
    desk.send(rad4_orm(order()))
    for _ in range(10):
        wrong = desk.asked(Modality="MR")
        right = desk.asked(Modality="CT")
    explanation = desk.why()
    (item,) = explanation.items
    found = [each for each in item.findings if each.severity is not Severity.NOTE]
    assert [(each.severity, each.query) for each in found] == [
        (Severity.SHOWN, right.id), (Severity.HIDDEN, wrong.id),
    ]  # fmt: skip
    assert item.shown


def test_the_date_window_of_a_profile_is_named_for_a_query_without_a_date_only(desk):
    desk.send(rad4_orm(order()))
    devices = registry(Device("CT1", profile=Profile(date_window=DateWindow(1, 1))))
    assert "it is scheduled for 20260705; without a date the device is shown" in hidden(desk.why(devices))
    desk.asked(Modality="CT")
    assert "names no date: it is scheduled for 20260705" in hidden(desk.why(devices))
    desk.asked(ScheduledProcedureStepStartDate="20260701-20260731")
    assert desk.why(devices).items[0].shown


@pytest.mark.parametrize(("when_more", "ending"), [
    (WhenMore.FAILURE, "with A700"), (WhenMore.SUCCESS, "as if it were complete"),
])  # fmt: skip
def test_an_item_beyond_the_most_a_device_is_answered_says_where_it_stands(desk, when_more, ending):
    for number in range(1, 5):
        desk.send(rad4_orm(ImagingOrder(number, invented_person(number), START + timedelta(hours=number))))
    devices = registry(Device("CT1", profile=Profile(answers_max=2, when_more=when_more)))
    desk.asked()
    said = hidden(desk.why(devices, value="A000000003"))
    assert "it is number 3 of the matches, and this device is answered 2 at most" in said
    assert ending in said
    assert desk.why(devices, value="A000000002").items[0].shown


def test_an_item_that_arrived_after_the_last_query_says_so(desk):
    asked = desk.asked(at=now() - timedelta(minutes=5))
    desk.send(rad4_orm(order()))
    explanation = desk.why()
    assert explanation.items[0].shown
    assert f"Query {asked.id} of " in sentences(explanation)
    assert "It was not yet there when the device asked: it arrived at" in sentences(explanation)


def test_a_device_that_never_asked_says_so(desk):
    desk.send(rad4_orm(order()))
    assert "No query of CT1 is kept: it has never asked" in sentences(desk.why())


def test_a_device_that_calls_another_worklist_is_told_of(desk):
    desk.send(rad4_orm(order()))
    query = desk.asked(called="CARDIO")
    devices = registry(worklists=[CalledWorklist("RADIOLOGY"), CalledWorklist("CARDIO")])
    said = sentences(desk.why(devices, called="RADIOLOGY"))
    assert f"(query {query.id}), and called CARDIO, not RADIOLOGY" in said


@pytest.mark.parametrize(("status", "words"), [
    (0xA700, "A700"), (0xFE00, "cancelled by the device"), (0, "success"), (0x0110, "status 0110"),
])  # fmt: skip
def test_how_the_last_query_ended_is_told(desk, status, words):
    desk.asked(status=status, matches=17)
    said = sentences(desk.why())
    assert "got 17 answers; it ended with " in said
    assert words in said


def test_a_query_whose_keys_cannot_be_used_says_which(desk):
    desk.send(rad4_orm(order()))
    desk.asked(status=0xA900, ScheduledProcedureStepStartDate="20260731-20260701")
    assert "cannot be used: " in hidden(desk.why())
    assert "the range ends before it starts" in hidden(desk.why())


def test_a_later_message_that_was_refused_is_told_because_what_is_held_may_be_old(desk):
    desk.send(rad4_orm(order()))
    desk.send(rad4_orm(ImagingOrder(1, replace(invented_person(1), name=""), START)))
    assert "what is held may be older than what the sender means" in sentences(desk.why(key=ItemKey.ORDER,
                                                                                     value="P000000001"))  # fmt: skip


def test_every_item_of_a_patient_is_explained_what_is_listed_first(desk):
    person = invented_person(1)
    for number in (1, 2):
        desk.send(rad4_orm(ImagingOrder(number, person, START)))
    desk.send(cancel(ImagingOrder(2, person, START)))
    explanation = desk.why(key=ItemKey.PATIENT, value=person.patient_id)
    assert [each.shown for each in explanation.items] == [True, False]


def test_an_explanation_prints_no_patient_data_by_accident(desk):
    desk.send(rad4_orm(order()))
    desk.asked(PatientName="Doe*")
    shown = repr(desk.why())
    assert "Doe" not in shown
    assert invented_person(1).name.split("^")[0] not in shown


# --- replay


def test_a_kept_query_is_answered_from_todays_data_and_by_another_profile(desk):
    for number in (1, 2, 3):
        desk.send(rad4_orm(order(number, station="CT1" if number == 1 else "CT2")))
    record = desk.asked(ScheduledStationAETitle="CT1").record

    def again(profile):
        devices = registry(Device("CT1", profile=profile))
        caller = caller_of(devices, "CT1", "GATEWAY", record.negotiation, UTC, now().date())
        return replay(desk.store.reader, caller, record)

    assert len(again(Profile()).items) == 1
    assert len(again(Profile(ignore=("ScheduledStationAETitle",))).items) == 3
    cut = again(Profile(ignore=("ScheduledStationAETitle",), answers_max=2))
    assert (len(cut.items), cut.beyond) == (2, 1)


def test_a_kept_query_that_cannot_be_used_says_why(desk):
    record = desk.asked(ScheduledProcedureStepStartDate="20260731-20260701").record
    caller = caller_of(registry(), "CT1", "GATEWAY", b"", UTC, now().date())
    assert "ends before it starts" in replay(desk.store.reader, caller, record).refusals[0]
