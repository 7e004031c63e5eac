"""Why performed steps are discontinued, and what that means for the scheduled step (CID 9300)."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from gateway.domain.attributes import Attributes, code_item
from gateway.domain.performed import PerformedStep, text_of
from gateway.domain.refusal import Refusal, RefusalKind, Refused

DISCONTINUATION_REASON = "00400281"
_CODE_VALUE, _CODING_SCHEME = "00080100", "00080102"


class Consequence(Enum):
    """What a discontinuation means for the scheduled step."""

    RETURN = "back on the worklist"
    GIVE_UP = "off the worklist"
    WRONG_ENTRY = "as if this performed step had never been"


@dataclass(frozen=True, slots=True)
class Reason:
    """A DCM code of CID 9300 "Procedure Discontinuation Reason" and what it does here."""

    code: str
    meaning: str
    consequence: Consequence


_MISPRINT, _MEANT = "110541", "110514"

# Only what says that nobody wants the step any more takes it off the list: an item wrongly kept costs a question, an
# item wrongly gone costs the patient. So a refusal by the patient, who may consent later, returns it as well.
REASONS: tuple[Reason, ...] = (
    Reason("110500", "Doctor canceled procedure", Consequence.GIVE_UP),
    Reason("110501", "Equipment failure", Consequence.RETURN),
    Reason("110502", "Incorrect procedure ordered", Consequence.RETURN),
    Reason("110503", "Patient allergic to media/contrast", Consequence.RETURN),
    Reason("110504", "Patient died", Consequence.GIVE_UP),
    Reason("110505", "Patient refused to continue procedure", Consequence.RETURN),
    Reason("110506", "Patient taken for treatment or surgery", Consequence.RETURN),
    Reason("110507", "Patient did not arrive", Consequence.RETURN),
    Reason("110508", "Patient pregnant", Consequence.RETURN),
    Reason("110509", "Change of procedure for correct charging", Consequence.RETURN),
    Reason("110510", "Duplicate order", Consequence.GIVE_UP),
    Reason("110511", "Nursing unit cancel", Consequence.GIVE_UP),
    Reason("110512", "Incorrect side ordered", Consequence.RETURN),
    Reason("110513", "Discontinued for unspecified reason", Consequence.RETURN),
    Reason("110514", "Incorrect worklist entry selected", Consequence.WRONG_ENTRY),
    # Consoles and a printed thread of a standards list have the code so; nothing else bears it.
    Reason(_MISPRINT, "Incorrect worklist entry selected (misprint of 110514)", Consequence.WRONG_ENTRY),
    Reason("110515", "Patient condition prevented continuing", Consequence.RETURN),
    Reason("110516", "Equipment change", Consequence.RETURN),
    Reason("110521", "Objects incorrectly formatted", Consequence.RETURN),
    Reason("110522", "Object Types not supported", Consequence.RETURN),
    Reason("110523", "Object Set incomplete", Consequence.RETURN),
    Reason("110524", "Media Failure", Consequence.RETURN),
    Reason("110526", "Resource pre-empted", Consequence.RETURN),
    Reason("110527", "Resource inadequate", Consequence.RETURN),
    Reason("110528", "Discontinued Procedure Step rescheduled", Consequence.RETURN),
    Reason("110529", "Discontinued Procedure Step rescheduling recommended", Consequence.RETURN),
    Reason("110530", "Workitem assignment rejected by assigned resource", Consequence.RETURN),
    Reason("110533", "Workitem expired", Consequence.RETURN),
    Reason("113568", "Extravasation visible in image", Consequence.RETURN),
)
_CONSEQUENCES: Mapping[str, Consequence] = {reason.code: reason.consequence for reason in REASONS}


def consequence(performed: PerformedStep) -> Consequence:
    """What the reasons of a discontinued step come to. Any code is accepted; one that is not in `REASONS` returns."""
    sequence = performed.attributes.get(DISCONTINUATION_REASON) or {}
    found = {
        _CONSEQUENCES.get(text_of(item, _CODE_VALUE), Consequence.RETURN)
        for item in sequence.get("Value") or ()
        if isinstance(item, dict) and text_of(item, _CODING_SCHEME) in ("DCM", "")
    }
    for decisive in (Consequence.WRONG_ENTRY, Consequence.GIVE_UP):
        if decisive in found:
            return decisive
    return Consequence.RETURN


CHOICES: tuple[Reason, ...] = tuple(reason for reason in REASONS if reason.code != _MISPRINT)
"""What a person may give as the reason. Senders are believed whatever they say."""


def chosen(code: str) -> str:
    """The code to write for the one that a person gave. Raises Refused where it is none of `CHOICES`."""
    said = code.strip()
    meant = _MEANT if said == _MISPRINT else said
    if meant not in {reason.code for reason in CHOICES}:
        raise Refused(Refusal(
            RefusalKind.UNKNOWN_CODE, "reason", f"{said} is none of the reasons of CID 9300", f"give one of {choices()}"
        ))  # fmt: skip
    return meant


def choices() -> str:
    """The codes that may be given, with what they mean."""
    return "; ".join(f"{reason.code} {reason.meaning}" for reason in CHOICES)


def reason_item(code: str) -> Attributes:
    """The item of the reason code sequence for a DCM code."""
    return code_item(code, "DCM", next((reason.meaning for reason in REASONS if reason.code == code), code))
