"""Runs the migrations on the connection, and inside the transaction, that catalog/database.py hands over."""

from alembic import context

from clearspan.catalog.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
