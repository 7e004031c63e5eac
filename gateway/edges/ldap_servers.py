"""Which LDAP servers to ask, and in which order: those that are named, then those that DNS names (PS3.15 H.1.4.1)."""

from dataclasses import dataclass
from typing import cast
from urllib.parse import urlsplit

import dns.exception
import dns.nameserver
import dns.rdtypes.IN.SRV
import dns.resolver

SERVERS_MAX = 32
"""Of all that DNS names; a department has two."""

_PORTS = {"ldap": 389, "ldaps": 636}


@dataclass(frozen=True, slots=True)
class LDAPServer:
    """One server. `tls`: from the first byte; `start_tls`: before anything else is said."""

    host: str
    port: int
    tls: bool
    start_tls: bool = False

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'ldaps' if self.tls else 'ldap'}://{host}:{self.port}"


class DiscoveryError(Exception):
    """DNS named no servers, and why."""


def named(url: str, start_tls: bool) -> LDAPServer:
    """The server of an ldap:// or ldaps:// address. Raises ValueError."""
    parts = urlsplit(url)
    if parts.scheme not in _PORTS or not parts.hostname:
        raise ValueError(f"{url!r} is no ldap:// or ldaps:// address")
    tls = parts.scheme == "ldaps"
    return LDAPServer(parts.hostname, parts.port or _PORTS[parts.scheme], tls, start_tls and not tls)


def discovered(domain: str, *, plain: bool, timeout_s: float, name_servers: tuple[str, ...] = ()) -> list[LDAPServer]:
    """The servers of the SRV records `_ldap._tcp` of a domain, by priority and weight (RFC 2782).

    Port 636 is spoken to by TLS; elsewhere by StartTLS, unless `plain` says that nothing need be encrypted.
    `name_servers` (host:port) are asked in place of the machine's. Raises DiscoveryError.
    """
    question = f"_ldap._tcp.{domain}"
    try:
        answer = _resolver(name_servers).resolve(question, "SRV", lifetime=timeout_s, search=False)
    except dns.resolver.NXDOMAIN:
        raise DiscoveryError(f"DNS has no records {question}: add SRV records, or name the servers") from None
    except dns.resolver.NoAnswer:
        raise DiscoveryError(f"DNS has no SRV records {question}: add some, or name the servers") from None
    except (dns.exception.DNSException, OSError, ValueError) as error:
        raise DiscoveryError(f"DNS did not answer for {question} ({type(error).__name__})") from None
    records = [cast(dns.rdtypes.IN.SRV.SRV, each) for each in answer.rrset.processing_order()] if answer.rrset else []
    targets = [(each.target.to_text(omit_final_dot=True), each.port) for each in records]
    servers = [
        LDAPServer(host, port, tls=port == _PORTS["ldaps"], start_tls=not plain and port != _PORTS["ldaps"])
        for host, port in targets
        if host not in ("", ".")  # RFC 2782: the service is decidedly not there
    ]
    if not servers:
        raise DiscoveryError(f"DNS says that {domain} has no LDAP server ({question}): name the servers")
    return servers[:SERVERS_MAX]


def _resolver(name_servers: tuple[str, ...]) -> dns.resolver.Resolver:
    if not name_servers:
        return dns.resolver.Resolver()
    resolver = dns.resolver.Resolver(configure=False)
    places = [urlsplit(f"//{each}") for each in name_servers]
    resolver.nameservers = [dns.nameserver.Do53Nameserver(each.hostname or "", each.port or 53) for each in places]
    return resolver
