"""Answers to HL7 v2 messages: MSH, MSA and ERR (HL7 v2 chapter 2), and the one table from refusals to table 0357.

AA accepted, AE something in the content is wrong, AR the message as such cannot be taken or cannot be taken now; at
commit level CA, CE and CR. Which of them a sender wants, and where, is `ack_modes`' matter; here is how one is
written. Every refusal is told, each with its place. An answer never fails to be built: what cannot be read is answered
as far as its MSH can be made out.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Literal

from gateway.domain.identifiers import Identifier
from gateway.domain.order import OrderControl, OrderResponse, response_of
from gateway.domain.refusal import Refusal, RefusalKind, Refused
from gateway.wire.er7 import Delimiters, Message, Segment, escape, parse_header

_K = RefusalKind

ACKNOWLEDGMENT: Mapping[RefusalKind, tuple[int, str]] = {
    _K.SEGMENT_SEQUENCE: (100, "AE"),
    _K.MISSING_FIELD: (101, "AE"),
    _K.MISSING_VALUE: (101, "AE"),
    _K.BAD_VALUE: (102, "AE"),
    _K.TOO_LONG: (104, "AE"),
    _K.UNKNOWN_CODE: (103, "AE"),
    _K.UNCOVERED: (103, "AE"),
    # A technical reason, hence AR; not 207, which asks the sender to try again.
    _K.UNREADABLE: (102, "AR"),
    _K.UNSUPPORTED_TYPE: (200, "AR"),
    _K.UNSUPPORTED_EVENT: (201, "AR"),
    _K.UNSUPPORTED_PROCESSING_ID: (202, "AR"),
    _K.UNSUPPORTED_VERSION: (203, "AR"),
    _K.UNKNOWN_SENDER: (103, "AR"),
    _K.NOT_AUTHORISED: (103, "AR"),  # table 0357 has no word for it; for the sender it is as the one above
    _K.NOT_PROVEN: (103, "AR"),
    _K.UNKNOWN_KEY: (204, "AE"),
    _K.UNKNOWN_ORDER: (204, "AE"),
    _K.LOCKED: (206, "AE"),
    _K.MALFORMED: (100, "AE"),
    _K.DUPLICATE_KEY: (205, "AE"),
    _K.CONFLICT: (207, "AE"),
    _K.TRANSIENT: (207, "AR"),
    _K.INTERNAL: (207, "AE"),
    # These speak of DICOM services and of FHIR; an order cannot cause them, but the table is total.
    _K.GONE: (204, "AE"),
    _K.PRECONDITION: (207, "AE"),
    _K.UNUSABLE_QUERY: (102, "AE"),
    _K.INVALID_UID: (102, "AE"),
    _K.DUPLICATE_INSTANCE: (205, "AE"),
    _K.NO_SUCH_INSTANCE: (204, "AE"),
    _K.STEP_CLOSED: (207, "AE"),
    _K.NOT_UNDERSTOOD: (207, "AE"),
}
"""Refusal -> (ERR-3 of table 0357, MSA-1 of table 0008)."""

MEANING: Mapping[int, str] = {
    100: "Segment sequence error",
    101: "Required field missing",
    102: "Data type error",
    103: "Table value not found",
    104: "Value too long",
    200: "Unsupported message type",
    201: "Unsupported event code",
    202: "Unsupported processing id",
    203: "Unsupported version id",
    204: "Unknown key identifier",
    205: "Duplicate key identifier",
    206: "Application record locked",
    207: "Application internal error",
}

ORDER_ANSWERS: Mapping[tuple[str, str], tuple[str, str]] = {
    ("ORM", "O01"): ("ORR", "O02"),
    ("OMG", "O19"): ("ORG", "O20"),
    ("OMI", "O23"): ("ORI", "O24"),
}
"""Orders -> the message that answers them order by order (HL7 v2 4.4); everything else is answered by an ACK."""

ERRORS_MAX = 50
"""More problems than a person mends at one time; an answer longer than the message helps nobody."""

MSA_3_CHARACTERS_MAX = 80  # HL7 v2 2.15.8.3
_VERSION_CHARACTERS_MAX = 16  # what is longer is no version
_ERR_7_CHARACTERS_MAX = 2048
_ERR_8_CHARACTERS_MAX = 250

_PLACE = re.compile(
    r"(?P<segment>[A-Z][A-Z0-9]{2})(?:\[(?P<number>\d+)\])?"
    r"(?:-(?P<field>\d+)(?:\((?P<repetition>\d+)\))?(?:\.(?P<component>\d+)(?:\.(?P<subcomponent>\d+))?)?)?"
)
_VERSION_NUMBERS = re.compile(r"(\d+)\.(\d+)(?:\.(\d+))?")


@dataclass(frozen=True, slots=True)
class AnswerStyle:
    """How an answer is written.

    `structure`: order answers ORM, OMG and OMI by ORR, ORG and ORI with one ORC for each order. `level`: commit says
    that the message is stored (CA, CE, CR); apart is the application's answer as a message of its own, which asks to
    be confirmed at commit level (MSH-15).
    """

    structure: Literal["ack", "order"] = "ack"
    level: Literal["application", "commit", "apart"] = "application"


PLAIN = AnswerStyle()


def acknowledge(
    message: Message | None,
    refusals: Sequence[Refusal] = (),
    *,
    now: datetime,
    notes: Sequence[str] = (),
    raw: bytes = b"",
    responses: Sequence[OrderResponse] = (),
    style: AnswerStyle = PLAIN,
) -> bytes:
    """The answer to `message`, or to `raw` where there is none because it could not be read. Unframed.

    No refusals mean AA. `notes` say what was done other than storing (held, ignored, repeated); MSA-3 shows them, and
    the refusals, to senders of versions that have nothing else. `responses` are what an answer in order structure says
    of each order; of a refused message its own ORCs tell.
    """
    by_order = style.structure == "order" and style.level != "commit"
    kind = ORDER_ANSWERS.get((message.message_code, message.trigger_event)) if message and by_order else None
    read = message is not None
    message = message or _made_out(raw)
    delimiters = message.delimiters if message else Delimiters()
    version = _version(message.version[:_VERSION_CHARACTERS_MAX]) if message else _version("")
    refusals = _each_place_once(refusals)
    segments = [
        _msh(message, delimiters, version, now, raw, kind, style, declares=read),
        _msa(message, delimiters, refusals, notes, style),
        *_err(refusals[:ERRORS_MAX], delimiters, version),
    ]
    if kind and message:
        segments += _refused_orders(message) if refusals else _orders(message, responses)
    text = "".join(f"{delimiters.field.join(segment).rstrip(delimiters.field)}\r" for segment in segments)
    return message.character_set.encode(text) if message else text.encode("ascii", "replace")


def outcome(refusals: Sequence[Refusal]) -> Literal["AA", "AE", "AR"]:
    """MSA-1 of the application's answer."""
    codes = {ACKNOWLEDGMENT[refusal.kind][1] for refusal in refusals}
    return "AR" if "AR" in codes else "AE" if codes else "AA"


def commit_code(refusals: Sequence[Refusal]) -> Literal["CA", "CE", "CR"]:
    """MSA-1 at commit level: CR where MSH-9, 11 or 12 cannot be taken, CE for any other reason (HL7 v2 2.9.3.1)."""
    return "CR" if any(refusal.kind in _REJECTED for refusal in refusals) else "CE" if refusals else "CA"


_REJECTED = frozenset(kind for kind, (code, _) in ACKNOWLEDGMENT.items() if 200 <= code <= 203)


def _each_place_once(refusals: Sequence[Refusal]) -> Sequence[Refusal]:
    """The first of several that say the same of the same place: two rules may miss one value."""
    if len(refusals) < 2:
        return refusals
    told: dict[tuple[RefusalKind, str], Refusal] = {}
    for refusal in refusals:
        told.setdefault((refusal.kind, refusal.where or refusal.text), refusal)
    return list(told.values())


def code_for(kind: RefusalKind, version: tuple[int, ...]) -> int:
    """ERR-3 for a refusal, in the words the sender's version has: 104 is newer than 2.5.1."""
    code = ACKNOWLEDGMENT[kind][0]
    return 102 if code == 104 and version <= (2, 5, 1) else code


def _made_out(raw: bytes) -> Message | None:
    try:
        return parse_header(raw)
    except Refused:
        return None


@lru_cache(maxsize=16)
def _version(text: str) -> tuple[int, ...]:
    """MSH-12 as numbers; what is none is answered in the layout of 2.5.1."""
    found = _VERSION_NUMBERS.match(text)
    return tuple(int(number) for number in found.groups(default="0")) if found else (2, 5, 1)


def _msh(
    message: Message | None,
    delimiters: Delimiters,
    version: tuple[int, ...],
    now: datetime,
    raw: bytes,
    order_kind: tuple[str, str] | None,
    style: AnswerStyle,
    declares: bool,
) -> list[str]:
    """`declares`: the message could be read in the character set that it says."""
    application, facility, to_application, to_facility, control_id, processing_id, sent_version = (
        _echo(message, n) for n in (3, 4, 5, 6, 10, 11, 12)
    )
    iso = now.isoformat()
    # Unique because a message is answered once at a time; made from what is known, so that answers can be repeated.
    seed = f"{iso}\n{application}\n{facility}\n{control_id}\n{style.level}\n".encode() + raw
    apart = style.level == "apart"
    return [
        "MSH",
        delimiters.component + delimiters.repetition + delimiters.escape + delimiters.subcomponent,
        to_application, to_facility, application, facility,
        _timestamp(iso),
        "",
        _type(message, delimiters, version, order_kind),
        hashlib.blake2b(seed, digest_size=10).hexdigest().upper(),  # 20 characters, the limit of v2.3.1
        processing_id or "P",
        sent_version or "2.5.1",
        "", "", "AL" if apart else "", "NE" if apart else "", "",
        _echo(message, 18) if declares else "",
    ]  # fmt: skip


def _type(
    message: Message | None, delimiters: Delimiters, version: tuple[int, ...], order_kind: tuple[str, str] | None
) -> str:
    """MSH-9: before 2.2 the type alone, before 2.4 with its event, since then with the structure's name."""
    code, event = order_kind or ("ACK", escape(message.trigger_event, delimiters) if message else "")
    if not event or not delimiters.component or version < (2, 2):
        return code
    structure = f"{code}_{event}" if order_kind else code
    return delimiters.component.join([code, event, structure] if version >= (2, 4) else [code, event])


def _timestamp(iso: str) -> str:
    """ISO 8601, to the second or the microsecond, as a TS: YYYYMMDDHHMMSS+ZZZZ."""
    day, _, clock = iso.partition("T")
    offset = clock[15:] if clock[8:9] == "." else clock[8:]
    return f"{day.replace('-', '')}{clock[:8]}{offset}".replace(":", "")


def _echo(message: Message | None, n: int) -> str:
    """MSH-n as it was sent; a line end that got into it would end our segment, so it becomes a space."""
    return message.msh.raw(n).replace("\n", " ") if message else ""


def _msa(
    message: Message | None,
    delimiters: Delimiters,
    refusals: Sequence[Refusal],
    notes: Sequence[str],
    style: AnswerStyle,
) -> list[str]:
    code = commit_code(refusals) if style.level == "commit" else outcome(refusals)
    said = "; ".join([*(str(refusal) for refusal in refusals[:ERRORS_MAX]), *notes])
    return [
        "MSA", code, _echo(message, 10), escape(_shorten(said, MSA_3_CHARACTERS_MAX), delimiters)
    ]  # fmt: skip


def _err(refusals: Sequence[Refusal], delimiters: Delimiters, version: tuple[int, ...]) -> list[list[str]]:
    if not refusals or not delimiters.component:
        return []
    if version < (2, 5):
        # One segment whose ERR-1 repeats: segment, sequence, field, code; the code's parts are subcomponents.
        separator = delimiters.repetition
        told = [_error_1(refusal, delimiters, version) for refusal in refusals]
        # These versions have no field for words. ERR-7 of the later ones carries them: who does not know it skips it.
        words = _shorten("; ".join(map(str, refusals)), _ERR_7_CHARACTERS_MAX)
        return [["ERR", separator.join(told) if separator else told[0], "", "", "", "", "", escape(words, delimiters)]]
    return [_error(refusal, delimiters, version) for refusal in refusals]


def _error_1(refusal: Refusal, delimiters: Delimiters, version: tuple[int, ...]) -> str:
    code = code_for(refusal.kind, version)
    coded = [str(code), MEANING[code], "HL70357"] if delimiters.subcomponent else [str(code)]
    place = [*_location(refusal.where), "", "", ""][:3]
    return delimiters.component.join([*place, delimiters.subcomponent.join(coded)])


def _error(refusal: Refusal, delimiters: Delimiters, version: tuple[int, ...]) -> list[str]:
    code = code_for(refusal.kind, version)

    def coded(*parts: str) -> str:
        return delimiters.component.join(escape(part, delimiters) for part in parts)

    return [
        "ERR", "",
        delimiters.component.join(_location(refusal.where)),
        coded(str(code), MEANING[code], "HL70357"),
        "E",
        coded(refusal.kind.name, refusal.kind.value, "L"),
        "",
        escape(_shorten(str(refusal), _ERR_7_CHARACTERS_MAX), delimiters),
        escape(_shorten(refusal.text, _ERR_8_CHARACTERS_MAX), delimiters),
    ]  # fmt: skip


# The orders of an answer in order structure: an ORC for each, and the OBR and IPCs that it came with, as they were sent
# (ORR and ORI require them).


def _groups(message: Message) -> Iterator[tuple[Segment, list[Segment]]]:
    """Each ORC with the OBR and IPCs that follow it."""
    group: tuple[Segment, list[Segment]] | None = None
    for segment in message.segments:
        if segment.name == "ORC":
            if group:
                yield group
            group = segment, []
        elif group and segment.name in ("OBR", "IPC"):
            group[1].append(segment)
    if group:
        yield group


def _orders(message: Message, responses: Sequence[OrderResponse]) -> Iterator[list[str]]:
    groups = list(_groups(message))
    for response in responses:
        said = next((group for group in groups if _is_about(group[0], response)), None)
        echoed = [said[0].raw(n).replace("\n", " ") if said else "" for n in (2, 3)]
        numbers = [
            echo or _identifier(identifier, message.delimiters)
            for echo, identifier in zip(echoed, (response.placer, response.filler), strict=True)
        ]
        yield ["ORC", response.control.value, *numbers, "", response.order_status]
        yield from _as_sent(said[1] if said else ())


def _refused_orders(message: Message) -> Iterator[list[str]]:
    told: set[tuple[str, str]] = set()
    for order, details in _groups(message):
        placer, filler = (order.raw(n).replace("\n", " ") for n in (2, 3))
        control = order.text(1).strip().upper()
        response = response_of(OrderControl[control], True) if control in OrderControl.__members__ else OrderControl.UA
        if response is None or (placer, filler) in told:
            continue
        told.add((placer, filler))
        yield ["ORC", response.value, placer, filler]
        yield from _as_sent(details)


def _is_about(order: Segment, response: OrderResponse) -> bool:
    if response.placer is not None and order.text(2):
        return order.text(2) == response.placer.value
    return response.filler is not None and order.text(3) == response.filler.value


def _identifier(identifier: Identifier | None, delimiters: Delimiters) -> str:
    if identifier is None:
        return ""
    parts = [escape(part, delimiters) for part in (identifier.value, identifier.issuer) if part]
    return delimiters.component.join(parts) if delimiters.component else parts[0]


def _as_sent(segments: Sequence[Segment]) -> Iterator[list[str]]:
    for segment in segments:
        yield [part.replace("\n", " ") for part in segment.fields]


def _location(where: str) -> list[str]:
    """`OBR[2]-4(3).1` as the components of ERR-2: segment, sequence, field, repetition, component, subcomponent."""
    found = _PLACE.fullmatch(where)
    if found is None:
        return []
    segment, number, field, repetition, component, subcomponent = found.groups(default="")
    location = [segment, number or "1", field, repetition or ("1" if component else ""), component, subcomponent]
    while not location[-1]:
        location.pop()
    return location


def _shorten(text: str, characters_max: int) -> str:
    """At most that many characters, cut between words."""
    if not text:
        return ""
    text = " ".join(text.split())
    if len(text) <= characters_max:
        return text
    room = characters_max - len(" ...")
    return (text[: room + 1].rsplit(" ", 1)[0] if " " in text[: room + 1] else text[:room])[:room] + " ..."
