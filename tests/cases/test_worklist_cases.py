"""The matching conformance suite (`worklist/`) against our SCP, and as a cross-check against wlmscpfs and Orthanc."""

import fnmatch
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from interop.worklist_servers import orthanc, wlmscpfs
from ruamel.yaml import YAML
from worklist.checks import run_case
from worklist.datasets import leaves, name_of
from worklist.every_key import NEVER_MATCHED
from worklist.files import write_items
from worklist.model import Case, cases, servers
from worklist.page import page
from worklist.scu import Caller

from gateway.domain.attributes import ATTRIBUTES, Level
from gateway.testing import ServiceProcess, site
from gateway.wire.charsets import DEFINED_TERMS

CALLED = "GATEWAY"
CALLING = ("CONFORM", "EMPTYVALUES")
PAGE = Path(__file__).parents[2] / "docs" / "worklist-conformance-suite.md"
# The page has a line for each; the issue asks for at least so many, and every attribute has two of its own besides.
WRITTEN_BY_HAND_MIN = 200

_DEVICES = {
    "devices.yaml": {"devices": [{"ae_title": "EMPTYVALUES", "profile": "empty-values"}]},
    "profiles.yaml": {
        "profiles": [{"name": "empty-values", "reason": "asks for what has no value yet", "empty_values": True}]
    },
}


@pytest.fixture(scope="module")
def items(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of worklist folders, with the population's under our AE title."""
    folder = tmp_path_factory.mktemp("items")
    write_items(folder / CALLED)
    return folder


@pytest.fixture(scope="module")
def ours(items: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Caller]:
    """Asks a gateway that imported the population."""
    folder = tmp_path_factory.mktemp("site")
    for name, written in _DEVICES.items():
        with (folder / name).open("w", encoding="utf-8") as file:
            YAML().dump(written, file)
    config = site(folder, devices={"file": "devices.yaml", "profiles": "profiles.yaml"}, timezone="Europe/Berlin")
    command = [sys.executable, "-m", "gateway", "worklist", "import", str(items / CALLED), "--config", str(config)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    with (
        ServiceProcess(config) as service,
        Caller(service.host, service.dicom_port, CALLED) as caller,
    ):
        yield caller


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_our_answer(ours: Caller, case: Case) -> None:
    wrong = run_case(case, ours)
    assert not wrong, "\n".join([case.why, *wrong])


def untold(name: str, port: int) -> list[str]:
    """The cases that fail although no difference speaks of them, and those that pass although one does."""
    server = servers()[name]
    found = []
    with Caller("127.0.0.1", port, CALLED) as caller:
        for case in filter(server.runs, cases()):
            wrong = run_case(server.without_hidden(case), caller)
            if bool(wrong) is not server.told(case):
                found.append(f"{case.name}: {'; '.join(wrong) or 'passes, although a difference is told'}")
    return found


@pytest.mark.interop
def test_every_difference_of_wlmscpfs_is_told(items: Path) -> None:
    with wlmscpfs(items, CALLED) as port:
        assert untold("wlmscpfs", port) == []


@pytest.mark.interop
def test_every_difference_of_orthanc_is_told(items: Path, tmp_path: Path) -> None:
    with orthanc(items / CALLED, tmp_path / "orthanc", CALLING) as port:
        assert untold("orthanc", port) == []


def test_every_difference_is_of_a_case_that_is_run() -> None:
    for server in servers().values():
        run = [case.name for case in cases() if server.runs(case)]
        for each in server.differences:
            assert [pattern for pattern in each.cases if not fnmatch.filter(run, pattern)] == []


def test_there_are_cases_enough() -> None:
    names = [case.name for case in cases()]
    assert len(names) == len(set(names))
    assert sum(not name.startswith("every-key/") for name in names) >= WRITTEN_BY_HAND_MIN


def test_every_attribute_of_the_worklist_has_its_cases() -> None:
    tags_asked = {tag for case in cases() for path, _ in leaves(case.keys) for tag in path}
    wanted = {row.keyword for row in ATTRIBUTES if row.level not in (Level.NESTED, Level.IDENTIFIER)}
    assert wanted - {name_of(tag) for tag in tags_asked} == set()


def test_every_character_set_is_asked_in_or_answered_in() -> None:
    used = {term for case in cases() for terms in (case.terms, *case.answers_in.values()) for term in terms}
    # The others differ from these by their code extensions alone.
    wanted = {term for term in DEFINED_TERMS if term.startswith(("ISO_IR", "GB"))} - {"ISO_IR 6"}
    assert wanted - used == set()


def test_what_is_never_matched_is_what_the_table_says() -> None:
    ours = {int(row.tag, 16) for row in ATTRIBUTES if not row.is_matched and row.level is not Level.NESTED}
    assert ours <= NEVER_MATCHED


def test_the_page_is_what_the_files_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), f"run python -m tests.cases.worklist --docs {PAGE.name}"
