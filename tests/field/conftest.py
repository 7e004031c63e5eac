"""A gateway for these tests, and a way to ask it byte by byte."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import field_department as department
import pytest
from cases.worklist.scu import Caller
from consoles import IMPLICIT, Answer, Ask, read
from ruamel.yaml import YAML

from gateway.examples import folder
from gateway.testing import ServiceProcess, SimulatedRIS, bare_orm, omi, site


def _write(path: Path, data: object) -> None:
    with path.open("w", encoding="utf-8") as file:
        YAML().dump(data, file)


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    """The gateway of the department, which took over one item and was sent every order."""
    directory = tmp_path_factory.mktemp("field")
    shipped = YAML(typ="safe").load((folder("config") / "profiles.yaml").read_text(encoding="utf-8"))["profiles"]
    _write(directory / "profiles.yaml", {"profiles": [*shipped, *department.PROFILES]})
    _write(directory / "devices.yaml", {"devices": department.DEVICES})
    config = site(
        directory, devices={"file": "devices.yaml", "profiles": "profiles.yaml", "unknown": "accept"},
        timezone="Europe/Berlin",
    )  # fmt: skip
    imported = directory / "item.json"
    imported.write_text(json.dumps(department.IMPORTED_ITEM), encoding="utf-8")
    command = [sys.executable, "-m", "gateway", "worklist", "import", str(imported), "--config", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    with ServiceProcess(config) as running:
        with SimulatedRIS(running.host, running.hl7_port) as ris:
            for draft in (*map(omi, department.ORDERS), bare_orm(department.BARE)):
                answer = ris.send(draft)
                assert answer.code == "AA", answer
        yield running


@pytest.fixture
def ask(service: ServiceProcess) -> Iterator[Ask]:
    """`ask(identifier, calling="CT1", syntax=IMPLICIT, negotiate=b"")` gives the `Answer`."""
    with Caller(service.host, service.dicom_port, "GATEWAY") as caller:

        def asked(identifier: bytes, calling: str = "CT1", syntax: str = IMPLICIT, negotiate: bytes = b"") -> Answer:
            reply = caller.find(identifier, syntax=syntax, calling=calling, negotiate=negotiate)
            raw = tuple(each.identifier for each in reply.pending)
            items = tuple(read(each, syntax) for each in raw)
            return Answer(items, tuple(each.status for each in reply.pending), reply.status, reply.offending, raw)

        yield asked
