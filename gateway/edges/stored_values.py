"""How values are written into rows, so that equal values have equal texts; for all that reads or writes rows."""

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache

from pydantic_core import to_json

from gateway.domain.attributes import Attributes
from gateway.edges.database import StoreError


def json_text(value: Attributes | Sequence[tuple[str, str]] | Sequence[str]) -> str:
    """The one text of a value: equal attribute sets have equal texts, so a change can be seen without reading it."""
    if isinstance(value, dict):
        value = dict(sorted(value.items()))
    try:
        return to_json(value).decode()
    except ValueError:  # its text quotes the value
        raise StoreError("a text has characters that cannot be encoded") from None


_MINTED_BY_RANK = ("StudyInstanceUID", "AccessionNumber", "RequestedProcedureID")


def minted_flags(minted: frozenset[str]) -> int:
    """Which keys of a procedure were minted, as bits in the order of `_MINTED_BY_RANK`."""
    return sum(1 << rank for rank, keyword in enumerate(_MINTED_BY_RANK) if keyword in minted)


def minted_of(flags: int) -> frozenset[str]:
    """The keywords that `minted_flags` wrote."""
    return frozenset(keyword for rank, keyword in enumerate(_MINTED_BY_RANK) if flags & 1 << rank)


def bare(value: str) -> str:
    """A key without its padding, which does not count (PS3.5 6.2): so it is indexed, and so it is looked for."""
    return value.strip(" \0")


def storable(peers_text: str) -> str:
    """A text of a peer's choosing in characters that the database can hold."""
    return peers_text if peers_text.isascii() else peers_text.encode("utf-8", "backslashreplace").decode()


@lru_cache(maxsize=8)  # one job says the same time for each of its rows
def utc_text(at: datetime) -> str:
    """An event's time as stored: UTC, fixed width.

    Raises ValueError for a time without a zone.
    """
    if at.tzinfo is None:
        raise ValueError("an event's time needs a zone")
    return at.astimezone(UTC).isoformat(timespec="microseconds")
