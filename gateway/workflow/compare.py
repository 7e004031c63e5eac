"""What changed mappings would do to messages: the differences of two results, and their sum over a whole archive.

Everything here is bounded: sums and a few examples, never the messages. The sums of several processes add up.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any

from gateway.domain.mapping import Event, MappingResult
from gateway.domain.order import OrderEvent
from gateway.domain.refusal import Refusal
from gateway.domain.transcript import Readable, transcript

EXAMPLES_MAX = 5
"""Different examples kept of each change."""
ORDERS_COUNTED_MAX = 100_000
"""Orders told apart for one attribute; what changes more than these changes nearly everything."""
_REASONS_MAX = 1_000
_EXAMPLE_LENGTH_MAX = 200
_STEP = ">"


@dataclass(frozen=True, slots=True)
class Change:
    """One attribute of one order or patient that would be different; None where it is not given.

    `attribute` is a DICOM keyword, with `>` before those of a step. `subject` is the order's number or the patient's.
    """

    attribute: str
    subject: str = field(repr=False)
    old: str | None = field(repr=False)
    new: str | None = field(repr=False)


def changes(old: MappingResult, new: MappingResult) -> list[Change]:
    """What the new result says differently. Both have events."""
    if old.events == new.events:
        return []
    found: list[Change] = []
    pairs = list(zip(old.events, new.events, strict=False))
    if len(old.events) == len(new.events):
        pairs = [(one, other) for one, other in pairs if one != other]
    told = [_without_the_same(one, other) for one, other in pairs]
    before, after = (transcript(MappingResult(events))["events"] for events in zip(*told, strict=True))
    if len(old.events) != len(new.events):
        found.append(Change("number of events", _subject(before[0]), str(len(old.events)), str(len(new.events))))
    for one, other in zip(before, after, strict=True):
        said, says = dict(_told(one)), dict(_told(other))
        found += [
            Change(place[0], _subject(one), said.get(place), says.get(place))
            for place in dict.fromkeys((*said, *says))
            if said.get(place) != says.get(place)
        ]
    if not found:  # not what the steps show, but what would be made for a key that is lacking
        found.append(Change("policy for lacking keys", _subject(before[0]), "as before", "another"))
    return found


def _without_the_same(one: Event, other: Event) -> tuple[Event, Event]:
    """Both without the parts that are the same and much to tell."""
    if not isinstance(one, OrderEvent) or not isinstance(other, OrderEvent):
        return one, other
    alike: dict[str, Any] = {}
    if one.procedures == other.procedures:
        alike["procedures"] = ()
    if one.patient == other.patient:
        alike["patient"] = replace(one.patient, attributes={})
    return replace(one, **alike), replace(other, **alike)


def _subject(event: Readable) -> str:
    named = (part.get("identifiers", ()) for part in event.values() if isinstance(part, dict))
    identifiers = (identifier for several in named for identifier in several)
    return str(event.get("placer") or event.get("filler") or next(identifiers, ""))


def _told(event: Readable) -> Iterator[tuple[tuple[str, int, int], str]]:
    """((attribute, procedure, step), value) of an event."""
    for key, value in event.items():
        if key == "procedures":
            yield ("number of procedures", 0, 0), str(len(value))
            for number, procedure in enumerate(value):
                yield from _told_of_procedure(procedure, number)
        elif isinstance(value, dict):
            yield from (((inner, 0, 0), readable_text(said)) for inner, said in value.items())
        elif key != "where":
            yield (key, 0, 0), readable_text(value)


def _told_of_procedure(procedure: Readable, number: int) -> Iterator[tuple[tuple[str, int, int], str]]:
    for key, value in procedure.items():
        if key == "steps":
            yield ("number of steps", number, 0), str(len(value))
            for index, step in enumerate(value):
                yield from (((f"{_STEP}{inner}", number, index), readable_text(said)) for inner, said in step.items())
        elif isinstance(value, dict):
            yield from (((inner, number, 0), readable_text(said)) for inner, said in value.items())
        elif key != "where":
            yield (key, number, 0), readable_text(value)


def readable_text(value: Any) -> str:
    """A value on one line, short enough for an example."""
    if isinstance(value, list):
        told = "\\".join(readable_text(one) for one in value)
    elif isinstance(value, dict):
        code = value.get("CodeValue") or value.get("LongCodeValue") or value.get("URNCodeValue")
        told = (
            f"{code}^{value.get('CodeMeaning', '')}^{value.get('CodingSchemeDesignator', '')}"
            if code
            else " ".join(readable_text(one) for one in value.values())
        )
    else:
        told = '""' if value is None else str(value)
    return told


@dataclass(slots=True)
class Examples:
    """How many messages, and the first of each different kind, as (old, new) -> message number."""

    messages: int = 0
    shown: dict[tuple[str, str], int] = field(default_factory=dict)

    def note(self, number: int, old: str = "", new: str = "") -> None:
        self.messages += 1
        kind = old[:_EXAMPLE_LENGTH_MAX], new[:_EXAMPLE_LENGTH_MAX]
        if len(self.shown) < EXAMPLES_MAX:
            self.shown.setdefault(kind, number)

    def add(self, other: "Examples") -> None:
        self.messages += other.messages
        for kind, number in other.shown.items():
            if len(self.shown) < EXAMPLES_MAX or kind in self.shown:
                self.shown[kind] = min(number, self.shown.get(kind, number))


@dataclass(slots=True)
class AttributeTally:
    """One attribute that changes: in how many messages, of how many orders (at most ORDERS_COUNTED_MAX), as what."""

    examples: Examples = field(default_factory=Examples)
    orders: set[int] = field(default_factory=set)


@dataclass(slots=True)
class Comparison:
    """What another mapping would do to archived messages, summed."""

    messages: int = 0
    same: int = 0
    changed: int = 0
    refused_by_both: int = 0
    unchanged: int = 0
    """Of a listener whose mapping is the same in both; nothing of them is read."""
    skipped: int = 0
    """Of a type that no mapping reads, or of a listener that is not there any more."""
    attributes: dict[str, AttributeTally] = field(default_factory=dict)
    newly_refused: dict[str, Examples] = field(default_factory=dict)
    newly_accepted: dict[str, Examples] = field(default_factory=dict)
    refused_otherwise: dict[str, Examples] = field(default_factory=dict)

    def note(self, number: int, old: MappingResult, new: MappingResult) -> None:
        """Add what message `number` gives by the two mappings."""
        self.messages += 1
        if old.refusals and new.refusals:
            self.refused_by_both += 1
            if old.refusals != new.refusals:
                _noted(self.refused_otherwise, _reason(new.refusals[0]), number)
        elif new.refusals:
            _noted(self.newly_refused, _reason(new.refusals[0]), number)
        elif old.refusals:
            _noted(self.newly_accepted, _reason(old.refusals[0]), number)
        elif old.events == new.events:
            self.same += 1
        else:
            self.changed += 1
            self._changed(number, changes(old, new))

    def _changed(self, number: int, found: list[Change]) -> None:
        seen: set[str] = set()
        for change in found:
            tally = self.attributes.setdefault(change.attribute, AttributeTally())
            if change.attribute not in seen:
                tally.examples.note(number, _shown(change.old), _shown(change.new))
                seen.add(change.attribute)
            if len(tally.orders) < ORDERS_COUNTED_MAX:
                tally.orders.add(int.from_bytes(blake2b(change.subject.encode(), digest_size=8).digest()))

    def add(self, other: "Comparison") -> None:
        """Add the sum over other messages."""
        self.messages += other.messages
        self.same += other.same
        self.changed += other.changed
        self.refused_by_both += other.refused_by_both
        self.unchanged += other.unchanged
        self.skipped += other.skipped
        for attribute, tally in other.attributes.items():
            held = self.attributes.setdefault(attribute, AttributeTally())
            held.examples.add(tally.examples)
            for order in tally.orders:
                if len(held.orders) >= ORDERS_COUNTED_MAX:
                    break
                held.orders.add(order)
        for mine, theirs in (
            (self.newly_refused, other.newly_refused),
            (self.newly_accepted, other.newly_accepted),
            (self.refused_otherwise, other.refused_otherwise),
        ):
            for reason, examples in theirs.items():
                _of(mine, reason).add(examples)

    @property
    def nothing_changes(self) -> bool:
        """Whether the other mapping would do exactly the same."""
        return not (self.changed or self.newly_refused or self.newly_accepted)


def _shown(value: str | None) -> str:
    return "(none)" if value is None else value


def _reason(refusal: Refusal) -> str:
    """A refusal without its value, so that equal mistakes add up."""
    return f"{refusal.kind} at {refusal.where or 'the message'}"


def _noted(into: dict[str, Examples], reason: str, number: int) -> None:
    _of(into, reason).note(number)


def _of(into: dict[str, Examples], reason: str) -> Examples:
    if reason not in into and len(into) >= _REASONS_MAX:
        reason = "other reasons"
    return into.setdefault(reason, Examples())


def totals(examples: Mapping[str, Examples]) -> int:
    """Messages of all reasons together."""
    return sum(each.messages for each in examples.values())
