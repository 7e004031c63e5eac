"""How much one body may hold, in whichever form it comes."""

from typing import NamedTuple


class Bounds(NamedTuple):
    """What goes beyond is refused before it costs anything."""

    bytes_max: int = 16 * 1_048_576
    """Looked at before anything is read."""
    depth_max: int = 40
    """Objects and lists (of XML: elements) inside each other."""
    entries_max: int = 1000
    """Entries of one Bundle."""
    values_max: int = 1_000_000
    """Values in all: a megabyte of `[],` would otherwise become thirty of memory. A full order has a hundred."""


PLAIN_BOUNDS = Bounds()
