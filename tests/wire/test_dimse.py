"""DIMSE messages: assembled from any fragments, bounded, and written as pynetdicom reads them."""

import contextlib
import io
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pynetdicom.dimse_messages import (
    C_ECHO_RSP,
    C_FIND_RQ,
    C_FIND_RSP,
    N_CREATE_RQ,
    N_CREATE_RSP,
    N_GET_RQ,
    N_GET_RSP,
    N_SET_RQ,
    N_SET_RSP,
)
from pynetdicom.dimse_primitives import C_FIND, N_CREATE, N_GET, N_SET
from pynetdicom.dsutils import decode
from pynetdicom.pdu import P_DATA_TF

from gateway.wire.dimse import (
    COMMAND_BYTES_MAX,
    SMALL_DATASET_BYTES,
    ByteBudget,
    Command,
    DIMSEViolation,
    FindAnswer,
    FindAnswers,
    FindResponder,
    Message,
    MessageAssembler,
    NAnswer,
    Operation,
    Status,
    error_comment,
    n_response,
    read_command,
    refusal_of,
    simple_response,
)
from gateway.wire.upper_layer import (
    INSTANCE_AVAILABILITY,
    MODALITY_WORKLIST,
    MPPS,
    MPPS_RETRIEVE,
    PDV,
    VERIFICATION,
)

DATASET_BYTES_MAX = 4096


def element(tag: int, value: bytes) -> bytes:
    return struct.pack("<HHI", 0, tag, len(value)) + value


def command_set(operation: int, *, message_id: int | None = 7, has_dataset: bool = True, others: bytes = b"") -> bytes:
    """A command set by hand, for those that no library would write."""
    body = element(0x0002, b"1.2.840.10008.5.1.4.31") + element(0x0100, struct.pack("<H", operation))
    if message_id is not None:
        body += element(0x0110, struct.pack("<H", message_id))
    body += element(0x0800, struct.pack("<H", 1 if has_dataset else 0x0101)) + others
    return element(0, struct.pack("<I", len(body))) + body


def pdvs_of(message: object, max_length: int = 16_382) -> list[PDV]:
    """What pynetdicom would send for one of its messages."""
    pdvs = []
    for primitive in message.encode_msg(1, max_length):
        for context_id, value in primitive.presentation_data_value_list:
            pdvs.append(PDV(context_id, bool(value[0] & 1), bool(value[0] & 2), value[1:]))
    return pdvs


def request(primitive_class: type, message_class: type, dataset: bytes | None, **fields: object) -> object:
    primitive = primitive_class()
    for name, value in fields.items():
        setattr(primitive, name, value)
    if dataset is not None:
        name = {C_FIND: "Identifier", N_CREATE: "AttributeList", N_SET: "ModificationList"}[primitive_class]
        setattr(primitive, name, io.BytesIO(dataset))
    message = message_class()
    message.primitive_to_message(primitive)
    return message


def assembled(pdvs: list[PDV]) -> Message:
    assembler = MessageAssembler({1}, DATASET_BYTES_MAX, ByteBudget(0))
    (message,) = filter(None, map(assembler.receive, pdvs))
    return message


def response(message_class: type, pdus: bytes) -> tuple[Dataset, bytes]:
    """Command and data set of the one response in `pdus`, as pynetdicom reads it."""
    message = message_class()
    complete = False
    while pdus:
        assert not complete
        end = 6 + struct.unpack_from(">I", pdus, 2)[0]
        pdu = P_DATA_TF()
        pdu.decode(pdus[:end])
        complete = message.decode_msg(pdu.to_primitive())
        pdus = pdus[end:]
    assert complete
    assert type(message) is message_class
    return message.command_set, message.data_set.getvalue()


FIND = Message(1, Command(Operation.C_FIND, 7, True, MODALITY_WORKLIST), b"identifier")
CREATE = Message(3, Command(Operation.N_CREATE, 9, True, MPPS, "1.2.3"), b"")
SET = Message(3, Command(Operation.N_SET, 10, True, MPPS, "1.2.3"), b"")


# Reading


def test_a_find_request_is_read() -> None:
    message = request(C_FIND, C_FIND_RQ, b"some keys!", MessageID=7, AffectedSOPClassUID=MODALITY_WORKLIST, Priority=2)
    assert assembled(pdvs_of(message)) == Message(
        1, Command(Operation.C_FIND, 7, True, MODALITY_WORKLIST), b"some keys!"
    )


def test_create_and_set_name_class_and_instance_in_fields_of_their_own() -> None:
    create = request(
        N_CREATE, N_CREATE_RQ, b"12", MessageID=1, AffectedSOPClassUID=MPPS, AffectedSOPInstanceUID="1.2.34"
    )
    change = request(N_SET, N_SET_RQ, b"34", MessageID=2, RequestedSOPClassUID=MPPS, RequestedSOPInstanceUID="1.2.345")
    assert assembled(pdvs_of(create)).command == Command(Operation.N_CREATE, 1, True, MPPS, "1.2.34")
    assert assembled(pdvs_of(change)).command == Command(Operation.N_SET, 2, True, MPPS, "1.2.345")


@pytest.mark.parametrize("tags", [(), (0x00080060,), (0x00080005, 0x00400340, 0x00091001, 0xFFFFFFFF)])
def test_a_get_request_says_which_attributes_it_wants(tags: tuple[int, ...]) -> None:
    listed = {"AttributeIdentifierList": [Tag(tag) for tag in tags]} if tags else {}
    asked = request(
        N_GET, N_GET_RQ, None, MessageID=3, RequestedSOPClassUID=MPPS_RETRIEVE, RequestedSOPInstanceUID="2.25.1",
        **listed,
    )  # fmt: skip
    command = assembled(pdvs_of(asked)).command
    assert (command.field, command.sop_class_uid, command.sop_instance_uid, command.attribute_tags) == (
        Operation.N_GET, MPPS_RETRIEVE, "2.25.1", tags,
    )  # fmt: skip


def test_a_cancel_request_names_the_request_it_cancels() -> None:
    body = element(0x0100, b"\xff\x0f") + element(0x0120, b"\x07\x00") + element(0x0800, b"\x01\x01")
    command = read_command(element(0, struct.pack("<I", len(body))) + body)
    assert (command.field, command.responds_to, command.has_dataset) == (Operation.C_CANCEL, 7, False)


def test_a_command_set_without_group_length_and_with_unknown_elements_is_read() -> None:
    encoded = command_set(Operation.C_FIND, others=element(0x0850, b"legacy"))[12:]
    assert read_command(encoded).sop_class_uid == MODALITY_WORKLIST


def test_every_small_enough_fragmentation_gives_the_same_message() -> None:
    dataset = bytes(range(256)) * 4
    message = request(C_FIND, C_FIND_RQ, dataset, MessageID=7, AffectedSOPClassUID=MODALITY_WORKLIST, Priority=2)
    whole = assembled(pdvs_of(message))
    for max_length in (8, 13, 64, 1000):
        assert assembled(pdvs_of(message, max_length)) == whole


def test_two_messages_in_a_row_are_told_apart() -> None:
    assembler = MessageAssembler({1}, DATASET_BYTES_MAX, ByteBudget(0))
    echo = command_set(Operation.C_ECHO, has_dataset=False)
    assert assembler.receive(PDV(1, True, True, echo)) is not None
    assert assembler.receive(PDV(1, True, True, command_set(Operation.C_FIND))) is None
    message = assembler.receive(PDV(1, False, True, b"keys"))
    assert message is not None
    assert message.dataset == b"keys"


COMMAND_PDV = PDV(1, True, True, command_set(Operation.C_FIND))


@pytest.mark.parametrize(
    "pdvs",
    [
        [PDV(3, True, True, command_set(Operation.C_ECHO))],  # a context that was not accepted
        [PDV(1, False, True, b"data before any command")],
        [COMMAND_PDV, COMMAND_PDV],
        [PDV(1, True, False, b"half a command"), PDV(1, False, True, b"data")],
        [COMMAND_PDV, PDV(5, False, True, b"data in another context")],
        [PDV(1, True, False, b"\0" * COMMAND_BYTES_MAX), PDV(1, True, False, b"\0")],
        [COMMAND_PDV, PDV(1, False, False, b"\0" * DATASET_BYTES_MAX), PDV(1, False, True, b"\0")],
    ],
)
def test_fragments_that_are_out_of_order_or_too_many_are_a_violation(pdvs: list[PDV]) -> None:
    assembler = MessageAssembler({1, 5}, DATASET_BYTES_MAX, ByteBudget(0))
    for pdv in pdvs[:-1]:
        assert assembler.receive(pdv) is None
    with pytest.raises(DIMSEViolation):
        assembler.receive(pdvs[-1])


def test_large_data_sets_share_one_budget_and_small_ones_need_none() -> None:
    budget = ByteBudget(100_000)
    large, other, small = (MessageAssembler({1}, 1_000_000, budget) for _ in range(3))
    for assembler in (large, other, small):
        assert assembler.receive(COMMAND_PDV) is None
    for _ in range(10):
        assert large.receive(PDV(1, False, False, b"\0" * 10_000)) is None
    assert budget.held == 100_000 - SMALL_DATASET_BYTES
    assert other.receive(PDV(1, False, False, b"\0" * 32_768)) is None
    assert budget.held == 100_000
    with pytest.raises(DIMSEViolation):
        other.receive(PDV(1, False, False, b"\0"))
    assert small.receive(PDV(1, False, False, b"\0" * SMALL_DATASET_BYTES)) is None
    assert small.receive(PDV(1, False, True, b"")) is not None
    assert large.receive(PDV(1, False, True, b"end")) is not None
    assert budget.held == 16_384
    other.drop()
    assert budget.held == 0
    assert not any(assembler.is_receiving for assembler in (large, other, small))


@pytest.mark.parametrize(
    "encoded",
    [
        b"",
        b"\0" * 7,
        element(0x0100, b"\x20\x00"),  # no Command Data Set Type
        element(0x0800, b"\x01\x01"),  # no Command Field
        command_set(Operation.C_FIND, message_id=None),
        command_set(Operation.C_FIND)[:-1],
        element(0x0100, b"\x20\x00\x00\x00") + element(0x0800, b"\x01\x01"),
        struct.pack("<HHI", 0x0008, 0x0005, 0),
        struct.pack("<HHI", 0, 0x0100, 0xFFFFFFFF),
    ],
)
def test_a_command_set_that_cannot_be_understood_is_a_violation(encoded: bytes) -> None:
    with pytest.raises(DIMSEViolation):
        read_command(encoded)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=80) | st.binary(max_size=12).map(lambda junk: command_set(Operation.N_SET, others=junk)))
def test_any_bytes_are_a_command_or_a_violation(encoded: bytes) -> None:
    with contextlib.suppress(DIMSEViolation):
        assert read_command(encoded).field >= 0


# What a context can serve


@pytest.mark.parametrize(
    ("operation", "abstract_syntax", "sop_class", "status"),
    [
        (Operation.C_FIND, MODALITY_WORKLIST, MODALITY_WORKLIST, None),
        (Operation.C_FIND, MODALITY_WORKLIST, "", None),
        (Operation.C_FIND, MODALITY_WORKLIST, "1.2.840.10008.5.1.4.1.2.2.1", 0x0122),
        (Operation.C_FIND, VERIFICATION, MODALITY_WORKLIST, 0x0122),
        (Operation.C_ECHO, VERIFICATION, VERIFICATION, None),
        (Operation.C_ECHO, MODALITY_WORKLIST, VERIFICATION, None),
        (Operation.N_CREATE, MPPS, MPPS, None),
        (Operation.N_SET, MPPS, MPPS, None),
        (Operation.N_CREATE, MODALITY_WORKLIST, MPPS, 0x0118),
        (Operation.N_SET, MPPS, MPPS_RETRIEVE, 0x0119),
        (Operation.N_SET, MPPS, "1.2.840.10008.3.1.2.3.5", 0x0118),
        (Operation.N_SET, MPPS, "1.2.3", 0x0118),
        (Operation.N_GET, MPPS, MPPS, 0x0211),
        (Operation.N_GET, MPPS_RETRIEVE, MPPS_RETRIEVE, None),
        (Operation.N_GET, MPPS_RETRIEVE, "", None),
        (Operation.N_GET, MPPS_RETRIEVE, MPPS, 0x0119),
        (Operation.N_GET, MPPS_RETRIEVE, "1.2.3", 0x0118),
        (Operation.N_SET, MPPS_RETRIEVE, MPPS_RETRIEVE, 0x0211),
        (Operation.N_CREATE, INSTANCE_AVAILABILITY, INSTANCE_AVAILABILITY, None),
        (Operation.N_CREATE, MPPS, INSTANCE_AVAILABILITY, 0x0118),
        (Operation.N_SET, INSTANCE_AVAILABILITY, INSTANCE_AVAILABILITY, 0x0211),
        (Operation.N_CREATE, MPPS_RETRIEVE, "", 0x0211),
        (Operation.N_EVENT_REPORT, MPPS, MPPS, 0x0211),
        (Operation.N_ACTION, MPPS, MPPS, 0x0211),
        (Operation.N_DELETE, MPPS, MPPS, 0x0211),
        (Operation.C_STORE, VERIFICATION, "1.2.840.10008.5.1.4.1.1.2", 0x0211),
        (0x1234, MPPS, MPPS, 0x0211),
    ],
)
def test_a_request_that_the_context_cannot_serve_has_its_status(
    operation: int, abstract_syntax: str, sop_class: str, status: int | None
) -> None:
    assert refusal_of(Command(operation, 1, False, sop_class), abstract_syntax) == status


@pytest.mark.parametrize(("length", "status"), [(0, None), (4, None), (8, None), (1, 0x0212), (6, 0x0212)])
def test_an_attribute_list_that_holds_no_whole_tags_is_a_mistyped_argument(length: int, status: int | None) -> None:
    command = Command(Operation.N_GET, 1, False, MPPS_RETRIEVE, "1.2.3", attribute_list=bytes(length))
    assert refusal_of(command, MPPS_RETRIEVE) == status
    if status is not None:
        with pytest.raises(ValueError, match="no list of tags"):
            _ = command.attribute_tags


# Writing


def test_an_echo_response_is_what_pynetdicom_reads() -> None:
    message = Message(1, Command(Operation.C_ECHO, 65_535, False, VERIFICATION), None)
    command, _ = response(C_ECHO_RSP, simple_response(message, Status.SUCCESS, 0))
    assert command.AffectedSOPClassUID == VERIFICATION
    assert command.MessageIDBeingRespondedTo == 65_535
    assert (command.Status, command.CommandDataSetType) == (0, 0x0101)


@pytest.mark.parametrize("status", [0x0118, 0x0119, 0x0122, 0x0210, 0x0211, 0x0212, 0x0213])
def test_a_refusal_says_why_in_an_error_comment(status: int) -> None:
    command, _ = response(N_CREATE_RSP, simple_response(CREATE, status, 0))
    assert command.Status == status
    assert 0 < len(command.ErrorComment) <= 64


@pytest.mark.parametrize("max_length", [0, 8, 50, 16_382])
@pytest.mark.parametrize("status", [Status.PENDING, Status.PENDING_WITH_WARNING])
def test_a_pending_response_carries_its_identifier(status: Status, max_length: int) -> None:
    identifier = bytes(range(256)) * 5
    command, dataset = response(C_FIND_RSP, FindResponder(FIND, max_length).pending(identifier, status))
    assert (command.Status, command.MessageIDBeingRespondedTo) == (status, 7)
    assert command.AffectedSOPClassUID == MODALITY_WORKLIST
    assert command.CommandDataSetType != 0x0101
    assert dataset == identifier


@pytest.mark.parametrize("status", [Status.PENDING, Status.PENDING_WITH_WARNING])
def test_answers_kept_together_are_what_they_are_one_by_one_whoever_asks(status: Status) -> None:
    identifiers = [bytes([number]) * number for number in range(1, 60, 7)]
    kept = FindAnswers(status, identifiers)
    asked = [
        (Message(context_id, Command(Operation.C_FIND, message_id, True, MODALITY_WORKLIST), b""), max_length)
        for context_id in (1, 3)
        for message_id in (1, 2, 65_535)
        for max_length in (0, 30, 16_382)
    ]
    for message, max_length in asked * 2:
        responder = FindResponder(message, max_length)
        one_by_one = b"".join(responder.pending(identifier, status) for identifier in identifiers)
        assert responder.several(kept) == one_by_one


def test_the_final_response_names_offending_elements_and_has_no_identifier() -> None:
    answer = FindAnswer(0xA900, comment="two items", offending=(0x00400100, 0x00400002))
    command, dataset = response(C_FIND_RSP, FindResponder(FIND, 0).final(answer))
    assert (command.Status, command.CommandDataSetType, dataset) == (0xA900, 0x0101, b"")
    assert command.ErrorComment == "two items"
    assert list(command.OffendingElement) == [Tag(0x00400100), Tag(0x00400002)]


def test_a_create_response_carries_every_optional_field() -> None:
    answer = NAnswer(0x0107, "ignored attributes", None, (0x00100010, 0x00400253), b"\x01\x02")
    command, dataset = response(N_CREATE_RSP, n_response(CREATE, answer, 0))
    assert (command.Status, command.MessageIDBeingRespondedTo) == (0x0107, 9)
    assert (command.AffectedSOPClassUID, command.AffectedSOPInstanceUID) == (MPPS, "1.2.3")
    assert list(command.AttributeIdentifierList) == [Tag(0x00100010), Tag(0x00400253)]
    assert dataset == b"\x01\x02"


def test_a_set_on_a_closed_step_carries_its_error_id() -> None:
    answer = NAnswer(0x0110, "Performed Procedure Step Object may no longer be updated", 0xA710)
    command, _ = response(N_SET_RSP, n_response(SET, answer, 16_382))
    assert (command.Status, command.ErrorID, command.CommandDataSetType) == (0x0110, 0xA710, 0x0101)
    assert command.ErrorComment == "Performed Procedure Step Object may no longer be updated"
    assert "AttributeIdentifierList" not in command


def test_a_get_response_carries_the_attributes_and_those_that_are_none() -> None:
    got = Message(5, Command(Operation.N_GET, 11, False, MPPS_RETRIEVE, "1.2.3"), None)
    answer = NAnswer(0x0107, "not ours", None, (0x0020000E,), b"\x01\x02")
    command, dataset = response(N_GET_RSP, n_response(got, answer, 50))
    assert (command.Status, command.AffectedSOPClassUID, command.AffectedSOPInstanceUID) == (
        0x0107, MPPS_RETRIEVE, "1.2.3",
    )  # fmt: skip
    assert command.AttributeIdentifierList == Tag(0x0020000E)
    assert dataset == b"\x01\x02"


def test_an_instance_that_we_named_is_told_to_the_peer() -> None:
    command, _ = response(N_CREATE_RSP, n_response(CREATE, NAnswer(0, sop_instance_uid="2.25.1"), 0))
    assert command.AffectedSOPInstanceUID == "2.25.1"


def test_the_group_length_counts_what_follows_it() -> None:
    pdus = n_response(SET, NAnswer(0x0110, "odd", 0xA710), 0)
    encoded = pdus[12:]
    assert decode(io.BytesIO(encoded), True, True).CommandGroupLength == len(encoded) - 12


@given(st.text(max_size=100))
def test_an_error_comment_is_a_valid_lo_whatever_the_text(text: str) -> None:
    comment = error_comment(text)
    assert len(comment) <= 64
    assert all(0x20 <= byte < 0x7F and byte != 0x5C for byte in comment)
