"""The cases as data: read once, checked for what a case must have. The README says what each key means."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

FOLDER = Path(__file__).parent
ACTIONS = frozenset({"order", "cancel", "merge", "create", "set", "get", "close", "link", "unlink", "release"})
_CASE_KEYS = {"name", "shows", "events", "end"}
_EXPECTED_KEYS = {"answer", "error_id", "tags", "dataset", "notes", "steps", "forwards", "told", "done"}
_END_KEYS = {"listed", "orders", "attention"}


@dataclass(frozen=True, slots=True)
class Event:
    """What happens, with its particulars, and what is expected of it."""

    action: str
    said: Any
    expected: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Case:
    """One case. `end` says what is listed, what the orders are, and what needs attention when all is over."""

    name: str
    shows: tuple[str, ...]
    events: tuple[Event, ...]
    end: Mapping[str, Any]


@cache
def cases() -> tuple[Case, ...]:
    """Every case of every file. Raises ValueError for one that is not as the README says."""
    found = [_case(path) for path in sorted((FOLDER / "cases").glob("*.yaml"))]
    names = [case.name for case in found]
    if len(set(names)) != len(names):
        raise ValueError("two cases have one name")
    return tuple(found)


def _case(path: Path) -> Case:
    said = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    if set(said) != _CASE_KEYS or not said["shows"] or not set(said["end"]) <= _END_KEYS:
        raise ValueError(f"{path.name}: a case has {', '.join(sorted(_CASE_KEYS))}")
    return Case(
        said["name"], tuple(map(str, said["shows"])), tuple(_event(path.name, each) for each in said["events"]),
        said["end"],
    )  # fmt: skip


def _event(file: str, said: Mapping[str, Any]) -> Event:
    actions = set(said) & ACTIONS
    if len(actions) != 1 or set(said) - actions - _EXPECTED_KEYS:
        raise ValueError(f"{file}: an event is one of {', '.join(sorted(ACTIONS))}, with what is expected: {said}")
    action = actions.pop()
    if action in ("create", "set", "get") and "answer" not in said:
        raise ValueError(f"{file}: {action} needs its answer")
    return Event(action, said[action], {key: value for key, value in said.items() if key != action})
