"""Which devices of a site can be asked whether they answer, and how: from directory entries to `edges.echo`.

What may live here: choosing connections, and what they are spoken to by. How far one gets is found out in `edges`.
"""

import ssl
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from gateway.config import Site
from gateway.domain.directory import DeviceEntry, Directory, NetworkAE, NetworkConnection, Protocol
from gateway.edges.channel import Destination
from gateway.edges.echo import Echoed, Phase, connects, echo
from gateway.edges.resolving import Hosts
from gateway.edges.tls import TLSFileError, client_context

AT_ONCE = 16
"""Devices asked together: a thread each."""


@dataclass(frozen=True, slots=True)
class Target:
    """A connection that others may open, and the AE title to call there; '' for HL7."""

    device: str
    ae_title: str
    connection: NetworkConnection

    @property
    def place(self) -> str:
        """`ct1.hosp.example:104`, with ` TLS` where it wants that."""
        host = f"[{self.connection.host}]" if ":" in self.connection.host else self.connection.host
        return f"{host}:{self.connection.port}{' TLS' if self.connection.tls else ''}"


def found(directory: Directory, name: str) -> tuple[DeviceEntry, NetworkAE | None] | None:
    """The AE of that title and its device, or the device of that name; names of devices have no case, as in LDAP."""
    of_ae = directory.device_of(name)
    if of_ae is not None:
        return of_ae
    named = (each for each in directory.devices if each.name.casefold() == name.casefold())
    device = next(named, None)
    return (device, None) if device is not None else None


def targets(device: DeviceEntry, ae: NetworkAE | None = None) -> Iterator[Target]:
    """What of a device, or of one of its AEs, can be connected to."""
    for each in device.aes if ae is None else (ae,):
        if device.is_installed(each.installed):
            for connection in device.connections_of(each):
                if connection.port is not None and connection.protocol is Protocol.DICOM:
                    yield Target(device.name, each.ae_title, connection)
    for connection in device.connections if ae is None else ():
        hl7 = connection.protocol is Protocol.HL7 and connection.port is not None
        if hl7 and device.is_installed(connection.installed):
            yield Target(device.name, "", connection)


class Reaching:
    """Asks the devices of one site."""

    def __init__(self, site: Site, calling_ae_title: str, timeout_s: float, hosts: Hosts | None = None) -> None:
        self._site = site
        self._calling_ae_title = calling_ae_title
        self._timeout_s = timeout_s
        self._hosts = hosts or Hosts()
        self._tls: ssl.SSLContext | None = None
        self._no_tls = ""  # why there is none
        self._make_tls()

    def all(self, chosen: Sequence[Target]) -> Iterator[tuple[Target, Echoed]]:
        """Ask each, some at once; in their order."""
        with ThreadPoolExecutor(AT_ONCE, "echo") as threads:
            asked: list[Future[Echoed]] = [threads.submit(self.one, target) for target in chosen]
            for target, answer in zip(chosen, asked, strict=True):
                yield target, answer.result()

    def one(self, target: Target) -> Echoed:
        """Ask this one. Blocks."""
        connection = target.connection
        if connection.tls and self._tls is None:
            return Echoed(Phase.TLS, self._no_tls)
        to = Destination(
            target.device, connection.host, connection.port or 0, self._timeout_s,
            tls=self._tls if connection.tls else None,
        )  # fmt: skip
        if not target.ae_title:
            return connects(to, self._hosts)
        return echo(to, target.ae_title, self._calling_ae_title, self._hosts)

    def _make_tls(self) -> None:
        said, base = self._site.settings.tls, self._site.file.parent
        if not said.ca:
            self._no_tls = (
                f"it wants TLS, and {self._site.file.name} names no `tls.ca` that its certificate is checked by"
            )
            return

        def path(name: str) -> str:
            return str(base / name) if name else ""

        try:
            self._tls = client_context(
                path(said.ca), path(said.certificate), path(said.key), path(said.crl), said.profile or "bcp195"
            )
        except TLSFileError as error:
            self._no_tls = str(error)
