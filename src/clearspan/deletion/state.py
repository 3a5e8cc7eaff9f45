"""The states of a deletion and every move between them, as one table.

    planned ──► hidden ──► purged ──► verified
       │           │          │
       │           ├──────────┴─► failed      a survivor was found, and is named
       ├───────────┼──────────┬─► blocked     something could not be done or counted; once it can, goes on
       └───────────┴─► cancelled              nothing was hidden, or it was un-hidden

`verified`, `failed` and `cancelled` are final. Only verify.py's findings lead to `verified`. A move is recorded as
one row in the ledger, in the same transaction as the job's new state.
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
    CANCELLED = "cancelled"  # ended before anything was hidden, or un-hidden


_S = DeletionState

MOVES: dict[DeletionState, frozenset[DeletionState]] = {
    _S.PLANNED: frozenset({_S.HIDDEN, _S.BLOCKED, _S.CANCELLED}),
    _S.HIDDEN: frozenset({_S.PURGED, _S.BLOCKED, _S.FAILED, _S.CANCELLED}),
    _S.PURGED: frozenset({_S.VERIFIED, _S.BLOCKED, _S.FAILED}),
    _S.BLOCKED: frozenset({_S.HIDDEN, _S.PURGED, _S.FAILED, _S.CANCELLED}),
    _S.VERIFIED: frozenset(),
    _S.FAILED: frozenset(),
    _S.CANCELLED: frozenset(),
}

FINAL = frozenset(state for state, targets in MOVES.items() if not targets)


def check_move(before: DeletionState, after: DeletionState) -> None:
    """Raises IllegalTransition unless the table joins the two states."""
    if after not in MOVES[before]:
        raise IllegalTransition(f"a deletion cannot move from {before} to {after}")
