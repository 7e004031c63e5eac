"""The only maker of TLS contexts (style 3.15), by the profiles of `wire.tls_profiles`, from names of files.

What may live here: contexts, what is wrong with the files they are made of, and their renewal when those change.
Whoever accepts or opens connections is given a context and knows nothing of files.

OpenSSL, and not we, verifies peers: validity, signatures, usages, and by a file of revocation lists also revocation.
A certificate in `ca` is trusted as it stands, also one that another has signed (X509_V_FLAG_PARTIAL_CHAIN): an
intermediate authority will do, and so will the very certificate of one device.
"""

import contextlib
import errno
import re
import ssl
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gateway.wire.tls_profiles import DEFAULT_PROFILE, PROFILES, Profile, Version

Clients = Literal["required", "requested", "none"]
"""Whether callers have to show a certificate."""

_VERIFY = {"required": ssl.CERT_REQUIRED, "requested": ssl.CERT_OPTIONAL, "none": ssl.CERT_NONE}
_VERSIONS = {
    Version.TLS_1_0: ssl.TLSVersion.MINIMUM_SUPPORTED,  # SSL 3.0 is off by an option; its own name is deprecated
    Version.TLS_1_2: ssl.TLSVersion.TLSv1_2,
    Version.TLS_1_3: ssl.TLSVersion.TLSv1_3,
}

_FFDHE2048 = """\
-----BEGIN DH PARAMETERS-----
MIIBCAKCAQEA//////////+t+FRYortKmq/cViAnPTzx2LnFg84tNpWp4TZBFGQz
+8yTnc4kmz75fS/jY2MMddj2gbICrsRhetPfHtXV/WVhJDP1H18GbtCFY2VVPe0a
87VXE15/V8k1mE8McODmi3fipona8+/och3xWKE2rec1MKzKT0g6eXq8CrGCsyT7
YdEIqUuyyOP7uWrat2DX9GgdT0Kj3jlN9K5W7edjcrsZCwenyO4KbXCeAvzhzffi
7MA0BM0oNC9hkXL+nOmFg/+OTxIy7vKBg8P+OxtMb61zO7X8vC7CIAXFjvGDfRaD
ssbzSibBsu/6iGtCOGEoXJf//////////wIBAg==
-----END DH PARAMETERS-----
"""
"""The group ffdhe2048 of RFC 7919: the longest that Java 8 takes, the shortest that RFC 9325 4.5 allows."""


class TLSFileError(OSError):
    """A file of certificates, keys or revocation lists cannot be used. The text says which, why and what to do.

    `setting` is the one that names it: `certificate`, `key`, `ca` or `crl`.
    """

    def __init__(self, setting: str, text: str, hint: str) -> None:
        self.setting, self.text, self.hint = setting, text, hint
        super().__init__(f"tls {setting}: {text}; {hint}")


@dataclass(frozen=True, slots=True)
class ServerTLS:
    """What a listener shows and whom it lets in: names of files (PEM), a profile, and whether callers are verified."""

    certificate: str
    key: str = ""
    ca: str = ""
    crl: str = ""
    profile: str = DEFAULT_PROFILE
    clients: Clients = "required"

    @property
    def files(self) -> tuple[str, ...]:
        """Every file of it."""
        return tuple(each for each in (self.certificate, self.key, self.ca, self.crl) if each)


ALERTED: ContextVar[Callable[[bytes], None] | None] = ContextVar("alerted", default=None)
"""Who sends the peer the alert of a failed handshake, in the task that shakes hands."""


class _ListenerContext(ssl.SSLContext):
    """Has the alert sent that OpenSSL makes when a handshake fails. Event loops drop it, and all that a device would
    know is that the connection ended."""

    def wrap_bio(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, *said: Any, **named: Any) -> ssl.SSLObject:
        session = super().wrap_bio(incoming, outgoing, *said, **named)
        alerted = ALERTED.get()
        if alerted is None:
            return session
        shake_hands = session.do_handshake

        def shake_hands_or_tell() -> None:
            try:
                shake_hands()
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                raise
            except ssl.SSLError:
                if outgoing.pending:
                    alerted(outgoing.read())
                raise

        session.do_handshake = shake_hands_or_tell  # type: ignore[method-assign]  # of this one object
        return session


def server_context(asked: ServerTLS) -> ssl.SSLContext:
    """For a listener. Raises TLSFileError.

    No session tickets are given, so that every association proves itself anew: a certificate that has ended counts at
    once. The sessions of TLS 1.2 that OpenSSL keeps itself `ServingContext` throws away.
    """
    context = _ListenerContext(ssl.PROTOCOL_TLS_SERVER)
    profile = PROFILES[asked.profile]
    _apply(profile, context)
    context.num_tickets = 0  # of TLS 1.3; the option is for those of TLS 1.2
    context.options |= ssl.OP_NO_TICKET
    if any(suite.openssl.startswith("DHE-") for suite in profile.suites):
        _load_group(context)
    _load_own(context, asked.certificate, asked.key)
    context.verify_mode = _VERIFY[asked.clients]
    if asked.clients != "none":
        if not asked.ca:
            raise TLSFileError("ca", "no file is named", "name the certificates that sign your devices', or ask for "
                               "no certificates with `clients: none`")  # fmt: skip
        _load_trusted(context, asked.ca, asked.crl)
    return context


def client_context(
    ca: str | None, certificate: str = "", key: str = "", crl: str = "", profile: str = DEFAULT_PROFILE
) -> ssl.SSLContext:
    """For connections to a peer whose certificate one in the file `ca` has signed, and is for its host name; None: one
    that this machine trusts anyhow.

    `certificate` and `key` are files of our own, for peers that ask for one. Raises TLSFileError, which is an OSError.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # checks host names
    _apply(PROFILES[profile], context)
    if certificate:
        _load_own(context, certificate, key)
    if ca is None:
        context.load_default_certs()
        if crl:
            _load_lists(context, crl)
            context.verify_flags |= ssl.VerifyFlags.VERIFY_CRL_CHECK_LEAF
    else:
        _load_trusted(context, ca, crl)
    return context


def looking_context(certificate: str = "", key: str = "") -> ssl.SSLContext:
    """For looking at what a peer shows, whatever that is: nothing is verified, so nothing may ever be sent over it.

    Raises TLSFileError.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    context.set_ciphers("ALL:@SECLEVEL=0")
    if certificate:
        _load_own(context, certificate, key)
    return context


def _apply(profile: Profile, context: ssl.SSLContext) -> None:
    context.minimum_version = _VERSIONS[profile.oldest]
    context.maximum_version = _VERSIONS[profile.newest]
    suites = (suite.openssl for suite in profile.suites)
    context.set_ciphers(":".join((f"@SECLEVEL={profile.security_level}", *suites)))


def _load_group(context: ssl.SSLContext) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:  # `ssl` takes the group from a file only
        file.write(_FFDHE2048)
        file.flush()
        context.load_dh_params(file.name)


def _load_own(context: ssl.SSLContext, certificate: str, key: str) -> None:
    if not certificate:
        raise TLSFileError("certificate", "no file is named", "`gateway certs` makes one for a pilot")
    _readable("certificate", certificate)
    if key:
        _readable("key", key)
    encrypted = False

    def no_passphrase() -> str:
        nonlocal encrypted
        encrypted = True
        return ""

    try:
        context.load_cert_chain(certificate, key or None, no_passphrase)
    except ssl.SSLError as error:
        if encrypted:
            raise TLSFileError(
                "key", f"{key or certificate} is encrypted, and nobody can be asked for its passphrase",
                "store it without one (openssl pkey -in FILE -out NEW), readable for the service alone",
            ) from error  # fmt: skip
        raise _own_error(error, certificate, key or certificate) from error


def _own_error(error: ssl.SSLError, certificate: str, key: str) -> TLSFileError:
    if b"BEGIN CERTIFICATE" not in _content("certificate", certificate):
        return TLSFileError("certificate", f"{certificate} holds no certificate", "it must be PEM: BEGIN CERTIFICATE")
    if b"PRIVATE KEY" not in _content("key", key):
        return TLSFileError("key", f"{key} holds no private key", "it must be PEM: BEGIN PRIVATE KEY")
    reason = error.reason or ""
    if reason in ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED"):
        return TLSFileError(
            "key", f"{key} is not the key of the first certificate in {certificate}",
            "our own certificate comes first in its file; name the key it was made with",
        )  # fmt: skip
    if reason.endswith(("KEY_TOO_SMALL", "MD_TOO_WEAK")):
        return TLSFileError(
            "certificate", f"{certificate} is too weak for this profile", "RSA with 2048 bits and SHA-256 at least"
        )
    return TLSFileError("certificate", f"{certificate} with {key} cannot be used ({reason or 'damaged'})",
                        "see `gateway certs show`")  # fmt: skip


def _load_trusted(context: ssl.SSLContext, ca: str, crl: str) -> None:
    _readable("ca", ca)
    try:
        context.load_verify_locations(ca)
    except ssl.SSLError as error:
        raise TLSFileError("ca", f"{ca} holds no certificate", "it must be PEM: BEGIN CERTIFICATE") from error
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_PARTIAL_CHAIN
    if not crl:
        return
    _load_lists(context, crl)
    context.verify_flags |= _revocation(context)


_BLOCK = re.compile(rb"-----BEGIN ([^\r\n]*)")
_LIST = b"X509 CRL-----"


def _load_lists(context: ssl.SSLContext, crl: str) -> None:
    """Load revocation lists and nothing else: OpenSSL would trust every certificate that it finds in the file."""
    kinds = [kind.rstrip() for kind in _BLOCK.findall(_content("crl", crl))]
    if _LIST not in kinds:
        raise TLSFileError(
            "crl", f"{crl} holds no revocation list", "it must be PEM: BEGIN X509 CRL; of a file in DER form "
            "`openssl crl -inform DER -in FILE -out NEW` makes one",
        )  # fmt: skip
    trusted = context.cert_store_stats()["x509"]
    try:
        if kinds.count(_LIST) == len(kinds):
            context.load_verify_locations(crl)
    except ssl.SSLError as error:
        raise TLSFileError("crl", f"{crl} is damaged", "fetch it from the authority again") from error
    if kinds.count(_LIST) < len(kinds) or context.cert_store_stats()["x509"] != trusted:
        raise TLSFileError(
            "crl", f"{crl} holds something beside revocation lists, and whoever is in it would be trusted",
            "keep the lists (BEGIN X509 CRL) in it; authorities belong into the file of `ca`",
        )  # fmt: skip


def _revocation(context: ssl.SSLContext) -> ssl.VerifyFlags:
    """How far revocation is checked; a list that is missing or out of date refuses, whichever it is (fail closed).

    Along the whole chain, as RFC 5280 6.1.3 has it, so every authority in it needs its list. But OpenSSL then asks for
    one of whoever signed the last, also where an intermediate authority is what `ca` trusts: there only the peer's own
    certificate is checked.
    """
    roots = sum(each["subject"] == each["issuer"] for each in context.get_ca_certs())
    if roots == context.cert_store_stats()["x509"]:
        return ssl.VerifyFlags.VERIFY_CRL_CHECK_CHAIN
    return ssl.VerifyFlags.VERIFY_CRL_CHECK_LEAF


_OF_THE_MOMENT = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOMEM))
"""What the system lacks for a moment, whatever the file."""


def _readable(setting: str, file: str) -> None:
    _content(setting, file)


def _content(setting: str, file: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except FileNotFoundError:
        raise TLSFileError(setting, f"there is no file {file}", "paths are relative to gateway.yaml") from None
    except OSError as error:
        if error.errno in _OF_THE_MOMENT:
            raise
        raise TLSFileError(setting, f"{file} cannot be read ({error.strerror})", "the service's account needs to") \
            from error  # fmt: skip


Told = Callable[[str], None]

_Mark = tuple[tuple[int, int, int] | None, ...]


SESSIONS_S = 60.0
"""For so long a session of TLS 1.2 may be resumed, past the end of its certificate. A new context costs 3 ms."""


class ServingContext:
    """The context of a listener as its files are now. Connections keep the one that they were accepted with."""

    def __init__(self, asked: ServerTLS, clock: Callable[[], float] = time.monotonic) -> None:
        """`clock` gives seconds that only grow. Raises TLSFileError."""
        self._asked = asked
        self._clock = clock
        self._mark = self._now()
        self._made_at = clock()
        self._context = server_context(asked)

    def __call__(self) -> ssl.SSLContext:
        """What the next handshake is made by.

        One that has kept sessions for `SESSIONS_S` is used no more: OpenSSL keeps those of TLS 1.2 for two hours,
        Python's `ssl` cannot tell it not to, and who resumes one shows no certificate, whatever became of that
        meanwhile. Where the files cannot be read just now, the one that there is goes on.
        """
        at = self._clock()
        if at >= self._made_at + SESSIONS_S:
            self._made_at = at
            if self._context.session_stats()["number"]:
                with contextlib.suppress(OSError):
                    self._context = server_context(self._asked)
        return self._context

    @property
    def files(self) -> tuple[str, ...]:
        """What it is made of."""
        return self._asked.files

    def renew(self, *, always: bool = False) -> bool:
        """Read the files again if one of them has changed, or `always`; whether they were.

        Raises TLSFileError where they cannot be used, and then goes on with the old ones: certificate and key are
        replaced one after the other, so for a moment they may not fit. It is said once for each change. Another
        OSError is the system's, no matter of the files, and they are tried again with the next call.
        """
        mark = self._now()
        if mark == self._mark and not always:
            return False
        before, self._mark = self._mark, mark
        try:
            self._context = server_context(self._asked)
            self._made_at = self._clock()
        except TLSFileError:
            raise
        except OSError:
            self._mark = before if before != mark else ()
            raise
        return True

    def _now(self) -> _Mark:
        return _marks_of(self._asked.files)


class CallingContext:
    """The context of calls to one peer as its files are when one is made: lists are renewed all the time, and one that
    was read at the start and is past its end refuses every peer."""

    def __init__(self, ca: str | None, certificate: str = "", key: str = "", crl: str = "") -> None:
        """As `client_context`. Raises TLSFileError."""
        self._named = (ca, certificate, key, crl)
        self._mark = self._now()
        self._context = client_context(*self._named)

    def __call__(self) -> ssl.SSLContext:
        """What the next call is made by. Where changed files cannot be used, that of the old ones goes on."""
        mark = self._now()
        if mark != self._mark:
            with contextlib.suppress(OSError):
                self._context = client_context(*self._named)
                self._mark = mark
        return self._context

    def _now(self) -> _Mark:
        return _marks_of(each for each in self._named if each)


def _marks_of(files: Iterable[str]) -> _Mark:
    return tuple(_mark_of(file) for file in files)


def _mark_of(file: str) -> tuple[int, int, int] | None:
    try:
        found = Path(file).stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def outdated(asked: ServerTLS) -> Iterator[str]:
    """What a listener offers that it had better not, in words for the log at its start."""
    profile = PROFILES[asked.profile]
    if profile.outdated:
        yield f"profile {profile.name} (PS3.15 {profile.section}) allows {profile.oldest}, which RFC 8996 forbids"
    if asked.clients != "required":
        yield f"callers need no certificate (clients: {asked.clients})"
