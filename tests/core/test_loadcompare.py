"""Two runs side by side: a difference is told only where the samples carry it."""

from __future__ import annotations

from webapp.core.loadcompare import A_LESS, B_LESS, CANNOT_TELL, NO_DIFFERENCE, difference, estimate


def bars(start_ms: float, count: int, step_ms: float = 1.0) -> list[tuple[float, float, int]]:
    """Return `count` samples, one per bar."""
    return [(start_ms + k * step_ms, start_ms + (k + 1) * step_ms, 1) for k in range(count)]


def test_a_percentile_lies_in_its_interval_and_the_interval_narrows_with_samples() -> None:
    few, many = estimate(bars(100, 100), 50), estimate(bars(100, 10_000, 0.01), 50)
    assert few is not None
    assert many is not None
    assert few.interval_ms is not None
    assert many.interval_ms is not None
    assert few.interval_ms[0] < few.ms < few.interval_ms[1]
    assert many.interval_ms[1] - many.interval_ms[0] < (few.interval_ms[1] - few.interval_ms[0]) / 5
    assert abs(many.ms - 150) < 0.1


def test_a_percentile_that_samples_bound_on_one_side_only_has_no_interval() -> None:
    found = estimate(bars(100, 40), 95)
    assert found is not None
    assert found.interval_ms is None
    assert estimate(bars(100, 19), 95) is None
    assert estimate([], 50) is None


def test_clearly_apart_is_told_with_its_direction() -> None:
    assert difference(bars(100, 100), bars(300, 100), 50).result == A_LESS
    found = difference(bars(300, 100), bars(100, 100), 50)
    assert found.result == B_LESS
    assert found.ms == -200
    assert found.low_ms is not None
    assert found.high_ms is not None
    assert found.low_ms < -200 < found.high_ms < 0


def test_few_or_scattered_samples_cannot_tell() -> None:
    assert difference(bars(100, 5), bars(300, 5), 50).result == CANNOT_TELL
    assert difference(bars(100, 100, 10), bars(150, 100, 10), 50).result == CANNOT_TELL


def test_a_run_against_itself_shows_no_difference_once_there_are_enough_samples() -> None:
    same = bars(1000, 1000, 0.1)
    assert difference(same, same, 50).result == NO_DIFFERENCE
    assert difference(bars(100, 20, 10), bars(100, 20, 10), 50).result == CANNOT_TELL
