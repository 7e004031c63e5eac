"""Orders with one number of two issuers: two orders that may be one, if a site forgot to say whose numbers they are.

Two identifiers are the same only if their issuers are (design D10), so nothing is joined here and nothing guessed. A
note says what the site may want to name in `issuers`.
"""

from collections.abc import Iterator, Sequence

from gateway.domain.identifiers import Identifier, Issuers
from gateway.domain.order import Order
from gateway.domain.patient import Patient
from gateway.workflow.ports import Namesake, Unit


def said_of_namesakes(unit: Unit, order: Order, issuers: Issuers) -> Sequence[str]:
    """Notes on other orders of the same patient whose placer or filler number has this one's value. `order` is new.

    The same patient is who has the same record, or the same number of an issuer that `issuers` does not name: who
    forgot to name the issuer of order numbers may have forgotten that of patient numbers, too.
    """
    if order.placer is None and order.filler is None:
        return ()
    found = unit.namesakes(order.placer, order.filler)
    return tuple(dict.fromkeys(note for each in found for note in _notes(unit, order, each, issuers)))


def _notes(unit: Unit, order: Order, other: Namesake, issuers: Issuers) -> Iterator[str]:
    number = order.placer if other.kind == "placer" else order.filler
    if number is None:
        return
    if other.patient_id == order.patient_id:
        what, pairs = "another order of this patient", [(number.issuer, other.issuer)]
    else:
        same = _same_person(unit, order.patient_id, other.patient_id, issuers)
        what, pairs = "an order of a patient with the same patient ID", [(number.issuer, other.issuer), *same]
        if not same:
            return
    told = "; ".join(f"{_said(one, issuers)} and {_said(two, issuers)}" for one, two in dict.fromkeys(pairs))
    yield (
        f"{what} has the same {other.kind} order number from another issuer ({told}). They are kept as two orders: if "
        "these are names of one authority, say so in `issuers`"
    )


def _said(issuer: str, issuers: Issuers) -> str:
    if not issuer:
        return "none named"
    return repr(issuer) if issuer in issuers else f"{issuer!r}, which `issuers` does not name"


def _same_person(unit: Unit, one: int, other: int, issuers: Issuers) -> list[tuple[str, str]]:
    """The issuers of the numbers that both have; none where these are known to be two authorities' numbers."""
    ours, theirs = (_identifiers(unit.patient(each)) for each in (one, other))
    return [
        (each.issuer, known.issuer)
        for each in ours
        for known in theirs
        if each.value == known.value and each.issuer != known.issuer
        and not (each.issuer in issuers and known.issuer in issuers)
    ]  # fmt: skip


def _identifiers(patient: Patient | None) -> tuple[Identifier, ...]:
    return (*patient.identifiers, *patient.retired) if patient is not None else ()
