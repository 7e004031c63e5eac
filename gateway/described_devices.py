"""The devices of a site as they are described, in a file or in LDAP, held against the rest of the configuration.

What may live here: reading what describes them, and what of it contradicts `gateway.yaml`. What is wrong with a
directory by itself is found by `domain.directory_checks`, what is served of it is decided in `registry`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gateway.destinations import DestinationSettings, DestinationTLS, NotInDirectory, addressed
from gateway.device_settings import DevicesFile
from gateway.domain.devices import CalledWorklist, Devices, Profile
from gateway.domain.directory import Directory, Rules
from gateway.domain.directory_checks import Known, check
from gateway.domain.problem import Problem, one_of
from gateway.profile_settings import ProfilesFile
from gateway.registry import directory_of, group_rules, registry
from gateway.security_settings import DeviceGroupSettings, LDAPSettings, TLSSettings
from gateway.snapshot import SnapshotUnusable, read_snapshot
from gateway.wire.charsets import DEFINED_TERMS
from gateway.yaml_files import read_strict


@dataclass(frozen=True, slots=True)
class Around:
    """What of `gateway.yaml` devices are held against. `sites` are those of orders, `own_name` is that of our own
    device in a directory; `ldap` is there also where it is not in use."""

    own_name: str
    file: str = ""
    profiles: str = ""
    unknown: str | None = None
    ldap: LDAPSettings | None = None
    groups: Mapping[str, DeviceGroupSettings] = field(default_factory=dict)
    sites: frozenset[str] = frozenset()
    worklists: tuple[CalledWorklist, ...] = ()
    on_loopback: bool = True
    """Whether only this machine reaches our DICOM listener."""
    tls: TLSSettings = field(default_factory=TLSSettings)

    def known(self, profiles: Iterable[Profile]) -> Known:
        """What entries may name."""
        return Known(
            profiles=frozenset(each.name for each in profiles),
            sites=self.sites,
            character_sets=frozenset(DEFINED_TERMS),
            called=frozenset(each.ae_title for each in self.worklists),
            profiles_file=self.profiles or "devices.profiles",
            in_ldap=self.ldap is not None,
        )


def others(directory: Directory, own_name: str) -> Directory:
    """The directory without our own entry."""
    own = own_name.casefold()
    return Directory(tuple(each for each in directory.devices if each.name.casefold() != own))


def entries_in(file: Path, problems: list[Problem]) -> Directory | None:
    """The devices of a file like `devices.yaml`, or None with its problems noted."""
    said = read_strict(file, DevicesFile, problems)
    return directory_of(said) if said is not None else None


class Described:
    """The devices of a site, read from where they are described, and held against the rest of the configuration.

    Mistakes in files that a person writes are problems. What was read from LDAP is served as far as it can be, and
    its mistakes are doubts: see `domain.directory_checks`.
    """

    def __init__(
        self,
        base: Path,
        around: Around,
        problems: list[Problem],
        profiles: Sequence[Profile] | None = None,
        directory: Directory | None = None,
        source: str = "",
    ) -> None:
        """`profiles` None: those of the file of profiles. `directory` None: the one that the settings name; another
        one is taken as a file of devices, which `source` names."""
        self.around, self.problems = around, problems
        self.doubts: list[Problem] = []
        self.ldap = around.ldap if around.ldap and around.ldap.use and directory is None else None
        self.source = source or (self.ldap.snapshot if self.ldap else around.file)
        """What describes them, for people: mostly the name of a file."""
        if profiles is None:
            shelf = read_strict(base / around.profiles, ProfilesFile, problems) if around.profiles else None
            profiles = tuple(each.profile() for each in shelf.profiles) if shelf else ()
        self.profiles = tuple(profiles)
        if directory is None:
            directory = self._snapshot(base / self.source) if self.ldap else self._file(base)
        self.directory = directory

    def _file(self, base: Path) -> Directory:
        found = entries_in(base / self.source, self.problems) if self.source else None
        return found or Directory()

    def _snapshot(self, path: Path) -> Directory:
        """What was read from LDAP last. Without it nobody is known until LDAP has been read."""
        try:
            directory, doubts = read_snapshot(path)
        except SnapshotUnusable as error:
            self.doubts.append(
                Problem(
                    self.source, "", f"{error}, so that no device is known",
                    "the running service reads LDAP by itself; `gateway devices check` says whether it can be read",
                )
            )  # fmt: skip
            return Directory()
        self.doubts += doubts
        return directory

    def registry(self) -> Devices:
        """Those that call, as they are served; what contradicts the rest of the configuration is noted."""
        around, sites, worklists = self.around, self.around.sites, self.around.worklists
        self._listed_twice("profile", around.profiles, (each.name for each in self.profiles))
        self._listed_twice("worklist", "gateway.yaml", (each.ae_title for each in worklists))
        findings = check(self.directory, self.source, around.known(self.profiles))
        (self.doubts if self.ldap else self.problems).extend(findings.mistakes)
        self.doubts += findings.doubts
        self._worklists(worklists, sites)
        trusting = around.on_loopback and not sites and self.ldap is None
        unknown = around.unknown or ("accept" if trusting else "reject")
        if self.ldap and unknown == "accept":
            self.problems.append(
                Problem(
                    "gateway.yaml", "devices.unknown", "whoever LDAP binds to rules would be let in without any while "
                    "LDAP, or its entry, cannot be read", "write reject; or ask, and see `gateway devices knocks`",
                )
            )  # fmt: skip
        if sites and unknown == "accept":
            self.problems.append(
                Problem(
                    "gateway.yaml", "devices.unknown", "an unknown caller would see the orders of every site",
                    "write reject, and give each device its sites in the registry",
                )
            )  # fmt: skip
        return registry(
            self._others(),
            self.profiles,
            worklists,
            accept_unknown=unknown == "accept",
            ask=unknown == "ask",
            not_served=findings.not_served,
            groups=self._groups(worklists),
        )

    def _groups(self, worklists: Sequence[CalledWorklist]) -> Mapping[str, Rules]:
        """The bounds of groups. One without devices binds nobody, which whoever wrote it may not know."""
        said = self.around.groups
        have = {group for each in self.directory.devices for ae in each.aes for group in ae.clusters}
        called = {each.ae_title for each in worklists}
        for name, group in said.items():
            place = f"devices.groups.{name}"
            if name not in have:
                self.doubts.append(
                    Problem("gateway.yaml", place, f"no device is in group {name}", one_of(name, have))
                )  # fmt: skip
            self.problems += [
                Problem("gateway.yaml", f"{place}.called", f"there is no worklist {title}", one_of(title, called))
                for title in group.called
                if called and title not in called
            ]
        return group_rules(said)

    def addressed(
        self,
        at: Callable[[Sequence[str], str, str], Problem],
        said: Sequence[DestinationSettings],
        running: Mapping[str, DestinationSettings] | None = None,
    ) -> tuple[DestinationSettings, ...]:
        """The destinations where the directory says they are.

        `at` makes a problem of a place in `gateway.yaml`. What only a file could do wrong is a problem; where LDAP
        lacks a destination, messages for it wait, or go where `running` has it.
        """
        tls = self.around.tls
        checked_by = (
            DestinationTLS(ca=tls.ca, crl=tls.crl, certificate=tls.certificate, key=tls.key) if tls.ca else None
        )
        found = []
        for number, place in enumerate(said):
            try:
                found.append(addressed(place, self.directory, checked_by))
            except NotInDirectory as error:
                problem = at(("destinations", str(number), "device"), str(error), error.hint)
                (self.doubts if self.ldap else self.problems).append(problem)
                before = (running or {}).get(place.name, place)
                found.append(before if before.device == place.device else place)
        return tuple(found)

    def _others(self) -> Directory:
        """Without our own entry, which a directory may have: nobody else calls himself as we do."""
        if self.ldap is None:
            return self.directory
        return others(self.directory, self.around.own_name)

    def _worklists(self, worklists: Sequence[CalledWorklist], sites: frozenset[str]) -> None:
        """What worklists name: sites of orders, and groups of devices. Groups that LDAP has lost are doubts."""
        groups = {group for each in self.directory.devices for ae in each.aes for group in ae.clusters[:1]}
        for worklist in worklists:
            place = f"worklists {worklist.ae_title}"
            self.problems += [
                Problem(
                    "gateway.yaml", place, f"no orders of site {site} come here",
                    "sites are named by `site` of a listener, of `fhir` or of a feed: "
                    f"{', '.join(sorted(sites)) or 'none yet'}",
                )
                for site in sorted(worklist.sites - sites)
            ]  # fmt: skip
            (self.doubts if self.ldap else self.problems).extend(
                Problem(
                    "gateway.yaml", place, f"no device is in group {group}",
                    "name the group of a device in the registry",
                )
                for group in sorted(worklist.groups - groups)
            )  # fmt: skip

    def _listed_twice(self, what: str, file: str, names: Iterable[str]) -> None:
        seen = list(names)
        self.problems += [
            Problem(file, what, f"{name} is listed twice", "keep one of the two")
            for name in sorted({name for name in seen if seen.count(name) > 1})
        ]
