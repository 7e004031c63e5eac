"""The CapabilityStatement: made of what is served, valid in every release."""

import pytest
from fhir.resources.capabilitystatement import CapabilityStatement as CapabilityStatementR5
from fhir.resources.R4B.capabilitystatement import CapabilityStatement as CapabilityStatementR4B

from gateway.wire.fhir_capability import SERVED, is_served, statement
from gateway.wire.fhir_release import Release
from gateway.wire.fhir_search import parameters
from gateway.wire.fhir_search_parameters import searched_types

AT = "2026-07-05T09:30:00+00:00"


@pytest.mark.parametrize("release", list(Release))
def test_the_statement_is_valid_and_of_its_release(release: Release) -> None:
    model = CapabilityStatementR5 if release is Release.R5 else CapabilityStatementR4B
    said = statement(release, f"http://here/fhir/{release.base}", AT, "1.0")
    assert model.model_validate(said).fhirVersion == release.version


@pytest.mark.parametrize("release", list(Release))
def test_the_statement_says_what_resources_are_found_by(release: Release) -> None:
    said = statement(release, "http://here/fhir", AT, "1.0")
    listed = {each["type"]: each for each in said["rest"][0]["resource"]}
    assert list(listed) == [each for each in SERVED if is_served(each, release)]
    for type_, resource in listed.items():
        found_by = {each["name"]: each["type"] for each in resource["searchParam"]}
        assert found_by == dict(parameters(type_, release))
        assert {each.partition(":")[2] for each in resource.get("searchInclude", ())} <= found_by.keys()


def test_what_is_served_is_what_is_searched() -> None:
    assert set(SERVED) == set(searched_types())
    assert is_served("ServiceRequest", Release.R4)
    assert not is_served("Basic", Release.R4)
    assert not is_served("SubscriptionTopic", Release.R4)
