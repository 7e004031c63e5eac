"""What a field that does not repeat comes to, remembered for a while: an order's words come again and again.

Wards, doctors, codes, stations and times recur from message to message, and so does a patient within a visit. What is
remembered is a pure function of the field and the rule. Here is only what needs no telling: refusals, notes and traces
are `mapping_reading`'s.
"""

from dataclasses import replace
from functools import lru_cache
from typing import Any

from gateway.domain.attributes import Element
from gateway.domain.converters import DELETE, Noted, Setting, Unconvertible, fit
from gateway.domain.refusal import RefusalKind
from gateway.domain.rules import Alternative, Rule, RuleSet, Simply
from gateway.domain.source import NULL, Path, Repetition, from_component

REMEMBERED_MAX = 256
"""Values of one path of a rule: the doctors or procedures of a morning. A rule set has some hundred paths, of which a
feed fills some dozens, so this is a few megabytes."""
REMEMBERED_CHARACTERS_MAX = 200
"""Longer ones are comments: they do not come again."""

FITTED = frozenset({"LO", "SH", "ST", "LT", "UT", "UC", "CS"})
"""The VRs whose texts are cleaned and bounded."""


def remembering(rules: RuleSet) -> RuleSet:
    """The same with what each path of a simple alternative comes to."""

    def ready(rule: Rule) -> Rule:
        return replace(rule, alternatives=tuple([_ready(rule, way) for way in rule.alternatives]))

    return replace(rules, rules={level: tuple(map(ready, each)) for level, each in rules.rules.items()})


def _ready(rule: Rule, way: Alternative) -> Alternative:
    if not way.simple:
        return way
    return replace(way, simply=tuple([_simply(rule, way, path, setting) for path, setting in way.paths]))


def is_null(repetition: Repetition) -> bool:
    """Whether all that it says is that the value is to be deleted."""
    return repetition[0][0] == NULL and not any(any(parts) for parts in repetition[1:])


def _simply(rule: Rule, way: Alternative, path: Path, setting: Setting) -> Simply:
    convert, joint = way.converter.function, way.converter.joint
    vr, fits, cut, deletable = rule.vr, rule.vr in FITTED, way.cut, not rule.type_1

    @lru_cache(maxsize=REMEMBERED_MAX)  # which keeps nothing of what raises
    def made(whole: Repetition) -> Element | None:
        if sum([len(text) for parts in whole for text in parts]) > REMEMBERED_CHARACTERS_MAX:
            raise _to_tell()
        repetition = from_component(whole, path)
        if not repetition:
            return None
        values: list[Any]
        if is_null(repetition):
            values = [DELETE]
        elif joint:
            values = list(convert((repetition,), setting))
        else:
            value = convert(repetition, setting)
            if fits and type(value) is str:
                value = fit(value, vr, cut)
            values = [] if value is None else [value]
        if not values:
            return None
        if values == [DELETE] and deletable:
            return {"vr": vr}
        if DELETE in values or type(values[0]) is Noted:
            raise _to_tell()
        return {"vr": vr, "Value": values}

    return Simply(path._replace(component=0, subcomponent=0), made)


def _to_tell() -> Unconvertible:
    return Unconvertible(RefusalKind.BAD_VALUE, "there is something to tell")
