"""References of FHIR resources: what one says, where they all are, and others in their place."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.wire.fhir_references import Reference, Way, base_of, read, references, rewritten

BASE = "https://g.example/fhir/r4"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Patient/1", Reference(Way.LOCAL, "Patient/1", "Patient", "1")),
        ("Patient/a-b.C/_history/3", Reference(Way.LOCAL, "Patient/a-b.C/_history/3", "Patient", "a-b.C", "3")),
        (f"{BASE}/Patient/1", Reference(Way.LOCAL, f"{BASE}/Patient/1", "Patient", "1")),
        (f"{BASE}x/Patient/1", Reference(Way.ABSOLUTE, f"{BASE}x/Patient/1", "Patient", "1")),
        ("http://h/a/b/Patient/1/_history/2",
         Reference(Way.ABSOLUTE, "http://h/a/b/Patient/1/_history/2", "Patient", "1", "2")),
        ("http://h/Questionnaire?x", Reference(Way.ABSOLUTE, "http://h/Questionnaire?x")),
        ("urn:uuid:0b1e", Reference(Way.URN, "urn:uuid:0b1e")),
        ("urn:oid:1.2", Reference(Way.URN, "urn:oid:1.2")),
        ("#p", Reference(Way.CONTAINED, "#p", id="p")),
        ("#", Reference(Way.CONTAINED, "#")),
        ("Patient?name=a|b", Reference(Way.CONDITIONAL, "Patient?name=a|b", "Patient", query="name=a|b")),
        ("Patient", Reference(Way.MALFORMED, "Patient")),
        ("Patient/" + "x" * 65, Reference(Way.MALFORMED, "Patient/" + "x" * 65)),
        ("patient/1", Reference(Way.MALFORMED, "patient/1")),
        ("", Reference(Way.MALFORMED, "")),
    ],
)  # fmt: skip
def test_a_reference_is_read(text, expected):
    assert read(text, [BASE]) == expected


def test_the_base_of_a_full_url_is_known():
    assert base_of("http://ehr/fhir/Patient/1") == "http://ehr/fhir"
    assert base_of("urn:uuid:1") == base_of("") == ""


RESOURCE = {
    "resourceType": "ServiceRequest",
    "subject": {"reference": "Patient/1"},
    "basedOn": [{"reference": "ServiceRequest/2"}, {"identifier": {"assigner": {"reference": "Organization/3"}}}],
    "contained": [{"resourceType": "Task", "id": "t", "for": {"reference": "Patient/1"}}],
    "reason": [{"reference": {"reference": "Condition/4"}}],
}


def test_every_reference_is_found_where_it_stands():
    assert [(each.where, each.element["reference"]) for each in references(RESOURCE)] == [
        ("ServiceRequest.subject", "Patient/1"),
        ("ServiceRequest.basedOn[0]", "ServiceRequest/2"),
        ("ServiceRequest.basedOn[1].identifier.assigner", "Organization/3"),
        ("ServiceRequest.contained[0].for", "Patient/1"),
        ("ServiceRequest.reason[0].reference", "Condition/4"),
    ]
    (first, *_) = references(RESOURCE, "Bundle.entry[1].resource")
    assert first.where == "Bundle.entry[1].resource.subject"


def test_references_are_rewritten_in_a_copy_that_shares_what_stays():
    before = repr(RESOURCE)
    made = rewritten(RESOURCE, lambda text, _: {"ServiceRequest/2": "ServiceRequest/9"}.get(text, text))
    assert [each.element["reference"] for each in references(made)] == [
        "Patient/1", "ServiceRequest/9", "Organization/3", "Patient/1", "Condition/4",
    ]  # fmt: skip
    assert repr(RESOURCE) == before
    assert made["contained"] is RESOURCE["contained"]
    assert rewritten(RESOURCE, lambda text, _: text) is RESOURCE


_JSON = st.recursive(
    st.one_of(st.booleans(), st.text(max_size=3), st.just({"reference": "Patient/1"})),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["a", "reference", "identifier"]), inner, max_size=3),
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from("abc"), _JSON, max_size=3))
def test_what_is_found_is_what_is_rewritten(content):
    told = []
    made = rewritten(content, lambda text, where: told.append((where, text)) or text + "x")
    found = list(references(content))
    assert sorted(told) == sorted((each.where, each.element["reference"]) for each in found)
    assert sorted(each.element["reference"] for each in references(made)) == sorted(
        each.element["reference"] + "x" for each in found
    )


@given(st.text(max_size=40))
def test_any_text_is_read(text):
    assert read(text, [BASE]).text == text
