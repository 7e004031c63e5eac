"""Orders belong to sites, queries are kept, and patients' names are indexed anew."""

import json

import sqlalchemy as sa
from alembic import op

from gateway.domain.names import name_index

revision = "0002"
down_revision = "0001"

NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

CHUNK = 500
"""Patients read and indexed together: a megabyte or two."""


def upgrade() -> None:
    """Held orders are of no site until a message says of which; a patient that cannot be read keeps its names."""
    for table in ("orders", "steps"):
        op.add_column(table, sa.Column("site", sa.Text(), nullable=False, server_default=sa.text("''")))
    op.create_table(
        "queries",
        sa.Column("id", NUMBER, nullable=False),
        sa.Column("at", sa.Text(), nullable=False),
        sa.Column("calling_ae_title", sa.Text(), nullable=False),
        sa.Column("called_ae_title", sa.Text(), nullable=False),
        sa.Column("remote_host", sa.Text(), nullable=False),
        sa.Column("transfer_syntax", sa.Text(), nullable=False),
        sa.Column("identifier", sa.LargeBinary(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=False),
        sa.Column("matches", sa.Integer(), nullable=False),
        sa.Column("milliseconds", sa.Float(), nullable=False),
        sa.Column("negotiation", sa.LargeBinary(), nullable=False),
        sa.Column("notes", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="queries_pk"),
        sqlite_autoincrement=True,
    )
    op.create_index("queries_by_caller", "queries", ["calling_ae_title", "id"])
    _index_names()


def _index_names() -> None:
    """A chunk of patients at a time; those merged into others are found by nothing."""
    connection = op.get_bind()
    patients = sa.text(
        "SELECT id, attributes FROM patients WHERE id > :after AND merged_into IS NULL ORDER BY id LIMIT :chunk"
    )
    after = 0
    while rows := connection.execute(patients, {"after": after, "chunk": CHUNK}).all():
        after = rows[-1][0]
        names = {patient_id: found for patient_id, text in rows if (found := _names(text)) is not None}
        if not names:
            continue
        connection.execute(
            sa.text("DELETE FROM patient_names WHERE patient_id = :id"), [{"id": patient_id} for patient_id in names]
        )
        new = [{"id": patient_id, "folded": name} for patient_id, found in names.items() for name in sorted(found)]
        if new:
            connection.execute(sa.text("INSERT INTO patient_names (patient_id, folded) VALUES (:id, :folded)"), new)


def _names(attributes: str) -> set[str] | None:
    """What a patient with these attributes is found by; None where they cannot be read."""
    try:
        held = json.loads(attributes).get("00100010", {}).get("Value") or []
        return set(name_index(held[0])) if held and held[0] else set()
    except (ValueError, TypeError, AttributeError, KeyError):
        return None
