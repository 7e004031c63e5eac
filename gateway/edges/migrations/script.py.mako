"""${message}."""

import sqlalchemy as sa
from alembic import op

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}


def upgrade() -> None:
    """Forward only: the way back is the backup that `gateway upgrade` makes first."""
    ${upgrades if upgrades else "pass"}
