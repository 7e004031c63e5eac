"""What an operator does with FHIR requests by the command line: find, explain, replay, diff, rederive, and ask why."""

import json
import shutil
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.config import load_site
from gateway.domain.identifiers import Mint
from gateway.edges.store import Store
from gateway.fhir_processing import fhir_feeds_of
from gateway.testing import ImagingOrder, bare_orm, invented_person
from tests.cases.fhir_corpus.runner import Answered, Desk
from tests.edges.command_site import CommandSite
from tests.fhir_department import patient, request, transaction, whole

TOMORROW = datetime.now().replace(hour=9, minute=30, second=0, microsecond=0) + timedelta(days=1)


class FHIRCommandSite(CommandSite):
    """A site of commands that serves FHIR."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.config.write_text(self.config.read_text() + "\nfhir: {}\n")

    def ask(self, *bodies: Mapping[str, Any]) -> list[Answered]:
        """What our server answers to these resources or Bundles."""
        site = load_site(self.config)
        with Store(site.store_url, zone=site.settings.timezone) as store:
            feed = fhir_feeds_of(site, Mint(store.site_namespace()))["fhir"]
            desk = Desk(store, feed)
            return [desk.send(body, next(iter(feed.mappings))) for body in bodies]

    def change(self, file: str, old: str, new: str, folder: Path | None = None) -> None:
        """In a file of the site one text is another."""
        path = (folder or self.folder) / file
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new), encoding="utf-8")

    def items(self) -> Any:
        return json.loads(self("worklist", "list", "--json").output)


@pytest.fixture
def gateway(tmp_path: Path) -> FHIRCommandSite:
    return FHIRCommandSite(tmp_path / "site")


def order(number: int, **changes: Any) -> ImagingOrder:
    return ImagingOrder(number, invented_person(number), TOMORROW, **changes)


def uncovered(number: int) -> dict[str, Any]:
    """An order of a procedure that the catalogue has not."""
    return whole(order(number, code="BRANDNEW", text="Brand new"))


def listed(gateway: FHIRCommandSite, *options: object) -> list[int]:
    result = gateway("messages", "list", *options, "--json")
    assert result.exit_code == 0, result.output
    return [row["number"] for row in json.loads(result.output)]


def test_requests_are_found_by_what_they_are_about(gateway: FHIRCommandSite) -> None:
    assert [each.status for each in gateway.ask(whole(order(1)), uncovered(2), patient(invented_person(3)))] == [
        200, 422, 201
    ]  # fmt: skip
    assert listed(gateway) == [3, 2, 1]
    assert listed(gateway, "--accession", order(1).accession) == [1]
    assert listed(gateway, "--placer", order(1).placer) == [1]
    assert listed(gateway, "--patient", order(1).person.patient_id) == [1]
    assert listed(gateway, "--key", order(2).placer) == [2]
    assert listed(gateway, "--outcome", "refused") == [2]
    assert listed(gateway, "--listener", "fhir", "--type", "PUT Patient") == [3]


def test_a_request_is_shown_with_its_answer_and_why(gateway: FHIRCommandSite) -> None:
    gateway.ask(uncovered(1))
    shown = gateway("messages", "show", 1)
    assert shown.exit_code == 0, shown.output
    assert "BRANDNEW" in shown.output, "the text of the request"
    assert "OperationOutcome" in shown.output, "its answer"
    assert "refused" in shown.output
    assert "procedures.csv" in shown.output, "what to do"
    told = json.loads(gateway("messages", "show", 1, "--json").output)
    assert json.loads(told["message"])["resourceType"] == "Bundle"


def test_what_was_refused_is_run_again_when_the_catalogue_knows_it(gateway: FHIRCommandSite) -> None:
    gateway.ask(uncovered(1))
    with (gateway.folder / "mappings" / "procedures.csv").open("a") as catalogue:
        catalogue.write("BRANDNEW,99PROC,Brand new,CT,,,,,CT1,,,\n")
    dry = gateway("messages", "replay", "--refused", "--dry-run", "--json")
    assert json.loads(dry.output)["outcomes"] == {"accepted": 1}, dry.output
    assert gateway.items() == []
    result = gateway("messages", "replay", "--refused")
    assert result.exit_code == 0, result.output
    assert "1 message(s) run again: 1 accepted." in result.output
    assert len(gateway.items()) == 1
    assert "1 passed over" in gateway("messages", "replay", "--refused").output


def test_messages_of_both_kinds_are_run_again_together(gateway: FHIRCommandSite) -> None:
    gateway.ask(uncovered(1))
    gateway.receive(bare_orm(order(2, code="BRANDNEW")).message("M2", datetime.now()))
    with (gateway.folder / "mappings" / "procedures.csv").open("a") as catalogue:
        catalogue.write("BRANDNEW,99PROC,Brand new,CT,,,,,CT1,,,\n")
    result = gateway("messages", "replay", 1, 2)
    assert "2 message(s) run again: 2 accepted." in result.output, result.output
    assert len(gateway.items()) == 2


def test_a_request_is_explained_by_its_number_and_as_a_file(gateway: FHIRCommandSite, tmp_path: Path) -> None:
    gateway.ask(whole(order(1)))
    file = tmp_path / "order.json"
    file.write_text(json.dumps(whole(order(1))))
    for said in (("--message", 1), (file,)):
        explained = gateway("explain", *said)
        assert explained.exit_code == 0, explained.output
        assert "PatientName" in explained.output
        assert "Bundle.entry[0].resource.name[0]" in explained.output
        assert order(1).accession in explained.output
    told = gateway("explain", "--message", 1, "--store", "--json")
    assert told.exit_code == 0, told.output
    assert json.loads(told.output)


def test_a_changed_rule_is_compared_over_what_came(gateway: FHIRCommandSite) -> None:
    gateway.ask(whole(order(1)))
    changed = gateway.folder / "changed"
    shutil.copytree(gateway.folder / "mappings", changed)
    assert gateway("mappings", "diff", changed, "--processes", 1).exit_code == 0
    old = "PatientSex: {from: Patient.gender, convert: {table: fhir-gender}}"
    gateway.change("fhir/imaging-order.yaml", old, "PatientSex: {value: O}", changed)
    result = gateway("mappings", "diff", changed, "--processes", 1)
    assert result.exit_code == 1, result.output
    assert "PatientSex" in result.output
    assert "M -> O" in result.output
    assert gateway("mappings", "diff", changed, "--listener", "fhir", "--processes", 1).exit_code == 1
    assert gateway("mappings", "diff", changed, "--listener", "ris", "--processes", 1).exit_code == 0


def test_golden_cases_of_fhir_pass_and_show_what_differs(gateway: FHIRCommandSite) -> None:
    cases = gateway.folder / "mappings" / "cases"
    name = sorted(each.name for each in cases.glob("fhir-*.json") if ".expected." not in each.name)[0].removesuffix(
        ".json"
    )
    passed = gateway("mappings", "test", name)
    assert passed.exit_code == 0, passed.output
    expected = cases / f"{name}.expected.json"
    said = json.loads(expected.read_text())
    text = expected.read_text()
    assert '"PatientID"' in text, said
    expected.write_text(text.replace('"PatientID": "', '"PatientID": "X'))
    differs = gateway("mappings", "test", name)
    assert differs.exit_code == 1
    assert "PatientID" in differs.output


def test_an_open_order_is_brought_in_line_with_todays_catalogue(gateway: FHIRCommandSite) -> None:
    gateway.ask(whole(order(1)))
    gateway.change("mappings/procedures.csv", "CT head plain,,CT1,", "CT head plain,,CT9,")
    shown = gateway("orders", "rederive")
    assert "CT1 -> CT9" in shown.output, shown.output
    assert gateway("orders", "rederive", "--yes", "--order", order(1).accession).exit_code == 0
    (item,) = gateway.items()
    assert "CT9" in json.dumps(item)
    assert "0 order(s) would change" in gateway("orders", "rederive").output


def test_an_order_of_both_ways_is_brought_in_line(gateway: FHIRCommandSite) -> None:
    gateway.ask(whole(order(1)))
    gateway.receive(bare_orm(order(1)).message("M1", datetime.now()))
    gateway.change("mappings/procedures.csv", "CT head plain,,CT1,", "CT head plain,,CT9,")
    assert gateway("orders", "rederive", "--yes").exit_code == 0
    items = gateway.items()
    assert "CT9" in json.dumps(items)


def test_why_an_item_is_not_listed_names_the_request(gateway: FHIRCommandSite) -> None:
    gateway.ask(whole(order(1)), transaction(request(order(1), status="revoked")), uncovered(2))
    revoked = gateway("worklist", "why", "--as", "CT1", "--accession", order(1).accession)
    assert "cancel" in revoked.output.lower(), revoked.output
    refused = gateway("worklist", "why", "--as", "CT1", "--order", order(2).placer)
    assert "refused" in refused.output, refused.output
