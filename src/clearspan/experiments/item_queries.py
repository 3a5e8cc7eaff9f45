"""What reads of items ask of the store: conditions on the marks that item_documents.py writes. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from clearspan.experiments.item_documents import ITEM_ID_KEY, SPLITS_KEY, UNTIL_KEY, splits_text, time_text
from clearspan.ingest.metadata import flatten
from clearspan.ingest.semconv import METADATA_VALUE_CHARS_MAX
from clearspan.query.ast import Condition, Expr, Group
from clearspan.query.fields import METADATA
from clearspan.query.operators import Operator


def item_ids(ids: Sequence[str] | None) -> Expr:
    """Every version of the items of these ids (32 hex digits); None: of all items."""
    if ids is None:
        return Condition(METADATA, Operator.IS_NOT_NULL, (), ITEM_ID_KEY)
    return Condition(METADATA, Operator.IN, tuple(ids), ITEM_ID_KEY)


def current() -> Expr:
    """Versions that hold now."""
    return Condition(METADATA, Operator.IS_NULL, (), UNTIL_KEY)


def valid_at(at_ns: int) -> Expr:
    """Versions that were not superseded by then; that they had begun is the read's window to say."""
    later = Condition(METADATA, Operator.GT, (time_text(at_ns),), UNTIL_KEY)
    return Group("OR", (current(), later))


def in_splits(splits: Sequence[str]) -> Expr:
    """Versions in any of these splits."""
    return Group(
        "OR", tuple([Condition(METADATA, Operator.CONTAINS, (splits_text([each]),), SPLITS_KEY) for each in splits])
    )


def by_metadata(said: Mapping[str, Any]) -> list[Expr]:
    """Versions whose metadata says all of this, objects by their members, lists whole."""
    pairs = [pair for key, value in said.items() for pair in flatten(value, key)]
    return [Condition(METADATA, Operator.EQUALS, (text[:METADATA_VALUE_CHARS_MAX],), key) for key, text in pairs]


def together(parts: Sequence[Expr]) -> Group:
    """All of them."""
    return Group("AND", tuple(parts))
