"""What lists of datasets can be filtered and sorted by: definitions, which the Catalog holds, never their items.

As with experiments (definitions.py), the same syntax tree evaluated in Python over a few hundred rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, TypeAlias

from clearspan.catalog.datasets import Dataset
from clearspan.model.errors import InvalidFilter, InvalidPage
from clearspan.query.ast import Condition, Expr, Group, Not
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
    match expr:
        case None:
            return True
        case Condition():
            return holds(expr, _BY_NAME[expr.field.name](dataset))
        case Not():
            return not matches(expr.child, dataset)
        case Group():
            found = (matches(child, dataset) for child in expr.children)
            return all(found) if expr.connector == "AND" else any(found)
    raise AssertionError("a definition has no spans")


def sorted_by(sort_by: str, found: Sequence[Dataset]) -> list[Dataset]:
    """In the order of a name of SORTABLE, `-` before it for descending; ties by creation.

    Raises:
        InvalidPage: another name.
    """
    descending, name = sort_by.startswith("-"), sort_by.removeprefix("-")
    if name not in SORTABLE:
        allowed = ", ".join(SORTABLE)
        text = f"cannot sort by `{sort_by[:100]}`; allowed, each with an optional leading `-`: {allowed}"
        raise InvalidPage(text, fields=("sort_by",))

    def key(dataset: Dataset) -> tuple[int | str, int]:
        value = _FIELDS[name][1](dataset)
        assert value is not None, "what datasets are sorted by is always there"
        return value, dataset.id

    return sorted(found, key=key, reverse=descending)
