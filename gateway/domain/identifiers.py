"""Identifiers and who issued them, and the keys the gateway mints itself (design D10).

Two identifiers are the same only if their issuers are. The issuer registry says which HL7 namespace, OID, FHIR
system and DICOM issuer are one authority; an authority it does not know is its own universal ID or namespace.
"""

import base64
import hashlib
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Identifier:
    """A value and the name of the authority that issued it; '' where nobody said and no default applies."""

    value: str
    issuer: str = ""

    def __repr__(self) -> str:
        return f"Identifier(..., issuer={self.issuer!r})"  # the value may be a patient's


@dataclass(frozen=True, slots=True)
class Issuer:
    """One assigning authority under all the names it goes by: HL7 namespaces and DICOM issuers, OIDs, FHIR systems."""

    name: str
    namespaces: frozenset[str] = frozenset()
    universal_ids: frozenset[str] = frozenset()
    systems: frozenset[str] = frozenset()

    @property
    def names(self) -> Iterator[tuple[str, str]]:
        """Everything it is known by, each with the kind of name that must belong to one authority only."""
        yield from (("name", each) for each in sorted({self.name, *self.namespaces}))
        yield from (("universal ID", each) for each in sorted(self.universal_ids))
        yield from (("FHIR system", each) for each in sorted(self.systems))


def clashes(issuers: Sequence[Issuer]) -> Iterator[tuple[int, str, str, str]]:
    """(place in the sequence, kind of name, the name, who has it already) of each name that two authorities claim."""
    taken: dict[tuple[str, str], int] = {}
    for place, issuer in enumerate(issuers):
        for kind, name in issuer.names:
            owner = taken.setdefault((kind, name), place)
            if owner != place:
                yield place, kind, name, issuers[owner].name


class Issuers:
    """Resolves what a message says about an authority to the registry's name for it."""

    def __init__(self, issuers: Iterable[Issuer] = ()) -> None:
        self._by_name: dict[str, str] = {}
        self._by_universal_id: dict[str, str] = {}
        self._by_system: dict[str, str] = {}
        for issuer in issuers:
            self._by_name[issuer.name] = issuer.name
            self._by_name.update(dict.fromkeys(issuer.namespaces, issuer.name))
            self._by_universal_id.update(dict.fromkeys(issuer.universal_ids, issuer.name))
            self._by_system.update(dict.fromkeys(issuer.systems, issuer.name))

    def __contains__(self, name: str) -> bool:
        """Whether the registry has an authority of that name or namespace."""
        return name in self._by_name

    @property
    def known(self) -> Sequence[str]:
        """The registry's own names of its authorities."""
        return sorted(set(self._by_name.values()))

    def resolve(self, namespace: str, universal_id: str, default: str = "") -> str:
        """The authority's name: by universal ID, else by namespace, else as it was said, else the default."""
        if universal_id in self._by_universal_id:
            return self._by_universal_id[universal_id]
        if namespace in self._by_name:
            return self._by_name[namespace]
        return namespace or universal_id or self._by_name.get(default, default)

    def resolve_system(self, system: str, default: str = "") -> str:
        """The same for the system of a FHIR identifier; an OID may stand there as urn:oid."""
        found = self._by_system.get(system) or self._by_universal_id.get(system.removeprefix("urn:oid:"))
        return found or system or self._by_name.get(default, default)

    def contradiction(self, namespace: str, universal_id: str) -> tuple[str, str] | None:
        """The two authorities that one identifier names; None where both names mean the same, or one is unknown."""
        by_name, by_id = self._by_name.get(namespace), self._by_universal_id.get(universal_id)
        return (by_name, by_id) if by_name and by_id and by_name != by_id else None

    def explain(self, namespace: str, universal_id: str, default: str = "") -> str:
        """Why an authority is taken for what it is, in words for people."""
        if two := self.contradiction(namespace, universal_id):
            return f"{namespace!r} is {two[0]}, but {universal_id!r} is {two[1]}: refused"
        if universal_id in self._by_universal_id:
            return f"{self._by_universal_id[universal_id]}: it has the universal ID {universal_id!r}"
        if namespace in self._by_name:
            return f"{self._by_name[namespace]}: it has the namespace {namespace!r}"
        if namespace or universal_id:
            said = namespace or universal_id
            return f"{said}: as it was sent; `issuers` does not name it, so it is no other authority's"
        if default:
            return f"{self._by_name.get(default, default)}: the listener's `issuer`, because none was sent"
        return "none: neither was one sent nor does the listener have an `issuer`"


@dataclass(frozen=True, slots=True)
class Mint:
    """Makes the keys that an order lacks, always the same ones for the same order, step and generation.

    They are stored when first made and never made again (a published Study Instance UID never changes), so
    determinism matters only to a replay on an empty store.
    """

    namespace: uuid.UUID

    def study_instance_uid(self, key: str) -> str:
        """A UID under 2.25 (PS3.5 B.2), at most 44 characters."""
        return f"2.25.{uuid.uuid5(self.namespace, 'study:' + key).int}"

    def short_id(self, prefix: str, key: str) -> str:
        """An SH value of 14 characters, unique for all practical purposes (65 bits): accession, RP ID, SPS ID."""
        digest = hashlib.blake2b(f"{self.namespace}:{prefix}:{key}".encode(), digest_size=9).digest()
        return prefix + base64.b32encode(digest).decode()[:13]
