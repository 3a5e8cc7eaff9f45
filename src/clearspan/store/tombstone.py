"""What is left of a deleted trace: a keyed hash, so that its late spans can be refused without naming it."""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Iterator

from clearspan.proof.keyed import keyed_sha256

KEY_BYTES = 16


def tombstone_key(secret: bytes, project_id: int, trace_id: str) -> bytes:
    """The tombstone of a trace: HMAC-SHA-256 over (project, trace), cut to 16 bytes.

    A project belongs to one organisation for life and its number is never used again, so it stands for both.

    Args:
        secret: the instance's 32-byte tombstone secret, kept in the Catalog.
        trace_id: in normal form.
    """
    return hmac.digest(secret, _named(project_id, trace_id), "sha256")[:KEY_BYTES]


def tombstone_keys(secret: bytes, traces: Iterable[tuple[int, str]]) -> Iterator[bytes]:
    """`tombstone_key` of each (project_id, trace_id), in order. Cost: about 2 µs a trace, half of one by one."""
    key_of = keyed_sha256(secret)
    for project_id, trace_id in traces:
        yield key_of(_named(project_id, trace_id))[:KEY_BYTES]


def manifest_salt_of(secret: bytes, deletion_id: str) -> bytes:
    """The manifest salt of a deletion that came without one, as the child of another: 32 bytes that only this
    installation can derive, and that say nothing of any other deletion's."""
    return hmac.digest(secret, b"manifest\0" + deletion_id.encode(), "sha256")


def _named(project_id: int, trace_id: str) -> bytes:
    return project_id.to_bytes(8, "big") + trace_id.encode("utf-8", "surrogatepass")
