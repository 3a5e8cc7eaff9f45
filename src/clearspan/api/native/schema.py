"""What the API's description says of the native routes: parameters, bodies, answers, errors, and examples of bodies."""

from __future__ import annotations

from typing import Any, Final

from clearspan.api.native import shapes
from clearspan.api.native.inputs import LIMIT_DEFAULT, LIMIT_MAX
from clearspan.api.native.problem import MEDIA_TYPE

Json = dict[str, Any]

JSON: Final = "application/json"

_ERRORS: Final = {
    "400": "Something in the request is wrong; `fields` names it. Nothing was done.",
    "401": "No API key, or one that is unknown, revoked or expired.",
    "403": "The key lacks the scope, or belongs to another environment.",
    "404": "There is no such thing within the key's bounds.",
    "409": "The state of things does not allow it; `code` says what. Nothing was deleted.",
    "413": "The body is larger than 4 MiB, as sent or unpacked. Nothing was done.",
    "415": "The body is not JSON, or is packed by other means than gzip, deflate or zstd. Nothing was done.",
    "422": "A guard refused the deletion: no window, too many matches, the key's policy. Nothing was deleted.",
    "423": "A hold keeps every trace that matches. Nothing was deleted.",
    "503": "The server cannot take more just now; see Retry-After.",
}
_STATE_HEADERS: Final = {
    name: {"schema": {"type": "string"}, "description": text}
    for name, text in (
        ("Clearspan-Deletion-Id", "Id of the deletion."),
        ("Clearspan-Deletion-State", "Its state as this answer was made."),
        ("Clearspan-Effective-Window", "start/end; source=request|default. `..`: open."),
        ("Location", "Where to look at it."),
    )
}


def answers(
    status: str, text: str, schema: Json, *errors: str, example: Any = None, headers: Json | None = None
) -> Json:
    """A success with its shape, and the errors that may come instead: always 400, 401 and 403."""
    content: Json = {"schema": schema}
    if example is not None:
        content["example"] = example
    answer: Json = {"description": text, "content": {JSON: content}}
    if headers:
        answer["headers"] = headers
    return {status: answer} | _problems(*errors)


def _problems(*statuses: str) -> Json:
    return {
        status: {"description": _ERRORS[status], "content": {MEDIA_TYPE: {"schema": shapes.PROBLEM}}}
        for status in ("400", "401", "403", *statuses)
    }


def _body(schema: Json, examples: Json, *, required: bool = True) -> Json:
    told = {name: {"value": value} for name, value in examples.items()}
    return {"required": required, "content": {JSON: {"schema": schema, "examples": told}}}


def query_parameter(name: str, schema: Json, text: str, *, required: bool = False) -> Json:
    """A parameter of the query string."""
    return {"name": name, "in": "query", "required": required, "schema": schema, "description": text}


def _path(name: str) -> Json:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


_ID: Final = [_path("deletion_id")]
PAGE: Final = [
    query_parameter(
        "limit", {"type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": LIMIT_DEFAULT}, "Rows of a page."
    ),
    query_parameter("cursor", {"type": "string"}, "`next_cursor` of the page before."),
]
_SIZE: Final = query_parameter("size", {"type": "integer", "minimum": 0}, "Of the tree; all entries, if absent.")

EXAMPLE_IDS: Final = ["trace_abc123", "trace_def456"]
EXAMPLE_WINDOW: Final = {"start_time": "2025-12-01T00:00:00Z", "end_time": "2026-02-01T00:00:00Z"}
_SCORES: Final = {"target": "span", "name": ["quality", "toxicity"], "annotator_kind": "LLM"}
_BY_CUSTOMER: Final = {"customer_identifier": {"operator": "=", "value": ["user@example.com"]}}

PREVIEW: Json = {
    "requestBody": _body(
        shapes.PREVIEW_BODY,
        {
            "customer": {"filters": _BY_CUSTOMER, **EXAMPLE_WINDOW, "reason": "erasure request 4711"},
            "ids": {"trace_ids": EXAMPLE_IDS},
            "annotations": {"annotations": _SCORES, **EXAMPLE_WINDOW, "project": "default"},
        },
    ),
    "responses": answers(
        "200",
        "What would be deleted; nothing was.",
        shapes.PREVIEW,
        "404", "409", "422", "503",
        example={
            "plan_token": "plan_9vN2uQh3d8rT5yXk1mZbW7cPfL0sAeGiJoUqRtYwE4",
            "expires_at": "2026-01-31T12:15:00Z",
            "effective_window": {
                "start_time": "2026-01-01T00:00:00Z", "end_time": "2026-02-01T00:00:00Z", "source": "request"
            },
            "projects": ["default"],
            "kind": "traces",
            "traces": {"matched": 42, "held": 2},
            "copies": {"taken": 0, "not_covered": 0, "detached": 0, "redacted_items": 0, "of_trace": 0},
            "counts": {"trace": {"planned": 42}, "span": {"planned": 391}},
            "holds": [{"id": "hold_5f0c2d", "traces": 2}],
            "by_day": {"2026-01-30": 40, "2026-01-31": 2},
            "by_project": {"default": 42},
            "samples": [
                {
                    "trace_id": "trace_abc123", "project": "default", "name": "answer",
                    "start_time": "2026-01-30T08:00:00Z", "span_count": 9,
                    "customer_identifier": "user@example.com", "environment": "production",
                }
            ],
            "annotation_samples": [],
            "manifest_root": "5d" * 32,
            "links": {"delete": "/v1/deletions"},
        },
    ),
}  # fmt: skip

EXAMPLE_DELETION: Json = {
    "id": "del_3f9c6a",
    "state": "verified",
    "problem": None,
    "alarm": None,
    "requested_by": "key_01ab",
    "dialect": "native",
    "reason": None,
    "projects": ["default"],
    "scope": ["customer_identifier:equals:1"],
    "scope_hash": "a1" * 32,
    "manifest_root": "5d" * 32,
    "effective_window": {"start_time": "2026-01-01T00:00:00Z", "end_time": "2026-02-01T00:00:00Z", "source": "request"},
    "kind": "traces",
    "traces": {
        "matched": 42, "hidden": 40, "already_absent": 0, "no_longer_matching": 0, "held": 2, "failed": 0,
    },
    "copies": {"taken": 0, "not_covered": 0, "detached": 0, "redacted_items": 0, "of_trace": 0},
    "counts": {
        "trace": {
            "planned": 42, "hidden": 40, "already_absent": 0, "held": 2, "purged": 40, "failed": 0, "remaining": 0,
        },
        "span": {
            "planned": 391, "hidden": None, "already_absent": 0, "held": None, "purged": 372, "failed": 0,
            "remaining": 0,
        },
    },
    "progress": 1.0,
    "eta_s": 0.0,
    "created_at": "2026-01-31T12:00:00Z",
    "not_before": None,
    "times": {
        "planned": "2026-01-31T12:00:00Z", "hidden": "2026-01-31T12:00:00.050000Z",
        "purged": "2026-01-31T12:00:00.900000Z", "verified": "2026-01-31T12:00:01Z",
    },
    "late_refused": 3,
    "waits_for": None,
    "blocked_by": [],
    "parent_id": None,
    "child_id": "del_77e1b0",
    "follow_up_id": None,
    "receipt_url": "/v1/deletions/del_3f9c6a/receipt",
    "links": {"self": "/v1/deletions/del_3f9c6a", "receipt": "/v1/deletions/del_3f9c6a/receipt"},
}  # fmt: skip


def _deletion(status: str, text: str, *errors: str) -> Json:
    return answers(status, text, shapes.DELETION, *errors, example=EXAMPLE_DELETION, headers=dict(_STATE_HEADERS))


CREATE: Json = {
    "parameters": [
        {
            "name": "Idempotency-Key",
            "in": "header",
            "required": False,
            "schema": {"type": "string"},
            "description": "A repeat under the same key gets the first deletion; another request under it, a 409.",
        }
    ],
    "requestBody": _body(
        shapes.CREATE_BODY,
        {
            "customer": {"filters": _BY_CUSTOMER, **EXAMPLE_WINDOW, "expected_count": 1, "wait": "verified"},
            "ids": {"trace_ids": EXAMPLE_IDS, "reason": "erasure request 4711"},
            "annotations": {"annotations": _SCORES, **EXAMPLE_WINDOW, "project": "default"},
            "plan": {"plan_token": "plan_9vN2uQh3d8rT5yXk1mZbW7cPfL0sAeGiJoUqRtYwE4", "wait": "verified"},
        },
    ),
    "responses": _deletion("202", "Hidden, and on its way to be erased.", "404", "409", "422", "423", "503"),
}
LIST: Json = {
    "parameters": [
        query_parameter("state", {"type": "string"}, "One state, or several with commas."),
        query_parameter("project", {"type": "string"}, "Those that touch this project."),
        query_parameter("requested_by", {"type": "string"}, "Public id of a key."),
        query_parameter("start_time", shapes.TIME, "Asked for at or after this."),
        query_parameter("end_time", shapes.TIME, "Asked for before this."),
        *PAGE,
    ],
    "responses": answers(
        "200",
        "A page, newest first.",
        shapes.page_of(shapes.DELETION),
        "404",
        example={"data": [EXAMPLE_DELETION], "next_cursor": None},
    ),
}
GET: Json = {"parameters": _ID, "responses": _deletion("200", "The deletion as it is.", "404")}
CANCEL: Json = {
    "parameters": _ID,
    "requestBody": _body(shapes.REASON_BODY, {"reason": {"reason": "wrong customer"}}, required=False),
    "responses": _deletion("200", "Cancelled: its traces are as before.", "404", "409"),
}
RETRY: Json = {
    "parameters": _ID,
    "requestBody": _body(shapes.chosen({}), {"nothing": {}}, required=False),
    "responses": _deletion("202", "Taken up again.", "404", "409"),
}
EVENTS: Json = {
    "parameters": [
        *_ID,
        {
            "name": "Last-Event-ID",
            "in": "header",
            "required": False,
            "schema": {"type": "string"},
            "description": "The last event seen: only what came after it is sent.",
        },
    ],
    "responses": {
        "200": {
            "description": "Events `state`, `progress` and, at last, `end`; comments keep the connection open.",
            "content": {
                "text/event-stream": {
                    "schema": {"type": "string"},
                    "example": 'event: state\nid: 2.1\ndata: {"id":"del_3f9c6a","state":"purged"}\n\n',
                }
            },
        },
        "204": {"description": "The deletion has ended, and the client has seen its last event."},
        **_problems("404", "503"),
    },
}
RECEIPT: Json = {
    "parameters": _ID,
    "responses": answers(
        "200",
        "The signed receipt.",
        shapes.RECEIPT,
        "404",
        "409",
        example={"id": "del_3f9c6a", "receipt": "eyJhbGciOi….eyJjb3VudHMi….c2lnbmF0dXJl", "payload": {}},
    ),
}
RECEIPT["responses"]["200"]["content"]["application/jose"] = {"schema": {"type": "string"}}
MEMBERSHIP: Json = {
    "parameters": [
        *_ID,
        query_parameter("trace_id", {"type": "string"}, "The trace.", required=True),
        query_parameter("project", {"type": "string"}, "Its project; needed when the key may touch several."),
    ],
    "responses": answers(
        "200",
        "The proof.",
        shapes.MEMBERSHIP,
        "404",
        "409",
        example={
            "project_id": 1,
            "trace_id": "trace_abc123",
            "salt": "07" * 32,
            "leaf_index": 3,
            "leaf_count": 40,
            "path": ["c4" * 32, "9e" * 32],
        },
    ),
}
TOMBSTONES: Json = {
    "parameters": [*_ID, *PAGE],
    "responses": answers(
        "200",
        "A page, in order of the keys.",
        shapes.page_of(shapes.TOMBSTONE),
        "404",
        example={"data": [{"key": "0f" * 16}], "next_cursor": None},
    ),
}
LIFT: Json = {
    "requestBody": _body(
        shapes.LIFT_BODY,
        {"one": {"project": "default", "trace_id": "trace_abc123", "reason": "restored at the customer's wish"}},
    ),
    "responses": answers(
        "200",
        "Data of that trace is accepted again.",
        shapes.LIFTED,
        "404",
        "409",
        example={
            "lifted": True,
            "deletion_id": "del_3f9c6a",
            "links": {"deletion": "/v1/deletions/del_3f9c6a"},
        },
    ),
}

EXAMPLE_HOLD: Json = {
    "id": "hold_5f0c2d",
    "state": "active",
    "projects": ["default"],
    "environment": None,
    "scope": ["customer_identifier:equals:1"],
    "trace_ids": None,
    "window": {"start_time": None, "end_time": None, "source": "request"},
    "reason": "case 12 of 2026",
    "created_at": "2026-01-31T12:00:00Z",
    "created_by": "key_01ab",
    "released_at": None,
    "links": {"self": "/v1/holds/hold_5f0c2d"},
}
CREATE_HOLD: Json = {
    "requestBody": _body(
        shapes.HOLD_BODY,
        {
            "customer": {"filters": _BY_CUSTOMER, "reason": "case 12 of 2026"},
            "project": {"everything": True, "project": "default", "reason": "audit"},
        },
    ),
    "responses": answers(
        "201",
        "It counts from now on.",
        shapes.NEW_HOLD,
        "404",
        "409",
        example=EXAMPLE_HOLD | {"traces": {"protected": 12, "hidden_kept": 0}},
    ),
}
LIST_HOLDS: Json = {
    "parameters": [
        query_parameter(
            "state", {"type": "string", "enum": ["active", "released", "all"], "default": "active"}, "Which ones."
        ),
        *PAGE,
    ],
    "responses": answers(
        "200",
        "A page, oldest first.",
        shapes.page_of(shapes.HOLD),
        example={"data": [EXAMPLE_HOLD], "next_cursor": None},
    ),
}
GET_HOLD: Json = {
    "parameters": [_path("hold_id")],
    "responses": answers("200", "The hold.", shapes.HOLD, "404", example=EXAMPLE_HOLD),
}
RELEASE_HOLD: Json = {
    "parameters": [_path("hold_id")],
    "requestBody": _body(shapes.REASON_BODY, {"reason": {"reason": "case closed"}}, required=False),
    "responses": answers(
        "200",
        "Released; its plain request is erased.",
        shapes.HOLD,
        "404",
        example=EXAMPLE_HOLD
        | {
            "state": "released", "scope": None, "window": None, "reason": None, "released_at": "2026-02-01T09:00:00Z",
        },
    ),
}  # fmt: skip
ENTRIES: Json = {
    "parameters": [
        query_parameter("from", {"type": "integer", "minimum": 0, "default": 0}, "Number of the first entry."),
        query_parameter("deletion_id", {"type": "string"}, "Only entries of this deletion."),
        *PAGE,
    ],
    "responses": answers(
        "200",
        "A page, in order.",
        shapes.page_of(shapes.ENTRY),
        "404",
        example={
            "data": [
                {
                    "seq": 7,
                    "leaf_hash": "be" * 32,
                    "text": '{"at_ns":1769860800000000000,"body":{…},…}',
                    "entry": {
                        "at": "2026-01-31T12:00:00Z",
                        "kind": "deletion",
                        "deletion_id": "del_3f9c6a",
                        "step": "0.planned",
                        "body": {},
                    },
                },
                {"seq": 8, "leaf_hash": "4a" * 32, "text": None, "entry": None},
            ],
            "next_cursor": None,
        },
    ),
}
HEAD: Json = {
    "responses": answers(
        "200",
        "The head.",
        shapes.HEAD,
        example={
            "head": "eyJhbGciOi….eyJhdCI6….c2lnbmF0dXJl",
            "instance": "inst_9a3e",
            "size": 9,
            "root": "d2" * 32,
            "at": "2026-01-31T12:00:01Z",
        },
    )
}
INCLUSION: Json = {
    "parameters": [
        query_parameter("index", {"type": "integer", "minimum": 0}, "Number of the entry.", required=True),
        _SIZE,
    ],
    "responses": answers(
        "200",
        "The proof.",
        shapes.INCLUSION,
        example={"index": 0, "size": 2, "leaf_hash": "be" * 32, "root": "d2" * 32, "path": ["4a" * 32]},
    ),
}
CONSISTENCY: Json = {
    "parameters": [
        query_parameter("from", {"type": "integer", "minimum": 0}, "Size of the older tree.", required=True),
        _SIZE,
    ],
    "responses": answers(
        "200",
        "The proof.",
        shapes.CONSISTENCY,
        example={"old_size": 1, "size": 2, "path": ["4a" * 32]},
    ),
}
KEYS: Json = {
    "responses": answers(
        "200",
        "A JWK set.",
        shapes.KEYS,
        example={
            "keys": [
                {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "kid": "kPrK"}
            ],
            "validity": {"kPrK": {"created_at": "2026-01-01T00:00:00Z", "retired_at": None}},
        },
    )
}
ERASE_PRIVATE: Json = {
    "parameters": [_path("seq")],
    "responses": answers("200", "Erased.", shapes.ERASED, "404", example={"seq": 7, "erased": True}),
}

for _taking in (PREVIEW, CREATE, CANCEL, RETRY, LIFT, CREATE_HOLD, RELEASE_HOLD):
    _taking["responses"] |= _problems("413", "415")  # of every body, whatever it says
