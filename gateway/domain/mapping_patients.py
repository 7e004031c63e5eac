"""What an entry says of people: the patient, the visit, and which identifiers are whose."""

from collections.abc import Sequence

from gateway.domain.attributes import TAG, Level, element
from gateway.domain.converters import cx
from gateway.domain.identifiers import Identifier
from gateway.domain.mapping_identifiers import patient_id_item
from gateway.domain.mapping_reading import Reading
from gateway.domain.mapping_values import is_null
from gateway.domain.patient import (
    IdentifierChange,
    PatientInput,
    PatientLink,
    PatientMerge,
    VisitInput,
    VisitMove,
)
from gateway.domain.refusal import RefusalKind
from gateway.domain.source import Entry


def patient_of(reading: Reading, entry: Entry, complete: bool, required: bool = True) -> PatientInput:
    """The patient of an entry; not `complete` means identifiers only. Nobody is refused where one is `required`."""
    source = reading.identity["PatientID"]
    found = reading.identifiers(source, entry, cx, "PatientID")
    if not found:
        if not required:
            return PatientInput((), {})
        place = reading.place("PatientID", entry)
        nulled = any(is_null(repetition) for path in source.paths for repetition in entry.repetitions(path))
        reading.refuse(
            RefusalKind.MISSING_VALUE if nulled else RefusalKind.MISSING_FIELD, place,
            "there is no patient identifier", "send the patient's identifier with its assigning authority",
        )  # fmt: skip
        return PatientInput((), {})
    if source.prefer:
        preferred = reading.issuers.resolve(source.prefer, source.prefer)
        found.sort(key=lambda key: key.identifier.issuer != preferred)  # stable: the first of the preferred wins
    attributes = reading.attributes(Level.PATIENT, entry) if complete else {}
    attributes |= patient_id_item(found[0].assigned, reading.setting)
    if len(found) > 1:
        others = [patient_id_item(key.assigned, reading.setting) for key in found[1:]]
        attributes[TAG["OtherPatientIDsSequence"]] = element("OtherPatientIDsSequence", *others)
    if reading.trace is not None:
        for number, key in enumerate(found):
            target = "PatientID" if number == 0 else "OtherPatientIDsSequence.PatientID"
            reading.traced(target, source.origin, key.where, key.raw, "cx", key.assigned.value)
    return PatientInput(tuple(key.identifier for key in found), attributes)


def visit_of(reading: Reading, entry: Entry) -> VisitInput | None:
    """The visit of an entry; None where it names none and says nothing about it."""
    number = reading.identifier("AdmissionID", entry, cx)
    attributes = reading.attributes(Level.VISIT, entry)
    reading.require("AdmissionID", number, entry)
    if number is None and not attributes:
        return None
    reading.put_key(attributes, "AdmissionID", "IssuerOfAdmissionIDSequence", number)
    return VisitInput(number.identifier if number else None, attributes)


def merge_of(reading: Reading, entry: Entry) -> PatientMerge | None:
    """One pair of surviving and prior identifiers; what both lists share is not taken away (A40)."""
    surviving = patient_of(reading, entry, complete=True)
    gone = _replaced(reading, entry, surviving)
    return PatientMerge(surviving, gone) if gone else None


def change_of(reading: Reading, entry: Entry) -> IdentifierChange | None:
    """The identifiers of one person before and after (A47)."""
    patient = patient_of(reading, entry, complete=True)
    gone = _replaced(reading, entry, patient)
    return IdentifierChange(patient, gone) if gone else None


def move_of(reading: Reading, entry: Entry) -> VisitMove | None:
    """The visits of one MRG that belong to the patient of the PID (A45)."""
    patient = patient_of(reading, entry, complete=True)
    gone = _replaced(reading, entry, patient)
    visit = visit_of(reading, entry)
    source = reading.identity["PriorAdmissionID"]
    moved = tuple(key.identifier for key in reading.identifiers(source, entry, cx, "AdmissionID"))
    if not moved and visit is not None and visit.number is not None:
        moved = (visit.number,)
    if not moved:
        place = reading.place("PriorAdmissionID", entry) if source.paths else reading.place("AdmissionID", entry)
        reading.refuse(
            RefusalKind.MISSING_FIELD, place, "no visit is named that could be moved", "send the visit number in MRG-5"
        )
    return VisitMove(patient, gone, moved, visit) if gone and moved else None


def link_of(reading: Reading, entries: Sequence[Entry], linked: bool) -> PatientLink | None:
    """Two people whose records are (A24) or are not (A37) of one person: two entries, or one with PID and MRG."""
    one = patient_of(reading, entries[0], complete=True)
    if len(entries) > 1:
        other = patient_of(reading, entries[1], complete=True)
        if not set(one.identifiers).isdisjoint(other.identifiers):
            reading.refuse(
                RefusalKind.DUPLICATE_KEY, f"{entries[1].where}-3", "both patients have the same identifier",
                "send the identifiers of two records",
            )  # fmt: skip
    else:
        other = PatientInput(_replaced(reading, entries[0], one), {})
    return PatientLink(one, other, linked) if one.identifiers and other.identifiers else None


def _replaced(reading: Reading, entry: Entry, patient: PatientInput) -> tuple[Identifier, ...]:
    """The prior identifiers that are not the patient's own; () once refused."""
    source = reading.identity["PriorPatientID"]
    prior = reading.identifiers(source, entry, cx, "PatientID")
    place = reading.place("PriorPatientID", entry)
    if not prior:
        reading.refuse(RefusalKind.MISSING_FIELD, place, "there is no prior patient identifier", "send MRG-1")
        return ()
    gone = tuple(key.identifier for key in prior if key.identifier not in patient.identifiers)
    if not gone:
        reading.refuse(
            RefusalKind.DUPLICATE_KEY, place, "the prior identifier is the surviving one",
            "send the identifier that stays in PID-3 and the one that goes in MRG-1",
        )  # fmt: skip
        return ()
    for key in prior:
        reading.traced("PriorPatientID", source.origin, key.where, key.raw, "cx", key.assigned.value)
    return gone
