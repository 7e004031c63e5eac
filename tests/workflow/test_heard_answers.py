"""What a destination says of an order in its answer to a message of ours goes down the road of a listener."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from roads import AT, Road, opened

from gateway.domain.identifiers import Identifier
from gateway.processing import hear_answer
from gateway.testing import Draft
from gateway.workflow import intake
from gateway.workflow.audience import Audience, PassOnTarget
from gateway.workflow.intake import Feed
from gateway.workflow.ports import MessageSearch, StoredMessage

PERSON = "PID|||77^^^HOSPA||Weide^Wanda||19550505|F"
ORDERED = Draft("ORM^O01", "2.5.1", (
    PERSON, "ORC|SN||F8^RIS||||1^^^20260705093000", "OBR|1||F8^RIS|CTHEAD^CT head^99PROC",
))  # fmt: skip
NUMBERED = "ORC|NA|P8^OE|F8^RIS"


@pytest.fixture
def road(template: Any, tmp_path: Path) -> Iterator[Road]:
    yield from opened(template, tmp_path)


@pytest.fixture
def placers(road: Road) -> Callable[[], list[str]]:
    """The placer's numbers of the order whose filler's number is F8."""
    road.accepted(ORDERED)

    def found() -> list[str]:
        orders = road.store.reader.orders(None, Identifier("F8", "RIS"))
        return [order.placer.value if order.placer else "" for order in orders]

    assert found() == [""]
    return found


def answer(*segments: str, kind: str = "ORR^O02", control_id: str = "A1") -> bytes:
    return Draft(kind, "2.5.1", ("MSA|AA|M1", *segments)).message(control_id, AT)


def hear(road: Road, data: bytes, *feeds: Feed) -> None:
    road.store.write(lambda unit: hear_answer(unit, feeds or (road.feed,), "ris", data, AT)).result()


def kept(road: Road) -> list[StoredMessage]:
    """What the archive has besides the order."""
    return list(road.store.reader.find_messages(MessageSearch(), 10))[:-1]


@pytest.mark.parametrize("kind", ["ORR^O02", "ORG^O20", "ORI^O24"])
def test_the_placers_number_is_kept_and_nobody_is_answered(
    road: Road, placers: Callable[[], list[str]], kind: str
) -> None:
    hear(road, answer(NUMBERED, kind=kind))
    assert placers() == ["P8"]
    (message,) = kept(road)
    assert (message.record.peer, message.record.disposition, message.record.answer) == ("ris", "accepted", b"")


def test_a_repeat_changes_nothing(road: Road, placers: Callable[[], list[str]]) -> None:
    for control_id in ("A1", "A1", "A2"):
        hear(road, answer(NUMBERED, control_id=control_id))
    assert placers() == ["P8"]
    assert [each.record.control_id for each in kept(road)] == ["A2", "A1"]


@pytest.mark.parametrize(
    "data",
    [b"OK", b"", answer(), answer("ORC|OK|P9^OE|F8^RIS"), answer("ORC|NA||"), answer(NUMBERED, kind="ACK"),
     answer(NUMBERED, kind="ORM^O01")],
)  # fmt: skip
def test_what_says_nothing_of_a_number_is_left_alone(road: Road, placers: Callable[[], list[str]], data: bytes) -> None:
    hear(road, data)
    assert placers() == [""]
    assert kept(road) == []


def test_what_cannot_be_taken_is_in_the_archive_with_its_reason(road: Road, placers: Callable[[], list[str]]) -> None:
    hear(road, answer(NUMBERED, "ORC|ZZ|P9^OE|F9^RIS"))
    assert placers() == [""]
    (message,) = kept(road)
    assert message.record.disposition == "refused"
    assert "'ZZ' is not taken here" in message.record.reasons


def test_a_defect_of_ours_does_not_reach_whoever_settles_the_message(
    road: Road, placers: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise RuntimeError("defect")

    monkeypatch.setattr(intake, "receive", fails)
    hear(road, answer(NUMBERED))
    assert (placers(), kept(road)) == ([""], [])


def test_it_is_read_as_the_listener_reads_that_belongs_to_the_destination_or_takes_the_sender(
    road: Road, placers: Callable[[], list[str]]
) -> None:
    stranger = replace(road.feed, name="stranger", senders=frozenset({"SOMEBODY"}))
    own = replace(road.feed, name="own", acknowledge_to="ris")
    hear(road, answer(NUMBERED), stranger)
    assert placers() == [""]
    hear(road, answer(NUMBERED), stranger, road.feed, own)
    assert [each.record.listener for each in kept(road)] == ["own"]
    hear(road, answer("ORC|UA|P8^OE|F8^RIS", control_id="A2"), stranger, road.feed)
    assert [each.record.listener for each in kept(road)] == ["ris", "own"]


def test_it_is_not_passed_on(road: Road, placers: Callable[[], list[str]]) -> None:
    audience = Audience(passed_on=(PassOnTarget("ehr", None),))
    hear(road, answer(NUMBERED), replace(road.feed, audience=audience, acknowledge_to="ris"))
    assert placers() == ["P8"]
    assert road.store.reader.deliveries(10) == []
