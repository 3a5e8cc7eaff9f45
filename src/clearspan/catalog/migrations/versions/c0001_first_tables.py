"""First tables: organisations, users, projects, keys, shares, ledger, jobs."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Make the tables. A later change comes as a later file; this one stays as it is."""
    _make_tenants()
    _make_access()
    _make_records()


def _make_tenants() -> None:
    op.create_table(
        "instance",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("public_id", sa.String(64), nullable=False),
        sa.Column("secret", sa.LargeBinary(32), nullable=False),
        sa.Column("created_at_ns", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "organisation",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("public_id", sa.String(64), nullable=False, unique=True),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("created_at_ns", sa.BigInteger, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "app_user",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("public_id", sa.String(64), nullable=False, unique=True),
        sa.Column("org_id", _ID, sa.ForeignKey("organisation.id"), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("role", sa.String(16), nullable=False),
        sa.Column("created_at_ns", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("org_id", "name", name="app_user_name"),
    )
    op.create_table(
        "project",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("public_id", sa.String(64), nullable=False, unique=True),
        sa.Column("org_id", _ID, sa.ForeignKey("organisation.id"), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("created_at_ns", sa.BigInteger, nullable=False),
        sa.UniqueConstraint("org_id", "name", name="project_name"),
        sqlite_autoincrement=True,
    )


def _make_access() -> None:
    op.create_table(
        "api_key",
        sa.Column("id", _ID, primary_key=True),
        sa.Column("public_id", sa.String(64), nullable=False, unique=True),
        sa.Column("org_id", _ID, sa.ForeignKey("organisation.id"), nullable=False),
        sa.Column("user_id", _ID, sa.ForeignKey("app_user.id"), nullable=True),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("prefix", sa.String(32), nullable=False),
        sa.Column("digest", sa.LargeBinary(32), nullable=False, unique=True),
        sa.Column("scopes", sa.Text, nullable=False),
        sa.Column("project_ids", sa.Text, nullable=True),
        sa.Column("environment", sa.String(64), nullable=True),
        sa.Column("created_at_ns", sa.BigInteger, nullable=False),
        sa.Column("expires_at_ns", sa.BigInteger, nullable=True),
        sa.Column("revoked_at_ns", sa.BigInteger, nullable=True),
    )
    op.create_index("api_key_prefix", "api_key", ["prefix"])
    op.create_index("api_key_org", "api_key", ["org_id"])
    op.create_table(
        "share",
        sa.Column("trace_key", sa.LargeBinary(32), primary_key=True),
        sa.Column("project_id", _ID, sa.ForeignKey("project.id"), primary_key=True, autoincrement=False),
        sa.Column("visible_fields", sa.Text, nullable=False),
        sa.Column("created_at_ns", sa.BigInteger, nullable=False),
    )


def _make_records() -> None:
    op.create_table(
        "ledger_entry",
        sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("at_ns", sa.BigInteger, nullable=False),
        sa.Column("org_id", sa.BigInteger, nullable=True),
        sa.Column("kind", sa.String(64), nullable=False),
        sa.Column("deletion_id", sa.String(64), nullable=True),
        sa.Column("step", sa.String(64), nullable=True),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("prev_hash", sa.LargeBinary(32), nullable=False),
        sa.Column("entry_hash", sa.LargeBinary(32), nullable=False),
        sa.UniqueConstraint("deletion_id", "kind", "step", name="ledger_step"),
    )
    op.create_table(
        "job",
        sa.Column("id", sa.String(64), primary_key=True),
        sa.Column("org_id", sa.BigInteger, nullable=True),
        sa.Column("kind", sa.String(64), nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("cursor", sa.String(255), nullable=True),
        sa.Column("counts", sa.Text, nullable=False),
        sa.Column("error", sa.String(64), nullable=True),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("not_before_ns", sa.BigInteger, nullable=False),
        sa.Column("lease_owner", sa.String(64), nullable=True),
        sa.Column("lease_until_ns", sa.BigInteger, nullable=True),
        sa.Column("heartbeat_at_ns", sa.BigInteger, nullable=True),
        sa.Column("created_at_ns", sa.BigInteger, nullable=False),
        sa.Column("updated_at_ns", sa.BigInteger, nullable=False),
    )
    op.create_index("job_open", "job", ["state", "not_before_ns"])
    if op.get_bind().dialect.name == "sqlite":
        for verb in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER ledger_no_{verb.lower()} BEFORE {verb} ON ledger_entry "
                "BEGIN SELECT RAISE(ABORT, 'the ledger only grows'); END"
            )
