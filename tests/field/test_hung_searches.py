"""Searches that spin, and associations that end in an abort: what follows the final Success, and late cancels."""

from collections.abc import Iterator
from contextlib import contextmanager

from field_department import MANY
from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.sop_class import ModalityWorklistInformationFind, Verification

from gateway.testing import ServiceProcess, worklist_identifier

TIMEOUT_S = 20
KEYS = worklist_identifier({"ScheduledStationAETitle": "MANY"})
WHOLE = [0xFF00] * len(MANY) + [0x0000]


@contextmanager
def console(service: ServiceProcess) -> Iterator[tuple[Association, list[str]]]:
    """An association, and the aborts that came in it."""
    done: list[str] = []
    ae = AE("AGFA")
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = TIMEOUT_S
    ae.add_requested_context(ModalityWorklistInformationFind, ImplicitVRLittleEndian)
    ae.add_requested_context(Verification, ImplicitVRLittleEndian)
    opened = ae.associate(
        service.host,
        service.dicom_port,
        evt_handlers=[(evt.EVT_ABORTED, lambda event: done.append("aborted"))],
    )
    assert opened.is_established
    yield opened, done
    if opened.is_established:
        opened.release()


def search(opened: Association, message_id: int) -> list[int]:
    return [status.Status for status, _ in opened.send_c_find(KEYS, ModalityWorklistInformationFind, message_id)]


def test_after_the_final_success_the_console_alone_ends_the_association(service: ServiceProcess) -> None:
    with console(service) as (opened, done):
        assert search(opened, 1) == WHOLE
        assert opened.send_c_echo().Status == 0x0000
        assert search(opened, 2) == WHOLE
        opened.release()
        assert opened.is_released
    assert done == []


def test_a_cancel_that_comes_after_the_last_answer_spoils_no_later_search(service: ServiceProcess) -> None:
    with console(service) as (opened, done):
        for message_id in (1, 2, 3):
            assert search(opened, message_id) == WHOLE
            opened.send_c_cancel(message_id, None, ModalityWorklistInformationFind)
        assert search(opened, 1) == WHOLE
    assert done == []
