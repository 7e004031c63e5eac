"""A modality reports what it does: MPPS N-CREATE (RAD-6) and N-SET (RAD-7), and linking to orders that come later.

Each use case runs in one transaction and returns an answer instead of raising: a refused request changes nothing
but the archive, and that line has to be committed too (design section 2, rule 3). What a neighbour cannot do now
(full disk, database away) it raises itself, and the edge answers 0213.

A request that is repeated because its answer was lost is answered as DICOM says, not as if it were new: 0111 for the
N-CREATE, also of the same bytes (PS3.7 10.1.5.1.6), 0110 with Error ID A710 for the N-SET that closed the step.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, tzinfo
from typing import Protocol

from gateway.domain.attributes import Attributes
from gateway.domain.discontinuation import DISCONTINUATION_REASON, reason_item
from gateway.domain.performed import STATUS, MPPSState, Operation, PerformedStep
from gateway.domain.performed_deviation import deviations, names_codes
from gateway.domain.performed_retrieval import selected
from gateway.domain.performed_rules import LENIENT, Change, Rules, amend, create
from gateway.domain.refusal import Refusal, RefusalKind
from gateway.wire.dicom_json import EXPLICIT_VR_LITTLE_ENDIAN
from gateway.wire.mpps_dataset import (
    UID_LENGTH_MAX,
    StatusAnswer,
    accepted_answer,
    readable_uid,
    refusal_answer,
    retrieved_answer,
    write_step,
)
from gateway.workflow.audience import NOBODY, Audience
from gateway.workflow.forwarding import pass_on_performed
from gateway.workflow.linking import PatientIssuers, link
from gateway.workflow.performed_effects import Effect, StepChange, take_effect, tell_more
from gateway.workflow.performed_request import PerformRequest, ReadRequest, read_request
from gateway.workflow.ports import Unit

ARCHIVED_REASONS_CHARS_MAX = 2000
"""Reasons and notes kept beside an archived request: a page; the raw dataset itself is beside them."""


@dataclass(frozen=True, slots=True)
class PerformAnswer:
    """The DIMSE answer, and what was done: the performed step as it is now held, and the scheduled steps it changed.

    `error_id` is (0000,0903), `attribute_tags` (0000,1005), `dataset` the attributes that an answer of this status
    shows, in the transfer syntax of the request; `performed` is None where the request was refused.
    """

    status: int
    comment: str = ""
    error_id: int | None = None
    attribute_tags: tuple[int, ...] = ()
    dataset: bytes | None = field(default=None, repr=False)
    refusals: tuple[Refusal, ...] = ()
    notes: tuple[str, ...] = ()
    performed: PerformedStep | None = None
    changes: tuple[StepChange, ...] = ()


def create_step(
    unit: Unit,
    request: ReadRequest,
    at: datetime,
    rules: Rules = LENIENT,
    issuers: PatientIssuers | None = None,
    audience: Audience = NOBODY,
    zone: tzinfo = UTC,
) -> PerformAnswer:
    """N-CREATE: keep the performed step, link it to the scheduled ones it names, start those, pass it on."""
    doing = _Doing(unit, Operation.CREATE, request, at)
    if not request.uid:
        return doing.refused((_NO_UID,))
    held = unit.performed_step(request.uid)
    if request.unreadable and held is None:
        return doing.refused(request.unreadable)
    change = create(held, request.uid, request.said, request.request.calling_ae_title, rules)
    if change.performed is None:
        return doing.refused(change.refusals)
    linked = link(unit, change.performed, issuers or PatientIssuers())
    unit.add_performed_step(linked.performed, at)
    effect = take_effect(unit, linked.performed, linked.steps, at, audience, zone)
    return doing.accepted(change, None, linked.performed, effect, audience, linked.notes)


def set_step(
    unit: Unit,
    request: ReadRequest,
    at: datetime,
    rules: Rules = LENIENT,
    audience: Audience = NOBODY,
    zone: tzinfo = UTC,
) -> PerformAnswer:
    """N-SET: change the performed step; where it ends, so do or return the scheduled steps it is linked to."""
    doing = _Doing(unit, Operation.SET, request, at)
    if not request.uid:
        return doing.refused((_NO_UID,))
    held = unit.performed_step(request.uid)
    if request.unreadable and held is not None and held.state is MPPSState.IN_PROGRESS:
        return doing.refused(request.unreadable)
    change = amend(held, request.said, request.request.calling_ae_title, rules)
    return doing.changed(held, change, audience, zone)


def close_step(
    unit: Unit,
    sop_instance_uid: str,
    state: MPPSState,
    actor: str,
    at: datetime,
    audience: Audience = NOBODY,
    zone: tzinfo = UTC,
    reason: str = "",
) -> PerformAnswer:
    """A person ends a performed step whose modality never will (PS3.4 F.7.2.2.3 note 2), as if it had sent the N-SET.

    A later N-SET of the modality is answered A710. `reason` is a DCM code of CID 9300. The end is now, in the
    department's `zone`, where the modality gave none. Raises ValueError where `state` is no final one.
    """
    if state is MPPSState.IN_PROGRESS:
        raise ValueError("a performed step is closed COMPLETED or DISCONTINUED")
    held = unit.performed_step(sop_instance_uid)
    said = _final(held.attributes if held is not None else {}, state, reason, at.astimezone(zone))
    raw = write_step(said, EXPLICIT_VR_LITTLE_ENDIAN)
    caller = held.calling_ae_title if held is not None else ""
    asked = PerformRequest(sop_instance_uid, caller, EXPLICIT_VR_LITTLE_ENDIAN, raw)
    request = read_request(Operation.SET, asked)
    doing = _Doing(unit, Operation.SET, request, at, f"closed by {actor}")
    return doing.changed(held, amend(held, request.said, caller, LENIENT), audience, zone)


def link_waiting(
    unit: Unit,
    study_instance_uids: Iterable[str],
    accession_numbers: Iterable[str],
    at: datetime,
    issuers: PatientIssuers | None = None,
    audience: Audience = NOBODY,
    zone: tzinfo = UTC,
) -> Effect:
    """An order with these keys has come or changed: link the performed steps that came before it (design D14).

    To be called after the order was saved, in its transaction.
    """
    effects: list[Effect] = []
    for waiting in unit.unlinked_performed_steps(study_instance_uids, accession_numbers):
        linked = link(unit, waiting, issuers or PatientIssuers())
        new = [step for step in linked.steps if step.step_id not in waiting.steps]
        if linked.performed == waiting:
            continue
        unit.save_performed_step(linked.performed, at, waiting)
        if linked.performed.quarantined:  # what it did to the steps it was linked to is not believed any more
            before = unit.steps(waiting.steps)
            effects.append(take_effect(unit, linked.performed, before, at, audience, zone, withdrawn=True))
        else:
            effects.append(take_effect(unit, linked.performed, new, at, audience, zone))
    notes = dict.fromkeys(note for effect in effects for note in effect.notes)
    return Effect(tuple(change for effect in effects for change in effect.changes), tuple(notes))


def attribute_list(operation: Operation, request: ReadRequest, answer: PerformAnswer) -> bytes | None:
    """What a positive answer without a data set has for senders that want one: the attributes as they are now held.

    Of N-CREATE all, which it has to be (PS3.7 10.1.5.1.5); of N-SET those that were sent. None for other answers.
    """
    if answer.performed is None or answer.dataset is not None:
        return answer.dataset
    held = answer.performed.attributes
    if operation is Operation.SET:
        held = {tag: value for tag, value in held.items() if tag in request.said.attributes}
    return write_step(held, request.request.transfer_syntax, answer.performed.attributes)


class PerformedLookup(Protocol):
    """Where performed steps are read."""

    def performed_step(self, sop_instance_uid: str) -> PerformedStep | None:
        """The performed step of this SOP Instance UID."""


def get_step(
    reader: PerformedLookup, sop_instance_uid: str, attribute_tags: Sequence[int], transfer_syntax: str
) -> PerformAnswer:
    """N-GET (PS3.4 F.8): the attributes asked for, or all where none are, whatever the step is linked to.

    Attributes that a performed step need not have and that this one has not are left out (0001), and what is no
    attribute of a performed step, such as one that is only inside sequences, is named in the answer (0107).
    """
    uid = readable_uid(sop_instance_uid)
    performed = reader.performed_step(uid) if uid else None
    if performed is None:
        refusal = _NOT_HELD if uid else _NO_UID
        answer = refusal_answer((refusal,))
        return PerformAnswer(answer.status, answer.comment, refusals=(refusal,))
    found, absent, unknown = selected(performed.attributes, [f"{tag:08X}" for tag in attribute_tags])
    answer = retrieved_answer(absent, unknown)
    encoded = write_step(found, transfer_syntax, performed.attributes)
    return PerformAnswer(
        answer.status, answer.comment, None, answer.attribute_tags, encoded, performed=performed
    )  # fmt: skip


# --- answers ----------------------------------------------------------------------------------------------------


_NO_UID = Refusal(
    RefusalKind.INVALID_UID, "(0000,1000)", "is no SOP Instance UID",
    "the modality has to give each performed step a UID of its own (PS3.4 F.7.2.1.2)",
)  # fmt: skip


_NOT_HELD = Refusal(
    RefusalKind.NO_SUCH_INSTANCE, "", "no performed step with this SOP Instance UID is held",
    "ask for one that was created here",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Doing:
    """One request on its way to its answer. `remark` is what the archive says of it besides."""

    unit: Unit
    operation: Operation
    request: ReadRequest
    at: datetime
    remark: str = ""

    def changed(
        self, held: PerformedStep | None, change: Change, audience: Audience, zone: tzinfo
    ) -> PerformAnswer:  # fmt: skip
        """An N-SET of what is held came to this change: keep it with all that follows."""
        if change.performed is None or held is None:
            return self.refused(change.refusals)
        performed = change.performed
        self.unit.save_performed_step(performed, self.at, held)
        effect = Effect()
        notes: tuple[str, ...] = ()
        if performed.state is not held.state and not held.quarantined:
            steps = self.unit.steps(held.steps)
            effect = take_effect(self.unit, performed, steps, self.at, audience, zone, remark=self.remark)
            if performed.state is MPPSState.COMPLETED and names_codes(performed.attributes):
                notes = deviations(performed.attributes, self.unit.items(performed.steps))
        elif performed != held and not held.quarantined:
            tell_more(self.unit, performed, self.unit.steps(held.steps), self.at, audience, zone)
        return self.accepted(change, held, performed, effect, audience, notes)

    def refused(self, refusals: tuple[Refusal, ...]) -> PerformAnswer:
        """Nothing was changed."""
        answer = refusal_answer(refusals, self.request.said.attributes)
        self._archive(answer.status, [str(refusal) for refusal in refusals])
        return PerformAnswer(
            answer.status, answer.comment, answer.error_id, answer.attribute_tags, self._dataset(answer), refusals
        )

    def accepted(
        self, change: Change, before: PerformedStep | None, performed: PerformedStep, effect: Effect,
        audience: Audience, more_notes: tuple[str, ...],
    ) -> PerformAnswer:  # fmt: skip
        """It is done: archive it and pass it on."""
        answer = accepted_answer(change.kept, change.left_out, self.request.said.attributes)
        notes = tuple(dict.fromkeys((*self.request.odd, *change.notes, *more_notes, *effect.notes)))
        archive_id = self._archive(answer.status, [answer.comment, *notes])
        pass_on_performed(
            self.unit, audience, self.operation, self.request, archive_id, before, performed, self.at
        )  # fmt: skip
        return PerformAnswer(
            answer.status, answer.comment, None, answer.attribute_tags, self._dataset(answer), (), notes, performed,
            effect.changes,
        )  # fmt: skip

    def _dataset(self, answer: StatusAnswer) -> bytes | None:
        if answer.dataset is None:
            return None
        return write_step(answer.dataset, self.request.request.transfer_syntax, self.request.said.attributes)

    def _archive(self, status: int, reasons: Iterable[str]) -> int:
        """Keep the request as it came, with what it came to."""
        told = "; ".join(reason for reason in (self.remark, *reasons) if reason)[:ARCHIVED_REASONS_CHARS_MAX]
        request = self.request.request
        uid, caller = request.sop_instance_uid[:UID_LENGTH_MAX], request.calling_ae_title
        return self.unit.archive_performed(
            uid, self.operation.value, "" if self.remark else caller, request.raw, status, told, self.at,
            request.transfer_syntax,
        )  # fmt: skip


_END_DATE, _END_TIME = "00400250", "00400251"


def _final(held: Attributes, state: MPPSState, reason: str, end: datetime) -> Attributes:
    """The N-SET that ends a performed step which ended at `end`, the department's wall clock."""
    said: Attributes = {STATUS: {"vr": "CS", "Value": [state.value]}}
    for tag, vr, value in ((_END_DATE, "DA", f"{end:%Y%m%d}"), (_END_TIME, "TM", f"{end:%H%M%S}")):
        if not (held.get(tag) or {}).get("Value"):
            said[tag] = {"vr": vr, "Value": [value]}
    if reason:
        said[DISCONTINUATION_REASON] = {"vr": "SQ", "Value": [reason_item(reason)]}
    return said
