"""Performed procedure steps."""

from dataclasses import dataclass, field
from enum import StrEnum

from gateway.domain.attributes import Attributes


class MPPSState(StrEnum):
    """Performed Procedure Step Status (0040,0252), as on the wire (PS3.4 table F.1-3)."""

    IN_PROGRESS = "IN PROGRESS"
    COMPLETED = "COMPLETED"
    DISCONTINUED = "DISCONTINUED"


@dataclass(frozen=True, slots=True)
class PerformedStep:
    """A performed procedure step as held. `steps` are the ids of the scheduled steps it is linked to.

    `quarantined` says that it names another patient than the worklist does (design D14): it is kept and answered,
    and touches no item until a person decides.
    """

    sop_instance_uid: str
    state: MPPSState
    attributes: Attributes = field(repr=False)
    calling_ae_title: str = ""
    patient_id: int | None = None
    steps: tuple[int, ...] = ()
    quarantined: bool = False
