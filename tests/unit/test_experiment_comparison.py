"""Comparing experiments: what is better or worse, what is missing, and how sure the mean is."""

from __future__ import annotations

import math
from statistics import NormalDist
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.comparison_outcomes import Outcome, outcomes_of, side_of

from clearspan.experiments import comparison
from clearspan.experiments.bootstrap import (
    DISTINCT_PART,
    DRAWS_MAX,
    RESAMPLES_MAX,
    RESAMPLES_MIN,
    interval_of_mean,
    intervals_of_means,
)
from clearspan.experiments.comparison import (
    Comparison,
    Difference,
    Direction,
    MeasureComparison,
    Verdict,
    compare,
)
from clearspan.experiments.comparison_sides import ItemSide, Kind, Side, What


def outcome(key: str, number: int = 0, **fields: object) -> Outcome:
    return Outcome(key, f"{key}-{number}", **fields)  # type: ignore[arg-type]


def scored(**scores: float | None) -> Side:
    """One result an item with the score `exact`; None: no score."""
    return side_of([outcome(key, scores={} if score is None else {"exact": score}) for key, score in scores.items()])


def measure(comparison: Comparison, name: str) -> MeasureComparison:
    (found,) = (each for each in comparison.measures if each.measure.name == name)
    return found


def difference(comparison: Comparison, name: str = "exact") -> Difference:
    (found,) = measure(comparison, name).differences
    return found


def test_items_pair_by_key_and_regressions_come_first() -> None:
    base = scored(a=1.0, b=0.0, c=1.0, d=0.5, e=1.0, f=None)
    other = scored(a=0.0, b=1.0, c=1.0, d=0.25, g=1.0, f=None)
    found = compare([base, other])
    assert [(each.key, each.verdict.value) for each in found.items] == [
        ("a", "regressed"), ("d", "regressed"), ("e", "missing"), ("f", "missing"), ("g", "missing"),
        ("c", "unchanged"), ("b", "improved"),
    ]  # fmt: skip
    assert [each.loss for each in found.items] == [1.0, 0.25, 0, 0, 0, 0, 0]
    exact = difference(found)
    assert (exact.n, exact.improved, exact.regressed, exact.unchanged) == (4, 1, 2, 1)
    assert (exact.missing_baseline, exact.missing, exact.missing_both) == (1, 1, 1)
    assert (exact.baseline_mean, exact.mean, exact.difference) == (0.625, 0.5625, -0.0625)
    assert [(side.items, side.missing) for side in found.sides] == [(6, 1), (6, 1)]
    by_key = {each.key: each for each in found.items}
    assert by_key["e"].sides[1] is None
    assert by_key["f"].sides[1] is not None


def test_what_is_less_may_be_better() -> None:
    base, other = scored(a=1.0, b=0.0), scored(a=0.0, b=0.0)
    found = compare([base, other], directions={"exact": Direction.MINIMIZE})
    assert [each.verdict for each in found.items] == [Verdict.UNCHANGED, Verdict.IMPROVED]
    assert difference(found).difference == -0.5, "the difference is told as it is"
    assert difference(found).improved == 1
    told = measure(found, "exact").measure
    assert (told.direction, told.direction_is_said) == (Direction.MINIMIZE, True)
    assert measure(compare([base, other]), "exact").measure.direction_is_said is False


def test_repetitions_are_averaged_so_that_each_item_weighs_the_same() -> None:
    base = side_of([outcome("a", n, scores={"exact": score}) for n, score in enumerate((1.0, 0.0, 0.5))])
    other = side_of([outcome("a", scores={"exact": 1.0}), outcome("b", scores={"exact": 0.0})])
    found = compare([base, other])
    assert difference(found).difference == 0.5
    assert difference(found).n == 1
    (a,) = (each for each in found.items if each.key == "a")
    assert a.sides[0] is not None
    assert a.sides[0].trace_ids == ("a-0", "a-1", "a-2")


def test_a_repetition_without_a_score_is_left_out_of_the_mean() -> None:
    base = side_of([outcome("a", 0, scores={"exact": 1.0}), outcome("a", 1)])
    assert difference(compare([base, scored(a=1.0)])).difference == 0.0


def test_cost_and_latency_stand_beside_and_what_is_unknown_is_not_zero() -> None:
    base = side_of([outcome("a", cost_usd=1.0, latency_s=2.0), outcome("b", cost_usd=None, latency_s=1.0)])
    other = side_of([outcome("a", cost_usd=3.0, latency_s=1.0), outcome("b", cost_usd=5.0)])
    found = compare([base, other])
    cost, latency = difference(found, "cost"), difference(found, "latency")
    assert (cost.n, cost.difference, cost.missing_baseline, cost.regressed) == (1, 2.0, 1, 1)
    assert (latency.n, latency.difference, latency.missing, latency.improved) == (1, -1.0, 1, 1)
    assert [(each.n, each.mean) for each in measure(found, "cost").sides] == [(1, 1.0), (2, 4.0)]
    assert {each.verdict for each in found.items} == {Verdict.UNCHANGED}, "neither makes a regression"


def test_a_score_may_be_called_cost() -> None:
    base = side_of([outcome("a", scores={"cost": 1.0}, cost_usd=7.0)])
    found = compare([base, base])
    assert [(each.measure.kind, each.measure.name) for each in found.measures] == [
        (Kind.COST, "cost"), (Kind.LATENCY, "latency"), (Kind.SCORE, "cost"),
    ]  # fmt: skip


def test_items_that_nobody_ran_are_counted() -> None:
    found = compare([scored(a=1.0), scored(a=1.0)], items=["a", "b"])
    assert [(each.key, each.verdict) for each in found.items] == [
        ("b", Verdict.MISSING), ("a", Verdict.UNCHANGED),
    ]  # fmt: skip
    assert [side.missing for side in found.sides] == [1, 1]
    assert difference(found).missing_both == 1


def test_only_the_asked_evaluators_decide() -> None:
    base = side_of([outcome("a", scores={"x": 1.0, "y": 0.0})])
    other = side_of([outcome("a", scores={"x": 0.0, "y": 1.0})])
    assert compare([base, other]).items[0].verdict is Verdict.REGRESSED
    found = compare([base, other], evaluators=["y"])
    assert found.items[0].verdict is Verdict.IMPROVED
    assert [each.measure.name for each in found.measures] == ["cost", "latency", "y"]
    assert difference(compare([base, other], evaluators=["nobody"]), "nobody").missing_both == 1


def test_three_experiments_are_each_compared_with_the_first() -> None:
    found = compare([scored(a=0.5), scored(a=1.0), scored(a=0.0)])
    assert [each.difference for each in measure(found, "exact").differences] == [0.5, -0.5]
    assert found.items[0].verdict is Verdict.REGRESSED


def test_one_alone_is_no_comparison() -> None:
    with pytest.raises(ValueError, match="two"):
        compare([scored(a=1.0)])


def test_failed_waiting_and_nameless_results_are_told() -> None:
    base = side_of([outcome("a", 0, failed=True), outcome("a", 1, waiting=True)], without_key=3)
    found = compare([base, scored(a=1.0)])
    assert found.sides[0] == (1, 0, 5, 1, 1, 3)
    side = found.items[0].sides[0]
    assert side is not None
    assert (side.failed, side.waiting) == (1, 1)


# ---- properties ------------------------------------------------------------------------------------------------------

KEYS = st.sampled_from("abcdefgh")
SCORE = st.none() | st.sampled_from((0.0, 0.25, 0.5, 1.0, -3.0)) | st.floats(-1e6, 1e6)
SIDES = st.builds(
    side_of,
    st.lists(
        st.builds(
            lambda key, number, exact, judge, cost: Outcome(
                key,
                f"{key}-{number}",
                {name: score for name, score in (("exact", exact), ("judge", judge)) if score is not None},
                cost_usd=cost,
            ),
            KEYS, st.integers(0, 9), SCORE, SCORE, st.none() | st.floats(0, 10),
        ),
        max_size=12,
    ),
    st.integers(0, 3),
)  # fmt: skip
DIRECTIONS = st.dictionaries(st.sampled_from(("exact", "judge")), st.sampled_from(Direction))


def close(one: float | None, two: float | None) -> bool:
    return one == two if one is None or two is None else math.isclose(one, two, rel_tol=1e-9, abs_tol=1e-6)


@settings(max_examples=60, deadline=None)
@given(SIDES, SIDES, DIRECTIONS)
def test_swapping_sides_mirrors_everything(a: Side, b: Side, directions: dict[str, Direction]) -> None:
    there, back = compare([a, b], directions=directions), compare([b, a], directions=directions)
    assert there.sides == back.sides[::-1]
    for one, two in zip(there.measures, back.measures, strict=True):
        assert one.sides == two.sides[::-1]
        (x,), (y,) = one.differences, two.differences
        assert (x.n, x.improved, x.regressed, x.unchanged) == (y.n, y.regressed, y.improved, y.unchanged)
        assert (x.missing_baseline, x.missing, x.missing_both) == (y.missing, y.missing_baseline, y.missing_both)
        assert x.difference is None or close(x.difference, -(y.difference or 0.0))
        assert (x.interval is None) == (y.interval is None)
        if x.interval is not None and y.interval is not None:
            assert close(x.interval.low, -y.interval.high)
            assert close(x.interval.high, -y.interval.low)
    assert {each.key for each in there.items} == {each.key for each in back.items}


@settings(max_examples=40, deadline=None)
@given(SIDES)
def test_an_experiment_differs_from_itself_by_nothing(side: Side) -> None:
    found = compare([side, side])
    for each in found.measures:
        (same,) = each.differences
        assert same.difference in (None, 0.0)
        assert same.interval is None or (same.interval.low, same.interval.high) == (0.0, 0.0)
        assert (same.improved, same.regressed, same.missing, same.missing_baseline) == (0, 0, 0, 0)
    assert {each.verdict for each in found.items} <= {Verdict.MISSING, Verdict.UNCHANGED}


@settings(max_examples=60, deadline=None)
@given(st.lists(SIDES, min_size=2, max_size=4), st.sets(KEYS))
def test_every_item_is_counted_once_in_every_measure(sides: list[Side], items: set[str]) -> None:
    found = compare(sides, items=items)
    total = len(items.union(*(side.keys for side in sides)))
    assert len(found.items) == total == len({each.key for each in found.items})
    for each in found.measures:
        for one in each.differences:
            assert one.n + one.missing_baseline + one.missing + one.missing_both == total
            assert one.improved + one.regressed + one.unchanged == one.n
            assert one.interval is None or one.interval.low <= one.interval.high
    for side in found.sides:
        assert side.items + side.missing == total
    order = [list(Verdict).index(each.verdict) for each in found.items]
    assert order == sorted(order)
    assert sum(found.count(verdict) for verdict in Verdict) == total


def by_hand(side: Side) -> dict[str, ItemSide]:
    """Every item of a side, result by result."""
    found: dict[str, ItemSide] = {}
    for key in set(side.keys):
        mine = [each for each in outcomes_of(side) if each.key == key]
        said: dict[What, list[float]] = {what: [] for each in mine for what in each.values}
        for each in mine:
            for what, value in each.values.items():
                said[what].append(value)
        means = {
            what: math.fsum(values) / len(values) for what, values in said.items() if all(map(math.isfinite, values))
        }
        failed, waiting = sum(each.failed for each in mine), sum(each.waiting for each in mine)
        found[key] = ItemSide(tuple(sorted(each.trace_id for each in mine)), means, failed, waiting)
    return found


@settings(max_examples=60, deadline=None)
@given(SIDES, SIDES, st.sampled_from((1, comparison.MEASURES_AT_ONCE)))
def test_items_and_measures_are_those_of_the_results_one_by_one(a: Side, b: Side, at_once: int) -> None:
    with mock.patch.object(comparison, "MEASURES_AT_ONCE", at_once):
        found = compare([a, b])
    sides = [by_hand(a), by_hand(b)]
    for item in found.items:
        assert item.sides == tuple(side.get(item.key) for side in sides)
    names = {name for side in sides for each in side.values() for kind, name in each.values if kind is Kind.SCORE}
    assert [each.measure.name for each in found.measures[2:]] == sorted(names)
    for each in found.measures:
        values = [
            [one.values[each.measure.what] for one in side.values() if each.measure.what in one.values]
            for side in sides
        ]
        assert [told.n for told in each.sides] == [len(known) for known in values]
        for told, known in zip(each.sides, values, strict=True):
            assert close(told.mean, math.fsum(known) / len(known) if known else None)
    for verdict in Verdict:
        assert [found.items[at].verdict for at in found.items.places(verdict)] == [verdict] * found.count(verdict)


def test_a_mean_that_is_no_number_is_missing_and_one_of_large_numbers_is_not() -> None:
    base = side_of(
        [outcome("a", n, scores={"exact": score, "far": 1.7e308}) for n, score in enumerate((1.0, math.inf))]
    )
    found = compare([base, side_of([outcome("b", scores={"never": math.nan})])])
    assert [each.measure.name for each in found.measures] == ["cost", "latency", "far"]
    assert measure(found, "far").sides[0].mean == pytest.approx(1.7e308)


# ---- the interval ----------------------------------------------------------------------------------------------------


def test_the_interval_is_that_of_the_normal_distribution_for_many_values() -> None:
    values = np.random.default_rng(5).normal(0.3, 1.0, 2_000)
    found = interval_of_mean(values)
    assert found is not None
    half = NormalDist().inv_cdf(0.975) * float(values.std(ddof=1)) / math.sqrt(len(values))
    assert found.low == pytest.approx(float(values.mean()) - half, abs=0.1 * half)
    assert found.high == pytest.approx(float(values.mean()) + half, abs=0.1 * half)


def test_the_interval_holds_the_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(6)
    drawn = [interval_of_mean(rng.exponential(1.0, 40)) for _ in range(100)]
    held = sum(each is not None and each.low <= 1.0 <= each.high for each in drawn)
    assert 86 <= held <= 100


def test_a_skewed_sample_has_a_skewed_interval() -> None:
    values = np.array([0.0] * 28 + [1.0, 4.0])
    found = interval_of_mean(values)
    assert found is not None
    mean = float(values.mean())
    assert found.high - mean > 1.5 * (mean - found.low)


def test_the_interval_is_the_same_every_time_and_bounded_in_work() -> None:
    values = np.arange(100.0)
    assert interval_of_mean(values) == interval_of_mean(values.copy())
    assert interval_of_mean(values, seed=1) != interval_of_mean(values, seed=2)
    few, many = interval_of_mean(values), interval_of_mean(np.arange(float(DRAWS_MAX // 1_000)))
    assert few is not None
    assert few.resamples == RESAMPLES_MAX
    assert many is not None
    assert many.resamples == max(RESAMPLES_MIN, 1_000)


def test_few_distinct_values_are_drawn_by_how_often_each_comes() -> None:
    rng = np.random.default_rng(7)
    few = rng.choice([-1.0, 0.0, 1.0], 2_000, p=[0.2, 0.5, 0.3])
    assert len(np.unique(few)) * DISTINCT_PART < len(few)
    found, mirrored, beside = intervals_of_means([few, -few, rng.normal(0.0, 1.0, 2_000)])
    assert found is not None
    assert mirrored is not None
    half = NormalDist().inv_cdf(0.975) * float(few.std(ddof=1)) / math.sqrt(len(few))
    assert (found.low, found.high) == pytest.approx(
        (float(few.mean()) - half, float(few.mean()) + half), abs=0.1 * half
    )
    assert (mirrored.low, mirrored.high) == pytest.approx((-found.high, -found.low))
    assert beside is not None
    assert interval_of_mean(few) == found, "whatever stands beside it"
    assert interval_of_mean(few, seed=1) != found


@pytest.mark.parametrize(("scale", "shift"), [(0.1, 0.0), (1.0, 5.7), (3.0, 1 / 3)])
def test_rounding_does_not_move_the_interval(scale: float, shift: float) -> None:
    """A resample with seven ones of ten has exactly the sample's mean, which floats may miss by a digit either way."""
    values = np.array([1.0] * 7 + [0.0] * 3)
    plain, moved = interval_of_mean(values), interval_of_mean(values * scale + shift)
    assert plain is not None
    assert moved is not None
    assert ((moved.low - shift) / scale, (moved.high - shift) / scale) == pytest.approx((plain.low, plain.high))


@pytest.mark.parametrize("values", [[], [1.0], [1.0, math.inf], [math.nan, 0.0]])
def test_no_interval_where_there_can_be_none(values: list[float]) -> None:
    assert interval_of_mean(np.array(values)) is None


@pytest.mark.parametrize("scale", [1e-300, 1e300])
def test_extreme_scales_stay_in_range(scale: float) -> None:
    found = interval_of_mean(np.array([0.0, 1.0, 0.5, 0.25]) * scale)
    assert found is not None
    assert 0 <= found.low < found.high <= scale
    items = compare([scored(a=-scale, b=scale), scored(a=scale, b=-scale)]).items
    assert [each.verdict for each in items] == [Verdict.REGRESSED, Verdict.IMPROVED]
