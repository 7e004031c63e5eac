"""The worklist's answers: turns for others, what left the list meanwhile, one bad item among good ones."""

import pytest

from gateway.domain.attributes import SPS_SEQUENCE, TAG, element
from gateway.domain.devices import Device, Sees
from gateway.domain.worklist import SPSStatus, WorklistItem
from gateway.wire.dicom_json import write_attributes
from gateway.wire.dimse import Status
from gateway.workflow.query import CHUNK, IDENTIFIER_BYTES_MAX, Worklist

SYNTAX = "1.2.840.10008.1.2.1"


class AwayError(Exception):
    """What the reader raises when it cannot read."""


class Shelf:
    """A reader over items in memory."""

    def __init__(self, *items):
        self.held = {item.step_id: item for item in items}
        self.away = False

    def candidates(self, narrowing):
        if self.away:
            raise AwayError
        return [(item.step_id, item.revision) for item in self.held.values() if item.status in narrowing.statuses]

    def items(self, step_ids):
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


EVERYBODY = identifier(PatientName="", PatientWeight="")


def answers(shelf, data=EVERYBODY, sees=Sees.ALL, **more):
    told = list(Worklist(shelf, AwayError, **more).answer(Device("CT1", sees=sees), SYNTAX, data))
    return [answer for answer in told if answer is not None]


def matches(shelf, *arguments, **more):
    return len([answer for answer in answers(shelf, *arguments, **more) if answer.is_pending])


def test_a_query_that_finds_nothing_gives_others_their_turn_all_the_time():
    shelf = Shelf(*(item(number) for number in range(10 * CHUNK)))
    nobody = identifier(PatientName={"Alphabetic": "*zzz*"})
    told = list(Worklist(shelf, AwayError).answer(Device("CT1"), SYNTAX, nobody))
    assert told[:-1] == [None] * 10
    assert told[-1].status == Status.SUCCESS


def test_what_leaves_the_list_during_an_answer_is_not_sent():
    shelf = Shelf(*(item(number) for number in range(2 * CHUNK)))
    answering = Worklist(shelf, AwayError).answer(Device("CT1"), SYNTAX, EVERYBODY)
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
    assert matches(Shelf(item(1), item(2, "MR1")), EVERYBODY, sees) == expected


def test_a_changed_item_is_answered_as_it_is_now():
    shelf = Shelf(item(1))
    worklist = Worklist(shelf, AwayError)
    (first, *_) = worklist.answer(Device("CT1"), SYNTAX, EVERYBODY)
    shelf.held[1] = item(1, weight="71", revision=2)
    (second, *_) = worklist.answer(Device("CT1"), SYNTAX, EVERYBODY)
    assert b"70" in first.identifier
    assert b"71" in second.identifier
