"""Scopes of SMART: all of them against all others, on a few types."""

from itertools import combinations, product

import pytest

from gateway.domain.scopes import LETTERS, Scope, granted, permits, scope, scopes, text_of

TYPES = ("ServiceRequest", "Task")
SUBSETS = ["".join(each) for count in range(1, 6) for each in combinations(LETTERS, count)]
ALL = [Scope(kind, letters) for kind in ("*", *TYPES) for letters in SUBSETS]


def said_of(held: tuple[Scope, ...]) -> set[tuple[str, str]]:
    """Every (type, letter) that is permitted."""
    return {(kind, letter) for kind in (*TYPES, "Patient") for letter in LETTERS if permits(held, kind, letter)}


def test_every_scope_of_version_2_is_read_as_it_is_written() -> None:
    assert len(ALL) == 3 * 31
    for each in ALL:
        assert scope(str(each)) == each


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("system/Task.read", "system/Task.rs"),
        ("system/Task.write", "system/Task.cud"),
        ("system/Task.*", "system/Task.cruds"),
        ("system/*.read", "system/*.rs"),
        ("system/*.*", "system/*.cruds"),
    ],
)
def test_scopes_of_version_1_mean_what_smart_2_says(text: str, meant: str) -> None:
    assert text_of(scopes(text)) == meant


@pytest.mark.parametrize(
    "text",
    [
        "", "system/Task", "system/Task.", "system/Task.sr", "system/Task.rr", "system/task.r", "patient/Task.r",
        "user/*.cruds", "openid", "offline_access", "launch", "system/Task.rs?status=requested", "system/*.cruds,r",
        "SYSTEM/Task.rs",
    ],
)  # fmt: skip
def test_what_is_no_scope_of_ours_grants_nothing(text: str) -> None:
    assert scope(text) is None
    assert not permits(scopes(text), "Task", "r")


def test_a_scope_permits_its_letters_for_its_type_and_nothing_else() -> None:
    for each in ALL:
        kinds = (*TYPES, "Patient") if each.type == "*" else (each.type,)
        assert said_of((each,)) == set(product(kinds, each.letters))


def test_granted_is_what_is_asked_for_and_allowed_for_every_pair() -> None:
    for one, two in product(ALL, repeat=2):
        assert said_of(granted([one], [two])) == said_of((one,)) & said_of((two,))


def test_granted_of_several_is_never_more_than_either_and_all_that_both_say() -> None:
    few = [Scope(kind, letters) for kind in ("*", *TYPES) for letters in ("r", "cu", "rs", "cruds")]
    pairs = list(combinations(few, 2))
    for asked, allowed in product(pairs, repeat=2):
        assert said_of(granted(asked, allowed)) == said_of(asked) & said_of(allowed)


def test_several_scopes_together_permit_several_letters() -> None:
    held = scopes("system/Task.r system/*.s")
    assert permits(held, "Task", "rs")
    assert not permits(held, "ServiceRequest", "rs")
    assert permits(held, "*", "s")
    assert not permits(held, "*", "r")
    assert permits((), "Task", "")


def test_what_any_type_may_is_not_said_again_of_one() -> None:
    assert text_of(scopes("system/Task.r system/*.rs")) == "system/*.rs"
    assert text_of(scopes("system/Task.u system/*.rs system/Task.c")) == "system/*.rs system/Task.cu"
