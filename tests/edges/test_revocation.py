"""Revocation, wherever certificates are checked: what a file of lists may hold, whom it refuses, and who looks."""

import json
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from structlog.testing import capture_logs
from typer.testing import CliRunner

from gateway.certificate_expiry import ExpiryWatch, doubts
from gateway.certificate_files import certificate_files
from gateway.cli import cli
from gateway.config import Settings, load_site
from gateway.destinations import DestinationTLS
from gateway.directory_source import ldap_access
from gateway.edges.certificates import CertificateFileError, lists_in
from gateway.edges.handshake_steps import Files, connection_steps
from gateway.edges.ldap_servers import LDAPServer
from gateway.edges.ldap_session import LDAPAccess, LDAPFailed, connected
from gateway.edges.tls import ServerTLS, TLSFileError, client_context, server_context
from gateway.outgoing import tls_context
from gateway.testing import site
from tests.edges.odd_certificates import DAY, NOW, Made, Maker
from tests.edges.test_certificate_commands import peer
from tests.edges.test_handshake_words import Ends, serving, shake


@pytest.fixture
def made(tmp_path: Path) -> Maker:
    return Maker(tmp_path)


def joined(file: Path, *parts: Path) -> Path:
    file.write_bytes(b"".join(part.read_bytes() for part in parts))
    return file


def settings(**said: Any) -> Settings:
    return Settings.model_validate(said)


def doubted(said: Settings) -> list[str]:
    return [str(each) for each in doubts(said, Path(), NOW)]


def tls(own: Made, **files: Path) -> dict[str, str]:
    return {"certificate": str(own.pem), "key": str(own.key_file)} | {name: str(file) for name, file in files.items()}


def files_of(own: Made) -> tuple[str, str]:
    return str(own.pem), str(own.key_file)


# ---- what a file of lists may hold -----------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["behind", "before"])
@pytest.mark.parametrize("block", [b"CERTIFICATE", b"X509 CERTIFICATE", b"TRUSTED CERTIFICATE"])
def test_a_certificate_in_the_file_of_lists_makes_nobody_an_authority(
    made: Maker, tmp_path: Path, order: Sequence[int], block: bytes
) -> None:
    own = made.issue("gateway")
    (tmp_path / "rogue").mkdir()
    rogue = Maker(tmp_path / "rogue", "Rogue CA")
    rogue.ca.write_bytes(rogue.ca.read_bytes().replace(b"CERTIFICATE", block))
    parts = (made.revoking("good"), rogue.ca)
    crl = joined(tmp_path / "crl.pem", *(parts[place] for place in order), rogue.revoking("rogue"))
    for make in (
        lambda: server_context(ServerTLS(*files_of(own), str(made.ca), str(crl))),
        lambda: client_context(str(made.ca), crl=str(crl)),
    ):
        with pytest.raises(TLSFileError, match="beside revocation lists") as raised:
            make()
        assert raised.value.setting == "crl"
    with pytest.raises(CertificateFileError, match="beside revocation lists"):
        lists_in(crl)
    (said,) = doubted(settings(tls=tls(own, ca=made.ca, crl=crl)))
    assert "tls.crl" in said
    assert "would be trusted" in said


def test_lists_of_several_authorities_are_taken(made: Maker, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = Maker(tmp_path / "other", "Other CA")
    own, device = made.issue("gateway"), other.issue("device")
    ca = joined(tmp_path / "both.pem", made.ca, other.ca)
    crl = joined(tmp_path / "lists.pem", made.revoking("a"), other.revoking("b"))
    server = server_context(ServerTLS(*files_of(own), str(ca), str(crl)))
    assert shake(server, client_context(str(made.ca), *files_of(device))) == Ends()
    assert doubted(settings(tls=tls(own, ca=ca, crl=crl))) == []


def test_a_list_in_der_form_is_told_with_the_command_that_converts_it(made: Maker, tmp_path: Path) -> None:
    der = tmp_path / "crl.der"
    der.write_bytes(x509.load_pem_x509_crl(made.revoking("list").read_bytes()).public_bytes(Encoding.DER))
    with pytest.raises(CertificateFileError, match="openssl crl -inform DER") as raised:
        lists_in(der)
    assert "PKCS#12" not in str(raised.value)
    with pytest.raises(TLSFileError, match="openssl crl -inform DER"):
        client_context(str(made.ca), crl=str(der))


# ---- one odd certificate ---------------------------------------------------------------------------------------------


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    """An authority with a form of name in it that OpenSSL takes and our library does not (x400Address)."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Odd CA")])
    names = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.17"), bytes.fromhex("3004a3023000"))
    builder = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(7)
        .not_valid_before(NOW - DAY).not_valid_after(NOW + 5 * DAY)
        .add_extension(x509.BasicConstraints(True, None), critical=True).add_extension(names, critical=False)
    )  # fmt: skip
    file = tmp_path / "odd.pem"
    file.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(file)  # the service would take it
    return file


def test_an_odd_certificate_is_watched_like_others_and_told_by_check_and_explain(
    made: Maker, odd: Path, tmp_path: Path
) -> None:
    own = made.issue("gateway")
    said = settings(tls=tls(own, ca=joined(tmp_path / "both.pem", made.ca, odd)))
    with capture_logs() as logs:
        assert ExpiryWatch().look(said, Path(), NOW) == 1
    assert [(log["event"], log["subject"]) for log in logs] == [("certificate_expires", "CN=Odd CA")]
    assert any("certificate 2 has extensions" in each for each in doubted(said))
    result = CliRunner().invoke(cli, ["certs", "explain", said.tls.ca, str(own.pem), str(own.key_file), "--json"])
    steps = json.loads(result.stdout)["steps"]
    assert any("certificate 2 of 2 has extensions" in step["text"] for step in steps)
    assert any(step["what"].endswith("gateway.pem: chain") and step["fine"] for step in steps)


def test_a_watch_that_cannot_look_raises_nothing(made: Maker, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr("gateway.certificate_expiry.certificates_in", fail)
    with capture_logs() as logs:
        assert ExpiryWatch().look(settings(tls=tls(made.issue("gateway"))), Path(), NOW) == 0
    assert [log["event"] for log in logs] == ["certificate_unreadable"]


# ---- lists that refuse everybody, and places where nobody looks ------------------------------------------------------


def test_check_names_each_authority_without_a_list(made: Maker, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other, own = Maker(tmp_path / "other", "Other CA"), made.issue("gateway")
    both = joined(tmp_path / "both.pem", made.ca, other.ca)
    for ca, crl, lacking in (
        (made.ca, other.revoking("theirs"), ["CN=Hospital CA"]),
        (both, made.revoking("ours"), ["CN=Other CA"]),
        (both, joined(tmp_path / "lists.pem", made.revoking("ours"), other.revoking("theirs")), []),
    ):
        found = doubted(settings(tls=tls(own, ca=ca, crl=crl), dicom={"tls": {"port": 2762}}))
        assert [subject for subject in ("CN=Hospital CA", "CN=Other CA") if any(
            f"has no list of {subject}" in each for each in found
        )] == lacking  # fmt: skip
        assert len(found) == len(lacking)


def test_check_says_where_the_common_lists_do_not_reach(made: Maker, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other, own = Maker(tmp_path / "other", "Other CA"), made.issue("gateway")
    common = tls(own, ca=made.ca, crl=made.revoking("list"))
    ca = {"ca": str(other.ca)}
    ldap = {"servers": ["ldaps://ldap"], "bind": "anonymous"}
    for said, where in (
        ({"dicom": {"tls": {"port": 2762, **ca}}}, "dicom.tls.ca"),
        ({"destinations": [{"name": "ris", "host": "ris", "port": 1, "tls": ca}]}, "destinations.0.tls.ca"),
        ({"devices": {"ldap": {**ldap, **ca}}}, "devices.ldap.ca"),
    ):
        (found,) = doubted(settings(tls=common, **said))
        assert where in found
        assert "revocation is not checked here" in found
    crl = str(other.revoking("theirs"))
    listed: dict[str, Any] = {**ca, "crl": crl}
    assert doubted(settings(tls=common, dicom={"tls": {"port": 2762, **listed}}, devices={"ldap": ldap | listed})) == []
    assert doubted(settings(tls=common, devices={"ldap": ldap})) == []
    assert doubted(settings(dicom={"tls": {"port": 2762, **common, **ca, "crl": ""}})) == []  # no list anywhere


def test_check_says_which_key_others_may_read(made: Maker) -> None:
    own = made.issue("gateway")
    own.key_file.chmod(0o640)
    assert doubted(settings(tls=tls(own, ca=made.ca))) == []
    own.key_file.chmod(0o644)
    (found,) = doubted(settings(tls=tls(own, ca=made.ca)))
    assert "others than its owner can read or change this key" in found
    assert f"chmod 600 {own.key_file}" in found


# ---- where we call ---------------------------------------------------------------------------------------------------


def code_of(context: ssl.SSLContext, maker: Maker, shown: Made) -> int:
    """Why a client refuses this server, by OpenSSL's number; 0: it does not."""
    error = shake(serving(maker, shown), context).client
    assert error is None or isinstance(error, ssl.SSLCertVerificationError)
    return error.verify_code if error is not None else 0


def test_a_destination_that_was_revoked_is_told_nothing_and_new_lists_count_without_a_restart(
    made: Maker, tmp_path: Path
) -> None:
    stolen, good = made.issue("stolen"), made.issue("good")
    crl = made.revoking("list")
    contexts = tls_context(tmp_path, DestinationTLS(ca="ca.pem", crl="list.pem"))
    before = contexts()
    assert contexts() is before
    assert code_of(contexts(), made, stolen) == 0
    made.revoking("list", stolen)
    assert (code_of(contexts(), made, stolen), code_of(contexts(), made, good)) == (23, 0)
    crl.write_text("half")
    assert (code_of(contexts(), made, stolen), code_of(contexts(), made, good)) == (23, 0)


def test_a_destination_found_by_device_inherits_lists_with_the_authorities(made: Maker, tmp_path: Path) -> None:
    own, crl = made.issue("gateway"), made.revoking("list")
    device = {
        "ae_title": "PACS", "acceptor": True, "group": "ARCHIVE", "host": "pacs", "port": 2762, "tls": True,
    }  # fmt: skip
    place = {"name": "pacs", "device": "PACS", "performed": {}}
    (tmp_path / "devices.yaml").write_text(json.dumps({"devices": [device]}))
    file = site(tmp_path, tls=tls(own, ca=made.ca, crl=crl), devices={"file": "devices.yaml"}, destinations=[place])
    (destination,) = load_site(file).settings.destinations
    assert destination.tls is not None
    assert (destination.tls.ca, destination.tls.crl) == (str(made.ca), str(crl))
    named = {"name": "ris", "host": "ris", "port": 1, "tls": {"ca": str(made.ca)}}
    (own_ca,) = settings(tls=tls(own, ca=made.ca, crl=crl), destinations=[named]).destinations
    assert own_ca.tls is not None
    assert own_ca.tls.crl == ""


def test_ldap_is_checked_by_lists_its_own_or_those_of_the_authorities_it_inherits(made: Maker, tmp_path: Path) -> None:
    loaded = load_site(site(tmp_path, tls=tls(made.issue("gateway"), ca=made.ca, crl=made.revoking("list"))))

    def crl(**said: str) -> str:
        ldap = settings(devices={"ldap": {"servers": ["ldaps://ldap"], "bind": "anonymous", **said}}).devices.ldap
        assert ldap is not None
        return Path(ldap_access(loaded, ldap).crl).name

    assert crl() == "list.pem"
    assert crl(ca="other.pem") == ""
    assert crl(ca="other.pem", crl="theirs.pem") == "theirs.pem"


def test_an_ldap_server_that_was_revoked_is_refused_in_words(made: Maker) -> None:
    stolen = made.issue("stolen")
    access = LDAPAccess(ca=str(made.ca), crl=str(made.revoking("list", stolen)))
    with peer(stolen) as address:
        server = LDAPServer("localhost", int(address.rpartition(":")[2]), tls=True)
        with pytest.raises(LDAPFailed, match="is revoked"), connected(access, server):
            pass


def test_explain_says_that_a_peer_was_revoked(made: Maker) -> None:
    stolen = made.issue("stolen")
    files = Files(ca=str(made.ca), crl=str(made.revoking("list", stolen)))
    with peer(stolen) as address:
        port = int(address.rpartition(":")[2])
        steps = list(connection_steps("127.0.0.1", port, "localhost", files, NOW, 10))
    (trust,) = [step for step in steps if step.what == "trust"]
    assert trust.fine is False
    assert "revoked" in trust.text


def test_lists_of_destinations_and_ldap_are_watched_and_have_to_be_there(tmp_path: Path, made: Maker) -> None:
    place = {"name": "ris", "host": "ris", "port": 1, "tls": {"ca": str(made.ca), "crl": "ris-crl.pem"}}
    ldap = {"servers": ["ldaps://ldap"], "bind": "anonymous", "ca": "x.pem", "crl": "ldap-crl.pem"}
    found = certificate_files(settings(destinations=[place], devices={"ldap": ldap}), tmp_path)
    assert {"ris-crl.pem", "ldap-crl.pem"} <= {each.named for each in found}
