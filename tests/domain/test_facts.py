"""Facts count in the order in which they were made."""

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.facts import NO_STAMPS, Stamp, Stamps, fill, lend, merge_said, stamps_of, stamps_text
from gateway.domain.step_log import KEPT_MAX, finished_before, happen
from gateway.domain.worklist import SPSStatus, StepEvent

TAGS = ("00100010", "00400001", "00400011")
values = st.sampled_from([None, "A", "B"])  # None: deleted
messages = st.lists(st.dictionaries(st.sampled_from(TAGS), values), min_size=1, max_size=4)
stamps = st.builds(
    Stamp,
    st.sampled_from(["", "2026-07-05T08:00:00.000000+00:00"]),
    st.sampled_from(["", "ris RIS|NORTH SITE", "~odd"]),
    st.booleans(),
)


def said(facts):
    return {tag: {"vr": "LO", "Value": [value]} if value else {"vr": "LO"} for tag, value in facts.items()}


def at(minute, sender="RIS"):
    return Stamp(f"2026-07-05T08:{minute:02}:00.000000+00:00", sender)


def merged(facts, order):
    held, since = {}, NO_STAMPS
    for number in order:
        held, since = merge_said(held, since, said(facts[number]), at(number))
    return held


@given(messages)
def test_attributes_are_the_same_in_whatever_order_messages_arrive(facts):
    expected = merged(facts, range(len(facts)))
    for order in permutations(range(len(facts))):
        assert merged(facts, order) == expected


def test_two_senders_count_as_they_arrive():
    held, since = merge_said({}, NO_STAMPS, said({TAGS[0]: "A"}), at(9, "RIS"))
    held, _ = merge_said(held, since, said({TAGS[0]: "B"}), at(1, "PACS"))
    assert held == said({TAGS[0]: "B"})


@pytest.mark.parametrize("first", ["default", "said"])
def test_a_default_gives_way_to_whatever_is_said(first):
    held, since = {}, NO_STAMPS
    for what in ("default", "said") if first == "default" else ("said", "default"):
        if what == "said":
            held, since = merge_said(held, since, said({TAGS[0]: "A"}), at(1))
        else:
            held, since = fill(held, since, said({TAGS[0]: "D", TAGS[1]: "D"}), at(2))
    assert held == said({TAGS[0]: "A", TAGS[1]: "D"})
    assert since.weak_names() == {TAGS[1]}


def test_a_default_does_not_bring_back_what_was_deleted():
    held, since = merge_said({}, NO_STAMPS, said({TAGS[0]: None}), at(1))
    assert fill(held, since, said({TAGS[0]: "D"}), at(2)) == (held, since)


def test_what_another_record_lent_gives_way():
    held, since = lend({}, NO_STAMPS, said({TAGS[0]: "L"}), Stamps(at(9)))
    held, _ = merge_said(held, since, said({TAGS[0]: "A"}), at(1))
    assert held == said({TAGS[0]: "A"})


names = st.sampled_from([event.name for event in StepEvent])


@given(stamps, st.dictionaries(st.sampled_from((*TAGS, "visit")), stamps), st.lists(st.tuples(names, stamps)))
def test_stamps_are_read_as_they_were_written(base, others, events):
    written = Stamps(Stamp(base.made, base.sender), others, tuple(events))
    assert stamps_of(stamps_text(written)) == written


def test_nothing_stamped_is_stored_as_nothing():
    assert (stamps_text(NO_STAMPS), stamps_of("")) == ("", NO_STAMPS)


ORDERED = [StepEvent.SCHEDULED_ANEW, StepEvent.ORDERED_ANEW, StepEvent.RELEASE, StepEvent.WITHDRAW,
           StepEvent.DISCONTINUE, StepEvent.REPORTED_STARTED, StepEvent.REPORTED_COMPLETED,
           StepEvent.ARRIVED]  # fmt: skip


def status_after(events, order):
    status, known = SPSStatus.SCHEDULED, ()
    for number in order:
        after = happen(status, known, events[number], at(number))
        assert after.status is not None
        status, known = after.status, after.events
    return status


@given(st.lists(st.sampled_from(ORDERED), max_size=KEPT_MAX), st.randoms(use_true_random=False))
def test_the_status_is_the_same_in_whatever_order_messages_arrive(events, random):
    shuffled = list(range(len(events)))
    random.shuffle(shuffled)
    assert status_after(events, shuffled) is status_after(events, range(len(events)))


@given(st.lists(st.sampled_from(ORDERED), min_size=KEPT_MAX, max_size=4 * KEPT_MAX))
def test_a_step_keeps_a_bounded_number_of_events(events):
    status, known = SPSStatus.SCHEDULED, ()
    for number, event in enumerate(events):
        after = happen(status, known, event, at(number // 60, f"{number % 60:02}"))
        status, known = after.status, after.events
        assert len(known) <= KEPT_MAX


def test_a_hold_made_after_the_start_is_refused_also_when_it_comes_late():
    started = happen(SPSStatus.SCHEDULED, (), StepEvent.REPORTED_STARTED, at(1))
    released = happen(started.status, started.events, StepEvent.RELEASE, at(3))
    assert happen(released.status, released.events, StepEvent.HOLD, at(2)).status is None


def test_what_was_said_before_the_end_is_not_too_late():
    done = happen(SPSStatus.SCHEDULED, (), StepEvent.REPORTED_COMPLETED, at(5))
    assert not finished_before(done.status, done.events, at(4))
    assert finished_before(done.status, done.events, at(6))
    assert finished_before(SPSStatus.COMPLETED, (), at(4))  # a modality's word has no stamp
