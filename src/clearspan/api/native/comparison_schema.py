"""What the API's description says of comparisons: parameters, the shape of the answer, and an example of it."""

from __future__ import annotations

from clearspan.api.native.schema import PAGE, Json, answers, query_parameter
from clearspan.api.native.shapes import COUNT, FLAG, MAYBE_TEXT, MAYBE_TIME, TEXT, closed, list_of, map_of, told
from clearspan.catalog.experiments import ExperimentStatus
from clearspan.experiments.comparison import Direction, Verdict
from clearspan.experiments.comparison_sides import Kind

_NUMBER: Json = {"type": "number"}
_MAYBE_NUMBER: Json = {"type": ["number", "null"]}
_VERDICT: Json = {"type": "string", "enum": [each.value for each in Verdict]}
_VALUES: Json = {
    "scores": map_of(_MAYBE_NUMBER, "Mean over the repetitions that have it, by name."),
    "cost": told(_MAYBE_NUMBER, "US dollars."),
    "latency": told(_MAYBE_NUMBER, "Seconds."),
}
_EXPERIMENT = closed(
    {
        "id": TEXT,
        "name": TEXT,
        "status": {"type": "string", "enum": [each.value for each in ExperimentStatus]},
        "created_at": MAYBE_TIME,
        "items": told(COUNT, "Items with a result."),
        "missing": told(COUNT, "Items without one, that the dataset or another experiment has."),
        "results": COUNT,
        "failed": told(COUNT, "Results with an error."),
        "waiting": told(COUNT, "Results that wait to be resumed or are not done."),
        "without_key": told(COUNT, "Results that name no item, and are compared with nothing."),
    }
)
_INTERVAL: Json = {
    "oneOf": [
        closed({"low": _NUMBER, "high": _NUMBER, "level": _NUMBER, "method": TEXT, "resamples": COUNT}),
        {"type": "null"},
    ],
    "description": "Of `difference`; null for fewer than two items.",
}
_DIFFERENCE = closed(
    {
        "id": TEXT,
        "n": told(COUNT, "Items with a value on both sides."),
        "baseline_mean": told(_MAYBE_NUMBER, "Of those items."),
        "mean": told(_MAYBE_NUMBER, "Of those items."),
        "difference": told(_MAYBE_NUMBER, "mean - baseline_mean."),
        "interval": _INTERVAL,
        "improved": COUNT,
        "regressed": COUNT,
        "unchanged": COUNT,
        "missing_baseline": told(COUNT, "Items that lack the value in the baseline only."),
        "missing": told(COUNT, "Items that lack it in the experiment only."),
        "missing_both": COUNT,
    }
)
_MEASURE = closed(
    {
        "kind": {"type": "string", "enum": [each.value for each in Kind]},
        "name": TEXT,
        "direction": {"type": "string", "enum": [each.value for each in Direction]},
        "direction_is_said": told(FLAG, "false: no config of annotations says it, and more is taken for better."),
        "experiments": list_of(closed({"id": TEXT, "n": COUNT, "mean": _MAYBE_NUMBER})),
        "differences": list_of(_DIFFERENCE),
    }
)
_SIDE = closed(
    {
        "id": TEXT,
        "trace_ids": list_of(TEXT),
        "status": MAYBE_TEXT,
        "failed": COUNT,
        "waiting": COUNT,
        **_VALUES,
        "output": MAYBE_TEXT,
        "error": MAYBE_TEXT,
    }
)
_ITEM = closed(
    {
        "comparison_key": TEXT,
        "verdict": _VERDICT,
        "loss": told(_NUMBER, "Largest loss of a score, as part of what that score spans over all items: 0 to 1."),
        "input": MAYBE_TEXT,
        "experiments": list_of({"oneOf": [_SIDE, {"type": "null"}]}),
        "differences": list_of({"oneOf": [closed({"id": TEXT, **_VALUES}), {"type": "null"}]}),
    }
)
_COMPARISON = closed(
    {
        "dataset_id": MAYBE_TEXT,
        "baseline": TEXT,
        "items": COUNT,
        "verdicts": closed({each.value: COUNT for each in Verdict}),
        "experiments": list_of(_EXPERIMENT),
        "measures": list_of(_MEASURE),
        "data": told(list_of(_ITEM), "A page of the items: regressions first, the largest loss first."),
        "next_cursor": MAYBE_TEXT,
    }
)

_FIRST, _SECOND = "exp_3f9c6a", "exp_7b21d0"
_DONE: Json = {"status": "completed", "created_at": "2026-01-31T12:00:00Z", "failed": 0, "waiting": 0, "without_key": 0}


def _example_difference(n: int, baseline: float | None, mean: float | None, **counts: int) -> Json:
    known = baseline is not None and mean is not None
    return {
        "id": _SECOND, "n": n, "baseline_mean": baseline, "mean": mean,
        "difference": round(mean - baseline, 6) if baseline is not None and mean is not None else None,
        "interval": {"low": -1.0, "high": 0.0, "level": 0.95, "method": "bootstrap BCa", "resamples": 5000}
        if known and n > 1 else None,
        "improved": 0, "regressed": 0, "unchanged": 0, "missing_baseline": 0, "missing": 0, "missing_both": 0, **counts,
    }  # fmt: skip


def _example_measure(kind: str, name: str, means: tuple[float, float], difference: Json, **rest: object) -> Json:
    sides = [{"id": own, "n": 2, "mean": mean} for own, mean in zip((_FIRST, _SECOND), means, strict=True)]
    direction = "maximize" if kind == "score" else "minimize"
    return {
        "kind": kind, "name": name, "direction": direction, "direction_is_said": kind != "score",
        "experiments": sides, "differences": [difference], **rest,
    }  # fmt: skip


def _example_side(own: str, score: float, output: str) -> Json:
    return {
        "id": own, "trace_ids": ["5b1a4f0c9a7e4c1f8d20aa51c3b7e6d4"], "status": "success", "failed": 0, "waiting": 0,
        "scores": {"exact_match": score}, "cost": 0.0021, "latency": 1.2, "output": output, "error": None,
    }  # fmt: skip


_SAME = _example_difference(2, 0.0021, 0.0021, unchanged=2, missing=1)
_WORSE = _example_difference(2, 1.0, 0.5, regressed=1, unchanged=1, missing=1)
_EXAMPLE: Json = {
    "dataset_id": "0b9a6e0e-4a51-4e55-9f0e-8f4b4b4f2d11",
    "baseline": _FIRST,
    "items": 3,
    "verdicts": {"regressed": 1, "missing": 1, "unchanged": 1, "improved": 0},
    "experiments": [
        {"id": _FIRST, "name": "prompt 7", "items": 3, "missing": 0, "results": 3, **_DONE},
        {"id": _SECOND, "name": "prompt 8", "items": 2, "missing": 1, "results": 2, **_DONE},
    ],
    "measures": [
        _example_measure("cost", "cost", (0.0021, 0.0021), _SAME),
        _example_measure("latency", "latency", (1.2, 1.2), _example_difference(2, 1.2, 1.2, unchanged=2, missing=1)),
        _example_measure("score", "exact_match", (1.0, 0.5), _WORSE),
    ],
    "data": [
        {
            "comparison_key": "3c0f6a51-8d2e-4b57-b1c7-2f9f0f7b8a10",
            "verdict": "regressed",
            "loss": 1.0,
            "input": "What is the capital of Australia?",
            "experiments": [_example_side(_FIRST, 1.0, "Canberra"), _example_side(_SECOND, 0.0, "Sydney")],
            "differences": [{"id": _SECOND, "scores": {"exact_match": -1.0}, "cost": 0.0, "latency": 0.0}],
        }
    ],
    "next_cursor": "WyJjb21wYXJpc29ucyIsMV0",
}  # fmt: skip

COMPARE: Json = {
    "parameters": [
        query_parameter(
            "experiments", list_of(TEXT), "Ids of two to ten experiments on one dataset, the baseline first.",
            required=True,
        ),
        query_parameter("evaluator", list_of(TEXT), "Only these scores: id or slug of an evaluator, or a name."),
        query_parameter("verdict", _VERDICT, "Only items that ended so."),
        query_parameter(
            "preview_length",
            {"type": "integer", "minimum": 0, "maximum": 10_000, "default": 200},
            "Characters of input, output and error; 0 leaves them out.",
        ),
        *PAGE,
    ],
    "responses": answers(
        "200", "The comparison, and a page of its items.", _COMPARISON, "404", "409", "503", example=_EXAMPLE
    ),
}  # fmt: skip
