"""The files of certificates and revocation lists that a site's configuration names. What is in them is looked at
elsewhere: here nothing is read, so that a site without any pays nothing for it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from gateway.config import Settings


class Kind(StrEnum):
    """What a file holds."""

    OWN = "certificate"
    AUTHORITY = "authority"
    LIST = "revocation list"


@dataclass(frozen=True, slots=True)
class CertificateFile:
    """One file that the configuration names: at which `setting`, as `named` there, and where it is."""

    setting: str
    named: str
    path: Path
    kind: Kind
    key: Path | None = None
    """Of certificates that we show: the file of the key."""


def certificate_files(settings: Settings, base: Path) -> tuple[CertificateFile, ...]:
    """Every file of certificates and revocation lists that the configuration names, each once."""
    found: dict[tuple[Path, Kind], CertificateFile] = {}
    for setting, named, kind, key in _named(settings):
        path = base / named
        if named and (path, kind) not in found:
            own_key = base / (key or named) if kind is Kind.OWN else None  # one file may hold both
            found[path, kind] = CertificateFile(setting, named, path, kind, own_key)
    return tuple(found.values())


def _named(settings: Settings) -> Iterator[tuple[str, str, Kind, str]]:
    blocks = [("tls", settings.tls), ("dicom.tls", settings.dicom.tls), ("http.tls", settings.http.tls)]
    blocks += [(f"hl7.{place}.tls", listener.tls) for place, listener in enumerate(settings.hl7)]
    for where, block in blocks:
        if block is not None:
            yield f"{where}.certificate", block.certificate, Kind.OWN, block.key
            yield f"{where}.ca", block.ca, Kind.AUTHORITY, ""
            yield f"{where}.crl", block.crl, Kind.LIST, ""
    for place, destination in enumerate(settings.destinations):
        if destination.tls is not None:
            where, said = f"destinations.{place}.tls", destination.tls
            yield f"{where}.certificate", said.certificate, Kind.OWN, said.key
            yield f"{where}.ca", said.ca, Kind.AUTHORITY, ""
            yield f"{where}.crl", said.crl, Kind.LIST, ""
    ldap = settings.devices.ldap
    if ldap is not None:
        yield "devices.ldap.certificate", ldap.certificate, Kind.OWN, ldap.key
        yield "devices.ldap.ca", ldap.ca, Kind.AUTHORITY, ""
        yield "devices.ldap.crl", ldap.crl, Kind.LIST, ""
    for place, saml in enumerate(settings.users.saml):
        yield f"users.saml.{place}.certificate", saml.certificate, Kind.AUTHORITY, ""
