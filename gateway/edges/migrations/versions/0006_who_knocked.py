"""Who knocked and was not let in is remembered, for a person to approve."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Nobody is known who knocked before."""
    op.create_table(
        "knocks",
        *map(_text, ("ae_title", "address", "called_ae_title", "reason", "first_at", "last_at")),
        _text("implementation_version"),
        sa.Column("tls", sa.Integer(), nullable=False),
        *map(_text, ("fingerprint", "common_name")),
        sa.Column("times", NUMBER, nullable=False),
        sa.PrimaryKeyConstraint("ae_title", "address", "fingerprint", name="knocks_pk"),
        sqlite_with_rowid=False,
    )


def _text(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=False)
