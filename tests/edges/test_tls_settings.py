"""TLS in the configuration: what holds for a listener, and what `gateway check` says of mistakes."""

from pathlib import Path
from typing import Any

import pytest

from gateway.config import ConfigError, load_site
from gateway.security_settings import ListenerTLSSettings, TLSSettings, tls_of
from gateway.testing import free_port, site
from tests.edges.tls_certificates import TestAuthority


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    ca = TestAuthority(tmp_path / "pki")
    own = ca.issue("gateway")
    return {"certificate": own.certificate, "key": own.key, "ca": ca.file}


def problems(tmp_path: Path, **settings: Any) -> list[str]:
    try:
        load_site(site(tmp_path, **settings))
    except ConfigError as error:
        return [str(problem) for problem in error.problems]
    return []


def test_a_listeners_own_block_goes_before_the_one_of_all() -> None:
    common = TLSSettings(certificate="c", key="k", ca="a", crl="r", profile="bcp195-modified", clients="requested")
    assert tls_of(common, ListenerTLSSettings(port=2762)) == common
    own = tls_of(common, ListenerTLSSettings(port=2762, certificate="other", profile="aes-legacy"))
    assert (own.certificate, own.key, own.ca, own.profile) == ("other", "", "a", "aes-legacy")
    trusting = tls_of(common, ListenerTLSSettings(port=2762, ca="theirs"))
    assert (trusting.certificate, trusting.ca, trusting.crl) == ("c", "theirs", "")


def test_nothing_said_is_the_current_profile_with_certificates_required() -> None:
    held = tls_of(TLSSettings(), ListenerTLSSettings(port=2762))
    assert (held.profile, held.clients) == ("bcp195", "required")


def test_a_complete_configuration_has_no_problem(tmp_path: Path, files: dict[str, str]) -> None:
    assert (
        problems(tmp_path, tls=files, dicom={"tls": {"port": free_port()}}, http={"tls": {"port": free_port()}}) == []
    )


@pytest.mark.parametrize("missing", ["certificate", "ca"])
def test_what_a_tls_listener_lacks_is_said_with_its_line(missing: str, tmp_path: Path, files: dict[str, str]) -> None:
    del files[missing]
    (said,) = problems(tmp_path, tls=files, dicom={"tls": {"port": free_port()}})
    assert "dicom.tls" in said
    assert missing in said
    assert "gateway.yaml:" in said


def test_no_authority_is_needed_where_callers_are_not_verified(tmp_path: Path, files: dict[str, str]) -> None:
    del files["ca"]
    assert problems(tmp_path, tls={**files, "clients": "none"}, dicom={"tls": {"port": free_port()}}) == []


@pytest.mark.parametrize("what", ["certificate", "key", "ca", "crl"])
def test_a_file_that_is_not_there_is_said_where_it_is_named(what: str, tmp_path: Path, files: dict[str, str]) -> None:
    (said,) = problems(tmp_path, tls={**files, what: "absent.pem"}, dicom={"tls": {"port": free_port()}})
    assert f"tls.{what}" in said
    assert "there is no file absent.pem" in said


def test_a_listener_that_listens_nowhere_is_said(tmp_path: Path) -> None:
    (said,) = problems(tmp_path, http={"plain": False})
    assert "http.plain" in said
    assert "listens nowhere" in said


def test_two_listeners_on_one_port_are_said(tmp_path: Path, files: dict[str, str]) -> None:
    port = free_port()
    (said,) = problems(tmp_path, tls=files, http={"port": port}, dicom={"tls": {"port": port}})
    assert f"port {port}" in said
    assert "dicom.tls.port" in said


def test_one_port_on_two_addresses_is_no_problem(tmp_path: Path) -> None:
    port = free_port()
    assert problems(tmp_path, http={"port": port, "host": "127.0.0.1"}, dicom={"port": port, "host": "127.0.0.2"}) == []


def test_the_port_of_a_closed_plain_listener_is_free(tmp_path: Path, files: dict[str, str]) -> None:
    port = free_port()
    dicom = {"port": port, "plain": False, "tls": {"port": free_port()}}
    assert problems(tmp_path, tls=files, dicom=dicom, http={"port": port}) == []
