"""A key's policy, as deletions take it."""

from __future__ import annotations

from clearspan.catalog import Principal
from clearspan.deletion.policy import Policy


def policy_of(principal: Principal) -> Policy:
    """What the key limits each of its deletions to."""
    own = principal.policy
    return Policy(
        max_traces=own.max_traces,
        max_share_ppm=own.max_share_ppm,
        require_reason=own.require_reason,
        forbid_delete_all=own.forbid_delete_all,
        strict_window=own.strict_window,
    )
