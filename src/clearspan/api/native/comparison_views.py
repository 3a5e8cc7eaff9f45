"""A comparison of experiments as JSON. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from clearspan.api.native.views import Json, render_ns
from clearspan.catalog.experiments import Experiment
from clearspan.experiments.bootstrap import Interval
from clearspan.experiments.comparison import (
    Comparison,
    Difference,
    ItemComparison,
    MeasureComparison,
    SideSummary,
    Verdict,
)
from clearspan.experiments.comparison_sides import ItemSide, Kind, What
from clearspan.experiments.definitions import uuid_text


class Texts(NamedTuple):
    """What a page shows of one result."""

    input: str | None
    output: str | None
    status: str | None
    error: str | None


class Compared(NamedTuple):
    """A comparison, and the page of it that is shown."""

    experiments: Sequence[Experiment]
    comparison: Comparison
    page: Sequence[ItemComparison]
    texts: Mapping[tuple[int, str], Texts]  # by number of the experiment and trace id
    preview_length: int  # characters of a text


def experiment_id(experiment: Experiment) -> str:
    """The id by which clients know it."""
    return experiment.public_id if experiment.managed else uuid_text(experiment.uuid)


def comparison_json(told: Compared) -> Json:
    """The whole answer but for `next_cursor`."""
    compared = told.comparison
    dataset = told.experiments[0].dataset_uuid
    ids = [experiment_id(each) for each in told.experiments]
    return {
        "dataset_id": uuid_text(dataset) if dataset else None,
        "baseline": ids[0],
        "items": len(compared.items),
        "verdicts": {verdict.value: compared.count(verdict) for verdict in Verdict},
        "experiments": [_experiment(*each) for each in zip(told.experiments, compared.sides, strict=True)],
        "measures": [_measure(each, ids) for each in compared.measures],
        "data": [_item(each, told, ids) for each in told.page],
    }


def _experiment(experiment: Experiment, side: SideSummary) -> Json:
    return {
        "id": experiment_id(experiment),
        "name": experiment.name,
        "status": experiment.status.value,
        "created_at": render_ns(experiment.created_at_ns),
        **side._asdict(),
    }


def _measure(found: MeasureComparison, ids: Sequence[str]) -> Json:
    measure = found.measure
    return {
        "kind": measure.kind.value,
        "name": measure.name,
        "direction": measure.direction.value,
        "direction_is_said": measure.direction_is_said,
        "experiments": [
            {"id": own, "n": side.n, "mean": _number(side.mean)} for own, side in zip(ids, found.sides, strict=True)
        ],
        "differences": [_difference(own, each) for own, each in zip(ids[1:], found.differences, strict=True)],
    }


def _difference(own: str, found: Difference) -> Json:
    counts = ("improved", "regressed", "unchanged", "missing_baseline", "missing", "missing_both")
    return {
        "id": own,
        "n": found.n,
        "baseline_mean": _number(found.baseline_mean),
        "mean": _number(found.mean),
        "difference": _number(found.difference),
        "interval": _interval(found.interval),
        **{name: getattr(found, name) for name in counts},
    }


def _interval(found: Interval | None) -> Json | None:
    if found is None:
        return None
    low, high, level, resamples = found
    return {"low": low, "high": high, "level": level, "method": "bootstrap BCa", "resamples": resamples}


def _item(item: ItemComparison, told: Compared, ids: Sequence[str]) -> Json:
    sides = [
        None if side is None else _side(own, number, side, told)
        for number, (own, side) in enumerate(zip(ids, item.sides, strict=True))
    ]
    shown = [
        told.texts[number, side.trace_ids[0]]
        for number, side in enumerate(item.sides)
        if side is not None and (number, side.trace_ids[0]) in told.texts
    ]
    return {
        "comparison_key": item.key,
        "verdict": item.verdict.value,
        "loss": item.loss,
        "input": _cut(shown[0].input, told.preview_length) if shown else None,
        "experiments": sides,
        "differences": [
            None if side is None else _differences(item.sides[0], side) | {"id": own}
            for own, side in zip(ids[1:], item.sides[1:], strict=True)
        ],
    }


def _side(own: str, number: int, side: ItemSide, told: Compared) -> Json:
    text = told.texts.get((number, side.trace_ids[0]), Texts(None, None, None, None))
    return {
        "id": own,
        "trace_ids": list(side.trace_ids),
        "status": text.status,
        "failed": side.failed,
        "waiting": side.waiting,
        **_values(side.values),
        "output": _cut(text.output, told.preview_length),
        "error": _cut(text.error, told.preview_length),
    }


def _differences(baseline: ItemSide | None, side: ItemSide) -> Json:
    if baseline is None:
        return _values({})
    both = side.values.keys() & baseline.values.keys()
    return _values({what: side.values[what] - baseline.values[what] for what in both})


def _values(values: Mapping[What, float]) -> Json:
    scores = {name: _number(value) for (kind, name), value in sorted(values.items()) if kind is Kind.SCORE}
    alone = {kind.value: _number(value) for (kind, _), value in values.items() if kind is not Kind.SCORE}
    return {"scores": scores, "cost": alone.get("cost"), "latency": alone.get("latency")}


def _number(value: float | None) -> float | None:
    """A number that JSON has: sums of the largest ones may run over."""
    return value if value is not None and math.isfinite(value) else None


def _cut(text: str | None, length: int) -> str | None:
    return None if text is None or length == 0 else text[:length]
