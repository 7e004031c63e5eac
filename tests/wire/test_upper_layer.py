"""The acceptor's state table, negotiation and framing, without a socket. Requests are built by pynetdicom."""

import itertools
import struct
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pynetdicom import fsm
from pynetdicom.pdu import (
    A_ABORT_RQ,
    A_ASSOCIATE_AC,
    A_ASSOCIATE_RJ,
    A_ASSOCIATE_RQ,
    A_RELEASE_RP,
    A_RELEASE_RQ,
    P_DATA_TF,
)
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    AsynchronousOperationsWindowNegotiation,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
    SOPClassExtendedNegotiation,
    UserIdentityNegotiation,
)
from pynetdicom.presentation import build_context

from gateway.wire.upper_layer import (
    APPLICATION_CONTEXT_NOT_SUPPORTED,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    LOCAL_LIMIT_EXCEEDED,
    MODALITY_WORKLIST,
    MPPS,
    NEXT_STATE,
    PROTOCOL_VERSION_NOT_SUPPORTED,
    REQUEST_BYTES_MAX,
    TRANSITIONS,
    USER_ITEMS_MAX,
    VERIFICATION,
    Aborted,
    AbortReason,
    AbortSource,
    Acceptor,
    Action,
    AssociationRejected,
    AssociationRequest,
    AssociationRequested,
    Context,
    DataReceived,
    Event,
    Output,
    Rejection,
    SendBytes,
    Signal,
    State,
    _read_request_cached,
    data_pdus,
)

PDU_BYTES_MAX = 16_384
BOTH = [IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN]
WORKLIST_ONLY = ((MODALITY_WORKLIST, BOTH),)


def request_pdu(contexts: object = WORKLIST_ONLY, *user_items: object, max_length: int = 16_382) -> bytes:
    """An A-ASSOCIATE-RQ from CT1 to GATEWAY with contexts 1, 3, 5 and so on."""
    primitive = A_ASSOCIATE()
    primitive.application_context_name = "1.2.840.10008.3.1.1.1"
    primitive.calling_ae_title = "CT1"
    primitive.called_ae_title = "GATEWAY"
    proposed = []
    for index, (abstract_syntax, transfer_syntaxes) in enumerate(contexts):
        context = build_context(abstract_syntax, transfer_syntaxes)
        context.context_id = 2 * index + 1
        proposed.append(context)
    primitive.presentation_context_definition_list = proposed
    length = MaximumLengthNotification()
    length.maximum_length_received = max_length
    implementation = ImplementationClassUIDNotification()
    implementation.implementation_class_uid = "1.2.826.0.1"
    version = ImplementationVersionNameNotification()
    version.implementation_version_name = "SCANNER_7"
    primitive.user_information = [length, implementation, version, *user_items]
    return A_ASSOCIATE_RQ(primitive).encode()


def extension(offered: bytes) -> SOPClassExtendedNegotiation:
    """Extended negotiation for the worklist."""
    item = SOPClassExtendedNegotiation()
    item.sop_class_uid = MODALITY_WORKLIST
    item.service_class_application_information = offered
    return item


def with_user_item(sub_item: bytes) -> bytes:
    """A request with one more sub-item in its user information, which comes last."""
    user_item = REQUEST.index(b"\x50\x00", 74)
    user_length = struct.unpack_from(">H", REQUEST, user_item + 2)[0] + len(sub_item)
    body = REQUEST[6:user_item] + b"\x50\x00" + struct.pack(">H", user_length) + REQUEST[user_item + 4 :] + sub_item
    return b"\x01\x00" + struct.pack(">I", len(body)) + body


def abort_pdu() -> bytes:
    pdu = A_ABORT_RQ()
    pdu.source, pdu.reason_diagnostic = 0, 0
    return pdu.encode()


def reject_pdu() -> bytes:
    pdu = A_ASSOCIATE_RJ()
    pdu.result, pdu.source, pdu.reason_diagnostic = 1, 1, 1
    return pdu.encode()


REQUEST = request_pdu()
DATA = data_pdus(1, b"ab" * 10, is_command=True, max_length=0)
CONTEXT_ITEM = REQUEST.index(b"\x20\x00", 74) + 4  # where its context ID is
RELEASE_RQ = A_RELEASE_RQ().encode()
RELEASE_RP = A_RELEASE_RP().encode()
INVALID = b"\x09\x00\x00\x00\x00\x00"


def opened() -> Acceptor:
    acceptor = Acceptor(PDU_BYTES_MAX)
    acceptor.connection_opened()
    return acceptor


def requested(pdu: bytes = REQUEST) -> tuple[Acceptor, list[Output]]:
    acceptor = opened()
    return acceptor, acceptor.receive_data(pdu)


def established() -> Acceptor:
    acceptor, _ = requested()
    acceptor.accept()
    return acceptor


def accepted(pdu: bytes) -> tuple[AssociationRequest, A_ASSOCIATE_AC]:
    """What was negotiated, and our answer as pynetdicom reads it."""
    acceptor, outputs = requested(pdu)
    (request,) = [output.request for output in outputs if isinstance(output, AssociationRequested)]
    (sent,) = acceptor.accept()
    assert isinstance(sent, SendBytes)
    answer = A_ASSOCIATE_AC()
    answer.decode(sent.data)
    return request, answer


def sent_abort(outputs: list[Output]) -> tuple[int, int] | None:
    """Source and reason of the A-ABORT among the outputs."""
    for output in outputs:
        if isinstance(output, SendBytes) and output.data[0] == 7:
            return output.data[8], output.data[9]
    return None


# The state table

STATES: dict[State, Callable[[], Acceptor]] = {
    State.IDLE: lambda: Acceptor(PDU_BYTES_MAX),
    State.AWAITING_REQUEST: opened,
    State.AWAITING_LOCAL_ANSWER: lambda: requested()[0],
    State.ESTABLISHED: established,
    State.AWAITING_RELEASE_RESPONSE: lambda: _after(established(), lambda a: a.request_release()),
    State.RELEASE_REQUESTED: lambda: _after(established(), lambda a: a.receive_data(RELEASE_RQ)),
    State.COLLISION_AWAITING_RESPONSE: lambda: _after(
        established(), lambda a: a.request_release(), lambda a: a.receive_data(RELEASE_RQ)
    ),
    State.COLLISION_AWAITING_LOCAL_ANSWER: lambda: _after(
        established(),
        lambda a: a.request_release(),
        lambda a: a.receive_data(RELEASE_RQ),
        lambda a: a.receive_data(RELEASE_RP),
    ),
    State.AWAITING_CLOSE: lambda: _after(established(), lambda a: a.abort()),
}

EVENTS: dict[Event, Callable[[Acceptor], object]] = {
    Event.ACCEPT_PDU: lambda a: a.receive_data(b"\x02\x00\x00\x00\x00\x04abcd"),
    Event.REJECT_PDU: lambda a: a.receive_data(reject_pdu()),
    Event.CONNECTION_OPENED: lambda a: a.connection_opened(),
    Event.REQUEST_PDU: lambda a: a.receive_data(REQUEST),
    Event.LOCAL_ACCEPT: lambda a: a.accept(),
    Event.LOCAL_REJECT: lambda a: a.reject(LOCAL_LIMIT_EXCEEDED),
    Event.LOCAL_DATA: lambda a: a.send_data(DATA),
    Event.DATA_PDU: lambda a: a.receive_data(DATA),
    Event.LOCAL_RELEASE_REQUEST: lambda a: a.request_release(),
    Event.RELEASE_REQUEST_PDU: lambda a: a.receive_data(RELEASE_RQ),
    Event.RELEASE_RESPONSE_PDU: lambda a: a.receive_data(RELEASE_RP),
    Event.LOCAL_RELEASE_RESPONSE: lambda a: a.respond_release(),
    Event.LOCAL_ABORT: lambda a: a.abort(),
    Event.ABORT_PDU: lambda a: a.receive_data(abort_pdu()),
    Event.CONNECTION_CLOSED: lambda a: a.connection_closed(),
    Event.ARTIM_EXPIRED: lambda a: a.artim_expired(),
    Event.INVALID_PDU: lambda a: a.receive_data(INVALID),
}


def _after(acceptor: Acceptor, *steps: Callable[[Acceptor], object]) -> Acceptor:
    for step in steps:
        step(acceptor)
    return acceptor


def test_every_state_has_an_action_for_every_event() -> None:
    assert set(TRANSITIONS) == {(state, event) for state in State for event in Event}
    assert set(NEXT_STATE) == set(Action) == set(TRANSITIONS.values())


@pytest.mark.parametrize("event", Event)
@pytest.mark.parametrize("state", State)
def test_every_event_in_every_state_leads_where_the_table_says(state: State, event: Event) -> None:
    acceptor = STATES[state]()
    assert acceptor.state is state
    EVENTS[event](acceptor)
    assert acceptor.state is (NEXT_STATE[TRANSITIONS[state, event]] or state)


def test_the_table_is_pynetdicoms_except_for_closing_an_unused_connection() -> None:
    theirs = {
        (State(state), Event(event)): Action(action)
        for (event, state), action in fsm.TRANSITION_TABLE.items()
        if state in list(State) and event in list(Event)
    }
    ours = {cell: action for cell, action in TRANSITIONS.items() if action is not Action.NONE}
    assert ours == theirs | {(State.AWAITING_REQUEST, Event.LOCAL_ABORT): Action.AA_2}


# The course of an association


def test_an_association_is_opened_used_and_released() -> None:
    acceptor = Acceptor(PDU_BYTES_MAX)
    assert acceptor.connection_opened() == [Signal.START_ARTIM]
    stop, asked = acceptor.receive_data(REQUEST)
    assert stop is Signal.STOP_ARTIM
    assert isinstance(asked, AssociationRequested)
    (answer,) = acceptor.accept()
    assert isinstance(answer, SendBytes)
    assert answer.data[0] == 2
    (received,) = acceptor.receive_data(DATA)
    assert isinstance(received, DataReceived)
    assert received.pdvs == ((1, True, True, b"ab" * 10),)
    assert acceptor.send_data(DATA) == DATA
    assert acceptor.receive_data(RELEASE_RQ) == [Signal.RELEASE_REQUESTED]
    assert acceptor.respond_release() == [SendBytes(RELEASE_RP), Signal.START_ARTIM]
    assert acceptor.connection_closed() == [Signal.STOP_ARTIM]


def test_our_release_is_confirmed_and_the_connection_closed() -> None:
    acceptor = established()
    assert acceptor.request_release() == [SendBytes(RELEASE_RQ)]
    assert acceptor.receive_data(RELEASE_RP) == [Signal.RELEASED, Signal.CLOSE_CONNECTION]


def test_two_release_requests_that_cross_are_both_answered() -> None:
    acceptor = established()
    acceptor.request_release()
    assert acceptor.receive_data(RELEASE_RQ) == [Signal.RELEASE_REQUESTED]
    assert acceptor.respond_release() == []
    assert acceptor.receive_data(RELEASE_RP) == [Signal.RELEASED]
    assert acceptor.respond_release() == [SendBytes(RELEASE_RP), Signal.START_ARTIM]


def test_nothing_is_sent_after_the_peer_aborted() -> None:
    acceptor = established()
    assert acceptor.receive_data(abort_pdu()) == [Aborted(True, 0, 0), Signal.CLOSE_CONNECTION]
    assert acceptor.send_data(DATA) == b""
    assert acceptor.abort() == []


def test_a_lost_connection_is_an_abort_by_the_peer() -> None:
    assert established().connection_closed() == [Aborted(True, None, 0)]


def test_a_silent_connection_is_closed_when_artim_expires() -> None:
    assert opened().artim_expired() == [Signal.STOP_ARTIM, Signal.CLOSE_CONNECTION]


def test_a_rejection_carries_result_source_and_reason() -> None:
    acceptor, _ = requested()
    sent, timer = acceptor.reject(Rejection(2, 3, 2))
    assert isinstance(sent, SendBytes)
    rejection = A_ASSOCIATE_RJ()
    rejection.decode(sent.data)
    assert (rejection.result, rejection.source, rejection.reason_diagnostic) == (2, 3, 2)
    assert timer is Signal.START_ARTIM


# Negotiation


def test_the_first_transfer_syntax_of_the_requester_that_we_read_is_accepted() -> None:
    jpeg = "1.2.840.10008.1.2.4.50"
    request, answer = accepted(
        request_pdu(
            [
                (MODALITY_WORKLIST, BOTH),
                (MPPS, [jpeg, EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN]),
                (VERIFICATION, [IMPLICIT_VR_LITTLE_ENDIAN]),
            ]
        )
    )
    assert request.contexts == {
        1: Context(1, MODALITY_WORKLIST, IMPLICIT_VR_LITTLE_ENDIAN),
        3: Context(3, MPPS, EXPLICIT_VR_LITTLE_ENDIAN),
        5: Context(5, VERIFICATION, IMPLICIT_VR_LITTLE_ENDIAN),
    }
    assert [(c.context_id, c.result, c.transfer_syntax) for c in answer.presentation_context] == [
        (1, 0, IMPLICIT_VR_LITTLE_ENDIAN),
        (3, 0, EXPLICIT_VR_LITTLE_ENDIAN),
        (5, 0, IMPLICIT_VR_LITTLE_ENDIAN),
    ]


def test_what_is_not_served_is_refused_context_by_context() -> None:
    study_root = "1.2.840.10008.5.1.4.1.2.2.1"
    request, answer = accepted(
        request_pdu(
            [(study_root, BOTH), (MPPS, ["1.2.840.10008.1.2.2"]), (MODALITY_WORKLIST, [IMPLICIT_VR_LITTLE_ENDIAN])]
        )
    )
    assert set(request.contexts) == {5}
    assert [context.result for context in answer.presentation_context] == [3, 4, 0]


def test_the_answer_says_who_we_are_and_how_long_a_pdu_may_be() -> None:
    request, answer = accepted(request_pdu(max_length=0))
    assert request.max_length == 0
    assert (request.calling_ae_title, request.called_ae_title) == ("CT1", "GATEWAY")
    assert (request.implementation_class_uid, request.implementation_version) == ("1.2.826.0.1", "SCANNER_7")
    user = answer.user_information
    assert user is not None
    assert user.maximum_length == PDU_BYTES_MAX
    assert str(user.implementation_class_uid).startswith("2.25.")
    assert user.implementation_version_name == "MODALITYGW_0.3"
    assert user.async_ops_window is user.user_identity is None
    assert user.ext_neg == []
    assert user.role_selection == {}


@pytest.mark.parametrize(
    ("offered", "answered"),
    [
        (b"\1\1\1", b"\1\1\1"),
        (b"\1\1\0", b"\1\1\0"),
        (b"\1\1\1\1", b"\1\1\1\1"),
        (b"\1\1\0\1", b"\1\1\0\1"),
        (b"\1\1\1\0", b"\1\1\1\0"),
        (b"\1\1\0\0\7\7", b"\1\1\0\0"),
        (b"\1\1\1\1\1\1\1", b"\1\1\1\1"),
        (b"\0\7\xff\2", b"\1\1\0\0"),  # only a 1 asks for something
    ],
)
def test_fuzzy_names_and_time_zones_are_promised_as_they_were_asked(offered: bytes, answered: bytes) -> None:
    request, answer = accepted(request_pdu(WORKLIST_ONLY, extension(offered)))
    assert request.worklist_negotiation == offered
    assert answer.user_information is not None
    (item_back,) = answer.user_information.ext_neg
    assert (item_back.uid, item_back.app_info) == (MODALITY_WORKLIST, answered)


@pytest.mark.parametrize("offered", [b"", b"\1", b"\1\1"])
def test_extended_negotiation_that_is_too_short_is_let_in_and_not_answered(offered: bytes) -> None:
    sub_item = b"\x56\x00" + struct.pack(">HH", 2 + 22 + len(offered), 22) + MODALITY_WORKLIST.encode() + offered
    request, answer = accepted(with_user_item(sub_item))
    assert request.worklist_negotiation == offered
    assert answer.user_information is not None
    assert answer.user_information.ext_neg == []


def test_extended_negotiation_for_a_worklist_that_was_not_accepted_is_not_answered() -> None:
    _, answer = accepted(request_pdu([(MODALITY_WORKLIST, ["1.2.840.10008.1.2.2"])], extension(b"\1\1\1")))
    assert answer.user_information is not None
    assert answer.user_information.ext_neg == []


def test_extended_negotiation_of_another_class_is_not_answered() -> None:
    item = SOPClassExtendedNegotiation()
    item.sop_class_uid = MPPS
    item.service_class_application_information = b"\1\1\1"
    _, answer = accepted(request_pdu(WORKLIST_ONLY, item))
    assert answer.user_information is not None
    assert answer.user_information.ext_neg == []


def test_asynchronous_operations_are_answered_with_one_at_a_time() -> None:
    window = AsynchronousOperationsWindowNegotiation()
    window.maximum_number_operations_invoked = 16
    window.maximum_number_operations_performed = 0
    _, answer = accepted(request_pdu(WORKLIST_ONLY, window))
    assert answer.user_information is not None
    item = answer.user_information.async_ops_window
    assert item is not None
    assert (item.max_operations_invoked, item.max_operations_performed) == (1, 1)


@pytest.mark.parametrize(
    ("proposed", "answered", "result"),
    [((True, False), (1, 0), 0), ((True, True), (1, 0), 0), ((False, True), None, 1)],
)
def test_the_requester_may_be_scu_and_only_that(
    proposed: tuple[bool, bool], answered: tuple[int, int] | None, result: int
) -> None:
    role = SCP_SCU_RoleSelectionNegotiation()
    role.sop_class_uid = MPPS
    role.scu_role, role.scp_role = proposed
    _, answer = accepted(request_pdu([(MPPS, BOTH)], role))
    assert [context.result for context in answer.presentation_context] == [result]
    assert answer.user_information is not None
    roles = [(item.scu, item.scp) for item in answer.user_information.role_selection.values()]
    assert roles == ([answered] if answered else [])


@pytest.mark.parametrize("identity_type", [1, 2, 3, 4, 5])
def test_a_user_identity_is_neither_answered_nor_kept(identity_type: int) -> None:
    identity = UserIdentityNegotiation()
    identity.user_identity_type = identity_type
    identity.primary_field = b"someone"
    identity.positive_response_requested = True
    if identity_type == 2:
        identity.secondary_field = b"secret"
    kept = _read_request_cached.cache_info().currsize
    _, answer = accepted(request_pdu(WORKLIST_ONLY, identity))
    assert answer.user_information is not None
    assert answer.user_information.user_identity is None
    assert _read_request_cached.cache_info().currsize == kept


def test_a_requester_whose_contexts_are_all_refused_is_let_in_and_released() -> None:
    ct_image_storage = "1.2.840.10008.5.1.4.1.1.2"
    acceptor, _ = requested(request_pdu([(ct_image_storage, BOTH)]))
    (sent,) = acceptor.accept()
    assert isinstance(sent, SendBytes)
    answer = A_ASSOCIATE_AC()
    answer.decode(sent.data)
    assert [(each.context_id, each.result) for each in answer.presentation_context] == [(1, 3)]
    assert acceptor.receive_data(RELEASE_RQ) == [Signal.RELEASE_REQUESTED]
    assert acceptor.respond_release()[0] == SendBytes(RELEASE_RP)


def test_a_context_for_each_transfer_syntax_is_answered_with_that_syntax() -> None:
    each = [(MODALITY_WORKLIST, [IMPLICIT_VR_LITTLE_ENDIAN]), (MODALITY_WORKLIST, [EXPLICIT_VR_LITTLE_ENDIAN])]
    request, answer = accepted(request_pdu(each))
    assert [context.transfer_syntax for context in request.contexts.values()] == BOTH
    assert [context.result for context in answer.presentation_context] == [0, 0]


def test_many_transfer_syntaxes_in_one_context_are_read_to_the_end() -> None:
    unread = [f"1.2.840.10008.1.2.4.{number}" for number in range(50, 90)]
    request, _ = accepted(request_pdu([(MODALITY_WORKLIST, [*unread, IMPLICIT_VR_LITTLE_ENDIAN])]))
    assert request.contexts[1].transfer_syntax == IMPLICIT_VR_LITTLE_ENDIAN


def test_as_many_contexts_as_there_can_be_are_answered_each() -> None:
    contexts = [(MODALITY_WORKLIST if number % 2 else MPPS, BOTH) for number in range(128)]
    request, answer = accepted(request_pdu(contexts))
    assert list(request.contexts) == list(range(1, 256, 2))
    assert [(each.context_id, each.result) for each in answer.presentation_context] == [
        (context_id, 0) for context_id in range(1, 256, 2)
    ]


@pytest.mark.parametrize("padding", [b"\0", b" ", b"\0\0\0"])
def test_uids_padded_as_in_data_sets_are_read(padding: bytes) -> None:
    start, end = 74 + 4 + 21, REQUEST.index(b"\x50\x00", 74)  # the only presentation context
    uid = MODALITY_WORKLIST.encode() + padding
    syntax = IMPLICIT_VR_LITTLE_ENDIAN.encode() + padding
    sub_items = b"\x30\x00" + struct.pack(">H", len(uid)) + uid + b"\x40\x00" + struct.pack(">H", len(syntax)) + syntax
    context = b"\x20\x00" + struct.pack(">H", 4 + len(sub_items)) + b"\x01\0\0\0" + sub_items
    body = REQUEST[6:start] + context + REQUEST[end:]
    request, _ = accepted(b"\x01\x00" + struct.pack(">I", len(body)) + body)
    assert request.contexts == {1: Context(1, MODALITY_WORKLIST, IMPLICIT_VR_LITTLE_ENDIAN)}


def test_a_context_that_offers_no_transfer_syntax_is_refused_alone() -> None:
    body = REQUEST[6:] + b"\x20\x00" + struct.pack(">H", 4) + b"\x07\0\0\0"
    request, answer = accepted(b"\x01\x00" + struct.pack(">I", len(body)) + body)
    assert set(request.contexts) == {1}
    assert [(each.context_id, each.result) for each in answer.presentation_context] == [(1, 0), (7, 3)]


@pytest.mark.parametrize("context", [b"", b"\x03", b"\x03\0\0\0\x30\0", b"\x03\0\0\0\x30\0\0\xff1.2"])
def test_a_context_that_ends_too_soon_is_answered_with_abort(context: bytes) -> None:
    body = REQUEST[6:] + b"\x20\x00" + struct.pack(">H", len(context)) + context
    _, outputs = requested(b"\x01\x00" + struct.pack(">I", len(body)) + body)
    assert sent_abort(outputs) == (AbortSource.SERVICE_PROVIDER, AbortReason.INVALID_PDU_PARAMETER)


@pytest.mark.parametrize(("number", "is_read"), [(USER_ITEMS_MAX - 3, True), (USER_ITEMS_MAX - 2, False)])
def test_more_user_information_than_any_requester_has_is_not_read(number: int, is_read: bool) -> None:
    role = b"\x54\x00" + struct.pack(">HH", 2 + 22 + 2, 22) + MODALITY_WORKLIST.encode() + b"\1\0"
    _, outputs = requested(with_user_item(role * number))
    assert any(isinstance(output, AssociationRequested) for output in outputs) is is_read


def test_items_of_unknown_type_are_skipped() -> None:
    unknown = b"\xe7\x00\x00\x03abc"
    pdu = with_user_item(unknown)
    body = pdu[6:74] + unknown + pdu[74:]
    request, _ = accepted(b"\x01\x00" + struct.pack(">I", len(body)) + body)
    assert request.implementation_version == "SCANNER_7"


def test_ae_titles_padded_with_nul_are_read() -> None:
    request, _ = accepted(REQUEST[:26] + b"CT1".ljust(16, b"\0") + REQUEST[42:])
    assert request.calling_ae_title == "CT1"


def test_an_implementation_class_with_a_leading_zero_is_let_in() -> None:
    request, _ = accepted(REQUEST.replace(b"1.2.826.0.1", b"1.2.826.001"))
    assert request.implementation_class_uid == "1.2.826.001"


@pytest.mark.parametrize(
    ("change", "rejection"),
    [
        (lambda pdu: pdu[:6] + b"\x00\x02" + pdu[8:], PROTOCOL_VERSION_NOT_SUPPORTED),
        (
            lambda pdu: pdu.replace(b"1.2.840.10008.3.1.1.1", b"1.2.840.10008.3.1.1.9", 1),
            APPLICATION_CONTEXT_NOT_SUPPORTED,
        ),
    ],
)
def test_what_the_protocol_itself_forbids_is_rejected_with_its_reason(
    change: Callable[[bytes], bytes], rejection: Rejection
) -> None:
    acceptor, outputs = requested(change(REQUEST))
    assert AssociationRejected(rejection) in outputs
    assert acceptor.state is State.AWAITING_CLOSE


def test_later_protocol_versions_are_accepted_while_version_1_is_among_them() -> None:
    request, _ = accepted(REQUEST[:6] + b"\x00\x03" + REQUEST[8:])
    assert request.calling_ae_title == "CT1"


@pytest.mark.parametrize(
    "change",
    [
        lambda pdu: pdu[:26] + b" " * 16 + pdu[42:],  # a calling AE title of spaces
        lambda pdu: pdu[:26] + b"\xff" * 16 + pdu[42:],  # and one that is not ASCII
        lambda pdu: pdu[:CONTEXT_ITEM] + b"\x02" + pdu[CONTEXT_ITEM + 1 :],  # an even context ID
        lambda pdu: pdu[:76] + b"\xff\xff" + pdu[78:],  # an item longer than the PDU
    ],
)
def test_a_malformed_request_is_answered_with_abort(change: Callable[[bytes], bytes]) -> None:
    acceptor, outputs = requested(change(REQUEST))
    assert sent_abort(outputs) == (AbortSource.SERVICE_PROVIDER, AbortReason.INVALID_PDU_PARAMETER)
    assert acceptor.state is State.AWAITING_CLOSE


def test_a_context_id_used_twice_is_answered_with_abort() -> None:
    pdu = request_pdu([(MODALITY_WORKLIST, BOTH), (MPPS, BOTH)])
    second = pdu.index(b"\x20\x00", pdu.index(b"\x20\x00", 74) + 4)
    _, outputs = requested(pdu[: second + 4] + b"\x01" + pdu[second + 5 :])
    assert sent_abort(outputs) == (AbortSource.SERVICE_PROVIDER, AbortReason.INVALID_PDU_PARAMETER)


def test_a_request_too_large_to_be_remembered_is_read_all_the_same() -> None:
    private = [(f"1.2.826.0.1.{number}", BOTH) for number in range(120)]
    pdu = request_pdu([*private, (MODALITY_WORKLIST, BOTH)])
    assert len(pdu) > 4096
    request, answer = accepted(pdu)
    assert list(request.contexts) == [241]
    assert len(answer.presentation_context) == 121


# Framing


def test_a_pdu_longer_than_announced_is_refused_at_its_header() -> None:
    acceptor = established()
    outputs = acceptor.receive_data(b"\x04\x00" + struct.pack(">I", PDU_BYTES_MAX + 1))
    assert sent_abort(outputs) == (AbortSource.SERVICE_PROVIDER, AbortReason.INVALID_PDU_PARAMETER)
    assert acceptor.receive_data(DATA) == []


def test_a_request_longer_than_any_real_one_is_refused_at_its_header() -> None:
    acceptor = opened()
    outputs = acceptor.receive_data(b"\x01\x00" + struct.pack(">I", REQUEST_BYTES_MAX + 1))
    assert sent_abort(outputs) == (AbortSource.SERVICE_PROVIDER, AbortReason.INVALID_PDU_PARAMETER)


def test_an_unknown_pdu_type_is_named_in_the_abort() -> None:
    assert sent_abort(established().receive_data(INVALID)) == (
        AbortSource.SERVICE_PROVIDER,
        AbortReason.UNRECOGNISED_PDU,
    )


def test_a_pdu_at_the_wrong_time_is_named_in_the_abort() -> None:
    assert sent_abort(established().receive_data(RELEASE_RP)) == (
        AbortSource.SERVICE_PROVIDER,
        AbortReason.UNEXPECTED_PDU,
    )


@pytest.mark.parametrize(
    "body", [b"\0\0\0\0\1\3", b"\0\0\0\x01\x01", b"\0\0\0\x20\x01\x03abc", b"\xff\xff\xff\xff\x01\x03", b"\0\0"]
)
def test_a_pdv_that_does_not_fit_its_pdu_ends_the_association(body: bytes) -> None:
    outputs = established().receive_data(b"\x04\x00" + struct.pack(">I", len(body)) + body)
    assert sent_abort(outputs) == (AbortSource.SERVICE_PROVIDER, AbortReason.INVALID_PDU_PARAMETER)


def test_our_own_abort_has_the_user_as_its_source() -> None:
    assert sent_abort(established().abort()) == (AbortSource.SERVICE_USER, AbortReason.NOT_SPECIFIED)


def play(acceptor: Acceptor, chunks: list[bytes]) -> list[Output]:
    """Deliver in portions, accepting the association when it is asked for; the outputs without timers."""
    outputs = acceptor.connection_opened()
    for chunk in chunks:
        got = acceptor.receive_data(chunk)
        outputs += got
        if any(isinstance(output, AssociationRequested) for output in got):
            outputs += acceptor.accept()
    return outputs


STREAM = REQUEST + DATA + data_pdus(1, b"xy" * 20_000, is_command=False, max_length=PDU_BYTES_MAX) + RELEASE_RQ


def test_byte_by_byte_is_the_same_as_pdu_by_pdu() -> None:
    pdus = [REQUEST, STREAM[len(REQUEST) :]]
    assert play(Acceptor(PDU_BYTES_MAX), [bytes([byte]) for byte in STREAM]) == play(Acceptor(PDU_BYTES_MAX), pdus)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, len(STREAM)), max_size=30))
def test_any_portions_are_the_same_as_pdu_by_pdu(cuts: list[int]) -> None:
    # The answer to the request is due before data: no portion reaches beyond the end of the request.
    edges = sorted({0, len(REQUEST), len(STREAM), *cuts})
    chunks = [STREAM[start:end] for start, end in itertools.pairwise(edges)]
    expected = play(Acceptor(PDU_BYTES_MAX), [REQUEST, STREAM[len(REQUEST) :]])
    assert play(Acceptor(PDU_BYTES_MAX), chunks) == expected


# Fragments


@settings(max_examples=100, deadline=None)
@given(
    payload=st.binary(max_size=3000),
    is_command=st.booleans(),
    max_length=st.sampled_from([0, 1, 7, 8, 9, 13, 128, 1001, 16_384, 2**32 - 1]),
)
def test_fragments_fit_the_peer_are_even_and_make_up_the_whole(
    payload: bytes, is_command: bool, max_length: int
) -> None:
    payload += b"\0" * (len(payload) % 2)
    encoded = data_pdus(3, payload, is_command=is_command, max_length=max_length)
    fragments = []
    while encoded:
        end = 6 + struct.unpack_from(">I", encoded, 2)[0]
        pdu = P_DATA_TF()
        pdu.decode(encoded[:end])
        (item,) = pdu.presentation_data_value_items
        assert item.context_id == 3
        assert item.data is not None
        if max_length >= 8:
            assert end - 6 <= max_length
        assert len(item.data) % 2 == 1
        fragments.append(item.data)
        encoded = encoded[end:]
    assert b"".join(fragment[1:] for fragment in fragments) == payload
    assert [fragment[0] for fragment in fragments] == [int(is_command)] * (len(fragments) - 1) + [2 | is_command]
