"""The table: what was measured, beside which peer, and whether it keeps the budget; as text and as part of a page."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

HEADINGS = ("What", "Gateway", "Median, 99% within", "Peer", "Ratio", "Budget", "Kept")
PAGE_WIDTH = 120
UNATTENDED_WIDTH = 160  # where no terminal says how wide it is


@dataclass(frozen=True, slots=True)
class Row:
    """One figure of ours, what it is measured against, and the budget: a ratio, or a bound on the figure itself.

    `peer` names the peer and `theirs` is its figure, 0 where there is none. `at_least` and `at_most` bound the ratio
    where there is a peer, else the figure; a row with neither is there to be looked at.
    """

    what: str
    ours: float
    unit: str
    peer: str = ""
    theirs: float = 0.0
    at_least: float | None = None
    at_most: float | None = None
    times: str = ""

    @property
    def ratio(self) -> float | None:
        """Ours by theirs."""
        return self.ours / self.theirs if self.theirs else None

    @property
    def kept(self) -> bool | None:
        """Whether the budget is kept; None where there is none."""
        judged = self.ratio if self.theirs else self.ours
        if judged is None or (self.at_least is None and self.at_most is None):
            return None
        return (self.at_least is None or judged >= self.at_least) and (self.at_most is None or judged <= self.at_most)

    def cells(self) -> tuple[str, ...]:
        """As text, under the headings."""
        unit = "x" if self.theirs else f" {self.unit}"
        bounds = [f"at least {number(self.at_least)}{unit}"] if self.at_least is not None else []
        bounds += [f"at most {number(self.at_most)}{unit}"] if self.at_most is not None else []
        return (
            self.what,
            f"{number(self.ours)} {self.unit}",
            self.times,
            f"{self.peer}: {number(self.theirs)} {self.unit}" if self.theirs else self.peer,
            f"{number(self.ratio)}x" if self.ratio is not None else "",
            ", ".join(bounds),
            {True: "yes", False: "NO", None: ""}[self.kept],
        )


@dataclass(frozen=True, slots=True)
class Section:
    """A table of its own, with what it says in a few sentences. Nothing in it is judged."""

    title: str
    text: str
    headings: tuple[str, ...]
    lines: Sequence[tuple[str, ...]]


def number(value: float) -> str:
    """Three digits are all that a shared machine can promise."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def print_table(rows: Sequence[Row], sections: Sequence[Section], facts: Sequence[tuple[str, str]]) -> None:
    """For the terminal."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=UNATTENDED_WIDTH)
    table = Table(*HEADINGS)
    for row in rows:
        table.add_row(*row.cells(), style="red" if row.kept is False else "")
    console.print(table)
    for section in sections:
        further = Table(*section.headings, title=section.title)
        for line in section.lines:
            further.add_row(*line)
        console.print(further)
    for name, fact in facts:
        console.print(f"{name}: {fact}", highlight=False)


def part(rows: Sequence[Row], sections: Sequence[Section], facts: Sequence[tuple[str, str]]) -> str:
    """What one run says, in Markdown."""
    return "\n".join([
        *_markdown_table(HEADINGS, [row.cells() for row in rows]),
        "",
        *(line for section in sections for line in _section(section)),
        "### The machine",
        "",
        *_markdown_table(("What", "Which"), facts),
    ])  # fmt: skip


def _section(section: Section) -> list[str]:
    return [
        f"### {section.title}",
        "",
        *textwrap.wrap(section.text, PAGE_WIDTH, break_on_hyphens=False),
        "",
        *_markdown_table(section.headings, section.lines),
        "",
    ]


def _markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [
        "| " + " | ".join(headings) + " |",
        "| " + " | ".join("---" for _ in headings) + " |",
        *("| " + " | ".join(row) + " |" for row in rows),
    ]
