"""A budget is judged rightly, and the page says what it was measured on without saying on whose machine."""

import socket
from pathlib import Path

import pytest
from measure import machine
from report import Row, page


@pytest.mark.parametrize(
    ("row", "kept"),
    [
        (Row("rate", 300, "/s", "peer", 100, at_least=3), True),
        (Row("rate", 299, "/s", "peer", 100, at_least=3), False),
        (Row("rate", 300, "/s", at_least=300), True),
        (Row("memory", 151, "MB", at_most=150), False),
        (Row("rate", 300, "/s", "peer", 100), None),
        (Row("rate", 300, "/s"), None),
    ],
)
def test_a_budget_bounds_the_ratio_where_there_is_a_peer_else_the_figure(row: Row, kept: bool | None) -> None:
    assert row.kept is kept


def test_the_page_names_neither_host_nor_path() -> None:
    text = page([Row("rate", 1234.5, "/s", "peer", 100, at_least=3)], machine())
    assert "| rate | 1,234 /s |  | peer: 100 /s | 12.3x | at least 3.00x | yes |" in text
    assert socket.gethostname() not in text
    assert str(Path.home()) not in text
