"""A plan that is kept for a while under a token, so that exactly what was looked at can be deleted, once.

The trace store keeps the request, the frozen manifest and the salts under SHA-256 of the token; the token itself is
shown once and stored nowhere. It is bound to the organisation and key that asked, and to a quarter of an hour.
"""

from __future__ import annotations

import base64
import hashlib
import threading
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import orjson
import zstandard

from clearspan.deletion import spans
from clearspan.deletion.plan import Plan, parse_request, plain_request
from clearspan.deletion.redaction import parse_versions, plain_versions
from clearspan.deletion.request import ByIds
from clearspan.model.errors import Conflict
from clearspan.model.trace import Scope
from clearspan.store.annotation_deletion import PlannedAnnotation
from clearspan.store.annotations import AnnotationRow
from clearspan.store.port import Breakdown, DeletionKind, DeletionStore, PlannedTrace, TraceRow

PREFIX = "plan_"
TOKEN_BYTES = 32
LIFETIME_S = 15 * 60
SAMPLES_MAX = 20
NOWHERE = Scope(())
NO_SELECTION = ByIds(())
"""Scope and selection of one who shows a token and names nothing else."""
PREVIEWS_MAX = 100
_OWNER_BYTES = 8
_FAST = 1  # ids hardly get smaller with more effort


@dataclass(frozen=True, slots=True)
class Preview:
    """What a deletion would do, and the token that does exactly that."""

    plan: Plan  # .traces, .planned (target → rows), .manifest_root, .request.window
    token: str = field(repr=False)  # `plan_…`, shown once
    expires_ns: int
    held: dict[str, int]  # hold id → how many of what is planned it keeps; one trace may count for several holds
    held_traces: int  # how many of the planned traces (annotations) any hold keeps
    samples: list[TraceRow] = field(repr=False)  # at most SAMPLES_MAX, the first of the manifest
    by_day: dict[str, int]  # ISO day (UTC) of the start → traces; of the creation → annotations
    by_project: dict[int, int]  # project → traces, or annotations
    annotation_samples: list[AnnotationRow] = field(default_factory=list, repr=False)  # as `samples`


class _Sight(NamedTuple):
    """What the store says of a plan's list."""

    held: dict[str, int]
    held_traces: int
    samples: list[TraceRow]
    annotation_samples: list[AnnotationRow]


def breakdown_of(store: DeletionStore, plan: Plan) -> Breakdown:
    """Where what a plan lists lies, as far as it is visible."""
    if plan.request.kind is DeletionKind.ANNOTATIONS:
        return store.annotation_breakdown([line.row_no for line in plan.annotations])
    if plan.request.kind is DeletionKind.SPANS:
        return spans.breakdown(store, plan.traces)
    return store.breakdown([trace.trace_pk for trace in plan.traces])


def held_among(store: DeletionStore, plan: Plan) -> int:
    """How many of what a plan lists some hold keeps."""
    if plan.request.kind is DeletionKind.ANNOTATIONS:
        return store.annotations_held_among([line.row_no for line in plan.annotations])
    if plan.request.kind is DeletionKind.SPANS:
        return spans.weighed(plan.traces, store.held_among)
    return store.held_among([trace.trace_pk for trace in plan.traces])


def sight_of(store: DeletionStore, plan: Plan) -> _Sight:
    """Holds in the way, and samples."""
    held_traces = held_among(store, plan)
    if plan.request.kind is DeletionKind.ANNOTATIONS:
        row_nos = [line.row_no for line in plan.annotations]
        shown = store.annotation_samples(row_nos[:SAMPLES_MAX])
        return _Sight(store.annotations_held(row_nos), held_traces, [], shown)
    pks = [trace.trace_pk for trace in plan.traces]
    if plan.request.kind is DeletionKind.SPANS:
        shown_traces = store.summaries(sorted(set(pks))[:SAMPLES_MAX])
        return _Sight(spans.count_held(store, plan.traces), held_traces, shown_traces, [])
    return _Sight(store.count_held(pks), held_traces, store.summaries(pks[:SAMPLES_MAX]), [])


class KeptPlan(NamedTuple):
    """A preview as it was found under its token."""

    plan: Plan
    expires_ns: int


def render_token(random_bytes: bytes) -> str:
    """TOKEN_BYTES random bytes as the text that a caller gets."""
    return PREFIX + base64.urlsafe_b64encode(random_bytes).rstrip(b"=").decode()


def owner_of(org_id: int, requested_by: str) -> bytes:
    """What the keys of all previews of one API key begin with, so that they can be counted unread."""
    return hashlib.sha256(f"{org_id}:{requested_by}".encode("utf-8", "surrogatepass")).digest()[:_OWNER_BYTES]


def token_key(token: str, owner: bytes) -> bytes:
    """Under what a preview is kept: one-way, so that who reads the store cannot execute a plan."""
    return owner + hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


class Shelf:
    """Where previews are kept: so many of one API key at once, until they are used or expire. Safe from any thread.

    A preview is some 50 bytes a listed trace, in plain words. Without a bound one key could fill the store with them.
    """

    def __init__(self, store: DeletionStore, *, previews_max: int) -> None:
        self._store = store
        self._most = previews_max
        self._lock = threading.Lock()

    def check_room(self, owner: bytes, now_ns: int) -> None:
        """Raises Conflict `too_many_plans` when the API key has as many open previews as it may."""
        if self._count(owner) < self._most:
            return
        self._store.sweep_previews(now_ns)  # some may have expired since the last round of housekeeping
        if self._count(owner) >= self._most:
            raise Conflict(
                f"This API key has {self._most} open plan tokens, the most it may (setting plans_open_max). "
                f"Use one, or wait: each expires {LIFETIME_S // 60} minutes after its preview. Nothing was done.",
                code="too_many_plans",
            )

    def keep(self, token: str, owner: bytes, plan: Plan, *, now_ns: int) -> tuple[bytes, int]:
        """Keep a preview; its key and when it expires. Raises as `check_room`."""
        key, expires_ns = token_key(token, owner), now_ns + LIFETIME_S * 1_000_000_000
        body = render_kept(plan, expires_ns)
        with self._lock:
            self.check_room(owner, now_ns)
            self._store.save_preview(key, body, expires_ns)
        return key, expires_ns

    def _count(self, owner: bytes) -> int:
        return sum(key.startswith(owner) for key in self._store.preview_keys())


def render_kept(plan: Plan, expires_ns: int) -> bytes:
    """What the trace store keeps of a preview. Personal data. Size: about 50 bytes a trace."""
    request = plan.request
    body = {
        "request": plain_request(request),
        "org_id": request.org_id,
        "window_is_implicit": request.window_is_implicit,
        "end_is_implicit": request.end_is_implicit,
        "matches_max": request.matches_max,
        "salt": plan.salt.hex(),
        "manifest_salt": plan.manifest_salt.hex(),
        "manifest_root": plan.manifest_root,
        "planned": plan.planned,
        "expires_ns": expires_ns,
        "reach": None if request.reach is None else list(request.reach),
        "copies": sorted(plan.copies),
        "copies_not_covered": plan.copies_not_covered,
        "copies_detached": plan.copies_detached,
        "copies_of_trace": plan.copies_of_trace,
        "copies_left": sorted(plan.copies_left),
        "runs": spans.plain_runs(plan.runs),
        "redacted": plain_versions(plan.redacted),
        "traces": [list(trace) for trace in plan.traces],
        "annotations": [list(line) for line in plan.annotations],
    }
    return zstandard.compress(orjson.dumps(body), _FAST)


def parse_kept(kept: bytes) -> KeptPlan:
    """What `render_kept` was given, without a deletion id, policy and idempotency key: those are of the execution."""
    body = orjson.loads(zstandard.decompress(kept))
    request = replace(
        parse_request(body["request"], body["org_id"]),
        window_is_implicit=body["window_is_implicit"],
        end_is_implicit=body["end_is_implicit"],
        matches_max=body["matches_max"],
        reach=None if body.get("reach") is None else Scope(tuple(body["reach"][0]), body["reach"][1]),
    )
    plan = Plan(
        deletion_id="",
        request=request,
        traces=tuple([PlannedTrace._make(trace) for trace in body["traces"]]),
        planned=body["planned"],
        salt=bytes.fromhex(body["salt"]),
        manifest_salt=bytes.fromhex(body["manifest_salt"]),
        manifest_root=body["manifest_root"],
        copies=frozenset(body.get("copies", ())),
        copies_not_covered=body.get("copies_not_covered", 0),
        copies_detached=body.get("copies_detached", 0),
        copies_of_trace=body.get("copies_of_trace", 0),
        copies_left=frozenset(body.get("copies_left", ())),
        runs=spans.parse_runs(body.get("runs", ())),
        redacted=parse_versions(body.get("redacted", ())),
        annotations=tuple([PlannedAnnotation._make(line) for line in body.get("annotations", ())]),
    )
    return KeptPlan(plan, body["expires_ns"])


def void_previews_of(store: DeletionStore, gone: Collection[PlannedTrace], gone_annotations: set[int]) -> int:
    """Erase every preview that lists a trace, a span or an annotation which a deletion takes: no id may outlive what it
    names.

    Nobody loses by it: such a plan is exact and could no longer be carried out.

    Args:
        gone: the manifest, traces and spans; those have another trace_pk in a plan.
        gone_annotations: row numbers.
    Returns:
        How many previews were erased.
    """
    voided = 0
    pks, names = {line.trace_pk for line in gone}, {line[1:] for line in gone}
    for key in store.preview_keys():
        kept = store.get_preview(key)
        plan = parse_kept(kept).plan if kept else None
        if plan is not None and (
            any(trace.trace_pk in pks or trace[1:] in names for trace in plan.traces)
            or any(line.row_no in gone_annotations for line in plan.annotations)
        ):
            voided += store.void_preview(key)
    return voided
