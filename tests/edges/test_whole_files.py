"""Files replaced whole: never half, with the mode and owner that they had, and secrets for their owner alone."""

import os
import stat
from pathlib import Path

import pytest

from gateway.whole_files import write_whole


def mode(file: Path) -> int:
    return stat.S_IMODE(file.stat().st_mode)


@pytest.mark.parametrize(("secret", "made"), [(False, 0o644), (True, 0o600)])
def test_a_new_file_has_its_mode_whatever_the_umask(tmp_path: Path, secret: bool, made: int) -> None:
    before = os.umask(0o077)
    try:
        write_whole(tmp_path / "new", "größer", secret=secret)
    finally:
        os.umask(before)
    assert ((tmp_path / "new").read_text(encoding="utf-8"), mode(tmp_path / "new")) == ("größer", made)


@pytest.mark.parametrize(
    ("before", "secret", "after"),
    [(0o640, False, 0o640), (0o640, True, 0o640), (0o664, False, 0o664), (0o644, True, 0o640), (0o600, False, 0o600)],
)
def test_a_file_keeps_its_mode_but_a_secret_is_never_for_everybody(
    tmp_path: Path, before: int, secret: bool, after: int
) -> None:
    file = tmp_path / "file"
    file.write_text("old")
    file.chmod(before)
    write_whole(file, b"new", secret=secret)
    assert (file.read_bytes(), mode(file)) == (b"new", after)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_file_still_belongs_to_the_service_when_an_administrator_has_changed_it(tmp_path: Path) -> None:
    file = tmp_path / "users.yaml"
    file.write_text("old")
    os.chown(file, 12345, 23456)
    write_whole(file, "new", secret=True)
    assert (file.stat().st_uid, file.stat().st_gid) == (12345, 23456)


def test_a_group_that_cannot_be_kept_gets_no_other_in_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise PermissionError

    file = tmp_path / "users.yaml"
    file.write_text("old")
    file.chmod(0o660)
    if os.geteuid() != 0:
        pytest.skip("only root can make a file of another group")
    os.chown(file, -1, 23456)
    monkeypatch.setattr("gateway.whole_files.os.fchown", refused)
    write_whole(file, "new", secret=True)
    assert mode(file) == 0o600


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "no space left")

    (tmp_path / "file").write_text("old")
    monkeypatch.setattr("gateway.whole_files.os.fsync", full)
    with pytest.raises(OSError, match="no space"):
        write_whole(tmp_path / "file", "new")
    assert [(each.name, each.read_text()) for each in tmp_path.iterdir()] == [("file", "old")]
