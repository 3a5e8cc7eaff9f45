"""A receipt's payload and the ledger row it belongs to, small and well-formed: for tests of whatever reads receipts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from clearspan.catalog import Catalog, ledger, receipts
from clearspan.proof.encoding import render_time
from clearspan.proof.manifest import manifest_leaf, manifest_root

SALT = bytes(range(32))
TARGETS = {"span": 9, "trace": 3}


def leaves_of(trace_ids: Sequence[str], project_id: int = 1) -> list[bytes]:
    """Sorted manifest leaves of these traces, under SALT."""
    return sorted(manifest_leaf(SALT, project_id, each) for each in trace_ids)


def receipt_payload(
    deletion_id: str, trace_ids: Sequence[str] = ("t-1", "t-2", "t-3"), **changes: Any
) -> dict[str, Any]:
    """What the caller of receipts.issue gives; `changes` replace whole members."""
    deleted = len(trace_ids)
    payload = {
        "deletion_id": deletion_id,
        "parent_id": None,
        "dialect": "native",
        "requested_by": "key_00000000000000000000000000000001",
        "software": "clearspan-0.1",
        "scope": {"projects": [1], "conditions": ["customer_identifier:eq:1"], "hash": "ab" * 32},
        "window": {"start": render_time(0), "end": None, "implicit": False},
        "traces": {"matched": deleted + 2, "deleted": deleted, "already_absent": 1, "no_longer_matching": 1}
        | {"held": 0, "failed": 0},
        "targets": {name: {"planned": rows, "purged": rows, "remaining": 0} for name, rows in TARGETS.items()},
        "manifest": {"root": manifest_root(leaves_of(trace_ids)).hex(), "size": deleted, "salted": True},
        "times": {"planned": render_time(1), "hidden": render_time(2), "verified": render_time(5)},
        "method": ["Rows are removed with secure_delete; freed bytes are zero."],
        "not_covered": ["Backups and copies made by others."],
    }
    return payload | changes


def verified_body(payload: dict[str, Any]) -> dict[str, Any]:
    """The body of the ledger row that records such a deletion as verified."""
    traces, targets = payload["traces"], payload["targets"]
    return {
        "before": "purged",
        "after": "verified",
        "hidden": traces["deleted"],
        "already_absent": traces["already_absent"],
        "no_longer_matching": traces["no_longer_matching"],
        "held": traces["held"],
        "purged": {name: counts["purged"] for name, counts in targets.items()},
        "remaining": {name: counts["remaining"] for name, counts in targets.items()},
    }


def issue_receipt(catalog: Catalog, at_ns: int, payload: dict[str, Any]) -> str:
    """Record the deletion as verified at that time and issue its receipt, in one transaction."""
    payload = payload | {"times": payload["times"] | {"verified": render_time(at_ns)}}
    with catalog.database.write() as db:
        entry = ledger.append(
            db, at_ns, "deletion", payload["deletion_id"], verified_body(payload), org_id=1, step="4.verified"
        )
        return receipts.issue(db, catalog.signer, payload, entry)
