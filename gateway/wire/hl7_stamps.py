"""When an HL7 v2 message was made, as its MSH-7 says it.

Stamps decide which of two messages is the newer one (`domain.facts`), so what MSH-7 leaves open counts as late as it
can be: nothing is put aside as old because its sender said too little. It is never later than the arrival: a clock
that runs ahead must not outlive its own next messages.
"""

import re
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import lru_cache

_FORM = re.compile(
    # A TS or DTM, and the ISO 8601 forms that some senders write instead.
    r"(\d{4})-?(\d\d)-?(\d\d)(?:[T ]?(\d\d)(?::?(\d\d)(?::?(\d\d)(?:[.,](\d{1,9}))?)?)?)?\s*(Z|[+-]\d\d:?\d\d)?",
    re.ASCII,
)
_CHARACTERS_MAX = 64  # what is longer is no time
_MICROSECOND = timedelta(microseconds=1)
_UNITS = (timedelta(days=1), timedelta(hours=1), timedelta(minutes=1), timedelta(seconds=1))
"""What is open where hours, minutes, seconds or fractions are not said."""


def made_at(said: str, zone: tzinfo, arrived: datetime) -> str:
    """MSH-7 as the text of a stamp: UTC, ISO 8601 with microseconds and no offset, never later than `arrived`.

    `zone` is that of times which name no offset. A time that a clock change makes double is the later one. What
    is no date, or less than a day, says nothing: then the message counts as made when it arrived.
    """
    try:
        made = _moment(said.strip(), zone) if len(said) <= _CHARACTERS_MAX else None
    except (ValueError, OverflowError):
        made = None
    return stamp_text(arrived if made is None else min(made, arrived))


def stamp_text(moment: datetime) -> str:
    """A moment in the form that stamps compare."""
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds")


@lru_cache(maxsize=64)  # senders made most of what comes now within the same few seconds
def _moment(said: str, zone: tzinfo) -> datetime | None:
    """The latest moment that the text can mean. Raises ValueError or OverflowError for what is no time."""
    found = _FORM.fullmatch(said)
    if found is None:
        return None
    year, month, day, hour, minute, second, fraction, offset = found.groups()
    said_parts = sum(part is not None for part in (hour, minute, second))
    microsecond = int(fraction[:6].ljust(6, "0")) if fraction else 0
    local = datetime(
        int(year), int(month), int(day), int(hour or 0), int(minute or 0), min(int(second or 0), 59), microsecond
    )
    if fraction is None:
        local += _UNITS[said_parts] - _MICROSECOND
    if offset is not None:
        return local.replace(tzinfo=_offset(offset)).astimezone(UTC)
    return max(local.replace(tzinfo=zone, fold=fold).astimezone(UTC) for fold in (0, 1))


def _offset(text: str) -> tzinfo:
    if text == "Z":
        return UTC
    away = timedelta(hours=int(text[1:3]), minutes=int(text[-2:]))
    return timezone(-away if text[0] == "-" else away)
