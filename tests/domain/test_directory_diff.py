"""How two directories differ, in words: every attribute of the model counts, and order only where it says something."""

from dataclasses import fields, replace
from typing import Any

import pytest

from gateway.domain.devices import MPPSAnswers, Sees
from gateway.domain.directory import (
    DeviceEntry,
    Directory,
    NetworkAE,
    NetworkConnection,
    Protocol,
    Role,
    Rules,
    TransferCapability,
)
from gateway.domain.directory_diff import Change, differences

CAPABILITY = TransferCapability("1.2.840.10008.1.1", Role.SCP, ("1.2.840.10008.1.2",))
CONNECTION = NetworkConnection("dicom", "ct1", 104)
AE = NetworkAE("CT1", ("dicom",), capabilities=(CAPABILITY,))
DEVICE = DeviceEntry("ct1", connections=(CONNECTION,), aes=(AE,))


def said(before: DeviceEntry | None, after: DeviceEntry | None) -> list[str]:
    one, other = (Directory((each,) if each else ()) for each in (before, after))
    return [str(each) for each in differences(one, other)]


def changed(value: Any) -> Any:
    """Another value of the same kind."""
    match value:
        case bool():
            return not value
        case None:
            return True
        case int():
            return value + 1
        case Role():
            return Role.SCU
        case Protocol():
            return Protocol.HL7
        case MPPSAnswers():
            return MPPSAnswers.DATASET
        case str():
            return f"{value}x"
        case tuple():
            return (*value, "x")
        case dict():
            return {**value, "cn=x": ("ab",)}
    raise AssertionError(f"no other value than {value!r} is known")


def every(model: Any, but: set[str]) -> list[str]:
    return [item.name for item in fields(model) if item.name not in but]


def test_a_directory_does_not_differ_from_itself() -> None:
    assert said(DEVICE, DEVICE) == []


@pytest.mark.parametrize("name", every(DeviceEntry, {"name", "connections", "aes"}))
def test_every_attribute_of_a_device_counts(name: str) -> None:
    (line,) = said(DEVICE, replace(DEVICE, **{name: changed(getattr(DEVICE, name))}))
    assert line.startswith("ct1: ")


@pytest.mark.parametrize("name", every(NetworkConnection, {"name"}))
def test_every_attribute_of_a_connection_counts(name: str) -> None:
    other = replace(CONNECTION, **{name: changed(getattr(CONNECTION, name))})
    (line,) = said(DEVICE, replace(DEVICE, connections=(other,)))
    assert line.startswith("ct1, connection dicom: ")


@pytest.mark.parametrize("name", every(NetworkAE, {"ae_title", "rules", "capabilities"}))
def test_every_attribute_of_an_ae_counts(name: str) -> None:
    (line,) = said(DEVICE, replace(DEVICE, aes=(replace(AE, **{name: changed(getattr(AE, name))}),)))
    assert line.startswith("ct1, AE CT1: ")


@pytest.mark.parametrize("name", every(Rules, set()))
def test_every_rule_of_ours_counts(name: str) -> None:
    value = Sees.OWN if name == "sees" else changed(getattr(Rules(), name))
    (line,) = said(DEVICE, replace(DEVICE, aes=(replace(AE, rules=replace(Rules(), **{name: value})),)))
    assert line.startswith("ct1, AE CT1: ")


@pytest.mark.parametrize("name", every(TransferCapability, {"sop_class", "role"}))
def test_every_attribute_of_a_capability_counts(name: str) -> None:
    other = replace(CAPABILITY, **{name: changed(getattr(CAPABILITY, name))})
    (line,) = said(DEVICE, replace(DEVICE, aes=(replace(AE, capabilities=(other,)),)))
    assert line.startswith("ct1, AE CT1, SCP of 1.2.840.10008.1.1: ")


def test_differences_read_as_a_person_says_them() -> None:
    after = replace(
        DEVICE,
        station_name="CT ER",
        connections=(replace(CONNECTION, port=11112),),
        aes=(replace(AE, clusters=("CT",), rules=Rules(profile="own-list")), NetworkAE("CT2")),
    )
    assert said(DEVICE, after) == [
        "ct1: station name CT ER added",
        "ct1, connection dicom: port 104 -> 11112",
        "ct1, AE CT1: groups CT added",
        "ct1, AE CT1: profile own-list added",
        "ct1, AE CT2: added",
    ]
    assert said(after, DEVICE)[:2] == [
        "ct1: station name CT ER removed",
        "ct1, connection dicom: port 11112 -> 104",
    ]
    assert said(DEVICE, None) == ["ct1: removed"]
    assert said(None, DEVICE) == ["ct1: added"]


def test_what_a_capability_gained_and_lost_is_told_by_role() -> None:
    other = replace(CAPABILITY, role=Role.SCU)
    assert said(DEVICE, replace(DEVICE, aes=(replace(AE, capabilities=(other,)),))) == [
        "ct1, AE CT1, SCP of 1.2.840.10008.1.1: removed",
        "ct1, AE CT1, SCU of 1.2.840.10008.1.1: added",
    ]


def test_the_order_of_values_counts_for_groups_alone() -> None:
    one = replace(DEVICE, primary_types=("CT", "PT"), aes=(replace(AE, clusters=("A", "B")),))
    other = replace(DEVICE, primary_types=("PT", "CT"), aes=(replace(AE, clusters=("B", "A")),))
    assert said(one, other) == ["ct1, AE CT1: groups A, B -> B, A"]


def test_device_names_are_the_same_whatever_their_case() -> None:
    assert said(DEVICE, replace(DEVICE, name="CT1", model="X")) == ["CT1: model X added"]


def test_what_is_left_out_does_not_count() -> None:
    pair = Directory((DEVICE,)), Directory((replace(DEVICE, fingerprints={"cn=x": ("ab",)}, model="X"),))
    (only,) = differences(*pair, leave_out={"fingerprints"})
    assert (only.change, only.attribute) == (Change.ADDED, "model")
