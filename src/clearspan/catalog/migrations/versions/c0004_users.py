"""Users beside the owner: their addresses, and what a key is for."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the columns."""
    op.add_column("app_user", sa.Column("email", sa.String(320), nullable=True))
    op.create_index("app_user_email", "app_user", ["org_id", "email"], unique=True)
    op.add_column("api_key", sa.Column("description", sa.Text, nullable=True))
