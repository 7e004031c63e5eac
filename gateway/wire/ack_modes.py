"""Acknowledgement modes (HL7 v2 2.9.2, 2.9.3; table 0155): which answers a message asks for, and where each goes.

Original mode, as IHE RAD asks (TF-2 2.4), has one answer on the connection. A sender who fills MSH-15 or MSH-16 is in
enhanced mode: MSH-15 says when it wants to hear that the message is stored (CA, CE, CR), MSH-16 when it wants to hear
what became of it (AA, AE, AR). That second answer is a message of its own to a destination; where none is
configured it is the one answer on the connection, because a sender waits for one answer, not for two.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Literal, TypeAlias

from gateway.domain.order import OrderResponse
from gateway.domain.refusal import Refusal
from gateway.wire.ack import AnswerStyle, acknowledge, outcome
from gateway.wire.er7 import NULL, Message

Outcome: TypeAlias = Literal["AA", "AE", "AR"]


class When(StrEnum):
    """When an answer is wanted (table 0155)."""

    ALWAYS = "AL"
    NEVER = "NE"
    ON_ERROR = "ER"
    ON_SUCCESS = "SU"

    def holds(self, failed: bool) -> bool:
        """Whether it is wanted after this."""
        return self is When.ALWAYS or self is (When.ON_ERROR if failed else When.ON_SUCCESS)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a sender in enhanced mode asks for."""

    commit: When
    application: When


def wanted(message: Message) -> Wanted | None:
    """What MSH-15 and MSH-16 ask for; None in original mode, where both are empty.

    Of two fields the one that is empty means never. A value that table 0155 does not have means always: an answer too
    many is noticed sooner than one that is missing.
    """
    said = [message.msh.text(n).strip().upper() for n in (15, 16)]
    if not any(value not in ("", NULL) for value in said):
        return None
    return Wanted(*(When.NEVER if value in ("", NULL) else _KNOWN.get(value, When.ALWAYS) for value in said))


_KNOWN = {when.value: when for when in When}


class Place(StrEnum):
    """Where the application's answer goes."""

    CONNECTION = "connection"
    DESTINATION = "destination"
    NOWHERE = "nowhere"


@dataclass(frozen=True, slots=True)
class Plan:
    """The answers due. `commit` is what the commit answer on the connection says, None where none is sent."""

    commit: Outcome | None
    application: Place


def plan(asked: Wanted | None, became: Outcome, destination: bool) -> Plan:
    """Which answers are due for what became of a message.

    `destination` says whether application acknowledgements have one. What is rejected was not accepted, so that no
    application answer follows where the commit answer tells it (2.9.3.1); an error in the content of a message that
    is stored is told by whichever answer is wanted.
    """
    if asked is None:
        return Plan(None, Place.CONNECTION)
    failed = became != "AA"
    told = asked.application.holds(failed)
    if told and not destination:
        return Plan(None, Place.CONNECTION)
    if told and not (became == "AR" and asked.commit.holds(failed)):
        accepted = became != "AR" and asked.commit.holds(False)
        return Plan("AA" if accepted else None, Place.DESTINATION)
    return Plan(became if asked.commit.holds(failed) else None, Place.NOWHERE)


@dataclass(frozen=True, slots=True)
class Answers:
    """What a message is answered with. b"" where nothing is due."""

    here: bytes = field(repr=False)
    """On the connection it came by."""
    apart: bytes = field(default=b"", repr=False)
    """To the destination of application acknowledgements."""


_Level = Literal["application", "commit", "apart"]
_LEVELS: tuple[_Level, ...] = ("application", "commit", "apart")
_STRUCTURES: tuple[Literal["ack", "order"], ...] = ("ack", "order")
_Refusals = Sequence[Refusal]
_STYLES = {(structure, level): AnswerStyle(structure, level) for structure in _STRUCTURES for level in _LEVELS}


def answers(
    message: Message | None,
    refusals: Sequence[Refusal] = (),
    *,
    now: datetime,
    notes: Sequence[str] = (),
    raw: bytes = b"",
    responses: Sequence[OrderResponse] = (),
    structure: Literal["ack", "order"] = "ack",
    destination: bool = False,
) -> Answers:
    """The answers due to `message`, or to `raw` where it could not be read. Arguments as for `acknowledge`."""

    def written(level: _Level, told: _Refusals = refusals) -> bytes:
        style = _STYLES[structure, level]
        return acknowledge(message, told, now=now, notes=notes, raw=raw, responses=responses, style=style)

    asked = wanted(message) if message else None
    if asked is None:
        return Answers(written("application"))
    due = plan(asked, outcome(refusals), destination)
    match due.application:
        case Place.CONNECTION:
            return Answers(written("application"))
        case Place.DESTINATION:
            return Answers(written("commit", ()) if due.commit else b"", written("apart"))
        case Place.NOWHERE:
            return Answers(written("commit") if due.commit else b"")
