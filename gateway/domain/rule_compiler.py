"""What a site wrote as rules, checked whole and compiled: every mistake is found before the first message.

Unknown keys, keywords, converters, edits, tables and paths, targets at the wrong level, converters that cannot feed a
target, a site's own converters that fail their example: each is a problem with its place, the offending text and, where
one is near, the word that was meant.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from gateway.domain.attributes import BY_KEYWORD, Level, code_item
from gateway.domain.catalogue import PROCEDURE_KEYWORDS, STEP_KEYWORDS
from gateway.domain.codes import Translating, translated
from gateway.domain.converters import (
    DEFAULT_CONVERTER,
    TABLE,
    Converter,
    Noted,
    Setting,
    Unconvertible,
    fit,
    scheme_designator,
)
from gateway.domain.edits import after_edits
from gateway.domain.order import Policy
from gateway.domain.path_readers import HL7, AnyPaths, HL7Paths, PathReader, UnreadablePath
from gateway.domain.problem import MappingError, did_you_mean, one_of
from gateway.domain.rule_checks import Library, LineOf, RuleChecker, digest_of, folded
from gateway.domain.rule_words import (
    FROM_IDENTITY,
    IDENTITY_KEYS,
    LENGTHS,
    LEVELS,
    MISSING,
    REPEATS,
    RULE_KEYS,
    TOP_KEYS,
    UNKNOWNS,
    level_of,
    may_be_cut,
)
from gateway.domain.rules import IDENTITY, STEP_PREFIX, Alternative, IdentitySource, Rule, RuleSet
from gateway.domain.selection import Condition, Pick
from gateway.domain.source import Path
from gateway.domain.stations import STATION_KEYWORDS

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
_CATALOGUED = frozenset(STEP_KEYWORDS + PROCEDURE_KEYWORDS)


def compile_rules(
    sources: Mapping[str, Mapping[str, Any]],
    name: str,
    library: Library = Library(),  # noqa: B008  (it is immutable)
    line_of: LineOf | None = None,
) -> RuleSet:
    """The rule set `name` on top of what it extends. Raises MappingError with every problem of the whole chain."""
    return _Compiler(sources, name, library, line_of).compile()


def _over(kept: Any, said: Any) -> Any:
    """What an overlay says of a key on top of what is said already; without `from` the rest stays as it is."""
    if kept is None or not isinstance(said, Mapping) or "from" in said:
        return said
    return {**(kept if isinstance(kept, Mapping) else {"from": kept}), **said}


class _Compiler(RuleChecker):
    """One compilation of an inbound rule set."""

    setting: Setting
    reader: PathReader

    def compile(self) -> RuleSet:
        chain = self.chain()
        language = self._language(chain)
        self.reader = self._reader(language, chain)
        top: dict[str, Any] = {}
        own: dict[str, tuple[str, Any]] = {}
        identity: dict[str, tuple[str, Any]] = {}
        rules: dict[str, tuple[str, Any]] = {}
        for name in reversed(chain):
            source = self.sources[name]
            self.known_keys((name,), source, TOP_KEYS)
            top |= {key: value for key, value in source.items() if key not in ("converters", "identity", "rules")}
            for part, into in (("converters", own), ("identity", identity), ("rules", rules)):
                said = source.get(part) or {}
                if not isinstance(said, Mapping):
                    self.problem((name, part), f"{part} is a map from name to rule", "such as `PatientID: PID-3`")
                    continue
                for key, value in said.items():
                    if value is None:  # an overlay takes a rule away
                        into.pop(str(key), None)
                    else:
                        kept = into[str(key)][1] if part == "identity" and str(key) in into else None
                        into[str(key)] = (name, _over(kept, value))
        scheme = str(top.get("default_scheme", "99LOCAL"))
        if not 1 <= len(scheme) <= 16:
            self.problem((self.name, "default_scheme"), "a coding scheme designator has 1 to 16 characters")
        self.setting = Setting(scheme=scheme, schemes=self.tables.get("coding-schemes", {}), uris=language != HL7)
        for label, declared in own.items():
            self.site_converter(label, *declared)
        compiled_identity = {key: self._identity(key, *said) for key, said in identity.items()}
        if self.whole and not compiled_identity.get("PatientID", IdentitySource("PatientID")).paths:
            self.problem(
                (self.name, "identity", "PatientID"), "no rule says where the patient's identifiers are",
                "extend a rule set that does (extends: ihe-swf), or write PatientID: PID-3",
            )  # fmt: skip
        by_level: dict[Level, list[Rule]] = {level: [] for level in LEVELS}
        for target, (name, said) in rules.items():
            rule = self._rule(target, name, said)
            if rule is not None:
                by_level[level_of(rule.keyword)].append(rule)
        if self.problems:
            raise MappingError(self.problems)
        return RuleSet(
            self.name,
            str(top.get("version", "")),
            self.setting,
            {key: compiled_identity.get(key) or IdentitySource(key, policy=_MADE.get(key)) for key in IDENTITY},
            {level: tuple(sorted(found, key=_turn)) for level, found in by_level.items()},
            self._digest(top, own, identity, rules),
            language,
        )

    def _language(self, chain: Sequence[str]) -> str:
        """What the paths of the chain are written in: HL7 v2, or the release of FHIR that is said last.

        An overlay may read another release than its base (what the two have otherwise it says anew), not another
        language.
        """
        said = [name for name in chain if "fhir" in self.sources[name]]
        if said and chain[-1] not in said and self.whole:
            text = f"{chain[-1]}, which it extends, reads HL7 v2"
            self.problem((said[-1], "fhir"), text, "one rule set has one language: extend another, or none")
        return str(self.sources[said[0]]["fhir"]) if said else HL7

    def _reader(self, language: str, chain: Sequence[str]) -> PathReader:
        if language == HL7:
            return HL7Paths() if self.whole else AnyPaths()
        known = self.library.readers
        if language not in known:
            at = next(name for name in chain if "fhir" in self.sources[name])
            self.problem((at, "fhir"), f"there is no release {language!r} of FHIR here", one_of(language, known))
        return known.get(language, AnyPaths())

    def _digest(self, top: Any, own: Mapping[str, tuple[str, Any]], *said: Any) -> str:
        """What names the content of everything that the rule set may use."""
        content = [top, *said, {name: dict(table) for name, table in self.tables.items()}]
        more = {name: translation.digest for name, translation in self.library.translations.items()}
        used = [(name, said, self.library.functions[str(said["function"])].digest) for name, (_, said) in own.items()]
        return digest_of([*content, *filter(None, (more, used))])

    # ---- identity ----

    def _identity(self, key: str, name: str, said: Any) -> IdentitySource:
        at = (name, "identity", key)
        if key not in IDENTITY:
            self.problem(at, f"unknown identity {key!r}", one_of(key, IDENTITY))
            return IdentitySource(key)
        if not isinstance(said, Mapping):
            said = {"from": said}
        self.known_keys(at, said, IDENTITY_KEYS)
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
        pick = self._pick((*at, "pick"), said.get("pick"))
        edits, label = self.edits((*at, "edit"), said.get("edit"))
        prefer = str(said.get("prefer") or "")
        return IdentitySource(key, paths, policy, refuse, prefer, f"{name}: identity.{key}", pick, edits, label)

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
        hint = did_you_mean(str(missing), ("omit", "generate", "refuse"))
        hint = hint or "omit, generate, refuse, or {derive: KEYWORD}"
        self.problem((*at, "missing"), f"unknown policy {missing!r}", hint)
        return None

    # ---- rules ----

    def _rule(self, target: str, name: str, said: Any) -> Rule | None:
        at = (name, "rules", target)
        keyword = target.removeprefix(STEP_PREFIX)
        attribute = BY_KEYWORD.get(keyword)
        if attribute is None:
            self.problem(at, f"{keyword} is no worklist attribute", did_you_mean(keyword, BY_KEYWORD))
            return None
        if keyword in FROM_IDENTITY:
            self.problem(at, f"{keyword} comes from identity", "say under identity: where it is")
            return None
        if keyword == "ScheduledProcedureStepStatus":
            self.problem(at, "the status follows from order control and order status")
            return None
        level = level_of(keyword)
        if level not in LEVELS:
            self.problem(at, f"{keyword} is not set by a rule", "map the attribute that it stands in")
            return None
        if (level is Level.STEP) != target.startswith(STEP_PREFIX):
            right = STEP_PREFIX + keyword if level is Level.STEP else keyword
            self.problem(at, f"{keyword} is not at this level", f"write {right}")
        ways = said if isinstance(said, list) else [said]
        if not ways:
            self.problem(at, "an empty list of rules", "write null to take the rule away")
            return None
        numbered = [(*at, str(number)) for number in range(len(ways))] if len(ways) > 1 else [at]
        found = (self._alternative(where, keyword, way) for where, way in zip(numbered, ways, strict=True))
        alternatives = tuple(way for way in found if way is not None)
        for where, way in zip(numbered, alternatives, strict=False):
            final = not (way.when or way.unless) and {"default", "refuse"} & set(way.missing)
            if final and where != numbered[-1]:
                self.problem((*where, "missing"), "the rules below it never count", "say it in the last of the list")
        return Rule(
            keyword,
            attribute.tag,
            attribute.vr,
            target,
            attribute.return_type == "1",
            alternatives,
            f"{name}: rules.{target}",
            said,
        )

    def _alternative(self, at: tuple[str, ...], keyword: str, said: Any) -> Alternative | None:
        vr = BY_KEYWORD[keyword].vr
        if isinstance(said, str):
            said = {"from": said}
        if not isinstance(said, Mapping):
            self.problem(at, "a rule is a path or a map", "such as {from: PID-5, convert: xpn}")
            return None
        known = self.known_keys(at, said, RULE_KEYS)
        missing, default = self._missing((*at, "missing"), keyword, vr, said.get("missing", "omit"))
        if "value" in said and "from" in said:
            self.problem(
                at, "either from or value, not both", "use a list of two rules, the first that gives a value wins"
            )
        if known and "value" not in said and "from" not in said and not set(missing) - {"refuse"}:
            hint = "from: PATH, or value: TEXT"
            self.problem(at, "neither from nor value nor a missing policy that gives one", hint)
        converter, setting, label = self._converter(at, keyword, vr, said)
        paths = self._paths((*at, "from"), said.get("from"))
        beside = self._paths((*at, "with"), said.get("with"), paths)
        if converter.name in ("weight", "height") and not said.get("with"):
            hint = f"with: {self.reader.unit_example}"
            self.problem((*at, "with"), f"{converter.name} has to know the unit", hint)
        repeat = self.choice((*at, "repeat"), said.get("repeat", "first"), REPEATS)
        if repeat == "join" and vr not in ("LO", "SH", "ST", "LT", "UT"):
            self.problem((*at, "repeat"), f"{keyword} ({vr}) is no text to join", "first or all")
        length = self.choice((*at, "length"), said.get("length", "refuse"), LENGTHS)
        if length == "cut" and not may_be_cut(keyword, vr):
            self.problem((*at, "length"), f"{keyword} is never cut", "identifiers and codes are whole or refused")
        pick = self._pick((*at, "pick"), said.get("pick"))
        return Alternative(
            tuple((path, setting._replace(start=path.component or 1)) for path in paths),
            converter,
            repeat,
            self._conditions((*at, "select"), said.get("select"), paths),
            beside[0] if beside else None,
            self._conditions((*at, "when"), said.get("when")),
            self._conditions((*at, "unless"), said.get("unless")),
            pick,
            self._constant((*at, "value"), vr, said["value"]) if "value" in said else (),
            length == "cut",
            missing,
            default,
            label,
            not (said.get("select") or beside or pick),
        )

    def _converter(
        self, at: tuple[str, ...], keyword: str, vr: str, said: Mapping[str, Any]
    ) -> tuple[Converter, Setting, str]:
        """The converter with edits and translation around it, what it is told, and how a trace names it."""
        edits, edited = self.edits((*at, "edit"), said.get("edit"))
        named = said.get("convert")
        setting = self.setting._replace(vr=vr)
        if isinstance(named, Mapping):
            converter, setting, label = self._table(at, keyword, setting, said)
        else:
            if isinstance(named, str) and named in self.own:
                edits, edited = (*edits, self.own[named]), f"{edited}, {named}".removeprefix(", ")
                named = None
            label = str(named) if named else DEFAULT_CONVERTER.get(vr, "")
            converter = self._by_name(at, keyword, vr, label, said)
        if "translate" in said:
            how = self._translating((*at, "translate"), vr, said)
            if how.maps:
                converter, label = translated(converter, how), f"{label}, {how}"
        elif "unknown" in said and not isinstance(named, Mapping):
            self.problem((*at, "unknown"), "only a table or a map knows unknown codes", "convert: {table: NAME}")
        return after_edits(converter, edits), setting, f"{edited}, {label}" if edited else label

    def _by_name(self, at: tuple[str, ...], keyword: str, vr: str, label: str, said: Mapping[str, Any]) -> Converter:
        converter = self.converters.get(label)
        if converter is None:
            if label:
                known, able = [*self.converters, *self.own], [*self._able(vr), *self.own]
                hint = did_you_mean(label, known) or f"for {vr} there are {', '.join(able)}"
                self.problem((*at, "convert"), f"unknown converter {label!r}", hint)
            elif "from" in said:
                hint = f"one of {', '.join(self._able(vr))}"
                self.problem((*at, "convert"), f"{keyword} ({vr}) needs a converter", hint)
            return self.converters["text"]
        if "from" in said:
            self._feeds(at, converter, keyword, vr)
        return converter

    def _table(
        self, at: tuple[str, ...], keyword: str, setting: Setting, said: Mapping[str, Any]
    ) -> tuple[Converter, Setting, str]:
        named = said["convert"]
        table = str(named.get("table"))
        unknown = self.choice((*at, "unknown"), said.get("unknown", "refuse"), UNKNOWNS)
        if list(named) != ["table"]:
            self.problem((*at, "convert"), "a converter is a name or {table: NAME}")
        elif table not in self.tables:
            self.problem((*at, "convert", "table"), f"there is no table {table}", one_of(table, self.tables))
        self._feeds(at, TABLE, keyword, setting.vr)
        setting = setting._replace(table=self.tables.get(table, {}), table_name=table, unknown=unknown)
        return TABLE, setting, f"table {table}"

    def _translating(self, at: tuple[str, ...], vr: str, said: Mapping[str, Any]) -> Translating:
        how = said["translate"]
        if not isinstance(how, Mapping):
            how = {"map": how}
        self.known_keys(at, how, {"map": "", "to": ""})
        unknown = self.choice((*at[:-1], "unknown"), said.get("unknown", "keep"), UNKNOWNS)
        if vr != "SQ":
            self.problem(at, "only codes are translated", "use a table for texts: convert: {table: NAME}")
        known = self.library.translations
        names = how.get("map") if isinstance(how.get("map"), list) else [how.get("map")]
        for name in map(str, names or ()):
            if name not in known:
                self.problem((*at, "map"), f"there is no map {name}", one_of(name, known))
        maps = tuple(known[name] for name in map(str, names or ()) if name in known)
        try:
            to = scheme_designator(str(how.get("to") or ""), self.setting._replace(scheme=""))
        except Unconvertible as problem:
            self.problem((*at, "to"), problem.text, problem.hint)
            to = ""
        schemes = {scheme for translation in maps for scheme in translation.schemes}
        if to and maps and to not in schemes:
            hint = did_you_mean(to, schemes) or f"they give {', '.join(sorted(schemes))}"
            self.problem((*at, "to"), f"none of the maps gives codes of {to}", hint)
        return Translating(maps, to, unknown)

    def _feeds(self, at: tuple[str, ...], converter: Converter, keyword: str, vr: str) -> None:
        if vr not in converter.vrs:
            hint = f"one of {', '.join(self._able(vr))}"
            self.problem((*at, "convert"), f"{converter.name} cannot give {keyword} ({vr})", hint)

    def _able(self, vr: str) -> list[str]:
        """The converters that give values of this VR."""
        return sorted(row.name for row in self.converters.values() if vr in row.vrs)

    def _missing(
        self, at: tuple[str, ...], keyword: str, vr: str, said: Any
    ) -> tuple[tuple[str, ...], tuple[Any, ...]]:
        """What to do without a value, in turn, and the default."""
        ways: list[str] = []
        default: tuple[Any, ...] = ()
        several = said if isinstance(said, list) else [said]
        for number, one in enumerate(several, 1):
            if ways and ways[-1] in ("default", "refuse"):
                self.problem(at, f"nothing comes after {ways[-1]}", "say it last")
            if one == "catalogue" and keyword not in _CATALOGUED:
                hint = f"it has {', '.join(sorted(_CATALOGUED))}"
                self.problem(at, f"the procedure catalogue has no {keyword}", hint)
            elif one == "stations" and keyword not in STATION_KEYWORDS:
                hint = f"they have {', '.join(STATION_KEYWORDS)}"
                self.problem(at, f"station rules have no {keyword}", hint)
            elif isinstance(one, Mapping) and list(one) == ["default"]:
                ways.append("default")
                default = self._constant((*at, "default"), vr, one["default"])
            elif one in ("catalogue", "stations", "refuse"):
                ways.append(str(one))
            elif one != "omit" or number < len(several):
                text = f"unknown policy {one!r}"
                if one == "generate" or (isinstance(one, Mapping) and "derive" in one):
                    text = f"{keyword} is not a key that can be made"
                hint = did_you_mean(str(one), MISSING) or f"{', '.join(MISSING)}, or {{default: VALUE}}"
                self.problem(at, text, hint)
        return tuple(ways), default

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

    def _paths(self, at: tuple[str, ...], said: Any, beside: Sequence[Path] | None = None) -> tuple[Path, ...]:
        """The paths that are said; with `beside` those of what holds these values."""
        reader = self.reader
        paths: list[Path] = []
        for text in said if isinstance(said, list) else [said] if said is not None else []:
            try:
                paths.append(reader.path(str(text)) if beside is None else reader.beside(str(text), beside))
            except UnreadablePath as error:
                self.problem(at, str(error), error.hint)
        return tuple(paths)

    def _pick(self, at: tuple[str, ...], said: Any) -> Pick | None:
        if said is None:
            return None
        if said in ("first", "last"):
            return Pick(position=1 if said == "first" else -1)
        if type(said) is int and said > 0:
            return Pick(position=said)
        if not isinstance(said, Mapping) or not said:
            self.problem(
                at, f"cannot pick by {said!r}", "{COMPONENT: value or values}, first, last, or a number from 1"
            )
            return None
        components: list[tuple[int, int, frozenset[str]]] = []
        for place, values in said.items():
            number, _, sub = str(place).partition(".")
            if not (number.isdigit() and int(number) and (not sub or (sub.isdigit() and int(sub)))):
                hint = "such as 5, or 4.2 for a subcomponent"
                self.problem((*at, str(place)), f"{place!r} is no number of a component", hint)
                continue
            components.append((int(number), int(sub or 1), folded(values)))
        return Pick(tuple(components))

    def _conditions(
        self, at: tuple[str, ...], said: Any, beside: Sequence[Path] | None = None
    ) -> tuple[Condition, ...]:
        if said is None:
            return ()
        if not isinstance(said, Mapping):
            self.problem(at, "conditions are a map from path to value or values")
            return ()
        conditions: list[Condition] = []
        for path, values in said.items():
            conditions += [(found, folded(values)) for found in self._paths((*at, str(path)), path, beside)]
        return tuple(conditions)


def _turn(rule: Rule) -> int:
    """Rules that ask for stations are evaluated last, the AE title first: a station is chosen by all the rest."""
    asks = any("stations" in way.missing for way in rule.alternatives)
    return 1 + list(STATION_KEYWORDS).index(rule.keyword) if asks else 0
