"""A console whose ping reports failure: C-ECHO alone, beside the worklist and MPPS, and beside what is not served."""

import pytest
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.sop_class import (
    ModalityPerformedProcedureStep,
    ModalityWorklistInformationFind,
    UltrasoundImageStorage,
    Verification,
)

from gateway.testing import ServiceProcess

TIMEOUT_S = 20


@pytest.mark.parametrize(
    "offered",
    [
        [Verification],
        [Verification, ModalityWorklistInformationFind, ModalityPerformedProcedureStep],
        [UltrasoundImageStorage, Verification],
    ],
    ids=["alone", "with the worklist and MPPS", "beside what is not served"],
)
@pytest.mark.parametrize("syntaxes", [[ImplicitVRLittleEndian], [ExplicitVRLittleEndian, ImplicitVRLittleEndian]])
def test_a_ping_is_answered_whatever_is_offered_beside_it(
    service: ServiceProcess, offered: list[str], syntaxes: list[str]
) -> None:
    ae = AE("LOGIQ")
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = TIMEOUT_S
    for sop_class in offered:
        ae.add_requested_context(sop_class, syntaxes)
    opened = ae.associate(service.host, service.dicom_port, ae_title="GATEWAY")
    try:
        assert opened.send_c_echo().Status == 0x0000
    finally:
        opened.release()
