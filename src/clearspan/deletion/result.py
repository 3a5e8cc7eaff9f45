"""What a caller is told, in numbers and in one sentence. Nothing says "deleted" of what is only hidden."""

from __future__ import annotations

from typing import NamedTuple

from clearspan.deletion.job import DeletionJob
from clearspan.deletion.linked import (
    copies_detached,
    copies_not_covered,
    copies_of_trace,
    copies_redacted,
    copies_taken,
)
from clearspan.deletion.state import DeletionState
from clearspan.model.clock import datetime_from_ns
from clearspan.model.trace import Window
from clearspan.store.port import DeletionKind


class DeletionResult(NamedTuple):
    """The state of a deletion when its caller was answered. All counts are traces, or annotations: see `kind`.

    matched = hidden + already_absent + no_longer_matching + held + failed + cancelled.
    """

    deletion_id: str
    state: DeletionState
    matched: int
    hidden: int  # gone from every read; purged too once the state says so
    already_absent: int  # hidden or gone by another deletion between plan and hide
    no_longer_matching: int  # changed between plan and hide so that the filter no longer holds; untouched
    held: int  # kept by a hold: the child deletion's
    failed: int  # hidden, but not all of it could be purged
    window: Window
    window_is_implicit: bool
    cancelled: int = 0  # were hidden, and are visible again
    child_id: str | None = None  # the deletion that goes on with what is held, once it is a job of its own
    not_before_ns: int | None = None
    copies: int = 0  # how many of the matched are there because they hold copies of others
    copies_not_covered: int = 0  # traces with copies that the caller's key does not reach: untouched
    kind: DeletionKind = DeletionKind.TRACES  # what is counted
    copies_detached: int = 0  # versions of dataset items made from the matched that stay, as their dataset wants it
    items_redacted: int = 0  # dataset items made from the matched that are replaced by empty ones
    follow_up_id: str | None = None  # the deletion of copies that were made since the plan
    copies_of_trace: int = 0  # copies of the whole traces of the matched spans, or in those traces: untouched

    @property
    def is_erased(self) -> bool:
        """Whether everything that was hidden is also gone from storage, and recounted."""
        return self.state is DeletionState.VERIFIED


def result_of(job: DeletionJob) -> DeletionResult:
    """The result of a job as it stands. Raises ValueError before the hide transaction's counts are known."""
    if job.hidden is None or job.already_absent is None or job.no_longer_matching is None:
        raise ValueError("the deletion has not been hidden yet")
    failed = job.hidden if job.state is DeletionState.FAILED else 0
    cancelled = job.hidden if job.state is DeletionState.CANCELLED else 0
    return DeletionResult(
        deletion_id=job.deletion_id,
        state=job.state,
        matched=job.matched,
        hidden=job.hidden - failed - cancelled,
        already_absent=job.already_absent,
        no_longer_matching=job.no_longer_matching,
        held=job.held,
        failed=failed,
        window=Window(job.window_start_ns, job.window_end_ns),
        window_is_implicit=job.window_is_implicit,
        cancelled=cancelled,
        child_id=job.child_id,
        not_before_ns=job.not_before_ns,
        copies=copies_taken(job.shape),
        copies_not_covered=copies_not_covered(job.shape),
        kind=job.kind,
        copies_detached=copies_detached(job.shape),
        items_redacted=copies_redacted(job.shape),
        follow_up_id=job.follow_up_id,
        copies_of_trace=copies_of_trace(job.shape),
    )


def render_message(result: DeletionResult) -> str:
    """One sentence for the caller, in the words Respan's clients know where they are true; a second one of copies."""
    return _message(result) + _copies(result)


def _message(result: DeletionResult) -> str:
    things = result.kind.value
    if result.kind is DeletionKind.SPANS and result.copies:
        things = "spans and copies"
    if result.failed:
        return f"{result.failed} {things} hidden; erasure failed, see deletion {result.deletion_id}"
    if result.cancelled:
        return f"{result.cancelled} {things} are visible again; the deletion was cancelled, nothing was deleted"
    if result.hidden:
        done = f"Successfully deleted {result.hidden} {things}"
        if not result.is_erased:
            done = f"{result.hidden} {things} hidden; erasure in progress"
        return f"{done}; {result.held} {things} are held and were not deleted" if result.held else done
    if result.matched:
        return f"{_absent(result)}; nothing was deleted"
    return f"No {things} matched{_where(result)}; nothing was deleted"


def render_message_for_one(result: DeletionResult, trace_id: str) -> str:
    """The same for a deletion of one id; its copies in several projects count as one trace here."""
    return _message_for_one(result, trace_id) + _copies(result)


def _message_for_one(result: DeletionResult, trace_id: str) -> str:
    if result.failed:
        return f"Trace {trace_id} hidden; erasure failed, see deletion {result.deletion_id}"
    if result.cancelled:
        return f"Trace {trace_id} is visible again; the deletion was cancelled, nothing was deleted"
    if result.hidden:
        done = f"Successfully deleted trace {trace_id}"
        return done if result.is_erased else f"Trace {trace_id} hidden; erasure in progress"
    if result.held:
        return f"Trace {trace_id} is held; nothing was deleted"
    if result.matched:
        return f"Trace {trace_id} is already being deleted; nothing was deleted"
    return f"No trace {trace_id} was found{_where(result)}; nothing was deleted"


def _copies(result: DeletionResult) -> str:
    taken, left, detached = result.copies, result.copies_not_covered, result.copies_detached
    told = ""
    if taken:
        things = "are traces that" if result.kind is DeletionKind.SPANS else "traces"
        told = f". {taken} of the {result.matched} {things} hold copies of the others"
    if result.copies_of_trace:
        told += f". {result.copies_of_trace} traces with copies of their whole traces stay, and may hold their text"
    if left:
        told += f". {left} traces with copies are not covered and stay as they are"
    if detached:
        told += f". {detached} dataset items made from them stay, as their datasets are set to"
    if result.follow_up_id is not None:
        told += f". Copies were made meanwhile: what becomes of them tells deletion {result.follow_up_id}"
    return told


def _absent(result: DeletionResult) -> str:
    parts = []
    if result.already_absent:
        parts.append(f"{result.already_absent} {result.kind} were already being deleted")
    if result.no_longer_matching:
        parts.append(f"{result.no_longer_matching} {result.kind} no longer matched")
    if result.held:
        parts.append(f"{result.held} {result.kind} are held")
    return ", ".join(parts)


def _where(result: DeletionResult) -> str:
    if not result.window_is_implicit:
        return ""
    start, end = (_time(ns) for ns in result.window)
    return f" from {start} to {end} (no start_time was given, so only that window was searched)"


def _time(ns: int | None) -> str:
    if ns is None:
        return "any time"
    try:
        return datetime_from_ns(ns).isoformat().replace("+00:00", "Z")
    except (OverflowError, ValueError, OSError):  # a year that a date cannot hold
        return f"{ns} ns"
