"""The commands an operator and an interface engineer type, on a site of their own."""

import asyncio
import json
import subprocess
import sys
import zipfile
from datetime import UTC, datetime, timedelta

import pytest
from typer.testing import CliRunner

from gateway.cli import cli
from gateway.config import load_site
from gateway.domain.identifiers import Mint
from gateway.edges.store import Store
from gateway.processing import feeds_of, process_message
from gateway.testing import ImagingOrder, bare_orm, invented_person, rad4_orm

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
    assert "known keys: host, port" in output
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


def test_explain_names_each_refusal_and_fails(gateway, tmp_path):
    file = tmp_path / "order.hl7"
    file.write_bytes(bare_orm(order(1, code="NOSUCH")).message("M1", AT))
    result = gateway("explain", file)
    assert result.exit_code == 1
    assert "procedures.csv" in result.output


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


def test_a_wheel_carries_everything_that_init_lays_out(tmp_path):
    """Installed from the wheel alone, away from the checkout, `gateway init` and `check` work."""
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path,
         "."],
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
    assert any((installed / "gateway" / "edges" / "migrations" / "versions").glob("0001*.py"))
