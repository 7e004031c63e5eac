"""Parts of the conformance statement on security, network, time and configuration, from the tables the code runs on.

As `conformance`: what no table says is a sentence here.
"""

from collections.abc import Iterable

from gateway.answering import REJECTIONS
from gateway.domain.access import Permission
from gateway.edges import clock, resolving
from gateway.markdown import code, table
from gateway.wire.tls_profiles import DEFAULT_PROFILE, PROFILES
from gateway.wire.user_identity import IdentityKind

_IDENTITIES = {
    IdentityKind.NAME: "a user name; it proves nothing unless `users.trust_names` says so",
    IdentityKind.PASSCODE: "a user name with a passcode, verified; over TLS only",
    IdentityKind.KERBEROS: "refused",
    IdentityKind.SAML: "a SAML assertion: signature, issuer, audience and times are verified",
    IdentityKind.JWT: "a JSON Web Token: signature, issuer, audience and times are verified",
}

_ROLES = (
    ("F, Basic Network Address Management", "DNS client", "Resolve Hostname; DNSSEC is the system resolver's"),
    ("G, Basic Time Synchronization", "none", "the machine's own NTP or SNTP service sets its clock, see below"),
    ("H, Application Configuration Management", "LDAP client, DNS SRV client",
     "Find LDAP Server, Query LDAP Server, Update LDAP Server"),
)  # fmt: skip
"""Profiles of PS3.15, the actors that the gateway is, and their transactions."""


def security_statement() -> Iterable[str]:
    """Its lines, in Markdown."""
    yield "## Security: TLS"
    yield ""
    yield "Plain and TLS are served on ports of their own, side by side or one of them alone, for DICOM, HL7 and HTTP."
    yield f"Unless configured otherwise the profile is {code(DEFAULT_PROFILE)} and callers must show a certificate."
    yield ""
    yield from table(
        ("Profile", "PS3.15", "Standing", "Oldest", "Newest"),
        (
            (code(each.name), f"{each.section}, {each.title}", each.standing, str(each.oldest), str(each.newest))
            for each in PROFILES.values()
        ),
    )
    yield "Certificates and keys are files in PEM and are renewed while associations are open. A peer's certificate is"
    yield "verified up to a configured authority, against revocation lists where there are some, and may be bound to an"
    yield "AE title by fingerprint, common name, or subject alternative name. Revocation is checked of peers that call"
    yield "and that are called, along the whole chain; where a configured authority is no root, of the peer's own"
    yield "certificate only. Sessions are not resumed; with TLS 1.2 they may be for a minute."
    yield ""
    yield "## Security: who is let in"
    yield ""
    yield from table(
        ("Rejected with result, source, reason", "Because"),
        ((f"{each.result}, {each.source}, {each.reason}", denial.value) for denial, each in REJECTIONS.items()),
    )
    yield f"A registered AE may be limited to {', '.join(Permission)}; presentation contexts of anything else are"
    yield "rejected by result 1 (user rejection). Verification needs no permission but to be let in."
    yield ""
    yield "## Security: user identity (PS3.7 D.3.3.7)"
    yield ""
    yield from table(("Type", "What is done with it"), ((str(int(kind)), words) for kind, words in _IDENTITIES.items()))
    yield "A requested response is sent where the identity was proved, with an empty Server-response field. For type 4"
    yield "the SAML response that D.3.3.7.2 has in it is left out. The identity of a requester whose AE titles,"
    yield "address, TLS or certificate are not accepted is not looked at."
    yield ""
    yield "## Network, time and configuration management"
    yield ""
    yield from table(("PS3.15 Annex", "Actors", "Transactions"), _ROLES)
    yield "Peers may be named by host. A name is looked up by the system when it is used, again after"
    yield f"{resolving.FRESH_S:g} s, and when a connection fails. At most {resolving.ADDRESSES_MAX} of its addresses"
    yield f"are tried. While no name server answers, the last answer serves, for {resolving.STALE_S / 3600:g} hours at"
    yield "most. SIGHUP purges what is known. The TTL of records is not known to the gateway."
    yield ""
    yield "The clock is compared with configured servers by SNTP, and never set; nothing is refused because of it: an"
    yield "offset beyond a limit (1 s unless configured otherwise) is a warning and a metric. Of several servers the"
    yield f"median counts; one has {clock.ANSWER_S:g} s to answer. Secure NTP (RFC 5906) is not supported."
    yield ""
    yield "Devices are read from LDAP by the schema of PS3.15 H.1.3; attributes and classes beside it are tolerated."
    yield "What no attribute of the standard says of an AE is in an auxiliary class of the gateway, described in"
    yield "config/ldap. Access to LDAP is anonymous, by simple bind or by SASL EXTERNAL, under TLS unless plain is"
    yield "configured. DNS-SD records (H.2) are printed for a zone file by `gateway devices dns`; none are read."
    yield ""
