"""DICOM JSON Model to and from dataset bytes: round trips, what devices get wrong, and pydicom as the other reader."""

import struct
import warnings
from io import BytesIO
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset
from pydicom.sequence import Sequence

from gateway.domain.attributes import Attributes
from gateway.domain.refusal import RefusalKind, Refused
from gateway.wire.charsets import UNICODE
from gateway.wire.dicom_json import (
    DEPTH_MAX,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    attributes_from_dataset,
    dataset_from_attributes,
    decode_element,
    keyword_of,
    read_attributes,
    read_dataset_bytes,
    value_bytes,
    write_attributes,
)

SYNTAXES = [IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN]
NAME = {"Alphabetic": "Yamada^Tarou", "Ideographic": "山田^太郎", "Phonetic": "やまだ^たろう"}
EVERYTHING: Attributes = {
    "00081110": {"vr": "SQ"},
    "00081120": {"vr": "SQ", "Value": [{}]},
    "00090010": {"vr": "LO", "Value": ["ACME"]},
    "00091001": {"vr": "UN", "InlineBinary": "AAECAw=="},
    "00100010": {"vr": "PN", "Value": [NAME]},
    "00100020": {"vr": "LO", "Value": ["102"]},
    "00100030": {"vr": "DA"},
    "00101001": {"vr": "PN", "Value": [{"Alphabetic": "A^B"}, None, {"Ideographic": "山田"}]},
    "00101030": {"vr": "DS", "Value": ["70.50"]},
    "001021B0": {"vr": "LT", "Value": ["a\\b\r\nc"]},
    "001021C0": {"vr": "US", "Value": [4]},
    "0020000D": {"vr": "UI", "Value": ["1.2.3"]},
    "00209165": {"vr": "AT", "Value": ["00100010", "00100020"]},
    "00400100": {
        "vr": "SQ",
        "Value": [
            {
                "00400001": {"vr": "AE", "Value": ["MR1", "MR2"]},
                "00400008": {"vr": "SQ", "Value": [{"00080100": {"vr": "SH", "Value": ["X"]}}]},
            }
        ],
    },
    "00720074": {"vr": "FD", "Value": [1.5, -2.0]},
}


@pytest.mark.parametrize("syntax", SYNTAXES)
@pytest.mark.parametrize("terms", [UNICODE, ("", "ISO 2022 IR 87")])
def test_round_trip(syntax: str, terms: tuple[str, ...]) -> None:
    read = read_dataset_bytes(write_attributes(EVERYTHING, syntax, terms), syntax)
    assert read == (EVERYTHING, terms, ())


def test_round_trip_through_pydicom() -> None:
    dataset = dataset_from_attributes(EVERYTHING)
    assert str(dataset.PatientName) == "Yamada^Tarou=山田^太郎=やまだ^たろう"
    assert attributes_from_dataset(dataset) == EVERYTHING


def test_a_dataset_made_in_pydicom() -> None:
    dataset = Dataset()
    dataset.PatientName = "Döring^Max"
    dataset.PatientWeight = "70.5"
    dataset.PregnancyStatus = 4
    dataset.PatientSex = ""
    dataset.MedicalAlerts = ["A", "B"]
    dataset.ReferencedStudySequence = Sequence([])
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.add_new(0x00090010, "LO", "ACME")
    dataset.add_new(0x00091001, "OB", b"\x01\x02")
    assert attributes_from_dataset(dataset) == {
        "00081110": {"vr": "SQ"},
        "00090010": {"vr": "LO", "Value": ["ACME"]},
        "00091001": {"vr": "OB", "InlineBinary": "AQI="},
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": "Döring^Max"}]},
        "00100040": {"vr": "CS"},
        "00101030": {"vr": "DS", "Value": ["70.5"]},
        "00102000": {"vr": "LO", "Value": ["A", "B"]},
        "001021C0": {"vr": "US", "Value": [4]},
    }


def element(tag: int, vr: str, value: bytes) -> bytes:
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr.encode(), len(value)) + value


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (element(0x00100000, "UL", b"\x0c\0\0\0") + element(0x00100020, "LO", b"1 "), {"00100020": ["1"]}),
        (element(0x00080005, "CS", b"") + element(0x00100020, "LO", b"* "), {"00100020": ["*"]}),
        (element(0x00400001, "AE", b" CT1   \0"), {"00400001": ["CT1"]}),
        (struct.pack("<HH2sHI", 0x0010, 0x0020, b"UN", 0, 2) + b"1 ", {"00100020": ["1"]}),
        (element(0x001021C0, "US", b""), {"001021C0": []}),
        (element(0x00100020, "LO", b"\0\0"), {"00100020": []}),
        (element(0x00100020, "LO", b"a\\\\b "), {"00100020": ["a", None, "b"]}),
        (element(0x00100010, "PN", b"^^^^"), {"00100010": []}),
        (element(0x00100020, "LO", b"1 ") + struct.pack("<HH2sHI", 0xFFFC, 0xFFFC, b"OB", 0, 0), {"00100020": ["1"]}),
    ],
)
def test_what_devices_send(data: bytes, expected: dict[str, list[Any]]) -> None:
    attributes, _ = read_attributes(data, EXPLICIT_VR_LITTLE_ENDIAN)
    assert {tag: held.get("Value", []) for tag, held in attributes.items()} == expected


def test_undefined_lengths_and_a_sequence_of_unknown_vr() -> None:
    inside = struct.pack("<HHI", 0x0008, 0x0100, 2) + b"X "
    items = (
        struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
        + inside
        + struct.pack("<HHIHHI", 0xFFFE, 0xE00D, 0, 0xFFFE, 0xE0DD, 0)
    )
    data = struct.pack("<HH2sHI", 0x0032, 0x1064, b"UN", 0, 0xFFFFFFFF) + items + element(0x00400009, "SH", b"S1")
    attributes, _ = read_attributes(data, EXPLICIT_VR_LITTLE_ENDIAN)
    assert attributes["00321064"] == {"vr": "SQ", "Value": [{"00080100": {"vr": "SH", "Value": ["X"]}}]}
    assert attributes["00400009"]["Value"] == ["S1"]


@pytest.mark.parametrize(("sent", "declared"), [SYNTAXES, SYNTAXES[::-1]])
def test_the_wrong_transfer_syntax_is_noticed(sent: str, declared: str) -> None:
    attributes, notes = read_attributes(write_attributes(EVERYTHING, sent, UNICODE), declared)
    assert attributes["00100020"] == EVERYTHING["00100020"]
    assert notes


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_every_truncation_is_refused_or_read_without_a_crash(syntax: str) -> None:
    data = write_attributes(EVERYTHING, syntax, UNICODE)
    for length in range(len(data)):
        try:
            read_attributes(data[:length], syntax)
        except Refused as refused:
            assert refused.refusals[0].kind is RefusalKind.UNREADABLE  # noqa: PT017


def test_the_place_of_a_broken_value_is_named() -> None:
    data = write_attributes(EVERYTHING, EXPLICIT_VR_LITTLE_ENDIAN, UNICODE)
    end = data.index(b"MR2")
    with pytest.raises(Refused) as refused:
        read_attributes(data[:end], EXPLICIT_VR_LITTLE_ENDIAN)
    assert refused.value.refusals[0].where == "(0040,0100)"


def test_endless_nesting_is_refused() -> None:
    data = b""
    for _ in range(DEPTH_MAX + 2):
        item = struct.pack("<HHI", 0xFFFE, 0xE000, len(data)) + data
        data = struct.pack("<HHI", 0x0040, 0x0100, len(item)) + item
    with pytest.raises(Refused):
        read_attributes(data, IMPLICIT_VR_LITTLE_ENDIAN)


@settings(max_examples=300)
@given(st.binary(max_size=80), st.sampled_from(SYNTAXES))
def test_any_bytes_are_read_or_refused(data: bytes, syntax: str) -> None:
    try:
        read_attributes(data, syntax)
    except Refused as refused:
        assert refused.refusals[0].kind is RefusalKind.UNREADABLE  # noqa: PT017


_texts = st.text(st.sampled_from("aé山я ^1"), min_size=1, max_size=6).map(str.strip).filter(bool)
_values: dict[str, st.SearchStrategy[Any]] = {
    "LO": _texts,
    "SH": _texts,
    "PN": _texts.filter(lambda name: name.strip("^")).map(lambda name: {"Alphabetic": name}),
    "LT": _texts,
    "UI": st.sampled_from(["1.2", "1.2.3"]),
    "DA": st.just("20260705"),
    "DS": st.sampled_from(["1", "70.5"]),
    "US": st.integers(0, 65535),
}
_TAGS = {
    "LO": "00100020", "SH": "00080050", "PN": "00100010", "LT": "00104000", "UI": "0020000D", "DA": "00100030",
    "DS": "00101030", "US": "001021C0",
}  # fmt: skip
_flat = st.fixed_dictionaries(
    {},
    optional={
        _TAGS[vr]: st.lists(value, max_size=1).map(
            lambda found, vr=vr: {"vr": vr, **({"Value": found} if found else {})}
        )
        for vr, value in _values.items()
    },
)
_nested = st.tuples(_flat, st.lists(_flat, max_size=2)).map(
    lambda drawn: {**drawn[0], "00321064": {"vr": "SQ", **({"Value": drawn[1]} if drawn[1] else {})}}
)


@settings(max_examples=200, deadline=None)
@given(_nested, st.sampled_from(SYNTAXES))
def test_pydicom_reads_what_is_written_and_writes_the_same(attributes: Attributes, syntax: str) -> None:
    data = write_attributes(attributes, syntax, UNICODE)
    implicit = syntax == IMPLICIT_VR_LITTLE_ENDIAN
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom minds that some invented values are odd
        dataset = read_dataset(BytesIO(data), implicit, True)
        assert attributes_from_dataset(dataset) == attributes
        stream = DicomBytesIO()
        stream.is_implicit_VR, stream.is_little_endian = implicit, True
        write_dataset(stream, dataset)
    assert read_attributes(stream.getvalue(), syntax)[0] == attributes


def test_keywords() -> None:
    assert [keyword_of(tag) for tag in ("00100010", "00181030", "00091001")] == ["PatientName", "ProtocolName", ""]


@pytest.mark.parametrize("images", [10, 250, 6_000, 40_000])
@pytest.mark.parametrize("first", ["ProcedureCodeSequence", "PerformedProcedureStepEndDate", "SpecificCharacterSet"])
def test_an_explicit_dataset_of_any_size_is_read_as_what_it_was_negotiated_as(first, images):
    """The letters of a VR are also a number, which a large dataset is longer than."""
    dataset = Dataset()
    dataset.PerformedProcedureStepStatus = "COMPLETED"
    if first == "ProcedureCodeSequence":
        dataset.ProcedureCodeSequence = []
    elif first == "SpecificCharacterSet":
        dataset.SpecificCharacterSet = "ISO_IR 100"
    else:
        dataset.PerformedProcedureStepEndDate = "20260705"
    dataset.add_new(0x00420011, "OB", b"\0" * images * 100)
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_dataset(buffer, dataset)
    data = buffer.getvalue()
    read = read_dataset_bytes(data, EXPLICIT_VR_LITTLE_ENDIAN)
    assert read.attributes["00400252"]["Value"] == ["COMPLETED"]
    assert read.notes == ()


def test_each_value_of_a_multi_valued_text_begins_in_the_initial_set():
    """PS3.5 6.1.2.5.3: code extensions end at the delimiter of values."""
    held = {"vr": "LO", "Value": ["\ucc9c\uc2dd", "\uc54c\ub808\ub974\uae30"]}
    body = value_bytes("LO", held, ("", "ISO 2022 IR 149"))
    assert all(value.startswith(b"\x1b$)C") for value in body.rstrip().split(b"\\"))
    assert decode_element("LO", body, ("", "ISO 2022 IR 149"))["Value"] == held["Value"]
