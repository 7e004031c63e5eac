"""When what was said: facts count in the order in which their sender made them, not in which they arrive.

A stamp is when a message was made and by whom. Every attribute held carries one, so a message that arrives late fills
what is unknown and replaces what is older, and nothing newer. Only one sender's clock is compared with itself: between
two senders the later to arrive counts. Nothing here knows what an attribute means. Where the order of arrival counts
all the same is in docs/explanation/identity.md.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

from gateway.domain.attributes import Attributes


class Stamp(NamedTuple):
    """When a message was made (UTC, ISO 8601 of fixed width, so that text order is time order), and by whom.

    `weak` marks what somebody else's record lent (a merge): anything said of the person itself replaces it. Without
    `made` there is nothing to compare, and the later to arrive counts.
    """

    made: str = ""
    sender: str = ""
    weak: bool = False

    def replaces(self, held: "Stamp | None") -> bool:
        """Whether what this stamp says counts against what `held` said; None: nothing was said yet."""
        if held is None:
            return True
        if self.weak is not held.weak:
            return held.weak
        return self.sender != held.sender or self.made >= held.made

    def lent(self) -> "Stamp":
        """The same, said of another record."""
        return Stamp(self.made, self.sender, weak=True)


UNSTAMPED = Stamp()


@dataclass(frozen=True, slots=True)
class Stamps:
    """The stamps of one held record. `base` is that of everything held; `others` names the exceptions.

    An exception may be a DICOM tag, also of an attribute that was deleted, or any other name that the holder keeps a
    time for. `events` are what was said to happen, each by its name, in the order in which it was made.
    """

    base: Stamp | None = None
    others: Mapping[str, Stamp] = field(default_factory=dict)
    events: tuple[tuple[str, Stamp], ...] = ()

    def of(self, name: str, held: bool) -> Stamp | None:
        """The stamp of one fact; None where nothing was said of it. `held`: whether it has a value now."""
        found = self.others.get(name)
        return found if found is not None or not held else self.base

    def noted(self, name: str, stamp: Stamp) -> "Stamps":
        """The same with this fact said at `stamp`."""
        return Stamps(self.base, {**self.others, name: stamp}, self.events)

    def weak_names(self) -> frozenset[str]:
        """The facts that another record lent."""
        return frozenset(name for name, stamp in self.others.items() if stamp.weak)


NO_STAMPS = Stamps()


def merge_said(
    held: Attributes, stamps: Stamps, said: Attributes, stamp: Stamp = UNSTAMPED
) -> tuple[Attributes, Stamps]:
    """What is held, and since when, after somebody spoke.

    Silence keeps a value, a zero-length element deletes it, and what is older than what is held changes nothing.
    """
    if not said and held:
        return held, stamps
    if not held and stamps.base is None and not stamps.others:  # new: there is nothing to compare with
        merged = {tag: spoken for tag, spoken in said.items() if spoken.get("Value")}
        others = dict.fromkeys([tag for tag in said if tag not in merged], stamp) if len(merged) < len(said) else {}
        return merged, Stamps(stamp, others, stamps.events)
    late = not stamp.replaces(stamps.base)
    if late or stamps.others:
        said = {tag: spoken for tag, spoken in said.items() if stamp.replaces(stamps.of(tag, tag in held))}
    merged = {**held, **said}
    deleted = [tag for tag, spoken in said.items() if not spoken.get("Value")]
    for tag in deleted:
        del merged[tag]
    if late:
        if not said:
            return merged, stamps
        return merged, Stamps(stamps.base, {**stamps.others, **dict.fromkeys(said, stamp)}, stamps.events)
    others = {name: since for name, since in stamps.others.items() if name not in said}
    if held and stamps.base != stamp:
        since = stamps.base or UNSTAMPED
        others |= {tag: since for tag in held if tag not in said and tag not in others}
    others |= dict.fromkeys(deleted, stamp)
    return merged, Stamps(stamp, others, stamps.events)


def as_news(
    said: Attributes, formerly: Attributes | None, held: Attributes, defaults: Attributes | None = None
) -> Attributes:
    """What is news of what a source says that is the whole truth of itself, and said `formerly` what it says no more.

    What it says again is no news, so whatever others said meanwhile stays. What it says no more is deleted, or as the
    defaults have it, where what is held is still that. None: it said nothing before, and all of it is news.
    """
    if formerly is None or not held:
        return said
    news = {tag: each for tag, each in said.items() if formerly.get(tag) != each}
    gone = {tag: each for tag, each in formerly.items() if tag not in said and held.get(tag) == each}
    return news | {tag: (defaults or {}).get(tag) or {"vr": each["vr"]} for tag, each in gone.items()}


def fill(held: Attributes, stamps: Stamps, defaults: Attributes, stamp: Stamp = UNSTAMPED) -> tuple[Attributes, Stamps]:
    """What is held, with defaults in its gaps: whatever anybody says replaces them, and what was deleted stays away."""
    gaps = {tag: element for tag, element in defaults.items() if tag not in held and tag not in stamps.others}
    if not gaps:
        return held, stamps
    weak = stamp.lent()
    return {**held, **gaps}, Stamps(stamps.base, {**stamps.others, **dict.fromkeys(gaps, weak)}, stamps.events)


def lend(held: Attributes, stamps: Stamps, lent: Attributes, since: Stamps) -> tuple[Attributes, Stamps]:
    """What is held of one person, with what is known of another record of the same person filled into its gaps."""
    for tag, element in lent.items():
        stamp = (since.of(tag, held=True) or UNSTAMPED).lent()
        if stamp.replaces(stamps.of(tag, tag in held)):
            held, stamps = {**held, tag: element}, stamps.noted(tag, stamp)
    return held, stamps


_EVENTS = "!"
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def stamps_text(stamps: Stamps) -> str:
    """For the store: '' where nothing was ever stamped."""
    if stamps.base is None and not stamps.others and not stamps.events:
        return ""
    base = stamps.base or UNSTAMPED
    if not stamps.others and not stamps.events:
        return _base_text(base)
    written: dict[str, Any] = {"": _text(base)}
    for name, stamp in stamps.others.items():
        written.setdefault(_text(stamp), []).append(name)
    if stamps.events:  # those made with the base itself, nearly all, without repeating it
        written[_EVENTS] = [name if stamp == base else [name, _text(stamp)] for name, stamp in stamps.events]
    return _encode(written)


@lru_cache(maxsize=8)  # one message gives most of what it says one stamp, and nothing else
def _base_text(base: Stamp) -> str:
    return _encode({"": _text(base)})


def stamps_of(text: str) -> Stamps:
    """As `stamps_text` wrote them."""
    if not text:
        return NO_STAMPS
    read = json.loads(text)
    base = _stamp(read.pop(""))
    events = tuple(
        (each, base) if isinstance(each, str) else (each[0], _stamp(each[1])) for each in read.pop(_EVENTS, ())
    )
    others = {name: stamp for said, names in read.items() for stamp in (_stamp(said),) for name in names}
    return Stamps(base, others, events)


def _text(stamp: Stamp) -> str:
    return f"{'~' if stamp.weak else ''}{stamp.made} {stamp.sender}"


def _stamp(text: str) -> Stamp:
    made, _, sender = text.removeprefix("~").partition(" ")
    return Stamp(made, sender, text.startswith("~"))
