"""Which held procedure or step a message means, where it does not say so by a key that is unique."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from gateway.domain.attributes import Attributes, text, values
from gateway.domain.identifiers import Identifier
from gateway.domain.order import Order, OrderEvent, Procedure, ProcedureInput, Step, StepInput
from gateway.domain.worklist import FINISHED, SPSStatus

_KEYS = frozenset({"StudyInstanceUID", "AccessionNumber", "RequestedProcedureID"})


def matched_procedures(held: Sequence[Procedure], said: Sequence[ProcedureInput]) -> list[int | None]:
    """Which held procedure each said one is, the surest first; None where it is a new one.

    By its own keys (Study Instance UID; accession number and RP ID; either of them), then by what it is (its code),
    then because nothing else is left, then by position. A key that both have and that differs excludes, unless the
    held one was minted here; but one Study Instance UID is one procedure, whoever is said to have issued its accession
    number.
    """
    found: list[int | None] = [None] * len(said)
    if not held:
        return found
    free = set(range(len(held)))

    def take(same: Callable[[Procedure, ProcedureInput], bool], only: bool) -> None:
        for number, one in enumerate(said):
            fitting = [place for place in sorted(free) if same(held[place], one)]
            if found[number] is None and fitting and (len(fitting) == 1 or not only):
                found[number] = fitting[0]
                free.discard(fitting[0])

    def take_by(same: Callable[[Procedure, ProcedureInput], bool], only: bool) -> None:
        take(lambda a, b: same(a, b) and not _contradicts(a, b), only)

    take(lambda a, b: bool(b.study_instance_uid) and a.study_instance_uid == b.study_instance_uid, only=False)
    take_by(
        lambda a, b: (
            bool(b.requested_procedure_id)
            and a.requested_procedure_id == b.requested_procedure_id
            and same_number(a.accession, b.accession)
        ),
        only=True,
    )
    take_by(
        lambda a, b: bool(b.requested_procedure_id) and a.requested_procedure_id == b.requested_procedure_id, only=True
    )
    take_by(lambda a, b: same_number(a.accession, b.accession), only=True)
    take_by(lambda a, b: bool(codes_said(b)) and codes(a.attributes) == codes_said(b), only=False)
    if len(held) == len(said) or len(held) == 1:
        for number in range(len(said)):
            if found[number] is None and number in free and not _contradicts(held[number], said[number]):
                found[number] = number
                free.discard(number)
    return found


def codes(attributes: Attributes) -> list[str]:
    """The codes of a requested procedure."""
    return [
        text(item, "CodeValue") or text(item, "LongCodeValue") or text(item, "URNCodeValue")
        for item in values(attributes, "RequestedProcedureCodeSequence")
    ]


def codes_said(said: ProcedureInput) -> list[str]:
    """Its codes, also those that only fill what is lacking: of the catalogue, or of an appointment."""
    return codes({**said.defaults, **said.attributes})


def is_moved(said: ProcedureInput) -> bool:
    """Whether it only says when and where, as an appointment does of an order that somebody else gave: its code is
    no news."""
    return not codes(said.attributes) and bool(codes(said.defaults))


def is_moved_as_another(held: Procedure, said: ProcedureInput) -> bool:
    """The same by the code of another procedure than this one is."""
    return is_moved(said) and codes(held.attributes) not in ([], codes(said.defaults))


def in_time_alone(held: Procedure, said: ProcedureInput) -> ProcedureInput:
    """What it says of the steps that there are, in their order: what fills gaps is of another procedure, and so would
    further steps be."""
    steps = tuple(replace(step, defaults={}) for step in said.steps[: len(held.steps)])
    return replace(said, defaults={}, steps=steps)


def _contradicts(held: Procedure, said: ProcedureInput) -> bool:
    """Whether a key that the feed gave before is given differently now."""
    pairs: tuple[tuple[str, object, object], ...] = (
        ("StudyInstanceUID", held.study_instance_uid, said.study_instance_uid),
        ("RequestedProcedureID", held.requested_procedure_id, said.requested_procedure_id),
    )
    if any(before and now and before != now and keyword not in held.minted for keyword, before, now in pairs):
        return True
    before, now = held.accession, said.accession
    return bool(before and now) and not same_number(before, now) and "AccessionNumber" not in held.minted


def same_number(one: Identifier | None, other: Identifier | None) -> bool:
    """Whether two accession numbers may be one: some senders name who issued it, others do not."""
    if one is None or other is None or one.value != other.value:
        return False
    return one.issuer == other.issuer or not one.issuer or not other.issuer


def matched_steps(held: Sequence[Step], said: Sequence[StepInput], another_procedure: bool = False) -> list[int | None]:
    """Which held step each said one is: by its ID, else by modality where that tells, else by position.

    With `another_procedure` they were planned for another code, so the modality of one that waits may change too.
    """
    found: list[int | None] = [None] * len(said)
    if not held:
        return found
    free = set(range(len(held)))

    def settle(number: int, place: int) -> None:
        found[number] = place
        free.discard(place)

    for number, one in enumerate(said):
        same = [place for place in sorted(free) if one.sps_id and held[place].sps_id == one.sps_id]
        if same:
            settle(number, same[0])
    for number, one in enumerate(said):
        fitting = [place for place in sorted(free) if found[number] is None and _may_be(held[place], one)]
        if len(held) == len(said) and number in fitting:
            settle(number, number)
        elif fitting and (len(fitting) == 1 or len(said) < len(held)):
            settle(number, fitting[0])  # of several that it may be, rather the first than one more that nobody ordered
    for number, one in enumerate(said if another_procedure else ()):
        fitting = [place for place in sorted(free) if found[number] is None and _may_become(held[place], one)]
        if fitting:
            settle(number, fitting[0])
    return found


def _may_be(held: Step, said: StepInput) -> bool:
    """Whether nothing that both have contradicts it."""
    if said.sps_id and held.sps_id and not held.minted:
        return False
    return _may_be_of_modality(held, said)


def _may_be_of_modality(held: Step, said: StepInput) -> bool:
    before, now = text(held.attributes, "Modality"), text({**said.defaults, **said.attributes}, "Modality")
    return not before or not now or before == now


def _may_become(held: Step, said: StepInput) -> bool:
    """Whether nobody works on it, or has, and no ID contradicts it."""
    named = said.sps_id and held.sps_id and not held.minted
    return not named and held.status is not SPSStatus.STARTED and held.status not in FINISHED


def names_procedures(held: Order, event: OrderEvent) -> bool:
    """Whether the event names procedures or steps by their own keys, not only by the order's number."""
    return any(
        said.study_instance_uid
        or said.requested_procedure_id
        or any(step.sps_id for step in said.steps)
        or (len(held.procedures) > 1 and _tells(held, said))
        for said in event.procedures
    )


def _tells(held: Order, said: ProcedureInput) -> bool:
    """Whether its accession number or its code are not those of all procedures, a code at least that of one."""
    numbers = [same_number(each.accession, said.accession) for each in held.procedures]
    same_code = [codes(each.attributes) == codes_said(said) for each in held.procedures]
    return (said.accession is not None and not all(numbers)) or (any(same_code) and not all(same_code))


def is_order_typed(held: Order, event: OrderEvent) -> bool:
    """Whether an order that a person typed means the same as one that the RIS sends now, of the same patient.

    By the accession number, or by the procedure code and a day that both have a step on. What comes without an order
    number may itself be typed. One that was made here and has a number (of what was performed, or of an appointment) is
    the same by the accession number only.
    """
    numbered = event.placer is not None or event.filler is not None
    if not numbered or not held.provisional:
        return False
    if not held.by_hand:
        return not event.by_appointment and any(
            same_number(one.accession, said.accession) for one in held.procedures for said in event.procedures
        )
    return any(_is_procedure_typed(typed, said) for typed in held.procedures for said in event.procedures)


def _is_procedure_typed(typed: Procedure, said: ProcedureInput) -> bool:
    if said.accession is not None and typed.accession is not None and said.accession.value == typed.accession.value:
        return True
    if not codes_said(said) or codes_said(said) != codes(typed.attributes):
        return False
    days = {text(step.attributes, "ScheduledProcedureStepStartDate") for step in said.steps} - {""}
    return any(text(step.attributes, "ScheduledProcedureStepStartDate") in days for step in typed.steps)


def taken_over(typed: Order) -> Order:
    """An order that a person typed, as the RIS's: whatever the RIS says of it counts, its keys too."""
    procedures = tuple(
        replace(procedure, minted=_KEYS, steps=tuple(replace(step, minted=True) for step in procedure.steps))
        for procedure in typed.procedures
    )
    return replace(typed, procedures=procedures, provisional=False)


def is_same_by_accession(held: Order, event: OrderEvent) -> bool:
    """Whether an order with the same accession number may be the same one from a sender that gives another number.

    One knows it by its placer number only, the other by its filler number only, or by none. What is for another
    modality is another order with the same accession number.
    """
    if held.by_hand or (held.placer and event.placer) or (held.filler and event.filler):
        return False
    return any(
        same_number(one.accession, said.accession) and _may_be_for_its_steps(one, said)
        for one in held.procedures
        for said in event.procedures
    )


def _may_be_for_its_steps(held: Procedure, said: ProcedureInput) -> bool:
    return not said.steps or any(_may_be_of_modality(one, other) for one in held.steps for other in said.steps)
