"""A store of the release before performed steps were reconciled: what waited goes on waiting, in its place."""

import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config

from gateway.domain.performed import Attention
from gateway.edges import maintenance
from gateway.edges.database import connect_to
from gateway.edges.store import Store
from gateway.workflow.outbox import Backlog, OutboxState, enqueue
from gateway.workflow.ports import DeliveryKind, PerformedSearch

THEN = datetime(2026, 7, 5, 8, tzinfo=UTC)
TEXT = "2026-07-05T08:00:00.000000+00:00"


def _said(uid: str) -> str:
    return json.dumps({"00400270": {"vr": "SQ", "Value": [{"0020000D": {"vr": "UI", "Value": [uid]}}]}})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database as the release before made it."""
    path = tmp_path / "gateway.db"
    path.touch(mode=0o600)
    configuration = Config()
    configuration.set_main_option("script_location", str(Path(maintenance.__file__).parent / "migrations"))
    engine = connect_to(f"sqlite:///{path}", busy_timeout_s=5)
    with engine.begin() as connection:
        configuration.attributes["connection"] = connection
        command.upgrade(configuration, "0003")
    engine.dispose()
    with closing(sqlite3.connect(path)) as database:
        database.executemany(
            "INSERT INTO patients (id, patient_id, attributes, created_at, updated_at) VALUES (?, ?, '{}', ?, ?)",
            [(1, "P1", TEXT, TEXT), (2, "P2", TEXT, TEXT)],
        )
        waiting = [
            (3, 11, "ris", 1, "M3", "parked", 8), (5, 12, "ris", 1, "M5", "waiting", 1), (6, 13, "ris", 1, "M6",
             "waiting", 0), (7, 14, "ris", None, "M7", "waiting", 0), (8, 15, "pacs", 2, "M8", "waiting", 0),
            (20, 16, "ris", 2, "M20", "waiting", 0),
        ]  # fmt: skip
        database.executemany(
            "INSERT INTO outbox (id, message_id, destination, patient_id, control_id, payload, created_at, due_at,"
            " state, attempts, errors, reason) VALUES (?, ?, ?, ?, ?, x'4D5348', ?, ?, ?, ?, 0, '')",
            [(*row[:5], TEXT, TEXT, *row[5:]) for row in waiting],
        )
        database.execute("DELETE FROM outbox WHERE id = 20")  # it was sent
        database.executemany(
            "INSERT INTO performed_steps (sop_instance_uid, state, calling_ae_title, patient_id, quarantined,"
            " attributes, created_at, updated_at) VALUES (?, 'IN PROGRESS', 'CT1', ?, ?, ?, ?, ?)",
            [
                ("1.2.1", None, 0, _said("2.25.1"), TEXT, TEXT), ("1.2.2", 1, 1, _said("2.25.2"), TEXT, TEXT),
                ("1.2.3", 2, 0, "{}", TEXT, TEXT),
            ],
        )  # fmt: skip
        database.execute("INSERT INTO performed_waiting VALUES ('study', '2.25.1', '1.2.1')")
        database.execute(
            "INSERT INTO performed_requests (sop_instance_uid, operation, calling_ae_title, raw, status, comment, at)"
            " VALUES ('1.2.1', 'N-CREATE', 'CT1', x'00', 0, '', ?)",
            (TEXT,),
        )
        database.commit()
    maintenance.upgrade(f"sqlite:///{path}", THEN)
    return path


@pytest.fixture
def upgraded(path: Path):
    with Store(f"sqlite:///{path}") as store:
        yield store


def test_what_waits_or_is_parked_keeps_number_lane_and_order(upgraded: Store) -> None:
    held = upgraded.reader.deliveries(50)
    assert [(each.id, each.archive_id, each.destination, each.lane, each.control_id, each.state) for each in held] == [
        (3, 11, "ris", "1", "M3", OutboxState.PARKED), (5, 12, "ris", "1", "M5", OutboxState.WAITING),
        (6, 13, "ris", "1", "M6", OutboxState.WAITING), (7, 14, "ris", "", "M7", OutboxState.WAITING),
        (8, 15, "pacs", "2", "M8", OutboxState.WAITING),
    ]  # fmt: skip
    assert {(each.kind, each.payload) for each in held} == {(DeliveryKind.HL7, b"MSH")}
    assert [each.control_id for each in upgraded.reader.next_deliveries("ris", THEN, 9)] == ["M5", "M7"]


def test_queues_are_counted_once(upgraded: Store) -> None:
    assert upgraded.reader.queues() == [Backlog("pacs", 1, 0, THEN), Backlog("ris", 3, 1, THEN)]


def test_no_number_is_given_twice_also_not_one_that_left_before(upgraded: Store) -> None:
    upgraded.write(lambda unit: enqueue(unit, "ris", 1, "NEW", b"MSH", THEN)).result(timeout=10)
    newest = upgraded.reader.deliveries(50)[-1]
    assert newest.id == 21
    assert [each.control_id for each in upgraded.reader.next_deliveries("ris", THEN, 9)] == ["M5", "M7"]


def test_performed_steps_say_why_they_need_a_look(upgraded: Store) -> None:
    found = {
        each.performed.sop_instance_uid: each.performed
        for each in upgraded.reader.performed_steps(PerformedSearch(), 9)
    }
    assert {uid: each.attention for uid, each in found.items()} == {
        "1.2.1": Attention.NO_ORDER, "1.2.2": Attention.ANOTHER_PATIENT, "1.2.3": Attention.NONE,
    }  # fmt: skip
    assert [each.sop_instance_uid for each in upgraded.reader.unlinked_performed_steps(["2.25.1"], [])] == ["1.2.1"]
    (request,) = upgraded.reader.performed_requests("1.2.1")
    assert request.transfer_syntax == ""


def test_the_file_is_whole(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert database.execute("PRAGMA foreign_key_check").fetchall() == []
