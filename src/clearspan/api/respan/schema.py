"""What the API's description says of the Respan routes: parameters, bodies and answers, as OpenAPI objects."""

from __future__ import annotations

from typing import Any

from clearspan.api.respan.params import DEFAULT_SORT
from clearspan.query.fields import allowed_names
from clearspan.query.operators import SPELLINGS_TOLD
from clearspan.query.page import PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX, SORTABLE

Json = dict[str, Any]

_TEXT: Json = {"type": ["string", "null"]}
_COUNT: Json = {"type": ["integer", "null"]}
_NUMBER: Json = {"type": ["number", "null"]}
_TIME: Json = {"type": "string", "format": "date-time"}


def _object(properties: Json, required: tuple[str, ...] = ()) -> Json:
    return {"type": "object", "properties": properties, **({"required": list(required)} if required else {})}


def _content(schema: Json) -> Json:
    return {"content": {"application/json": {"schema": schema}}}


def _query(name: str, schema: Json, text: str) -> Json:
    return {"name": name, "in": "query", "required": False, "schema": schema, "description": text}


def _path(name: str) -> Json:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


ERROR: Json = _object(
    {
        "detail": {"type": "string"},
        "error": {"type": "string", "description": "The same sentence as `detail`."},
        "code": {"type": "string", "description": "A stable name."},
    },
    ("detail", "error", "code"),
)

_ERRORS: dict[str, str] = {
    "400": "Something in the request is wrong; the keys it is about are named. Nothing was done.",
    "401": "No API key, or one that is unknown, revoked or expired.",
    "403": "The key lacks the scope, or belongs to another environment.",
    "404": "Nothing is there under that id.",
    "409": "A hold keeps the trace, or the idempotency key stands for another request. Nothing was deleted.",
    "422": "A guard refused: too many matches, an implicit window, the key's policy. Nothing was deleted.",
    "503": "The server cannot take more just now; see Retry-After.",
}


def _responses(success: Json, *errors: str) -> Json:
    out: Json = {"200": {"description": "Success.", **_content(success)}}
    for status in errors:
        out[status] = {"description": _ERRORS[status], **_content(ERROR)}
    return out


_TRACE: Json = {
    "id": {"type": "string"},
    "trace_unique_id": {"type": "string"},
    **{
        name: _TEXT
        for name in (
            "root_span_unique_id", "unique_organization_id", "organization_id", "organization_name",
            "organization_key_id", "environment", "customer_identifier", "name", "input", "output",
            "trace_group_identifier", "session_identifier", "model", "storage_object_key",
        )
    },
    "start_time": _TIME,
    "end_time": _TIME,
    "duration": {"type": "number", "description": "Seconds."},
    **{name: {"type": "integer"} for name in ("span_count", "llm_call_count", "error_count")},
    "total_cost": {"type": ["number", "null"], "description": "US dollars; null: unknown."},
    **{name: _COUNT for name in ("total_prompt_tokens", "total_completion_tokens", "total_tokens")},
    "metadata": {"type": "object", "additionalProperties": {"type": "string"}},
}  # fmt: skip

_NODE: Json = _object(
    {
        **{
            name: _TEXT
            for name in (
                "id", "unique_id", "span_unique_id", "span_name", "span_parent_id", "trace_unique_id",
                "customer_identifier", "thread_identifier", "session_identifier", "organization_key_id",
                "organization_id", "environment", "log_type", "model", "status", "input", "output", "span_links",
                "storage_object_key", "span_workflow_name",
            )
        },
        **{name: _TIME for name in ("timestamp", "start_time", "end_time")},
        **{name: _COUNT for name in ("prompt_tokens", "completion_tokens", "total_request_tokens", "status_code")},
        "cost": _NUMBER,
        "latency": {"type": "number", "description": "Seconds."},
        "metadata": {"type": "object", "additionalProperties": {"type": "string"}},
        "children": {"type": "array", "items": {"type": "object"}, "description": "Nodes of this same shape."},
    }
)  # fmt: skip

_DETAIL = _object({**_TRACE, "span_tree": {"type": "array", "items": _NODE}})

_PAGE = _object(
    {
        "count": {"type": "integer", "description": "All matches, not only this page's."},
        "results": {"type": "array", "items": _object(_TRACE)},
        "next": _TEXT,
        "previous": _TEXT,
        "message": {"type": "string", "description": "Present when something about the answer should be known."},
    },
    ("count", "results", "next", "previous"),
)

_DELETED = _object(
    {
        "success_count": {"type": "integer"},
        "error_count": {"type": "integer"},
        "errors": {
            "type": "array",
            "items": _object({"index": {"type": "integer"}, "error": {"type": "string"}}),
        },
        "deleted_count": {"type": "integer", "description": "Traces, not spans."},
        "message": {"type": "string"},
        "deletion_id": {"type": "string"},
        "state": {"type": "string", "description": "`verified`: erased and recounted; `hidden`: being erased."},
    },
    ("success_count", "error_count", "errors", "deleted_count", "message"),
)


def _filters(*, bulk_delete: bool) -> Json:
    names = ", ".join(f"`{name}`" for name in allowed_names(bulk_delete=bulk_delete))
    return {
        "description": "Conditions by field; all must hold. `{field: {operator, value}}`, several conditions on one "
        "field as a list, groups as `{label: {connector: AND|OR, filter_params: {…}}}`, or a list of "
        f"`{{field, operator, value}}`. Fields: {names}. Operators: {SPELLINGS_TOLD}.",
        "oneOf": [{"type": "object"}, {"type": "array", "items": {"type": "object"}}],
    }


def _body(*, bulk_delete: bool, is_required: bool) -> Json:
    schema = _object(
        {
            "filters": _filters(bulk_delete=bulk_delete),
            "operator": {"type": "string", "enum": ["AND", "OR"], "description": "Joins the fields; AND if absent."},
        },
        ("filters",) if is_required else (),
    )
    return {"required": is_required, **_content(schema)}


_WINDOW = [
    _query("start_time", _TIME, "Traces that started at or after this; an hour before end_time if absent."),
    _query("end_time", _TIME, "Traces that started before this; now if absent."),
]
_ENVIRONMENT = [_query("environment", {"type": "string"}, "Only traces of this environment.")]
_TRACE_ID = [_path("trace_unique_id")]
_DELETE_HEADERS = [
    {"name": name, "in": "header", "required": False, "schema": {"type": "string"}, "description": text}
    for name, text in (
        ("Idempotency-Key", "A repeat under the same key gets the first deletion's answer."),
        ("Clearspan-Reason", "Why; some keys must say it. Erased with the traces."),
    )
]

LIST: Json = {
    "parameters": [
        _query("page", {"type": "integer", "minimum": 1, "default": 1}, "Past the end: an empty page."),
        _query(
            "page_size",
            {"type": "integer", "minimum": 1, "maximum": PAGE_SIZE_MAX, "default": PAGE_SIZE_DEFAULT},
            "Traces on a page.",
        ),
        _query(
            "sort_by",
            {"type": "string", "default": DEFAULT_SORT},
            "One of these, with `-` before it for descending: " + ", ".join(SORTABLE) + ".",
        ),
        *_WINDOW,
        *_ENVIRONMENT,
    ],
    "requestBody": _body(bulk_delete=False, is_required=False),
    "responses": _responses(_PAGE, "400", "401", "403"),
}
BULK_DELETE: Json = {
    "parameters": [*_WINDOW, *_ENVIRONMENT, *_DELETE_HEADERS],
    "requestBody": _body(bulk_delete=True, is_required=True),
    "responses": _responses(_DELETED, "400", "401", "403", "409", "422", "503"),
}
RETRIEVE: Json = {"parameters": _TRACE_ID, "responses": _responses(_DETAIL, "401", "403", "404")}
DELETE: Json = {
    "parameters": [*_TRACE_ID, *_WINDOW, *_ENVIRONMENT, *_DELETE_HEADERS],
    "responses": _responses(_DELETED, "400", "401", "403", "409", "422", "503"),
}
_SHARE = _object({"trace_unique_id": {"type": "string"}, "is_public": {"type": "boolean"}})
SHARE: Json = {
    "parameters": _TRACE_ID,
    "requestBody": {"required": True, **_content(_object({"is_public": {"type": "boolean"}}, ("is_public",)))},
    "responses": _responses(_SHARE, "400", "401", "403", "404"),
}
PUBLIC: Json = {
    "parameters": [_path("unique_organization_id"), *_TRACE_ID],
    "responses": _responses(_DETAIL, "404"),
}
SUMMARY: Json = {
    "parameters": [*_WINDOW, *_ENVIRONMENT],
    "requestBody": _body(bulk_delete=False, is_required=False),
    "responses": _responses(
        _object(
            {
                "total_cost": {"type": "number"},
                "total_tokens": {"type": "integer"},
                "total_traces": {"type": "integer"},
                "average_latency": {"type": "number", "description": "Seconds."},
                "error_count": {"type": "integer"},
            }
        ),
        "400",
        "401",
    ),
}
_SPANS: Json = {
    "type": "array",
    "items": _object(
        {"trace_unique_id": {"type": "string"}, "span_unique_id": {"type": "string"}},
        ("trace_unique_id", "span_unique_id"),
    ),
}
INGEST: Json = {
    "requestBody": {"required": True, **_content({"oneOf": [_SPANS, _object({"data": _SPANS}, ("data",))]})},
    "responses": _responses(_object({"message": {"type": "string"}}), "400", "401", "403", "503"),
}
