"""Who sent a request, as far as it shapes what is stored."""

from __future__ import annotations

from hashlib import blake2b
from typing import NamedTuple


class Origin(NamedTuple):
    """Where a request's traces go and what its API key says about them."""

    project_id: int
    key_id: str | None = None  # public id of the key
    environment: str | None = None  # the key's; when set it overrides what spans say


def source_salt(origin: Origin, resource: bytes, scope: bytes) -> bytes:
    """16 bytes that stand for all that spans of one scope share: goes into each content hash.

    The origin is in it, so that the same bytes sent with another key are another content, and merging stays
    independent of the order in which the two came.
    """
    digest = blake2b(digest_size=16)
    for part in (origin.key_id or "", origin.environment or ""):
        digest.update(part.encode() + b"\0")
    for raw in (resource, scope):
        digest.update(len(raw).to_bytes(8, "big") + raw)
    return digest.digest()
