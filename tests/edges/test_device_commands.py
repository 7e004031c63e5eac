"""`gateway devices` list, show, check, diff, echo and dns on a site of its own."""

import json
from pathlib import Path
from typing import Any

import dns.zone
import pytest
from click.testing import Result
from command_site import CommandSite

from gateway.testing import free_port
from gateway.testing.performed_receiver import PerformedReceiver
from gateway.testing.ris_receiver import SimulatedRISReceiver

DEVICES = """\
devices:
  - ae_title: CT1
    description: Emergency
    types: [CT]
    group: CT
    host: ct1.hosp.example
    port: 104
    profile: own-list
    addresses: [10.1.2.0/24]
    may: [worklist]
  - name: mr-room
    manufacturer: Example
    connections:
      - {name: plain, host: 127.0.0.1, port: 11}
      - {name: tls, host: mr.hosp.example, port: 2762, tls: true}
    aes:
      - {ae_title: MR1, connections: [plain]}
      - {ae_title: MR2, connections: [tls], tls_required: true}
"""


class Devices:
    """A site, and what is in its devices.yaml."""

    def __init__(self, folder: Path) -> None:
        self.site = CommandSite(folder / "site")
        self.file = self.site.folder / "devices.yaml"
        self.say(DEVICES)

    def say(self, text: str) -> None:
        self.file.write_text(text)

    def __call__(self, *words: object) -> Result:
        return self.site("devices", *words)

    def json(self, *words: object) -> Any:
        return json.loads(self(*words, "--json").stdout)


@pytest.fixture
def devices(tmp_path: Path) -> Devices:
    return Devices(tmp_path)


def test_the_list_has_every_ae_title_with_its_address_and_bounds(devices: Devices) -> None:
    rows = {row["ae_title"]: row for row in devices.json("list")}
    assert list(rows) == ["CT1", "MR1", "MR2"]
    assert (rows["CT1"]["types"], rows["CT1"]["group"], rows["CT1"]["profile"]) == (["CT"], "CT", "own-list")
    assert rows["CT1"]["bounds"] == ["from 10.1.2.0/24", "only worklist"]
    assert rows["MR2"]["bounds"] == ["TLS"]
    assert (rows["MR2"]["device"], rows["MR2"]["connections"][0]["tls"]) == ("mr-room", True)
    shown = devices("list").stdout
    assert "ct1.hosp.example:104" in shown
    assert "mr.hosp.example:2762 TLS" in shown


@pytest.mark.parametrize(
    ("words", "titles"),
    [
        (("--type", "ct"), ["CT1"]),
        (("--type", "MR"), []),
        (("--ae", "MR2"), ["MR2"]),
        (("--ae", "mr2"), []),
        (("--device", "MR-ROOM"), ["MR1", "MR2"]),
        (("--host", "MR.hosp.example"), ["MR1", "MR2"]),
        (("--host", "mr.hosp.example", "--ae", "MR2"), ["MR2"]),
        (("--host", "mr.hosp.example", "--type", "CT"), []),
    ],
)
def test_the_list_is_narrowed(devices: Devices, words: tuple[str, ...], titles: list[str]) -> None:
    assert [row["ae_title"] for row in devices.json("list", *words)] == titles


@pytest.mark.parametrize("name", ["MR2", "mr-room", "MR-ROOM"])
def test_a_device_is_shown_by_its_name_or_one_of_its_ae_titles(devices: Devices, name: str) -> None:
    shown = devices("show", name).stdout
    for words in ("mr-room", "devices.yaml", "MR1", "MR2", "DICOM, 127.0.0.1:11", "TLS only"):
        assert words in shown


def test_what_is_shown_has_the_profile_in_words_and_what_it_may_do(devices: Devices) -> None:
    shown = devices("show", "CT1").stdout
    assert "only worklist" in shown
    (ae,) = devices.json("show", "CT1")["aes"]
    assert (ae["may"], ae["sees"], ae["served"]) == (["worklist"], "own", True)
    assert ae["reason"]


def test_bounds_of_a_group_are_shown_as_such(devices: Devices) -> None:
    config = devices.site.config
    groups = "devices:\n  groups: {CT: {may: [mpps], tls_required: true, users: true}, DX: {users: true}}\n"
    config.write_text(config.read_text().replace("devices:\n", groups, 1))
    (ae,) = devices.json("show", "CT1")["aes"]
    assert ae["may"] == ["worklist"]
    assert ae["of_groups"] == ["tls_required", "users"]
    assert {"TLS", "a user who proves to be one", "only worklist"} <= set(ae["bounds"])
    assert "Of its groups" in devices("show", "CT1").stdout
    (other,) = devices.json("show", "MR1")["aes"][:1]
    assert other["of_groups"] == []
    assert "no device is in group DX" in devices("check").stderr


def test_a_name_that_nobody_has_is_answered_with_the_nearest(devices: Devices) -> None:
    done = devices("show", "CT11")
    assert done.exit_code == 1
    assert "did you mean CT1?" in done.stderr


def test_check_is_satisfied_with_what_is_right(devices: Devices) -> None:
    done = devices("check")
    assert (done.exit_code, "ok. 2 device(s), 3 AE title(s)" in done.stdout) == (0, True)


def test_check_names_every_mistake_of_a_file(devices: Devices) -> None:
    devices.say(DEVICES.replace("own-list", "no-such").replace("[plain]}", "[plane]}").replace("MR2", "MR1"))
    done = devices("check")
    assert done.exit_code == 1
    for words in ("there is no profile no-such", "it has no connection plane", "MR1 is listed twice"):
        assert words in done.stderr


def test_check_tells_what_is_odd_and_refuses_nothing_else_for_it(devices: Devices) -> None:
    devices.say(DEVICES.replace("[CT]", "[cat scanner]"))
    done = devices("check")
    assert done.exit_code == 1
    assert "'cat scanner' is no code of a device type" in done.stderr
    assert devices("list").exit_code == 0


def test_check_of_a_registry_that_is_right_does_not_fail_for_stations_that_are_not_in_it(devices: Devices) -> None:
    config = devices.site.config
    config.write_text(config.read_text().replace("unknown: accept", "unknown: reject"))
    done = devices("check")
    assert done.exit_code == 0
    assert "ok, and " in done.stdout
    assert "is not in devices.yaml, so this station would not be served" in done.stderr


def test_names_that_differ_in_case_are_nothing_where_no_directory_is_configured(devices: Devices) -> None:
    devices.say("devices:\n  - {ae_title: CT1}\n  - {ae_title: ct1}\n")
    assert devices("check").exit_code == 0
    assert devices.site("check").exit_code == 0


def test_find_says_what_is_missing(devices: Devices) -> None:
    assert devices("find").exit_code == 2
    done = devices("find", "--type", "CT")
    assert done.exit_code == 1
    assert "devices.ldap" in done.stderr


def test_diff_says_what_another_file_has_otherwise(devices: Devices, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(DEVICES)
    same = devices("diff", other)
    assert (same.exit_code, "no difference" in same.stdout) == (0, True)
    other.write_text(DEVICES.replace("port: 104", "port: 11112").replace("[worklist]", "[worklist, mpps]"))
    done = devices("diff", other)
    assert done.exit_code == 1
    assert "CT1, connection dicom: port 104 -> 11112" in done.stdout
    assert {each["attribute"] for each in devices.json("diff", other)} == {"port", "may"}


def test_diff_without_a_directory_says_what_to_write(devices: Devices) -> None:
    done = devices("diff")
    assert done.exit_code == 1
    assert "devices.ldap" in done.stderr


def test_diff_of_a_file_that_is_none_is_refused(devices: Devices, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text("devices: [{ae: CT1}]")
    done = devices("diff", other)
    assert done.exit_code == 1
    assert "cannot be read as devices" in done.stderr


def test_echo_asks_everybody_and_sums_up(devices: Devices) -> None:
    nobody = free_port()
    with PerformedReceiver("CT1") as ct, SimulatedRISReceiver() as ris:
        devices.say(
            "devices:\n"
            f"  - {{ae_title: CT1, host: 127.0.0.1, port: {ct.port}}}\n"
            f"  - {{ae_title: CT2, host: 127.0.0.1, port: {ct.port}}}\n"
            f"  - {{ae_title: US1, host: 127.0.0.1, port: {nobody}}}\n"
            "  - {ae_title: US2}\n"
            f"  - {{name: ris, host: 127.0.0.1, hl7_port: {ris.port}}}\n"
            f"  - {{ae_title: MR1, host: 127.0.0.1, port: {ct.port}, tls: true}}\n"
        )
        done = devices("echo", "--all")
        answers = {(each["device"], each["ae_title"]): each for each in devices.json("echo", "--all")}
        one = devices("echo", "CT1")
        assert not ris.received
    assert done.exit_code == 1
    assert "2 of 5 answer." in done.stdout
    assert not done.stderr, "the library's own words are nobody's"
    assert {key: each["phase"] for key, each in answers.items()} == {
        ("CT1", "CT1"): "done", ("CT2", "CT2"): "association", ("US1", "US1"): "TCP", ("ris", ""): "done",
        ("MR1", "MR1"): "TLS",
    }  # fmt: skip
    assert "names no `tls.ca`" in answers["MR1", "MR1"]["text"]
    assert (one.exit_code, "1 of 1 answer." in one.stdout) == (0, True)


def test_echo_of_who_cannot_be_called_says_so(devices: Devices) -> None:
    devices.say("devices:\n  - {ae_title: US2}\n")
    done = devices("echo", "US2")
    assert done.exit_code == 1
    assert "US2 cannot be called: no connection with a port is registered and installed." in done.stderr
    assert devices("echo").exit_code == 2
    assert devices("echo", "US2", "--all").exit_code == 2


def test_dns_records_name_the_devices(devices: Devices) -> None:
    read = dns.zone.from_text(devices("dns", "--zone", "hosp.example").stdout, check_origin=False, relativize=False,
                              origin="hosp.example")  # fmt: skip
    plain = read.find_rdataset("_dicom._tcp.hosp.example.", "PTR")
    assert [each.target.to_text() for each in plain] == ["CT1._dicom._tcp.hosp.example."]
    tls = read.find_rdataset("_dicom-tls._tcp.hosp.example.", "PTR")
    assert [each.target.to_text() for each in tls] == ["MR2._dicom-tls._tcp.hosp.example."]
    assert devices("dns", "--zone", "a b").exit_code == 2


def test_records_do_not_send_others_to_themselves(devices: Devices) -> None:
    done = devices("dns")
    assert "is left out: 127.0.0.1 is the machine of whoever asks; ours is named by `devices.own_host`" in done.stdout
    assert "devices.own_host" in done.stderr
    config = devices.site.config
    config.write_text(config.read_text().replace("unknown: accept", "unknown: accept\n  own_host: gw.hosp.example"))
    named = devices("dns")
    assert "gw.hosp.example." in named.stdout
    assert not named.stderr
