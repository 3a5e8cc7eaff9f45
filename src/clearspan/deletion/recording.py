"""Moving a deletion to another state: checked against the table, written with its ledger row, then a fault point."""

from __future__ import annotations

from dataclasses import replace

from clearspan.deletion.job import Audit, Commitment, DeletionCatalog, DeletionJob
from clearspan.deletion.state import DeletionState, check_move
from clearspan.faults import fault
from clearspan.model.errors import ClearspanError
from clearspan.store.port import HideOutcome

_RECORDED = {state: f"deletion.after_{state.value}_recorded" for state in DeletionState}


class Stuck(Exception):
    """A step could not be done; the text is a code and target names, never a value."""


def move(
    catalog: DeletionCatalog,
    job: DeletionJob,
    state: DeletionState,
    *,
    audit: Audit | None = None,
    commitment: Commitment | None = None,
    **changes: object,
) -> DeletionJob:
    """The job in its new state, durably.

    Args:
        changes: fields of the job; `problem` is cleared unless given.
    Raises:
        IllegalTransition: the table does not join the two states.
        Conflict: somebody else moved it.
    """
    check_move(job.state, state)
    changes.setdefault("problem", None)
    moved = replace(job, state=state, moves=job.moves + 1, **changes)  # type: ignore[arg-type]
    catalog.move_deletion(moved, before=job.state, audit=audit, commitment=commitment)
    fault(_RECORDED[state])
    return moved


def record_hidden(catalog: DeletionCatalog, job: DeletionJob, outcome: HideOutcome) -> DeletionJob:
    """The same after the hide transaction, with its counts."""
    return move(catalog, job, DeletionState.HIDDEN, **outcome._asdict())


def problem_of(error: Exception) -> str:
    """An exception as a code: its message may hold values and is left out."""
    if isinstance(error, Stuck):
        return str(error)
    return error.code if isinstance(error, ClearspanError) else type(error).__name__
