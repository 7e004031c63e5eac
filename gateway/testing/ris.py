"""A RIS and an ADT system: invented people, the messages about them in three dialects, and an MLLP client.

A message is drafted without its header (`Draft`), so that the sender alone gives out control IDs. Values here contain
no HL7 delimiters, so nothing needs escaping.
"""

import socket
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from types import TracebackType
from typing import Self

from gateway.wire.mllp import Frame, Framer, wrap

AUTHORITY = "HOSPITAL&1.2.3.4&ISO"

_FAMILY_NAMES = (
    "Abendroth", "Bergström", "Carvalho", "Döring", "Eriksen", "Fournier", "Góralska", "Hübner", "Ivanović",
    "Jørgensen", "Kovács", "Lindqvist", "Müller", "Novák", "O'Shea", "Papadakis", "Quintana", "Rössler", "Sørbø",
    "Tanaka",
)  # fmt: skip
_GIVEN_NAMES = (
    "Anna", "Björn", "Chloé", "Dagmar", "Émile", "Frieda", "Günther", "Hana", "Íris", "Jonas", "Käthe", "Łukasz",
    "Marta", "Niels", "Óscar", "Petra", "René", "Sofía", "Tomás",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Person:
    """An invented patient. `name` is `Family^Given`, `sex` one of M, F, O, U."""

    patient_id: str
    name: str = field(repr=False)
    birth_date: date = field(repr=False)
    sex: str = field(repr=False)


def invented_person(number: int) -> Person:
    """Always the same person for the same number; names repeat after 380 people, patient IDs never."""
    name = f"{_FAMILY_NAMES[number % len(_FAMILY_NAMES)]}^{_GIVEN_NAMES[number % len(_GIVEN_NAMES)]}"
    birth_date = date(1930, 1, 1) + timedelta(days=number * 7919 % 30_000)
    return Person(f"PAT{number:07}", name, birth_date, "FM"[number % 2])


@dataclass(frozen=True, slots=True)
class ImagingOrder:
    """One order with one requested procedure and one step. Its identifiers all end in `number`.

    `start` is the department's wall clock, without a zone. `code`, `text` and `scheme` name the procedure.
    """

    number: int
    person: Person
    start: datetime
    station: str = "CT1"
    modality: str = "CT"
    code: str = "CTHEAD"
    text: str = "CT head plain"
    scheme: str = "99PROC"

    @property
    def placer(self) -> str:
        return f"P{self.number:09}"

    @property
    def filler(self) -> str:
        return f"F{self.number:09}"

    @property
    def accession(self) -> str:
        return f"A{self.number:09}"

    @property
    def requested_procedure_id(self) -> str:
        return f"R{self.number:09}"

    @property
    def sps_id(self) -> str:
        return f"S{self.number:09}"

    @property
    def study_instance_uid(self) -> str:
        return f"2.25.7{self.number:09}"

    def moved(self, start: datetime) -> "ImagingOrder":
        """The same order with another start."""
        return replace(self, start=start)


@dataclass(frozen=True, slots=True)
class Draft:
    """A message without its header: MSH-9, MSH-12, and the segments that follow."""

    message_type: str
    version: str
    segments: tuple[str, ...] = field(repr=False)

    def message(self, control_id: str, at: datetime) -> bytes:
        """The whole message in UTF-8, with carriage returns as HL7 has them."""
        header = _segment("MSH", {  # MSH-1 is the separator itself, so each number here is one less than HL7's
            1: "^~\\&", 2: "RIS", 3: "RADIOLOGY", 4: "GATEWAY", 5: "RADIOLOGY", 6: f"{at:%Y%m%d%H%M%S}",
            8: self.message_type, 9: control_id, 10: "P", 11: self.version, 17: "UNICODE UTF-8",
        })  # fmt: skip
        return "".join(f"{segment}\r" for segment in (header, *self.segments)).encode()


def rad4_orm(order: ImagingOrder, control: str = "NW", status: str = "SC") -> Draft:
    """ORM^O01 of 2.3.1 as IHE's RAD-4 wants it: modality, station, start and every identifier are in the message."""
    timing = f"1^^^{order.start:%Y%m%d%H%M%S}^^R"
    order_control = _segment("ORC", {
        1: control, 2: f"{order.placer}^OE", 3: f"{order.filler}^RIS", 5: status, 7: timing, 12: "12^Ordonez^Ana^^^Dr",
        17: "ED^Emergency^99LOC", 18: order.station,
    })  # fmt: skip
    request = _segment("OBR", {
        1: "1", 2: f"{order.placer}^OE", 3: f"{order.filler}^RIS", 4: _procedure_and_protocol(order),
        16: "12^Ordonez^Ana^^^Dr", 18: order.accession, 19: order.requested_procedure_id, 20: order.sps_id,
        24: order.modality, 27: timing, 30: "WALK", 31: "Headache", 44: _procedure(order),
    })  # fmt: skip
    study = _segment("ZDS", {1: f"{order.study_instance_uid}^RIS^Application^DICOM"})
    return Draft("ORM^O01", "2.3.1", (*_patient(order.person), order_control, request, study))


def bare_orm(order: ImagingOrder, control: str = "NW", status: str = "") -> Draft:
    """ORM^O01 as most feeds send it: an order number, a procedure code and a time; the catalogue knows the rest."""
    timing = f"1^^^{order.start:%Y%m%d%H%M%S}^^R"
    order_control = _segment("ORC", {1: control, 2: f"{order.placer}^OE", 5: status, 7: timing})
    request = _segment("OBR", {1: "1", 2: f"{order.placer}^OE", 4: _procedure(order), 27: timing})
    return Draft("ORM^O01", "2.3", (*_patient(order.person), order_control, request))


def omg(order: ImagingOrder, control: str = "NW", status: str = "SC") -> Draft:
    """OMG^O19 of 2.5.1: the time is in TQ1, the radiology identifiers still in OBR."""
    order_control = _segment("ORC", {
        1: control, 2: f"{order.placer}^OE", 3: f"{order.filler}^RIS", 5: status, 12: "12^Ordonez^Ana^^^Dr",
        18: order.station,
    })  # fmt: skip
    request = _segment("OBR", {
        1: "1", 2: f"{order.placer}^OE", 3: f"{order.filler}^RIS", 4: _procedure_and_protocol(order),
        16: "12^Ordonez^Ana^^^Dr", 18: order.accession, 19: order.requested_procedure_id, 20: order.sps_id,
        24: order.modality, 44: _procedure(order),
    })  # fmt: skip
    return Draft("OMG^O19^OMG_O19", "2.5.1", (*_patient(order.person), order_control, _timing(order), request))


def omi(order: ImagingOrder, control: str = "NW", status: str = "SC") -> Draft:
    """OMI^O23 of 2.5.1 as IHE's SWF.b wants it: everything about the step is in IPC."""
    order_control = _segment("ORC", {
        1: control, 2: f"{order.placer}^OE", 3: f"{order.filler}^RIS", 5: status, 12: "12^Ordonez^Ana^^^Dr",
    })  # fmt: skip
    request = _segment("OBR", {
        1: "1", 2: f"{order.placer}^OE", 3: f"{order.filler}^RIS", 4: _procedure(order), 16: "12^Ordonez^Ana^^^Dr",
    })  # fmt: skip
    step = _segment("IPC", {
        1: f"{order.accession}^RIS", 2: order.requested_procedure_id, 3: order.study_instance_uid, 4: order.sps_id,
        5: order.modality, 6: _protocol(order), 7: f"ROOM {order.station}", 9: order.station,
    })  # fmt: skip
    segments = (*_patient(order.person), order_control, _timing(order), request, step)
    return Draft("OMI^O23^OMI_O23", "2.5.1", segments)


def appointment(order: ImagingOrder, event: str = "S13") -> Draft:
    """SIU of 2.5.1 about an order that is known by its numbers: S13 moves its step, S15 cancels it."""
    start = f"{order.start:%Y%m%d%H%M%S}"
    schedule = _segment("SCH", {
        1: f"AP{order.number}^SCHED", 7: "Routine", 11: f"^^20^{start}", 16: "12^Ordonez^Ana", 25: "Booked",
        26: f"{order.placer}^OE", 27: f"{order.filler}^RIS",
    })  # fmt: skip
    service = _segment("AIS", {1: "1", 2: "U", 3: _procedure(order), 4: start})
    return Draft(f"SIU^{event}^SIU_S12", "2.5.1", (schedule, *_patient(order.person), "RGS|1|U", service))


def cancel(order: ImagingOrder) -> Draft:
    """The order is cancelled (ORC-1 CA), in the dialect of `rad4_orm`."""
    return rad4_orm(order, "CA", "CA")


def admit(person: Person) -> Draft:
    """ADT^A01: the patient is admitted as an inpatient."""
    return _adt("A01", person, "I")


def register(person: Person) -> Draft:
    """ADT^A04: the patient is registered as an outpatient."""
    return _adt("A04", person, "O")


def update_patient(person: Person) -> Draft:
    """ADT^A08: name, birth date and sex are as given here."""
    return _adt("A08", person, "O")


def merge_patients(surviving: Person, prior: Person) -> Draft:
    """ADT^A40: everything of `prior` belongs to `surviving` from now on."""
    merged = _segment("MRG", {1: f"{prior.patient_id}^^^{AUTHORITY}", 7: prior.name})
    return Draft("ADT^A40^ADT_A39", "2.5.1", ("EVN|A40|20260705080000", _pid(surviving), merged))


def _adt(event: str, person: Person, patient_class: str) -> Draft:
    visit = _segment("PV1", {2: patient_class, 3: "AMB^R1^^HOSPITAL"})
    return Draft(f"ADT^{event}^ADT_A01", "2.5.1", (f"EVN|{event}|20260705080000", _pid(person), visit))


def _patient(person: Person) -> tuple[str, str]:
    return _pid(person), _segment("PV1", {2: "O", 3: "AMB^R1^^HOSPITAL", 8: "77^Reference^Paul^^^Dr"})


def _pid(person: Person) -> str:
    return _segment("PID", {
        3: f"{person.patient_id}^^^{AUTHORITY}", 5: person.name, 7: f"{person.birth_date:%Y%m%d}", 8: person.sex,
    })  # fmt: skip


def _timing(order: ImagingOrder) -> str:
    return _segment("TQ1", {1: "1", 7: f"{order.start:%Y%m%d%H%M%S}", 9: "R"})


def _procedure(order: ImagingOrder) -> str:
    return f"{order.code}^{order.text}^{order.scheme}"


def _protocol(order: ImagingOrder) -> str:
    return f"P-{order.code}^{order.text}^99PROT"


def _procedure_and_protocol(order: ImagingOrder) -> str:
    return f"{_procedure(order)}^{_protocol(order)}"


def _segment(name: str, fields: Mapping[int, str]) -> str:
    """The segment with these fields by their HL7 number and nothing in the others."""
    return "|".join((name, *(fields.get(number, "") for number in range(1, max(fields) + 1))))


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """What was answered. `errors` are the ERR segments as they came; `raw` is the whole answer."""

    code: str
    control_id: str
    text: str
    errors: tuple[str, ...]
    raw: bytes = field(repr=False)

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Read an acknowledgement. Raises ValueError if it has no MSA segment."""
        segments = raw.decode("utf-8", "replace").split("\r")
        said = next((segment.split("|") for segment in segments if segment.startswith("MSA|")), None)
        if said is None:
            raise ValueError("the answer has no MSA segment")
        code, control_id, text = (*said[1:4], "", "", "")[:3]
        return cls(code, control_id, text, tuple(s for s in segments if s.startswith("ERR|")), raw)


class SimulatedRIS:
    """An MLLP sender that waits for each acknowledgement, as RIS interfaces do; a context manager.

    It connects when it first has something to say, and again when the gateway has been away. `name` begins its
    control IDs, so several senders can be told apart.
    """

    def __init__(self, host: str, port: int, name: str = "RIS", timeout_s: float = 10) -> None:
        self._address = (host, port)
        self._name = name
        self._timeout_s = timeout_s
        self._sent = 0
        self._socket: socket.socket | None = None

    def send(self, draft: Draft, control_id: str = "", made: datetime | None = None) -> Acknowledgement:
        """Send one message and return its acknowledgement. Raises OSError if the gateway is away.

        `made` is when it says that it was made; now, if it is not given.
        """
        self._sent += 1
        return self.send_raw(draft.message(control_id or f"{self._name}{self._sent:06}", made or datetime.now(UTC)))

    def send_raw(self, message: bytes) -> Acknowledgement:
        """Send these bytes in one frame. Raises OSError if no answer comes."""
        if self._socket is None:
            self._socket = socket.create_connection(self._address, self._timeout_s)
        try:
            self._socket.sendall(wrap(message))
            return Acknowledgement.parse(_receive(self._socket))
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _receive(connection: socket.socket) -> bytes:
    """The next frame's data. Raises ConnectionResetError where none comes."""
    framer = Framer()  # bounded: what is too long comes out as something else than a frame
    while chunk := connection.recv(65_536):
        for event in framer.feed(chunk):
            if isinstance(event, Frame):
                return event.data
    raise ConnectionResetError("the gateway closed the connection without an answer")
