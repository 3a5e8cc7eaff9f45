"""Changing the key that signs, so that whoever trusts the old key can come to trust the new one."""

from __future__ import annotations

from sqlalchemy import Connection

from clearspan.catalog import heads, ledger, signers
from clearspan.catalog.signers import StoredKey
from clearspan.model.clock import Clock, IdSource
from clearspan.proof.encoding import to_base64url

KIND = "signing_key"


def rotate(db: Connection, clock: Clock, ids: IdSource) -> StoredKey:
    """Make a new signing key and retire the old one; inside a write transaction.

    The ledger gets an entry that names both keys, and the *old* key signs a last head over that entry. A key that was
    stolen can sign nothing later that a checker would join to this history without seeing the entry.
    """
    old = signers.signer_of(db).key(db)
    new = signers.make_key(db, clock, ids)
    body = {"key_id": new.key_id, "public": to_base64url(new.public.public), "replaces": old.key_id}
    ledger.append(db, clock.now_ns(), KIND, None, body)
    heads.sign_with(db, clock.now_ns(), old)
    signers.retire_key(db, clock, old.key_id)
    return next(each for each in signers.stored_keys(db) if each.key_id == new.key_id)
