"""Topics are called the same wherever a gateway is served; `gateway check` asks for its address where others call."""

from pathlib import Path
from typing import Any

import pytest

from gateway.config import load_site
from gateway.edges.store import Store
from gateway.processing import now
from gateway.testing import site
from gateway.wire.fhir_capability import statement
from gateway.wire.fhir_release import Release
from gateway.wire.fhir_topics import NAMES, TOPICS, base_of, canonical, topics, wanted
from gateway.workflow.fhir_topics import publish

_BACKPORT = "http://hl7.org/fhir/uv/subscriptions-backport/StructureDefinition/"


def asked(topic: str) -> dict[str, Any]:
    """A Subscription of R5."""
    return {
        "resourceType": "Subscription", "status": "requested", "topic": topic, "channelType": {"code": "rest-hook"},
        "endpoint": "https://ehr.example/hook",
    }  # fmt: skip


def test_topics_have_the_same_names_at_every_gateway(tmp_path: Path) -> None:
    with Store(f"sqlite:///{tmp_path / 'gateway.db'}") as store:
        store.write(lambda unit: publish(unit, now())).result()
        for release in (Release.R4B, Release.R5):
            held = store.reader.find_resources(release.base, "SubscriptionTopic")
            assert {each.content["url"] for each in held} == {canonical(NAMES, name) for name in TOPICS}
    assert "localhost" not in NAMES


@pytest.mark.parametrize("url", ["http://localhost:8080/fhir/r4", "https://gateway.hospital.example/fhir/r4"])
def test_the_statement_names_them_alike_whatever_it_is_called_by(url: str) -> None:
    (said,) = (
        each for each in statement(Release.R4, url, "2026-07-05", "1")["rest"][0]["resource"]
        if each["type"] == "Subscription"
    )  # fmt: skip
    assert [each["valueCanonical"] for each in said["extension"]] == [canonical(NAMES, name) for name in TOPICS]


@pytest.mark.parametrize("named_by", [NAMES, "http://localhost/fhir", "https://gateway.hospital.example/fhir/r5"])
def test_a_subscription_may_name_a_topic_by_its_name_or_by_an_address(named_by: str) -> None:
    for topic in topics(Release.R5):
        assert wanted(asked(canonical(named_by, topic["id"])), Release.R5).topic == topic["id"]


def test_a_name_is_no_address_of_ours() -> None:
    """Entries of notifications are called by where we are, as the subscriber knows it."""
    name = "order-status"
    assert base_of(wanted(asked(canonical(NAMES, name)), Release.R5)) == ""
    assert base_of(wanted(asked(canonical("https://gateway.example/fhir", name)), Release.R5)).endswith(".example/fhir")


CLIENT = {"name": "ehr", "certificates": ["name:ehr.example"]}
FHIR_URL = {"url": "https://gateway.hospital.example/fhir"}


@pytest.mark.parametrize(
    ("host", "fhir", "doubted"),
    [
        ("192.0.2.1", {"clients": [CLIENT]}, True), ("192.0.2.1", {"clients": [CLIENT], **FHIR_URL}, False),
        ("127.0.0.1", {"clients": [CLIENT]}, False), ("192.0.2.1", {}, False), ("192.0.2.1", None, False),
    ],
    ids=["others, no address", "others, an address", "loopback", "no clients", "no FHIR"],
)  # fmt: skip
def test_check_asks_for_the_address_where_others_call(
    tmp_path: Path, host: str, fhir: dict[str, Any] | None, doubted: bool
) -> None:
    said: dict[str, Any] = {"http": {"host": host, "port": 18080}}
    if fhir is not None:
        said["fhir"] = fhir
    if fhir and "clients" in fhir:
        said["http"] |= {"plain": False, "tls": TLS}
        for each in ("own.pem", "own.key", "ca.pem"):
            (tmp_path / each).touch()
    doubts = [str(each) for each in load_site(site(tmp_path, **said)).doubts]
    assert any("fhir.url" in each for each in doubts) is doubted


TLS = {"port": 18443, "certificate": "own.pem", "key": "own.key", "ca": "ca.pem", "clients": "required"}
