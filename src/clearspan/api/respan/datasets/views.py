"""Datasets and their items → Respan's JSON. Pure."""

from __future__ import annotations

from typing import Any

import orjson

from clearspan.api.respan.convert import Json, Owner
from clearspan.api.respan.datasets.bodies import OURS
from clearspan.api.respan.datasets.finding import uuid_text
from clearspan.api.respan.window import render_time
from clearspan.catalog.datasets import Dataset
from clearspan.experiments.items import Item

_MEASURES = {
    "prompt_tokens": ("prompt_tokens",), "completion_tokens": ("completion_tokens",),
    "total_request_tokens": ("total_request_tokens", "total_tokens"), "cost": ("cost", "total_cost"),
    "latency": ("latency", "duration"), "model": ("model",), "status_code": ("status_code",), "status": ("status",),
    "error_code": ("error_code",), "error_message": ("error_message",),
}  # fmt: skip
"""Key of a row → keys of its metrics, the first that is there."""


def render_dataset(dataset: Dataset, owner: Owner, log_count: int | None) -> Json:
    """One dataset. Filters by which rows were first imported are not kept: they may name people."""
    own = (dataset.extra or {}).get(OURS) or {}
    return {
        "id": uuid_text(dataset.uuid),
        "name": dataset.name,
        "description": dataset.description,
        "type": dataset.data_type,
        "status": "ready",
        "granularity": own.get("granularity", "traces"),
        "initial_log_filters": {},
        "log_count": log_count,
        "unique_organization_ids": [owner.public_id],
        "created_at": render_time(dataset.created_at_ns),
        "updated_at": render_time(dataset.updated_at_ns),
        "starred": own.get("starred", False),
        "tags": [{"id": each, "name": each} for each in own.get("tags", [])],
        "running_status": None,
        "running_progress": None,
        "completed_annotation_count": None,
        "inputs_schema": dataset.inputs_schema,
        "outputs_schema": dataset.outputs_schema,
        "on_source_deleted": str(dataset.on_source_deleted),
    }


def render_log(item: Item, owner: Owner, *, is_one: bool = False) -> Json:
    """One row. Its values are written out in the text they came in.

    Args:
        is_one: not of a list: there `scores` is another kind of value.
    """
    item_id = uuid_text(item.id)
    return {
        "id": item_id,
        "unique_id": item_id,
        "dataset_id": uuid_text(item.dataset_uuid),
        "organization_id": owner.public_id,
        "environment": None,
        "timestamp": render_time(item.modified_ns),
        "start_time": render_time(item.created_ns),
        "input": _text(item, "inputs"),
        "output": _text(item, "observed" if "observed" in item.texts else "outputs"),
        "expected_output": _text(item, "outputs"),
        "metadata": _text(item, "metadata") if item.metadata else {},
        "metrics": _text(item, "metrics"),
        **_measures(item),
        "scores": [] if is_one else {},
        "splits": list(item.splits),
        "source_trace_id": None if item.source_run_id is None else uuid_text(item.source_run_id),
        "is_redacted": item.redacted,
    }


def chosen(row: Json, include_fields: str | None) -> Json:
    """The members of a row that a query names; its ids are always told."""
    if not include_fields:
        return row
    names = {"id", "unique_id", *(each.strip() for each in include_fields.split(","))}
    return {key: value for key, value in row.items() if key in names}


def _measures(item: Item) -> Json:
    metrics = item.metrics if isinstance(item.metrics, dict) else {}
    return {key: next((metrics[name] for name in names if name in metrics), None) for key, names in _MEASURES.items()}


def _text(item: Item, name: str) -> Any:
    return orjson.Fragment(item.texts.get(name, b"null"))


def measured(item: Item) -> dict[str, float]:
    """The numbers among an item's metrics that sums are made of."""
    shown = _measures(item)
    return {
        key: value
        for key in ("prompt_tokens", "completion_tokens", "total_request_tokens", "cost", "latency")
        if isinstance(value := shown[key], int | float) and not isinstance(value, bool)
    }
