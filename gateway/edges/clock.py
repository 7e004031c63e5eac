"""The watch over the machine's clock: how far it is from what NTP servers say (PS3.15 Annex G, IHE Consistent Time).

The machine's own service sets the clock; here it is only compared, by SNTP, and nothing is ever refused because of it.
What is not an answer to what was asked, or comes from a server that does not know the time itself, does not count. Of
the others the median does, so that one that lies is outvoted where there are three.
"""

import asyncio
import contextlib
import math
import socket
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import ntplib

from gateway.edges.channel import why
from gateway.edges.mllp import Observe
from gateway.edges.resolving import Hosts
from gateway.wire.host_ports import host_and_port

PORT = 123

ANSWER_S = 2.0
"""For an answer of one address of a server: they are in the house, or a few hops away."""

ADDRESSES_TRIED = 2
"""Of one server, such as one of IPv6 and one of IPv4."""

STRATUM_MAX = 15
"""What a server with more says is no time (RFC 5905, section 7.3)."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What came of asking one server. `offset_s` is what has to be added to this machine's time; None: `failure` says
    why there is none."""

    server: str
    offset_s: float | None = None
    delay_s: float = 0.0
    stratum: int = 0
    failure: str = ""


class NoTime(Exception):  # noqa: N818  (reads as what happened)
    """A server gave no time that counts; the text says why."""


Ask = Callable[[str], Reading]
"""Asks one server, at most for some seconds. Raises nothing."""


def asking(hosts: Hosts) -> Ask:
    """Asks by SNTP `host`, `host:port` or `[address]:port`."""

    def ask(server: str) -> Reading:
        try:
            host, port = host_and_port(server, PORT)
            addresses = hosts.addresses(host)[:ADDRESSES_TRIED]
        except ValueError as error:
            return Reading(server, failure=str(error))
        except OSError as error:
            return Reading(server, failure=why(error))
        failure = ""
        for address in addresses:
            try:
                said = asked(address, port)
            except NoTime as error:
                failure = str(error)
            except OSError as error:
                hosts.doubt(host)
                failure = why(error)
            else:
                hosts.worked(host, address)
                return Reading(server, said.offset, said.delay, said.stratum)
        return Reading(server, failure=failure)

    return ask


def asked(address: str, port: int) -> ntplib.NTPStats:
    """The answer of an address to our question, and no other's. Raises OSError, NoTime; waits for
    `ANSWER_S`."""
    family, kind, protocol, _, where = socket.getaddrinfo(address, port, type=socket.SOCK_DGRAM)[0]
    until = time.monotonic() + ANSWER_S
    with socket.socket(family, kind, protocol) as connection:
        connection.connect(where)  # the system then drops what others send
        question = ntplib.NTPPacket(4, 3, ntplib.system_to_ntp_time(time.time())).to_data()
        connection.send(question)
        came = False
        while (left_s := until - time.monotonic()) > 0:
            connection.settimeout(left_s)
            try:
                answer = connection.recv(256)
            except TimeoutError:
                break
            came, arrived_at = True, ntplib.system_to_ntp_time(time.time())
            if _answers(question, answer):
                return _usable(answer, arrived_at)
    raise NoTime("answers, but not what was asked by NTP" if came else "no answer")


def _answers(question: bytes, answer: bytes) -> bool:
    """Whether it bears the time stamp that the question had, by which forged and late answers are known."""
    return len(answer) >= 48 and answer[24:32] == question[40:48]


def _usable(answer: bytes, arrived_at: float) -> ntplib.NTPStats:
    """Raises NoTime where the server does not know the time (RFC 5905, section 10)."""
    said = ntplib.NTPStats()
    try:
        said.from_data(answer)
    except ntplib.NTPException as error:
        raise NoTime("answers by something else than NTP") from error
    said.dest_timestamp = arrived_at
    if said.mode != 4:
        raise NoTime("answers by something else than NTP")
    if said.stratum == 0:  # a "kiss of death"
        raise NoTime("wants to be left alone")
    if said.leap == 3 or said.stratum > STRATUM_MAX or not said.tx_timestamp:
        raise NoTime("does not know the time itself")
    if not math.isfinite(said.offset) or said.delay < -1:
        raise NoTime("contradicts itself")
    return said


class ClockWatch:
    """Compares the clock with some servers and says what changes, once: `warn` of what is wrong, `observe` when it is
    right again."""

    def __init__(self, observe: Observe, warn: Observe, ask: Ask) -> None:
        self._observe, self._warn = observe, warn
        self._ask = ask
        self._silent: set[str] = set()
        self._off = False
        self.readings: tuple[Reading, ...] = ()
        """Of the last look."""

    async def look(self, servers: Sequence[str], warn_s: float) -> tuple[Reading, ...]:
        """Ask every server, all at once, and say what is new."""
        self.readings = await readings_of(servers, self._ask)
        self._tell_silent()
        offset_s = median_of(self.readings)
        if offset_s is not None and (abs(offset_s) > warn_s) is not self._off:
            self._off = not self._off
            tell, event = (self._warn, "clock_off") if self._off else (self._observe, "clock_right")
            tell(event, clock=in_words(offset_s), warn_s=warn_s)
        return self.readings

    def _tell_silent(self) -> None:
        for reading in self.readings:
            if reading.failure and reading.server not in self._silent:
                self._warn("clock_server_silent", server=reading.server, why=reading.failure)
            elif not reading.failure and reading.server in self._silent:
                self._observe("clock_server_answers", server=reading.server)
        self._silent = {reading.server for reading in self.readings if reading.failure}


def median_of(readings: Sequence[Reading]) -> float | None:
    """What has to be added to this machine's time, by the servers that know; None where none does."""
    known = [reading.offset_s for reading in readings if reading.offset_s is not None]
    return statistics.median(known) if known else None


async def readings_of(servers: Sequence[str], ask: Ask) -> tuple[Reading, ...]:
    """What each server says, in their order. A thread each, which nobody waits for at the end of the process."""
    return tuple(await asyncio.gather(*(_in_thread(server, ask) for server in dict.fromkeys(servers))))


async def _in_thread(server: str, ask: Ask) -> Reading:
    loop = asyncio.get_running_loop()
    told: asyncio.Future[Reading] = loop.create_future()

    def tell(reading: Reading) -> None:
        if not told.done():  # nobody waits any more
            told.set_result(reading)

    def run() -> None:
        try:
            reading = ask(server)
        except Exception as error:  # a defect of ours must not keep the other servers from being heard
            reading = Reading(server, failure=type(error).__name__)
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(tell, reading)

    threading.Thread(target=run, daemon=True, name="ntp").start()
    return await told


def in_words(offset_s: float) -> str:
    """`0.004 s fast`: how this machine's clock is."""
    return f"{abs(offset_s):.3f} s {'slow' if offset_s > 0 else 'fast'}"
