"""Proves user identities (PS3.7 D.3.3.7): passcodes, SAML assertions and JSON Web Tokens, and names where they suffice.

What may live here: which kind is proved how, and the bounds of all of them. A proof may take a quarter of a second of
computing, so it is asked for in a thread. What is said of a failed proof names nobody and quotes nothing, so that it
may go to a log.

An identity of a kind that nobody configured proves nothing and shuts nobody out, as D.3.3.7 has it; whoever insists on
a user insists on a proved one. Kerberos tickets are the exception: they are refused, so that their sender learns that
nobody will ever look at them.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import ip_network
from pathlib import Path

from gateway.domain.access import User, in_networks
from gateway.edges.identity_memory import IdentityMemory, Unreadable, WatchedFile
from gateway.edges.saml_proofs import AssertionIssuer, CheckedAssertion, check_assertion
from gateway.edges.token_proofs import Checked, TokenIssuer, check_token
from gateway.identity_files import PASSCODE_BYTES_MAX, HashedPasscode, hashed, read_users
from gateway.identity_keys import read_certificates, read_keys
from gateway.security_settings import UsersSettings
from gateway.wire.user_identity import IdentityKind, UserIdentity

NAME_BYTES_MAX = 256
"""The longest user name that is looked at."""

_LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))


@dataclass(frozen=True, slots=True)
class NotProved:
    """Why an identity is not accepted, in words without names and secrets."""

    words: str


Proof = User | NotProved


class Proofs:
    """Proves identities by the files that the settings name. Its methods may be called from several threads."""

    def __init__(
        self,
        users: UsersSettings,
        base: Path,
        tell: Callable[[Unreadable], None],
        memory: IdentityMemory | None = None,
    ) -> None:
        """File names are relative to `base`; `tell` is told when one changed and cannot be read, and the last good
        content holds on. `memory` is of those before, where there were some."""
        self._trust_names = users.trust_names
        self._passcodes: WatchedFile[dict[str, HashedPasscode]] | None = None
        if users.passwords is not None:
            self._passcodes = WatchedFile(base / users.passwords.file, read_users, {}, tell)
        self._tokens = tuple(
            TokenIssuer(each.issuer, each.audience, WatchedFile(base / each.keys, read_keys, (), tell))
            for each in users.jwt
        )
        self._assertions = tuple(
            AssertionIssuer(
                each.issuer, each.audience, WatchedFile(base / each.certificate, read_certificates, (), tell)
            )
            for each in users.saml
        )
        memory = memory or IdentityMemory()
        self._tries, self._used = memory.tries, memory.used
        self._nobody = hashed(b"")  # what a passcode is compared with where there is no such user

    def prove(self, identity: UserIdentity, address: str, *, tls: bool) -> Proof:
        """Who the user is, or why the identity is not accepted. May take a quarter of a second."""
        if identity.kind == IdentityKind.KERBEROS:
            return NotProved(
                "Kerberos tickets are not taken here: send a passcode, a SAML assertion or a JSON Web Token"
            )
        if identity.kind == IdentityKind.NAME:
            return self._name(identity)
        if not self._looks_at(identity.kind):
            return User("", identity.kind, proved=False)
        if not tls and not in_networks(address, _LOOPBACK):
            return NotProved("it came without TLS: passcodes and tokens in clear are anybody's who listens")
        if identity.kind == IdentityKind.PASSCODE:
            return self._passcode(identity, address)
        if identity.kind == IdentityKind.JWT:
            return _proof(self.check_token(identity.primary), identity.kind)
        return self._assertion(identity)

    def check_token(self, token: bytes) -> Checked:
        """What is to be said of a JSON Web Token."""
        return check_token(token, self._tokens)

    def check_assertion(self, assertion: bytes) -> CheckedAssertion:
        """What is to be said of a SAML assertion; whether it was used before is not looked at."""
        return check_assertion(assertion, self._assertions, datetime.now(UTC))

    def _looks_at(self, kind: int) -> bool:
        configured: dict[int, bool] = {
            IdentityKind.PASSCODE: self._passcodes is not None,
            IdentityKind.JWT: bool(self._tokens),
            IdentityKind.SAML: bool(self._assertions),
        }
        return configured.get(kind, False)

    def _name(self, identity: UserIdentity) -> Proof:
        name = _text(identity.primary)
        if not name:
            return NotProved("the user name is empty, too long, or no UTF-8")
        return User(name, identity.kind, proved=self._trust_names)

    def _passcode(self, identity: UserIdentity, address: str) -> Proof:
        """Takes as long for a user that there is not as for one that there is."""
        name = _text(identity.primary)
        if not name or len(identity.secondary) > PASSCODE_BYTES_MAX or self._passcodes is None:
            return NotProved("the user name is empty, too long, or no UTF-8, or the passcode is too long")
        if not self._tries.begin(address):
            return NotProved("too many wrong passcodes came from this address: it has to wait")
        known = self._passcodes.content()
        is_right = known.get(name, self._nobody).fits(identity.secondary)
        if name not in known or not is_right:
            return NotProved("user name or passcode is wrong")
        self._tries.was_right(address)
        return User(name, identity.kind, proved=True)

    def _assertion(self, identity: UserIdentity) -> Proof:
        checked = self.check_assertion(identity.primary)
        proof = _proof(checked, identity.kind)
        if isinstance(proof, User) and checked.until is not None:
            fault = self._used.use(checked.issuer, checked.number, checked.until.timestamp(), time.time())
            if fault:
                return NotProved(fault)
        return proof


def _proof(checked: Checked, kind: int) -> Proof:
    return NotProved(checked.fault) if checked.fault else User(checked.name, kind, proved=True)


def _text(primary: bytes) -> str:
    """A user name; "" where it is none."""
    if len(primary) > NAME_BYTES_MAX:
        return ""
    try:
        return primary.decode("utf-8").strip()
    except UnicodeDecodeError:
        return ""
