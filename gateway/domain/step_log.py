"""A step's status from what was said to happen to it: in the order in which it was made, not in which it arrived.

Every step keeps what orders said of its status (`Stamps.events`), so that a late message is put where it belongs and
the status follows from all of them. What a modality or the night did is not among them: where the status held is not
what orders made it, the table of `domain.worklist` decides from the status held.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gateway.domain.facts import Stamp
from gateway.domain.worklist import FINISHED, TRANSITIONS, SPSStatus, StepEvent

Said = tuple[str, Stamp]
"""The name of a StepEvent, and who said it when."""

KEPT_MAX = 16
"""Events kept of one step; of more, a repeated one goes, else the oldest are summed up in one."""

# What says of a step in one event what the oldest ones came to.
_SUMMED_UP = {
    SPSStatus.SCHEDULED: StepEvent.SCHEDULED_ANEW,
    SPSStatus.ARRIVED: StepEvent.ARRIVED,
    SPSStatus.HELD: StepEvent.HOLD,
    SPSStatus.STARTED: StepEvent.REPORTED_STARTED,
    SPSStatus.COMPLETED: StepEvent.REPORTED_COMPLETED,
    SPSStatus.DISCONTINUED: StepEvent.DISCONTINUE,
    SPSStatus.CANCELED: StepEvent.CANCEL,
}


@dataclass(frozen=True, slots=True)
class Happened:
    """The status after an event (None: refused), all events now, and whether something made later was known already."""

    status: SPSStatus | None
    events: tuple[Said, ...]
    late: bool = False


def happen(status: SPSStatus, events: Sequence[Said], event: StepEvent, stamp: Stamp) -> Happened:
    """What `event`, said at `stamp`, makes of a step of this status of which `events` were said before."""
    if not events:
        return Happened(TRANSITIONS[status, event], ((event.name, stamp),))
    place = next((place for place, (_, since) in enumerate(events) if not stamp.replaces(since)), len(events))
    known = _kept((*events[:place], (event.name, stamp), *events[place:]), place)
    if place == len(events):
        return Happened(TRANSITIONS[status, event], known)
    later = [StepEvent[name] for name, _ in events[place:]]
    if TRANSITIONS[_after(SPSStatus.SCHEDULED, _names(events[:place])), event] is None:
        return Happened(None, known, late=True)
    without = _after(SPSStatus.SCHEDULED, _names(events))
    with_it = _after(SPSStatus.SCHEDULED, (*_names(events[:place]), event, *later))
    if with_it is without:
        return Happened(status, known, late=True)
    if status is without:
        return Happened(with_it, known, late=True)
    after = TRANSITIONS[status, event]  # a modality or the night has spoken meanwhile
    return Happened(_after(after, later) if after is not None else None, known, late=True)


def finished_before(status: SPSStatus, events: Sequence[Said], stamp: Stamp) -> bool:
    """Whether the step was over when something was said at `stamp`; also where it is not known since when it is."""
    if status not in FINISHED:
        return False
    reached = SPSStatus.SCHEDULED
    for name, since in events:
        reached = _after(reached, (StepEvent[name],))
        if reached in FINISHED:
            return reached is not status or stamp.replaces(since)
    return True


def _after(status: SPSStatus, events: Iterable[StepEvent]) -> SPSStatus:
    """The status after these; one that was refused changed nothing."""
    for event in events:
        status = TRANSITIONS[status, event] or status
    return status


def _names(events: Iterable[Said]) -> Iterable[StepEvent]:
    return [StepEvent[name] for name, _ in events]


def _kept(events: tuple[Said, ...], place: int) -> tuple[Said, ...]:
    """The events as they are kept: where they are too many, one repeated without another between goes first."""
    if place and events[place] == events[place - 1]:  # the same message again
        return (*events[:place], *events[place + 1 :])
    if len(events) <= KEPT_MAX:
        return events
    for middle in (place, place - 1, place + 1):
        if 0 < middle < len(events) - 1 and len({name for name, _ in events[middle - 1 : middle + 2]}) == 1:
            events = (*events[:middle], *events[middle + 1 :])
            break
    if len(events) <= KEPT_MAX:
        return events
    oldest, rest = events[: KEPT_MAX // 2], events[KEPT_MAX // 2 :]
    sum_ = _SUMMED_UP[_after(SPSStatus.SCHEDULED, _names(oldest))]
    return (sum_.name, oldest[-1][1]), *rest
