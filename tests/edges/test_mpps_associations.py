"""MPPS over associations that do not go as planned: requests sent ahead, left without answer, or without a data set.

The listener is the real one, and so is the store behind it.
"""

import asyncio
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest
from dimse_peers import RELEASE_RQ, WAIT_S, CannedService, RudePeer, Running, Serve, message_pdus
from pydicom.dataset import Dataset

from gateway.config import Site, load_site
from gateway.domain.devices import Device
from gateway.domain.performed import MPPSState, Operation
from gateway.edges.dimse_server import Association, NAnswer
from gateway.edges.store import Store
from gateway.processing import report_performed
from gateway.testing import invented_person, site
from gateway.testing.load import encode_association, encode_create, encode_set
from gateway.testing.modality import final_state, performed_step
from gateway.wire.upper_layer import MPPS
from gateway.workflow.performed_request import PerformRequest

UID = "2.25.7"
AT = datetime(2026, 7, 5, 9, 30)
N_SET, N_CREATE = 0x0120, 0x0140
ABORT = bytes((7, 0, 0, 0, 0, 4, 0, 0, 0, 0))


class Storing(CannedService):
    """Stores what modalities report; the answer leaves when it may."""

    def __init__(self, loaded: Site, store: Store) -> None:
        super().__init__()
        self._loaded, self._store = loaded, store

    async def create(
        self, association: Association, transfer_syntax: str, sop_instance_uid: str | None, dataset: bytes
    ) -> NAnswer:
        return await self._store_it(Operation.CREATE, association, transfer_syntax, sop_instance_uid or "", dataset)

    async def set(
        self, association: Association, transfer_syntax: str, sop_instance_uid: str, dataset: bytes
    ) -> NAnswer:
        return await self._store_it(Operation.SET, association, transfer_syntax, sop_instance_uid, dataset)

    async def _store_it(
        self, operation: Operation, association: Association, syntax: str, uid: str, dataset: bytes
    ) -> NAnswer:
        caller = association.calling_ae_title
        request = PerformRequest(uid, caller, syntax, dataset)
        answer = await report_performed(self._store, self._loaded, operation, request, Device(caller))
        self.entered.set()
        if self.may_finish is not None:
            await self.may_finish.wait()
        return answer


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(f"sqlite:///{tmp_path / 'gateway.db'}", zone="Europe/Berlin") as opened:
        yield opened


@pytest.fixture
def running(serve: Serve, tmp_path: Path, store: Store) -> Running:
    return serve(Storing(load_site(site(tmp_path)), store))


def created() -> Dataset:
    person, item, step = invented_person(1), Dataset(), Dataset()
    item.StudyInstanceUID, item.PatientID, item.PatientName = "2.25.100", person.patient_id, person.name
    step.ScheduledProcedureStepID, step.Modality = "S1", "CT"
    item.ScheduledProcedureStepSequence = [step]
    return performed_step(item, "CT1", AT)


def numbered(message_id: int, request: bytes) -> bytes:
    """The request under this Message ID (0000,0110), which is 1 as it was made."""
    return request.replace(b"\0\0\x10\1\2\0\0\0\1\0", b"\0\0\x10\1\2\0\0\0" + bytes((message_id, 0)), 1)


CREATE = encode_create(UID, created())
BETWEEN = encode_set(UID, final_state("IN PROGRESS", AT))
COMPLETE = encode_set(UID, final_state("COMPLETED", AT))


def answered(running: Running, *requests: bytes) -> list[int]:
    """The statuses of requests that are all sent ahead, in one association."""
    with RudePeer(running.port) as peer:
        peer.send(encode_association("CT1"))
        assert peer.pdu()[0] == 2
        peer.send(b"".join(numbered(number, request) for number, request in enumerate(requests, 1)))
        found = [status for _, (_, status) in zip(requests, peer.responses(), strict=False)]
        peer.send(RELEASE_RQ)
    return found


def test_requests_sent_ahead_are_answered_in_the_order_they_came(running: Running, store: Store) -> None:
    assert answered(running, BETWEEN, CREATE, BETWEEN, CREATE, COMPLETE, COMPLETE) == [
        0x0112, 0x0000, 0x0000, 0x0111, 0x0000, 0x0110,
    ]  # fmt: skip
    held = store.reader.performed_step(UID)
    assert held is not None
    assert held.state is MPPSState.COMPLETED


def test_a_message_id_that_is_in_use_is_refused_and_the_others_are_served(running: Running) -> None:
    with RudePeer(running.port) as peer:
        peer.send(encode_association("CT1"))
        assert peer.pdu()[0] == 2
        peer.send(CREATE + BETWEEN + numbered(2, COMPLETE))
        assert sorted(peer.statuses(3)) == [(1, 0x0000), (1, 0x0210), (2, 0x0000)]


@pytest.mark.parametrize("way", ["abort", "lost connection"])
def test_what_was_stored_before_an_association_broke_stays_and_its_repeat_says_so(
    running: Running, store: Store, way: str
) -> None:
    service = running.service
    assert answered(running, encode_create("2.25.8", created())) == [0x0000]
    for request, again, comes_again in ((CREATE, CREATE, 0x0111), (COMPLETE, COMPLETE, 0x0110)):
        service.entered.clear()
        service.may_finish = asyncio.Event()
        with RudePeer(running.port) as peer:
            peer.send(encode_association("CT1"))
            assert peer.pdu()[0] == 2
            running.events.clear()
            peer.send(request)
            assert service.entered.wait(WAIT_S)
            if way == "abort":
                peer.send(ABORT)
        running.seen("association_aborted", by="peer")
        running.loop.call_soon_threadsafe(service.may_finish.set)
        running.seen("request_done", status=0)
        service.may_finish = None
        assert answered(running, again) == [comes_again]
    held = store.reader.performed_step(UID)
    assert held is not None
    assert held.state is MPPSState.COMPLETED
    assert [each.status for each in store.reader.performed_requests(UID)] == [0, 0x0111, 0, 0x0110]
    running.until(lambda: running.server.associations == 0)


def test_what_still_waits_when_its_association_breaks_is_not_done(running: Running, store: Store) -> None:
    """Nobody was answered, so the modality knows that it has to say it again."""
    service = running.service
    service.may_finish = asyncio.Event()
    with RudePeer(running.port) as peer:
        peer.send(encode_association("CT1"))
        assert peer.pdu()[0] == 2
        peer.send(CREATE + numbered(2, COMPLETE))
        assert service.entered.wait(WAIT_S)
    running.seen("association_aborted", by="peer")
    running.loop.call_soon_threadsafe(service.may_finish.set)
    running.seen("request_done", status=0)
    held = store.reader.performed_step(UID)
    assert held is not None
    assert held.state is MPPSState.IN_PROGRESS
    service.may_finish = None
    assert answered(running, COMPLETE) == [0x0000]


def test_requests_without_a_data_set_are_answered_by_what_they_lack(running: Running) -> None:
    bare_create = message_pdus(3, N_CREATE, MPPS, dataset=None)
    bare_set = message_pdus(3, N_SET, MPPS, dataset=None)
    assert answered(running, bare_create, bare_set) == [0x0120, 0x0112]
    assert answered(running, encode_create("1.2.3", created()), bare_set) == [0x0000, 0x0000]
    assert answered(running, encode_set("1.2.3", final_state("COMPLETED", AT)), bare_set) == [0x0000, 0x0110]
