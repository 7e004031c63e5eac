"""The table of what hurt users elsewhere: every row is there, and every proof it names exists."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest
from worklist.model import cases

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "what-hurt-users-elsewhere.md"
ROWS = [
    tuple(cell.strip() for cell in line.strip("| \n").split(" | "))
    for line in PAGE.read_text(encoding="utf-8").splitlines()
    if re.match(r"\| \d+ \|", line)
]
LINK = re.compile(r"\[(`?)(.+?)\1\]\(([^)#]+)(?:#([^)]+))?\)")


@cache
def functions(path: Path) -> frozenset[str]:
    """The tests of a file, by name."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return frozenset(
        each.name
        for each in tree.body
        if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef) and each.name.startswith("test_")
    )


@cache
def headings(path: Path) -> frozenset[str]:
    """The headings of a page, as links name them."""
    titles = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return frozenset(re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles)


@cache
def case_names() -> frozenset[str]:
    return frozenset(case.name for case in cases())


def wrong(text: str, link: str, anchor: str) -> str:
    """What is wrong with this link, '' where it leads to what it says."""
    path = (PAGE.parent / link).resolve()
    if not path.is_file():
        return f"{link} does not exist"
    if path.suffix == ".md":
        return f"{link} has no heading {anchor}" if anchor and anchor not in headings(path) else ""
    name, _, case = text.partition("[")
    if name not in functions(path):
        return f"{link} has no {name}"
    return f"there is no case {case}" if case and case.removesuffix("]") not in case_names() else ""


def test_rows_are_1_to_46_each_with_its_complaint_and_its_answer() -> None:
    assert [int(row[0]) for row in ROWS] == list(range(1, 47))
    assert [row for row in ROWS if len(row) != 4 or not all(row)] == []


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"row {row[0]}")
def test_every_row_has_a_proof_that_exists(row: tuple[str, ...]) -> None:
    links = LINK.findall(row[3])
    assert any("/tests/" in link for _, _, link, _ in links)
    assert [found for _, text, link, anchor in links if (found := wrong(text, link, anchor))] == []
    assert LINK.sub("", row[3]).strip(" ,") == "", "a proof is a link"
