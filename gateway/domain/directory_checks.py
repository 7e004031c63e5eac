"""What is wrong with a directory of devices, all at once, and what of it can be used nevertheless.

A mistake weighs as much as the harm that it could do (`Weight`):

- Ambiguity refuses the whole: who is meant by an AE title that two devices have, nobody can say. The last directory
  that was good stays in use, so that nobody is left without an answer.
- An AE whose bounds cannot be read or do not exist (profile, addresses, certificates, permissions) is known and not
  served. It is not forgotten: as a stranger it might be let in with everything. All others are served.
- A part that cannot be used (a connection, a port, a transfer capability) takes nothing from an AE but that part: a
  modality gets its worklist although nobody could call it back.
- What is odd and harms nobody is only told.

In a file that a person writes, all but the last stop `gateway check` and the start. What LDAP says is not rejected for
one entry: only ambiguity keeps the last good directory, the rest is told and served as above.
"""

import re
from collections.abc import Callable, Collection, Container, Iterable, Iterator
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

from gateway.domain.access import CertificateRuleKind, Permission, certificate_rule, network_of
from gateway.domain.directory import NO_RULES, DeviceEntry, Directory, NetworkAE, NetworkConnection, TransferCapability
from gateway.domain.problem import Problem, one_of


class Weight(Enum):
    """What a mistake does to the directory, from everything to nothing."""

    WHOLE = "the whole directory is refused; the last good one stays"
    NOT_SERVED = "the AE is known and not served"
    PART = "only that part is not used"
    TOLD = "nothing"


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem, its weight, and the AE titles that it takes out of service."""

    weight: Weight
    problem: Problem
    ae_titles: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Findings:
    """All that was found in one directory."""

    found: tuple[Finding, ...] = ()

    @property
    def refused(self) -> tuple[Problem, ...]:
        """Why nothing of it may be taken; empty: it may."""
        return self._of(Weight.WHOLE)

    @property
    def mistakes(self) -> tuple[Problem, ...]:
        """What a person has to mend, the refused first; what a file of devices is refused for."""
        return (*self.refused, *self._of(Weight.NOT_SERVED), *self._of(Weight.PART))

    @property
    def doubts(self) -> tuple[Problem, ...]:
        """What is odd and harms nobody."""
        return self._of(Weight.TOLD)

    @property
    def not_served(self) -> frozenset[str]:
        """AE titles that may not be served."""
        return frozenset(title for each in self.found for title in each.ae_titles)

    def _of(self, weight: Weight) -> tuple[Problem, ...]:
        return tuple(each.problem for each in self.found if each.weight is weight)


@dataclass(frozen=True, slots=True)
class Known:
    """What entries may name: profiles, sites, defined terms of character sets. None: anything.

    `profiles_file` is where a profile would have to be added.
    """

    profiles: Collection[str] | None = None
    sites: Collection[str] | None = None
    character_sets: Container[str] | None = None
    called: Collection[str] = ()
    """AE titles that may be called; empty: any."""
    profiles_file: str = "profiles.yaml"
    in_ldap: bool = True
    """Whether the devices stand in LDAP too, or are to: it does not tell names by case."""


def check(directory: Directory, source: str, known: Known = Known()) -> Findings:
    """Everything wrong with the directory. `source` names it in problems: a file, or where it was read from."""
    checks = _Checks(source, known)
    found = [*checks.named_twice(directory), *checks.rings(directory)]
    for device in directory.devices:
        found += checks.device(device)
    return Findings(tuple(found))


_Found = Iterator[Finding]


@dataclass(frozen=True, slots=True)
class _Checks:
    source: str
    known: Known

    # ---- between devices ----

    def named_twice(self, directory: Directory) -> _Found:
        """AE titles of two AEs, and device names of two devices."""
        entries = directory.devices
        for title, devices in _of_several((ae.ae_title, device.name) for device in entries for ae in device.aes):
            by = " and ".join(dict.fromkeys(devices))
            yield self._found(
                Weight.WHOLE, "AE title", f"{title} is listed twice" + (f", by {by}" if by != title else ""),
                "an AE title is one device's alone: keep one of the two, or give the other a title of its own",
                titles=(title,),
            )  # fmt: skip
        for _, same in _of_several((device.name.casefold(), device.name) for device in entries):
            if len(set(same)) == len(same):
                if self.known.in_ldap:
                    yield self._found(
                        Weight.TOLD, "device", f"{' and '.join(same)} differ only in case",
                        "LDAP takes them for one device: give one another `name`",
                    )  # fmt: skip
                continue
            titles = [ae.ae_title for each in entries if each.name in same for ae in each.aes]
            if len(set(titles)) == len(titles):  # else told above
                yield self._found(
                    Weight.WHOLE, "device", f"{same[0]} is listed twice", "keep one, with the AEs of both",
                    titles=tuple(titles),
                )  # fmt: skip

    def rings(self, directory: Directory) -> _Found:
        """Devices that are related to each other in a ring; references are followed without recursion."""
        by_name = {device.name.casefold(): device for device in directory.devices if device.related_devices}
        done: set[str] = set()
        for start in by_name:
            path: dict[str, None] = {}
            stack: list[tuple[str, bool]] = [(start, False)]
            while stack:
                name, left = stack.pop()
                if left:
                    del path[name]
                elif name in path:
                    ring = [*path][[*path].index(name) :]
                    said = " -> ".join(by_name[each].name for each in [*ring, name])
                    yield self._found(
                        Weight.TOLD, f"devices {by_name[name].name}", f"related devices lead in a ring: {said}",
                        "a related device describes this one elsewhere: take out one of the references",
                    )  # fmt: skip
                elif name not in done:
                    done.add(name)
                    path[name] = None
                    stack.append((name, True))
                    related = (_named(each).casefold() for each in by_name[name].related_devices)
                    stack += [(each, False) for each in related if each in by_name]

    # ---- in one device ----

    def device(self, device: DeviceEntry) -> _Found:
        """What is wrong with this device and all that belongs to it."""
        place = f"devices {device.name}".rstrip()
        titles = tuple(ae.ae_title for ae in device.aes)
        if not device.name.strip():
            yield self._found(
                Weight.NOT_SERVED, place, "it has no name", "give it a dicomDeviceName", titles=titles
            )  # fmt: skip
        names = [each.name for each in device.connections]
        for name in sorted({name for name in names if names.count(name) > 1}) if len(names) > 1 else ():
            yield self._found(Weight.PART, place, f"it has two connections {name}", "name them differently")
        for connection in device.connections:
            yield from self._connection(connection, place)
        for code in device.primary_types:
            if not _CODE.fullmatch(code):
                yield self._found(Weight.TOLD, place, f"{code!r} is no code of a device type", "see CID 30, e.g. CT")
        if device.own_certificates and not any(device.fingerprints.get(each) for each in device.own_certificates):
            yield from self._no_certificate(device, place)
        for name in device.own_certificates:
            said = (f"{CertificateRuleKind.FINGERPRINT}:{each}" for each in device.fingerprints.get(name, ()))
            for wrong in _unreadable(said, certificate_rule):
                yield self._found(
                    Weight.NOT_SERVED, place, f"{wrong!r} is no fingerprint of a certificate", "it has 64 hex digits",
                    titles=titles,
                )  # fmt: skip
        for ae in device.aes:
            yield from self._ae(ae, device)

    def _no_certificate(self, device: DeviceEntry, place: str) -> _Found:
        """Nobody can tell whether a caller by TLS shows the certificate of the device. Those that may come without TLS
        anyway lose nothing by that."""
        bound = tuple(ae.ae_title for ae in device.aes if device.must_use_tls(ae) and not ae.rules.certificates)
        until = "nobody can tell its callers" if bound else "any trusted certificate will do for it"
        yield self._found(
            Weight.NOT_SERVED if bound else Weight.TOLD, place,
            f"there is no certificate in {device.own_certificates[0]}",
            f"put its certificate there, or take the reference out; until then {until}", titles=bound,
        )  # fmt: skip

    def _connection(self, connection: NetworkConnection, device_place: str) -> _Found:
        place = f"{device_place} connection {connection.name}"
        if len(connection.host.split()) != 1 or connection.host != connection.host.strip():
            yield self._found(Weight.PART, place, f"{connection.host!r} is no host name", "write a name or an address")
        if connection.port is not None and not 0 < connection.port < 65536:
            yield self._found(Weight.PART, place, f"there is no port {connection.port}", "ports are 1 to 65535")
        for suite in connection.tls_suites:
            if not _SUITE.fullmatch(suite):
                yield self._found(Weight.PART, place, f"{suite!r} is no cipher suite", "they read TLS_..._WITH_...")

    def _ae(self, ae: NetworkAE, device: DeviceEntry) -> _Found:
        place = f"devices {device.name}" + (f" AE {ae.ae_title}" if device.name != ae.ae_title else "")
        if not legal_ae_title(ae.ae_title):
            yield self._found(
                Weight.NOT_SERVED, place, f"{ae.ae_title!r} is no AE title",
                "1 to 16 letters of ASCII without backslash, no blanks at the ends", titles=(ae.ae_title,),
            )  # fmt: skip
        yield from self._reached(ae, device, place)
        if ae.rules is not NO_RULES:
            yield from self._bounds(ae, place)
        yield from self._hints(ae, place)
        for capability in ae.capabilities:
            yield from self._capability(capability, place)

    def _reached(self, ae: NetworkAE, device: DeviceEntry, place: str) -> _Found:
        """Its connections: those that it names have to be there, and one has to have a port if it is called."""
        have = {each.name: each for each in device.connections}
        for name in ae.connections:
            if name not in have:
                yield self._found(
                    Weight.PART, place, f"it has no connection {name}", one_of(name, have),
                )  # fmt: skip
        if not ae.acceptor:
            return
        named = [have[name] for name in ae.connections if name in have]
        if not named:
            yield self._found(
                Weight.PART, place, "it is called by others and has no connection", "give it a `host` and a `port`"
            )  # fmt: skip
        elif all(each.port is None for each in named):
            yield self._found(
                Weight.PART, place, "it is called by others and has no port", "give one of its connections a `port`"
            )  # fmt: skip

    def _bounds(self, ae: NetworkAE, place: str) -> _Found:
        """What bounds it. If that cannot be known, it is not served."""
        rules, known = ae.rules, self.known
        if rules.profile and known.profiles is not None and rules.profile not in known.profiles:
            have = ", ".join(sorted(known.profiles)) or "none"
            yield self._found(
                Weight.NOT_SERVED, place, f"there is no profile {rules.profile}", f"{known.profiles_file} has: {have}",
                titles=(ae.ae_title,),
            )  # fmt: skip
        for site in rules.sites:
            if known.sites is not None and site not in known.sites:  # it sees no orders of it: that harms nobody else
                yield self._found(
                    Weight.PART, place, f"no orders of site {site} come here",
                    "sites are named by `site` of a listener, of `fhir` or of a feed: "
                    f"{', '.join(sorted(known.sites)) or 'none yet'}",
                )  # fmt: skip
        for what, said, read in (
            ("address or network", rules.addresses, network_of),
            ("certificate rule", rules.certificates, certificate_rule),
            ("permission", rules.may, Permission),
        ):
            for each in _unreadable(said, read):
                yield self._found(
                    Weight.NOT_SERVED, place, f"{each!r} is no {what}", _LIKE[what], titles=(ae.ae_title,)
                )  # fmt: skip
        for title in rules.called:
            if not legal_ae_title(title) or (known.called and title not in known.called):
                yield self._found(
                    Weight.PART, place, f"it may call {title!r}, which is none of our AE titles",
                    f"have: {', '.join(sorted(known.called))}" if known.called else "",
                )  # fmt: skip

    def _hints(self, ae: NetworkAE, place: str) -> _Found:
        for term in ae.character_sets:
            if self.known.character_sets is not None and term not in self.known.character_sets:
                yield self._found(
                    Weight.PART, place, f"{term!r} is no defined term of Specific Character Set", "e.g. ISO_IR 100"
                )  # fmt: skip
        for title in (*ae.preferred_called, *ae.preferred_calling):
            if not legal_ae_title(title):
                yield self._found(Weight.TOLD, place, f"{title!r}, which it prefers, is no AE title")

    def _capability(self, capability: TransferCapability, place: str) -> _Found:
        for text, hint in _wrong_with(capability):
            yield self._found(Weight.PART, place, text, hint)

    def _found(self, weight: Weight, place: str, text: str, hint: str = "", titles: Iterable[str] = ()) -> Finding:
        return Finding(weight, Problem(self.source, place, text, hint), tuple(titles))


@lru_cache(maxsize=4096)  # there are few, and each device has them
def _wrong_with(capability: TransferCapability) -> tuple[tuple[str, str], ...]:
    """What is wrong with it, and what to do."""
    uids = (("SOP class", capability.sop_class), *(("transfer syntax", uid) for uid in capability.transfer_syntaxes))
    wrong = [
        (f"{uid!r} is no UID of a {what}", "digits and dots, e.g. 1.2.840") for what, uid in uids if not legal_uid(uid)
    ]
    if not capability.transfer_syntaxes:
        text = f"SOP class {capability.sop_class} has no transfer syntax"
        wrong.append((text, "Implicit VR Little Endian is 1.2.840.10008.1.2"))
    return tuple(wrong)


def legal_ae_title(text: str) -> bool:
    """Whether this can be an AE title (PS3.5 6.2, AE)."""
    return _AE_TITLE.fullmatch(text) is not None and text == text.strip()


def legal_uid(text: str) -> bool:
    """Whether this can be a UID (PS3.5 9.1)."""
    return len(text) <= 64 and _UID.fullmatch(text) is not None


_AE_TITLE = re.compile(r"[ -\[\]-~]{1,16}")
_UID = re.compile(r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))+")
_SUITE = re.compile(r"(TLS|SSL)_[A-Z0-9_]+")
_CODE = re.compile(r"[A-Z0-9_]{1,16}")
_LIKE = {
    "address or network": "10.1.2.3, or 10.1.2.0/24",
    "certificate rule": "sha256: and 64 hex digits, subject: and its common name, or name: and a host name",
    "permission": f"have: {', '.join(Permission)}",
}


def _of_several(owned: Iterable[tuple[str, str]]) -> Iterable[tuple[str, list[str]]]:
    """What has more than one owner, and its owners."""
    first: dict[str, str] = {}
    several: dict[str, list[str]] = {}
    for thing, owner in owned:
        if thing in first:
            several.setdefault(thing, [first[thing]]).append(owner)
        else:
            first[thing] = owner
    return several.items()


def _unreadable(said: Iterable[str], read: Callable[[str], object]) -> Iterator[str]:
    for each in said:
        try:
            read(each)
        except ValueError:
            yield each


def _named(reference: str) -> str:
    """The name of a device that is referred to by name or by DN."""
    first = reference.partition(",")[0]
    attribute, equals, value = first.partition("=")
    return value.strip() if equals and attribute.strip().casefold() == "dicomdevicename" else reference
