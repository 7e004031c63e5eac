"""FHIRPath in rule sets: what is refused, what is found and where, and that our steps agree with fhirpathpy."""

from collections.abc import Mapping, Sequence
from typing import Any

import fhirpathpy
import pytest
from fhirpathpy.engine.invocations import invocation_registry
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.path_readers import UnreadablePath
from gateway.domain.refusal import Refused
from gateway.domain.source import parse_path
from gateway.wire.fhir_evaluation import _model, by_fhirpathpy
from gateway.wire.fhir_functions import FUNCTIONS, NOT_HERE
from gateway.wire.fhir_paths import ROOTS, Found, reader
from gateway.wire.fhir_release import Release
from gateway.wire.fhir_steps import Given
from gateway.wire.fhir_syntax import parsed
from gateway.wire.fhir_types import elements, type_names

R4 = reader(Release.R4)
EXTENSION = "http://example.org/trial"
DOCTOR = {"resourceType": "Practitioner", "id": "d", "name": [{"family": "Weber", "given": ["Ida"]}]}
INSIDE = {"resourceType": "Practitioner", "id": "in", "name": [{"family": "Innen"}]}
PATIENT: dict[str, Any] = {
    "resourceType": "Patient",
    "id": "p",
    "active": False,
    "name": [
        {"use": "usual", "family": "Usual"},
        {"use": "official", "family": "Muster", "given": ["Anna", None, "Eva"], "extension": [{"url": EXTENSION}]},
    ],
    "telecom": [{"system": "phone", "value": "1"}, {"system": "email", "value": "a@example.org"}],
    "birthDate": "1980-02-03",
    "_birthDate": {"extension": [{"url": EXTENSION, "valueDateTime": "1980-02-03T04:05:00Z"}]},
    "deceasedBoolean": True,
    "generalPractitioner": [{"reference": "Practitioner/d"}, {"reference": "#in"}, {"reference": "Practitioner/away"}],
    "contained": [INSIDE],
}
ORDER: dict[str, Any] = {
    "resourceType": "ServiceRequest",
    "id": "s",
    "identifier": [{"value": "9", "type": {"coding": [{"code": "X"}, {"code": "ACSN"}]}}, {"value": "8"}],
    "basedOn": [{"reference": "ServiceRequest/above"}],
    "occurrencePeriod": {"start": "2026-11-23T08:00:00+01:00"},
}
ABOVE = {"resourceType": "ServiceRequest", "id": "above", "identifier": [{"value": "7"}]}
WEIGHT = {
    "resourceType": "Observation",
    "code": {"coding": [{"code": "29463-7"}, {"code": "own"}]},
    "valueQuantity": {"value": 70, "unit": "kg"},
}
HEIGHT = {"resourceType": "Observation", "code": {"coding": [{"code": "8302-2"}]}, "valueString": "tall"}
HELD: Mapping[str, Sequence[Any]] = {"Patient": (PATIENT,), "ServiceRequest": (ORDER,), "Observation": (HEIGHT, WEIGHT)}
KNOWN = {"Practitioner/d": DOCTOR, "#in": INSIDE, "ServiceRequest/above": ABOVE}


def resolve(reference: Any, within: Any) -> Any:
    return KNOWN.get(reference.get("reference"))


def found(text: str, held: Mapping[str, Sequence[Any]] = HELD) -> Sequence[Found]:
    return R4.evaluate(R4.path(text), held, resolve, {"step": "1234", "procedure": "", "server": "https://x"})


def values(text: str) -> list[Any]:
    return [each.value for each in found(text)]


# ---- what is found, and where ----


@pytest.mark.parametrize(
    ("text", "value", "where"),
    [
        ("Patient.birthDate", "1980-02-03", "birthDate"),
        ("Patient.name.where(use = 'official').family", "Muster", "name[1].family"),
        ("Patient.name.where(use = 'official').given[1]", "Eva", "name[1].given[2]"),
        ("Patient.name.last().given.first()", "Anna", "name[1].given[0]"),
        ("Patient.telecom.where(system != 'phone').value", "a@example.org", "telecom[1].value"),
        ("Patient.deceased", True, "deceased"),
        ("Patient.deceased.ofType(boolean)", True, "deceased"),
        ("Patient.contained.ofType(Practitioner).name.family", "Innen", "contained[0].name[0].family"),
        ("ServiceRequest.identifier.where(type.coding.exists(code = 'ACSN')).value", "9", "identifier[0].value"),
        ("ServiceRequest.identifier.where(type.empty()).value", "8", "identifier[1].value"),
        ("ServiceRequest.identifier.where(type.exists().not()).value", "8", "identifier[1].value"),
        ("ServiceRequest.occurrence.start", "2026-11-23T08:00:00+01:00", "occurrence.start"),
        ("Observation.where(code.coding.exists(code = '29463-7')).value.unit", "kg", "value.unit"),
        ("Patient.name.extension('http://example.org/trial').url", EXTENSION, "name[1].extension[0].url"),
        ("Patient.birthDate.extension('http://example.org/trial').value", "1980-02-03T04:05:00Z",
         "birthDate.extension[0].value"),
        ("Patient.telecom.value.where($this.startsWith('a@'))", "a@example.org", "telecom[1].value"),
        ("Patient.name.family.select(upper()).last()", "MUSTER", ""),
        ("Patient.name.select(family).skip(1)", "Muster", "name[1].family"),
        ("Patient.name.exists()", True, ""),
        ("Task.exists()", False, ""),
        ("%step", "1234", ""),
        ("Patient.name[0].select(%step)", "1234", ""),
        ("ServiceRequest.id & '-' & %step", "s-1234", ""),
        ("iif(Patient.active, 'yes', 'no')", "no", ""),
    ],
)  # fmt: skip
def test_a_value_is_found_with_its_place(text, value, where):
    (one,) = found(text)
    assert (one.value, one.where) == (value, where)


def test_what_a_reference_leads_to_is_of_the_resource_that_it_leads_to():
    doctor, inside = found("Patient.generalPractitioner.resolve().ofType(Practitioner).name.family")
    assert (doctor.value, doctor.where) == ("Weber", "name[0].family")
    assert doctor.resource is doctor.holder is DOCTOR
    assert (inside.value, inside.where) == ("Innen", "contained[0].name[0].family")
    assert inside.resource is INSIDE
    assert inside.holder is PATIENT
    assert values("ServiceRequest.basedOn.resolve().identifier.value") == ["7"]


def test_fhirpathpy_follows_the_same_references_to_the_same_places():
    text = "Patient.generalPractitioner.resolve().ofType(Practitioner).name.family"
    whole = by_fhirpathpy(text, parsed(text), Release.R4, ["Patient"])(Given(HELD, resolve, {}))
    assert list(whole) == list(found(text))


def test_nothing_is_nothing():
    for text in (
        "Patient.maritalStatus",
        "Encounter.class",
        "%procedure",
        "Patient.name.where(use = 'old')",
        "Task.id",
    ):
        assert values(text) == []
    assert R4.evaluate(parse_path("PID-3"), HELD, resolve, {}) == ()


def test_what_cannot_be_put_to_the_values_is_refused_without_quoting_them():
    with pytest.raises(Refused) as refused:
        found("Patient.name.family.select($this).join('') & Patient.name.family")
    (refusal,) = refused.value.refusals
    assert refusal.where == "Patient"
    assert "Muster" not in str(refusal)


def test_only_what_may_say_something_is_evaluated():
    texts = ["Patient.name.family", "Patient.photo.title",
             "Task.id", "Patient.deceased", "Task.exists()", "Observation.id",
             "Patient.contact.name | Patient.name", "Patient.gender.extension('x').value", "%step"]  # fmt: skip
    keys = frozenset(R4.path(text).key for text in texts)
    possible = R4.possible(keys, HELD | {"Observation": ({"resourceType": "Observation", "id": "1"},)})
    assert keys - possible == {"Patient.photo.title", "Task.id", "Patient.gender.extension('x').value"}


# ---- what is refused before there is any value ----


@pytest.mark.parametrize(
    ("text", "says", "hint"),
    [
        ("Patient.nmae", "Patient has no element nmae", "did you mean name?"),
        ("Patient.name.where(usee = 'x')", "HumanName has no element usee", "did you mean use?"),
        ("Pateint.name", "Pateint is no resource", "did you mean Patient?"),
        ("Practitioner.name", "no entry has a Practitioner of its own", "reach it by resolve()"),
        ("name.family", "name is no resource", "it begins with one of Patient"),
        ("Observation.valueQuantity", "valueQuantity is JSON's name", "value.ofType(Quantity)"),
        ("Observation.value.ofType(Quantty)", "there is no type Quantty", "did you mean Quantity?"),
        ("Observation.value.ofType(Address)", "Address is not what can be there", "have:"),
        ("Patient.birthDate.century", "a date has no element century", "end the path before it"),
        ("Patient.name.frist()", "no function frist() is known", "did you mean first?"),
        ("Patient.name.where()", "where() takes 1 arguments, not 0", ""),
        ("Patient.period.where(start < today())", "Patient has no element period", ""),
        ("Patient.identifier.where(period.end < now())", "no function now()", "has to mean the same tomorrow"),
        ("Patient.name.trace('x')", "no function trace()", "patients' data"),
        ("Patient.name.select(%stp)", "there is no variable %stp", "did you mean %step?"),
        ("Patient.name.where(use == 'x')", "cannot be read from '=', character", "FHIRPath such as"),
        ("Patient.name.", "ends too early", ""),
        ("Patient.name )", "cannot be read from ')'", ""),
        ("(" * 500 + "Patient" + ")" * 500, "", ""),
        ("Patient." + "name." * 300, "has more than 1000 characters", ""),
        ("Observation.where(code.coding.code = '1')", "= holds of one value", "write code.coding.exists(code = '1')"),
        ("Patient.name.where(given = 'A')", "= holds of one value", "exists($this = 'A')"),
        ("Patient.name.given.upper()", "upper() takes one value", "first() before upper()"),
        ("Patient.contact", "is a PatientContact, which is no value", "name one of its elements: relationship"),
        ("Patient", "is a Patient, which is no value", "name one of its elements"),
        ("Patient.gender.resolve()", "resolve() of what is no reference", ""),
        ("ServiceRequest.basedOn.resolve().identifer", "has no element identifer", "did you mean identifier?"),
        ("where(use = 'x')", "stands at the beginning", "it begins with"),
        ("", "ends too early", ""),
    ],
)
def test_what_can_never_be_there_is_refused_with_what_was_meant(text, says, hint):
    with pytest.raises(UnreadablePath) as unreadable:
        R4.path(text)
    assert says in str(unreadable.value)
    assert hint in unreadable.value.hint


def test_releases_have_elements_of_their_own():
    assert reader(Release.R5).path("Task.requestedPeriod.start").segment == "Task"
    with pytest.raises(UnreadablePath):
        R4.path("Task.requestedPeriod.start")
    with pytest.raises(UnreadablePath):
        reader(Release.R5).path("ServiceRequest.reasonCode")


def test_a_unit_is_of_the_resource_of_its_value():
    value = R4.path("Observation.where(code.coding.exists(code = 'x')).value")
    assert R4.beside("Observation.value.unit", [value]).key == "Observation.value.unit"
    with pytest.raises(UnreadablePath) as unreadable:
        R4.beside("Patient.gender", [value])
    assert "Observation" in unreadable.value.hint


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("Patient.name.where(use = 'official').family", "name"),
        ("Patient.birthDate", "birthDate"),
        ("Observation.where(status = 'final').value", ""),
        ("Patient.name[0].family", "name"),
        ("%step", ""),
        ("Patient.name | Patient.contact.name", "name"),
    ],
)
def test_the_element_to_be_filled_is_named_without_functions(text, place):
    assert R4.place(R4.path(text)) == place


def test_every_function_of_fhirpathpy_is_taken_or_refused_with_a_reason():
    functions = {name for name in invocation_registry if name.isidentifier() and not name.endswith("Op")}
    operators = {"or", "and", "xor", "implies", "mod", "div"}
    assert functions - operators == (FUNCTIONS.keys() | NOT_HERE.keys()) - {"resolve"}


def test_the_types_of_all_elements_that_rules_can_reach_are_known():
    for release in Release:
        for root in ROOTS:
            for name, element in elements(release, root).items():
                assert element.types <= type_names(release), (release, root, name)


# ---- the two evaluations ----

CODES = st.sampled_from(["official", "usual", "A", "B"])
CODING = st.fixed_dictionaries({}, optional={"code": CODES, "system": CODES, "userSelected": st.booleans()})
NAME = st.fixed_dictionaries({}, optional={
    "use": CODES, "family": CODES, "given": st.lists(CODES, max_size=3), "period": st.just({"start": "2020"}),
})  # fmt: skip
IDENTIFIER = st.fixed_dictionaries(
    {}, optional={"value": CODES, "type": st.fixed_dictionaries({}, optional={"coding": st.lists(CODING, max_size=3)})}
)
REFERENCE = st.sampled_from([{"reference": key} for key in (*KNOWN, "Practitioner/away")])
PATIENTS = st.fixed_dictionaries({"resourceType": st.just("Patient")}, optional={
    "name": st.lists(NAME, max_size=3), "identifier": st.lists(IDENTIFIER, max_size=3), "gender": CODES,
    "multipleBirthInteger": st.integers(0, 3), "generalPractitioner": st.lists(REFERENCE, max_size=3),
})  # fmt: skip

MEMBERS = ["Patient.name", "Patient.name.family", "Patient.name.given", "Patient.identifier.type.coding",
           "Patient.gender", "Patient.name.period.start", "Patient.multipleBirth"]  # fmt: skip
TESTS = ["use = 'official'", "use != 'official'", "family.exists()", "given.empty()", "family.exists().not()",
         "(use = 'usual').not()", "given.exists($this = 'A')", "given.first() = 'A'",
         "use.matches('^us')", "family.length() < 2", "use.length() >= 8", "use.length() = 5"]  # fmt: skip


@st.composite
def expressions(draw: st.DrawFn) -> str:
    """Expressions of what is evaluated here."""
    kind = draw(st.sampled_from(["plain", "where", "coding", "resolve"]))
    if kind == "plain":
        text = draw(st.sampled_from(MEMBERS))
    elif kind == "coding":
        text = "Patient.identifier.where(type.coding.exists(code = 'A' and userSelected = true)).value"
    elif kind == "resolve":
        text = "Patient.generalPractitioner.resolve()" + draw(st.sampled_from([".ofType(Practitioner).name", ""]))
    else:
        one, other = draw(st.sampled_from(TESTS)), draw(st.sampled_from(TESTS))
        test = draw(st.sampled_from([one, f"{one} and {other}", f"{one} or {other}", f"({one} and {other}).not()"]))
        text = f"Patient.name.where({test})" + draw(
            st.sampled_from(["", ".family", ".given", ".select(given)", ".select((family | given).first())"])
        )
    return text + draw(st.sampled_from(["", ".first()", ".last()", ".tail()", "[0]", "[1]", ".exists()", ".empty()"]))


@given(expressions(), PATIENTS)
def test_our_steps_find_what_fhirpathpy_finds_and_where(text, patient):
    held, expression = {"Patient": (patient,)}, R4.expression(text)
    assert expression.native
    ours = expression.evaluate(Given(held, resolve, {}))
    theirs = by_fhirpathpy(text, parsed(text), Release.R4, ["Patient"], of_nothing=True)(Given(held, resolve, {}))
    assert [(each.value, each.datatype) for each in ours] == [(each.value, each.datatype) for each in theirs]
    for one, other in zip(ours, theirs, strict=True):  # of a text that stands in several places it knows none
        assert one.where == other.where or not other.where


@given(st.sampled_from(MEMBERS), PATIENTS)
def test_plain_walks_are_what_fhirpathpy_says_by_itself(text, patient):
    ours = R4.expression(text).evaluate(Given({"Patient": (patient,)}, resolve, {}))
    assert [each.value for each in ours] == fhirpathpy.evaluate(patient, text, {}, _model(Release.R4))
