"""The worklist's answers: turns for others, what left the list meanwhile, one bad item among good ones."""

import gc
from datetime import date

import pytest

from gateway.domain.attributes import SPS_SEQUENCE, TAG, element
from gateway.domain.devices import PLAIN, Device, Devices, Profile, Sees, WhenMore
from gateway.domain.worklist import SPSStatus, WorklistItem
from gateway.wire.dicom_json import write_attributes
from gateway.wire.dimse import FindAnswers, Status
from gateway.wire.worklist_dataset import PreparedQuery
from gateway.workflow import query
from gateway.workflow.query import CHUNK, IDENTIFIER_BYTES_MAX, Worklist, caller_of

SYNTAX = "1.2.840.10008.1.2.1"


class AwayError(Exception):
    """What the reader raises when it cannot read."""


class Shelf:
    """A reader over items in memory."""

    def __init__(self, *items):
        self.held = {item.step_id: item for item in items}
        self.away = False
        self.read = []

    def candidates(self, narrowing):
        if self.away:
            raise AwayError
        return [(item.step_id, item.revision) for item in self.held.values() if item.status in narrowing.statuses]

    def items(self, step_ids):
        self.read += step_ids
        return [self.held[step_id] for step_id in step_ids if step_id in self.held]


def item(number, station="CT1", status=SPSStatus.SCHEDULED, **changes):
    step = {TAG["ScheduledStationAETitle"]: element("ScheduledStationAETitle", station)}
    attributes = {
        TAG["PatientName"]: element("PatientName", {"Alphabetic": f"Doe^{number}"}),
        TAG["PatientWeight"]: element("PatientWeight", changes.get("weight", "70")),
        SPS_SEQUENCE: {"vr": "SQ", "Value": [step]},
    }
    return WorklistItem(number, changes.get("revision", 1), status, attributes)


def identifier(**keys):
    asked = {TAG[keyword]: element(keyword, *([value] if value else [])) for keyword, value in keys.items()}
    return write_attributes(dict(sorted(asked.items())), SYNTAX, ())


def caller(profile=PLAIN, negotiation=b""):
    devices = Devices.of([Device("CT1", profile=profile)], accept_unknown=False)
    found = caller_of(devices, "CT1", "GATEWAY", negotiation, None, date(2026, 7, 5))
    assert found is not None
    return found


CT1 = caller()
EVERYBODY = identifier(PatientName="", PatientWeight="")


def each(parts):
    """The answers one by one, kept lists taken apart."""
    for part in parts:
        if isinstance(part, FindAnswers):
            yield from part
        elif part is not None:
            yield part


def answers(shelf, data=EVERYBODY, asker=CT1, **more):
    told = list(Worklist(shelf, AwayError, **more).answer(asker, SYNTAX, data))
    return [answer for answer in told if answer is not None]


def matches(shelf, *arguments, **more):
    return len([answer for answer in answers(shelf, *arguments, **more) if answer.is_pending])


def test_a_query_that_finds_nothing_gives_others_their_turn_all_the_time():
    shelf = Shelf(*(item(number) for number in range(10 * CHUNK)))
    nobody = identifier(PatientName={"Alphabetic": "*zzz*"})
    told = list(Worklist(shelf, AwayError).answer(CT1, SYNTAX, nobody))
    assert told[:-1] == [None] * 10
    assert told[-1].status == Status.SUCCESS


def test_a_query_of_thousands_of_keys_gives_others_their_turn_after_each_item():
    shelf = Shelf(*(item(number) for number in range(5)))
    wanted = "\\".join(f"N{number}" for number in range(1_000))
    told = list(Worklist(shelf, AwayError).answer(CT1, SYNTAX, identifier(AccessionNumber=wanted)))
    assert told[:-1] == [None] * 5


def test_what_leaves_the_list_during_an_answer_is_not_sent():
    shelf = Shelf(*(item(number) for number in range(2 * CHUNK)))
    answering = Worklist(shelf, AwayError).answer(CT1, SYNTAX, EVERYBODY)
    assert next(answering).is_pending
    late = 2 * CHUNK - 1
    shelf.held[late] = item(late, status=SPSStatus.CANCELED, revision=2)
    assert len([answer for answer in answering if answer is not None and answer.is_pending]) == 2 * CHUNK - 2


def test_one_item_that_cannot_be_written_is_left_out_and_told():
    left_out = []
    shelf = Shelf(item(1), item(2, weight={"no": "text"}), item(3))
    shelf.held[2].attributes[TAG["PatientWeight"]] = {"vr": "DS", "Value": 5}
    assert matches(shelf, left_out=lambda step_id, reason: left_out.append(step_id)) == 2
    assert left_out == [2]


def test_a_store_that_cannot_be_read_is_out_of_resources():
    shelf = Shelf(item(1))
    shelf.away = True
    assert [answer.status for answer in answers(shelf)] == [Status.OUT_OF_RESOURCES]


def test_an_identifier_beyond_reason_is_not_read():
    assert [answer.status for answer in answers(Shelf(), b"\0" * (IDENTIFIER_BYTES_MAX + 1))] == [
        Status.OUT_OF_RESOURCES
    ]


@pytest.mark.parametrize(("sees", "expected"), [(Sees.ALL, 2), (Sees.OWN, 1)])
def test_a_device_sees_all_steps_or_its_own(sees, expected):
    assert matches(Shelf(item(1), item(2, "MR1")), EVERYBODY, caller(Profile(sees=sees))) == expected


def test_a_changed_item_is_answered_as_it_is_now():
    shelf = Shelf(item(1))
    worklist = Worklist(shelf, AwayError)
    (first, *_) = worklist.answer(CT1, SYNTAX, EVERYBODY)
    shelf.held[1] = item(1, weight="71", revision=2)
    (second, *_) = worklist.answer(CT1, SYNTAX, EVERYBODY)
    assert b"70" in first.identifier
    assert b"71" in second.identifier


@pytest.mark.parametrize(
    ("held", "when_more", "expected"),
    [
        (2, WhenMore.FAILURE, [Status.PENDING] * 2 + [Status.SUCCESS]),
        (3, WhenMore.FAILURE, [Status.PENDING] * 2 + [Status.OUT_OF_RESOURCES]),
        (3, WhenMore.SUCCESS, [Status.PENDING] * 2 + [Status.SUCCESS]),
    ],
)
@pytest.mark.parametrize("asked", [1, 2])
def test_an_answer_is_cut_before_the_item_that_is_too_many(held, when_more, expected, asked):
    worklist = Worklist(Shelf(*(item(number) for number in range(held))), AwayError)
    asker = caller(Profile(answers_max=2, when_more=when_more))
    for _ in range(asked):  # also from the list kept
        told = [answer.status for answer in each(worklist.answer(asker, SYNTAX, EVERYBODY))]
    assert told == expected


def test_a_list_that_did_not_change_is_answered_without_looking_at_its_items():
    shelf = Shelf(item(1), item(2))
    worklist = Worklist(shelf, AwayError)
    first = list(each(worklist.answer(CT1, SYNTAX, EVERYBODY)))
    worklist._items.clear()  # what is read again would show
    shelf.read.clear()
    assert list(each(worklist.answer(CT1, SYNTAX, EVERYBODY))) == first
    assert shelf.read == []


def test_a_list_with_a_new_item_is_answered_with_it():
    shelf = Shelf(item(1))
    worklist = Worklist(shelf, AwayError)
    assert [answer.status for answer in each(worklist.answer(CT1, SYNTAX, EVERYBODY))].count(Status.PENDING) == 1
    shelf.held[2] = item(2)
    assert [answer.status for answer in each(worklist.answer(CT1, SYNTAX, EVERYBODY))].count(Status.PENDING) == 2


def test_two_views_of_one_query_are_two_lists():
    worklist = Worklist(Shelf(item(1), item(2, "MR1")), AwayError)
    own = caller(Profile(sees=Sees.OWN))
    for asker, expected in ((CT1, 2), (own, 1), (CT1, 2), (own, 1)):
        told = [answer.status for answer in each(worklist.answer(asker, SYNTAX, EVERYBODY))]
        assert told.count(Status.PENDING) == expected


def test_an_unknown_caller_or_worklist_is_nobody():
    devices = Devices.of([Device("CT1")], accept_unknown=False)
    assert caller_of(devices, "CT2", "GATEWAY", b"", None, date(2026, 7, 5)) is None


@pytest.mark.parametrize(
    ("offered", "fuzzy", "timezone"),
    [
        (b"", False, False),
        (b"\1\1\1", True, False),
        (b"\1\1\0\1", False, True),
        (b"\1\1\1\1", True, True),
        (b"\1", False, False),
    ],
)
def test_the_rules_are_those_negotiated(offered, fuzzy, timezone):
    rules = caller(negotiation=offered).rules
    assert (rules.fuzzy_names, rules.timezone_adjusted) == (fuzzy, timezone)


def test_a_kept_list_is_told_in_portions_of_one_status(monkeypatch):
    monkeypatch.setattr(query, "TOGETHER_BYTES_MAX", 200)
    shelf = Shelf(*(item(number) for number in range(1, 12)))
    worklist = Worklist(shelf, AwayError)
    alone = list(each(worklist.answer(CT1, SYNTAX, EVERYBODY)))
    portions = [part for part in worklist.answer(CT1, SYNTAX, EVERYBODY) if isinstance(part, FindAnswers)]
    assert len(portions) > 1
    assert all(sum(map(len, portion.identifiers)) <= 200 for portion in portions)
    assert [*each(portions), alone[-1]] == alone


def test_queries_that_are_asked_once_are_not_kept_for_ever(monkeypatch):
    monkeypatch.setattr(query, "LISTS_BYTES_MAX", 1_000_000)
    worklist = Worklist(Shelf(), AwayError)

    def kept():
        gc.collect()
        return sum(type(each) is PreparedQuery for each in gc.get_objects())

    before = kept()
    for number in range(100):
        wanted = "\\".join(f"{number}-{other}" for other in range(300))
        list(worklist.answer(CT1, SYNTAX, identifier(AccessionNumber=wanted)))
    assert kept() - before < 50
