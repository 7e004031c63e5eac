"""Instance Availability Notifications as image managers send them, and what is said of those that cannot be used."""

from typing import Any

import pytest

from gateway.domain.refusal import RefusalKind, Refused
from gateway.wire.availability import Availability, InstanceAvailability, read_availability
from gateway.wire.dicom_json import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN, write_attributes
from gateway.wire.mpps_dataset import refusal_answer

STUDY = "2.25.100"


def valued(vr: str, *values: Any) -> dict[str, Any]:
    return {"vr": vr, "Value": list(values)} if values else {"vr": vr}


def instance(number: int, availability: str = "ONLINE") -> dict[str, Any]:
    return {
        "00081150": valued("UI", "1.2.840.10008.5.1.4.1.1.2"), "00081155": valued("UI", f"2.25.9{number}"),
        "00080056": valued("CS", availability), "00080054": valued("AE", "ARCHIVE"),
    }  # fmt: skip


def series(*instances: dict[str, Any], uid: str = "2.25.101") -> dict[str, Any]:
    return {"0020000E": valued("UI", uid), "00081199": valued("SQ", *instances)}


def notification(*held: dict[str, Any], **more: Any) -> dict[str, Any]:
    """All that table R.3.2-1 asks for; `more` are attributes by `t` and the tag, None for one that is not sent."""
    said = {
        "00081111": valued("SQ"),
        "0020000D": valued("UI", STUDY),
        "00081115": valued("SQ", *(held or (series(instance(1)),))),
        **{tag.removeprefix("t"): value for tag, value in more.items()},
    }
    return {tag: value for tag, value in said.items() if value is not None}


def read(said: dict[str, Any], syntax: str = EXPLICIT_VR_LITTLE_ENDIAN, *, whole_table: bool = False) -> Availability:
    return read_availability(write_attributes(said, syntax, ()), syntax, whole_table=whole_table)


def refused(said: dict[str, Any], *, whole_table: bool = False) -> list[tuple[RefusalKind, str]]:
    with pytest.raises(Refused) as caught:
        read(said, whole_table=whole_table)
    return [(refusal.kind, refusal.where) for refusal in caught.value.refusals]


@pytest.mark.parametrize("syntax", [EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN])
def test_a_notification_says_how_many_instances_can_be_had_and_how_quickly(syntax: str) -> None:
    performed = {
        "00081150": valued("UI", "1.2.840.10008.3.1.2.3.3"), "00081155": valued("UI", "2.25.500"),
        "00404019": valued("SQ"),
    }  # fmt: skip
    general = {**performed, "00081150": valued("UI", "1.2.840.10008.5.1.4.32.3"), "00081155": valued("UI", "2.25.501")}
    said = notification(
        series(instance(1), instance(2, "NEARLINE"), instance(3)), series(instance(4, "UNAVAILABLE"), uid="2.25.102"),
        t00081111=valued("SQ", performed, general),
    )  # fmt: skip
    found = read(said, syntax, whole_table=True)
    online, nearline, _, unavailable = InstanceAvailability
    assert (found.study_instance_uid, found.instances) == (STUDY, {online: 2, nearline: 1, unavailable: 1})
    assert (found.performed, found.notes, found.has_images) == (("2.25.500",), (), True)
    assert str(found) == "instances: 2 ONLINE, 1 NEARLINE, 1 UNAVAILABLE"


def test_images_that_nobody_can_have_are_none() -> None:
    assert not read(notification(series(instance(1, "UNAVAILABLE")))).has_images
    assert read(notification(series(instance(1, "OFFLINE")))).has_images


def test_what_is_not_needed_is_noted_and_demanded_of_strict_senders() -> None:
    bare = {"00080056": valued("CS", "ONLINE")}
    said = notification(series(bare, uid=""), t00081111=None)
    found = read(said)
    assert found.has_images
    assert found.notes == (
        "(0008,1111) is missing",
        "(0008,1115)[0]/(0020,000E) has no value",
        "(0008,1115)[0]/(0008,1199)[0]/(0008,1150) is missing",
        "(0008,1115)[0]/(0008,1199)[0]/(0008,1155) is missing",
        "(0008,1115)[0]/(0008,1199)[0]/(0008,0054) is missing",
    )
    assert [where for _, where in refused(said, whole_table=True)] == [note.partition(" ")[0] for note in found.notes]


@pytest.mark.parametrize(
    ("said", "reasons", "status"),
    [
        ({}, [(RefusalKind.MISSING_FIELD, "(0020,000D)"), (RefusalKind.MISSING_FIELD, "(0008,1115)")], 0x0120),
        (notification(t0020000D=valued("UI")), [(RefusalKind.MISSING_VALUE, "(0020,000D)")], 0x0121),
        (notification(t0020000D=valued("UI", "1.x")), [(RefusalKind.BAD_VALUE, "(0020,000D)")], 0x0106),
        (notification(t00081115=valued("SQ")), [(RefusalKind.MISSING_VALUE, "(0008,1115)")], 0x0121),
        (notification(series()), [(RefusalKind.MISSING_VALUE, "(0008,1115)[0]/(0008,1199)")], 0x0121),
        (
            notification(series(instance(1), {})),
            [(RefusalKind.MISSING_FIELD, "(0008,1115)[0]/(0008,1199)[1]/(0008,0056)")],
            0x0120,
        ),
        (
            notification(series(instance(1, "SOMEWHERE"))),
            [(RefusalKind.BAD_VALUE, "(0008,1115)[0]/(0008,1199)[0]/(0008,0056)")],
            0x0106,
        ),
    ],
    ids=["empty", "no study", "no UID", "no series", "no instances", "not said", "nowhere"],
)
def test_what_says_nothing_about_a_study_is_refused(
    said: dict[str, Any], reasons: list[tuple[RefusalKind, str]], status: int
) -> None:
    with pytest.raises(Refused) as caught:
        read(said)
    assert [(refusal.kind, refusal.where) for refusal in caught.value.refusals] == reasons
    assert refusal_answer(caught.value.refusals).status == status


def test_thousands_of_instances_that_all_lack_something_are_counted_and_not_all_told() -> None:
    bare = {"00080056": valued("CS", "ONLINE ")}
    found = read(notification(series(*[bare] * 5_000)))
    assert found.instances == {InstanceAvailability.ONLINE: 5_000}
    assert len(found.notes) == 200
    assert len(refused(notification(series(*[{}] * 5_000)))) == 200


def test_what_is_no_dataset_is_refused() -> None:
    with pytest.raises(Refused) as caught:
        read_availability(b"\x08\x00\x15\x11SQ", EXPLICIT_VR_LITTLE_ENDIAN)
    assert caught.value.refusals[0].kind is RefusalKind.UNREADABLE
