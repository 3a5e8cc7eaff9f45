"""Walks through pages of runs while others write: each run that was there shows once, and none twice; any text is a
cursor or refused."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clearspan.api.langsmith.run_cursor import decode_cursor, encode_cursor
from clearspan.model.errors import InvalidPage
from clearspan.store.spans import SpanOrder, SpanPosition
from clearspan.testing.wire import SECOND_NS, Wire, iso, open_wire

EXAMPLES = {"memory": 15, "sqlite": 15}
STARTS = st.integers(0, 5)  # few, so that many runs begin at once
TRACES = st.lists(st.lists(STARTS, min_size=1, max_size=4), max_size=8)
"""Seconds before now at which the runs of each trace begin, its root first."""


@contextmanager
def opened(store: str) -> Iterator[Wire]:
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        yield open_wire(stack, Path(folder) / "data", store)


def send(wire: Wire, traces: list[list[int]]) -> set[str]:
    """Store traces; the ids of their runs."""
    runs: list[dict[str, Any]] = []
    for starts in traces:
        root = str(uuid.uuid4())
        for number, ago_s in enumerate(starts):
            own = str(uuid.uuid4()) if number else root
            begun_ns = wire.clock.now_ns() - ago_s * SECOND_NS
            stamp = "".join(letter for letter in iso(begun_ns) if letter.isalnum())
            order = f"{stamp}{root}" if not number else f"{stamp}{root}.{stamp}{own}"
            parent = {"parent_run_id": root} if number else {}
            runs.append({"id": own, "trace_id": root, "dotted_order": order, "name": "run", "run_type": "chain",
                         "start_time": iso(begun_ns), "end_time": iso(begun_ns + 1_000), **parent})  # fmt: skip
    if runs:
        assert wire.post("/runs/batch", {"post": runs}).status_code == 202
    return {run["id"] for run in runs}


@pytest.mark.parametrize("store", ["memory", "sqlite"])
def test_a_walk_shows_each_run_once_while_others_write(store: str) -> None:
    @settings(max_examples=EXAMPLES[store], deadline=None)
    @given(TRACES, st.lists(TRACES, max_size=4), st.integers(1, 7), st.sampled_from(["asc", "desc"]), st.booleans())
    def walk(before: list[list[int]], later: list[list[list[int]]], size: int, order: str, roots: bool) -> None:
        with opened(store) as wire:
            there = send(wire, before)
            written, pending = set(there), iter(later)
            seen: list[str] = []
            starts: list[str] = []
            cursor: str | None = None
            while True:
                body = {"limit": size, "order": order, "cursor": cursor, "is_root": True if roots else None}
                page = wire.post("/runs/query", body).json()
                seen += [run["id"] for run in page["runs"]]
                starts += [run["start_time"] for run in page["runs"]]
                cursor = page["cursors"]["next"]
                if cursor is None:
                    break
                assert len(page["runs"]) == size
                written |= send(wire, next(pending, []))
            assert len(seen) == len(set(seen)), "none twice"
            assert set(seen) <= written
            assert starts == sorted(starts, reverse=order == "desc")
            if not roots:
                assert there <= set(seen), "none left out"

    walk()


@given(st.text(max_size=200), st.sampled_from([SpanOrder.START_ASC, SpanOrder.START_DESC]))
def test_any_text_is_a_cursor_or_refused(text: str, order: SpanOrder) -> None:
    try:
        found = decode_cursor(text, order)
    except InvalidPage:
        return
    assert found is None or isinstance(found, SpanPosition)


@given(st.integers(-(2**63), 2**63 - 1), st.integers(0, 2**63 - 1), st.text(st.characters(codec="utf-8"), max_size=64))
def test_a_cursor_names_its_place_and_its_order(start_ns: int, trace_pk: int, span_id: str) -> None:
    place = SpanPosition(start_ns, trace_pk, span_id)
    text = encode_cursor(place, SpanOrder.START_DESC)
    assert decode_cursor(text, SpanOrder.START_DESC) == place
    with pytest.raises(InvalidPage):
        decode_cursor(text, SpanOrder.START_ASC)
