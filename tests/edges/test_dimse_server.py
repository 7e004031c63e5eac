"""The DICOM listener over real sockets: pynetdicom and DCMTK as users, and raw bytes as the rude peer."""

import asyncio
import contextlib
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uvloop
from dimse_peers import (
    FIND,
    MARK,
    RELEASE_RP,
    RELEASE_RQ,
    WAIT_S,
    CannedService,
    RudePeer,
    Serve,
    associated,
    identifier,
    item,
    keys,
    message_pdus,
    request_pdu,
)
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.dsutils import encode
from pynetdicom.pdu import A_ASSOCIATE_AC, A_ASSOCIATE_RJ

from gateway.edges.dimse_server import REQUESTS_WAITING_MAX, Association, FindAnswer, Limits, NAnswer
from gateway.wire.upper_layer import (
    INSTANCE_AVAILABILITY,
    MODALITY_WORKLIST,
    MPPS,
    MPPS_RETRIEVE,
    VERIFICATION,
    data_pdus,
)

# Users


@pytest.mark.parametrize("new_loop", [uvloop.new_event_loop, asyncio.new_event_loop])
@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_a_query_is_answered_in_the_negotiated_transfer_syntax(
    serve: Serve, syntax: str, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    running = serve(new_loop=new_loop)
    with associated(running, syntaxes=syntax) as association:
        assert association.send_c_echo().Status == 0
        answers = list(association.send_c_find(keys(), MODALITY_WORKLIST))
    assert [status.Status for status, _ in answers] == [0xFF00] * 3 + [0]
    assert [found for _, found in answers] == [item(0), item(1), item(2), None]
    assert running.service.queries[0].PatientName == "*"
    done = running.seen("request_done", operation="C-FIND")
    assert (done["calling_ae_title"], done["status"], done["matches"]) == ("CT1", 0, 3)
    assert running.seen("association_closed")["requests"] == 2


def test_create_and_set_reach_the_service_and_their_answers_the_user(serve: Serve) -> None:
    running = serve()
    with associated(running, MPPS) as association:
        status, _ = association.send_n_create(item(1), MPPS, "1.2.3.4")
        assert status.Status == 0
        running.service.answer = NAnswer(0x0110, "may no longer be updated", 0xA710)
        status, _ = association.send_n_set(item(2), MPPS, "1.2.3.4")
    assert (status.Status, status.ErrorID, status.ErrorComment) == (0x0110, 0xA710, "may no longer be updated")
    syntax = ImplicitVRLittleEndian
    assert running.service.changes == [
        ("create", "1.2.3.4", identifier(1, syntax)),
        ("set", "1.2.3.4", identifier(2, syntax)),
    ]


def test_get_and_availability_reach_the_service(serve: Serve) -> None:
    running = serve()
    with associated(running, MPPS_RETRIEVE, INSTANCE_AVAILABILITY) as association:
        running.service.answer = NAnswer(0, dataset=identifier(3, ImplicitVRLittleEndian))
        assert association.send_n_get([0x00100010, 0x00400252], MPPS_RETRIEVE, "1.2.3.4")[1] == item(3)
        association.send_n_get([], MPPS_RETRIEVE, "1.2.3.4")
        running.service.answer = NAnswer(0)
        assert association.send_n_create(item(1), INSTANCE_AVAILABILITY, "1.2.3.5")[0].Status == 0
    assert running.service.asked == [("1.2.3.4", (0x00100010, 0x00400252)), ("1.2.3.4", ())]
    assert running.service.changes[-1] == ("available", "1.2.3.5", identifier(1, ImplicitVRLittleEndian))
    running.seen("request_done", operation="N-GET", status=0)


def test_answers_to_get_that_wait_to_be_read_share_the_budget_of_data_sets(serve: Serve) -> None:
    running = serve(limits=Limits(held_bytes_max=30_000_000))
    running.service.answer = NAnswer(0, dataset=bytes(20_000_000))
    get = message_pdus(1, 0x0110, MPPS_RETRIEVE, dataset=None)
    with RudePeer(running.port, receive_buffer=4096) as first, RudePeer(running.port) as second:
        for peer in (first, second):
            peer.send(request_pdu(MPPS_RETRIEVE))
            assert peer.pdu()[0] == 2
        first.send(get)
        running.until(lambda: running.server.budget.held == 20_000_000)  # it does not read its answer
        second.send(get)
        assert second.statuses(1) == [(1, 0x0213)]
    running.until(lambda: running.server.budget.held == 0)


def test_an_answer_with_a_data_set_and_attribute_list_arrives_whole(serve: Serve) -> None:
    running = serve()
    running.service.answer = NAnswer(0x0107, "", None, (0x00100010,), identifier(5, ImplicitVRLittleEndian))
    with associated(running, MPPS) as association:
        status, dataset = association.send_n_create(item(1), MPPS, "1.2.3.4")
    assert status.Status == 0x0107
    assert dataset == item(5)


@pytest.mark.parametrize("max_pdu", [0, 8, 50, 1001, 131_072])
def test_any_pdu_size_of_the_peer_is_kept_to(serve: Serve, max_pdu: int) -> None:
    running = serve()
    with associated(running, MODALITY_WORKLIST, max_pdu=max_pdu) as association:
        answers = list(association.send_c_find(keys(), MODALITY_WORKLIST))
    assert [found for _, found in answers] == [item(0), item(1), item(2), None]


def test_a_data_set_of_many_pdus_is_assembled(serve: Serve) -> None:
    running = serve()
    dataset = item(1)
    dataset.ReasonForVisit = "x" * 200_000
    with associated(running, MPPS) as association:
        assert association.send_n_create(dataset, MPPS, "1.2.3.4")[0].Status == 0
    assert running.service.changes[0][2] == encode(dataset, True, True)


def test_a_cancelled_query_ends_with_fe00(serve: Serve) -> None:
    running = serve(CannedService(matches=10_000_000))
    with associated(running, MODALITY_WORKLIST) as association:
        statuses = []
        for status, _ in association.send_c_find(keys(), MODALITY_WORKLIST, msg_id=7):
            if not statuses:
                association.send_c_cancel(7, None, MODALITY_WORKLIST)
            statuses.append(status.Status)
    assert statuses[0] == 0xFF00
    assert statuses[-1] == 0xFE00
    assert running.service.closed.wait(WAIT_S)
    assert running.seen("request_done")["status"] == 0xFE00


def test_a_cancel_of_nothing_is_ignored(serve: Serve) -> None:
    with associated(serve(), MODALITY_WORKLIST) as association:
        association.send_c_cancel(9, None, MODALITY_WORKLIST)
        assert list(association.send_c_find(keys(), MODALITY_WORKLIST, msg_id=9))[-1][0].Status == 0


def test_an_operation_that_is_not_offered_is_named_unrecognised(serve: Serve) -> None:
    with associated(serve(), MPPS) as association:
        status, _ = association.send_n_get([0x00100010], MPPS, "1.2.3")
        assert status.Status == 0x0211
        assert association.send_n_create(item(1), MPPS, "1.2.3")[0].Status == 0


@pytest.mark.interop
@pytest.mark.skipif(shutil.which("echoscu") is None, reason="Debian package dcmtk is not installed")
def test_echoscu_is_answered(serve: Serve) -> None:
    command = ["echoscu", "-aet", "CT1", "-aec", "GATEWAY", "127.0.0.1", str(serve().port)]
    assert subprocess.run(command, capture_output=True, timeout=WAIT_S, check=False).returncode == 0


@pytest.mark.interop
@pytest.mark.skipif(shutil.which("findscu") is None, reason="Debian package dcmtk is not installed")
@pytest.mark.parametrize("options", [[], ["-pdu", "4096"], ["-xe"], ["-xi"], ["--cancel", "2"]])
def test_findscu_gets_its_answers(serve: Serve, options: list[str], tmp_path: Path) -> None:
    running = serve(CannedService(matches=5))
    connection = ["-aet", "CT1", "-aec", "GATEWAY", "127.0.0.1", str(running.port)]
    command = ["findscu", "-W", "-v", *options, "-k", "PatientName=*", "-k", "PatientID", *connection]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=WAIT_S, check=False, cwd=tmp_path)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "PID4" in ran.stdout + ran.stderr or "--cancel" in options
    assert running.seen("association_closed")["requests"] == 1


# Admission and limits


def test_an_unknown_caller_is_rejected_with_the_services_reason(serve: Serve) -> None:
    running = serve()
    with RudePeer(running.port) as peer:
        peer.send(request_pdu(calling="STRANGER"))
        rejection = A_ASSOCIATE_RJ()
        rejection.decode(peer.pdu())
    assert (rejection.result, rejection.source, rejection.reason_diagnostic) == (1, 1, 3)
    assert running.seen("association_rejected")["calling_ae_title"] == "STRANGER"


@pytest.mark.parametrize("limits", [Limits(associations_max=1), Limits(associations_per_address_max=1)])
def test_one_association_too_many_is_rejected_until_one_ends(serve: Serve, limits: Limits) -> None:
    running = serve(limits=limits)
    with RudePeer(running.port) as first:
        assert first.associate()[0] == 2
        with RudePeer(running.port) as second:
            rejection = A_ASSOCIATE_RJ()
            rejection.decode(second.associate())
        assert (rejection.result, rejection.source, rejection.reason_diagnostic) == (2, 3, 2)
        first.send(RELEASE_RQ)
        assert first.pdu() == RELEASE_RP
        with RudePeer(running.port) as third:
            assert third.associate()[0] == 2


@pytest.mark.parametrize("limits", [Limits(waiting_connections_max=2), Limits(waiting_per_address_max=2)])
def test_the_connection_that_waited_longest_without_asking_gives_way(serve: Serve, limits: Limits) -> None:
    running = serve(limits=limits)
    with RudePeer(running.port) as served, RudePeer(running.port) as silent:
        assert served.associate()[0] == 2
        with RudePeer(running.port) as third, RudePeer(running.port) as fourth:
            with contextlib.suppress(ConnectionResetError):
                assert silent.pdu() == b""
            assert third.associate()[0] == 2
            assert fourth.associate()[0] == 2
            served.send(message_pdus(1, 0x0030, VERIFICATION, dataset=None))
            assert served.statuses(1) == [(1, 0)]
    assert running.seen("connections_shed")["connections"] == 1


def test_an_address_that_fills_its_share_shuts_out_only_itself(serve: Serve) -> None:
    running = serve(limits=Limits(waiting_per_address_max=2))
    with RudePeer(running.port, address="127.0.0.2") as other, contextlib.ExitStack() as stack:
        flood = [stack.enter_context(RudePeer(running.port)) for _ in range(5)]
        for peer in flood[:3]:
            with contextlib.suppress(ConnectionResetError):
                assert peer.pdu() == b""
        assert other.associate()[0] == 2
        assert flood[-1].associate()[0] == 2


def test_a_silent_peer_is_closed_and_blocks_nobody(serve: Serve) -> None:
    running = serve(limits=Limits(artim_s=0.3))
    with RudePeer(running.port) as silent:
        with associated(running, VERIFICATION) as association:
            assert association.send_c_echo().Status == 0
        assert silent.pdu() == b""
    assert running.seen("association_aborted")["reason"] == "no association request in time"


def test_a_peer_that_drips_its_request_is_closed_all_the_same(serve: Serve) -> None:
    running = serve(limits=Limits(artim_s=0.3))
    with RudePeer(running.port) as slow:
        with contextlib.suppress(ConnectionError):
            for byte in request_pdu()[:-1]:
                slow.send(bytes([byte]))
        with contextlib.suppress(ConnectionError):
            assert slow.pdu() == b""


def test_a_peer_that_does_not_close_after_release_is_closed(serve: Serve) -> None:
    running = serve(limits=Limits(artim_s=0.3))
    with RudePeer(running.port) as peer:
        peer.associate()
        peer.send(RELEASE_RQ)
        assert peer.pdu() == RELEASE_RP
        assert peer.pdu() == b""


def test_an_idle_association_is_aborted(serve: Serve) -> None:
    running = serve(limits=Limits(idle_s=0.3))
    with RudePeer(running.port) as peer:
        peer.associate()
        assert peer.pdu()[0] == 7
    assert running.seen("association_aborted", by="gateway")["reason"] == "idle for too long"


def test_a_request_in_progress_is_not_idle(serve: Serve) -> None:
    service = CannedService()
    service.may_finish = asyncio.Event()
    running = serve(service, Limits(idle_s=0.2))
    with associated(running, MPPS) as association:
        timer = threading.Timer(0.7, running.loop.call_soon_threadsafe, [service.may_finish.set])
        timer.start()
        assert association.send_n_create(item(1), MPPS, "1.2.3.4")[0].Status == 0
        timer.join()


def test_a_peer_that_does_not_read_is_cut_and_others_are_served(serve: Serve) -> None:
    running = serve(CannedService(matches=10_000_000), Limits(write_stall_s=0.3))
    with RudePeer(running.port, receive_buffer=4096) as deaf:
        deaf.associate()
        deaf.send(FIND)
        with associated(running, VERIFICATION) as association:
            assert association.send_c_echo().Status == 0
        assert running.seen("association_aborted", by="gateway")["reason"] == "the peer does not read"
    assert running.service.closed.wait(WAIT_S)


def test_a_long_answer_does_not_starve_the_others(serve: Serve) -> None:
    running = serve(CannedService(matches=10_000_000))
    stop = threading.Event()

    def read_on(peer: RudePeer) -> None:
        with contextlib.suppress(ConnectionError):
            while not stop.is_set() and peer.socket.recv(1 << 20):
                pass

    with RudePeer(running.port) as greedy:
        greedy.associate()
        greedy.send(FIND)
        reader = threading.Thread(target=read_on, args=[greedy])
        reader.start()
        for _ in range(5):
            with associated(running, VERIFICATION) as association:
                assert association.send_c_echo().Status == 0
        assert not running.service.closed.is_set()
        stop.set()
        reader.join(WAIT_S)
    assert running.service.closed.wait(WAIT_S)


# Broken peers and broken services


def test_an_abort_amid_the_answers_ends_the_query_and_nothing_else(serve: Serve) -> None:
    running = serve(CannedService(matches=10_000_000))
    with associated(running, MODALITY_WORKLIST) as association:
        answers = association.send_c_find(keys(), MODALITY_WORKLIST)
        assert next(answers)[0].Status == 0xFF00
        association.abort()
    assert running.service.closed.wait(WAIT_S)
    running.seen("association_aborted", by="peer")
    with associated(running, VERIFICATION) as association:
        assert association.send_c_echo().Status == 0


def test_a_connection_lost_amid_the_answers_ends_the_query(serve: Serve) -> None:
    running = serve(CannedService(matches=10_000_000))
    with RudePeer(running.port) as peer:
        peer.associate()
        peer.send(FIND)
        assert peer.pdu()[0] == 4
    assert running.service.closed.wait(WAIT_S)
    assert running.seen("association_aborted", by="peer")["reason"] == "connection closed"


def test_a_release_amid_the_answers_is_confirmed(serve: Serve) -> None:
    running = serve(CannedService(matches=10_000_000))
    with RudePeer(running.port) as peer:
        peer.associate()
        peer.send(FIND)
        assert peer.pdu()[0] == 4
        peer.send(RELEASE_RQ)
        while (pdu := peer.pdu())[0] == 4:
            pass
        assert pdu == RELEASE_RP
    assert running.service.closed.is_set()


def test_a_request_and_a_release_in_one_segment_are_both_answered(serve: Serve) -> None:
    with RudePeer(serve().port) as peer:
        peer.associate()
        peer.send(message_pdus(1, 0x0030, VERIFICATION, dataset=None) + RELEASE_RQ)
        assert peer.statuses(1) == [(1, 0)]
        assert peer.pdu() == RELEASE_RP


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x09\x00\x00\x00\x00\x00", 1),
        (b"\x04\x00\xff\xff\xff\xff", 6),
        (b"\x06\x00\x00\x00\x00\x04\x00\x00\x00\x00", 2),
        (b"\x04\x00\x00\x00\x00\x02\x00\x00", 6),
    ],
)
def test_a_broken_pdu_is_answered_with_abort(serve: Serve, data: bytes, reason: int) -> None:
    running = serve()
    with RudePeer(running.port) as peer:
        peer.associate()
        peer.send(data)
        assert peer.pdu() == b"\x07\x00\x00\x00\x00\x04\x00\x00\x02" + bytes([reason])
    running.seen("association_aborted", by="gateway", calling_ae_title="CT1")


@pytest.mark.parametrize(
    "data",
    [
        message_pdus(9, 0x0030, VERIFICATION, dataset=None),  # a context that was not accepted
        message_pdus(1, 0x8020, MODALITY_WORKLIST, dataset=None),  # a response
        data_pdus(1, b"no command", is_command=False, max_length=0),
    ],
)
def test_a_message_that_cannot_be_followed_is_answered_with_abort(serve: Serve, data: bytes) -> None:
    with RudePeer(serve().port) as peer:
        peer.associate()
        peer.send(data)
        assert peer.pdu()[0] == 7


def test_a_query_without_identifier_is_answered_a900(serve: Serve) -> None:
    with RudePeer(serve().port) as peer:
        peer.associate()
        peer.send(message_pdus(1, 0x0020, MODALITY_WORKLIST, dataset=None))
        assert peer.statuses(1) == [(1, 0xA900)]


def test_requests_sent_ahead_are_served_in_order_and_a_reused_id_is_refused(serve: Serve) -> None:
    running = serve()
    running.service.may_finish = asyncio.Event()
    with RudePeer(running.port) as peer:
        peer.associate()
        peer.send(message_pdus(3, 0x0140, MPPS, message_id=1) + message_pdus(3, 0x0120, MPPS, message_id=1))
        assert running.service.entered.wait(WAIT_S)
        peer.send(message_pdus(1, 0x0030, VERIFICATION, message_id=2, dataset=None))
        running.loop.call_soon_threadsafe(running.service.may_finish.set)
        assert peer.statuses(3) == [(1, 0), (1, 0x0210), (2, 0)]
        peer.send(message_pdus(3, 0x0120, MPPS, message_id=1))
        assert peer.statuses(1) == [(1, 0)]
    assert [operation for operation, *_ in running.service.changes] == ["create", "set"]


def test_too_many_requests_sent_ahead_end_the_association(serve: Serve) -> None:
    running = serve()
    running.service.may_finish = asyncio.Event()
    with RudePeer(running.port) as peer:
        peer.associate()
        for message_id in range(REQUESTS_WAITING_MAX + 2):
            peer.send(message_pdus(3, 0x0140, MPPS, message_id=message_id))
        assert peer.pdu()[0] == 7
    assert running.seen("association_aborted")["reason"] == "too many requests at once"
    running.loop.call_soon_threadsafe(running.service.may_finish.set)


def test_a_data_set_beyond_the_limit_ends_the_association(serve: Serve) -> None:
    running = serve(limits=Limits(dataset_bytes_max=1000))
    with RudePeer(running.port) as peer:
        peer.associate()
        peer.send(message_pdus(3, 0x0140, MPPS, dataset=b"\0" * 1002))
        assert peer.pdu()[0] == 7
    assert running.service.changes == []


def test_a_service_that_raises_fails_that_request_only_and_tells_nothing(serve: Serve) -> None:
    running = serve()
    running.service.error = ValueError(f"{MARK} is no good")
    with associated(running) as association:
        answers = list(association.send_c_find(keys(), MODALITY_WORKLIST))
        assert [status.Status for status, _ in answers] == [0xFF00, 0xC001]
        assert MARK not in answers[-1][0].ErrorComment
        status, _ = association.send_n_create(item(1), MPPS, "1.2.3.4")
        assert status.Status == 0x0110
        assert MARK not in status.ErrorComment
        running.service.error = None
        assert list(association.send_c_find(keys(), MODALITY_WORKLIST))[-1][0].Status == 0
    done = running.seen("request_done", operation="N-CREATE")
    assert (done["error"], done["sop_instance_uid"]) == ("ValueError", "1.2.3.4")
    assert MARK not in repr(running.events)


def test_an_admission_that_raises_is_a_transient_rejection(serve: Serve) -> None:
    running = serve()
    running.service.error = ValueError(MARK)
    with RudePeer(running.port) as peer:
        peer.send(request_pdu(calling="CT2"))
        assert peer.pdu()[6:10] == b"\x00\x02\x01\x01"


def test_answers_that_end_without_a_final_status_are_a_failure(serve: Serve) -> None:
    class Unfinished(CannedService):
        def find(self, association: Association, transfer_syntax: str, keys: bytes) -> Iterator[FindAnswer]:
            return iter([FindAnswer(0xFF00, b"\x10\0\x10\0\0\0\0\0")])

    with associated(serve(Unfinished()), MODALITY_WORKLIST) as association:
        answers = list(association.send_c_find(keys(), MODALITY_WORKLIST))
    assert [status.Status for status, _ in answers] == [0xFF00, 0xC001]


# The end


def test_stopping_asks_idle_peers_for_release(serve: Serve) -> None:
    running = serve()
    with RudePeer(running.port) as peer:
        peer.associate()
        stopping = threading.Thread(target=running.stop, args=[WAIT_S])
        began = time.monotonic()
        stopping.start()
        assert peer.pdu() == RELEASE_RQ
        peer.send(RELEASE_RP)
        assert peer.pdu() == b""
        stopping.join(WAIT_S)
        assert time.monotonic() - began < WAIT_S / 2
    running.seen("association_closed")


def test_stopping_lets_a_change_in_progress_finish(serve: Serve) -> None:
    running = serve()
    running.service.may_finish = asyncio.Event()
    with RudePeer(running.port) as peer:
        peer.associate()
        peer.send(message_pdus(3, 0x0140, MPPS))
        assert running.service.entered.wait(WAIT_S)
        stopping = threading.Thread(target=running.stop, args=[WAIT_S])
        stopping.start()
        running.loop.call_soon_threadsafe(running.service.may_finish.set)
        assert peer.statuses(1) == [(1, 0)]
        assert peer.pdu() == RELEASE_RQ
        peer.send(RELEASE_RP)
        stopping.join(WAIT_S)


def test_stopping_cuts_who_does_not_leave(serve: Serve) -> None:
    running = serve()
    with RudePeer(running.port) as silent, RudePeer(running.port) as peer:
        answer = A_ASSOCIATE_AC()
        answer.decode(peer.associate())
        running.stop(grace_s=0.2)
        with contextlib.suppress(ConnectionResetError):
            assert silent.pdu() == b""
        running.seen("association_aborted", reason="the gateway stops")
    with socket.socket() as late, pytest.raises(ConnectionRefusedError):
        late.connect(("127.0.0.1", running.port))


def test_events_have_the_fields_that_the_module_promises(serve: Serve) -> None:
    running = serve()
    with associated(running) as association:
        list(association.send_c_find(keys(), MODALITY_WORKLIST))
    running.seen("association_closed")
    assert {event: set(fields) for event, fields in running.events} == {
        "association_opened": {
            "association",
            "calling_ae_title",
            "called_ae_title",
            "remote_host",
            "implementation_version",
        },
        "request_done": {
            "association",
            "calling_ae_title",
            "called_ae_title",
            "operation",
            "status",
            "matches",
            "milliseconds",
            "error",
            "where",
        },
        "association_closed": {"association", "calling_ae_title", "requests", "milliseconds"},
    }
    assert len({fields["association"] for _, fields in running.events}) == 1
    assert MARK not in repr(running.events)
