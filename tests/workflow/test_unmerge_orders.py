"""Orders that came between a merge and its taking back, under the retired identifier or under the other."""

from dataclasses import replace
from datetime import datetime

import pytest
import roads
from roads import AT

from gateway.domain.attributes import text
from gateway.domain.worklist import SPSStatus
from gateway.testing import Draft, ImagingOrder, invented_person, rad4_orm
from gateway.workflow.identities import taking_back, unmerge

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
    return {
        int(text(item.attributes, "PlacerOrderNumberImagingServiceRequest")[1:]): text(item.attributes, "PatientID")
        for item in road.items()
    }


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
