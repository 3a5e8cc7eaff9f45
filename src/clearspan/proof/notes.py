"""Private notes: words about an act (why a hold was set) that can be erased while every proof still holds.

The ledger has HMAC-SHA-256(salt, canonical JSON of the note) and nothing else. Who holds note and salt can show that
these were the words; once both are erased, the hash says nothing, not even to somebody who guesses the words.
"""

from __future__ import annotations

import hmac
from typing import Any

from clearspan.proof.canonical import canonical_json

SALT_BYTES = 32


def note_hash(salt: bytes, body: Any) -> str:
    """The `private_hash` of a note, hex: keyed with a salt of its own.

    Args:
        salt: 32 random bytes, kept and erased together with the note.
        body: the note as JSON values.
    Raises:
        ValueError: canonical JSON does not take the body.
    """
    assert len(salt) == SALT_BYTES, "without a salt, words could be guessed"
    return hmac.new(salt, canonical_json(body), "sha256").hexdigest()


def is_note(private_hash: str, salt: bytes, body: Any) -> bool:
    """Whether a ledger entry's `private_hash` commits to this note."""
    try:
        return len(salt) == SALT_BYTES and hmac.compare_digest(note_hash(salt, body), private_hash)
    except (ValueError, TypeError):
        return False
