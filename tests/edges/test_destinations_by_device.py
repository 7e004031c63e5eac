"""Destinations that the directory of devices says where to find."""

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.config import ConfigError, Site, load_site, with_snapshot
from gateway.destinations import DestinationSettings, DestinationTLS, NotInDirectory, addressed, follows, reloaded
from gateway.domain.directory import DeviceEntry, Directory, NetworkAE, NetworkConnection, Protocol
from gateway.outgoing import audience_of
from gateway.testing import site

SUITES = ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",)
PLAIN = NetworkConnection("dicom", "pacs.example", 104)
ENCRYPTED = NetworkConnection("dicom-tls", "pacs.example", 2762, SUITES)
HL7 = NetworkConnection("hl7", "ris.example", 2575, protocol=Protocol.HL7)
OUR_CA = DestinationTLS(ca="hospital.pem")


def pacs(*connections: NetworkConnection, **said: Any) -> Directory:
    ae = NetworkAE("PACS1", tuple(each.name for each in connections), **{"acceptor": True} | said)
    return Directory((DeviceEntry("archive", connections=connections, aes=(ae,)),))


def destination(**said: Any) -> DestinationSettings:
    return DestinationSettings.model_validate({"name": "pacs", "device": "PACS1", "performed": {}} | said)


def test_a_dicom_destination_has_host_port_and_title_of_its_ae() -> None:
    found = addressed(destination(), pacs(PLAIN), None)
    assert (found.host, found.port, found.tls) == ("pacs.example", 104, None)
    assert found.performed is not None
    assert found.performed.ae_title == "PACS1"
    assert found.whereabouts == "pacs.example:104"


def test_a_title_of_its_own_is_kept() -> None:
    found = addressed(destination(performed={"ae_title": "ARCHIVE"}), pacs(PLAIN), None)
    assert found.performed is not None
    assert found.performed.ae_title == "ARCHIVE"


def test_tls_goes_first_where_its_certificate_can_be_checked() -> None:
    found = addressed(destination(), pacs(PLAIN, ENCRYPTED), OUR_CA)
    assert (found.port, found.tls) == (2762, OUR_CA)
    assert addressed(destination(), pacs(PLAIN, ENCRYPTED), None).port == 104
    own = addressed(destination(tls={"ca": "archive.pem"}), pacs(PLAIN, ENCRYPTED), OUR_CA)
    assert (own.port, own.tls) == (2762, DestinationTLS(ca="archive.pem"))


def test_an_hl7_destination_is_a_device_with_an_hl7_connection() -> None:
    directory = Directory((DeviceEntry("ris-1", connections=(PLAIN, HL7)),))
    found = addressed(destination(device="ris-1", performed=None, status={}), directory, None)
    assert (found.host, found.port) == ("ris.example", 2575)
    assert addressed(destination(device="RIS-1", performed=None, status={}), directory, None).host == "ris.example"


@pytest.mark.parametrize(
    ("said", "directory", "words"),
    [
        ({"device": "PACS2"}, pacs(PLAIN), "no AE title 'PACS2'"),
        ({}, pacs(PLAIN, acceptor=False), "takes no associations"),
        ({}, pacs(PLAIN, installed=False), "takes no associations"),
        ({}, pacs(NetworkConnection("dicom", "pacs.example")), "takes no associations"),
        ({}, pacs(NetworkConnection("dicom", "pacs.example", 104, installed=False)), "takes no associations"),
        ({}, pacs(ENCRYPTED), "nothing but TLS"),
        ({"tls": {"ca": "archive.pem"}}, pacs(PLAIN), "takes no TLS"),
        ({"device": "ris-2", "performed": None}, pacs(PLAIN), "no device 'ris-2'"),
        ({"device": "archive", "performed": None}, pacs(PLAIN), "takes no HL7"),
    ],
)
def test_what_the_directory_does_not_say_is_refused_in_words(
    said: dict[str, Any], directory: Directory, words: str
) -> None:  # fmt: skip
    with pytest.raises(NotInDirectory, match=words) as refused:
        addressed(destination(**said), directory, None)
    assert refused.value.hint


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"host": "pacs.example", "port": 104}, "`device` says where it is"),
        ({"device": ""}, "say where it is"),
        ({"device": "", "host": "pacs.example", "port": 104}, "`ae_title`"),
    ],
)
def test_an_address_is_said_once(said: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        destination(**said)


def test_a_running_destination_goes_where_the_directory_says_and_stays_where_a_file_says() -> None:
    before = addressed(destination(), pacs(PLAIN), None)
    after = addressed(destination(pause_s=2), pacs(NetworkConnection("dicom", "new.example", 11112)), None)
    assert follows(before, after)
    assert reloaded([before], [after]) == (after,)
    fixed = destination(device="", host="pacs.example", port=104, performed={"ae_title": "PACS1"})
    assert not follows(fixed, after)
    assert [each.host for each in reloaded([fixed], [after])] == ["pacs.example"]


# ---- in a site -------------------------------------------------------------------------------------------------------

PERFORMED = {"name": "pacs", "device": "PACS1", "performed": {"sends": "events"}}
LDAP = {"servers": ["ldap://127.0.0.1:9"], "plain": True, "bind": "anonymous"}


def with_file(folder: Path, devices: str) -> Path:
    (folder / "devices.yaml").write_text(devices)
    return site(folder, devices={"file": "devices.yaml"}, destinations=[PERFORMED])


def with_ldap(folder: Path, *devices: dict[str, Any]) -> Path:
    keep(folder, *devices)
    return site(folder, devices={"ldap": LDAP, "unknown": "reject"}, destinations=[PERFORMED])


def keep(folder: Path, *devices: dict[str, Any]) -> None:
    (folder / "devices-ldap.json").write_text(json.dumps({"devices": devices}))


def only(found: Site) -> DestinationSettings:
    (place,) = found.settings.destinations
    return place


def test_a_site_has_its_destinations_addressed(tmp_path: Path) -> None:
    found = load_site(with_file(tmp_path, "devices: [{ae_title: PACS1, host: pacs.example, port: 104}]\n"))
    assert only(found).whereabouts == "pacs.example:104"
    assert found.destinations_said[0].host == ""


def test_an_unknown_device_is_a_problem_with_its_line_and_the_nearest_name(tmp_path: Path) -> None:
    config = with_file(tmp_path, "devices: [{ae_title: PACS2, host: pacs.example, port: 104}]\n")
    with pytest.raises(ConfigError) as refused:
        load_site(config)
    (problem,) = refused.value.problems
    line = next(number for number, text in enumerate(config.read_text().splitlines(), 1) if "device: PACS1" in text)
    assert (problem.source, problem.path, problem.line) == ("gateway.yaml", "destinations.0.device", line)
    assert problem.hint == "did you mean PACS2?"


def test_what_ldap_does_not_have_yet_waits_and_is_a_doubt(tmp_path: Path) -> None:
    found = load_site(with_ldap(tmp_path))
    assert not only(found).is_addressed
    assert only(found).whereabouts == "PACS1, not in the directory yet"
    assert [each.path for each in found.doubts] == ["destinations.0.device"]
    assert [each.destination for each in audience_of(found).performed] == ["pacs"]  # so its messages are kept


def test_a_destination_that_ldap_has_lost_stays_where_it_was(tmp_path: Path) -> None:
    found = load_site(with_ldap(tmp_path, {"ae_title": "PACS1", "host": "pacs.example", "port": 104}))
    keep(tmp_path, {"ae_title": "PACS1", "host": "new.example", "port": 105})
    moved = with_snapshot(found)
    assert only(moved).whereabouts == "new.example:105"
    keep(tmp_path, {"ae_title": "CT1"})
    lost = with_snapshot(moved)
    assert only(lost).whereabouts == "new.example:105"
    assert lost.devices.known.keys() == {"CT1"}
    assert [each.path for each in lost.doubts] == ["destinations.0.device"]
