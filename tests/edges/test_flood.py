"""However often strangers are refused, the log has few lines of it, and the metrics every one."""

import asyncio

import pytest
from access_peers import ELSEWHERE, OWN, logged, metric, rejection, secured, until
from hl7_service import orm
from structlog.testing import capture_logs
from test_bound_senders import BOUND, exchanged, listeners

from gateway.edges import flood
from gateway.edges.flood import TOLD_ONE_BY_ONE, Flood

MANY = TOLD_ONE_BY_ONE + 5


def test_each_reason_has_lines_of_its_own_and_then_a_number_and_then_begins_anew(monkeypatch):
    monkeypatch.setattr(flood, "TOLD_EVERY_S", 0.01)

    async def scene():
        more = []
        done = asyncio.Event()
        told = Flood(lambda *said: (more.append(said), done.set()))
        assert [told.lets("denied", "address") for _ in range(MANY)] == [True] * TOLD_ONE_BY_ONE + [False] * 5
        assert told.lets("denied", "plain")
        assert told.lets("rejected", "address")
        await asyncio.wait_for(done.wait(), 20)
        assert more == [("denied", "address", 5)]
        assert told.lets("denied", "address")
        told.flush()
        assert len(more) == 1

    asyncio.run(scene())


def test_the_number_is_one_line():
    with capture_logs() as said:
        flood.log_more("caller_denied", "address", 7)
    assert said == [
        {"event": "refusals_not_told", "of": "caller_denied", "reason": "address", "more": 7, "log_level": "warning"}
    ]


def lines(service, event):
    return len(logged(service, event))


def more(service, event):
    return sum(each["more"] for each in logged(service, "refusals_not_told") if each["of"] == event)


def test_a_flood_of_associations_is_told_in_few_lines_and_counted_one_by_one(tmp_path):
    with secured(tmp_path, [{"ae_title": "CT1"}]) as service:
        for _ in range(MANY):
            assert rejection(service, "STRANGER") == (1, 1, 3)
        counted = 'gateway_callers_denied_total{reason="calling_unknown"}'
        until(lambda: metric(service, counted) == MANY, service)
        assert rejection(service, "CT1") is None
    for event in ("caller_denied", "association_rejected"):
        assert lines(service, event) < MANY
        assert lines(service, event) + more(service, event) == MANY


@pytest.mark.parametrize(("access", "event", "reason"), [
    ({"addresses": [OWN]}, "mllp_caller_denied", "address"),
    ({"bound_senders": BOUND}, "sender_denied", "sender"),
])  # fmt: skip
def test_a_flood_of_senders_is_told_in_few_lines_and_counted_one_by_one(tmp_path, access, event, reason):
    with secured(tmp_path, [], hl7=listeners(**access)) as service:
        for number in range(MANY):
            asyncio.run(exchanged(service.hl7_port, [orm(f"C{number}", "1")], ELSEWHERE))
        counted = f'gateway_callers_denied_total{{reason="{reason}"}}'
        until(lambda: metric(service, counted) == MANY, service)
    assert lines(service, event) < MANY
    assert lines(service, event) + more(service, event) == MANY
