"""What a mapping reads: documents of entries with paths into them, whatever the format they came in.

An entry is the smallest thing a feed says about an order: one ORC/OBR pair or one IPC of HL7 v2. It also sees what
stands above it (patient, visit, message header), so a rule may take a value from anywhere.
"""

import re
from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple, Protocol, Self, TypeAlias

from gateway.domain.order import OrderControl
from gateway.domain.patient import VisitChange

Repetition: TypeAlias = tuple[tuple[str, ...], ...]
"""One repetition of a field, unescaped: components of subcomponents."""

NULL = '""'
"""The HL7 null: the sender deletes the value (HL7 chapter 2; RAD TF-2 2.4)."""


class Kind(StrEnum):
    """What a document is about."""

    ORDER = "order"
    APPOINTMENT = "appointment"
    RESULT = "result"
    PATIENT_UPDATE = "patient update"
    PATIENT_MERGE = "patient merge"
    IDENTIFIER_CHANGE = "change of a patient identifier"
    VISIT_MOVE = "move of visits"
    PATIENT_LINK = "link of patients"
    PATIENT_UNLINK = "unlink of patients"


class Path(NamedTuple):
    """A place in a document: `PID-5`, `OBR-4.4`, `PID-3.4.1`, `OBR/NTE-3` (the NTE segments that follow an OBR).

    With a component, reading starts there: `OBR-4.4` reads the code that components 4 to 6 make. 0 means not given.
    Without a field it is of another language: `segment` is then the type of resource that it begins with, `key` the
    expression (`Patient.name.where(use = 'official')`).
    """

    segment: str
    field: int
    component: int = 0
    subcomponent: int = 0
    key: str = ""
    """Segment and field, by which entries index what they say."""

    def __str__(self) -> str:
        if not self.field:
            return self.key
        tail = f".{self.component}" if self.component else ""
        return f"{self.segment}-{self.field}{tail}" + (f".{self.subcomponent}" if self.subcomponent else "")


class Sourced(NamedTuple):
    """A repetition, the coordinates it was read at, and the segment (or the like) that holds it."""

    where: str
    repetition: Repetition
    origin: object


class Entry(Protocol):
    """One thing said about an order or a patient.

    `where` names it in refusals (`ORC[2]`), `procedure_where` the part that describes its procedure.
    `control` is None in documents that are not about orders.
    """

    @property
    def control(self) -> OrderControl | None: ...
    @property
    def order_status(self) -> str: ...
    @property
    def where(self) -> str: ...
    @property
    def procedure_where(self) -> str: ...

    def spoken(self, keys: frozenset[str]) -> frozenset[str]:
        """Those of the keys (Path.key) at which it may say something, so that rules about silence cost nothing."""

    def says(self, path: Path) -> bool:
        """Whether it may say something at the path; False only where `repetitions` would be empty."""

    def repetitions(self, path: Path) -> Sequence[Repetition]:
        """Everything at the path, in document order; nothing where the document is silent."""

    def read(self, path: Path) -> Sequence[Sourced]:
        """The same repetitions, each with its place: for refusals, traces, and what stands beside a value."""

    def beside(self, origin: object, path: Path) -> Sequence[Sourced]:
        """The same path in the one segment that a value came from."""

    def place(self, path: Path) -> str:
        """Where the path would be in this entry; '' where the entry has no such segment."""

    def joined(self, others: Sequence[Self]) -> Self:
        """One entry that says what this and the others say."""


class Document(Protocol):
    """A message as a mapping sees it."""

    @property
    def kind(self) -> Kind: ...
    @property
    def visit_change(self) -> VisitChange:
        """What a patient update does to the visit."""

    @property
    def entries(self) -> Sequence[Entry]:
        """Those about orders have an order control; a patient update may carry orders, too."""

    @property
    def notes(self) -> Sequence[str]:
        """What the message says without an effect here, or was read more kindly than it is written."""


def from_component(repetition: Repetition, path: Path) -> Repetition:
    """A repetition from the path's component on; () where it is too short, or says nothing from there."""
    if path.component > 1 and repetition != ((NULL,),):  # a null field is null in all of its components
        repetition = repetition[path.component - 1 :]
    if path.subcomponent and repetition:
        parts = repetition[0]
        repetition = ((parts[path.subcomponent - 1],),) if path.subcomponent <= len(parts) else ()
    return repetition if any(map(any, repetition)) else ()


PATH_PATTERN = r"((?:[A-Z][A-Z0-9]{2}/)?([A-Z][A-Z0-9]{2}))-([0-9]{1,3})(?:\.([0-9]{1,2})(?:\.([0-9]{1,2}))?)?"
_PATH = re.compile(PATH_PATTERN)
SEGMENTS = frozenset(
    {"ACC", "AIG", "AIL", "AIP", "AIS", "AL1", "BLG", "CTD", "CTI", "DB1", "DG1", "EVN", "FT1", "GT1", "IN1", "IN2",
     "IN3", "IPC", "MRG", "MSA", "MSH", "NK1", "NTE", "OBR", "OBX", "ORC", "PD1", "PID", "PR1", "PV1", "PV2", "RGS",
     "ROL", "SCH", "SPM", "TQ1", "TQ2"}
)  # fmt: skip


def parse_path(text: str) -> Path:
    """The path that a rule names. Raises ValueError, saying what is wrong with it.

    Segments are those of the messages the gateway reads (HL7 chapters 3, 4 and 10), and any Z segment.
    """
    match = _PATH.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a path; paths look like PID-5, OBR-4.2, PID-3.4.1 or OBR/NTE-3")
    segment, name, field, component, subcomponent = match.groups()
    if name not in SEGMENTS and not name.startswith("Z"):
        raise ValueError(f"no message that is read here has a segment {name}")
    numbers = [int(number) for number in (field, component or "0", subcomponent or "0")]
    if numbers[0] == 0 or (component and numbers[1] == 0) or (subcomponent and numbers[2] == 0):
        raise ValueError(f"{text!r}: fields, components and subcomponents are counted from 1")
    return Path(segment, numbers[0], numbers[1], numbers[2], f"{segment}-{numbers[0]}")
