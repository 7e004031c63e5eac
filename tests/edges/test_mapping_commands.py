"""The mapping workbench from the command line: golden cases, what a change would do, what no rule reads."""

import json
import shutil
from datetime import UTC, datetime, timedelta

import pytest
from typer.testing import CliRunner

from gateway.cli import cli
from gateway.testing import ImagingOrder, bare_orm, invented_person, rad4_orm
from tests.edges.command_site import CommandSite

AT = datetime(2026, 7, 5, 8, 0, tzinfo=UTC)
TOMORROW = datetime.now().replace(hour=9, minute=30, second=0, microsecond=0) + timedelta(days=1)


@pytest.fixture
def gateway(tmp_path):
    return CommandSite(tmp_path / "site")


def order(number, **changes):
    return ImagingOrder(number, invented_person(number), TOMORROW, **changes)


def message(number, **changes):
    return rad4_orm(order(number, **changes)).message(f"M{number}", AT)


def only_cases(gateway, *names):
    """Of the golden cases that came with the site these remain."""
    for path in (gateway.folder / "mappings" / "cases").iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name.split(".")[0] not in names and path.name != "README.md":
            path.unlink()


def changed_mappings(gateway, old, new, file="hl7v2/ihe-swf.yaml"):
    """A copy of the mappings folder in which one text is another."""
    folder = gateway.folder / "changed"
    shutil.copytree(gateway.folder / "mappings", folder)
    text = (folder / file).read_text(encoding="utf-8")
    assert old in text
    (folder / file).write_text(text.replace(old, new), encoding="utf-8")
    return folder


# ---- golden cases ------------------------------------------------------------------------------------------------


def test_a_golden_case_that_gives_what_it_must_passes(gateway):
    only_cases(gateway, "orm-rad4")
    result = gateway("mappings", "test")
    assert result.exit_code == 0, result.output
    assert "1 case(s), 0 different" in result.output


OUTBOUND = {
    "mapping": "ours",
    "header": {"receiving_application": "LAB", "timezone": "Asia/Tokyo"},
    "report": {
        "facts": {"OrderControl": "SC", "OrderStatus": "IP", "PatientIDs": "P1^^^HOSP", "Placer": "PL1"},
        "person": {"PatientName": "Sample^Ann"},
        "items": [{"StudyInstanceUID": "2.25.1", "RequestedProcedureCodeSequence": "CTHEAD^CT head^99PROC"}],
    },
}


def outbound_case(gateway, **changes):
    """A case of the site's own outbound mapping that nobody said yet what it must give; its file."""
    only_cases(gateway)
    mapping = gateway.folder / "mappings" / "outbound" / "ours.yaml"
    mapping.write_text("name: ours\nextends: status-orm\nrules: {OBR-5: {value: R}, OBR-44: null}\n")
    file = gateway.folder / "mappings" / "cases" / "outbound" / "started.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(OUTBOUND | changes))
    return file


def test_a_golden_case_of_an_outbound_mapping_shows_field_by_field_what_differs(gateway):
    file = outbound_case(gateway)
    assert "started.hl7 is not there" in gateway("mappings", "test").output
    assert gateway("mappings", "test", "outbound/started", "--update").exit_code == 0
    message = file.with_suffix(".hl7").read_text()
    assert message.startswith("MSH|^~\\&|GATEWAY|RADIOLOGY|LAB|HOSPITAL|20260705171502+0900||ORM^O01|")
    assert "\nOBR|1|PL1||CTHEAD^CT head^99PROC|R\n" in message
    assert gateway("mappings", "test").exit_code == 0
    mapping = gateway.folder / "mappings" / "outbound" / "ours.yaml"
    mapping.write_text(mapping.read_text().replace("{value: R}", "{value: S}"))
    result = gateway("mappings", "test")
    assert (result.exit_code, "OBR-5: S in place of R\n" in result.output) == (1, True)
    (told,) = json.loads(gateway("mappings", "test", "--json").stdout)
    assert told == {
        "case": "outbound/started", "mapping": "ours", "passed": False, "differences": ["OBR-5: S in place of R"]
    }  # fmt: skip


def test_an_outbound_case_says_what_is_refused(gateway):
    file = outbound_case(gateway, report={"facts": {"OrderControl": "SC"}})
    gateway("mappings", "test", "--update")
    assert file.with_suffix(".hl7").read_text().startswith("refused: PID-3: nothing to write: event.PatientIDs")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"mapping": "owrs"}, "there is no outbound mapping 'owrs': did you mean ours?"),
        ({"report": {"person": {"PatientNam": "A"}}}, "there is no attribute 'PatientNam': did you mean PatientName?"),
        ({"report": {"facts": {"Placr": "A"}}}, "there is no fact 'Placr': did you mean Placer?"),
        ({"report": {"patient": {}}}, "'patient' is no key here"),
        ({"header": {"at": "now"}}, "`header` has no at"),
        ({"header": {"timezone": "Nowhere/City"}}, "'Nowhere/City' is no time zone name"),
        ({"report": {"items": [{"RequestedProcedureCodeSequence": "A^B"}]}}, "'A^B' is no code"),
        ({"report": 7}, "is no case"),
    ],
    ids=["mapping", "attribute", "fact", "part", "header", "time zone", "code", "type"],
)
def test_a_mistake_in_an_outbound_case_is_told_with_its_file(gateway, changes, problem):
    file = outbound_case(gateway, **changes)
    result = gateway("mappings", "test")
    assert result.exit_code == 1
    assert problem in result.output.replace("\n", " ")
    assert file.name in result.output


def test_a_golden_case_shows_attribute_by_attribute_what_differs(gateway):
    only_cases(gateway, "orm-rad4")
    file = gateway.folder / "mappings" / "cases" / "orm-rad4.expected.json"
    file.write_text(file.read_text().replace("Doe^Jane^Q^Dr^Jr MD", "Somebody^Else"))
    result = gateway("mappings", "test")
    assert result.exit_code == 1
    assert "PatientName: expected 'Somebody^Else', got 'Doe^Jane^Q^Dr^Jr MD'" in result.output


def test_update_shows_the_difference_and_writes_it(gateway):
    only_cases(gateway, "orm-rad4")
    file = gateway.folder / "mappings" / "cases" / "orm-rad4.expected.json"
    right = file.read_text(encoding="utf-8")
    file.write_text(right.replace("Doe^Jane^Q^Dr^Jr MD", "Somebody^Else"), encoding="utf-8")
    updated = gateway("mappings", "test", "--update")
    assert updated.exit_code == 0
    assert "Somebody^Else" in updated.output
    assert json.loads(file.read_text(encoding="utf-8")) == json.loads(right)


def test_cases_are_chosen_by_pattern_and_an_unknown_one_is_named(gateway):
    only_cases(gateway, "orm-rad4", "omi-rad4", "orm-cancel")
    assert "2 case(s)" in gateway("mappings", "test", "*-rad4").output
    nobody = gateway("mappings", "test", "nothing-like-it")
    assert nobody.exit_code == 1
    assert "there is no golden case nothing-like-it" in nobody.output


def test_a_folder_named_like_a_mapping_holds_its_cases(gateway):
    only_cases(gateway, "orm-rad4")
    mappings = gateway.folder / "mappings"
    (mappings / "hl7v2" / "north.yaml").write_text("name: north\nextends: ihe-swf\nrules: {PatientSex: null}\n")
    (mappings / "cases" / "north").mkdir()
    shutil.copy(mappings / "cases" / "orm-rad4.hl7", mappings / "cases" / "north" / "no-sex.hl7")
    assert gateway("mappings", "test", "--update").exit_code == 0
    expected = (mappings / "cases" / "north" / "no-sex.expected.json").read_text()
    assert "PatientName" in expected
    assert "PatientSex" not in expected


def test_a_case_is_recorded_from_the_archive_without_its_patient(gateway):
    only_cases(gateway)
    raw = message(1)
    assert gateway.receive(raw) == ["accepted"]
    result = gateway("mappings", "record", 1, "--name", "head")
    assert result.exit_code == 0, result.output
    recorded = (gateway.folder / "mappings" / "cases" / "head.hl7").read_text(encoding="utf-8")
    for said in (order(1).person.patient_id, order(1).person.name.partition("^")[0], order(1).accession):
        assert said in raw.decode()
        assert said not in recorded
    assert gateway("mappings", "test").exit_code == 0
    assert gateway("mappings", "record", 1, "--name", "head").exit_code == 1


# ---- what a change would do ------------------------------------------------------------------------------------


def test_the_same_mappings_change_nothing(gateway):
    gateway.receive(message(1), message(2))
    result = gateway("mappings", "diff", gateway.folder / "mappings")
    assert result.exit_code == 0, result.output
    assert "the same in" in result.output
    assert "Nothing would change" in result.output
    told = json.loads(gateway("mappings", "diff", gateway.folder / "mappings", "--json").stdout)
    assert (told["listeners"][0]["same"], told["changed"]) == (True, 0)


def test_a_mapping_that_only_reads_the_same_is_compared_message_by_message(gateway):
    gateway.receive(message(1), message(2))
    folder = changed_mappings(gateway, 'version: "1"', 'version: "2"')
    result = gateway("mappings", "diff", folder)
    assert result.exit_code == 0, result.output
    assert "ris: ihe-swf@1+" in result.output
    assert " -> ihe-swf@2+" in result.output
    assert "2 the same, 0 changed" in result.output


def test_a_listener_that_is_not_there_is_no_empty_difference(gateway):
    gateway.receive(message(1))
    result = gateway("mappings", "diff", gateway.folder / "mappings", "--listener", "rsi")
    assert result.exit_code == 1
    assert "there is no listener rsi; have: ris" in result.output


def test_a_change_is_shown_by_attribute_with_orders_and_examples(gateway):
    gateway.receive(message(1), message(2))
    folder = changed_mappings(gateway, "  PatientSex: {from: PID-8, convert: {table: sex}}\n", "")
    result = gateway("mappings", "diff", folder, "--json")
    assert result.exit_code == 1
    said = json.loads(result.output)
    assert (said["messages"], said["changed"], said["newly_refused"]) == (2, 2, {})
    assert said["attributes"]["PatientSex"]["orders"] == 2
    assert said["attributes"]["PatientSex"]["examples"][0]["new"] == "(none)"
    assert list(said["attributes"]) == ["PatientSex"]


def test_what_a_change_would_refuse_is_told_with_its_messages(gateway):
    gateway.receive(message(1))
    folder = changed_mappings(gateway, "  PatientName: {from: PID-5, convert: xpn, missing: refuse}\n",
                              "  PatientName: {from: PID-9, convert: xpn, missing: refuse}\n")  # fmt: skip
    result = gateway("mappings", "diff", folder)
    assert result.exit_code == 1
    assert "newly refused: 1 message(s): missing field at PID-9; such as message 1" in result.output


def test_what_a_change_would_accept_is_told(gateway):
    assert gateway.receive(bare_orm(order(1, code="NEVERHEARD")).message("M1", AT)) == ["refused"]
    folder = changed_mappings(gateway, "MRHEAD,", "NEVERHEARD,99PROC,New,MR,,,,,MR1,,,\nMRHEAD,", "procedures.csv")
    said = json.loads(gateway("mappings", "diff", folder, "--json").output)
    assert {reason: each["messages"] for reason, each in said["newly_accepted"].items()} == {
        "uncovered order at OBR": 1
    }


def test_mistakes_in_the_changed_folder_are_told_before_anything_runs(gateway):
    gateway.receive(message(1))
    folder = changed_mappings(gateway, "  PatientSex:", "  PatientSexx:")
    result = gateway("mappings", "diff", folder)
    assert result.exit_code == 1
    assert "PatientSexx" in result.output


def test_several_processes_give_the_sum_of_one(gateway, monkeypatch):
    monkeypatch.setattr("gateway.archive_runs.CHUNK", 2)
    monkeypatch.setattr("gateway.archive_runs.ALONE_MAX", 1)
    gateway.receive(*(message(number) for number in range(1, 6)))
    folder = changed_mappings(gateway, "  PatientSex: {from: PID-8, convert: {table: sex}}\n", "")
    one, two = (
        json.loads(gateway("mappings", "diff", folder, "--json", "--processes", number).output) for number in (1, 2)
    )
    assert one == two
    assert one["attributes"]["PatientSex"]["messages"] == 5


# ---- what no rule reads, and the mapping as a table ------------------------------------------------------------


def test_coverage_names_fields_that_no_rule_reads_and_shows_only_their_shape(gateway):
    raw = message(1).replace(b"\rORC|", b"\rZRI|Room 7|x\rORC|")
    gateway.receive(raw)
    result = gateway("mappings", "coverage", "--json")
    assert result.exit_code == 0, result.output
    unread = {row["field"]: row for row in json.loads(result.output)["unread"]}
    assert unread["ZRI-1"]["example"] == "xxxx 9"
    assert not {"PID-3", "PID-5", "ORC-1", "MSH-10", "OBR-1"} & unread.keys()
    shown = json.loads(gateway("mappings", "coverage", "--json", "--values").output)["unread"]
    assert "Room 7" in {row["example"] for row in shown}


def test_the_table_names_source_fields_in_words(gateway):
    said = json.loads(gateway("mappings", "table", "--json").output)
    rows = {row["target"]: row for row in said["rows"]}
    assert rows["PatientName"]["source"] == "PID-5"
    assert rows["PatientName"]["name"] == "Patient Name"
    assert said["tables"]["sex"]["F"] == "F"
    assert "Patient Name" in gateway("mappings", "table").output


# ---- explanations ----------------------------------------------------------------------------------------------


def test_explain_names_source_fields_in_words_and_reads_the_archive(gateway):
    gateway.receive(message(1))
    result = gateway("explain", "--message", 1)
    assert result.exit_code == 0, result.output
    assert "Patient Name" in result.output
    (said,) = json.loads(gateway("explain", "--message", 1, "--json").output)
    assert next(line for line in said["trace"] if line["target"] == "PatientName")["name"] == "Patient Name"


def test_explain_gives_the_catalogue_line_that_an_uncovered_order_lacks(gateway, tmp_path):
    file = tmp_path / "m.hl7"
    file.write_bytes(bare_orm(order(1, code="NEVERHEARD")).message("M1", AT))
    (said,) = json.loads(gateway("explain", file, "--json").output)
    assert said["refusals"]
    lines = {fix["file"]: fix["line"] for fix in said["fixes"]}
    assert lines["mappings/procedures.csv"].startswith("NEVERHEARD,")
    # pasted, it covers the order
    with (gateway.folder / "mappings" / "procedures.csv").open("a") as catalogue:
        catalogue.write(lines["mappings/procedures.csv"].replace("CHANGE_ME", "CT") + "\n")
    assert gateway("explain", file).exit_code == 0


def test_explain_gives_the_rule_that_a_start_elsewhere_needs(gateway, tmp_path):
    file = tmp_path / "m.hl7"
    file.write_bytes(
        b"MSH|^~\\&|RIS|RADX|GATEWAY|RADX|20260705080000||ORM^O01|M1|P|2.3\rPID|||1^^^HOSPA||Doe^Jane\r"
        b"ORC|NW|P1^OE\rOBR|1|P1^OE||CTHEAD^CT head^99PROC" + b"|" * 32 + b"20260705093000\r"
    )
    (said,) = json.loads(gateway("explain", file, "--json").output)
    lines = [fix["line"].replace("CHANGE_ME", "OBR-36") for fix in said["fixes"]]
    assert len(lines) == 2
    # put into a mapping of the sender's own, they bring it through
    config = gateway.folder / "gateway.yaml"
    rules = "".join(f"  {line}\n" for line in lines)
    (gateway.folder / "mappings" / "hl7v2" / "north.yaml").write_text(f"name: north\nextends: ihe-swf\nrules:\n{rules}")
    config.write_text(config.read_text().replace("ihe-swf", "north"))
    assert gateway("explain", file).exit_code == 0


def test_explain_gives_the_row_that_an_unknown_code_lacks(gateway, tmp_path):
    file = tmp_path / "m.hl7"
    sex = order(1).person.sex.encode()
    raw = message(1)
    pid = next(line for line in raw.split(b"\r") if line.startswith(b"PID"))
    fields = pid.split(b"|")
    assert fields[8] == sex
    fields[8] = b"Q7"
    file.write_bytes(raw.replace(pid, b"|".join(fields)))
    (said,) = json.loads(gateway("explain", file, "--json").output)
    assert ("mappings/codes/sex.csv", "Q7,CHANGE_ME") in {(fix["file"], fix["line"]) for fix in said["fixes"]}


def test_explain_gives_the_whole_rule_that_would_let_a_message_pass(gateway, tmp_path):
    file = tmp_path / "order.hl7"
    sex = order(1).person.sex.encode()
    file.write_bytes(message(1).replace(b"|" + sex + b"\r", b"|W\r", 1))
    (fix,) = [
        each for each in json.loads(gateway("explain", file, "--json").stdout)[0]["fixes"] if "pass" in each["text"]
    ]
    assert fix["line"] == "PatientSex: {from: PID-8, convert: {table: sex}, unknown: omit}"
    overlay = gateway.folder / "mappings" / "hl7v2" / "lenient.yaml"
    overlay.write_text(f"extends: ihe-swf\nrules:\n  {fix['line']}\n", encoding="utf-8")
    config = gateway.folder / "gateway.yaml"
    config.write_text(config.read_text().replace("mapping: ihe-swf", "mapping: lenient"), encoding="utf-8")
    assert gateway("explain", file).exit_code == 0  # ready to paste, and true


def test_explain_wants_a_message(gateway):
    assert gateway("explain").exit_code == 2
    assert gateway("explain", "--message", 7).exit_code == 1


def test_explain_says_what_the_store_would_do_now_and_does_nothing(gateway, tmp_path):
    gateway.receive(message(1))
    file = tmp_path / "m.hl7"
    file.write_bytes(message(2))
    (said,) = json.loads(gateway("explain", file, "--store", "--json").output)
    assert said["now"][0] == "accepted"
    assert len(json.loads(gateway("worklist", "list", "--json").output)) == 1


def test_explain_reads_standard_input(gateway):
    result = CliRunner().invoke(cli, ["explain", "-", "--config", str(gateway.config)], input=message(1))
    assert result.exit_code == 0, result.output
    assert "Patient Name" in result.output
