"""`gateway users`, and what `gateway check` says of the files that identities are proved by."""

import json
import stat
from pathlib import Path

import pytest
from click.testing import Result
from identity_tokens import AUDIENCE, ISSUER, Provider
from typer.testing import CliRunner

from gateway.cli import cli
from gateway.testing import site

PASSCODE = "MARKED-passcode"


class Commands:
    """Runs `gateway users` and `gateway check` on a small site."""

    def __init__(self, folder: Path, **users: object) -> None:
        self.config = site(folder, users=users)
        self.file = folder / "users.yaml"

    def __call__(self, *words: str, said: str = "") -> Result:
        return CliRunner().invoke(cli, [*words, "--config", str(self.config)], input=said)


@pytest.fixture
def commands(tmp_path: Path) -> Commands:
    return Commands(tmp_path, passwords={"file": "users.yaml"})


def test_a_user_is_added_checked_listed_and_removed(commands: Commands) -> None:
    done = commands("users", "add", "mta1", said=f"{PASSCODE}\n")
    assert (done.exit_code, "mta1 was added" in done.output) == (0, True), done.output
    assert stat.S_IMODE(commands.file.stat().st_mode) == 0o600
    assert PASSCODE not in commands.file.read_text() + done.output
    assert commands("check").exit_code == 0
    assert json.loads(commands("users", "list", "--json").output) == [{"name": "mta1"}]
    assert commands("users", "check", "mta1", said=f"{PASSCODE}\n").exit_code == 0
    assert commands("users", "check", "mta1", said="wrong\n").exit_code == 1
    assert commands("users", "remove", "mta1").exit_code == 0
    assert json.loads(commands("users", "list", "--json").output) == []
    assert commands("users", "remove", "mta1").exit_code == 1


def test_another_passcode_replaces_the_first_and_comments_stay(commands: Commands) -> None:
    commands("users", "add", "mta1", said="first\n")
    commands.file.write_text(commands.file.read_text().replace("- name: mta1", "- name: mta1  # night shift"))
    done = commands("users", "add", "mta1", said="second\n")
    assert "new passcode" in done.output
    assert "# night shift" in commands.file.read_text()
    assert commands("users", "check", "mta1", said="first\n").exit_code == 1
    assert commands("users", "check", "mta1", said="second\n").exit_code == 0


@pytest.mark.parametrize(
    ("name", "said", "why"),
    [
        ("mta1", "\n", "empty passcode"),
        ("mta1", "x" * 1_025 + "\n", "at most"),
        ("x" * 65, "a\n", "1 to 64 characters"),
    ],
)
def test_what_is_no_user_changes_nothing(commands: Commands, name: str, said: str, why: str) -> None:
    done = commands("users", "add", name, said=said)
    assert (done.exit_code, why in done.output) == (1, True), done.output
    assert not commands.file.exists()


def test_without_a_file_of_users_the_setting_is_named(tmp_path: Path) -> None:
    done = Commands(tmp_path)("users", "add", "mta1", said="a\n")
    assert done.exit_code == 1
    assert "users: {passwords: {file: users.yaml}}" in " ".join(done.output.split())


def test_a_file_that_is_wrong_is_told_with_its_line_and_not_written_over(commands: Commands) -> None:
    wrong = "users:\n- name: mta1\n  passcode: MARKED\n"
    commands.file.write_text(wrong)
    for words in (("check",), ("users", "list"), ("users", "add", "mta2")):
        done = commands(*words, said="a\n")
        assert done.exit_code == 1
        assert "users.yaml:3 users.0.passcode: is no hashed passcode" in " ".join(done.output.split())
        assert "MARKED" not in done.output
    assert commands.file.read_text() == wrong


def test_two_users_of_one_name_are_told(commands: Commands) -> None:
    commands("users", "add", "mta1", said="a\n")
    line = commands.file.read_text().split("users:\n")[1]
    commands.file.write_text(commands.file.read_text() + line)
    assert "two users share a name" in commands("check").output


@pytest.mark.parametrize(
    ("users", "why"),
    [
        ({"passwords": {"file": "nowhere.yaml"}}, "users.passwords.file: there is no file nowhere.yaml"),
        ({"required": True}, "users.required: nobody could prove to be a user"),
        (
            {"jwt": [{"issuer": ISSUER, "audience": AUDIENCE, "keys": "gateway.yaml"}]},
            "users.jwt.0.keys: gateway.yaml holds no public key",
        ),
        (
            {"jwt": [{"issuer": ISSUER, "audience": AUDIENCE, "keys": "nowhere.json"}]},
            "users.jwt.0.keys: nowhere.json: No such file",
        ),
        (
            {"saml": [{"issuer": ISSUER, "audience": AUDIENCE, "certificate": "gateway.yaml"}]},
            "users.saml.0.certificate: gateway.yaml holds no certificate",
        ),
    ],
)
def test_check_names_every_file_that_proves_nothing(tmp_path: Path, users: dict[str, object], why: str) -> None:
    done = Commands(tmp_path, **users)("check")
    assert done.exit_code == 1
    assert why in " ".join(done.output.split())


def test_a_token_is_explained_check_by_check(tmp_path: Path) -> None:
    provider = Provider()
    commands = Commands(
        tmp_path,
        jwt=[{"issuer": ISSUER, "audience": AUDIENCE, "keys": "keys.pem"}],
        saml=[{"issuer": ISSUER, "audience": AUDIENCE, "certificate": "idp.pem"}],
    )
    provider.write(tmp_path)
    shown = tmp_path / "shown"
    for good in (provider.token() + b"\n", provider.assertion()):
        shown.write_bytes(good)
        done = commands("users", "token", str(shown))
        assert (done.exit_code, "It proves mta1." in done.output) == (0, True), done.output
    for false in (
        Provider().token(aud="other", exp=1_000_000_000),
        Provider().assertion(audience="other", since_s=-900, until_s=-60),
    ):
        shown.write_bytes(false)
        done = commands("users", "token", str(shown), "--json")
        said = json.loads(done.output)
        assert (done.exit_code, said["accepted"]) == (1, False)
        assert {each["check"] for each in said["findings"] if each["fault"]} == {"signature", "audience", "time"}
    shown.write_bytes(b"nonsense")
    assert "no JSON Web Token" in commands("users", "token", str(shown)).output


def test_tokens_are_not_explained_where_nobody_takes_them(commands: Commands) -> None:
    done = commands("users", "token", str(commands.config))
    assert (done.exit_code, "nobody's tokens are taken" in " ".join(done.output.split())) == (1, True)
