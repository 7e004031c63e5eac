"""Worklist queries of a running gateway: who may call, the answers, and the record of each query.

What the DICOM listener asks of the read side. It holds nothing but caches and writes nothing itself, so that every
process that listens has one of its own.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from datetime import time as clock

from gateway.config import Site
from gateway.edges.dimse_server import Association, Rejection
from gateway.edges.dimse_service import EndedFind
from gateway.processing import now
from gateway.wire.dimse import FindAnswer, FindPart, Status
from gateway.wire.upper_layer import CALLED_AE_TITLE_NOT_RECOGNISED, CALLING_AE_TITLE_NOT_RECOGNISED
from gateway.workflow.ports import QueryRecord
from gateway.workflow.query import Caller, Worklist, caller_of

CALLERS_MAX = 4_096
"""Callers kept as looked up; an AE title that is accepted without being known may be anything."""

_GONE = FindAnswer(Status.UNABLE_TO_PROCESS, None, "this AE title, or the worklist it called, is gone")


class Answering:
    """Answers the queries of this site's devices. `site` may be replaced whole while associations are open."""

    def __init__(self, site: Site, worklist: Worklist, keep: Callable[[QueryRecord], None]) -> None:
        """`keep` takes the record of each query; it must neither wait nor fail."""
        self.site = site
        self._worklist = worklist
        self._keep = keep
        # Looked up once for a site and a day: (calling, called, negotiation) -> caller.
        self._callers: dict[tuple[str, str, bytes], Caller | None] = {}
        self._looked_up_for, self._day = site, _Day.now(site)

    def admit(self, association: Association) -> Rejection | None:
        """Who may call, and what may be called (PS3.8 9.3.4): the device registry decides."""
        devices = self.site.devices
        if devices.worklist(association.called_ae_title) is None:
            return CALLED_AE_TITLE_NOT_RECOGNISED
        if devices.device(association.calling_ae_title) is None:
            return CALLING_AE_TITLE_NOT_RECOGNISED
        return None

    def find(self, association: Association, transfer_syntax: str, identifier: bytes) -> Iterator[FindPart]:
        """C-FIND on the worklist (RAD-5), by the registry as it is now."""
        caller = self.caller(association)
        if caller is None:
            return iter((_GONE,))
        return self._worklist.answer(caller, transfer_syntax, identifier)

    def found(self, association: Association, ended: EndedFind) -> None:
        """Keep the query for whoever asks why a patient is not on the list."""
        caller = self.caller(association)
        notes: tuple[str, ...] = ()
        if caller is not None:
            notes = self._worklist.notes(caller, ended.transfer_syntax, ended.identifier)
        self._keep(
            QueryRecord(
                now(),
                association.calling_ae_title,
                association.called_ae_title,
                association.remote_host,
                ended.transfer_syntax,
                ended.identifier,
                ended.status,
                ended.matches,
                ended.milliseconds,
                association.worklist_negotiation,
                notes,
            )
        )

    def caller(self, association: Association) -> Caller | None:
        """Who calls; None where a reload took the device or the worklist away since it was admitted."""
        site = self.site
        if self._looked_up_for is not site or not self._day.holds(time.time()):
            self._looked_up_for, self._day = site, _Day.now(site)
            self._callers.clear()
        key = (association.calling_ae_title, association.called_ae_title, association.worklist_negotiation)
        if key not in self._callers:
            if len(self._callers) >= CALLERS_MAX:
                self._callers.clear()
            self._callers[key] = caller_of(site.devices, *key, site.zone, self._day.date)
        return self._callers[key]


@dataclass(frozen=True, slots=True)
class _Day:
    """One day of the department's wall clock, and the seconds of the epoch it lasts from and to."""

    date: date
    begins: float
    ends: float

    def holds(self, at: float) -> bool:
        """Whether it is this day then."""
        return self.begins <= at < self.ends

    @classmethod
    def now(cls, site: Site) -> "_Day":
        """Today."""
        today = site.wall_clock(now()).date()
        midnights = (datetime.combine(day, clock.min, site.zone) for day in (today, today + timedelta(days=1)))
        return cls(today, *(midnight.timestamp() for midnight in midnights))
