"""DNS-SD records of the devices, read back as a name server reads them."""

import shutil
import socket
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import dns.exception
import dns.resolver
import dns.zone
import pytest
from dns.name import Name
from hypothesis import given
from hypothesis import strategies as st

from gateway.domain.directory import DeviceEntry, NetworkAE, NetworkConnection, Protocol
from gateway.zone_records import PLAIN_SERVICE, TLS_SERVICE, zone_records

SUITE = ("TLS_AES_128_GCM_SHA256",)


def device(
    ae_title: str, *connections: NetworkConnection, types: tuple[str, ...] = (), acceptor: bool = True,
    installed: bool = True,
) -> DeviceEntry:  # fmt: skip
    ae = NetworkAE(ae_title, tuple(each.name for each in connections), acceptor=acceptor)
    return DeviceEntry(ae_title, installed, primary_types=types, connections=connections, aes=(ae,))


PLAIN = NetworkConnection("dicom", "ct1.hosp.example", 104)
TLS = NetworkConnection("dicom-tls", "ct1.hosp.example", 2762, SUITE)


def zone(*devices: DeviceEntry) -> dns.zone.Zone:
    text = "\n".join(zone_records(devices, "hosp.example")) + "\n"
    return dns.zone.from_text(text, origin="hosp.example", check_origin=False, relativize=False)


def instances(of: dns.zone.Zone, service: str) -> list[Name]:
    found = of.get_rdataset(f"{service}.hosp.example.", "PTR")
    return [each.target for each in found] if found else []


def texts(of: dns.zone.Zone, name: Name) -> list[bytes]:
    (record,) = of.find_rdataset(name, "TXT")
    return list(record.strings)


def test_an_ae_is_found_with_its_host_port_title_and_type() -> None:
    read = zone(device("CT1", PLAIN, types=("CT", "PT")))
    (name,) = instances(read, PLAIN_SERVICE)
    assert name.to_text() == "CT1._dicom._tcp.hosp.example."
    (srv,) = read.find_rdataset(name, "SRV")
    assert (srv.target.to_text(), srv.port) == ("ct1.hosp.example.", 104)
    assert texts(read, name) == [b"AET=CT1", b"PrimaryDeviceType=CT"]
    (types,) = read.find_rdataset("_services._dns-sd._udp.hosp.example.", "PTR")
    assert types.target.to_text() == "_dicom._tcp.hosp.example."


def test_what_wants_tls_is_another_service() -> None:
    read = zone(device("CT1", PLAIN, TLS))
    assert len(instances(read, PLAIN_SERVICE)) == len(instances(read, TLS_SERVICE)) == 1
    (srv,) = read.find_rdataset(instances(read, TLS_SERVICE)[0], "SRV")
    assert srv.port == 2762


def test_a_host_without_a_dot_is_of_the_zone() -> None:
    read = zone(device("CT1", NetworkConnection("dicom", "ct1", 104)))
    (srv,) = read.find_rdataset(instances(read, PLAIN_SERVICE)[0], "SRV")
    assert srv.target.to_text() == "ct1.hosp.example."


@pytest.mark.parametrize(
    "left_out",
    [
        device("CT1", PLAIN, acceptor=False),
        device("CT1", PLAIN, installed=False),
        device("CT1", NetworkConnection("dicom", "ct1.hosp.example")),
        device("CT1", NetworkConnection("hl7", "ct1.hosp.example", 2575, protocol=Protocol.HL7)),
        device("CT1"),
    ],
)
def test_who_is_not_called_is_not_announced(left_out: DeviceEntry) -> None:
    assert list(zone_records([left_out])) == ["$TTL 3600"]


@pytest.mark.parametrize("host", ["10.1.2.3", "fd00::1", "a b", "x\nevil A 10.6.6.6", "a..b", "-a", ""])
def test_a_host_that_no_record_can_name_is_said_and_left_out(host: str) -> None:
    lines = list(zone_records([device("CT1", NetworkConnection("dicom", host, 104))], "hosp.example"))
    assert lines[2].startswith("; CT1 is left out: ")
    assert len(lines) == 3
    assert not any("\n" in line for line in lines)


def test_titles_that_dns_takes_for_one_stay_apart() -> None:
    read = zone(device("CT1", PLAIN), device("ct1", PLAIN), device("Ct1", PLAIN))
    names = instances(read, PLAIN_SERVICE)
    assert len(set(names)) == 3
    assert sorted(texts(read, name)[0] for name in names) == [b"AET=CT1", b"AET=Ct1", b"AET=ct1"]


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=15), st.text(max_size=300))
def test_whatever_a_directory_says_it_stays_one_label_and_one_text(ae_title: str, kind: str) -> None:
    read = zone(device(ae_title, PLAIN, types=(kind,)))
    (name,) = instances(read, PLAIN_SERVICE)
    assert name.labels[0] == ae_title.encode()
    assert len(name.labels) == 6
    assert texts(read, name) == [f"AET={ae_title}".encode(), f"PrimaryDeviceType={kind}".encode()[:255]]


def test_a_zone_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="no domain"):
        list(zone_records([], "hosp example"))


def test_a_name_server_answers_by_them(tmp_path: Path) -> None:
    program = shutil.which("dnsmasq") or shutil.which("dnsmasq", path="/usr/sbin")
    if program is None:
        pytest.skip("dnsmasq is not installed")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [
        program, "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", f"--port={port}",
        "--listen-address=127.0.0.1", "--bind-interfaces", "--pid-file=", "--user=",
        *_as_dnsmasq(zone(device("CT1", PLAIN))),
    ]  # fmt: skip
    process = subprocess.Popen(words, stderr=subprocess.DEVNULL)
    try:
        resolver = dns.resolver.Resolver(configure=False)
        resolver.nameservers, resolver.port, resolver.lifetime = ["127.0.0.1"], port, 2.0
        (srv,) = _asked(lambda: resolver.resolve("CT1._dicom._tcp.hosp.example", "SRV"))
        assert (srv.target.to_text(), srv.port) == ("ct1.hosp.example.", 104)
        (txt,) = resolver.resolve("CT1._dicom._tcp.hosp.example", "TXT")
        assert txt.strings == (b"AET=CT1",)
    finally:
        process.kill()
        process.wait()


def _asked(ask: Callable[[], dns.resolver.Answer]) -> dns.resolver.Answer:
    for _ in range(50):
        with suppress(dns.exception.DNSException):
            return ask()
    raise TimeoutError("dnsmasq did not start")


def _as_dnsmasq(read: dns.zone.Zone) -> list[str]:
    """dnsmasq has records as options, not as a zone file."""
    (name,) = instances(read, PLAIN_SERVICE)
    (srv,) = read.find_rdataset(name, "SRV")
    shown = name.to_text(omit_final_dot=True)
    return [
        f"--srv-host={shown},{srv.target.to_text(omit_final_dot=True)},{srv.port}",
        *(f"--txt-record={shown},{text.decode()}" for text in texts(read, name)),
    ]
