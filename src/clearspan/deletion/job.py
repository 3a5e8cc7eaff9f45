"""The durable row of a deletion in the Catalog, and what the Catalog must be able to do with it.

Nothing in it is personal: counts, states, times, key ids, project numbers, names of fields and operators, keyed and
salted hashes. What was asked in plain words lies in the trace store, until it is purged there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from clearspan.catalog.datasets import SourcePolicy
from clearspan.deletion.annotations import kind_of
from clearspan.deletion.state import DeletionState
from clearspan.store.port import DeletionKind, PlannedTrace

JOB_VERSION = 2
"""Of the job's row. A row with a larger number was written by a newer program: it is left alone, and an alarm."""

HELD = "held"
"""The `problem` of a deletion that waits for holds to be released; it is no alarm."""


@dataclass(frozen=True, slots=True)
class DeletionJob:
    """One deletion, from acceptance to its end. The second part changes with each move."""

    deletion_id: str
    org_id: int
    requested_by: str
    dialect: str
    project_ids: tuple[int, ...]
    # `field:operator:how many values` for each condition, or `trace_ids:in:N`; then copies. Conditions of annotations
    # begin with `annotation.`, and say by that what the deletion lists and counts.
    shape: tuple[str, ...]
    scope_hash: str  # salted, see plan.py
    manifest_root: str  # of what was planned; the receipt has the root of what was purged
    window_start_ns: int | None
    window_end_ns: int | None
    window_is_implicit: bool
    matched: int
    planned: dict[str, int]  # target → rows
    request_hash: str | None  # keyed hash of the request, if it came with an idempotency key
    parent_id: str | None = None  # the deletion whose held remainder this one is
    not_before_ns: int | None = None  # hidden at once, purged not before
    version: int = JOB_VERSION

    state: DeletionState = DeletionState.PLANNED
    moves: int = 0
    hidden: int | None = None  # traces; None until the hide transaction's answer is recorded
    no_longer_matching: int | None = None
    already_absent: int | None = None
    held: int = 0  # traces that holds kept; they are the child's
    child_id: str | None = None  # the deletion of the held remainder, once it is a job of its own
    follow_up_id: str | None = None  # the deletion of copies made since the plan, told once this one is purged
    purged: dict[str, int] = field(default_factory=dict)  # target → rows
    remaining: dict[str, int | None] = field(default_factory=dict)  # target → rows; None: could not be counted
    problem: str | None = None  # why it is blocked, failed or cancelled: a code and target names, never a value
    times_ns: dict[str, int] = field(default_factory=dict)  # state → when it was last entered
    created_ns: int = 0  # when the Catalog got the row

    @property
    def kind(self) -> DeletionKind:
        """What it lists; its counts `matched`, `hidden`, `held` … are of that."""
        return kind_of(self.shape)


class Audit(NamedTuple):
    """Who made a move, and the keyed hash of what they said about it; the words lie in the trace store."""

    by: str  # public id of a key, or the name of a rule or command
    private_ref: str | None = None  # under which the trace store keeps the words
    private_hash: str | None = None


class Commitment(NamedTuple):
    """What a receipt says of the traces that were purged, without saying which."""

    root: str  # RFC 9162 root over the sorted leaves, hex
    leaves: int


class DeletionPage(NamedTuple):
    """One page of a list of deletions, newest first."""

    jobs: list[DeletionJob]
    next_cursor: str | None


class DeletionQuery(NamedTuple):
    """Which deletions to list. Every condition that is set must hold."""

    org_id: int
    project_ids: Sequence[int]  # the caller's: only deletions that lie wholly within them are shown
    states: Sequence[DeletionState] = ()
    project_id: int | None = None  # those that touch it
    requested_by: str | None = None
    start_ns: int | None = None  # asked for in [start, end)
    end_ns: int | None = None
    after: str | None = None  # the former page's `next_cursor`
    limit: int = 50


class DeletionCatalog(Protocol):
    """The Catalog as deletions need it. Each method is one durable transaction."""

    def create_deletion(self, job: DeletionJob) -> DeletionJob:
        """Store a new job with its first ledger row, leased to us; a job that has this id is returned instead."""
        ...

    def get_deletion(self, deletion_id: str) -> DeletionJob | None:
        """The job as stored. Raises Conflict (`newer_version`) for one that a newer program wrote."""
        ...

    def project_ids(self, org_id: int) -> tuple[int, ...]:
        """Every project of an organisation."""
        ...

    def dataset_policies(self, org_id: int) -> Mapping[int, SourcePolicy]:
        """project of each dataset of an organisation → what becomes of its items when their sources are deleted."""
        ...

    def unfinished_deletions(self) -> list[DeletionJob]:
        """Every job that is in no final state, oldest first; those of a newer version are not among them."""
        ...

    def newer_deletions(self) -> list[str]:
        """Ids of unfinished jobs that a newer program wrote: not to be touched by this one."""
        ...

    def list_deletions(self, query: DeletionQuery) -> DeletionPage:
        """Deletions, newest first. Raises InvalidPage when the cursor is not one of ours."""
        ...

    def move_deletion(
        self,
        job: DeletionJob,
        *,
        before: DeletionState,
        audit: Audit | None = None,
        commitment: Commitment | None = None,
    ) -> None:
        """Store a job that has left state `before`, with one ledger row.

        A move to `verified` needs the commitment: the receipt is signed and stored in the same transaction.

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

    def receipt(self, deletion_id: str) -> str | None:
        """The signed receipt, a compact JWS; None before `verified`."""
        ...

    def record_event(self, org_id: int, kind: str, subject: str, step: str, body: Mapping[str, object]) -> int:
        """One audit row in the ledger (holds, tombstones); its sequence number.

        Safe to repeat: the same subject, kind and step is recorded once.
        """
        ...

    def drop_shares(self, job: DeletionJob, traces: Sequence[PlannedTrace]) -> int:
        """Remove the shares of those traces; how many this deletion removed in all, over any repeats."""
        ...

    def count_shares(self, job: DeletionJob, traces: Sequence[PlannedTrace]) -> int:
        """How many shares of those traces exist."""
        ...
