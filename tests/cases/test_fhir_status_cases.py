"""The cases of scheduled workflow (`swf/`) once more: whatever happens, what FHIR says of it is FHIR.

A case is told in both releases at once, by the models of fhir.resources; the npm package `fhir` then reads everything
that was made in R4, in one process, where it is installed.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from swf.desk import Desk
from swf.model import Case, cases
from test_swf_cases import happen

from gateway.config import Site, load_site
from gateway.edges.store import Store
from gateway.mapping_files import load_mappings
from gateway.testing import site
from gateway.testing.fhir_validity import check
from gateway.wire import fhir_json
from gateway.wire.fhir_release import Release
from gateway.workflow.audience import FHIRWriting, Outbound
from tests.interop.npm_fhir import problems_by_npm

MAPPINGS = Path(__file__).parents[2] / "mappings"
_KINDS = ("Procedure", "ImagingStudy", "Observation", "Provenance")


Department = tuple[Site, Path, Outbound]


@pytest.fixture(scope="module")
def department(tmp_path_factory: pytest.TempPathFactory) -> Department:
    """A site, the file of an empty database, and the mapping that tells placers: loading them is most of the work."""
    folder = tmp_path_factory.mktemp("department")
    loaded = load_site(site(folder))
    Store(loaded.store_url).close()
    return loaded, folder / "gateway.db", load_mappings(MAPPINGS, loaded.issuers, []).outbound["status-orm"]


@pytest.fixture(scope="module")
def made_in_r4() -> Iterator[dict[str, Any]]:
    """What the cases made, by where it was made; read by others when all are through. Where these are not installed
    the last case is told as skipped, too, with the reason."""
    made: dict[str, Any] = {}
    yield made
    problems = problems_by_npm(made)
    assert not problems, json.dumps(problems, indent=1)[:4000]


@pytest.mark.parametrize("release", [Release.R4, Release.R5], ids=str)
@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name)
def test_case(case: Case, release: Release, department: Department, made_in_r4: dict[str, Any], tmp_path: Path) -> None:
    loaded, empty, status = department
    shutil.copy(empty, tmp_path / "case.db")
    with Store(f"sqlite:///{tmp_path / 'case.db'}", zone="Europe/Berlin") as store:
        desk = Desk(loaded, store, status, FHIRWriting(release, gateway="GATEWAY"))
        for event in case.events:
            happen(desk, event)
        found = [
            {"resourceType": held.key.type, "id": held.key.id, **held.content}
            for kind in _KINDS
            for held in store.reader.find_resources(release.base, kind)
        ]
        for each in found:
            check(each, release)
            if release is Release.R4:
                made_in_r4[f"{case.name}: {each['resourceType']}/{each['id']}"] = json.loads(fhir_json.write(each))
        said = {
            identifier["value"]
            for each in found
            if each["resourceType"] == "Procedure"
            for identifier in each["identifier"]
            if identifier.get("system") == "urn:dicom:uid"
        }
        believed = {
            f"urn:oid:{performed.sop_instance_uid}"
            for name in desk.statuses()
            for performed in store.reader.performed_steps_of(desk.step(name).step_id)
            if not performed.quarantined
        }
        assert believed <= said, "what was performed of an order is offered"
