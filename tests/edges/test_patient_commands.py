"""Finding people, seeing what was merged, and taking a merge back, as typed at a console."""

import json
from datetime import UTC, datetime

import pytest
from typer.testing import CliRunner

from gateway.commands.patients import patients
from gateway.config import load_site
from gateway.domain.attributes import TAG, element
from gateway.domain.identifiers import Identifier, Mint
from gateway.domain.patient import IdentifierChange, PatientInput, PatientLink, PatientMerge, PatientUpdate
from gateway.edges.store import Store
from gateway.testing import site
from gateway.workflow.circumstances import Circumstances
from gateway.workflow.patients import apply_patient_event

AT = datetime(2026, 7, 5, 8, 0, tzinfo=UTC)


def key(value):
    return Identifier(value, "HOSPITAL")


def person(value, name, weight=""):
    held = {
        TAG["PatientID"]: element("PatientID", value),
        TAG["PatientName"]: element("PatientName", {"Alphabetic": name}),
    }
    if weight:
        held[TAG["PatientWeight"]] = element("PatientWeight", weight)
    return PatientInput((key(value),), held)


ADA, BEN = person("P1", "Amber^Ada", "61"), person("P2", "Birch^Ben")


@pytest.fixture
def gateway(tmp_path):
    """Runs a command of `gateway patients` on a site where these events happened."""
    config = site(tmp_path)

    def happened(*events):
        loaded = load_site(config)
        with Store(loaded.store_url) as store:
            under = Circumstances("ADT^A40 M7", Mint(store.site_namespace()))
            for event in events:
                store.write(lambda unit, one=event: apply_patient_event(unit, one, under, AT, [])).result(timeout=10)

    def run(*words):
        return CliRunner().invoke(patients, [*map(str, words), "--config", str(config)])

    run.happened = happened
    happened(PatientUpdate(ADA), PatientUpdate(BEN))
    return run


def said(result):
    assert result.exit_code == 0, result.output
    return json.loads(result.output)


@pytest.mark.parametrize("asked", ["P1", "amb", "Amber^A"])
def test_a_patient_is_found_by_identifier_or_the_beginning_of_a_name(gateway, asked):
    assert [each["name"] for each in said(gateway("find", asked, "--json"))] == ["Amber^Ada"]
    assert "P1 of HOSPITAL" in gateway("find", asked).output


def test_who_is_unknown_is_said_to_be(gateway):
    assert gateway("find", "NOBODY").exit_code == 1
    assert gateway("show", 99).exit_code == 1


def test_a_retired_identifier_finds_the_survivor(gateway):
    gateway.happened(PatientMerge(BEN, (key("P1"),)))
    (found,) = said(gateway("find", "P1", "--json"))
    assert (found["name"], found["retired"]) == ("Birch^Ben", [{"value": "P1", "issuer": "HOSPITAL"}])


def test_a_survivor_shows_what_a_merged_record_lent_it(gateway):
    gateway.happened(PatientMerge(BEN, (key("P1"),)))
    (found,) = said(gateway("find", "P2", "--json"))
    shown = said(gateway("show", found["number"], "--json"))
    assert shown["lent"] == [TAG["PatientWeight"]]
    assert [line["kind"] for line in shown["log"]] == ["merge"]
    assert "of a merged record" in gateway("show", found["number"]).output


def test_a_merge_is_shown_before_it_is_taken_back_and_taken_back_only_on_yes(gateway):
    gateway.happened(PatientMerge(BEN, (key("P1"),)))
    (line,) = said(gateway("merges", "--json"))
    preview = gateway("unmerge", line["line"])
    assert preview.exit_code == 0, preview.output
    assert "is a patient again" in preview.output
    assert "without --yes" in preview.output
    assert len(said(gateway("merges", "--json"))) == 1
    assert said(gateway("unmerge", line["line"], "--yes", "--json"))["done"]
    assert [each["name"] for each in said(gateway("find", "P1", "--json"))] == ["Amber^Ada"]
    undo, merge = said(gateway("merges", "--json"))
    assert (undo["kind"], merge["undone"] is not None) == ("undo", True)
    assert f"undo of line {line['line']}" in gateway("merges").output


def test_what_cannot_be_taken_back_fails_in_words(gateway):
    refused = gateway("unmerge", 7)
    assert refused.exit_code == 1
    assert "no line 7" in refused.output


@pytest.mark.parametrize(
    ("event", "sentence"),
    [
        (IdentifierChange(person("P3", "Amber^Ada"), (key("P1"),)), "gets back the identifiers of before: P1"),
        (PatientLink(ADA, BEN, linked=True), "are not linked any more"),
    ],
)
def test_changes_and_links_are_told_in_words_too(gateway, event, sentence):
    gateway.happened(event)
    (line,) = said(gateway("merges", "--json"))
    assert sentence in gateway("unmerge", line["line"]).output
    assert said(gateway("unmerge", line["line"], "--yes", "--json"))["done"]


def test_merges_since_a_time_that_is_to_come_are_none(gateway):
    gateway.happened(PatientMerge(BEN, (key("P1"),)))
    assert said(gateway("merges", "--since", "2099-01-01", "--json")) == []
    assert gateway("merges", "--since", "yesterweek").exit_code == 2
