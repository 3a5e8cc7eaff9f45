"""What a project is beyond its name, public links to runs, and how scores of a name are to be read."""

import uuid

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Make the columns and tables, and a UUID for every project that is there already."""
    _widen_projects()
    op.create_table(
        "run_share",
        sa.Column("trace_key", sa.LargeBinary(32), primary_key=True),
        sa.Column("project_id", _ID, sa.ForeignKey("project.id"), primary_key=True, autoincrement=False),
        sa.Column("token_key", sa.LargeBinary(32), nullable=False, unique=True),
        sa.Column("sealed_trace", sa.LargeBinary, nullable=False),
        sa.Column("sealed_token", sa.LargeBinary, nullable=False),
        sa.Column("created_at_ns", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "annotation_config",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("public_id", sa.String(64), nullable=False, unique=True),
        sa.Column("org_id", _ID, sa.ForeignKey("organisation.id"), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("type", sa.String(16), nullable=False),
        sa.Column("direction", sa.String(16), nullable=False),
        sa.Column("lower_bound", sa.Float, nullable=True),
        sa.Column("upper_bound", sa.Float, nullable=True),
        sa.Column("threshold", sa.Float, nullable=True),
        sa.Column("categories", sa.Text, nullable=False),
        sa.Column("description", sa.Text, nullable=True),
        sa.Column("created_at_ns", sa.BigInteger, nullable=False),
        sa.Column("updated_at_ns", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("org_id", "name", name="annotation_config_name"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "annotation_config_project",
        sa.Column("config_id", _ID, sa.ForeignKey("annotation_config.id"), primary_key=True, autoincrement=False),
        sa.Column("project_id", _ID, sa.ForeignKey("project.id"), primary_key=True, autoincrement=False),
    )


def _widen_projects() -> None:
    op.add_column("project", sa.Column("uuid", sa.String(32), nullable=False, server_default=""))
    op.add_column("project", sa.Column("state", sa.String(16), nullable=False, server_default="live"))
    for name in ("description", "extra", "options"):
        op.add_column("project", sa.Column(name, sa.Text, nullable=True))
    for name in ("start_ns", "end_ns", "updated_at_ns"):
        op.add_column("project", sa.Column(name, sa.BigInteger, nullable=True))
    for name in ("reference_dataset_id", "default_dataset_id"):
        op.add_column("project", sa.Column(name, sa.String(32), nullable=True))
    op.add_column("project", sa.Column("trace_tier", sa.String(16), nullable=True))
    op.add_column("project", sa.Column("left_name", sa.String(255), nullable=True))
    op.add_column("project", sa.Column("deletion_id", sa.String(64), nullable=True))
    project = sa.table("project", sa.column("id"), sa.column("public_id"), sa.column("uuid"))
    db = op.get_bind()
    for row in db.execute(sa.select(project.c.id, project.c.public_id)).all():
        made = uuid.uuid5(uuid.NAMESPACE_URL, row.public_id).hex
        db.execute(sa.update(project).where(project.c.id == row.id).values(uuid=made))
    op.create_index("project_uuid", "project", ["org_id", "uuid"], unique=True)
