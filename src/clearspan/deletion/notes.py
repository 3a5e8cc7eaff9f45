"""What people say about an act (why they cancelled, held, released, lifted): kept where it can be erased.

The words lie in the trace store as a private note; the ledger has the note's reference and a keyed hash of it. Erasing
the note leaves every proof as it was: nobody can tell any more what was said, only that it was the same all along.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import Any

from clearspan.deletion.job import Audit
from clearspan.model.clock import IdSource
from clearspan.proof.canonical import canonical_json
from clearspan.store.port import DeletionStore

SALT_BYTES = 32


def keyed_hash(salt: bytes, value: Mapping[str, Any]) -> str:
    """HMAC-SHA-256 over the canonical JSON of a value, hex."""
    return hmac.new(salt, canonical_json(dict(value)), hashlib.sha256).hexdigest()


def write_note(store: DeletionStore, ids: IdSource, ref: str, by: str, words: Mapping[str, Any]) -> Audit:
    """Keep words under a reference, and what the ledger says of them.

    Safe to repeat: the first words under a reference stay, and the answer speaks of those.
    """
    said = {key: _encodable(value) if isinstance(value, str) else value for key, value in words.items()}
    store.put_note(ref, ids.token_bytes(SALT_BYTES), canonical_json(said))
    return read_note(store, ref, by)


def read_note(store: DeletionStore, ref: str, by: str) -> Audit:
    """What the ledger says of a note that is kept; without a hash when there is none."""
    found = store.get_note(ref)
    if found is None:
        return Audit(by)
    salt, body = found
    return Audit(by, ref, hmac.new(salt, body, hashlib.sha256).hexdigest())


def _encodable(text: str) -> str:
    """Half a surrogate pair has no bytes; what a client sent of one is spelled out."""
    return text.encode("utf-8", "backslashreplace").decode()
