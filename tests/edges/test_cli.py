"""The commands an operator and an interface engineer type, on a site of their own."""

import asyncio
import json
import shutil
import sqlite3
import subprocess
import sys
import zipfile
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from typer.testing import CliRunner

from gateway.cli import cli
from gateway.config import load_site
from gateway.domain.identifiers import Mint
from gateway.edges.store import Store
from gateway.processing import feeds_of, now, process_message
from gateway.testing import ImagingOrder, bare_orm, invented_person, rad4_orm, worklist_identifier
from gateway.wire.dicom_json import attributes_from_dataset, write_attributes
from gateway.workflow.outbox import enqueue
from gateway.workflow.ports import QueryRecord

CHECKOUT = Path(__file__).parents[2]
IMPLICIT = "1.2.840.10008.1.2"

AT = datetime(2026, 7, 5, 8, 0, tzinfo=UTC)
TOMORROW = datetime.now().replace(hour=9, minute=30, second=0, microsecond=0) + timedelta(days=1)


@pytest.fixture
def gateway(tmp_path):
    """Runs a command on a site laid out by `gateway init`; returns its result."""
    config = tmp_path / "site" / "gateway.yaml"

    def run(*words):
        return CliRunner().invoke(cli, [*map(str, words), *(["--config", str(config)] if words[0] != "init" else [])])

    run.config = config
    assert run("init", config.parent).exit_code == 0
    return run


def receive(config, *raw):
    site = load_site(config)
    with Store(site.store_url) as store:
        feed = feeds_of(site, Mint(store.site_namespace()))["ris"]
        return [asyncio.run(process_message(store, each, feed, "test")).disposition for each in raw]


def asked(config, ae_title="CT1", status=0, matches=0, **keys):
    """A device asked for its worklist; the query's number."""
    site = load_site(config)
    identifier = write_attributes(attributes_from_dataset(worklist_identifier(keys)), IMPLICIT, ("ISO_IR 192",))
    record = QueryRecord(
        now(), ae_title, "GATEWAY", "192.0.2.30", IMPLICIT, identifier, status, matches, 0.7, b"", ("odd padding",)
    )
    with Store(site.store_url) as store:
        store.write(lambda unit: unit.add_queries([record], 100)).result(timeout=10)
        return store.reader.queries(limit=1)[0].id


def registered(config, text, **listener):
    """The site's devices are these, and nobody else may call; `listener` is a second one."""
    (config.parent / "devices.yaml").write_text(text)
    settings = YAML(typ="safe").load(config.read_text())
    settings["devices"]["unknown"] = "reject"
    if listener:
        settings["hl7"].append({"host": "127.0.0.1", "port": 2576, "mapping": "ihe-swf"} | listener)
    with config.open("w") as file:
        YAML().dump(settings, file)


def order(number, start=TOMORROW, **changes):
    return ImagingOrder(number, invented_person(number), start, **changes)


def message(number, **changes):
    return rad4_orm(order(number, **changes)).message(f"M{number}", AT)


def test_a_site_laid_out_by_init_passes_the_check(gateway):
    result = gateway("check")
    assert result.exit_code == 0, result.output
    assert "ok" in result.output


def test_init_overwrites_nothing(gateway):
    again = gateway("init", gateway.config.parent)
    assert again.exit_code == 1
    assert "nothing was written" in again.output


def test_check_names_every_problem_with_file_line_and_hint(gateway):
    gateway.config.write_text(
        "ae_title: GATEWAY\ndicom: {prt: 11112}\nhl7:\n  - {name: ris, mapping: nosuch}\ntimezone: Mars/Base\n"
    )
    output = gateway("check").output
    assert "gateway.yaml:2" in output
    assert "unknown key" in output
    assert "did you mean port?" in output
    assert "gateway.yaml:5" in output


def test_check_names_mistakes_in_mapping_and_catalogue_together(gateway):
    mappings = gateway.config.parent / "mappings"
    rules = mappings / "hl7v2" / "ihe-swf.yaml"
    rules.write_text(rules.read_text().replace("PatientBirthDate:", "PatientBirthDat:", 1))
    with (mappings / "procedures.csv").open("a") as catalogue:
        catalogue.write("BROKEN,99PROC,,not a modality,,,,,AE_TITLE_THAT_IS_TOO_LONG,,,\n")
    result = gateway("check")
    assert result.exit_code == 1
    assert "PatientBirthDate" in result.output
    assert "procedures.csv" in result.output


def test_check_doubts_a_station_that_would_be_turned_away_and_the_site_runs_all_the_same(gateway):
    registered(gateway.config, "devices:\n  - {ae_title: CT1}\n")
    result = gateway("check")
    assert result.exit_code == 1
    assert "procedures.csv:11 station_ae_titles: 'MG1' is not in devices.yaml" in result.output.replace("\n", " ")
    assert "doubt(s)" in result.output
    assert load_site(gateway.config).devices.known.keys() == {"CT1"}  # nothing is refused


def test_check_names_a_catalogue_that_is_no_utf_8(gateway):
    catalogue = gateway.config.parent / "mappings" / "procedures.csv"
    catalogue.write_bytes(catalogue.read_bytes() + "SCHÄDEL,99PROC,,CT,,,,,CT1,,,\n".encode("latin-1"))
    result = gateway("check")
    assert result.exit_code == 1
    assert "procedures.csv" in result.output
    assert "UTF-8" in result.output


def test_check_names_a_character_set_that_nobody_knows(gateway):
    gateway.config.write_text(gateway.config.read_text().replace("charset: UNICODE UTF-8", "charset: latin-9x"))
    result = gateway("check")
    assert result.exit_code == 1
    assert "latin-9x" in result.output


def test_looking_makes_no_store_and_says_what_does(gateway):
    result = gateway("worklist", "list")
    assert result.exit_code == 1
    assert "gateway run" in result.output
    assert not list(gateway.config.parent.glob("*.db"))


@pytest.mark.parametrize(
    "words", [("worklist", "list", "--date", "2026-07-05"), ("messages", "list", "--disposition", "refusd")]
)
def test_a_filter_that_cannot_match_is_a_usage_error(gateway, words):
    receive(gateway.config, message(1))
    assert gateway(*words).exit_code == 2


def test_a_secret_comes_from_the_environment(gateway, monkeypatch):
    monkeypatch.setenv("SITE_AE_TITLE", "HOSPITAL1")
    gateway.config.write_text(gateway.config.read_text().replace("ae_title: GATEWAY", "ae_title: ${SITE_AE_TITLE}"))
    assert load_site(gateway.config).settings.ae_title == "HOSPITAL1"
    monkeypatch.delenv("SITE_AE_TITLE")
    assert "not set" in gateway("check").output


def test_explain_shows_where_each_value_comes_from(gateway, tmp_path):
    file = tmp_path / "order.hl7"
    file.write_bytes(message(1))
    (explained,) = json.loads(gateway("explain", file, "--json").output)
    trace = {entry["target"]: entry for entry in explained["trace"]}
    assert trace["AccessionNumber"]["where"] == "OBR-18"
    assert trace["ScheduledProcedureStepSequence.Modality"]["raw"] == "CT"
    assert explained["items"][0]["stations"] == "CT1"
    assert "OBR-18" in gateway("explain", file).output


def test_explain_says_who_issued_each_identifier_and_how_that_is_known(gateway, tmp_path):
    registry = "\nissuers:\n  - {name: HOSPA, hl7: [HOSPITAL, HOSP_A], oid: [1.2.3.4]}\n"
    gateway.config.write_text(gateway.config.read_text() + registry)
    file = tmp_path / "order.hl7"
    file.write_bytes(message(1))
    (explained,) = json.loads(gateway("explain", file, "--json").output)
    assert "PID-3: HOSPA: it has the universal ID '1.2.3.4'" in explained["authorities"]
    assert any(line.startswith("ORC-2: OE: as it was sent") for line in explained["authorities"])
    assert "issuer of PID-3: HOSPA" in gateway("explain", file).output


def test_explain_does_not_call_a_cancel_refused_because_it_looks_at_no_store(gateway, tmp_path):
    file = tmp_path / "cancel.hl7"
    file.write_bytes(rad4_orm(order(1), "CA", "CA").message("M1", AT))
    result = gateway("explain", file)
    assert result.exit_code == 0
    assert "CA acts on an order that is held" in result.output


def test_explain_names_each_refusal_and_fails(gateway, tmp_path):
    file = tmp_path / "order.hl7"
    file.write_bytes(bare_orm(order(1, code="NOSUCH")).message("M1", AT))
    result = gateway("explain", file)
    assert result.exit_code == 1
    assert "procedures.csv" in result.output


def test_explain_of_a_message_of_ours_says_which_command_has_its_trace(gateway):
    sent = b"MSH|^~\\&|GATEWAY||RIS||||ORM^O01|M1|P|2.5\r"
    with Store(load_site(gateway.config).store_url) as store:
        number = store.write(lambda unit: enqueue(unit, "ris", None, "M1", sent, datetime.now(UTC))).result()
    result = gateway("explain", "--message", number)
    assert result.exit_code == 1
    assert f"`gateway messages show {number} --trace`" in " ".join(result.output.split())


def test_a_destination_is_named_without_blanks(gateway):
    with gateway.config.open("a") as file:
        file.write('destinations: [{name: "our ris", host: h, port: 1, status: {mapping: status-orm}}]\n')
    output = " ".join(gateway("check").output.split())
    assert "no blanks, and begins with a letter or digit" in output
    assert "pattern" not in output


def test_the_list_can_be_seen_as_a_device_sees_it(gateway):
    receive(gateway.config, message(1), message(2, station="US1", modality="US"))
    everything = json.loads(gateway("worklist", "list", "--json").output)
    own = json.loads(gateway("worklist", "list", "--as", "US1", "--json").output)
    assert (len(everything), len(own)) == (2, 1)
    assert "A000000002" in gateway("worklist", "list", "--as", "US1").output
    assert json.loads(gateway("worklist", "list", "--date", "19990101", "--json").output) == []


def test_an_item_is_shown_with_its_attributes_and_history(gateway):
    receive(gateway.config, message(1))
    shown = gateway("worklist", "show", "A000000001").output
    assert "PatientName" in shown
    assert "ris M1" in shown
    (item,) = json.loads(gateway("worklist", "show", "S000000001", "--json").output)
    assert item["status"] == "SCHEDULED"
    assert gateway("worklist", "show", "NOSUCH").exit_code == 1


def test_messages_are_listed_shown_and_found_by_key(gateway):
    receive(gateway.config, message(1), bare_orm(order(2, code="NOSUCH")).message("M2", AT))
    assert "refused" in gateway("messages", "list").output
    found = json.loads(gateway("messages", "list", "--key", "A000000001", "--json").output)
    assert [row["control_id"] for row in found] == ["M1"]
    shown = gateway("messages", "show", "2").output
    assert "NOSUCH" in shown
    assert "MSA|AE|M2" in shown
    assert gateway("messages", "show", "99").exit_code == 1


def test_a_refused_message_comes_through_when_replayed_after_the_catalogue_was_mended(gateway):
    receive(gateway.config, bare_orm(order(2, code="BRANDNEW")).message("M2", AT))
    assert gateway("messages", "replay", "1").exit_code == 1
    with (gateway.config.parent / "mappings" / "procedures.csv").open("a") as catalogue:
        catalogue.write("BRANDNEW,99PROC,New,CT,,,,,CT1,,,\n")
    assert "accepted" in gateway("messages", "replay", "1").output
    assert len(json.loads(gateway("worklist", "list", "--json").output)) == 1


def test_a_dicom_json_item_is_imported_with_every_attribute_and_again_without_a_double(gateway, tmp_path):
    receive(gateway.config, message(1))
    (item,) = json.loads(gateway("worklist", "list", "--json").output)
    item["0020000D"]["Value"] = ["1.2.3.4.777"]
    item["00080050"]["Value"] = ["IMPORTED1"]
    item["00402016"]["Value"] = ["P777"]
    item["00402017"]["Value"] = ["F777"]
    item["00091001"] = {"vr": "LO", "Value": ["private"]}
    item["00090010"] = {"vr": "LO", "Value": ["INVENTED"]}
    file = tmp_path / "item.json"
    file.write_text(json.dumps(item))
    for _ in range(2):
        result = gateway("worklist", "import", file)
        assert "1 item(s) imported" in result.output, result.output
    (shown,) = json.loads(gateway("worklist", "show", "IMPORTED1", "--json").output)
    assert shown["attributes"]["00091001"]["Value"] == ["private"]
    assert len(json.loads(gateway("worklist", "list", "--json").output)) == 2


def test_an_import_of_garbage_names_the_file_and_takes_the_rest(gateway, tmp_path):
    receive(gateway.config, message(1))
    folder = tmp_path / "items"
    folder.mkdir()
    (item,) = json.loads(gateway("worklist", "list", "--json").output)
    (folder / "good.json").write_text(json.dumps(item))
    (folder / "garbage.wl").write_bytes(b"\xff" * 300)
    result = gateway("worklist", "import", folder)
    assert result.exit_code == 1
    assert "garbage.wl" in result.output
    assert "1 item(s) imported, 1 refused" in result.output


def test_the_expiry_is_shown_before_it_happens(gateway):
    long_past = datetime.now() - timedelta(days=30)
    receive(gateway.config, message(1, start=long_past), message(2))
    preview = json.loads(gateway("worklist", "expire", "--json").output)
    assert [row["accession"] for row in preview] == ["A000000001"]
    assert len(json.loads(gateway("worklist", "list", "--json").output)) == 2
    assert "1 step(s) expired" in gateway("worklist", "expire", "--now").output
    assert len(json.loads(gateway("worklist", "list", "--json").output)) == 1
    assert "EXPIRED" in gateway("worklist", "show", "A000000001").output


def test_a_backup_comes_back(gateway, tmp_path):
    receive(gateway.config, message(1))
    copy = tmp_path / "copy.db"
    assert gateway("backup", copy).exit_code == 0
    assert gateway("backup", copy).exit_code == 1
    receive(gateway.config, message(2))
    assert gateway("restore", copy).exit_code == 1
    assert "kept as" in gateway("restore", copy, "--force").output
    assert len(json.loads(gateway("worklist", "list", "--json").output)) == 1
    assert "Nothing to do" in gateway("upgrade").output


def test_why_names_the_key_that_excludes_the_item_and_its_values(gateway):
    receive(gateway.config, message(1))
    number = asked(gateway.config, ScheduledStationAETitle="CT2")
    result = gateway("worklist", "why", "--as", "CT1", "--accession", "A000000001")
    assert result.exit_code == 0, result.output
    assert "A000000001" in result.output
    assert "is not shown to CT1" in result.output
    assert f"Query {number} of " in result.output
    assert "asked for 'CT2', the item has 'CT1'" in result.output
    asked(gateway.config, ScheduledStationAETitle="CT1")
    explanation = json.loads(gateway("worklist", "why", "--as", "CT1", "--step", "S000000001", "--json").output)
    assert [item["shown"] for item in explanation["items"]] == [True]
    assert {finding["severity"] for finding in explanation["items"][0]["findings"]} == {"shown", "hidden", "note"}


def test_why_of_an_order_that_was_refused_tells_its_message(gateway):
    receive(gateway.config, bare_orm(order(1, code="NOSUCH")).message("M1", AT))
    output = gateway("worklist", "why", "--as", "CT1", "--order", "P000000001").output
    assert "Message 1 (ORM^O01)" in output
    assert "procedures.csv" in output


@pytest.mark.parametrize("words", [
    (), ("--accession", "A1", "--patient", "P1"), ("--accession", "  "),
])  # fmt: skip
def test_why_wants_exactly_one_number(gateway, words):
    receive(gateway.config, message(1))
    assert gateway("worklist", "why", "--as", "CT1", *words).exit_code == 2


def test_kept_queries_are_listed_with_their_keys(gateway):
    receive(gateway.config, message(1))
    asked(gateway.config, "CT1", Modality="CT", PatientName="Exämple*")
    asked(gateway.config, "MR1", status=0xFE00, matches=3)
    output = gateway("worklist", "queries").output
    assert "Modality 'CT'" in output
    assert "PatientName 'Exämple*'" in output
    assert "cancelled by the device" in output
    assert "odd padding" in output
    (only,) = json.loads(gateway("worklist", "queries", "--as", "MR1", "--json").output)
    assert (only["status"], only["matches"], only["number"]) == ("FE00", 3, 2)
    assert len(json.loads(gateway("worklist", "queries", "--limit", "1", "--json").output)) == 1


def test_a_kept_query_that_is_no_dataset_is_listed_all_the_same(gateway):
    receive(gateway.config, message(1))
    with Store(load_site(gateway.config).store_url) as store:
        record = QueryRecord(now(), "CT1", "GATEWAY", "192.0.2.30", IMPLICIT, b"\x01\x02\x03", 0xA900)
        store.write(lambda unit: unit.add_queries([record], 10)).result(timeout=10)
    assert "not readable" in gateway("worklist", "queries").output
    assert "A900" in gateway("worklist", "queries").output
    result = gateway("worklist", "replay", 1)
    assert result.exit_code == 1
    assert "cannot be used" in result.output


def test_replay_says_what_a_profile_would_change(gateway):
    registered(gateway.config, "devices: [{ae_title: CT1}, {ae_title: CT2}]\n")
    (gateway.config.parent / "profiles.yaml").write_text(
        "profiles:\n  - {name: any-station, reason: asks with its own AE title, ignore: [ScheduledStationAETitle]}\n"
    )
    receive(gateway.config, message(1), message(2, station="CT2"))
    number = asked(gateway.config, ScheduledStationAETitle="CT1", matches=1)
    plain = gateway("worklist", "replay", number)
    assert plain.exit_code == 0, plain.output
    assert "1 item(s) now; 1 when CT1 asked at" in plain.output
    changed = gateway("worklist", "replay", number, "--profile", "any-station")
    assert "2 item(s) now" in changed.output
    assert "1 item(s) appear with profile any-station" in changed.output
    assert "0 item(s) disappear" in changed.output
    told = json.loads(gateway("worklist", "replay", number, "--profile", "any-station", "--json").output)
    assert [item["00080050"]["Value"] for item in told["appear"]] == [["A000000002"]]
    missing = gateway("worklist", "replay", number, "--profile", "nosuch")
    assert missing.exit_code == 1
    assert "any-station" in missing.output
    assert gateway("worklist", "replay", 99).exit_code == 1
    assert gateway("worklist", "replay", number, "--as", "XX").exit_code == 1


def test_the_list_as_a_device_sees_it_is_bounded_as_its_answers_are(gateway):
    registered(
        gateway.config,
        "devices:\n  - {ae_title: CT1, sites: [NORTH], profile: few}\n  - {ae_title: CT2}\n",
        name="north", site="NORTH",
    )  # fmt: skip
    (gateway.config.parent / "profiles.yaml").write_text("profiles: [{name: few, reason: small, answers_max: 1}]\n")
    receive(gateway.config, message(1), message(2), message(3))
    (item,) = [
        each for each in json.loads(gateway("worklist", "list", "--json").output)
        if each["00080050"]["Value"] == ["A000000001"]
    ]  # fmt: skip
    for number in (7, 8):
        item |= {
            "0020000D": {"vr": "UI", "Value": [f"1.2.3.4.{number}"]},
            "00080050": {"vr": "SH", "Value": [f"NORTH{number}"]},
            "00402016": {"vr": "LO", "Value": [f"P{number}"]},
            "00402017": {"vr": "LO", "Value": [f"F{number}"]},
        }
        file = gateway.config.parent / f"north{number}.json"
        file.write_text(json.dumps(item))
        assert gateway("worklist", "import", file, "--site", "NORTH").exit_code == 0
    unknown = gateway("worklist", "import", file, "--site", "NROTH")
    assert unknown.exit_code == 1
    assert "NORTH" in unknown.output
    seen = gateway("worklist", "list", "--as", "CT1")
    assert "NORTH7" in seen.output
    assert "1 item(s)" in seen.output
    assert "1 more match" in seen.output
    assert "A000000001" not in seen.output
    assert len(json.loads(gateway("worklist", "list", "--as", "CT2", "--json").output)) == 5
    assert gateway("worklist", "list", "--called", "X").exit_code == 2


def test_one_damaged_item_ends_no_listing_and_is_named_by_check(gateway):
    receive(gateway.config, *(message(number) for number in range(1, 5)))
    path = gateway.config.parent / "gateway.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE steps SET attributes = '{' WHERE id = 3")
        connection.execute('UPDATE patients SET attributes = \'{"00100010": {"vr": "PN", "Value": 5}}\' WHERE id = 4')
        connection.commit()
    assert "2 item(s)" in gateway("worklist", "list").output
    assert gateway("worklist", "why", "--as", "CT1", "--accession", "A000000004").exit_code == 0
    result = gateway("check")
    assert result.exit_code == 1
    assert "worklist item #3" in result.output
    assert "worklist item #4" in result.output
    assert "2 listed item(s) cannot be read" in result.output


def test_a_wheel_carries_everything_that_init_lays_out(tmp_path):
    """Installed from the wheel alone, away from the checkout, `gateway init` and `check` work."""
    sources = tmp_path / "sources"  # what an earlier build left in the checkout would travel with it
    for name in ("gateway", "config", "mappings"):
        shutil.copytree(CHECKOUT / name, sources / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, sources)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path,
         sources],
        check=True, capture_output=True,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    installed = tmp_path / "installed"
    zipfile.ZipFile(wheel).extractall(installed)
    for words in (["init", "site"], ["check", "--config", "site/gateway.yaml"]):
        done = subprocess.run(
            [sys.executable, "-P", "-c", f"import sys; sys.path.insert(0, {str(installed)!r}); from gateway.cli "
             "import main; main()", *words],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "site" / "mappings" / "cases").is_dir()
    assert (tmp_path / "site" / "mappings" / "outbound" / "status-orm.yaml").is_file()
    ours = {path.relative_to(sources) for path in (sources / "gateway").rglob("*.py")}
    assert ours - {path.relative_to(installed) for path in installed.rglob("*.py")} == set()
    assert any((installed / "gateway" / "edges" / "migrations" / "versions").glob("0001*.py"))
    tables = {path.name for path in (CHECKOUT / "gateway" / "wire" / "tables").iterdir()}
    assert {path.name for path in (installed / "gateway" / "wire" / "tables").iterdir()} == tables
