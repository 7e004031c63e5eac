"""Reads on several processes: the same answers, changes in one process, and what happens when a process dies."""

import asyncio
import io
import json
import os
import pickle
import select
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML
from sqlalchemy import delete

from gateway.config import DICOMSettings, load_site
from gateway.domain.identifiers import Identifier, Mint
from gateway.domain.mapping import MappingResult
from gateway.domain.patient import PatientInput, PatientUpdate
from gateway.domain.performed import Operation
from gateway.domain.refusal import Refusal, RefusalKind
from gateway.edges import schema
from gateway.edges.database import Prepared, StoreError
from gateway.edges.logs import Unhurried
from gateway.edges.metrics import Metrics, Tally
from gateway.edges.store import Store, read_only
from gateway.listening import limits_of
from gateway.testing import (
    ImagingOrder,
    ServiceProcess,
    SimulatedModality,
    SimulatedRIS,
    invented_person,
    rad4_orm,
    site,
)
from gateway.testing.load import LoadAssociation, encode_association, encode_find
from gateway.testing.modality import worklist_identifier
from gateway.wire.er7 import parse
from gateway.workers.channel import Channel
from gateway.workers.messages import (
    FRAME_BYTES_MAX,
    LENGTH_BYTES,
    ChannelViolation,
    Frames,
    Listens,
    Processed,
    Received,
    Reported,
    Serve,
    Stop,
    Told,
    decode_from_main,
    decode_from_worker,
    encode_from_main,
    encode_from_worker,
)
from gateway.workers.process import TELL_S, Worker
from gateway.workers.supervisor import Workers
from gateway.workflow.intake import Receipt, Understood
from gateway.workflow.performed_request import PerformRequest
from gateway.workflow.ports import QueryRecord

START = datetime.now().replace(hour=9, minute=30, second=0, microsecond=0) + timedelta(days=1)
REQUEST = PerformRequest("1.2.3", "CT1", "1.2.840.10008.1.2", bytes(range(256)))
QUERY = QueryRecord(datetime(2026, 11, 20, tzinfo=UTC), "CT1", "GATEWAY", "127.0.0.1", "1.2", b"\xff\x00", 0, 3, 1.5)
ENOUGH = 20  # associations of which, by the system's choice, all go to the same of two workers once in 500,000 times


def tally():
    counted = Tally(rejected=2)
    counted.request_done("C-FIND", 0, 10, 0.004)
    counted.request_done("C-FIND", 0xA700, 0, 20)
    return counted


# The channel, without processes


@pytest.mark.parametrize("message", [Listens(), Reported(7, Operation.SET, REQUEST), Told(tally(), 4, (QUERY,))])
@given(cuts=st.lists(st.integers(min_value=1, max_value=400), max_size=8))
def test_a_message_arrives_as_it_was_sent_however_the_bytes_are_cut(message, cuts):
    stream, frames, bodies = encode_from_worker(message) * 2, Frames(), []
    for cut in (*cuts, len(stream)):
        bodies += frames.feed(stream[:cut])
        stream = stream[cut:]
    assert [decode_from_worker(body) for body in bodies] == [message, message]


def test_a_message_that_was_read_arrives_as_it_was_read_and_so_does_what_became_of_it():
    patient = PatientInput((Identifier("4711", "RIS"),), {"00100020": {"vr": "LO", "Value": ["4711"]}})
    understood = Understood(
        parse(b"MSH|^~\\&|RIS|KH|GW|KH|20261120||ADT^A08|7|P|2.5\rPID|1||4711"),
        MappingResult(events=(PatientUpdate(patient),), refusals=(Refusal(RefusalKind.LOCKED, "PID-3", "no", "wait"),)),
    )
    received = Received(3, "ris", "127.0.0.1:1", b"MSH|", 2, understood)
    arrived = decode_from_worker(encode_from_worker(received)[LENGTH_BYTES:])
    assert arrived.understood.meaning == understood.meaning
    assert [each.fields for each in arrived.understood.message.segments] == [
        each.fields for each in understood.message.segments
    ]
    assert replace(arrived, understood=None) == replace(received, understood=None)
    processed = Processed(3, Receipt(b"MSH|", "accepted", "7", "ADT^A08", ("a kind",)), failing=False)
    assert decode_from_main(encode_from_main(processed)[LENGTH_BYTES:]) == processed


@pytest.mark.parametrize("named", [os.getpid, subprocess.run, Mint.study_instance_uid, subprocess.Popen])
def test_what_names_anything_but_a_value_is_refused(named):
    with pytest.raises(ChannelViolation):
        decode_from_worker(pickle.dumps(named, pickle.HIGHEST_PROTOCOL))


def test_a_frame_that_is_longer_than_any_message_is_refused_before_it_has_come():
    with pytest.raises(ChannelViolation):
        list(Frames().feed((FRAME_BYTES_MAX + 1).to_bytes(4, "big")))


@pytest.mark.parametrize(
    "body", [b"", b"{}", b'{"kind": "stop"}', b'{"kind": "reported", "number": "many"}', b"\x80\x05."]
)
def test_what_is_no_message_of_a_worker_is_refused(body):
    with pytest.raises(ChannelViolation):
        decode_from_worker(body)


def test_a_report_that_the_main_process_does_not_answer_is_not_claimed_to_be_stored():
    async def scene():
        main, ours = socket.socketpair()
        with closing(main):
            worker = Worker([], answer_s=0.01)
            life = asyncio.create_task(worker.run(ours))
            await asyncio.sleep(0)
            with structlog.testing.capture_logs():
                answer = await worker.report(Operation.CREATE, REQUEST)
        await life  # which ends with the channel
        return answer

    assert asyncio.run(scene()).status == 0x0213


def test_a_report_is_not_claimed_to_be_stored_when_the_main_process_is_gone():
    async def scene():
        main, ours = socket.socketpair()
        worker = Worker([])
        life = asyncio.create_task(worker.run(ours))
        main.close()
        await life
        return await worker.report(Operation.CREATE, REQUEST)

    assert asyncio.run(scene()).status == 0x0213


def test_a_peer_that_breaks_the_channels_rules_is_cut_off():
    async def scene():
        lost = asyncio.Event()
        peer, ours = socket.socketpair()
        with closing(peer):
            await Channel(lambda body: None, lost.set).open(ours)
            peer.sendall(b"\xff" * 4)
            await lost.wait()

    asyncio.run(scene())


# Counts and limits


def test_what_processes_counted_adds_up():
    metrics = Metrics()
    metrics.tally.add(tally())
    metrics.tally.add(tally())
    value = metrics.registry.get_sample_value
    assert value("gateway_dimse_requests_total", {"operation": "C-FIND", "status": "A700"}) == 2
    assert value("gateway_worklist_matches_total") == 20
    assert value("gateway_associations_rejected_total") == 4
    assert value("gateway_seconds_bucket", {"operation": "C-FIND", "le": "0.005"}) == 2
    assert value("gateway_seconds_bucket", {"operation": "C-FIND", "le": "10.0"}) == 2
    assert value("gateway_seconds_count", {"operation": "C-FIND"}) == 4


@pytest.mark.parametrize("workers", [1, 2, 3, 64])
def test_all_workers_together_take_the_configured_associations(workers):
    dicom = DICOMSettings(associations_max=256)
    of_one = limits_of(dicom, workers).associations_max
    assert 256 <= of_one * workers < 256 + workers


def test_a_configured_limit_for_an_address_is_never_raised_for_one_worker():
    assert limits_of(DICOMSettings(associations_per_address_max=2), 64).associations_per_address_max == 2
    assert limits_of(DICOMSettings(associations_per_address_max=64), 64).associations_per_address_max == 4


# Processes


def test_a_worker_survives_a_reload_while_it_starts_and_queries_larger_than_a_frame(tmp_path):
    loaded = load_site(site(tmp_path, workers=1))
    Store(loaded.store_url).close()
    heard = []

    async def scene():
        main, its = socket.socketpair()
        worker = Worker([socket.create_server(("127.0.0.1", 0))])
        life = asyncio.create_task(worker.run(its))
        reader, writer = await asyncio.open_connection(sock=main)
        frames = Frames()

        async def hear(kind):
            while not any(isinstance(each, kind) and getattr(each, "queries", True) for each in heard):
                data = await reader.read(65_536)
                assert data, "the worker ended"
                heard.extend(decode_from_worker(body) for body in frames.feed(data))

        writer.write(encode_from_main(Serve(replace(loaded, mappings={}), 1)) * 2)
        async with asyncio.timeout(30):
            await hear(Listens)
            for _ in range(FRAME_BYTES_MAX // 8_000_000 + 1):
                worker.keep(replace(QUERY, identifier=bytes(8_000_000)))
            await hear(Told)
            writer.write(encode_from_main(Stop()))
            await life
        writer.close()

    with structlog.testing.capture_logs():
        asyncio.run(scene())
    assert heard.count(Listens()) == 1


linux = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's /proc to find the workers")


def two_workers(folder):
    (folder / "devices.yaml").write_text("devices: [{ae_title: CT1}]\n")
    return ServiceProcess(site(folder, workers=2, devices={"file": "devices.yaml", "unknown": "accept"}))


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    with two_workers(tmp_path_factory.mktemp("site")) as running:
        yield running


def send(service, *numbers, **changes):
    with SimulatedRIS(service.host, service.hl7_port, f"R{os.urandom(3).hex()}") as ris:
        for number in numbers:
            assert ris.send(rad4_orm(ImagingOrder(number, invented_person(number), START, **changes))).code == "AA"


def modality(service, ae_title="CT1"):
    return SimulatedModality(service.host, service.dicom_port, ae_title)


def workers_of(service):
    """The processes of the workers, by their numbers."""
    main = service.pid
    pids = Path(f"/proc/{main}/task/{main}/children").read_text().split()
    return {int(Path(f"/proc/{pid}/cmdline").read_text().split("\0")[3]): int(pid) for pid in pids}


def events(service, name):
    lines = service.output.read_text().splitlines()
    told = [json.loads(line) for line in lines if line.startswith("{")]
    return [event for event in told if event["event"] == name]


def until(condition, service):
    """Another process cannot be awaited, only asked; it does what is asked in seconds or never."""
    deadline = time.monotonic() + 40
    while time.monotonic() < deadline:
        if condition():
            return
        metric(service, "gateway_associations")
    raise AssertionError(service.output.read_text()[-2000:])


def metric(service, name):
    with closing(socket.create_connection((service.host, service.http_port))) as peer:
        peer.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        text = b"".join(iter(lambda: peer.recv(65_536), b"")).decode()
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name + " "))


@linux
def test_a_performed_step_is_visible_to_every_worker_at_once(service):
    send(service, 1)
    (item,) = modality(service).worklist(AccessionNumber="A000000001")
    uid = modality(service).start(item)
    for _ in range(ENOUGH):
        (now,) = modality(service).worklist(AccessionNumber="A000000001")
        assert now.ScheduledProcedureStepSequence[0].ScheduledProcedureStepStatus == "STARTED"
    modality(service).complete(uid)
    for _ in range(ENOUGH):
        assert modality(service).worklist(AccessionNumber="A000000001") == []


def test_the_counts_of_all_workers_are_shown_as_one(service):
    counted = 'gateway_dimse_requests_total{operation="C-ECHO",status="0000"}'
    time.sleep(4 * TELL_S)  # what the tests before this one did is counted by then
    before = metric(service, counted)
    for _ in range(ENOUGH):
        modality(service, "ECHOES").echo()
    until(lambda: metric(service, counted) == before + ENOUGH, service)
    until(lambda: len(workers_that_answered(service, "ECHOES")) == ENOUGH, service)
    assert set(workers_that_answered(service, "ECHOES")) == {1, 2}


def workers_that_answered(service, ae_title):
    done = events(service, "request_done")
    return [event["worker"] for event in done if event["calling_ae_title"] == ae_title]


def test_the_queries_that_any_worker_answered_are_kept(service):
    for _ in range(ENOUGH):
        modality(service, "ASKER").worklist()
    kept = read_only(f"sqlite:///{service.config.with_name('gateway.db')}")
    until(lambda: len(kept.queries("ASKER")) == ENOUGH, service)
    until(lambda: len(workers_that_answered(service, "ASKER")) == ENOUGH, service)
    assert set(workers_that_answered(service, "ASKER")) == {1, 2}


def test_a_worker_cannot_change_the_store(service):
    reader = read_only(f"sqlite:///{service.config.with_name('gateway.db')}")
    with pytest.raises(StoreError, match="readonly"):
        reader._connection.rows(Prepared(delete(schema.queries)))


def test_a_reload_reaches_every_worker(service):
    devices = service.config.with_name("devices.yaml")
    send(service, 3, station="CT2")
    for _ in range(ENOUGH):
        assert len(modality(service).worklist(AccessionNumber="A000000003")) == 1
    devices.write_text("devices: [{ae_title: CT1, sees: own}]\n")
    os.kill(service.pid, signal.SIGHUP)
    until(lambda: len(events(service, "reloaded")) == 3, service)  # the main process and both workers
    try:
        for _ in range(ENOUGH):
            assert modality(service).worklist(AccessionNumber="A000000003") == []
    finally:
        devices.write_text("devices: [{ae_title: CT1}]\n")
        os.kill(service.pid, signal.SIGHUP)
        until(lambda: len(events(service, "reloaded")) == 6, service)


def test_a_second_gateway_on_the_same_port_is_refused(service, tmp_path):
    config = site(tmp_path, workers=1, dicom={"host": service.host, "port": service.dicom_port})
    second = subprocess.run(
        [sys.executable, "-m", "gateway", "run", "--config", str(config)], capture_output=True, timeout=60, check=False
    )
    assert second.returncode == 1
    assert "in use" in (second.stdout + second.stderr).decode()
    modality(service).echo()


@linux
def test_a_worker_that_dies_is_replaced_and_the_associations_of_others_go_on(service):
    request = encode_find(worklist_identifier({}))
    restarts, listened = metric(service, "gateway_worker_restarts_total"), len(events(service, "worker_listens"))

    async def scene():
        held, places = {}, {}
        try:
            while len(set(places.values())) < 2:
                title = f"M{len(held)}X{os.urandom(2).hex()}"
                held[title] = LoadAssociation(service.host, service.dicom_port, encode_association(title))
                await held[title].__aenter__()
                await held[title].find(request)
                until(lambda: title in answered_by(held), service)  # noqa: B023  (called at once)
                places = answered_by(held)
            victim = places[title]
            os.kill(workers_of(service)[victim], signal.SIGKILL)
            until(lambda: events(service, "worker_died"), service)
            for title, place in places.items():
                if place != victim:
                    await held[title].find(request)
        finally:
            for link in held.values():
                with suppress(ConnectionError, asyncio.IncompleteReadError):  # the dead worker's
                    await link.__aexit__(None, None, None)

    def answered_by(titles):
        return {
            event["calling_ae_title"]: event["worker"]
            for event in events(service, "request_done")
            if event["calling_ae_title"] in titles
        }

    asyncio.run(scene())
    until(lambda: metric(service, "gateway_worker_restarts_total") == restarts + 1, service)
    until(lambda: len(events(service, "worker_listens")) > listened, service)
    modality(service).echo()


@linux
def test_one_process_gives_the_same_answers_as_several(tmp_path):
    service = two_workers(tmp_path)
    asked = [{}, {"AccessionNumber": "A000000011"}, {"PatientName": "*a*"}, {"Modality": "CT"}, {"PatientID": "NOBODY"}]
    with service:
        send(service, *range(10, 20))
        by_several = [[modality(service).worklist(**keys) for _ in range(ENOUGH)] for keys in asked]
    settings = YAML(typ="safe").load(service.config.read_text())
    with service.config.open("w") as file:
        YAML().dump(settings | {"workers": 0}, file)
    with service:
        by_one = [modality(service).worklist(**keys) for keys in asked]
    assert len(by_one[0]) == 10
    for alone, together in zip(by_one, by_several, strict=True):
        assert all(answer == alone for answer in together)


@linux
def test_a_worker_that_hangs_is_replaced(tmp_path):
    loaded = load_site(site(tmp_path, workers=1))
    Store(loaded.store_url).close()
    me = os.getpid()

    def workers_of_this_process():
        pids = Path(f"/proc/{me}/task/{me}/children").read_text().split()
        return [int(pid) for pid in pids if b"gateway.workers" in Path(f"/proc/{pid}/cmdline").read_bytes()]

    async def scene(said):
        workers = Workers(loaded, None, None, lambda _: None, Metrics(), look_s=1.0)
        try:
            await workers.start()
            (pid,) = workers_of_this_process()
            os.kill(pid, signal.SIGSTOP)
            async with asyncio.timeout(60):
                while [event["event"] for event in said].count("worker_listens") < 2:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            assert pid not in workers_of_this_process()
        finally:
            await workers.stop(5)

    with structlog.testing.capture_logs() as said:
        asyncio.run(scene(said))
    assert "worker_hangs" in [event["event"] for event in said]


@linux
def test_sigterm_ends_every_process_and_lets_go_of_the_port(tmp_path):
    service = two_workers(tmp_path).start()
    workers = workers_of(service)
    assert workers.keys() == {1, 2}
    service.stop()
    assert not any(Path(f"/proc/{pid}").exists() for pid in workers.values())
    assert "Traceback" not in service.output.read_text()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((service.host, service.dicom_port))


@linux
def test_workers_end_with_their_main_process(tmp_path):
    service = two_workers(tmp_path).start()
    ends = [os.pidfd_open(pid) for pid in workers_of(service).values()]
    assert len(ends) == 2
    service.kill()
    for each in ends:
        assert select.select([each], [], [], 20)[0]
        os.close(each)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((service.host, service.dicom_port))


# Logs


def test_log_lines_of_several_processes_are_never_mixed():
    written = []

    class Pipe(io.StringIO):
        def write(self, text):
            written.append(text)
            return len(text)

    stream = Unhurried(Pipe())
    for number in range(200):
        print("x" * number, file=stream)  # which gives the line and its end apart
    stream.let_go()
    assert "".join(written) == "".join("x" * number + "\n" for number in range(200))
    assert all(piece.endswith("\n") for piece in written)
    assert max(map(len, written)) <= select.PIPE_BUF
