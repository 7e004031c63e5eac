"""`gateway certs`, on files of its own making and on peers that really shake hands."""

import json
import re
import shlex
import shutil
import socket
import ssl
import stat
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, pkcs12
from cryptography.x509.oid import NameOID
from ruamel.yaml import YAML
from typer.testing import CliRunner

from gateway.cli import cli
from gateway.commands.certificates import CA_PASSPHRASE, P12_PASSPHRASE
from gateway.config import Settings
from gateway.edges.handshake_words import Reason
from gateway.security_settings import certificate_rule
from tests.edges.odd_certificates import DAY, NOW, Made, Maker


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands run in an empty folder, without passphrases of whoever runs the tests."""
    monkeypatch.chdir(tmp_path)
    for name in (CA_PASSPHRASE, P12_PASSPHRASE):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def pilot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority made by the command, for those that do not change it."""
    folder = tmp_path_factory.mktemp("pilot") / "ca"
    assert run("ca", folder, "--name", "Radiology pilot").exit_code == 0
    return folder


@pytest.fixture
def ca(pilot: Path, tmp_path: Path) -> Path:
    shutil.copytree(pilot, tmp_path / "ca")
    return tmp_path / "ca"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Maker:
    return Maker(tmp_path_factory.mktemp("made"))


def run(*words: object, given: str = "") -> Result:
    return CliRunner().invoke(cli, ["certs", *map(str, words)], input=given)


def done(*words: object, given: str = "") -> str:
    result = run(*words, given=given)
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(*words: object) -> str:
    result = run(*words)
    assert result.exit_code in (1, 2), result.output
    return " ".join(result.output.split())


# ---- making ----------------------------------------------------------------------------------------------------------


def test_an_authority_is_made_once_and_its_key_is_never_shown(tmp_path: Path) -> None:
    said = json.loads(done("ca", "site", "--name", "Radiology pilot", "--json"))
    assert (said["subject"], said["authority"]) == ("CN=Radiology pilot", True)
    key = tmp_path / "site" / "ca.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "site").stat().st_mode) == 0o700
    before = key.read_bytes()
    again = refused("ca", "site")
    assert "holds an authority already" in again
    assert "PRIVATE" not in again
    assert key.read_bytes() == before


def test_an_authority_under_a_passphrase_signs_only_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CA_PASSPHRASE, "open sesame")
    done("ca", "ca")
    done("issue", "ct1", "--client", "--key", "ec256")
    monkeypatch.delenv(CA_PASSPHRASE)
    assert f"set {CA_PASSPHRASE}" in refused("issue", "ct2", "--client")


def test_a_device_gets_files_and_its_pin_is_one_that_devices_yaml_takes(ca: Path, tmp_path: Path) -> None:
    words = ("--ae", "CT1", "--host", "ct1.hosp.example", "--address", "10.1.2.3", "--days", "100", "--out", "devices")
    said = json.loads(done("issue", "ct1", *words, "--json"))
    assert (said["common_name"], said["names"]) == ("CT1", ["ct1.hosp.example", "10.1.2.3"])
    assert said["usages"] == ["server", "client"]
    assert certificate_rule(said["pin"]).value == said["pin"].removeprefix("sha256:")
    assert stat.S_IMODE((tmp_path / "devices" / "ct1.key").stat().st_mode) == 0o600
    assert "PRIVATE" not in json.dumps(said)


def test_nothing_is_replaced_unless_that_is_meant(ca: Path, tmp_path: Path) -> None:
    done("issue", "ct1", "--client", "--key", "ec256")
    first = (tmp_path / "ct1.pem").read_bytes()
    assert "exists already" in refused("issue", "ct1", "--client", "--key", "ec256")
    assert (tmp_path / "ct1.pem").read_bytes() == first
    done("issue", "ct1", "--client", "--key", "ec256", "--force")
    assert (tmp_path / "ct1.pem").read_bytes() != first


def test_what_cannot_be_made_is_refused_in_words(ca: Path) -> None:
    for words, said in (
        (("issue", "../ct1", "--client"), "letters, digits"),
        (("issue", "ct1", "--server"), "host name or address"),
        (("issue", "ct1"), "For a device that only calls say --client"),
        (("issue", "ct1", "--client", "--ae", "A" * 17), "at most 16 characters"),
        (("issue", "ct1", "--host", "a b"), "is no host name"),
        (("issue", "ct1", "--host", "ct1,ct2"), "is no host name"),
        (("issue", "ct1", "--address", "ct1.hosp.example"), "is no address"),
        (("issue", "ct1", "--client", "--key", "rsa512"), "rsa2048"),
        (("issue", "ct1", "--client", "--ca", "nowhere"), "gateway certs ca nowhere"),
        (("issue", "ct1", "--client", "--csr", "nowhere.csr"), "No such file"),
        (("revoke", "CT7"), "signed nothing for this name"),
    ):
        assert said in refused(*words), words


def test_pkcs12_takes_its_passphrase_from_the_environment_or_a_person(
    ca: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done("issue", "ct1", "--client", "--p12", "--key", "ec256", given="typed\ntyped\n")
    monkeypatch.setenv(P12_PASSPHRASE, "environs")
    done("issue", "ct2", "--client", "--p12-old", "--key", "ec256")
    for name, passphrase in (("ct1", b"typed"), ("ct2", b"environs")):
        file = tmp_path / f"{name}.p12"
        held = pkcs12.load_pkcs12(file.read_bytes(), passphrase)
        assert held.cert is not None
        assert held.cert.certificate.public_bytes(Encoding.PEM) == (tmp_path / f"{name}.pem").read_bytes()
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_device_that_made_its_key_keeps_it(ca: Path, tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "anything")])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    (tmp_path / "ct1.csr").write_bytes(request.public_bytes(Encoding.PEM))
    assert (
        json.loads(done("issue", "ct1", "--ae", "CT1", "--client", "--csr", "ct1.csr", "--json"))["subject"] == "CN=CT1"
    )
    assert not (tmp_path / "ct1.key").exists()
    assert "the key is the device's" in refused("issue", "ct2", "--csr", "ct1.csr", "--p12")


def test_revoking_by_name_or_file_and_renewing_the_list(ca: Path) -> None:
    done("issue", "ct1", "--ae", "CT1", "--client", "--key", "ec256")
    done("issue", "ct2", "--ae", "CT2", "--client", "--key", "ec256")
    (by_name,) = json.loads(done("revoke", "CT1", "--json"))["revoked"]
    assert by_name["subject"] == "CN=CT1"
    done("revoke", "ct2.pem")
    assert json.loads(done("crl", "--days", "9", "--json"))["revoked"] == 2
    result = run("explain", "ct1.pem", "ca/ca.pem", "ca/crl.pem", "--json")
    steps = json.loads(result.stdout)
    assert (result.exit_code, steps["ok"]) == (1, False)
    assert [step["text"] for step in steps["steps"] if step["fine"] is False] == ["CN=CT1 is revoked by it"]


# ---- looking at files ------------------------------------------------------------------------------------------------


def failures(*words: object) -> list[tuple[str, str]]:
    result = run("explain", *words, "--json")
    said = json.loads(result.stdout)
    failed = [(step["text"], step["todo"]) for step in said["steps"] if step["fine"] is False]
    assert (result.exit_code, said["ok"]) == (bool(failed), not failed)
    return failed


def test_files_that_go_together_are_found_good(made: Maker) -> None:
    own = made.issue("gateway")
    own.key_file.chmod(0o600)
    assert failures(own.pem, own.key_file, made.ca, made.revoking("list")) == []


@pytest.mark.parametrize("case", ["key", "mode", "expired", "chain", "between", "list", "strange list", "no PEM"])
def test_what_is_wrong_with_files_is_told_with_what_to_do(made: Maker, tmp_path: Path, case: str) -> None:
    own, other = made.issue("own"), made.issue("other")
    theirs = Maker(tmp_path, "Other CA", "theirs")
    below = Maker(tmp_path, "Below CA", "below", made)
    own.key_file.chmod(0o600)
    other.key_file.chmod(0o600)
    files: tuple[Path, ...]
    match case:
        case "key":
            files, said = (own.pem, other.key_file, made.ca), "it is not the key of CN=CT1"
        case "mode":
            own.key_file.chmod(0o644)
            files, said = (own.pem, own.key_file), "others than its owner"
        case "expired":
            files, said = (made.issue("gone", until=NOW - timedelta(hours=1)).pem,), "it has expired"
        case "chain":
            files, said = (own.pem, theirs.ca), "nothing here leads from CN=CT1"
        case "between":
            files, said = (below.issue("deep").pem, below.ca, made.ca), "CN=Below CA is not in deep.pem"
        case "list":
            old = made.revoking("old", from_=NOW - 9 * DAY, until=NOW - DAY)
            files, said = (made.ca, old), "too old, so everybody is refused"
        case "strange list":
            files, said = (made.ca, theirs.revoking("strange")), "of none of these authorities"
        case _:
            (tmp_path / "words.pem").write_text("words")
            files, said = (tmp_path / "words.pem",), "no PEM file"
    ((text, todo),) = failures(*files)
    assert said in text
    assert todo or case == "no PEM"


def test_without_anything_named_the_files_of_the_configuration_are_looked_at(made: Maker, tmp_path: Path) -> None:
    own = made.issue("own")
    own.key_file.chmod(0o600)
    config = tmp_path / "gateway.yaml"
    tls = {"certificate": str(own.pem), "key": str(own.key_file), "ca": str(made.ca)}
    YAML().dump({"tls": tls}, config)
    steps = json.loads(done("explain", "--config", config, "--json"))["steps"]
    assert {str(own.pem), str(own.key_file), str(made.ca)} <= {step["what"] for step in steps}
    assert "trusted_by" in done("show", own.pem, "--config", config)
    (shown,) = json.loads(done("show", own.pem, "--config", config, "--json"))
    assert shown["trusted_by"] == [str(made.ca)]


def test_a_certificate_is_shown_with_its_pin_and_what_is_weak(made: Maker) -> None:
    weak = made.issue("weak", hosts=(), rsa_bits=1024)
    (shown,) = json.loads(done("show", weak.pem, "--json"))
    assert len(shown["weak"]) == 2
    assert shown["pin"] == f"sha256:{weak.certificate.fingerprint(hashes.SHA256()).hex()}"
    assert "days left" in done("show", weak.pem)
    assert "holds no certificate" in refused("show", weak.key_file)


# ---- talking to peers ------------------------------------------------------------------------------------------------


@contextmanager
def peer(
    shown: Made, clients: Path | None = None, newest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3, required: bool = True
) -> Iterator[str]:
    """HOST:PORT of a server that shows this certificate and asks for those that `clients` has signed."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.load_cert_chain(shown.pem, shown.key_file)
    context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
    context.maximum_version = newest
    if clients is not None:
        context.load_verify_locations(clients)
        context.verify_mode = ssl.CERT_REQUIRED if required else ssl.CERT_OPTIONAL
    with listening(lambda taken: answer_by(context, taken)) as address:
        yield address


def answer_by(context: ssl.SSLContext, taken: socket.socket) -> None:
    with suppress(OSError), context.wrap_socket(taken, server_side=True) as wrapped:
        wrapped.recv(1)


@contextmanager
def listening(answer: Any) -> Iterator[str]:
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):
            while True:
                taken, _ = listener.accept()
                with taken:
                    answer(taken)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)


def steps(*words: object) -> dict[str, tuple[bool | None, str]]:
    result = run("explain", *words, "--json")
    said = json.loads(result.stdout)
    assert result.exit_code == (0 if said["ok"] else 1)
    assert all(step["todo"] for step in said["steps"] if step["fine"] is False), said
    return {step["what"]: (step["fine"], step["text"]) for step in said["steps"]}


def ours(shown: Made) -> tuple[object, ...]:
    return "--certificate", shown.pem, "--key", shown.key_file


@pytest.fixture(params=[ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def newest(request: pytest.FixtureRequest) -> ssl.TLSVersion:
    return request.param


def test_a_handshake_that_works_is_told_step_by_step(made: Maker, newest: ssl.TLSVersion) -> None:
    with peer(made.issue("server"), made.ca, newest) as address:
        said = steps(address, "--ca", made.ca, *ours(made.issue("gateway")))
    assert all(fine is not False for fine, _ in said.values()), said
    assert list(said) == ["name", "TCP", "version", "certificate", "names", "authority 1", "trust", "our certificate"]
    assert said["version"][1].startswith(newest.name.replace("_", "."))
    assert said["our certificate"][1] == "it asks for a certificate of ours and took it"


def test_a_certificate_of_ours_that_is_refused_is_told_also_where_that_comes_late(
    made: Maker, tmp_path: Path, newest: ssl.TLSVersion
) -> None:
    theirs = Maker(tmp_path, "Their CA")
    with peer(made.issue("server"), theirs.ca, newest) as address:
        fine, text = steps(address, "--ca", made.ca, *ours(made.issue("gateway")))["our certificate"]
        without = steps(address, "--ca", made.ca)["our certificate"]
    assert fine is False
    assert "'unknown ca'" in text
    assert ("after the handshake" in text) is (newest is ssl.TLSVersion.TLSv1_3)
    assert without[0] is False
    assert "without one it hangs up" in without[1]


def test_a_peer_that_asks_without_insisting_or_not_at_all(made: Maker) -> None:
    with peer(made.issue("server"), made.ca, required=False) as address:
        assert steps(address, "--ca", made.ca)["our certificate"] == (
            True, "it asks for a certificate of ours and goes on without one",
        )  # fmt: skip
    with peer(made.issue("server")) as address:
        said = steps(address)
    assert said["our certificate"] == (True, "it asks for no certificate of ours")
    assert said["trust"][0] is None


@pytest.mark.parametrize(
    ("case", "step", "words"),
    [
        ("expired", "trust", "it has expired"),
        ("stranger", "trust", "not known here"),
        ("other host", "trust", "it is for another host name, not localhost"),
        ("weak", "certificate", "1024 bits"),
    ],
)
def test_a_certificate_of_a_peer_that_is_not_taken_is_named(
    made: Maker, tmp_path: Path, case: str, step: str, words: str
) -> None:
    shown = {
        "expired": lambda: made.issue("bad", until=NOW - timedelta(hours=1)),
        "stranger": lambda: Maker(tmp_path, "Their CA").issue("bad"),
        "other host": lambda: made.issue("bad", hosts=("ris.hosp.example",)),
        "weak": lambda: made.issue("bad", rsa_bits=1024),
    }[case]()
    with peer(shown) as address:
        said = steps(address.replace("127.0.0.1", "localhost"), "--ca", made.ca)
    assert said[step][0] is False
    assert words in said[step][1]
    assert "CN=CT1" in said["trust"][1]


def test_an_old_version_is_seen_and_called_too_old(made: Maker) -> None:
    shown = made.issue("server", rsa_bits=2048)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        with peer(shown, newest=ssl.TLSVersion.TLSv1_1) as address:
            fine, text = steps(address, "--ca", made.ca)["version"]
    assert fine is False
    assert "TLSv1.1" in text or "version" in text


def test_who_speaks_no_tls_or_nothing_or_is_not_there_is_told_as_such(made: Maker) -> None:
    def greets(taken: socket.socket) -> None:
        taken.sendall(b"220 mail.example ready\r\n")
        taken.recv(4096)

    with listening(greets) as address:
        assert "no TLS" in steps(address)["agreeing on a protocol version and a suite"][1]
        assert "without TLS" in refused("show", address)
    with listening(lambda taken: taken.recv(1)) as address:  # hangs up at the first byte
        assert "hung up" in steps(address)["shaking hands"][1]
    waiting = threading.Event()
    with listening(lambda taken: waiting.wait(20)) as address:
        said = steps(address, "--timeout", "0.3")
        waiting.set()
    assert "said nothing" in said["agreeing on a protocol version and a suite"][1]
    closed = socket.create_server(("127.0.0.1", 0))
    port = closed.getsockname()[1]
    closed.close()
    assert steps(f"127.0.0.1:{port}")["TCP"] == (False, f"port {port}: connection refused")
    assert steps("nowhere.invalid:2762")["name"][0] is False


def test_a_destination_of_the_configuration_is_tried_with_its_own_files(made: Maker, tmp_path: Path) -> None:
    config, own = tmp_path / "gateway.yaml", made.issue("gateway")
    with peer(made.issue("server", hosts=("ris.hosp.example",)), made.ca) as address:
        host, _, port = address.partition(":")
        tls = {
            "ca": str(made.ca),
            "certificate": str(own.pem),
            "key": str(own.key_file),
            "host_name": "ris.hosp.example",
        }
        YAML().dump({"destinations": [{"name": "ris", "host": host, "port": int(port), "tls": tls}]}, config)
        said = steps(address, "--config", config)
        assert all(fine is not False for fine, _ in said.values()), said
        assert "is for ris.hosp.example" in said["trust"][1]
        shown = json.loads(done("show", address, "--config", config, "--json"))[0]
    assert shown["trusted_by"] == [str(made.ca)]
    assert shown["names"] == ["ris.hosp.example"]


def test_files_of_ours_that_cannot_be_used_are_told_before_anybody_is_called(made: Maker) -> None:
    with peer(made.issue("server")) as address:
        fine, text = steps(
            address, "--ca", made.ca, "--certificate", made.issue("a").pem, "--key", made.issue("b").key_file
        )["our files"]
    assert fine is False
    assert "is not the key" in text


# ---- the how-to ------------------------------------------------------------------------------------------------------

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "from-plain-to-tls.md"


def test_the_commands_and_settings_of_the_how_to_are_real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = PAGE.read_text(encoding="utf-8")
    lines = [shlex.split(line, comments=True)[1:] for line in text.splitlines() if line.startswith("gateway certs ")]
    monkeypatch.setenv(P12_PASSPHRASE, "secret")
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "MR1")])
    request = x509.CertificateSigningRequestBuilder().subject_name(name)
    signed = request.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    (tmp_path / "mr1.csr").write_bytes(signed.public_bytes(Encoding.PEM))
    settings = YAML(typ="safe").load(text.split("```yaml")[1].split("```")[0])
    Settings.model_validate(settings)
    YAML().dump(settings, tmp_path / "gateway.yaml")
    ran = set()
    for words in lines:
        if any(":2762" in word for word in words):  # tried on real peers above
            continue
        if words[1] == "revoke":
            done("issue", "us1", "--ae", words[2], "--client", "--key", "ec256")
        if words == ["certs", "explain"]:
            shutil.copy("ca/ca.pem", "tls")
            shutil.copy("ca/crl.pem", "tls")
        done(*words[1:])
        ran.add(words[1])
    assert ran == {"ca", "issue", "explain", "show", "revoke", "crl"}
    reasons = set(re.findall(r"`([a-z_]+)`", text.split("| reason |")[1].split("\n\n")[0]))
    assert {str(each) for each in Reason} - reasons == {"other", "peer_alert", "bad_certificate"}


def test_a_lost_list_is_refused_in_words_unless_it_is_meant(ca: Path) -> None:
    done("issue", "ct1", "--client", "--key", "ec256")
    done("revoke", "ct1.pem")
    for spoil in (lambda: (ca / "crl.pem").write_text("half"), (ca / "crl.pem").unlink):
        spoil()
        for words in (("crl",), ("revoke", "ct1.pem"), ("revoke", "ct1")):
            said = refused(*words)
            assert "who was revoked is lost" in said
            assert "--anew" in said
    assert "0 revoked" in done("crl", "--anew")
    assert "revoked: CN=ct1" in done("revoke", "ct1.pem")
