"""The shapes of native bodies and answers as JSON Schema, each with an example that a test holds to its shape."""

from __future__ import annotations

from typing import Any

from clearspan.api.native.annotations import VALUES_MAX
from clearspan.api.native.requests import IDS_MAX, Wait
from clearspan.deletion.annotations import WORDS
from clearspan.deletion.state import DeletionState
from clearspan.query.fields import allowed_names
from clearspan.query.operators import SPELLINGS_TOLD
from clearspan.store.port import DeletionKind
from clearspan.store.span_deletion import SPANS_MAX

Json = dict[str, Any]

TEXT: Json = {"type": "string"}
MAYBE_TEXT: Json = {"type": ["string", "null"]}
TIME: Json = {"type": "string", "format": "date-time"}
MAYBE_TIME: Json = {"type": ["string", "null"], "format": "date-time"}
COUNT: Json = {"type": "integer", "minimum": 0}
MAYBE_COUNT: Json = {"type": ["integer", "null"], "minimum": 0}
FLAG: Json = {"type": "boolean"}
HASH: Json = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
STATE: Json = {"type": "string", "enum": [state.value for state in DeletionState]}


def closed(properties: Json, *, optional: tuple[str, ...] = (), text: str = "") -> Json:
    """An object with exactly these members, all of them but the optional ones."""
    made: Json = {"type": "object", "properties": properties, "additionalProperties": False}
    made["required"] = [name for name in properties if name not in optional]
    return made | ({"description": text} if text else {})


def chosen(properties: Json, *required: str) -> Json:
    """A body: members are left out unless required."""
    return {"type": "object", "properties": properties, "additionalProperties": False, "required": list(required)}


def list_of(items: Json) -> Json:
    """A JSON array."""
    return {"type": "array", "items": items}


def map_of(values: Json, text: str = "") -> Json:
    """An object with any keys."""
    return {"type": "object", "additionalProperties": values} | ({"description": text} if text else {})


def page_of(items: Json) -> Json:
    """A list's answer; `next_cursor` goes into `cursor`, and is null on the last page."""
    return closed({"data": list_of(items), "next_cursor": MAYBE_TEXT})


def told(schema: Json, text: str) -> Json:
    """A shape with a description."""
    return schema | {"description": text}


PROBLEM = closed(
    {
        "type": told(TEXT, "`urn:clearspan:problem:` and the code."),
        "title": told(TEXT, "The code in words."),
        "status": {"type": "integer"},
        "detail": told(TEXT, "One sentence about this request."),
        "code": told(TEXT, "A stable name."),
        "fields": told(list_of(TEXT), "The keys of the request that it is about."),
    }
)

_FILTERS: Json = {
    "description": "Conditions by field; all must hold unless `operator` is OR. `{field: {operator, value}}`, several "
    "on one field as a list, groups as `{label: {connector, filter_params}}`, or a list of `{field, operator, value}`. "
    f"Fields: {', '.join(allowed_names())}. Operators: {SPELLINGS_TOLD}.",
    "oneOf": [{"type": "object"}, {"type": "array", "items": {"type": "object"}}],
}
_WHERE: Json = {
    "filters": _FILTERS,
    "operator": {"type": "string", "enum": ["AND", "OR"]},
    "trace_ids": {"type": "array", "items": TEXT, "minItems": 1, "maxItems": IDS_MAX},
    "project": told(TEXT, "Name of one project; every project that the key may touch, if absent."),
    "environment": told(TEXT, "Only traces of this environment."),
    "start_time": told(TIME, "Traces that started at or after this."),
    "end_time": told(TIME, "Traces that started before this."),
}
_VALUES: Json = {"oneOf": [TEXT, {"type": "array", "items": TEXT, "minItems": 1, "maxItems": VALUES_MAX}]}
_ANNOTATIONS: Json = told(
    chosen({word: _VALUES for word in WORDS}),
    "Annotations by themselves, without their traces; every condition must hold, and at least one is needed. The "
    "window is on their creation. `ids` name them, and need no window.",
)
_REQUEST: Json = {
    **_WHERE,
    "span_ids": told(
        {"type": "array", "items": TEXT, "minItems": 1, "maxItems": SPANS_MAX},
        "Spans by themselves, not their traces: by their own ids, every copy that the key may touch, or TRACE/SPAN.",
    ),
    "annotations": _ANNOTATIONS,
    "delete_all": told(FLAG, "Say true to bound a filter by no window at all."),
    "expected_count": told(COUNT, "Delete nothing unless exactly so many traces would go, copies included."),
    "leave_copies": told(FLAG, "Say true to leave traces, items and results that hold copies; they are only counted."),
    "reason": told(TEXT, "Why; kept with the data, and erased with it."),
    "not_before": told(
        TIME,
        "Hide at once, purge not before this time: until then it can be cancelled. At most the setting "
        "not_before_days_max ahead (366 days), else 422 `not_before_too_late`.",
    ),
}
PREVIEW_BODY = chosen(_REQUEST)
CREATE_BODY = chosen(
    {
        **_REQUEST,
        "plan_token": told(TEXT, "Of a preview: exactly what it listed. In place of everything that selects."),
        "idempotency_key": told(TEXT, "As the header Idempotency-Key: a repeat gets the first one's answer."),
        "wait": {
            "type": "string",
            "enum": [word.value for word in Wait],
            "default": Wait.HIDDEN.value,
            "description": "What to wait for before the answer. hidden: until no read returns the traces. none: the "
            "same, for nothing is durable before that and so nothing is answered. verified: for the proof as well, up "
            "to the setting delete_wait_s.",
        },
    }
)
REASON_BODY = chosen({"reason": TEXT})
LIFT_BODY = chosen({"project": TEXT, "trace_id": TEXT, "reason": TEXT}, "trace_id", "reason")
HOLD_BODY = chosen(
    {**_WHERE, "everything": told(FLAG, "Keep all within project, environment and window."), "reason": TEXT}, "reason"
)

KIND: Json = {"type": "string", "enum": [kind.value for kind in DeletionKind], "description": "What is counted."}
WINDOW = closed(
    {"start_time": MAYBE_TIME, "end_time": MAYBE_TIME, "source": {"type": "string", "enum": ["default", "request"]}}
)
_OUTCOMES = closed(
    {
        "matched": COUNT,
        "hidden": told(MAYBE_COUNT, "Gone from every read."),
        "already_absent": told(MAYBE_COUNT, "Taken by another deletion first."),
        "no_longer_matching": told(MAYBE_COUNT, "Changed meanwhile, and left alone."),
        "held": told(COUNT, "Kept by holds; the child deletion's."),
        "failed": told(COUNT, "Hidden, but something of them is left."),
    },
    text="Traces, or annotations: see `kind`. matched is the sum of the others.",
)
COPIES = closed(
    {
        "taken": told(COUNT, "How many of the matched traces are there because they hold copies of the others."),
        "not_covered": told(COUNT, "How many more hold copies and stay: beyond the key's reach, or left on request."),
        "detached": told(COUNT, "How many versions of dataset items stay, as their dataset's on_source_deleted says."),
        "redacted_items": told(COUNT, "How many dataset items are replaced by empty ones, as their dataset says."),
        "of_trace": told(COUNT, "How many name the whole trace of a matched span, or are that trace, and stay."),
    },
    text="Traces of evaluators that name a run of a matched trace, or a matched span, as target_run_id or "
    "reference_run_id, items of datasets that were made from one, and results of experiments with such items.",
)
_TARGET = closed(
    {
        "planned": told(MAYBE_COUNT, "Null: not counted beforehand."),
        "hidden": MAYBE_COUNT,
        "already_absent": MAYBE_COUNT,
        "held": MAYBE_COUNT,
        "purged": MAYBE_COUNT,
        "failed": MAYBE_COUNT,
        "remaining": MAYBE_COUNT,
    },
    text="Rows. Of hidden, already absent and held traces the rows are counted apart only where that is all or none of "
    "what was planned; else null.",
)
_LINKS = map_of(TEXT, "Where to go from here.")

DELETION = closed(
    {
        "id": TEXT,
        "state": STATE,
        "problem": told(MAYBE_TEXT, "Why it is blocked, failed or cancelled: a code."),
        "alarm": told(MAYBE_TEXT, "Why somebody should look at it; null: it goes as it should."),
        "requested_by": told(TEXT, "Public id of a key."),
        "dialect": TEXT,
        "reason": told(MAYBE_TEXT, "Null once erased."),
        "projects": list_of(TEXT),
        "scope": told(list_of(TEXT), "field:operator:number of values, never a value."),
        "scope_hash": told(HASH, "Salted commitment to the exact request."),
        "manifest_root": told(HASH, "Salted commitment to the traces that were planned."),
        "effective_window": WINDOW,
        "kind": KIND,
        "traces": _OUTCOMES,
        "copies": COPIES,
        "counts": map_of(_TARGET, "By target."),
        "progress": {"type": "number", "minimum": 0, "maximum": 1},
        "eta_s": {"type": ["number", "null"]},
        "created_at": MAYBE_TIME,
        "not_before": MAYBE_TIME,
        "times": map_of(MAYBE_TIME, "When each state was last entered."),
        "late_refused": told(COUNT, "Late spans and log records that its tombstones refused."),
        "waits_for": {"type": ["string", "null"], "enum": ["held", "not_before", None]},
        "blocked_by": {
            "type": ["array", "null"],
            "items": TEXT,
            "description": "Holds that keep what it waits for; null where that is more than 100,000 traces.",
        },
        "parent_id": told(MAYBE_TEXT, "The deletion whose held remainder this one is."),
        "child_id": told(MAYBE_TEXT, "The deletion of what holds kept of this one."),
        "follow_up_id": told(MAYBE_TEXT, "The deletion of copies that were made after this one was planned."),
        "receipt_url": MAYBE_TEXT,
        "links": _LINKS,
    }
)
_SAMPLE = closed(
    {
        "trace_id": TEXT,
        "project": MAYBE_TEXT,
        "name": TEXT,
        "start_time": MAYBE_TIME,
        "span_count": COUNT,
        "customer_identifier": MAYBE_TEXT,
        "environment": MAYBE_TEXT,
    }
)
_ANNOTATION_SAMPLE = closed(
    {
        "id": TEXT,
        "project": MAYBE_TEXT,
        "target": TEXT,
        "name": TEXT,
        "identifier": TEXT,
        "annotator_kind": TEXT,
        "created_at": MAYBE_TIME,
        "trace_id": MAYBE_TEXT,
        "span_id": MAYBE_TEXT,
        "session_id": MAYBE_TEXT,
    }
)
PREVIEW = closed(
    {
        "plan_token": told(TEXT, "Shown once. For the same key only, once, until it expires."),
        "expires_at": TIME,
        "effective_window": WINDOW,
        "projects": list_of(TEXT),
        "kind": KIND,
        "traces": closed({"matched": COUNT, "held": COUNT}),
        "copies": COPIES,
        "counts": map_of(closed({"planned": COUNT}), "Rows by target."),
        "holds": list_of(closed({"id": TEXT, "traces": COUNT})),
        "by_day": map_of(COUNT, "UTC day of the start → traces."),
        "by_project": map_of(COUNT),
        "samples": {
            "type": ["array", "null"],
            "items": _SAMPLE,
            "description": "At most 20; null without the scope `read`.",
        },
        "annotation_samples": {
            "type": ["array", "null"],
            "items": _ANNOTATION_SAMPLE,
            "description": "The same of a deletion of annotations.",
        },
        "manifest_root": HASH,
        "links": _LINKS,
    }
)
HOLD = closed(
    {
        "id": TEXT,
        "state": {"type": "string", "enum": ["active", "released"]},
        "projects": list_of(TEXT),
        "environment": MAYBE_TEXT,
        "scope": {"type": ["array", "null"], "items": TEXT},
        "trace_ids": {"type": ["array", "null"], "items": TEXT},
        "window": {"oneOf": [WINDOW, {"type": "null"}]},
        "reason": told(MAYBE_TEXT, "Erased on release."),
        "created_at": TIME,
        "created_by": TEXT,
        "released_at": MAYBE_TIME,
        "links": _LINKS,
    }
)
NEW_HOLD = closed(
    {
        **HOLD["properties"],
        "traces": closed(
            {
                "protected": told(COUNT, "Visible traces that it keeps now."),
                "hidden_kept": told(COUNT, "Traces that a deletion has hidden and will not purge now."),
            }
        ),
    }
)
RECEIPT = closed(
    {
        "id": TEXT,
        "receipt": told(TEXT, "Compact JWS, Ed25519. This is what proves."),
        "payload": told({"type": "object"}, "The same, readable; see docs/receipts.md."),
    }
)
MEMBERSHIP = closed(
    {
        "project_id": COUNT,
        "trace_id": TEXT,
        "salt": told(TEXT, "Of this trace alone."),
        "leaf_index": COUNT,
        "leaf_count": COUNT,
        "path": list_of(HASH),
    }
)
TOMBSTONE = closed({"key": told(TEXT, "Keyed hash, hex.")})
LIFTED = closed({"lifted": FLAG, "deletion_id": TEXT, "links": _LINKS})
ENTRY = closed(
    {
        "seq": COUNT,
        "leaf_hash": HASH,
        "text": told(MAYBE_TEXT, "What was hashed; null for entries of others."),
        "entry": {
            "oneOf": [
                closed(
                    {
                        "at": MAYBE_TIME,
                        "kind": TEXT,
                        "deletion_id": MAYBE_TEXT,
                        "step": TEXT,
                        "body": {"type": "object"},
                    }
                ),
                {"type": "null"},
            ]
        },
    }
)
HEAD = closed({"head": told(TEXT, "Compact JWS, Ed25519."), "instance": TEXT, "size": COUNT, "root": HASH, "at": TIME})
INCLUSION = closed({"index": COUNT, "size": COUNT, "leaf_hash": HASH, "root": HASH, "path": list_of(HASH)})
CONSISTENCY = closed({"old_size": COUNT, "size": COUNT, "path": list_of(HASH)})
KEYS = closed(
    {
        "keys": list_of(
            {
                "type": "object",
                "properties": {name: TEXT for name in ("kty", "crv", "x", "kid", "alg", "use")},
                "additionalProperties": False,
                "required": ["kty", "crv", "x", "kid"],
            }
        ),
        "validity": map_of(
            closed({"created_at": TIME, "retired_at": told(MAYBE_TIME, "Null: it signs now.")}), "By key id."
        ),
    }
)
ERASED = closed({"seq": COUNT, "erased": told(FLAG, "False: it was erased before.")})
