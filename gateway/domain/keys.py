"""Which keys there are and where: the places of the table of `gateway.domain.attributes`, and what is outside it."""

from collections.abc import Iterable
from dataclasses import dataclass

from gateway.domain.attributes import (
    BY_TAG,
    SPS_SEQUENCE,
    Attributes,
    Level,
    held_tag,
    is_private,
    is_private_creator,
    private_creator,
)
from gateway.domain.elements import items_of


def coordinates(tag: str) -> str:
    """(gggg,eeee)."""
    return f"({tag[:4]},{tag[4:]})"


def keyword_of(tag: str) -> str:
    """What to call an attribute in a sentence."""
    if tag in BY_TAG:
        return BY_TAG[tag].keyword
    return "private attribute" if is_private(tag) else "attribute outside the table"


def known_key(tag: str, level: Level) -> bool:
    """Whether the table has this key here: `STEP` in the step's item, `NESTED` in other items, else on top."""
    attribute = BY_TAG.get(tag)
    if attribute is None:
        return False
    if level is Level.NESTED:
        return tag != SPS_SEQUENCE
    if level is Level.STEP:
        return attribute.level is Level.STEP
    return attribute.level not in (Level.STEP, Level.NESTED) or tag == SPS_SEQUENCE


@dataclass(frozen=True, slots=True)
class UnsupportedKey:
    """A key outside the table. `path` leads from the item's top to the attribute: (tag, private creator or '')."""

    place: str
    path: tuple[tuple[str, str], ...]

    @property
    def tag(self) -> str:
        return self.path[-1][0]

    def held_by(self, attributes: Attributes) -> bool:
        """Whether an item holds the attribute, so that the key counted for it after all."""
        sets = [attributes]
        for step, (tag, creator) in enumerate(self.path, 1):
            tags = [(each, held_tag(each, tag, creator) if is_private(tag) else tag) for each in sets]
            held = [(each, found) for each, found in tags if found is not None and found in each]
            if step == len(self.path):
                return bool(held)
            sets = [item for each, found in held for item in items_of(each, found)]
        return False


def unsupported_keys(keys: Attributes) -> tuple[UnsupportedKey, ...]:
    """The keys that are not of the table, or not in their place.

    An item is answered with a warning (Pending FF01 instead of FF00) if it holds one of them not (PS3.4 K.4.1.1.4).
    """
    return tuple(_unsupported(keys, "", (), Level.PATIENT))


def _unsupported(
    keys: Attributes, place: str, path: tuple[tuple[str, str], ...], level: Level
) -> Iterable[UnsupportedKey]:
    for tag, key in sorted(keys.items()):
        if is_no_key(tag):
            continue
        here = place + coordinates(tag)
        creator = private_creator(keys, tag) if is_private(tag) else ""
        if not known_key(tag, level):
            yield UnsupportedKey(here, (*path, (tag, creator)))
        elif key.get("vr") == "SQ":
            for item in items_of(keys, tag):
                yield from _unsupported(item, f"{here}[0]/", (*path, (tag, creator)), level_inside(tag))


def is_no_key(tag: str) -> bool:
    """Group lengths, private creators, and what belongs to the identifier and not to the model (Table K.6-1a)."""
    attribute = BY_TAG.get(tag)
    if attribute is not None:
        return attribute.level is Level.IDENTIFIER
    return tag.endswith("0000") or is_private_creator(tag)


def level_inside(tag: str) -> Level:
    """Where the keys of a sequence's item are."""
    return Level.STEP if tag == SPS_SEQUENCE else Level.NESTED
