"""What the DICOM listener and whoever is behind it know of each other.

What may live here: the caller's identity, the service that answers requests, the observer of events, and the limits.
No socket, no timer, no bytes of the protocol.
"""

from collections.abc import Awaitable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from gateway.domain.access import Certificate, User
from gateway.wire.dimse import FindPart, NAnswer
from gateway.wire.upper_layer import Rejection
from gateway.wire.user_identity import UserIdentity


@dataclass(frozen=True, slots=True)
class Limits:
    """What the listener bears. Beyond it a peer is refused in the protocol's words, and others are served.

    Memory is bounded by `held_bytes_max`, and per association by the write buffer, one PDU and some small data sets:
    at most half a megabyte each.
    """

    associations_max: int = 256
    """In all. Then A-ASSOCIATE-RJ, transient, local limit exceeded."""
    associations_per_address_max: int = 64
    """From one network address; above one, since gateways and load balancers stand for many devices."""
    waiting_connections_max: int = 512
    """Connections without an association, before or after it. Then the one that has waited longest is closed: a device
    asks at once, so whoever still waits while 512 others came is no device. Each has some 6 KB."""
    waiting_per_address_max: int = 128
    """The same from one network address, so that a scanner of ports or a failing device shuts out only itself."""
    pdu_bytes_max: int = 16_384
    """Our maximum length, as most toolkits announce it. A longer P-DATA-TF is answered with an A-ABORT."""
    dataset_bytes_max: int = 8_388_608
    """One data set. A final N-SET with 20,000 image references has 4 MB."""
    held_bytes_max: int = 268_435_456
    """Data sets beyond 16 KiB that are incomplete or wait, all associations together: 32 of the largest. Then A-ABORT
    for one that is arriving, A700 or 0213 for one that would have to wait."""
    artim_s: float = 30.0
    """For the A-ASSOCIATE-RQ to come, and for the peer to close after the end (PS3.8 9.1.5)."""
    pdu_s: float = 30.0
    """For a PDU that has begun to arrive to be complete: 16 KiB at 5 kbit/s."""
    message_s: float = 300.0
    """For a message that has begun to arrive to be complete: 8 MB at 220 kbit/s."""
    idle_s: float = 600.0
    """Without a PDU and without a request in progress, then A-ABORT. Devices keep associations while a person picks."""
    write_stall_s: float = 60.0
    """For a peer that does not read to take what is buffered (64 KiB), then the connection is cut."""


@dataclass(frozen=True, slots=True)
class Association:
    """Who is calling. `max_length` is the longest P-DATA-TF the peer takes, in bytes, 0 for no limit.

    `worklist_negotiation` holds the SOP Class Extended Negotiation that was offered for the worklist (PS3.4 K.5.1),
    b"" where none was; what it asks for with a 1 in its third byte (fuzzy names) and its fourth (time zones) was
    promised. `certificate` is what the peer showed and TLS verified, `user` who its user identity proved to be.
    """

    number: int
    calling_ae_title: str
    called_ae_title: str
    remote_host: str
    implementation_version: str
    max_length: int
    worklist_negotiation: bytes = b""
    tls: bool = False
    certificate: Certificate | None = None
    user: User | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Admission:
    """How somebody is let in: with presentation contexts of these SOP classes (None: all of ours)."""

    sop_classes: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class EndedFind:
    """A C-FIND that is over, whatever became of it.

    `status` is the final one as it was sent, FE00 where the peer went away before it; `matches` is how many answers
    were sent before.
    """

    transfer_syntax: str
    identifier: bytes = field(repr=False)
    status: int = 0
    matches: int = 0
    milliseconds: float = 0.0


class DIMSEService(Protocol):
    """What is behind the listener. Whatever a method raises is answered as an internal error of that request only."""

    def identify(self, association: Association, identity: UserIdentity) -> Awaitable[User | Rejection] | None:
        """Who the user is that the requester names, or why that gets nobody in; None where nobody looks at users.

        None also for a caller that `admit` will not let in whoever its user is: what it could learn from a proof, or
        spend by one, is not its own. Asked before `admit`, and only for a request with a user identity. Called on the
        event loop; what is awaited takes the time it takes, while the requester waits for its answer.
        """

    def admit(self, association: Association) -> "Rejection | Admission | None":
        """Why this caller may not in, or how it may; None lets it in with everything. Called on the event loop: no
        waiting."""

    def find(self, association: Association, transfer_syntax: str, identifier: bytes) -> Iterator[FindPart]:
        """Pending answers with identifiers in that transfer syntax, then one answer with the final status.

        Pulled on the event loop as the peer reads; closed early on C-CANCEL and when the association ends.
        """

    def found(self, association: Association, ended: EndedFind) -> None:
        """A C-FIND is over. Called on the event loop, once for each that was begun or refused.

        What it raises is logged and hurts nobody.
        """

    async def create(
        self, association: Association, transfer_syntax: str, sop_instance_uid: str | None, dataset: bytes
    ) -> NAnswer:
        """N-CREATE of a performed step; the answer leaves when this returns."""

    async def set(
        self, association: Association, transfer_syntax: str, sop_instance_uid: str, dataset: bytes
    ) -> NAnswer:
        """N-SET of a performed step; the answer leaves when this returns."""

    async def get(
        self, association: Association, transfer_syntax: str, sop_instance_uid: str, attribute_tags: Sequence[int]
    ) -> NAnswer:
        """N-GET of a performed step (MPPS Retrieve): these attributes, all where none are named, in that syntax."""

    async def available(
        self, association: Association, transfer_syntax: str, sop_instance_uid: str, dataset: bytes
    ) -> NAnswer:
        """N-CREATE of an Instance Availability Notification; the answer leaves when this returns."""


class Observe(Protocol):
    """Takes events for logs and metrics; names and fields are those of the docstring of `dimse_server`."""

    def __call__(self, event: str, /, **fields: object) -> None: ...


def unobserved(event: str, /, **fields: object) -> None:
    """Nobody listens."""


def where_raised(error: BaseException) -> str:
    """Module and line of our own code that an exception came through last; '' where there is none.

    The text of an exception may quote a data set, so this is what a log can say of it.
    """
    place, trace = "", error.__traceback__
    while trace is not None:
        module = str(trace.tb_frame.f_globals.get("__name__", ""))
        if module.partition(".")[0] == _PACKAGE:
            place = f"{module}:{trace.tb_lineno}"
        trace = trace.tb_next
    return place


_PACKAGE = __name__.partition(".")[0]
