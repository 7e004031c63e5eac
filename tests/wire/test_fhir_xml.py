"""FHIR as XML holds what JSON holds, both ways; what is dangerous or has no form in JSON is refused."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import pytest
from fhir.resources.R4B.bundle import Bundle
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from gateway.domain.refusal import Refusal, RefusalKind, Refused
from gateway.wire import fhir_xml
from gateway.wire.fhir_bounds import Bounds
from gateway.wire.fhir_models import problems
from gateway.wire.fhir_release import Release
from tests.wire.fhir_samples import SAMPLES

R4 = Release.R4
_K = RefusalKind


def document(inside: str, of_type: str = "Patient") -> bytes:
    return f'<{of_type} xmlns="http://hl7.org/fhir">{inside}</{of_type}>'.encode()


def refusals_of(data: bytes, bounds: Bounds | None = None) -> list[Refusal]:
    with pytest.raises(Refused) as caught:
        fhir_xml.parse(data, R4, bounds or Bounds())
    return list(caught.value.refusals)


@pytest.mark.parametrize("release", Release)
def test_every_resource_survives_both_ways(release: Release) -> None:
    for sample in SAMPLES[release].values():
        assert fhir_xml.parse(fhir_xml.write(sample, release), release) == sample


def test_elements_are_written_in_the_order_of_the_specification() -> None:
    order = {"subject": {"display": "x", "reference": "Patient/1"}, "intent": "order", "status": "active", "id": "1"}
    root = etree.fromstring(fhir_xml.write({"resourceType": "ServiceRequest", **order}, R4))
    assert [etree.QName(each).localname for each in root] == ["id", "status", "intent", "subject"]
    assert [etree.QName(each).localname for each in root[3]] == ["reference", "display"]


def test_another_reader_of_fhir_xml_reads_what_is_written() -> None:
    bundle = {**SAMPLES[R4]["Bundle"], "entry": [{"resource": {"resourceType": "Patient", "gender": "female"}}]}
    read = Bundle.model_validate_xml(fhir_xml.write(bundle, R4))
    assert read.entry[0].resource.gender == "female"


@pytest.mark.parametrize(
    ("inside", "read"),
    [
        ('<active value="true"/>', {"active": True}),
        ('<multipleBirthInteger value="2"/>', {"multipleBirthInteger": 2}),
        ('<name><given value="a"/><given value="b"/></name>', {"name": [{"given": ["a", "b"]}]}),
        ('<name id="n"><text value="a&amp;b&#10;c"/></name>', {"name": [{"id": "n", "text": "a&b\nc"}]}),
        ('<birthDate id="b" value="2020"/>', {"birthDate": "2020", "_birthDate": {"id": "b"}}),
        ('<gender><extension url="u"><valueCode value="x"/></extension></gender>',
         {"_gender": {"extension": [{"url": "u", "valueCode": "x"}]}}),
        ("<!-- a remark --><?do something?><active value='false'/>", {"active": False}),
        ('<contained><Device><id value="d"/></Device></contained>',
         {"contained": [{"resourceType": "Device", "id": "d"}]}),
    ],
)  # fmt: skip
def test_values_are_read_as_json_has_them(inside: str, read: Mapping[str, Any]) -> None:
    assert fhir_xml.parse(document(inside), R4) == {"resourceType": "Patient", **read}


def test_a_default_namespace_and_a_prefix_are_the_same() -> None:
    data = b'<f:Patient xmlns:f="http://hl7.org/fhir"><f:gender value="male"/></f:Patient>'
    assert fhir_xml.parse(data, R4) == {"resourceType": "Patient", "gender": "male"}


def test_the_narrative_is_kept_as_it_is() -> None:
    div = '<div xmlns="http://www.w3.org/1999/xhtml">a<br/> <b id="x">b</b></div>'
    read = fhir_xml.parse(document(f'<text><status value="generated"/>{div}</text>'), R4)
    assert read["text"] == {"status": "generated", "div": div}


def test_a_narrative_that_is_no_xhtml_is_written_as_the_text_it_is() -> None:
    for div in ("a < b", "<div>no namespace</div>", "<!DOCTYPE x><div/>"):
        patient = {"resourceType": "Patient", "text": {"status": "generated", "div": div}}
        root = etree.fromstring(fhir_xml.write(patient, R4))
        assert root[0][1].text == div


@pytest.mark.parametrize(
    ("data", "kind", "where"),
    [
        (b"", _K.UNREADABLE, ""),
        (b"<Patient", _K.UNREADABLE, ""),
        (document("&x;"), _K.UNREADABLE, ""),
        (document("<gender></active>"), _K.UNREADABLE, ""),
        (b"<!DOCTYPE x [<!ENTITY a 'b'>]>" + document('<gender value="&a;"/>'), _K.UNREADABLE, ""),
        (document("").decode().encode("utf-16"), _K.UNREADABLE, ""),
        (document('<id value="\u00e9"/>').decode().encode("latin-1"), _K.UNREADABLE, ""),
        (b"<Patient/>", _K.UNSUPPORTED_TYPE, ""),
        (document("", "Pateint"), _K.UNSUPPORTED_TYPE, ""),
        (document("<foo/>"), _K.MALFORMED, "Patient.foo"),
        (document('<x xmlns="urn:other"/>'), _K.MALFORMED, "Patient"),
        (document('<name use="official"/>'), _K.MALFORMED, "Patient.name[0].use"),
        (document("<gender>male</gender>"), _K.MALFORMED, "Patient.gender"),
        (document("<name>Ada</name>"), _K.MALFORMED, "Patient.name[0]"),
        (document('<gender value="male"/><gender value="female"/>'), _K.MALFORMED, "Patient.gender"),
        (document("<contained/>"), _K.MALFORMED, "Patient.contained[0]"),
        (document("<contained><Foo/></contained>"), _K.BAD_VALUE, "Patient.contained[0]"),
    ],
)
def test_what_is_no_fhir_in_xml_is_refused_where_it_stands(data: bytes, kind: RefusalKind, where: str) -> None:
    (refusal,) = refusals_of(data)
    assert (refusal.kind, refusal.where) == (kind, where)
    assert refusal.hint
    assert "Ada" not in str(refusal)


def test_a_value_that_is_none_of_its_type_is_refused_by_the_check() -> None:
    read = fhir_xml.parse(document('<active value="yes"/><multipleBirthInteger value="1.5"/>'), R4)
    assert {each.where for each in problems(read, R4)[0]} == {"Patient.active", "Patient.multipleBirth"}


@pytest.mark.parametrize("written", ["1e9999", "9" * 100, "NaN", "1.", "0x1"])
def test_numbers_that_nobody_measures_stay_text(written: str) -> None:
    data = document(f'<valueQuantity><value value="{written}"/></valueQuantity>', "Observation")
    read = fhir_xml.parse(data, R4)
    assert read["valueQuantity"]["value"] == written
    assert "Observation.value.value" in [each.where for each in problems(read, R4)[0]]


def test_bounds_are_kept() -> None:
    deep = document("<extension>" * 50 + "</extension>" * 50)
    assert "too deep" in refusals_of(deep)[0].text
    assert refusals_of(b"<a>" * 5000)[0].kind is _K.UNREADABLE
    assert refusals_of(document(""), Bounds(bytes_max=10))[0].kind is _K.TOO_LONG
    assert refusals_of(document("<name/>" * 10), Bounds(values_max=5))[0].kind is _K.TOO_LONG
    entries = document("<entry/>" * 3, "Bundle")
    assert refusals_of(entries, Bounds(entries_max=2))[0].where == "Bundle.entry"
    assert len(refusals_of(document("<foo/>" * 1000))) == fhir_xml.PROBLEMS_MAX


def test_nothing_is_fetched_or_expanded() -> None:
    bomb = b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]>' + document('<id value="&b;"/>')
    outside = b'<!DOCTYPE x SYSTEM "file:///etc/hostname">' + document("")
    assert all(refusals_of(data)[0].kind is _K.UNREADABLE for data in (bomb, outside))


def test_a_type_that_the_release_has_not_is_not_written() -> None:
    with pytest.raises(ValueError, match="no such type"):
        fhir_xml.write({"resourceType": "SubscriptionStatus"}, R4)


TAGS = st.sampled_from(["name", "given", "gender", "extension", "contained", "Patient", "text", "div", "id", "value"])


@given(st.recursive(
    st.builds(lambda tag, said: f'<{tag} value="{said}"/>', TAGS, st.sampled_from(["x", "1", "true", ""])),
    lambda inner: st.builds(lambda tag, each: f"<{tag}>{''.join(each)}</{tag}>", TAGS, st.lists(inner, max_size=3)),
    max_leaves=10,
))  # fmt: skip
def test_any_xml_is_read_or_refused(inside: str) -> None:
    with suppress(Refused):
        problems(fhir_xml.parse(document(inside), R4), R4)


@given(st.binary(max_size=40))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    with pytest.raises(Refused):
        fhir_xml.parse(data, R4)


def test_an_element_with_more_attributes_than_any_has_is_refused_unread() -> None:
    many = " ".join(f'a{number}="1"' for number in range(17))
    (refusal,) = refusals_of(document(f'<name {many}><family value="Sample"/></name>'))
    assert (refusal.kind, refusal.where) == (_K.MALFORMED, "Patient.name[0]")
    assert "16 attributes" in refusal.text


def test_what_xml_has_no_way_to_write_is_shown_as_unknown() -> None:
    written = fhir_xml.write({"resourceType": "Patient", "id": "1", "language": "a\uffffb"}, R4)
    assert fhir_xml.parse(written, R4)["language"] == "a\ufffdb"
