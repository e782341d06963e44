"""What Alembic runs: migrations over the connection that medfusion.records.database gives."""

from alembic import context

from medfusion.records.tables import Base

context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata)
with context.begin_transaction():
    context.run_migrations()
