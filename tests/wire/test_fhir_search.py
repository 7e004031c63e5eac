"""Searching FHIR: the table against the models, index rows out of resources, queries read and refused."""

from itertools import pairwise
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.refusal import RefusalKind, Refused
from gateway.domain.resource_search import Comparison, Criterion, How, Position, Sorting, SortKey
from gateway.domain.resources import Indexed
from gateway.wire.fhir_capability import is_served
from gateway.wire.fhir_index import FOR_EVER, NEVER, Range, date_range, key_of
from gateway.wire.fhir_release import Release
from gateway.wire.fhir_search import (
    COUNT_MAX,
    Include,
    cursor_of,
    indexed,
    parameters,
    parse,
    parse_condition,
    types_asked,
)
from gateway.wire.fhir_search_parameters import ParameterKind, parameters_of, searched_types
from gateway.wire.fhir_shapes import shape

BASE = "https://g.example/fhir/r4"


def leads_to(release, type_, path):
    """The types that a path of the table ends at, as the models have them."""
    if not path:
        return {type_}
    known, name = shape(release, type_), path[0].partition("[")[0]
    found = [each for each in known.elements.values() if name in (each.name, each.choice)] if known else []
    return {end for each in found for end in leads_to(release, each.type, path[1:])}


_FITTING = {
    ParameterKind.TOKEN: {"code", "boolean", "Coding", "CodeableConcept", "Identifier", "ContactPoint", "string", "id",
                          "CodeableReference", "uri", "oid"},
    ParameterKind.REFERENCE: {"Reference", "CodeableReference"},
    ParameterKind.DATE: {"date", "dateTime", "instant", "Period", "Timing", "string", "Age", "Range"},
    ParameterKind.STRING: {"string", "HumanName", "Address", "markdown"},
    ParameterKind.URI: {"uri", "url", "canonical"},
}  # fmt: skip


@pytest.mark.parametrize(
    ("type_", "release"),
    [(each, release) for release in Release for each in searched_types() if is_served(each, release)],
)
def test_every_path_of_the_table_is_one_of_the_release(type_, release):
    for parameter in parameters_of(type_, release).values():
        for path in parameter.paths:
            found = leads_to(release, type_, path)
            assert found, (parameter.name, path)
            assert found & _FITTING[parameter.kind], (parameter.name, path, found)
        for target in parameter.targets:
            assert shape(release, target), (parameter.name, target)


def test_what_can_be_asked_by_is_named_with_its_kind():
    assert parameters("ServiceRequest", Release.R4)["code"] == "token"
    assert "code" not in parameters("ServiceRequest", Release.R5)
    assert parameters("ServiceRequest", Release.R5)["code-concept"] == "token"
    assert {"_id": "token", "_lastUpdated": "date"}.items() <= parameters("Basic", Release.R4).items()


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("2026", "20260101000000000000", "20261231235959999999"),
        ("2024-02", "20240201000000000000", "20240229235959999999"),
        ("2026-12", "20261201000000000000", "20261231235959999999"),
        ("2026-07-05", "20260705000000000000", "20260705235959999999"),
        ("2026-07-05T08:30Z", "20260705083000000000", "20260705083059999999"),
        ("2026-07-05T08:30:15", "20260705083015000000", "20260705083015999999"),
        ("2026-07-05T00:30:15+02:00", "20260704223015000000", "20260704223015999999"),
        ("2026-07-05T08:30:15.12Z", "20260705083015120000", "20260705083015129999"),
        ("2026-07-05T08:30:15.123456789Z", "20260705083015123456", "20260705083015123456"),
        ("2026-06-30T23:59:60Z", "20260630235959000000", "20260630235959999999"),
        ("0999", "09990101000000000000", "09991231235959999999"),
    ],
)
def test_a_date_is_as_long_as_it_says(text, first, last):
    assert date_range(text) == Range(first, last)


@pytest.mark.parametrize("text", ["", "26", "2026-13", "2026-02-30", "2026-7-5", "2026-07-05T25:00", "0000", "٢٠٢٦",
                                  "2026-07-05T08:30:15+99:00", "2026-07-05 08:30", "x" * 99])  # fmt: skip
def test_what_is_no_date_is_none(text):
    assert date_range(text) is None


@given(st.datetimes())
def test_a_shorter_date_covers_a_longer_one(at):
    year, day, minute = at.strftime("%Y").rjust(4, "0"), at.strftime("%Y-%m-%d").rjust(10, "0"), at.strftime("T%H:%M")
    ranges = [date_range(each) for each in (year, day[:7], day, day + minute, day + minute + at.strftime(":%S"))]
    for wide, narrow in pairwise(each for each in ranges if each is not None):
        assert wide.first <= narrow.first <= narrow.last <= wide.last


def test_a_resource_is_found_by_what_it_says():
    resource = {
        "resourceType": "ServiceRequest", "id": "1", "meta": {"tag": [{"system": "t", "code": "x"}]},
        "identifier": [{"system": "http://a", "value": "1"}], "status": "active",
        "code": {"coding": [{"system": "s", "code": "CT"}, {"code": "own"}], "text": "Head"},
        "subject": {"reference": "Patient/1/_history/2"}, "encounter": {"identifier": {"system": "v", "value": "9"}},
        "requester": {"reference": "#d"}, "basedOn": [{"reference": "http://other/ServiceRequest/7"}],
        "occurrencePeriod": {"start": "2026-07-05"}, "requisition": {"value": "G1"}, "authoredOn": "2026-07",
    }  # fmt: skip
    assert set(indexed(resource, Release.R4)) == {
        Indexed("_tag", "t", "x"), Indexed("identifier", "http://a", "1"), Indexed("status", "", "active"),
        Indexed("code", "s", "CT"), Indexed("code", "", "own"), Indexed("patient", "", "Patient/1"),
        Indexed("subject", "", "Patient/1"), Indexed("encounter:identifier", "v", "9"),
        Indexed("based-on", "", "http://other/ServiceRequest/7"),
        Indexed("occurrence", FOR_EVER[:14], "20260705000000"), Indexed("requisition", "", "G1"),
        Indexed("authored", "20260731235959", "20260701000000"),
        Indexed("_refers", "ServiceRequest", "Patient/1"), Indexed("_refers", "ServiceRequest", "#d"),
        Indexed("_refers", "ServiceRequest", "http://other/ServiceRequest/7"), Indexed("_refers:identifier", "v", "9"),
    }  # fmt: skip
    timing = {"repeat": {"boundsPeriod": {"end": "2026"}}, "event": ["2025"]}
    rows = indexed({"resourceType": "ServiceRequest", "occurrenceTiming": timing}, Release.R4)
    assert rows == [
        Indexed("occurrence", "20251231235959", "20250101000000"), Indexed("occurrence", "20261231235959", NEVER[:14])
    ]  # fmt: skip


def test_r5_says_codes_and_references_inside_of_each_other():
    resource = {
        "resourceType": "ServiceRequest",
        "code": {"concept": {"coding": [{"code": "CT"}]}, "reference": {"reference": "ActivityDefinition/1"}},
    }
    rows = indexed(resource, Release.R5)
    assert Indexed("code-concept", "", "CT") in rows
    assert Indexed("code-reference", "", "ActivityDefinition/1") in rows


def test_people_are_found_by_names_without_case_and_accents_and_phones_apart_from_letters():
    resource = {
        "resourceType": "Patient", "name": [{"use": "official", "family": "Müller  Lüd", "given": ["Änne"]}],
        "telecom": [{"system": "phone", "value": "1"}, {"system": "email", "value": "a@b"}], "active": True,
    }  # fmt: skip
    rows = indexed(resource, Release.R4)
    assert Indexed("family", "Müller  Lüd", "muller lud") in rows
    assert Indexed("name", "Änne", "anne") in rows
    assert [each.value for each in rows if each.name == "phone"] == ["1"]
    assert [each.value for each in rows if each.name == "email"] == ["a@b"]
    assert Indexed("active", "", "true") in rows
    assert not [each for each in rows if each.value == "official"]


def test_long_values_are_told_apart_by_all_of_them():
    one, other = "x" * 500, "x" * 499 + "y"
    assert key_of(one) != key_of(other)
    assert len(key_of(one)) == 200
    assert key_of("x" * 200) == "x" * 200


_ANY = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=4)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["coding", "code", "system", "value", "reference", "identifier", "start", "repeat", "event",
                             "concept", "name", "family", "subject", "meta", "telecom"]), inner, max_size=4,
        ),
    ),
    max_leaves=20,
)  # fmt: skip


@given(st.sampled_from(["ServiceRequest", "Patient", "Appointment"]), st.sampled_from(list(Release)), st.data())
def test_whatever_a_resource_holds_makes_rows_of_texts(type_, release, data):
    names = sorted(
        {path[0].partition("[")[0] for each in parameters_of(type_, release).values() for path in each.paths}
    )
    content = data.draw(st.dictionaries(st.sampled_from(names), _ANY, max_size=5))
    for row in indexed({"resourceType": type_, **content}, release):
        assert all(isinstance(each, str) for each in row)


# -- queries


def read(query, type_="ServiceRequest", release=Release.R4, **said):
    return parse(type_, query, release, [BASE], **said)


@pytest.mark.parametrize(
    ("query", "criterion"),
    [
        ("status=active", Criterion("status", (Comparison(How.VALUE, "active"),))),
        ("code=s|c,|d,t|", Criterion("code", (
            Comparison(How.VALUE_OF_SYSTEM, "c", "s"), Comparison(How.VALUE_OF_SYSTEM, "d", ""),
            Comparison(How.SYSTEM, "", "t")))),
        (r"code=a\,b\|c\\", Criterion("code", (Comparison(How.VALUE, "a,b|c\\"),))),
        ("patient=1", Criterion("patient", (Comparison(How.VALUE, "Patient/1"),))),
        (f"patient={BASE}/Patient/1", Criterion("patient", (Comparison(How.VALUE, "Patient/1"),))),
        ("patient=http://other/Patient/1", Criterion("patient", (Comparison(How.VALUE, "http://other/Patient/1"),))),
        ("requester:Practitioner=7", Criterion("requester", (Comparison(How.VALUE, "Practitioner/7"),))),
        ("authored=ge2026-07-05T08:00:00+02:00", Criterion("authored", (
            Comparison(How.GREATER, "20260705060000", "20260705060000"),
            Comparison(How.WITHIN, "20260705060000", "20260705060000")))),
        ("patient.family:exact=Ä", Criterion("patient", chain=(
            ("Patient", Criterion("family", (Comparison(How.VALUE_OF_SYSTEM, "a", "Ä"),))),))),
        ("_lastUpdated=gt2026", Criterion("_lastUpdated", (
            Comparison(How.GREATER, "20260101000000000000", "20261231235959999999"),))),
    ],
)  # fmt: skip
def test_a_query_is_read(query, criterion):
    assert read(query).criteria == (criterion,)


def test_what_is_about_pages_is_read():
    found = read(
        "_count=7&_sort=-authored&_total=accurate&_elements=id,status&_format=json&status=active"
        "&_include=ServiceRequest:requester:Practitioner&_include:iterate=PractitionerRole:practitioner"
        "&_revinclude=Task:based-on&_cursor=" + cursor_of(Position("2026", 9))
    )
    assert (found.count, found.total, found.elements) == (7, True, ("id", "status"))
    assert found.sorting == Sorting(SortKey.AUTHORED, True)
    assert found.after == Position("2026", 9)
    assert found.includes == (
        Include("ServiceRequest", "requester", "Practitioner"), Include("PractitionerRole", "practitioner", "", True)
    )  # fmt: skip
    assert found.revincludes == (Include("Task", "based-on"),)
    assert read(found.query).query == found.query
    assert "_cursor" not in found.query
    assert "_format" not in found.query
    assert read("_count=99999").count == COUNT_MAX
    assert (read("_count=0").only_count, read("_summary=count").total) == (True, True)
    assert read("_summary=true").notes


@pytest.mark.parametrize(
    ("query", "where"),
    [
        ("colour=red", "colour"), ("staus=active", "staus"), ("status:text=a", "status:text"), ("status=", "status"),
        ("status=a|b|c", "status"), ("status=|", "status"), ("code.text=1", "code.text"), ("patient.x=1", "patient.x"),
        ("patient.organization.name=1", "patient.organization.name"), ("patient:Group=1", "patient:Group"),
        ("authored=yesterday", "authored"), ("authored=zz2026", "authored"), ("authored:below=2026", "authored:below"),
        ("_id=a b", "_id"), ("_lastUpdated=", "_lastUpdated"), ("status:missing=maybe", "status:missing"),
        ("_count=-1", "_count"), ("_count=x", "_count"), ("_sort=colour", "_sort"), ("_sort=_id,authored", "_sort"),
        ("_include=Patient:link", "_include"), ("_include=ServiceRequest:status", "_include"),
        ("_include=*", "_include"),
        ("_revinclude=Task:colour", "_revinclude"), ("_total=maybe", "_total"), ("_summary=maybe", "_summary"),
        ("_elements=a b", "_elements"), ("_cursor=zzz", "_cursor"), ("_cursor=WzFd", "_cursor"),
        ("_has:Task:based-on:status=x", "_has:Task:based-on:status"), ("status=" + "a," * 300, "status"),
        ("&".join(["status=a"] * 99), ""), ("status=%ff", ""), ("_contained=true", "_contained"),
        ("patient.birthdate=no", "patient.birthdate"), ("_id:missing=true", "_id:missing"),
    ],
)  # fmt: skip
def test_what_is_not_understood_is_refused_by_its_name(query, where):
    with pytest.raises(Refused) as refused:
        read(query)
    (one,) = refused.value.refusals
    assert (one.kind, one.where) == (RefusalKind.UNUSABLE_QUERY, where)
    assert one.text
    assert one.hint


def test_everything_wrong_is_told_and_who_is_lenient_gets_notes():
    with pytest.raises(Refused) as refused:
        read("colour=red&status=&_count=x")
    assert [each.where for each in refused.value.refusals] == ["colour", "status", "_count"]
    found = read("colour=red&status=active", lenient=True)
    assert [each.name for each in found.criteria] == ["status"]
    assert (found.notes, found.query) == (
        ("colour was left out: is no search parameter of ServiceRequest",),
        "status=active",
    )
    with pytest.raises(Refused):
        read("_count=x", lenient=True)


def test_a_misspelt_parameter_gets_the_right_one_as_a_hint():
    with pytest.raises(Refused) as refused:
        read("stauts=active")
    assert refused.value.refusals[0].hint == "did you mean status?"


def test_a_condition_asks_by_something_and_about_no_pages():
    assert parse_condition("Patient", "identifier=a|1", Release.R4) == (
        Criterion("identifier", (Comparison(How.VALUE_OF_SYSTEM, "1", "a"),)),
    )
    for query in ("", "_count=1&identifier=a", "_sort=_id&identifier=a", "_format=json"):
        with pytest.raises(Refused):
            parse_condition("Patient", query, Release.R4)


@given(st.lists(st.tuples(st.sampled_from(["status", "patient", "patient.name", "authored", "_id", "_count", "_sort",
                                           "_cursor", "code:not", "_include", "subject:Patient.family:exact", "x"]),
                          st.text(max_size=12)), max_size=5), st.booleans())  # fmt: skip
def test_any_query_is_read_or_refused_in_words(pairs, lenient):
    query = "&".join(f"{name}={quote(value.encode('utf-8', 'replace'))}" for name, value in pairs)
    told = ()
    try:
        found = read(query, lenient=lenient)
    except Refused as refused:
        told = refused.refusals
        found = None
    if found is None:
        assert all(each.text and each.hint for each in told)
        return
    again = read(found.query)
    assert (again.criteria, again.sorting, again.count) == (found.criteria, found.sorting, found.count)


@pytest.mark.parametrize(
    "query",
    [
        "subject:x' or '1'='1._id=1",
        "subject:Nothing._lastUpdated=2026",
        "requester:Patient'._id=1",
        "based-on:Nothing=1",
        "_cursor=NQ",
        "_cursor=bnVsbA",
        "_cursor=" + "W1tb" * 1500,
        "family:contains=" + ",".join("abcdefghijk"),
        "&".join(["performer=" + ",".join(map(str, range(150)))] * 5),
    ],
)
def test_what_is_no_type_no_cursor_or_too_much_is_refused(query):
    type_ = "Patient" if query.startswith("family") else "ServiceRequest"
    with pytest.raises(Refused) as refused:
        parse(type_, query, Release.R4)
    assert {each.kind for each in refused.value.refusals} == {RefusalKind.UNUSABLE_QUERY}


def test_the_types_that_an_answer_tells_of_are_known():
    asked = parse("ServiceRequest", "subject:Patient.name=sample&_revinclude=Task:based-on&status=active", Release.R4)
    assert types_asked(asked) == {"Patient", "Task"}
