"""What a receipt says, made from a verified deletion's row: counts, times, hashes and words of ours, no personal data.

The ledger's place and the signature are added where it is issued (catalog/receipts.py); docs/receipts.md lists it all.
"""

from __future__ import annotations

from typing import Any, Final

from clearspan import __version__
from clearspan.deletion.job import Commitment, DeletionJob
from clearspan.deletion.linked import followed_words
from clearspan.deletion.state import DeletionState
from clearspan.proof.encoding import render_time

METHOD: Final = (
    "Rows of every target were removed in transactions that store their own counts.",
    "Freed bytes were overwritten with zeros on their way to the file.",
    "The request and the trace ids were erased, and the write-ahead log was emptied after that.",
    "Every target was counted again by other code than the one that removed; no row was left.",
)
NOT_COVERED: Final = (
    "Backups, copies and exports made by others.",
    "Snapshots of the file system, replicas of the volume, old blocks inside a drive, swap space.",
    "What clients, collectors and proxies sent elsewhere or keep in their queues; what they send late is refused.",
)
_YEAR_1_NS: Final = -62_135_596_800 * 1_000_000_000
_YEAR_9999_NS: Final = 253_402_300_799 * 1_000_000_000 + 999_999_999
_STATES: Final = frozenset(DeletionState) - {DeletionState.CANCELLED}


def receipt_payload(job: DeletionJob, commitment: Commitment, *, verified_ns: int) -> dict[str, Any]:
    """The receipt's own members, for catalog.receipts.issue.

    Args:
        job: as it is when verified.
    """
    hidden, absent, unmatched = job.hidden or 0, job.already_absent or 0, job.no_longer_matching or 0
    conditions = [*job.shape, *followed_words(job.follow_up_id)]
    times = {state: at for state, at in job.times_ns.items() if state in _STATES} | {"verified": verified_ns}
    return {
        "software": f"clearspan-{__version__}",
        "deletion_id": job.deletion_id,
        "parent_id": job.parent_id,
        "dialect": job.dialect,
        "requested_by": job.requested_by,
        "scope": {"projects": sorted(job.project_ids), "conditions": conditions, "hash": job.scope_hash},
        "window": {
            "start": _bound(job.window_start_ns),
            "end": _bound(job.window_end_ns),
            "implicit": job.window_is_implicit,
        },
        job.kind.value: {
            "matched": hidden + absent + unmatched + job.held,
            "deleted": hidden,
            "already_absent": absent,
            "no_longer_matching": unmatched,
            "held": job.held,
            "failed": 0,
        },
        "targets": {
            name: {"planned": job.planned.get(name, purged), "purged": purged, "remaining": job.remaining.get(name)}
            for name, purged in job.purged.items()
        },
        "manifest": {"root": commitment.root, "size": commitment.leaves, "salted": True},
        "times": {state: render_time(at) for state, at in times.items()},
        "method": list(METHOD),
        "not_covered": list(NOT_COVERED),
    }


def _bound(ns: int | None) -> str | None:
    """A bound of the window; one beyond the years that a date can hold is told as the last of them."""
    return None if ns is None else render_time(min(max(ns, _YEAR_1_NS), _YEAR_9999_NS))
