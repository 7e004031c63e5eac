"""Identifiers and who issued them, and the keys the gateway mints itself (design D10).

Two identifiers are the same only if their issuers are. The issuer registry says which HL7 namespace, OID, FHIR
system and DICOM issuer are one authority; an authority it does not know is its own universal ID or namespace.
"""

import base64
import hashlib
import uuid
from collections.abc import Iterable
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
    """One assigning authority under all the names it goes by."""

    name: str
    namespaces: frozenset[str] = frozenset()
    universal_ids: frozenset[str] = frozenset()


class Issuers:
    """Resolves what a message says about an authority to the registry's name for it."""

    def __init__(self, issuers: Iterable[Issuer] = ()) -> None:
        self._by_name: dict[str, str] = {}
        self._by_universal_id: dict[str, str] = {}
        for issuer in issuers:
            self._by_name[issuer.name] = issuer.name
            self._by_name.update(dict.fromkeys(issuer.namespaces, issuer.name))
            self._by_universal_id.update(dict.fromkeys(issuer.universal_ids, issuer.name))

    def resolve(self, namespace: str, universal_id: str, default: str = "") -> str:
        """The authority's name: by universal ID, else by namespace, else as it was said, else the default."""
        if universal_id in self._by_universal_id:
            return self._by_universal_id[universal_id]
        if namespace in self._by_name:
            return self._by_name[namespace]
        return namespace or universal_id or self._by_name.get(default, default)


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
