"""One connection to an LDAP server: opened, bound, asked and closed; bounded in time and size.

Everything that a server does wrong becomes `LDAPFailed` with words for people. The one module that talks to ldap3, and
only to its codec and its requests: opening, TLS and receiving are ours, since ldap3 verifies no certificate by
default, and waits for ever for a server that sends one byte now and then.
"""

import math
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Literal

import ldap3
from ldap3.core.exceptions import LDAPExceptionError, LDAPInvalidFilterError, LDAPSessionTerminatedByServerError
from ldap3.strategy.sync import SyncStrategy
from ldap3.utils.conv import escape_filter_chars

from gateway.edges import tls
from gateway.edges.ldap_changes import Change
from gateway.edges.ldap_entries import Entry, entry_of
from gateway.edges.ldap_servers import LDAPServer
from gateway.wire.distinguished_names import DN, DNError

Bind = Literal["simple", "external", "anonymous"]
Scope = Literal["BASE", "LEVEL", "SUBTREE"]

PAGE_ENTRIES = 500
"""Entries asked for at once (RFC 2696); Active Directory gives 1,000 at most."""
ANSWER_BYTES_MAX = 64 << 20
"""Of one answer, that is of one page: an entry of a device takes some hundred bytes."""
READING_TIMEOUTS = 30
"""All that one server is asked may take so many times as long as one answer: five minutes, where an answer may take
ten seconds. 50,000 entries are a hundred pages of some hundredths of a second, and certificates some more questions."""

_START_TLS = "1.3.6.1.4.1.1466.20037"
_SUCCESS, _SIZE_LIMIT, _REFERRAL, _NO_SUCH_OBJECT, _NOT_A_DN, _NOT_ALLOWED, _ALREADY_EXISTS = 0, 4, 10, 32, 34, 50, 68


class LDAPFailed(Exception):  # noqa: N818  (what happened, as its neighbours say it)
    """What did not work, where, and what to do. Never a password."""


class LDAPConflict(LDAPFailed):
    """Somebody else has it already: an AE title is taken (PS3.15 H.1.4.3.5)."""


class NoSuchEntry(LDAPFailed):
    """The entry is not there."""


class NotGiven(LDAPFailed):
    """The server answers, and does not give that entry: not to us, not here, or not by that name."""


class AlreadyThere(LDAPFailed):
    """The entry is there already."""


@dataclass(frozen=True, slots=True)
class LDAPAccess:
    """How to reach a directory. The fields are those of `devices.ldap` in gateway.yaml.

    `servers` are ldap:// or ldaps:// addresses, tried in order, then those that DNS names for `discover`. TLS needs
    `ca`, the file of whoever signs the servers' certificates. `name_servers` (host:port) empty: those of the machine.
    """

    servers: tuple[str, ...] = ()
    discover: str = ""
    base: str = ""
    bind: Bind = "anonymous"
    user: str = ""
    password: str = field(default="", repr=False)
    start_tls: bool = False
    ca: str = ""
    crl: str = ""
    certificate: str = ""
    key: str = ""
    plain: bool = False
    timeout_s: float = 10
    entries_max: int = 50_000
    name_servers: tuple[str, ...] = ()


class _Broken(Exception):  # noqa: N818  (as above)
    """The server did what no server may do, in words."""


class _Strategy(SyncStrategy):  # type: ignore[misc]  # ldap3 ships no type information
    """ldap3's requests and answers over a socket of our own: verified, and bounded in time and size as a whole."""

    def __init__(self, connection: Any, server: LDAPServer, context: ssl.SSLContext | None, timeout_s: float) -> None:
        super().__init__(connection)
        self._server = server
        self._context = context
        self._timeout_s = timeout_s
        self._deadline = 0.0
        self._received = 0

    def open(self, reset_usage: bool = True, read_server_info: bool = True) -> None:
        self._outstanding: dict[int, Any] = {}
        self.connection.socket = socket.create_connection((self._server.host, self._server.port), self._timeout_s)
        self.connection.closed = False
        if self._server.tls:
            self.shake_hands()
        self._start_listen()

    def shake_hands(self) -> None:
        """Turn the connection into TLS. The time limit holds for the handshake as a whole."""
        assert self._context is not None  # noqa: S101  (`connected` makes one for every server that speaks TLS)
        self.connection.socket.settimeout(self._timeout_s)
        self.connection.socket = self._context.wrap_socket(self.connection.socket, server_hostname=self._server.host)

    def send(self, message_type: str, request: Any, controls: Any = None) -> Any:
        self._deadline = monotonic() + self._timeout_s
        self._received = 0
        self.connection.socket.settimeout(self._timeout_s)
        return super().send(message_type, request, controls)

    def receiving(self) -> list[bytes]:
        """The next messages of the answer, at least one; [] where the server closed the connection."""
        buffer = bytearray()
        messages: list[bytes] = []
        while not messages or buffer:
            size = self.compute_ldap_message_size(buffer[:8]) if len(buffer) > 6 else -1
            if buffer and buffer[0] != 0x30:
                raise _Broken("it does not speak LDAP")
            if 0 < size <= len(buffer):
                messages.append(bytes(buffer[:size]))
                del buffer[:size]
                continue
            if size > ANSWER_BYTES_MAX:
                raise _Broken("it announced an answer that is too long")
            data = self._next_bytes()
            if not data and not messages and not buffer:
                return []
            if not data:
                raise _Broken("it closed the connection in the middle of an answer")
            buffer += data
        return messages

    def _next_bytes(self) -> bytes:
        left = self._deadline - monotonic()
        if left <= 0:
            raise TimeoutError
        self.connection.socket.settimeout(left)
        data: bytes = self.connection.socket.recv(1 << 16)
        self._received += len(data)
        if self._received > ANSWER_BYTES_MAX:
            raise _Broken("its answer is too long")
        return data


class Session:
    """A bound connection. All methods raise LDAPFailed, which names the server and what it was asked.

    What is read must be read by `until`, on the monotonic clock; what is written is not given up half way.
    """

    def __init__(self, connection: Any, server: LDAPServer, access: LDAPAccess, until: float) -> None:
        self._connection = connection
        self._access = access
        self._until = until
        self.server = server

    def read(self, dn: DN, attributes: Sequence[str]) -> Entry | None:
        """One entry; None where there is none, or none that our account may see."""
        try:
            found = list(self.search(dn, "(objectClass=*)", attributes, scope="BASE"))
        except NoSuchEntry:
            return None
        return found[0] if found else None

    def search(
        self,
        base: DN,
        wanted: str,
        attributes: Sequence[str],
        *,
        scope: Scope = "SUBTREE",
        elsewhere: bool = False,
    ) -> Iterator[Entry]:
        """The entries that fit the filter, page by page. Raises NoSuchEntry where there is no base.

        A server may say that parts are elsewhere. That is refused, since what is read is to be whole; with
        `elsewhere` those parts do not count.
        """
        count = 0
        cookie: bytes | None = None
        asked = f"the search below {str(base) or 'the root'}"
        while True:
            page = self._page(asked, base, wanted, attributes, scope, cookie)
            for raw in page:
                if raw["type"] == "searchResRef" and not elsewhere:
                    raise self._referred(asked, raw.get("uri") or [])
                if raw["type"] != "searchResEntry":
                    continue
                count += 1
                if count > self._access.entries_max:
                    raise self._failed(
                        asked,
                        f"has more than {self._access.entries_max} entries",
                        "name a `base` nearer to the configuration, or raise entries_max",
                    )
                yield self._entry(raw)
            cookie = _cookie(self._connection.result)
            if not cookie or scope == "BASE":
                return
            if not page:
                raise self._failed(asked, "goes on without end", "see what the server is busy with")

    def _page(
        self, asked: str, base: DN, wanted: str, attributes: Sequence[str], scope: Scope, cookie: bytes | None
    ) -> list[dict[str, Any]]:
        if monotonic() > self._until:
            raise self._failed(asked, "comes too late: all before took too long", "see what the server is busy with")
        paged: dict[str, Any] = {} if scope == "BASE" else {"paged_size": PAGE_ENTRIES, "paged_cookie": cookie}
        with self._told(asked):
            self._connection.search(
                str(base),
                wanted,
                scope,
                dereference_aliases=ldap3.DEREF_NEVER,  # so there are no loops
                attributes=list(attributes),
                time_limit=max(1, int(self._access.timeout_s)),
                **paged,
            )
        self._check(asked)
        return self._connection.response or []

    def _entry(self, raw: Mapping[str, Any]) -> Entry:
        try:
            return entry_of(raw["dn"], raw["raw_attributes"])
        except DNError as error:
            raise self._failed("the search", f"gave an entry whose DN is none ({error})", "see the server") from None

    def add(self, entry: Entry) -> None:
        """Raises AlreadyThere where there is one of that name."""
        asked = f"adding {entry.dn}"
        attributes = {name: list(values) for name, values in entry.attributes.items()}
        with self._told(asked):
            self._connection.add(str(entry.dn), attributes=attributes)
        self._check(asked)

    def modify(self, change: Change) -> None:
        """Replace attributes by the values wanted."""
        asked = f"changing {change.dn}"
        replaced = {name: [(ldap3.MODIFY_REPLACE, list(after))] for name, (_, after) in change.attributes.items()}
        with self._told(asked):
            self._connection.modify(str(change.dn), replaced)
        self._check(asked)

    def delete(self, dn: DN) -> None:
        """Raises NoSuchEntry where there is none."""
        asked = f"deleting {dn}"
        with self._told(asked):
            self._connection.delete(str(dn))
        self._check(asked)

    def open(self) -> None:
        """Connect, turn to TLS where that is to be, and say who we are."""
        with self._told("connecting"):
            self._connection.open()
        if self.server.start_tls:
            self._start_tls()
        with self._told("the bind"):
            self._connection.bind()
        self._check("the bind")

    def _start_tls(self) -> None:
        with self._told("StartTLS"):
            self._connection.extended(_START_TLS)
        if self._connection.result["result"] != _SUCCESS:
            raise self._failed("StartTLS", "was refused", "let the server have a certificate, or use ldaps://")
        with self._told("StartTLS"):
            self._connection.strategy.shake_hands()

    def close(self) -> None:
        """Never fails."""
        connection = self._connection
        with suppress(Exception):  # the server may be in any state; the socket is closed below in any case
            if not connection.closed:
                connection.unbind()
        if connection.socket is not None:
            with suppress(OSError):
                connection.socket.close()

    @contextmanager
    def _told(self, asked: str) -> Iterator[None]:
        try:
            yield
        except LDAPInvalidFilterError:
            raise self._failed(asked, "has no usable filter", "search for something else") from None
        except Exception as error:  # ldap3 lets IndexError and the like through where an answer is no LDAP
            fault, hint = _words(error)
            raise self._failed(asked, fault, hint) from None

    def _check(self, asked: str) -> None:
        result = self._connection.result
        code = result["result"]
        if code == _SUCCESS:
            return
        if code == _REFERRAL:
            raise self._referred(asked, result.get("referrals") or [], NotGiven)
        fault, hint = _RESULTS.get(code, (f"was answered {result.get('description') or code}", "see the server's log"))
        said = self._cleaned(result.get("message") or "")
        kinds = {
            _NO_SUCH_OBJECT: NoSuchEntry, _ALREADY_EXISTS: AlreadyThere, _NOT_ALLOWED: NotGiven, _NOT_A_DN: NotGiven,
        }  # fmt: skip
        raise self._failed(asked, fault + (f" (it says: {said})" if said else ""), hint, kinds.get(code, LDAPFailed))

    def _referred(self, asked: str, places: Sequence[str], kind: type[LDAPFailed] = LDAPFailed) -> LDAPFailed:
        where = self._cleaned(", ".join(map(str, places))) or "another server"
        fault = f"was referred to {where}, where nobody follows"
        return self._failed(asked, fault, "name that server in `servers`", kind)

    def _cleaned(self, said: str) -> str:
        """What a server says, short, printable, and without our password should it repeat that."""
        if self._access.password:
            said = said.replace(self._access.password, "***")
        return "".join(letter if letter.isprintable() else " " for letter in said)[:200].strip()

    def _failed(self, asked: str, fault: str, hint: str, kind: type[LDAPFailed] = LDAPFailed) -> LDAPFailed:
        return kind(f"{self.server}: {asked} {fault}; {hint}")


@contextmanager
def connected(access: LDAPAccess, server: LDAPServer, until: float = math.inf) -> Iterator[Session]:
    """A bound session with this server, for so long as it may be asked, but no longer than `until` (monotonic)."""
    until = min(until, monotonic() + READING_TIMEOUTS * access.timeout_s)
    session = Session(_connection(access, server), server, access, until)
    try:
        session.open()
        yield session
    finally:
        session.close()


def _connection(access: LDAPAccess, server: LDAPServer) -> Any:
    context = None
    if server.tls or server.start_tls:
        try:
            context = tls.client_context(access.ca, access.certificate, access.key, access.crl)
        except (OSError, ValueError) as error:
            raise LDAPFailed(f"{server}: no TLS with the files of `ca`, `crl`, `certificate`, `key`: {error}") from None
    elif not access.plain:
        raise LDAPFailed(f"{server} is not encrypted: write ldaps://, or start_tls: true, or plain: true")
    if access.bind == "simple" and not (access.user and access.password):
        # RFC 4513 5.1.2: a server would take it for anonymous, and the mistake would show up elsewhere, if at all.
        raise LDAPFailed(f"{server}: bind: simple needs `user` and `password`; bind: anonymous needs neither")
    connection = ldap3.Connection(
        ldap3.Server(server.host, server.port, get_info=ldap3.NONE),
        authentication={"simple": ldap3.SIMPLE, "external": ldap3.SASL, "anonymous": ldap3.ANONYMOUS}[access.bind],
        user=access.user if access.bind == "simple" else None,
        password=access.password if access.bind == "simple" else None,
        sasl_mechanism=ldap3.EXTERNAL if access.bind == "external" else None,
        sasl_credentials="" if access.bind == "external" else None,
        auto_referrals=False,
        auto_range=False,
        check_names=False,  # names are escaped by ours; ldap3 would take them for names still to be escaped
        return_empty_attributes=False,
        auto_encode=False,
    )
    strategy = _Strategy(connection, server, context, access.timeout_s)
    connection.strategy = strategy
    for name in ("send", "open", "get_response", "post_send_single_response", "post_send_search"):
        setattr(connection, name, getattr(strategy, name))
    connection.socket = None
    return connection


def equals(attribute: str, value: str) -> str:
    """A filter for one value, whatever letters it has (RFC 4515)."""
    return f"({attribute}={escape_filter_chars(value)})"


def _cookie(result: Mapping[str, Any]) -> bytes | None:
    control = (result.get("controls") or {}).get("1.2.840.113556.1.4.319")
    return control["value"]["cookie"] if control else None


_RESULTS: Mapping[int, tuple[str, str]] = {
    3: ("took the server too long", "raise its time limit for our account"),
    _SIZE_LIMIT: ("gave only a part, as the server limits our account", "raise its size limit for our account"),
    8: ("needs a stronger bind", "use ldaps:// or start_tls: true, and bind: simple or external"),
    13: ("needs encryption", "use ldaps:// or start_tls: true"),
    16: ("met an attribute that is not there", "read the directory anew"),
    17: (
        "uses an attribute that the server does not know",
        "load config/ldap/dicom.ldif, and gateway.ldif for profiles and rules, into the server",
    ),
    19: ("breaks a rule of the server", "see its message and its log"),
    21: ("has a value or class that the server does not take", "see its message; load config/ldap/*.ldif"),
    _NO_SUCH_OBJECT: ("finds no such entry", "see whether the DN is right and our account may read it"),
    _NOT_A_DN: ("names an unusable DN", "write it as cn=...,dc=..."),
    48: ("is of a kind the server does not allow", "use another `bind`"),
    49: ("was refused: wrong user or password", "see `user` and `password` of devices.ldap"),
    _NOT_ALLOWED: ("is not allowed to our account", "let the server's access rules allow it"),
    51: ("met a busy server", "try again"),
    52: ("met a server that is not available", "try again"),
    53: ("is what the server is not willing to do", "see its message and its log"),
    65: ("lacks or has too much of what the classes of the entry allow", "load config/ldap/*.ldif into the server"),
    66: ("met an entry that has others below it", "delete those first"),
    _ALREADY_EXISTS: ("finds the entry there already", "read the directory anew"),
}
"""Result code (RFC 4511 appendix A) -> what happened, and what to do."""

_CERTIFICATES: Mapping[int, tuple[str, str]] = {
    9: ("its certificate is not yet valid", "compare the clocks of both machines"),
    10: ("its certificate has expired", "give the server a new one"),
    18: ("its certificate is self-signed", "put it, or the authority that should sign it, into `ca`"),
    19: ("its certificate comes from an authority that is not trusted", "put that authority into `ca`"),
    20: ("its certificate comes from an authority that is not trusted", "put that authority into `ca`"),
    21: ("its certificate comes from an authority that is not trusted", "put that authority into `ca`"),
    23: ("its certificate is revoked", "give the server a new one"),
    62: ("its certificate is for another host", "name the server as its certificate does"),
    64: ("its certificate is for another address", "name the server as its certificate does"),
}
"""Verification result of OpenSSL -> what is wrong with the server's certificate, and what to do."""

_FAULTS: Sequence[tuple[type[Exception], Callable[[Any], tuple[str, str]]]] = (
    (
        ssl.SSLCertVerificationError,
        lambda error: _CERTIFICATES.get(
            error.verify_code, (f"its certificate is refused ({error.verify_message})", "see its certificate")
        ),
    ),
    (
        ssl.SSLError,
        lambda error: (
            f"failed in the TLS handshake ({error.reason or 'no reason given'})",
            "see whether that port speaks TLS, and whether the server wants a certificate of ours",
        ),
    ),
    (TimeoutError, lambda _: ("got no answer in time", "see whether the server hangs, or raise timeout_s")),
    (socket.gaierror, lambda _: ("failed: its name cannot be resolved", "see the name and DNS")),
    (ConnectionRefusedError, lambda _: ("failed: nobody listens there", "start the server, or see host and port")),
    (ConnectionError, lambda _: ("was cut off", "see the server's log")),
    (OSError, lambda error: (f"failed ({error.strerror or type(error).__name__})", "see host, port and network")),
    (_Broken, lambda error: (f"failed: {error}", "see what listens there")),
    (LDAPSessionTerminatedByServerError, lambda _: ("was cut off by the server", "see the server's log")),
    (LDAPExceptionError, lambda error: (f"failed ({type(error).__name__})", "see the server's log")),
)


def _words(error: Exception) -> tuple[str, str]:
    for kind, words in _FAULTS:
        if isinstance(error, kind):
            return words(error)
    return f"failed: its answer cannot be read ({type(error).__name__})", "see what listens there"
