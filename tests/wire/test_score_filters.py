"""`scores__<name>` over HTTP: lists and deletions see the same scores, and each dialect takes what it should."""

from __future__ import annotations

from typing import Any

import pytest

from clearspan.model.annotation import AnnotationTarget
from clearspan.store.annotations import AnnotationWrite
from clearspan.testing.build import make_annotation
from clearspan.testing.wire import OWNER_KEY, Wire

LOW = {"scores__exact match": {"operator": "lt", "value": [0.5]}}


def score(wire: Wire, trace_id: str, value: float, number: int) -> None:
    said = make_annotation(
        "exact match", number=number, target=AnnotationTarget.TRACE, trace_id=trace_id, score=value
    )  # fmt: skip
    project_id = wire.catalog.authenticate(OWNER_KEY).project_ids[0]
    wire.services.annotating.put_annotations([AnnotationWrite((project_id,), said)], received_ns=wire.clock.now_ns())


@pytest.fixture
def scored(wire: Wire) -> Wire:
    """Traces a, b and c; c has no score, and a costs the most."""
    for number, (trace_id, value) in enumerate((("a", 0.1), ("b", 0.9), ("c", None))):
        wire.ingest(wire.span(trace_id, cost=1.0 / (number + 1)))
        if value is not None:
            score(wire, trace_id, value, number)
    return wire


def test_a_list_by_score_and_cost(scored: Wire) -> None:
    assert scored.list_ids(filters=LOW) == ["a"]
    assert sorted(scored.list_ids(filters={"scores__exact match": {"operator": "not", "value": [0.5]}})) == ["a", "b"]
    assert scored.list_ids(filters={"scores__exact match": {"operator": "isnull", "value": [True]}}) == ["c"]
    both = {"scores__exact match": {"operator": "gte", "value": [0]}, "total_cost": {"operator": "lt", "value": [0.9]}}
    assert scored.list_ids(filters=both) == ["b"]
    as_list = [{"field": "scores__exact match", "operator": "in", "value": [0.9, 7]}]
    assert scored.list_ids(filters=as_list) == ["b"]


@pytest.mark.parametrize("operator", ["contains", "icontains", "startswith", "iexact", "full_text_search"])
def test_only_numbers_fit(scored: Wire, operator: str) -> None:
    answer = scored.post("/api/traces/list/", {"filters": {"scores__x": {"operator": operator, "value": ["1"]}}})
    assert answer.status_code == 400, answer.text


def test_the_native_api_deletes_by_score_and_respans_bulk_deletion_does_not(scored: Wire) -> None:
    refused = scored.post("/api/traces/bulk-delete/", {"filters": LOW})
    assert refused.status_code == 400, refused.text
    assert "bulk deletion" in refused.text
    body: dict[str, Any] = {"filters": LOW, "delete_all": True}
    preview = scored.post("/v1/deletions/preview", body)
    assert preview.status_code == 200, preview.text
    assert preview.json()["traces"]["matched"] == 1
    plan_token = preview.json()["plan_token"]
    score(scored, "b", 0.0, 9)
    answer = scored.post("/v1/deletions", {"plan_token": plan_token})
    assert answer.status_code in (200, 202), answer.text
    assert answer.json()["traces"]["hidden"] == 1
    assert sorted(scored.list_ids()) == ["b", "c"]
