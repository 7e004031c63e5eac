"""What archived messages would do if they were run again now: each is run, looked at, and undone with the whole job.

`rehearse` belongs in a job that is undone (`Store.rehearse`). Messages rehearsed in one job see each other's effects,
as they would if they were run.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol, TypeVar

from gateway.domain.attributes import SPS_SEQUENCE, Attributes, text
from gateway.domain.refusal import Refusal, Refused
from gateway.domain.worklist import WorklistItem
from gateway.wire.dicom_json import keyword_of
from gateway.workflow import fhir_intake, intake
from gateway.workflow.fhir_feed import FHIRFeed
from gateway.workflow.ports import ORDER_LINK, StoredMessage, Unit
from gateway.workflow.rereading import AnyFeed

T = TypeVar("T")

REPLAY_PEER = "replay"
"""Where a message that is run again is said to come from."""

DONE = frozenset({"accepted", "ignored", "held"})
"""What becomes of a message that is not refused."""


@dataclass(frozen=True, slots=True)
class Rehearsed:
    """What would become of a message. `changes` are sentences about worklist items and may name patients' keys."""

    message: int
    disposition: str
    reasons: tuple[str, ...] = field(default=(), repr=False)
    changes: tuple[str, ...] = field(default=(), repr=False)

    @property
    def refused(self) -> bool:
        """Whether it would change nothing."""
        return self.disposition not in DONE


class Rehearsing(Unit, Protocol):
    """A transaction that also shows items."""

    def items(self, step_ids: Iterable[int]) -> Sequence[WorklistItem]:
        """Those steps as they are now."""

    def newest_message(self) -> int:
        """The highest number of a message."""


class _Undone(Exception):  # noqa: N818  (nothing went wrong)
    """Ends an attempt whose result is wanted without its effects."""


def rehearse(
    unit: Rehearsing, stored: StoredMessage, feed: AnyFeed, at: datetime, malformed: Sequence[Refusal] = ()
) -> Rehearsed:
    """Run the message in the job, and say what became of it and of which items.

    `malformed` is what a strict listener finds (`wire.strict`).
    """

    def run() -> tuple[str, Sequence[str], Sequence[int]]:
        disposition = _run(unit, stored, feed, at, malformed)
        made = unit.newest_message()
        archived = unit.message(made)
        if archived is None or archived.record.replay_of is None:
            return disposition, (), ()
        orders = [int(value) for kind, value in archived.record.keys if kind == ORDER_LINK]
        return disposition, archived.record.reasons.splitlines(), orders

    try:
        _, _, orders = undone(unit, run)
        before = items_of(unit, orders)
        disposition, reasons, orders = unit.attempt(run)
    except Refused as refused:
        return Rehearsed(stored.id, "refused", tuple(map(str, refused.refusals)))
    except Exception as error:  # a defect of ours, which would be archived as refused
        reason = f"the gateway could not process this message ({type(error).__name__})"
        return Rehearsed(stored.id, "refused", (reason,))
    changes = _changes(before, items_of(unit, orders))
    return Rehearsed(stored.id, disposition, tuple(reasons), tuple(changes))


def _run(
    unit: Unit, stored: StoredMessage, feed: AnyFeed, at: datetime, malformed: Sequence[Refusal]
) -> str:  # fmt: skip
    """What becomes of it. Raises Refused."""
    if isinstance(feed, FHIRFeed):
        return fhir_intake.run_again(unit, stored, feed, at).disposition
    raw = stored.record.raw
    understood = intake.read_message(raw, feed, malformed)
    return intake.receive(unit, raw, feed, REPLAY_PEER, at, stored.id, understood).disposition


def undone(unit: Unit, run: Callable[[], T]) -> T:
    """What `run` returns, when all that it did is undone again. Raises what it raises."""
    done: list[T] = []

    def without_effect() -> None:
        done.append(run())
        raise _Undone

    with suppress(_Undone):
        unit.attempt(without_effect)
    return done[0]


def items_of(unit: Rehearsing, order_ids: Iterable[int]) -> dict[int, WorklistItem]:
    """The items of these orders as they are now, of any status, by their steps' numbers."""
    orders = (unit.order(order_id) for order_id in order_ids)
    steps = [step.id for order in orders if order for procedure in order.procedures for step in procedure.steps]
    return {item.step_id: item for item in unit.items([step_id for step_id in steps if step_id is not None])}


def _changes(before: dict[int, WorklistItem], after: dict[int, WorklistItem]) -> Iterator[str]:
    for step_id, item in after.items():
        held = before.get(step_id)
        if held is None:
            yield f"item {_named(item)} would be new, {item.status}"
            continue
        if held.status is not item.status:
            yield f"item {_named(item)} would be {item.status}, now {held.status}"
        changed = list(differing(held.attributes, item.attributes))
        if changed:
            yield f"item {_named(item)} would change in {', '.join(changed)}"


def _named(item: WorklistItem) -> str:
    return " ".join(filter(None, (
        text(item.attributes, "AccessionNumber"), text(item.step, "ScheduledProcedureStepID")
    )))  # fmt: skip


def differing(old: Attributes, new: Attributes) -> Iterator[str]:
    """The keywords of attributes that differ; those of the step's sequence by themselves."""
    for tag in sorted(old.keys() | new.keys()):
        if tag == SPS_SEQUENCE and tag in old and tag in new:
            for inner_old, inner_new in zip(old[tag].get("Value", []), new[tag].get("Value", []), strict=False):
                yield from differing(inner_old, inner_new)
        elif old.get(tag) != new.get(tag) and keyword_of(tag) != "ScheduledProcedureStepStatus":
            yield keyword_of(tag)
