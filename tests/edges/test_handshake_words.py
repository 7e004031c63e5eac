"""Failed handshakes in words: each reason is what OpenSSL says in a real handshake over memory, both ends at once."""

import contextlib
import socket
import ssl
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from gateway.edges.certificates import facts_of
from gateway.edges.channel import why
from gateway.edges.handshake_words import ALERTS, Explained, Phase, Reason, Side, explained
from tests.edges.odd_certificates import DAY, NOW, Made, Maker


@dataclass
class Ends:
    """What a handshake came to at each end; None where it found nothing wrong."""

    server: Exception | None = None
    client: Exception | None = None


def shake(server: ssl.SSLContext, client: ssl.SSLContext, name: str = "localhost") -> Ends:
    """Both ends in turn until neither has anything more to say; then each reads, as TLS 1.3 refuses late."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = {
        "server": server.wrap_bio(up, down, server_side=True),
        "client": client.wrap_bio(down, up, server_hostname=name),
    }
    ends, done = Ends(), set[str]()
    for _ in range(12):
        for side, end in sides.items():
            if getattr(ends, side) is not None:
                continue
            try:
                if side in done:
                    end.read(1)
                else:
                    end.do_handshake()
                    done.add(side)
            except (ssl.SSLWantReadError, ssl.SSLZeroReturnError):
                pass
            except ssl.SSLError as error:
                setattr(ends, side, error)
    return ends


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Maker:
    return Maker(tmp_path_factory.mktemp("certificates"))


LENIENT = "DEFAULT:@SECLEVEL=0"
"""As a device that does not look at its own certificate, or an old one."""


def serving(
    maker: Maker, shown: Made, clients: ssl.VerifyMode = ssl.CERT_NONE, suites: str = "DEFAULT"
) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers(suites)
    context.load_cert_chain(shown.pem, shown.key_file)
    context.load_verify_locations(maker.ca)
    context.verify_mode = clients
    return context


def calling(maker: Maker, shown: Made | None = None, suites: str = "DEFAULT") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_ciphers(suites)
    context.load_verify_locations(maker.ca)
    if shown is not None:
        context.load_cert_chain(shown.pem, shown.key_file)
    return context


def told(error: Exception | None, side: Side) -> Explained:
    assert error is not None, "nothing was refused"
    return explained(error, side)


BAD_CERTIFICATES: dict[str, tuple[Reason, Callable[[Maker, Maker], Made]]] = {
    "expired": (Reason.EXPIRED, lambda ours, _: ours.issue("bad", until=NOW - timedelta(hours=1))),
    "not yet valid": (Reason.NOT_YET_VALID, lambda ours, _: ours.issue("bad", from_=NOW + DAY)),
    "self-signed": (Reason.SELF_SIGNED, lambda ours, _: ours.issue("bad", self_signed=True)),
    "of another authority": (Reason.UNKNOWN_AUTHORITY, lambda _, theirs: theirs.issue("bad")),
    "short key": (Reason.WEAK, lambda ours, _: ours.issue("bad", rsa_bits=1024)),
    "signed by a device": (
        Reason.UNKNOWN_AUTHORITY,
        lambda ours, _: Maker(ours.folder, "Device", "device", ours).issue("bad"),
    ),
    "for no usage of TLS": (
        Reason.WRONG_PURPOSE,
        lambda ours, _: ours.issue("bad", usages=[ExtendedKeyUsageOID.CODE_SIGNING]),
    ),
}


def bad(made: Maker, folder: Path, name: str) -> tuple[Reason, Made]:
    reason, make = BAD_CERTIFICATES[name]
    return reason, make(made, Maker(folder, "Somebody else's CA"))


@pytest.fixture(params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def version(request: pytest.FixtureRequest) -> ssl.TLSVersion:
    return request.param


@pytest.mark.parametrize("name", BAD_CERTIFICATES)
def test_a_bad_certificate_of_the_destination_is_told_and_which_it_is(
    made: Maker, tmp_path: Path, name: str, version: ssl.TLSVersion
) -> None:
    reason, shown = bad(made, tmp_path, name)
    server, client = serving(made, shown, suites=LENIENT), calling(made)
    client.maximum_version = version
    ends = shake(server, client)
    found = told(ends.client, Side.CLIENT)
    assert (found.reason, found.phase) == (reason, Phase.PEER_CERTIFICATE)
    assert found.todo
    known = explained(ends.client or OSError(), Side.CLIENT, facts_of(shown.certificate))
    assert "CN=CT1" in known.what
    assert f"{shown.certificate.not_valid_after_utc:%Y-%m-%d}" in known.what
    # the other end learns of it by an alert, and which certificate was meant
    theirs = told(ends.server, Side.SERVER)
    assert (theirs.reason, theirs.phase) == (Reason.OURS_REFUSED, Phase.OWN_CERTIFICATE)


@pytest.mark.parametrize("name", BAD_CERTIFICATES)
def test_a_bad_certificate_of_a_caller_is_told_to_both(
    made: Maker, tmp_path: Path, name: str, version: ssl.TLSVersion
) -> None:
    reason, shown = bad(made, tmp_path, name)
    server = serving(made, made.issue("gateway"), ssl.CERT_REQUIRED)
    client = calling(made, shown, LENIENT)
    client.maximum_version = version
    ends = shake(server, client)
    assert (told(ends.server, Side.SERVER).reason, told(ends.client, Side.CLIENT).reason) == (
        reason, Reason.OURS_REFUSED,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("hosts", "called", "wanted"),
    [(("ct1.hosp.example",), "localhost", "not localhost"), (("10.1.2.3",), "127.0.0.1", ""), ((), "localhost", "")],
)
def test_a_certificate_of_another_host_is_told_with_the_name_that_was_called(
    made: Maker, hosts: tuple[str, ...], called: str, wanted: str
) -> None:
    ends = shake(serving(made, made.issue("other", "other.example", hosts)), calling(made), called)
    found = told(ends.client, Side.CLIENT)
    assert found.reason is Reason.WRONG_NAME
    assert wanted in found.what


# ---- revocation: what the flags of OpenSSL mean ----------------------------------------------------------------------


def checking(made: Maker, *lists: Path, flags: ssl.VerifyFlags = ssl.VERIFY_CRL_CHECK_CHAIN) -> ssl.SSLContext:
    context = serving(made, made.issue("gateway"), ssl.CERT_REQUIRED)
    for each in lists:
        context.load_verify_locations(each)
    context.verify_flags |= flags
    return context


@pytest.mark.parametrize("flags", [ssl.VERIFY_CRL_CHECK_LEAF, ssl.VERIFY_CRL_CHECK_CHAIN])
def test_a_revoked_certificate_is_refused_and_others_are_not(made: Maker, flags: ssl.VerifyFlags) -> None:
    stolen, kept = made.issue("stolen"), made.issue("kept")
    crl = made.revoking("crl", stolen)
    assert told(shake(checking(made, crl, flags=flags), calling(made, stolen)).server, Side.SERVER).reason is (
        Reason.REVOKED
    )
    assert shake(checking(made, crl, flags=flags), calling(made, kept)) == Ends()


@pytest.mark.parametrize("flags", [ssl.VERIFY_CRL_CHECK_LEAF, ssl.VERIFY_CRL_CHECK_CHAIN])
def test_without_a_list_and_with_an_old_or_a_future_one_everybody_is_refused(
    made: Maker, flags: ssl.VerifyFlags
) -> None:
    shown = made.issue("kept")
    for lists, reason in (
        ((), Reason.NO_REVOCATION_LIST),
        ((made.revoking("old", from_=NOW - 9 * DAY, until=NOW - 2 * DAY),), Reason.REVOCATION_LIST_EXPIRED),
        ((made.revoking("early", from_=NOW + DAY, until=NOW + 2 * DAY),), Reason.NO_REVOCATION_LIST),
    ):
        found = told(shake(checking(made, *lists, flags=flags), calling(made, shown)).server, Side.SERVER)
        assert found.reason is reason
        assert found.todo


def test_only_the_check_of_the_chain_notices_a_revoked_authority(tmp_path: Path) -> None:
    root = Maker(tmp_path)
    between = Maker(tmp_path, "Radiology CA", "between", root)
    shown = between.issue("shown")
    shown.pem.write_bytes(shown.pem.read_bytes() + between.ca.read_bytes())
    lists = root.revoking("root-list", between.own), between.revoking("between-list")
    assert shake(checking(root, *lists, flags=ssl.VERIFY_CRL_CHECK_LEAF), calling(root, shown)) == Ends()
    assert told(shake(checking(root, *lists), calling(root, shown)).server, Side.SERVER).reason is Reason.REVOKED
    # the root's own list is enough for those that it signed; those of the authority below need its list too
    alone = checking(root, root.revoking("root-list"))
    assert told(shake(alone, calling(root, shown)).server, Side.SERVER).reason is Reason.NO_REVOCATION_LIST
    assert shake(alone, calling(root, root.issue("direct"))) == Ends()


# ---- no certificate, versions, suites --------------------------------------------------------------------------------


def test_a_caller_without_a_certificate_is_told_at_both_ends(made: Maker, version: ssl.TLSVersion) -> None:
    client = calling(made)
    client.maximum_version = version
    ends = shake(serving(made, made.issue("gateway"), ssl.CERT_REQUIRED), client)
    assert told(ends.server, Side.SERVER).reason is Reason.NO_CERTIFICATE
    assert "gateway certs issue" in told(ends.server, Side.SERVER).todo
    # TLS 1.2 has no alert of its own for it
    assert told(ends.client, Side.CLIENT).reason is (
        Reason.OURS_REFUSED if version is ssl.TLSVersion.TLSv1_3 else Reason.NO_SHARED_SUITE
    )


def test_an_old_version_is_told_at_both_ends(made: Maker) -> None:
    gateway = made.issue("gateway")
    server, client = serving(made, gateway, suites=LENIENT), calling(made, suites=LENIENT)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        client.minimum_version = client.maximum_version = ssl.TLSVersion.TLSv1_1
        server.minimum_version = ssl.TLSVersion.TLSv1_2
        ends = shake(server, client)
        assert told(ends.server, Side.SERVER).reason is Reason.PROTOCOL_VERSION
        assert told(ends.client, Side.CLIENT).reason is Reason.PROTOCOL_VERSION
        old = serving(made, gateway, suites=LENIENT)
        old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
        assert told(shake(old, calling(made)).client, Side.CLIENT).reason is Reason.PROTOCOL_VERSION


def test_no_suite_in_common_is_told_at_both_ends(made: Maker) -> None:
    server, client = serving(made, made.issue("gateway", rsa_bits=2048)), calling(made)
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    client.set_ciphers("ECDHE-RSA-AES128-GCM-SHA256")
    server.set_ciphers("ECDHE-RSA-AES256-GCM-SHA384")
    ends = shake(server, client)
    assert told(ends.server, Side.SERVER).reason is Reason.NO_SHARED_SUITE
    assert told(ends.client, Side.CLIENT).reason is Reason.NO_SHARED_SUITE


def test_an_elliptic_key_and_a_device_that_knows_rsa_only_are_told_as_such(made: Maker) -> None:
    client = calling(made)
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    client.set_ciphers("ECDHE-RSA-AES128-GCM-SHA256")
    found = told(shake(serving(made, made.issue("gateway")), client).server, Side.SERVER)
    assert found.reason is Reason.NO_SHARED_SUITE
    assert "EC key" in found.todo


# ---- no TLS at all ---------------------------------------------------------------------------------------------------


PLAIN = {
    "an association request": bytes.fromhex("0100000000cd00010000") + b"GATEWAY         CT1             ",
    "MLLP": b"\x0bMSH|^~\\&|RIS|HOSP|GATEWAY||20261123||ADT^A01|1|P|2.5\r\x1c\r",
    "HTTP": b"GET /health/live HTTP/1.1\r\nHost: gateway\r\n\r\n",
    "a proxy": b"CONNECT gateway:443 HTTP/1.1\r\n\r\n",
    "an abort": bytes.fromhex("07000000000400000200"),
    "zeros": bytes(64),
}


def hello(made: Maker) -> bytes:
    """The first bytes of a caller that knows TLS 1.2."""
    client, out = calling(made), ssl.MemoryBIO()
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLWantReadError):
        client.wrap_bio(ssl.MemoryBIO(), out, server_hostname="localhost").do_handshake()
    return out.read()


def heard(made: Maker, data: bytes, side: Side) -> Explained:
    """What one end says of the first bytes that it gets."""
    into, out = ssl.MemoryBIO(), ssl.MemoryBIO()
    if side is Side.SERVER:
        end = serving(made, made.issue("gateway")).wrap_bio(into, out, server_side=True)
    else:
        end = calling(made).wrap_bio(into, out, server_hostname="localhost")
        with contextlib.suppress(ssl.SSLWantReadError):
            end.do_handshake()
    into.write(data)
    with pytest.raises(ssl.SSLError) as raised:
        end.do_handshake()
    return explained(raised.value, side)


@pytest.mark.parametrize("side", Side)
@pytest.mark.parametrize("name", PLAIN)
def test_what_is_no_tls_is_called_so(made: Maker, name: str, side: Side) -> None:
    found = heard(made, PLAIN[name], side)
    assert found.reason is Reason.NOT_TLS
    assert "plain port" in found.todo or "TLS port" in found.todo


# ---- alerts ----------------------------------------------------------------------------------------------------------

NAMED = {
    0: "close notify", 10: "unexpected message", 20: "bad record mac", 21: "decryption failed", 22: "record overflow",
    30: "decompression failure", 40: "handshake failure", 41: "no certificate", 42: "bad certificate",
    43: "unsupported certificate", 44: "certificate revoked", 45: "certificate expired", 46: "certificate unknown",
    47: "illegal parameter", 48: "unknown ca", 49: "access denied", 50: "decode error", 51: "decrypt error",
    60: "export restriction", 70: "protocol version", 71: "insufficient security", 80: "internal error",
    86: "inappropriate fallback", 90: "user cancelled", 100: "no renegotiation", 109: "missing extension",
    110: "unsupported extension", 111: "certificate unobtainable", 112: "unrecognized name",
    113: "bad certificate status response", 114: "bad certificate hash value", 115: "unknown psk identity",
    116: "certificate required", 120: "no application protocol",
}  # fmt: skip
"""Every alert of the registry of RFC 8446 and its predecessors that could be sent in a handshake."""

SILENT_OF = {0, 90, 100}
"""OpenSSL reads close_notify as an end, and goes on after the two warnings."""


def test_every_alert_has_words() -> None:
    assert set(NAMED.values()) == ALERTS


@pytest.mark.parametrize("side", Side)
@pytest.mark.parametrize("number", sorted(set(NAMED) - SILENT_OF))
def test_an_alert_of_the_peer_is_told_by_its_name(made: Maker, number: int, side: Side) -> None:
    alert = bytes([21, 3, 3, 0, 2, 2, number])
    found = heard(made, hello(made) + alert if side is Side.SERVER else alert, side)
    assert repr(NAMED[number]) in found.what
    assert found.reason not in (Reason.OTHER, Reason.NOT_TLS)


# ---- who says nothing ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", Side)
def test_a_peer_that_hangs_up_or_says_nothing(made: Maker, side: Side) -> None:
    for ending, reason in (("closes", Reason.CLOSED), ("resets", Reason.CLOSED), ("waits", Reason.TIMEOUT)):
        listener = socket.create_server(("127.0.0.1", 0))
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
        with listener, theirs, ours:
            if side is Side.SERVER:
                context = serving(made, made.issue("gateway"))
                end = context.wrap_socket(ours, server_side=True, do_handshake_on_connect=False)
            else:
                end = calling(made).wrap_socket(ours, server_hostname="localhost", do_handshake_on_connect=False)
            end.settimeout(0.2)
            if ending == "resets":
                theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            if ending != "waits":
                theirs.close()
            with end, pytest.raises(OSError) as raised:  # noqa: PT011 -- which one is what is asked
                end.do_handshake()
            found = explained(raised.value, side)
            assert (found.reason, bool(found.todo)) == (reason, True), ending


def test_whatever_it_is_there_are_words() -> None:
    for error in (ValueError(), ssl.SSLError(1, "[SSL] unknown error"), OSError(), KeyError("x")):
        assert explained(error, Side.SERVER).reason is Reason.OTHER


def test_a_destination_that_is_refused_is_told_in_the_queue_with_the_words_of_openssl(made: Maker) -> None:
    ends = shake(serving(made, made.issue("old", until=NOW - timedelta(hours=1))), calling(made))
    said = why(ends.client or OSError())
    assert "the destination's certificate is refused, as it has expired" in said
    assert "[certificate has expired]" in said
