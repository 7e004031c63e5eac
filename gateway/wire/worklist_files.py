"""Worklist items from and to files of other systems: `.wl` datasets as DCMTK and Orthanc serve them, and DICOM JSON.

A site moves over by importing what it has, so everything is kept as it is: each attribute with the thing it describes,
private and unknown ones with the requested procedure or, inside the sequence, with the step. Nothing is made up:
keys that are lacking stay lacking and are named.
"""

import base64
import json
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import NAMESPACE_OID, uuid5

from gateway.domain.attributes import ATTRIBUTES, BY_TAG, SPS_SEQUENCE, TAG, Attributes, Element, Level, at_level, text
from gateway.domain.identifiers import Identifier, Issuers
from gateway.domain.order import OrderControl, OrderEvent, ProcedureInput, StepInput
from gateway.domain.patient import PatientInput, VisitInput
from gateway.domain.refusal import Refusal, RefusalKind, Refused
from gateway.domain.worklist import SPSStatus, WorklistItem, missing_for_listing
from gateway.wire.charsets import UNICODE
from gateway.wire.dicom_json import (
    CHARACTER_SET,
    DEPTH_MAX,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    VRS,
    dictionary_vr,
    element_bytes,
    read_attributes,
    write_attributes,
)

# A worklist item of DICOM JSON is about 3 KB; this is a list of some 20,000, more than a department plans ahead.
FILE_BYTES_MAX = 64 * 1024 * 1024

_PREAMBLE_BYTES = 128
_TRANSFER_SYNTAX_UID = (0x0002, 0x0010)
_MODALITY_WORKLIST_FIND = "1.2.840.10008.5.1.4.31"
_TAG = re.compile(r"[0-9A-Fa-f]{8}")
_DS_CHARACTERS_MAX = 16
_TYPE_1 = tuple(
    attribute.keyword
    for attribute in ATTRIBUTES
    if attribute.return_type == "1" and attribute.level in (Level.PATIENT, Level.VISIT, Level.ORDER, Level.PROCEDURE)
)


@dataclass(frozen=True, slots=True)
class ImportedItem:
    """One worklist item of a file, as an order event.

    `missing` are keywords of type 1 keys (PS3.4 Table K.6-1) that it lacks; `notes` tell what does not fit. Neither
    holds values.
    """

    name: str
    event: OrderEvent = field(repr=False)
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def read_worklist_file(data: bytes, name: str, issuers: Issuers | None = None) -> tuple[ImportedItem, ...]:
    """The items of one file: a DICOM file or bare dataset of either little endian syntax, or DICOM JSON.

    DICOM JSON is one object or an array of them, by tag (PS3.18 annex F). `issuers` names the authorities.
    Raises Refused (UNREADABLE, BAD_VALUE, TOO_LONG) with the place in the file.
    """
    if len(data) > FILE_BYTES_MAX:
        raise Refused(Refusal(
            RefusalKind.TOO_LONG, name, f"the file has more than {FILE_BYTES_MAX // 1024 // 1024} MiB", "divide it"
        ))  # fmt: skip
    registry = issuers or Issuers()
    stripped = data.removeprefix(b"\xef\xbb\xbf").lstrip()
    if stripped[:1] in (b"{", b"["):
        found = _json_items(stripped, name)
        return tuple(
            _imported(attributes, f"{name}[{number}]" if len(found) > 1 else name, notes, registry)
            for number, (attributes, notes) in enumerate(found)
        )
    start, transfer_syntax = _file_meta(data, name)
    try:
        attributes, said = read_attributes(data[start:], transfer_syntax)
    except Refused as refused:
        raise Refused(*(_in_file(refusal, name) for refusal in refused.refusals)) from None
    if not attributes:
        raise Refused(Refusal(RefusalKind.UNREADABLE, name, "the file holds no dataset", "check that it is complete"))
    return (_imported(attributes, name, said, registry),)


def _in_file(refusal: Refusal, name: str) -> Refusal:
    return Refusal(refusal.kind, f"{name}:{refusal.where}" if refusal.where else name, refusal.text, refusal.hint)


def _file_meta(data: bytes, name: str) -> tuple[int, str]:
    """Where the dataset starts and its transfer syntax (PS3.10 7.1); group 0002 is always explicit little endian."""
    position = 0
    if data[_PREAMBLE_BYTES : _PREAMBLE_BYTES + 4] == b"DICM":
        position = _PREAMBLE_BYTES + 4
    transfer_syntax = ""
    while data[position : position + 2] == b"\x02\x00":
        if len(data) - position < 12:
            raise Refused(
                Refusal(RefusalKind.UNREADABLE, name, "the file ends in its header", "check that it is whole")
            )
        tag = struct.unpack_from("<HH", data, position)
        long_form = data[position + 4 : position + 6] in (b"OB", b"UN", b"UT")
        length: int = struct.unpack_from("<I" if long_form else "<H", data, position + (8 if long_form else 6))[0]
        value_start = position + (12 if long_form else 8)
        if tag == _TRANSFER_SYNTAX_UID:
            transfer_syntax = data[value_start : value_start + length].decode("latin-1").strip("\0 ")
        position = value_start + length
    if transfer_syntax in ("", IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN):
        # A bare dataset does not say; the reader looks at the first element.
        return position, transfer_syntax or IMPLICIT_VR_LITTLE_ENDIAN
    raise Refused(Refusal(
        RefusalKind.UNREADABLE, name, "the transfer syntax is neither implicit nor explicit VR little endian",
        "convert the file with `dcmconv +te`",
    ))  # fmt: skip


def _json_items(data: bytes, name: str) -> list[tuple[Attributes, tuple[str, ...]]]:
    """The objects of a DICOM JSON file, each checked and brought into the form that datasets are read into."""
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        raise Refused(
            Refusal(RefusalKind.UNREADABLE, name, "the file is no JSON", "check that it is complete and in UTF-8")
        ) from None
    items: list[tuple[Attributes, tuple[str, ...]]] = []
    for number, each in enumerate(found if isinstance(found, list) else [found]):
        place = f"{name}[{number}]" if isinstance(found, list) else name
        notes: list[str] = []
        checked = _json_attributes(each, f"{place}:", notes, 0)
        try:
            attributes, said = read_attributes(
                write_attributes(checked, EXPLICIT_VR_LITTLE_ENDIAN, UNICODE), EXPLICIT_VR_LITTLE_ENDIAN
            )
        except (ValueError, TypeError, OverflowError, struct.error):
            raise _bad_json(place, "a value does not fit its VR") from None
        if not attributes:
            raise _bad_json(place, "the object holds no attributes")
        items.append((attributes, (*notes, *said)))
    return items


def _json_attributes(found: Any, place: str, notes: list[str], depth: int) -> Attributes:
    if depth > DEPTH_MAX:
        raise _bad_json(place, f"sequences nest deeper than {DEPTH_MAX}")
    if not isinstance(found, dict):
        raise _bad_json(place, "there is no object where a dataset must be")
    attributes: Attributes = {}
    for tag, held in found.items():
        here = f"{place}{tag[:40]}"
        if not _TAG.fullmatch(tag) or not isinstance(held, dict):
            raise _bad_json(here, "not an attribute by its tag, as in DICOM JSON")
        if tag[:4] == "0002" or tag[4:] == "0000" or tag == CHARACTER_SET:
            continue
        attributes[tag.upper()] = _json_element(tag.upper(), held, here, notes, depth)
    return attributes


def _json_element(tag: str, held: Mapping[str, Any], place: str, notes: list[str], depth: int) -> Element:
    vr = held.get("vr") or dictionary_vr(tag) or "UN"
    if not isinstance(vr, str) or vr not in VRS:
        raise _bad_json(place, "no such value representation")
    if "BulkDataURI" in held:
        notes.append(f"({tag[:4]},{tag[4:]}) refers to bulk data elsewhere: imported without a value")
        return {"vr": vr}
    if "InlineBinary" in held:
        inline = held["InlineBinary"]
        try:
            data = base64.b64decode(inline[0] if isinstance(inline, list) else inline, validate=True)
        except (ValueError, TypeError, IndexError):
            raise _bad_json(place, "`InlineBinary` is no base64") from None
        return {"vr": vr, "InlineBinary": base64.b64encode(data).decode()}
    values = held.get("Value")
    if values is None:
        return {"vr": vr}
    if not isinstance(values, list):
        raise _bad_json(place, "`Value` is no array")
    if vr == "SQ":
        items = [
            _json_attributes(item or {}, f"{place}[{number}]/", notes, depth + 1) for number, item in enumerate(values)
        ]
        return {"vr": "SQ", "Value": items}
    kinds = (str, dict) if vr == "PN" else (str, int, float)
    if not all(value is None or isinstance(value, kinds) for value in values):
        raise _bad_json(place, "a value is of the wrong kind for its VR")
    if vr == "DS":
        values = [_decimal_string(value) if isinstance(value, float) else value for value in values]
    return {"vr": vr, "Value": values}


def _decimal_string(value: float) -> str:
    """A DS of at most 16 characters; whole numbers without a point."""
    exact = f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return exact if len(exact) <= _DS_CHARACTERS_MAX else f"{value:.9g}"


def _bad_json(place: str, what: str) -> Refused:
    return Refused(Refusal(RefusalKind.BAD_VALUE, place, what, "send the DICOM JSON Model of PS3.18 annex F"))


def _imported(attributes: Attributes, name: str, said: tuple[str, ...], issuers: Issuers) -> ImportedItem:
    """The attributes parted by what they describe, and the identifiers with their authorities."""
    notes = list(said)
    steps = [dict(item or {}) for item in attributes.get(SPS_SEQUENCE, {}).get("Value") or ()]
    if not steps:
        notes.append("no scheduled procedure step: the item is not a worklist item")
    elif len(steps) > 1:
        notes.append(f"{len(steps)} scheduled procedure steps: each becomes an item of its own")
    for step in steps:
        status = text(step, "ScheduledProcedureStepStatus")
        step.pop(TAG["ScheduledProcedureStepStatus"], None)
        if status not in ("", SPSStatus.SCHEDULED):
            notes.append("the step's status is not taken over: it is imported as SCHEDULED")
    patient = at_level(attributes, (Level.PATIENT,))
    visit = at_level(attributes, (Level.VISIT,))
    order = at_level(attributes, (Level.ORDER,))
    elsewhere = {SPS_SEQUENCE, *patient, *visit, *order}
    procedure = {tag: held for tag, held in attributes.items() if tag not in elsewhere}
    misplaced = [tag for tag in procedure if tag in BY_TAG and BY_TAG[tag].level is Level.STEP]
    if misplaced:
        notes.append("attributes of the step lie outside its sequence: kept there, where no device looks for them")
    placer = _identifier(attributes, "PlacerOrderNumberImagingServiceRequest", "OrderPlacerIdentifierSequence", issuers)
    filler = _identifier(attributes, "FillerOrderNumberImagingServiceRequest", "OrderFillerIdentifierSequence", issuers)
    accession = _identifier(attributes, "AccessionNumber", "IssuerOfAccessionNumberSequence", issuers)
    admission = _identifier(attributes, "AdmissionID", "IssuerOfAdmissionIDSequence", issuers)
    patient_id = _identifier(
        attributes, "PatientID", "IssuerOfPatientIDQualifiersSequence", issuers, text(attributes, "IssuerOfPatientID")
    )
    uid, rp_id = text(attributes, "StudyInstanceUID"), text(attributes, "RequestedProcedureID")
    if not (uid or placer or filler or accession):
        notes.append("neither Study Instance UID nor accession nor order number: a second import makes a second item")
    missing = [keyword for keyword in _TYPE_1 if not text(attributes, keyword)]
    for step in steps or [{}]:
        missing += missing_for_listing(step)
    event = OrderEvent(
        control=OrderControl.NW,
        order_status="SC",
        placer=placer,
        filler=filler,
        patient=PatientInput((patient_id,) if patient_id else (), patient),
        visit=VisitInput(admission, visit) if visit else None,
        attributes=order,
        procedures=(
            ProcedureInput(
                study_instance_uid=uid,
                requested_procedure_id=rp_id,
                accession=accession,
                attributes=procedure,
                steps=tuple(StepInput(text(step, "ScheduledProcedureStepID"), step) for step in steps),
                where=name,
            ),
        ),
        where=name,
        complete=False,
    )
    return ImportedItem(name, event, tuple(dict.fromkeys(missing)), tuple(dict.fromkeys(notes)))


def _identifier(
    attributes: Attributes, keyword: str, issuer_keyword: str, issuers: Issuers, namespace: str = ""
) -> Identifier | None:
    """An identifier and its authority, from the issuer's sequence (HD macro, PS3.3 10.14) and what else names it."""
    value = text(attributes, keyword)
    if not value:
        return None
    items: Sequence[Attributes | None] = attributes.get(TAG[issuer_keyword], {}).get("Value") or ({},)
    issuer = items[0] or {}
    said = namespace or text(issuer, "LocalNamespaceEntityID")
    return Identifier(value, issuers.resolve(said, text(issuer, "UniversalEntityID")))


def write_worklist_file(item: WorklistItem) -> bytes:
    """The item as a `.wl` file that DCMTK and Orthanc serve: PS3.10, explicit VR little endian, in Unicode."""
    dataset = write_attributes(item.attributes, EXPLICIT_VR_LITTLE_ENDIAN, UNICODE)
    return b"\0" * _PREAMBLE_BYTES + b"DICM" + _file_meta_of(item) + dataset


def _file_meta_of(item: WorklistItem) -> bytes:
    """Group 0002 (PS3.10 7.1): a worklist item is no instance, so its class is that of the query, as DCMTK has it."""
    from gateway.wire.upper_layer import IMPLEMENTATION_CLASS_UID  # with a network library, which reading needs not

    instance = f"2.25.{uuid5(NAMESPACE_OID, f'worklist item {item.step_id}.{item.revision}').int}"
    elements = b"".join(
        element_bytes(f"0002{number}", vr, value + b"\0" * (len(value) % 2), explicit=True)
        for number, vr, value in (
            ("0001", "OB", b"\0\1"),
            ("0002", "UI", _MODALITY_WORKLIST_FIND.encode()),
            ("0003", "UI", instance.encode()),
            ("0010", "UI", EXPLICIT_VR_LITTLE_ENDIAN.encode()),
            ("0012", "UI", IMPLEMENTATION_CLASS_UID.encode()),
        )
    )
    return element_bytes("00020000", "UL", struct.pack("<I", len(elements)), explicit=True) + elements
