"""Which fields of messages carry values that no rule reads: what a sender says and nobody hears.

Bounded: one line for each message type and field, whatever the traffic.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from gateway.domain.mapping import Mapping as FieldMapping
from gateway.domain.refusal import Refused
from gateway.domain.source import Entry, Path
from gateway.wire import hl7_source
from gateway.wire.hl7_names import field_name
from gateway.workflow.intake import Feed

FIELDS_MAX = 20_000
"""Lines kept; a message of 5,000 segments of invented names must not fill the memory."""

_EXAMPLE_LENGTH_MAX = 80
_READ_BY_INTAKE = frozenset({"ORC-1", "ORC-5", "OBX-1", "OBX-2", "OBR-25", "SCH-25", "AIS-2", "MSA-1", "MSA-2"})
"""Beside all of MSH and EVN, set IDs, and what the rules read: order control, states of orders, results, appointments
and services, an observation's type, whose answer a response is."""


@dataclass(slots=True)
class Unread:
    """A field with values that no rule reads: in how many messages, one of its values, and where that is."""

    messages: int = 0
    example: str = field(default="", repr=False)
    number: int = 0


@dataclass(slots=True)
class Coverage:
    """The sum over messages: (message type, field) -> what is unread there."""

    messages: int = 0
    skipped: int = 0
    by_type: dict[str, int] = field(default_factory=dict)
    unread: dict[tuple[str, str], Unread] = field(default_factory=dict)

    def note(self, number: int, raw: bytes, feed: Feed) -> None:
        """Add message `number`, read as the feed reads it."""
        try:
            message = feed.read(raw)
            document = hl7_source.document(message)
        except Refused:
            self.skipped += 1
            return
        self.messages += 1
        kind = f"{message.message_code}^{message.trigger_event}"
        self.by_type[kind] = self.by_type.get(kind, 0) + 1
        read = read_fields(feed.mapping)
        found: dict[str, str] = {}
        for entry in document.entries:
            for key in entry.said - read - found.keys():
                if not _of_no_interest(key):
                    found[key] = _example(entry, key)
        for key, example in found.items():
            if len(self.unread) < FIELDS_MAX or (kind, key) in self.unread:
                line = self.unread.setdefault((kind, key), Unread(0, example, number))
                line.messages += 1

    def add(self, other: "Coverage") -> None:
        """Add the sum over other messages."""
        self.messages += other.messages
        self.skipped += other.skipped
        for kind, messages in other.by_type.items():
            self.by_type[kind] = self.by_type.get(kind, 0) + messages
        for place, line in other.unread.items():
            held = self.unread.setdefault(place, Unread(0, line.example, line.number))
            held.messages += line.messages


@lru_cache(maxsize=64)  # a mapping never changes, and a site has some
def read_fields(mapping: FieldMapping) -> frozenset[str]:
    """The fields (Path.key) that anything in the rule set looks at."""
    return frozenset(path.key for path in _paths(mapping))


def _paths(mapping: FieldMapping) -> Iterator[Path]:
    for source in mapping.rules.identity.values():
        yield from source.paths
        if source.keyword == "ScheduledProcedureStepDuration":  # its unit stands in the next field
            yield from (_beside(path, path._replace(field=path.field + 1)) for path in source.paths)
    yield from (each.path for row in mapping.stations.rows for each in row.conditions if each.path is not None)
    for rules in mapping.rules.rules.values():
        for rule in rules:
            for way in rule.alternatives:
                yield from (path for path, _ in way.paths)
                yield from (path for path, _ in (*way.select, *way.when, *way.unless))
                if way.beside is not None:
                    yield way.beside
                    yield from (_beside(path, way.beside) for path, _ in way.paths)


def _beside(path: Path, other: Path) -> Path:
    """A field of the same segment, by the name under which that segment's fields are said."""
    return Path(path.segment, other.field, key=f"{path.segment}-{other.field}")


def _of_no_interest(key: str) -> bool:
    return key.startswith(("MSH-", "EVN-")) or key in _READ_BY_INTAKE or field_name(key) == "Set ID"


def _example(entry: Entry, key: str) -> str:
    segment, _, number = key.rpartition("-")
    said = entry.repetitions(Path(segment, int(number), key=key))
    text = "~".join("^".join("&".join(parts) for parts in repetition) for repetition in said)
    return text[:_EXAMPLE_LENGTH_MAX]


def masked(example: str) -> str:
    """The shape of a value: letters as x, digits as 9."""
    return "".join("9" if sign.isdigit() else "x" if sign.isalpha() else sign for sign in example)


def rows(coverage: Coverage, values: bool) -> list[Mapping[str, object]]:
    """For people: the commonest first within each message type; examples by their shape, or as they are."""
    return [
        {
            "message_type": kind, "field": key, "name": field_name(key), "messages": line.messages,
            "of": coverage.by_type.get(kind, 0), "example": line.example if values else masked(line.example),
            "message": line.number,
        }
        for (kind, key), line in sorted(coverage.unread.items(), key=lambda each: (each[0][0], -each[1].messages))
    ]  # fmt: skip
