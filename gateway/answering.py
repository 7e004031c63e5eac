"""Questions to a running gateway: who may call, worklist queries with their record, and what was performed.

What the DICOM listener asks of the read side. It holds nothing but caches and writes nothing itself, so that every
process that listens has one of its own.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from datetime import time as clock

from gateway.config import Site
from gateway.domain.refusal import RefusalKind
from gateway.edges.database import StoreUnavailable
from gateway.edges.dimse_server import Association, Rejection
from gateway.edges.dimse_service import EndedFind
from gateway.processing import now
from gateway.wire.dimse import FindAnswer, FindPart, NAnswer, Status
from gateway.wire.mpps_dataset import STATUSES
from gateway.wire.upper_layer import CALLED_AE_TITLE_NOT_RECOGNISED, CALLING_AE_TITLE_NOT_RECOGNISED
from gateway.workflow.perform import get_step
from gateway.workflow.ports import QueryRecord
from gateway.workflow.query import Caller, Worklist, caller_of
from gateway.workflow.retrieval import PerformedSource, find_visible

CALLERS_MAX = 4_096
"""Callers kept as looked up; an AE title that is accepted without being known may be anything."""

_GONE_COMMENT = "this AE title, or the worklist it called, is gone"
_GONE = FindAnswer(Status.UNABLE_TO_PROCESS, None, _GONE_COMMENT)
_NOT_ANY_MORE = NAnswer(STATUSES[RefusalKind.NOT_AUTHORISED], _GONE_COMMENT)
_NOT_NOW = NAnswer(STATUSES[RefusalKind.TRANSIENT], "the performed step cannot be read now")


class Answering:
    """Answers the questions of this site's devices. `site` may be replaced whole while associations are open."""

    def __init__(
        self, site: Site, worklist: Worklist, performed: PerformedSource, keep: Callable[[QueryRecord], None]
    ) -> None:
        """`keep` takes the record of each query; it must neither wait nor fail."""
        self.site = site
        self._worklist = worklist
        self._performed = performed
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

    async def get(
        self, association: Association, transfer_syntax: str, sop_instance_uid: str, attribute_tags: Sequence[int]
    ) -> NAnswer:
        """N-GET of a performed step (PS3.4 F.8), by the registry as it is now.

        It is read here, by this thread's reader, and written in a thread: one of thousands of series takes long.
        """
        caller = self.caller(association)
        if caller is None:
            return _NOT_ANY_MORE
        try:
            found = find_visible(self._performed, sop_instance_uid, caller.view, association.calling_ae_title)
        except StoreUnavailable:
            return _NOT_NOW
        answer = await asyncio.to_thread(get_step, found, sop_instance_uid, attribute_tags, transfer_syntax)
        return NAnswer(answer.status, answer.comment, None, answer.attribute_tags, answer.dataset)

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
