"""How far one gets with a peer, in words: real peers that answer, refuse, speak something else, or say nothing."""

import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import trustme

from gateway.edges.channel import Destination
from gateway.edges.echo import Echoed, Phase, connects, echo
from gateway.edges.resolving import Hosts
from gateway.edges.tls import client_context
from gateway.testing import free_port
from gateway.testing.performed_receiver import PerformedReceiver
from gateway.testing.ris_receiver import SimulatedRISReceiver

HOST = "ct1.hosp.example"
HOSTS = Hosts(lambda host: ["127.0.0.1"])


def to(port: int, tls: ssl.SSLContext | None = None, host: str = HOST) -> Destination:
    return Destination("ct1", host, port, answer_timeout_s=2.0, tls=tls)


def asked(port: int, tls: ssl.SSLContext | None = None, called: str = "PACS") -> Echoed:
    return echo(to(port, tls), called, "GATEWAY", HOSTS)


# --- certificates -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def server(authority: trustme.CA, name: str = HOST, clients: trustme.CA | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    if clients is not None:
        clients.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


@pytest.fixture
def ours(authority: trustme.CA, tmp_path: Path) -> ssl.SSLContext:
    """What we ask with: it trusts the authority."""
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return client_context(str(tmp_path / "ca.pem"))


# --- DICOM ------------------------------------------------------------------------------------------------------------


def test_a_peer_that_answers_is_known_by_its_address() -> None:
    with PerformedReceiver() as peer:
        answer = asked(peer.port)
    assert answer.answered
    assert (answer.phase, answer.text, answer.address) == (Phase.DONE, "", "127.0.0.1")


def test_a_name_that_nobody_knows_is_where_it_ends() -> None:
    answer = echo(to(104, host="no..name"), "PACS", "GATEWAY", Hosts())
    assert (answer.phase, answer.text) == (Phase.NAME, "the name of its host is not known")


def test_a_port_where_nobody_listens_is_where_it_ends() -> None:
    answer = asked(free_port())
    assert (answer.phase, answer.text) == (Phase.TCP, "connection refused")


def test_a_peer_that_is_called_otherwise_says_so_and_what_to_compare() -> None:
    with PerformedReceiver("PACS") as peer:
        answer = asked(peer.port, called="pacs")
    assert (answer.phase, answer.text) == (
        Phase.ASSOCIATION, "rejected: it is not called pacs: compare its AE title, case counts",
    )  # fmt: skip


def test_a_peer_that_does_not_know_us_says_what_to_register_there() -> None:
    with PerformedReceiver() as peer:
        peer.admit("SOMEBODY")
        answer = asked(peer.port)
    assert answer.phase is Phase.ASSOCIATION
    assert "it does not know GATEWAY: register this AE title there" in answer.text


class OddPeer:
    """Accepts connections, and does this with each of them."""

    def __init__(self, what: Callable[[socket.socket], None]) -> None:
        from threading import Thread

        self._what = what
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._held: list[socket.socket] = []
        Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                self._held.append(connection)
                with suppress(OSError):
                    self._what(connection)

    def __enter__(self) -> "OddPeer":
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for connection in self._held:
            connection.close()


def silent(connection: socket.socket) -> None:
    """It says nothing."""


def hang_up(connection: socket.socket) -> None:
    connection.close()


def web_server(connection: socket.socket) -> None:
    connection.recv(10_000)
    connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


@pytest.mark.parametrize("peer", [silent, hang_up, web_server])
def test_a_port_that_speaks_no_dicom_is_said_as_such(peer: Callable[[socket.socket], None]) -> None:
    with OddPeer(peer) as odd:
        answer = asked(odd.port)
    assert (answer.phase, answer.text) == (
        Phase.ASSOCIATION,
        "connected, but the request is not answered: it is no DICOM port, or wants TLS on this port",
    )


# --- DICOM under TLS --------------------------------------------------------------------------------------------------


# Where the handshake fails, the peer is one of ours: pynetdicom's server leaves such connections open.


def test_a_peer_under_tls_answers(authority: trustme.CA, ours: ssl.SSLContext) -> None:
    with PerformedReceiver(tls=server(authority)) as peer:
        assert asked(peer.port, ours).answered


def test_a_certificate_for_another_host_is_named_as_what_is_wrong(authority: trustme.CA, ours: ssl.SSLContext) -> None:
    with SimulatedRISReceiver(tls=server(authority, "mr1.hosp.example")) as peer:
        answer = asked(peer.port, ours)
    assert answer.phase is Phase.TLS
    assert "name" in answer.text


def test_a_certificate_of_an_unknown_authority_is_named_as_what_is_wrong(ours: ssl.SSLContext) -> None:
    with SimulatedRISReceiver(tls=server(trustme.CA())) as peer:
        answer = asked(peer.port, ours)
    assert answer.phase is Phase.TLS
    assert "authority" in answer.text or "sign" in answer.text


@pytest.mark.parametrize("peer", [silent, hang_up, web_server])
def test_a_port_without_tls_is_where_it_ends(peer: Callable[[socket.socket], None], ours: ssl.SSLContext) -> None:
    with OddPeer(peer) as odd:
        answer = asked(odd.port, ours)
    assert answer.phase is Phase.TLS
    assert answer.text.startswith("TLS failed while ")


def test_plain_to_a_port_of_tls_says_that_it_may_want_it(authority: trustme.CA) -> None:
    with SimulatedRISReceiver(tls=server(authority)) as peer:
        answer = asked(peer.port)
    assert answer.phase is Phase.ASSOCIATION
    assert "wants TLS" in answer.text


# --- HL7 --------------------------------------------------------------------------------------------------------------


def test_an_hl7_peer_is_connected_to_and_told_nothing() -> None:
    with SimulatedRISReceiver() as ris:
        answer = connects(to(ris.port), HOSTS)
        assert answer.answered
        assert not ris.received


def test_an_hl7_peer_under_tls_is_connected_to(authority: trustme.CA, ours: ssl.SSLContext) -> None:
    with SimulatedRISReceiver(tls=server(authority)) as ris:
        assert connects(to(ris.port, ours), HOSTS).answered


def test_an_hl7_peer_that_wants_a_certificate_of_ours_is_no_success(
    authority: trustme.CA, ours: ssl.SSLContext
) -> None:
    with SimulatedRISReceiver(tls=server(authority, clients=authority)) as ris:
        answer = connects(to(ris.port, ours), HOSTS)
    assert answer.phase is Phase.TLS
    assert "certificate" in answer.text or "closed" in answer.text


def test_every_address_of_an_hl7_peer_is_tried() -> None:
    hosts = Hosts(lambda host: ["127.0.0.2", "127.0.0.1"])
    with SimulatedRISReceiver() as ris:
        answer = connects(to(ris.port), hosts)
    assert (answer.phase, answer.address) == (Phase.DONE, "127.0.0.1")


def test_where_no_hl7_peer_is_that_is_said() -> None:
    assert connects(to(free_port()), HOSTS).text == "connection refused"
    assert connects(to(2575, host="no..name"), Hosts()).phase is Phase.NAME


# --- DCMTK ------------------------------------------------------------------------------------------------------------


StoreSCP = Callable[..., int]


@pytest.fixture
def storescp(tmp_path: Path) -> Iterator[StoreSCP]:
    """DCMTK's storescp with these options; its port."""
    program = shutil.which("storescp")
    if program is None:
        pytest.skip("storescp is not installed (Debian package dcmtk)")
    started: list[subprocess.Popen[bytes]] = []

    def start(*options: str) -> int:
        port = free_port()
        words = [program, *options, "-aet", "PACS", "-od", str(tmp_path), str(port)]
        started.append(subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        for _ in range(1_000):
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                return port
            try:
                started[-1].wait(0.02)
            except subprocess.TimeoutExpired:
                continue
            break
        raise AssertionError("storescp did not start")

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_storescp_answers(storescp: StoreSCP) -> None:
    assert asked(storescp()).answered


def test_storescp_that_refuses_is_told_apart(storescp: StoreSCP) -> None:
    answer = asked(storescp("--refuse"))
    assert answer.phase is Phase.ASSOCIATION
    assert answer.text.startswith("rejected: it gives no reason")


def test_storescp_answers_under_tls(
    storescp: StoreSCP, authority: trustme.CA, ours: ssl.SSLContext, tmp_path: Path
) -> None:
    made = authority.issue_cert(HOST)
    made.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    made.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    port = storescp("--enable-tls", str(tmp_path / "key.pem"), str(tmp_path / "cert.pem"), "--ignore-peer-cert")
    answer = asked(port, ours)
    assert answer.answered, answer.text
