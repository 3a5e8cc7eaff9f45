"""Freezing what a deletion would remove: the manifest, its counts, and hashes that commit to it.

The manifest is what one snapshot of the store shows, and that snapshot is the horizon: what arrives later under a
listed id meets its tombstone, everything else belongs to another request. Whether a trace was received before the
request is therefore never a question of two clock readings, and a clock that jumps changes nothing.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import orjson

from clearspan.deletion import spans
from clearspan.deletion.annotations import (
    list_annotations,
    parse_selection,
    plain_selection,
    root_of_annotations,
    shape_of,
)
from clearspan.deletion.guard import PLAN_MAX, SPAN_COPIES_MAX, plan_limit
from clearspan.deletion.job import HELD, JOB_VERSION, DeletionJob
from clearspan.deletion.linked import Copies, Policies, find_copies, follows_word, reach_of, render_shape, widened
from clearspan.deletion.redaction import RedactedVersion, items_of, plain_versions, versions_of
from clearspan.deletion.request import ByAnnotations, ByFilter, ByIds, BySpans, DeletionRequest, Selection
from clearspan.deletion.state import DeletionState
from clearspan.model.trace import Scope, Window
from clearspan.proof.manifest import manifest_leaves, manifest_root
from clearspan.query.ast import conditions
from clearspan.query.codec import decode_expr, encode_expr
from clearspan.store.annotation_deletion import PlannedAnnotation
from clearspan.store.port import DeletionKind, DeletionStore, PlannedTrace

NO_HORIZON_NS = 2**63 - 1
SALT_BYTES = 32
REMOVAL_WORD = "project:removed:1"
"""Stands among the conditions of a deletion that removes a project; no condition of a filter is rendered so."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a request would delete. Preview is this object, not carried out."""

    deletion_id: str
    request: DeletionRequest
    traces: tuple[PlannedTrace, ...] = field(repr=False)  # sorted by trace_pk
    planned: dict[str, int]  # target → rows that belong to those traces
    salt: bytes = field(repr=False)  # of `scope_hash`; kept beside the plain request and erased with it
    manifest_salt: bytes = field(repr=False)  # of the manifest's leaves; stays in the trace store
    manifest_root: str  # commits to the exact set of traces: see `root_of_traces`, hex
    copies: frozenset[int] = frozenset()  # trace_pks of those that are there as copies of others: see linked.py
    copies_not_covered: int = 0  # traces with copies that stay: the caller's key does not reach them
    copies_detached: int = 0  # versions of dataset items that stay: their dataset keeps them
    copies_of_trace: int = 0  # of the whole trace of a span, or in it: see linked.py
    copies_left: frozenset[int] = frozenset()  # trace_pks of those that stay, any way
    runs: tuple[spans.SpanRuns, ...] = field(default=(), repr=False)  # of the spans among `traces`
    redacted: tuple[RedactedVersion, ...] = field(default=(), repr=False)  # of `copies`: see redaction.py
    annotations: tuple[PlannedAnnotation, ...] = field(default=(), repr=False)  # in place of traces; by row number
    follows: str | None = None  # the deletion whose copies, made since its plan, this one takes: see follow_up.py

    @property
    def matched(self) -> int:
        """How many traces, or annotations, it lists."""
        return len(self.traces) + len(self.annotations)

    @property
    def carried(self) -> DeletionRequest:
        """The request as the store evaluates it again inside the hide transaction."""
        return widened(self.request, [trace for trace in self.traces if trace.trace_pk in self.copies])

    @property
    def scope_hash(self) -> str:
        """Commits to the exact request: HMAC-SHA-256 over its canonical bytes, hex."""
        return hmac.new(self.salt, canonical_request(self.request), hashlib.sha256).hexdigest()

    def private_bytes(self) -> bytes:
        """What the trace store keeps of the request until it is settled: the request in plain words, and the salt."""
        if not self.matched:
            return b""  # nothing will be purged, so nothing personal is written down either
        private: dict[str, Any] = {"request": plain_request(self.request), "salt": self.salt.hex()}
        if self.copies:
            private["carried"] = plain_request(self.carried)
        if self.redacted:
            private["redacted"] = plain_versions(self.redacted)
        if self.request.kind is not DeletionKind.ANNOTATIONS:  # for the search before the purge
            private["reach"] = list(reach_of(self.request))
            private["copies_left"] = sorted(self.copies_left)
        if self.runs:
            private["runs"] = spans.plain_runs(self.runs)
        return orjson.dumps(private)


class Salts(NamedTuple):
    """SALT_BYTES random bytes each, of one deletion's own."""

    scope: bytes
    manifest: bytes


def freeze_plan(
    store: DeletionStore,
    request: DeletionRequest,
    everywhere: Scope,
    datasets: Policies,
    *,
    deletion_id: str,
    salts: Salts,
) -> Plan:
    """List, once, the traces that a request would delete, and count their rows in every target of the store.

    Args:
        everywhere: all projects of the organisation.
        datasets: of the organisation.
    Returns:
        The plan. It lists one trace too many when the request's limit is passed; guard.py refuses it then.
    Cost: one query, one count and 4 µs of hashing a trace; about 100 bytes of memory a trace.
    """
    match request.selection:
        case ByAnnotations() as selection:
            return _freeze_annotations(store, request, selection, deletion_id=deletion_id, salts=salts)
        case BySpans() as chosen:
            lines = spans.list_spans(store, request, chosen)
            return _freeze_spans(store, request, lines, everywhere, datasets, deletion_id=deletion_id, salts=salts)
        case ByFilter(where):
            limit = plan_limit(request)
            traces = store.plan(request.scope, where, request.window, received_before_ns=NO_HORIZON_NS, limit=limit)
            over_limit = len(traces) > limit
        case ByIds(trace_ids):
            traces = store.plan_ids(request.scope, trace_ids, request.window)
            over_limit = len(traces) > plan_limit(request)
    copies = Copies()
    if traces and not over_limit:
        copies = find_copies(store, traces, reach_of(request), everywhere, datasets, limit=PLAN_MAX - len(traces))
        traces = sorted([*traces, *copies.traces])
        over_limit = len(traces) > PLAN_MAX
    return Plan(
        deletion_id,
        request,
        tuple(traces),
        planned={} if over_limit or not traces else store.count_targets([trace.trace_pk for trace in traces]),
        salt=salts.scope,
        manifest_salt=salts.manifest,
        manifest_root="" if over_limit else root_of_traces(salts.manifest, traces),
        copies=frozenset([trace.trace_pk for trace in copies.traces]),
        copies_not_covered=copies.not_covered,
        copies_detached=copies.detached,
        copies_left=copies.left,
        redacted=() if over_limit else versions_of(store, copies.redacted),
    )


def _freeze_annotations(
    store: DeletionStore, request: DeletionRequest, selection: ByAnnotations, *, deletion_id: str, salts: Salts
) -> Plan:
    limit = plan_limit(request)
    lines = list_annotations(store, request, selection, limit=limit)
    over_limit = len(lines) > limit
    return Plan(
        deletion_id,
        request,
        (),
        planned={} if over_limit or not lines else {"annotation": len(lines)},
        salt=salts.scope,
        manifest_salt=salts.manifest,
        manifest_root="" if over_limit else root_of_annotations(salts.manifest, lines),
        annotations=tuple(lines),
    )


def _freeze_spans(
    store: DeletionStore,
    request: DeletionRequest,
    lines: Sequence[PlannedTrace],
    everywhere: Scope,
    datasets: Policies,
    *,
    deletion_id: str,
    salts: Salts,
) -> Plan:
    """With the spans go the whole traces that are copies of them: the manifest has lines of both."""
    copies, runs = Copies(), spans.runs_of(store, lines)
    if lines:
        reach = reach_of(request)
        copies = find_copies(store, lines, reach, everywhere, datasets, limit=SPAN_COPIES_MAX, runs=runs)
    lines = sorted([*spans.without_parts(lines, copies.traces), *copies.traces])
    return Plan(
        deletion_id,
        request,
        tuple(lines),
        planned=spans.count_planned(store, lines),
        salt=salts.scope,
        manifest_salt=salts.manifest,
        manifest_root=root_of_traces(salts.manifest, lines),
        copies=frozenset([trace.trace_pk for trace in copies.traces]),
        copies_not_covered=copies.not_covered,
        copies_detached=copies.detached,
        copies_of_trace=copies.of_trace,
        copies_left=copies.left,
        runs=runs,
        redacted=versions_of(store, copies.redacted),
    )


def root_of_traces(salt: bytes, traces: Sequence[PlannedTrace]) -> str:
    """The commitment of proof.manifest to a set of traces, hex."""
    return manifest_root(manifest_leaves(salt, ((each.project_id, each.trace_id) for each in traces))).hex()


def canonical_request(request: DeletionRequest) -> bytes:
    """One sequence of bytes for one meaning: sorted keys, no blanks. Equal requests give equal bytes."""
    return orjson.dumps(plain_request(request), option=orjson.OPT_SORT_KEYS)


def repeatable_id(secret: bytes, request: DeletionRequest, *, attempt: int = 0) -> str | None:
    """The deletion id that an idempotency key stands for; None without one.

    The id is derived from who asks and their key, so a repeat finds the first deletion by its id and no index of keys
    is needed. Different callers may use the same key.

    Args:
        attempt: how many attempts under this key were given up before they hid anything.
    """
    if request.idempotency_key is None:
        return None
    named = [request.org_id, request.requested_by, request.idempotency_key]
    message = orjson.dumps([*named, attempt] if attempt else named)
    return "del_" + hmac.new(secret, b"idempotency\0" + message, hashlib.sha256).hexdigest()[:32]


def token_hash(secret: bytes, token: str) -> str:
    """The same as `request_hash` for a deletion that names a plan token instead of traces."""
    return hmac.new(secret, b"plan\0" + token.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()


def request_hash(secret: bytes, request: DeletionRequest) -> str:
    """Tells a repeat from another request under the same idempotency key.

    Bounds that the caller did not give are left out: "now" is another moment at each repeat.
    """
    window = Window(
        None if request.window_is_implicit else request.window.start_ns,
        None if request.end_is_implicit else request.window.end_ns,
    )
    said = canonical_request(replace(request, window=window))
    return hmac.new(secret, b"request\0" + said, hashlib.sha256).hexdigest()


def request_shape(request: DeletionRequest) -> tuple[str, ...]:
    """The request without its values and metadata keys, fit for the Catalog and the ledger."""
    match request.selection:
        case ByFilter(where):
            asked = () if where is None else conditions(where)
            shape = tuple(f"{each.field.name}:{each.operator.value}:{len(each.values)}" for each in asked)
            return (*shape, REMOVAL_WORD) if request.removes_project else shape
        case ByIds(trace_ids):
            return (f"trace_ids:in:{len(trace_ids)}",)
        case ByAnnotations() as selection:
            return shape_of(selection)
        case BySpans() as chosen:
            return spans.shape_of(chosen)


def plain_request(request: DeletionRequest) -> dict[str, Any]:
    """The request as JSON values: what it means, without limits and keys of the caller. Personal data."""
    match request.selection:
        case ByFilter(where):
            selection: object = None if where is None else encode_expr(where)
        case ByIds(trace_ids):
            selection = sorted(set(trace_ids))
        case ByAnnotations() as asked:
            selection = plain_selection(asked)
        case BySpans() as named:
            selection = spans.plain_selection(named)
    plain = {
        "requested_by": request.requested_by,
        "dialect": request.dialect,
        "projects": sorted(request.scope.project_ids),
        "environment": request.scope.environment,
        "selection": selection,
        "window": list(request.window),
        "delete_all": request.delete_all,
        "reason": request.reason,
        "expected_count": request.expected_count,
    }
    if request.not_before_ns is not None:
        plain["not_before_ns"] = request.not_before_ns
    for name in ("leave_copies", "removes_project"):
        if getattr(request, name):
            plain[name] = True
    return plain


def parse_request(plain: Mapping[str, Any], org_id: int) -> DeletionRequest:
    """What `plain_request` was given. Raises LookupError, TypeError or ValueError for anything else."""
    return DeletionRequest(
        org_id=org_id,
        requested_by=plain["requested_by"],
        dialect=plain["dialect"],
        scope=Scope(tuple(plain["projects"]), plain["environment"]),
        selection=_parse_selection(plain["selection"]),
        window=Window(*plain["window"]),
        delete_all=plain["delete_all"],
        reason=plain["reason"],
        expected_count=plain["expected_count"],
        not_before_ns=plain.get("not_before_ns"),
        leave_copies=plain.get("leave_copies", False),
        removes_project=plain.get("removes_project", False),
    )


def _parse_selection(chosen: Any) -> Selection:
    by_themselves = spans.parse_selection(chosen) or parse_selection(chosen)
    if by_themselves is not None:
        return by_themselves
    if isinstance(chosen, list) and all(isinstance(each, str) for each in chosen):
        return ByIds(tuple(chosen))
    return ByFilter(None if chosen is None else decode_expr(chosen))


def parse_private(private: bytes, org_id: int) -> DeletionRequest:
    """The request that `Plan.private_bytes` wrote down, widened by copies: what a held remainder is selected by once
    more."""
    said = orjson.loads(private)
    return parse_request(said.get("carried", said["request"]), org_id)


def job_of(plan: Plan, secret: bytes) -> DeletionJob:
    """The Catalog's row of a plan: everything in it that is not personal."""
    request = plan.request
    told = render_shape(
        len(plan.copies),
        plan.copies_not_covered,
        plan.copies_detached,
        len(items_of(plan.redacted)),
        plan.copies_of_trace,
    )
    follows = () if plan.follows is None else (follows_word(plan.follows),)
    shape = request_shape(request) + told + follows
    return DeletionJob(
        deletion_id=plan.deletion_id,
        org_id=request.org_id,
        requested_by=request.requested_by,
        dialect=request.dialect,
        project_ids=plan.carried.scope.project_ids,
        shape=shape,
        scope_hash=plan.scope_hash,
        manifest_root=plan.manifest_root,
        window_start_ns=request.window.start_ns,
        window_end_ns=request.window.end_ns,
        window_is_implicit=request.window_is_implicit,
        matched=plan.matched,
        planned=plan.planned,
        request_hash=None if request.idempotency_key is None else request_hash(secret, request),
        not_before_ns=request.not_before_ns,
    )


def child_job_of(parent: DeletionJob, child_id: str, store: DeletionStore) -> DeletionJob:
    """The row of a held remainder: the parent's request, the traces that holds kept, blocked until they are released.

    Cost: one count over the child's traces.
    """
    if parent.kind is DeletionKind.ANNOTATIONS:
        matched = len(store.annotation_manifest(child_id))
        planned = {"annotation": matched}
    else:
        traces = store.manifest(child_id)
        matched = len(traces)
        planned = spans.count_planned(store, traces)  # some spans are in their traces yet
    return replace(
        parent,
        deletion_id=child_id,
        parent_id=parent.deletion_id,
        child_id=None,
        manifest_root=manifest_root(store.leaves(child_id)).hex(),
        matched=matched,
        planned=planned,
        request_hash=None,
        not_before_ns=None,
        version=JOB_VERSION,
        state=DeletionState.BLOCKED,
        problem=HELD,
        moves=0,
        hidden=None,
        no_longer_matching=None,
        already_absent=None,
        held=0,
        follow_up_id=None,
        purged={},
        remaining={},
        times_ns={},
    )
