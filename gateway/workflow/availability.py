"""An image manager says which images it has (Instance Availability Notification, PS3.4 annex R).

Beside MPPS it is the second source of status: what was scheduled for a study whose images are there is done, where no
modality reports on it. No instance is kept of a notification but its line in the archive, so a repeat after a lost
answer is answered like the first and changes nothing more.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from enum import StrEnum

from gateway.domain.refusal import Refusal, RefusalKind, Refused
from gateway.wire.availability import Availability, read_availability
from gateway.wire.mpps_dataset import SUCCESS, UID_LENGTH_MAX, StatusAnswer, readable_uid, refusal_answer
from gateway.workflow.audience import NOBODY, Audience
from gateway.workflow.performed_effects import StepChange
from gateway.workflow.performed_request import PerformRequest
from gateway.workflow.ports import Unit
from gateway.workflow.second_source import complete_study

ARCHIVED_CHARS_MAX = 2000
"""Reasons and notes kept beside an archived request, as of performed steps."""

CAUSE = "Instance Availability Notification"
NO_IMAGES = "no instance can be had; nothing was completed"
NOT_WANTED = "kept only; this site goes by MPPS alone"


class Announcement(StrEnum):
    """What is announced besides performed steps, as the archive of requests names it."""

    AVAILABILITY = "IAN N-CREATE"


@dataclass(frozen=True, slots=True)
class ReadNotification:
    """A notification as received and as read: `said`, or why nothing can be done with it."""

    request: PerformRequest
    said: Availability | None
    refusals: tuple[Refusal, ...] = ()


@dataclass(frozen=True, slots=True)
class Noted:
    """The DIMSE answer, and the scheduled steps that were completed."""

    answer: StatusAnswer
    changes: tuple[StepChange, ...] = ()
    notes: tuple[str, ...] = ()


def read_notification(request: PerformRequest, *, whole_table: bool = False) -> ReadNotification:
    """Read a notification by itself. Pure, and for large datasets slow: a thread is the place for those."""
    if not readable_uid(request.sop_instance_uid):
        return ReadNotification(request, None, (_NO_UID,))
    try:
        return ReadNotification(
            request, read_availability(request.raw, request.transfer_syntax, whole_table=whole_table)
        )
    except Refused as refused:
        return ReadNotification(request, None, refused.refusals)


_NO_UID = Refusal(
    RefusalKind.INVALID_UID, "(0000,1000)", "is no SOP Instance UID",
    "give each notification a UID of its own (PS3.4 R.3.2.1.2)",
)  # fmt: skip


def note_availability(
    unit: Unit,
    notification: ReadNotification,
    at: datetime,
    *,
    completes: bool,
    audience: Audience = NOBODY,
    zone: tzinfo = UTC,
) -> Noted:
    """Keep the notification and, where the site wants that (`completes`), complete what was scheduled for its study.

    Refused ones are kept as well; both in one transaction, and before the answer.
    """
    said = notification.said
    if said is None:
        answer = refusal_answer(notification.refusals)
        _archive(unit, notification.request, answer.status, map(str, notification.refusals), at)
        return Noted(answer)
    changes: tuple[StepChange, ...] = ()
    done: tuple[str, ...]
    if not completes:
        done = (NOT_WANTED,)
    elif not said.has_images:
        done = (NO_IMAGES,)
    else:
        completed = complete_study(unit, said.study_instance_uid, "", at, CAUSE, audience, zone)
        changes, done = completed.changes, completed.notes
    notes = (str(said), *done, *said.notes)
    _archive(unit, notification.request, SUCCESS, notes, at)
    return Noted(StatusAnswer(SUCCESS), changes, notes)


def _archive(unit: Unit, request: PerformRequest, status: int, told: Iterable[str], at: datetime) -> None:
    unit.archive_performed(
        request.sop_instance_uid[:UID_LENGTH_MAX], Announcement.AVAILABILITY.value, request.calling_ae_title,
        request.raw, status, "; ".join(told)[:ARCHIVED_CHARS_MAX], at, request.transfer_syntax,
    )  # fmt: skip
