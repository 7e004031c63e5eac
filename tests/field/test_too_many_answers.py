"""Small consoles and long lists: cut before the item that is too many, with the status the console can bear."""

import pytest
from consoles import Ask, of_station
from field_department import MANY


@pytest.mark.parametrize(
    ("calling", "answers", "status"),
    [("CT1", len(MANY), "0000"), ("SMALL", 3, "A700"), ("SMALLER", 3, "0000")],
    ids=["no limit", "told that it was cut", "told nothing"],
)
def test_a_list_ends_at_the_consoles_limit_with_the_status_of_its_profile(
    ask: Ask, calling: str, answers: int, status: str
) -> None:
    answer = ask(of_station("MANY"), calling)
    assert (len(answer.items), answer.status) == (answers, status)


@pytest.mark.parametrize("calling", ["SMALL", "SMALLER"])
def test_a_list_that_fits_is_not_cut(ask: Ask, calling: str) -> None:
    answer = ask(of_station("ROOM7 "), calling)
    assert (len(answer.items), answer.status) == (1, "0000")
