"""Why a TLS handshake failed, in words: in which phase, by whose certificate, and what to do.

What may live here: the tables from what OpenSSL says to a reason of a fixed vocabulary (for metrics and log) and to
words for people. OpenSSL does not say which certificate it refused; who knows it gives it to `explained`.
"""

import re
import ssl
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from gateway.edges.certificates import Facts


class Side(StrEnum):
    """Which end of the connection we are."""

    SERVER = "server"
    """Somebody called us."""
    CLIENT = "client"
    """We called."""


class Phase(StrEnum):
    """How far a handshake came."""

    CONNECTING = "connecting"
    HELLO = "agreeing on a protocol version and a suite"
    PEER_CERTIFICATE = "checking the peer's certificate"
    OWN_CERTIFICATE = "showing our certificate"
    UNKNOWN = "shaking hands"


class Reason(StrEnum):
    """Why a handshake failed; the whole vocabulary of metrics and log."""

    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"
    WRONG_NAME = "wrong_name"
    SELF_SIGNED = "self_signed"
    UNKNOWN_AUTHORITY = "unknown_authority"
    REVOKED = "revoked"
    NO_REVOCATION_LIST = "no_revocation_list"
    REVOCATION_LIST_EXPIRED = "revocation_list_expired"
    WEAK = "weak"
    WRONG_PURPOSE = "wrong_purpose"
    BAD_CERTIFICATE = "bad_certificate"
    NO_CERTIFICATE = "no_certificate"
    NO_SHARED_SUITE = "no_shared_suite"
    PROTOCOL_VERSION = "protocol_version"
    NOT_TLS = "not_tls"
    CLOSED = "closed"
    TIMEOUT = "timeout"
    OURS_REFUSED = "our_certificate_refused"
    """The peer did not take the certificate that we showed, or missed one."""
    PEER_ALERT = "peer_alert"
    """The peer ended it for another reason, which it named."""
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Explained:
    """A failed handshake in words. Holds names of hosts and certificates, never a key or what was sent."""

    reason: Reason
    phase: Phase
    what: str
    """What happened, a clause in lower case without a full stop."""
    todo: str
    """What to do, a clause likewise; '' where nothing can be said."""
    detail: str = ""
    """What OpenSSL called it, for those who search for it."""

    def __str__(self) -> str:
        todo = f"; {self.todo}" if self.todo else ""
        detail = f" [{self.detail}]" if self.detail else ""
        return f"TLS failed while {self.phase}: {self.what}{todo}{detail}"


def explained(error: BaseException, side: Side, peer: "Facts | None" = None, own: "Facts | None" = None) -> Explained:
    """Why a handshake failed with this exception; total: whatever it is, there are words.

    `peer` and `own` are the certificates that were shown, where they are known.
    """
    if isinstance(error, ssl.SSLCertVerificationError):
        return _refused_by_us(error, side, peer)
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return _closed(side, _reason_of(error))
    if isinstance(error, ssl.SSLError) and _reason_of(error):
        return _by_reason(_reason_of(error), side, own)
    if _timed_out(error):
        return Explained(Reason.TIMEOUT, Phase.HELLO, _SILENT[side], _SILENT_TODO[side])
    if isinstance(error, ConnectionError | EOFError):
        return _closed(side, "")
    return Explained(Reason.OTHER, Phase.UNKNOWN, f"it ended by {type(error).__name__}", "", type(error).__name__)


def _reason_of(error: ssl.SSLError) -> str:
    """OpenSSL's name of it; out of the text where this Python does not know the number, as of newer alerts."""
    known = getattr(error, "reason", None)
    if known:
        return str(known)
    found = re.search(r"\[SSL\] ((?:sslv3|tlsv1|tlsv13) alert [a-z ]+)", str(error))
    return found[1].strip().upper().replace(" ", "_") if found else ""


def _timed_out(error: BaseException) -> bool:
    """asyncio's own limit of a handshake ends in a ConnectionAbortedError that only its text tells from others."""
    return isinstance(error, TimeoutError) or (
        isinstance(error, ConnectionAbortedError) and "taking longer than" in str(error)
    )


# --- the certificate that we did not take -----------------------------------------------------------------------------


class _Row(NamedTuple):
    reason: Reason
    what: str
    todo: dict[Side, str] | str


_NEW_ONE = {
    Side.SERVER: "install a new one on the device (`gateway certs issue`), its expiry is the device's to watch",
    Side.CLIENT: "the destination needs a new one; until then nothing can be sent there",
}
_TRUST = {
    Side.SERVER: "if the device is ours, add the authority that signed it to the file of `ca` (tls); if not, it is "
    "rightly refused",
    Side.CLIENT: "ask the destination's owner for the authority's certificate and put it into the file of `ca` of "
    "this destination",
}
_CLOCK = "compare the clocks of both machines first: one that is wrong looks just like this"
_STRONGER = {
    Side.SERVER: "give the device a certificate with RSA 2048 or EC P-256 and SHA-256: `gateway certs issue`",
    Side.CLIENT: "the destination needs a certificate with RSA 2048 or EC P-256 and SHA-256",
}
_NEW_LIST = "renew the list (`gateway certs crl`, or fetch it from the authority) and put it into the file of `crl`"

_VERIFY: dict[int, _Row] = {
    2: _Row(Reason.UNKNOWN_AUTHORITY, "it leads to an authority whose own certificate is not known here", _TRUST),
    3: _Row(
        Reason.NO_REVOCATION_LIST, "there is no revocation list of the authority that signed it",
        "put a list of every authority in the file of `ca` into the file of `crl`, or leave `crl` empty",
    ),
    7: _Row(
        Reason.BAD_CERTIFICATE, "its signature is wrong: it was changed, or is of another authority with the same name",
        "compare its issuer with the authority in the file of `ca`: `gateway certs show`",
    ),
    8: _Row(Reason.NO_REVOCATION_LIST, "the signature of its authority's revocation list is wrong", _NEW_LIST),
    9: _Row(Reason.NOT_YET_VALID, "it is not valid yet", _CLOCK),
    10: _Row(Reason.EXPIRED, "it has expired", _NEW_ONE),
    11: _Row(Reason.NO_REVOCATION_LIST, "the revocation list of its authority is not valid yet", _CLOCK),
    12: _Row(
        Reason.REVOCATION_LIST_EXPIRED,
        "the revocation list of its authority should have been renewed by now, so nobody knows whether it is revoked",
        _NEW_LIST,
    ),
    18: _Row(Reason.SELF_SIGNED, "it is signed by nobody but itself", _TRUST),
    19: _Row(Reason.UNKNOWN_AUTHORITY, "the authority that signed it is not trusted here", _TRUST),
    20: _Row(Reason.UNKNOWN_AUTHORITY, "the authority that signed it is not known here", _TRUST),
    21: _Row(Reason.UNKNOWN_AUTHORITY, "it came alone, and the authority that signed it is not known here", _TRUST),
    22: _Row(Reason.BAD_CERTIFICATE, "its chain of authorities is too long", ""),
    23: _Row(
        Reason.REVOKED, "it has been revoked",
        {
            Side.SERVER: "if the device is still ours, give it a new one: `gateway certs issue`",
            Side.CLIENT: "do not talk to it before its owner has said why",
        },
    ),
    24: _Row(Reason.WRONG_PURPOSE, "one that signed it is no authority's", "a device's certificate signed another one"),
    25: _Row(Reason.BAD_CERTIFICATE, "an authority signed it that may only sign other kinds (pathlen)", ""),
    26: _Row(
        Reason.WRONG_PURPOSE, "it is not for this use (extendedKeyUsage)",
        {
            Side.SERVER: "the device shows a certificate for servers; it needs one for clients: "
            "`gateway certs issue --client`",
            Side.CLIENT: "the destination shows a certificate for clients; it needs one for servers",
        },
    ),
    27: _Row(Reason.UNKNOWN_AUTHORITY, "the authority that signed it is not trusted for this use", _TRUST),
    28: _Row(Reason.UNKNOWN_AUTHORITY, "the authority that signed it is rejected for this use", _TRUST),
    33: _Row(
        Reason.NO_REVOCATION_LIST, "the signer of its revocation list is not known", "add it to the file of `ca`"
    ),
    44: _Row(Reason.NO_REVOCATION_LIST, "the revocation list covers other kinds of certificates than this", _NEW_LIST),
    62: _Row(
        Reason.WRONG_NAME, "it is for another host name",
        "address the destination by a name that stands in its certificate, or name that in `host_name` (tls)",
    ),
    64: _Row(
        Reason.WRONG_NAME, "it is not for this address",
        "address the destination by a name that stands in its certificate, or name that in `host_name` (tls)",
    ),
    66: _Row(Reason.WEAK, "its key is too short", _STRONGER),
    67: _Row(Reason.WEAK, "the key of an authority that signed it is too short", _STRONGER),
    68: _Row(Reason.WEAK, "it, or an authority's that signed it, is signed with a hash that is too weak", _STRONGER),
    79: _Row(Reason.WRONG_PURPOSE, "one that signed it is no authority's", "a device's certificate signed another one"),
}  # fmt: skip
"""X509_V_ERR of OpenSSL 3 (x509_vfy.h)."""

_WHOSE = {Side.SERVER: "the caller's certificate", Side.CLIENT: "the destination's certificate"}


def _refused_by_us(error: ssl.SSLCertVerificationError, side: Side, peer: "Facts | None") -> Explained:
    code = getattr(error, "verify_code", 0)
    message = getattr(error, "verify_message", "") or _reason_of(error)
    row = _VERIFY.get(code, _Row(Reason.BAD_CERTIFICATE, f"OpenSSL says: {message}", ""))
    whose = f"{_WHOSE[side]} ({_described(peer)})" if peer is not None else _WHOSE[side]
    what = f"{row.what}, {_wanted(message)}" if row.reason is Reason.WRONG_NAME and _wanted(message) else row.what
    return Explained(row.reason, Phase.PEER_CERTIFICATE, f"{whose} is refused, as {what}", _told(row, side), message)


def _described(facts: "Facts") -> str:
    names = f", for {', '.join(facts.names[:3])}" if facts.names else ""
    period = f"valid {facts.not_before:%Y-%m-%d} to {facts.not_after:%Y-%m-%d}"
    return f"{facts.subject or 'without a subject'}, {period}{names}, signed by {facts.issuer}"


def _wanted(message: str) -> str:
    """The name that did not fit, out of what OpenSSL says of it."""
    found = re.search(r"not valid for '([^']*)'", message)
    return f"not {found[1]}" if found else ""


# --- what OpenSSL calls it --------------------------------------------------------------------------------------------

_NO_TLS = _Row(
    Reason.NOT_TLS, "what came is no TLS",
    {
        Side.SERVER: "the caller speaks without TLS to the port of TLS: switch TLS on there, or use the plain port",
        Side.CLIENT: "the destination speaks without TLS on this port: name its TLS port, or take `tls` away",
    },
)  # fmt: skip
_OLD = _Row(
    Reason.PROTOCOL_VERSION, "the versions of TLS that both sides allow have none in common",
    {
        Side.SERVER: "the device needs TLS 1.2 or newer; ask its vendor for an update, or put it on a listener of its "
        "own with an older `profile`",
        Side.CLIENT: "the destination needs TLS 1.2 or newer; ask its vendor for an update",
    },
)  # fmt: skip
_NO_SUITE = _Row(
    Reason.NO_SHARED_SUITE, "the suites that both sides allow have none in common",
    {
        Side.SERVER: "compare the device's list with that of our `profile`; a listener of its own may have an older "
        "one. A gateway's certificate with an EC key excludes devices that know RSA only",
        Side.CLIENT: "the destination offers older suites only; ask its vendor for an update",
    },
)  # fmt: skip

_REASONS: dict[str, tuple[Phase, _Row]] = {
    "WRONG_VERSION_NUMBER": (Phase.HELLO, _NO_TLS),
    "HTTP_REQUEST": (Phase.HELLO, _NO_TLS._replace(what="what came is HTTP without TLS")),
    "HTTPS_PROXY_REQUEST": (Phase.HELLO, _NO_TLS._replace(what="what came is a request to a proxy without TLS")),
    "PACKET_LENGTH_TOO_LONG": (Phase.HELLO, _NO_TLS),
    "RECORD_LAYER_FAILURE": (Phase.HELLO, _NO_TLS),
    "BAD_RECORD_TYPE": (Phase.HELLO, _NO_TLS),
    "UNKNOWN_PROTOCOL": (Phase.HELLO, _NO_TLS),
    "UNSUPPORTED_PROTOCOL": (Phase.HELLO, _OLD),
    "VERSION_TOO_LOW": (Phase.HELLO, _OLD),
    "VERSION_TOO_HIGH": (Phase.HELLO, _OLD),
    "NO_PROTOCOLS_AVAILABLE": (Phase.HELLO, _OLD),
    "NO_SHARED_CIPHER": (Phase.HELLO, _NO_SUITE),
    "NO_CIPHERS_AVAILABLE": (Phase.HELLO, _NO_SUITE),
    "NO_SHARED_GROUPS": (
        Phase.HELLO, _NO_SUITE._replace(what="the groups of keys that both allow have none in common")
    ),
    "NO_SUITABLE_KEY_SHARE": (
        Phase.HELLO, _NO_SUITE._replace(what="the groups of keys that both allow have none in common")
    ),
    "NO_SUITABLE_SIGNATURE_ALGORITHM": (
        Phase.HELLO, _NO_SUITE._replace(what="the peer takes no kind of signature that our key can make")
    ),
    "NO_SHARED_SIGNATURE_ALGORITHMS": (
        Phase.HELLO, _NO_SUITE._replace(what="the kinds of signature that both allow have none in common")
    ),
    "WRONG_SIGNATURE_TYPE": (
        Phase.HELLO, _NO_SUITE._replace(what="the peer signs in a way that is not allowed here")
    ),
    "DH_KEY_TOO_SMALL": (
        Phase.HELLO, _Row(Reason.WEAK, "the peer's Diffie-Hellman key is too short", _STRONGER)
    ),
    "EE_KEY_TOO_SMALL": (Phase.OWN_CERTIFICATE, _Row(Reason.WEAK, "the key of our certificate is too short", "")),
    "NO_CERTIFICATE_SET": (
        Phase.OWN_CERTIFICATE,
        _Row(Reason.NO_CERTIFICATE, "there is no certificate of ours", "name `certificate` and `key` (tls)"),
    ),
    "PEER_DID_NOT_RETURN_A_CERTIFICATE": (
        Phase.PEER_CERTIFICATE,
        _Row(
            Reason.NO_CERTIFICATE, "the caller showed no certificate, and callers have to (`clients: required`)",
            "install one on the device (`gateway certs issue NAME --client`) and switch on that it is shown",
        ),
    ),
    "UNEXPECTED_EOF_WHILE_READING": (Phase.UNKNOWN, _Row(Reason.CLOSED, "", "")),
}  # fmt: skip


def _by_reason(reason: str, side: Side, own: "Facts | None") -> Explained:
    alert = _alert_of(reason)
    if alert:
        return _alerted(alert, side, own, reason)
    if reason not in _REASONS:
        return Explained(Reason.OTHER, Phase.UNKNOWN, f"OpenSSL says: {reason.lower().replace('_', ' ')}", "", reason)
    phase, row = _REASONS[reason]
    if row.reason is Reason.CLOSED:
        return _closed(side, reason)
    return Explained(row.reason, phase, row.what, _told(row, side), reason)


_SILENT = {
    Side.SERVER: "the caller connected and said nothing, or stopped half way",
    Side.CLIENT: "the destination took the connection and said nothing, or stopped half way",
}
_SILENT_TODO = {
    Side.SERVER: "look whether the device uses TLS on this port; something between may also let connections through "
    "and drop what follows",
    Side.CLIENT: "it may be a port without TLS that waits for other words: name its TLS port, or take `tls` away",
}


def _closed(side: Side, detail: str) -> Explained:
    if side is Side.SERVER:
        return Explained(
            Reason.CLOSED, Phase.UNKNOWN, "the caller hung up without a word",
            "look into the device's log: devices that do not trust our certificate often end like this; a port scan or "
            "a load balancer that looks whether we are there does so too", detail,
        )  # fmt: skip
    return Explained(
        Reason.CLOSED, Phase.UNKNOWN, "the destination hung up without a word",
        "it may be a port without TLS, or one that did not take our certificate; its log says which", detail,
    )  # fmt: skip


# --- what the peer said -----------------------------------------------------------------------------------------------

_ABOUT_OURS = {
    "bad certificate": "it finds our certificate damaged or does not take it",
    "unsupported certificate": "our certificate is not of a kind that it takes, such as one for this use",
    "certificate revoked": "it holds our certificate for revoked",
    "certificate expired": "it holds our certificate for expired, or not yet valid",
    "certificate unknown": "it does not take our certificate",
    "unknown ca": "it does not trust the authority that signed our certificate",
    "access denied": "it knows our certificate and does not let us in",
    "certificate required": "it wants a certificate of ours and got none",
    "no certificate": "it wants a certificate of ours and got none",
    "bad certificate status response": "it wants proof that our certificate is not revoked",
    "certificate unobtainable": "it could not fetch our certificate",
    "bad certificate hash value": "it could not fetch our certificate",
}
_ABOUT_OTHERS: dict[str, tuple[Reason, str]] = {
    "close notify": (Reason.CLOSED, "it hung up"),
    "unexpected message": (Reason.PEER_ALERT, "it did not expect what we said"),
    "bad record mac": (Reason.PEER_ALERT, "what reached it had been changed on the way"),
    "decryption failed": (Reason.PEER_ALERT, "it could not decrypt what we sent"),
    "record overflow": (Reason.PEER_ALERT, "it got more at once than it takes"),
    "decompression failure": (Reason.PEER_ALERT, "it could not decompress what we sent"),
    "handshake failure": (Reason.NO_SHARED_SUITE, "it finds nothing that both sides allow: version, suite, or a "
                          "certificate that it wanted"),
    "illegal parameter": (Reason.PEER_ALERT, "it found a parameter that it does not allow"),
    "decode error": (Reason.PEER_ALERT, "it could not read what we said"),
    "decrypt error": (Reason.PEER_ALERT, "it finds a signature of ours wrong"),
    "export restriction": (Reason.PEER_ALERT, "it keeps to an export restriction"),
    "protocol version": (Reason.PROTOCOL_VERSION, "it takes no version of TLS that we allow"),
    "insufficient security": (Reason.NO_SHARED_SUITE, "it wants stronger suites than we offer"),
    "internal error": (Reason.PEER_ALERT, "it has a fault of its own"),
    "inappropriate fallback": (Reason.PROTOCOL_VERSION, "it knows a newer version than it was asked for"),
    "user cancelled": (Reason.PEER_ALERT, "somebody there ended it"),
    "no renegotiation": (Reason.PEER_ALERT, "it does not begin anew"),
    "missing extension": (Reason.PEER_ALERT, "it misses an extension"),
    "unsupported extension": (Reason.PEER_ALERT, "it got an extension that it had not asked for"),
    "unrecognized name": (Reason.WRONG_NAME, "it does not know the host name that it was called by"),
    "unknown psk identity": (Reason.PEER_ALERT, "it does not know the shared key"),
    "no application protocol": (Reason.PEER_ALERT, "it speaks no protocol that we offered"),
}  # fmt: skip

ALERTS = frozenset({*_ABOUT_OURS, *_ABOUT_OTHERS})
"""Every alert that has words, as RFC 8446 and its predecessors name them."""

_ALERT = re.compile(r"(?:SSLV3|TLSV1|TLSV13)_(?:ALERT_)?([A-Z_]+)")


def _alert_of(reason: str) -> str:
    """`TLSV1_ALERT_UNKNOWN_CA` -> `unknown ca`; '' for what is no alert of the peer."""
    found = _ALERT.fullmatch(reason)
    return found[1].lower().replace("_", " ") if found else ""


_PEER = {Side.SERVER: "the caller", Side.CLIENT: "the destination"}


def _alerted(alert: str, side: Side, own: "Facts | None", detail: str) -> Explained:
    peer = _PEER[side]
    if alert in _ABOUT_OURS:
        shown = f" (ours: {_described(own)})" if own is not None else ""
        what = f"{peer} says {alert!r}: {_ABOUT_OURS[alert]}{shown}"
        return Explained(Reason.OURS_REFUSED, Phase.OWN_CERTIFICATE, what, _ours_todo(alert, side), detail)
    reason, meaning = _ABOUT_OTHERS.get(alert, (Reason.PEER_ALERT, "it ended the handshake"))
    return Explained(reason, Phase.HELLO, f"{peer} says {alert!r}: {meaning}", _alert_todo(reason, side), detail)


_OURS_TODO = {
    "certificate required": "name `certificate` and `key` in `tls` of this destination",
    "no certificate": "name `certificate` and `key` in `tls` of this destination",
    "certificate expired": f"look at ours with `gateway certs show`; {_CLOCK}",
    "certificate revoked": "ask whoever signed ours why; a new one is made by `gateway certs issue`",
    "access denied": "ask the peer's owner to let us in",
}


def _ours_todo(alert: str, side: Side) -> str:
    if alert in _OURS_TODO:
        return _OURS_TODO[alert]
    if side is Side.SERVER:
        return (
            "install the certificate of the authority that signed ours on the device, and have it call us by a name "
            "that stands in our certificate"
        )
    return "the destination's owner has to trust the authority that signed ours"


def _alert_todo(reason: Reason, side: Side) -> str:
    if reason is Reason.NO_SHARED_SUITE:
        return _told(_NO_SUITE, side)
    return _told(_OLD, side) if reason is Reason.PROTOCOL_VERSION else ""


def _told(row: _Row, side: Side) -> str:
    return row.todo if isinstance(row.todo, str) else row.todo[side]
