"""AE titles that are no names but ways to files: they name a caller or a worklist, and never anything on the disk."""

from pathlib import Path

import pytest
from edges.dimse_peers import RudePeer, request_pdu
from field_department import ROOM
from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.sop_class import ModalityWorklistInformationFind

from gateway.testing import ServiceProcess, worklist_identifier

TIMEOUT_S = 20


def files(service: ServiceProcess) -> set[Path]:
    """What lies in the site's folder and beside it, but for the parts of the database that come and go."""
    return {path for path in service.config.parent.parent.rglob("*") if not path.name.startswith("gateway.db")}


@pytest.mark.parametrize("title", ["../../etc/passwd", "..", "/", "/etc", "C:", "%2e%2e%2f", "a/../../b", "~", "$(id)"])
def test_a_title_with_path_characters_is_a_name_like_any_other(service: ServiceProcess, title: str) -> None:
    before = files(service)
    ae = AE(title)
    ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = TIMEOUT_S
    ae.add_requested_context(ModalityWorklistInformationFind, ImplicitVRLittleEndian)
    opened = ae.associate(service.host, service.dicom_port, ae_title=title)
    keys = worklist_identifier({"AccessionNumber": ROOM.accession})
    told = [status.Status for status, _ in opened.send_c_find(keys, ModalityWorklistInformationFind)]
    opened.release()
    assert told == [0xFF00, 0x0000]
    assert files(service) == before


ACCEPTED, ABORTED = b"\x02", b"\x07"


@pytest.mark.parametrize(
    ("title", "answered"),
    [
        (b"..\\..\\WINDOWS", ABORTED),
        (b"..\n/etc", ABORTED),
        (b"\xff\xfe/", ABORTED),
        (b"\x1b$B/", ABORTED),
        (b"a\0/../../b", ACCEPTED),  # NUL ends a title, as some devices pad it
    ],
)
def test_a_title_of_characters_that_no_title_has_reaches_no_file_and_breaks_nothing(
    service: ServiceProcess, title: bytes, answered: bytes
) -> None:
    before = files(service)
    request = request_pdu()
    # PS3.8 table 9-11: the called AE title is at 10, the calling one at 26, 16 bytes each.
    with RudePeer(service.dicom_port) as peer:
        peer.send(request[:10] + title.ljust(16) + title.ljust(16) + request[42:])
        assert peer.pdu()[:1] == answered
    assert files(service) == before
    with RudePeer(service.dicom_port) as next_one:
        assert next_one.associate()[:1] == ACCEPTED
