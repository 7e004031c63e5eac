"""Records say when what was said; identities have a log; the archive holds what was sent and the mappings used."""

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
