"""How two directories of devices differ: per device, part and attribute, in words, as data.

Attributes with several values are compared as sets where order says nothing, as LDAP keeps none.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, Protocol

from gateway.domain.directory import DeviceEntry, Directory, NetworkAE, NetworkConnection, Rules, TransferCapability


class Change(StrEnum):
    """What becomes of a device, a part of it or an attribute on the way from the first directory to the second."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference. `part` is empty for the device itself, else such as `AE CT1`; `attribute` is empty where the
    device or the part as a whole was added or removed. `before` and `after` are values for people, empty for none."""

    device: str
    change: Change
    part: str = ""
    attribute: str = ""
    before: str = ""
    after: str = ""

    def __str__(self) -> str:
        where = ", ".join(filter(None, (self.device, self.part)))
        if not self.attribute:
            return f"{where}: {self.change}"
        if self.change is Change.ADDED:
            return f"{where}: {self.attribute} {self.after} added"
        if self.change is Change.REMOVED:
            return f"{where}: {self.attribute} {self.before} removed"
        return f"{where}: {self.attribute} {self.before} -> {self.after}"


def differences(before: Directory, after: Directory, *, leave_out: Collection[str] = ()) -> tuple[Difference, ...]:
    """How `after` differs from `before`, by device name. Names of devices are the same whatever their case, as in
    LDAP; `leave_out` are fields of a device entry that do not count, such as `fingerprints`."""
    first = {device.name.casefold(): device for device in before.devices}
    second = {device.name.casefold(): device for device in after.devices}
    found: list[Difference] = []
    for name in sorted(first.keys() | second.keys()):
        old, new = first.get(name), second.get(name)
        if old is None or new is None:
            found.append(_whole(old or new, added=old is None))
        elif old != new:
            found += _device(old, new, leave_out)
    return tuple(found)


def _whole(device: DeviceEntry | None, *, added: bool) -> Difference:
    name = device.name if device is not None else ""
    return Difference(name, Change.ADDED if added else Change.REMOVED)


def _device(old: DeviceEntry, new: DeviceEntry, leave_out: Collection[str]) -> Iterator[Difference]:
    name = new.name
    yield from _attributes(name, "", old, new, {"name", "connections", "aes", *leave_out})
    for part, one, other in _pairs(old.connections, new.connections, lambda each: f"connection {each.name}"):
        yield from _part(name, part, one, other, {"name"})
    for part, mine, yours in _pairs(old.aes, new.aes, lambda each: f"AE {each.ae_title}"):
        yield from _ae(name, part, mine, yours)


def _ae(device: str, part: str, old: NetworkAE | None, new: NetworkAE | None) -> Iterator[Difference]:
    yield from _part(device, part, old, new, {"ae_title", "capabilities", "rules"})
    if old is None or new is None:
        return
    yield from _attributes(device, part, old.rules, new.rules, set())
    pairs = _pairs(old.capabilities, new.capabilities, lambda each: f"{each.role} of {each.sop_class}")
    for capability, one, other in pairs:
        yield from _part(device, f"{part}, {capability}", one, other, {"sop_class", "role"})


def _part(device: str, part: str, old: Any, new: Any, leave_out: Collection[str]) -> Iterator[Difference]:
    if old is None or new is None:
        yield Difference(device, Change.ADDED if old is None else Change.REMOVED, part)
    else:
        yield from _attributes(device, part, old, new, leave_out)


_Part = NetworkConnection | NetworkAE | TransferCapability


class _Name(Protocol):
    def __call__(self, each: Any) -> str: ...


def _pairs(old: Sequence[_Part], new: Sequence[_Part], name: _Name) -> Iterator[tuple[str, Any, Any]]:
    """Parts of one name, in the order of the first, then the second; None where one has it not."""
    first, second = {name(each): each for each in old}, {name(each): each for each in new}
    for key in dict.fromkeys((*first, *second)):
        yield key, first.get(key), second.get(key)


def _attributes(
    device: str, part: str, old: DeviceEntry | _Part | Rules, new: DeviceEntry | _Part | Rules,
    leave_out: Collection[str],
) -> Iterator[Difference]:  # fmt: skip
    for item in fields(old):
        if item.name in leave_out:
            continue
        one, other = getattr(old, item.name), getattr(new, item.name)
        if _comparable(item.name, one) != _comparable(item.name, other):
            before, after = _words(one), _words(other)
            change = Change.CHANGED if before and after else Change.REMOVED if before else Change.ADDED
            yield Difference(device, change, part, _WORDS.get(item.name, item.name.replace("_", " ")), before, after)


_ORDERED = frozenset({"clusters"})
"""Of these the first value says more than the others."""


def _comparable(name: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: frozenset(said) for key, said in value.items()}
    return frozenset(value) if isinstance(value, tuple) and name not in _ORDERED else value


def _words(value: Any) -> str:
    """A value for people; what is not said is empty."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {', '.join(said)}" for key, said in value.items())
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)


_WORDS = {
    "software_versions": "software versions",
    "station_name": "station name",
    "institution_names": "institution",
    "issuer_of_patient_id": "issuer of patient ID",
    "primary_types": "types",
    "own_certificates": "own certificates",
    "authorized_certificates": "authorized certificates",
    "tls_suites": "TLS suites",
    "clusters": "groups",
    "initiator": "calls others",
    "acceptor": "is called",
    "mpps_strict": "strict MPPS",
    "mpps_answers": "MPPS answers",
    "tls_required": "TLS required",
    "users": "users required",
    "called": "may call",
    "preferred_called": "prefers to call",
    "preferred_calling": "prefers to be called by",
    "transfer_syntaxes": "transfer syntaxes",
}
"""What attributes are called, where their name with blanks would not do."""
