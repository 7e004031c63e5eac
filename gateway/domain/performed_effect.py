"""What performed steps mean for the scheduled step they are linked to: one total table.

A scheduled step runs while any of its performed steps runs, is complete when the last one ends and any was COMPLETED,
and else goes by the reasons of the one that ended last. Quarantined performed steps, and those for which the wrong
worklist entry was selected, count for nothing. What the event does to the step's status is in `worklist.TRANSITIONS`,
what that makes of requested procedure and order in `progress.STATUS_OF`.
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum

from gateway.domain.discontinuation import Consequence, consequence
from gateway.domain.performed import MPPSState, PerformedStep
from gateway.domain.worklist import StepEvent


class Happening(StrEnum):
    """What happens to one performed step of a scheduled one, or to its link to it."""

    IN_PROGRESS = "IN PROGRESS"
    COMPLETED = "COMPLETED"
    RETURNED = "DISCONTINUED, to be repeated"
    GIVEN_UP = "DISCONTINUED, given up"
    WITHDRAWN = "wrong entry selected, or no longer linked"


class Others(StrEnum):
    """What the other performed steps of the scheduled step come to."""

    NONE = "no other"
    RUNNING = "one IN PROGRESS"
    COMPLETED = "all ended, one COMPLETED"
    RETURNED = "all DISCONTINUED"
    GIVEN_UP = "all DISCONTINUED, one given up"


_H, _O, _E = Happening, Others, StepEvent


_ENDED: Mapping[Happening, StepEvent] = {
    _H.COMPLETED: _E.PERFORMANCE_COMPLETED,
    _H.RETURNED: _E.PERFORMANCE_RETURNED,
    _H.GIVEN_UP: _E.PERFORMANCE_GIVEN_UP,
    _H.WITHDRAWN: _E.PERFORMANCE_WITHDRAWN,
}
_LEFT: Mapping[Others, StepEvent] = {
    _O.RETURNED: _E.PERFORMANCE_RETURNED,
    _O.GIVEN_UP: _E.PERFORMANCE_GIVEN_UP,
}


def _events(happens: Happening, others: Others) -> tuple[StepEvent, ...]:
    if happens is _H.IN_PROGRESS:
        return (_E.PERFORMANCE_STARTED,)
    if others is _O.RUNNING:
        return ()
    if others is _O.COMPLETED:
        return (_E.PERFORMANCE_COMPLETED,)
    if happens is _H.WITHDRAWN and others in _LEFT:  # without it, the reasons of those that are left decide
        return _E.PERFORMANCE_WITHDRAWN, _LEFT[others]
    return (_ENDED[happens],)


EVENTS: Mapping[tuple[Happening, Others], tuple[StepEvent, ...]] = {
    (happens, others): _events(happens, others) for happens in Happening for others in Others
}
"""(what happens to one, what the others come to) -> what happens to the scheduled step, one after the other. Total."""


def happening(performed: PerformedStep) -> Happening:
    """What a performed step says that it is."""
    if performed.state is MPPSState.IN_PROGRESS:
        return Happening.IN_PROGRESS
    if performed.state is MPPSState.COMPLETED:
        return Happening.COMPLETED
    return _DISCONTINUED[consequence(performed)]


_DISCONTINUED: Mapping[Consequence, Happening] = {
    Consequence.RETURN: Happening.RETURNED,
    Consequence.GIVE_UP: Happening.GIVEN_UP,
    Consequence.WRONG_ENTRY: Happening.WITHDRAWN,
}

# The first one that is among them is what performed steps come to together.
_DECISIVE: tuple[tuple[Happening, Others], ...] = (
    (Happening.IN_PROGRESS, Others.RUNNING),
    (Happening.COMPLETED, Others.COMPLETED),
    (Happening.GIVEN_UP, Others.GIVEN_UP),
    (Happening.RETURNED, Others.RETURNED),
)


def come_to(performed: Iterable[PerformedStep]) -> Others:
    """What these come to together; those that are not believed count for nothing."""
    found = {happening(one) for one in performed if not one.quarantined}
    return next((others for each, others in _DECISIVE if each in found), Others.NONE)


def step_events(
    changed: PerformedStep, performed: Iterable[PerformedStep], withdrawn: bool = False
) -> tuple[StepEvent, ...]:
    """What it means for a scheduled step that `changed` has just reached its state; empty if nothing.

    `performed` are all performed steps of that scheduled step, with `changed` as it is now or without it. `withdrawn`
    says that `changed` is not linked to it any more, or not believed any more.
    """
    if changed.quarantined and not withdrawn:
        return ()
    happens = Happening.WITHDRAWN if withdrawn else happening(changed)
    others = come_to(one for one in performed if one.sop_instance_uid != changed.sop_instance_uid)
    return EVENTS[happens, others]
