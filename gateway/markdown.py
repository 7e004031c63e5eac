"""Markdown out of tables, for the pages and statements that are generated from what the gateway runs on."""

from collections.abc import Iterable, Sequence


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """The lines of a table, an empty one at its end."""

    def line(cells: Sequence[object]) -> str:
        return "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

    return [line(columns), line(["---"] * len(columns)), *(line(row) for row in rows), ""]


def code(text: object) -> str:
    """Literal text; '' stays empty."""
    return f"`{text}`" if str(text) else ""


def tag(number: str) -> str:
    """A tag of 8 hex digits as the standard writes it."""
    return f"({number[:4]},{number[4:]})"
