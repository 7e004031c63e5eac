"""What an outbound mapping reads: paths into a report, checked when the mapping is compiled.

`PatientName` and `ScheduledProcedureStepSequence.Modality` read the worklist item, `performed.KEYWORD` the performed
step, `event.NAME` a fact (`report.FACTS`); `number` counts segments or rows, `turn` the items gone through.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from gateway.domain.attributes import BY_KEYWORD, SPS_SEQUENCE, Attributes, Level
from gateway.domain.performed_table import REQUIREMENTS, Requirement
from gateway.domain.problem import did_you_mean
from gateway.domain.report import FACTS, OF_PROCEDURE, Report, of_procedure
from gateway.domain.rules import STEP_PREFIX

EVENT, PERFORMED, ITEM, NUMBER, TURN = "event", "performed", "item", "number", "turn"

# What modalities send in the items of sequences whose rows table F.7.2-1 leaves to a macro, and beside them.
_MORE = """
0018115A RadiationMode CS
00180060 KVP DS
00188151 XRayTubeCurrentInuA DS
00181151 XRayTubeCurrent IS
00181150 ExposureTime IS
00181160 FilterType SH
00187050 FilterMaterial CS
00400310 CommentsOnRadiationDose ST
00181110 DistanceSourceToDetector DS
00400306 DistanceSourceToEntrance DS
00408302 EntranceDoseInmGy DS
00400303 ExposedArea US
00400293 QuantitySequence SQ
00400294 Quantity DS
00400295 MeasuringUnitsSequence SQ
00400296 BillingItemSequence SQ
21000170 NumberOfFilms IS
20000030 MediumType CS
20100050 FilmSizeID CS
"""


class Known(NamedTuple):
    """An attribute that a path may name."""

    tag: str
    vr: str


def _walk(rows: tuple[Requirement, ...]) -> Iterator[Requirement]:
    for row in rows:
        yield row
        yield from _walk(row.items)


_ITEM_KNOWN: Mapping[str, Known] = {keyword: Known(row.tag, row.vr) for keyword, row in BY_KEYWORD.items()}
_PERFORMED_KNOWN: Mapping[str, Known] = {
    **{keyword: Known(tag, vr) for tag, keyword, vr in (row.split() for row in _MORE.strip().splitlines())},
    **_ITEM_KNOWN,
    **{row.keyword: Known(row.tag, row.vr) for row in _walk(REQUIREMENTS)},
}


def known_attributes(root: str) -> Mapping[str, Known]:
    """The attributes that a path of this root may name, by keyword."""
    return _PERFORMED_KNOWN if root == PERFORMED else _ITEM_KNOWN


class Source(NamedTuple):
    """A path as compiled. `tags` lead through sequences, `name` is a fact's; `vr` is '' for what is no attribute."""

    text: str
    root: str
    tags: tuple[str, ...] = ()
    name: str = ""
    vr: str = ""

    @property
    def above(self) -> tuple[str, ...]:
        """The tags of the sequences that it leads through."""
        return self.tags[:-1]


def parse_source(text: str) -> Source:
    """The source that a rule names. Raises ValueError: the first argument says what is wrong, the second is a hint."""
    if text in (NUMBER, TURN):
        return Source(text, text)
    first, _, rest = text.partition(".")
    if first == EVENT:
        if rest not in FACTS:
            raise ValueError(f"there is no fact {rest!r}", did_you_mean(rest, FACTS) or f"have: {', '.join(FACTS)}")
        return Source(text, EVENT, name=rest)
    root = PERFORMED if first == PERFORMED else ITEM
    keywords = (rest if root == PERFORMED else text).split(".")
    known = known_attributes(root)
    tags: list[str] = []
    for number, keyword in enumerate(keywords, 1):
        found = known.get(keyword)
        if found is None:
            hint = did_you_mean(keyword, known) or "a path looks like PatientName, performed.KEYWORD or event.NAME"
            raise ValueError(f"there is no attribute {keyword!r} in {_what(root)}", hint)
        if number < len(keywords) and found.vr != "SQ":
            raise ValueError(f"{keyword} is no sequence, so nothing is in it", f"write {'.'.join(keywords[:number])}")
        tags.append(found.tag)
    if root == ITEM:
        _check_level(keywords)
    return Source(text, root, tuple(tags), vr=known[keywords[-1]].vr)


def _what(root: str) -> str:
    return "a performed step" if root == PERFORMED else "a worklist item"


def _check_level(keywords: list[str]) -> None:
    """Attributes of a scheduled step are inside its sequence, all others beside it."""
    first = BY_KEYWORD[keywords[0]]
    if first.level is Level.STEP:
        raise ValueError(f"{keywords[0]} is not at this level", f"write {STEP_PREFIX}{'.'.join(keywords)}")
    inner = BY_KEYWORD[keywords[1]] if keywords[0] == STEP_PREFIX[:-1] and len(keywords) > 1 else None
    if inner is not None and inner.level is not Level.STEP:
        raise ValueError(f"{keywords[1]} is not at this level", f"write {'.'.join(keywords[1:])}")


@dataclass(frozen=True, slots=True)
class Place:
    """What one segment is written from.

    `item` is the requested procedure's tree with the person's attributes, `procedure` its number from 1. `bound` are
    the items of sequences that are being gone through one by one, by root and tags of the sequence.
    """

    report: Report = field(repr=False)
    item: Attributes = field(repr=False)
    procedure: int = 1
    bound: Mapping[tuple[str, ...], Attributes] = field(default_factory=dict, repr=False)
    number: int = 0
    turn: int = 0

    def nodes(self, source: Source) -> list[Attributes]:
        """The attribute sets that the last tag of the source is looked up in."""
        tags = source.above
        node = self.report.performed if source.root == PERFORMED else self.item
        for length in range(len(tags), 0, -1):
            inner = self.bound.get((source.root, *tags[:length]))
            if inner is not None:
                node, tags = inner, tags[length:]
                break
        nodes = [node]
        for tag in tags:
            nodes = [item for held in nodes for item in _values(held, tag) if isinstance(item, dict)]
        return nodes

    def read(self, source: Source) -> list[tuple[Any, Attributes]]:
        """Every value of the source, each with the attribute set it was found in."""
        if source.root in (NUMBER, TURN):
            return [(str(self.number if source.root == NUMBER else self.turn), {})]
        if source.root == EVENT:
            said = self._fact(source.name)
            return [(said, {})] if said else []
        tag = source.tags[-1]
        return [(value, node) for node in self.nodes(source) for value in _values(node, tag) if value not in (None, "")]

    def _fact(self, name: str) -> str:
        return self.report.facts.get(of_procedure(name, self.procedure) if name in OF_PROCEDURE else name, "")


def companion(place: Place, source: Source, node: Attributes, with_source: Source) -> Any:
    """The value that goes with one found in `node`: of the same item where both are in it; None where there is none."""
    if with_source.tags and (with_source.root, with_source.above) == (source.root, source.above):
        found = _values(node, with_source.tags[-1])
    else:
        found = [value for value, _ in place.read(with_source)]
    return found[0] if found else None


def _values(node: Attributes, tag: str) -> list[Any]:
    held = node.get(tag)
    found = held.get("Value") if isinstance(held, dict) else None
    return found if isinstance(found, list) else []


STEPS = (ITEM, SPS_SEQUENCE)
"""What `each: step` goes through."""
