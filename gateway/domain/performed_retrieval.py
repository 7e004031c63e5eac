"""Which attributes of a performed step are returned to whoever asks for it (MPPS Retrieve, PS3.4 F.8)."""

from collections.abc import Mapping, Sequence

from gateway.domain.attributes import Attributes, Element
from gateway.domain.performed_table import BY_TAG


def selected(held: Mapping[str, Element], tags: Sequence[str]) -> tuple[Attributes, tuple[str, ...], tuple[str, ...]]:
    """The held attributes with these tags (8 hex digits), all where none are named; then those left out.

    First those that are optional and not held, then those that are no attribute of a performed step. What every
    performed step has (types 1 and 2) and this one has not is returned without a value.
    """
    if not tags:
        return dict(held), (), ()
    found: Attributes = {}
    absent: list[str] = []
    unknown: list[str] = []
    for tag in dict.fromkeys(tags):
        row = BY_TAG.get(tag)
        if tag in held:
            found[tag] = held[tag]
        elif row is None:
            unknown.append(tag)
        elif row.on_create[0] in "12" and not row.on_create.startswith("1C"):
            found[tag] = {"vr": row.vr}
        elif not row.on_create.startswith("1C"):  # a condition that is not met asks for nothing
            absent.append(tag)
    return found, tuple(absent), tuple(unknown)
