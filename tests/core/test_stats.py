"""Percentiles by nearest rank, against the definition done the long way."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webapp.core.stats import ENOUGH_FOR, percentile, summarise

SAMPLES = st.lists(st.floats(0, 1e6), min_size=1, max_size=200)


def nearest_rank(samples: list[float], percent: int) -> float:
    """Return the smallest sample that at least `percent` % of all are not above (exact arithmetic)."""
    enough = Fraction(percent, 100)
    return min(v for v in samples if Fraction(sum(other <= v for other in samples), len(samples)) >= enough)


@given(SAMPLES, st.integers(1, 100))
def test_a_percentile_is_the_nearest_rank(samples: list[float], percent: int):
    assert percentile(sorted(samples), percent) == nearest_rank(samples, percent)


def test_no_rank_is_off_by_one_through_rounding():
    for n in range(1, 401):
        ranks = [percentile(range(1, n + 1), percent) for percent in range(1, 101)]
        assert ranks == [-(-percent * n // 100) for percent in range(1, 101)], n


def test_the_0th_percentile_is_the_least_and_the_100th_the_greatest():
    assert (percentile([1, 2, 3], 0), percentile([1, 2, 3], 100)) == (1, 3)


def test_no_samples_have_no_percentile_and_no_summary():
    with pytest.raises(ValueError, match="no samples"):
        percentile([], 50)
    assert summarise([]) is None


def test_one_sample_is_every_percentile():
    found = summarise([7.0])
    assert found is not None
    assert found.as_dict() == {"n": 1, "mean": 7, "p50": 7, "p90": 7, "p95": 7, "p99": 7, "max": 7}


@given(SAMPLES, st.randoms())
def test_a_summary_does_not_depend_on_the_order_and_its_figures_are_in_order(samples: list[float], random: object):
    found = summarise(samples)
    mixed = list(samples)
    random.shuffle(mixed)  # type: ignore[attr-defined]
    assert summarise(mixed) == found
    assert found is not None
    assert min(samples) <= found.p50 <= found.p90 <= found.p95 <= found.p99 <= found.max == max(samples)
    assert {found.p50, found.p90, found.p95, found.p99} <= set(samples)  # values that were measured
    assert found.mean == pytest.approx(sum(samples) / len(samples))


def test_a_percentile_is_enough_where_the_largest_sample_probably_lies_above_it():
    assert all(1 - (percent / 100) ** n >= 0.63 for percent, n in ENOUGH_FOR.items())
