"""The tables that FHIR is known by say what fhir.resources and fhirpathpy say; nobody else is asked at run time."""

import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire.fhir_release import Release
from gateway.wire.fhir_shapes import PRIMITIVES, shape, type_names
from gateway.wire.fhir_syntax import BadSyntax, Node, by_grammar, children, literal, parsed
from gateway.wire.fhir_types import elements
from tests.fhir_tables import FOLDER, PACKAGES, TREES, table, trees

REMEDY = "run `python -m tests.fhir_tables` (or `make docs`), and look at what it changed"


@pytest.mark.parametrize("file", PACKAGES)
def test_the_types_are_those_of_fhir_resources(file: str) -> None:
    assert (FOLDER / file).read_text(encoding="utf-8").splitlines() == table(PACKAGES[file]).splitlines(), REMEDY


def test_the_trees_are_those_of_the_shipped_rule_sets() -> None:
    held = json.loads(gzip.decompress((FOLDER / TREES).read_bytes()))
    made = trees()
    assert len(made) > 100
    assert sorted(held) == sorted(made), REMEDY
    assert {text for text in made if json.loads(held[text]) != by_grammar(text)} == set(), REMEDY
    assert all(parsed(text) == by_grammar(text) for text in made)


@pytest.mark.parametrize("release", Release)
def test_every_type_of_a_release_is_made_of_types_that_it_has(release: Release) -> None:
    for name in type_names(release) - PRIMITIVES:
        found = shape(release, name)
        assert found is not None, name
        assert {each.type for each in found.elements.values()} <= type_names(release), name
        assert {each for element in elements(release, name).values() for each, _ in element.choices} == {
            *found.elements
        }


def test_what_the_releases_have_otherwise_is_in_their_types() -> None:
    assert shape(Release.R4, "SubscriptionStatus") is None
    assert shape(Release.R4B, "SubscriptionStatus") is not None
    with pytest.raises(LookupError):
        elements(Release.R4, "SubscriptionStatus")
    assert "RatioRange" not in elements(Release.R4, "Extension")["value"].types
    assert elements(Release.R4, "Observation")["subject"].targets == {"Patient", "Group", "Device", "Location"}
    assert "Organization" in elements(Release.R4B, "Observation")["subject"].targets
    assert elements(Release.R5, "ServiceRequest")["instantiatesCanonical"].targets >= {"PlanDefinition"}


# ---- literals, which are read here ----


def _evaluated(node: Node) -> object:
    from fhirpathpy.engine.evaluators import evaluators

    inner = node
    while inner["type"] in ("TermExpression", "LiteralTerm"):
        inner = children(inner)[0]
    return evaluators[inner["type"]]({}, [], inner)[0]


TEXTS = st.text(st.sampled_from("aZ0 \\'\"`nrtu.|$^äé\t")).map(lambda text: f"'{text}'")
NUMBERS = st.decimals(0, 10**9, allow_nan=False, places=3).map(str) | st.integers(0, 10**9).map(str)


@given(TEXTS | NUMBERS | st.sampled_from(["true", "false"]))
def test_literals_are_what_fhirpathpy_says(text: str) -> None:
    try:
        node = parsed(text)
    except BadSyntax:
        return
    if node["type"] != "TermExpression" or not children(children(node)[0])[0]["type"].endswith("Literal"):
        return
    found, theirs = literal(node), _evaluated(node)
    assert found == theirs
    assert type(found) is type(theirs)
