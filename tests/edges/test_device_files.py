"""devices.yaml written anew: what stays keeps its comments, and what was written is read back as it was meant."""

import stat
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.device_files import write_devices
from gateway.device_settings import DevicesFile
from gateway.domain.directory import DeviceEntry, Directory, NetworkAE, NetworkConnection, Protocol, Rules
from gateway.domain.problem import Problem
from gateway.registry import directory_of
from gateway.yaml_files import read_strict

CT1 = DeviceEntry("CT1", description="CT, emergency department", aes=(NetworkAE("CT1", clusters=("CT",)),))
RIS = DeviceEntry("ris", connections=(NetworkConnection("mllp", "ris.example", 2575, protocol=Protocol.HL7),))
MR = DeviceEntry(
    "mr-suite",
    connections=(NetworkConnection("a", "mr-a.example", 104), NetworkConnection("b", "mr-b.example", 104)),
    aes=(
        NetworkAE("MR_A", ("a",), acceptor=True, rules=Rules(sites=("NORTH", "0123"), addresses=("10.1.2.0/24",))),
        NetworkAE("MR_B", ("b",), acceptor=True, clusters=("yes",), installed=False),
    ),
)

WRITTEN = """\
# Our scanners.
devices:
  - ae_title: CT1            # beside the lift
    description: CT, emergency department
    group: CT
  # bought in spring
  - ae_title: "US1"
    sees: own
  - {ae_title: GONE}
"""


def read(file: Path) -> Directory:
    problems: list[Problem] = []
    found = read_strict(file, DevicesFile, problems)
    assert found is not None, problems
    return directory_of(found)


def test_a_new_file_says_the_whole_directory(tmp_path: Path) -> None:
    file = tmp_path / "devices.yaml"
    assert write_devices(file, Directory((CT1, RIS, MR))) is None
    assert read(file) == Directory((CT1, RIS, MR))
    assert "sites: [NORTH, '0123']" in file.read_text()
    assert file.read_text().startswith("# yaml-language-server: $schema=schemas/devices.json\n")


def test_what_stays_keeps_its_comments_and_the_file_before_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "devices.yaml"
    file.write_text(WRITTEN)
    file.chmod(0o640)
    held = read(file)
    us1 = replace(held.devices[1], station_name="US ROOM 2")
    before = write_devices(file, Directory((MR, us1, CT1)))
    assert before == tmp_path / "devices.yaml.bak"
    assert before.read_text() == WRITTEN
    assert read(file) == Directory((CT1, us1, MR))
    text = file.read_text()
    assert "# Our scanners." in text
    assert "- ae_title: CT1            # beside the lift\n" in text
    assert "GONE" not in text
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert not list(tmp_path.glob(".devices.yaml.*"))


def test_what_says_the_same_is_left_as_it_is_whatever_the_order_of_values(tmp_path: Path) -> None:
    file = tmp_path / "devices.yaml"
    file.write_text("devices:\n  - {ae_title: CT1, types: [CT, PT]}   # both\n")
    write_devices(file, Directory((replace(read(file).devices[0], primary_types=("PT", "CT")),)))
    assert "- {ae_title: CT1, types: [CT, PT]}   # both\n" in file.read_text()


def test_an_empty_directory_does_not_empty_the_file(tmp_path: Path) -> None:
    """It is what an account sees that may no longer read."""
    file = tmp_path / "devices.yaml"
    file.write_text(WRITTEN)
    with pytest.raises(ValueError, match="has no devices, or our account may not read them"):
        write_devices(file, Directory())
    assert file.read_text() == WRITTEN
    file.write_text("devices: []\n")
    write_devices(file, Directory())
    assert read(file) == Directory()


def test_a_file_that_is_no_registry_is_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "notes.yaml"
    file.write_text("devices:\n  - {ae_title: CT1, colour: red}\n")
    with pytest.raises(ValueError, match="colour"):
        write_devices(file, Directory((CT1,)))
    assert file.read_text() == "devices:\n  - {ae_title: CT1, colour: red}\n"


COMMENTED = """\
# top
devices:
# section CT
- ae_title: CT1 # c1
  host: a
  # port: 104

# section MR, hotline 555
- ae_title: MR1 # m1
  host: b
# the end
"""


def changed(file: Path, title: str, **changes: object) -> Directory:
    return Directory(
        tuple(replace(each, **changes) if each.name == title else each for each in read(file).devices)  # type: ignore[arg-type]  # fields by name
    )


@pytest.mark.parametrize(("title", "other"), [("CT1", "- ae_title: MR1 # m1"), ("MR1", "- ae_title: CT1 # c1")])
def test_comments_between_entries_stay_when_one_of_them_changes(tmp_path: Path, title: str, other: str) -> None:
    file = tmp_path / "devices.yaml"
    file.write_text(COMMENTED)
    wanted = changed(file, title, description="new")
    write_devices(file, wanted)
    assert read(file) == wanted
    for words in ("# top\n", "# section CT\n", "\n# section MR, hotline 555\n", "# the end\n", f"{other}\n"):
        assert words in file.read_text()


def test_comments_between_entries_stay_when_one_of_them_goes_and_its_own_go_with_it(tmp_path: Path) -> None:
    file = tmp_path / "devices.yaml"
    file.write_text(COMMENTED)
    write_devices(file, Directory(read(file).devices[1:]))
    assert file.read_text() == (
        "# top\ndevices:\n# section CT\n\n# section MR, hotline 555\n- ae_title: MR1 # m1\n  host: b\n# the end\n"
    )


def test_entries_that_refer_to_each_other_are_written_out(tmp_path: Path) -> None:
    file = tmp_path / "devices.yaml"
    file.write_text("devices:\n  - &ct\n    ae_title: CT1\n    host: ct1\n  - <<: *ct\n    ae_title: CT2\n")
    wanted = changed(file, "CT1", description="new")
    write_devices(file, wanted)
    assert read(file) == wanted


def test_lines_end_as_they_did(tmp_path: Path) -> None:
    file = tmp_path / "devices.yaml"
    file.write_bytes(COMMENTED.replace("\n", "\r\n").encode())
    write_devices(file, changed(file, "CT1", description="new"))
    assert b"- ae_title: MR1 # m1\r\n" in file.read_bytes()
    assert file.read_bytes().count(b"\n") == file.read_bytes().count(b"\r\n")


def test_every_file_before_is_kept(tmp_path: Path) -> None:
    file = tmp_path / "devices.yaml"
    texts = []
    for number in range(3):
        if file.exists():
            texts.append(file.read_text())
        write_devices(file, Directory((replace(CT1, description=f"number {number}"),)))
    kept = [tmp_path / "devices.yaml.bak", tmp_path / "devices.yaml.bak.2"]
    assert [each.read_text() for each in kept] == texts


def test_a_link_stays_one_and_what_it_leads_to_is_written(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    real, link = tmp_path / "shared" / "registry.yaml", tmp_path / "devices.yaml"
    real.write_text(WRITTEN)
    link.symlink_to(real)
    kept = write_devices(link, Directory((CT1,)))
    assert link.is_symlink()
    assert read(real) == Directory((CT1,))
    assert kept == tmp_path / "shared" / "registry.yaml.bak"


def test_what_would_be_read_as_something_else_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LDAP_PASSWORD", "open sesame")
    file = tmp_path / "devices.yaml"
    file.write_text(WRITTEN)
    for wrong in (
        replace(CT1, description="${LDAP_PASSWORD}"),
        replace(CT1, connections=(NetworkConnection("a", ""),)),
    ):
        with pytest.raises(ValueError, match="would not say what the directory says") as refused:
            write_devices(file, Directory((wrong,)))
        assert "sesame" not in str(refused.value)
        assert file.read_text() == WRITTEN
    assert not list(tmp_path.glob("*.bak*"))


def test_a_registry_that_cannot_be_read_is_written_anew_where_that_is_asked_for(tmp_path: Path) -> None:
    file = tmp_path / "devices.yaml"
    file.write_text("devices:\n  - {ae_title: CT1, colour: red}\n")
    kept = write_devices(file, Directory((CT1,)), anew=True)
    assert read(file) == Directory((CT1,))
    assert kept is not None
    assert "colour" in kept.read_text()
