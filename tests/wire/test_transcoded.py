"""A dataset in the other transfer syntax has the same values, byte for byte, whatever they are."""

import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.dsutils import encode

from gateway.domain.refusal import Refused
from gateway.wire.dicom_json import element_bytes, transcoded

EXPLICIT, IMPLICIT = str(ExplicitVRLittleEndian), str(ImplicitVRLittleEndian)


def nested() -> Dataset:
    code, series, step = Dataset(), Dataset(), Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "110513", "DCM", "Discontinued"
    series.SeriesInstanceUID = "2.25.1"
    series.ReferencedImageSequence = []
    step.SpecificCharacterSet = "ISO_IR 100"
    step.PatientName = "Bergström^Björn"
    step.EntranceDoseInmGy = "1.50"
    step.DistanceSourceToDetector = None
    step.ExposedArea = [10, 20]
    step.PerformedSeriesSequence = Sequence([series, series])
    step.PerformedProcedureStepDiscontinuationReasonCodeSequence = Sequence([code])
    step.add_new(0x00091001, "UN", b"private!")
    return step


def in_(transfer_syntax: str) -> bytes:
    return encode(nested(), transfer_syntax == IMPLICIT, True) or b""


@pytest.mark.parametrize(("given", "into"), [(EXPLICIT, IMPLICIT), (IMPLICIT, EXPLICIT), (EXPLICIT, EXPLICIT)])
def test_it_is_what_pydicom_writes(given: str, into: str) -> None:
    assert transcoded(in_(given), given, into) == in_(into)


@pytest.mark.parametrize(
    "value", [b"\xff\xfe\x81\x82", b"A\\\\B ", b" leading ", b"trailing  ", b"1.5 or so ", b"\x1b$B\x3b\x33\x1b(B"]
)
@pytest.mark.parametrize(("tag", "vr"), [("00100010", "PN"), ("00400280", "ST"), ("00201206", "IS")])
def test_text_that_cannot_be_read_is_kept_as_it_is(value: bytes, tag: str, vr: str) -> None:
    explicit, implicit = element_bytes(tag, vr, value, True), element_bytes(tag, vr, value, False)
    assert transcoded(explicit, EXPLICIT, IMPLICIT) == implicit
    assert transcoded(implicit, IMPLICIT, EXPLICIT) == explicit


def test_sequences_without_a_length_get_one() -> None:
    item = element_bytes("0020000E", "UI", b"2.25.1", True)
    open_ended = (
        b"\x40\x00\x40\x03SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff" + item
        + b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0"
    )  # fmt: skip
    inside = element_bytes("0020000E", "UI", b"2.25.1", False)
    wrapped = b"\xfe\xff\x00\xe0" + len(inside).to_bytes(4, "little") + inside
    assert transcoded(open_ended, EXPLICIT, IMPLICIT) == element_bytes("00400340", "SQ", wrapped, False)


def test_what_is_no_dataset_is_refused_with_its_place() -> None:
    with pytest.raises(Refused) as refused:
        transcoded(in_(EXPLICIT)[:-3], EXPLICIT, IMPLICIT)
    assert refused.value.refusals[0].where
