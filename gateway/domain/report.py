"""What is told to others of one order: the document that an outbound mapping reads (`domain.outbound`).

Everything in it is plain values, so that a mapping can be tried on it without a store.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from gateway.domain.attributes import Attributes
from gateway.domain.source import Repetition


@dataclass(frozen=True, slots=True)
class Report:
    """One thing to tell of one order, or of a patient alone (then there are no `items`).

    `facts` are what is neither worklist item nor performed step, by the names of `FACTS`. `person` holds the attributes
    of patient and visit. `items` has one tree per requested procedure concerned: order and procedure attributes, with
    the procedure's steps inside the Scheduled Procedure Step Sequence. `performed` is the performed step that caused
    it; where none did, or one that does not count any more, the last one that does. `first` says that what it did was
    not told before, by another report of the same event (one for each procedure) or of an earlier one.
    """

    facts: Mapping[str, str] = field(repr=False)
    person: Attributes = field(repr=False)
    items: tuple[Attributes, ...] = field(default=(), repr=False)
    performed: Attributes = field(default_factory=dict, repr=False)
    first: bool = True


FACTS: Mapping[str, str] = {
    "OrderControl": "ORC-1 to send (HL7 table 0119)",
    "OrderStatus": "ORC-5 to send (HL7 table 0038)",
    "Progress": "what happened: started, step completed, performed, completed, returned, discontinued, canceled, held "
    "or added",
    "ResultStatus": "OBR-25 that fits the order status (HL7 table 0123)",
    "At": "when it happened, as HL7 date and time of the department's wall clock with its offset",
    "Placer": "placer order number, as an HL7 EI with the issuer's namespace, universal ID and type",
    "Filler": "filler order number, likewise; the accession number of an order that has no number at all",
    "Accession": "accession number of the requested procedure, likewise",
    "Began": "when the first performed step of the requested procedure began, as HL7 date and time",
    "Ended": "when the last one of those that ended did; nothing in a message that one begins",
    "PatientIDs": "the patient's identifiers, as repetitions of an HL7 CX",
    "PriorPatientIDs": "identifiers that the message which is passed on took away (MRG-1), likewise",
    "VisitNumber": "visit number, as an HL7 CX",
    "Location": "PV1-3 of the received message with its components, where it says what is held, as an HL7 PL",
    "Address": "PID-11 of the received message, likewise, as an HL7 XAD",
    "Telephones": "PID-13 of the received message, likewise, as repetitions of an HL7 XTN",
    "ReceivedType": "message type and event of the received message that is passed on, as ORM^O01",
    "ReceivedControlID": "its MSH-10",
    "DiscontinuationReason": "code, meaning and scheme of why the order is not completed, as an HL7 CE",
}
"""What `facts` may hold, with what each is. A mapping reads them as `event.NAME`."""

OF_PROCEDURE = ("Accession", "Began", "Ended")
"""Facts that differ from one requested procedure to the next: `Accession` is the first one's, `Accession 2` the
second's, and so on; a mapping reads its own procedure's as `event.Accession`."""


def of_procedure(name: str, number: int) -> str:
    """What such a fact is called for a requested procedure, by its number from 1."""
    return name if number == 1 else f"{name} {number}"


RESULT_STATUS: Mapping[str, str] = {
    "SC": "S", "IP": "I", "HD": "S", "CM": "R", "CA": "X", "DC": "X",
}  # fmt: skip
"""Order status (HL7 table 0038) -> OBR-25 (table 0123). Done is R, stored and not verified: nobody has read it yet."""


@dataclass(frozen=True, slots=True)
class Header:
    """What MSH says beside the message type: the applications and facilities of both sides, and when it is sent.

    `at` is on the department's wall clock: its zone gives the offset of all times in the message.
    """

    sending_application: str = "GATEWAY"
    sending_facility: str = ""
    receiving_application: str = ""
    receiving_facility: str = ""
    control_id: str = ""
    at: datetime | None = None
    processing_id: str = "P"
    charset: str = "UNICODE UTF-8"


# ---- facts that have components: text as HL7 writes it, with the usual delimiters ----

_ESCAPED: Mapping[str, str] = {"\\": "\\E\\", "|": "\\F\\", "^": "\\S\\", "&": "\\T\\", "~": "\\R\\"}
_PLAIN: Mapping[str, str] = {escaped[1]: sign for sign, escaped in _ESCAPED.items()}


def composed(repetitions: Iterable[Repetition]) -> str:
    """Repetitions as one text, trailing empty parts left out: `4711^^^HOSP^MR~0815`."""
    return "~".join(
        "^".join("&".join(map(_escaped, component)).rstrip("&") for component in repetition).rstrip("^")
        for repetition in repetitions
    )


def taken_apart(text: str) -> tuple[Repetition, ...]:
    """The reverse of `composed`."""
    if not text:
        return ()
    return tuple(
        tuple(tuple(map(_unescaped, component.split("&"))) for component in repetition.split("^"))
        for repetition in text.split("~")
    )


def _escaped(text: str) -> str:
    return "".join(_ESCAPED.get(sign, sign) for sign in text)


def _unescaped(text: str) -> str:
    plain, rest = "", text
    while rest:
        before, sign, rest = rest.partition("\\")
        plain += before
        if sign and rest[1:2] == "\\" and rest[0] in _PLAIN:
            plain, rest = plain + _PLAIN[rest[0]], rest[2:]
        else:
            plain += sign
    return plain
