"""Worklist queries of a running gateway: who may call, the answers, and the record of each query.

What the DICOM listener asks of the read side. It holds nothing but caches and writes nothing itself, so that every
process that listens has one of its own.
"""

from collections.abc import Callable, Iterator
from datetime import date

from gateway.config import Site
from gateway.edges.dimse_server import Association, Rejection
from gateway.processing import now
from gateway.wire.dimse import FindAnswer, Status
from gateway.wire.upper_layer import CALLED_AE_TITLE_NOT_RECOGNISED, CALLING_AE_TITLE_NOT_RECOGNISED
from gateway.workflow.ports import QueryRecord
from gateway.workflow.query import Caller, Worklist, caller_of

CALLERS_MAX = 4_096
"""Callers kept as looked up; an AE title that is accepted without being known may be anything."""

_GONE = FindAnswer(Status.UNABLE_TO_PROCESS, None, "this AE title was taken out of the device registry")


class Answering:
    """Answers the queries of this site's devices. `site` may be replaced whole while associations are open."""

    def __init__(self, site: Site, worklist: Worklist, keep: Callable[[QueryRecord], None]) -> None:
        """`keep` takes the record of each query; it must neither wait nor fail."""
        self.site = site
        self._worklist = worklist
        self._keep = keep
        # Looked up once for a registry and a day: (calling, called, negotiation) -> caller.
        self._callers: dict[tuple[str, str, bytes], Caller | None] = {}
        self._callers_of: tuple[Site, date] | None = None

    def admit(self, association: Association) -> Rejection | None:
        """Who may call, and what may be called (PS3.8 9.3.4): the device registry decides."""
        devices = self.site.devices
        if devices.worklist(association.called_ae_title) is None:
            return CALLED_AE_TITLE_NOT_RECOGNISED
        if devices.device(association.calling_ae_title) is None:
            return CALLING_AE_TITLE_NOT_RECOGNISED
        return None

    def find(self, association: Association, transfer_syntax: str, identifier: bytes) -> Iterator[FindAnswer | None]:
        """C-FIND on the worklist (RAD-5), by the registry as it is now."""
        caller = self.caller(association)
        if caller is None:
            return iter((_GONE,))
        return self._worklist.answer(caller, transfer_syntax, identifier)

    def found(
        self,
        association: Association,
        transfer_syntax: str,
        identifier: bytes,
        status: int,
        matches: int,
        milliseconds: float,
    ) -> None:
        """Keep the query for whoever asks why a patient is not on the list."""
        caller = self.caller(association)
        notes = self._worklist.notes(caller, transfer_syntax, identifier) if caller is not None else ()
        self._keep(
            QueryRecord(
                now(),
                association.calling_ae_title,
                association.called_ae_title,
                association.remote_host,
                transfer_syntax,
                identifier,
                status,
                matches,
                milliseconds,
                association.worklist_negotiation,
                notes,
            )
        )

    def caller(self, association: Association) -> Caller | None:
        """Who calls; None where a reload took the device or the worklist away since it was admitted."""
        site, today = self.site, self.site.wall_clock(now()).date()
        if (
            self._callers_of is None
            or self._callers_of[0] is not site
            or self._callers_of[1] != today
            or len(self._callers) >= CALLERS_MAX
        ):
            self._callers_of = (site, today)
            self._callers.clear()
        key = (association.calling_ae_title, association.called_ae_title, association.worklist_negotiation)
        if key not in self._callers:
            self._callers[key] = caller_of(site.devices, *key, site.zone, today)
        return self._callers[key]
