"""A plan that is kept for a while under a token, so that exactly what was looked at can be deleted, once.

The trace store keeps the request, the frozen manifest and the salts under SHA-256 of the token; the token itself is
shown once and stored nowhere. It is bound to the organisation and key that asked, and to a quarter of an hour.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, field

from clearspan.deletion.plan import Plan
from clearspan.store.port import TraceRow

PREFIX = "plan_"
TOKEN_BYTES = 32
LIFETIME_S = 15 * 60
SAMPLES_MAX = 20


@dataclass(frozen=True, slots=True)
class Preview:
    """What a deletion would do, and the token that does exactly that."""

    plan: Plan  # .traces, .planned (target → rows), .manifest_root, .request.window
    token: str = field(repr=False)  # `plan_…`, shown once
    expires_ns: int
    held: dict[str, int]  # hold id → how many of the planned traces it keeps; one trace may count for several holds
    samples: tuple[TraceRow, ...] = field(repr=False)  # at most SAMPLES_MAX, the first of the manifest
    by_day: dict[str, int]  # ISO day (UTC) of the start → traces
    by_project: dict[int, int]  # project → traces


def render_token(random_bytes: bytes) -> str:
    """TOKEN_BYTES random bytes as the text that a caller gets."""
    return PREFIX + base64.urlsafe_b64encode(random_bytes).rstrip(b"=").decode()


def token_key(token: str) -> bytes:
    """Under what a preview is kept: one-way, so that who reads the store cannot execute a plan."""
    return hashlib.sha256(token.encode()).digest()
