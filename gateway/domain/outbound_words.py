"""The words of outbound mappings: keys, choices and parts of a message, and what they mean.

The compiler checks outbound rule sets against these tables; the reference page and the JSON Schema come from them.
"""

from collections.abc import Mapping

TOP_KEYS: Mapping[str, str] = {
    "name": "what destinations call the rule set; without it the file's name",
    "version": "for people and traces",
    "extends": "the outbound rule set that this one changes; what it does not say stays as there",
    "description": "for people",
    "message": "MSH-9, such as OMG^O19^OMG_O19; or a list of {value, when}, of which the first that holds counts",
    "hl7": "MSH-12, in quotes: the version that the message is written in",
    "about": "what one message is about: order (default), procedure (one message for each) or patient",
    "segments": "the segments in their order",
    "converters": "the site's own Python functions by the names that rules use, as in inbound mappings",
    "rules": "where each field comes from, by its place; null takes a rule of the extended set away",
    "rows": "a list of segments with their own rules, by names of your choosing; null takes one away",
}
"""The keys of an outbound rule set."""

RULE_KEYS: Mapping[str, str] = {
    "from": "what is read, or several of which the first with a value wins",
    "with": "what goes with it, of the same item: the time of a date, the issuer of an identifier, a person's ID",
    "when": '{PATH: value or values}: only if all of them hold; "*" is any value, "" is none',
    "unless": "{PATH: value or values}: not if one of them holds",
    "edit": "changes to the text before it is converted, in turn",
    "convert": "a converter, or {table: NAME} for mappings/codes/NAME.csv; most values need none",
    "unknown": "a text that is not in the table: refuse, omit or keep",
    "repeat": "first (default), all (several repetitions) or join (one text)",
    "value": "a constant instead of from, with ^, & and ~ as in HL7",
    "missing": "omit (default), refuse (the message is parked with the reason), or {default: VALUE}",
}
"""The keys of a rule."""

SEGMENT_KEYS: Mapping[str, str] = {
    "segment": "a segment that is written only under conditions",
    "when": "as in a rule",
    "unless": "as in a rule",
    "each": "`procedure`, `step`, or the path of a sequence: the segments are written for each of them",
    "segments": "the segments of the group",
}
"""The keys of an entry of `segments` that is not just a name."""

ROWS = "rows"
"""The entry of `segments` where the rows stand."""
EACH_PROCEDURE, EACH_STEP = "procedure", "step"
ABOUT = ("order", "procedure", "patient")
MISSING = ("omit", "refuse")
VERSIONS = ("2.2", "2.3", "2.3.1", "2.4", "2.5", "2.5.1", "2.6", "2.7", "2.7.1", "2.8", "2.8.1", "2.8.2", "2.9")

PATHS: Mapping[str, str] = {
    "PatientName": "an attribute of the worklist item: patient, visit, order, requested procedure",
    "ScheduledProcedureStepSequence.KEYWORD": "of its scheduled steps; inside `each: step` of that one",
    "performed.KEYWORD": "of the performed step, also `performed.PerformedSeriesSequence.OperatorsName`",
    "event.NAME": "a fact, see below",
    "number": "which segment of its name in the message, or which row this is, from 1",
    "turn": "which item of the sequence of `each` this is, from 1",
}
"""What `from`, `with`, `when`, `unless` and `each` may read."""
