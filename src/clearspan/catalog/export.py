"""The ledger as lines that anybody can check: see proof/log.py. No personal data, no private key."""

from __future__ import annotations

from collections.abc import Iterator

from sqlalchemy import Connection, select

from clearspan.catalog import ledger, signers
from clearspan.catalog.tables import receipt, tree_head
from clearspan.proof.log import render_first_line, render_line

_AT_ONCE = 1000


def export_lines(db: Connection) -> Iterator[bytes]:
    """The whole ledger of one snapshot, each line without its end. Memory: a thousand entries."""
    yield render_first_line(signers.signer_of(db).instance)
    for stored in signers.stored_keys(db):
        yield render_line("key", stored.key.jwk())
    seq = -1
    while found := ledger.entries(db, after_seq=seq, limit=_AT_ONCE):
        yield from map(ledger.text_of, found)
        seq = found[-1].seq
    order = (tree_head.c.size, tree_head.c.at_ns, tree_head.c.key_id)
    for jws in db.scalars(select(tree_head.c.jws).order_by(*order)):
        yield render_line("head", jws)
    last = -1
    while rows := db.execute(
        select(receipt.c.seq, receipt.c.jws).where(receipt.c.seq > last).order_by(receipt.c.seq).limit(_AT_ONCE)
    ).all():
        yield from (render_line("receipt", row.jws) for row in rows)
        last = rows[-1].seq
