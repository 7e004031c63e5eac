"""What a use case saves is what the next one finds: patients, visits, orders, performed steps, messages."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from sample_department import LATER, NOW, attributes, message, order, patient, performed, procedure, step, visit

from gateway.domain.attributes import text
from gateway.domain.identifiers import Identifier
from gateway.domain.order import Procedure, Step
from gateway.domain.performed import Attention, MPPSState
from gateway.domain.worklist import SPSStatus
from gateway.edges.database import StoreConflict, StoreError

# --- patients and visits


def test_patient_is_found_by_each_of_its_identifiers_and_by_no_other(write):
    number = write(lambda unit: unit.save_patient(patient(1), NOW))
    for identifier in (Identifier("P1", "HOSPITAL"), Identifier("ALIAS1", "CLINIC")):
        assert [found.id for found in write(lambda unit, one=identifier: unit.patients([one]))] == [number]
    assert write(lambda unit: unit.patients([Identifier("P1", "CLINIC"), Identifier("P1")])) == []


def test_patient_comes_back_as_saved(write):
    said = patient(1, "Grün^Ángel", PatientComments="日本語 \U0001f600")
    number = write(lambda unit: unit.save_patient(said, NOW))
    assert write(lambda unit: unit.patient(number)) == replace(said, id=number)


def test_patient_found_by_two_identifiers_is_one(write):
    write(lambda unit: unit.save_patient(patient(1), NOW))
    write(lambda unit: unit.save_patient(patient(2), NOW))
    asked = [Identifier("ALIAS1", "CLINIC"), Identifier("P1", "HOSPITAL"), Identifier("P2", "HOSPITAL")]
    found = write(lambda unit: unit.patients(asked))
    assert [text(each.attributes, "PatientID") for each in found] == ["P1", "P2"]


def test_saved_identifiers_replace_those_held(write):
    number = write(lambda unit: unit.save_patient(patient(1), NOW))
    held = write(lambda unit: unit.patient(number))
    changed = replace(held, identifiers=(Identifier("NEW", "HOSPITAL"), held.identifiers[0]))
    write(lambda unit: unit.save_patient(changed, LATER))
    assert write(lambda unit: unit.patient(number)).identifiers == changed.identifiers
    assert write(lambda unit: unit.patients([Identifier("ALIAS1", "CLINIC")])) == []


def test_identifier_of_another_patient_is_a_conflict(write):
    write(lambda unit: unit.save_patient(patient(1), NOW))
    with pytest.raises(StoreConflict):
        write(lambda unit: unit.save_patient(patient(1), NOW))


def test_visits_are_told_apart_by_number_and_issuer(write):
    patient_id = write(lambda unit: unit.save_patient(patient(1), NOW))
    numbers = (None, Identifier("V1", "HOSPITAL"), Identifier("V1", "CLINIC"))
    ids = [write(lambda unit, one=one: unit.save_visit(visit(patient_id, one), NOW)) for one in numbers]
    found = [write(lambda unit, one=one: unit.visit(patient_id, one)) for one in numbers]
    assert [each.id for each in found] == ids
    assert [each.number for each in found] == list(numbers)
    assert write(lambda unit: unit.visit(patient_id, Identifier("V2", "HOSPITAL"))) is None


# --- orders


def _saved(write, number=1, **parts):
    patient_id = write(lambda unit: unit.save_patient(patient(number), NOW))
    return write(lambda unit: unit.save_order(order(patient_id, number, **parts), "NW", NOW))


def test_order_is_found_by_every_key_it_bears(write):
    saved = _saved(write)
    assert write(lambda unit: unit.orders(saved.placer, None)) == [saved]
    assert write(lambda unit: unit.orders(None, saved.filler)) == [saved]
    assert write(lambda unit: unit.orders(saved.placer, saved.filler)) == [saved]
    assert write(lambda unit: unit.order_of_study("2.25.1")) == saved
    assert write(lambda unit: unit.orders_by_accession(Identifier("A1", "HOSPITAL"))) == [saved]
    assert write(lambda unit: unit.order(saved.id)) == saved


def test_keys_that_an_order_has_are_told_from_those_that_none_has(write):
    saved = _saved(write)
    (procedure,) = saved.procedures
    step = procedure.steps[0]
    held = [("StudyInstanceUID", procedure.study_instance_uid), ("ScheduledProcedureStepID", step.sps_id)]
    held += [("AccessionNumber", procedure.accession.value), ("RequestedProcedureID", procedure.requested_procedure_id)]
    free = [("StudyInstanceUID", "2.25.999"), ("AccessionNumber", "2.25.1"), ("ScheduledProcedureStepID", "S999")]
    assert all(value for _, value in held)
    assert write(lambda unit: unit.held_keys([*free, *held])) == {value for _, value in held}
    assert write(lambda unit: unit.held_keys(free)) == write(lambda unit: unit.held_keys(())) == set()


def test_order_number_of_another_issuer_is_another_order(write):
    saved = _saved(write)
    assert write(lambda unit: unit.orders(replace(saved.placer, issuer="OTHER"), None)) == []
    assert write(lambda unit: unit.orders_by_accession(Identifier("A1"))) == []


def test_numbers_of_two_orders_find_both(write):
    first, second = _saved(write, 1), _saved(write, 2)
    assert write(lambda unit: unit.orders(first.placer, second.filler)) == [first, second]


def test_several_procedures_may_share_an_accession_number(write):
    shared = Identifier("A1", "HOSPITAL")
    procedures = (procedure(1), replace(procedure(2), accession=shared))
    saved = _saved(write, procedures=procedures)
    assert len(saved.procedures) == 2
    assert write(lambda unit: unit.orders_by_accession(shared)) == [saved]


def test_orders_without_numbers_do_not_collide(write):
    for number in (1, 2):
        patient_id = write(lambda unit, one=number: unit.save_patient(patient(one), NOW))
        bare = Procedure(None, "", "", None, {}, (Step(None, "", SPSStatus.SCHEDULED, {}),))
        nameless = replace(order(patient_id, number), placer=None, filler=None, procedures=(bare,))
        saved = write(lambda unit, one=nameless: unit.save_order(one, "import", NOW))
        assert write(lambda unit, one=saved: unit.order(one.id)) == saved


def test_study_instance_uid_is_never_in_two_orders(write):
    _saved(write, 1)
    with pytest.raises(StoreConflict) as raised:
        _saved(write, 2, procedures=(procedure(1),))
    assert "study_instance_uid" in str(raised.value)
    assert "2.25.1" not in str(raised.value)


def test_step_id_is_unique_within_a_procedure_only(write):
    same = (replace(procedure(1), steps=(step(7),)), replace(procedure(2), steps=(step(7),)))
    assert len(_saved(write, procedures=same).procedures) == 2
    with pytest.raises(StoreConflict):
        _saved(write, 2, procedures=(replace(procedure(3), steps=(step(7), step(7))),))


def test_keys_given_as_attributes_only_become_keys(write, store):
    inside = attributes(ScheduledProcedureStepID="S9", Modality="US")
    outside = attributes(StudyInstanceUID="2.25.9", AccessionNumber=" A9 ", RequestedProcedureID="R9")
    saved = _saved(
        write,
        procedures=(Procedure(None, "", "", None, outside, (Step(None, "", SPSStatus.SCHEDULED, inside),)),),
    )
    assert saved.procedures[0].accession == Identifier("A9")
    assert [ref.step_id for ref in store.reader.find_steps("2.25.9", "S9", "A9", "R9")] == [
        saved.procedures[0].steps[0].id
    ]


def test_keys_given_as_fields_only_are_shown(write, store):
    bare = replace(procedure(1), attributes={}, steps=(Step(None, "S1", SPSStatus.SCHEDULED, {}),))
    _saved(write, procedures=(bare,))
    (item,) = store.reader.item_of("A1")
    assert text(item.attributes, "StudyInstanceUID") == "2.25.1"
    assert text(item.attributes, "RequestedProcedureID") == "R1"
    assert text(item.step, "ScheduledProcedureStepID") == "S1"


def test_later_procedures_and_steps_join_the_order(write):
    saved = _saved(write)
    first = saved.procedures[0]
    grown = replace(
        saved,
        procedures=(replace(first, steps=(*first.steps, step(1, part=2))), procedure(2)),
    )
    after = write(lambda unit: unit.save_order(grown, "XO", LATER))
    assert [len(each.steps) for each in after.procedures] == [2, 1]
    assert after.procedures[0].steps[0].id == first.steps[0].id
    assert write(lambda unit: unit.order(saved.id)) == after


def test_procedure_that_is_not_named_again_stays(write):
    saved = _saved(write, procedures=(procedure(1), procedure(2)))
    write(lambda unit: unit.save_order(replace(saved, procedures=saved.procedures[:1]), "XO", LATER))
    assert write(lambda unit: unit.order(saved.id)) == saved


@pytest.mark.parametrize(
    "change",
    [
        lambda unit: unit.save_order(replace(order(1), id=99), "XO", NOW),
        lambda unit: unit.save_patient(replace(patient(1), id=99), NOW),
        lambda unit: unit.save_visit(replace(visit(1), id=99), NOW),
        lambda unit: unit.set_step_status(99, SPSStatus.STARTED, "MPPS", NOW),
        lambda unit: unit.set_message_disposition(99, "accepted", ""),
        lambda unit: unit.merge_patient(98, 99, NOW),
    ],
)
def test_change_of_what_is_not_there_is_an_error(write, change):
    with pytest.raises(StoreError):
        write(change)


def test_procedure_of_another_order_cannot_be_saved_with_this_one(write):
    first, second = _saved(write, 1), _saved(write, 2)
    with pytest.raises(StoreError):
        write(lambda unit: unit.save_order(replace(first, procedures=second.procedures), "XO", NOW))


# --- steps


@pytest.mark.parametrize(
    "keys",
    [
        ("2.25.1", "", "", ""),
        ("", "S1.1", "", ""),
        ("", "", "A1", ""),
        ("", "", "", "R1"),
        ("2.25.1", "S1.1", "A1", "R1"),
    ],
)
def test_step_is_found_by_any_of_the_keys_an_mpps_carries(write, keys):
    saved = _saved(write)
    _saved(write, 2)
    (ref,) = write(lambda unit: unit.find_steps(*keys))
    held = saved.procedures[0].steps[0]
    assert (ref.step_id, ref.order_id, ref.patient_id) == (held.id, saved.id, saved.patient_id)
    assert (ref.study_instance_uid, ref.sps_id, ref.status) == ("2.25.1", "S1.1", SPSStatus.SCHEDULED)


def test_steps_are_told_in_the_order_asked_without_those_that_are_gone(write):
    first, second = (_saved(write, number).procedures[0].steps[0].id for number in (1, 2))
    assert [ref.sps_id for ref in write(lambda unit: unit.steps([second, 99, first]))] == ["S2.1", "S1.1"]


def test_step_has_to_carry_all_of_the_keys_given(write):
    _saved(write, 1)
    _saved(write, 2)
    assert write(lambda unit: unit.find_steps("2.25.1", "S2.1", "", "")) == []
    assert write(lambda unit: unit.find_steps("", "", "", "")) == ()


def test_step_tells_its_history(write, store):
    saved = _saved(write)
    held = saved.procedures[0].steps[0]
    write(lambda unit: unit.set_step_status(held.id, SPSStatus.STARTED, "MPPS 1.2.3", LATER))
    write(lambda unit: unit.set_step_status(held.id, SPSStatus.STARTED, "MPPS 1.2.3 again", LATER))
    moved = replace(held, status=SPSStatus.STARTED, attributes=step(1, start="20261124090000").attributes)
    after = replace(saved, procedures=(replace(saved.procedures[0], steps=(moved,)),))
    write(lambda unit: unit.save_order(after, "XO", LATER))
    told = [(entry.at, entry.status, entry.start_local, entry.cause) for entry in store.reader.step_history(held.id)]
    assert told == [
        (NOW, SPSStatus.SCHEDULED, "20261123083000", "NW"),
        (LATER, SPSStatus.STARTED, "20261123083000", "MPPS 1.2.3"),
        (LATER, SPSStatus.STARTED, "20261124090000", "XO"),
    ]


def test_steps_that_wait_past_their_day_are_expiring(write, store):
    starts = ("20261120090000", "20261119090000", "20261123090000")
    for number, start in enumerate(starts, 1):
        _saved(write, number, start=start)
    _saved(write, 4, start="20261101090000", status=SPSStatus.STARTED)
    _saved(write, 5, start="20261101090000", status=SPSStatus.CANCELED)
    assert [ref.sps_id for ref in store.reader.expiring("20261123000000")] == ["S2.1", "S1.1"]
    assert [ref.sps_id for ref in store.reader.expiring("20261123000000", limit=1)] == ["S2.1"]


# --- performed steps


def test_performed_step_comes_back_with_its_links(write):
    saved = _saved(write)
    step_id = saved.procedures[0].steps[0].id
    said = performed("1.2.3", (step_id,), saved.patient_id)
    write(lambda unit: unit.save_performed_step(said, NOW))
    assert write(lambda unit: unit.performed_step("1.2.3")) == said
    assert write(lambda unit: unit.performed_steps_of(step_id)) == [said]
    assert write(lambda unit: unit.performed_step("1.2.4")) is None


def test_performed_step_changes_state_and_links(write):
    saved = _saved(write)
    step_id = saved.procedures[0].steps[0].id
    write(lambda unit: unit.save_performed_step(performed("1.2.3"), NOW))
    said = replace(performed("1.2.3", (step_id,)), state=MPPSState.COMPLETED, attention=Attention.ANOTHER_PATIENT)
    write(lambda unit: unit.save_performed_step(said, LATER))
    assert write(lambda unit: unit.performed_step("1.2.3")) == said
    write(lambda unit: unit.save_performed_step(replace(said, steps=()), LATER))
    assert write(lambda unit: unit.performed_steps_of(step_id)) == []


def _naming(uid, *studies, accession=""):
    """A performed step that names scheduled steps of these studies."""
    items = [attributes(StudyInstanceUID=study, AccessionNumber=accession) for study in studies]
    said = performed(uid, attention=Attention.NO_ORDER)
    return replace(said, attributes=said.attributes | {"00400270": {"vr": "SQ", "Value": items}})


def test_performed_step_waits_for_an_order_by_study_or_accession_oldest_first(write):
    later, earlier = _naming("1.2.1", "2.25.1", accession="A1"), _naming("1.2.2", "2.25.1")
    write(lambda unit: unit.save_performed_step(earlier, NOW))
    write(lambda unit: unit.save_performed_step(later, LATER))
    assert write(lambda unit: unit.unlinked_performed_steps(["2.25.1", ""], ["A1", ""])) == [earlier, later]
    assert write(lambda unit: unit.unlinked_performed_steps([], ["A1"])) == [later]
    assert write(lambda unit: unit.unlinked_performed_steps(["2.25.9"], [])) == []


def test_performed_step_that_is_linked_or_quarantined_waits_no_longer(write):
    step_id = _saved(write).procedures[0].steps[0].id
    for uid, change in (("1.2.1", {"steps": (step_id,)}), ("1.2.2", {"attention": Attention.ANOTHER_PATIENT})):
        said = _naming(uid, "2.25.1")
        write(lambda unit, one=said: unit.save_performed_step(one, NOW))
        assert write(lambda unit: unit.unlinked_performed_steps(["2.25.1"], [])) == [said]
        changed = replace(said, **change)
        write(lambda unit, one=changed: unit.save_performed_step(one, LATER))
        assert write(lambda unit: unit.unlinked_performed_steps(["2.25.1"], [])) == []


def test_raw_requests_are_kept_whether_or_not_their_instance_is(write, store):
    for status in (0, 0x0110):
        write(lambda unit, one=status: unit.archive_performed("1.2.3", "N-SET", "CT1", b"\x00\xff", one, "closed", NOW))
    kept = store.reader.performed_requests("1.2.3")
    assert [(each.operation, each.raw, each.status, each.at) for each in kept] == [
        ("N-SET", b"\x00\xff", 0, NOW),
        ("N-SET", b"\x00\xff", 0x0110, NOW),
    ]


# --- the archive


def test_message_comes_back_as_archived(write, store):
    said = message(1, raw=bytes(range(256)), replay_of=7)
    number = write(lambda unit: unit.add_message(said))
    assert store.reader.message(number).record == said
    assert store.reader.message(number + 1) is None


def test_earlier_messages_are_those_of_listener_sender_and_control_id_newest_first(write):
    numbers = [write(lambda unit, one=raw: unit.add_message(message(1, raw=one))) for raw in (b"one", b"two")]
    write(lambda unit: unit.add_message(message(2)))
    write(lambda unit: unit.add_message(message(1, listener="other")))
    found = write(lambda unit: unit.earlier_messages("ris", "RIS|HOSPITAL", "M1"))
    assert [each.id for each in found] == numbers[::-1]


def test_early_messages_are_those_about_a_number_newest_first_whoever_they_came_from(write):
    said = [message(1, "early"), message(1), message(2, "early"), message(1, "early", listener="other")]
    said.append(replace(message(3, "early"), keys=(("#order", "PL1"),)))
    numbers = [write(lambda unit, one=one: unit.add_message(one)) for one in said]
    assert [each.id for each in write(lambda unit: unit.early_messages("PL1", 10))] == [numbers[3], numbers[0]]
    assert [each.id for each in write(lambda unit: unit.early_messages("PL1", 1))] == [numbers[3]]
    write(lambda unit: unit.set_message_disposition(numbers[3], "released", ""))
    assert [each.id for each in write(lambda unit: unit.early_messages("PL1", 10))] == [numbers[0]]


def test_held_messages_come_in_the_order_they_came_until_released(write, store):
    numbers = [write(lambda unit, one=one: unit.add_message(message(one, "held"))) for one in (1, 2, 3)]
    assert [each.id for each in store.reader.held_messages(2)] == numbers[:2]
    assert [each.id for each in store.reader.held_messages(2, after=numbers[1])] == numbers[2:]
    write(lambda unit: unit.set_message_disposition(numbers[0], "accepted", "derived"))
    assert [each.id for each in store.reader.held_messages(10)] == numbers[1:]
    assert store.reader.message(numbers[0]).record.reasons == "derived"


# --- the site


def test_counts_tell_what_an_operator_watches(write, store):
    saved = _saved(write)
    _saved(write, 2, status=SPSStatus.COMPLETED)
    write(lambda unit: unit.add_message(message(1, "held")))
    write(lambda unit: unit.save_performed_step(performed("1.2.3", patient_id=saved.patient_id), NOW))
    write(
        lambda unit: unit.save_performed_step(
            performed("1.2.4", state=MPPSState.COMPLETED, attention=Attention.ANOTHER_PATIENT), NOW
        )
    )
    counts = store.reader.counts()
    assert (counts.listed_steps, counts.held_messages) == (1, 1)
    assert (counts.open_performed_steps, counts.quarantined_performed_steps) == (1, 1)


def test_event_times_are_stored_in_utc_whatever_zone_they_came_in(write, store):
    berlin = timezone(timedelta(hours=1))
    at = datetime(2026, 11, 23, 9, 0, tzinfo=berlin)
    number = write(lambda unit: unit.add_message(message(1, received_at=at)))
    stored = store.reader.message(number).record.received_at
    assert (stored, stored.utcoffset()) == (at, UTC.utcoffset(None))
    with pytest.raises(ValueError, match="zone"):
        write(lambda unit: unit.add_message(message(1, received_at=datetime(2026, 11, 23, 9, 0))))
