"""`gateway queues`: what waits and what is parked, seen and changed by a person, also while a service sends."""

import asyncio
import json
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from gateway.cli import cli
from gateway.commands.console import out
from gateway.edges.store import Store, StoreUnit
from gateway.testing import ServiceProcess, invented_person, site
from gateway.workflow.outbox import OutboxState, enqueue
from gateway.workflow.ports import ORDER_LINK, DeliveryKind, NewDelivery, PerformedSearch
from tests.edges.hl7_service import Peered
from tests.edges.performed_site import began, create, ended, set_

AT = datetime.now(UTC) - timedelta(hours=3)
PACS = {"name": "pacs", "host": "127.0.0.1", "port": 11_113, "performed": {"ae_title": "PACS"}}
RIS = {"name": "oie", "host": "127.0.0.1", "port": 2576}
NEVER = {"name": "never", "host": "127.0.0.1", "port": 2577, "status": {"mapping": "status-orm"}}


def message(control_id: str, kind: str = "ACK") -> bytes:
    return f"MSH|^~\\&|GATEWAY||RIS||||{kind}|{control_id}|P|2.5\r".encode()


def put(store: Store, control_id: str, destination: str, patient: int | None = None) -> None:
    store.write(lambda unit: enqueue(unit, destination, patient, control_id, message(control_id), AT)).result()


def opened(folder: Path) -> Store:
    return Store(f"sqlite:///{folder / 'gateway.db'}")


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables as wide as they are, whatever terminal the tests run on."""
    monkeypatch.setattr(out, "width", 400)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A site with two messages for one destination and one for another that is not configured any more."""
    with opened(tmp_path) as store:
        for control_id, destination in (("M1", "oie"), ("M2", "oie"), ("M3", "gone")):
            put(store, control_id, destination)
    return site(tmp_path, destinations=[RIS, PACS, NEVER])


def run(config: Path, *words: object, given: str = "") -> Result:
    return CliRunner().invoke(cli, ["queues", *map(str, words), "--config", str(config)], input=given)


def done(config: Path, *words: object, given: str = "") -> str:
    result = run(config, *words, given=given)
    assert result.exit_code == 0, result.output
    return " ".join(result.stdout.split())


def queues(config: Path) -> dict[str, dict[str, Any]]:
    return {each["destination"]: each for each in json.loads(run(config, "list", "--json").stdout)}


def held(config: Path, destination: str, *options: str) -> list[tuple[int, str]]:
    found = json.loads(run(config, "show", destination, "--json", *options).stdout)["deliveries"]
    return [(each["number"], each["state"]) for each in found]


# --- looking


def test_every_destination_is_listed_also_unused_and_unconfigured_ones(config: Path) -> None:
    listed = queues(config)
    assert list(listed) == ["gone", "never", "oie", "pacs"]
    assert {name: (each["waiting"], each["parked"]) for name, each in listed.items()} == {
        "gone": (1, 0), "never": (0, 0), "oie": (2, 0), "pacs": (0, 0),
    }  # fmt: skip
    assert not listed["gone"]["configured"]
    assert listed["pacs"]["gets"] == "DICOM as PACS: performed steps"
    assert listed["never"]["gets"] == "HL7 v2: status"
    assert listed["oie"]["oldest"] == AT.isoformat()
    assert listed["oie"]["oldest_s"] >= 3 * 3600
    assert listed["never"]["oldest_s"] is None


def test_without_a_command_it_is_the_list(config: Path) -> None:
    shown = done(config)
    assert "not configured any more" in shown
    assert " 3 h " in shown
    assert [each["destination"] for each in json.loads(run(config, "--json").stdout)] == list(queues(config))


def test_options_before_a_command_are_not_lost_in_silence(config: Path) -> None:
    result = CliRunner().invoke(cli, ["queues", "--config", str(config), "hold", "oie"])
    assert result.exit_code == 2


def test_what_waits_and_what_is_parked_is_shown_with_its_reason(config: Path) -> None:
    assert held(config, "oie") == [(1, "waiting"), (2, "waiting")]
    assert held(config, "oie", "--limit", "1") == [(1, "waiting")]
    assert held(config, "oie", "--parked") == []
    done(config, "park", 2)
    assert held(config, "oie", "--parked") == [(2, "parked")]
    assert "parked by" in done(config, "show", "oie")
    assert held(config, "never") == []


def test_a_destination_that_is_not_there_is_said_with_the_likely_one(config: Path) -> None:
    for words in (["show", "oei"], ["hold", "oei"], ["drop", "--destination", "oei", "--yes"]):
        result = run(config, *words)
        assert result.exit_code == 1
        assert "did you mean oie?" in result.output


# --- parking and sending again


def test_messages_are_parked_and_sent_again_one_by_one_or_all_of_a_destination(config: Path) -> None:
    done(config, "park", 2, 3)
    assert held(config, "gone", "--parked") == [(3, "parked")]
    done(config, "replay", 2)
    done(config, "park", "--destination", "oie")
    assert {name: (each["waiting"], each["parked"]) for name, each in queues(config).items()}["oie"] == (0, 2)
    assert "2 message(s) would be" in done(config, "replay", "--destination", "oie", "--dry-run")
    assert held(config, "oie") == [(1, "parked"), (2, "parked")]
    assert "2 message(s) to be sent again" in done(config, "replay", "--destination", "oie")
    assert held(config, "oie") == [(1, "waiting"), (2, "waiting")]


def test_what_is_not_there_is_said(config: Path) -> None:
    result = run(config, "park", 1, 77)
    assert result.exit_code == 1
    assert "77: not in the outbox" in result.output
    assert held(config, "oie", "--parked") == [(1, "parked")]
    assert run(config, "replay").exit_code == 2
    assert run(config, "replay", 1, "--destination", "oie").exit_code == 2
    assert run(config, "replay", 1, "--since", "2h").exit_code == 2


def test_what_was_never_written_is_not_sent_again(config: Path, tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        unwritten = NewDelivery("oie", "", "M9", b"", 1, reason="OBR-4 is lacking")
        store.write(lambda unit: unit.add_delivery(unwritten, AT)).result()
    result = run(config, "replay", 4)
    assert result.exit_code == 1
    assert "4: never written" in result.output
    assert held(config, "oie", "--parked") == [(4, "parked")]


def about_order(
    store: Store, control_id: str, order: int = 7, destination: str = "oie", kind: str = "ORM^O01"
) -> None:  # fmt: skip
    keys = ((ORDER_LINK, str(order)),)
    raw = message(control_id, kind)
    store.write(lambda unit: enqueue(unit, destination, None, control_id, raw, AT, keys)).result()


def test_what_newer_news_about_its_order_has_overtaken_is_not_sent_again_unasked(config: Path, tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        for control_id, order in (("IP", 7), ("OTHER", 8), ("CM", 7)):
            about_order(store, control_id, order)
    done(config, "park", 4, 5)
    with opened(tmp_path) as store:
        sent(store, 6)
    assert "1 message(s) would be" in done(config, "replay", 4, 5, "--dry-run")
    result = run(config, "replay", "--destination", "oie")
    assert result.exit_code == 1
    assert "1 message(s) to be sent again" in result.output
    assert "4: oie has accepted newer news about the same order since" in " ".join(result.output.split())
    assert held(config, "oie", "--parked") == [(4, "parked")]
    assert "1 message(s) would be" in done(config, "replay", 4, "--as-it-was", "--dry-run")
    done(config, "replay", 4, "--as-it-was")
    assert held(config, "oie", "--parked") == []


def test_what_was_parked_last_or_told_to_others_is_not_overtaken(config: Path, tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        about_order(store, "IP")
        about_order(store, "CM")
        about_order(store, "CM", destination="never")
        about_order(store, "XO", destination="never")
        about_order(store, "ANSWER", kind="ACK")
    done(config, "park", 5)
    with opened(tmp_path) as store:
        sent(store, 4, 6, 7, 8)
    done(config, "replay", 5)
    assert (5, "waiting") in held(config, "oie")


def test_what_waits_for_an_unconfigured_destination_is_held_but_not_sent_again(config: Path) -> None:
    assert "is not in" in done(config, "hold", "gone")
    assert "is not in" not in done(config, "hold", "oie")
    done(config, "park", 3)
    for words in (["3"], ["--destination", "gone"]):
        result = run(config, "replay", *words)
        assert result.exit_code == 1
        assert "3: gone is not in" in result.output
    assert held(config, "gone") == [(3, "parked")]


def test_only_what_waits_has_a_next_try(config: Path, tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        later = datetime.now(UTC) + timedelta(hours=1)
        store.write(
            lambda unit: enqueue(unit, "oie", None, "M4", message("M4"), later)
        ).result()  # fmt: skip
    done(config, "park", 2)
    shown = [line for line in run(config, "show", "oie").stdout.splitlines() if "hl7" in line]
    assert ["in its turn" in line for line in shown] == [True, False, False]
    assert f"{later:%Y-%m-%d}" in shown[2]


# --- holding and dropping


def test_a_held_destination_gets_nothing_until_it_is_released(config: Path, tmp_path: Path) -> None:
    def next_one() -> Any:
        with opened(tmp_path) as store:
            return store.reader.next_delivery("oie", datetime.now(UTC))

    assert next_one() is not None
    assert "oie is held; 2 waiting" in done(config, "hold", "oie")
    assert queues(config)["oie"]["held"] is True
    assert next_one() is None
    assert "already" in done(config, "hold", "oie")
    done(config, "release", "oie")
    assert queues(config)["oie"]["held"] is False
    assert next_one() is not None


def test_a_destination_is_held_before_it_was_ever_told_anything(config: Path, tmp_path: Path) -> None:
    done(config, "hold", "pacs")
    assert queues(config)["pacs"]["held"] is True


def test_nothing_is_dropped_without_a_yes(config: Path) -> None:
    result = run(config, "drop", 1, given="n\n")
    assert result.exit_code == 1
    assert "1 message(s) will never be sent" in result.output
    assert held(config, "oie") == [(1, "waiting"), (2, "waiting")]
    done(config, "drop", 1, given="y\n")
    assert held(config, "oie") == [(2, "waiting")]


def test_nobody_is_asked_about_what_is_not_there(config: Path) -> None:
    result = run(config, "drop", 999, given="n\n")
    assert (result.exit_code, "will never be sent" in result.output) == (1, False)
    assert "999: not in the outbox" in result.output
    assert "1 message(s) will never be sent" in run(config, "drop", 1, 999, given="n\n").output


def test_dropped_messages_are_said_so_in_the_archive(config: Path, tmp_path: Path) -> None:
    assert "2 message(s) dropped" in done(config, "drop", 1, 3, "--yes")
    with opened(tmp_path) as store:
        kept = [store.reader.message(number) for number in (1, 2, 3)]
    assert [each.record.disposition for each in kept if each] == ["dropped", "waiting", "dropped"]


def test_of_a_destination_all_or_only_what_is_parked_is_dropped(config: Path) -> None:
    done(config, "park", 1)
    assert "1 message(s) dropped" in done(config, "drop", "--destination", "oie", "--parked", "--yes")
    assert held(config, "oie") == [(2, "waiting")]
    done(config, "park", 2)
    assert "1 message(s) dropped" in done(config, "drop", "--destination", "oie", "--yes")
    assert held(config, "oie") == []


def test_more_messages_than_a_page_are_changed(config: Path, tmp_path: Path) -> None:
    def many(unit: StoreUnit) -> None:
        for number in range(250):
            enqueue(unit, "oie", number, f"N{number}", message(f"N{number}"), AT)

    with opened(tmp_path) as store:
        store.write(many).result()
    done(config, "park", "--destination", "oie")
    assert (queues(config)["oie"]["waiting"], queues(config)["oie"]["parked"]) == (0, 252)
    done(config, "drop", "--destination", "oie", "--yes")
    assert (queues(config)["oie"]["waiting"], queues(config)["oie"]["parked"]) == (0, 0)


# --- who decided


def decided(config: Path, destination: str) -> list[tuple[str, int | None, str, str]]:
    found = json.loads(run(config, "show", destination, "--json").stdout)["decisions"]
    return [(each["action"], each["messages"], each["actor"], each["note"]) for each in found]


def test_holding_is_logged_with_who_and_why_and_shown_while_it_lasts(config: Path) -> None:
    done(config, "hold", "oie", "--actor", "anna", "--note", "its disk is full")
    done(config, "hold", "oie", "--actor", "bert")  # changes nothing, so anna is still who held it
    assert "held by anna since 2" in done(config)
    assert "its disk is full" in done(config)
    assert queues(config)["oie"]["held_by"] == "anna"
    done(config, "release", "oie", "--actor", "bert")
    assert queues(config)["oie"]["held_by"] == ""
    assert decided(config, "oie") == [("released", None, "bert", ""), ("held", None, "anna", "its disk is full")]
    assert decided(config, "pacs") == []


def test_dropping_parking_and_sending_again_are_logged_where_the_message_was_to_go(config: Path) -> None:
    done(config, "park", 2, 3, "--actor", "anna")
    done(config, "replay", 2, "--actor", "bert", "--note", "it is back")
    run(config, "drop", 1, 3, 77, "--yes", "--actor", "carl")  # 77 is none, and leaves no line
    assert decided(config, "oie") == [
        ("dropped", 1, "carl", ""), ("sent again", 1, "bert", "it is back"), ("parked", 1, "anna", ""),
    ]  # fmt: skip
    assert decided(config, "gone") == [("dropped", 1, "carl", ""), ("parked", 1, "anna", "")]
    run(config, "drop", 1, "--yes")
    assert len(decided(config, "oie")) == 3


def test_who_decides_is_the_account_unless_somebody_is_named(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "dora")
    done(config, "hold", "oie")
    assert [who for _, _, who, _ in decided(config, "oie")] == ["dora"]


def test_a_message_says_what_was_decided_about_it(config: Path) -> None:
    def shown(number: int) -> dict[str, Any]:
        result = CliRunner().invoke(cli, ["messages", "show", str(number), "--json", "--config", str(config)])
        found: dict[str, Any] = json.loads(result.stdout)
        return found

    done(config, "park", 1, "--actor", "anna")
    done(config, "drop", 1, "--yes", "--actor", "bert", "--note", "told by telephone")
    assert shown(1)["why"] == ["dropped by bert: told by telephone"]
    assert [line.partition(" ")[2].partition(" ")[2] for line in shown(1)["decisions"]] == [
        "dropped by bert: told by telephone", "parked by anna",
    ]  # fmt: skip
    assert "decisions" not in shown(2)


def test_what_was_sent_before_and_is_sent_again_is_logged(config: Path, tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        sent(store, 1, 2)
    words = ("replay", "--destination", "oie", "--since", "4h", "--actor", "anna")
    done(config, *words, "--dry-run")
    assert decided(config, "oie") == []
    done(config, *words)
    done(config, *words)  # they wait already: nothing is done
    assert decided(config, "oie") == [("sent again", 2, "anna", "")]


def test_a_performed_step_says_what_was_decided_about_passing_it_on(tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        assert create(store, began(invented_person(1))).status == 0
        uid = store.reader.performed_steps(PerformedSearch(), 1)[0].performed.sop_instance_uid
    config = site(tmp_path, destinations=[PACS])
    done(config, "replay", "--destination", "pacs", "--since", "2020-01-01", "--actor", "anna")
    done(config, "drop", "--destination", "pacs", "--yes", "--actor", "bert", "--note", "sent by disk")
    result = CliRunner().invoke(cli, ["performed", "show", uid, "--config", str(config)])
    shown = " ".join(result.stdout.split())
    assert "dropped pacs bert sent by disk" in shown
    assert "sent again pacs anna" in shown


# --- what was sent before


def sent(store: Store, *numbers: int) -> None:
    for number in numbers:
        store.write(partial(_sent, number)).result()


def _sent(number: int, unit: StoreUnit) -> None:
    delivery = unit.delivery(number)
    assert delivery is not None
    unit.save_delivery(replace(delivery, state=OutboxState.SENT), b"", datetime.now(UTC))


def test_what_was_sent_since_a_time_is_counted_and_then_sent_again(config: Path, tmp_path: Path) -> None:
    with opened(tmp_path) as store:
        sent(store, 1, 2)
    assert held(config, "oie") == []
    words = ("replay", "--destination", "oie", "--since", "4h")
    assert "2 message(s) would be sent again" in done(config, *words, "--dry-run")
    assert held(config, "oie") == []
    assert "0 message(s)" in done(config, "replay", "--destination", "oie", "--since", "2h")
    assert "0 message(s)" in done(config, *words, "--until", f"{AT - timedelta(minutes=5):%Y-%m-%dT%H:%M:%SZ}")
    assert "2 message(s) to be sent again" in done(config, *words)
    with opened(tmp_path) as store:
        found = store.reader.deliveries(9, destination="oie")
    assert [each.control_id for each in found] == ["M1", "M2"]


@pytest.mark.parametrize(
    ("sends", "kinds"),
    [
        ("received", [(DeliveryKind.PERFORMED, "N-CREATE"), (DeliveryKind.PERFORMED, "N-SET")]),
        ("events", [(DeliveryKind.NOTIFICATION, "N-EVENT-REPORT 1"), (DeliveryKind.NOTIFICATION, "N-EVENT-REPORT 2")]),
    ],
)
def test_performed_steps_are_sent_again_as_the_destination_gets_them(
    tmp_path: Path, sends: str, kinds: list[tuple[DeliveryKind, str]]
) -> None:
    with opened(tmp_path) as store:
        assert create(store, began(invented_person(1))).status == 0
        assert set_(store, ended()).status == 0
    config = site(tmp_path, destinations=[PACS | {"performed": {"ae_title": "PACS", "sends": sends}}])
    words = ("replay", "--destination", "pacs", "--since", "2020-01-01")
    assert "2 message(s) would be" in done(config, *words, "--dry-run")
    assert "2 message(s) to be" in done(config, *words)
    with opened(tmp_path) as store:
        assert [(each.kind, each.operation) for each in store.reader.deliveries(9)] == kinds


def test_nothing_is_sent_again_to_what_is_not_configured(config: Path) -> None:
    result = run(config, "replay", "--destination", "gone", "--since", "4h")
    assert result.exit_code == 1
    assert "there is no destination gone" in result.output


# --- beside a running service


def test_a_running_service_sees_it_at_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        peer = Peered()
        await peer.listener.start()
        config = site(tmp_path, destinations=[RIS | {"port": peer.listener.port}])
        service = ServiceProcess(config)
        await asyncio.to_thread(service.start)
        try:
            async with asyncio.timeout(COMMANDS_S):
                await asyncio.to_thread(done, config, "hold", "oie")
                with opened(tmp_path) as store:
                    put(store, "M1", "oie")
                    put(store, "M2", "oie")
                    first = store.reader.deliveries(9)[0].id
                await asyncio.to_thread(done, config, "drop", first, "--yes")
                assert peer.received == []
                await asyncio.to_thread(done, config, "release", "oie")
                assert [each.control_id for each in await peer.got(1)] == ["M2"]
                await asyncio.to_thread(_until_sent, tmp_path)
                await asyncio.to_thread(done, config, "replay", "--destination", "oie", "--since", "4h")
                again = [each.control_id for each in await peer.got(3)]
                assert sorted(again) == ["M1", "M2", "M2"]  # what was dropped was never there, and is sent now
        finally:
            await asyncio.to_thread(service.stop)
            await peer.listener.stop()

    asyncio.run(scenario())


def _until_sent(folder: Path) -> None:
    """Wait until the answer to what was sent is on disk: only then is it something that was sent."""
    with opened(folder) as store:
        while store.reader.deliveries(1):
            time.sleep(0.02)  # another process cannot be awaited, only asked


COMMANDS_S = 120
"""For a few commands on a busy machine: a bound against hanging, no measure."""
