"""An order typed by a person while the RIS is down: written as the message that the RIS would send, and taken like one.

So it is archived, mapped, completed by the procedure catalogue, explained and derived again like any other order. It
is marked (`Order.provisional`), so that the RIS's own order for the same takes it over later; where that cannot be told
from the orders, a person tells (`link`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from datetime import datetime

from gateway.domain.attributes import TAG, Attributes
from gateway.domain.facts import UNSTAMPED
from gateway.domain.identifiers import Identifier, Mint
from gateway.domain.order import Order, OrderControl, OrderEvent, Policy, ProcedureInput, StepInput
from gateway.domain.order_change import apply
from gateway.domain.order_matching import taken_over
from gateway.domain.patient import PatientInput
from gateway.domain.refusal import Refusal, RefusalKind, Refused
from gateway.domain.worklist import SPSStatus
from gateway.wire.er7 import Delimiters, escape
from gateway.workflow import intake
from gateway.workflow.intake import Feed
from gateway.workflow.order_parts import hand_over
from gateway.workflow.ports import Unit

PEER = "by hand"
CHARSET = "UNICODE UTF-8"

_DELIMITERS = Delimiters()


@dataclass(frozen=True, slots=True)
class Form:
    """What a person types. Dates as YYYYMMDD, the start as YYYYMMDDHHMM by the department's clock; '' is not said.

    `procedure` is a code of the procedure catalogue, or any other one with what the catalogue would say of it.
    """

    patient_id: str = field(default="", repr=False)
    issuer: str = ""
    family_name: str = field(default="", repr=False)
    given_name: str = field(default="", repr=False)
    middle_name: str = field(default="", repr=False)
    name_prefix: str = field(default="", repr=False)
    name_suffix: str = field(default="", repr=False)
    birth_date: str = field(default="", repr=False)
    sex: str = field(default="", repr=False)
    procedure: str = ""
    description: str = ""
    modality: str = ""
    station: str = ""
    start: str = ""
    accession: str = field(default="", repr=False)
    physician: str = field(default="", repr=False)
    comment: str = field(default="", repr=False)


REQUIRED = ("patient_id", "family_name", "start")
"""What nobody can fill in for the person; the procedure by its code, or by what it is."""

FIELD_OF: Mapping[str, str] = {
    "PID-3": "patient_id", "PID-5": "family_name", "PID-7": "birth_date", "PID-8": "sex", "OBR-4": "procedure",
    "OBR-44": "procedure", "IPC-1": "accession", "OBR-18": "accession", "IPC-5": "modality", "IPC-9": "station",
    "TQ1-7": "start", "OBR-16": "physician", "OBR/NTE-3": "comment", "NTE-3": "comment",
}  # fmt: skip
"""Where a refusal of the message points -> the field that the person typed."""

_SAYS_WHAT = ("procedure", "description", "modality")


def check(form: Form) -> None:
    """Raises Refused with everything that is lacking, each by its field."""
    refusals = [
        Refusal(RefusalKind.MISSING_FIELD, name, "is required", "") for name in REQUIRED if not getattr(form, name)
    ]
    if not any(getattr(form, name) for name in _SAYS_WHAT):
        refusals.append(
            Refusal(
                RefusalKind.MISSING_FIELD, "procedure", "nothing says what is to be done",
                "give a code of the procedure catalogue, or description and modality",
            )
        )  # fmt: skip
    if refusals:
        raise Refused(*refusals)


def add(unit: Unit, form: Form, feed: Feed, now: datetime, local: datetime, control_id: str) -> Order:
    """Hold the order, archive its message. `local` is the department's clock. Raises Refused by the form's fields."""
    check(form)
    numbered = replace(form, accession=form.accession or _accession(feed.mint, control_id))
    before = unit.orders_by_accession(Identifier(numbered.accession), any_issuer=True)
    if any(not order.by_hand for order in before):
        raise Refused(Refusal(
            RefusalKind.DUPLICATE_KEY, "accession", "an order of the RIS has this accession number",
            "leave it out: then one is made",
        ))  # fmt: skip
    try:
        intake.receive(unit, message_of(numbered, local, control_id), feed, PEER, now)
    except Refused as refused:
        raise Refused(*map(in_form, refused.refusals)) from None
    held = _held(unit, numbered.accession, feed)
    if len(held) != 1:
        raise Refused(Refusal(
            RefusalKind.INTERNAL, "", "the mapping does not read orders typed by hand",
            "let it read the accession number from IPC-1, as ihe-swf does",
        ))  # fmt: skip
    return unit.save_order(replace(held[0], provisional=True), PEER, now)


def cancel(
    unit: Unit, order: Order, patient: Identifier, feed: Feed, now: datetime, local: datetime, control_id: str
) -> None:
    """Take an order typed by hand off the list again. Raises Refused for one of the RIS, or one that has begun."""
    accession = next((each.accession for each in order.procedures if each.accession), None)
    if not order.by_hand or accession is None:
        raise Refused(Refusal(
            RefusalKind.CONFLICT, "accession", "this order came from the RIS", "cancel it there"
        ))  # fmt: skip
    form = Form(patient_id=patient.value, issuer=patient.issuer, accession=accession.value)
    intake.receive(unit, message_of(form, local, control_id, "CA"), feed, PEER, now)


def link(unit: Unit, typed: Order, ordered: Order, mint: Mint, at: datetime) -> Order:
    """Make one order of one typed by hand and the RIS's own, as a person says; returns it.

    The typed one stays, with the keys that devices may know it by, and takes over numbers and facts of the other, which
    is left empty and cancelled. Raises Refused: not typed by hand or not of the RIS, two patients, or work has begun.
    """
    if not typed.by_hand or ordered.by_hand or typed.id == ordered.id or not (ordered.placer or ordered.filler):
        raise _conflict("this takes an order typed by hand and one of the RIS", "see `gateway orders show`")
    if typed.patient_id != ordered.patient_id:
        raise _conflict("the orders are of two patients", "merge the patients first if they are one person")
    steps = [step for procedure in ordered.procedures for step in procedure.steps]
    if any(step.status not in UNTOUCHED for step in steps):
        raise _conflict("work on the RIS's order has begun, or it is over", "leave both, and cancel what is wrong")
    unit.save_order(_emptied(ordered), f"is order #{typed.id}, {PEER}", at)
    stamp = ordered.stamps.base or UNSTAMPED
    after = apply(taken_over(typed), _as_said(ordered), typed.patient_id, ordered.visit_id, mint, stamp=stamp)
    saved = unit.save_order(after.order, f"linked {PEER}", at)
    hand_over(unit, ordered, saved)
    return saved


UNTOUCHED = frozenset({SPSStatus.SCHEDULED, SPSStatus.ARRIVED, SPSStatus.READY})

_KEYS = ("StudyInstanceUID", "AccessionNumber", "RequestedProcedureID")
_NUMBERS = (
    "PlacerOrderNumberImagingServiceRequest", "FillerOrderNumberImagingServiceRequest",
    "OrderPlacerIdentifierSequence", "OrderFillerIdentifierSequence",
)  # fmt: skip


def _as_said(order: Order) -> OrderEvent:
    """What is held of an order as if its sender said it again; keys that were made here are not said."""
    procedures = tuple(
        ProcedureInput(
            each.study_instance_uid,
            "" if "RequestedProcedureID" in each.minted else each.requested_procedure_id,
            None if "AccessionNumber" in each.minted else each.accession,
            _without(each.attributes, _KEYS),
            tuple(
                StepInput("" if step.minted else step.sps_id, _without(step.attributes, ("ScheduledProcedureStepID",)))
                for step in each.steps
            ),
        )
        for each in order.procedures
    )
    made = dict.fromkeys((*_KEYS, "ScheduledProcedureStepID"), Policy("generate"))
    nobody = PatientInput((), {})
    return OrderEvent(
        OrderControl.XO, "", order.placer, order.filler, nobody, None, order.attributes, procedures, made
    )  # fmt: skip


def _emptied(order: Order) -> Order:
    """What is left of an order when another has its keys."""
    procedures = tuple(
        replace(
            each, study_instance_uid="", accession=None,
            attributes=_without(each.attributes, ("StudyInstanceUID", "AccessionNumber")),
            steps=tuple(replace(step, status=SPSStatus.CANCELED) for step in each.steps),
        )
        for each in order.procedures
    )  # fmt: skip
    attributes = _without(order.attributes, _NUMBERS)
    return replace(order, placer=None, filler=None, attributes=attributes, procedures=procedures)


def _without(attributes: Attributes, keywords: Iterable[str]) -> Attributes:
    gone = {TAG[keyword] for keyword in keywords}
    return {tag: each for tag, each in attributes.items() if tag not in gone}


def _conflict(text: str, hint: str) -> Refused:
    return Refused(Refusal(RefusalKind.CONFLICT, "", text, hint))


def _accession(mint: Mint, control_id: str) -> str:
    return mint.short_id("H", f"by hand:{control_id}")


def _held(unit: Unit, accession: str, feed: Feed) -> list[Order]:
    return list(unit.orders_by_accession(Identifier(accession, feed.issuer)))


def in_form(refusal: Refusal) -> Refusal:
    """A refusal of the message with the form's field for its place."""
    place = refusal.where.split("(")[0].split(".")[0]
    return replace(refusal, where=FIELD_OF.get(place, refusal.where))


def message_of(form: Form, local: datetime, control_id: str, control: str = "NW") -> bytes:
    """The form as an imaging order (OMI^O23 of HL7 v2.5.1), made at `local`."""
    said = {each.name: escape(getattr(form, each.name), _DELIMITERS) for each in fields(form)}
    made = local.strftime("%Y%m%d%H%M%S")
    offset = local.strftime("%z")
    name = "^".join(
        said[part] for part in ("family_name", "given_name", "middle_name", "name_suffix", "name_prefix")
    ).rstrip("^")
    family, _, given = form.physician.partition("^")
    physician = "^".join(("", escape(family, _DELIMITERS), escape(given, _DELIMITERS))) if form.physician else ""
    procedure = f"{said['procedure']}^{said['description']}".rstrip("^")
    segments = [
        ("MSH", "^~\\&", "GATEWAY", "BY HAND", "GATEWAY", "", made + offset, "", "OMI^O23^OMI_O23", control_id, "P",
         "2.5.1", "", "", "", "", "", CHARSET),
        ("PID", "", "", f"{said['patient_id']}^^^{said['issuer']}".rstrip("^"), "", name, "", said["birth_date"],
         said["sex"]),
        ("ORC", control, "", "", "", "SC" if control == "NW" else "", "", "", "", made),
        *([("TQ1", "1", "", "", "", "", "", said["start"])] if form.start else ()),
        ("OBR", "1", "", "", procedure, *[""] * 11, physician, "", said["accession"]),
        *([("NTE", "1", "", said["comment"])] if form.comment else ()),
        ("IPC", said["accession"], "", "", "", said["modality"], "", "", "", said["station"]),
    ]  # fmt: skip
    return "".join("|".join(segment).rstrip("|") + "\r" for segment in segments).encode()
