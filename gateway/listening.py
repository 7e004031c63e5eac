"""The DICOM side of one process: its listener, the worklist behind it, and what it counts.

The process that does everything has one; where workers answer, each of them has one. Nothing is changed from here:
what modalities report goes to whoever can write it.
"""

import socket
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, Protocol

import structlog

from gateway.answering import Answering
from gateway.config import DICOMSettings, Site
from gateway.domain.performed import Operation
from gateway.edges.database import StoreUnavailable
from gateway.edges.dimse_server import Association, DIMSEServer, Limits, Rejection
from gateway.edges.dimse_service import EndedFind
from gateway.edges.metrics import Tally
from gateway.wire.dimse import FindPart, NAnswer
from gateway.workflow.availability import Announcement
from gateway.workflow.performed_request import PerformRequest
from gateway.workflow.ports import QueryRecord, Reader
from gateway.workflow.query import Worklist
from gateway.workflow.retrieval import PerformedSource

Report = Callable[[Operation | Announcement, PerformRequest], Awaitable[NAnswer]]
"""Runs an N-CREATE or N-SET; a positive answer is on disk."""


class AnswersReader(Reader, PerformedSource, Protocol):
    """What answers are read from."""


PER_ADDRESS_MIN = 4
"""Associations that each of several processes allows one address: the system spreads connections by chance."""

_log = structlog.get_logger()


class Listening:
    """The listener of one process. `tally` is what it counts; it may be exchanged for an empty one at any time."""

    def __init__(
        self,
        site: Site,
        reader: AnswersReader,
        report: Report,
        keep: Callable[[QueryRecord], None],
        tally: Tally,
        processes: int = 1,
    ) -> None:
        """`keep` takes the record of each query. `processes` share the configured limits, this one among them."""
        self.tally = tally
        self._answering = Answering(site, Worklist(reader, StoreUnavailable, self._left_out), reader, keep)
        dicom = site.settings.dicom
        self._server = DIMSEServer(
            dicom.host,
            dicom.port,
            _Handlers(self._answering, report),
            limits_of(dicom, processes),
            observe=self._observe,
        )

    @property
    def associations(self) -> int:
        """How many are open now."""
        return self._server.associations

    @property
    def unready(self) -> str:
        """Why nobody answers DICOM now: once started, that does not happen."""
        return ""

    def serve(self, site: Site) -> None:
        """Answer by this site from now on, open associations too; its addresses and limits need a restart."""
        self._answering.site = site

    async def start(self, sockets: Sequence[socket.socket] = ()) -> None:
        """Listen on these sockets, or on the site's address. Raises OSError where that is taken."""
        await self._server.start(sockets)

    async def stop(self, grace_s: float) -> None:
        """Take no more associations, finish what is in progress, release, then cut."""
        await self._server.stop(grace_s)

    def _left_out(self, step_id: int, reason: Exception) -> None:
        self.tally.left_out += 1
        _log.error("item_left_out", step=step_id, exc_info=reason)

    def _observe(self, event: str, /, **fields: Any) -> None:
        if event in ("association_opened", "association_closed"):
            return  # a request's line tells who asked; that the association began and ended well is nobody's news
        if event == "request_done":
            self.tally.request_done(
                fields["operation"], fields["status"], fields["matches"], fields["milliseconds"] / 1000
            )
        elif event == "association_rejected":
            self.tally.rejected += 1
        elif event == "association_aborted":
            self.tally.aborted += 1
        _log.info(event, **fields)


def limits_of(dicom: DICOMSettings, processes: int) -> Limits:
    """The limits of one of so many processes: what is configured is meant for all of them together."""

    def share(total: int) -> int:
        return -(-total // processes)

    of_one = Limits()
    return Limits(
        associations_max=share(dicom.associations_max),
        associations_per_address_max=max(
            share(dicom.associations_per_address_max), min(dicom.associations_per_address_max, PER_ADDRESS_MIN)
        ),
        waiting_connections_max=share(of_one.waiting_connections_max),
        waiting_per_address_max=share(of_one.waiting_per_address_max),
        held_bytes_max=max(share(of_one.held_bytes_max), of_one.dataset_bytes_max),
        idle_s=dicom.idle_s,
    )


class _Handlers:
    """What the DICOM listener asks for, answered by the read side and by whoever writes."""

    def __init__(self, answering: Answering, report: Report) -> None:
        self._answering = answering
        self._report = report

    def admit(self, association: Association) -> Rejection | None:
        """Who may call, and what may be called."""
        return self._answering.admit(association)

    def find(self, association: Association, transfer_syntax: str, identifier: bytes) -> Iterator[FindPart]:
        """C-FIND on the worklist (RAD-5)."""
        return self._answering.find(association, transfer_syntax, identifier)

    def found(self, association: Association, ended: EndedFind) -> None:
        """A C-FIND is over."""
        self._answering.found(association, ended)

    async def create(
        self, association: Association, transfer_syntax: str, sop_instance_uid: str | None, dataset: bytes
    ) -> NAnswer:
        """N-CREATE of an MPPS (RAD-6)."""
        request = PerformRequest(sop_instance_uid or "", association.calling_ae_title, transfer_syntax, dataset)
        return await self._report(Operation.CREATE, request)

    async def set(
        self, association: Association, transfer_syntax: str, sop_instance_uid: str, dataset: bytes
    ) -> NAnswer:
        """N-SET of an MPPS (RAD-7)."""
        request = PerformRequest(sop_instance_uid, association.calling_ae_title, transfer_syntax, dataset)
        return await self._report(Operation.SET, request)

    async def get(
        self, association: Association, transfer_syntax: str, sop_instance_uid: str, attribute_tags: Sequence[int]
    ) -> NAnswer:
        """N-GET of an MPPS."""
        return await self._answering.get(association, transfer_syntax, sop_instance_uid, attribute_tags)

    async def available(
        self, association: Association, transfer_syntax: str, sop_instance_uid: str, dataset: bytes
    ) -> NAnswer:
        """N-CREATE of an Instance Availability Notification."""
        request = PerformRequest(sop_instance_uid, association.calling_ae_title, transfer_syntax, dataset)
        return await self._report(Announcement.AVAILABILITY, request)
