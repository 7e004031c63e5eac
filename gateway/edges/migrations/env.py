"""How Alembic runs here: on the connection and in the transaction that `maintenance` opened."""

from alembic import context

from gateway.edges.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
