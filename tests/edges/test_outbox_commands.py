"""`gateway outbox`: what waits and what is parked, seen and changed by a person."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner

from gateway.edges.store import Store
from gateway.outbox_commands import outbox
from gateway.testing import site
from gateway.workflow.outbox import enqueue

AT = datetime(2026, 7, 5, 8, tzinfo=UTC)
runner = CliRunner()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A site with two messages for one destination and one for another."""
    with Store(f"sqlite:///{tmp_path / 'gateway.db'}") as store:
        for control_id, destination in (("M1", "oie"), ("M2", "oie"), ("M3", "pacs")):
            raw = f"MSH|^~\\&|GATEWAY||RIS||||ACK|{control_id}|P|2.5\r".encode()
            store.write(lambda unit, c=control_id, d=destination, r=raw: enqueue(unit, d, None, c, r, AT)).result()
    return site(tmp_path)


def listed(config: Path, *options: str) -> list[tuple[int, str, str]]:
    result = runner.invoke(outbox, ["list", "--config", str(config), "--json", *options])
    assert result.exit_code == 0, result.output
    return [(each["number"], each["destination"], each["state"]) for each in json.loads(result.stdout)]


def run(config: Path, *arguments: str) -> int:
    return runner.invoke(outbox, [*arguments, "--config", str(config)]).exit_code


def test_what_waits_is_listed_oldest_first(config: Path) -> None:
    assert listed(config) == [(1, "oie", "waiting"), (2, "oie", "waiting"), (3, "pacs", "waiting")]
    assert listed(config, "--destination", "pacs") == [(3, "pacs", "waiting")]
    assert listed(config, "--limit", "1") == [(1, "oie", "waiting")]
    assert listed(config, "--parked") == []


def test_messages_are_parked_and_sent_again_one_by_one_or_all_of_a_destination(config: Path) -> None:
    assert run(config, "park", "2", "3") == 0
    assert listed(config, "--parked") == [(2, "oie", "parked"), (3, "pacs", "parked")]
    assert run(config, "retry", "3") == 0
    assert run(config, "park", "--destination", "oie") == 0
    assert [state for _, _, state in listed(config)] == ["parked", "parked", "waiting"]
    assert run(config, "retry", "--destination", "oie") == 0
    assert listed(config, "--parked") == []


def test_what_is_not_there_is_said(config: Path) -> None:
    assert run(config, "park", "1", "77") == 1
    assert listed(config, "--parked") == [(1, "oie", "parked")]
    assert run(config, "retry") == 2
    assert run(config, "retry", "1", "--destination", "oie") == 2
