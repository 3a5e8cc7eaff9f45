"""The states of a deletion and every move between them, as one table.

    planned ──► hidden ──► purged ──► verified
       │           │          │
       │           ├──────────┴─► failed      a survivor was found, and is named; an explicit retry leads back
       ├───────────┼──────────┬─► blocked     something could not be done or counted, or a hold keeps it
       └───────────┴─► cancelled              nothing was hidden, or it was un-hidden

A held remainder is a deletion of its own that begins in `blocked`. `verified` and `cancelled` are never left;
`failed` is left only by somebody's explicit retry. Only verify.py's findings lead to `verified`. A move is recorded
as one row in the ledger, in the same transaction as the job's new state.
"""

from __future__ import annotations

from enum import StrEnum

from clearspan.model.errors import IllegalTransition


class DeletionState(StrEnum):
    """What may be said of a deletion. "Deleted" is not among them: it would mean too many things."""

    PLANNED = "planned"  # matching traces are listed; nothing has changed
    HIDDEN = "hidden"  # no read returns them, ingest refuses their late spans
    PURGED = "purged"  # their rows and the request are removed, and the write-ahead log was emptied after that
    VERIFIED = "verified"  # recounted, target by target: nothing is left
    BLOCKED = "blocked"  # cannot go on just now; the reason is named
    FAILED = "failed"  # ended with something left; what, is named
    CANCELLED = "cancelled"  # ended before anything was hidden, or un-hidden before anything was purged


_S = DeletionState

MOVES: dict[DeletionState, frozenset[DeletionState]] = {
    _S.PLANNED: frozenset({_S.HIDDEN, _S.BLOCKED, _S.CANCELLED}),
    _S.HIDDEN: frozenset({_S.PURGED, _S.BLOCKED, _S.FAILED, _S.CANCELLED}),
    _S.PURGED: frozenset({_S.VERIFIED, _S.BLOCKED, _S.FAILED}),
    _S.BLOCKED: frozenset({_S.HIDDEN, _S.PURGED, _S.FAILED, _S.CANCELLED}),
    _S.VERIFIED: frozenset(),
    _S.FAILED: frozenset({_S.HIDDEN, _S.PURGED}),
    _S.CANCELLED: frozenset(),
}

FIRST = frozenset({_S.PLANNED, _S.BLOCKED})
"""Where a deletion may begin: the held remainder of another one is blocked from the start."""

FINAL = frozenset({_S.VERIFIED, _S.FAILED, _S.CANCELLED})
"""Where nothing happens any more by itself."""


def check_move(before: DeletionState, after: DeletionState) -> None:
    """Raises IllegalTransition unless the table joins the two states."""
    if after not in MOVES[before]:
        raise IllegalTransition(f"a deletion cannot move from {before} to {after}")
