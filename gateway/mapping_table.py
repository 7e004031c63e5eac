"""A mapping as rows for people: source field with its name, target, converter, conditions, and what happens otherwise.

Also for going through it with a vendor, who knows the field names and not our paths.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gateway.domain.mapping import Mapping as FieldMapping
from gateway.domain.rules import Alternative, IdentitySource, Rule
from gateway.domain.selection import Condition
from gateway.domain.source import Path
from gateway.wire.hl7_names import field_name

Row = dict[str, str]


def table_rows(mapping: FieldMapping) -> list[Row]:
    """One row for each way to a value, keys first, in the order of trial."""
    rows = [row for source in mapping.rules.identity.values() for row in _of_identity(source)]
    rows += [row for rules in mapping.rules.rules.values() for rule in rules for row in _of_rule(rule)]
    return rows


def code_tables(mapping: FieldMapping) -> dict[str, Mapping[str, str]]:
    """The code tables that the rules use, by name."""
    found: dict[str, Mapping[str, str]] = {}
    for rules in mapping.rules.rules.values():
        for rule in rules:
            for way in rule.alternatives:
                found |= {setting.table_name: setting.table for _, setting in way.paths if setting.table_name}
    return found


def _of_identity(source: IdentitySource) -> Iterable[Row]:
    if not source.paths:
        return []
    policy = source.policy
    otherwise = f"{policy.action} {policy.source}".strip() if policy else "refuse" if source.refuse else "omit"
    return [_row(source.keyword, source.paths, "identifier", "", otherwise)]


def _of_rule(rule: Rule) -> Iterable[Row]:
    for way in rule.alternatives:
        otherwise = way.otherwise
        converter = way.label if way.paths else ""
        if way.constant:
            row = _row(rule.target, (), converter, _when(way), otherwise)
            yield {**row, "name": f"constant {_plain(way.constant)}"}
        elif way.paths or way.missing:
            yield _row(rule.target, [path for path, _ in way.paths], converter, _when(way), otherwise)


def _row(target: str, paths: Sequence[Path], converter: str, when: str, otherwise: str) -> Row:
    return {
        "source": ", ".join(map(str, paths)),
        "name": ", ".join(dict.fromkeys(filter(None, (field_name(str(path)) for path in paths)))),
        "target": target,
        "converter": converter,
        "when": when,
        "otherwise": otherwise,
    }


def _when(way: Alternative) -> str:
    told = (
        " or ".join(map(_condition, way.select)),
        " and ".join(map(_condition, way.when)),
        "unless " + " or ".join(map(_condition, way.unless)) if way.unless else "",
        f"only {way.pick}" if way.pick else "",
    )
    return "; ".join(filter(None, told))


def _condition(condition: Condition) -> str:
    path, texts = condition
    wanted = " or ".join(text or "empty" for text in sorted(texts))
    return f"{path} is {'not empty' if texts == {'*'} else wanted}"


def _plain(values: Sequence[Any]) -> str:
    return ", ".join(value if isinstance(value, str) else str(value) for value in values)
