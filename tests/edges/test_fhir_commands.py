"""`gateway fhir`, and what `gateway check` finds of keys, certificates and what would travel in clear."""

import json
import re
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from fhir_callers import EHR
from jwt.algorithms import RSAAlgorithm
from typer.testing import CliRunner

from gateway.cli import cli
from gateway.config import ConfigError, load_site
from gateway.fhir_files import Listening, fhir_problems
from gateway.fhir_settings import FHIRSettings
from gateway.identity_keys import read_keys
from gateway.smart_keys import SigningKey, jwks_of, new_key, pem_of, read_signing_key, thumbprint
from gateway.testing import site


def run(*words: object) -> tuple[int, str]:
    done = CliRunner().invoke(cli, ["fhir", *map(str, words)], env={"COLUMNS": "300"})
    return done.exit_code, re.sub(r"\s+", " ", done.output)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    key = new_key()
    (tmp_path / "ehr.pem").write_text(pem_of(key))
    (tmp_path / "ehr.json").write_text(jwks_of([key]))
    clients = [{"name": "ehr", "client_id": EHR, "jwks": "ehr.json", "scopes": ["system/Task.rs"],
                "addresses": ["192.0.2.7"]}]  # fmt: skip
    return site(tmp_path, fhir={"clients": clients})


def test_clients_are_listed_with_their_proof(config: Path) -> None:
    code, text = run("clients", "--config", config)
    assert code == 0
    assert "ehr" in text
    assert "token" in text
    said = json.loads(CliRunner().invoke(cli, ["fhir", "clients", "--json", "--config", str(config)]).output)
    assert said[0]["client_id"] == EHR
    assert said[0]["scopes"] == ["system/Task.rs"]


def test_without_clients_it_says_who_is_let_in(tmp_path: Path) -> None:
    assert "programs on this machine" in run("clients", "--config", site(tmp_path, fhir={}))[1]
    told = {**FEED, "subscription": {}}
    config = site(tmp_path, fhir={"url": "https://gateway.example/fhir", "feeds": [told]})
    assert "No clients: nobody is let in." in run("clients", "--config", config)[1]


def test_a_key_is_checked_as_the_gateway_would_find(config: Path, tmp_path: Path) -> None:
    code, text = run("check", "ehr", "--key", tmp_path / "ehr.pem", "--config", config)
    assert (code, text.strip()) == (0, "It would get a token for 300 s: system/Task.rs")
    code, text = run("check", EHR, "--key", tmp_path / "ehr.pem", "--scope", "system/Patient.c", "--config", config)
    assert code == 1
    assert "invalid_scope" in text
    (tmp_path / "other.pem").write_text(pem_of(new_key()))
    code, text = run("check", "ehr", "--key", tmp_path / "other.pem", "--config", config)
    assert code == 1
    assert "no key of this name" in text
    assert run("check", "ehr", "--key", tmp_path / "none.pem", "--config", config)[0] == 1
    assert run("check", "ehr", "--key", tmp_path / "ehr.json", "--config", config)[0] == 1
    assert "gateway fhir clients" in run("check", "nobody", "--key", tmp_path / "ehr.pem", "--config", config)[1]


def test_a_key_pair_is_made_once_and_its_private_half_is_for_nobody_else(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    code, text = run("keys", folder)
    assert code == 0
    private, public = folder / "fhir-client.pem", folder / "fhir-client.jwks.json"
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    ours, (theirs,) = read_signing_key(private), read_keys(public)
    assert ours.key_id == theirs.key_id == thumbprint(ours.public_jwk)
    assert ours.key_id in text
    assert "d" not in json.loads(public.read_text())["keys"][0]
    before = private.read_bytes()
    assert run("keys", folder)[0] == 1
    assert private.read_bytes() == before


def test_a_thumbprint_is_that_of_the_standard() -> None:
    """RFC 7638 3.1."""
    jwk = {
        "kty": "RSA", "alg": "RS256", "kid": "2011-04-29", "e": "AQAB",
        "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjB"
        "ZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8"
        "KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_"
        "xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
    }  # fmt: skip
    assert thumbprint(jwk) == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"


@pytest.mark.parametrize("bits", [1024, 2048])
def test_our_keys_are_read_from_pem_and_jwk_where_they_are_strong_enough(bits: int, tmp_path: Path) -> None:
    key = rsa.generate_private_key(65537, bits)
    file = tmp_path / "key.pem"
    file.write_text(pem_of(SigningKey(key, "x")))
    if bits == 1024:
        with pytest.raises(ValueError, match="2048"):
            read_signing_key(file)
        return
    assert read_signing_key(file).algorithm == "RS384"
    file.write_text(json.dumps({**json.loads(RSAAlgorithm.to_jwk(key)), "kid": "mine"}))
    assert read_signing_key(file).key_id == "mine"
    assert read_signing_key(file, "other").key_id == "other"


# --- gateway check ----------------------------------------------------------------------------------------------------


HERE = Listening(loopback=True, plain=True, tls=False, certificates=False)


def problems(folder: Path, listening: Listening = HERE, **said: Any) -> dict[str, str]:
    """What is wrong in `fhir`, by where; each has a hint."""
    found = list(fhir_problems(folder, FHIRSettings.model_validate(said), listening))
    assert all(hint for _, _, hint in found)
    return {".".join(where): text for where, text, _ in found}


CLIENT = {"name": "ehr", "client_id": EHR, "jwks": "https://ehr.example/jwks"}
FEED = {"name": "emr", "url": "https://emr.example/fhir", "poll": {}}


def test_what_is_in_order_is_no_problem(tmp_path: Path) -> None:
    assert problems(tmp_path, clients=[CLIENT], feeds=[FEED]) == {}


def test_keys_that_cannot_be_read_are_found(tmp_path: Path) -> None:
    (tmp_path / "no.json").write_text("{")
    (tmp_path / "private.pem").write_text(pem_of(new_key()))
    (tmp_path / "public.json").write_text(jwks_of([new_key()]))
    found = problems(
        tmp_path,
        clients=[
            {**CLIENT, "name": "a", "client_id": "a", "jwks": "none.json"},
            {**CLIENT, "name": "b", "client_id": "b", "jwks": "no.json"},
            {**CLIENT, "name": "c", "client_id": "c", "jwks": "private.pem"},
            {**CLIENT, "name": "d", "client_id": "d", "jwks_ca": "none.pem"},
            {**CLIENT, "name": "e", "client_id": "e", "jwks": "http://ehr.example/jwks"},
        ],
        feeds=[
            {**FEED, "name": "a", "credentials": {"client_id": "us", "key": "none.pem"}, "tls": {"ca": "none.pem"}},
            {**FEED, "name": "b", "credentials": {"client_id": "us", "key": "public.json"}},
            {**FEED, "name": "c", "url": "http://emr.example/fhir"},
            {**FEED, "name": "d", "url": "http://127.0.0.1:8090/fhir"},
            {**FEED, "name": "e", "credentials": {
                "client_id": "us", "key": "private.pem", "token_url": "http://emr.example/token",
            }},
        ],
    )  # fmt: skip
    assert set(found) == {
        "clients.0.jwks", "clients.1.jwks", "clients.2.jwks", "clients.3.jwks_ca", "clients.4.jwks",
        "feeds.0.credentials.key", "feeds.0.tls.ca", "feeds.1.credentials.key", "feeds.2.url",
        "feeds.4.credentials.token_url",
    }  # fmt: skip
    assert "private key" in found["clients.2.jwks"]


def test_tokens_in_clear_and_an_address_that_callers_choose_are_found(tmp_path: Path) -> None:
    url, open_to_all = "https://gateway.example/fhir", replace(HERE, loopback=False)
    assert set(problems(tmp_path, open_to_all, clients=[CLIENT])) == {"clients", "url"}
    assert problems(tmp_path, open_to_all, clients=[CLIENT], url=url) == {}, "a proxy speaks TLS"
    assert set(problems(tmp_path, replace(open_to_all, plain=False, tls=True), clients=[CLIENT])) == {"url"}
    assert set(problems(tmp_path, url=url)) == {"clients"}
    assert set(problems(tmp_path, url=url, feeds=[FEED])) == {"clients"}
    assert problems(tmp_path, url=url, feeds=[{**FEED, "subscription": {}}]) == {}, "the feed alone uses it"
    assert problems(tmp_path, url="http://127.0.0.1:8080/fhir") == {}


def test_a_client_that_can_never_show_its_certificate_is_found(tmp_path: Path) -> None:
    clients = [{"name": "ehr", "certificates": ["subject:EHR"]}]
    for tls, certificates in ((False, False), (True, False)):
        listening = replace(HERE, tls=tls, certificates=certificates)
        assert set(problems(tmp_path, listening, clients=clients)) == {"clients.0.certificates"}
    assert problems(tmp_path, replace(HERE, tls=True, certificates=True), clients=clients) == {}


def test_check_says_where_in_the_file_it_is(tmp_path: Path) -> None:
    place = {"name": "emr", "fhir": {"url": "http://emr.example/fhir"}}
    with pytest.raises(ConfigError) as failed:
        load_site(site(
            tmp_path, fhir={"clients": [CLIENT]}, destinations=[place],
            http={"host": "0.0.0.0", "port": 8080},  # noqa: S104  (that is what it is about)
        ))  # fmt: skip
    found = {each.path: each.line for each in failed.value.problems}
    for where in ("fhir.clients", "fhir.url", "destinations.0.fhir.url"):
        assert found[where]
