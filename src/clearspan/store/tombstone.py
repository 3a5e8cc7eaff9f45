"""What is left of a deleted trace: a keyed hash, so that its late spans can be refused without naming it."""

from __future__ import annotations

import hmac


def tombstone_key(secret: bytes, project_id: int, trace_id: str) -> bytes:
    """The tombstone of a trace: HMAC-SHA-256 over (project, trace), cut to 16 bytes.

    A project belongs to one organisation for life and its number is never used again, so it stands for both.

    Args:
        secret: the instance's 32-byte tombstone secret, kept in the Catalog.
        trace_id: in normal form.
    """
    message = project_id.to_bytes(8, "big") + trace_id.encode("utf-8", "surrogatepass")
    return hmac.digest(secret, message, "sha256")[:16]


def manifest_salt_of(secret: bytes, deletion_id: str) -> bytes:
    """The manifest salt of a deletion that came without one, as the child of another: 32 bytes that only this
    installation can derive, and that say nothing of any other deletion's."""
    return hmac.digest(secret, b"manifest\0" + deletion_id.encode(), "sha256")
