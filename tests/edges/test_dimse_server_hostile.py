"""The DICOM listener and what no peer should do to it: floods, trickles, deafness, odd fragments, too much data."""

import asyncio
import contextlib
import resource
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
from dimse_peers import (
    FIND,
    MARK,
    RELEASE_RP,
    RELEASE_RQ,
    WAIT_S,
    CannedService,
    RudePeer,
    Serve,
    cancel_pdus,
    identifier,
    keys,
    message_pdus,
    request_pdu,
)
from pydicom.uid import ImplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.dsutils import encode
from pynetdicom.pdu import A_ASSOCIATE_AC
from pynetdicom.pdu_primitives import SOPClassExtendedNegotiation

from gateway.edges.dimse_requests import SLICE_BYTES
from gateway.edges.dimse_server import Association, FindAnswer, Limits
from gateway.testing.modality import SimulatedModality, worklist_identifier
from gateway.wire.dimse import SMALL_DATASET_BYTES
from gateway.wire.upper_layer import MODALITY_WORKLIST, MPPS, VERIFICATION, data_pdus

ECHO = message_pdus(1, 0x0030, VERIFICATION, dataset=None)
KEYS = encode(keys(), True, True)
HALF_OPEN = 5_000


# Floods


@pytest.fixture
def many_files() -> Iterator[int]:
    """How many half-open connections this process may have, beside all else; its limit is raised if it can be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = HALF_OPEN + 2_000
    if soft < wanted:
        soft_now = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft_now, hard))
    yield min(HALF_OPEN, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 1_000)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("addresses", [1, 40])
def test_devices_are_served_during_and_after_a_flood_of_half_open_connections(
    serve: Serve, many_files: int, addresses: int
) -> None:
    limits = Limits()
    running = serve(limits=limits)
    served, flooded = 0, threading.Event()
    with contextlib.ExitStack() as stack:

        def flood() -> None:
            for number in range(many_files):
                peer = RudePeer(running.port, address=f"127.0.1.{1 + number % addresses}")
                stack.callback(peer.socket.close)
            flooded.set()

        flooding = threading.Thread(target=flood)
        flooding.start()
        while not flooded.is_set():
            with RudePeer(running.port, address="127.0.0.2") as device:
                assert device.associate()[0] == 2
                device.send(FIND)
                assert device.answer() == [0xFF00] * 3 + [0]
                device.send(RELEASE_RQ)
                assert device.pdu() == RELEASE_RP
            served += 1
        flooding.join(WAIT_S)
        with RudePeer(running.port) as device:  # pynetdicom cannot: it uses select, which ends at 1,024 files
            assert device.associate()[0] == 2
            device.send(ECHO)
            assert device.statuses(1) == [(1, 0)]
            device.send(FIND)
            assert device.answer() == [0xFF00] * 3 + [0]
        assert running.server.connections <= limits.waiting_connections_max + 2
    assert served > 1
    assert running.seen("connections_shed")["connections"]


LISTENER_SHORT_OF_FILES = """
import asyncio, resource, sys
sys.path[:0] = {path!r}
import uvloop
from dimse_peers import CannedService
from gateway.edges.dimse_server import DIMSEServer, Limits

async def listen():
    server = DIMSEServer("127.0.0.1", 0, CannedService(), Limits(waiting_per_address_max=1_000))
    await server.start()
    resource.setrlimit(resource.RLIMIT_NOFILE, (48, 48))
    print(server.port, flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    await server.stop(0)

{loop}.run(listen())
"""


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_a_listener_that_ran_out_of_files_goes_on_by_itself(loop: str) -> None:
    script = LISTENER_SHORT_OF_FILES.format(path=sys.path, loop=loop)
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        port = int(process.stdout.readline())
        with contextlib.ExitStack() as stack:
            flood = [stack.enter_context(RudePeer(port)) for _ in range(100)]
            assert flood[0].associate()[0] == 2  # whoever is in is served
            flood[0].send(ECHO)
            assert flood[0].statuses(1) == [(1, 0)]
        tries = 0
        while True:  # a device tries again; each try takes as long as the listener needs to refuse it
            tries += 1
            assert tries < 1_000
            with RudePeer(port) as device, contextlib.suppress(ConnectionError):
                answer = device.associate()
                if answer:
                    assert answer[0] == 2
                    break
        process.stdin.close()
        assert process.wait(WAIT_S) == 0


# Slow-loris


def test_a_trickled_association_request_does_not_move_artim(serve: Serve) -> None:
    running = serve(limits=Limits(artim_s=0.3))
    with RudePeer(running.port) as slow:
        assert slow.trickles(request_pdu())
    assert running.seen("association_aborted")["reason"] == "no association request in time"


def test_a_trickled_pdu_ends_the_association(serve: Serve) -> None:
    running = serve(limits=Limits(pdu_s=0.3))
    with RudePeer(running.port) as slow:
        slow.associate()
        slow.send(ECHO)
        assert slow.statuses(1) == [(1, 0)]
        assert slow.trickles(FIND)
    assert running.seen("association_aborted", by="gateway")["reason"] == "a PDU took too long to arrive"
    assert running.service.queries == []


def test_a_trickled_message_ends_the_association_though_each_pdu_is_whole(serve: Serve) -> None:
    running = serve(limits=Limits(message_s=0.3))
    command = message_pdus(3, 0x0140, MPPS)[:-12]  # without its empty data set
    single = struct.pack(">BxIIBBB", 4, 7, 3, 3, 0, 0)
    with RudePeer(running.port) as slow:
        slow.associate()
        slow.send(command)
        assert slow.trickles(single * 500, len(single))
    assert running.seen("association_aborted", by="gateway")["reason"] == "a message took too long to arrive"


def test_a_trickled_pdu_ends_the_association_while_a_request_is_in_progress(serve: Serve) -> None:
    service = CannedService()
    service.may_finish = asyncio.Event()
    running = serve(service, Limits(pdu_s=0.3, idle_s=0.2))
    with RudePeer(running.port) as slow:
        slow.associate()
        slow.send(message_pdus(3, 0x0140, MPPS))
        assert service.entered.wait(WAIT_S)
        assert slow.trickles(FIND)
    assert running.seen("association_aborted", by="gateway")["reason"] == "a PDU took too long to arrive"
    running.loop.call_soon_threadsafe(service.may_finish.set)
    assert running.seen("request_done", operation="N-CREATE")["status"] == 0


def test_a_large_message_that_keeps_coming_is_not_too_slow(serve: Serve) -> None:
    running = serve(limits=Limits(pdu_s=0.4))
    dataset = b"\x10\x00\x10\x00" + struct.pack("<I", 60_000) + b" " * 60_000
    pdus = message_pdus(3, 0x0140, MPPS)[:-12] + data_pdus(3, dataset, is_command=False, max_length=1_000)
    with RudePeer(running.port) as peer:
        peer.associate()
        assert not peer.trickles(pdus[:-10], 1_500)  # takes longer than `pdu_s`, and hardly a portion ends with a PDU
        peer.send(pdus[-10:])
        assert peer.statuses(1) == [(1, 0)]
    assert running.service.changes == [("create", "1.2.3", dataset)]


def test_what_comes_after_a_violation_does_not_keep_the_connection(serve: Serve) -> None:
    running = serve(limits=Limits(artim_s=0.3))
    violation = data_pdus(1, b"no command", is_command=False, max_length=0)
    with RudePeer(running.port) as peer:
        peer.associate()
        peer.send(violation + ECHO + ECHO)
        assert peer.pdu()[0] == 7
        assert peer.pdu() == b""


def test_what_comes_while_we_wait_for_the_close_does_not_keep_the_connection(serve: Serve) -> None:
    running = serve(limits=Limits(artim_s=0.3))
    with RudePeer(running.port) as peer:
        peer.associate()
        peer.send(RELEASE_RQ)
        assert peer.pdu() == RELEASE_RP
        assert peer.trickles(ECHO * 20, len(ECHO))


# Peers that do not read


class Watched(CannedService):
    """Notes how much is waiting to be read whenever it is asked for one more match."""

    def __init__(self, matches: int) -> None:
        super().__init__(matches)
        self.buffered: list[int] = []
        self.server: object = None

    def find(self, association: Association, transfer_syntax: str, keys: bytes) -> Iterator[FindAnswer]:
        for answer in super().find(association, transfer_syntax, keys):
            for connection in self.server._connections:  # type: ignore[attr-defined]
                self.buffered.append(connection._transport.get_write_buffer_size())
            yield answer


def test_a_peer_that_never_reads_costs_no_more_than_a_buffer(serve: Serve) -> None:
    service = Watched(matches=200_000)
    running = serve(service, Limits(write_stall_s=0.3))
    service.server = running.server
    with RudePeer(running.port, receive_buffer=4096) as deaf:
        deaf.associate()
        deaf.send(FIND)
        assert running.seen("association_aborted", by="gateway")["reason"] == "the peer does not read"
    assert service.closed.wait(WAIT_S)
    assert 2_000 < len(service.buffered) < 200_000
    assert max(service.buffered) <= 2 * SLICE_BYTES
    assert running.seen("request_done")["status"] == 0xFE00


def test_a_peer_that_asks_on_and_on_and_never_reads_is_ended(serve: Serve) -> None:
    running = serve(CannedService(matches=10_000))
    with RudePeer(running.port, receive_buffer=4096) as deaf:
        deaf.associate()
        with contextlib.suppress(ConnectionError, TimeoutError):
            for _ in range(50):
                deaf.send(FIND)
        assert running.seen("association_aborted", by="gateway")["reason"] == "too many requests at once"


def test_a_peer_that_provokes_aborts_and_never_reads_is_cut(serve: Serve) -> None:
    running = serve(CannedService(matches=100_000), Limits(write_stall_s=WAIT_S * 2, artim_s=WAIT_S * 2))
    with RudePeer(running.port, receive_buffer=4096) as deaf:
        deaf.associate()
        deaf.send(FIND)
        running.until(lambda: any(connection.is_behind for connection in running.server._connections))
        deaf.send(FIND * 9)  # beyond what may wait
        running.seen("association_aborted", by="gateway")
        with pytest.raises(ConnectionError):
            deaf.send(request_pdu() * 100_000)


# Cancelled and broken off


def test_a_cancel_between_the_answers_ends_them(serve: Serve) -> None:
    running = serve(CannedService(matches=10_000_000))
    with RudePeer(running.port) as peer:
        peer.associate()
        peer.send(FIND)
        responses = peer.responses()
        assert next(responses) == (1, 0xFF00)
        peer.send(cancel_pdus(1))
        statuses = [status for _, status in _until_final(responses)]
        assert set(statuses[:-1]) <= {0xFF00}
        assert statuses[-1] == 0xFE00
        peer.send(ECHO)
        assert peer.statuses(1) == [(1, 0)]
    assert running.service.closed.is_set()
    assert running.service.over[0][3] == 0xFE00
    assert running.service.over[0][4] == len(statuses)


def _until_final(responses: Iterator[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    for message_id, status in responses:
        yield message_id, status
        if status not in (0xFF00, 0xFF01):
            return


def test_a_cancel_that_comes_with_its_request_is_seen_first(serve: Serve) -> None:
    with RudePeer(serve(CannedService(matches=10_000_000)).port) as peer:
        peer.associate()
        peer.send(FIND + cancel_pdus(1))
        pdu = peer.pdu()
        assert pdu[10:12] == b"\x01\x03"  # a whole command set, and no identifier after it
        peer.send(ECHO)
        assert peer.statuses(1) == [(1, 0)]


def test_a_cancel_of_a_query_that_waits_is_answered_in_its_turn(serve: Serve) -> None:
    running = serve()
    running.service.may_finish = asyncio.Event()
    second = message_pdus(1, 0x0020, MODALITY_WORKLIST, message_id=2, dataset=KEYS)
    with RudePeer(running.port) as peer:
        peer.associate()
        peer.send(message_pdus(3, 0x0140, MPPS, message_id=7) + FIND + second + cancel_pdus(1))
        assert running.service.entered.wait(WAIT_S)
        running.loop.call_soon_threadsafe(running.service.may_finish.set)
        assert peer.statuses(2) == [(7, 0), (1, 0xFE00)]
        assert peer.answer() == [0xFF00] * 3 + [0]


def test_a_cancel_of_nothing_is_ignored_and_cancels_nothing_later(serve: Serve) -> None:
    with RudePeer(serve().port) as peer:
        peer.associate()
        peer.send(cancel_pdus(1) + cancel_pdus(99))
        peer.send(FIND)
        assert peer.answer() == [0xFF00] * 3 + [0]
        peer.send(cancel_pdus(1))
        peer.send(FIND)
        assert peer.answer() == [0xFF00] * 3 + [0]


def test_a_query_while_another_is_answered_is_answered_after_it(serve: Serve) -> None:
    running = serve(CannedService(matches=5_000))
    with RudePeer(running.port) as peer:
        peer.associate()
        peer.send(FIND)
        responses = peer.responses()
        assert next(responses) == (1, 0xFF00)
        peer.send(message_pdus(1, 0x0020, MODALITY_WORKLIST, message_id=2, dataset=KEYS))
        assert [message_id for message_id, _ in _until_final(responses)] == [1] * 5_000
        assert [message_id for message_id, _ in _until_final(responses)] == [2] * 5_001


def test_an_abort_with_its_request_leaves_nobody_to_answer(serve: Serve) -> None:
    running = serve(CannedService(matches=10_000_000))
    abort = b"\x07\x00\x00\x00\x00\x04\x00\x00\x00\x00"
    with RudePeer(running.port) as peer:
        peer.associate()
        peer.send(FIND + abort)
        assert peer.pdu() == b""
    running.seen("association_aborted", by="peer")
    assert running.service.queries == []


# Odd fragments and lengths


def _pdvs(context_id: int, payload: bytes, *, is_command: bool, size: int) -> list[bytes]:
    """Presentation data value items of at most `size` bytes."""
    items = []
    for start in range(0, len(payload), size):
        is_last = start + size >= len(payload)
        fragment = payload[start : start + size]
        items.append(struct.pack(">IBB", len(fragment) + 2, context_id, is_command | is_last << 1) + fragment)
    return items


def _in_pdus(items: list[bytes], per_pdu: int) -> bytes:
    grouped = [b"".join(items[start : start + per_pdu]) for start in range(0, len(items), per_pdu)]
    return b"".join(struct.pack(">BxI", 4, len(group)) + group for group in grouped)


FIND_COMMAND = FIND[12 : 6 + struct.unpack_from(">I", FIND, 2)[0]]


@pytest.mark.parametrize(("size", "per_pdu"), [(1, 1), (1, 7), (2, 1), (13, 3), (1_000, 2), (1_000, 1_000)])
def test_any_fragments_make_the_same_query(serve: Serve, size: int, per_pdu: int) -> None:
    running = serve()
    items = _pdvs(1, FIND_COMMAND, is_command=True, size=size) + _pdvs(1, KEYS or b"", is_command=False, size=size)
    with RudePeer(running.port) as peer:
        peer.associate()
        peer.send(_in_pdus(items, per_pdu))
        assert peer.answer() == [0xFF00] * 3 + [0]
    assert running.service.over == [("CT1", ImplicitVRLittleEndian, KEYS, 0, 3)]


def test_two_messages_in_one_pdu_are_both_answered(serve: Serve) -> None:
    items = _pdvs(1, FIND_COMMAND, is_command=True, size=1_000) + _pdvs(1, KEYS or b"", is_command=False, size=1_000)
    with RudePeer(serve().port) as peer:
        peer.associate()
        peer.send(_in_pdus(items * 2, 4))
        assert peer.answer() == [0xFF00] * 3 + [0]
        assert peer.answer() == [0xFF00] * 3 + [0]


@pytest.mark.parametrize("max_length", [0, 8, 128, 129, 4_096, 2**32 - 1])
def test_answers_keep_to_the_length_that_the_peer_takes(serve: Serve, max_length: int) -> None:
    with RudePeer(serve().port) as peer:
        peer.associate(max_length=max_length)
        peer.send(FIND)
        received = bytearray()
        answers: list[bytes] = []
        while len(answers) < 3:
            pdu = peer.pdu()
            assert not max_length or len(pdu) - 6 <= max_length
            if not pdu[11] & 1:
                received += pdu[12:]
                if pdu[11] & 2:
                    answers.append(bytes(received))
                    received.clear()
        assert answers == [identifier(number, ImplicitVRLittleEndian) for number in range(3)]


# What is offered and what is not


def test_an_association_without_any_acceptable_context_stands_until_the_peer_ends_it(serve: Serve) -> None:
    ct_image_storage = "1.2.840.10008.5.1.4.1.1.2"
    running = serve()
    with RudePeer(running.port) as peer:
        answer = A_ASSOCIATE_AC()
        answer.decode(peer.associate(ct_image_storage))
        assert [context.result for context in answer.presentation_context] == [3]
        peer.send(RELEASE_RQ)
        assert peer.pdu() == RELEASE_RP
    assert running.seen("association_closed")["requests"] == 0
    with RudePeer(running.port) as peer:
        peer.associate(ct_image_storage)
        peer.send(FIND)
        assert peer.pdu()[0] == 7
    assert running.service.queries == []


@pytest.mark.parametrize(("offered", "answered"), [(b"\1\1\1", b"\1\1\1"), (b"\1\1\0\1", b"\1\1\0\1"), (b"", None)])
def test_fuzzy_names_and_time_zones_are_negotiated(serve: Serve, offered: bytes, answered: bytes | None) -> None:
    running = serve()
    ae = AE("CT1")
    ae.add_requested_context(MODALITY_WORKLIST)
    extension = SOPClassExtendedNegotiation()
    extension.sop_class_uid, extension.service_class_application_information = MODALITY_WORKLIST, offered
    extensions = [extension] if offered else []
    association = ae.associate("127.0.0.1", running.port, ae_title="GATEWAY", ext_neg=extensions)
    assert association.is_established
    assert association.acceptor.sop_class_extended == ({MODALITY_WORKLIST: answered} if answered else {})
    assert list(association.send_c_find(keys(), MODALITY_WORKLIST))[-1][0].Status == 0
    association.release()
    assert running.service.callers[0].worklist_negotiation == offered


# What the service is told


def test_the_service_learns_the_end_of_a_query_that_nobody_waited_for(serve: Serve) -> None:
    running = serve(CannedService(matches=10_000_000))
    with RudePeer(running.port) as peer:
        peer.associate()
        peer.send(FIND)
        assert peer.pdu()[0] == 4
    assert running.seen("request_done")["status"] == 0xFE00
    ((caller, syntax, query, status, matches),) = running.service.over
    assert (caller, syntax, query, status) == ("CT1", ImplicitVRLittleEndian, KEYS, 0xFE00)
    assert matches > 0


def test_the_service_learns_of_queries_that_were_refused(serve: Serve) -> None:
    running = serve()
    with RudePeer(running.port) as peer:
        peer.associate()
        peer.send(message_pdus(1, 0x0020, MODALITY_WORKLIST, dataset=None))
        peer.send(message_pdus(1, 0x0020, "1.2.840.10008.5.1.4.1.2.2.1", dataset=KEYS))
        assert peer.statuses(2) == [(1, 0xA900), (1, 0x0122)]
    assert [told[2:] for told in running.service.over] == [(b"", 0xA900, 0), (KEYS, 0x0122, 0)]


def test_a_service_that_cannot_bear_to_be_told_hurts_nobody(serve: Serve) -> None:
    class Sensitive(CannedService):
        def found(self, *_: object) -> None:
            raise KeyError(MARK)

    running = serve(Sensitive())
    with RudePeer(running.port) as peer:
        peer.associate()
        for _ in range(2):
            peer.send(FIND)
            assert peer.answer() == [0xFF00] * 3 + [0]
    done = running.seen("request_done")
    assert (done["status"], done["error"]) == (0, "KeyError")
    assert MARK not in repr(running.events)


def test_an_error_is_told_with_the_place_in_our_own_code_and_no_value(serve: Serve) -> None:
    running = serve()
    running.service.error = ValueError(f"{MARK} is no good")
    with RudePeer(running.port) as peer:
        peer.associate()
        peer.send(FIND)
        assert peer.answer() == [0xFF00, 0xC001]
        peer.send(message_pdus(3, 0x0140, MPPS))
        assert peer.statuses(1) == [(1, 0x0110)]
    for operation in ("C-FIND", "N-CREATE"):
        where = str(running.seen("request_done", operation=operation)["where"])
        module, _, line = where.partition(":")
        assert module == "gateway.edges.dimse_requests"
        assert int(line) > 0
    running.service.error = ValueError(MARK)
    with RudePeer(running.port) as peer:
        peer.send(request_pdu(calling="CT2"))
        peer.pdu()
    rejected = running.seen("association_rejected")
    assert rejected["error"] == "ValueError"
    assert str(rejected["where"]).startswith("gateway.edges.dimse_server:")
    assert MARK not in repr(running.events)


# The budget for data sets


def _large(message_id: int, size: int, operation: int = 0x0140) -> tuple[bytes, bytes]:
    """A request with a data set of `size` bytes in PDUs of 10,000, without the last of them, and the last."""
    context_id, sop_class = (3, MPPS) if operation == 0x0140 else (1, MODALITY_WORKLIST)
    command = message_pdus(context_id, operation, sop_class, message_id=message_id)[:-12]
    dataset = b"\x10\x00\x10\x00" + struct.pack("<I", size - 8) + b" " * (size - 8)
    pdus = data_pdus(context_id, dataset, is_command=False, max_length=10_006)
    rest = size % 10_000 or 10_000
    return command + pdus[: -rest - 12], pdus[-rest - 12 :]


def test_data_sets_that_arrive_share_one_budget_and_queries_pass(serve: Serve) -> None:
    running = serve(limits=Limits(held_bytes_max=100_000))
    with RudePeer(running.port) as first, RudePeer(running.port) as second, RudePeer(running.port) as third:
        for peer in (first, second, third):
            peer.associate()
        most, last = _large(1, 90_000)
        first.send(most)
        running.until(lambda: running.server.budget.held == 80_000 - SMALL_DATASET_BYTES)
        too_much, _ = _large(1, 70_000)
        second.send(too_much)
        assert second.pdu()[0] == 7
        third.send(FIND)
        assert third.answer() == [0xFF00] * 3 + [0]
        first.send(last)
        assert first.statuses(1) == [(1, 0)]
        assert running.seen("association_aborted", by="gateway")["reason"] == (
            "more bytes of data sets than can be held for all associations"
        )
        assert len(running.service.changes[0][2]) == 90_000
        assert running.server.budget.held == 0


def test_a_request_that_would_have_to_wait_beyond_the_budget_is_refused_alone(serve: Serve) -> None:
    running = serve(limits=Limits(held_bytes_max=100_000))
    running.service.may_finish = asyncio.Event()
    with RudePeer(running.port) as first, RudePeer(running.port) as second:
        first.associate()
        second.associate()
        first.send(b"".join(_large(1, 60_000)))
        assert running.service.entered.wait(WAIT_S)
        second.send(b"".join(_large(1, 50_000)))
        assert second.statuses(1) == [(1, 0x0213)]
        second.send(b"".join(_large(2, 50_000, operation=0x0020)))
        assert second.statuses(1) == [(2, 0xA700)]
        running.loop.call_soon_threadsafe(running.service.may_finish.set)
        assert first.statuses(1) == [(1, 0)]
        second.send(b"".join(_large(3, 50_000)))
        assert second.statuses(1) == [(3, 0)]
    assert running.server.budget.held == 0


def test_what_a_lost_association_held_is_free_again(serve: Serve) -> None:
    running = serve(limits=Limits(held_bytes_max=100_000))
    running.service.may_finish = asyncio.Event()
    with RudePeer(running.port) as first, RudePeer(running.port) as second:
        first.associate()
        second.associate()
        first.send(message_pdus(3, 0x0140, MPPS) + b"".join(_large(2, 30_000)) + _large(3, 50_000)[0])
        running.until(lambda: running.server.budget.held == 30_000 + 40_000 - SMALL_DATASET_BYTES)
    running.seen("association_aborted", by="peer")
    running.loop.call_soon_threadsafe(running.service.may_finish.set)
    running.seen("request_done", operation="N-CREATE")
    assert running.server.budget.held == 0


class Searching(CannedService):
    """Finds what it has at once, and then goes on looking."""

    def find(self, association: Association, transfer_syntax: str, keys: bytes) -> Iterator[FindAnswer | None]:  # type: ignore[override]
        for answer in super().find(association, transfer_syntax, keys):
            if not answer.is_pending:
                break
            yield answer
        while True:
            yield None


def test_the_simulated_modality_negotiates_and_cancels(serve: Serve) -> None:
    running = serve(Searching())
    modality = SimulatedModality("127.0.0.1", running.port, fuzzy_names=True)
    assert len(modality.find(worklist_identifier({}), cancel_after=2)) == 3
    assert modality.promised == b"\1\1\1\0"
    assert running.seen("request_done")["status"] == 0xFE00
    modality = SimulatedModality("127.0.0.1", running.port)
    modality.find(worklist_identifier({}), cancel_after=1)
    assert modality.promised == b""
