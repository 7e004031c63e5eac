"""Outbound mappings as files: loaded with the others, their mistakes told with file and line, kept to their schema."""

import json
import shutil
from pathlib import Path

import jsonschema
import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from gateway import examples
from gateway.cli import cli
from gateway.domain.identifiers import Issuers
from gateway.domain.problem import Problem
from gateway.mapping_files import MappingFolder, load_mappings

SHIPPED = sorted((examples.folder("mappings") / "outbound").glob("*.yaml"))


def load(folder: Path) -> tuple[MappingFolder, list[Problem]]:
    problems: list[Problem] = []
    return load_mappings(folder, Issuers(), problems), problems


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The shipped mappings, to be changed."""
    return Path(shutil.copytree(examples.folder("mappings"), tmp_path / "mappings"))


def test_the_shipped_ones_are_there_and_without_problems() -> None:
    found, problems = load(examples.folder("mappings"))
    assert problems == []
    assert sorted(found.outbound) == ["adt", "order-omi", "status-omg", "status-omi", "status-orm", "status-oru"]
    assert found.outbound_names == frozenset(found.outbound)


def test_a_mistake_is_told_with_file_and_line(folder: Path) -> None:
    (folder / "outbound" / "ours.yaml").write_text(
        "name: ours\nextends: status-orm\nrules:\n  PID-8: PatientSex\n  PID-5: PatientNme\n"
    )
    found, problems = load(folder)
    (problem,) = problems
    assert str(problem).startswith("outbound/ours.yaml:5 rules.PID-5.from: there is no attribute 'PatientNme'")
    assert problem.hint == "did you mean PatientName?"
    assert "ours" not in found.outbound
    assert "ours" in found.outbound_names


def test_a_mistake_in_a_base_is_told_once(folder: Path) -> None:
    base = folder / "outbound" / "status-orm.yaml"
    base.write_text(base.read_text().replace("PID-5: PatientName", "PID-5: PatientNme"))
    found, problems = load(folder)
    assert [each.source for each in problems] == ["outbound/status-orm.yaml"]
    assert found.outbound == {}


def test_inbound_and_outbound_names_do_not_meet(folder: Path) -> None:
    shutil.copy(folder / "outbound" / "adt.yaml", folder / "outbound" / "again.yaml")
    _, problems = load(folder)
    assert [(each.source, each.line) for each in problems] == [("outbound/again.yaml", 5)]
    (folder / "outbound" / "again.yaml").write_text("name: ihe-swf\nextends: status-orm\n")
    found, problems = load(folder)
    assert problems == []
    assert {"ihe-swf"} <= set(found.mappings) & set(found.outbound)


def test_check_finds_the_mistakes_of_outbound_mappings(tmp_path: Path) -> None:
    examples.lay_out(tmp_path / "site")
    path = tmp_path / "site" / "mappings" / "outbound" / "status-orm.yaml"
    path.write_text(path.read_text().replace("convert: {table: priority-to-hl7}", "convert: {table: priority-to-hl}"))
    result = CliRunner().invoke(cli, ["check", "--config", str(tmp_path / "site" / "gateway.yaml")])
    assert result.exit_code == 1
    said = " ".join(result.output.split())
    assert "outbound/status-orm.yaml:" in said
    assert "there is no table priority-to-hl " in said
    assert "did you mean priority-to-hl7?" in said


@pytest.mark.parametrize("file", SHIPPED, ids=lambda path: path.name)
def test_every_shipped_file_names_its_schema_and_keeps_to_it(file: Path) -> None:
    first = file.read_text(encoding="utf-8").splitlines()[0]
    schema = json.loads((file.parent / first.partition("$schema=")[2]).read_text(encoding="utf-8"))
    jsonschema.Draft7Validator.check_schema(schema)
    jsonschema.Draft7Validator(schema).validate(json.loads(json.dumps(YAML(typ="safe").load(file))))


@pytest.mark.parametrize(
    "said",
    [
        {"rules": {"PDI-5": "PatientName"}},
        {"rules": {"MSH-10": {"value": "x"}}},
        {"rules": {"PID-5": {"form": "PatientName"}}},
        {"rules": {"PID-5": {"from": "PatientName", "repeat": "al"}}},
        {"hl7": "2.51"},
        {"about": "orders"},
        {"identity": {}},
    ],
)
def test_a_mistake_does_not_keep_to_the_schema(said: object) -> None:
    schema = json.loads((examples.folder("mappings") / "schemas" / "outbound.json").read_text(encoding="utf-8"))
    assert not jsonschema.Draft7Validator(schema).is_valid(said)
