"""Acknowledgements that we receive: what a peer said of a message of ours, and whether it meant that message."""

from dataclasses import dataclass, field

from gateway.domain.refusal import Refused
from gateway.wire.er7 import Message, parse

_TEXT_CHARACTERS_MAX = 300
_ANY_BYTE = "iso8859-1"  # codes and control IDs are ASCII; a text in another set is shown as it may be


@dataclass(frozen=True, slots=True)
class Told:
    """MSA-1 (table 0008), MSA-2, the codes of table 0357 in ERR, and the text."""

    code: str
    control_id: str
    errors: frozenset[str] = frozenset()
    text: str = field(default="", repr=False)


def read(data: bytes) -> Told | None:
    """What an answer says; None where it is none: it cannot be read, or has no MSA-1."""
    try:
        message = parse(data, _ANY_BYTE)
    except Refused:
        return None
    msa = message.first("MSA")
    if msa is None or not msa.text(1):
        return None
    text = "; ".join(
        dict.fromkeys(part for part in (msa.text(3), *(err.text(7) for err in message.all("ERR"))) if part)
    )
    return Told(msa.text(1).strip().upper(), msa.text(2), _errors(message), text[:_TEXT_CHARACTERS_MAX])


def answers(data: bytes, control_id: str) -> bool:
    """Whether this answers the message with that MSH-10, as far as it can be told.

    A peer that sends back no control ID, or nothing readable, can only mean the one message that waits.
    """
    return means(read(data), control_id)


def means(told: Told | None, control_id: str) -> bool:
    """The same of an answer that was read."""
    return told is None or told.control_id in ("", control_id)


def _errors(message: Message) -> frozenset[str]:
    """ERR-3.1, and before 2.5 the code inside ERR-1."""
    found = {err.text(3) for err in message.all("ERR")} | {err.text(1, 1, 4) for err in message.all("ERR")}
    return frozenset(found - {""})
