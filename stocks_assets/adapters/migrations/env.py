"""Alembic's entry point: migrate on the connection that `Warehouse.migrate` hands over."""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    version_table="schema_version",
    version_table_schema="ops",
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
