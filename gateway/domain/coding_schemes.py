"""Coding schemes under all their names: DICOM designators, OIDs, HL7 table 0396 names, FHIR systems, senders' habits.

PS3.16 chapter 8 says which designator is meant. A site adds names of its own in mappings/codes/coding-schemes.csv.
"""

from collections.abc import Mapping
from typing import NamedTuple


class CodingScheme(NamedTuple):
    """A row of the table: what DICOM calls a scheme, and what everybody else does."""

    designator: str
    oid: str = ""
    names: tuple[str, ...] = ()
    systems: tuple[str, ...] = ()
    """FHIR system URIs; the first is the one to write."""


CODING_SCHEMES: tuple[CodingScheme, ...] = (
    CodingScheme("SCT", "2.16.840.1.113883.6.96", ("SNOMED-CT", "SNOMED CT", "SNOMEDCT", "SNOMED", "SCT2"),
                 ("http://snomed.info/sct",)),
    CodingScheme("SRT"),  # shares the OID of SCT, whose codes differ: only its name tells it apart
    CodingScheme("SNM3", "2.16.840.1.113883.6.51"),
    CodingScheme("99SDM", "2.16.840.1.113883.6.53", ("SDM",)),
    CodingScheme("DCM", "1.2.840.10008.2.16.4", ("DICOM",), ("http://dicom.nema.org/resources/ontology/DCM",)),
    CodingScheme("DCMUID", "1.2.840.10008.2.6.1", (), ("http://dicom.nema.org/resources/ontology/DCMUID",)),
    CodingScheme("LN", "2.16.840.1.113883.6.1", ("LOINC",), ("http://loinc.org",)),
    CodingScheme("RADLEX", "2.16.840.1.113883.6.256", ("99RADLEX", "RPID"), ("http://radlex.org",
                 "http://www.radlex.org")),
    CodingScheme("RADELEMENT", "1.2.840.10008.2.16.15", (), ("http://radelement.org",)),
    CodingScheme("I10", "2.16.840.1.113883.6.3", ("ICD10", "ICD-10"), ("http://hl7.org/fhir/sid/icd-10",)),
    CodingScheme("I10P", "2.16.840.1.113883.6.4", ("ICD10PCS", "ICD-10-PCS"),
                 ("http://www.cms.gov/Medicare/Coding/ICD10",)),
    CodingScheme("I10C", "2.16.840.1.113883.6.90", ("ICD10CM", "I10CM", "ICD-10-CM"),
                 ("http://hl7.org/fhir/sid/icd-10-cm",)),
    CodingScheme("I11", "", ("ICD11", "ICD-11"), ("http://id.who.int/icd/release/11/mms",)),
    CodingScheme("I9", "2.16.840.1.113883.6.42", ("ICD9", "ICD-9"),
                 ("http://terminology.hl7.org/CodeSystem/icd9",)),
    CodingScheme("I9C", "2.16.840.1.113883.6.2", ("I9CDX", "I9CP", "ICD9CM", "ICD-9-CM",
                 "2.16.840.1.113883.6.103"), ("http://terminology.hl7.org/CodeSystem/icd9cm",
                 "http://hl7.org/fhir/sid/icd-9-cm")),
    CodingScheme("C4", "2.16.840.1.113883.6.12", ("CPT", "CPT4", "CPT-4"), ("http://www.ama-assn.org/go/cpt",)),
    CodingScheme("C5", "2.16.840.1.113883.6.82", ("CPT5", "CPT-5")),
    CodingScheme("HPC", "2.16.840.1.113883.6.14", ("HCPCS", "2.16.840.1.113883.6.285"),
                 ("http://www.cms.gov/Medicare/Coding/HCPCSReleaseCodeSets",)),
    CodingScheme("ACR", "2.16.840.1.113883.6.76", (), ("http://terminology.hl7.org/CodeSystem/ACR",)),
    CodingScheme("BI", "", ("BIRADS", "BI-RADS")),
    CodingScheme("NICIP", "2.16.840.1.113883.2.1.3.2.4.21"),
    CodingScheme("UCUM", "2.16.840.1.113883.6.8", (), ("http://unitsofmeasure.org",)),
    CodingScheme("RXNORM", "2.16.840.1.113883.6.88", (), ("http://www.nlm.nih.gov/research/umls/rxnorm",)),
    CodingScheme("UMLS", "2.16.840.1.113883.6.86", ("UML",), ("http://terminology.hl7.org/CodeSystem/umls",)),
    CodingScheme("FMA", "2.16.840.1.113883.6.119"),
    CodingScheme("MDC", "2.16.840.1.113883.6.24", (), ("urn:iso:std:iso:11073:10101",)),
    CodingScheme("NDC", "2.16.840.1.113883.6.69", (), ("http://hl7.org/fhir/sid/ndc",)),
    CodingScheme("ISO639_1", "2.16.840.1.113883.6.99", ("ISO639",), ("urn:iso:std:iso:639:-1",)),
    CodingScheme("ISO639_2", "2.16.840.1.113883.6.100", (), ("urn:iso:std:iso:639:-2",)),
    CodingScheme("ISO3166_1", "", ("ISO3166",), ("urn:iso:std:iso:3166",)),
    CodingScheme("RFC5646", "2.16.840.1.113883.6.316", ("BCP47",), ("urn:ietf:bcp:47",)),
    CodingScheme("L", "", ("LB",)),
)  # fmt: skip
"""PS3.16 table 8-1 as far as orders use it, and the names that senders use for the same."""

SCHEMES: Mapping[str, str] = {
    name.upper(): row.designator
    for row in CODING_SCHEMES
    for name in (row.designator, row.oid, *row.names, *row.systems, row.oid and f"urn:oid:{row.oid}")
    if name
}
"""Any name of a scheme, in upper case -> its designator."""

LOCAL = frozenset({"", "L"})
"""Designators that name no scheme in particular: none at all, and HL7's word for any local one (table 0396)."""

LEGACY_SNOMED = frozenset({"SRT", "SNM3", "99SDM"})
"""SNOMED's names before SNOMED CT; they share their codes, which have to be mapped to SCT (PS3.16 8.1)."""

_HL7_TABLES = "HTTP://TERMINOLOGY.HL7.ORG/CODESYSTEM/V2-"


def known_designator(scheme: str, own: Mapping[str, str]) -> str:
    """The designator of a scheme by any of its names, a site's own names first; '' for a name that nobody knows."""
    folded = scheme.upper()
    known = own.get(folded) or SCHEMES.get(folded, "")
    if not known and folded.startswith(_HL7_TABLES):
        return f"HL7{folded.removeprefix(_HL7_TABLES)}"
    return known
