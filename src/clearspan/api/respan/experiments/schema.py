"""What the API's description says of the experiments routes."""

from __future__ import annotations

from typing import Final

from clearspan.api.respan.schema import ERROR, Json
from clearspan.catalog.experiments import ExperimentStatus
from clearspan.experiments.definitions import NAMES
from clearspan.experiments.definitions import SORTABLE as DEFINITION_SORTS
from clearspan.experiments.exports import Format
from clearspan.experiments.histogram import BINS_DEFAULT, BINS_MAX
from clearspan.experiments.score_types import ScoreType
from clearspan.query.operators import SPELLINGS_TOLD

_TEXT: Final[Json] = {"type": ["string", "null"]}
_NUMBER: Final[Json] = {"type": ["number", "null"]}
_COUNT: Final[Json] = {"type": ["integer", "null"]}
_TIME: Final[Json] = {"type": ["string", "null"], "format": "date-time"}
_IDS: Final[Json] = {"type": "array", "items": {"type": "string"}}
_ERROR_TEXTS: Final = {
    "400": "Something in the request is wrong; the keys it is about are named. Nothing was done.",
    "401": "No API key, or one that is unknown, revoked or expired.",
    "403": "The key lacks the scope, or is bound to projects.",
    "404": "Nothing is there under that id that the key may see.",
    "409": "A hold keeps the traces, or the id is taken. Nothing was done.",
    "413": "The page is too large to send at once.",
    "422": "The key's policy refused. Nothing was deleted.",
}


def _object(properties: Json, required: tuple[str, ...] = ()) -> Json:
    return {"type": "object", "properties": properties, **({"required": list(required)} if required else {})}


def _content(schema: Json) -> Json:
    return {"content": {"application/json": {"schema": schema}}}


def _query(name: str, schema: Json, text: str, *, required: bool = False) -> Json:
    return {"name": name, "in": "query", "required": required, "schema": schema, "description": text}


def _path(name: str) -> Json:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}


def _answers(status: str, success: Json | None, *errors: str) -> Json:
    told: Json = {"description": "Success."} if success is None else {"description": "Success.", **_content(success)}
    refused = {each: {"description": _ERROR_TEXTS[each], **_content(ERROR)} for each in errors}
    return {status: told, **refused}


_STEP: Final = _object(
    {
        "type": {"type": "string", "enum": ["prompt", "completion", "eval", "condition", "wait", "duplicate"]},
        "config": {"type": "object"},
    },
    ("type", "config"),
)
_SUMMARY_FIELDS: Final[Json] = {
    "id": {"type": "string"},
    "name": {"type": "string"},
    **{name: _TEXT for name in ("description", "dataset", "dataset_id", "dataset_name")},
    "workflow_count": _COUNT,
    "status": {"type": "string", "enum": list(ExperimentStatus)},
    "progress": {"type": ["number", "null"], "description": "Percent; null: a LangSmith client runs it."},
    "created_at": {"type": "string", "format": "date-time"},
    "started_at": _TIME,
    "completed_at": _TIME,
    "tags": {"type": "array", "items": {"type": "object"}},
    "is_managed": {"type": "boolean", "description": "False: a LangSmith client runs it."},
}
_SUMMARY: Final = _object(_SUMMARY_FIELDS, ("id", "name", "status", "created_at"))
_EXPERIMENT: Final = _object(
    {
        **_SUMMARY_FIELDS,
        "workflow": {"type": "array", "items": _STEP},
        **{name: _IDS for name in ("evaluator_ids", "evaluator_slugs", "evaluator_workflow_ids")},
        "batch_size": _COUNT,
        "concurrency": _COUNT,
        "enable_tracing": {"type": "boolean"},
        **{name: _TEXT for name in ("span_workflow_name", "generation_method", "error_code", "error_message")},
        "session_id": {"type": "string", "description": "LangSmith's id of it."},
    },
    ("id", "name", "status", "created_at"),
)
_CREATE_FIELDS: Final[Json] = {
    "dataset_id": {"type": "string"},
    "workflow": {"type": "array", "items": _STEP, "description": "Old clients call it `workflows`."},
    "evaluator_ids": {**_IDS, "description": "Ids or slugs; count before evaluator_slugs."},
    "evaluator_slugs": _IDS,
    "evaluator_workflow_ids": {**_IDS, "description": "Exclude the former; each must name an evaluator."},
    "experiment_id": {"type": "string", "description": "Chosen by the client."},
    **{name: {"type": "string"} for name in ("name", "description", "generation_method")},
    "span_workflow_name": {"type": "string", "default": "workflow"},
    "enable_tracing": {"type": "boolean", "default": True},
    "batch_size": {"type": "integer", "default": 100},
    "concurrency": {"type": "integer", "default": 15},
    "tags": {"type": "array", "items": {"type": "object"}},
}
_SCORE: Final = _object(
    {
        **{name: _TEXT for name in ("evaluator_id", "evaluator_slug", "evaluator_name", "string_value", "json_value")},
        "score_value_type": {"type": "string", "enum": list(ScoreType)},
        "numerical_value": _NUMBER,
        "boolean_value": {"type": ["boolean", "null"]},
        "categorical_value": {"type": ["array", "null"], "items": {"type": "string"}},
        "avg_score": _NUMBER,
        "true_count": _COUNT,
        "false_count": _COUNT,
        "explanation": _TEXT,
    }
)
_SCORES: Final[Json] = {
    "type": "object",
    "additionalProperties": _SCORE,
    "description": "By evaluator id; by name where nobody knows the evaluator.",
}
_TRACE_FIELDS: Final[Json] = {
    "id": {"type": "string"},
    **{
        name: _TEXT
        for name in (
            "trace_unique_id", "root_span_unique_id", "environment", "customer_identifier", "name", "input", "output",
            "expected_output", "status", "error_message", "comparison_key", "model",
        )
    },
    "start_time": _TIME,
    "end_time": _TIME,
    "duration": {"type": "number", "description": "Seconds."},
    **{name: _COUNT for name in ("span_count", "llm_call_count", "error_count", "total_tokens")},
    **{name: _COUNT for name in ("total_prompt_tokens", "total_completion_tokens")},
    "total_cost": {"type": ["number", "null"], "description": "US dollars; null: unknown."},
    "metadata": {"type": "object", "additionalProperties": {"type": "string"}},
    "scores": _SCORES,
}  # fmt: skip
_TREE: Final[Json] = {"span_tree": {"type": "array", "items": {"type": "object"}}}
_JOB: Final = _object(
    {
        **{name: {"type": "string"} for name in ("message", "export_id", "status", "format", "expires_at")},
        "count": {"type": "integer"},
        "download_url": {"type": "string"},
        "download_urls": {"type": "object", "additionalProperties": {"type": "string"}},
        "status_url": {"type": "string"},
    },
    ("message", "export_id", "status", "download_url"),
)
_PROGRESS: Final = _object(
    {
        "id": {"type": "string"},
        "status": {"type": "string"},
        **{name: _COUNT for name in ("total", "done", "failed", "waiting", "running", "deleted")},
        "percent": {"type": "number"},
    }
)


def _page(item: Json) -> Json:
    return _object(
        {
            "count": {"type": "integer", "description": "All matches, not only this page's."},
            "results": {"type": "array", "items": item},
            "next": _TEXT,
            "previous": _TEXT,
            "current_filters": {"type": "object"},
        },
        ("count", "results", "next", "previous", "current_filters"),
    )


def _filters(fields: str) -> Json:
    schema = _object(
        {
            "filters": {
                "description": f"Conditions by field; all must hold. Fields: {fields}. Operators: {SPELLINGS_TOLD}.",
                "oneOf": [{"type": "object"}, {"type": "array", "items": {"type": "object"}}],
            },
            "operator": {"type": "string", "enum": ["AND", "OR"]},
            "is_exporting": {"type": "boolean"},
        }
    )
    return {"required": False, **_content(schema)}


_ID: Final = [_path("experiment_id")]
_TRACE_ID: Final = [*_ID, _path("log_id")]
_PAGING: Final = [
    _query("page", {"type": "integer", "minimum": 1, "default": 1}, "Past the end: an empty page."),
    _query("page_size", {"type": "integer", "minimum": 1, "maximum": 100, "default": 50}, "Results on a page."),
]
_WINDOW: Final = [
    _query("start_time", {"type": "string", "format": "date-time"}, "Traces that started at or after this."),
    _query("end_time", {"type": "string", "format": "date-time"}, "Traces that started before this."),
]
_FORMAT: Final = [_query("format", {"type": "string", "enum": list(Format), "default": "jsonl"}, "Of an export.")]
_OF_DEFINITIONS: Final = ", ".join(f"`{name}`" for name in sorted(NAMES))
_OF_RESULTS: Final = (
    "`status` (success, error, pending), `total_cost`, `comparison_key`, `metadata__<key>`, `scores__<evaluator>`, and "
    "every field of traces"
)


def _body(schema: Json) -> Json:
    return {"required": True, **_content(schema)}


CREATE: Final[Json] = {
    "requestBody": _body(_object(_CREATE_FIELDS, ("dataset_id", "workflow"))),
    "responses": _answers("201", _EXPERIMENT, "400", "401", "403", "404", "409"),
}
LIST: Final[Json] = {
    "parameters": [
        *_PAGING,
        _query("sort_by", {"type": "string", "default": "-created_at"}, f"One of {', '.join(DEFINITION_SORTS)}."),
    ],
    "requestBody": _filters(_OF_DEFINITIONS),
    "responses": _answers("200", _page(_SUMMARY), "400", "401", "403"),
}
LIST_ITEMS: Final[Json] = {
    "parameters": _PAGING,
    "responses": _answers("200", {"type": "array", "items": _SUMMARY}, "400", "401", "403"),
}
COUNT: Final[Json] = {
    "requestBody": _filters(_OF_DEFINITIONS),
    "responses": _answers("200", _object({"total_count": {"type": "integer"}}, ("total_count",)), "400", "401", "403"),
}
RETRIEVE: Final[Json] = {"parameters": _ID, "responses": _answers("200", _EXPERIMENT, "401", "403", "404")}
UPDATE: Final[Json] = {
    "parameters": _ID,
    "requestBody": _body(_object(_CREATE_FIELDS)),
    "responses": _answers("200", _EXPERIMENT, "400", "401", "403", "404", "409"),
}
DELETE: Final[Json] = {"parameters": _ID, "responses": _answers("204", None, "401", "403", "404", "409", "422")}
TRACES: Final[Json] = {
    "parameters": [
        *_ID,
        *_PAGING,
        _query("sort_by", {"type": "string", "default": "-start_time"}, "A field, `name`, or `scores__<evaluator>`."),
        *_WINDOW,
        _query("detail", {"type": "string", "enum": ["1", "true"]}, "With the spans of each trace."),
        _query("preview_length", {"type": "integer"}, "Characters that input and outputs are cut to."),
        _query("export", {"type": "string", "enum": ["1", "true"]}, "202 and a job instead of a page."),
        *_FORMAT,
    ],
    "requestBody": _filters(_OF_RESULTS),
    "responses": {
        **_answers("200", _page(_object({**_TRACE_FIELDS, **_TREE}, ("id",))), "400", "401", "403", "404", "413"),
        "202": {"description": "An export, ready to be fetched.", **_content(_JOB)},
    },
}
TRACE: Final[Json] = {
    "parameters": _TRACE_ID,
    "responses": _answers("200", _object({**_TRACE_FIELDS, **_TREE}, ("id",)), "401", "403", "404"),
}
RESUME: Final[Json] = {
    "parameters": _TRACE_ID,
    "requestBody": _body(
        _object({"input": {}, "output": {}, "metrics": {"type": "object"}, "metadata": {"type": "object"}},
                ("input", "output"))
    ),
    "responses": _answers(
        "200",
        _object({name: {"type": "string"} for name in ("id", "trace_unique_id", "status")}),
        "400", "401", "403", "404", "409",
    ),
}  # fmt: skip
TRACE_SUMMARY: Final[Json] = {
    "parameters": [*_ID, *_WINDOW],
    "requestBody": _filters(_OF_RESULTS),
    "responses": _answers(
        "200",
        _object(
            {
                "number_of_requests": {"type": "integer"},
                "total_cost": {"type": "number"},
                "total_tokens": {"type": "integer"},
                **{name: _COUNT for name in ("error_count", "total_prompt_tokens", "total_completion_tokens")},
                "avg_latency": {"type": ["number", "null"], "description": "Seconds."},
                "avg_tps": {"type": ["number", "null"], "description": "Completion tokens a second of the trace."},
                "avg_ttft": {"type": ["number", "null"], "description": "Seconds."},
                "scores": _SCORES,
            },
            ("number_of_requests", "total_cost", "total_tokens", "scores"),
        ),
        "400", "401", "403", "404",
    ),
}  # fmt: skip
HISTOGRAM: Final[Json] = {
    "parameters": [
        *_ID,
        _query("evaluator_id", {"type": "string"}, "Id or slug, perhaps with `:grader`.", required=True),
        _query("bins", {"type": "integer", "minimum": 1, "maximum": BINS_MAX, "default": BINS_DEFAULT}, "Of numbers."),
        *_WINDOW,
    ],
    "requestBody": _filters(_OF_RESULTS),
    "responses": _answers(
        "200",
        _object(
            {
                "evaluator_id": {"type": "string"},
                **{name: _TEXT for name in ("evaluator_slug", "evaluator_name", "score_value_type")},
                "bins": {
                    "type": "array",
                    "items": _object(
                        {
                            "lower": {"type": "number"},
                            "upper": {"type": "number"},
                            "count": {"type": "integer"},
                            "label": {"type": "string"},
                        },
                        ("lower", "upper", "count"),
                    ),
                },
                "stats": _object(
                    {**{name: {"type": "number"} for name in ("min", "max", "mean")}, "total": {"type": "integer"}},
                    ("min", "max", "mean", "total"),
                ),
                "unbinned": {"type": "integer", "description": "Scores that no bin can hold."},
            },
            ("evaluator_id", "bins", "stats"),
        ),
        "400", "401", "403", "404",
    ),
}  # fmt: skip
EXPORT: Final[Json] = {
    "parameters": [*_ID, _path("export_id"), *_FORMAT],
    "responses": _answers("200", _JOB, "401", "403", "404"),
}
DOWNLOAD: Final[Json] = {
    "parameters": [_path("export_id"), *_FORMAT],
    "responses": {
        "200": {
            "description": "The traces.",
            "content": {each.media_type: {"schema": {"type": "string"}} for each in Format},
        },
        **{each: {"description": _ERROR_TEXTS[each], **_content(ERROR)} for each in ("400", "403", "404")},
    },
}
PROGRESS: Final[Json] = {"parameters": _ID, "responses": _answers("200", _PROGRESS, "400", "401", "403", "404", "409")}
