"""Connections of one address under two names."""

from dataclasses import replace

import pytest

from gateway.domain.directory import DeviceEntry, Directory, NetworkAE, NetworkConnection, Protocol
from gateway.domain.directory_names import all_called_as_there, called_as_there


def device(**addresses):
    connections = tuple(NetworkConnection(name, *address) for name, address in addresses.items())
    return DeviceEntry("ct", connections=connections, aes=(NetworkAE("CT", tuple(addresses)),))


@pytest.mark.parametrize(
    ("wanted", "there", "names"),
    [
        ({"dicom": ("h", 1)}, {"dicom_1": ("H", 1)}, ("dicom_1",)),
        ({"dicom": ("h", 1)}, {"dicom_1": ("h", 2)}, ("dicom",)),
        ({"dicom": ("h", 1)}, {"dicom": ("h", 2), "other": ("h", 1)}, ("other",)),
        ({"a": ("h", 1), "b": ("h", 2)}, {"a": ("h", 2), "b": ("h", 1)}, ("a", "b")),
        ({"a": ("h", 1)}, {"a": ("h", 1), "b": ("h", 1)}, ("a",)),
        ({"x": ("h", 1), "y": ("h", 1)}, {"a": ("h", 1)}, ("a", "y")),
        ({"x": ("h", 1)}, {"b": ("h", 1), "a": ("h", 1)}, ("a",)),
    ],
)
def test_the_same_address_is_called_as_it_is_there(wanted, there, names):
    called = called_as_there(device(**wanted), device(**there))
    assert tuple(each.name for each in called.connections) == names
    assert called.aes[0].connections == names
    assert [each.host for each in called.connections] == ["h"] * len(names)


def test_what_is_spoken_counts():
    hl7 = DeviceEntry("ct", connections=(NetworkConnection("hl7", "h", 1, protocol=Protocol.HL7),))
    assert called_as_there(device(dicom=("h", 1)), hl7) == device(dicom=("h", 1))


def test_devices_are_found_whatever_the_case_of_their_names():
    there, new = replace(device(dicom_1=("h", 1)), name="CT"), replace(device(a=("h", 1)), name="us")
    found = all_called_as_there(Directory((device(dicom=("h", 1)), new)), Directory((there,)))
    assert found == Directory((device(dicom_1=("h", 1)), new))
