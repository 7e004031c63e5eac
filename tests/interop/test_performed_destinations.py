"""Performed steps to real receivers: pynetdicom in either transfer syntax and over TLS; Orthanc, which takes none."""

import asyncio
import json
import ssl
from pathlib import Path

import pytest
from dcmtk import program
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from gateway.edges.channel import Destination
from gateway.edges.tls import client_context
from gateway.testing import free_port
from gateway.testing.performed_receiver import PerformedReceiver
from tests.edges.performed_telling import COMPLETE, CREATE, UID, Telling, telling
from tests.interop.certificates import Certificate, authority, issued
from tests.listening_process import listening

pytestmark = pytest.mark.interop

HOST = "pacs.example"


async def tell(running: Telling) -> None:
    await running.put("N-CREATE", CREATE)
    await running.put("N-SET", COMPLETE)


@pytest.mark.parametrize("taken", [ExplicitVRLittleEndian, ImplicitVRLittleEndian], ids=["explicit", "implicit"])
def test_pynetdicom_is_told_in_the_transfer_syntax_that_it_takes(tmp_path: Path, taken: str) -> None:
    async def scenario(receiver: PerformedReceiver) -> None:
        async with telling(tmp_path, Destination("pacs", "127.0.0.1", receiver.port)) as running:
            await tell(running)
            assert await running.outcomes(2) == ["ACCEPTED", "ACCEPTED"]

    with PerformedReceiver(transfer_syntaxes=[taken]) as receiver:
        asyncio.run(scenario(receiver))
    assert receiver.steps == {UID: "COMPLETED"}
    assert [each.transfer_syntax for each in receiver.reported] == [taken, taken]
    assert ([each.data for each in receiver.reported] == [CREATE, COMPLETE]) is (taken == ExplicitVRLittleEndian)


def test_orthanc_takes_no_performed_steps_and_what_was_for_it_is_parked_with_the_reason(tmp_path: Path) -> None:
    port = free_port()
    settings = {
        "StorageDirectory": str(tmp_path / "store"), "IndexDirectory": str(tmp_path / "store"), "Plugins": [],
        "HttpServerEnabled": False, "DicomServerEnabled": True, "DicomAet": "ORTHANC", "DicomPort": port,
        "DicomCheckCalledAet": False,
    }  # fmt: skip
    (tmp_path / "store").mkdir()
    config = tmp_path / "orthanc.json"
    config.write_text(json.dumps(settings), encoding="utf-8")

    async def scenario() -> None:
        async with telling(tmp_path, Destination("pacs", "127.0.0.1", port), called_ae_title="ORTHANC") as running:
            await tell(running)
            assert await running.outcomes(2, "parked") == ["UNSUPPORTED", "UNSUPPORTED"]
            parked = running.store.reader.deliveries(10)
            assert {each.reason for each in parked} == {
                "not supported there: the receiver rejects the presentation context"
            }
            (queue,) = running.store.reader.queues()
            assert (queue.waiting, queue.parked) == (0, 2)
            assert "presentation context" in queue.last_error

    with listening([program("Orthanc", "orthanc"), str(config)], port):
        asyncio.run(scenario())


def server_context(certificate: Certificate) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate.certificate, certificate.key)
    return context


@pytest.mark.parametrize(("bears", "trusted"), [(HOST, True), (HOST, False), ("other.example", True)])
def test_tls_tells_only_who_proves_to_be_the_destination(tmp_path: Path, bears: str, trusted: bool) -> None:
    ca = authority(tmp_path)
    (tmp_path / "other").mkdir()
    trusts = ca if trusted else authority(tmp_path / "other")
    right = trusted and bears == HOST

    async def scenario(port: int) -> None:
        context = client_context(str(trusts.certificate))
        to = Destination("pacs", "127.0.0.1", port, tls=context, tls_name=HOST)
        async with telling(tmp_path, to) as running:
            await tell(running)
            if right:
                assert await running.outcomes(2) == ["ACCEPTED", "ACCEPTED"]
            else:
                assert await running.outcomes(1, "waiting") == ["UNREACHABLE"]
                assert "certificate is refused" in running.store.reader.deliveries(1)[0].reason

    with PerformedReceiver(tls=server_context(issued(ca, bears))) as receiver:
        asyncio.run(scenario(receiver.port))
    assert bool(receiver.reported) is right
