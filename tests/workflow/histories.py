"""Histories as hypothesis makes them: what a RIS, an ADT system and a scheduler say, each fact as a message's draft.

What is left out of them says beside it why: there the order of arrival does make a difference.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from hypothesis import strategies as st

from gateway.testing import Draft

DAY = datetime(2026, 1, 5, 8, 0)
NULL = '""'

texts = st.sampled_from(["", "", NULL, "one", "two"])


def segment(name, **fields):
    """A segment of fields by number, `f3="..."`; the last ones may be away."""
    numbered = {int(key[1:]): value for key, value in fields.items()}
    return "|".join((name, *(numbered.get(number, "") for number in range(1, max(numbered, default=0) + 1))))


@dataclass(frozen=True)
class Fact:
    """A message without its header: what it is about, for people, and its draft."""

    about: str
    draft: Draft


def pid(who, said, other_id=False):
    numbers = f"{who}^^^HOSPITAL" + (f"~{who}9^^^INSURANCE" if other_id else "")
    return segment("PID", f3=numbers, f5=said["name"], f7=said["birth"], f8=said["sex"], f13=said["phone"])


def visit(who, number, said):
    return segment("PV1", f2="I", f3=said["ward"], f8=said["referring"], f19=f"V{who}{number}^^^HOSPITAL")


def measured(said):
    code = "29463-7^Body weight^LN"
    weight = segment("OBX", f1="1", f2="NM", f3=code, f5=said["weight"], f6="kg") if said["weight"] else ""
    allergy = segment("AL1", f1="1", f3=f"^{said['allergy']}") if said["allergy"] not in ("", NULL) else ""
    return [each for each in (weight, allergy) if each]


people = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["Novak^Ana", "Novak^Anna", "Silva^Rui"]),
        "birth": st.sampled_from(["", NULL, "19500101", "19600202"]),
        "sex": st.sampled_from(["", NULL, "F", "M"]),
        "phone": texts, "weight": st.sampled_from(["", "", NULL, "61", "62"]), "allergy": texts,
    }
)  # fmt: skip
visits = st.fixed_dictionaries({"ward": texts, "referring": st.sampled_from(["", NULL, "1^Paul", "2^Pia"])})


@st.composite
def adt(draw, names):
    who, said = draw(names), draw(people)
    # Without A10: that a patient arrived is said to the orders held when the message comes.
    event = draw(st.sampled_from(["A01", "A03", "A08", "A08", "A11", "A13", "A31"]))
    segments = [f"EVN|{event}|20260105080000", pid(who, said, draw(st.booleans()))]
    # An unnumbered visit is the patient's only one, and a merge of two people with such makes one of two: numbered.
    segments.append(visit(who, draw(st.sampled_from("12")), draw(visits)))
    structure = "ADT_A05" if event == "A31" else "ADT_A01"
    return Fact(f"{event} {who}", Draft(f"ADT^{event}^{structure}", "2.5.1", (*segments, *measured(said))))


@st.composite
def merge(draw, names):
    into = draw(names)
    prior = draw(names.filter(lambda name: name != into))
    segments = ("EVN|A40|20260105080000", pid(into, draw(people)), segment("MRG", f1=f"{prior}^^^HOSPITAL"))
    return Fact(f"A40 {prior} into {into}", Draft("ADT^A40^ADT_A39", "2.5.1", segments))


@st.composite
def change_of_identifier(draw, who):
    # Nobody uses the new identifier before or after: where it is in use already, the A47 is refused (AE 205). And who
    # gets one is never merged: whether the survivor or the prior record got it is a matter of which came first.
    segments = ("EVN|A47|20260105080000", pid(f"{who}7", draw(people)), segment("MRG", f1=f"{who}^^^HOSPITAL"))
    return Fact(f"A47 {who}", Draft("ADT^A47^ADT_A30", "2.5.1", segments))


orders_said = st.fixed_dictionaries(
    {
        "dialect": st.sampled_from(["ORM", "OMG", "OMI"]),
        "start": st.sampled_from(["20260105093000", "20260105103000", "20260106080000"]),
        "station": st.sampled_from(["", "CT1", "CT2"]),
        "comment": texts, "reason": texts, "priority": st.sampled_from(["", NULL, "R", "S"]), "transport": texts,
    }
)  # fmt: skip
# Without RE: a result about an order that is not held is noted, for most results are about what nobody ordered here.
NEW = [("NW", "SC"), ("NW", ""), ("XO", "SC")]
LATER = [
    ("NW", "SC"), ("XO", ""), ("XO", "SC"), ("XO", "IP"), ("XO", "CM"), ("XO", "HD"), ("SC", "SC"), ("SC", "IP"),
    ("SC", "CM"), ("HD", ""), ("RL", ""), ("CA", ""), ("CA", "CA"), ("DC", ""), ("OC", ""),
]  # fmt: skip

# Not after a cancel: what ends a step closes it for changes made later, and that the end has no effect after all, since
# the order was cancelled before, comes too late for those that have been left aside meanwhile.
ENDING = [("DC", ""), ("XO", "CM"), ("SC", "CM")]


def order_segments(who, number, control, status, person, seen, said, code, keys):
    in_ipc = said["dialect"] == "OMI"
    in_timing = said["dialect"] == "ORM"
    accession, procedure_id, step_id, uid = (
        (f"A{number}", f"R{number}", f"S{number}", f"2.25.77{number}") if keys else [""] * 4
    )
    numbers = {"f2": f"P{number}^OE", "f3": f"F{number}^RIS" if keys else ""}
    timing = f"1^^^{said['start']}^^{said['priority']}" if in_timing else ""
    lines = [pid(who, person), visit(who, "1", seen)]
    lines.append(segment("ORC", f1=control, f5=status, f7=timing, f18="" if in_ipc else said["station"], **numbers))
    if said["comment"]:
        lines.append(segment("NTE", f1="1", f3=said["comment"]))
    if not in_timing:
        lines.append(segment("TQ1", f1="1", f7=said["start"], f9=said["priority"]))
    own = {} if in_ipc else {"f18": accession, "f19": procedure_id, "f20": step_id, "f24": "CT"}
    procedure = f"{code}^{code.lower()}^99PROC"
    lines.append(
        segment("OBR", f1="1", f4=procedure, f27=timing, f30=said["transport"], f31=said["reason"], **numbers, **own)
    )
    if in_ipc:
        lines.append(segment("IPC", f1=accession, f2=procedure_id, f3=uid, f4=step_id, f5="CT", f9=said["station"]))
    elif keys:
        lines.append(segment("ZDS", f1=f"{uid}^RIS^Application^DICOM"))
    return tuple(lines)


TYPES = {"ORM": ("ORM^O01", "2.3.1"), "OMG": ("OMG^O19^OMG_O19", "2.5.1"), "OMI": ("OMI^O23^OMI_O23", "2.5.1")}


@st.composite
def order(draw, names, number, controls, code, keys):
    who, said = draw(names), draw(orders_said)
    control, status = draw(st.sampled_from(controls))
    lines = order_segments(who, number, control, status, draw(people), draw(visits), said, code, keys)
    return Fact(f"{said['dialect']} {control} {status} P{number} of {who}", Draft(*TYPES[said["dialect"]], lines))


@st.composite
def appointment(draw, names, number, keys):
    who, said, code = draw(names), draw(orders_said), "CTHEAD"
    event = draw(st.sampled_from(["S12", "S13", "S14", "S15"]))
    segments = (
        segment("SCH", f1=f"T{number}", f2=f"T{number}", f11=f"^^^{said['start']}", f26=f"P{number}^OE"),
        pid(who, draw(people)), segment("RGS", f1="1"),
        segment("AIS", f1="1", f3=f"{code}^{code}^99PROC", f4=said["start"]),
    )  # fmt: skip
    if said["station"]:
        segments += (segment("AIG", f1="1", f3=said["station"]),)
    if keys:  # a Study Instance UID that was made here and published stays, so whoever speaks first has to say it
        segments += (segment("ZDS", f1=f"2.25.77{number}^RIS^Application^DICOM"),)
    return Fact(f"SIU {event} P{number} of {who}", Draft(f"SIU^{event}^SIU_S12", "2.5.1", segments))


@st.composite
def histories(draw):
    """Facts in their true order. An order is new before anything else is said of it."""
    several = draw(st.booleans())
    names = st.sampled_from("ABC" if several else "A")
    keys = {number: draw(st.booleans()) for number in (1, 2)}
    # What an appointment says of the place may be older or younger than a change of the procedure, which brings places
    # of its own: an order with appointments keeps its procedure.
    scheduled = draw(st.booleans())
    # And none goes back to a procedure that it was before: which of the two a default was of, nobody wrote down.
    codes = dict.fromkeys((1, 2), "CTHEAD")
    facts, known, cancelled = [], set(), set()
    for _ in range(draw(st.integers(2, 12))):
        kind = draw(st.sampled_from(["order", "order", "order", "order", "adt", "adt", "siu", "merge", "change"]))
        if kind == "adt":
            facts.append(draw(adt(names)))
        elif kind == "merge" and several:
            facts.append(draw(merge(names)))
        elif kind == "change" and not several:
            facts.append(draw(change_of_identifier("A")))
        elif kind == "siu" and known and scheduled:
            number = draw(st.sampled_from(sorted(known)))
            facts.append(draw(appointment(names, number, keys[number])))
            cancelled |= {number} if " S15 " in facts[-1].about else set()
        else:
            number = draw(st.sampled_from([1, 2]))
            if not scheduled and draw(st.integers(0, 3)) == 0:
                codes[number] = "CTABD"
            controls = LATER if number in known else NEW
            if number in cancelled:
                controls = [each for each in controls if each not in ENDING]
            facts.append(draw(order(names, number, controls, codes[number], keys[number])))
            known.add(number)
            cancelled |= {number} if any(word in facts[-1].about for word in (" CA ", " OC ")) else set()
    return facts


@dataclass(frozen=True)
class Sent:
    """A fact as it is sent at its time, perhaps a second time with another control ID."""

    fact: Fact
    minute: int
    again: bool = False

    @property
    def raw(self):
        return self.fact.draft.message(
            f"{'N' if self.again else 'M'}{self.minute}", DAY + timedelta(minutes=self.minute)
        )

    def __str__(self):
        return f"{self.minute} {self.fact.about}{' with another control ID' if self.again else ''}"
