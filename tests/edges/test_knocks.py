"""Who is not let in is remembered where that is wanted, and a person approves it with one command."""

import asyncio
import json
from datetime import UTC, datetime

import pytest
from access_peers import ELSEWHERE, OWN, associated, rejection, reload, secured, until
from command_site import CommandSite
from structlog.testing import capture_logs
from typer.testing import CliRunner

from gateway.cli import cli
from gateway.config import load_site
from gateway.edges.database import StoreUnavailable
from gateway.edges.knock_log import KnockLog
from gateway.edges.store import Store
from gateway.workflow.knocks import Knock

NOT_RECOGNISED = (1, 1, 3)
AT = datetime(2026, 11, 20, 8, tzinfo=UTC)


def commanded(service, *words):
    done = CliRunner().invoke(cli, [*words, "--config", str(service.config)])
    assert done.exit_code == 0, done.output
    return done.output


def listed(service):
    return json.loads(commanded(service, "devices", "knocks", "--json"))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unknown_device_knocks_is_approved_and_served(tmp_path, workers):
    entries = [{"ae_title": "CT1", "addresses": [OWN]}]
    with secured(tmp_path, entries, devices={"unknown": "ask"}, workers=workers) as service:
        for _ in range(2):
            assert rejection(service, "NEWCT") == NOT_RECOGNISED
        with associated(service, "NEWCT") as association:
            assert not association.is_established
        assert rejection(service, "CT1", source=ELSEWHERE) == NOT_RECOGNISED
        until(lambda: sum(each["times"] for each in listed(service)) == 4, service)
        said = {each["ae_title"]: each for each in listed(service)}
        assert (said["NEWCT"]["reason"], said["NEWCT"]["address"], said["NEWCT"]["times"]) == (
            "calling_unknown",
            OWN,
            3,
        )
        assert (said["CT1"]["reason"], said["CT1"]["address"]) == ("address", ELSEWHERE)
        assert said["NEWCT"]["implementation_version"].startswith("PYNETDICOM")
        answer = commanded(service, "devices", "approve", "NEWCT", "--here", "--group", "CT", "--may", "worklist")
        assert "SIGHUP" in answer
        reload(service, workers)
        assert rejection(service, "NEWCT") is None
        assert rejection(service, "NEWCT", source=ELSEWHERE) == NOT_RECOGNISED
        until(lambda: {(each["ae_title"], each["address"]) for each in listed(service)}
              == {("CT1", ELSEWHERE), ("NEWCT", ELSEWHERE)}, service)  # fmt: skip
        device = load_site(service.config).devices.known["NEWCT"]
        assert (device.group, [str(each) for each in device.access.may]) == ("CT", ["worklist"])


def test_where_unknown_devices_are_only_rejected_nobody_is_remembered_but_misused_titles_are(tmp_path):
    with secured(tmp_path, [{"ae_title": "CT1", "addresses": [OWN]}]) as service:
        assert rejection(service, "NEWCT") == NOT_RECOGNISED
        assert rejection(service, "CT1", source=ELSEWHERE) == NOT_RECOGNISED
        until(lambda: listed(service), service)
        assert [each["ae_title"] for each in listed(service)] == ["CT1"]


# The commands, without a service


REGISTRY = """\
# Our devices; ask Ann before you change one.
devices:
  # the old one in the basement
  - ae_title: CT1
    addresses: [10.0.0.1]  # by the port of the switch
  - {ae_title: US1}
"""


def knock(ae_title="NEWCT", address="10.0.0.9", **said):
    values = {"called_ae_title": "GATEWAY", "reason": "calling_unknown", "first_at": AT, "last_at": AT}
    return Knock(ae_title, address, **values | said)


@pytest.fixture
def gateway(tmp_path):
    commands = CommandSite(tmp_path / "site")
    (commands.folder / "devices.yaml").write_text(REGISTRY)
    return commands


def remember(gateway, *knocks):
    with Store(load_site(gateway.config).store_url) as store:
        store.write(lambda unit: unit.add_knocks(knocks)).result(timeout=10)


def held(gateway):
    with Store(load_site(gateway.config).store_url) as store:
        return [(each.ae_title, each.address) for each in store.reader.knocks()]


def test_an_approval_is_an_entry_at_the_end_and_every_comment_stays(gateway):
    remember(gateway, knock(), knock("OTHER"))
    done = gateway("devices", "approve", "NEWCT", "--description", "CT of room 4")
    assert done.exit_code == 0, done.output
    assert "from any address" in done.output
    added = "  - ae_title: NEWCT\n    description: CT of room 4\n"
    lines = (gateway.folder / "devices.yaml").read_text()
    assert lines == REGISTRY + added
    assert held(gateway) == [("OTHER", "10.0.0.9")]
    assert "NEWCT" in load_site(gateway.config).devices.known


def test_a_certificate_is_pinned_only_where_one_was_shown(gateway):
    remember(gateway, knock(), knock("NEWMR", fingerprint="ab" * 32, common_name="MR", tls=True))
    refused = gateway("devices", "approve", "NEWCT", "--certificate")
    assert refused.exit_code == 1
    assert "showed no certificate" in refused.output
    done = gateway("devices", "approve", "NEWMR", "--certificate")
    assert done.exit_code == 0
    assert "certificate of MR, shown at 10.0.0.9:\nsha256:" + "ab" * 32 in done.output
    (rule,) = load_site(gateway.config).devices.known["NEWMR"].access.certificates
    assert rule.value == "ab" * 32


def test_of_several_certificates_shown_at_one_address_a_person_says_which_is_the_devices(gateway):
    own, other = knock(fingerprint="ab" * 32, common_name="CT9"), knock(fingerprint="cd" * 32, common_name="evil")
    remember(gateway, own, other, knock())
    refused = gateway("devices", "approve", "NEWCT", "--certificate")
    assert refused.exit_code == 1
    assert "CT9 (1 times)  sha256:" + "ab" * 32 in refused.output
    assert "evil (1 times)  sha256:" + "cd" * 32 in refused.output
    assert gateway("devices", "approve", "NEWCT", "--fingerprint", "ef" * 32).exit_code == 1
    assert (gateway.folder / "devices.yaml").read_text() == REGISTRY
    written = ":".join(["AB"] * 32)
    done = gateway("devices", "approve", "NEWCT", "--fingerprint", f"sha256:{written}", "--here")
    assert done.exit_code == 0, done.output
    assert "the address 10.0.0.9" in done.output
    (rule,) = load_site(gateway.config).devices.known["NEWCT"].access.certificates
    assert rule.value == "ab" * 32
    with Store(load_site(gateway.config).store_url) as store:
        assert {each.fingerprint for each in store.reader.knocks()} == {"cd" * 32, ""}


def test_several_certificates_matter_only_where_one_is_pinned(gateway):
    remember(gateway, knock(fingerprint="ab" * 32), knock(fingerprint="cd" * 32))
    assert gateway("devices", "approve", "NEWCT", "--here").exit_code == 0
    assert held(gateway) == []


def test_a_device_that_was_moved_may_come_from_its_new_address_too(gateway):
    remember(gateway, knock("CT1", "10.0.0.7", reason="address"))
    refused = gateway("devices", "approve", "CT1")
    assert refused.exit_code == 1
    assert "--here" in refused.output
    assert gateway("devices", "approve", "CT1", "--here", "--group", "CT").exit_code == 1
    assert (gateway.folder / "devices.yaml").read_text() == REGISTRY
    assert gateway("devices", "approve", "CT1", "--here").exit_code == 0
    networks = load_site(gateway.config).devices.known["CT1"].access.networks
    assert [str(each) for each in networks] == ["10.0.0.1/32", "10.0.0.7/32"]
    assert "# by the port of the switch" in (gateway.folder / "devices.yaml").read_text()
    assert held(gateway) == []


def test_a_title_that_knocked_from_several_places_is_approved_only_for_a_named_one(gateway):
    remember(gateway, knock(), knock(address="10.0.0.10", times=7))
    refused = gateway("devices", "approve", "NEWCT", "--here")
    assert refused.exit_code == 1
    assert "10.0.0.10 (7 times)" in refused.output
    assert gateway("devices", "approve", "NEWCT", "--here", "--from", "10.0.0.10").exit_code == 0
    assert held(gateway) == [("NEWCT", "10.0.0.9")]


@pytest.mark.parametrize("wrong", [("--profile", "none-such"), ("--may", "everything")])
def test_an_approval_that_could_not_be_served_changes_nothing(gateway, wrong):
    remember(gateway, knock())
    assert gateway("devices", "approve", "NEWCT", *wrong).exit_code != 0
    assert (gateway.folder / "devices.yaml").read_text() == REGISTRY
    assert held(gateway) == [("NEWCT", "10.0.0.9")]


def test_what_is_dismissed_is_forgotten_and_who_never_knocked_is_said(gateway):
    remember(gateway, knock(), knock(address="10.0.0.10"))
    assert gateway("devices", "dismiss", "NEWCT").exit_code == 0
    assert held(gateway) == []
    for command in ("approve", "dismiss"):
        done = gateway("devices", command, "NEWCT")
        assert done.exit_code == 1
        assert "did not knock" in done.output


def test_the_list_says_why_in_words(gateway):
    remember(gateway, knock("CT1", "10.0.0.7", reason="address", fingerprint="ab" * 32, common_name="CT1"))
    shown = gateway("devices", "knocks").output
    assert "an address that is not its own" in shown
    assert "10.0.0.7" in shown


# The log beside the service


def test_knocks_that_cannot_be_written_now_wait_and_are_said_once(tmp_path):
    class Failing:
        def __init__(self, store):
            self.store, self.failing = store, True

        def write(self, use_case):
            def fail(unit):
                raise StoreUnavailable("no")

            return self.store.write(fail if self.failing else use_case)

    async def scene():
        with Store(f"sqlite:///{tmp_path / 'gateway.db'}") as store:
            failing = Failing(store)
            log = KnockLog(failing, interval_s=3600)
            with capture_logs() as said:
                for _ in range(2):
                    log.add(knock())
                    await log.flush()
            assert log.waiting == 1
            failing.failing = False
            await log.close()
            assert [(each.ae_title, each.times) for each in store.reader.knocks()] == [("NEWCT", 2)]
            return said

    said = asyncio.run(scene())
    assert [each["event"] for each in said if each["event"] == "knocks_not_kept"] == ["knocks_not_kept"]
