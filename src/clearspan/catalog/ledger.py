"""The ledger of deletions: rows are added, never changed, and each carries the hash of the one before it.

`entry_hash` is at once the link of the chain and the leaf hash of RFC 9162 (SHA-256 of a zero byte and the entry's
text), so that the tree of tree.py is over the same rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import orjson
from sqlalchemy import Connection, insert, select

from clearspan.catalog import heads, tree
from clearspan.catalog.bodies import parse_body, render_body
from clearspan.catalog.tables import ledger_entry
from clearspan.model.errors import StoreDamaged
from clearspan.proof.merkle import leaf_hash

NO_HASH = bytes(32)
"""`prev_hash` of the first entry."""
TRANSFER_KIND = "transfer"
"""Of the entry that says that traces were moved to another project."""


class LedgerEntry(NamedTuple):
    """One row of the ledger."""

    seq: int  # 0, 1, 2 …
    at_ns: int
    org_id: int | None
    kind: str
    deletion_id: str | None
    step: str
    body: dict[str, Any]
    prev_hash: bytes
    entry_hash: bytes


def append(
    db: Connection,
    at_ns: int,
    kind: str,
    deletion_id: str | None,
    body: Mapping[str, Any],
    *,
    org_id: int | None = None,
    step: str = "",
) -> LedgerEntry:
    """Add an entry at the end; inside a write transaction.

    Safe to repeat: a second entry of the same deletion, kind and step is not added and the first is returned, so
    that a job which is resumed after a crash records each transition once. `step` tells true repeats apart
    ("blocked" twice).

    Raises:
        ValueError: the body holds what could be personal data.
    Cost: some 0.5 ms, two look-ups on average and O(log n) at worst; each HEAD_EVERY entries a signature.
    """
    text = render_body(body)
    if deletion_id is not None:
        known = db.execute(
            _ENTRY.where(
                ledger_entry.c.deletion_id == deletion_id,
                ledger_entry.c.kind == kind,
                ledger_entry.c.step == step,
            )
        ).first()
        if known is not None:
            return _entry(known)
    last = db.execute(_ENTRY.order_by(ledger_entry.c.seq.desc()).limit(1)).first()
    entry = LedgerEntry(
        seq=0 if last is None else last.seq + 1,
        at_ns=at_ns,
        org_id=org_id,
        kind=kind,
        deletion_id=deletion_id,
        step=step,
        body=parse_body(text),
        prev_hash=NO_HASH if last is None else last.entry_hash,
        entry_hash=NO_HASH,
    )
    entry = entry._replace(entry_hash=hash_of(entry))
    db.execute(insert(ledger_entry).values(entry._asdict() | {"body": text}))
    tree.grow(db, entry.seq, entry.entry_hash)
    if (entry.seq + 1) % heads.HEAD_EVERY == 0:
        heads.publish(db, at_ns)
    return entry


def entries(
    db: Connection,
    *,
    after_seq: int = -1,
    limit: int | None = None,
    org_id: int | None = None,
    deletion_id: str | None = None,
) -> list[LedgerEntry]:
    """Entries after a sequence number, oldest first; of one organisation or deletion when given.

    Args:
        limit: None: all. A deletion's state is its last entry, so its entries are never to be cut short.
    """
    query = _ENTRY.where(ledger_entry.c.seq > after_seq)
    if org_id is not None:
        query = query.where(ledger_entry.c.org_id == org_id)
    if deletion_id is not None:
        query = query.where(ledger_entry.c.deletion_id == deletion_id)
    return [_entry(row) for row in db.execute(query.order_by(ledger_entry.c.seq).limit(limit))]


def newest_first(
    db: Connection, org_id: int, *, start_ns: int, end_ns: int, before_seq: int | None, limit: int
) -> list[LedgerEntry]:
    """Entries of an organisation from `start_ns` to `end_ns` (both included), those with the largest numbers first.

    Args:
        before_seq: only entries with a smaller number: where the page before ended.
    Cost: a walk from `before_seq` towards the beginning, until the page is full.
    """
    query = _ENTRY.where(
        ledger_entry.c.org_id == org_id, ledger_entry.c.at_ns >= start_ns, ledger_entry.c.at_ns <= end_ns
    )
    if before_seq is not None:
        query = query.where(ledger_entry.c.seq < before_seq)
    return [_entry(row) for row in db.execute(query.order_by(ledger_entry.c.seq.desc()).limit(limit))]


def text_of(entry: LedgerEntry) -> bytes:
    """The entry as it is hashed and exported: JSON of all fields but its own hash, keys sorted, no blanks.

    Not RFC 8785 in one point: times are integers of up to 19 digits, which that standard would round.
    """
    fields = entry._asdict() | {"prev_hash": entry.prev_hash.hex()}
    del fields["entry_hash"]
    return orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)


def hash_of(entry: LedgerEntry) -> bytes:
    """The leaf hash of the entry's text."""
    return leaf_hash(text_of(entry))


def check_chain(found: Iterable[LedgerEntry], *, seq: int = 0, prev_hash: bytes = NO_HASH) -> int:
    """Follow the chain from `seq`, whose entry must point to `prev_hash`; how many entries it has.

    Raises:
        StoreDamaged: an entry is missing, out of place, or changed; the message names the first such one.
    """
    start = seq
    for entry in found:
        if entry.seq != seq or entry.prev_hash != prev_hash or entry.entry_hash != hash_of(entry):
            raise StoreDamaged(f"The ledger was changed at entry {seq}.")
        seq, prev_hash = seq + 1, entry.entry_hash
    return seq - start


_ENTRY = select(
    ledger_entry.c.seq,
    ledger_entry.c.at_ns,
    ledger_entry.c.org_id,
    ledger_entry.c.kind,
    ledger_entry.c.deletion_id,
    ledger_entry.c.step,
    ledger_entry.c.body,
    ledger_entry.c.prev_hash,
    ledger_entry.c.entry_hash,
)


def _entry(row: Any) -> LedgerEntry:
    entry = LedgerEntry(*row)
    return entry._replace(body=parse_body(row.body), prev_hash=bytes(entry.prev_hash))
