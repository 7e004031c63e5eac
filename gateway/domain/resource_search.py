"""What held resources are looked for by: tests of their index rows (`domain.resources.Indexed`), as plain values.

Reading these out of a query is `wire.fhir_search`; asking a database is `edges.store_resources`. A resource is found
if it meets every criterion, and it meets one if any of its index rows of that name passes any of its `tests`.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

ID, LAST_UPDATED = "_id", "_lastUpdated"
"""Names of criteria that are about the resource's row and not about its index: its id, and when it was changed last.

Instants of `LAST_UPDATED` have 20 digits (microseconds), for whoever polls by it must miss nothing.
"""


class How(StrEnum):
    """How an index row is compared with a comparison's `low` and `high`. A date's row is a range (value, system)."""

    VALUE = "value"
    """The value is `low`, of whatever system."""
    VALUE_OF_SYSTEM = "value of system"
    """The value is `low` and the system is `high`."""
    SYSTEM = "system"
    """The system is `high`."""
    STARTS = "starts"
    """The value begins with `low`."""
    CONTAINS = "contains"
    ENDS = "ends"
    ANY = "any"
    """There is a row at all."""
    WITHIN = "within"
    """The row's range lies within `low` to `high`."""
    OVERLAPS = "overlaps"
    GREATER = "greater"
    """Some of the row's range is after `high`."""
    LESS = "less"
    """Some of the row's range is before `low`."""
    FROM = "from"
    """The value is `low` or greater."""
    UP_TO = "up to"
    """The value is `high` or less."""
    AFTER = "after"
    """All of the row's range is after `high`."""
    BEFORE = "before"


class Comparison(NamedTuple):
    """One comparison with an index row."""

    how: How
    low: str = ""
    high: str = ""


@dataclass(frozen=True, slots=True)
class Criterion:
    """One thing that is asked of a resource. `negated`: no row may pass.

    With `chain` the tests are not about the resource but about those that it refers to by this parameter: one of them
    meets the criterion beside its type.
    """

    name: str
    tests: tuple[Comparison, ...] = field(default=(), repr=False)
    negated: bool = False
    chain: tuple[tuple[str, "Criterion"], ...] = ()


class SortKey(StrEnum):
    """By what resources that are found are ordered; among equals, by when they came first."""

    LAST_UPDATED = "_lastUpdated"
    ID = "_id"
    AUTHORED = "authored"
    """When it was asked for: index rows of that name."""


@dataclass(frozen=True, slots=True)
class Sorting:
    """How what is found is ordered: oldest and least first unless `descending`."""

    by: SortKey = SortKey.LAST_UPDATED
    descending: bool = False


OLDEST_FIRST = Sorting()
"""By their last change: whoever pages on sees what changed meanwhile again, and misses nothing."""


class Position(NamedTuple):
    """Where a page ended: what its last resource is ordered by, and its number in the store."""

    sorted_by: str
    number: int
