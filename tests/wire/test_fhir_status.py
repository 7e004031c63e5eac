"""Words about ServiceRequest, Task and Appointment, and what they come to with the resource as it stands."""

from datetime import datetime
from itertools import product
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from performed_sample import UID, code, order, performed

from gateway.domain.performed import MPPSState, PerformedStep
from gateway.domain.worklist import SPSStatus
from gateway.testing.fhir_validity import check
from gateway.wire.fhir_release import Release
from gateway.wire.fhir_states import APPOINTMENT_STATES, ORDER_STATES, TASK_STATES
from gateway.wire.fhir_status import ARRIVED, FINAL, OVER, TOLD, Account, merged, renewed, standing, word

AT = datetime(2026, 7, 5, 9, 50, tzinfo=ZoneInfo("Europe/Berlin"))
STATES = {"ServiceRequest": ORDER_STATES, "Task": TASK_STATES, "Appointment": APPOINTMENT_STATES}
STANDS = ("SC", ARRIVED, "IP", "HD", "CM", "DC", "CA", OVER)


def account(*done: PerformedStep, release: Release = Release.R4) -> Account:
    return Account(release, AT, order(), {"reference": "Patient/1"}, done)


def task(status: str, **more: Any) -> dict[str, Any]:
    return {"resourceType": "Task", "id": "7", "status": status, "intent": "order", **more}


def test_every_way_an_order_can_stand_has_a_row() -> None:
    assert all(set(TOLD[kind]) == set(STANDS) for kind in TOLD)
    known = {standing(held) for size in (0, 1, 2) for held in product(SPSStatus, repeat=size)}
    assert known <= set(STANDS)


@pytest.mark.parametrize("kind", TOLD)
def test_every_status_that_is_written_is_one_of_the_resource(kind: str) -> None:
    said = {each.status for each in TOLD[kind].values() if each.status}
    fits = {status for each in TOLD[kind].values() for status in each.fits}
    assert said | fits | FINAL[kind] <= set(STATES[kind])


@pytest.mark.parametrize("kind", TOLD)
def test_nothing_leaves_a_final_status(kind: str) -> None:
    for status, stands in product(FINAL[kind], STANDS):
        told = {"resourceType": kind, "status": TOLD[kind][stands].status}
        assert merged({"resourceType": kind, "id": "1", "status": status}, told) is None


def test_what_fits_is_left_as_it_is() -> None:
    told = word("Task", account(), {1: SPSStatus.SCHEDULED})
    new = merged(task("accepted"), told)
    assert new is not None
    assert (new["status"], new["businessStatus"]) == ("accepted", {"text": "scheduled"})
    assert merged(new, told) is None


@pytest.mark.parametrize(
    ("statuses", "said"),
    [
        ([SPSStatus.COMPLETED, SPSStatus.SCHEDULED], "active"),
        ([SPSStatus.COMPLETED, SPSStatus.STARTED], "active"),
        ([SPSStatus.COMPLETED, SPSStatus.CANCELED], "completed"),
        ([SPSStatus.COMPLETED, SPSStatus.COMPLETED], "completed"),
        ([SPSStatus.HELD], "on-hold"),
        ([SPSStatus.DISCONTINUED], "revoked"),
        ([SPSStatus.CANCELED], "revoked"),
    ],
)
def test_a_request_is_completed_when_all_its_steps_ended(statuses: list[SPSStatus], said: str) -> None:
    assert word("ServiceRequest", account(), dict(enumerate(statuses, 1)))["status"] == said


def test_a_revoked_request_becomes_completed_and_nothing_else() -> None:
    held = {"resourceType": "ServiceRequest", "id": "1", "status": "revoked"}
    for stands in STANDS:
        new = merged(held, {"resourceType": "ServiceRequest", "status": TOLD["ServiceRequest"][stands].status})
        assert (new or held)["status"] == ("completed" if stands == "CM" else "revoked")


def test_a_task_has_period_station_output_and_a_reason_where_it_was_broken_off() -> None:
    sequence = "PerformedProcedureStepDiscontinuationReasonCodeSequence"
    step = performed(MPPSState.DISCONTINUED, {sequence: [code("110500", "DCM", "Doctor canceled procedure")]})
    for release in Release:
        told = word("Task", account(step, release=release), {1: SPSStatus.DISCONTINUED})
        new = merged(task("in-progress", businessStatus={"text": "being acquired"}), told)
        assert new is not None
        check(new, release)
        assert new["status"] == "failed"
        assert new["executionPeriod"] == {"start": "2026-07-05T09:30:00.5+02:00", "end": "2026-07-05T09:45:00+02:00"}
        assert new["output"][0]["valueIdentifier"]["value"] == f"urn:oid:{UID}"
        reason = new["statusReason"]["concept"] if release is Release.R5 else new["statusReason"]
        assert reason["coding"][0]["code"] == "110500"


def test_a_reason_of_an_earlier_status_goes_and_the_owner_stays() -> None:
    held = task("ready", statusReason={"text": "equipment"}, owner={"reference": "Organization/1"})
    new = merged(held, word("Task", account(performed(MPPSState.IN_PROGRESS)), {1: SPSStatus.STARTED}))
    assert new is not None
    assert "statusReason" not in new
    assert new["owner"] == {"reference": "Organization/1"}
    assert "end" not in new["executionPeriod"]


def test_what_was_taken_back_leaves_the_output_and_others_stay_in_it() -> None:
    other = {"type": {"text": "Report"}, "valueString": "r1"}
    first = merged(task("ready", output=[other]), word("Task", account(performed()), {1: SPSStatus.STARTED}))
    assert first is not None
    assert len(first["output"]) == 2
    again = merged(first, word("Task", account(performed(steps=())), {1: SPSStatus.SCHEDULED}))
    assert again is not None
    assert (again["output"], again["status"]) == ([other], "ready")


def test_a_cancelled_appointment_has_its_reason_as_each_release_spells_it() -> None:
    sequence = "PerformedProcedureStepDiscontinuationReasonCodeSequence"
    step = performed(MPPSState.DISCONTINUED, {sequence: [code("110510", "DCM", "Duplicate order")]})
    r4 = word("Appointment", account(step), {1: SPSStatus.CANCELED})
    r5 = word("Appointment", account(step, release=Release.R5), {1: SPSStatus.CANCELED})
    assert "cancelationReason" in r4
    assert "cancellationReason" in r5


def test_a_word_is_for_a_resource_of_its_type() -> None:
    with pytest.raises(ValueError, match="its type"):
        merged(task("ready"), {"resourceType": "Appointment", "status": "booked"})


def test_what_others_put_to_our_resource_stays() -> None:
    ours = {"resourceType": "Procedure", "id": "x", "status": "completed", "identifier": [{"value": "1"}]}
    theirs = {**ours, "id": "77", "status": "in-progress", "identifier": [{"value": "2"}], "outcome": {"text": "good"}}
    new = renewed(theirs, ours)
    assert new == {**theirs, "status": "completed", "identifier": [{"value": "1"}, {"value": "2"}]}
    assert renewed(new, ours) is None
    assert renewed(None, ours) == ours
