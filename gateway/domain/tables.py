"""Code tables of a site: a code as it is sent, the value it stands for."""

from collections.abc import Iterable, Mapping

from gateway.domain.converters import CodeTable
from gateway.domain.problem import MappingError, Problem
from gateway.domain.rows import numbered, unknown_columns

COLUMNS: Mapping[str, str] = {
    "code": "the code sent, in any case (required)",
    "value": "the value it stands for; empty deletes, `-` is as if nothing had been sent",
    "comment": "for people",
}
"""The columns of a code table in mappings/codes, and what they mean."""


def compile_table(name: str, rows: Iterable[Mapping[str, str]]) -> CodeTable:
    """A code table of rows with these columns. Codes are compared in any case. Raises MappingError."""
    table: dict[str, str] = {}
    lines: dict[str, int] = {}
    problems: list[Problem] = []
    for line, cells in numbered(rows):
        if not table and not problems:
            problems += unknown_columns(cells, COLUMNS, name, ("code", "value"))
        code, value = cells.get("code", "").upper(), cells.get("value")
        if not code or value is None:
            problems.append(Problem(name, "", "a row needs a code and a value", f"columns: {','.join(COLUMNS)}", line))
        elif code in table:
            hint = f"line {lines[code]} says {table[code]!r}; remove one"
            problems.append(Problem(name, "code", f"{code} is there twice", hint, line))
        else:
            table[code], lines[code] = value, line
    if problems:
        raise MappingError(problems)
    return CodeTable(table, lines)
