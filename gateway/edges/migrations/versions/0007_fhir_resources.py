"""FHIR resources are held: their current versions, what they are found by, which orders they speak of."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
FOLDED = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """No resource is held yet."""
    op.create_table(
        "resources",
        sa.Column("id", NUMBER, nullable=False),
        *map(_text, ("source", "type", "resource_id")),
        sa.Column("version", sa.Integer(), nullable=False),
        _text("updated_at"),
        sa.Column("deleted", sa.Integer(), nullable=False),
        *map(_text, ("release", "content", "overruled")),
        sa.PrimaryKeyConstraint("id", name="resources_pk"),
        sa.UniqueConstraint("source", "type", "resource_id", name="resources_source_type_resource_id_uq"),
    )
    op.create_index("resources_by_update", "resources", ["source", "type", "deleted", "updated_at", "id"])
    op.create_table(
        "resource_index",
        *map(_text, ("source", "type", "name")),
        sa.Column("value", FOLDED, nullable=False),
        _text("system"),
        sa.Column("resource", NUMBER, nullable=False),
        sa.ForeignKeyConstraint(["resource"], ["resources.id"], name="resource_index_resource_fk"),
        sa.PrimaryKeyConstraint("source", "type", "name", "value", "system", "resource", name="resource_index_pk"),
        sqlite_with_rowid=False,
    )
    op.create_index("resource_index_by_resource", "resource_index", ["resource", "name", "value"])
    op.create_table(
        "order_resources",
        sa.Column("order_id", NUMBER, nullable=False),
        *map(_text, ("source", "type", "resource_id", "requested_procedure_id", "sps_id")),
        sa.ForeignKeyConstraint(["order_id"], ["orders.id"], name="order_resources_order_id_fk"),
        sa.PrimaryKeyConstraint(
            "order_id", "source", "type", "resource_id", "requested_procedure_id", "sps_id", name="order_resources_pk"
        ),
        sqlite_with_rowid=False,
    )
    op.create_index("order_resources_by_resource", "order_resources", ["source", "type", "resource_id"])
    op.create_table(
        "feed_marks",
        sa.Column("name", sa.Text(), nullable=False),
        _text("content"),
        sa.PrimaryKeyConstraint("name", name="feed_marks_pk"),
    )


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=False)
