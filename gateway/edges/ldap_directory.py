"""A directory of devices in LDAP as PS3.15 Annex H has it: read whole, asked, and written device by device.

Blocking: call it from a thread. Every method opens a connection of its own, to the first server that serves; a server
that fails half way through reading is followed by the next one.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from time import monotonic
from typing import TypeVar

from gateway.domain.directory import DeviceEntry, Directory
from gateway.domain.directory_checks import legal_ae_title
from gateway.domain.directory_loss import Roll, great_loss
from gateway.domain.problem import Problem
from gateway.edges import ldap_schema as schema
from gateway.edges.ldap_changes import Plan, deepest_first, plan_of, registry_entry, unwritable
from gateway.edges.ldap_entries import Entry, Key, Values, certificate_names, reading_of
from gateway.edges.ldap_servers import DiscoveryError, LDAPServer, discovered, named
from gateway.edges.ldap_session import (
    AlreadyThere,
    LDAPAccess,
    LDAPConflict,
    LDAPFailed,
    NoSuchEntry,
    NotGiven,
    Session,
    connected,
    equals,
)
from gateway.edges.ldif import ldif_of
from gateway.wire.distinguished_names import DN, DNError, parse_dn

__all__ = ["LDAPAccess", "LDAPConflict", "LDAPDirectory", "LDAPFailed", "Mark", "Snapshot", "ldif_of"]

_T = TypeVar("_T")

_CLASSES = (schema.DEVICE, schema.NETWORK_AE, schema.CONNECTION, schema.CAPABILITY, "hl7Application")
_PARTS = f"(|{''.join(f'(objectClass={each})' for each in _CLASSES)})"
_ATTRIBUTES = (
    "objectClass", "cn", "dcmProtocol",
    *(row.name for row in schema.ATTRIBUTES.values() if row.name != "dicomVendorData"),
)  # fmt: skip
_REFERENCES = ("objectClass", "dicomAuthorizedNodeCertificateReference", "dicomThisNodeCertificateReference")
_CERTIFICATE = ("userCertificate;binary", "userCertificate")
_ANYTHING = "(objectClass=*)"
_CSN, _TIME = "entryCSN", "modifyTimestamp"
ASKING_TIMEOUTS = 60
"""One question may take so many times as long as one answer, however many servers there are: so the one after a server
that took all the time it is given has its turn, and nobody waits for hours."""
_ACCEPT = (
    "may our account read below cn=Devices, and is this server filled? If they are gone on purpose: gateway devices "
    "accept"
)


@dataclass(frozen=True, slots=True)
class Mark:
    """What tells whether a directory changed since: `contents` is another text then.

    `suffix` is the contextCSN of the whole tree of the server: as long as that stays, nothing changed anywhere, which
    costs one entry to see. '' where the server keeps none (OpenLDAP: without the overlay syncprov). `exact`: every
    change makes another mark; where not, one within the same second as the newest known one makes none.
    """

    contents: str
    suffix: str = ""
    exact: bool = True


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What was read at once.

    `problems` are of single entries, which were left out or mended. `mark` is that of the entries which were read, so
    that a change during it is seen at the next look. `root` is the DN of the configuration, `server` the one
    that it was read from.
    """

    directory: Directory
    problems: tuple[Problem, ...]
    mark: Mark
    root: str
    server: str


_NOBODY = Roll()


class LDAPDirectory:
    """A client for one directory. All methods raise LDAPFailed, whose text says what, where and what to do."""

    def __init__(self, access: LDAPAccess) -> None:
        self._access = access

    def read(self) -> Directory:
        """Every device. What is wrong with single entries is only in `snapshot`."""
        return self.snapshot().directory

    def snapshot(self, known: Roll = _NOBODY) -> Snapshot:
        """Every device, with problems and mark. Entries of certificates that devices refer to are read too.

        `known` are those that there were before: a server where nobody or less than half of them is left is not
        believed, and the next one is asked.
        """
        return self._asked(lambda session, root: _snapshot(session, root, known))

    def mark(self, since: Mark | None = None) -> Mark:
        """The mark of the directory now. Where the server's contextCSN is that of `since`, that one, for one entry;
        elsewhere every entry of a device is looked at, and of certificates that devices refer to."""
        return self._asked(lambda session, root: _mark(session, root, since))

    def suffix(self) -> str:
        """What `Mark.suffix` is now; '' where the server keeps none."""
        return self._asked(_suffix)

    def find(
        self, *, ae_title: str = "", device: str = "", device_type: str = "", host: str = ""
    ) -> tuple[DeviceEntry, ...]:
        """The devices that fit all that is given: an AE title, a name, a CID 30 type, the host of a connection."""
        questions = [
            (_of(schema.NETWORK_AE, "dicomAETitle", ae_title), 1),
            (_of(schema.DEVICE, "dicomDeviceName", device), 0),
            (_of(schema.DEVICE, "dicomPrimaryDeviceType", device_type), 0),
            (_of(schema.CONNECTION, "dicomHostname", host), 1),
        ]
        given = [(question, up) for question, up in questions if question]
        return self._asked(lambda session, root: _find(session, root, given))

    def write_device(self, entry: DeviceEntry, *, reserved: frozenset[str] = frozenset()) -> tuple[str, ...]:
        """Create or update the device, by the smallest change; the DNs that were changed.

        New AE titles are reserved first (H.1.4.3.5); `reserved` are those that the caller reserved before. All or
        nothing: what was done is undone where a later part fails. What our model has no place for stays as it is.
        Raises LDAPConflict where an AE title is another's.
        """
        faults = unwritable(entry)
        if faults:
            raise LDAPFailed(f"device {entry.name} cannot stand in LDAP as Annex H demands it: {'; '.join(faults)}")
        with self._changing() as (session, root):
            return _Writing(session, root).write(entry, reserved)

    def delete_device(self, name: str) -> bool:
        """Delete the device with all it has and release its AE titles; whether there was one."""
        with self._changing() as (session, root):
            return _Writing(session, root).delete(name)

    def reserve(self, ae_title: str) -> None:
        """Reserve an AE title in the registry (H.1.4.3.5). Raises LDAPConflict where it is taken."""
        if not legal_ae_title(ae_title):
            raise LDAPFailed(f"{ae_title!r} is no AE title: 1 to 16 letters of ASCII, no backslash, no outer spaces")
        with self._changing() as (session, root):
            holder = _holder(session, root, ae_title)
            if holder is not None:
                raise LDAPConflict(f"AE title {ae_title} belongs to {holder}; choose another")
            try:
                session.add(registry_entry(ae_title, root))
            except AlreadyThere:
                raise LDAPConflict(f"AE title {ae_title} is reserved already; choose another, or release it") from None

    def release(self, ae_title: str) -> bool:
        """Give a reserved AE title back; whether it was reserved. Raises LDAPConflict while a device has it."""
        with self._changing() as (session, root):
            holder = _holder(session, root, ae_title)
            if holder is not None:
                raise LDAPConflict(f"AE title {ae_title} belongs to {holder}; delete it there first")
            return _release(session, root, ae_title)

    def reserved(self) -> tuple[str, ...]:
        """The AE titles in the registry, sorted."""
        return self._asked(_reserved)

    def _asked(self, question: Callable[[Session, DN], _T]) -> _T:
        """The answer of the first server that has one."""
        failed: list[str] = []
        until = monotonic() + ASKING_TIMEOUTS * self._access.timeout_s
        for server in self._servers(failed):
            if monotonic() > until:
                failed.append(f"{server} was not asked any more: those before took too long")
                break
            try:
                with connected(self._access, server, until) as session:
                    return question(session, _root(session, self._base()))
            except LDAPFailed as error:
                failed.append(str(error))
        raise LDAPFailed("; and ".join(failed))

    @contextmanager
    def _changing(self) -> Iterator[tuple[Session, DN]]:
        """A session with the first server that has the configuration. What fails from then on is not tried again
        elsewhere: a part of it may be done."""
        with ExitStack() as stack:
            failed: list[str] = []
            for server in self._servers(failed):
                try:
                    session = stack.enter_context(connected(self._access, server))
                    root = _root(session, self._base())
                except LDAPFailed as error:
                    failed.append(str(error))
                    continue
                yield session, root
                return
            raise LDAPFailed("; and ".join(failed))

    def _base(self) -> DN:
        try:
            return parse_dn(self._access.base)
        except DNError as error:
            raise LDAPFailed(f"base {self._access.base!r} is no DN: {error}; write it as dc=hospital,dc=...") from None

    def _servers(self, failed: list[str]) -> Iterator[LDAPServer]:
        """Those that are named, then those of DNS, which is asked only when it is its turn."""
        access = self._access
        for url in access.servers:
            try:
                yield named(url, access.start_tls)
            except ValueError as error:
                failed.append(str(error))
        if access.discover:
            try:
                yield from discovered(
                    access.discover,
                    plain=access.plain and not access.start_tls,
                    timeout_s=access.timeout_s,
                    name_servers=access.name_servers,
                )
            except DiscoveryError as error:
                failed.append(str(error))
        if not access.servers and not access.discover:
            failed.append("no server is named: say `servers`, or a domain to `discover` them in")


def _of(object_class: str, attribute: str, value: str) -> str:
    return f"(&(objectClass={object_class}){equals(attribute, value)})" if value else ""


def _contexts(session: Session) -> list[DN]:
    """The trees that the server says it has (RFC 4512 5.1)."""
    dse = session.read(DN(), ("namingContexts",))
    found = []
    for value in dse.attributes.get("namingcontexts", ()) if dse else ():
        try:
            found.append(parse_dn(value.decode()))
        except ValueError:
            continue
    return found


def _root(session: Session, base: DN) -> DN:
    """The one configuration at or below the base, with both its children (H.1.4.2); no base: in any tree it has."""
    bases = [base] if base.rdns else _contexts(session)
    roots: list[DN] = []
    for each in bases:
        try:
            found = session.search(each, f"(objectClass={schema.ROOT})", ("cn",), elsewhere=True)
            roots += [entry.dn for entry in found]
        except NoSuchEntry:
            continue
    where = f"below {base}" if base.rdns else "in what our account may read"
    if not roots:
        raise LDAPFailed(
            f"{session.server}: there is no DICOM configuration ({schema.ROOT}) {where}; see `base`, or load "
            "config/ldap/init-tree.ldif"
        )
    whole = [root for root in roots if _has_children(session, root)]
    if not whole:
        raise LDAPFailed(
            f"{session.server}: {roots[0]} lacks cn={schema.DEVICES_NAME} or cn={schema.REGISTRY_NAME}, or our account "
            "may not read them; load config/ldap/init-tree.ldif, or let it read them"
        )
    if len(whole) > 1:
        names = "; ".join(map(str, whole[:5]))
        raise LDAPFailed(f"{session.server}: there are {len(whole)} DICOM configurations: {names}; name one as `base`")
    return whole[0]


def _has_children(session: Session, root: DN) -> bool:
    return all(
        (child := session.read(dn, ("objectClass",))) is not None and child.is_a(kind)
        for dn, kind, _ in schema.init_entries(root)[1:]
    )


def _snapshot(session: Session, root: DN, known: Roll) -> Snapshot:
    suffix, stamp = _suffix(session, root), _stamp_of(session, root)
    entries = list(session.search(root, _PARTS, (*_ATTRIBUTES, stamp)))
    holders = _holders(session, entries, (*_CERTIFICATE, stamp))
    certificates = {key: holder.attributes.get("usercertificate", ()) for key, holder in holders.items()}
    reading = reading_of(entries, certificates)
    lost = great_loss(known, reading.directory)
    if lost:
        raise LDAPFailed(f"{session.server} is not believed: {lost}; {_ACCEPT}")
    mark = _mark_of((*entries, *holders.values()), suffix, stamp)
    return Snapshot(reading.directory, reading.problems, mark, str(root), str(session.server))


def _mark(session: Session, root: DN, since: Mark | None = None) -> Mark:
    suffix = _suffix(session, root)
    if since is not None and suffix and suffix == since.suffix:
        return since
    stamp = _stamp_of(session, root)
    entries = list(session.search(root, _PARTS, (*_REFERENCES, stamp)))
    return _mark_of((*entries, *_holders(session, entries, (stamp,)).values()), suffix, stamp)


def _mark_of(entries: Iterable[Entry], suffix: str, stamp: str) -> Mark:
    """Of these entries, as they were when they were read."""
    stamps = sorted((repr(entry.dn.rdns), entry.attributes.get(stamp.lower(), ())) for entry in entries)
    exact = stamp == _CSN and all(values for _, values in stamps)
    return Mark(hashlib.sha256(repr(stamps).encode()).hexdigest(), suffix, exact)


def _stamp_of(session: Session, root: DN) -> str:
    """The attribute that says when an entry changed. That of OpenLDAP is another one at every change; the one that all
    servers have (RFC 4512 3.4.2) counts seconds."""
    entry = session.read(root, (_CSN,))
    return _CSN if entry is not None and _CSN.lower() in entry.attributes else _TIME


def _suffix(session: Session, root: DN) -> str:
    for context in _contexts(session):
        if root.key != context.key and not root.is_below(context):
            continue
        suffix = session.read(context, ("contextCSN",))
        numbers = suffix.attributes.get("contextcsn", ()) if suffix else ()
        if numbers:
            return " ".join(sorted(each.decode("ascii", "replace") for each in numbers))
    return ""


def _holders(session: Session, entries: Sequence[Entry], attributes: Sequence[str]) -> dict[Key, Entry]:
    """The entries of certificates that devices refer to. Those that the server does not give are left out, to be
    reported; where it does not answer, nothing of it is whole."""
    found: dict[Key, Entry] = {}
    for key, dn in certificate_names(entries).items():
        try:
            holder = session.read(dn, attributes)
        except NotGiven:
            continue
        if holder is not None:
            found[key] = holder
    return found


def _certificates(session: Session, entries: Sequence[Entry]) -> dict[Key, Values]:
    return {
        key: holder.attributes.get("usercertificate", ())
        for key, holder in _holders(session, entries, _CERTIFICATE).items()
    }


def _reserved(session: Session, root: DN) -> tuple[str, ...]:
    held = session.search(
        schema.registry_dn(root), f"(objectClass={schema.UNIQUE_AE_TITLE})", ("dicomAETitle",), scope="LEVEL"
    )
    return tuple(
        sorted(value.decode("ascii", "replace") for entry in held for value in entry.attributes.get("dicomaetitle", ()))
    )


def _find(session: Session, root: DN, questions: Sequence[tuple[str, int]]) -> tuple[DeviceEntry, ...]:
    devices = schema.devices_dn(root)
    found: dict[Key, DN] | None = None
    for question, levels_up in questions or [(f"(objectClass={schema.DEVICE})", 0)]:
        these = [entry.dn for entry in session.search(devices, question, ("objectClass",))]
        of_devices = {dn.key: dn for dn in (each.parent if levels_up else each for each in these)}
        found = of_devices if found is None else {key: dn for key, dn in found.items() if key in of_devices}
    entries = [entry for dn in (found or {}).values() for entry in session.search(dn, _PARTS, _ATTRIBUTES)]
    return reading_of(entries, _certificates(session, entries)).directory.devices


def _holder(session: Session, root: DN, ae_title: str, besides: DN | None = None) -> DN | None:
    """The device that has the AE title, but for one."""
    wanted = _of(schema.NETWORK_AE, "dicomAETitle", ae_title)
    for entry in session.search(schema.devices_dn(root), wanted, ("objectClass",)):
        if besides is None or entry.dn.parent.key != besides.key:
            return entry.dn.parent
    return None


def _release(session: Session, root: DN, ae_title: str) -> bool:
    try:
        session.delete(registry_entry(ae_title, root).dn)
    except NoSuchEntry:
        return False
    return True


class _Writing:
    """One change of one device; what was done can be undone."""

    def __init__(self, session: Session, root: DN) -> None:
        self._session = session
        self._root = root
        self._undo: list[tuple[str, Callable[[], object]]] = []
        self._done: list[str] = []
        self._released: set[str] = set()

    def write(self, device: DeviceEntry, reserved: frozenset[str]) -> tuple[str, ...]:
        """Raises LDAPFailed, with everything undone."""
        existing = self._existing(device.name)
        try:
            plan = plan_of(device, schema.devices_dn(self._root), existing)
        except ValueError as error:
            raise LDAPFailed(f"{self._session.server}: {error}") from None
        before = _titles(existing)
        try:
            self._reserve(device, before, existing[0].dn if existing else None, reserved)
            self._carry_out(plan)
            self._release(before - {ae.ae_title for ae in device.aes})
        except LDAPFailed as error:
            raise type(error)(f"{error}{self._take_back()}") from None
        return tuple(dn for dn in self._done if dn not in self._released)

    def delete(self, name: str) -> bool:
        existing = self._existing(name)
        if not existing:
            return False
        try:
            self._carry_out(Plan(deletes=deepest_first(existing)))
            self._release(_titles(existing))
        except LDAPFailed as error:
            raise type(error)(f"{error}{self._take_back()}") from None
        return True

    def _release(self, titles: Iterable[str]) -> None:
        """Give back those that nobody has any more; another tool may have let two devices have one."""
        for title in sorted(titles):
            entry = registry_entry(title, self._root)
            if _holder(self._session, self._root, title) is None and _release(self._session, self._root, title):
                self._released.add(str(entry.dn))
                self._note(entry.dn, partial(self._session.add, entry))

    def _existing(self, name: str) -> list[Entry]:
        """The device's entry, then all below it, with all attributes, so that they can be put back."""
        devices = schema.devices_dn(self._root)
        found = list(self._session.search(devices, _of(schema.DEVICE, "dicomDeviceName", name), ("*",)))
        if len(found) > 1:
            names = "; ".join(str(each.dn) for each in found)
            raise LDAPFailed(f"{self._session.server}: there are several devices {name}: {names}; delete all but one")
        if not found:
            return []
        below = self._session.search(found[0].dn, _ANYTHING, ("*",))
        return found + [each for each in below if each.dn.key != found[0].dn.key]

    def _reserve(self, device: DeviceEntry, before: frozenset[str], place: DN | None, reserved: frozenset[str]) -> None:
        """Every AE title stands in the registry before its AE is created; those it had before belong to it."""
        for title in dict.fromkeys(ae.ae_title for ae in device.aes):
            holder = None if title in before else _holder(self._session, self._root, title, place)
            if holder is not None:
                raise LDAPConflict(f"AE title {title} belongs to {holder}; choose another for device {device.name}")
            try:
                self._add(registry_entry(title, self._root))
            except AlreadyThere:
                if title not in before and title not in reserved:
                    raise LDAPConflict(
                        f"AE title {title} is reserved for another device; choose another for {device.name}, or "
                        "release it if the reservation is yours"
                    ) from None

    def _carry_out(self, plan: Plan) -> None:
        for entry in plan.adds:
            self._add(entry)
        for change in plan.changes:
            self._session.modify(change)
            back = {name: (after, before) for name, (before, after) in change.attributes.items()}
            self._note(change.dn, partial(self._session.modify, replace(change, attributes=back)))
        for entry in plan.deletes:
            self._session.delete(entry.dn)
            self._note(entry.dn, partial(self._session.add, entry))

    def _add(self, entry: Entry) -> None:
        self._session.add(entry)
        self._note(entry.dn, partial(self._session.delete, entry.dn))

    def _note(self, dn: DN, undo: Callable[[], object]) -> None:
        self._done.append(str(dn))
        self._undo.append((str(dn), undo))

    def _take_back(self) -> str:
        """Undo all, last first; in words what could not be."""
        left = []
        for dn, undo in reversed(self._undo):
            try:
                undo()
            except LDAPFailed:
                left.append(dn)
        if not left:
            return "" if not self._undo else "; what was done before is undone"
        return f"; could not be undone, see to it by hand: {'; '.join(left)}"


def _titles(existing: Sequence[Entry]) -> frozenset[str]:
    return frozenset(
        value.decode("ascii", "replace")
        for entry in existing
        if entry.is_a(schema.NETWORK_AE)
        for value in entry.attributes.get("dicomaetitle", ())
    )
