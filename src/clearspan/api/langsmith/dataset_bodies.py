"""What a body says of a dataset that is made or changed, and which datasets a list asks for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from starlette.datastructures import QueryParams

from clearspan.api.langsmith.inputs import Json, optional_object, optional_text, query_object, read_count, read_uuids
from clearspan.catalog.datasets import Dataset, DatasetSettings, SourcePolicy
from clearspan.experiments.item_schemas import check_schema
from clearspan.model.errors import InvalidInput

INPUTS_SCHEMA: Final = "inputs_schema_definition"
OUTPUTS_SCHEMA: Final = "outputs_schema_definition"
SOURCE_POLICY: Final = "on_source_deleted"
"""Ours: what becomes of an example when the trace that it was made from is deleted."""
LIMIT_MAX: Final = 100
_NOT_HERE: Final = ("patch_examples", "baseline_experiment_id")
_SORTS: Final = ("name", "created_at", "last_session_start_time", "example_count", "session_count", "modified_at")


@dataclass(frozen=True, slots=True)
class DatasetQuery:
    """A list of datasets, as asked for. None and empty: any."""

    uuids: tuple[str, ...]
    data_types: frozenset[str]
    name: str | None
    name_contains: str | None
    metadata: Json
    sort_by: str
    is_descending: bool
    offset: int
    limit: int

    def wants(self, dataset: Dataset) -> bool:
        """Whether a dataset is one of those asked for."""
        metadata = metadata_of(dataset)
        return (
            (not self.uuids or dataset.uuid in self.uuids)
            and (not self.data_types or dataset.data_type in self.data_types)
            and (self.name is None or dataset.name == self.name)
            and (self.name_contains is None or self.name_contains.casefold() in dataset.name.casefold())
            and all(key in metadata and metadata[key] == value for key, value in self.metadata.items())
        )

    def sorted(self, found: list[Dataset], figure_of: Callable[[Dataset, str], Any]) -> list[Dataset]:
        """The datasets in order; those without the figure come last."""
        keyed = [(figure_of(each, self.sort_by), each) for each in found]
        known = [(key, each) for key, each in keyed if key is not None]
        known.sort(key=lambda pair: (pair[0], pair[1].id), reverse=self.is_descending)
        return [each for _, each in known] + [each for key, each in keyed if key is None]


def read_dataset_name(body: Json) -> str:
    """The name that a body must give. Raises InvalidInput."""
    name = optional_text(body, "name")
    if name is None:
        raise InvalidInput("name is required.", fields=("name",))
    return name


def read_dataset_settings(body: Json, known: Dataset | None = None) -> DatasetSettings:
    """Everything else; null means "not said". Raises InvalidInput, naming the key.

    Args:
        known: the dataset that is changed: what the body does not say of its `extra` stays.
    """
    for name in _NOT_HERE:
        if body.get(name):
            raise InvalidInput(f"{name} is not available here.", fields=(name,))
    extra, metadata = optional_object(body, "extra"), optional_object(body, "metadata")
    if metadata is not None:
        extra = (extra or {}) | {"metadata": metadata}
    if extra is not None and known is not None:
        extra = (known.extra or {}) | extra
    return DatasetSettings(
        description=optional_text(body, "description"),
        data_type=optional_text(body, "data_type"),
        extra=extra,
        inputs_schema=_schema(body, INPUTS_SCHEMA),
        outputs_schema=_schema(body, OUTPUTS_SCHEMA),
        transformations=_transformations(body),
        on_source_deleted=_policy(body),
    )


def read_dataset_query(query: QueryParams, *, offset: int | None = None, limit: int | None = None) -> DatasetQuery:
    """The parameters of a list. Raises InvalidInput, naming the parameter.

    Args:
        offset, limit: where the query says the page in another way.
    """
    if query.get("tag_value_id"):  # to answer as if it were not there would show what it excludes
        raise InvalidInput("tag_value_id is not available for datasets here.", fields=("tag_value_id",))
    sort_by = query.get("sort_by") or "created_at"
    if sort_by not in _SORTS:
        raise InvalidInput(f"sort_by is one of {', '.join(_SORTS)}.", fields=("sort_by",))
    descending = query.get("sort_by_desc") or query.get("sort_order") or "true"
    if descending.lower() not in ("true", "false", "asc", "desc"):
        raise InvalidInput("sort_by_desc must be true or false.", fields=("sort_by_desc",))
    return DatasetQuery(
        uuids=tuple(read_uuids(query, "id")),
        data_types=frozenset(query.getlist("data_type")) if query.get("data_type") else frozenset(),
        name=query.get("name") or None,
        name_contains=query.get("name_contains") or None,
        metadata=query_object(query, "metadata") or {},
        sort_by=sort_by,
        is_descending=descending.lower() in ("true", "desc"),
        offset=read_count(query, "offset", 0) if offset is None else offset,
        limit=read_count(query, "limit", LIMIT_MAX, least=1, most=LIMIT_MAX) if limit is None else limit,
    )


def metadata_of(dataset: Dataset) -> Json:
    """What its maker said of a dataset: `extra.metadata`."""
    found = (dataset.extra or {}).get("metadata")
    return found if isinstance(found, dict) else {}


def _schema(body: Json, name: str) -> Json | None:
    schema = optional_object(body, name)
    if schema is None:
        schema = optional_object(body, name.removesuffix("_definition"))
    if schema is not None:
        check_schema(schema, name)
    return schema


def _transformations(body: Json) -> list[Any] | None:
    found = body.get("transformations")
    if found is None:
        return None
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise InvalidInput("transformations must be a list of objects.", fields=("transformations",))
    return found


def _policy(body: Json) -> SourcePolicy | None:
    text = optional_text(body, SOURCE_POLICY)
    if text is None:
        return None
    try:
        return SourcePolicy(text)
    except ValueError:
        known = ", ".join(SourcePolicy)
        raise InvalidInput(f"{SOURCE_POLICY} is one of {known}.", fields=(SOURCE_POLICY,)) from None
