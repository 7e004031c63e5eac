"""Where a value of a mapping came from, for explanations."""

from typing import Any, NamedTuple

from gateway.domain.attributes import TAG, person_name_text, text
from gateway.domain.source import Sourced


class TraceEntry(NamedTuple):
    """Where one value came from: target, coordinates and raw text, the rule and converter that made the value.

    `subject` says of which order, procedure or step; `where` is empty for constants and made-up values.
    """

    target: str
    where: str
    raw: str
    rule: str
    converter: str
    value: str
    subject: str = ""


def plain(value: Any) -> str:
    """A value or what was read, as people write it."""
    if isinstance(value, list | tuple) and not isinstance(value, Sourced):
        return "\\".join(plain(one) for one in value)
    if isinstance(value, Sourced):
        return "^".join("&".join(parts) for parts in value.repetition)
    if isinstance(value, dict):
        if TAG["CodeMeaning"] in value:
            code = text(value, "CodeValue") or text(value, "LongCodeValue") or text(value, "URNCodeValue")
            return f"{code}^{text(value, 'CodeMeaning')}^{text(value, 'CodingSchemeDesignator')}"
        if any(group in value for group in ("Alphabetic", "Ideographic", "Phonetic")):
            return person_name_text(value)
        return " ".join(plain(found.get("Value", "")) for found in value.values())
    return str(value)
