"""The same facts in any order make the same worklist; one order in several dialects, or typed by hand, is one order."""

import shutil
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.domain.attributes import TAG, code_item, element, text
from gateway.domain.facts import Stamp
from gateway.domain.identifiers import Identifier, Mint
from gateway.domain.order import OrderControl, OrderEvent, Policy, ProcedureInput, StepInput
from gateway.domain.patient import PatientInput, PatientMerge, PatientUpdate, VisitChange, VisitInput
from gateway.domain.refusal import RefusalKind, Refused
from gateway.domain.worklist import LISTED, SPSStatus
from gateway.edges.store import Store
from gateway.workflow.circumstances import Circumstances
from gateway.workflow.orders import apply_events

AT = datetime(2026, 7, 5, 8, 0, tzinfo=UTC)
MINT = Mint(uuid.UUID(int=7))
GENERATE = {
    "StudyInstanceUID": Policy("generate"), "AccessionNumber": Policy("generate"),
    "RequestedProcedureID": Policy("derive", "AccessionNumber"), "ScheduledProcedureStepID": Policy("generate"),
}  # fmt: skip
UNDER = Circumstances("test", MINT, discontinue_started=True)

TYPE_1 = {
    "ScheduledStationAETitle": "CT1", "ScheduledProcedureStepStartDate": "20260705",
    "ScheduledProcedureStepStartTime": "093000", "Modality": "CT",
}  # fmt: skip
FREE = {
    "order": "ImagingServiceRequestComments",
    "procedure": "RequestedProcedureDescription",
    "step": "ScheduledProcedureStepDescription",
}


def elements(said):
    """Of values by keyword: None says nothing, '' deletes."""
    return {TAG[key]: element(key, *([value] if value else [])) for key, value in said.items() if value is not None}


def event(control="NW", status="", placer="P1", **changes):
    """An order of the procedure CTHEAD; `order`, `procedure`, `step` and `default` are texts at these levels."""
    keys = {name: changes.pop(name, None) for name in ("order", "procedure", "step", "default", "start", "sps_id")}
    step = TYPE_1 | {FREE["step"]: keys["step"], "ScheduledProcedureStepStartDate": keys["start"] or "20260705"}
    code = {TAG["RequestedProcedureCodeSequence"]: {"vr": "SQ", "Value": [code_item("CTHEAD", "99PROC")]}}
    procedure = ProcedureInput(
        changes.pop("study", ""), "", changes.pop("accession", None),
        code | elements({FREE["procedure"]: keys["procedure"]}),
        (StepInput(keys["sps_id"] or "", elements(step),
                   elements({"ScheduledProcedureStepLocation": keys["default"]})),),
        "ORC",
    )  # fmt: skip
    return OrderEvent(
        OrderControl(control), status, Identifier(placer, "OE") if placer else None, changes.pop("filler", None),
        PatientInput((Identifier("100", "HOSP"),), elements({"PatientID": "100"})), changes.pop("visit", None),
        elements({FREE["order"]: keys["order"]}), (procedure,), GENERATE, "ORC",
    )  # fmt: skip


@pytest.fixture(scope="module")
def store(template, tmp_path_factory):
    database = shutil.copy(template[1], tmp_path_factory.mktemp("orders"))
    with Store(f"sqlite:///{database}", zone="Europe/Berlin") as opened:
        yield opened


@pytest.fixture
def unit(template, tmp_path):
    """Runs a use case on a store of its own."""
    with Store(f"sqlite:///{shutil.copy(template[1], tmp_path)}", zone="Europe/Berlin") as opened:
        yield lambda job: opened.write(job).result()


def made(minute, sender="RIS"):
    return Stamp((AT + timedelta(minutes=minute)).isoformat(timespec="microseconds"), sender)


def send(said, minute=0, sender="RIS", under=UNDER):
    return lambda unit: apply_events(unit, [said], replace(under, stamp=made(minute, sender)), AT)


def tell(store, facts, placer):
    """Say numbered facts in this order; what is about an order that is not held yet is said again when it is."""
    early = []
    for minute, fact in facts:
        said = event(placer=placer, study=f"2.25.{placer}", **fact)
        if said_now(store, said, minute):
            early = [each for each in early if not said_now(store, each[1], each[0])]
        else:
            early = sorted([*early, (minute, said)], key=lambda each: each[0])
    assert not early


def said_now(store, said, minute):
    """Whether it was accepted and not too early."""
    try:
        store.write(send(said, minute)).result()
    except Refused as refused:
        if any(problem.kind is not RefusalKind.UNKNOWN_ORDER for problem in refused.refusals):
            raise
        return False
    return True


def item(store, placer):
    """The status, and what a listed item shows; what it is called differs between two orders anyhow."""
    (order,) = store.write(lambda unit: unit.orders(Identifier(placer, "OE"), None)).result()
    (step,) = order.procedures[0].steps
    if step.status not in LISTED:
        return step.status, {}
    named = {TAG["ScheduledProcedureStepID"]}
    shown = {
        tag: each
        for attributes in (order.attributes, order.procedures[0].attributes, step.attributes)
        for tag, each in attributes.items()
        if tag not in named and TAG["RequestedProcedureID"] != tag
    }
    return step.status, {tag: each for tag, each in shown.items() if placer not in str(each)}


texts = st.sampled_from([None, "", "one", "two"])
orders = st.fixed_dictionaries(
    {
        "control": st.sampled_from(["NW", "XO"]),
        "status": st.sampled_from(["", "", "SC", "IP", "CM"]),
        "order": texts, "procedure": texts, "step": texts, "default": st.sampled_from([None, "ROOM1"]),
    }
)  # fmt: skip
others = st.fixed_dictionaries(
    {"control": st.sampled_from(["CA", "DC", "RL", "SC"]), "status": st.sampled_from(["", "SC", "IP", "CM"])}
)
numbers = count(1)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(first=orders, rest=st.lists(orders | others, max_size=5), data=st.data())
def test_the_same_facts_in_any_order_make_the_same_item(store, first, rest, data):
    facts = list(enumerate([first | {"control": "NW", "accession": Identifier("A", "RIS")}, *rest]))
    shuffled = data.draw(st.permutations(facts))
    number = next(numbers)
    tell(store, facts, f"7{number}1")
    tell(store, shuffled, f"7{number}2")
    expected, found = item(store, f"7{number}1"), item(store, f"7{number}2")
    assert found == expected


def test_a_late_new_order_does_not_bring_a_cancelled_one_back(unit):
    unit(send(event("XO", step="changed"), 2))
    unit(send(event("CA"), 3))
    outcome = unit(send(event("NW", step="first", order="because"), 1))
    assert any("made before what is held" in note for note in outcome.notes)
    (order,) = unit(lambda each: each.orders(Identifier("P1", "OE"), None))
    (step,) = order.procedures[0].steps
    assert (step.status, text(step.attributes, FREE["step"])) == (SPSStatus.CANCELED, "changed")
    assert text(order.attributes, FREE["order"]) == "because"


def test_a_late_visit_does_not_replace_a_newer_one(unit):
    for minute, number in ((1, "V1"), (5, None), (3, "V3"), (2, "V2")):
        visit = VisitInput(Identifier(number), {}) if number else None
        unit(send(event("XO", visit=visit), minute))
    (order,) = unit(lambda each: each.orders(Identifier("P1", "OE"), None))
    assert unit(lambda each: each.visit_by_id(order.visit_id)).number == Identifier("V3")


def test_keys_made_here_give_way_to_those_of_a_late_message(unit):
    for minute in (2, 3):
        unit(send(event("XO"), minute))
    unit(send(event(sps_id="S9", accession=Identifier("A9", "RIS")), 1))
    (order,) = unit(lambda each: each.orders(Identifier("P1", "OE"), None))
    (procedure,) = order.procedures
    assert (procedure.accession, procedure.steps[0].sps_id) == (Identifier("A9", "RIS"), "S9")


def test_a_merge_says_which_orders_are_now_the_survivors_so_that_early_messages_may_act(unit):
    unit(send(event(), 1))
    survivor = PatientInput((Identifier("200", "HOSP"),), elements({"PatientID": "200"}))
    outcome = unit(send(PatientMerge(survivor, (Identifier("100", "HOSP"),)), 2))
    assert outcome.created == (Identifier("P1", "OE"),)


def test_one_order_in_three_dialects_is_one_order(unit):
    accession = Identifier("A1", "RIS")
    orm = unit(send(event(accession=accession), 1, "HIS"))
    siu = unit(send(event("XO", placer="", filler=Identifier("F1", "RIS"), accession=accession), 2, "SIU"))
    omi = unit(send(event("XO", filler=Identifier("F1", "RIS")), 3, "RIS"))
    assert orm.orders == siu.orders == omi.orders
    assert orm.created == (Identifier("P1", "OE"),)
    assert siu.created == (Identifier("P1", "OE"), Identifier("F1", "RIS"))  # what came early for F1 may act now
    assert omi.created == ()


def test_orders_with_numbers_of_their_own_may_share_an_accession_number(unit):
    accession = Identifier("A1", "RIS")
    one = unit(send(event(accession=accession, filler=Identifier("F1", "RIS"))))
    two = unit(send(event(placer="", accession=accession, filler=Identifier("F2", "RIS"))))
    assert one.orders != two.orders


def test_an_order_typed_by_hand_becomes_the_one_that_the_ris_sends(unit):
    typed = replace(event(placer="", accession=Identifier("HAND1")), policies=GENERATE)
    (number,) = unit(send(typed, 1, "by hand")).orders

    def mark(each):
        order = each.order(number)
        return each.save_order(replace(order, provisional=True), "typed", AT)

    uid = unit(mark).procedures[0].study_instance_uid
    said = event(study="1.2.3", accession=Identifier("A9", "RIS"), filler=Identifier("F9", "RIS"), step="from the RIS")
    outcome = unit(send(said, 2))
    assert outcome.orders == (number,)
    assert "linked to the order typed by hand" in outcome.notes
    order = unit(lambda each: each.order(number))
    (procedure,) = order.procedures
    assert (order.placer, order.filler, order.by_hand) == (Identifier("P1", "OE"), Identifier("F9", "RIS"), False)
    assert (procedure.study_instance_uid, procedure.accession) == (uid, Identifier("A9", "RIS"))
    assert len(procedure.steps) == 1
    assert text(procedure.steps[0].attributes, FREE["step"]) == "from the RIS"


def test_two_typed_orders_that_would_both_do_are_left_alone(unit):
    for number in ("HAND1", "HAND2"):
        (typed,) = unit(send(event(placer="", accession=Identifier(number)))).orders
        unit(lambda each, typed=typed: each.save_order(replace(each.order(typed), provisional=True), "typed", AT))
    assert unit(send(event())).created
    assert len(unit(lambda each: each.provisional_orders(1))) == 2


def test_a_replaced_order_leaves_the_list_and_its_history_says_by_what(unit):
    unit(send(event()))
    both = [event("RP"), event("RO", placer="P2")]
    outcome = unit(lambda each: apply_events(each, both, UNDER, AT))
    assert [response.control for response in outcome.responses] == [OrderControl.RQ, OrderControl.OK]
    assert [response.order_status for response in outcome.responses] == ["CA", "SC"]
    ((new,),) = (unit(lambda each: each.orders(Identifier("P2", "OE"), None)),)
    history = unit(lambda each: each.step_history(new.procedures[0].steps[0].id))
    assert history[0].cause.endswith("replaces P1")


def test_an_order_in_place_of_one_that_is_not_held_is_not_lost(unit):
    both = [event("RP"), event("RO", placer="P2")]
    outcome = unit(lambda each: apply_events(each, both, UNDER, AT))
    assert outcome.created == (Identifier("P2", "OE"),)
    assert any("no such order is held" in note for note in outcome.notes)


@pytest.mark.parametrize("control", ["OK", "UA", "UC", "RE", "SR"])
def test_answers_and_observations_about_unknown_orders_are_noted_and_create_nobody(unit, control):
    outcome = unit(send(event(control)))
    assert outcome.notes
    assert (outcome.orders, outcome.patients, outcome.created) == ((), (), ())


def test_a_status_request_is_answered_with_the_status(unit):
    unit(send(event(filler=Identifier("F1", "RIS"))))
    (response,) = unit(send(event("SS"))).responses
    assert (response.control, response.filler, response.order_status) == (
        OrderControl.SR, Identifier("F1", "RIS"), "SC"
    )  # fmt: skip


def test_a_patient_who_arrives_makes_scheduled_steps_arrived(unit):
    unit(send(event(), 1))
    unit(send(event(placer="P2"), 1))
    unit(send(event("HD", placer="P2"), 2))
    arrived = PatientUpdate(PatientInput((Identifier("100", "HOSP"),), {}), change=VisitChange.ARRIVE)
    assert len(unit(send(arrived, 3)).orders) == 1
    found = [unit(lambda each, p=p: each.orders(Identifier(p, "OE"), None))[0] for p in ("P1", "P2")]
    assert [order.procedures[0].steps[0].status for order in found] == [SPSStatus.ARRIVED, SPSStatus.HELD]
