"""Certificates that end: warned of in the log, in metrics and by `gateway check`, each once for each threshold."""

import asyncio
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest
from structlog.testing import capture_logs
from typer.testing import CliRunner

from gateway.certificate_expiry import BUNDLE_MIN, ExpiryWatch, doubts, held
from gateway.certificate_files import certificate_files
from gateway.cli import cli
from gateway.config import Settings, load_site
from gateway.service import Service
from gateway.testing import site
from tests.edges.odd_certificates import DAY, NOW, Made, Maker


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Maker:
    return Maker(tmp_path_factory.mktemp("certificates"))


def settings(**said: Any) -> Settings:
    return Settings.model_validate(said)


def tls(own: Made, **more: object) -> dict[str, str]:
    return {"certificate": str(own.pem), "key": str(own.key_file), **{name: str(file) for name, file in more.items()}}


def looked(watch: ExpiryWatch, said: Settings, at: datetime) -> list[Mapping[str, Any]]:
    with capture_logs() as logs:
        told = watch.look(said, Path(), at)
    assert told == sum(log["event"].endswith(("_expires", "_expired")) for log in logs)
    return logs


def test_every_block_of_the_settings_names_files_that_are_watched() -> None:
    block = {"certificate": "a.pem", "key": "a.key"}
    said = settings(
        tls={**block, "ca": "b.pem", "crl": "c.pem"},
        dicom={"tls": {"port": 2762, **block}},  # the same file is one
        hl7=[{"name": "ris", "tls": {"port": 2576, "certificate": "hl7.pem", "ca": "hl7-ca.pem",
                                     "crl": "hl7-crl.pem"}}],
        http={"tls": {"port": 8443, "certificate": "http.pem", "key": "http.key"}},
        destinations=[{"name": "pacs", "host": "pacs", "port": 2762, "performed": {"ae_title": "PACS"},
                       "tls": {"ca": "pacs-ca.pem", "certificate": "pacs.pem"}}],
        devices={"ldap": {"servers": ["ldaps://ldap"], "bind": "external", "ca": "ldap-ca.pem",
                          "certificate": "ldap.pem", "key": "ldap.key"}},
        users={"saml": [{"issuer": "idp", "audience": "gateway", "certificate": "idp.pem"}]},
    )  # fmt: skip
    found = certificate_files(said, Path("/site"))
    assert [each.named for each in found] == [
        "a.pem", "b.pem", "c.pem", "http.pem", "hl7.pem", "hl7-ca.pem", "hl7-crl.pem", "pacs.pem", "pacs-ca.pem",
        "ldap.pem", "ldap-ca.pem", "idp.pem",
    ]  # fmt: skip
    keys = {each.named: each.key and each.key.name for each in found}
    assert (keys["a.pem"], keys["hl7.pem"], keys["b.pem"]) == ("a.key", "hl7.pem", None)


def test_a_certificate_is_warned_of_once_at_each_threshold_and_louder_when_it_has_ended(made: Maker) -> None:
    own = made.issue("gateway", until=NOW + 100 * DAY)
    said, watch, told = settings(tls=tls(own)), ExpiryWatch(), []
    for day in (0, 39, 40, 41, 69, 70, 71, 92, 93, 94, 99, 100, 101):
        for log in looked(watch, said, NOW + day * DAY):
            told.append((day, log["event"], log["log_level"], log["days"]))
    assert told == [
        (40, "certificate_expires", "warning", 60),
        (70, "certificate_expires", "warning", 30),
        (93, "certificate_expires", "warning", 7),
        (100, "certificate_expired", "error", 0),
    ]


def test_a_renewed_certificate_is_warned_of_anew(made: Maker) -> None:
    said, watch = settings(tls=tls(made.issue("gateway", until=NOW + 5 * DAY))), ExpiryWatch()
    assert len(looked(watch, said, NOW)) == 1
    made.issue("gateway", until=NOW + 50 * DAY)
    assert [log["days"] for log in looked(watch, said, NOW)] == [50]
    assert looked(watch, said, NOW) == []


def test_a_start_says_at_once_what_it_finds_and_only_the_nearest_threshold(made: Maker) -> None:
    said = settings(tls=tls(made.issue("gateway", until=NOW + 5 * DAY)))
    assert [log["days"] for log in looked(ExpiryWatch(), said, NOW)] == [5]


def test_a_revocation_list_is_warned_of_a_week_before_and_when_it_refuses_everybody(made: Maker) -> None:
    own = made.issue("gateway")
    crl = made.revoking("list", until=NOW + 40 * DAY)
    said, watch, told = settings(tls=tls(own, ca=made.ca, crl=crl)), ExpiryWatch(), []
    for day in (0, 20, 32, 33, 35, 40, 41):
        told += [(day, log["event"]) for log in looked(watch, said, NOW + day * DAY)]
    assert told == [(33, "revocation_list_expires"), (40, "revocation_list_expired")]


def test_authorities_are_watched_but_not_those_of_an_operating_system(made: Maker, tmp_path: Path) -> None:
    ending = made.issue("ending", "Ending CA", ca=True, until=NOW + 10 * DAY)
    said = settings(tls={"ca": str(ending.pem)})
    assert [log["subject"] for log in looked(ExpiryWatch(), said, NOW)] == ["CN=Ending CA"]
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(ending.pem.read_bytes() * BUNDLE_MIN)
    (file,) = certificate_files(settings(tls={"ca": str(bundle)}), Path())
    assert held(file) == ()


def test_a_file_that_cannot_be_read_is_told_and_hides_no_other(made: Maker, tmp_path: Path) -> None:
    own = made.issue("gateway", until=NOW + 5 * DAY)
    said = settings(tls=tls(own, ca=tmp_path / "gone.pem"))
    assert sorted(log["event"] for log in looked(ExpiryWatch(), said, NOW)) == [
        "certificate_expires", "certificate_unreadable",
    ]  # fmt: skip


# ---- gateway check ---------------------------------------------------------------------------------------------------


def doubted(said: Settings, at: datetime = NOW) -> list[str]:
    return [str(each) for each in doubts(said, Path(), at)]


def test_check_doubts_what_ends_is_weak_or_does_not_fit(made: Maker, tmp_path: Path) -> None:
    own, other = made.issue("gateway"), made.issue("other")
    assert doubted(settings(tls=tls(own, ca=made.ca, crl=made.revoking("list")))) == []
    for said, words in (
        (tls(made.issue("soon", until=NOW + 20 * DAY + timedelta(hours=1))), "good for 20 more day(s)"),
        (tls(made.issue("gone", until=NOW - DAY)), "ended on"),
        (tls(made.issue("weak", rsa_bits=1024)), "1024 bits"),
        (tls(made.issue("nameless", hosts=())), "no host name"),
        ({**tls(own), "key": str(other.key_file)}, "its key is not the one in other.key"),
        (tls(own, crl=made.revoking("old", from_=NOW - 9 * DAY, until=NOW - DAY)), "everybody is refused"),
        (tls(own, ca=tmp_path / "gone.pem"), "no such file"),
    ):
        (told,) = doubted(settings(tls=said))
        assert told.startswith("gateway.yaml tls.")
        assert words in told
    client = {"ca": str(made.ca), **tls(made.issue("nameless", hosts=()))}
    assert doubted(settings(destinations=[{"name": "ris", "host": "ris", "port": 2575, "tls": client}])) == []


def test_the_command_check_tells_it_and_fails(made: Maker, tmp_path: Path) -> None:
    good, ending = tls(made.issue("good")), tls(made.issue("ending", until=NOW + 20 * DAY))
    for said, code in ((good, 0), (ending, 1)):
        result = CliRunner().invoke(cli, ["check", "--config", str(site(tmp_path, tls=said))])
        assert result.exit_code == code, result.output
        assert ("more day(s)" in " ".join(result.output.split())) is bool(code)


# ---- the service -----------------------------------------------------------------------------------------------------


def test_the_service_warns_at_its_start_and_its_metrics_count_the_seconds(made: Maker, tmp_path: Path) -> None:
    ending = made.issue("ending", "GATEWAY", until=NOW + 20 * DAY)
    crl = made.revoking("list", until=NOW + 40 * DAY)
    config = site(tmp_path, tls=tls(ending, ca=made.ca, crl=crl))

    async def scenario() -> tuple[list[Any], str]:
        service = Service(load_site(config))
        with capture_logs() as logs:
            try:
                await service.start(lambda line: None)
                again = await service.watch_certificates()
                shown = generate_latest(service.metrics.registry).decode()
            finally:
                await service.stop()
        assert again == 0
        return logs, shown

    logs, shown = asyncio.run(scenario())
    (told,) = [log for log in logs if log["event"] == "certificate_expires"]
    assert (told["subject"], told["setting"]) == ("CN=GATEWAY", "tls.certificate")
    lines = [line for line in shown.splitlines() if line.startswith("gateway_certificate_expires_seconds{")]
    left = {line.split('certificate="')[1].split('"')[0]: float(line.rsplit(" ", 1)[1]) for line in lines}
    assert len(lines) == 3
    assert 19 * 86_400 < left["CN=GATEWAY"] <= 20 * 86_400
