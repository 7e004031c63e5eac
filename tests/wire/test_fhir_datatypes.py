"""Every row of the table of FHIR's data types, as the HL7 v2 data types that converters read."""

from decimal import Decimal

import pytest

from gateway.domain.converters import CONVERTERS, Setting, cx
from gateway.domain.identifiers import Issuer, Issuers
from gateway.wire.fhir_datatypes import DATATYPES, is_readable, repetition
from gateway.wire.fhir_release import Release
from gateway.wire.fhir_types import type_names

ISSUERS = Issuers(
    [
        Issuer("HOSPITAL", frozenset({"HOSP"}), frozenset({"1.2.3"}), frozenset({"http://hospital.example/mrn"})),
        Issuer("CLINIC", systems=frozenset({"urn:oid:9.8.7"})),
    ]
)


def text(value, datatype):
    """The repetition as HL7 v2 writes it."""
    return "^".join("&".join(parts) for parts in repetition(value, datatype, ISSUERS))


SCT, LOINC = "http://snomed.info/sct", "http://loinc.org"
ROWS = [
    *((kind, "a text", "a text") for kind in ("string", "code", "id", "markdown")),
    *((kind, "urn:oid:1.2", "urn:oid:1.2") for kind in ("uri", "url", "canonical", "oid")),
    ("uuid", "urn:uuid:c757873d-ec9a-4326-a141-556f43239520", "urn:uuid:c757873d-ec9a-4326-a141-556f43239520"),
    ("boolean", True, "true"),
    ("boolean", False, "false"),
    *((kind, 12, "12") for kind in ("integer", "positiveInt", "unsignedInt")),
    ("integer64", "12", "12"),
    ("decimal", Decimal("1.50"), "1.50"),
    ("decimal", Decimal("1E+3"), "1000"),
    ("decimal", 7, "7"),
    ("date", "1980", "1980"),
    ("date", "1980-02", "198002"),
    ("date", "1980-02-03", "19800203"),
    ("dateTime", "2026-11-23T08:05:00+01:00", "20261123080500+0100"),
    ("dateTime", "2026-11-23T08:05Z", "202611230805+0000"),
    ("instant", "2026-11-23T08:05:01.123456Z", "20261123080501.1234+0000"),
    ("dateTime", "tomorrow", "tomorrow"),
    ("time", "08:05:01.5", "080501.5"),
    ("time", "noon", "noon"),
    ("Period", {"start": "2026-11-23", "end": "2026-11-24T10:00:00Z"}, "20261123^20261124100000+0000"),
    ("Period", {"end": "2026-11-24"}, "^20261124"),
    ("HumanName", {"use": "official", "family": "Muster", "given": ["Anna", "Eva", "Mia"], "prefix": ["Dr."],
                   "suffix": ["jun.", "MSc"]}, "Muster^Anna^Eva Mia^jun. MSc^Dr.^^L"),
    ("HumanName", {"use": "maiden", "family": "Ledig"}, "Ledig^^^^^^M"),
    ("HumanName", {"text": "Anna Muster"}, "Anna Muster"),
    ("HumanName", {"family": "山田", "extension": [
        {"url": "http://hl7.org/fhir/StructureDefinition/iso21090-EN-representation", "valueCode": "IDE"}]},
     "山田^^^^^^^I"),
    ("Identifier", {"value": "100"}, "100"),
    ("Identifier", {"value": "100", "system": "http://hospital.example/mrn"}, "100^^^HOSPITAL"),
    ("Identifier", {"value": "100", "system": "urn:oid:1.2.3"}, "100^^^HOSPITAL&1.2.3&ISO"),
    ("Identifier", {"value": "100", "system": "urn:oid:9.8.7"}, "100^^^CLINIC&9.8.7&ISO"),
    ("Identifier", {"value": "100", "system": "urn:oid:4.5.6", "assigner": {"display": "LAB"}}, "100^^^LAB&4.5.6&ISO"),
    ("Identifier", {"value": "100", "system": "http://other.example"}, "100^^^&http://other.example&URI"),
    ("Identifier", {"value": "100", "type": {"coding": [{"system": "own", "code": "X"},
        {"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "MR"}]}}, "100^^^^MR"),
    ("Identifier", {"system": "http://hospital.example/mrn"}, ""),
    ("Coding", {"code": "1", "display": "One", "system": SCT, "version": "v"}, f"1^One^{SCT}^^^^v"),
    ("CodeableConcept", {"coding": [{"code": "1", "system": SCT}, {"code": "2", "display": "Two", "system": LOINC,
        "version": "3"}], "text": "spoken"}, f"1^spoken^{SCT}^2^Two^{LOINC}^^3^spoken"),
    ("CodeableConcept", {"coding": [{"code": "1"}, {"code": "2", "userSelected": True}]}, "2^^^1"),
    ("CodeableConcept", {"text": "spoken"}, "^spoken^^^^^^^spoken"),
    ("CodeableReference", {"concept": {"coding": [{"code": "1"}]}}, "1"),
    ("CodeableReference", {"reference": {"display": "Dr. Weber"}}, "^Dr. Weber"),
    ("Address", {"line": ["Weg 1", "Hof"], "city": "Ulm", "state": "BW", "postalCode": "89073", "country": "DE"},
     "Weg 1^Hof^Ulm^BW^89073^DE"),
    ("Address", {"text": "Weg 1, Ulm"}, "Weg 1, Ulm"),
    ("ContactPoint", {"system": "phone", "value": "0731 1", "use": "home"}, "0731 1^PRN^PH"),
    ("ContactPoint", {"system": "phone", "value": "0151 1", "use": "mobile"}, "0151 1^PRN^CP"),
    ("ContactPoint", {"system": "email", "value": "a@example.org"}, "^NET^Internet^a@example.org"),
    ("ContactPoint", {"system": "phone"}, ""),
    *((kind, {"value": Decimal("70.5"), "unit": "kg"}, "70.5^kg") for kind in
      ("Quantity", "Age", "Count", "Distance", "Duration")),
    ("Quantity", {"value": 70, "code": "kg"}, "70^kg"),
    ("Quantity", {"unit": "kg"}, ""),
    ("Annotation", {"text": "a note", "authorString": "who"}, "a note"),
    ("Reference", {"reference": "Practitioner/1", "display": "Dr. Weber"}, "^Dr. Weber"),
    ("Reference", {"identifier": {"value": "7", "system": "http://hospital.example/mrn"}, "display": "Dr. Weber"},
     "7^Dr. Weber^^^^^^^HOSPITAL"),
    ("Practitioner", {"identifier": [{"value": "7", "system": "urn:oid:1.2.3"}], "name": [
        {"family": "Old", "use": "old"}, {"family": "Weber", "given": ["Ida", "Eva"], "prefix": ["Dr."]}]},
     "7^Weber^Ida^Eva^^Dr.^^^HOSPITAL&1.2.3&ISO"),
    ("RelatedPerson", {"name": [{"text": "A"}, {"family": "Usual", "use": "usual"}]}, "^Usual"),
    ("PractitionerRole", {"practitioner": {"display": "Dr. Weber"}, "identifier": [{"value": "8"}]}, "8^Dr. Weber"),
    ("Organization", {"name": "Ward 3"}, "Ward 3"),
    ("Organization", {"name": "Ward 3", "identifier": [{"value": "W3", "system": "http://hospital.example/mrn"}]},
     "Ward 3^^^^^HOSPITAL^^^^W3"),
    ("Location", {"name": "Room 1", "description": "beside the lift"}, "Room 1"),
    ("Location", {"description": "beside the lift"}, "beside the lift"),
]  # fmt: skip


@pytest.mark.parametrize(("datatype", "value", "expected"), ROWS)
def test_a_value_is_read_as_the_type_that_corresponds(datatype, value, expected):
    assert text(value, datatype) == expected


def test_every_row_of_the_table_is_tried_above_and_is_a_type_of_fhir():
    assert {datatype for datatype, _, _ in ROWS} == DATATYPES.keys()
    assert DATATYPES.keys() <= type_names(Release.R4) | type_names(Release.R5)


@pytest.mark.parametrize("datatype", ["Timing", "Extension", "BackboneElement", "Patient", "xhtml", "base64Binary", ""])
def test_what_has_no_row_says_nothing(datatype):
    assert not is_readable(datatype)
    assert repetition({"value": "x"}, datatype, ISSUERS) == ()


@pytest.mark.parametrize("datatype", sorted(DATATYPES))
@pytest.mark.parametrize("value", ["", {}, [], {"value": None, "coding": [None], "name": "x"}, {"identifier": [[]]}])
def test_a_value_of_another_shape_never_fails(datatype, value):
    assert isinstance(repetition(value, datatype, ISSUERS), tuple)


def test_two_quotes_are_a_text_in_fhir_and_delete_nothing():
    assert repetition('""', "string", ISSUERS) == ()


def test_converters_read_what_is_made():
    name = {"family": "Muster", "given": ["Anna"], "prefix": ["Dr."], "use": "official"}
    made = CONVERTERS["xpn"].function([repetition(name, "HumanName", ISSUERS)], Setting(vr="PN"))
    assert made == [{"Alphabetic": "Muster^Anna^^Dr."}]
    names = [{"family": "Muster", "use": "old"}, {"family": "Neu", "use": "usual"}]
    made = CONVERTERS["xpn"].function([repetition(each, "HumanName", ISSUERS) for each in names], Setting(vr="PN"))
    assert made == [{"Alphabetic": "Neu"}]
    number = cx(repetition({"value": "100", "system": "urn:oid:1.2.3"}, "Identifier", ISSUERS))
    assert (number.value, number.namespace, number.universal_id, number.universal_id_type) == (
        "100", "HOSPITAL", "1.2.3", "ISO",
    )  # fmt: skip
    concept = {"coding": [{"code": "77477000", "display": "CT", "system": SCT}]}
    item = CONVERTERS["code"].function(repetition(concept, "CodeableConcept", ISSUERS), Setting(vr="SQ"))
    assert item["00080102"]["Value"] == ["SCT"]
    uid = repetition("urn:oid:1.2.840.1", "uri", ISSUERS)
    assert CONVERTERS["uid"].function(uid, Setting(vr="UI")) == "1.2.840.1"
