"""Which of what a message says is meant: conditions on an entry, on a segment, and picks among the repetitions."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from gateway.domain.converters import part
from gateway.domain.source import Entry, Path, Repetition, Sourced

Condition = tuple[Path, frozenset[str]]
"""A path and the texts it may have there, folded; '*' stands for any text, '' for none."""


class Pick(NamedTuple):
    """Which repetitions of a field count: those with these components, or the one at a position.

    `components` are (component, subcomponent, texts as in a Condition), all of which have to hold. `position` counts
    from 1; -1 is the last one and 0 any.
    """

    components: tuple[tuple[int, int, frozenset[str]], ...] = ()
    position: int = 0

    def of(self, entry: Entry, path: Path) -> list[tuple[int, Sourced]]:
        """Those of `entry.read(path)` that count, each with its place in there."""
        whole = path if not path.component else path._replace(component=0, subcomponent=0)
        wanted = [
            sourced.where
            for sourced in entry.read(whole)
            if all(_says(sourced.repetition, *component) for component in self.components)
        ]
        if self.position:
            at = self.position - 1 if self.position > 0 else len(wanted) - 1
            wanted = wanted[at : at + 1]
        return [(index, sourced) for index, sourced in enumerate(entry.read(path)) if sourced.where in wanted]

    def __str__(self) -> str:
        if self.position:
            return {1: "first", -1: "last"}.get(self.position, f"repetition {self.position}")
        said = (
            f"component {component}{f'.{sub}' if sub > 1 else ''} is {' or '.join(sorted(texts))}"
            for component, sub, texts in self.components
        )
        return " and ".join(said)


def _says(repetition: Repetition, component: int, subcomponent: int, wanted: frozenset[str]) -> bool:
    said = part(repetition, component, subcomponent).casefold()
    return said in wanted or bool(said and "*" in wanted)


def holds(entry: Entry, conditions: Iterable[Condition]) -> bool:
    """Whether the entry meets all of the conditions."""
    return all(_matches(entry.repetitions(path), wanted) for path, wanted in conditions)


def any_holds(entry: Entry, conditions: Iterable[Condition]) -> bool:
    """Whether the entry meets one of the conditions."""
    return any(_matches(entry.repetitions(path), wanted) for path, wanted in conditions)


def selected(entry: Entry, sourced: Sourced, conditions: Iterable[Condition]) -> bool:
    """Whether the segment of a value has one of the texts at one of the paths."""
    return any(
        _matches([found.repetition for found in entry.beside(sourced.origin, path)], wanted)
        for path, wanted in conditions
    )


def _matches(repetitions: Sequence[Repetition], wanted: frozenset[str]) -> bool:
    said = [found.casefold() for repetition in repetitions if (found := part(repetition, 1))]
    return any(found in wanted for found in said) or (bool(said) and "*" in wanted) or (not said and "" in wanted)
