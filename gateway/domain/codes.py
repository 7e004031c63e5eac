"""Translation of codes between coding systems: maps from CSV rows or FHIR ConceptMaps (R4, R5), put to coded entries.

A map says which codes mean the same. What it gives becomes the code, and what was sent goes beside it as equivalent
(PS3.3 8.9). Targets that a map calls wider, narrower or merely related mean something else and are not used.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from gateway.domain.attributes import TAG, Attributes, code_item, element, text, values
from gateway.domain.coding_schemes import LEGACY_SNOMED
from gateway.domain.converters import Converter, Noted, Setting, Unconvertible, scheme_designator
from gateway.domain.problem import MappingError, Problem, did_you_mean
from gateway.domain.refusal import RefusalKind
from gateway.domain.rows import numbered, unknown_columns
from gateway.domain.source import Repetition

COLUMNS: Mapping[str, str] = {
    "source_scheme": "coding scheme of the code sent, by any of its names; empty: any",
    "source_code": "the code sent (required)",
    "target_scheme": "coding scheme of the code that means the same (required)",
    "target_code": "that code (required)",
    "target_meaning": "its meaning; empty: the meaning sent",
    "target_version": "version of its coding scheme, where the designator alone is ambiguous (BI, local schemes)",
    "equivalence": "equivalent (or empty); rows with any other word are not used",
    "comment": "for people",
}
_NEEDED = ("source_code", "target_scheme", "target_code")
"""The columns of a translation in mappings/codes, and what they mean."""

_SAME = frozenset({"", "equal", "equivalent"})
_DIFFERENT = frozenset({
    "relatedto", "subsumes", "wider", "narrower", "specializes", "inexact", "unmatched", "disjoint",  # R4
    "related-to", "source-is-narrower-than-target", "source-is-broader-than-target", "not-related-to",  # R5
})  # fmt: skip
_BREAST = "BI"  # its codes are ambiguous without a version (PS3.16 8, terminology of CID 6027)


class Code(NamedTuple):
    """A code by coding scheme designator and value; the rest says how to write it and where it was read."""

    scheme: str
    value: str
    meaning: str = ""
    version: str = ""
    line: int = 0


@dataclass(frozen=True, slots=True)
class Translation:
    """A compiled map: source (designator, code) -> what means the same, one code for each target scheme."""

    name: str
    codes: Mapping[tuple[str, str], tuple[Code, ...]]
    digest: str = ""

    def find(self, scheme: str, value: str, to: str = "") -> Code | None:
        """What means the same in scheme `to` (empty: in any). The older names of SNOMED share their codes."""
        schemes = [scheme, *(sorted(LEGACY_SNOMED - {scheme}) if scheme in LEGACY_SNOMED else ()), ""]
        for source in schemes:
            for code in self.codes.get((source, value), ()):
                if to in ("", code.scheme):
                    return code
        return None

    @property
    def schemes(self) -> frozenset[str]:
        """The schemes it translates to."""
        return frozenset(code.scheme for codes in self.codes.values() for code in codes)


def compile_translation(
    name: str, rows: Iterable[Mapping[str, Any]], source: str = "", schemes: Mapping[str, str] | None = None
) -> Translation:
    """A translation of CSV rows; `schemes` are the site's own names of coding schemes. Raises MappingError."""
    source = source or name
    problems: list[Problem] = []
    found = _Found(Setting(schemes=schemes or {}), source, problems)
    for line, cells in numbered(rows):
        if not found.codes and not problems:
            problems += unknown_columns(cells, COLUMNS, source, _NEEDED)
        lacking = [column for column in _NEEDED if not cells.get(column)]
        word = cells.get("equivalence", "").lower()
        if word not in _SAME | _DIFFERENT:
            hint = did_you_mean(word, _SAME | _DIFFERENT) or "equivalent"
            problems.append(Problem(source, "equivalence", f"{word!r} says nothing about sameness", hint, line))
        if lacking:
            problems.append(Problem(source, lacking[0], f"a row without {', '.join(lacking)}", "", line))
        elif word in _SAME:
            target = (cells["target_scheme"], cells["target_code"])
            how = (cells.get("target_meaning", ""), cells.get("target_version", ""), line)
            found.add((cells.get("source_scheme", ""), cells["source_code"]), target, how)
    return found.compiled(name)


def compile_concept_map(
    name: str, resource: Any, source: str = "", schemes: Mapping[str, str] | None = None
) -> Translation:
    """A translation of a FHIR ConceptMap (R4 or R5, as its JSON gives it); as for CSV. Raises MappingError."""
    source = source or name
    problems: list[Problem] = []
    found = _Found(Setting(schemes=schemes or {}), source, problems)
    if not isinstance(resource, Mapping) or resource.get("resourceType") != "ConceptMap":
        raise MappingError([Problem(source, "resourceType", "is no FHIR ConceptMap", "codes/*.json are ConceptMaps")])
    for where, group in _items(resource, "group", "", source, problems):
        system, target_system = str(group.get("source", "")), str(group.get("target", ""))
        if not target_system:
            problems.append(Problem(source, where, "a group without target system", "say which scheme it maps to"))
            continue
        # A canonical may end with |version; the scheme is named without.
        systems = system.partition("|")[0], target_system.partition("|")[0]
        for place, concept in _items(group, "element", f"{where}.", source, problems):
            for spot, target in _items(concept, "target", f"{place}.", source, problems):
                word = str(target.get("equivalence") or target.get("relationship") or "").lower()
                if word not in _SAME or not target.get("code"):
                    continue
                how = (str(target.get("display", "")), "", 0)
                codes = (systems[0], str(concept.get("code", ""))), (systems[1], str(target["code"]))
                found.add(*codes, how, spot)
    return found.compiled(name)


def _items(
    held: Mapping[str, Any], key: str, under: str, source: str, problems: list[Problem]
) -> Iterator[tuple[str, Mapping[str, Any]]]:
    items = held.get(key) or ()
    if not isinstance(items, list | tuple):
        problems.append(Problem(source, f"{under}{key}", "is no list", "as FHIR ConceptMap has them"))
        return
    for number, item in enumerate(items):
        where = f"{under}{key}[{number}]"
        if isinstance(item, Mapping):
            yield where, item
        else:
            problems.append(Problem(source, where, "is no object", "as FHIR ConceptMap has them"))


class _Found:
    """What a map says so far, by source code; contradictions and unusable schemes are problems."""

    def __init__(self, setting: Setting, source: str, problems: list[Problem]) -> None:
        self.setting, self.source, self.problems = setting, source, problems
        self.codes: dict[tuple[str, str], list[Code]] = {}

    def add(self, sent: tuple[str, str], target: tuple[str, str], how: tuple[str, str, int], where: str = "") -> None:
        """One pair (scheme, code) that means the same as another; `how` is meaning, version and line of the target."""
        line = how[2] or None
        try:
            key = (scheme_designator(sent[0], self.setting) if sent[0] else "", sent[1])
            code = Code(scheme_designator(target[0], self.setting), target[1], *how)
        except Unconvertible as problem:
            self.problems.append(Problem(self.source, where or "scheme", problem.text, problem.hint, line))
            return
        held = self.codes.setdefault(key, [])
        same = next((one for one in held if one.scheme == code.scheme), None)
        if same is None:
            held.append(code)
        elif same.value != code.value:
            self.problems.append(Problem(
                self.source, where, f"{sent[1]} means {same.value} already, so it cannot mean {code.value} too",
                f"one code of {code.scheme} means the same; remove one", line,
            ))  # fmt: skip

    def compiled(self, name: str) -> Translation:
        """All of it. Raises MappingError with every problem."""
        if self.problems:
            raise MappingError(self.problems)
        codes = {key: tuple(held) for key, held in self.codes.items()}
        content = json.dumps(sorted((key, list(held)) for key, held in codes.items()))
        return Translation(name, codes, hashlib.sha256(content.encode()).hexdigest())


class Translating(NamedTuple):
    """What a rule's `translate:` says: the maps, tried in turn, the scheme wanted, and what to do with the rest."""

    maps: tuple[Translation, ...]
    to: str = ""
    unknown: str = "keep"

    def find(self, scheme: str, value: str) -> tuple[Translation, Code] | None:
        """The first map that has the code, and what it gives."""
        for map_ in self.maps:
            code = map_.find(scheme, value, self.to)
            if code is not None:
                return map_, code
        return None

    def __str__(self) -> str:
        return f"translated by {', '.join(map_.name for map_ in self.maps)}" + (f" to {self.to}" if self.to else "")


def translated(converter: Converter, how: Translating) -> Converter:
    """A converter to code items whose codes are translated."""
    function = converter.function

    def convert(repetition: Repetition, setting: Setting) -> Any:
        item = function(repetition, setting)
        return _translated(item, how) if type(item) is dict else item

    def row(repetition: Repetition, setting: Setting) -> str:
        item = function(repetition, setting)
        found = _found(item, how) if type(item) is dict else None
        if found is None:
            return ""
        return f"{found[0].name} line {found[1].line}" if found[1].line else found[0].name

    return Converter(converter.name, convert, converter.vrs, converter.joint, row)


def code_of(item: Attributes) -> tuple[str, str]:
    """Designator and value of a code item; URNs have no designator."""
    value = text(item, "CodeValue") or text(item, "LongCodeValue") or text(item, "URNCodeValue")
    return text(item, "CodingSchemeDesignator"), value


def _found(item: Attributes, how: Translating) -> tuple[Translation, Code] | None:
    scheme, value = code_of(item)
    return None if how.to and scheme == how.to and scheme != _BREAST else how.find(scheme, value)


def _translated(item: Attributes, how: Translating) -> Any:
    scheme, value = code_of(item)
    found = _found(item, how)
    if found is None:
        if how.unknown == "keep" or (how.to and scheme == how.to):
            return item
        names = ", ".join(map_.name for map_ in how.maps)
        said = f"{value!r} of {scheme or 'no scheme'} is not in {names}"
        if how.unknown == "omit":
            return Noted(None, f"{said}; left out")
        known = {code for map_ in how.maps for _, code in map_.codes}
        raise Unconvertible(
            RefusalKind.UNKNOWN_CODE, said,
            did_you_mean(value, known) or f"add it to mappings/codes/{how.maps[0].name}", 1,
        )  # fmt: skip
    code = found[1]
    made = code_item(code.value, code.scheme, code.meaning or text(item, "CodeMeaning"), code.version)
    equivalents = list(values(item, "EquivalentCodeSequence"))
    if (scheme, value) != (code.scheme, code.value):
        equivalents.insert(0, {tag: held for tag, held in item.items() if tag != TAG["EquivalentCodeSequence"]})
    equivalents = [one for one in equivalents if code_of(one) != (code.scheme, code.value)]
    if equivalents:
        made[TAG["EquivalentCodeSequence"]] = element("EquivalentCodeSequence", *equivalents)
    return made
