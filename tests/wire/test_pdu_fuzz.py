"""Hostile bytes: real PDUs, mutated, never raise, never hang, and never make us hold more than one PDU."""

import random
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pynetdicom.pdu import A_ASSOCIATE_RQ, A_RELEASE_RQ
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    AsynchronousOperationsWindowNegotiation,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
    SOPClassCommonExtendedNegotiation,
    SOPClassExtendedNegotiation,
    UserIdentityNegotiation,
)
from pynetdicom.presentation import build_context

from gateway.wire.dimse import ByteBudget, DIMSEViolation, MessageAssembler
from gateway.wire.upper_layer import (
    MODALITY_WORKLIST,
    MPPS,
    TRANSFER_SYNTAXES,
    VERIFICATION,
    Aborted,
    Acceptor,
    AssociationRequested,
    DataReceived,
    SendBytes,
    data_pdus,
)

PDU_BYTES_MAX = 4096
DATASET_BYTES_MAX = 8192


def _rich_request() -> bytes:
    """An A-ASSOCIATE-RQ with every user item there is."""
    primitive = A_ASSOCIATE()
    primitive.application_context_name = "1.2.840.10008.3.1.1.1"
    primitive.calling_ae_title, primitive.called_ae_title = "CT1", "GATEWAY"
    contexts = []
    for index, sop_class in enumerate((VERIFICATION, MODALITY_WORKLIST, MPPS)):
        context = build_context(sop_class, list(TRANSFER_SYNTAXES))
        context.context_id = 2 * index + 1
        contexts.append(context)
    primitive.presentation_context_definition_list = contexts
    length = MaximumLengthNotification()
    length.maximum_length_received = 16_382
    implementation = ImplementationClassUIDNotification()
    implementation.implementation_class_uid = "1.2.826.0.1"
    version = ImplementationVersionNameNotification()
    version.implementation_version_name = "SCANNER_7"
    window = AsynchronousOperationsWindowNegotiation()
    window.maximum_number_operations_invoked = 5
    role = SCP_SCU_RoleSelectionNegotiation()
    role.sop_class_uid, role.scu_role, role.scp_role = MPPS, True, False
    extended = SOPClassExtendedNegotiation()
    extended.sop_class_uid = MODALITY_WORKLIST
    extended.service_class_application_information = b"\1\1\1\1"
    common = SOPClassCommonExtendedNegotiation()
    common.sop_class_uid, common.service_class_uid = MPPS, "1.2.3"
    common.related_general_sop_class_identification = ["1.2.3.4"]
    identity = UserIdentityNegotiation()
    identity.user_identity_type, identity.primary_field, identity.secondary_field = 2, b"someone", b"secret"
    primitive.user_information = [length, implementation, version, window, role, extended, common, identity]
    return A_ASSOCIATE_RQ(primitive).encode()


def _element(tag: int, value: bytes) -> bytes:
    return struct.pack("<HHI", 0, tag, len(value)) + value


_BODY = (
    _element(0x0002, MODALITY_WORKLIST.encode())
    + _element(0x0100, b"\x20\x00")
    + _element(0x0110, b"\x07\x00")
    + _element(0x0700, b"\x00\x00")
    + _element(0x0800, b"\x01\x00")
)
COMMAND = _element(0, struct.pack("<I", len(_BODY))) + _BODY
PDUS = (
    _rich_request(),
    data_pdus(3, COMMAND, is_command=True, max_length=0)
    + data_pdus(3, b"identifier" * 10, is_command=False, max_length=40),
    A_RELEASE_RQ().encode(),
)


def serve(chunks: list[bytes]) -> Acceptor:
    """A peer's bytes through the whole wire layer, as the server does it."""
    acceptor = Acceptor(PDU_BYTES_MAX)
    acceptor.connection_opened()
    assembler: MessageAssembler | None = None
    sent = 0
    for chunk in chunks:
        for output in acceptor.receive_data(chunk):
            match output:
                case AssociationRequested(request):
                    assembler = MessageAssembler(request.contexts, DATASET_BYTES_MAX, ByteBudget(DATASET_BYTES_MAX))
                    acceptor.accept()
                case DataReceived(pdvs) if assembler is not None:
                    try:
                        for pdv in pdvs:
                            assembler.receive(pdv)
                    except DIMSEViolation:
                        acceptor.abort()
                case SendBytes(data):
                    sent += len(data)
                case Aborted():
                    assembler = None
        assert len(acceptor._buffer) <= 131_072 + 6 + len(chunk)
    acceptor.connection_closed()
    return acceptor


def mutated(pdu: bytes, randomness: random.Random) -> bytes:
    """One of the ways in which PDUs go wrong."""
    data = bytearray(pdu)
    for _ in range(randomness.randint(1, 4)):
        place = randomness.randrange(len(data))
        match randomness.randrange(6):
            case 0:
                data[place] = randomness.randrange(256)
            case 1:
                data[place] ^= 1 << randomness.randrange(8)
            case 2:
                del data[place : place + randomness.randint(1, 8)]
            case 3:
                data[place:place] = randomness.randbytes(randomness.randint(1, 8))
            case 4:
                data[place : place + 2] = randomness.choice((b"\xff\xff", b"\0\0", b"\x7f\xff"))
            case _:
                data[place:] = data[place:] * 2
        if not data:
            data = bytearray(b"\0")
    if randomness.random() < 0.7 and len(data) >= 6:
        # Mend the PDU length, so that the decoders see the damage and not only the framing.
        struct.pack_into(">I", data, 2, len(data) - 6)
    return bytes(data)


@pytest.mark.parametrize("seed", range(8))
def test_mutated_pdus_are_survived(seed: int) -> None:
    randomness = random.Random(seed)
    for _ in range(250):
        pdus = list(PDUS)
        which = randomness.randrange(len(pdus))
        pdus[which] = mutated(pdus[which], randomness)
        serve(pdus)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=400), st.sampled_from([1, 2, 3, 4, 5, 6, 7]))
def test_garbage_behind_any_header_is_survived(body: bytes, pdu_type: int) -> None:
    garbage = struct.pack(">BxI", pdu_type, len(body)) + body
    serve([garbage])
    serve([PDUS[0], garbage])
    serve([*PDUS, garbage])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=200), max_size=20))
def test_plain_garbage_is_survived(chunks: list[bytes]) -> None:
    serve(chunks)


def test_a_pdu_that_never_ends_is_never_held() -> None:
    acceptor = Acceptor(PDU_BYTES_MAX)
    acceptor.connection_opened()
    acceptor.receive_data(PDUS[0])
    acceptor.accept()
    acceptor.receive_data(b"\x04\x00\xff\xff\xff\xff")
    for _ in range(1000):
        acceptor.receive_data(b"\0" * 1000)
    assert not acceptor._buffer


def test_mutated_pdus_make_no_difference_byte_by_byte() -> None:
    randomness = random.Random(11)
    for _ in range(40):
        pdu = mutated(PDUS[0], randomness)
        whole, slow = Acceptor(PDU_BYTES_MAX), Acceptor(PDU_BYTES_MAX)
        whole.connection_opened()
        slow.connection_opened()
        at_once = whole.receive_data(pdu)
        one_by_one = [output for byte in pdu for output in slow.receive_data(bytes([byte]))]
        assert at_once == one_by_one
