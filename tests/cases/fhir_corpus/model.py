"""The cases of the corpus as data: read once, checked for what a case must have."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from gateway.wire.fhir_release import Release

FOLDER = Path(__file__).parent
BUNDLES = ("transaction", "batch", "message", "document", "collection")
_CASE_KEYS = {"name", "shows", "release", "sends"}
_SEND_KEYS = {"resources", "bundle", "expect"}
_EXPECT_KEYS = {"status", "issues", "says", "items"}


@dataclass(frozen=True, slots=True)
class Expected:
    """What must come of one request. `items` is None where the list is not asked for."""

    status: int
    issues: tuple[str, ...] = ()
    says: str = ""
    items: tuple[Mapping[str, str], ...] | None = None


@dataclass(frozen=True, slots=True)
class Sent:
    """One request: resources with placeholders, how they are bundled ('' for one alone), and what must come of it."""

    resources: tuple[Mapping[str, Any], ...] = field(repr=False)
    bundle: str
    expected: Expected
    release: Release = Release.R4

    def content(self, number: str) -> dict[str, Any]:
        """The body for the run of this number."""
        resources = [_numbered(each, number) for each in self.resources]
        if not self.bundle:
            return resources[0]
        entries = [_entry(each, self.bundle) for each in resources]
        head: list[dict[str, Any]] = []
        if self.bundle == "message":
            endpoint = "endpointUrl" if self.release is Release.R5 else "endpoint"
            header = {"resourceType": "MessageHeader", "id": f"m{number}", "eventCoding": {"code": "order"},
                      "source": {endpoint: "http://sender.example/fhir"}}  # fmt: skip
            head = [_entry(header, self.bundle)]
        if self.bundle == "document":
            composition = {"resourceType": "Composition", "id": f"doc{number}", "status": "final", "title": "Order",
                           "type": {"text": "Order"}, "date": "2026-07-05",
                           "author": [{"display": "Example"}]}  # fmt: skip
            head = [_entry(composition, self.bundle)]
        return {"resourceType": "Bundle", "type": self.bundle, "entry": [*head, *entries]}


@dataclass(frozen=True, slots=True)
class Case:
    """One case."""

    name: str
    shows: tuple[str, ...]
    release: Release
    sends: tuple[Sent, ...]


def _numbered(resource: Mapping[str, Any], number: str) -> dict[str, Any]:
    numbered: dict[str, Any] = json.loads(json.dumps(resource).replace("{id}", number))
    return numbered


def _entry(resource: dict[str, Any], bundle: str) -> dict[str, Any]:
    entry: dict[str, Any] = {"resource": resource}
    if bundle in ("transaction", "batch"):
        kind, name = resource["resourceType"], resource.get("id")
        entry["request"] = {"method": "PUT", "url": f"{kind}/{name}"} if name else {"method": "POST", "url": kind}
    else:
        entry["fullUrl"] = f"http://sender.example/fhir/{resource['resourceType']}/{resource.get('id', '1')}"
    return entry


@cache
def _fragments() -> Mapping[str, Mapping[str, Any]]:
    said: dict[str, dict[str, Any]] = _read(FOLDER / "fragments.yaml")
    return {"R4": said["R4"], "R4B": said["R4"], "R5": {**said["R4"], **said["R5"]}}


def fragment(release: str, name: str, number: str) -> dict[str, Any]:
    """A resource of `fragments.yaml`, for the run of this number."""
    return _numbered(_fragments()[release][name], number)


def _read(path: Path) -> Any:
    return YAML(typ="safe").load(path.read_text(encoding="utf-8"))


@cache
def cases() -> tuple[Case, ...]:
    """Every case of every file. Raises ValueError for one that is not as the README says."""
    found = [_case(path.name, said) for path in sorted((FOLDER / "corpus").glob("*.yaml")) for said in _read(path)]
    names = [case.name for case in found]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(f"cases named twice: {', '.join(sorted(twice))}")
    return tuple(found)


def _case(file: str, said: Mapping[str, Any]) -> Case:
    where = f"{file}, {said.get('name')}"
    if set(said) - _CASE_KEYS or not all(said.get(key) for key in _CASE_KEYS):
        raise ValueError(f"{where}: a case has {', '.join(sorted(_CASE_KEYS))}")
    sends = tuple(_sent(where, said["release"], each) for each in said["sends"])
    return Case(said["name"], tuple(map(str, said["shows"])), Release(said["release"]), sends)


def _sent(where: str, release: str, said: Mapping[str, Any]) -> Sent:
    if set(said) - _SEND_KEYS or not said.get("resources") or "expect" not in said:
        raise ValueError(f"{where}: a request has resources, expect and perhaps bundle")
    resources = tuple(_resource(where, release, each) for each in said["resources"])
    bundle = said.get("bundle", "transaction" if len(resources) > 1 else "")
    if bundle not in ("", *BUNDLES):
        raise ValueError(f"{where}: there is no Bundle of type {bundle}")
    return Sent(resources, bundle, _expected(where, said["expect"], bundle), Release(release))


def _resource(where: str, release: str, said: Any) -> Mapping[str, Any]:
    if isinstance(said, Mapping) and "resourceType" in said:
        return said
    used = {"use": said} if isinstance(said, str) else said
    if set(used) - {"use", "set"} or used.get("use") not in _fragments()[release]:
        raise ValueError(f"{where}: a resource is a fragment, has use and set, or is written out")
    merged: Mapping[str, Any] = _merged(_fragments()[release][used["use"]], used.get("set", {}))
    return merged


def _merged(base: Any, said: Any) -> Any:
    if not isinstance(base, Mapping) or not isinstance(said, Mapping):
        return said
    keys = dict.fromkeys((*base, *said))
    return {key: _merged(base.get(key), said[key]) if key in said else base[key] for key in keys
            if key not in said or said[key] is not None}  # fmt: skip


def _expected(where: str, said: Mapping[str, Any], bundle: str) -> Expected:
    if set(said) - _EXPECT_KEYS:
        raise ValueError(f"{where}: expect has {', '.join(sorted(_EXPECT_KEYS))}")
    items: Sequence[Mapping[str, Any]] | None = said.get("items")
    return Expected(
        said.get("status", 200 if bundle else 201),
        tuple(said.get("issues", ())),
        said.get("says", ""),
        None if items is None else tuple({key: str(value) for key, value in item.items()} for item in items),
    )
