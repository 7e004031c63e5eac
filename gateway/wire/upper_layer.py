"""The DICOM upper layer, accepting side: bytes in, outputs out, and no socket, clock or thread (PS3.8 clause 9).

What may live here: the association state table, the framing of PDUs, the negotiation of presentation contexts, and
the PDUs. P-DATA-TF, by far the busiest, and presentation contexts, by far the most numerous, are coded here; the rest
is coded by pynetdicom. Nothing here knows what a DIMSE message says.

Theory of operation. The caller owns a transport connection and one `Acceptor`. It reports what happens (connection
opened or closed, bytes received, ARTIM expired) and what it decides (accept, reject, send, release, abort). Every
such call returns a list of outputs for the caller to carry out in order: bytes to send, timer requests, and what
the peer wants. Each call becomes one or more events of PS3.8 Table 9-10; `TRANSITIONS` says for every state and
event which action follows, and `NEXT_STATE` where the action leads. A blank cell of the standard's table is
`Action.NONE`: the call came too late, because the association has gone meanwhile, and nothing is sent.

Two rules keep a hostile or broken peer harmless:

1. The length of a PDU is checked when its header is there, before its body is buffered.
2. Whatever decoders raise is turned into an A-ABORT in one place, `_decoded`.
"""

import struct
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum, IntEnum, StrEnum
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias, TypeVar, cast

from pynetdicom.pdu import (
    A_ABORT_RQ,
    A_ASSOCIATE_AC,
    A_ASSOCIATE_RJ,
    A_ASSOCIATE_RQ,
    A_RELEASE_RP,
    A_RELEASE_RQ,
)
from pynetdicom.pdu_items import (
    PDU_ITEM_TYPES,
    ApplicationContextItem,
    AsynchronousOperationsWindowSubItem,
    ImplementationClassUIDSubItem,
    ImplementationVersionNameSubItem,
    MaximumLengthSubItem,
    PDUItem,
    SCP_SCU_RoleSelectionSubItem,
    SOPClassExtendedNegotiationSubItem,
    UserInformationItem,
)

from gateway.wire.user_identity import USER_IDENTITY, UserIdentity, read_user_identity

VERIFICATION = "1.2.840.10008.1.1"
MODALITY_WORKLIST = "1.2.840.10008.5.1.4.31"
MPPS = "1.2.840.10008.3.1.2.3.3"
MPPS_RETRIEVE = "1.2.840.10008.3.1.2.3.4"
INSTANCE_AVAILABILITY = "1.2.840.10008.5.1.4.33"
IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"

SOP_CLASSES = (VERIFICATION, MODALITY_WORKLIST, MPPS, MPPS_RETRIEVE, INSTANCE_AVAILABILITY)
"""What an association may be about; everything else is answered "abstract syntax not supported"."""

TRANSFER_SYNTAXES = (IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN)
"""Of those a requester lists, the first that is here is accepted."""

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
IMPLEMENTATION_CLASS_UID = "2.25.217401578272282076575471142195676362408"
IMPLEMENTATION_VERSION_NAME = "MODALITYGW_0.3"

REQUEST_BYTES_MAX = 131_072
"""The longest A-ASSOCIATE PDU that is read. 128 contexts with ten transfer syntaxes each make about 50 KB; the
rest is room for a user identity token. Applies before anything is known about the peer."""

USER_ITEMS_MAX = 512
"""Sub-items of the user information that are read: three for each of 128 contexts, and the eight that occur once.
pynetdicom takes ten microseconds and more for each, so a request full of them would hold everyone up."""

CACHED_REQUESTS_MAX = 256
CACHED_REQUEST_BYTES_MAX = 4096
"""A modality proposes the same association every time; reading it takes half a millisecond, looking it up one
microsecond (measured). 256 is more than a department has devices; together the bounds hold the cache to a megabyte."""

PDV_OVERHEAD = 6
"""Bytes of a P-DATA-TF with one PDV that are not data: item length, context ID, control header (PS3.8 9.3.5)."""

UNLIMITED_PDU_BYTES = 65_536
"""The PDU length we keep to when the peer sets no limit (maximum length 0, PS3.8 D.1)."""


class State(StrEnum):
    """The states of PS3.8 Table 9-10 that an acceptor can be in (4, 5, 9 and 11 belong to the requester)."""

    IDLE = "Sta1"
    AWAITING_REQUEST = "Sta2"
    AWAITING_LOCAL_ANSWER = "Sta3"
    ESTABLISHED = "Sta6"
    AWAITING_RELEASE_RESPONSE = "Sta7"
    RELEASE_REQUESTED = "Sta8"
    COLLISION_AWAITING_RESPONSE = "Sta10"
    COLLISION_AWAITING_LOCAL_ANSWER = "Sta12"
    AWAITING_CLOSE = "Sta13"


class Event(StrEnum):
    """The events of PS3.8 Table 9-10 that an acceptor can meet (1 and 2 belong to the requester)."""

    ACCEPT_PDU = "Evt3"
    REJECT_PDU = "Evt4"
    CONNECTION_OPENED = "Evt5"
    REQUEST_PDU = "Evt6"
    LOCAL_ACCEPT = "Evt7"
    LOCAL_REJECT = "Evt8"
    LOCAL_DATA = "Evt9"
    DATA_PDU = "Evt10"
    LOCAL_RELEASE_REQUEST = "Evt11"
    RELEASE_REQUEST_PDU = "Evt12"
    RELEASE_RESPONSE_PDU = "Evt13"
    LOCAL_RELEASE_RESPONSE = "Evt14"
    LOCAL_ABORT = "Evt15"
    ABORT_PDU = "Evt16"
    CONNECTION_CLOSED = "Evt17"
    ARTIM_EXPIRED = "Evt18"
    INVALID_PDU = "Evt19"


class Action(StrEnum):
    """The actions of PS3.8 Tables 9-6 to 9-9 that an acceptor takes."""

    NONE = "-"
    AE_5 = "AE-5"
    AE_6 = "AE-6"
    AE_7 = "AE-7"
    AE_8 = "AE-8"
    DT_1 = "DT-1"
    DT_2 = "DT-2"
    AR_1 = "AR-1"
    AR_2 = "AR-2"
    AR_3 = "AR-3"
    AR_4 = "AR-4"
    AR_5 = "AR-5"
    AR_6 = "AR-6"
    AR_7 = "AR-7"
    AR_8 = "AR-8"
    AR_10 = "AR-10"
    AA_1 = "AA-1"
    AA_2 = "AA-2"
    AA_3 = "AA-3"
    AA_4 = "AA-4"
    AA_5 = "AA-5"
    AA_6 = "AA-6"
    AA_7 = "AA-7"
    AA_8 = "AA-8"


_TABLE_9_10 = """
       Sta1  Sta2  Sta3  Sta6  Sta7  Sta8  Sta10 Sta12 Sta13
Evt3   -     AA-1  AA-8  AA-8  AA-8  AA-8  AA-8  AA-8  AA-6
Evt4   -     AA-1  AA-8  AA-8  AA-8  AA-8  AA-8  AA-8  AA-6
Evt5   AE-5  -     -     -     -     -     -     -     -
Evt6   -     AE-6  AA-8  AA-8  AA-8  AA-8  AA-8  AA-8  AA-7
Evt7   -     -     AE-7  -     -     -     -     -     -
Evt8   -     -     AE-8  -     -     -     -     -     -
Evt9   -     -     -     DT-1  -     AR-7  -     -     -
Evt10  -     AA-1  AA-8  DT-2  AR-6  AA-8  AA-8  AA-8  AA-6
Evt11  -     -     -     AR-1  -     -     -     -     -
Evt12  -     AA-1  AA-8  AR-2  AR-8  AA-8  AA-8  AA-8  AA-6
Evt13  -     AA-1  AA-8  AA-8  AR-3  AA-8  AR-10 AA-8  AA-6
Evt14  -     -     -     -     -     AR-4  -     AR-4  -
Evt15  -     AA-2  AA-1  AA-1  AA-1  AA-1  AA-1  AA-1  -
Evt16  -     AA-2  AA-3  AA-3  AA-3  AA-3  AA-3  AA-3  AA-2
Evt17  -     AA-5  AA-4  AA-4  AA-4  AA-4  AA-4  AA-4  AR-5
Evt18  -     AA-2  -     -     -     -     -     -     AA-2
Evt19  -     AA-1  AA-8  AA-8  AA-8  AA-8  AA-8  AA-8  AA-7
"""
# One cell is ours: Evt15 in Sta2 is blank in the standard, which knows no association to abort yet. We stop a
# connection that has not asked for anything when the service shuts down, and closing it is AA-2.


def _transitions() -> dict[tuple[State, Event], Action]:
    heading, *rows = (line.split() for line in _TABLE_9_10.strip().splitlines())
    return {
        (State(state), Event(event)): Action(action)
        for event, *actions in rows
        for state, action in zip(heading, actions, strict=True)
    }


TRANSITIONS: Mapping[tuple[State, Event], Action] = _transitions()

NEXT_STATE: Mapping[Action, State | None] = {
    Action.NONE: None,
    Action.AE_5: State.AWAITING_REQUEST,
    Action.AE_6: State.AWAITING_LOCAL_ANSWER,  # or Sta13, when the provider itself has to reject
    Action.AE_7: State.ESTABLISHED,
    Action.AE_8: State.AWAITING_CLOSE,
    Action.DT_1: State.ESTABLISHED,
    Action.DT_2: State.ESTABLISHED,
    Action.AR_1: State.AWAITING_RELEASE_RESPONSE,
    Action.AR_2: State.RELEASE_REQUESTED,
    Action.AR_3: State.IDLE,
    Action.AR_4: State.AWAITING_CLOSE,
    Action.AR_5: State.IDLE,
    Action.AR_6: State.AWAITING_RELEASE_RESPONSE,
    Action.AR_7: State.RELEASE_REQUESTED,
    Action.AR_8: State.COLLISION_AWAITING_RESPONSE,
    Action.AR_10: State.COLLISION_AWAITING_LOCAL_ANSWER,
    Action.AA_1: State.AWAITING_CLOSE,
    Action.AA_2: State.IDLE,
    Action.AA_3: State.IDLE,
    Action.AA_4: State.IDLE,
    Action.AA_5: State.IDLE,
    Action.AA_6: State.AWAITING_CLOSE,
    Action.AA_7: State.AWAITING_CLOSE,
    Action.AA_8: State.AWAITING_CLOSE,
}
"""Where each action leads; None stays where it is."""


class AbortSource(IntEnum):
    """Who ended the association (PS3.8 Table 9-26)."""

    SERVICE_USER = 0
    SERVICE_PROVIDER = 2


class AbortReason(IntEnum):
    """Why a provider ended it; means nothing when the source is the service user (PS3.8 Table 9-26)."""

    NOT_SPECIFIED = 0
    UNRECOGNISED_PDU = 1
    UNEXPECTED_PDU = 2
    UNRECOGNISED_PDU_PARAMETER = 4
    UNEXPECTED_PDU_PARAMETER = 5
    INVALID_PDU_PARAMETER = 6


@dataclass(frozen=True, slots=True)
class Rejection:
    """Result, source and reason of an A-ASSOCIATE-RJ (PS3.8 Table 9-21)."""

    result: int
    source: int
    reason: int


PROTOCOL_VERSION_NOT_SUPPORTED = Rejection(1, 2, 2)
APPLICATION_CONTEXT_NOT_SUPPORTED = Rejection(1, 1, 2)
CALLING_AE_TITLE_NOT_RECOGNISED = Rejection(1, 1, 3)
CALLED_AE_TITLE_NOT_RECOGNISED = Rejection(1, 1, 7)
AUTHENTICATION_FAILED = Rejection(1, 2, 1)  # PS3.7 D.3.3.7.3; the reason is "no reason given"
TEMPORARY_CONGESTION = Rejection(2, 3, 1)
LOCAL_LIMIT_EXCEEDED = Rejection(2, 3, 2)


@dataclass(frozen=True, slots=True)
class Context:
    """An accepted presentation context."""

    context_id: int
    abstract_syntax: str
    transfer_syntax: str


@dataclass(frozen=True, slots=True)
class AssociationRequest:
    """What an A-ASSOCIATE-RQ asked for, and the answer that is ready if it is let in.

    `max_length` is the longest P-DATA-TF the peer takes, in bytes without the PDU header; 0 is no limit.
    `worklist_negotiation` holds the bytes of the SOP Class Extended Negotiation for the worklist (PS3.4 K.5.1),
    b"" where it was not offered. `user_identity` is who the requester says its user is (PS3.7 D.3.3.7).
    """

    calling_ae_title: str
    called_ae_title: str
    contexts: Mapping[int, Context]
    max_length: int
    implementation_class_uid: str
    implementation_version: str
    worklist_negotiation: bytes
    user_identity: UserIdentity | None
    acceptance: bytes = field(repr=False)

    def contexts_of(self, sop_classes: frozenset[str] | None) -> Mapping[int, Context]:
        """The accepted contexts that remain when only these SOP classes are let in; None: all of them."""
        if sop_classes is None:
            return self.contexts
        return {number: each for number, each in self.contexts.items() if each.abstract_syntax in sop_classes}


class PDV(NamedTuple):
    """One presentation data value: a fragment of a command set or of a data set (PS3.8 annex E.2)."""

    context_id: int
    is_command: bool
    is_last: bool
    fragment: bytes


@dataclass(frozen=True, slots=True)
class SendBytes:
    """Send these to the peer."""

    data: bytes


@dataclass(frozen=True, slots=True)
class AssociationRequested:
    """Answer with `accept` or `reject`."""

    request: AssociationRequest


@dataclass(frozen=True, slots=True)
class AssociationRejected:
    """The request was refused here, before anyone had to be asked."""

    rejection: Rejection


@dataclass(frozen=True, slots=True)
class DataReceived:
    """One P-DATA-TF."""

    pdvs: tuple[PDV, ...]


@dataclass(frozen=True, slots=True)
class Aborted:
    """The association is over. `by_peer` also where the peer just closed the connection (source None)."""

    by_peer: bool
    source: int | None
    reason: int


class Signal(Enum):
    """Outputs that carry nothing."""

    RELEASE_REQUESTED = "answer with respond_release"
    RELEASED = "the peer confirmed our release"
    START_ARTIM = "start, or start again, the association request/reject/release timer"
    STOP_ARTIM = "stop that timer"
    CLOSE_CONNECTION = "close the transport connection when everything is sent"


Output: TypeAlias = SendBytes | AssociationRequested | AssociationRejected | DataReceived | Aborted | Signal


class _InvalidPDU(Exception):  # noqa: N818  (names what was received)
    """Evt19; never leaves this module."""

    def __init__(self, reason: AbortReason) -> None:
        self.reason = reason
        super().__init__(reason.name)


_HEADER = struct.Struct(">BxI")
_PDV_HEADER = struct.Struct(">BxIIBB")
_PDV_ITEM = struct.Struct(">IBB")
_ITEM = struct.Struct(">BxH")
_CONTEXT_AC = struct.Struct(">BxHBxBxBxH")
_APPLICATION_CONTEXT, _PROPOSED_CONTEXT, _ABSTRACT_SYNTAX, _TRANSFER_SYNTAX, _USER_INFORMATION = (
    0x10, 0x20, 0x30, 0x40, 0x50,
)  # fmt: skip
_ANSWERED_CONTEXT = 0x21
_ITEMS_OF_A_SOP_CLASS = frozenset({0x54, 0x56})
"""Role selection and extended negotiation; both begin with the length of a UID and the UID (PS3.7 D.3-10, D.3-11)."""
_UID_LENGTH = struct.Struct(">H")
_REQUEST_ITEMS = 74
"""Where the items of an A-ASSOCIATE-RQ or -AC begin (PS3.8 Tables 9-11 and 9-17)."""
_DATA_TF, _REQUEST, _ABORT = 4, 1, 7
_PDU_EVENTS: Mapping[int, Event] = {
    _REQUEST: Event.REQUEST_PDU,
    2: Event.ACCEPT_PDU,
    3: Event.REJECT_PDU,
    _DATA_TF: Event.DATA_PDU,
    5: Event.RELEASE_REQUEST_PDU,
    6: Event.RELEASE_RESPONSE_PDU,
    _ABORT: Event.ABORT_PDU,
}
_FIXED_OUTPUTS: Mapping[Action, tuple[Output, ...]] = {
    Action.AE_5: (Signal.START_ARTIM,),
    Action.DT_1: (),  # `send_data` has the bytes
    Action.AR_1: (SendBytes(A_RELEASE_RQ().encode()),),
    Action.AR_2: (Signal.RELEASE_REQUESTED,),
    Action.AR_3: (Signal.RELEASED, Signal.CLOSE_CONNECTION),
    Action.AR_4: (SendBytes(A_RELEASE_RP().encode()), Signal.START_ARTIM),
    Action.AR_5: (Signal.STOP_ARTIM,),
    Action.AR_7: (),  # as DT-1
    Action.AR_8: (Signal.RELEASE_REQUESTED,),
    Action.AR_10: (Signal.RELEASED,),
    Action.AA_2: (Signal.STOP_ARTIM, Signal.CLOSE_CONNECTION),
    Action.AA_4: (Aborted(True, None, AbortReason.NOT_SPECIFIED),),
    Action.AA_5: (Signal.STOP_ARTIM,),
    Action.AA_6: (),  # a PDU that comes after the end is ignored
}
"""What the actions put out whose outputs are always the same."""

# Python takes longer to look a member up in its enumeration than to look a name up in its module.
_IDLE = State.IDLE
_TAKE_DATA = frozenset({Action.DT_2, Action.AR_6})

_SHORT_PDUS = frozenset({3, 5, 6, 7})
"""A-ASSOCIATE-RJ, A-RELEASE-RQ, A-RELEASE-RP and A-ABORT always have a length of 4 (PS3.8 9.3.4, 9.3.6 to 9.3.8)."""


def _abort_pdu(source: AbortSource, reason: AbortReason) -> bytes:
    pdu = A_ABORT_RQ()
    pdu.source = int(source)
    pdu.reason_diagnostic = int(reason)
    return pdu.encode()


def _reject_pdu(rejection: Rejection) -> bytes:
    pdu = A_ASSOCIATE_RJ()
    pdu.result = rejection.result
    pdu.source = rejection.source
    pdu.reason_diagnostic = rejection.reason
    return pdu.encode()


_Value = TypeVar("_Value")


def _decoded(decode: Callable[..., _Value], *arguments: object) -> _Value:
    """The one place where what a decoder raises becomes an invalid PDU, and so an A-ABORT.

    pynetdicom's decoders were measured to raise ValueError, AssertionError, KeyError, struct.error, AttributeError,
    IndexError and TypeError on bad input, and nobody promises that the list is complete.
    """
    try:
        return decode(*arguments)
    except _InvalidPDU:
        raise
    except Exception:
        raise _InvalidPDU(AbortReason.INVALID_PDU_PARAMETER) from None


class _UserInformation(UserInformationItem):
    """pynetdicom's item, except that unknown sub-items are skipped (PS3.8 9.3.1) and the number of known is bounded.

    Who the user is stands in none of pynetdicom's objects: they print what they hold.
    """

    def _wrap_generate_items(self, encoded: bytes) -> list[PDUItem]:  # type: ignore[override]
        items: list[PDUItem] = []
        for item_type, item_bytes in self._generate_items(encoded):
            if item_type not in PDU_ITEM_TYPES or item_type == USER_IDENTITY:  # `_user_identities` reads that
                continue
            if len(items) >= USER_ITEMS_MAX:
                raise ValueError("too many user information sub-items")
            item = PDU_ITEM_TYPES[item_type]()
            item.decode(item_bytes)
            items.append(item)
        return items


class _Proposal(NamedTuple):
    """A presentation context as it was asked for (PS3.8 9.3.2.2)."""

    context_id: int
    abstract_syntax: str
    transfer_syntaxes: list[str]


def _read_items(encoded: bytes, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Type, start and end of the value of each item between two offsets; raises ValueError where one does not fit."""
    while start < end:
        if end - start < _ITEM.size:
            raise ValueError("item header does not fit")
        item_type, length = _ITEM.unpack_from(encoded, start)
        start += _ITEM.size
        if length > end - start:
            raise ValueError("item does not fit")
        yield item_type, start, start + length
        start += length


def _read_proposal(encoded: bytes, start: int, end: int) -> _Proposal:
    context_id = encoded[start]
    if end - start < 4 or not context_id & 1:
        raise ValueError("presentation context without a header, or with an even ID")
    abstract_syntax, transfer_syntaxes = "", []
    for item_type, begin, stop in _read_items(encoded, start + 4, end):
        if item_type in (_ABSTRACT_SYNTAX, _TRANSFER_SYNTAX):
            # Some devices pad UIDs here as in data sets.
            uid = encoded[begin:stop].rstrip(b"\0 ").decode("ascii")
            if item_type == _TRANSFER_SYNTAX:
                transfer_syntaxes.append(uid)
            else:
                abstract_syntax = uid
    return _Proposal(context_id, abstract_syntax, transfer_syntaxes)


class _RequestPDU(A_ASSOCIATE_RQ):
    """pynetdicom's PDU, with our user information."""

    def _wrap_generate_items(self, encoded: bytes) -> list[PDUItem]:
        known: Mapping[int, type[PDUItem]] = {
            _APPLICATION_CONTEXT: ApplicationContextItem,
            _USER_INFORMATION: _UserInformation,
        }
        items = []
        for item_type, item_bytes in self._generate_items(encoded):
            item = known[item_type]()
            item.decode(item_bytes)
            items.append(item)
        return items


def _read_request(pdu: bytes, pdu_bytes_max: int) -> AssociationRequest | Rejection:
    """Read and negotiate an A-ASSOCIATE-RQ; raises whatever pynetdicom does on bad input."""
    # Devices exist that pad AE titles with NUL; a space is what the standard has (PS3.8 Table 9-11).
    titles = pdu[10:42].replace(b"\0", b" ")
    proposals: dict[int, _Proposal] = {}
    others = [pdu[:10], titles, pdu[42:_REQUEST_ITEMS]]
    identities: list[UserIdentity] = []
    for item_type, start, end in _read_items(pdu, _REQUEST_ITEMS, len(pdu)):
        if item_type == _PROPOSED_CONTEXT:
            proposal = _read_proposal(pdu, start, end)
            if proposals.setdefault(proposal.context_id, proposal) is not proposal:
                raise ValueError("presentation context ID used twice")
        elif item_type in (_APPLICATION_CONTEXT, _USER_INFORMATION):  # others are skipped, as PS3.8 9.3.1 wants
            others.append(pdu[start - _ITEM.size : end])
            if item_type == _USER_INFORMATION:
                identities += _user_identities(pdu, start, end)
    if len(identities) > 1:  # there may be one (PS3.7 D.3.3.7)
        raise _InvalidPDU(AbortReason.UNEXPECTED_PDU_PARAMETER)
    request = _RequestPDU()
    with warnings.catch_warnings():
        # pydicom warns of UIDs with leading zeros, which some devices have as their implementation class.
        warnings.simplefilter("ignore")
        request.decode(b"".join(others))
        # Version 1 is bit 0, and no other bit may be tested (PS3.8 Table 9-11).
        if not request.protocol_version & 1:
            return PROTOCOL_VERSION_NOT_SUPPORTED
        if request.application_context_name != APPLICATION_CONTEXT:
            return APPLICATION_CONTEXT_NOT_SUPPORTED
        return _negotiate(request, list(proposals.values()), identities[0] if identities else None, pdu_bytes_max)


def _user_identities(pdu: bytes, start: int, end: int) -> Iterator[UserIdentity]:
    """The user identities in the user information that stands between two offsets."""
    for item_type, begin, stop in _read_items(pdu, start, end):
        if item_type == USER_IDENTITY:
            yield read_user_identity(pdu[begin:stop])


class _NotToBeKept(Exception):  # noqa: N818  (says what becomes of the request)
    """Leaves `_read_request_cached` with the request, which remembers only what it returns."""

    def __init__(self, request: AssociationRequest) -> None:
        self.request = request
        super().__init__()


@lru_cache(maxsize=CACHED_REQUESTS_MAX)
def _read_request_cached(pdu: bytes, pdu_bytes_max: int) -> AssociationRequest | Rejection:
    """Raises _NotToBeKept where the request holds a user identity: it could be a password."""
    request = _read_request(pdu, pdu_bytes_max)
    if isinstance(request, AssociationRequest) and request.user_identity is not None:
        raise _NotToBeKept(request)
    return request


def _request(pdu: bytes, pdu_bytes_max: int) -> AssociationRequest | Rejection:
    """`_read_request`, remembered as far as that is wise."""
    if len(pdu) > CACHED_REQUEST_BYTES_MAX:
        return _read_request(pdu, pdu_bytes_max)
    try:
        return _read_request_cached(pdu, pdu_bytes_max)
    except _NotToBeKept as read:
        return read.request


class _Result(IntEnum):
    """The answer to a proposed presentation context (PS3.8 Table 9-18)."""

    ACCEPTANCE = 0
    USER_REJECTION = 1
    ABSTRACT_SYNTAX_NOT_SUPPORTED = 3
    TRANSFER_SYNTAXES_NOT_SUPPORTED = 4


def _negotiate(
    request: A_ASSOCIATE_RQ, proposals: list[_Proposal], identity: UserIdentity | None, pdu_bytes_max: int
) -> AssociationRequest:
    """The answer. No context acceptable is an answer too: the association stands, and the requester ends it."""
    user = request.user_information or _UserInformation()
    # Per SOP class, whether the requester wants to be SCU at all; by default it does (PS3.7 D.3.3.4).
    scu = {str(uid): bool(item.scu_role) for uid, item in user.role_selection.items()}
    contexts: dict[int, Context] = {}
    context_items: list[bytes] = []
    for proposal in proposals:
        result, transfer_syntax = _negotiate_context(proposal, scu)
        context_items.append(_context_item(proposal.context_id, result, transfer_syntax))
        if result is _Result.ACCEPTANCE:
            contexts[proposal.context_id] = Context(proposal.context_id, proposal.abstract_syntax, transfer_syntax)

    served = {context.abstract_syntax for context in contexts.values()}
    extended = [item for item in user.ext_neg if item.uid == MODALITY_WORKLIST]
    offered = (extended[0].app_info or b"") if extended else b""
    answers: list[PDUItem] = []
    if user.async_ops_window is not None:
        window = AsynchronousOperationsWindowSubItem()
        window.maximum_number_operations_invoked = 1
        window.maximum_number_operations_performed = 1
        answers.append(window)
    answers.extend(_role_item(uid) for uid in scu if uid in served)
    accepted = accepted_extensions(offered)
    if accepted and MODALITY_WORKLIST in served:
        answer = SOPClassExtendedNegotiationSubItem()
        answer.sop_class_uid = MODALITY_WORKLIST
        answer.service_class_application_information = accepted
        answers.append(answer)
    # No answer to a user identity: it is not proved yet, and an answer says that it is (PS3.7 D.3.3.7).

    return AssociationRequest(
        calling_ae_title=request.calling_ae_title,
        called_ae_title=request.called_ae_title,
        contexts=contexts,
        max_length=user.maximum_length or 0,
        implementation_class_uid=str(user.implementation_class_uid or ""),
        implementation_version=user.implementation_version_name or "",
        worklist_negotiation=offered,
        user_identity=identity,
        acceptance=_accept_pdu(request, context_items, answers, pdu_bytes_max),
    )


def _negotiate_context(proposal: _Proposal, scu: Mapping[str, bool]) -> tuple[_Result, str]:
    """The answer to one proposed context, and the transfer syntax it names: a meaningless one where it refuses."""
    proposed = proposal.transfer_syntaxes
    any_syntax = proposed[0] if proposed else IMPLICIT_VR_LITTLE_ENDIAN
    if proposal.abstract_syntax not in SOP_CLASSES:
        return _Result.ABSTRACT_SYNTAX_NOT_SUPPORTED, any_syntax
    # The requester's order of transfer syntaxes decides.
    readable = next((uid for uid in proposed if uid in TRANSFER_SYNTAXES), None)
    if readable is None:
        return _Result.TRANSFER_SYNTAXES_NOT_SUPPORTED, any_syntax
    if not scu.get(proposal.abstract_syntax, True):
        return _Result.USER_REJECTION, readable  # it wants to be SCP only, and so do we
    return _Result.ACCEPTANCE, readable


def _context_item(context_id: int, result: _Result, transfer_syntax: str) -> bytes:
    """A presentation context in the answer (PS3.8 9.3.3.2)."""
    uid = transfer_syntax.encode("ascii")
    return _CONTEXT_AC.pack(_ANSWERED_CONTEXT, len(uid) + 8, context_id, result, _TRANSFER_SYNTAX, len(uid)) + uid


def _role_item(sop_class_uid: str) -> PDUItem:
    """The requester may be SCU of this class, and only that."""
    item = SCP_SCU_RoleSelectionSubItem()
    item.sop_class_uid = sop_class_uid
    item.scu_role, item.scp_role = True, False
    return item


def accepted_extensions(offered: bytes) -> bytes:
    """The answer to the worklist's extended negotiation (PS3.4 K.5.1): fuzzy names and time zones as they were asked.

    Three bytes are answered with three, more with four; fewer say nothing that could be answered, and get b"".
    """
    if len(offered) < 3:
        return b""
    return bytes((1, 1, *(int(asked == 1) for asked in offered[2:4])))


def _accept_pdu(
    request: A_ASSOCIATE_RQ, context_items: list[bytes], answers: list[PDUItem], pdu_bytes_max: int
) -> bytes:
    application_context = ApplicationContextItem()
    application_context.application_context_name = APPLICATION_CONTEXT
    length = MaximumLengthSubItem()
    length.maximum_length_received = pdu_bytes_max
    implementation = ImplementationClassUIDSubItem()
    implementation.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    version = ImplementationVersionNameSubItem()
    version.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    user = UserInformationItem()
    # Sub-items in ascending order of their type, as most peers send them: 51, 52, 53, 54, 55, 56.
    by_type = sorted([length, implementation, version, *answers], key=lambda item: item.item_type)
    user.user_data = cast("list[Any]", by_type)  # pynetdicom has no name for the union of its sub-items
    pdu = A_ASSOCIATE_AC()
    pdu.reserved_aet = request.called_ae_title
    pdu.reserved_aec = request.calling_ae_title
    pdu.variable_items = [application_context, user]
    encoded = pdu.encode()
    # The contexts stand between the two (PS3.8 Table 9-17).
    place = _REQUEST_ITEMS + _ITEM.size + len(APPLICATION_CONTEXT)
    body = b"".join((encoded[_HEADER.size : place], *context_items, encoded[place:]))
    return _HEADER.pack(encoded[0], len(body)) + body


def _narrowed(
    acceptance: bytes, contexts: Mapping[int, Context], sop_classes: frozenset[str] | None, user_response: bytes
) -> bytes:
    """The A-ASSOCIATE-AC with contexts of other SOP classes refused, and with this user information sub-item as well.

    Roles and extensions are answered for SOP classes that are let in, so those of the others go (PS3.7 D.3.3.4, 5).
    """
    refused = set()
    if sop_classes is not None:
        refused = {each.abstract_syntax for each in contexts.values()} - sop_classes
    parts = [acceptance[_HEADER.size : _REQUEST_ITEMS]]
    for item_type, start, end in _read_items(acceptance, _REQUEST_ITEMS, len(acceptance)):
        value = acceptance[start:end]
        if item_type == _ANSWERED_CONTEXT:
            context = contexts.get(value[0])
            if context is not None and context.abstract_syntax in refused:
                value = value[:2] + bytes((_Result.USER_REJECTION,)) + value[3:]
        elif item_type == _USER_INFORMATION:
            value = b"".join((*_user_items_without(value, refused), user_response))
        parts.append(_ITEM.pack(item_type, len(value)) + value)
    body = b"".join(parts)
    return _HEADER.pack(acceptance[0], len(body)) + body


def _user_items_without(user_information: bytes, refused: Collection[str]) -> Iterator[bytes]:
    """Its sub-items, without the roles and extensions of these SOP classes."""
    for item_type, start, end in _read_items(user_information, 0, len(user_information)):
        if item_type in _ITEMS_OF_A_SOP_CLASS:
            (length,) = _UID_LENGTH.unpack_from(user_information, start)
            uid = user_information[start + _UID_LENGTH.size :][:length].decode("ascii")
            if uid in refused:
                continue
        yield user_information[start - _ITEM.size : end]


def _read_data(pdu: bytes) -> tuple[PDV, ...]:
    """The PDVs of a P-DATA-TF (PS3.8 9.3.5); raises struct.error or ValueError on bad input."""
    pdvs = []
    offset, end = _HEADER.size, len(pdu)
    while offset < end:
        length, context_id, control = _PDV_ITEM.unpack_from(pdu, offset)
        start, offset = offset + _PDV_ITEM.size, offset + 4 + length
        if length < 2 or offset > end:
            raise ValueError("PDV length does not fit")
        # Only the two lowest bits of the control header count (PS3.8 E.2).
        pdvs.append(PDV(context_id, bool(control & 1), bool(control & 2), pdu[start:offset]))
    return tuple(pdvs)


def _read_abort(pdu: bytes) -> tuple[int, int]:
    abort = A_ABORT_RQ()
    abort.decode(pdu)
    return cast(int, abort.source), cast(int, abort.reason_diagnostic)


def fragment_bytes(max_length: int) -> int:
    """The most data that one PDV takes for a peer with this `max_length` (0: no limit).

    Fragments are even, as DCMTK insists. A maximum length under 8 has room for no even fragment; then fragments of
    2 bytes are sent all the same.
    """
    return max(2, ((max_length or UNLIMITED_PDU_BYTES) - PDV_OVERHEAD) & ~1)


def pdv_header(context_id: int, length: int, *, is_command: bool, is_last: bool = True) -> bytes:
    """What precedes a fragment of `length` bytes: the headers of a P-DATA-TF and of its only PDV."""
    return _PDV_HEADER.pack(_DATA_TF, length + 6, length + 2, context_id, is_command | is_last << 1)


def data_pdus(context_id: int, payload: bytes, *, is_command: bool, max_length: int) -> bytes:
    """`payload` as P-DATA-TF PDUs of one PDV each, none longer than the peer's `max_length` (0: no limit).

    Command and data set never share a PDU, since older devices do not expect it.
    """
    room, length = fragment_bytes(max_length), len(payload)
    parts = []
    for start in range(0, length or 1, room):
        fragment = payload[start : start + room]
        is_last = start + room >= length
        parts.append(pdv_header(context_id, len(fragment), is_command=is_command, is_last=is_last))
        parts.append(fragment)
    return b"".join(parts)


class Acceptor:
    """One association, from the opened connection to the closed one.

    `pdu_bytes_max` is announced as our maximum length; a longer P-DATA-TF is answered with an A-ABORT.
    """

    def __init__(self, pdu_bytes_max: int) -> None:
        self.state = State.IDLE
        self._pdu_bytes_max = pdu_bytes_max
        self._buffer = bytearray()
        self._lost = False  # framing is lost: what follows cannot be read
        self._request: AssociationRequest | None = None  # while it waits for the answer

    # What the transport reports

    def connection_opened(self) -> list[Output]:
        """Evt5."""
        return self._on(Event.CONNECTION_OPENED)

    def connection_closed(self) -> list[Output]:
        """Evt17."""
        return self._on(Event.CONNECTION_CLOSED)

    def artim_expired(self) -> list[Output]:
        """Evt18."""
        return self._on(Event.ARTIM_EXPIRED)

    def receive_data(self, data: bytes) -> list[Output]:
        """Bytes from the peer, in any portions; never raises because of what they are."""
        outputs: list[Output] = []
        if self._lost:
            return outputs
        held: bytes | bytearray = data
        if self._buffer:
            self._buffer += data
            held = self._buffer
        start = 0
        try:
            while self.state is not _IDLE and (end := self._pdu_end(held, start)):
                outputs += self._on_pdu(bytes(held[start:end]))
                start = end
        except _InvalidPDU as invalid:
            outputs += self._on(Event.INVALID_PDU, invalid.reason)
            self._lost = True
        if self._lost or self.state is _IDLE:
            self._buffer.clear()
        elif held is self._buffer:
            del self._buffer[:start]
        elif start < len(data):
            self._buffer += data[start:]
        return outputs

    @property
    def is_receiving(self) -> bool:
        """Whether a PDU has begun to arrive and is not complete."""
        return bool(self._buffer)

    # What the caller decides

    def accept(self, sop_classes: frozenset[str] | None = None, user_response: bytes = b"") -> list[Output]:
        """Evt7: let the association in, with the contexts its request says were accepted.

        With `sop_classes` only contexts of these are: see `AssociationRequest.contexts_of`; the others are answered
        "user rejection". `user_response` is the sub-item that answers a user identity (`user_identity.response_item`),
        b"" for no answer.
        """
        return self._on(Event.LOCAL_ACCEPT, (sop_classes, user_response))

    def reject(self, rejection: Rejection) -> list[Output]:
        """Evt8."""
        return self._on(Event.LOCAL_REJECT, rejection)

    def send_data(self, pdus: bytes) -> bytes:
        """Evt9: `pdus` if they may be sent now, else nothing because the association has gone."""
        action = TRANSITIONS[self.state, Event.LOCAL_DATA]
        return b"" if action is Action.NONE else pdus

    def request_release(self) -> list[Output]:
        """Evt11: ask the peer to end the association."""
        return self._on(Event.LOCAL_RELEASE_REQUEST)

    def respond_release(self) -> list[Output]:
        """Evt14: agree to end it."""
        return self._on(Event.LOCAL_RELEASE_RESPONSE)

    def abort(self) -> list[Output]:
        """Evt15: end it now, with the service user as the source."""
        return self._on(Event.LOCAL_ABORT)

    # The machine

    def _pdu_end(self, held: bytes | bytearray, start: int) -> int:
        """Where the PDU ends that begins at `start`; 0 while it is not complete. Raises _InvalidPDU by its header."""
        if len(held) - start < _HEADER.size:
            return 0
        pdu_type, length = _HEADER.unpack_from(held, start)
        if pdu_type == _DATA_TF:
            bound = self._pdu_bytes_max
        elif pdu_type not in _PDU_EVENTS:
            raise _InvalidPDU(AbortReason.UNRECOGNISED_PDU)
        elif pdu_type in _SHORT_PDUS:
            bound = 4
        else:
            bound = REQUEST_BYTES_MAX
        if length > bound or (pdu_type in _SHORT_PDUS and length != bound):
            raise _InvalidPDU(AbortReason.INVALID_PDU_PARAMETER)
        end = start + _HEADER.size + int(length)
        return end if end <= len(held) else 0

    def _on_pdu(self, pdu: bytes) -> list[Output]:
        event = _PDU_EVENTS[pdu[0]]
        action = TRANSITIONS[self.state, event]
        # Only what will be used is decoded: a PDU at the wrong time is wrong whatever it says.
        if action is Action.AE_6:
            request = _decoded(_request, pdu, self._pdu_bytes_max)
            return self._on(event, request)
        if action in _TAKE_DATA:
            return self._on(event, _decoded(_read_data, pdu))
        if event is Event.ABORT_PDU:
            return self._on(event, _decoded(_read_abort, pdu))
        return self._on(event, AbortReason.UNEXPECTED_PDU)

    def _on(self, event: Event, argument: object = None) -> list[Output]:
        action = TRANSITIONS[self.state, event]
        if action is Action.NONE:
            return []
        if type(argument) is Rejection and action is Action.AE_6:
            self.state = State.AWAITING_CLOSE
            return [SendBytes(_reject_pdu(argument)), AssociationRejected(argument), Signal.START_ARTIM]
        self.state = NEXT_STATE[action] or self.state
        return self._outputs(action, argument)

    def _outputs(self, action: Action, argument: object) -> list[Output]:
        fixed = _FIXED_OUTPUTS.get(action)
        if fixed is not None:
            return list(fixed)
        if action in _TAKE_DATA:
            return [DataReceived(cast(tuple[PDV, ...], argument))]
        match action:
            case Action.AE_6:
                request = cast(AssociationRequest, argument)
                self._request = request
                return [Signal.STOP_ARTIM, AssociationRequested(request)]
            case Action.AE_7:
                return [SendBytes(self._answer(*cast(tuple[frozenset[str] | None, bytes], argument)))]
            case Action.AE_8:
                return [SendBytes(_reject_pdu(cast(Rejection, argument))), Signal.START_ARTIM]
            case Action.AA_1 | Action.AA_8:
                return self._abort(argument)
            case Action.AA_3:
                source, reason = cast(tuple[int, int], argument)
                return [Aborted(True, source, reason), Signal.CLOSE_CONNECTION]
            case _:  # AA-7
                return [SendBytes(_abort_pdu(AbortSource.SERVICE_PROVIDER, cast(AbortReason, argument)))]

    def _answer(self, sop_classes: frozenset[str] | None, user_response: bytes) -> bytes:
        """The A-ASSOCIATE-AC: the one that was ready with the request, unless it has to say something else."""
        request, self._request = cast(AssociationRequest, self._request), None
        if sop_classes is None and not user_response:
            return request.acceptance
        return _narrowed(request.acceptance, request.contexts, sop_classes, user_response)

    def _abort(self, argument: object) -> list[Output]:
        """AA-1 and AA-8: with a reason it is the provider's abort, without one it is the user's.

        AA-1 answers a bad PDU in Sta2 too, and has the user as its source. We name the provider and the reason
        there as well: whoever looks for the fault at the other end needs it.
        """
        if argument is None:
            source, reason = AbortSource.SERVICE_USER, AbortReason.NOT_SPECIFIED
        else:
            source, reason = AbortSource.SERVICE_PROVIDER, cast(AbortReason, argument)
        return [SendBytes(_abort_pdu(source, reason)), Aborted(False, source, reason), Signal.START_ARTIM]
