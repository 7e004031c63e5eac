"""The fields of the HL7 v2 segments that outbound mappings write, with their data types (v2.5.1, chapters 2, 3 and 4).

Older versions have the same fields with the same or simpler types. Z segments are a site's own: anything fits there.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

# Segment, then the type of each field from 1 on; `*` after it where the field repeats.
_ROWS = """
MSH ST ST HD HD HD HD TS ST MSG ST PT VID NM ST ID ID ID ID* CE ID EI*
EVN ID TS TS IS XCN* TS HD
PID SI CX CX* CX* XPN* XPN* TS IS XPN* CE* XAD* IS XTN* XTN* CE CE CE CX ST DLN CX* CE* ST ID NM CE* CE CE TS ID ID \
IS* TS HD CE CE ST CE CWE*
PD1 IS* IS XON* XCN* IS IS IS IS ID CX* CE ID DT XON* CE* IS DT DT IS IS IS
NK1 SI XPN* CE XAD* XTN* XTN* CE DT DT ST JCC CX XON* CE IS TS
PV1 SI IS PL IS CX PL XCN* XCN* XCN* IS PL IS IS IS IS* IS XCN* IS CX FC* IS IS IS IS* DT* NM* NM* IS IS DT IS NM NM \
IS DT IS DLD CE IS IS IS PL PL TS TS* NM NM NM NM CX IS XCN*
PV2 PL CE CE CE ST* ST IS* TS TS NM NM ST XCN* DT ID IS DT IS ID NM IS ID XON* IS IS DT IS DT DT CE IS ID TS ID ID ID \
ID CE CE* CE CE* CE IS IS CE* DT TS TS IS*
MRG CX* CX* CX CX CX CX XPN*
ORC ID EI EI EI ID ID TQ* EIP TS XCN* XCN* XCN* PL XTN* TS CE CE CE XCN* CE XON* XAD* XTN* XAD* CWE CWE TS CWE CWE CNE \
CWE
TQ1 SI CQ RPT* TM* CQ* CQ TS TS CWE* TX TX ID CQ NM
OBR SI EI EI CE ID TS TS TS CQ XCN* ID CE ST TS SPS XCN* XTN* ST ST ST ST TS MOC ID ID PRL TQ* XCN* EIP ID CE* NDL \
NDL* NDL* NDL* TS NM CE* CE* CE ID ID CE* CE CE* CE* CE* CWE IS CWE
NTE SI ID FT* CE
OBX SI ID CE ST varies* CE ST IS* NM ID* ID TS ST TS CE XCN* CE* EI* TS varies* varies* varies* XON* XAD* XCN*
IPC EI EI EI EI CE CE* EI CE* ST*
AL1 SI CE CE CE ST* DT
DG1 SI ID CE ST TS IS CE CE ID IS CE NM CP ST ID XCN* IS ID TS EI ID
"""


class FieldType(NamedTuple):
    """What a field holds."""

    type: str
    repeats: bool


SEGMENT_FIELDS: Mapping[str, tuple[FieldType, ...]] = {
    name: tuple(FieldType(said.rstrip("*"), said.endswith("*")) for said in types)
    for name, *types in (row.split() for row in _ROWS.strip().splitlines())
}
"""Segment -> its fields, the first at index 0. IPC-9 repeats as senders and IHE use it, for several stations."""

ANYTHING = FieldType("varies", True)
"""A field of a Z segment."""

HEADER_FIELDS = frozenset({1, 2, 3, 5, 6, 7, 9, 10, 11, 12, 18})
"""Fields of MSH that no rule writes: they follow from the destination and the message."""

TEXT_TYPES = frozenset({"ST", "TX", "FT", "IS", "ID", "varies"})
TIME_TYPES = frozenset({"TS", "DT", "TM"})
NUMBER_TYPES = frozenset({"NM", "SI"})
CODE_TYPES = frozenset({"CE", "CWE", "CNE"})


class Target(NamedTuple):
    """Where a rule writes: a field, or from one of its components (or subcomponents) on; 0 means not given."""

    segment: str
    field: int
    component: int = 0
    subcomponent: int = 0

    def __str__(self) -> str:
        tail = f".{self.component}" if self.component else ""
        return f"{self.segment}-{self.field}{tail}" + (f".{self.subcomponent}" if self.subcomponent else "")


TARGET_PATTERN = r"([A-Z][A-Z0-9]{2})-([1-9][0-9]{0,2})(?:\.([1-9][0-9]?)(?:\.([1-9][0-9]?))?)?"
_TARGET = re.compile(TARGET_PATTERN)


def parse_target(text: str) -> Target:
    """The target that a rule names. Raises ValueError, saying what is wrong with it."""
    found = _TARGET.fullmatch(text)
    if found is None:
        raise ValueError(f"{text!r} is no field of HL7 v2; fields look like PID-3, OBR-4.4 or PID-3.4.1")
    segment, *numbers = found.groups()
    target = Target(segment, *(int(number or 0) for number in numbers))
    fields = SEGMENT_FIELDS.get(segment)
    if fields is None and not segment.startswith("Z"):
        raise ValueError(f"no message that is written here has a segment {segment}")
    if fields is not None and target.field > len(fields):
        raise ValueError(f"{segment} has {len(fields)} fields")
    if segment == "MSH" and target.field in HEADER_FIELDS:
        raise ValueError(f"{target} follows from the destination and the message")
    return target


def field_type(target: Target) -> FieldType:
    """The type of the field that a parsed target is in."""
    fields = SEGMENT_FIELDS.get(target.segment)
    return fields[target.field - 1] if fields else ANYTHING
