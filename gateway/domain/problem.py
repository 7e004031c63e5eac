"""Problems of what a site wrote: rule sets, code tables, the procedure catalogue. All of them are told at once."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake: in which `source` (a rule set or table by name), at which `path`, on which line if known."""

    source: str
    path: str
    text: str
    hint: str = ""
    line: int | None = None

    @property
    def where(self) -> str:
        """`ihe-swf:12 rules.PatientName.convert`, as editors and people read it."""
        place = self.source if self.line is None else f"{self.source}:{self.line}"
        return f"{place} {self.path}".rstrip()

    def __str__(self) -> str:
        return f"{self.where}: {self.text}" + (f" ({self.hint})" if self.hint else "")


class MappingError(Exception):
    """Rules that cannot be used, with every problem found in them."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


def nearest(word: str, known: Iterable[str], likeness: float = 0.6) -> str | None:
    """The known word that was most likely meant; None where none is near, from 0 (anything) to 1 (the same)."""
    by_folded = {candidate.casefold(): candidate for candidate in known}
    near = difflib.get_close_matches(word.casefold(), by_folded, n=1, cutoff=likeness)
    return by_folded[near[0]] if near else None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint naming the nearest known word; '' where nothing is near."""
    near = nearest(word, known)
    return f"did you mean {near}?" if near else ""


def one_of(word: str, known: Iterable[str]) -> str:
    """A hint naming the nearest known word, or all of them where nothing is near."""
    candidates = list(known)
    return did_you_mean(word, candidates) or f"have: {', '.join(sorted(candidates)) or 'none'}"
