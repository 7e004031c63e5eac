"""Rows of a site's CSV files: cells by column, and the line that each row began on, so that problems name it."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from gateway.domain.problem import MappingError, Problem, did_you_mean


class Row(dict[str, str]):
    """The cells of one row by column; `line` counts from 1 in the file, comments and empty lines included."""

    def __init__(self, cells: Mapping[str, str], line: int) -> None:
        super().__init__(cells)
        self.line = line


def numbered(rows: Iterable[Mapping[str, Any]]) -> Iterator[tuple[int, dict[str, str]]]:
    """(line, cells without blanks around them) of each row that says anything; a plain first row is on line 2."""
    for place, row in enumerate(rows, 2):
        cells = {str(column): text.strip() for column, text in row.items() if isinstance(text, str)}
        if any(cells.values()):
            yield (row.line if isinstance(row, Row) else place), cells


def unknown_columns(
    cells: Iterable[str], known: Iterable[str], source: str, needed: Iterable[str] = ()
) -> list[Problem]:
    """A problem for each column that a file of this kind does not have; the header is on line 1 or below comments.

    Raises MappingError with them where one of the `needed` columns lacks: then the rows cannot be understood.
    """
    cells = list(cells)
    columns = list(known)
    unknown = [
        Problem(
            source, column, f"unknown column {column!r}",
            did_you_mean(column, columns) or f"known are {', '.join(columns)}", 1,
        )
        for column in cells
        if column not in columns
    ]  # fmt: skip
    if unknown and not set(needed) <= set(cells):
        raise MappingError(unknown)
    return unknown
