"""Who may do what: a caller by AE titles, address, certificate and user, against what the registry says of it.

Pure decisions over values; what was found out about a caller is given. Each refusal has the rejection that the
protocol has for it and words for people, which name what did not fit, never a secret.
"""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


class Permission(StrEnum):
    """What may be permitted on its own. Verification (C-ECHO) needs none but to be let in; who may send HL7 is said of
    listeners and senders (`domain.senders`)."""

    WORKLIST = "worklist"
    MPPS = "mpps"
    MPPS_RETRIEVE = "mpps-retrieve"
    AVAILABILITY = "availability"


EVERYTHING = frozenset(Permission)


class CertificateRuleKind(StrEnum):
    """What of a certificate a rule looks at."""

    FINGERPRINT = "sha256"
    SUBJECT = "subject"
    """The common name."""
    NAME = "name"
    """A DNS name or address among the subject alternative names."""


@dataclass(frozen=True, slots=True)
class CertificateRule:
    """What a certificate must be, written `sha256:ab12...`, `subject:CT1` or `name:ct1.hosp.example`."""

    kind: CertificateRuleKind
    value: str


@lru_cache(maxsize=16_384)
def network_of(text: str) -> Network:
    """An address, or a network such as 10.1.2.0/24. Raises ValueError. Devices share networks: each is read once."""
    return ipaddress.ip_network(text)


def certificate_rule(text: str) -> CertificateRule:
    """What stands behind `sha256:...`, `subject:...` or `name:...`. Raises ValueError."""
    kind, _, value = text.partition(":")
    try:
        rule = CertificateRule(CertificateRuleKind(kind), value.strip())
    except ValueError:
        raise ValueError(f"{text!r} names no certificate: write sha256:..., subject:... or name:...") from None
    if rule.kind is CertificateRuleKind.FINGERPRINT:
        digits = rule.value.replace(":", "").lower()
        if len(digits) != 64 or set(digits) - set("0123456789abcdef"):
            raise ValueError(f"{text!r} is no SHA-256 fingerprint: it has 64 hex digits")
        return CertificateRule(rule.kind, digits)
    if not rule.value:
        raise ValueError(f"{text!r} names nothing behind the colon")
    label, equals, name = rule.value.partition("=")
    if rule.kind is CertificateRuleKind.SUBJECT and equals and label.strip().upper() == "CN":
        raise ValueError(f"{text!r} would fit no certificate: write the common name alone, subject:{name.strip()}")
    return rule


@dataclass(frozen=True, slots=True)
class Certificate:
    """What a peer showed and TLS verified. `fingerprint` is SHA-256 of the DER form, hex, lower case."""

    fingerprint: str
    common_name: str = ""
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class User:
    """Who a user identity proved to be. `how` is the kind of identity, as PS3.7 D.3.3.7 numbers them."""

    name: str
    how: int
    proved: bool


@dataclass(frozen=True, slots=True)
class Caller:
    """What is known of whoever asks for an association or sends a message."""

    calling_ae_title: str
    called_ae_title: str
    address: str
    tls: bool = False
    certificate: Certificate | None = None
    user: User | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Access:
    """What one registered AE is bound to. Everything empty: whoever is let in may do everything.

    `certificates` demand TLS. `pinned` are those that the directory has of its device (PS3.15 H.1.2): they bind who
    comes by TLS, and who comes without is not asked, as a reference to a certificate does not make TLS mandatory.
    """

    may: frozenset[Permission] = EVERYTHING
    networks: tuple[Network, ...] = ()
    certificates: tuple[CertificateRule, ...] = ()
    pinned: tuple[CertificateRule, ...] = ()
    called: frozenset[str] = frozenset()
    tls_required: bool = False
    user_required: bool = False


OPEN = Access()


class Denial(StrEnum):
    """Why somebody is not let in, in words for people; `edges` know which rejection each of them is."""

    CALLED_UNKNOWN = "the called AE title is none of ours"
    CALLED_NOT_ALLOWED = "it may not call this AE title"
    CALLING_UNKNOWN = "the calling AE title is not registered"
    NOT_INSTALLED = "the device is registered as not installed, or as one that calls nobody"
    ADDRESS = "the calling AE title came from an address that is not its own"
    PLAIN = "it has to use TLS and came without"
    CERTIFICATE = "its certificate is not the one of this AE title"
    NO_USER = "it has to name a user and named none"
    USER = "its user identity was not accepted"
    RATE = "it asks too often"


def denied(access: Access, caller: Caller) -> Denial | None:
    """Why this registered caller is not let in; None lets it in. The first that does not fit, in the order below:
    called AE title, address, TLS, certificate, user."""
    if access.called and caller.called_ae_title not in access.called:
        return Denial.CALLED_NOT_ALLOWED
    if access.networks and not in_networks(caller.address, access.networks):
        return Denial.ADDRESS
    if (access.tls_required or access.certificates) and not caller.tls:
        return Denial.PLAIN
    rules = (*access.certificates, *access.pinned)
    if rules and caller.tls and not any(fits(rule, caller.certificate) for rule in rules):
        return Denial.CERTIFICATE
    if access.user_required and caller.user is None:
        return Denial.NO_USER
    if access.user_required and caller.user is not None and not caller.user.proved:
        return Denial.USER
    return None


def in_networks(address: str, networks: Sequence[Network]) -> bool:
    """Whether the address is in one of them; IPv4 addresses that came over an IPv6 socket count as IPv4."""
    given = _address(address)
    return given is not None and any(given.version == network.version and given in network for network in networks)


@lru_cache(maxsize=4096)  # a device asks often, and reading its address takes longer than everything else here
def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        given = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(given, ipaddress.IPv6Address) and given.ipv4_mapped is not None:
        return given.ipv4_mapped
    return given


def is_this_machine(host: str) -> bool:
    """Whether this name or address can be no other machine's: by it access is decided, so no other name will do."""
    if host == "localhost":
        return True
    given = _address(host)
    return given is not None and given.is_loopback


_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")
"""All that the Internet has of IPv6 (RFC 4291 2.4, as IANA gives it out). `is_global` takes more for public: site-local
addresses, and what may stand for any IPv4 address (::/96, and 64:ff9b:1::/48 of RFC 8215)."""
_NOT_PUBLIC = (ipaddress.ip_network("192.0.0.0/24"), ipaddress.ip_network("3fff::/20"))
"""And of the rest: addresses of protocols (RFC 6890), documentation (RFC 9637)."""


def is_public(address: str) -> bool:
    """Whether an address is one of the Internet: neither this machine's, nor a private or link-local one, nor many."""
    given = _address(address)
    if isinstance(given, ipaddress.IPv6Address):
        inner = given.sixtofour
        if inner is None and given in _NAT64:
            inner = ipaddress.IPv4Address(int(given) & 0xFFFFFFFF)
        given = inner or given
    if given is None or any(given.version == each.version and given in each for each in _NOT_PUBLIC):
        return False
    if given.version == _GLOBAL_UNICAST.version and given not in _GLOBAL_UNICAST:
        return False
    return given.is_global and not given.is_multicast


def fits(rule: CertificateRule, certificate: Certificate | None) -> bool:
    """Whether a certificate is what the rule asks for. Names are compared without case, as DNS does."""
    if certificate is None:
        return False
    match rule.kind:
        case CertificateRuleKind.FINGERPRINT:
            return certificate.fingerprint == rule.value
        case CertificateRuleKind.SUBJECT:
            return certificate.common_name == rule.value
        case CertificateRuleKind.NAME:
            return rule.value.lower() in {name.lower() for name in certificate.names}
