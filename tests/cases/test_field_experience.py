"""The table of what hurt users elsewhere: every row is there, and every proof it names exists."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest
from swf.model import cases as workflows
from worklist.model import cases

from tests.cases.hl7_corpus.model import cases as messages

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "what-hurt-users-elsewhere.md"
ROWS = [
    tuple(cell.strip() for cell in line.strip("| \n").split(" | "))
    for line in PAGE.read_text(encoding="utf-8").splitlines()
    if re.match(r"\| \d+ \|", line)
]
NUMBERS = [*range(1, 94), *range(114, 121)]
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


NOT_ABOUT_WHAT_A_MESSAGE_SAYS = {
    59: "what becomes of rejected bytes",
    60: "answers to messages of ours",
    62: "answers to messages of ours",
    78: "a queue of messages of ours",
    79: "a queue of messages of ours",
    80: "when an answer leaves",
    82: "when an answer leaves",
}


@cache
def case_names() -> frozenset[str]:
    """What stands between the brackets of a test that runs cases: worklists, scheduled workflow, messages."""
    named = frozenset(case.name for case in cases()) | {case.name for case in workflows()}
    return named | {f"{case.name}-whole" for case in messages()}


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


def test_every_row_is_there_once_with_its_complaint_and_its_answer() -> None:
    assert sorted(int(row[0]) for row in ROWS) == NUMBERS
    assert [row for row in ROWS if len(row) != 4 or not all(row)] == []


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"row {row[0]}")
def test_every_row_has_a_proof_that_exists(row: tuple[str, ...]) -> None:
    links = LINK.findall(row[3])
    assert any("/tests/" in link for _, _, link, _ in links)
    assert [found for _, text, link, anchor in links if (found := wrong(text, link, anchor))] == []
    assert LINK.sub("", row[3]).strip(" ,") == "", "a proof is a link"


def test_every_row_about_messages_is_shown_by_a_case_of_the_corpus() -> None:
    shown = {int(said.split()[1]) for case in messages() for said in case.shows if said.startswith("field-notes ")}
    assert set(range(56, 86)) - shown == set(NOT_ABOUT_WHAT_A_MESSAGE_SAYS)
