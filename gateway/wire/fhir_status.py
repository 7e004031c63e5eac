"""How far an order is, said of the FHIR resources that ordered it: ServiceRequest, Task, Appointment.

What is told of such a resource is a *word*: a part of a resource, with its status and what goes with it. `merged` puts
it to the resource as it stands, here or on another server. Which status says what is in `TOLD`, which one is never left
in `FINAL`. Resources that are made of what was performed are `fhir_performance`'s.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from gateway.domain.discontinuation import DISCONTINUATION_REASON
from gateway.domain.order import Order
from gateway.domain.performed import MPPSState, PerformedStep
from gateway.domain.performed_effect import Happening, happening
from gateway.domain.progress import status_of
from gateway.domain.resources import Resource
from gateway.domain.worklist import SPSStatus
from gateway.wire.fhir_elements import concept, moment, said_only, station, uid_identifier, words
from gateway.wire.fhir_release import Release


@dataclass(frozen=True, slots=True)
class Account:
    """All that is told of one order, in one release of FHIR.

    `at` is on the department's wall clock, whose offset all times get. `performed` is every performed step of the
    order, oldest first, also those that count for nothing any more. `requests` refers to the ServiceRequest of each
    scheduled step, by the step's number. `systems` are the FHIR systems of issuers by their names, `endpoint` is the
    URL of the archive by DICOMweb ('' for none), `gateway` our AE title, `schemes` the FHIR systems of coding schemes
    that the site alone has, by designator.
    """

    release: Release
    at: datetime
    order: Order = field(repr=False)
    subject: Resource = field(repr=False)
    performed: tuple[PerformedStep, ...] = field(default=(), repr=False)
    encounter: Resource | None = field(default=None, repr=False)
    requests: Mapping[int, Resource] = field(default_factory=dict, repr=False)
    systems: Mapping[str, str] = field(default_factory=dict, repr=False)
    endpoint: str = ""
    gateway: str = ""
    schemes: Mapping[str, str] = field(default_factory=dict, repr=False)

    def performed_for(self, steps: Iterable[int]) -> tuple[PerformedStep, ...]:
        """The performed steps of these scheduled ones that count."""
        wanted = frozenset(steps)
        return tuple(each for each in self.performed if counts(each) and not wanted.isdisjoint(each.steps))


def counts(performed: PerformedStep) -> bool:
    """Whether it is believed, linked to something, and nobody said that it was begun for the wrong entry."""
    believed = not performed.quarantined and bool(performed.steps)
    return believed and happening(performed) is not Happening.WITHDRAWN


def began(performed: PerformedStep, account: Account) -> str:
    """When it began, as a dateTime."""
    return moment(
        performed.attributes, "PerformedProcedureStepStartDate", "PerformedProcedureStepStartTime", account.at.tzinfo
    )


def ended(performed: PerformedStep, account: Account) -> str:
    """When it ended, '' while it runs."""
    if performed.state is MPPSState.IN_PROGRESS:
        return ""
    return moment(
        performed.attributes, "PerformedProcedureStepEndDate", "PerformedProcedureStepEndTime", account.at.tzinfo
    )


def why_broken_off(performed: PerformedStep | None, account: Account) -> dict[str, Any] | None:
    """The reasons of a modality that broke off (CID 9300), as a CodeableConcept."""
    if performed is None or performed.state is not MPPSState.DISCONTINUED:
        return None
    first = next(iter((performed.attributes.get(DISCONTINUATION_REASON) or {}).get("Value") or ()), None)
    text = words(first, "CodeMeaning") if isinstance(first, dict) else ""
    return concept(performed.attributes, DISCONTINUATION_REASON, text, account.schemes)


# ---- which status says what ----


class Said(NamedTuple):
    """The status to write, and those that say as much: a resource that has one of them is left with it."""

    status: str
    fits: frozenset[str] = frozenset()


ARRIVED, OVER = "arrived", "expired"
_OPEN_TASK = frozenset({"draft", "accepted", "ready"})
_OPEN_APPOINTMENT = frozenset({"proposed", "pending", "waitlist", "booked", "arrived", "checked-in"})
_VAGUE = frozenset({"draft", "unknown"})
_NOTHING = Said("")

TOLD: Mapping[str, Mapping[str, Said]] = {
    "ServiceRequest": {
        "SC": Said("active", _VAGUE), ARRIVED: Said("active", _VAGUE), "IP": Said("active"), "HD": Said("on-hold"),
        "CM": Said("completed"), "DC": Said("revoked"), "CA": Said("revoked"), OVER: _NOTHING,
    },
    "Task": {
        "SC": Said("ready", _OPEN_TASK), ARRIVED: Said("ready", _OPEN_TASK), "IP": Said("in-progress"),
        "HD": Said("on-hold"), "CM": Said("completed"), "DC": Said("failed"), "CA": Said("cancelled"), OVER: _NOTHING,
    },
    "Appointment": {
        "SC": Said("booked", _OPEN_APPOINTMENT), ARRIVED: Said("arrived", frozenset({"checked-in"})),
        "IP": Said("arrived", frozenset({"checked-in"})), "HD": _NOTHING, "CM": Said("fulfilled"),
        "DC": Said("fulfilled"), "CA": Said("cancelled"), OVER: _NOTHING,
    },
}  # fmt: skip
"""Resource type -> what the steps come to (`standing`) -> its status. Total."""

FINAL: Mapping[str, frozenset[str]] = {
    "ServiceRequest": frozenset({"entered-in-error"}),
    "Task": frozenset({"completed", "failed", "cancelled", "rejected", "entered-in-error"}),
    "Appointment": frozenset({"fulfilled", "cancelled", "noshow", "entered-in-error"}),
}
"""Statuses that nothing told here changes. What was revoked becomes `completed` alone, and only by having been done."""

TAKEN_BACK = frozenset({"cancelled", "failed", "revoked"})
"""Those of them that give way to what is so now, where they are our own word: the order may come back."""

INSTEAD: Mapping[tuple[str, str], Mapping[str, str]] = {
    ("Task", "ready"): {"requested": "accepted", "received": "accepted"},
}
"""Type and status to write -> status that it has -> what is written there in its place: who asked is answered."""

ANSWERED: frozenset[str] = frozenset({"requested", "received"})
"""A Task in one of these waits for an answer: whether it is kept (`received`), scheduled, or not to be (`rejected`)."""

_BUSINESS_STATUS: Mapping[str, str] = {
    "SC": "scheduled", ARRIVED: "patient arrived", "IP": "being acquired", "HD": "on hold", "CM": "image-acquired",
    "DC": "discontinued", "CA": "cancelled", OVER: "day passed",
}  # fmt: skip

_BROKEN_OFF = frozenset({"SC", ARRIVED, "DC", "CA"})
"""Where a reason is told: of what runs or is done, an earlier part that broke off is no news."""


def standing(statuses: Iterable[SPSStatus]) -> str:
    """What steps come to: an order status (HL7 table 0038), `ARRIVED` or `OVER`."""
    held = frozenset(statuses)
    code = status_of(held)
    if code == "SC" and SPSStatus.COMPLETED in held:  # part of it is done
        return "IP"
    if code == "SC" and not held.isdisjoint({SPSStatus.ARRIVED, SPSStatus.READY}):
        return ARRIVED
    return code or OVER


# ---- words ----


def word(kind: str, account: Account, steps: Mapping[int, SPSStatus]) -> Resource:
    """What is told of a ServiceRequest, Task or Appointment that is about these scheduled steps."""
    stands = standing(steps.values())
    done = account.performed_for(steps)
    made: Mapping[str, Any] = {"resourceType": kind, "status": TOLD[kind][stands].status}
    if kind == "Task":
        made = {**made, **_task(account, stands, done)}
    elif kind == "Appointment" and stands == "CA":
        name = "cancellationReason" if account.release is Release.R5 else "cancelationReason"
        made = {**made, name: why_broken_off(_last(done), account)}
    found: Resource = said_only(made)
    return found


def _task(account: Account, stands: str, done: Sequence[PerformedStep]) -> Mapping[str, Any]:
    last = _last(done)
    starts, ends = [began(each, account) for each in done], [ended(each, account) for each in done]
    over = bool(done) and all(ends) and stands not in ("SC", ARRIVED, "IP", OVER)
    reason = why_broken_off(last, account) if stands in _BROKEN_OFF else None
    performer = (
        station(words(last.attributes, "PerformedStationAETitle"), words(last.attributes, "PerformedStationName"))
        if last is not None
        else None
    )
    outputs: list[dict[str, Any]] = [
        {"type": _PERFORMED, "valueIdentifier": uid_identifier(each)}
        for each in (one.sop_instance_uid for one in done)
        if uid_identifier(each)
    ]
    made = {
        "statusReason": _reason(account.release, reason),
        "businessStatus": {"text": _BUSINESS_STATUS[stands]},
        "executionPeriod": {"start": min(filter(None, starts), default=""), "end": max(ends) if over else ""},
    }
    if account.release is not Release.R5:
        return {**made, "output": outputs, "owner": performer}
    if performer is not None:  # in R5 a Device neither owns nor performs a Task
        outputs.append({"type": _STATION, "valueReference": performer})
    return {**made, "output": outputs}


_PERFORMED: Mapping[str, Any] = {"text": "Modality Performed Procedure Step"}
_STATION: Mapping[str, Any] = {"text": "Performed station"}
_OUTPUTS = (_PERFORMED, _STATION)
"""Task.output.type of what was performed for it, and where. Which ones those are we know: they are replaced, others
stay."""


def _reason(release: Release, said: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """A reason as Task.statusReason has it: from R5 on a CodeableReference."""
    return {"concept": said} if release is Release.R5 and said is not None else said


def answer(release: Release, status: str, reasons: Iterable[str], business: str) -> Resource:
    """What a Task that asks for something (`ANSWERED`) is told where nothing is scheduled for it.

    `status` is `received` or `rejected`.
    """
    told = "; ".join(reasons)[:REASON_CHARACTERS_MAX]
    found: Resource = said_only(
        {"resourceType": "Task", "status": status, "statusReason": _reason(release, {"text": told} if told else None),
         "businessStatus": {"text": business}}
    )  # fmt: skip
    return found


REASON_CHARACTERS_MAX = 1000
"""Of Task.statusReason: some sentences; the archive has all of them."""


def _last(done: Sequence[PerformedStep]) -> PerformedStep | None:
    return done[-1] if done else None


# ---- words put to resources ----

_FIRST = frozenset({"owner"})
"""What is said only where nobody did: who else is to do it is its owner's matter."""
_OF_A_STATUS = frozenset({"statusReason", "businessStatus", "cancelationReason", "cancellationReason"})
"""What goes with the status that it was said of."""
_SEPARATE = frozenset({"resourceType", "id", "meta", "status", "output"})


def merged(held: Resource, told: Resource, sent: str = "") -> Resource | None:
    """A resource as it stands with a word put to it; None where that changes nothing, or may not be.

    `sent` is the status that its owner says in place of the one it has, where that is a word of ours: what we cancelled
    because its order was taken back is told again when the order is back. Raises ValueError where they are of different
    types.
    """
    kind = str(held.get("resourceType", ""))
    if kind != told.get("resourceType"):
        raise ValueError("a word is put to a resource of its type")
    has, said = str(held.get("status", "")), str(told.get("status", ""))
    now = sent if sent and said and has in TAKEN_BACK else has
    if now in FINAL[kind] or (kind == "Task" and said in _ANSWERS and now not in ANSWERED):
        return None
    status = _status(kind, now, said)
    made = {key: value for key, value in held.items() if status == has or key not in _OF_A_STATUS}
    made["status"] = status
    if kind == "Task":
        outputs = [each for each in held.get("output") or () if each.get("type") not in _OUTPUTS]
        outputs += told.get("output") or ()
        made = {key: value for key, value in made.items() if key != "output"}
        made |= {"output": outputs} if outputs else {}
    for key, value in told.items():
        if key in _SEPARATE or (key in _FIRST and key in held):
            continue
        if key == "executionPeriod":
            made[key] = {**made.get(key, {}), **value}
        else:
            made[key] = value
    return None if made == dict(held) else made


def _status(kind: str, now: str, told: str) -> str:
    fits = next((said.fits for said in TOLD[kind].values() if said.status == told), frozenset()) if told else {now}
    if now in fits or (kind == "ServiceRequest" and now == "revoked" and told != "completed"):
        return now
    return INSTEAD.get((kind, told), {}).get(now, told)


_ANSWERS = frozenset({"received", "rejected"})


def renewed(held: Resource | None, made: Resource) -> Resource | None:
    """A resource of ours as another server holds it, with what we say now; None where that changes nothing.

    What others put to it stays. Elements that we said before and say no more stay too: nobody can tell whose they are.
    """
    if held is None:
        return made
    known = held.get("identifier") or []
    others = [each for each in known if each not in (made.get("identifier") or [])]
    new = {**held, **{key: value for key, value in made.items() if key not in ("id", "meta")}}
    if others or made.get("identifier"):
        new["identifier"] = [*(made.get("identifier") or []), *others]
    return None if new == dict(held) else new
