"""Orders: what a feed said (`OrderEvent`), what we hold (`Order`), and `apply`, which makes the one from the other.

An order (placer, filler number) has requested procedures (Study Instance UID), each with scheduled procedure
steps (design D10). Keys that a feed did not give are filled here by the declared policy: what is held first, then
derived or minted, once.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

from gateway.domain.attributes import LENGTH_MAX, TAG, Attributes, element, merge, text, values
from gateway.domain.facts import NO_STAMPS, Stamps
from gateway.domain.identifiers import Identifier, Mint
from gateway.domain.patient import PatientInput, VisitInput
from gateway.domain.refusal import Refusal, RefusalKind, Refused
from gateway.domain.worklist import TRANSITIONS, SPSStatus, StepEvent, missing_for_listing, start_of


class OrderControl(StrEnum):
    """Order control codes that are understood (HL7 table 0119); those of charges, refills and problems are not."""

    NW = "NW"
    OK = "OK"
    UA = "UA"
    CA = "CA"
    OC = "OC"
    CR = "CR"
    UC = "UC"
    DC = "DC"
    OD = "OD"
    DR = "DR"
    UD = "UD"
    HD = "HD"
    OH = "OH"
    HR = "HR"
    UH = "UH"
    RL = "RL"
    OE = "OE"
    OR = "OR"
    UR = "UR"
    XO = "XO"
    XX = "XX"
    XR = "XR"
    UX = "UX"
    RP = "RP"
    RU = "RU"
    RO = "RO"
    RQ = "RQ"
    UM = "UM"
    SN = "SN"
    NA = "NA"
    SC = "SC"
    SS = "SS"
    SR = "SR"
    PA = "PA"
    CH = "CH"
    RE = "RE"
    RR = "RR"
    DE = "DE"


ORDER_STATUSES = ("", "A", "CA", "CM", "DC", "ER", "HD", "IP", "RP", "SC")
"""Order status (ORC-5): none, and HL7 table 0038."""


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
    """A scheduled procedure step as held. `attributes` are those inside the sequence, without the status.

    `minted` says that the feed gave no SPS ID: one that it gives later is no contradiction.
    """

    id: int | None
    sps_id: str
    status: SPSStatus
    attributes: Attributes = field(repr=False)
    minted: bool = False
    stamps: Stamps = field(default=NO_STAMPS, repr=False)
    """Also of the `status`."""


@dataclass(frozen=True, slots=True)
class Procedure:
    """A requested procedure as held. `study_instance_uid` is '' only for imported items that came without one.

    `minted` are the keywords of keys that no feed gave: one that comes later is no contradiction.
    """

    id: int | None
    study_instance_uid: str
    requested_procedure_id: str
    accession: Identifier | None
    attributes: Attributes = field(repr=False)
    steps: tuple[Step, ...] = ()
    minted: frozenset[str] = frozenset()
    stamps: Stamps = field(default=NO_STAMPS, repr=False)


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
    site: str = ""
    """Whose order it is, where one gateway serves several sites; '' for none."""
    stamps: Stamps = field(default=NO_STAMPS, repr=False)
    by_hand: bool = False
    """Whether a person typed it while the RIS was down; an order of the RIS that means the same takes it over."""


@dataclass(frozen=True, slots=True)
class OrderResponse:
    """What the filler says of one order in an ORR, ORG or ORI: an order control such as OK, UA, CR or UC."""

    control: OrderControl
    placer: Identifier | None
    filler: Identifier | None
    order_status: str = ""


@dataclass(frozen=True, slots=True)
class Applied:
    """The order after the event, and notes on what was accepted without the effect its sender may expect."""

    order: Order
    notes: tuple[str, ...] = ()


# (ORC-1, ORC-5) -> what happens to the steps. Empty ORC-5 is the commonest form of all. A pair without a row
# updates attributes and leaves the status, with a note (spec: HL7 tables 0119 and 0038).
STEP_EVENTS: Mapping[tuple[OrderControl, str], StepEvent] = {
    **{(control, status): StepEvent.ORDERED
       for control in (OrderControl.NW, OrderControl.XO) for status in ("", "SC")},
    (OrderControl.NW, "IP"): StepEvent.ORDERED,
    (OrderControl.SC, "SC"): StepEvent.ORDERED,
    **{(control, "IP"): StepEvent.REPORTED_STARTED for control in (OrderControl.XO, OrderControl.SC)},
    **{(control, status): StepEvent.REPORTED_COMPLETED
       for control in (OrderControl.NW, OrderControl.XO, OrderControl.SC) for status in ("CM", "A")},
    **{(control, "CA"): StepEvent.CANCEL for control in (OrderControl.NW, OrderControl.XO, OrderControl.SC)},
    **{(control, "DC"): StepEvent.DISCONTINUE for control in (OrderControl.NW, OrderControl.XO, OrderControl.SC)},
    # Whoever says CA or DC wants it gone, whatever the status beside it.
    **{(OrderControl.CA, status): StepEvent.CANCEL for status in ORDER_STATUSES},
    **{(OrderControl.DC, status): StepEvent.DISCONTINUE for status in ORDER_STATUSES},
}  # fmt: skip


def step_event(control: OrderControl, order_status: str) -> StepEvent | None:
    """What the pair does to the steps; a status unknown here does what an empty one does with CA and DC."""
    if control in (OrderControl.CA, OrderControl.DC):
        return STEP_EVENTS[control, ""]
    return STEP_EVENTS.get((control, order_status))


def removes(control: OrderControl, order_status: str) -> bool:
    """Whether the event only takes steps away, so that nothing else it says is applied."""
    happened = step_event(control, order_status)
    return control is not OrderControl.NW and happened in (StepEvent.CANCEL, StepEvent.DISCONTINUE)


def order_key(event: OrderEvent) -> str:
    """What identifies the order for minting: placer, filler or accession number with issuer, else the study; or ''."""
    accession = next((procedure.accession for procedure in event.procedures if procedure.accession), None)
    for kind, identifier in (("placer", event.placer), ("filler", event.filler), ("accession", accession)):
        if identifier is not None:
            return f"{kind}:{identifier.issuer}:{identifier.value}"
    study = next((said.study_instance_uid for said in event.procedures if said.study_instance_uid), "")
    return f"study:{study}" if study else ""


def apply(
    held: Order | None, event: OrderEvent, patient_id: int, visit_id: int | None, mint: Mint, site: str = ""
) -> Applied:
    """The order after `event`. Pure. `site` is the sender's: an order keeps the first that is said.

    Raises Refused: a cancel or a status for an unknown order, procedure or step (204), a cancel after the start, an
    order on hold, a lacking key whose policy is to refuse (101), a step that is no worklist item and that no procedure
    rule completes (uncovered), an order number of another patient (205).
    """
    removing = removes(event.control, event.order_status)
    where = event.where or "ORC"
    if event.order_status == "HD" and not removing:
        raise Refused(Refusal(
            RefusalKind.UNKNOWN_CODE, f"{where}-5", "orders on hold (HD) are not kept apart from others here",
            "send the order when it is released, or cancel it",
        ))  # fmt: skip
    if held is None:
        if removing or event.control is OrderControl.SC:
            raise Refused(Refusal(
                RefusalKind.UNKNOWN_KEY, f"{where}-2.1",
                f"no order with this placer or filler number is held, so {event.control} has nothing to act on",
                "send the new order (NW) first, or check the number and its assigning authority",
            ))  # fmt: skip
        held = Order(None, patient_id, visit_id, event.placer, event.filler, {}, ())
    elif held.patient_id != patient_id:
        raise Refused(Refusal(
            RefusalKind.DUPLICATE_KEY, f"{where}-2.1", "this order number belongs to an order of another patient",
            "use a new order number, or merge the patients first (A40) if they are one person",
        ))  # fmt: skip
    notes: list[str] = []
    refusals: list[Refusal] = []
    key = order_key(event)
    procedures = list(held.procedures)
    touched: set[int] = set()
    if not removing or _names_procedures(held, event):
        for said, index in zip(event.procedures, _matched_procedures(held.procedures, event.procedures), strict=True):
            if index is None and removing:
                refusals.append(_not_held(said.where, "requested procedure"))
                continue
            place = len(procedures) if index is None else index
            before = procedures[place] if index is not None else None
            after, spoken, problems = _apply_procedure(
                before, said, event, _numbered(key, place), mint, removing, notes
            )
            refusals += problems
            procedures[place:] = [_set_status(after, spoken, event, notes, refusals, before), *procedures[place + 1 :]]
            touched.add(place)
    if not touched and not refusals:  # the message names the order only: it is about all of its steps
        for index, procedure in enumerate(procedures):
            every = range(len(procedure.steps))
            procedures[index] = _set_status(procedure, every, event, notes, refusals, procedure)
    if refusals:
        raise Refused(*refusals)
    order = Order(
        held.id,
        held.patient_id,
        visit_id if visit_id is not None else held.visit_id,
        event.placer or held.placer,
        event.filler or held.filler,
        held.attributes if removing else merge(held.attributes, event.attributes),
        tuple(procedures),
        held.site or site,
        held.stamps,
        held.by_hand,
    )
    return Applied(order, tuple(dict.fromkeys(notes)))


def _numbered(key: str, place: int) -> str:
    """What a key of the procedure or step at this place of its order is minted from; '' if nothing names the order."""
    return f"{key}/{place + 1}" if key else ""


def _names_procedures(held: Order, event: OrderEvent) -> bool:
    """Whether the event names procedures or steps by their own keys, not only by the order's number."""
    several = len(held.procedures) > 1
    return any(
        said.study_instance_uid
        or said.requested_procedure_id
        or (several and said.accession)
        or any(step.sps_id for step in said.steps)
        for said in event.procedures
    )


def _not_held(where: str, what: str) -> Refusal:
    return Refusal(
        RefusalKind.UNKNOWN_KEY, where, f"the order is held, but not with this {what}",
        "check Study Instance UID, accession number, requested procedure ID and scheduled procedure step ID",
    )  # fmt: skip


def _matched_procedures(held: Sequence[Procedure], said: Sequence[ProcedureInput]) -> list[int | None]:
    """Which held procedure each said one is, the surest first; None where it is a new one.

    By its own keys (Study Instance UID; accession number and RP ID; either of them), then by what it is (its code),
    then because nothing else is left, then by position. A key that both have and that differs excludes, unless the
    held one was minted here.
    """
    found: list[int | None] = [None] * len(said)
    if not held:
        return found
    free = set(range(len(held)))

    def take(same: Callable[[Procedure, ProcedureInput], bool], only: bool) -> None:
        for number, one in enumerate(said):
            fitting = [place for place in sorted(free) if same(held[place], one) and not _contradicts(held[place], one)]
            if found[number] is None and fitting and (len(fitting) == 1 or not only):
                found[number] = fitting[0]
                free.discard(fitting[0])

    take(lambda a, b: bool(b.study_instance_uid) and a.study_instance_uid == b.study_instance_uid, only=False)
    take(
        lambda a, b: (
            bool(b.accession and b.requested_procedure_id)
            and (a.accession, a.requested_procedure_id) == (b.accession, b.requested_procedure_id)
        ),
        only=True,
    )
    take(
        lambda a, b: bool(b.requested_procedure_id) and a.requested_procedure_id == b.requested_procedure_id, only=True
    )
    take(lambda a, b: b.accession is not None and a.accession == b.accession, only=True)
    take(lambda a, b: bool(_codes(b.attributes)) and _codes(a.attributes) == _codes(b.attributes), only=False)
    if len(held) == len(said) or len(held) == 1:
        for number in range(len(said)):
            if found[number] is None and number in free and not _contradicts(held[number], said[number]):
                found[number] = number
                free.discard(number)
    return found


def _codes(attributes: Attributes) -> list[str]:
    return [text(item, "CodeValue") for item in values(attributes, "RequestedProcedureCodeSequence")]


def _contradicts(held: Procedure, said: ProcedureInput) -> bool:
    """Whether a key that the feed gave before is given differently now."""
    pairs: tuple[tuple[str, object, object], ...] = (
        ("StudyInstanceUID", held.study_instance_uid, said.study_instance_uid),
        ("AccessionNumber", held.accession, said.accession),
        ("RequestedProcedureID", held.requested_procedure_id, said.requested_procedure_id),
    )
    return any(before and now and before != now and keyword not in held.minted for keyword, before, now in pairs)


def _apply_procedure(
    held: Procedure | None,
    said: ProcedureInput,
    event: OrderEvent,
    key: str,
    mint: Mint,
    removing: bool,
    notes: list[str],
) -> tuple[Procedure, Sequence[int], list[Refusal]]:
    """The procedure after the event, the indexes of its steps that were spoken of, and what its keys lack."""
    if removing and held is not None:
        matched = _matched_steps(held.steps, said.steps)
        unknown = [_not_held(said.where, "scheduled procedure step")] if None in matched else []
        return held, [index for index in matched if index is not None] or range(len(held.steps)), unknown
    keys, minted, refusals = _procedure_keys(held, said, event, key, mint)
    if said.study_instance_uid and keys["StudyInstanceUID"] != said.study_instance_uid:
        notes.append("the Study Instance UID was published before and stays")
    accession = said.accession or (held.accession if held else None)
    if keys["AccessionNumber"] and (accession is None or accession.value != keys["AccessionNumber"]):
        accession = Identifier(keys["AccessionNumber"])
    other = held is not None and _is_other_procedure(held, said)
    attributes = merge(_filled(held.attributes if held else {}, said.defaults, other), said.attributes)
    attributes |= {TAG[keyword]: element(keyword, value) for keyword, value in keys.items() if value}
    steps = list(held.steps) if held else []
    spoken: list[int] = []
    for step, index in zip(said.steps, _matched_steps(steps, said.steps), strict=True):
        place = len(steps) if index is None else index
        if index is None:
            steps.append(Step(None, step.sps_id, SPSStatus.SCHEDULED, {}))
        spoken.append(place)
        filled = _filled(steps[place].attributes, step.defaults, other)
        steps[place], problems = _apply_step(steps[place], filled, step, event, _numbered(key, place), mint, said.where)
        refusals += problems
    if not said.steps:  # the procedure as a whole is meant
        spoken = list(range(len(steps)))
    if not steps:
        refusals.append(_uncovered("ScheduledProcedureStepID", said.where))
    procedure = Procedure(
        held.id if held else None,
        keys["StudyInstanceUID"],
        keys["RequestedProcedureID"],
        accession,
        attributes,
        tuple(steps),
        minted,
        held.stamps if held else NO_STAMPS,
    )
    return procedure, spoken, refusals


def _filled(held: Attributes, defaults: Attributes, other: bool) -> Attributes:
    """What is held, completed by the defaults; those of another procedure than before take precedence."""
    return {**held, **defaults} if other else {**defaults, **held}


def _is_other_procedure(held: Procedure, said: ProcedureInput) -> bool:
    """Whether the order is for another procedure code than the one held."""
    before, now = _codes(held.attributes), _codes(said.attributes)
    return bool(before and now) and before != now


def _procedure_keys(
    held: Procedure | None, said: ProcedureInput, event: OrderEvent, key: str, mint: Mint
) -> tuple[dict[str, str], frozenset[str], list[Refusal]]:
    """Study Instance UID, accession number and RP ID: as said, as held, or by the policy of each.

    Also which of them were minted, and what is refused. A Study Instance UID that was published stays (design D10).
    """
    accession = said.accession or (held.accession if held else None)
    keys = {
        "StudyInstanceUID": (held.study_instance_uid if held else "") or said.study_instance_uid,
        "AccessionNumber": accession.value if accession else "",
        "RequestedProcedureID": said.requested_procedure_id or (held.requested_procedure_id if held else ""),
    }
    given = {"AccessionNumber": said.accession, "RequestedProcedureID": said.requested_procedure_id}
    minted = {keyword for keyword in (held.minted if held else ()) if not given.get(keyword)}
    sources = {
        "PlacerOrderNumberImagingServiceRequest": event.placer.value if event.placer else "",
        "FillerOrderNumberImagingServiceRequest": event.filler.value if event.filler else "",
    }
    refusals = []
    for keyword, known in tuple(keys.items()):
        policy = event.policies.get(keyword)
        if known or policy is None:
            continue
        derived = (keys | sources).get(policy.source, "")
        if policy.action == "refuse" or (not derived and not key):
            refusals.append(_lacking(keyword, policy, said.where))
            continue
        minted.add(keyword)
        # A source that is itself empty, or too long for the key, falls back to minting.
        keys[keyword] = derived if 0 < len(derived) <= LENGTH_MAX["SH"] else _minted(mint, keyword, key)
    return keys, frozenset(minted), refusals


def _minted(mint: Mint, keyword: str, key: str) -> str:
    if keyword == "StudyInstanceUID":
        return mint.study_instance_uid(key)
    return mint.short_id("A" if keyword == "AccessionNumber" else "R", key)


def _apply_step(
    held: Step, filled: Attributes, said: StepInput, event: OrderEvent, key: str, mint: Mint, where: str
) -> tuple[Step, list[Refusal]]:
    """The step with what was said merged into `filled`, its ID made, and what it lacks to be a worklist item."""
    sps_id, refusals = said.sps_id or held.sps_id, []
    minted = held.minted and not said.sps_id
    policy = event.policies.get("ScheduledProcedureStepID")
    if not sps_id and policy is not None:
        if policy.action == "refuse" or not key:
            refusals.append(_lacking("ScheduledProcedureStepID", policy, where))
        else:
            sps_id, minted = mint.short_id("S", key), True
    attributes = merge(filled, said.attributes)
    if sps_id:
        attributes[TAG["ScheduledProcedureStepID"]] = element("ScheduledProcedureStepID", sps_id)
    if event.complete:
        refusals += [_uncovered(keyword, where) for keyword in missing_for_listing(attributes)]
    return Step(held.id, sps_id, held.status, attributes, minted, held.stamps), refusals


def _matched_steps(held: Sequence[Step], said: Sequence[StepInput]) -> list[int | None]:
    """Which held step each said one is: by its ID, else by modality where that tells, else by position."""
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
        elif len(fitting) == 1:
            settle(number, fitting[0])
    return found


def _may_be(held: Step, said: StepInput) -> bool:
    """Whether nothing that both have contradicts it."""
    if said.sps_id and held.sps_id and not held.minted:
        return False
    before, now = text(held.attributes, "Modality"), text({**said.defaults, **said.attributes}, "Modality")
    return not before or not now or before == now


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
    happened = step_event(event.control, event.order_status)
    if happened is None:
        notes.append(f"order status {event.order_status} with {event.control} changes no step status")
        return procedure
    starts = {step.id: start_of(step.attributes) for step in before.steps} if before else {}
    steps = list(procedure.steps)
    changed = False
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
        if status is not step.status:
            steps[index] = replace(step, status=status)
            changed = True
    return replace(procedure, steps=tuple(steps)) if changed else procedure
