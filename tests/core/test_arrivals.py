"""Schedules: their rates, their scatter, that seeds repeat them and workers share them."""

from __future__ import annotations

from itertools import pairwise
from statistics import mean, pstdev

import pytest

from webapp.core import arrivals
from webapp.core.arrivals import Schedule


def gaps(schedule: Schedule, duration_s: float = 400.0) -> list[float]:
    times = [arrival.at_ns / 1e9 for arrival in schedule.arrivals(7, duration_s)]
    return [b - a for a, b in pairwise(times)]


def counts(schedule: Schedule, edges: list[float]) -> list[int]:
    times = [arrival.at_ns / 1e9 for arrival in schedule.arrivals(7, edges[-1])]
    return [sum(a <= at < b for at in times) for a, b in pairwise(edges)]


def test_constant_arrivals_have_equal_gaps() -> None:
    assert gaps(arrivals.flat("constant", 4.0)) == pytest.approx([0.25] * 1598, abs=1e-6)


@pytest.mark.parametrize(("kind", "cv"), [("poisson", 1.0), ("gamma", 0.5), ("gamma", 2.0)])
def test_random_arrivals_have_the_rate_and_the_scatter_that_was_asked(kind: str, cv: float) -> None:
    found = gaps(arrivals.flat(kind, 20.0, cv))
    assert mean(found) == pytest.approx(1 / 20, rel=0.05)
    assert pstdev(found) / mean(found) == pytest.approx(cv, rel=0.07)


@pytest.mark.parametrize("kind", arrivals.KINDS)
def test_a_ramp_has_three_times_as_many_arrivals_in_its_second_half(kind: str) -> None:
    first, second = counts(arrivals.ramp(kind, 0.0, 40.0, 100.0), [0, 50, 100])
    assert first + second == pytest.approx(2000, rel=0.06)
    assert second / first == pytest.approx(3, rel=0.12)


def test_steps_keep_each_rate_for_its_share_of_the_time() -> None:
    assert counts(arrivals.steps("constant", [1, 5, 2], 30), [0, 10, 20, 30]) == pytest.approx([10, 50, 20], abs=1)


def test_a_spike_lets_everybody_press_enter_at_once() -> None:
    schedule = Schedule(spikes=((1.5, 40),))
    assert [arrival.at_ns for arrival in schedule.arrivals(1, 10)] == [1_500_000_000] * 40


@pytest.mark.parametrize("kind", arrivals.KINDS)
def test_a_rate_changed_on_the_way_leaves_what_was_before_it_as_it_was(kind: str) -> None:
    schedule = arrivals.ramp(kind, 10.0, 20.0, 60.0)
    steered = schedule.steered(30.0, 60.0)
    assert schedule.rate_at(30.0) == 15.0
    assert [steered.rate_at(at_s) for at_s in (0.0, 29.0, 30.0, 60.0)] == pytest.approx(
        [10.0, 14.83, 60.0, 60.0], abs=0.01
    )
    before = [arrival for arrival in schedule.arrivals(7, 60) if arrival.at_ns < 30e9]
    assert list(steered.arrivals(7, 60))[: len(before)] == before
    assert counts(steered, [30, 60])[0] == pytest.approx(1800, rel=0.06)


def test_a_rate_may_be_changed_often_down_to_nothing_and_up_again() -> None:
    schedule = Schedule("constant", ((0.0, 5.0),)).steered(10, 0).steered(20, 10).steered(25, 2)
    assert counts(schedule, [0, 10.01, 20, 25.01, 30.01]) == [50, 0, 50, 10]
    assert [arrival.number for arrival in schedule.arrivals(7, 30.01)] == list(range(110))


def test_the_same_seed_gives_the_same_arrivals_and_another_does_not() -> None:
    schedule = arrivals.flat("gamma", 5.0, 1.7)
    assert list(schedule.arrivals(3, 20)) == list(schedule.arrivals(3, 20))
    assert list(schedule.arrivals(3, 20)) != list(schedule.arrivals(4, 20))


def test_workers_share_one_schedule_without_gap_or_overlap() -> None:
    schedule = arrivals.flat("poisson", 50.0)
    shares = [list(schedule.share(3, 10, worker, 3)) for worker in range(3)]
    assert sorted(arrival for share in shares for arrival in share) == list(schedule.arrivals(3, 10))


def test_a_trace_is_replayed_with_its_times_and_lengths() -> None:
    trace = arrivals.read_trace("timestamp,ContextTokens,GeneratedTokens\n10.0,100,20\n11.5,200,\n")
    found = list(Schedule(trace=trace).arrivals(0, 60))
    assert [(a.at_ns, a.input_tokens, a.output_tokens) for a in found] == [(0, 100, 20), (1_500_000_000, 200, None)]


def test_a_trace_without_a_heading_is_read_too() -> None:
    assert arrivals.read_trace("0.5,10,5\n0,1,2\n") == ((0.0, 1, 2), (0.5, 10, 5))


@pytest.mark.parametrize(
    "text", ["", "time,input\nsoon,3\n", "input,output\n1,2\n", "time,input\n", "nan,1,1\n", "0,inf,5\n"]
)
def test_a_trace_that_cannot_be_read_says_why(text: str) -> None:
    with pytest.raises(ValueError, match="trace"):
        arrivals.read_trace(text)


def test_a_rate_of_nothing_never_arrives() -> None:
    assert list(arrivals.flat("poisson", 0.0).arrivals(1, 100)) == []
