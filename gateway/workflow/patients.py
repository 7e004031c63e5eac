"""Patients change as events say: insert, update, merge, move, link; and what merges retire still finds its way.

Used by `workflow.orders`, which applies every event of a message or none.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import assert_never

from gateway.domain.attributes import TAG, Attributes, merge, text, values
from gateway.domain.facts import NO_STAMPS, as_news, merge_said
from gateway.domain.identifiers import Identifier
from gateway.domain.patient import (
    IdentifierChange,
    IdentityChange,
    IdentityKind,
    Patient,
    PatientEvent,
    PatientInput,
    PatientLink,
    PatientMerge,
    PatientUpdate,
    VisitChange,
    VisitInput,
    VisitMove,
)
from gateway.domain.refusal import Refusal, RefusalKind, Refused
from gateway.workflow.circumstances import Circumstances
from gateway.workflow.identities import (
    IDENTIFYING,
    change_identifiers,
    merge_records,
    move_visit,
    number_of,
    shown,
    unmerge,
)
from gateway.workflow.ports import Unit
from gateway.workflow.visits import upsert_visit

__all__ = ["apply_patient_event", "unmerge", "upsert_patient", "upsert_visit"]

_OTHER_IDS, _PATIENT_ID = TAG["OtherPatientIDsSequence"], TAG["PatientID"]


def apply_patient_event(
    unit: Unit, event: PatientEvent, under: Circumstances, at: datetime, notes: list[str]
) -> tuple[int, ...]:
    """Apply one event; the patients it touched, the one that has the effect first.

    That a patient arrived (A10) is for the caller to tell the orders. Raises Refused.
    """
    match event:
        case PatientUpdate():
            return (_update(unit, event, under, at, notes),)
        case PatientMerge():
            return _merge(unit, event, under, at, notes)
        case IdentifierChange():
            return (_change(unit, event, under, at, notes),)
        case VisitMove():
            return _move(unit, event, under, at, notes)
        case PatientLink():
            return (_link if event.linked else _unlink)(unit, event, under, at, notes)
        case _:
            assert_never(event)


# --- one patient --------------------------------------------------------------------------------------------------


def upsert_patient(unit: Unit, said: PatientInput, under: Circumstances, at: datetime, notes: list[str]) -> int:
    """The patient's id after insert or update. Raises Refused (205) for identifiers of two people."""
    found = unit.patients(said.identifiers) if said.identifiers else ()
    if len(found) > 1:
        raise _duplicate(
            "PID-3", "these identifiers belong to different patients",
            "merge the patients first (ADT^A40) or correct the identifiers",
        )  # fmt: skip
    if not found:
        attributes, stamps = merge_said({}, NO_STAMPS, said.attributes, under.stamp)
        return unit.save_patient(Patient(None, said.identifiers, attributes, (), stamps), at)
    held = found[0]
    if said.identifiers[0] in held.retired:
        return _speak_of_retired(unit, held, said, under, at, notes)
    current = (identifier for identifier in said.identifiers if identifier not in held.retired)
    changed = _spoken_of(held, tuple(dict.fromkeys((*held.identifiers, *current))), said, under)
    return _saved(unit, held, changed, at)


def _saved(unit: Unit, held: Patient, changed: Patient, at: datetime) -> int:
    if changed.attributes != held.attributes or changed.identifiers != held.identifiers:
        return unit.save_patient(changed, at)
    if changed.stamps != held.stamps:
        unit.set_patient_stamps(changed)
    return number_of(held)


def _spoken_of(held: Patient, identifiers: tuple[Identifier, ...], said: PatientInput, under: Circumstances) -> Patient:
    """The patient after what was said. The ID that devices know it by stays, whatever the message leads with."""
    known = held.attributes.get(_PATIENT_ID) is None or said.identifiers[0] == identifiers[0]
    attributes = said.attributes if known else _without_ids(said.attributes)
    news = as_news(attributes, said.formerly.attributes if said.formerly else None, held.attributes)
    merged, stamps = merge_said(held.attributes, held.stamps, news, under.stamp)
    return replace(held, identifiers=identifiers, attributes=merged, stamps=stamps)


def _spoken_of_past(held: Patient, said: PatientInput, under: Circumstances) -> Patient:
    """The same where the message leads with an identifier that was changed: the others it brings count as ever."""
    new = (each for each in said.identifiers if each not in held.identifiers and each not in held.retired)
    known = {each.value for each in held.retired} | {text(held.attributes, "PatientID")}
    others = [
        item for item in values(said.attributes, "OtherPatientIDsSequence") if text(item, "PatientID") not in known
    ]
    attributes = _without_ids(said.attributes)
    if others:
        attributes[_OTHER_IDS] = {"vr": "SQ", "Value": others}
    merged, stamps = merge_said(held.attributes, held.stamps, attributes, under.stamp)
    return replace(held, identifiers=(*held.identifiers, *new), attributes=merged, stamps=stamps)


def _without_ids(attributes: Attributes) -> Attributes:
    return {tag: element for tag, element in attributes.items() if tag not in IDENTIFYING}


def _speak_of_retired(
    unit: Unit, held: Patient, said: PatientInput, under: Circumstances, at: datetime, notes: list[str]
) -> int:
    """A message uses an identifier that is retired: the patient who has it now is meant.

    Where a merge retired it, the record it belonged to learns what is said, and lends that to the survivor.
    """
    source, patient_id = unit.retired_from(said.identifiers[0]), number_of(held)
    if not under.redirect_merged and not _is_linked(unit, source):
        raise Refused(Refusal(
            RefusalKind.UNKNOWN_KEY, "PID-3", "this patient ID was merged into another, or changed, and is retired",
            "use the surviving patient ID",
        ))  # fmt: skip
    if source is not None and source.id == held.id:
        notes.append("the patient ID was changed; the patient is known by another one now")
        return _saved(unit, held, _spoken_of_past(held, said, under), at)
    notes.append("the patient ID was merged into another; the surviving patient is used")
    if source is None:  # retired by an earlier release, which did not note whose it was
        return patient_id
    new = [each for each in said.identifiers if each not in held.identifiers and each not in held.retired]
    if new:
        unit.retire(new, number_of(source), patient_id)
        held = replace(held, retired=(*held.retired, *new))
    bore = Identifier(text(source.attributes, "PatientID"), said.identifiers[0].issuer)
    learned = _spoken_of(source, (bore,), said, under)
    if learned.attributes != source.attributes or learned.stamps != source.stamps:
        unit.save_merged(learned, at)
        unit.save_patient(shown(unit, held), at)
    return patient_id


def _is_linked(unit: Unit, source: Patient | None) -> bool:
    """Whether the record was merged because it is linked (A24): then its identifier stays in use."""
    return source is not None and any(
        line.kind is IdentityKind.LINK and line.other_id == source.id and line.undone is None
        for line in unit.identity_changes(source.id)
    )


def _update(unit: Unit, event: PatientUpdate, under: Circumstances, at: datetime, notes: list[str]) -> int:
    """A01 and its kin: the person and the visit are as follows."""
    patient = upsert_patient(unit, event.patient, under, at, notes)
    said = event.visit
    if said is None and event.change in (VisitChange.CANCEL, VisitChange.CLOSE, VisitChange.REOPEN):
        said = VisitInput(None, {}) if unit.visit(patient, None) else None
    upsert_visit(unit, patient, said, at, None, event.change, under)
    return patient


# --- two records --------------------------------------------------------------------------------------------------


def _merge(unit: Unit, event: PatientMerge, under: Circumstances, at: datetime, notes: list[str]) -> tuple[int, ...]:
    """A40: insert or update the survivor, then everything of the prior patient is its."""
    prior = _only(unit.patients(event.prior), "MRG-1", "send one A40 for each")
    found = unit.patients(event.surviving.identifiers)
    if prior is not None and [patient.id for patient in found] == [prior.id]:
        return (_merge_within(unit, prior, event, under, at, notes),)
    if prior is not None:
        _refuse_if_merged_before(unit, prior, event)
    said = event.surviving
    taken = tuple(each for each in said.identifiers[1:] if prior is not None and each in prior.identifiers)
    said = replace(said, identifiers=tuple(each for each in said.identifiers if each not in taken))
    surviving = upsert_patient(unit, said, under, at, notes)
    if prior is None:  # kept as an alias, so that late messages with it find the survivor
        prior_id = unit.save_patient(Patient(None, event.prior, {}), at)
    else:
        prior_id = number_of(prior)
        prior = replace(prior, identifiers=tuple(dict.fromkeys((*prior.identifiers, *_free(prior, event.prior)))))
        unit.save_patient(prior, at)
    touched = _merged(unit, prior_id, surviving, IdentityKind.MERGE, under, at)
    if taken and (survivor := unit.patient(surviving)) is not None:  # the message says that the survivor bears them
        retired = tuple(each for each in survivor.retired if each not in taken)
        unit.save_patient(replace(survivor, identifiers=(*survivor.identifiers, *taken), retired=retired), at)
    return touched


def _merged(
    unit: Unit, prior_id: int, surviving: int, kind: IdentityKind, under: Circumstances, at: datetime
) -> tuple[int, ...]:
    prior, survivor = unit.patient(prior_id), unit.patient(surviving)
    assert prior is not None and survivor is not None  # noqa: S101, PT018  (both were saved a moment ago)
    merge_records(unit, prior, survivor, kind, under.cause, at)
    return surviving, prior_id


def _merge_within(
    unit: Unit, held: Patient, event: PatientMerge, under: Circumstances, at: datetime, notes: list[str]
) -> int:
    """Both sides name one patient: said before, said the other way round, or a patient with both identifiers."""
    if all(identifier in held.retired for identifier in event.surviving.identifiers):
        raise _duplicate(
            "MRG-1", "these patients were merged before, the other way round", "check which patient ID survives"
        )  # fmt: skip
    notes.append("these identifiers belong to one patient already")
    past = tuple(each for each in event.prior if each in held.identifiers)
    if past:  # its own until now: from here on they are a record of their own, merged into it
        kept = tuple(each for each in held.identifiers if each not in past)
        new = tuple(each for each in event.surviving.identifiers if each not in (*kept, *held.retired))
        attributes = merge(held.attributes, _ids_of(event.surviving.attributes))
        unit.save_patient(replace(held, identifiers=(*kept, *new), attributes=attributes), at)
        prior_id = unit.save_patient(Patient(None, past, {}), at)
        _merged(unit, prior_id, number_of(held), IdentityKind.MERGE, under, at)
    return upsert_patient(unit, event.surviving, under, at, notes)  # what else it says of the survivor counts


def _refuse_if_merged_before(unit: Unit, prior: Patient, event: PatientMerge) -> None:
    """The prior record is somebody else's already: to merge that somebody too is more than the message says."""
    if any(identifier in prior.identifiers for identifier in event.prior):
        return
    for identifier in event.prior:
        source = unit.retired_from(identifier) if identifier in prior.retired else None
        if source is not None and source.id != prior.id:
            raise _duplicate(
                "MRG-1", "the prior patient was merged into a third one before",
                "merge that one, or take the earlier merge back with `gateway patients unmerge`",
            )  # fmt: skip


def _change(unit: Unit, event: IdentifierChange, under: Circumstances, at: datetime, notes: list[str]) -> int:
    """A47: the patient is known by the new identifier at once, and found by the old one still."""
    said = event.patient
    prior = _only(unit.patients(event.prior), "MRG-1", "send one A47 for each")
    found = _only(unit.patients(said.identifiers), "PID-3", "send one A47 for each")
    if found is not None and (
        (prior is not None and found.id != prior.id) or _is_merged_record(unit, found, said.identifiers[0])
    ):
        raise _duplicate(
            "PID-3", "the new identifier belongs to another patient",
            "merge the patients (ADT^A40) if they are one person, or correct the identifier",
        )  # fmt: skip
    held = prior or found
    if held is None:
        notes.append("nobody is known by the prior identifier; it is kept, so that late messages find the patient")
        attributes, stamps = merge_said({}, NO_STAMPS, said.attributes, under.stamp)
        held = Patient(None, said.identifiers, attributes, (), stamps)
    elif all(each in held.retired for each in event.prior) and said.identifiers[0] in held.identifiers:
        notes.append("the identifier was changed before")
        return upsert_patient(unit, said, under, at, notes)
    change_identifiers(unit, held, _renamed(held, event, under), under.cause, at)
    return number_of(_one_of(unit, said.identifiers[0]))


def _one_of(unit: Unit, identifier: Identifier) -> Patient:
    return unit.patients([identifier])[0]


def _is_merged_record(unit: Unit, held: Patient, identifier: Identifier) -> bool:
    source = unit.retired_from(identifier) if identifier in held.retired else None
    return source is not None and source.id != held.id


def _renamed(held: Patient, event: IdentifierChange, under: Circumstances) -> Patient:
    """The patient with the new identifiers in the place of the prior ones."""
    said = event.patient
    places = [place for place, each in enumerate(held.identifiers) if each in event.prior]
    place = places[0] if places else len(held.identifiers)
    kept = [each for each in held.identifiers if each not in event.prior]
    new = [each for each in said.identifiers if each not in kept]
    identifiers = tuple(dict.fromkeys((*kept[:place], *new, *kept[place:])))
    retired = tuple(each for each in dict.fromkeys((*held.retired, *event.prior)) if each not in identifiers)
    news = as_news(
        _without_ids(said.attributes), said.formerly.attributes if said.formerly else None, held.attributes
    )  # fmt: skip
    attributes, stamps = merge_said(held.attributes, held.stamps, news, under.stamp)
    if identifiers[0] == said.identifiers[0]:  # what devices know the patient by follows, whenever it was said
        others = {_OTHER_IDS: attributes[_OTHER_IDS]} if _OTHER_IDS in attributes else {}
        attributes = merge(_without_ids(attributes) | others, _ids_of(said.attributes))
    past = {each.value for each in event.prior}
    if _OTHER_IDS in attributes:
        attributes = attributes | {_OTHER_IDS: _with_other_ids(attributes, past, said.identifiers[0].value)}
    return replace(held, identifiers=identifiers, retired=retired, attributes=attributes, stamps=stamps)


def _with_other_ids(attributes: Attributes, past: set[str], new: str) -> dict[str, object]:
    """The other patient IDs, where one that is retired gives way to the new one, or vanishes if that leads."""
    items = []
    for item in values(attributes, "OtherPatientIDsSequence"):
        if text(item, "PatientID") not in past:
            items.append(item)
        elif text(attributes, "PatientID") != new:
            items.append(item | {_PATIENT_ID: {**item[_PATIENT_ID], "Value": [new]}})
    return {"vr": "SQ", "Value": items} if items else {"vr": "SQ"}


def _ids_of(attributes: Attributes) -> Attributes:
    return {tag: element for tag, element in attributes.items() if tag in IDENTIFYING}


def _move(unit: Unit, event: VisitMove, under: Circumstances, at: datetime, notes: list[str]) -> tuple[int, ...]:
    """A45: the visits named, with their orders and what was performed of them, go to the patient."""
    patient = upsert_patient(unit, event.patient, under, at, notes)
    priors = [number_of(each) for each in unit.patients(event.prior)]
    touched = [patient]
    for number in event.visits:
        held = next((visit for each in priors if (visit := unit.visit(each, number)) is not None), None)
        if held is None or held.id is None or held.patient_id == patient:
            known = unit.visit(patient, number) is not None
            notes.append(
                "the visit belongs to this patient already" if known else "no such visit is held; nothing was moved"
            )  # fmt: skip
            continue
        move_visit(unit, held.id, held.patient_id, patient, under.cause, at)
        touched.append(held.patient_id)
    said = event.visit
    if said is not None and said.number is None and len(event.visits) == 1:
        said = replace(said, number=event.visits[0])
    upsert_visit(unit, patient, said, at, None, VisitChange.UPDATE, under)
    return tuple(dict.fromkeys(touched))


def _link(unit: Unit, event: PatientLink, under: Circumstances, at: datetime, notes: list[str]) -> tuple[int, ...]:
    """A24: both records are of one person. Both identifiers stay in use, unless the listener merges what is linked."""
    one, other = (upsert_patient(unit, each, under, at, notes) for each in (event.one, event.other))
    if one == other:
        notes.append("these identifiers belong to one patient already")
        return (one,)
    if under.merge_linked:
        return _merged(unit, other, one, IdentityKind.LINK, under, at)
    if other in unit.linked_patients(one):
        notes.append("these patients are linked already")
    else:
        unit.log_identity(IdentityChange(None, at, IdentityKind.LINK, under.cause, one, other))
        notes.append("the link is noted; both identifiers stay in use")
    return one, other


def _unlink(unit: Unit, event: PatientLink, under: Circumstances, at: datetime, notes: list[str]) -> tuple[int, ...]:
    """A37: they are two persons after all; a merge that the link made is taken back."""
    held = [patient for each in (event.one, event.other) for patient in unit.patients(each.identifiers)]
    records = {number_of(each) for each in held}
    for each in (event.one, event.other):
        records |= {number_of(source) for identifier in each.identifiers if (source := unit.retired_from(identifier))}
    for line in (line for patient in held for line in unit.identity_changes(patient.id)):
        both = {line.patient_id, line.other_id}
        if line.id is not None and line.kind is IdentityKind.LINK and line.undone is None and both <= records:
            notes += unmerge(unit, line.id, at, under.cause)
            return line.patient_id, *((line.other_id,) if line.other_id is not None else ())
    notes.append("these patients were not linked; nothing was changed")
    return tuple(dict.fromkeys(number_of(each) for each in held))


def _only(found: Sequence[Patient], where: str, hint: str) -> Patient | None:
    """The one patient, or nobody. Raises Refused (205) for several."""
    if len(found) > 1:
        raise _duplicate(where, "these identifiers belong to different patients", hint)
    return found[0] if found else None


def _free(held: Patient, identifiers: Sequence[Identifier]) -> tuple[Identifier, ...]:
    """Those that the patient does not bear and never bore."""
    return tuple(each for each in identifiers if each not in held.identifiers and each not in held.retired)


def _duplicate(where: str, text: str, hint: str) -> Refused:
    return Refused(Refusal(RefusalKind.DUPLICATE_KEY, where, text, hint))
