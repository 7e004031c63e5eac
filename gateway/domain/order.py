"""Orders: what a feed said (`OrderEvent`), what we hold (`Order`), and what each order control and status mean.

An order (placer, filler number) has requested procedures (Study Instance UID), each with scheduled procedure
steps (design D10). `domain.order_change` makes what is held from what was said.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import product

from gateway.domain.attributes import Attributes
from gateway.domain.facts import NO_STAMPS, Stamps
from gateway.domain.identifiers import Identifier
from gateway.domain.patient import PatientInput, VisitInput
from gateway.domain.progress import status_of
from gateway.domain.worklist import SPSStatus, StepEvent


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

TAKEN_BACK, HERE, REWORDED = "taken back", "patient is here", "reworded"
"""What no ORC-5 says: its source says nothing of the steps any more; the patient has arrived for them; nothing has
happened to them, but what is said of them may be other than before."""


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
    formerly: "StepInput | None" = field(default=None, repr=False)


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
    formerly: "ProcedureInput | None" = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class OrderEvent:
    """What a feed said of one order. `policies` go by the keyword of the key that may be lacking.

    `complete` demands the type 1 keys of every step; items imported from elsewhere keep what they have.
    `by_appointment`: its number is that of an appointment, which names no order. `formerly`: what the same source said
    of this order before, maybe under other numbers or for another patient, and says no more; so of its procedures and
    steps.
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
    by_appointment: bool = False
    formerly: "OrderEvent | None" = field(default=None, repr=False)


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
    """With what orders said of the status (`domain.step_log`)."""


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
    provisional: bool = False
    """Whether an order of the RIS that means the same takes it over: a person typed it while the RIS was down, or it
    was made of an appointment that names no order, or of what was performed without one."""

    @property
    def by_hand(self) -> bool:
        """Whether a person typed it: it has no order number."""
        return self.provisional and self.placer is None and self.filler is None

    @property
    def of_appointment(self) -> bool:
        """Whether it was made of an appointment, whose number it bears as an order number, or of what was performed."""
        return self.provisional and not self.by_hand


@dataclass(frozen=True, slots=True)
class OrderResponse:
    """What the filler says of one order in an ORR, ORG or ORI: an order control such as OK, UA, CR or UC."""

    control: OrderControl
    placer: Identifier | None
    filler: Identifier | None
    order_status: str = ""


class Takes(StrEnum):
    """How much of a message counts."""

    EVERYTHING = "everything"
    HELD = "what is said of what is held"
    """It adds no procedure and no step, and what lacks in it is no reason to refuse it."""
    KEYS = "identifiers only"
    """Nothing else in it may be a reason to leave, for instance, a cancelled procedure on the list."""
    NOTHING = "nothing"


class Unheld(StrEnum):
    """What becomes of a message about an order that is not held."""

    CREATED = "the order is created"
    REFUSED = "refused"
    NOTED = "accepted with a note"


@dataclass(frozen=True, slots=True)
class Effect:
    """What a pair of ORC-1 and ORC-5 means: for the steps (None: nothing), and for what is held."""

    event: StepEvent | None
    takes: Takes
    unheld: Unheld
    note: str = ""


_C = OrderControl

NEW = (_C.NW, _C.SN, _C.RO, _C.PA, _C.CH)
"""A new order: of the placer, of the filler, in place of another; parents and children are orders like others."""

CHANGE = (_C.XO, _C.XX, _C.XR)
REPLACE = (_C.RP, _C.RU, _C.RQ)
"""The order goes; what replaces it comes as RO."""

# Whoever asks for one of these means it, whatever the status beside it; and a filler's word that it was done (OC, CR)
# counts as much as the request.
_ACTS: Mapping[StepEvent, tuple[OrderControl, ...]] = {
    StepEvent.CANCEL: (_C.CA, _C.OC, _C.CR, *REPLACE),
    StepEvent.DISCONTINUE: (_C.DC, _C.OD, _C.DR),
    StepEvent.HOLD: (_C.HD, _C.OH, _C.HR),
    StepEvent.RELEASE: (_C.RL, _C.OE, _C.OR),
}

# What an order status (HL7 table 0038) says happened, in a change (XO) or a status message (SC).
_STATUS_EVENTS: Mapping[str, StepEvent] = {
    "SC": StepEvent.RELEASE,
    "IP": StepEvent.REPORTED_STARTED,
    "A": StepEvent.REPORTED_COMPLETED,
    "CM": StepEvent.REPORTED_COMPLETED,
    "HD": StepEvent.HOLD,
    "CA": StepEvent.CANCEL,
    "DC": StepEvent.DISCONTINUE,
    "RP": StepEvent.CANCEL,
    TAKEN_BACK: StepEvent.LEFT_OUT,
    HERE: StepEvent.ARRIVED,
}
_REMOVING = (StepEvent.CANCEL, StepEvent.DISCONTINUE)

_ANSWERS: Mapping[OrderControl, str] = {
    _C.OK: "accepts the order",
    _C.UA: "is unable to accept the order",
    _C.UC: "is unable to cancel",
    _C.UD: "is unable to discontinue",
    _C.UH: "is unable to put the order on hold",
    _C.UR: "is unable to release the order",
    _C.UX: "is unable to change",
    _C.UM: "is unable to replace",
    _C.RR: "received the request",
    _C.DE: "found errors in the data",
    _C.SR: "tells the status",
}


def _effect(control: OrderControl, status: str) -> Effect:
    for event, controls in _ACTS.items():
        if control in controls:
            return Effect(event, Takes.KEYS, Unheld.REFUSED)
    said = _STATUS_EVENTS.get(status)
    pair = f"{control} with order status {status}" if status else f"{control} without an order status"
    unchanged = f"{pair} changes no step status"
    if control in NEW:  # in process, unspecified: at the side that orders
        ordered = {"": StepEvent.ORDERED_ANEW, "SC": StepEvent.SCHEDULED_ANEW, "IP": StepEvent.SCHEDULED_ANEW}
        event_ = ordered.get(status, said)
        return Effect(event_, Takes.EVERYTHING, Unheld.CREATED, "" if event_ else unchanged)
    if control in CHANGE:
        event_ = said if status else StepEvent.ORDERED
        if event_ in _REMOVING:
            return Effect(event_, Takes.KEYS, Unheld.REFUSED)
        return Effect(event_, Takes.EVERYTHING, Unheld.CREATED, "" if event_ else unchanged)
    if control is OrderControl.SC:
        if status == "ER":
            return Effect(None, Takes.NOTHING, Unheld.NOTED, "the sender reports an error with this order; no change")
        if status == REWORDED:
            return Effect(None, Takes.HELD, Unheld.NOTED)
        if status == TAKEN_BACK:
            return Effect(said, Takes.KEYS, Unheld.NOTED)
        takes = Takes.KEYS if said in _REMOVING or status == HERE else Takes.EVERYTHING
        return Effect(said, takes, Unheld.REFUSED, "" if said else unchanged)
    if control is OrderControl.RE:
        if status in ("A", "CM"):
            return Effect(StepEvent.REPORTED_COMPLETED, Takes.KEYS, Unheld.NOTED)
        return Effect(None, Takes.NOTHING, Unheld.NOTED, "observations that leave the order open; no change")
    if control is OrderControl.NA:
        return Effect(None, Takes.KEYS, Unheld.REFUSED, "the placer number is kept")
    if control is OrderControl.SS:
        return Effect(None, Takes.NOTHING, Unheld.REFUSED, "the status is told in the answer; no change")
    return Effect(None, Takes.NOTHING, Unheld.NOTED, f"{control}: the sender {_ANSWERS[control]}; no change")


EFFECTS: Mapping[tuple[OrderControl, str], Effect] = {
    pair: _effect(*pair) for pair in product(OrderControl, ORDER_STATUSES)
}
"""(ORC-1, ORC-5) -> what the pair means; every pair has a row. An empty ORC-5 is the commonest form of all."""


def effect_of(control: OrderControl, order_status: str) -> Effect:
    """What the pair means. An order status outside HL7 table 0038 says nothing of the steps."""
    found = EFFECTS.get((control, order_status))
    return found if found is not None else _effect(control, order_status)


def removes(control: OrderControl, order_status: str) -> bool:
    """Whether the event takes steps away and says nothing else."""
    effect = effect_of(control, order_status)
    return effect.takes is Takes.KEYS and effect.event in _REMOVING


# Answers of a filler (HL7 table 0119): done, and unable to. What is itself an answer is not answered.
_RESPONSES: Mapping[OrderControl, tuple[OrderControl, OrderControl]] = {
    **dict.fromkeys((_C.NW, _C.RO, _C.PA, _C.CH, _C.SC, _C.RE, _C.OC, _C.OD, _C.OH, _C.OE, _C.XX, _C.RU),
                    (_C.OK, _C.UA)),
    _C.CA: (_C.CR, _C.UC),
    _C.DC: (_C.DR, _C.UD),
    _C.HD: (_C.HR, _C.UH),
    _C.RL: (_C.OR, _C.UR),
    _C.XO: (_C.XR, _C.UX),
    _C.RP: (_C.RQ, _C.UM),
    _C.SN: (_C.NA, _C.UA),
    _C.SS: (_C.SR, _C.UA),
}  # fmt: skip


def response_of(control: OrderControl, refused: bool) -> OrderControl | None:
    """The order control that answers this one; None where nothing does."""
    found = _RESPONSES.get(control)
    return found[refused] if found else None


def order_status_of(order: Order) -> str:
    """The order status (HL7 table 0038) that its steps come to; '' where nothing fits, as for one whose day passed."""
    return status_of(step.status for procedure in order.procedures for step in procedure.steps)
