"""The door of our FHIR server: tokens good and bad, certificates, loopback, API keys, addresses, rates, reload."""

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jwt
import pytest
import structlog
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from fhir_callers import EHR, TOKEN_URL, Doorway, error_of, form, in_loop, knocking, new_number

from gateway.domain.access import Certificate
from gateway.domain.scopes import text_of
from gateway.edges.fhir_door import Authorised, TurnedAway
from gateway.smart_keys import SigningKey, jwks_of, new_key

OURS = Certificate("ab" * 32, "EHR", ("ehr.example",))
THEIRS = Certificate("cd" * 32, "Somebody")


def turned(found: Authorised | TurnedAway | None) -> TurnedAway:
    assert isinstance(found, TurnedAway)
    return found


# --- tokens are given -------------------------------------------------------------------------------------------------


@in_loop
async def test_a_client_gets_a_token_and_is_let_in_with_what_it_may(tmp_path: Path) -> None:
    at = Doorway(tmp_path, {"scopes": ("system/ServiceRequest.cruds", "system/Patient.rs")})
    answer = await at.ask(form(at.assertion(), "system/*.read system/Task.cruds openid"))
    said = json.loads(answer.body)
    assert answer.status == 200
    assert answer.headers["Cache-Control"] == "no-store"
    assert said["token_type"] == "bearer"  # noqa: S105  (a word)
    assert said["expires_in"] == 300
    assert said["scope"] == "system/Patient.rs system/ServiceRequest.rs"
    who = at.admit(said["access_token"])
    assert isinstance(who, Authorised)
    assert who.client == "ehr"
    assert who.may("ServiceRequest", "rs")
    assert not who.may("ServiceRequest", "c")
    assert not who.may("Task", "r")


@in_loop
async def test_rsa_keys_sign_by_rs384(tmp_path: Path) -> None:
    at = Doorway(tmp_path, key=SigningKey(rsa.generate_private_key(65537, 2048), "rsa-1"))
    assert isinstance(at.admit(await at.token()), Authorised)


OTHER = new_key()


def _by_hmac_with_the_public_key(at: Doorway) -> str:
    """The old confusion of algorithms: the public key taken for a shared secret."""
    public = at.key.key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def part(said: Mapping[str, Any] | bytes) -> str:
        data = said if isinstance(said, bytes) else json.dumps(said).encode()
        return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

    now = int(at.clock.at)
    signed = f"{part({'alg': 'HS256', 'typ': 'JWT', 'kid': at.key.key_id})}." + part({
        "iss": EHR, "sub": EHR, "aud": TOKEN_URL, "exp": now + 60, "iat": now, "jti": new_number(),
    })  # fmt: skip
    return f"{signed}.{part(hmac.digest(public, signed.encode(), hashlib.sha256))}"


def _without_signature(at: Doorway) -> str:
    now = int(at.clock.at)
    claims = {"iss": EHR, "sub": EHR, "aud": TOKEN_URL, "exp": now + 60, "iat": now, "jti": new_number()}
    return jwt.encode(claims, None, "none", headers={"kid": at.key.key_id})


def _by_another_curve(at: Doorway) -> str:
    claims = {"iss": EHR, "sub": EHR, "aud": TOKEN_URL, "exp": int(at.clock.at) + 60, "jti": new_number()}
    key = ec.generate_private_key(ec.SECP256R1())
    return jwt.encode(claims, key, "ES256", headers={"kid": at.key.key_id})


BAD: Mapping[str, tuple[Any, str]] = {
    "no token at all": (lambda _: "MARKED", "no JSON Web Token"),
    "without signature": (_without_signature, "alg"),
    "the public key as a secret": (_by_hmac_with_the_public_key, "alg"),
    "an algorithm that is not named": (_by_another_curve, "alg"),
    "another key under this name": (lambda at: at.assertion(OTHER, {"kid": at.key.key_id}), "did not make"),
    "a key we do not know": (lambda at: at.assertion(OTHER), "no key of this name"),
    "no name of a key": (lambda at: at.assertion(header={"kid": None}), "kid"),
    "another address of keys": (lambda at: at.assertion(header={"jku": "https://evil.example/jwks"}), "jku"),
    "another type": (lambda at: at.assertion(header={"typ": "at+jwt"}), "typ"),
    "extensions": (lambda at: at.assertion(header={"crit": ["b64"], "b64": True}), "crit"),
    "somebody unknown": (lambda at: at.assertion(iss="MARKED", sub="MARKED"), "client_id"),
    "for somebody else as subject": (lambda at: at.assertion(sub="MARKED"), "sub"),
    "no issuer": (lambda at: at.assertion(iss=None), "client_id"),
    "an issuer that is no text": (lambda at: at.assertion(iss=None, sub=None), "client_id"),
    "another audience": (lambda at: at.assertion(aud="https://other.example/fhir/token"), "aud"),
    "the base as audience": (lambda at: at.assertion(aud="https://gateway.example/fhir"), "aud"),
    "two audiences": (lambda at: at.assertion(aud=[TOKEN_URL, "https://other.example/token"]), "aud"),
    "no audience": (lambda at: at.assertion(aud=None), "aud"),
    "no end": (lambda at: at.assertion(exp=None), "exp"),
    "an end that is no number": (lambda at: at.assertion(exp="MARKED"), "exp"),
    "an end that is true": (lambda at: at.assertion(exp=True), "exp"),
    "an endless end": (lambda at: at.assertion(exp=float("inf")), "exp"),
    "an end beyond all time": (lambda at: at.assertion(exp=10**400), "exp"),
    "expired": (lambda at: at.assertion(exp=int(at.clock.at) - 31), "expired"),
    "too long": (lambda at: at.assertion(exp=int(at.clock.at) + 331), "too long"),
    "from the future": (lambda at: at.assertion(iat=int(at.clock.at) + 31), "not valid yet"),
    "not before later": (lambda at: at.assertion(nbf=int(at.clock.at) + 31), "not valid yet"),
    "a time that is no number": (lambda at: at.assertion(iat="MARKED"), "numbers"),
    "no number": (lambda at: at.assertion(jti=None), "jti"),
    "an endless number": (lambda at: at.assertion(jti="x" * 257), "jti"),
    "from before the start": (lambda at: at.assertion(iat=int(at.clock.at) - 1), "started anew"),
    "perhaps from before the start": (lambda at: at.assertion(iat=None), "started anew"),
}  # fmt: skip


@pytest.mark.parametrize("which", BAD)
@in_loop
async def test_no_token_for(which: str, tmp_path: Path) -> None:
    at = Doorway(tmp_path)
    make, word = BAD[which]
    with structlog.testing.capture_logs() as logs:
        answer = await at.ask(form(make(at)))
        await at.door.close()
    error, words = error_of(answer)
    assert (answer.status, error) == (400, "invalid_client")
    assert word in words
    assert at.tally.denied == {"fhir assertion": 1}
    assert [each["event"] for each in logs] == ["fhir_caller_denied"]
    assert "MARKED" not in words + str(logs)


@in_loop
async def test_an_assertion_is_good_once(tmp_path: Path) -> None:
    at = Doorway(tmp_path)
    body = form(at.assertion())
    assert (await at.ask(body)).status == 200
    error, words = error_of(await at.ask(body))
    assert error == "invalid_client"
    assert "used before" in words
    at.door.serve(at.settings(token_s=60))
    assert error_of(await at.ask(body))[0] == "invalid_client", "a reload forgets nothing"


@in_loop
async def test_without_its_time_an_assertion_of_five_minutes_is_known_to_be_new(tmp_path: Path) -> None:
    at = Doorway(tmp_path)
    assert (await at.ask(form(at.assertion(iat=None, exp=int(at.clock.at) + 300)))).status == 200
    at.clock.at += 61
    assert (await at.ask(form(at.assertion(iat=None)))).status == 200


@pytest.mark.parametrize(
    ("body", "error", "status"),
    [
        (b"", "invalid_request", 400),
        (b"grant_type=authorization_code", "unsupported_grant_type", 400),
        (b"grant_type=client_credentials", "invalid_request", 400),
        (b"grant_type=client_credentials&client_id=a&client_secret=MARKED", "invalid_client", 400),
        (b"grant_type=client_credentials&grant_type=client_credentials", "invalid_request", 400),
        (b"&".join(b"a%d=1" % number for number in range(17)), "invalid_request", 400),
        (b"scope=" + b"x" * 32_768, "invalid_request", 413),
        (b"grant_type=%ff", "invalid_request", 400),
        (b"grant_type=\xff", "invalid_request", 400),
    ],
)
@in_loop
async def test_a_token_request_that_is_none_is_refused_in_words(
    body: bytes, error: str, status: int, tmp_path: Path
) -> None:
    at = Doorway(tmp_path)
    answer = await at.ask(body)
    assert (error_of(answer)[0], answer.status) == (error, status)
    assert b"MARKED" not in answer.body
    await at.door.close()


@in_loop
async def test_other_ways_to_ask_for_a_token_are_refused(tmp_path: Path) -> None:
    at = Doorway(tmp_path)
    kind = ("content-type", "application/x-www-form-urlencoded")
    basic = await at.ask(form(at.assertion()), headers=[kind, ("authorization", "Basic MARKED")])
    assert (basic.status, error_of(basic)[0]) == (401, "invalid_client")
    assert basic.headers["WWW-Authenticate"].startswith("Bearer")
    as_json = await at.ask(form(at.assertion()), headers=[("content-type", "application/json")])
    assert error_of(as_json)[0] == "invalid_request"
    other = await at.ask(form(at.assertion(), client_id="MARKED"))
    assert error_of(other)[0] == "invalid_client"
    in_clear = await at.ask(form(at.assertion()), encrypted=False)
    assert in_clear.status == 200, "the configured address is https: a proxy took TLS off"
    at.door.serve(at.settings(url="http://gateway.example/fhir"))
    in_clear = await at.ask(form(at.assertion()), encrypted=False)
    assert in_clear.status == 403
    await at.door.close()


@pytest.mark.parametrize("scope", ["", "system/Task.rs", "openid", "patient/*.read"])
@in_loop
async def test_a_client_without_any_of_the_scopes_gets_no_token(scope: str, tmp_path: Path) -> None:
    at = Doorway(tmp_path, {"scopes": ("system/ServiceRequest.c",)})
    answer = await at.ask(form(at.assertion(), scope))
    assert error_of(answer)[0] == "invalid_scope"
    assert "system/ServiceRequest.c" in error_of(answer)[1]
    await at.door.close()


@in_loop
async def test_token_requests_of_one_address_are_bounded(tmp_path: Path) -> None:
    at = Doorway(tmp_path)
    answers = [await at.ask(b"") for _ in range(21)]
    assert [each.status for each in answers] == [400] * 20 + [429]
    assert answers[-1].headers["Retry-After"] == "1"
    assert (await at.ask(b"", peer="192.0.2.8")).status == 400
    await at.door.close()


# --- tokens are taken -------------------------------------------------------------------------------------------------


@in_loop
async def test_a_token_ends(tmp_path: Path) -> None:
    at = Doorway(tmp_path, fhir={"token_s": 60})
    token = await at.token()
    at.clock.at += 59
    assert isinstance(at.admit(token), Authorised)
    at.clock.at += 1
    refused = turned(at.admit(token))
    assert refused.status == 401
    assert 'error="invalid_token"' in refused.headers["WWW-Authenticate"]
    assert "expired" in refused.refusal.text
    await at.door.close()


@in_loop
async def test_tokens_that_the_gateway_did_not_give_are_refused(tmp_path: Path) -> None:
    at = Doorway(tmp_path)
    other = Doorway(tmp_path, key=at.key)
    good = await at.token()
    header, claims, signature = good.split(".")
    none = base64.urlsafe_b64encode(b'{"alg":"none","typ":"at+jwt"}').rstrip(b"=").decode()
    for token in (
        await other.token(), at.assertion(), f"{none}.{claims}.", f"{header}.{claims}.{signature[::-1]}", "MARKED",
        "x" * 20_000, "",
    ):  # fmt: skip
        found = turned(at.admit("", ("authorization", f"Bearer {token}")))
        assert found.status == 401
        assert "MARKED" not in str(found)
    await at.door.close()


@in_loop
async def test_without_an_address_in_the_settings_only_this_machine_names_the_audience(tmp_path: Path) -> None:
    at = Doorway(tmp_path, fhir={"url": ""}, loopback=True)
    for host, status in (("elsewhere.example", 400), ("[", 400), ("localhost:8080", 200)):
        told = at.assertion(aud=f"https://{host}/fhir/token")
        headers = [("content-type", "application/x-www-form-urlencoded"), ("host", host)]
        answer = await at.ask(form(told), headers=headers)
        assert (answer.status, b"access_token" in answer.body) == (status, status == 200), host
    await at.door.close()


@in_loop
async def test_a_token_for_another_audience_is_refused(tmp_path: Path) -> None:
    at = Doorway(tmp_path)
    token = await at.token()
    at.door.serve(at.settings(url="https://other.example/fhir"))
    assert "somebody else" in turned(at.admit(token)).refusal.text
    await at.door.close()


@in_loop
async def test_a_reload_takes_back_clients_and_scopes(tmp_path: Path) -> None:
    at = Doorway(tmp_path)
    token = await at.token()
    at.client = {"scopes": ("system/Task.r",)}
    at.door.serve(at.settings())
    who = at.admit(token)
    assert isinstance(who, Authorised)
    assert text_of(who.scopes) == "system/Task.r"
    at.client = {"client_id": "another"}
    at.door.serve(at.settings())
    assert turned(at.admit(token)).status == 401
    await at.door.close()


@in_loop
async def test_a_token_that_a_certificate_got_is_bound_to_it(tmp_path: Path) -> None:
    at = Doorway(tmp_path)
    token = await at.token(certificate=OURS)
    assert isinstance(at.admit(token, certificate=OURS), Authorised)
    for other in (None, THEIRS):
        assert "bound" in turned(at.admit(token, certificate=other)).refusal.text
    await at.door.close()


@in_loop
async def test_a_client_with_both_proofs_needs_both(tmp_path: Path) -> None:
    at = Doorway(tmp_path, {"certificates": ("name:ehr.example",)})
    assert error_of(await at.ask(form(at.assertion()), certificate=THEIRS))[0] == "invalid_client"
    assert turned(at.admit(certificate=OURS)).status == 401, "the certificate alone is not enough"
    token = await at.token(certificate=OURS)
    assert isinstance(at.admit(token, certificate=OURS), Authorised)
    await at.door.close()


@in_loop
async def test_what_a_scope_does_not_allow_is_forbidden_in_words(tmp_path: Path) -> None:
    at = Doorway(tmp_path)
    who = at.admit(await at.token("system/Task.rs"))
    assert isinstance(who, Authorised)
    knock = fhir_knock()
    assert at.door.forbidden(knock, who, "Task", "r") is None
    found = turned(at.door.forbidden(knock, who, "ServiceRequest", "c"))
    assert found.status == 403
    assert "system/ServiceRequest.c" in found.refusal.text
    assert 'error="insufficient_scope"' in found.headers["WWW-Authenticate"]
    strange = turned(at.door.forbidden(knock, who, 'MARKED"\r\nX: y', "c"))
    assert "MARKED" not in str(strange)
    await at.door.close()


def fhir_knock() -> Any:
    return knocking("GET")


# --- other proofs -----------------------------------------------------------------------------------------------------


@in_loop
async def test_without_any_proof_nobody_is_let_in(tmp_path: Path) -> None:
    at = Doorway(tmp_path, loopback=True)
    for peer in ("192.0.2.7", "127.0.0.1"):
        found = turned(at.admit(peer=peer))
        assert found.status == 401
        assert found.headers["WWW-Authenticate"] == 'Bearer realm="fhir"'
    await at.door.close()


@in_loop
async def test_on_loopback_without_clients_programs_are_let_in_and_pages_of_others_are_not(tmp_path: Path) -> None:
    at = Doorway(tmp_path, fhir={"clients": (), "url": ""}, loopback=True)
    assert at.admit("", ("host", "x"), peer="127.0.0.1") != Authorised("loopback")

    def asked(*headers: tuple[str, str], peer: str = "127.0.0.1") -> Authorised | TurnedAway:
        return at.door.admit(knocking("GET", headers=[*headers], peer=peer, encrypted=False))

    here = ("host", "127.0.0.1:8080")
    assert asked(here) == Authorised("loopback")
    assert asked(here, peer="::1") == Authorised("loopback")
    assert turned(asked(here, peer="192.0.2.7")).status == 403
    assert turned(asked(("host", "localhost.evil.example"))).status == 403
    assert turned(asked(here, ("origin", "http://evil.example"))).status == 403
    assert turned(asked(here, ("origin", "http://[evil"))).status == 403
    assert turned(asked(here, ("sec-fetch-site", "cross-site"))).status == 403
    elsewhere = Doorway(tmp_path, fhir={"clients": (), "url": ""}, loopback=False)
    assert turned(elsewhere.admit(peer="127.0.0.1")).status == 401
    await at.door.close()
    await elsewhere.door.close()


@in_loop
async def test_where_others_see_the_server_nothing_is_open_without_clients(tmp_path: Path) -> None:
    """A proxy on this machine may pass on whoever calls it, by the name of this machine."""
    at = Doorway(tmp_path, fhir={"clients": ()}, loopback=True)
    here = [("host", "127.0.0.1:8080")]
    assert turned(at.door.admit(knocking("GET", headers=here, peer="127.0.0.1", encrypted=False))).status == 401
    knows = {"Bearer known"}.__contains__
    told = knocking("POST", headers=[*here, ("authorization", "Bearer known")], peer="127.0.0.1", encrypted=False)
    assert at.door.notifier(told, knows, "") is None
    await at.door.close()


@in_loop
async def test_a_certificate_alone_lets_in_the_client_that_it_is_of(tmp_path: Path) -> None:
    client = {"client_id": "", "jwks": "", "certificates": ("name:ehr.example",), "scopes": ("system/Task.r",)}
    at = Doorway(tmp_path, client)
    who = at.admit(certificate=OURS)
    assert isinstance(who, Authorised)
    assert (who.client, text_of(who.scopes)) == ("ehr", "system/Task.r")
    assert turned(at.admit(certificate=THEIRS)).status == 401
    page = turned(at.admit("", ("origin", "https://evil.example"), certificate=OURS))
    assert page.status == 403, "a browser shows certificates of its own accord"
    await at.door.close()


@pytest.mark.parametrize(
    ("query", "header"),
    [
        ("", ("x-api-key", "MARKED")),
        ("", ("authorization", "ApiKey MARKED")),
        ("", ("authorization", "Basic MARKED")),
        ("", ("authorization", "MARKED")),
        ("status=active&apikey=MARKED", ("accept", "*/*")),
        ("API_KEY=MARKED", ("accept", "*/*")),
        ("access_token=MARKED", ("accept", "*/*")),
    ],
)
@in_loop
async def test_keys_and_passwords_are_refused_in_words_wherever_they_stand(
    query: str, header: tuple[str, str], tmp_path: Path
) -> None:
    at = Doorway(tmp_path, fhir={"clients": (), "url": ""}, loopback=True)
    with structlog.testing.capture_logs() as logs:
        found = turned(at.admit("", header, query=query, peer="127.0.0.1"))
    assert found.status == 401
    assert "not taken" in found.refusal.text or "neither" in found.refusal.text
    assert found.refusal.hint
    assert at.tally.denied == {"fhir api key": 1}
    assert "MARKED" not in f"{found}{logs}"
    await at.door.close()


@in_loop
async def test_two_authorizations_are_none(tmp_path: Path) -> None:
    at = Doorway(tmp_path)
    token = await at.token()
    assert turned(at.admit(token, ("authorization", f"Bearer {token}"))).status == 401
    await at.door.close()


@in_loop
async def test_a_client_is_bound_to_its_addresses(tmp_path: Path) -> None:
    at = Doorway(tmp_path, {"addresses": ("192.0.2.0/29",)})
    token = await at.token()
    assert isinstance(at.admit(token), Authorised)
    found = turned(at.admit(token, peer="198.51.100.1"))
    assert found.status == 403
    assert at.tally.denied == {"fhir address": 1}
    assert error_of(await at.ask(form(at.assertion()), peer="198.51.100.1"))[0] == "invalid_client"
    await at.door.close()


@in_loop
async def test_a_client_that_asks_too_often_is_told_when_to_come_back(tmp_path: Path) -> None:
    at = Doorway(tmp_path, fhir={"limits": {"requests_per_s": 0.5}})
    token = await at.token()
    assert [isinstance(at.admit(token), Authorised) for _ in range(6)] == [True] * 5 + [False]
    found = turned(at.admit(token))
    assert (found.status, found.headers["Retry-After"]) == (429, "2")
    at.clock.at += 2
    assert isinstance(at.admit(token), Authorised)
    assert at.tally.denied == {"fhir rate": 2}
    await at.door.close()


@in_loop
async def test_a_flood_of_strangers_fills_no_log(tmp_path: Path) -> None:
    at = Doorway(tmp_path)
    with structlog.testing.capture_logs() as logs:
        for _ in range(100):
            at.admit()
        await at.door.close()
    assert [each["event"] for each in logs] == ["fhir_caller_denied"] * 10 + ["refusals_not_told"]
    assert logs[-1]["more"] == 90
    assert at.tally.denied == {"fhir no proof": 100}


# --- keys -------------------------------------------------------------------------------------------------------------


@in_loop
async def test_a_new_key_in_the_file_is_known_at_once_and_a_broken_file_leaves_the_old_ones(tmp_path: Path) -> None:
    at = Doorway(tmp_path)
    newer = new_key()
    (tmp_path / "ehr.json").write_text(jwks_of([at.key, newer]))
    assert (await at.ask(form(at.assertion(newer)))).status == 200
    (tmp_path / "ehr.json").write_text("{")
    with structlog.testing.capture_logs() as logs:
        assert (await at.ask(form(at.assertion(newer)))).status == 200
    assert [each["event"] for each in logs] == ["fhir_keys_unreadable"]


@in_loop
async def test_what_it_takes_is_what_discovery_says(tmp_path: Path) -> None:
    at = Doorway(tmp_path)
    said = at.door.configuration(fhir_knock())
    assert said["token_endpoint"] == TOKEN_URL
    assert said["token_endpoint_auth_methods_supported"] == ["private_key_jwt"]
    assert said["token_endpoint_auth_signing_alg_values_supported"] == ["RS384", "ES384"]
    assert said["grant_types_supported"] == ["client_credentials"]
    assert "permission-v2" in said["capabilities"]
