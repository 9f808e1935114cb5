"""The histogram: error bounds, exact merging, and that nothing is lost on the way through JSON."""

from __future__ import annotations

import json
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from webapp.core.histogram import Histogram, bounds_of, bucket_of
from webapp.core.stats import percentile

values = st.integers(min_value=0, max_value=10**13)


def of(samples: list[int]) -> Histogram:
    histogram = Histogram()
    histogram.record_all(samples)
    return histogram


@given(values)
def test_a_bucket_holds_its_value_and_is_at_most_a_128th_of_it_wide(value: int) -> None:
    low, high = bounds_of(bucket_of(value))
    assert low <= value < high
    assert high - low <= max(1, value / 128)


@given(values, values)
def test_buckets_are_in_the_order_of_their_values(a: int, b: int) -> None:
    assert (bucket_of(a) <= bucket_of(b)) == (bounds_of(bucket_of(a))[0] <= bounds_of(bucket_of(b))[0])


@given(st.lists(values, min_size=1, max_size=200), st.sampled_from([50, 90, 95, 99, 100]))
def test_a_percentile_is_within_one_per_cent_of_the_sample_it_stands_for(samples: list[int], percent: int) -> None:
    exact = percentile(sorted(samples), percent)
    found = of(samples).percentile(percent)
    assert found is not None
    assert abs(found - exact) <= 0.01 * exact + 0.5


@given(st.lists(st.integers(min_value=-5, max_value=10**13)))
def test_recording_many_equals_recording_each(samples: list[int]) -> None:
    one_by_one = Histogram()
    for sample in samples:
        one_by_one.record(sample)
    assert of(samples) == one_by_one


@given(st.lists(values), st.lists(values))
def test_merging_equals_recording_everything_in_one(a: list[int], b: list[int]) -> None:
    merged = of(a)
    merged.merge(of(b))
    assert merged == of(a + b)


@given(st.lists(values))
def test_plain_data_survives_json(samples: list[int]) -> None:
    assert Histogram.from_data(json.loads(json.dumps(of(samples).as_data()))) == of(samples)


def test_mean_and_maximum_are_exact() -> None:
    block = of([1_000_001, 2_000_000, 6_000_002]).summary()
    assert block["mean"] == pytest.approx(3.000001)
    assert block["max"] == 6.000002


def test_percentiles_are_absent_where_samples_are_too_few() -> None:
    block = of([5_000_000] * 19).summary()
    assert block["p90"] is not None
    assert block["p95"] is None
    assert block["p99"] is None
    assert of([]).summary() == dict.fromkeys(("mean", "p50", "p90", "p95", "p99", "max")) | {"n": 0}


def test_a_steady_stream_of_many_samples_takes_few_entries() -> None:
    random = Random(1)
    histogram = of([round(random.gauss(20e6, 2e6)) for _ in range(100_000)])
    assert len(histogram.counts) < 400


def test_a_reading_that_runs_backwards_counts_as_none() -> None:
    assert of([-5]).max == 0
