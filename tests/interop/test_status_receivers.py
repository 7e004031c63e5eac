"""Status messages to python-hl7's MLLP server as the RIS: in order, again after an error, and over TLS."""

import asyncio
import ssl
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gateway.edges.channel import Destination
from gateway.edges.delivery import Deliverer
from gateway.edges.hl7_channel import HL7Channel
from gateway.edges.store import Store
from gateway.edges.tls import client_context
from gateway.workflow.outbox import Patience, enqueue
from tests.interop.certificates import authority, issued

hl7_mllp = pytest.importorskip("hl7.mllp", reason="python-hl7 is not installed")

pytestmark = pytest.mark.interop

PATIENCE_S = 20.0
AT = datetime(2026, 7, 6, 9, tzinfo=UTC)
HOST = "ris.example"


def status_message(control_id: str, status: str) -> bytes:
    return (
        f"MSH|^~\\&|GATEWAY|RAD|RIS|HOSPITAL|20260706090000||ORM^O01|{control_id}|P|2.3.1\r"
        f"PID|||PAT0000001^^^HOSPITAL||Müller^Marta||19700101|F\r"
        f"ORC|SC|P1|F1||{status}\rOBR|1|P1|F1|CTHEAD^CT head plain^99PROC\r"
    ).encode()


async def delivered(folder: Path, to: Destination, answer: Callable[[Any], Any], tls: ssl.SSLContext | None) -> Any:
    """The messages as python-hl7 read them, and the outcomes of three deliveries about one order."""
    got: list[Any] = []
    outcomes: list[str] = []
    three = asyncio.Event()

    async def serve(reader: Any, writer: Any) -> None:
        while not reader.at_eof():
            try:
                message = await reader.readmessage()
            except asyncio.IncompleteReadError:
                break
            got.append(message)
            writer.writemessage(answer(message))
            await writer.drain()
        writer.close()

    def observe(event: str, /, **fields: Any) -> None:
        outcomes.append(fields["outcome"])
        if len(outcomes) == 3:
            three.set()

    server = await hl7_mllp.start_hl7_server(serve, "127.0.0.1", to.port, ssl=tls, encoding="utf-8")
    with Store(f"sqlite:///{folder / 'gateway.db'}") as store:
        for number, status in enumerate(("IP", "CM"), 1):
            message = status_message(f"M{number}", status)
            store.write(
                lambda unit, number=number, message=message: enqueue(unit, "ris", None, f"M{number}", message, AT)
            ).result()
        deliverer = Deliverer(to, store, observe, Patience(first_s=0.01, most_s=0.05), channel=HL7Channel(to))
        deliverer.start()
        async with asyncio.timeout(PATIENCE_S):
            await three.wait()
        await deliverer.stop(1.0)
        left = store.reader.deliveries(10)
    server.close()
    await server.wait_closed()
    return got, outcomes, left


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "TLS"])
def test_python_hl7_gets_the_status_of_an_order_in_order(tmp_path: Path, encrypted: bool, unused_tcp_port: int) -> None:
    tls, to = None, Destination("ris", "127.0.0.1", unused_tcp_port)
    if encrypted:
        ca = authority(tmp_path)
        certificate = issued(ca, HOST)
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(certificate.certificate, certificate.key)
        context = client_context(str(ca.certificate))
        to = Destination("ris", "127.0.0.1", unused_tcp_port, tls=context, tls_name=HOST)
    refused = iter(["AE"])

    got, outcomes, left = asyncio.run(
        delivered(tmp_path, to, lambda message: message.create_ack(next(refused, "AA")), tls)
    )
    assert [str(message.segment("MSH")[10]) for message in got] == ["M1", "M1", "M2"]
    assert [str(message.segment("ORC")[5]) for message in got] == ["IP", "IP", "CM"]
    assert str(got[0].segment("PID")[5]) == "Müller^Marta"
    assert outcomes == ["ERROR", "ACCEPTED", "ACCEPTED"]
    assert left == []


@pytest.fixture
def unused_tcp_port() -> int:
    from gateway.testing import free_port

    return free_port()
