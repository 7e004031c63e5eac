"""MPPS datasets in, DIMSE answers out: N-CREATE and N-SET bytes -> attributes, `Refusal` -> DIMSE status.

The status table is total over `RefusalKind`; a test walks it. What an attribute may be is not judged here but by
`domain.performed`. Specific Character Set is resolved on reading: everything is held in Unicode, so an N-SET in another
character set than its N-CREATE stays consistent with it (PS3.4 F.7.2.2.3).
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from gateway.domain.attributes import Attributes
from gateway.domain.refusal import Refusal, RefusalKind, Refused
from gateway.wire.dicom_json import read_attributes

SUCCESS = 0x0000
ATTRIBUTE_LIST_ERROR = 0x0107
"""A warning: attributes named in the answer were left as they were, the rest was stored (PS3.7 C.5)."""

MAY_NO_LONGER_BE_UPDATED = 0xA710
"""Error ID (0000,0903), not a status (PS3.4 table F.7.2-2)."""

# A reference to an instance takes about 150 bytes, so this holds 50,000: more than the largest acquisition. It
# bounds what one request costs in memory and what a step's row costs in the store.
DATASET_BYTES_MAX = 8 * 1024 * 1024

UID_LENGTH_MAX = 64  # PS3.5 9.1
COMMENT_LENGTH_MAX = 64  # Error Comment (0000,0902) is LO
TAGS_MAX = 64  # of Attribute Identifier List: no more than a person would read, and table F.7.2-1 is about as long

_CLOSED_COMMENT = "Performed Procedure Step Object may no longer be updated"  # the words of PS3.4 F.7.2.2.3

# In the order in which one status is chosen where a request has several faults (most telling first). The kinds that
# only other protocols know are processing failures should they ever arise here.
STATUSES: Mapping[RefusalKind, int] = {
    RefusalKind.TRANSIENT: 0x0213,
    RefusalKind.INTERNAL: 0x0110,
    RefusalKind.INVALID_UID: 0x0117,
    RefusalKind.DUPLICATE_INSTANCE: 0x0111,
    RefusalKind.NO_SUCH_INSTANCE: 0x0112,
    RefusalKind.STEP_CLOSED: 0x0110,
    RefusalKind.UNSUPPORTED_TYPE: 0x0118,
    RefusalKind.UNSUPPORTED_EVENT: 0x0211,
    RefusalKind.UNREADABLE: 0x0110,
    RefusalKind.MISSING_FIELD: 0x0120,
    RefusalKind.MISSING_VALUE: 0x0121,
    RefusalKind.BAD_VALUE: 0x0106,
    RefusalKind.TOO_LONG: 0x0106,
    RefusalKind.UNKNOWN_CODE: 0x0106,
    RefusalKind.CONFLICT: 0x0110,
    RefusalKind.UNCOVERED: 0x0110,
    RefusalKind.UNKNOWN_KEY: 0x0110,
    RefusalKind.UNKNOWN_ORDER: 0x0110,
    RefusalKind.LOCKED: 0x0110,
    RefusalKind.UNKNOWN_SENDER: 0x0110,
    RefusalKind.MALFORMED: 0x0106,
    RefusalKind.DUPLICATE_KEY: 0x0110,
    RefusalKind.SEGMENT_SEQUENCE: 0x0110,
    RefusalKind.UNSUPPORTED_PROCESSING_ID: 0x0110,
    RefusalKind.UNSUPPORTED_VERSION: 0x0110,
    RefusalKind.UNUSABLE_QUERY: 0x0110,
}
_RANK = {kind: rank for rank, kind in enumerate(STATUSES)}

_UID = re.compile(r"[0-9]+(\.[0-9]+)+")
_TAG = re.compile(r"\(([0-9A-Fa-f]{4}),([0-9A-Fa-f]{4})\)")


@dataclass(frozen=True, slots=True)
class StatusAnswer:
    """What goes into the response's command set. `error_id` is (0000,0903), `attribute_tags` (0000,1005)."""

    status: int
    comment: str = ""
    error_id: int | None = None
    attribute_tags: tuple[int, ...] = ()


def read_step(data: bytes, transfer_syntax: str) -> tuple[Attributes, tuple[str, ...]]:
    """The attributes of an N-CREATE or N-SET dataset, and notes (without values) on what was odd about it.

    An empty dataset is one without attributes. Raises Refused (UNREADABLE) where the bytes are no dataset or too many.
    """
    if len(data) > DATASET_BYTES_MAX:
        raise Refused(Refusal(
            RefusalKind.UNREADABLE, "", f"the dataset is longer than {DATASET_BYTES_MAX} bytes",
            "divide the work into several performed steps",
        ))  # fmt: skip
    return read_attributes(data, transfer_syntax)


def said_instance_uid(attributes: Attributes) -> str:
    """The SOP Instance UID (0008,0018) that some modalities put into the dataset instead of the command."""
    found = (attributes.get("00080018") or {}).get("Value") or ("",)
    return str(found[0] or "")


def readable_uid(uid: str) -> str:
    """The UID without its padding; '' where it is none (PS3.5 9.1). Leading zeros in a component are forgiven."""
    plain = uid.strip(" \0")
    return plain if len(plain) <= UID_LENGTH_MAX and _UID.fullmatch(plain) else ""


def refusal_answer(refusals: Sequence[Refusal]) -> StatusAnswer:
    """The negative answer: the status of the most telling kind, with every place that is refused for that status."""
    first = min(refusals, key=lambda refusal: _RANK[refusal.kind])
    status = STATUSES[first.kind]
    if first.kind is RefusalKind.STEP_CLOSED:
        return StatusAnswer(status, _CLOSED_COMMENT, MAY_NO_LONGER_BE_UPDATED)
    alike = [refusal for refusal in refusals if STATUSES[refusal.kind] == status]
    more = f" (and {len(alike) - 1} more)" if len(alike) > 1 else ""
    text = f"{first.where} {first.text}".strip()
    return StatusAnswer(
        status, comment(text, more), None, _tags(refusal.where for refusal in alike) if status != 0x0110 else ()
    )


def accepted_answer(kept: Sequence[str]) -> StatusAnswer:
    """The positive answer; a warning where attributes (`kept`, eight hex digits each) were left as they were."""
    if not kept:
        return StatusAnswer(SUCCESS)
    tags = tuple(int(tag, 16) for tag in kept[:TAGS_MAX])
    return StatusAnswer(ATTRIBUTE_LIST_ERROR, "attributes that N-SET may not change were kept", None, tags)


def comment(text: str, ending: str = "") -> str:
    """An Error Comment that fits: ASCII, since no character set is declared for a command, and 64 characters."""
    plain = "".join(letter if " " <= letter <= "~" and letter != "\\" else "?" for letter in text)
    room = COMMENT_LENGTH_MAX - len(ending)
    return (plain if len(plain) <= room else plain[: room - 3] + "...") + ending


def _tags(places: Iterable[str]) -> tuple[int, ...]:
    """The attribute that each place ends at; a list of tags cannot say inside which item."""
    ends = (found[-1] for found in map(_TAG.findall, places) if found)
    return tuple(dict.fromkeys(int(group + element, 16) for group, element in ends))[:TAGS_MAX]
