"""Performed steps passed on to Image Managers and Order Fillers (RAD-6, RAD-7), and told to subscribers (PS3.4 F.9).

What was accepted from a modality is put into the outbox of every destination in the same transaction, also what is
quarantined (design D14); what was refused, or repeated and changed nothing, is not. Who answers what, and when, is
between the outbox and the destination: the modality has its answer.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime

from gateway.domain.attributes import Attributes, Element
from gateway.domain.performed import SCHEDULED_STEP_ATTRIBUTES, MPPSState, Operation, PerformedStep, text_of
from gateway.domain.performed_table import BY_TAG, REQUIREMENTS
from gateway.domain.worklist import WorklistItem
from gateway.wire.mpps_dataset import in_character_set_of, write_step
from gateway.workflow.audience import Audience, PerformedTarget
from gateway.workflow.performed_request import ReadRequest
from gateway.workflow.ports import DeliveryKind, NewDelivery, Unit

EVENT_TYPES: Mapping[tuple[Operation, MPPSState], int] = {
    (Operation.CREATE, MPPSState.IN_PROGRESS): 1,
    (Operation.SET, MPPSState.IN_PROGRESS): 4,
    (Operation.SET, MPPSState.COMPLETED): 2,
    (Operation.SET, MPPSState.DISCONTINUED): 3,
}
"""Event Type ID of MPPS Notification (PS3.4 table F.9.2-1) by what was done and the state afterwards.

5 (deleted) never happens: performed steps stay.
"""


def pass_on_performed(
    unit: Unit,
    audience: Audience,
    operation: Operation,
    request: ReadRequest,
    archive_id: int,
    before: PerformedStep | None,
    performed: PerformedStep,
    at: datetime,
) -> None:
    """Put an accepted request into the outbox for every destination of performed steps.

    `before` is what was held before it, None for N-CREATE; `archive_id` its number among the archived requests.
    """
    if not audience.performed or before == performed:
        return
    for target in audience.performed:
        delivery = delivery_to(unit, target, operation, request, archive_id, performed, performed.state)
        unit.add_delivery(delivery, at)


def delivery_to(
    unit: Unit,
    target: PerformedTarget,
    operation: Operation,
    request: ReadRequest,
    archive_id: int,
    performed: PerformedStep,
    state: MPPSState,
) -> NewDelivery:
    """What one destination gets of an accepted request, after which the performed step had this state."""
    uid, received = performed.sop_instance_uid, request.request
    if target.sends == "events":
        told = f"N-EVENT-REPORT {EVENT_TYPES[operation, state]}"
        return NewDelivery(target.destination, uid, uid, b"", archive_id, DeliveryKind.NOTIFICATION, told)
    if operation is Operation.SET:
        payload = _n_set(request, performed, coerced=target.sends == "coerced")
    else:
        payload = _coerced(unit, request, performed) if target.sends == "coerced" else received.raw
    return NewDelivery(
        target.destination, uid, uid, payload, archive_id, DeliveryKind.PERFORMED, operation.value,
        received.transfer_syntax,
    )  # fmt: skip


def _n_set(request: ReadRequest, performed: PerformedStep, *, coerced: bool) -> bytes:
    """The N-SET as it came, where it keeps to what N-SET may say (`coerced`) and to the character set of its N-CREATE.

    Modalities need not keep to that, we have to (PS3.4 F.7.2.2.1). Letters that it does not hold are better sent in
    another one than lost.
    """
    said = request.said.attributes
    if coerced:
        said = {tag: spoken for tag, spoken in said.items() if tag not in BY_TAG or BY_TAG[tag].settable}
    written = in_character_set_of(performed.attributes, said, request.request.transfer_syntax)
    if written is not None:
        return written
    return request.request.raw if len(said) == len(request.said.attributes) else _written(said, request)


# --- coerced ----------------------------------------------------------------------------------------------------

_STUDY_INSTANCE_UID, _ACCESSION_NUMBER = "0020000D", "00080050"
_REQUESTED_PROCEDURE_ID, _SPS_ID = "00401001", "00400009"
_STEP_ROWS = tuple(row.tag for row in BY_TAG[SCHEDULED_STEP_ATTRIBUTES].items)
_OF_STEP = frozenset({_SPS_ID, "00400007", "00400008"})
"""Of an item of the Scheduled Step Attributes Sequence, what the worklist has inside the scheduled step."""
_IDENTITY = frozenset({"00100020", "00100021", "00100024", "00101002"})
"""Together they say who it is, so they are never mixed from two sources."""
_PATIENT = (
    *(row.tag for row in REQUIREMENTS if row.tag.startswith("0010")),
    "00081120",
    *("00380010", "00380014", "00380060", "00380064", "00380062"),
)
"""What N-CREATE says of patient and visit."""


def _coerced(unit: Unit, request: ReadRequest, performed: PerformedStep) -> bytes:
    """The N-CREATE with patient and order as the worklist has them.

    As it came where nothing is held for it or nobody believes it.
    """
    attributes = coerced(request.said.attributes, performed, unit.items)
    return request.request.raw if attributes is None else _written(attributes, request)


def _written(attributes: Attributes, request: ReadRequest) -> bytes:
    return write_step(attributes, request.request.transfer_syntax)


Items = Callable[[Sequence[int]], Sequence[WorklistItem]]
"""The worklist items of these scheduled steps, such as `Unit.items`."""


def coerced(said: Mapping[str, Element], performed: PerformedStep, items: Items) -> Attributes | None:
    """What was said of a performed step when it was created, with patient and order as the worklist has them.

    None where it stays as it came: nothing is held for it, or nobody believes it.
    """
    found = () if performed.quarantined or not performed.steps else items(performed.steps)
    return with_worklist(said, found) if found else None


def with_worklist(said: Mapping[str, Element], items: Sequence[WorklistItem]) -> Attributes:
    """What an N-CREATE said, with patient, visit and order of these worklist items in place of the modality's. Pure.

    An item of the Scheduled Step Attributes Sequence that fits none of them stays as it is, and so does what the
    worklist has no value for, but for identifiers of the patient.
    """
    coerced = dict(said)
    _replace(coerced, items[0].attributes, _PATIENT, _IDENTITY)
    sequence = said.get(SCHEDULED_STEP_ATTRIBUTES) or {}
    references = []
    for reference in sequence.get("Value") or ():
        item = _meant(reference, items, only=len(sequence["Value"]) == 1)
        if item is not None:
            reference = dict(reference)  # noqa: PLW2901  (the reference as the worklist has it)
            _replace(reference, item.attributes, (tag for tag in _STEP_ROWS if tag not in _OF_STEP))
            _replace(reference, item.step, _OF_STEP)
        references.append(reference)
    if references:
        coerced[SCHEDULED_STEP_ATTRIBUTES] = {"vr": "SQ", "Value": references}
    return coerced


def _replace(
    into: Attributes, held: Mapping[str, Element], tags: Iterable[str], wholly: frozenset[str] = frozenset()
) -> None:
    """Those of the held attributes that have a value, in place of what is there; `wholly` also where they have none."""
    for tag in tags:
        element = held.get(tag)
        if element is not None and element.get("Value"):
            into[tag] = element
        elif tag in wholly and tag in into:
            into[tag] = {"vr": into[tag]["vr"]}


def _meant(reference: Mapping[str, Element], items: Sequence[WorklistItem], only: bool) -> WorklistItem | None:
    """The one item that a reference names, by the most telling keys that any item shares with it."""

    def shared(item: WorklistItem, *tags: str) -> bool:
        return all(
            text_of(reference, tag) and text_of(reference, tag) == text_of(_level(item, tag), tag) for tag in tags
        )

    for keys in (
        (_STUDY_INSTANCE_UID, _SPS_ID),
        (_SPS_ID, _ACCESSION_NUMBER, _REQUESTED_PROCEDURE_ID),  # one study for a whole group (`linking`)
        (_STUDY_INSTANCE_UID,),
        (_ACCESSION_NUMBER, _REQUESTED_PROCEDURE_ID),
    ):
        found = [item for item in items if shared(item, *keys)]
        if found:
            return found[0] if len(found) == 1 else None
    return items[0] if only and len(items) == 1 else None  # linked by other means, and there is no other


def _level(item: WorklistItem, tag: str) -> Mapping[str, Element]:
    return item.step if tag in _OF_STEP else item.attributes
