"""What the models of fhir.resources do not say: whole lists of codes, required concepts, what R4 has otherwise.

Most required value sets are in the models. Here are those that they cut short ("+") or have not at all, and the
differences between R4 and R4B in the resources that are taken: R4 is read with the models of R4B. There are few: of
the clinical resources R4B changed nothing but the targets of some references (R4B, "Version History").
"""

from collections.abc import Mapping
from typing import NamedTuple

from gateway.wire.fhir_release import Release

_R4, _R4B, _R5 = Release.R4, Release.R4B, Release.R5


def _in_all(*codes: str) -> Mapping[Release, frozenset[str]]:
    return dict.fromkeys(Release, frozenset(codes))


def _before_5(*codes: str, r5: tuple[str, ...] | None = None) -> Mapping[Release, frozenset[str]]:
    """Of R4 and R4B; R5 has what `r5` says, or what its model says."""
    old = frozenset(codes)
    return {_R4: old, _R4B: old, **({_R5: frozenset(r5)} if r5 is not None else {})}


_ENCOUNTER = _before_5(
    "planned", "arrived", "triaged", "in-progress", "onleave", "finished", "cancelled", "entered-in-error", "unknown"
)
_COMPARATOR = _before_5("<", "<=", ">=", ">", r5=("<", "<=", ">=", ">", "ad"))
_WHEN = (
    "MORN", "MORN.early", "MORN.late", "NOON", "AFT", "AFT.early", "AFT.late", "EVE", "EVE.early", "EVE.late", "NIGHT",
    "PHS", "HS", "WAKE", "C", "CM", "CD", "CV", "AC", "ACM", "ACD", "ACV", "PC", "PCM", "PCD", "PCV",
)  # fmt: skip
_ISSUES = (
    "invalid", "structure", "required", "value", "invariant", "security", "login", "unknown", "expired", "forbidden",
    "suppressed", "processing", "not-supported", "duplicate", "multiple-matches", "not-found", "deleted", "too-long",
    "code-invalid", "extension", "too-costly", "business-rule", "conflict", "transient", "lock-error", "no-store",
    "exception", "timeout", "incomplete", "throttled", "informational",
)  # fmt: skip

CODES: Mapping[tuple[str, str], Mapping[Release, frozenset[str]]] = {
    ("ServiceRequest", "intent"): _in_all(
        "proposal", "plan", "directive", "order", "original-order", "reflex-order", "filler-order", "instance-order",
        "option",
    ),
    ("Task", "status"): _in_all(
        "draft", "requested", "received", "accepted", "rejected", "ready", "cancelled", "in-progress", "on-hold",
        "failed", "completed", "entered-in-error",
    ),
    ("Encounter", "status"): _ENCOUNTER,
    ("EncounterStatusHistory", "status"): _ENCOUNTER,
    ("Observation", "status"): _in_all(
        "registered", "preliminary", "final", "amended", "corrected", "cancelled", "entered-in-error", "unknown"
    ),
    ("DiagnosticReport", "status"): _before_5(
        "registered", "partial", "preliminary", "final", "amended", "corrected", "appended", "cancelled",
        "entered-in-error", "unknown",
    ),
    ("Quantity", "comparator"): _COMPARATOR,
    ("Age", "comparator"): _COMPARATOR,
    ("Count", "comparator"): _COMPARATOR,
    ("Distance", "comparator"): _COMPARATOR,
    ("Duration", "comparator"): _COMPARATOR,
    ("TimingRepeat", "when"): _before_5(*_WHEN, r5=(*_WHEN, "IMD")),
    ("DeviceUdiCarrier", "entryType"): _before_5("barcode", "rfid", "manual", "card", "self-reported", "unknown"),
    ("OperationOutcomeIssue", "code"): _before_5(*_ISSUES, r5=(*_ISSUES, "success", "limited-filter")),
    ("BundleEntrySearch", "mode"): _in_all("match", "include", "outcome"),
    ("BundleLink", "relation"): dict.fromkeys(Release, frozenset()),  # R5 names the usual ones, others are used
    ("CapabilityStatement", "format"): dict.fromkeys(Release, frozenset()),  # any media type, beside the short names
}  # fmt: skip
"""(type, element) -> the only codes it takes. Goes before what the model says; no codes: any."""


class Concept(NamedTuple):
    """A CodeableConcept of which one coding has to be of these (binding strength "required")."""

    system: str
    codes: frozenset[str]


def _concept(name: str, *codes: str) -> Concept:
    return Concept(f"http://terminology.hl7.org/CodeSystem/{name}", frozenset(codes))


_ALLERGY = _concept("allergyintolerance-clinical", "active", "inactive", "resolved")
_ALLERGY_SURE = ("unconfirmed", "confirmed", "refuted", "entered-in-error")
_CONDITION = ("active", "recurrence", "relapse", "inactive", "remission", "resolved")
_CONDITION_SURE = _concept(
    "condition-ver-status",
    "unconfirmed", "provisional", "differential", "confirmed", "refuted", "entered-in-error",
)  # fmt: skip

CONCEPTS: Mapping[tuple[str, str], Mapping[Release, Concept]] = {
    ("AllergyIntolerance", "clinicalStatus"): dict.fromkeys(Release, _ALLERGY),
    ("AllergyIntolerance", "verificationStatus"): {
        _R4: _concept("allergyintolerance-verification", *_ALLERGY_SURE),
        _R4B: _concept("allergyintolerance-verification", *_ALLERGY_SURE),
        _R5: _concept("allergyintolerance-verification", *_ALLERGY_SURE, "presumed"),
    },
    ("Condition", "clinicalStatus"): {
        _R4: _concept("condition-clinical", *_CONDITION),
        _R4B: _concept("condition-clinical", *_CONDITION),
        _R5: _concept("condition-clinical", *_CONDITION, "unknown"),
    },
    ("Condition", "verificationStatus"): dict.fromkeys(Release, _CONDITION_SURE),
}
"""(type, element) -> the concept that is required where the element is given."""


# ---- R4 where it is not R4B ----

TARGETS_R4: Mapping[tuple[str, str], frozenset[str]] = {
    ("Observation", "subject"): frozenset({"Patient", "Group", "Device", "Location"}),
    ("DiagnosticReport", "subject"): frozenset({"Patient", "Group", "Device", "Location"}),
    ("GroupMember", "entity"): frozenset(
        {"Patient", "Practitioner", "PractitionerRole", "Device", "Medication", "Substance", "Group"}
    ),
}
"""Targets of references that R4B has more of."""

EXTENSION_TYPES_LACKING: Mapping[Release, frozenset[str]] = {
    _R4: frozenset({"CodeableReference", "RatioRange"}),
    _R4B: frozenset(),
    _R5: frozenset(),
}
"""Types that came with a later release: Extension.value[x] has none of them."""

TYPES_LACKING_IN_R4 = frozenset(
    {
        "AdministrableProductDefinition", "Citation", "ClinicalUseDefinition", "EvidenceReport", "Ingredient",
        "ManufacturedItemDefinition", "MedicinalProductDefinition", "NutritionProduct", "PackagedProductDefinition",
        "RegulatedAuthorization", "SubscriptionStatus", "SubscriptionTopic", "SubstanceDefinition",
    }
)  # fmt: skip
"""Resources that came with R4B."""
