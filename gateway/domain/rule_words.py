"""The words of the mapping language: keys, choices and targets, and what they mean.

The compiler checks rule sets against these tables; the reference page and the JSON Schema are generated from them.
"""

from collections.abc import Mapping

from gateway.domain.attributes import BY_KEYWORD, Level
from gateway.domain.rules import IDENTITY

FROM_IDENTITY = frozenset(IDENTITY) | {
    "IssuerOfPatientID", "TypeOfPatientID", "IssuerOfPatientIDQualifiersSequence", "OtherPatientIDsSequence",
    "IssuerOfAdmissionIDSequence", "OrderPlacerIdentifierSequence", "OrderFillerIdentifierSequence",
    "IssuerOfAccessionNumberSequence",
}  # fmt: skip
"""Attributes that no rule sets: they come from what `identity` says."""
LEVELS = (Level.PATIENT, Level.VISIT, Level.ORDER, Level.PROCEDURE, Level.STEP)
"""The levels that rules have targets at."""

TOP_KEYS: Mapping[str, str] = {
    "name": "what listeners call the rule set; without it the file's name",
    "version": "for people and traces",
    "fhir": "the release of FHIR that it reads (R4, R4B or R5): its paths are FHIRPath; without it they are HL7 v2's",
    "extends": "the rule set that this one changes; what it does not say stays as there",
    "description": "for people",
    "default_scheme": "coding scheme of codes that name none, such as 99HOSPITAL",
    "converters": "the site's own Python functions by the names that rules use: {NAME: {function: FILE.FUNCTION, ...}}",
    "identity": "where the keys of patient, visit, order, procedure and step come from",
    "rules": "where each attribute comes from; null takes a rule of the extended set away",
}
"""The keys of a rule set."""
RULE_KEYS: Mapping[str, str] = {
    "from": "a field, or several of which the first with a value wins; OBR-4.4 starts reading at component 4, "
    "OBR/NTE-3 reads the NTE that follow an OBR",
    "pick": "which repetitions count: {COMPONENT: value or values}, first, last, or a number from 1",
    "select": "{PATH: value or values}: only segments that have one of them",
    "when": '{PATH: value or values}: only if all of them hold; "*" is any value, "" is none',
    "unless": "{PATH: value or values}: not if one of them holds",
    "edit": "changes to the text before it is converted, in turn",
    "convert": "a converter, or {table: NAME} for mappings/codes/NAME.csv; text, dates, AE titles and UIDs need none",
    "with": "the field of the same segment that names the unit",
    "translate": "{map: NAME or names, to: SCHEME}: the code that means the same by mappings/codes/NAME.csv or .json",
    "unknown": "a code that is not in the table or map: refuse, omit or keep",
    "repeat": "first (default), all (several values) or join (one text)",
    "length": "refuse (default) or cut, with a note; identifiers are never cut",
    "value": "a constant instead of from",
    "missing": "omit (default), refuse, catalogue, stations, {default: VALUE}, or a list of them tried in turn",
}
"""The keys of a rule."""
IDENTITY_KEYS: Mapping[str, str] = {
    "from": "a field, or several of which the first with an identifier wins",
    "pick": "which repetitions count, as in a rule",
    "edit": "changes to the identifier, as in a rule",
    "missing": "omit, refuse, generate, or {derive: KEYWORD}",
    "prefer": "the authority whose patient identifier is the primary one; else the first is",
}
"""The keys of an identity."""
CONVERTER_KEYS: Mapping[str, str] = {
    "function": "FILE.FUNCTION: a function of mappings/converters/FILE.py that takes a text and answers one",
    "example": "a text to try it on, each time the rules are read",
    "gives": "what it has to answer to the example; left out: anything that is a text",
}
"""The keys of a converter of the site's own."""
REPEATS = ("first", "all", "join")
LENGTHS = ("refuse", "cut")
UNKNOWNS = ("refuse", "omit", "keep")
MISSING = ("omit", "refuse", "catalogue", "stations")


def may_be_cut(keyword: str, vr: str) -> bool:
    """Whether a value that is too long may be cut: identifiers and codes are whole or refused."""
    return vr in ("LO", "SH", "ST", "LT", "UT") and not keyword.endswith("ID")


def level_of(keyword: str) -> Level:
    """Where an attribute is held; the sender's offset from UTC goes with the procedure's scheduled start (D13)."""
    return Level.PROCEDURE if keyword == "TimezoneOffsetFromUTC" else BY_KEYWORD[keyword].level
