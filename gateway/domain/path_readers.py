"""How the paths of rules are read: the reader of HL7 v2 paths, and what any other language of paths has to bring.

A rule set is written in one language: HL7 v2, or a release of FHIR (`fhir: R4`). What the paths find in a document is
the document's business.
"""

import re
from collections.abc import Sequence
from typing import Protocol

from gateway.domain.problem import nearest
from gateway.domain.source import SEGMENTS, Path, parse_path

HL7 = "HL7 v2"
"""The language of rule sets that name no other."""


class UnreadablePath(ValueError):  # noqa: N818  (reads as what it is)
    """A path that cannot be: what is wrong with it, and a hint at what was meant ('' for none)."""

    def __init__(self, text: str, hint: str = "") -> None:
        self.hint = hint
        super().__init__(text)


class PathReader(Protocol):
    """Reads the paths of one language, each once, when a rule set is compiled."""

    @property
    def unit_example(self) -> str:
        """What `with:` may say where a unit is needed."""

    def path(self, text: str) -> Path:
        """The path that a rule names. Raises UnreadablePath."""

    def beside(self, text: str, values: Sequence[Path]) -> Path:
        """The path of `with:` and `select:`, which looks at what holds the values. Raises UnreadablePath."""


class HL7Paths:
    """Segments, fields and components: `PID-5`, `OBR-4.4`."""

    unit_example = "OBX-6"

    def path(self, text: str) -> Path:
        """The path that a rule names. Raises UnreadablePath."""
        try:
            return parse_path(text)
        except ValueError as error:
            raise UnreadablePath(str(error), _meant(text)) from None

    def beside(self, text: str, values: Sequence[Path]) -> Path:
        """Another field, of whichever segments hold the values."""
        return self.path(text)


class AnyPaths:
    """For a rule set whose language nobody knows: that is problem enough, so its paths are not looked at."""

    unit_example = ""

    def path(self, text: str) -> Path:
        """The text as it is."""
        return Path(text, 0, key=text)

    def beside(self, text: str, values: Sequence[Path]) -> Path:
        """The text as it is."""
        return self.path(text)


_PATH_LIKE = re.compile(r"((?:\w{3}/)?)([A-Za-z]\w\w)[^\w/]?(\d{1,3})((?:[.-]\d{1,2}){0,2})")


def _meant(text: str) -> str:
    """For what is no path but looks like one (PDI-3, ORC3, obr-4-2): the likely one."""
    found = _PATH_LIKE.search(text)
    if found is None:
        return ""
    above, segment, field, rest = (part.upper() for part in found.groups())
    if segment not in SEGMENTS and not segment.startswith("Z"):
        segment = nearest(segment, SEGMENTS) or ""
    meant = f"{above}{segment}-{field}{rest.replace('-', '.')}"
    return f"did you mean {meant}?" if segment and meant != text else ""
