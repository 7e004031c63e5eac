"""The clock watch: a server that is right, one that lies, one that answers garbage, one that never answers."""

import asyncio
import json
import os
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from threading import Thread
from typing import Any

import ntplib
import pytest
from command_site import CommandSite
from pydantic import ValidationError

from gateway.edges import clock
from gateway.edges.clock import ClockWatch, Reading, asking, in_words, median_of, readings_of
from gateway.edges.metrics import Metrics
from gateway.edges.resolving import Hosts
from gateway.security_settings import ClockSettings
from gateway.service import Service
from gateway.wire.host_ports import host_and_port

PATIENCE_S = 30


class SNTPPeer:
    """Answers every question on a port of loopback as `answer` says, with none for None."""

    def __init__(self, answer: Callable[[bytes], Sequence[bytes]]) -> None:
        self.answer = answer
        self.questions = 0
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.server = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            question, sender = self._socket.recvfrom(256)
            if question == b"end":
                return
            self.questions += 1
            for answer in self.answer(question):
                self._socket.sendto(answer, sender)

    def end(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as knock:
            knock.sendto(b"end", self._socket.getsockname())
        self._thread.join()
        self._socket.close()


def answer(question: bytes, ahead_s: float = 0.0, *, leap: int = 0, mode: int = 4, stratum: int = 2) -> bytes:
    """What a server answers whose clock is so far ahead (RFC 5905, figure 8)."""
    at = ntplib.system_to_ntp_time(time.time() + ahead_s)
    stamp = struct.pack("!II", int(at), int(at % 1 * 2**32))
    return (
        struct.pack("!BBbb", leap << 6 | 4 << 3 | mode, stratum, 6, -20) + bytes(12) + stamp + question[40:] + stamp * 2
    )


def ahead(seconds: float) -> Callable[[bytes], Sequence[bytes]]:
    return lambda question: [answer(question, seconds)]


Peers = Callable[[Callable[[bytes], Sequence[bytes]]], SNTPPeer]


@pytest.fixture
def peer() -> Iterator[Peers]:
    started: list[SNTPPeer] = []

    def start(answer: Callable[[bytes], Sequence[bytes]]) -> SNTPPeer:
        started.append(SNTPPeer(answer))
        return started[-1]

    yield start
    for each in started:
        each.end()


def read(*servers: str) -> tuple[Reading, ...]:
    return asyncio.run(readings_of(servers, asking(Hosts())))


@pytest.mark.parametrize(
    ("server", "where"),
    [
        ("ntp.hosp.example", ("ntp.hosp.example", 123)),
        ("ntp.hosp.example:1123", ("ntp.hosp.example", 1123)),
        ("10.1.2.3", ("10.1.2.3", 123)),
        ("fd00::1", ("fd00::1", 123)),
        ("[fd00::1]:1123", ("fd00::1", 1123)),
        ("[fd00::1]", ("fd00::1", 123)),
    ],
)
def test_a_server_is_named_with_a_port_or_without(server: str, where: tuple[str, int]) -> None:
    assert host_and_port(server, 123) == where


@pytest.mark.parametrize("server", ["ntp:abc", "", "[::1", "ntp:", "ntp:0", "ntp:65536", "[::1]x", "a b"])
def test_what_is_no_server_is_refused_in_the_settings_and_answered_in_words(server: str) -> None:
    with pytest.raises(ValidationError, match=r"names no host|no port behind the colon"):
        ClockSettings(servers=(server,))
    (reading,) = read(server)
    assert reading.offset_s is None
    assert "names no host" in reading.failure or "no port behind the colon" in reading.failure


def test_a_server_that_lies_by_five_seconds_is_read_as_such(peer: Peers) -> None:
    (reading,) = read(peer(ahead(5)).server)
    assert reading.offset_s == pytest.approx(5, abs=1)
    assert (reading.failure, reading.stratum) == ("", 2)


def test_one_liar_of_three_is_outvoted(peer: Peers) -> None:
    readings = read(peer(ahead(0)).server, peer(ahead(5)).server, peer(ahead(0.1)).server)
    offset_s = median_of(readings)
    assert offset_s is not None
    assert abs(offset_s) < 1


def test_the_sign_is_said_for_people() -> None:
    assert in_words(5.0) == "5.000 s slow"
    assert in_words(-0.25) == "0.250 s fast"


@pytest.mark.parametrize(
    ("answers", "why"),
    [
        (lambda question: [], "no answer"),
        (lambda question: [b"garbage"], "answers, but not what was asked by NTP"),
        (lambda question: [os.urandom(200)] * 50, "answers, but not what was asked by NTP"),
        (lambda question: [b""], "answers, but not what was asked by NTP"),
        (lambda question: [answer(bytes(48), 5)], "answers, but not what was asked by NTP"),  # an old one, or forged
        (lambda question: [answer(question, mode=3)], "answers by something else than NTP"),
        (lambda question: [answer(question, leap=3)], "does not know the time itself"),
        (lambda question: [answer(question, stratum=16)], "does not know the time itself"),
        (lambda question: [answer(question, stratum=0)], "wants to be left alone"),
    ],
)
def test_what_is_no_time_does_not_count(
    peer: Peers, answers: Callable[[bytes], Sequence[bytes]], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "ANSWER_S", 0.2)
    (reading,) = read(peer(answers).server)
    assert (reading.offset_s, reading.failure) == (None, why)


def test_a_true_answer_counts_among_forged_ones(peer: Peers) -> None:
    forged = answer(bytes(48), 3600)
    (reading,) = read(peer(lambda question: [forged, b"", answer(question), forged]).server)
    assert reading.offset_s == pytest.approx(0, abs=1)


def test_where_nobody_listens_the_others_are_heard(peer: Peers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "ANSWER_S", 0.2)
    nobody = peer(ahead(0))
    readings = read("127.0.0.1:1", "no..name", peer(ahead(0)).server, nobody.server)
    assert [bool(each.failure) for each in readings] == [True, True, False, False]
    assert readings[1].failure == "the name of its host is not known"


def test_what_begins_and_ends_is_said_once() -> None:
    said: list[tuple[str, dict[str, Any]]] = []
    offsets: dict[str, float | None] = {"a": 0.0, "b": 0.0}

    def ask(server: str) -> Reading:
        offset_s = offsets[server]
        return Reading(server, offset_s, failure="no answer" if offset_s is None else "")

    def note(kind: str) -> Callable[..., None]:
        return lambda event, /, **fields: said.append((f"{kind} {event}", fields))

    watch = ClockWatch(note("good"), note("bad"), ask)

    def events() -> list[str]:
        said.clear()
        asyncio.run(watch.look(("a", "b"), 1.0))
        return [event for event, _ in said]

    assert events() == []
    offsets["a"] = offsets["b"] = -2.0
    assert events() == ["bad clock_off"]
    assert said[0][1] == {"clock": "2.000 s fast", "warn_s": 1.0}
    assert events() == []
    offsets["a"] = None
    assert events() == ["bad clock_server_silent"]
    assert said[0][1] == {"server": "a", "why": "no answer"}
    offsets["b"] = None
    assert events() == ["bad clock_server_silent"]
    assert events() == [], "nobody knows, so nothing is claimed"
    offsets["a"] = offsets["b"] = 0.5
    assert events() == ["good clock_server_answers", "good clock_server_answers", "good clock_right"]
    assert events() == []


def test_a_defect_in_one_question_does_not_keep_the_others_from_being_heard() -> None:
    def ask(server: str) -> Reading:
        if server == "a":
            raise ValueError
        return Reading(server, 0.0)

    assert [each.failure for each in asyncio.run(readings_of(("a", "b"), ask))] == ["ValueError", ""]


def test_the_offset_of_each_server_is_a_metric() -> None:
    metrics = Metrics()
    metrics.clock = lambda: [("ntp1", 0.25)]
    assert metrics.registry.get_sample_value("gateway_clock_offset_seconds", {"server": "ntp1"}) == 0.25


# --- as a site sees it ------------------------------------------------------------------------------------------------


def configured(folder: Path, *servers: str) -> CommandSite:
    site = CommandSite(folder / "site")
    with site.config.open("a") as file:
        file.write(f"clock: {{servers: {json.dumps(servers)}, warn_s: 1}}\n")
    return site


def test_the_command_says_each_server_and_refuses_a_clock_that_is_off(tmp_path: Path, peer: Peers) -> None:
    site = configured(tmp_path, peer(ahead(0)).server)
    done = site("clock", "--json")
    assert done.exit_code == 0
    assert abs(json.loads(done.stdout)["offset_s"]) < 1
    off = site("clock", peer(ahead(5)).server)
    assert off.exit_code == 1
    assert "s slow; let the system's NTP service set it" in off.stderr


def test_a_service_looks_at_its_clock_as_it_starts(
    tmp_path: Path, peer: Peers, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gateway.config import load_site
    from gateway.testing import free_port

    liar = peer(ahead(5))
    site = configured(tmp_path, liar.server)
    words = site.config.read_text()
    for default in ("11112", "2575", "8080"):
        words = words.replace(f"port: {default}", f"port: {free_port()}")
    site.config.write_text(words)

    async def scenario() -> float | None:
        service, looked = Service(load_site(site.config)), asyncio.Event()
        look = service.look_at_clock

        async def looking() -> None:
            await look()
            looked.set()

        monkeypatch.setattr(service, "look_at_clock", looking)
        await service.start(lambda line: None)
        try:
            async with asyncio.timeout(PATIENCE_S):
                await looked.wait()
            return service.metrics.registry.get_sample_value("gateway_clock_offset_seconds", {"server": liar.server})
        finally:
            await service.stop()

    assert asyncio.run(scenario()) == pytest.approx(5, abs=1)


# --- a real server ----------------------------------------------------------------------------------------------------


@pytest.fixture
def chrony(tmp_path: Path) -> Iterator[str]:
    """chronyd that serves this machine's own time and never sets it (-x), on a port of loopback."""
    program = shutil.which("chronyd") or shutil.which("chronyd", path="/usr/sbin")
    if program is None:
        pytest.skip("chronyd is not installed")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = tmp_path / "chrony.conf"
    config.write_text(
        f"local stratum 8\nallow 127.0.0.1\nbindaddress 127.0.0.1\nport {port}\ncmdport 0\n"
        f"bindcmdaddress /\npidfile {tmp_path / 'chronyd.pid'}\n"
    )
    said = tmp_path / "chronyd.log"
    with said.open("wb") as log:
        process = subprocess.Popen([program, "-x", "-d", "-u", "root", "-f", str(config)], stdout=log, stderr=log)
    try:
        for _ in range(20):
            if process.poll() is not None:
                pytest.skip(f"chronyd does not run here: {said.read_text()[-200:]}")
            if not read(f"127.0.0.1:{port}")[0].failure:
                break
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def test_chrony_tells_the_time_and_a_liar_beside_it_is_seen(chrony: str, peer: Peers) -> None:
    true, false = read(chrony, peer(ahead(5)).server)
    assert (true.failure, true.stratum) == ("", 8)
    assert true.offset_s == pytest.approx(0, abs=1)
    assert false.offset_s == pytest.approx(5, abs=1)
