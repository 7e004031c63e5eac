"""Whom resources of ours are about: who the order is for, after a merge the patient who survived it.

The request of an order names its patient in its sender's words, and is its sender's to change. Until it does, what we
make of the order already names who the patient is now: by the sender's own link (Patient.link), else by what other
systems said (ADT A40, A47). `fhir_identities` says when resources are told anew for that.
"""

from collections.abc import Iterable, Iterator, Mapping

from gateway.domain.identifiers import Identifier
from gateway.domain.patient import Patient
from gateway.domain.resource_search import Comparison, Criterion, How
from gateway.domain.resources import Resource, ResourceKey
from gateway.wire.fhir_elements import logical, system_of_issuer, typed_identifier
from gateway.wire.fhir_graph import listed
from gateway.wire.fhir_index import key_of
from gateway.workflow.ports import Unit

LINKS_MAX = 10
"""Merges that are followed one after the other."""


def by_number(patient: Patient | None, systems: Mapping[str, str]) -> Resource:
    """The patient by identifier: the first one that has a system, else the first one."""
    found = [typed_identifier(each, "MR", systems) for each in (patient.identifiers if patient else ())]
    known = [each for each in found if each is not None]
    best = next((each for each in known if "system" in each), known[0] if known else None)
    return logical("Patient", best) or {"type": "Patient", "display": "not identified"}


def whose(
    unit: Unit, source: str, said: Resource, patient: Patient | None, systems: Mapping[str, str]
) -> Resource:  # fmt: skip
    """A reference to the patient of an order, whose request in the name space `source` refers to it by `said`.

    As it is said, unless that patient was merged into another.
    """
    named = _key(source, said)
    last = _followed(unit, named) if named is not None else None
    if last is not None and last != named:
        return {"reference": last.reference}
    held = unit.resource(last) if last is not None else None
    known = held.content if held is not None and not held.deleted else said
    if patient is None or not patient.retired or not _is_retired(known, patient, systems):
        return said
    found = (each for each in _bearing(unit, source, patient, systems) if each != named)
    survivor = next(found, None)
    return {"reference": survivor.reference} if survivor is not None else by_number(patient, systems)


def _key(source: str, said: Resource) -> ResourceKey | None:
    type_, _, id_ = str(said.get("reference", "")).partition("/")
    return ResourceKey(source, type_, id_) if type_ == "Patient" and id_ and "/" not in id_ else None


def _followed(unit: Unit, key: ResourceKey) -> ResourceKey:
    """The patient at the end of the links that say `replaced-by`; where they lead in a circle, the one named."""
    seen = [key]
    while len(seen) <= LINKS_MAX:
        held = unit.resource(seen[-1])
        links = listed(held.content.get("link")) if held is not None and not held.deleted else ()
        others = (each.get("other") for each in links if each.get("type") == "replaced-by")
        following = next((found for each in others if each and (found := _key(key.source, each))), None)
        if following is None:
            return seen[-1]
        if following in seen:
            break
        seen.append(following)
    return key


def _is_retired(content: Resource, patient: Patient, systems: Mapping[str, str]) -> bool:
    """Whether a Patient, or a reference by identifier, has numbers that the patient had before a merge, none of now."""
    numbers = [each for each in listed(content.get("identifier")) if isinstance(each, Mapping)]
    said = {(str(each.get("system", "")), str(each.get("value", ""))) for each in numbers}
    current, retired = (_said(each, systems) for each in (patient.identifiers, patient.retired))
    return bool(said & retired) and not said & current


def _said(identifiers: Iterable[Identifier], systems: Mapping[str, str]) -> set[tuple[str, str]]:
    return {(system_of_issuer(each.issuer, systems), each.value) for each in identifiers}


def _bearing(unit: Unit, source: str, patient: Patient, systems: Mapping[str, str]) -> Iterator[ResourceKey]:
    """The Patients of a name space that have the patient's numbers of now."""
    for system, value in sorted(_said(patient.identifiers, systems)):
        criterion = Criterion("identifier", (Comparison(How.VALUE_OF_SYSTEM, key_of(value), system),))
        for held in unit.find_resources(source, "Patient", (criterion,), 2) if system else ():
            yield held.key
