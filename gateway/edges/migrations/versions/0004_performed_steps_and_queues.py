"""Performed steps say why a person should look at them, decisions have a log; the outbox has lanes and queues."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """What waits to be sent keeps its number and its place."""
    _performed_steps()
    op.add_column("performed_requests", _defaulted("transfer_syntax"))
    op.create_table(
        "performed_log",
        sa.Column("id", NUMBER, nullable=False),
        *map(_text, ("at", "sop_instance_uid", "action", "actor", "details")),
        sa.PrimaryKeyConstraint("id", name="performed_log_pk"),
    )
    op.create_index("performed_log_by_instance", "performed_log", ["sop_instance_uid", "id"])
    op.create_table(
        "message_reports",
        sa.Column("message_id", NUMBER, autoincrement=False, nullable=False),
        sa.Column("report", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("message_id", name="message_reports_pk"),
    )
    _outbox()
    op.create_table(
        "queues",
        _text("destination"),
        *(sa.Column(name, sa.Integer(), nullable=False) for name in ("waiting", "parked", "held")),
        *map(_text, ("last_error", "last_error_at", "last_sent_at")),
        sa.PrimaryKeyConstraint("destination", name="queues_pk"),
    )
    op.execute(
        "INSERT INTO queues (destination, waiting, parked, held, last_error, last_error_at, last_sent_at) "
        "SELECT destination, SUM(CASE state WHEN 'waiting' THEN 1 ELSE 0 END), "
        "SUM(CASE state WHEN 'parked' THEN 1 ELSE 0 END), 0, '', '', '' FROM outbox GROUP BY destination"
    )


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=False)


def _defaulted(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=False, server_default=sa.text("''"))


def _partial_index(name: str, table: str, columns: list[str], where: str, *, unique: bool = False) -> None:
    only = sa.text(where)
    op.create_index(name, table, columns, unique=unique, sqlite_where=only, postgresql_where=only)


def _performed_steps() -> None:
    for index in ("performed_steps_open", "performed_steps_quarantined", "performed_steps_by_patient"):
        op.drop_index(index, "performed_steps")
    op.add_column("performed_steps", _defaulted("attention"))
    op.execute("UPDATE performed_steps SET attention = 'another patient' WHERE quarantined = 1")
    op.execute(
        "UPDATE performed_steps SET attention = 'no order' WHERE quarantined = 0 AND sop_instance_uid IN "
        "(SELECT sop_instance_uid FROM performed_waiting)"
    )
    op.drop_column("performed_steps", "quarantined")
    in_order = ["created_at", "sop_instance_uid"]
    for name, first in (("patient", "patient_id"), ("caller", "calling_ae_title"), ("state", "state")):
        op.create_index(f"performed_steps_by_{name}", "performed_steps", [first, *in_order])
    op.create_index("performed_steps_by_time", "performed_steps", in_order)
    _partial_index("performed_steps_for_people", "performed_steps", ["attention", *in_order], "attention <> ''")


def _outbox() -> None:
    # What waits is put aside without names of its own: those of a table's key and indexes are to be used again.
    op.execute("CREATE TABLE outbox_before AS SELECT * FROM outbox")
    last = _last_number_given()
    op.drop_table("outbox")
    op.create_table(
        "outbox",
        sa.Column("id", NUMBER, nullable=False),
        _text("kind"),
        sa.Column("archive_id", NUMBER, nullable=False),
        *map(_text, ("destination", "lane", "control_id")),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        *map(_text, ("operation", "transfer_syntax", "created_at", "due_at", "state")),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("errors", sa.Integer(), nullable=False),
        _text("reason"),
        sa.Column("head", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="outbox_pk"),
        sqlite_autoincrement=True,
    )
    op.execute(
        "INSERT INTO outbox (id, kind, archive_id, destination, lane, control_id, payload, operation, transfer_syntax, "
        "created_at, due_at, state, attempts, errors, reason, head) "
        "SELECT id, 'hl7', message_id, destination, COALESCE(CAST(patient_id AS TEXT), ''), control_id, payload, '', "
        "'', created_at, due_at, state, attempts, errors, reason, 0 FROM outbox_before ORDER BY id"
    )
    op.drop_table("outbox_before")
    _go_on_after(last)
    op.execute(
        "UPDATE outbox SET head = 1 WHERE id IN "
        "(SELECT MIN(id) FROM outbox WHERE state = 'waiting' GROUP BY destination, lane)"
    )
    op.create_index("outbox_in_order", "outbox", ["destination", "state", "id"])
    op.create_index("outbox_by_lane", "outbox", ["destination", "state", "lane", "id"])
    _partial_index("outbox_next", "outbox", ["destination", "due_at", "id"], "head = 1")
    _partial_index("outbox_heads", "outbox", ["destination", "lane"], "head = 1", unique=True)


def _last_number_given() -> int:
    """The highest number the outbox ever gave, also to what has left since; 0 for none.

    There are rows to keep on SQLite alone: no release before this one kept its data elsewhere.
    """
    bind = op.get_bind()
    if bind.dialect.name != "sqlite":
        return 0
    return int(bind.scalar(sa.text("SELECT MAX(seq) FROM sqlite_sequence WHERE name = 'outbox'")) or 0)


def _go_on_after(last: int) -> None:
    """No number is given twice (AUTOINCREMENT): what counts them went with the old table."""
    if not last:
        return
    bind = op.get_bind()
    bind.execute(sa.text("DELETE FROM sqlite_sequence WHERE name = 'outbox'"))
    bind.execute(sa.text("INSERT INTO sqlite_sequence (name, seq) VALUES ('outbox', :last)"), {"last": last})
