"""The attributes that an identifier with its assigning authority fills (PS3.3 10.14, 10.15)."""

from gateway.domain.attributes import LENGTH_MAX, TAG, Attributes, code_item, element, issuer_item
from gateway.domain.converters import Assigned, Setting, part


def put_issuer(attributes: Attributes, keyword: str, assigned: Assigned) -> None:
    """An issuer sequence of what was sent; nothing where no authority was (an empty one says nothing)."""
    item = issuer_item(assigned.namespace, assigned.universal_id, _universal_id_type(assigned))
    if item:
        attributes[TAG[keyword]] = element(keyword, item)


def _universal_id_type(assigned: Assigned) -> str:
    if assigned.universal_id_type or not assigned.universal_id:
        return assigned.universal_id_type.upper()
    return "ISO" if assigned.universal_id.replace(".", "").isdigit() else ""


def patient_id_item(assigned: Assigned, setting: Setting) -> Attributes:
    """PatientID with its issuer attributes (PS3.3 table 10-18): of the patient, or an item of other patient IDs."""
    item: Attributes = {
        TAG["PatientID"]: element("PatientID", assigned.value),
        TAG["TypeOfPatientID"]: element("TypeOfPatientID", "TEXT"),
    }
    if assigned.namespace:
        item[TAG["IssuerOfPatientID"]] = element("IssuerOfPatientID", assigned.namespace[: LENGTH_MAX["LO"]])
    qualifiers = issuer_item("", assigned.universal_id, _universal_id_type(assigned))
    if assigned.type_code.isascii() and assigned.type_code.isalnum() and len(assigned.type_code) <= LENGTH_MAX["CS"]:
        qualifiers[TAG["IdentifierTypeCode"]] = element("IdentifierTypeCode", assigned.type_code.upper())
    facility = issuer_item(*assigned.facility)
    if facility:
        qualifiers[TAG["AssigningFacilitySequence"]] = element("AssigningFacilitySequence", facility)
    for keyword, coded in (
        ("AssigningJurisdictionCodeSequence", assigned.jurisdiction),
        ("AssigningAgencyOrDepartmentCodeSequence", assigned.agency),
    ):
        if coded and part(coded, 1):
            scheme = part(coded, 3) or setting.scheme
            qualifiers[TAG[keyword]] = element(keyword, code_item(part(coded, 1), scheme[:16], part(coded, 2)))
    if qualifiers:
        keyword = "IssuerOfPatientIDQualifiersSequence"
        item[TAG[keyword]] = element(keyword, qualifiers)
    return item
