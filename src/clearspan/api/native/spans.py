"""The part of a native body that selects spans by themselves: {"span_ids": ["00f067aa0ba902b7", "TRACE/SPAN", …]}."""

from __future__ import annotations

from typing import Final

from clearspan.deletion.request import BySpans
from clearspan.model.errors import InvalidInput
from clearspan.store.span_deletion import SPANS_MAX, normalise_name

_KEY: Final = "span_ids"
NOTHING_BESIDE: Final = ("filters", "operator", "trace_ids", "annotations", "start_time", "end_time")
"""Keys that say nothing about spans that are named."""


def parse_spans(given: object) -> BySpans:
    """Ids of spans, each alone (every copy that the key may touch) or after its trace's id and a slash.

    Raises:
        InvalidInput: no list of such ids, an empty one, or one of more than SPANS_MAX.
    """
    if not isinstance(given, list) or not given or not all(isinstance(each, str) for each in given):
        raise InvalidInput("span_ids must be a list of ids, not empty; nothing was done.", fields=(_KEY,))
    if len(given) > SPANS_MAX:
        raise InvalidInput(f"span_ids may name at most {SPANS_MAX} spans; nothing was done.", fields=(_KEY,))
    try:
        return BySpans(tuple(dict.fromkeys(normalise_name(each) for each in given)))
    except ValueError as error:
        raise InvalidInput(f"span_ids holds what is not an id: {error}.", fields=(_KEY,)) from None
