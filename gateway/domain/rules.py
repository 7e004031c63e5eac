"""Rule sets as data: what a site wrote, checked whole and compiled to tuples that the mapping runs on.

A rule set has an `identity` (where the keys of patient, visit, order, procedure and step come from) and `rules`
(one per worklist attribute). Nothing here reads a document. Every mistake is found before the first message: unknown
keys, keywords, converters, tables and paths, targets at the wrong level, converters that cannot feed a target.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any

from gateway.domain.attributes import BY_KEYWORD, Level, code_item
from gateway.domain.catalogue import PROCEDURE_KEYWORDS, STEP_KEYWORDS
from gateway.domain.converters import (
    CONVERTERS,
    DEFAULT_CONVERTER,
    TABLE,
    Converter,
    Noted,
    Setting,
    Unconvertible,
    fit,
)
from gateway.domain.order import Policy
from gateway.domain.problem import MappingError, Problem, did_you_mean
from gateway.domain.source import Path, parse_path

LineOf = Callable[[str, tuple[str, ...]], int | None]
"""Where a rule file says something: (rule set name, keys from the top) -> line, None where not known."""

Condition = tuple[Path, frozenset[str]]
"""A path and the texts it may have there, folded; '*' stands for any text, '' for none."""

STEP_PREFIX = "ScheduledProcedureStepSequence."
EXTENDS_MAX = 8
"""Rule sets on top of each other; a site overlay on ours on a common base makes three."""


@dataclass(frozen=True, slots=True)
class Alternative:
    """One way to a value: paths tried in turn, or a constant, under conditions."""

    paths: tuple[tuple[Path, Setting], ...]
    converter: Converter
    repeat: str
    select: tuple[Condition, ...]
    beside: Path | None
    when: tuple[Condition, ...]
    constant: tuple[Any, ...]
    cut: bool
    missing: str
    default: tuple[Any, ...]
    label: str
    simple: bool
    """Whether a repetition alone decides its value, without what stands in other fields of its segment."""

    def spoken(self, said: Set[str]) -> "Alternative | None":
        """The same for entries that say these fields (Path.key) only; None where that can give nothing."""
        if self.missing == "refuse":  # it tells at which of its paths the value would be
            return self
        paths = tuple([(path, setting) for path, setting in self.paths if path.key in said])
        if not paths and not self.constant and self.missing == "omit":
            return None
        return replace(self, paths=paths)


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


@dataclass(frozen=True, slots=True)
class RuleSet:
    """A compiled rule set. `rules` go by the level of their targets."""

    name: str
    version: str
    setting: Setting
    identity: Mapping[str, IdentitySource]
    rules: Mapping[Level, tuple[Rule, ...]]
    digest: str

    @property
    def policies(self) -> Mapping[str, Policy]:
        """The missing policies of the keys that can be made, by keyword."""
        return {key: source.policy for key, source in self.identity.items() if source.policy is not None}

    @property
    def keys(self) -> frozenset[str]:
        """The fields (Path.key) that the rules take values from."""
        rules = (rule for level in self.rules.values() for rule in level)
        return frozenset(path.key for rule in rules for way in rule.alternatives for path, _ in way.paths)

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
    "PlacerOrderNumberImagingServiceRequest": "placer order number (EI)",
    "FillerOrderNumberImagingServiceRequest": "filler order number (EI)",
    "AccessionNumber": "accession number (EI)",
    "StudyInstanceUID": "Study Instance UID",
    "RequestedProcedureID": "requested procedure ID",
    "ScheduledProcedureStepID": "scheduled procedure step ID",
    "ProcedureCode": "codes to look up in the procedure catalogue (CE, CWE)",
}
"""The keys of `identity:` and what each is read as."""

_MADE = {
    "AccessionNumber": None,
    "StudyInstanceUID": Policy("generate"),
    "RequestedProcedureID": Policy("generate"),
    "ScheduledProcedureStepID": Policy("generate"),
}  # the accession number is type 2 in the worklist, so it may stay empty; the others are type 1
_MAY_LACK: Mapping[str, tuple[str, ...]] = {
    "PatientID": ("refuse",),
    "PriorPatientID": ("refuse",),
    "AdmissionID": ("omit", "refuse"),
    "PlacerOrderNumberImagingServiceRequest": ("omit", "refuse"),
    "FillerOrderNumberImagingServiceRequest": ("omit", "refuse"),
}
_DERIVED_FROM = (
    "AccessionNumber",
    "StudyInstanceUID",
    "RequestedProcedureID",
    "PlacerOrderNumberImagingServiceRequest",
    "FillerOrderNumberImagingServiceRequest",
)
_FROM_IDENTITY = frozenset(IDENTITY) | {
    "IssuerOfPatientID", "TypeOfPatientID", "IssuerOfPatientIDQualifiersSequence", "OtherPatientIDsSequence",
    "IssuerOfAdmissionIDSequence", "OrderPlacerIdentifierSequence", "OrderFillerIdentifierSequence",
    "IssuerOfAccessionNumberSequence",
}  # fmt: skip
_LEVELS = (Level.PATIENT, Level.VISIT, Level.ORDER, Level.PROCEDURE, Level.STEP)
_TOP_KEYS = ("name", "version", "extends", "description", "default_scheme", "identity", "rules")
_IDENTITY_KEYS = ("from", "missing", "prefer")
_RULE_KEYS = ("from", "convert", "with", "select", "when", "value", "missing", "length", "repeat", "unknown")
_CATALOGUED = frozenset(STEP_KEYWORDS + PROCEDURE_KEYWORDS)


def compile_rules(
    sources: Mapping[str, Mapping[str, Any]],
    name: str,
    tables: Mapping[str, Mapping[str, str]],
    converters: Mapping[str, Converter] = CONVERTERS,
    line_of: LineOf | None = None,
) -> RuleSet:
    """The rule set `name` on top of what it extends. Raises MappingError with every problem of the whole chain."""
    return _Compiler(sources, name, tables, converters, line_of).compile()


class _Compiler:
    """One compilation: collects problems instead of stopping at the first."""

    def __init__(
        self,
        sources: Mapping[str, Mapping[str, Any]],
        name: str,
        tables: Mapping[str, Mapping[str, str]],
        converters: Mapping[str, Converter],
        line_of: LineOf | None,
    ) -> None:
        self.sources, self.name, self.tables, self.converters = sources, name, tables, converters
        self.line_of = line_of
        self.problems: list[Problem] = []
        self.setting = Setting()

    def problem(self, at: tuple[str, ...], text: str, hint: str = "") -> None:
        """Note a mistake at these keys; the first key is the rule set's name."""
        source, path = at[0], at[1:]
        line = self.line_of(source, path) if self.line_of else None
        self.problems.append(Problem(source, ".".join(path), text, hint, line))

    def compile(self) -> RuleSet:
        chain = self._chain()
        top: dict[str, Any] = {}
        identity: dict[str, tuple[str, Any]] = {}
        rules: dict[str, tuple[str, Any]] = {}
        for name in reversed(chain):
            source = self.sources[name]
            self._known_keys((name,), source, _TOP_KEYS)
            top |= {key: value for key, value in source.items() if key not in ("identity", "rules")}
            for part, into in (("identity", identity), ("rules", rules)):
                said = source.get(part) or {}
                if not isinstance(said, Mapping):
                    self.problem((name, part), f"{part} is a map from attribute to rule")
                    continue
                for key, value in said.items():
                    if value is None:  # an overlay takes a rule away
                        into.pop(str(key), None)
                    else:
                        into[str(key)] = (name, value)
        scheme = str(top.get("default_scheme", "99LOCAL"))
        if not 1 <= len(scheme) <= 16:
            self.problem((self.name, "default_scheme"), "a coding scheme designator has 1 to 16 characters")
        self.setting = Setting(scheme=scheme, schemes=self.tables.get("coding-schemes", {}))
        compiled_identity = {key: self._identity(key, *said) for key, said in identity.items()}
        if chain and not compiled_identity.get("PatientID", IdentitySource("PatientID")).paths:
            self.problem((self.name, "identity", "PatientID"), "no rule says where the patient's identifiers are")
        by_level: dict[Level, list[Rule]] = {level: [] for level in _LEVELS}
        for target, (name, said) in rules.items():
            rule = self._rule(target, name, said)
            if rule is not None:
                by_level[_level(rule.keyword)].append(rule)
        if self.problems:
            raise MappingError(self.problems)
        return RuleSet(
            self.name,
            str(top.get("version", "")),
            self.setting,
            {key: compiled_identity.get(key) or IdentitySource(key, policy=_MADE.get(key)) for key in IDENTITY},
            {level: tuple(found) for level, found in by_level.items()},
            _digest([top, identity, rules, {name: dict(table) for name, table in self.tables.items()}]),
        )

    def _chain(self) -> list[str]:
        """The rule set and what it extends, nearest first."""
        chain: list[str] = []
        name: str | None = self.name
        while name:
            by = chain[-1] if chain else ""
            if name in chain or len(chain) >= EXTENDS_MAX:
                self.problem((by, "extends"), f"{name} is extended in a circle or too deeply")
                break
            if name not in self.sources:
                at = (by, "extends") if by else (name,)
                self.problem(at, f"there is no rule set {name}", did_you_mean(name, self.sources))
                break
            chain.append(name)
            extends = self.sources[name].get("extends")
            name = str(extends) if extends else None
        return chain

    def _known_keys(self, at: tuple[str, ...], said: Mapping[str, Any], known: Sequence[str]) -> None:
        for key in said:
            if key not in known:
                hint = did_you_mean(str(key), known) or f"known are {', '.join(known)}"
                self.problem((*at, str(key)), f"unknown key {key!r}", hint)

    # ---- identity ----

    def _identity(self, key: str, name: str, said: Any) -> IdentitySource:
        at = (name, "identity", key)
        if key not in IDENTITY:
            hint = did_you_mean(key, IDENTITY) or f"known are {', '.join(IDENTITY)}"
            self.problem(at, f"unknown identity {key!r}", hint)
        if not isinstance(said, Mapping):
            said = {"from": said}
        self._known_keys(at, said, _IDENTITY_KEYS)
        paths = self._paths((*at, "from"), said.get("from"))
        if said.get("prefer") and key != "PatientID":
            self.problem((*at, "prefer"), "only patient identifiers have a preferred authority")
        policy, refuse = _MADE.get(key), False
        missing = said.get("missing")
        if missing is not None and key in _MADE:
            policy = self._policy(at, key, missing)
        elif missing is not None:
            refuse = missing == "refuse"
            allowed = _MAY_LACK.get(key, ())
            if missing not in allowed:
                hint = " or ".join(allowed) or "leave missing: out"
                self.problem((*at, "missing"), f"{key} has no missing policy {missing!r}", hint)
        return IdentitySource(key, paths, policy, refuse, str(said.get("prefer") or ""), f"{name}: identity.{key}")

    def _policy(self, at: tuple[str, ...], key: str, missing: Any) -> Policy | None:
        if missing == "omit":
            if _MADE[key] is not None:
                self.problem((*at, "missing"), f"{key} is type 1 in the worklist, so it cannot be left out")
            return None
        if missing in ("generate", "refuse"):
            return Policy(str(missing))
        if isinstance(missing, Mapping) and list(missing) == ["derive"]:
            source = str(missing["derive"])
            if key in ("StudyInstanceUID", "ScheduledProcedureStepID"):
                self.problem((*at, "missing"), f"{key} cannot be derived", "generate or refuse")
            elif source not in _DERIVED_FROM or source == key:
                hint = did_you_mean(source, _DERIVED_FROM) or f"one of {', '.join(_DERIVED_FROM)}"
                self.problem((*at, "missing", "derive"), f"{key} cannot be derived from {source}", hint)
            return Policy("derive", source)
        self.problem((*at, "missing"), f"unknown policy {missing!r}", "omit, generate, refuse, or {derive: KEYWORD}")
        return None

    # ---- rules ----

    def _rule(self, target: str, name: str, said: Any) -> Rule | None:
        at = (name, "rules", target)
        keyword = target.removeprefix(STEP_PREFIX)
        attribute = BY_KEYWORD.get(keyword)
        if attribute is None:
            self.problem(at, f"{keyword} is no worklist attribute", did_you_mean(keyword, BY_KEYWORD))
            return None
        if keyword in _FROM_IDENTITY:
            self.problem(at, f"{keyword} comes from identity", "say under identity: where it is")
            return None
        if keyword == "ScheduledProcedureStepStatus":
            self.problem(at, "the status follows from order control and order status")
            return None
        level = _level(keyword)
        if level not in _LEVELS:
            self.problem(at, f"{keyword} is not set by a rule", "map the attribute that it stands in")
            return None
        if (level is Level.STEP) != target.startswith(STEP_PREFIX):
            right = STEP_PREFIX + keyword if level is Level.STEP else keyword
            self.problem(at, f"{keyword} is not at this level", f"write {right}")
        ways = said if isinstance(said, list) else [said]
        numbered = [(*at, str(number)) for number in range(len(ways))] if len(ways) > 1 else [at]
        found = (self._alternative(where, keyword, way) for where, way in zip(numbered, ways, strict=True))
        alternatives = tuple(way for way in found if way is not None)
        return Rule(
            keyword,
            attribute.tag,
            attribute.vr,
            target,
            attribute.return_type == "1",
            alternatives,
            f"{name}: rules.{target}",
        )

    def _alternative(self, at: tuple[str, ...], keyword: str, said: Any) -> Alternative | None:
        vr = BY_KEYWORD[keyword].vr
        if isinstance(said, str):
            said = {"from": said}
        if not isinstance(said, Mapping):
            self.problem(at, "a rule is a path or a map", "such as {from: PID-5, convert: xpn}")
            return None
        self._known_keys(at, said, _RULE_KEYS)
        missing, default = self._missing(at, keyword, vr, said.get("missing", "omit"))
        if "value" in said and "from" in said:
            self.problem(
                at, "either from or value, not both", "use a list of two rules, the first that gives a value wins"
            )
        if "value" not in said and "from" not in said and missing in ("omit", "refuse"):
            self.problem(at, "neither from nor value nor a missing policy that gives one")
        converter, setting, label = self._converter(at, keyword, vr, said)
        beside = self._paths((*at, "with"), said.get("with"))
        if converter.name in ("weight", "height") and not beside:
            self.problem((*at, "with"), f"{converter.name} has to know the unit", "with: OBX-6")
        repeat = str(said.get("repeat", "first"))
        if repeat not in ("first", "all", "join"):
            self.problem(
                (*at, "repeat"), f"unknown repeat {repeat!r}", "first, all (several values) or join (one text)"
            )
        elif repeat == "join" and vr not in ("LO", "SH", "ST", "LT", "UT"):
            self.problem((*at, "repeat"), f"{keyword} ({vr}) is no text to join", "first or all")
        length = str(said.get("length", "refuse"))
        if length not in ("refuse", "cut"):
            self.problem((*at, "length"), f"unknown length {length!r}", "refuse or cut")
        elif length == "cut" and (keyword.endswith("ID") or vr not in ("LO", "SH", "ST", "LT", "UT")):
            self.problem((*at, "length"), f"{keyword} is never cut", "identifiers and codes are whole or refused")
        paths = self._paths((*at, "from"), said.get("from"))
        return Alternative(
            tuple((path, setting._replace(start=path.component or 1)) for path in paths),
            converter,
            repeat,
            self._conditions((*at, "select"), said.get("select")),
            beside[0] if beside else None,
            self._conditions((*at, "when"), said.get("when")),
            self._constant((*at, "value"), vr, said["value"]) if "value" in said else (),
            length == "cut",
            missing,
            default,
            label,
            not (said.get("select") or beside),
        )

    def _converter(
        self, at: tuple[str, ...], keyword: str, vr: str, said: Mapping[str, Any]
    ) -> tuple[Converter, Setting, str]:
        named = said.get("convert")
        setting = self.setting._replace(vr=vr)
        if isinstance(named, Mapping):
            table = str(named.get("table"))
            unknown = str(said.get("unknown", "refuse"))
            if list(named) != ["table"]:
                self.problem((*at, "convert"), "a converter is a name or {table: NAME}")
            elif table not in self.tables:
                self.problem((*at, "convert", "table"), f"there is no table {table}", did_you_mean(table, self.tables))
            if unknown not in ("refuse", "omit", "keep"):
                self.problem((*at, "unknown"), f"unknown policy {unknown!r}", "refuse, omit or keep")
            self._feeds(at, TABLE, keyword, vr)
            setting = setting._replace(table=self.tables.get(table, {}), table_name=table, unknown=unknown)
            return TABLE, setting, f"table {table}"
        if "unknown" in said:
            self.problem((*at, "unknown"), "only a table knows unknown codes", "convert: {table: NAME}")
        label = str(named) if named else DEFAULT_CONVERTER.get(vr, "")
        converter = self.converters.get(label)
        if converter is None:
            if named:
                self.problem((*at, "convert"), f"unknown converter {label!r}", did_you_mean(label, self.converters))
            elif "from" in said:
                able = sorted(row.name for row in self.converters.values() if vr in row.vrs)
                self.problem((*at, "convert"), f"{keyword} ({vr}) needs a converter", f"one of {', '.join(able)}")
            return self.converters["text"], setting, label
        if "from" in said:
            self._feeds(at, converter, keyword, vr)
        return converter, setting, label

    def _feeds(self, at: tuple[str, ...], converter: Converter, keyword: str, vr: str) -> None:
        if vr not in converter.vrs:
            able = sorted(row.name for row in self.converters.values() if vr in row.vrs)
            self.problem(
                (*at, "convert"), f"{converter.name} cannot give {keyword} ({vr})", f"one of {', '.join(able)}"
            )

    def _missing(self, at: tuple[str, ...], keyword: str, vr: str, said: Any) -> tuple[str, tuple[Any, ...]]:
        if said in ("omit", "refuse"):
            return str(said), ()
        if said == "catalogue":
            if keyword not in _CATALOGUED:
                hint = f"it has {', '.join(sorted(_CATALOGUED))}"
                self.problem((*at, "missing"), f"the procedure catalogue has no {keyword}", hint)
            return "catalogue", ()
        if isinstance(said, Mapping) and list(said) == ["default"]:
            return "default", self._constant((*at, "missing", "default"), vr, said["default"])
        text = f"unknown policy {said!r}"
        if said == "generate" or (isinstance(said, Mapping) and "derive" in said):
            text = f"{keyword} is not a key that can be made"
        self.problem((*at, "missing"), text, "omit, refuse, catalogue, or {default: VALUE}")
        return "omit", ()

    def _constant(self, at: tuple[str, ...], vr: str, said: Any) -> tuple[Any, ...]:
        values: list[Any] = []
        for one in said if isinstance(said, list) else [said]:
            if vr == "SQ":
                if not isinstance(one, Mapping) or not {"code", "scheme"} <= set(one):
                    self.problem(at, "a constant code is {code: ..., scheme: ..., meaning: ...}")
                    continue
                values.append(code_item(str(one["code"]), str(one["scheme"]), str(one.get("meaning", ""))))
            elif vr == "PN":
                values.append({"Alphabetic": str(one)})
            elif vr in ("US", "DS", "IS"):
                if isinstance(one, bool) or not isinstance(one, int | float):
                    self.problem(at, f"{one!r} is not a number")
                    continue
                values.append(one)
            else:
                values += self._fitting(at, vr, str(one))
        return tuple(values)

    def _fitting(self, at: tuple[str, ...], vr: str, said: str) -> list[Any]:
        try:
            value = fit(said, vr, cut=False)
        except Unconvertible as problem:
            self.problem(at, problem.text, problem.hint)
            return []
        if value is None or isinstance(value, Noted):
            self.problem(at, "an empty value")
            return []
        return [value]

    def _paths(self, at: tuple[str, ...], said: Any) -> tuple[Path, ...]:
        paths: list[Path] = []
        for text in said if isinstance(said, list) else [said] if said is not None else []:
            try:
                paths.append(parse_path(str(text)))
            except ValueError as error:
                self.problem(at, str(error))
        return tuple(paths)

    def _conditions(self, at: tuple[str, ...], said: Any) -> tuple[Condition, ...]:
        if said is None:
            return ()
        if not isinstance(said, Mapping):
            self.problem(at, "conditions are a map from path to value or values")
            return ()
        conditions: list[Condition] = []
        for path, values in said.items():
            wanted = values if isinstance(values, list) else [values]
            folded = frozenset("" if value is None else str(value).casefold() for value in wanted)
            conditions += [(found, folded) for found in self._paths((*at, str(path)), path)]
        return tuple(conditions)


def _level(keyword: str) -> Level:
    """Where an attribute is held; the sender's offset from UTC goes with the procedure's scheduled start (D13)."""
    return Level.PROCEDURE if keyword == "TimezoneOffsetFromUTC" else BY_KEYWORD[keyword].level


def _digest(content: Any) -> str:
    plain = json.dumps(content, sort_keys=True, default=str, ensure_ascii=True)
    return hashlib.sha256(plain.encode()).hexdigest()


def compile_table(name: str, rows: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """A code table from rows with columns `code`, `value` and, for people, `comment`.

    Codes are compared in any case. An empty value deletes, `-` is as if nothing had been sent. Raises MappingError.
    """
    table: dict[str, str] = {}
    problems: list[Problem] = []
    for line, row in enumerate(rows, 2):
        code, value = (row.get("code") or "").strip().upper(), row.get("value")
        if not code or value is None:
            problems.append(Problem(name, "", "a row needs a code and a value", "columns: code,value,comment", line))
        elif code in table:
            problems.append(Problem(name, "code", f"{code} is there twice", "remove one", line))
        else:
            table[code] = value.strip()
    if problems:
        raise MappingError(problems)
    return table
