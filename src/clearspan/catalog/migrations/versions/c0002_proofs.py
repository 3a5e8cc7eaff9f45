"""Proofs: signing keys, the tree over the ledger, signed heads, receipts; and what a key may delete at most."""

import sqlalchemy as sa
from alembic import op

from clearspan.proof.merkle import new_nodes

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_APPEND_ONLY = ("ledger_node", "tree_head", "receipt")
_NODES_AT_ONCE = 10_000


def upgrade() -> None:
    """Make the tables, and the tree over the entries that are there already."""
    _make_tables()
    _make_policy()
    _fill_tree()
    if op.get_bind().dialect.name == "sqlite":
        for table in _APPEND_ONLY:
            for verb in ("UPDATE", "DELETE"):
                op.execute(
                    f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
                    "BEGIN SELECT RAISE(ABORT, 'the ledger only grows'); END"
                )


def _make_tables() -> None:
    op.create_table(
        "signing_key",
        sa.Column("key_id", sa.String(64), primary_key=True),
        sa.Column("public", sa.LargeBinary(32), nullable=False),
        sa.Column("seed", sa.LargeBinary(32), nullable=True),
        sa.Column("created_at_ns", sa.BigInteger, nullable=False),
        sa.Column("retired_at_ns", sa.BigInteger, nullable=True),
    )
    op.create_table(
        "ledger_node",
        sa.Column("level", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("position", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("hash", sa.LargeBinary(32), nullable=False),
    )
    op.create_table(
        "tree_head",
        sa.Column("size", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("key_id", sa.String(64), sa.ForeignKey("signing_key.key_id"), primary_key=True),
        sa.Column("at_ns", sa.BigInteger, nullable=False),
        sa.Column("jws", sa.Text, nullable=False),
    )
    op.create_table(
        "receipt",
        sa.Column("deletion_id", sa.String(64), primary_key=True),
        sa.Column("org_id", sa.BigInteger, nullable=True),
        sa.Column("seq", sa.BigInteger, sa.ForeignKey("ledger_entry.seq"), nullable=False),
        sa.Column("key_id", sa.String(64), sa.ForeignKey("signing_key.key_id"), nullable=False),
        sa.Column("jws", sa.Text, nullable=False),
    )


def _make_policy() -> None:
    op.add_column("api_key", sa.Column("delete_max_traces", sa.BigInteger, nullable=True))
    op.add_column("api_key", sa.Column("delete_max_share_ppm", sa.Integer, nullable=True))
    for name in ("delete_require_reason", "delete_forbid_all", "delete_strict_window"):
        op.add_column("api_key", sa.Column(name, sa.Boolean, nullable=False, server_default=sa.false()))


def _fill_tree() -> None:
    db = op.get_bind()
    entry = sa.table("ledger_entry", sa.column("seq"), sa.column("entry_hash"))
    node = sa.table("ledger_node", sa.column("level"), sa.column("position"), sa.column("hash"))
    last: dict[int, bytes] = {}  # level → the newest complete subtree: the left neighbour of the next one
    rows: list[dict[str, object]] = []
    seq = -1
    while found := db.execute(
        sa.select(entry).where(entry.c.seq > seq).order_by(entry.c.seq).limit(_NODES_AT_ONCE)
    ).all():
        for seq, entry_hash in found:
            made = new_nodes(seq, bytes(entry_hash), lambda level, _: last[level])
            last[0] = bytes(entry_hash)
            last.update({level: hash_ for level, _, hash_ in made})
            rows += [{"level": level, "position": position, "hash": hash_} for level, position, hash_ in made]
        if rows:
            db.execute(sa.insert(node), rows)
            rows = []
