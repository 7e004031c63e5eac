"""A running gateway whose devices are those of a real LDAP server, and the commands that move them."""

import contextlib
import json
import os
import resource
import signal
import stat
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from ruamel.yaml import YAML
from typer.testing import CliRunner

from gateway.cli import cli
from gateway.config import ConfigError, load_site
from gateway.domain.directory import DeviceEntry, Directory, NetworkAE, NetworkConnection, Rules
from gateway.domain.directory_diff import differences
from gateway.domain.directory_loss import Roll
from gateway.edges.ldap_changes import entries_of
from gateway.edges.ldap_directory import LDAPDirectory, LDAPFailed, Mark
from gateway.edges.ldap_process import DirectoryProcess
from gateway.edges.ldif import ldif_record
from gateway.own_device import own_device
from gateway.snapshot import write_snapshot
from gateway.testing import ServiceProcess, SimulatedModality, SimulatedRIS, bare_orm, site
from gateway.wire.distinguished_names import parse_dn
from tests.edges.test_service import order
from tests.ldap.slapd import (
    ADMIN,
    BASE,
    DEVICES,
    PASSWORD,
    READER,
    READER_PASSWORD,
    Slapd,
    slapd,
)

pytestmark = pytest.mark.interop

CT1 = DeviceEntry("ct-emergency", connections=(NetworkConnection("dicom", "ct1.example", 104),), aes=(
    NetworkAE("CT1", ("dicom",), initiator=True, acceptor=False),
))  # fmt: skip


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Slapd]:
    with slapd(tmp_path / "ldap") as running:
        LDAPDirectory(running.access).write_device(CT1)
        yield running


def settings_of(server: Slapd, **more: Any) -> dict[str, Any]:
    """`devices.ldap` of a gateway that looks every second."""
    access = server.access
    said = {"servers": list(access.servers), "base": BASE, "user": ADMIN, "password": PASSWORD, "ca": access.ca}
    return {**said, "refresh_s": 1, "timeout_s": 10, **more}


def gateway_site(folder: Path, server: Slapd, *, use: bool = True, **more: Any) -> Path:
    devices = {"ldap": settings_of(server, use=use), "unknown": "reject", "own_host": "gateway.example"}
    return site(folder / "site", devices=devices if use else {**devices, "file": "devices.yaml"}, **more)


def scanner(name: str, title: str, **rules: Any) -> DeviceEntry:
    connection = NetworkConnection("dicom", f"{name}.example", 104)
    return DeviceEntry(name, connections=(connection,), aes=(NetworkAE(title, ("dicom",), rules=Rules(**rules)),))


def is_let_in(service: ServiceProcess, ae_title: str) -> bool:
    try:
        SimulatedModality(service.host, service.dicom_port, ae_title).echo()
    except ConnectionError:
        return False
    return True


def until(condition: Callable[[], bool], service: ServiceProcess) -> None:
    """Another process cannot be awaited, only asked; it does what is asked in seconds or never."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, service.output.read_text()[-3000:]
        time.sleep(0.05)


def events(service: ServiceProcess, name: str) -> list[dict[str, Any]]:
    lines = service.output.read_text().splitlines()
    return [event for event in (json.loads(line) for line in lines if line.startswith("{")) if event["event"] == name]


def metric(service: ServiceProcess, name: str) -> float:
    with urllib.request.urlopen(f"http://{service.host}:{service.http_port}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    (value,) = [float(line.split()[1]) for line in lines if line.startswith(name)]
    return value


# ---- the service -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 1])
def test_a_device_is_let_in_once_it_is_in_the_directory(tmp_path: Path, server: Slapd, workers: int) -> None:
    with ServiceProcess(gateway_site(tmp_path, server, workers=workers), ready_s=90) as service:
        until(lambda: is_let_in(service, "CT1"), service)
        assert not is_let_in(service, "MR1")
        LDAPDirectory(server.access).write_device(scanner("mr", "MR1"))
        until(lambda: is_let_in(service, "MR1"), service)
        LDAPDirectory(server.access).delete_device("mr")
        until(lambda: not is_let_in(service, "MR1"), service)
        assert is_let_in(service, "CT1")
        assert metric(service, "gateway_directory_refresh_failed") == 0
        assert metric(service, "gateway_directory_age_seconds") < 60
        until(lambda: len(events(service, "directory_changed")) >= 3, service)  # it is said after it is served
        assert [each["some"] for each in events(service, "directory_changed")] == [["ct-emergency"], ["mr"], ["mr"]]
        assert PASSWORD not in service.output.read_text()


def test_without_the_server_the_last_good_directory_serves_on_also_after_a_restart(
    tmp_path: Path, server: Slapd
) -> None:  # fmt: skip
    config = gateway_site(tmp_path, server)
    with ServiceProcess(config) as service:
        assert is_let_in(service, "CT1")  # it waited for the directory before it served DICOM
        server.stop()
        until(lambda: metric(service, "gateway_directory_refresh_failed") == 1, service)
        assert is_let_in(service, "CT1")
        service.restart()
        assert is_let_in(service, "CT1")
        assert not is_let_in(service, "MR1")
        with SimulatedRIS(service.host, service.hl7_port, "R1") as ris:
            assert ris.send(bare_orm(order(1))).code == "AA"
        until(lambda: len(events(service, "directory_unavailable")) == 2, service)  # once in each life
    assert stat.S_IMODE((tmp_path / "site" / "devices-ldap.json").stat().st_mode) == 0o600


def test_a_server_that_hangs_delays_neither_the_start_nor_the_stop(tmp_path: Path, server: Slapd) -> None:
    config = gateway_site(tmp_path, server)
    with ServiceProcess(config) as service:
        assert is_let_in(service, "CT1")
        server.pause()
        service.restart()  # would raise if it had to be killed
        assert is_let_in(service, "CT1")
        server.resume()
        until(lambda: metric(service, "gateway_directory_refresh_failed") == 0, service)


def test_a_gateway_without_any_directory_takes_orders_and_goes_on_trying(tmp_path: Path, server: Slapd) -> None:
    server.pause()
    config = gateway_site(tmp_path, server)
    with ServiceProcess(config, ready_s=60) as service:
        with SimulatedRIS(service.host, service.hl7_port, "R1") as ris:
            assert ris.send(bare_orm(order(1))).code == "AA"
        assert not is_let_in(service, "CT1")
        until(lambda: bool(events(service, "directory_unavailable")), service)
        assert events(service, "directory_unavailable")[0]["served_by"] == "no device: none was ever read"
        server.resume()
        until(lambda: is_let_in(service, "CT1"), service)
        until(lambda: bool(events(service, "directory_good_again")), service)


def test_one_ae_title_of_two_devices_is_refused_and_what_was_stays(tmp_path: Path, server: Slapd) -> None:
    with ServiceProcess(gateway_site(tmp_path, server)) as service:
        assert is_let_in(service, "CT1")
        LDAPDirectory(server.access).write_device(scanner("mr", "MR1"))
        until(lambda: is_let_in(service, "MR1"), service)
        server.load(TWICE)  # by a tool that knows nothing of the registry of unique AE titles
        until(lambda: bool(events(service, "directory_refused")), service)
        assert is_let_in(service, "CT1")
        assert is_let_in(service, "MR1")
        (problem,) = events(service, "directory_problem")
        assert "CT1 is listed twice" in problem["text"]
        assert {"ct-emergency", "ct-other"} <= set(problem["text"].replace(",", "").split())
        assert metric(service, "gateway_directory_refresh_failed") == 1
        service.restart()
        assert is_let_in(service, "CT1")
        LDAPDirectory(server.access).delete_device("ct-emergency")
        until(lambda: metric(service, "gateway_directory_refresh_failed") == 0, service)


TWICE = f"""\
dn: dicomDeviceName=ct-other,{DEVICES}
objectClass: dicomDevice
dicomDeviceName: ct-other
dicomInstalled: TRUE

dn: cn=dicom,dicomDeviceName=ct-other,{DEVICES}
objectClass: dicomNetworkConnection
cn: dicom
dicomHostname: other.example

dn: dicomAETitle=CT1,dicomDeviceName=ct-other,{DEVICES}
objectClass: dicomNetworkAE
dicomAETitle: CT1
dicomNetworkConnectionReference: cn=dicom,dicomDeviceName=ct-other,{DEVICES}
dicomAssociationInitiator: TRUE
dicomAssociationAcceptor: FALSE
"""


@pytest.mark.parametrize("workers", [0, 1])
def test_sighup_reads_the_directory_at_once(tmp_path: Path, server: Slapd, workers: int) -> None:
    config = gateway_site(tmp_path, server, workers=workers)
    settings = YAML(typ="safe").load(config.read_text())
    settings["devices"]["ldap"]["refresh_s"] = 3600
    with config.open("w") as file:
        YAML().dump(settings, file)
    with ServiceProcess(config, ready_s=90) as service:
        until(lambda: is_let_in(service, "CT1"), service)
        LDAPDirectory(server.access).write_device(scanner("mr", "MR1"))
        os.kill(service.pid, signal.SIGHUP)
        until(lambda: is_let_in(service, "MR1"), service)


def test_what_bounds_a_device_in_the_directory_bounds_it_at_the_door(tmp_path: Path, server: Slapd) -> None:
    with ServiceProcess(gateway_site(tmp_path, server)) as service:
        LDAPDirectory(server.access).write_device(scanner("mr", "MR1", addresses=("192.0.2.0/24",)))
        LDAPDirectory(server.access).write_device(scanner("us", "US1", addresses=("127.0.0.0/8",)))
        until(lambda: is_let_in(service, "US1"), service)
        assert not is_let_in(service, "MR1")


def test_worklists_are_answered_while_ten_thousand_devices_are_read(tmp_path: Path) -> None:
    many = (CT1, *(scanner(f"mr{number:05}", f"MR{number:05}") for number in range(10_000)))
    below = parse_dn(DEVICES)
    entries = "\n".join(ldif_record(entry) for device in many for entry in entries_of(device, below))
    with slapd(tmp_path / "ldap", entries=entries) as running:
        config = gateway_site(tmp_path, running)
        write_snapshot(config.parent / "devices-ldap.json", Directory((CT1,)))
        with ServiceProcess(config) as service:
            answered = 0
            while not events(service, "directory_changed"):
                assert SimulatedModality(service.host, service.dicom_port, "CT1").worklist() == []
                answered += 1
                assert not events(service, "directory_unavailable"), service.output.read_text()
            assert answered
            until(lambda: is_let_in(service, "MR09999"), service)
            assert events(service, "directory_changed")[0]["devices"] == 10_001


def test_a_directory_is_taken_apart_in_another_process(tmp_path: Path) -> None:
    """What the event loop's process spends is what it takes to load the result: a small part of the work."""
    many = tuple(scanner(f"mr{number:05}", f"MR{number:05}") for number in range(2_000))
    below = parse_dn(DEVICES)
    entries = "\n".join(ldif_record(entry) for device in many for entry in entries_of(device, below))
    with slapd(tmp_path / "ldap", entries=entries) as running:
        ours = resource.getrusage(resource.RUSAGE_SELF).ru_utime
        theirs = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        found = DirectoryProcess(running.access).snapshot(Roll())
        ours = resource.getrusage(resource.RUSAGE_SELF).ru_utime - ours
        theirs = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - theirs
        assert found.directory == Directory(many)
        assert ours < theirs / 2


@pytest.mark.parametrize("sync", [True, False])
def test_the_process_says_what_the_client_says(tmp_path: Path, sync: bool) -> None:
    with slapd(tmp_path / "ldap", sync=sync) as running:
        LDAPDirectory(running.access).write_device(CT1)
        reader = replace(running.access, user=READER, password=READER_PASSWORD)
        apart, client = DirectoryProcess(reader), LDAPDirectory(reader)
        found = apart.snapshot(Roll())
        assert found == client.snapshot()
        assert bool(found.mark.suffix) is sync
        for walks_far in (False, True):
            apart._walks_far = walks_far
            assert apart.mark(found.mark) == apart.mark(Mark("another")) == client.mark() == found.mark
        with pytest.raises(LDAPFailed, match=r"is not believed: 8 of the 8 devices|none of the 8 AE titles|gone"):
            apart.snapshot(Roll(frozenset("abcdefgh")))
        LDAPDirectory(running.access).write_device(scanner("mr", "MR1"))
        assert apart.mark(found.mark) == client.mark() != found.mark
        with pytest.raises(LDAPFailed, match="wrong user or password"):
            DirectoryProcess(replace(reader, password="guessed")).snapshot(Roll())  # noqa: S106


def test_the_process_ends_with_whoever_asked(tmp_path: Path, server: Slapd) -> None:
    server.pause()
    with ServiceProcess(gateway_site(tmp_path, server)) as service:
        until(lambda: bool(readers_of(service.pid)), service)
        (reader,) = readers_of(service.pid)
        service.kill()
        until(lambda: not Path(f"/proc/{reader}").exists(), service)


def readers_of(parent: int) -> list[int]:
    """The processes in which a service reads its directory."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (folder / "cmdline").read_bytes().split(b"\0")
            state = (folder / "stat").read_text().rpartition(")")[2].split()
            if b"gateway.edges.ldap_process" in words and int(state[1]) == parent:
                found.append(int(folder.name))
    return found


def test_an_entry_that_cannot_be_read_is_no_stranger(tmp_path: Path) -> None:
    """Both are let in nowhere, but differently: one is known, so that it is never listed for approval."""
    lost = f"dn: dicomAETitle=XA1,{DEVICES}\nobjectClass: dicomNetworkAE\ndicomAETitle: XA1\n"
    with slapd(tmp_path / "ldap", entries=lost, relaxed=True) as running:
        LDAPDirectory(running.access).write_device(CT1)
        config = gateway_site(tmp_path, running)
        with ServiceProcess(config) as service:
            until(lambda: is_let_in(service, "CT1"), service)
            assert not is_let_in(service, "XA1")
        known = load_site(config).devices.known
        assert {title: known[title].installed for title in known} == {"CT1": True, "XA1": False}


@pytest.mark.parametrize("workers", [0, 1])
def test_a_directory_that_is_emptied_is_served_on_until_a_person_accepts_it(
    tmp_path: Path, server: Slapd, workers: int
) -> None:  # fmt: skip
    config = gateway_site(tmp_path, server, workers=workers)
    with ServiceProcess(config, ready_s=90) as service:
        until(lambda: is_let_in(service, "CT1"), service)
        LDAPDirectory(server.access).delete_device("ct-emergency")
        until(lambda: metric(service, "gateway_directory_refresh_failed") == 1, service)
        service.restart()
        until(lambda: len(events(service, "directory_unavailable")) == 2, service)
        assert is_let_in(service, "CT1")
        assert "none of the 1 devices that were there before" in events(service, "directory_unavailable")[-1]["why"]
        preview = said(config, "accept")
        assert (preview["done"], [each["change"] for each in preview["changes"]]) == (False, ["removed"])
        assert said(config, "accept", "--yes")["done"]
        os.kill(service.pid, signal.SIGHUP)
        until(lambda: not is_let_in(service, "CT1"), service)
        until(lambda: metric(service, "gateway_directory_refresh_failed") == 0, service)
    snapshot = config.parent / "devices-ldap.json"
    assert "CT1" in snapshot.with_name("devices-ldap.json.bak").read_text()
    assert "CT1" not in snapshot.read_text()


# ---- the commands ----------------------------------------------------------------------------------------------------


def run(config: Path, *words: str) -> Result:
    result = CliRunner().invoke(cli, ["devices", *words, "--config", str(config)])
    assert PASSWORD not in result.output
    return result


def said(config: Path, *words: str) -> Any:
    result = run(config, *words, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_pull_and_push_carry_a_registry_there_and_back(tmp_path: Path, server: Slapd) -> None:
    config = gateway_site(tmp_path, server, use=False)
    file = tmp_path / "site" / "devices.yaml"
    file.write_text("devices: []\n")
    preview = said(config, "pull")
    assert (preview["done"], [each["device"] for each in preview["changes"]]) == (False, ["ct-emergency"])
    assert file.read_text() == "devices: []\n"
    assert said(config, "pull", "--yes")["done"]
    assert file.with_name("devices.yaml.bak").read_text() == "devices: []\n"
    assert said(config, "pull", "--yes") == {"done": False, "changes": []}
    assert said(config, "push") == {"done": False, "changes": []}

    more = "  - {ae_title: MR1, host: mr.example, port: 104, group: MR, sees: own, addresses: [10.1.2.0/24]}  # new\n"
    file.write_text(file.read_text() + more)
    (added,) = said(config, "push")["changes"]
    assert (added["device"], added["change"]) == ("MR1", "added")
    assert [each.name for each in LDAPDirectory(server.access).read().devices] == ["ct-emergency"]
    assert said(config, "push", "--yes")["done"]
    there = LDAPDirectory(server.access)
    assert differences(there.read(), load_site(config).directory) == ()
    assert there.reserved() == ("CT1", "MR1")
    assert said(config, "push", "--yes") == {"done": False, "changes": []}
    assert said(config, "pull", "--yes") == {"done": False, "changes": []}
    assert more in file.read_text()

    file.write_text(f"devices:\n{more}".replace("mr.example", "mr2.example"))
    changes = [(each["device"], each["change"], each["after"]) for each in said(config, "push")["changes"]]
    assert changes == [("MR1", "changed", "mr2.example")]
    assert run(config, "push", "--yes").exit_code == 0
    assert {each.name for each in there.read().devices} == {"ct-emergency", "MR1"}
    assert run(config, "push", "--yes", "--delete").exit_code == 0
    assert {each.name for each in there.read().devices} == {"MR1"}
    assert there.reserved() == ("MR1",)


def test_push_refuses_what_would_be_ambiguous_or_wrong_and_changes_nothing(tmp_path: Path, server: Slapd) -> None:
    config = gateway_site(tmp_path, server, use=False)
    (tmp_path / "site" / "devices.yaml").write_text("devices: []\n")
    other = tmp_path / "other.yaml"
    other.write_text("devices: [{ae_title: CT1, name: ct-new}, {ae_title: MR1}]\n")
    refused = run(config, "push", "--yes", "--from", str(other))
    assert refused.exit_code == 1
    assert "CT1 is listed twice" in refused.output
    other.write_text("devices: [{ae_title: MR1, colour: red}]\n")
    refused = run(config, "push", "--yes", "--from", str(other))
    assert (refused.exit_code, "colour" in refused.output) == (1, True)
    other.write_text("devices: [{ae_title: MR1, profile: nobody}]\n")
    refused = run(config, "push", "--yes", "--from", str(other))
    assert (refused.exit_code, "no profile nobody" in refused.output) == (1, True)
    assert [each.name for each in LDAPDirectory(server.access).read().devices] == ["ct-emergency"]


def test_what_was_published_is_read_back_as_our_own_entry(tmp_path: Path, server: Slapd) -> None:
    config = gateway_site(tmp_path, server)
    assert not said(config, "publish")["done"]
    assert said(config, "publish", "--yes")["done"]
    own = own_device(load_site(config).settings)
    (found,) = LDAPDirectory(server.access).find(device=own.name)
    assert differences(Directory((found,)), Directory((own,))) == ()
    assert said(config, "publish", "--yes") == {"done": False, "changes": []}
    titles = {each["ae_title"]: each for each in said(config, "titles")}
    assert titles["GATEWAY"] == {"ae_title": "GATEWAY", "device": "GATEWAY", "reserved": True}
    with ServiceProcess(config) as service:
        assert is_let_in(service, "CT1")
        assert not is_let_in(service, "GATEWAY")  # nobody else calls himself as we do


def test_ae_titles_are_reserved_once_and_released_when_nobody_has_them(tmp_path: Path, server: Slapd) -> None:
    config = gateway_site(tmp_path, server, use=False)
    file = tmp_path / "site" / "devices.yaml"
    file.write_text("devices: [{ae_title: MR1, host: mr.example}]\n")
    assert run(config, "reserve", "MR1").exit_code == 0
    assert run(config, "reserve", "MR1").exit_code == 1
    assert run(config, "release", "CT1").exit_code == 1  # a device has it
    taken = run(config, "push", "--yes")
    assert (taken.exit_code, "reserved" in taken.output) == (1, True)
    assert run(config, "push", "--yes", "--reserved", "MR1").exit_code == 0
    assert run(config, "release", "US9").exit_code == 1  # nobody reserved it
    assert run(config, "reserve", "US9").exit_code == 0
    assert {each["ae_title"]: each["device"] for each in said(config, "titles")} == {
        "CT1": "ct-emergency", "MR1": "MR1", "US9": "",
    }  # fmt: skip
    assert run(config, "release", "US9").exit_code == 0


def test_ldif_of_the_registry_fills_an_empty_server(tmp_path: Path, server: Slapd) -> None:
    config = gateway_site(tmp_path, server, use=False)
    file = tmp_path / "site" / "devices.yaml"
    file.write_text("devices: [{ae_title: MR1, host: mr.example, port: 104}, {ae_title: US1, host: us.example}]\n")
    printed = run(config, "ldif")
    assert printed.exit_code == 0
    with slapd(tmp_path / "second", entries="") as empty:
        devices = printed.stdout.partition("dn: dicomDeviceName=")
        empty.load("dn: dicomDeviceName=" + devices[2])
        assert differences(load_site(config).directory, LDAPDirectory(empty.access).read()) == ()


def test_check_says_what_is_wrong_with_the_directory_as_it_is_now(tmp_path: Path, server: Slapd) -> None:
    config = gateway_site(tmp_path, server)
    unread = run(config, "check")
    assert (unread.exit_code, "devices-ldap.json: nothing has been read from LDAP yet" in unread.output) == (1, True)
    write_snapshot(config.parent / "devices-ldap.json", Directory((CT1,)))
    good = run(config, "check")
    assert all(".csv" in line for line in good.stderr.splitlines())  # stations of the shipped files that it has not
    assert "1 device(s), 1 AE title(s)." in good.stdout
    server.load(TWICE)
    LDAPDirectory(server.access).write_device(scanner("us", "US1", profile="nobodys", addresses=("here",)))
    server.load(f"dn: dicomDeviceName=odd,{DEVICES}\nobjectClass: dicomDevice\ndicomDeviceName: odd\n"
                f"dicomInstalled: TRUE\ndicomRelatedDeviceReference: cn=x\n"
                f"dicomThisNodeCertificateReference: cn=nobody,{BASE}\n")  # fmt: skip
    bad = run(config, "check", "--json")
    assert bad.exit_code == 1
    told = [f"{each['where']}: {each['text']}" for each in json.loads(bad.stdout)]
    for words in (
        "AE title: CT1 is listed twice, by ct-emergency and ct-other", "there is no profile nobodys",
        "'here' is no address", f"refers to the certificate of cn=nobody,{BASE}",
    ):  # fmt: skip
        assert any(words in each for each in told), (words, told)
    assert all(each.startswith("LDAP") for each in told if ".csv" not in each)
    server.stop()
    away = run(config, "check")
    assert (away.exit_code, "nobody listens there" in away.output) == (1, True)


def test_diff_says_how_file_and_directory_differ(tmp_path: Path, server: Slapd) -> None:
    config = gateway_site(tmp_path, server, use=False)
    file = tmp_path / "site" / "devices.yaml"
    file.write_text("devices: [{ae_title: CT1, name: ct-emergency, host: ct1.example, port: 104, acceptor: false}]\n")
    assert said(config, "publish", "--yes")["done"]  # our own entry is in no file
    same = run(config, "diff")
    assert (same.exit_code, "devices.yaml -> LDAP: no difference." in same.output) == (0, True), same.output
    LDAPDirectory(server.access).write_device(scanner("mr", "MR1"))
    file.write_text("devices: [{ae_title: CT1, name: ct-emergency, host: ct2.example, port: 104, acceptor: false},\n"
                    "  {ae_title: US1, host: us1.example}]\n")  # fmt: skip
    other = run(config, "diff", "--json")
    assert other.exit_code == 1
    assert {(each["device"], each["change"], each["before"], each["after"]) for each in json.loads(other.stdout)} == {
        ("ct-emergency", "changed", "ct2.example", "ct1.example"), ("US1", "removed", "", ""), ("mr", "added", "", ""),
    }  # fmt: skip
    assert "3 difference(s)" in run(config, "diff").output
    server.stop()
    away = run(config, "diff")
    assert (away.exit_code, "nobody listens there" in away.output) == (1, True)


def test_a_command_that_cannot_reach_the_directory_says_so(tmp_path: Path, server: Slapd) -> None:
    config = gateway_site(tmp_path, server)
    server.stop()
    for words in (("pull", "--to", str(tmp_path / "new.yaml")), ("publish",), ("titles",), ("reserve", "CT2")):
        failed = run(config, *words)
        assert (failed.exit_code, "ldaps://localhost" in failed.output) == (1, True), failed.output
    plain = site(tmp_path / "plain")
    failed = run(plain, "titles")
    assert (failed.exit_code, "devices.ldap" in failed.output) == (1, True)
    assert run(plain, "ldif").exit_code == 2  # below which DN?


def test_pull_does_not_write_what_would_keep_the_gateway_from_starting(tmp_path: Path, server: Slapd) -> None:
    config = gateway_site(tmp_path, server, use=False, worklists=[{"ae_title": "LIST", "groups": ["CT"]}])
    file = tmp_path / "site" / "devices.yaml"
    file.write_text("devices: [{ae_title: CT7, group: CT}]\n")
    there = LDAPDirectory(server.access)
    there.write_device(scanner("us", "US1", sites=("MOON",), called=("NOLIST",)))
    wrong = run(config, "pull", "--yes")
    assert wrong.exit_code == 1
    for words in (
        "no orders of site MOON come here", "'NOLIST', which is none of our AE titles", "no device is in group CT",
        "nothing was done. Mend them in LDAP",
    ):  # fmt: skip
        assert words in wrong.output, words
    assert "CT7" in load_site(config).devices.known
    there.write_device(replace(scanner("us", "US1"), aes=(NetworkAE("US1", ("dicom",), clusters=("CT",)),)))
    assert run(config, "pull", "--yes").exit_code == 0
    assert load_site(config).devices.known.keys() == {"CT1", "US1"}


@pytest.mark.parametrize(
    "wrong", ["devices: [{ae_title: CT1, colour: red}]\n", "devices: [{ae_title: X, profile: no}]\n"]
)
def test_a_registry_that_stops_the_gateway_is_mended_by_commands(tmp_path: Path, server: Slapd, wrong: str) -> None:
    config = gateway_site(tmp_path, server, use=False)
    file = tmp_path / "site" / "devices.yaml"
    file.write_text(wrong)
    with pytest.raises(ConfigError):
        load_site(config)
    for words in (("titles",), ("reserve", "US9"), ("release", "US9"), ("find", "--ae", "CT1"), ("publish",)):
        assert run(config, *words).exit_code == 0, words
    told = run(config, "check")
    assert (told.exit_code, "devices.yaml" in told.stderr) == (1, True)
    assert run(config, "pull").exit_code == 0
    assert file.read_text() == wrong
    assert run(config, "pull", "--yes").exit_code == 0
    assert load_site(config).devices.known.keys() == {"CT1"}
    assert file.with_name("devices.yaml.bak").read_text() == wrong


def test_push_says_what_cannot_stand_in_ldap_before_it_writes_anything(tmp_path: Path, server: Slapd) -> None:
    config = gateway_site(tmp_path, server, use=False)
    file = tmp_path / "site" / "devices.yaml"
    file.write_text("devices:\n  - {ae_title: AA1, host: aa1.example}\n  - {ae_title: MR1}\n  - {ae_title: US1}\n")
    for words in (("push",), ("push", "--yes")):
        refused = run(config, *words)
        assert refused.exit_code == 1
        for title in ("MR1", "US1"):
            assert (
                f"devices.yaml devices {title}: AE {title} has no connection: say the host it is at" in refused.output
            )
        assert "2 problem(s) in devices.yaml; nothing was done." in refused.output
    file.write_text("devices: [{ae_title: AA1, host: aa1.example}, {ae_title: US1, host: us1.example}]\n")
    LDAPDirectory(server.access).reserve("US1")
    refused = run(config, "push", "--yes")
    assert (refused.exit_code, "say --reserved US1" in refused.output) == (1, True)
    assert [each.name for each in LDAPDirectory(server.access).read().devices] == ["ct-emergency"]


def test_an_ae_title_moves_from_one_device_to_another(tmp_path: Path, server: Slapd) -> None:
    config = gateway_site(tmp_path, server, use=False)
    file = tmp_path / "site" / "devices.yaml"
    two = "  - {{name: zz, host: zz.example, aes: [{}]}}\n  - {{name: aa, host: aa.example, aes: [{}]}}\n"
    one, other = "{ae_title: T1}, {ae_title: T2}", "{ae_title: T3}"
    file.write_text("devices:\n" + two.format(one, other))
    assert run(config, "push", "--yes").exit_code == 0
    file.write_text("devices:\n" + two.format("{ae_title: T1}", "{ae_title: T3}, {ae_title: T2}"))
    assert run(config, "push", "--yes").exit_code == 0
    held = {each.name: {ae.ae_title for ae in each.aes} for each in LDAPDirectory(server.access).read().devices}
    assert (held["zz"], held["aa"]) == ({"T1"}, {"T2", "T3"})


def test_publish_does_not_send_others_to_themselves(tmp_path: Path, server: Slapd) -> None:
    config = gateway_site(tmp_path, server, use=False)
    (tmp_path / "site" / "devices.yaml").write_text("devices: []\n")
    config.write_text(config.read_text().replace("gateway.example", "127.0.0.1"))
    refused = run(config, "publish", "--yes")
    assert refused.exit_code == 1
    assert "others would look for us at 127.0.0.1" in refused.output
    assert "devices.own_host" in refused.output
    assert [each.name for each in LDAPDirectory(server.access).read().devices] == ["ct-emergency"]


def test_find_asks_the_directory_itself(tmp_path: Path, server: Slapd) -> None:
    config = gateway_site(tmp_path, server)
    there = LDAPDirectory(server.access)
    there.write_device(replace(scanner("us", "US1"), primary_types=("US",)))
    for words in (("--ae", "US1"), ("--type", "US"), ("--host", "us.example"), ("--device", "US")):
        assert [each["name"] for each in said(config, "find", *words)] == ["us"]
    assert "us.example:104" in run(config, "find", "--type", "US").stdout
    nobody = run(config, "find", "--type", "US", "--ae", "CT1")
    assert (nobody.exit_code, "no such device" in nobody.output) == (1, True)


def test_diff_tells_what_is_wrong_with_single_entries(tmp_path: Path, server: Slapd) -> None:
    config = gateway_site(tmp_path, server, use=False)
    (tmp_path / "site" / "devices.yaml").write_text("devices: []\n")
    server.load(f"dn: dicomDeviceName=odd,{DEVICES}\nobjectClass: dicomDevice\ndicomDeviceName: odd\n"
                f"dicomInstalled: TRUE\ndicomThisNodeCertificateReference: cn=nobody,{BASE}\n")  # fmt: skip
    assert f"refers to the certificate of cn=nobody,{BASE}" in run(config, "diff").stderr


def test_stations_that_ldap_lacks_are_added_in_ldap(tmp_path: Path, server: Slapd) -> None:
    config = gateway_site(tmp_path, server)
    write_snapshot(config.parent / "devices-ldap.json", Directory((CT1,)))
    doubts = [each for each in load_site(config).doubts if "would not be served" in each.text]
    assert doubts
    assert all(each.hint.endswith("add it in LDAP") and "is not in LDAP" in each.text for each in doubts)
    assert run(config, "check").exit_code == 0
