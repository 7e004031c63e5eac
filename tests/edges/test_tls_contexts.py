"""Contexts from files: what is wrong with a file is said in words, and a change of files takes effect whole or not."""

import contextlib
import os
import ssl
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from gateway.edges.tls import (
    SESSIONS_S,
    ServerTLS,
    ServingContext,
    TLSFileError,
    client_context,
    outdated,
    server_context,
)
from gateway.wire.tls_profiles import PROFILES
from tests.edges.tls_certificates import TestAuthority


@pytest.fixture
def ca(tmp_path: Path) -> TestAuthority:
    return TestAuthority(tmp_path)


@pytest.fixture
def good(ca: TestAuthority) -> ServerTLS:
    own = ca.issue("gateway")
    return ServerTLS(own.certificate, own.key, ca.file)


def encrypt(key: str) -> str:
    file = Path(key)
    read = serialization.load_pem_private_key(file.read_bytes(), None)
    kept = serialization.BestAvailableEncryption(b"secret")
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    file.write_bytes(read.private_bytes(pem, form, kept))
    return key


def written(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text)
    return str(folder / name)


Broken = Callable[[ServerTLS, TestAuthority], ServerTLS]

BROKEN: dict[str, tuple[Broken, str, str]] = {
    "no certificate named": (lambda good, ca: replace(good, certificate=""), "certificate", "no file is named"),
    "no certificate file": (lambda good, ca: replace(good, certificate="/no/such.pem"), "certificate", "there is no"),
    "no key file": (lambda good, ca: replace(good, key="/no/such.key"), "key", "there is no file"),
    "no ca file": (lambda good, ca: replace(good, ca="/no/such.pem"), "ca", "there is no file"),
    "no ca named": (lambda good, ca: replace(good, ca=""), "ca", "no file is named"),
    "another key": (lambda good, ca: replace(good, key=ca.issue("other").key), "key", "is not the key of"),
    "a key of another kind": (
        lambda good, ca: replace(good, key=ca.issue("rsa", rsa_bits=2048).key), "key", "is not the key of",
    ),
    "an encrypted key": (lambda good, ca: replace(good, key=encrypt(good.key)), "key", "is encrypted"),
    "no certificate in it": (
        lambda good, ca: replace(good, certificate=written(ca.folder, "x.pem", "hello")), "certificate", "holds no",
    ),
    "no key in it": (lambda good, ca: replace(good, key=good.certificate), "key", "holds no private key"),
    "no authority in it": (lambda good, ca: replace(good, ca=written(ca.folder, "x.pem", "")), "ca", "holds no"),
    "no list in it": (lambda good, ca: replace(good, crl=good.certificate), "crl", "holds no revocation list"),
    "a weak certificate": (
        lambda good, ca: replace(good, certificate=(weak := ca.issue("weak", rsa_bits=1024)).certificate, key=weak.key),
        "certificate", "too weak",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", BROKEN)
def test_a_file_that_cannot_be_used_is_named_with_its_setting_and_what_to_do(
    what: str, good: ServerTLS, ca: TestAuthority
) -> None:
    spoil, setting, words = BROKEN[what]
    with pytest.raises(TLSFileError, match=words) as caught:
        server_context(spoil(good, ca))
    assert caught.value.setting == setting
    assert caught.value.hint
    assert isinstance(caught.value, OSError)


def test_a_key_in_the_file_of_its_certificate_needs_no_name(good: ServerTLS) -> None:
    both = Path(good.certificate)
    both.write_bytes(both.read_bytes() + Path(good.key).read_bytes())
    assert server_context(replace(good, key="")).verify_mode is ssl.CERT_REQUIRED


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_makes_a_context_with_its_suites_and_no_other(name: str, good: ServerTLS) -> None:
    profile = PROFILES[name]
    context = server_context(replace(good, profile=name))
    offered = [each["name"] for each in context.get_ciphers() if each["protocol"] != "TLSv1.3"]
    assert offered == [suite.openssl for suite in profile.suites]
    assert context.num_tickets == 0


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_can_be_a_clients(name: str, ca: TestAuthority) -> None:
    context = client_context(ca.file, profile=name)
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED


def test_what_had_better_not_be_offered_is_said(good: ServerTLS) -> None:
    assert list(outdated(good)) == []
    assert any("RFC 8996" in text for text in outdated(replace(good, profile="aes-legacy")))
    assert any("no certificate" in text for text in outdated(replace(good, clients="none")))


def test_files_that_have_not_changed_are_not_read_again(good: ServerTLS) -> None:
    serving = ServingContext(good)
    before = serving()
    assert not serving.renew()
    assert serving() is before
    assert serving.renew(always=True)
    assert serving() is not before


@pytest.mark.parametrize("setting", ["certificate", "key", "ca", "crl"])
def test_a_change_of_any_file_makes_a_new_context(setting: str, good: ServerTLS, ca: TestAuthority) -> None:
    good = replace(good, crl=ca.revoke())
    serving = ServingContext(good)
    before = serving()
    os.utime(getattr(good, setting), (1, 1))
    assert serving.renew()
    assert serving() is not before


def test_a_half_replaced_pair_changes_nothing_is_said_once_and_mended_by_the_other_half(
    good: ServerTLS, ca: TestAuthority
) -> None:
    serving = ServingContext(good)
    before = serving()
    new = ca.issue("new")
    os.replace(new.certificate, good.certificate)
    with pytest.raises(TLSFileError, match="is not the key of"):
        serving.renew()
    assert serving() is before
    assert not serving.renew()
    os.replace(new.key, good.key)
    assert serving.renew()
    assert serving() is not before


def test_a_file_that_is_gone_changes_nothing(good: ServerTLS) -> None:
    serving = ServingContext(good)
    before = serving()
    Path(good.ca).unlink()
    with pytest.raises(TLSFileError, match="there is no file"):
        serving.renew()
    assert serving() is before


def test_what_the_system_lacks_for_a_moment_is_tried_again(good: ServerTLS, monkeypatch: pytest.MonkeyPatch) -> None:
    serving = ServingContext(replace(good, profile="non-downgrading"))
    before = serving()
    os.utime(good.ca, (1, 1))
    with monkeypatch.context() as patched:
        patched.setattr(tempfile, "tempdir", "/no/such/folder")  # where the group for Diffie-Hellman goes
        with pytest.raises(OSError, match="No such file") as raised:
            serving.renew()
    assert not isinstance(raised.value, TLSFileError)
    assert serving() is before
    assert serving.renew()


VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]


@pytest.mark.parametrize("version", VERSIONS, ids=["TLS 1.2", "TLS 1.3"])
def test_nobody_resumes_a_session_after_a_minute(version: ssl.TLSVersion, good: ServerTLS, ca: TestAuthority) -> None:
    """Who does shows no certificate again, whether it was good then or has ended since."""
    device, at = ca.issue("CT1"), [0.0]
    serving = ServingContext(good, lambda: at[0])
    client = client_context(ca.file, device.certificate, device.key)
    client.maximum_version = version
    first, session = shaken(serving(), client)
    at[0] = SESSIONS_S
    second, _ = shaken(serving(), client, session)
    assert not first.session_reused
    assert not second.session_reused
    assert second.getpeercert() is not None


def test_without_readable_files_the_context_that_there_is_goes_on(good: ServerTLS, ca: TestAuthority) -> None:
    device = ca.issue("CT1")
    at = [0.0]
    serving = ServingContext(good, lambda: at[0])
    client = client_context(ca.file, device.certificate, device.key)
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    before = serving()
    shaken(before, client)
    Path(good.ca).unlink()
    at[0] = SESSIONS_S
    assert serving() is before


def shaken(
    server: ssl.SSLContext, client: ssl.SSLContext, session: ssl.SSLSession | None = None
) -> tuple[ssl.SSLObject, ssl.SSLSession | None]:
    """The server's side of a handshake that was done, and the session that the client keeps of it."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(down, up, server_hostname="localhost", session=session),
        server.wrap_bio(up, down, server_side=True),
    )
    for _ in range(4):
        for end in ends:
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
    return ends[1], ends[0].session
