"""Datasets, evaluators and experiments; what a project is for."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Make the tables and the column; a project that names a dataset becomes an experiment."""
    op.add_column("project", sa.Column("purpose", sa.String(16), nullable=False, server_default="traces"))
    project = sa.table("project", sa.column("purpose"), sa.column("reference_dataset_id"))
    named = project.c.reference_dataset_id.is_not(None)
    op.get_bind().execute(sa.update(project).where(named).values(purpose="experiment"))
    _create_dataset()
    _create_evaluator()
    _create_experiment()


def _create_dataset() -> None:
    op.create_table(
        "dataset",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("uuid", sa.String(32), nullable=False),
        sa.Column("org_id", _ID, sa.ForeignKey("organisation.id"), nullable=False),
        sa.Column("project_id", _ID, sa.ForeignKey("project.id"), nullable=False, unique=True),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("left_name", sa.String(255), nullable=True),
        sa.Column("description", sa.Text, nullable=True),
        sa.Column("data_type", sa.String(16), nullable=False),
        sa.Column("extra", sa.Text, nullable=True),
        sa.Column("inputs_schema", sa.Text, nullable=True),
        sa.Column("outputs_schema", sa.Text, nullable=True),
        sa.Column("transformations", sa.Text, nullable=True),
        sa.Column("on_source_deleted", sa.String(16), nullable=False),
        sa.Column("tags", sa.Text, nullable=True),
        sa.Column("created_at_ns", sa.BigInteger, nullable=False),
        sa.Column("updated_at_ns", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("org_id", "name", name="dataset_name"),
        sa.UniqueConstraint("org_id", "uuid", name="dataset_uuid"),
        sqlite_autoincrement=True,
    )


def _create_evaluator() -> None:
    op.create_table(
        "evaluator",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("uuid", sa.String(32), nullable=False, unique=True),
        sa.Column("org_id", _ID, sa.ForeignKey("organisation.id"), nullable=False),
        sa.Column("slug", sa.String(255), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("kind", sa.String(64), nullable=False),
        sa.Column("config", sa.Text, nullable=False),
        sa.Column("score_type", sa.String(64), nullable=False),
        sa.Column("description", sa.Text, nullable=True),
        sa.Column("created_at_ns", sa.BigInteger, nullable=False),
        sa.Column("updated_at_ns", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("org_id", "slug", name="evaluator_slug"),
        sqlite_autoincrement=True,
    )


def _create_experiment() -> None:
    op.create_table(
        "experiment",
        sa.Column("project_id", _ID, sa.ForeignKey("project.id"), primary_key=True, autoincrement=False),
        sa.Column("public_id", sa.String(255), nullable=False),
        sa.Column("org_id", _ID, sa.ForeignKey("organisation.id"), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("workflow", sa.Text, nullable=False),
        sa.Column("evaluator_ids", sa.Text, nullable=False),
        sa.Column("evaluator_workflow_ids", sa.Text, nullable=False),
        sa.Column("batch_size", sa.Integer, nullable=False),
        sa.Column("concurrency", sa.Integer, nullable=False),
        sa.Column("enable_tracing", sa.Boolean, nullable=False),
        sa.Column("span_workflow_name", sa.String(255), nullable=False),
        sa.Column("generation_method", sa.String(64), nullable=True),
        sa.Column("tags", sa.Text, nullable=False),
        sa.Column("error_code", sa.String(64), nullable=True),
        sa.Column("error_message", sa.String(1000), nullable=True),
        sa.Column("version_ns", sa.BigInteger, nullable=False),
        sa.Column("created_at_ns", sa.BigInteger, nullable=False),
        sa.Column("started_at_ns", sa.BigInteger, nullable=True),
        sa.Column("completed_at_ns", sa.BigInteger, nullable=True),
        sa.UniqueConstraint("org_id", "public_id", name="experiment_public_id"),
    )
