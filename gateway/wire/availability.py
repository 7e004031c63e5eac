"""Instance Availability Notification in: what an image manager says of the instances of a study (PS3.4 annex R).

Every attribute rule is in `_ROWS`. Demanded of everybody is what makes the notification mean anything; the rest of
table R.3.2-1 is noted, and demanded of those who are held to it.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from gateway.domain.attributes import Attributes, Element
from gateway.domain.performed import text_of
from gateway.domain.performed_faults import FOUND_MAX, place, valued
from gateway.domain.refusal import Refusal, RefusalKind, Refused
from gateway.wire.mpps_dataset import read_step, readable_uid
from gateway.wire.upper_layer import MPPS

PERFORMED_MAX = 64
"""Performed steps kept of one notification: far more than one study has."""


class InstanceAvailability(StrEnum):
    """Instance Availability (0008,0056): how quickly an instance can be had (PS3.3 C.4.23.1.1)."""

    ONLINE = "ONLINE"
    NEARLINE = "NEARLINE"
    OFFLINE = "OFFLINE"
    UNAVAILABLE = "UNAVAILABLE"


@dataclass(frozen=True, slots=True)
class Availability:
    """What a notification says of one study.

    `instances` counts them by how quickly they can be had. `performed` are the SOP Instance UIDs of the modality
    performed procedure steps that it names. `notes` say what table R.3.2-1 asks for and was not sent.
    """

    study_instance_uid: str
    instances: Mapping[InstanceAvailability, int]
    performed: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())

    @property
    def has_images(self) -> bool:
        """Whether at least one instance can be had."""
        return any(count for said, count in self.instances.items() if said is not InstanceAvailability.UNAVAILABLE)

    def __str__(self) -> str:
        counted = (f"{self.instances[said]} {said}" for said in InstanceAvailability if self.instances.get(said))
        return f"instances: {', '.join(counted)}"


# Depth-marked tag, keyword, type (SCU and SCP alike); `!` is demanded of everybody.
_ROWS = """
00081111 ReferencedPerformedProcedureStepSequence 2
>00081150 ReferencedSOPClassUID 1
>00081155 ReferencedSOPInstanceUID 1
>00404019 PerformedWorkitemCodeSequence 2
0020000D StudyInstanceUID 1!
00081115 ReferencedSeriesSequence 1!
>0020000E SeriesInstanceUID 1
>00081199 ReferencedSOPSequence 1!
>>00081150 ReferencedSOPClassUID 1
>>00081155 ReferencedSOPInstanceUID 1
>>00080056 InstanceAvailability 1!
>>00080054 RetrieveAETitle 1
"""


@dataclass(frozen=True, slots=True)
class _Row:
    """One row of table R.3.2-1, with those of its items."""

    tag: str
    keyword: str
    type_: str
    essential: bool
    items: tuple["_Row", ...]


def _rows(lines: Sequence[str], depth: int = 0) -> tuple[_Row, ...]:
    """The rows of this depth, each with the deeper ones that follow it."""
    found: list[_Row] = []
    for number, line in enumerate(lines):
        tag, keyword, type_ = line.split()
        if len(tag) - 8 != depth:
            continue
        after = lines[number + 1 :]
        inner = next((at for at, later in enumerate(after) if len(later.split()[0]) - 8 <= depth), len(after))
        rows = _rows(after[:inner], depth + 1)
        found.append(_Row(tag.lstrip(">"), keyword, type_.rstrip("!"), type_.endswith("!"), rows))
    return tuple(found)


_TABLE = _rows(_ROWS.strip().splitlines())
_PERFORMED, _STUDY, _SERIES, _INSTANCES = "00081111", "0020000D", "00081115", "00081199"
_CLASS, _INSTANCE, _AVAILABILITY = "00081150", "00081155", "00080056"


def read_availability(data: bytes, transfer_syntax: str, *, whole_table: bool = False) -> Availability:
    """What the dataset of an N-CREATE says.

    `whole_table`: everything that table R.3.2-1 asks for must be there. Raises Refused, with every reason.
    """
    attributes, odd = read_step(data, transfer_syntax)
    refusals: list[Refusal] = []
    notes = list(odd)
    for path, row, absent in _lacking(_TABLE, attributes):
        if row.essential or whole_table:
            refusals.append(_lack(path, row, absent))
        elif len(notes) < FOUND_MAX:
            notes.append(f"{place(*path)} {'is missing' if absent else 'has no value'}")
        if len(refusals) >= FOUND_MAX:
            break
    study = readable_uid(text_of(attributes, _STUDY))
    if not study and text_of(attributes, _STUDY):
        refusals.append(Refusal(RefusalKind.BAD_VALUE, place(_STUDY), "is no UID", "send the Study Instance UID"))
    counts = _counted(attributes, refusals)
    if refusals:
        raise Refused(*refusals)
    return Availability(study, counts, tuple(_performed(attributes)), tuple(dict.fromkeys(notes)))


def _lack(path: tuple[str | int, ...], row: _Row, absent: bool) -> Refusal:
    kind = RefusalKind.MISSING_FIELD if absent else RefusalKind.MISSING_VALUE
    text = "is missing" if absent else "has no value"
    return Refusal(kind, place(*path), text, f"send {row.keyword} (PS3.4 table R.3.2-1)")


def _lacking(
    rows: Sequence[_Row], attributes: Mapping[str, Element], path: tuple[str | int, ...] = ()
) -> Iterator[tuple[tuple[str | int, ...], _Row, bool]]:
    """Place and row of everything that is not there, and whether it is absent or has no value."""
    for row in rows:
        held, here = attributes.get(row.tag), (*path, row.tag)
        if held is None or (row.type_ == "1" and not valued(held)):
            yield here, row, held is None
        for number, item in enumerate(_items(held)) if row.items else ():
            yield from _lacking(row.items, item, (*here, number))


def _counted(attributes: Mapping[str, Element], refusals: list[Refusal]) -> Counter[InstanceAvailability]:
    """How many instances can be had how quickly; a reason to refuse for each that says something else."""
    counts: Counter[InstanceAvailability] = Counter()
    for at, series in enumerate(_items(attributes.get(_SERIES))):
        for number, instance in enumerate(_items(series.get(_INSTANCES))):
            said = text_of(instance, _AVAILABILITY).upper()
            if said in _AVAILABILITIES:
                counts[InstanceAvailability(said)] += 1
            elif said and len(refusals) < FOUND_MAX:
                refusals.append(
                    Refusal(
                        RefusalKind.BAD_VALUE, place(_SERIES, at, _INSTANCES, number, _AVAILABILITY),
                        f"is none of {', '.join(InstanceAvailability)}", "see PS3.3 C.4.23.1.1",
                    )
                )  # fmt: skip
    return counts


_AVAILABILITIES = frozenset(InstanceAvailability)


def _performed(attributes: Mapping[str, Element]) -> Iterator[str]:
    """The modality performed procedure steps that are named, at most `PERFORMED_MAX`."""
    for item in _items(attributes.get(_PERFORMED))[:PERFORMED_MAX]:
        uid = readable_uid(text_of(item, _INSTANCE))
        if uid and text_of(item, _CLASS) == MPPS:
            yield uid


def _items(held: Element | None) -> list[Attributes]:
    return [item for item in (held or {}).get("Value") or () if isinstance(item, dict)]
