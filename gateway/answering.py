"""Questions to a running gateway: who may call, worklist queries with their record, and what was performed.

What the DICOM listener asks of the read side. It holds nothing but caches and writes nothing itself, so that every
process that listens has one of its own.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from datetime import time as clock
from functools import lru_cache

from gateway.config import Site
from gateway.domain import access
from gateway.domain.access import OPEN, Access, Denial, Permission
from gateway.domain.rates import Rates
from gateway.domain.refusal import RefusalKind
from gateway.edges.database import StoreUnavailable
from gateway.edges.dimse_server import Association, Rejection
from gateway.edges.dimse_service import Admission, EndedFind
from gateway.processing import now
from gateway.wire.dimse import FindAnswer, FindPart, NAnswer, Status
from gateway.wire.mpps_dataset import STATUSES
from gateway.wire.upper_layer import (
    AUTHENTICATION_FAILED,
    CALLED_AE_TITLE_NOT_RECOGNISED,
    CALLING_AE_TITLE_NOT_RECOGNISED,
    INSTANCE_AVAILABILITY,
    LOCAL_LIMIT_EXCEEDED,
    MODALITY_WORKLIST,
    MPPS,
    MPPS_RETRIEVE,
    VERIFICATION,
)
from gateway.workflow.perform import get_step
from gateway.workflow.ports import QueryRecord
from gateway.workflow.query import Caller, Worklist, caller_of
from gateway.workflow.retrieval import PerformedSource, find_visible

CALLERS_MAX = 4_096
"""Callers kept as looked up; an AE title that is accepted without being known may be anything."""

REJECTIONS: Mapping[Denial, Rejection] = {
    Denial.CALLED_UNKNOWN: CALLED_AE_TITLE_NOT_RECOGNISED,
    Denial.CALLED_NOT_ALLOWED: CALLED_AE_TITLE_NOT_RECOGNISED,
    Denial.CALLING_UNKNOWN: CALLING_AE_TITLE_NOT_RECOGNISED,
    Denial.NOT_INSTALLED: CALLING_AE_TITLE_NOT_RECOGNISED,
    Denial.ADDRESS: CALLING_AE_TITLE_NOT_RECOGNISED,
    Denial.PLAIN: CALLING_AE_TITLE_NOT_RECOGNISED,
    Denial.CERTIFICATE: CALLING_AE_TITLE_NOT_RECOGNISED,
    Denial.NO_USER: AUTHENTICATION_FAILED,
    Denial.USER: AUTHENTICATION_FAILED,
    Denial.RATE: LOCAL_LIMIT_EXCEEDED,
}
"""How each denial is said on the network (PS3.8 9.3.4). A caller learns no more from it than what to look at: which
bound it did not keep is in our log."""

PERMITTED: Mapping[Permission, str] = {
    Permission.WORKLIST: MODALITY_WORKLIST,
    Permission.MPPS: MPPS,
    Permission.MPPS_RETRIEVE: MPPS_RETRIEVE,
    Permission.AVAILABILITY: INSTANCE_AVAILABILITY,
}
"""The SOP class that each permission is about. Verification needs none."""

_ABOUT_USERS = (None, Denial.NO_USER, Denial.USER)
"""What may still become of a caller whose user nobody has looked at."""

Denied = Callable[[Association, Denial], None]
"""Is told who was not let in; it must neither wait nor fail."""

_GONE_COMMENT = "this AE title, or the worklist it called, is gone"
_GONE = FindAnswer(Status.UNABLE_TO_PROCESS, None, _GONE_COMMENT)
_NOT_ANY_MORE = NAnswer(STATUSES[RefusalKind.NOT_AUTHORISED], _GONE_COMMENT)
_NOT_PERMITTED_COMMENT = "the registry does not permit this to this AE title"
_MAY_NOT_ASK = FindAnswer(Status.UNABLE_TO_PROCESS, None, _NOT_PERMITTED_COMMENT)
_TOO_OFTEN = FindAnswer(Status.OUT_OF_RESOURCES, None, "asked too often; ask again later")
NOT_PERMITTED = NAnswer(STATUSES[RefusalKind.NOT_AUTHORISED], _NOT_PERMITTED_COMMENT)
"""Of what was taken away since the association was accepted; before, its presentation context is refused."""
_NOT_NOW = NAnswer(STATUSES[RefusalKind.TRANSIENT], "the performed step cannot be read now")


class Answering:
    """Answers the questions of this site's devices. `site` may be replaced whole while associations are open."""

    def __init__(
        self,
        site: Site,
        worklist: Worklist,
        performed: PerformedSource,
        keep: Callable[[QueryRecord], None],
        denied: Denied = lambda association, denial: None,
        processes: int = 1,
    ) -> None:
        """`keep` takes the record of each query; it must neither wait nor fail. `processes` share the limit of
        associations, which the system spreads over them."""
        self.site = site
        self._denied = denied
        self._processes = processes
        self._limits = site.settings.limits
        self._limit()
        self._worklist = worklist
        self._performed = performed
        self._keep = keep
        # Looked up once for a site and a day: (calling, called, negotiation) -> caller, and whether it has bounds.
        self._callers: dict[tuple[str, str, bytes], tuple[Caller | None, bool]] = {}
        self._looked_up_for, self._day = site, _Day.now(site)

    def admit(self, association: Association) -> Rejection | Admission | None:
        """Who may call, what may be called, and for what (PS3.8 9.3.4): the device registry decides.

        How often somebody may comes last: whoever stole an AE title uses up nothing of its owner's.
        """
        denial, bounds = self._standing(association)
        if denial is None:
            limits = self.site.settings.limits
            if self._limits is not limits:
                changed, self._limits = self._limits != limits, limits
                if changed:  # a reload of other things gives nobody a full allowance again
                    self._limit()
            if not self._associations.per_s or self._associations.allows(
                association.calling_ae_title, time.monotonic()
            ):
                return None if bounds is OPEN else _admission(bounds.may)
            denial = Denial.RATE
        self._denied(association, denial)
        return REJECTIONS[denial]

    def shuts_out(self, association: Association) -> bool:
        """Whether this caller is not let in whoever its user may be. `admit` says why, and has it told."""
        denial, _ = self._standing(association)
        return denial not in _ABOUT_USERS

    def _limit(self) -> None:
        self._associations = Rates(self._limits.associations_per_s / self._processes)
        self._queries = Rates(self._limits.queries_per_s)  # an association has one process, and a device mostly one

    def permits(self, association: Association, permission: Permission) -> bool:
        """Whether an association that was let in may do this by the registry as it is now."""
        denial, bounds = self._standing(association)
        return denial is None and permission in bounds.may

    def _standing(self, association: Association) -> tuple[Denial | None, Access]:
        """Why this caller may not be here by the registry as it is now, and what it is bound to."""
        site = self.site
        devices = site.devices
        if devices.worklist(association.called_ae_title) is None:
            return Denial.CALLED_UNKNOWN, OPEN
        device = devices.device(association.calling_ae_title)
        if device is None:
            return Denial.CALLING_UNKNOWN, OPEN
        if not device.installed:
            return Denial.NOT_INSTALLED, OPEN
        bounds = device.access
        if site.settings.users.required and not bounds.user_required:
            bounds = replace(bounds, user_required=True)
        if bounds is OPEN:
            return None, OPEN
        return access.denied(bounds, _caller(association)), bounds

    def find(self, association: Association, transfer_syntax: str, identifier: bytes) -> Iterator[FindPart]:
        """C-FIND on the worklist (RAD-5), by the registry as it is now."""
        caller, bound = self._known(association)
        if caller is None:
            return iter((_GONE,))
        if bound and not self.permits(association, Permission.WORKLIST):
            return iter((_MAY_NOT_ASK,))
        if self._queries.per_s and not self._queries.allows(association.calling_ae_title, time.monotonic()):
            return iter((_TOO_OFTEN,))
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
        caller, bound = self._known(association)
        if caller is None:
            return _NOT_ANY_MORE
        if bound and not self.permits(association, Permission.MPPS_RETRIEVE):
            return NOT_PERMITTED
        try:
            found = find_visible(self._performed, sop_instance_uid, caller.view, association.calling_ae_title)
        except StoreUnavailable:
            return _NOT_NOW
        answer = await asyncio.to_thread(get_step, found, sop_instance_uid, attribute_tags, transfer_syntax)
        return NAnswer(answer.status, answer.comment, None, answer.attribute_tags, answer.dataset)

    def caller(self, association: Association) -> Caller | None:
        """Who calls; None where a reload took the device or the worklist away since it was admitted."""
        return self._known(association)[0]

    def _known(self, association: Association) -> tuple[Caller | None, bool]:
        """Who calls, and whether it is bound to anything that may have changed since it was admitted."""
        site = self.site
        if self._looked_up_for is not site or not self._day.holds(time.time()):
            self._looked_up_for, self._day = site, _Day.now(site)
            self._callers.clear()
        key = (association.calling_ae_title, association.called_ae_title, association.worklist_negotiation)
        if key not in self._callers:
            if len(self._callers) >= CALLERS_MAX:
                self._callers.clear()
            device = site.devices.device(association.calling_ae_title)
            bound = site.settings.users.required or (
                device is not None and (device.access != OPEN or not device.installed)
            )
            self._callers[key] = caller_of(site.devices, *key, site.zone, self._day.date), bound
        return self._callers[key]


def _caller(association: Association) -> access.Caller:
    """What is known of who calls, as rules of access look at it."""
    return access.Caller(
        association.calling_ae_title,
        association.called_ae_title,
        association.remote_host,
        association.tls,
        association.certificate,
        association.user,
    )


@lru_cache(maxsize=64)  # as many as there are sets of permissions
def _admission(may: frozenset[Permission]) -> Admission | None:
    """How somebody with these permissions is let in; None: with everything."""
    if all(permission in may for permission in PERMITTED):
        return None
    return Admission(frozenset({VERIFICATION, *(PERMITTED[each] for each in may if each in PERMITTED)}))


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
