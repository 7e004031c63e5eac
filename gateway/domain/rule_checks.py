"""What every compiler of rules checks: chains of `extends`, known words, a site's own converters, edits.

`rule_compiler` and `outbound_compiler` are those that there are.
"""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from gateway.domain.codes import Translation
from gateway.domain.converters import CONVERTERS, Converter, Unconvertible
from gateway.domain.edits import EDITS, Edit, SiteFunction, is_date_pattern
from gateway.domain.path_readers import PathReader
from gateway.domain.problem import Problem, did_you_mean, one_of
from gateway.domain.rule_words import CONVERTER_KEYS

LineOf = Callable[[str, tuple[str, ...]], int | None]
"""Where a rule file says something: (rule set name, keys from the top) -> line, None where not known."""

EXTENDS_MAX = 8
"""Rule sets on top of each other; a site overlay on ours on a common base makes three."""


class Library(NamedTuple):
    """What rule sets may name: tables, converters, translations of codes, the site's functions, languages of paths."""

    tables: Mapping[str, Mapping[str, str]] = {}
    converters: Mapping[str, Converter] = CONVERTERS
    translations: Mapping[str, Translation] = {}
    functions: Mapping[str, SiteFunction] = {}
    readers: Mapping[str, PathReader] = {}
    """Languages of paths beside that of HL7 v2, by what `fhir:` calls them."""


class RuleChecker:
    """One compilation: collects problems instead of stopping at the first."""

    def __init__(
        self,
        sources: Mapping[str, Mapping[str, Any]],
        name: str,
        library: Library,
        line_of: LineOf | None,
    ) -> None:
        self.sources, self.name, self.library, self.line_of = sources, name, library, line_of
        self.tables, self.converters = library.tables, library.converters
        self.own: dict[str, Edit] = {}
        self.problems: list[Problem] = []
        self.whole = True  # whether the rule set and all that it extends are there

    def problem(self, at: tuple[str, ...], text: str, hint: str = "") -> None:
        """Note a mistake at these keys; the first key is the rule set's name."""
        source, path = at[0], at[1:]
        line = self.line_of(source, path) if self.line_of else None
        self.problems.append(Problem(source, ".".join(path), text, hint, line))

    def chain(self) -> list[str]:
        """The rule set and what it extends, nearest first."""
        chain: list[str] = []
        name: str | None = self.name
        while name:
            by = chain[-1] if chain else ""
            if name in chain:
                self._circle(chain[chain.index(name) :])
                break
            if len(chain) >= EXTENDS_MAX:
                text = f"more than {EXTENDS_MAX} rule sets on top of each other"
                self.problem((by, "extends"), text, " -> ".join((*chain, name)))
                break
            if name not in self.sources:
                at = (by, "extends") if by else (name,)
                self.problem(at, f"there is no rule set {name}", one_of(name, self.sources))
                break
            chain.append(name)
            extends = self.sources[name].get("extends")
            name = str(extends) if extends else None
        self.whole = name is None
        return chain

    def _circle(self, circle: Sequence[str]) -> None:
        """Told of the same one of them whichever is compiled."""
        turn = circle.index(min(circle))
        told = [*circle[turn:], *circle[:turn], circle[turn]]
        self.problem((told[0], "extends"), f"{' -> '.join(told)} goes in a circle", "take one `extends:` out")

    def known_keys(self, at: tuple[str, ...], said: Mapping[str, Any], known: Mapping[str, str]) -> bool:
        """Whether all are known; a problem for each that is not."""
        unknown = [key for key in said if key not in known]
        for key in unknown:
            hint = did_you_mean(str(key), known) or f"known are {', '.join(known)}"
            self.problem((*at, str(key)), f"unknown key {key!r}", hint)
        return not unknown

    def choice(self, at: tuple[str, ...], said: Any, allowed: Sequence[str]) -> str:
        """One of the words, or a problem."""
        if said not in allowed:
            hint = did_you_mean(str(said), allowed) or f"one of {', '.join(allowed)}"
            self.problem(at, f"unknown {at[-1]} {said!r}", hint)
        return str(said)

    # ---- the site's own ----

    def site_converter(self, label: str, name: str, said: Any) -> None:
        """A converter of the site's own: found, of the right signature, and tried on its example."""
        at = (name, "converters", label)
        self.own[label] = str  # so that rules that use it have no problem of their own
        if not isinstance(said, Mapping):
            said = {"function": said}
        self.known_keys(at, said, CONVERTER_KEYS)
        if label in self.converters or label in EDITS:
            self.problem(at, f"{label} is the name of a converter or edit of ours", "choose another")
        wanted = str(said.get("function", ""))
        function = self.library.functions.get(wanted)
        if function is None:
            hint = did_you_mean(wanted, self.library.functions) or "FILE.FUNCTION of mappings/converters/FILE.py"
            self.problem((*at, "function"), f"there is no function {wanted!r}", hint)
            return
        unfit = function.unfit()
        if unfit:
            self.problem(
                (*at, "function"), f"{wanted} ({function.place}): {unfit}", "def name(text: str) -> str | None"
            )
            return
        self.own[label] = function.named(label)
        if said.get("example") is None:
            self.problem(at, "there is no example to try it on", "example: a text as it is sent")
            return
        try:
            given = self.own[label](str(said["example"]))
        except Unconvertible as problem:
            self.problem((*at, "example"), problem.text, problem.hint)
            return
        if "gives" in said and given != str(said["gives"] or ""):
            self.problem((*at, "gives"), f"{wanted} gives {given!r} instead of {str(said['gives'])!r}", function.place)

    def edits(self, at: tuple[str, ...], said: Any) -> tuple[tuple[Edit, ...], str]:
        """The edits of `edit:`, and how a trace names them."""
        edits: list[Edit] = []
        labels: list[str] = []
        for one in said if isinstance(said, list) else [said] if said is not None else []:
            name, argument = next(iter(one.items())) if isinstance(one, Mapping) and len(one) == 1 else (one, None)
            row = EDITS.get(str(name))
            if str(name) in self.own and argument is None:
                edits.append(self.own[str(name)])
            elif row is None:
                known = [*EDITS, *self.own]
                hint = did_you_mean(str(name), known) or f"one of {', '.join(known)}"
                self.problem(at, f"unknown edit {name!r}", hint)
                continue
            elif not row.needs and argument is not None:
                self.problem(at, f"{name} takes no argument", f"write {name}")
            elif row.needs == "number" and (type(argument) is not int or argument < 1):
                self.problem(at, f"{name} needs a number from 1", f"write {{{name}: 8}}")
            elif row.needs == "text" and argument in (None, ""):
                self.problem(at, f"{name} needs a text", f"write {{{name}: TEXT}}")
            elif row.needs == "pattern" and not is_date_pattern(str(argument)):
                hint = f"write {{{name}: DD.MM.YYYY}}, and hh, mm, ss for a time"
                self.problem(at, f"{name} needs a pattern with YYYY, MM and DD", hint)
            else:
                edits.append(row.make(argument if row.needs == "number" else str(argument)))
            labels.append(f"{name} {argument!r}" if argument is not None else str(name))
        return tuple(edits), ", ".join(labels)


def folded(values: Any) -> frozenset[str]:
    """The values of a condition or pick, for comparing without case."""
    wanted = values if isinstance(values, list) else [values]
    return frozenset("" if value is None else str(value).casefold() for value in wanted)


def digest_of(content: Any) -> str:
    """What names this content: a SHA-256 of it as JSON, in hexadecimal."""
    plain = json.dumps(content, sort_keys=True, default=str, ensure_ascii=True)
    return hashlib.sha256(plain.encode()).hexdigest()
