"""The cases of the corpus as data: read once, checked for what a case must have."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

FOLDER = Path(__file__).parent
_BYTE = re.compile(r"<([0-9A-F]{2})>")
_CASE_KEYS = {"name", "shows", "listener", "encoding", "line_end", "sends", "items"}
_SEND_KEYS = {"send", "answer", "frame"}
_ANSWER_KEYS = {"code", "type", "errors", "says"}


@dataclass(frozen=True, slots=True)
class Expected:
    """What an answer must be. `code` is None where none may come; None elsewhere means that it is not looked at."""

    code: str | None
    type: str | None = None
    errors: tuple[str, ...] | None = None
    says: str = ""


@dataclass(frozen=True, slots=True)
class Sent:
    """One message: its text with placeholders, whether it is sent without a frame, and the answer."""

    text: str = field(repr=False)
    raw: bool
    answer: Expected


@dataclass(frozen=True, slots=True)
class Case:
    """One case. `items` is None where the list is not asked for."""

    name: str
    shows: tuple[str, ...]
    listener: str
    encoding: str
    line_end: str
    sends: tuple[Sent, ...]
    items: tuple[Mapping[str, str], ...] | None

    def bytes_of(self, sent: Sent, number: str) -> bytes:
        """The message for the run of this number."""
        lines = sent.text.replace("{id}", number).rstrip("\n").split("\n")
        parts = _BYTE.split(self.line_end.join(lines) + self.line_end)
        return b"".join(
            bytes.fromhex(part) if place % 2 else part.encode(self.encoding) for place, part in enumerate(parts)
        )


@cache
def listeners() -> tuple[dict[str, Any], ...]:
    """The listeners that the cases are sent to, as the configuration has them, without addresses."""
    read: list[dict[str, Any]] = YAML(typ="safe").load((FOLDER / "listeners.yaml").read_text(encoding="utf-8"))
    return tuple(read)


@cache
def cases() -> tuple[Case, ...]:
    """Every case of every file. Raises ValueError for one that is not as the README says."""
    found = [
        _case(path.name, said)
        for path in sorted((FOLDER / "corpus").glob("*.yaml"))
        for said in YAML(typ="safe").load(path.read_text(encoding="utf-8"))
    ]
    names = [case.name for case in found]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(f"cases named twice: {', '.join(sorted(twice))}")
    return tuple(found)


def _case(file: str, said: Mapping[str, Any]) -> Case:
    unknown = set(said) - _CASE_KEYS
    name = said.get("name")
    if unknown or not name or not said.get("shows") or not said.get("sends"):
        raise ValueError(f"{file}, {name}: a case has name, shows and sends; unknown: {', '.join(sorted(unknown))}")
    listener = said.get("listener", "ris")
    if listener not in {each["name"] for each in listeners()}:
        raise ValueError(f"{file}, {name}: there is no listener {listener}")
    items = said.get("items")
    return Case(
        name,
        tuple(map(str, said["shows"])),
        listener,
        said.get("encoding", "utf-8"),
        said.get("line_end", "\r"),
        tuple(_sent(f"{file}, {name}", each) for each in said["sends"]),
        None if items is None else tuple({key: str(value) for key, value in item.items()} for item in items),
    )


def _sent(where: str, said: Mapping[str, Any]) -> Sent:
    if set(said) - _SEND_KEYS or "answer" not in said:
        raise ValueError(f"{where}: a message has send, answer and perhaps frame")
    return Sent(said["send"], said.get("frame") == "raw", _expected(where, said["answer"]))


def _expected(where: str, said: Any) -> Expected:
    if isinstance(said, str):
        return Expected(None if said == "none" else said)
    if not isinstance(said, Mapping) or set(said) - _ANSWER_KEYS:
        raise ValueError(f"{where}: an answer is a code or has {', '.join(sorted(_ANSWER_KEYS))}")
    errors = said.get("errors")
    return Expected(
        said["code"], said.get("type"), None if errors is None else tuple(errors), str(said.get("says", ""))
    )
