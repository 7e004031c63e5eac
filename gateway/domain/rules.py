"""Rule sets as the mapping runs on them: tuples, compiled by `rule_compiler` from what a site wrote.

A rule set has an `identity` (where the keys of patient, visit, order, procedure and step come from) and `rules`
(one per worklist attribute). Nothing here reads a document or a file.
"""

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field, replace
from datetime import tzinfo
from typing import Any, NamedTuple

from gateway.domain.attributes import Element, Level
from gateway.domain.converters import Converter, Setting
from gateway.domain.edits import Edit
from gateway.domain.order import Policy
from gateway.domain.path_readers import HL7
from gateway.domain.selection import Condition, Pick
from gateway.domain.source import Path, Repetition

STEP_PREFIX = "ScheduledProcedureStepSequence."


class Simply(NamedTuple):
    """What a field that does not repeat comes to where there is nothing to tell of it, as nearly always.

    `made` gives the element of its one repetition, zero-length where that deletes, None where it says nothing. It
    raises Unconvertible for whatever needs a refusal or a note.
    """

    field: Path
    made: Callable[[Repetition], Element | None]


@dataclass(frozen=True, slots=True)
class Alternative:
    """One way to a value: paths tried in turn, or a constant, under conditions."""

    paths: tuple[tuple[Path, Setting], ...]
    converter: Converter
    repeat: str
    select: tuple[Condition, ...]
    beside: Path | None
    when: tuple[Condition, ...]
    unless: tuple[Condition, ...]
    pick: Pick | None
    constant: tuple[Any, ...]
    cut: bool
    missing: tuple[str, ...]
    """What to do without a value, in turn: `catalogue`, `stations`, `default`, `refuse`; empty: leave it out."""
    default: tuple[Any, ...]
    label: str
    simple: bool
    """Whether a repetition alone decides its value, without its fellows and other fields of its segment."""
    simply: tuple["Simply", ...] = ()
    """For each path of a simple one, as `mapping_values` makes it ready."""

    @property
    def otherwise(self) -> str:
        """What happens without a value, as people read it."""
        default = ", ".join(one if isinstance(one, str) else str(one) for one in self.default)
        told = (f"default {default}" if policy == "default" else policy for policy in self.missing)
        return ", then ".join(told) or "omit"

    def spoken(self, said: Set[str]) -> "Alternative | None":
        """The same for entries that say these fields (Path.key) only; None where that can give nothing."""
        if "refuse" in self.missing:  # it tells at which of its paths the value would be
            return self
        paths = tuple([(path, setting) for path, setting in self.paths if path.key in said])
        if not paths and not self.constant and not self.missing:
            return None
        return replace(self, paths=paths, simply=tuple([one for one in self.simply if one.field.key in said]))


@dataclass(frozen=True, slots=True)
class Rule:
    """How one attribute comes about: the first alternative that gives a value."""

    keyword: str
    tag: str
    vr: str
    target: str
    type_1: bool
    alternatives: tuple[Alternative, ...]
    origin: str
    said: Any = field(default=None, compare=False, repr=False)
    """As the site wrote it: plain data."""

    def spoken(self, said: Set[str]) -> "Rule | None":
        """The same for entries that say these fields (Path.key) only; None where that can give nothing."""
        ways = tuple([spoken for way in self.alternatives if (spoken := way.spoken(said))])
        return replace(self, alternatives=ways) if ways else None


@dataclass(frozen=True, slots=True)
class IdentitySource:
    """Where a key comes from, and what its absence means. `prefer` names the authority of primary patient IDs."""

    keyword: str
    paths: tuple[Path, ...] = ()
    policy: Policy | None = None
    refuse: bool = False
    prefer: str = ""
    origin: str = ""
    pick: Pick | None = None
    edits: tuple[Edit, ...] = ()
    label: str = ""
    """The edits as a trace names them."""


@dataclass(frozen=True, slots=True)
class RuleSet:
    """A compiled rule set. `rules` go by the level of their targets."""

    name: str
    version: str
    setting: Setting
    identity: Mapping[str, IdentitySource]
    rules: Mapping[Level, tuple[Rule, ...]]
    digest: str
    language: str = HL7
    """Of its paths: HL7 v2, or the release of FHIR."""

    @property
    def policies(self) -> Mapping[str, Policy]:
        """The missing policies of the keys that can be made, by keyword."""
        return {key: source.policy for key, source in self.identity.items() if source.policy is not None}

    @property
    def keys(self) -> frozenset[str]:
        """The fields (Path.key) that the rules take values from."""
        rules = (rule for level in self.rules.values() for rule in level)
        return frozenset(path.key for rule in rules for way in rule.alternatives for path, _ in way.paths)

    def in_zone(self, zone: tzinfo) -> "RuleSet":
        """The same with a department's wall clock, to which times of other clocks are converted."""

        def there(way: Alternative) -> Alternative:
            return replace(way, paths=tuple([(path, setting._replace(zone=zone)) for path, setting in way.paths]))

        rules = {
            level: tuple([replace(rule, alternatives=tuple(map(there, rule.alternatives))) for rule in rules])
            for level, rules in self.rules.items()
        }
        return replace(self, rules=rules, setting=self.setting._replace(zone=zone))

    def spoken(self, said: Set[str]) -> Mapping[Level, tuple[Rule, ...]]:
        """The rules for entries that say these fields only, without all that would find silence."""
        return {
            level: tuple([spoken for rule in rules if (spoken := rule.spoken(said))])
            for level, rules in self.rules.items()
        }


IDENTITY: Mapping[str, str] = {
    "PatientID": "identifier list of the patient (CX), the primary one first",
    "PriorPatientID": "identifiers that a merge takes away (CX)",
    "AdmissionID": "visit number (CX)",
    "PriorAdmissionID": "visit numbers that a move of visits names (CX)",
    "PlacerOrderNumberImagingServiceRequest": "placer order number (EI)",
    "FillerOrderNumberImagingServiceRequest": "filler order number (EI)",
    "AccessionNumber": "accession number (EI)",
    "StudyInstanceUID": "Study Instance UID",
    "RequestedProcedureID": "requested procedure ID",
    "ScheduledProcedureStepID": "scheduled procedure step ID",
    "ScheduledProcedureStepDuration": "how long a step takes, in the unit beside it, else in minutes",
    "PlacerAppointmentID": "the placer's number of an appointment, for one that names no order (EI)",
    "FillerAppointmentID": "the filler's number of an appointment, for one that names no order (EI)",
    "ProcedureCode": "codes to look up in the procedure catalogue (CE, CWE)",
}
"""The keys of `identity:` and what each is read as."""
