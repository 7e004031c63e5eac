"""Visits open, close, and are cancelled; messages about them may come late."""

import itertools

import pytest
from people import AT, attributes, key, order, person, stay, told, tried, update

from gateway.domain.attributes import text
from gateway.domain.patient import PatientUpdate, VisitChange
from gateway.workflow.visits import VISIT_STATUSES


def said(unit, made, change, number="V1", **more):
    return told(unit, PatientUpdate(person("A"), stay(number, **more), change), made)[0]


def visit(unit, number="V1"):
    (patient,) = unit.patients([key("A")])
    return unit.visit(patient.id, key(number) if number else None)


@pytest.mark.parametrize("change", VISIT_STATUSES)
def test_an_event_says_the_status_of_the_visit(store, change):
    def run(unit):
        said(unit, 1, change)
        return text(visit(unit).attributes, "VisitStatusID")

    assert tried(store, run) == VISIT_STATUSES[change]


def test_what_the_message_says_of_the_status_prevails(store):
    def run(unit):
        said(unit, 1, VisitChange.OPEN, VisitStatusID="CREATED")
        return text(visit(unit).attributes, "VisitStatusID")

    assert tried(store, run) == "CREATED"


STAYS = {
    "plan": (1, VisitChange.PLAN, {"CurrentPatientLocation": "WARD 1"}),
    "open": (2, VisitChange.OPEN, {"CurrentPatientLocation": "WARD 2", "VisitComments": "quiet"}),
    "transfer": (3, VisitChange.UPDATE, {"CurrentPatientLocation": "WARD 3"}),
    "close": (4, VisitChange.CLOSE, {}),
}


@pytest.mark.parametrize("last", [None, VisitChange.REOPEN, VisitChange.CANCEL])
def test_a_visit_ends_the_same_in_whatever_order_its_messages_come(store, last):
    facts = STAYS | ({"last": (5, last, {})} if last else {})

    def after(names):
        def run(unit):
            for name in names:
                made, change, more = facts[name]
                said(unit, made, change, **more)
            return visit(unit).attributes

        return tried(store, run)

    wanted = after(facts)
    for names in itertools.permutations(facts):
        assert after(names) == wanted


def test_a_cancelled_visit_vanishes_from_the_items_and_is_found_still(store):
    def run(unit):
        patient = said(unit, 1, VisitChange.OPEN, CurrentPatientLocation="WARD 1")
        saved = unit.save_order(order(patient, 1, visit(unit).id), "NW", AT)
        said(unit, 2, VisitChange.CANCEL, CurrentPatientLocation="WARD 1")
        (item,) = unit.items([saved.procedures[0].steps[0].id])
        assert item.revision == 2
        assert text(item.attributes, "CurrentPatientLocation") == text(item.attributes, "VisitStatusID") == ""
        return text(item.attributes, "AdmissionID"), visit(unit).attributes

    assert tried(store, run) == ("V1", attributes(AdmissionID="V1"))


def test_a_visit_cancelled_and_opened_again_later_is_open(store):
    def run(unit):
        said(unit, 1, VisitChange.OPEN)
        said(unit, 2, VisitChange.CANCEL)
        said(unit, 3, VisitChange.OPEN, CurrentPatientLocation="WARD 1")
        return visit(unit).attributes

    wanted = attributes(AdmissionID="V1", CurrentPatientLocation="WARD 1", VisitStatusID="ADMITTED")
    assert tried(store, run) == wanted


def test_a_cancel_without_number_concerns_the_unnumbered_visit(store):
    def run(unit):
        said(unit, 1, VisitChange.OPEN, "", CurrentPatientLocation="WARD 1")
        said(unit, 1, VisitChange.OPEN, "V1", CurrentPatientLocation="WARD 2")
        told(unit, PatientUpdate(person("A"), None, VisitChange.CANCEL), 2)
        return visit(unit, "").attributes, text(visit(unit).attributes, "CurrentPatientLocation")

    assert tried(store, run) == ({}, "WARD 2")


def test_a_cancel_without_visit_makes_none(store):
    def run(unit):
        update(unit, 1, "A")
        told(unit, PatientUpdate(person("A"), None, VisitChange.CANCEL), 2)
        return visit(unit, "")

    assert tried(store, run) is None


def test_an_older_cancel_that_comes_late_does_not_bring_back_what_the_newer_one_took(store):
    def run(unit):
        said(unit, 3, VisitChange.CANCEL)
        said(unit, 1, VisitChange.CANCEL)
        said(unit, 2, VisitChange.OPEN, CurrentPatientLocation="WARD 1")
        return visit(unit).attributes

    assert tried(store, run) == attributes(AdmissionID="V1")
