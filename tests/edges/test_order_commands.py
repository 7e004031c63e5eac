"""Orders typed by hand, and open orders brought in line with changed rules, from the command line."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from gateway.config import load_site
from gateway.edges.store import Store
from gateway.testing import ImagingOrder, bare_orm, invented_person, rad4_orm
from gateway.wire.worklist_files import read_worklist_file
from tests.edges.command_site import CommandSite

AT = datetime(2026, 7, 5, 8, 0, tzinfo=UTC)
TOMORROW = datetime.now().replace(hour=9, minute=30, second=0, microsecond=0) + timedelta(days=1)
TYPED = ("--patient-id", "PAT77", "--issuer", "HOSPA", "--name", "Ermakova^Vera", "--sex", "F", "--start", "now")


@pytest.fixture
def gateway(tmp_path):
    return CommandSite(tmp_path / "site")


def order(number, **changes):
    return ImagingOrder(**{"number": number, "person": invented_person(number), "start": TOMORROW} | changes)


def listed(gateway):
    """(patient, modality, stations, accession, step ID) of every item."""

    def value(attributes, tag):
        return [each.get("Alphabetic") if isinstance(each, dict) else each for each in attributes[tag].get("Value", [])]

    return [
        (
            *value(item, "00100010"),
            *value(item["00400100"]["Value"][0], "00080060"),
            "/".join(value(item["00400100"]["Value"][0], "00400001")),
            *value(item, "00080050"),
            *value(item["00400100"]["Value"][0], "00400009"),
        )
        for item in json.loads(gateway("worklist", "list", "--json").output)
    ]


def change(gateway, file, old, new):
    path = gateway.folder / "mappings" / file
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


# ---- by hand ---------------------------------------------------------------------------------------------------


def test_an_order_typed_by_hand_is_listed_at_once_completed_by_the_catalogue(gateway):
    result = gateway("worklist", "add", *TYPED, "--procedure", "MRHEAD")
    assert result.exit_code == 0, result.output
    ((name, modality, stations, accession, step),) = listed(gateway)
    assert (name, modality, stations) == ("Ermakova^Vera", "MR", "MR1/MR2")
    assert accession
    assert step


def test_everything_that_is_lacking_is_named_by_its_option(gateway):
    result = gateway("worklist", "add")
    assert result.exit_code == 1
    for option in ("--patient-id", "--family-name", "--start", "--procedure"):
        assert option in result.output


def test_a_procedure_that_nobody_knows_needs_what_the_catalogue_would_say(gateway):
    assert gateway("worklist", "add", *TYPED, "--procedure", "NEW").exit_code == 1
    told = gateway("worklist", "add", *TYPED, "--procedure", "NEW", "--modality", "US", "--station", "US1")
    assert told.exit_code == 0, told.output
    assert [(modality, station) for _, modality, station, _, _ in listed(gateway)] == [("US", "US1")]


def test_a_value_that_does_not_fit_is_named_by_its_option(gateway):
    result = gateway("worklist", "add", *TYPED, "--procedure", "MRHEAD", "--station", "A TITLE THAT IS TOO LONG")
    assert result.exit_code == 1
    assert "--station" in result.output


def test_a_template_fills_what_the_options_leave_out(gateway, tmp_path):
    template = tmp_path / "emergency.yaml"
    template.write_text("procedure: CTHEAD\nissuer: HOSPA\nfamily-name: Unknown\nsex: O\ncomment: emergency\n")
    result = gateway(
        "worklist", "add", "--from", template, "--patient-id", "E1", "--start", "now", "--name", "Jane^Doe"
    )
    assert result.exit_code == 0, result.output
    assert listed(gateway)[0][:2] == ("Jane^Doe", "CT")
    template.write_text("procedur: CTHEAD\n")
    wrong = gateway("worklist", "add", "--from", template)
    assert wrong.exit_code == 1
    assert "procedure" in wrong.output


def test_an_accession_number_of_the_ris_is_not_taken_twice(gateway):
    gateway.receive(rad4_orm(order(1)).message("M1", AT))
    result = gateway("worklist", "add", *TYPED, "--procedure", "MRHEAD", "--accession", order(1).accession)
    assert result.exit_code == 1
    assert len(listed(gateway)) == 1


def test_an_order_typed_by_hand_is_archived_marked_and_can_be_cancelled(gateway):
    gateway("worklist", "add", *TYPED, "--procedure", "MRHEAD", "--accession", "HAND1")
    (shown,) = json.loads(gateway("orders", "show", "HAND1", "--json").output)
    assert shown["by_hand"] is True
    assert len(shown["messages"]) == 1
    assert gateway("worklist", "cancel", "HAND1").exit_code == 0
    assert listed(gateway) == []


def test_an_order_of_the_ris_is_not_cancelled_by_hand(gateway):
    gateway.receive(rad4_orm(order(1)).message("M1", AT))
    assert gateway("worklist", "cancel", order(1).accession).exit_code == 1
    assert len(listed(gateway)) == 1


def test_exported_items_can_be_read_again_with_every_attribute(gateway, tmp_path):
    gateway.receive(rad4_orm(order(1)).message("M1", AT))
    gateway("worklist", "add", *TYPED, "--procedure", "MRHEAD")
    folder = tmp_path / "wl"
    result = gateway("worklist", "export", folder)
    assert result.exit_code == 0, result.output
    files = sorted(folder.glob("*.wl"))
    assert len(files) == 2
    said = json.loads(gateway("worklist", "list", "--json").output)
    names = {read_worklist_file(file.read_bytes(), file.name)[0].event.patient.attributes["00100010"]["Value"][0]
             ["Alphabetic"] for file in files}  # fmt: skip
    assert names == {item["00100010"]["Value"][0]["Alphabetic"] for item in said}


# ---- rederived -------------------------------------------------------------------------------------------------


def test_rederiving_shows_first_and_changes_nothing(gateway):
    gateway.receive(bare_orm(order(1)).message("M1", AT))
    before = listed(gateway)
    change(gateway, "procedures.csv", "CT head plain,,CT1,", "CT head plain,,CT9,")
    result = gateway("orders", "rederive")
    assert result.exit_code == 0, result.output
    assert "ScheduledStationAETitle" in result.output
    assert "CT1 -> CT9" in result.output
    assert "Nothing is done without --yes" in result.output
    assert listed(gateway) == before


def test_rederiving_brings_open_orders_in_line_and_keeps_their_keys(gateway):
    gateway.receive(bare_orm(order(1)).message("M1", AT), rad4_orm(order(2)).message("M2", AT))
    before = listed(gateway)
    change(gateway, "procedures.csv", "CT head plain,,CT1,", "CT head plain,,CT9,")
    assert gateway("orders", "rederive", "--yes").exit_code == 0
    after = listed(gateway)
    assert [(item[3], item[4]) for item in after] == [(item[3], item[4]) for item in before]
    assert "CT9" in {item[2] for item in after}
    again = gateway("orders", "rederive")
    assert "0 order(s) would change" in again.output


def test_rederived_is_written_into_the_history(gateway):
    gateway.receive(bare_orm(order(1)).message("M1", AT))
    change(gateway, "procedures.csv", "CT head plain,,CT1,", "CT head plain,,CT9,")
    gateway("orders", "rederive", "--yes")
    site = load_site(gateway.config)
    with Store(site.store_url) as store:
        (item,) = store.reader.item_of(order(1).accession) or store.reader.items([1])
        assert item.revision > 1


def test_a_step_that_the_catalogue_plans_now_is_added(gateway):
    gateway.receive(bare_orm(order(1)).message("M1", AT))
    ((_, _, _, _, step),) = listed(gateway)
    change(gateway, "procedures.csv", "CTHEAD,99PROC,CT head,CT,P-CTH,99PROT,CT head plain,,CT1,CT 1,ROOM CT1,15",
           "CTHEAD,99PROC,CT head,CT,P-CTH,99PROT,CT head plain,1,CT1,CT 1,ROOM CT1,15\n"
           "CTHEAD,99PROC,CT head,US,P-U,99PROT,Ultrasound,2,US1,US 1,ROOM US,5")  # fmt: skip
    assert gateway("orders", "rederive", "--yes").exit_code == 0
    items = listed(gateway)
    assert sorted(item[1] for item in items) == ["CT", "US"]
    assert next(item[4] for item in items if item[1] == "CT") == step


def test_an_order_without_archived_messages_is_left_and_told(gateway, tmp_path):
    gateway.receive(rad4_orm(order(1)).message("M1", AT))
    gateway("worklist", "export", tmp_path / "wl")
    other = CommandSite(tmp_path / "other")
    assert other("worklist", "import", tmp_path / "wl").exit_code == 0
    result = other("orders", "rederive")
    assert "1 order(s) left as they are: no message of it is archived" in result.output


def test_one_order_is_chosen_by_its_number(gateway):
    gateway.receive(bare_orm(order(1)).message("M1", AT), bare_orm(order(2)).message("M2", AT))
    change(gateway, "procedures.csv", "CT head plain,,CT1,", "CT head plain,,CT9,")
    result = json.loads(gateway("orders", "rederive", "--order", order(2).placer, "--json").output)
    assert len(result["orders"]) == 1
    assert gateway("orders", "rederive", "--order", "NOBODY").exit_code == 1


def test_rules_that_would_refuse_an_orders_messages_leave_it(gateway):
    gateway.receive(rad4_orm(order(1)).message("M1", AT))
    change(gateway, "hl7v2/ihe-swf.yaml", "PatientName: {from: PID-5,", "PatientName: {from: PID-9,")
    before = listed(gateway)
    result = gateway("orders", "rederive", "--yes")
    assert "left as they are: today's rules refuse message M1: missing field at PID-9" in result.output
    assert listed(gateway) == before


def test_the_order_of_the_ris_takes_over_the_one_typed_by_hand(gateway):
    ris = order(1, start=TOMORROW)
    gateway.receive(rad4_orm(order(2, person=ris.person)).message("M0", AT))  # the patient is known
    who = ("--patient-id", ris.person.patient_id, "--name", ris.person.name)
    gateway("worklist", "add", *who, "--procedure", "CTHEAD", "--start", TOMORROW.strftime("%Y%m%d1000"))  # fmt: skip
    assert len(listed(gateway)) == 2
    assert gateway.receive(rad4_orm(ris).message("M1", AT)) == ["accepted"]
    items = listed(gateway)
    assert len(items) == 2
    assert ris.accession in {item[3] for item in items}
    (shown,) = json.loads(gateway("orders", "show", ris.accession, "--json").output)
    assert shown["by_hand"] is False
