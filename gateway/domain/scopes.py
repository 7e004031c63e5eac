"""Scopes of SMART App Launch: what a system may do with which resources, in the words of version 1 and 2.

What may live here: reading and writing scopes, what of those asked for is granted, and whether they permit something.
Only `system/` scopes are known: nobody launches the gateway, and no person signs in to it (Backend Services).
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

LETTERS = "cruds"
"""Create, read (also vread and history of one), update (also patch, and update as create), delete, search (also
history of a type), in the one order that SMART 2 has for them."""

ANY_TYPE = "*"

SCOPES_MAX = 256
"""Scopes that one text may name; some servers' clients ask for each type by itself."""

_VERSION_1: Mapping[str, str] = {"read": "rs", "write": "cud", "*": LETTERS}
"""SMART 2, section "Scopes for requesting FHIR Resources": how scopes of version 1 are to be taken."""

_SCOPE = re.compile(r"system/(\*|[A-Z][A-Za-z]{2,40})\.(read|write|\*|(?=[cruds])c?r?u?d?s?)")


@dataclass(frozen=True, slots=True)
class Scope:
    """What may be done with the resources of one type, or of any (`*`): letters of `LETTERS`, in their order."""

    type: str
    letters: str

    def __str__(self) -> str:
        """As SMART 2 has it: `system/ServiceRequest.rs`."""
        return f"system/{self.type}.{self.letters}"

    def covers(self, resource_type: str) -> bool:
        """Whether it says anything of resources of this type."""
        return self.type in (ANY_TYPE, resource_type)


def scope(text: str) -> Scope | None:
    """One scope; None where it is none that we know, as of another context (`patient/`), or one with a search."""
    read = _SCOPE.fullmatch(text)
    return Scope(read[1], _VERSION_1.get(read[2], read[2])) if read else None


def scopes(text: str) -> tuple[Scope, ...]:
    """The scopes in a text with blanks between; those that are not known grant nothing and are left out."""
    said = (scope(each) for each in text.split()[:SCOPES_MAX])
    return _united(each for each in said if each is not None)


def granted(asked: Iterable[Scope], allowed: Iterable[Scope]) -> tuple[Scope, ...]:
    """What is asked for and allowed, one scope for each type, never more than either."""
    may = tuple(allowed)
    return _united(
        Scope(one.type if two.type == ANY_TYPE else two.type, letters)
        for one in asked
        for two in may
        if one.covers(two.type) or two.covers(one.type)
        if (letters := _in_order(set(one.letters) & set(two.letters)))
    )


def permits(scopes: Iterable[Scope], resource_type: str, letters: str) -> bool:
    """Whether all of these letters are allowed for this type, by whichever scopes; `*` asks for every type at once.

    Nothing needs no scope.
    """
    may = {letter for each in scopes if each.covers(resource_type) for letter in each.letters}
    return may.issuperset(letters)


def text_of(scopes: Iterable[Scope]) -> str:
    """As a token response has them."""
    return " ".join(map(str, scopes))


def _united(scopes: Iterable[Scope]) -> tuple[Scope, ...]:
    """One for each type, in the order of types; none that says no more than the one of any type."""
    by_type: dict[str, set[str]] = {}
    for each in scopes:
        by_type.setdefault(each.type, set()).update(each.letters)
    everywhere = by_type.get(ANY_TYPE, set())
    return tuple(
        Scope(name, _in_order(letters))
        for name, letters in sorted(by_type.items())
        if name == ANY_TYPE or letters - everywhere
    )


def _in_order(letters: set[str]) -> str:
    return "".join(each for each in LETTERS if each in letters)
