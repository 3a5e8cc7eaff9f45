"""Dataset items as LangSmith's clients know them: examples. Pure but for the signing of links."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from starlette.datastructures import QueryParams

from clearspan.api.langsmith.attachments import attachment_url
from clearspan.api.langsmith.example_bodies import SPLIT_KEY
from clearspan.api.langsmith.inputs import Json, read_switch, render_time, uuid_text
from clearspan.api.services import Services
from clearspan.catalog.datasets import Dataset
from clearspan.experiments.item_documents import Item
from clearspan.model.errors import InvalidInput

BASE_SPLIT: Final = "base"
"""The split of examples that say none."""
ATTACHMENT_URLS: Final = "attachment_urls"
FIELDS: Final = (
    "id", "dataset_id", "name", "inputs", "outputs", "metadata", "source_run_id", "created_at", "modified_at",
)  # fmt: skip
"""What a list shows that does not say."""
_ALWAYS: Final = frozenset({"id", "dataset_id"})


def read_example_fields(query: QueryParams) -> frozenset[str]:
    """Which fields a list is to show. Raises InvalidInput for one that there is not."""
    selected = frozenset(query.getlist("select")) - {""}
    if unknown := selected - {*FIELDS, ATTACHMENT_URLS}:
        known = ", ".join((*FIELDS, ATTACHMENT_URLS))
        raise InvalidInput(f"select: {min(unknown)!r} is none of {known}.", fields=("select",))
    if selected and read_switch(query, "exclude_default_fields"):
        return selected | _ALWAYS
    return selected | frozenset(FIELDS)


def render_example(
    services: Services, dataset: Dataset, item: Item, fields: Iterable[str] = (*FIELDS, ATTACHMENT_URLS)
) -> Json:
    """An example, with values in the JSON text that was sent; its attachments as links that are good for a while."""
    told: dict[str, Any] = {
        "id": uuid_text(item.id),
        "dataset_id": uuid_text(item.dataset_uuid),
        "name": f"#{item.id[:4]} @ {dataset.name}",
        # An item may hold any JSON, having come another way; these clients know objects only.
        "inputs": item.raw("inputs") if isinstance(item.inputs, dict) else {"input": item.raw("inputs")},
        "outputs": item.raw("outputs") if isinstance(item.outputs, dict | None) else {"output": item.raw("outputs")},
        "metadata": {**item.metadata, SPLIT_KEY: list(item.splits or (BASE_SPLIT,))},
        "source_run_id": None if item.source_run_id is None else uuid_text(item.source_run_id),
        "created_at": render_time(item.created_ns),
        "modified_at": render_time(item.modified_ns),
    }
    wanted = frozenset(fields)
    if ATTACHMENT_URLS in wanted:
        told[ATTACHMENT_URLS] = _links(services, dataset, item)
    return {name: value for name, value in told.items() if name in wanted}


def _links(services: Services, dataset: Dataset, item: Item) -> Json | None:
    if not item.attachments:
        return None
    return {
        f"attachment.{each.name}": {
            "presigned_url": attachment_url(
                services, dataset.project_id, None, item.trace_id, item.trace_id, each.name
            ),
            "mime_type": each.mime_type,
        }
        for each in item.attachments
    }
