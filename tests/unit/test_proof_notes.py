"""Private notes: the words can be shown, and once erased nobody can tell them from a guess."""

from __future__ import annotations

import hashlib
import hmac

import pytest

from clearspan.proof.canonical import canonical_json
from clearspan.proof.notes import is_note, note_hash

SALT = bytes(range(32))
NOTE = {"reason": "Ada Lovelace asked for it", "case": 7}


def test_the_hash_is_keyed_and_over_canonical_bytes() -> None:
    assert note_hash(SALT, NOTE) == hmac.new(SALT, canonical_json(NOTE), hashlib.sha256).hexdigest()
    assert note_hash(SALT, dict(reversed(NOTE.items()))) == note_hash(SALT, NOTE)
    assert note_hash(SALT[::-1], NOTE) != note_hash(SALT, NOTE), "without the salt a right guess says nothing"


@pytest.mark.parametrize("body", [NOTE | {"case": 8}, {}, None, {"case": 7.0}, object()])
def test_other_words_are_not_the_note(body: object) -> None:
    known = note_hash(SALT, NOTE)
    assert is_note(known, SALT, NOTE)
    assert not is_note(known, SALT, body)
    assert not is_note(known, SALT[::-1], NOTE)
    assert not is_note(known, b"short", NOTE)
    assert not is_note("\u00e9", SALT, NOTE)
