"""Patients and visits change as events say: insert, update, merge, move; and what merges retire still finds its way.

Used by `workflow.orders`, which applies every event of a message or none.
"""

from dataclasses import replace
from datetime import datetime

from gateway.domain.attributes import TAG, merge
from gateway.domain.patient import Patient, PatientInput, PatientMerge, Visit, VisitInput
from gateway.domain.refusal import Refusal, RefusalKind, Refused
from gateway.workflow.circumstances import Circumstances
from gateway.workflow.ports import Unit

_IDENTIFYING = frozenset(
    TAG[keyword]
    for keyword in (
        "PatientID", "IssuerOfPatientID", "IssuerOfPatientIDQualifiersSequence", "TypeOfPatientID",
        "OtherPatientIDsSequence",
    )
)  # fmt: skip


def upsert_patient(unit: Unit, said: PatientInput, under: Circumstances, at: datetime, notes: list[str]) -> int:
    """The patient's id after insert or update. Raises Refused (205) for identifiers of two people."""
    found = unit.patients(said.identifiers) if said.identifiers else ()
    if len(found) > 1:
        raise Refused(
            Refusal(
                RefusalKind.DUPLICATE_KEY,
                "PID-3",
                "these identifiers belong to different patients",
                "merge the patients first (ADT^A40) or correct the identifiers",
            )
        )
    if not found:
        return unit.save_patient(Patient(None, said.identifiers, said.attributes), at)
    held = found[0]
    assert held.id is not None  # noqa: S101  (held patients come from the store)
    if said.identifiers[0] in held.retired:
        return _merged_away(held.id, under, notes)
    current = (identifier for identifier in said.identifiers if identifier not in held.retired)
    identifiers = tuple(dict.fromkeys((*held.identifiers, *current)))
    attributes = said.attributes
    if said.identifiers[0] != identifiers[0]:  # the ID that devices know the patient by stays
        attributes = {tag: element for tag, element in attributes.items() if tag not in _IDENTIFYING}
    changed = replace(held, identifiers=identifiers, attributes=merge(held.attributes, attributes))
    return unit.save_patient(changed, at) if changed != held else held.id


def _retire(unit: Unit, patient: Patient, event: PatientMerge, at: datetime) -> None:
    """The prior identifiers of a merge within one patient: they find the patient, and are said to nobody any more."""
    kept = tuple(each for each in patient.identifiers if each not in event.prior or each in event.surviving.identifiers)
    past = tuple(each for each in patient.identifiers if each not in kept)
    if past:
        attributes = merge(patient.attributes, event.surviving.attributes)
        unit.save_patient(
            replace(patient, identifiers=kept, retired=(*patient.retired, *past), attributes=attributes), at
        )


def _merged_away(survivor: int, under: Circumstances, notes: list[str]) -> int:
    """A message still uses an identifier that a merge retired: the survivor is meant, its data stay as they are."""
    if not under.redirect_merged:
        raise Refused(
            Refusal(
                RefusalKind.UNKNOWN_KEY,
                "PID-3",
                "this patient ID was merged into another and is retired",
                "use the surviving patient ID",
            )
        )
    notes.append("the patient ID was merged into another; the surviving patient is used")
    return survivor


def upsert_visit(
    unit: Unit, patient: int, said: VisitInput | None, at: datetime, known: int | None = None
) -> int | None:
    """The visit's id after insert or update; one without a number is the `known` one of the order, if there is one."""
    if said is None:
        return None
    held = unit.visit_by_id(known) if known is not None and said.number is None else unit.visit(patient, said.number)
    if held is None:
        return unit.save_visit(Visit(None, patient, said.number, said.attributes), at)
    changed = replace(held, attributes=merge(held.attributes, said.attributes))
    return unit.save_visit(changed, at) if changed != held else held.id


def merge_patients(unit: Unit, event: PatientMerge, under: Circumstances, at: datetime, notes: list[str]) -> None:
    """A40: insert or update the survivor, then move everything of the prior patient to it."""
    prior = unit.patients(event.prior)
    found = unit.patients(event.surviving.identifiers)
    if found and {patient.id for patient in prior} == {patient.id for patient in found}:
        if all(identifier in found[0].retired for identifier in event.surviving.identifiers):
            raise Refused(
                Refusal(
                    RefusalKind.DUPLICATE_KEY,
                    "MRG-1",
                    "these patients were merged before, the other way round",
                    "check which patient ID survives",
                )
            )
        notes.append("these identifiers belong to one patient already")
        _retire(unit, found[0], event, at)
        return
    if len(prior) > 1:
        raise Refused(
            Refusal(
                RefusalKind.DUPLICATE_KEY,
                "MRG-1",
                "the prior identifiers belong to different patients",
                "send one A40 for each",
            )
        )
    survivor = event.surviving
    if not found and prior:  # a new survivor is the same person: what the message leaves out is as it was
        known = {tag: element for tag, element in prior[0].attributes.items() if tag not in _IDENTIFYING}
        survivor = replace(survivor, attributes=merge(known, survivor.attributes))
    surviving = upsert_patient(unit, survivor, under, at, notes)
    # Unknown prior identifiers are kept as aliases, so that late messages with them find the survivor.
    before = prior[0] if prior else Patient(None, (), {})
    aliases = tuple(dict.fromkeys((*before.identifiers, *event.prior)))
    prior_id = unit.save_patient(replace(before, identifiers=aliases), at)
    unit.merge_patient(prior_id, surviving, at)
