"""User Identity Negotiation on the wire (PS3.7 D.3.3.7): sub-items 58H and 59H, against pynetdicom's and mutilated."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RQ
from pynetdicom.pdu_items import UserIdentitySubItemAC
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
    SOPClassExtendedNegotiation,
    UserIdentityNegotiation,
)
from pynetdicom.presentation import build_context

from gateway.wire.upper_layer import (
    MODALITY_WORKLIST,
    MPPS,
    VERIFICATION,
    Aborted,
    AbortReason,
    Acceptor,
    AssociationRequest,
    AssociationRequested,
    Output,
    SendBytes,
    State,
)
from gateway.wire.user_identity import (
    RESPONSE_BYTES_MAX,
    IdentityKind,
    UserIdentity,
    read_user_identity,
    response_item,
)

SECRET = b"MARKED-SECRET"


def request_pdu(*user_items: object, contexts: tuple[str, ...] = (MODALITY_WORKLIST, MPPS)) -> bytes:
    primitive = A_ASSOCIATE()
    primitive.application_context_name = "1.2.840.10008.3.1.1.1"
    primitive.calling_ae_title, primitive.called_ae_title = "CT1", "GATEWAY"
    primitive.presentation_context_definition_list = [build_context(uid) for uid in contexts]
    for number, context in enumerate(primitive.presentation_context_definition_list):
        context.context_id = number * 2 + 1
    length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    length.maximum_length_received = 16_382
    implementation.implementation_class_uid = "1.2.3"
    primitive.user_information = [length, implementation, *user_items]  # type: ignore[list-item]  # its union has no name
    pdu = A_ASSOCIATE_RQ()
    pdu.from_primitive(primitive)
    return pdu.encode()


def offered(kind: int, primary: bytes, secondary: bytes = b"", *, response: bool = False) -> UserIdentityNegotiation:
    item = UserIdentityNegotiation()
    item.user_identity_type = kind
    item.positive_response_requested = response
    item.primary_field = primary
    if secondary:
        item.secondary_field = secondary
    return item


def with_sub_items(*sub_items: bytes) -> bytes:
    """A request whose user information, its last item, ends with these."""
    pdu = request_pdu()
    place = pdu.rindex(b"\x50\x00", 0, pdu.index(b"\x51\x00\x00\x04") + 1)
    information = pdu[place + 4 :] + b"".join(sub_items)
    body = pdu[6:place] + b"\x50\x00" + len(information).to_bytes(2, "big") + information
    return b"\x01\x00" + len(body).to_bytes(4, "big") + body


def sub_item(value: bytes, reserved: int = 0) -> bytes:
    return bytes((0x58, reserved)) + len(value).to_bytes(2, "big") + value


def asked(pdu: bytes) -> tuple[Acceptor, list[Output]]:
    acceptor = Acceptor(16_384)
    acceptor.connection_opened()
    return acceptor, acceptor.receive_data(pdu)


def request_of(outputs: list[Output]) -> AssociationRequest:
    (found,) = (each for each in outputs if isinstance(each, AssociationRequested))
    return found.request


def answer_of(outputs: list[Output]) -> A_ASSOCIATE_AC:
    (sent,) = outputs
    assert isinstance(sent, SendBytes)
    pdu = A_ASSOCIATE_AC()
    pdu.decode(sent.data)
    return pdu


@pytest.mark.parametrize(
    ("kind", "primary", "secondary"),
    [
        (IdentityKind.NAME, "Ünal".encode(), b""),
        (IdentityKind.PASSCODE, b"mta1", SECRET),
        (IdentityKind.KERBEROS, bytes(range(256)), b""),
        (IdentityKind.SAML, b"<Assertion/>", b""),
        (IdentityKind.JWT, b"a.b.c", b""),
        (IdentityKind.JWT, b"x" * 60_000, b""),
    ],
)
@pytest.mark.parametrize("response", [False, True])
def test_what_pynetdicom_offers_is_what_is_read(
    kind: IdentityKind, primary: bytes, secondary: bytes, response: bool
) -> None:
    _, outputs = asked(request_pdu(offered(kind, primary, secondary, response=response)))
    assert request_of(outputs).user_identity == UserIdentity(kind, response, primary, secondary)


def test_a_request_without_an_identity_has_none() -> None:
    assert request_of(asked(request_pdu())[1]).user_identity is None


def test_a_representation_shows_neither_name_nor_secret() -> None:
    request = request_of(asked(request_pdu(offered(2, b"MARKED-NAME", SECRET)))[1])
    assert request.user_identity is not None
    assert "MARKED" not in repr(request)
    assert "MARKED" not in repr(request.user_identity)


@pytest.mark.parametrize("reserved", [0, 1, 0xFF])
def test_an_identity_is_forgotten_with_its_request_whatever_its_reserved_byte_says(reserved: int) -> None:
    from gateway.wire.upper_layer import _read_request_cached

    kept = _read_request_cached.cache_info().currsize
    pdu = with_sub_items(sub_item(b"\x02\x00\x00\x01a\x00\x01b", reserved))
    assert request_of(asked(pdu)[1]).user_identity == UserIdentity(2, False, b"a", b"b")
    assert _read_request_cached.cache_info().currsize == kept


def test_a_kind_that_the_standard_does_not_know_is_read_all_the_same() -> None:
    pdu = with_sub_items(sub_item(b"\x09\x01\x00\x00\x00\x00"))
    assert request_of(asked(pdu)[1]).user_identity == UserIdentity(9, True, b"")


def test_a_second_identity_is_answered_with_abort() -> None:
    one = sub_item(b"\x01\x00\x00\x01a\x00\x00")
    acceptor, outputs = asked(with_sub_items(one, one))
    (aborted,) = (each for each in outputs if isinstance(each, Aborted))
    assert (aborted.by_peer, aborted.reason) == (False, AbortReason.UNEXPECTED_PDU_PARAMETER)
    assert acceptor.state is State.AWAITING_CLOSE


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\x01\x00\x00",
        b"\x01\x00\x00\x05a\x00\x00",  # the primary field is longer than the item
        b"\x01\x00\x00\x01a",  # no length of the secondary field
        b"\x02\x00\x00\x01a\x00\x05b",  # the secondary field is longer than the item
        b"\x02\x00\x00\x01a\x00\x01bc",  # and shorter
    ],
)
def test_a_malformed_identity_is_answered_with_abort(value: bytes) -> None:
    _, outputs = asked(with_sub_items(sub_item(value)))
    (aborted,) = (each for each in outputs if isinstance(each, Aborted))
    assert (aborted.by_peer, aborted.reason) == (False, AbortReason.INVALID_PDU_PARAMETER)


@given(st.binary(max_size=64))
def test_any_bytes_are_an_identity_that_can_be_written_again_or_are_refused(value: bytes) -> None:
    acceptor, outputs = asked(with_sub_items(sub_item(value)))
    if acceptor.state is State.AWAITING_CLOSE:
        with pytest.raises((ValueError, struct.error)):
            read_user_identity(value)
        return
    found = request_of(outputs).user_identity
    assert found == read_user_identity(value)
    assert found is not None
    fields = (len(each).to_bytes(2, "big") + each for each in (found.primary, found.secondary))
    assert value[:1] + b"".join((value[1:2], *fields)) == value


@pytest.mark.parametrize("response", [b"", b"MARKED", b"x" * 60_000])
def test_the_answer_is_what_pynetdicom_reads(response: bytes) -> None:
    acceptor, _ = asked(request_pdu(offered(2, b"mta1", SECRET, response=True)))
    answer = answer_of(acceptor.accept(user_response=response_item(response)))
    assert answer.user_information is not None
    (found,) = (each for each in answer.user_information.user_data if isinstance(each, UserIdentitySubItemAC))
    assert (found.server_response or b"") == response


def test_a_response_that_no_item_has_room_for_is_refused() -> None:
    with pytest.raises(ValueError, match="too long"):
        response_item(bytes(RESPONSE_BYTES_MAX + 1))


# The answer that was not ready before


def roles(*sop_classes: str) -> list[SCP_SCU_RoleSelectionNegotiation]:
    items = []
    for uid in sop_classes:
        item = SCP_SCU_RoleSelectionNegotiation()
        item.sop_class_uid, item.scu_role, item.scp_role = uid, True, False
        items.append(item)
    return items


def extension() -> SOPClassExtendedNegotiation:
    item = SOPClassExtendedNegotiation()
    item.sop_class_uid, item.service_class_application_information = MODALITY_WORKLIST, b"\x01\x01\x01"
    return item


def test_contexts_of_other_sop_classes_are_answered_user_rejection() -> None:
    pdu = request_pdu(*roles(MODALITY_WORKLIST, MPPS), extension(), contexts=(VERIFICATION, MODALITY_WORKLIST, MPPS))
    acceptor, outputs = asked(pdu)
    only = frozenset({VERIFICATION, MPPS})
    assert set(request_of(outputs).contexts_of(only)) == {1, 5}
    answer = answer_of(acceptor.accept(only))
    assert [each.result for each in answer.presentation_context] == [0, 1, 0]
    assert answer.user_information is not None
    assert list(answer.user_information.role_selection) == [MPPS]
    assert answer.user_information.ext_neg == []
    assert acceptor.state is State.ESTABLISHED


def test_a_context_that_was_refused_anyway_keeps_its_reason() -> None:
    acceptor, _ = asked(request_pdu(contexts=("1.2.840.10008.5.1.4.1.1.2", MODALITY_WORKLIST)))
    answer = answer_of(acceptor.accept(frozenset({MPPS})))
    assert [each.result for each in answer.presentation_context] == [3, 1]


@given(st.sets(st.sampled_from([VERIFICATION, MODALITY_WORKLIST, MPPS])), st.binary(max_size=40))
def test_an_answer_encoded_anew_differs_only_where_it_has_to(let_in: set[str], response: bytes) -> None:
    sop_classes = (VERIFICATION, MODALITY_WORKLIST, MPPS)
    pdu = request_pdu(*roles(*sop_classes), contexts=sop_classes)
    ready = answer_of(asked(pdu)[0].accept())
    anew = answer_of(asked(pdu)[0].accept(frozenset(let_in), response_item(response)))
    assert [each.result == 0 for each in anew.presentation_context] == [uid in let_in for uid in sop_classes]
    assert [each.transfer_syntax for each in anew.presentation_context] == [
        each.transfer_syntax for each in ready.presentation_context
    ]
    assert ready.user_information is not None
    assert anew.user_information is not None
    assert set(anew.user_information.role_selection) == let_in
    assert anew.user_information.maximum_length == ready.user_information.maximum_length
    assert (anew.called_ae_title, anew.calling_ae_title) == (ready.called_ae_title, ready.calling_ae_title)


def test_everything_let_in_without_a_response_is_the_answer_that_was_ready() -> None:
    acceptor, outputs = asked(request_pdu())
    assert acceptor.accept() == [SendBytes(request_of(outputs).acceptance)]
    again, _ = asked(request_pdu())
    assert again.accept(frozenset({MODALITY_WORKLIST, MPPS})) == [SendBytes(request_of(outputs).acceptance)]
