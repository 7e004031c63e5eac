"""`gateway messages`: what an operator finds in the archive, and what running messages again does and would do."""

import asyncio
import json
from datetime import UTC, datetime, timedelta

import pytest
from typer.testing import CliRunner

from gateway.cli import cli
from gateway.config import load_site
from gateway.domain.identifiers import Mint
from gateway.edges.store import Store
from gateway.processing import feeds_of, process_message, remember_mappings
from gateway.service import Service
from gateway.testing import ImagingOrder, bare_orm, invented_person, omi, rad4_orm, register
from gateway.workflow.ports import MessageSearch

AT = datetime(2026, 7, 5, 8, 0, tzinfo=UTC)
TOMORROW = datetime.now().replace(hour=9, minute=30, second=0, microsecond=0) + timedelta(days=1)
BRAND_NEW = "BRANDNEW,99PROC,Brand new,CT,,,,,CT1,,,\n"


def _site(folder):
    """Runs a command on a site laid out by `gateway init`; returns its result."""
    config = folder / "site" / "gateway.yaml"

    def run(*words):
        return CliRunner().invoke(cli, [*map(str, words), *(["--config", str(config)] if words[0] != "init" else [])])

    run.config = config
    assert run("init", config.parent).exit_code == 0
    return run


@pytest.fixture
def gateway(tmp_path):
    return _site(tmp_path)


def _order(number, **changes):
    return ImagingOrder(number, invented_person(number), TOMORROW, **changes)


def _receive(gateway, *raw):
    site = load_site(gateway.config)
    with Store(site.store_url) as store:
        asyncio.run(remember_mappings(store, site))
        feed = feeds_of(site, Mint(store.site_namespace()))["ris"]
        return [asyncio.run(process_message(store, each, feed, "test")).disposition for each in raw]


def _uncovered(number, control_id):
    return bare_orm(_order(number, code="BRANDNEW")).message(control_id, AT)


def _cover(gateway):
    """From now on the catalogue has the procedure that was refused."""
    with (gateway.config.parent / "mappings" / "procedures.csv").open("a") as catalogue:
        catalogue.write(BRAND_NEW)


def _archived(gateway):
    with Store(load_site(gateway.config).store_url) as store:
        return [each.record.disposition for each in store.reader.messages_in_order(MessageSearch(), 1000)]


def _items(gateway):
    return json.loads(gateway("worklist", "list", "--json").output)


def _listed(gateway, *options):
    result = gateway("messages", "list", *options, "--json")
    assert result.exit_code == 0, result.output
    return [row["number"] for row in json.loads(result.output)]


def _with_three(gateway):
    """An order, a refused one and a patient's registration."""
    assert _receive(
        gateway, omi(_order(1)).message("M1", AT), _uncovered(2, "M2"), register(invented_person(3)).message("M3", AT)
    ) == ["accepted", "refused", "accepted"]
    return gateway


@pytest.fixture
def three(gateway):
    """For a test that changes the site."""
    return _with_three(gateway)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """For tests that only look."""
    return _with_three(_site(tmp_path_factory.mktemp("archive")))


# --- list


@pytest.mark.parametrize(
    ("options", "numbers"),
    [
        ([], [3, 2, 1]),
        (["--limit", 1], [3]),
        (["--before", 3], [2, 1]),
        (["--accession", "A000000001"], [1]),
        (["--placer", "P000000001"], [1]),
        (["--filler", "F000000001"], [1]),
        (["--key", "F000000001"], [1]),
        (["--patient", invented_person(3).patient_id], [3]),
        (["--control-id", "M2"], [2]),
        (["--outcome", "refused"], [2]),
        (["--outcome", "refused", "--outcome", "accepted", "--type", "ADT^A04"], [3]),
        (["--listener", "nobody"], []),
        (["--direction", "out"], []),
        (["--since", "2h"], [3, 2, 1]),
        (["--since", "today", "--until", "2h"], []),
        (["--until", "2020-01-01"], []),
        (["--since", "2020-01-01T12:00"], [3, 2, 1]),
    ],
    ids=lambda value: " ".join(map(str, value)) or "nothing",
)
def test_list_finds_messages_by_what_a_person_knows(archive, options, numbers):
    assert _listed(archive, *options) == numbers


def test_list_says_why_and_how_to_see_more(archive):
    output = archive("messages", "list", "--limit", 2).output
    assert "procedures.csv" in output
    assert "--before 2" in output


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--since", "next week"], "is no time"),
        (["--outcome", "refusd"], "refused"),
        (["--direction", "up"], "in or out"),
        (["--accession", "A1", "--placer", "P1"], "give one"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_list_says_what_is_wrong_with_an_option(archive, options, text):
    result = archive("messages", "list", *options)
    assert result.exit_code == 2
    assert text in " ".join(result.output.split())


# --- show


def test_show_tells_the_text_the_answer_and_what_it_is_about(archive):
    output = archive("messages", "show", 1).output
    for expected in ("OMI^O23", "MSA|AA|M1", "placer P000000001", "A000000001", "SCHEDULED", "peer"):
        assert expected in output


def test_show_tells_why_a_message_was_refused(archive):
    shown = json.loads(archive("messages", "show", 2, "--json").output)
    assert shown["outcome"] == "refused"
    assert "procedures.csv" in shown["why"][0]


def test_show_raw_gives_the_exact_bytes(archive, tmp_path):
    raw = omi(_order(1)).message("M1", AT)
    assert archive("messages", "show", 1, "--raw").stdout_bytes == raw
    target = tmp_path / "message.hl7"
    assert archive("messages", "show", 1, "--raw", "--to", target).exit_code == 0
    assert target.read_bytes() == raw
    assert archive("messages", "show", 1, "--raw", "--to", target).exit_code == 1  # nothing is overwritten


def test_show_trace_reads_with_the_mapping_of_then(three):
    rules = three.config.parent / "mappings" / "hl7v2" / "ihe-swf.yaml"
    then = json.loads(three("messages", "show", 1, "--trace", "--json").output)
    assert any(entry["target"].endswith("PatientName") for entry in then["trace"]["trace"])
    rules.write_text("# changed since\n" + rules.read_text().replace("PatientSex:", "PatientSex: # the same\n   ", 0))
    _cover(three)
    later = json.loads(three("messages", "show", 1, "--trace", "--json").output)
    assert later["trace"]["mapping"] == then["trace"]["mapping"] == then["mapping"]
    assert later["trace"]["trace"] == then["trace"]["trace"]


def test_show_trace_says_so_where_the_mapping_of_then_is_not_kept(three):
    with Store(load_site(three.config).store_url) as store:
        store.write(lambda unit: unit._write.control("DELETE FROM mapping_versions")).result(timeout=10)
    _cover(three)
    trace = json.loads(three("messages", "show", 1, "--trace", "--json").output)["trace"]
    assert "today's mapping" in trace["notes"][0]


def test_show_of_a_message_that_is_not_there_fails(archive):
    result = archive("messages", "show", 99)
    assert result.exit_code == 1
    assert "no message 99" in result.output


# --- replay


def test_dry_run_says_what_would_become_of_each_and_changes_nothing(three):
    _cover(three)
    before = three("worklist", "list", "--json").output
    result = three("messages", "replay", "--refused", "--since", "2h", "--dry-run")
    assert result.exit_code == 0, result.output
    assert "message 2: accepted" in result.output
    assert "would be new" in result.output
    assert "Nothing was changed." in result.output
    assert three("worklist", "list", "--json").output == before
    assert len(_archived(three)) == 3


def test_dry_run_of_what_is_refused_still_says_why_and_fails(archive):
    result = archive("messages", "replay", 2, "--dry-run")
    assert result.exit_code == 1
    assert "procedures.csv" in result.output


def test_dry_run_sees_what_earlier_messages_of_the_run_would_do(gateway):
    order = _order(2, code="BRANDNEW")
    moved = bare_orm(order.moved(TOMORROW + timedelta(hours=1)), control="XO").message("M2", AT + timedelta(minutes=1))
    assert _receive(gateway, bare_orm(order).message("M1", AT), moved) == ["refused", "refused"]
    _cover(gateway)
    result = json.loads(gateway("messages", "replay", 1, 2, "--dry-run", "--json").output)
    assert [each["disposition"] for each in result["messages"]] == ["accepted", "accepted"]
    assert "would be new" in result["messages"][0]["changes"][0]
    assert "would change in ScheduledProcedureStepStartTime" in result["messages"][1]["changes"][0]
    assert _items(gateway) == []


def test_dry_run_of_what_is_held_already_names_no_change(archive):
    result = json.loads(archive("messages", "replay", 1, "--dry-run", "--json").output)
    assert result["messages"][0]["changes"] == []


def test_replay_of_the_refused_brings_their_orders_and_is_not_repeated(three):
    _cover(three)
    result = three("messages", "replay", "--refused", "--since", "2h")
    assert result.exit_code == 0, result.output
    assert "1 message(s) run again: 1 accepted." in result.output
    assert len(_items(three)) == 2
    again = three("messages", "replay", "--refused", "--since", "2h")
    assert again.exit_code == 0
    assert "1 passed over" in again.output
    assert len(_items(three)) == 2


def test_replay_goes_on_after_a_refusal_unless_told_to_stop(gateway):
    _receive(gateway, _uncovered(1, "M1"), omi(_order(2)).message("M2", AT))
    result = gateway("messages", "replay", 1, 2)
    assert result.exit_code == 1
    assert "1 accepted, 1 refused" in result.output
    stopped = gateway("messages", "replay", 1, 2, "--stop")
    assert stopped.exit_code == 1
    assert "1 message(s) run again: 1 refused." in stopped.output


def test_replay_runs_messages_in_the_order_they_came(gateway):
    _receive(gateway, *(rad4_orm(_order(number)).message(f"M{number}", AT) for number in range(1, 4)))
    result = json.loads(gateway("messages", "replay", "--all", "--since", "2h", "--json").output)
    assert [each["message"] for each in result["messages"]] == [1, 2, 3]


def test_replay_of_many_does_not_run_its_own_replays(gateway):
    _receive(gateway, *(_uncovered(number, f"M{number}") for number in range(1, 60)))
    result = json.loads(gateway("messages", "replay", "--refused", "--json").output)
    assert result["outcomes"] == {"refused": 59}
    assert len(_archived(gateway)) == 118
    assert json.loads(gateway("messages", "replay", "--refused", "--dry-run", "--json").output)["passed_over"] == 59


def test_replay_of_what_cannot_be_run_says_so_and_does_the_rest(three):
    result = three("messages", "replay", 1, 99)
    assert result.exit_code == 1
    assert "message 99: cannot be run" in result.output
    assert "1 accepted" in result.output or "1 ignored" in result.output


@pytest.mark.parametrize("options", [[], [1, "--refused"], ["--all"]], ids=["nothing", "both", "all without a time"])
def test_replay_wants_to_know_exactly_which(archive, options):
    assert archive("messages", "replay", *options).exit_code == 2


# --- prune


def _keep_one(config):
    config.write_text(config.read_text().replace("\narchive:", "\narchive:\n  messages_max: 1\n  #", 1))


def test_prune_says_what_would_go_and_then_does_it(three):
    _keep_one(three.config)
    dry = json.loads(three("messages", "prune", "--dry-run", "--json").output)
    assert (dry["dry_run"], dry["deleted"], dry["kept"]) == (True, 1, 1)  # the order's message stays, and the newest
    assert (dry["requests"], dry["requests_kept"]) == (0, 0)  # of MPPS, none of which is there
    assert _listed(three) == [3, 2, 1]
    assert three("messages", "prune").exit_code == 0
    assert _listed(three) == [3, 1]


def test_the_service_prunes_at_night_and_keeps_its_mappings(three):
    _keep_one(three.config)

    async def night():
        service = Service(load_site(three.config))
        try:
            await remember_mappings(service.store, service.site)
            version = service.site.mappings["ihe-swf"].version_id
            assert service.store.reader.mapping_version(version)
            return await service.forget_messages()
        finally:
            service.store.close()

    assert asyncio.run(night()) == 1
    assert _listed(three) == [3, 1]
