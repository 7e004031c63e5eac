"""Coded entries: coding schemes under all their names, translation by CSV and FHIR ConceptMap, equivalents kept."""

from typing import Any

import pytest
from mapping_documents import event, mapping, result

from gateway.domain.attributes import Attributes, text, values
from gateway.domain.codes import (
    COLUMNS,
    Translating,
    Translation,
    code_of,
    compile_concept_map,
    compile_translation,
    translated,
)
from gateway.domain.coding_schemes import CODING_SCHEMES, SCHEMES
from gateway.domain.converters import CONVERTERS, Noted, Setting, Unconvertible, code, scheme_designator
from gateway.domain.mapping import MappingError
from gateway.domain.problem import Problem

SETTING = Setting(scheme="99RIS", schemes={"HTTPS://SITE.EXAMPLE/PROC": "99SITE"})


def rows(*said: str) -> list[dict[str, str]]:
    columns = ("source_scheme", "source_code", "target_scheme", "target_code", "target_meaning", "target_version")
    return [dict(zip(columns, one.split(","), strict=False)) for one in said]


LEGACY = compile_translation("legacy", rows("SRT,T-04000,SCT,76752008,Breast", "BI,II.AC.b.4,SCT,397144001,Suspicious"))


def coded(er7: str, how: Translating | None = None, converter: str = "code") -> Any:
    row = CONVERTERS[converter] if how is None else translated(CONVERTERS[converter], how)
    return row.function(tuple((part,) for part in er7.split("^")), SETTING)


def said(item: Attributes) -> tuple[str, str, str]:
    return (*code_of(item), text(item, "CodeMeaning"))


# ---- the vectors of the terminology digest that HL7 can send ----


@pytest.mark.parametrize(
    ("er7", "item"),
    [
        ("R51^Headache^I10", ("I10", "R51", "Headache")),
        ("18748-4^Diagnostic imaging^http://loinc.org", ("LN", "18748-4", "Diagnostic imaging")),
        ("123^X^SNOMED-CT", ("SCT", "123", "X")),
        ("P1^X^https://site.example/proc", ("99SITE", "P1", "X")),
        ("P1^X", ("99RIS", "P1", "X")),
        ("P1^^CPT-4", ("C4", "P1", "P1")),
        ("1^X^urn:oid:2.16.840.1.113883.6.96", ("SCT", "1", "X")),
        ("1^X^http://terminology.hl7.org/CodeSystem/v2-0074", ("HL70074", "1", "X")),
    ],
)
def test_a_code_gets_the_designator_of_its_scheme(er7: str, item: tuple[str, str, str]) -> None:
    assert said(coded(er7)) == item


def test_long_codes_and_urns_have_attributes_of_their_own() -> None:
    assert text(coded("123456789012345678^X^SCT"), "LongCodeValue") == "123456789012345678"
    urn = coded("urn:oid:1.2.3^X^SCT")
    assert text(urn, "URNCodeValue") == "urn:oid:1.2.3"
    assert not text(urn, "CodingSchemeDesignator")


def test_legacy_codes_become_todays_and_stay_as_equivalents() -> None:
    for scheme in ("SRT", "SNM3", "SDM", "99SDM"):
        item = coded(f"T-04000^Mamma^{scheme}", Translating((LEGACY,)))
        assert said(item) == ("SCT", "76752008", "Breast")
        (equivalent,) = values(item, "EquivalentCodeSequence")
        assert said(equivalent) == (scheme_designator(scheme, SETTING), "T-04000", "Mamma")
    assert said(coded("II.AC.b.4^4^BI", Translating((LEGACY,))))[1] == "397144001"


def test_no_two_schemes_share_a_name() -> None:
    names = [
        name.upper() for row in CODING_SCHEMES for name in (row.designator, row.oid, *row.names, *row.systems) if name
    ]
    assert len(names) == len(set(names))
    assert all(len(designator) <= 16 for designator in SCHEMES.values())


def test_every_fhir_system_leads_back_to_its_scheme() -> None:
    for row in CODING_SCHEMES:
        assert {scheme_designator(system, SETTING) for system in row.systems} <= {row.designator}


# ---- translation ----

LOCAL = compile_translation("local", rows("99RIS,CTH,LN,30799-1,CT Head", "99RIS,CTH,RADLEX,RPID22,", ",ANY,SCT,1,"))


@pytest.mark.parametrize(
    ("er7", "to", "item"),
    [
        ("CTH^CT head", "LN", ("LN", "30799-1", "CT Head")),
        ("CTH^CT head", "RADLEX", ("RADLEX", "RPID22", "CT head")),
        ("CTH^CT head", "", ("LN", "30799-1", "CT Head")),
        ("CTH^CT head", "SCT", ("99RIS", "CTH", "CT head")),
        ("ANY^Any^99ELSE", "SCT", ("SCT", "1", "Any")),
        ("5^In place^LN", "LN", ("LN", "5", "In place")),
    ],
)
def test_a_translation_gives_the_code_of_the_scheme_wanted(er7: str, to: str, item: tuple[str, str, str]) -> None:
    assert said(coded(er7, Translating((LOCAL,), to))) == item


def test_equivalents_are_kept_without_what_became_the_code() -> None:
    item = coded("CTH^CT head^99RIS^30799-1^CT Head^LN", Translating((LOCAL,), "LN"), "code-with-alternate")
    assert [said(one) for one in values(item, "EquivalentCodeSequence")] == [("99RIS", "CTH", "CT head")]


def test_a_version_is_given_to_codes_that_need_one() -> None:
    versioned = compile_translation("bi", rows("BI,MA.II.A.5.4A,BI,MA.II.A.5.4A,Low suspicion,4.0"))
    item = coded("MA.II.A.5.4A^x^BI", Translating((versioned,)))
    assert text(item, "CodingSchemeVersion") == "4.0"
    assert "00080121" not in item


def test_unknown_codes_are_kept_left_out_or_refused() -> None:
    assert said(coded("X^Y", Translating((LOCAL,), "LN", "keep")))[1] == "X"
    left_out = coded("X^Y", Translating((LOCAL,), "LN", "omit"))
    assert left_out == Noted(None, "'X' of 99RIS is not in local; left out")
    with pytest.raises(Unconvertible) as raised:
        coded("CTHX^Y", Translating((LOCAL,), "LN", "refuse"))
    assert (raised.value.text, raised.value.hint) == ("'CTHX' of 99RIS is not in local", "did you mean CTH?")


def test_silence_is_not_translated() -> None:
    assert coded("^text only", Translating((LOCAL,), "LN", "refuse")) is None


def test_a_rule_translates_and_its_trace_names_the_row() -> None:
    rule = {"from": "OBR-4", "convert": "code", "translate": {"map": "local", "to": "LOINC"}}
    given: dict[str, Any] = {"translations": {"local": LOCAL}, "more": {"default_scheme": "99RIS"}}
    found = result({"RequestedProcedureCodeSequence": rule}, OBR_4="CTH^CT head", **given)
    (procedure,) = event(found).procedures
    (item,) = values(procedure.attributes, "RequestedProcedureCodeSequence")
    assert said(item) == ("LN", "30799-1", "CT Head")
    (entry,) = [entry for entry in found.trace if entry.target == "RequestedProcedureCodeSequence"]
    assert entry.converter == "code, translated by local to LN, local line 2"


@pytest.mark.parametrize(
    ("rule", "hint"),
    [
        ({"translate": {"map": "locl"}}, "did you mean local?"),
        ({"translate": {"map": "local", "to": "I10"}}, "they give LN, RADLEX, SCT"),
        ({"translate": {"map": "local", "too": "LN"}}, "did you mean to?"),
        ({"translate": "local", "unknown": "kep"}, "did you mean keep?"),
    ],
)
def test_a_mistaken_translation_is_a_problem_with_a_hint(rule: dict[str, Any], hint: str) -> None:
    whole = {"from": "OBR-4", "convert": "code", **rule}
    with pytest.raises(MappingError) as raised:
        mapping({"RequestedProcedureCodeSequence": whole}, translations={"local": LOCAL})
    assert [problem.hint for problem in raised.value.problems] == [hint]


def test_only_codes_are_translated() -> None:
    with pytest.raises(MappingError, match="only codes are translated"):
        mapping({"PatientComments": {"from": "PID-1", "translate": "local"}}, translations={"local": LOCAL})


# ---- CSV ----


def problems(*said_rows: dict[str, str]) -> list[Problem]:
    with pytest.raises(MappingError) as raised:
        compile_translation("m", said_rows)
    return list(raised.value.problems)


def test_rows_that_mean_something_else_are_not_used() -> None:
    base = {"source_scheme": "99A", "source_code": "1", "target_scheme": "SCT", "target_code": "2"}
    for word in ("wider", "narrower", "related-to", "source-is-broader-than-target"):
        assert compile_translation("m", [{**base, "equivalence": word}]).find("99A", "1") is None
    assert compile_translation("m", [{**base, "equivalence": "Equivalent"}]).find("99A", "1") is not None


def test_every_problem_of_a_translation_is_told_with_its_line() -> None:
    good = {"source_code": "1", "target_scheme": "SCT", "target_code": "2"}
    found = problems(
        {**good, "target_cod": "x"},
        {**good, "target_code": "3"},
        {"source_code": "4", "target_scheme": "", "target_code": ""},
        {**good, "source_code": "5", "equivalence": "equal-ish"},
        {**good, "source_code": "6", "target_scheme": "a scheme with too long a name"},
    )
    assert [(problem.path, problem.line) for problem in found] == [
        ("target_cod", 1), ("", 3), ("target_scheme", 4), ("equivalence", 5), ("scheme", 6),
    ]  # fmt: skip
    assert found[0].hint == "did you mean target_code?"


def test_columns_have_a_meaning() -> None:
    assert all(COLUMNS.values())


# ---- FHIR ConceptMap ----


def concept_map(*groups: Any) -> dict[str, Any]:
    return {"resourceType": "ConceptMap", "group": list(groups)}


R4 = {
    "source": "https://site.example/proc",
    "target": "http://snomed.info/sct|2024",
    "element": [
        {"code": "A", "target": [{"code": "11", "display": "Eleven", "equivalence": "equivalent"}]},
        {"code": "B", "target": [{"code": "12", "equivalence": "wider"}]},
        {"code": "C", "target": [{"equivalence": "unmatched"}]},
    ],
}
R5 = {
    "source": "http://loinc.org",
    "target": "urn:oid:2.16.840.1.113883.6.256",
    "element": [
        {"code": "D", "target": [{"code": "RPID1", "relationship": "equivalent"}]},
        {"code": "E", "noMap": True},
    ],
}


def test_a_concept_map_of_r4_and_r5_is_read() -> None:
    made = compile_concept_map("m", concept_map(R5, {**R4, "source": "http://snomed.info/sct"}))
    assert made.find("LN", "D") is not None
    found = made.find("SCT", "A")
    assert found is not None
    assert (found.scheme, found.value, found.meaning) == ("SCT", "11", "Eleven")
    assert made.find("SCT", "B") is None
    assert made.find("LN", "E") is None
    assert made.schemes == {"SCT", "RADLEX"}


def test_a_system_of_the_sites_own_is_named_by_its_table_of_schemes() -> None:
    own = {"HTTPS://SITE.EXAMPLE/PROC": "99SITE"}
    made = compile_concept_map("m", concept_map(R4), schemes=own)
    assert made.find("99SITE", "A") is not None
    with pytest.raises(MappingError, match="coding-schemes"):
        compile_concept_map("m", concept_map(R4))


@pytest.mark.parametrize("resource", [None, [], {"resourceType": "ValueSet"}, "text"])
def test_what_is_no_concept_map_is_a_problem(resource: Any) -> None:
    with pytest.raises(MappingError, match="no FHIR ConceptMap"):
        compile_concept_map("m", resource)


def test_a_broken_concept_map_names_the_place() -> None:
    broken = concept_map({"source": "http://loinc.org"}, "x", {**R5, "element": [7]}, {**R5, "element": {"code": "A"}})
    with pytest.raises(MappingError) as raised:
        compile_concept_map("m", broken)
    assert [problem.path for problem in raised.value.problems] == [
        "group[0]", "group[1]", "group[2].element[0]", "group[3].element",
    ]  # fmt: skip


def test_a_map_names_its_content() -> None:
    one, other = (compile_translation("m", rows(f"99A,1,SCT,{code_value}")) for code_value in "23")
    assert one.digest != other.digest
    assert Translation("m", {}).schemes == frozenset()
    assert code((("1",),), SETTING) is not None
