"""Merges: whatever comes before, after or twice, the survivor is the same person with the same data."""

import itertools
import shutil
import threading
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from people import AT, attributes, held, key, kinds, order, person, told, tried, under, update

from gateway.domain.attributes import text
from gateway.domain.patient import IdentityKind, PatientMerge, PatientUpdate
from gateway.domain.refusal import Refused
from gateway.edges.store import Store
from gateway.workflow.patients import unmerge, upsert_patient


def merge(unit, made, surviving, *prior, notes=None, **more):
    return told(unit, PatientMerge(surviving, tuple(key(each) for each in prior)), made, notes, **more)


def _ordered(number, value, made):
    def run(unit):
        patient = upsert_patient(unit, person(value, PatientComments=f"order {number}"), under(made), AT, [])
        unit.save_order(order(patient, number), "NW", AT)

    return run


FACTS = {
    "update A": lambda unit: update(unit, 1, "A", "A-CARD", PatientName="Wrong^Ada", PatientWeight=61, PatientSex="F"),
    "update B": lambda unit: update(unit, 2, "B", PatientName="Right^Ada", PatientBirthDate="19800102"),
    "order A": _ordered(1, "A", 3),
    "order B": _ordered(2, "B", 4),
    "late A": lambda unit: update(unit, 5, "A", PatientWeight=None, PatientSize=1.7),
    "merge": lambda unit: merge(unit, 6, person("B"), "A"),
}


def _after(store, names):
    def run(unit):
        for name in names:
            FACTS[name](unit)
        ids = [step.id for number in (1, 2) for each in unit.orders(key(f"PL{number}", "RIS"), None)
               for procedure in each.procedures for step in procedure.steps]  # fmt: skip
        patient = held(unit, "B")
        shown = {item.step["00400009"]["Value"][0]: item.attributes | {"00400100": {}} for item in unit.items(ids)}
        bearers = {each.id == patient.id for each in unit.patients([key("A"), key("B"), key("A-CARD")])}
        return patient.attributes, patient.identifiers, sorted(map(str, patient.retired)), shown, bearers

    return tried(store, run)


@given(names=st.permutations(sorted(FACTS)))
def test_the_order_in_which_a_merge_and_its_messages_come_makes_no_difference(store, names):
    assert _after(store, names) == _after(store, FACTS)


def test_a_merge_anywhere_among_the_messages_of_its_patients_ends_the_same(store):
    names = [name for name in FACTS if name not in ("merge", "late A")]
    wanted = _after(store, [*names, "merge"])
    assert {text(shown, "PatientName") for shown in wanted[3].values()} == {"Right^Ada"}
    for each in itertools.permutations([*names, "merge"]):
        assert _after(store, each) == wanted


def test_what_the_survivor_lacks_is_filled_from_the_prior_record(store):
    def run(unit):
        update(unit, 1, "A", PatientWeight=61, PatientName="Wrong^Ada")
        update(unit, 2, "B", PatientName="Right^Ada")
        merge(unit, 3, person("B"), "A")
        return held(unit, "B").attributes

    assert tried(store, run) == attributes(PatientID="B", PatientName="Right^Ada", PatientWeight=61)


def test_what_was_inherited_gives_way_to_anything_said_of_the_survivor_even_late(store):
    def run(unit):
        update(unit, 5, "A", PatientWeight=61)
        update(unit, 6, "B", PatientName="Right^Ada")
        merge(unit, 7, person("B"), "A")
        update(unit, 1, "B", PatientWeight=75, PatientName="Older^Name")
        return held(unit, "B").attributes

    assert tried(store, run) == attributes(PatientID="B", PatientName="Right^Ada", PatientWeight=75)


def test_what_the_survivor_deleted_is_not_inherited(store):
    def run(unit):
        update(unit, 1, "A", PatientComments="from A")
        update(unit, 2, "B", PatientComments=None, PatientName="Right^Ada")
        merge(unit, 3, person("B"), "A")
        return text(held(unit, "B").attributes, "PatientComments")

    assert tried(store, run) == ""


def test_a_retired_identifier_fills_gaps_only(store):
    def run(unit):
        update(unit, 1, "B", PatientName="Right^Ada")
        merge(unit, 2, person("B"), "A")
        notes = []
        told(unit, PatientUpdate(person("A", PatientName="Wrong^Ada", PatientSize=1.7)), 3, notes)
        return held(unit, "B").attributes, notes

    shown, notes = tried(store, run)
    assert shown == attributes(PatientID="B", PatientName="Right^Ada", PatientSize=1.7)
    assert notes == ["the patient ID was merged into another; the surviving patient is used"]


def test_an_identifier_that_an_earlier_release_retired_finds_the_survivor_and_changes_nothing(store):
    def run(unit):
        merge(unit, 2, person("B", PatientName="Right^Ada"), "A")
        unit._write._driver.execute("UPDATE patient_identifiers SET merged_from = NULL")
        before = held(unit, "B")
        update(unit, 3, "A", PatientWeight=61)
        return held(unit, "A") == before

    assert tried(store, run)


def test_a_listener_may_refuse_retired_identifiers(store):
    def run(unit):
        merge(unit, 2, person("B"), "A")
        with pytest.raises(Refused) as refused:
            told(unit, PatientUpdate(person("A")), 3, redirect_merged=False)
        return kinds(refused)

    assert tried(store, run) == [("unknown key", "PID-3")]


def test_messages_that_lead_with_a_retired_identifier_bring_their_others_along(store):
    def run(unit):
        merge(unit, 1, person("B"), "A")
        update(unit, 2, "A", "A-CARD")
        return held(unit, "A-CARD")

    found = tried(store, run)
    assert (found.identifiers, found.retired) == ((key("B"),), (key("A"), key("A-CARD")))


@pytest.mark.parametrize("steps", list(itertools.permutations([("A", "B"), ("B", "C"), ("C", "D")])))
def test_chains_end_at_the_last_survivor_whatever_came_first(store, steps):
    def run(unit):
        for number, name in enumerate("ABCD"):
            update(unit, number, name, PatientComments=name, **({"PatientWeight": 61} if name == "A" else {}))
        for number, (prior, surviving) in enumerate(steps):
            merge(unit, 10 + number, person(surviving), prior)
        update(unit, 20, "A", PatientSize=1.7)
        return {held(unit, name).id for name in "ABCD"}, held(unit, "A")

    ids, last = tried(store, run)
    assert len(ids) == 1
    assert last.identifiers == (key("D"),)
    wanted = attributes(PatientID="D", PatientComments="D", PatientWeight=61, PatientSize=1.7)
    assert last.attributes == wanted


@pytest.mark.parametrize("merges", [[("A", "B"), ("B", "A")], [("A", "B"), ("B", "C"), ("C", "A")]])
def test_a_merge_in_a_circle_is_refused(store, merges):
    def run(unit):
        for prior, surviving in merges[:-1]:
            merge(unit, 1, person(surviving), prior)
        prior, surviving = merges[-1]
        with pytest.raises(Refused) as refused:
            merge(unit, 2, person(surviving), prior)
        return kinds(refused)

    assert tried(store, run) == [("duplicate key", "MRG-1")]


def test_a_merge_said_again_changes_nothing_and_says_so(store):
    def run(unit):
        update(unit, 1, "A", PatientWeight=61)
        merge(unit, 2, person("B", PatientName="Right^Ada"), "A")
        before, lines, notes = held(unit, "B"), len(unit.identity_changes()), []
        merge(unit, 3, person("B", PatientName="Right^Ada"), "A", notes=notes)
        assert replace(held(unit, "B"), stamps=before.stamps) == before
        return len(unit.identity_changes()) - lines, notes

    assert tried(store, run) == (0, ["these identifiers belong to one patient already"])


def test_a_merge_said_again_counts_for_what_it_says_of_the_survivor(store):
    def run(unit):
        merge(unit, 1, person("B", PatientWeight=61), "A")
        merge(unit, 2, person("B", PatientWeight=62), "A")
        return held(unit, "A").attributes

    assert tried(store, run) == attributes(PatientID="B", PatientWeight=62)


def test_one_prior_patient_for_two_survivors_is_refused_instead_of_merging_all_three(store):
    def run(unit):
        merge(unit, 1, person("B"), "A")
        with pytest.raises(Refused) as refused:
            merge(unit, 2, person("C"), "A")
        return kinds(refused)

    assert tried(store, run) == [("duplicate key", "MRG-1")]


def test_a_merge_whose_survivor_lists_an_identifier_of_the_prior_gives_it_to_the_survivor(store):
    def run(unit):
        update(unit, 1, "A", "CARD")
        update(unit, 2, "B")
        merge(unit, 3, person("B", "CARD"), "A")
        return held(unit, "CARD")

    found = tried(store, run)
    assert (found.identifiers, found.retired) == ((key("B"), key("CARD")), (key("A"),))


def test_a_patient_with_both_identifiers_loses_the_prior_one(store):
    def run(unit):
        update(unit, 1, "A", "B", PatientName="Right^Ada")
        merge(unit, 2, person("B"), "A")
        return held(unit, "A")

    found = tried(store, run)
    assert (found.identifiers, found.retired) == ((key("B"),), (key("A"),))
    assert found.attributes == attributes(PatientID="B", PatientName="Right^Ada")


def test_prior_identifiers_of_two_people_are_refused(store):
    def run(unit):
        update(unit, 1, "A1")
        update(unit, 1, "A2")
        with pytest.raises(Refused) as refused:
            merge(unit, 2, person("B"), "A1", "A2")
        return kinds(refused)

    assert tried(store, run) == [("duplicate key", "MRG-1")]


def test_identifiers_of_other_issuers_are_other_people(store):
    def run(unit):
        one = upsert_patient(unit, person("4711"), under(1), AT, [])
        other = person("4711")
        other = type(other)((key("4711", "CLINIC"),), other.attributes)
        return one == upsert_patient(unit, other, under(1), AT, [])

    assert tried(store, run) is False


def test_first_messages_at_once_make_one_patient(template, tmp_path):
    path = shutil.copy(template[1], tmp_path)
    together = threading.Barrier(8)
    made = []
    with Store(f"sqlite:///{path}") as store:

        def send(number):
            together.wait()
            job = store.write(
                lambda unit: upsert_patient(unit, person("NEW", PatientComments=str(number)), under(number), AT, [])
            )
            made.append(job.result(timeout=10))

        threads = [threading.Thread(target=send, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(set(made)) == 1
        assert text(store.reader.patients([key("NEW")])[0].attributes, "PatientComments") == "7"


def test_a_merge_is_written_down(store):
    def run(unit):
        update(unit, 1, "A")
        merge(unit, 2, person("B"), "A", cause="ADT^A40 M7")
        (line,) = unit.identity_changes(limit=1)
        return line, held(unit, "B").id

    line, survivor = tried(store, run)
    assert (line.kind, line.cause, line.patient_id, line.undone) == (IdentityKind.MERGE, "ADT^A40 M7", survivor, None)


# --- and back -----------------------------------------------------------------------------------------------------


def _line(unit):
    return unit.identity_changes(limit=1)[0].id


def test_a_merge_taken_back_leaves_two_patients_as_if_it_had_not_been(store):
    def run(unit):
        one = update(unit, 1, "A", "A-CARD", PatientName="Amber^Ada", PatientWeight=61)
        other = update(unit, 2, "B", PatientName="Birch^Ben")
        kept = [unit.save_order(order(patient, number), "NW", AT) for number, patient in ((1, one), (2, other))]
        before = [unit.patient(one), unit.patient(other)]
        merge(unit, 3, person("B"), "A")
        steps = [each.procedures[0].steps[0].id for each in kept]
        revisions = [item.revision for item in unit.items(steps)]
        notes = unmerge(unit, _line(unit), AT)
        items = unit.items(steps)
        assert [text(item.attributes, "PatientID") for item in items] == ["A", "B"]
        assert all(item.revision > revision for item, revision in zip(items, revisions, strict=True))
        assert [unit.order(each.id).patient_id for each in kept] == [one, other]
        after = [unit.patient(one), unit.patient(other)]
        return [(each.identifiers, each.retired, each.attributes) for each in before] == [
            (each.identifiers, each.retired, each.attributes) for each in after
        ], notes

    assert tried(store, run) == (True, ())


def test_what_came_under_the_retired_identifier_goes_back_with_it(store):
    def run(unit):
        update(unit, 1, "A", PatientWeight=61)
        update(unit, 2, "B")
        merge(unit, 3, person("B"), "A")
        update(unit, 4, "A", PatientWeight=62, PatientSize=1.7)
        update(unit, 5, "B", PatientComments="of B")
        unmerge(unit, _line(unit), AT)
        return held(unit, "A").attributes, held(unit, "B").attributes

    one, other = tried(store, run)
    assert one == attributes(PatientID="A", PatientWeight=62, PatientSize=1.7)
    assert other == attributes(PatientID="B", PatientComments="of B")


def test_orders_that_came_since_stay_with_the_survivor_and_are_told(store):
    def run(unit):
        update(unit, 1, "A")
        merge(unit, 2, person("B"), "A")
        survivor = upsert_patient(unit, person("A"), under(3), AT, [])
        unit.save_order(order(survivor, 1), "NW", AT)
        return unmerge(unit, _line(unit), AT)

    (note,) = tried(store, run)
    assert "1 order(s) came since" in note


def test_a_merge_of_a_survivor_that_was_merged_further_is_taken_back_last(store):
    def run(unit):
        for name in "ABC":
            update(unit, 1, name, PatientComments=name)
        merge(unit, 2, person("B"), "A")
        first = _line(unit)
        merge(unit, 3, person("C"), "B")
        second = _line(unit)
        with pytest.raises(Refused) as refused:
            unmerge(unit, first, AT)
        assert f"take back line {second} first" in str(refused.value.refusals[0])
        unmerge(unit, second, AT)
        assert held(unit, "A").id == held(unit, "B").id != held(unit, "C").id
        assert held(unit, "B").identifiers == (key("B"),)
        unmerge(unit, first, AT)
        return [text(held(unit, name).attributes, "PatientComments") for name in "ABC"], len(
            {held(unit, name).id for name in "ABC"}
        )

    assert tried(store, run) == (["A", "B", "C"], 3)


@pytest.mark.parametrize("line", ["unknown", "twice", "itself"])
def test_what_cannot_be_taken_back_says_why(store, line):
    def run(unit):
        merge(unit, 2, person("B"), "A")
        number = _line(unit)
        if line == "unknown":
            number += 100
        else:
            unmerge(unit, number, AT)
            number = number if line == "twice" else _line(unit)
        with pytest.raises(Refused) as refused:
            unmerge(unit, number, AT)
        return refused.value.refusals[0].text

    assert ("no line", "before", "itself")[("unknown", "twice", "itself").index(line)] in tried(store, run)


def test_after_a_merge_was_taken_back_it_may_come_again(store):
    def run(unit):
        update(unit, 1, "A", PatientWeight=61)
        merge(unit, 2, person("B"), "A")
        once = held(unit, "B")
        unmerge(unit, _line(unit), AT)
        merge(unit, 3, person("B"), "A")
        return once.attributes == held(unit, "B").attributes

    assert tried(store, run)


_NAMES = st.sampled_from("ABCD")
_WEIGHED = st.tuples(st.just("update"), _NAMES, st.integers(1, 30), st.sampled_from(["PatientWeight", "PatientSize"]))
_MERGED = st.tuples(st.just("merge"), _NAMES, _NAMES)


@settings(max_examples=40)  # each is a dozen jobs of the store
@given(happened=st.lists(_WEIGHED | _MERGED, max_size=14))
def test_merges_taken_back_in_turn_leave_what_was_said_of_each_under_its_own_identifiers(store, happened):
    def run(unit, merging):
        for number, (what, name, *more) in enumerate(happened):
            if what == "update":
                update(unit, more[0], name, **{more[1]: number + 1})
            elif merging and name != more[0]:
                with suppress(Refused):
                    merge(unit, 40 + number, person(more[0]), name)
            bearers = [found for each in "ABCD" for found in unit.patients([key(each)])]
            for found in bearers:  # whatever happens, an identifier is said of one, and devices see one that is
                assert key(text(found.attributes, "PatientID")) == found.identifiers[0]
        for line in unit.identity_changes():
            if line.kind is IdentityKind.MERGE:
                unmerge(unit, line.id, AT)
        spoken_of = {name for what, name, *_ in happened if what == "update"}
        return {name: held(unit, name).attributes for name in spoken_of}

    assert tried(store, lambda unit: run(unit, merging=True)) == tried(store, lambda unit: run(unit, merging=False))


_CHAIN = [("merge", "A", "B"), ("merge", "B", "C"), ("merge", "C", "D")]
_SAID = st.lists(
    st.tuples(st.just("update"), _NAMES, st.sampled_from(["PatientWeight", "PatientSize", "PatientComments"])),
    max_size=6,
)


@settings(max_examples=40)  # each is a dozen jobs of the store
@given(said=_SAID, shuffled=st.randoms(use_true_random=False))
def test_a_chain_of_merges_ends_the_same_wherever_the_messages_of_its_patients_come(store, said, shuffled):
    facts = list(enumerate([*said, *_CHAIN]))
    mixed = list(facts)
    shuffled.shuffle(mixed)

    def after(happened):
        def run(unit):
            for made, (what, name, more) in happened:
                if what == "update":
                    update(unit, made, name, **{more: str(made)})
                else:
                    merge(unit, made, person(more), name)
            last = held(unit, "A")
            return last.attributes, last.identifiers, set(last.retired)

        return tried(store, run)

    assert after(mixed) == after(facts)
