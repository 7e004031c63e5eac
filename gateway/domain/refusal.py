"""The one vocabulary for saying no. Each protocol renders it by a table of its own in `wire`.

A refusal says what is wrong, where, and what to do about it. Its text may quote the offending value, so it
belongs in answers and in the archive; logs carry only `kind` and `where`.
"""

from dataclasses import dataclass
from enum import StrEnum


class RefusalKind(StrEnum):
    """Why something is refused. Every wire module has a total table over these."""

    SEGMENT_SEQUENCE = "segment sequence"
    MISSING_FIELD = "missing field"
    MISSING_VALUE = "missing value"
    BAD_VALUE = "bad value"
    TOO_LONG = "too long"
    UNKNOWN_CODE = "unknown code"
    UNCOVERED = "uncovered order"
    UNREADABLE = "unreadable"
    UNSUPPORTED_TYPE = "unsupported message type"
    UNSUPPORTED_EVENT = "unsupported event"
    UNSUPPORTED_PROCESSING_ID = "unsupported processing ID"
    UNSUPPORTED_VERSION = "unsupported version"
    UNKNOWN_SENDER = "unknown sender"
    UNKNOWN_KEY = "unknown key"
    UNKNOWN_ORDER = "unknown order"
    LOCKED = "held by another"
    MALFORMED = "not built as the standard says"
    DUPLICATE_KEY = "duplicate key"
    CONFLICT = "conflict with the state held"
    UNUSABLE_QUERY = "unusable query"
    INVALID_UID = "invalid UID"
    DUPLICATE_INSTANCE = "duplicate instance"
    NO_SUCH_INSTANCE = "no such instance"
    STEP_CLOSED = "performed step already closed"
    GONE = "deleted"
    PRECONDITION = "not as the sender took it to be"
    NOT_UNDERSTOOD = "modifier that is not understood"
    NOT_PROVEN = "nobody has proven who asks"
    NOT_AUTHORISED = "not authorised"
    TRANSIENT = "cannot be stored now"
    INTERNAL = "internal error"


@dataclass(frozen=True, slots=True)
class Refusal:
    """One reason to say no.

    `where` uses the field's own coordinates: `ORC-2.1` or `OBR[2]-4.1` (segment occurrence and field
    repetition count from 1: `PID-3(2).1`), `(0040,0100)[0]/(0040,0009)`, `ServiceRequest.code`. It may be
    empty when the input as a whole is meant. `hint` says what to do.
    """

    kind: RefusalKind
    where: str
    text: str
    hint: str = ""

    def __str__(self) -> str:
        place = f"{self.where}: " if self.where else ""
        return f"{place}{self.text}" + (f" ({self.hint})" if self.hint else "")


class Refused(Exception):  # noqa: N818  (reads as what happened: the input was refused)
    """Carries refusals out of a use case, undoing its transaction. The message names kinds and places only."""

    def __init__(self, *refusals: Refusal) -> None:
        self.refusals = refusals
        super().__init__("; ".join(f"{refusal.kind} at {refusal.where or 'input'}" for refusal in refusals))
