"""What is at the reconciliation desk and in the queues, as plain values for JSON and tables.

For people and programs with the right to see it: it names patients, and belongs in no log. Times are ISO 8601 with
their offset; scheduled and performed times are the department's wall clock, as digits.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from gateway.domain.attributes import Element, text, values
from gateway.domain.performed import references, text_of
from gateway.domain.refusal import Refusal, Refused
from gateway.domain.worklist import WorklistItem, start_of
from gateway.edges.desk import Place, all_backlogs
from gateway.edges.store_outbox import PerformedSent
from gateway.edges.store_performed import PerformedRequest
from gateway.edges.store_reader import StoreReader
from gateway.wire.mpps_dataset import read_step
from gateway.workflow.outbox import Backlog, Delivery
from gateway.workflow.ports import OverdueStep, PerformanceReports, PerformedDecision, StoredPerformed
from gateway.workflow.proposals import Proposal
from gateway.workflow.queue_decisions import QueueDecision
from gateway.workflow.reconcile import Reconciled

View = dict[str, Any]

_BEGAN, _ENDED = ("00400244", "00400245"), ("00400250", "00400251")


def performed_view(stored: StoredPerformed) -> View:
    """A performed step in a list: what it is, whose it says it is, and what is to be decided."""
    held = stored.performed
    said = held.attributes
    return {
        "uid": held.sop_instance_uid,
        "state": held.state.value,
        "attention": held.attention.value,
        "from": held.calling_ae_title,
        "received_at": stored.created_at.isoformat(),
        "changed_at": stored.updated_at.isoformat(),
        "patient": held.patient_id,
        "patient_id": text(said, "PatientID"),
        "patient_name": text(said, "PatientName"),
        "modality": text(said, "Modality"),
        "station": text_of(said, "00400241"),
        "description": text_of(said, "00400254") or text_of(said, "00400255"),
        "began": _digits(said, _BEGAN),
        "ended": _digits(said, _ENDED),
        "series": len(_items(said, "00400340")),
        "names": [
            {"study_instance_uid": each.study_instance_uid, "accession": each.accession_number,
             "requested_procedure_id": each.requested_procedure_id, "sps_id": each.sps_id}
            for each in references(said)
        ],
        "steps": list(held.steps),
    }  # fmt: skip


def whole_view(reader: StoreReader, stored: StoredPerformed) -> View:
    """Everything held of a performed step."""
    uid = stored.performed.sop_instance_uid
    return {
        **performed_view(stored),
        "attributes": stored.performed.attributes,
        "linked": [step_view(item) for item in reader.items(stored.performed.steps)],
        "requests": [_request_view(each) for each in reader.performed_requests(uid)],
        "decisions": [decision_view(each) for each in reader.performed_decisions(uid)],
        "passed_on": [_passed_on_view(each) for each in reader.performed_sent(uid)],
        "forwards": [delivery_view(each) for each in reader.deliveries_in_lane(uid)],
        "queue_decisions": [queue_decision_view(each) for each in reader.queue_decisions_of_instance(uid)],
    }


def step_view(item: WorklistItem) -> View:
    """A scheduled step by what people know it by."""
    step = item.step
    return {
        "step": item.step_id,
        "status": item.status.value,
        "sps_id": text(step, "ScheduledProcedureStepID"),
        "accession": text(item.attributes, "AccessionNumber"),
        "study_instance_uid": text(item.attributes, "StudyInstanceUID"),
        "patient_id": text(item.attributes, "PatientID"),
        "patient_name": text(item.attributes, "PatientName"),
        "start": start_of(step),
        "stations": [str(each) for each in values(step, "ScheduledStationAETitle")],
        "modality": text(step, "Modality"),
        "description": text(step, "ScheduledProcedureStepDescription"),
    }


def proposal_views(reader: StoreReader, proposals: Sequence[Proposal]) -> list[View]:
    """Scheduled steps that a performed one may belong to, the most likely first, each with the reasons."""
    items = {item.step_id: item for item in reader.items(each.step.step_id for each in proposals)}
    return [
        {
            **step_view(items[each.step.step_id]),
            "reasons": list(each.reasons),
            "minutes_apart": None if each.apart is None else round(each.apart.total_seconds() / 60),
            "weight": each.weight,
        }
        for each in proposals
        if each.step.step_id in items
    ]


def overdue_views(reader: StoreReader, overdue: Sequence[OverdueStep]) -> list[View]:
    """Scheduled steps that should have begun and that no performed step is linked to."""
    items = {item.step_id: item for item in reader.items(each.step.step_id for each in overdue)}
    return [
        {**step_view(items[each.step.step_id]), "order": each.step.order_id}
        for each in overdue
        if each.step.step_id in items
    ]


def sender_view(report: PerformanceReports) -> View:
    """What a station had to do and what it told of it; `reports` is never, some or all."""
    told = max(report.performed, report.received)
    return {
        "ae_title": report.ae_title,
        "scheduled": report.scheduled,
        "performed": report.performed,
        "received": report.received,
        "last_at": _time(report.last_at),
        "reports": "never" if not told else "some" if report.performed < report.scheduled else "all",
    }


def decision_view(decision: PerformedDecision) -> View:
    """A line of the log."""
    return {"at": decision.at.isoformat(), "action": decision.action, "actor": decision.actor,
            "details": dict(decision.details)}  # fmt: skip


def queue_decision_view(decision: QueueDecision) -> View:
    """A line of the log of a queue; `messages` is how many it was about, None where it was the queue itself."""
    details = decision.details
    return {"at": decision.at.isoformat(), "destination": decision.destination, "action": decision.action,
            "actor": decision.actor, "messages": details.get("count"), "note": details.get("note", "")}  # fmt: skip


def reconciled_view(reader: StoreReader, done: Reconciled) -> View:
    """What came of a decision."""
    stored = reader.stored_performed(done.performed.sop_instance_uid)
    return {
        "performed_step": performed_view(stored) if stored is not None else None,
        "changes": [
            {"step": each.step_id, "before": each.before.value, "after": each.after.value} for each in done.changes
        ],
        "notes": list(done.notes),
    }


def queue_views(reader: StoreReader, places: Sequence[Place], now: datetime) -> list[View]:
    """Every destination that is configured or was ever told anything."""
    return [_queue_view(reader, each, places, now) for each in all_backlogs(reader.queues(), places)]


def _queue_view(reader: StoreReader, backlog: Backlog, places: Iterable[Place], now: datetime) -> View:
    """A destination and what waits for it; `gets` is '' for one that is not configured any more."""
    by = reader.queue_held_by(backlog.destination) if backlog.held else None
    place = next((each for each in places if each.name == backlog.destination), None)
    return {
        "destination": backlog.destination,
        "configured": place is not None,
        "gets": place.gets if place else "",
        "address": place.address if place else "",
        "held": backlog.held,
        "held_by": by.actor if by is not None else "",
        "held_at": _time(by.at) if by is not None else None,
        "held_why": by.details.get("note", "") if by is not None else "",
        "waiting": backlog.waiting,
        "parked": backlog.parked,
        "oldest": _time(backlog.oldest),
        "oldest_s": round(backlog.age_s(now)) if backlog.oldest else None,
        "last_error": backlog.last_error,
        "last_error_at": _time(backlog.last_error_at),
        "last_sent_at": _time(backlog.last_sent_at),
    }


def delivery_view(delivery: Delivery) -> View:
    """Something that waits or is parked. `archived` is its number among the messages or the performed requests."""
    return {
        "number": delivery.id,
        "destination": delivery.destination,
        "kind": delivery.kind.value,
        "operation": delivery.operation,
        "control_id": delivery.control_id,
        "archived": delivery.archive_id,
        "state": delivery.state.value,
        "created_at": delivery.created_at.isoformat(),
        "due_at": delivery.due_at.isoformat(),
        "attempts": delivery.attempts,
        "reason": delivery.reason,
    }


def refusal_view(refusal: Refusal) -> View:
    """What is wrong, where, and what to do."""
    return {"kind": refusal.kind.value, "where": refusal.where, "text": refusal.text, "hint": refusal.hint}


def _passed_on_view(sent: PerformedSent) -> View:
    """What a destination got last; `answer` begins with the status as four hex digits where it was plainly accepted."""
    return {"destination": sent.destination, "operation": sent.operation, "answer": sent.answer,
            "at": sent.at.isoformat()}  # fmt: skip


def _request_view(request: PerformedRequest) -> View:
    """A request as it came; `dataset` is None where it cannot be read."""
    try:
        dataset, _ = read_step(request.raw, request.transfer_syntax)
    except Refused:
        dataset = None
    return {
        "at": request.at.isoformat(),
        "operation": request.operation,
        "from": request.calling_ae_title,
        "status": f"{request.status:04X}",
        "notes": request.comment,
        "transfer_syntax": request.transfer_syntax,
        "bytes": len(request.raw),
        "dataset": dataset,
    }


def _time(at: datetime | None) -> str | None:
    return at.isoformat() if at is not None else None


def _digits(said: dict[str, Element], tags: Iterable[str]) -> str:
    """Date and time as 14 digits, as far as they are said."""
    return "".join(text_of(said, tag).partition(".")[0] for tag in tags)


def _items(said: dict[str, Element], tag: str) -> Sequence[Any]:
    return (said.get(tag) or {}).get("Value") or ()
