"""Kinds of values that several settings have, each checked as it is read."""

import re
from typing import Annotated
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, Field, StringConstraints

from gateway.wire.hl7_charsets import KNOWN, UnknownCharacterSet, default_character_set


def zone(name: str) -> str:
    """A time zone's name; '' for none given. Raises ValueError."""
    if name:
        try:
            ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise ValueError(f"{name!r} is no time zone name such as Europe/Berlin") from error
    return name


def charset(name: str) -> str:
    """A value of MSH-18; '' for none given. Raises ValueError."""
    try:
        default_character_set(name or "ascii")
    except UnknownCharacterSet as error:
        raise ValueError(f"{name!r} is no value of MSH-18 known here, such as {', '.join(KNOWN[2:5])}") from error
    return name


def message_types(said: tuple[str, ...]) -> tuple[str, ...]:
    """Message types as `ADT` or `ADT^A02`. Raises ValueError."""
    wrong = [each for each in said if not _MESSAGE_TYPE.fullmatch(each)]
    if wrong:
        raise ValueError(f"{wrong[0]!r} is no message type: write SIU for all of a kind, or ADT^A02 for one event")
    return said


_MESSAGE_TYPE = re.compile(r"[A-Z][A-Z0-9]{2}(\^[A-Z0-9]{1,3})?")

Zone = Annotated[str, AfterValidator(zone)]
Charset = Annotated[str, AfterValidator(charset)]
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=64)]
Port = Annotated[int, Field(ge=1, le=65535)]
MessageTypes = Annotated[tuple[str, ...], AfterValidator(message_types)]
