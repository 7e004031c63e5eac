"""What an event does to an order: `apply` makes what is held from what was held and what was said. Pure.

Keys that a feed did not give are filled by the declared policy: what is held first, then derived or minted, once.
What was made earlier than what is held fills what is unknown, and replaces only what is older (`domain.facts`).
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import is_

from gateway.domain.attributes import LENGTH_MAX, TAG, Attributes, element, text
from gateway.domain.catalogue import PROCEDURE_KEYWORDS, STEP_KEYWORDS
from gateway.domain.facts import UNSTAMPED, Stamp, Stamps, as_news, fill, merge_said
from gateway.domain.identifiers import Identifier, Mint
from gateway.domain.order import (
    CHANGE,
    NEW,
    Effect,
    Order,
    OrderControl,
    OrderEvent,
    Policy,
    Procedure,
    ProcedureInput,
    Step,
    StepInput,
    Takes,
    Unheld,
    effect_of,
)
from gateway.domain.order_matching import (
    codes,
    in_time_alone,
    is_moved,
    is_moved_as_another,
    matched_procedures,
    matched_steps,
    names_procedures,
    same_number,
)
from gateway.domain.refusal import Refusal, RefusalKind, Refused
from gateway.domain.step_log import finished_before, happen
from gateway.domain.worklist import FINISHED, TRANSITIONS, SPSStatus, StepEvent, missing_for_listing, start_of

_CODES = TAG["RequestedProcedureCodeSequence"]
_PLACER, _FILLER = TAG["PlacerOrderNumberImagingServiceRequest"], TAG["FillerOrderNumberImagingServiceRequest"]
_NUMBERS = (_PLACER, _FILLER, TAG["OrderPlacerIdentifierSequence"], TAG["OrderFillerIdentifierSequence"])
_SPS_ID = TAG["ScheduledProcedureStepID"]

_OF_PROCEDURE = frozenset(TAG[keyword] for keyword in (*PROCEDURE_KEYWORDS, *STEP_KEYWORDS))
"""What a procedure brings along: what it is, and where and how long it is done."""

# What short keys that are generated begin with.
_PREFIXES = {"AccessionNumber": "A", "RequestedProcedureID": "R", "ScheduledProcedureStepID": "S"}

# Names of stamps of what is no attribute.
_VISIT, _STEPS = "visit", "steps"

_BRINGS_BACK = frozenset(
    {StepEvent.ORDERED, StepEvent.ORDERED_ANEW, StepEvent.SCHEDULED_ANEW, StepEvent.RELEASE}
)  # what a new start makes a new appointment of, after the night took the step away
_AS_ANOTHER = "the appointment names another procedure than its order; only its time and place were taken"
_UNORDERED = "the appointment names a procedure that is not of its order; send an order for it to have it on the list"
_UNREMARKABLE = frozenset({SPSStatus.SCHEDULED, SPSStatus.STARTED})


Generated = tuple[tuple[str, str], ...]
"""(keyword, value) of keys that were made here."""


@dataclass(frozen=True, slots=True)
class Applied:
    """The order after the event, and notes on what was accepted without the effect its sender may expect.

    `generated` are the keys that were made for it now, by keyword.
    """

    order: Order
    notes: tuple[str, ...] = ()
    generated: Generated = ()


def order_key(event: OrderEvent) -> str:
    """What identifies the order for minting: placer, filler or accession number with issuer, else the study; or ''."""
    accession = next((procedure.accession for procedure in event.procedures if procedure.accession), None)
    for kind, identifier in (("placer", event.placer), ("filler", event.filler), ("accession", accession)):
        if identifier is not None:
            return f"{kind}:{identifier.issuer}:{identifier.value}"
    study = next((said.study_instance_uid for said in event.procedures if said.study_instance_uid), "")
    return f"study:{study}" if study else ""


def apply(
    held: Order | None,
    event: OrderEvent,
    patient_id: int,
    visit_id: int | None,
    mint: Mint,
    site: str = "",
    *,
    stamp: Stamp = UNSTAMPED,
    discontinue_started: bool = False,
    cancel_unsaid: bool = False,
    taken: Collection[str] = (),
) -> Applied:
    """The order after `event`, which was said at `stamp`. `site` is the sender's: an order keeps the first.

    `discontinue_started`: a cancel discontinues what has started. `cancel_unsaid`: a step that an order or a change
    leaves out of its procedure is cancelled. `taken`: keys that other orders have, so that no such one is generated.

    Raises Refused: an order, procedure or step that is not held (204), a cancel or a hold after the start (207), a
    lacking key whose policy is to refuse (101), a step that is no worklist item and that no procedure rule completes
    (uncovered), an order number of another patient (205).
    """
    effect = effect_of(event.control, event.order_status)
    where = event.where or "ORC"
    if held is None:
        if effect.unheld is not Unheld.CREATED:
            raise Refused(_no_order(event.control, where))
        held = Order(None, patient_id, visit_id, event.placer, event.filler, {}, ())
    if effect.takes is Takes.NOTHING:
        return Applied(held, (effect.note,))
    if held.patient_id != patient_id:
        raise Refused(Refusal(
            RefusalKind.DUPLICATE_KEY, f"{where}-2.1", "this order number belongs to an order of another patient",
            "use a new order number, or merge the patients first (A40) if they are one person",
        ))  # fmt: skip
    happened = effect.event
    if happened is StepEvent.CANCEL and discontinue_started:
        happened = StepEvent.WITHDRAW
    whole = cancel_unsaid and event.control in (*NEW, *CHANGE)
    return _Change(event, effect, happened, order_key(event), mint, stamp, whole, taken).applied(held, visit_id, site)


def renumbered(held: Order, event: OrderEvent) -> Order:
    """The order under the numbers that its source gives it now, where it is held under those that it gave formerly."""
    former = event.formerly
    if former is None:
        return held
    said = [each for each in event.procedures if each.formerly is not None]
    procedures = list(held.procedures)
    for one, place in zip(said, matched_procedures(procedures, [_former(each) for each in said]), strict=True):
        if place is not None:
            procedures[place] = _procedure_renumbered(procedures[place], one, _former(one))
    numbers = (former.placer, event.placer), (former.filler, event.filler)
    others = {old.value: new.value for old, new in numbers if old and new and old != new}
    procedures = [_derived_anew(each, others) for each in procedures]
    return replace(
        held,
        placer=event.placer if held.placer == former.placer else held.placer,
        filler=event.filler if held.filler == former.filler else held.filler,
        procedures=tuple(procedures),
    )


def _derived_anew(held: Procedure, others: Mapping[str, str]) -> Procedure:
    """With its accession number, where that was derived from an order number, derived from the one of now instead: the
    former number may be that of another order from now on."""
    value = others.get(held.accession.value, "") if held.accession and "AccessionNumber" in held.minted else ""
    if not 0 < len(value) <= LENGTH_MAX["SH"]:
        return held
    attributes, stamps = _without(held.attributes, held.stamps, {TAG["AccessionNumber"]})
    return replace(held, accession=Identifier(value), attributes=attributes, stamps=stamps)


def _former(said: ProcedureInput) -> ProcedureInput:
    return said.formerly or said


def _procedure_renumbered(held: Procedure, said: ProcedureInput, former: ProcedureInput) -> Procedure:
    told = [each for each in said.steps if each.formerly is not None and each.formerly.sps_id != each.sps_id]
    steps = list(held.steps)
    for one, place in zip(told, matched_steps(steps, [each.formerly or each for each in told]), strict=True):
        if place is not None and steps[place].sps_id == (one.formerly or one).sps_id:
            attributes, stamps = _without(steps[place].attributes, steps[place].stamps, {_SPS_ID})
            steps[place] = replace(steps[place], sps_id=one.sps_id, attributes=attributes, stamps=stamps)
    if said.accession == former.accession or not same_number(held.accession, former.accession):
        return held if not told else replace(held, steps=tuple(steps))
    attributes, stamps = _without(held.attributes, held.stamps, {TAG["AccessionNumber"]})
    return replace(held, accession=said.accession, attributes=attributes, stamps=stamps, steps=tuple(steps))


def is_begun(order: Order) -> bool:
    """Whether anything of it is being performed, or was."""
    return any(
        step.status is SPSStatus.STARTED or step.status in FINISHED
        for procedure in order.procedures for step in procedure.steps
    )  # fmt: skip


def arrive(order: Order, stamp: Stamp = UNSTAMPED) -> Order:
    """The order after its patient has arrived (ADT A10)."""
    return replace(order, procedures=tuple(
        replace(procedure, steps=tuple(_arrived(step, stamp) for step in procedure.steps))
        for procedure in order.procedures
    ))  # fmt: skip


def _arrived(step: Step, stamp: Stamp) -> Step:
    if step.status is not SPSStatus.SCHEDULED:
        return step
    after = happen(step.status, step.stamps.events, StepEvent.ARRIVED, stamp)
    return replace(step, status=after.status or step.status, stamps=replace(step.stamps, events=after.events))


@dataclass(slots=True)
class _Change:
    """One event on its way into an order. `whole`: what it says of a procedure is all there is to it. `taken`: keys
    that are not to be generated, for other orders have them."""

    event: OrderEvent
    effect: Effect
    happened: StepEvent | None
    key: str
    mint: Mint
    stamp: Stamp
    whole: bool
    taken: Collection[str] = ()
    generated: list[tuple[str, str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    refusals: list[Refusal] = field(default_factory=list)
    late: bool = False

    def applied(self, held: Order, visit_id: int | None, site: str) -> Applied:
        event, keys_only = self.event, self.effect.takes is Takes.KEYS
        procedures = list(held.procedures)
        touched = False
        if self.effect.note:
            self.notes.append(self.effect.note)
        if not keys_only or names_procedures(held, event):
            matched = matched_procedures(held.procedures, event.procedures)
            for each, index in zip(event.procedures, matched, strict=True):
                if index is None and (self.happened is StepEvent.LEFT_OUT or self._rewords):
                    touched = True  # what is not here need not be taken back, nor reworded
                    continue
                unordered = index is None and bool(held.procedures) and is_moved(each)
                if unordered and any(place is not None for place in matched):
                    self.notes.append(_UNORDERED)
                    continue
                if unordered or (index is None and keys_only):
                    self.refusals.append(_not_held(each.where, "requested procedure"))
                    continue
                place = len(procedures) if index is None else index
                before = held.procedures[index] if index is not None else None
                said = each if before is None else self._of_procedure(before, each)
                if keys_only and before is not None:
                    after: Procedure = before
                    spoken = self._spoken(before, said)
                else:
                    after, spoken = self._procedure(before, said, _numbered(self.key, place))
                procedures[place:] = [self._with_status(after, spoken, before), *procedures[place + 1 :]]
                touched = True
        if not touched and not self.refusals:  # the message names the order only: it is about all of its steps
            procedures = [self._with_status(each, range(len(each.steps)), each) for each in procedures]
        if self.refusals:
            raise Refused(*self.refusals)
        attributes, stamps = self._order_attributes(held)
        visit, stamps = self._visit(held, visit_id, stamps)
        order = Order(
            held.id,
            held.patient_id,
            visit,
            self._number(event.placer, held.placer, held.stamps, _PLACER),
            self._number(event.filler, held.filler, held.stamps, _FILLER),
            attributes,
            tuple(procedures),
            held.site or site,
            stamps,
            self._provisional(held),
        )
        if self.late:
            self.notes.append("made before what is held; it only filled what was unknown")
        return Applied(order, tuple(dict.fromkeys(self.notes)), tuple(self.generated))

    @property
    def _rewords(self) -> bool:
        """Whether it counts for what is held only."""
        return self.effect.takes is Takes.HELD

    # -- the order

    def _order_attributes(self, held: Order) -> tuple[Attributes, Stamps]:
        former = self.event.formerly
        said = as_news(self.event.attributes, former.attributes if former else None, held.attributes)
        if self.effect.takes is Takes.KEYS:
            numbers = {tag: said[tag] for tag in _NUMBERS if tag in said and tag not in held.attributes}
            return ({**held.attributes, **numbers} if numbers else held.attributes), held.stamps
        self.late = self.late or not self.stamp.replaces(held.stamps.base)
        return merge_said(held.attributes, held.stamps, said, self.stamp)

    def _visit(self, held: Order, visit_id: int | None, stamps: Stamps) -> tuple[int | None, Stamps]:
        """The visit that the order belongs to, and the stamps with when that was said."""
        since = held.stamps.of(_VISIT, held.visit_id is not None)
        if visit_id is None:
            if since is not None and stamps.base != held.stamps.base and _VISIT not in stamps.others:
                stamps = stamps.noted(_VISIT, since)
            return held.visit_id, stamps
        if not self.stamp.replaces(since):
            return held.visit_id, stamps
        if stamps.base != self.stamp:
            stamps = stamps.noted(_VISIT, self.stamp)
        elif _VISIT in stamps.others:
            stamps = replace(stamps, others={name: at for name, at in stamps.others.items() if name != _VISIT})
        return visit_id, stamps

    def _number(self, said: Identifier | None, held: Identifier | None, stamps: Stamps, tag: str) -> Identifier | None:
        if held is None or said is None:
            return said or held
        return said if self.stamp.replaces(stamps.of(tag, held=True)) else held

    def _provisional(self, held: Order) -> bool:
        """Whether an order of the RIS may still take it over: not once somebody orders it by a number."""
        if self.event.by_appointment:
            return held.provisional or held.id is None
        return held.provisional and self.event.placer is None and self.event.filler is None

    # -- procedures

    def _of_procedure(self, held: Procedure, said: ProcedureInput) -> ProcedureInput:
        """What it says of this procedure: under the code of another one, when and where alone."""
        if not is_moved_as_another(held, said):
            return said
        self.notes.append(_AS_ANOTHER)
        return in_time_alone(held, said)

    def _spoken(self, held: Procedure, said: ProcedureInput) -> Sequence[int]:
        """The steps that a message means which only names them; where it names none, all."""
        matched = matched_steps(held.steps, said.steps)
        if self.happened is StepEvent.LEFT_OUT and said.steps:
            return [index for index in matched if index is not None]
        if None in matched:
            self.refusals.append(_not_held(said.where, "scheduled procedure step"))
        return [index for index in matched if index is not None] or range(len(held.steps))

    def _procedure(self, held: Procedure | None, said: ProcedureInput, key: str) -> tuple[Procedure, list[int]]:
        """The procedure after the event, and the indexes of its steps that were spoken of."""
        attributes, stamps, other = self._procedure_attributes(held, said)
        keys, minted = self._procedure_keys(held, said, attributes, key)
        if said.study_instance_uid and keys["StudyInstanceUID"] != said.study_instance_uid:
            self.notes.append("the Study Instance UID was published before and stays")
        attributes |= {TAG[keyword]: element(keyword, value) for keyword, value in keys.items() if value}
        steps = list(held.steps) if held else []
        spoken: list[int] = []
        for step, index in zip(said.steps, matched_steps(steps, said.steps, other is not False), strict=True):
            if index is None and (other is None or self._rewords):  # planned for what the procedure is no more
                continue
            place = len(steps) if index is None else index
            if index is None:
                steps.append(Step(None, step.sps_id, SPSStatus.SCHEDULED, {}))
            spoken.append(place)
            steps[place] = self._step(steps[place], step, other, _numbered(key, place), said.where)
        if not steps:
            self.refusals.append(_uncovered("ScheduledProcedureStepID", said.where))
        if said.steps and (self.whole or other):
            stamps = self._leave_out(steps, spoken, len(held.steps) if held else 0, stamps)
        procedure = Procedure(
            held.id if held else None,
            keys["StudyInstanceUID"],
            keys["RequestedProcedureID"],
            self._accession(held, said, keys["AccessionNumber"]),
            attributes,
            tuple(steps),
            minted,
            stamps,
        )
        return procedure, spoken or list(range(len(steps)))  # no step named: the procedure as a whole is meant

    def _procedure_attributes(
        self, held: Procedure | None, said: ProcedureInput
    ) -> tuple[Attributes, Stamps, bool | None]:
        """Attributes and stamps after the event, and whether it is for another procedure than the one held (True), or
        from when it was another (None)."""
        spoken = said.attributes
        if said.accession is not None:
            spoken = {**spoken, TAG["AccessionNumber"]: element("AccessionNumber", said.accession.value)}
        if said.requested_procedure_id:
            spoken = {
                **spoken, TAG["RequestedProcedureID"]: element("RequestedProcedureID", said.requested_procedure_id)
            }  # fmt: skip
        if held is None:
            return *self._merged({}, Stamps(), spoken, said.defaults, False), False
        former = said.formerly.attributes if said.formerly else None
        other: bool | None = False
        before, now = codes(held.attributes), codes(said.attributes)
        if before and now and before != now:
            other = True if self.stamp.replaces(held.stamps.of(_CODES, held=True)) else None
        attributes, stamps = held.attributes, held.stamps
        if held.minted:  # a key that was made here gives way to any that is said, whenever that was
            attributes, stamps = _without(attributes, stamps, {TAG[keyword] for keyword in held.minted})
        return *self._merged(attributes, stamps, spoken, said.defaults, other, former), other

    def _merged(
        self,
        held: Attributes,
        stamps: Stamps,
        said: Attributes,
        defaults: Attributes,
        other: bool | None,
        former: Attributes | None = None,
    ) -> tuple[Attributes, Stamps]:
        """What is held after the event. Defaults fill gaps; those of another procedure than before take precedence, and
        what was said of another when it was that one is no reason to replace the present one's."""
        self.late = self.late or not self.stamp.replaces(stamps.base)
        if other is None:
            said = {tag: each for tag, each in said.items() if tag not in held or tag not in _OF_PROCEDURE}
        elif other:
            gone = as_news({}, {tag: each for tag, each in (former or {}).items() if tag not in said}, held)
            said = {**said, **{tag: each for tag, each in gone.items() if tag not in defaults}}
            held, stamps = _without(held, stamps, defaults)
        else:
            said = as_news(said, former, held, defaults)
        merged, stamps = merge_said(held, stamps, said, self.stamp)
        return fill(merged, stamps, defaults, self.stamp) if defaults else (merged, stamps)

    def _accession(self, held: Procedure | None, said: ProcedureInput, value: str) -> Identifier | None:
        known = held.accession if held else None
        if said.accession is not None and said.accession.value == value:
            return said.accession
        return known if known is not None and known.value == value else Identifier(value) if value else None

    def _procedure_keys(
        self, held: Procedure | None, said: ProcedureInput, attributes: Attributes, key: str
    ) -> tuple[dict[str, str], frozenset[str]]:
        """Study Instance UID, accession number and RP ID: as said, as held, or by the policy of each.

        Also which of them were minted. A Study Instance UID that was published stays (design D10).
        """
        accession = held.accession.value if held and held.accession else ""
        keys = {
            "StudyInstanceUID": (held.study_instance_uid if held else "") or said.study_instance_uid,
            "AccessionNumber": text(attributes, "AccessionNumber") or accession,
            "RequestedProcedureID": text(attributes, "RequestedProcedureID")
            or (held.requested_procedure_id if held else ""),
        }
        given: Mapping[str, object] = {
            "AccessionNumber": said.accession, "RequestedProcedureID": said.requested_procedure_id
        }  # fmt: skip
        minted = {keyword for keyword in (held.minted if held else ()) if not given.get(keyword)}
        sources = {
            "PlacerOrderNumberImagingServiceRequest": self.event.placer.value if self.event.placer else "",
            "FillerOrderNumberImagingServiceRequest": self.event.filler.value if self.event.filler else "",
        }
        for keyword, known in tuple(keys.items()):
            policy = self.event.policies.get(keyword)
            if known or policy is None:
                continue
            derived = (keys | sources).get(policy.source, "")
            if policy.action == "refuse" or (not derived and not key):
                self.refusals.append(_lacking(keyword, policy, said.where))
                continue
            minted.add(keyword)
            # A source that is itself empty, or too long for the key, falls back to minting.
            keys[keyword] = derived if 0 < len(derived) <= LENGTH_MAX["SH"] else self._generated(keyword, key)
        return keys, frozenset(minted)

    def _generated(self, keyword: str, key: str) -> str:
        """A key made from what names its place in the order; of the first generation in which nobody else has it.

        An order that got another number keeps its keys, and the next order of its former number has its own.
        """
        value, generation = _minted(self.mint, keyword, key), 1
        while value in self.taken:
            generation += 1
            value = _minted(self.mint, keyword, f"{generation}:{key}")
        self.generated.append((keyword, value))
        return value

    # -- steps

    def _step(self, held: Step, said: StepInput, other: bool | None, key: str, where: str) -> Step:
        """The step with what was said, and its ID made where nobody gave one; what it lacks goes to the refusals."""
        reported = self.happened is StepEvent.REPORTED_COMPLETED
        if not reported and finished_before(held.status, held.stamps.events, self.stamp):
            self.notes.append(f"a step of this order is {held.status}; it stays as it was done")
            return held
        spoken, attributes, stamps = said.attributes, held.attributes, held.stamps
        if said.sps_id:
            spoken = {**spoken, _SPS_ID: element("ScheduledProcedureStepID", said.sps_id)}
            if held.minted:
                attributes, stamps = _without(attributes, stamps, {_SPS_ID})
        former = said.formerly.attributes if said.formerly and held.id is not None else None
        attributes, stamps = self._merged(attributes, stamps, spoken, said.defaults, other, former)
        sps_id, minted = text(attributes, "ScheduledProcedureStepID") or held.sps_id, held.minted and not said.sps_id
        policy = self.event.policies.get("ScheduledProcedureStepID")
        if not sps_id and policy is not None:
            if policy.action == "refuse" or not key:
                self.refusals.append(_lacking("ScheduledProcedureStepID", policy, where))
            else:
                sps_id, minted = self._generated("ScheduledProcedureStepID", key), True
        if sps_id and text(attributes, "ScheduledProcedureStepID") != sps_id:
            attributes = {**attributes, _SPS_ID: element("ScheduledProcedureStepID", sps_id)}
        if self.event.complete and not self._rewords:
            self.refusals += [_uncovered(keyword, where) for keyword in missing_for_listing(attributes)]
        return Step(held.id, sps_id, held.status, attributes, minted, stamps)

    def _leave_out(self, steps: list[Step], spoken: Iterable[int], known: int, stamps: Stamps) -> Stamps:
        """Cancel the steps that the newest message about the whole procedure does not name; when that was made.

        Of a procedure that is another one now, only those that no sender has a name for.
        """
        newest = stamps.of(_STEPS, held=False)
        if newest is not None and not self.stamp.replaces(newest):
            missing: Iterable[int] = range(known, len(steps))
        else:
            newest = self.stamp
            missing = set(range(known)) - set(spoken)
            stamps = stamps.noted(_STEPS, newest)
        for place in missing:
            step = steps[place]
            if not newest.replaces(step.stamps.base):  # it was added by something newer
                continue
            if not self.whole and not step.minted:
                continue
            after = happen(step.status, step.stamps.events, StepEvent.LEFT_OUT, newest)
            if after.status is SPSStatus.CANCELED and step.status is not SPSStatus.CANCELED:
                self.notes.append("a step that the message leaves out is cancelled")
            steps[place] = _with(step, after.status or step.status, after.events)
        return stamps

    def _with_status(self, procedure: Procedure, spoken: Iterable[int], before: Procedure | None) -> Procedure:
        """The procedure with the event's effect on the status of the steps spoken of."""
        happened = self.happened
        if happened is None:
            return procedure
        starts = {step.id: start_of(step.attributes) for step in before.steps} if before else {}
        steps = list(procedure.steps)
        for index in spoken:
            step = steps[index]
            moved = step.status is SPSStatus.EXPIRED and start_of(step.attributes) != starts.get(step.id)
            steps[index] = self._happen(step, happened, moved)
        if all(map(is_, steps, procedure.steps)):
            return procedure
        return Procedure(
            procedure.id,
            procedure.study_instance_uid,
            procedure.requested_procedure_id,
            procedure.accession,
            procedure.attributes,
            tuple(steps),
            procedure.minted,
            procedure.stamps,
        )

    def _happen(self, step: Step, happened: StepEvent, moved: bool) -> Step:
        held, events = step.status, step.stamps.events
        left_out = held is SPSStatus.CANCELED and events[-1:] and events[-1][0] == StepEvent.LEFT_OUT.name
        if left_out and happened in _BRINGS_BACK and self.stamp.replaces(events[-1][1]):
            happened = StepEvent.ORDERED_ANEW
        if moved and happened in _BRINGS_BACK:
            after: SPSStatus | None = TRANSITIONS[held, StepEvent.RESCHEDULED]
            late = False
        elif happened is StepEvent.ORDERED:
            after, late = held, False
        else:
            result = happen(held, events, happened, self.stamp)
            after, events, late = result.status, result.events, result.late
        if after is None:
            self.refusals.append(_too_late(happened, held, self.event.where))
            return step
        if after is held and held not in _UNREMARKABLE:
            self.notes.append(f"a step of this order is {held}; its status is unchanged")
        elif late and after is held:
            self.notes.append("made before what is known of a step's status, which stays")
        elif held is SPSStatus.CANCELED and after is SPSStatus.SCHEDULED:
            self.notes.append("the order was cancelled and is ordered again")
        elif held is SPSStatus.CANCELED:
            self.notes.append(f"a step was {after} before it was cancelled, so the cancel has no effect")
        if after is held and events == step.stamps.events:
            return step
        return _with(step, after, events)


def _without(held: Attributes, stamps: Stamps, tags: Collection[str]) -> tuple[Attributes, Stamps]:
    """What is held as if nobody had ever spoken of these."""
    others = {name: since for name, since in stamps.others.items() if name not in tags}
    return {tag: each for tag, each in held.items() if tag not in tags}, Stamps(stamps.base, others, stamps.events)


def _with(step: Step, status: SPSStatus, events: tuple[tuple[str, Stamp], ...]) -> Step:
    stamps = Stamps(step.stamps.base, step.stamps.others, events)
    return Step(step.id, step.sps_id, status, step.attributes, step.minted, stamps)


def _numbered(key: str, place: int) -> str:
    """What a key of the procedure or step at this place of its order is minted from; '' if nothing names the order."""
    return f"{key}/{place + 1}" if key else ""


def _minted(mint: Mint, keyword: str, key: str) -> str:
    if keyword == "StudyInstanceUID":
        return mint.study_instance_uid(key)
    return mint.short_id(_PREFIXES[keyword], key)


# -- refusals


def _no_order(control: OrderControl, where: str) -> Refusal:
    kind = RefusalKind.UNKNOWN_KEY if control is OrderControl.SS else RefusalKind.UNKNOWN_ORDER
    return Refusal(
        kind, f"{where}-2.1",
        f"no order with this placer or filler number is held, so {control} has nothing to act on",
        "send the new order (NW) first, or check the number and its assigning authority",
    )  # fmt: skip


def _not_held(where: str, what: str) -> Refusal:
    return Refusal(
        RefusalKind.UNKNOWN_ORDER, where, f"the order is held, but not with this {what}",
        "check Study Instance UID, accession number, requested procedure ID and scheduled procedure step ID",
    )  # fmt: skip


def _lacking(keyword: str, policy: Policy, where: str) -> Refusal:
    return Refusal(
        RefusalKind.MISSING_FIELD, policy.where or where, f"{keyword} is not in the order",
        "send it, or let the mapping generate or derive it",
    )  # fmt: skip


def _uncovered(keyword: str, where: str) -> Refusal:
    hint = "add the procedure code to mappings/procedures.csv, or send the value"
    if keyword.startswith("ScheduledProcedureStepStart"):  # no procedure rule has a start
        hint = "send it, or say in the mapping where it is"
    text = f"{keyword} is neither in the order nor given by a procedure rule"
    return Refusal(RefusalKind.UNCOVERED, where, text, hint)


def _too_late(happened: StepEvent, status: SPSStatus, where: str) -> Refusal:
    put = "put on hold" if happened is StepEvent.HOLD else "cancelled"
    return Refusal(
        RefusalKind.CONFLICT, f"{where}-1" if where else "ORC-1",
        f"a step of this order is {status}, so it cannot be {put} any more", "send DC to discontinue it",
    )  # fmt: skip
