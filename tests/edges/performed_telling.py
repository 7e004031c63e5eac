"""A store with performed steps to tell, a receiver of them, and what delivers from one to the other."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom.dsutils import encode

from gateway.edges.channel import Destination
from gateway.edges.delivery import Deliverer
from gateway.edges.performed_channel import IDLE_S, PerformedChannel, Restate
from gateway.edges.store import Store
from gateway.testing.modality import final_state, performed_step
from gateway.workflow.outbox import Patience
from gateway.workflow.ports import DeliveryKind, NewDelivery

PATIENCE_S = 20
QUICK = Patience(first_s=0.01, most_s=0.05, errors_max=3)
AT = datetime(2026, 7, 6, 9, tzinfo=UTC)
UID, OTHER = "2.25.81", "2.25.82"


def created() -> Dataset:
    """What a modality sends of somebody invented when it begins."""
    step, item = Dataset(), Dataset()
    step.Modality, step.ScheduledProcedureStepID = "CT", "S1"
    item.ScheduledProcedureStepSequence = [step]
    item.StudyInstanceUID, item.AccessionNumber, item.RequestedProcedureID = "2.25.7", "A1", "R1"
    item.PatientName, item.PatientID, item.PatientBirthDate, item.PatientSex = "Müller^Marta", "P1", "19700101", "F"
    return performed_step(item, "CT1", AT)


def encoded(dataset: Dataset, transfer_syntax: str = ExplicitVRLittleEndian) -> bytes:
    return encode(dataset, transfer_syntax == ImplicitVRLittleEndian, True) or b""


CREATE = encoded(created())
COMPLETE = encoded(final_state("COMPLETED", AT))


def unheld(_uid: str) -> None:
    """No step is held."""


class Telling:
    """A store, a receiver, and what delivers from one to the other."""

    def __init__(
        self, store: Store, to: Destination, called_ae_title: str = "PACS", restate: Restate = unheld,
        idle_s: float = IDLE_S,
    ) -> None:  # fmt: skip
        self.store = store
        self.events: list[dict[str, Any]] = []
        self.happened = asyncio.Condition()
        channel = PerformedChannel(to, called_ae_title, "GATEWAY", restate, idle_s)
        self.deliverer = Deliverer(to, store, self._observe, QUICK, channel=channel)

    def _observe(self, event: str, /, **fields: Any) -> None:
        self.events.append({"event": event, **fields})
        asyncio.get_running_loop().create_task(self._tell())

    async def _tell(self) -> None:
        async with self.happened:
            self.happened.notify_all()

    async def put(
        self, operation: str, data: bytes = b"", uid: str = UID, transfer_syntax: str = ExplicitVRLittleEndian
    ) -> int:
        kind = DeliveryKind.NOTIFICATION if operation.startswith("N-EVENT") else DeliveryKind.PERFORMED
        new = NewDelivery("pacs", uid, uid, data, 1, kind, operation, transfer_syntax)
        number = await asyncio.wrap_future(self.store.write(lambda unit: unit.add_delivery(new, AT)))
        self.deliverer.wake()
        return number

    async def outcomes(self, count: int, state: str = "sent") -> list[str]:
        """The outcomes of the first so many deliveries that came to this state."""

        def found() -> list[str]:
            return [each["outcome"] for each in self.events if each.get("state") == state]

        async with self.happened:
            await self.happened.wait_for(lambda: len(found()) >= count)
        return found()[:count]


@asynccontextmanager
async def telling(folder: Path, to: Destination, **further: Any) -> AsyncIterator[Telling]:
    """It runs, for so long at most."""
    with Store(f"sqlite:///{folder / 'gateway.db'}") as store:
        running = Telling(store, to, **further)
        running.deliverer.start()
        try:
            async with asyncio.timeout(PATIENCE_S):
                yield running
        finally:
            await running.deliverer.stop(0.1)
