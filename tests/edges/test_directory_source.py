"""The directory in LDAP as a running gateway follows it, over a directory that the tests make up."""

import asyncio
import socket
import stat
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML
from structlog.testing import capture_logs

from gateway import directory_source
from gateway.config import ConfigError, load_site
from gateway.directory_source import DirectoryWatch, ldap_access
from gateway.domain.directory import DeviceEntry, Directory, NetworkAE, NetworkConnection
from gateway.domain.directory_loss import Roll, great_loss
from gateway.domain.problem import Problem
from gateway.edges.ldap_directory import LDAPFailed, Mark, Snapshot
from gateway.edges.resolving import Hosts
from gateway.service import Service
from gateway.snapshot import read_snapshot, write_snapshot
from gateway.testing import site

LDAP = {"servers": ["ldap://127.0.0.1:9"], "plain": True, "bind": "anonymous", "refresh_s": 3600}


def directory(*titles: str, **connections: tuple[str, int]) -> Directory:
    found = [DeviceEntry(title, aes=(NetworkAE(title),)) for title in titles]
    for name, (host, port) in connections.items():
        connection = NetworkConnection("dicom", host, port)
        ae = NetworkAE(name.upper(), ("dicom",), acceptor=True)
        found.append(DeviceEntry(name.upper(), connections=(connection,), aes=(ae,)))
    return Directory(tuple(found))


class MadeUp:
    """A directory server as the client shows it: what it holds, how often it was read, and what goes wrong."""

    def __init__(self, holds: Directory) -> None:
        self.holds, self.changes, self.reads, self.marks = holds, 0, 0, 0
        self.elsewhere, self.exact, self.known = 0, True, Roll()
        self.fails: Exception | None = None
        self.problems: tuple[Problem, ...] = ()

    def change(self, holds: Directory) -> None:
        self.holds, self.changes = holds, self.changes + 1

    def mark(self, since: Mark) -> Mark:
        self.marks += 1
        if self.fails is not None:
            raise self.fails
        return Mark(str(self.changes), str(self.elsewhere), self.exact)

    def snapshot(self, known: Roll) -> Snapshot:
        self.reads += 1
        self.known = known
        if self.fails is not None:
            raise self.fails
        lost = great_loss(known, self.holds)
        if lost:
            raise LDAPFailed(f"ldap://made.up is not believed: {lost}")
        mark = Mark(str(self.changes), str(self.elsewhere), self.exact)
        return Snapshot(self.holds, self.problems, mark, "cn=DICOM Configuration", "ldap://made.up")


class Gateway:
    """Takes what a watch finds, as the service does, but for serving it."""

    def __init__(self) -> None:
        self.taken: list[Directory] = []
        self.refuses: Exception | None = None

    async def take(self, found: Directory) -> None:
        if self.refuses is not None:
            raise self.refuses
        self.taken.append(found)

    def serving(self) -> Directory:
        return self.taken[-1] if self.taken else Directory()


def watching(folder: Path, scene: Callable[[DirectoryWatch, MadeUp, Gateway], Awaitable[None]]) -> list[Any]:
    """Play the scene with a watch over a directory of CT1; what was logged."""
    server, gateway = MadeUp(directory("CT1")), Gateway()

    async def play() -> None:
        watch = DirectoryWatch(server, folder / "devices-ldap.json", gateway.take, gateway.serving)
        await scene(watch, server, gateway)

    with capture_logs() as said:
        asyncio.run(play())
    return said


def test_it_is_read_whole_only_when_its_mark_changes(tmp_path: Path) -> None:
    async def scene(watch: DirectoryWatch, server: MadeUp, gateway: Gateway) -> None:
        for _ in range(3):
            await watch.look()
        assert (server.reads, server.marks) == (1, 2)
        server.change(directory("CT1", "CT2"))
        await watch.look()
        assert [len(each.devices) for each in gateway.taken] == [1, 2]
        await watch.look(whole=True)
        assert server.reads == 3

    assert watching(tmp_path, scene) == []


def test_it_is_read_whole_now_and_then_whatever_its_mark_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory_source, "WHOLE_EVERY_S", 0.0)

    async def scene(watch: DirectoryWatch, server: MadeUp, gateway: Gateway) -> None:
        await watch.look()
        await watch.look()
        assert server.reads == 2

    watching(tmp_path, scene)


def test_a_change_elsewhere_in_the_server_costs_no_reading(tmp_path: Path) -> None:
    async def scene(watch: DirectoryWatch, server: MadeUp, gateway: Gateway) -> None:
        await watch.look()
        for server.elsewhere in (1, 2):
            await watch.look()
        assert (server.reads, server.marks) == (1, 2)
        assert watch._mark == Mark("0", "2")

    watching(tmp_path, scene)


def test_where_marks_count_seconds_a_change_is_read_once_more_when_its_second_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    now = 1000.0
    monkeypatch.setattr(directory_source.time, "monotonic", lambda: now)

    async def scene(watch: DirectoryWatch, server: MadeUp, gateway: Gateway) -> None:
        nonlocal now
        server.exact = False
        await watch.look()
        server.holds = directory("CT1", "CT2")  # within the second of the mark, which stays as it is
        await watch.look()
        assert len(gateway.taken[-1].devices) == 2
        now += 60
        server.holds = directory("CT1", "CT2", "CT3")
        await watch.look()
        assert len(gateway.taken[-1].devices) == 3
        await watch.look()
        assert (server.reads, server.marks) == (3, 1)

    watching(tmp_path, scene)


def test_a_directory_that_lost_its_devices_is_not_served(tmp_path: Path) -> None:
    async def scene(watch: DirectoryWatch, server: MadeUp, gateway: Gateway) -> None:
        server.holds = directory(*(f"CT{number}" for number in range(8)))
        await watch.look()
        server.change(directory())
        await watch.look()
        assert watch.state.failing
        await watch.look(whole=True)  # as at SIGHUP, which says nothing about it
        server.change(directory("CT0", "CT1", "CT2"))
        await watch.look()
        assert watch.state.failing
        assert len(gateway.taken) == 1
        server.change(directory("CT0", "CT1", "CT2", "CT3"))
        await watch.look()
        assert not watch.state.failing
        assert len(gateway.taken) == 2

    said = watching(tmp_path, scene)
    assert [each["event"] for each in said] == ["directory_unavailable"] * 2 + ["directory_good_again"]
    assert "5 of the 8 devices that were there before are gone (ct3, ct4, ct5, ...)" in said[1]["why"]


def test_the_snapshot_before_is_kept(tmp_path: Path) -> None:
    snapshot = tmp_path / "devices-ldap.json"
    for titles in (("CT1",), ("CT1", "CT2"), ("CT1", "CT2")):
        write_snapshot(snapshot, directory(*titles))
    kept = tmp_path / "devices-ldap.json.bak"
    assert read_snapshot(kept)[0] == directory("CT1")
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


def test_trouble_is_said_once_and_again_when_it_is_another_one(tmp_path: Path) -> None:
    async def scene(watch: DirectoryWatch, server: MadeUp, gateway: Gateway) -> None:
        server.fails = LDAPFailed("ldap://made.up: connection refused")
        for _ in range(3):
            await watch.look()
        assert watch.state.failing
        assert watch.state.age_s is None
        server.fails = LDAPFailed("ldap://made.up: no answer for 10 s")
        await watch.look()
        server.fails = None
        await watch.look()
        assert not watch.state.failing
        assert watch.state.age_s is not None

    said = watching(tmp_path, scene)
    assert [(each["event"], each.get("why", "")) for each in said] == [
        ("directory_unavailable", "ldap://made.up: connection refused"),
        ("directory_unavailable", "ldap://made.up: no answer for 10 s"),
        ("directory_good_again", ""),
    ]
    assert said[0]["log_level"] == "error"
    assert said[0]["served_by"] == "no device: none was ever read"


def test_a_bad_directory_is_told_in_full_and_stays_refused_until_it_changes(tmp_path: Path) -> None:
    problem = Problem("LDAP", "AE title", "CT1 is listed twice, by a and b", "keep one of the two")

    async def scene(watch: DirectoryWatch, server: MadeUp, gateway: Gateway) -> None:
        gateway.refuses = ConfigError([problem])
        await watch.look()
        await watch.look()
        assert (server.reads, watch.state.failing) == (1, True)
        server.fails = LDAPFailed("away")
        await watch.look()
        server.fails = None
        await watch.look()
        assert watch.state.failing  # it answers again, and says the same as before
        gateway.refuses = None
        server.change(directory("CT1"))
        await watch.look()
        assert not watch.state.failing

    said = watching(tmp_path, scene)
    refused = ["directory_problem", "directory_refused"]
    assert [each["event"] for each in said] == [*refused, "directory_unavailable", *refused, "directory_good_again"]
    assert (said[0]["text"], said[0]["hint"]) == (problem.text, problem.hint)


def test_what_cannot_be_kept_is_read_again_at_the_next_look(tmp_path: Path) -> None:
    async def scene(watch: DirectoryWatch, server: MadeUp, gateway: Gateway) -> None:
        gateway.refuses = OSError(28, "No space left on device")
        await watch.look()
        gateway.refuses = None
        await watch.look()
        assert (server.reads, len(gateway.taken)) == (2, 1)

    said = watching(tmp_path, scene)
    assert [each["event"] for each in said] == ["directory_not_kept", "directory_good_again"]
    assert said[0]["why"] == "devices-ldap.json cannot be written: No space left on device"


def test_a_defect_ends_neither_the_watch_nor_the_service(tmp_path: Path) -> None:
    async def scene(watch: DirectoryWatch, server: MadeUp, gateway: Gateway) -> None:
        server.fails = RecursionError("deep")
        await watch.look()
        server.fails = None
        await watch.look()
        assert len(gateway.taken) == 1

    assert [each["event"] for each in watching(tmp_path, scene)] == ["directory_look_failed", "directory_good_again"]


def test_problems_of_single_entries_are_told_once(tmp_path: Path) -> None:
    async def scene(watch: DirectoryWatch, server: MadeUp, gateway: Gateway) -> None:
        server.problems = (Problem("LDAP", "dicomDeviceName=ct9", "it has no dicomInstalled"),)
        await watch.look()
        await watch.look(whole=True)
        assert len(gateway.taken) == 2

    (said,) = watching(tmp_path, scene)
    assert (said["event"], said["log_level"]) == ("directory_entry_problem", "warning")


def test_the_age_goes_on_from_the_snapshot_after_a_restart(tmp_path: Path) -> None:
    snapshot = tmp_path / "devices-ldap.json"
    write_snapshot(snapshot, directory("CT1"))
    before = snapshot.stat().st_mtime - 1000
    directory_source.os.utime(snapshot, (before, before))

    async def scene(watch: DirectoryWatch, server: MadeUp, gateway: Gateway) -> None:
        assert watch.state.age_s is not None
        assert watch.state.age_s >= 1000
        await watch.look()
        assert snapshot.stat().st_mtime > before

    watching(tmp_path, scene)


def test_a_server_that_hangs_does_not_keep_the_process_from_ending(tmp_path: Path) -> None:
    hangs, entered = threading.Event(), threading.Event()

    class Hanging(MadeUp):
        def snapshot(self, known: Roll) -> Snapshot:
            entered.set()
            hangs.wait()
            return super().snapshot(known)

    async def play() -> None:
        gateway = Gateway()
        watch = DirectoryWatch(Hanging(directory()), tmp_path / "devices-ldap.json", gateway.take, gateway.serving)
        look = asyncio.create_task(watch.look())
        await asyncio.to_thread(entered.wait)
        look.cancel()
        with pytest.raises(asyncio.CancelledError):
            await look

    asyncio.run(play())  # ends, although the thread is still there
    assert any(each.name == "directory" and each.daemon for each in threading.enumerate())
    hangs.set()


# ---- in the service --------------------------------------------------------------------------------------------------


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> MadeUp:
    """The directory server of every gateway in the test."""
    made_up = MadeUp(directory("CT1"))
    monkeypatch.setattr(directory_source, "DirectoryProcess", lambda access: made_up)
    return made_up


@pytest.fixture
def listening() -> Iterator[tuple[str, int]]:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        yield taken.getsockname()[:2]


def serving(config: Path, scene: Callable[[Service], Awaitable[None]]) -> list[Any]:
    """Play the scene with a running service; what was logged."""

    async def play() -> None:
        service = Service(load_site(config))
        try:
            await service.start(lambda line: None)
            await scene(service)
        finally:
            await service.stop()

    with capture_logs() as said:
        asyncio.run(play())
    return said


async def looked(service: Service) -> None:
    """Look at the directory, and wait until what came of it is served."""
    await service.look_at_directory()
    while service._looks:
        await asyncio.wait(service._looks)


def test_without_a_snapshot_the_first_one_is_read_before_dicom_is_served(tmp_path: Path, server: MadeUp) -> None:
    config = site(tmp_path, devices={"ldap": LDAP, "unknown": "reject"})

    async def scene(service: Service) -> None:
        assert service.site.devices.known.keys() == {"CT1"}

    serving(config, scene)
    kept = tmp_path / "devices-ldap.json"
    assert read_snapshot(kept)[0] == load_site(config).directory
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600


def test_a_change_is_served_without_a_restart_and_a_bad_one_is_not(tmp_path: Path, server: MadeUp) -> None:
    config = site(tmp_path, devices={"ldap": LDAP, "unknown": "reject"})

    async def scene(service: Service) -> None:
        server.change(directory("CT1", "CT2"))
        await looked(service)
        assert service.site.devices.known.keys() == {"CT1", "CT2"}
        kept = (tmp_path / "devices-ldap.json").read_text()
        twice = DeviceEntry("other", aes=(NetworkAE("CT1"),))
        server.change(Directory((*directory("CT1", "CT3").devices, twice)))
        await looked(service)
        assert service.site.devices.known.keys() == {"CT1", "CT2"}
        assert (tmp_path / "devices-ldap.json").read_text() == kept
        assert service.metrics.directory().failing  # type: ignore[union-attr]  # there is a directory

    said = serving(config, scene)
    (told,) = [each for each in said if each["event"] == "directory_problem"]
    assert told["text"] == "CT1 is listed twice, by CT1 and other"


def test_without_ldap_the_last_good_directory_is_served_and_the_service_is_ready(
    tmp_path: Path, server: MadeUp
) -> None:  # fmt: skip
    config = site(tmp_path, devices={"ldap": LDAP, "unknown": "reject"})
    write_snapshot(tmp_path / "devices-ldap.json", directory("CT1"))
    server.fails = LDAPFailed("ldap://made.up: connection refused")

    async def scene(service: Service) -> None:
        await looked(service)
        assert service.site.devices.known.keys() == {"CT1"}
        assert service._unready() == ""

    said = serving(config, scene)
    (away,) = [each for each in said if each["event"] == "directory_unavailable"]
    assert away["served_by"].startswith("that of 20")


def test_without_ldap_and_snapshot_it_serves_hl7_and_says_so(tmp_path: Path, server: MadeUp) -> None:
    server.fails = LDAPFailed("ldap://made.up: connection refused")
    config = site(tmp_path, devices={"ldap": LDAP, "unknown": "reject"})

    async def scene(service: Service) -> None:
        assert service._unready() == ""
        port = service.site.settings.hl7[0].port
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.close()
        await writer.wait_closed()

    said = serving(config, scene)
    (away,) = [each for each in said if each["event"] == "directory_unavailable"]
    assert away["served_by"] == "no device: none was ever read"


def test_a_reload_reads_the_directory_whole_and_follows_other_settings(tmp_path: Path, server: MadeUp) -> None:
    config = site(tmp_path, devices={"ldap": LDAP, "unknown": "reject"})

    async def scene(service: Service) -> None:
        reads = server.reads
        await service.reload()
        await asyncio.wait(service._looks)
        assert server.reads == reads + 1
        settings = YAML(typ="safe").load(config.read_text())
        (tmp_path / "devices.yaml").write_text("devices: [{ae_title: US1}]\n")
        settings["devices"] = {"file": "devices.yaml", "unknown": "reject", "ldap": {**LDAP, "use": False}}
        with config.open("w") as file:
            YAML().dump(settings, file)
        await service.reload()
        assert service.site.devices.known.keys() == {"US1"}
        assert service.metrics.directory() is None
        assert not service._looks

    serving(config, scene)


def test_a_destination_follows_the_directory(
    tmp_path: Path, server: MadeUp, listening: tuple[str, int]
) -> None:  # fmt: skip
    places = [{"name": "pacs", "device": "PACS1", "performed": {"sends": "events"}}]
    config = site(tmp_path, devices={"ldap": LDAP, "unknown": "reject"}, destinations=places)
    server.fails = LDAPFailed("ldap://made.up: connection refused")

    async def scene(service: Service) -> None:
        assert service._deliverers == {}
        server.fails = None
        server.change(directory("CT1", pacs1=("192.0.2.1", 104)))
        await looked(service)
        first = service._deliverers["pacs"]
        assert (first.destination.host, first.destination.port) == ("192.0.2.1", 104)
        server.change(directory("CT1", pacs1=listening))
        await looked(service)
        second = service._deliverers["pacs"]
        assert (second.destination.host, second.destination.port) == listening
        assert first is not second
        server.change(directory("CT2", pacs1=listening))
        await looked(service)
        assert service._deliverers["pacs"] is second  # what did not move goes on undisturbed

    said = serving(config, scene)
    assert [each["port"] for each in said if each["event"] == "destination_moved"] == [104, listening[1]]


def test_the_clients_settings_are_those_of_the_site_with_paths_beside_it(tmp_path: Path) -> None:
    said = {
        "servers": ["ldaps://ldap.example"], "user": "cn=gateway", "password": "secret-word", "ca": "own-ca.pem",
    }  # fmt: skip
    for name in ("own-ca.pem", "gw.pem", "gw.key", "site.pem"):
        (tmp_path / name).touch()
    config = site(
        tmp_path,
        devices={"ldap": said, "unknown": "reject"},
        tls={"certificate": "gw.pem", "key": "gw.key", "ca": "site.pem"},
    )
    found = load_site(config)
    assert found.settings.devices.ldap is not None
    access = ldap_access(found, found.settings.devices.ldap)
    assert access.ca == str(tmp_path / "own-ca.pem")
    assert (access.certificate, access.key) == (str(tmp_path / "gw.pem"), str(tmp_path / "gw.key"))
    assert access.password == said["password"]
    assert "secret-word" not in repr(access) + repr(found.settings)


def test_a_change_of_the_directory_leaves_what_is_known_of_hosts_while_no_name_server_answers(
    tmp_path: Path, server: MadeUp
) -> None:  # fmt: skip
    config = site(tmp_path, devices={"ldap": LDAP, "unknown": "reject"})

    async def scene(service: Service) -> None:
        answers: list[Any] = [["10.0.0.1"], socket.gaierror(socket.EAI_AGAIN, "away"), ["10.0.0.9"]]

        def look_up(host: str) -> Any:
            answer = answers.pop(0)
            if isinstance(answer, OSError):
                raise answer
            return answer

        hosts = service._hosts = Hosts(look_up)
        assert hosts.addresses("pacs") == ("10.0.0.1",)
        server.change(directory("CT1", "CT2"))
        await looked(service)
        assert hosts.addresses("pacs") == ("10.0.0.1",)
        assert len(answers) == 1, "it was doubted"
        await service.reload()
        assert hosts.addresses("pacs") == ("10.0.0.9",)

    serving(config, scene)
