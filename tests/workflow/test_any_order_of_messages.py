"""Whatever order its messages arrive in, a sender's facts end in the worklist that their true order makes.

Through message bytes, the road of a listener and a database file that is closed and opened again, to the items that a
modality would see. What was refused is sent again when everything else has come, as a sender does that was told so.
"""

import asyncio
import shutil
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st

from gateway.domain.attributes import SPS_SEQUENCE
from gateway.domain.identifiers import Mint
from gateway.domain.matching import Narrowing
from gateway.domain.worklist import FINISHED, SPSStatus
from gateway.edges.store import Store
from gateway.processing import feeds_of, process_message
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
    # Nobody uses the new identifier before or after: where it is in use already, the A47 is refused (AE 205). And nobody
    # merges who gets one: whether the survivor or the prior record got it is a matter of which came first.
    segments = ("EVN|A47|20260105080000", pid(f"{who}7", draw(people)), segment("MRG", f1=f"{who}^^^HOSPITAL"))
    return Fact(f"A47 {who}", Draft("ADT^A47^ADT_A30", "2.5.1", segments))


orders_said = st.fixed_dictionaries(
    {
        "dialect": st.sampled_from(["ORM", "OMG", "OMI"]),
        "code": st.sampled_from(["CTHEAD", "CTHEAD", "CTABD"]),
        "start": st.sampled_from(["20260105093000", "20260105103000", "20260106080000"]),
        "station": st.sampled_from(["", "CT1", "CT2"]),
        "comment": texts, "reason": texts, "priority": st.sampled_from(["", NULL, "R", "S"]), "transport": texts,
    }
)  # fmt: skip
# Without RE: a result about an order that is not held is noted, for most results are about what nobody ordered here.
NEW = [("NW", "SC"), ("NW", ""), ("XO", "SC")]
LATER = [
    ("NW", "SC"), ("XO", ""), ("XO", "SC"), ("XO", "IP"), ("XO", "CM"), ("XO", "HD"), ("SC", "SC"), ("SC", "IP"), ("SC", "CM"),
    ("HD", ""), ("RL", ""), ("CA", ""), ("CA", "CA"), ("DC", ""), ("OC", ""),
]  # fmt: skip


def order_segments(who, number, control, status, person, seen, said, keys):
    dialect = said["dialect"]
    placer, filler = f"P{number}^OE", f"F{number}^RIS" if keys else ""
    timing = f"1^^^{said['start']}^^{said['priority']}" if dialect == "ORM" else ""
    orc = segment("ORC", f1=control, f2=placer, f3=filler, f5=status, f7=timing, f18=said["station"] if dialect != "OMI" else "")
    procedure = f"{said['code']}^{said['code'].lower()}^99PROC"
    obr = segment(
        "OBR", f1="1", f2=placer, f3=filler, f4=procedure,
        f18=f"A{number}" if keys and dialect != "OMI" else "", f19=f"R{number}" if keys and dialect != "OMI" else "",
        f20=f"S{number}" if keys and dialect != "OMI" else "", f24="CT" if dialect != "OMI" else "", f27=timing, f30=said["transport"], f31=said["reason"],
    )  # fmt: skip
    lines = [pid(who, person), visit(who, "1", seen), orc]
    if said["comment"]:
        lines.append(segment("NTE", f1="1", f3=said["comment"]))
    if dialect != "ORM":
        lines.append(segment("TQ1", f1="1", f7=said["start"], f9=said["priority"]))
    lines.append(obr)
    uid = f"2.25.77{number}" if keys else ""
    if dialect == "OMI":
        lines.append(segment(
            "IPC", f1=f"A{number}" if keys else "", f2=f"R{number}" if keys else "", f3=uid, f4=f"S{number}" if keys else "",
            f5="CT", f9=said["station"],
        ))  # fmt: skip
    elif keys:
        lines.append(segment("ZDS", f1=f"{uid}^RIS^Application^DICOM"))
    return tuple(lines)


TYPES = {"ORM": ("ORM^O01", "2.3.1"), "OMG": ("OMG^O19^OMG_O19", "2.5.1"), "OMI": ("OMI^O23^OMI_O23", "2.5.1")}


@st.composite
def order(draw, names, number, controls, keys):
    who, said = draw(names), draw(orders_said)
    control, status = draw(st.sampled_from(controls))
    lines = order_segments(who, number, control, status, draw(people), draw(visits), said, keys)
    return Fact(f"{said['dialect']} {control} {status} P{number} of {who}", Draft(*TYPES[said["dialect"]], lines))


@st.composite
def appointment(draw, names, number, keys):
    who, said = draw(names), draw(orders_said)
    event = draw(st.sampled_from(["S12", "S13", "S14", "S15"]))
    segments = (
        segment("SCH", f1=f"T{number}", f2=f"T{number}", f11=f"^^^{said['start']}", f26=f"P{number}^OE"),
        pid(who, draw(people)), segment("RGS", f1="1"),
        segment("AIS", f1="1", f3=f"{said['code']}^{said['code']}^99PROC", f4=said["start"]),
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
    facts, known = [], set()
    for _ in range(draw(st.integers(2, 12))):
        kind = draw(st.sampled_from(["order", "order", "order", "order", "adt", "adt", "siu", "merge", "change"]))
        if kind == "adt":
            facts.append(draw(adt(names)))
        elif kind == "merge" and several:
            facts.append(draw(merge(names)))
        elif kind == "change" and not several:
            facts.append(draw(change_of_identifier("A")))
        elif kind == "siu" and known:
            number = draw(st.sampled_from(sorted(known)))
            facts.append(draw(appointment(names, number, keys[number])))
        else:
            number = draw(st.sampled_from([1, 2]))
            facts.append(draw(order(names, number, LATER if number in known else NEW, keys[number])))
            known.add(number)
    return facts


class Road:
    """A database file, and what a listener does with what comes down the line."""

    def __init__(self, loaded, database, profile):
        self._loaded, self._database, self._profile = loaded, database, profile
        self._open()

    def _open(self):
        self._store = Store(f"sqlite:///{self._database}", zone="Europe/Berlin")
        feed = feeds_of(self._loaded, Mint(self._store.site_namespace()))["ris"]
        self._feed = replace(feed, **self._profile)

    def restart(self):
        self._store.close()
        self._open()

    def close(self):
        self._store.close()

    def send(self, raw):
        receipt = asyncio.run(process_message(self._store, raw, self._feed, "test"))
        assert "internal" not in receipt.kinds
        return receipt

    def items(self):
        """Of every step what a modality may see, by what nothing changes."""
        refs = self._store.reader.candidates(Narrowing(statuses=frozenset(SPSStatus)))
        found = self._store.reader.items([step_id for step_id, _ in refs])
        return sorted(((item.status.value, _lasting(item)) for item in found), key=str)


def _lasting(item):
    """What is shown, without the step where it is over: it stays as it was known when it was done, and is not listed."""
    over = item.status in FINISHED
    return {tag: each for tag, each in item.attributes.items() if not (over and tag == SPS_SEQUENCE)}


@contextmanager
def road(template, folder, profile):
    loaded, empty = template
    database = folder / "gateway.db"
    for leftover in folder.glob("gateway.db*"):
        leftover.unlink()
    shutil.copy(empty, database)
    opened = Road(loaded, database, profile)
    try:
        yield opened
    finally:
        opened.close()


@dataclass(frozen=True)
class Sent:
    """A fact as it is sent at its time, perhaps a second time with another control ID."""

    fact: Fact
    minute: int
    again: bool = False

    @property
    def raw(self):
        return self.fact.draft.message(f"{'N' if self.again else 'M'}{self.minute}", DAY + timedelta(minutes=self.minute))

    def __str__(self):
        return f"{self.minute} {self.fact.about}{' with another control ID' if self.again else ''}"


RESTART = "restart"


def in_true_order(template, folder, profile, facts):
    """Those of the facts that are taken one after the other, and the items they end in."""
    while True:
        with road(template, folder, profile) as opened:
            taken = [fact for fact in facts if opened.send(fact.raw).disposition == "accepted"]
            if len(taken) == len(facts):
                return facts, opened.items()
        facts = taken


def as_arriving(template, folder, profile, arriving):
    """The items that they end in, and what became of each, for people."""
    told, refused = [], []
    with road(template, folder, profile) as opened:
        for sent in arriving:
            if sent == RESTART:
                opened.restart()
                continue
            receipt = opened.send(sent.raw)
            told.append(f"{sent}: {receipt.disposition} {' '.join(receipt.kinds)}")
            if receipt.disposition == "refused":
                refused.append(sent)
        while refused:
            left = [sent for sent in refused if opened.send(sent.raw).disposition == "refused"]
            told.append(f"refused and sent again: {len(refused)}, refused again: {len(left)}")
            if left == refused:
                break
            refused = left
        return opened.items(), told


def difference(expected, found):
    """What differs, for people."""
    lines = [f"{len(found)} items instead of {len(expected)}"] if len(found) != len(expected) else []
    for (status, was), (status_now, now) in zip(expected, found, strict=False):
        lines += [f"status {status_now} instead of {status}"] if status != status_now else []
        changed = [tag for tag in sorted({*was, *now}) if was.get(tag) != now.get(tag)]
        lines += [f"{tag}: {now.get(tag)} instead of {was.get(tag)}" for tag in changed]
    return lines


@st.composite
def scenes(draw):
    """A history, and how its messages arrive: shuffled, some twice, with restarts of the gateway between them."""
    history = [Sent(fact, minute) for minute, fact in enumerate(draw(histories()))]
    doubled = draw(st.lists(st.sampled_from(history), max_size=3))
    renamed = draw(st.lists(st.sampled_from(history), max_size=2))
    many = [*history, *doubled, *(replace(sent, again=True) for sent in renamed), *[RESTART] * draw(st.integers(0, 2))]
    return history, draw(st.permutations(many)), draw(profiles)


profiles = st.fixed_dictionaries({"discontinue_started": st.booleans(), "cancel_unsaid": st.booleans()})


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(scene=scenes())
def test_messages_in_any_order_end_in_the_same_worklist(template, tmp_path, scene):
    history, arriving, profile = scene
    facts, expected = in_true_order(template, tmp_path, profile, history)
    taken = {sent.minute for sent in facts}
    found, told = as_arriving(
        template, tmp_path, profile, [sent for sent in arriving if sent == RESTART or sent.minute in taken]
    )
    note("\n".join(told))
    assert difference(expected, found) == []
