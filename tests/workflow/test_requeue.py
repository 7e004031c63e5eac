"""What was sent is sent again when a person says so: the same message, in the lane it belongs to by now."""

from datetime import timedelta

from people import AT, key, tried

from gateway.domain.patient import Patient
from gateway.domain.performed import MPPSState, PerformedStep
from gateway.edges.store import Store, StoreUnit
from gateway.wire.dicom_json import EXPLICIT_VR_LITTLE_ENDIAN, write_attributes
from gateway.workflow.outbox import Attempt, Patience, after, enqueue
from gateway.workflow.ports import PATIENT_LINK, DeliveryKind
from gateway.workflow.requeue import AGAIN, Requeued, requeue_messages, requeue_performed

LATER = AT + timedelta(hours=1)


def sent(unit: StoreUnit, control_id: str, at=AT, patient: int | None = None, attempt=Attempt.ACCEPTED) -> None:
    raw = f"MSH|^~\\&|GATEWAY|X|RIS||||ORM^O01|{control_id}|P|2.5\r".encode()
    keys = [(PATIENT_LINK, str(patient))] if patient is not None else []
    enqueue(unit, "ris", patient, control_id, raw, at, keys)
    delivery = unit.next_delivery("ris", at)
    assert delivery is not None
    unit.save_delivery(after(delivery, attempt, "", at, Patience()), b"", at)


def waiting(unit: StoreUnit) -> list[str]:
    return [each.control_id for each in unit.deliveries(50, destination="ris")]


def test_messages_of_a_time_are_sent_again(store: Store) -> None:
    def job(unit: StoreUnit) -> None:
        for minute in range(5):
            sent(unit, f"M{minute}", AT + timedelta(minutes=minute))
        first = requeue_messages(unit, "ris", AT + timedelta(minutes=1), LATER, limit=2)
        assert (first.count, first.more, waiting(unit)) == (2, True, ["M1", "M2"])
        rest = requeue_messages(unit, "ris", AT + timedelta(minutes=1), LATER, limit=9, after=first.last)
        assert (rest.count, rest.more, waiting(unit)) == (2, False, ["M1", "M2", "M3", "M4"])
        again = unit.next_delivery("ris", LATER)
        assert again is not None
        stored = unit.message(again.archive_id)
        assert stored is not None
        assert (again.payload, stored.record.disposition) == (stored.record.raw, "waiting")
        assert stored.record.reasons == AGAIN
        assert requeue_messages(unit, "ris", AT, LATER).count == 1  # M0; the others wait already
        unit.save_delivery(after(again, Attempt.ACCEPTED, "", LATER, Patience()), b"", LATER)
        stored = unit.message(again.archive_id)
        assert stored is not None
        assert stored.record.disposition == "sent"

    tried(store, job)


def test_what_waits_is_parked_or_went_elsewhere_is_left(store: Store) -> None:
    def job(unit: StoreUnit) -> None:
        sent(unit, "PARKED", attempt=Attempt.REJECTED)
        enqueue(unit, "pacs", None, "ELSEWHERE", b"MSH|^~\\&|A\r", AT)
        assert requeue_messages(unit, "ris", AT - timedelta(days=1), LATER).count == 0
        assert requeue_messages(unit, "ris", LATER, LATER) == Requeued(0, 0, False)

    tried(store, job)


def test_what_was_dropped_may_be_sent_after_all(store: Store) -> None:
    def job(unit: StoreUnit) -> None:
        enqueue(unit, "ris", None, "M1", b"MSH|^~\\&|A\r", AT)
        unit.drop_delivery(unit.deliveries(1)[0].id)
        assert requeue_messages(unit, "ris", AT, LATER).count == 1
        assert waiting(unit) == ["M1"]

    tried(store, job)


def test_a_message_goes_with_those_of_whom_the_patient_is_by_now(store: Store) -> None:
    def job(unit: StoreUnit) -> None:
        prior, survivor = (unit.save_patient(Patient(None, (key(each),), {}), AT) for each in ("P1", "P2"))
        sent(unit, "M1", patient=prior)
        unit.merge_patient(prior, survivor, AT)
        requeue_messages(unit, "ris", AT, LATER)
        (again,) = unit.deliveries(5)
        assert again.lane == str(survivor)

    tried(store, job)


def test_accepted_performed_steps_are_sent_again_as_they_came(store: Store) -> None:
    def job(unit: StoreUnit) -> None:
        for operation, status in (("N-CREATE", 0), ("N-SET", 0x0107), ("N-SET", 0x0110)):
            unit.archive_performed("1.2.1", operation, "CT1", operation.encode(), status, "", AT, "1.2.840.10008.1.2")
        assert requeue_performed(unit, "pacs", AT, LATER).count == 2
        found = unit.deliveries(5, destination="pacs")
        assert [(each.kind, each.operation, each.payload, each.lane, each.control_id) for each in found] == [
            (DeliveryKind.PERFORMED, "N-CREATE", b"N-CREATE", "1.2.1", "1.2.1"),
            (DeliveryKind.PERFORMED, "N-SET", b"N-SET", "1.2.1", "1.2.1"),
        ]
        assert {each.transfer_syntax for each in found} == {"1.2.840.10008.1.2"}
        assert requeue_performed(unit, "pacs", LATER, LATER).count == 0

    tried(store, job)


def test_an_n_set_is_sent_again_in_the_character_set_of_its_n_create(store: Store) -> None:
    latin, unicode = ("ISO_IR 100",), ("ISO_IR 192",)

    def written(terms: tuple[str, ...]) -> bytes:
        said = {"00400254": {"vr": "LO", "Value": ["Sch\xe4del"]}}
        return write_attributes(said, EXPLICIT_VR_LITTLE_ENDIAN, terms)

    def job(unit: StoreUnit) -> None:
        created = {"00080005": {"vr": "CS", "Value": list(latin)}}
        unit.save_performed_step(PerformedStep("1.2.1", MPPSState.IN_PROGRESS, created, "CT1"), AT)
        unit.archive_performed("1.2.1", "N-SET", "CT1", written(unicode), 0, "", AT, EXPLICIT_VR_LITTLE_ENDIAN)
        assert requeue_performed(unit, "pacs", AT, LATER).count == 1
        assert [each.payload for each in unit.deliveries(5, destination="pacs")] == [written(latin)]

    tried(store, job)
