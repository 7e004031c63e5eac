"""Certificates, keys and lists as files: what is read out of them, what is weak, and what the pilot authority makes."""

import shutil
import ssl
import stat
import subprocess
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, pkcs12
from cryptography.x509.oid import NameOID

from gateway.domain.access import CertificateRule, CertificateRuleKind, fits
from gateway.edges.certificates import (
    CertificateFileError,
    allows,
    certificate_of,
    certificates_in,
    ders_of,
    facts_of,
    fits_key,
    key_in,
    lists_in,
    path_to,
    signed_by,
    weaknesses,
)
from gateway.edges.handshake_words import Reason, Side, explained
from gateway.edges.site_authority import AuthorityError, SiteAuthority, Wanted
from gateway.edges.tls import ServerTLS, client_context, server_context
from tests.edges.odd_certificates import DAY, NOW, Maker
from tests.edges.test_handshake_words import Ends, shake


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Maker:
    return Maker(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> SiteAuthority:
    return SiteAuthority.make(tmp_path_factory.mktemp("pilot") / "ca", "Pilot CA")


# ---- what rules go by ------------------------------------------------------------------------------------------------


def test_a_certificate_fits_rules_by_its_fingerprint_its_common_name_and_each_of_its_names(made: Maker) -> None:
    shown = made.issue("ct1", "CT1", ("ct1.hosp.example", "10.1.2.3", "ct1"))
    read = certificate_of(shown.certificate.public_bytes(Encoding.DER))
    assert read.common_name == "CT1"
    assert set(read.names) == {"ct1.hosp.example", "10.1.2.3", "ct1"}
    for kind, value in (
        (CertificateRuleKind.FINGERPRINT, shown.certificate.fingerprint(hashes.SHA256()).hex()),
        (CertificateRuleKind.SUBJECT, "CT1"),
        (CertificateRuleKind.NAME, "CT1.hosp.example"),
        (CertificateRuleKind.NAME, "10.1.2.3"),
    ):
        assert fits(CertificateRule(kind, value), read)
    assert not fits(CertificateRule(CertificateRuleKind.SUBJECT, "ct1"), read)


def test_two_common_names_are_none_and_what_cannot_be_read_bears_no_names() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    both = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name) for name in ("CT1", "GATEWAY")])
    certificate = (
        x509.CertificateBuilder().subject_name(both).issuer_name(both).public_key(key.public_key()).serial_number(1)
        .not_valid_before(NOW).not_valid_after(NOW + DAY).sign(key, hashes.SHA256())
    )  # fmt: skip
    assert certificate_of(certificate.public_bytes(Encoding.DER)).common_name == ""
    twice = (
        x509.CertificateBuilder().subject_name(both).issuer_name(both).public_key(key.public_key()).serial_number(1)
        .not_valid_before(NOW).not_valid_after(NOW + DAY)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("a")]), critical=False)
        .add_extension(x509.IssuerAlternativeName([x509.DNSName("b")]), critical=False)
        .sign(key, hashes.SHA256()).public_bytes(Encoding.DER).replace(b"\x55\x1d\x12", b"\x55\x1d\x11")
    )  # fmt: skip
    assert certificate_of(twice).names == ()
    with pytest.raises(ValueError, match="damaged"):
        facts_of(twice)
    broken = certificate_of(b"no certificate at all")
    assert (broken.common_name, broken.names, len(broken.fingerprint)) == ("", (), 64)


# ---- reading ---------------------------------------------------------------------------------------------------------


def test_facts_say_what_openssl_says(made: Maker) -> None:
    shown = made.issue("facts", "CT1", rsa_bits=2048)
    facts = facts_of(shown.certificate)
    said = subprocess.run(
        ["openssl", "x509", "-in", shown.pem, "-noout", "-fingerprint", "-sha256", "-subject", "-enddate", "-serial"],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    values = dict(line.split("=", 1) for line in said.splitlines())
    assert values["sha256 Fingerprint"].replace(":", "").lower() == facts.fingerprint
    assert int(values["serial"], 16) == facts.serial
    assert values["subject"].replace(" ", "") == facts.subject
    ends = datetime.strptime(values["notAfter"], "%b %d %H:%M:%S %Y %Z").replace(tzinfo=UTC)
    assert ends == facts.not_after
    assert (facts.key, facts.signature, facts.authority, facts.usages) == (
        "RSA 2048", "sha256", False, ("server", "client"),
    )  # fmt: skip
    assert facts.pin == f"sha256:{facts.fingerprint}"


def test_der_and_pem_are_read_alike_and_several_in_one_file(made: Maker, tmp_path: Path) -> None:
    shown = made.issue("form")
    (tmp_path / "form.der").write_bytes(shown.certificate.public_bytes(Encoding.DER))
    assert ders_of(tmp_path / "form.der") == ders_of(shown.pem)
    chain = tmp_path / "chain.pem"
    chain.write_bytes(b"words before\n" + shown.pem.read_bytes() + made.ca.read_bytes())
    assert certificates_in(chain) == (shown.certificate, made.own.certificate)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no such file"),
        (b"", "it is empty"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "it holds: PRIVATE KEY"),
        (b"\x30\x82\x01", "PKCS#12"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "is damaged"),
        (b"hello", "it is no PEM file"),
    ],
)
def test_what_is_no_certificate_is_told_by_what_it_is_instead(tmp_path: Path, content: bytes | None, said: str) -> None:
    file = tmp_path / "file.pem"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(CertificateFileError, match=said) as raised:
        certificates_in(file)
    assert str(file) in str(raised.value)
    for read in (key_in, lists_in):
        if content != b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n" or read is lists_in:
            with pytest.raises(CertificateFileError):
                read(file)


def test_a_file_that_is_too_long_is_not_read_whole(tmp_path: Path) -> None:
    with (tmp_path / "log.pem").open("wb") as opened:
        opened.truncate(5 * 1_048_576)
    with pytest.raises(CertificateFileError, match="too long"):
        certificates_in(tmp_path / "log.pem")


def test_a_key_under_a_passphrase_is_called_so(tmp_path: Path) -> None:
    SiteAuthority.make(tmp_path / "ca", "CA", b"secret", key="ec256")
    with pytest.raises(CertificateFileError, match="encrypted"):
        key_in(tmp_path / "ca" / "ca.key")


# ---- weaknesses, chains, lists ---------------------------------------------------------------------------------------


def test_weaknesses_are_those_that_openssl_refuses_or_that_nobody_can_check(made: Maker) -> None:
    good = facts_of(made.issue("good").certificate)
    assert weaknesses(good) == ()
    for weak, said in (
        (facts_of(made.issue("short", rsa_bits=1024).certificate), "1024 bits"),
        (facts_of(made.issue("nameless", hosts=()).certificate), "no host name"),
        (facts_of(made.own.certificate), "an authority's"),
        (replace(good, signature="sha1"), "SHA1"),
    ):
        (found,) = weaknesses(weak)
        assert said in found
    assert weaknesses(facts_of(made.issue("nameless", hosts=()).certificate), shown_by_server=False) == ()


def test_sha1_is_seen_in_a_real_certificate_and_refused_by_the_service(made: Maker, tmp_path: Path) -> None:
    shown = made.issue("request", "CT1", rsa_bits=2048)
    request, weak = tmp_path / "csr.pem", tmp_path / "sha1.pem"
    openssl = shutil.which("openssl")
    assert openssl
    for words in (
        ["req", "-new", "-key", shown.key_file, "-subj", "/CN=CT1", "-out", request],
        ["x509", "-req", "-in", request, "-CA", made.ca, "-CAkey", made.own.key_file, "-sha1", "-days", "9",
         "-set_serial", "7", "-out", weak],
    ):  # fmt: skip
        subprocess.run([openssl, *words], check=True, capture_output=True)
    (read,) = certificates_in(weak)
    assert any("SHA1" in each for each in weaknesses(facts_of(read), shown_by_server=False))
    own = made.issue("gateway")
    server = server_context(ServerTLS(str(own.pem), str(own.key_file), str(made.ca)))
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.load_verify_locations(made.ca)
    client.set_ciphers("DEFAULT:@SECLEVEL=0")
    client.load_cert_chain(weak, shown.key_file)
    refused = shake(server, client).server
    assert isinstance(refused, ssl.SSLCertVerificationError)
    assert explained(refused, Side.SERVER).reason is Reason.WEAK


def test_a_path_leads_over_those_between_to_one_that_is_trusted(tmp_path: Path) -> None:
    root = Maker(tmp_path)
    between = Maker(tmp_path, "Radiology CA", "between", root)
    device = between.issue("device").certificate
    path = path_to(device, [between.own.certificate], [root.own.certificate])
    assert path == (device, between.own.certificate, root.own.certificate)
    assert path_to(device, [], [root.own.certificate]) is None
    assert path_to(device, [], [between.own.certificate]) == (device, between.own.certificate)
    assert path_to(device, [], [device]) == (device,)
    stranger = Maker(tmp_path, "Hospital CA", "stranger")  # the same name, another key
    assert path_to(device, [between.own.certificate], [stranger.own.certificate]) is None


def test_a_list_is_its_authoritys_by_signature_not_by_name(made: Maker, tmp_path: Path) -> None:
    (listed,) = lists_in(made.revoking("mine"))
    assert signed_by(listed, made.own.certificate)
    assert not signed_by(listed, Maker(tmp_path, "Hospital CA").own.certificate)


# ---- the pilot authority ---------------------------------------------------------------------------------------------


def issued(authority: SiteAuthority, folder: Path, wanted: Wanted) -> tuple[str, str]:
    """Files of a new certificate and its key."""
    made = authority.issue(wanted)
    folder.mkdir(exist_ok=True)
    (folder / "own.pem").write_bytes(made.pem())
    (folder / "own.key").write_bytes(made.key_pem())
    return str(folder / "own.pem"), str(folder / "own.key")


@pytest.mark.parametrize("key", ["rsa2048", "ec256"])
def test_what_it_issues_shakes_hands_by_the_contexts_of_the_service(
    authority: SiteAuthority, tmp_path: Path, key: str
) -> None:
    ca, crl = str(authority.folder / "ca.pem"), str(authority.folder / "crl.pem")
    ours = issued(authority, tmp_path / "gateway", Wanted("GATEWAY", ("localhost",), key=key))
    theirs = issued(authority, tmp_path / "device", Wanted("CT1", server=False, key=key))
    server = server_context(ServerTLS(*ours, ca, crl))
    assert shake(server, client_context(ca, *theirs)) == Ends()
    # openssl's strict reading of RFC 5280 finds nothing either
    subprocess.run(
        ["openssl", "verify", "-x509_strict", "-crl_check", "-CRLfile", crl, "-CAfile", ca, ours[0], theirs[0]],
        check=True, capture_output=True,
    )  # fmt: skip
    assert fits_key(certificates_in(Path(ours[0]))[0], key_in(Path(ours[1])))


def test_revoked_ones_are_refused_by_the_service_and_stay_revoked(tmp_path: Path) -> None:
    authority = SiteAuthority.make(tmp_path / "ca", "Pilot CA", key="ec256")
    ca, crl = str(authority.folder / "ca.pem"), str(authority.folder / "crl.pem")
    ours = issued(authority, tmp_path / "gateway", Wanted("GATEWAY", ("localhost",), key="ec256"))
    stolen = issued(authority, tmp_path / "stolen", Wanted("CT1", server=False, key="ec256"))
    renewed = issued(authority, tmp_path / "renewed", Wanted("CT2", server=False, key="ec256"))
    authority.revoke(authority.of_name("CT1"))
    authority.renew_list()
    again = SiteAuthority(tmp_path / "ca")  # from its files
    again.revoke([])
    assert len(again.revoked()) == 1
    assert not again.of_name("CT1")
    server = server_context(ServerTLS(*ours, ca, crl))
    refused = shake(server, client_context(ca, *stolen)).server
    assert isinstance(refused, ssl.SSLCertVerificationError)
    assert refused.verify_code == 23
    assert shake(server, client_context(ca, *renewed)) == Ends()
    numbers = x509.CRLNumber
    assert lists_in(Path(crl))[0].extensions.get_extension_for_class(numbers).value.crl_number == 4


def test_an_old_list_refuses_everybody_by_the_contexts_of_the_service(made: Maker) -> None:
    own, device = made.issue("gateway"), made.issue("device")
    old = made.revoking("old", from_=NOW - 9 * DAY, until=NOW - timedelta(seconds=1))
    server = server_context(ServerTLS(str(own.pem), str(own.key_file), str(made.ca), str(old)))
    refused = shake(server, client_context(str(made.ca), str(device.pem), str(device.key_file))).server
    assert isinstance(refused, ssl.SSLCertVerificationError)
    assert refused.verify_code == 12


def test_the_service_checks_authorities_between_too_unless_one_of_them_is_what_it_trusts(tmp_path: Path) -> None:
    root = Maker(tmp_path)
    between = Maker(tmp_path, "Radiology CA", "between", root)
    own, device = root.issue("gateway"), between.issue("device")
    device.pem.write_bytes(device.pem.read_bytes() + between.ca.read_bytes())
    lists = tmp_path / "lists.pem"
    client = client_context(str(root.ca), str(device.pem), str(device.key_file))

    def server(ca: Path) -> ssl.SSLContext:
        return server_context(ServerTLS(str(own.pem), str(own.key_file), str(ca), str(lists)))

    lists.write_bytes(between.revoking("below").read_bytes() + root.revoking("above").read_bytes())
    assert shake(server(root.ca), client) == Ends()
    lists.write_bytes(between.revoking("below").read_bytes())
    assert shake(server(between.ca), client) == Ends()  # what is above it is no matter
    missing = shake(server(root.ca), client).server
    assert isinstance(missing, ssl.SSLCertVerificationError)
    assert missing.verify_code == 3
    lists.write_bytes(between.revoking("below").read_bytes() + root.revoking("above", between.own).read_bytes())
    revoked = shake(server(root.ca), client).server
    assert isinstance(revoked, ssl.SSLCertVerificationError)
    assert revoked.verify_code == 23


def test_a_device_that_made_its_key_itself_gets_only_what_was_wanted(authority: SiteAuthority) -> None:
    key = rsa.generate_private_key(65537, 2048)
    asked = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "GATEWAY")])
    builder = x509.CertificateSigningRequestBuilder().subject_name(asked)
    builder = builder.add_extension(x509.BasicConstraints(True, None), critical=True)
    request = builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)
    made = authority.issue_for(Wanted("CT1", server=False), request)
    facts = facts_of(made.certificate)
    assert (facts.common_name, facts.authority, facts.usages) == ("CT1", False, ("client",))
    assert fits_key(made.certificate, key)
    with pytest.raises(AuthorityError):
        made.key_pem()


def test_bad_requests_are_refused_in_words(authority: SiteAuthority) -> None:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "CT1")])
    builder = x509.CertificateSigningRequestBuilder().subject_name(name)
    weak = rsa.generate_private_key(65537, 1024)  # noqa: S505 -- to be refused
    short = builder.sign(weak, hashes.SHA256()).public_bytes(Encoding.PEM)
    other = builder.sign(ed25519.Ed25519PrivateKey.generate(), None).public_bytes(Encoding.PEM)
    der = builder.sign(rsa.generate_private_key(65537, 2048), hashes.SHA256()).public_bytes(Encoding.DER)
    changed = x509.load_der_x509_csr(der.replace(b"CT1", b"CT2")).public_bytes(Encoding.PEM)
    for request, said in ((b"", "no certificate request"), (short, "1024 bits"), (other, "RSA or EC"),
                          (changed, "signature is wrong")):  # fmt: skip
        with pytest.raises(AuthorityError, match=said):
            authority.issue_for(Wanted("CT1", server=False), request)


def test_it_refuses_what_would_do_harm(authority: SiteAuthority, made: Maker) -> None:
    with pytest.raises(AuthorityError, match="worthless"):
        SiteAuthority.make(authority.folder, "again")
    with pytest.raises(AuthorityError, match="host name or address"):
        authority.issue(Wanted("GATEWAY"))
    with pytest.raises(AuthorityError, match="was signed by CN=Hospital CA"):
        authority.revoke([made.issue("strange").certificate])
    with pytest.raises(AuthorityError, match="cannot stand"):
        authority.issue(Wanted("GATEWAY", ("gerät.example",)))
    assert authority.revoked() == frozenset()


def test_a_namesakes_certificate_is_not_revoked(authority: SiteAuthority, tmp_path: Path) -> None:
    namesake = SiteAuthority.make(tmp_path / "other", "Pilot CA", key="ec256")
    theirs = namesake.issue(Wanted("CT1", server=False, key="ec256")).certificate
    before = (authority.folder / "crl.pem").read_bytes()
    with pytest.raises(AuthorityError, match="another CN=Pilot CA"):
        authority.revoke([theirs])
    assert (authority.folder / "crl.pem").read_bytes() == before


def test_a_list_that_is_lost_or_damaged_is_not_replaced_by_an_empty_one(tmp_path: Path) -> None:
    authority = SiteAuthority.make(tmp_path / "ca", "Pilot CA", key="ec256")
    stolen = authority.issue(Wanted("CT1", server=False, key="ec256")).certificate
    authority.revoke([stolen])
    file = tmp_path / "ca" / "crl.pem"
    kept = file.read_bytes()
    other = SiteAuthority.make(tmp_path / "other", "Other CA", key="ec256")
    for content, error, said in (
        (None, AuthorityError, "there is no"),
        (b"half", CertificateFileError, "holds no revocation list"),
        (kept[:100] + b"AAAA" + kept[104:], (AuthorityError, CertificateFileError), "backup"),
        ((other.folder / "crl.pem").read_bytes(), AuthorityError, "of another authority"),
    ):
        file.unlink()
        if content is not None:
            file.write_bytes(content)
        for change in (authority.renew_list, authority.revoked, lambda: authority.revoke([stolen])):
            with pytest.raises(error, match=said):  # type: ignore[arg-type]  # one, or two of them
                change()  # type: ignore[operator]  # each takes no arguments
        assert not file.exists() if content is None else file.read_bytes() == content
        file.touch()
    before = x509.load_pem_x509_crl(kept).extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    assert len(authority.renew_list(anew=True)) == 0
    after = lists_in(file)[0].extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    assert after > before
    assert len(authority.revoke([stolen])) == 1


def test_its_key_is_for_its_owner_alone_and_may_be_under_a_passphrase(tmp_path: Path) -> None:
    SiteAuthority.make(tmp_path / "ca", "CA", b"secret", key="ec256")
    key = tmp_path / "ca" / "ca.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert b"ENCRYPTED" in key.read_bytes()
    assert SiteAuthority(tmp_path / "ca", b"secret").issue(Wanted("CT1", server=False, key="ec256")).key_pem()
    for passphrase in (b"", b"wrong"):
        with pytest.raises(AuthorityError):
            SiteAuthority(tmp_path / "ca", passphrase)


@pytest.mark.parametrize("old", [False, True])
def test_pkcs12_holds_certificate_key_and_authority(authority: SiteAuthority, old: bool) -> None:
    made = authority.issue(Wanted("CT1", server=False, key="ec256"))
    held = pkcs12.load_pkcs12(made.pkcs12("ct1", b"secret", old), b"secret")
    assert held.cert is not None
    assert (held.cert.certificate, held.additional_certs[0].certificate) == (made.certificate, authority.certificate)
    assert fits_key(made.certificate, held.key)  # type: ignore[arg-type]


def test_no_certificate_outlives_the_authority(tmp_path: Path) -> None:
    authority = SiteAuthority.make(tmp_path / "ca", "CA", days=30, key="ec256")
    made = authority.issue(Wanted("GATEWAY", addresses=(ip_address("127.0.0.1"),)))
    assert made.certificate.not_valid_after_utc == authority.certificate.not_valid_after_utc
    assert allows(facts_of(made.certificate), "server")
