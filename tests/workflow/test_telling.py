"""What is put into the outbox for whom: status to placers, received messages passed on, what cannot be written."""

from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from people import attributes, key, order, person, stay, told

from gateway.domain.attributes import TAG
from gateway.domain.identifiers import Issuers
from gateway.domain.order import Order, Step
from gateway.domain.outbound_compiler import compile_outbound
from gateway.domain.patient import PatientMerge, PatientUpdate
from gateway.domain.performed import Attention, MPPSState, PerformedStep
from gateway.domain.problem import Problem
from gateway.domain.progress import STATUS_TOLD, Progress
from gateway.domain.report import Header
from gateway.domain.worklist import SPSStatus
from gateway.edges.store import Store, StoreUnit
from gateway.mapping_files import load_mappings
from gateway.wire import er7, strict
from gateway.wire.er7_writer import MessageWriter
from gateway.workflow.audience import NOBODY, Audience, PassOnTarget, StatusTarget, Writing
from gateway.workflow.outbox import Delivery, OutboxState
from gateway.workflow.ports import MessageSearch, Outcome
from gateway.workflow.telling import pass_on_message, statuses, tell_progress

AT = datetime(2026, 7, 5, 8, 0, tzinfo=UTC)
ZONE = ZoneInfo("Europe/Berlin")
_S = SPSStatus


@cache
def _shipped() -> dict[str, MessageWriter]:
    problems: list[Problem] = []
    folder = load_mappings(Path(__file__).parents[2] / "mappings", Issuers(), problems)
    assert not problems
    return dict(folder.outbound)


def writing(name: str = "status-orm", **header: str) -> Writing:
    return Writing(_shipped()[name], Header(receiving_application="RIS", **header))


def targets(*names: str, **more: object) -> Audience:
    return Audience(tuple(StatusTarget(name, writing(), **more) for name in names))


class UndoneError(Exception):
    """Ends a job whose effects are not wanted."""


@pytest.fixture
def tried(store: Store):
    """Run a job, give its result, leave no trace."""

    def run(job):
        results = []

        def undone(unit: StoreUnit) -> None:
            results.append(job(unit))
            raise UndoneError

        with pytest.raises(UndoneError):
            store.write(undone).result(timeout=30)
        return results[0]

    return run


def held(unit: StoreUnit, steps: int = 1, **more: object) -> Order:
    """A patient with an order of one procedure."""
    (patient_id,) = told(unit, PatientUpdate(person("4711", PatientName="Muster^Eva"), stay("V5")))
    made = order(patient_id, 7)
    procedure = made.procedures[0]
    further = tuple(
        replace(procedure.steps[0], sps_id=f"S7{number}",
                attributes={**procedure.steps[0].attributes, **attributes(ScheduledProcedureStepID=f"S7{number}")})
        for number in range(1, steps)
    )  # fmt: skip
    made = replace(made, procedures=(replace(procedure, steps=(*procedure.steps, *further)),), **more)
    return unit.save_order(made, "test", AT)


def moved(unit: StoreUnit, of: Order, *changes: SPSStatus | None) -> dict[int, SPSStatus]:
    """Give the steps of the order these statuses, in turn; what they were."""
    before = statuses(unit, of.id)
    steps: list[Step] = [step for procedure in of.procedures for step in procedure.steps]
    for step, status in zip(steps, changes, strict=False):
        if status is not None:
            unit.set_step_status(step.id, status, "MPPS", AT)
    return before


def waiting(unit: StoreUnit) -> list[Delivery]:
    return list(unit.deliveries(100))


def fields(delivery: Delivery) -> er7.Message:
    return er7.parse(delivery.payload)


def steps_of(ours: Order) -> tuple[int, ...]:
    """What a performed step is linked to."""
    return tuple(step.id for procedure in ours.procedures for step in procedure.steps if step.id is not None)


def performed(state: MPPSState = MPPSState.IN_PROGRESS, **said: object) -> PerformedStep:
    return PerformedStep("2.25.1", state, attributes(**said))


# ---- status ----


def test_a_started_step_is_told_to_every_target(tried) -> None:
    def job(unit):
        ours = held(unit)
        before = moved(unit, ours, _S.STARTED)
        notes = tell_progress(unit, targets("ris", "ehr"), ours.id, before, AT, "MPPS", performed(), ZONE)
        return notes, waiting(unit), ours

    notes, found, ours = tried(job)
    assert notes == []
    assert [each.destination for each in found] == ["ris", "ehr"]
    message = fields(found[0])
    orc, pid = message.first("ORC"), message.first("PID")
    assert (orc.text(1), orc.text(2), orc.text(5), orc.text(9)) == ("SC", "PL7", "IP", "20260705100000+0200")
    assert (pid.text(3), pid.text(18)) == ("4711", "")
    assert found[0].lane == str(ours.patient_id)
    assert strict.problems(message) == []


def test_every_message_has_a_control_id_of_its_own_within_twenty_characters(tried) -> None:
    def job(unit):
        ours = held(unit)
        for status in (_S.STARTED, _S.SCHEDULED, _S.STARTED, _S.COMPLETED):
            tell_progress(unit, targets("ris", "ehr"), ours.id, moved(unit, ours, status), AT, "MPPS")
        return waiting(unit)

    found = tried(job)
    assert len(found) == 8
    assert len({each.control_id for each in found}) == 8
    assert all(len(each.control_id) <= 20 and fields(each).control_id == each.control_id for each in found)


@pytest.mark.parametrize(
    ("first", "then", "control", "status"),
    [
        ((_S.STARTED,), (_S.COMPLETED,), "SC", "CM"),
        ((_S.STARTED,), (_S.SCHEDULED,), "SC", "SC"),
        ((_S.STARTED,), (_S.DISCONTINUED,), "SC", "DC"),
        ((_S.SCHEDULED,), (_S.CANCELED,), "OC", "CA"),
        ((_S.SCHEDULED,), (_S.HELD,), "SC", "HD"),
        ((_S.STARTED, _S.SCHEDULED), (_S.COMPLETED, None), "SC", "IP"),
        ((_S.STARTED, _S.STARTED), (_S.COMPLETED, None), "SC", "IP"),
        ((_S.STARTED, _S.COMPLETED), (_S.COMPLETED, None), "SC", "CM"),
    ],
)
def test_what_became_of_the_steps_is_told_by_the_table(tried, first, then, control, status) -> None:
    def job(unit):
        ours = held(unit, len(first))
        moved(unit, ours, *first)
        tell_progress(unit, targets("ris"), ours.id, moved(unit, ours, *then), AT, "MPPS")
        return waiting(unit)

    (found,) = tried(job)
    orc = fields(found).first("ORC")
    assert (orc.text(1), orc.text(5)) == (control, status)


def test_nothing_new_is_not_told(tried) -> None:
    def job(unit):
        ours = held(unit, 2)
        tell_progress(unit, targets("ris"), ours.id, statuses(unit, ours.id), AT, "MPPS")
        moved(unit, ours, _S.STARTED)
        tell_progress(unit, targets("ris"), ours.id, moved(unit, ours, None, _S.STARTED), AT, "MPPS")
        tell_progress(unit, targets("ris"), 999_999, {}, AT, "MPPS")
        tell_progress(unit, NOBODY, ours.id, {}, AT, "MPPS")
        return waiting(unit)

    assert tried(job) == []


def test_a_target_is_told_by_its_own_table_and_of_its_own_sites(tried) -> None:
    def job(unit):
        ours = held(unit, site="north")
        audience = Audience((
            StatusTarget("own-words", writing(), {**STATUS_TOLD, Progress.STARTED: ("XO", "A")}),
            StatusTarget("ends-only", writing(), {Progress.COMPLETED: ("SC", "CM")}),
            StatusTarget("south", writing(), sites=frozenset({"south"})),
            StatusTarget("north", writing(), sites=frozenset({"north"})),
        ))  # fmt: skip
        tell_progress(unit, audience, ours.id, moved(unit, ours, _S.STARTED), AT, "MPPS")
        return waiting(unit)

    found = tried(job)
    assert [each.destination for each in found] == ["own-words", "north"]
    assert (fields(found[0]).first("ORC").text(1), fields(found[0]).first("ORC").text(5)) == ("XO", "A")


def test_an_order_made_for_what_was_performed_asks_for_a_number(tried) -> None:
    def job(unit):
        ours = held(unit, placer=None)
        moved(unit, ours, _S.STARTED)
        tell_progress(unit, targets("ris"), ours.id, {}, AT, "MPPS", performed())
        return waiting(unit)

    (found,) = tried(job)
    orc = fields(found).first("ORC")
    assert (orc.text(1), orc.text(2), orc.text(5)) == ("SN", "", "IP")


def test_only_the_procedures_concerned_are_in_the_message(tried) -> None:
    def job(unit):
        ours = held(unit)
        other = replace(order(ours.patient_id, 8).procedures[0])
        ours = unit.save_order(replace(ours, procedures=(*ours.procedures, other)), "test", AT)
        tell_progress(unit, targets("ris"), ours.id, moved(unit, ours, None, _S.STARTED), AT, "MPPS")
        return waiting(unit)

    (found,) = tried(job)
    assert [obr.text(19) for obr in fields(found).all("OBR")] == ["R8"]


def test_a_mapping_about_procedures_makes_one_message_for_each_and_tells_the_dose_once(tried) -> None:
    def job(unit):
        ours = held(unit)
        ours = unit.save_order(
            replace(ours, procedures=(*ours.procedures, order(ours.patient_id, 8).procedures[0])), "test", AT
        )
        audience = Audience((StatusTarget("im", writing("status-omi")),))
        dose = PerformedStep(
            "2.25.1", MPPSState.IN_PROGRESS, {"00400300": {"vr": "US", "Value": [412]}}, steps=steps_of(ours)
        )  # fmt: skip
        tell_progress(unit, audience, ours.id, moved(unit, ours, _S.STARTED, _S.STARTED), AT, "MPPS", dose)
        return waiting(unit)

    found = [fields(each) for each in tried(job)]
    assert [(each.first("IPC").text(1), each.first("IPC").text(3)) for each in found] == [
        ("A7", "2.25.7"), ("A8", "2.25.8")
    ]  # fmt: skip
    doses = [[obx.text(5) for obx in each.all("OBX") if obx.text(3) == "113730"] for each in found]
    assert doses == [["412"], []]


def test_the_reason_of_a_discontinuation_is_told(tried) -> None:
    code = {"00080100": {"vr": "SH", "Value": ["110501"]}, "00080102": {"vr": "SH", "Value": ["DCM"]},
            "00080104": {"vr": "LO", "Value": ["Equipment failure"]}}  # fmt: skip

    def job(unit):
        ours = held(unit)
        moved(unit, ours, _S.STARTED)
        broken = PerformedStep(
            "2.25.1", MPPSState.DISCONTINUED, {"00400281": {"vr": "SQ", "Value": [code]}}, steps=steps_of(ours)
        )
        tell_progress(unit, targets("ris"), ours.id, moved(unit, ours, _S.DISCONTINUED), AT, "MPPS", broken)
        return waiting(unit)

    (found,) = tried(job)
    assert fields(found).first("ORC").raw(16) == "110501^Equipment failure^DCM"


def done(uid: str, steps: tuple[int, ...], start: str, end: str = "", **more: object) -> PerformedStep:
    """A performed step of these scheduled ones on the fifth of July, with fluoroscopy of 412 seconds."""
    said = {"00400244": ("DA", "20260705"), "00400245": ("TM", start), "00400300": ("US", 412)}
    said |= {"00400250": ("DA", "20260705"), "00400251": ("TM", end)} if end else {}
    held = {tag: {"vr": vr, "Value": [value]} for tag, (vr, value) in said.items()}
    state = MPPSState.COMPLETED if end else MPPSState.IN_PROGRESS
    return PerformedStep(uid, state, held, steps=steps, **more)


def times(message: er7.Message) -> list[tuple[str, str]]:
    """OBR-7 and OBR-8, the times of day."""
    return [(obr.text(7)[8:12], obr.text(8)[8:12]) for obr in message.all("OBR")]


def doses(message: er7.Message) -> list[str]:
    return [obx.text(5) for obx in message.all("OBX") if obx.text(3) == "113730"]


def test_an_order_that_nobody_performs_any_more_is_told_with_the_times_of_what_was_done(tried) -> None:
    def job(unit):
        ours = held(unit, 2)
        first, _ = steps_of(ours)
        unit.save_performed_step(done("2.25.1", (first,), "093000", "094500"), AT)
        unit.save_performed_step(done("2.25.2", (first,), "094000", "095000"), AT)
        not_believed = done("2.25.3", (first,), "080000", "110000", attention=Attention.ANOTHER_PATIENT)
        unit.save_performed_step(not_believed, AT)
        moved(unit, ours, _S.COMPLETED)
        tell_progress(unit, targets("ris"), ours.id, moved(unit, ours, None, _S.CANCELED), AT, "expired")
        return waiting(unit)

    (found,) = map(fields, tried(job))
    assert found.first("ORC").text(5) == "CM"
    assert times(found) == [("0930", "0950")]
    assert doses(found) == []


@pytest.mark.parametrize("mapping", ["status-orm", "status-omi"])
def test_each_requested_procedure_has_the_times_of_its_own(tried, mapping: str) -> None:
    def job(unit):
        ours = held(unit)
        more = order(ours.patient_id, 8).procedures[0]
        ours = unit.save_order(replace(ours, procedures=(*ours.procedures, more)), "test", AT)
        first, second = steps_of(ours)
        unit.save_performed_step(done("2.25.1", (first,), "093000", "094500"), AT)
        both = done("2.25.2", (first, second), "100000", "101500")
        unit.save_performed_step(both, AT)
        audience = Audience((StatusTarget("ris", writing(mapping)),))
        tell_progress(unit, audience, ours.id, moved(unit, ours, _S.COMPLETED, _S.COMPLETED), AT, "MPPS", both, ZONE)
        return waiting(unit)

    found = [fields(each) for each in tried(job)]
    assert [each for message in found for each in times(message)] == [("0930", "1015"), ("1000", "1015")]
    assert [dose for message in found for dose in doses(message)] == ["412"]


def test_what_is_taken_away_from_one_step_of_several_is_not_told_with_its_dose_again(tried) -> None:
    def job(unit):
        ours = held(unit, 2)
        first, _ = steps_of(ours)
        moved(unit, ours, _S.COMPLETED, _S.COMPLETED)
        left = done("2.25.1", (first,), "093000", "094500")
        unit.save_performed_step(left, AT)
        before = moved(unit, ours, None, _S.SCHEDULED)
        tell_progress(unit, targets("ris"), ours.id, before, AT, "unlinked", left, withdrawn=True)
        return waiting(unit)

    (found,) = map(fields, tried(job))
    assert found.first("ORC").text(5) == "IP"
    assert doses(found) == []


def test_messages_of_ours_are_found_in_the_archive_by_every_number(tried) -> None:
    def job(unit):
        ours = held(unit)
        tell_progress(unit, targets("ris"), ours.id, moved(unit, ours, _S.STARTED), AT, "MPPS")
        searches = [("PL7", "placer"), ("A7", "accession"), ("2.25.7", "study"), ("4711", "patient")]
        found = [unit.find_messages(MessageSearch(value, kind, direction="out"), 5) for value, kind in searches]
        return [*found, unit.find_messages(MessageSearch(order=ours.id), 5),
                unit.find_messages(MessageSearch(patient=ours.patient_id), 5)]  # fmt: skip

    assert [len(found) for found in tried(job)] == [1] * 6


def test_what_a_mapping_cannot_write_is_parked_with_its_reason_and_harms_nobody(tried) -> None:
    rules = compile_outbound(
        {"needy": {"message": "ORM^O01", "hl7": "2.3.1", "segments": ["MSH", "PID"],
                   "rules": {"PID-7": {"from": "PatientBirthDate", "missing": "refuse"}}}}, "needy"
    )  # fmt: skip
    audience = Audience((
        StatusTarget("needy", Writing(MessageWriter(rules))), StatusTarget("ris", writing())
    ))  # fmt: skip

    def job(unit):
        ours = held(unit)
        notes = tell_progress(unit, audience, ours.id, moved(unit, ours, _S.STARTED), AT, "MPPS")
        archived = unit.find_messages(MessageSearch("PL7", listener="needy"), 5)
        return notes, waiting(unit), archived

    notes, found, archived = tried(job)
    parked, sent = sorted(found, key=lambda each: each.destination)
    assert (parked.state, parked.payload, sent.state) == (OutboxState.PARKED, b"", OutboxState.WAITING)
    assert "PID-7" in parked.reason
    assert "PatientBirthDate" in parked.reason
    assert len(notes) == 1
    assert "Muster" not in notes[0]
    assert [(each.record.disposition, "PID-7" in each.record.reasons) for each in archived] == [("parked", True)]


def test_a_parked_message_does_not_hold_up_those_behind_it(tried, store: Store) -> None:
    rules = compile_outbound(
        {"m": {"message": "ORM^O01", "hl7": "2.3.1", "segments": ["MSH", "ORC"],
               "rules": {"ORC-16": {"from": "event.DiscontinuationReason", "missing": "refuse"},
                         "ORC-5": "event.OrderStatus"}}}, "m"
    )  # fmt: skip
    audience = Audience((StatusTarget("ris", Writing(MessageWriter(rules))),))
    reason = {"00080100": {"vr": "SH", "Value": ["110501"]}}

    def job(unit):
        ours = held(unit)
        tell_progress(unit, audience, ours.id, moved(unit, ours, _S.STARTED), AT, "MPPS", performed())
        broken = PerformedStep(
            "2.25.1", MPPSState.DISCONTINUED, {"00400281": {"vr": "SQ", "Value": [reason]}}, steps=steps_of(ours)
        )
        tell_progress(unit, audience, ours.id, moved(unit, ours, _S.SCHEDULED), AT, "MPPS", broken)
        return unit.next_delivery("ris", AT), unit.queues()

    following, queues = tried(job)
    assert fields(following).first("ORC").text(5) == "SC"
    assert [(each.destination, each.waiting, each.parked) for each in queues] == [("ris", 1, 1)]


@pytest.mark.parametrize(
    ("charset", "name", "expected"),
    [
        ("8859/1", "Müller^Jörg", "Müller^Jörg"),
        ("ASCII", "Müller^Jörg", "Muller^Jorg"),
        ("8859/1", "Łukasz^Żółć", "Lukasz^Zólc"),
        ("ASCII", "Yamada^Tarou=山田^太郎", "Yamada^Tarou"),
        ("UNICODE UTF-8", "Пётр^Иван", "Пётр^Иван"),
        ("ISO IR87", "Yamada^Tarou=山田^太郎", "Yamada^Tarou"),
        ("GB 18030-2000", "张^伟", "张^伟"),
    ],
)
def test_names_are_written_in_the_set_of_the_receiver(tried, charset: str, name: str, expected: str) -> None:
    def job(unit):
        ours = held(unit)
        told(unit, PatientUpdate(person("4711", PatientName=name)), 1)
        audience = Audience((StatusTarget("ris", writing(charset=charset)),))
        tell_progress(unit, audience, ours.id, moved(unit, ours, _S.STARTED), AT, "MPPS")
        return waiting(unit)

    (found,) = tried(job)
    message = fields(found)
    assert "^".join((message.first("PID").text(5), message.first("PID").text(5, 1, 2))) == expected
    assert message.msh.text(18) == ("" if charset == "ASCII" else charset)


def test_a_value_cannot_become_a_segment_or_a_field(tried) -> None:
    def job(unit):
        ours = held(unit)
        said = {"PatientName": "A|B^C&D~E\\F", "PatientAddress": "x\rORC|CA|PL1\r\n\x0b\x1c"}
        told(unit, PatientUpdate(person("4711", **said)), 1)
        audience = Audience((StatusTarget("ris", writing("order-omi")),))
        tell_progress(unit, audience, ours.id, moved(unit, ours, _S.STARTED), AT, "MPPS")
        return waiting(unit)

    (found,) = tried(job)
    message = fields(found)
    assert [segment.name for segment in message.segments] == ["MSH", "PID", "PV1", "ORC", "TQ1", "OBR", "IPC"]
    assert (message.first("PID").text(5), message.first("PID").text(5, 1, 2)) == ("A|B", "C&D~E\\F")
    assert b"\x0b" not in found.payload
    assert b"\x1c" not in found.payload


# ---- received messages, passed on ----

RECEIVED = (
    b"MSH|^~\\&|RIS|HOSP|GW|RAD|20260705100000||ORM^O01|IN1|P|2.3.1\rPID|||4711^^^HOSPITAL||Muster^Eva\r"
    b"ORC|NW|PL7^RIS\rOBR||PL7^RIS||CT1^Kopf\r"
)


def pass_on(unit: StoreUnit, target: PassOnTarget, outcome: Outcome, raw: bytes = RECEIVED) -> list[Delivery]:
    pass_on_message(unit, Audience(passed_on=(target,)), "ris", er7.parse(raw), raw, outcome, AT, ZONE)
    return waiting(unit)


def test_bytes_are_passed_on_unchanged_in_the_lane_of_the_patient(tried) -> None:
    raw = RECEIVED.replace(b"\r", b"\r\n").replace(b"Muster", b"M\xfcster").replace(b"2.3.1", b"2.3.1||||||8859/1", 1)

    def job(unit):
        ours = held(unit)
        outcome = Outcome(orders=(ours.id,), patients=(ours.patient_id,))
        found = pass_on(unit, PassOnTarget("pacs"), outcome, raw)
        return found, ours, unit.find_messages(MessageSearch("PL7", "placer", listener="pacs"), 5)

    (found,), ours, archived = tried(job)
    assert (found.payload, found.control_id, found.lane) == (raw, "IN1", str(ours.patient_id))
    assert [each.record.raw for each in archived] == [raw]


def test_a_target_gets_the_types_and_listeners_it_asked_for(tried) -> None:
    def job(unit, *wanted: PassOnTarget):
        for target in wanted:
            pass_on(unit, target, Outcome())
        return [each.destination for each in waiting(unit)]

    wanted = (
        PassOnTarget("all"), PassOnTarget("orm", types=frozenset({"ORM"})),
        PassOnTarget("event", types=frozenset({"ADT", "ORM^O01"})), PassOnTarget("adt", types=frozenset({"ADT"})),
        PassOnTarget("other-event", types=frozenset({"ORM^O02"})),
        PassOnTarget("listener", listeners=frozenset({"ris"})), PassOnTarget("elsewhere", listeners=frozenset({"x"})),
    )  # fmt: skip
    assert tried(lambda unit: job(unit, *wanted)) == ["all", "orm", "event", "listener"]


def test_an_order_is_passed_on_as_held(tried) -> None:
    def job(unit):
        ours = held(unit, 2)
        outcome = Outcome(orders=(ours.id,), patients=(ours.patient_id,))
        return pass_on(unit, PassOnTarget("im", writing("order-omi")), outcome)

    (found,) = tried(job)
    message = fields(found)
    orc = message.first("ORC")
    assert (orc.text(1), orc.text(2), orc.text(5)) == ("NW", "PL7", "SC")
    assert [ipc.text(4) for ipc in message.all("IPC")] == ["S7", "S71"]
    assert found.control_id != "IN1"
    assert strict.problems(message) == []


def test_each_order_of_a_message_is_told_by_its_own_order_control(tried) -> None:
    raw = RECEIVED.replace(b"PL7^RIS", b"PL8^RIS") + b"ORC|CA|PL7^RIS\r"

    def job(unit):
        ours = held(unit)
        other = unit.save_order(order(ours.patient_id, 8), "test", AT)
        return pass_on(unit, PassOnTarget("im", writing("order-omi")), Outcome(orders=(ours.id, other.id)), raw)

    assert [fields(each).first("ORC").text(1) for each in tried(job)] == ["CA", "NW"]


def test_a_patient_update_is_passed_on_as_held_with_the_visit_it_names(tried) -> None:
    raw = b"MSH|^~\\&|ADT|HOSP|GW|RAD|20260705||ADT^A08|IN2|P|2.5.1\rPID|||4711\rPV1||I|||||||||||||||||V5\r"

    def job(unit):
        ours = held(unit)
        return pass_on(unit, PassOnTarget("pacs", writing("adt")), Outcome(patients=(ours.patient_id,)), raw)

    (found,) = tried(job)
    message = fields(found)
    assert (message.message_code, message.trigger_event) == ("ADT", "A08")
    assert message.first("PID").raw(3).startswith("4711^^^")
    assert message.first("PV1").text(19) == "V5"
    assert strict.problems(message) == []


SAYS_MORE = (
    b"MSH|^~\\&|ADT|HOSP|GW|RAD|20260705||ADT^A08|IN2|P|2.5.1\r"
    b"PID|||4711||||||||1 Elm St&Elm^^Ulm^^89073^DE^H||555-1~555-2^PRN^CP\r"
    b"PV1||I|W7^2^A^HOSP&1.2.3&ISO||||||||||||||||V5\r"
)
HELD_OF_IT = {"PatientAddress": "1 Elm St, Ulm, 89073, DE", "PatientTelephoneNumbers": ("555-1", "555-2")}


@pytest.mark.parametrize(
    ("location", "shown"),
    [("W7 2 A", "W7^2^A^HOSP&1.2.3&ISO"), ("W9 1 C", "W9 1 C")],
    ids=["the same", "moved on since"],
)
@pytest.mark.parametrize("name", ["adt", "order-omi"])
def test_what_is_passed_on_keeps_its_components_where_they_are_known(
    tried, name: str, location: str, shown: str
) -> None:
    def job(unit):
        said = attributes(PatientAddress=HELD_OF_IT["PatientAddress"])
        said[TAG["PatientTelephoneNumbers"]] = {"vr": "SH", "Value": list(HELD_OF_IT["PatientTelephoneNumbers"])}
        known = person("4711", PatientName="Muster^Eva")
        known = replace(known, attributes={**known.attributes, **said})
        (patient_id,) = told(unit, PatientUpdate(known, stay("V5", CurrentPatientLocation=location)))
        visit = unit.visit(unit.patient(patient_id).id, key("V5"))
        ours = unit.save_order(order(patient_id, 7, visit.id), "test", AT)
        outcome = Outcome(orders=(ours.id,), patients=(patient_id,))
        return pass_on(unit, PassOnTarget("pacs", writing(name)), outcome, SAYS_MORE)

    (found,) = tried(job)
    message = fields(found)
    assert message.first("PV1").raw(3) == shown
    assert message.first("PID").raw(11) == "1 Elm St&Elm^^Ulm^^89073^DE^H"
    assert message.first("PID").raw(13) == "555-1~555-2^PRN^CP"
    assert strict.problems(message) == []


def test_a_merge_is_passed_on_with_the_identifier_that_went(tried) -> None:
    raw = (
        b"MSH|^~\\&|ADT|HOSP|GW|RAD|20260705||ADT^A40|IN3|P|2.5.1\rPID|||4711^^^HOSPITAL\r"
        b"MRG|0815^^^HOSPITAL~0999^^^ELSEWHERE\r"
    )

    def job(unit):
        ours = held(unit)
        told(unit, PatientUpdate(person("0815", PatientName="Muster^Eva")), 1)
        touched = told(unit, PatientMerge(person("4711"), (key("0815"),)), 2)
        return pass_on(unit, PassOnTarget("pacs", writing("adt")), Outcome(patients=(ours.patient_id, *touched)), raw)

    (found,) = tried(job)
    message = fields(found)
    assert message.msh.raw(9) == "ADT^A40^ADT_A39"
    assert message.first("MRG").raw(1) == "0815^^^HOSPITAL"
    assert message.first("PID").raw(3).startswith("4711^^^")
    assert strict.problems(message) == []


def test_no_order_is_passed_on_where_the_message_changed_none(tried) -> None:
    assert tried(lambda unit: pass_on(unit, PassOnTarget("im", writing("order-omi")), Outcome())) == []
