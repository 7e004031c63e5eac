"""An appointment that names no order, and the order for it: one item, whichever comes first."""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest
import roads
from roads import AT

from gateway.domain.attributes import SPS_SEQUENCE, text, values
from gateway.domain.identifiers import Mint
from gateway.domain.worklist import LISTED, SPSStatus
from gateway.processing import archive_feeds
from gateway.testing import Draft, ImagingOrder, bare_orm, invented_person, omi, rad4_orm
from gateway.workflow.ports import MessageSearch
from gateway.workflow.rederive import rederived

START = datetime(2026, 7, 6, 10, 15)
ORDER = ImagingOrder(1, invented_person(1), START)
PERSON = next(segment for segment in rad4_orm(ORDER).segments if segment.startswith("PID"))
LATER = START + timedelta(hours=3)
JOINED = "joined to the appointment"
FOR_ORDER = "joined to the order"


@pytest.fixture
def road(template, tmp_path):
    yield from roads.opened(template, tmp_path)


def siu(event="S12", number="A1", *, start=START, station="CT1", code="CTHEAD", person=PERSON):
    """An appointment by its own number only."""
    schedule = f"SCH|{number}^SCHED|{number}F^RIS"
    service = f"AIS|1||{code}^{code}^99PROC|{start:%Y%m%d%H%M%S}|||20|min"
    return Draft(
        f"SIU^{event}", "2.5.1", (schedule, person, "RGS|1", service, *([f"AIG|1||{station}"] if station else ()))
    )


def start_of(item):
    return text(item.step, "ScheduledProcedureStepStartDate") + text(item.step, "ScheduledProcedureStepStartTime")


@pytest.mark.parametrize("order", [rad4_orm, omi, bare_orm])
def test_an_order_takes_over_the_appointment_made_for_it(road, order):
    road.accepted(siu())
    before = road.item()
    assert JOINED in road.accepted(order(ORDER))
    after = road.item()
    assert after.step_id == before.step_id
    assert text(after.attributes, "PlacerOrderNumberImagingServiceRequest") == ORDER.placer
    filler = "" if order is bare_orm else ORDER.filler
    assert text(after.attributes, "FillerOrderNumberImagingServiceRequest") == filler
    if order is not bare_orm:
        assert text(after.attributes, "AccessionNumber") == ORDER.accession
        assert text(after.step, "ScheduledProcedureStepID") == ORDER.sps_id
    assert values(after.attributes, "StudyInstanceUID") == values(before.attributes, "StudyInstanceUID")  # published


@pytest.mark.parametrize("first", ["appointment", "order"])
def test_what_comes_for_the_appointment_later_finds_the_order(road, first):
    messages = [siu(), rad4_orm(ORDER)]
    for message in messages if first == "appointment" else messages[::-1]:
        road.accepted(message)
    before = road.item()
    road.accepted(siu("S13", start=LATER))
    moved = road.item()
    assert start_of(moved) == f"{LATER:%Y%m%d%H%M%S}"
    for keyword in ("AccessionNumber", "PlacerOrderNumberImagingServiceRequest", "StudyInstanceUID",
                    "FillerOrderNumberImagingServiceRequest", "RequestedProcedureDescription"):  # fmt: skip
        assert values(moved.attributes, keyword) == values(before.attributes, keyword)
    road.accepted(rad4_orm(ORDER.moved(START), "XO"))
    assert start_of(road.item()) == f"{START:%Y%m%d%H%M%S}"
    road.accepted(siu("S15"))
    assert road.item().status is SPSStatus.CANCELED
    road.accepted(siu("S12", start=LATER))  # the appointment is made anew
    assert (road.item().status, start_of(road.item())) == (SPSStatus.SCHEDULED, f"{LATER:%Y%m%d%H%M%S}")


def test_an_appointment_without_number_joins_the_order_held(road):
    road.accepted(rad4_orm(ORDER))
    before = road.item()
    assert FOR_ORDER in road.accepted(siu())
    after = road.item()
    assert text(after.attributes, "FillerOrderNumberImagingServiceRequest") == ORDER.filler
    for each in (before, after):
        del each.attributes[SPS_SEQUENCE]  # it has an end now, which the order does not tell
    assert after.attributes == before.attributes


@pytest.mark.parametrize("first", ["appointment", "order"])
@pytest.mark.parametrize(
    ("change", "joined"),
    [
        ({}, True),
        ({"station": ""}, True),  # the appointment names none: the catalogue's does not count
        ({"station": "CT2"}, False),
        ({"start": START + timedelta(minutes=5)}, False),
        ({"code": "CTABD"}, False),
        ({"person": "PID|||78^^^HOSPA||Weide^Wanda||19550505|F"}, False),
    ],
)
def test_only_what_is_the_same_is_joined(road, first, change, joined):
    messages = [siu(**change), rad4_orm(ORDER)]
    for message in messages if first == "appointment" else messages[::-1]:
        road.accepted(message)
    assert len(road.items()) == (1 if joined else 2)


def test_an_order_that_names_no_station_joins_one_for_any(road):
    road.accepted(siu(station="CT2"))
    road.accepted(bare_orm(ORDER))
    assert values(road.item().step, "ScheduledStationAETitle") == ["CT2"]


def second_order():
    """Another order for the same, of the same person."""
    made = rad4_orm(replace(ORDER, number=2))
    return Draft(made.message_type, made.version, (PERSON, *made.segments[1:]))


@pytest.mark.parametrize(
    ("two", "third"), [((siu(), siu(number="A2")), rad4_orm(ORDER)), ((rad4_orm(ORDER), second_order()), siu())]
)
def test_nobody_guesses_where_several_fit(road, two, third):
    for message in two:
        road.accepted(message)
    assert len(road.items()) == 2
    assert "nothing was joined" in road.accepted(third)
    assert len(road.items()) == 3


def test_a_second_order_for_the_same_is_another(road):
    road.accepted(siu())
    road.accepted(rad4_orm(ORDER))
    road.accepted(second_order())
    assert len(road.items()) == 2


def test_a_second_appointment_is_not_the_first_one(road):
    road.accepted(siu())
    road.accepted(siu(number="A2"))
    assert len(road.items()) == 2


def test_a_cancelled_appointment_is_for_nobody(road):
    road.accepted(siu())
    road.accepted(siu("S15"))
    assert JOINED not in road.accepted(rad4_orm(ORDER))
    assert len(road.items(LISTED)) == 1
    assert len(road.items()) == 2


def test_an_order_may_have_the_number_of_its_appointment(road):
    """Some number an appointment by the filler order number, and tell that number in the second order message."""
    road.accepted(siu())
    order, change = bare_orm(ORDER), bare_orm(ORDER, "XO")
    road.accepted(order)
    numbered = (each.replace(f"|{ORDER.placer}^OE|", f"|{ORDER.placer}^OE|A1F^RIS", 1) for each in change.segments)
    road.accepted(Draft(change.message_type, change.version, tuple(numbered)))
    assert text(road.item().attributes, "FillerOrderNumberImagingServiceRequest") == "A1F"
    road.accepted(siu("S15"))
    assert road.item().status is SPSStatus.CANCELED


def test_the_number_goes_where_the_patient_goes(road):
    road.accepted(siu())
    road.accepted(rad4_orm(ORDER))
    prior = PERSON.split("|")[3]
    road.accepted(
        Draft("ADT^A40", "2.5.1", ("EVN|A40|20260705080000", "PID|||900^^^HOSPA||Weide^Wanda", f"MRG|{prior}"))
    )
    road.accepted(siu("S13", start=LATER, person="PID|||900^^^HOSPA||Weide^Wanda"))
    assert start_of(road.item()) == f"{LATER:%Y%m%d%H%M%S}"


def test_an_appointment_of_an_order_on_work_joins_it(road):
    road.accepted(rad4_orm(ORDER))
    step = road.item().step_id
    road.store.write(lambda unit: unit.set_step_status(step, SPSStatus.STARTED, "test", AT)).result(timeout=10)
    road.accepted(siu())
    assert road.item().status is SPSStatus.STARTED


@pytest.mark.parametrize("first", ["appointment", "order"])
def test_what_was_joined_is_derived_again_as_it_is(road, first):
    messages = [siu(), rad4_orm(ORDER)]
    for message in messages if first == "appointment" else messages[::-1]:
        road.accepted(message)
    road.accepted(siu("S13", start=LATER))
    (ref,) = road.store.reader.steps([road.item().step_id])
    feeds = archive_feeds(road.loaded, Mint(road.store.site_namespace()))
    again = rederived(road.store.reader, ref.order_id, feeds)
    assert (again.left, again.changes) == ("", ())
    assert len(road.store.reader.find_messages(MessageSearch(order=ref.order_id), 10)) == 3
