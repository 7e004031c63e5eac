"""Every message in mappings/cases gives exactly the transcript beside it."""

import json
from functools import cache
from pathlib import Path

import pytest

from gateway.domain.identifiers import Issuers
from gateway.domain.mapping import Mapping
from gateway.domain.problem import Problem
from gateway.domain.refusal import Refused
from gateway.domain.transcript import differences
from gateway.mapping_files import load_mappings
from gateway.wire import er7, hl7_source
from gateway.workflow.golden_cases import case_outcome, fhir_case_outcome

MAPPINGS = Path(__file__).parents[2] / "mappings"
CASES = sorted((MAPPINGS / "cases").glob("*.hl7"))
EXPECTED = ".expected.json"
RESOURCES = sorted(path for path in (MAPPINGS / "cases").glob("*.json") if not path.name.endswith(EXPECTED))


@cache
def shipped(name: str) -> Mapping:
    problems: list[Problem] = []
    mappings = load_mappings(MAPPINGS, Issuers(), problems).mappings
    assert not problems
    return mappings[name]


@pytest.mark.parametrize("message", CASES, ids=lambda path: path.stem)
def test_case(message: Path) -> None:
    expected = json.loads(message.with_suffix("").with_suffix(".expected.json").read_text(encoding="utf-8"))
    given = expected.pop("given", {})
    mapping = shipped(given.pop("mapping", "ihe-swf"))
    assert not list(differences(expected, case_outcome(mapping, message.read_bytes(), **given)))


@pytest.mark.parametrize("resource", RESOURCES, ids=lambda path: path.stem)
def test_case_of_fhir(resource: Path) -> None:
    expected = json.loads(resource.with_suffix(EXPECTED).read_text(encoding="utf-8"))
    mapping = shipped(expected.pop("given", {}).pop("mapping", "imaging-order"))
    assert not list(differences(expected, fhir_case_outcome(mapping, resource.read_bytes())))


def test_every_expectation_has_its_message() -> None:
    assert {path.name.removesuffix(EXPECTED) for path in (MAPPINGS / "cases").glob(f"*{EXPECTED}")} == {
        path.stem for path in (*CASES, *RESOURCES)
    }


@pytest.mark.parametrize("case", CASES, ids=lambda path: path.stem)
def test_a_traced_message_means_what_it_means_untraced(case):
    """The trace takes the long way through the rules; an explanation must not differ from what happens."""
    try:
        said = hl7_source.document(er7.parse(case.read_bytes(), "utf-8"))
    except Refused:
        return  # there is nothing to map; what is refused is in the case's transcript
    quick, traced = (shipped("ihe-swf").apply(said, trace=wanted) for wanted in (False, True))
    assert (quick.events, quick.refusals, quick.notes) == (traced.events, traced.refusals, traced.notes)
