"""Orders that came between a merge and its taking back, under the retired identifier or under the other."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
import roads
from roads import AT

from gateway.domain.attributes import text
from gateway.domain.outbound_compiler import compile_outbound
from gateway.domain.worklist import SPSStatus
from gateway.testing import Draft, ImagingOrder, invented_person, rad4_orm
from gateway.wire import er7
from gateway.wire.er7_writer import MessageWriter
from gateway.workflow.audience import Audience, StatusTarget, Writing
from gateway.workflow.identities import taking_back, unmerge
from gateway.workflow.outbox import OutboxState
from gateway.workflow.telling import statuses, tell_progress

LATER = AT + timedelta(days=1)
PLACER_NUMBER = "PlacerOrderNumberImagingServiceRequest"
START = datetime(2026, 7, 6, 10, 15)
PRIOR = "PID|||A1^^^HOSPA||Weide^Wanda||19550505|F"
SURVIVOR = "PID|||B1^^^HOSPA||Weide^Wanda||19550505|F"


@pytest.fixture
def road(template, tmp_path):
    """The patient A1 with order 1, the patient B1 with order 2; then A1 is merged into B1."""
    for made in roads.opened(template, tmp_path):
        made.accepted(order(1, PRIOR))
        made.accepted(order(2, SURVIVOR))
        made.accepted(Draft("ADT^A40", "2.5.1", ("EVN|A40|20260705080000", SURVIVOR, "MRG|A1^^^HOSPA")))
        yield made


def order(number, person, control="NW", visit=""):
    made = rad4_orm(ImagingOrder(number, invented_person(1), START), control)
    segments = [each for each in made.segments if each[:3] not in ("PID", "PV1")]
    return replace(made, segments=(person, f"PV1||O|||||||||||||||||{visit}", *segments))


def whose(road):
    """The patient ID of each item, by order."""
    return {int(text(item.attributes, PLACER_NUMBER)[1:]): text(item.attributes, "PatientID") for item in road.items()}


def plan(road):
    (line,) = (each for each in road.store.reader.identity_changes() if each.undone is None)
    return line.id, taking_back(road.store.reader, line.id)


def take_back(road):
    line, _ = plan(road)
    return road.store.write(lambda unit: unmerge(unit, line, AT)).result(timeout=10)


def test_an_order_under_the_retired_identifier_goes_back_and_may_be_changed_then(road):
    road.accepted(order(3, PRIOR))
    assert whose(road) == {1: "B1", 2: "B1", 3: "B1"}
    shown = plan(road)[1]
    assert (len(shown.returning.orders), len(shown.followed), shown.since, shown.missing) == (2, 1, (), 0)
    (note,) = take_back(road)
    assert "1 order(s) came since under identifiers of the prior patient" in note
    assert whose(road) == {1: "A1", 2: "B1", 3: "A1"}
    road.accepted(order(3, PRIOR, "XO"))
    road.accepted(order(3, PRIOR, "CA"))
    assert road.items(frozenset({SPSStatus.CANCELED}))


def test_an_order_under_the_survivors_identifier_stays(road):
    road.accepted(order(3, SURVIVOR))
    shown = plan(road)[1]
    assert (len(shown.since), shown.followed) == (1, ())
    (note,) = take_back(road)
    assert "1 order(s) came since and stay" in note
    assert whose(road) == {1: "A1", 2: "B1", 3: "B1"}


@pytest.mark.parametrize("both", [PRIOR.replace("A1^^^HOSPA", "A1^^^HOSPA~B1^^^HOSPA"), SURVIVOR])
def test_an_order_whose_messages_named_both_stays(road, both):
    road.accepted(order(3, PRIOR))
    road.accepted(order(3, both, "XO"))
    take_back(road)
    assert whose(road)[3] == "B1"


def test_a_cancel_that_names_nobody_says_nothing_of_whose_it_is(road):
    road.accepted(order(3, PRIOR))
    cancel = order(3, PRIOR, "CA")
    road.accepted(replace(cancel, segments=tuple(each for each in cancel.segments if each[:3] in ("ORC", "OBR"))))
    take_back(road)
    assert whose(road)[3] == "A1"


def test_a_patient_who_arrives_with_all_orders_names_nobodys_order(road):
    road.accepted(order(3, PRIOR))
    road.accepted(Draft("ADT^A10", "2.5.1", ("EVN|A10|20260705080000", SURVIVOR, "PV1||O")))
    take_back(road)
    assert whose(road)[3] == "A1"


def test_a_visit_of_such_orders_alone_goes_with_them(road):
    road.accepted(order(3, PRIOR, visit="V3^^^HOSPA"))
    road.accepted(order(4, PRIOR, visit="V4^^^HOSPA"))
    road.accepted(order(5, SURVIVOR, visit="V4^^^HOSPA"))
    shown = plan(road)[1]
    assert len(shown.followed) == 2
    take_back(road)
    assert whose(road) == {1: "A1", 2: "B1", 3: "A1", 4: "A1", 5: "B1"}
    visits = {}
    for item in road.items():
        (ref,) = road.store.reader.steps([item.step_id])
        held = road.store.reader.order(ref.order_id)
        visits[held.placer.value[-1]] = held.visit_id and road.store.reader.visit_by_id(held.visit_id).patient_id
        if held.placer.value[-1] == "3":
            assert visits["3"] == held.patient_id


def test_an_identifier_that_both_have_tells_nothing(road):
    road.accepted(Draft("ADT^A31", "2.5.1", ("EVN|A31|20260705080000", SURVIVOR.replace("HOSPA", "HOSPA~A1^^^OTHER"))))
    road.accepted(order(3, PRIOR))
    take_back(road)
    assert whose(road)[3] == "B1"


# --- what waits to be told


PLACER = Audience(
    (
        StatusTarget(
            "ris",
            Writing(MessageWriter(compile_outbound(
                {"m": {"message": "ORM^O01", "hl7": "2.5.1", "about": "order", "segments": ["MSH", "ORC"],
                       "rules": {"ORC-1": "event.OrderControl", "ORC-2": "PlacerOrderNumberImagingServiceRequest"}}},
                "m",
            ))),
        ),
    )
)  # fmt: skip


def tell(road, number, after=SPSStatus.STARTED):
    """The placer is told that the order's step is another one now; the message's number in the archive."""
    (item,) = (each for each in road.items() if int(text(each.attributes, PLACER_NUMBER)[1:]) == number)
    (ref,) = road.store.reader.steps([item.step_id])

    def change(unit):
        before = statuses(unit, ref.order_id)
        unit.set_step_status(ref.step_id, after, "MPPS", AT)
        tell_progress(unit, PLACER, ref.order_id, before, AT, "MPPS")

    road.store.write(change).result(timeout=10)


def placer_gets(road, most=99):
    """Placer order numbers in the order in which they leave, where a destination takes everything; at most so many."""
    came = []
    while len(came) < most and (found := road.store.reader.next_deliveries("ris", LATER, 9)):
        delivery = found[-1]  # of those that may go now, the newest: whatever can overtake does
        came.append((int(er7.parse(delivery.payload, "utf-8").first("ORC").text(2)[1:]), delivery.id))
        done = replace(delivery, state=OutboxState.SENT)
        road.store.write(lambda unit, done=done: unit.save_delivery(done, b"", LATER)).result(timeout=10)
    return came


def in_order(came, number):
    mine = [place for order, place in came if order == number]
    assert mine == sorted(mine)
    return len(mine)


def test_what_is_told_of_an_order_after_the_unmerge_waits_behind_what_was_told_before(road):
    tell(road, 1)
    tell(road, 2)
    take_back(road)
    assert whose(road) == {1: "A1", 2: "B1"}
    tell(road, 1, SPSStatus.COMPLETED)
    tell(road, 2, SPSStatus.COMPLETED)
    came = placer_gets(road)
    assert [in_order(came, 1), in_order(came, 2)] == [2, 2]


def test_what_was_told_before_the_merge_is_not_overtaken_after_the_unmerge_either(template, tmp_path):
    for made in roads.opened(template, tmp_path):
        made.accepted(order(1, PRIOR))
        made.accepted(order(2, SURVIVOR))
        tell(made, 1)
        tell(made, 2)
        made.accepted(Draft("ADT^A40", "2.5.1", ("EVN|A40|20260705080000", SURVIVOR, "MRG|A1^^^HOSPA")))
        take_back(made)
        tell(made, 1, SPSStatus.COMPLETED)
        tell(made, 2, SPSStatus.COMPLETED)
        came = placer_gets(made)
        assert [in_order(came, 1), in_order(came, 2)] == [2, 2]


def test_an_order_that_moves_with_its_visit_is_told_in_order(template, tmp_path):
    for made in roads.opened(template, tmp_path):
        made.accepted(order(1, PRIOR, visit="V1^^^HOSPA"))
        made.accepted(order(2, PRIOR, visit="V2^^^HOSPA"))
        made.accepted(order(3, SURVIVOR))
        for each in (1, 2, 3):
            tell(made, each)
        made.accepted(Draft("ADT^A45", "2.5.1", ("EVN|A45|20260705080000", SURVIVOR, "MRG|A1^^^HOSPA||||V1^^^HOSPA")))
        assert whose(made) == {1: "B1", 2: "A1", 3: "B1"}
        for each in (1, 2, 3):
            tell(made, each, SPSStatus.COMPLETED)
        came = placer_gets(made)
        assert [in_order(came, each) for each in (1, 2, 3)] == [2, 2, 2]


def test_an_order_keeps_its_order_when_its_patients_identifier_changes(template, tmp_path):
    for made in roads.opened(template, tmp_path):
        made.accepted(order(1, PRIOR))
        tell(made, 1)
        new = PRIOR.replace("A1^^^", "A9^^^")
        made.accepted(Draft("ADT^A47", "2.5.1", ("EVN|A47|20260705080000", new, "MRG|A1^^^HOSPA")))
        assert whose(made) == {1: "A9"}
        tell(made, 1, SPSStatus.COMPLETED)
        assert in_order(placer_gets(made), 1) == 2
