"""Queues say who decided what; lanes of the outbox may lead into one another; performed steps say who got them."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """What waits stays in its lane; nobody is known for what was decided before, nor what was passed on before."""
    op.create_table(
        "outbox_lanes",
        *map(_text, ("destination", "lane", "leads_to")),
        sa.PrimaryKeyConstraint("destination", "lane", name="outbox_lanes_pk"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "queue_log",
        sa.Column("id", NUMBER, nullable=False),
        *map(_text, ("at", "destination", "action", "actor", "details")),
        sa.PrimaryKeyConstraint("id", name="queue_log_pk"),
    )
    op.create_index("queue_log_by_destination", "queue_log", ["destination", "id"])
    op.create_table(
        "queue_log_messages",
        _text("kind"),
        sa.Column("archive_id", NUMBER, nullable=False),
        sa.Column("log_id", NUMBER, nullable=False),
        sa.PrimaryKeyConstraint("kind", "archive_id", "log_id", name="queue_log_messages_pk"),
        sa.ForeignKeyConstraint(["log_id"], ["queue_log.id"], name="queue_log_messages_log_id_fk"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "performed_sent",
        *map(_text, ("sop_instance_uid", "destination", "operation", "answer", "at")),
        sa.PrimaryKeyConstraint("sop_instance_uid", "destination", name="performed_sent_pk"),
        sqlite_with_rowid=False,
    )


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=False)
