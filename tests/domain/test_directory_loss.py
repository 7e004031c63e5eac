"""When what was read is too little to be believed."""

import pytest

from gateway.domain.directory import DeviceEntry, Directory, NetworkAE
from gateway.domain.directory_loss import Roll, great_loss, roll_of


def directory(*numbers, aes=True):
    return Directory(tuple(DeviceEntry(f"Ct{each}", aes=(NetworkAE(f"CT{each}"),) if aes else ()) for each in numbers))


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ((), (), ""),
        ((), (1, 2), ""),
        ((1,), (), "it has none of the 1 devices that were there before, and no others"),
        ((1,), (2,), ""),
        (range(4), (0,), ""),
        (range(5), (0,), "4 of the 5 devices that were there before are gone (ct1, ct2, ct3, ...)"),
        (range(10), range(5), ""),
        (range(10), range(4), "6 of the 10 devices that were there before are gone (ct4, ct5, ct6, ...)"),
        (range(10), range(100, 200), "10 of the 10 devices that were there before are gone (ct0, ct1, ct2, ...)"),
    ],
)
def test_a_loss_is_great_where_nobody_or_less_than_half_is_left(before, after, words):
    assert great_loss(roll_of(directory(*before)), directory(*after)) == words


def test_devices_without_their_ae_titles_are_a_loss_too():
    """So they look to an account that may not read below the devices."""
    words = "it has none of the 2 AE titles that were there before, and no others"
    assert great_loss(roll_of(directory(1, 2)), directory(1, 2, aes=False)) == words


def test_names_of_devices_are_compared_as_ldap_does():
    assert great_loss(Roll(frozenset({"ct0", "ct1", "ct2", "ct3", "ct4"})), directory(*range(5))) == ""
