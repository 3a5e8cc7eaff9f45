"""The durable row of a deletion in the Catalog, and what the Catalog must be able to do with it.

Nothing in it is personal: counts, states, times, key ids, project numbers, names of fields and operators, keyed and
salted hashes. What was asked in plain words lies in the trace store, until it is purged there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from clearspan.deletion.state import DeletionState
from clearspan.store.port import PlannedTrace


@dataclass(frozen=True, slots=True)
class DeletionJob:
    """One deletion, from acceptance to its end. The second part changes with each move."""

    deletion_id: str
    org_id: int
    requested_by: str
    dialect: str
    project_ids: tuple[int, ...]
    shape: tuple[str, ...]  # `field:operator:how many values` for each condition, or `trace_ids:in:N`
    scope_hash: str  # salted, see plan.py
    manifest_root: str
    window_start_ns: int | None
    window_end_ns: int | None
    window_is_implicit: bool
    matched: int
    planned: dict[str, int]  # target → rows
    request_hash: str | None  # keyed hash of the request, if it came with an idempotency key

    state: DeletionState = DeletionState.PLANNED
    moves: int = 0
    hidden: int | None = None  # traces; None until the hide transaction's answer is recorded
    no_longer_matching: int | None = None
    already_absent: int | None = None
    purged: dict[str, int] = field(default_factory=dict)  # target → rows
    remaining: dict[str, int | None] = field(default_factory=dict)  # target → rows; None: could not be counted
    problem: str | None = None  # why it is blocked, failed or cancelled: a code and target names, never a value
    times_ns: dict[str, int] = field(default_factory=dict)  # state → when it was last entered


class DeletionCatalog(Protocol):
    """The Catalog as deletions need it. Each method is one durable transaction."""

    def create_deletion(self, job: DeletionJob) -> DeletionJob:
        """Store a new job with its first ledger row, leased to us; a job that has this id is returned instead."""
        ...

    def get_deletion(self, deletion_id: str) -> DeletionJob | None:
        """The job as stored."""
        ...

    def unfinished_deletions(self) -> list[DeletionJob]:
        """Every job that is in no final state, oldest first."""
        ...

    def move_deletion(self, job: DeletionJob, *, before: DeletionState) -> None:
        """Store a job that has left state `before`, with one ledger row.

        Raises:
            Conflict: our lease was lost, or the stored job is not in `before`; nothing was stored.
        """
        ...

    def lease_deletion(self, deletion_id: str) -> bool:
        """Take or renew our lease of a job; False while another owner's has not run out."""
        ...

    def take_over(self) -> None:
        """At start-up: end every lease of others. The data directory's lock proves their owners dead."""
        ...

    def drop_shares(self, job: DeletionJob, traces: Sequence[PlannedTrace]) -> int:
        """Remove the shares of those traces; how many this deletion removed in all, over any repeats."""
        ...

    def count_shares(self, job: DeletionJob, traces: Sequence[PlannedTrace]) -> int:
        """How many shares of those traces exist."""
        ...
