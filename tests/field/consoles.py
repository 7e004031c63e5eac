"""Asking as consoles do: identifiers as bytes, since a library would write them right.

Everything is in Implicit VR Little Endian where nothing else is said, as most consoles speak it.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO

from cases.worklist.datasets import decode as decode_with_suite
from pydicom.dataset import Dataset
from pynetdicom.dsutils import decode

IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
UNDEFINED = 0xFFFFFFFF

CHARACTER_SET, ACCESSION, MODALITY, NAME, PATIENT_ID = 0x00080005, 0x00080050, 0x00080060, 0x00100010, 0x00100020
STUDY, STEP, STATION, DAY, TIME = 0x0020000D, 0x00400100, 0x00400001, 0x00400002, 0x00400003


def key(tag: int, value: bytes | str = b"") -> bytes:
    """An element, of whatever length its value has."""
    said = value.encode("ascii") if isinstance(value, str) else value
    return struct.pack("<HHI", tag >> 16, tag & 0xFFFF, len(said)) + said


def explicit_key(tag: int, vr: str, value: bytes | str = b"") -> bytes:
    """The same in Explicit VR Little Endian."""
    said = value.encode("ascii") if isinstance(value, str) else value
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr.encode())
    length = struct.pack("<HI", 0, len(said)) if vr in ("SQ", "UN") else struct.pack("<H", len(said))
    return head + length + said


def item(*keys: bytes) -> bytes:
    """An item of defined length."""
    body = b"".join(keys)
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(body)) + body


def open_sequence(tag: int, *items: bytes) -> bytes:
    """A sequence of undefined length."""
    return (
        struct.pack("<HHI", tag >> 16, tag & 0xFFFF, UNDEFINED)
        + b"".join(items)
        + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    )


def step(*keys: bytes) -> bytes:
    """The Scheduled Procedure Step Sequence with these keys in its item."""
    return key(STEP, item(*keys))


def of_station(ae_title: str, *more: bytes) -> bytes:
    """Accession number, name and study of everything at a station."""
    return key(ACCESSION) + key(NAME) + key(STUDY) + step(key(STATION, ae_title), *more)


@dataclass(frozen=True)
class Answer:
    """What came back: matches with their statuses, the final status, and what Offending Element names."""

    items: tuple[Dataset, ...]
    pending: tuple[str, ...]
    status: str
    offending: tuple[int, ...]
    raw: tuple[bytes, ...]

    @property
    def accessions(self) -> set[str]:
        return {str(found.AccessionNumber) for found in self.items}

    @property
    def names(self) -> dict[str, str]:
        """By accession number; read by the conformance suite, since pydicom lacks some sets and counts bytes."""
        found = (decode_with_suite(raw, explicit=False) for raw in self.raw)
        return {each[ACCESSION].values[0].strip(): "\\".join(each[NAME].values).strip() for each in found}


Ask = Callable[..., Answer]


def read(data: bytes, syntax: str = IMPLICIT) -> Dataset:
    """An answer's identifier, as pydicom reads it."""
    return decode(BytesIO(data), syntax == IMPLICIT, True)
