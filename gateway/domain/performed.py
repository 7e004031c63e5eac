"""The performed procedure step as held: its states, and the scheduled steps it names.

Every MPPS transition is in `TRANSITIONS`. What each attribute may do is in `performed_table`, what a request comes to
in `performed_rules`, what it means for scheduled steps in `performed_effect`. Nothing here knows about datasets or
associations.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from gateway.domain.attributes import Attributes, Element
from gateway.domain.refusal import RefusalKind


class MPPSState(StrEnum):
    """Performed Procedure Step Status (0040,0252), as on the wire (PS3.4 table F.1-3)."""

    IN_PROGRESS = "IN PROGRESS"
    COMPLETED = "COMPLETED"
    DISCONTINUED = "DISCONTINUED"


class Attention(StrEnum):
    """Why a person should look at a performed step."""

    NONE = ""
    NO_ORDER = "no order"
    """It names a scheduled step that is not held, or none: an order may come, or a person links it."""
    AMBIGUOUS = "several steps"
    """It names work that several scheduled steps could be, without saying which."""
    ANOTHER_PATIENT = "another patient"
    """It names another patient than the worklist does (design D14): kept, answered and forwarded, but not believed."""
    UNLINKED = "unlinked"
    """A person took away what it was linked to: only a person links it again."""
    SET_ASIDE = "set aside"
    """A person said that it needs no order."""


@dataclass(frozen=True, slots=True)
class PerformedStep:
    """A performed procedure step as held. `steps` are the ids of the scheduled steps it is linked to."""

    sop_instance_uid: str
    state: MPPSState
    attributes: Attributes = field(repr=False)
    calling_ae_title: str = ""
    patient_id: int | None = None
    steps: tuple[int, ...] = ()
    attention: Attention = Attention.NONE

    @property
    def quarantined(self) -> bool:
        """Whether it touches no item until a person decides."""
        return self.attention is Attention.ANOTHER_PATIENT

    @property
    def waits(self) -> bool:
        """Whether an order may still come for it: it names more scheduled steps than it is linked to.

        Not where a person decided what it is: an order that comes or changes does not decide that again.
        """
        open_ = self.attention in (Attention.NO_ORDER, Attention.AMBIGUOUS)
        return open_ and len(self.steps) < len(references(self.attributes))


class Operation(StrEnum):
    """The DIMSE services that change a performed step (PS3.4 F.7.2)."""

    CREATE = "N-CREATE"
    SET = "N-SET"


class RequestedStatus(StrEnum):
    """What a request says of the status: nothing, one of the three states, or something else."""

    NOTHING = ""
    IN_PROGRESS = "IN PROGRESS"
    COMPLETED = "COMPLETED"
    DISCONTINUED = "DISCONTINUED"
    OTHER = "another value"


def _table() -> dict[tuple[Operation, MPPSState | None, RequestedStatus], MPPSState | RefusalKind]:
    table: dict[tuple[Operation, MPPSState | None, RequestedStatus], MPPSState | RefusalKind] = {}
    for requested in RequestedStatus:
        # Creation: IN PROGRESS only (F.7.2.1.3), and never twice (PS3.7 10.1.5.1.6), also not for the same bytes.
        table[Operation.CREATE, None, requested] = RefusalKind.BAD_VALUE
        for state in MPPSState:
            table[Operation.CREATE, state, requested] = RefusalKind.DUPLICATE_INSTANCE
            # A final state is final (F.7.2.2.3); the state is checked before the content.
            table[Operation.SET, state, requested] = RefusalKind.STEP_CLOSED
        table[Operation.SET, None, requested] = RefusalKind.NO_SUCH_INSTANCE
    table |= {
        (Operation.CREATE, None, RequestedStatus.NOTHING): RefusalKind.MISSING_VALUE,
        (Operation.CREATE, None, RequestedStatus.IN_PROGRESS): MPPSState.IN_PROGRESS,
        (Operation.SET, MPPSState.IN_PROGRESS, RequestedStatus.NOTHING): MPPSState.IN_PROGRESS,
        (Operation.SET, MPPSState.IN_PROGRESS, RequestedStatus.IN_PROGRESS): MPPSState.IN_PROGRESS,
        (Operation.SET, MPPSState.IN_PROGRESS, RequestedStatus.COMPLETED): MPPSState.COMPLETED,
        (Operation.SET, MPPSState.IN_PROGRESS, RequestedStatus.DISCONTINUED): MPPSState.DISCONTINUED,
        (Operation.SET, MPPSState.IN_PROGRESS, RequestedStatus.OTHER): RefusalKind.BAD_VALUE,
    }
    return table


TRANSITIONS: Mapping[tuple[Operation, MPPSState | None, RequestedStatus], MPPSState | RefusalKind] = _table()
"""(operation, state held or None, status requested) -> the state afterwards, or why not. Total."""


STATUS = "00400252"
SCHEDULED_STEP_ATTRIBUTES = "00400270"
_STUDY_INSTANCE_UID, _ACCESSION_NUMBER = "0020000D", "00080050"
_ISSUER_OF_ACCESSION_NUMBER, _LOCAL_NAMESPACE, _UNIVERSAL_ID = "00080051", "00400031", "00400032"
_REQUESTED_PROCEDURE_ID, _SPS_ID = "00401001", "00400009"


def requested_status(said: Mapping[str, Element]) -> RequestedStatus:
    """What the request says of the status; padding and case are forgiven, since only one thing can be meant."""
    status = text_of(said, STATUS).strip().upper()
    try:
        return RequestedStatus(status)
    except ValueError:
        return RequestedStatus.OTHER


REFERENCES_MAX = 64
"""Scheduled steps one performed step may name: far above any real group case, and a bound for what linking costs."""


@dataclass(frozen=True, slots=True)
class StepReference:
    """The keys by which one item of the Scheduled Step Attributes Sequence names a scheduled step; '' if not given.

    `accession_issuer` is its Local Namespace Entity ID and its Universal Entity ID (PS3.3 table 10-17).
    """

    study_instance_uid: str
    sps_id: str
    accession_number: str
    requested_procedure_id: str
    accession_issuer: tuple[str, str] = ("", "")


def references(attributes: Mapping[str, Element]) -> tuple[StepReference, ...]:
    """The distinct scheduled steps that a performed step names, at most `REFERENCES_MAX`."""
    found: dict[StepReference, None] = {}
    for item in (attributes.get(SCHEDULED_STEP_ATTRIBUTES) or {}).get("Value") or ():
        if not isinstance(item, dict):
            continue
        reference = StepReference(
            text_of(item, _STUDY_INSTANCE_UID), text_of(item, _SPS_ID), text_of(item, _ACCESSION_NUMBER),
            text_of(item, _REQUESTED_PROCEDURE_ID), _issuer_of(item),
        )  # fmt: skip
        if any((reference.study_instance_uid, reference.accession_number)):
            found[reference] = None
        if len(found) == REFERENCES_MAX:
            break
    return tuple(found)


def _issuer_of(item: Mapping[str, Element]) -> tuple[str, str]:
    said = next(iter((item.get(_ISSUER_OF_ACCESSION_NUMBER) or {}).get("Value") or ()), None)
    if not isinstance(said, dict):
        return "", ""
    return text_of(said, _LOCAL_NAMESPACE), text_of(said, _UNIVERSAL_ID)


def text_of(attributes: Mapping[str, Element], tag: str) -> str:
    """The first value as text without padding, '' where there is none; for attributes that are no person names."""
    found = (attributes.get(tag) or {}).get("Value") or ()
    return str(found[0]).strip() if found and found[0] is not None else ""
