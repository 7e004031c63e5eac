"""Whether what was performed is what was requested (spec case "performed differs from ordered"), by its codes.

Nothing follows from a difference here: it is told, and a person or the RIS decides what becomes of the order.
"""

from collections.abc import Iterable, Mapping

from gateway.domain.attributes import Attributes, Element
from gateway.domain.performed import text_of
from gateway.domain.worklist import WorklistItem

_PERFORMED_PROCEDURE, _REQUESTED_PROCEDURE = "00081032", "00321064"
_PERFORMED_PROTOCOL, _SCHEDULED_PROTOCOL = "00400260", "00400008"
_CODE_VALUES = ("00080100", "00080119", "00080120")  # short, long, URN
_CODING_SCHEME = "00080102"


def names_codes(performed: Mapping[str, Element]) -> bool:
    """Whether there is anything to compare."""
    return bool(_codes(performed, _PERFORMED_PROCEDURE) or _codes(performed, _PERFORMED_PROTOCOL))


def deviations(performed: Attributes, items: Iterable[WorklistItem]) -> tuple[str, ...]:
    """What was performed that none of the scheduled steps asked for; without values, for notes."""
    requested: set[tuple[str, str]] = set()
    scheduled: set[tuple[str, str]] = set()
    for item in items:
        requested |= _codes(item.attributes, _REQUESTED_PROCEDURE)
        scheduled |= _codes(item.step, _SCHEDULED_PROTOCOL)
    found = []
    if requested and _codes(performed, _PERFORMED_PROCEDURE) - requested:
        found.append("a procedure was performed that was not requested")
    if scheduled and _codes(performed, _PERFORMED_PROTOCOL) - scheduled:
        found.append("a protocol was performed that was not scheduled")
    return tuple(found)


def _codes(attributes: Mapping[str, Element], tag: str) -> set[tuple[str, str]]:
    """(code, scheme) of each item of a code sequence."""
    items = (attributes.get(tag) or {}).get("Value") or ()
    found = (
        (next(filter(None, (text_of(item, each) for each in _CODE_VALUES)), ""), text_of(item, _CODING_SCHEME))
        for item in items
        if isinstance(item, dict)
    )
    return {code for code in found if code[0]}
