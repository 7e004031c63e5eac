"""What is wrong with a resource is found at once, each problem with its place, and nothing of a value is quoted."""

import copy
import importlib
import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from gateway.domain.refusal import Refusal, RefusalKind
from gateway.wire import fhir_json, fhir_xml
from gateway.wire.fhir_models import NOTES_MAX, PROBLEMS_MAX, TAKEN, problems
from gateway.wire.fhir_release import Release
from gateway.wire.fhir_shapes import Element, Shape, resource_shape, shape
from gateway.wire.fhir_value_sets import CODES, CONCEPTS, TYPES_LACKING_IN_R4
from tests.wire.fhir_samples import SAMPLES

R4, R4B, R5 = Release.R4, Release.R4B, Release.R5
EVERY = [(release, name) for release, samples in SAMPLES.items() for name in samples]
ORDER: Mapping[str, Any] = {
    "resourceType": "ServiceRequest",
    "status": "active",
    "intent": "order",
    "subject": {"reference": "Patient/1"},
}


def refusals(resource: Any, release: Release = R4, where: str = "") -> list[tuple[RefusalKind, str]]:
    return [(each.kind, each.where) for each in problems(resource, release, where)[0]]


def changed(resource: Any, path: tuple[str | int, ...], value: Any) -> Any:
    """A copy of `resource` with another value at `path`."""
    if not path:
        return value
    made = copy.copy(resource)
    made[path[0]] = changed(resource[path[0]], path[1:], value)
    return made


def standing(value: Any, found: Shape, release: Release) -> Iterator[tuple[tuple[str | int, ...], str, Shape, Element]]:
    """Every element that `value` has: its path in JSON, its FHIRPath, and what is said of it."""
    for name, item in value.items():
        element = found.elements.get(name)
        if element is None:
            continue
        for index, one in enumerate(item) if element.many else [(None, item)]:
            step: tuple[str | int, ...] = (name,) if index is None else (name, index)
            place = element.path if index is None else f"{element.path}[{index}]"
            yield step, place, found, element
            inner = (
                resource_shape(release, one.get("resourceType"))
                if element.type == "Resource"
                else None
                if element.primitive
                else shape(release, element.type)
            )
            if inner is not None:
                for below, path, of, each in standing(one, inner, release):
                    yield (*step, *below), f"{place}.{path}", of, each


def every_element(
    release: Release, name: str
) -> Iterator[tuple[Mapping[str, Any], tuple[str | int, ...], str, Shape, Element]]:
    sample, found = SAMPLES[release][name], shape(release, name)
    assert found is not None
    for path, place, of, element in standing(sample, found, release):
        yield sample, path, f"{name}.{place}", of, element


# --- what is right -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("release", "name"), EVERY)
def test_valid_resources_are_taken(release: Release, name: str) -> None:
    found, notes = problems(SAMPLES[release][name], release)
    assert found == []
    assert all("profile" in note for note in notes)


def test_every_type_that_is_taken_has_a_sample() -> None:
    assert all(set(TAKEN) <= set(samples) for samples in SAMPLES.values())


@pytest.mark.parametrize("release", Release)
def test_the_shape_of_every_type_is_known(release: Release) -> None:
    seen: set[str] = set()
    names = [*TAKEN, "Extension", "Element"]
    while names:
        name = names.pop()
        if name in seen or name == "Resource":
            continue
        seen.add(name)
        found = shape(release, name)
        assert found is not None, name
        assert set(found.required) <= set(found.elements)
        names += [each.type for each in found.elements.values() if not each.primitive]
    assert len(seen) > 100


def test_notes_name_the_profiles_that_are_not_looked_at() -> None:
    urls = [f"http://a.example/{number}" for number in range(NOTES_MAX + 5)]
    found, notes = problems({**ORDER, "meta": {"profile": urls}}, R4)
    assert not found
    assert len(notes) == NOTES_MAX
    assert "http://a.example/0" in notes[0]


# --- value sets --------------------------------------------------------------------------------------------------

REQUIRED = {
    "ServiceRequest": {"status", "intent", "priority", "identifier[0].use"},
    "Task": {"status", "intent", "priority"},
    "Appointment": {"status", "participant[0].status"},
    "Encounter": {"status", "location[0].status"},
    "Patient": {
        "gender", "identifier[0].use", "name[0].use", "telecom[0].system", "telecom[0].use", "address[0].use",
        "address[0].type", "link[0].type", "text.status",
    },
    "Observation": {"status", "value.comparator"},
    "AllergyIntolerance": {"criticality", "reaction[0].severity", "category[0]"},
    "Procedure": {"status"},
    "ImagingStudy": {"status"},
    "Bundle": {"type", "entry[0].request.method", "entry[0].search.mode"},
    "Subscription": {"status"},
    "Provenance": {"entity[0].role"},
    "MessageHeader": {"response.code"},
    "OperationOutcome": {"issue[0].severity", "issue[0].code"},
    "Flag": {"status"},
    "Location": {"status", "mode"},
    "Device": {"status", "udiCarrier[0].entryType"},
}  # fmt: skip


@pytest.mark.parametrize("release", Release)
@pytest.mark.parametrize("name", REQUIRED)
def test_a_code_outside_its_required_value_set_is_refused_where_it_stands(release: Release, name: str) -> None:
    checked = set()
    for sample, path, place, _, element in every_element(release, name):
        if not element.codes:
            continue
        checked.add(place.removeprefix(f"{name}."))
        assert refusals(changed(sample, path, "nonsense"), release) == [(RefusalKind.UNKNOWN_CODE, place)]
        for code in element.codes:
            assert refusals(changed(sample, path, code), release) == []
    assert REQUIRED[name] <= checked


def test_every_row_of_codes_is_of_an_element() -> None:
    for (name, element), releases in CODES.items():
        for release in releases:
            found = shape(release, name)
            # DiagnosticReport and EncounterStatusHistory are of releases before R5 in this form.
            assert found is not None, (name, release)
            assert found.elements[element].codes == releases[release]


@pytest.mark.parametrize(
    ("release", "code", "taken"),
    [(R4, "finished", True), (R4, "completed", False), (R5, "finished", False), (R5, "completed", True)],
)
def test_the_releases_have_value_sets_of_their_own(release: Release, code: str, taken: bool) -> None:
    found = refusals({**SAMPLES[release]["Encounter"], "status": code}, release)
    assert (found == []) is taken


@pytest.mark.parametrize(("row", "releases"), CONCEPTS.items())
def test_a_required_concept_has_a_code_of_its_system(row: tuple[str, str], releases: Mapping[Release, Any]) -> None:
    name, element = row
    for release, concept in releases.items():
        sample = SAMPLES[release][name]
        for code in concept.codes:
            coding = [{"system": "http://local.example", "code": "x"}, {"system": concept.system, "code": code}]
            assert refusals({**sample, element: {"coding": coding}}, release) == []
        for wrong in ({"text": "active"}, {"coding": [{"code": "active"}]}, {"coding": [{"system": concept.system}]}):
            found = refusals({**sample, element: wrong}, release)
            assert found == [(RefusalKind.UNKNOWN_CODE, f"{name}.{element}")]


def test_presumed_is_a_word_of_r5() -> None:
    system = CONCEPTS["AllergyIntolerance", "verificationStatus"][R5].system
    presumed = {"verificationStatus": {"coding": [{"system": system, "code": "presumed"}]}}
    for release, count in ((R4, 1), (R4B, 1), (R5, 0)):
        assert len(refusals({**SAMPLES[release]["AllergyIntolerance"], **presumed}, release)) == count


# --- references --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reference",
    [
        "Practitioner/1", "Practitioner/1/_history/2", "https://ehr.example/fhir/Practitioner/1",
        "Practitioner?identifier=urn:oid:1|2", "Foo/1",
    ],
)  # fmt: skip
def test_a_reference_to_a_type_that_may_not_stand_there_is_refused(reference: str) -> None:
    found = refusals({**ORDER, "subject": {"reference": reference}})
    assert found == [(RefusalKind.BAD_VALUE, "ServiceRequest.subject")]


@pytest.mark.parametrize(
    "reference",
    [
        {"reference": "Patient/1"}, {"reference": "urn:uuid:61ebe359-bfdc-4613-8bf2-c5e300945f0a"}, {"display": "Ada"},
        {"reference": "#"}, {"reference": "Patient?identifier=a|b"}, {"identifier": {"value": "1"}, "type": "Patient"},
        {"reference": "https://archive.example/files/1"}, {"reference": "https://ehr.example/fhir/Device/1"},
        {"type": "http://hl7.org/fhir/StructureDefinition/Patient", "display": "Ada"},
    ],
)  # fmt: skip
def test_references_that_may_stand_there_are_taken(reference: Mapping[str, Any]) -> None:
    assert refusals({**ORDER, "subject": reference}) == []


def test_the_type_of_a_logical_reference_counts_too() -> None:
    found = refusals({**ORDER, "subject": {"type": "Practitioner", "identifier": {"value": "1"}}})
    assert found == [(RefusalKind.BAD_VALUE, "ServiceRequest.subject")]


def test_the_reference_of_a_codeable_reference_has_its_place() -> None:
    sample = {**SAMPLES[R5]["ServiceRequest"], "reason": [{"reference": {"reference": "Device/1"}}]}
    assert refusals(sample, R5) == [(RefusalKind.BAD_VALUE, "ServiceRequest.reason[0].reference")]


def test_a_reference_to_a_contained_resource_finds_it_in_the_same_resource() -> None:
    order = {**ORDER, "subject": {"reference": "#p"}, "contained": [{"resourceType": "Patient", "id": "p"}]}
    assert refusals(order) == []
    lost = {**ORDER, "subject": {"reference": "#p"}}
    assert refusals(lost) == [(RefusalKind.BAD_VALUE, "ServiceRequest.subject")]
    bundle = {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": order}, {"resource": lost}]}
    assert refusals(bundle) == [(RefusalKind.BAD_VALUE, "Bundle.entry[1].resource.subject")]
    within = [{"resourceType": "Patient", "id": "p", "managingOrganization": {"reference": "#o"}},
              {"resourceType": "Organization", "id": "o"}]  # fmt: skip
    assert refusals({**order, "contained": within}) == []


def test_a_reference_that_says_nothing_is_refused() -> None:
    found = refusals({**ORDER, "encounter": {"type": "Encounter"}})
    assert found == [(RefusalKind.MISSING_VALUE, "ServiceRequest.encounter")]


# --- modifiers ---------------------------------------------------------------------------------------------------

MODIFIER = [{"url": "http://a.example/not", "valueBoolean": True}]


@pytest.mark.parametrize(("release", "name"), EVERY)
def test_modifier_extensions_are_refused_wherever_they_stand(release: Release, name: str) -> None:
    places = 0
    for sample, path, place, _, element in every_element(release, name):
        inner = None if element.primitive or element.type == "Resource" else shape(release, element.type)
        if inner is None or "modifierExtension" not in inner.elements:
            continue
        at = sample
        for step in path:
            at = at[step]  # type: ignore[index]  # the path is of this very sample
        bad = changed(sample, path, {**at, "modifierExtension": MODIFIER})
        assert refusals(bad, release) == [(RefusalKind.NOT_UNDERSTOOD, f"{place}.modifierExtension[0]")]
        places += 1
    if name not in ("Bundle", "Parameters"):  # the two have no modifiers of their own
        found = refusals({**SAMPLES[release][name], "modifierExtension": MODIFIER}, release)
        assert found == [(RefusalKind.NOT_UNDERSTOOD, f"{name}.modifierExtension[0]")]
        places += 1
    assert places


def test_extensions_that_change_nothing_are_taken() -> None:
    extension = [{"url": "http://unknown.example/anything", "valueString": "x"}]
    assert refusals({**ORDER, "extension": extension}) == []


def test_implicit_rules_are_refused() -> None:
    found = refusals({**ORDER, "implicitRules": "http://a.example/rules"})
    assert found == [(RefusalKind.NOT_UNDERSTOOD, "ServiceRequest.implicitRules")]


# --- what the releases have otherwise ----------------------------------------------------------------------------


def test_a_reference_that_came_with_r4b_is_refused_in_r4() -> None:
    observation = {**SAMPLES[R4]["Observation"], "subject": {"reference": "Organization/1"}}
    assert refusals(observation, R4) == [(RefusalKind.BAD_VALUE, "Observation.subject")]
    assert refusals(observation, R4B) == []


@pytest.mark.parametrize("member", ["valueCodeableReference", "valueRatioRange"])
def test_an_extension_of_a_type_that_came_with_r4b_is_refused_in_r4(member: str) -> None:
    value = {"concept": {"text": "x"}} if member == "valueCodeableReference" else {"denominator": {"value": 1}}
    order = {**ORDER, "extension": [{"url": "http://a.example/e", member: value}]}
    assert (RefusalKind.MALFORMED, f"ServiceRequest.extension[0].{member}") in refusals(order, R4)
    assert refusals(order, R4B) == []


def test_extensions_of_meta_are_taken_though_the_models_have_none() -> None:
    order = {**ORDER, "extension": [{"url": "http://a.example/e", "valueMeta": {"versionId": "1"}}]}
    assert all(refusals(order, release) == [] for release in Release)


@pytest.mark.parametrize("name", sorted(TYPES_LACKING_IN_R4))
def test_types_that_came_with_r4b_are_none_of_r4(name: str) -> None:
    assert refusals({"resourceType": name}, R4) == [(RefusalKind.UNSUPPORTED_TYPE, "resourceType")]
    assert resource_shape(R4B, name) is not None


# --- structure ---------------------------------------------------------------------------------------------------

_K = RefusalKind


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"subject": None}, [(_K.MALFORMED, "subject")]),
        ({"identifer": []}, [(_K.MALFORMED, "identifer")]),
        ({"Ada Testa 1980": 1}, [(_K.MALFORMED, "")]),
        ({"code": []}, [(_K.MALFORMED, "code")]),
        ({"code": {}}, [(_K.MALFORMED, "code")]),
        ({"category": {"text": "x"}}, [(_K.MALFORMED, "category")]),
        ({"category": []}, [(_K.MALFORMED, "category")]),
        ({"category": [None]}, [(_K.MALFORMED, "category[0]")]),
        ({"doNotPerform": "true"}, [(_K.BAD_VALUE, "doNotPerform")]),
        ({"quantityQuantity": {"value": "3"}}, [(_K.BAD_VALUE, "quantity.value")]),
        ({"occurrenceDateTime": "2026", "occurrencePeriod": {"start": "2026"}}, [(_K.MALFORMED, "occurrence")]),
        ({"occurrenceDateTime": "2026-02-30"}, [(_K.BAD_VALUE, "occurrence")]),
        ({"occurrenceDateTime": "2026-02-03T10:00"}, [(_K.BAD_VALUE, "occurrence")]),
        ({"occurrenceDateTime": "20260203"}, [(_K.BAD_VALUE, "occurrence")]),
        ({"id": "a b"}, [(_K.BAD_VALUE, "id")]),
        ({"id": "x" * 65}, [(_K.BAD_VALUE, "id")]),
        ({"note": [{"text": ""}]}, [(_K.BAD_VALUE, "note[0].text")]),
        ({"note": [{"text": "a\x00b"}]}, [(_K.BAD_VALUE, "note[0].text")]),
        ({"note": [{}]}, [(_K.MALFORMED, "note[0]")]),
        ({"note": [{"time": "2026"}]}, [(_K.MISSING_FIELD, "note[0].text")]),
        ({"identifier": [{"system": "urn:a b"}]}, [(_K.BAD_VALUE, "identifier[0].system")]),
        ({"extension": [{"url": "u"}]}, [(_K.MALFORMED, "extension[0]")]),
        ({"extension": [{"valueCode": "u"}]}, [(_K.MISSING_FIELD, "extension[0].url")]),
        ({"_authoredOn": {"id": "x"}}, [(_K.MISSING_VALUE, "authoredOn")]),
        ({"_authoredOn": []}, [(_K.MALFORMED, "authoredOn")]),
        ({"_instantiatesUri": [{"extension": [{"url": "u", "valueCode": "x"}]}, None]},
         [(_K.MALFORMED, "instantiatesUri[1]")]),
        ({"_subject": {"id": "x"}}, [(_K.MALFORMED, "_subject")]),
        ({"instantiatesUri": ["a", None]}, [(_K.MALFORMED, "instantiatesUri[1]")]),
        ({"instantiatesUri": ["a"], "_instantiatesUri": [None, {"id": "x"}]}, [(_K.MALFORMED, "instantiatesUri")]),
        ({"contained": [{"resourceType": "Patient"}]}, [(_K.MISSING_FIELD, "contained[0].id")]),
        ({"contained": [{"resourceType": "Patient", "id": "p", "gender": "f"}]},
         [(_K.UNKNOWN_CODE, "contained[0].gender")]),
        ({"contained": [{"resourceType": "Patient", "id": "p", "contained": []}]},
         [(_K.MALFORMED, "contained[0].contained")]),
        ({"contained": [{"resourceType": "Pateint", "id": "p"}]}, [(_K.BAD_VALUE, "contained[0].resourceType")]),
        ({"contained": [{"resourceType": "HumanName", "id": "p"}]}, [(_K.BAD_VALUE, "contained[0].resourceType")]),
        ({"contained": [{"id": "p"}]}, [(_K.MISSING_FIELD, "contained[0].resourceType")]),
        ({"fhir_comments": "x"}, [(_K.MALFORMED, "")]),
        ({"for_fhir": "x", "subject__ext": {}}, [(_K.MALFORMED, ""), (_K.MALFORMED, "")]),
    ],
)  # fmt: skip
def test_what_breaks_the_specification_is_refused_where_it_stands(
    change: Mapping[str, Any], expected: list[tuple[RefusalKind, str]]
) -> None:
    found = refusals({**ORDER, **change})
    assert found == [(kind, f"ServiceRequest.{place}".rstrip(".")) for kind, place in expected]


@pytest.mark.parametrize(
    "change",
    [
        {"status": None, "_status": {"extension": [{"url": "u", "valueCode": "masked"}]}},
        {"instantiatesUri": ["a", None], "_instantiatesUri": [None, {"extension": [{"url": "u", "valueCode": "x"}]}]},
        {"authoredOn": "2016-12-31T23:59:60Z"},
        {"note": [{"text": "two\nlines\tand \U0001f9e1"}]},
    ],
)
def test_what_the_specification_allows_is_taken(change: Mapping[str, Any]) -> None:
    order = {name: value for name, value in {**ORDER, **change}.items() if value is not None}
    assert refusals(order) == []


@pytest.mark.parametrize("missing", ["status", "intent", "subject"])
def test_what_is_required_and_missing_has_its_place(missing: str) -> None:
    order = {name: value for name, value in ORDER.items() if name != missing}
    assert refusals(order) == [(RefusalKind.MISSING_FIELD, f"ServiceRequest.{missing}")]


def test_a_choice_that_is_required_and_missing_has_its_place() -> None:
    task = {**SAMPLES[R4]["Task"], "input": [{"type": {"text": "Modality"}}]}
    assert refusals(task) == [(RefusalKind.MISSING_FIELD, "Task.input[0].value")]


@pytest.mark.parametrize("value", [None, 3, [], "x", True])
def test_what_is_no_resource_is_refused(value: Any) -> None:
    assert refusals(value, where="Bundle.entry[1].resource") == [(RefusalKind.MALFORMED, "Bundle.entry[1].resource")]


def test_the_place_begins_where_the_resource_stands() -> None:
    found = refusals({**ORDER, "status": "on"}, where="Bundle.entry[2].resource")
    assert found == [(RefusalKind.UNKNOWN_CODE, "Bundle.entry[2].resource.status")]


def test_resources_in_bundles_have_their_place() -> None:
    bundle = {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": ORDER}, {"resource": {}}]}
    assert refusals(bundle) == [(RefusalKind.MALFORMED, "Bundle.entry[1].resource")]
    bundle["entry"] = [{"resource": {**ORDER, "intent": "wish"}}]
    assert refusals(bundle) == [(RefusalKind.UNKNOWN_CODE, "Bundle.entry[0].resource.intent")]


def test_all_problems_are_told_at_once_but_no_more_than_a_person_mends() -> None:
    assert len(refusals({**ORDER, "status": "x", "intent": "y", "priority": "z", "id": "-_-", "code": 3})) == 5
    assert len(refusals({**ORDER, "category": [{}] * 1000})) == PROBLEMS_MAX


def test_nothing_of_a_value_is_quoted() -> None:
    marked = "Ada-Testa"
    bad = {
        "resourceType": "Patient", "gender": marked, "birthDate": marked, marked: marked, "active": marked,
        "name": [{"use": marked, "family": 3}], "link": [{"other": {"reference": f"{marked}/1"}, "type": marked}],
        "managingOrganization": {"reference": "Testa/1"}, "maritalStatus": marked, "photo": [{"data": marked}],
        "_gender": marked, f"_{marked}": marked, "multipleBirthInteger": marked, "id": f"{marked} {marked}",
    }  # fmt: skip
    found, notes = problems(bad, R4)
    assert len(found) > 10
    assert all("Testa" not in str(each) for each in [*found, *notes])


def test_nesting_that_goes_on_and_on_is_refused() -> None:
    extension: dict[str, Any] = {"url": "u", "valueCode": "x"}
    for _ in range(5000):
        extension = {"url": "u", "extension": [extension]}
    (found,), _ = problems({**ORDER, "extension": [extension]}, R4)
    assert found.kind is RefusalKind.MALFORMED


# --- anything at all ---------------------------------------------------------------------------------------------

SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**40), 2**40), st.text(max_size=12),
    st.decimals(allow_nan=False, allow_infinity=False, places=3),
    st.sampled_from(["2026-11-24", "2026-02-31", "10:00:00", "active", "Patient/1", "urn:oid:1.2", "a b", " ", "\x00"]),
)  # fmt: skip
NAMES = st.one_of(
    st.sampled_from(["id", "extension", "modifierExtension", "resourceType", "contained", "value", "_status", "code",
                     "identifier", "valueString", "reference", "url", "use", "text", "__", "_", ""]),
    st.text(max_size=8),
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(NAMES, inner, max_size=3)),
    max_leaves=8,
)


def paths_in(value: Any, before: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inner:
        yield (*before, key)
        yield from paths_in(each, (*before, key))


@st.composite
def mutated(draw: st.DrawFn) -> tuple[Release, str, Any]:
    """A valid resource in which some things were replaced, removed, added or put elsewhere."""
    release, name = draw(st.sampled_from(EVERY))
    resource = copy.deepcopy(dict(SAMPLES[release][name]))
    for _ in range(draw(st.integers(1, 4))):
        paths = list(paths_in(resource))
        if not paths:
            break
        *above, last = draw(st.sampled_from(paths))
        at: Any = resource
        for step in above:
            at = at[step]
        match draw(st.integers(0, 4)):
            case 0:
                at[last] = draw(VALUES)
            case 1:
                del at[last]
            case 2 if isinstance(at, dict):
                at[draw(NAMES)] = draw(VALUES)
            case 3:
                at[last] = [copy.deepcopy(at[last])]
            case _ if isinstance(at, dict) and isinstance(last, str):
                at[f"_{last}"] = draw(VALUES)
    return release, name, resource


_STEP = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?:\[(\d+)\])?")


def found_at(resource: Any, refusal: Refusal, name: str) -> bool:
    """Whether the expression of a refusal leads to a place in the resource; of what is missing, to what lacks it."""
    if refusal.where == "resourceType":
        return True
    first, *steps = refusal.where.split(".")
    assert first == name
    places = [resource]
    for number, step in enumerate(steps):
        matched = _STEP.fullmatch(step)
        assert matched is not None, step
        member, index = matched[1], matched[2]
        below = [
            value
            for place in places
            if isinstance(place, dict)
            for key, value in place.items()
            if key in (member, f"_{member}") or re.fullmatch(rf"_?{member}[A-Z].*", key)
        ]
        if index is not None:
            below = [each[int(index)] for each in below if isinstance(each, list) and int(index) < len(each)]
        if not below:
            return refusal.kind is RefusalKind.MISSING_FIELD and number == len(steps) - 1
        places = below
    return True


def model(release: Release, name: str) -> Any:
    package = "fhir.resources" if release is R5 else "fhir.resources.R4B"
    return getattr(importlib.import_module(f"{package}.{name.lower()}"), name)


@settings(max_examples=400, deadline=None)
@given(mutated())
def test_whatever_comes_is_judged_and_every_refusal_leads_to_its_place(given_: tuple[Release, str, Any]) -> None:
    release, name, resource = given_
    found, notes = problems(resource, release)
    assert len(found) <= PROBLEMS_MAX
    assert len(notes) <= NOTES_MAX
    of = resource.get("resourceType", name)
    assert all(each.text and each.hint for each in found)
    assert all(found_at(resource, each, of if isinstance(of, str) else name) for each in found)


@settings(max_examples=400, deadline=None)
@given(mutated())
def test_what_is_taken_is_taken_by_the_models_and_survives_both_forms(given_: tuple[Release, str, Any]) -> None:
    release, _, resource = given_
    if problems(resource, release)[0]:
        return
    try:
        model(release, resource["resourceType"]).model_validate(resource)
    except ValidationError as refused:
        raise AssertionError(refused.errors()) from refused
    assert fhir_json.parse(fhir_json.write(resource)) == resource
    assert fhir_xml.parse(fhir_xml.write(resource, release), release) == resource


@settings(max_examples=200, deadline=None)
@given(VALUES, st.sampled_from(Release))
def test_anything_at_all_is_judged(value: Any, release: Release) -> None:
    assert problems(value, release)[0] or isinstance(value, dict)


def test_numbers_of_any_precision_are_numbers() -> None:
    for value in (3, Decimal("3.00"), Decimal("1E-9")):
        assert refusals({**SAMPLES[R4]["Observation"], "valueQuantity": {"value": value}}) == []
