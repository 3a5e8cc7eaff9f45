"""Entries of the ledger as events of LangSmith's audit log: OCSF 1.7.0, API Activity (class 6003).

The ledger has moves of deletions, holds and lifted tombstones, with times, counts and who asked. It has no address, no
method and no path of a request; those members are null.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum
from typing import Any, Final, NamedTuple

from clearspan import __version__
from clearspan.api.langsmith.inputs import Json, render_time, uuid_text
from clearspan.catalog.ledger import TRANSFER_KIND, LedgerEntry
from clearspan.deletion.acts import LIFTED
from clearspan.deletion.holds import CREATED, RELEASED
from clearspan.deletion.projects import is_removal
from clearspan.deletion.records import KIND
from clearspan.deletion.state import DeletionState

DELETE_RUNS: Final = "delete_runs"
DELETE_SESSION: Final = "delete_tracer_session"
_OCSF_VERSION: Final = "1.7.0"
_CLASS_UID: Final = 6003
_SEVERITY_OTHER: Final = 99
_MS_NS: Final = 1_000_000
_COUNTS: Final = ("matched", "hidden", "already_absent", "no_longer_matching", "held")


class _Activity(IntEnum):
    """OCSF's `activity_id`."""

    CREATE = 1
    UPDATE = 3
    DELETE = 4
    OTHER = 99


class _Status(IntEnum):
    """OCSF's `status_id`."""

    SUCCESS = 1
    FAILURE = 2
    OTHER = 99


class _Meaning(NamedTuple):
    operation: str
    activity: _Activity
    status: _Status = _Status.SUCCESS


_S = DeletionState
_MOVES: Final[Mapping[str, _Meaning]] = {
    _S.HIDDEN.value: _Meaning("deletion_hidden", _Activity.DELETE),
    _S.PURGED.value: _Meaning("deletion_purged", _Activity.DELETE),
    _S.VERIFIED.value: _Meaning("deletion_verified", _Activity.DELETE),
    _S.BLOCKED.value: _Meaning("deletion_blocked", _Activity.OTHER, _Status.OTHER),
    _S.FAILED.value: _Meaning("deletion_failed", _Activity.OTHER, _Status.FAILURE),
    _S.CANCELLED.value: _Meaning("deletion_cancelled", _Activity.UPDATE),
}
_KINDS: Final[Mapping[str, _Meaning]] = {
    CREATED: _Meaning("create_hold", _Activity.CREATE),
    RELEASED: _Meaning("release_hold", _Activity.UPDATE),
    LIFTED: _Meaning("lift_tombstone", _Activity.UPDATE),
    TRANSFER_KIND: _Meaning("transfer_traces", _Activity.UPDATE),
}
OPERATIONS: Final = (
    DELETE_RUNS,
    DELETE_SESSION,
    *(meaning.operation for meaning in (*_MOVES.values(), *_KINDS.values())),
)
"""Every operation that an event can have. The first two are the vendor's names, the others are ours."""


class Facts(NamedTuple):
    """What an event needs beside its entry."""

    asked: Mapping[str, Any]  # the body of the deletion's first entry; empty for anything else
    workspace: str  # UUID
    projects: Mapping[int, str]  # number → 32 hex digits


def meaning_of(entry: LedgerEntry, asked: Mapping[str, Any]) -> str | None:
    """The operation of an entry; None: it is nothing that an audit log tells.

    Args:
        asked: as in Facts.
    """
    meaning = _meaning(entry, asked)
    return None if meaning is None else meaning.operation


def event_of(entry: LedgerEntry, facts: Facts) -> Json:
    """One event. The entry must have a meaning."""
    meaning = _meaning(entry, facts.asked)
    assert meaning is not None, "the caller looks for the meaning first"
    by, ids = _actor(entry, facts.asked), _resources(entry, facts)
    activity, status = meaning.activity, meaning.status
    return {
        "class_uid": _CLASS_UID,
        "class_name": "API Activity",
        "category_uid": 6,
        "category_name": "Application Activity",
        "activity_id": activity.value,
        "activity_name": activity.name.capitalize(),
        "type_uid": _CLASS_UID * 100 + activity.value,
        "severity_id": _SEVERITY_OTHER,
        "status_id": status.value,
        "status": status.name.capitalize(),
        "time": entry.at_ns // _MS_NS,
        "metadata": {
            "uid": entry.entry_hash.hex(),
            "version": _OCSF_VERSION,
            "product": {"name": "Clearspan", "vendor_name": "Clearspan", "version": __version__},
        },
        "api": {"operation": meaning.operation},
        "http_request": {"http_method": None, "url": {"path": None}},
        "http_response": {"code": None},
        "actor": {"user": {"uid": None, "credential_uid": by}},
        "src_endpoint": {"ip": None, "port": None, "intermediate_ips": []},
        "resources": [{"uid": each} for each in ids],
        "unmapped": {
            "original_audit_log": _original(entry, meaning, facts, by, ids),
            "clearspan": _own(entry, facts.asked),
        },
    }


def _meaning(entry: LedgerEntry, asked: Mapping[str, Any]) -> _Meaning | None:
    if entry.kind != KIND:
        return _KINDS.get(entry.kind)
    if entry.body.get("after") != _S.PLANNED.value:
        return _MOVES.get(entry.body["after"])
    removal = is_removal(asked.get("dialect", ""), asked.get("shape", ()))
    return _Meaning(DELETE_SESSION if removal else DELETE_RUNS, _Activity.DELETE)


def _actor(entry: LedgerEntry, asked: Mapping[str, Any]) -> str | None:
    """Who did it: nobody, where the server went on by itself."""
    by = entry.body.get("by")
    if by is None and entry.kind == KIND and entry.body.get("after") == _S.PLANNED.value:
        by = asked.get("requested_by")
    return by if isinstance(by, str) else None


def _resources(entry: LedgerEntry, facts: Facts) -> list[str]:
    """What it was done to: the deletion, hold or transfer, then the projects by UUID."""
    found = [] if entry.deletion_id is None else [entry.deletion_id]
    numbers = facts.asked.get("project_ids", ())
    if entry.kind == TRANSFER_KIND:
        numbers = (entry.body["from_project_id"], entry.body["to_project_id"])
    return found + [uuid_text(facts.projects[number]) for number in numbers if number in facts.projects]


def _original(entry: LedgerEntry, meaning: _Meaning, facts: Facts, by: str | None, ids: list[str]) -> Json:
    return {
        "id": entry.entry_hash.hex(),
        "operation_name": meaning.operation,
        "operation_succeeded": meaning.status is _Status.SUCCESS,
        "request_time": render_time(entry.at_ns),
        "api_key_id": by,
        "user_id": None,
        "ls_user_id": None,
        "organization_id": facts.workspace,
        "workspace_id": facts.workspace,
        "enrichments": {
            "request_method": None,
            "request_path": None,
            "client_host": None,
            "client_port": None,
            "x_forwarded_for": None,
            "response_status_code": None,
            "resource_ids": ids,
        },
    }


def _own(entry: LedgerEntry, asked: Mapping[str, Any]) -> Json:
    """What the ledger knows beyond the vendor's form."""
    told: Json = {"ledger_seq": entry.seq, "leaf_hash": entry.entry_hash.hex(), "kind": entry.kind}
    if entry.kind != KIND:
        return told
    counts = {**asked, **entry.body}
    is_verified = entry.body["after"] == _S.VERIFIED.value
    return told | {
        "deletion_id": entry.deletion_id,
        "dialect": asked.get("dialect"),
        "requested_by": asked.get("requested_by"),
        "state": entry.body["after"],
        "problem": entry.body.get("problem"),
        "scope": list(asked.get("shape", ())),
        "traces": {name: counts.get(name) for name in _COUNTS},
        "status_url": f"/v1/deletions/{entry.deletion_id}",
        "receipt_url": f"/v1/deletions/{entry.deletion_id}/receipt" if is_verified else None,
    }
