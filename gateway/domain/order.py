"""Orders: what a feed said (`OrderEvent`), what we hold (`Order`), and `apply`, which makes the one from the other.

An order (placer, filler number) has requested procedures (Study Instance UID), each with scheduled procedure
steps (design D10). Keys that a feed did not give are filled here by the declared policy: what is held first, then
derived or minted, once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from gateway.domain.attributes import LENGTH_MAX, TAG, Attributes, element, merge, text, values
from gateway.domain.identifiers import Identifier, Mint
from gateway.domain.patient import PatientInput, VisitInput
from gateway.domain.refusal import Refusal, RefusalKind, Refused
from gateway.domain.worklist import TRANSITIONS, SPSStatus, StepEvent, missing_for_listing, start_of


class OrderControl(StrEnum):
    """Order control codes the intake acts on (HL7 table 0119)."""

    NW = "NW"
    XO = "XO"
    CA = "CA"
    DC = "DC"
    SC = "SC"


@dataclass(frozen=True, slots=True)
class Policy:
    """What to do for a key that the order lacks: `generate`, `derive` (from the attribute `source`) or `refuse`."""

    action: str
    source: str = ""
    where: str = ""


@dataclass(frozen=True, slots=True)
class StepInput:
    """What a feed said of one scheduled procedure step; `sps_id` is '' where it gave none.

    `defaults` are what the procedure catalogue or a mapping's default gives: they fill what neither the feed says nor
    is held, and replace what is held only when the order is for another procedure now.
    """

    sps_id: str
    attributes: Attributes = field(repr=False)
    defaults: Attributes = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class ProcedureInput:
    """What a feed said of one requested procedure; keys it did not give are ''. `defaults` as for a step."""

    study_instance_uid: str
    requested_procedure_id: str
    accession: Identifier | None
    attributes: Attributes = field(repr=False)
    steps: tuple[StepInput, ...] = ()
    where: str = ""
    defaults: Attributes = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class OrderEvent:
    """What a feed said of one order. `policies` go by the keyword of the key that may be lacking.

    `complete` demands the type 1 keys of every step; items imported from elsewhere keep what they have.
    """

    control: OrderControl
    order_status: str
    placer: Identifier | None
    filler: Identifier | None
    patient: PatientInput
    visit: VisitInput | None
    attributes: Attributes = field(repr=False)
    procedures: tuple[ProcedureInput, ...] = ()
    policies: Mapping[str, Policy] = field(default_factory=dict)
    where: str = ""
    complete: bool = True


@dataclass(frozen=True, slots=True)
class Step:
    """A scheduled procedure step as held. `attributes` are those inside the sequence, without the status."""

    id: int | None
    sps_id: str
    status: SPSStatus
    attributes: Attributes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Procedure:
    """A requested procedure as held. `study_instance_uid` is '' only for imported items that came without one."""

    id: int | None
    study_instance_uid: str
    requested_procedure_id: str
    accession: Identifier | None
    attributes: Attributes = field(repr=False)
    steps: tuple[Step, ...] = ()


@dataclass(frozen=True, slots=True)
class Order:
    """An order as held."""

    id: int | None
    patient_id: int
    visit_id: int | None
    placer: Identifier | None
    filler: Identifier | None
    attributes: Attributes = field(repr=False)
    procedures: tuple[Procedure, ...] = ()


@dataclass(frozen=True, slots=True)
class Applied:
    """The order after the event, and notes on what was accepted without the effect its sender may expect."""

    order: Order
    notes: tuple[str, ...] = ()


# (ORC-1, ORC-5) -> what happens to the steps. Empty ORC-5 is the commonest form of all. A pair without a row
# updates attributes and leaves the status, with a note (spec: HL7 tables 0119 and 0038).
STEP_EVENTS: Mapping[tuple[OrderControl, str], StepEvent] = {
    **{
        (control, status): StepEvent.ORDERED
        for control in (OrderControl.NW, OrderControl.XO)
        for status in ("", "SC", "IP")
    },
    (OrderControl.SC, "SC"): StepEvent.ORDERED,
    **{(OrderControl.CA, status): StepEvent.CANCEL for status in ("", "CA", "DC", "SC")},
    **{(OrderControl.DC, status): StepEvent.DISCONTINUE for status in ("", "CA", "DC", "SC", "IP")},
    (OrderControl.XO, "IP"): StepEvent.REPORTED_STARTED,
    (OrderControl.SC, "IP"): StepEvent.REPORTED_STARTED,
    **{
        (control, status): StepEvent.REPORTED_COMPLETED
        for control in (OrderControl.XO, OrderControl.SC)
        for status in ("CM", "A")
    },
    (OrderControl.SC, "CA"): StepEvent.CANCEL,
    (OrderControl.SC, "DC"): StepEvent.DISCONTINUE,
    (OrderControl.XO, "CA"): StepEvent.CANCEL,
    (OrderControl.XO, "DC"): StepEvent.DISCONTINUE,
}

_CREATES = frozenset({OrderControl.NW, OrderControl.XO, OrderControl.SC})


def order_key(event: OrderEvent) -> str:
    """What identifies the order for minting: placer number, else filler number, else accession, with issuer."""
    accession = next((procedure.accession for procedure in event.procedures if procedure.accession), None)
    for kind, identifier in (("placer", event.placer), ("filler", event.filler), ("accession", accession)):
        if identifier is not None:
            return f"{kind}:{identifier.issuer}:{identifier.value}"
    return ""


def apply(held: Order | None, event: OrderEvent, patient_id: int, visit_id: int | None, mint: Mint) -> Applied:
    """The order after `event`. Pure.

    Raises Refused: a cancel for an unknown order (204), a cancel after the start, a lacking key whose policy is
    to refuse (101), a step that is no worklist item and that no procedure rule completes (uncovered), an order
    number of another patient (205).
    """
    if held is None:
        if event.control not in _CREATES or STEP_EVENTS.get((event.control, event.order_status)) in (
            StepEvent.CANCEL,
            StepEvent.DISCONTINUE,
        ):
            raise Refused(
                Refusal(
                    RefusalKind.UNKNOWN_KEY,
                    f"{event.where}-2.1" if event.where else "ORC-2.1",
                    f"no order with this placer or filler number is held, so {event.control} has nothing to act on",
                    "send the new order (NW) first, or check the number and its assigning authority",
                )
            )
        held = Order(None, patient_id, visit_id, event.placer, event.filler, {}, ())
    elif held.patient_id != patient_id:
        raise Refused(
            Refusal(
                RefusalKind.DUPLICATE_KEY,
                f"{event.where}-2.1" if event.where else "ORC-2.1",
                "this order number already belongs to an order of another patient",
                "use a new order number, or merge the patients first (A40) if they are one person",
            )
        )
    notes: list[str] = []
    refusals: list[Refusal] = []
    key = order_key(event)
    removing = STEP_EVENTS.get((event.control, event.order_status)) in (
        StepEvent.CANCEL,
        StepEvent.DISCONTINUE,
    )
    procedures = list(held.procedures)
    touched: set[int] = set()
    if not (removing and held.id is not None and not _names_procedures(event)):
        for number, said in enumerate(event.procedures):
            index = _match_procedure(procedures, said, number, len(event.procedures))
            if index is None and removing:
                refusals.append(_unknown_procedure(said))
                continue
            before = procedures[index] if index is not None else None
            after, said_steps, problems = _apply_procedure(before, said, event, f"{key}/{number + 1}", mint, removing)
            refusals += problems
            if index is None:
                procedures.append(after)
                index = len(procedures) - 1
            procedures[index] = _set_status(after, said_steps, event, notes, refusals, before)
            touched.add(index)
    if not touched and not refusals:  # the message names the order only: it is about all of its steps
        for index, procedure in enumerate(procedures):
            every = range(len(procedure.steps))
            procedures[index] = _set_status(procedure, every, event, notes, refusals, procedure)
    if refusals:
        raise Refused(*refusals)
    order = replace(
        held,
        visit_id=visit_id if visit_id is not None else held.visit_id,
        placer=event.placer or held.placer,
        filler=event.filler or held.filler,
        attributes=held.attributes if removing else merge(held.attributes, event.attributes),
        procedures=tuple(procedures),
    )
    return Applied(order, tuple(dict.fromkeys(notes)))


def _names_procedures(event: OrderEvent) -> bool:
    """Whether the event names procedures or steps by their own keys, not only by the order's number."""
    return any(
        said.study_instance_uid or said.requested_procedure_id or any(step.sps_id for step in said.steps)
        for said in event.procedures
    )


def _unknown_procedure(said: ProcedureInput) -> Refusal:
    return Refusal(
        RefusalKind.UNKNOWN_KEY,
        said.where,
        "the order is held, but not with this requested procedure",
        "check Study Instance UID and requested procedure ID",
    )


def _match_procedure(held: Sequence[Procedure], said: ProcedureInput, number: int, of: int) -> int | None:
    """Which held procedure is meant: by Study Instance UID, else by RP ID, else by accession, else by position."""
    for index, procedure in enumerate(held):
        if said.study_instance_uid:
            if procedure.study_instance_uid == said.study_instance_uid:
                return index
        elif said.requested_procedure_id and procedure.requested_procedure_id == said.requested_procedure_id:
            return index
    if said.study_instance_uid or said.requested_procedure_id:
        return None
    by_accession = [
        index for index, procedure in enumerate(held) if said.accession and procedure.accession == said.accession
    ]
    if len(by_accession) == 1:
        return by_accession[0]
    return number if number < len(held) and (of > 1 or len(held) == 1) else None


def _apply_procedure(
    held: Procedure | None, said: ProcedureInput, event: OrderEvent, key: str, mint: Mint, removing: bool
) -> tuple[Procedure, Sequence[int], list[Refusal]]:
    """The procedure after the event, the indexes of its steps that were spoken of, and what its keys lack."""
    keys, refusals = _procedure_keys(held, said, event, key, mint)
    accession = said.accession or (held.accession if held else None)
    if accession is None and keys["AccessionNumber"]:
        accession = Identifier(keys["AccessionNumber"])
    other = held is not None and _is_other_procedure(held, said)
    attributes = dict(held.attributes) if held else {}
    if not removing:
        attributes = merge(_filled(attributes, said.defaults, other), said.attributes)
    attributes |= {TAG[keyword]: element(keyword, value) for keyword, value in keys.items() if value}
    steps = list(held.steps) if held else []
    spoken: list[int] = []
    for number, step in enumerate(said.steps):
        index = _match_step(steps, step, number, len(said.steps))
        if index is None:
            if removing:
                continue
            index = len(steps)
            steps.append(Step(None, step.sps_id, SPSStatus.SCHEDULED, {}))
        spoken.append(index)
        if not removing:
            before = replace(steps[index], attributes=_filled(steps[index].attributes, step.defaults, other))
            steps[index], problems = _apply_step(before, step, event, f"{key}/{number + 1}", mint, said.where)
            refusals += problems
    if not said.steps:  # the procedure as a whole is meant
        spoken = list(range(len(steps)))
    if not steps and not removing:
        refusals.append(_uncovered("ScheduledProcedureStepID", said.where))
    procedure = Procedure(
        held.id if held else None,
        keys["StudyInstanceUID"],
        keys["RequestedProcedureID"],
        accession,
        attributes,
        tuple(steps),
    )
    return procedure, spoken, refusals


def _filled(held: Attributes, defaults: Attributes, other: bool) -> Attributes:
    """What is held, completed by the defaults; those of another procedure than before take precedence."""
    return {**held, **defaults} if other else {**defaults, **held}


def _is_other_procedure(held: Procedure, said: ProcedureInput) -> bool:
    """Whether the order is for another procedure code than the one held."""
    before, now = (values(part.attributes, "RequestedProcedureCodeSequence") for part in (held, said))
    return bool(before and now) and [text(item, "CodeValue") for item in before] != [
        text(item, "CodeValue") for item in now
    ]


def _procedure_keys(
    held: Procedure | None, said: ProcedureInput, event: OrderEvent, key: str, mint: Mint
) -> tuple[dict[str, str], list[Refusal]]:
    """Study Instance UID, accession number and RP ID: as said, as held, or by the policy of each; and refusals."""
    accession = said.accession or (held.accession if held else None)
    keys = {
        "StudyInstanceUID": said.study_instance_uid or (held.study_instance_uid if held else ""),
        "AccessionNumber": accession.value if accession else "",
        "RequestedProcedureID": said.requested_procedure_id or (held.requested_procedure_id if held else ""),
    }
    sources = {
        "PlacerOrderNumberImagingServiceRequest": event.placer.value if event.placer else "",
        "FillerOrderNumberImagingServiceRequest": event.filler.value if event.filler else "",
    }
    refusals = []
    for keyword, known in tuple(keys.items()):
        policy = event.policies.get(keyword)
        if known or policy is None:
            continue
        if policy.action == "refuse":
            refusals.append(_lacking(keyword, policy, said.where))
        else:  # a source that is itself empty, or too long for the key, falls back to minting
            derived = (keys | sources).get(policy.source, "")
            keys[keyword] = derived if 0 < len(derived) <= LENGTH_MAX["SH"] else _minted(mint, keyword, key)
    return keys, refusals


def _minted(mint: Mint, keyword: str, key: str) -> str:
    if keyword == "StudyInstanceUID":
        return mint.study_instance_uid(key)
    return mint.short_id("A" if keyword == "AccessionNumber" else "R", key)


def _apply_step(
    held: Step, said: StepInput, event: OrderEvent, key: str, mint: Mint, where: str
) -> tuple[Step, list[Refusal]]:
    """The step with what was said merged in and its ID filled, and what it lacks to be a worklist item."""
    sps_id, refusals = said.sps_id or held.sps_id, []
    policy = event.policies.get("ScheduledProcedureStepID")
    if not sps_id and policy is not None:
        if policy.action == "refuse":
            refusals.append(_lacking("ScheduledProcedureStepID", policy, where))
        sps_id = mint.short_id("S", key)
    attributes = merge(held.attributes, said.attributes)
    if sps_id:
        attributes[TAG["ScheduledProcedureStepID"]] = element("ScheduledProcedureStepID", sps_id)
    if event.complete:
        refusals += [_uncovered(keyword, where) for keyword in missing_for_listing(attributes)]
    return replace(held, sps_id=sps_id, attributes=attributes), refusals


def _match_step(held: Sequence[Step], said: StepInput, number: int, of: int) -> int | None:
    """Which held step is meant: by its ID where the feed gave one, else by position."""
    if said.sps_id:
        return next((index for index, step in enumerate(held) if step.sps_id == said.sps_id), None)
    return number if number < len(held) and (of > 1 or len(held) == 1) else None


def _lacking(keyword: str, policy: Policy, where: str) -> Refusal:
    return Refusal(
        RefusalKind.MISSING_FIELD,
        policy.where or where,
        f"{keyword} is not in the order",
        "send it, or let the mapping generate or derive it",
    )


def _uncovered(keyword: str, where: str) -> Refusal:
    return Refusal(
        RefusalKind.UNCOVERED,
        where,
        f"{keyword} is neither in the order nor given by a procedure rule",
        "add the procedure code to mappings/procedures.csv, or send the value",
    )


def _set_status(
    procedure: Procedure,
    spoken: Sequence[int],
    event: OrderEvent,
    notes: list[str],
    refusals: list[Refusal],
    before: Procedure | None,
) -> Procedure:
    """The procedure with the event's effect on the status of the steps spoken of."""
    happened = STEP_EVENTS.get((event.control, event.order_status))
    if happened is None:
        notes.append(f"order status {event.order_status} with {event.control} changes no step status")
        return procedure
    starts = {step.id: start_of(step.attributes) for step in before.steps} if before else {}
    steps = list(procedure.steps)
    for index in spoken:
        step = steps[index]
        moved = (
            happened is StepEvent.ORDERED
            and step.status is SPSStatus.EXPIRED
            and start_of(step.attributes) != starts.get(step.id)
        )
        status = TRANSITIONS[step.status, StepEvent.RESCHEDULED if moved else happened]
        if status is None:
            refusals.append(
                Refusal(
                    RefusalKind.CONFLICT,
                    f"{event.where}-1" if event.where else "ORC-1",
                    f"a step of this order is {step.status}, so it cannot be cancelled any more",
                    "send DC to discontinue it",
                )
            )
            continue
        if status is step.status and step.status not in (SPSStatus.SCHEDULED, SPSStatus.STARTED):
            notes.append(f"a step of this order is {step.status}; its status is unchanged")
        steps[index] = replace(step, status=status)
    return replace(procedure, steps=tuple(steps))
