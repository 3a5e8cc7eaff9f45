"""Receipts: made and signed once for each deletion, in the transaction that records that it is verified."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, insert, select

from clearspan.catalog import ledger, tree
from clearspan.catalog.ledger import LedgerEntry
from clearspan.catalog.signers import Signer
from clearspan.catalog.tables import receipt
from clearspan.faults import fault
from clearspan.model.errors import InvalidProof
from clearspan.proof.canonical import canonical_json
from clearspan.proof.encoding import render_time
from clearspan.proof.receipt import RECEIPT_VERSION, check_entry, check_payload
from clearspan.proof.signing import RECEIPT_TYPE, sign_jws

KIND = "receipt"
"""Kind of the ledger entry that names a receipt by its hash: a second receipt of a deletion could not be hidden."""


def issue(db: Connection, signer: Signer, payload: Mapping[str, Any], entry: LedgerEntry) -> str:
    """Sign and store the receipt of a deletion; inside a write transaction. Safe to repeat: the first one is returned.

    Args:
        payload: what docs/receipts.md lists, but for `version`, `instance` and `ledger`, which are added here.
        entry: the ledger entry that records the deletion as verified, already appended in this transaction.
    Returns:
        The receipt as a compact JWS. A further ledger entry holds its SHA-256.
    Raises:
        ValueError: the payload lacks something, holds something else, or says other than the entry; nothing is signed.
    """
    deletion_id = str(payload["deletion_id"])
    known = find(db, deletion_id)
    if known is not None:
        return known
    size = tree.size(db)
    root, path = tree.place(db, entry.seq, size)
    whole = dict(payload) | {
        "version": RECEIPT_VERSION,
        "instance": signer.instance,
        "ledger": {
            "index": entry.seq,
            "entry": ledger.text_of(entry).decode(),
            "leaf_hash": entry.entry_hash.hex(),
            "size": size,
            "root": root.hex(),
            "path": [node.hex() for node in path],
            "at": render_time(entry.at_ns),
        },
    }
    try:
        check_entry(check_payload(whole))
    except InvalidProof as error:
        raise ValueError(f"no such receipt can be signed: {error.message}") from error
    key = signer.key(db)
    jws = sign_jws(canonical_json(whole), key, typ=RECEIPT_TYPE)
    fault("receipt.after_sign")
    body = {"receipt_hash": hash_of(jws), "key_id": key.key_id}
    ledger.append(db, entry.at_ns, KIND, deletion_id, body, org_id=entry.org_id)
    values = {"deletion_id": deletion_id, "org_id": entry.org_id, "seq": entry.seq, "key_id": key.key_id, "jws": jws}
    db.execute(insert(receipt).values(values))
    return jws


def find(db: Connection, deletion_id: str) -> str | None:
    """The receipt of a deletion (compact JWS); None when none was issued."""
    found = db.execute(select(receipt.c.jws).where(receipt.c.deletion_id == deletion_id)).scalar()
    return None if found is None else str(found)


def hash_of(jws: str) -> str:
    """SHA-256 of a receipt's text, hex: what the ledger keeps of it."""
    return hashlib.sha256(jws.encode()).hexdigest()
