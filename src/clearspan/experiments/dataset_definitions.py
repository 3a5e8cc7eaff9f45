"""What lists of datasets can be filtered and sorted by: definitions, which the Catalog holds, never their items.

As with experiments (definitions.py), the same syntax tree evaluated in Python over a few hundred rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, TypeAlias

from clearspan.catalog.datasets import Dataset
from clearspan.experiments.definition_lists import parse_sort_by, satisfies
from clearspan.model.errors import InvalidFilter
from clearspan.query.ast import Expr
from clearspan.query.evaluate import holds
from clearspan.query.fields import Field, FieldType, Level

Held: TypeAlias = str | int | None


def _field(name: str, type: FieldType) -> Field:
    return Field(f"dataset.{name}", type, Level.TRACE, "")  # no SQL: never compiled


_FIELDS: Final[Mapping[str, tuple[Field, Callable[[Dataset], Held]]]] = MappingProxyType(
    {
        "id": (_field("id", FieldType.ID), lambda dataset: dataset.uuid),
        "name": (_field("name", FieldType.TEXT), lambda dataset: dataset.name),
        "description": (_field("description", FieldType.TEXT), lambda dataset: dataset.description),
        "type": (_field("type", FieldType.TEXT), lambda dataset: dataset.data_type),
        "created_at": (_field("created_at", FieldType.TIME), lambda dataset: dataset.created_at_ns),
        "updated_at": (_field("updated_at", FieldType.TIME), lambda dataset: dataset.updated_at_ns),
    }
)
_BY_NAME: Final = {field.name: value for field, value in _FIELDS.values()}
SORTABLE: Final = ("created_at", "updated_at", "name")
"""What `sort_by` may name."""


def find_dataset_field(name: str) -> tuple[Field, None]:
    """The field that a filter's key names. Raises InvalidFilter."""
    found = _FIELDS.get("id" if name == "dataset_id" else name)
    if found is None:
        text = f"unknown filter field `{name[:100]}`; allowed: {', '.join(sorted(_FIELDS))}"
        raise InvalidFilter(text, fields=(name,))
    return found[0], None


def matches(expr: Expr | None, dataset: Dataset) -> bool:
    """Whether a dataset satisfies a filter; None is satisfied by every one."""
    return satisfies(expr, lambda condition: holds(condition, _BY_NAME[condition.field.name](dataset)))


def sorted_by(sort_by: str, found: Sequence[Dataset]) -> list[Dataset]:
    """In the order of a name of SORTABLE, `-` before it for descending; ties by creation.

    Raises:
        InvalidPage: another name.
    """
    name, descending = parse_sort_by(sort_by, SORTABLE)

    def key(dataset: Dataset) -> tuple[int | str, int]:
        value = _FIELDS[name][1](dataset)
        assert value is not None, "what datasets are sorted by is always there"
        return value, dataset.id

    return sorted(found, key=key, reverse=descending)
