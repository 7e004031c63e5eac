"""What changed rules make of an open order, and what they must never touch."""

from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import pytest

from gateway import examples
from gateway.domain.attributes import TAG, element, text
from gateway.domain.facts import Stamp, Stamps
from gateway.domain.identifiers import Identifier, Issuers, Mint
from gateway.domain.order_change import apply
from gateway.domain.patient import Patient
from gateway.domain.worklist import SPSStatus
from gateway.mapping_files import load_mappings
from gateway.site_tools import EXAMPLE_MINT
from gateway.workflow.intake import Feed
from gateway.workflow.ports import MessageRecord, StoredMessage
from gateway.workflow.rederive import derive, is_open
from gateway.workflow.rereading import meaning

NOW = datetime(2026, 7, 5, 8, 0, tzinfo=UTC)
NEW = (
    "MSH|^~\\&|RIS|H|||20260705080000||ORM^O01|{control}|P|2.3.1\rPID|||100^^^A||Doe^Jane||19800102|F\r"
    "ORC|{orc}|P1|F1||{status}||^^^202607060930\rOBR|1|P1|F1|{code}^^99PROC||||||||||||||ACC1\r"
)


@pytest.fixture(scope="module")
def feed():
    problems = []
    folder = load_mappings(examples.folder("mappings"), Issuers(), problems)
    assert problems == []
    return Feed("ris", folder.mappings["ihe-swf"], EXAMPLE_MINT)


def stored(number, orc="NW", code="BRSTUP", status="", made="", disposition="accepted", **changes):
    raw = NEW.format(control=f"C{number}", orc=orc, status=status, code=code)
    for old, new in changes.items():
        raw = raw.replace(*{"sex": ("|F\r", f"|{new}\r"), "accession": ("ACC1", new)}[old])
    made = made or f"2026-07-05T08:00:{number:02}.000000"
    record = MessageRecord(
        NOW, "ris", "", "RIS|H", f"C{number}", "ORM^O01", b"", raw.encode(), disposition, made_at=made
    )
    return StoredMessage(number, record)


def held(feed, *messages):
    """The order as these messages made it, with the store's numbers."""
    order = None
    for message in messages:
        for event in meaning(message.record.raw, feed).events:
            order = apply(order, event, 1, None, feed.mint).order
    procedures = tuple(
        replace(procedure, id=5, steps=tuple(replace(step, id=10 + n) for n, step in enumerate(procedure.steps)))
        for procedure in order.procedures
    )
    return replace(order, id=3, procedures=procedures)


def with_steps(order, **changes):
    """Every step with these attributes in place of what is held."""
    said = {TAG[keyword]: element(keyword, value) for keyword, value in changes.items()}
    return replace(order, procedures=tuple(
        replace(each, steps=tuple(replace(step, attributes={**step.attributes, **said}) for step in each.steps))
        for each in order.procedures
    ))  # fmt: skip


def steps(order):
    return [step for procedure in order.procedures for step in procedure.steps]


def test_the_same_rules_change_nothing(feed):
    messages = [stored(1), stored(2, orc="XO")]
    derived = derive(held(feed, *messages), None, None, messages, {"ris": feed})
    assert (derived.left, derived.changes, derived.added) == ("", (), 0)


def test_what_the_rules_give_now_replaces_what_they_gave(feed):
    order = with_steps(held(feed, stored(1)), ScheduledStationName="ELSEWHERE")
    derived = derive(order, None, None, [stored(1)], {"ris": feed})
    assert {(each.attribute, each.old, each.new) for each in derived.changes} == {
        ("ScheduledStationName", "ELSEWHERE", "MG 1"), ("ScheduledStationName", "ELSEWHERE", "US 1"),
    }  # fmt: skip


def test_keys_numbers_and_statuses_stay(feed):
    order = with_steps(held(feed, stored(1)), ScheduledStationName="ELSEWHERE")
    arrived = replace(order.procedures[0], steps=tuple(
        replace(step, status=SPSStatus.ARRIVED) for step in order.procedures[0].steps))  # fmt: skip
    order = replace(order, procedures=(arrived,))
    other = replace(feed, mint=Mint(UUID(int=7)))
    derived = derive(order, None, None, [stored(1)], {"ris": other})
    for before, after in zip(steps(order), steps(derived.order), strict=True):
        assert (before.id, before.sps_id, before.status) == (after.id, after.sps_id, after.status)
    before, after = order.procedures[0], derived.order.procedures[0]
    assert (before.id, before.study_instance_uid, before.accession) == (after.id, after.study_instance_uid,
                                                                        after.accession)  # fmt: skip


@pytest.mark.parametrize("status", [SPSStatus.STARTED, SPSStatus.COMPLETED, SPSStatus.CANCELED])
def test_a_step_that_has_begun_or_is_over_is_not_touched(feed, status):
    order = with_steps(held(feed, stored(1)), ScheduledStationName="ELSEWHERE")
    first, second = order.procedures[0].steps
    first = replace(first, status=status)
    order = replace(order, procedures=(replace(order.procedures[0], steps=(first, second)),))
    derived = derive(order, None, None, [stored(1)], {"ris": feed})
    assert steps(derived.order)[0] == first
    assert text(steps(derived.order)[1].attributes, "ScheduledStationName") == "US 1"


def test_a_step_that_no_rule_plans_any_more_stays_and_is_named(feed):
    order = held(feed, stored(1))
    message = stored(1, code="CTHEAD")
    derived = derive(order, None, None, [message], {"ris": feed})
    assert len(steps(derived.order)) >= 2
    assert derived.notes or derived.left


def test_a_cancel_and_a_status_of_the_messages_are_not_done_again(feed):
    messages = [stored(1), stored(2, orc="CA")]
    order = held(feed, messages[0])
    derived = derive(order, None, None, messages, {"ris": feed})
    assert [step.status for step in steps(derived.order)] == [SPSStatus.SCHEDULED] * 2
    assert derived.changes == ()


def test_messages_count_in_the_order_in_which_they_were_made(feed):
    late = stored(2, orc="XO", sex="M", made="2026-07-05T07:00:00.000000")
    patient = Patient(1, (Identifier("100", "A"),), {}, stamps=Stamps())
    derived = derive(held(feed, stored(1)), patient, None, [stored(1), late], {"ris": feed})
    assert text(derived.patient.attributes, "PatientSex") == "F"


def test_what_is_known_of_the_patient_since_is_not_replaced(feed):
    newer = Stamp("2026-07-05T09:00:00.000000", "ris RIS|H")
    attributes = {TAG["PatientSex"]: element("PatientSex", "O")}
    patient = Patient(1, (Identifier("100", "A"),), attributes, stamps=Stamps(newer))
    derived = derive(held(feed, stored(1)), patient, None, [stored(1)], {"ris": feed})
    assert text(derived.patient.attributes, "PatientSex") == "O"
    assert text(derived.patient.attributes, "PatientBirthDate") == "19800102"


def test_refused_messages_do_not_count(feed):
    messages = [stored(1), stored(2, orc="XO", code="CTHEAD", disposition="refused")]
    derived = derive(held(feed, stored(1)), None, None, messages, {"ris": feed})
    assert (derived.left, derived.changes) == ("", ())


def test_an_order_is_left_for_a_reason_that_is_told(feed):
    order = held(feed, stored(1))
    assert derive(order, None, None, [], {"ris": feed}).left == "no message of it is archived"
    assert "which is not configured" in derive(order, None, None, [stored(1)], {}).left
    nameless = stored(1)
    record = replace(nameless.record, raw=nameless.record.raw.replace(b"Doe^Jane", b""))
    assert "refuse message C1" in derive(order, None, None, [StoredMessage(1, record)], {"ris": feed}).left


def test_an_order_is_open_while_a_step_waits(feed):
    order = held(feed, stored(1))
    assert is_open(order)
    done = replace(order.procedures[0], steps=tuple(
        replace(step, status=SPSStatus.STARTED) for step in order.procedures[0].steps))  # fmt: skip
    assert not is_open(replace(order, procedures=(done,)))
