"""Devices of a directory in LDAP, as the file has them that keeps what was read last."""

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from gateway import examples
from gateway.config import ConfigError, Site, load_site
from gateway.device_settings import DevicesFile
from gateway.domain.directory import Directory
from gateway.registry import directory_of
from gateway.snapshot import SnapshotUnusable, read_snapshot, write_snapshot

LDAP = "\n  ldap: {servers: ['ldaps://ldap.example'], bind: anonymous}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    examples.lay_out(tmp_path / "site")
    config = tmp_path / "site" / "gateway.yaml"
    text = config.read_text(encoding="utf-8")
    config.write_text(text.replace("unknown: accept", f"unknown: reject{LDAP}\n #"), encoding="utf-8")
    return tmp_path / "site"


def site(folder: Path, *entries: Any) -> Site:
    (folder / "devices-ldap.json").write_text(json.dumps({"devices": entries}), encoding="utf-8")
    return load_site(folder / "gateway.yaml")


def said(site: Site) -> list[str]:
    return [str(doubt) for doubt in site.doubts if doubt.source == "devices-ldap.json"]


def test_devices_are_those_of_the_directory_and_not_those_of_the_file(folder: Path) -> None:
    loaded = site(folder, {"ae_title": "MR7", "profile": "own-list"})
    assert loaded.devices.known.keys() == {"MR7"}
    assert loaded.directory.device_of("MR7") is not None
    assert loaded.directory.device_of("CT1") is None  # of devices.yaml
    assert not said(loaded)


def test_a_directory_that_is_only_compared_with_leaves_the_file_in_use(folder: Path) -> None:
    config = folder / "gateway.yaml"
    config.write_text(config.read_text(encoding="utf-8").replace("bind: anonymous", "bind: anonymous, use: false"))
    assert "CT1" in site(folder, {"ae_title": "MR7"}).devices.known


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "nothing has been read from LDAP yet"),
        (b"{", "is not JSON"),
        (b"\xff", "is not JSON"),
        (b"[]", "has no list of devices"),
        (b'{"devices": 1}', "has no list of devices"),
        (b"[" * 100_000, "is not JSON"),
    ],
)
def test_without_a_snapshot_the_site_loads_and_says_that_nobody_is_known(
    folder: Path, content: bytes | None, words: str
) -> None:
    if content is not None:
        (folder / "devices-ldap.json").write_bytes(content)
    loaded = load_site(folder / "gateway.yaml")
    (doubt,) = said(loaded)
    assert words in doubt
    assert "no device is known" in doubt
    assert not loaded.devices.known


def test_one_entry_that_cannot_be_read_is_known_and_not_served_and_all_others_are(folder: Path) -> None:
    loaded = site(
        folder,
        {"ae_title": "CT1", "addresses": ["nonsense"]},
        {"name": "us", "aes": [{"ae_title": "US1", "colour": "red"}, {"ae_title": "US2"}], "connections": 7},
        {"ae_title": "MR1"},
        "nonsense",
        {"ae_title": 5},
    )
    known = loaded.devices.known
    assert {title: device.installed for title, device in known.items()} == {
        "CT1": False, "US1": False, "US2": False, "MR1": True,
    }  # fmt: skip
    text = "\n".join(said(loaded))
    assert "devices CT1: addresses: 'nonsense' is no address" in text
    assert "devices us: " in text
    assert "devices number 4: " in text
    assert "devices number 5: " in text


def test_what_contradicts_the_configuration_is_not_served_and_the_site_loads(folder: Path) -> None:
    loaded = site(folder, {"ae_title": "CT1", "profile": "nobodys"}, {"ae_title": "MR1"})
    assert not loaded.devices.known["CT1"].installed
    assert loaded.devices.known["MR1"].installed
    assert any("there is no profile nobodys" in text for text in said(loaded))


def test_an_ae_title_of_two_devices_is_served_to_neither_where_there_is_nothing_better(folder: Path) -> None:
    loaded = site(folder, {"ae_title": "CT1"}, {"ae_title": "CT1", "name": "other"}, {"ae_title": "MR1"})
    assert not loaded.devices.known["CT1"].installed
    assert loaded.devices.known["MR1"].installed


def test_the_same_mistakes_in_the_file_of_a_person_stop_the_start(folder: Path) -> None:
    config = folder / "gateway.yaml"
    config.write_text(config.read_text(encoding="utf-8").replace(LDAP, ""))
    (folder / "devices.yaml").write_text("devices:\n  - {ae_title: CT1, acceptor: true, profile: nobodys}\n")
    with pytest.raises(ConfigError) as caught:
        load_site(config)
    text = str(caught.value)
    assert "there is no profile nobodys" in text
    assert "it is called by others and has no connection" in text


def test_our_own_entry_lets_nobody_in_who_calls_himself_as_we_do(folder: Path) -> None:
    loaded = site(folder, {"ae_title": "GATEWAY", "name": "gateway"}, {"ae_title": "MR1"})
    assert loaded.devices.known.keys() == {"MR1"}
    assert loaded.directory.device_of("GATEWAY") is not None


def test_nothing_of_the_directory_is_taken_from_the_environment(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setenv("MARK", "secret")
    assert site(folder, {"ae_title": "CT1", "description": "${MARK}"}).devices.known["CT1"].description == "${MARK}"


def test_strangers_are_not_accepted_where_devices_are_those_of_a_directory(folder: Path) -> None:
    config = folder / "gateway.yaml"
    text = config.read_text(encoding="utf-8")
    config.write_text(text.replace("unknown: reject", "unknown: accept"))
    with pytest.raises(ConfigError) as refused:
        load_site(config)
    assert [each.path for each in refused.value.problems] == ["devices.unknown"]
    config.write_text(text.replace("unknown: reject", ""))
    assert load_site(config).devices.device("STRANGER") is None  # which the default would accept on loopback


def test_unknown_ask_is_told_to_the_registry(folder: Path) -> None:
    config = folder / "gateway.yaml"
    config.write_text(config.read_text(encoding="utf-8").replace("unknown: reject", "unknown: ask"))
    devices = site(folder, {"ae_title": "MR1"}).devices
    assert devices.ask
    assert devices.device("STRANGER") is None


# ---- the file ----


def directory(*entries: dict[str, Any]) -> Directory:
    return directory_of(DevicesFile.model_validate({"devices": entries}))


def test_what_is_written_is_read_again_and_is_for_the_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "devices-ldap.json"
    held = directory({"ae_title": "CT1", "description": "Röntgen", "host": "ct1", "port": 104})
    write_snapshot(path, directory({"ae_title": "OLD"}))
    write_snapshot(path, held)
    assert read_snapshot(path) == (held, ())
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert sorted(each.name for each in tmp_path.iterdir()) == [path.name, f"{path.name}.bak"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "devices-ldap.json"
    held = directory({"ae_title": "CT1"})
    write_snapshot(path, held)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gateway.whole_files.os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_snapshot(path, directory({"ae_title": "CT2"}))
    assert read_snapshot(path) == (held, ())


def test_a_snapshot_that_cannot_be_opened_says_so(tmp_path: Path) -> None:
    with pytest.raises(SnapshotUnusable, match="cannot be read: Is a directory"):
        read_snapshot(tmp_path)
