"""How long the certificates and revocation lists are good for that a site's configuration names.

Certificates are warned of 60, 30 and 7 days before their end, once each, and when it has passed; revocation lists,
which are renewed all the time, 7 days before. Of pins (`sha256:` rules) nobody here knows when their certificates end.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import structlog

from gateway.certificate_files import CertificateFile, Kind, certificate_files
from gateway.config import Settings
from gateway.domain.problem import Problem
from gateway.edges.certificates import (
    CertificateFileError,
    certificates_in,
    ending_of,
    facts_of,
    fits_key,
    is_odd,
    key_in,
    lists_in,
    others_may_read,
    signed_by,
    weaknesses,
)
from gateway.security_settings import ListenerTLSSettings, tls_of

THRESHOLDS_DAYS = (60, 30, 7, 0)
"""Days before the end of a certificate at which it is warned of; 0 is the end."""
LIST_THRESHOLDS_DAYS = (7, 0)

BUNDLE_MIN = 20
"""So many authorities in one file are those of an operating system, whose ends are not this site's to watch."""

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Held:
    """One certificate or list in one of these files, and when it ends."""

    file: CertificateFile
    subject: str
    ends: datetime
    mark: str
    """Tells it from others, also from the one in the same file before."""

    def left(self, at: datetime) -> timedelta:
        """How long it is good for."""
        return self.ends - at

    def threshold(self, at: datetime) -> int | None:
        """The nearest of the days of warning that is reached; None where it is good for longer."""
        days = LIST_THRESHOLDS_DAYS if self.file.kind is Kind.LIST else THRESHOLDS_DAYS
        return min((each for each in days if self.left(at) <= timedelta(days=each)), default=None)


def held(file: CertificateFile) -> tuple[Held, ...]:
    """What is in the file. Raises CertificateFileError."""
    try:
        return _held(file)
    except ValueError as error:  # what is read late of a certificate: one that nobody should have made
        raise CertificateFileError(f"{file.path}: something in it cannot be read: {error}") from error


def _held(file: CertificateFile) -> tuple[Held, ...]:
    if file.kind is Kind.LIST:
        lists = lists_in(file.path)
        return tuple(
            Held(file, each.issuer.rfc4514_string(), each.next_update_utc, f"{file.path} {each.last_update_utc}")
            for each in lists
            if each.next_update_utc is not None
        )
    certificates = certificates_in(file.path)
    if file.kind is Kind.AUTHORITY and len(certificates) >= BUNDLE_MIN:
        return ()
    return tuple(Held(file, *ending_of(each)) for each in certificates)


def doubts(settings: Settings, base: Path, at: datetime) -> Iterator[Problem]:
    """What `gateway check` has to say of these files: soon or already ended, weak, unreadable, with another's key, or
    of lists that refuse everybody."""
    for file in certificate_files(settings, base):
        try:
            for each in held(file):
                if each.threshold(at) is not None:
                    yield Problem("gateway.yaml", file.setting, _ending(each, at), _renewal(file.kind))
            yield from _odd_doubts(file)
            yield from _own_doubts(file)
        except CertificateFileError as error:
            text = str(error).replace(str(file.path), file.named, 1)
            yield Problem("gateway.yaml", file.setting, text, "paths are relative to this file")
    yield from _list_doubts(settings, base)
    yield from _unchecked(settings)


def _odd_doubts(file: CertificateFile) -> Iterator[Problem]:
    for place, certificate in enumerate(certificates_in(file.path) if file.kind is not Kind.LIST else (), 1):
        if is_odd(certificate):
            yield Problem(
                "gateway.yaml", file.setting, f"{file.named}: certificate {place} has extensions that are damaged, or "
                "of a form that is not understood here", "TLS may take it; ask its maker for another, or leave it out",
            )  # fmt: skip


def _own_doubts(file: CertificateFile) -> Iterator[Problem]:
    if file.kind is not Kind.OWN:
        return
    if file.key is not None and others_may_read(file.key):
        yield Problem(
            "gateway.yaml", file.setting, f"{file.key.name}: others than its owner can read or change this key",
            f"chmod 600 {file.key}",
        )  # fmt: skip
    certificate = certificates_in(file.path)[0]
    if is_odd(certificate):
        return
    listener = not file.setting.startswith(("destinations.", "devices."))
    for weak in weaknesses(facts_of(certificate), shown_by_server=listener):
        yield Problem("gateway.yaml", file.setting, f"{file.named}: {weak}", "make another: `gateway certs issue`")
    if file.key is not None and not fits_key(certificate, key_in(file.key)):
        yield Problem(
            "gateway.yaml", file.setting, f"{file.named}: its key is not the one in {file.key.name}",
            "our own certificate comes first in its file; name the key it was made with",
        )  # fmt: skip


def _list_doubts(settings: Settings, base: Path) -> Iterator[Problem]:
    """Whom lists refuse by not being there: each authority that is trusted together with lists needs one of its own."""
    said: set[tuple[str, str]] = set()
    for setting, ca, crl in _trusting(settings):
        if not (ca and crl) or (ca, crl) in said:
            continue
        said.add((ca, crl))
        try:
            trusted, lists = certificates_in(base / ca), lists_in(base / crl)
        except CertificateFileError:
            continue  # said of the file itself
        for authority in trusted:
            if is_odd(authority) or not facts_of(authority).authority:
                continue
            if not any(signed_by(each, authority) for each in lists):
                yield Problem(
                    "gateway.yaml", setting, f"{crl} has no list of {facts_of(authority).subject}, which {ca} trusts: "
                    "everybody whom that has signed is refused", "put its list into the file too, behind the other, or "
                    "take the authority out of `ca`",
                )  # fmt: skip


def _trusting(settings: Settings) -> Iterator[tuple[str, str, str]]:
    """(setting, ca, crl) of everything that holds certificates against both, as it is inherited."""
    for where, own in _listeners(settings):
        said = tls_of(settings.tls, own)
        if said.clients != "none":
            yield f"{where}.crl" if own.crl else "tls.crl", said.ca, said.crl
    yield "tls.crl", settings.tls.ca, settings.tls.crl
    for place, destination in enumerate(settings.destinations):
        if destination.tls is not None:
            yield f"destinations.{place}.tls.crl", destination.tls.ca, destination.tls.crl
    ldap = settings.devices.ldap
    if ldap is not None and ldap.crl:
        yield "devices.ldap.crl", ldap.ca or settings.tls.ca, ldap.crl


def _listeners(settings: Settings) -> Iterator[tuple[str, ListenerTLSSettings]]:
    blocks = [("dicom.tls", settings.dicom.tls), ("http.tls", settings.http.tls)]
    blocks += [(f"hl7.{place}.tls", listener.tls) for place, listener in enumerate(settings.hl7)]
    return ((where, block) for where, block in blocks if block is not None)


def _unchecked(settings: Settings) -> Iterator[Problem]:
    """Where nobody looks whether a certificate was revoked, though the common `crl` reads as if somebody did."""
    if not settings.tls.crl:
        return
    for where, own in _listeners(settings):
        if own.ca and not own.crl:
            yield _not_inherited(f"{where}.ca")
    for place, destination in enumerate(settings.destinations):
        if destination.tls is not None and not destination.tls.crl:
            yield _not_inherited(f"destinations.{place}.tls.ca")
    ldap = settings.devices.ldap
    if ldap is not None and ldap.ca and not ldap.crl:
        yield _not_inherited("devices.ldap.ca")


def _not_inherited(setting: str) -> Problem:
    return Problem(
        "gateway.yaml", setting, "has no `crl` beside it, so revocation is not checked here: `tls.crl` goes with "
        "`tls.ca` only", "name the lists of these authorities in `crl` beside it",
    )  # fmt: skip


def _ending(each: Held, at: datetime) -> str:
    days = each.left(at).days
    until = f"{each.ends:%Y-%m-%d %H:%M} UTC"
    what = f"{each.file.named}: the {each.file.kind} of {each.subject}"
    if each.left(at) > timedelta(0):
        return f"{what} is good for {days} more day(s), until {until}"
    refused = "; everybody is refused by it" if each.file.kind is Kind.LIST else ""
    return f"{what} ended on {until}{refused}"


def _renewal(kind: Kind) -> str:
    if kind is Kind.LIST:
        return "renew it: `gateway certs crl`, or fetch it from the authority"
    if kind is Kind.AUTHORITY:
        return "put the authority's new certificate into the file beside this one before those that it signs change"
    return "make a new one: `gateway certs issue`; the service takes it up by itself"


class ExpiryWatch:
    """Looks at the files now and then, and remembers what it has warned of."""

    def __init__(self) -> None:
        self.held: Sequence[Held] = ()
        """What was found last, for metrics."""
        self._told: dict[str, int] = {}

    def look(self, settings: Settings, base: Path, at: datetime) -> int:
        """Read the files and warn in the log of what was not warned of; returns how many warnings there were.

        Raises nothing: what cannot be looked at must not keep the service from starting.
        """
        found: list[Held] = []
        for file in certificate_files(settings, base):
            try:
                found += held(file)
            except CertificateFileError as error:
                _log.error("certificate_unreadable", setting=file.setting, text=str(error))
            except Exception as error:  # a defect of ours, or of a library
                _log.error("certificate_unreadable", setting=file.setting, text=type(error).__name__, exc_info=error)
        self.held = tuple(found)
        return sum(self._warn(each, at) for each in found)

    def _warn(self, each: Held, at: datetime) -> bool:
        threshold = each.threshold(at)
        if threshold is None or self._told.get(each.mark, threshold + 1) <= threshold:
            return False
        self._told[each.mark] = threshold
        ended = each.left(at) <= timedelta(0)
        what = "revocation_list" if each.file.kind is Kind.LIST else "certificate"
        say = _log.error if ended else _log.warning
        say(
            f"{what}_expired" if ended else f"{what}_expires",
            setting=each.file.setting, file=each.file.named, subject=each.subject, until=each.ends.isoformat(),
            days=each.left(at).days, hint=_renewal(each.file.kind),
        )  # fmt: skip
        return True


def seconds_left(watched: Iterable[Held]) -> list[tuple[str, str, datetime]]:
    """(file, subject, end) of each, for metrics."""
    return [(each.file.named, each.subject, each.ends) for each in watched]
