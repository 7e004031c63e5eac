"""Rule sets whose paths are FHIRPath: their language, overlays, and how a document of resources is read by them."""

from typing import Any

import pytest

from gateway.domain.identifiers import Issuers
from gateway.domain.mapping import compile_mapping
from gateway.domain.order import OrderControl
from gateway.domain.path_readers import HL7
from gateway.domain.patient import VisitChange
from gateway.domain.problem import MappingError
from gateway.domain.source import Kind, Sourced
from gateway.domain.stations import Stations
from gateway.wire.fhir_datatypes import repetition
from gateway.wire.fhir_paths import reader
from gateway.wire.fhir_release import Release

READERS = {release.value: reader(release) for release in Release}
BASE: dict[str, Any] = {
    "fhir": "R4",
    "identity": {
        "PatientID": "Patient.identifier",
        "PlacerOrderNumberImagingServiceRequest":
            "ServiceRequest.identifier.where(type.coding.exists(code = 'PLAC'))",
        "ScheduledProcedureStepID": {"from": ["Task.identifier.value", "%step"], "edit": "upper"},
    },
    "rules": {
        "PatientName": {"from": "Patient.name", "convert": "xpn", "missing": "refuse"},
        "PatientWeight": {
            "from": "Observation.where(code.coding.exists(code = '29463-7')).value", "convert": "weight",
            "with": "Observation.value.unit", "select": {"Observation.status": ["final", "amended"]},
        },
        "RequestedProcedureDescription": [
            {"from": "ServiceRequest.code.text", "when": {"ServiceRequest.priority": "stat"}, "edit": {"prefix": "!"}},
            {"from": "ServiceRequest.code.text"},
        ],
        "PatientAddress": {"from": "Patient.address", "convert": "address", "pick": {3: "Ulm"}},
        "ScheduledProcedureStepSequence.ScheduledStationAETitle": {"missing": "stations"},
    },
}  # fmt: skip


class ResourceEntry:
    """An entry of resources, one of each type."""

    control = OrderControl.NW
    order_status = ""
    where = procedure_where = "ServiceRequest"

    def __init__(self, step: str, *resources: dict[str, Any]) -> None:
        self.held = {each["resourceType"]: (each,) for each in resources}
        self.variables = {"step": step}
        self.paths = READERS["R4"]

    def spoken(self, keys):
        return self.paths.possible(keys, self.held)

    def says(self, path):
        return bool(self.read(path))

    def repetitions(self, path):
        return [each.repetition for each in self.read(path)]

    def read(self, path):
        return self._read(path, self.held)

    def _read(self, path, held):
        found = self.paths.evaluate(path, held, lambda reference, within: None, self.variables)
        made = [(each, repetition(each.value, each.datatype, Issuers())) for each in found]
        return [Sourced(f"{each.holder['resourceType']}.{each.where}", one, each.resource) for each, one in made if one]

    def beside(self, origin, path):
        return self._read(path, {origin["resourceType"]: (origin,)})

    def place(self, path):
        return f"{path.segment}.{self.paths.place(path)}" if path.segment in self.held else ""

    def joined(self, others):
        return self


class Resources:
    kind = Kind.ORDER
    visit_change = VisitChange.UPDATE
    notes = ()

    def __init__(self, *entries):
        self.entries = entries


PATIENT: dict[str, Any] = {
    "resourceType": "Patient", "identifier": [{"value": "100"}], "name": [{"family": "Muster", "use": "official"}],
    "address": [{"city": "Bonn"}, {"city": "Ulm"}],
}  # fmt: skip
ORDER: dict[str, Any] = {
    "resourceType": "ServiceRequest", "code": {"text": "CT"}, "priority": "stat",
    "identifier": [{"value": "P1", "system": "urn:oid:1.2", "type": {"coding": [{"code": "PLAC"}]}}],
}  # fmt: skip
WEIGHT: dict[str, Any] = {
    "resourceType": "Observation", "status": "final", "code": {"coding": [{"code": "29463-7"}]},
    "valueQuantity": {"value": 70000, "unit": "g"},
}  # fmt: skip


def compiled(**sources: Any) -> Any:
    return compile_mapping({"base": BASE, **sources}, list({"base": BASE, **sources})[-1], readers=READERS)


def problems(**sources: Any) -> list[str]:
    with pytest.raises(MappingError) as refused:
        compiled(**sources)
    return [f"{each.path}: {each.text} ({each.hint})" for each in refused.value.problems]


def test_resources_become_an_order():
    outcome = compiled().apply(Resources(ResourceEntry("abc", PATIENT, ORDER, WEIGHT)))
    assert outcome.refusals == ()
    (event,) = outcome.events
    assert event.patient.attributes["00100010"]["Value"] == [{"Alphabetic": "Muster"}]
    assert event.patient.attributes["00101030"]["Value"] == [70.0]
    assert event.patient.attributes["00101040"]["Value"] == ["Ulm"]
    assert event.procedures[0].attributes["00321060"]["Value"] == ["!CT"]
    number = event.attributes["00402016"]["Value"], event.attributes["00400026"]["Value"][0]["00400032"]["Value"]
    assert number == (["P1"], ["1.2"])


def test_places_are_those_of_the_resource():
    entry = ResourceEntry("", PATIENT | {"name": [{"family": "x" * 70}]}, ORDER)
    outcome = compiled().apply(Resources(entry))
    assert [each.where for each in outcome.refusals] == ["Patient.name[0]"]
    outcome = compiled().apply(Resources(ResourceEntry("", PATIENT | {"name": []}, ORDER)))
    assert [each.where for each in outcome.refusals] == ["Patient.name"]


def test_an_observation_of_another_status_does_not_count():
    entry = ResourceEntry("", PATIENT, ORDER, WEIGHT | {"status": "preliminary"})
    (event,) = compiled().apply(Resources(entry)).events
    assert "00101030" not in event.patient.attributes


def test_a_key_of_an_entry_can_be_asked_for():
    mapping, entry = compiled(), ResourceEntry("ab12", PATIENT, ORDER)
    assert mapping.said_key("ScheduledProcedureStepID", entry) == "AB12"
    assert mapping.said_key("PlacerOrderNumberImagingServiceRequest", entry) == "P1"
    assert mapping.said_key("PatientID", entry) == "100"
    assert mapping.said_key("AccessionNumber", entry) == ""


def test_station_rules_with_conditions_of_hl7_do_not_apply():
    rows = [{"patient_class": "I", "station_ae_titles": "WARD"}, {"patient_class": "", "station_ae_titles": "ANY"}]
    mapping = compile_mapping({"base": BASE}, "base", readers=READERS, stations=Stations.compile(rows))
    (event,) = mapping.apply(Resources(ResourceEntry("", PATIENT, ORDER))).events
    assert event.procedures[0].steps[0].defaults["00400001"]["Value"] == ["ANY"]


def test_an_overlay_has_the_language_of_its_base():
    overlay = {"extends": "base", "rules": {"PatientBirthDate": "Patient.birthDate"}}
    assert compiled(site=overlay).language == "R4"
    assert compile_mapping({"plain": {"identity": {"PatientID": "PID-3"}}}, "plain").language == HL7
    (one,) = problems(site={"extends": "base", "rules": {"PatientBirthDate": "PID-7"}})
    assert one.startswith("rules.PatientBirthDate.from: 'PID-7'")


def test_an_overlay_may_read_another_release_and_says_anew_what_is_otherwise_there():
    reasons = {"ReasonForTheRequestedProcedure": "ServiceRequest.reasonCode.text"}
    base = BASE | {"rules": BASE["rules"] | reasons}
    sources = {"base": base, "site": {"extends": "base", "fhir": "R5"}}
    with pytest.raises(MappingError) as refused:
        compile_mapping(sources, "site", readers=READERS)
    assert {each.path for each in refused.value.problems} == {
        "rules.ReasonForTheRequestedProcedure.from", "rules.RequestedProcedureDescription.0.from",
        "rules.RequestedProcedureDescription.1.from",
    }  # fmt: skip
    anew = {"ReasonForTheRequestedProcedure": None, "RequestedProcedureDescription": "ServiceRequest.code.concept.text"}
    sources["site"] = {"extends": "base", "fhir": "R5", "rules": anew}
    assert compile_mapping(sources, "site", readers=READERS).language == "R5"


def test_languages_are_not_mixed():
    plain = {"identity": {"PatientID": "PID-3"}}
    (one, *_) = problems(plain=plain, site={"extends": "plain", "fhir": "R4"})
    assert one == "fhir: plain, which it extends, reads HL7 v2 (one rule set has one language: extend another, or none)"


def test_an_unknown_release_is_one_problem():
    (one,) = problems(site=BASE | {"fhir": "R6"})
    assert one == "fhir: there is no release 'R6' of FHIR here (have: R4, R4B, R5)"


def test_a_weight_has_to_know_its_unit():
    (one,) = problems(site={"extends": "base", "rules": {"PatientWeight": {
        "from": "Observation.value", "convert": "weight"}}})  # fmt: skip
    assert one == "rules.PatientWeight.with: weight has to know the unit (with: Observation.value.unit)"


def test_a_unit_of_another_resource_is_a_problem():
    (one,) = problems(site={"extends": "base", "rules": {"PatientWeight": {
        "from": "Observation.value", "convert": "weight", "with": "Patient.gender"}}})  # fmt: skip
    assert one.startswith("rules.PatientWeight.with: 'Patient.gender' is not of the resource")
