"""The devices that may call, and what each may see. A directory is a snapshot: replaced whole, never edited."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Sees(StrEnum):
    """Which scheduled procedure steps a device is shown: all of them, or those scheduled to its own AE title."""

    ALL = "all"
    OWN = "own"


@dataclass(frozen=True, slots=True)
class Device:
    """A modality as registered. `mpps_strict` refuses what a lenient SCP mends (PS3.4 F.7.2)."""

    ae_title: str
    description: str = ""
    sees: Sees = Sees.ALL
    mpps_strict: bool = False


@dataclass(frozen=True, slots=True)
class Devices:
    """The registry: known devices by AE title, and whether an unknown AE title is accepted."""

    known: Mapping[str, Device] = field(default_factory=dict)
    accept_unknown: bool = False

    @classmethod
    def of(cls, devices: Iterable[Device], *, accept_unknown: bool) -> "Devices":
        """A registry of these devices."""
        return cls({device.ae_title: device for device in devices}, accept_unknown)

    def device(self, ae_title: str) -> Device | None:
        """The device that calls itself so; None means: not to be served. An accepted unknown one sees everything."""
        known = self.known.get(ae_title)
        return known or (Device(ae_title) if self.accept_unknown else None)
