"""Searching FHIR (search.html of the specification): a query string, read into what a store is asked.

What a parameter means is in `fhir_search_parameters`, what resources are found by in `fhir_index`. Every parameter that
is not understood is refused, for whoever asks for one patient must not be given all; with `Prefer: handling=lenient`
it is left out with a note. `where` of a refusal is the parameter as it was written.
"""

import base64
import difflib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from urllib.parse import parse_qsl, quote, urlencode

from gateway.domain.refusal import Refusal, RefusalKind, Refused
from gateway.domain.resource_search import (
    ID,
    LAST_UPDATED,
    OLDEST_FIRST,
    Comparison,
    Criterion,
    How,
    Position,
    Sorting,
    SortKey,
)
from gateway.wire import fhir_references
from gateway.wire.fhir_index import date_range, folded, indexed, key_of, values_at
from gateway.wire.fhir_references import Way
from gateway.wire.fhir_release import Release
from gateway.wire.fhir_search_parameters import Parameter, ParameterKind, parameters_of, searched_types

__all__ = [
    "COUNT_DEFAULT", "COUNT_MAX", "CURSOR", "Include", "Search", "cursor_of", "indexed", "parameters", "parse",
    "parse_condition", "types_asked", "types_of", "values_at",
]  # fmt: skip

COUNT_DEFAULT, COUNT_MAX = 50, 500
"""Resources a page, unless told, and at most: some megabytes."""

PARAMETERS_MAX, VALUES_MAX = 64, 200
"""Of one query, and of one parameter between commas: each is a look into the index."""

COMPARISONS_MAX = 2_000
"""Of one query in all: an id without its type is one for each type that is referred to."""

CONTAINED_MAX = 10
"""Values of `:contains`: each is a walk along the whole index of its parameter."""

CURSOR = "_cursor"
"""The parameter of the links between pages. What it says is the server's own business."""


@dataclass(frozen=True, slots=True)
class Include:
    """`_include` (what found resources refer to) or `_revinclude` (what refers to them) by one parameter of a type."""

    type: str
    parameter: str
    target: str = ""
    iterate: bool = False


@dataclass(frozen=True, slots=True)
class Search:
    """A query, read. `count` is resources a page; with `only_count` there are none, and the number only is wanted."""

    type: str
    criteria: tuple[Criterion, ...] = field(default=(), repr=False)
    sorting: Sorting = OLDEST_FIRST
    count: int = COUNT_DEFAULT
    only_count: bool = False
    total: bool = False
    includes: tuple[Include, ...] = ()
    revincludes: tuple[Include, ...] = ()
    elements: tuple[str, ...] = ()
    after: Position | None = None
    notes: tuple[str, ...] = field(default=(), repr=False)
    query: str = field(default="", repr=False)
    """What was understood, for the page's own link; without the cursor."""
    release: Release = Release.R4


def parameters(type: str, release: Release) -> Mapping[str, str]:
    """The search parameters of a type by name, each with its kind (token, reference, date, string, uri)."""
    read = {name: parameter.kind.value for name, parameter in parameters_of(type, release).items()}
    return {ID: "token", LAST_UPDATED: "date"} | read


def parse(type: str, query: str, release: Release, bases: Sequence[str] = (), lenient: bool = False) -> Search:
    """The search that a query string (`patient=1&status=active`) asks for.

    `bases` are the URLs that this server is known by. Raises Refused, `where` = the parameter.
    """
    return _Query(type, release, bases, lenient).read(query)


def parse_condition(type: str, query: str, release: Release, bases: Sequence[str] = ()) -> tuple[Criterion, ...]:
    """The criteria of a conditional create, update, patch or delete, or of a conditional reference.

    Raises Refused where nothing is asked, or anything that is about pages.
    """
    search = parse(type, query, release, bases)
    known = Search(type, search.criteria, query=search.query, release=release)
    if search != known or not search.criteria:
        raise Refused(
            Refusal(
                RefusalKind.UNUSABLE_QUERY, "", "a condition asks by search parameters, and by nothing else",
                "send such as identifier=SYSTEM|VALUE",
            )
        )  # fmt: skip
    return search.criteria


def types_asked(search: Search) -> frozenset[str]:
    """The types of resources that its answer tells of, beside the one searched and what is included: those that chains
    lead to, and those that are to refer to what is found."""
    return types_of(search.criteria) | {include.type for include in search.revincludes}


def types_of(criteria: Sequence[Criterion]) -> frozenset[str]:
    """The types of resources that chains among these criteria lead to."""
    return frozenset(
        found for each in criteria for type_, inner in each.chain for found in (type_, *types_of((inner,)))
    )


def _comparisons(criterion: Criterion) -> int:
    return len(criterion.tests) + sum(_comparisons(inner) for _, inner in criterion.chain)


def cursor_of(position: Position) -> str:
    """Where the next page begins, as a value of `CURSOR`."""
    return base64.urlsafe_b64encode(json.dumps(list(position)).encode()).decode().rstrip("=")


def _position(said: str) -> Position | None:
    try:
        sorted_by, number = json.loads(base64.urlsafe_b64decode(said + "=" * (-len(said) % 4)))
    except (ValueError, TypeError, RecursionError):  # it may be any JSON at all
        return None
    sound = isinstance(sorted_by, str) and type(number) is int and 0 <= number < 2**63
    return Position(sorted_by, number) if sound else None


class _Query:
    """A query while it is read; what is wrong is gathered."""

    def __init__(self, type_: str, release: Release, bases: Sequence[str], lenient: bool) -> None:
        self._release, self._bases, self._lenient = release, bases, lenient
        self._search = Search(type_, release=release)
        self._refusals: list[Refusal] = []

    def read(self, query: str) -> Search:
        try:
            pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=PARAMETERS_MAX, errors="strict")
        except ValueError:
            self._refuse("", f"the query has more than {PARAMETERS_MAX} parameters, or is no UTF-8", "ask for less")
            raise Refused(*self._refusals) from None
        understood = [(name, value) for name, value in pairs if self._parameter(name, value)]
        if sum(map(_comparisons, self._search.criteria)) > COMPARISONS_MAX:
            self._refuse("", f"it comes to more than {COMPARISONS_MAX} comparisons", "ask several times, with the type")
        if self._refusals:
            raise Refused(*self._refusals)
        own = urlencode([pair for pair in understood if pair[0] != CURSOR], safe=",|:/", quote_via=quote)
        return replace(self._search, query=own)

    def _refuse(self, where: str, text: str, hint: str) -> None:
        self._refusals.append(Refusal(RefusalKind.UNUSABLE_QUERY, where, text, hint))

    def _parameter(self, name: str, value: str) -> bool:
        """Take it up; whether it was understood."""
        if name in _IGNORED:
            return False
        control = _CONTROLS.get(name)
        if control is not None:
            problem = control(self, value)
            if problem:
                self._refuse(name, problem, CONTROL_HINTS.get(name, ""))
            return not problem
        before = len(self._refusals)
        criterion = self._criterion(self._search.type, name, value, name)
        if criterion is not None:
            self._search = replace(self._search, criteria=(*self._search.criteria, criterion))
            return True
        if self._lenient:
            for refusal in self._refusals[before:]:
                note = f"{refusal.where} was left out: {refusal.text}"
                self._search = replace(self._search, notes=(*self._search.notes, note))
            del self._refusals[before:]
        return False

    # -- criteria

    def _criterion(self, type_: str, said: str, value: str, where: str) -> Criterion | None:
        """What `said` (a parameter with its modifier) asks of this type; None with a refusal."""
        head, _, inner = said.partition(".")
        name, _, modifier = head.partition(":")
        values_max = CONTAINED_MAX if modifier == "contains" else VALUES_MAX
        if len(_split(value, ",")) > values_max:
            self._refuse(where, f"has more than {values_max} values", "ask several times")
            return None
        if name == ID:
            return self._id(value, modifier, inner, where)
        if name == LAST_UPDATED:
            return None if self._unfit(modifier, inner, where) else self._dates(name, value, where, instants=True)
        known = parameters_of(type_, self._release)
        parameter = known.get(name)
        if parameter is None:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join([ID, LAST_UPDATED, *known])}"
            self._refuse(where, f"is no search parameter of {type_}", hint)
            return None
        if inner:
            return self._chained(parameter, modifier, inner, value, where)
        if modifier == "missing":
            return self._missing(parameter, value, where)
        return self._of_kind(parameter, modifier, value, where)

    def _of_kind(self, parameter: Parameter, modifier: str, value: str, where: str) -> Criterion | None:
        if not value:
            self._refuse(where, "has no value", "give one, or leave the parameter out")
            return None
        match parameter.kind:
            case ParameterKind.TOKEN:
                negated = modifier == "not"
                unfit = self._unfit(modifier if not negated else "", "", where)
                tests = self._tokens(value, where)
                return None if unfit or tests is None else Criterion(parameter.name, tests, negated)
            case ParameterKind.REFERENCE:
                return self._reference(parameter, modifier, value, where)
            case ParameterKind.DATE:
                return None if self._unfit(modifier, "", where) else self._dates(parameter.name, value, where)
            case ParameterKind.STRING:
                return self._string(parameter, modifier, value, where)
            case ParameterKind.URI:
                if self._unfit(modifier, "", where):
                    return None
                tests = tuple(Comparison(How.VALUE, key_of(_plain(each))) for each in _split(value, ","))
                return Criterion(parameter.name, tests)

    def _unfit(self, modifier: str, inner: str, where: str) -> bool:
        """Whether there is a modifier or a chain where none is understood; refused then."""
        if modifier or inner:
            self._refuse(where, "has a modifier or a chain that is not understood here", "leave it out")
        return bool(modifier or inner)

    def _id(self, value: str, modifier: str, inner: str, where: str) -> Criterion | None:
        ids = _split(value, ",")
        if self._unfit(modifier, inner, where):
            return None
        if not all(fhir_references.ID.fullmatch(each) for each in ids):
            self._refuse(where, "is no id", "ids have 1 to 64 letters, digits, '-' and '.'")
            return None
        return Criterion(ID, tuple(Comparison(How.VALUE, each) for each in ids))

    def _missing(self, parameter: Parameter, value: str, where: str) -> Criterion | None:
        if value not in ("true", "false"):
            self._refuse(where, "is neither true nor false", "send :missing=true or :missing=false")
            return None
        return Criterion(parameter.name, (Comparison(How.ANY),), negated=value == "true")

    def _tokens(self, value: str, where: str) -> tuple[Comparison, ...] | None:
        tests = []
        for each in _split(value, ","):
            parts = [_plain(part) for part in _split(each, "|")]
            if len(parts) > 2 or not any(parts):
                self._refuse(where, "is no token", "send CODE, SYSTEM|CODE, |CODE or SYSTEM|")
                return None
            tests.append(_token(parts))
        return tuple(tests)

    def _reference(self, parameter: Parameter, modifier: str, value: str, where: str) -> Criterion | None:
        if modifier == "identifier":
            tests = self._tokens(value, where)
            return None if tests is None else Criterion(f"{parameter.name}:identifier", tests)
        if modifier and modifier not in (parameter.targets or searched_types()):
            self._unfit(modifier, "", where)
            return None
        targets = (modifier,) if modifier else parameter.targets
        return Criterion(
            parameter.name,
            tuple(test for each in _split(value, ",") for test in self._referred(_plain(each), targets)),
        )

    def _referred(self, said: str, targets: Sequence[str]) -> Iterator[Comparison]:
        reference = fhir_references.read(said, self._bases)
        if reference.way is Way.LOCAL:
            yield Comparison(How.VALUE, key_of(reference.local))
        elif fhir_references.ID.fullmatch(said):
            yield from (Comparison(How.VALUE, f"{type_}/{said}") for type_ in targets)
            if not targets:
                yield Comparison(How.ENDS, f"/{said}")
        else:
            yield Comparison(How.VALUE, key_of(said))

    def _chained(self, parameter: Parameter, modifier: str, inner: str, value: str, where: str) -> Criterion | None:
        if parameter.kind is not ParameterKind.REFERENCE or "." in inner:
            self._refuse(where, "is a chain that is not understood", "ask by one reference, as in patient.identifier")
            return None
        name = inner.partition(":")[0]
        known = parameter.targets or searched_types()
        if modifier and modifier not in known:
            self._refuse(where, f"{parameter.name} refers to no such type", f"it refers to {', '.join(known)}")
            return None
        targets = (modifier,) if modifier else parameter.targets
        fitting = [type_ for type_ in targets if name in parameters(type_, self._release)]
        if not fitting:
            self._refuse(
                where, f"{name} is no search parameter of what {parameter.name} refers to",
                f"say the type as in {parameter.name}:Patient.{name}",
            )  # fmt: skip
            return None
        chain = [(type_, self._criterion(type_, inner, value, where)) for type_ in fitting]
        met = tuple((type_, criterion) for type_, criterion in chain if criterion is not None)
        return Criterion(parameter.name, chain=met) if len(met) == len(chain) else None

    def _dates(self, name: str, value: str, where: str, instants: bool = False) -> Criterion | None:
        tests: list[Comparison] = []
        for each in _split(value, ","):
            prefix, said = (each[:2], each[2:]) if each[:2].isalpha() else ("eq", each)
            span = date_range(said.replace(" ", "+"))  # a + of a URL that was not escaped
            hows = (_INSTANT_HOWS if instants else _DATE_HOWS).get(prefix)
            if span is None or hows is None:
                self._refuse(where, "is no date", f"send such as ge2026-07-05 ({', '.join(_DATE_HOWS)})")
                return None
            low, high = (span.first, span.last) if instants else (span.first[:14], span.last[:14])
            tests += [Comparison(how, low, high) for how in hows]
        return Criterion(name, tuple(tests))

    def _string(self, parameter: Parameter, modifier: str, value: str, where: str) -> Criterion | None:
        if modifier not in ("", "exact", "contains"):
            self._unfit(modifier, "", where)
            return None
        tests = []
        for each in map(_plain, _split(value, ",")):
            if modifier == "exact":
                tests.append(Comparison(How.VALUE_OF_SYSTEM, folded(each), key_of(each)))
            else:
                tests.append(Comparison(How.CONTAINS if modifier else How.STARTS, folded(each)))
        if not all(test.low for test in tests):
            self._refuse(where, "has no letters", "give the beginning of what is looked for")
            return None
        return Criterion(parameter.name, tuple(tests))

    # -- what is about pages

    def _count(self, value: str) -> str:
        if not re.fullmatch(r"[0-9]{1,9}", value):
            return "is no number"
        count = int(value)
        self._search = replace(self._search, count=min(count, COUNT_MAX), only_count=count == 0)
        return ""

    def _sort(self, value: str) -> str:
        name = value.removeprefix("-")
        authored = name in ("authored", "authored-on") and name in parameters_of(self._search.type, self._release)
        if name not in (ID, LAST_UPDATED) and not authored:
            return "nothing is sorted by that" if "," not in value else "is more than one thing to sort by"
        by = SortKey.AUTHORED if authored else SortKey(name)
        self._search = replace(self._search, sorting=Sorting(by, value.startswith("-")))
        return ""

    def _summary(self, value: str) -> str:
        if value == "count":
            self._search = replace(self._search, only_count=True, total=True)
        elif value in ("true", "text", "data"):  # a server may send more than was asked for (search.html#summary)
            note = f"_summary={value} is not made here: resources are whole"
            self._search = replace(self._search, notes=(*self._search.notes, note))
        elif value != "false":
            return "is no kind of summary"
        return ""

    def _total(self, value: str) -> str:
        if value not in ("none", "estimate", "accurate"):
            return "is no way of counting"
        self._search = replace(self._search, total=value != "none")
        return ""

    def _elements(self, value: str) -> str:
        names = tuple(each.strip() for each in value.split(","))
        if not all(re.fullmatch(r"[a-z][A-Za-z]{0,63}", name) for name in names):
            return "names something that is no element"
        self._search = replace(self._search, elements=(*self._search.elements, *names))
        return ""

    def _after(self, value: str) -> str:
        position = _position(value)
        if position is None:
            return "is no place between pages"
        self._search = replace(self._search, after=position)
        return ""

    def _include(self, value: str, iterate: bool = False) -> str:
        include = self._included(value, iterate)
        if isinstance(include, str):
            return include
        if include.type != self._search.type and not iterate:
            return f"is about {include.type}, and {self._search.type} is searched; write _include:iterate"
        self._search = replace(self._search, includes=(*self._search.includes, include))
        return ""

    def _revinclude(self, value: str, iterate: bool = False) -> str:
        include = self._included(value, iterate)
        if isinstance(include, str):
            return include
        self._search = replace(self._search, revincludes=(*self._search.revincludes, include))
        return ""

    def _included(self, value: str, iterate: bool) -> Include | str:
        type_, name, target = (*value.split(":"), "", "")[:3]
        known = parameters_of(type_, self._release)
        if value.count(":") > 2 or name not in known or known[name].kind is not ParameterKind.REFERENCE:
            own = [f"{type_}:{each}" for each, its in known.items() if its.kind is ParameterKind.REFERENCE]
            return f"names no reference parameter{'; there are ' if own else ''}{', '.join(own)}"
        return Include(type_, name, target, iterate)


_Control = Callable[[_Query, str], str]  # what is wrong, or ''

_CONTROLS: Mapping[str, _Control] = {
    "_count": _Query._count,
    "_sort": _Query._sort,
    "_summary": _Query._summary,
    "_total": _Query._total,
    "_elements": _Query._elements,
    CURSOR: _Query._after,
    "_include": _Query._include,
    "_revinclude": _Query._revinclude,
    "_include:iterate": lambda query, value: query._include(value, iterate=True),
    "_revinclude:iterate": lambda query, value: query._revinclude(value, iterate=True),
}
CONTROL_HINTS: Mapping[str, str] = {
    "_count": "send how many resources a page has, as in _count=50",
    "_sort": "sort by _lastUpdated, _id or authored, with - before it for the newest first",
    "_summary": "send count or false",
    "_total": "send none or accurate",
    "_elements": "send names of elements with commas between",
    CURSOR: "follow the links of a page as they are",
} | dict.fromkeys(
    ("_include", "_revinclude", "_include:iterate", "_revinclude:iterate"),
    "send TYPE:PARAMETER or TYPE:PARAMETER:TARGET, as in ServiceRequest:requester",
)
"""What shapes the result -> how it is said."""
_IGNORED = frozenset({"_format", "_pretty"})  # the HTTP edge reads them

_DATE_HOWS: Mapping[str, tuple[How, ...]] = {
    "eq": (How.WITHIN,),
    "ne": (How.GREATER, How.LESS),
    "gt": (How.GREATER,),
    "lt": (How.LESS,),
    "ge": (How.GREATER, How.WITHIN),
    "le": (How.LESS, How.WITHIN),
    "sa": (How.AFTER,),
    "eb": (How.BEFORE,),
    "ap": (How.OVERLAPS,),
}
"""The prefixes of dates (search.html#prefix); any of these comparisons with the range of what is held."""

_INSTANT_HOWS = dict(_DATE_HOWS) | {"ge": (How.FROM,), "le": (How.UP_TO,)}  # one range of an index each


def _token(parts: Sequence[str]) -> Comparison:
    if len(parts) == 1:
        return Comparison(How.VALUE, key_of(parts[0]))
    system, code = parts
    return Comparison(How.VALUE_OF_SYSTEM, key_of(code), system) if code else Comparison(How.SYSTEM, "", system)


def _split(value: str, separator: str) -> list[str]:
    """What stands between separators that are not escaped; escapes stay."""
    if "\\" not in value:
        return value.split(separator)
    return re.findall(rf"(?:^|{re.escape(separator)})((?:\\.|[^{re.escape(separator)}\\]|\\$)*)", value, re.DOTALL)


def _plain(value: str) -> str:
    return re.sub(r"\\([,|$\\])", r"\1", value) if "\\" in value else value
