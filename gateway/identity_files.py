"""The files that user identities are proved by: users with hashed passcodes, and whether all files can be used.

What may live here: reading, checking and writing them; keys are read in `identity_keys`. Whether an identity is proved
is decided in `edges.identity_proofs`. Nothing here shows a passcode or its hash.
"""

import base64
import binascii
import hashlib
import hmac
import io
import re
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationError, field_validator, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from gateway.domain.problem import Problem
from gateway.security_settings import UsersSettings
from gateway.whole_files import write_whole
from gateway.yaml_files import Strict, load_yaml, read_strict

# Passcodes

NAME_CHARACTERS_MAX = 64
PASSCODE_BYTES_MAX = 1_024
"""The longest name and passcode that are looked at; nobody types longer ones at a scanner."""

COST, BLOCK, PASSES = 2**14, 8, 5
"""scrypt as OWASP's password storage guide has it for least memory: 16 MB and a quarter of a second for one try."""
_COST_MAX, _BLOCK_MAX, _PASSES_MAX = 2**17, 16, 16
_SALT_BYTES, _DIGEST_BYTES = 16, 32


@dataclass(frozen=True, slots=True)
class HashedPasscode:
    """What is kept of a passcode, with the parameters of scrypt (RFC 7914) that it was made with."""

    cost: int
    block: int
    passes: int
    salt: bytes = field(repr=False)
    digest: bytes = field(repr=False)

    def fits(self, passcode: bytes) -> bool:
        """Whether it is this passcode. Takes the same time whatever the answer."""
        return hmac.compare_digest(self.digest, _scrypt(passcode, self.salt, self.cost, self.block, self.passes))

    def text(self) -> str:
        """As it stands in the file."""
        numbers = (str(number) for number in (self.cost, self.block, self.passes))
        return "$".join(("scrypt", *numbers, *(base64.b64encode(part).decode() for part in (self.salt, self.digest))))


def hashed(passcode: bytes) -> HashedPasscode:
    """Hash a new passcode."""
    salt = secrets.token_bytes(_SALT_BYTES)
    return HashedPasscode(COST, BLOCK, PASSES, salt, _scrypt(passcode, salt, COST, BLOCK, PASSES))


def read_hash(text: str) -> HashedPasscode:
    """The opposite of `HashedPasscode.text`. Raises ValueError, which does not quote the text."""
    said = re.fullmatch(r"scrypt\$(\d{1,7})\$(\d{1,3})\$(\d{1,3})\$([A-Za-z0-9+/=]+)\$([A-Za-z0-9+/=]+)", text)
    if said is None:
        raise ValueError("is no hashed passcode: let `gateway users add` write it")
    cost, block, passes = int(said[1]), int(said[2]), int(said[3])
    is_usable = 2 <= cost <= _COST_MAX and not cost & (cost - 1)
    if not (is_usable and 1 <= block <= _BLOCK_MAX and 1 <= passes <= _PASSES_MAX):
        raise ValueError("has parameters of scrypt that nobody would wait for, or that are none")
    try:
        salt, digest = (base64.b64decode(part, validate=True) for part in (said[4], said[5]))
    except binascii.Error:
        raise ValueError("is no hashed passcode: it is cut short") from None
    if len(salt) < _SALT_BYTES or len(digest) != _DIGEST_BYTES:
        raise ValueError("is no hashed passcode: it is cut short")
    return HashedPasscode(cost, block, passes, salt, digest)


def _scrypt(passcode: bytes, salt: bytes, cost: int, block: int, passes: int) -> bytes:
    room = 128 * block * (cost + passes + 2) + 1_048_576
    return hashlib.scrypt(passcode, salt=salt, n=cost, r=block, p=passes, maxmem=room, dklen=_DIGEST_BYTES)


class UserEntry(Strict):
    """One user."""

    name: str = Field(min_length=1, max_length=NAME_CHARACTERS_MAX, description="as the device sends it")
    passcode: str = Field(description="hashed by `gateway users add`", repr=False)

    @field_validator("passcode")
    @classmethod
    def _is_hashed(cls, said: str) -> str:
        read_hash(said)
        return said


class UsersFile(Strict):
    """`users.yaml`."""

    users: tuple[UserEntry, ...] = ()

    @model_validator(mode="after")
    def _told_apart(self) -> Self:
        names = [each.name for each in self.users]
        if len(set(names)) < len(names):
            raise ValueError("two users share a name")
        return self


_HEADING = "# Users with passcodes. `gateway users add NAME` writes here; a passcode stands here only as its hash."


def read_users(path: Path) -> dict[str, HashedPasscode]:
    """Name -> hash. Raises OSError, or ValueError with the first problem."""
    path.stat()
    problems: list[Problem] = []
    said = read_strict(path, UsersFile, problems)
    if said is None or problems:
        raise ValueError(str(problems[0]))
    return {each.name: read_hash(each.passcode) for each in said.users}


def put_user(path: Path, name: str, passcode: bytes) -> bool:
    """Add a user, or give one another passcode; whether the name is new. The file is made where there is none.

    Raises ValueError where the file or the name is wrong, OSError where it cannot be written.
    """
    try:
        entry = UserEntry(name=name, passcode=hashed(passcode).text())
    except ValidationError:
        raise ValueError(f"a name has 1 to {NAME_CHARACTERS_MAX} characters") from None
    tree = _tree(path)
    known = next((each for each in tree["users"] if each["name"] == name), None)
    if known is None:
        tree["users"].append(CommentedMap(entry.model_dump()))
    else:
        known["passcode"] = entry.passcode
    _write(path, tree)
    return known is None


def remove_user(path: Path, name: str) -> bool:
    """Take a user out; False where there is none of this name. Raises as `put_user` does."""
    tree = _tree(path)
    place = next((number for number, each in enumerate(tree["users"]) if each["name"] == name), None)
    if place is None:
        return False
    del tree["users"][place]
    _write(path, tree)
    return True


def _tree(path: Path) -> Any:
    """The file with its comments, checked; an empty one where there is none."""
    if not path.exists():
        tree = CommentedMap(users=[])
        tree.yaml_set_start_comment(_HEADING.removeprefix("# "))
        return tree
    read_users(path)
    tree = load_yaml(path, [])
    tree.setdefault("users", [])
    return tree


def _write(path: Path, tree: Any) -> None:
    writer = YAML(typ="rt")
    writer.width = 200
    text = io.StringIO()
    writer.dump(tree, text)
    write_whole(path, text.getvalue(), secret=True)


# Configuration


def proves_anything(users: UsersSettings) -> bool:
    """Whether anybody looks at user identities at all."""
    return bool(users.required or users.passwords or users.jwt or users.saml or users.trust_names)


def identity_problems(
    base: Path, users: UsersSettings, problems: list[Problem]
) -> Iterator[tuple[list[str], str, str]]:
    """Where in the settings, what and what to do, of every file that `users` names and that cannot be used.

    What is wrong inside users.yaml goes to `problems` itself, with the lines of that file.
    """
    if users.passwords is not None:
        path = base / users.passwords.file
        if path.is_file():
            read_strict(path, UsersFile, problems)
        else:
            yield ["passwords", "file"], f"there is no file {users.passwords.file}", "`gateway users add NAME` makes it"
    if users.jwt or users.saml:
        yield from _key_problems(base, users)
    if users.required and not (users.passwords or users.jwt or users.saml or users.trust_names):
        yield ["required"], "nobody could prove to be a user", "add `passwords`, `jwt`, `saml` or `trust_names`"


def _key_problems(base: Path, users: UsersSettings) -> Iterator[tuple[list[str], str, str]]:
    from gateway.identity_keys import read_certificates, read_keys  # late: it brings libraries that few sites need

    readers: list[tuple[list[str], str, Callable[[Path], object]]] = [
        *((["jwt", str(number), "keys"], each.keys, read_keys) for number, each in enumerate(users.jwt)),
        *((["saml", str(number), "certificate"], each.certificate, read_certificates)
          for number, each in enumerate(users.saml)),
    ]  # fmt: skip
    for where, name, read in readers:
        try:
            read(base / name)
        except OSError as error:
            yield where, f"{name}: {error.strerror}", "paths are relative to this file"
        except ValueError as error:
            yield where, f"{name} {error}", "ask whoever runs the identity provider for the file"
