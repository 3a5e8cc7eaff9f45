"""The keys that sign receipts and tree heads. The newest signs; retired ones stay, without their private part."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Connection, insert, select, update

from clearspan.catalog.tables import instance, signing_key
from clearspan.model.clock import Clock, IdSource
from clearspan.model.errors import StoreDamaged
from clearspan.proof.signing import PublicKey, SigningKey


class StoredKey(NamedTuple):
    """A signing key as others may see it."""

    key_id: str
    public: bytes
    created_at_ns: int
    retired_at_ns: int | None

    @property
    def key(self) -> PublicKey:
        """The public key."""
        return PublicKey(self.public)


class Signer(NamedTuple):
    """Who signs. The key is read with each signature: another process may have retired the last one."""

    instance: str

    def key(self, db: Connection) -> SigningKey:
        """The key that signs now. Raises StoreDamaged when there is none."""
        seed = db.execute(
            select(signing_key.c.seed).where(signing_key.c.retired_at_ns.is_(None), signing_key.c.seed.is_not(None))
        ).scalar()
        if seed is None:
            raise StoreDamaged("The catalog has no key to sign with.")
        return SigningKey(bytes(seed))


def signer_of(db: Connection) -> Signer:
    """The signer of this installation."""
    return Signer(db.execute(select(instance.c.public_id)).scalar_one())


def has_key(db: Connection) -> bool:
    """Whether there is a key that signs now."""
    query = select(signing_key.c.key_id).where(signing_key.c.retired_at_ns.is_(None))
    return db.execute(query).first() is not None


def make_key(db: Connection, clock: Clock, ids: IdSource) -> SigningKey:
    """Store a new key, which signs from now on."""
    made = SigningKey.generate(ids)
    values = {"key_id": made.key_id, "public": made.public.public, "seed": made.seed, "created_at_ns": clock.now_ns()}
    db.execute(insert(signing_key).values(values))
    return made


def retire_key(db: Connection, clock: Clock, key_id: str) -> None:
    """The key signs no more: its private part is erased, its public part stays."""
    gone = {"seed": None, "retired_at_ns": clock.now_ns()}
    db.execute(update(signing_key).where(signing_key.c.key_id == key_id).values(gone))


def stored_keys(db: Connection) -> list[StoredKey]:
    """Every key there ever was, oldest first."""
    columns = (signing_key.c[name] for name in StoredKey._fields)
    found = [StoredKey(*row) for row in db.execute(select(*columns))]
    return sorted(found, key=lambda each: (each.created_at_ns, each.retired_at_ns is None, each.key_id))
