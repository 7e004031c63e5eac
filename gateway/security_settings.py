"""The settings of what protects the gateway: TLS, who calls from where, users, and where devices are described.

What may live here: models of parts of `gateway.yaml`, checked as far as one part can be checked by itself.
"""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from gateway.domain.access import Permission, certificate_rule, network_of
from gateway.setting_types import Port
from gateway.wire.host_ports import host_and_port
from gateway.yaml_files import AEText, Strict


def _networks(said: tuple[str, ...]) -> tuple[str, ...]:
    for each in said:
        try:
            network_of(each)
        except ValueError:
            raise ValueError(f"{each!r} is no address and no network such as 10.1.2.0/24") from None
    return said


def _certificate_rules(said: tuple[str, ...]) -> tuple[str, ...]:
    for each in said:
        certificate_rule(each)
    return said


_NTP_PORT = 123
_LDAP_PORTS = {"ldap": 389, "ldaps": 636}


def _time_servers(said: tuple[str, ...]) -> tuple[str, ...]:
    for each in said:
        host_and_port(each, _NTP_PORT)
    return said


Networks = Annotated[tuple[str, ...], AfterValidator(_networks)]
CertificateRules = Annotated[tuple[str, ...], AfterValidator(_certificate_rules)]
Permissions = tuple[Permission, ...]

TLSProfileName = Literal["bcp195", "bcp195-modified", "non-downgrading", "bcp195-2015", "aes-legacy"]
"""The rows of `wire.tls_profiles`: PS3.15 B.12, B.13, B.10, B.9, and the retired B.3 for old devices."""


class TLSSettings(Strict):
    """What the gateway shows and whom it trusts by TLS. A listener's own block goes before the one of all."""

    certificate: str = Field("", description="file of our certificate (PEM), then those that signed it")
    key: str = Field("", description="file of its private key (PEM)")
    ca: str = Field("", description="file of the certificates (PEM) one of which must have signed a caller's")
    crl: str = Field("", description="file of revocation lists (PEM) of those; empty: revocation is not checked")
    profile: TLSProfileName | Literal[""] = Field(
        "", description="protocol versions and suites, by PS3.15; empty: as in `tls`, else bcp195"
    )
    clients: Literal["required", "requested", "none", ""] = Field(
        "", description="whether callers show a certificate; empty: as in `tls`, else required"
    )


class ListenerTLSSettings(TLSSettings):
    """TLS of one listener, on a port of its own, so that plain and TLS may be served side by side."""

    port: Port = Field(description="TCP port of TLS")


def tls_of(common: TLSSettings, own: TLSSettings) -> TLSSettings:
    """What holds for a listener: its own block, and what that leaves open from the one of all, else the defaults.

    Files that belong together come from one block: the key with its certificate, revocation lists with `ca`.
    """
    shows, trusts = own if own.certificate else common, own if own.ca else common
    return TLSSettings(
        certificate=shows.certificate,
        key=own.key or shows.key,
        ca=trusts.ca,
        crl=own.crl or trusts.crl,
        profile=own.profile or common.profile or "bcp195",
        clients=own.clients or common.clients or "required",
    )


class PasswordUsersSettings(Strict):
    """Users with passcodes (User Identity type 2)."""

    file: str = Field(description="file of users, such as users.yaml, with passcodes as `gateway users` hashes them")


class JWTSettings(Strict):
    """Whose JSON Web Tokens are believed (User Identity type 5)."""

    issuer: str = Field(min_length=1, description="`iss` of its tokens")
    audience: str = Field(min_length=1, description="`aud` its tokens must have")
    keys: str = Field(description="file of its public keys: JWKS (.json) or PEM")


class SAMLSettings(Strict):
    """Whose SAML assertions are believed (User Identity type 4)."""

    issuer: str = Field(min_length=1, description="Issuer of its assertions")
    audience: str = Field(min_length=1, description="Audience they must be for")
    certificate: str = Field(description="file of the certificate (PEM) that signs them")


class UsersSettings(Strict):
    """User identities of associations (PS3.7 D.3.3.7)."""

    required: bool = Field(False, description="refuse an association that names no user who proves to be one")
    passwords: PasswordUsersSettings | None = Field(None, description="user name and passcode; only over TLS")
    jwt: tuple[JWTSettings, ...] = ()
    saml: tuple[SAMLSettings, ...] = ()
    trust_names: bool = Field(False, description="whether a user name without a passcode (type 1) proves anything")


class LimitsSettings(Strict):
    """How much one peer may ask for. What goes beyond is refused in the protocol's words, and counted."""

    associations_per_s: float = Field(
        0, ge=0, description="associations of one AE title a second, of which each of several processes allows its "
        "share; 0: any number"
    )  # fmt: skip
    queries_per_s: float = Field(
        0, ge=0, description="worklist queries of one AE title a second in each process, more end with A700; 0: any"
    )
    messages_per_s: float = Field(
        0, ge=0, description="HL7 messages of one address a second in each process, then it waits; 0: any"
    )


class ClockSettings(Strict):
    """The watch over the machine's clock (IHE Consistent Time)."""

    servers: Annotated[tuple[str, ...], AfterValidator(_time_servers)] = Field(
        (), description="NTP servers to compare with, host[:port] each; empty: nobody watches"
    )
    every_s: float = Field(300, ge=10, le=86_400, description="seconds between two comparisons")
    warn_s: float = Field(1.0, gt=0, le=3600, description="an offset of more seconds is warned of")


class LDAPSettings(Strict):
    """A directory of devices as PS3.15 Annex H has it."""

    use: bool = Field(
        True, description="whether devices are those of the directory; false: those of `file`, the directory is only "
        "for `gateway devices` diff, pull and push"
    )  # fmt: skip
    snapshot: str = Field("devices-ldap.json", description="file that keeps what was read last, for when LDAP is away")
    device: str = Field("", description="name of our own device in the directory; empty: `ae_title`")
    servers: tuple[str, ...] = Field((), description="ldaps://host[:port] or ldap://..., asked in this order")
    discover: str = Field("", description="domain whose DNS SRV records (_ldap._tcp) name further servers")
    base: str = Field("", description="DN below which the configuration stands; empty: where the server says")
    bind: Literal["simple", "external", "anonymous"] = Field("simple", description="how we say who we are")
    user: str = Field("", description="DN of our account, for simple")
    password: str = Field("", description="its password; write ${NAME} to take it from the environment", repr=False)
    start_tls: bool = Field(False, description="turn ldap:// into TLS before anything is said")
    ca: str = Field("", description="file of the certificates (PEM) that sign the server's; empty: those of `tls`")
    crl: str = Field(
        "", description="file of revocation lists (PEM) of those; empty: those of `tls` where `ca` is, else not checked"
    )
    certificate: str = Field("", description="file of our certificate (PEM), for external; empty: that of `tls`")
    key: str = Field("", description="file of its private key (PEM)")
    plain: bool = Field(False, description="whether ldap:// without TLS will do; passwords then travel in clear")
    refresh_s: float = Field(60, ge=1, le=86_400, description="seconds between two looks whether anything changed")
    timeout_s: float = Field(10, gt=0, le=300, description="for any one answer of a server")
    entries_max: int = Field(50_000, ge=1, le=1_000_000, description="more entries than so many are refused")

    @model_validator(mode="after")
    def _usable(self) -> Self:
        if not self.servers and not self.discover:
            raise ValueError("name `servers`, or a domain to `discover` them in")
        for each in self.servers:
            scheme, separator, place = each.partition("://")
            if not separator or scheme not in _LDAP_PORTS:
                raise ValueError(f"{each!r} is no ldap:// or ldaps:// address")
            host_and_port(place.removesuffix("/"), _LDAP_PORTS[scheme])
            if each.startswith("ldap://") and not (self.start_tls or self.plain):
                raise ValueError(f"{each} is not encrypted: write ldaps://, or start_tls: true, or plain: true")
        if self.bind == "simple" and not self.user:
            raise ValueError("bind: simple needs `user` and `password`; bind: anonymous needs neither")
        return self


class DeviceGroupSettings(Strict):
    """Bounds of every device of a group: each holds for those that say nothing of the same kind themselves."""

    may: Permissions = Field((), description="all that its devices may do; empty: everything")
    addresses: Networks = Field((), description="addresses or networks they call from; empty: any")
    certificates: CertificateRules = Field(
        (), description="what each certificate must be one of: sha256:, subject: or name:; empty: any trusted, or none"
    )
    called: tuple[AEText, ...] = Field((), description="AE titles of ours they may call; empty: any")
    tls_required: bool = Field(False, description="whether all of them are refused without TLS")
    users: bool = Field(False, description="whether each of their associations must name a user who proves to be one")


class SenderSettings(Strict):
    """One sending application, as its messages name it, and where it has to come from."""

    sender: str = Field(min_length=1, description="APPLICATION|FACILITY (MSH-3, MSH-4) or APPLICATION")
    addresses: Networks = Field((), description="addresses or networks it calls from; empty: any")
    certificates: CertificateRules = Field(
        (), description="what its certificate must be one of: sha256:, subject: or name:; empty: any trusted"
    )


class SenderAccess(Strict):
    """Who may send to an HL7 listener."""

    addresses: Networks = Field((), description="addresses or networks that senders call from; empty: any")
    certificates: CertificateRules = Field(
        (), description="what a sender's certificate must be one of: sha256:, subject: or name:; empty: any trusted"
    )
    bound_senders: tuple[SenderSettings, ...] = Field(
        (), description="senders whose messages are taken only from where they have to come; others as before"
    )
