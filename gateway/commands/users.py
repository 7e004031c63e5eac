"""`gateway users`: users with passcodes, and what is wrong with a passcode, a token or an assertion.

A passcode is asked for and never shown; where standard input is no terminal its first line is the passcode.
"""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gateway.commands.console import CONFIG, ConfigOption, JSONOption, err, fail, out, print_json, print_table

if TYPE_CHECKING:
    from gateway.edges.identity_memory import Unreadable
    from gateway.edges.token_proofs import Checked
    from gateway.security_settings import UsersSettings

users = typer.Typer(no_args_is_help=True, help="Users that associations name: passcodes, and why a token is refused.")

NameArgument = Annotated[str, typer.Argument(help="The user name, as the device sends it.")]


@users.command("add")
def users_add(name: NameArgument, config: ConfigOption = CONFIG) -> None:
    """Add a user, or give one another passcode. A running gateway knows it at once."""
    from gateway.identity_files import put_user

    file = _file(config)
    passcode = _new_passcode()
    try:
        is_new = put_user(file, name, passcode)
    except ValueError as error:
        fail(str(error))
    except OSError as error:
        fail(f"{file}: {error.strerror}")
    out.print(
        f"{name} was added to {file}." if is_new else f"{name} has a new passcode.", highlight=False, markup=False
    )


@users.command("list")
def users_list(config: ConfigOption = CONFIG, json_output: JSONOption = False) -> None:
    """Everybody who has a passcode."""
    from gateway.identity_files import read_users

    file = _file(config)
    try:
        names = sorted(read_users(file)) if file.exists() else []
    except ValueError as error:
        fail(str(error))
    if json_output:
        print_json([{"name": name} for name in names])
    else:
        print_table(("User",), ((name,) for name in names))


@users.command("remove")
def users_remove(name: NameArgument, config: ConfigOption = CONFIG) -> None:
    """Take a user out. A running gateway knows it at once; associations that are open stay."""
    from gateway.identity_files import remove_user

    file = _file(config)
    try:
        is_gone = remove_user(file, name)
    except ValueError as error:
        fail(str(error))
    except OSError as error:
        fail(f"{file}: {error.strerror}")
    if not is_gone:
        fail(f"{file} has no user {name}; see `gateway users list`.")
    out.print(f"{name} was taken out of {file}.", highlight=False, markup=False)


@users.command("check")
def users_check(name: NameArgument, config: ConfigOption = CONFIG) -> None:
    """Say whether a passcode is this user's, as the gateway would find."""
    from gateway.identity_files import read_users

    file = _file(config)
    try:
        known = read_users(file) if file.exists() else {}
    except ValueError as error:
        fail(str(error))
    if name not in known:
        fail(f"{file} has no user {name}; see `gateway users list`.")
    if not known[name].fits(_passcode("Passcode")):
        fail("That is not the passcode.")
    out.print("That is the passcode.", highlight=False)


@users.command("token")
def users_token(
    file: Annotated[str, typer.Argument(help="A JSON Web Token or SAML assertion; - reads standard input.")],
    config: ConfigOption = CONFIG,
    json_output: JSONOption = False,
) -> None:
    """Say what is right and wrong with a JSON Web Token or a SAML assertion: signature, issuer, audience, time."""
    from gateway.edges.identity_proofs import Proofs

    settings = _settings(config)
    if not (settings.jwt or settings.saml):
        fail(f"{config}: `users` has neither `jwt` nor `saml`, so nobody's tokens are taken.")
    try:
        shown = (sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()).strip()
    except OSError as error:
        raise typer.BadParameter(f"{file}: {error.strerror}", param_hint="FILE") from None
    unreadable: list[Unreadable] = []
    proofs = Proofs(settings, config.parent, unreadable.append)
    checked = proofs.check_assertion(shown) if shown[:1] == b"<" else proofs.check_token(shown)
    for each in unreadable:
        err.print(f"{each.path}: {each.words}", style="red", markup=False, highlight=False)
    if json_output:
        print_json({"user": checked.name, "accepted": not checked.fault, "findings": list(_findings(checked))})
    else:
        print_table(("Check", "Result"), ((each["check"], each["fault"] or "ok") for each in _findings(checked)))
        verdict = "It would be refused." if checked.fault else f"It proves {checked.name}."
        out.print(verdict, highlight=False, markup=False)
    raise typer.Exit(1 if checked.fault else 0)


def _findings(checked: "Checked") -> Iterator[dict[str, str]]:
    for each in checked.findings:
        yield {"check": each.what, "fault": each.fault}


def _settings(config: Path) -> "UsersSettings":
    """The part of the configuration that is about users; the rest, and users.yaml, need not be in order."""
    from gateway.config import Settings
    from gateway.domain.problem import Problem
    from gateway.yaml_files import read_strict

    problems: list[Problem] = []
    settings = read_strict(config, Settings, problems)
    if settings is None or problems:
        for problem in problems:
            err.print(str(problem), markup=False, highlight=False, soft_wrap=True)
        fail(f"{len(problems)} problem(s); nothing was changed.")
    return settings.users


def _file(config: Path) -> Path:
    passwords = _settings(config).passwords
    if passwords is None:
        fail(f"{config} says nothing of passcodes: write `users: {{passwords: {{file: users.yaml}}}}`.")
    return config.parent / passwords.file


def _new_passcode() -> bytes:
    from gateway.identity_files import PASSCODE_BYTES_MAX

    passcode = _passcode("New passcode")
    if sys.stdin.isatty() and passcode != _passcode("The same again"):
        fail("They are not the same; nothing was changed.")
    if not passcode:
        fail("An empty passcode is none; nothing was changed.")
    if len(passcode) > PASSCODE_BYTES_MAX:
        fail(f"A passcode has at most {PASSCODE_BYTES_MAX} bytes; nothing was changed.")
    return passcode


def _passcode(prompt: str) -> bytes:
    import getpass

    said = getpass.getpass(f"{prompt}: ") if sys.stdin.isatty() else sys.stdin.readline().rstrip("\r\n")
    return said.encode()
