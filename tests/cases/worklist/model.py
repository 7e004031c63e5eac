"""The suite's files read: the population of items, the cases, and what is known of other SCPs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from .datasets import (
    CHARACTER_SET,
    STUDY_INSTANCE_UID,
    Dataset,
    Element,
    dataset_of,
    encode,
    overlaid,
    tag_of,
)

HERE = Path(__file__).parent
EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"
SYNTAXES: Mapping[str, str] = {"implicit": IMPLICIT, "explicit": EXPLICIT}
ALL, SUCCESS, PENDING = "all", "0000", "FF00"

_CASE_KEYS = frozenset({
    "name", "clause", "keys", "charset", "identifier", "syntax", "calling", "negotiate", "needs", "cancel after",
    "finds", "pending", "status", "offending", "returns", "absent", "empty", "answers in", "accepts", "why",
})  # fmt: skip


@dataclass(frozen=True)
class Item:
    """One worklist item of the population. `terms` are the Specific Character Set of its file."""

    name: str
    terms: tuple[str, ...]
    attributes: Dataset = field(repr=False)

    @property
    def study_instance_uid(self) -> str:
        """What an answer is recognised by: every item has its own."""
        return self.attributes[STUDY_INSTANCE_UID].values[0]


@dataclass(frozen=True)
class Case:
    """One query and what it is to be answered with; README.md tells what each field means."""

    name: str
    clause: str
    keys: Dataset = field(repr=False)
    terms: tuple[str, ...] = ()
    identifier: bytes | None = field(default=None, repr=False)
    syntax: str = IMPLICIT
    calling: str = "CONFORM"
    negotiate: bytes = b""
    needs: tuple[str, ...] = ()
    cancel_after: int = 0
    finds: frozenset[str] | None = None
    pending: Mapping[str, str] = field(default_factory=dict)
    statuses: tuple[str, ...] = (SUCCESS,)
    offending: int | None = None
    returns: Mapping[str, Dataset] = field(default_factory=dict)
    absent: tuple[tuple[int, ...], ...] = ()
    empty: tuple[tuple[int, ...], ...] = ()
    answers_in: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    accepts: bytes | None = None
    why: str = ""

    @property
    def request(self) -> bytes:
        """The identifier's bytes."""
        if self.identifier is not None:
            return self.identifier
        return encode(self.keys, self.terms, explicit=self.syntax == EXPLICIT)

    def pending_of(self, item: str) -> str:
        """The status that the answer with this item has."""
        return self.pending.get(item, self.pending.get(ALL, PENDING))


@dataclass(frozen=True)
class Difference:
    """What another SCP answers otherwise, and who is right by which clause."""

    cases: tuple[str, ...]
    clause: str
    does: str
    right: str

    def covers(self, case: str) -> bool:
        """Whether it speaks of this case."""
        return any(fnmatchcase(case, pattern) for pattern in self.cases)


@dataclass(frozen=True)
class Server:
    """Another SCP: what it does not offer (need -> reason), what it hides, and where its answers differ."""

    name: str
    version: str
    lacks: Mapping[str, str]
    hides: Mapping[str, str]
    differences: tuple[Difference, ...]

    def runs(self, case: Case) -> bool:
        """Whether the case asks for nothing that the SCP does not offer."""
        return self.lacks.keys().isdisjoint(case.needs)

    def told(self, case: Case) -> bool:
        """Whether a difference speaks of this case."""
        return any(each.covers(case.name) for each in self.differences)

    def without_hidden(self, case: Case) -> Case:
        """The case as if there were no items that the SCP does not serve."""
        return case if case.finds is None else replace(case, finds=case.finds - self.hides.keys())


def _yaml(path: Path) -> Any:
    return YAML(typ="safe").load(path.read_text(encoding="utf-8"))


@cache
def population() -> Mapping[str, Item]:
    """The items by name."""
    written = _yaml(HERE / "items.yaml")
    found = {}
    for number, (name, own) in enumerate(written["items"].items(), 1):
        common = dataset_of(_filled(written["common"], {"item": name, "number": str(number)}))
        terms = own.pop("charset", [])
        terms = tuple([terms] if isinstance(terms, str) else terms)
        attributes = overlaid(common, dataset_of(own))
        absent = {tag for tag, element in attributes.items() if element.values == ("absent",)}
        found[name] = Item(name, terms, {tag: element for tag, element in attributes.items() if tag not in absent})
    return found


def _filled(template: Any, words: Mapping[str, str]) -> Any:
    if isinstance(template, dict):
        return {key: _filled(value, words) for key, value in template.items()}
    return template.format(**words) if isinstance(template, str) else template


@cache
def cases() -> Sequence[Case]:
    """Every case of the files, and those that every attribute of the population has (`every_key`)."""
    from .every_key import every_key_cases

    found = [
        _case(path.stem, written) for path in sorted((HERE / "cases").glob("*.yaml")) for written in _yaml(path) or ()
    ]
    return (*found, *every_key_cases(population()))


def _case(topic: str, written: Mapping[str, Any]) -> Case:
    name = f"{topic}/{written['name']}"
    unknown = set(written) - _CASE_KEYS
    if unknown:
        raise ValueError(f"{name}: no such field: {', '.join(sorted(unknown))}")
    try:
        return Case(
            name=name,
            clause=written["clause"],
            keys=with_charset(_identified(dataset_of(written.get("keys", {}))), _texts(written.get("charset"))),
            terms=_texts(written.get("charset")),
            identifier=bytes.fromhex(written["identifier"]) if "identifier" in written else None,
            syntax=SYNTAXES[written.get("syntax", "implicit")],
            calling=written.get("calling", "CONFORM"),
            negotiate=bytes(written.get("negotiate", ())),
            needs=_texts(written.get("needs")),
            cancel_after=written.get("cancel after", 0),
            finds=_finds(name, written),
            pending=_per_item(written.get("pending", PENDING)),
            statuses=_texts(written.get("status", SUCCESS)),
            offending=tag_of(written["offending"]) if "offending" in written else None,
            returns=_returns(written.get("returns", {})),
            absent=tuple(_path(each) for each in written.get("absent", ())),
            empty=tuple(_path(each) for each in written.get("empty", ())),
            answers_in={key: _texts(value) for key, value in _per_item(written.get("answers in", {})).items()},
            accepts=bytes(written["accepts"]) if "accepts" in written else None,
            why=written.get("why", ""),
        )  # fmt: skip
    except KeyError as error:
        raise ValueError(f"{name}: {error}") from error


def _identified(keys: Dataset) -> Dataset:
    """With Study Instance UID as a return key, by which the answers are recognised."""
    return keys if STUDY_INSTANCE_UID in keys else {**keys, STUDY_INSTANCE_UID: Element("UI")}


def with_charset(keys: Dataset, terms: tuple[str, ...]) -> Dataset:
    """With Specific Character Set, where there is one to declare."""
    return {**keys, CHARACTER_SET: Element("CS", terms)} if terms else keys


def _texts(written: Any) -> tuple[str, ...]:
    return () if written is None else tuple(map(str, written)) if isinstance(written, list) else (str(written),)


def _finds(name: str, written: Mapping[str, Any]) -> frozenset[str] | None:
    wanted = written.get("finds")
    if wanted is None:
        return None
    names = population()
    if wanted == ALL:
        return frozenset(names)
    if isinstance(wanted, dict):  # all but some
        return frozenset(names) - frozenset(wanted["all but"])
    unknown = set(wanted) - set(names)
    if unknown:
        raise ValueError(f"{name}: no such item: {', '.join(sorted(unknown))}")
    return frozenset(wanted)


def _per_item(written: Any) -> Mapping[str, Any]:
    return written if isinstance(written, dict) else {ALL: written}


def _returns(written: Mapping[str, Any]) -> Mapping[str, Dataset]:
    """By item; attributes without an item are meant for every answer."""
    if set(written) <= {*population(), ALL}:
        return {item: dataset_of(attributes) for item, attributes in written.items()}
    return {ALL: dataset_of(written)}


def _path(written: str) -> tuple[int, ...]:
    return tuple(tag_of(part) for part in written.split("."))


@cache
def servers() -> Mapping[str, Server]:
    """The other SCPs the suite is run against, by name."""
    return {
        name: Server(
            name,
            written["version"],
            written.get("lacks") or {},
            written.get("hides") or {},
            tuple(
                Difference(_texts(each["cases"]), each["clause"], each["does"], each["right"])
                for each in written.get("differences") or ()
            ),
        )
        for name, written in _yaml(HERE / "differences.yaml").items()
    }
