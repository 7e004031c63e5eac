"""HL7 v2 messages as documents for a mapping: which are taken, and how their segments group into entries.

An entry is one ORC/OBR pair, one IPC of an OMI with the ORC/TQ1/OBR it stands under (RAD TF-2 4.4.4.1.2), one service
(AIS) of an appointment, one person of a patient message. What belongs together as one order, procedure or step the
mapping decides by keys. Nothing here reads a field, except those that say what the message does: the message type
(MSH-9, EVN-1), order control and status (ORC-1, ORC-5), and the states of appointments (SCH-25) and results (OBR-25).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from gateway.domain.order import OrderControl
from gateway.domain.patient import VisitChange
from gateway.domain.refusal import Refusal, RefusalKind, Refused
from gateway.domain.source import NULL, Kind
from gateway.wire.er7 import Message, Segment
from gateway.wire.hl7_entries import HL7Entry, index, named


class Handled(NamedTuple):
    """What one message type does here: to the visit it names (ADT), to the order it schedules (SIU)."""

    kind: Kind
    meaning: str
    visit_change: VisitChange = VisitChange.UPDATE
    control: OrderControl | None = None


_UPDATE, _MERGE, _ORDER = Kind.PATIENT_UPDATE, Kind.PATIENT_MERGE, Kind.ORDER
_C, _V = OrderControl, VisitChange
_RESPONSE = "response of a placer or filler: keeps a number assigned, notes the others"

HANDLED: Mapping[tuple[str, str], Handled] = {
    ("ADT", "A01"): Handled(_UPDATE, "admit: insert or update the patient, open the visit", _V.OPEN),
    ("ADT", "A02"): Handled(_UPDATE, "transfer: update the patient and the location"),
    ("ADT", "A03"): Handled(_UPDATE, "discharge: update the patient, close the visit; orders stay", _V.CLOSE),
    ("ADT", "A04"): Handled(_UPDATE, "register: insert or update the patient, open the visit", _V.OPEN),
    ("ADT", "A05"): Handled(_UPDATE, "pre-admit: insert or update the patient, plan the visit", _V.PLAN),
    ("ADT", "A06"): Handled(_UPDATE, "an outpatient becomes an inpatient"),
    ("ADT", "A07"): Handled(_UPDATE, "an inpatient becomes an outpatient"),
    ("ADT", "A08"): Handled(_UPDATE, "update patient information"),
    ("ADT", "A09"): Handled(_UPDATE, "the patient departs (tracking): update the location"),
    ("ADT", "A10"): Handled(_UPDATE, "the patient arrives (tracking): waiting steps become ARRIVED", _V.ARRIVE),
    ("ADT", "A11"): Handled(_UPDATE, "cancel an admission: the visit goes, patient and orders stay", _V.CANCEL),
    ("ADT", "A12"): Handled(_UPDATE, "cancel a transfer: the location is as before"),
    ("ADT", "A13"): Handled(_UPDATE, "cancel a discharge: open the visit again", _V.REOPEN),
    ("ADT", "A18"): Handled(_MERGE, "merge, older form of A40"),
    ("ADT", "A24"): Handled(Kind.PATIENT_LINK, "link: both records are of one person"),
    ("ADT", "A28"): Handled(_UPDATE, "add a person"),
    ("ADT", "A31"): Handled(_UPDATE, "update a person"),
    ("ADT", "A34"): Handled(_MERGE, "merge, older form of A40"),
    ("ADT", "A36"): Handled(_MERGE, "merge, older form of A40; account numbers are not merged"),
    ("ADT", "A37"): Handled(Kind.PATIENT_UNLINK, "unlink: the records are of two persons after all"),
    ("ADT", "A38"): Handled(_UPDATE, "cancel a pre-admission: the planned visit goes", _V.CANCEL),
    ("ADT", "A40"): Handled(_MERGE, "merge: each PID/MRG pair is one"),
    ("ADT", "A45"): Handled(Kind.VISIT_MOVE, "move visits to another patient: each MRG with its PV1"),
    ("ADT", "A47"): Handled(Kind.IDENTIFIER_CHANGE, "the patient identifiers of MRG-1 become those of PID-3"),
    ("ORM", "O01"): Handled(_ORDER, "order, one ORC/OBR pair per step and protocol code (HL7 v2.3.1)"),
    ("ORR", "O02"): Handled(_ORDER, _RESPONSE),
    ("OMG", "O19"): Handled(_ORDER, "general clinical order (HL7 v2.5.1)"),
    ("ORG", "O20"): Handled(_ORDER, _RESPONSE),
    ("OMI", "O23"): Handled(_ORDER, "imaging order, one IPC per step and protocol code (HL7 v2.5.1)"),
    ("ORI", "O24"): Handled(_ORDER, _RESPONSE),
    ("ORU", "R01"): Handled(Kind.RESULT, "result: one that is there (OBR-25) says that the order is done"),
    ("SIU", "S12"): Handled(Kind.APPOINTMENT, "new appointment, one AIS per step", control=_C.NW),
    ("SIU", "S13"): Handled(Kind.APPOINTMENT, "appointment rescheduled: its steps move", control=_C.XO),
    ("SIU", "S14"): Handled(Kind.APPOINTMENT, "appointment modified", control=_C.XO),
    ("SIU", "S15"): Handled(Kind.APPOINTMENT, "appointment cancelled: so are its steps", control=_C.CA),
    ("SIU", "S17"): Handled(Kind.APPOINTMENT, "appointment deleted: its steps are cancelled", control=_C.CA),
    ("SIU", "S26"): Handled(Kind.APPOINTMENT, "the patient did not come: the steps are cancelled", control=_C.CA),
}
"""(MSH-9.1, MSH-9.2) -> what the message is about, and what it does here."""

RESPONSES = frozenset({"ORR", "ORG", "ORI"})
"""MSH-9.1 of what answers an order message."""
_PERSON_EVENTS = frozenset({"A28", "A31"})  # about the person, not about a visit (ITI-30)
_CODES = {code for code, _ in HANDLED}
_ONLY_EVENT = {
    code: events[0] for code in _CODES if len(events := [event for held, event in HANDLED if held == code]) == 1
}
_CONTROLS = frozenset(OrderControl)
_PRIOR_RESULT = "PR"  # ORC-1 of the prior results in an OMG (HL7 v2.5.1 chapter 4)

# Filler status of an appointment (SCH-25, HL7 table 0278) where it says more than the event, by its first component.
_APPOINTMENT_STATES: Mapping[str, tuple[OrderControl, str]] = {
    "CANCELLED": (_C.CA, ""),
    "CANCELED": (_C.CA, ""),
    "DELETED": (_C.CA, ""),
    "NOSHOW": (_C.CA, ""),
    "DC": (_C.DC, ""),
    "STARTED": (_C.XO, "IP"),
    "COMPLETE": (_C.XO, "CM"),
}
_NO_SHOW = "the patient did not come to the appointment"

# Result status (OBR-25, HL7 table 0123) -> order status. A report, even a preliminary one, is about images that exist.
_RESULT_STATES: Mapping[str, str] = {"F": "CM", "C": "CM", "P": "CM", "R": "CM", "A": "A"}


@dataclass(frozen=True, slots=True)
class HL7Document:
    """A message cut into entries."""

    kind: Kind
    entries: tuple[HL7Entry, ...]
    visit_change: VisitChange = VisitChange.UPDATE
    notes: tuple[str, ...] = ()


def document(message: Message) -> HL7Document:
    """The message as a mapping reads it.

    Raises Refused with every reason: a type or event that is not taken (AR 200, 201), segments that are lacking (100),
    an order control that is not taken (103).
    """
    notes: list[str] = []
    code, event = message.message_code, message.trigger_event or _event_elsewhere(message, notes)
    handled = _handled(code, event)
    match handled.kind:
        case Kind.ORDER:
            entries = _orders(message, code in RESPONSES, notes)
        case Kind.APPOINTMENT:
            assert handled.control is not None  # noqa: S101  (the table's rows of appointments have one)
            entries = _services(message, handled.control, event, notes)
        case Kind.RESULT:
            entries = _results(message)
        case Kind.PATIENT_UPDATE:
            entries = _update(message, event, notes)
        case Kind.PATIENT_MERGE | Kind.IDENTIFIER_CHANGE:
            entries = _merges(message)
        case Kind.VISIT_MOVE:
            entries = _moves(message)
        case _:
            entries = _two_people(message)
    return HL7Document(handled.kind, entries, handled.visit_change, tuple(notes))


def _event_elsewhere(message: Message, notes: list[str]) -> str:
    """The event of a message whose MSH-9 names none: of EVN-1, as in HL7 v2.1, or the only one of its type."""
    evn = message.first("EVN")
    said = evn.text(1).strip().upper() if evn is not None else ""
    event = said if (message.message_code, said) in HANDLED else _ONLY_EVENT.get(message.message_code, "")
    if event:
        notes.append(f"MSH-9 names no event; read as {event}")
    return event


def _handled(code: str, event: str) -> Handled:
    handled = HANDLED.get((code, event))
    if handled is not None:
        return handled
    events = sorted(known for held, known in HANDLED if held == code)
    if not events:
        raise Refused(Refusal(
            RefusalKind.UNSUPPORTED_TYPE, "MSH-9.1", f"message type {code!r} is not taken here",
            f"taken are {', '.join(sorted(_CODES))}; let the listener ignore what it need not know",
        ))  # fmt: skip
    raise Refused(Refusal(
        RefusalKind.UNSUPPORTED_EVENT, "MSH-9.2", f"event {event!r} of {code} is not taken here",
        f"taken are {', '.join(events)}; let the listener ignore what it need not know",
    ))  # fmt: skip


def _lacks(segment: str, text: str, hint: str) -> Refusal:
    return Refusal(RefusalKind.SEGMENT_SEQUENCE, segment, text, hint)


def _one_patient(message: Message) -> None:
    """Refuse a second patient where the message is about one: nobody can tell whose the orders are."""
    people = message.all("PID")
    for other in people[1:]:  # prior results of an OMG repeat the patient
        if other.raw(3) != people[0].raw(3):
            raise Refused(_lacks(named(other), "the message names a second patient", "send one message for each"))


# ---- patients ----


def _update(message: Message, event: str, notes: list[str]) -> tuple[HL7Entry, ...]:
    """The patient with the visit, then the orders: some senders order by registering the patient (A04)."""
    if message.first("PID") is None:
        raise Refused(_lacks("PID", "the message has no PID segment", "say whose it is"))
    _one_patient(message)
    ordering = message.first("ORC") is not None
    segments: Sequence[Segment] = _pairs(message)[0] if ordering else message.segments
    visit = message.first("PV1")
    if event in _PERSON_EVENTS and (visit is None or visit.text(2).strip().upper() in ("", "N")):
        segments = [segment for segment in segments if segment.name not in ("PV1", "PV2")]
    if not ordering and message.first("OBR") is not None:
        notes.append("OBR without ORC is not taken as an order")
    person = HL7Entry(*index(segments), "PID")
    return (person, *_orders(message, False, notes)) if ordering else (person,)


def _merges(message: Message) -> tuple[HL7Entry, ...]:
    """Each PID with what follows it up to the next one; it has an MRG."""
    header, groups = _groups(message, "PID")
    if not groups:
        raise Refused(_lacks("PID", "the message has no PID segment", "send PID and MRG in pairs"))
    refusals = [
        _lacks("MRG" if number == 1 else f"MRG[{number}]", "a PID is not followed by an MRG segment",
               "send PID and MRG in pairs")
        for number, group in enumerate(groups, 1)
        if all(segment.name != "MRG" for segment in group)
    ]  # fmt: skip
    if refusals:
        raise Refused(*refusals)
    return _people(header, groups)


def _moves(message: Message) -> tuple[HL7Entry, ...]:
    """Each MRG with the PV1 that follows it, under the one PID."""
    header, groups = _groups(message, "MRG")
    if message.first("PID") is None or not groups:
        lacking = "PID" if message.first("PID") is None else "MRG"
        raise Refused(_lacks(lacking, f"the message has no {lacking} segment", "send PID, and MRG and PV1 in pairs"))
    _one_patient(message)
    return _people(header, groups)


def _two_people(message: Message) -> tuple[HL7Entry, ...]:
    """The two PID of a link. Some senders name the second person in an MRG, as in a merge: then it is one entry."""
    header, groups = _groups(message, "PID")
    if len(groups) == 2 or (len(groups) == 1 and message.first("MRG") is not None):
        return _people(header, groups)
    raise Refused(_lacks(
        "PID[3]" if len(groups) > 2 else "PID[2]" if groups else "PID", f"the message names {len(groups)} patients",
        "send the two whose records are linked or unlinked",
    ))  # fmt: skip


def _groups(message: Message, name: str) -> tuple[list[Segment], list[list[Segment]]]:
    """The segments before the first one of this name, and each of that name with what follows it."""
    header: list[Segment] = []
    groups: list[list[Segment]] = []
    for segment in message.segments:
        if segment.name == name:
            groups.append([segment])
        elif groups:
            groups[-1].append(segment)
        else:
            header.append(segment)
    return header, groups


def _people(header: list[Segment], groups: Sequence[list[Segment]]) -> tuple[HL7Entry, ...]:
    return tuple(HL7Entry(*index([*header, *group]), named(group[0])) for group in groups)


# ---- orders ----


def _orders(message: Message, response: bool, notes: list[str]) -> tuple[HL7Entry, ...]:
    _one_patient(message)
    header, pairs = _pairs(message)
    if not pairs and response:
        notes.append("the response names no order")
    elif not pairs:
        raise Refused(_lacks("ORC", "the order message has no ORC segment", "send an ORC for each order"))
    above, heads = index(header)
    entries: list[HL7Entry] = []
    refusals: list[Refusal] = []
    for pair in pairs:
        orc = pair[0]
        control = orc.text(1).strip().upper()
        if control not in _CONTROLS:
            refusals.append(_unknown_control(orc, control))
            continue
        status = orc.text(5).strip().upper()
        order = OrderControl(control), "" if status == NULL else status
        own, first = index([segment for segment in pair if segment.name != "IPC"])
        fields, first = above | own, heads | first
        ipcs = [segment for segment in pair if segment.name == "IPC"]
        if not ipcs:
            entries.append(HL7Entry(fields, first, named(orc), named(first.get("OBR", orc)), *order))
        for ipc in ipcs:
            said, _ = index([ipc])
            entries.append(HL7Entry(fields | said, first | {"IPC": ipc}, named(orc), named(ipc), *order))
    if refusals:
        raise Refused(*refusals)
    return tuple(entries)


def _unknown_control(orc: Segment, control: str) -> Refusal:
    if control in ("", NULL):
        return Refusal(
            RefusalKind.MISSING_FIELD, f"{named(orc)}-1", "order control is empty", "send NW for a new order"
        )
    return Refusal(
        RefusalKind.UNKNOWN_CODE, f"{named(orc)}-1", f"order control {control!r} is not taken here",
        f"taken are {', '.join(OrderControl)}",
    )  # fmt: skip


def _pairs(message: Message) -> tuple[list[Segment], list[list[Segment]]]:
    """The segments above the orders, and each ORC/OBR pair with what belongs to it.

    A second OBR under one ORC makes a pair of its own. A ZDS belongs to every pair since the ZDS before it. A PID
    after the first ORC begins the prior results of an OMG: they are not ordered here.
    """
    header: list[Segment] = []
    pairs: list[list[Segment]] = []
    waiting: list[list[Segment]] = []
    prior = False
    for segment in message.segments:
        name = segment.name
        if name == "ORC":
            prior = prior and segment.text(1) in (_PRIOR_RESULT, "")
            if not prior:
                waiting.append([segment])
                pairs.append(waiting[-1])
        elif not pairs:
            header.append(segment)
        elif name == "PID":
            prior = True
        elif prior:
            continue
        elif name == "ZDS":
            for pair in waiting or pairs[-1:]:
                pair.append(segment)
            waiting = []
        elif name == "OBR" and any(held.name == "OBR" for held in pairs[-1]):
            waiting.append([pairs[-1][0], segment])
            pairs.append(waiting[-1])
        else:
            pairs[-1].append(segment)
    return header, pairs


# ---- results ----


def _results(message: Message) -> tuple[HL7Entry, ...]:
    """Each OBR with the ORC before it, if there is one. What its ORC-1 says does not matter: results order nothing."""
    _one_patient(message)
    above, heads = index([segment for segment in message.segments if segment.name in ("MSH", "PID")])
    entries: list[HL7Entry] = []
    orc: Segment | None = None
    for segment in message.segments:
        if segment.name == "ORC":
            orc = segment
        elif segment.name == "OBR":
            fields, first = index([orc, segment] if orc is not None else [segment])
            status = _result_status(segment, orc)
            orc = None
            place = named(segment)
            entries.append(HL7Entry(above | fields, heads | first, place, place, OrderControl.RE, status))
    if not entries:
        raise Refused(_lacks("OBR", "the result has no OBR segment", "send an OBR for each order"))
    return tuple(entries)


def _result_status(obr: Segment, orc: Segment | None) -> str:
    """The order status that a result means: by OBR-25, else as ORC-5 says it; '' where the order is not done."""
    said = obr.text(25).strip().upper()
    if said or orc is None:
        return _RESULT_STATES.get(said, "")
    status = orc.text(5).strip().upper()
    return status if status in _RESULT_STATES.values() else ""


# ---- appointments ----


def _services(message: Message, control: OrderControl, event: str, notes: list[str]) -> tuple[HL7Entry, ...]:
    """Each service (AIS) with the resources (AIG, AIL, AIP) of its resource group (RGS).

    Groups without a service are for all of them: many senders give every resource a group of its own. A message
    without any AIS, as many cancellations are, is one entry.
    """
    sch = message.first("SCH")
    if sch is None:
        raise Refused(_lacks("SCH", "the message has no SCH segment", "say which appointment it is about"))
    _one_patient(message)
    state = sch.text(25).strip().upper()
    order = (control, "") if control is OrderControl.CA else _APPOINTMENT_STATES.get(state, (control, ""))
    if event == "S26" or state == "NOSHOW":
        notes.append(_NO_SHOW)
    header: list[Segment] = []
    groups: list[list[Segment]] = []
    for segment in message.segments:
        if segment.name == "RGS" or (not groups and segment.name in _RESOURCES):
            groups.append([])
        (groups[-1] if groups else header).append(segment)
    shared = [segment for group in groups if not _has_service(group) for segment in group]
    entries = []
    for group in filter(_has_service, groups):
        resources, services = _parted(group)
        above, heads = index([*header, *shared, *resources])
        for service in services:
            if service[0].text(2).strip().upper() == "D" and control is not OrderControl.CA:
                notes.append(
                    f"{named(service[0])} is taken out of the appointment; its step stays until it is cancelled"
                )
                continue
            fields, first = index(service)
            entries.append(HL7Entry(above | fields, heads | first, "SCH", named(service[0]), *order))
    if message.first("AIS") is None:
        entries = [HL7Entry(*index([*header, *shared]), "SCH", "SCH", *order)]
    return tuple(entries)


_RESOURCES = frozenset({"AIS", "AIG", "AIL", "AIP"})


def _has_service(group: Sequence[Segment]) -> bool:
    return any(segment.name == "AIS" for segment in group)


def _parted(group: Sequence[Segment]) -> tuple[list[Segment], list[list[Segment]]]:
    """The resources of a group, and each of its services with the notes on it."""
    resources: list[Segment] = []
    services: list[list[Segment]] = []
    into = resources
    for segment in group:
        if segment.name == "AIS":
            services.append([])
            into = services[-1]
        elif segment.name != "NTE":
            into = resources
        into.append(segment)
    return resources, services
