"""A service inside the test's own loop, with HL7 listeners and destinations as the test wants them, and its senders."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from gateway.config import load_site
from gateway.edges.mllp import MLLPListener, Peer, Reply
from gateway.service import Service
from gateway.testing import free_port, site
from gateway.wire.er7 import Message, parse

PATIENCE_S = 20
START = datetime.now().replace(hour=9, minute=30, second=0, microsecond=0) + timedelta(days=1)


def ran(scenario: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(PATIENCE_S):
            await scenario

    asyncio.run(bounded())


@asynccontextmanager
async def serving(folder: Path, destination_port: int = 0, **listener: Any) -> AsyncIterator[tuple[Service, int]]:
    """The service and the port of its HL7 listener, which has these settings besides the usual ones."""
    port = free_port()
    hl7 = {"name": "ris", "host": "127.0.0.1", "port": port, "mapping": "ihe-swf", **listener}
    destinations = [{"name": "oie", "host": "127.0.0.1", "port": destination_port}] if destination_port else []
    service = Service(load_site(site(folder, hl7=[hl7], destinations=destinations)))
    await service.start(lambda line: None)
    try:
        yield service, port
    finally:
        await service.stop()


def orm(control_id: str, order: str, accept: str = "", application: str = "", control: str = "NW") -> bytes:
    """An order of 2.3.1 for a patient nobody is (RAD-4)."""
    timing = f"1^^^{START:%Y%m%d%H%M%S}^^R"
    lines = [
        f"MSH|^~\\&|RIS|RADX|GATEWAY|RADX|20260705||ORM^O01|{control_id}|P|2.3.1|||{accept}|{application}",
        "PID|||S4711^^^OE||Sample^Ann||19700101|F",
        "PV1||O",
        f"ORC|{control}|{order}^OE|F{order}^RIS||SC||{timing}||20260705|||12^Ordonez^Ana||||||||CT1",
        f"OBR|1|{order}^OE|F{order}^RIS|CTHEAD^CT head^99PROC^P1^CT head plain^99PROT|||||||||||||"
        f"|A{order}|R{order}|S{order}||||CT|||{timing}|||WALK",
        f"ZDS|1.2.840.99.{order}^RIS^Application^DICOM",
    ]
    return "".join(f"{line}\r" for line in lines).encode()


class Peered:
    """Another system's listener: what it got, and when."""

    def __init__(self) -> None:
        self.received: list[Message] = []
        self.happened = asyncio.Condition()
        self.listener = MLLPListener("oie", "127.0.0.1", 0, self._receive, self._reject)

    async def _receive(self, frame: bytes, peer: Peer) -> Reply:
        message = parse(frame)
        async with self.happened:
            self.received.append(message)
            self.happened.notify_all()
        return Reply([f"MSH|^~\\&|OIE||GATEWAY||2026||ACK|C1|P|2.5\rMSA|CA|{message.control_id}\r".encode()])

    async def _reject(self, raw: bytes, refusal: object, peer: Peer) -> bytes:
        return b""

    async def got(self, count: int) -> list[Message]:
        """The first messages that came, waited for."""
        async with self.happened:
            await self.happened.wait_for(lambda: len(self.received) >= count)
        return self.received
