"""The cases that are the same for every attribute: match by it, ask for it.

Two items of the population, FULL1 and FULL2, hold every attribute of Table K.6-1 and of the modules it refers to, with
different values. For each of their attributes, inside sequences too, one case asks by FULL1's value and one asks for
it without a value. What is found is worked out here by plain comparison, not by the gateway's matcher.
"""

from collections.abc import Iterator, Mapping, Sequence

from .datasets import (
    CHARACTER_SET,
    STEP,
    STUDY_INSTANCE_UID,
    TIMEZONE,
    Dataset,
    Element,
    leaves,
    normal_values,
    path_name,
    vr_of,
)
from .model import EXPLICIT, Case, Item

FULL = "FULL1"

# Table K.6-1 and its macros: these and what is in them are returned and never matched.
NEVER_MATCHED = frozenset({
    0x00400440,  # Protocol Context Sequence
    0x00400518,  # Container Type Code Sequence
    0x00380100,  # Pertinent Documents Sequence: universal matching only
    0x0040A390,  # HL7 Structured Document Reference Sequence
    CHARACTER_SET,
    TIMEZONE,
})  # fmt: skip

_NOT_KEYS = frozenset({CHARACTER_SET, TIMEZONE})
_NAME = 0x00100010
_FULL_NAMES = ("Complete^Alpha", "Complete^Beta")

# An SCP has to match by these (Table K.6-1: R), so no `needs`.
REQUIRED = frozenset({
    (STEP, 0x00400001), (STEP, 0x00400002), (STEP, 0x00400003), (STEP, 0x00080060), (STEP, 0x00400006),
    (0x00100010,), (0x00100020,),
})  # fmt: skip


def every_key_cases(items: Mapping[str, Item]) -> Iterator[Case]:
    """Both cases of every attribute that FULL1 holds. Only the items called like it are asked for, to be quick."""
    paths = [(path, element) for path, element in leaves(items[FULL].attributes) if path[-1] not in _NOT_KEYS]
    full = {name: item for name, item in items.items() if _holds(item.attributes, (_NAME,), _FULL_NAMES)}
    for path, element in paths:
        wanted = normal_values(element)[:1]
        never = not NEVER_MATCHED.isdisjoint(path)
        yield Case(
            name=f"every-key/match by {path_name(path)}",
            clause="Table K.6-1",
            keys=_keys(path, Element(element.vr, tuple(wanted)), narrowed=never),
            syntax=EXPLICIT,
            needs=_needs_for_matching(path),
            finds=frozenset(full if never else (n for n, i in items.items() if _holds(i.attributes, path, wanted))),
        )
    for path, element in paths:
        yield Case(
            name=f"every-key/return {path_name(path)}",
            clause="Table K.6-1",
            keys=_keys(path, Element(element.vr), narrowed=True),
            needs=() if path in REQUIRED else ("optional return keys",),
            finds=frozenset(full),
            returns={name: _returned(item.attributes, path) for name, item in full.items()},
        )


def _needs_for_matching(path: Sequence[int]) -> tuple[str, ...]:
    if path in REQUIRED:
        return ()
    inside = path[path[0] == STEP : -1]
    return ("optional matching keys", "keys inside optional sequences") if inside else ("optional matching keys",)


def _keys(path: Sequence[int], element: Element, *, narrowed: bool) -> Dataset:
    keys: Dataset = {path[-1]: element}
    for tag in reversed(path[:-1]):
        keys = {tag: Element("SQ", items=(keys,))}
    name = {_NAME: Element("PN", ("Complete^*",))} if narrowed else {}
    return {STUDY_INSTANCE_UID: Element("UI"), **keys, **name}


def _holds(attributes: Dataset, path: Sequence[int], wanted: Sequence[str]) -> bool:
    """Whether any value, of any item of each sequence on the way, is this one."""
    held = attributes.get(path[0])
    if held is None:
        return False
    if len(path) == 1:
        return any(value in normal_values(held) for value in wanted)
    return any(_holds(item, path[1:], wanted) for item in held.items)


def _returned(attributes: Dataset, path: Sequence[int]) -> Dataset:
    """What of the item lies on this path; nothing where it has no value there."""
    held = attributes.get(path[0])
    if held is None or held.empty:
        return {}
    if len(path) == 1:
        return {path[0]: held}
    items = tuple(_returned(item, path[1:]) for item in held.items)
    return {path[0]: Element(vr_of(path[0]), items=items)} if any(items) else {}
