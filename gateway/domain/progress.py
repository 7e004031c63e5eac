"""How far a requested procedure and an order are, from their steps; and what is told of a change.

Statuses of procedures and orders are not held: they follow from the statuses of the steps by `STATUS_OF`, so they can
never disagree, and their history follows from the history of the steps. `progress` compares before and after.
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum

from gateway.domain.worklist import SPSStatus

# The first row one of whose statuses a step has (HL7 table 0038).
STATUS_OF: tuple[tuple[str, frozenset[SPSStatus]], ...] = (
    ("IP", frozenset({SPSStatus.STARTED, SPSStatus.DEPARTED})),
    ("SC", frozenset({SPSStatus.SCHEDULED, SPSStatus.ARRIVED, SPSStatus.READY})),
    ("HD", frozenset({SPSStatus.HELD})),
    ("CM", frozenset({SPSStatus.COMPLETED})),
    ("DC", frozenset({SPSStatus.DISCONTINUED})),
    ("CA", frozenset({SPSStatus.CANCELED})),
)
"""What a requested procedure or an order is as a whole, by its steps."""


class Progress(StrEnum):
    """What became of an order, as its placer is told (RAD-3)."""

    STARTED = "started"
    STEP_COMPLETED = "step completed"
    """One of several; the order goes on."""
    PERFORMED = "performed"
    """A performed step ended and another one of the same scheduled step runs."""
    COMPLETED = "completed"
    RETURNED = "returned"
    """Broken off, and back on the worklist."""
    DISCONTINUED = "discontinued"
    """Broken off for good."""
    CANCELED = "canceled"
    HELD = "held"
    ADDED = "added"
    """Performed without an order: one was made here, and the placer shall give it a number."""


STATUS_TOLD: Mapping[Progress, tuple[str, str]] = {
    Progress.STARTED: ("SC", "IP"),
    Progress.STEP_COMPLETED: ("SC", "IP"),
    Progress.PERFORMED: ("SC", "IP"),
    Progress.COMPLETED: ("SC", "CM"),
    Progress.RETURNED: ("SC", "SC"),
    Progress.DISCONTINUED: ("SC", "DC"),
    Progress.CANCELED: ("OC", "CA"),
    Progress.HELD: ("SC", "HD"),
    Progress.ADDED: ("SN", "IP"),
}
"""Order control and order status that tell it, where a destination is not configured otherwise."""

_BY_STATUS: Mapping[str, Progress] = {
    "IP": Progress.STARTED,
    "SC": Progress.RETURNED,
    "HD": Progress.HELD,
    "CM": Progress.COMPLETED,
    "DC": Progress.DISCONTINUED,
    "CA": Progress.CANCELED,
}


def status_of(statuses: Iterable[SPSStatus]) -> str:
    """The status (HL7 table 0038) that steps come to; '' where nothing fits, as for one whose day passed."""
    held = frozenset(statuses)
    return next((code for code, listed in STATUS_OF if not listed.isdisjoint(held)), "")


def standing(statuses: Iterable[SPSStatus]) -> Progress | None:
    """What to tell of an order whose steps have these statuses to whom it was not told how they came to it."""
    held = frozenset(statuses)
    what = _BY_STATUS.get(status_of(held))
    # Part of it is done, so the order as a whole is not back where it began.
    return Progress.STEP_COMPLETED if what is Progress.RETURNED and SPSStatus.COMPLETED in held else what


def progress(before: Mapping[int, SPSStatus], after: Mapping[int, SPSStatus]) -> Progress | None:
    """What to tell of an order whose steps (by number) had these statuses and have those; None where nothing new."""
    if before == after:
        return None
    was, now = status_of(before.values()), status_of(after.values())
    done = [step for step, status in after.items() if status is SPSStatus.COMPLETED and before.get(step) is not status]
    if done and now != "CM":  # what is left waits, or runs: nothing was broken off
        return Progress.STEP_COMPLETED
    if was == now:
        return None
    if after and not now:  # its day passed meanwhile, so it is on no list; whoever was told that it runs has to know
        return Progress.RETURNED
    return standing(after.values())


def performed_beside(statuses: Iterable[SPSStatus]) -> Progress:
    """What to tell of an order with a performed step that ended and changed none of these statuses.

    Another one of the same scheduled step runs, or ended before it was known whose this one is.
    """
    what = standing(statuses) or Progress.RETURNED  # its day passed, as in `progress`
    return Progress.PERFORMED if what is Progress.STARTED else what


def left_out(before: Mapping[int, SPSStatus], after: Mapping[int, SPSStatus]) -> bool:
    """Whether an order is complete now because what was left of it is not to be done any more."""
    done = {step for step, status in before.items() if status is SPSStatus.COMPLETED}
    now = {step for step, status in after.items() if status is SPSStatus.COMPLETED}
    return done == now and status_of(before.values()) != status_of(after.values()) == "CM"
