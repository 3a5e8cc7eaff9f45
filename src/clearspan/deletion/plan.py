"""Freezing what a deletion would remove: the manifest, its counts, and hashes that commit to it.

The manifest is what one snapshot of the store shows, and that snapshot is the horizon: what arrives later under a
listed id meets its tombstone, everything else belongs to another request. Whether a trace was received before the
request is therefore never a question of two clock readings, and a clock that jumps changes nothing.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import orjson

from clearspan.deletion.guard import plan_limit
from clearspan.deletion.job import DeletionJob
from clearspan.deletion.request import ByFilter, ByIds, DeletionRequest
from clearspan.model.trace import Window
from clearspan.query.ast import Expr, conditions
from clearspan.query.codec import encode_expr
from clearspan.store.port import DeletionStore, PlannedTrace

NO_HORIZON_NS = 2**63 - 1
SALT_BYTES = 32


@dataclass(frozen=True, slots=True)
class Plan:
    """What a request would delete. Preview is this object, not carried out."""

    deletion_id: str
    request: DeletionRequest
    traces: tuple[PlannedTrace, ...] = field(repr=False)  # sorted by trace_pk
    planned: dict[str, int]  # target → rows that belong to those traces
    salt: bytes = field(repr=False)  # of the two hashes below; kept beside the plain request and erased with it

    @property
    def where(self) -> Expr | None:
        """The filter to evaluate again inside the hide transaction; None for a deletion by ids."""
        return self.request.selection.where if isinstance(self.request.selection, ByFilter) else None

    @property
    def scope_hash(self) -> str:
        """Commits to the exact request: HMAC-SHA-256 over its canonical bytes, hex."""
        return hmac.new(self.salt, canonical_request(self.request), hashlib.sha256).hexdigest()

    @property
    def manifest_root(self) -> str:
        """Commits to the exact set of traces: see `manifest_root`, hex."""
        return manifest_root(self.salt, self.traces).hex()

    def private_bytes(self) -> bytes:
        """What the trace store keeps of the request until it is settled: the request in plain words, and the salt."""
        if not self.traces:
            return b""  # nothing will be purged, so nothing personal is written down either
        return orjson.dumps({"request": _plain(self.request), "salt": self.salt.hex()})


def freeze_plan(store: DeletionStore, request: DeletionRequest, *, deletion_id: str, salt: bytes) -> Plan:
    """List, once, the traces that a request would delete, and count their rows in every target of the store.

    Args:
        salt: SALT_BYTES random bytes of this deletion's own.
    Returns:
        The plan. It lists one trace too many when the request's limit is passed; guard.py refuses it then.
    Cost: one query and one count; about 100 bytes of memory a trace.
    """
    match request.selection:
        case ByFilter(where):
            limit = plan_limit(request)
            traces = store.plan(request.scope, where, request.window, received_before_ns=NO_HORIZON_NS, limit=limit)
            over_limit = len(traces) > limit
        case ByIds(trace_ids):
            traces = store.plan_ids(request.scope, trace_ids, request.window)
            over_limit = False
    planned = {} if over_limit or not traces else store.count_targets([trace.trace_pk for trace in traces])
    return Plan(deletion_id, request, tuple(traces), planned, salt)


def manifest_root(salt: bytes, traces: Sequence[PlannedTrace]) -> bytes:
    """Merkle root (RFC 9162 hashing) over the traces in order of (project, id), each leaf keyed by the salt.

    Who knows the salt, an id and a path can show that the id was in; the root alone tells nothing about any id.
    """
    lines = sorted((trace.project_id, trace.trace_id) for trace in traces)
    level = [_leaf(salt, project_id, trace_id) for project_id, trace_id in lines]
    if not level:
        return hashlib.sha256(b"").digest()
    while len(level) > 1:
        pairs = zip(level[::2], level[1::2], strict=False)
        odd = level[-1:] if len(level) % 2 else []
        level = [hashlib.sha256(b"\x01" + left + right).digest() for left, right in pairs] + odd
    return level[0]


def _leaf(salt: bytes, project_id: int, trace_id: str) -> bytes:
    keyed = hmac.digest(salt, project_id.to_bytes(8, "big") + trace_id.encode(), "sha256")
    return hashlib.sha256(b"\x00" + keyed).digest()


def canonical_request(request: DeletionRequest) -> bytes:
    """One sequence of bytes for one meaning: sorted keys, no blanks. Equal requests give equal bytes."""
    return orjson.dumps(_plain(request), option=orjson.OPT_SORT_KEYS)


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
            return tuple(f"{each.field.name}:{each.operator.value}:{len(each.values)}" for each in asked)
        case ByIds(trace_ids):
            return (f"trace_ids:in:{len(trace_ids)}",)


def _plain(request: DeletionRequest) -> dict[str, object]:
    match request.selection:
        case ByFilter(where):
            selection: object = None if where is None else encode_expr(where)
        case ByIds(trace_ids):
            selection = sorted(set(trace_ids))
    return {
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


def job_of(plan: Plan, secret: bytes) -> DeletionJob:
    """The Catalog's row of a plan: everything in it that is not personal."""
    request = plan.request
    return DeletionJob(
        deletion_id=plan.deletion_id,
        org_id=request.org_id,
        requested_by=request.requested_by,
        dialect=request.dialect,
        project_ids=request.scope.project_ids,
        shape=request_shape(request),
        scope_hash=plan.scope_hash,
        manifest_root=plan.manifest_root,
        window_start_ns=request.window.start_ns,
        window_end_ns=request.window.end_ns,
        window_is_implicit=request.window_is_implicit,
        matched=len(plan.traces),
        planned=plan.planned,
        request_hash=None if request.idempotency_key is None else request_hash(secret, request),
    )
