"""Deletions, previews and holds as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

from clearspan.api.native.bounds import Bounds
from clearspan.api.native.events import Mark, Sight
from clearspan.api.respan.window import EffectiveWindow
from clearspan.catalog import Catalog
from clearspan.deletion.job import DeletionJob
from clearspan.deletion.linked import (
    copies_detached,
    copies_not_covered,
    copies_of_trace,
    copies_redacted,
    copies_taken,
)
from clearspan.deletion.preview import Preview
from clearspan.deletion.records import KIND
from clearspan.deletion.redaction import items_of
from clearspan.deletion.state import DeletionState
from clearspan.deletion.targets import NAMES
from clearspan.deletion.watch import DeletionStatus
from clearspan.model.clock import datetime_from_ns
from clearspan.model.trace import Window
from clearspan.query.ast import Expr, conditions
from clearspan.store.annotations import AnnotationRow
from clearspan.store.port import DeletionKind, DeletionProgress, HoldRow, TraceRow

Json = dict[str, Any]

ENDED: Final = frozenset({DeletionState.VERIFIED, DeletionState.FAILED, DeletionState.CANCELLED})
"""States in which nothing moves by itself any more."""
_BEFORE_PURGE: Final = frozenset({DeletionState.PLANNED, DeletionState.HIDDEN, DeletionState.BLOCKED})
_ALMOST: Final = 0.99
_COUNTED: Final = {kind: kind.value.removesuffix("s") for kind in DeletionKind}
"""The target whose rows are what a deletion of a kind counts."""


def deletion_json(
    status: DeletionStatus,
    bounds: Bounds,
    now_ns: int,
    *,
    alarm: str | None = None,
    blocked_by: list[str] | None,
) -> Json:
    """A deletion on the wire. `traces` counts what `kind` says, `counts` rows by target; null: not known (yet).

    Args:
        alarm: why somebody should look at it.
        blocked_by: the holds that keep what it waits for; None: too many traces to tell.
    """
    job, progress = status
    path = path_of(job.deletion_id)
    has_receipt = job.state is DeletionState.VERIFIED
    return {
        "id": job.deletion_id,
        "state": job.state.value,
        "problem": job.problem,
        "alarm": alarm,
        "requested_by": job.requested_by,
        "dialect": job.dialect,
        "reason": reason_of(progress),
        "projects": bounds.project_names(job.project_ids),
        "scope": list(job.shape),
        "scope_hash": job.scope_hash,
        "manifest_root": job.manifest_root,
        "effective_window": window_json(EffectiveWindow(window_of(job), job.window_is_implicit)),
        "kind": job.kind.value,
        "traces": _traces(job),
        "copies": {
            "taken": copies_taken(job.shape),
            "not_covered": copies_not_covered(job.shape),
            "detached": copies_detached(job.shape),
            "redacted_items": copies_redacted(job.shape),
            "of_trace": copies_of_trace(job.shape),
        },
        "counts": _counts(job, progress),
        "progress": round(status.fraction, 4),
        "eta_s": _eta_s(status, now_ns),
        "created_at": render_ns(job.created_ns or min(job.times_ns.values(), default=0)),
        "not_before": render_ns(job.not_before_ns),
        "times": {state: render_ns(at) for state, at in job.times_ns.items()},
        "late_refused": progress.late_refused if progress else 0,
        "waits_for": status.waits_for(now_ns),
        "blocked_by": blocked_by,
        "parent_id": job.parent_id,
        "child_id": _child_id(job, progress),
        "follow_up_id": job.follow_up_id,
        "receipt_url": f"{path}/receipt" if has_receipt else None,
        "links": _links(job, progress),
    }


def progress_json(status: DeletionStatus, now_ns: int) -> Json:
    """The part of a deletion that moves with every batch."""
    job, progress = status
    return {
        "id": job.deletion_id,
        "state": job.state.value,
        "traces": _traces(job),
        "counts": _counts(job, progress),
        "progress": round(status.fraction, 4),
        "eta_s": _eta_s(status, now_ns),
    }


def sight_of(status: DeletionStatus, now_ns: int) -> Sight:
    """A deletion as an event shows it."""
    return Sight(Mark(*status.seen), status.job.state in ENDED, progress_json(status, now_ns))


def moves_after(catalog: Catalog, deletion_id: str, seen: int) -> list[tuple[int, Json]]:
    """Each move of a deletion after the one of that number, as the ledger has it."""
    found = []
    for entry in catalog.ledger(deletion_id=deletion_id):
        if entry.kind == KIND and entry.body["moves"] > seen:
            body = entry.body
            counts = ("hidden", "already_absent", "no_longer_matching", "held")
            told = {
                "id": deletion_id,
                "state": body["after"],
                "at": render_ns(entry.at_ns),
                "traces": {name: body.get(name) for name in counts},
                "problem": body["problem"],
            }
            found.append((body["moves"], told))
    return found


def preview_json(preview: Preview, bounds: Bounds, window: EffectiveWindow, *, with_samples: bool) -> Json:
    """What a deletion would do.

    Args:
        with_samples: whether the key may also read traces.
    """
    plan = preview.plan
    return {
        "plan_token": preview.token,
        "expires_at": render_ns(preview.expires_ns),
        "effective_window": window_json(window),
        "projects": bounds.project_names(plan.carried.scope.project_ids),
        "kind": plan.request.kind.value,
        "traces": {"matched": plan.matched, "held": preview.held_traces},
        "copies": {
            "taken": len(plan.copies),
            "not_covered": plan.copies_not_covered,
            "detached": plan.copies_detached,
            "redacted_items": len(items_of(plan.redacted)),
            "of_trace": plan.copies_of_trace,
        },
        "counts": {target: {"planned": plan.planned[target]} for target in targets_of(plan.planned)},
        "holds": [{"id": hold_id, "traces": traces} for hold_id, traces in sorted(preview.held.items())],
        "by_day": dict(sorted(preview.by_day.items())),
        "by_project": {bounds.name_of(number): n for number, n in sorted(preview.by_project.items())},
        "samples": [sample_json(row, bounds) for row in preview.samples] if with_samples else None,
        "annotation_samples": (
            [annotation_sample_json(row, bounds) for row in preview.annotation_samples] if with_samples else None
        ),
        "manifest_root": plan.manifest_root,
        "links": {"delete": "/v1/deletions"},
    }


def sample_json(row: TraceRow, bounds: Bounds) -> Json:
    """One trace as a preview shows it: enough to recognise it."""
    summary = row.summary
    return {
        "trace_id": summary.trace_id,
        "project": bounds.names.get(row.project_id),
        "name": summary.name,
        "start_time": render_ns(summary.start_ns),
        "span_count": summary.span_count,
        "customer_identifier": summary.customer_identifier,
        "environment": summary.environment,
    }


def annotation_sample_json(row: AnnotationRow, bounds: Bounds) -> Json:
    """One annotation as a preview shows it."""
    said = row.annotation
    return {
        "id": said.annotation_id,
        "project": bounds.names.get(row.project_id),
        "target": said.target.value,
        "name": said.name,
        "identifier": said.identifier,
        "annotator_kind": said.kind.value,
        "created_at": render_ns(said.created_ns),
        "trace_id": said.trace_id,
        "span_id": said.span_id,
        "session_id": said.session_id,
    }


def hold_json(hold: HoldRow, bounds: Bounds) -> Json:
    """A hold. Once it is released, what it kept and why is erased and null."""
    is_open = hold.released_ns is None
    return {
        "id": hold.hold_id,
        "state": "active" if is_open else "released",
        "projects": bounds.project_names(hold.scope.project_ids),
        "environment": hold.scope.environment,
        "scope": _shape(hold.where, hold.trace_ids) if is_open else None,
        "trace_ids": list(hold.trace_ids) if hold.trace_ids is not None else None,
        "window": window_json(EffectiveWindow(hold.window, False)) if is_open else None,
        "reason": hold.reason,
        "created_at": render_ns(hold.created_ns),
        "created_by": hold.created_by,
        "released_at": render_ns(hold.released_ns),
        "links": {"self": f"/v1/holds/{hold.hold_id}"},
    }


def window_json(window: EffectiveWindow) -> Json:
    """A window with its two ends; null: open."""
    return {
        "start_time": render_ns(window.window.start_ns),
        "end_time": render_ns(window.window.end_ns),
        "source": "default" if window.is_default else "request",
    }


def window_of(job: DeletionJob) -> Window:
    """The window that a deletion was carried out for."""
    return Window(job.window_start_ns, job.window_end_ns)


def path_of(deletion_id: str) -> str:
    """The address of a deletion."""
    return f"/v1/deletions/{deletion_id}"


def render_ns(ns: int | None) -> str | None:
    """Unix nanoseconds as ISO 8601 in UTC; None for none, and for a year that a date cannot hold."""
    if ns is None:
        return None
    try:
        return datetime_from_ns(ns).isoformat().replace("+00:00", "Z")
    except (OverflowError, ValueError, OSError):
        return None


def reason_of(progress: DeletionProgress | None) -> str | None:
    """What the caller said, while the store still has it: it is erased with the traces."""
    if progress is None or not progress.request:
        return None
    reason = orjson.loads(progress.request).get("request", {}).get("reason")
    return reason if isinstance(reason, str) else None


def _traces(job: DeletionJob) -> Json:
    failed = job.hidden if job.state is DeletionState.FAILED else 0
    return {
        "matched": job.matched,
        "hidden": job.hidden,
        "already_absent": job.already_absent,
        "no_longer_matching": job.no_longer_matching,
        "held": job.held,
        "failed": failed,
    }


def _counts(job: DeletionJob, progress: DeletionProgress | None) -> Json:
    """Rows by target. What was hidden and held is counted in traces; in rows it is known only when it is all or none
    of what was planned, for counting it apart would walk every row once more."""
    purged = job.purged or (progress.purged if progress else {})
    out: Json = {}
    for target in targets_of(job.planned, purged, job.remaining):
        planned = job.planned.get(target)
        part = {name: _part(job, target, planned, traces) for name, traces in _outcomes(job).items()}
        gone, left = purged.get(target), job.remaining.get(target)
        if left is None and part["hidden"] is not None and gone is not None:
            left = max(0, part["hidden"] - gone)
        failed = left if job.state is DeletionState.FAILED else 0
        out[target] = {"planned": planned, **part, "purged": gone, "failed": failed, "remaining": left}
    return out


def targets_of(*counts: Mapping[str, int | None]) -> list[str]:
    """The targets to tell of, in the registry's order; what a store counts beside them only where it is not zero."""
    told = {target for each in counts for target, rows in each.items() if target in NAMES or rows}
    return sorted(told, key=lambda target: (NAMES.index(target) if target in NAMES else len(NAMES), target))


def _outcomes(job: DeletionJob) -> dict[str, int | None]:
    return {"hidden": job.hidden, "already_absent": job.already_absent, "held": job.held}


def _part(job: DeletionJob, target: str, planned: int | None, traces: int | None) -> int | None:
    if traces is None or planned is None:
        return None
    if target == _COUNTED[job.kind] or planned == 0:
        return min(traces, planned)
    if traces == 0:
        return 0
    return planned if traces == job.matched else None


def _eta_s(status: DeletionStatus, now_ns: int) -> float | None:
    seconds = status.eta_s(now_ns)
    return None if seconds is None else round(seconds, 1)


def _child_id(job: DeletionJob, progress: DeletionProgress | None) -> str | None:
    return job.child_id or (progress.child_id if progress else None)


def _links(job: DeletionJob, progress: DeletionProgress | None) -> Json:
    path = path_of(job.deletion_id)
    links = {"self": path, "events": f"{path}/events", "tombstones": f"{path}/tombstones"}
    if job.state in _BEFORE_PURGE and not (progress and progress.batches):
        links["cancel"] = f"{path}/cancel"
    if job.state is DeletionState.FAILED:
        links["retry"] = f"{path}/retry"
    if job.state is DeletionState.VERIFIED:
        links |= {"receipt": f"{path}/receipt", "membership": f"{path}/membership"}
    return links


def _shape(where: Expr | None, trace_ids: tuple[str, ...] | None) -> list[str]:
    if trace_ids is not None:
        return [f"trace_ids:in:{len(trace_ids)}"]
    asked = () if where is None else conditions(where)
    return [f"{each.field.name}:{each.operator.value}:{len(each.values)}" for each in asked] or ["everything"]
