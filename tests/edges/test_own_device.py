"""Our own entry for a directory: what it says is what the configured gateway does."""

from typing import Any

import pytest

from gateway import own_device as module
from gateway.config import Settings
from gateway.domain.directory import Directory, Protocol, Role
from gateway.domain.directory_checks import Findings, check
from gateway.own_device import own_device, unreachable
from gateway.wire import upper_layer

MPPS_NOTIFICATION = "1.2.840.10008.3.1.2.3.5"


def settings(**said: Any) -> Settings:
    return Settings.model_validate({"ae_title": "GATEWAY", **said})


def test_one_ae_offers_what_the_listener_accepts() -> None:
    entry = own_device(settings())
    (ae,) = entry.aes
    offered = {each.sop_class: each.transfer_syntaxes for each in ae.capabilities if each.role is Role.SCP}
    assert entry.name == ae.ae_title == "GATEWAY"
    assert offered == dict.fromkeys(upper_layer.SOP_CLASSES, upper_layer.TRANSFER_SYNTAXES)
    assert ae.acceptor
    assert ae.connections == ("dicom",)


def test_every_listener_is_a_connection_plain_and_tls() -> None:
    entry = own_device(
        settings(
            dicom={"port": 104, "tls": {"port": 2762}},
            hl7=[{"name": "ris", "port": 2575, "plain": False, "tls": {"port": 2576, "profile": "non-downgrading"}}],
        )
    )
    said = [(each.name, each.protocol, each.port, each.tls) for each in entry.connections]
    assert said == [
        ("dicom", Protocol.DICOM, 104, False),
        ("dicom-tls", Protocol.DICOM, 2762, True),
        ("hl7-ris-tls", Protocol.HL7, 2576, True),
    ]
    assert entry.aes[0].connections == ("dicom", "dicom-tls")
    assert "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256" in entry.connections[1].tls_suites


def test_what_listens_everywhere_is_reached_by_the_name_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.socket, "getfqdn", lambda: "gateway.hospital.example")
    assert own_device(settings(dicom={"host": "0.0.0.0"})).connections[0].host == "gateway.hospital.example"  # noqa: S104
    assert own_device(settings(dicom={"host": "10.1.2.3"})).connections[0].host == "10.1.2.3"


def test_others_reach_us_by_the_name_that_is_said() -> None:
    said = settings(devices={"own_host": "gw.hospital.example"}, dicom={"tls": {"port": 2762}}, hl7=[{"name": "ris"}])
    assert {each.host for each in own_device(said).connections} == {"gw.hospital.example"}
    assert not unreachable(own_device(said))


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "localhost.localdomain", "127.0.1.1"])
def test_an_address_that_leads_back_to_whoever_asks_reaches_nobody(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.socket, "getfqdn", lambda: host)
    for listens in (host, "0.0.0.0"):  # noqa: S104  (recognised, not bound)
        (fault,) = unreachable(own_device(settings(dicom={"host": listens})))
        assert host in fault


def test_with_worklists_their_titles_are_called_and_ours_only_calls() -> None:
    entry = own_device(settings(worklists=[{"ae_title": "NORTH_CT", "description": "CT, north"}]))
    said = {ae.ae_title: (ae.initiator, ae.acceptor, ae.description) for ae in entry.aes}
    assert said == {"NORTH_CT": (False, True, "CT, north"), "GATEWAY": (True, False, "")}


def test_destinations_of_performed_steps_are_what_we_are_scu_of() -> None:
    places = [
        {"name": "pacs", "host": "pacs", "port": 104, "performed": {"ae_title": "PACS"}},
        {"name": "ris", "host": "ris", "port": 104,
         "performed": {"ae_title": "RIS", "calling_ae_title": "GATEWAY_N", "sends": "events"}},
        {"name": "ehr", "host": "ehr", "port": 2575, "status": {}},
    ]  # fmt: skip
    entry = own_device(settings(destinations=places))
    asked = {
        ae.ae_title: {(each.sop_class, each.role) for each in ae.capabilities if (each.sop_class, each.role)
                      not in {(uid, Role.SCP) for uid in upper_layer.SOP_CLASSES}}
        for ae in entry.aes
    }  # fmt: skip
    assert asked == {
        "GATEWAY": {(upper_layer.VERIFICATION, Role.SCU), (upper_layer.MPPS, Role.SCU)},
        "GATEWAY_N": {(MPPS_NOTIFICATION, Role.SCP)},
    }


def test_the_directory_may_know_us_by_another_name() -> None:
    ldap = {"servers": ["ldaps://ldap.example"], "bind": "anonymous", "device": "worklist-gateway"}
    assert own_device(settings(devices={"ldap": ldap})).name == "worklist-gateway"


def test_nothing_is_wrong_with_our_own_entry() -> None:
    entry = own_device(settings(dicom={"tls": {"port": 2762}}, worklists=[{"ae_title": "A"}, {"ae_title": "B"}]))
    assert check(Directory((entry,)), "own") == Findings()
