"""Patches of FHIR resources: what they make, and what is refused at which operation."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.refusal import Refused
from gateway.wire.fhir_patch import OPERATIONS_MAX, patched, place_of
from gateway.wire.fhir_release import Release

PATIENT = {
    "resourceType": "Patient", "id": "1", "gender": "male", "deceasedBoolean": False,
    "name": [{"family": "Novak", "given": ["Ana", "Eva"]}, {"text": "A. N."}],
}  # fmt: skip


def refusal(patch, resource=PATIENT):
    before = repr(resource)
    with pytest.raises(Refused) as refused:
        patched(resource, patch, Release.R4)
    (one,) = refused.value.refusals
    assert repr(resource) == before
    assert one.text
    assert one.hint
    return one.where


def operation(type_, path, **parts):
    said = [{"name": "type", "valueCode": type_}, {"name": "path", "valueString": path}]
    for name, value in parts.items():
        given = (
            value if isinstance(value, dict) else {f"value{'String' if isinstance(value, str) else 'Integer'}": value}
        )
        said.append({"name": name, **given})
    return {"name": "operation", "part": said}


def fhirpath(*operations):
    return {"resourceType": "Parameters", "parameter": list(operations)}


def test_a_json_patch_is_done_in_a_copy():
    before = repr(PATIENT)
    made = patched(
        PATIENT,
        [
            {"op": "test", "path": "/gender", "value": "male"},
            {"op": "replace", "path": "/gender", "value": "female"},
            {"op": "add", "path": "/name/0/given/-", "value": "Mia"},
            {"op": "remove", "path": "/deceasedBoolean"},
            {"op": "add", "path": "/extension", "value": [{"valueDecimal": 1.10}]},
        ],
        Release.R4,
    )
    assert made["name"][0]["given"] == ["Ana", "Eva", "Mia"]
    assert made["gender"] == "female"
    assert "deceasedBoolean" not in made
    assert made["extension"] == [{"valueDecimal": Decimal("1.1")}]
    assert repr(PATIENT) == before


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "replace", "path": "/id", "value": "2"},
        {"op": "remove", "path": "/resourceType"},
        {"op": "move", "from": "/id", "path": "/gender"},
        {"op": "copy", "from": "/gender", "path": "/id"},
        {"op": "add", "path": "", "value": {}},
        {"op": "test", "path": "/gender", "value": "female"},
        {"op": "remove", "path": "/nothing"},
        {"op": "add", "path": "/name/9/family", "value": "x"},
        {"op": "add", "path": "/gender/deep/er", "value": "x"},
        {"op": "add", "path": "/name/x", "value": "x"},
        {"op": "add", "path": "/a~2b", "value": "x"},
        {"op": "add", "path": "/active"},
        {"op": "move", "path": "/active"},
        {"op": "dance", "path": "/active"},
        {"op": ["add"], "path": "/active"},
        {"path": 5},
    ],
)
def test_an_operation_that_cannot_be_done_is_refused_at_its_place(operation):
    assert refusal([{"op": "test", "path": "/gender", "value": "male"}, operation]) == "patch[1]"


def test_patches_are_bounded():
    assert refusal([{"op": "test", "path": "/gender", "value": "male"}] * (OPERATIONS_MAX + 1)) == "patch"
    doubling = [{"op": "copy", "from": "/name", "path": f"/name/0/x{n}"} for n in range(60)]
    assert refusal(doubling).startswith("patch[")
    widening = [{"op": "copy", "from": "/name", "path": "/name/-"}, {"op": "copy", "from": "/name", "path": "/x"}]
    assert refusal(widening * 60).startswith("patch[")


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (operation("replace", "Patient.gender", value={"valueCode": "female"}), {"gender": "female"}),
        (operation("delete", "Patient.gender"), {"gender": None}),
        (operation("delete", "Patient.birthDate"), {}),
        (operation("delete", "Patient.name[1]"), {"name": PATIENT["name"][:1]}),
        (operation("delete", "Patient.deceased"), {"deceasedBoolean": None}),
        (operation("add", "Patient", name="birthDate", value={"valueDate": "1980"}), {"birthDate": "1980"}),
        (operation("add", "Patient", name="telecom", value={"valueContactPoint": {"value": "1"}}),
         {"telecom": [{"value": "1"}]}),
        (operation("add", "Patient.name[0]", name="given", value={"valueString": "Mia"}),
         {"name": [{"family": "Novak", "given": ["Ana", "Eva", "Mia"]}, {"text": "A. N."}]}),
        (operation("insert", "Patient.name[0].given", index=1, value={"valueString": "Mia"}),
         {"name": [{"family": "Novak", "given": ["Ana", "Mia", "Eva"]}, {"text": "A. N."}]}),
        (operation("move", "Patient.name", source=1, destination=0), {"name": PATIENT["name"][::-1]}),
        (operation("replace", "Patient.deceased", value={"valueDateTime": "2026"}),
         {"deceasedBoolean": None, "deceasedDateTime": "2026"}),
        (operation("add", "Patient", name="contact", value={"part": [
            {"name": "name", "valueHumanName": {"text": "B."}}, {"name": "gender", "valueCode": "male"}]}),
         {"contact": [{"name": {"text": "B."}, "gender": "male"}]}),
    ],
)  # fmt: skip
def test_a_fhirpath_patch_is_done(said, expected):
    made = patched(PATIENT, fhirpath(said), Release.R4)
    wanted = {name: value for name, value in {**PATIENT, **expected}.items() if value is not None}
    assert made == wanted


@pytest.mark.parametrize(
    "said",
    [
        operation("replace", "Patient.id", value={"valueId": "2"}),
        operation("add", "Patient", name="id", value={"valueId": "2"}),
        operation("delete", "Patient.id"),
        operation("replace", "Task.status", value={"valueCode": "x"}),
        operation("replace", "Patient.name.where(use='official')", value={"valueString": "x"}),
        operation("replace", "Patient.birthDate", value={"valueDate": "1980"}),
        operation("replace", "Patient.name", value={"valueString": "x"}),
        operation("replace", "Patient.gender"),
        operation("add", "Patient", name="colour", value={"valueString": "x"}),
        operation("add", "Patient.gender", name="x", value={"valueString": "x"}),
        operation("insert", "Patient.name", index=3, value={"valueString": "x"}),
        operation("insert", "Patient.gender", index=0, value={"valueString": "x"}),
        operation("move", "Patient.name", source=2, destination=0),
        operation("dance", "Patient.name"),
        {"name": "operation"},
        {"name": "else"},
        "nothing",
    ],
)
def test_a_fhirpath_operation_that_cannot_be_done_is_refused_at_its_place(said):
    fine = operation("replace", "Patient.gender", value={"valueCode": "female"})
    assert refusal(fhirpath(fine, said)) == "Parameters.parameter[1]"


def test_what_is_no_patch_is_refused():
    assert refusal({"resourceType": "Patient"}) == refusal(fhirpath()) == "Parameters"


def test_the_operation_on_an_element_is_known():
    patch = [{"op": "add", "path": "/name/0", "value": 1}, {"op": "add", "path": "/status", "value": 1}]
    assert [place_of(patch, each) for each in ("name", "status", "other")] == ["patch[0]", "patch[1]", "patch"]
    both = fhirpath(operation("add", "Patient", name="name"), operation("delete", "Patient.gender"))
    assert place_of(both, "name") == "Parameters.parameter[0]"
    assert place_of(both, "gender", "Bundle.entry[1].resource") == "Bundle.entry[1].resource.parameter[1]"


_VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-2, 9), st.text(max_size=4), st.sampled_from(["/name/0", "add"])),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=6,
)
_OPERATIONS = st.fixed_dictionaries(
    {"op": st.sampled_from(["add", "remove", "replace", "move", "copy", "test"])},
    optional={
        "path": st.sampled_from(["/name", "/name/0/given/0", "/x", "/name/-", "/", "//", "/gender/x", "/~1"]),
        "from": st.sampled_from(["/name", "/gender", "/name/0", "/y"]),
        "value": _VALUES,
    },
)


@given(st.lists(_OPERATIONS, max_size=6))
def test_any_json_patch_is_done_or_refused_and_the_resource_stays_what_it_is(patch):
    try:
        made = patched(PATIENT, patch, Release.R4)
    except Refused:
        return
    assert (made["resourceType"], made["id"]) == ("Patient", "1")


_PARTS = st.lists(
    st.fixed_dictionaries(
        {"name": st.sampled_from(["type", "path", "name", "value", "index", "source", "destination"])},
        optional={
            "valueString": st.sampled_from(["Patient", "Patient.name", "Patient.name[0].given", "add", "insert", "."]),
            "valueCode": st.sampled_from(["add", "insert", "delete", "replace", "move"]),
            "valueInteger": _VALUES,
            "part": _VALUES,
        },
    ),
    max_size=5,
)


@given(st.lists(st.fixed_dictionaries({"name": st.just("operation"), "part": st.one_of(_PARTS, _VALUES)}), max_size=4))
def test_any_fhirpath_patch_is_done_or_refused_and_the_resource_stays_what_it_is(operations):
    try:
        made = patched(PATIENT, fhirpath(*operations), Release.R4)
    except Refused:
        return
    assert (made["resourceType"], made["id"]) == ("Patient", "1")
