"""The how-to "Put your devices in LDAP", followed to the letter, with an OpenLDAP as Debian's package sets it up.

Only places are others: ports, the server's name, its socket and its folders. The administrator's password, which the
page has people type, comes from a file.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from ruamel.yaml import YAML

from gateway.config import Settings
from gateway.testing import free_port
from tests.cases.page_reader import missing
from tests.ldap.slapd import ADMIN, BASE, PASSWORD, START_S, program

pytestmark = pytest.mark.interop

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "put-devices-in-ldap.md"
BLOCK = re.compile(r"^```(sh|yaml|text|zone)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PATIENCE_S = 60
READS_ONLY = ("grep ", "curl ", "gateway devices check", "gateway devices diff")
"""Blocks that begin so are typed again until they print what the page says: the service takes a moment."""


class DebianServer:
    """slapd with what `apt-get install slapd` leaves behind: some schemas, one database, no TLS."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.port = folder, free_port()
        self.socket = f"ldapi://{quote(str(folder / 'ldapi'), safe='')}"
        self._urls = f"ldap://127.0.0.1:{free_port()} {self.socket}"
        self._configuration = folder / "slapd.d"
        self._configuration.mkdir(parents=True)
        (folder / "data").mkdir()
        (folder / "default").write_text('SLAPD_SERVICES="ldap:/// ldapi:///"\n')
        who = f"gidNumber={os.getgid()}+uidNumber={os.getuid()},cn=peercred,cn=external,cn=auth"
        schemas = Path("/etc/ldap/schema")
        modules = Path("/usr/lib/ldap")
        if not (schemas / "core.ldif").exists() or not (modules / "back_mdb.so").exists():
            pytest.skip("slapd is not that of Debian (make peers)")
        loaded = "\n".join(
            (schemas / f"{each}.ldif").read_text() for each in ("core", "cosine", "nis", "inetorgperson")
        )
        self._load(0, f"""\
dn: cn=config
objectClass: olcGlobal
cn: config

dn: cn=module{{0}},cn=config
objectClass: olcModuleList
cn: module{{0}}
olcModulePath: {modules}
olcModuleLoad: {{0}}back_mdb

dn: cn=schema,cn=config
objectClass: olcSchemaConfig
cn: schema

{loaded}
dn: olcDatabase={{0}}config,cn=config
objectClass: olcDatabaseConfig
olcDatabase: {{0}}config
olcAccess: {{0}}to * by dn.exact={who} manage by * break

dn: olcDatabase={{1}}mdb,cn=config
objectClass: olcDatabaseConfig
objectClass: olcMdbConfig
olcDatabase: {{1}}mdb
olcDbDirectory: {folder / "data"}
olcSuffix: {BASE}
olcRootDN: {ADMIN}
olcRootPW: {PASSWORD}
olcDbIndex: objectClass eq
olcDbIndex: cn,uid eq
olcAccess: {{0}}to attrs=userPassword by self write by anonymous auth by * none
olcAccess: {{1}}to attrs=shadowLastChange by self write by * read
olcAccess: {{2}}to * by * read
""")  # fmt: skip
        self._load(1, f"dn: {BASE}\nobjectClass: dcObject\nobjectClass: organization\ndc: hospital\no: {name}\n")
        self.restart()

    def _load(self, number: int, ldif: str) -> None:
        command = [program("slapadd"), "-n", str(number), "-F", str(self._configuration)]
        done = subprocess.run(command, input=ldif, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr

    def restart(self) -> None:
        """As its own file of settings says, at ports of ours."""
        self.stop()
        if "ldaps:///" in (self.folder / "default").read_text():
            self._urls = f"ldaps://127.0.0.1:{self.port} {self.socket}"
        with (self.folder / "log").open("ab") as log:
            command = [program("slapd"), "-F", str(self._configuration), "-h", self._urls, "-d", "0"]
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        until = time.monotonic() + START_S
        asked = ["ldapwhoami", "-Q", "-Y", "EXTERNAL", "-H", self.socket]
        while subprocess.run(asked, capture_output=True, check=False).returncode != 0:
            assert self._process.poll() is None and time.monotonic() < until, (self.folder / "log").read_text()  # noqa: PT018
            time.sleep(0.05)  # another process cannot be awaited, only asked

    def stop(self) -> None:
        """End it, if it runs."""
        with suppress(AttributeError):
            self._process.terminate()
            self._process.wait(START_S)


class Reader:
    """Somebody who types what stands on the page, in the folder that `gateway init` made."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.server = folder / "site", DebianServer(folder / "slapd", "Hospital")
        self.ports = {port: str(free_port()) for port in ("2575", "11112", "8080")}
        (folder / "admin.password").write_text(PASSWORD)
        (folder / "admin.password").chmod(0o600)
        (folder / ".env").touch()
        (folder / "bin").mkdir()  # not the environment's own: pynetdicom has an echoscu of its own there
        (folder / "bin" / "gateway").symlink_to(Path(sys.executable).with_name("gateway"))
        self._places = {
            "-H ldapi:///": f"-H {self.server.socket}",
            "ldaps://ldap.hospital.example": f"ldaps://localhost:{self.server.port}",
            "ldap.hospital.example": "localhost",
            "/etc/ldap/tls": str(folder / "tls"),
            "/etc/default/slapd": str(self.server.folder / "default"),
            "-o openldap ": "",
            " -W ": f" -y {folder / 'admin.password'} ",
            "systemctl restart slapd": "",
        }
        self.types("gateway init .")
        settings = self.folder / "gateway.yaml"
        settings.write_text(self._with_ports(settings.read_text(encoding="utf-8")), encoding="utf-8")

    def types(self, block: str) -> str:
        """Runs one block in the reader's shell and gives what it printed."""
        self.folder.mkdir(exist_ok=True)
        text = self.here(block)
        path = f"{self.folder.parent / 'bin'}:{os.environ['PATH']}:/usr/sbin"
        done = subprocess.run(
            ["sh", "-c", f". ../.env\n{text}\nexport -p > ../.env"], cwd=self.folder, timeout=PATIENCE_S, check=False,
            text=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env={**os.environ, "PATH": path, "LC_ALL": "C.UTF-8", "COLUMNS": "200"},
        )  # fmt: skip
        if "systemctl restart slapd" in block:
            self.server.restart()
        return done.stdout

    def reads(self, block: str, expected: str) -> str:
        """Types a block again until it prints what is expected, or for too long; what it printed last."""
        until = time.monotonic() + PATIENCE_S
        while missing(self.here(expected), printed := self.types(block)) and time.monotonic() < until:
            time.sleep(0.2)  # another process cannot be awaited, only asked
        return printed

    def writes(self, block: str) -> None:
        """Brings a file of the site to what a block says: the first line names it."""
        name = block.splitlines()[0].removeprefix("# ")
        said = YAML(typ="safe").load(block)
        if name == "example":
            Settings.model_validate({"ae_title": "GATEWAY", **said})
            return
        file = self.folder / name
        held = YAML(typ="safe").load(file.read_text(encoding="utf-8"))
        block = self.here(block)
        with file.open("w", encoding="utf-8") as out:
            YAML().dump(merged(held, YAML(typ="safe").load(block)), out)

    def stops(self) -> None:
        """Ends what runs."""
        with suppress(FileNotFoundError, ProcessLookupError, ValueError):
            os.kill(int((self.folder / "gateway.pid").read_text()), signal.SIGTERM)
        self.server.stop()

    def here(self, text: str) -> str:
        """The text with the places that there are here."""
        text = self._with_ports(text)
        for told, here in self._places.items():
            text = text.replace(told, here)
        return text

    def _with_ports(self, text: str) -> str:
        return re.sub(r"\b(" + "|".join(self.ports) + r")\b", lambda found: self.ports[found[0]], text)


def merged(held: Any, said: Any) -> Any:
    """What a person makes of a file who is told to write this into it; lists are written anew."""
    if not isinstance(held, Mapping) or not isinstance(said, Mapping):
        return said
    return {**held, **{key: merged(held.get(key), value) for key, value in said.items()}}


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    for name in ("ldapadd", "slappasswd", "echoscu", "curl"):
        program(name)
    somebody = Reader(tmp_path)
    yield somebody
    somebody.stops()


def test_the_how_to_works_as_it_is_written(reader: Reader) -> None:
    found = BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    followers = [*found[1:], ("", "")]
    printed = ""
    for (kind, block), (next_kind, expected) in zip(found, followers, strict=True):
        if kind == "yaml":
            reader.writes(block)
        elif kind == "sh":
            told = expected if next_kind == "text" else ""
            printed = reader.reads(block, told) if told and block.startswith(READS_ONLY) else reader.types(block)
            assert "Traceback" not in printed, printed
            if told:
                assert missing(reader.here(told), printed) == [], printed
            else:
                assert not re.search(r"ldap_\w+: |Usage: |problem\(s\)", printed), printed


def test_every_block_of_the_how_to_is_typed_written_or_printed() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert re.findall(r"^```(\w+)$", text, re.MULTILINE) == [kind for kind, _ in BLOCK.findall(text)]


def test_the_messages_of_the_table_are_those_that_are_said() -> None:
    text = PAGE.read_text(encoding="utf-8").split("| Message |")[1]
    messages = re.findall(r"^\| `([^`]+)`", text, re.MULTILINE)
    folder = PAGE.parents[2] / "gateway"
    sources = "\n".join(path.read_text(encoding="utf-8") for path in folder.rglob("*.py"))
    joined = re.sub(r'"\s*\n\s*f?"', "", sources)
    assert len(messages) > 10
    for message in messages:
        assert re.search(re.escape(message).replace("…", r"\{[^}]+\}"), joined), message
