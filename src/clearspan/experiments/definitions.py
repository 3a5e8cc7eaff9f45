"""What lists of experiments can be filtered and sorted by: definitions, which the Catalog holds, never their results.

An organisation has hundreds of experiments, not millions, so a filter is the same syntax tree as everywhere, evaluated
in Python. These fields are in no table of the store: no filter of traces knows them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, NamedTuple, TypeAlias
from uuid import UUID

from clearspan.catalog.experiments import Experiment, ExperimentStatus
from clearspan.experiments.definition_lists import parse_sort_by, satisfies
from clearspan.model.errors import InvalidFilter
from clearspan.query.ast import Condition, Expr
from clearspan.query.evaluate import holds
from clearspan.query.fields import Field, FieldType, Level
from clearspan.query.operators import NEGATIONS, Operator

Held: TypeAlias = str | int | None


class Known(NamedTuple):
    """An experiment, and what the Catalog says of what it names."""

    experiment: Experiment
    dataset_name: str | None = None
    evaluator_slugs: tuple[str, ...] = ()


def _field(name: str, type: FieldType, **rest: Any) -> Field:
    return Field(f"experiment.{name}", type, Level.TRACE, "", **rest)  # no SQL: never compiled


def uuid_text(hex32: str) -> str:
    """32 hex digits as a UUID with dashes."""
    return str(UUID(hex32))


def _tags(known: Known) -> list[str]:
    """A tag's text, or every text that an object used as a tag holds."""
    found: list[str] = []
    for tag in known.experiment.tags:
        values = tag.values() if isinstance(tag, dict) else (tag,)
        found += [value for value in values if isinstance(value, str)]
    return found


_T: Final = FieldType
_ONE: Final[Mapping[str, tuple[Field, Callable[[Known], Held]]]] = MappingProxyType(
    {
        "name": (_field("name", _T.TEXT), lambda known: known.experiment.name),
        "description": (_field("description", _T.TEXT), lambda known: known.experiment.description),
        "status": (
            _field("status", _T.TEXT, choices=tuple(ExperimentStatus)),
            lambda known: str(known.experiment.status),
        ),
        "dataset_name": (_field("dataset_name", _T.TEXT), lambda known: known.dataset_name),
        "created_at": (_field("created_at", _T.TIME), lambda known: known.experiment.created_at_ns),
        "started_at": (_field("started_at", _T.TIME), lambda known: known.experiment.started_at_ns),
        "completed_at": (_field("completed_at", _T.TIME), lambda known: known.experiment.completed_at_ns),
        "workflow_count": (_field("workflow_count", _T.INT), lambda known: len(known.experiment.workflow)),
        "batch_size": (_field("batch_size", _T.INT), lambda known: known.experiment.batch_size),
        "concurrency": (_field("concurrency", _T.INT), lambda known: known.experiment.concurrency),
    }
)
"""Fields with one value; a missing one matches nothing but `isnull` and `empty`."""

_SEVERAL: Final[Mapping[str, tuple[Field, Callable[[Known], Sequence[str]]]]] = MappingProxyType(
    {
        "id": (
            _field("id", _T.TEXT),
            lambda known: (known.experiment.public_id, known.experiment.uuid, uuid_text(known.experiment.uuid)),
        ),
        "dataset_id": (
            _field("dataset_id", _T.TEXT),
            lambda known: _spellings(known.experiment.dataset_uuid),
        ),
        "tags": (_field("tags", _T.TEXT), _tags),
        "evaluator_ids": (
            _field("evaluator_ids", _T.TEXT),
            lambda known: [text for each in known.experiment.evaluator_ids for text in _spellings(each)],
        ),
        "evaluator_slugs": (_field("evaluator_slugs", _T.TEXT), lambda known: known.evaluator_slugs),
    }
)
"""Fields with several values, or one in several spellings: one that fits is enough, a negation needs that none does."""

ALIASES: Final[Mapping[str, str]] = MappingProxyType({"experiment_id": "id", "dataset": "dataset_id"})
NAMES: Final = (*_SEVERAL, *_ONE)
"""What a filter may name."""
SORTABLE: Final = ("created_at", "started_at", "completed_at", "name", "status", "dataset_name", "workflow_count")
"""What `sort_by` may name."""


def find_definition_field(name: str) -> tuple[Field, None]:
    """The field that a filter's key names. Raises InvalidFilter."""
    canonical = ALIASES.get(name, name)
    found = _ONE.get(canonical) or _SEVERAL.get(canonical)
    if found is None:
        raise InvalidFilter(f"unknown filter field `{name[:100]}`; allowed: {', '.join(sorted(NAMES))}", fields=(name,))
    return found[0], None


def matches(expr: Expr | None, known: Known) -> bool:
    """Whether an experiment satisfies a filter; None is satisfied by every one."""
    return satisfies(expr, lambda condition: _holds(condition, known))


def sorted_by(sort_by: str, found: Sequence[Known]) -> list[Known]:
    """In the order of a name of SORTABLE, `-` before it for descending; missing values last, ties by creation.

    Raises:
        InvalidPage: another name.
    """
    name, descending = parse_sort_by(sort_by, SORTABLE)
    value_of = _ONE[name][1]
    by_creation = sorted(found, key=lambda each: each.experiment.project_id, reverse=descending)
    there = [each for each in by_creation if value_of(each) is not None]
    missing = [each for each in by_creation if value_of(each) is None]

    def key(known: Known) -> Any:
        return value_of(known)

    # `reverse` keeps the order of equals, which is by creation already.
    return sorted(there, key=key, reverse=descending) + missing


def _spellings(hex32: str) -> tuple[str, ...]:
    return (hex32, uuid_text(hex32)) if hex32 else ()


def _holds(condition: Condition, known: Known) -> bool:
    name = condition.field.name.removeprefix("experiment.")
    if name in _ONE:
        return holds(condition, _ONE[name][1](known))
    held = _SEVERAL[name][1](known)
    match condition.operator:
        case Operator.IS_NULL | Operator.EMPTY:
            return not held
        case Operator.IS_NOT_NULL | Operator.NOT_EMPTY:
            return bool(held)
    positive = NEGATIONS.get(condition.operator)
    if positive is not None:
        turned = Condition(condition.field, positive, condition.values)
        return bool(held) and not any(holds(turned, value) for value in held)
    return any(holds(condition, value) for value in held)
