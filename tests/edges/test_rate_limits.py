"""How much one peer may ask for: more associations and queries are refused in the protocol's words, messages wait."""

import asyncio

import pytest
from access_peers import associated, logged, metric, rejection, secured, until
from hl7_service import orm
from pydicom.dataset import Dataset
from pynetdicom.sop_class import ModalityWorklistInformationFind
from test_bound_senders import codes, exchanged, listeners

from gateway.answering import Answering
from gateway.config import load_site
from gateway.domain.rates import BURST_MIN
from gateway.edges.metrics import Tally
from gateway.edges.mllp import Peer
from gateway.receiving import Receiving
from gateway.testing import site
from gateway.wire.er7 import parse
from gateway.workflow.intake import Receipt

SELDOM = 0.001  # a second: nothing comes back within any test


def test_more_associations_of_one_ae_title_are_told_to_come_later_and_others_are_served(tmp_path):
    entries = [{"ae_title": "CT1", "addresses": ["127.0.0.1"]}, {"ae_title": "CT2"}]
    with secured(tmp_path, entries, limits={"associations_per_s": SELDOM}) as service:
        stolen = [rejection(service, "CT1", source="127.0.0.2") for _ in range(BURST_MIN + 1)]
        assert set(stolen) == {(1, 1, 3)}
        assert [rejection(service, "CT1") for _ in range(BURST_MIN + 2)] == [None] * BURST_MIN + [(2, 3, 2)] * 2
        assert rejection(service, "CT2") is None
        until(lambda: metric(service, 'gateway_callers_denied_total{reason="rate"}') == 2, service)

        def too_often():
            return [each["calling_ae_title"] for each in logged(service, "caller_denied") if each["reason"] == "rate"]

        until(lambda: too_often() == ["CT1"] * 2, service)


def test_more_queries_end_with_out_of_resources_and_the_association_goes_on(tmp_path):
    query = Dataset()
    query.PatientID = ""

    def find(association):
        return [status for status, _ in association.send_c_find(query, ModalityWorklistInformationFind)][-1].Status

    entries = [{"ae_title": "CT1"}, {"ae_title": "CT2"}]
    with (
        secured(tmp_path, entries, limits={"queries_per_s": SELDOM}) as service,
        associated(service, "CT1") as association,
        associated(service, "CT2") as other,
    ):
        assert [find(association) for _ in range(BURST_MIN + 2)] == [0] * BURST_MIN + [0xA700] * 2
        assert find(other) == 0
        assert association.send_c_echo().Status == 0


class Road:
    """Takes every message, at once."""

    failing = False

    def __init__(self):
        self.taken = []

    async def process(self, listener, raw, peer, barred=()):
        self.taken.append(raw)
        return Receipt(b"MSH|", "accepted")


def receiving(folder, per_s, processes=1):
    loaded = load_site(site(folder, limits={"messages_per_s": per_s}))
    road = Road()
    made = Receiving(loaded.settings.hl7, road, Tally(), processes)
    made.serve(loaded.settings)
    return made, road


def test_messages_beyond_the_rate_wait_and_others_do_not(tmp_path):
    async def scene():
        made, road = receiving(tmp_path, SELDOM)
        receive = made._receiver("ris")
        for number in range(BURST_MIN):
            await receive(orm(f"C{number}", "1"), Peer("ris", "10.0.0.1", 1, 1))
        late = asyncio.create_task(receive(orm("LATE", "1"), Peer("ris", "10.0.0.1", 2, 2)))
        await receive(orm("OTHER", "1"), Peer("ris", "10.0.0.2", 1, 3))
        assert [parse(raw).control_id for raw in road.taken][-1] == "OTHER"
        assert not late.done()
        await made.stop()  # what has come is worked on, whoever has to wait
        assert (await late).stored
        assert [parse(raw).control_id for raw in road.taken][-1] == "LATE"

    asyncio.run(scene())


def test_with_workers_one_connection_may_bring_all_that_its_sender_may(tmp_path):
    made, _ = receiving(tmp_path, 100, processes=4)
    assert made._rates.per_s == 100


def test_with_workers_one_association_may_ask_all_that_its_device_may_and_associations_are_shared(tmp_path):
    loaded = load_site(site(tmp_path, limits={"queries_per_s": 100, "associations_per_s": 100}))
    asked = Answering(loaded, None, None, lambda _: None, processes=4)
    assert (asked._queries.per_s, asked._associations.per_s) == (100, 25)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_sender_that_runs_ahead_loses_nothing(tmp_path, workers):
    count = BURST_MIN + 8
    with secured(tmp_path, [], hl7=listeners(), limits={"messages_per_s": 5}, workers=workers) as service:
        answers = asyncio.run(exchanged(service.hl7_port, [orm(f"C{each}", f"{each + 1}") for each in range(count)]))
    assert codes(map(parse, answers)) == ["AA"] * count
