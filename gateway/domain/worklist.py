"""The scheduled procedure step: its status table, and the worklist item that shows exactly one of them.

Every change of a step's status is in `TRANSITIONS`, total over states and events. Nothing here knows about
messages or associations.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from gateway.domain.attributes import SPS_SEQUENCE, STEP_TYPE_1, Attributes, text


class SPSStatus(StrEnum):
    """Scheduled Procedure Step Status (0040,0020): PS3.3 C.4.10, and the terms archives and RIS add to it."""

    SCHEDULED = "SCHEDULED"
    ARRIVED = "ARRIVED"
    READY = "READY"
    STARTED = "STARTED"
    DEPARTED = "DEPARTED"
    COMPLETED = "COMPLETED"
    DISCONTINUED = "DISCONTINUED"
    CANCELED = "CANCELED"
    EXPIRED = "EXPIRED"
    HELD = "ON HOLD"


class StepEvent(StrEnum):
    """What can happen to a step: what orders say, then the patient's arrival (ADT), then MPPS, then the night."""

    ORDERED = "ordered or changed"
    ORDERED_ANEW = "ordered anew"
    SCHEDULED_ANEW = "ordered anew as scheduled"
    RESCHEDULED = "given a new start"
    HOLD = "hold"
    RELEASE = "release, or scheduled"
    CANCEL = "cancel"
    WITHDRAW = "cancel, or discontinue where started"
    LEFT_OUT = "left out of a change that says everything"
    DISCONTINUE = "discontinue"
    REPORTED_STARTED = "reported started"
    REPORTED_COMPLETED = "reported completed"
    ARRIVED = "patient arrived"
    PERFORMANCE_STARTED = "MPPS in progress"
    PERFORMANCE_COMPLETED = "MPPS completed"
    PERFORMANCE_RETURNED = "MPPS discontinued, to be repeated"
    PERFORMANCE_GIVEN_UP = "MPPS discontinued, given up"
    PERFORMANCE_WITHDRAWN = "MPPS taken back"
    EXPIRE = "day long passed"


LISTED: frozenset[SPSStatus] = frozenset({SPSStatus.SCHEDULED, SPSStatus.ARRIVED, SPSStatus.READY, SPSStatus.STARTED})
"""What a worklist answer shows where no device profile says otherwise (design D14: STARTED stays)."""

FINISHED: frozenset[SPSStatus] = frozenset({SPSStatus.COMPLETED, SPSStatus.DISCONTINUED, SPSStatus.DEPARTED})
"""What is over. Its attributes say what was ordered when it was done, so a later change leaves them."""

_WAITING = (SPSStatus.SCHEDULED, SPSStatus.ARRIVED, SPSStatus.READY)
_S, _E = SPSStatus, StepEvent


def _table() -> dict[tuple[SPSStatus, StepEvent], SPSStatus | None]:
    """None means refused; a state that maps to itself means accepted without effect."""
    table: dict[tuple[SPSStatus, StepEvent], SPSStatus | None] = {
        (state, event): state for state in SPSStatus for event in StepEvent
    }
    for state in (*_WAITING, _S.HELD, _S.EXPIRED):
        table |= {
            (state, _E.HOLD): _S.HELD,
            (state, _E.CANCEL): _S.CANCELED,
            (state, _E.WITHDRAW): _S.CANCELED,
            (state, _E.LEFT_OUT): _S.CANCELED,
            (state, _E.DISCONTINUE): _S.DISCONTINUED,
            (state, _E.REPORTED_STARTED): _S.STARTED,
            (state, _E.REPORTED_COMPLETED): _S.COMPLETED,
        }
    for state in _WAITING:
        table |= {
            (state, _E.PERFORMANCE_GIVEN_UP): _S.DISCONTINUED,
            (state, _E.EXPIRE): _S.EXPIRED,  # a hold has no end of its own
        }
    table |= {
        (_S.SCHEDULED, _E.ARRIVED): _S.ARRIVED,
        (_S.HELD, _E.RELEASE): _S.SCHEDULED,
        (_S.HELD, _E.SCHEDULED_ANEW): _S.SCHEDULED,
        (_S.HELD, _E.PERFORMANCE_GIVEN_UP): _S.DISCONTINUED,
        # A sender that uses the number of a cancelled order for a new one means it; a change does not bring it back.
        (_S.CANCELED, _E.ORDERED_ANEW): _S.SCHEDULED,
        (_S.CANCELED, _E.SCHEDULED_ANEW): _S.SCHEDULED,
        # A scan runs: cancelling is too late, the sender has to say DC (HL7 table 0119), and a hold stops nothing.
        (_S.STARTED, _E.CANCEL): None,
        (_S.STARTED, _E.HOLD): None,
        (_S.STARTED, _E.WITHDRAW): _S.DISCONTINUED,
        (_S.STARTED, _E.DISCONTINUE): _S.DISCONTINUED,
        (_S.STARTED, _E.REPORTED_COMPLETED): _S.COMPLETED,
        (_S.STARTED, _E.PERFORMANCE_RETURNED): _S.SCHEDULED,
        (_S.STARTED, _E.PERFORMANCE_GIVEN_UP): _S.DISCONTINUED,
        # Only what the night took away comes back by a new start.
        (_S.EXPIRED, _E.RESCHEDULED): _S.SCHEDULED,
    }
    # It was never this step: what an MPPS made of it goes, what an order said of it meanwhile stays.
    for state in (_S.STARTED, _S.COMPLETED, _S.DISCONTINUED):
        table[state, _E.PERFORMANCE_WITHDRAWN] = _S.SCHEDULED
    # A modality is believed: what it performs is performed, whatever the order said (D14), also an append.
    for state in SPSStatus:
        table[state, _E.PERFORMANCE_STARTED] = _S.STARTED
        table[state, _E.PERFORMANCE_COMPLETED] = _S.COMPLETED
    return table


TRANSITIONS: Mapping[tuple[SPSStatus, StepEvent], SPSStatus | None] = _table()


@dataclass(frozen=True, slots=True)
class WorklistItem:
    """Exactly one scheduled procedure step with its patient, visit, order and requested procedure.

    `attributes` is the whole item as a modality may see it, with the step inside its sequence. `revision` rises
    with every change of any part, so (step_id, revision) names its content for ever.
    """

    step_id: int
    revision: int
    status: SPSStatus
    attributes: Attributes = field(repr=False)
    site: str = ""
    """Whose order it is, where one gateway serves several sites; '' for none."""

    @property
    def step(self) -> Attributes:
        """The one item of the Scheduled Procedure Step Sequence."""
        step: Attributes = self.attributes[SPS_SEQUENCE]["Value"][0]
        return step


def missing_for_listing(step: Attributes) -> tuple[str, ...]:
    """The type 1 keys (PS3.4 Table K.6-1) without which a step is an order but not yet a worklist item."""
    return tuple(keyword for keyword in STEP_TYPE_1 if not text(step, keyword))


def start_of(step: Attributes) -> str:
    """The step's start as 14 digits of wall clock for the index; '' where it has no date."""
    date = text(step, "ScheduledProcedureStepStartDate").replace(".", "")
    time = text(step, "ScheduledProcedureStepStartTime").replace(":", "").split(".")[0]
    return date + time.ljust(6, "0")[:6] if date else ""
