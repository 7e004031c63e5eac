"""A pynetdicom modality asks in every way the toolkit can: transfer syntaxes, fragments, cancel, abort, negotiation."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import pytest
from known_orders import KANJI, MANY, MANY_STATION, NAMES_STATION, SHOWN
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.pdu_primitives import MaximumLengthNotification, SOPClassExtendedNegotiation
from pynetdicom.sop_class import ModalityWorklistInformationFind

from gateway.testing import ServiceProcess, worklist_identifier

pytestmark = pytest.mark.interop

SUCCESS, PENDING, CANCEL = 0x0000, 0xFF00, 0xFE00
TIMEOUT_S = 30
SMALL_PDU = 128

EVERYBODY_OF_MANY = {order.accession for order in MANY}


@contextmanager
def association(
    service: ServiceProcess,
    *transfer_syntaxes: str,
    negotiation: bytes = b"",
    received_pdu_bytes_max: int = 16_382,
    sent_pdu_bytes_max: int = 0,
) -> Iterator[Association]:
    """Open for worklist queries, and released at the end unless it has ended already."""
    ae = AE("PYNETDICOM")
    ae.maximum_pdu_size = received_pdu_bytes_max
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = TIMEOUT_S
    ae.add_requested_context(ModalityWorklistInformationFind, list(transfer_syntaxes) or [ImplicitVRLittleEndian])
    offered = []
    if negotiation:
        item = SOPClassExtendedNegotiation()
        item.sop_class_uid = ModalityWorklistInformationFind
        item.service_class_application_information = negotiation
        offered.append(item)
    opened = ae.associate(service.host, service.dicom_port, ae_title="GATEWAY", ext_neg=offered)
    assert opened.is_established
    if sent_pdu_bytes_max:
        for said in opened.acceptor.user_information:
            if isinstance(said, MaximumLengthNotification):
                said.maximum_length_received = sent_pdu_bytes_max  # as if we had said so: it may send less than we take
    try:
        yield opened
    finally:
        if opened.is_established:
            opened.release()


def answers(opened: Association, identifier: Dataset) -> list[Dataset]:
    """Every match of a query that ends with Success."""
    responses = list(opened.send_c_find(identifier, ModalityWorklistInformationFind))
    assert [status.Status for status, _ in responses[:-1]] == [PENDING] * (len(responses) - 1)
    assert responses[-1][0].Status == SUCCESS
    return [answer for _, answer in responses[:-1] if answer is not None]


def names(found: list[Dataset]) -> dict[str, str]:
    return {answer.AccessionNumber: str(answer.PatientName) for answer in found}


def station(ae_title: str) -> Dataset:
    return worklist_identifier({"ScheduledStationAETitle": ae_title})


@pytest.mark.parametrize(
    "syntax",
    [ImplicitVRLittleEndian, ExplicitVRLittleEndian],
    ids=["implicit only", "explicit only"],
)
def test_a_device_with_one_transfer_syntax_is_answered_in_it(service: ServiceProcess, syntax: str) -> None:
    with association(service, syntax) as opened:
        (context,) = opened.accepted_contexts
        assert context.transfer_syntax == [syntax]
        found = answers(opened, station(NAMES_STATION))
    assert names(found) == SHOWN


def test_a_device_with_only_a_transfer_syntax_that_we_lack_gets_no_context(service: ServiceProcess) -> None:
    ae = AE("PYNETDICOM")
    ae.acse_timeout = TIMEOUT_S
    ae.add_requested_context(ModalityWorklistInformationFind, ["1.2.840.10008.1.2.4.50"])  # JPEG
    opened = ae.associate(service.host, service.dicom_port, ae_title="GATEWAY")
    # pynetdicom ends an association in which it can do nothing.
    assert not opened.is_established
    assert [context.result for context in opened.rejected_contexts] == [4]  # transfer syntaxes not supported


def test_of_several_transfer_syntaxes_one_is_taken(service: ServiceProcess) -> None:
    proposed = (DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian)
    with association(service, *proposed) as opened:
        (context,) = opened.accepted_contexts
        assert context.transfer_syntax[0] in proposed
        assert names(answers(opened, station(NAMES_STATION))) == SHOWN


@pytest.mark.parametrize(
    "character_set",
    # Not ISO 2022 IR 58: pydicom 3.0.2 shows its escape sequences as text.
    [["", "ISO 2022 IR 87"], ["ISO 2022 IR 13", "ISO 2022 IR 87"], ["", "ISO 2022 IR 149"]],
    ids=["Japanese", "Japanese with half-width kana", "Korean"],
)
def test_names_are_shown_as_written_to_a_device_that_asks_with_code_extensions(
    service: ServiceProcess, character_set: list[str]
) -> None:
    identifier = station(NAMES_STATION)
    identifier.SpecificCharacterSet = character_set
    with association(service) as opened:
        assert names(answers(opened, identifier)) == SHOWN


def test_requests_and_answers_in_the_smallest_pieces_come_whole(service: ServiceProcess) -> None:
    with association(service, received_pdu_bytes_max=SMALL_PDU, sent_pdu_bytes_max=SMALL_PDU) as opened:
        assert names(answers(opened, station(NAMES_STATION))) == SHOWN
        assert set(names(answers(opened, station(MANY_STATION)))) == EVERYBODY_OF_MANY


def test_a_device_without_a_limit_of_its_pdus_is_answered(service: ServiceProcess) -> None:
    with association(service, received_pdu_bytes_max=0) as opened:
        assert set(names(answers(opened, station(MANY_STATION)))) == EVERYBODY_OF_MANY


def test_many_queries_of_one_association_are_answered_in_order(service: ServiceProcess) -> None:
    with association(service) as opened:
        for _ in range(5):
            assert names(answers(opened, station(NAMES_STATION))) == SHOWN
            assert answers(opened, station("NOBODY")) == []


def test_after_a_cancel_the_association_serves_on(service: ServiceProcess) -> None:
    with association(service) as opened:
        responses = opened.send_c_find(station(MANY_STATION), ModalityWorklistInformationFind, msg_id=7)
        first, _ = next(responses)
        assert first.Status == PENDING
        opened.send_c_cancel(7, query_model=ModalityWorklistInformationFind)
        rest = [status.Status for status, _ in responses]
        # Whether the cancel overtakes the rest of the answers is the network's to say (PS3.4 C.4.1.3).
        assert rest[-1] in (CANCEL, SUCCESS)
        assert set(rest[:-1]) <= {PENDING}
        assert len(rest) <= len(MANY)
        assert names(answers(opened, station(NAMES_STATION))) == SHOWN


def test_a_cancel_of_nothing_is_ignored(service: ServiceProcess) -> None:
    with association(service) as opened:
        opened.send_c_cancel(99, query_model=ModalityWorklistInformationFind)
        assert names(answers(opened, station(NAMES_STATION))) == SHOWN


def test_a_device_that_aborts_in_the_middle_of_its_answer_disturbs_nobody(service: ServiceProcess) -> None:
    with association(service) as other:
        with association(service, received_pdu_bytes_max=SMALL_PDU) as opened:
            responses = opened.send_c_find(station(MANY_STATION), ModalityWorklistInformationFind)
            assert next(responses)[0].Status == PENDING
            opened.abort()
        assert set(names(answers(other, station(MANY_STATION)))) == EVERYBODY_OF_MANY


def negotiated(opened: Association) -> bytes | None:
    """What was answered to the extended negotiation; None where it was not."""
    answer = opened.acceptor.sop_class_extended.get(ModalityWorklistInformationFind)
    return bytes(answer) if answer is not None else None


@pytest.mark.parametrize(
    "offered",
    [b"\x01\x01\x01\x01", b"\x01\x01\x01", b"\x01\x01\x00\x00"],
    ids=["all four", "three bytes", "neither names nor time zones"],
)
def test_fuzzy_names_and_time_zones_are_agreed_to_where_they_are_asked_for(
    service: ServiceProcess, offered: bytes
) -> None:
    with association(service, negotiation=offered) as opened:
        assert negotiated(opened) == offered
        assert names(answers(opened, station(NAMES_STATION))) == SHOWN


def test_who_negotiates_nothing_is_answered_nothing(service: ServiceProcess) -> None:
    with association(service) as opened:
        assert negotiated(opened) is None


def test_a_name_as_it_sounds_is_found_only_where_that_was_negotiated(service: ServiceProcess) -> None:
    as_heard = worklist_identifier({"PatientName": "Suzuky^Hannako"})
    with association(service) as opened:
        assert answers(opened, as_heard) == []
    with association(service, negotiation=b"\x01\x01\x01") as opened:
        assert names(answers(opened, as_heard)) == {KANJI.accession: SHOWN[KANJI.accession]}


def test_times_are_those_of_the_devices_zone_where_that_was_negotiated(service: ServiceProcess) -> None:
    # Ten in the morning in Berlin is five in the afternoon in Tokyo.
    tokyo = worklist_identifier(
        {
            "ScheduledStationAETitle": NAMES_STATION,
            "ScheduledProcedureStepStartDate": f"{KANJI.start:%Y%m%d}",
            "ScheduledProcedureStepStartTime": "1630-1730",
        }
    )
    tokyo.TimezoneOffsetFromUTC = "+0900"
    with association(service, negotiation=b"\x01\x01\x00\x01") as opened:
        (answer,) = answers(opened, tokyo)
    assert answer.AccessionNumber == KANJI.accession
    # The answer says its own zone, and so the same instant.
    (step,) = answer.ScheduledProcedureStepSequence
    said = step.ScheduledProcedureStepStartDate + step.ScheduledProcedureStepStartTime + answer.TimezoneOffsetFromUTC
    assert datetime.strptime(said, "%Y%m%d%H%M%S%z") == datetime(2026, 9, 2, 8, 0, tzinfo=UTC)
