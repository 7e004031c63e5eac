"""Records say when what was said; identities have a log; the archive holds what was sent, and is found and pruned."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """What is held already was said at no known time: whatever comes next counts."""
    for table in ("patients", "visits", "orders", "requested_procedures", "steps"):
        op.add_column(table, sa.Column("stamps", sa.Text(), nullable=False, server_default=sa.text("''")))
    op.add_column("orders", sa.Column("by_hand", sa.Integer(), nullable=False, server_default=sa.text("0")))
    op.add_column("patient_identifiers", sa.Column("merged_from", NUMBER))
    typed = sa.text("by_hand = 1")
    op.create_index("orders_by_hand", "orders", ["patient_id"], sqlite_where=typed, postgresql_where=typed)
    op.add_column("messages", sa.Column("direction", sa.Text(), nullable=False, server_default=sa.text("'in'")))
    op.add_column("messages", sa.Column("made_at", sa.Text(), nullable=False, server_default=sa.text("''")))
    op.create_table(
        "identity_log",
        sa.Column("id", NUMBER, nullable=False),
        sa.Column("at", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("cause", sa.Text(), nullable=False),
        sa.Column("patient_id", NUMBER, nullable=False),
        sa.Column("other_id", NUMBER),
        sa.Column("details", sa.Text(), nullable=False),
        sa.Column("undone_at", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="identity_log_pk"),
        sa.ForeignKeyConstraint(["patient_id"], ["patients.id"], name="identity_log_patient_id_fk"),
        sa.ForeignKeyConstraint(["other_id"], ["patients.id"], name="identity_log_other_id_fk"),
    )
    op.create_index("identity_log_by_patient", "identity_log", ["patient_id"])
    known = sa.text("other_id IS NOT NULL")
    op.create_index("identity_log_by_other", "identity_log", ["other_id"], sqlite_where=known, postgresql_where=known)
    op.create_table(
        "mapping_versions",
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("first_used_at", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("version", name="mapping_versions_pk"),
    )
    _index_archive()
    _make_outbox()


def _index_archive() -> None:
    """Messages are found by what an operator knows of them, and deleted without looking for their keys."""
    op.drop_index("messages_by_control_id", "messages")
    op.create_index("messages_by_control_id", "messages", ["control_id", "listener", "sender"])
    op.create_index("messages_by_kind", "messages", ["listener", "direction", "message_type", "disposition"])
    op.rename_table("message_keys", "message_keys_before")
    op.create_table(
        "message_keys",
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("message_id", NUMBER, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("value", "message_id", "kind", name="message_keys_pk"),
        sqlite_with_rowid=False,
    )
    op.execute(
        "INSERT INTO message_keys (value, message_id, kind) "
        "SELECT value, message_id, kind FROM message_keys_before ORDER BY value, message_id, kind"
    )
    op.drop_table("message_keys_before")


def _make_outbox() -> None:
    """Nothing wrote the outbox before this release."""
    op.drop_table("outbox")
    op.create_table(
        "outbox",
        sa.Column("id", NUMBER, nullable=False),
        sa.Column("message_id", NUMBER, nullable=False),
        sa.Column("destination", sa.Text(), nullable=False),
        sa.Column("patient_id", NUMBER),
        sa.Column("control_id", sa.Text(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.Text(), nullable=False),
        sa.Column("due_at", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("errors", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["patient_id"], ["patients.id"], name="outbox_patient_id_fk"),
        sa.PrimaryKeyConstraint("id", name="outbox_pk"),
        sqlite_autoincrement=True,
    )
    op.create_index("outbox_in_order", "outbox", ["destination", "state", "id"])
    op.create_index("outbox_by_patient", "outbox", ["destination", "state", "patient_id", "id"])
