"""Datasets as LangSmith's clients know them, classic and v2."""

from __future__ import annotations

from typing import Any, NamedTuple

from clearspan.api.langsmith.dataset_bodies import INPUTS_SCHEMA, OUTPUTS_SCHEMA, SOURCE_POLICY, metadata_of
from clearspan.api.langsmith.info import tenant_of
from clearspan.api.langsmith.inputs import Json, render_time, uuid_text
from clearspan.catalog import Principal
from clearspan.catalog.datasets import Dataset


class DatasetFigures(NamedTuple):
    """What is counted for a dataset. None: was not asked for."""

    example_count: int | None
    session_count: int
    last_session_ns: int | None


def render_dataset(dataset: Dataset, figures: DatasetFigures, principal: Principal) -> Json:
    """A dataset with its figures."""
    return {
        "id": uuid_text(dataset.uuid),
        "tenant_id": tenant_of(principal),
        "name": dataset.name,
        "description": dataset.description,
        "data_type": dataset.data_type,
        INPUTS_SCHEMA: dataset.inputs_schema,
        OUTPUTS_SCHEMA: dataset.outputs_schema,
        "transformations": dataset.transformations,
        "metadata": metadata_of(dataset) or None,
        "externally_managed": False,
        "baseline_experiment_id": None,
        "example_count": figures.example_count,
        "session_count": figures.session_count,
        "last_session_start_time": render_time(figures.last_session_ns),
        "created_at": render_time(dataset.created_at_ns),
        "modified_at": render_time(dataset.updated_at_ns),
        SOURCE_POLICY: str(dataset.on_source_deleted),
    }


def render_version(as_of_ns: int, tags: list[str]) -> Json:
    """One version of a dataset."""
    return {"as_of": render_time(as_of_ns), "tags": tags}


def figure_of(dataset: Dataset, figures: DatasetFigures, name: str) -> Any:
    """What datasets are put in order by."""
    known: dict[str, Any] = {
        "name": dataset.name,
        "created_at": dataset.created_at_ns,
        "modified_at": dataset.updated_at_ns,
        "last_session_start_time": figures.last_session_ns,
        "example_count": figures.example_count,
        "session_count": figures.session_count,
    }
    return known[name]
