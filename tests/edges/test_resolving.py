"""Hosts that are named: looked up when used, followed when they move, and no name server that hangs stops anybody."""

import asyncio
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread

import dns.exception
import dns.resolver
import pytest
from performed_telling import AT, COMPLETE, CREATE, UID, telling, unheld

from gateway.edges import resolving
from gateway.edges.channel import Destination, why
from gateway.edges.delivery import Deliverer
from gateway.edges.hl7_channel import HL7Channel
from gateway.edges.performed_channel import PerformedChannel
from gateway.edges.resolving import AGAIN_S, FRESH_S, STALE_S, Hosts, is_address, look_up
from gateway.edges.store import Store
from gateway.testing.performed_receiver import PerformedReceiver
from gateway.testing.ris_receiver import SimulatedRISReceiver
from gateway.workflow.outbox import Attempt, Delivery, Patience, enqueue
from gateway.workflow.ports import DeliveryKind

HOST = "ris.hosp.example"
HERE, THERE = "127.0.0.1", "127.0.0.2"
QUICK = Patience(first_s=0.01, most_s=0.05)
PATIENCE_S = 30


class Names:
    """A name server that is told what to say, with its clock; `asked` is what it was asked."""

    def __init__(self, *addresses: str) -> None:
        self.addresses: Sequence[str] | Exception = addresses
        self.asked: list[str] = []
        self.time_s = 1_000.0
        self.hosts = Hosts(self._look_up, lambda: self.time_s)

    def _look_up(self, host: str) -> Sequence[str]:
        self.asked.append(host)
        if isinstance(self.addresses, Exception):
            raise self.addresses
        return self.addresses


AWAY = socket.gaierror(socket.EAI_AGAIN, "away")


# --- what is known ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["10.1.2.3", "fd00::1", "fe80::1%eth0", "::ffff:10.1.2.3"])
def test_an_address_is_not_looked_up(address: str) -> None:
    names = Names()
    assert is_address(address)
    assert names.hosts.addresses(address) == (address,)
    assert not names.asked


def test_an_answer_holds_for_its_time_and_is_then_asked_for_again() -> None:
    names = Names(HERE)
    assert names.hosts.addresses(HOST) == (HERE,)
    names.addresses = (THERE,)
    names.time_s += FRESH_S - 1
    assert names.hosts.addresses(HOST) == (HERE,)
    names.time_s += 1
    assert names.hosts.addresses(HOST) == (THERE,)
    assert names.asked == [HOST, HOST]


def test_what_led_nowhere_is_asked_for_again_at_once() -> None:
    names = Names(HERE)
    names.hosts.addresses(HOST)
    names.addresses = (THERE,)
    names.hosts.doubt(HOST)
    assert names.hosts.addresses(HOST) == (THERE,)


def test_the_last_good_answer_serves_while_no_name_server_does_and_not_for_ever() -> None:
    names = Names(HERE)
    names.hosts.addresses(HOST)
    names.addresses = AWAY
    names.time_s += FRESH_S
    assert names.hosts.addresses(HOST) == (HERE,)
    assert names.hosts.addresses(HOST) == (HERE,)
    assert len(names.asked) == 2, "after a failure it is left in peace for a while"
    names.time_s += AGAIN_S
    assert names.hosts.addresses(HOST) == (HERE,)
    assert len(names.asked) == 3
    names.time_s += STALE_S
    with pytest.raises(socket.gaierror):
        names.hosts.addresses(HOST)
    names.addresses = (THERE,)
    assert names.hosts.addresses(HOST) == (THERE,)


def test_a_purge_forgets_also_what_would_serve_on() -> None:
    names = Names(HERE)
    names.hosts.addresses(HOST)
    names.addresses = AWAY
    names.hosts.purge()
    with pytest.raises(socket.gaierror):
        names.hosts.addresses(HOST)


def test_what_is_doubted_as_a_whole_is_asked_for_again_and_serves_while_nobody_answers() -> None:
    names = Names(HERE)
    assert [names.hosts.addresses(each) for each in ("ct1", "mr1")] == [(HERE,), (HERE,)]
    names.hosts.doubt_all()
    names.addresses = (THERE,)
    assert names.hosts.addresses("ct1") == (THERE,)
    names.addresses = AWAY
    assert names.hosts.addresses("mr1") == (HERE,)


def test_the_address_that_worked_is_tried_first_while_the_name_means_it() -> None:
    names = Names("10.0.0.1", "10.0.0.2", "10.0.0.3")
    names.hosts.addresses(HOST)
    names.hosts.worked(HOST, "10.0.0.2")
    assert names.hosts.addresses(HOST) == ("10.0.0.2", "10.0.0.1", "10.0.0.3")
    names.time_s += FRESH_S
    assert names.hosts.addresses(HOST)[0] == "10.0.0.2"
    names.addresses = ("10.0.0.1", "10.0.0.3")
    names.time_s += FRESH_S
    assert names.hosts.addresses(HOST) == ("10.0.0.1", "10.0.0.3")


def test_one_host_has_so_many_addresses_at_most() -> None:
    names = Names(*(f"10.0.0.{number}" for number in range(1, 100)))
    assert len(names.hosts.addresses(HOST)) == resolving.ADDRESSES_MAX


@pytest.mark.parametrize("host", ["", "a..b", "x" * 64 + ".example", "no such host", "\u2028"])
def test_what_is_no_name_is_said_as_such(host: str) -> None:
    with pytest.raises(OSError, match=r".") as error:
        Hosts(look_up).addresses(host)
    assert "name" in why(error.value)


def test_the_name_of_this_machine_is_found_by_the_system() -> None:
    assert set(Hosts().addresses("localhost")) <= {"127.0.0.1", "::1"}


# --- name servers that hang -------------------------------------------------------------------------------------------


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Hosts, Event, list[str]]]:
    """Hosts whose look-ups hang until the event is set; how often somebody was asked."""
    monkeypatch.setattr(resolving, "WAIT_S", 0.05)
    monkeypatch.setattr(resolving, "WAIT_STALE_S", 0.05)
    answers, asked = Event(), list[str]()

    def hang(host: str) -> Sequence[str]:
        asked.append(host)
        answers.wait(PATIENCE_S)
        return (HERE,)

    yield Hosts(hang), answers, asked
    answers.set()


def test_nobody_waits_long_for_a_name_server_that_hangs(hanging: tuple[Hosts, Event, list[str]]) -> None:
    hosts, answers, asked = hanging
    for _ in range(3):
        with pytest.raises(socket.gaierror) as error:
            hosts.addresses(HOST)
        assert why(error.value) == "no name server answers for the name of its host"
    assert asked == [HOST], "one look-up is under way, however many wait for it"
    answers.set()
    found = []
    while not found:  # it came late, and is held
        with suppress(socket.gaierror):
            found.extend(hosts.addresses(HOST))
    assert found == [HERE]


def test_a_name_server_that_hangs_does_not_hold_up_the_event_loop(hanging: tuple[Hosts, Event, list[str]]) -> None:
    hosts, answers, _ = hanging

    async def scenario() -> None:
        waiting = asyncio.create_task(hosts.addresses_soon(HOST))
        await asyncio.sleep(0)
        assert not waiting.done()
        answers.set()  # by the event loop, which therefore runs
        with suppress(socket.gaierror):  # the machine is busy
            assert await waiting == (HERE,)

    asyncio.run(scenario())


def test_many_who_ask_together_cause_one_look_up(hanging: tuple[Hosts, Event, list[str]]) -> None:
    hosts, answers, asked = hanging
    found: list[tuple[str, ...]] = []

    def ask() -> None:
        with suppress(socket.gaierror):
            found.append(hosts.addresses(HOST))

    threads = [Thread(target=ask) for _ in range(20)]
    for thread in threads:
        thread.start()
    answers.set()
    for thread in threads:
        thread.join()
    assert asked == [HOST]
    assert set(found) <= {(HERE,)}


# --- deliveries follow ------------------------------------------------------------------------------------------------


def delivery(control_id: str) -> Delivery:
    message = f"MSH|^~\\&|GATEWAY||RIS||20260705||ORM^O01|{control_id}|P|2.3.1\rORC|SC|P1\r".encode()
    return Delivery(1, DeliveryKind.HL7, 1, "ris", "", control_id, message, AT, AT)


@pytest.fixture
def two_receivers() -> Iterator[tuple[SimulatedRISReceiver, SimulatedRISReceiver]]:
    """At one port of two addresses."""
    with SimulatedRISReceiver() as here, SimulatedRISReceiver(host=THERE, port=here.port) as there:
        yield here, there


def test_an_open_connection_is_left_when_its_host_has_moved(
    two_receivers: tuple[SimulatedRISReceiver, SimulatedRISReceiver],
) -> None:
    here, there = two_receivers
    names = Names(HERE)

    async def scenario() -> None:
        channel = HL7Channel(Destination("ris", HOST, here.port), hosts=names.hosts)
        assert (await channel.send(delivery("M1"))).attempt is Attempt.ACCEPTED
        names.addresses = (THERE,)
        assert (await channel.send(delivery("M2"))).attempt is Attempt.ACCEPTED
        names.time_s += FRESH_S
        assert (await channel.send(delivery("M3"))).attempt is Attempt.ACCEPTED
        names.addresses = AWAY
        names.time_s += STALE_S + FRESH_S
        assert (await channel.send(delivery("M4"))).attempt is Attempt.ACCEPTED, "an open connection serves on"
        await channel.close()
        gone = await channel.send(delivery("M5"))
        assert (gone.attempt, gone.reason) == (
            Attempt.UNREACHABLE, "no name server answers for the name of its host",
        )  # fmt: skip

    asyncio.run(scenario())
    assert [each.control_id for each in here.received] == ["M1", "M2"]
    assert [each.control_id for each in there.received] == ["M3", "M4"]


def test_the_outbox_finds_a_receiver_that_moved_without_waiting_for_the_answer_to_age(tmp_path: Path) -> None:
    names = Names(HERE)

    async def scenario(here: SimulatedRISReceiver, there: SimulatedRISReceiver, store: Store) -> None:
        to = Destination("ris", HOST, here.port, answer_timeout_s=5)
        deliverer = Deliverer(to, store, lambda *_, **__: None, QUICK, channel=HL7Channel(to, hosts=names.hosts))
        deliverer.start()
        try:
            put(store, "M1")
            deliverer.wake()
            await asyncio.to_thread(here.got, 1)
            await asyncio.to_thread(here.stop)  # DHCP gave it another address
            names.addresses = (THERE,)
            put(store, "M2")
            deliverer.wake()
            await asyncio.to_thread(there.got, 1)
        finally:
            await deliverer.stop(1.0)

    def put(store: Store, control_id: str) -> None:
        each = delivery(control_id)
        store.write(lambda unit: enqueue(unit, "ris", None, control_id, each.payload, AT)).result()

    with (
        SimulatedRISReceiver() as here, SimulatedRISReceiver(host=THERE, port=here.port) as there,
        Store(f"sqlite:///{tmp_path / 'gateway.db'}") as store,
    ):  # fmt: skip
        asyncio.run(scenario(here, there, store))
        assert [each.control_id for each in there.received] == ["M2"]


def test_every_address_is_tried(two_receivers: tuple[SimulatedRISReceiver, SimulatedRISReceiver]) -> None:
    here, there = two_receivers
    here.stop()
    names = Names("::1", HERE, THERE)

    async def scenario() -> None:
        channel = HL7Channel(Destination("ris", HOST, there.port), hosts=names.hosts)
        assert (await channel.send(delivery("M1"))).attempt is Attempt.ACCEPTED
        await channel.close()

    asyncio.run(scenario())
    assert names.hosts.addresses(HOST)[0] == THERE


def performed(operation: str, data: bytes) -> Delivery:
    return Delivery(
        1, DeliveryKind.PERFORMED, 0, "pacs", UID, UID, data, AT, AT, operation=operation,
        transfer_syntax="1.2.840.10008.1.2.1",
    )  # fmt: skip


def test_an_association_is_left_when_its_host_has_moved() -> None:
    names = Names("::1", HERE)  # nobody is at the first
    with PerformedReceiver() as here, PerformedReceiver(host=THERE, port=here.port) as there:

        async def scenario() -> None:
            to = Destination("pacs", "pacs.hosp.example", here.port, answer_timeout_s=5)
            channel = PerformedChannel(to, "PACS", "GATEWAY", unheld, idle_s=60, hosts=names.hosts)
            assert (await channel.send(performed("N-CREATE", CREATE))).attempt is Attempt.ACCEPTED
            there.steps[UID] = "IN PROGRESS"
            names.addresses = (THERE,)
            names.time_s += FRESH_S
            assert (await channel.send(performed("N-SET", COMPLETE))).attempt is Attempt.ACCEPTED
            await channel.close()

        asyncio.run(scenario())
        here.wait_for(lambda: here.released == 1)
        assert [each.operation for each in here.reported] == ["N-CREATE"]
        assert [each.operation for each in there.reported] == ["N-SET"]


def test_a_host_that_nobody_knows_is_away_and_no_defect_of_the_message(tmp_path: Path) -> None:
    async def scenario() -> None:
        to = Destination("pacs", "pacs..example", 11112)
        async with telling(tmp_path, to) as running:
            await running.put("N-CREATE", CREATE)
            assert await running.outcomes(1, "waiting") == ["UNREACHABLE"]

    asyncio.run(scenario())


# --- a real name server -----------------------------------------------------------------------------------------------


def unused_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def name_server(tmp_path: Path) -> Iterator["DNSMasq"]:
    program = shutil.which("dnsmasq") or shutil.which("dnsmasq", path="/usr/sbin")
    if program is None:
        pytest.skip("dnsmasq is not installed")
    with DNSMasq(program, tmp_path, unused_port()) as server:
        yield server


class DNSMasq:
    """dnsmasq on a port of loopback, with a hosts file that it reads again when told."""

    def __init__(self, program: str, folder: Path, port: int) -> None:
        self._file = folder / "hosts"
        self._words = [
            program, "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", f"--port={port}",
            "--listen-address=127.0.0.1", "--bind-interfaces", f"--addn-hosts={self._file}", "--local=/example/",
            "--pid-file=", "--user=", "--log-facility=-",
        ]  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None
        self.resolver = dns.resolver.Resolver(configure=False)
        self.resolver.nameservers = ["127.0.0.1"]
        self.resolver.port = port
        self.resolver.lifetime = 2.0

    def __enter__(self) -> "DNSMasq":
        self.say(HERE)
        self._process = subprocess.Popen(self._words, stderr=subprocess.DEVNULL)
        for _ in range(50):
            with suppress(dns.exception.DNSException):
                self.look_up(HOST)
                return self
        raise TimeoutError("dnsmasq did not start")

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def say(self, address: str) -> None:
        self._file.write_text(f"{address} {HOST}\n")
        if self._process is not None:
            self._process.send_signal(signal.SIGHUP)

    def look_up(self, host: str) -> Sequence[str]:
        return [str(record) for record in self.resolver.resolve(host, "A")]

    def for_the_system(self, host: str) -> Sequence[str]:
        """As `getaddrinfo` would say it, which cannot be told another port."""
        try:
            return self.look_up(host)
        except dns.exception.DNSException as error:
            raise socket.gaierror(socket.EAI_AGAIN, "no answer") from error


def test_a_name_that_is_moved_in_a_name_server_is_followed_and_survives_its_end(name_server: DNSMasq) -> None:
    time_s = 0.0
    hosts = Hosts(name_server.for_the_system, lambda: time_s)
    assert hosts.addresses(HOST) == (HERE,)
    name_server.say(THERE)
    for _ in range(100):
        if name_server.look_up(HOST) == [THERE]:
            break
    assert hosts.addresses(HOST) == (HERE,)
    time_s += FRESH_S
    assert hosts.addresses(HOST) == (THERE,)
    name_server.end()
    time_s += FRESH_S
    assert hosts.addresses(HOST) == (THERE,)
