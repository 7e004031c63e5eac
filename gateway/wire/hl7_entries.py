"""What one entry of an HL7 v2 message says: its own segments and those above it, by the paths that rules name.

How segments group into entries is `hl7_source`; how a field is taken apart is `er7`. What a field means nobody knows
here.
"""

from collections.abc import Mapping, Sequence, Set
from functools import lru_cache
from itertools import compress

from gateway.domain.order import OrderControl
from gateway.domain.source import Path, Repetition, Sourced, from_component
from gateway.wire.er7 import Segment

Fields = dict[str, tuple[Segment, ...]]
"""Path.key -> the segments in which that field is not empty."""


class HL7Entry:
    """One entry: the fields it says, its own and those above it. `PID/NTE` are the NTE that follow a PID."""

    __slots__ = ("_fields", "_first", "_said", "control", "order_status", "procedure_where", "said", "where")

    def __init__(
        self,
        fields: Fields,
        first: Mapping[str, Segment],
        where: str = "",
        procedure_where: str = "",
        control: OrderControl | None = None,
        order_status: str = "",
    ) -> None:
        self._fields = fields
        self._first = first
        self._said: dict[str, Sequence[Repetition]] = {}
        self.said: Set[str] = fields.keys()
        self.where = where
        self.procedure_where = procedure_where
        self.control = control
        self.order_status = order_status

    def spoken(self, keys: frozenset[str]) -> frozenset[str]:
        """Those of the keys whose fields are not empty."""
        return keys.intersection(self.said)

    def says(self, path: Path) -> bool:
        """Whether the path's field is not empty."""
        return path.key in self._fields

    def repetitions(self, path: Path) -> Sequence[Repetition]:
        """Every repetition at the path, over all segments of that name in this entry."""
        said = self._said.get(path.key)
        if said is None:
            said = self._said[path.key] = self._whole(path)
        if path.component <= 1 and not path.subcomponent:
            return said
        return [found for whole in said if (found := from_component(whole, path))]

    def _whole(self, path: Path) -> Sequence[Repetition]:
        """The repetitions of the path's field that say anything."""
        segments = self._fields.get(path.key, ())
        if len(segments) == 1:
            field = segments[0].field(path.field)
            if len(field) == 1 and field[0][0][0]:  # nearly always
                return field
        return [one for segment in segments for one in segment.field(path.field) if any(map(any, one))]

    def read(self, path: Path) -> Sequence[Sourced]:
        """The same repetitions with their coordinates and segments."""
        return [found for segment in self._fields.get(path.key, ()) for found in _sourced(segment, path)]

    def beside(self, origin: object, path: Path) -> Sequence[Sourced]:
        """The same segment at another path."""
        return _sourced(origin, path) if isinstance(origin, Segment) else ()

    def place(self, path: Path) -> str:
        """Coordinates of the path in the first segment of its name, '' where there is none."""
        segment = self._first.get(path.segment)
        if segment is None:
            return ""
        place = f"{named(segment)}-{path.field}"
        return f"{place}.{path.component}" if path.component else place

    def joined(self, others: "Sequence[HL7Entry]") -> "HL7Entry":
        """An entry that says what all say, each segment once."""
        fields = dict(self._fields)
        first = dict(self._first)
        for other in others:
            first = {**other._first, **first}
            for key, more in other._fields.items():
                held = fields.get(key, ())
                if more is not held:
                    fields[key] = held + tuple(segment for segment in more if segment not in held)
        return HL7Entry(fields, first, self.where, self.procedure_where, self.control, self.order_status)


_TAKES_NOTES = frozenset({"MSH", "PID", "ORC", "OBR", "OBX", "SCH", "AIS", "AIG", "AIL", "AIP"})


def index(segments: Sequence[Segment]) -> tuple[Fields, dict[str, Segment]]:
    """The fields that are not empty and the first segment of each name; an NTE goes by what it follows (`OBR/NTE`)."""
    fields: dict[str, tuple[Segment, ...]] = {}
    first: dict[str, Segment] = {}
    noted = "MSH"
    for segment in segments:
        name = segment.name
        if name == "NTE":
            name = f"{noted}/NTE"
        elif name in _TAKES_NOTES:
            noted = name
        own = (segment,)
        said = segment.fields
        filled = compress(_keys(name, len(said)), said[1:])
        if first.setdefault(name, segment) is segment:
            fields |= dict.fromkeys(filled, own)
        else:
            fields |= {key: fields.get(key, ()) + own for key in filled}
    return fields, first


@lru_cache(maxsize=256)  # a feed's segments keep their lengths
def _keys(name: str, length: int) -> tuple[str, ...]:
    """Path.key of each field of a segment that is so long, as far as a path can name it."""
    return tuple([f"{name}-{number}" for number in range(1, min(length, _FIELDS_MAX + 1))])


_FIELDS_MAX = 999  # paths have three digits


def named(segment: Segment) -> str:
    """How places call a segment: `OBR`, `OBR[2]`."""
    return segment.name if segment.number == 1 else f"{segment.name}[{segment.number}]"


def _sourced(segment: Segment, path: Path) -> list[Sourced]:
    """The repetitions of a segment's field, from the path's component on, that say anything; with coordinates."""
    where = f"{named(segment)}-{path.field}"
    return [
        Sourced(where if number == 1 else f"{where}({number})", found, segment)
        for number, repetition in enumerate(segment.field(path.field), 1)
        if any(map(any, repetition)) and (found := from_component(repetition, path))
    ]
