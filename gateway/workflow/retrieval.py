"""Which performed step a caller may see (MPPS Retrieve, PS3.4 F.8); what it is answered is `perform.get_step`.

The rule is that of the worklist (`domain.visibility`): sites keep departments apart, so who is limited to sites sees
performed steps whose every scheduled step is of these, and those it reported itself. What it may not see is for it not
there (0112): another answer would say that it is.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from gateway.domain.performed import PerformedStep
from gateway.domain.visibility import View
from gateway.domain.worklist import WorklistItem
from gateway.wire.mpps_dataset import readable_uid


class PerformedSource(Protocol):
    """Where performed steps and what they are linked to are read."""

    def performed_step(self, sop_instance_uid: str) -> PerformedStep | None:
        """The performed step of this SOP Instance UID."""

    def items(self, step_ids: Iterable[int]) -> Sequence[WorklistItem]:
        """Those steps as they are now; a step that went away meanwhile is left out."""


@dataclass(frozen=True, slots=True)
class Found:
    """A performed step that was read already, or none, as something to look it up in."""

    held: PerformedStep | None = field(default=None, repr=False)

    def performed_step(self, sop_instance_uid: str) -> PerformedStep | None:
        """The one performed step, where it is meant."""
        held = self.held
        return held if held is not None and held.sop_instance_uid == sop_instance_uid else None


def find_visible(source: PerformedSource, sop_instance_uid: str, view: View, calling_ae_title: str) -> Found:
    """The performed step of this SOP Instance UID, if the caller with this view of the worklist may see it."""
    uid = readable_uid(sop_instance_uid)
    held = source.performed_step(uid) if uid else None
    if held is None or not _may_see(source, held, view.sites, calling_ae_title):
        return Found()
    return Found(held)


def _may_see(source: PerformedSource, held: PerformedStep, sites: frozenset[str] | None, calling_ae_title: str) -> bool:
    if sites is None or held.calling_ae_title == calling_ae_title:
        return True
    items = source.items(held.steps)
    return bool(items) and all(item.site in sites for item in items)
