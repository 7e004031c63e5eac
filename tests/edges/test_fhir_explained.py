"""What people read of FHIR at their terminal: `gateway explain` of a file, `gateway fhir` of a site without it."""

import json
import re
from datetime import datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateway.cli import cli
from gateway.testing import ImagingOrder, invented_person, order_bundle, site
from gateway.testing.ehr import ORDERS, PATIENTS


def printed(*words: object) -> str:
    done = CliRunner().invoke(cli, [*map(str, words)], env={"COLUMNS": "300"})
    return re.sub(r" +", " ", done.output)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return site(tmp_path, fhir={}, issuers=[{"name": "HOSPITAL", "fhir": [PATIENTS]}, {"name": "OE", "fhir": [ORDERS]}])


@pytest.fixture
def order(tmp_path: Path) -> Path:
    file = tmp_path / "order.json"
    file.write_text(json.dumps(order_bundle(ImagingOrder(1, invented_person(0), datetime(2026, 7, 6, 9, 30)))))
    return file


def test_the_heading_says_nothing_of_what_a_resource_does_not_have(config: Path, order: Path) -> None:
    heading = printed("explain", "--config", config, order).splitlines()[0].rstrip()
    assert heading.endswith(", FHIR R4")


def test_places_in_fhir_are_their_own_names(config: Path, order: Path) -> None:
    said = printed("explain", "--config", config, order)
    assert "Bundle.entry[0].resource.name[0]" in said
    assert "Field name" not in said


def test_the_issuers_of_order_numbers_are_told(config: Path, order: Path) -> None:
    said = printed("explain", "--config", config, order)
    (placer,) = re.findall(r"issuer of Bundle\.entry\[1\]\.resource\.identifier\[0\]: (\w+)", said)
    assert placer == "OE"


def test_a_site_without_fhir_says_so(tmp_path: Path) -> None:
    assert "not served" in printed("fhir", "clients", "--config", site(tmp_path))
