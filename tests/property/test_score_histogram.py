"""Every score is in exactly one bin, and no bin counts what it does not hold."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from clearspan.experiments.histogram import BINS_MAX, OTHER, Bin, number_bins, truth_bins, word_bins

numbers = st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=60)
close = st.lists(st.integers(0, 40).map(lambda n: math.ldexp(n, -1074)), max_size=40)  # closer than 1/bins apart


def holds(each: Bin, value: float, *, is_last: bool) -> bool:
    return each.lower <= value < each.upper or (is_last and value == each.upper)


@given(st.one_of(numbers, close), st.integers(1, BINS_MAX))
def test_each_number_is_in_exactly_one_bin(values: list[float], bins: int) -> None:
    found = number_bins(values, bins)
    assert sum(each.count for each in found.bins) == found.total == len(values)
    assert found.unbinned == 0
    if not values:
        assert found.bins == []
        assert found.stats == (None, None, None)
        return
    assert len(found.bins) == (1 if min(values) == max(values) else bins)
    assert (found.bins[0].lower, found.bins[-1].upper) == (min(values), max(values))
    assert all(before.upper == after.lower for before, after in zip(found.bins, found.bins[1:], strict=False))
    last = len(found.bins) - 1
    for value in values:
        assert sum(holds(each, value, is_last=i == last) for i, each in enumerate(found.bins)) == 1
    for i, each in enumerate(found.bins):
        assert each.count == sum(holds(each, value, is_last=i == last) for value in values)
    assert (found.stats.min, found.stats.max) == (min(values), max(values))
    assert found.stats.mean is not None
    assert min(values) <= found.stats.mean <= max(values)


@given(st.lists(st.booleans(), max_size=20))
def test_false_and_true_have_a_bin_each(values: list[bool]) -> None:
    found = truth_bins(values)
    assert {each.label: each.count for each in found.bins} == (
        {"false": values.count(False), "true": values.count(True)} if values else {}
    )
    assert found.total == len(values)


@given(st.lists(st.text(max_size=3), max_size=80))
def test_each_word_is_in_exactly_one_bin(words: list[str]) -> None:
    found = word_bins([[word] for word in words])
    assert sum(each.count for each in found.bins) == found.total == len(words)
    assert len({each.label for each in found.bins}) == len(found.bins) <= BINS_MAX


def test_many_words_share_the_last_bin() -> None:
    words = [f"w{n:03d}" for n in range(60)] + ["w007"] * 3
    found = word_bins([[word] for word in words])
    assert len(found.bins) == BINS_MAX
    assert found.bins[-1].label == OTHER
    assert found.bins[-1].count == 11
    assert {each.label: each.count for each in found.bins}["w007"] == 4


def test_a_choice_of_several_counts_in_each_of_its_bins() -> None:
    found = word_bins([["a", "b"], ["b", "b"]], [1.0, 0.0])
    assert [(each.label, each.count) for each in found.bins] == [("a", 1), ("b", 2)]
    assert (found.total, found.stats) == (2, (0.0, 1.0, 0.5))
