"""The DICOM side of one process: its listener, the worklist behind it, and what it counts.

The process that does everything has one; where workers answer, each of them has one. Nothing is changed from here:
what modalities report goes to whoever can write it.
"""

import socket
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any, Protocol

import structlog

from gateway.answering import NOT_PERMITTED, Answering
from gateway.config import DICOMSettings, Site
from gateway.domain.access import Denial, Permission, User
from gateway.domain.performed import Operation
from gateway.edges.database import StoreUnavailable
from gateway.edges.dimse_server import Association, DIMSEServer, Limits, Rejection
from gateway.edges.dimse_service import Admission, EndedFind
from gateway.edges.flood import Flood
from gateway.edges.metrics import Tally
from gateway.identifying import Identifying
from gateway.processing import now
from gateway.securing import ListenersTLS
from gateway.wire.dimse import FindPart, NAnswer
from gateway.wire.user_identity import UserIdentity
from gateway.workflow.availability import Announcement
from gateway.workflow.knocks import Knock
from gateway.workflow.performed_request import PerformRequest
from gateway.workflow.ports import QueryRecord, Reader
from gateway.workflow.query import Worklist
from gateway.workflow.retrieval import PerformedSource

Report = Callable[[Operation | Announcement, PerformRequest], Awaitable[NAnswer]]
"""Runs an N-CREATE or N-SET; a positive answer is on disk."""


class AnswersReader(Reader, PerformedSource, Protocol):
    """What answers are read from."""


REMEMBERED = frozenset({Denial.ADDRESS, Denial.PLAIN, Denial.CERTIFICATE})
"""Denials of known AE titles that people want to see: the device was moved, or somebody else uses its name."""

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
        knocked: Callable[[Knock], None] = lambda knock: None,
        tls: ListenersTLS | None = None,
    ) -> None:
        """`keep` takes the record of each query, `knocked` who was not let in, where that is remembered. `processes`
        share the configured limits, this one among them."""
        self.tally = tally
        self._knocked = knocked
        self._flood = Flood()
        self._answering = Answering(
            site, Worklist(reader, StoreUnavailable, self._left_out), reader, keep, self._denied, processes
        )
        self._identifying = Identifying(site, self._denied)
        dicom = site.settings.dicom
        self._server = DIMSEServer(
            dicom.host,
            dicom.port if dicom.plain else None,
            _Handlers(self._answering, self._identifying, report),
            limits_of(dicom, processes),
            observe=self._observe,
            tls=tls.port("dicom") if tls is not None else None,
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
        self._identifying.serve(site)

    async def start(
        self, sockets: Sequence[socket.socket] = (), tls_sockets: Sequence[socket.socket] = ()
    ) -> None:  # fmt: skip
        """Listen on these sockets, or on the site's addresses. Raises OSError where one is taken."""
        await self._server.start(sockets, tls_sockets)

    async def stop(self, grace_s: float) -> None:
        """Take no more associations, finish what is in progress, release, then cut."""
        await self._server.stop(grace_s)
        self._identifying.stop()
        self._flood.flush()

    def _denied(self, association: Association, denial: Denial) -> None:
        reason = denial.name.lower()
        self.tally.caller_denied(reason)
        if self._flood.lets("caller_denied", reason):
            _log.warning(
                "caller_denied",
                association=association.number,
                calling_ae_title=association.calling_ae_title,
                called_ae_title=association.called_ae_title,
                remote_host=association.remote_host,
                reason=reason,
                meaning=denial.value,
            )
        asked = denial is Denial.CALLING_UNKNOWN and self._answering.site.devices.ask
        if asked or denial in REMEMBERED:
            self._knocked(_knock(association, reason))

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
            if not self._flood.lets(event, f"{fields['result']}/{fields['source']}/{fields['reason']}"):
                return
        elif event == "association_aborted":
            self.tally.aborted += 1
        else:
            self.tally.handshake_failed(event, fields)
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


def _knock(association: Association, reason: str) -> Knock:
    at, certificate = now(), association.certificate
    return Knock(
        association.calling_ae_title,
        association.remote_host,
        association.called_ae_title,
        reason,
        at,
        at,
        association.implementation_version,
        association.tls,
        certificate.fingerprint if certificate else "",
        certificate.common_name if certificate else "",
    )


class _Handlers:
    """What the DICOM listener asks for, answered by the read side and by whoever writes."""

    def __init__(self, answering: Answering, identifying: Identifying, report: Report) -> None:
        self._answering = answering
        self._identifying = identifying
        self._report = report

    def identify(self, association: Association, identity: UserIdentity) -> Awaitable[User | Rejection] | None:
        """Who the user is that an association names, if it may be let in at all: else a passcode could be tried under
        any name, and a stolen one would be told as a wrong passcode."""
        if self._answering.shuts_out(association):
            return None
        return self._identifying.identify(association, identity)

    def admit(self, association: Association) -> Rejection | Admission | None:
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
        if not self._answering.permits(association, Permission.MPPS):
            return NOT_PERMITTED
        request = PerformRequest(sop_instance_uid or "", association.calling_ae_title, transfer_syntax, dataset)
        return await self._report(Operation.CREATE, request)

    async def set(
        self, association: Association, transfer_syntax: str, sop_instance_uid: str, dataset: bytes
    ) -> NAnswer:
        """N-SET of an MPPS (RAD-7)."""
        if not self._answering.permits(association, Permission.MPPS):
            return NOT_PERMITTED
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
        if not self._answering.permits(association, Permission.AVAILABILITY):
            return NOT_PERMITTED
        request = PerformRequest(sop_instance_uid, association.calling_ae_title, transfer_syntax, dataset)
        return await self._report(Announcement.AVAILABILITY, request)
