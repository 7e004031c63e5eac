"""The functions of FHIRPath that rules may use: what each gives, what it takes, and how it looks at what stands before.

Every function of fhirpathpy is in one of these tables; a test holds them together.
"""

from collections.abc import Mapping
from enum import Enum
from typing import NamedTuple


class Gives(Enum):
    """What comes out of a function."""

    SAME = "items of what stands before"
    ONE_OF = "one item of what stands before"
    ARGUMENT = "what the argument gives, of each item"
    BOTH = "items of what stands before and of the argument"
    BRANCH = "what one of the arguments gives"
    ANYTHING = "anything"
    BOOLEAN = "boolean"
    STRING = "string"
    STRINGS = "strings"
    INTEGER = "integer"
    DECIMAL = "decimal"
    DATE = "date"
    DATE_TIME = "dateTime"
    TIME = "time"
    QUANTITY = "Quantity"
    RESOURCE = "what the reference leads to"
    EXTENSION = "Extension"
    TYPED = "items of the type named"


class Takes(Enum):
    """What an argument is put to."""

    ITEM = "each item of what stands before"
    CONTEXT = "what the whole expression is put to"
    TYPE = "the name of a type"


class Function(NamedTuple):
    """A row: what it gives, the numbers of arguments that it takes, and to what these are put."""

    gives: Gives
    arguments: frozenset[int] = frozenset({0})
    takes: Takes = Takes.CONTEXT
    of_one: bool = False
    """Whether it fails where several items stand before it."""


def _row(gives: Gives, *arguments: int, takes: Takes = Takes.CONTEXT, of_one: bool = False) -> Function:
    return Function(gives, frozenset(arguments or (0,)), takes, of_one)


_ITEM = Takes.ITEM
FUNCTIONS: Mapping[str, Function] = {
    # which items
    "where": _row(Gives.SAME, 1, takes=_ITEM),
    "first": _row(Gives.ONE_OF),
    "last": _row(Gives.ONE_OF),
    "single": _row(Gives.ONE_OF, of_one=True),
    "tail": _row(Gives.SAME),
    "take": _row(Gives.SAME, 1),
    "skip": _row(Gives.SAME, 1),
    "distinct": _row(Gives.SAME),
    "exclude": _row(Gives.SAME, 1),
    "intersect": _row(Gives.SAME, 1),
    "union": _row(Gives.BOTH, 1),
    "combine": _row(Gives.BOTH, 1),
    "ofType": _row(Gives.TYPED, 1, takes=Takes.TYPE),
    "as": _row(Gives.TYPED, 1, takes=Takes.TYPE, of_one=True),
    # what else
    "select": _row(Gives.ARGUMENT, 1, takes=_ITEM),
    "repeat": _row(Gives.ANYTHING, 1, takes=_ITEM),
    "extension": _row(Gives.EXTENSION, 1),
    "resolve": _row(Gives.RESOURCE),
    "children": _row(Gives.ANYTHING),
    "descendants": _row(Gives.ANYTHING),
    "iif": _row(Gives.BRANCH, 2, 3, takes=_ITEM, of_one=True),
    "coalesce": _row(Gives.BRANCH, *range(1, 9), takes=_ITEM),
    "aggregate": _row(Gives.ANYTHING, 1, 2, takes=_ITEM),
    # whether
    "exists": _row(Gives.BOOLEAN, 0, 1, takes=_ITEM),
    "all": _row(Gives.BOOLEAN, 1, takes=_ITEM),
    "is": _row(Gives.BOOLEAN, 1, takes=Takes.TYPE, of_one=True),
    **dict.fromkeys(("empty", "allTrue", "anyTrue", "allFalse", "anyFalse", "isDistinct"), _row(Gives.BOOLEAN)),
    **dict.fromkeys(("subsetOf", "supersetOf"), _row(Gives.BOOLEAN, 1)),
    "not": _row(Gives.BOOLEAN, of_one=True),
    **dict.fromkeys(("startsWith", "endsWith", "contains", "matches"), _row(Gives.BOOLEAN, 1, of_one=True)),
    **dict.fromkeys(
        ("convertsToBoolean", "convertsToInteger", "convertsToDecimal", "convertsToString", "convertsToDate",
         "convertsToDateTime", "convertsToTime", "convertsToQuantity"), _row(Gives.BOOLEAN, of_one=True),
    ),
    # texts
    **dict.fromkeys(("upper", "lower", "trim", "toString"), _row(Gives.STRING, of_one=True)),
    "substring": _row(Gives.STRING, 1, 2, of_one=True),
    **dict.fromkeys(("replace", "replaceMatches"), _row(Gives.STRING, 2, of_one=True)),
    **dict.fromkeys(("encode", "decode"), _row(Gives.STRING, 1, of_one=True)),
    "join": _row(Gives.STRING, 0, 1),
    "split": _row(Gives.STRINGS, 1, of_one=True),
    "toChars": _row(Gives.STRINGS, of_one=True),
    # numbers and times
    "count": _row(Gives.INTEGER),
    "indexOf": _row(Gives.INTEGER, 1, of_one=True),
    **dict.fromkeys(("length", "toInteger", "floor", "ceiling", "truncate"), _row(Gives.INTEGER, of_one=True)),
    **dict.fromkeys(("toDecimal", "abs", "exp", "ln", "sqrt"), _row(Gives.DECIMAL, of_one=True)),
    **dict.fromkeys(("log", "power", "round"), _row(Gives.DECIMAL, 1, of_one=True)),
    **dict.fromkeys(("sum", "min", "max", "avg"), _row(Gives.ANYTHING)),
    "toBoolean": _row(Gives.BOOLEAN, of_one=True),
    "toDate": _row(Gives.DATE, of_one=True),
    "toDateTime": _row(Gives.DATE_TIME, of_one=True),
    "toTime": _row(Gives.TIME, of_one=True),
    "toQuantity": _row(Gives.QUANTITY, 0, 1, of_one=True),
}  # fmt: skip

OF_NOTHING = frozenset(
    {"iif", "coalesce", "union", "combine", "exists", "all", "empty", "count", "aggregate", "join", "sum", "not",
     "allTrue", "anyTrue", "allFalse", "anyFalse", "isDistinct", "subsetOf", "supersetOf"}
)  # fmt: skip
"""Functions that may give something although there is nothing before them."""

_OF_TODAY = "a message has to mean the same tomorrow: explain and replay read it again"
NOT_HERE: Mapping[str, str] = {
    "now": _OF_TODAY,
    "today": _OF_TODAY,
    "timeOfDay": _OF_TODAY,
    "trace": "it writes patients' data to the log",
    "type": "ask with is(TYPE), or choose with ofType(TYPE)",
}
"""Functions that there are and rules may not use, with the reason or what to use instead."""

VARIABLES: Mapping[str, str] = {
    "step": "a text of at most 16 characters made of the id of the Task or Appointment; nothing without one",
    "procedure": "the same of a ServiceRequest that has a parent",
    "server": "base URL of the server that the resources are from",
    "ucum": "http://unitsofmeasure.org",
}
"""Environment variables, without their %."""
