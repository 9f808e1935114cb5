"""Two runs side by side: a difference is told only where the samples carry it."""

from __future__ import annotations

import random
from collections.abc import Mapping

from webapp.core.loadcompare import (
    A_LESS,
    B_LESS,
    CANNOT_TELL,
    NO_DIFFERENCE,
    SURE,
    Bars,
    Measured,
    difference,
    differences,
    estimate,
)
from webapp.core.loadplan import Plan, Target
from webapp.core.loadrecord import Record
from webapp.core.loadstats import LoadStats
from webapp.core.loadsummary import chart_data

PAIRS = 200
MS = 1_000_000


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


def run(drawn: random.Random, requests: int, slower: float = 1.0) -> Measured:
    """Return what a run measured whose requests each have a pace of their own, which the gaps of an answer share."""
    plan = Plan((Target("a", "http://127.0.0.1:1/v1", "a"),), duration_s=60, warmup_s=0, cooldown_s=0)
    stats = LoadStats(plan.window)
    for number in range(requests):
        first, pace = slower * drawn.lognormvariate(4, 0.3), slower * drawn.lognormvariate(3, 0.1)
        gaps = tuple(round(pace * drawn.uniform(0.9, 1.1) * MS) for _ in range(60))
        sent = number * MS
        marks = {"first_token": sent + round(first * MS), "last_token": sent + round(first * MS) + sum(gaps)}
        tpot = sum(gaps) // len(gaps)
        stats.add(Record("a", number, "done", sent, sent, {**marks}, gaps, tpot_ns=tpot, output_tokens=61))
    found: Mapping[str, Bars] = chart_data(plan, stats, [])["distribution"]["a"]
    return Measured(found)


def told_apart(pairs: list[tuple[Measured, Measured]]) -> bool:
    return any(found.result in (A_LESS, B_LESS) for each in differences(pairs) for found in each)


def test_of_runs_that_are_alike_no_more_are_told_apart_than_the_stated_share_however_many_gaps_they_have() -> None:
    drawn = random.Random(4)
    told = [told_apart([(run(drawn, 18), run(drawn, 18))]) for _ in range(PAIRS)]
    assert sum(told) <= (1 - SURE) * PAIRS


def test_a_backend_that_is_a_third_slower_is_told_from_sixty_requests() -> None:
    drawn = random.Random(5)
    (found,) = differences([(run(drawn, 60), run(drawn, 60, slower=4 / 3))])
    assert {each.result for each in found} == {A_LESS, CANNOT_TELL}


def test_the_more_is_looked_at_the_more_it_takes_to_tell_it() -> None:
    a, b = bars(100, 40), bars(126, 40)
    assert difference(a, b, 50).result == A_LESS
    assert difference(a, b, 50, looks=32).result == CANNOT_TELL


def test_a_time_that_a_late_host_may_have_made_is_no_difference_and_a_pace_is() -> None:
    slow, fast = ({name: bars(start, 400, 0.01) for name in ("ttft", "tpot", "e2e")} for start in (140, 100))
    ((*_, pace, whole),) = differences([(Measured(slow, late_ms=50), Measured(fast))])
    assert (pace.result, whole.result) == (B_LESS, CANNOT_TELL)
    for late in (Measured(slow, late_ms=30), Measured(slow)):
        assert {found.result for found in differences([(late, Measured(fast, late_ms=50))])[0]} == {B_LESS}
