"""MPPS datasets in, DIMSE answers out: N-CREATE and N-SET bytes -> attributes, `Refusal` -> DIMSE status.

The status table is total over `RefusalKind`; a test walks it. What an attribute may be is not judged here but by
`domain.performed_rules`. Specific Character Set is resolved on reading: everything is held in Unicode, so an N-SET in
another character set than its N-CREATE stays consistent with it (PS3.4 F.7.2.2.3). What it was stays beside it, for
answers and copies.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.domain.attributes import Attributes, Element
from gateway.domain.refusal import Refusal, RefusalKind, Refused
from gateway.wire.charsets import UNICODE, Terms, declarable, decode_key_terms
from gateway.wire.dicom_json import CHARACTER_SET, dictionary_vr, read_dataset_bytes, write_attributes

SUCCESS = 0x0000
OPTIONAL_NOT_SUPPORTED = 0x0001
"""A warning of N-GET: optional attributes that were asked for are not in the answer (PS3.4 table F.8.2-2)."""
ATTRIBUTE_LIST_ERROR = 0x0107
"""A warning: attributes named in the answer were left as they were, the rest was stored (PS3.7 C.5)."""

VALUE_OUT_OF_RANGE = 0x0116
"""A warning: attributes whose value nobody could use were left out, the rest was stored (PS3.7 C.5)."""

MAY_NO_LONGER_BE_UPDATED = 0xA710
"""Error ID (0000,0903), not a status (PS3.4 table F.7.2-2)."""

# A reference to an instance takes about 150 bytes, so this holds 50,000: more than the largest acquisition. It
# bounds what one request costs in memory and what a step's row costs in the store.
DATASET_BYTES_MAX = 8 * 1024 * 1024

UID_LENGTH_MAX = 64  # PS3.5 9.1
COMMENT_LENGTH_MAX = 64  # Error Comment (0000,0902) is LO
TAGS_MAX = 64  # of Attribute Identifier List: no more than a person would read, and table F.7.2-1 is about as long

VALUE_BYTES_MAX = 1024
"""The longest value that is shown back to its sender; a longer one is named with nothing in it."""

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
    RefusalKind.GONE: 0x0112,
    RefusalKind.PRECONDITION: 0x0110,
    RefusalKind.NOT_UNDERSTOOD: 0x0110,
    RefusalKind.NOT_PROVEN: 0x0124,
    RefusalKind.NOT_AUTHORISED: 0x0124,
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
_STEP_OF_PATH = re.compile(r"\(([0-9A-Fa-f]{4}),([0-9A-Fa-f]{4})\)(?:\[([0-9]+)\])?")

WITH_DATASET = frozenset({0x0106, VALUE_OUT_OF_RANGE, 0x0121})
"""Statuses whose answer has a data set with the attributes that are wrong (PS3.7 C.5.10, C.5.13, C.4.4)."""


@dataclass(frozen=True, slots=True)
class StatusAnswer:
    """What goes into a response: `error_id` is (0000,0903), `attribute_tags` (0000,1005), `dataset` what follows."""

    status: int
    comment: str = ""
    error_id: int | None = None
    attribute_tags: tuple[int, ...] = ()
    dataset: Attributes | None = field(default=None, repr=False)


def read_step(data: bytes, transfer_syntax: str) -> tuple[Attributes, tuple[str, ...]]:
    """The attributes of an N-CREATE or N-SET dataset, and notes (without values) on what was odd about it.

    An empty dataset is one without attributes. Specific Character Set is what the text was in, where it was said.
    Raises Refused (UNREADABLE) where the bytes are no dataset or too many.
    """
    if len(data) > DATASET_BYTES_MAX:
        raise Refused(Refusal(
            RefusalKind.UNREADABLE, "", f"the dataset is longer than {DATASET_BYTES_MAX} bytes",
            "divide the work into several performed steps",
        ))  # fmt: skip
    read = read_dataset_bytes(data, transfer_syntax)
    if not read.terms:
        return read.attributes, read.notes
    return {**read.attributes, CHARACTER_SET: {"vr": "CS", "Value": list(read.terms)}}, read.notes


def write_step(
    attributes: Mapping[str, Element], transfer_syntax: str, like: Mapping[str, Element] | None = None
) -> bytes:
    """The dataset's bytes, in the character set that the attributes name, else the least of: none, that of `like`.

    Where these do not hold every letter it is UTF-8.
    """
    said = {tag: held for tag, held in attributes.items() if tag != CHARACTER_SET}
    named = _terms(attributes)
    for terms in (named,) if named else ((), _terms(like or {})):
        try:
            return write_attributes(said, transfer_syntax, terms)
        except (UnicodeEncodeError, LookupError):  # letters it does not hold, or a name that is no character set
            continue
    return write_attributes(said, transfer_syntax, UNICODE)


def in_character_set_of(
    created: Mapping[str, Element], said: Mapping[str, Element], transfer_syntax: str
) -> bytes | None:
    """The dataset of an N-SET in the character set of its N-CREATE (PS3.4 F.7.2.2.1), of which `created` is held.

    None where it is in that one already, or names none, or that one does not hold every letter.
    """
    if CHARACTER_SET not in said or _terms(said) == _terms(created):
        return None
    attributes = {tag: held for tag, held in said.items() if tag != CHARACTER_SET}
    try:
        return write_attributes(attributes, transfer_syntax, _terms(created))
    except (UnicodeEncodeError, LookupError):
        return None


def _terms(attributes: Mapping[str, Element]) -> Terms:
    values = (attributes.get(CHARACTER_SET) or {}).get("Value") or ()
    return declarable(decode_key_terms([str(term or "") for term in values])[0])


def said_instance_uid(attributes: Attributes) -> str:
    """The SOP Instance UID (0008,0018) that some modalities put into the dataset instead of the command."""
    found = (attributes.get("00080018") or {}).get("Value") or ("",)
    return str(found[0] or "")


def readable_uid(uid: str) -> str:
    """The UID without its padding; '' where it is none (PS3.5 9.1). Leading zeros in a component are forgiven."""
    plain = uid.strip(" \0")
    return plain if len(plain) <= UID_LENGTH_MAX and _UID.fullmatch(plain) else ""


def refusal_answer(refusals: Sequence[Refusal], said: Mapping[str, Element] | None = None) -> StatusAnswer:
    """The negative answer: the status of the most telling kind, with every place that is refused for that status.

    `said` are the attributes of the request, for the statuses that show some of them back.
    """
    first = min(refusals, key=lambda refusal: _RANK[refusal.kind])
    status = STATUSES[first.kind]
    if first.kind is RefusalKind.STEP_CLOSED:
        return StatusAnswer(status, _CLOSED_COMMENT, MAY_NO_LONGER_BE_UPDATED)
    alike = [refusal for refusal in refusals if STATUSES[refusal.kind] == status]
    more = f" (and {len(alike) - 1} more)" if len(alike) > 1 else ""
    text = f"{first.where} {first.text}".strip()
    places = [refusal.where for refusal in alike]
    return StatusAnswer(
        status, comment(text, more), None, _tags(places) if status != 0x0110 else (),
        excerpt(said or {}, places) if status in WITH_DATASET else None,
    )  # fmt: skip


def accepted_answer(
    kept: Sequence[str], left_out: Sequence[str] = (), said: Mapping[str, Element] | None = None
) -> StatusAnswer:
    """The positive answer; a warning where attributes (eight hex digits each) were left as they were or left out."""
    if left_out:
        places = [f"({tag[:4]},{tag[4:]})" for tag in left_out]
        tags = tuple(int(tag, 16) for tag in (*left_out, *kept)[:TAGS_MAX])
        text = comment(f"{places[0]} was left out, its value cannot be read")
        return StatusAnswer(VALUE_OUT_OF_RANGE, text, None, tags, excerpt(said or {}, places))
    if not kept:
        return StatusAnswer(SUCCESS)
    tags = tuple(int(tag, 16) for tag in kept[:TAGS_MAX])
    return StatusAnswer(ATTRIBUTE_LIST_ERROR, "attributes that N-SET may not change were kept", None, tags)


def retrieved_answer(absent: Sequence[str], unknown: Sequence[str]) -> StatusAnswer:
    """The positive answer to N-GET; a warning where `unknown` attributes, or optional ones, are not among those found.

    Eight hex digits each.
    """
    if unknown:
        tags = tuple(int(tag, 16) for tag in unknown[:TAGS_MAX])
        return StatusAnswer(ATTRIBUTE_LIST_ERROR, "some are no attributes of a performed step", None, tags)
    return StatusAnswer(OPTIONAL_NOT_SUPPORTED if absent else SUCCESS)


def excerpt(said: Mapping[str, Element], places: Sequence[str]) -> Attributes:
    """Those attributes of a request that `places` name, as they were sent; what was not sent, without a value.

    Of sequences only the items on the way, so a place in the third item is found in the first one here. At most
    `TAGS_MAX` places.
    """
    shown: Attributes = {}
    items: dict[tuple[str, int], Attributes] = {}
    for where in places[:TAGS_MAX]:
        into, from_, way = shown, said, ""
        for group, element, index in _STEP_OF_PATH.findall(where):
            tag = f"{group}{element}".upper()
            held = from_.get(tag) or {"vr": _vr(tag)}
            way += f"/{tag}"
            if not index:
                into[tag] = held if _is_short(held) else {"vr": held["vr"]}
                break
            sequence = into.setdefault(tag, {"vr": "SQ", "Value": []})
            value = (held.get("Value") or [])[int(index) : int(index) + 1]
            key = (way, int(index))
            if key not in items:
                items[key] = {}
                sequence.setdefault("Value", []).append(items[key])
            into, from_, way = items[key], value[0] if value and isinstance(value[0], dict) else {}, f"{way}[{index}]"
    return shown


def _vr(tag: str) -> str:
    return dictionary_vr(tag) or "UN"


def _is_short(held: Element) -> bool:
    """Whether all of it may be shown; a sequence is never."""
    values: list[Any] = held.get("Value") or []
    return (
        held["vr"] != "SQ"
        and sum(len(str(value)) for value in values) <= VALUE_BYTES_MAX
        and not (len(held.get("InlineBinary") or "") > VALUE_BYTES_MAX)
    )


def comment(text: str, ending: str = "") -> str:
    """An Error Comment that fits: ASCII, since no character set is declared for a command, and 64 characters."""
    plain = "".join(letter if " " <= letter <= "~" and letter != "\\" else "?" for letter in text)
    room = COMMENT_LENGTH_MAX - len(ending)
    return (plain if len(plain) <= room else plain[: room - 3] + "...") + ending


def _tags(places: Iterable[str]) -> tuple[int, ...]:
    """The attribute that each place ends at; a list of tags cannot say inside which item."""
    ends = (found[-1] for found in map(_TAG.findall, places) if found)
    return tuple(dict.fromkeys(int(group + element, 16) for group, element in ends))[:TAGS_MAX]
