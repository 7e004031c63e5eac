"""DNS records by which devices are found without being configured: PS3.15 H.2, as RFC 6763 (DNS-SD) writes them.

What may live here: lines of a zone file made of device entries. Nothing is asked and nothing written; what entries say
is escaped, as some of it comes from a directory.
"""

import re
from collections.abc import Iterable, Iterator

from gateway.domain.directory import DeviceEntry, NetworkAE, NetworkConnection, Protocol
from gateway.wire.host_ports import is_loopback

PLAIN_SERVICE, TLS_SERVICE = "_dicom._tcp", "_dicom-tls._tcp"
"""Acceptors of associations without and with TLS (PS3.15 table H.2-1)."""

TTL_S = 3600
_TXT_BYTES_MAX = 255  # of one character string (RFC 1035 3.3.14)
_HOST = re.compile(r"(?=.{1,253}\.?$)([A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?\.?)+")
_ADDRESS = re.compile(r"[0-9.]+|.*:.*")


def zone_records(devices: Iterable[DeviceEntry], zone: str = "") -> Iterator[str]:
    """Lines for the zone file of `zone`; without it for whichever zone they are put into.

    Every installed AE that accepts associations on a port has a service instance: PTR, SRV and TXT. One that cannot
    have one is a comment that says why. Raises ValueError where `zone` is no domain.
    """
    if zone:
        if not _HOST.fullmatch(zone):
            raise ValueError(f"{zone!r} is no domain, such as hosp.example")
        yield f"$ORIGIN {zone.rstrip('.')}."
    yield f"$TTL {TTL_S}"
    services: dict[str, list[str]] = {PLAIN_SERVICE: [], TLS_SERVICE: []}
    taken: dict[str, str] = {}
    for device in devices:
        for ae in device.aes:
            if not ae.acceptor or not device.is_installed(ae.installed):
                continue
            instance = _instance(ae.ae_title, taken)
            for connection in device.connections_of(ae):
                why_not = _unusable(connection)
                if why_not:
                    yield f"; {_shown(ae.ae_title)} is left out: {why_not}"
                elif connection.port is not None and connection.protocol is Protocol.DICOM:
                    lines = services[TLS_SERVICE if connection.tls else PLAIN_SERVICE]
                    new = [*_records(instance, device, ae, connection)]
                    lines += [line for line in new if line not in lines]
    for service, lines in services.items():
        if lines:
            yield f"_services._dns-sd._udp PTR {service}"
            yield from (line.replace("@service", service) for line in lines)


def _records(instance: str, device: DeviceEntry, ae: NetworkAE, connection: NetworkConnection) -> Iterator[str]:
    """`@service` stands for the service type."""
    name = f"{instance}.@service"
    yield f"@service PTR {name}"
    host = connection.host
    target = f"{host.rstrip('.')}." if "." in host else host  # one without a dot is of this zone
    yield f"{name} SRV 0 0 {connection.port} {target}"
    said = [f"AET={ae.ae_title}"]
    if device.primary_types:  # of a key that comes twice only the first counts (RFC 6763 6.4)
        said.append(f"PrimaryDeviceType={device.primary_types[0]}")
    yield f"{name} TXT {' '.join(map(_quoted, said))}"


def _instance(ae_title: str, taken: dict[str, str]) -> str:
    """The instance's label. DNS does not tell `ct1` from `CT1`; the one that comes later gets a number, and its AE
    title stands in TXT."""
    label, number = ae_title, 1
    while taken.setdefault(label.casefold(), ae_title) != ae_title:
        number += 1
        label = f"{ae_title} ({number})"
    return _escaped(label, '."();@$\\ ')


def _unusable(connection: NetworkConnection) -> str:
    if connection.port is None or connection.protocol is not Protocol.DICOM:
        return ""  # not of interest, and no mistake
    if is_loopback(connection.host):
        return f"{_shown(connection.host)} is the machine of whoever asks; ours is named by `devices.own_host`"
    if _ADDRESS.fullmatch(connection.host):
        return f"SRV needs a name, and its host is known by the address {_shown(connection.host)}"
    if not _HOST.fullmatch(connection.host):
        return f"{_shown(connection.host)} is no name of a host"
    return ""


def _quoted(text: str) -> str:
    """A character string of TXT."""
    data = text.encode()[:_TXT_BYTES_MAX]
    return '"' + "".join(_letter(byte, '"\\') for byte in data) + '"'


def _escaped(text: str, special: str) -> str:
    return "".join(_letter(byte, special) for byte in text.encode())


def _letter(byte: int, special: str) -> str:
    """As it is written in a zone file (RFC 1035 5.1)."""
    letter = chr(byte)
    if letter in special and letter != " ":
        return f"\\{letter}"
    return letter if 0x20 < byte < 0x7F or (letter == " " and " " not in special) else f"\\{byte:03}"


def _shown(text: str) -> str:
    """In a comment, which ends with its line."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
