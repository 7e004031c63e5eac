"""The population as worklist files, as DCMTK and Orthanc serve them: one DICOM file (PS3.10) for each item."""

from pathlib import Path

from .datasets import Dataset, Element, encode
from .model import EXPLICIT, Item, population, with_charset

_WORKLIST_FIND = "1.2.840.10008.5.1.4.31"


def write_items(folder: Path) -> None:
    """Write one `.wl` file for each item into the folder, which is made where it is absent."""
    folder.mkdir(parents=True, exist_ok=True)
    for item in population().values():
        (folder / f"{item.name}.wl").write_bytes(file_of(item))


def file_of(item: Item) -> bytes:
    """The bytes of the item's file, in Explicit VR Little Endian."""
    meta: Dataset = {
        0x00020001: Element("OB", raw=b"\x00\x01"),
        0x00020002: Element("UI", (_WORKLIST_FIND,)),
        0x00020003: Element("UI", (f"{item.study_instance_uid}.1",)),
        0x00020010: Element("UI", (EXPLICIT,)),
        0x00020012: Element("UI", ("1.2.826.0.1.3680043.2.1143.300.0",)),
    }
    encoded = encode(meta, (), explicit=True)
    length = encode({0x00020000: Element("UL", (str(len(encoded)),))}, (), explicit=True)
    dataset = with_charset(item.attributes, item.terms)
    return b"\0" * 128 + b"DICM" + length + encoded + encode(dataset, item.terms, explicit=True)
