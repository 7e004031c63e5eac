"""A real OpenLDAP of a test's own: configuration, data and certificates in a folder, ports that are free, ended by id.

Our schema is loaded, and there is an empty configuration below `BASE`. Needs the Debian packages slapd and ldap-utils,
but no root.
"""

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import trustme

from gateway import examples
from gateway.edges.ldap_session import LDAPAccess
from gateway.testing import free_port

BASE = "dc=hospital,dc=example"
ROOT = f"cn=DICOM Configuration,{BASE}"
DEVICES = f"cn=Devices,{ROOT}"
REGISTRY = f"cn=Unique AE Titles Registry,{ROOT}"
ADMIN = f"cn=admin,{BASE}"
PASSWORD = "open sesame"  # noqa: S105  (of a server that lives as long as a test)
START_S = 30.0

_SEARCHED = ("/usr/sbin", "/usr/libexec", "/usr/lib/openldap", "/usr/local/libexec", "/usr/bin")
_MODULES = ("/usr/lib/ldap", "/usr/lib64/openldap", "/usr/lib/openldap")
_SCHEMAS = ("/etc/ldap/schema", "/etc/openldap/schema")


def program(name: str) -> str:
    """The path of a program of OpenLDAP or dnsmasq. Skips the test where it is absent."""
    found = shutil.which(name) or shutil.which(name, path=":".join(_SEARCHED))
    if found is None:
        pytest.skip(f"{name} is not installed (make peers)")
    return found


@dataclass
class Slapd:
    """A server that runs. `ca` signed its certificate, which is for localhost and 127.0.0.1."""

    folder: Path
    port: int
    tls_port: int
    ca: trustme.CA
    ca_file: Path
    process: "subprocess.Popen[bytes]" = field(repr=False)

    @property
    def access(self) -> LDAPAccess:
        """As administrator, by LDAPS."""
        return LDAPAccess(
            servers=(f"ldaps://localhost:{self.tls_port}",),
            base=BASE,
            bind="simple",
            user=ADMIN,
            password=PASSWORD,
            ca=str(self.ca_file),
            timeout_s=20,
        )

    @property
    def plain(self) -> LDAPAccess:
        """As administrator, without TLS."""
        return replace(self.access, servers=(f"ldap://127.0.0.1:{self.port}",), plain=True)

    def load(self, ldif: str, *more: str) -> None:
        """Add (or, as the LDIF says, change) entries through the server."""
        self._tool("ldapmodify", ["-a", *more], ldif)

    def dump(self, base: str = BASE) -> str:
        """All entries below, as the server's own tool writes them."""
        return self._tool("ldapsearch", ["-LLL", "-o", "ldif-wrap=no", "-b", base], "")

    def _tool(self, name: str, arguments: Sequence[str], text: str) -> str:
        command = [program(name), "-x", "-H", f"ldap://127.0.0.1:{self.port}", "-D", ADMIN, "-w", PASSWORD, *arguments]
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def stop(self) -> None:
        """End the process; its data stay."""
        self.process.terminate()
        self.process.wait(START_S)

    def pause(self) -> None:
        """Let it hang: connections are taken by the system and nobody answers."""
        self.process.send_signal(19)  # SIGSTOP

    def resume(self) -> None:
        """Let it go on."""
        self.process.send_signal(18)  # SIGCONT


@contextmanager
def slapd(
    folder: Path,
    *,
    schemas: Sequence[Path] = (),
    entries: str = "",
    certificate: trustme.LeafCert | None = None,
    ca: trustme.CA | None = None,
    limits: str = "size=unlimited",
    sync: bool = True,
    relaxed: bool = False,
    access: str = "",
) -> Iterator[Slapd]:
    """A running server. `entries` (LDIF) are loaded before it starts, where `relaxed` without a look at their classes.

    `schemas` are loaded after ours. `sync`: whether it keeps contextCSN. `limits` are those of accounts other than the
    administrator's; `access` comes before the rules that let everybody read.
    """
    server, loader = program("slapd"), program("slapadd")
    folder.mkdir(parents=True, exist_ok=True)
    ca = ca or trustme.CA()
    certificate = certificate or ca.issue_cert("localhost", "127.0.0.1")
    ca.cert_pem.write_to_path(folder / "ca.pem")
    certificate.private_key_pem.write_to_path(folder / "server.key")
    (folder / "server.pem").write_bytes(b"".join(each.bytes() for each in certificate.cert_chain_pems))
    configuration, data = folder / "slapd.d", folder / "data"
    configuration.mkdir()
    data.mkdir()
    config = folder / "config.ldif"
    config.write_text(_configuration(folder, data, schemas, limits, sync, access), encoding="utf-8")
    init = (examples.folder("config") / "ldap" / "init-tree.ldif").read_text(encoding="ascii")
    content = folder / "content.ldif"
    content.write_text(f"{_TOP}\n{init}\n{entries}", encoding="utf-8")
    for number, path, more in ((0, config, ()), (1, content, ("-q", "-s") if relaxed else ("-q",))):
        command = [loader, "-n", str(number), "-F", str(configuration), "-l", str(path), *more]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stderr
    process, port, tls_port = _started(server, configuration, folder / "log")
    try:
        yield Slapd(folder, port, tls_port, ca, folder / "ca.pem", process)
    finally:
        process.send_signal(18)  # one that was paused does not end
        process.terminate()
        try:
            process.wait(START_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _started(server: str, configuration: Path, log: Path) -> tuple["subprocess.Popen[bytes]", int, int]:
    """Somebody may take a free port before the server does; then another is tried."""
    for _ in range(5):
        port, tls_port = free_port(), free_port()
        urls = f"ldap://127.0.0.1:{port} ldaps://127.0.0.1:{tls_port}"
        with log.open("wb") as output:
            command = [server, "-F", str(configuration), "-h", urls, "-d", "0"]
            process = subprocess.Popen(command, stdout=output, stderr=output)
        if _serves(process, port) and _serves(process, tls_port):
            return process, port, tls_port
        if process.poll() is None:
            process.kill()
        process.wait()
    raise AssertionError(f"slapd does not start: {log.read_text(encoding='utf-8', errors='replace')}")


def _serves(process: "subprocess.Popen[bytes]", port: int) -> bool:
    until = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < until:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        time.sleep(0.01)
    return False


def _configuration(folder: Path, data: Path, schemas: Sequence[Path], limits: str, sync: bool, access: str) -> str:
    modules = next((Path(each) for each in _MODULES if Path(each).is_dir()), None)
    system = next((Path(each) for each in _SCHEMAS if Path(each).is_dir()), None)
    if system is None:
        pytest.skip("the schema files of slapd are not installed (make peers)")
    ours = examples.folder("config") / "ldap"
    loaded = [system / "core.ldif", ours / "dicom.ldif", ours / "gateway.ldif", *schemas]
    # Where they stand in files of their own, the parts of OpenLDAP have to be loaded.
    parts = [name for name in ("back_mdb", "syncprov") if modules and (modules / f"{name}.so").exists()]
    lines = [
        "dn: cn=config", "objectClass: olcGlobal", "cn: config", f"olcPidFile: {folder / 'pid'}",
        f"olcTLSCACertificateFile: {folder / 'ca.pem'}", f"olcTLSCertificateFile: {folder / 'server.pem'}",
        f"olcTLSCertificateKeyFile: {folder / 'server.key'}", "olcTLSVerifyClient: try",
        f'olcAuthzRegexp: {{0}}"cn=([^,]+),.*" "cn=$1,{BASE}"', "",
    ]  # fmt: skip
    if parts:
        lines += ["dn: cn=module{0},cn=config", "objectClass: olcModuleList", "cn: module{0}"]
        lines += [f"olcModulePath: {modules}", *(f"olcModuleLoad: {name}" for name in parts), ""]
    lines += ["dn: cn=schema,cn=config", "objectClass: olcSchemaConfig", "cn: schema", ""]
    lines += [path.read_text(encoding="utf-8") + "\n" for path in loaded]
    lines += [
        "dn: olcDatabase={1}mdb,cn=config", "objectClass: olcDatabaseConfig", "objectClass: olcMdbConfig",
        "olcDatabase: {1}mdb", f"olcDbDirectory: {data}", f"olcSuffix: {BASE}", f"olcRootDN: {ADMIN}",
        f"olcRootPW: {PASSWORD}", "olcDbMaxSize: 268435456", "olcDbNoSync: TRUE",
        "olcDbIndex: objectClass eq", "olcDbIndex: dicomAETitle eq", "olcDbIndex: dicomDeviceName eq",
        f"olcLimits: users {limits}", 'olcAccess: to attrs=userPassword by anonymous auth by * none',
        f"olcAccess: {access}to * by * read", "",
    ]  # fmt: skip
    if sync:
        lines += [
            "dn: olcOverlay=syncprov,olcDatabase={1}mdb,cn=config", "objectClass: olcOverlayConfig",
            "objectClass: olcSyncProvConfig", "olcOverlay: syncprov", "",
        ]  # fmt: skip
    return "\n".join(lines)


_TOP = f"""\
dn: {BASE}
objectClass: dcObject
objectClass: organization
dc: hospital
o: Hospital

dn: cn=gateway,{BASE}
objectClass: applicationProcess
objectClass: simpleSecurityObject
cn: gateway
userPassword: reads only
"""
READER, READER_PASSWORD = f"cn=gateway,{BASE}", "reads only"


@contextmanager
def dnsmasq(records: Sequence[str]) -> Iterator[str]:
    """A name server on loopback that says these lines of configuration, as host:port."""
    server, port = program("dnsmasq"), free_port()
    command = [
        server, "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--bind-interfaces",
        "--listen-address=127.0.0.1", f"--port={port}", "--pid-file=", "--user=", *records,
    ]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        assert _serves(process, port), "dnsmasq does not start"
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(START_S)


__all__ = ["ADMIN", "BASE", "DEVICES", "PASSWORD", "REGISTRY", "ROOT", "Slapd", "dnsmasq", "slapd"]
