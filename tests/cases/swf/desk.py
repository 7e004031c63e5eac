"""A department on a real store: what happens in a case happens here, through the use cases of the gateway."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar

from gateway.config import Site
from gateway.domain.identifiers import Mint
from gateway.domain.matching import Narrowing
from gateway.domain.performed import MPPSState, Operation, PerformedStep
from gateway.domain.performed_rules import LENIENT, STRICT
from gateway.domain.progress import status_of
from gateway.domain.report import Header
from gateway.domain.worklist import SPSStatus
from gateway.edges.store import Store
from gateway.edges.store_unit import StoreUnit
from gateway.processing import feeds_of, now
from gateway.testing import Draft, ImagingOrder, cancel, invented_person, merge_patients, omi
from gateway.wire import er7
from gateway.wire.dicom_json import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN, write_attributes
from gateway.workflow import intake, reconcile
from gateway.workflow.audience import Audience, FHIRWriting, Outbound, PerformedTarget, StatusTarget, Writing
from gateway.workflow.linking import PatientIssuers
from gateway.workflow.outbox import Delivery
from gateway.workflow.perform import PerformAnswer, close_step, create_step, get_step, set_step
from gateway.workflow.performed_request import PerformRequest, read_request
from gateway.workflow.ports import DeliveryKind, StepRef
from swf.datasets import UNSCHEDULED, attributes, code, created, ended, reference, series

T = TypeVar("T")
START = datetime(2026, 7, 5, 9, 30)
PLACER, PACS, WATCHER = "placer", "pacs", "watcher"
_EVENTS = {"N-CREATE": {"IN PROGRESS": 1}, "N-SET": {"IN PROGRESS": 4, "COMPLETED": 2, "DISCONTINUED": 3}}


def uid_of(number: Any) -> str:
    """The SOP Instance UID that a case names by a number; a text is one as it is."""
    return f"2.25.55500{number}" if isinstance(number, int) else str(number)


class Desk:
    """One department: orders come in by HL7, modalities report, people decide."""

    def __init__(self, site: Site, store: Store, status: Outbound, offered: FHIRWriting | None = None) -> None:
        self.store = store
        self.audience = Audience(
            status=(StatusTarget(PLACER, Writing(status, Header())),),
            performed=(PerformedTarget(PACS), PerformedTarget(WATCHER, "events")),
            offered=offered,
        )
        self._site = site
        self._feed = feeds_of(site, Mint(store.site_namespace()), self.audience)["ris"]
        self._orders: dict[str, ImagingOrder] = {}
        self._parts: dict[str, int] = {}
        self._sent = 0
        self._seen = 0
        self._at = now()

    # --- what happens

    def order(self, said: Mapping[str, Any]) -> None:
        """A RIS orders: `number`, `patient`, and of how many steps (`parts`)."""
        made = ImagingOrder(said["number"], invented_person(said["patient"]), START)
        self._orders[str(said["number"])] = made
        self._parts[str(said["number"])] = said.get("parts", 1)
        draft = omi(made)
        last = draft.segments[-1]
        more = [last.replace(made.sps_id, self._sps_id(made, part)) for part in range(2, said.get("parts", 1) + 1)]
        self._receive(Draft(draft.message_type, draft.version, (*draft.segments, *more)))

    def cancel(self, number: int) -> None:
        """The RIS cancels an order."""
        self._receive(cancel(self._orders[str(number)]))

    def merge(self, numbers: Sequence[int]) -> None:
        """Of two patients the second one becomes the first."""
        self._receive(merge_patients(invented_person(numbers[0]), invented_person(numbers[1])))

    def create(self, said: Mapping[str, Any]) -> PerformAnswer:
        """A modality begins."""
        person = None if said.get("patient") is None else invented_person(said["patient"])
        spoken = created(person, [self._reference(each) for each in said.get("for", ["1"])])
        raw = self._raw(spoken, said)
        read = read_request(Operation.CREATE, self._request(said, raw))
        rules = STRICT if said.get("strict") else LENIENT
        issuers = PatientIssuers(self._site.issuers, self._site.default_issuer)
        return self.write(lambda unit: create_step(unit, read, self._at, rules, issuers, self.audience))

    def set(self, said: Mapping[str, Any]) -> PerformAnswer:
        """A modality goes on, or ends."""
        status = said.get("status")
        spoken: dict[str, Any] = {} if status is None else {"PerformedProcedureStepStatus": status, **ended(status)}
        if "reason" in said:
            spoken["PerformedProcedureStepDiscontinuationReasonCodeSequence"] = [code(str(said["reason"]))]
        if "series" in said:
            spoken["PerformedSeriesSequence"] = [series(f"2.25.88{number}") for number in range(said["series"])]
        read = read_request(Operation.SET, self._request(said, self._raw(spoken, said)))
        rules = STRICT if said.get("strict") else LENIENT
        return self.write(lambda unit: set_step(unit, read, self._at, rules, self.audience))

    def get(self, said: Mapping[str, Any], tags: Sequence[int]) -> PerformAnswer:
        """Somebody asks for a performed step."""
        return get_step(self.store.reader, uid_of(said["uid"]), tags, IMPLICIT_VR_LITTLE_ENDIAN)

    def close(self, said: Mapping[str, Any]) -> PerformAnswer:
        """A person ends what a modality never will."""
        state = MPPSState(said["state"])
        return self.write(
            lambda unit: close_step(
                unit, uid_of(said["uid"]), state, "a.person", self._at, self.audience, reason=said.get("reason", "")
            )
        )

    def link(self, said: Mapping[str, Any]) -> None:
        """A person says what was done."""
        steps = [self.step(name).step_id for name in said["to"]]
        force = bool(said.get("force"))
        self.write(lambda unit: reconcile.link(unit, uid_of(said["uid"]), steps, self._by(), force=force))

    def unlink(self, said: Mapping[str, Any]) -> None:
        """A person says that it was not done."""
        self.write(lambda unit: reconcile.unlink(unit, uid_of(said["uid"]), self._by()))

    def release(self, said: Mapping[str, Any]) -> None:
        """A person ends a quarantine."""
        self.write(lambda unit: reconcile.release(unit, uid_of(said["uid"]), self._by(), believed=said["believed"]))

    # --- what is seen of it

    def step(self, name: str) -> StepRef:
        """A scheduled step, as `1` (the first of order 1) or `1.2`."""
        number, _, part = name.partition(".")
        order = self._orders[number]
        found = self.store.reader.find_steps(order.study_instance_uid, self._sps_id(order, int(part or 1)), "", "")
        assert len(found) == 1
        return found[0]

    def names(self) -> list[str]:
        """The scheduled steps of all orders."""
        return [
            number if part == 1 else f"{number}.{part}"
            for number, parts in self._parts.items()
            for part in range(1, parts + 1)
        ]

    def statuses(self) -> dict[str, str]:
        """The status of every scheduled step."""
        return {name: self.step(name).status.value for name in self.names()}

    def listed(self) -> list[str]:
        """What a worklist query may show."""
        found = {step_id for step_id, _ in self.store.reader.candidates(Narrowing())}
        return [name for name in self.names() if self.step(name).step_id in found]

    def order_status(self, number: str) -> str:
        """What the order is as a whole (HL7 table 0038)."""
        own = [SPSStatus(status) for name, status in self.statuses().items() if name.partition(".")[0] == number]
        return status_of(own)

    def held(self, number: Any) -> PerformedStep:
        """A performed step."""
        performed = self.store.reader.performed_step(uid_of(number))
        assert performed is not None
        return performed

    def sent(self) -> tuple[list[str], list[str], list[str]]:
        """What was put into the outbox since the last time: performed steps passed on, and status told.

        Last what the status messages say of what was done.
        """
        new = self.store.reader.deliveries(10_000, self._seen)
        self._seen = max((delivery.id for delivery in new), default=self._seen)
        forwards = [each for each in new if each.destination == PACS]
        watched = [each for each in new if each.destination == WATCHER]
        self._check_copies(forwards, watched)
        status = [each for each in new if each.destination == PLACER]
        told = [line for each in status for line in _told(each)]
        passed_on = [f"{each.operation} {each.lane.removeprefix('2.25.55500')}" for each in forwards]
        return passed_on, told, [_done(each) for each in status]

    def _check_copies(self, forwards: Sequence[Delivery], watched: Sequence[Delivery]) -> None:
        """Copies are as received and under the same UID; subscribers are told of the same, without content."""
        assert [each.lane for each in watched] == [each.lane for each in forwards]
        for copy, event in zip(forwards, watched, strict=True):
            requests = self.store.reader.performed_requests(copy.lane)
            assert copy.payload in [each.raw for each in requests if each.operation == copy.operation]
            assert (copy.kind, event.kind) == (DeliveryKind.PERFORMED, DeliveryKind.NOTIFICATION)
            assert copy.control_id == copy.lane == event.control_id
            assert copy.transfer_syntax in (IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN)
            assert event.payload == b""
            numbers = _EVENTS[copy.operation].values()
            assert event.operation in [f"N-EVENT-REPORT {number}" for number in numbers]

    # --- how

    def write(self, use_case: Callable[[StoreUnit], T]) -> T:
        """Run it in a transaction."""
        self._at += timedelta(minutes=1)
        return self.store.write(use_case).result(timeout=30)

    def _by(self) -> reconcile.By:
        return reconcile.By("a.person", self._at, self.audience)

    def _receive(self, draft: Draft) -> None:
        self._sent += 1
        raw = draft.message(f"M{self._sent}", self._at)
        receipt = self.write(lambda unit: intake.receive(unit, raw, self._feed, "case", self._at))
        assert receipt.disposition == "accepted"

    def _reference(self, said: Any) -> Mapping[str, Any]:
        """A scheduled step by its name, `unscheduled`, or keys by keyword; with a patient of its own never."""
        if said == "unscheduled":
            return UNSCHEDULED
        if isinstance(said, Mapping):
            return {**UNSCHEDULED, **said}
        number, _, part = str(said).partition(".")
        order = self._orders.get(number) or ImagingOrder(int(number), invented_person(1), START)
        return reference(order, self._sps_id(order, int(part or 1)))

    @staticmethod
    def _sps_id(order: ImagingOrder, part: int) -> str:
        return order.sps_id if part == 1 else f"{order.sps_id}-{part}"

    @staticmethod
    def _raw(spoken: dict[str, Any], said: Mapping[str, Any]) -> bytes:
        """The bytes of a request: what it has `with` besides or instead, and what it is `without`."""
        if "raw" in said:
            return bytes.fromhex(said["raw"])
        whole = {**spoken, **said.get("with", {})}
        for keyword in said.get("without", ()):
            del whole[keyword]
        terms: Iterable[str] = said.get("charset", ("ISO_IR 192",) if _beyond_ascii(whole) else ())
        syntax = IMPLICIT_VR_LITTLE_ENDIAN if said.get("implicit") else EXPLICIT_VR_LITTLE_ENDIAN
        return write_attributes(attributes(whole), syntax, tuple(terms))

    @staticmethod
    def _request(said: Mapping[str, Any], raw: bytes) -> PerformRequest:
        syntax = IMPLICIT_VR_LITTLE_ENDIAN if said.get("implicit") else EXPLICIT_VR_LITTLE_ENDIAN
        return PerformRequest(uid_of(said["uid"]), said.get("from", "CT1"), syntax, raw)


def _beyond_ascii(said: Any) -> bool:
    return not str(said).isascii()


def _told(delivery: Delivery) -> list[str]:
    """ORC-1, ORC-5, placer and filler order number of each order in a message; a message that was parked says so."""
    assert delivery.reason == "", delivery.reason
    found = []
    for segment in delivery.payload.decode().split("\r"):
        fields = segment.split("|")
        if fields[0] == "ORC":
            found.append(" ".join((fields[1], fields[5], fields[2].split("^")[0], fields[3].split("^")[0])))
    return list(dict.fromkeys(found))


def _done(delivery: Delivery) -> str:
    """When it began and ended (OBR-7, OBR-8, the time of day), why it was broken off (ORC-16) and fluoroscopy times."""
    message = er7.parse(delivery.payload)
    orc, obr = message.first("ORC"), message.first("OBR")
    assert orc is not None
    assert obr is not None
    began, ended = (obr.text(number)[8:14] or "-" for number in (7, 8))
    doses = [obx.text(5) for obx in message.all("OBX") if obx.text(3) == "113730"]
    return " ".join((began, ended, orc.text(16) or "-", *doses))
