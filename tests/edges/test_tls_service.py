"""TLS through the real service: DICOM, HL7 and HTTP, beside plain or alone, with workers, and renewed while it runs."""

import asyncio
import contextlib
import os
import ssl
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # made at import from a table

from gateway.config import load_site
from gateway.edges.mllp import MLLPClient
from gateway.edges.tls import client_context
from gateway.service import Service
from gateway.testing import Acknowledgement, ServiceProcess, free_port, site
from tests.edges.hl7_service import orm
from tests.edges.tls_certificates import TestAuthority

PATIENCE_S = 60


class Secured:
    """A site whose listeners all speak TLS, and a device that they know."""

    def __init__(self, folder: Path, *, plain: bool = True, **settings: Any) -> None:
        self.ca = TestAuthority(folder / "pki")
        self.own = self.ca.issue("gateway")
        device = self.ca.issue("CT1")
        self.device = client_context(self.ca.file, device.certificate, device.key)
        self.stranger = client_context(self.ca.file)
        self.dicom, self.dicom_tls, self.hl7, self.hl7_tls, self.http, self.http_tls = (free_port() for _ in range(6))
        host = "127.0.0.1"
        self.file = site(
            folder,
            tls={"certificate": self.own.certificate, "key": self.own.key, "ca": self.ca.file},
            dicom={"host": host, "port": self.dicom, "plain": plain, "tls": {"port": self.dicom_tls}},
            hl7=[
                {"name": "ris", "host": host, "port": self.hl7, "plain": plain, "tls": {"port": self.hl7_tls}},
            ],
            http={"host": host, "port": self.http, "tls": {"port": self.http_tls, "clients": "none"}},
            **settings,
        )  # fmt: skip

    def associate(self, context: ssl.SSLContext | None, port: int = 0) -> Association:
        ae = AE("CT1")
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = PATIENCE_S
        ae.add_requested_context(Verification)
        tls = (context, "localhost") if context is not None else None
        return ae.associate("127.0.0.1", port or self.dicom_tls, ae_title="GATEWAY", tls_args=tls)

    @property
    def certificate(self) -> bytes:
        """Ours, as it is in its file now."""
        return ssl.PEM_cert_to_DER_cert(Path(self.own.certificate).read_text())

    def spoil(self) -> None:
        """A key that is not complete."""
        Path(self.own.key).write_text("half a key")

    def renew(self) -> None:
        """A new certificate of ours in the place of the old one."""
        new = self.ca.issue("new")
        os.replace(new.certificate, self.own.certificate)
        os.replace(new.key, self.own.key)


@pytest.fixture
def secured(tmp_path: Path) -> Secured:
    return Secured(tmp_path)


@asynccontextmanager
async def serving(secured: Secured) -> AsyncIterator[tuple[Service, list[str]]]:
    lines: list[str] = []
    service = Service(load_site(secured.file))
    await service.start(lines.append)
    try:
        yield service, lines
    finally:
        await service.stop()


def ran(scenario: Any) -> list[Any]:
    async def bounded() -> None:
        async with asyncio.timeout(PATIENCE_S):
            await scenario

    with structlog.testing.capture_logs() as logs:
        asyncio.run(bounded())
    return list(logs)


async def echo(association: Association) -> int:
    try:
        assert association.is_established
        return int((await asyncio.to_thread(association.send_c_echo)).Status)
    finally:
        await asyncio.to_thread(association.release)


async def order(port: int, context: ssl.SSLContext | None, control_id: str = "1") -> str:
    name = "localhost" if context is not None else None
    async with MLLPClient("127.0.0.1", port, tls=context, tls_name=name) as client:
        return Acknowledgement.parse(await client.send(orm(control_id, control_id))).code


def ready(port: int, context: ssl.SSLContext | None = None) -> int:
    scheme = "http" if context is None else "https"
    with urllib.request.urlopen(f"{scheme}://localhost:{port}/health/ready", context=context) as answer:  # noqa: S310
        return int(answer.status)


def test_dicom_hl7_and_http_are_served_over_tls_beside_plain(secured: Secured) -> None:
    async def scenario() -> None:
        async with serving(secured) as (_, lines):
            for context, dicom, hl7, http in (
                (secured.device, secured.dicom_tls, secured.hl7_tls, secured.http_tls),
                (None, secured.dicom, secured.hl7, secured.http),
            ):
                assert await echo(await asyncio.to_thread(secured.associate, context, dicom)) == 0
                assert await order(hl7, context, str(hl7)) == "AA"
                assert await asyncio.to_thread(ready, http, context) == 200
            tls = [line for line in lines if "TLS" in line]
            assert [f":{port} " in line for line, port in zip(
                tls, (secured.hl7_tls, secured.dicom_tls, secured.http_tls), strict=True
            )] == [True] * 3  # fmt: skip

    ran(scenario())


def test_whoever_shows_no_certificate_is_refused_counted_and_logged(secured: Secured) -> None:
    async def scenario() -> None:
        async with serving(secured) as (service, _):
            association = await asyncio.to_thread(secured.associate, secured.stranger)
            assert not association.is_established
            with pytest.raises((OSError, ssl.SSLError)):
                await order(secured.hl7_tls, secured.stranger)
            assert await echo(await asyncio.to_thread(secured.associate, secured.device)) == 0
            assert service.metrics.tally.handshakes_failed == {"no_certificate": 2}
            exposed = [
                sample.value
                for family in service.metrics.collect()
                for sample in family.samples
                if sample.name == "gateway_tls_handshakes_failed_total"
            ]
            assert exposed == [2]

    logs = ran(scenario())
    failed = [each["listener"] for each in logs if each["event"] == "tls_handshake_failed"]
    assert failed == ["dicom", "ris"]


def test_tls_spoken_to_a_plain_port_is_recognised(secured: Secured) -> None:
    async def scenario() -> None:
        async with serving(secured):
            for port in (secured.dicom, secured.hl7, secured.http):
                with pytest.raises((OSError, ssl.SSLError)):
                    await asyncio.open_connection("127.0.0.1", port, ssl=secured.device, server_hostname="localhost")

    logs = ran(scenario())
    assert [each["listener"] for each in logs if each["event"] == "tls_on_plain_port"] == ["ris", "http"]
    (aborted,) = [each for each in logs if each["event"] == "association_aborted"]
    assert "speaks TLS to a port without" in aborted["reason"]


def test_a_closed_plain_port_is_closed(tmp_path: Path) -> None:
    secured = Secured(tmp_path, plain=False)

    async def scenario() -> None:
        async with serving(secured) as (_, lines):
            for port in (secured.dicom, secured.hl7):
                with pytest.raises(ConnectionRefusedError):
                    await asyncio.open_connection("127.0.0.1", port)
                assert not any(f":{port} " in line for line in lines)
            assert await echo(await asyncio.to_thread(secured.associate, secured.device)) == 0
            assert await order(secured.hl7_tls, secured.device) == "AA"

    ran(scenario())


def test_a_reload_takes_the_new_certificate_and_drops_no_association(secured: Secured) -> None:
    async def scenario() -> None:
        async with serving(secured) as (service, _):
            association = await asyncio.to_thread(secured.associate, secured.device)
            before = await shown(secured)
            secured.renew()
            await service.reload()
            assert await shown(secured) != before
            assert await echo(association) == 0

    logs = ran(scenario())
    assert {each["listener"] for each in logs if each["event"] == "tls_renewed"} == {"dicom", "http", "hl7 ris"}
    assert not any(each["event"] == "reload_needs_restart" for each in logs)


def test_files_that_change_are_noticed_by_themselves_and_a_bad_one_is_said_and_not_taken(secured: Secured) -> None:
    async def scenario() -> None:
        async with serving(secured) as (service, _):
            before = await shown(secured)
            looked = asyncio.Event()
            watching = asyncio.create_task(service._tls.watch(0.01, looked.set))
            secured.spoil()
            await looked.wait()
            looked.clear()
            await looked.wait()
            assert await shown(secured) == before
            secured.renew()
            while await shown(secured) == before:
                looked.clear()
                await looked.wait()
            watching.cancel()

    logs = ran(scenario())
    said = [each for each in logs if each["event"] == "tls_not_renewed"]
    assert {each["listener"] for each in said} == {"dicom", "http", "hl7 ris"}
    assert all(each["hint"] for each in said)


def test_the_watch_goes_on_when_the_system_fails_it(secured: Secured, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    async def scenario() -> None:
        async with serving(secured) as (service, _):
            before = await shown(secured)
            looked = asyncio.Event()
            watching = asyncio.create_task(service._tls.watch(0.01, looked.set))
            with monkeypatch.context() as patched:
                patched.setattr("gateway.edges.tls._load_trusted", full)
                secured.renew()
                for _ in range(3):
                    looked.clear()
                    await looked.wait()
                assert not watching.done()
            while await shown(secured) == before:
                looked.clear()
                await looked.wait()
            watching.cancel()

    logs = ran(scenario())
    said = [each for each in logs if each["event"] == "tls_not_renewed"]
    assert sorted(each["listener"] for each in said) == ["dicom", "hl7 ris"]  # http trusts nobody; once each
    assert all("tried again" in each["hint"] for each in said)


def test_another_tls_port_needs_a_restart(secured: Secured) -> None:
    async def scenario() -> None:
        async with serving(secured) as (service, _):
            text = secured.file.read_text()
            text = text.replace(str(secured.hl7_tls), str(free_port())).replace(
                str(secured.dicom_tls), str(free_port())
            )
            secured.file.write_text(text)
            await service.reload()
            assert await echo(await asyncio.to_thread(secured.associate, secured.device)) == 0

    logs = ran(scenario())
    (said,) = [each for each in logs if each["event"] == "reload_needs_restart"]
    assert said["settings"] == ["dicom", "hl7"]


async def shown(secured: Secured) -> bytes:
    """The certificate that the DICOM listener shows now."""
    _, writer = await asyncio.open_connection(
        "127.0.0.1", secured.dicom_tls, ssl=secured.device, server_hostname="localhost"
    )
    try:
        found = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        assert isinstance(found, bytes)
        return found
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


@pytest.fixture
def with_workers(tmp_path: Path) -> Iterator[tuple[Secured, ServiceProcess]]:
    secured = Secured(tmp_path, plain=False, workers=2)
    with ServiceProcess(secured.file, ready_s=150) as service:
        yield secured, service


def test_workers_serve_tls_too_and_take_a_new_certificate(with_workers: tuple[Secured, ServiceProcess]) -> None:
    secured, service = with_workers

    async def scenario() -> None:
        association = await asyncio.to_thread(secured.associate, secured.device)
        assert await order(secured.hl7_tls, secured.device) == "AA"
        before = await shown(secured)
        secured.renew()
        new = secured.certificate
        in_a_row = 0
        while in_a_row < 20:  # each connection comes to one of the workers by chance
            in_a_row = in_a_row + 1 if await shown(secured) == new else 0
        assert before != new
        assert await echo(association) == 0

    ran(scenario())
    said = service.output.read_text()
    assert '"event":"tls_not_renewed"' not in said
