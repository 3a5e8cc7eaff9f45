"""What an API key is made of. Pure functions."""

from __future__ import annotations

import base64
import hashlib
import re

KEY_CHARS_MAX = 512
OWN_KEY_CHARS_MIN = 16

_GENERATED = re.compile(r"(cs_[0-9a-f]{8})_[A-Za-z0-9_-]{43}")


def render_key(visible: bytes, secret: bytes) -> str:
    """A new key, `cs_1f0c77aa_` and 43 characters.

    Args:
        visible: 4 random bytes: the part that lists show and look-ups use.
        secret: 32 random bytes.
    """
    assert len(visible) == 4, "a visible part has 4 bytes"
    assert len(secret) == 32, "a secret has 32 bytes"
    return f"cs_{visible.hex()}_{base64.urlsafe_b64encode(secret).rstrip(b'=').decode()}"


def digest_of(key: str) -> bytes:
    """SHA-256 of a key: what is stored of it. A slow hash would add nothing to 32 random bytes."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def prefix_of(key: str) -> str:
    """The visible prefix of a key, by which it is looked up.

    A key of the operator's own choice has no part that may be shown: four bytes of another hash stand for it.
    """
    if match := _GENERATED.fullmatch(key):
        return match[1]
    return "own_" + hashlib.sha256(b"prefix\0" + key.encode("utf-8", "surrogatepass")).hexdigest()[:8]
