"""HL7 v2 messages as documents for a mapping: which are taken, and how their segments group into entries.

An entry is one ORC/OBR pair, or one IPC of an OMI with the ORC/TQ1/OBR it stands under (RAD TF-2 4.4.4.1.2). What
belongs together as one order, procedure or step the mapping decides by keys. Nothing here reads a field, except the
message type (MSH-9) and order control and status (ORC-1, ORC-5).
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from functools import lru_cache
from itertools import compress

from gateway.domain.order import OrderControl
from gateway.domain.patient import VisitChange
from gateway.domain.refusal import Refusal, RefusalKind, Refused
from gateway.domain.source import NULL, Kind, Path, Repetition, Sourced
from gateway.wire.er7 import Message, Segment

HANDLED: Mapping[tuple[str, str], tuple[Kind, str]] = {
    ("ADT", "A01"): (Kind.PATIENT_UPDATE, "admit: insert or update the patient, open the visit"),
    ("ADT", "A04"): (Kind.PATIENT_UPDATE, "register: insert or update the patient, open the visit"),
    ("ADT", "A08"): (Kind.PATIENT_UPDATE, "update patient information"),
    ("ADT", "A40"): (Kind.PATIENT_MERGE, "merge: each PID/MRG pair is one"),
    ("ORM", "O01"): (Kind.ORDER, "order, one ORC/OBR pair per step and protocol code (HL7 v2.3.1)"),
    ("OMG", "O19"): (Kind.ORDER, "general clinical order (HL7 v2.5.1)"),
    ("OMI", "O23"): (Kind.ORDER, "imaging order, one IPC per step and protocol code (HL7 v2.5.1)"),
}
"""(MSH-9.1, MSH-9.2) -> what the message is about, and what it does here."""

_ONLY_EVENT = {code: event for code, event in HANDLED if code != "ADT"}
_CONTROLS = frozenset(OrderControl)
_PRIOR_RESULT = "PR"  # ORC-1 of the prior results in an OMG (HL7 v2.5.1 chapter 4)
_Fields = dict[str, tuple[Segment, ...]]  # Path.key -> the segments in which that field is not empty


class HL7Entry:
    """One entry: the fields it says, its own and those above it. `PID/NTE` are the NTE that follow a PID."""

    __slots__ = ("_fields", "_first", "_said", "control", "order_status", "procedure_where", "said", "where")

    def __init__(
        self,
        fields: _Fields,
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

    def repetitions(self, path: Path) -> Sequence[Repetition]:
        """Every repetition at the path, over all segments of that name in this entry."""
        said = self._said.get(path.key)
        if said is None:
            said = self._said[path.key] = self._whole(path)
        if path.component <= 1 and not path.subcomponent:
            return said
        return [found for whole in said if (found := _from_component(whole, path))]

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
        place = f"{_name(segment)}-{path.field}"
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


@dataclass(frozen=True, slots=True)
class HL7Document:
    """A message cut into entries."""

    kind: Kind
    entries: tuple[HL7Entry, ...]
    visit_change: VisitChange = VisitChange.UPDATE


def document(message: Message) -> HL7Document:
    """The message as a mapping reads it.

    Raises Refused with every reason: a type or event that is not taken (AR 200, 201), segments that are lacking (100),
    an order control that is not taken (103).
    """
    code, event = message.message_code.strip().upper(), message.trigger_event.strip().upper()
    kind = _kind(code, event or _ONLY_EVENT.get(code, ""))
    if not message.all("PID"):
        raise Refused(Refusal(
            RefusalKind.SEGMENT_SEQUENCE, "PID", "the message has no PID segment", "say whose it is"
        ))  # fmt: skip
    if kind is Kind.PATIENT_UPDATE:
        return HL7Document(kind, (HL7Entry(*_index(message.segments), "PID"),))
    if kind is Kind.PATIENT_MERGE:
        return HL7Document(kind, _merges(message))
    return HL7Document(kind, _orders(message))


def _kind(code: str, event: str) -> Kind:
    handled = HANDLED.get((code, event))
    if handled is not None:
        return handled[0]
    events = sorted(known for held, known in HANDLED if held == code)
    if not events:
        codes = ", ".join(sorted({held for held, _ in HANDLED}))
        raise Refused(Refusal(
            RefusalKind.UNSUPPORTED_TYPE, "MSH-9.1", f"message type {code!r} is not taken here",
            f"taken are {codes}; let the listener ignore what it need not know",
        ))  # fmt: skip
    raise Refused(Refusal(
        RefusalKind.UNSUPPORTED_EVENT, "MSH-9.2", f"event {event!r} of {code} is not taken here",
        f"taken are {', '.join(events)}; let the listener ignore what it need not know",
    ))  # fmt: skip


def _merges(message: Message) -> tuple[HL7Entry, ...]:
    """Each PID with what follows it up to the next one."""
    header: list[Segment] = []
    groups: list[list[Segment]] = []
    for segment in message.segments:
        if segment.name == "PID":
            groups.append([segment])
        elif groups:
            groups[-1].append(segment)
        else:
            header.append(segment)
    refusals = [
        Refusal(
            RefusalKind.SEGMENT_SEQUENCE, "MRG" if number == 1 else f"MRG[{number}]",
            "a PID is not followed by an MRG segment", "send PID and MRG in pairs",
        )
        for number, group in enumerate(groups, 1)
        if all(segment.name != "MRG" for segment in group)
    ]  # fmt: skip
    if refusals:
        raise Refused(*refusals)
    return tuple(HL7Entry(*_index([*header, *group]), _name(group[0])) for group in groups)


def _orders(message: Message) -> tuple[HL7Entry, ...]:
    header, pairs = _pairs(message)
    if not pairs:
        raise Refused(Refusal(
            RefusalKind.SEGMENT_SEQUENCE, "ORC", "the order message has no ORC segment", "send an ORC for each order"
        ))  # fmt: skip
    above, heads = _index(header)
    entries: list[HL7Entry] = []
    refusals: list[Refusal] = []
    for pair in pairs:
        orc = pair[0]
        control = orc.text(1).strip().upper()
        if control not in _CONTROLS:
            refusals.append(_unknown_control(orc, control))
            continue
        status = orc.text(5).strip().upper()
        order = OrderControl(control), "" if status == NULL else status
        own, first = _index([segment for segment in pair if segment.name != "IPC"])
        fields, first = above | own, heads | first
        ipcs = [segment for segment in pair if segment.name == "IPC"]
        if not ipcs:
            entries.append(HL7Entry(fields, first, _name(orc), _name(first.get("OBR", orc)), *order))
        for ipc in ipcs:
            said, _ = _index([ipc])
            entries.append(HL7Entry(fields | said, first | {"IPC": ipc}, _name(orc), _name(ipc), *order))
    if refusals:
        raise Refused(*refusals)
    return tuple(entries)


def _unknown_control(orc: Segment, control: str) -> Refusal:
    if control in ("", NULL):
        return Refusal(
            RefusalKind.MISSING_FIELD, f"{_name(orc)}-1", "order control is empty", "send NW for a new order"
        )
    return Refusal(
        RefusalKind.UNKNOWN_CODE, f"{_name(orc)}-1", f"order control {control!r} is not taken here",
        f"taken are {', '.join(OrderControl)}",
    )  # fmt: skip


def _pairs(message: Message) -> tuple[list[Segment], list[list[Segment]]]:
    """The segments above the orders, and each ORC/OBR pair with what belongs to it.

    A second OBR under one ORC makes a pair of its own. A ZDS belongs to every pair since the ZDS before it. A PID
    after the first ORC begins the prior results of an OMG: they are not ordered here.
    """
    header: list[Segment] = []
    pairs: list[list[Segment]] = []
    waiting: list[list[Segment]] = []
    prior = False
    for segment in message.segments:
        name = segment.name
        if name == "ORC":
            prior = prior and segment.text(1) in (_PRIOR_RESULT, "")
            if not prior:
                waiting.append([segment])
                pairs.append(waiting[-1])
        elif not pairs:
            header.append(segment)
        elif name == "PID":
            prior = True
        elif prior:
            continue
        elif name == "ZDS":
            for pair in waiting or pairs[-1:]:
                pair.append(segment)
            waiting = []
        elif name == "OBR" and any(held.name == "OBR" for held in pairs[-1]):
            waiting.append([pairs[-1][0], segment])
            pairs.append(waiting[-1])
        else:
            pairs[-1].append(segment)
    return header, pairs


_TAKES_NOTES = frozenset({"MSH", "PID", "ORC", "OBR", "OBX"})


def _index(segments: Sequence[Segment]) -> tuple[_Fields, dict[str, Segment]]:
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


def _name(segment: Segment) -> str:
    return segment.name if segment.number == 1 else f"{segment.name}[{segment.number}]"


def _sourced(segment: Segment, path: Path) -> list[Sourced]:
    """The repetitions of a segment's field, from the path's component on, that say anything; with coordinates."""
    where = f"{_name(segment)}-{path.field}"
    return [
        Sourced(where if number == 1 else f"{where}({number})", found, segment)
        for number, repetition in enumerate(segment.field(path.field), 1)
        if any(map(any, repetition)) and (found := _from_component(repetition, path))
    ]


def _from_component(repetition: Repetition, path: Path) -> Repetition:
    """A repetition from the path's component on; () where it is too short, or says nothing from there."""
    if path.component > 1 and repetition != ((NULL,),):  # a null field is null in all of its components
        repetition = repetition[path.component - 1 :]
    if path.subcomponent and repetition:
        parts = repetition[0]
        repetition = ((parts[path.subcomponent - 1],),) if path.subcomponent <= len(parts) else ()
    return repetition if any(map(any, repetition)) else ()
