"""Resources of what was performed: they are FHIR, they carry what the table says, and their states are facts."""

import json
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from performed_sample import SERIES, STUDY, UID, attributes, code, order, performed

from gateway.domain.performed import Attention, MPPSState, PerformedStep
from gateway.domain.resources import Resource
from gateway.testing.fhir_validity import check
from gateway.wire import fhir_json
from gateway.wire.fhir_performance import Made, dose, imaging_study, made_of, procedure, provenance
from gateway.wire.fhir_performed_table import CARRIED
from gateway.wire.fhir_performed_table import attributes as attributes_of_the_standard
from gateway.wire.fhir_release import Release
from gateway.wire.fhir_status import Account

BERLIN = ZoneInfo("Europe/Berlin")
AT = datetime(2026, 7, 5, 9, 50, tzinfo=BERLIN)
REQUEST = {"reference": "ServiceRequest/1"}


def account(*done: PerformedStep, release: Release = Release.R4, **fields: Any) -> Account:
    return Account(
        release, AT, fields.pop("order", order()), {"reference": "Patient/1"}, done, requests={1: REQUEST},
        systems={"RIS": "https://ris.example/accession"}, gateway="GATEWAY", **fields,
    )  # fmt: skip


def made(release: Release, *done: PerformedStep, **fields: Any) -> Made:
    return made_of(account(*done, release=release, **fields))


def discontinued(reason: str = "", *, images: bool = True, **fields: Any) -> PerformedStep:
    but: dict[str, Any] = {}
    if reason:
        sequence = "PerformedProcedureStepDiscontinuationReasonCodeSequence"
        but[sequence] = [code(reason, "DCM", "as its code says")]
    if not images:
        nothing = ("PerformedSeriesSequence", "TotalTimeOfFluoroscopy", "TotalNumberOfExposures", "EntranceDose",
                   "ImageAndFluoroscopyAreaDoseProduct")  # fmt: skip
        but |= dict.fromkeys(nothing)
    return performed(MPPSState.DISCONTINUED, but, **fields)


def test_the_table_names_every_attribute_of_the_standard_once() -> None:
    names = [each.attribute for each in CARRIED]
    assert sorted(names) == sorted(attributes_of_the_standard())
    assert all(each.places or each.why for each in CARRIED)


@pytest.mark.parametrize("release", Release)
@pytest.mark.parametrize(
    "step",
    [
        performed(), performed(MPPSState.IN_PROGRESS), discontinued("110501"), discontinued("110514"),
        discontinued("110507", images=False), performed(attention=Attention.ANOTHER_PATIENT), performed(steps=()),
        performed(but={"ProcedureCodeSequence": None, "PerformedProcedureStepDescription": None,
                       "PerformedProcedureTypeDescription": None, "PerformedSeriesSequence": None}),
        performed(but={"PerformedProcedureStepStartTime": None}),
    ],
    ids=["all", "running", "failure", "wrong entry", "nobody came", "quarantined", "unlinked", "bare", "no time"],
)  # fmt: skip
def test_they_are_fhir(release: Release, step: PerformedStep) -> None:
    whole = made(release, step, endpoint="https://pacs.example/dicomweb")
    assert whole.procedures
    assert whole.studies
    targets = [f"{each['resourceType']}/{each['id']}" for each in whole.all]
    for each in (*whole.all, provenance(account(step, release=release), targets, step, "seed")):
        check(each, release)


def test_every_release_is_written_the_same_again() -> None:
    for release in Release:
        first, second = made(release, performed()), made(release, performed())
        assert [fhir_json.write(each) for each in first.all] == [fhir_json.write(each) for each in second.all]


@pytest.mark.parametrize(
    ("step", "status"),
    [
        (performed(MPPSState.IN_PROGRESS), "in-progress"),
        (performed(), "completed"),
        (discontinued("110501"), "stopped"),
        (discontinued("110507", images=False), "not-done"),
        (discontinued("110514"), "entered-in-error"),
        (performed(steps=()), "entered-in-error"),
        (performed(attention=Attention.ANOTHER_PATIENT), "entered-in-error"),
    ],
)
def test_a_procedure_says_what_became_of_it(step: PerformedStep, status: str) -> None:
    assert procedure(account(step), step)["status"] == status


@pytest.mark.parametrize(
    ("steps", "status"),
    [
        ([performed(MPPSState.IN_PROGRESS)], "registered"),
        ([performed()], "available"),
        ([performed(), performed(MPPSState.IN_PROGRESS, uid="2.25.5550002")], "registered"),
        ([discontinued("110501")], "available"),
        ([discontinued("110501", images=False)], "cancelled"),
        ([discontinued("110514")], "entered-in-error"),
        ([discontinued("110514"), performed(uid="2.25.5550002")], "available"),
    ],
)
def test_a_study_says_whether_there_are_images(steps: list[PerformedStep], status: str) -> None:
    assert imaging_study(account(*steps), STUDY, steps)["status"] == status


def test_times_have_the_offset_of_the_department_in_summer_and_in_winter() -> None:
    winter = performed(but={"PerformedProcedureStepStartDate": "20261201"})
    assert procedure(account(performed()), performed())["performedPeriod"]["start"] == "2026-07-05T09:30:00.5+02:00"
    assert procedure(account(winter), winter)["performedPeriod"]["start"] == "2026-12-01T09:30:00.5+01:00"


def test_a_reason_is_told_with_its_code() -> None:
    step = discontinued("110505")
    found = procedure(account(step), step)["statusReason"]["coding"]
    assert [each["code"] for each in found] == ["110505"]


def test_of_studies_performed_together_nobody_says_whose_series_are_whose() -> None:
    items = [{"StudyInstanceUID": uid, "AccessionNumber": "A1"} for uid in (STUDY, "2.25.990002")]
    step = performed(but={"ScheduledStepAttributesSequence": items})
    both = made(Release.R4, step).studies
    assert [each["identifier"][0]["value"] for each in both] == [f"urn:oid:{STUDY}", "urn:oid:2.25.990002"]
    assert all("series" not in each and "numberOfSeries" not in each and each["note"] for each in both)


def test_a_series_named_twice_is_told_as_the_later_step_says() -> None:
    first = performed()
    later = performed(uid="2.25.5550002", but={"PerformedSeriesSequence": [
        {"SeriesInstanceUID": SERIES, "SeriesDescription": "again", "ReferencedImageSequence": []}]})  # fmt: skip
    study = imaging_study(account(first, later), STUDY, [first, later])
    assert [each["description"] for each in study["series"]] == ["again"]
    assert study["numberOfSeries"] == 1
    assert study["numberOfInstances"] == 0


def test_what_is_no_uid_is_left_out_and_the_rest_is_told() -> None:
    series = [{"SeriesInstanceUID": "not a uid", "SeriesDescription": "x"}, {"SeriesInstanceUID": SERIES}]
    step = performed(but={"PerformedSeriesSequence": series})
    study = imaging_study(account(step), STUDY, [step])
    assert [each["uid"] for each in study["series"]] == [SERIES]
    check(study, Release.R4)


def test_dose_is_one_observation_with_units_and_part_of_its_procedure() -> None:
    found = dose(account(performed()), performed())
    assert found is not None
    told = {each["code"]["text"]: each.get("valueQuantity", {}) for each in found["component"]}
    assert (told["Dose Area Product Total"]["value"], told["Dose Area Product Total"]["code"]) == (
        pytest.approx(12.5), "dGy.cm2",
    )  # fmt: skip
    assert told["Total Fluoro Time"]["value"] == 120
    assert found["partOf"][0]["reference"].startswith("Procedure/")
    assert dose(account(performed()), discontinued(images=False)) is not None  # exposures are told one by one
    silent = dict.fromkeys(("TotalTimeOfFluoroscopy", "TotalNumberOfExposures", "EntranceDose",
                            "ImageAndFluoroscopyAreaDoseProduct", "ExposureDoseSequence"))  # fmt: skip
    assert dose(account(performed()), performed(but=silent)) is None


def test_provenance_names_station_gateway_and_the_performed_step() -> None:
    said = provenance(account(), ["Task/1/_history/2"], performed(), "seed")
    assert [each["who"]["identifier"]["value"] for each in said["agent"]] == ["CT1", "GATEWAY"]
    assert said["entity"][0]["what"]["identifier"]["value"] == f"urn:oid:{UID}"
    assert said["recorded"] == "2026-07-05T09:50:00.000+02:00"


def test_of_the_patient_nothing_but_a_reference_is_told() -> None:
    def names(resource: Resource) -> str:
        return json.dumps(json.loads(fhir_json.write(resource)))

    for each in made(Release.R4, performed()).all:
        assert "Invented" not in names(each)


def test_supplies_and_films_are_used_codes() -> None:
    used = procedure(account(performed()), performed())["usedCode"]
    assert [each["text"] for each in used] == ["Contrast medium, 50", "BLUE FILM 14INX17IN, 2"]


def test_a_step_with_empty_sequences_makes_resources() -> None:
    step = PerformedStep(UID, MPPSState.COMPLETED, attributes({"PerformedSeriesSequence": []}), "CT1", 1, (1,))
    for release in Release:
        for each in made(release, step).all:
            check(each, release)
