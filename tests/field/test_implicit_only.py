"""An ultrasound console that offers the worklist alone, in Implicit VR alone, by a small PDU."""

from field_department import ROOM
from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.sop_class import ModalityWorklistInformationFind

from gateway.testing import ServiceProcess, worklist_identifier

TIMEOUT_S = 20


def test_a_console_that_offers_nothing_but_the_worklist_in_implicit_vr_is_answered(service: ServiceProcess) -> None:
    ae = AE("MEDISON")
    ae.maximum_pdu_size = 16_000
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = TIMEOUT_S
    ae.add_requested_context(ModalityWorklistInformationFind, ImplicitVRLittleEndian)
    opened = ae.associate(service.host, service.dicom_port, ae_title="SomebodysWL")
    try:
        assert [context.transfer_syntax for context in opened.accepted_contexts] == [[ImplicitVRLittleEndian]]
        keys = worklist_identifier({"ScheduledStationAETitle": "ROOM7"})
        told = list(opened.send_c_find(keys, ModalityWorklistInformationFind))
        assert [status.Status for status, _ in told] == [0xFF00, 0x0000]
        assert told[0][1].AccessionNumber == ROOM.accession
    finally:
        opened.release()
    assert opened.is_released
