"""What senders send in the benchmarks: each kind of message, as many as are wanted, no two alike.

Some kinds are about orders that the store holds before: the first `updates(held)` numbers of the worklist's population
are changed, those from there on are cancelled.
"""

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import count

from gateway.edges.mllp import MLLPClient
from gateway.testing import Acknowledgement, Draft, ImagingOrder, omi, update_patient
from tests.benchmarks.department import LISTENER
from tests.benchmarks.measure import Operation
from tests.benchmarks.population import order
from tests.benchmarks.questions import HOST

BATCH = 100
NEW = 1_000_000
"""The number of the first order that no store holds; each kind that makes orders has as many numbers to itself."""

ANSWERED_AS_ORDER, STRICT = "ordered", "strict"
LISTENERS = {ANSWERED_AS_ORDER: {"answer": "order"}, STRICT: {"validate": "strict"}}
"""Listeners that do more than the first one."""

_LATE = timedelta(hours=1)

Make = Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class Traffic:
    """One kind of message: the nth of them, where it goes, what MSA-1 answers it, how many messages it is."""

    what: str
    make: Make
    listener: str = LISTENER
    code: str = "AA"
    messages: int = 1


class Supply:
    """The messages of a kind, one after the other, for any number of senders."""

    def __init__(self, traffic: Traffic) -> None:
        self.traffic = traffic
        self._numbers = count()

    def next(self) -> bytes:
        """A message that was not sent yet."""
        return self.traffic.make(next(self._numbers))


def new_orders(first: int = NEW, listener: str = LISTENER, what: str = "new orders") -> Traffic:
    """OMI^O23 about orders that the store does not hold, with everything about the step."""
    return Traffic(what, lambda number: _new(first + number), listener)


def kinds(held: int) -> Sequence[Traffic]:
    """Every kind, for a store that holds so many orders. Those of one sender that are late come after the others."""
    half = held // 2
    return (
        new_orders(1 * NEW),
        Traffic("updates: another time", lambda number: _update(number, 1, timedelta())),
        Traffic("updates that come late", lambda number: _update(number, 2, _LATE)),
        Traffic("cancels", lambda number: _said(omi(order(half + number), "CA", "CA"), f"CA{number:09}")),
        Traffic("ADT: another name", _adt),
        Traffic("SIU: new appointments", lambda number: _appointment(2 * NEW + number)),
        Traffic("refused: no patient ID", lambda number: _refused(3 * NEW + number), code="AE"),
        new_orders(4 * NEW, ANSWERED_AS_ORDER, "new orders, `answer: order`"),
        new_orders(5 * NEW, STRICT, "new orders, `validate: strict`"),
        Traffic(f"new orders, {BATCH} a batch", lambda number: _batch(6 * NEW + number * BATCH), messages=BATCH),
    )


MIX = (30, 25, 2, 8, 25, 5, 5)
"""Percent of the first kinds on a busy morning: most is about what is known already."""


def sending(client: MLLPClient, choose: Callable[[], Supply]) -> Operation:
    """Sends the next message of a kind over and over; each must be answered as its kind is."""

    async def send() -> None:
        supply = choose()
        answer = await client.send(supply.next())
        said = Acknowledgement.parse(answer)
        assert said.code == supply.traffic.code, f"{supply.traffic.what}: {said.code} {said.text} {said.errors}"

    return send


async def senders(
    connected: AsyncExitStack, port: int, count: int, choose: Callable[[], Supply]
) -> Sequence[Operation]:
    """So many senders with a connection each."""
    return [
        sending(await connected.enter_async_context(MLLPClient(HOST, port, timeout_s=120.0)), choose)
        for _ in range(count)
    ]


# --- the messages


def _said(draft: Draft, control_id: str, before: timedelta = timedelta()) -> bytes:
    return draft.message(control_id, datetime.now(UTC) - before)


def _new(number: int) -> bytes:
    return _said(omi(order(number)), f"NW{number:09}")


def _update(number: int, hours: int, before: timedelta) -> bytes:
    held = order(number)
    moved = held.moved(held.start + timedelta(hours=hours))
    return _said(omi(moved, "XO"), f"XO{hours}{number:08}", before)


def _adt(number: int) -> bytes:
    person = order(number).person
    return _said(update_patient(replace(person, name=f"{person.name}^Maria")), f"AD{number:09}")


def _refused(number: int) -> bytes:
    nobody: ImagingOrder = replace(order(number), person=replace(order(number).person, patient_id=""))
    return _said(omi(nobody), f"NO{number:09}")


def _batch(first: int) -> bytes:
    header = f"BHS|^~\\&|RIS|RADIOLOGY|GATEWAY|RADIOLOGY|{datetime.now(UTC):%Y%m%d%H%M%S}||||B{first:09}\r"
    messages = b"".join(_new(number) for number in range(first, first + BATCH))
    return header.encode() + messages + f"BTS|{BATCH}\r".encode()


def _appointment(number: int) -> bytes:
    """SIU^S12 that names no order and so is one itself."""
    of = order(number)
    person = of.person
    start = f"{of.start:%Y%m%d%H%M%S}"
    segments = (
        f"SCH|A{number:09}^SCHED|B{number:09}^RIS||||APPT^Appointment|HEADACHE^Headache|NORMAL^Normal|30|min^minutes"
        f"|^^30^{start}",
        f"PID|1||{person.patient_id}^^^HOSPITAL&1.2.3.4&ISO||{person.name}||{person.birth_date:%Y%m%d}|{person.sex}",
        "PV1|1|O|AMB^R1^^HOSPITAL",
        "RGS|1|A",
        f"AIS|1|A|CTHEAD^CT head^99PROC|{start}|||30|min",
        f"AIG|1|A|{of.station}^CT scanner|CT",
    )
    return _said(Draft("SIU^S12^SIU_S12", "2.5.1", segments), f"SI{number:09}")
