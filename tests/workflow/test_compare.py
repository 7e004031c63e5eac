"""What two mappings make of one message, compared, and summed over many."""

import pickle

from gateway.domain.attributes import TAG, element
from gateway.domain.identifiers import Identifier
from gateway.domain.mapping import MappingResult
from gateway.domain.order import OrderControl, OrderEvent, Policy, ProcedureInput, StepInput
from gateway.domain.patient import PatientInput
from gateway.domain.refusal import Refusal, RefusalKind
from gateway.workflow.compare import EXAMPLES_MAX, Comparison, changes

REFUSED = MappingResult(refusals=(Refusal(RefusalKind.MISSING_FIELD, "PID-3", "there is no patient identifier"),))


def attributes(**said):
    return {TAG[keyword]: element(keyword, value) for keyword, value in said.items()}


def result(placer="P1", patient=None, procedure=None, steps=({},), policies=None):
    return MappingResult((
        OrderEvent(
            OrderControl.NW, "", Identifier(placer), None,
            PatientInput((Identifier("100", "A"),), attributes(**(patient or {}))), None, {},
            (ProcedureInput("", "", None, attributes(**(procedure or {})),
                            tuple(StepInput("", attributes(**step)) for step in steps)),),
            policies or {},
        ),
    ))  # fmt: skip


def test_equal_results_have_no_changes():
    assert changes(result(), result()) == []


def test_a_change_names_attribute_order_old_and_new():
    (change,) = changes(result(patient={"PatientSex": "F"}), result(patient={"PatientSex": "O"}))
    assert (change.attribute, change.subject, change.old, change.new) == ("PatientSex", "P1", "F", "O")


def test_what_is_no_longer_given_is_none():
    (change,) = changes(result(steps=({"Modality": "CT"},)), result())
    assert (change.attribute, change.old, change.new) == (">Modality", "CT", None)


def test_another_number_of_steps_is_told():
    found = changes(result(), result(steps=({}, {"Modality": "US"})))
    assert ("number of steps", "1", "2") in {(each.attribute, each.old, each.new) for each in found}


def test_a_change_of_policy_alone_is_a_change():
    (change,) = changes(result(), result(policies={"AccessionNumber": Policy("generate")}))
    assert change.attribute == "policy for lacking keys"


def test_a_sum_counts_messages_orders_and_reasons():
    comparison = Comparison()
    for number in range(1, 4):
        placer = f"P{number % 2}"
        comparison.note(number, result(placer), result(placer, procedure={"RequestedProcedureDescription": "CT"}))
    comparison.note(4, result(), result())
    comparison.note(5, result(), REFUSED)
    comparison.note(6, REFUSED, result())
    comparison.note(7, REFUSED, REFUSED)
    assert (comparison.messages, comparison.changed, comparison.same, comparison.refused_by_both) == (7, 3, 1, 1)
    tally = comparison.attributes["RequestedProcedureDescription"]
    assert (tally.examples.messages, len(tally.orders)) == (3, 2)
    assert list(comparison.newly_refused) == ["missing field at PID-3"]
    assert list(comparison.newly_accepted) == ["missing field at PID-3"]
    assert not comparison.nothing_changes


def test_examples_are_bounded_and_all_different():
    comparison = Comparison()
    for number in range(100):
        comparison.note(number, result(), result(patient={"PatientComments": f"c{number % 50}"}))
    shown = comparison.attributes["PatientComments"].examples.shown
    assert len(shown) == EXAMPLES_MAX
    assert comparison.attributes["PatientComments"].examples.messages == 100


def test_sums_of_parts_are_the_sum_of_the_whole_and_travel_between_processes():
    pairs = [(result(f"P{n}"), result(f"P{n}", patient={"PatientSex": "F"})) for n in range(4)]
    pairs += [(result(), REFUSED), (REFUSED, result())]
    whole, one, two = Comparison(), Comparison(), Comparison()
    for number, pair in enumerate(pairs):
        whole.note(number, *pair)
        (one if number % 2 else two).note(number, *pair)
    one.add(pickle.loads(pickle.dumps(two)))  # noqa: S301  (our own)
    assert one == whole
