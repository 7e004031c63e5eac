"""DICOM over TLS with DCMTK's programs, and every profile held against what OpenSSL's own client gets."""

import asyncio
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from dcmtk import PROGRAM_S_MAX, program, run_program

from gateway.edges.tls import ServerTLS, ServingContext
from gateway.edges.tls_listener import TLSListener, TLSPort
from gateway.testing import ServiceProcess, free_port, site
from gateway.wire.tls_profiles import PROFILES, TLS_1_3_SUITES, Needs, Profile, Version
from tests.edges.tls_certificates import Shown, TestAuthority

pytestmark = pytest.mark.interop

HOST = "127.0.0.1"


# --- DCMTK


class Department:
    """A gateway that is reached by TLS alone, and what its devices are given."""

    def __init__(self, folder: Path) -> None:
        self.ca = TestAuthority(folder / "pki")
        self.other = TestAuthority(folder / "other", "Another CA")
        own = self.ca.issue("gateway", rsa_bits=2048)  # which every DCMTK knows
        self.port, self.old_port = free_port(), free_port()
        self.device = self.ca.issue("CT1", rsa_bits=2048)
        self.file = site(
            folder,
            tls={"certificate": own.certificate, "key": own.key, "ca": self.ca.file},
            dicom={"host": HOST, "port": self.old_port, "plain": False, "tls": {"port": self.port}},
        )

    def call(self, name: str, shown: Shown | None, *options: str) -> "subprocess.CompletedProcess[bytes]":
        """Run an SCU of DCMTK with this certificate, or with none."""
        tls = ["+tls", shown.key, shown.certificate] if shown else ["+tla"]
        return run_program(name, "-v", *tls, "+cf", self.ca.file, *options, HOST, str(self.port))


@pytest.fixture(scope="module")
def department(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Department]:
    made = Department(tmp_path_factory.mktemp("tls"))
    with ServiceProcess(made.file):
        yield made


def test_echoscu_with_its_certificate_is_served(department: Department) -> None:
    done = department.call("echoscu", department.device)
    assert done.returncode == 0, done.stderr.decode()


def test_findscu_with_its_certificate_is_served(department: Department) -> None:
    done = department.call("findscu", department.device, "-W", "-k", "PatientName")
    assert done.returncode == 0, done.stderr.decode()


def test_echoscu_without_a_certificate_is_refused(department: Department) -> None:
    assert department.call("echoscu", None).returncode != 0


def test_echoscu_with_anothers_certificate_is_refused(department: Department) -> None:
    assert department.call("echoscu", department.other.issue("CT1", rsa_bits=2048)).returncode != 0


def test_echoscu_without_tls_is_rejected_at_once(department: Department) -> None:
    done = run_program("echoscu", "-v", HOST, str(department.port))
    assert done.returncode != 0
    assert b"Rejected" in done.stdout + done.stderr


# --- every profile, by OpenSSL's own client


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> TestAuthority:
    return TestAuthority(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def shown(authority: TestAuthority) -> dict[Needs, Shown]:
    return {Needs.RSA: authority.issue("rsa", rsa_bits=2048), Needs.EC: authority.issue("ec")}


@contextmanager
def listening(asked: ServerTLS) -> Iterator[int]:
    """A listener with this profile in a thread of its own; its port."""
    loop, started, port = asyncio.new_event_loop(), threading.Event(), [0]

    async def serve(ended: asyncio.Event) -> None:
        def unobserved(event: str, /, **fields: object) -> None:
            """Nobody listens."""

        listener = TLSListener("scan", HOST, TLSPort(0, ServingContext(asked)), asyncio.Protocol, unobserved)
        await listener.start()
        port[0] = listener.port
        started.set()
        await ended.wait()
        listener.close()
        await asyncio.sleep(0.05)  # for transports to end

    ended = asyncio.Event()
    thread = threading.Thread(target=lambda: loop.run_until_complete(serve(ended)))
    thread.start()
    try:
        assert started.wait(PROGRAM_S_MAX)
        yield port[0]
    finally:
        loop.call_soon_threadsafe(ended.set)
        thread.join()
        loop.close()


_FLAGS = {
    Version.TLS_1_0: "-tls1", Version.TLS_1_1: "-tls1_1", Version.TLS_1_2: "-tls1_2", Version.TLS_1_3: "-tls1_3",
}  # fmt: skip


def accepted(port: int, version: Version, suite: str) -> bool:
    """Whether openssl s_client comes to an agreement with this version and this one suite, named as OpenSSL does."""
    chosen = ["-ciphersuites", suite] if version is Version.TLS_1_3 else ["-cipher", f"{suite}:@SECLEVEL=0"]
    done = subprocess.run(
        [program("openssl", "openssl"), "s_client", "-connect", f"{HOST}:{port}", _FLAGS[version], *chosen],
        capture_output=True, timeout=PROGRAM_S_MAX, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    said = done.stdout.decode(errors="replace")
    return f"Cipher is {suite}" in said


_ALL = {suite.openssl: suite for profile in PROFILES.values() for suite in profile.suites}
_NOT_OURS = "DHE-RSA-CHACHA20-POLY1305"
"""A good suite that no profile has."""


def probes(profile: Profile) -> Iterator[tuple[Version, str, Needs, bool]]:
    """What is tried, with which key of ours, and whether it must succeed: every version, with every suite where the
    version is the profile's, with one that it would have where it is not."""
    for version in Version:
        offered = profile.suites_of(version)
        if version is Version.TLS_1_3:
            for name in TLS_1_3_SUITES:
                yield version, name, Needs.EC, name in offered
            continue
        known = [suite for suite in _ALL.values() if suite.since <= version]
        for suite in known if version is Version.TLS_1_2 else known[-1:]:
            yield version, suite.openssl, suite.needs, suite.iana in offered
        if version is Version.TLS_1_2:
            yield version, _NOT_OURS, Needs.RSA, False


@pytest.mark.parametrize("name", PROFILES)
def test_a_profile_accepts_what_its_table_says_and_nothing_else(
    name: str, authority: TestAuthority, shown: dict[Needs, Shown]
) -> None:
    wrong: list[str] = []
    for needs, own in shown.items():
        asked = ServerTLS(own.certificate, own.key, authority.file, profile=name, clients="none")
        with listening(asked) as port:
            wrong += [
                f"{version} {suite}: {'refused' if expected else 'accepted'}"
                for version, suite, key, expected in probes(PROFILES[name])
                if key is needs and accepted(port, version, suite) is not expected
            ]
    assert wrong == []


def test_a_client_that_knows_tls_1_3_gets_it(authority: TestAuthority, shown: dict[Needs, Shown]) -> None:
    own = shown[Needs.RSA]
    with listening(ServerTLS(own.certificate, own.key, authority.file, clients="none")) as port:
        done = subprocess.run(
            [program("openssl", "openssl"), "s_client", "-connect", f"{HOST}:{port}"],
            capture_output=True, timeout=PROGRAM_S_MAX, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    assert b"New, TLSv1.3" in done.stdout
